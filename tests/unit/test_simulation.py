# SPDX-License-Identifier: Apache-2.0
"""The simulation's own parts: an API server that is as strict as the real one, time, and schedules that repeat."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from argparse import ArgumentTypeError
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

from numamigration_agent.change import WriteKnob
from numamigration_agent.kernel.codecs import Value
from numamigration_agent.kernel.dialects import MAINLINE_KNOBS
from numamigration_agent.lanes import Lane
from numamigration_api.machinery.canonical import wish_revision
from numamigration_api.vocabulary import (
    CELL_ANNOTATION_PREFIX,
    EPOCH_ANNOTATION,
    FENCE_MESSAGE,
    LEASE_NAME,
    POLICY_UID_LABEL,
)
from numamigration_operator.cluster.client import Response
from tests.simulation import __main__ as command
from tests.simulation.__main__ import Tally, kept_schedules
from tests.simulation.clock import Clock, Process
from tests.simulation.fresh import SEEDS_OF_EACH, asked_first, first_seed
from tests.simulation.kernels import KINDS
from tests.simulation.machines import RealMachine
from tests.simulation.network import REQUEST_SECONDS_MAX, Network, Place, Sent
from tests.simulation.objects import InvalidPatchError, json_patch, revision_of
from tests.simulation.oracle import KNOWN_SECONDS, BrokenPromiseError, Oracle
from tests.simulation.schedule import FAULTS_MIN, STEPS_MIN, Outcome, make_schedule, run, run_seed
from tests.simulation.server import (
    APPLY,
    LEASES,
    MERGE,
    NODES,
    PAGE_ITEMS_MAX,
    POLICIES,
    REVISIONS,
    STATES,
    Request,
    SimServer,
)
from tests.simulation.world import REAL_AT, REAL_EVERY, has_real_agents
from tests.testbed.api import poll
from tests.testbed.commands import ROOT

JSON_PATCH = "application/json-patch+json"
FALSE_PROOF = r"proven on .* by \[\], while \['later'\] soak"


class Bench:
    """A server, and requests to it without a network."""

    def __init__(self) -> None:
        self.clock = Clock(Random(1))
        self.server = SimServer(Process(self.clock), Random(1))

    def ask(self, method: str, path: str, body: Any = None, kind: str = APPLY, **query: str) -> Response:
        data = json.dumps(body).encode() if body is not None else b""
        return self.server.handle(Request("somebody", method, path, query, data, kind, self.clock.now))

    def apply(self, path: str, body: dict[str, Any], manager: str = "operator") -> Response:
        return self.ask("PATCH", path, body, fieldManager=manager)

    def object(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ask("GET", path).body)
        return found


@pytest.fixture
def bench() -> Bench:
    return Bench()


def state(spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": "n", **metadata}, "spec": spec}


def test_an_apply_that_changes_nothing_is_no_new_version_and_no_event(bench: Bench) -> None:
    bench.apply(f"{STATES}/n", state({"leaderEpoch": 1}))
    version = bench.object(f"{STATES}/n")["metadata"]["resourceVersion"]

    bench.apply(f"{STATES}/n", state({"leaderEpoch": 1}))

    assert bench.object(f"{STATES}/n")["metadata"]["resourceVersion"] == version
    assert len(bench.server.history) == 1


def test_what_a_manager_does_not_apply_again_goes_unless_another_one_has_it_too(bench: Bench) -> None:
    bench.apply(f"{STATES}/n", state({"revision": "1", "verifyEpoch": 1}))
    bench.apply(f"{STATES}/n", state({"revision": "1"}), "person")

    bench.apply(f"{STATES}/n", state({"verifyEpoch": 1}))

    assert bench.object(f"{STATES}/n")["spec"] == {"revision": "1", "verifyEpoch": 1}
    bench.apply(f"{STATES}/n", {"metadata": {"name": "n"}}, "person")
    assert bench.object(f"{STATES}/n")["spec"] == {"verifyEpoch": 1}


def test_a_status_is_written_apart_and_moves_no_generation(bench: Bench) -> None:
    bench.apply(f"{STATES}/n", state({"revision": "1"}))

    bench.apply(f"{STATES}/n", {"metadata": {"name": "n"}, "status": {"bootID": "b"}}, "agent")
    assert "status" not in bench.object(f"{STATES}/n")

    bench.apply(f"{STATES}/n/status", state({"revision": "2"}) | {"status": {"bootID": "b"}}, "agent")
    found = bench.object(f"{STATES}/n")
    assert (found["spec"], found["status"]) == ({"revision": "1"}, {"bootID": "b"})
    assert found["metadata"]["generation"] == 1
    assert {one["manager"]: one["subresource"] for one in found["metadata"]["managedFields"]}["agent"] == "status"


def test_leader_epochs_never_fall_and_are_never_left_out(bench: Bench) -> None:
    bench.apply(f"{STATES}/n", state({"leaderEpoch": 2}))

    for spec in ({"leaderEpoch": 1}, {}):
        refused = bench.apply(f"{STATES}/n", state(spec))
        assert (refused.status, FENCE_MESSAGE in refused.message) == (422, True)
    assert bench.apply(f"{STATES}/n", state({"leaderEpoch": 3})).status == 200


def test_preconditions_on_version_and_uid_are_conflicts(bench: Bench) -> None:
    assert bench.apply(f"{STATES}/n", state({}, uid="gone")).status == 409
    bench.apply(f"{STATES}/n", state({}))

    assert bench.apply(f"{STATES}/n", state({}, resourceVersion="1")).status == 409
    refused = bench.apply(f"{STATES}/n", state({}, uid="another"))
    assert (refused.status, "metadata.uid" in refused.message) == (422, True)


def test_a_finalizer_keeps_a_deleted_object_until_it_goes(bench: Bench) -> None:
    bench.ask("POST", POLICIES, {"metadata": {"name": "p", "finalizers": ["f"]}, "spec": {}})
    bench.ask("DELETE", f"{POLICIES}/p")
    assert bench.object(f"{POLICIES}/p")["metadata"]["generation"] == 2

    bench.ask("PATCH", f"{POLICIES}/p", [{"op": "remove", "path": "/metadata/finalizers/0"}], JSON_PATCH)

    assert bench.ask("GET", f"{POLICIES}/p").status == 404
    assert b'"DELETED"' in bench.server.history[-1].line


def test_the_pages_of_a_list_are_of_one_moment_and_of_one_selector(bench: Bench) -> None:
    for number in range(PAGE_ITEMS_MAX + 1):
        bench.ask("POST", NODES, {"metadata": {"name": f"n{number}"}})
    first = json.loads(bench.ask("GET", NODES).body)
    bench.ask("GET", NODES, fieldSelector="metadata.name=n0")
    bench.ask("DELETE", f"{NODES}/n{PAGE_ITEMS_MAX}")

    token = first["metadata"]["continue"]
    rest = json.loads(bench.ask("GET", NODES, **{"continue": token}).body)

    assert [item["metadata"]["name"] for item in rest["items"]] == [f"n{PAGE_ITEMS_MAX}"]
    bench.server.forget_history()
    assert bench.ask("GET", NODES, **{"continue": token}).status == 410


def test_a_merge_patch_takes_what_is_null(bench: Bench) -> None:
    bench.apply(f"{STATES}/n", state({"revision": "1", "verifyEpoch": 1}))

    bench.ask("PATCH", f"{STATES}/n", {"spec": {"revision": None}}, MERGE)

    assert bench.object(f"{STATES}/n")["spec"] == {"verifyEpoch": 1}


def test_a_json_patch_whose_test_fails_changes_nothing() -> None:
    with pytest.raises(InvalidPatchError):
        json_patch({"a": 1}, [{"op": "test", "path": "/a", "value": 2}, {"op": "remove", "path": "/a"}])


def test_a_stopped_process_does_everything_later_and_an_ended_one_nothing() -> None:
    clock = Clock(Random(1))
    process, done = Process(clock), list[str]()
    process.begin()
    process.at(1.0, lambda: done.append("first"))
    process.at(2.0, lambda: done.append("second"))
    process.stop()
    clock.run(3.0)
    assert done == []

    process.go_on()
    process.at(4.0, lambda: done.append("never"))
    clock.run(3.5)
    process.end()
    process.begin()
    clock.run(5.0)
    assert done == ["first", "second"]


def test_a_late_request_is_stored_after_its_client_has_given_up() -> None:
    clock = Clock(Random(1))
    server = SimServer(Process(clock), Random(1))
    network = Network(server, Random(4), lambda _: (), lambda _fault, _request: None)
    process, answers = Process(clock), list[Response | None]()
    process.begin()
    network.weather_of("c").requests.append("late")
    network.send(process, Request("c", "POST", NODES, {}, b'{"metadata":{"name":"n"}}', "", 0.0), answers.append, 1.0)

    clock.run(2.0)
    assert (answers, server.get(NODES, "n")) == ([None], None)
    clock.run(100.0)
    assert server.get(NODES, "n") is not None
    assert answers == [None]


def test_who_is_waited_for_falls_once_and_right_after_it_has_sent() -> None:
    clock = Clock(Random(1))
    server = SimServer(Process(clock), Random(1))
    network = Network(server, Random(4), lambda request: (request.method,), lambda _fault, _request: None)
    process, answers = Process(clock), list[Response | None]()
    process.begin()
    network.wait_for("POST", lambda _: process.end())

    network.send(process, Request("c", "GET", NODES, {}, b"", "", 0.0), answers.append)
    clock.run(1.0)
    network.send(process, Request("c", "POST", NODES, {}, b'{"metadata":{"name":"n"}}', "", 0.0), answers.append)
    clock.run(2.0)

    assert (len(answers), process.alive) == (1, False)
    assert server.get(NODES, "n") is not None


def without_cost(outcome: Outcome) -> Outcome:
    return outcome._replace(cpu=0.0)


STEPS_OF_2047 = "from tests.simulation.schedule import *; print(run(make_schedule(2047, 24)).steps)"


@pytest.mark.uncounted
def test_a_seed_makes_the_same_history_whatever_hashes_a_process_has() -> None:
    command = [sys.executable, "-c", STEPS_OF_2047]
    said = {
        subprocess.run(
            command, cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": hashes}, capture_output=True, text=True, check=True
        ).stdout
        for hashes in ("1", "2")
    }

    assert len(said) == 1
    assert int(said.pop()) > STEPS_MIN


@pytest.mark.uncounted
def test_a_seed_always_makes_the_same_history() -> None:
    assert without_cost(run_seed(11)) == without_cost(run_seed(11))
    assert run_seed(11).steps != run_seed(12).steps


def test_a_schedule_is_as_large_as_asked_for() -> None:
    outcome = run_seed(13)

    assert outcome.finding is None
    assert outcome.steps >= STEPS_MIN
    assert outcome.faults >= FAULTS_MIN
    assert make_schedule(13).nodes >= 8


def test_kept_schedules_are_as_long_as_when_they_were_kept() -> None:
    kept = {schedule.seed: schedule for schedule in kept_schedules()}

    assert kept[5109].length == 32
    assert kept[5109] == make_schedule(5109, 32) != make_schedule(5109)


COMMIT = "0a1b2c3" + 33 * "d"
NOW = 1_780_000_000.5


def test_a_commit_has_the_same_first_seed_whenever_it_is_tested() -> None:
    assert first_seed("commit", COMMIT, NOW) == first_seed("commit", COMMIT, NOW + 86_400.0)
    assert first_seed("commit", COMMIT, NOW) == (0x0A1B2C3 * SEEDS_OF_EACH, "of commit 0a1b2c3")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(first_seed("commit", COMMIT, NOW), first_seed("commit", COMMIT[::-1], NOW), id="two commits"),
        pytest.param(first_seed("commit", "a" * 40, NOW), first_seed("commit", "aaaaaab" * 7, NOW), id="neighbors"),
        pytest.param(first_seed("clock", COMMIT, NOW), first_seed("clock", COMMIT, NOW + 1.0), id="two seconds"),
    ],
)
def test_runs_of_two_commits_or_seconds_have_no_seed_in_common(one: tuple[int, str], other: tuple[int, str]) -> None:
    assert abs(one[0] - other[0]) >= SEEDS_OF_EACH


@pytest.mark.parametrize("commit", ["", "HEAD", "0a1b2c3"], ids=["no repository", "no commit", "too short"])
def test_without_a_commit_the_first_seed_is_from_the_clock(commit: str) -> None:
    assert first_seed("commit", commit, NOW) == first_seed("clock", COMMIT, NOW)
    assert first_seed("commit", commit, NOW)[1] == "from the clock"


def test_a_first_seed_that_is_asked_for_is_taken() -> None:
    assert first_seed("7", COMMIT, NOW) == (7, "as asked for")


@pytest.mark.parametrize("text", ["", "-1", "head", "7.5"])
def test_a_first_seed_that_says_nothing_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="neither commit nor clock"):
        asked_first(text)


def test_any_move_can_be_left_out() -> None:
    schedule = make_schedule(14)

    assert run(schedule._replace(moves=schedule.moves[::2])).finding is None


class Canaries:
    """A policy whose canary has soaked while a second node of its cell soaks, and an oracle that sees all writes."""

    def __init__(self, soaked: str = "canary") -> None:
        self.bench = Bench()
        self.sent = defaultdict[Place, dict[bytes, Sent]](dict)
        self.bench.server.observers.append(Oracle(self.bench.server, frozenset(), lambda _: None, self.sent).wrote)
        self.settings = {"demotion": {"enabled": True}}
        rollout = {"canary": {"nodes": 1, "soakSeconds": 20}, "nodeDeadlineSeconds": 900}
        spec = {"nodeSelector": {}, "priority": 1, "mode": "Apply", "settings": self.settings, "rollout": rollout}
        self.bench.apply(f"{POLICIES}/p", {"metadata": {"name": "p"}, "spec": {**spec, "onDelete": "Keep"}})
        self.uid = self.bench.object(f"{POLICIES}/p")["metadata"]["uid"]
        for name in ("canary", "later"):
            self._push(name, has_soaked=name == soaked)
        self.bench.clock.run(1)

    def _push(self, name: str, *, has_soaked: bool) -> None:
        source = {"policy": "p", "uid": self.uid}
        wish = {"mode": "Apply", "settings": self.settings["demotion"], "release": "Keep", "source": source}
        soaked = {"demotion": {"soakedRevision": revision_of(wish)}} if has_soaked else {}
        told = {"reportedAt": "2026-01-02T03:04:05Z", "dialect": "V6", "hardwareClass": "c", "groups": soaked}
        self.bench.apply(f"{NODES}/{name}", {"metadata": {"name": name}})
        self.bench.apply(f"{STATES}/{name}", state({"groups": {"demotion": wish}}, name=name))
        self.bench.ask("PATCH", f"{STATES}/{name}/status", {"status": told}, MERGE)

    def take_back(self, name: str) -> None:
        """Let a report arrive that was sent before the node had soaked."""
        self.bench.ask("PATCH", f"{STATES}/{name}/status", {"status": {"groups": None}}, MERGE)

    def take_out(self, name: str) -> None:
        """Let a person take a group out; the agent says so, and it is put back."""
        groups = self.bench.object(f"{STATES}/{name}")["spec"]["groups"]
        self.bench.ask("PATCH", f"{STATES}/{name}", {"spec": {"groups": None}}, MERGE)
        self.take_back(name)
        self.bench.ask("PATCH", f"{STATES}/{name}", {"spec": {"groups": groups}}, MERGE)

    def tell_proven(self, first_sent: float | None = None) -> None:
        verdict = {"dialect": "V6", "hardwareClass": "c", "verdict": "Proven"}
        marks = {CELL_ANNOTATION_PREFIX + "0": json.dumps(verdict)}
        metadata = {"name": "p-1", "labels": {POLICY_UID_LABEL: self.uid}, "annotations": marks}
        data = {"settings": self.settings, "onDelete": "Keep"}
        body = {"metadata": metadata, "data": data, "revision": 1}
        if first_sent is not None:
            self.sent["somebody", 0, f"{REVISIONS}/p-1"][json.dumps(body).encode()] = Sent(first_sent, first_sent)
        self.bench.apply(f"{REVISIONS}/p-1", body)


@pytest.mark.parametrize("gone", [(NODES,), (NODES, STATES), (STATES,)], ids=["node", "both", "node state"])
def test_a_cell_is_proven_by_a_canary_that_went_while_the_verdict_was_on_its_way(gone: tuple[str, ...]) -> None:
    """The verdict was decided before: an object has one request at a time, and it waited for its turn."""
    canaries = Canaries()

    for collection in gone:
        canaries.bench.ask("DELETE", f"{collection}/canary")
    canaries.tell_proven()

    assert canaries.bench.object(f"{REVISIONS}/p-1")["revision"] == 1


def test_a_cell_that_is_proven_long_after_its_canary_went_is_found() -> None:
    """By then the operator knows that nobody is left who has soaked."""
    canaries = Canaries()
    canaries.bench.ask("DELETE", f"{NODES}/canary")
    canaries.bench.ask("DELETE", f"{STATES}/canary")
    canaries.bench.clock.run(canaries.bench.clock.now + KNOWN_SECONDS + 1)

    with pytest.raises(BrokenPromiseError, match=FALSE_PROOF):
        canaries.tell_proven()


UNSAID = pytest.mark.parametrize("unsay", [Canaries.take_back, Canaries.take_out], ids=["late report", "by hand"])


@UNSAID
def test_a_cell_is_proven_by_a_canary_that_had_soaked_while_the_verdict_was_on_its_way(
    unsay: Callable[[Canaries, str], None],
) -> None:
    canaries = Canaries()

    unsay(canaries, "canary")
    canaries.tell_proven()

    assert canaries.bench.object(f"{REVISIONS}/p-1")["revision"] == 1


@UNSAID
def test_a_cell_that_is_proven_long_after_its_canary_had_soaked_is_found(
    unsay: Callable[[Canaries, str], None],
) -> None:
    """By then the operator knows that it soaks anew."""
    canaries = Canaries()
    unsay(canaries, "canary")
    canaries.bench.clock.run(canaries.bench.clock.now + KNOWN_SECONDS + 1)

    with pytest.raises(BrokenPromiseError, match=r"by \[\], while \['canary', 'later'\] soak"):
        canaries.tell_proven()


@pytest.mark.parametrize(
    ("first_sent", "finds"), [(-1.0, nullcontext()), (0.5, pytest.raises(BrokenPromiseError, match="is proven"))]
)
def test_a_verdict_that_is_sent_once_more_has_to_know_of_pushes_before_it_was_sent_first(
    first_sent: float, finds: AbstractContextManager[object]
) -> None:
    """Both nodes are pushed at 0 s, and the verdict is sent once more at 1 s."""
    canaries = Canaries(soaked="nobody")

    with finds:
        canaries.tell_proven(first_sent)


def test_a_cell_that_is_proven_by_a_canary_that_went_before_it_had_soaked_is_found() -> None:
    canaries = Canaries(soaked="nobody")
    canaries.bench.ask("DELETE", f"{STATES}/canary")

    with pytest.raises(BrokenPromiseError, match=FALSE_PROOF):
        canaries.tell_proven()


class Returning:
    """A policy that was edited after an older revision was proven; a node has the newer one."""

    def __init__(self) -> None:
        self.bench = Bench()
        oracle = Oracle(self.bench.server, frozenset({"leader"}), lambda _: None, defaultdict(dict))
        oracle.renewed["leader_0"], oracle.leading_since["leader_0"], oracle.lease_epoch = 2 * KNOWN_SECONDS, 0.0, 1
        self.bench.server.observers.append(oracle.wrote)
        canary = {"nodes": 1, "soakSeconds": 20}
        rollout = {"canary": canary, "maxUnproven": 1, "nodeDeadlineSeconds": 900, "onFailure": "Rollback"}
        spec = {
            "nodeSelector": {},
            "priority": 1,
            "mode": "Apply",
            "settings": self.settings(False),
            "rollout": rollout,
        }
        self.bench.apply(f"{POLICIES}/p", {"metadata": {"name": "p"}, "spec": {**spec, "onDelete": "Keep"}})
        self.uid = self.bench.object(f"{POLICIES}/p")["metadata"]["uid"]
        self._store("older", self.settings(True), verdict="Proven")
        self._store("newer", self.settings(False))
        self.bench.apply(f"{NODES}/n", {"metadata": {"name": "n"}})
        self.bench.apply(f"{STATES}/n", state({"leaderEpoch": 1, "groups": self.groups(False)}, name="n"))
        self.tell({})

    @staticmethod
    def settings(enabled: bool) -> dict[str, Any]:
        return {"demotion": {"enabled": enabled}}

    def groups(self, enabled: bool) -> dict[str, Any]:
        source = {"policy": "p", "uid": self.uid}
        settings = self.settings(enabled)["demotion"]
        return {"demotion": {"mode": "Apply", "settings": settings, "release": "Keep", "source": source}}

    def _store(self, name: str, settings: dict[str, Any], **verdict: str) -> None:
        told = {"dialect": "V6", "hardwareClass": "c", "generation": 1, **verdict}
        marks = {CELL_ANNOTATION_PREFIX + "0": json.dumps(told)} if verdict else {}
        metadata = {"name": name, "labels": {POLICY_UID_LABEL: self.uid}, "annotations": marks}
        data = {"settings": settings, "onDelete": "Keep"}
        self.bench.apply(f"{REVISIONS}/{name}", {"metadata": metadata, "data": data, "revision": 1})

    def tell(self, groups: dict[str, Any] | None) -> None:
        told = {"reportedAt": "2026-01-02T03:04:05Z", "dialect": "V6", "hardwareClass": "c", "groups": groups}
        self.bench.ask("PATCH", f"{STATES}/n/status", {"status": told}, MERGE)

    def take_all(self) -> None:
        """Let all that the node has of the policy go, as when another one wins it."""
        self.bench.ask("PATCH", f"{STATES}/n", {"spec": {"groups": None}}, MERGE)

    def push_anew(self) -> None:
        """Let the node, whose agent had settled with what is gone, have the newer revision again, without a report."""
        self.tell({"demotion": {"state": "Unsupported"}})
        self.take_all()
        self.bench.clock.run(KNOWN_SECONDS + 1)
        self.bench.ask("PATCH", f"{STATES}/n", {"spec": {"groups": self.groups(False)}}, MERGE)
        self.bench.clock.run(KNOWN_SECONDS + 2)

    def fail(self) -> None:
        self._store("newer", self.settings(False), verdict="Failed")

    def soak(self) -> None:
        self.tell({"demotion": {"soakedRevision": revision_of(self.groups(False)["demotion"])}})

    def reserve(self, *names: str) -> None:
        rollout = {"leaderEpoch": 1, "reserved": names}
        self.bench.ask("PATCH", f"{POLICIES}/p/status", {"status": {"rollout": rollout}}, MERGE)

    def tell_ledger(self, rollout: dict[str, Any]) -> None:
        self.bench.clock.run(self.bench.clock.now + 1)
        self.lead(f"{POLICIES}/p/status", {"status": {"rollout": rollout}}, self.bench.clock.now)

    def push_older(self) -> None:
        self.lead(f"{STATES}/n", {"spec": {"groups": self.groups(True)}}, self.bench.clock.now)

    def lead(self, path: str, patch: dict[str, Any], sent_at: float) -> None:
        """Let a patch by the leader arrive that was sent then."""
        body = json.dumps(patch).encode()
        self.bench.server.handle(Request("leader", "PATCH", path, {}, body, MERGE, sent_at))


def test_a_node_that_has_nothing_of_a_policy_any_more_joins_what_was_proven_and_goes_nowhere_back() -> None:
    """Another policy won there what had not soaked, failed, and went: the node settled a moment ago, by its loss."""
    returning = Returning()
    returning.take_all()
    returning.reserve("n")

    returning.push_older()

    assert returning.bench.object(f"{STATES}/n")["spec"]["groups"] == returning.groups(True)


def test_a_node_that_joins_what_was_proven_without_a_reservation_is_found() -> None:
    returning = Returning()
    returning.take_all()
    returning.reserve()

    with pytest.raises(BrokenPromiseError, match="whose ledger has only"):
        returning.push_older()


def test_a_node_goes_back_without_a_name_also_where_its_last_report_is_from_before_the_push() -> None:
    """The report says Unsupported, of what the node had before; the push has no answer, and counts."""
    returning = Returning()
    returning.push_anew()
    returning.fail()

    returning.push_older()

    assert returning.bench.object(f"{STATES}/n")["spec"]["groups"] == returning.groups(True)


@pytest.mark.parametrize(
    ("seconds", "finds"), [(-1, nullcontext()), (1, pytest.raises(BrokenPromiseError, match=r"than 1$"))]
)
def test_a_reservation_need_not_know_of_a_push_that_was_stored_after_it_was_sent(
    seconds: float, finds: AbstractContextManager[object]
) -> None:
    """As one that puts right what a person has edited; it may overtake the reservation."""
    returning = Returning()
    returning.bench.apply(f"{NODES}/m", {"metadata": {"name": "m"}})
    returning.bench.clock.run(KNOWN_SECONDS + 1)
    returning.take_all()
    returning.reserve("n")
    returning.push_older()
    pushed_at = returning.bench.clock.now
    returning.bench.clock.run(pushed_at + 2)

    with finds:
        returning.lead(
            f"{POLICIES}/p/status", {"status": {"rollout": {"leaderEpoch": 1, "reserved": ["m"]}}}, pushed_at + seconds
        )


@pytest.mark.parametrize(
    ("reserves", "finds"),
    [(True, nullcontext()), (False, pytest.raises(BrokenPromiseError, match=r"whose ledger has only \[\]"))],
    ids=["reserved anew", "only carried"],
)
def test_a_push_may_come_after_an_edit_carries_its_name_once_its_own_leader_has_reserved_it(
    reserves: bool, finds: AbstractContextManager[object]
) -> None:
    """A predecessor's name that this leader took over is its own from there."""
    returning = Returning()
    returning.take_all()
    carried = {"leaderEpoch": 1, "reserved": [], "carried": ["n"]}
    returning.tell_ledger(carried)
    if reserves:
        returning.tell_ledger({"leaderEpoch": 1, "reserved": ["n"], "carried": []})
        returning.tell_ledger(carried)

    with finds:
        returning.push_older()


