# SPDX-License-Identifier: Apache-2.0
"""The agent's driver of the API server: what answers mean, and what a line may do to it."""

from __future__ import annotations

import json
import logging
import queue
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from numamigration_agent import cluster
from numamigration_agent.cluster import (
    Answer,
    AnswerError,
    ApiClient,
    ApplyKind,
    ApplyResult,
    Event,
    Page,
    StateEvent,
    StateGone,
    StateSeen,
    StateWatcher,
    classify_apply,
    encode,
    explain,
    list_query,
    read_event,
    read_page,
    watch_query,
)
from numamigration_api.machinery.listwatch import ListPage, Watch, watch_seconds
from numamigration_api.vocabulary import METADATA_ONLY
from tests.testbed.api import poll
from tests.testbed.pki import Pki, write_pki
from tests.unit.scripted_server import WAIT_SECONDS_MAX, Reply, ScriptedServer, chunked, whole


def failure(status: int, message: str, **details: Any) -> dict[str, Any]:
    return {"kind": "Status", "status": "Failure", "code": status, "message": message, "details": details}


def answer(status: int, message: str = "words", retry_after: float | None = None) -> Answer:
    return Answer(status, json.dumps(failure(status, message)).encode(), retry_after)


def state(version: int, **fields: Any) -> dict[str, Any]:
    return {"metadata": {"name": "node-a", "resourceVersion": str(version)}, **fields}


def line(kind: str, object_: Mapping[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": object_}).encode() + b"\n"


def listing(*items: Mapping[str, Any], version: int = 7, more: str = "") -> Reply:
    return whole(200, {"metadata": {"resourceVersion": str(version), "continue": more}, "items": items})


# --- decisions ---------------------------------------------------------------------------------------------------

UNDECLARED = "failed to create typed patch object: .status.dialekt: field not declared in schema"


@pytest.mark.parametrize(
    ("given_answer", "kind"),
    [
        pytest.param(answer(200), ApplyKind.APPLIED, id="200"),
        pytest.param(answer(201), ApplyKind.APPLIED, id="201"),
        pytest.param(answer(404), ApplyKind.GONE, id="404"),
        pytest.param(answer(401), ApplyKind.FORBIDDEN, id="401"),
        pytest.param(answer(403), ApplyKind.FORBIDDEN, id="403"),
        pytest.param(answer(409), ApplyKind.RETRY, id="409"),
        pytest.param(answer(422), ApplyKind.SKEW, id="422"),
        pytest.param(answer(400), ApplyKind.SKEW, id="400"),
        pytest.param(answer(429), ApplyKind.RETRY, id="429"),
        pytest.param(answer(500), ApplyKind.RETRY, id="500"),
        pytest.param(answer(500, UNDECLARED), ApplyKind.SKEW, id="500 for an undeclared field"),
        pytest.param(answer(503), ApplyKind.RETRY, id="503"),
        pytest.param(answer(302), ApplyKind.RETRY, id="redirect"),
        pytest.param(Answer(None, problem="connection refused"), ApplyKind.RETRY, id="no answer"),
    ],
)
def test_an_answer_to_an_apply_is_classified(given_answer: Answer, kind: ApplyKind) -> None:
    assert classify_apply(given_answer).kind is kind


def test_the_servers_retry_after_is_kept() -> None:
    assert classify_apply(answer(429, retry_after=7.0)).retry_after == 7.0


@pytest.mark.parametrize(
    ("given_answer", "words"),
    [
        pytest.param(answer(401), "token", id="401 names the token"),
        pytest.param(answer(403, "cannot list"), "RBAC", id="403 names the rights"),
        pytest.param(answer(404), "CRDs", id="404 names the CRDs"),
        pytest.param(answer(500, UNDECLARED), "CRDs", id="skew names the CRDs"),
        pytest.param(answer(403, "cannot list resource x"), "cannot list resource x", id="the server's words are kept"),
        pytest.param(Answer(502, b"<html>\nBad Gateway"), "<html>", id="a proxy's words are kept"),
        pytest.param(Answer(502, b""), "Bad Gateway", id="no words at all"),
        pytest.param(Answer(503, b'"just text"'), "just text", id="JSON that is no Status"),
        pytest.param(Answer(None, problem="connection refused"), "connection refused", id="no answer"),
    ],
)
def test_a_problem_is_explained_in_one_line(given_answer: Answer, words: str) -> None:
    assert words in explain(given_answer)
    assert "\n" not in explain(given_answer)


def test_an_explanation_is_bounded() -> None:
    assert len(explain(answer(403, "x" * 10_000))) <= 300


def test_a_list_page_is_read() -> None:
    body = json.dumps({"metadata": {"resourceVersion": "7", "continue": "next"}, "items": [state(3)]}).encode()

    assert read_page(Answer(200, body)) == Page("7", "next", (state(3),))


def test_a_refused_list_stays_the_refusal() -> None:
    assert read_page(answer(403)) == answer(403)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"<html>login please</html>", id="HTML"),
        pytest.param(b"[]", id="other JSON"),
        pytest.param(b'{"metadata": {}, "items": []}', id="no resource version: it would list for ever"),
        pytest.param(b'{"metadata": {"resourceVersion": "7"', id="cut"),
    ],
)
def test_a_success_that_is_no_list_is_a_failure(body: bytes) -> None:
    page = read_page(Answer(200, body))

    assert isinstance(page, Answer)
    assert page.status is None


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        pytest.param("ADDED", StateSeen(state(8)), id="added"),
        pytest.param("MODIFIED", StateSeen(state(8)), id="modified"),
        pytest.param("DELETED", StateGone(), id="deleted"),
        pytest.param("BOOKMARK", None, id="a bookmark only moves the version"),
    ],
)
def test_an_event_is_read(kind: str, expected: StateEvent | None) -> None:
    assert read_event(line(kind, state(8))) == Event("8", expected)


