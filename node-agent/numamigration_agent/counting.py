# SPDX-License-Identifier: Apache-2.0
"""When counters are read, and what becomes of the readings: totals, rates, and the window of one revision. Pure.

Counters that are due soon are read with whatever wakes the agent: waking up costs more than reading.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from numamigration_agent.jobs import ReadCounters
from numamigration_agent.kernel.counters import Look
from numamigration_agent.statistics import DRIFT_CORRECTIONS, Statistics, add_sample, add_to_total
from numamigration_agent.window import Window, advance_window, begin_window
from numamigration_api.machinery.clock import timestamp
from numamigration_api.machinery.records import replace
from numamigration_api.vocabulary import Dialect

NUMA_NODES_SECONDS: Final = 60.0  # for reports, which are minutes apart; kernel/counters.py has the price
EARLY_SECONDS_MAX: Final = 1.0


class Counting:
    """The numbers of one node.

    Attributes:
        statistics: so far.
        since: when they began, for people.
        window: of the revision that was last decided on.
        due_at: when counters are to be read, at the latest (monotonic seconds).
    """

    def __init__(self, window_seconds: float) -> None:
        self._window_seconds = window_seconds
        self.statistics = add_to_total(Statistics(), DRIFT_CORRECTIONS, 0)
        self.since: str | None = None
        self.window: Window | None = None
        self.due_at = self._numa_nodes_at = 0.0
        self._early = _early(window_seconds)

    def resume(self, statistics: Statistics, since: str | None, window: Window | None) -> None:
        """Go on with what an earlier life of this agent knew."""
        self.statistics, self.since, self.window = statistics, since, window

    def next_job(self, dialect: Dialect, now: float) -> ReadCounters | None:
        """Return the reading that is due."""
        if now < self.due_at - self._early:
            return None
        numa_nodes = now >= self._numa_nodes_at
        if numa_nodes:
            self._numa_nodes_at = now + NUMA_NODES_SECONDS
        return ReadCounters(dialect, numa_nodes)

    def hasten(self, due_at: float) -> None:
        """Have counters read at a time, unless they are read earlier anyway."""
        if due_at < self.due_at:
            self.due_at, self._early = due_at, 0.0

    def counted(self, look: Look, now: float, wall: datetime, wait_max: float) -> None:
        """Take a reading; the next one is due after the statistics window or `wait_max`, whichever is shorter."""
        wait = min(self._window_seconds, wait_max)
        self.due_at, self._early = now + wait, _early(wait)
        self.since = self.since or timestamp(wall)
        known = add_sample(self.statistics, at=now, counters=look.counts, window_seconds=self._window_seconds)
        thp_pages = look.thp_pages if look.numa_nodes else known.thp_pages
        self.statistics = replace(known, pressures=look.pressures, thp_pages=thp_pages)

    def corrected(self, number: int) -> None:
        """Count knobs that were set back."""
        self.statistics = add_to_total(self.statistics, DRIFT_CORRECTIONS, number)

    def decided(self, revision: str | None) -> None:
        """Begin the window of a revision that is decided on for the first time."""
        if revision and (self.window is None or self.window.revision != revision):
            self.window = begin_window(revision, self.statistics)

    def soaked(self, in_force: str | None, soak_seconds: float) -> bool:
        """Advance the window by the last reading; returns whether the soak that was asked for has just ended.

        Args:
            in_force: the revision that is in force; None when none is.
            soak_seconds: that the spec asks for; 0 when nobody waits for the numbers.
        """
        if self.window is None or self.window.after is not None:
            return False
        self.window = advance_window(
            self.window,
            self.statistics,
            in_force=in_force == self.window.revision,
            seconds=max(soak_seconds, self._window_seconds),
        )
        return self.window.after is not None and soak_seconds > 0


def _early(wait: float) -> float:
    return min(EARLY_SECONDS_MAX, wait / 10)
