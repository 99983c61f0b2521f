# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from numamigration_api.machinery.logs import JsonFormatter, LogFormat, LogLevel, TextFormatter, set_up_logs


def record(message: str = "knob written", **fields: Any) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "agent", "levelname": "INFO", "msg": message, "created": 0.0, **fields})
    made.created = 1_767_323_045.678
    return made


def test_a_text_line_is_time_level_message_and_fields() -> None:
    line = TextFormatter().format(record(knob="offload.channels", after="8"))

    assert line == "2026-01-02T03:04:05.678Z INFO    knob written knob=offload.channels after=8"


def test_a_json_line_has_the_same_fields() -> None:
    line = JsonFormatter().format(record(knob="offload.channels", channels=8))

    assert json.loads(line) == {
        "time": "2026-01-02T03:04:05.678Z",
        "level": "info",
        "message": "knob written",
        "logger": "agent",
        "knob": "offload.channels",
        "channels": 8,
    }


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()], ids=["text", "json"])
@pytest.mark.parametrize("nasty", ["a\nb", "a\r\nERROR forged", "\x1b[31m", "\u2028"], ids=repr)
def test_nothing_in_a_value_or_message_makes_a_second_line(formatter: logging.Formatter, nasty: str) -> None:
    """Promise 14: a node name or a kernel file cannot forge a log line."""
    line = formatter.format(record(nasty, node=nasty))

    assert len(line.splitlines()) == 1
    assert "\x1b" not in line


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()], ids=["text", "json"])
@pytest.mark.parametrize("name", ["token", "Authorization", "client_secret", "password"])
def test_a_field_named_like_a_secret_is_not_printed(formatter: logging.Formatter, name: str) -> None:
    line = formatter.format(record(**{name: "hunter2"}))

    assert "hunter2" not in line
    assert "***" in line


def test_a_field_cannot_hide_the_message() -> None:
    made = record()
    made.__dict__["level"] = "forged"

    assert json.loads(JsonFormatter().format(made))["level"] == "info"


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()], ids=["text", "json"])
def test_a_traceback_stays_on_the_line(formatter: logging.Formatter) -> None:
    error = ValueError("bad\nvalue")

    line = formatter.format(record(exc_info=(ValueError, error, None)))

    assert len(line.splitlines()) == 1
    assert "ValueError" in line


def test_a_value_that_json_does_not_have_is_printed_as_text() -> None:
    assert json.loads(JsonFormatter().format(record(error=OSError("no"))))["error"] == "no"


@pytest.fixture
def root() -> Iterator[None]:
    logger = logging.getLogger()
    handlers, level = logger.handlers, logger.level
    yield
    logger.handlers = handlers
    logger.setLevel(level)
    logging.captureWarnings(capture=False)


@pytest.mark.usefixtures("root")
def test_lines_below_the_level_are_not_written() -> None:
    stream = io.StringIO()
    set_up_logs(LogFormat.TEXT, LogLevel.WARNING, stream)
    log = logging.getLogger("test_logs")

    log.info("not this")
    log.warning("this")

    assert stream.getvalue().endswith("WARNING this\n")
    assert "not this" not in stream.getvalue()