def test_an_error_event_is_the_answer_it_carries() -> None:
    event = read_event(line("ERROR", failure(410, "too old resource version", retryAfterSeconds=3)))

    assert isinstance(event, Answer)
    assert (event.status, event.retry_after) == (410, 3.0)
    assert "too old" in explain(event)


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(line("MODIFIED", state(8))[:30], id="cut"),
        pytest.param(b"null\n", id="null"),
        pytest.param(b'{"type": "MODIFIED", "object": {}}\n', id="no version"),
        pytest.param(line("RENAMED", state(8)), id="unknown type"),
        pytest.param(b'{"type": "ERROR", "object": {}}\n', id="error without code"),
    ],
)
def test_a_broken_line_is_a_failure_without_status(broken: bytes) -> None:
    event = read_event(broken)

    assert isinstance(event, Answer)
    assert event.status is None


@given(st.binary(max_size=60))
def test_no_line_makes_reading_fail(content: bytes) -> None:
    assert isinstance(read_event(content), Answer | Event)


def test_only_the_own_object_is_asked_for() -> None:
    assert list_query(ListPage(""), "node-a") == {"fieldSelector": "metadata.name=node-a", "limit": "500"}
    assert list_query(ListPage("t"), "node-a")["continue"] == "t"
    assert watch_query(Watch("7"), "node-a") == {
        "watch": "true",
        "fieldSelector": "metadata.name=node-a",
        "allowWatchBookmarks": "true",
        "resourceVersion": "7",
        "timeoutSeconds": str(watch_seconds(Watch("7"), "node-a")),
    }


@given(st.text(max_size=20))
def test_an_apply_body_means_the_same_as_json_and_as_yaml(text: str) -> None:
    body = encode({"text": text})

    assert json.loads(body) == yaml.safe_load(body)
    assert json.loads(body)["text"] == text


def test_what_is_no_text_does_not_stop_a_report() -> None:
    assert json.loads(encode({"observed": "a\udc80b"})) == {"observed": "a?b"}


# --- the line ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return write_pki(tmp_path_factory.mktemp("pki") / "pki")


@pytest.fixture
def server(pki: Pki) -> Iterator[ScriptedServer]:
    with ScriptedServer(pki.server_cert, pki.server_key) as running:
        yield running


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("first\n")
    return tmp_path / "token"


@pytest.fixture
def client(server: ScriptedServer, pki: Pki, token_file: Path) -> Iterator[ApiClient]:
    client = ApiClient(server.url, pki.ca, token_file)
    yield client
    client.disconnect()


