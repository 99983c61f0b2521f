# SPDX-License-Identifier: Apache-2.0
"""The proxy's faults, seen from a client of it; behind it stands a scripted server."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.testbed.errors import WaitTimeoutError
from tests.testbed.faultproxy import (
    Action,
    Answer,
    Cut,
    CutAnswer,
    CutWatch,
    FailWatch,
    Fault,
    FaultProxy,
    Match,
    SmallPages,
    Stall,
    Trickle,
)
from tests.testbed.pki import Pki, write_pki
from tests.unit.scripted_server import ScriptedServer, chunked, whole

pytestmark = pytest.mark.uncounted

WATCH = "/things?watch=true"
EVERYTHING = Match()
CUT = (OSError, http.client.HTTPException)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return write_pki(tmp_path_factory.mktemp("pki") / "pki")


@pytest.fixture
def server(pki: Pki) -> Iterator[ScriptedServer]:
    with ScriptedServer(pki.server_cert, pki.server_key) as running:
        yield running


@pytest.fixture
def proxy(server: ScriptedServer, pki: Pki) -> Iterator[FaultProxy]:
    with FaultProxy(server.url, pki.ca, pki.server_cert, pki.server_key) as running:
        yield running


class Client:
    """One keep-alive connection through the proxy."""

    def __init__(self, proxy: FaultProxy, pki: Pki) -> None:
        tls = ssl.create_default_context(cafile=str(pki.ca))
        address = proxy.url.removeprefix("https://")
        self.line = http.client.HTTPSConnection(address, context=tls, timeout=20)

    def open(self, method: str, target: str, body: bytes | None = None, **headers: str) -> http.client.HTTPResponse:
        self.line.request(method, target, body, headers)
        return self.line.getresponse()

    def ask(self, method: str = "GET", target: str = "/things", body: bytes | None = None, **headers: str) -> Any:
        answer = self.open(method, target, body, **headers)
        return answer.status, answer.read()


@pytest.fixture
def client(proxy: FaultProxy, pki: Pki) -> Iterator[Client]:
    client = Client(proxy, pki)
    yield client
    client.line.close()


def force(proxy: FaultProxy, action: Action, match: Match = EVERYTHING, **more: int) -> None:
    proxy.inject(Fault(match, action, **more))


# --- nothing wrong -----------------------------------------------------------------------------------------------


def test_requests_and_answers_go_through_and_are_kept(
    server: ScriptedServer, proxy: FaultProxy, client: Client
) -> None:
    server.script(whole(201, {"made": True}), whole(404, {}))

    assert client.ask("PATCH", "/things/a?x=1", b'{"a": 1}', **{"User-Agent": "me/1"}) == (201, b'{"made": true}')
    assert client.ask(Authorization="Bearer mine")[0] == 404

    first = server.next_request()
    assert (first.method, first.target, first.body) == ("PATCH", "/things/a?x=1", b'{"a": 1}')
    patch, get = proxy.seen(EVERYTHING)
    assert (patch.path, patch.json, patch.agent, patch.status) == ("/things/a", {"a": 1}, "me/1", 201)
    assert (get.method, get.token, get.status) == ("GET", "mine", 404)


def test_a_watch_goes_through_line_by_line(server: ScriptedServer, proxy: FaultProxy, client: Client) -> None:
    server.script(chunked(b"first\n", b"second\n", then="silent"))

    answer = client.open("GET", WATCH)

    assert [answer.readline(), answer.readline()] == [b"first\n", b"second\n"]
    proxy.wait_lines(Match(watch=True), 2)


def test_an_api_server_that_is_away_is_a_cut_connection(pki: Pki) -> None:
    with FaultProxy("https://127.0.0.1:1", pki.ca, pki.server_cert, pki.server_key) as proxy:
        client = Client(proxy, pki)
        with pytest.raises(CUT):
            client.ask()
        client.line.close()


# --- faults ------------------------------------------------------------------------------------------------------


def test_an_answer_of_ours_never_reaches_the_server(server: ScriptedServer, proxy: FaultProxy, client: Client) -> None:
    force(proxy, Answer(429, retry_after=7))

    answer = client.open("PATCH", "/things/a", b"{}")
    body = json.loads(answer.read())

    assert (answer.status, answer.getheader("Retry-After")) == (429, "7")
    assert (body["kind"], body["code"], body["reason"]) == ("Status", 429, "TooManyRequests")
    assert server.requests.empty()


@pytest.mark.parametrize(
    ("action", "asked"), [pytest.param(Cut(), 0, id="before"), pytest.param(Cut(forward=True), 1, id="after")]
)
def test_a_cut_comes_before_or_after_the_server_did_it(
    server: ScriptedServer, proxy: FaultProxy, client: Client, action: Action, asked: int
) -> None:
    server.script(whole(200, {}))
    force(proxy, action)

    with pytest.raises(CUT):
        client.ask("PATCH", "/things/a", b"{}")

    assert server.requests.qsize() == asked
    assert proxy.seen(EVERYTHING)[0].status is None


def test_half_an_answer_is_known_to_be_half(server: ScriptedServer, proxy: FaultProxy, client: Client) -> None:
    server.script(whole(200, b"0123456789"))
    force(proxy, CutAnswer())

    with pytest.raises(http.client.IncompleteRead) as cut:
        client.ask()

    assert cut.value.partial == b"01234"


def test_a_watch_is_cut_in_the_middle_of_a_line(server: ScriptedServer, proxy: FaultProxy, client: Client) -> None:
    server.script(chunked(b"first\n", b"0123456789\n", then="silent"))
    force(proxy, CutWatch(lines=1))

    answer = client.open("GET", WATCH)

    assert answer.read1() == b"first\n"
    assert answer.read1() == b"01234"
    with pytest.raises(CUT):
        answer.read1()


def test_a_watch_fails_with_an_error_event_and_ends_in_order(
    server: ScriptedServer, proxy: FaultProxy, client: Client
) -> None:
    server.script(chunked(b"first\n", b"second\n", then="silent"))
    force(proxy, FailWatch(410, lines=1))

    first, error = client.open("GET", WATCH).read().splitlines()

    assert first == b"first"
    assert json.loads(error)["type"] == "ERROR"
    assert json.loads(error)["object"]["reason"] == "Expired"


@pytest.mark.parametrize(
    ("action", "asked"), [pytest.param(Stall(), 0, id="before"), pytest.param(Stall(forward=True), 1, id="after")]
)
def test_a_stall_ends_when_it_is_cleared(
    server: ScriptedServer, proxy: FaultProxy, client: Client, action: Action, asked: int
) -> None:
    server.script(whole(200, b"late"))
    force(proxy, action)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(client.ask)
        proxy.wait_seen(EVERYTHING)
        if asked:
            server.next_request()
        assert server.requests.empty()
        assert not asking.done()

        proxy.clear()

        assert asking.result(20) == (200, b"late")


def test_an_answer_trickles(server: ScriptedServer, proxy: FaultProxy, client: Client) -> None:
    server.script(whole(200, b"0123456789"))
    force(proxy, Trickle(size=3, seconds=0.001))

    assert client.ask() == (200, b"0123456789")


def test_pages_are_made_small(server: ScriptedServer, proxy: FaultProxy, client: Client) -> None:
    server.script(whole(200, {}))
    force(proxy, SmallPages(2))

    client.ask("GET", "/things?limit=500&continue=limit=9")

    assert server.next_request().target == "/things?limit=2&continue=limit=9"


def test_refused_connections_are_cut_and_taken_again_at_the_same_place(
    server: ScriptedServer, proxy: FaultProxy, client: Client
) -> None:
    server.script(chunked(b"first\n", then="silent"), whole(200, {}))
    watch = client.open("GET", WATCH)
    assert watch.readline() == b"first\n"

    proxy.refuse()
    with pytest.raises(CUT):
        watch.read1()
    client.line.close()
    with pytest.raises(ConnectionRefusedError):
        client.ask()

    proxy.accept()
    client.line.close()
    assert client.ask()[0] == 200


# --- which requests ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("match", "hit"),
    [
        pytest.param(Match(), True, id="everything"),
        pytest.param(Match(method="GET"), True, id="method"),
        pytest.param(Match(method="PATCH"), False, id="other method"),
        pytest.param(Match(path=r"^/things\?"), True, id="path and query"),
        pytest.param(Match(path="/thing$"), False, id="other path"),
        pytest.param(Match(agent="me/"), True, id="beginning of the agent"),
        pytest.param(Match(agent="you/"), False, id="other agent"),
        pytest.param(Match(token="mine"), True, id="token"),
        pytest.param(Match(token="min"), False, id="part of the token"),
        pytest.param(Match(watch=False), True, id="no watch"),
        pytest.param(Match(watch=True), False, id="a watch"),
    ],
)
def test_a_fault_hits_what_it_names(
    server: ScriptedServer, proxy: FaultProxy, client: Client, match: Match, hit: bool
) -> None:
    server.script(whole(200, {}))
    force(proxy, Answer(503), match)

    headers = {"User-Agent": "me/1", "Authorization": "Bearer mine"}
    status, _ = client.ask("GET", "/things?limit=1", None, **headers)

    assert (status == 503) is hit


def test_a_fault_skips_then_hits_so_many_times(server: ScriptedServer, proxy: FaultProxy, client: Client) -> None:
    server.script(*[whole(200, {})] * 3)
    force(proxy, Answer(503), skip=1, times=2)

    assert [client.ask()[0] for _ in range(5)] == [200, 503, 503, 200, 200]


def test_the_first_fault_that_fits_has_the_request(server: ScriptedServer, proxy: FaultProxy, client: Client) -> None:
    server.script(whole(200, {}))
    proxy.inject(Fault(EVERYTHING, Answer(500), times=1), Fault(EVERYTHING, Answer(503), times=1))

    assert [client.ask()[0] for _ in range(3)] == [500, 503, 200]


# --- waiting -----------------------------------------------------------------------------------------------------


def test_a_wait_ends_with_the_request_it_waits_for(server: ScriptedServer, proxy: FaultProxy, client: Client) -> None:
    server.script(whole(200, {}), whole(200, {}))
    client.ask()
    mark = proxy.mark()
    asking = threading.Timer(0.01, client.ask, ("DELETE",))
    asking.start()

    (found,) = proxy.wait_seen(EVERYTHING, since=mark, status=200)

    assert found.method == "DELETE"
    asking.join()


def test_a_wait_that_runs_out_says_what_came(proxy: FaultProxy) -> None:
    with pytest.raises(WaitTimeoutError, match="0 after"):
        proxy.wait_seen(EVERYTHING, timeout=0.01)
    with pytest.raises(WaitTimeoutError, match="lines"):
        proxy.wait_lines(EVERYTHING, timeout=0.01)


def test_tokens_are_not_shown(server: ScriptedServer, proxy: FaultProxy, client: Client) -> None:
    server.script(whole(200, {}))
    client.ask(Authorization="Bearer secret")

    assert "secret" not in repr(proxy.seen(EVERYTHING))
    assert "secret" not in repr(Match(token="secret"))
