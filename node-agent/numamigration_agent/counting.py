# SPDX-License-Identifier: Apache-2.0
"""When counters are read, and what becomes of the readings: totals, rates, soaks, and the window of a revision. Pure.

Counters that are due soon are read with whatever wakes the agent: waking up costs more than reading. While a wish
soaks they are read at its begin and its end, and in between as often as guardrails need.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from numamigration_agent.groups import GroupPlan
from numamigration_agent.jobs import ReadCounters
from numamigration_agent.kernel.counters import Look
from numamigration_agent.soaks import READING_SECONDS_MIN, Soaks, decide_soaks, read_soaks
from numamigration_agent.statistics import DRIFT_CORRECTIONS, Statistics, add_sample, add_to_total
from numamigration_agent.window import Window, advance_window, begin_window, cross_window, tell_window
from numamigration_agent.wishes import Spec
from numamigration_api.machinery.clock import NEVER, timestamp
from numamigration_api.machinery.records import replace
from numamigration_api.vocabulary import Dialect

NUMA_NODES_SECONDS: Final = 60.0  # for reports, which are minutes apart; kernel/counters.py has the price
EARLY_SECONDS_MAX: Final = 1.0
GUARD_SECONDS_MAX: Final = 15.0
GUARD_READINGS: Final = 10  # of a soak at least, so that what crosses a limit is told well before its end


class Counting:
    """The numbers of one node.

    Attributes:
        statistics: so far.
        since: when they began, for people.
        window: of the revision that was last decided on.
        soaks: of the wishes that were last decided on.
        due_at: when counters are to be read, at the latest (monotonic seconds).
        ours_until: until when pages of a trial moved (monotonic seconds): no soak begins with an earlier reading.
    """

    def __init__(self, window_seconds: float) -> None:
        self._window_seconds = window_seconds
        self.statistics = add_to_total(Statistics(), DRIFT_CORRECTIONS, 0)
        self.since: str | None = None
        self.window: Window | None = None
        self.soaks = Soaks()
        self.due_at = self._numa_nodes_at = self.ours_until = 0.0
        self._early = early(window_seconds)

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
        self.due_at, self._early = now + wait, early(wait)
        self.since = self.since or timestamp(wall)
        known = add_sample(self.statistics, at=now, counters=look.counts, window_seconds=self._window_seconds)
        thp_pages = look.thp_pages if look.numa_nodes else known.thp_pages
        self.statistics = replace(known, pressures=look.pressures, thp_pages=thp_pages)

    def corrected(self, number: int) -> None:
        """Count knobs that were set back."""
        self.statistics = add_to_total(self.statistics, DRIFT_CORRECTIONS, number)

    def decided(self, spec: Spec, groups: Iterable[GroupPlan], now: float) -> None:
        """Take in what is to be said of a spec's groups; the window of a new revision begins."""
        self.soaks = decide_soaks(self.soaks, groups, seconds=spec.soak_seconds, now=now)
        if spec.revision and (self.window is None or self.window.revision != spec.revision):
            before = self.window.before if self.window and self.soaks.first else None
            self.window = begin_window(spec.revision, self.statistics, before)
        self._hasten_soaks(spec, now)

    def leave_out(self) -> None:
        """Let the numbers of soaks and window begin anew: pages of a trial are moving, or were until now."""
        self.soaks = self.soaks.read_anew()
        if self.window is not None and self.window.after is None:
            self.window = replace(self.window, first=None)

    def trial_over(self, now: float) -> None:
        """Leave out what the pages of a trial have brought until now."""
        self.leave_out()
        self.ours_until = now
        if self.soaks.running:
            self.hasten(now)

    def soaked(self, spec: Spec, in_force: str | None, now: float) -> bool:
        """Advance soaks and window by the last reading.

        Args:
            spec: that was decided on last.
            in_force: the revision that is in force; None when none is.
            now: of a monotonic clock.

        Returns:
            Whether it brought what somebody waits for: the end of a soak, or a guardrail that became crossed.
        """
        soaks, window = self.soaks, self.window and self._guarded(self.window, spec)
        crossed = window is not None and bool(window.crossed)
        self.soaks = read_soaks(soaks, self.statistics.history[-1], seconds=spec.soak_seconds, crossed=crossed)
        has_crossed = window is not None and self.window is not None and window.crossed != self.window.crossed
        if window is not None:
            self.window = self._advanced(window, soaks, spec, in_force == window.revision)
        self._hasten_soaks(spec, now)
        return has_crossed or soaks.done != self.soaks.done

    def _guarded(self, window: Window, spec: Spec) -> Window:
        """Return the window with what its guardrails say of the last reading."""
        first = self.soaks.first or (window.first if window.after is None else None)
        return window if first is None else cross_window(window, first, self.statistics, spec.guardrails)

    def _advanced(self, window: Window, soaks: Soaks, spec: Spec, in_force: bool) -> Window:
        known = self.statistics
        over = soaks.without(self.soaks.running).first
        if over is not None:
            return tell_window(window, over, known)
        return advance_window(window, known, in_force=in_force, seconds=max(spec.soak_seconds, self._window_seconds))

    def _hasten_soaks(self, spec: Spec, now: float) -> None:
        """Have counters read when a soak begins or ends, and often enough for guardrails while it lasts."""
        if self.soaks.lacks_first:
            self.hasten(now)
        elif self.soaks.running:
            wait = max(READING_SECONDS_MIN, min(GUARD_SECONDS_MAX, spec.soak_seconds / GUARD_READINGS))
            held_up = self.window is not None and bool(self.window.crossed)
            ends_at = NEVER if held_up else self.soaks.ends_at(spec.soak_seconds)
            self.hasten(min(ends_at, now + wait if spec.guardrails else NEVER))


def early(wait: float) -> float:
    """Return by how much sooner than after `wait` seconds something may be done while the agent is awake anyway."""
    return min(EARLY_SECONDS_MAX, wait / 10)
