# SPDX-License-Identifier: Apache-2.0
"""A policy's status from its counts: summary, partition, conditions, worst nodes, sums, conflicts.

Conditions follow kstatus: Ready, with the abnormal-true pair Reconciling and Stalled, so ``kubectl wait`` and GitOps
health checks work. Equal counts give an equal status: examples are the smallest names, and no message tells a time.

Source: sigs.k8s.io/cli-utils pkg/kstatus README, "The abnormal-true pattern".
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from numamigration_api.machinery.conditions import Condition, merge_conditions, shorten
from numamigration_api.vocabulary import (
    WORST_NODES_MAX,
    ConditionStatus,
    FleetSwitch,
    NodeBucket,
    PolicyCondition,
    PolicyMode,
    Reason,
    RolloutPhase,
)
from numamigration_operator.core.classify import SWITCH_REASONS, Verdict
from numamigration_operator.core.fleet_switch import Control
from numamigration_operator.core.objects import (
    Conflict,
    NodeCounts,
    Overlays,
    PlanTotals,
    PolicyStatusView,
    RolloutView,
    WorstNode,
)
from numamigration_operator.core.resolve import PolicyFacts
from numamigration_operator.core.tally import Tally
from numamigration_operator.core.tuned import Tuned

WORST_FIRST: Final = (
    NodeBucket.FAILED,
    NodeBucket.REFUSED,
    NodeBucket.UNREACHABLE,
    NodeBucket.PENDING,
    NodeBucket.UNSUPPORTED,
    NodeBucket.OVERRIDDEN,
)
WORST_MESSAGE_LENGTH_MAX: Final = 100  # with 20 names of 253 characters the status stays below 20 kB (promise 12)
CONFLICTS_MAX: Final = 16  # six groups, and the winners that matter most; bound of the schema
CONFLICT_BYTES_MAX: Final = 1100  # of the names of these winners; more than 16 of the usual length

ROLLOUT_STOPPED: Final = (Reason.ROLLED_BACK, Reason.ROLLOUT_HALTED, Reason.CLASS_HELD, Reason.CIRCUIT_BREAKER_OPEN)
"""Why a rollout does not go on by itself, the first that holds first."""
STOPPED: Final = frozenset({*ROLLOUT_STOPPED, Reason.FENCE_MISSING, *SWITCH_REASONS.values()})
"""Why nodes are pending of which nobody works on one: the same for all of them."""
FOR_A_PERSON: Final = frozenset({Reason.VERSION_SKEW, *STOPPED})
"""Why nodes are pending that do not get on by themselves; all else that is waited for passes."""

TRUE, FALSE = ConditionStatus.TRUE, ConditionStatus.FALSE


class Standing(NamedTuple):
    """How a policy stands.

    Attributes:
        policy: the policy.
        tally: its counts.
        verdict: why a node, by name, is in its count.
        holders: nodes whose spec still has a group of this policy.
        control: the fleet switch.
        fence_problem: why agents are not fenced; empty when they are.
        rollout: what the status says of it, but for the epoch; None when nothing is rolled out.
        unproven: nodes that count in its budget.
        cause: why its revision failed, in a few words.
    """

    policy: PolicyFacts
    tally: Tally
    verdict: Callable[[str], Verdict]
    holders: frozenset[str]
    control: Control = Control()
    fence_problem: str = ""
    rollout: RolloutView | None = None
    unproven: int = 0
    cause: str = ""


def policy_status(standing: Standing, known: PolicyStatusView, wall: datetime) -> PolicyStatusView:
    """Return the status that the policy shall have.

    Args:
        standing: what is counted now.
        known: the status it has; transition times come from there.
        wall: time for conditions whose status moved.
    """
    tally, generation = standing.tally, standing.policy.generation
    conditions = merge_conditions(known.conditions, _findings(standing), generation=generation, now=wall)
    return PolicyStatusView(
        observed_generation=generation,
        summary=_summary(standing),
        conditions=tuple(conditions),
        nodes=NodeCounts(matched=tally.matched, **{bucket: tally.buckets[bucket] for bucket in NodeBucket}),
        overlays=Overlays(drifted=tally.drifted, unproven=standing.unproven),
        rollout=standing.rollout,
        statistics=tally.statistics(),
        plan=PlanTotals(**tally.plans) if standing.policy.mode is PolicyMode.PLAN else None,
        conflicts=_conflicts(tally),
        worst_nodes=tuple(_worst_nodes(standing)),
    )


def find_ready(conditions: tuple[dict[str, Any], ...]) -> tuple[str, str] | None:
    """Return status and reason of the Ready condition, or None."""
    ready = (condition for condition in conditions if condition.get("type") == PolicyCondition.READY)
    return next(((str(c.get("status")), str(c.get("reason"))) for c in ready), None)


def _findings(standing: Standing) -> tuple[Condition, ...]:
    if standing.policy.deleting:
        return _ending(standing)
    return (_ready(standing), _reconciling(standing), _stalled(standing), _degraded(standing), _conflicted(standing))


def _ready(standing: Standing) -> Condition:
    if standing.fence_problem:  # whatever its nodes say: another node may have said it for them
        return Condition(PolicyCondition.READY, FALSE, Reason.FENCE_MISSING, standing.fence_problem)
    buckets = standing.tally.buckets
    for bucket in (NodeBucket.FAILED, NodeBucket.PENDING, NodeBucket.REFUSED):
        if buckets[bucket]:
            reason = _main_reason(standing.tally, bucket)
            if bucket is NodeBucket.PENDING and reason not in FOR_A_PERSON:
                reason = Reason.APPLYING
            return Condition(PolicyCondition.READY, FALSE, reason, _share(standing, bucket))
    return Condition(PolicyCondition.READY, TRUE, *_content(standing))


def _content(standing: Standing) -> tuple[Reason, str]:
    tally, mode = standing.tally, standing.policy.mode
    if not tally.matched:
        return Reason.NO_NODES_MATCHED, "spec.nodeSelector matches no node"
    others = [bucket for bucket in WORST_FIRST if tally.buckets[bucket]]
    text = f"{tally.buckets[NodeBucket.READY]} of {_nodes(tally.matched)} ready"
    shares = (_share(standing, bucket) for bucket in others)
    message = "; ".join([text, *shares, *_ineffective(standing), *_untuned(standing)])
    reasons = {PolicyMode.PAUSED: Reason.PAUSED, PolicyMode.PLAN: Reason.PLAN_ONLY}
    in_force = _main_reason(tally, NodeBucket.READY) if _ineffective(standing) else Reason.AS_EXPECTED
    return reasons.get(mode, in_force), message


def _reconciling(standing: Standing) -> Condition:
    # kstatus looks at this one before Stalled: what has stopped would be in progress for ever.
    if all(why in STOPPED for of, why in standing.tally.names if of is NodeBucket.PENDING):
        return Condition(PolicyCondition.RECONCILING, FALSE, Reason.AS_EXPECTED)
    reason = _main_reason(standing.tally, NodeBucket.PENDING)
    return Condition(PolicyCondition.RECONCILING, TRUE, reason, _share(standing, NodeBucket.PENDING))


def _stalled(standing: Standing) -> Condition:
    tally, switch = standing.tally, standing.control.switch
    if switch is not FleetSwitch.RUN:
        reason = SWITCH_REASONS[switch]
        waits = any(of is NodeBucket.PENDING and why is reason for of, why in tally.names)
        problem = f"; {standing.control.problem}" if standing.control.problem else ""
        return Condition(PolicyCondition.STALLED, TRUE if waits else FALSE, reason, f"fleet switch: {switch}{problem}")
    if standing.fence_problem:
        return Condition(PolicyCondition.STALLED, TRUE, Reason.FENCE_MISSING, standing.fence_problem)
    waiting = {why for of, why in tally.names if of is NodeBucket.PENDING}
    for reason in ROLLOUT_STOPPED:
        if reason in waiting:
            message = standing.rollout.message if standing.rollout is not None else None
            return Condition(PolicyCondition.STALLED, TRUE, reason, message or _share(standing, NodeBucket.PENDING))
    only_refused = tally.buckets[NodeBucket.REFUSED] and not (
        tally.buckets[NodeBucket.PENDING] or tally.buckets[NodeBucket.FAILED]
    )
    if not only_refused:
        return Condition(PolicyCondition.STALLED, FALSE, Reason.AS_EXPECTED)
    message = f"{_share(standing, NodeBucket.REFUSED)}. Change the policy as it says, or narrow spec.nodeSelector"
    return Condition(PolicyCondition.STALLED, TRUE, _main_reason(tally, NodeBucket.REFUSED), message)


def _degraded(standing: Standing) -> Condition:
    bad = [b for b in (NodeBucket.FAILED, NodeBucket.UNREACHABLE) if standing.tally.buckets[b]]
    texts = [*(_share(standing, bucket) for bucket in bad), *_ineffective(standing)]
    if not texts:
        return Condition(PolicyCondition.DEGRADED, FALSE, Reason.AS_EXPECTED)
    reason = _main_reason(standing.tally, [*bad, NodeBucket.READY][0])
    return Condition(PolicyCondition.DEGRADED, TRUE, reason, "; ".join(texts))


def _conflicted(standing: Standing) -> Condition:
    conflicts = _conflicts(standing.tally)
    if not conflicts:
        return Condition(PolicyCondition.CONFLICTED, FALSE, Reason.AS_EXPECTED)
    message = "; ".join(f"{c.group}: policy {c.winner} wins on {_nodes(c.nodes)}" for c in conflicts)
    return Condition(PolicyCondition.CONFLICTED, TRUE, Reason.OVERRIDDEN, message)


def _ending(standing: Standing) -> tuple[Condition, ...]:
    """A policy that is being deleted waits for its nodes."""
    left = len(standing.holders)
    example = f", for example {min(standing.holders)}" if left else ""
    message = f"deleted; {_nodes(left)} not restored yet{example}"
    return (
        Condition(PolicyCondition.READY, FALSE, Reason.RESTORING, message),
        Condition(PolicyCondition.RECONCILING, TRUE, Reason.RESTORING, message),
    )


PHASE_WORDS: Final[Mapping[str, str]] = {
    RolloutPhase.HALTED: "halted",
    RolloutPhase.ROLLING_BACK: "rolling back",
    RolloutPhase.ROLLED_BACK: "rolled back",
}
"""Phases that are said in front of everything else."""


def _summary(standing: Standing) -> str:
    switch, phase = standing.control.switch, standing.rollout.phase if standing.rollout is not None else None
    if switch is not FleetSwitch.RUN:
        return f"fleet {switch}: {_counts(standing)}"
    word = PHASE_WORDS.get(phase or "")
    if not word or standing.policy.deleting:
        return _counts(standing)
    buckets = standing.tally.buckets
    if standing.cause and not buckets[NodeBucket.FAILED]:
        # Ready has the reason of failed nodes; where there are none left, only the rollout knows why it stopped.
        return f"{buckets[NodeBucket.READY]}/{standing.tally.matched} ready, {word}: {standing.cause}"
    return f"{word}: {_counts(standing)}"


def _counts(standing: Standing) -> str:
    if standing.policy.deleting:
        return f"restoring, {_nodes(len(standing.holders))} left"
    buckets = standing.tally.buckets
    words = [f"{buckets[bucket]} {bucket}" for bucket in WORST_FIRST if buckets[bucket]]
    return ", ".join([f"{buckets[NodeBucket.READY]}/{standing.tally.matched} ready", *words])


def _nodes(count: int) -> str:
    return "1 node" if count == 1 else f"{count} nodes"


def _main_reason(tally: Tally, bucket: NodeBucket) -> Reason:
    """Return the most frequent reason of one count; of equally frequent ones the first in the alphabet."""
    reasons = {reason: len(names) for (of, reason), names in tally.names.items() if of is bucket}
    return min(reasons, key=lambda reason: (-reasons[reason], reason))


def _share(standing: Standing, bucket: NodeBucket) -> str:
    tally, reason = standing.tally, _main_reason(standing.tally, bucket)
    text = f"{tally.buckets[bucket]} of {_nodes(tally.matched)} {bucket}"
    why = standing.verdict(min(tally.names[bucket, reason])).message
    return f"{text}: {why}" if reason in STOPPED and why else f"{text}, {_example(standing, bucket)}"


def _ineffective(standing: Standing) -> tuple[str, ...]:
    """Say how many nodes are ready to no effect; nothing when none is."""
    count = sum(len(names) for (of, _), names in standing.tally.names.items() if of is NodeBucket.READY)
    return (f"{count} of them to no effect, {_example(standing, NodeBucket.READY)}",) if count else ()


def _untuned(standing: Standing) -> tuple[str, ...]:
    """Say that fixed numbers keep Auto from choosing."""
    text = "tuning.mode Auto chooses nothing, since settings.offload gives channels, profiles or another engine"
    return (text,) if standing.policy.tuning is Tuned.FIXED else ()


def _example(standing: Standing, bucket: NodeBucket) -> str:
    tally, reason = standing.tally, _main_reason(standing.tally, bucket)
    node = min(tally.names[bucket, reason])
    message = standing.verdict(node).message
    why = f"{reason}: {shorten(message, WORST_MESSAGE_LENGTH_MAX)}" if message else reason
    return f"for example {node}: {why}"


def _conflicts(tally: Tally) -> tuple[Conflict, ...]:
    ranked = sorted(tally.losses.items(), key=lambda item: (-item[1], item[0]))
    shown, room = [], CONFLICT_BYTES_MAX
    for loss, nodes in ranked[:CONFLICTS_MAX]:
        room -= len(loss.winner)
        if room < 0:
            break
        shown.append(Conflict(loss.group, loss.winner, nodes))
    return tuple(shown)


def _worst_nodes(standing: Standing) -> Iterator[WorstNode]:
    room = WORST_NODES_MAX
    for bucket in (*WORST_FIRST, NodeBucket.READY):
        names = (name for (of, _), nodes in standing.tally.names.items() if of is bucket for name in nodes)
        for name in heapq.nsmallest(room, names):
            room -= 1
            verdict = standing.verdict(name)
            yield WorstNode(name, bucket, verdict.reason, shorten(verdict.message, WORST_MESSAGE_LENGTH_MAX))
