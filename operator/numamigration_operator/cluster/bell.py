# SPDX-License-Identifier: Apache-2.0
"""Wakes a loop that waits for something to happen or for a time to come, whichever is first."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable


class Bell:
    """Rung from anywhere on the event loop; one ring wakes one wait, also a later one.

    Args:
        clock: monotonic seconds, in which `wait` is told its end.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wake the wait, or the next one."""
        self._rung.set()

    async def wait(self, until: float | None) -> None:
        """Return at a ring, or at a time (None: never without a ring)."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if until is None else max(0.0, until - self._clock())):
                await self._rung.wait()
        self._rung.clear()
