# SPDX-License-Identifier: Apache-2.0
"""A fleet that runs: ``async with Fleet(...)``. One task and one timer an agent, on one event loop."""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from fnmatch import fnmatchcase
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar, assert_never

import aiohttp

from numamigration_agent.cluster import Answer, ApplyKind, StateEvent, StateGone, StateSeen, read_event
from numamigration_agent.events import Event, ReportDone
from numamigration_api.machinery.clock import NEVER
from numamigration_api.machinery.listwatch import ListPage, ListWatch, Wait, Watch
from tests.fleet.cast import DEFAULTS, Pace, Part
from tests.fleet.client import Access, Client, no_answer
from tests.fleet.node import FleetNode
from tests.twin.machine import temporary_folder

log = logging.getLogger(__name__)

T = TypeVar("T")

CONNECTIONS: Final = 16
NODES: Final = "/api/v1/nodes"
PAGE_KIB: Final = resource.getpagesize() // 1024


class Fleet:
    """Agents and their Nodes, from ``__aenter__`` to ``__aexit__``. The Nodes stay.

    Args:
        access: which API server, as whom.
        parts: which nodes.
        pace: settings of each agent.
        connections: at most, for what is no watch.
        seed: of chance, so that two fleets of one process differ.
    """

    def __init__(
        self,
        access: Access,
        parts: Iterable[Part],
        pace: Pace = DEFAULTS,
        *,
        connections: int = CONNECTIONS,
        seed: str = "fleet",
    ) -> None:
        self._client = Client(access, connections)
        self._parts, self._pace, self._seed = tuple(parts), pace, seed
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._reporting: set[asyncio.Task[None]] = set()
        self.nodes: dict[str, FleetNode] = {}
        self.reports: int = 0

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self.crash: asyncio.Future[None] = self._loop.create_future()
        """Has the error of the first agent that ended with one."""
        async with AsyncExitStack() as cleanup:
            await cleanup.enter_async_context(self._client)
            self._folder = Path(cleanup.enter_context(temporary_folder("fleet-")))
            cleanup.push_async_callback(self._end)
            for part in self._parts:
                await self.add(part)
            self._cleanup = cleanup.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._cleanup.aclose()

    async def add(self, part: Part) -> None:
        """Let nodes join: their Nodes are made, then their agents start."""
        made = [self._make(part, number) for number in range(part.count)]
        answers = await asyncio.gather(*(self._register(node) for node in made))
        refused = [answer for answer in answers if answer.status not in {200, 201}]
        if refused:
            raise OSError(f"{len(refused)} Nodes could not be made: {refused[0]}")
        for node in made:
            self.start(node)

    def _make(self, part: Part, number: int) -> FleetNode:
        member = part.member(number)
        seed = f"{self._seed} {member.name}"
        node = FleetNode(member, self._folder / member.name, self._pace.timing, seed, self._loop.time())
        self.nodes[member.name] = node
        return node

    async def _register(self, node: FleetNode) -> Answer:
        name, labels = node.member.name, node.member.labels
        body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
        return await self._client.apply(f"{NODES}/{name}", body)

    async def _end(self) -> None:
        for node in self.nodes.values():
            self.stop(node)
        tasks = [*self._watches.values(), *self._reporting]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- what can be done to nodes

    def select(self, pattern: str) -> list[FleetNode]:
        """Return the nodes whose name matches a shell pattern."""
        return [node for name, node in self.nodes.items() if fnmatchcase(name, pattern)]

    def start(self, node: FleetNode) -> None:
        """Start a node's agent, or end it and start another one."""
        self.stop(node)
        node.start()
        task = self._loop.create_task(self._follow(node), name=node.member.name)
        task.add_done_callback(self._ended)
        self._watches[node.member.name] = task
        self._send(node, None)

    def stop(self, node: FleetNode) -> None:
        """End a node's agent; it says nothing any more, and its watch is closed."""
        node.stop()
        name = node.member.name
        if (watch := self._watches.pop(name, None)) is not None:
            watch.cancel()
        if (timer := self._timers.pop(name, None)) is not None:
            timer.cancel()

    def reboot(self, node: FleetNode) -> None:
        """Boot a node anew, with its agent."""
        node.reboot()
        self.start(node)

    def do(self, node: FleetNode, change: Callable[[], T]) -> T:
        """Change something about a node at this moment, and let its agent look at the time."""
        node.pass_time(self._loop.time())
        result = change()
        if node.running:
            self._send(node, None)
        return result

    # --- what runs

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._crashed(error)

    def _crashed(self, error: BaseException) -> None:
        log.error("an agent crashed", exc_info=error)
        if not self.crash.done():
            self.crash.set_exception(error)

    def _send(self, node: FleetNode, event: Event | None) -> None:
        """Hand an event to an agent, or a tick; carry out what it asks for; set its timer."""
        name, now = node.member.name, self._loop.time()
        try:
            statuses = node.tick(now) if event is None else node.handle(event, now)
        except Exception as error:  # noqa: BLE001  # an agent that limps would look alive
            self._crashed(error)
            return
        for status in statuses:
            task = self._loop.create_task(self._report(node, status))
            self._reporting.add(task)
            task.add_done_callback(self._reporting.discard)
        if (timer := self._timers.pop(name, None)) is not None:
            timer.cancel()
        due = node.due_at()
        if due < NEVER:
            self._timers[name] = self._loop.call_at(due, self._send, node, None)

    async def _report(self, node: FleetNode, status: Mapping[str, Any]) -> None:
        life = node.life
        result = await self._client.apply_status(node.member.name, status)
        if result.kind is ApplyKind.APPLIED:
            self.reports += 1
        else:
            log.info("status not applied", extra={"state": node.member.name, "problem": result.message})
        self._hand(node, life, ReportDone(result))

    def _hand(self, node: FleetNode, life: int, event: StateEvent | ReportDone) -> None:
        if node.running and node.life == life:
            self._send(node, event)

    async def _follow(self, node: FleetNode) -> None:
        """List and watch one node state, as ``StateWatcher`` does on a thread."""
        machine, found = ListWatch(node.rng), None
        await asyncio.sleep(node.rng.uniform(0.0, self._pace.start_jitter))
        while True:
            match step := machine.next(self._loop.time()):
                case Wait():
                    await asyncio.sleep(max(0.0, step.until - self._loop.time()))
                case ListPage():
                    found = await self._list(machine, step, node, found if step.continue_token else None)
                case Watch():
                    await self._watch(machine, step, node)
                case _:
                    assert_never(step)

    async def _list(
        self, machine: ListWatch, step: ListPage, node: FleetNode, found: Mapping[str, Any] | None
    ) -> Mapping[str, Any] | None:
        """Read a page, of which some may be empty; return the node state that was found so far."""
        life = node.life
        page, now = await self._client.page(step, node.member.name), self._loop.time()
        if isinstance(page, Answer):
            machine.failed(now, status=page.status, retry_after=page.retry_after)
            return None
        found = page.items[0] if page.items else found
        if machine.page_read(now, resource_version=page.resource_version, continue_token=page.continue_token):
            self._hand(node, life, StateGone() if found is None else StateSeen(found))
        return found

    async def _watch(self, machine: ListWatch, step: Watch, node: FleetNode) -> None:
        try:
            async with self._client.watch(step, node.member.name) as lines:
                failure = lines if isinstance(lines, Answer) else await self._take(machine, lines, node)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            failure = no_answer(error)
        now = self._loop.time()
        if failure is None:
            machine.watch_ended(now)
        else:
            machine.failed(now, status=failure.status, retry_after=failure.retry_after)

    async def _take(self, machine: ListWatch, lines: AsyncIterator[bytes], node: FleetNode) -> Answer | None:
        life = node.life
        async for line in lines:
            event = read_event(line)
            if isinstance(event, Answer):
                return event
            machine.event_read(self._loop.time(), event.resource_version)
            if event.state is not None:
                self._hand(node, life, event.state)
        return None

    # --- how it is

    def facts(self) -> dict[str, Any]:
        """Return what the fleet as a whole does and costs."""
        for node in self.nodes.values():
            node.pass_time(self._loop.time())
        usage = resource.getrusage(resource.RUSAGE_SELF)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return {
            "nodes": len(self.nodes),
            "running": sum(node.running for node in self.nodes.values()),
            "offloading": sum(node.offloads for node in self.nodes.values()),
            "reports": self.reports,
            "rssKiB": pages * PAGE_KIB,
            "cpuSeconds": round(usage.ru_utime + usage.ru_stime, 3),
        }
