# SPDX-License-Identifier: Apache-2.0
"""The holder of the Lease, against a Lease store of a few lines; the real one is in tests/apiserver."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any

import msgspec
import pytest

from numamigration_api.vocabulary import EPOCH_ANNOTATION, EPOCH_MAX
from numamigration_operator.cluster.lease import (
    LEASE_SECONDS_MAX,
    TRANSITIONS_MAX,
    Durations,
    LeaseHolder,
    LeaseObject,
    Read,
    Request,
    Rest,
    Save,
)

WALL = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
LEASE, RENEW, RETRY = 15, 10.0, 2.0
JITTERED = RETRY * 1.2


@dataclass
class LeaseStore:
    """What the API server does with one Lease: preconditions, merge patches, resource versions.

    Attributes:
        created: when the Lease was, or will be.
    """

    lease: dict[str, Any] | None = None
    version: int = 0
    requests: list[Request] = field(default_factory=list)
    created: str = ""

    def put(self, spec: dict[str, Any], annotations: dict[str, str] | None = None) -> None:
        """Somebody else writes the Lease as a whole."""
        self.version += 1
        self.lease = {
            "metadata": {
                "resourceVersion": str(self.version),
                "creationTimestamp": self.created,
                "annotations": annotations or {},
            },
            "spec": spec,
        }

    def handle(self, request: Request) -> tuple[int, LeaseObject | None]:
        self.requests.append(request)
        if isinstance(request, Read):
            return (404, None) if self.lease is None else (200, self.shown())
        body = json.loads(request.body)
        if "kind" in body:
            if self.lease is not None:
                return 409, None
            self.put(body["spec"], body["metadata"].get("annotations"))
            return 201, self.shown()
        if self.lease is None:
            return 404, None
        if body["metadata"].get("resourceVersion", str(self.version)) != str(self.version):
            return 409, None
        known = self.lease["metadata"]["annotations"]
        self.put({**self.lease["spec"], **body["spec"]}, {**known, **body["metadata"].get("annotations", {})})
        return 200, self.shown()

    def shown(self) -> LeaseObject:
        return msgspec.convert(self.lease, LeaseObject)

    @property
    def spec(self) -> dict[str, Any]:
        assert self.lease is not None
        spec: dict[str, Any] = self.lease["spec"]
        return spec

    @property
    def epoch(self) -> str | None:
        assert self.lease is not None
        annotation: str | None = self.lease["metadata"]["annotations"].get(EPOCH_ANNOTATION)
        return annotation


class Process:
    """A holder on its own clock whose requests are answered at once."""

    def __init__(self, store: LeaseStore, identity: str = "a", now: float = 1000.0) -> None:
        self.store = store
        self.now = now
        self.holder = LeaseHolder(identity, Durations(LEASE, RENEW, RETRY), Random(1))

    def run(self, seconds: float = 0.0) -> None:
        """Let time pass, with every request answered."""
        until = self.now + seconds
        for _ in range(1000):
            step = self.holder.next(self.now, WALL)
            if not isinstance(step, Rest):
                self.holder.answered(step, *self.store.handle(step), self.now)
            elif step.until > until:
                self.now = until
                return
            else:
                self.now = max(self.now, step.until)
        raise AssertionError("it spins")

    def freeze(self, seconds: float) -> None:
        """Let time pass without this process."""
        self.now += seconds

    @property
    def holds(self) -> bool:
        return self.holder.holds(self.now)

    @property
    def lost(self) -> str:
        return self.holder.lost(self.now)


@pytest.fixture
def store() -> LeaseStore:
    return LeaseStore()


def other_holds(store: LeaseStore, **spec: Any) -> None:
    known = {
        "holderIdentity": "other",
        "leaseDurationSeconds": LEASE,
        "acquireTime": "2026-01-01T00:00:00.000000Z",
        "renewTime": "2026-01-01T00:00:00.000000Z",
        "leaseTransitions": 3,
    }
    store.put({key: value for key, value in (known | spec).items() if value is not None})


# --- taking and keeping -------------------------------------------------------------------------------------------


def test_a_lease_that_nobody_has_is_taken_at_once(store: LeaseStore) -> None:
    process = Process(store)

    process.run()

    assert process.holds
    assert store.spec == {
        "holderIdentity": "a",
        "leaseDurationSeconds": LEASE,
        "acquireTime": "2026-01-02T03:04:05.678901Z",
        "renewTime": "2026-01-02T03:04:05.678901Z",
        "leaseTransitions": 0,
    }


def test_a_lease_of_another_is_taken_when_its_time_is_over(store: LeaseStore) -> None:
    other_holds(store)
    process = Process(store)

    process.run(LEASE - 0.1)
    assert store.spec["holderIdentity"] == "other"

    process.run(0.2)
    assert store.spec["holderIdentity"] == "a"
    assert store.spec["leaseTransitions"] == 4
    assert process.holds


def test_a_lease_that_is_renewed_is_never_taken(store: LeaseStore) -> None:
    """Also when its times lie years in the past: they are the other's wall clock, and nothing is measured by it."""
    process = Process(store)
    for second in range(60):
        other_holds(store, renewTime=f"1999-01-01T00:00:{second:02}.000000Z")
        process.run(LEASE - JITTERED - 0.1)

    assert not process.holds
    assert store.spec["holderIdentity"] == "other"


