# SPDX-License-Identifier: Apache-2.0
"""Wishes: what a node state's spec says, in one spelling, whether it came from a policy or from the API server.

* Settings are canonical JSON bytes, so that wishes are equal when they mean the same, whatever the order of keys; being
  hashable they are shared by all nodes that have them, and no raw wish keeps its list page in memory.
* The revision leaves out itself, ``leaderEpoch`` and the generations of the sources: a policy edit that changes nothing
  for a node is not pushed to it. Empty ``groups`` and ``plans`` are left out, as the API server shows them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from numamigration_api.machinery.canonical import canonical_json, spec_revision, wish_revision
from numamigration_api.vocabulary import (
    API_VERSION,
    STATE_KIND,
    AcceptedRisk,
    DriftPolicy,
    GroupMode,
    Release,
    SettingsGroup,
    UnsupportedPolicy,
    Verification,
)
from numamigration_operator.core.objects import Observe, PlanWishView, SourceView, StateSpec, Struct, WishView

GROUPS: Final = tuple(SettingsGroup)  # to go over an enumeration costs ten times as much
REVISIONS_CACHED: Final = 4096  # distinct specs of a fleet: combinations of policies, not nodes


class Wish(Struct, frozen=True, cache_hash=True):
    """A settings group as one node shall have it. `settings` is canonical JSON."""

    source: SourceView
    mode: GroupMode
    settings: bytes
    release: Release
    drift: DriftPolicy
    unsupported: UnsupportedPolicy
    verification: Verification
    accepted_risks: tuple[AcceptedRisk, ...]


class PlanWish(Struct, frozen=True, cache_hash=True):
    """What a Plan policy would set on a node. `settings` is canonical JSON of all its groups."""

    source: SourceView
    settings: bytes
    unsupported: UnsupportedPolicy
    verification: Verification
    accepted_risks: tuple[AcceptedRisk, ...]


class Spec(NamedTuple):
    """A node state's spec without revision and leader epoch; groups in the order of ``SettingsGroup``."""

    groups: tuple[tuple[SettingsGroup, Wish], ...] = ()
    plans: tuple[PlanWish, ...] = ()
    observe: Observe | None = None
    verify_epoch: int = 0

    def wish(self, group: SettingsGroup) -> Wish | None:
        """Return the wish for one group, or None."""
        for name, wish in self.groups:  # several calls an event: a loop costs a third of a generator
            if name is group:
                return wish
        return None


def completed(spec: Spec, other: Spec) -> tuple[tuple[SettingsGroup, Wish], ...]:
    """Return the groups of a spec, and those of another one that it lacks."""
    found = ((group, spec.wish(group) or other.wish(group)) for group in SettingsGroup)
    return tuple((group, wish) for group, wish in found if wish is not None)


def means_same(one: Wish | None, other: Wish | None) -> bool:
    """Return whether two wishes differ in nothing but the generation of their source."""
    if one is None or other is None:
        return one is other
    if one is other:
        return True
    same_source = one.source.uid == other.source.uid
    return same_source and msgspec.structs.replace(one, source=other.source) == other


def does_same(one: Wish | None, other: Wish | None) -> bool:
    """Return whether two wishes differ in nothing but the generation of their source, and in how they will end."""
    if one is None or other is None:
        return one is other
    return means_same(msgspec.structs.replace(one, release=other.release), other)


def moves_same(one: Wish | None, other: Wish | None) -> bool:
    """Return whether two wishes of one source ask the same of the kernel, held or not and however they will end."""
    if one is None or other is None:
        return one is other
    return one is other or moving_revision(one) == moving_revision(other)


@lru_cache(maxsize=REVISIONS_CACHED)
def moving_revision(wish: Wish) -> str:
    """Return the hash by which an agent says that a wish has soaked."""
    return wish_revision(_plain(wish))


def unchanged(before: Spec, after: Spec) -> Spec:
    """Return the groups of `before` that do the same in `after`."""
    return Spec(tuple((group, wish) for group, wish in before.groups if does_same(wish, after.wish(group))))


@lru_cache(maxsize=REVISIONS_CACHED)
def rivals(specs: tuple[Spec, ...]) -> Spec:
    """Return what other sources may have, should the last one of `specs` not be what is there.

    Args:
        specs: what a node may have, the latest last.
    """
    groups = ((group, _rival(specs, group)) for group in GROUPS)
    return Spec(tuple((group, wish) for group, wish in groups if wish is not None))


