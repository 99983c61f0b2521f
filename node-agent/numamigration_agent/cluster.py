# SPDX-License-Identifier: Apache-2.0
"""The agent's whole knowledge of Kubernetes: watch one object, apply its status. Threads and sockets, thinly.

What an answer means and what follows is decided by pure functions (``classify_apply``, ``explain``, ``read_page``,
``read_event``) and by ``ListWatch``; ``ApiClient`` only moves bytes.

* The token file is read for each request, the CA file for each connection: both are replaced while we run.
* A server may close an idle connection just when it is used again; such a request is sent once more, on a new one.
  All requests here may be repeated.
* ``close()`` may come from another thread at any point of a request, also while connecting, and ends it at once: the
  socket is known to it before it can block.
* A watch that says nothing is normal (bookmarks come about once a minute, none is promised). A dead peer is found by
  TCP keep-alive, not by a time-out below the watch's own.

Sources: Kubernetes documentation, "API Concepts", "Server-Side Apply", "Accessing the API from a Pod".
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from enum import StrEnum
from random import Random
from typing import Any, Final, NamedTuple, assert_never

from numamigration_agent import __version__
from numamigration_agent.http1 import ProtocolError, Response, parse_server, percent_encoded, request_bytes, with_query
from numamigration_agent.statefile import StrPath
from numamigration_api.machinery.backoff import parse_retry_after
from numamigration_api.machinery.listwatch import (
    EXPIRED,
    WATCH_SILENCE_SECONDS,
    ListPage,
    ListWatch,
    Step,
    Wait,
    Watch,
    watch_seconds,
)
from numamigration_api.machinery.records import dataclass
from numamigration_api.vocabulary import AGENT_MANAGER, API_VERSION, JSON, METADATA_ONLY, STATE_KIND, STATE_PLURAL

log = logging.getLogger(__name__)

COLLECTION: Final = f"/apis/{API_VERSION}/{STATE_PLURAL}"
CONNECT_SECONDS_MAX: Final = 10.0
REQUEST_SECONDS_MAX: Final = 30.0
KEEP_ALIVE_IDLE_SECONDS: Final = 30  # a dead peer is found after 30 + 3 x 10 s
KEEP_ALIVE_INTERVAL_SECONDS: Final = 10
KEEP_ALIVE_PROBES: Final = 3
ANSWER_BYTES_MAX: Final = 4 << 20  # etcd takes no object above 1.5 MiB; a node state has 10 kB
PIECE_BYTES: Final = 1 << 16
EXPLANATION_LENGTH_MAX: Final = 300
NOT_TYPED: Final = "failed to create typed patch object"  # apimachinery, managedfields/typeconverter.go; told by a 500


class Answer(NamedTuple):
    """What came back. `status` is None when no answer came; `problem` then says why."""

    status: int | None
    body: bytes = b""
    retry_after: float | None = None
    problem: str = ""


class AnswerError(Exception):
    """A stream ended with an answer that is no success."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"{answer.status} {message_of(answer)}")
        self.answer = answer


@dataclass(frozen=True, slots=True)
class StateSeen:
    """The node state as it is now."""

    object: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StateGone:
    """There is no node state of this node (yet, or any more)."""


StateEvent = StateSeen | StateGone


class ApplyKind(StrEnum):
    """What became of a status, and what follows."""

    APPLIED = "applied"
    RETRY = "retry"
    """Not written; try again with back-off."""
    GONE = "gone"
    """There is no such node state, or no such kind: wait for StateSeen."""
    FORBIDDEN = "forbidden"
    """Not written: token or rights are missing. Try again with back-off and say so."""
    SKEW = "skew"
    """The installed CRD does not take this status as a whole (reason VersionSkew): the next report is another try."""


class ApplyResult(NamedTuple):
    """Kind, words for people (empty when applied), and the server's Retry-After in seconds."""

    kind: ApplyKind
    message: str = ""
    retry_after: float | None = None


# --- decisions ---------------------------------------------------------------------------------------------------


def classify_apply(answer: Answer) -> ApplyResult:
    """Say what the answer to an apply of the status means."""
    if answer.status is not None and 200 <= answer.status < 300:
        return ApplyResult(ApplyKind.APPLIED)
    if is_skew(answer):
        return ApplyResult(ApplyKind.SKEW, explain(answer))
    return ApplyResult(_REFUSALS.get(answer.status, ApplyKind.RETRY), explain(answer), answer.retry_after)