def test_touching_annotations_keeps_no_dead_leader_alive(store: LeaseStore) -> None:
    other_holds(store)
    process = Process(store)
    for number in range(12):
        assert store.lease is not None
        store.put(store.spec, {"touched": str(number)})
        process.run(LEASE / 10 + 0.1)

    assert process.holds


def test_the_leader_renews_every_retry_period(store: LeaseStore) -> None:
    process = Process(store)
    process.run()
    store.requests.clear()

    process.run(10 * RETRY)

    assert len(store.requests) == 10
    assert all(isinstance(request, Save) for request in store.requests)


def test_a_clock_that_stands_still_does_not_make_renewals_look_like_none(store: LeaseStore) -> None:
    """Every `WALL` here is the same moment; the one that stands by must see each renewal all the same."""
    first, second = Process(store, "a"), Process(store, "b")
    for _ in range(20):
        first.run(RETRY)
        second.run(RETRY)

    assert first.holds
    assert not second.holds


def test_what_others_put_on_the_lease_stays(store: LeaseStore) -> None:
    store.put({"strategy": "x"}, {"theirs": "yes"})
    process = Process(store)

    process.run()

    assert store.lease is not None
    assert store.lease["metadata"]["annotations"]["theirs"] == "yes"
    assert store.spec["strategy"] == "x"


def test_a_second_process_stands_by_and_only_reads(store: LeaseStore) -> None:
    first, second = Process(store, "a"), Process(store, "b")
    first.run()
    store.requests.clear()

    for _ in range(20):
        first.run(1.0)
        store.requests.clear()
        second.run(1.0)
        assert all(isinstance(request, Read) for request in store.requests)

    assert first.holds
    assert not second.holds


# --- losing -------------------------------------------------------------------------------------------------------


def test_a_leader_that_cannot_renew_stops_before_another_may_begin(store: LeaseStore) -> None:
    process = Process(store)
    process.run()

    for _ in range(100):
        step = process.holder.next(process.now, WALL)
        if isinstance(step, Rest):
            process.now = step.until
        else:
            process.holder.unanswered(process.now)
        if process.lost:
            break

    assert process.now == 1000.0 + RENEW
    assert "could not be renewed for 10 s" in process.lost


def test_the_lease_is_held_from_before_the_write_was_sent(store: LeaseStore) -> None:
    """Promise 8: the others count from when the server stored the write, and its answer may be late."""
    process = Process(store)
    process.run()
    step = process.holder.next(process.now + RETRY, WALL)
    assert isinstance(step, Save)
    answer = store.handle(step)

    process.freeze(RENEW - 1)
    process.holder.answered(step, *answer, process.now)
    process.freeze(RETRY)
    assert process.holds

    process.freeze(1)
    assert not process.holds


def stopped_in_a_renewal(store: LeaseStore) -> tuple[Process, Save, tuple[int, LeaseObject | None]]:
    """Return a leader whose Lease is over, and a renewal whose answer it has not taken."""
    process = Process(store)
    process.run()
    process.freeze(RETRY)
    step = process.holder.next(process.now, WALL)
    assert isinstance(step, Save)
    answer = store.handle(step)
    process.freeze(RENEW - RETRY)
    return process, step, answer


