# SPDX-License-Identifier: Apache-2.0
"""What one node shall have and how it counts: what depends on nothing that is a node's own is made once for all.

Thousands of nodes have the same resolution, the same spec and the same turns, and say something new about themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from numamigration_api.vocabulary import FleetSwitch, GroupMode, NodeBucket, PolicyMode, Reason, SettingsGroup
from numamigration_operator.core.classify import ARRIVED, Progress, Verdict, Wanted, classify, overridden, plan_outcome
from numamigration_operator.core.fleet_switch import under_switch, withheld
from numamigration_operator.core.node_facts import NodeFacts, Part
from numamigration_operator.core.node_record import Pools
from numamigration_operator.core.progress import Case, has_all, is_unproven, observed, place_of, progress_of, turn_of
from numamigration_operator.core.render import Turn, paused_offload, render
from numamigration_operator.core.resolve import NOTHING_WISHED, PolicyFacts, Resolution
from numamigration_operator.core.rollout import Place
from numamigration_operator.core.tally import Contribution
from numamigration_operator.core.wishes import Spec, revision_of, sources_of

WANTED_MAX: Final = 4096  # combinations of policies and of where their rollouts are, not nodes
OUTLOOKS_MAX: Final = 2048  # kinds of nodes: the same resolution, cell, report and turns
OUTLINES_CACHED: Final = 1024
NO_TURN: Final = Turn()
UNSEEN: Final = Contribution(
    Verdict(NodeBucket.UNREACHABLE, Reason.NODE_UNREACHABLE)
)  # of a policy that selects it no more


class Given(NamedTuple):
    """All that it depends on what a node shall have.

    Attributes:
        resolution: who wins what; nothing where no agent is expected.
        base: what the spec says, or will say once the open write is through.
        rivals: what other sources may have there in its place.
        restored: groups whose restore the agent has confirmed.
        turns: of the policies that win something, in the order of ``resolution.won``.
        switch: where the fleet switch stands.
        verify_epoch: with which the node shall verify.
        class_held: nothing is turned on there.
        unproven: uids of policies of which something has not soaked there.
    """

    resolution: Resolution
    base: Spec
    rivals: Spec
    restored: frozenset[SettingsGroup]
    turns: tuple[Turn, ...]
    switch: FleetSwitch
    verify_epoch: int
    class_held: bool
    unproven: frozenset[str]


class Outline(NamedTuple):
    """What a resolution alone says of how its nodes count.

    Attributes:
        losers: by uid, what a node adds to policies that win nothing there, whatever it says.
        others: policies for which it depends on the node.
        deadlines: after how many seconds a silent node is unreachable for one of them, rising.
    """

    losers: Mapping[str, Contribution]
    others: tuple[PolicyFacts, ...]
    deadlines: tuple[int, ...]


@lru_cache(maxsize=OUTLINES_CACHED)
def outline(resolution: Resolution) -> Outline:
    """Return what a resolution alone says; most nodes share a few."""
    verdicts = {policy.uid: overridden(policy, resolution) for policy in resolution.policies}
    losers = {
        uid: Contribution(
            verdict,
            losses=resolution.losses.get(uid, ()),
            plan="blocked" if uid in resolution.blocked else None,
        )
        for uid, verdict in verdicts.items()
        if verdict is not None
    }
    others = tuple(policy for policy in resolution.policies if policy.uid not in losers)
    return Outline(losers, others, tuple(sorted({policy.deadline_seconds for policy in resolution.policies})))


class Counts(NamedTuple):
    """How a node counts.

    Attributes:
        contributions: by uid, what it adds to each policy that selects it.
        places: by uid, where it stands in rollouts.
        holds: uids of policies that have a group in its spec, shown or open.
        is_lost: it counts as unreachable for a policy, or is silent for its deadline.
        is_failed: it counts as failed for a policy.
    """

    contributions: Mapping[str, Contribution]
    places: Mapping[str, Place]
    holds: frozenset[str]
    is_lost: bool
    is_failed: bool


class Outlook(NamedTuple):
    """What follows for a node.

    Attributes:
        wanted: what it shall have.
        turns: by uid, what rollouts of policies that win something there say.
        counts: how it counts, if nothing is written.
    """

    wanted: Wanted
    turns: Mapping[str, Turn]
    counts: Counts


class Outlooks:
    """Decides for nodes, once for all that are alike; forgets all answers when they are many, and nothing breaks."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools
        self._wanted: dict[Given, Wanted] = {}
        self._known: dict[NodeFacts, Outlook] = {}

    def __call__(self, node: NodeFacts) -> Outlook:
        """Return what follows for a node."""
        known = self._known.get(node)
        if known is None:
            if len(self._known) >= OUTLOOKS_MAX:
                self._known.clear()
            known = self._known[node] = self._decide(node)
        return known

    def forget(self) -> None:
        """Take in that resolutions were made anew: nothing is asked by the old ones any more."""
        self._wanted.clear()
        self._known.clear()

    def _decide(self, node: NodeFacts) -> Outlook:
        resolution = node.resolution if node.selected else NOTHING_WISHED
        turns = {part.course.facts.uid: turn_of(node, part) for part in node.parts[: len(resolution.won)]}
        given = Given(
            resolution,
            node.base,
            node.rivals,
            node.restored,
            tuple(turns.values()),
            node.switch,
            node.verify_epoch,
            node.class_held,
            node.unproven,
        )
        wanted = self._wanted.get(given)
        if wanted is None:
            if len(self._wanted) >= WANTED_MAX:
                self._wanted.clear()
            wanted = self._wanted[given] = self._want(given)
        return Outlook(wanted, turns, counts_of(node, wanted, turns))

    def _want(self, given: Given) -> Wanted:
        """Return what a node shall have once all that stands above policies has had its say."""
        resolution, base, restored, switch = given.resolution, given.base, given.restored, given.switch
        turns = dict(zip(resolution.won, given.turns, strict=True))
        wished = render(resolution, base, restored, lambda policy: turns[policy.uid], given.rivals)
        switched = under_switch(switch, base, wished, restored)
        policies = (policy for policy in resolution.policies if turns.get(policy.uid, NO_TURN).goal.soak)
        watched = observed(base, switched, policies, given.unproven)
        held = paused_offload(watched) if given.class_held else watched
        spec = self._pools.spec(held._replace(verify_epoch=given.verify_epoch))
        kept_off = _kept_off(resolution, spec) if given.class_held else frozenset()
        return Wanted(spec, revision_of(spec), withheld(wished, spec) | kept_off)


