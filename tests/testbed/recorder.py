# SPDX-License-Identifier: Apache-2.0
"""Every version of the objects of an API group, from the first one on, as the API server stored them.

An API server's own watches are made of this stream, and forget at its restart what was before: a version between the
last one seen and the list that follows would go unseen. So this reads the stream itself, in which the versions of all
objects stand in one order; it goes on where it was after a restart of etcd, too.

Sources: "etcd API" (watch, and its gateway: JSON with base64); Kubernetes stores custom resources as JSON below
/registry/GROUP/PLURAL/, and their resourceVersion is etcd's mod_revision.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Final, NamedTuple, Self
from urllib.parse import urlsplit

from tests.testbed.api import RETRY_SECONDS, Json
from tests.testbed.errors import WaitTimeoutError

SILENCE_SECONDS_MAX: Final = 5.0
"""After so long without a version the stream is opened anew: nobody says that a connection is dead."""


class Version(NamedTuple):
    """What stood in the API server from a resource version on; `obj` is ``{}`` once it is deleted."""

    revision: int
    plural: str
    name: str
    obj: Json


class Recorder:
    """Records from ``__enter__`` to ``__exit__``; objects of a namespace have it in their name."""

    def __init__(self, etcd: str, group: str) -> None:
        self._etcd, self._prefix = urlsplit(etcd), f"/registry/{group}/"
        self._news = threading.Condition()
        self._seen: list[Version] = []
        self._revision, self._ending, self._failure = 0, False, ""
        self._count = 0
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    def __repr__(self) -> str:
        return f"<Recorder {self._count} versions, last {self._revision}>"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending = True
        if self._socket is not None:
            with contextlib.suppress(OSError):  # it is closed already
                self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def take(self) -> list[Version]:
        """Return the versions since this was called last, in order, and forget them; while nobody awaits any."""
        with self._news:
            taken, self._seen = self._seen, []
            return taken

    def await_revision(self, revision: int, timeout: float) -> None:
        """Return when the version with this resource version, or a later one, was recorded.

        Raises:
            WaitTimeoutError: it was not within `timeout` seconds.
        """
        self._await(lambda: self._revision >= revision, f"resource version {revision}", timeout)

    def await_more(self, count: int, timeout: float, where: Callable[[Version], bool] = lambda _: True) -> None:
        """Return when `count` more versions that are `where` were recorded than now.

        Raises:
            WaitTimeoutError: they were not within `timeout` seconds.
        """
        begin = len(self._seen)
        self._await(lambda: sum(map(where, self._seen[begin:])) >= count, f"{count} more versions", timeout)

    def _await(self, holds: Callable[[], bool], what: str, timeout: float) -> None:
        with self._news:
            if not self._news.wait_for(lambda: holds() or self._failure, timeout) or self._failure:
                raise WaitTimeoutError(f"{what}: not recorded after {timeout:g} s; {self!r} {self._failure}")

    def _run(self) -> None:
        while not (self._ending or self._failure):
            try:
                self._follow()
            except (OSError, http.client.HTTPException):
                time.sleep(RETRY_SECONDS)

    def _follow(self) -> None:
        """Take what one stream brings, until it is cut or silent."""
        assert self._etcd.hostname
        begin, end = (base64.b64encode(text.encode()).decode() for text in (self._prefix, self._prefix[:-1] + "0"))
        wanted = {"key": begin, "range_end": end, "start_revision": str(self._revision + 1)}
        connection = http.client.HTTPConnection(self._etcd.hostname, self._etcd.port, timeout=SILENCE_SECONDS_MAX)
        with contextlib.closing(connection):
            connection.request("POST", "/v3/watch", json.dumps({"create_request": wanted}))
            self._socket = connection.sock
            for line in connection.getresponse():
                self._take(json.loads(line))
                if self._ending:
                    return

    def _take(self, answer: Json) -> None:
        result = answer.get("result", {})
        if "error" in answer or result.get("canceled"):  # its history is no longer whole
            self._failure = json.dumps(answer)
        with self._news:
            for version in self._read(result.get("events", ())):
                self._seen.append(version)
                self._count, self._revision = self._count + 1, version.revision
            self._news.notify_all()

    def _read(self, events: Iterable[Json]) -> Iterator[Version]:
        for event in events:
            pair = event["kv"]
            plural, _, name = base64.b64decode(pair["key"]).decode().removeprefix(self._prefix).partition("/")
            obj = json.loads(base64.b64decode(pair["value"])) if "value" in pair else {}
            yield Version(int(pair["mod_revision"]), plural, name, obj)
