# SPDX-License-Identifier: Apache-2.0
"""What people asked for, and what each kernel shall hold then. Pure, and not the operator's own arithmetic.

Every policy releases with Restore, so a kernel always holds the winner's fields over the values of before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, NamedTuple

from tests.apiserver.operator_process import AT_ONCE
from tests.fakekernel.model import Snapshot

Settings = dict[str, dict[str, Any]]

ROLES: Final = ("database", "web", "idle")
POLICIES_MAX: Final = 4
SELECTORS: Final[tuple[dict[str, str], ...]] = ({}, {"role": "database"}, {"role": "web"})
BALANCING: Final = {"Off": 0, "Normal": 1, "Tiering": 2}
REASONS: Final = (["demotion"], ["demotion", "damon"], ["damon", "compaction"])


class Kernel(NamedTuple):
    """What policies can set on a node."""

    offloading: bool
    channels: int
    reasons: frozenset[str]
    balancing: int
    promote_rate: int
    demotion: bool

    @classmethod
    def of(cls, snapshot: Snapshot) -> Kernel:
        """Return what a kernel holds."""
        return cls(
            snapshot.offloading,
            snapshot.nr_dma_chan,
            frozenset(snapshot.reasons),
            snapshot.numa_balancing,
            snapshot.promote_rate_limit,
            snapshot.demotion_enabled,
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """One MigrationPolicy; no two have the same priority."""

    name: str
    priority: int
    selector: Mapping[str, str]
    settings: Settings

    def selects(self, role: str) -> bool:
        """Return whether a node of this role is meant."""
        return self.selector.get("role", role) == role

    def spec(self) -> dict[str, Any]:
        """Return the object's spec."""
        return {
            "nodeSelector": {"matchLabels": dict(self.selector)},
            "priority": self.priority,
            "settings": self.settings,
            "acceptedRisks": ["UnverifiedEngine"],
            "verification": "Off",
            "onDelete": "Restore",
            "rollout": AT_ONCE,
        }


@dataclass(slots=True)
class Model:
    """All policies, and the role of each node."""

    roles: dict[str, str]
    policies: dict[str, Policy] = field(default_factory=dict)
    made: int = 0

    def new_policy(self, rng: Random) -> Policy:
        """Return a policy that there was not before, and take it in."""
        self.made += 1
        policy = Policy(f"policy-{self.made}", self.made, rng.choice(SELECTORS), some_settings(rng))
        self.policies[policy.name] = policy
        return policy

    def winners(self, node: str) -> dict[str, Policy]:
        """Return who sets each group of a node."""
        ranked = sorted(self.policies.values(), key=lambda policy: policy.priority)
        return {group: one for one in ranked if one.selects(self.roles[node]) for group in one.settings}

    def kernel(self, node: str, before: Kernel) -> Kernel:
        """Return what a node's kernel shall hold; `before` is what it held before all policies."""
        shall = before
        for group, policy in self.winners(node).items():
            shall = shall._replace(**_fields(group, policy.settings[group]))
        return shall

    def counts(self, policy: Policy) -> dict[str, int]:
        """Return the partition of a policy's nodes when all is calm, without zeros."""
        matched = [node for node, role in self.roles.items() if policy.selects(role)]
        ready = sum(policy in self.winners(node).values() for node in matched)
        return {name: count for name, count in (("ready", ready), ("overridden", len(matched) - ready)) if count}


def some_settings(rng: Random) -> Settings:
    """Return settings of one group or more."""
    balancing: dict[str, Any] = {"mode": rng.choice(sorted(BALANCING))}
    if rng.random() < 0.5:
        balancing["promoteRateLimitMBps"] = rng.choice([1024, 2048, 4096])
    offload: dict[str, Any] = {"engine": "Off"}
    if rng.random() < 0.8:
        offload = {"engine": "DMA", "channels": rng.randint(1, 4), "reasons": rng.choice(REASONS)}
    every: Settings = {"offload": offload, "balancing": balancing, "demotion": {"enabled": rng.random() < 0.5}}
    return {group: every[group] for group in sorted(rng.sample(sorted(every), rng.randint(1, 3)))}


def _fields(group: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    match group:
        case "demotion":
            return {"demotion": settings["enabled"]}
        case "balancing":
            rate = settings.get("promoteRateLimitMBps")
            return {"balancing": BALANCING[settings["mode"]]} | ({"promote_rate": rate} if rate else {})
        case _ if settings["engine"] == "Off":
            return {"offloading": False}
        case _:
            reasons = frozenset(settings["reasons"])
            return {"offloading": True, "channels": settings["channels"], "reasons": reasons}