_REFUSALS: Final[Mapping[int | None, ApplyKind]] = {
    400: ApplyKind.SKEW,
    401: ApplyKind.FORBIDDEN,
    403: ApplyKind.FORBIDDEN,
    404: ApplyKind.GONE,
    422: ApplyKind.SKEW,
}


def is_skew(answer: Answer) -> bool:
    """Tell whether an apply failed for a field that the installed CRD lacks, which a merge patch would just lose."""
    return answer.status == 500 and NOT_TYPED in message_of(answer)


def after_merge_patch(skew: ApplyResult, answer: Answer) -> ApplyResult:
    """Say what became of a status that was sent once more, as a merge patch without its unknown fields."""
    patched = classify_apply(answer)
    if patched.kind is not ApplyKind.APPLIED:
        return patched
    return skew._replace(message=f"{skew.message}; the fields it knows were written")


def explain(answer: Answer) -> str:
    """Say in one line what is wrong and what to do."""
    meaning = _MEANINGS.get(answer.status)
    if is_skew(answer):
        meaning = _MEANINGS[422]
    text = message_of(answer)
    return (f"{meaning} ({answer.status}: {text})" if meaning else text)[:EXPLANATION_LENGTH_MAX]


_SKEW_MEANING: Final = "the installed CRDs are not those of this release: apply them"
_MEANINGS: Final[Mapping[int | None, str]] = {
    400: _SKEW_MEANING,
    401: "the API server does not accept this agent's token: look at the service account and token_file",
    403: "the agent lacks rights: apply the RBAC of this release and look at the admission policy",
    404: "the API server has no such node state, or does not know the kind: apply the CRDs of this release",
    409: "somebody else wrote at the same moment",
    422: _SKEW_MEANING,
    429: "the API server asks for fewer requests",
    500: "the API server has a problem of its own",
    503: "the API server is not ready",
    504: "the API server did not answer in time",
}


def message_of(answer: Answer) -> str:
    """Return the words of an answer: a Status object's message, or the first line of whatever else it is."""
    if answer.status is None:
        return answer.problem
    try:
        return str(json.loads(answer.body)["message"])
    except (ValueError, KeyError, TypeError):
        # Refusals from before authentication, and those of proxies, are plain text or HTML.
        first_line = answer.body.decode(errors="replace").strip().partition("\n")[0]
        return first_line or _phrase(answer.status)


def _phrase(status: int) -> str:
    from http import HTTPStatus  # a table that is looked at once in a blue moon

    return HTTPStatus(status).phrase if status in set(HTTPStatus) else "no words"


class Page(NamedTuple):
    """One page of a list."""

    resource_version: str
    continue_token: str
    items: tuple[Mapping[str, Any], ...]


def read_page(answer: Answer) -> Page | Answer:
    """Return the page, or the answer that stands for "this was none"."""
    if answer.status != 200:
        return answer
    try:
        page = json.loads(answer.body)
        metadata = page["metadata"]
        return Page(str(metadata["resourceVersion"]), str(metadata.get("continue") or ""), tuple(page["items"] or ()))
    except (ValueError, KeyError, TypeError, AttributeError):
        return Answer(None, problem="the answer to a list was no Kubernetes list; is there a proxy in between?")


class Event(NamedTuple):
    """One line of a watch. `state` is None for a bookmark."""

    resource_version: str
    state: StateEvent | None


def read_event(line: bytes) -> Event | Answer:
    """Return the event, or the answer that an ERROR event or a broken line stands for."""
    try:
        event = json.loads(line)
        kind, object_ = event["type"], event["object"]
        if kind == "ERROR":
            return _error_event(object_)
        return Event(str(object_["metadata"]["resourceVersion"]), _state(kind, object_))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return Answer(None, problem="the watch was cut in the middle of an event")


def _error_event(status: Mapping[str, Any]) -> Answer:
    retry_after = (status.get("details") or {}).get("retryAfterSeconds")
    return Answer(int(status["code"]), json.dumps(status).encode(), float(retry_after) if retry_after else None)


