# SPDX-License-Identifier: Apache-2.0
"""A small client of the API server, for tests: JSON in, JSON out, errors as exceptions.

* Not the operator's client nor the agent's: a test that used theirs could not find their mistakes.
* A new connection for each request. It costs some 5 ms, and no test has to close anything or meets a connection
  that the server dropped at its last restart.
* Writes are strict: a field that the server does not know is an error (``fieldValidation=Strict``).
* An absent object is ``{}`` where waiting is about objects that come and go.

Sources: "Kubernetes API Concepts" (watch, resource versions, field validation, server-side apply).
"""

from __future__ import annotations

import http.client
import json
import math
import ssl
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlencode, urlsplit

from tests.testbed.errors import WaitTimeoutError

Json = dict[str, Any]
Query = Mapping[str, str]

REQUEST_SECONDS_MAX: Final = 60.0
"""The API server's own bound for requests that are not watches (--request-timeout)."""

WAIT_SECONDS_MAX: Final = 30.0
"""Default bound of every wait; what takes longer on loopback does not come."""

CRD_GONE_SECONDS_MAX: Final = 90.0
"""Its finalizer waits twice as long after each try that met a cold watch cache: over 30 s on a busy machine."""

RETRY_SECONDS: Final = 0.05
"""Pause where no event tells the moment: a server that is not up, a resource that is not served yet."""
RETRIED: Final = frozenset({429, 503})
"""Answers of a moment: "storage is (re)initializing", after a CRD has changed; "apiserver is shutting down"."""
LAST_SEEN_CHARACTERS_MAX: Final = 2000
"""Of the object in the message of a wait that ran out."""

BED_MANAGER: Final = "test-bed"
"""Field manager of what the bed itself applies."""

CRDS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

T = TypeVar("T")


