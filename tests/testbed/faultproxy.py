# SPDX-License-Identifier: Apache-2.0
"""An HTTPS proxy on loopback, between the processes under test and the kube-apiserver, that misbehaves when told to.

    with FaultProxy.before(control_plane) as proxy:
        proxy.inject(Fault(Match(method="PATCH"), Answer(503), times=3))
        proxy.wait_seen(Match(method="PATCH"), 4)

* A fault is plain data: which requests, what happens to them, how often. The first one that fits a request has it.
* It keeps what passed, so a test counts writes as the API server sees them, without a look into our programs.
* A watch goes through line by line, as the API server sends it; any other answer goes through as a whole.
* An API server that is away looks as it is: the client's connection is cut without an answer.
* Times are ``time.monotonic()`` seconds of this process.

Sources: RFC 9112 (HTTP/1.1); Kubernetes API concepts, "Efficient detection of changes" (lines of a watch, ERROR).
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qs, urlsplit

from tests.testbed.api import REQUEST_SECONDS_MAX, WAIT_SECONDS_MAX
from tests.testbed.controlplane import ADDRESS, ControlPlane, free_ports
from tests.testbed.errors import WaitTimeoutError

WATCH_SECONDS_MAX: Final = 600.0
"""A watch of ours asks for no more, and hears a bookmark each minute."""

PIECE_BYTES: Final = 1 << 16
ACCEPT_POLL_SECONDS: Final = 0.02
"""How soon the accepting thread ends; it waits for nothing else."""

LIMIT: Final = re.compile(r"(?<=[?&]limit=)\d+")

HOP_BY_HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "te", "upgrade"})
"""RFC 9110 section 7.6.1: for one connection only, so each side has its own."""


# --- faults, as data ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Match:
    """Which requests are meant; what is left out fits all.

    Attributes:
        method: HTTP method.
        path: regular expression, searched in path and query.
        agent: beginning of the User-Agent.
        token: bearer token.
        watch: whether it is a watch.
    """

    method: str = ""
    path: str = ""
    agent: str = ""
    token: str = field(default="", repr=False)
    watch: bool | None = None

    def fits(self, seen: Exchange) -> bool:
        """Return whether `seen` is meant."""
        return (
            self.method in {"", seen.method}
            and re.search(self.path, seen.target) is not None
            and seen.agent.startswith(self.agent)
            and self.token in {"", seen.token}
            and self.watch in {None, seen.watch}
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer in place of the API server, as it does: a Status object."""

    status: int
    retry_after: int | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """Cut the connection without an answer; with `forward` the API server has done what was asked by then."""

    forward: bool = False


@dataclass(frozen=True, slots=True)
class CutAnswer:
    """Cut the connection after the first half of the answer; no watches."""


@dataclass(frozen=True, slots=True)
class Stall:
    """Say nothing until the fault is cleared, then go on; with `forward` the API server is asked before the silence."""

    forward: bool = False


@dataclass(frozen=True, slots=True)
class Trickle:
    """Send the answer in pieces of `size` bytes with `seconds` between them; no watches."""

    size: int
    seconds: float


@dataclass(frozen=True, slots=True)
class CutWatch:
    """Let `lines` lines of a watch through, then half of the next one, and cut."""

    lines: int = 0


@dataclass(frozen=True, slots=True)
class FailWatch:
    """Let `lines` lines of a watch through, then send an ERROR event with `code`, and end it in order."""

    code: int
    lines: int = 0


@dataclass(frozen=True, slots=True)
class SmallPages:
    """Ask for list pages of `limit` objects, whatever the client asks for: a few objects are many pages then."""

    limit: int


