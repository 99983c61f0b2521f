# SPDX-License-Identifier: Apache-2.0
"""Numbers before and after the change to one revision, by which an operator judges it. Pure.

* ``before`` ends when the revision is first decided on, which is before anything of it is written. An agent that has
  just started knows no before, and does not make one up from numbers that the change may have moved already.
* ``after`` begins with the first sample after the revision was found in force, and is told once it is as long as the
  soak that was asked for, at least one statistics window. What is not in force any more meanwhile begins anew.
* Both are as JSON has them, so that they outlive the agent in the status.
* A counter that was not there at both ends is absent. Pressure is what the kernel says at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from numamigration_agent.statistics import Sample, Statistics
from numamigration_api.machinery.quantities import decimal_text
from numamigration_api.machinery.records import dataclass, replace
from numamigration_api.machinery.shapes import mapping

_COUNTERS: Final = {
    "folios_migrated": "foliosMigrated",
    "folios_failed": "foliosFailed",
    "folios_refused": "foliosRefused",
    "batches_refused": "batchesRefused",
    "pages_migrated": "pagesMigrated",
    "pages_migration_failed": "pagesMigrationFailed",
}
_PRESSURES: Final = {"memory_pressure": "memoryPressure", "cpu_pressure": "cpuPressure"}


@dataclass(frozen=True, slots=True)
class Window:
    """What is known of the change to one revision.

    Attributes:
        revision: of the spec.
        before: None when there are no numbers of before.
        after: None while it is being watched.
        first: the sample with which `after` begins; None while the revision is not in force.
    """

    revision: str
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    first: Sample | None = None


def begin_window(revision: str, known: Statistics) -> Window:
    """Return the window of a revision that nothing of was written yet."""
    samples = (*known.past[:1], *known.history[-1:])
    return Window(revision, _numbers(samples[0], samples[-1], known) if samples else None)


def advance_window(window: Window, known: Statistics, *, in_force: bool, seconds: float) -> Window:
    """Return the window after one more sample.

    Args:
        window: so far.
        known: the statistics with the sample.
        in_force: the revision is.
        seconds: how long `after` shall be.
    """
    if window.after is not None:
        return window
    if not in_force:
        return replace(window, first=None)
    newest = known.history[-1]
    if window.first is None:
        return replace(window, first=newest)
    if newest.at - window.first.at < seconds:
        return window
    return replace(window, after=_numbers(window.first, newest, known), first=None)


def window_json(window: Window) -> dict[str, Any]:
    """Return the window as the status has it."""
    sides = {"before": window.before, "after": window.after}
    return {"revision": window.revision, **{side: numbers for side, numbers in sides.items() if numbers}}


def window_of_status(status: Mapping[str, Any]) -> Window | None:
    """Return the window that a status has."""
    known = mapping(status.get("window"))
    before, after = (mapping(known.get(name)) or None for name in ("before", "after"))
    return Window(known["revision"], before, after) if isinstance(known.get("revision"), str) else None


def _numbers(first: Sample, last: Sample, known: Statistics) -> Mapping[str, Any] | None:
    if last.at <= first.at:
        return None
    grown = {
        key: last.totals[name] - first.totals[name]
        for name, key in _COUNTERS.items()
        if name in first.totals and name in last.totals
    }
    pressures = {key: known.pressures[name] for name, key in _PRESSURES.items() if name in known.pressures}
    return {"seconds": decimal_text(last.at - first.at), **grown, **pressures}