def _state(kind: str, object_: Mapping[str, Any]) -> StateEvent | None:
    if kind in {"ADDED", "MODIFIED"}:
        return StateSeen(object_)
    if kind == "DELETED":
        return StateGone()
    if kind == "BOOKMARK":
        return None
    raise ValueError(kind)


def list_query(step: ListPage, node_name: str) -> dict[str, str]:
    """Return the query of a list page of one object."""
    query = {"fieldSelector": f"metadata.name={node_name}", "limit": str(step.limit)}
    return query | ({"continue": step.continue_token} if step.continue_token else {})


def watch_query(step: Watch, node_name: str) -> dict[str, str]:
    """Return the query of a watch of one object."""
    return {
        "watch": "true",
        "fieldSelector": f"metadata.name={node_name}",
        "allowWatchBookmarks": "true",
        "resourceVersion": step.resource_version,
        "timeoutSeconds": str(watch_seconds(step, node_name)),
    }


def encode(document: Mapping[str, Any]) -> bytes:
    r"""Return JSON that is YAML too, which an apply patch is read as.

    YAML has no surrogate escapes (\\ud83d\\ude00) and no raw control characters, so characters stand for themselves but
    for those controls. What is no text at all (a lone surrogate, from a kernel file with stray bytes) becomes '?'.
    """
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate(_ESCAPES).encode(errors="replace")


# A table and no character class: compiling one that reaches to U+FFFF takes 1.8 MB that stay with the process.
_ESCAPES: Final = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), 0x2028, 0x2029, 0xFEFF, 0xFFFE, 0xFFFF)}


# --- edges -------------------------------------------------------------------------------------------------------


