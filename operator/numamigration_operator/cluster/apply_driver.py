# SPDX-License-Identifier: Apache-2.0
"""Sends what the applier asks for: the thin async driver of ``cluster.applier``."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from numamigration_api.vocabulary import Reason
from numamigration_operator.cluster.applier import Applier, Send, Verdict
from numamigration_operator.cluster.bell import Bell
from numamigration_operator.cluster.client import Client, NoAnswerError
from numamigration_operator.core.decisions import Patch, Write, WriteKey, WriteKind

log = logging.getLogger(__name__)

_SAID: Final[dict[Verdict, tuple[int, str, str]]] = {
    Verdict.DONE: (logging.DEBUG, "applied", ""),
    Verdict.RETRY: (logging.INFO, "apply failed; trying again", ""),
    Verdict.NO_RIGHT: (
        logging.WARNING,
        "apply is not allowed or not possible; trying again slowly",
        "grant the rights of deploy/rbac.yaml and apply the CRDs of this release",
    ),
    Verdict.DECIDE_ANEW: (logging.INFO, "object is not what was expected; deciding anew", ""),
    Verdict.GONE: (logging.DEBUG, "object was deleted; nothing to apply to", ""),
    Verdict.SKEW: (
        logging.WARNING,
        "the installed CRD does not know a field; applying the rest",
        "apply the CRDs of this release: kubectl apply --server-side -f crds/",
    ),
    Verdict.GIVEN_UP: (logging.ERROR, "apply was refused for good", "operator and CRDs must be of one release"),
    Verdict.FENCED: (logging.ERROR, "a newer leader wrote this object; writing nothing any more", ""),
}
SAY_AGAIN_SECONDS: Final = 60.0
"""The same trouble of thousands of nodes is one line a minute; the others are debug lines."""
DRAIN_SECONDS_MAX: Final = 2.0
"""For the answers to open requests when the process stops."""
_FAILED: Final = frozenset({Verdict.DECIDE_ANEW, Verdict.GIVEN_UP})
"""What the decision must know of; the rest is done, or in the applier's own hands."""
_STORES_NOT_ALL: Final = frozenset({Patch.MERGE, Patch.DELETE})
"""A merge patch stores what the CRD can hold, a deletion nothing."""


class ApplyDriver:
    """Runs the applier on the event loop.

    Args:
        home: the operator's namespace, where its own objects are.
        on_stored: told of each write that was stored as it is, with the answer: the object as it is now.
        on_failure: told of each write that will not be stored as it was decided, if no newer one follows.
        on_skew: told of writes of which a field was dropped, with the server's message: of every node state, and now
            and then of policies.
        on_fenced: told that a newer leader exists, with the server's message.
        may_send: asked right before each request; after a no nothing is sent, and the process is about to end.

    Attributes:
        drained: after `run` was cancelled: no request is open whose effect could still come.
    """

    def __init__(
        self,
        client: Client,
        applier: Applier,
        *,
        home: str,
        on_stored: Callable[[Write, bytes], None],
        on_failure: Callable[[WriteKey], None],
        on_skew: Callable[[Write, str], None],
        on_fenced: Callable[[str], None],
        may_send: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.drained = True
        self._client = client
        self._applier = applier
        self._home = home
        self._on_stored = on_stored
        self._on_failure = on_failure
        self._on_skew = on_skew
        self._on_fenced = on_fenced
        self._may_send = may_send
        self._clock = clock
        self._sending: set[asyncio.Task[None]] = set()
        self._bell = Bell(clock)
        self._said: dict[tuple[Verdict, WriteKind], float] = {}

    def submit(self, writes: Iterable[Write]) -> None:
        """Take writes; returns at once."""
        self._applier.submit(writes, self._clock())
        self._bell.ring()

    async def run(self) -> None:
        """Send for ever; when cancelled, send nothing more and give open requests a moment to be answered."""
        async with asyncio.TaskGroup() as group:
            try:
                await self._work(group)
            finally:
                await self._drain()

    async def _work(self, group: asyncio.TaskGroup) -> None:
        while True:
            step = self._applier.next(self._clock())
            if isinstance(step, Send):
                task = group.create_task(self._send(step), name=f"apply {step.write.key.name}")
                self._sending.add(task)
                task.add_done_callback(self._sending.discard)
            else:
                await self._bell.wait(step.until)

    async def _drain(self) -> None:
        if self._sending:
            await asyncio.wait(self._sending, timeout=DRAIN_SECONDS_MAX)
        self.drained = not self._sending

    async def _send(self, send: Send) -> None:
        # As late as possible: the process may have been stopped for any time between the decision and here.
        if not self._may_send():
            return
        try:
            answer = await self._client.request(
                send.method,
                send.path(self._home),
                query=send.query,
                body=send.write.body,
                content_type=send.patch,
                accept=send.accept,
            )
        except NoAnswerError:  # said once by the client
            self._applier.unanswered(send, self._clock())
        else:
            message = answer.message if answer.status >= 300 else ""
            verdict = self._applier.answered(send, answer.status, message, answer.retry_after, self._clock())
            self._report(send, verdict, answer.status, message)
            if verdict is Verdict.DONE and send.patch not in _STORES_NOT_ALL:
                self._on_stored(send.write, answer.body)
        self._bell.ring()

    def _report(self, send: Send, verdict: Verdict, status: int, message: str) -> None:
        key = send.write.key
        level, text, advice = _SAID[verdict]
        fields: dict[str, Any] = {"kind": key.kind, "object": key.name, "status": status}
        if message:
            fields["error"] = message
        if advice:
            fields["advice"] = advice
        if verdict is Verdict.SKEW:
            fields["reason"] = Reason.VERSION_SKEW
        fresh = self._is_fresh(verdict, key.kind)
        log.log(level if fresh else logging.DEBUG, text, extra=fields)
        if verdict is Verdict.SKEW and (fresh or key.kind is WriteKind.STATE_SPEC):
            self._on_skew(send.write, message)
        if verdict is Verdict.FENCED:
            self._on_fenced(f"{key.name}: {message}")
        # Where a newer write follows, that one is what is on its way, and will be told of by its own answer.
        if verdict in _FAILED and not self._applier.follows(key):
            self._on_failure(key)

    def _is_fresh(self, verdict: Verdict, kind: WriteKind) -> bool:
        now = self._clock()
        fresh = now - self._said.get((verdict, kind), -math.inf) >= SAY_AGAIN_SECONDS
        if fresh:
            self._said[verdict, kind] = now
        return fresh
