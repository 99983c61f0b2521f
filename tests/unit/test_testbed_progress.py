# SPDX-License-Identifier: Apache-2.0
"""What a waiting person sees."""

from __future__ import annotations

import io

import pytest

from tests.testbed.progress import ERASE_LINE, Progress, elapsed

pytestmark = pytest.mark.uncounted


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def ticks(stream: io.StringIO, *, seconds: int) -> str:
    clock = Clock()
    progress = Progress(stream, clock)
    for second in range(seconds):
        progress.tick(f"building {second}")
        clock.now += 1.0
    return stream.getvalue()


def test_log_gets_a_line_every_15_seconds() -> None:
    assert ticks(io.StringIO(), seconds=31) == "building 0\nbuilding 15\nbuilding 30\n"


def test_terminal_line_is_rewritten_every_second() -> None:
    assert ticks(Terminal(), seconds=3) == "".join(f"{ERASE_LINE}building {second}" for second in range(3))


def test_note_replaces_the_moving_line_of_a_terminal() -> None:
    stream = Terminal()
    progress = Progress(stream, Clock())
    progress.tick("building")
    progress.note("done")

    assert stream.getvalue() == f"{ERASE_LINE}building{ERASE_LINE}done\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        pytest.param(0.4, "0 s", id="less than a second"),
        pytest.param(59.9, "59 s", id="just below a minute"),
        pytest.param(60, "1 min 00 s", id="a minute"),
        pytest.param(425, "7 min 05 s", id="a build"),
    ],
)
def test_duration_is_said_as_people_do(seconds: float, text: str) -> None:
    assert elapsed(seconds) == text
