# SPDX-License-Identifier: Apache-2.0
"""The last plan of one agent, and which targets were found in force since when. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime

from numamigration_agent.groups import Known
from numamigration_agent.kernel.codecs import Value
from numamigration_agent.kernel.probe import KernelFacts
from numamigration_agent.plan import Plan, PlannedPolicy, make_plan, plan_policy
from numamigration_agent.recovery import Settled
from numamigration_agent.wishes import Spec
from numamigration_api.machinery.clock import timestamp
from numamigration_api.machinery.records import replace
from numamigration_api.vocabulary import GroupMode


class Planning:
    """Plans of one node.

    Attributes:
        plan: the last one; None before the first, or once the node state has gone.
        spec: what it was made for.
        policies: what Plan policies would change.
        settled_at: since when the spec is in force; None while it is not.
    """

    def __init__(self) -> None:
        self.plan: Plan | None = None
        self.spec = Spec()
        self.policies: tuple[PlannedPolicy, ...] = ()
        self.settled_at: Settled | None = None
        self._settled: Mapping[str, Value] = {}
        self._made_from: tuple[KernelFacts, Spec, Known] | None = None

    def resume(self, settled: Mapping[str, Value], settled_at: Settled | None) -> None:
        """Go on with what an earlier life of this agent knew."""
        self._settled, self.settled_at = settled, settled_at

    def make(self, facts: KernelFacts, spec: Spec, known: Known) -> Plan:
        """Plan, unless all that a plan is made from is as it was: most looks find that."""
        made_from = facts, spec, replace(known, settled=self._settled)
        if self.plan is None or made_from != self._made_from:
            self.plan, self._made_from = make_plan(*made_from), made_from
            self.policies = tuple(plan_policy(facts, request, known) for request in spec.plans)
        self.spec = spec
        return self.plan

    def forget(self, fields: Iterable[str]) -> None:
        """Let these fields be work, whatever they hold: what is written by us, or lost with its driver, is no drift."""
        gone = frozenset(fields)
        self._settled = {name: value for name, value in self._settled.items() if name not in gone}

    def remember(self, plan: Plan) -> Collection[str]:
        """Remember which targets a look has found in force; returns the fields that hold what a policy asks for."""
        # A knob whose file went lost its value with the driver; nobody else changed it.
        rows = {row.field: row for group in plan.groups for row in group.knobs if row.knob}
        kept = {name: value for name, value in self._settled.items() if name in rows}
        found = {name: row.target for name, row in rows.items() if row.target is not None and not row.differs}
        self._settled = kept | found
        # A value of before that is still there tells nothing: another writer may change it until we write.
        asked = (group.knobs for group in plan.groups if group.wish.mode is GroupMode.APPLY)
        return found.keys() & {row.field for rows_of_group in asked for row in rows_of_group}

    def is_in_force(self, wall: datetime, *, settled: bool) -> None:
        """Note whether the spec is in force now."""
        if not settled:
            self.settled_at = None
        elif self.settled_at is None or self.settled_at.revision != self.spec.revision:
            self.settled_at = Settled(self.spec.revision, timestamp(wall))
