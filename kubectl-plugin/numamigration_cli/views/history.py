# SPDX-License-Identifier: Apache-2.0
"""Revisions of a policy: what was asked, and what became of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from numamigration_api.vocabulary import CellVerdict
from numamigration_cli.exits import Exit, Failure
from numamigration_cli.text import Column, plural, since
from numamigration_operator.core.course import went_well
from numamigration_operator.core.objects import Struct
from numamigration_operator.core.revisions import CellRecord, Revision

NAMES: Final = re.compile(r"^(?:(?P<policy>[^/]+)/)?(?P<revision>[^/]+)$")


class CellRow(Struct, frozen=True):
    """What became of a revision in one cell."""

    dialect: str
    hardware_class: str
    verdict: str
    at: str
    reason: str
    message: str


class RevisionRow(Struct, frozen=True):
    """A stored revision.

    Attributes:
        number: grows with each edit.
        revision: hash of its content.
        name: of the ControllerRevision.
        current: the policy asks for it now.
        changes: against the revision before, field by field; everything, where there is none.
    """

    number: int
    revision: str
    name: str
    current: bool
    verdict: str
    at: str
    changes: tuple[str, ...]
    cells: tuple[CellRow, ...]


def history(revisions: Sequence[Revision], current: str) -> list[RevisionRow]:
    """Return the revisions, the latest first.

    Args:
        revisions: those that are stored, the latest first.
        current: hash of what the policy asks for now.
    """
    before: list[Mapping[str, Any]] = [content(one) for one in revisions[1:]]
    return [
        RevisionRow(
            number=one.number,
            revision=one.id,
            name=one.name,
            current=one.id == current,
            verdict=verdict(one),
            at=max((record.at for record in one.cells.values()), default=""),
            changes=tuple(changes(older, content(one))),
            cells=tuple(_cell(record) for _, record in sorted(one.cells.items())),
        )
        for one, older in zip(revisions, [*before, {}], strict=False)
    ]


def _cell(record: CellRecord) -> CellRow:
    return CellRow(record.dialect, record.hardware_class, record.verdict, record.at, record.reason, record.message)


def verdict(revision: Revision) -> str:
    """Return what became of a revision, in a few words."""
    records = revision.cells.values()
    failed = [one for one in records if one.verdict is CellVerdict.FAILED]
    if failed:
        return f"failed on {plural(len(failed), 'kind')} of node, {failed[0].dialect}: {failed[0].reason}"
    if not records:
        return "not proven"
    return f"proven on {plural(len(records), 'kind')} of node"


def content(revision: Revision) -> dict[str, Any]:
    """Return what a revision asks of a node, as JSON has it in a policy's spec."""
    return decoded(revision.content)


def decoded(asked: bytes) -> dict[str, Any]:
    """Return a content as JSON has it."""
    found: dict[str, Any] = msgspec.json.decode(asked)
    return found


def flat(value: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """Yield every field of a content with its value, as a person would write it into YAML; a named part by its name."""
    if isinstance(value, Mapping):
        for key in value:
            yield from flat(value[key], f"{at}.{key}" if at else key)
    elif isinstance(value, str):
        yield at, value
    elif isinstance(value, list) and value and all(isinstance(one, Mapping) and "name" in one for one in value):
        for one in value:
            yield from flat({key: one[key] for key in one if key != "name"}, f"{at}.{one['name']}")
    else:
        yield at, msgspec.json.encode(value).decode()


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return what differs, a line a field: ``settings.offload.channels: 2 -> 4``."""
    old, new = dict(flat(before)), dict(flat(after))
    fields = [*old, *(field for field in new if field not in old)]
    return [_change(field, old.get(field), new.get(field)) for field in fields if old.get(field) != new.get(field)]


def _change(field: str, old: str | None, new: str | None) -> str:
    if old is None:
        return f"{field}: {new}"
    return f"{field}: {old} -> {'left out' if new is None else new}"


def table(now: datetime) -> tuple[Column[RevisionRow], ...]:
    """Return the columns of revisions."""
    return (
        Column("NUMBER", lambda row: f"{row.number}{' (current)' if row.current else ''}"),
        Column("REVISION", lambda row: row.revision),
        Column("LAST VERDICT", lambda row: since(row.at, now)),
        Column("WENT", lambda row: row.verdict),
        Column("NAME", lambda row: row.name, wide=True),
        Column("CHANGES", lambda row: "; ".join(row.changes), wide=True),
    )


def named(text: str) -> tuple[str, str]:
    """Return policy and revision of ``POLICY/REVISION``, or of a ControllerRevision's name alone.

    Raises:
        Failure: it is neither.
    """
    found = NAMES.match(text)
    if found is None:
        raise Failure(
            Exit.USAGE, f"{text!r} names no revision", "for example database/3; kubectl numamigration history"
        )
    return found["policy"] or "", found["revision"]


def find(revisions: Iterable[Revision], wanted: str, policy: str) -> Revision:
    """Return the revision of this number, hash (or its beginning) or name.

    Raises:
        Failure: there is none, or more than one.
    """
    stored = list(revisions)
    found = [one for one in stored if wanted in {str(one.number), one.name, one.id}]
    found = found or [one for one in stored if len(wanted) >= 4 and one.id.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    numbers = ", ".join(str(one.number) for one in stored) or "none"
    problem = "no" if not found else "more than one"
    raise Failure(Exit.FAILED, f"{policy}: {problem} revision {wanted}", f"stored are: {numbers}")


def way_back(revisions: Iterable[Revision], current: str) -> Revision | None:
    """Return the latest revision, other than the current one, that was proven and failed nowhere."""
    return next((one for one in revisions if one.id != current and went_well(one)), None)
