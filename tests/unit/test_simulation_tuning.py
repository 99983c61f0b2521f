# SPDX-License-Identifier: Apache-2.0
"""The simulation's own parts that are about measurements: who answers, what the server does, what the oracle sees."""

from __future__ import annotations

import json
from argparse import Namespace
from collections import defaultdict
from random import Random
from typing import Any

import pytest

from numamigration_agent.kernel.timed_moves import Prepare, TimeMoves
from numamigration_api.machinery.clock import NEVER
from numamigration_api.machinery.profiles import profile_name
from numamigration_api.vocabulary import FENCE_MESSAGE, OPERATOR_MANAGER, PROBE_MANAGER
from tests.fakekernel.config import DmaEngine, HostConfig
from tests.fakekernel.model import FakeKernel
from tests.simulation.__main__ import fresh_schedules
from tests.simulation.clock import Clock, Process
from tests.simulation.kernels import KINDS, phrase
from tests.simulation.measuring import CALM_SECONDS, PROBE_SECONDS, Bench, Probing, bench_of
from tests.simulation.objects import Json
from tests.simulation.oracle import BrokenPromiseError, Oracle
from tests.simulation.schedule import make_schedule
from tests.simulation.server import APPLY, MERGE, NODES, POLICIES, PROFILES, STATES, Request, SimServer
from tests.simulation.world import TUNED_AT, TUNED_EVERY, has_real_agents, is_tuned
from tests.twin.held_up import HeldUpError
from tests.twin.timed import DMA_WINS, PatientTimedMover

CELL = ("V6", "class-a")
NAME = profile_name(*CELL)
LEADER = "operator-0"
FOUR = {"engine": "DMA", "channels": 4}
LONG_AGO_SECONDS = 400.0
MEASURES = Bench("Done", FOUR)


# --- schedules


def test_schedules_that_are_not_tuned_have_nothing_of_it() -> None:
    for seed in range(2 * TUNED_EVERY):
        drawn = str(make_schedule(seed))
        assert ("tuning" in drawn) is is_tuned(seed) is (seed % TUNED_EVERY == TUNED_AT)


def test_fresh_schedules_are_tuned_or_not_as_their_seeds_say() -> None:
    options = Namespace(real_agents=False, tuned=False, seeds=2 * TUNED_EVERY, moves=2)

    drawn = list(fresh_schedules(1, options))

    assert [one.seed for one in drawn] == list(range(1, 1 + 2 * TUNED_EVERY))
    assert sum(is_tuned(one.seed) for one in drawn) == 2


def test_some_tuned_schedules_run_the_real_agent() -> None:
    assert any(is_tuned(seed) and has_real_agents(seed) for seed in range(1000))


# --- what nodes measure


def test_nodes_measure_the_same_whenever_they_are_asked_in_a_schedule() -> None:
    assert bench_of(1, "node-00", KINDS[0]) == bench_of(1, "node-00", KINDS[0])
    habits = {bench_of(seed, "node-00", KINDS[0]).habit for seed in range(200)}
    assert habits == {"Done", "Refused", "Stopped", "Waiting"}


def test_a_node_without_engines_refuses() -> None:
    assert {bench_of(seed, "node-02", KINDS[2]).habit for seed in range(50)} == {"Refused"}


class Node:
    """One agent's measurement, life after life."""

    def __init__(self, bench: Bench = MEASURES) -> None:
        self.kept: dict[str, Any] = {}
        self.bench, self.now = bench, 0.0
        self.restart()

    def restart(self) -> None:
        self.probing = Probing(self.bench, self.kept, Random(1))

    def ask(self, asked: str) -> None:
        self.probing.ask(asked, self.now)

    def pass_time(self, seconds: float) -> str:
        self.now += seconds
        self.probing.go_on(self.now, may_begin=True)
        return str((self.probing.document() or {}).get("phase"))


