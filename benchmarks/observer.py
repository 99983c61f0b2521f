# SPDX-License-Identifier: Apache-2.0
"""Notes when something happened, as this process sees it: events of a watch, stores to a kernel file.

All moments are of this process's ``time.monotonic()``, taken when the kernel or the API server tells: none is polled.

Sources: inotify(7); Kubernetes API concepts, "Efficient detection of changes"; KEP-5504, comparable resource versions.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import queue
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self
from urllib.parse import urlencode, urlsplit

from tests.testbed.controlplane import ControlPlane
from tests.testbed.errors import WaitTimeoutError

IN_MODIFY: Final = 0x2
"""<linux/inotify.h>: told when write(2) has succeeded, so after the handler of the file has taken the value."""
EVENT_BYTES: Final = 4096
WAIT_SECONDS_MAX: Final = 30.0
RETRY_SECONDS: Final = 0.05
"""Between two tries to watch again; a server that starts answers within so much of its first answer."""

Json = dict[str, Any]


class Seen(NamedTuple):
    """An object, and when a watch told of it."""

    at: float
    object: Json


def connect(server: str, ca: str) -> http.client.HTTPSConnection:
    """Return a connection to the API server, open, without the delay of small packets."""
    address = urlsplit(server)
    tls = ssl.create_default_context(cafile=ca)
    connection = http.client.HTTPSConnection(address.hostname or "", address.port, context=tls)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def watch_lines(
    connection: http.client.HTTPSConnection, collection: str, headers: dict[str, str], query: dict[str, str]
) -> Iterator[bytes]:
    """Yield the lines of a watch; without a resourceVersion the present objects come first, each as ADDED.

    Raises:
        ValueError: the resourceVersion is too long ago.
    """
    query = {"watch": "true", "timeoutSeconds": "3600", **query}
    connection.request("GET", f"{collection}?{urlencode(query)}", headers=headers)
    response = connection.getresponse()
    if response.status == HTTPStatus.GONE:
        raise ValueError(response.read())
    if response.status != HTTPStatus.OK:
        raise OSError(f"watch of {collection}: {response.status} {response.read()!r}")
    rest = b""
    while piece := response.read1(1 << 16):
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines


class Follower:
    """Watches a collection on a thread, from ``__enter__`` to ``__exit__``; what an event means, a subclass says.

    Args:
        plane: whose API server.
        collection: path.
        again: go on when the watch is cut, as by a restart of the API server, or by an API server that had more events
            than this process could take. It goes on where it was; where that is too long ago, the present objects come
            again.
    """

    def __init__(self, plane: ControlPlane, collection: str, *, again: bool = False) -> None:
        self._plane, self._collection, self._again = plane, collection, again
        self._headers = {"Authorization": f"Bearer {plane.admin_token}"}
        self._connection = connect(plane.server, str(plane.ca))
        self._thread = threading.Thread(target=self._run, name=f"observer {collection}", daemon=True)
        self._ending = False
        self._version = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending = True
        # Ends the read that the thread is in; closing alone would not.
        with contextlib.suppress(OSError, AttributeError):  # it is cut already
            self._connection.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._connection.close()

    def _take(self, at: float, line: bytes) -> int:
        """Take a line; return the resourceVersion of its object. Present objects come in the order of their names.

        Raises:
            ValueError: it has none, such as an error.
        """
        raise NotImplementedError

    def _run(self) -> None:
        self._follow()
        while self._again and not self._ending:
            time.sleep(RETRY_SECONDS)
            self._connection.close()
            with contextlib.suppress(OSError):
                self._connection = connect(self._plane.server, str(self._plane.ca))
                self._follow()

    def _follow(self) -> None:
        query = {"resourceVersion": str(self._version)} if self._version else {}
        try:
            for line in watch_lines(self._connection, self._collection, self._headers, query):
                self._version = max(self._version, self._take(time.monotonic(), line))
        except (OSError, http.client.HTTPException):
            return  # cut; who still waits is told by the time-out
        except ValueError:
            self._version = 0  # too long ago


class Observer(Follower):
    """Watches a collection; events wait until somebody asks for them."""

    def __init__(self, plane: ControlPlane, collection: str, *, again: bool = False) -> None:
        super().__init__(plane, collection, again=again)
        self._seen: queue.SimpleQueue[Seen] = queue.SimpleQueue()

    def wait(self, what: str, predicate: Callable[[Json], bool], seconds: float = WAIT_SECONDS_MAX) -> Seen:
        """Return the next event whose object satisfies `predicate`; earlier ones are dropped.

        Raises:
            WaitTimeoutError: none came in time.
        """
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                seen = self._seen.get(timeout=left)
            except queue.Empty:
                break
            if predicate(seen.object):
                return seen
        raise WaitTimeoutError(f"{what}: not after {seconds:g} s")

    def _take(self, at: float, line: bytes) -> int:
        event = json.loads(line)
        if event["type"] == "ERROR":
            raise ValueError(event["object"].get("message"))
        self._seen.put(Seen(at, event["object"]))
        return int(event["object"]["metadata"]["resourceVersion"])


class StoreObserver:
    """Tells when a file was written."""

    def __init__(self, path: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_CLOEXEC)
        if self._descriptor < 0 or libc.inotify_add_watch(self._descriptor, os.fsencode(path), IN_MODIFY) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def wait(self, seconds: float = WAIT_SECONDS_MAX) -> float:
        """Return when the next write succeeded.

        Raises:
            WaitTimeoutError: none did in time.
        """
        if not select.select([self._descriptor], [], [], seconds)[0]:
            raise WaitTimeoutError(f"no write after {seconds:g} s")
        at = time.monotonic()
        os.read(self._descriptor, EVENT_BYTES)
        return at
