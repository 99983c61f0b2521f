# SPDX-License-Identifier: Apache-2.0
"""The operator's client for the simulated network, and what carries coroutines on without an event loop.

The coroutines of ``cluster.informer`` and ``cluster.apply_driver`` await nothing but this client: each await here
hands out what shall be done, and is carried on with what came of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from inspect import CORO_CLOSED, getcoroutinestate
from types import CoroutineType
from typing import Any, cast

from numamigration_api.vocabulary import JSON
from numamigration_operator.cluster.client import Client, NoAnswerError, Query, Response, StatusError
from tests.simulation.clock import Process
from tests.simulation.network import Network, Stream
from tests.simulation.server import Request

Resume = Callable[[Any], None]
Begin = Callable[[Resume], None]


class Await:
    """Something that takes time: `begin` is called with what takes its result."""

    def __init__(self, begin: Begin) -> None:
        self.begin = begin

    def __await__(self) -> Generator[Await, Any, Any]:
        """Hand it out, and return its result."""
        return (yield self)


def carry_on(work: Coroutine[Any, Any, Any], then: Callable[[], None], value: Any = None) -> None:
    """Run a coroutine to its next await, and from there on as results come; call `then` at its end."""
    try:
        awaited = work.send(value)
    except StopIteration:
        then()
        return
    awaited.begin(lambda result: None if has_ended(work) else carry_on(work, then, result))


def has_ended(work: Coroutine[Any, Any, Any]) -> bool:
    """Whether a coroutine was closed, or has come to its end."""
    return getcoroutinestate(cast("CoroutineType[Any, Any, Any]", work)) == CORO_CLOSED


class SimClient(Client):
    """The API server as one process of an operator reaches it."""

    def __init__(self, network: Network, process: Process, name: str) -> None:
        self._network, self._process, self._name = network, process, name

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: bytes | None = None,
        content_type: str = JSON,
        accept: str = JSON,  # noqa: ARG002 - there is one form of each object
    ) -> Response:
        """Send a request.

        Raises:
            NoAnswerError: none came.
        """
        request = self._made(method, path, query, body or b"", content_type)
        answer = await Await(lambda resume: self._network.send(self._process, request, resume))
        if answer is None:
            raise NoAnswerError("no answer")
        assert isinstance(answer, Response)
        return answer

    @asynccontextmanager
    async def stream(self, path: str, *, query: Query, accept: str = JSON) -> AsyncIterator[AsyncIterator[bytes]]:  # noqa: ARG002
        """Open a watch.

        Raises:
            NoAnswerError: no answer.
            StatusError: the server refused.
        """
        lines = _Lines()
        request = self._made("GET", path, query, b"", JSON)
        try:
            answer = await Await(lambda resume: lines.open(self._network, self._process, request, resume))
            if answer is None:
                raise NoAnswerError("no answer")
            if answer.status >= 300:
                raise StatusError(answer.status, answer.message, answer.retry_after)
            yield lines
        finally:
            lines.close()

    def _made(self, method: str, path: str, query: Query | None, body: bytes, content_type: str) -> Request:
        return Request(
            self._name,
            method,
            path,
            dict(query or {}),
            body,
            str(content_type),
            self._process.clock.now,
            self._process.lives,
        )


class _Lines:
    """The lines of a watch, as they come."""

    def __init__(self) -> None:
        self._come: deque[bytes | None] = deque()
        self._resume: Resume | None = None
        self._stream: Stream | None = None

    def open(self, network: Network, process: Process, request: Request, resume: Resume) -> None:
        self._stream = network.watch(process, request, self._take, resume)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.abandon()

    def __aiter__(self) -> _Lines:
        return self

    async def __anext__(self) -> bytes:
        line = self._come.popleft() if self._come else await Await(self._wait)
        if line is None:
            raise StopAsyncIteration
        assert isinstance(line, bytes)
        return line

    def _wait(self, resume: Resume) -> None:
        self._resume = resume

    def _take(self, line: bytes | None) -> None:
        resume, self._resume = self._resume, None
        if resume is None:
            self._come.append(line)
        else:
            resume(line)
