# SPDX-License-Identifier: Apache-2.0
"""The fleet in memory: events go in and only mark; one level-based look, `decide`, says what to write.

* Cost: a node event costs what its policies cost, whatever the number of nodes; a policy edit looks at every node once.
* Nothing is decided before the fleet switch, policies, nodes and node states were each listed once: half the policies
  would restore the nodes of the other half (docs/decisions/0004).
* Nothing new is pushed before the stored revisions were listed, which are the way back; what undoes does not wait.
* Nothing is decided before this process leads: what is written carries its epoch (docs/decisions/0009).
* Nothing is written when nothing changed, also right after a start; another leader's epoch is no change.
* `now` is monotonic seconds for durations, `wall` is a time with a zone for what people read. Not thread-safe.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

from numamigration_api.machinery.conditions import shorten
from numamigration_api.vocabulary import POLICY_UID_LABEL, NodeBucket, Reason, Release, SettingsGroup
from numamigration_operator.core.class_hold import Hold, hold_write
from numamigration_operator.core.classify import NodeFacts, Verdict
from numamigration_operator.core.decisions import Decisions, EventWish, Patch, Write, WriteKey, WriteKind
from numamigration_operator.core.fleet_switch import Control
from numamigration_operator.core.node_record import NodeRecord, Pools
from numamigration_operator.core.numbers import PolicyNumbers
from numamigration_operator.core.objects import NodeObject, PolicyObject, RevisionObject, Selector, StateObject
from numamigration_operator.core.policy_record import Pace, PolicyRecord
from numamigration_operator.core.policy_rollout import Stand
from numamigration_operator.core.policy_status import Standing, policy_status
from numamigration_operator.core.pool import POOL_VALUES_MAX
from numamigration_operator.core.progress import (
    Case,
    has_all,
    is_held_back,
    is_strange,
    place_of,
    progress_of,
    turn_of,
    watches_readiness,
)
from numamigration_operator.core.render import Turn, is_safe
from numamigration_operator.core.resolve import NOTHING_WISHED, PolicyFacts, Resolution, resolve
from numamigration_operator.core.revisions import Revision, read_revision
from numamigration_operator.core.rollout import NOWHERE, Place, Stage
from numamigration_operator.core.selectors import keys_of, selects
from numamigration_operator.core.settling import Given, Wanted, WantedSpecs, contribution, outline
from numamigration_operator.core.stops import Stops
from numamigration_operator.core.tally import Contribution
from numamigration_operator.core.wishes import (
    Spec,
    Writer,
    revision_of,
    sources_of,
    spec_document,
    spec_replacement,
)

TOMBSTONES_MAX: Final = 1024  # deleted policies whose late events are still ignored
DEPARTED_MAX: Final = 1024  # Nodes that went with something to restore, and may be back on the same boot
NAMES_IN_EVENT_MAX: Final = 20  # an Event's note has room for 1,024 characters
ALARMS_SPARE: Final = 1024  # outdated alarms that may lie in the heap before it is built anew
READINESS_SECONDS: Final = 15.0  # between two reads of one Node; kubelets report every 10 s, and leases every 10 s
NO_TURN: Final = Turn()
UNSEEN: Final = Contribution(
    Verdict(NodeBucket.UNREACHABLE, Reason.NODE_UNREACHABLE)
)  # of a policy that selects it no more


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """What the core is told; the edges validate it."""

    agent_node_selector: Selector = field(default_factory=Selector)
    status_interval_seconds: float = 5.0
    statistics_interval_seconds: float = 60.0
    restore_deadline_seconds: float = 600.0
    reserve_interval_seconds: float = 1.0
    breaker_percent: int = 20
    breaker_nodes_min: int = 10


class FleetSnapshot(NamedTuple):
    """Counts for logs and metrics."""

    policies: int
    nodes: int
    states: int
    dirty_nodes: int
    open_spec_writes: int
    synced: bool
    class_holds: int
    breaker_open: bool


class Fleet:
    """All policies, nodes and node states, and what was decided for them."""

    def __init__(self, settings: FleetSettings) -> None:
        self._settings = settings
        self._pace = Pace(
            settings.status_interval_seconds, settings.statistics_interval_seconds, settings.reserve_interval_seconds
        )
        self._pools = Pools()
        self._wanted = WantedSpecs(self._pools)
        self._policies: dict[str, PolicyRecord] = {}
        self._uids: dict[str, str] = {}
        self._tombstones: OrderedDict[str, None] = OrderedDict()
        self._nodes: dict[str, NodeRecord] = {}
        self._departed: OrderedDict[str, Spec] = OrderedDict()
        self._resisting: dict[str, None] = {}  # nodes whose spec has another content than its revision says
        self._ranked: tuple[PolicyFacts, ...] = ()
        self._resolutions: dict[tuple[str, ...], Resolution] = {}
        self._matches: dict[tuple[str | None, ...], Resolution] = {}  # by the values of the labels that are asked for
        self._asked: tuple[str, ...] = ()  # keys of these labels
        self._edited: dict[str, None] = {}  # uids of policies whose nodes have to be found anew
        self._unmatched: dict[str, None] = {}  # nodes whose policies have to be found anew; dicts keep the order
        self._dirty: dict[str, None] = {}  # nodes that have to be decided anew
        self._alarms: list[tuple[float, str]] = []
        self._epoch = 0  # none: this process does not lead
        self._writer = Writer(0, 0)
        self._listed = {"control": False, "policies": False, "nodes": False, "states": False}
        self._history_known = False
        self._read: dict[str, float] = {}  # Nodes whose readiness was asked for, and when it is worth asking again
        self._revisions: dict[str, tuple[str, Revision]] = {}  # with the uid of the policy, by name of the object
        self._stops = Stops(settings.breaker_percent, settings.breaker_nodes_min)
        self._relisting: frozenset[str] | None = None  # uids of policies that wait for the lists that were asked for

    # The fleet switch

    def control_changed(self, control: Control, now: float) -> None:  # noqa: ARG002 - every event has its time
        """Take in what the control ConfigMap says; a switch that moved concerns every node and every policy."""
        self._listed["control"] = True
        if control == self._stops.control:
            return
        self._stops.take_control(control)
        for record in self._nodes.values():
            self._mark(record)
        for policy in self._policies.values():
            policy.touched = True

    # Policies

    def policies_listed(self, policies: Iterable[PolicyObject], now: float) -> None:
        """Take in a whole list: policies that are not in it are gone.

        The caller merges what the watch told while the list was under way; a policy missing here ends on its nodes.
        Versions do not count here: after a restored backup of etcd they begin again below what was seen.
        """
        listed = {policy.metadata.uid: policy for policy in policies}
        for uid in [uid for uid in self._policies if uid not in listed]:
            self._drop_policy(uid)
        for uid, policy in listed.items():
            self._tombstones.pop(uid, None)
            self._take_policy(policy, now)
        self._listed["policies"] = True
        self._write_one_again()

    def policy_changed(self, policy: PolicyObject, now: float) -> None:
        """Take in one policy, unless it is older than what is known or known to be deleted."""
        uid, name = policy.metadata.uid, policy.metadata.name
        known = self._policies.get(uid) or self._policies.get(self._uids.get(name, ""))
        if uid not in self._tombstones and (known is None or not known.is_stale(policy)):
            self._take_policy(policy, now)

    def _take_policy(self, policy: PolicyObject, now: float) -> None:
        uid = policy.metadata.uid
        record = self._policies.get(uid)
        if record is None:
            self._drop_policy(self._uids.get(policy.metadata.name, ""))
            self._add_policy(policy)
        elif record.take(policy, now):
            self._edited[uid] = None
        self._take_ledger(self._policies[uid])

    def policy_gone(self, uid: str, now: float) -> None:  # noqa: ARG002 - every event of the fleet has its time
        """Take in that a policy is deleted for good; a late event cannot bring it back."""
        self._tombstones[uid] = None
        if len(self._tombstones) > TOMBSTONES_MAX:
            self._tombstones.popitem(last=False)
        self._drop_policy(uid)

    def _add_policy(self, policy: PolicyObject) -> None:
        uid = policy.metadata.uid
        record = self._policies[uid] = PolicyRecord(policy, self._pace)
        record.holders.update(node.name for node in self._nodes.values() if uid in node.holds)
        record.rollout.history_known = self._history_known
        for owner, revision in self._revisions.values():
            if owner == uid:
                record.rollout.take_revision(revision)
        self._uids[policy.metadata.name] = uid
        self._edited[uid] = None

    def _drop_policy(self, uid: str) -> None:
        record = self._policies.pop(uid, None)
        if record is None:
            return
        del self._uids[record.facts.name]
        for node in self._nodes.values():
            node.contributions.pop(uid, None)
            node.places.pop(uid, None)
        self._edited[uid] = None

    # Nodes

    def node_changed(self, node: NodeObject, now: float) -> None:  # noqa: ARG002
        """Take in one Node; cheap when uid and labels are known."""
        meta = node.metadata
        record = self._record(meta.name)
        before = (record.uid, record.selected, record.zone)
        relabelled = record.take_labels(meta.labels, self._pools)
        if record.uid == meta.uid and not relabelled:
            return
        if record.uid != meta.uid:
            record.uid = meta.uid
            record.forget_open_write()
        record.selected = selects(self._settings.agent_node_selector, meta.labels)
        self._unmatched[meta.name] = None
        if before != (record.uid, record.selected, record.zone):
            self._mark(record)

    def node_gone(self, name: str, now: float) -> None:  # noqa: ARG002
        """Take in that a Node is gone: it counts nowhere and gets no writes."""
        record = self._nodes.get(name)
        if record is None or record.uid is None:
            return
        record.uid, record.matched, record.resolution = None, (), NOTHING_WISHED
        record.forget_open_write()
        self._unmatched.pop(name, None)
        self._dirty.pop(name, None)
        self._contribute(record, {}, None)
        self._stand(record, {})
        self._stops.forget(name)
        self._hold(record, frozenset())
        self._forget_if_empty(record)

    def nodes_listed(self, names: Collection[str], now: float) -> None:
        """Take in the end of a whole list: other Nodes are gone."""
        known = set(names)
        for name in [name for name, record in self._nodes.items() if record.uid is not None and name not in known]:
            self.node_gone(name, now)
        self._listed["nodes"] = True

    # Node states

    def state_changed(self, state: StateObject, now: float, wall: datetime) -> None:
        """Take in one node state."""
        record = self._record(state.metadata.name)
        is_quiet = record.name not in self._dirty and not record.is_lost
        if is_quiet and record.take_numbers(state, now):
            self._renumber(record)
            return
        record.take_state(state, now, wall, self._pools)
        self._note_resistance(record)
        self._mark(record)

    def _renumber(self, record: NodeRecord) -> None:
        """Count the numbers of a node of which nothing else moved, as almost every report is."""
        winner = record.resolution.winners.get(SettingsGroup.OFFLOAD)  # numbers count for nobody else
        uid = winner.uid if winner is not None else ""
        policy, old = self._policies.get(uid), record.contributions.get(uid)
        if policy is None or old is None or old.statistics is None or record.report is None:
            return
        new = record.report.statistics
        if old.statistics != new:
            record.contributions[uid] = Contribution(old.verdict, old.drifted, old.losses, new, old.plan)
            policy.tally.renumber(old.statistics, new)
            policy.sums_moved = True

    def state_gone(self, name: str, now: float) -> None:  # noqa: ARG002
        """Take in that a node state is gone; its Node gets a new one."""
        record = self._nodes.get(name)
        if record is None or record.state_uid is None:
            return
        record.forget_state()
        self._resisting.pop(name, None)
        self._mark(record)
        self._forget_if_empty(record)

    def states_listed(self, names: Collection[str], now: float) -> None:
        """Take in the end of a whole list: other node states are gone."""
        known = set(names)
        for name in [n for n, record in self._nodes.items() if record.state_uid is not None and n not in known]:
            self.state_gone(name, now)
        self._listed["states"] = True

    # What the CRD could not hold is tried again by itself: with each list of policies on one node, whatever the size of
    # the fleet; once that one is whole, the CRD is a newer one, and the others follow.

    def _note_resistance(self, record: NodeRecord) -> None:
        if record.resisted is not None:
            self._resisting[record.name] = None
        elif record.name in self._resisting:
            del self._resisting[record.name]
            for name in self._resisting:
                self._write_again(self._nodes[name])

    def _write_one_again(self) -> None:
        name = next(iter(self._resisting), None)
        if name is not None:
            self._resisting[name] = self._resisting.pop(name)  # at the end: the next time it is another one's turn
            self._write_again(self._nodes[name])

    def _write_again(self, record: NodeRecord) -> None:
        record.forget_open_write()
        record.try_again = True
        self._mark(record)

    def _record(self, name: str) -> NodeRecord:
        record = self._nodes.get(name)
        if record is None:
            record = self._nodes[name] = NodeRecord(name)
            record.spec = self._departed.pop(name, record.spec)
        return record

    def _mark(self, record: NodeRecord) -> None:
        if record.uid is not None:
            self._dirty[record.name] = None

    def _forget_if_empty(self, record: NodeRecord) -> None:
        """Forget a name that has neither Node nor node state, but not what would have to be restored there.

        A Node that was deleted by mistake registers again, often without the labels that a policy selected.
        """
        if record.uid is not None or record.state_uid is not None:
            return
        del self._nodes[record.name]
        if any(wish.release is Release.RESTORE for _, wish in record.spec.groups):
            self._departed[record.name] = record.spec
            if len(self._departed) > DEPARTED_MAX:
                self._departed.popitem(last=False)

    # Rollouts

    def revision_changed(self, revision: RevisionObject, now: float) -> None:  # noqa: ARG002
        """Take in one ControllerRevision."""
        name, uid = revision.metadata.name, revision.metadata.labels.get(POLICY_UID_LABEL, "")
        read = read_revision(revision)
        if read is None:
            return
        self._revisions[name] = (uid, read)
        policy = self._policies.get(uid)
        if policy is not None and policy.rollout.take_revision(read):
            self._mark_all_of(policy)

    def revision_gone(self, name: str, now: float) -> None:  # noqa: ARG002
        """Take in that a ControllerRevision is gone."""
        uid, _ = self._revisions.pop(name, ("", None))
        policy = self._policies.get(uid)
        if policy is not None and policy.rollout.drop_revision(name):
            self._mark_all_of(policy)

    def revisions_listed(self, names: Collection[str], now: float) -> None:
        """Take in the end of a whole list: other ControllerRevisions are gone."""
        known = set(names)
        for name in [name for name in self._revisions if name not in known]:
            self.revision_gone(name, now)
        if self._history_known:
            return
        self._history_known = True
        for policy in self._policies.values():
            policy.rollout.history_known = policy.touched = True
        self._mark_if(lambda _: True)

    def node_ready(self, name: str, ready: bool | None, now: float) -> None:  # noqa: ARG002
        """Take in what a Node's Ready condition says."""
        record = self._nodes.get(name)
        if record is not None and record.ready is not ready:
            record.ready = ready
            self._mark(record)

    def relisted(self, now: float) -> None:  # noqa: ARG002
        """Take in that Nodes and node states were listed once more, as asked: nothing of a predecessor is unseen.

        What it had reserved may still be on its way to the API server. Written once more, with our epoch, a node is
        closed to it.
        """
        for policy in (self._policies.get(uid) for uid in self._relisting or ()):
            if policy is None or not policy.rollout.claimed:
                continue
            policy.rollout.fresh = True
            for name in policy.rollout.ledger.carried:
                record = self._nodes.get(name)
                if record is not None and not self._is_fenced(name):
                    record.try_again = True  # what is on its way, another policy's push too, is written with it
                    self._mark(record)
            self._mark_all_of(policy)
        self._relisting = None

    def _is_fenced(self, name: str) -> bool:
        record = self._nodes.get(name)
        return record is None or record.uid is None or record.leader_epoch == self._epoch

    def _mark_all_of(self, policy: PolicyRecord) -> None:
        """Decide all nodes of a policy anew; what its rollout says of them has changed."""
        policy.touched, uid = True, policy.facts.uid
        self._mark_if(lambda record: uid in record.matched or uid in record.holds)

    def _take_ledger(self, policy: PolicyRecord) -> None:
        for name in sorted(policy.rollout.take_status(policy.stored.rollout, policy.version, self._epoch)):
            record = self._nodes.get(name)
            if record is not None:
                self._mark(record)

    # What became of writes

    def write_stored(self, key: WriteKey, generation: int) -> None:
        """Take in that a write was stored, and the generation that its object has now."""
        node = self._nodes.get(key.name)
        if key.kind is WriteKind.STATE_SPEC and node is not None and node.write_stored(generation):
            self._note_resistance(node)
            self._mark(node)

    def write_failed(self, key: WriteKey) -> None:
        """Take in that a write did not stick; it is decided anew from what is known then."""
        if key.kind is WriteKind.STATE_SPEC:
            node = self._nodes.get(key.name)
            if node is not None:
                node.forget_open_write()
                self._mark(node)
            return
        if key.kind is WriteKind.CLASS_HOLD:
            self._stops.forget_open_hold(key.name)
            self._mark_if(lambda _: True)
            return
        if key.kind in {WriteKind.REVISION, WriteKind.REVISION_DELETION}:
            for one in self._policies.values():
                one.rollout.forget_open_revision(key.name)
            return
        policy = self._policies.get(self._uids.get(key.name, ""))
        if policy is None:
            return
        if key.kind is WriteKind.POLICY_STATUS:
            policy.forget_open_status()
        else:
            policy.forget_open_finalizer()

    def write_skewed(self, name: str, message: str) -> None:
        """Take in that the CRD does not know a field of a spec: what was stored is not what was decided."""
        record = self._nodes.get(name)
        if record is not None and record.open_spec is not None:
            record.skew = shorten(message)
            if record.state_uid is None:
                record.forget_open_write()  # the applier goes on with a merge patch, which creates nothing
            self._mark(record)

    # What to do

    def lead(self, epoch: int) -> None:
        """Take in that this process leads; everything it writes carries `epoch`."""
        self._epoch, self._writer = epoch, Writer(epoch, 0)
        for policy in self._policies.values():
            self._take_ledger(policy)

    @property
    def greatest_epoch(self) -> int:
        """The greatest leader epoch that any policy or node state has; 0 when none has one."""
        states = (record.leader_epoch or 0 for record in self._nodes.values())
        policies = (policy.leader_epoch for policy in self._policies.values())
        return max(max(states, default=0), max(policies, default=0))

    @property
    def synced(self) -> bool:
        """The fleet switch, policies, nodes and node states were each listed once."""
        return all(self._listed.values())

    def snapshot(self) -> FleetSnapshot:
        """Return counts for logs and metrics."""
        records = self._nodes.values()
        return FleetSnapshot(
            policies=len(self._policies),
            nodes=sum(record.uid is not None for record in records),
            states=sum(record.state_uid is not None for record in records),
            dirty_nodes=len(self._dirty.keys() | self._unmatched.keys()),
            open_spec_writes=sum(record.open_spec is not None for record in records),
            synced=self.synced,
            class_holds=len(self._stops.holds),
            breaker_open=bool(self._stops.breaker),
        )

    def decide(self, now: float, wall: datetime) -> Decisions:
        """Return what to write now, and when to look again if nothing happens before."""
        if not self._epoch or not self.synced:
            return Decisions()
        self._writer = self._writer._replace(sequence=self._writer.sequence + 1)
        self._forget_readiness(now)
        self._match()
        self._ring(now)
        events: list[EventWish] = []
        finalizers: list[Write] = []
        for record, hold in self._new_holds():
            finalizers.append(hold_write(hold))
            events.extend(self._tell_of_hold(record, hold))
        specs = self._settle_all(now)
        statuses: list[Write] = []
        look_again = min(self._alarms[0][0] if self._alarms else math.inf, self._readiness_due(now))
        for policy in self._policies.values():
            finalizers.extend(policy.rollout.revision_writes(policy.tally.matched, wall, self._explain(policy)))
            look_again = min(look_again, self._finalize(policy, now, wall, finalizers, events))
            look_again = min(look_again, self._show(policy, now, wall, statuses, events))
        specs.sort(key=lambda write: not write.safe)
        return Decisions(
            writes=(*finalizers, *specs, *statuses),
            events=tuple(events),
            look_again=None if math.isinf(look_again) else look_again,
            readiness=tuple(self._unread(now)),
            relist=self._wants_lists(),
        )

    @property
    def _watched_for_readiness(self) -> frozenset[str]:
        """Nodes whose readiness somebody waits for: reserved and unproven ones of policies that ask for it."""
        waiting = (one.rollout.counted for one in self._policies.values() if watches_readiness(one.facts))
        return frozenset().union(*waiting)

    def _unread(self, now: float) -> Iterator[str]:
        """Yield Nodes whose readiness is to be read now."""
        for name in sorted(self._watched_for_readiness):
            record = self._nodes.get(name)
            if record is not None and record.uid is not None and self._read.get(name, -math.inf) <= now:
                self._read[name] = now + READINESS_SECONDS
                yield name

    def _forget_readiness(self, now: float) -> None:
        """Forget what nobody has asked for lately: a node that was passed over may be ready by now."""
        due = [name for name, at in self._read.items() if at + READINESS_SECONDS <= now]
        watched = self._watched_for_readiness if due else frozenset()
        for name in due:
            record = self._nodes.get(name)
            if name not in watched:
                del self._read[name]
                if record is not None:
                    record.ready = None
                    self._mark(record)

    def _settle_all(self, now: float) -> list[Write]:
        """Decide all nodes anew that something happened to, and all of them once more when that moves the breaker."""
        writes: dict[str, Write] = {}
        while self._dirty:
            names = list(self._dirty)
            self._dirty.clear()
            for name in names:
                write = self._settle(self._nodes[name], now)
                if write is not None:
                    writes[name] = write
            if self._stops.judge():
                self._mark_if(lambda _: True)
        return list(writes.values())

    def _readiness_due(self, now: float) -> float:
        return now + READINESS_SECONDS if self._read or self._watched_for_readiness else math.inf

    def _wants_lists(self) -> bool:
        """Ask for lists that begin now, once, for policies whose ledger another leader has written before us."""
        if self._relisting is not None:
            return False
        stale = (uid for uid, policy in self._policies.items() if policy.rollout.claimed and not policy.rollout.fresh)
        self._relisting = frozenset(stale) or None
        return self._relisting is not None

    def _match(self) -> None:
        """Find the policies of nodes, and the nodes of policies, that changed."""
        if self._edited:
            facts = (record.facts for record in self._policies.values())
            self._ranked = tuple(sorted((one for one in facts if not one.deleting), key=lambda one: one.rank))
            self._resolutions.clear()
            self._wanted.forget()
            self._matches.clear()
            self._asked = tuple(sorted({key for facts in self._ranked for key in keys_of(facts.selector)}))
            self._unmatched.update(dict.fromkeys(self._touched_by_edits()))
            self._edited.clear()
        for name in self._unmatched:
            record = self._nodes[name]
            resolution = self._resolution(record.labels)
            if resolution is not record.resolution:  # other labels may have moved
                record.matched = tuple(policy.uid for policy in resolution.policies)
                record.resolution = resolution
                self._dirty[name] = None
        self._unmatched.clear()

    def _touched_by_edits(self) -> Iterator[str]:
        edited = [facts for facts in self._ranked if facts.uid in self._edited]
        for name, record in self._nodes.items():
            if record.uid is None or name in self._unmatched:
                continue
            labels = record.labels
            if not self._edited.keys().isdisjoint(record.matched) or any(selects(f.selector, labels) for f in edited):
                yield name

    def _resolution(self, labels: Mapping[str, str]) -> Resolution:
        """Return the resolution of the policies that select these labels; most nodes share a few."""
        asked = tuple([labels.get(key) for key in self._asked])
        known = self._matches.get(asked)
        if known is None:
            if len(self._matches) >= POOL_VALUES_MAX:
                self._matches.clear()
            uids = tuple(facts.uid for facts in self._ranked if selects(facts.selector, labels))
            known = self._matches[asked] = self._resolution_of(uids)
        return known

    def _resolution_of(self, uids: tuple[str, ...]) -> Resolution:
        known = self._resolutions.get(uids)
        if known is None:
            known = self._resolutions[uids] = resolve(self._policies[uid].facts for uid in uids)
        return known

    # One node

    def _settle(self, record: NodeRecord, now: float) -> Write | None:
        """Decide one node anew: its spec, its place in the counts, and when it would count as silent."""
        if record.uid is None:
            return None
        resolution = record.resolution if record.selected else NOTHING_WISHED
        stop = self._stops.stop(record)
        turns = {uid: turn_of(record, self._policies[uid].rollout, won, stop) for uid, won in resolution.won.items()}
        wanted = self._wanted(
            Given(
                resolution,
                record.base,
                record.restored,
                tuple(turns.values()),
                self._stops.control.switch,
                self._stops.verify_epoch(record),
            )
        )
        write = None if self._is_strange(record, wanted.spec, turns) else self._open_write(record, wanted)
        if write is not None and not write.safe:
            for uid in (uid for uid, turn in turns.items() if turn.admitted):
                self._policies[uid].rollout.pushed(record.name)
        self._hold(record, sources_of(record.spec) | sources_of(record.base))
        unproven = record.unproven_sources()
        cases = [
            Case(
                record,
                policy.rollout,
                turns.get(uid, NO_TURN),
                won := resolution.won.get(uid, ()),
                wanted.spec,
                has_all(wanted.spec, won, policy.facts.wishes),
                (uid in unproven or is_held_back(record, policy.rollout))
                and not record.is_dumb(policy.facts.deadline_seconds, now),
                stop,
            )
            for uid in turns.keys() | unproven
            if (policy := self._policies.get(uid)) is not None
        ]
        self._count(record, wanted, cases, now)
        self._set_alarm(record, now)
        return write

    def _is_strange(self, record: NodeRecord, wanted: Spec, turns: Mapping[str, Turn]) -> bool:
        if record.resisted is None:
            return False
        asked = {uid: turn.goal.wishes or self._policies[uid].facts.wishes for uid, turn in turns.items()}
        return is_strange(record, wanted, asked)

    def _open_write(self, record: NodeRecord, decided: Wanted) -> Write | None:
        wanted, revision = decided.spec, decided.revision
        if record.uid is None or not record.needs(revision):
            return None
        if record.cannot_be_created:
            wanted = Spec()
            revision = revision_of(wanted)
        resisted = (record.shared or record.resisted == revision) and not record.try_again
        record.open_write(wanted, revision)
        key, safe = WriteKey(WriteKind.STATE_SPEC, record.name), is_safe(record.spec, wanted)
        if record.state_uid is not None and record.uid in record.owners and resisted:
            # Applied before and not in force: what another manager owns too (a backup applied again) stays in place.
            body = spec_replacement(state_uid=record.state_uid, spec=wanted, writer=self._writer)
            return Write(key, body, safe=safe, patch=Patch.JSON)
        body = spec_document(node=record.name, node_uid=record.uid, spec=wanted, writer=self._writer)
        return Write(key, body, safe=safe)

    def _count(self, record: NodeRecord, wanted: Wanted, cases: list[Case], now: float) -> None:
        progress = {case.uid: progress_of(case) for case in cases}
        facts = NodeFacts(
            agent_expected=record.selected,
            resolution=record.resolution,
            wanted=wanted.spec,
            planned=frozenset((plan.source.uid, plan.source.generation) for plan in record.spec.plans),
            reported=record.reported,
            report=record.report if record.selected else None,
            silent_since=record.silent_since,
            now=now,
            skew=record.skew,
            switch=self._stops.control.switch,
            withheld=wanted.withheld,
            progress=progress,
        )
        others = outline(record.resolution).others
        self._contribute(record, {policy.uid: contribution(policy, facts) for policy in others}, record.resolution)
        self._stops.note(record)
        counted = record.contributions
        self._stand(record, {c.uid: place_of(c, counted.get(c.uid, UNSEEN).verdict, progress[c.uid]) for c in cases})

    # Held classes

    def _new_holds(self) -> Iterator[tuple[NodeRecord, Hold]]:
        """Hold the classes of nodes that have just found their engines corrupt."""
        for record in [self._nodes[name] for name in self._dirty]:
            hold = self._stops.new_hold(record, self._nodes.values())
            if hold is not None:
                self._mark_if(hold.concerns)
                yield record, hold

    def _tell_of_hold(self, record: NodeRecord, hold: Hold) -> Iterator[EventWish]:
        winner = record.resolution.winners.get(SettingsGroup.OFFLOAD)
        policy = self._policies.get(winner.uid) if winner is not None else None
        if policy is not None:
            text = f"{hold}. Nothing of this class is turned on until a person removes the key"
            yield policy.event(Reason.CORRUPTION_DETECTED, text, warning=True)

    def _mark_if(self, concerns: Callable[[NodeRecord], bool]) -> None:
        for record in self._nodes.values():
            if concerns(record):
                self._mark(record)

    def _stand(self, record: NodeRecord, places: dict[str, Place]) -> None:
        """Count by difference where a node stands in each rollout."""
        before, record.places = record.places, places
        for uid in before.keys() | places.keys():
            old, new = before.get(uid, NOWHERE), places.get(uid, NOWHERE)
            policy = self._policies.get(uid)
            if old != new and policy is not None:
                policy.rollout.book.replace(record.name, old, new)
                policy.touched = True

    def _contribute(
        self, record: NodeRecord, others: Mapping[str, Contribution], resolution: Resolution | None
    ) -> None:
        """Count the node by difference: while its resolution stands, only for policies that win something there."""
        before = record.contributions
        if resolution is not None and record.counted is resolution:
            moved: Iterable[str] = others
            record.contributions = {**before, **others}
        else:
            losers = outline(resolution).losers if resolution is not None else {}
            record.contributions = {**losers, **others}
            moved = before.keys() | record.contributions.keys()
        record.counted = resolution
        buckets = [one.verdict.bucket for one in others.values()]
        record.is_lost, record.is_failed = NodeBucket.UNREACHABLE in buckets, NodeBucket.FAILED in buckets
        for uid in moved:
            policy = self._policies.get(uid)
            if policy is not None:
                policy.count(record.name, before.get(uid), record.contributions.get(uid))

    def _hold(self, record: NodeRecord, holds: frozenset[str]) -> None:
        """Keep for each policy which nodes still have a group of it."""
        for uid in record.holds ^ holds:
            policy = self._policies.get(uid)
            if policy is None:
                continue
            (policy.holders.add if uid in holds else policy.holders.discard)(record.name)
            policy.touched = policy.touched or policy.facts.deleting
        record.holds = holds

    # Silence

    def _set_alarm(self, record: NodeRecord, now: float) -> None:
        """Ring when the agent's silence passes the next deadline; a report moves it, which is seen when it rings."""
        if record.report is None and not record.holds:
            return
        seconds = outline(record.resolution).deadlines
        if record.alarm is not None and seconds and record.alarm <= record.silent_since + seconds[0]:
            return
        deadlines = (record.silent_since + one for one in seconds)
        alarm = next((deadline for deadline in deadlines if deadline > now), math.inf)
        if math.isinf(alarm) or (record.alarm is not None and record.alarm <= alarm):
            return
        record.alarm = alarm
        heapq.heappush(self._alarms, (alarm, record.name))
        if len(self._alarms) > 2 * len(self._nodes) + ALARMS_SPARE:
            self._alarms = [(one.alarm, one.name) for one in self._nodes.values() if one.alarm is not None]
            heapq.heapify(self._alarms)

    def _ring(self, now: float) -> None:
        while self._alarms and self._alarms[0][0] <= now:
            at, name = heapq.heappop(self._alarms)
            record = self._nodes.get(name)
            if record is not None and record.alarm == at:
                record.alarm = None
                self._mark(record)

    # One policy

    def _finalize(
        self, policy: PolicyRecord, now: float, wall: datetime, writes: list[Write], events: list[EventWish]
    ) -> float:
        """Add or drop the finalizer; return when time alone changes the answer."""
        wanted, again = policy.wants_finalizer(), math.inf
        if wanted and policy.facts.deleting:
            again = policy.restore_deadline(now, wall, self._settings.restore_deadline_seconds)
            wanted = again > now
        write = policy.finalizer_write(wanted)
        if write is None:
            return again if again > now else math.inf
        writes.append(write)
        if policy.facts.deleting and policy.holders:
            events.append(policy.event(Reason.RESTORE_INCOMPLETE, _not_restored(policy.holders), warning=True))
        return math.inf

    def _show(
        self, policy: PolicyRecord, now: float, wall: datetime, writes: list[Write], events: list[EventWish]
    ) -> float:
        """Write the status when it is due; return when to look again."""
        if policy.is_leaving:
            return math.inf
        rollout, matched = policy.rollout, policy.tally.matched
        is_due = policy.status_due(now) <= now
        ledger = rollout.next_ledger(self._stand_of(policy), now, wall, is_due=is_due)
        if ledger != rollout.ledger:
            policy.touched = True
        due = policy.status_due(now)
        if due > now and not rollout.has_news(ledger):
            return min(due, rollout.ledger_due(now))
        uid = policy.facts.uid
        standing = Standing(
            policy=policy.facts,
            tally=policy.tally,
            verdict=lambda name: self._nodes[name].contributions[uid].verdict,
            holders=frozenset(policy.holders),
            control=self._stops.control,
            rollout=rollout.view(ledger, matched, wall),
            unproven=len(rollout.book.unproven | ledger.names),
            cause=rollout.cause,
        )
        status = policy_status(standing, policy.known_status, wall)
        write = policy.status_write(status, ledger, now, self._epoch)
        if write is not None:
            writes.append(write)
            events.extend(policy.news(status))
        return min(policy.status_due(now), rollout.ledger_due(now), self._rollback_due(policy, now, wall))

    def _rollback_due(self, policy: PolicyRecord, now: float, wall: datetime) -> float:
        """Return when a rollback counts as ended, whatever its nodes do."""
        if not policy.rollout.is_going_back(wall):
            return math.inf
        policy.touched = True
        return now + max(1.0, policy.rollout.rollback_ends(wall))

    def _explain(self, policy: PolicyRecord) -> Callable[[str], str]:
        """Return what says why a node failed for a policy."""

        def explain(name: str) -> str:
            verdict = self._nodes[name].contributions[policy.facts.uid].verdict
            return f"{verdict.reason}: {verdict.message}" if verdict.message else str(verdict.reason)

        return explain

    def _stand_of(self, policy: PolicyRecord) -> Stand:
        uid = policy.facts.uid
        queues = {Stage.WAITING, Stage.JOINING}
        return Stand(
            matched=policy.tally.matched,
            may_reserve=self._history_known and not self._stops.all_stand and not policy.facts.deleting,
            is_open=lambda name: name in self._nodes and self._nodes[name].is_open,
            is_waiting=lambda name: name in self._nodes and self._place(name, uid).stage in queues,
            is_fenced=self._is_fenced,
        )

    def _place(self, name: str, uid: str) -> Place:
        return self._nodes[name].places.get(uid, NOWHERE)

    def policy_numbers(self) -> Iterator[PolicyNumbers]:
        """Yield what metrics tell of each policy."""
        for policy in self._policies.values():
            yield policy.numbers()


def _not_restored(names: Collection[str]) -> str:
    shown = heapq.nsmallest(NAMES_IN_EVENT_MAX, names)
    more = "" if len(names) <= len(shown) else f" and {len(names) - len(shown)} more"
    return f"gave up waiting for {len(names)} nodes to restore: {', '.join(shown)}{more}"
