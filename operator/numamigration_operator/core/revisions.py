# SPDX-License-Identifier: Apache-2.0
"""Revisions of a policy: what it asked of a node at one time, stored as ControllerRevisions, the way DaemonSets do it.

* A revision is the hash of what reaches a node: settings, risks, and how they are kept. Selector, priority, mode and
  rollout say where and how fast; an edit of them is no new revision.
* It is stored before the first node is pushed, or there would be nothing to go back to.
* What became of it in a cell (dialect, hardware class) is an annotation on it; so history, and the way back, need no
  store of our own, and survive a restored backup.
* ControllerRevisions have no fence, so a write creates, or goes only onto what it was decided from: one that is late
  takes no verdict back that somebody has written since.
* A content that comes back gets a new number and keeps its name, as with DaemonSets: its data may not change.

Source: k8s.io/api apps/v1 ControllerRevision; kubernetes pkg/apis/apps/validation (data is immutable);
pkg/controller/history ("equal revisions": the number of an old one is raised).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from numamigration_api.machinery.canonical import canonical_json, revision_hash
from numamigration_api.vocabulary import (
    API_VERSION,
    CELL_ANNOTATION_PREFIX,
    POLICY_KIND,
    POLICY_UID_LABEL,
    REVISIONS_MAX,
    AcceptedRisk,
    CellVerdict,
    DriftPolicy,
    GroupMode,
    Release,
    SettingsGroup,
    UnsupportedPolicy,
    Verification,
)
from numamigration_operator.core.decisions import Patch, Write, WriteKey, WriteKind
from numamigration_operator.core.objects import PolicySpec, RevisionObject, SourceView, Struct
from numamigration_operator.core.tuned import Profiles, tuned_settings
from numamigration_operator.core.wishes import Wish

NAME_CHARACTERS_MAX: Final = 200  # of the policy's; with the digits below a name of an object, whose bound is 253
NAME_DIGITS: Final = 10
CONTENTS_CACHED: Final = 1024  # policies times revisions


class Cell(NamedTuple):
    """Nodes on which a revision is expected to go alike."""

    dialect: str
    hardware_class: str

    @property
    def key(self) -> str:
        """The name of its annotation."""
        return CELL_ANNOTATION_PREFIX + revision_hash(self._asdict())

    def __str__(self) -> str:
        return f"{self.dialect} on {self.hardware_class}" if self.hardware_class else self.dialect


class CellRecord(Struct, frozen=True):
    """What became of a revision in one cell.

    Attributes:
        generation: of the policy at that time; a failure counts until the policy is edited.
        at: when, as a timestamp.
        complete: every node of the cell that could have it had it once; before that, nobody joins it.
        reason: why it failed, in a word.
        message: why it failed, in a line.
    """

    dialect: str
    hardware_class: str
    verdict: CellVerdict
    generation: int = 0
    at: str = ""
    complete: bool = False
    message: str = ""
    reason: str = ""

    @property
    def cell(self) -> Cell:
        """The cell."""
        return Cell(self.dialect, self.hardware_class)


class Revision(NamedTuple):
    """A stored revision.

    Attributes:
        id: the hash of its content.
        number: grows with each edit; the greatest is the latest.
        name: of the ControllerRevision.
        content: canonical JSON.
        cells: what became of it.
        version: resource version of the ControllerRevision.
    """

    id: str
    number: int
    name: str
    uid: str
    content: bytes
    cells: Mapping[Cell, CellRecord]
    version: str = ""

    @property
    def asked(self) -> Revision:
        """What a write asks for, wherever it is stored."""
        return self._replace(uid="", version="")

    def is_proven(self, cell: Cell) -> bool:
        """Return whether it went well in a cell."""
        record = self.cells.get(cell)
        return record is not None and record.verdict is CellVerdict.PROVEN

    def is_complete(self, cell: Cell) -> bool:
        """Return whether it went well on all nodes of a cell."""
        record = self.cells.get(cell)
        return record is not None and record.complete


class Content(Struct, frozen=True):
    """What of a policy reaches nodes."""

    settings: Mapping[SettingsGroup, dict[str, Any]]
    accepted_risks: tuple[AcceptedRisk, ...]
    verification: Verification
    unsupported: UnsupportedPolicy
    drift: DriftPolicy
    on_delete: Release


def content_of(spec: PolicySpec, profiles: Profiles = ()) -> bytes:
    """Return what of a policy reaches nodes, as canonical JSON; where it is tuned, with what was measured."""
    asked = Content(
        settings=tuned_settings(spec, profiles),
        accepted_risks=tuple(sorted(spec.accepted_risks)),
        verification=spec.verification,
        unsupported=spec.unsupported,
        drift=spec.drift,
        on_delete=spec.on_delete,
    )
    return canonical_json(msgspec.to_builtins(asked))


@lru_cache(maxsize=CONTENTS_CACHED)
def revision_id(content: bytes) -> str:
    """Return the hash of a content."""
    return revision_hash(msgspec.json.decode(content))


@lru_cache(maxsize=CONTENTS_CACHED)
def wishes_of(content: bytes, source: SourceView) -> Mapping[SettingsGroup, Wish]:
    """Return per group what a node shall have by this content."""
    asked = msgspec.json.decode(content, type=Content)
    return {
        group: Wish(
            source=source,
            mode=GroupMode.APPLY,
            settings=canonical_json(asked.settings[group]),
            release=asked.on_delete,
            drift=asked.drift,
            unsupported=asked.unsupported,
            verification=asked.verification,
            accepted_risks=asked.accepted_risks,
        )
        for group in SettingsGroup
        if group in asked.settings
    }


def read_revision(seen: RevisionObject) -> Revision | None:
    """Return a stored revision; None for one whose data are none of ours."""
    content = canonical_json(seen.data)
    cells: dict[Cell, CellRecord] = {}
    for key, text in seen.metadata.annotations.items():
        if key.startswith(CELL_ANNOTATION_PREFIX):
            with contextlib.suppress(msgspec.DecodeError):  # somebody else's hand: as if it were not there
                record = msgspec.json.decode(text, type=CellRecord)
                cells[record.cell] = record
    try:
        wishes_of(content, SourceView(policy="", uid=""))
    except msgspec.ValidationError:
        return None
    meta = seen.metadata
    return Revision(revision_id(content), seen.revision, meta.name, meta.uid, content, cells, meta.resource_version)


def name_of(policy: str, policy_uid: str, revision: str) -> str:
    """Return the name of a revision's object: its own for each life of a policy, since data may not change."""
    digits = revision_hash({"uid": policy_uid, "revision": revision})[:NAME_DIGITS]
    return f"{policy[:NAME_CHARACTERS_MAX]}-{digits}"


