# SPDX-License-Identifier: Apache-2.0
"""Liveness and readiness: pure answers from plain facts, and the small HTTP server of these and of metrics.

* Alive: a restart would not help. The event loop turns (else there is no answer at all), the lease loop turns, and no
  reader is cut off from an API server that answers others: such a watch looks open and tells nothing for ever
  (nolar/kopf issue 1276 is one of its kind).
* An API server that is away is no reason to restart: silence counts from the moment the server answered again.
* Ready: standing by and reading the Lease, or leading with everything read and the epoch written.

Source: Kubernetes documentation, "Configure Liveness, Readiness and Startup Probes".
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, NamedTuple

from aiohttp import web

from numamigration_api.machinery.listwatch import WATCH_SILENCE_SECONDS
from numamigration_operator.cluster.lease_driver import Contact
from numamigration_operator.metrics import Exposition
from numamigration_operator.settings import SettingsError, parse_address

READER_SILENCE_SECONDS_MAX: Final = WATCH_SILENCE_SECONDS + 90.0
"""A silent watch is cut; then a back-off, and a slow answer."""
LEASE_TURNS_MAX: Final = 4
"""Leases that may pass without a turn of the lease loop, each of which is cut well within one."""

Scrape = Callable[[str], Awaitable[Exposition]]


class ReaderFacts(NamedTuple):
    """One reader, in monotonic seconds.

    Attributes:
        last_activity: ``ListWatch.last_activity``.
        pause: how long it is silent by design between two lists.
    """

    name: str
    last_activity: float
    pause: float = 0.0


class Facts(NamedTuple):
    """What the checks are made from; times are monotonic seconds.

    Attributes:
        contact: of the lease loop.
        lease_seconds: the Lease's duration.
        leading_since: None while standing by.
        holds: the Lease is held now.
        synced: everything was read and the epoch is written.
        readers: empty while standing by.
    """

    now: float
    contact: Contact
    lease_seconds: float
    leading_since: float | None = None
    holds: bool = False
    synced: bool = False
    readers: tuple[ReaderFacts, ...] = ()


class Finding(NamedTuple):
    """What a check says."""

    ok: bool
    why: str


def liveness(facts: Facts) -> Finding:
    """Return whether this process still does its work, or would at least do it if the API server answered."""
    idle = facts.now - facts.contact.turned_at
    if idle > LEASE_TURNS_MAX * facts.lease_seconds:
        return Finding(False, f"the lease loop has not turned for {idle:.0f} s")
    for reader in facts.readers:
        silent = _silence(reader, facts)
        if silent > READER_SILENCE_SECONDS_MAX + reader.pause:
            return Finding(False, f"{reader.name}: nothing heard for {silent:.0f} s from a server that answers others")
    return Finding(True, _role(facts))


def _silence(reader: ReaderFacts, facts: Facts) -> float:
    answering, leading = facts.contact.answering_since, facts.leading_since
    if answering is None or leading is None:
        return 0.0
    return facts.now - max(reader.last_activity, answering, leading)


def readiness(facts: Facts) -> Finding:
    """Return whether this process leads and has read everything, or could take over at any time."""
    if facts.leading_since is not None:
        if not facts.holds:
            return Finding(False, "the lease is lost")
        return Finding(facts.synced, "leading" if facts.synced else "leading; not everything is read yet")
    answered = facts.contact.answered_at
    if answered is None:
        return Finding(False, "standing by; the lease was never read")
    age = facts.now - answered
    if age > facts.lease_seconds:
        return Finding(False, f"standing by; the lease was last read {age:.0f} s ago")
    return Finding(True, _role(facts))


def _role(facts: Facts) -> str:
    return "standing by" if facts.leading_since is None else "leading"


@contextlib.asynccontextmanager
async def serve_health(address: str, facts: Callable[[], Facts], scrape: Scrape) -> AsyncIterator[None]:
    """Serve /healthz, /readyz and /metrics as long as the context is open; an empty address serves nothing.

    Args:
        address: host and port.
        facts: for the checks.
        scrape: given the Accept header, returns the metrics.

    Raises:
        SettingsError: nothing can listen at this address.
    """
    if not address:
        yield
        return
    host, port = parse_address(address)
    runner = web.AppRunner(_application(facts, scrape), access_log=None, handle_signals=False)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise SettingsError(f"health_address: cannot listen on {address}: {error}") from error
        yield
    finally:
        await runner.cleanup()


def _application(facts: Callable[[], Facts], scrape: Scrape) -> web.Application:
    def answer(check: Callable[[Facts], Finding]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(_: web.Request) -> web.Response:
            finding = check(facts())
            return web.Response(status=200 if finding.ok else 503, text=finding.why + "\n")

        return handle

    async def metrics(request: web.Request) -> web.Response:
        body, content_type = await scrape(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    routes = {"/healthz": answer(liveness), "/readyz": answer(readiness), "/metrics": metrics}
    application = web.Application()
    application.add_routes([web.get(path, handle) for path, handle in routes.items()])
    return application