def _rival(specs: tuple[Spec, ...], group: SettingsGroup) -> Wish | None:
    """The latest wish there of another source than the last one's; one that ends with a restore goes first."""
    last = specs[-1].wish(group)
    if last is None:
        return None
    wishes = (wish for one in specs[:-1] if (wish := one.wish(group)) is not None)
    latest = {wish.source.uid: wish for wish in wishes if wish.source.uid != last.source.uid}
    return max(latest.values(), key=lambda wish: wish.release is Release.RESTORE, default=None)


def observed_spec(spec: StateSpec) -> Spec:
    """Return what the API server shows."""
    return Spec(
        tuple((group, _observed_wish(spec.groups[group])) for group in SettingsGroup if group in spec.groups),
        tuple(_observed_plan(plan) for plan in spec.plans),
        spec.observe,
        spec.verify_epoch or 0,
    )


@lru_cache(maxsize=REVISIONS_CACHED)
def revision_of(spec: Spec) -> str:
    """Return the hash that the agent reports back once `spec` is in force."""
    return spec_revision(spec_json(spec))


@lru_cache(maxsize=REVISIONS_CACHED)
def sources_of(spec: Spec) -> frozenset[str]:
    """Return the uids of the policies that have a group in `spec`."""
    return frozenset(wish.source.uid for _, wish in spec.groups)


def spec_json(spec: Spec) -> dict[str, Any]:
    """Return `spec` as plain JSON values, without revision and epochs."""
    plain: dict[str, Any] = {}
    if spec.groups:
        plain["groups"] = {group: _plain(wish) for group, wish in spec.groups}
    if spec.plans:
        plain["plans"] = [_plain(plan) for plan in spec.plans]
    if spec.observe is not None:
        plain["observe"] = msgspec.to_builtins(spec.observe)
    if spec.verify_epoch:
        plain["verifyEpoch"] = spec.verify_epoch
    return plain


class Writer(NamedTuple):
    """Who writes: the leader's epoch, and the number of its decision. The API server refuses smaller ones."""

    epoch: int
    sequence: int

    def next(self) -> Writer:
        """Return who writes the next decision."""
        return self._replace(sequence=self.sequence + 1)


def spec_document(
    *, node: str, node_uid: str, state_uid: str | None, spec: Spec, writer: Writer, version: str = ""
) -> tuple[bytes, bytes]:
    """Return the apply document of a node state's spec, owned by its Node: its own part, and what it shares.

    With the uid of the node state that it is for, it never creates one: what is late does not bring a deleted one back,
    where no earlier spec stands that would refuse it. With a version it replaces no other one.
    """
    identity = {"name": node} if state_uid is None else {"name": node, "uid": state_uid}
    if version:
        identity["resourceVersion"] = version
    owner = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": node_uid, "controller": False}
    head = {"apiVersion": API_VERSION, "kind": STATE_KIND, "metadata": identity | {"ownerReferences": [owner]}}
    return msgspec.json.encode(head)[:-1], _spec_end(spec, writer)


def spec_replacement(*, state_uid: str, spec: Spec, writer: Writer, version: str = "") -> bytes:
    """Return a JSON patch that leaves nothing of what stood in a node state's spec; of one version, if one is given."""
    seen = [{"op": "test", "path": "/metadata/resourceVersion", "value": version}] if version else []
    return msgspec.json.encode(
        [
            {"op": "test", "path": "/metadata/uid", "value": state_uid},
            *seen,
            {"op": "add", "path": "/spec", "value": msgspec.Raw(_spec_part(spec, writer))},
        ]
    )


@lru_cache(maxsize=REVISIONS_CACHED)
def _spec_end(spec: Spec, writer: Writer) -> bytes:
    """The same on thousands of nodes, so it is made once."""
    return b',"spec":' + _spec_part(spec, writer) + b"}"


def _spec_part(spec: Spec, writer: Writer) -> bytes:
    stamps = {"revision": revision_of(spec), "leaderEpoch": writer.epoch, "writeSequence": writer.sequence}
    return canonical_json(stamps | spec_json(spec))


def _observed_wish(view: WishView) -> Wish:
    return Wish(
        source=view.source,
        mode=view.mode,
        settings=_canonical(view.settings),
        release=view.release,
        drift=view.drift,
        unsupported=view.unsupported,
        verification=view.verification,
        accepted_risks=view.accepted_risks,
    )


def _observed_plan(view: PlanWishView) -> PlanWish:
    return PlanWish(
        source=view.source,
        settings=_canonical(view.settings),
        unsupported=view.unsupported,
        verification=view.verification,
        accepted_risks=view.accepted_risks,
    )


def _canonical(raw: msgspec.Raw) -> bytes:
    return canonical_json(msgspec.json.decode(raw))


def _plain(wish: Wish | PlanWish) -> dict[str, Any]:
    return {**msgspec.to_builtins(wish), "settings": msgspec.json.decode(wish.settings)}
