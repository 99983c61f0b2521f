# SPDX-License-Identifier: Apache-2.0
"""The readiness reader against scripted answers; a real API server is in tests/apiserver/test_operator_edges.py."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest

from numamigration_operator.cluster.client import Client, NoAnswerError, Response
from numamigration_operator.cluster.readiness import OPEN_MAX, REST_SECONDS, ReadinessReader


def node(status: str | None) -> Response:
    """Return a Node as the API server has it, with a kubelet's conditions."""
    conditions = [{"type": "MemoryPressure", "status": "False", "lastHeartbeatTime": "2026-01-02T03:04:05Z"}]
    if status is not None:
        conditions.append({"type": "Ready", "status": status, "reason": "KubeletReady"})
    body = {"metadata": {"name": "n"}, "spec": {}, "status": {"conditions": conditions, "images": [{"sizeBytes": 1}]}}
    return Response(200, json.dumps(body).encode())


class Server:
    """Answers each Node as scripted, once it may."""

    def __init__(self, answers: Mapping[str, Response | Exception], *, silent: bool = False) -> None:
        self.paths: list[str] = []
        self.may_answer = asyncio.Event()
        self._answers = answers
        if not silent:
            self.may_answer.set()

    async def request(self, method: str, path: str) -> Response:
        assert method == "GET"
        self.paths.append(path)
        await self.may_answer.wait()
        answer = self._answers.get(path.rpartition("/")[2], node("True"))
        if isinstance(answer, Exception):
            raise answer
        return answer


async def turns() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


class Read:
    """What a reader told, and how long it rested."""

    def __init__(self) -> None:
        self.told: list[tuple[str, bool | None]] = []
        self.rests: list[float] = []

    def on_read(self, name: str, ready: bool | None) -> None:
        self.told.append((name, ready))

    async def rest(self, seconds: float) -> None:
        self.rests.append(seconds)


def read(server: Server, work: Callable[[ReadinessReader], Any]) -> Read:
    """Let `work` ask a reader, and let it come to rest; then answer what is still open."""

    async def inner() -> Read:
        found = Read()
        reader = ReadinessReader(cast("Client", server), found.on_read, found.rest)
        task = asyncio.create_task(reader.run())
        work(reader)
        await turns()
        server.may_answer.set()
        await turns()
        task.cancel()
        await asyncio.wait([task])
        return found

    return asyncio.run(inner())


@pytest.mark.parametrize(
    ("answer", "ready"),
    [
        pytest.param(node("True"), True, id="ready"),
        pytest.param(node("False"), False, id="not ready"),
        pytest.param(node("Unknown"), None, id="its kubelet is silent"),
        pytest.param(node(None), None, id="no kubelet has said anything"),
        pytest.param(Response(200, b'{"metadata": {}}'), None, id="no status"),
        pytest.param(Response(200, b"<html>"), None, id="no JSON"),
        pytest.param(Response(404, b'{"message": "not found"}'), None, id="gone"),
        pytest.param(Response(403, b'{"message": "no right"}'), None, id="no right"),
        pytest.param(NoAnswerError("cut"), None, id="no answer"),
    ],
)
def test_each_node_that_is_asked_for_is_told_of(answer: Response | Exception, ready: bool | None) -> None:
    server = Server({"n": answer})

    assert read(server, lambda reader: reader.ask(["n"])).told == [("n", ready)]
    assert server.paths == ["/api/v1/nodes/n"]


def test_a_node_whose_answer_is_to_come_is_not_asked_for_again() -> None:
    server = Server({}, silent=True)

    def work(reader: ReadinessReader) -> None:
        reader.ask(["n", "m"])
        reader.ask(["n"])

    assert sorted(read(server, work).told) == [("m", True), ("n", True)]
    assert len(server.paths) == 2


def test_a_node_that_was_told_of_can_be_asked_for_again() -> None:
    async def inner() -> int:
        server, found = Server({}), Read()
        reader = ReadinessReader(cast("Client", server), found.on_read, found.rest)
        task = asyncio.create_task(reader.run())
        for _ in range(2):
            reader.ask(["n"])
            await turns()
        task.cancel()
        await asyncio.wait([task])
        return len(found.told)

    assert asyncio.run(inner()) == 2


def test_no_more_requests_are_open_than_allowed_and_all_nodes_are_told_of() -> None:
    async def inner() -> tuple[int, int]:
        server, found = Server({}, silent=True), Read()
        reader = ReadinessReader(cast("Client", server), found.on_read, found.rest)
        task = asyncio.create_task(reader.run())
        reader.ask(f"n{number}" for number in range(3 * OPEN_MAX))
        await turns()
        opened = len(server.paths)
        server.may_answer.set()
        await turns()
        task.cancel()
        await asyncio.wait([task])
        return opened, len(found.told)

    assert asyncio.run(inner()) == (OPEN_MAX, 3 * OPEN_MAX)


def test_after_each_answer_it_rests_as_long_as_the_server_wishes() -> None:
    busy = Server({"busy": Response(429, b"{}", 7.0)})

    assert read(busy, lambda reader: reader.ask(["busy", "n"])).rests == [7.0, REST_SECONDS]


def test_a_missing_right_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    refused = Response(403, b'{"message": "no right"}')

    with caplog.at_level(logging.INFO):
        read(Server({"n": refused, "m": refused}), lambda reader: reader.ask(["n", "m"]))

    assert [vars(record)["error"] for record in caplog.records] == ["no right"]
