# SPDX-License-Identifier: Apache-2.0
"""What a policy's status counts, kept by difference: a node's old contribution goes out, its new one comes in.

The cost of one node event does not depend on the number of nodes. A counter that no node has stays apart from one that
stands at 0 everywhere.
"""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Final, NamedTuple

from msgspec.structs import astuple

from numamigration_api.machinery.quantities import decimal_text
from numamigration_api.vocabulary import NodeBucket, Reason
from numamigration_operator.core.classify import READY, Verdict
from numamigration_operator.core.objects import PolicyStatistics, Statistics
from numamigration_operator.core.resolve import Loss

COUNTERS: Final = tuple(Statistics.__struct_fields__)
NOTHING: Final = astuple(Statistics())
SUM_MAX: Final = 2**63 - 1  # of the schema; beyond it the API server refuses the whole status, whoever miscounted


class Contribution(NamedTuple):
    """What one node adds to one policy's counts.

    Attributes:
        verdict: the count it is in.
        drifted: somebody else changed a knob there.
        losses: groups the policy lost there.
        plan: the field of ``status.plan`` that it counts in; None for none.
    """

    verdict: Verdict
    drifted: bool = False
    losses: tuple[Loss, ...] = ()
    plan: str | None = None


class Tally:
    """Counts of one policy.

    Attributes:
        matched: how many nodes the policy selects.
        buckets: nodes by count.
        names: names of the nodes of which there is something to say, by count and reason; no entry is empty.
        drifted: nodes where somebody else changed a knob.
        losses: nodes by lost group and winner; no entry is 0.
        plans: nodes by field of ``status.plan``.
    """

    __slots__ = ("_nodes_with", "_reporting", "_sums", "buckets", "drifted", "losses", "matched", "names", "plans")

    def __init__(self) -> None:
        self.matched = 0
        self.buckets: Counter[NodeBucket] = Counter()
        self.names: dict[tuple[NodeBucket, Reason], set[str]] = {}
        self.drifted = 0
        self.losses: Counter[Loss] = Counter()
        self.plans: Counter[str] = Counter()
        self._reporting = 0
        self._nodes_with: Counter[str] = Counter()
        self._sums: dict[str, Decimal | int] = dict.fromkeys(COUNTERS, 0)

    def replace(self, node: str, old: Contribution | None, new: Contribution | None) -> None:
        """Count `node` as `new` where it was counted as `old`; None is a node that is not selected."""
        if old is not None:
            self._name(node, old.verdict, present=False)
            self.buckets[old.verdict.bucket] -= 1
        if new is not None:
            self._name(node, new.verdict, present=True)
            self.buckets[new.verdict.bucket] += 1
        if old is not None and new is not None and old[1:] == new[1:]:  # as almost always: another verdict, no more
            return
        if old is not None:
            self._add(old, -1)
        if new is not None:
            self._add(new, 1)
        self.matched += (new is not None) - (old is not None)

    def reasons(self) -> Counter[Reason]:
        """Return the nodes of which there is something to say, by reason."""
        found: Counter[Reason] = Counter()
        for (_, reason), names in self.names.items():
            found[reason] += len(names)
        return found

    def statistics(self) -> PolicyStatistics | None:
        """Return the sums; None when no node has any counter."""
        if not self._reporting:
            return None
        known = {name: self._sums[name] for name in COUNTERS if self._nodes_with[name]}
        rate = known.pop("folios_per_second", None)
        return PolicyStatistics(
            nodes=self._reporting,
            folios_per_second=None if rate is None else decimal_text(rate),
            **{name: min(int(total), SUM_MAX) for name, total in known.items()},
        )

    def _add(self, one: Contribution, sign: int) -> None:
        """Count all of it but the verdict."""
        self.drifted += sign * one.drifted
        if one.plan is not None:
            self.plans[one.plan] += sign
        for loss in one.losses:
            self.losses[loss] += sign
            if not self.losses[loss]:
                del self.losses[loss]

    def renumber(self, old: Statistics | None, new: Statistics | None) -> None:
        """Count a node's counters as `new` where they were counted as `old`; those that stand cost nothing.

        Numbers count for the policy that sets offload there, and None for every other one.
        """
        if old == new:
            return
        was = NOTHING if old is None else astuple(old)
        now = NOTHING if new is None else astuple(new)
        for name, before, after in zip(COUNTERS, was, now):  # noqa: B905 - of one type
            if before is after or before == after:
                continue
            if type(before) is int and type(after) is int:
                self._sums[name] += after - before
                continue
            self._nodes_with[name] += (after is not None) - (before is not None)
            self._sums[name] += _number(after) - _number(before)
        self._reporting += (now != NOTHING) - (was != NOTHING)

    def _name(self, node: str, verdict: Verdict, *, present: bool) -> None:
        if verdict == READY:
            return
        key = (verdict.bucket, verdict.reason)
        names = self.names.get(key)
        if names is None:
            names = self.names[key] = set()
        if present:
            names.add(node)
            return
        names.discard(node)
        if not names:
            del self.names[key]


def _number(value: int | str | None) -> int | Decimal:
    return value if type(value) is int else Decimal(value or 0)
