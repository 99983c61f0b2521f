# SPDX-License-Identifier: Apache-2.0
"""What the readers found, told to the fleet: one small sink for each kind of object.

Policies come by two ways. kopf's watch is quick, and says neither when its list is complete nor that it died; a plain
list, again and again, is the truth, and is a moment old when it arrives. What the watch told while a list was open is
newer than the list, or will be repeated by the watch: it wins over the list. Otherwise a policy that was deleted
meanwhile would come back, and be pushed to nodes.

Answers to our own writes are told too, since a watch may be late. One that could be older than what is known by other
ways is left out: the object may have been deleted since, and what is true will be told by list or watch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Final, Generic, Protocol, TypeVar

import msgspec

from numamigration_operator.cluster.informer import AnyObject
from numamigration_operator.core.decisions import Decisions, Write, WriteKey, WriteKind
from numamigration_operator.core.fleet import FleetSnapshot
from numamigration_operator.core.fleet_switch import Control, read_control, unreadable
from numamigration_operator.core.numbers import PolicyNumbers
from numamigration_operator.core.objects import (
    ConfigMapObject,
    NodeObject,
    PolicyObject,
    ProfileObject,
    RevisionObject,
    StateObject,
    is_older,
)
from numamigration_operator.watch_check import WatchCheck

log = logging.getLogger(__name__)

Item = TypeVar("Item")

_ANSWERS: Final[Mapping[WriteKind, msgspec.json.Decoder[AnyObject | PolicyObject | RevisionObject]]] = {
    WriteKind.STATE_SPEC: msgspec.json.Decoder(AnyObject),
    WriteKind.POLICY_STATUS: msgspec.json.Decoder(PolicyObject),
    WriteKind.REVISION: msgspec.json.Decoder(RevisionObject),
}


class FleetLike(Protocol):
    """What the edges know of ``core.fleet.Fleet``. All calls come from one event loop; `now` is monotonic."""

    def control_changed(self, control: Control, now: float) -> None:
        """The fleet switch is as given."""

    def fence_read(self, problem: str, now: float) -> None:
        """The node fence was looked at; `problem` says why it does not stand."""

    @property
    def synced(self) -> bool:
        """Every kind of object has been read once."""

    @property
    def greatest_epoch(self) -> int:
        """The greatest leader epoch of any object."""

    def lead(self, epoch: int) -> None:
        """This process leads, with this epoch."""

    def write_skewed(self, name: str, message: str) -> None:
        """The CRD does not know a field of this node's spec."""

    def policies_listed(self, policies: Iterable[PolicyObject], now: float) -> None:
        """These policies exist, and no others."""

    def policy_changed(self, policy: PolicyObject, now: float) -> None:
        """A policy is as given."""

    def policy_gone(self, uid: str, now: float) -> None:
        """A policy was deleted."""

    def node_changed(self, node: NodeObject, now: float) -> bool:
        """A node is as given; returns whether there is something to decide."""

    def node_gone(self, name: str, now: float) -> None:
        """A node was deleted."""

    def nodes_listed(self, names: frozenset[str], now: float) -> None:
        """These nodes exist, and no others."""

    def state_changed(self, state: StateObject, now: float, wall: datetime) -> bool:
        """A node state is as given; returns whether there is something to decide."""

    def state_gone(self, name: str, now: float) -> None:
        """A node state was deleted."""

    def states_listed(self, names: frozenset[str], now: float) -> None:
        """These node states exist, and no others."""

    def relisted(self, now: float) -> None:
        """Nodes and node states were listed once more, by lists that began after the last decision that asked for it.

        What they found was told before. Of several decisions that ask the last one counts: ask once, and wait.
        """

    def node_ready(self, name: str, ready: bool | None, now: float) -> None:
        """A Node's Ready condition was read; None: it says Unknown or nothing, the Node is gone, or no answer came."""

    def revision_changed(self, revision: RevisionObject, now: float) -> None:
        """A ControllerRevision of a policy is as given."""

    def revision_gone(self, name: str, now: float) -> None:
        """A ControllerRevision was deleted."""

    def revisions_listed(self, names: frozenset[str], now: float) -> None:
        """These ControllerRevisions exist, and no others."""

    def profile_changed(self, profile: ProfileObject, now: float) -> bool:
        """A MigrationProfile is as given; returns whether there is something to decide."""

    def profile_gone(self, name: str, now: float) -> None:
        """A MigrationProfile was deleted."""

    def profiles_listed(self, names: frozenset[str], now: float) -> None:
        """These MigrationProfiles exist, and no others."""

    def decide(self, now: float, wall: datetime) -> Decisions:
        """What is to be done now."""

    def write_stored(self, key: WriteKey, generation: int) -> bool:
        """A write was stored, its object has this generation now; returns whether there is something to decide."""

    def write_failed(self, key: WriteKey) -> None:
        """A write was not stored as it was decided."""

    def snapshot(self) -> FleetSnapshot:
        """Counts for metrics."""

    def policy_numbers(self) -> Iterable[PolicyNumbers]:
        """Each policy's numbers for metrics."""


