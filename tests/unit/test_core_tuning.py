# SPDX-License-Identifier: Apache-2.0
"""Which nodes are measured, and what hardware classes make of it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from numamigration_api.machinery.profiles import profile_name, settings_of_class
from numamigration_api.vocabulary import PROFILE_NODES_MAX, FleetSwitch, PolicyMode
from numamigration_operator.core.decisions import Patch, Write, WriteKind
from numamigration_operator.core.fleet import Fleet
from numamigration_operator.core.objects import ProfileObject
from numamigration_operator.core.remeasure import DISPUTE_SECONDS, REMEASURE_SECONDS, RETRY_SECONDS
from numamigration_operator.core.tuning import ANSWER_SECONDS, LOOK_SECONDS
from tests.unit.builders import DIALECT, HARDWARE_CLASS, World, policy

NAME = profile_name(DIALECT, HARDWARE_CLASS)
OTHER = profile_name(DIALECT, "class-b")
AUTO: dict[str, Any] = {"tuning": {"mode": "Auto"}, "settings": {}}
RECOMMEND: dict[str, Any] = {"tuning": {"mode": "Recommend"}, "settings": {}}
EIGHT = {"engine": "DMA", "channels": 8, "gain": "2.5"}
FOUR = {"engine": "DMA", "channels": 4, "gain": "1.5"}
OFF = {"engine": "Off"}


class Tuned(World):
    """A world with MigrationProfiles."""

    def __init__(self, nodes: int = 4, **spec: Any) -> None:
        super().__init__()
        self.profiles: dict[str, dict[str, Any]] = {}
        self.is_blind = False  # for what becomes of profiles
        self.asked_at_once = 0
        self.add_policy(policy(**(AUTO | spec)))
        for number in range(nodes):
            self.add_node(f"n{number}")
        self.sync()
        self.settle()

    def sync(self) -> None:
        super().sync()
        for name in self.profiles:
            self.show_profile(name)
        self.fleet.profiles_listed(self.profiles, self.now)

    def show_profile(self, name: str) -> None:
        self.profiles[name]["metadata"]["resourceVersion"] = self._next()
        self.fleet.profile_changed(msgspec.convert(self.profiles[name], ProfileObject), self.now)

    def carry_out(self, writes: Iterable[Write]) -> None:
        others = []
        for write in writes:
            name, document = write.key.name, json.loads(write.body)
            match write.key.kind:
                case WriteKind.PROFILE:
                    document["metadata"]["uid"] = f"profile-{self._next()}"
                    self.profiles[name] = document
                case WriteKind.PROFILE_STATUS:
                    self.profiles[name]["status"] = document[-1]["value"]
                case WriteKind.CLASS_HOLD:  # on its way for ever, which holds the class too
                    pass
                case WriteKind.PROBE:
                    self.ask(name, document["spec"].get("probe"))
                case _:
                    others.append(write)
                    continue
            self.written.append(write)
            if name in self.profiles and not self.is_blind:
                self.show_profile(name)
        super().carry_out(others)

    def ask(self, name: str, probe: dict[str, Any] | None) -> None:
        """The agent's half follows at once: without a question there is no answer."""
        spec = {key: value for key, value in self.states[name]["spec"].items() if key != "probe"}
        self.states[name]["spec"] = spec | ({} if probe is None else {"probe": probe})
        self.states[name]["metadata"]["generation"] += 1
        self.asked_at_once = max(self.asked_at_once, len(self.waiting))
        self.show_state(name)

    def _store_state(self, document: dict[str, Any]) -> None:
        """An apply leaves alone what another field manager owns."""
        probe = self.states.get(document["metadata"]["name"], {}).get("spec", {}).get("probe")
        super()._store_state({**document, "spec": document["spec"] | ({"probe": probe} if probe else {})})

    @property
    def asked(self) -> list[str]:
        """Who is to measure, or has."""
        return [name for name, state in self.states.items() if "probe" in state["spec"]]

    @property
    def waiting(self) -> list[str]:
        """Who is to measure, and has not."""
        return [name for name in self.asked if not self.is_answered(name)]

    def is_answered(self, name: str) -> bool:
        state = self.states[name]
        return bool(state["status"].get("probe", {}).get("id") == state["spec"]["probe"]["id"])

    def answer(self, choice: dict[str, Any] | None = None, *, phase: str = "Done", **said: Any) -> str:
        """Let the one node that is asked answer; return its name."""
        (name,) = self.waiting
        probe = {"id": self.states[name]["spec"]["probe"]["id"], "phase": phase, "choice": choice} | said
        self.report(name, probe={key: value for key, value in probe.items() if value is not None})
        self.look()
        return name

    def look(self, seconds: float = LOOK_SECONDS + 1) -> None:
        self.step(seconds)
        for name in self.states:
            kept = {key: self.states[name]["status"][key] for key in ("probe",) if key in self.states[name]["status"]}
            self.report(name, **kept)
        self.step(LOOK_SECONDS + 1)

    def measure(self, *choices: dict[str, Any]) -> None:
        """Let nodes answer, one after the other."""
        for choice in choices:
            self.answer(choice)
        self.settle()

    def profile(self, name: str = NAME) -> dict[str, Any]:
        found: dict[str, Any] = self.profiles[name]["status"]
        return found

    def offload(self, name: str = "n0") -> dict[str, Any]:
        """What the agent of a node makes of its group offload."""
        cell = self.cells.get(name, (DIALECT, HARDWARE_CLASS))
        return settings_of_class(self.groups(name)["offload"]["settings"], profile_name(*cell))


