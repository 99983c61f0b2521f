# SPDX-License-Identifier: Apache-2.0
"""The kernel's log, as far as the driver and the core of the series write to it, with printk's rate limit.

Sources: lib/ratelimit.c (at most 10 lines in 5 s per place in the code, then "callbacks suppressed"); the texts are
those of "mm: batch migration copy offload" and its predecessor of April 2026.
"""

from __future__ import annotations

from collections import deque
from typing import Final

LINES_MAX: Final = 1000
"""A kernel's log is a ring too; its size is counted in bytes there."""
BURST: Final = 10
INTERVAL_SECONDS: Final = 5.0


class KernelLog:
    """Lines of one boot."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=LINES_MAX)
        self.errors: deque[str] = deque(maxlen=LINES_MAX)
        self._begin: float | None = None
        self._printed = self._missed = 0

    def say(self, line: str) -> None:
        """Write a line; an empty one is none."""
        if line:
            self.lines.append(line)

    def say_error(self, line: str) -> None:
        """Write a line at error level."""
        self.errors.append(line)
        self.say(line)

    def say_limited(self, line: str, place: str, now: float, times: int = 1) -> None:
        """Write a line of the one rate-limited place, `times` over at the moment `now` (seconds)."""
        if self._begin is None or now - self._begin > INTERVAL_SECONDS:
            if self._missed:
                self.say(f"{place}: {self._missed} callbacks suppressed")
            self._begin, self._printed, self._missed = now, 0, 0
        printed = min(times, BURST - self._printed)
        self.lines.extend([line] * printed)
        self._printed += printed
        self._missed += times - printed