def test_a_node_that_measures_tells_its_choice() -> None:
    node = Node()
    node.ask("one")

    assert node.pass_time(0.0) == "Waiting"
    assert node.pass_time(CALM_SECONDS[1]) == "Running"
    assert node.pass_time(PROBE_SECONDS[1]) == "Done"
    assert node.probing.document() == {
        "id": "one", "phase": "Done", "reason": "Measured", "message": "Done here", "choice": FOUR
    }  # fmt: skip


@pytest.mark.parametrize("habit", ["Refused", "Stopped", "Waiting"])
def test_a_node_that_does_not_measure_says_so(habit: str) -> None:
    node = Node(Bench(habit, FOUR))
    node.ask("one")
    node.pass_time(CALM_SECONDS[1])

    assert node.pass_time(PROBE_SECONDS[1]) == habit
    assert "choice" not in (node.probing.document() or {})
    assert node.probing.due_at == NEVER


def test_an_answer_is_told_again_and_not_measured_again() -> None:
    node = Node()
    node.ask("one")
    node.pass_time(CALM_SECONDS[1])
    node.pass_time(PROBE_SECONDS[1])
    node.ask("")
    assert node.probing.document() is None

    node.ask("one")

    assert (node.pass_time(0.0), node.probing.due_at) == ("Done", NEVER)


def test_what_was_withdrawn_halfway_is_measured_when_it_is_asked_again() -> None:
    node = Node()
    node.ask("one")
    assert node.pass_time(CALM_SECONDS[1]) == "Running"
    node.ask("")
    node.ask("one")

    assert node.pass_time(0.0) == "Waiting"
    assert node.pass_time(CALM_SECONDS[1]) == "Running"


def test_an_agent_that_ends_in_the_middle_has_stopped() -> None:
    node = Node()
    node.ask("one")
    node.pass_time(CALM_SECONDS[1])

    node.restart()
    node.ask("one")

    assert node.pass_time(PROBE_SECONDS[1]) == "Stopped"


def test_a_host_that_boots_in_the_middle_has_stopped() -> None:
    node = Node()
    node.probing.recall({"id": "one", "phase": "Running"})
    node.ask("one")

    assert node.pass_time(PROBE_SECONDS[1]) == "Stopped"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        pytest.param({"profiles": [{"name": NAME, **FOUR}]}, "DMA 4", id="its own"),
        pytest.param({"profiles": [{"name": "other", **FOUR}]}, "", id="another class's"),
        pytest.param({"engine": "Off", "profiles": [{"name": "other", **FOUR}]}, "Off", id="the group's own"),
        pytest.param({"engine": "DMA", "channels": 2}, "DMA 2", id="no profiles"),
    ],
)
def test_a_class_has_what_is_said_of_it(settings: Json, expected: str) -> None:
    assert phrase("offload", settings, NAME) == expected


# --- pages that move against a clock, where an engine may hold them


def mover(**engine: Any) -> tuple[FakeKernel, PatientTimedMover]:
    kernel = FakeKernel(HostConfig(engines=(DmaEngine("ptdma", 4, **engine),), speeds=DMA_WINS), Random(1))
    kernel.drift("/sys/module/dcbm/parameters/nr_dma_chan", "4")
    kernel.drift("/sys/module/dcbm/parameters/offloading", "1")
    moves = PatientTimedMover(kernel, Random(1))
    moves(Prepare(0, 1, 4096, 64 << 20, 1))
    return kernel, moves


def test_moves_that_nothing_holds_up_are_answered_at_once() -> None:
    _, moves = mover()

    assert moves(TimeMoves(32, 0.1)).folios == 32


def test_moves_that_an_engine_holds_up_are_answered_once_they_are_over() -> None:
    kernel, moves = mover(hangs=True)
    with pytest.raises(HeldUpError) as held:
        moves(TimeMoves(32, 0.1))
    assert not held.value.is_over()

    kernel.advance(60.0)

    assert held.value.is_over()
    assert moves(TimeMoves(32, 0.1)).folios == 32


# --- the API server, and the oracle


