# SPDX-License-Identifier: Apache-2.0
"""The informer against scripted answers; what a real API server does is in tests/apiserver/test_operator_reads.py."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from numamigration_operator.cluster.client import Access, Client, NoAnswerError, Response, StatusError
from numamigration_operator.cluster.informer import (
    NODES,
    POLICIES,
    STATES,
    AnyObject,
    Informer,
    Named,
    Resource,
    control_resource,
    revisions_resource,
)

Script = list[Any]
CONTROL = control_resource("home")


class ScriptedClient:
    """Gives the next scripted answer; after the last one it says so and stays silent."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[dict[str, str]] = []
        self.accepted: list[str] = []
        self.empty = asyncio.Event()

    async def _next(self, query: dict[str, str], accept: str) -> Any:
        self.requests.append(query)
        self.accepted.append(accept)
        if not self.script:
            self.empty.set()
            await asyncio.Event().wait()
        return self.script.pop(0)

    async def request(self, method: str, path: str, *, query: dict[str, str], accept: str) -> Response:
        assert (method, path[0]) == ("GET", "/")
        answer = await self._next(query, accept)
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, Response)
        return answer

    @contextlib.asynccontextmanager
    async def stream(self, path: str, *, query: dict[str, str], accept: str) -> AsyncIterator[AsyncIterator[bytes]]:
        assert path[0] == "/"
        answer = await self._next(query, accept)
        if isinstance(answer, Exception):
            raise answer
        yield lines(answer)


SILENCE = "nothing more comes"


async def lines(script: list[Any]) -> AsyncIterator[bytes]:
    for line in script:
        if isinstance(line, Exception):
            raise line
        if line is SILENCE:
            await asyncio.Event().wait()
        yield line


class Heard:
    """A sink that keeps what it was told, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []
        self.informer: Informer[Any] | None = None

    def upsert(self, item: Named) -> None:
        self.told.append(("upsert", item.metadata.name))

    def gone(self, item: AnyObject) -> None:
        self.told.append(("gone", item.metadata.name))

    def list_begun(self) -> None:
        self.told.append(("begun", None))

    def listed(self, names: frozenset[str]) -> None:
        self.told.append(("listed", set(names)))


def named(name: str, version: str = "1", **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": version, "managedFields": [{"manager": "x"}]}, **more}


def page(*items: dict[str, Any], version: str = "10", token: str = "") -> Response:
    return Response(
        200, json.dumps({"metadata": {"resourceVersion": version, "continue": token}, "items": items}).encode()
    )


def event(kind: str, obj: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": obj}).encode()


def status(code: int, message: str = "no") -> Response:
    return Response(code, json.dumps({"kind": "Status", "code": code, "message": message}).encode())


class Clock:
    """Time that passes only by waiting."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


class Asking(Heard):
    """Asks for a list when it hears of an object called ``ask``."""

    def __init__(self) -> None:
        super().__init__()
        self.informer: Informer[Any]
        self.numbers: list[int] = []
        self.ended: list[int] = []

    def upsert(self, item: Named) -> None:
        super().upsert(item)
        if item.metadata.name == "ask":
            self.ask()

    def listed(self, names: frozenset[str]) -> None:
        super().listed(names)
        self.ended.append(self.informer.list_ended)

    def ask(self) -> None:
        self.numbers.append(self.informer.relist())


def run(
    script: Script, resource: Resource[Any] = NODES, relist: float | None = None, heard: Heard | None = None
) -> tuple[Heard, ScriptedClient]:
    sink = heard or Heard()

    async def inner() -> tuple[Heard, ScriptedClient]:
        heard, client, clock = sink, ScriptedClient(list(script)), Clock()
        informer: Informer[Any] = Informer(client, resource, heard, Random(0), relist, clock)  # type: ignore[arg-type]
        informer.machine.backoff.cap_seconds = 0.01
        heard.informer = informer
        if resource is CONTROL:
            informer.on_forbidden = lambda message: heard.told.append(("forbidden", message))
        task = asyncio.create_task(informer.run())
        await asyncio.wait([task, asyncio.create_task(client.empty.wait())], return_when=asyncio.FIRST_COMPLETED)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return heard, client

    return asyncio.run(inner())


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    with caplog.at_level(logging.INFO):
        yield lambda: [record.getMessage() for record in caplog.records]


def test_pages_are_told_as_they_come_and_the_names_after_the_last() -> None:
    """Promise 6: half a list must not look like policies that are gone."""
    heard, client = run([page(named("a"), token="more"), page(named("b"))])

    assert heard.told == [("begun", None), ("upsert", "a"), ("upsert", "b"), ("listed", {"a", "b"})]
    assert client.requests[:2] == [{"limit": "500"}, {"limit": "500", "continue": "more"}]


def test_a_cluster_without_nodes_answers_null_and_that_is_a_list() -> None:
    heard, _ = run([Response(200, b'{"metadata": {"resourceVersion": "10"}, "items": null}')])

    assert heard.told == [("begun", None), ("listed", set())]