class Clock(Protocol):
    """Both times, and who wants to know that something changed."""

    def now(self) -> float:
        """Monotonic seconds."""

    def wall(self) -> datetime:
        """Time of day, timezone-aware."""

    def changed(self) -> None:
        """The fleet heard something: decide soon."""


class ControlFeed:
    """The fleet switch for the fleet.

    Attributes:
        said: what the fleet was told last.
    """

    def __init__(self, fleet: FleetLike, clock: Clock) -> None:
        self.said = Control()
        self._fleet = fleet
        self._clock = clock

    def upsert(self, item: ConfigMapObject) -> None:
        """The control ConfigMap exists."""
        self._tell(read_control(item))

    def gone(self, _item: AnyObject) -> None:
        """The control ConfigMap was deleted."""
        self._tell(read_control(None))

    def list_begun(self) -> None:
        """Nothing else tells of it, so there is nothing to keep."""

    def listed(self, names: frozenset[str]) -> None:
        """A list that does not have it says that there is none."""
        if not names:
            self._tell(read_control(None))

    def forbidden(self, message: str) -> None:
        """We may not read it, so nobody knows what people want."""
        self._tell(unreadable(message))

    def _tell(self, control: Control) -> None:
        if control != self.said:
            level = logging.WARNING if control.problem else logging.INFO
            log.log(level, "fleet switch", extra={"switch": control.switch, "problem": control.problem})
            self.said = control
        self._fleet.control_changed(control, self._clock.now())
        self._clock.changed()


class PlainFeed(Generic[Item]):
    """Objects of which nothing else tells than list and watch, such as Nodes and MigrationProfiles, for the fleet.

    Args:
        changed, gone, listed: of the fleet.
        clock: whose time they get.
    """

    def __init__(
        self,
        changed: Callable[[Item, float], bool],
        gone: Callable[[str, float], None],
        listed: Callable[[frozenset[str], float], None],
        clock: Clock,
    ) -> None:
        self._changed: Callable[[Item, float], bool] = changed
        self._gone, self._listed = gone, listed
        self._clock = clock

    def upsert(self, item: Item) -> None:
        """An object exists."""
        if self._changed(item, self._clock.now()):
            self._clock.changed()

    def gone(self, item: AnyObject) -> None:
        """An object was deleted."""
        self._gone(item.metadata.name, self._clock.now())
        self._clock.changed()

    def list_begun(self) -> None:
        """Nothing else tells of them, so there is nothing to keep."""

    def listed(self, names: frozenset[str]) -> None:
        """Only these objects exist."""
        self._listed(names, self._clock.now())
        self._clock.changed()


def node_feed(fleet: FleetLike, clock: Clock) -> PlainFeed[NodeObject]:
    """Return what tells the fleet of Nodes."""
    return PlainFeed(fleet.node_changed, fleet.node_gone, fleet.nodes_listed, clock)


def profile_feed(fleet: FleetLike, clock: Clock) -> PlainFeed[ProfileObject]:
    """Return what tells the fleet of MigrationProfiles."""
    return PlainFeed(fleet.profile_changed, fleet.profile_gone, fleet.profiles_listed, clock)


class StateFeed:
    """Node states for the fleet.

    What the watch tells of a node after the answer to our own write, and is older than that answer, is skipped: it
    would look like somebody else's edit, and the write like one that was overwritten. A list is the truth, but for
    answers that came after it had begun.
    """

    def __init__(self, fleet: FleetLike, clock: Clock) -> None:
        self._fleet = fleet
        self._clock = clock
        self._answered: dict[str, str] = {}  # resource version of the answer that the watch has not caught up with

    def stored(self, name: str, version: str) -> None:
        """A node state that we wrote was answered with this version."""
        known = self._answered.get(name)
        if known is None or is_older(known, version):
            self._answered[name] = version

    def _is_late(self, item: StateObject | AnyObject) -> bool:
        meta = item.metadata
        answered = self._answered.get(meta.name)
        if answered is None:
            return False
        late = is_older(meta.resource_version, answered)
        if not late:
            del self._answered[meta.name]
        return late

    def upsert(self, item: StateObject) -> None:
        """A node state exists."""
        if self._is_late(item):
            return
        if self._fleet.state_changed(item, self._clock.now(), self._clock.wall()):
            self._clock.changed()

    def gone(self, item: AnyObject) -> None:
        """A node state was deleted."""
        if self._is_late(item):  # and created anew since
            return
        self._fleet.state_gone(item.metadata.name, self._clock.now())
        self._clock.changed()

    def list_begun(self) -> None:
        """What was answered before is in the list, or was taken back since, as by a restored backup."""
        self._answered.clear()

    def listed(self, names: frozenset[str]) -> None:
        """Only these node states exist."""
        self._fleet.states_listed(names, self._clock.now())
        self._clock.changed()


