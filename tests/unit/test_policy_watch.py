# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import getpass
import logging
import threading
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

import kopf
import msgspec
import pytest

from numamigration_operator.core.objects import PolicyObject
from numamigration_operator.handlers import Deliver, WatchSupervisor, WatchThread

POLICY = msgspec.convert({"metadata": {"name": "p", "uid": "u"}, "spec": {"nodeSelector": {}}}, PolicyObject)


class NoWait(Random):
    """Chance that always says: at once."""

    def uniform(self, a: float, b: float) -> float:  # noqa: ARG002
        return a


class Life:
    """A watch that ends when a test says so."""

    def __init__(self, deliver: Deliver) -> None:
        self.ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        self.deliver = deliver
        self.stopped = asyncio.Event()

    async def stop(self) -> None:
        self.stopped.set()


class Scene:
    """A supervisor, the lives it began, and what it told."""

    def __init__(self) -> None:
        self.lives: asyncio.Queue[Life] = asyncio.Queue()
        self.told: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
        self.supervisor = WatchSupervisor(
            self.begin,
            on_begin=lambda: self.told.put_nowait(("begin",)),
            on_change=lambda policy: self.told.put_nowait(("change", policy)),
            on_gone=lambda uid: self.told.put_nowait(("gone", uid)),
            rng=NoWait(),
        )

    def begin(self, deliver: Deliver) -> Life:
        life = Life(deliver)
        self.lives.put_nowait(life)
        return life


async def let_others_run() -> None:
    """Give every task that could go on a few turns to do so."""
    for _ in range(10):
        await asyncio.sleep(0)


def play(script: Callable[[Scene], Awaitable[None]]) -> None:
    async def inner() -> None:
        scene = Scene()
        task = asyncio.create_task(scene.supervisor.run())
        async with asyncio.timeout(30):
            await script(scene)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(inner())


def test_nothing_is_watched_before_policies_could_be_listed() -> None:
    """Kopf looks for its resource once; too early, it would never watch it."""

    async def script(scene: Scene) -> None:
        await let_others_run()
        assert scene.lives.empty()
        scene.supervisor.policies_listed(blind=False)
        await scene.lives.get()

    play(script)


def test_a_watch_that_ended_is_said_and_begun_anew_after_the_next_list(caplog: pytest.LogCaptureFixture) -> None:
    async def script(scene: Scene) -> None:
        scene.supervisor.policies_listed(blind=False)
        first = await scene.lives.get()
        first.ended.set_result(OSError("gone"))
        await first.stopped.wait()
        await let_others_run()
        assert scene.lives.empty()
        scene.supervisor.policies_listed(blind=False)
        await scene.lives.get()
        assert scene.supervisor.ends == 1

    with caplog.at_level(logging.WARNING):
        play(script)

    assert [vars(record)["reason"] for record in caplog.records] == ["OSError('gone')"]


def test_a_blind_watch_is_stopped_and_begun_anew() -> None:
    async def script(scene: Scene) -> None:
        scene.supervisor.policies_listed(blind=False)
        first = await scene.lives.get()
        scene.supervisor.policies_listed(blind=True)
        await first.stopped.wait()
        scene.supervisor.policies_listed(blind=False)
        second = await scene.lives.get()
        await let_others_run()
        assert not second.stopped.is_set()

    play(script)


def test_what_another_thread_delivers_is_told_on_the_loop_in_order() -> None:
    async def script(scene: Scene) -> None:
        scene.supervisor.policies_listed(blind=False)
        life = await scene.lives.get()

        def elsewhere() -> None:
            life.deliver(None, POLICY)
            life.deliver("MODIFIED", POLICY)
            life.deliver("DELETED", POLICY)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        told = [await scene.told.get() for _ in range(4)]
        thread.join()
        assert told == [("begin",), ("change", POLICY), ("change", POLICY), ("gone", "u")]

    play(script)


def test_kopf_starts_where_the_user_has_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container, whose uid no file of users knows."""

    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 65532")

    monkeypatch.setattr(getpass, "getuser", nameless)

    async def first_sign() -> str:
        """Return what comes first: kopf's question for credentials, or its end."""
        registry, loop = kopf.OperatorRegistry(), asyncio.get_running_loop()
        signs: asyncio.Queue[str] = asyncio.Queue()

        @kopf.on.login(registry=registry)
        async def login(**_: Any) -> None:
            loop.call_soon_threadsafe(signs.put_nowait, "it asks for credentials")
            await asyncio.Event().wait()

        watch = WatchThread(registry)
        watch.ended.add_done_callback(lambda ended: signs.put_nowait(repr(ended.result())))
        sign = await asyncio.wait_for(signs.get(), 30)
        await watch.stop()
        return sign

    assert asyncio.run(first_sign()) == "it asks for credentials"