def test_a_renewal_that_is_answered_when_the_lease_is_over_does_not_bring_it_back(store: LeaseStore) -> None:
    """A process may be stopped in between; what it was to send when it went on was dropped, and nothing sends it."""
    process, step, answer = stopped_in_a_renewal(store)
    assert not process.holds

    process.holder.answered(step, *answer, process.now)
    assert not process.holds
    assert "could not be renewed for 10 s" in process.lost


def test_a_lease_that_was_renewed_too_late_is_given_back(store: LeaseStore) -> None:
    """The process ends, and nobody needs to wait for it."""
    process, step, answer = stopped_in_a_renewal(store)
    process.holder.answered(step, *answer, process.now)

    give_back(process)

    assert store.spec["holderIdentity"] == ""


def test_a_process_that_was_stopped_beyond_its_lease_holds_nothing_when_it_goes_on(store: LeaseStore) -> None:
    process = Process(store)
    process.run()

    process.freeze(RENEW)

    assert not process.holds
    assert process.lost


def test_a_stopped_taker_that_wakes_too_late_tries_again_instead_of_leading(store: LeaseStore) -> None:
    process = Process(store)
    process.holder.answered(Read(0.0), 404, None, process.now)
    create = process.holder.next(process.now, WALL)
    assert isinstance(create, Save)
    answer = store.handle(create)
    process.freeze(RENEW)
    process.holder.answered(create, *answer, process.now)
    assert not process.holder.leads

    process.run(RETRY)

    assert process.holds


def test_a_leader_whose_lease_another_took_has_lost_it_for_good(store: LeaseStore) -> None:
    process = Process(store)
    process.run()
    other_holds(store)

    process.run(2 * RETRY)
    assert "the lease is other's now" in process.lost

    store.put({"holderIdentity": ""})
    process.run(2 * RETRY)
    assert not process.holds


def test_a_leader_whose_fence_refused_a_write_holds_nothing_any_more(store: LeaseStore) -> None:
    process = Process(store)
    process.run()

    process.holder.lose("a newer leader wrote node-a")

    assert not process.holds
    assert process.lost == "a newer leader wrote node-a"


def test_a_renewal_whose_answer_was_lost_is_followed_up(store: LeaseStore) -> None:
    process = Process(store)
    process.run()
    process.freeze(RETRY)
    step = process.holder.next(process.now, WALL)
    assert isinstance(step, Save)
    store.handle(step)
    process.holder.unanswered(process.now)

    process.run(RENEW)

    assert process.holds
    assert not process.lost


# --- giving back --------------------------------------------------------------------------------------------------


def give_back(process: Process) -> None:
    for _ in range(4):
        step = process.holder.release(process.now, WALL)
        if step is None:
            return
        process.holder.answered(step, *process.store.handle(step), process.now)
    raise AssertionError("it never ends")


def test_a_lease_that_was_given_back_is_taken_at_the_next_look(store: LeaseStore) -> None:
    first, second = Process(store, "a"), Process(store, "b")
    first.run()
    second.run()

    give_back(first)
    second.run(JITTERED)

    assert not first.holds
    assert second.holds


def test_nothing_may_be_done_from_the_moment_in_which_giving_back_begins(store: LeaseStore) -> None:
    """The other one may lead as soon as the server has it, whenever our answer comes."""
    process = Process(store)
    process.run()

    process.holder.release(process.now, WALL)

    assert not process.holds


def test_giving_back_survives_a_renewal_that_was_cut(store: LeaseStore) -> None:
    process = Process(store)
    process.run()
    renewal = process.holder.next(process.now + RETRY, WALL)
    assert isinstance(renewal, Save)
    store.handle(renewal)

    give_back(process)

    assert store.spec["holderIdentity"] == ""


def test_a_lease_of_another_is_not_given_back(store: LeaseStore) -> None:
    process = Process(store)
    process.run()
    other_holds(store)

    give_back(process)

    assert store.spec["holderIdentity"] == "other"