def test_one_node_of_a_class_is_asked_at_a_time_until_three_have_answered() -> None:
    world = Tuned(nodes=5)
    answered = []
    for _ in range(3):
        assert len(world.waiting) == 1
        answered.append(world.answer(EIGHT))
    world.look()

    assert len(set(answered)) == 3
    assert world.asked == [], "nobody is asked any more"
    assert world.profile()["phase"] == "Measured"
    assert [one["node"] for one in world.profile()["nodes"]] == sorted(answered)


def test_each_class_is_measured_by_its_own_nodes() -> None:
    world = Tuned(nodes=0)
    world.cells = {"b0": (DIALECT, "class-b")}
    world.add_node("a0")
    world.add_node("b0")
    world.settle()

    assert sorted(world.waiting) == ["a0", "b0"]
    assert world.profiles.keys() == {NAME, OTHER}
    assert world.profiles[OTHER]["spec"] == {"dialect": DIALECT, "hardwareClass": "class-b"}


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        pytest.param([EIGHT, FOUR, EIGHT], {"engine": "DMA", "channels": 4}, id="the fewest channels"),
        pytest.param([EIGHT, OFF, EIGHT], {"engine": "Off"}, id="one node would lose"),
        pytest.param([OFF, OFF, OFF], {"engine": "Off"}, id="all would lose"),
    ],
)
def test_a_class_has_the_most_careful_choice_of_its_nodes(
    choices: list[dict[str, Any]], expected: dict[str, Any]
) -> None:
    world = Tuned()
    world.measure(*choices)

    assert world.profile()["recommendation"] == expected
    assert all(world.offload(name) == expected for name in world.states)


def test_a_profile_shows_what_the_node_measured_whose_choice_it_has() -> None:
    world = Tuned(nodes=2)
    world.answer(EIGHT, results=[{"channels": 8}])
    world.answer(FOUR, results=[{"channels": 4}])

    assert world.profile()["results"] == [{"channels": 4}]


def test_before_a_class_is_measured_its_nodes_are_not_touched() -> None:
    world = Tuned()

    assert world.offload() == {}


def test_reasons_of_the_policy_go_with_what_was_measured() -> None:
    world = Tuned(settings={"offload": {"engine": "DMA", "reasons": ["damon"]}})
    world.measure(EIGHT, EIGHT, EIGHT)

    assert world.offload() == {"engine": "DMA", "channels": 8, "reasons": ["damon"]}


