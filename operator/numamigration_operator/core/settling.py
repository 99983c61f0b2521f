# SPDX-License-Identifier: Apache-2.0
"""One node is decided anew: its spec, and by difference its place in the counts.

What follows for it is found by what it has in common with others (``core.outlook``); here is what is its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from numamigration_api.vocabulary import SettingsGroup
from numamigration_operator.core.classify import Wanted
from numamigration_operator.core.decisions import Patch, Write, WriteKey, WriteKind
from numamigration_operator.core.node_facts import NOT_WATCHED, NodeFacts, Part, unproven_sources
from numamigration_operator.core.node_record import NodeRecord, Pools
from numamigration_operator.core.outlook import Counts, Outlooks, counts_of, outline
from numamigration_operator.core.policy_record import PolicyRecord
from numamigration_operator.core.policy_rollout import PolicyRollout
from numamigration_operator.core.progress import is_strange, watched_on
from numamigration_operator.core.render import Turn, is_safe
from numamigration_operator.core.resolve import Resolution
from numamigration_operator.core.rollout import NOWHERE, Place
from numamigration_operator.core.silence import Alarms, silent_for
from numamigration_operator.core.stops import Stops
from numamigration_operator.core.tally import Contribution
from numamigration_operator.core.wishes import Spec, Writer, revision_of, sources_of, spec_document, spec_replacement

COUNTS_NOWHERE: Final = Counts({}, {}, frozenset(), is_lost=False, is_failed=False)


class Settling:
    """Decides single nodes.

    Attributes:
        writer: who writes what is decided.
    """

    def __init__(self, policies: Mapping[str, PolicyRecord], stops: Stops, alarms: Alarms, pools: Pools) -> None:
        self._policies = policies
        self._stops = stops
        self._alarms = alarms
        self._outlooks = Outlooks(pools)
        self._deadlines: tuple[int, ...] = ()  # of all policies, seconds, rising
        self.writer = Writer(0, 0)

    def policies_moved(self) -> None:
        """Take in that policies were edited, and that nodes have other resolutions by now."""
        self._outlooks.forget()
        self._deadlines = tuple(sorted({one.facts.deadline_seconds for one in self._policies.values()}))

    def settle(self, record: NodeRecord, now: float) -> Write | None:
        """Decide one node anew: its spec, its place in the counts, and when it would count as silent."""
        if record.uid is None:
            return None
        node = self._facts(record, now)
        wanted, turns, counts = self._outlooks(node)
        write = None if self._is_strange(record, node, turns, wanted.spec) else self._open_write(record, wanted)
        if write is not None:
            counts = counts_of(self._facts(record, now), wanted, turns)
            for uid in () if write.safe else (uid for uid, turn in turns.items() if turn.admitted):
                self._policies[uid].rollout.pushed(record.name)
        self._count(record, counts, record.resolution)
        winner = record.resolution.winners.get(SettingsGroup.OFFLOAD)
        self.sum(record, winner.uid if winner is not None and record.selected else "")
        self._stops.note(record)
        self._alarms.set(record, outline(record.resolution).deadlines, now)
        return write

    def _facts(self, record: NodeRecord, now: float) -> NodeFacts:
        """Return what is known of a node as decisions need it."""
        report, silent = record.report, silent_for(record, self._deadlines, now)
        class_held, stop = self._stops.keeps_off(record, is_silent=silent > 0), self._stops.stop(record)
        return NodeFacts(
            record.selected,
            record.resolution,
            record.spec,
            record.open_spec,
            record.rivals,
            record.reported,
            record.said,
            report is not None and report.observed_generation == record.generation,
            silent,
            record.skew,
            record.try_again,
            record.cell,
            record.zone,
            record.ready,
            self._stops.control.switch,
            stop,
            self._stops.verify_epoch(record),
            class_held,
            self._parts(record, kept_off=class_held or stop.offload_only),
        )

    def _parts(self, record: NodeRecord, *, kept_off: bool) -> tuple[Part, ...]:
        won, held = record.resolution.won if record.selected else {}, sources_of(record.spec)
        if record.open_spec is not None:
            held |= sources_of(record.open_spec)
        uids = won.keys() if held <= won.keys() else (*won, *sorted(held - won.keys()))
        policies = (self._policies.get(uid) for uid in uids)
        return tuple([self._part(record, one.rollout, kept_off=kept_off) for one in policies if one is not None])

    def _part(self, record: NodeRecord, rollout: PolicyRollout, *, kept_off: bool) -> Part:
        name, facts, watched = record.name, rollout.facts, NOT_WATCHED
        counted = name in rollout.book.unproven
        if (facts.rollout.guardrails or record.base.observe is not None) and (
            counted
            or facts.uid
            in unproven_sources(record.spec, record.open_spec, record.reported, record.said, kept_off=kept_off)
        ):
            watched = watched_on(record, facts)
        return Part(rollout.course, rollout.admits(name), rollout.joins(name), counted, watched)

    def _is_strange(self, record: NodeRecord, node: NodeFacts, turns: Mapping[str, Turn], wanted: Spec) -> bool:
        if record.resisted is None:
            return False
        asked = {uid: turn.goal.wishes or self._policies[uid].facts.wishes for uid, turn in turns.items()}
        return is_strange(node, wanted, asked)

    def _open_write(self, record: NodeRecord, decided: Wanted) -> Write | None:
        wanted, revision = decided.spec, decided.revision
        if record.uid is None or not record.needs(revision):
            return None
        if record.cannot_be_created:
            wanted = Spec()
            revision = revision_of(wanted)
        resisted = (record.shared or record.resisted == revision) and not record.try_again
        record.open_write(wanted, revision, self.writer)
        key, safe = WriteKey(WriteKind.STATE_SPEC, record.name), is_safe(record.spec, wanted)
        if record.state_uid is not None and record.uid in record.owners and resisted:
            # Applied before and not in force: what another manager owns too (a backup applied again) stays in place.
            body = spec_replacement(state_uid=record.state_uid, version=record.onto, spec=wanted, writer=self.writer)
            return Write(key, body, safe=safe, patch=Patch.JSON, asks=f"{record.state_uid} {revision}")
        head, rest = spec_document(
            node=record.name,
            node_uid=record.uid,
            state_uid=record.state_uid,
            version=record.onto,
            spec=wanted,
            writer=self.writer,
        )
        return Write(key, head, safe=safe, asks=f"{record.uid} {record.state_uid} {revision}", rest=rest)

    def gone(self, record: NodeRecord) -> None:
        """Take in that a Node is gone: it counts nowhere."""
        self._count(record, COUNTS_NOWHERE, None)
        self.sum(record, "")
        self._stops.forget(record.name)

    def _count(self, record: NodeRecord, counts: Counts, resolution: Resolution | None) -> None:
        """Count a node by difference; most events of a node move little of it, and for few policies."""
        record.is_lost, record.is_failed = counts.is_lost, counts.is_failed
        self._contribute(record, counts.contributions, resolution)
        self._stand(record, counts.places)
        if record.holds != counts.holds:
            self._hold(record, counts.holds)

    def _contribute(
        self, record: NodeRecord, contributions: Mapping[str, Contribution], resolution: Resolution | None
    ) -> None:
        """Count what it adds to each policy: while its resolution stands, only for those that win something there."""
        before, was = record.contributions, record.counted
        record.contributions, record.counted = contributions, resolution
        if before is contributions:
            return
        moved: Iterable[str] = before.keys() | contributions.keys()
        if resolution is not None and was is resolution:
            moved = (policy.uid for policy in outline(resolution).others)
        for uid in moved:
            policy = self._policies.get(uid)
            if policy is not None:
                policy.count(record.name, before.get(uid), contributions.get(uid))

    def _stand(self, record: NodeRecord, places: Mapping[str, Place]) -> None:
        """Count where it stands in each rollout."""
        before, record.places = record.places, places
        if before is places:
            return
        for uid in before.keys() | places.keys():
            policy = self._policies.get(uid)
            if policy is not None:
                policy.place(record.name, before.get(uid, NOWHERE), places.get(uid, NOWHERE))

    def sum(self, record: NodeRecord, uid: str) -> bool:
        """Count its counters for the policy with this uid, and for no other one; return whether that makes it due."""
        report = record.report if record.uid is not None else None
        new = report.statistics if report is not None and uid else None
        if uid != record.summed_for:
            before = self._policies.get(record.summed_for)
            if before is not None:
                before.renumber(record.summed, None)
            record.summed, record.summed_for = None, uid
        policy = self._policies.get(uid)
        if policy is None:
            return False
        old, record.summed = record.summed, new
        return policy.renumber(old, new)

    def _hold(self, record: NodeRecord, holds: frozenset[str]) -> None:
        """Keep for each policy which nodes still have a group of it."""
        for uid in record.holds ^ holds:
            policy = self._policies.get(uid)
            if policy is not None:
                policy.hold(record.name, held=uid in holds)
        record.holds = holds
