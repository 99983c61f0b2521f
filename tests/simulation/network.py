# SPDX-License-Identifier: Apache-2.0
"""What lies between a client and the API server: time, and what goes wrong on the way.

Requests of one client may overtake each other; so may watches of different kinds. Events of one watch never do: they
come over one connection. A watch that loses something says so by ending, since TCP does.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from math import inf
from random import Random
from typing import Final, NamedTuple

from numamigration_operator.cluster.client import Response
from tests.simulation.clock import Process
from tests.simulation.server import Change, Refusal, Request, SimServer, error, error_line, fits

LATENCY_SECONDS: Final = (0.001, 0.02)
REQUEST_SECONDS_MAX: Final = 30.0
"""After which a client takes a request for lost, whatever becomes of it."""
LATE_SECONDS: Final = (5.0, 60.0)
RETRY_AFTER_SECONDS: Final = 1.0
BOOKMARK_SECONDS: Final = 60.0
EFFECTLESS: Final = {"409": 409, "429": 429, "500": 500, "503": 503}
"""Faults by which the server does nothing, with their codes."""
REQUEST_FAULTS: Final = (*EFFECTLESS, "500 after", "timeout", "lost answer", "late")
"""500 after: stored, and then 500. timeout: never arrives. lost answer: stored. late: arrives long after the client
has given up, or not quite."""
STREAM_FAULTS: Final = ("cut", "duplicate", "slow")

Place = tuple[str, int, str]
"""A life of a client, and a path."""


class Sent(NamedTuple):
    """When a body was sent to a place first, and since when it may have waited for that.

    A place has one request at a time: what was decided while one is open, or is to be repeated, goes after it.
    """

    at: float
    waits: float


OnAnswer = Callable[[Response | None], None]
Classify = Callable[[Request], Iterable[str]]
"""Names the steps of the protocol that a request may be."""


@dataclass
class Weather:
    """What goes wrong for one client.

    Attributes:
        requests: faults of its next requests, one each.
        until: when the connection is back that is away now.
        slow: seconds by which each event of its watches is late, by collection.
        duplicates: how many of the next events come twice.
    """

    requests: deque[str] = field(default_factory=deque)
    until: float = 0.0
    slow: dict[str, float] = field(default_factory=dict)
    duplicates: int = 0

    def clear(self) -> None:
        """Let nothing go wrong any more."""
        self.requests.clear()
        self.until, self.duplicates = 0.0, 0
        self.slow.clear()


class Stream:
    """A watch that is open: lines come to `on_line`, and None at its end.

    Attributes:
        closed: nothing comes any more.
        collection: of what it watches.
    """

    def __init__(
        self, network: Network, process: Process, request: Request, on_line: Callable[[bytes | None], None]
    ) -> None:
        self.closed = False
        self.request = request
        self._network, self._process, self._on_line = network, process, on_line
        self.collection = request.collection
        self._last = 0.0

    def tell(self, change: Change) -> None:
        """Take an event that it watches."""
        self.send(change.line)
        weather = self._network.weather_of(self.request.client)
        if weather.duplicates:
            weather.duplicates -= 1
            self._network.seen("duplicate", self.request)
            self.send(change.line)

    def send(self, line: bytes | None) -> None:
        """Let a line arrive after those before it."""
        network = self._network
        late = network.weather_of(self.request.client).slow.get(self.collection, 0.0)
        self._last = max(self._last, network.clock.now + network.latency() + late)
        arrive = self._process.mine(lambda: self._arrive(line))
        network.clock.at(self._last, arrive, order=1.0 + network.count() * 1e-9)

    def _arrive(self, line: bytes | None) -> None:
        if not self.closed:
            self.closed = line is None
            self._on_line(line)

    def abandon(self) -> None:
        """Stop listening."""
        self.closed = True
        self._network.forget(self)

    def cut(self) -> None:
        """End it; what was sent already arrives."""
        self._network.forget(self)
        self.send(None)


class Network:
    """Between all clients and the server.

    Attributes:
        on_read: told of every request that reads, once it has arrived.
        on_write: told of every request that writes, also where that changes nothing.
        sent: the bodies that a life of a client has sent to a path, in that order.
    """

    def __init__(
        self, server: SimServer, rng: Random, classify: Classify, on_fault: Callable[[str, Request], None]
    ) -> None:
        self.clock = server.host.clock
        self.seen = on_fault
        self.on_read: Callable[[Request], None] = _unheard
        self.on_write: Callable[[Request], None] = _unheard
        self.sent: dict[Place, dict[bytes, Sent]] = defaultdict(dict)
        self._last: dict[Place, tuple[float, float]] = {}  # sent at, and until when the next one waits for its answer
        self._classify = classify
        self._aimed: dict[str, str] = {}
        self._awaited: dict[str, Callable[[Request], None]] = {}
        self._server, self._rng = server, rng
        self._weather: dict[str, Weather] = {}
        self._streams: list[Stream] = []
        self._count = 0
        server.watchers.append(self._tell)

    def latency(self) -> float:
        """Return how long a message takes."""
        return self._rng.uniform(*LATENCY_SECONDS)

    def count(self) -> int:
        """Return a number that grows."""
        self._count += 1
        return self._count

    def weather_of(self, client: str) -> Weather:
        """Return what goes wrong for a client; replicas of a process have one client name each."""
        weather = self._weather.get(client)
        if weather is None:
            weather = self._weather[client] = Weather()
        return weather

    def calm(self) -> None:
        """Let nothing go wrong any more."""
        self._aimed.clear()
        self._awaited.clear()
        for weather in self._weather.values():
            weather.clear()

    def aim(self, step: str, fault: str) -> None:
        """Let the next request that takes a step of the protocol meet a fault, whoever sends it."""
        self._aimed[step] = fault

    def wait_for(self, step: str, then: Callable[[Request], None]) -> None:
        """Call `then` once, right after a request that takes a step of the protocol was sent."""
        self._awaited[step] = then

    def _fault_of(self, request: Request, weather: Weather) -> str:
        fault = weather.requests.popleft() if weather.requests else ""
        steps = tuple(self._classify(request)) if self._aimed or self._awaited else ()
        for then in [self._awaited.pop(step) for step in steps if step in self._awaited]:
            self.clock.after(0.0, partial(then, request))
        if not fault:
            step = next((step for step in steps if step in self._aimed), "")
            fault = self._aimed.pop(step, "")
        if fault:
            self.seen(fault, request)
        return fault

    # --- requests

    def send(
        self, process: Process, request: Request, on_answer: OnAnswer, give_up_after: float = REQUEST_SECONDS_MAX
    ) -> None:
        """Send a request of a process; None is told when no answer came in time."""
        if request.writes:
            on_answer = self._note(request, on_answer)
        weather = self.weather_of(request.client)
        exchange = _Exchange(self, process, on_answer)
        if weather.until > self.clock.now:
            process.at(self.clock.now + self.latency(), exchange.give_up)
            return
        fault = self._fault_of(request, weather)
        if fault in {"timeout", "lost answer", "late"}:
            process.at(self.clock.now + give_up_after, exchange.give_up)
        if fault == "timeout":
            return
        late = self._rng.uniform(*LATE_SECONDS) if fault == "late" else 0.0
        self.clock.after(self.latency() + late, lambda: self._arrive(exchange, request, fault))

    def _note(self, request: Request, on_answer: OnAnswer) -> OnAnswer:
        """Note when a write was sent, and for how long others of its place wait; return what hears its answer."""
        place, now = (request.client, request.life, request.path), self.clock.now
        before, until = self._last.get(place, (now, now))
        self.sent[place].setdefault(request.body, Sent(now, before if now <= until else now))
        self._last[place] = now, inf

        def heard(answer: Response | None) -> None:
            if answer is not None and answer.status < 300:
                self._last[place] = now, self.clock.now + LATENCY_SECONDS[1]
            on_answer(answer)

        return heard

    def _arrive(self, exchange: _Exchange, request: Request, fault: str) -> None:
        if fault in EFFECTLESS and (fault != "409" or request.writes):
            retry_after = RETRY_AFTER_SECONDS if fault == "429" else None
            answer = error(EFFECTLESS[fault], f"made up: {fault}", retry_after)
        else:
            answer = self._server.handle(request)
            (self.on_write if request.writes else self.on_read)(request)
        if fault == "lost answer":
            return
        if fault == "500 after":
            answer = error(500, "made up: etcdserver: request timed out")
        exchange.answer(answer)

    # --- watches

    def watch(
        self, process: Process, request: Request, on_line: Callable[[bytes | None], None], on_answer: OnAnswer
    ) -> Stream:
        """Open a watch; `on_answer` is told once whether it is open."""
        stream = Stream(self, process, request, on_line)
        weather = self.weather_of(request.client)
        fault = self._fault_of(request, weather)
        if fault in {"timeout", "late", "lost answer"} or weather.until > self.clock.now:
            process.at(self.clock.now + self.latency(), lambda: on_answer(None))
            return stream
        if fault in EFFECTLESS:
            process.at(
                self.clock.now + self.latency(), lambda: on_answer(error(EFFECTLESS[fault], f"made up: {fault}"))
            )
            return stream
        self.clock.after(self.latency(), lambda: self._open(stream, process, on_answer))
        return stream

    def _open(self, stream: Stream, process: Process, on_answer: OnAnswer) -> None:
        self.on_read(stream.request)
        process.at(self.clock.now + self.latency(), lambda: on_answer(Response(200, b"")))
        try:
            changes = self._server.since(stream.request.collection, stream.request.query)
        except Refusal as refusal:
            stream.send(error_line(refusal.status, str(refusal)))
            stream.send(None)
            return
        for change in changes:
            stream.send(change.line)
        self._streams.append(stream)
        seconds = float(stream.request.query["timeoutSeconds"])
        self.clock.after(seconds, stream.cut)
        self.clock.after(BOOKMARK_SECONDS, lambda: self._bookmark(stream))

    def _bookmark(self, stream: Stream) -> None:
        if stream in self._streams:
            stream.send(self._server.bookmark())
            self.clock.after(BOOKMARK_SECONDS, lambda: self._bookmark(stream))

    def forget(self, stream: Stream) -> None:
        """Let a watch hear of nothing more."""
        if stream in self._streams:
            self._streams.remove(stream)

    def cut(self, client: str) -> None:
        """End every watch of a client."""
        for stream in [one for one in self._streams if one.request.client == client]:
            self.seen("cut", stream.request)
            stream.cut()

    def drop_all(self, client: str) -> None:
        """Forget the watches of a client that is gone."""
        self._streams = [one for one in self._streams if one.request.client != client]

    def _tell(self, change: Change) -> None:
        collection, name, labels = change.collection, change.name, change.labels
        for stream in [one for one in self._streams if one.collection == collection]:
            if fits(name, labels, stream.request.query):
                stream.tell(change)


class _Exchange:
    """One request until its answer came, or until its client does not wait any more."""

    def __init__(self, network: Network, process: Process, on_answer: OnAnswer) -> None:
        self._network, self._process, self._on_answer = network, process, on_answer
        self._over = False
        self._life = process.lives

    def give_up(self) -> None:
        self._end(None)

    def answer(self, answer: Response) -> None:
        if self._process.lives == self._life:
            self._process.at(self._network.clock.now + self._network.latency(), lambda: self._end(answer))

    def _end(self, answer: Response | None) -> None:
        if not self._over:
            self._over = True
            self._on_answer(answer)


def _unheard(_request: Request) -> None:
    pass
