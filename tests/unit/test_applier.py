# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import heapq
import itertools
from collections import deque
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numamigration_api.vocabulary import FENCE_MESSAGE, JSON, METADATA_ONLY
from numamigration_operator.cluster.applier import (
    HOPELESS_CAP_SECONDS,
    RETRY_BASE_SECONDS,
    Applier,
    Idle,
    Limits,
    Send,
    Verdict,
    judge,
)
from numamigration_operator.core.decisions import Patch, Write, WriteKey, WriteKind
from tests.unit.builders import World as FleetWorld

A = WriteKey(WriteKind.STATE_SPEC, "node-a")
B = WriteKey(WriteKind.STATE_SPEC, "node-b")
STATUS = WriteKey(WriteKind.POLICY_STATUS, "policy")
FINALIZER = WriteKey(WriteKind.POLICY_FINALIZER, "policy")
REVISION = WriteKey(WriteKind.REVISION, "policy-0123456789")
HOLD = WriteKey(WriteKind.CLASS_HOLD, "hold.0123456789abcdef")
DELETION = Write(
    WriteKey(WriteKind.REVISION_DELETION, "policy-0123456789"), b'{"preconditions": {"uid": "u"}}', patch=Patch.DELETE
)
OURS = "/apis/numamigration.dev/v1alpha1"
UNDECLARED = (
    "failed to create typed patch object (/p1; numamigration.dev/v1alpha1): .spec.foo: field not declared in schema"
)


def applier(*, open_max: int = 8, rate: float = 1000.0, burst: int = 1000) -> Applier:
    return Applier(Limits(open_max, rate, burst), Random(0))


def sent(machine: Applier, now: float = 0.0) -> Send:
    step = machine.next(now)
    assert isinstance(step, Send), step
    return step


def rest(machine: Applier, now: float = 0.0) -> float | None:
    step = machine.next(now)
    assert isinstance(step, Idle), step
    return step.until


def answer(machine: Applier, send: Send, status: int, message: str = "", *, now: float = 0.0) -> Verdict:
    return machine.answered(send, status, message, None, now)


# --- what is sent, and when ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "path", "manager"),
    [
        pytest.param(A, f"{OURS}/nodemigrationstates/node-a", "numamigration-operator", id="state"),
        pytest.param(STATUS, f"{OURS}/migrationpolicies/policy/status", "numamigration-operator", id="status"),
        pytest.param(FINALIZER, f"{OURS}/migrationpolicies/policy", "numamigration-finalizer", id="finalizer"),
        pytest.param(
            REVISION,
            "/apis/apps/v1/namespaces/home/controllerrevisions/policy-0123456789",
            "numamigration-operator",
            id="revision",
        ),
        pytest.param(
            HOLD,
            "/api/v1/namespaces/home/configmaps/numamigration-control",
            "numamigration-hold-0123456789abcdef",
            id="hold of a class, each of which has a field manager of its own",
        ),
    ],
)
def test_each_kind_of_write_has_its_path_and_field_manager(key: WriteKey, path: str, manager: str) -> None:
    send = Send(Write(key, b"{}"))

    assert (send.method, send.path("home")) == ("PATCH", path)
    assert send.query == {"fieldManager": manager, "force": "true", "fieldValidation": "Ignore"}


@pytest.mark.parametrize("kind", WriteKind)
def test_of_answers_only_those_are_whole_that_are_few(kind: WriteKind) -> None:
    alone = kind in {WriteKind.STATE_SPEC, WriteKind.PROBE}

    assert Send(Write(WriteKey(kind, "a"), b"{}")).accept == (METADATA_ONLY if alone else JSON)


def test_each_hold_of_a_class_has_a_field_manager_of_its_own() -> None:
    """Promise 15: else an apply of the second hold would take the first one away, and its class be turned on."""
    keys = [WriteKey(WriteKind.CLASS_HOLD, f"hold.{digit * 16}") for digit in "ab"]

    managers = {Send(Write(key, b"{}")).query["fieldManager"] for key in keys}

    assert managers == {"numamigration-hold-aaaaaaaaaaaaaaaa", "numamigration-hold-bbbbbbbbbbbbbbbb"}