Action = Answer | Cut | CutAnswer | Stall | Trickle | CutWatch | FailWatch | SmallPages


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to which requests.

    Attributes:
        times: so many requests, then no more; None means until it is cleared.
        skip: so many fitting requests go through before.
    """

    match: Match
    action: Action
    times: int | None = None
    skip: int = 0


@dataclass(slots=True)
class Exchange:
    """One request that came, and what its client was told.

    Attributes:
        target: path and query.
        at: when it came.
        status: of the answer; None while there is none, and when there never was one.
        ended_at: when the answer, or the connection, had ended; None before.
        lines: of a watch that were passed on.
    """

    method: str
    target: str
    agent: str
    token: str = field(repr=False)
    body: bytes
    at: float
    status: int | None = None
    ended_at: float | None = None
    lines: int = 0

    @property
    def path(self) -> str:
        """Path without the query."""
        return urlsplit(self.target).path

    @property
    def watch(self) -> bool:
        """Whether a watch was asked for."""
        return parse_qs(urlsplit(self.target).query).get("watch", [""])[0] in {"true", "1"}

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(slots=True)
class _Active:
    """A fault in force."""

    fault: Fault
    skip: int
    left: int | None
    cleared: threading.Event = field(default_factory=threading.Event)

    def take(self, seen: Exchange) -> bool:
        """Return whether the fault has this request, and count it."""
        if self.left == 0 or not self.fault.match.fits(seen):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.left = None if self.left is None else self.left - 1
        return True


class _CutError(Exception):
    """End the client's connection here and now."""


# --- the proxy ---------------------------------------------------------------------------------------------------