def test_nodes_are_asked_for_as_metadata_only() -> None:
    _, client = run([page(named("a"))])

    assert client.accepted == [
        "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
        "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
    ]


# As kube-apiserver 1.37 sends it about every minute, of a Node and of a custom resource.
BOOKMARK: dict[str, Any] = {
    "kind": "NodeMigrationState",
    "apiVersion": "numamigration.dev/v1alpha1",
    "metadata": {"resourceVersion": "20", "creationTimestamp": None},
}


def test_the_watch_goes_on_from_the_list_then_from_the_last_event_or_bookmark() -> None:
    first = [event("ADDED", named("a", "11")), event("BOOKMARK", BOOKMARK)]
    heard, client = run([page(version="10"), first, [event("DELETED", named("a", "21"))]])

    assert heard.told[2:] == [("upsert", "a"), ("gone", "a")]
    assert [request.get("resourceVersion") for request in client.requests] == [None, "10", "20", "21"]
    assert client.requests[1]["allowWatchBookmarks"] == "true"


def test_an_expired_version_is_answered_by_a_new_list_without_a_word(warnings: Callable[[], list[str]]) -> None:
    expired = [event("ERROR", {"kind": "Status", "code": 410, "message": "too old"})]
    heard, _ = run([page(named("a")), expired, page(named("b"))])

    assert heard.told[-3:] == [("begun", None), ("upsert", "b"), ("listed", {"b"})]
    assert warnings() == []


def test_a_list_that_expires_between_pages_starts_over() -> None:
    heard, client = run([page(named("a"), token="more"), status(410), page(named("b"))])

    assert heard.told[-1] == ("listed", {"b"})
    assert client.requests[2] == {"limit": "500"}


def test_a_cut_watch_goes_on_where_it_was() -> None:
    cut = [event("ADDED", named("a", "11")), NoAnswerError("cut")]
    heard, client = run([page(), cut, [event("MODIFIED", named("a", "12"))]])

    assert heard.told[2:] == [("upsert", "a"), ("upsert", "a")]
    assert client.requests[2]["resourceVersion"] == "11"