class ApiError(Exception):
    """The API server's answer to a request that it refused."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class Api:
    """One API server as one user."""

    def __init__(self, server: str, ca: Path, token: str) -> None:
        self.server = server
        self.ca = ca
        self._token = token
        self._tls = ssl.create_default_context(cafile=str(ca))

    def __repr__(self) -> str:
        return f"<Api {self.server}>"

    def as_bearer(self, token: str) -> Api:
        """Return the same API server as whoever `token` stands for."""
        return Api(self.server, self.ca, token)

    # --- one request ---------------------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        query: Query | None = None,
        content_type: str = "application/json",
    ) -> Json:
        """Send one request and return the object of the answer.

        Raises:
            ApiError: the server refused.
            OSError: no server there, or it did not answer in time.
        """
        raw = self._exchange(method, path, query, body, content_type)
        answer: Json = json.loads(raw)
        return answer

    def text(self, path: str) -> str:
        """Return an answer that is no JSON: ``/readyz``, ``/metrics``."""
        return self.raw(path).decode()

    def raw(self, path: str) -> bytes:
        """Return an answer that is no text: ``/debug/pprof/profile``."""
        return self._exchange("GET", path, None, None, "application/json")

    def get(self, path: str) -> Json:
        """Return one object."""
        return self.request("GET", path)

    def get_if_exists(self, path: str) -> Json:
        """Return one object, ``{}`` when there is none."""
        try:
            return self.get(path)
        except ApiError as error:
            if error.status != 404:
                raise
            return {}

    def list_items(self, path: str, *, query: Query | None = None) -> list[Json]:
        """Return the objects of a collection."""
        items: list[Json] = self.request("GET", path, query=query)["items"]
        return items

    def create(self, path: str, obj: Json, *, query: Query | None = None) -> Json:
        """Create an object in the collection `path`."""
        return self.request("POST", path, obj, query=_strict(query))

    def replace(self, path: str, obj: Json, *, query: Query | None = None) -> Json:
        """Replace an object; its resourceVersion, when given, must be the current one."""
        return self.request("PUT", path, obj, query=_strict(query))

    def apply(
        self,
        path: str,
        obj: Json,
        manager: str,
        *,
        force: bool = False,
        subresource: str | None = None,
        query: Query | None = None,
    ) -> Json:
        """Server-side apply `obj` as `manager`; it is created when absent."""
        return self.request(
            "PATCH",
            _at(path, subresource),
            obj,
            query=_strict({"fieldManager": manager, "force": str(force).lower(), **(query or {})}),
            content_type="application/apply-patch+yaml",
        )

    def merge_patch(
        self, path: str, patch: Json, *, subresource: str | None = None, query: Query | None = None
    ) -> Json:
        """Merge `patch` into an object (RFC 7386: null removes)."""
        return self.request(
            "PATCH", _at(path, subresource), patch, query=_strict(query), content_type="application/merge-patch+json"
        )

    def delete(self, path: str, *, query: Query | None = None) -> Json:
        """Delete an object; a Pod on a Node needs ``{"gracePeriodSeconds": "0"}``, for no kubelet ends it here."""
        return self.request("DELETE", path, query=query)

    # --- waiting -------------------------------------------------------------------------------------------------

    def watch_until(self, path: str, predicate: Callable[[Json], bool], *, timeout: float = WAIT_SECONDS_MAX) -> Json:
        """Return the first state of the object at `path` that satisfies `predicate`.

        The predicate sees the present state, then each one that a watch brings; ``{}`` while there is no object. A
        watch that is cut off, as by a restart of the server, starts over.

        Raises:
            WaitTimeoutError: no such state within `timeout` seconds; the message shows the last one.
            ApiError: the server refused list or watch.
        """
        deadline = time.monotonic() + timeout
        seen: Json = {}
        while time.monotonic() < deadline:
            try:
                with closing(self._states(path, deadline)) as states:
                    for seen in states:
                        if predicate(seen):
                            return seen
            except (OSError, http.client.HTTPException):
                time.sleep(RETRY_SECONDS)
            except ApiError as error:
                if error.status not in RETRIED:
                    raise
                time.sleep(RETRY_SECONDS)
        raise WaitTimeoutError(
            f"{path} is not as awaited after {timeout:g} s; last seen: {json.dumps(seen)[:LAST_SEEN_CHARACTERS_MAX]}"
        )

    def wait_gone(self, path: str, *, timeout: float = WAIT_SECONDS_MAX) -> None:
        """Return when there is no object at `path`."""
        self.watch_until(path, lambda obj: not obj, timeout=timeout)

    def install_crd(self, crd: Json) -> None:
        """Apply a CustomResourceDefinition; return when its resource can be used by any client, also kubectl."""
        path = f"{CRDS}/{crd['metadata']['name']}"
        before = self.get_if_exists(path)
        with self._until_let_go(before) if before and self._would_change(before, path, crd) else nullcontext() as end:
            self.apply(path, crd, BED_MANAGER, force=True)
            if end is not None:
                end.read()
        self.watch_until(path, is_established)
        for group_version, plural in _served(crd):
            self._wait_served(group_version, plural)

    def _would_change(self, before: Json, path: str, crd: Json) -> bool:
        after = self.apply(path, crd, BED_MANAGER, force=True, query={"dryRun": "All"})
        return bool(after["metadata"]["generation"] != before["metadata"]["generation"])

    @contextmanager
    def _until_let_go(self, crd: Json) -> Iterator[http.client.HTTPResponse]:
        """Give what ends when the server has let go of the schema that a CustomResourceDefinition has now.

        Whoever writes right after a new one was stored may still meet the old one. A watch that was opened before ends
        after that: first the handler is taken away, then its watches.

        Source: apiextensions-apiserver pkg/apiserver/customresource_handler.go, removeStorage_locked and tearDown.
        """
        collection = "/".join(next(_served(crd)))

        def opened() -> tuple[http.client.HTTPSConnection, http.client.HTTPResponse] | None:
            connection = self._connect(WAIT_SECONDS_MAX)
            try:
                return connection, self._send(connection, "GET", collection, {"watch": "true"}, None, "")
            except ApiError as error:
                connection.close()
                if error.status not in RETRIED:
                    raise
                return None

        found = poll(opened, f"a watch of {collection}")
        assert found is not None
        connection, watch = found
        with closing(connection):
            yield watch

    def wait_crd_gone(self, path: str) -> None:
        """Return when there is no CustomResourceDefinition at `path`; its resource may have no objects that stay.

        The server lists them before it lets go. It cannot while their watch cache is cold, as for a moment after any
        other kind has come or gone, and then waits twice as long each time. So we list too, which keeps it warm.

        Sources: apiextensions-apiserver pkg/controller/finalizer/crd_finalizer.go; feature gate
        ResilientWatchCacheInitialization.
        """

        def gone() -> bool:
            crd = self.get_if_exists(path)
            for group_version, plural in _served(crd) if crd else ():
                self._is_listed(f"{group_version}/{plural}")
            return not crd

        poll(gone, f"{path} gone", timeout=CRD_GONE_SECONDS_MAX)

    def _wait_served(self, group_version: str, plural: str) -> None:
        # Established only means that the names are accepted: discovery, handler and watch cache follow, without event.
        def served() -> bool:
            resources = self.get_if_exists(group_version).get("resources", [])
            named = any(resource["name"] == plural for resource in resources)
            return named and self._is_listed(f"{group_version}/{plural}")

        poll(served, f"{group_version}/{plural} being served")

    def _is_listed(self, collection: str) -> bool:
        """Tell whether there is a handler (404 until then) and a watch cache (429 "storage is (re)initializing")."""
        try:
            self.list_items(collection, query={"limit": "1"})
        except ApiError as error:
            if error.status not in {404, 429}:
                raise
            return False
        return True

    def _states(self, path: str, deadline: float) -> Generator[Json]:
        collection, _, name = path.rpartition("/")
        selector = {"fieldSelector": f"metadata.name={name}"}
        listed = self.request("GET", collection, query=selector)
        yield listed["items"][0] if listed["items"] else {}
        left = max(1, math.ceil(deadline - time.monotonic()))
        query = {
            **selector,
            "watch": "true",
            "resourceVersion": listed["metadata"]["resourceVersion"],
            "timeoutSeconds": str(left),
        }
        with closing(self._connect(left)) as connection:
            for line in self._send(connection, "GET", collection, query, None, ""):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    if event["object"]["code"] == 410:
                        return
                    raise _api_error(event["object"]["code"], json.dumps(event["object"]).encode())
                yield {} if event["type"] == "DELETED" else event["object"]

    # --- HTTP ----------------------------------------------------------------------------------------------------

    def _exchange(self, method: str, path: str, query: Query | None, body: Json | None, content_type: str) -> bytes:
        with closing(self._connect(REQUEST_SECONDS_MAX)) as connection:
            return self._send(connection, method, path, query, body, content_type).read()

    def _connect(self, timeout: float) -> http.client.HTTPSConnection:
        address = urlsplit(self.server)
        assert address.hostname
        return http.client.HTTPSConnection(address.hostname, address.port, context=self._tls, timeout=timeout)

    def _send(
        self,
        connection: http.client.HTTPSConnection,
        method: str,
        path: str,
        query: Query | None,
        body: Json | None,
        content_type: str,
    ) -> http.client.HTTPResponse:
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = content_type
        url = f"{path}?{urlencode(query)}" if query else path
        connection.request(method, url, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        if response.status >= 400:
            raise _api_error(response.status, response.read())
        return response


def poll(probe: Callable[[], T], what: str, *, timeout: float = WAIT_SECONDS_MAX) -> T:
    """Return the first truthy result of `probe`; for states that no event announces.

    Raises:
        WaitTimeoutError: none within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while not (result := probe()):
        if time.monotonic() >= deadline:
            raise WaitTimeoutError(f"{what}: not after {timeout:g} s")
        time.sleep(RETRY_SECONDS)
    return result


