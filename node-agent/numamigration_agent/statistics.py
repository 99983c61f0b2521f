# SPDX-License-Identifier: Apache-2.0
"""Totals that survive counter resets, and rates over the last window. Pure: samples go in, numbers come out.

* Kernel counters are set to 0 by any write to their file and by a module load, so a total is the sum of the increases
  since the counter was first seen; a drop means a reset, and what the counter holds then is the increase.
* A counter the kernel does not have is absent, never 0. One that was there and is gone keeps its total, without a rate.
* Nothing here knows of boots: who keeps ``raw`` and ``totals`` over a restart of the agent ties them to the boot id.

Source: Prometheus, rate() and increase(): "Breaks in monotonicity (such as counter resets ...) are adjusted for".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from numamigration_api.machinery.quantities import decimal_text
from numamigration_api.machinery.records import dataclass, field

SAMPLES_MAX: Final = 64  # of one window; closer ones replace each other, so frequent sampling costs no memory


class Sample(NamedTuple):
    """Totals of the counters that were there at one moment of the monotonic clock."""

    at: float
    totals: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Statistics:
    """What is remembered between samples.

    Attributes:
        raw: counter name → what the kernel said last.
        totals: counter name → increase since first seen.
        history: samples of the last window, oldest first; the first may be older than the window.
    """

    raw: Mapping[str, int] = field(default_factory=dict)
    totals: Mapping[str, int] = field(default_factory=dict)
    history: tuple[Sample, ...] = ()


class Rates(NamedTuple):
    """Increase a second, as decimal strings, over `window_seconds`; that one is None when there is no window yet."""

    window_seconds: str | None
    per_second: Mapping[str, str]


def add_sample(known: Statistics, *, at: float, counters: Mapping[str, int], window_seconds: float) -> Statistics:
    """Return the statistics with one more sample.

    Args:
        known: the statistics so far.
        at: seconds of a monotonic clock.
        counters: what the kernel says now; a counter it does not have is left out.
        window_seconds: how far back rates look.
    """
    seen = {name: known.totals.get(name, 0) + _increase(known.raw.get(name), value) for name, value in counters.items()}
    history = _within((*_spaced(known.history, window_seconds), Sample(at, seen)), at - window_seconds)
    return Statistics(raw={**known.raw, **counters}, totals={**known.totals, **seen}, history=history)


def rates(known: Statistics) -> Rates:
    """Return the rates over the last window, of counters that are there now and were there before."""
    if len(known.history) < 2 or known.history[0].at >= known.history[-1].at:
        return Rates(None, {})
    last = known.history[-1]
    return Rates(
        decimal_text(last.at - known.history[0].at),
        {name: decimal_text(rate) for name in last.totals if (rate := _rate(known.history, name)) is not None},
    )


def _increase(before: int | None, now: int) -> int:
    if before is None:
        return 0
    return now - before if now >= before else now


def _rate(history: tuple[Sample, ...], name: str) -> float | None:
    last = history[-1]
    first = next(sample for sample in history if name in sample.totals)
    if first.at >= last.at:
        return None
    return (last.totals[name] - first.totals[name]) / (last.at - first.at)


def _within(history: tuple[Sample, ...], begin: float) -> tuple[Sample, ...]:
    # The newest sample before the window stays: without it two samples one window apart would have no rate.
    before = [index for index, sample in enumerate(history) if sample.at <= begin]
    return history[before[-1] :] if before else history


def _spaced(history: tuple[Sample, ...], window_seconds: float) -> tuple[Sample, ...]:
    close = len(history) > 1 and history[-1].at - history[-2].at < window_seconds / SAMPLES_MAX
    return history[:-1] if close else history
