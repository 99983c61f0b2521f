# SPDX-License-Identifier: Apache-2.0
"""Whether the numbers of a window cross a guardrail. Pure; the agent tells when they do, the operator decides by it.

* What is not there never crosses: a kernel without the counter, too few folios, no window. Missing data neither trips
  nor advances.
* Shares are of what happened in the window. A share of folios is judged from `minFolios` on.
* Migration failures and pressure have other causes too: a node that was over the limit before the change crosses it
  only when it is worse now, by a tenth at least.

Sources: include/trace/events/migrate.h (reasons); Documentation/accounting/psi.rst; /proc/vmstat pgmigrate_success and
pgmigrate_fail (mm/migrate.c); the driver's folios_migrated, folios_failed, folios_gated (batch copy offload series).
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NamedTuple

from numamigration_api.vocabulary import GuardrailMetric

WORSE_FACTOR: Final = Decimal("1.1")
"""How much worse than before a number must be that was over the limit already."""
SHARE_DIGITS: Final = Decimal("0.0001")


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
    GuardrailMetric.INEFFECTIVE_SHARE: Share(("pagesNotOffloaded",), ("pagesOffloaded",)),
    GuardrailMetric.REFUSED_SHARE: Share(("foliosRefused",), ("foliosMigrated", "foliosFailed")),
    GuardrailMetric.MIGRATION_FAILURES: Share(("pagesMigrationFailed",), ("pagesMigrated",)),
}
LEVELS: Final[Mapping[GuardrailMetric, str]] = {
    GuardrailMetric.MEMORY_PRESSURE: "memoryPressure",
    GuardrailMetric.CPU_PRESSURE: "cpuPressure",
}
"""Percent of time, as PSI has it."""
COMPARED: Final = frozenset({GuardrailMetric.MIGRATION_FAILURES, *LEVELS})
"""What may be over the limit without us."""


def value_of(metric: GuardrailMetric, numbers: Mapping[str, Any], min_folios: int) -> Decimal | None:
    """Return what a metric is over one window, as JSON has it; None when it cannot be told."""
    level = LEVELS.get(metric)
    if level is not None:
        return _decimal(numbers.get(level))
    share = SHARES.get(metric)
    if share is None or any(name not in numbers for name in share.part + share.rest):
        return None
    part = sum(int(numbers[name]) for name in share.part)
    whole = part + sum(int(numbers[name]) for name in share.rest)
    return None if whole < max(1, min_folios) else (Decimal(part) / Decimal(whole)).quantize(SHARE_DIGITS)


def crossed(guardrail: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]) -> Decimal | None:
    """Return the value that is over the guardrail's limit; None when none is.

    Args:
        guardrail: ``{"metric", "max", "minFolios"}`` as a policy has it.
        before: numbers of the window before the change; empty when there are none.
        after: numbers of the window since.
    """
    metric, limit = _metric(guardrail.get("metric")), _decimal(guardrail.get("max"))
    if metric is None or limit is None:
        return None
    min_folios = int(guardrail.get("minFolios") or 1)
    value = value_of(metric, after, min_folios)
    if value is None or value <= limit:
        return None
    earlier = value_of(metric, before, min_folios) if metric in COMPARED else None
    if earlier is not None and earlier > limit and value <= earlier * WORSE_FACTOR:
        return None
    return value


def _metric(word: object) -> GuardrailMetric | None:
    try:
        return GuardrailMetric(word)  # type: ignore[arg-type] # a word of a newer release is none that we know
    except ValueError:
        return None


def _decimal(value: object) -> Decimal | None:
    try:
        return None if value is None else Decimal(str(value))
    except InvalidOperation:
        return None
