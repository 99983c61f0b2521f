# SPDX-License-Identifier: Apache-2.0
"""The applier's driver at the moments that no real server can be made to choose: losing the lease, and the end."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any, cast

import pytest

from numamigration_api.vocabulary import FENCE_MESSAGE
from numamigration_operator.cluster import apply_driver
from numamigration_operator.cluster.applier import Applier, Limits
from numamigration_operator.cluster.apply_driver import ApplyDriver
from numamigration_operator.cluster.client import Client, Response
from numamigration_operator.core.decisions import Patch, Write, WriteKey, WriteKind

STORED = Response(200, b'{"metadata": {"name": "n", "generation": 1}}')
FENCED = Response(422, b'{"message": "' + FENCE_MESSAGE.encode() + b'"}')
WRITE = Write(WriteKey(WriteKind.STATE_SPEC, "node-a"), b"{}")


class Server:
    """Counts requests and answers when it is told to."""

    def __init__(self, answer: Response = STORED) -> None:
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.requests = 0
        self._answer = answer

    async def request(self, *_: Any, **__: Any) -> Response:
        self.requests += 1
        self.asked.set()
        await self.may_answer.wait()
        return self._answer


def driver(
    server: Server,
    *,
    leads: bool = True,
    failed: list[WriteKey] | None = None,
    fenced: list[str] | None = None,
    stored: list[tuple[Write, bytes]] | None = None,
) -> ApplyDriver:
    return ApplyDriver(
        cast("Client", server),
        Applier(Limits(), Random(0)),
        home="home",
        on_stored=lambda *told: (stored if stored is not None else []).append(told),
        on_failure=(failed if failed is not None else []).append,
        on_skew=lambda *_: None,
        on_fenced=(fenced if fenced is not None else []).append,
        may_send=lambda: leads,
    )


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_without_the_lease_nothing_that_was_decided_is_sent() -> None:
    """Promise 8: a process that was stopped beyond its lease wakes up with a full queue."""

    async def inner() -> int:
        server = Server()
        made = driver(server, leads=False)
        made.submit([WRITE])
        task = asyncio.create_task(made.run())
        await turns()
        task.cancel()
        await asyncio.wait([task])
        return server.requests

    assert asyncio.run(inner()) == 0


def test_a_fenced_write_is_told_with_the_object_and_the_servers_words() -> None:
    async def inner() -> list[str]:
        server, fenced = Server(FENCED), list[str]()
        server.may_answer.set()
        made = driver(server, fenced=fenced)
        made.submit([WRITE])
        task = asyncio.create_task(made.run())
        await server.asked.wait()
        await turns()
        task.cancel()
        await asyncio.wait([task])
        return fenced

    assert asyncio.run(inner()) == [f"node-a: {FENCE_MESSAGE}"]


@pytest.mark.parametrize("newer", [(), (Write(WRITE.key, b'{"newer": 1}'),)], ids=["alone", "a newer one follows"])
def test_a_refused_write_is_told_unless_a_newer_one_for_its_place_follows(newer: tuple[Write, ...]) -> None:
    """Promise 7: the newer one would be taken for failed too, and be sent all the same, with what nobody counts on."""

    async def inner() -> list[WriteKey]:
        server, failed = Server(Response(409, b"{}")), list[WriteKey]()
        made = driver(server, failed=failed)
        made.submit([WRITE])
        task = asyncio.create_task(made.run())
        await server.asked.wait()
        made.submit(newer)
        server.may_answer.set()
        await turns()
        task.cancel()
        await asyncio.wait([task])
        return failed

    assert asyncio.run(inner()) == ([] if newer else [WRITE.key])


@pytest.mark.parametrize(
    ("write", "told"),
    [
        pytest.param(WRITE, [(WRITE, STORED.body)], id="an apply"),
        pytest.param(Write(WRITE.key, b"{}", patch=Patch.MERGE), [], id="a merge patch, which drops what is unknown"),
        pytest.param(Write(WRITE.key, b"{}", patch=Patch.DELETE), [], id="a deletion"),
    ],
)
def test_what_was_stored_as_it_was_decided_is_told_with_the_answer(
    write: Write, told: list[tuple[Write, bytes]]
) -> None:
    async def inner() -> list[tuple[Write, bytes]]:
        server, stored = Server(), list[tuple[Write, bytes]]()
        server.may_answer.set()
        made = driver(server, stored=stored)
        made.submit([write])
        task = asyncio.create_task(made.run())
        await server.asked.wait()
        await turns()
        task.cancel()
        await asyncio.wait([task])
        return stored

    assert asyncio.run(inner()) == told


@pytest.mark.parametrize("answers", [True, False], ids=["answered in time", "not answered"])
def test_the_end_waits_a_moment_for_open_requests_and_tells_whether_any_is_left(
    answers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 8: the lease is given back only when nothing of ours can arrive any more."""
    monkeypatch.setattr(apply_driver, "DRAIN_SECONDS_MAX", 30.0 if answers else 0.01)

    async def inner() -> bool:
        server = Server()
        made = driver(server)
        made.submit([WRITE])
        task = asyncio.create_task(made.run())
        await server.asked.wait()
        task.cancel()
        await turns()
        if answers:
            server.may_answer.set()
        await asyncio.wait([task])
        return made.drained

    assert asyncio.run(inner()) is answers
