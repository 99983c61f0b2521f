# SPDX-License-Identifier: Apache-2.0
"""What nodes have counted, by kind of node. Objects hold totals and the last rate: one look, and no history."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from numamigration_cli.objects import ListedNode, ReportedNode, WindowNumbers
from numamigration_operator.core.objects import Struct

BINS: Final = 24
"""Bars of the histogram of a kind."""


class Kind(Struct, frozen=True):
    """Nodes that are alike.

    Attributes:
        number: by which the page names it.
        nodes: how many.
    """

    number: int
    dialect: str
    hardware_class: str
    nodes: int

    @property
    def key(self) -> tuple[str, str]:
        """What makes it."""
        return self.dialect, self.hardware_class


class Traffic(Struct, frozen=True):
    """What the nodes of a kind have counted; None is what none of them counts.

    Attributes:
        kind: its number.
        measured: nodes that tell a rate.
        rate: folios a second, all of them together.
        rate_max: of the busiest node.
        bins: nodes by rate, from 0 to `rate_max` in equal steps.
        failed_share: failed of all folios, since they were first seen.
        compared: nodes that counted before and after the change to what they have now.
        before: folios a second and node before it.
        after: likewise, after.
    """

    kind: int
    measured: int = 0
    rate: float | None = None
    rate_median: float | None = None
    rate_max: float | None = None
    bins: tuple[int, ...] = ()
    folios_migrated: int | None = None
    folios_failed: int | None = None
    failed_share: float | None = None
    compared: int = 0
    before: float | None = None
    after: float | None = None


def kind_key(node: ListedNode) -> tuple[str, str]:
    """Return dialect and hardware class: nodes on which a revision is expected to go alike."""
    return node.status.dialect, node.status.hardware_class


def kinds_of(nodes: Iterable[ListedNode]) -> tuple[Kind, ...]:
    """Return the kinds of node, the most frequent first, numbered from 1."""
    counts = sorted(Counter(map(kind_key, nodes)).items(), key=lambda pair: (-pair[1], pair[0]))
    return tuple(Kind(number, *key, nodes=count) for number, (key, count) in enumerate(counts, 1))


def traffic(kinds: Iterable[Kind], nodes: Sequence[ReportedNode]) -> tuple[Traffic, ...]:
    """Return the numbers of each kind."""
    members: dict[tuple[str, str], list[ReportedNode]] = {}
    for node in nodes:
        members.setdefault(kind_key(node), []).append(node)
    return tuple(_of_kind(kind.number, members[kind.key]) for kind in kinds)


def _of_kind(number: int, nodes: Sequence[ReportedNode]) -> Traffic:
    rates = [rate for node in nodes if (rate := decimal(node.status.statistics.folios_per_second)) is not None]
    migrated = total(node.status.statistics.folios_migrated for node in nodes)
    failed = total(node.status.statistics.folios_failed for node in nodes)
    pairs = [pair for node in nodes if (pair := _compared(node)) is not None]
    return Traffic(
        kind=number,
        measured=len(rates),
        rate=sum(rates) if rates else None,
        rate_median=statistics.median(rates) if rates else None,
        rate_max=max(rates, default=None),
        bins=histogram(rates),
        folios_migrated=migrated,
        folios_failed=failed,
        failed_share=failed_share(migrated, failed),
        compared=len(pairs),
        before=statistics.fmean(before for before, _ in pairs) if pairs else None,
        after=statistics.fmean(after for _, after in pairs) if pairs else None,
    )


def _compared(node: ReportedNode) -> tuple[float, float] | None:
    before, after = _rate(node.status.window.before), _rate(node.status.window.after)
    return None if before is None or after is None else (before, after)


def _rate(numbers: WindowNumbers | None) -> float | None:
    if numbers is None or numbers.folios_migrated is None:
        return None
    seconds = decimal(numbers.seconds)
    return numbers.folios_migrated / seconds if seconds else None


def failed_share(migrated: int | None, failed: int | None) -> float | None:
    """Return failed of all folios; None where nothing was counted."""
    if migrated is None or failed is None or not migrated + failed:
        return None
    return failed / (migrated + failed)


def total(counts: Iterable[int | None]) -> int | None:
    """Return the sum of those that there are; None when there are none."""
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def decimal(text: str | None) -> float | None:
    """Return a number of the API, which has them as text; None for what is none."""
    try:
        found = float(text) if text else math.nan
    except ValueError:
        return None
    return found if math.isfinite(found) and found >= 0 else None


def histogram(values: Sequence[float]) -> tuple[int, ...]:
    """Return how many values lie in each of BINS equal steps from 0 to the largest."""
    most = max(values, default=0.0)
    counts = [0] * BINS
    for value in values:
        counts[min(BINS - 1, int(BINS * value / most)) if most else 0] += 1
    return tuple(counts) if values else ()