# --- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "waits"),
    [
        pytest.param({"leaseDurationSeconds": 60}, 60, id="a longer lease: its own time"),
        pytest.param({"leaseDurationSeconds": 1}, LEASE, id="a shorter lease: ours, never early"),
        pytest.param({"leaseDurationSeconds": 2**31 - 1}, LEASE_SECONDS_MAX, id="an absurd lease: bounded"),
        pytest.param({"leaseDurationSeconds": 0}, LEASE, id="nothing"),
        pytest.param({"leaseDurationSeconds": -5}, LEASE, id="less than nothing"),
        pytest.param({"leaseDurationSeconds": None}, LEASE, id="no duration"),
        pytest.param({"renewTime": None, "acquireTime": None}, LEASE, id="no times"),
        pytest.param({"renewTime": "garbage"}, LEASE, id="garbage for a time"),
        pytest.param({"renewTime": "2099-01-01T00:00:00.000000Z"}, LEASE, id="a time in the future"),
        pytest.param({"leaseTransitions": None}, LEASE, id="no transitions"),
        pytest.param({"leaseTransitions": TRANSITIONS_MAX}, LEASE, id="transitions at the end of an int32"),
    ],
)
def test_a_lease_of_somebody_unknown_is_waited_out(store: LeaseStore, spec: dict[str, Any], waits: float) -> None:
    """Promise 8: what cannot be understood is never taken early."""
    other_holds(store, **spec)
    process = Process(store)

    process.run(waits - 0.1)
    assert store.spec["holderIdentity"] == "other"

    process.run(0.2)
    assert process.holds
    assert store.spec["leaseTransitions"] <= TRANSITIONS_MAX


@pytest.mark.parametrize(
    ("spec", "annotations", "said"),
    [
        pytest.param({}, {}, [], id="as ours"),
        pytest.param({"leaseDurationSeconds": None}, {}, ["leaseDurationSeconds is None"], id="no duration"),
        pytest.param({"leaseDurationSeconds": 301}, {}, ["leaseDurationSeconds is 301"], id="one past the end"),
        pytest.param({"renewTime": None}, {}, ["renewTime is missing"], id="no time"),
        pytest.param({}, {EPOCH_ANNOTATION: "x"}, ["leader-epoch is no number"], id="no epoch"),
        pytest.param({"holderIdentity": "", "renewTime": None}, {}, [], id="nobody's lease needs nothing"),
    ],
)
def test_what_is_odd_about_a_lease_is_said(
    store: LeaseStore, spec: dict[str, Any], annotations: dict[str, str], said: list[str]
) -> None:
    other_holds(store, **spec)
    store.put(store.spec, annotations)
    process = Process(store)

    process.run()

    found = process.holder.oddities()
    assert len(found) == len(said)
    assert all(text in one for text, one in zip(said, found, strict=True))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 429, 500, 503])
def test_what_the_server_refuses_is_tried_again_at_the_same_pace(status: int) -> None:
    """A namespace that is missing answers 404 to a create; that is no reason to spin."""
    holder = LeaseHolder("a", Durations(LEASE, RENEW, RETRY), Random(1))
    holder.answered(Read(0.0), 404, None, 1000.0)
    step = holder.next(1000.0, WALL)
    assert isinstance(step, Save)

    holder.answered(step, status, None, 1000.0)

    rest = holder.next(1000.0, WALL)
    assert isinstance(rest, Rest)
    assert 1000.0 + RETRY <= rest.until <= 1000.0 + JITTERED


# --- deleted by hand ----------------------------------------------------------------------------------------------


def test_a_lease_that_was_deleted_under_its_leader_is_created_again_with_its_epoch(store: LeaseStore) -> None:
    process = Process(store)
    process.run()
    process.holder.claim(6)
    process.run()
    store.lease = None

    process.run(RETRY)

    assert process.holds
    assert store.spec["holderIdentity"] == "a"
    assert store.epoch == "7"


def test_who_stands_by_does_not_use_the_moment_in_which_the_lease_is_gone(store: LeaseStore) -> None:
    """Its leader may be alive and create it again; both would act until then."""
    other_holds(store)
    process = Process(store)
    process.run(LEASE - JITTERED - 0.1)
    store.lease = None

    process.run(LEASE)
    assert not process.holds

    process.run(JITTERED + 0.1)
    assert process.holds


