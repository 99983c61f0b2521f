# SPDX-License-Identifier: Apache-2.0
"""Numbers before and after the change to one revision, by which an operator judges it. Pure.

* ``before`` ends when the revision is first decided on, which is before anything of it is written. An agent that has
  just started knows no before, and does not make one up from numbers that the change may have moved already. While a
  wish of an earlier revision soaks, what was before that one stays.
* ``after`` is told at the end of each soak, over that soak, and when a guardrail becomes crossed, over the oldest soak
  so far. Where no soak tells it, it begins with the first sample after the revision was found in force, and is told
  once it is as long as the soak that was asked for, at least one statistics window. What is not in force any more
  meanwhile begins anew.
* Pages that the agent moves for a trial are in no ``after``: it begins once they are back. For a minute at most: what
  the kernel keeps for longer makes nobody wait.
* A guardrail that becomes crossed is told once for each revision, however far it moves on.
* Both are as JSON has them, so that they outlive the agent in the status.
* A counter that was not there at both ends is absent. Pressure is what the kernel says at the end.
* How many pages engines were to copy and did not copy is never told, and so neither is the
  other part of that share, for no bound on it is sound: base pages are counted for all migrations together, and which
  folios are left to the CPU rightly (hugetlb, private data, an unexpected reference, a reason that is not eligible) is
  counted nowhere, while engines count folios of any size, and some of them twice. Engines that copy nothing are found
  with own pages (effect.py), and told as OffloadIneffective.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from numamigration_agent.statistics import PRESSURES, TOTALS, Sample, Statistics
from numamigration_api.machinery.canonical import canonical_json
from numamigration_api.machinery.guardrails import crossed
from numamigration_api.machinery.quantities import decimal_text
from numamigration_api.machinery.records import dataclass, replace
from numamigration_api.machinery.shapes import mapping

_COUNTERS: Final = (
    "folios_migrated",
    "folios_failed",
    "folios_refused",
    "batches_refused",
    "pages_migrated",
    "pages_migration_failed",
)


@dataclass(frozen=True, slots=True)
class Window:
    """What is known of the change to one revision.

    Attributes:
        revision: of the spec.
        before: None when there are no numbers of before.
        after: None while nothing is told.
        first: the sample since which the revision is in force; None while it is not.
        crossed: guardrails whose crossing was told, as canonical JSON.
    """

    revision: str
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    first: Sample | None = None
    crossed: frozenset[bytes] = frozenset()


def begin_window(revision: str, known: Statistics, before: Mapping[str, Any] | None = None) -> Window:
    """Return the window of a revision that nothing of was written yet.

    Args:
        revision: of the spec.
        known: the statistics.
        before: numbers from before a change that is still being watched; None when there is none.
    """
    samples = (*known.past[:1], *known.history[-1:])
    return Window(revision, before or (_numbers(samples[0], samples[-1], known) if samples else None))


def advance_window(window: Window, known: Statistics, *, in_force: bool, seconds: float) -> Window:
    """Return the window after one more sample.

    Args:
        window: so far.
        known: the statistics with the sample.
        in_force: the revision is.
        seconds: how long `after` shall be, where no soak tells it.
    """
    if window.after is not None:
        return window
    if not in_force:
        return replace(window, first=None)
    newest = known.history[-1]
    if window.first is None:
        return replace(window, first=newest)
    return window if newest.at - window.first.at < seconds else tell_window(window, window.first, known)


def tell_window(window: Window, first: Sample, known: Statistics) -> Window:
    """Return the window with the numbers since a sample."""
    return replace(window, after=_numbers(first, known.history[-1], known) or window.after)


def cross_window(window: Window, first: Sample, known: Statistics, guardrails: Iterable[Mapping[str, Any]]) -> Window:
    """Return the window with the numbers since a sample if any guardrail has become crossed by them.

    Args:
        window: so far.
        first: the sample with which the numbers begin.
        known: the statistics.
        guardrails: as JSON has them.
    """
    before, after = window.before or {}, _numbers(first, known.history[-1], known)
    over = frozenset(canonical_json(row) for row in guardrails if after and crossed(row, before, after))
    if over <= window.crossed:
        return window
    return replace(window, after=after, crossed=window.crossed | over)


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
        TOTALS[name]: last.totals[name] - first.totals[name]
        for name in _COUNTERS
        if name in first.totals and name in last.totals
    }
    pressures = {key: known.pressures[name] for name, key in PRESSURES.items() if name in known.pressures}
    return {"seconds": decimal_text(last.at - first.at), **grown, **pressures}