def test_one_connection_serves_many_requests(server: ScriptedServer, client: ApiClient) -> None:
    server.script(whole(200, {}), whole(404, {}), whole(200, {}))

    assert [client.get("/x", {}).status for _ in range(3)] == [200, 404, 200]
    assert {server.next_request().connection for _ in range(3)} == {0}


def test_a_request_loads_no_codec_for_international_names(server: ScriptedServer, pki: Pki, token_file: Path) -> None:
    """It costs 1.2 MB for as long as the agent runs."""
    server.script(whole(200, {}))
    program = (
        "import sys; from numamigration_agent.cluster import ApiClient; "
        "print(ApiClient(*sys.argv[1:]).get('/x', {}).status, 'encodings.idna' in sys.modules)"
    )
    command = [sys.executable, "-c", program, server.url, str(pki.ca), str(token_file)]

    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() == ["200", "False"]


def test_the_token_is_read_again_for_each_request(server: ScriptedServer, client: ApiClient, token_file: Path) -> None:
    server.script(whole(200, {}), whole(200, {}))

    client.get("/x", {})
    token_file.write_text("second\n")
    client.get("/x", {})

    assert [server.next_request().headers["authorization"] for _ in range(2)] == ["Bearer first", "Bearer second"]


def test_an_idle_connection_that_the_server_closed_costs_no_failure(server: ScriptedServer, client: ApiClient) -> None:
    server.script(whole(200, {})._replace(then="cut"), whole(200, {"second": True}))

    client.get("/x", {})

    assert client.get("/x", {}).body == b'{"second": true}'


def test_a_server_that_cuts_every_connection_is_tried_no_more_than_twice(
    server: ScriptedServer, client: ApiClient
) -> None:
    server.script(whole(200, {}), Reply(b"", "cut"), Reply(b"", "cut"))

    assert client.get("/x", {}).status == 200
    assert client.get("/x", {}).status is None
    assert server.requests.qsize() == 3


def test_a_new_connection_that_is_cut_is_not_tried_again_at_once(server: ScriptedServer, client: ApiClient) -> None:
    server.script(Reply(b"", "cut"), whole(200, {}))

    assert client.get("/x", {}).status is None
    assert server.requests.qsize() == 1


def test_a_server_that_says_close_gets_a_new_connection(server: ScriptedServer, client: ApiClient) -> None:
    server.script(whole(200, {}, "Connection: close")._replace(then="cut"), whole(200, {}))

    assert [client.get("/x", {}).status for _ in range(2)] == [200, 200]
    assert [server.next_request().connection for _ in range(2)] == [0, 1]


def test_retry_after_is_read_from_the_header(server: ScriptedServer, client: ApiClient) -> None:
    server.script(whole(429, {}, "Retry-After: 5"))

    assert client.get("/x", {}).retry_after == 5.0


def test_a_server_that_is_not_there_is_an_answer_without_status(pki: Pki, token_file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    found = ApiClient(f"https://127.0.0.1:{port}", pki.ca, token_file).get("/x", {})

    assert found.status is None
    assert f"https://127.0.0.1:{port}" in found.problem
    assert "refused" in found.problem


def test_a_name_without_address_is_an_answer_without_status(pki: Pki, token_file: Path) -> None:
    assert ApiClient("https://no-such-host.invalid", pki.ca, token_file).get("/x", {}).status is None


def test_a_certificate_of_another_authority_is_refused(
    server: ScriptedServer, token_file: Path, tmp_path: Path
) -> None:
    other = write_pki(tmp_path / "other")

    found = ApiClient(server.url, other.ca, token_file).get("/x", {})

    assert found.status is None
    assert "certificate verify failed" in found.problem
    assert server.requests.empty()


def test_a_missing_file_is_named(server: ScriptedServer, pki: Pki, token_file: Path, tmp_path: Path) -> None:
    without_ca = ApiClient(server.url, tmp_path / "none.crt", token_file)
    without_token = ApiClient(server.url, pki.ca, tmp_path / "none")

    assert str(tmp_path / "none.crt") in without_ca.get("/x", {}).problem
    assert str(tmp_path / "none") in without_token.get("/x", {}).problem


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(b"good\nX-Injected: 1\n", id="two lines"),
        pytest.param(b"\xff\xfe", id="no text; the header's encoder would end the thread"),
    ],
)
def test_what_is_no_token_is_not_sent(
    server: ScriptedServer, client: ApiClient, token_file: Path, token: bytes
) -> None:
    token_file.write_bytes(token)

    assert "is no token" in client.get("/x", {}).problem
    assert server.requests.empty()


