# SPDX-License-Identifier: Apache-2.0
"""Virtual time: what shall happen when, and in which order at the same moment. One thread, one seed.

Processes (operators, agents) end, stop and go on: what was to happen in one that has ended does not happen, and what
was to happen in one that is stopped happens when it goes on, in the same order.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final

START: Final = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
"""What every right clock says at 0."""

Action = Callable[[], None]


class Clock:
    """Virtual time.

    Attributes:
        now: monotonic seconds, the same for everybody: only wall clocks differ.
        steps: actions done so far.
        on_step: called after each one.
    """

    def __init__(self, rng: Random) -> None:
        self.now = 0.0
        self.steps = 0
        self.on_step: Action = _nothing
        self._rng = rng
        self._due: list[tuple[float, float, int, Action]] = []
        self._count = 0

    def at(self, when: float, action: Action, *, order: float | None = None) -> None:
        """Do something then; of things at the same moment chance says which is first, unless `order` does."""
        self._count += 1
        chance = self._rng.random() if order is None else order
        heapq.heappush(self._due, (max(when, self.now), chance, self._count, action))

    def after(self, seconds: float, action: Action) -> None:
        """Do something so many seconds from now."""
        self.at(self.now + seconds, action)

    def run(self, until: float) -> None:
        """Do what is due, and let time pass."""
        due = self._due
        while due and due[0][0] <= until:
            self.now, _, _, action = heapq.heappop(due)
            action()
            self.steps += 1
            self.on_step()
        self.now = max(self.now, until)


class Process:
    """Something that lives on the clock, and may end, stop and go on.

    Attributes:
        lives: how often it was started.
        alive: it has been started and has not ended.
        skew: seconds by which its wall clock is ahead.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.lives = 0
        self.alive = False
        self.skew = 0.0
        self._stopped = False
        self._kept: list[Action] = []

    @property
    def stopped(self) -> bool:
        """It does nothing at the moment, and will go on."""
        return self._stopped

    def now(self) -> float:
        """Return monotonic seconds."""
        return self.clock.now

    def wall(self) -> datetime:
        """Return what its wall clock says."""
        return START + timedelta(seconds=self.clock.now + self.skew)

    def begin(self) -> None:
        """Start a life."""
        self.lives += 1
        self.alive, self._stopped = True, False
        self._kept.clear()

    def end(self) -> None:
        """End this life at this very moment."""
        self.alive = False

    def stop(self) -> None:
        """Do nothing from now on, as after SIGSTOP."""
        self._stopped = self.alive

    def go_on(self) -> None:
        """Go on after a stop."""
        self._stopped = False
        kept, self._kept = self._kept, []
        for number, action in enumerate(kept):
            self.clock.at(self.clock.now, action, order=number / (len(kept) + 1))

    def mine(self, action: Action) -> Action:
        """Return `action` as something that this life does: not after its end, and not while it is stopped."""
        life = self.lives

        def done() -> None:
            if not self.alive or self.lives != life:
                return
            if self._stopped:
                self._kept.append(done)
            else:
                action()

        return done

    def at(self, when: float, action: Action) -> None:
        """Do something then, if this life is not over."""
        self.clock.at(when, self.mine(action))


def _nothing() -> None:
    pass
