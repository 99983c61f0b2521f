# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from queue import SimpleQueue
from typing import Any

import pytest

from numamigration_agent import health as module
from numamigration_agent.cluster import ApplyKind, ApplyResult, StateGone, StateSeen
from numamigration_agent.events import ReportDone, Tick
from numamigration_agent.health import Finding, Health, HealthServer, Question, family_of

WAIT_SECONDS_MAX = 20.0
STORED = ReportDone(ApplyResult(ApplyKind.APPLIED))
REFUSED = ReportDone(ApplyResult(ApplyKind.RETRY, "403: not this node"))


class MainThread:
    """Answers questions as the agent's main thread does, unless it hangs."""

    def __init__(self) -> None:
        self.hangs = False
        self.status: dict[str, Any] = {}
        self._questions: SimpleQueue[Question | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def ask(self, question: Question) -> None:
        if not self.hangs:
            self._questions.put(question)

    def end(self) -> None:
        self._questions.put(None)
        self._thread.join(WAIT_SECONDS_MAX)

    def _run(self) -> None:
        while (question := self._questions.get()) is not None:
            question.answer(lambda: self.status)


@pytest.fixture
def main_thread() -> Iterator[MainThread]:
    thread = MainThread()
    yield thread
    thread.end()


@pytest.fixture
def health(main_thread: MainThread) -> Health:
    return Health(main_thread.ask)


@pytest.fixture
def server(health: Health) -> Iterator[HealthServer]:
    with closing(HealthServer(("127.0.0.1", 0), health)) as running:
        running.start()
        yield running


def get(server: HealthServer, path: str, method: str = "GET") -> tuple[int, str]:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT_SECONDS_MAX)) as line:
        line.request(method, path)
        answer = line.getresponse()
        return answer.status, answer.read().decode()


# What is said


def test_an_agent_is_not_ready_before_it_has_read_the_api_server(health: Health) -> None:
    assert health.readiness() == (False, "the API server has not been read yet")


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        pytest.param([StateGone()], (False, "there is no node state of this node; the operator makes it"), id="none"),
        pytest.param([StateSeen({})], (False, "no report is stored yet"), id="not reported"),
        pytest.param(
            [StateSeen({}), REFUSED], (False, "no report is stored yet: 403: not this node"), id="report refused"
        ),
        pytest.param([StateSeen({}), STORED], (True, "reports are stored"), id="reported"),
        pytest.param([StateSeen({}), STORED, REFUSED, StateSeen({}), Tick()], (True, "reports are stored"), id="later"),
        pytest.param(
            [StateSeen({}), STORED, StateGone(), StateSeen({})], (False, "no report is stored yet"), id="made anew"
        ),
    ],
)
def test_an_agent_is_ready_once_the_api_server_has_stored_a_report(
    health: Health, events: list[Any], expected: tuple[bool, str]
) -> None:
    for event in events:
        health.heard(event)

    assert health.readiness() == Finding(*expected)


def test_an_agent_whose_main_thread_does_not_answer_is_not_alive(
    health: Health, main_thread: MainThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS_MAX", 0.01)
    main_thread.hangs = True

    assert health.liveness() == (False, "the main thread has not answered for 0.01 s")


# How it is said


def test_probes_get_a_line_that_says_why(server: HealthServer, health: Health) -> None:
    assert get(server, "/healthz") == (200, "alive\n")
    assert get(server, "/readyz?verbose") == (503, "the API server has not been read yet\n")
    health.heard(STORED)
    assert get(server, "/readyz") == (200, "reports are stored\n")


def test_prometheus_gets_numbers_of_what_would_be_reported_now(
    server: HealthServer, health: Health, main_thread: MainThread
) -> None:
    main_thread.status = {"offload": "Off"}
    health.heard(STORED)
    health.heard(REFUSED)

    status, text = get(server, "/metrics")

    assert status == 200
    assert "\nnumamigration_agent_offload_enabled 0\n" in text
    assert '\nnumamigration_agent_report_results_total{result="applied"} 1\n' in text
    assert '\nnumamigration_agent_report_results_total{result="retry"} 1\n' in text
    assert "\nnumamigration_agent_last_stored_report_timestamp_seconds " in text


def test_an_agent_whose_main_thread_does_not_answer_has_no_numbers(
    server: HealthServer, main_thread: MainThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_SECONDS_MAX", 0.01)
    main_thread.hangs = True

    assert get(server, "/metrics") == (503, "the main thread has not answered for 0.01 s\n")


def test_probes_make_nobody_build_a_status() -> None:
    def built() -> dict[str, Any]:
        raise AssertionError

    question = Question()
    question.answer(built)

    assert question.wait(WAIT_SECONDS_MAX) == {}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        pytest.param("GET", "/", 404, id="no such path"),
        pytest.param("GET", "/healthz/more", 404, id="below one"),
        pytest.param("POST", "/healthz", 405, id="no such method"),
    ],
)
def test_nothing_else_is_answered(server: HealthServer, method: str, path: str, status: int) -> None:
    assert get(server, path, method)[0] == status


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing, for ever"),
        pytest.param(b"GET /healthz HT", id="half a request"),
        pytest.param(b"x" * 100_000, id="more than a request has"),
        pytest.param(b"\x16\x03\x01\x02\x00\r\n\r\n", id="TLS"),
    ],
)
def test_a_stranger_on_the_port_keeps_it_for_a_bounded_time(
    server: HealthServer, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 14: nothing that comes in makes it do anything but answer."""
    monkeypatch.setattr(module, "REQUEST_SECONDS_MAX", 0.05)
    with socket.create_connection(("127.0.0.1", server.port)) as stranger:
        stranger.sendall(sent)

        assert get(server, "/healthz") == (200, "alive\n")


@pytest.mark.parametrize(
    ("host", "family"),
    [
        pytest.param("0.0.0.0", socket.AF_INET, id="IPv4"),
        pytest.param("::", socket.AF_INET6, id="IPv6"),
        pytest.param("::ffff:10.0.0.1", socket.AF_INET6, id="IPv4 in IPv6"),
    ],
)
def test_the_family_of_an_address_is_told_by_its_form(host: str, family: socket.AddressFamily) -> None:
    assert family_of(host) is family
