# SPDX-License-Identifier: Apache-2.0
"""In which one of its counts a policy has a node, and why (promise 11).

A chain of small checks; the first that answers counts, and a test pins the order. What the agent says of a group is
believed only when it is about the wish that the node shall have now; before that the node is pending or silent. A group
whose wish did not change keeps its result while another one changes, so an edit shows on its own policy only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from numamigration_api.vocabulary import (
    PLANS_MAX,
    FleetSwitch,
    GroupMode,
    GroupState,
    NodeBucket,
    PolicyMode,
    Reason,
    SettingsGroup,
)
from numamigration_operator.core.node_facts import NOT_WATCHED, NodeFacts, Said, Watched
from numamigration_operator.core.objects import GroupResult, PlanView
from numamigration_operator.core.resolve import PolicyFacts, Resolution
from numamigration_operator.core.wishes import PlanWish, Spec, means_same


class Verdict(NamedTuple):
    """Where a node counts for a policy, and why. Messages hold no moving numbers: each would be a write."""

    bucket: NodeBucket
    reason: Reason
    message: str = ""


class Progress(NamedTuple):
    """How far the rollout of one policy is on one node.

    Attributes:
        behind: why the node has not what the policy asks for now; None when it has.
        soaking: it has it, and is being watched.
        watched: what the policy's guardrails say meanwhile.
    """

    behind: Reason | None = None
    message: str = ""
    soaking: bool = False
    watched: Watched = NOT_WATCHED


ARRIVED: Final = Progress()


class Wanted(NamedTuple):
    """What a node shall have.

    Attributes:
        withheld: groups that the fleet switch keeps from being as the policies want them.
    """

    spec: Spec
    revision: str
    withheld: frozenset[SettingsGroup] = frozenset()


Result = GroupResult | PlanView
Results = tuple[tuple[str, Result | None], ...]

UNFINISHED: Final = frozenset({GroupState.PENDING, GroupState.RESTORED})  # a restore of before the wish came back
NOT_REPORTED: Final = "the agent has not reported these settings yet"
READY: Final = Verdict(NodeBucket.READY, Reason.AS_EXPECTED)
INEFFECTIVE: Final = frozenset({Reason.CHANNELS_EXHAUSTED, Reason.OFFLOAD_INEFFECTIVE})
"""Why settings that are in force do not do what they are for."""
SWITCH_REASONS: Final = {
    FleetSwitch.HOLD: Reason.FLEET_HOLD,
    FleetSwitch.OFF: Reason.FLEET_OFF,
    FleetSwitch.RESTORE: Reason.FLEET_RESTORE,
}
"""Why nodes wait, and why a policy does not get on."""


class Case(NamedTuple):
    """A policy, a node, and what the node's agent says of what this policy wants there.

    Attributes:
        policy: the policy.
        node: the node.
        wanted: what it shall have.
        results: by group, or of the plan; None where the agent says nothing yet. Nothing at all while its report is
            about another spec.
        restoring: the same for groups that the policy gave up and that are not restored yet.
        progress: how far the policy's rollout is on the node.
    """

    policy: PolicyFacts
    node: NodeFacts
    wanted: Wanted
    results: Results
    restoring: Results
    progress: Progress = ARRIVED


def classify(policy: PolicyFacts, node: NodeFacts, wanted: Wanted, progress: Progress) -> Verdict:
    """Return the count that `node`, selected by `policy`, belongs to."""
    case = Case(policy, node, wanted, *_said(policy, node, wanted.spec), progress)
    for check in CHECKS:
        verdict = check(case)
        if verdict is not None:
            return verdict
    return _ready(case)


def _overridden(case: Case) -> Verdict | None:
    return overridden(case.policy, case.node.resolution)


def overridden(policy: PolicyFacts, resolution: Resolution) -> Verdict | None:
    """Return the verdict on all nodes with this resolution when the policy wins nothing there; None when it does."""
    if policy.mode is PolicyMode.PLAN:
        if policy.uid in resolution.blocked:
            return Verdict(NodeBucket.OVERRIDDEN, Reason.OVERRIDDEN, _losses(resolution, policy))
        room = policy in resolution.plans
        return None if room else Verdict(NodeBucket.OVERRIDDEN, Reason.OVERRIDDEN, f"only {PLANS_MAX} plans per node")
    if not policy.wishes or policy.uid in resolution.won:
        return None
    return Verdict(NodeBucket.OVERRIDDEN, Reason.OVERRIDDEN, _losses(resolution, policy))


def _losses(resolution: Resolution, policy: PolicyFacts) -> str:
    return ", ".join(f"{group}: {name}" for group, name in resolution.losses[policy.uid])


def _no_agent(case: Case) -> Verdict | None:
    if not case.node.selected:
        return Verdict(NodeBucket.UNSUPPORTED, Reason.NO_AGENT, "the operator's agent_node_selector leaves it out")
    if case.node.said is None:
        return Verdict(NodeBucket.UNSUPPORTED, Reason.NO_AGENT, "no agent has reported")
    return None


def _unsupported(case: Case) -> Verdict | None:
    enough = any if case.policy.strict else all
    lacking = (result is not None and result.state is GroupState.UNSUPPORTED for _, result in case.results)
    if not case.results or not enough(lacking):
        return None
    return _first(case.results, GroupState.UNSUPPORTED, NodeBucket.UNSUPPORTED)


def _unreachable(case: Case) -> Verdict | None:
    deadline = case.policy.deadline_seconds
    if case.node.silent < deadline:
        return None
    return Verdict(NodeBucket.UNREACHABLE, Reason.NODE_UNREACHABLE, f"no report for {deadline} s or longer")


def _awaiting(case: Case) -> Verdict | None:
    """What the node says is about settings that the policy does not ask for any more."""
    if not case.policy.armed and case.policy.mode is not PolicyMode.PLAN:
        if case.node.switch is FleetSwitch.RESTORE:  # under which it is not put there
            return Verdict(NodeBucket.PENDING, Reason.FLEET_RESTORE, f"the fleet switch is {case.node.switch}")
        return Verdict(NodeBucket.PENDING, Reason.APPLYING, "waits for the policy's finalizer")
    waits = case.progress.behind is Reason.AWAITING_ROLLOUT and not case.node.skew
    return _behind(case) if waits else None


def _behind(case: Case) -> Verdict | None:
    behind = case.progress.behind
    return None if behind is None else Verdict(NodeBucket.PENDING, behind, case.progress.message)


def _failed(case: Case) -> Verdict | None:
    if case.progress.watched.tripped:
        return Verdict(NodeBucket.FAILED, Reason.GUARDRAIL_TRIPPED, case.progress.watched.tripped)
    return _first((*case.results, *case.restoring), GroupState.FAILED, NodeBucket.FAILED)


def _refused(case: Case) -> Verdict | None:
    return _first(case.results, GroupState.REFUSED, NodeBucket.REFUSED)


def _pending(case: Case) -> Verdict | None:
    return _under_way(case) or _withheld(case) or _behind(case) or _soaking(case)


def _soaking(case: Case) -> Verdict | None:
    seconds = case.policy.rollout.canary.soak_seconds
    text = f"in force, and watched for {seconds} s"
    return Verdict(NodeBucket.PENDING, Reason.SOAKING, text) if case.progress.soaking else None


def _under_way(case: Case) -> Verdict | None:
    if case.node.skew:
        return Verdict(NodeBucket.PENDING, Reason.VERSION_SKEW, case.node.skew)
    if case.node.reported is None:
        return Verdict(NodeBucket.PENDING, Reason.APPLYING, NOT_REPORTED)
    if case.restoring:
        return Verdict(NodeBucket.PENDING, Reason.RESTORING, "values of before are being put back")
    for name, result in case.results:
        waits = name in case.wanted.withheld or case.progress.behind is not None
        if waits and not _told(case.wanted.spec, name):
            continue
        if result is None:
            return Verdict(NodeBucket.PENDING, Reason.APPLYING, f"{name}: {NOT_REPORTED}")
        if result.state in UNFINISHED:
            return Verdict(NodeBucket.PENDING, Reason.APPLYING, _text(name, result))
    return None


def _told(wanted: Spec, group: str) -> bool:
    """Whether the node's spec says anything of the group; under the fleet switch it may say nothing, for long."""
    return any(name == group for name, _ in wanted.groups)