@pytest.mark.parametrize("settled", [True, False], ids=["settled", "unsettled"])
def test_a_node_that_goes_back_without_a_verdict_is_found_also_if_it_is_reserved(settled: bool) -> None:
    returning = Returning()
    if settled:
        returning.soak()
    returning.reserve("n")

    with pytest.raises(BrokenPromiseError, match="n goes back before p's revision has failed"):
        returning.push_older()


class Leases:
    """A Lease, and an oracle that sees its writes by two operators."""

    def __init__(self) -> None:
        self.bench = Bench()
        operators = frozenset({"one", "other"})
        self.bench.server.observers.append(Oracle(self.bench.server, operators, lambda _: None, {}).wrote)

    def create(self, operator: str, epoch: int) -> None:
        metadata = {"name": LEASE_NAME, "annotations": {EPOCH_ANNOTATION: str(epoch)}}
        body = json.dumps({"metadata": metadata, "spec": {"holderIdentity": f"{operator}_0"}}).encode()
        self.bench.server.handle(Request(operator, "POST", LEASES, {}, body, APPLY, self.bench.clock.now))

    def delete(self, seconds: float) -> None:
        """Let a person delete it, and so much time pass."""
        self.bench.ask("DELETE", f"{LEASES}/{LEASE_NAME}")
        self.bench.clock.run(self.bench.clock.now + seconds)