def test_an_epoch_that_was_seen_on_a_lease_is_not_forgotten_with_it(store: LeaseStore) -> None:
    other_holds(store)
    store.put(store.spec, {EPOCH_ANNOTATION: "41"})
    process = Process(store)
    process.run()
    store.lease = None
    process.run(2 * LEASE)
    assert store.epoch == "41"

    assert process.holder.claim(0) == 42


# --- the epoch ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("on_lease", "on_objects", "epoch"),
    [
        pytest.param(None, 0, 1, id="the first leader ever"),
        pytest.param("7", 0, 8, id="the lease has the greatest"),
        pytest.param("7", 9, 10, id="an object has the greatest"),
        pytest.param("x", 3, 4, id="no number on the lease"),
        pytest.param("-1", 3, 4, id="negative"),
        pytest.param("٣", 3, 4, id="digits of another script"),
        pytest.param("9" * 5000, 3, 4, id="too long to be read"),
        pytest.param(str(EPOCH_MAX + 1), 3, 4, id="one past the end"),
        pytest.param(str(EPOCH_MAX), 3, EPOCH_MAX, id="at the end it stays"),
    ],
)
def test_the_epoch_is_one_more_than_the_greatest_ever_seen(
    store: LeaseStore, on_lease: str | None, on_objects: int, epoch: int
) -> None:
    """Promise 8: an older leader can change nothing once this one has written."""
    store.put({"holderIdentity": ""}, {} if on_lease is None else {EPOCH_ANNOTATION: on_lease})
    process = Process(store)
    process.run()

    assert process.holder.claim(on_objects) == epoch
    assert process.holder.claimed is None, "it is not there yet, so nothing may be written with it"

    process.run()
    assert store.epoch == str(epoch)
    assert process.holder.claimed == epoch


@pytest.mark.parametrize("created", ["", "yesterday", "2026-01-02T03:04:05"])
def test_a_creation_that_cannot_be_read_does_not_count(store: LeaseStore, created: str) -> None:
    store.created = created
    process = Process(store)
    process.run()

    assert process.holder.claim(4) == 5


def test_the_epoch_of_a_lease_that_was_deleted_is_not_given_out_again(store: LeaseStore) -> None:
    """Promise 8: its leader may be frozen with its first write on the way, so that no object has that epoch yet."""
    store.created = "2026-01-02T03:04:05Z"
    frozen = Process(store, "frozen")
    frozen.run()
    old = frozen.holder.claim(0)
    frozen.run()
    store.lease, store.created = None, "2026-01-02T03:04:06Z"

    new = Process(store, "new")
    new.run()

    assert new.holds
    assert new.holder.claim(0) > old


def test_an_epoch_greater_than_the_creation_is_gone_on_from(store: LeaseStore) -> None:
    store.created = "2026-01-02T03:04:05Z"
    store.put({"holderIdentity": ""}, {EPOCH_ANNOTATION: "1767323045000"})
    process = Process(store)
    process.run()

    assert process.holder.claim(7) == 1767323045001


def test_every_renewal_puts_the_epoch_back(store: LeaseStore) -> None:
    process = Process(store)
    process.run()
    process.holder.claim(4)
    process.run()
    store.put(store.spec, {})

    process.run(3 * RETRY)

    assert process.holds
    assert store.epoch == "5"


def test_a_leader_that_meets_a_greater_epoch_on_its_lease_has_lost(store: LeaseStore) -> None:
    process = Process(store)
    process.run()
    process.holder.claim(4)
    process.run()
    store.put(store.spec, {EPOCH_ANNOTATION: "9"})

    process.run(3 * RETRY)

    assert "epoch 9 now, ours is 5" in process.lost


def test_renewals_are_this_processs_own_and_transitions_are_what_the_lease_says(store: LeaseStore) -> None:
    other_holds(store)
    process = Process(store)
    process.run(1.0)
    before = (process.holder.renewals, process.holder.transitions)

    process.run(LEASE + 2 * JITTERED)

    assert before == (0, 3)
    assert process.holder.transitions == 4
    assert process.holder.renewals == sum(isinstance(request, Save) for request in store.requests) > 0
