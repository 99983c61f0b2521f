# SPDX-License-Identifier: Apache-2.0
"""Which policy sets which settings group on a node.

The higher priority wins, then the older policy, then the smaller name (GEP-713); per group the first that sets it.
A Plan policy never wins: it goes to the node's plans. A policy that is being deleted takes no part. The losers are part
of the answer.

Source: Gateway API, GEP-713, "Conflict resolution".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

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
    """

    policies: tuple[PolicyFacts, ...]
    winners: Mapping[SettingsGroup, PolicyFacts]
    won: Mapping[str, tuple[SettingsGroup, ...]]
    losses: Mapping[str, tuple[Loss, ...]]
    plans: tuple[PolicyFacts, ...]


NOTHING_WISHED = Resolution((), {}, {}, {}, ())


def policy_facts(policy: PolicyObject) -> PolicyFacts:
    """Return what decisions need of a policy."""
    meta, spec = policy.metadata, policy.spec
    source = SourceView(policy=meta.name, uid=meta.uid, generation=meta.generation)
    content = content_of(spec)
    return PolicyFacts(
        name=meta.name,
        uid=meta.uid,
        generation=meta.generation,
        rank=(-spec.priority, meta.creation_timestamp, meta.name),
        selector=spec.node_selector,
        mode=spec.mode,
        release=spec.on_delete,
        strict=spec.unsupported is UnsupportedPolicy.STRICT,
        armed=spec.on_delete is Release.KEEP or RESTORE_FINALIZER in meta.finalizers,
        deleting=meta.deletion_timestamp is not None,
        source=source,
        revision=revision_id(content),
        content=content,
        rollout=spec.rollout,
        wishes=wishes_of(content, source),
        plan=PlanWish(
            source=source,
            settings=canonical_json(spec.settings),
            unsupported=spec.unsupported,
            verification=spec.verification,
            accepted_risks=tuple(sorted(spec.accepted_risks)),
        ),
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
    plans = [policy for policy in ranked if policy.mode is PolicyMode.PLAN]
    return Resolution(ranked, winners, won, losses, tuple(plans[:PLANS_MAX]))