class ApiClient:
    """One keep-alive connection to the API server, for one thread; only ``close()`` may be called from others.

    Args:
        server: https://HOST[:PORT].
        ca_file: what the server's certificate is checked against.
        token_file: bearer token.
    """

    def __init__(self, server: str, ca_file: StrPath, token_file: StrPath) -> None:
        self._host, self._port = parse_server(server)
        self._ca_file, self._token_file = ca_file, token_file
        self._connection: _Connection | None = None
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._closed = False

    def get(self, path: str, query: Mapping[str, str]) -> Answer:
        """Get one answer as a whole."""
        return self._exchange("GET", with_query(path, query), {}, None)

    def apply_status(self, status: Mapping[str, Any], name: str) -> ApplyResult:
        """Server-side apply `status` (the value of the field) as the status of node state `name`.

        A status with a field that the installed CRD lacks is sent once more as a merge patch, which drops such fields.
        """
        path = f"{COLLECTION}/{percent_encoded(name)}/status"
        query = {"fieldManager": AGENT_MANAGER, "force": "true", "fieldValidation": "Ignore"}
        document = {"apiVersion": API_VERSION, "kind": STATE_KIND, "metadata": {"name": name}, "status": status}
        answer = self._patch(path, query, "application/apply-patch+yaml", document)
        if not is_skew(answer):
            return classify_apply(answer)
        query = {"fieldManager": AGENT_MANAGER, "fieldValidation": "Ignore"}
        return after_merge_patch(
            classify_apply(answer), self._patch(path, query, "application/merge-patch+json", {"status": status})
        )

    def lines(self, path: str, query: Mapping[str, str], seconds_max: float) -> Generator[bytes, None, None]:
        """Yield the lines of an answer as they come; `seconds_max` bounds the silence between two.

        Raises:
            AnswerError: the answer was no success, or was cut.
        """
        try:
            response = self._open("GET", with_query(path, query), {}, None, seconds_max)
            if response.status != 200:
                raise AnswerError(_whole(response))
            yield from _lines(response)
        except (OSError, ProtocolError) as error:
            raise AnswerError(self._problem(error)) from error
        finally:
            self._close_unless_idle()

    def disconnect(self) -> None:
        """Close the connection; the next request opens a new one. For the thread that makes the requests."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def close(self) -> None:
        """End the request under way, if any, and fail every further one; may be called from any thread."""
        with self._lock:
            self._closed = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    # The plain socket's method: the TLS one would take the TLS state from under a reading thread.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _patch(self, path: str, query: Mapping[str, str], content_type: str, document: Mapping[str, Any]) -> Answer:
        headers = {"Content-Type": content_type, "Accept": METADATA_ONLY}  # the whole answer is not looked at
        return self._exchange("PATCH", with_query(path, query), headers, encode(document))

    def _exchange(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        try:
            return _whole(self._open(method, url, headers, body, REQUEST_SECONDS_MAX))
        except (OSError, ProtocolError) as error:
            return self._problem(error)
        finally:
            self._close_unless_idle()

    def _open(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, seconds_max: float
    ) -> Response:
        reused = self._connection is not None
        try:
            return self._send(method, url, headers, body, seconds_max)
        except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
            if not reused or self._closed:
                raise
            self.disconnect()
            return self._send(method, url, headers, body, seconds_max)

    def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, seconds_max: float
    ) -> Response:
        if self._connection is None:
            self._connection = _Connection(self._host, self._port, self._ca_file, self._publish)
        return self._connection.exchange(
            method, url, {**self._common_headers(), **headers}, body, seconds_max=seconds_max
        )

    def _common_headers(self) -> dict[str, str]:
        with open(self._token_file, encoding="ascii", errors="replace") as file:
            token = file.read().strip()
        if not (token.isascii() and token.isprintable()):
            raise OSError(f"{self._token_file} is no token: it has more than one line, or is no plain text")
        return {
            "Authorization": f"Bearer {token}",
            "Accept": JSON,
            "User-Agent": f"{AGENT_MANAGER}/{__version__}",
        }

    def _publish(self, opened: socket.socket) -> None:
        with self._lock:
            self._socket = opened
            if self._closed:
                raise ConnectionAbortedError("closed")

    def _problem(self, error: Exception) -> Answer:
        return Answer(
            None, problem=f"no answer from https://{self._host}:{self._port}: {str(error) or type(error).__name__}"
        )

    def _close_unless_idle(self) -> None:
        # A connection in the middle of an answer, or after a failure, cannot carry another request.
        if self._connection is not None and not self._connection.is_idle:
            self.disconnect()


class _Connection:
    """A TLS connection that hands out its socket before anything on it can block."""

    def __init__(self, host: str, port: int, ca_file: StrPath, publish: Callable[[socket.socket], None]) -> None:
        self._host, self._port, self._publish = host, port, publish
        # As text it would have the codec for international names loaded, 1.2 MB for as long as the agent runs.
        self._name = host.encode()
        self._last: Response | None = None
        context = _tls_context(ca_file)
        plain = self._connect_plain()
        _keep_alive(plain)
        self._socket = context.wrap_socket(plain, server_hostname=self._name, do_handshake_on_connect=False)
        try:
            self._publish(self._socket)
            self._socket.do_handshake()
        except OSError:
            self._socket.close()
            raise
        self._stream = self._socket.makefile("rb")

    @property
    def is_idle(self) -> bool:
        """Whether another request can be sent: the last answer was read to its end, and the server keeps the line."""
        return self._last is not None and self._last.ended and self._last.reusable

    def exchange(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None, *, seconds_max: float
    ) -> Response:
        """Send a request and return the answer, of which only the head has been read."""
        self._last = None
        self._socket.settimeout(seconds_max)
        host = f"[{self._host}]" if ":" in self._host else self._host
        self._socket.sendall(request_bytes(method, target, f"{host}:{self._port}", headers, body))
        self._last = Response(self._stream)
        return self._last

    def close(self) -> None:
        """Close the socket."""
        self._stream.close()
        self._socket.close()

    def _connect_plain(self) -> socket.socket:
        problem: OSError = OSError(f"{self._host} has no address")
        for family, kind, protocol, _, address in socket.getaddrinfo(self._name, self._port, type=socket.SOCK_STREAM):
            plain = socket.socket(family, kind, protocol)
            plain.settimeout(CONNECT_SECONDS_MAX)
            try:
                self._publish(plain)
                plain.connect(address)
            except OSError as error:
                plain.close()
                problem = error
            else:
                return plain
        raise problem


def _tls_context(ca_file: StrPath) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        # Neither error names the file.
        raise OSError(f"{ca_file} cannot be used as CA file: {error}") from error


def _keep_alive(plain: socket.socket) -> None:
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEP_ALIVE_IDLE_SECONDS)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEP_ALIVE_INTERVAL_SECONDS)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEP_ALIVE_PROBES)


def _whole(response: Response) -> Answer:
    body = response.read(ANSWER_BYTES_MAX)
    if not response.ended and response.read(1):
        raise ProtocolError(f"the answer has more than {ANSWER_BYTES_MAX} bytes")
    return Answer(response.status, body, parse_retry_after(response.header("retry-after")))


def _lines(response: Response) -> Iterator[bytes]:
    rest = b""
    while piece := response.read1(PIECE_BYTES):
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
        if len(rest) > ANSWER_BYTES_MAX:
            raise ProtocolError(f"a line has more than {ANSWER_BYTES_MAX} bytes")
    if rest:
        yield rest


class StateWatcher(threading.Thread):
    """Lists and watches the node state of one node until it is stopped; emits StateSeen and StateGone.

    Args:
        client: for this thread alone.
        node_name: which node state.
        emit: called on this thread with each event; must not block.
        rng: chance for back-off and start.
        start_jitter_seconds_max: the first list waits between 0 and this.
    """

    def __init__(
        self,
        client: ApiClient,
        node_name: str,
        emit: Callable[[StateEvent], None],
        *,
        rng: Random,
        start_jitter_seconds_max: float,
    ) -> None:
        super().__init__(name="state-watcher", daemon=True)
        self._client, self._node_name, self._emit, self._rng = client, node_name, emit, rng
        self._start_jitter_seconds_max = start_jitter_seconds_max
        self._machine = ListWatch(rng)
        self._stopping = threading.Event()
        self._listed: Mapping[str, Any] | None = None
        self._problem_said: int | str | None = None

    def stop(self) -> None:
        """Ask the thread to end; it does so within a second, wherever it is (``join()`` waits for it)."""
        self._stopping.set()
        self._client.close()

    def run(self) -> None:
        """Do the machine's steps."""
        self._stopping.wait(self._rng.uniform(0.0, self._start_jitter_seconds_max))
        while not self._stopping.is_set():
            self._do(self._machine.next(time.monotonic()))
        self._client.disconnect()

    def _do(self, step: Step) -> None:
        match step:
            case Wait():
                self._stopping.wait(max(0.0, step.until - time.monotonic()))
            case ListPage():
                self._list(step)
            case Watch():
                self._watch(step)
            case _:
                assert_never(step)

    def _list(self, step: ListPage) -> None:
        page = read_page(self._client.get(COLLECTION, list_query(step, self._node_name)))
        if isinstance(page, Answer):
            self._failed(page)
            return
        self._works()
        found = page.items[0] if page.items else None
        self._listed = found if not step.continue_token else self._listed or found
        last = self._machine.page_read(
            time.monotonic(), resource_version=page.resource_version, continue_token=page.continue_token
        )
        if last:
            self._emit(StateGone() if self._listed is None else StateSeen(self._listed))
            self._listed = None

    def _watch(self, step: Watch) -> None:
        lines = self._client.lines(COLLECTION, watch_query(step, self._node_name), WATCH_SILENCE_SECONDS)
        try:
            with contextlib.closing(lines):
                failure = self._take(lines)
        except AnswerError as error:
            failure = error.answer
        if failure is None:
            self._machine.watch_ended(time.monotonic())
        else:
            self._failed(failure)

    def _take(self, lines: Iterable[bytes]) -> Answer | None:
        for line in lines:
            event = read_event(line)
            if isinstance(event, Answer):
                return event
            self._works()
            self._machine.event_read(time.monotonic(), event.resource_version)
            if event.state is not None:
                self._emit(event.state)
        return None

    def _works(self) -> None:
        if self._problem_said is not None:
            log.info("node state is watched again", extra={"state": self._node_name})
        self._problem_said = None

    def _failed(self, answer: Answer) -> None:
        self._machine.failed(time.monotonic(), status=answer.status, retry_after=answer.retry_after)
        if self._stopping.is_set() or answer.status == EXPIRED:
            return
        # Once per problem, not per try: an hour without API server is one line.
        problem = answer.status or answer.problem
        if self._problem_said != problem:
            self._problem_said = problem
            log.warning(
                "node state cannot be watched; trying again",
                extra={"state": self._node_name, "problem": explain(answer)},
            )