def test_a_lease_that_was_deleted_comes_back_without_an_epoch_that_stood_there_only_lately() -> None:
    leases = Leases()
    leases.create("one", epoch=2)

    leases.delete(30.0)
    leases.create("other", epoch=1)

    assert leases.bench.object(f"{LEASES}/{LEASE_NAME}")["metadata"]["annotations"] == {EPOCH_ANNOTATION: "1"}


def test_a_lease_that_comes_back_below_an_epoch_that_everybody_knew_is_found() -> None:
    leases = Leases()
    leases.create("one", epoch=2)

    leases.delete(KNOWN_SECONDS + 1)

    with pytest.raises(BrokenPromiseError, match="epoch falls from 2 to 1"):
        leases.create("other", epoch=1)


class Statuses:
    """A policy, and an operator that leads for the whole test and writes its status over a network."""

    def __init__(self) -> None:
        self.bench = Bench()
        server = self.bench.server
        self.network = Network(server, Random(1), lambda _: (), lambda _fault, _request: None)
        server.observers.append(Oracle(server, frozenset({"one"}), lambda _: None, self.network.sent).wrote)
        self.process = Process(self.bench.clock)
        self.process.begin()
        spec = {"nodeSelector": {}, "priority": 1, "mode": "Apply", "settings": {}, "onDelete": "Keep"}
        self.bench.apply(f"{POLICIES}/p", {"metadata": {"name": "p"}, "spec": spec})

    def write(self, folios: int) -> None:
        """Renew the lease and send a status, and let half a minute pass."""
        now = self.bench.clock.now
        holder = {"holderIdentity": "one_0", "renewTime": str(now)}
        lease = {"metadata": {"name": LEASE_NAME, "annotations": {EPOCH_ANNOTATION: "1"}}, "spec": holder}
        status = {"summary": "1/1 ready", "rollout": {"leaderEpoch": 1}, "statistics": {"foliosMigrated": folios}}
        policy = {"metadata": {"name": "p"}, "status": status}
        for path, body in (f"{LEASES}/{LEASE_NAME}", lease), (f"{POLICIES}/p/status", policy):
            data, query = json.dumps(body).encode(), {"fieldManager": "operator"}
            request = Request("one", "PATCH", path, query, data, APPLY, self.bench.clock.now)
            self.network.send(self.process, request, lambda _: None)
            self.bench.clock.run(now + 1.0)
        self.bench.clock.run(now + REQUEST_SECONDS_MAX + 1.0)