def test_a_closed_client_refuses_requests(client: ApiClient, server: ScriptedServer) -> None:
    client.close()

    assert client.get("/x", {}).status is None
    assert server.requests.empty()


def test_an_answer_without_end_is_given_up(server: ScriptedServer, client: ApiClient) -> None:
    server.script(whole(200, b"x" * ((4 << 20) + 1)))

    assert "more than" in client.get("/x", {}).problem


def test_a_status_is_applied_with_force_as_the_agents_field_manager(server: ScriptedServer, client: ApiClient) -> None:
    server.script(whole(200, {}))

    assert client.apply_status({"dialect": "V6"}, "node-a") == ApplyResult(ApplyKind.APPLIED)

    request = server.next_request()
    url = urlsplit(request.target)
    assert request.method == "PATCH"
    assert url.path == "/apis/numamigration.dev/v1alpha1/nodemigrationstates/node-a/status"
    assert parse_qs(url.query) == {
        "fieldManager": ["numamigration-agent"],
        "force": ["true"],
        "fieldValidation": ["Ignore"],
    }
    assert request.headers["content-type"] == "application/apply-patch+yaml"
    assert request.headers["accept"] == METADATA_ONLY
    assert json.loads(request.body) == {
        "apiVersion": "numamigration.dev/v1alpha1",
        "kind": "NodeMigrationState",
        "metadata": {"name": "node-a"},
        "status": {"dialect": "V6"},
    }


def test_a_field_the_crd_lacks_leads_to_one_merge_patch(server: ScriptedServer, client: ApiClient) -> None:
    server.script(whole(500, failure(500, UNDECLARED)), whole(200, {}))

    result = client.apply_status({"dialekt": "V6"}, "node-a")

    assert result.kind is ApplyKind.SKEW
    assert ".status.dialekt" in result.message
    assert "the fields it knows were written" in result.message
    server.next_request()
    second = server.next_request()
    assert second.headers["content-type"] == "application/merge-patch+json"
    assert json.loads(second.body) == {"status": {"dialekt": "V6"}}
    assert parse_qs(urlsplit(second.target).query)["fieldValidation"] == ["Ignore"]


def test_a_merge_patch_that_fails_too_is_told_as_its_own_failure(server: ScriptedServer, client: ApiClient) -> None:
    server.script(whole(500, failure(500, UNDECLARED)), whole(404, failure(404, "not found")))

    assert client.apply_status({"dialekt": "V6"}, "node-a").kind is ApplyKind.GONE


def test_lines_come_one_by_one_before_the_answer_ends(server: ScriptedServer, client: ApiClient) -> None:
    server.script(chunked(b"one\n", b"tw", b"o\n", then="silent"))

    lines = client.lines("/x", {}, WAIT_SECONDS_MAX)

    assert [next(lines), next(lines)] == [b"one", b"two"]
    lines.close()


def test_a_stream_that_ends_well_leaves_the_connection_usable(server: ScriptedServer, client: ApiClient) -> None:
    server.script(chunked(b"one\n"), whole(200, {}))

    assert list(client.lines("/x", {}, WAIT_SECONDS_MAX)) == [b"one"]
    assert client.get("/x", {}).status == 200
    assert {server.next_request().connection for _ in range(2)} == {0}


def test_a_stream_that_is_cut_is_no_good_end(server: ScriptedServer, client: ApiClient) -> None:
    server.script(chunked(b"one\n", b"tw", then="cut"))
    lines = client.lines("/x", {}, WAIT_SECONDS_MAX)
    assert next(lines) == b"one"

    with pytest.raises(AnswerError) as caught:
        next(lines)

    assert caught.value.answer.status is None


