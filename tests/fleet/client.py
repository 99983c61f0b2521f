# SPDX-License-Identifier: Apache-2.0
"""The connections of a fleet: one for each watch, a few for all else. What answers mean the agent's code says."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import aiohttp

from numamigration_agent.cluster import (
    COLLECTION,
    REQUEST_SECONDS_MAX,
    Answer,
    ApplyResult,
    Page,
    classify_apply,
    encode,
    list_query,
    read_page,
    watch_query,
)
from numamigration_api.machinery.backoff import parse_retry_after
from numamigration_api.machinery.listwatch import WATCH_SILENCE_SECONDS, ListPage, Watch
from numamigration_api.vocabulary import AGENT_MANAGER, API_VERSION, METADATA_ONLY, STATE_KIND
from numamigration_operator.cluster.client import hang_up

BUFFER_BYTES: Final = 1 << 14
"""Of each connection; longer lines come in pieces."""
APPLY: Final = {"Content-Type": "application/apply-patch+yaml", "Accept": METADATA_ONLY}
"""As operator and agent do."""
MANAGER: Final = "test-fleet"


class Access(NamedTuple):
    """Which API server, as whom."""

    server: str
    authority: str
    token: str

    @classmethod
    def of(cls, kubeconfig: Path) -> Access:
        """Read a kubeconfig of the test bed, which is JSON and has one cluster and one user."""
        config = json.loads(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        return cls(cluster["server"], authority, user["token"])


class Client:
    """One API server as one user, from ``__aenter__`` to ``__aexit__``.

    Args:
        access: which and as whom.
        connections: at most, for what is no watch.
    """

    def __init__(self, access: Access, connections: int) -> None:
        self._access, self._connections = access, connections

    async def __aenter__(self) -> Self:
        tls = ssl.create_default_context(cadata=self._access.authority)
        headers = {"Authorization": f"Bearer {self._access.token}", "Accept": "application/json"}
        self._watches, self._requests = (
            aiohttp.ClientSession(
                self._access.server,
                connector=aiohttp.TCPConnector(limit=limit, ssl=tls),
                headers=headers,
                read_bufsize=BUFFER_BYTES,
                timeout=aiohttp.ClientTimeout(total=None, sock_read=REQUEST_SECONDS_MAX),
            )
            for limit in (0, self._connections)
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._watches.close()
        await self._requests.close()

    async def apply(self, path: str, obj: Mapping[str, Any], manager: str = MANAGER) -> Answer:
        """Server-side apply an object."""
        query = {"fieldManager": manager, "force": "true", "fieldValidation": "Ignore"}
        return await self._exchange("PATCH", path, query, APPLY, encode(obj))

    async def apply_status(self, name: str, status: Mapping[str, Any]) -> ApplyResult:
        """Apply the status of a node state, as its agent does."""
        document = {"apiVersion": API_VERSION, "kind": STATE_KIND, "metadata": {"name": name}, "status": status}
        return classify_apply(await self.apply(f"{COLLECTION}/{name}/status", document, AGENT_MANAGER))

    async def page(self, step: ListPage, name: str) -> Page | Answer:
        """List one node state."""
        return read_page(await self._exchange("GET", COLLECTION, list_query(step, name), {}, None))

    @asynccontextmanager
    async def watch(self, step: Watch, name: str) -> AsyncIterator[AsyncIterator[bytes] | Answer]:
        """Open a watch and give its lines, or the answer that refused it.

        Raises:
            aiohttp.ClientError, TimeoutError, OSError: no answer came, or it was cut.
        """
        silence = aiohttp.ClientTimeout(total=None, sock_read=WATCH_SILENCE_SECONDS)
        async with self._watches.get(COLLECTION, params=watch_query(step, name), timeout=silence) as answer:
            try:
                yield _lines(answer.content) if answer.status == 200 else await _whole(answer)
            finally:
                hang_up(answer)

    async def _exchange(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes | None
    ) -> Answer:
        try:
            async with self._requests.request(method, path, params=query, headers=headers, data=body) as answer:
                return await _whole(answer)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return no_answer(error)


def no_answer(error: BaseException) -> Answer:
    """Return the answer that stands for none."""
    return Answer(None, problem=f"{type(error).__name__}: {error}")


async def _whole(answer: aiohttp.ClientResponse) -> Answer:
    body = await answer.read()
    return Answer(answer.status, body, parse_retry_after(answer.headers.get("Retry-After")))


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    rest = b""
    async for piece in content.iter_any():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line:
                yield line
