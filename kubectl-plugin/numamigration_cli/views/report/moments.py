# SPDX-License-Identifier: Apache-2.0
"""When what happened to a policy, as far as its objects remember."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Final

from numamigration_api.machinery.clock import parse_timestamp
from numamigration_api.vocabulary import POLICY_UID_LABEL, CellVerdict
from numamigration_cli.objects import EventView, PolicyView
from numamigration_cli.views.history import changes, content
from numamigration_operator.core.objects import RevisionObject, Struct
from numamigration_operator.core.revisions import Revision, read_revision

MOMENTS_MAX: Final = 80
"""Of a policy, the latest: Events of a day may be hundreds."""


class Mark(StrEnum):
    """What kind of moment it is."""

    PLAIN = "plain"
    GOOD = "good"
    BAD = "bad"


class Moment(Struct, frozen=True):
    """Something that happened.

    Attributes:
        at: an RFC 3339 timestamp.
        lane: what it happened to: ``revision 3``, ``Ready``, ``events``, …
    """

    at: str
    lane: str
    mark: Mark
    text: str


class Timeline(Struct, frozen=True):
    """What happened to a policy, in order.

    Attributes:
        left_out: older moments that are not here.
    """

    policy: str
    moments: tuple[Moment, ...]
    left_out: int = 0


def timeline(policy: PolicyView, revisions: Iterable[RevisionObject], events: Iterable[EventView]) -> Timeline:
    """Return what happened to a policy."""
    found = [
        *_of_policy(policy),
        *_of_revisions([one for one in revisions if one.metadata.labels.get(POLICY_UID_LABEL) == policy.metadata.uid]),
        *_of_events(one for one in events if one.regarding.uid == policy.metadata.uid),
    ]
    told = sorted((one for one in found if is_timestamp(one.at)), key=lambda one: parse_timestamp(one.at))
    return Timeline(policy.metadata.name, tuple(told[-MOMENTS_MAX:]), max(0, len(told) - MOMENTS_MAX))


def is_timestamp(text: str) -> bool:
    """Return whether it is one; what nobody has written yet is not."""
    try:
        return bool(text) and parse_timestamp(text) is not None
    except ValueError:
        return False


def _of_policy(policy: PolicyView) -> Iterator[Moment]:
    meta, rollout = policy.metadata, policy.status.rollout
    yield Moment(meta.creation_timestamp, "policy", Mark.PLAIN, "created")
    if meta.deletion_timestamp:
        yield Moment(meta.deletion_timestamp, "policy", Mark.PLAIN, "deletion asked for")
    if rollout is not None and rollout.started_at:
        yield Moment(rollout.started_at, "policy", Mark.PLAIN, f"rollout of revision {rollout.revision} began")
    for raw in policy.status.conditions:
        found = policy.condition(str(raw.get("type", "")))
        if found is not None:
            because = f"{found.reason}: {found.message}" if found.message else found.reason
            yield Moment(
                found.last_transition_time,
                found.type,
                _mark_of(found.type, found.status),
                f"{found.type} became {found.status}: {because}",
            )


def _mark_of(condition: str, status: str) -> Mark:
    if condition == "Ready":
        return Mark.GOOD if status == "True" else Mark.PLAIN
    return Mark.BAD if status == "True" and condition != "Reconciling" else Mark.PLAIN


def _of_revisions(stored: Sequence[RevisionObject]) -> Iterator[Moment]:
    """Yield when revisions were stored first, with what they changed, and when a kind of node said how it went."""
    before: Revision | None = None
    for seen in sorted(stored, key=lambda one: one.revision):
        one = read_revision(seen)
        if one is None:
            continue
        lane = f"revision {one.number}"
        changed = changes({} if before is None else content(before), content(one))
        yield Moment(seen.metadata.creation_timestamp, lane, Mark.PLAIN, f"stored as {one.id}: {'; '.join(changed)}")
        for cell, record in sorted(one.cells.items()):
            went = Mark.BAD if record.verdict is CellVerdict.FAILED else Mark.GOOD
            why = ": ".join(filter(None, (str(record.verdict), record.reason, record.message)))
            yield Moment(record.at, lane, went, f"{why}, {cell}")
        before = one


def _of_events(events: Iterable[EventView]) -> Iterator[Moment]:
    for one in events:
        mark = Mark.BAD if one.type == "Warning" else Mark.PLAIN
        yield Moment(one.event_time or "", "events", mark, f"{one.reason}: {one.note}")
