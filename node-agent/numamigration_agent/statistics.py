# SPDX-License-Identifier: Apache-2.0
"""Totals that survive counter resets, and rates over the last window. Pure: samples go in, numbers come out.

* Kernel counters are set to 0 by any write to their file and by a module load, so a total is the sum of the increases
  since the counter was first seen; a drop means a reset, and what the counter holds then is the increase.
* A counter that has passed its last value begins at 0 again, and has grown by a little, not been reset. A jump by more
  than ``STEP_MAX`` is neither: it is not believed, and counting begins anew from there.
* A counter the kernel does not have is absent, never 0. One that was there and is gone keeps its total, without a rate.
* Nothing here knows of boots: who keeps ``raw`` and ``totals`` over a restart of the agent ties them to the boot id.

Source: Prometheus, rate() and increase(): "Breaks in monotonicity (such as counter resets ...) are adjusted for".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from numamigration_agent.kernel.counters import VALUES
from numamigration_api.machinery.quantities import decimal_text
from numamigration_api.machinery.records import dataclass, field, replace

DRIFT_CORRECTIONS: Final = "drift_corrections"
"""The total that no kernel file has: knobs that were set back."""
SAMPLES_MAX: Final = 64  # of one window; closer ones replace each other, so frequent sampling costs no memory
STEP_MAX: Final = 1 << 40  # 4 PiB of base pages: no host migrates that between two looks
TOTAL_MAX: Final = (1 << 63) - 1  # of the schema; a file of nonsense that jumps for days must not cost the whole status
RATE_MAX: Final = 10**12 - 1  # of the schema likewise
PAST_SECONDS: Final = 300.0  # how far back "before a change" looks: as long as a canary soaks by default
PAST_SAMPLES_MAX: Final = 10


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
        past: a few samples of the last minutes, oldest first.
        pressures: by name, as the kernel said last, in percent; none that it does not say.
        thp_pages: base pages of a transparent huge page; None while unknown.
    """

    raw: Mapping[str, int] = field(default_factory=dict)
    totals: Mapping[str, int] = field(default_factory=dict)
    history: tuple[Sample, ...] = ()
    past: tuple[Sample, ...] = ()
    pressures: Mapping[str, str] = field(default_factory=dict)
    thp_pages: int | None = None


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
    seen = {
        name: min(known.totals.get(name, 0) + _increase(known.raw.get(name), value), TOTAL_MAX)
        for name, value in counters.items()
    }
    sample = Sample(at, seen)
    return replace(
        known,
        raw={**known.raw, **counters},
        totals={**known.totals, **seen},
        history=_within((*_spaced(known.history, window_seconds), sample), at - window_seconds),
        past=_remembered(known.past, sample),
    )


def add_to_total(known: Statistics, name: str, increase: int) -> Statistics:
    """Return the statistics with a count of the agent's own, which is in no sample."""
    return replace(known, totals={**known.totals, name: known.totals.get(name, 0) + increase})


def rates(known: Statistics) -> Rates:
    """Return the rates over the last window, of counters that are there now and were there before."""
    if len(known.history) < 2 or known.history[0].at >= known.history[-1].at:
        return Rates(None, {})
    last = known.history[-1]
    return Rates(
        decimal_text(last.at - known.history[0].at),
        {name: decimal_text(rate) for name in last.totals if (rate := _rate(known.history, name)) is not None},
    )


def fallback_share_max(known: Statistics) -> str | None:
    """Return how large the share of pages that fell back to the CPU can have been at most, over the last window.

    Engines count folios of unknown size, the kernel base pages of everything that migrated. The fewest pages that so
    many folios can be are taken: single ones first, then huge ones. Pages that no engine was to copy count as fallen
    back. So the true share of those that it was to copy is not larger, but for the few folios that are copied twice.

    Returns:
        A decimal string between 0 and 1; None when nothing migrated, or when a number it takes is not known.
    """
    first, last = (known.history[0], known.history[-1]) if known.history else (Sample(0, {}), Sample(0, {}))
    grown = {name: last.totals[name] - first.totals[name] for name in last.totals if name in first.totals}
    folios, pages, thps = (grown.get(name) for name in ("folios_migrated", "pages_migrated", "thps_migrated"))
    if folios is None or thps is None or known.thp_pages is None or not pages:
        return None
    single = max(0, pages - thps * known.thp_pages)
    offloaded = min(folios, single) + max(0, folios - single) * known.thp_pages
    return decimal_text(1 - min(offloaded, pages) / pages)


def _increase(before: int | None, now: int) -> int:
    if before is None:
        return 0
    step = (now - before) % VALUES
    if step < STEP_MAX:
        return step
    return now if now < STEP_MAX else 0


def _rate(history: tuple[Sample, ...], name: str) -> float | None:
    last = history[-1]
    first = next(sample for sample in history if name in sample.totals)
    if first.at >= last.at:
        return None
    return min((last.totals[name] - first.totals[name]) / (last.at - first.at), RATE_MAX)


def _within(history: tuple[Sample, ...], begin: float) -> tuple[Sample, ...]:
    # The newest sample before the window stays: without it two samples one window apart would have no rate.
    before = [index for index, sample in enumerate(history) if sample.at <= begin]
    return history[before[-1] :] if before else history


def _spaced(history: tuple[Sample, ...], window_seconds: float) -> tuple[Sample, ...]:
    close = len(history) > 1 and history[-1].at - history[-2].at < window_seconds / SAMPLES_MAX
    return history[:-1] if close else history


def _remembered(past: tuple[Sample, ...], sample: Sample) -> tuple[Sample, ...]:
    if past and sample.at - past[-1].at < PAST_SECONDS / PAST_SAMPLES_MAX:
        return past
    return (*(one for one in past if sample.at - one.at <= PAST_SECONDS), sample)
