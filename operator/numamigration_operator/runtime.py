# SPDX-License-Identifier: Apache-2.0
"""The operator process: wires readers, fleet and writers on one event loop, and ends well.

* The fleet is touched on this loop only. Readers mark that something changed; one loop decides, DECIDE_SECONDS_MIN
  apart at least, so that a burst of events is one decision.
* A signal ends everything within a second or two, exit code 0: nothing needs saving, the next look at the objects
  goes on.
* A task that ends by itself ends the process with exit code 1 and a line that names it. It never limps.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from random import Random
from typing import Any, Final, Protocol

import msgspec

from numamigration_api.machinery.conditions import shorten
from numamigration_api.vocabulary import Reason
from numamigration_operator.cluster.applier import Applier, Limits
from numamigration_operator.cluster.apply_driver import ApplyDriver
from numamigration_operator.cluster.client import Client
from numamigration_operator.cluster.events import EventPoster
from numamigration_operator.cluster.informer import NODES, POLICIES, STATES, AnyObject, Informer, control_resource
from numamigration_operator.core.decisions import EventWish, Write, WriteKey, WriteKind
from numamigration_operator.feeds import ControlFeed, FleetLike, NodeFeed, PolicyFeed, StateFeed
from numamigration_operator.handlers import WatchSupervisor, WatchThread, policy_registry
from numamigration_operator.settings import OperatorSettings

log = logging.getLogger(__name__)

DECIDE_SECONDS_MIN: Final = 0.05
"""Between two decisions: a burst of events becomes one; no person notices."""
STOP_SECONDS_MAX: Final = 3.0
"""For all tasks to end; what has not ended by then is left behind."""
EXIT_CRASHED: Final = 1

_metadata: Final = msgspec.json.Decoder(AnyObject)


class Pulse:
    """Both clocks, and the mark that something changed."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def now(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    def wall(self) -> datetime:
        """Return the time of day, in UTC."""
        return datetime.now(UTC)

    def changed(self) -> None:
        """Mark that something changed."""
        self._changed.set()

    async def next_change(self, until: float | None) -> None:
        """Wait for a mark, or until a time; clears the mark."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if until is None else max(0.0, until - self.now())):
                await self._changed.wait()
        self._changed.clear()


class Reader(Protocol):
    """Reads one kind of object."""

    async def run(self) -> None:
        """Read for ever."""


class Operator:
    """Everything between the API server and the fleet."""

    def __init__(self, settings: OperatorSettings, client: Client, fleet: FleetLike, rng: Random) -> None:
        self._fleet = fleet
        self._pulse = Pulse()
        self._events = EventPoster(client, self._pulse.wall)
        limits = Limits(settings.apply_requests_open_max, settings.apply_rate_per_second, settings.apply_burst)
        self._applies = ApplyDriver(
            client,
            Applier(limits, rng),
            on_stored=self._write_stored,
            on_failure=self._write_failed,
            on_skew=self._write_skewed,
        )
        self._policies = PolicyFeed(fleet, self._pulse, on_listed=self._policies_listed)
        self._watch = WatchSupervisor(
            lambda deliver: WatchThread(policy_registry(client, deliver)),
            on_begin=self._policies.watch_begun,
            on_change=self._policies.watch_changed,
            on_gone=self._policies.watch_gone,
            rng=rng,
        )
        control = ControlFeed(fleet, self._pulse)
        self._readers: dict[str, Reader] = {
            "fleet switch": Informer(
                client, control_resource(settings.home_namespace), control, rng, on_forbidden=control.forbidden
            ),
            "nodes": Informer(client, NODES, NodeFeed(fleet, self._pulse), rng),
            "node states": Informer(client, STATES, StateFeed(fleet, self._pulse), rng),
            "policy lists": Informer(client, POLICIES, self._policies, rng, settings.policy_resync_seconds),
        }

    async def run(self) -> int:
        """Run until a signal comes or a task ends by itself; return the exit code."""
        tasks = [
            asyncio.create_task(work, name=name)
            for name, work in {
                **{name: reader.run() for name, reader in self._readers.items()},
                "policy watch": self._watch.run(),
                "decisions": self._decide(),
                "applier": self._applies.run(),
                "events": self._events.run(),
            }.items()
        ]
        return await supervise(tasks)

    async def _decide(self) -> None:
        look_again: float | None = None
        was_synced = False
        while True:
            await self._pulse.next_change(look_again)
            decisions = self._fleet.decide(self._pulse.now(), self._pulse.wall())
            if decisions.writes:
                self._applies.submit(decisions.writes)
            for wish in decisions.events:
                self._events.post(wish)
            if self._fleet.synced and not was_synced:
                was_synced = True
                log.info("ready: policies, nodes and node states are known")
            look_again = decisions.look_again
            await asyncio.sleep(DECIDE_SECONDS_MIN)

    def _policies_listed(self, blind: bool) -> None:
        self._watch.policies_listed(blind)

    def _write_stored(self, key: WriteKey, generation: int) -> None:
        self._fleet.write_stored(key, generation)
        self._pulse.changed()

    def _write_failed(self, key: WriteKey) -> None:
        self._fleet.write_failed(key)
        self._pulse.changed()

    def _write_skewed(self, write: Write, message: str) -> None:
        if write.key.kind is WriteKind.STATE_SPEC:
            self._fleet.write_skewed(write.key.name, message)
            self._pulse.changed()
        else:
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
    for task in crashed:
        log.critical("task ended by itself; the process ends", extra={"task": task.get_name()}, exc_info=_error(task))
    if not crashed:
        log.info("stopping")
    for task in everything:
        task.cancel()
    await asyncio.wait(everything, timeout=STOP_SECONDS_MAX)
    return EXIT_CRASHED if crashed else 0


def _error(task: asyncio.Task[None]) -> BaseException | None:
    return None if task.cancelled() else task.exception()


async def operate(
    settings: OperatorSettings, connect: Callable[[], Coroutine[Any, Any, Client]], fleet: FleetLike
) -> int:
    """Run the operator; return the exit code.

    Raises:
        ClusterConfigError: there is no usable configuration of a cluster.
    """
    client = await connect()
    # No leader election yet, so two replicas would write against each other.
    log.info("operator started; only one replica may run", extra={"server": client.server})
    try:
        return await Operator(settings, client, fleet, Random()).run()  # noqa: S311 - spreads requests, keeps no secret
    finally:
        await client.close()
