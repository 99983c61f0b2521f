# SPDX-License-Identifier: Apache-2.0
"""All that a status is made of, and the groups with what became of their changes laid over them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from numamigration_agent.change import Failure
from numamigration_agent.groups import GroupPlan
from numamigration_agent.kernel.codecs import Value
from numamigration_agent.kernel.probe import KernelFacts
from numamigration_agent.plan import UNITS, PlannedPolicy
from numamigration_agent.rows import KnobPlan
from numamigration_agent.statistics import Statistics
from numamigration_agent.verify import Verdict
from numamigration_agent.watch import Finding
from numamigration_agent.window import Window
from numamigration_agent.wishes import Spec
from numamigration_api.machinery.records import dataclass, field, replace
from numamigration_api.vocabulary import (
    ConditionStatus,
    GroupState,
    Reason,
    SettingsGroup,
)

DISTRUST: Final = frozenset({Reason.ENGINE_STALLED, Reason.ENGINE_FAILING, Reason.CORRUPTION_DETECTED})
"""Why an engine that this project turned on may have been turned off by the node alone."""


class Hindrances(NamedTuple):
    """What keeps groups from being as planned.

    Attributes:
        failures: by unit, of changes that did not come into force.
        blocked: what a kernel file that does not answer keeps waiting; empty when all answer.
        blocked_unit: the unit whose change waits for it.
        finding: what the watch found of an engine that stays on.
    """

    failures: Mapping[str, Failure] = {}
    blocked: str = ""
    blocked_unit: str = ""
    finding: Finding | None = None


@dataclass(frozen=True, slots=True)
class View:
    """All that a status is made of.

    Attributes:
        groups: as planned.
        baselines: by field, as far as they are safe in the file.
        distrust: why the baselines cannot be trusted; empty when they can.
        verdict: what the last trial of an engine has shown, unless another one was asked for since.
        corrected: what was set back lately, in words.
        skewed: the installed CRD did not take the last status as a whole.
        soaked: by group, the revision of the wish that was in force for as long as the spec asks.
        probe: what is to be said of what was measured; None when nothing is.
    """

    spec: Spec
    facts: KernelFacts
    groups: tuple[GroupPlan, ...] = ()
    plans: tuple[PlannedPolicy, ...] = ()
    baselines: Mapping[str, Value] = field(default_factory=dict)
    distrust: str = ""
    hindrances: Hindrances = Hindrances()
    verdict: Verdict | None = None
    corrected: str = ""
    skewed: bool = False
    statistics: Statistics = field(default_factory=Statistics)
    since: str | None = None
    window: Window | None = None
    soaked: Mapping[SettingsGroup, str] = field(default_factory=dict)
    settled_at: str | None = None
    agent_version: str = ""
    batch_ceiling_pages: int = 0
    probe: Mapping[str, Any] | None = None


def group_results(groups: Iterable[GroupPlan], hindrances: Hindrances) -> tuple[GroupPlan, ...]:
    """Return planned groups with what became of their changes."""
    return tuple(_overlaid(group, hindrances) for group in groups)


def is_settled(groups: Iterable[GroupPlan]) -> bool:
    """Whether nothing is under way and nothing failed."""
    return not any(group.state in {GroupState.PENDING, GroupState.FAILED} for group in groups)


def _overlaid(group: GroupPlan, hindrances: Hindrances) -> GroupPlan:
    unit = UNITS[group.wish.group]
    failure = hindrances.failures.get(unit)
    if failure is not None and group.has_work:
        knobs = tuple(_failed_row(row, failure) for row in group.knobs)
        return replace(group, state=GroupState.FAILED, reason=failure.reason, message=failure.message, knobs=knobs)
    if unit == hindrances.blocked_unit:
        if group.reason in DISTRUST:  # why it is turned off says more than that it takes long
            return replace(group, message=f"{group.message}; {hindrances.blocked}")
        return replace(group, state=GroupState.PENDING, reason=Reason.KERNEL_FILE_BLOCKED, message=hindrances.blocked)
    finding = hindrances.finding
    if finding and group.wish.group is SettingsGroup.OFFLOAD and group.reason is Reason.AS_EXPECTED:
        certain = finding.status is ConditionStatus.TRUE
        return replace(group, reason=finding.reason if certain else group.reason, message=finding.message)
    return group


def _failed_row(row: KnobPlan, failure: Failure) -> KnobPlan:
    if row.field != failure.field:
        return row
    return replace(row, outcome=failure.outcome, reason=failure.reason, message=failure.message)