def _withheld(case: Case) -> Verdict | None:
    """Count apart what waits for a person, once the node has confirmed where the switch has brought it."""
    groups = [name for name, _ in case.results if name in case.wanted.withheld]
    if not groups:
        return None
    switch, stop = case.node.switch, case.node.stop
    if switch is FleetSwitch.RUN:
        return Verdict(NodeBucket.PENDING, stop.reason or Reason.CLASS_HELD, stop.message)
    return Verdict(NodeBucket.PENDING, SWITCH_REASONS[switch], f"{', '.join(groups)}: the fleet switch is {switch}")


def _ready(case: Case) -> Verdict:
    """Return why a node is ready: what is in force may do nothing, and only a person can tell what to do about it."""
    for name, result in case.results:
        if result is not None and result.reason in INEFFECTIVE:
            return Verdict(NodeBucket.READY, result.reason, _text(name, result))
    return READY


CHECKS: Final[tuple[Callable[[Case], Verdict | None], ...]] = (
    _overridden,
    _no_agent,
    _unsupported,
    _unreachable,
    _awaiting,
    _failed,
    _refused,
    _pending,
)


def _said(policy: PolicyFacts, node: NodeFacts, wanted: Spec) -> tuple[Results, Results]:
    said, reported = node.said, node.reported
    if said is None or reported is None:
        return (), ()

    def about(group: SettingsGroup) -> GroupResult | None:
        return said.group(group) if means_same(reported.wish(group), wanted.wish(group)) else None

    given_up = (
        group for group, wish in wanted.groups if wish.mode is GroupMode.RESTORE and wish.source.uid == policy.uid
    )
    restoring = tuple((group, about(group)) for group in given_up)
    if policy.mode is PolicyMode.PLAN:
        return (("plan", _plan_result(policy, said, node.spec.plans)),), restoring
    won = node.resolution.won.get(policy.uid, ())
    return tuple((group, about(group)) for group in won), restoring