class Cluster:
    """A class of four nodes, a policy that is tuned, and an oracle that sees all writes."""

    def __init__(self, **spec: Any) -> None:
        self.clock = Clock(Random(1))
        self.server = SimServer(Process(self.clock), Random(1))
        oracle = Oracle(self.server, frozenset({LEADER}), lambda _: None, defaultdict(dict))
        oracle.renewed[f"{LEADER}_0"] = LONG_AGO_SECONDS
        oracle.leading_since[f"{LEADER}_0"], oracle.lease_epoch = 0.0, 9
        self.server.observers.append(oracle.wrote)
        self.oracle = oracle
        rollout = {"nodeDeadlineSeconds": 200, "maxUnproven": 1, "canary": {"nodes": 1, "soakSeconds": 0}}
        plain = {"nodeSelector": {}, "priority": 1, "mode": "Apply", "settings": {}, "rollout": rollout}
        policy = {"tuning": {"mode": "Auto"}, "onDelete": "Keep", **plain, **spec}
        self.ask("person", "POST", POLICIES, {"metadata": {"name": "p"}, "spec": policy})
        for number in range(4):
            node = f"n{number}"
            self.ask("person", "POST", NODES, {"metadata": {"name": node}})
            self.ask("person", "POST", STATES, {"metadata": {"name": node}, "spec": {}})
            self.tell(node)
        about = {"dialect": CELL[0], "hardwareClass": CELL[1]}
        self.ask(LEADER, "POST", PROFILES, {"metadata": {"name": NAME}, "spec": about})
        self.clock.run(LONG_AGO_SECONDS)
        for number in range(4):
            self.tell(f"n{number}")
        oracle.returned.clear()  # none was silent meanwhile

    def ask(self, who: str, method: str, path: str, body: Json, manager: str = "m", kind: str = APPLY) -> int:
        data = json.dumps(body).encode()
        request = Request(who, method, path, {"fieldManager": manager}, data, kind, self.clock.now)
        return self.server.handle(request).status

    def tell(self, node: str, **probe: Any) -> None:
        status = {"dialect": CELL[0], "hardwareClass": CELL[1], "reportedAt": f"{self.clock.now}"}
        body = {"metadata": {"name": node}, "status": status | ({"probe": probe} if probe else {})}
        self.ask(f"agent-{node}", "PATCH", f"{STATES}/{node}/status", body)

    def question(self, node: str, asked: str = "one", **more: Any) -> None:
        body = {"metadata": {"name": node}, "spec": {"probe": {"id": asked}, **more}}
        self.ask(LEADER, "PATCH", f"{STATES}/{node}", body, PROBE_MANAGER)

    def conclude(self, recommendation: Json, *nodes: Json, who: str = LEADER) -> None:
        status = {"phase": "Measured", "recommendation": recommendation, "nodes": nodes, "measuredAt": "now"}
        body = {"metadata": {"name": NAME}, "status": status | {"leaderEpoch": 9}}
        self.ask(who, "PATCH", f"{PROFILES}/{NAME}/status", body)

    def measure(self, *names: str) -> None:
        for node in names:
            self.question(node)
            self.tell(node, id="one", phase="Done", choice=FOUR)
        self.conclude(FOUR, *({"node": node, **FOUR} for node in names))

    def push(self, settings: Json) -> None:
        source = {"policy": "p", "uid": "", "generation": 1}
        wish = {"mode": "Hold", "settings": settings, "release": "Keep", "source": source}
        spec = {"leaderEpoch": 9, "groups": {"offload": wish}}
        self.ask(LEADER, "PATCH", f"{STATES}/n0", {"metadata": {"name": "n0"}, "spec": spec}, OPERATOR_MANAGER)


def test_an_empty_object_takes_nothing_out_of_one_that_is_there() -> None:
    cluster = Cluster()
    cluster.question("n0")

    cluster.ask("person", "PATCH", f"{STATES}/n0", {"metadata": {"name": "n0"}, "spec": {}}, "other")

    assert cluster.server.all(STATES)["n0"]["spec"] == {"probe": {"id": "one"}}