def revision_write(policy: str, policy_uid: str, revision: Revision, stored: Revision | None) -> Write:
    """Return the write of a revision's object, onto the one that is stored; None: onto none."""
    owner = {"apiVersion": API_VERSION, "kind": POLICY_KIND, "name": policy, "uid": policy_uid}
    annotations = {cell.key: msgspec.json.encode(record).decode() for cell, record in sorted(revision.cells.items())}
    body = {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": revision.name,
            **({"resourceVersion": stored.version} if stored is not None else {}),
            "labels": {POLICY_UID_LABEL: policy_uid},
            "ownerReferences": [owner],
            **({"annotations": annotations} if annotations else {}),
        },
        "data": msgspec.Raw(revision.content),
        "revision": revision.number,
    }
    patch = Patch.CREATE if stored is None else Patch.APPLY
    return Write(WriteKey(WriteKind.REVISION, revision.name), msgspec.json.encode(body), patch=patch)


def deletion_write(revision: Revision) -> Write:
    """Return the deletion of a revision's object, and of no namesake."""
    body = msgspec.json.encode({"preconditions": {"uid": revision.uid}})
    return Write(WriteKey(WriteKind.REVISION_DELETION, revision.name), body, patch=Patch.DELETE)


def expendable(revisions: Iterable[Revision], needed: frozenset[str]) -> list[Revision]:
    """Return the oldest revisions beyond what is kept, by id none of those that are `needed`.

    The last one that is proven in a cell is the way back there, and stays whatever its age.
    """
    newest_first = sorted(revisions, key=lambda one: -one.number)
    ways_back: dict[Cell, str] = {}
    for one in newest_first:
        for cell in one.cells:
            if one.is_proven(cell):
                ways_back.setdefault(cell, one.id)
    kept = needed | set(ways_back.values())
    return [one for one in newest_first[REVISIONS_MAX:] if one.id not in kept]
