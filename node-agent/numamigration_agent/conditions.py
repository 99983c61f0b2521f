# SPDX-License-Identifier: Apache-2.0
"""The five conditions of a node state. Pure.

Each says the first thing that is worth a person's look, in the order in which the checks stand here.

Source: Kubernetes API conventions, "Typical status properties".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from numamigration_agent.groups import GroupPlan
from numamigration_agent.kernel.dialects import (
    DRIVEN,
)
from numamigration_agent.kernel.probe import DriverState, KernelFacts
from numamigration_agent.view import DISTRUST, View
from numamigration_agent.wishes import Spec
from numamigration_api.machinery.conditions import Condition
from numamigration_api.machinery.records import replace
from numamigration_api.vocabulary import (
    ConditionStatus,
    Engine,
    GroupMode,
    GroupState,
    NodeCondition,
    Reason,
    SettingsGroup,
    Verification,
)


def find_conditions(view: View, groups: Sequence[GroupPlan]) -> list[Condition]:
    """Return all five conditions."""
    return [
        _ready(view, groups),
        _supported(view.facts),
        _verified(view, groups),
        _drifted(view, groups),
        _degraded(view, groups),
    ]


_SPEAKS_FIRST: Final = (GroupState.FAILED, GroupState.REFUSED, GroupState.PENDING)


def _ready(view: View, groups: Sequence[GroupPlan]) -> Condition:
    for state in _SPEAKS_FIRST:
        found = next((group for group in groups if group.state is state), None)
        if found is not None:
            return _about(NodeCondition.READY, ConditionStatus.FALSE, found)
    if view.spec.unknown:
        return Condition(NodeCondition.READY, ConditionStatus.FALSE, Reason.VERSION_SKEW, _unknown_groups(view.spec))
    if not groups:
        return Condition(NodeCondition.READY, ConditionStatus.TRUE, Reason.NO_SETTINGS, "no policy sets anything here")
    unsupported = [group for group in groups if group.state is GroupState.UNSUPPORTED]
    if len(unsupported) == len(groups):
        return _about(NodeCondition.READY, ConditionStatus.FALSE, unsupported[0])
    told = next((group for group in groups if group.reason is not Reason.AS_EXPECTED), groups[0])
    return _about(NodeCondition.READY, ConditionStatus.TRUE, told)


def _unknown_groups(spec: Spec) -> str:
    return f"this agent does not know the settings group {', '.join(spec.unknown)}: upgrade it"


def _about(type_: NodeCondition, status: ConditionStatus, group: GroupPlan) -> Condition:
    message = f"{group.wish.group}: {group.message}" if group.message else ""
    return Condition(type_, status, group.reason, message)


def _supported(facts: KernelFacts) -> Condition:
    reason, message = _lacking(facts)
    status = ConditionStatus.TRUE if reason is Reason.AS_EXPECTED else ConditionStatus.FALSE
    return Condition(NodeCondition.SUPPORTED, status, reason, message)


def _lacking(facts: KernelFacts) -> tuple[Reason, str]:
    if facts.dialect in DRIVEN:
        by_dma = all(knob.turns_on(Engine.DMA) for knob in facts.switches)
        return (Reason.NO_DMA_CHANNEL if by_dma and not facts.channels_usable else Reason.AS_EXPECTED), ""
    if facts.row.only_turned_off:
        return Reason.KERNEL_UNSUPPORTED, f"dialect {facts.dialect} is only turned off: {facts.row.only_turned_off}"
    if facts.driver is DriverState.NOT_LOADED:
        return Reason.NOT_LOADED, "dcbm is not loaded"
    if facts.driver is not DriverState.NONE:
        return Reason.KERNEL_UNSUPPORTED, "the driver is there, with none of the files that this release knows"
    return Reason.KERNEL_UNSUPPORTED, "no batch copy offload series in this kernel"


def _verified(view: View, groups: Sequence[GroupPlan]) -> Condition:
    offload = next((group for group in groups if group.wish.group is SettingsGroup.OFFLOAD), None)
    verdict = view.verdict
    if verdict is not None and verdict.is_corrupt:
        return Condition(NodeCondition.VERIFIED, ConditionStatus.FALSE, verdict.reason, verdict.message)
    if offload is not None and offload.reason is Reason.VERIFICATION_IMPOSSIBLE:
        return _about(NodeCondition.VERIFIED, ConditionStatus.FALSE, offload)
    if view.facts.running and offload is not None and offload.wish.verification is Verification.OFF:
        message = "the engine is in use without having copied test pages"
        return Condition(NodeCondition.VERIFIED, ConditionStatus.FALSE, Reason.VERIFICATION_OFF, message)
    if view.facts.running and offload is not None and offload.window is not None:
        return _about(NodeCondition.VERIFIED, ConditionStatus.UNKNOWN, replace(offload, reason=Reason.VERIFYING))
    if view.facts.running and verdict is not None and offload is not None and offload.wish.mode is GroupMode.APPLY:
        return Condition(NodeCondition.VERIFIED, ConditionStatus.TRUE, verdict.reason, verdict.message)
    if offload is not None and offload.wish.settings.get("engine") not in (None, Engine.OFF):
        return _about(NodeCondition.VERIFIED, ConditionStatus.UNKNOWN, offload)
    return Condition(NodeCondition.VERIFIED, ConditionStatus.UNKNOWN, Reason.NO_SETTINGS, "no engine is asked for")


def _drifted(view: View, groups: Sequence[GroupPlan]) -> Condition:
    drifted = sorted(name for group in groups for name in group.drifted)
    fought = next((group for group in groups if group.reason is Reason.CONTENDED), None)
    if fought is not None:
        return _about(NodeCondition.DRIFTED, ConditionStatus.TRUE, fought)
    if drifted:
        message = f"changed by somebody else: {', '.join(drifted)}"
        return Condition(NodeCondition.DRIFTED, ConditionStatus.TRUE, Reason.DRIFT_DETECTED, message)
    reason = Reason.DRIFT_CORRECTED if view.corrected else Reason.AS_EXPECTED
    return Condition(NodeCondition.DRIFTED, ConditionStatus.FALSE, reason, view.corrected)


def _degraded(view: View, groups: Sequence[GroupPlan]) -> Condition:
    if view.distrust:
        return Condition(NodeCondition.DEGRADED, ConditionStatus.TRUE, Reason.BASELINE_NOT_SAVED, view.distrust)
    distrusted = next((group for group in groups if group.reason in DISTRUST), None)
    if distrusted is not None:
        return _about(NodeCondition.DEGRADED, ConditionStatus.TRUE, distrusted)
    blocked = view.hindrances.blocked
    if blocked:
        return Condition(NodeCondition.DEGRADED, ConditionStatus.TRUE, Reason.KERNEL_FILE_BLOCKED, blocked)
    failed = next((group for group in groups if group.state is GroupState.FAILED), None)
    if failed is not None:
        return _about(NodeCondition.DEGRADED, ConditionStatus.TRUE, failed)
    corrupt = view.verdict if view.verdict and view.verdict.is_corrupt else None
    if corrupt is not None:  # for this boot, also when no policy asks for the engine any more
        return Condition(NodeCondition.DEGRADED, ConditionStatus.TRUE, corrupt.reason, corrupt.message)
    unspoken = next(iter(view.hindrances.failures.values()), None)
    if unspoken is not None:  # the knobs are as they shall be, or no group asks for them any more
        return Condition(NodeCondition.DEGRADED, ConditionStatus.TRUE, unspoken.reason, unspoken.message)
    if view.spec.unknown:
        return Condition(NodeCondition.DEGRADED, ConditionStatus.TRUE, Reason.VERSION_SKEW, _unknown_groups(view.spec))
    if view.skewed:
        message = "the installed CRD lacks fields or words of this agent: apply the CRDs of its release"
        return Condition(NodeCondition.DEGRADED, ConditionStatus.TRUE, Reason.VERSION_SKEW, message)
    if view.hindrances.finding:
        return Condition(NodeCondition.DEGRADED, *view.hindrances.finding)
    return Condition(NodeCondition.DEGRADED, ConditionStatus.FALSE, Reason.AS_EXPECTED)
