# SPDX-License-Identifier: Apache-2.0
"""What the fleet remembers of one policy: its counts, what was written for it, and when it may be written again.

* A status that moved is collected for a moment, then written; at most one write in `status_interval_seconds`.
* Sums alone wait for `statistics_interval_seconds`, and a difference found at start is no reason to write (promise 12):
  a restart of the operator writes nothing.
* Read and wanted status are compared; equal means no write.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from numamigration_api.machinery.canonical import canonical_json
from numamigration_api.machinery.clock import parse_timestamp
from numamigration_api.machinery.conditions import shorten
from numamigration_api.vocabulary import (
    API_VERSION,
    POLICY_KIND,
    RESTORE_FINALIZER,
    ConditionStatus,
    PolicyMode,
    Reason,
    Release,
    RolloutPhase,
)
from numamigration_operator.core.classify import INEFFECTIVE
from numamigration_operator.core.decisions import EventWish, Patch, Write, WriteKey, WriteKind
from numamigration_operator.core.numbers import GuardrailNumbers, PolicyNumbers
from numamigration_operator.core.objects import Meta, PolicyObject, PolicyStatusView, RolloutView, Statistics, is_older
from numamigration_operator.core.policy_rollout import Ledger, PolicyRollout
from numamigration_operator.core.policy_status import find_ready
from numamigration_operator.core.resolve import PolicyFacts, is_armed, policy_facts
from numamigration_operator.core.rollout import Place
from numamigration_operator.core.tally import Contribution, Tally
from numamigration_operator.core.tuned import Profiles, Tuned

COLLECT_SECONDS: Final = 0.25  # one edit moves many nodes; a person still sees it at once
CALM_REASONS: Final = frozenset({Reason.APPLYING, Reason.RESTORING, Reason.PAUSED})
PHASE_REASONS: Final[Mapping[str | None, Reason]] = {
    RolloutPhase.HALTED: Reason.ROLLOUT_HALTED,
    RolloutPhase.ROLLING_BACK: Reason.ROLLING_BACK,
    RolloutPhase.ROLLED_BACK: Reason.ROLLED_BACK,
}
"""Turns of a rollout that are told as Events."""
GOES_BACK: Final = frozenset({RolloutPhase.ROLLING_BACK, RolloutPhase.ROLLED_BACK})


class Pace(NamedTuple):
    """How often one policy's status may be written, in seconds.

    Attributes:
        status_seconds: because what it says has changed.
        sums_seconds: because of its sums alone.
        reserve_seconds: to reserve nodes for its rollout: those are no news for people, but nothing is pushed before.
    """

    status_seconds: float
    sums_seconds: float
    reserve_seconds: float


class PolicyRecord:
    """One policy.

    Attributes:
        facts: what decisions need.
        tally: its counts.
        rollout: its revisions and where its nodes stand.
        holders: nodes whose spec has a group of this policy.
        look_at: when what is written of it is to be decided anew, monotonic seconds; at once since something moved.
        stored: the status that was read.
        open_status: the status that is on its way, until it is seen.
        touched: the status may have to change, sums aside.
        sums_moved: the sums have changed since the last write.
        ended_at: when it was deleted, monotonic seconds; None when that is not known yet or it is not deleted.
    """

    __slots__ = (
        "_announced",
        "_announced_phase",
        "_object",
        "_open_finalizer",
        "_pace",
        "_profiles",
        "_rollbacks",
        "_sums_at",
        "_touched_at",
        "_written_at",
        "ended_at",
        "facts",
        "holders",
        "look_at",
        "open_status",
        "rollout",
        "stored",
        "sums_moved",
        "tally",
        "touched",
    )

    def __init__(self, policy: PolicyObject, pace: Pace, profiles: Profiles = ()) -> None:
        self._object = policy
        self._pace = pace
        self._profiles = profiles
        self.facts: PolicyFacts = policy_facts(policy, profiles)
        self.rollout = PolicyRollout(self.facts, pace.reserve_seconds)
        self.tally = Tally()
        self.holders: set[str] = set()
        self.stored: PolicyStatusView = policy.status
        self.open_status: PolicyStatusView | None = None
        self.touched = True
        self.look_at = -math.inf
        self.sums_moved = False
        self.ended_at: float | None = None
        self._open_finalizer: bool | None = None
        self._touched_at: float | None = None
        self._written_at = -math.inf
        self._sums_at: float | None = None
        self._rollbacks = 0
        self._announced = find_ready(policy.status.conditions)
        self._announced_phase = policy.status.rollout.phase if policy.status.rollout is not None else None

    def stir(self) -> None:
        """Take in that something moved that what is written of it may depend on."""
        self.look_at = -math.inf

    def touch(self) -> None:
        """Take in that something moved that its status may have to tell."""
        self.touched = True
        self.stir()

    def count(self, node: str, old: Contribution | None, new: Contribution | None) -> None:
        """Count a node as `new` where it was counted as `old`; None is a node that is not selected."""
        if old is not new and old != new:
            self.tally.replace(node, old, new)
            self.touch()

    def place(self, node: str, old: Place, new: Place) -> None:
        """Take in that a node stands at `new` in the rollout, where it stood at `old`."""
        if old != new:
            self.rollout.book.replace(node, old, new)
            self.touch()

    def hold(self, node: str, *, held: bool) -> None:
        """Take in that a node's spec has a group of this policy, or has none any more."""
        (self.holders.add if held else self.holders.discard)(node)
        self.touched = self.touched or self.facts.deleting
        self.stir()

    def renumber(self, old: Statistics | None, new: Statistics | None) -> bool:
        """Count a node's counters as `new` where they were counted as `old`; None is a node whose count elsewhere.

        Returns whether that makes the sums due: those that have moved already are due by the last decision.
        """
        if old is new or old == new:
            return False
        self.tally.renumber(old, new)
        if self.sums_moved:
            return False
        self.sums_moved = True
        self.stir()
        return True

    # What the API server shows

    def is_stale(self, policy: PolicyObject) -> bool:
        """Return whether `policy` is older than what is known; versions that are no numbers are taken as new."""
        return is_older(policy.metadata.resource_version, self.version)

    @property
    def version(self) -> str:
        """The resource version of the policy as it was seen last."""
        return self._object.metadata.resource_version

    def take(self, policy: PolicyObject, now: float) -> bool:
        """Take in a newer object; return whether nodes have to be decided anew."""
        before, self._object = self._object, policy
        was, meta = self.facts, policy.metadata
        changed = before.spec != policy.spec or (was.generation, was.armed, was.deleting) != (
            meta.generation,
            is_armed(policy),
            meta.deletion_timestamp is not None,
        )
        if changed:  # most events are of our own statuses
            self.facts = policy_facts(policy, self._profiles)
        self._take_status(policy.status)
        if self._open_finalizer == self.has_finalizer:
            self._open_finalizer = None
        if self.facts.deleting and not was.deleting:
            self.ended_at = now
        self.rollout.take_policy(self.facts)
        self.touched = self.touched or changed
        return changed

    def take_profiles(self, profiles: Profiles) -> bool:
        """Take in what was measured; return whether it makes another policy of this one."""
        self._profiles = profiles
        if self.facts.tuning is not Tuned.APPLIED:
            return False
        before, self.facts = self.facts, policy_facts(self._object, profiles)
        if before.content == self.facts.content:
            return False
        self.rollout.take_policy(self.facts)
        self.touch()
        return True

    def _take_status(self, status: PolicyStatusView) -> None:
        if status == self.stored:
            return
        self.stored = status
        if status != self.open_status:
            self.touched = True
        self.open_status = None

    @property
    def has_finalizer(self) -> bool:
        """The finalizer is seen on the object."""
        return RESTORE_FINALIZER in self._object.metadata.finalizers

    # Finalizer

    def forget_open_finalizer(self) -> None:
        """Take in that the write of the finalizer did not stick."""
        self._open_finalizer = None
        self.stir()

    def finalizer_write(self, wanted: bool) -> Write | None:
        """Return the write that brings the finalizer to what is wanted, once."""
        shown = self.has_finalizer if self._open_finalizer is None else self._open_finalizer
        if wanted == shown or (wanted and self.facts.deleting):  # a deleted object takes no new finalizer
            return None
        if not wanted and not self.has_finalizer:  # on its way: it can be taken out once it is seen
            return None
        self._open_finalizer = wanted
        if not wanted:
            key = WriteKey(WriteKind.POLICY_FINALIZER, self.facts.name)
            return Write(key, finalizer_removal(self._object.metadata), patch=Patch.JSON)
        metadata = self._identity() | {"finalizers": [RESTORE_FINALIZER]}
        return self._write(WriteKind.POLICY_FINALIZER, {"metadata": metadata})

    def wants_finalizer(self) -> bool:
        """Return whether nodes may have to be restored when this policy ends."""
        if self.facts.deleting:
            return self.has_finalizer and bool(self.holders)
        return self.facts.release is Release.RESTORE and (self.facts.mode is not PolicyMode.PLAN or bool(self.holders))

    def restore_deadline(self, now: float, wall: datetime, seconds: float) -> float:
        """Return until when a deleted policy waits for its nodes, monotonic seconds.

        A policy that was deleted before this program started is measured by the wall clock.
        """
        if self.ended_at is None:
            ended = parse_timestamp(self._object.metadata.deletion_timestamp or "")
            self.ended_at = now - max(0.0, (wall - ended).total_seconds())
        return self.ended_at + seconds

    # Status

    @property
    def leader_epoch(self) -> int:
        """The epoch in the stored status; 0 when there is none."""
        return (self.stored.rollout.leader_epoch or 0) if self.stored.rollout is not None else 0

    @property
    def known_status(self) -> PolicyStatusView:
        """The status it has, or will have once the open write is through."""
        return self.stored if self.open_status is None else self.open_status

    @property
    def is_leaving(self) -> bool:
        """Deleted, and nothing of ours holds it any more: there may be nothing left to write to."""
        return self.facts.deleting and (not self.has_finalizer or self._open_finalizer is False)

    def status_due(self, now: float) -> float:
        """Return when the status has to be looked at, monotonic seconds; infinity when nothing moved."""
        if self._sums_at is None:  # the first look: what is found now is not news
            self._sums_at, self.sums_moved = now, False
        if self.touched and self._touched_at is None:
            self._touched_at = now
        moved = math.inf
        if self._touched_at is not None:
            moved = max(self._touched_at + COLLECT_SECONDS, self._written_at + self._pace.status_seconds)
        return min(moved, self._sums_due())

    def status_write(self, status: PolicyStatusView, ledger: Ledger, now: float, leader_epoch: int) -> Write | None:
        """Return the write of `status`, unless it is what stands there; sums alone count only when they are due.

        The epoch goes with every write and is a reason for none. What reserves nodes, or is this leader's first, goes
        onto the status that was seen or nowhere.
        """
        known = self.known_status
        epoch = known.rollout.leader_epoch if known.rollout is not None else None
        rollout = status.rollout if status.rollout is not None else RolloutView()
        status = msgspec.structs.replace(status, rollout=msgspec.structs.replace(rollout, leader_epoch=epoch))
        sums_due = self._sums_due() <= now
        compared = status if sums_due else msgspec.structs.replace(status, statistics=known.statistics)
        self.touched, self._touched_at = False, None
        self.sums_moved = self.sums_moved and not sums_due
        is_news = self.rollout.has_news(ledger)
        if compared == known and not is_news:
            return None
        rollout = msgspec.structs.replace(rollout, leader_epoch=leader_epoch)
        self.open_status, self.sums_moved = msgspec.structs.replace(status, rollout=rollout), False
        self._written_at = self._sums_at = now
        # Onto the status that was seen or nowhere: a late write, our own too, would bring an older ledger back.
        identity = self._identity() | {"resourceVersion": self.version}
        if is_news or ledger != self.rollout.ledger or not self.rollout.claimed:
            self.rollout.ledger_written(ledger, self.version, now)
        return self._write(WriteKind.POLICY_STATUS, {"metadata": identity, "status": self.open_status})

    def _sums_due(self) -> float:
        if not self.sums_moved or self._sums_at is None:
            return math.inf
        return self._sums_at + self._pace.sums_seconds

    def forget_open_status(self) -> None:
        """Take in that the write of the status did not stick."""
        self.open_status = None
        self.rollout.forget_open_ledger()
        self.touch()

    # Events

    def news(self, status: PolicyStatusView) -> Iterator[EventWish]:
        """Yield the Events of a status: a Ready condition whose status or reason moved, and a rollout that turned."""
        ready, rollout = find_ready(status.conditions), status.rollout
        phase = rollout.phase if rollout is not None else None
        if ready is not None and ready != self._announced and ready[1] not in PHASE_REASONS.values():
            message = next(c["message"] for c in status.conditions if c["type"] == "Ready")
            bad = ready[0] != ConditionStatus.TRUE and ready[1] not in CALM_REASONS
            yield self.event(Reason(ready[1]), message, warning=bad or ready[1] in INEFFECTIVE)
        if phase != self._announced_phase and rollout is not None and phase in PHASE_REASONS:
            text = f"revision {rollout.revision}: {rollout.message or 'no node is left to be pushed'}"
            yield self.event(PHASE_REASONS[phase], shorten(text), warning=True)
        self._rollbacks += phase in GOES_BACK and self._announced_phase not in GOES_BACK
        self._announced, self._announced_phase = ready, phase

    def numbers(self) -> PolicyNumbers:
        """Return what metrics tell; of the rollout what the status says, or will say."""
        rollout, told = self.rollout, self.known_status.rollout or RolloutView()
        return PolicyNumbers(
            name=self.facts.name,
            buckets=dict(self.tally.buckets),
            unproven=len(rollout.counted),
            reserved=len(rollout.ledger.reserved),
            phase=next((phase for phase in RolloutPhase if phase == told.phase), None),
            wave=told.wave or None,
            waves=told.waves or None,
            rollbacks_total=self._rollbacks,
            guardrails=tuple(
                GuardrailNumbers(one.metric, rollout.book.largest(number), float(one.max))
                for number, one in enumerate(self.facts.rollout.guardrails)
            ),
            reasons=self.tally.reasons(),
            statistics=self.tally.statistics(),
        )

    def event(self, reason: Reason, message: str, *, warning: bool) -> EventWish:
        """Return an Event on this policy."""
        return EventWish(self.facts.name, self.facts.uid, warning, reason, message)

    def _identity(self) -> dict[str, object]:
        """With the uid, an apply that comes too late meets a conflict instead of a namesake."""
        return {"name": self.facts.name, "uid": self.facts.uid}

    def _write(self, kind: WriteKind, content: dict[str, object]) -> Write:
        document = msgspec.to_builtins({"apiVersion": API_VERSION, "kind": POLICY_KIND} | content)
        return Write(WriteKey(kind, self.facts.name), canonical_json(document))


def finalizer_removal(policy: Meta) -> bytes:
    """Return the JSON patch that takes our finalizer out of a policy, and only out of this very one.

    An apply that leaves it out takes it from us only: one that came back with a backup would stay for ever.
    """
    places = [at for at, name in enumerate(policy.finalizers) if name == RESTORE_FINALIZER]
    steps: list[dict[str, str]] = [{"op": "test", "path": "/metadata/uid", "value": policy.uid}]
    for path in (f"/metadata/finalizers/{at}" for at in reversed(places)):
        steps += [{"op": "test", "path": path, "value": RESTORE_FINALIZER}, {"op": "remove", "path": path}]
    return canonical_json(steps)
