# SPDX-License-Identifier: Apache-2.0
"""Reads the Ready condition of the few Nodes that the core asks about.

Kubelets touch their Node every few seconds and a body has 9 kB and more, so Nodes are watched without their bodies
(``cluster.informer``); of those that a rollout has just changed the condition is read, one GET each.

Sources: Kubernetes documentation, "Node Status" (the kubelet says True or False; the node controller says Unknown of a
kubelet that is silent).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import msgspec

from numamigration_operator.cluster.client import Client, NoAnswerError
from numamigration_operator.cluster.informer import NODES
from numamigration_operator.core.objects import NodeBody

log = logging.getLogger(__name__)

OPEN_MAX: Final = 4
REST_SECONDS: Final = 0.1
"""After each answer; with OPEN_MAX at most 40 requests a second, below what pushes are allowed."""
_READY: Final = {"True": True, "False": False}

_body: Final = msgspec.json.Decoder(NodeBody)


class ReadinessReader:
    """Reads one Node after the other, a few at a time.

    Args:
        client: the API server.
        on_read: told of each Node that was asked for whether it is ready; None when it says Unknown or nothing, when
            it is gone, and when no answer came.
        rest: lets seconds pass.
    """

    def __init__(
        self,
        client: Client,
        on_read: Callable[[str, bool | None], None],
        rest: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._on_read = on_read
        self._rest = rest
        self._names: asyncio.Queue[str] = asyncio.Queue()  # bounded by the number of Nodes: each is in it once
        self._asked: set[str] = set()
        self._refused = False

    def ask(self, names: Iterable[str]) -> None:
        """Take names; returns at once. One whose answer is still to come is not asked for twice."""
        for name in names:
            if name not in self._asked:
                self._asked.add(name)
                self._names.put_nowait(name)

    async def run(self) -> None:
        """Read for ever."""
        async with asyncio.TaskGroup() as group:
            for number in range(OPEN_MAX):
                group.create_task(self._work(), name=f"readiness {number}")

    async def _work(self) -> None:
        while True:
            name = await self._names.get()
            ready, retry_after = await self._read(name)
            self._asked.discard(name)
            self._on_read(name, ready)
            await self._rest(max(REST_SECONDS, retry_after or 0.0))

    async def _read(self, name: str) -> tuple[bool | None, float | None]:
        try:
            answer = await self._client.request("GET", f"{NODES.path}/{name}")
        except NoAnswerError:  # said once by the client
            return None, None
        if answer.status >= 300:
            self._say(answer.status, answer.message)
            return None, answer.retry_after
        self._refused = False
        return _ready(answer.body), None

    def _say(self, status: int, message: str) -> None:
        if status in {401, 403} and not self._refused:
            log.warning(
                "cannot read whether Nodes are ready; guardrail nodeNotReady trips nowhere",
                extra={"error": message, "advice": "grant the right; deploy/rbac.yaml has all that are needed"},
            )
            self._refused = True


def _ready(body: bytes) -> bool | None:
    try:
        conditions = _body.decode(body).status.conditions
    except msgspec.DecodeError:  # whatever answers so is not the API server
        return None
    return next((_READY.get(one.status) for one in conditions if one.type == "Ready"), None)