def test_a_write_is_sent_as_it_says() -> None:
    machine = applier()
    machine.submit([Write(FINALIZER, b"[]", patch=Patch.JSON)], 0.0)

    send = sent(machine)

    assert send.patch is Patch.JSON
    assert send.query == {"fieldManager": "numamigration-finalizer", "fieldValidation": "Warn"}


def test_what_is_new_is_created_and_nothing_there_is_replaced() -> None:
    """Promise 8: a ControllerRevision has verdicts by the time that its first write arrives late."""
    machine = applier()
    machine.submit([Write(REVISION, b"{}", patch=Patch.CREATE)], 0.0)

    send = sent(machine)

    assert (send.method, send.path("home")) == ("POST", "/apis/apps/v1/namespaces/home/controllerrevisions")
    assert send.query == {"fieldManager": "numamigration-operator", "fieldValidation": "Strict"}
    assert answer(machine, send, 409, "already exists") is Verdict.DECIDE_ANEW


def test_a_deletion_is_sent_as_one() -> None:
    machine = applier()
    machine.submit([DELETION], 0.0)

    send = sent(machine)

    assert send.method == "DELETE"
    assert send.path("home") == "/apis/apps/v1/namespaces/home/controllerrevisions/policy-0123456789"
    assert send.query == {}


def test_a_json_patch_whose_test_failed_is_decided_anew_soon() -> None:
    """Promise 13: a finalizer that moved in its list does not wait like a body that is refused for good."""
    machine = applier()
    write = Write(FINALIZER, b"[]", patch=Patch.JSON)
    machine.submit([write], 0.0)

    assert answer(machine, sent(machine), 422, "the server rejected our request") is Verdict.DECIDE_ANEW

    machine.submit([write], 0.0)
    until = rest(machine)
    assert until is not None
    assert until <= RETRY_BASE_SECONDS


def test_of_two_writes_for_one_place_only_the_later_is_sent() -> None:
    machine = applier()
    machine.submit([Write(A, b"1"), Write(A, b"2")], 0.0)

    assert sent(machine).write.body == b"2"
    assert rest(machine) is None


def test_a_newer_write_waits_for_the_open_one_of_its_place() -> None:
    machine = applier()
    machine.submit([Write(A, b"1")], 0.0)
    first = sent(machine)
    machine.submit([Write(A, b"2")], 0.0)
    assert rest(machine) is None

    answer(machine, first, 200)

    assert sent(machine).write.body == b"2"


def test_a_write_that_says_what_an_open_one_says_is_sent_all_the_same() -> None:
    """Promise 13: the open one may have been stored before its object was deleted; its answer is only late."""
    machine = applier()
    machine.submit([Write(A, b"1")], 0.0)
    first = sent(machine)
    machine.submit([Write(A, b"1")], 0.0)

    answer(machine, first, 200)

    assert sent(machine).write.body == b"1"


def test_safe_direction_goes_first_then_policies_then_node_states() -> None:
    """Promise 17: a way off never waits behind a push."""
    machine = applier()
    machine.submit([Write(A, b"on"), Write(STATUS, b"s"), Write(B, b"off", safe=True)], 0.0)

    assert [sent(machine).write.key for _ in range(3)] == [B, STATUS, A]


def test_a_hold_goes_first_a_revision_before_policies_and_what_is_tidied_away_last() -> None:
    """Promise 17: a class whose engine copies wrong is held before anything else is done."""
    machine = applier()
    machine.submit([DELETION, Write(A, b"on"), Write(STATUS, b"s"), Write(REVISION, b"r"), Write(HOLD, b"h")], 0.0)

    assert [sent(machine).write.key for _ in range(5)] == [HOLD, REVISION, STATUS, A, DELETION.key]


