# SPDX-License-Identifier: Apache-2.0
"""What policies want on a node, worked out a second time: the oracle's own reading of the design, sharing no code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from tests.simulation.objects import Json

FINALIZER: Final = "numamigration.dev/restore"


class View(NamedTuple):
    """Policies, Nodes and the fleet switch at one moment, by name; equal Nodes are one mapping in views that follow."""

    since: float
    policies: Mapping[str, Json]
    nodes: Mapping[str, Json]
    switch: str


def selects(policy: Json, labels: Mapping[str, str]) -> bool:
    """Whether a policy selects a node; only matchLabels are used here."""
    wanted = policy["spec"]["nodeSelector"].get("matchLabels") or {}
    return all(labels.get(key) == value for key, value in wanted.items())


def is_deleting(policy: Json) -> bool:
    """Whether somebody deleted it."""
    return "deletionTimestamp" in policy["metadata"]


def rivals(view: View, node: str) -> list[Json]:
    """Return the policies that select a node and may win something there, the first to win first."""
    if node not in view.nodes:
        return []
    labels = view.nodes[node]["metadata"].get("labels") or {}
    found = [
        policy
        for policy in view.policies.values()
        if policy["spec"]["mode"] != "Plan" and not is_deleting(policy) and selects(policy, labels)
    ]
    return sorted(
        found,
        key=lambda one: (-one["spec"]["priority"], one["metadata"]["creationTimestamp"], one["metadata"]["name"]),
    )


def winner(view: View, node: str, group: str) -> Json | None:
    """Return the policy that sets a group on a node."""
    return next((policy for policy in rivals(view, node) if group in policy["spec"]["settings"]), None)


def matched(view: View, policy: Json) -> list[str]:
    """Return the nodes that a policy selects."""
    return [name for name, node in view.nodes.items() if selects(policy, node["metadata"].get("labels") or {})]


def same_wish(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    """Whether two wishes differ in nothing but the generation of their source."""
    if one is None or other is None:
        return one is other
    return _plain(one) == _plain(other)


def is_safe(group: str, wish: Mapping[str, Any] | None) -> bool:
    """Whether a wish only restores, holds, releases, or turns offload off."""
    if wish is None or wish["mode"] != "Apply":
        return True
    if group != "offload":
        return False
    named = (one["engine"] for one in wish["settings"].get("profiles") or ())
    return {wish["settings"].get("engine"), *named} <= {"Off", None}


def _plain(wish: Mapping[str, Any]) -> Json:
    source = {key: value for key, value in wish["source"].items() if key != "generation"}
    return {**wish, "source": source}