@pytest.mark.parametrize(
    "offload",
    [
        pytest.param({"engine": "DMA", "channels": 2}, id="channels"),
        pytest.param({"engine": "Off"}, id="off"),
        pytest.param({"engine": "CPUThreads"}, id="threads"),
        pytest.param({"profiles": [{"name": NAME, "engine": "DMA", "channels": 1}]}, id="profiles"),
    ],
)
def test_numbers_that_the_policy_gives_win_over_auto_and_the_status_says_so(offload: dict[str, Any]) -> None:
    world = Tuned(settings={"offload": offload})
    world.measure(EIGHT, EIGHT, EIGHT)

    assert world.groups("n0")["offload"]["settings"] == offload
    assert "tuning.mode Auto chooses nothing" in world.condition("p", "Ready")["message"]


def test_recommend_measures_and_changes_nothing() -> None:
    world = Tuned(**RECOMMEND)
    world.measure(EIGHT, EIGHT, EIGHT)

    assert world.profile()["recommendation"] == {"engine": "DMA", "channels": 8}
    assert all(world.groups(name) == {} for name in world.states)


def test_the_nodes_of_a_class_share_a_minute_of_measuring() -> None:
    world = Tuned(nodes=1)

    assert world.states["n0"]["spec"]["probe"]["secondsMax"] * PROFILE_NODES_MAX == 60


def test_a_node_measures_under_the_risks_that_the_policy_accepts() -> None:
    world = Tuned(nodes=1, acceptedRisks=["SharedEngine"], **RECOMMEND)

    assert world.states["n0"]["spec"]["probe"]["acceptedRisks"] == ["SharedEngine"]


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"tuning": {"mode": "Off"}, "settings": {"offload": {"engine": "DMA"}}}, id="tuning is off"),
        pytest.param({"mode": PolicyMode.PAUSED}, id="paused"),
        pytest.param({"mode": PolicyMode.PLAN}, id="plan"),
    ],
)
def test_nobody_is_asked_whose_policy_does_not_want_to_know(spec: dict[str, Any]) -> None:
    assert Tuned(**spec).asked == []


def test_nobody_is_asked_where_another_policy_has_the_group() -> None:
    world = Tuned(nodes=0, priority=1)
    world.add_policy(policy("fixed", priority=900))
    world.add_node("n0")
    world.settle()

    assert world.asked == []


def test_the_fleet_switch_takes_back_what_was_asked() -> None:
    world = Tuned()
    assert world.waiting

    world.turn(FleetSwitch.HOLD)
    world.look()

    assert world.asked == []


def test_what_a_node_is_asked_is_taken_back_whoever_has_a_hand_in_it() -> None:
    """An apply without it would leave what somebody else has written too, and be sent again with each report."""
    world = Tuned()
    (name,) = world.waiting
    world.turn(FleetSwitch.HOLD)
    world.written.clear()
    world.look()

    (write,) = (one for one in world.written if one.key.kind is WriteKind.PROBE)
    assert write.patch is Patch.MERGE
    assert json.loads(write.body) == {"metadata": {"uid": f"state-{name}"}, "spec": {"probe": None}}


def test_a_node_that_cannot_measure_is_followed_by_another_one() -> None:
    world = Tuned()
    first = world.answer(phase="Refused", reason="NoFreeMemory", message="64 MiB free")

    assert world.waiting
    assert world.waiting != [first]


def test_no_more_than_three_nodes_of_a_class_are_asked_although_none_can_measure() -> None:
    world = Tuned(nodes=6)
    asked = {world.answer(phase="Refused", reason="OneNumaNode", message="there is one") for _ in range(3)}
    world.look()

    assert len(asked) == 3
    assert world.asked == []
    assert world.profile()["message"] == "OneNumaNode: there is one"


def test_what_some_of_three_nodes_measured_is_enough() -> None:
    world = Tuned(nodes=6)
    world.answer(phase="Refused", reason="NoFreeMemory")
    world.measure(EIGHT, EIGHT)

    assert [one["engine"] for one in world.profile()["nodes"]] == ["DMA", "DMA"]


def test_a_measurement_that_was_stopped_says_nothing_of_the_class() -> None:
    world = Tuned(nodes=2)
    world.answer(OFF, phase="Stopped", reason="NotCalm")
    world.answer(EIGHT)
    world.settle()

    assert [one["engine"] for one in world.profile()["nodes"]] == ["DMA"]