def test_a_profile_is_about_one_class_and_its_epoch_never_falls() -> None:
    cluster = Cluster()
    cluster.measure("n0")
    other = {"spec": {"dialect": "V5"}}
    assert cluster.ask("person", "PATCH", f"{PROFILES}/{NAME}", other, kind=MERGE) == 422

    lower = Request("x", "PATCH", f"{PROFILES}/{NAME}/status", {}, b'{"status":{"leaderEpoch":8}}', MERGE, 0.0)
    assert FENCE_MESSAGE in cluster.server.handle(lower).message


def test_what_three_nodes_measured_is_fine() -> None:
    cluster = Cluster()
    cluster.measure("n0", "n1", "n2")

    cluster.push({"profiles": [{"name": NAME, **FOUR}]})

    wish = cluster.server.all(STATES)["n0"]["spec"]["groups"]["offload"]
    assert wish["settings"] == {"profiles": [{"name": NAME, **FOUR}]}


def test_a_question_that_changes_what_a_node_shall_have_is_found() -> None:
    with pytest.raises(BrokenPromiseError, match=r"asking n0 changes \['observe'\]"):
        Cluster().question("n0", observe={})


def test_a_question_for_nobody_is_found() -> None:
    with pytest.raises(BrokenPromiseError, match="asked for nobody"):
        Cluster(mode="Paused").question("n0")


def test_two_nodes_that_measure_at_a_time_are_found() -> None:
    cluster = Cluster()
    cluster.question("n0")

    with pytest.raises(BrokenPromiseError, match=r"n1 is asked while \['n0'\] measure"):
        cluster.question("n1")


def test_a_fourth_node_that_is_asked_is_found() -> None:
    cluster = Cluster()
    for node in ("n0", "n1", "n2"):
        cluster.question(node)
        cluster.tell(node, id="one", phase="Refused")

    with pytest.raises(BrokenPromiseError, match="n3 is asked after"):
        cluster.question("n3")


@pytest.mark.parametrize(
    ("recommendation", "nodes", "problem"),
    [
        pytest.param(FOUR, [], "nobody has measured", id="of nobody"),
        pytest.param(FOUR, [{"node": "n1", **FOUR}], r"says that n1 chose", id="not told"),
        pytest.param(FOUR | {"channels": 8}, [{"node": "n0", **FOUR}], "its nodes chose", id="another number"),
        pytest.param({"engine": "Off"}, [{"node": "n0", **FOUR}], "its nodes chose", id="more careful than its nodes"),
    ],
)
def test_a_profile_that_does_not_follow_from_answers_is_found(
    recommendation: Json, nodes: list[Json], problem: str
) -> None:
    cluster = Cluster()
    cluster.tell("n0", id="one", phase="Done", choice=FOUR)

    with pytest.raises(BrokenPromiseError, match=problem):
        cluster.conclude(recommendation, *nodes)


def test_settings_that_were_not_measured_are_found_on_a_node() -> None:
    cluster = Cluster()
    cluster.measure("n0")
    cluster.conclude(FOUR | {"channels": 16}, {"node": "n0", **FOUR}, who="person")

    with pytest.raises(BrokenPromiseError, match="which was not measured"):
        cluster.push({"profiles": [{"name": NAME, "engine": "DMA", "channels": 16}]})


def test_a_profile_that_was_edited_by_hand_is_no_part_of_what_policies_ask() -> None:
    cluster = Cluster()
    cluster.measure("n0")
    asked = cluster.oracle.tuning.asking(cluster.server.all(POLICIES))
    assert asked["p"]["spec"]["settings"] == {"offload": {"profiles": [{"name": NAME, **FOUR}]}}

    cluster.conclude(FOUR | {"channels": 16}, {"node": "n0", **FOUR}, who="person")

    asked = cluster.oracle.tuning.asking(cluster.server.all(POLICIES))
    assert asked["p"]["spec"]["settings"] == {"offload": {"profiles": []}}