class FaultProxy:
    """Serves on loopback from ``__enter__`` to ``__exit__``.

    Args:
        upstream: URL of the API server.
        ca: authority that signed its certificate.
        certificate: that clients are shown, with its `key`.
        key: of the certificate.
    """

    def __init__(self, upstream: str, ca: Path, certificate: Path, key: Path) -> None:
        self._upstream = urlsplit(upstream)
        self._upstream_tls = ssl.create_default_context(cafile=str(ca))
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificate, key)
        (self._port,) = free_ports(1)
        self._news = threading.Condition()
        self._exchanges: list[Exchange] = []
        self._active: list[_Active] = []
        self._sockets: set[socket.socket] = set()
        self._server: _Server | None = None

    @classmethod
    def before(cls, control_plane: ControlPlane) -> FaultProxy:
        """Return a proxy that stands in front of `control_plane` and whose certificate its clients trust."""
        return cls(control_plane.server, control_plane.ca, *control_plane.serving_certificate)

    def __repr__(self) -> str:
        return f"<FaultProxy {self.url}: {len(self._exchanges)} requests, {self.active}>"

    def __enter__(self) -> Self:
        self.accept()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refuse()

    @property
    def url(self) -> str:
        """Where clients find it; stays the same."""
        return f"https://{ADDRESS}:{self._port}"

    # --- what goes wrong -----------------------------------------------------------------------------------------

    def inject(self, *faults: Fault) -> None:
        """Put faults in force, after those that are."""
        with self._news:
            self._active += [_Active(fault, fault.skip, fault.times) for fault in faults]

    def clear(self) -> None:
        """End all faults; what is stalled goes on."""
        with self._news:
            ended, self._active = self._active, []
        for one in ended:
            one.cleared.set()

    @property
    def active(self) -> list[Fault]:
        """Faults that still wait for a request."""
        with self._news:
            return [one.fault for one in self._active if one.left != 0]

    def refuse(self) -> None:
        """End all faults, cut every connection and refuse new ones, as a machine does that has no such server."""
        self.clear()
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            self.cut_connections()
            server.server_close()

    def accept(self) -> None:
        """Take connections, on the same port as before."""
        self._server = _Server(self, self._port, self._tls)
        threading.Thread(target=self._server.serve_forever, args=(ACCEPT_POLL_SECONDS,), daemon=True).start()

    def cut_connections(self) -> None:
        """Cut every connection, on both sides; new ones are taken if they were."""
        with self._news:
            for one in self._sockets:
                _shut(one)

    # --- what passed ---------------------------------------------------------------------------------------------

    def mark(self) -> int:
        """Return the place in the record where the next request will stand."""
        with self._news:
            return len(self._exchanges)

    def seen(self, match: Match, *, since: int = 0, status: int | None = None) -> list[Exchange]:
        """Return the requests that fit, oldest first.

        Args:
            match: which are meant.
            since: a mark; earlier ones are left out.
            status: only those that were answered so.
        """
        with self._news:
            return self._seen(match, since, status)

    def wait_seen(
        self,
        match: Match,
        count: int = 1,
        *,
        since: int = 0,
        status: int | None = None,
        timeout: float = WAIT_SECONDS_MAX,
    ) -> list[Exchange]:
        """Return the requests that fit as soon as there are `count`; parameters as for ``seen``.

        Raises:
            WaitTimeoutError: not so many within `timeout` seconds.
        """
        with self._news:
            if not self._news.wait_for(lambda: len(self._seen(match, since, status)) >= count, timeout):
                came = len(self._seen(match, since, status))
                raise WaitTimeoutError(f"{count} of {match} with status {status}: {came} after {timeout:g} s")
            return self._seen(match, since, status)

    def wait_lines(self, match: Match, count: int = 1, *, timeout: float = WAIT_SECONDS_MAX) -> None:
        """Return when an open watch that fits has passed on `count` lines in all.

        Raises:
            WaitTimeoutError: not within `timeout` seconds.
        """

        def passed() -> bool:
            return any(one.lines >= count and one.ended_at is None for one in self._seen(match, 0, None))

        with self._news:
            if not self._news.wait_for(passed, timeout):
                raise WaitTimeoutError(f"{count} lines of {match}: not after {timeout:g} s")

    def _seen(self, match: Match, since: int, status: int | None) -> list[Exchange]:
        return [one for one in self._exchanges[since:] if match.fits(one) and status in {None, one.status}]

    # --- one request, on the thread of its connection ------------------------------------------------------------

    def note(self, change: Callable[[], None]) -> None:
        """Change the record, and wake whoever waits for it."""
        with self._news:
            change()
            self._news.notify_all()

    def serve(self, seen: Exchange, client: _Client) -> None:
        """Answer one request, or cut."""
        with self._news:
            self._exchanges.append(seen)
            active = next((one for one in self._active if one.take(seen)), None)
            self._news.notify_all()
        try:
            self._act(active, seen, client)
        finally:
            self.note(lambda: setattr(seen, "ended_at", time.monotonic()))

    def _act(self, active: _Active | None, seen: Exchange, client: _Client) -> None:
        action = active.fault.action if active else None
        if isinstance(action, Answer):
            client.send(*_status_answer(action))
            return
        self._before(action, active)
        target = LIMIT.sub(str(action.limit), seen.target) if isinstance(action, SmallPages) else seen.target
        with closing(self._connect(WATCH_SECONDS_MAX if seen.watch else REQUEST_SECONDS_MAX)) as connection:
            connection.request(seen.method, target, seen.body or None, client.forwarded_headers())
            response = connection.getresponse()
            if isinstance(action, Cut):
                raise _CutError
            if seen.watch and response.status == http.client.OK:
                self._pass_watch(seen, client, response, action)
                return
            body = response.read()
            if active and isinstance(action, Stall):
                active.cleared.wait()
            client.send(response.status, response.getheaders(), body, action)

    @staticmethod
    def _before(action: Action | None, active: _Active | None) -> None:
        if isinstance(action, Cut) and not action.forward:
            raise _CutError
        if active and isinstance(action, Stall) and not action.forward:
            active.cleared.wait()

    def _connect(self, seconds: float) -> http.client.HTTPSConnection:
        connection = http.client.HTTPSConnection(
            str(self._upstream.hostname), self._upstream.port, context=self._upstream_tls, timeout=seconds
        )
        connection.connect()
        self.keep(connection.sock)
        return connection

    def _pass_watch(
        self, seen: Exchange, client: _Client, response: http.client.HTTPResponse, action: Action | None
    ) -> None:
        client.begin_chunks(response.status, response.getheaders())
        for line in _lines(response):
            if isinstance(action, CutWatch) and seen.lines == action.lines:
                client.send_chunk(line[: len(line) // 2])
                raise _CutError
            if isinstance(action, FailWatch) and seen.lines == action.lines:
                break
            client.send_chunk(line)
            self.note(lambda: setattr(seen, "lines", seen.lines + 1))
        if isinstance(action, FailWatch):
            client.send_chunk(json.dumps({"type": "ERROR", "object": _status_object(action.code)}).encode() + b"\n")
        client.send_chunk(b"")

    # --- connections ---------------------------------------------------------------------------------------------

    def keep(self, opened: socket.socket) -> None:
        """Remember a connection, so that it can be cut."""
        with self._news:
            self._sockets = {one for one in self._sockets if one.fileno() >= 0} | {opened}
            if self._server is None:  # it came while the others were cut
                _shut(opened)


class _Server(ThreadingHTTPServer):
    """A thread for each connection; closing waits for all, and comes after their connections were cut."""

    daemon_threads = False
    request_queue_size = 128

    def __init__(self, proxy: FaultProxy, port: int, tls: ssl.SSLContext) -> None:
        self.proxy = proxy
        super().__init__((ADDRESS, port), _Client)
        # The connection's own thread shakes hands, at its first read: a silent client stops no other.
        self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that go away in the middle of anything are what is being tested."""


class _Client(BaseHTTPRequestHandler):
    """One connection of a client; requests follow each other on it."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.proxy.keep(self.connection)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        agent = self.headers.get("User-Agent", "")
        self._exchange = Exchange(self.command, self.path, agent, token, body, time.monotonic())
        try:
            self.server.proxy.serve(self._exchange, self)
        except (_CutError, OSError, http.client.HTTPException):
            self.close_connection = True
            _shut(self.connection)

    do_GET = do_PATCH = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815 - names that http.server looks up

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Keep the terminal for the tests."""

    def forwarded_headers(self) -> dict[str, str]:
        """Return the client's headers; the answer shall be plain, so that it can be cut where we like."""
        dropped = HOP_BY_HOP | {"host", "accept-encoding"}
        return {name: value for name, value in self.headers.items() if name.lower() not in dropped}

    def send(self, status: int, headers: list[tuple[str, str]], body: bytes, action: Action | None = None) -> None:
        """Send a whole answer, unless `action` is about it."""
        self._begin(status, [*headers, ("Content-Length", str(len(body)))])
        if isinstance(action, Trickle):
            for start in range(0, len(body), action.size):
                self.wfile.write(body[start : start + action.size])
                time.sleep(action.seconds)
            return
        cut = isinstance(action, CutAnswer)
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            raise _CutError

    def begin_chunks(self, status: int, headers: list[tuple[str, str]]) -> None:
        """Begin an answer that comes in chunks."""
        self._begin(status, [*headers, ("Transfer-Encoding", "chunked")])

    def send_chunk(self, content: bytes) -> None:
        """Send one chunk; an empty one ends the answer."""
        self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))

    def _begin(self, status: int, headers: list[tuple[str, str]]) -> None:
        *answered, frame = headers
        self.server.proxy.note(lambda: setattr(self._exchange, "status", status))
        self.send_response_only(status)
        for name, value in [*((n, v) for n, v in answered if n.lower() not in HOP_BY_HOP), frame]:
            self.send_header(name, value)
        self.end_headers()


def _lines(response: http.client.HTTPResponse) -> Iterator[bytes]:
    rest = b""
    while piece := response.read1(PIECE_BYTES):
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line + b"\n" for line in lines)
    if rest:
        yield rest


def _status_answer(answer: Answer) -> tuple[int, list[tuple[str, str]], bytes]:
    headers = [("Content-Type", "application/json")]
    if answer.retry_after is not None:
        headers.append(("Retry-After", str(answer.retry_after)))
    return answer.status, headers, json.dumps(_status_object(answer.status)).encode()


def _status_object(code: int) -> dict[str, Any]:
    words = http.client.responses[code]
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": f"{words} (the test says so)",
        "reason": "Expired" if code == http.client.GONE else words.replace(" ", ""),
        "code": code,
    }


def _shut(line: socket.socket) -> None:
    with suppress(OSError):
        # The plain socket's method: the TLS one would take the TLS state from under another thread.
        socket.socket.shutdown(line, socket.SHUT_RDWR)