def test_a_class_in_which_nobody_can_measure_says_why_and_is_tried_again_later() -> None:
    world = Tuned(nodes=2)
    for _ in range(2):
        world.answer(phase="Refused", reason="OneNumaNode", message="there is one")
    world.look()

    assert world.profile()["message"] == "OneNumaNode: there is one"
    assert world.asked == []
    assert world.offload() == {}

    world.look(RETRY_SECONDS)
    assert len(world.waiting) == 1


def test_a_node_that_does_not_answer_is_let_be() -> None:
    world = Tuned()
    (silent,) = world.waiting

    for _ in range(4):
        world.look(ANSWER_SECONDS / 3)

    assert [name for name in world.waiting if name != silent]


def test_a_class_whose_nodes_are_all_being_written_is_asked_once_they_are_not() -> None:
    world = Tuned(nodes=1, tuning={"mode": "Off"}, settings={"demotion": {"enabled": True}})
    world.edit_policy("p", tuning={"mode": "Recommend"}, settings={"demotion": {"enabled": False}})
    pushes: list[Write] = []
    for _ in range(5):
        found = world.decide().writes
        pushes += [write for write in found if write.key.kind is WriteKind.STATE_SPEC]
        world.carry_out(write for write in found if write.key.kind is not WriteKind.STATE_SPEC)
        world.now += LOOK_SECONDS
    assert pushes
    assert world.asked == []

    world.carry_out(pushes)
    world.look()

    assert world.waiting == ["n0"]


def test_a_question_is_no_edit_that_a_push_under_way_gives_way_to() -> None:
    """Promise 8: the push may still arrive, so the node keeps its name in the ledger."""
    world = Tuned(nodes=1, tuning={"mode": "Off"}, settings={"demotion": {"enabled": True}})
    world.edit_policy("p", settings={"demotion": {"enabled": False}})
    assert world.specs()
    assert world.fleet.snapshot().open_spec_writes == 1

    world.ask("n0", {"id": "late", "candidates": []})

    assert world.fleet.snapshot().open_spec_writes == 1


def test_no_second_node_is_asked_while_the_first_question_is_under_way() -> None:
    world = Tuned(nodes=3, tuning={"mode": "Off"}, settings={"demotion": {"enabled": True}})
    world.edit_policy("p", tuning={"mode": "Recommend"})
    asked: list[Write] = []
    while not asked:
        found = world.decide().writes
        asked = [write for write in found if write.key.kind is WriteKind.PROBE]
        world.carry_out(write for write in found if write not in asked)
    (first,) = (write.key.name for write in asked)
    world.edit_policy("p", settings={"demotion": {"enabled": False}})
    world.specs()  # to all of them, so none but the first could be asked

    for _ in range(3):
        world.now += LOOK_SECONDS
        asked += [write for write in world.decide().writes if write.key.kind is WriteKind.PROBE]

    assert {write.key.name for write in asked} == {first}


def test_fewer_nodes_than_three_are_enough_where_there_are_no_more() -> None:
    world = Tuned(nodes=1)
    world.measure(EIGHT)

    assert world.profile()["phase"] == "Measured"


def test_a_profile_that_is_deleted_is_measured_anew() -> None:
    world = Tuned(nodes=1)
    world.measure(EIGHT)

    del world.profiles[NAME]
    world.fleet.profile_gone(NAME, world.now)
    world.settle()

    assert world.waiting == ["n0"]
    assert world.offload() == {}


def test_a_profile_that_was_deleted_before_it_was_seen_is_made_again() -> None:
    world = Tuned(nodes=1, tuning={"mode": "Off"}, settings={"demotion": {"enabled": True}})
    world.edit_policy("p", tuning={"mode": "Recommend"})
    made = [write for write in world.decide().writes if write.key.kind is WriteKind.PROFILE]
    assert len(made) == 1

    world.fleet.profiles_listed((), world.now)
    world.settle()

    assert world.profiles.keys() == {NAME}


def test_what_was_measured_long_ago_is_in_force_until_it_is_measured_anew() -> None:
    world = Tuned(nodes=1)
    world.measure(EIGHT)
    world.look(REMEASURE_SECONDS)

    assert world.waiting == ["n0"]
    assert world.offload() == {"engine": "DMA", "channels": 8}

    world.measure(FOUR)
    assert world.offload() == {"engine": "DMA", "channels": 4}


