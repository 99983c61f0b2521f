# SPDX-License-Identifier: Apache-2.0
"""Liveness, readiness and metrics over HTTP: what the agent says, and the small server that says it.

* Alive: the main thread answers, which has every decision and every report behind it. A kernel file that does not
  answer keeps a thread of its own, and is no reason to restart: a restart would mend nothing (promise 10).
* Ready: the API server has stored a report of this life of the agent. A rolling update of the agents waits for that.
  An agent that was ready stays so while the API server is away: nothing that is asked of it is missing then.
* Metrics: of the status that the main thread would report now.
* http.server and what it imports would be a megabyte for as long as the agent runs; three answers need none of it.
* One connection at a time, each for a bounded time: whoever keeps this busy can have the agent restarted, which
  changes no knob (promise 6).

Source: Kubernetes documentation, "Configure Liveness, Readiness and Startup Probes".
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple

from numamigration_agent.cluster import ApplyKind, StateGone, StateSeen
from numamigration_agent.events import Event, ReportDone

ANSWER_SECONDS_MAX: Final = 2.0
"""The main thread computes for milliseconds; probes must wait longer than this."""
REQUEST_SECONDS_MAX: Final = 1.0
REQUEST_BYTES_MAX: Final = 4096
BACKLOG: Final = 8
OK: Final = "200 OK"
PLAIN: Final = "text/plain; charset=utf-8"

Address = tuple[str, int]


class Finding(NamedTuple):
    """What a check says."""

    ok: bool
    why: str


class Answer(NamedTuple):
    """What is sent: status line without the version, type and text."""

    status: str
    content_type: str
    body: str


class Question:
    """Asks the main thread for a sign of life; it goes through the same queue as everything else.

    Args:
        of_status: whether the status is wanted, too.
    """

    def __init__(self, *, of_status: bool = False) -> None:
        self._of_status = of_status
        self._answer: SimpleQueue[Mapping[str, Any]] = SimpleQueue()

    def answer(self, status: Callable[[], Mapping[str, Any]]) -> None:
        """Give the sign; `status` is called if it is wanted."""
        self._answer.put(status() if self._of_status else {})

    def wait(self, seconds: float) -> Mapping[str, Any] | None:
        """Return what was answered; None when nothing was in that time."""
        try:
            return self._answer.get(timeout=seconds)
        except Empty:
            return None


class Health:
    """What the checks are made from.

    Args:
        ask: puts a Question into the queue of the main thread.
    """

    def __init__(self, ask: Callable[[Question], None]) -> None:
        self._ask = ask
        self._started_at = time.time()
        self._reports: Counter[ApplyKind] = Counter()
        self._stored_at: float | None = None
        self._ready = Finding(False, "the API server has not been read yet")

    def heard(self, event: Event) -> None:
        """Take in what the main thread hears."""
        if isinstance(event, ReportDone):
            self._count(event.result.kind)
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

    def _count(self, kind: ApplyKind) -> None:
        self._reports[kind] += 1
        if kind is ApplyKind.APPLIED:
            self._stored_at = time.time()

    def _asked(self, question: Question) -> Mapping[str, Any] | None:
        self._ask(question)
        return question.wait(ANSWER_SECONDS_MAX)

    def liveness(self) -> Finding:
        """Return whether the main thread still turns."""
        return _hangs() if self._asked(Question()) is None else Finding(True, "alive")

    def metrics(self) -> Answer:
        """Return what Prometheus asks for."""
        from numamigration_agent.metrics import CONTENT_TYPE, Scrape, own_process, render

        status = self._asked(Question(of_status=True))
        if status is None:
            return _told(_hangs())
        text = render(Scrape(status, self._reports, self._stored_at, own_process(self._started_at)))
        return Answer(OK, CONTENT_TYPE, text)

    def readiness(self) -> Finding:
        """Return whether the API server has a report of this process."""
        return self._ready


class HealthServer:
    """Answers GET /healthz and /readyz with a line of plain text that says why, and /metrics in the text format.

    Args:
        address: host and port; no host that is a name.

    Raises:
        OSError: nothing can listen there.
    """

    def __init__(self, address: Address, health: Health) -> None:
        self._listener = socket.create_server(address, family=family_of(address[0]), backlog=BACKLOG)
        self._pages: Mapping[bytes, Callable[[], Answer]] = {
            b"/healthz": lambda: _told(health.liveness()),
            b"/readyz": lambda: _told(health.readiness()),
            b"/metrics": health.metrics,
        }
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
        page = self._pages.get(rest.partition(b" ")[0].partition(b"?")[0])
        if method != b"GET":
            return _response(Answer("405 Method Not Allowed", PLAIN, "only GET is answered here\n"))
        if page is None:
            return _response(Answer("404 Not Found", PLAIN, "/healthz, /readyz and /metrics are here\n"))
        return _response(page())


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


def _hangs() -> Finding:
    return Finding(False, f"the main thread has not answered for {ANSWER_SECONDS_MAX:g} s")


def _told(finding: Finding) -> Answer:
    return Answer(OK if finding.ok else "503 Service Unavailable", PLAIN, f"{finding.why}\n")


def _response(answer: Answer) -> bytes:
    body = answer.body.encode()
    head = "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n"
    return head.format(answer.status, answer.content_type, len(body)).encode() + body
