# SPDX-License-Identifier: Apache-2.0
"""What one node shall have and how it counts: what depends on nothing that is a node's own is made once for all.

Thousands of nodes have the same resolution, the same spec and the same turns, and say something new about themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from numamigration_api.vocabulary import FleetSwitch, SettingsGroup
from numamigration_operator.core.classify import NodeFacts, classify, overridden, plan_outcome
from numamigration_operator.core.fleet_switch import under_switch, withheld
from numamigration_operator.core.node_record import Pools
from numamigration_operator.core.progress import observe_of
from numamigration_operator.core.render import Turn, observed, render
from numamigration_operator.core.resolve import PolicyFacts, Resolution
from numamigration_operator.core.tally import Contribution
from numamigration_operator.core.wishes import Spec, revision_of

WANTED_MAX: Final = 4096  # combinations of policies and of where their rollouts are, not nodes
OUTLINES_CACHED: Final = 1024


class Given(NamedTuple):
    """All that it depends on what a node shall have.

    Attributes:
        resolution: who wins what; nothing where no agent is expected.
        base: what the spec says, or will say once the open write is through.
        restored: groups whose restore the agent has confirmed.
        turns: of the policies that win something, in the order of ``resolution.won``.
        switch: where the fleet switch stands.
        verify_epoch: with which the node shall verify.
    """

    resolution: Resolution
    base: Spec
    restored: frozenset[SettingsGroup]
    turns: tuple[Turn, ...]
    switch: FleetSwitch
    verify_epoch: int


class Wanted(NamedTuple):
    """What a node shall have.

    Attributes:
        withheld: groups that the fleet switch keeps from being as the policies want them.
    """

    spec: Spec
    revision: str
    withheld: frozenset[SettingsGroup]


class WantedSpecs:
    """Decides what nodes shall have; forgets all answers when they are many, and nothing breaks."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools
        self._known: dict[Given, Wanted] = {}

    def __call__(self, given: Given) -> Wanted:
        """Return what a node shall have once all that stands above policies has had its say."""
        known = self._known.get(given)
        if known is None:
            if len(self._known) >= WANTED_MAX:
                self._known.clear()
            known = self._known[given] = self._decide(given)
        return known

    def forget(self) -> None:
        """Take in that resolutions were made anew."""
        self._known.clear()

    def _decide(self, given: Given) -> Wanted:
        resolution, base, restored, switch = given.resolution, given.base, given.restored, given.switch
        turns = dict(zip(resolution.won, given.turns, strict=True))
        wished = render(resolution, base, restored, lambda policy: turns[policy.uid])
        switched = under_switch(switch, base, wished, restored)
        winners = {policy.uid: policy for policy in resolution.winners.values()}
        admitted = [winners[uid] for uid, turn in turns.items() if turn.admitted and turn.goal.soak]
        watched = observed(base, switched, observe_of(admitted))
        spec = self._pools.spec(watched._replace(verify_epoch=given.verify_epoch))
        return Wanted(spec, revision_of(spec), withheld(wished, spec))


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


def contribution(policy: PolicyFacts, node: NodeFacts) -> Contribution:
    """Return what a node adds to the counts of a policy that selects it."""
    resolution, report, verdict = node.resolution, node.report, classify(policy, node)
    offload = report is not None and resolution.winners.get(SettingsGroup.OFFLOAD) is policy
    return Contribution(
        verdict,
        drifted=report is not None and report.drifted and policy.uid in resolution.won,
        losses=resolution.losses.get(policy.uid, ()),
        statistics=report.statistics if offload and report is not None else None,
        plan=plan_outcome(policy, node, verdict),
    )