def test_statistics_alone_within_a_minute_of_another_write_are_found() -> None:
    statuses = Statuses()
    statuses.write(folios=1)

    with pytest.raises(BrokenPromiseError, match="statistics alone 31 s after"):
        statuses.write(folios=2)


def test_statistics_may_be_all_that_is_seen_of_what_was_decided_behind_a_write_without_an_answer() -> None:
    """What the status said otherwise was taken back before it could be sent: one write of a place is open at a time."""
    statuses = Statuses()
    statuses.network.weather_of("one").requests.extend(["", "lost answer"])  # of the lease, and of the status
    statuses.write(folios=1)

    statuses.write(folios=2)

    assert statuses.bench.object(f"{POLICIES}/p")["status"]["statistics"] == {"foliosMigrated": 2}


class Watched:
    """A machine with the real agent's kernel, whose wishes and reports a test makes up."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock(Random(1))
        server = SimServer(Process(self.clock), Random(1))
        self.oracle = oracle = Oracle(server, frozenset(), lambda _: None, {})
        host = Process(self.clock)
        self.machine = RealMachine("n", KINDS[0], Random(1), folder, oracle, host.now, oracle.kernel_wrote)
        oracle.booted("n", self.machine.values)
        self.delivered, self.saved = oracle.delivered, ["demotion.enabled", "balancing.mode"]
        self.wish_demotion("Apply")

    def wish_demotion(self, mode: str, generation: int = 1) -> None:
        settings = {"enabled": True}
        self.wish = {"mode": mode, "settings": settings, "release": "Restore", "source": {"policy": "p", "uid": "u"}}
        spec = {"groups": {"demotion": self.wish}, "observe": {"soakSeconds": 20}}
        knobs = [{"field": field, "baseline": "0"} for field in self.saved]
        status = {"bootID": self.machine.boot_id, "knobs": knobs}
        self.delivered["n"] = {"metadata": {"uid": "s", "generation": generation}, "spec": spec, "status": status}
        self.machine.delivered(self.delivered["n"])

    def take_away(self) -> None:
        self.oracle.orphans.add(("n", "demotion"))
        self.machine.delivered({"metadata": {"uid": "s2", "generation": 1}, "spec": {"groups": {}}})

    def write(self, field: str, value: str) -> None:
        knob = next(knob for knob in MAINLINE_KNOBS if knob.field == field)
        self.machine.begin(Lane.KNOBS, WriteKnob(knob, Value(value)))

    def report(self, generation: int = 1, **result: str) -> None:
        self.machine.reported({"observedGeneration": generation, "groups": {"demotion": result}})


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_an_agent_that_tells_ready_before_it_has_written_is_found(watched: Watched) -> None:
    with pytest.raises(BrokenPromiseError, match="tells demotion as Ready, which holds False"):
        watched.report(state="Ready")

    watched.write("demotion.enabled", "true")
    watched.report(state="Ready")


def test_an_agent_that_tells_a_soak_too_early_is_found(watched: Watched) -> None:
    watched.write("demotion.enabled", "true")
    watched.clock.run(19.0)

    with pytest.raises(BrokenPromiseError, match=r"soaked 1.0 s too early"):
        watched.report(state="Ready", soakedRevision=wish_revision(watched.wish))


def test_an_agent_that_writes_what_nobody_wishes_is_found(watched: Watched) -> None:
    with pytest.raises(BrokenPromiseError, match="changes balancing that nobody wishes"):
        watched.write("balancing.mode", "2")


def test_an_agent_that_writes_before_the_node_state_has_the_value_of_before_is_found(watched: Watched) -> None:
    with pytest.raises(BrokenPromiseError, match=r"promise 1: n writes balancing.promoteRateLimitMBps"):
        watched.write("balancing.promoteRateLimitMBps", "5")


def test_an_agent_that_tells_a_restore_of_which_a_file_is_left_is_found(watched: Watched) -> None:
    watched.write("demotion.enabled", "true")
    watched.wish_demotion("Restore", 2)

    with pytest.raises(BrokenPromiseError, match="promise 7: n tells demotion as Restored, but not"):
        watched.report(2, state="Restored")


def test_an_agent_that_forgets_what_was_there_before_since_a_person_took_its_wish_away_is_found(
    watched: Watched,
) -> None:
    watched.write("demotion.enabled", "true")
    watched.take_away()
    watched.wish_demotion("Restore", 2)

    with pytest.raises(BrokenPromiseError, match="promise 7: n tells demotion as Restored, but not"):
        watched.report(2, state="Restored")


def test_what_a_policy_kept_is_what_was_there_before_the_next_one(watched: Watched) -> None:
    """Also where the words for a group are the same before and after, as of a mode whose rate limit was kept."""

    def wish(mode: str, generation: int) -> None:
        settings = {"promoteRateLimitMBps": 5}
        group = {"mode": mode, "settings": settings, "release": "Keep", "source": {"policy": "p", "uid": "u"}}
        knobs = [{"field": "balancing.promoteRateLimitMBps", "baseline": "0"}]
        status = {"bootID": watched.machine.boot_id, "knobs": knobs}
        spec = {"groups": {"balancing": group} if mode else {}}
        state = {"metadata": {"uid": "s", "generation": generation}, "spec": spec, "status": status}
        watched.delivered["n"] = state
        watched.machine.delivered(state)

    wish("Apply", 2)
    watched.write("balancing.promoteRateLimitMBps", "5")
    wish("", 3)
    wish("Restore", 4)

    watched.machine.reported({"observedGeneration": 4, "groups": {"balancing": {"state": "Restored"}}})
    watched.write("balancing.promoteRateLimitMBps", "6")
    with pytest.raises(BrokenPromiseError, match="promise 7: n tells balancing as Restored, but not"):
        watched.machine.reported({"observedGeneration": 4, "groups": {"balancing": {"state": "Restored"}}})


def test_real_agents_bring_a_cluster_to_rest_and_their_seed_always_makes_the_same_history() -> None:
    seed = 2 * REAL_EVERY + REAL_AT
    assert has_real_agents(seed)
    outcome = run_seed(seed)

    assert outcome.finding is None
    assert ("agent crash", "report") in outcome.met
    assert without_cost(outcome) == without_cost(run_seed(seed))


ENOUGH = Outcome(steps=500, faults=9, seconds=1.0, cpu=1.0, met=frozenset(), finding=None)


ALONE = """
from multiprocessing import active_children
from multiprocessing.pool import Pool

