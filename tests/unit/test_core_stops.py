# SPDX-License-Identifier: Apache-2.0
"""What stops pushes above all policies: a held class, the circuit breaker; and what is read of Nodes for guardrails."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from numamigration_api.vocabulary import CONTROL_CONFIG_MAP, FLEET_KEY, FleetSwitch
from numamigration_operator.core.class_hold import Hold
from numamigration_operator.core.decisions import WriteKind
from numamigration_operator.core.fleet import FleetSettings
from numamigration_operator.core.fleet_switch import Control, read_control
from numamigration_operator.core.objects import ConfigMapObject
from tests.unit.builders import DIALECT, HARDWARE_CLASS, OFFLOAD, World, policy

DEMOTION = {"demotion": {"enabled": True}}


class Stopped(World):
    """A world whose control ConfigMap has keys, and whose agents can find their engines corrupt."""

    def __init__(self, nodes: int = 4, **settings: Any) -> None:
        super().__init__(FleetSettings(reserve_interval_seconds=0.0, **settings))
        for number in range(nodes):
            self.add_node(f"n{number}")
        self.keys: dict[str, str] = {}
        self.epochs: dict[str, int] = {}
        self.sync()
        self.add_policy(policy("p"))
        self.step()
        self.answer()

    def answer(self, **failed: tuple[str, str]) -> None:
        for name in self.states:
            self.report(name, {"offload": failed[name]} if name in failed else None, **self.verification(name))
        self.step(6)

    def verification(self, name: str) -> dict[str, Any]:
        bad = name in self.epochs
        epoch = self.epochs.get(name, self.states[name]["spec"].get("verifyEpoch", 0))
        result = "Failed" if bad else "Passed"
        return {"verification": {"result": result, "epoch": epoch, "driver": "ptdma"}}

    def corrupt(self, name: str) -> None:
        """The agent of a node finds that its engine copies wrong, and keeps it off for the boot."""
        self.epochs[name] = self.states[name]["spec"].get("verifyEpoch", 0)
        self.answer(**{name: ("Failed", "CorruptionDetected")})

    def carry_out(self, writes: Any) -> None:
        for write in writes:
            if write.key.kind is WriteKind.CLASS_HOLD:
                self.keys |= json.loads(write.body)["data"]
                self.show_control()
            else:
                super().carry_out([write])

    def show_control(self) -> None:
        self.control = read_control(control_map(self.keys))
        self.fleet.control_changed(self.control, self.now)

    def verify_epochs(self) -> dict[str, int]:
        return {name: state["spec"].get("verifyEpoch", 0) for name, state in self.states.items()}


def control_map(data: dict[str, str]) -> ConfigMapObject:
    return msgspec.convert({"metadata": {"name": CONTROL_CONFIG_MAP}, "data": data}, ConfigMapObject)


def test_one_corrupt_engine_holds_its_class() -> None:
    """Promise 15."""
    world = Stopped()

    world.corrupt("n1")

    ((key, value),) = world.keys.items()
    assert key.startswith("hold.")
    names = {"hardwareClass": HARDWARE_CLASS, "dialect": DIALECT, "driver": "ptdma"}
    assert names.items() <= json.loads(value).items()
    assert json.loads(value)["node"] == "n1"


def test_every_node_of_a_held_class_verifies_anew_once() -> None:
    """Promise 15."""
    world = Stopped()
    world.cells["other"] = ("V5", "another")
    world.add_node("other")
    world.step()

    world.corrupt("n1")
    first = world.verify_epochs()
    world.answer(n1=("Failed", "CorruptionDetected"))

    assert first == {"n0": 1, "n1": 1, "n2": 1, "n3": 1, "other": 0}
    assert world.verify_epochs() == first


def test_in_a_held_class_nothing_is_turned_on() -> None:
    """Promise 15."""
    world = Stopped()
    world.corrupt("n1")

    world.add_node("new")
    world.step()
    world.report("new")
    world.step(10)

    assert world.groups("new") == {}
    reasons = {one["node"]: one["reason"] for one in world.status("p")["worstNodes"]}
    assert reasons["new"] == "ClassHeld"


def modes(world: Stopped) -> dict[str, str]:
    return {name: world.groups(name)["offload"]["mode"] for name in world.states}


def test_an_engine_of_a_held_class_that_has_verified_anew_is_not_turned_on_again_by_a_reboot() -> None:
    """Promise 15: it would verify once more then, pass, and be turned on."""
    world = Stopped()

    world.corrupt("n1")
    first = modes(world)
    world.answer(n1=("Failed", "CorruptionDetected"))

    assert first == {"n0": "Apply", "n1": "Hold", "n2": "Apply", "n3": "Apply"}
    assert set(modes(world).values()) == {"Hold"}


def test_a_node_of_a_held_class_that_is_down_is_not_turned_on_when_it_comes_back() -> None:
    """Promise 15."""
    world = Stopped()
    world.corrupt("n1")

    world.step(1000)

    assert set(modes(world).values()) == {"Hold"}


def test_a_held_class_is_a_reason_of_its_own_and_ends_with_the_key() -> None:
    world = Stopped()
    world.corrupt("n1")
    del world.epochs["n1"]
    world.answer()
    world.answer()

    held = world.status("p")
    world.keys.clear()
    world.show_control()
    world.step(10)

    assert held["nodes"]["pending"] == 4
    assert {"ClassHeld"} == {node["reason"] for node in held["worstNodes"]}
    assert set(modes(world).values()) == {"Apply"}


def test_what_has_not_soaked_counts_in_the_budget_while_its_class_is_held() -> None:
    """Promise 8: with the end of the hold it is in force again, and nobody reserves it anew."""
    world = Stopped()
    world.edit_policy("p", settings={"offload": OFFLOAD | {"channels": 2}}, rollout={"onFailure": "Halt"})
    world.step(10)

    world.corrupt(next(name for name in world.states if world.groups(name)["offload"]["settings"]["channels"] == 2))
    world.step(10)

    assert world.status("p")["overlays"]["unproven"] == 1


def test_what_was_paused_before_its_class_was_held_counts_in_the_budget_once_the_pause_ends() -> None:
    """Promise 8: with the end of the hold it is in force again, also where no engine has verified anew meanwhile."""
    world = Stopped()
    world.edit_policy("p", settings={"offload": OFFLOAD | {"channels": 2}}, rollout={"onFailure": "Halt"})
    world.step(10)
    (canary,) = [name for name in world.states if world.groups(name)["offload"]["settings"]["channels"] == 2]
    world.edit_policy("p", mode="Paused")
    world.step(10)
    sick = min(world.states.keys() - {canary})
    world.epochs[sick] = 0
    world.report(sick, {"offload": ("Failed", "CorruptionDetected")}, **world.verification(sick))
    world.step(10)

    world.edit_policy("p", mode="Apply")
    world.step(10)

    assert modes(world)[canary] == "Hold"
    assert world.status("p")["overlays"]["unproven"] == 2  # the corrupt one has lost its mark


def test_what_is_no_offload_goes_on_in_a_held_class() -> None:
    world = Stopped()
    world.corrupt("n1")

    world.add_policy(policy("q", settings=DEMOTION))
    world.step(10)

    assert all("demotion" in world.groups(name) for name in world.states)


def test_another_class_is_not_held() -> None:
    world = Stopped()
    world.corrupt("n1")
    world.cells["other"] = ("V5", "another")

    world.add_node("other")
    world.step(10)

    assert "offload" in world.groups("other")


def test_a_key_that_a_person_removed_does_not_come_back_for_the_same_corruption() -> None:
    """Promise 15."""
    world = Stopped()
    world.corrupt("n1")

    world.keys.clear()
    world.show_control()
    world.answer(n1=("Failed", "CorruptionDetected"))
    world.restart(epoch=2)
    world.step(10)

    assert world.keys == {}


def test_another_corruption_after_that_holds_the_class_again_with_a_greater_epoch() -> None:
    world = Stopped()
    world.corrupt("n1")
    world.keys.clear()
    world.show_control()
    world.step(10)

    world.corrupt("n2")

    (value,) = world.keys.values()
    assert json.loads(value)["verifyEpoch"] == 2


def test_a_second_corrupt_node_of_a_held_class_is_noted_too() -> None:
    world = Stopped()
    world.corrupt("n1")
    world.corrupt("n2")
    world.keys.clear()
    world.show_control()

    world.answer(n1=("Failed", "CorruptionDetected"), n2=("Failed", "CorruptionDetected"))

    assert world.keys == {}
    assert world.verify_epochs()["n2"] == 2


def test_a_hold_that_could_not_be_written_is_decided_anew() -> None:
    world = Stopped()
    world.epochs["n1"] = 0
    world.report("n1", {"offload": ("Failed", "CorruptionDetected")}, **world.verification("n1"))
    first = [write for write in world.decide().writes if write.key.kind is WriteKind.CLASS_HOLD]

    world.fleet.write_failed(first[0].key)
    again = [write for write in world.decide().writes if write.key.kind is WriteKind.CLASS_HOLD]

    assert [write.key for write in again] == [write.key for write in first]


def test_a_held_class_is_told_as_an_event_on_the_policy() -> None:
    world = Stopped()
    world.epochs["n1"] = 0
    world.report("n1", {"offload": ("Failed", "CorruptionDetected")}, **world.verification("n1"))

    (event,) = (one for one in world.decide().events if one.reason == "CorruptionDetected")

    assert event.warning
    assert "hold." in event.message
    assert "n1" in event.message


def test_holds_and_the_switch_stand_side_by_side_in_the_config_map() -> None:
    hold = Hold("class", "V6", "ptdma", 3, "n1")
    text = msgspec.json.encode(hold).decode()

    control = read_control(control_map({hold.key: text, FLEET_KEY: "off"}))

    assert control == Control(FleetSwitch.OFF, holds=((hold.key, text),))


@pytest.mark.parametrize("value", ["", "{}", "no JSON", '["a"]'])
def test_a_hold_that_cannot_be_understood_holds_the_whole_fleet(value: str) -> None:
    control = read_control(control_map({"hold.0123456789abcdef": value}))

    assert control.switch is FleetSwitch.HOLD
    assert "remove the key" in control.problem


def test_a_misspelled_switch_ends_no_hold() -> None:
    """Promise 15."""
    world = Stopped()
    world.keys[FLEET_KEY] = "nonsense"
    world.show_control()

    world.corrupt("n1")

    assert world.control.switch is FleetSwitch.HOLD
    assert set(world.verify_epochs().values()) == {1}


# The circuit breaker

BROKEN = ("Failed", "KernelError")


def fleet_of(nodes: int, failed: int, **settings: Any) -> Stopped:
    world = Stopped(nodes, breaker_percent=25, breaker_nodes_min=2, **settings)
    world.answer(**{f"n{number}": BROKEN for number in range(failed)})
    return world


@pytest.mark.parametrize(("failed", "is_open"), [(1, False), (2, True), (8, True)])
def test_the_breaker_opens_at_a_share_of_failed_nodes(failed: int, is_open: bool) -> None:
    world = fleet_of(8, failed)

    world.add_policy(policy("q", settings=DEMOTION))
    world.step(10)

    pushed = any("demotion" in world.groups(name) for name in world.states)
    assert pushed is not is_open


def test_few_failed_nodes_of_a_small_fleet_open_no_breaker() -> None:
    world = Stopped(2, breaker_percent=25, breaker_nodes_min=2)
    world.answer(n0=BROKEN)

    world.add_policy(policy("q", settings=DEMOTION))
    world.step(10)

    assert all("demotion" in world.groups(name) for name in world.states)


def test_an_open_breaker_is_said_on_every_policy_that_waits() -> None:
    world = fleet_of(8, 2)

    world.add_policy(policy("q", settings=DEMOTION))
    world.step(10)

    assert world.condition("q", "Stalled")["reason"] == "CircuitBreakerOpen"


def test_an_open_breaker_lets_turning_off_through() -> None:
    world = fleet_of(8, 2)

    world.edit_policy("p", settings={"offload": {"engine": "Off"}})
    world.step(10)

    assert {world.groups(name)["offload"]["settings"]["engine"] for name in world.states} == {"Off"}


def test_the_breaker_closes_when_nodes_are_mended() -> None:
    world = fleet_of(8, 2)
    world.add_policy(policy("q", settings=DEMOTION))
    world.step(10)

    world.answer()

    assert all("demotion" in world.groups(name) for name in world.states)


# The node fence

NO_FENCE = "ValidatingAdmissionPolicy numamigration-agent-fence does not exist: apply deploy/fence.yaml"


class Unfenced(Stopped):
    """A world whose fence may be taken away and put back."""

    def take_fence(self) -> None:
        self.read_fence(NO_FENCE)

    def read_fence(self, problem: str) -> None:
        self.fence_problem = problem
        self.fleet.fence_read(problem, self.now)
        self.step(10)


def test_without_the_fence_nothing_is_turned_on() -> None:
    """Promise 9: what an agent's status says may come from any other agent's token then."""
    world = Unfenced()
    world.take_fence()

    world.add_policy(policy("q", settings=DEMOTION))
    world.add_node("new")
    world.step()
    world.report("new")
    world.step(10)

    assert world.groups("new") == {}
    assert not any("demotion" in world.groups(name) for name in world.states)


def test_without_the_fence_a_change_of_a_number_waits_too() -> None:
    """Promise 9."""
    world = Unfenced()
    world.take_fence()

    world.edit_policy("p", settings={"offload": OFFLOAD | {"channels": 2}})
    world.step(10)

    assert {world.groups(name)["offload"]["settings"]["channels"] for name in world.states} == {4}


def test_what_is_reserved_when_the_fence_goes_is_not_pushed() -> None:
    """Promise 9."""
    world = Unfenced()
    world.edit_policy("p", settings={"offload": OFFLOAD | {"channels": 2}})
    while not (reserved := world.status("p")["rollout"].get("reserved")):
        world.carry_out(world.decide().writes)

    world.take_fence()

    assert reserved
    assert {world.groups(name)["offload"]["settings"]["channels"] for name in world.states} == {4}


def test_without_the_fence_turning_off_is_pushed() -> None:
    """Promise 17."""
    world = Unfenced()
    world.take_fence()

    world.edit_policy("p", settings={"offload": {"engine": "Off"}})
    world.step(10)

    assert {world.groups(name)["offload"]["settings"]["engine"] for name in world.states} == {"Off"}


def test_without_the_fence_a_deleted_policy_is_restored() -> None:
    """Promise 13."""
    world = Unfenced()
    world.edit_policy("p", onDelete="Restore")
    world.step(10)
    world.take_fence()

    world.delete_policy("p")
    world.step(10)

    assert {world.groups(name)["offload"]["mode"] for name in world.states} == {"Restore"}


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({}, id="everything was ready"),
        pytest.param({"settings": DEMOTION}, id="something waits"),
        pytest.param({"nodeSelector": {"matchLabels": {"no": "node"}}}, id="matches no node"),
        pytest.param({"mode": "Paused"}, id="paused"),
        pytest.param({"mode": "Plan"}, id="a plan"),
    ],
)
def test_a_missing_fence_is_said_on_every_policy(spec: dict[str, Any]) -> None:
    """Promise 9."""
    world = Unfenced()
    world.edit_policy("p", **spec)
    world.step(10)
    before = world.condition("p", "Ready")["reason"]

    world.take_fence()

    assert before != "FenceMissing"
    for type_, status in (("Ready", "False"), ("Stalled", "True")):
        found = world.condition("p", type_)
        assert (found["status"], found["reason"], found["message"]) == (status, "FenceMissing", NO_FENCE)


def test_a_policy_that_waits_for_the_fence_only_is_not_in_progress() -> None:
    """kstatus looks at Reconciling before Stalled."""
    world = Unfenced()
    world.take_fence()

    world.edit_policy("p", settings={"offload": OFFLOAD | {"channels": 2}})
    world.step(10)

    assert world.condition("p", "Reconciling")["status"] == "False"


def test_a_missing_fence_is_told_as_an_event_of_the_policy() -> None:
    world = Unfenced()
    world.fence_problem = NO_FENCE
    world.fleet.fence_read(NO_FENCE, world.now)

    events = world.step(10).events

    assert ("p", "FenceMissing") in [(event.policy, event.reason) for event in events]


def test_nodes_that_wait_for_the_fence_are_pending_with_its_reason() -> None:
    world = Unfenced(2)
    world.take_fence()

    world.edit_policy("p", settings={"offload": OFFLOAD | {"channels": 2}})
    world.step(10)

    worst = {(one["state"], one["reason"]) for one in world.status("p")["worstNodes"]}
    assert worst == {("pending", "FenceMissing")}


def test_a_fence_that_is_put_back_lets_everything_go_on() -> None:
    world = Unfenced()
    world.take_fence()
    world.edit_policy("p", settings={"offload": OFFLOAD | {"channels": 2}})
    world.step(10)

    world.read_fence("")
    world.answer()

    assert {world.groups(name)["offload"]["settings"]["channels"] for name in world.states} == {2}
    assert world.condition("p", "Ready")["status"] == "True"


def test_a_fence_that_goes_and_comes_writes_no_node() -> None:
    """Promise 6."""
    world = Unfenced()
    before = json.dumps(world.states)

    world.take_fence()
    world.read_fence("")

    assert json.dumps(world.states) == before


def test_the_fleet_switch_is_said_before_the_fence_where_both_hold() -> None:
    world = Unfenced(2)
    world.take_fence()
    world.edit_policy("p", settings={"offload": OFFLOAD | {"channels": 2}})

    world.turn(FleetSwitch.HOLD)
    world.step(10)

    assert world.condition("p", "Stalled")["reason"] == "FleetHold"
    assert world.condition("p", "Ready")["reason"] == "FenceMissing"


def test_a_fleet_that_requires_no_fence_waits_for_none() -> None:
    world = World(FleetSettings(reserve_interval_seconds=0.0, fence_required=False))
    world.fleet.control_changed(world.control, world.now)
    world.fleet.policies_listed([], world.now)
    world.fleet.nodes_listed([], world.now)
    world.fleet.states_listed([], world.now)

    assert world.fleet.synced


# Readiness of Nodes

READINESS = {"guardrails": [{"metric": "nodeNotReady", "max": "0"}]}


def test_readiness_is_read_of_reserved_and_unproven_nodes_only() -> None:
    world = Stopped(4)
    world.edit_policy(
        "p",
        settings={"offload": OFFLOAD | {"channels": 2}},
        rollout={"canary": {"nodes": 1, "soakSeconds": 60}, "maxUnproven": 1} | READINESS,
    )

    decided = world.decide()
    world.carry_out(decided.writes)
    asked = decided.readiness

    assert len(asked) == 1
    assert list(asked) == world.status("p")["rollout"]["reserved"]


def watched(world: Stopped) -> str:
    """Edit the policy so that readiness counts; return the canary."""
    world.edit_policy(
        "p",
        settings={"offload": OFFLOAD | {"channels": 2}},
        rollout={"canary": {"nodes": 1, "soakSeconds": 60}, "maxUnproven": 1, "onFailure": "Halt"} | READINESS,
    )
    world.step()
    (name,) = world.status("p")["rollout"]["reserved"]
    return str(name)


def test_a_reserved_node_is_pushed_once_it_is_known_to_be_ready() -> None:
    world = Stopped(4)
    canary = watched(world)
    before = world.groups(canary)["offload"]["settings"]["channels"]

    world.fleet.node_ready(canary, True, world.now)
    world.step()

    assert (before, world.groups(canary)["offload"]["settings"]["channels"]) == (4, 2)


def test_a_node_that_is_not_ready_before_the_push_is_passed_over() -> None:
    world = Stopped(4)
    canary = watched(world)

    world.fleet.node_ready(canary, False, world.now)
    world.step(6)

    assert canary not in world.status("p")["rollout"]["reserved"]
    assert world.groups(canary)["offload"]["settings"]["channels"] == 4


def test_a_node_that_is_not_ready_after_the_push_fails_the_canary() -> None:
    world = Stopped(4)
    canary = watched(world)
    world.fleet.node_ready(canary, True, world.now)
    world.step(6)

    world.fleet.node_ready(canary, False, world.now)
    world.step(6)
    world.step(6)

    assert world.status("p")["rollout"]["phase"] == "Halted"
    assert "nodeNotReady" in world.status("p")["rollout"]["message"]


def test_unknown_readiness_neither_trips_nor_proves() -> None:
    world = Stopped(4)
    canary = watched(world)
    world.fleet.node_ready(canary, True, world.now)
    world.step(6)

    world.fleet.node_ready(canary, None, world.now)
    world.report(canary)
    world.step(6)

    assert world.status("p")["rollout"]["phase"] == "Soaking"
    assert world.status("p")["rollout"]["cursor"] == 1


# Plans


def plan_of(world: World, name: str) -> dict[str, Any]:
    found: dict[str, Any] = world.status(name)["plan"]
    return found


def planned(world: World, name: str, state: str, would_change: int) -> None:
    spec = world.states[name]["spec"]
    plans = [
        {"policy": one["source"]["policy"], "uid": one["source"]["uid"], "generation": one["source"]["generation"]}
        | {"wouldChange": would_change, "state": state, "reason": "AsExpected"}
        for one in spec.get("plans", [])
    ]
    world.report(name, plans=plans)


def test_a_plan_counts_its_nodes_by_what_it_would_do() -> None:
    world = Stopped(4)
    world.add_policy(policy("try", mode="Plan", settings={"offload": OFFLOAD | {"channels": 8}}, priority=900))
    world.step()

    for name, state, changes in [
        ("n0", "Ready", 2),
        ("n1", "Ready", 0),
        ("n2", "Refused", 0),
        ("n3", "Unsupported", 0),
    ]:
        planned(world, name, state, changes)
    world.step(10)

    assert plan_of(world, "try") == {"wouldChange": 1, "equal": 1, "refused": 1, "unsupported": 1, "blocked": 0}


def test_a_plan_of_lower_priority_is_blocked_by_name() -> None:
    world = Stopped(4)

    world.add_policy(policy("try", mode="Plan", priority=1))
    world.step(10)

    assert plan_of(world, "try")["blocked"] == 4
    assert world.status("try")["worstNodes"][0]["message"] == "offload: p"
    assert all("plans" not in world.states[name]["spec"] for name in world.states)


def test_a_plan_beside_the_live_policy_shows_what_an_edit_would_change() -> None:
    world = Stopped(4)

    world.add_policy(policy("try", mode="Plan", meta={"creationTimestamp": "2026-02-01T00:00:00Z"}))
    world.step(10)

    assert all(len(world.states[name]["spec"]["plans"]) == 1 for name in world.states)


def test_a_plan_is_asked_for_the_groups_that_it_would_win() -> None:
    world = Stopped(1)

    world.add_policy(policy("try", mode="Plan", priority=1, settings={"offload": OFFLOAD} | DEMOTION))
    world.step(10)

    (plan,) = world.states["n0"]["spec"]["plans"]
    assert plan["settings"] == DEMOTION


def test_an_engine_that_copies_nothing_crosses_the_guardrail_on_the_ineffective_share() -> None:
    world = Stopped(4)
    world.edit_policy(
        "p",
        settings={"offload": OFFLOAD | {"channels": 2}},
        rollout={
            "canary": {"nodes": 1, "soakSeconds": 60},
            "onFailure": "Halt",
            "guardrails": [{"metric": "ineffectiveShare", "max": "0.5"}],
        },
    )
    world.step()
    (canary,) = [name for name in world.states if world.groups(name)["offload"]["settings"]["channels"] == 2]

    world.report(canary, {"offload": ("Ready", "OffloadIneffective")})
    world.step(6)
    world.step(6)

    assert world.status("p")["rollout"]["phase"] == "Halted"
    assert "ineffectiveShare" in world.status("p")["rollout"]["message"]


def test_a_node_that_was_passed_over_is_tried_again_when_it_may_be_ready() -> None:
    world = Stopped(1)
    canary = watched(world)
    world.fleet.node_ready(canary, False, world.now)
    world.step(6)
    assert "reserved" not in world.status("p")["rollout"]

    world.step(60)
    world.fleet.node_ready(canary, True, world.now)
    world.step(6)

    assert world.groups(canary)["offload"]["settings"]["channels"] == 2


def test_an_old_answer_about_readiness_admits_nobody() -> None:
    """Promise 8: what was true of the last rollout is not of this one."""
    world = Stopped(1)
    canary = watched(world)
    world.fleet.node_ready(canary, True, world.now)
    world.step(6)
    world.report(canary)
    world.step(6)
    assert world.status("p")["rollout"]["phase"] == "Complete"

    world.step(120)
    world.edit_policy("p", settings={"offload": OFFLOAD | {"channels": 3}})
    world.step(6)

    assert world.groups(canary)["offload"]["settings"]["channels"] == 2
