# SPDX-License-Identifier: Apache-2.0
"""Which policy sets which settings group on a node.

The higher priority wins, then the older policy, then the smaller name (GEP-713); per group the first that sets it.
A Plan policy never wins: it goes to the node's plans. A policy that is being deleted takes no part. The losers are part
of the answer.

Source: Gateway API, GEP-713, "Conflict resolution".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from numamigration_api.machinery.canonical import canonical_json
from numamigration_api.vocabulary import (
    PLANS_MAX,
    RESTORE_FINALIZER,
    PolicyMode,
    Release,
    SettingsGroup,
    UnsupportedPolicy,
)
from numamigration_operator.core.objects import PolicyObject, Rollout, Selector, SourceView
from numamigration_operator.core.revisions import content_of, revision_id, wishes_of
from numamigration_operator.core.tuned import Profiles, Tuned, guarded, tuned_by, tuned_settings
from numamigration_operator.core.wishes import PlanWish, Wish


@dataclass(frozen=True, slots=True, eq=False)
class PolicyFacts:
    """A policy as decisions need it.

    Attributes:
        rank: sorts the policy that wins first.
        armed: nodes may be pushed, since the finalizer that a restore at deletion needs is seen on the object.
        revision: the hash of what reaches nodes.
        content: that, as canonical JSON (``revisions``).
        wishes: per group what a node shall have that this policy wins, once the rollout admits it.
        rollout: how carefully.
        tuning: whether its nodes may be measured, and what is made of that.
    """

    name: str
    uid: str
    generation: int
    rank: tuple[int, str, str]
    selector: Selector
    mode: PolicyMode
    release: Release
    strict: bool
    armed: bool
    deleting: bool
    source: SourceView
    revision: str
    content: bytes
    rollout: Rollout
    wishes: Mapping[SettingsGroup, Wish]
    plan: PlanWish
    tuning: Tuned = Tuned.NO

    @property
    def deadline_seconds(self) -> int:
        """After how long a silent node is unreachable."""
        return self.rollout.node_deadline_seconds


class Loss(NamedTuple):
    """A group that a policy sets and another one wins."""

    group: SettingsGroup
    winner: str


class Resolution(NamedTuple):
    """What became of the policies that select one node.

    Attributes:
        policies: all of them, the first to win first.
        winners: per group, in the order of ``SettingsGroup``.
        won: the same by policy uid.
        losses: by policy uid.
        plans: the Plan policies that find room in the node state.
        plan_wishes: what is asked for them, in the same order; without the groups that they would not win.
        blocked: uids of Plan policies that would win nothing.
    """

    policies: tuple[PolicyFacts, ...]
    winners: Mapping[SettingsGroup, PolicyFacts]
    won: Mapping[str, tuple[SettingsGroup, ...]]
    losses: Mapping[str, tuple[Loss, ...]]
    plans: tuple[PolicyFacts, ...]
    plan_wishes: tuple[PlanWish, ...] = ()
    blocked: frozenset[str] = frozenset()

    def __hash__(self) -> int:
        """Nodes share a few of them; what is made of one is found by the object."""
        return id(self)


NOTHING_WISHED = Resolution((), {}, {}, {}, ())


def is_armed(policy: PolicyObject) -> bool:
    """Whether a policy may push: its finalizer is seen, or it restores nothing at its end."""
    return policy.spec.on_delete is Release.KEEP or RESTORE_FINALIZER in policy.metadata.finalizers


def policy_facts(policy: PolicyObject, profiles: Profiles = ()) -> PolicyFacts:
    """Return what decisions need of a policy.

    Args:
        policy: as it stands.
        profiles: what was measured, by class.
    """
    meta, spec = policy.metadata, policy.spec
    source = SourceView(policy=meta.name, uid=meta.uid, generation=meta.generation)
    content = content_of(spec, profiles)
    return PolicyFacts(
        name=meta.name,
        uid=meta.uid,
        generation=meta.generation,
        rank=(-spec.priority, meta.creation_timestamp, meta.name),
        selector=spec.node_selector,
        mode=spec.mode,
        release=spec.on_delete,
        strict=spec.unsupported is UnsupportedPolicy.STRICT,
        armed=is_armed(policy),
        deleting=meta.deletion_timestamp is not None,
        source=source,
        revision=revision_id(content),
        content=content,
        rollout=guarded(spec),
        wishes=wishes_of(content, source),
        plan=PlanWish(
            source=source,
            settings=canonical_json(tuned_settings(spec, profiles)),
            unsupported=spec.unsupported,
            verification=spec.verification,
            accepted_risks=tuple(sorted(spec.accepted_risks)),
        ),
        tuning=tuned_by(spec),
    )


def resolve(policies: Iterable[PolicyFacts]) -> Resolution:
    """Decide for one node which of the `policies` that select it sets each group; in whatever order they come."""
    ranked = tuple(sorted((policy for policy in policies if not policy.deleting), key=lambda policy: policy.rank))
    rivals = [policy for policy in ranked if policy.mode is not PolicyMode.PLAN]
    by_group = {group: [policy for policy in rivals if group in policy.wishes] for group in SettingsGroup}
    winners = {group: setters[0] for group, setters in by_group.items() if setters}
    losses: dict[str, tuple[Loss, ...]] = {}
    for group, setters in by_group.items():
        for loser in setters[1:]:
            losses[loser.uid] = (*losses.get(loser.uid, ()), Loss(group, setters[0].name))
    won = {one.uid: tuple(group for group, winner in winners.items() if winner is one) for one in winners.values()}
    plans: list[tuple[PolicyFacts, PlanWish]] = []
    for policy in (policy for policy in ranked if policy.mode is PolicyMode.PLAN):
        blocked = _blocked(policy, rivals)
        losses |= {policy.uid: blocked} if blocked else {}
        wish = _plan(policy, {loss.group for loss in blocked})
        if wish is not None:
            plans.append((policy, wish))
    shown = plans[:PLANS_MAX]
    blocked_plans = {one.uid for one in ranked if one.mode is PolicyMode.PLAN} - {one.uid for one, _ in plans}
    return Resolution(
        policies=ranked,
        winners=winners,
        won=won,
        losses=losses,
        plans=tuple(policy for policy, _ in shown),
        plan_wishes=tuple(wish for _, wish in shown),
        blocked=frozenset(blocked_plans),
    )


def _blocked(plan: PolicyFacts, rivals: Iterable[PolicyFacts]) -> tuple[Loss, ...]:
    """Return the groups that a Plan policy would not win.

    Equal priority does not block: a plan beside the live policy shows what an edit of that one would change.
    """
    higher = [rival for rival in rivals if rival.rank[0] < plan.rank[0]]
    winners = ((group, next((one for one in higher if group in one.wishes), None)) for group in plan.wishes)
    return tuple(Loss(group, winner.name) for group, winner in winners if winner is not None)


def _plan(policy: PolicyFacts, blocked: Collection[SettingsGroup]) -> PlanWish | None:
    """Return what of a plan a node is asked for; None when nothing is left of it."""
    if not blocked:
        return policy.plan
    settings = {
        group: msgspec.json.decode(wish.settings) for group, wish in policy.wishes.items() if group not in blocked
    }
    return msgspec.structs.replace(policy.plan, settings=canonical_json(settings)) if settings else None