def test_a_line_without_end_is_given_up(server: ScriptedServer, client: ApiClient) -> None:
    server.script(chunked(*[b"x" * (1 << 20)] * 5, then="silent"))

    with pytest.raises(AnswerError, match="more than"):
        next(client.lines("/x", {}, WAIT_SECONDS_MAX))


@pytest.mark.timeout(5)
def test_a_silent_stream_ends_with_its_time_out(server: ScriptedServer, client: ApiClient) -> None:
    server.script(chunked(b"one\n", then="silent"))
    lines = client.lines("/x", {}, 0.2)
    assert next(lines) == b"one"

    with pytest.raises(AnswerError, match="timed out"):
        next(lines)


# --- the watcher -------------------------------------------------------------------------------------------------


class Watching:
    """A watcher that runs, and the events it emits."""

    def __init__(self, client: ApiClient) -> None:
        self._events: queue.Queue[StateEvent] = queue.Queue()
        self.thread = StateWatcher(client, "node-a", self._events.put, rng=Random(1), start_jitter_seconds_max=0.0)
        self.thread.start()

    def next_event(self) -> StateEvent:
        return self._events.get(timeout=WAIT_SECONDS_MAX)

    def stop(self) -> None:
        self.thread.stop()
        self.thread.join(WAIT_SECONDS_MAX)
        assert not self.thread.is_alive()


@pytest.fixture
def watching(client: ApiClient) -> Iterator[Watching]:
    running = Watching(client)
    yield running
    running.stop()


def next_watch_version(server: ScriptedServer) -> str | None:
    """Return the resource version of the next watch that is opened; None means: a list came instead."""
    return parse_qs(urlsplit(server.next_request().target).query).get("resourceVersion", [None])[0]


def test_the_state_is_seen_by_list_and_then_by_watch(server: ScriptedServer, watching: Watching) -> None:
    server.script(
        listing(state(3)),
        chunked(line("MODIFIED", state(8)), line("BOOKMARK", state(9)), line("DELETED", state(10)), then="silent"),
    )

    assert [watching.next_event() for _ in range(3)] == [StateSeen(state(3)), StateSeen(state(8)), StateGone()]


def test_no_node_state_yet_is_said(server: ScriptedServer, watching: Watching) -> None:
    server.script(listing(), chunked(line("ADDED", state(8)), then="silent"))

    assert [watching.next_event() for _ in range(2)] == [StateGone(), StateSeen(state(8))]


def test_a_state_on_an_earlier_page_of_the_list_is_not_lost(server: ScriptedServer, watching: Watching) -> None:
    server.script(listing(state(3), more="next"), listing(), chunked(then="silent"))

    assert watching.next_event() == StateSeen(state(3))


def test_a_watch_that_is_cut_goes_on_from_the_last_bookmark(server: ScriptedServer, watching: Watching) -> None:
    half = line("MODIFIED", state(12))[:20]
    server.script(
        listing(),
        chunked(line("BOOKMARK", state(11)), half, then="cut"),
        chunked(line("MODIFIED", state(12)), then="silent"),
    )

    assert [watching.next_event() for _ in range(2)] == [StateGone(), StateSeen(state(12))]
    assert [next_watch_version(server) for _ in range(3)] == [None, "7", "11"]


