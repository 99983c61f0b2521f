# SPDX-License-Identifier: Apache-2.0
"""Kubernetes Events on policies, for people who type ``kubectl describe``.

Best effort: conditions tell the truth, Events only tell when. So the queue is bounded, nothing is tried twice, and
what does not fit is counted and dropped.

What was said within REPEAT_SECONDS is not said again. events.k8s.io would count it in the `series` of the first Event;
that takes the right to patch, and a right in `default` cannot be bound to names that are made up as we go: it would
reach the Events of every Node. How often a condition came and went is not worth that; when it moved last, it says.

Events of cluster-scoped objects live in the namespace ``default``.

Sources: k8s.io/api events/v1 (required fields and their bounds); kubernetes/kubernetes
pkg/apis/core/validation/events.go (namespace of cluster-scoped objects).
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import msgspec

from numamigration_api.machinery.clock import micro_timestamp
from numamigration_api.machinery.conditions import shorten
from numamigration_api.vocabulary import API_VERSION, OPERATOR_MANAGER, POLICY_KIND
from numamigration_operator.cluster.client import Client, NoAnswerError
from numamigration_operator.core.decisions import EventWish

log = logging.getLogger(__name__)

EVENTS_PATH: Final = "/apis/events.k8s.io/v1/namespaces/default/events"
QUEUE_MAX: Final = 64  # some per policy in a burst; more is noise
REPEAT_SECONDS: Final = 600.0  # as long as client-go's aggregation of like Events (tools/record)
SAID_MAX: Final = 1024  # what was said longest ago may be said again; some hundred kB
NOTE_CHARACTERS_MAX: Final = 1024 // 4  # the API's bound is 1,024 bytes, and a character may have four
INSTANCE_CHARACTERS_MAX: Final = 128
NAME_CHARACTERS_MAX: Final = 253


def event_body(wish: EventWish, now: datetime, *, instance: str, suffix: str) -> dict[str, Any]:
    """Return the ``events.k8s.io/v1`` object of `wish`.

    Args:
        wish: what to say.
        now: timezone-aware time of the event.
        instance: who says it: the identity that holds the lease.
        suffix: makes the object's name unique.
    """
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {
            "name": f"{wish.policy[: NAME_CHARACTERS_MAX - len(suffix) - 1]}.{suffix}",
            "namespace": "default",
        },
        "eventTime": micro_timestamp(now),
        "reportingController": OPERATOR_MANAGER,
        "reportingInstance": instance[:INSTANCE_CHARACTERS_MAX],
        "action": "Reconcile",
        "reason": wish.reason,
        "type": "Warning" if wish.warning else "Normal",
        "note": shorten(wish.message, NOTE_CHARACTERS_MAX),
        "regarding": {
            "apiVersion": API_VERSION,
            "kind": POLICY_KIND,
            "name": wish.policy,
            "uid": wish.policy_uid,
        },
    }


class EventPoster:
    """Posts Events one after the other.

    Args:
        client: the API server.
        wall: the time of day.
        instance: who says it.
        may_send: asked right before each request; after a no nothing is sent.
        clock: monotonic seconds.

    Attributes:
        posted: Events that the API server stored.
        dropped: wishes that found the queue full, or of which no Event was stored.
    """

    def __init__(
        self,
        client: Client,
        wall: Callable[[], datetime],
        *,
        instance: str,
        may_send: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.posted = 0
        self.dropped = 0
        self._client = client
        self._wall = wall
        self._may_send = may_send
        self._queue: asyncio.Queue[EventWish] = asyncio.Queue(QUEUE_MAX)
        self._instance = instance
        self._clock = clock
        self._said: OrderedDict[EventWish, float] = OrderedDict()

    def post(self, wish: EventWish) -> None:
        """Take a wish; returns at once."""
        now = self._clock()
        if now - self._said.get(wish, -math.inf) < REPEAT_SECONDS:
            return
        try:
            self._queue.put_nowait(wish)
        except asyncio.QueueFull:
            self.dropped += 1
        else:
            self._remember(wish, now)

    def _remember(self, wish: EventWish, now: float) -> None:
        self._said[wish] = now
        self._said.move_to_end(wish)
        if len(self._said) > SAID_MAX:
            self._said.popitem(last=False)

    async def run(self) -> None:
        """Post for ever."""
        while True:
            await self._post(await self._queue.get())

    async def _post(self, wish: EventWish) -> None:
        body = event_body(wish, self._wall(), instance=self._instance, suffix=secrets.token_hex(8))
        if not self._may_send():
            return
        try:
            answer = await self._client.request("POST", EVENTS_PATH, body=msgspec.json.encode(body))
        except NoAnswerError:
            self.dropped += 1
            return
        if answer.status < 300:
            self.posted += 1
        else:
            self.dropped += 1
            log.info(
                "event was not posted",
                extra={"policy": wish.policy, "status": answer.status, "error": answer.message},
            )