def test_a_profile_that_was_edited_by_hand_is_not_used_and_measured_anew() -> None:
    world = Tuned(nodes=1)
    world.measure(FOUR)

    world.profiles[NAME]["status"]["recommendation"]["channels"] = 16
    world.show_profile(NAME)
    world.settle()

    assert world.offload() == {}
    assert world.waiting == ["n0"]
    assert "edited by hand" in world.profile()["message"]


def test_what_somebody_writes_into_a_profile_while_it_is_measured_is_never_used() -> None:
    """The operator signs what it writes: what it found there by another's hand, it must not sign."""
    world = Tuned(nodes=1)
    world.profiles[NAME]["status"]["recommendation"] = {"engine": "DMA", "channels": 16}
    world.show_profile(NAME)
    world.settle()

    world.answer(phase="Refused", reason="OneNumaNode", message="there is one")

    assert "recommendation" not in world.profile()
    assert world.offload() == {}


def test_a_profile_that_was_edited_is_asked_for_by_another_id() -> None:
    """An agent measures each id once."""
    world = Tuned(nodes=1)
    first = world.states["n0"]["spec"]["probe"]["id"]
    world.measure(FOUR)

    world.profiles[NAME]["status"]["recommendation"]["channels"] = 16
    world.show_profile(NAME)
    world.settle()

    assert world.states["n0"]["spec"]["probe"]["id"] != first


def test_a_profile_is_written_whole_and_only_onto_what_was_seen() -> None:
    """An apply would leave what somebody wrote by hand, and the profile would be taken for an edited one for ever."""
    world = Tuned(nodes=1)
    world.answer(EIGHT)

    (write, *_) = (one for one in reversed(world.written) if one.key.kind is WriteKind.PROFILE_STATUS)
    tests, whole = json.loads(write.body)[:-1], json.loads(write.body)[-1]
    assert write.patch is Patch.JSON
    assert [(one["op"], one["path"]) for one in tests] == [
        ("test", "/metadata/uid"),
        ("test", "/metadata/resourceVersion"),
    ]
    assert (whole["op"], whole["path"]) == ("add", "/status")


def test_a_restart_asks_nobody_anew_and_writes_nothing() -> None:
    world = Tuned()
    world.answer(EIGHT)
    before = world.asked
    world.written.clear()

    world.restart()
    world.step()

    assert world.asked == before
    assert [write for write in world.written if write.key.kind is not WriteKind.POLICY_STATUS] == []


def test_a_tuned_fleet_decides_nothing_before_the_profiles_are_known() -> None:
    world = Tuned(nodes=1)
    world.measure(EIGHT)
    world.fleet = Fleet(world.settings)
    world.fleet.lead(2)
    World.sync(world)

    assert not world.fleet.synced
    world.sync()
    assert world.fleet.synced


def test_a_fleet_without_a_tuned_policy_does_not_wait_for_profiles() -> None:
    world = World()
    world.add_policy(policy())
    world.sync()

    assert world.fleet.synced


def test_nodes_that_come_and_go_make_no_new_revision() -> None:
    world = Tuned(nodes=1)
    world.measure(EIGHT)
    revisions = len(world.revisions)

    world.add_node("n1")
    world.settle()
    world.remove_node("n0")
    world.settle()

    assert len(world.revisions) == revisions
    assert world.offload("n1") == {"engine": "DMA", "channels": 8}


SOAKS = {"rollout": {"canary": {"nodes": 1, "soakSeconds": 30}, "maxUnproven": "100%", "failureThreshold": "5%"}}


def test_what_fails_in_service_goes_back_and_the_class_goes_without_offload() -> None:
    world = disputed()

    assert world.profile()["phase"] == "Disputed"
    assert world.profile()["disputes"] == 1
    assert "p: " in world.profile()["message"]
    assert world.offload() == OFF