def _kept_off(resolution: Resolution, spec: Spec) -> frozenset[SettingsGroup]:
    """Return the group that the hold of a class, and no paused policy, keeps from being as its policy wants it."""
    winner, wish = resolution.winners.get(SettingsGroup.OFFLOAD), spec.wish(SettingsGroup.OFFLOAD)
    paused = winner is None or winner.mode is PolicyMode.PAUSED
    held = wish is not None and wish.mode is GroupMode.HOLD and not paused
    return frozenset({SettingsGroup.OFFLOAD} if held else ())


def counts_of(node: NodeFacts, wanted: Wanted, turns: Mapping[str, Turn]) -> Counts:
    """Return how a node counts that shall have this."""
    unproven = node.unproven
    cases = {
        part.course.facts.uid: _case(node, part, wanted, turns, unproven)
        for part in node.parts
        if part.course.facts.uid in turns or part.course.facts.uid in unproven
    }
    progress = {uid: progress_of(case) for uid, case in cases.items()}
    made = outline(node.resolution)
    others = {
        policy.uid: contribution(policy, node, wanted, progress.get(policy.uid, ARRIVED)) for policy in made.others
    }
    counted = {**made.losers, **others}
    buckets = [one.verdict.bucket for one in others.values()]
    return Counts(
        contributions=counted,
        places={uid: place_of(case, counted.get(uid, UNSEEN).verdict, progress[uid]) for uid, case in cases.items()},
        holds=sources_of(node.spec) | sources_of(node.base),
        is_lost=NodeBucket.UNREACHABLE in buckets or any(case.silent for case in cases.values()),
        is_failed=NodeBucket.FAILED in buckets,
    )


def _case(
    node: NodeFacts,
    part: Part,
    wanted: Wanted,
    turns: Mapping[str, Turn],
    unproven: frozenset[str],
) -> Case:
    policy = part.course.facts
    mine = node.resolution.won.get(policy.uid, ()) if node.selected else ()
    return Case(
        node,
        part,
        turns.get(policy.uid, NO_TURN),
        mine,
        wanted.spec,
        has_all(wanted.spec, mine, policy.wishes),
        is_unproven(node, part, unproven),
    )


def contribution(policy: PolicyFacts, node: NodeFacts, wanted: Wanted, progress: Progress) -> Contribution:
    """Return what a node adds to the counts of a policy that selects it."""
    resolution, said, verdict = node.resolution, node.said, classify(policy, node, wanted, progress)
    return Contribution(
        verdict,
        drifted=node.selected and said is not None and said.drifted and policy.uid in resolution.won,
        losses=resolution.losses.get(policy.uid, ()),
        plan=plan_outcome(policy, node, verdict),
    )