@pytest.mark.parametrize(
    ("code", "advice"), [pytest.param(403, "grant the right", id="no right"), pytest.param(404, "CRDs", id="no CRD")]
)
def test_trouble_is_said_once_with_what_to_do_and_that_it_is_over(
    code: int, advice: str, warnings: Callable[[], list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    heard, _ = run([status(code), status(code), status(code), page(named("a"))], STATES)

    assert warnings() == ["cannot read objects; trying again", "objects can be read again"]
    assert advice in vars(caplog.records[0])["advice"]
    assert heard.told[-1] == ("listed", {"a"})


def test_a_refused_watch_is_trouble_too(warnings: Callable[[], list[str]]) -> None:
    run([page(), StatusError(403, "forbidden"), [event("ADDED", named("a", "11"))]])

    assert warnings() == ["cannot read objects; trying again", "objects can be read again"]


def test_what_may_not_be_read_is_listed_again_once_it_may() -> None:
    """Promise 17: a watch that works again would leave the fleet at hold for ever; an API server that starts may
    refuse for a moment.
    """
    heard, _ = run([page(), StatusError(403, "no right"), page()], CONTROL)

    assert heard.told == [
        *(("begun", None), ("listed", set())),
        ("forbidden", "no right"),
        *(("begun", None), ("listed", set())),
    ]


BROKEN_STATE = named("broken", "11", spec={"groups": {"offload": "nonsense"}})


def test_a_node_state_that_cannot_be_read_exists_and_is_said_once(warnings: Callable[[], list[str]]) -> None:
    script = [page(named("a"), BROKEN_STATE), [event("MODIFIED", BROKEN_STATE), event("ADDED", named("b", "12"))]]
    heard, client = run(script, STATES)

    assert heard.told == [("begun", None), ("upsert", "a"), ("listed", {"a", "broken"}), ("upsert", "b")]
    assert client.requests[-1]["resourceVersion"] == "12"
    assert warnings() == ["object cannot be read; it is left as it was known"]


def test_a_policy_that_cannot_be_read_makes_no_list(warnings: Callable[[], list[str]]) -> None:
    """Promise 6: half the policies would be taken for wishes that ended, and nodes be restored."""
    good = named("good", spec={"nodeSelector": {}})
    heard, _ = run([page(good, named("broken", spec={"mode": "Nonsense", "nodeSelector": {}}))], POLICIES)

    assert {kind for kind, _ in heard.told} == {"begun"}
    assert warnings() == ["cannot read objects; trying again"]


def test_an_answer_that_is_no_json_is_tried_again(warnings: Callable[[], list[str]]) -> None:
    heard, _ = run([Response(200, b"<html>"), page(named("a"))])

    assert heard.told[-1] == ("listed", {"a"})
    assert warnings()[0] == "cannot read objects; trying again"


def test_text_that_is_no_utf_8_is_tried_again(warnings: Callable[[], list[str]]) -> None:
    heard, _ = run(
        [Response(502, b'{"message": "\xff"}'), Response(200, b'{"metadata": {"continue": "\xff"}}'), page()]
    )

    assert heard.told[-1] == ("listed", set())
    assert "objects can be read again" in warnings()


def test_a_refusal_that_is_cut_short_is_no_answer(tmp_path: Path) -> None:
    """Anything else would end the reader, and with it the process."""

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 503 Unavailable\r\nContent-Length: 100\r\n\r\ncut")
        writer.close()

    async def watch() -> None:
        server = await asyncio.start_server(refuse, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        user, cluster = {"name": "u", "user": {}}, {"name": "c", "cluster": {"server": f"http://{host}:{port}"}}
        context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
        config = {"current-context": "x", "contexts": [context], "clusters": [cluster], "users": [user]}
        (tmp_path / "config").write_text(json.dumps(config))
        client = await Client.connect(Access(tmp_path / "config"))
        try:
            with pytest.raises(NoAnswerError):
                await client.stream("/x", query={}).__aenter__()
        finally:
            await client.close()
            server.close()

    asyncio.run(watch())


def test_lists_alone_come_again_and_again_without_a_watch() -> None:
    heard, client = run([page(named("a")), page(named("b"))], NODES, relist=0.001)

    assert [told for told in heard.told if told[0] == "listed"] == [("listed", {"a"}), ("listed", {"b"})]
    assert all("watch" not in request for request in client.requests)


# --- a list that is asked for -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "later",
    [
        pytest.param(SILENCE, id="of a watch that is silent"),
        pytest.param(event("ADDED", named("late", "12")), id="before an event that has come already"),
        pytest.param(NoAnswerError("cut"), id="of a watch that is cut"),
    ],
)
def test_a_list_that_is_asked_for_begins_at_once_in_place_of_the_watch(later: Any) -> None:
    """Promise 8: what another leader wrote last is seen before anything is reserved, however late the watch is."""
    heard = Asking()
    _, client = run([page(), [event("ADDED", named("ask", "11")), later], page(named("b"))], heard=heard)

    assert client.requests[2] == {"limit": "500"}
    assert heard.told[-1] == ("listed", {"b"})
    assert heard.numbers == [2]
    assert heard.ended == [1, 2]


def test_two_calls_in_a_row_are_answered_by_one_list() -> None:
    class AskingTwice(Asking):
        def ask(self) -> None:
            super().ask()
            asyncio.get_running_loop().call_soon(super().ask)

    heard = AskingTwice()
    run([page(), [event("ADDED", named("ask", "11")), SILENCE], page(named("b"))], heard=heard)

    assert heard.numbers == [2, 2]
    assert heard.ended == [1, 2]


def test_a_list_that_was_open_when_one_was_asked_for_does_not_count() -> None:
    """Promise 8: its first page may be older than what has to be seen."""
    heard = Asking()
    run([page(named("ask"), token="more"), page(named("a")), page(named("b"))], heard=heard)

    assert [told for told in heard.told if told[0] != "upsert"] == [
        *(("begun", None), ("listed", {"ask", "a"})),
        *(("begun", None), ("listed", {"b"})),
    ]
    assert heard.numbers == [2]
    assert heard.ended == [1, 2]


def test_an_open_list_that_has_to_start_over_is_the_one_that_was_asked_for() -> None:
    heard = Asking()
    run([page(named("ask"), token="more"), status(410), page(named("b"))], heard=heard)

    assert heard.numbers == [2]
    assert heard.ended == [2]
    assert heard.told[-1] == ("listed", {"b"})


def test_a_pause_between_lists_is_cut_off_as_a_watch_is() -> None:
    class AskingAfterLists(Asking):
        def listed(self, names: frozenset[str]) -> None:
            super().listed(names)
            asyncio.get_running_loop().call_soon(self.informer.relist)

    heard = AskingAfterLists()
    run([page(), page(named("b"))], relist=1000.0, heard=heard)

    assert heard.ended == [1, 2]


# --- contents of policies -----------------------------------------------------------------------------------------


def test_only_controller_revisions_of_policies_are_asked_for() -> None:
    _, client = run([page()], revisions_resource("home"))

    assert [request["labelSelector"] for request in client.requests] == ["numamigration.dev/policy-uid"] * 2


def test_lists_and_what_failed_are_counted_and_an_expired_watch_is_no_failure() -> None:
    expired = [event("ERROR", {"kind": "Status", "code": 410, "message": "too old"})]
    heard, _ = run([page(named("a")), expired, NoAnswerError("away"), status(403), Response(200, b"["), page()])

    assert heard.informer is not None
    assert (heard.informer.lists, heard.informer.failures) == (2, 3)
