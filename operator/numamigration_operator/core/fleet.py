# SPDX-License-Identifier: Apache-2.0
"""The fleet in memory: events go in and only mark; one level-based look, `decide`, says what to write.

* Cost: a node event costs what its policies cost, whatever the number of nodes; a policy edit looks at every node once.
* Nothing is decided before the fleet switch, the node fence, policies, nodes and node states were each read once: half
  the policies would restore the nodes of the other half (docs/decisions/0004).
* Nothing new is pushed before the stored revisions were listed, which are the way back; what undoes does not wait.
* Nothing is decided before this process leads: what is written carries its epoch (docs/decisions/0009).
* Nothing is written when nothing changed, also right after a start; another leader's epoch is no change.
* `now` is monotonic seconds for durations, `wall` is a time with a zone for what people read. Not thread-safe.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

from numamigration_api.machinery.conditions import shorten
from numamigration_api.vocabulary import POLICY_UID_LABEL, Reason, Release, SettingsGroup
from numamigration_operator.core.class_hold import Hold, hold_write
from numamigration_operator.core.decisions import Decisions, EventWish, Write, WriteKey, WriteKind
from numamigration_operator.core.fleet_switch import Control
from numamigration_operator.core.matching import Matching, left_behind
from numamigration_operator.core.node_record import NodeRecord, Pools
from numamigration_operator.core.numbers import PolicyNumbers
from numamigration_operator.core.objects import (
    NodeObject,
    PolicyObject,
    ProfileObject,
    RevisionObject,
    Selector,
    StateObject,
)
from numamigration_operator.core.policy_record import Pace, PolicyRecord
from numamigration_operator.core.policy_writes import PolicyWrites, is_fenced, unfenced
from numamigration_operator.core.readiness import Readiness
from numamigration_operator.core.resolve import NOTHING_WISHED
from numamigration_operator.core.revisions import Revision, read_revision
from numamigration_operator.core.selectors import selects
from numamigration_operator.core.settling import Settling
from numamigration_operator.core.silence import Alarms
from numamigration_operator.core.stops import Stops
from numamigration_operator.core.tuned import Profiles, Tuned
from numamigration_operator.core.tuning import Tuner
from numamigration_operator.core.wishes import (
    Spec,
    Writer,
)

TOMBSTONES_MAX: Final = 1024  # deleted policies whose late events are still ignored
DEPARTED_MAX: Final = 1024  # Nodes that went with something to restore, and may be back on the same boot


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
    fence_required: bool = True


class FleetSnapshot(NamedTuple):
    """Counts for logs and metrics.

    Attributes:
        corrupt: nodes whose agent says that their engine has copied its test pages wrong, on this boot.
        restores_incomplete: deleted policies that this process let go although nodes had not confirmed.
        oldest_report_at: of the selected node's agent that was silent longest, monotonic seconds; None without one.
    """

    policies: int
    nodes: int
    states: int
    dirty_nodes: int
    open_spec_writes: int
    synced: bool
    class_holds: int
    breaker_open: bool
    fence_missing: bool
    corrupt: int = 0
    restores_incomplete: int = 0
    oldest_report_at: float | None = None


class Fleet:
    """All policies, nodes and node states, and what was decided for them."""

    def __init__(self, settings: FleetSettings) -> None:
        self._settings = settings
        self._pace = Pace(
            settings.status_interval_seconds, settings.statistics_interval_seconds, settings.reserve_interval_seconds
        )
        self._pools = Pools()
        self._policies: dict[str, PolicyRecord] = {}
        self._uids: dict[str, str] = {}
        self._tombstones: OrderedDict[str, None] = OrderedDict()
        self._nodes: dict[str, NodeRecord] = {}
        self._departed: OrderedDict[str, Spec] = OrderedDict()
        self._resisting: dict[str, None] = {}  # nodes whose spec has another content than its revision says
        self._unmatched: dict[str, None] = {}  # nodes whose policies have to be found anew; dicts keep the order
        self._dirty: dict[str, None] = {}  # nodes that have to be decided anew
        self._epoch = 0  # none: this process does not lead
        self._recalled = False  # what nobody has told this process of was asked for
        self._listed = {"control": False, "policies": False, "nodes": False, "states": False}
        self._listed["fence"] = not settings.fence_required
        self._history_known = False
        self._revisions: dict[str, tuple[str, Revision]] = {}  # with the uid of the policy, by name of the object
        self._stops = Stops(settings.breaker_percent, settings.breaker_nodes_min)
        self._alarms = Alarms(self._nodes)
        self._readiness = Readiness(self._nodes, self._policies)
        self._matching = Matching()
        self._settling = Settling(self._policies, self._stops, self._alarms, self._pools)
        self._tuner = Tuner(self._nodes, self._policies, self._stops)
        self._profiles: Profiles = ()  # what tuned policies have; none before all were listed
        self._restores_incomplete = 0
        self._relisting: frozenset[str] | None = None  # uids of policies that wait for the lists that were asked for

    # The fleet switch

    def control_changed(self, control: Control, now: float) -> None:  # noqa: ARG002 - every event has its time
        """Take in what the control ConfigMap says; a switch that moved concerns every node and every policy."""
        self._listed["control"] = True
        if control == self._stops.control:
            return
        self._stops.take_control(control)
        self._mark_everything()

    # The node fence

    def fence_read(self, problem: str, now: float) -> None:  # noqa: ARG002
        """Take in why agents are not kept to their own nodes; empty when they are. It concerns everything."""
        self._listed["fence"] = True
        if problem != self._stops.fence_problem:
            self._stops.fence_problem = problem
            self._mark_everything()

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
            self._matching.edited[uid] = None
            self._tuner.take_policy(uid, record.facts.tuning)
        self._take_ledger(self._policies[uid])
        self._close_all(self._policies[uid])

    def policy_gone(self, uid: str, now: float) -> None:  # noqa: ARG002 - every event of the fleet has its time
        """Take in that a policy is deleted for good; a late event cannot bring it back."""
        self._tombstones[uid] = None
        if len(self._tombstones) > TOMBSTONES_MAX:
            self._tombstones.popitem(last=False)
        self._drop_policy(uid)

    def _add_policy(self, policy: PolicyObject) -> None:
        uid = policy.metadata.uid
        record = self._policies[uid] = PolicyRecord(policy, self._pace, self._profiles)
        record.holders.update(node.name for node in self._nodes.values() if uid in node.holds)
        if self._history_known:
            record.rollout.history_listed()
        for owner, revision in self._revisions.values():
            if owner == uid:
                record.rollout.take_revision(revision)
        self._uids[policy.metadata.name] = uid
        self._matching.edited[uid] = None
        self._tuner.take_policy(uid, record.facts.tuning)

    def _drop_policy(self, uid: str) -> None:
        record = self._policies.pop(uid, None)
        if record is None:
            return
        del self._uids[record.facts.name]
        self._tuner.take_policy(uid, Tuned.NO)
        for node in self._nodes.values():
            node.contributions = {one: counted for one, counted in node.contributions.items() if one != uid}
            node.places = {one: place for one, place in node.places.items() if one != uid}
            node.summed, node.summed_for = (None, "") if node.summed_for == uid else (node.summed, node.summed_for)
        self._matching.edited[uid] = None

    # Nodes

    def node_changed(self, node: NodeObject, now: float) -> bool:  # noqa: ARG002
        """Take in one Node; return whether there is something to decide: not when uid and labels are known."""
        meta = node.metadata
        record = self._record(meta.name)
        before = (record.uid, record.selected, record.zone)
        relabelled = record.take_labels(meta.labels, self._pools)
        if record.uid == meta.uid and not relabelled:
            return False
        if record.uid != meta.uid:
            record.uid = meta.uid
            record.forget_open_write()
        record.selected = selects(self._settings.agent_node_selector, meta.labels)
        self._unmatched[meta.name] = None
        if before != (record.uid, record.selected, record.zone):
            self._mark(record)
        return True

    def node_gone(self, name: str, now: float) -> None:  # noqa: ARG002
        """Take in that a Node is gone: it counts nowhere and gets no writes."""
        record = self._nodes.get(name)
        if record is None or record.uid is None:
            return
        record.uid, record.matched, record.resolution = None, (), NOTHING_WISHED
        record.forget_open_write()
        self._unmatched.pop(name, None)
        self._dirty.pop(name, None)
        self._settling.gone(record)
        self._forget_if_empty(record)

    def nodes_listed(self, names: Collection[str], now: float) -> None:
        """Take in the end of a whole list: other Nodes are gone."""
        known = set(names)
        for name in [name for name, record in self._nodes.items() if record.uid is not None and name not in known]:
            self.node_gone(name, now)
        self._listed["nodes"] = True

    # Node states

    def state_changed(self, state: StateObject, now: float, wall: datetime) -> bool:
        """Take in one node state; return whether there is something to decide.

        Of numbers there is not, once a decision has seen that they move: it said when it will look again.
        """
        self._tuner.take_state(state)
        record = self._record(state.metadata.name)
        is_quiet = record.name not in self._dirty and not record.is_lost
        if is_quiet and record.take_numbers(state, now):
            return self._settling.sum(record, record.summed_for) or self._tuner.due(now) <= now
        record.take_state(state, now, wall, self._pools)
        self._note_resistance(record)
        self._mark(record)
        return True

    def state_gone(self, name: str, now: float) -> None:  # noqa: ARG002
        """Take in that a node state is gone; its Node gets a new one."""
        self._tuner.drop_state(name)
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
                self._try_again(self._nodes[name])

    def _write_one_again(self) -> None:
        name = next(iter(self._resisting), None)
        if name is not None:
            self._resisting[name] = self._resisting.pop(name)  # at the end: the next time it is another one's turn
            self._try_again(self._nodes[name])

    def _try_again(self, record: NodeRecord) -> None:
        """Let a node be written once more, whole, with what is on its way: that may be there, and not be seen yet."""
        record.try_again = True
        self._mark(record)

    def _write_again(self, record: NodeRecord) -> None:
        record.forget_open_write()
        record.doubted, record.lost = True, False
        self._try_again(record)

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
        if policy is not None:
            policy.stir()
            if policy.rollout.take_revision(read):
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
            policy.rollout.history_listed()
            policy.touch()
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
        for policy in (self._policies.get(uid) for uid in sorted(self._relisting or ())):
            if policy is None or not policy.rollout.claimed:
                continue
            policy.rollout.fresh = True
            for name in policy.rollout.ledger.carried:
                record = self._nodes.get(name)
                if record is not None and not is_fenced(record, self._epoch):
                    self._try_again(record)
            self._close_all(policy)
            self._mark_all_of(policy)
        self._relisting = None

    def _close_all(self, policy: PolicyRecord) -> None:
        """Where a predecessor may push nobody knows whom, and a smaller budget counts by now, write all once more."""
        if not policy.rollout.closes_all:
            return
        for record in unfenced(self._nodes, policy.facts.uid, self._epoch):
            if not record.is_open:
                self._write_again(record)

    def _mark_all_of(self, policy: PolicyRecord) -> None:
        """Decide all nodes of a policy anew; what its rollout says of them has changed."""
        uid = policy.facts.uid
        policy.touch()
        self._mark_if(lambda record: uid in record.matched or uid in record.holds)

    def _take_ledger(self, policy: PolicyRecord) -> None:
        policy.stir()
        for name in sorted(policy.rollout.take_status(policy.stored.rollout, policy.version, self._epoch)):
            record = self._nodes.get(name)
            if record is not None:
                self._mark(record)

    # Measurements

    def profile_changed(self, profile: ProfileObject, now: float) -> bool:  # noqa: ARG002
        """Take in one MigrationProfile; there is always something to decide."""
        self._tuner.take_profile(profile)
        self._take_profiles()
        return True

    def profile_gone(self, name: str, now: float) -> None:  # noqa: ARG002
        """Take in that a MigrationProfile is gone."""
        self._tuner.drop_profile(name)
        self._take_profiles()

    def profiles_listed(self, names: Collection[str], now: float) -> None:  # noqa: ARG002
        """Take in the end of a whole list: other MigrationProfiles are gone."""
        self._tuner.keep_profiles(names)
        self._take_profiles()

    def _take_profiles(self) -> None:
        """Make of tuned policies what was measured; before all profiles are known that would be half of it."""
        if not self._tuner.listed:
            return
        self._profiles = self._tuner.profiles()
        for uid, policy in self._policies.items():
            if policy.take_profiles(self._profiles):
                self._matching.edited[uid] = None

    # What became of writes

    def write_stored(self, key: WriteKey, generation: int) -> bool:
        """Take in that a write was stored, and its object's generation; return whether there is something to decide."""
        node = self._nodes.get(key.name)
        if key.kind is not WriteKind.STATE_SPEC or node is None or not node.write_stored(generation):
            return False
        self._note_resistance(node)
        self._mark(node)
        return True

    def write_failed(self, key: WriteKey) -> None:
        """Take in that a write did not stick; it is decided anew from what is known then.

        A node state is written in any case: an earlier request of that write may have had no answer, and can arrive
        until a later decision is stored there.
        """
        if key.kind is WriteKind.STATE_SPEC:
            node = self._nodes.get(key.name)
            if node is not None:
                self._write_again(node)
            return
        if key.kind in {WriteKind.PROBE, WriteKind.PROFILE, WriteKind.PROFILE_STATUS}:
            self._tuner.write_failed(key)
            return
        if key.kind is WriteKind.CLASS_HOLD:
            self._stops.forget_open_hold(key.name)
            self._mark_if(lambda _: True)
            return
        if key.kind in {WriteKind.REVISION, WriteKind.REVISION_DELETION}:
            for one in self._policies.values():
                one.rollout.forget_open_revision(key.name)
                one.stir()
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
        self._epoch, self._settling.writer = epoch, Writer(epoch, 0)
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
        """The fleet switch, the node fence, policies, nodes and node states were each read once.

        So were profiles, where a policy has what they say.
        """
        return all(self._listed.values()) and self._tuner.is_known

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
            fence_missing=bool(self._stops.fence_problem),
            corrupt=sum(record.is_corrupt for record in records),
            restores_incomplete=self._restores_incomplete,
            oldest_report_at=min((one.silent_since for one in records if one.selected and one.state_uid), default=None),
        )

    def decide(self, now: float, wall: datetime) -> Decisions:
        """Return what to write now, and when to look again if nothing happens before."""
        if not self._epoch or not self.synced:
            return Decisions()
        self._settling.writer = self._settling.writer.next()
        self._recall()
        for record in self._readiness.forget(now):
            self._mark(record)
        self._match()
        for record in self._alarms.ring(now):
            self._mark(record)
        made = PolicyWrites(
            self._nodes,
            self._stops,
            self._epoch,
            self._history_known,
            self._settings.restore_deadline_seconds,
            now,
            wall,
        )
        for record, hold in self._new_holds():
            made.firsts.append(hold_write(hold))
            made.events.extend(self._tell_of_hold(record, hold))
        specs = self._settle_all(now)
        if self._tuner.due(now) <= now:
            made.statuses.extend(self._tuner.writes(now, wall, self._epoch))
        look_again = min(self._alarms.due, self._readiness.due(now), self._tuner.due(now))
        for policy in self._policies.values():
            if policy.look_at <= now:
                policy.look_at = made.add(policy)
            look_again = min(look_again, policy.look_at)
        self._restores_incomplete += made.restores_incomplete
        specs.sort(key=lambda write: not write.safe)
        return Decisions(
            writes=(*made.firsts, *specs, *made.statuses),
            events=tuple(made.events),
            look_again=None if math.isinf(look_again) else look_again,
            readiness=tuple(self._readiness.unread(now)),
            relist=self._wants_lists(),
        )

    def _recall(self) -> None:
        """Once, at first: take it that a node without a node state has what is to be restored of deleted policies.

        A person may have deleted the node state in mid-restore, and the leader that knew have ended. An agent that has
        nothing to put back says so.
        """
        if self._recalled:
            return
        self._recalled = True
        ending = [policy.facts for policy in self._policies.values() if policy.facts.deleting]
        for record in self._nodes.values() if ending else ():
            if record.uid is not None and record.state_uid is None and not record.spec.groups:
                record.spec = self._pools.spec(left_behind(ending, record.labels))
                self._mark(record)

    def _settle_all(self, now: float) -> list[Write]:
        """Decide all nodes anew that something happened to, and all of them once more when that moves the breaker."""
        writes: dict[str, Write] = {}
        while self._dirty:
            names = list(self._dirty)
            self._dirty.clear()
            for name in names:
                write = self._settling.settle(self._nodes[name], now)
                if write is not None:
                    writes[name] = write
            if self._stops.judge():
                self._mark_if(lambda _: True)
        return list(writes.values())

    def _wants_lists(self) -> bool:
        """Ask for lists that begin now, once, for policies whose ledger another leader has written before us."""
        if self._relisting is not None:
            return False
        stale = (uid for uid, policy in self._policies.items() if policy.rollout.claimed and not policy.rollout.fresh)
        self._relisting = frozenset(stale) or None
        return self._relisting is not None

    def _match(self) -> None:
        """Find the policies of nodes, and the nodes of policies, that changed."""
        if self._matching.edited:
            self._matching.take(record.facts for record in self._policies.values())
            self._settling.policies_moved()
            self._unmatched.update(dict.fromkeys(self._matching.touched(self._nodes)))
            self._matching.edited.clear()
        for name in self._unmatched:
            record = self._nodes[name]
            resolution = self._matching.resolution(record.labels)
            if resolution is not record.resolution:  # other labels may have moved
                record.matched = tuple(policy.uid for policy in resolution.policies)
                record.resolution = resolution
                self._dirty[name] = None
        self._unmatched.clear()

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

    def _mark_everything(self) -> None:
        self._mark_if(lambda _: True)
        for policy in self._policies.values():
            policy.touch()

    def _mark_if(self, concerns: Callable[[NodeRecord], bool]) -> None:
        for record in self._nodes.values():
            if concerns(record):
                self._mark(record)

    def policy_numbers(self) -> Iterator[PolicyNumbers]:
        """Yield what metrics tell of each policy."""
        for policy in self._policies.values():
            yield policy.numbers()