def test_a_watch_that_is_silent_for_too_long_is_opened_anew(
    server: ScriptedServer, client: ApiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is dead and whose end nobody tells would hide an edit for as long as the watch was to last."""
    monkeypatch.setattr(cluster, "WATCH_SILENCE_SECONDS", 0.2)
    server.script(
        listing(),
        chunked(line("BOOKMARK", state(9)), then="silent"),
        chunked(line("ADDED", state(10)), then="silent"),
    )
    watching = Watching(client)

    found = [watching.next_event() for _ in range(2)]
    watching.stop()

    assert found == [StateGone(), StateSeen(state(10))]
    assert [next_watch_version(server) for _ in range(3)] == [None, "7", "9"]


@pytest.mark.parametrize(
    "expiry",
    [
        pytest.param(whole(410, failure(410, "too old resource version")), id="as answer"),
        pytest.param(chunked(line("ERROR", failure(410, "too old resource version"))), id="as ERROR event"),
    ],
)
def test_after_410_the_state_is_listed_again_without_a_word(
    server: ScriptedServer, watching: Watching, expiry: Reply, caplog: pytest.LogCaptureFixture
) -> None:
    server.script(listing(state(3)), expiry, listing(state(20), version=21), chunked(then="silent"))

    assert [watching.next_event() for _ in range(2)] == [StateSeen(state(3)), StateSeen(state(20))]
    assert [next_watch_version(server) for _ in range(4)] == [None, "7", None, "21"]
    assert caplog.records == []


def test_a_watch_the_server_ends_in_time_is_opened_again_at_once(server: ScriptedServer, watching: Watching) -> None:
    server.script(listing(), chunked(line("BOOKMARK", state(9))), chunked(line("ADDED", state(10)), then="silent"))

    assert [watching.next_event() for _ in range(2)] == [StateGone(), StateSeen(state(10))]
    assert [next_watch_version(server) for _ in range(3)] == [None, "7", "9"]


def test_a_problem_is_said_once_and_its_end_too(
    server: ScriptedServer, watching: Watching, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "numamigration_agent.cluster")
    refusal = whole(403, failure(403, "cannot list resource"))
    server.script(refusal, refusal, refusal, listing(), chunked(then="silent"))

    assert watching.next_event() == StateGone()

    assert [record.message for record in caplog.records] == [
        "node state cannot be watched; trying again",
        "node state is watched again",
    ]
    assert "RBAC" in getattr(caplog.records[0], "problem")  # noqa: B009 - a field that extra= made


@pytest.mark.parametrize(
    "replies",
    [
        pytest.param([], id="waiting for the answer to a list"),
        pytest.param([listing(), chunked(then="silent")], id="in a silent watch"),
    ],
)
def test_stop_ends_the_thread_in_the_middle_of_a_request_without_a_word(
    server: ScriptedServer, client: ApiClient, replies: list[Reply], caplog: pytest.LogCaptureFixture
) -> None:
    server.script(*replies)
    watching = Watching(client)
    for _ in range(max(1, len(replies))):
        server.next_request()

    watching.thread.stop()
    watching.thread.join(1.0)

    assert not watching.thread.is_alive()
    assert caplog.records == []


def test_stop_ends_a_long_wait_and_leaves_no_socket_behind(
    server: ScriptedServer, pki: Pki, token_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.script(listing(), whole(429, {}, "Retry-After: 600"))
    watching = Watching(ApiClient(server.url, pki.ca, token_file))  # an open socket would be a warning, hence an error
    poll(lambda: caplog.records, "the wait that the server asked for")

    watching.thread.stop()
    watching.thread.join(1.0)

    assert not watching.thread.is_alive()


def test_stop_ends_a_connection_that_nobody_accepts(pki: Pki, token_file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.socket() as first:
        first.connect(full.getsockname())  # fills the queue: further ones get no answer to their SYN
        port = full.getsockname()[1]
        watching = Watching(ApiClient(f"https://127.0.0.1:{port}", pki.ca, token_file))
        poll(lambda: syn_sent_to(port), "the watcher is connecting")

        watching.thread.stop()
        watching.thread.join(1.0)

        assert not watching.thread.is_alive()


def syn_sent_to(port: int) -> bool:
    """Tell whether somebody waits for a connection to `port` (proc_net_tcp.txt: state 02 is TCP_SYN_SENT)."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(remote.endswith(f":{port:04X}") and state == "02" for _, _, remote, state, *_ in lines)


def test_stop_ends_a_handshake_that_nobody_answers(pki: Pki, token_file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        client = ApiClient(f"https://127.0.0.1:{deaf.getsockname()[1]}", pki.ca, token_file)
        watching = Watching(client)
        accepted, _ = deaf.accept()  # TCP is there, the TLS handshake will never be answered
        with accepted:
            watching.thread.stop()
            watching.thread.join(1.0)

            assert not watching.thread.is_alive()


def test_stop_ends_the_wait_before_the_first_list(client: ApiClient, server: ScriptedServer) -> None:
    thread = StateWatcher(client, "node-a", lambda _: None, rng=Random(1), start_jitter_seconds_max=600.0)
    thread.start()

    thread.stop()
    thread.join(1.0)

    assert not thread.is_alive()
    assert server.requests.empty()
