# SPDX-License-Identifier: Apache-2.0
"""The operator process: wires readers, fleet and writers on one event loop, and ends well.

* Nothing but the Lease is read or written before this process holds it; nothing else is written before its epoch stands
  there. A lost Lease, or a write that the API server's fence refused, ends the process with exit code 3.
* The fleet is touched on this loop only. Readers mark that something changed; one loop decides, and rests in proportion
  to what that cost: a small fleet is answered at once, and to a large one a burst of events is one decision.
* A signal ends everything within a second or two, exit code 0: nothing needs saving, the next look at the objects
  goes on. The Lease is given back once nothing of ours can arrive at the API server any more.
* A task that ends by itself ends the process with exit code 1 and a line that names it. It never limps.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Collection, Coroutine
from datetime import UTC, datetime
from random import Random
from typing import Any, Final

import msgspec

from numamigration_api.machinery.conditions import shorten
from numamigration_api.vocabulary import Reason
from numamigration_operator.cluster.api_call import Observer
from numamigration_operator.cluster.applier import Applier, Limits
from numamigration_operator.cluster.apply_driver import ApplyDriver
from numamigration_operator.cluster.bell import Bell
from numamigration_operator.cluster.client import Client
from numamigration_operator.cluster.events import EventPoster
from numamigration_operator.cluster.fence import FenceReader
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
from numamigration_operator.cluster.lease import Durations, LeaseHolder
from numamigration_operator.cluster.lease_driver import LeaseDriver, NotLeadingError
from numamigration_operator.cluster.readiness import ReadinessReader
from numamigration_operator.core.decisions import EventWish, Write, WriteKey, WriteKind
from numamigration_operator.feeds import (
    AnswerFeed,
    ControlFeed,
    FleetLike,
    PolicyFeed,
    RevisionFeed,
    StateFeed,
    node_feed,
    profile_feed,
)
from numamigration_operator.handlers import WatchSupervisor, WatchThread, policy_registry
from numamigration_operator.health import Facts, ReaderFacts, serve_health
from numamigration_operator.metrics import Exposition, FleetNumbers, Metrics, Numbers, ReaderNumbers
from numamigration_operator.settings import OperatorSettings

log = logging.getLogger(__name__)

REST_PER_COST: Final = 10
"""So deciding takes at most an eleventh of the loop, which has answers and watches to read."""
REST_SECONDS_MAX: Final = 0.05
"""However dear a decision: no person notices, and bursts of thousands of reports are long gathered by then."""
REST_SPARED_SECONDS: Final = 0.1
"""So much may stay owed: the few decisions that bring one edit to its first nodes do not wait for one another."""
STOP_SECONDS_MAX: Final = 3.0
"""For all tasks to end; what has not ended by then is left behind."""
EXIT_CRASHED: Final = 1
EXIT_NOT_LEADING: Final = 3

_metadata: Final = msgspec.json.Decoder(AnyObject)


class Pulse:
    """Both clocks, and the mark that something changed.

    Attributes:
        changed_at: when the first change came since the last `take_changes`; None when there was none.
    """

    def __init__(self) -> None:
        self.changed_at: float | None = None
        self._bell = Bell(self.now)

    def now(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    def wall(self) -> datetime:
        """Return the time of day, in UTC."""
        return datetime.now(UTC)

    def changed(self) -> None:
        """Mark that something changed."""
        if self.changed_at is None:
            self.changed_at = self.now()
        self._bell.ring()

    def take_changes(self) -> float | None:
        """Return how long the oldest change has been waiting; from here on it is decided."""
        since, self.changed_at = self.changed_at, None
        return None if since is None else self.now() - since

    async def next_change(self, until: float | None) -> None:
        """Wait for a mark, or until a time; clears the mark."""
        await self._bell.wait(until)

    async def rest(self, seconds: float) -> None:
        """Let time pass; marks are kept."""
        await asyncio.sleep(seconds)


async def decide_again_and_again(pulse: Pulse, decide: Callable[[], float | None]) -> None:
    """Decide now, and after each change, and when the last decision asked for it.

    Args:
        pulse: tells of changes and times.
        decide: returns when to decide again without a change (monotonic seconds; None: not at all).
    """
    look_again: float | None = pulse.now()
    ended, owed = pulse.now(), 0.0
    while True:
        await pulse.next_change(look_again)
        begun = pulse.now()
        look_again = decide()
        owed = max(0.0, owed - (begun - ended))  # time in which nothing was decided is rest, too
        ended = pulse.now()
        owed = min(owed + REST_PER_COST * (ended - begun), REST_SPARED_SECONDS + REST_SECONDS_MAX)
        await pulse.rest(max(0.0, owed - REST_SPARED_SECONDS))


class Relists:
    """Lists of several readers that are asked for together."""

    def __init__(self, readers: Collection[Informer[Any]]) -> None:
        self._readers = readers
        self._awaited: list[tuple[Informer[Any], int]] = []

    def ask(self) -> None:
        """Let each reader list once more; of several calls the last one counts."""
        self._awaited = [(reader, reader.relist()) for reader in self._readers]

    def are_over(self) -> bool:
        """Return, once after each call, that lists which began after it are complete."""
        over = bool(self._awaited) and all(reader.list_ended >= number for reader, number in self._awaited)
        if over:
            self._awaited = []
        return over


class Operator:
    """Everything between the API server and the fleet."""

    def __init__(
        self, settings: OperatorSettings, client: Client, fleet: FleetLike, rng: Random, metrics: Metrics
    ) -> None:
        self._fleet = fleet
        self._metrics = metrics
        self._pulse = Pulse()
        identity = settings.identity
        durations = Durations(
            settings.lease_duration_seconds, settings.lease_renew_deadline_seconds, settings.lease_retry_seconds
        )
        self._holder = LeaseHolder(identity, durations, rng)
        self._lease = LeaseDriver(client, self._holder, settings.home_namespace)
        self._lease_seconds = settings.lease_duration_seconds
        self._leading_since: float | None = None
        self._synced = False
        self._events = EventPoster(client, self._pulse.wall, instance=identity, may_send=self._lease.holds)
        self._policies = PolicyFeed(fleet, self._pulse, on_listed=self._policies_listed)
        revisions, states = RevisionFeed(fleet, self._pulse), StateFeed(fleet, self._pulse)
        limits = Limits(settings.apply_requests_open_max, settings.apply_rate_per_second, settings.apply_burst)
        self._applier = Applier(limits, rng)
        self._applies = ApplyDriver(
            client,
            self._applier,
            home=settings.home_namespace,
            on_stored=AnswerFeed(fleet, self._pulse, self._policies, revisions, states).stored,
            on_failure=self._write_failed,
            on_skew=self._write_skewed,
            on_fenced=self._lease.lose,
            may_send=self._lease.holds,
        )
        self._watch = WatchSupervisor(
            lambda deliver: WatchThread(policy_registry(client, deliver)),
            on_begin=self._policies.watch_begun,
            on_change=self._policies.watch_changed,
            on_gone=self._policies.watch_gone,
            rng=rng,
        )
        self._readiness = ReadinessReader(client, self._readiness_read)
        self._fence = FenceReader(client, settings.home_namespace, self._fence_read)
        self._fence_required = settings.fence_required
        self._control = control = ControlFeed(fleet, self._pulse)
        self._readers: dict[str, Informer[Any]] = {
            "fleet switch": Informer(
                client, control_resource(settings.home_namespace), control, rng, on_forbidden=control.forbidden
            ),
            "revisions": Informer(client, revisions_resource(settings.home_namespace), revisions, rng),
            "nodes": Informer(client, NODES, node_feed(fleet, self._pulse), rng),
            "node states": Informer(client, STATES, states, rng),
            "profiles": Informer(client, PROFILES, profile_feed(fleet, self._pulse), rng),
            "policy lists": Informer(client, POLICIES, self._policies, rng, settings.policy_resync_seconds),
        }
        self._relists = Relists([self._readers["nodes"], self._readers["node states"]])

    async def run(self) -> int:
        """Run until a signal comes, the Lease is lost or a task ends by itself; return the exit code."""
        works = {
            **{name: reader.run for name, reader in self._readers.items()},
            "policy watch": self._watch.run,
            "decisions": self._lead,
            "applier": self._applies.run,
            "events": self._events.run,
            "readiness": self._readiness.run,
        }
        if self._fence_required:
            works["node fence"] = self._fence.run
        else:
            log.warning("nobody looks whether agents are fenced", extra={"advice": "see the setting fence_required"})
        code = await supervise(
            [
                asyncio.create_task(self._lease.run(), name="lease"),
                *(asyncio.create_task(self._once_leading(work), name=name) for name, work in works.items()),
            ]
        )
        if self._applies.drained:
            await self._lease.release()
        return code

    async def _once_leading(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        await self._lease.leading()
        await work()

    def facts(self) -> Facts:
        """Return what the health checks are made from."""
        return Facts(
            now=self._pulse.now(),
            contact=self._lease.contact,
            lease_seconds=self._lease_seconds,
            leading_since=self._leading_since,
            holds=self._lease.holds(),
            synced=self._synced,
            readers=tuple(
                ReaderFacts(name, reader.machine.last_activity, reader.relist_seconds or 0.0)
                for name, reader in self._readers.items()
            ),
        )

    async def scrape(self, accept: str) -> Exposition:
        """Return the metrics, in the format that the HTTP header Accept asks for."""
        return await self._metrics.scrape(self.numbers, accept)

    def numbers(self) -> Numbers:
        """Return what metrics are made from."""
        return Numbers(
            now=self._pulse.now(),
            leads=self._lease.holds(),
            epoch=self._holder.claimed,
            lease_renewals=self._holder.renewals,
            lease_transitions=self._holder.transitions,
            fleet=self._fleet_numbers() if self._synced else None,
            changed_at=self._pulse.changed_at,
            writes_waiting=self._applier.waiting,
            requests_open=self._applier.open,
            write_results=dict(self._applier.counts),
            readers=tuple(
                ReaderNumbers(name, reader.lists, reader.failures, reader.machine.last_activity or None)
                for name, reader in self._readers.items()
            ),
            watch_ends=self._watch.ends,
            events_posted=self._events.posted,
            events_dropped=self._events.dropped,
        )

    def _fleet_numbers(self) -> FleetNumbers:
        return FleetNumbers(
            counts=self._fleet.snapshot(),
            switch=self._control.said.switch,
            policies=tuple(self._fleet.policy_numbers()),
        )

    async def _take_over(self) -> None:
        self._leading_since = self._pulse.now()
        while not self._fleet.synced:
            await self._pulse.next_change(None)
        # On the Lease first, before any other object has it: whoever comes later takes a greater one.
        epoch = await self._lease.claim(self._fleet.greatest_epoch)
        self._fleet.lead(epoch)
        self._synced = True
        log.info("ready: policies, nodes and node states are known", extra={"epoch": epoch})

    async def _lead(self) -> None:
        await self._take_over()
        await decide_again_and_again(self._pulse, self._decide)

    def _decide(self) -> float | None:
        if self._relists.are_over():
            self._fleet.relisted(self._pulse.now())
        begun, delay = self._pulse.now(), self._pulse.take_changes()
        decisions = self._fleet.decide(begun, self._pulse.wall())
        self._metrics.decided(seconds=self._pulse.now() - begun, delay=delay)
        if decisions.writes:
            self._applies.submit(decisions.writes)
        if decisions.relist:
            self._relists.ask()
        self._readiness.ask(decisions.readiness)
        for wish in decisions.events:
            self._events.post(wish)
        return decisions.look_again

    def _readiness_read(self, name: str, ready: bool | None) -> None:
        self._fleet.node_ready(name, ready, self._pulse.now())
        self._pulse.changed()

    def _fence_read(self, problem: str) -> None:
        self._fleet.fence_read(problem, self._pulse.now())
        self._pulse.changed()

    def _policies_listed(self, blind: bool) -> None:
        self._watch.policies_listed(blind)

    def _write_failed(self, key: WriteKey) -> None:
        self._fleet.write_failed(key)
        self._pulse.changed()

    def _write_skewed(self, write: Write, message: str) -> None:
        if write.key.kind is WriteKind.STATE_SPEC:
            self._fleet.write_skewed(write.key.name, message)
            self._pulse.changed()
        elif write.key.kind in {WriteKind.POLICY_STATUS, WriteKind.POLICY_FINALIZER}:
            uid = _metadata.decode(write.body).metadata.uid
            self._events.post(EventWish(write.key.name, uid, True, Reason.VERSION_SKEW, shorten(message)))


async def supervise(tasks: list[asyncio.Task[None]]) -> int:
    """Wait for a signal or for the end of any task; end the others; return the exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    stopped = asyncio.create_task(stop.wait(), name="signal")
    everything: list[asyncio.Task[Any]] = [stopped, *tasks]
    await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
    crashed = [task for task in tasks if task.done()]
    code = max((_ended(task) for task in crashed), default=0)
    if not crashed:
        log.info("stopping")
    for task in everything:
        task.cancel()
    await asyncio.wait(everything, timeout=STOP_SECONDS_MAX)
    return code


