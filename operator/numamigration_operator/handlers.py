# SPDX-License-Identifier: Apache-2.0
"""kopf watches policies, and nothing else: each event becomes a `PolicyObject` and is handed over.

kopf writes nothing here: only ``on.event`` is used, so there is no finalizer, no annotation and no diff base; posting,
peering and scanning are off.

kopf gets a thread and an event loop of its own, because it takes over the signals of its loop, and cancels every task
of it that it does not know when it ends. It ends when its watch meets what it does not expect: a CRD that was removed,
a right that was taken, an API server that is away for long. Then, and when its watch turns out to be blind, a new one
is started as soon as policies can be listed again (`WatchSupervisor`); lists keep the truth meanwhile
(`feeds.PolicyFeed`).

Source: kopf 1.45, kopf/_core/reactor/running.py (run_tasks, spawn_tasks) and kopf/_cogs/clients/watching.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from random import Random
from typing import Any, Final, Protocol

import kopf
import msgspec

from numamigration_api.machinery.backoff import Backoff
from numamigration_api.vocabulary import GROUP, POLICY_PLURAL, VERSION
from numamigration_operator.cluster.client import Client
from numamigration_operator.core.objects import PolicyObject

log = logging.getLogger(__name__)

STOP_SECONDS_MAX: Final = 2.0
"""kopf stops within milliseconds; its thread is a daemon and never keeps the process."""
OWN_IDENTITY: Final[Any] = "numamigration-operator"
"""For kopf's peering, which is off. Unless it is given one, kopf asks for the user's name, and in a container the uid
has none: the watch would die of a KeyError (seen with uid 65532)."""

RELOGIN_SECONDS: Final = 5.0
"""kopf asks for new credentials after each 401; the same ones are not worth a request at once."""

Deliver = Callable[[str | None, PolicyObject], None]


class NoDiffBase(kopf.DiffBaseStorage):
    """Keeps nothing: without change handlers there is nothing to compare, and copying bodies is half of kopf's cost."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Return an empty essence."""
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        """Return that nothing is known."""
        return None

    def store(self, **_: Any) -> None:
        """Write nothing."""


def kopf_settings() -> kopf.OperatorSettings:
    """Return settings with which kopf watches and does nothing else."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.persistence.diffbase_storage = NoDiffBase()
    settings.process.ultimate_exiting_timeout = None
    settings.queueing.idle_timeout = 0.5
    settings.queueing.exit_timeout = 0.5
    settings.watching.server_timeout = 290
    settings.watching.connect_timeout = 5
    settings.networking.request_timeout = 60
    settings.networking.error_backoffs = (1, 2, 4)
    return settings


def policy_registry(client: Client, deliver: Deliver) -> kopf.OperatorRegistry:
    """Return a registry with our login and one handler.

    Args:
        client: whose connection settings kopf uses.
        deliver: called on kopf's thread with the event's type (None while listing) and the policy.
    """
    registry = kopf.OperatorRegistry()
    logins = 0

    async def login(**_: Any) -> kopf.AiohttpSession:
        nonlocal logins
        if logins:
            await asyncio.sleep(RELOGIN_SECONDS)
        logins += 1
        return kopf.AiohttpSession(server=client.server, aiohttp_session=client.new_session())

    async def policy_event(event: kopf.RawEvent, **_: Any) -> None:
        body = event["object"]
        try:
            policy = msgspec.convert(body, PolicyObject)
        except msgspec.ValidationError as error:
            log.warning(
                "policy cannot be read; it is left as it was known",
                extra={"policy": body.get("metadata", {}).get("name"), "error": str(error)},
            )
            return
        deliver(event["type"], policy)

    kopf.on.login(registry=registry)(login)
    kopf.on.event(GROUP, VERSION, POLICY_PLURAL, registry=registry)(policy_event)
    return registry


class PolicyWatch(Protocol):
    """One life of whatever watches policies."""

    @property
    def ended(self) -> asyncio.Future[BaseException | None]:
        """Done when it has ended: None, or what it died of."""

    async def stop(self) -> None:
        """End it."""


class WatchThread:
    """One life of kopf: from `start` until it ends by itself or is stopped.

    Attributes:
        ended: done when kopf has ended; None, or what it died of.
    """

    def __init__(self, registry: kopf.OperatorRegistry) -> None:
        self.ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        self._registry = registry
        self._home = asyncio.get_running_loop()
        self._away: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="policy-watch", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Ask kopf to end, and wait for it, but not for ever."""
        self._stopping.set()
        if self._away is not None and self._stop is not None and not self._away.is_closed():
            self._away.call_soon_threadsafe(self._stop.set)
        await asyncio.wait([self.ended], timeout=STOP_SECONDS_MAX)

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            asyncio.run(self._watch())
        except Exception as caught:  # noqa: BLE001 - whatever it is, the supervisor says it and starts anew
            error = caught
        with contextlib.suppress(RuntimeError):  # our loop is closed: the process ends, and nobody waits any more
            self._home.call_soon_threadsafe(self._tell, error)

    def _tell(self, error: BaseException | None) -> None:
        if not self.ended.done():
            self.ended.set_result(error)

    async def _watch(self) -> None:
        self._stop = asyncio.Event()
        self._away = asyncio.get_running_loop()
        if self._stopping.is_set():
            return
        await kopf.operator(
            registry=self._registry,
            settings=kopf_settings(),
            identity=OWN_IDENTITY,
            clusterwide=True,
            standalone=True,
            stop_flag=self._stop,
        )


