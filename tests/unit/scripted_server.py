# SPDX-License-Identifier: Apache-2.0
"""A TLS server that answers each request with the next scripted bytes: for what goes wrong on a line.

What a real API server says is tested against a real one (``tests/apiserver``); a line that is cut in the middle of an
event, at a moment we choose, needs a server that does so on purpose.
"""

from __future__ import annotations

import json
import queue
import socket
import ssl
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

WAIT_SECONDS_MAX: Final = 20.0


class Request(NamedTuple):
    """What a client sent."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int


class Reply(NamedTuple):
    """Bytes to send; then the connection is kept, cut, or left silent."""

    content: bytes
    then: str = "keep"


def whole(status: int, document: Any, *headers: str) -> Reply:
    """Return a reply with a body of known length."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    head = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *headers]
    return Reply("\r\n".join([*head, "", ""]).encode() + body)


def chunked(*lines: bytes, then: str = "keep") -> Reply:
    """Return a watch: one chunk a line, and its end unless the line is cut or left silent."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(line), line) for line in lines)
    return Reply(head + chunks + (b"0\r\n\r\n" if then == "keep" else b""), then)


class ScriptedServer:
    """Serves on loopback from ``__enter__`` to ``__exit__``; `requests` has what came, in order."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._replies: queue.Queue[Reply] = queue.Queue()
        self.requests: queue.Queue[Request] = queue.Queue()
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        self._listener = self._cleanup.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        self._begin(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._cleanup.close()
        for thread in self._threads:
            thread.join(WAIT_SECONDS_MAX)

    def script(self, *replies: Reply) -> None:
        """Add replies; a request for which there is none waits for it."""
        for reply in replies:
            self._replies.put(reply)

    def next_request(self) -> Request:
        """Return the next request, waiting for it."""
        return self.requests.get(timeout=WAIT_SECONDS_MAX)

    def _begin(self, target: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        for number in range(1000):
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            self._begin(self._serve, plain, number)

    def _serve(self, plain: socket.socket, number: int) -> None:
        # A client that goes away in the middle of anything is what is being tested.
        with plain, suppress(OSError):
            plain.settimeout(WAIT_SECONDS_MAX)
            with self._context.wrap_socket(plain, server_side=True) as line, line.makefile("rb") as stream:
                while (request := _read(stream, number)) and self._answer(line, request):
                    pass

    def _answer(self, line: ssl.SSLSocket, request: Request) -> bool:
        self.requests.put(request)
        reply = self._next_reply()
        if reply is None:
            return False
        line.sendall(reply.content)
        if reply.then == "silent":
            self._over.wait(WAIT_SECONDS_MAX)
        return reply.then == "keep"

    def _next_reply(self) -> Reply | None:
        while not self._over.is_set():
            with suppress(queue.Empty):
                return self._replies.get(timeout=0.05)
        return None


def _read(stream: Any, number: int) -> Request | None:
    first = stream.readline().decode().split()
    if not first:
        return None
    headers: dict[str, str] = {}
    while line := stream.readline().decode().strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = stream.read(int(headers.get("content-length", "0")))
    return Request(first[0], first[1], headers, body, number)