def _plan_result(policy: PolicyFacts, said: Said, asked: tuple[PlanWish, ...]) -> PlanView | None:
    """Return the result about the plan as the spec has it: an edit that changes no setting is not pushed again."""
    planned = {(plan.source.uid, plan.source.generation) for plan in asked}
    mine = (plan for plan in said.plans if plan.uid == policy.uid)
    return next((plan for plan in mine if (plan.uid, plan.generation) in planned), None)


def plan_outcome(policy: PolicyFacts, node: NodeFacts, verdict: Verdict) -> str | None:
    """Return in which field of ``status.plan`` a node of a Plan policy counts; None when it has not answered."""
    if policy.mode is not PolicyMode.PLAN or verdict.reason is Reason.NO_AGENT:
        return None
    if policy.uid in node.resolution.blocked:
        return "blocked"
    if verdict.bucket in {NodeBucket.UNSUPPORTED, NodeBucket.REFUSED}:
        return str(verdict.bucket)
    found = _plan_result(policy, node.said, node.spec.plans) if node.said is not None else None
    if verdict.bucket is not NodeBucket.READY or found is None:
        return None
    return "would_change" if found.would_change else "equal"


def _first(results: Results, state: GroupState, bucket: NodeBucket) -> Verdict | None:
    for name, result in results:
        if result is not None and result.state is state:
            return Verdict(bucket, result.reason, _text(name, result))
    return None


def _text(name: str, result: Result) -> str:
    return f"{name}: {result.message}" if result.message else name