class WatchSupervisor:
    """Keeps a kopf alive as long as policies can be listed.

    Args:
        start: begins a watch that delivers from any thread.
        on_begin: called on our loop when a new watch begins, before it tells anything.
        on_change: called on our loop for each policy that exists.
        on_gone: called on our loop with the uid of each deleted policy.

    Attributes:
        ends: watches that ended by themselves or were blind, since the start.
    """

    def __init__(
        self,
        start: Callable[[Deliver], PolicyWatch],
        *,
        on_begin: Callable[[], None],
        on_change: Callable[[PolicyObject], None],
        on_gone: Callable[[str], None],
        rng: Random,
    ) -> None:
        self.ends = 0
        self._start = start
        self._on_begin = on_begin
        self._on_change = on_change
        self._on_gone = on_gone
        self._backoff = Backoff(base_seconds=1.0)
        self._rng = rng
        self._served = asyncio.Event()
        self._blind = asyncio.Event()

    def policies_listed(self, blind: bool) -> None:
        """Policies were listed just now, so there is something to watch; the lists may show that the watch is blind."""
        self._served.set()
        if blind:
            self._blind.set()

    async def run(self) -> None:
        """Watch for ever."""
        while True:
            # kopf looks once at its start which resources there are, so an early start would never see the CRD.
            await self._served.wait()
            reason = await self._watch_once()
            self._served.clear()
            self.ends += 1
            log.warning("watch of policies ended; lists go on, and it starts anew", extra={"reason": reason})
            await asyncio.sleep(self._backoff.next_wait(self._rng))

    async def _watch_once(self) -> str:
        self._on_begin()
        self._blind.clear()
        watch = self._start(self._deliverer())
        blind = asyncio.create_task(self._blind.wait(), name="blindness of the policy watch")
        either: list[asyncio.Future[Any]] = [watch.ended, blind]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            return repr(watch.ended.result()) if watch.ended.done() else "it did not tell what lists show"
        finally:
            blind.cancel()
            await watch.stop()

    def _deliverer(self) -> Deliver:
        home = asyncio.get_running_loop()

        def deliver(kind: str | None, policy: PolicyObject) -> None:
            with contextlib.suppress(RuntimeError):  # as above: the process ends
                home.call_soon_threadsafe(self._deliver, kind, policy)

        return deliver

    def _deliver(self, kind: str | None, policy: PolicyObject) -> None:
        self._backoff.reset()
        if kind == "DELETED":
            self._on_gone(policy.metadata.uid)
        else:
            self._on_change(policy)


def quiet_kopf() -> None:
    """Let kopf's own warnings through only when debugging: what matters of them is said by the supervisor."""
    debugging = logging.getLogger().isEnabledFor(logging.DEBUG)
    logging.getLogger("kopf").setLevel(logging.WARNING if debugging else logging.CRITICAL)