from tests.simulation import __main__ as command
from tests.simulation.schedule import Outcome, make_schedule
from tests.testbed.progress import Progress

left, terminate = [], Pool.terminate


def note(pool):
    left.extend(active_children())
    terminate(pool)


Pool.terminate = note
enough = Outcome(steps=500, faults=9, seconds=1.0, cpu=1.0, met=frozenset(), finding=None)
command.run_schedule = lambda _schedule: enough
tally = command.run(map(make_schedule, range(command.BATCH)), 4, float("inf"), Progress())
print(tally.schedules, len(left))
"""
"""A program of its own: a fork of a process with threads, as one that runs tests has, may never go on."""


def test_processes_end_by_themselves_once_all_schedules_are_run() -> None:
    """One that is killed while it is forked may not hear of it, and the run then never ends."""
    told = subprocess.run([sys.executable, "-c", ALONE], cwd=ROOT, capture_output=True, text=True, check=True)

    assert told.stdout.split() == [str(command.BATCH), "0"]


@pytest.mark.parametrize(
    ("number", "send"),
    [
        pytest.param(signal.SIGINT, os.killpg, id="Ctrl-C at a terminal, which all processes get"),
        pytest.param(signal.SIGTERM, os.killpg, id="all processes are asked to end"),
        pytest.param(signal.SIGTERM, os.kill, id="only the first one is asked to end"),
    ],
)
def test_a_run_that_is_interrupted_ends_soon_and_without_a_traceback(
    number: signal.Signals, send: Callable[[int, int], None]
) -> None:
    program = [sys.executable, "-m", "tests.simulation", "--first", "1", "--seeds", "100000", "--jobs", "2"]
    with subprocess.Popen(program, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True) as run:
        assert run.stderr is not None
        assert run.stderr.readline().startswith("first seed 1")
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
        poll(lambda: len(children.read_text().split()) == 2, "processes of the pool")

        send(run.pid, number)

        try:
            said = run.communicate(timeout=30)[1]
        finally:
            with suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)
    assert run.returncode == 130
    assert "Traceback" not in said


def test_a_schedule_with_too_few_faults_is_not_counted_among_those_that_were_asked_for() -> None:
    tally = Tally()

    for outcome in (ENOUGH, ENOUGH._replace(faults=3), ENOUGH._replace(steps=149)):
        tally.take(outcome)

    assert (tally.schedules, tally.small) == (1, 2)
