# SPDX-License-Identifier: Apache-2.0
"""One operator: production's lease holder, informers, feeds, fleet and applier on the simulated clock and network.

What `runtime.Operator` does with tasks is done here with actions: the same parts, wired in the same order. kopf's watch
of policies is an informer whose lists tell nothing of what is gone, as kopf's do not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from random import Random
from typing import Any, Final, NamedTuple

import msgspec

from numamigration_api.machinery.listwatch import ListPage, Wait, Watch
from numamigration_api.vocabulary import LEASE_NAME
from numamigration_operator.cluster.applier import Applier, Limits, Send
from numamigration_operator.cluster.apply_driver import ApplyDriver
from numamigration_operator.cluster.client import Response
from numamigration_operator.cluster.events import EVENTS_PATH, event_body
from numamigration_operator.cluster.informer import (
    NODES,
    POLICIES,
    PROFILES,
    STATES,
    AnyObject,
    Informer,
    control_resource,
    revisions_resource,
)
from numamigration_operator.cluster.lease import Durations, LeaseHolder, LeaseObject, Read, Save
from numamigration_operator.cluster.lease import Request as LeaseRequest
from numamigration_operator.cluster.lease import Rest as LeaseRest
from numamigration_operator.cluster.readiness import OPEN_MAX, REST_SECONDS, ReadinessReader
from numamigration_operator.core.decisions import Patch, Write, WriteKey, WriteKind
from numamigration_operator.core.fleet import Fleet, FleetSettings
from numamigration_operator.core.objects import PolicyObject
from numamigration_operator.feeds import (
    AnswerFeed,
    ControlFeed,
    PolicyFeed,
    RevisionFeed,
    StateFeed,
    node_feed,
    profile_feed,
)
from numamigration_operator.runtime import Relists
from tests.simulation.client import SimClient, carry_on, has_ended
from tests.simulation.clock import Clock, Process
from tests.simulation.network import Network
from tests.simulation.server import LEASES, NAMESPACE, Request

LEASE: Final = Durations(lease=30, renew_deadline=20.0, retry=5.0)
FLEET: Final = FleetSettings(restore_deadline_seconds=120.0, fence_required=False)
"""Agents are their nodes here, and nobody holds the token of another one: the fence is tested on a real API server."""
LIMITS: Final = Limits(requests_open_max=4, rate_per_second=50.0, burst=20)
RESYNC_SECONDS: Final = 60.0
DECIDE_SECONDS: Final = 0.05
"""What the real loop rests at most between two decisions."""
RESTART_SECONDS: Final = (1.0, 5.0)
REWATCH_SECONDS: Final = 1.0

_lease: Final = msgspec.json.Decoder(LeaseObject)


class Tuned(NamedTuple):
    """What an operator runs with; `measures`: some policies may be tuned, so it reads profiles."""

    fleet: FleetSettings = FLEET
    limits: Limits = LIMITS
    lease: Durations = LEASE
    measures: bool = False


class PolicyWatch:
    """kopf's part: tells of policies what its lists have and its watches say."""

    def __init__(self, feed: PolicyFeed) -> None:
        self._feed = feed

    def upsert(self, item: PolicyObject) -> None:
        self._feed.watch_changed(item)

    def gone(self, item: AnyObject) -> None:
        self._feed.watch_gone(item.metadata.uid)

    def list_begun(self) -> None:
        pass

    def listed(self, names: frozenset[str]) -> None:
        pass


class Cut:
    """Cuts a watch off when a list is asked for, as `Informer._until_asked` does with asyncio's timeouts."""

    def __init__(self, process: Process, work: Coroutine[Any, Any, None], then: Callable[[], None]) -> None:
        self._process, self._work, self._then = process, work, then

    def reschedule(self, _when: float) -> None:
        """End the watch now, unless it has ended."""
        self._process.at(self._process.now(), self._cut)

    def _cut(self) -> None:
        if not has_ended(self._work):
            self._work.close()
            self._then()


