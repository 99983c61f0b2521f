# SPDX-License-Identifier: Apache-2.0
"""What is written of one policy: its revisions, its finalizer, its status; and which Events tell of it."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from numamigration_api.vocabulary import FleetSwitch, Reason
from numamigration_operator.core.decisions import EventWish, Write
from numamigration_operator.core.node_record import NodeRecord
from numamigration_operator.core.policy_record import PolicyRecord
from numamigration_operator.core.policy_rollout import NAMELESS, Stand
from numamigration_operator.core.policy_status import Standing, policy_status
from numamigration_operator.core.rollout import NOWHERE, Place, Stage
from numamigration_operator.core.stops import Stops

NAMES_IN_EVENT_MAX: Final = 20  # an Event's note has room for 1,024 characters


@dataclass(slots=True)
class PolicyWrites:
    """What one decision asks for of policies.

    Attributes:
        nodes: by name.
        stops: what keeps pushes from them.
        epoch: of this leader.
        history_known: the stored revisions were listed.
        restore_seconds: how long a deleted policy waits for its nodes.
        now: monotonic seconds.
        wall: the time for people.
        firsts: writes of revisions and finalizers, without which no spec may be written.
        statuses: what comes after specs.
    """

    nodes: Mapping[str, NodeRecord]
    stops: Stops
    epoch: int
    history_known: bool
    restore_seconds: float
    now: float
    wall: datetime
    firsts: list[Write] = field(default_factory=list)
    statuses: list[Write] = field(default_factory=list)
    events: list[EventWish] = field(default_factory=list)
    restores_incomplete: int = 0

    def add(self, policy: PolicyRecord) -> float:
        """Decide one policy; return when time alone changes the answer, monotonic seconds, infinity when it does not.

        All else that it depends on stirs the policy, or is asked for again in time (``PolicyRollout.ledger_due``).
        """
        self.firsts.extend(policy.rollout.revision_writes(policy.tally.matched, self.wall, self._explain(policy)))
        return min(self._finalize(policy), self._show(policy))

    def _finalize(self, policy: PolicyRecord) -> float:
        """Add or drop the finalizer; return when time alone changes the answer."""
        now = self.now
        wanted, again = policy.wants_finalizer(), math.inf
        if self.stops.control.switch is FleetSwitch.RESTORE:
            # Nothing is pushed, so nothing new has to be restored; who uninstalls takes it out, and it stays out.
            wanted = wanted and policy.has_finalizer
        if wanted and policy.facts.deleting:
            again = policy.restore_deadline(now, self.wall, self.restore_seconds)
            wanted = again > now
        write = policy.finalizer_write(wanted)
        if write is None:
            return again if again > now else math.inf
        self.firsts.append(write)
        if policy.facts.deleting and policy.holders:
            self.restores_incomplete += 1
            self.events.append(policy.event(Reason.RESTORE_INCOMPLETE, _not_restored(policy.holders), warning=True))
        return math.inf

    def _show(self, policy: PolicyRecord) -> float:
        """Write the status when it is due; return when to look again."""
        now, wall = self.now, self.wall
        if policy.is_leaving:
            return math.inf
        rollout, matched = policy.rollout, policy.tally.matched
        is_due = policy.status_due(now) <= now
        ledger = rollout.next_ledger(self._stand_of(policy), now, wall, is_due=is_due)
        if ledger != rollout.ledger and not rollout.is_written:
            policy.touched = True
        due = policy.status_due(now)
        if due > now and not rollout.has_news(ledger):
            return min(due, rollout.ledger_due(now))
        uid = policy.facts.uid
        standing = Standing(
            policy=policy.facts,
            tally=policy.tally,
            verdict=lambda name: self.nodes[name].contributions[uid].verdict,
            holders=frozenset(policy.holders),
            control=self.stops.control,
            fence_problem=self.stops.fence_problem,
            rollout=rollout.view(ledger, matched, now, wall),
            unproven=len(rollout.book.unproven | ledger.names),
            cause=rollout.course.cause,
        )
        status = policy_status(standing, policy.known_status, wall)
        write = policy.status_write(status, ledger, now, self.epoch)
        if write is not None:
            self.statuses.append(write)
            self.events.extend(policy.news(status))
        return min(policy.status_due(now), rollout.ledger_due(now), self._rollback_due(policy))

    def _rollback_due(self, policy: PolicyRecord) -> float:
        """Return when a rollback counts as ended, whatever its nodes do."""
        if not policy.rollout.is_going_back(self.now, self.wall):
            return math.inf
        policy.touched = True
        policy.status_due(self.now)  # collected from here on, so that whatever ends it is told at once
        return max(self.now + 1.0, policy.rollout.rollback_ends(self.now, self.wall))

    def _explain(self, policy: PolicyRecord) -> Callable[[str], str]:
        """Return what says why a node failed for a policy."""

        def explain(name: str) -> str:
            verdict = self.nodes[name].contributions[policy.facts.uid].verdict
            return f"{verdict.reason}: {verdict.message}" if verdict.message else str(verdict.reason)

        return explain

    def _stand_of(self, policy: PolicyRecord) -> Stand:
        uid = policy.facts.uid
        queues = {Stage.WAITING, Stage.JOINING}
        return Stand(
            matched=policy.tally.matched,
            may_reserve=self.history_known and not self.stops.all_stand and not policy.facts.deleting,
            is_open=lambda name: name in self.nodes and self.nodes[name].is_open,
            is_waiting=lambda name: name in self.nodes and self._place(name, uid).stage in queues,
            is_fenced=lambda name: self._is_fenced(uid, name),
        )

    def _is_fenced(self, uid: str, name: str) -> bool:
        if name == NAMELESS:
            return next(unfenced(self.nodes, uid, self.epoch), None) is None
        return is_fenced(self.nodes.get(name), self.epoch)

    def _place(self, name: str, uid: str) -> Place:
        return self.nodes[name].places.get(uid, NOWHERE)


def is_fenced(record: NodeRecord | None, epoch: int) -> bool:
    """Return whether nothing that an earlier leader than this one has sent can arrive at a node any more."""
    return record is None or record.uid is None or record.leader_epoch == epoch


def unfenced(nodes: Mapping[str, NodeRecord], uid: str, epoch: int) -> Iterator[NodeRecord]:
    """Yield the nodes to which a push of a policy may still come that an earlier leader than this one has sent."""
    for record in nodes.values():
        may_come = record.selected and uid in record.matched and not record.places.get(uid, NOWHERE).at_revision
        if may_come and not is_fenced(record, epoch):
            yield record


def _not_restored(names: Collection[str]) -> str:
    shown = heapq.nsmallest(NAMES_IN_EVENT_MAX, names)
    more = "" if len(names) <= len(shown) else f" and {len(names) - len(shown)} more"
    return f"gave up waiting for {len(names)} nodes to restore: {', '.join(shown)}{more}"
