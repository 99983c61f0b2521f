# SPDX-License-Identifier: Apache-2.0
"""Log lines of operator and agent: a constant message plus fields, as text for people or JSON for machines.

``log.info("knob written", extra={"knob": "offload.channels", "after": "8"})``

* One record is one line, whatever is in it: line breaks and control characters of values are escaped, so nothing
  that comes from an object or a kernel file can forge a line.
* A field whose name says that it is a secret is never printed.
* Times are UTC, with milliseconds. Lines go to standard error, so that standard output stays for output.

Sources: Kubernetes TMP-LOGGING.md (controller-runtime); OpenTelemetry log data model for the names of the JSON keys.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, TextIO

_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "color_message"}
_SECRET: Final = ("token", "password", "secret", "authorization", "credential")
_HIDDEN: Final = "***"
_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:+@%#~*")


class LogFormat(StrEnum):
    """How log lines look."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """Lines below this level are not written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class TextFormatter(logging.Formatter):
    """``2026-01-02T03:04:05.678Z INFO  knob written knob=offload.channels after=8``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of `record`; a traceback follows as one escaped field."""
        fields = "".join(f" {name}={_quoted(value)}" for name, value in fields_of(record).items())
        return f"{_time(record)} {record.levelname:<7} {_one_line(record.getMessage())}{fields}"


class JsonFormatter(logging.Formatter):
    """``{"time": "…", "level": "info", "message": "knob written", "logger": "…", "knob": "offload.channels"}``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of `record`; a field never hides time, level, message or logger."""
        head = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "logger": record.name,
        }
        return json.dumps({**head, **fields_of(record), **head}, default=str)


_FORMATTERS: Final[Mapping[LogFormat, type[logging.Formatter]]] = {
    LogFormat.TEXT: TextFormatter,
    LogFormat.JSON: JsonFormatter,
}


def set_up_logs(log_format: LogFormat, level: LogLevel, stream: TextIO | None = None) -> None:
    """Send the log lines of this process to `stream` (standard error); replaces earlier handlers."""
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(_FORMATTERS[log_format]())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(capture=True)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return what was given as ``extra``, secrets hidden, and the traceback when there is one."""
    fields = {
        name: _HIDDEN if _is_secret(name) else value for name, value in vars(record).items() if name not in _STANDARD
    }
    if record.exc_info:
        fields["traceback"] = logging.Formatter().formatException(record.exc_info)
    return fields


def _is_secret(name: str) -> bool:
    return any(word in name.lower() for word in _SECRET)


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _quoted(value: object) -> str:
    text = str(value)
    # Beyond ASCII some characters end a line too, so what is not printable is escaped, whatever it is.
    return text if text and _PLAIN.issuperset(text) else json.dumps(text, ensure_ascii=not text.isprintable())


def _one_line(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)[1:-1]
