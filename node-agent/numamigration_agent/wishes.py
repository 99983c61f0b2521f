# SPDX-License-Identifier: Apache-2.0
"""The spec of a node state as plain data: what this node shall have, by settings group, and what Plan policies ask.

The API server has checked everything already; what this release does not know comes from a newer operator. Such a
group is kept with the unknown word named in ``skew``, so that it is shown and not written; a whole group that is
unknown is kept by its name. A wish to restore needs no other word than that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from numamigration_api.machinery.canonical import spec_revision, wish_revision
from numamigration_api.machinery.records import dataclass, replace
from numamigration_api.machinery.shapes import count, mapping, objects, texts
from numamigration_api.vocabulary import (
    DriftPolicy,
    GroupMode,
    Release,
    SettingsGroup,
    UnsupportedPolicy,
    Verification,
)

_KNOWN_GROUPS: Final = frozenset(SettingsGroup)


class Source(NamedTuple):
    """The policy whose wish it is."""

    policy: str
    uid: str
    generation: int


@dataclass(frozen=True, slots=True)
class Wish:
    """What one group shall be.

    Attributes:
        settings: the group's settings as JSON has them.
        accepted_risks: as text, since a newer operator may know more risks; one that is unknown here accepts nothing.
        revision: by which the operator knows what was soaked; empty of what no policy asks here.
        skew: what this release does not understand; empty when all is known.
    """

    group: SettingsGroup
    settings: Mapping[str, Any]
    source: Source
    mode: GroupMode = GroupMode.APPLY
    drift: DriftPolicy = DriftPolicy.CORRECT
    unsupported: UnsupportedPolicy = UnsupportedPolicy.BEST_EFFORT
    verification: Verification = Verification.FIRST_USE
    accepted_risks: frozenset[str] = frozenset()
    release: Release = Release.KEEP
    revision: str = ""
    skew: str = ""


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What one Plan policy would set."""

    source: Source
    wishes: tuple[Wish, ...]


class ProbeRequest(NamedTuple):
    """What settings shall be measured, once.

    Attributes:
        candidates: engines with their number of channels, beside the copy by the CPU.
        seconds: for which settings may be other ones than wished, also the sum of a day.
        memory_bytes: that own pages may take.
        accepted_risks: as in a Wish, where there is none for offload.
    """

    id: str
    candidates: tuple[tuple[str, int], ...]
    seconds: float = 60.0
    memory_bytes: int = 256 << 20
    accepted_risks: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Spec:
    """A node state's spec.

    Attributes:
        generation: of the object; 0 before any was seen.
        uid: of the object.
        revision: hash of the spec; None in the empty spec of a new object.
        whole: the revision is that of the rest, so nothing is missing of what the operator wrote.
        soak_seconds: how long what became of it is watched; 0 when nobody asked.
        guardrails: limits whose crossing is told at once, as JSON has them.
        verify_epoch: grows when a person, or the operator, asks for a fresh trial of the engine.
        unknown: names of groups that this release does not know.
        probe: what shall be measured; None: nothing, and what was measured is dropped.
    """

    generation: int = 0
    revision: str | None = None
    whole: bool = False
    wishes: tuple[Wish, ...] = ()
    plans: tuple[PlanRequest, ...] = ()
    soak_seconds: float = 0.0
    guardrails: tuple[Mapping[str, Any], ...] = ()
    unknown: tuple[str, ...] = ()
    verify_epoch: int = 0
    probe: ProbeRequest | None = None
    uid: str = ""

    def wish(self, group: SettingsGroup) -> Wish | None:
        """Return the wish for a group."""
        return next((wish for wish in self.wishes if wish.group is group), None)


def parse_spec(state: Mapping[str, Any]) -> Spec:
    """Return the spec of a NodeMigrationState as JSON has it."""
    spec = mapping(state.get("spec"))
    groups, revision = mapping(spec.get("groups")), spec.get("revision")
    metadata = mapping(state.get("metadata"))
    observe = mapping(spec.get("observe"))
    return Spec(
        generation=count(metadata.get("generation")) or 0,
        revision=revision if isinstance(revision, str) else None,
        whole=_is_whole(spec),
        wishes=tuple(_group_wish(group, mapping(groups[group])) for group in SettingsGroup if group in groups),
        plans=tuple(_plan(plan) for plan in objects(spec.get("plans"))),
        unknown=tuple(sorted(groups.keys() - _KNOWN_GROUPS)),
        verify_epoch=count(spec.get("verifyEpoch")) or 0,
        soak_seconds=float(count(observe.get("soakSeconds")) or 0),
        guardrails=objects(observe.get("guardrails")),
        probe=_probe(mapping(spec.get("probe"))),
        uid=uid_of(state),
    )


def uid_of(state: Mapping[str, Any]) -> str:
    """Return the uid of a NodeMigrationState; empty when it is not known."""
    return str(mapping(state.get("metadata")).get("uid") or "")


def _is_whole(spec: Mapping[str, Any]) -> bool:
    try:
        return bool(spec.get("revision") == spec_revision(spec))
    except (AttributeError, TypeError, ValueError):
        return False


def _group_wish(group: SettingsGroup, body: Mapping[str, Any]) -> Wish:
    try:
        revision = wish_revision(body)
    except (AttributeError, TypeError, ValueError):
        revision = ""
    return replace(_wish(group, body, body), revision=revision)


def _probe(body: Mapping[str, Any]) -> ProbeRequest | None:
    if not isinstance(body.get("id"), str) or not body["id"]:
        return None
    plain = ProbeRequest(body["id"], ())
    return ProbeRequest(
        id=plain.id,
        candidates=tuple(
            (str(row.get("engine")), count(row.get("channels")) or 0) for row in objects(body.get("candidates"))
        ),
        seconds=float(count(body.get("secondsMax")) or plain.seconds),
        memory_bytes=count(body.get("memoryBytesMax")) or plain.memory_bytes,
        accepted_risks=frozenset(texts(body.get("acceptedRisks"))),
    )


def _plan(plan: Mapping[str, Any]) -> PlanRequest:
    settings = mapping(plan.get("settings"))
    wishes = tuple(_wish(group, {"settings": settings[group]}, plan) for group in SettingsGroup if group in settings)
    return PlanRequest(_source(plan), wishes)


def _wish(group: SettingsGroup, body: Mapping[str, Any], conditions: Mapping[str, Any]) -> Wish:
    plain = Wish(group, mapping(body.get("settings")), _source(conditions))
    try:
        mode = GroupMode(body.get("mode", plain.mode))
        if mode is GroupMode.RESTORE:
            return replace(plain, mode=mode)
        return Wish(
            group=plain.group,
            settings=plain.settings,
            source=plain.source,
            mode=mode,
            drift=DriftPolicy(body.get("drift", plain.drift)),
            unsupported=UnsupportedPolicy(conditions.get("unsupported", plain.unsupported)),
            verification=Verification(conditions.get("verification", plain.verification)),
            accepted_risks=frozenset(texts(conditions.get("acceptedRisks"))),
            release=Release(body.get("release", plain.release)),
        )
    except ValueError as error:
        return replace(plain, skew=str(error))


def _source(body: Mapping[str, Any]) -> Source:
    source = mapping(body.get("source"))
    return Source(str(source.get("policy", "")), str(source.get("uid", "")), count(source.get("generation")) or 0)