@pytest.mark.parametrize(
    ("guardrails", "expected"),
    [
        pytest.param(
            [],
            [
                ("foliosFailedShare", "0.01"),
                ("migrationRateDrop", "0.5"),
                ("memoryPressure", "10"),
                ("cpuPressure", "50"),
            ],
            id="none given",
        ),
        pytest.param([{"metric": "cpuPressure", "max": "5"}], [("cpuPressure", "5")], id="the policy's own"),
    ],
)
def test_what_was_measured_is_watched_in_service(
    guardrails: list[dict[str, str]], expected: list[tuple[str, str]]
) -> None:
    world = Tuned(nodes=1, rollout={**SOAKS["rollout"], "guardrails": guardrails})
    world.answer(EIGHT)
    world.step(10)

    watched = world.states["n0"]["spec"]["observe"]["guardrails"]
    assert [(one["metric"], one["max"]) for one in watched] == expected


def test_a_disputed_class_is_measured_anew_after_a_day_and_later_each_time() -> None:
    world = disputed()
    assert world.asked == []

    world.look(DISPUTE_SECONDS)
    assert len(world.waiting) == 1


def disputed() -> Tuned:
    """A class whose recommendation failed on its canary, and was taken back."""
    world = Tuned(nodes=1, **SOAKS)
    world.answer(EIGHT)
    for _ in range(4):
        world.step(10)
    world.report("n0", {"offload": ("Failed", "EngineStalled")}, soaked=False)
    for _ in range(8):
        world.step(10)
        world.report("n0")
    world.settle()
    return world


def test_what_fails_in_service_is_disputed_also_where_nobody_may_be_asked() -> None:
    """As in a class that is held since its engine corrupted pages: the policy's other classes do not wait for that."""
    world = Tuned(nodes=1, **SOAKS)
    world.answer(EIGHT)
    for _ in range(4):
        world.step(10)
    world.report("n0", {"offload": ("Failed", "CorruptionDetected")}, soaked=False, verification={"result": "Failed"})
    for _ in range(8):
        world.step(10)
        world.report("n0", verification={"result": "Failed"})
    world.settle()

    assert world.profile()["phase"] == "Disputed"


def test_what_failed_in_service_is_not_tried_again_because_it_is_measured_again() -> None:
    """Until somebody edits the policy its revision has failed, whoever asks for it."""
    world = disputed()
    world.look(DISPUTE_SECONDS)

    world.answer(EIGHT)
    world.settle()

    assert (world.profile()["phase"], world.profile()["disputes"]) == ("Disputed", 2)
    assert world.offload() == OFF
    assert world.condition("p", "Ready")["status"] == "True"


def test_what_failed_before_a_class_was_measured_is_no_dispute_of_it() -> None:
    """A canary failed at something else, which was taken back; offload of the class was never tried."""
    world = Tuned(nodes=1, **SOAKS, settings={"demotion": {"enabled": True}})
    for _ in range(2):
        world.step(10)
    world.report("n0", {"demotion": ("Failed", "KernelError")}, soaked=False)
    for _ in range(8):
        world.step(10)
        world.report("n0")
    assert world.status("p")["rollout"]["phase"] == "RolledBack"

    world.answer(EIGHT)
    for _ in range(4):
        world.step(10)

    assert world.profile()["phase"] == "Measured"


def test_a_round_goes_on_until_what_it_came_to_is_seen() -> None:
    """Whoever is asked no more before that would be asked again, and again."""
    world = Tuned(nodes=3)
    world.answer(EIGHT)
    world.answer(EIGHT)
    world.is_blind = True
    world.answer(EIGHT)
    questions = [write for write in world.written if write.key.kind is WriteKind.PROBE]
    world.look()

    assert sorted(world.asked) == ["n0", "n1", "n2"]
    assert [write for write in world.written if write.key.kind is WriteKind.PROBE] == questions
    world.is_blind = False
    world.show_profile(NAME)
    world.look()
    assert world.asked == []


@pytest.mark.parametrize("nodes", [2, 3, 4, 5])
def test_nobody_else_is_asked_while_a_node_that_left_its_class_may_still_measure(nodes: int) -> None:
    """Somebody has cleared its status: nobody knows its class until its agent reports again."""
    world = Tuned(nodes=nodes)
    (name,) = world.waiting
    world.states[name]["status"] = {}
    world.show_state(name)

    world.step(LOOK_SECONDS + 1)
    world.step(LOOK_SECONDS + 1)

    assert world.asked_at_once == 1
    assert name not in world.waiting
