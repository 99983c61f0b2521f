# SPDX-License-Identifier: Apache-2.0
"""Whether the numbers of a window cross a guardrail. Pure; the agent tells when they do, the operator decides by it.

* What is not there never crosses: a kernel without the counter, too few folios, no window. Missing data neither trips
  nor advances. What cannot be read is not there.
* Shares are of what happened in the window, and judged from `minFolios` on (pages, where they are counted instead).
* Migration failures and pressure have other causes too: a node that was over the limit before the change crosses it
  only when it is worse now, by a tenth at least.
* How far a rate fell is a share of the rate before the change. Load comes and goes by itself, so it is told only of
  windows of a minute or more, and asks for a generous limit.
* Values are whole millionths, rounded up: limits have at most six digits behind the point, so nothing that is over one
  is rounded to it. The module `decimal` would cost each agent half a megabyte.
* Node readiness is no number of the node's, and has no value here.

Sources: include/trace/events/migrate.h (reasons); Documentation/accounting/psi.rst; /proc/vmstat pgmigrate_success and
pgmigrate_fail (mm/migrate.c); the driver's folios_migrated, folios_failed, folios_gated (batch copy offload series).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from numamigration_api.machinery.quantities import DECIMAL_PATTERN
from numamigration_api.machinery.shapes import count
from numamigration_api.vocabulary import GuardrailMetric

MIN_FOLIOS: Final = 512
"""From how many on a share is judged where the guardrail does not say; as in the policy's schema."""

_MILLION: Final = 1_000_000
_WORSE: Final = (11, 10)  # how much worse than before a number must be that was over the limit already
_DECIMAL: Final = re.compile(DECIMAL_PATTERN)


class Share(NamedTuple):
    """A share of two sums of window numbers.

    Attributes:
        part: names of the numbers that are bad.
        rest: names of the numbers that are good.
    """

    part: tuple[str, ...]
    rest: tuple[str, ...]


SHARES: Final[Mapping[GuardrailMetric, Share]] = {
    GuardrailMetric.FOLIOS_FAILED_SHARE: Share(("foliosFailed",), ("foliosMigrated",)),
    GuardrailMetric.REFUSED_SHARE: Share(("foliosRefused",), ("foliosMigrated", "foliosFailed")),
    GuardrailMetric.MIGRATION_FAILURES: Share(("pagesMigrationFailed",), ("pagesMigrated",)),
}
LEVELS: Final[Mapping[GuardrailMetric, str]] = {
    GuardrailMetric.MEMORY_PRESSURE: "memoryPressure",
    GuardrailMetric.CPU_PRESSURE: "cpuPressure",
}
"""Percent of time, as PSI has it."""
DROPS: Final[Mapping[GuardrailMetric, str]] = {GuardrailMetric.MIGRATION_RATE_DROP: "pagesMigrated"}
"""Numbers whose increase per second is compared with that of before."""
DROP_SECONDS_MIN: Final = 60
"""Of both windows; shorter ones say more of chance than of a change."""
COMPARED: Final = frozenset({GuardrailMetric.MIGRATION_FAILURES, *LEVELS})
"""What may be over the limit without us."""


class Reading(NamedTuple):
    """What a guardrail says of one window.

    Attributes:
        value: of its metric, a decimal string; None when it cannot be told.
        crossed: whether that is over the limit, and not for what was so before.
    """

    value: str | None = None
    crossed: bool = False


def crossed(guardrail: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]) -> str | None:
    """Return the value that is over the guardrail's limit, as a decimal string; None when none is."""
    reading = read(guardrail, before, after)
    return reading.value if reading.crossed else None


def read(guardrail: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]) -> Reading:
    """Return what a guardrail says of the window since a change.

    Args:
        guardrail: ``{"metric", "max", "minFolios"}`` as a policy has it.
        before: numbers of the window before the change; empty when there are none.
        after: numbers of the window since.
    """
    metric, limit = _metric(guardrail.get("metric")), _millionths(guardrail.get("max"))
    if metric is None or limit is None:
        return Reading()
    min_folios = count(guardrail.get("minFolios")) or MIN_FOLIOS
    value = _drop(metric, before, after, min_folios) if metric in DROPS else _value(metric, after, min_folios)
    if value is None or value <= limit:
        return Reading(None if value is None else _text(value))
    earlier = _value(metric, before, min_folios) if metric in COMPARED else None
    as_before = earlier is not None and earlier > limit and value * _WORSE[1] < earlier * _WORSE[0]
    return Reading(_text(value), crossed=not as_before)


def _value(metric: GuardrailMetric, numbers: Mapping[str, Any], min_folios: int) -> int | None:
    if metric in LEVELS:
        return _millionths(numbers.get(LEVELS[metric]))
    if metric not in SHARES:
        return None
    part, rest = (_sum(numbers, names) for names in SHARES[metric])
    if part is None or rest is None or part + rest < max(1, min_folios):
        return None
    return -(-part * _MILLION // (part + rest))


def _drop(metric: GuardrailMetric, before: Mapping[str, Any], after: Mapping[str, Any], min_folios: int) -> int | None:
    sides = [(count(side.get(DROPS[metric])), _millionths(side.get("seconds")) or 0) for side in (before, after)]
    (earlier, long_before), (now, long_after) = sides
    if earlier is None or now is None or earlier < max(1, min_folios):
        return None
    if min(long_before, long_after) < DROP_SECONDS_MIN * _MILLION:
        return None
    return max(0, _MILLION - now * long_before * _MILLION // (long_after * earlier))


def _sum(numbers: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    found = [known for name in names if (known := count(numbers.get(name))) is not None]
    return sum(found) if len(found) == len(names) else None


def _metric(word: object) -> GuardrailMetric | None:
    try:
        return GuardrailMetric(word)  # type: ignore[arg-type] # a word of a newer release is none that we know
    except ValueError:
        return None


def _millionths(text: object) -> int | None:
    if not isinstance(text, str) or _DECIMAL.fullmatch(text) is None:
        return None
    whole, _, fraction = text.partition(".")
    return int(whole) * _MILLION + int(fraction.ljust(6, "0"))


def _text(value: int) -> str:
    text = f"{value // _MILLION}.{value % _MILLION:06d}"
    return text.rstrip("0").rstrip(".")
