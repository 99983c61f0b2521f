# SPDX-License-Identifier: Apache-2.0
"""One line that tells a waiting person what is going on.

On a terminal the line is rewritten in place; elsewhere (continuous integration) a new line comes now and then, so
that a log stays short and nobody takes a long build for a hang.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Final, TextIO

TERMINAL_SECONDS: Final = 1.0
LOG_SECONDS: Final = 15.0

ERASE_LINE: Final = "\r\x1b[2K"
"""Carriage return, then ECMA-48 "erase in line"."""


class Progress:
    """Shows what is being waited for; ``note`` for lines that stay, ``tick`` for the line that moves."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream or sys.stderr
        self._clock = clock
        self._terminal = self._stream.isatty()
        self._seconds = TERMINAL_SECONDS if self._terminal else LOG_SECONDS
        self._next = clock()
        self._open_line = False

    def note(self, text: str) -> None:
        """Print a line of its own."""
        self._write((ERASE_LINE if self._open_line else "") + text + "\n")
        self._open_line = False

    def tick(self, text: str) -> None:
        """Show the state of a wait, unless the last one was shown a moment ago."""
        if self._clock() < self._next:
            return
        self._next = self._clock() + self._seconds
        self._write(ERASE_LINE + text if self._terminal else text + "\n")
        self._open_line = self._terminal

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def elapsed(seconds: float) -> str:
    """Say a duration as people do: ``48 s``, ``3 min 05 s``."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