class RevisionFeed:
    """ControllerRevisions for the fleet, from list and watch and from answers to our own writes."""

    def __init__(self, fleet: FleetLike, clock: Clock) -> None:
        self._fleet = fleet
        self._clock = clock
        self._listing = True
        self._told = "0"  # greatest resource version that list or watch told, deletions included

    def upsert(self, item: RevisionObject) -> None:
        """A ControllerRevision exists."""
        self._heard(item.metadata.resource_version)
        self._fleet.revision_changed(item, self._clock.now())
        self._clock.changed()

    def gone(self, item: AnyObject) -> None:
        """A ControllerRevision was deleted."""
        self._heard(item.metadata.resource_version)
        self._fleet.revision_gone(item.metadata.name, self._clock.now())
        self._clock.changed()

    def list_begun(self) -> None:
        """Versions count from here: after a restored backup of etcd they begin again below what was seen."""
        self._listing, self._told = True, "0"

    def listed(self, names: frozenset[str]) -> None:
        """Only these ControllerRevisions exist."""
        self._listing = False
        self._fleet.revisions_listed(names, self._clock.now())
        self._clock.changed()

    def stored(self, item: RevisionObject) -> None:
        """A ControllerRevision that we applied was answered with this."""
        version = item.metadata.resource_version
        if not self._listing and is_older(self._told, version):
            self._fleet.revision_changed(item, self._clock.now())
            self._clock.changed()

    def _heard(self, version: str) -> None:
        self._told = version if is_older(self._told, version) else self._told


class PolicyFeed:
    """Policies for the fleet, from lists and from kopf's watch.

    Args:
        on_listed: told after each complete list, with whether the watch is blind (``watch_check``).
    """

    def __init__(self, fleet: FleetLike, clock: Clock, on_listed: Callable[[bool], None]) -> None:
        self._check = WatchCheck()
        self._fleet = fleet
        self._clock = clock
        self._on_listed = on_listed
        self._list: dict[str, PolicyObject] | None = None
        self._watched: dict[str, PolicyObject | None] = {}
        self._known: set[str] = set()

    def list_begun(self) -> None:
        """A list is open from now on."""
        self._list, self._watched = {}, {}

    def upsert(self, item: PolicyObject) -> None:
        """The open list has this policy."""
        if self._list is not None:
            self._list[item.metadata.uid] = item

    def gone(self, item: AnyObject) -> None:
        """Deletions come by `watch_gone`: lists have none."""
        self.watch_gone(item.metadata.uid)

    def listed(self, names: frozenset[str]) -> None:  # noqa: ARG002 - a policy that cannot be read ends the list
        """The list is complete."""
        versions = {uid: policy.metadata.resource_version for uid, policy in (self._list or {}).items()}
        merged = {**(self._list or {}), **self._watched}
        self._list, self._watched = None, {}
        existing = [policy for policy in merged.values() if policy is not None]
        self._known = {policy.metadata.uid for policy in existing}
        self._fleet.policies_listed(existing, self._clock.now())
        self._clock.changed()
        self._on_listed(self._check.is_blind(versions))

    def watch_begun(self) -> None:
        """A new watch begins, and will tell of every policy."""
        self._check.begun()

    def watch_changed(self, policy: PolicyObject) -> None:
        """The watch told that a policy is so."""
        self._check.told(policy.metadata.uid, policy.metadata.resource_version)
        self._known.add(policy.metadata.uid)
        self._remember(policy.metadata.uid, policy)
        self._fleet.policy_changed(policy, self._clock.now())
        self._clock.changed()

    def watch_gone(self, uid: str) -> None:
        """The watch told that a policy was deleted."""
        self._check.told_gone(uid)
        self._known.discard(uid)
        self._remember(uid, None)
        self._fleet.policy_gone(uid, self._clock.now())
        self._clock.changed()

    def stored(self, policy: PolicyObject) -> None:
        """A status that we wrote was answered with this policy."""
        if self._list is None and policy.metadata.uid in self._known:
            self._fleet.policy_changed(policy, self._clock.now())
            self._clock.changed()

    def _remember(self, uid: str, policy: PolicyObject | None) -> None:
        if self._list is not None:
            self._watched[uid] = policy


class AnswerFeed:
    """Answers to our own writes for the fleet, of those kinds for which the next decision waits."""

    def __init__(
        self, fleet: FleetLike, clock: Clock, policies: PolicyFeed, revisions: RevisionFeed, states: StateFeed
    ) -> None:
        self._fleet = fleet
        self._clock = clock
        self._states = states
        self._policies = policies
        self._revisions = revisions

    def stored(self, write: Write, body: bytes) -> None:
        """A write was stored; `body` is its object as it is now."""
        decoder = _ANSWERS.get(write.key.kind)
        if decoder is None:
            return
        try:
            stored = decoder.decode(body)
        except msgspec.DecodeError:  # no API server answers so, or one of a newer release; the watch will tell
            return
        match stored:
            case PolicyObject():
                self._policies.stored(stored)
            case RevisionObject():
                self._revisions.stored(stored)
            case AnyObject():
                self._states.stored(write.key.name, stored.metadata.resource_version)
                if self._fleet.write_stored(write.key, stored.metadata.generation):
                    self._clock.changed()
