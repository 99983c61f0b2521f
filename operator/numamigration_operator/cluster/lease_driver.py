# SPDX-License-Identifier: Apache-2.0
"""Keeps the Lease, and tells the rest of the process whether it may act: the thin async driver of ``cluster.lease``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple

import msgspec

from numamigration_api.vocabulary import LEASE_NAME
from numamigration_operator.cluster.bell import Bell
from numamigration_operator.cluster.client import Client, NoAnswerError, Response
from numamigration_operator.cluster.lease import LEASES, LeaseHolder, LeaseObject, Read, Request, Rest, Save
from numamigration_operator.core.decisions import Patch

log = logging.getLogger(__name__)

RELEASE_SECONDS_MAX: Final = 2.0
"""For giving the Lease back; without it the next leader waits the lease out."""
RELEASE_REQUESTS_MAX: Final = 4
"""A renewal that was cut when the process began to stop makes the first try meet a 409; then look, and try again."""

_lease: Final = msgspec.json.Decoder(LeaseObject)


class NotLeadingError(Exception):
    """This process has led and must not act any more; the text says why."""


class Contact(NamedTuple):
    """What the loop heard of the API server, in monotonic seconds, for the health checks.

    Attributes:
        turned_at: when the last request came to an end, answered or not.
        answered_at: when the last answer came.
        answering_since: since when every request was answered; None when the last one was not.
    """

    turned_at: float
    answered_at: float | None = None
    answering_since: float | None = None


class LeaseDriver:
    """Runs a `LeaseHolder` on the event loop.

    Attributes:
        contact: for the health checks.
    """

    def __init__(
        self,
        client: Client,
        holder: LeaseHolder,
        namespace: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.contact = Contact(clock())
        self._client = client
        self._holder = holder
        self._collection = LEASES.format(namespace=namespace)
        self._clock = clock
        self._bell = Bell(clock)
        self._leads = asyncio.Event()
        self._claimed = asyncio.Event()
        self._said_holder = ""
        self._said_trouble = ""

    def holds(self) -> bool:
        """Return whether this process may send a write now."""
        return self._holder.holds(self._clock())

    async def leading(self) -> None:
        """Return once this process leads."""
        await self._leads.wait()

    async def claim(self, greatest: int) -> int:
        """Return this leader's epoch once it stands on the Lease; it is greater than `greatest`, what objects have."""
        epoch = self._holder.claim(greatest)
        self._bell.ring()
        await self._claimed.wait()
        return epoch

    def lose(self, reason: str) -> None:
        """Stop acting at once: somebody newer leads."""
        self._holder.lose(reason)
        self._bell.ring()

    async def run(self) -> None:
        """Stand by, lead, and end when that is over.

        Raises:
            NotLeadingError: this process has led, and does not any more.
        """
        while not (lost := self._holder.lost(self._clock())):
            step = self._holder.next(self._clock(), _wall())
            if isinstance(step, Rest):
                await self._bell.wait(step.until)
            else:
                await self._send(step)
                self._tell()
        raise NotLeadingError(lost)

    async def release(self) -> None:
        """Give the Lease back if it is ours; call it when nothing of this process writes any more."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RELEASE_SECONDS_MAX):
                for _ in range(RELEASE_REQUESTS_MAX):
                    step = self._holder.release(self._clock(), _wall())
                    if step is None:
                        return
                    await self._send(step)

    async def _send(self, step: Request) -> None:
        try:
            async with asyncio.timeout(max(0.0, step.give_up_at - self._clock())):
                answer = await self._request(step)
        except (NoAnswerError, TimeoutError):
            self.contact = self.contact._replace(turned_at=self._clock(), answering_since=None)
            self._holder.unanswered(self._clock())
            return
        now = self._clock()
        self.contact = Contact(now, now, self.contact.answering_since or now)
        self._holder.answered(step, answer.status, self._decode(answer), now)
        self._say_trouble(answer, expected={404, 409} if self._exists(step) else {409})

    async def _request(self, step: Request) -> Response:
        path = f"{self._collection}/{LEASE_NAME}"
        match step:
            case Read():
                return await self._client.request("GET", path)
            case Save(resource_version=None):
                return await self._client.request("POST", self._collection, body=step.body)
            case Save():
                return await self._client.request("PATCH", path, body=step.body, content_type=Patch.MERGE)

    def _exists(self, step: Request) -> bool:
        return isinstance(step, Read) or step.resource_version is not None

    def _decode(self, answer: Response) -> LeaseObject | None:
        if answer.status >= 300:
            return None
        try:
            return _lease.decode(answer.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("the answer about the lease cannot be read", extra={"error": str(error)})
            return None

    # --- what people read ----------------------------------------------------------------------------------------

    def _tell(self) -> None:
        if self._holder.claimed is not None:
            self._claimed.set()
        if self._holder.leads and not self._leads.is_set():
            log.info("leading: this process holds the lease", extra={"identity": self._holder.identity})
            self._leads.set()
        if not self._holder.leads and self._holder.holder != self._said_holder:
            self._said_holder = self._holder.holder
            if self._said_holder:
                self._say_holder()

    def _say_holder(self) -> None:
        log.info("standing by: another operator holds the lease", extra={"holder": self._said_holder})
        if odd := self._holder.oddities():
            log.warning(
                "the lease is not as an operator of this release writes it; waiting it out",
                extra={"holder": self._said_holder, "found": "; ".join(odd)},
            )

    def _say_trouble(self, answer: Response, expected: set[int]) -> None:
        trouble = answer.message if answer.status >= 300 and answer.status not in expected else ""
        if trouble and trouble != self._said_trouble:
            log.warning(
                "the lease cannot be read or written; trying again",
                extra={
                    "status": answer.status,
                    "error": trouble,
                    "advice": "deploy/rbac.yaml has the namespace and the rights; see the setting namespace",
                },
            )
        if self._said_trouble and answer.status < 300:
            log.info("the lease can be read and written again")
        if trouble or answer.status < 300:
            self._said_trouble = trouble


def _wall() -> datetime:
    return datetime.now(UTC)