def test_a_waiting_write_that_becomes_safe_overtakes_the_others() -> None:
    machine = applier()
    machine.submit([Write(B, b"on"), Write(A, b"on"), Write(A, b"off", safe=True)], 0.0)

    assert [sent(machine).write.key for _ in range(2)] == [A, B]


def test_a_replaced_write_keeps_its_turn() -> None:
    machine = applier()
    machine.submit([Write(A, b"1"), Write(B, b"1"), Write(A, b"2")], 0.0)

    assert [sent(machine).write.key for _ in range(2)] == [A, B]


def test_no_more_requests_are_open_than_allowed() -> None:
    machine = applier(open_max=2)
    machine.submit([Write(WriteKey(WriteKind.STATE_SPEC, str(n)), b"x") for n in range(3)], 0.0)
    first, _ = sent(machine), sent(machine)
    assert rest(machine) is None

    answer(machine, first, 200)

    assert sent(machine).write.key.name == "2"


def test_after_the_burst_requests_go_at_the_rate() -> None:
    machine = applier(rate=10.0, burst=2)
    machine.submit([Write(WriteKey(WriteKind.STATE_SPEC, str(n)), b"x") for n in range(3)], 100.0)
    sent(machine, 100.0), sent(machine, 100.0)

    assert rest(machine, 100.0) == pytest.approx(100.1)
    assert sent(machine, 100.1).write.key.name == "2"


# --- what answers mean --------------------------------------------------------------------------------------------

VERDICTS = [
    pytest.param(A, 200, "", Verdict.DONE, id="stored"),
    pytest.param(A, 201, "", Verdict.DONE, id="created"),
    pytest.param(FINALIZER, 409, "uid mismatch", Verdict.DECIDE_ANEW, id="object with that uid is gone"),
    pytest.param(
        FINALIZER, 422, "metadata.uid: field is immutable", Verdict.DECIDE_ANEW, id="a namesake took its place"
    ),
    pytest.param(STATUS, 404, "not found", Verdict.GONE, id="status of a deleted policy"),
    pytest.param(
        STATUS, 409, "the object has been modified", Verdict.DECIDE_ANEW, id="a reservation from a stale policy"
    ),
    pytest.param(A, 404, "page not found", Verdict.NO_RIGHT, id="CRD missing"),
    pytest.param(REVISION, 404, 'namespaces "home" not found', Verdict.NO_RIGHT, id="namespace missing"),
    pytest.param(REVISION, 403, "because it is being terminated", Verdict.NO_RIGHT, id="namespace going"),
    pytest.param(REVISION, 422, "data: field is immutable", Verdict.GIVEN_UP, id="another content in its place"),
    pytest.param(HOLD, 404, 'namespaces "home" not found', Verdict.NO_RIGHT, id="nowhere to put a hold"),
    pytest.param(A, 403, "forbidden", Verdict.NO_RIGHT, id="no right"),
    pytest.param(A, 401, "unauthorized", Verdict.NO_RIGHT, id="token expired"),
    pytest.param(A, 422, "Too long", Verdict.GIVEN_UP, id="value refused"),
    pytest.param(A, 400, "the name does not match", Verdict.GIVEN_UP, id="nonsense"),
    pytest.param(A, 413, "too large", Verdict.GIVEN_UP, id="too large"),
    pytest.param(A, 429, "later", Verdict.RETRY, id="busy"),
    pytest.param(A, 500, "etcdserver: leader changed", Verdict.RETRY, id="server trouble"),
    pytest.param(A, 503, "", Verdict.RETRY, id="not ready"),
    pytest.param(A, 500, UNDECLARED, Verdict.SKEW, id="older CRD"),
    pytest.param(
        A, 422, f"spec: Invalid value: {FENCE_MESSAGE}", Verdict.FENCED, id="a newer leader wrote a node state"
    ),
    pytest.param(STATUS, 422, f"<nil>: {FENCE_MESSAGE}", Verdict.FENCED, id="a newer leader wrote a policy's status"),
]


