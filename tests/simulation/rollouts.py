# SPDX-License-Identifier: Apache-2.0
"""Rollouts as the API server's objects show them: the oracle's own reading of docs/decisions/0025 and 0026.

Shares no code with the operator but the hash by which an agent says what has soaked.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from numamigration_api.vocabulary import CELL_ANNOTATION_PREFIX, POLICY_UID_LABEL
from tests.simulation.kernels import GROUPS
from tests.simulation.objects import Json, find, revision_of
from tests.simulation.wanted import is_safe

FAILED_PHASES: Final = frozenset({"Halted", "RollingBack", "RolledBack"})
UNCHANGED: Final = frozenset({"Refused", "Unsupported"})
SHARED: Final = ("acceptedRisks", "verification", "unsupported", "drift")
"""What a content says of all its groups."""


class Content(NamedTuple):
    """One group of a policy's content, as canonical JSON: equal for what moves the same."""

    uid: str
    group: str
    text: str


class Whole(NamedTuple):
    """A whole revision: what it asks of the kernel, and its onDelete."""

    contents: frozenset[Content]
    on_delete: str


Cell = tuple[str, str]
"""Dialect and hardware class."""


def content_of_wish(group: str, wish: Mapping[str, Any]) -> Content:
    """Return what a wish asks of the kernel."""
    return Content(wish["source"]["uid"], group, _text(wish, wish["settings"]))


def contents_of(uid: str, asked: Mapping[str, Any]) -> frozenset[Content]:
    """Return the contents of a policy's spec, or of the data of a ControllerRevision."""
    return frozenset(Content(uid, group, _text(asked, settings)) for group, settings in asked["settings"].items())


def _text(document: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    shared = [document.get(name) or None for name in SHARED]
    return msgspec.json.encode([settings, *shared], order="sorted").decode()


def owner_of(revision: Json) -> str:
    """Return the uid of a ControllerRevision's policy."""
    return str(find(revision, ("metadata", "labels", POLICY_UID_LABEL)) or "")


def verdicts(revision: Json | None) -> Mapping[Cell, Json]:
    """Return what became of a ControllerRevision, by cell."""
    found = [
        json.loads(text)
        for key, text in (find(revision, ("metadata", "annotations")) or {}).items()
        if key.startswith(CELL_ANNOTATION_PREFIX)
    ]
    return {(one["dialect"], one["hardwareClass"]): one for one in found}


def ledger(policy: Json | None, part: str) -> tuple[str, ...]:
    """Return the names of a policy's ledger: `reserved` or `carried`."""
    return tuple(find(policy, ("status", "rollout", part)) or ())


def phase(policy: Json | None) -> str:
    """Return what a policy's status says of its rollout."""
    return str(find(policy, ("status", "rollout", "phase")) or "")


def budget(policy: Json, matched: int) -> int:
    """Return how many nodes may be unproven: a number, or percent of the matched ones, rounded up, one at least."""
    asked = policy["spec"]["rollout"]["maxUnproven"]
    if isinstance(asked, str):
        return max(1, math.ceil(int(asked.removesuffix("%")) * matched / 100))
    return max(1, int(asked))


def unproven(state: Json) -> Iterator[tuple[str, str]]:
    """Yield what has not soaked on a node: uid of the policy, and group."""
    for group in GROUPS:
        wish = find(state, ("spec", "groups", group))
        if wish is not None and not is_safe(group, wish) and not is_settled(state, group, wish):
            yield wish["source"]["uid"], group


def is_settled(state: Json, group: str, wish: Json) -> bool:
    """Whether a wish has soaked, or was let be without a change."""
    result = find(state, ("status", "groups", group)) or {}
    return result.get("state") in UNCHANGED or has_soaked(state, group, wish)


def has_soaked(state: Json, group: str, wish: Json) -> bool:
    """Whether the agent says that a wish has soaked."""
    told = find(state, ("status", "groups", group, "soakedRevision"))
    return told is not None and bool(told == revision_of(wish))


def cell_of(state: Json | None) -> Cell:
    """Return the cell that a node's agent has told; empty words when it has not."""
    status = (state or {}).get("status") or {}
    return status.get("dialect") or "", status.get("hardwareClass") or ""