def _ended(task: asyncio.Task[None]) -> int:
    error = _error(task)
    if isinstance(error, NotLeadingError):
        log.error(
            "not leading any more; the process ends, and stands by when it starts again", extra={"why": str(error)}
        )
        return EXIT_NOT_LEADING
    log.critical("task ended by itself; the process ends", extra={"task": task.get_name()}, exc_info=error)
    return EXIT_CRASHED


def _error(task: asyncio.Task[None]) -> BaseException | None:
    return None if task.cancelled() else task.exception()


async def operate(
    settings: OperatorSettings, connect: Callable[[Observer], Coroutine[Any, Any, Client]], fleet: FleetLike
) -> int:
    """Run the operator; return the exit code.

    Args:
        settings: of the process.
        connect: makes the client, given who is told of its calls.
        fleet: decides.

    Raises:
        ClusterConfigError: there is no usable configuration of a cluster.
        SettingsError: nothing can listen at `health_address`.
    """
    metrics = Metrics()
    client = await connect(metrics.api_call)
    log.info("operator started; it stands by until it holds the lease", extra={"server": client.server})
    operator = Operator(settings, client, fleet, Random(), metrics)  # noqa: S311 - spreads requests, keeps no secret
    try:
        async with serve_health(settings.health_address, operator.facts, operator.scrape):
            return await operator.run()
    finally:
        await client.close()