@pytest.mark.parametrize(("key", "status", "message", "verdict"), VERDICTS)
def test_answers_have_their_meaning(key: WriteKey, status: int, message: str, verdict: Verdict) -> None:
    assert judge(Send(Write(key, b"{}")), status, message) is verdict


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        pytest.param(200, Verdict.DONE, id="deleted"),
        pytest.param(404, Verdict.DONE, id="another one was quicker"),
        pytest.param(409, Verdict.DECIDE_ANEW, id="a namesake took its place"),
    ],
)
def test_answers_to_a_deletion_have_their_meaning(status: int, verdict: Verdict) -> None:
    assert judge(Send(DELETION, Patch.DELETE), status, "") is verdict


def test_a_replacement_that_meets_the_fence_is_fenced_and_not_decided_anew() -> None:
    """Promise 8: else its write would be decided and refused for ever, and the old leader go on with other objects."""
    assert judge(Send(Write(A, b"[]", patch=Patch.JSON), Patch.JSON), 422, FENCE_MESSAGE) is Verdict.FENCED


def test_after_the_fence_refused_one_write_nothing_is_sent_any_more() -> None:
    """Promise 8."""
    machine = applier()
    machine.submit([Write(A, b"1"), Write(B, b"2")], 0.0)
    assert answer(machine, sent(machine), 422, FENCE_MESSAGE) is Verdict.FENCED

    machine.submit([Write(STATUS, b"3")], 1.0)

    assert rest(machine, 1e6) is None


def test_a_field_the_crd_does_not_know_is_sent_once_as_a_merge_patch() -> None:
    machine = applier()
    machine.submit([Write(A, b"1")], 0.0)
    assert answer(machine, sent(machine), 500, UNDECLARED) is Verdict.SKEW

    merge = sent(machine)
    assert merge.patch is Patch.MERGE
    assert "force" not in merge.query
    assert answer(machine, merge, 500, UNDECLARED) is Verdict.GIVEN_UP
    assert rest(machine, 1e6) is None


def test_a_failed_request_is_repeated_after_a_jittered_wait() -> None:
    machine = applier()
    machine.submit([Write(A, b"1")], 0.0)
    answer(machine, sent(machine), 500, "leader changed")

    until = rest(machine)

    assert until is not None
    assert 0.0 < until <= 0.2
    assert sent(machine, until).write == Write(A, b"1")


def test_a_newer_write_replaces_the_one_that_failed() -> None:
    machine = applier()
    machine.submit([Write(A, b"1")], 0.0)
    first = sent(machine)
    machine.submit([Write(A, b"2")], 0.0)
    machine.answered(first, 500, "", None, 0.0)

    assert sent(machine, 10.0).write.body == b"2"


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_holds_everything_back(status: int) -> None:
    machine = applier()
    machine.submit([Write(A, b"1"), Write(B, b"1", safe=True)], 0.0)
    machine.answered(sent(machine), status, "", 7.0, 0.0)

    assert rest(machine) == 7.0
    assert sent(machine, 7.0).write.key == A


def test_a_server_that_does_not_answer_gets_few_requests_and_loses_none() -> None:
    machine = applier(open_max=1)
    machine.submit([Write(A, b"1"), Write(B, b"1")], 0.0)
    requests, now = 0, 0.0
    while now < 600.0:
        step = machine.next(now)
        if isinstance(step, Send):
            requests += 1
            machine.unanswered(step, now)
        else:
            assert step.until is not None
            now = step.until

    assert requests < 300  # a full jitter of at most 10 s is 5 s on average
    assert {sent(machine, 1e6).write.key} == {A}
    assert machine.waiting == 1


