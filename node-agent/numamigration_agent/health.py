# SPDX-License-Identifier: Apache-2.0
"""Liveness and readiness over HTTP, for the probes of a pod: what the agent says, and the small server that says it.

* Alive: the main thread answers, which has every decision and every report behind it. A kernel file that does not
  answer keeps a thread of its own, and is no reason to restart: a restart would mend nothing (promise 10).
* Ready: the API server has stored a report of this life of the agent. A rolling update of the agents waits for that.
  An agent that was ready stays so while the API server is away: nothing that is asked of it is missing then.
* http.server and what it imports would be a megabyte for as long as the agent runs; two answers need none of it.
* One connection at a time, each for a bounded time: whoever keeps this busy can have the agent restarted, which
  changes no knob (promise 6).

Source: Kubernetes documentation, "Configure Liveness, Readiness and Startup Probes".
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final, NamedTuple

from numamigration_agent.cluster import ApplyKind, StateGone, StateSeen
from numamigration_agent.events import Event, ReportDone

ANSWER_SECONDS_MAX: Final = 2.0
"""The main thread computes for milliseconds; probes must wait longer than this."""
REQUEST_SECONDS_MAX: Final = 1.0
REQUEST_BYTES_MAX: Final = 4096
BACKLOG: Final = 8

Address = tuple[str, int]


class Finding(NamedTuple):
    """What a check says."""

    ok: bool
    why: str


class Ping:
    """Asks the main thread for a sign of life; it goes through the same queue as everything else."""

    def __init__(self) -> None:
        self._answer: SimpleQueue[None] = SimpleQueue()

    def answer(self) -> None:
        """Give the sign."""
        self._answer.put(None)

    def is_answered(self, seconds: float) -> bool:
        """Wait for it, at most so long."""
        try:
            self._answer.get(timeout=seconds)
        except Empty:
            return False
        return True


class Health:
    """What the checks are made from.

    Args:
        ask: puts a Ping into the queue of the main thread.
    """

    def __init__(self, ask: Callable[[Ping], None]) -> None:
        self._ask = ask
        self._ready = Finding(False, "the API server has not been read yet")

    def heard(self, event: Event) -> None:
        """Take in what the main thread hears."""
        match event:
            case StateGone():
                self._ready = Finding(False, "there is no node state of this node; the operator makes it")
            case StateSeen() if not self._ready.ok:
                self._ready = Finding(False, "no report is stored yet")
            case ReportDone(result) if result.kind is ApplyKind.APPLIED:
                self._ready = Finding(True, "reports are stored")
            case ReportDone(result) if not self._ready.ok:
                self._ready = Finding(False, f"no report is stored yet: {result.message}")
            case _:
                pass

    def liveness(self) -> Finding:
        """Return whether the main thread still turns."""
        ping = Ping()
        self._ask(ping)
        if ping.is_answered(ANSWER_SECONDS_MAX):
            return Finding(True, "alive")
        return Finding(False, f"the main thread has not answered for {ANSWER_SECONDS_MAX:g} s")

    def readiness(self) -> Finding:
        """Return whether the API server has a report of this process."""
        return self._ready


class HealthServer:
    """Answers GET /healthz and /readyz with a line of plain text that says why.

    Args:
        address: host and port; no host that is a name.

    Raises:
        OSError: nothing can listen there.
    """

    def __init__(self, address: Address, health: Health) -> None:
        self._listener = socket.create_server(address, family=family_of(address[0]), backlog=BACKLOG)
        self._checks = {b"/healthz": health.liveness, b"/readyz": health.readiness}
        self.port: int = self._listener.getsockname()[1]

    def start(self) -> None:
        """Serve on a thread of its own, which never keeps the process."""
        threading.Thread(target=self._serve, name="health", daemon=True).start()

    def close(self) -> None:
        """Let go of the port."""
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                if self._listener.fileno() < 0:
                    return
                time.sleep(REQUEST_SECONDS_MAX)  # out of descriptors, for example: others may give some back
                continue
            with connection:
                try:
                    connection.sendall(self._answer(_read_head(connection)))
                except OSError:
                    continue  # whoever asked is gone, or says nothing

    def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b" ")
        check = self._checks.get(rest.partition(b" ")[0].partition(b"?")[0])
        if method != b"GET":
            return _response(b"405 Method Not Allowed", "only GET is answered here")
        if check is None:
            return _response(b"404 Not Found", "/healthz and /readyz are here")
        finding = check()
        return _response(b"200 OK" if finding.ok else b"503 Service Unavailable", finding.why)


def family_of(host: str) -> socket.AddressFamily:
    """Return the family of an IP address."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _read_head(connection: socket.socket) -> bytes:
    """Return the head of a request, or as much as came in time."""
    head, until = b"", time.monotonic() + REQUEST_SECONDS_MAX
    while b"\r\n\r\n" not in head and len(head) < REQUEST_BYTES_MAX:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        part = connection.recv(REQUEST_BYTES_MAX)
        if not part:
            break
        head += part
    connection.settimeout(REQUEST_SECONDS_MAX)
    return head


def _response(status: bytes, text: str) -> bytes:
    body = f"{text}\n".encode()
    head = b"HTTP/1.1 %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    return head % (status, len(body)) + body
