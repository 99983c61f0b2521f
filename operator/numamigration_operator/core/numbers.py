# SPDX-License-Identifier: Apache-2.0
"""What metrics tell of policies: plain numbers as of one moment, for whoever shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from numamigration_api.vocabulary import GuardrailMetric, NodeBucket, Reason, RolloutPhase
from numamigration_operator.core.objects import PolicyStatistics


class GuardrailNumbers(NamedTuple):
    """One guardrail of a policy.

    Attributes:
        value: the largest over the policy's unproven nodes, in the unit of `limit`; None when none reported it.
        limit: what it may not exceed.
    """

    metric: GuardrailMetric
    value: float | None
    limit: float


class PolicyNumbers(NamedTuple):
    """One policy. None: there is no such number at the moment, which is not 0.

    Attributes:
        name: of the policy.
        buckets: matched nodes; one that is not named has none.
        unproven: nodes reserved or changed and not yet proven.
        reserved: nodes that the stored reservation names.
        phase: where the rollout stands; None without one.
        wave: the wave that is under way, from 1.
        waves: how many there will be.
        rollbacks_total: rollbacks that this process began.
        guardrails: those that the policy's rollout has.
        reasons: nodes of which there is something to say, by reason; one that no node has is not named.
        statistics: sums over nodes; None when no node has a counter.
    """

    name: str
    buckets: Mapping[NodeBucket, int]
    unproven: int = 0
    reserved: int = 0
    phase: RolloutPhase | None = None
    wave: int | None = None
    waves: int | None = None
    rollbacks_total: int = 0
    guardrails: tuple[GuardrailNumbers, ...] = ()
    reasons: Mapping[Reason, int] = {}
    statistics: PolicyStatistics | None = None