@pytest.mark.parametrize(
    ("status", "message"),
    [pytest.param(422, "Too long", id="refused for good"), pytest.param(409, "uid mismatch", id="precondition")],
)
def test_the_same_refused_bytes_are_not_sent_in_a_loop(status: int, message: str) -> None:
    machine = applier()
    machine.submit([Write(A, b"1")], 0.0)
    requests, now = 0, 0.0
    while now < HOPELESS_CAP_SECONDS:
        step = machine.next(now)
        if isinstance(step, Send):
            requests += 1
            machine.answered(step, status, message, None, now)
            machine.submit([Write(A, b"1")], now)
        else:
            assert step.until is not None
            now = max(now, step.until)

    assert requests < 40


def test_a_spec_that_the_server_never_takes_is_not_sent_in_a_loop() -> None:
    """Each decision has a number of its own, and asks for the same."""
    world, machine = FleetWorld(), applier()
    world.add_node("n")
    world.sync()
    requests, end = 0, world.now + HOPELESS_CAP_SECONDS
    while world.now < end and requests < 40:
        machine.submit(world.decide().writes, world.now)
        step = machine.next(world.now)
        if isinstance(step, Send):
            requests += 1
            machine.answered(step, 422, "Too long", None, world.now)
            world.fleet.write_failed(step.write.key)
        elif step.until is not None:
            world.now = max(world.now, step.until)

    assert requests < 40


def test_a_merge_patch_for_an_object_that_does_not_exist_becomes_an_apply_again() -> None:
    """A merge patch creates nothing; once the CRDs are new, the apply does."""
    machine = applier()
    machine.submit([Write(A, b"1")], 0.0)
    answer(machine, sent(machine), 500, UNDECLARED)
    assert answer(machine, sent(machine), 404, "not found") is Verdict.NO_RIGHT

    until = rest(machine)

    assert until is not None
    assert sent(machine, until).patch is Patch.APPLY


@pytest.mark.parametrize("key", [A, WriteKey(WriteKind.PROBE, "node-a")], ids=["spec", "question"])
@pytest.mark.parametrize("patch", [Patch.JSON, Patch.MERGE])
def test_a_patch_for_a_node_state_that_is_gone_is_not_repeated(patch: Patch, key: WriteKey) -> None:
    """Only applies create; a question that is taken back from a node that left would be taken back without end."""
    machine = applier()
    machine.submit([Write(key, b"[]", patch=patch)], 0.0)

    assert answer(machine, sent(machine), 404, "not found") is Verdict.GONE
    assert rest(machine) is None


def test_another_body_is_sent_at_once_after_a_refusal() -> None:
    machine = applier()
    machine.submit([Write(A, b"1")], 0.0)
    answer(machine, sent(machine), 422, "Too long")
    machine.submit([Write(A, b"2")], 0.0)

    assert sent(machine).write.body == b"2"


def test_a_refused_place_is_forgotten_when_nobody_insists() -> None:
    machine = applier()
    machine.submit([Write(A, b"1")], 0.0)
    answer(machine, sent(machine), 422, "Too long")

    machine.next(HOPELESS_CAP_SECONDS)

    assert not machine._places


def test_missing_rights_are_tried_again_by_themselves() -> None:
    machine = applier()
    machine.submit([Write(A, b"1")], 0.0)
    answer(machine, sent(machine), 403, "forbidden")

    until = rest(machine)

    assert until is not None
    assert until <= HOPELESS_CAP_SECONDS
    assert sent(machine, until).write.body == b"1"


# --- histories ----------------------------------------------------------------------------------------------------

ANSWERS = st.sampled_from([200, 200, 200, 409, 422, 403, 429, 500, 503, 0])
SUBMITS = st.tuples(
    st.floats(0.0, 3.0),
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.booleans()), min_size=1, max_size=8),
)