def condition(obj: Json, kind: str) -> Json:
    """Return an object's condition of this type; ``{}`` when it has none."""
    conditions: list[Json] = obj.get("status", {}).get("conditions") or []
    return next((entry for entry in conditions if entry["type"] == kind), {})


def _served(crd: Json) -> Iterator[tuple[str, str]]:
    """Yield group and version, and the plural, of what a CustomResourceDefinition has the server serve."""
    spec = crd["spec"]
    for version in spec["versions"]:
        if version["served"]:
            yield f"/apis/{spec['group']}/{version['name']}", spec["names"]["plural"]


def is_established(crd: Json) -> bool:
    """Tell whether a CustomResourceDefinition's names are accepted."""
    return condition(crd, "Established").get("status") == "True"


def _strict(query: Query | None) -> Query:
    return {"fieldValidation": "Strict", **(query or {})}


def _at(path: str, subresource: str | None) -> str:
    return f"{path}/{subresource}" if subresource else path


def _api_error(status: int, raw: bytes) -> ApiError:
    try:
        answer = json.loads(raw)
        return ApiError(status, answer.get("reason", ""), answer["message"])
    except (ValueError, KeyError, AttributeError):
        # Refusals from before authentication, and those of /readyz, are plain text.
        return ApiError(status, "", raw.decode(errors="replace").strip())