class SimOperator(Process):
    """One operator, life after life.

    Attributes:
        name: of the replica.
        fleet: of this life.
        identity: of this life.
        epoch: of this life as a leader; 0 before.
        on_step: told of steps that nobody else sees.
    """

    def __init__(self, clock: Clock, network: Network, rng: Random, name: str, tuned: Tuned | None = None) -> None:
        super().__init__(clock)
        self.name, self._network, self._rng = name, network, rng
        self._tuned = tuned or Tuned()
        self.on_step: Callable[[str], None] = _unheard
        self.client = SimClient(network, self, name)
        self.epoch = 0

    # --- lives

    def start(self) -> None:
        """Start a life with nothing in its memory."""
        self._network.drop_all(self.name)
        self.begin()
        self.identity, self.epoch = f"{self.name}_{self.lives}", 0
        self.fleet = Fleet(self._tuned.fleet)
        self.holder = LeaseHolder(self.identity, self._tuned.lease, self._rng)
        self.applier = Applier(self._tuned.limits, self._rng)
        self._policies = PolicyFeed(self.fleet, self, on_listed=self._policies_listed)
        self._states, self._revisions = StateFeed(self.fleet, self), RevisionFeed(self.fleet, self)
        self._applies = ApplyDriver(
            self.client,
            self.applier,
            home=NAMESPACE,
            on_stored=AnswerFeed(self.fleet, self, self._policies, self._revisions, self._states).stored,
            on_failure=self._write_failed,
            on_skew=self._write_skewed,
            on_fenced=self._lose,
            may_send=self.holds,
            clock=self.now,
        )
        self._applying_at = self._deciding_at = float("inf")
        self._leasing, self._reading = 0, False
        self._lease_open = False
        self._readiness = ReadinessReader(self.client, lambda _name, _ready: None)
        self._asked: deque[str] = deque()
        self._reads_open = 0
        self.at(self.now(), self._keep_lease)

    def crash(self, seconds: float) -> None:
        """End at this very moment; another life starts later."""
        self.end()
        self._network.drop_all(self.name)
        self.clock.after(seconds, lambda: None if self.alive else self.start())

    def terminate(self) -> None:
        """End as after a signal: send nothing more, and give the lease back if nothing of ours can still arrive."""
        if self.applier.open == 0 and not self._lease_open:
            step = self.holder.release(self.now(), self.wall())
            if isinstance(step, Save):
                self._network.send(self, self._lease_request(step), lambda _: None)
        self.crash(self._rng.uniform(*RESTART_SECONDS))

    def holds(self) -> bool:
        """Return whether this life may act now."""
        return self.holder.holds(self.now())

    def _lose(self, reason: str) -> None:
        self.holder.lose(reason)
        self.at(self.now(), self._keep_lease)

    # --- the lease

    def _keep_lease(self) -> None:
        if self.holder.lost(self.now()):
            self.crash(self._rng.uniform(*RESTART_SECONDS))
            return
        if self._lease_open:
            return
        step = self.holder.next(self.now(), self.wall())
        if isinstance(step, LeaseRest):
            self._leasing += 1
            number = self._leasing
            self.at(step.until, lambda: self._keep_lease() if number == self._leasing else None)
            return
        self._lease_open = True
        patience = max(0.0, step.give_up_at - self.now())
        self._network.send(self, self._lease_request(step), lambda answer: self._leased(step, answer), patience)

    def _lease_request(self, step: LeaseRequest) -> Request:
        path, now = f"{LEASES}/{LEASE_NAME}", self.now()
        match step:
            case Read():
                return Request(self.name, "GET", path, {}, b"", "", now)
            case Save(resource_version=None):
                return Request(self.name, "POST", LEASES, {}, step.body, "", now, self.lives)
            case Save():
                return Request(self.name, "PATCH", path, {}, step.body, Patch.MERGE, now, self.lives)

    def _leased(self, step: LeaseRequest, answer: Response | None) -> None:
        self._lease_open = False
        if answer is None:
            self.holder.unanswered(self.now())
        else:
            lease = _lease.decode(answer.body) if answer.status < 300 else None
            self.holder.answered(step, answer.status, lease, self.now())
        if self.holder.leads and not self._reading:
            self._reading = True
            self._read_all()
        if self.holder.claimed is not None and not self.epoch:
            self.epoch = self.holder.claimed
            self.fleet.lead(self.epoch)
            self.changed()
        self._keep_lease()

    # --- readers

    def _read_all(self) -> None:
        control = ControlFeed(self.fleet, self)
        self.informers: dict[str, Informer[Any]] = {
            "control": self._informer(control_resource(NAMESPACE), control, on_forbidden=control.forbidden),
            "revisions": self._informer(revisions_resource(NAMESPACE), self._revisions),
            "nodes": self._informer(NODES, node_feed(self.fleet, self)),
            "states": self._informer(STATES, self._states),
            "policy lists": self._informer(POLICIES, self._policies, relist_seconds=RESYNC_SECONDS),
        }
        if self._tuned.measures:
            self.informers["profiles"] = self._informer(PROFILES, profile_feed(self.fleet, self))
        self._relists = Relists([self.informers["nodes"], self.informers["states"]])
        self._watching = 0
        for name in self.informers:
            self._read(name)

    def _informer(self, resource: Any, sink: Any, **more: Any) -> Informer[Any]:
        return Informer(self.client, resource, sink, self._rng, clock=self.now, **more)

    def _read(self, name: str, informer: Informer[Any] | None = None) -> None:
        """Do the next step of an informer, and the next ones after it."""
        informer = informer or self.informers[name]
        if self.informers.get(name) is not informer:
            return  # a watch of policies that was blind

        def again() -> None:
            self._read(name, informer)

        if informer._list_asked and not informer._list_open:
            informer.machine.list_again()
        match informer.machine.next(self.now()):
            case Wait(until=until):
                self.at(until, again)
            case ListPage() as page:
                carry_on(informer._guarded(informer._list_page(page)), again)
            case Watch() as watch if informer.relist_seconds is None:
                work = informer._guarded(informer._watch(watch))
                informer._rest = Cut(self, work, again)  # type: ignore[assignment] # in place of asyncio.Timeout
                carry_on(work, again)
            case Watch():
                self.at(self.now() + (informer.relist_seconds or 0.0), lambda: self._list_again(name))

    def _list_again(self, name: str) -> None:
        self.informers[name].machine.list_again()
        self._read(name)

    def _policies_listed(self, blind: bool) -> None:
        if self._watching and not blind:
            return
        self._watching += 1
        wait = REWATCH_SECONDS if self._watching > 1 else 0.0
        self.informers.pop("policy watch", None)
        self.at(self.now() + wait, self._watch_policies)

    def _watch_policies(self) -> None:
        self._policies.watch_begun()
        self.informers["policy watch"] = self._informer(POLICIES, PolicyWatch(self._policies))
        self._read("policy watch")

    # --- decisions

    def changed(self) -> None:
        """Mark that something changed: decide soon."""
        self._decide_at(self.now() + DECIDE_SECONDS * self._rng.random())

    def _decide_at(self, when: float) -> None:
        if when < self._deciding_at:
            self._deciding_at = when
            self.at(when, lambda: self._decide() if self._deciding_at == when else None)

    def _decide(self) -> None:
        self._deciding_at = float("inf")
        if not self.epoch:
            if self.fleet.synced:
                self.holder.claim(self.fleet.greatest_epoch)
                self._keep_lease()
            return
        if self._relists.are_over():
            self.fleet.relisted(self.now())
            self.on_step("relist")
        decisions = self.fleet.decide(self.now(), self.wall())
        self.applier.submit(decisions.writes, self.now())
        if decisions.relist:
            self._relists.ask()
        self._ask_readiness(decisions.readiness)
        for wish in decisions.events:
            body = msgspec.json.encode(
                event_body(wish, self.wall(), instance=self.identity, suffix=f"{self._network.count():x}")
            )
            request = Request(self.name, "POST", EVENTS_PATH, {}, body, "", self.now())
            if self.holds():
                self._network.send(self, request, lambda _: None)
        if decisions.look_again is not None:
            self._decide_at(max(decisions.look_again, self.now() + DECIDE_SECONDS))
        self._apply()

    # --- readiness

    def _ask_readiness(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self._asked:
                self._asked.append(name)
        while self._asked and self._reads_open < OPEN_MAX:
            self._reads_open += 1
            self._read_ready(self._asked.popleft())

    def _read_ready(self, name: str) -> None:
        def read(ready: bool | None) -> None:
            self.fleet.node_ready(name, ready, self.now())
            self.changed()

        async def ask() -> None:
            ready, _ = await self._readiness._read(name)
            read(ready)

        carry_on(ask(), lambda: self.at(self.now() + REST_SECONDS, self._rested))

    def _rested(self) -> None:
        self._reads_open -= 1
        self._ask_readiness(())

    # --- writes

    def _apply(self) -> None:
        self._applying_at = float("inf")
        while isinstance(step := self.applier.next(self.now()), Send):
            carry_on(self._applies._send(step), self._apply)
        if step.until is not None and step.until < self._applying_at:
            when = self._applying_at = step.until
            self.at(when, lambda: self._apply() if self._applying_at == when else None)

    def _write_failed(self, key: WriteKey) -> None:
        self.fleet.write_failed(key)
        self.changed()

    def _write_skewed(self, write: Write, message: str) -> None:
        if write.key.kind is WriteKind.STATE_SPEC:
            self.fleet.write_skewed(write.key.name, message)
            self.changed()


def _unheard(_step: str) -> None:
    pass