@dataclass
class World:
    """A server with scripted answers and latencies, in virtual time."""

    machine: Applier
    answers: deque[tuple[int, float, float | None]]
    now: float = 0.0
    stored: dict[WriteKey, bytes] = field(default_factory=dict)
    refused: dict[WriteKey, bytes] = field(default_factory=dict)
    starts: list[float] = field(default_factory=list)
    open: list[tuple[float, int, Send, int, float | None]] = field(default_factory=list)
    open_most: int = 0
    paused_until: float = 0.0
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    def run(self, until: float) -> None:
        while self.now <= until:
            step = self.machine.next(self.now)
            if isinstance(step, Send):
                self._start(step)
                continue
            times = [self.open[0][0]] if self.open else []
            times += [] if step.until is None else [step.until]
            if not times or min(times) > until:
                self.now = until
                return
            self.now = max(self.now, min(times))
            while self.open and self.open[0][0] <= self.now:
                self._end(*heapq.heappop(self.open)[2:])

    def _start(self, send: Send) -> None:
        assert self.now >= self.paused_until, "sent before Retry-After was over"
        assert send.write.key not in {entry[2].write.key for entry in self.open}, "two open requests for one place"
        self.starts.append(self.now)
        status, latency, retry_after = self.answers.popleft() if self.answers else (200, 0.01, None)
        heapq.heappush(self.open, (self.now + latency, next(self.numbers), send, status, retry_after))
        self.open_most = max(self.open_most, len(self.open))

    def _end(self, send: Send, status: int, retry_after: float | None) -> None:
        if status == 0:
            self.machine.unanswered(send, self.now)
            return
        verdict = self.machine.answered(send, status, "", retry_after, self.now)
        if verdict is Verdict.DONE:
            self.stored[send.write.key] = send.write.body
        if verdict in {Verdict.GIVEN_UP, Verdict.DECIDE_ANEW}:
            self.refused[send.write.key] = send.write.body
        if verdict is Verdict.RETRY and retry_after:
            self.paused_until = max(self.paused_until, self.now + retry_after)


@pytest.mark.uncounted
@settings(max_examples=300, deadline=None)
@given(
    submits=st.lists(SUBMITS, min_size=1, max_size=12),
    answers=st.lists(st.tuples(ANSWERS, st.floats(0.0, 2.0), st.sampled_from([None, None, 1.0, 5.0])), max_size=40),
    open_max=st.integers(1, 4),
    rate=st.floats(1.0, 50.0),
    burst=st.integers(1, 5),
    seed=st.integers(0, 9),
)
def test_whatever_the_server_does_the_latest_write_arrives_within_bounds(
    submits: list[tuple[float, list[tuple[int, int, bool]]]],
    answers: list[tuple[int, float, float | None]],
    open_max: int,
    rate: float,
    burst: int,
    seed: int,
) -> None:
    """Nothing is lost, the latest wins, and neither open requests, rate nor Retry-After are ever exceeded."""
    world = World(Applier(Limits(open_max, rate, burst), Random(seed)), deque(answers))
    latest: dict[WriteKey, bytes] = {}
    for pause, writes in submits:
        world.run(world.now + pause)
        for place, body, safe in writes:
            write = Write(WriteKey(WriteKind.STATE_SPEC, str(place)), str(body).encode(), safe=safe)
            latest[write.key] = write.body
            world.refused.pop(write.key, None)
            world.machine.submit([write], world.now)
    world.run(world.now + 10_000.0)

    assert {key: body for key, body in latest.items() if key not in world.refused}.items() <= world.stored.items()
    assert (world.machine.waiting, world.machine.open) == (0, 0)
    assert world.open_most <= open_max
    for first, start in enumerate(world.starts):
        for number, other in enumerate(world.starts[first:], start=1):
            assert number <= burst + rate * (other - start) + 1e-6


def test_answers_are_counted_by_kind_and_verdict() -> None:
    machine = applier()
    machine.submit([Write(A, b"{}"), Write(STATUS, b"{}")], 0.0)

    answer(machine, sent(machine), 200)
    machine.unanswered(sent(machine), 0.0)

    assert machine.counts == {(STATUS.kind, Verdict.DONE): 1, (A.kind, Verdict.RETRY): 1}
