# SPDX-License-Identifier: Apache-2.0
"""``plan``: what a policy file would change on every node, and what is wrong with a broken one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from numamigration_api.machinery.profiles import profile_name
from numamigration_api.vocabulary import FleetSwitch
from numamigration_cli.policyfile import BadFileError, path_of, read_policies
from numamigration_cli.views.plan import Objects, Plan, lines, plan, planned_policy, stops
from numamigration_operator.core.fleet_switch import Control
from numamigration_operator.core.objects import PolicyObject
from numamigration_operator.core.tuned import ClassSettings
from tests.unit.cli_samples import EPYC, FULL, asked, node, planned_state, policy_document, state_document, wish

EXAMPLES = Path(__file__).parents[2] / "examples"
V6 = {"fields": ["offload.engine", "offload.channels", "demotion.enabled"]}
DMA_2 = {"offload": {"engine": "DMA", "channels": 2}}


def planned(there: list[PolicyObject], states: list[dict[str, Any]], *, name: str = "offload", **spec: Any) -> Plan:
    """Return the plan of a policy on the nodes that these states are of, and one more without a state."""
    nodes = [node(state["metadata"]["name"], pool="db") for state in states]
    stored = next((one for one in there if one.metadata.name == name), None)
    wanted = planned_policy(name, policy_document(name, **spec)["spec"], stored, "2026-11-26T12:00:00Z")
    return plan(wanted, Objects(there, nodes, [planned_state(state) for state in states]))


def changed(found: Plan) -> list[str]:
    return [line for one in found.nodes for change in one.changes for line in change.fields]


def test_an_edit_shows_what_each_field_is_and_would_be() -> None:
    found = planned([asked()], [state_document("db-1")], settings=DMA_2)

    assert (found.matched, found.would_change, found.is_new) == (1, 1, False)
    assert changed(found) == ["offload.channels: 4 -> 2"]


TUNED: dict[str, Any] = {"tuning": {"mode": "Auto"}, "settings": {}}
EIGHT = {"name": profile_name("V6", EPYC), "engine": "DMA", "channels": 8}
OF_OTHERS = {"name": profile_name("V5", EPYC), "engine": "DMA", "channels": 2}


def tuned_plan(*profiles: dict[str, Any], state: dict[str, Any], there: list[PolicyObject] | None = None) -> Plan:
    """Return the plan of a tuned policy on one node, with these classes measured."""
    wanted = planned_policy("offload", policy_document(**TUNED)["spec"], next(iter(there or ()), None), "")
    measured = tuple(msgspec.convert(one, ClassSettings) for one in profiles)
    return plan(wanted, Objects(there or [], [node("db-1")], [planned_state(state)], measured))


def test_a_tuned_policy_sets_what_was_measured_of_the_nodes_own_class() -> None:
    knobs = [{"field": "offload.channels", "observed": "1"}, {"field": "offload.engine", "observed": "Off"}]
    found = tuned_plan(OF_OTHERS, EIGHT, state=state_document("db-1", {}, knobs=knobs, capabilities=V6))

    assert changed(found) == ["offload.engine: Off -> DMA", "offload.channels: 1 -> 8"]
    assert [change.lacking for one in found.nodes for change in one.changes] == [()]


def test_a_class_that_was_not_measured_yet_is_said_to_stay_as_it_is_until_then() -> None:
    found = tuned_plan(OF_OTHERS, state=state_document("db-1", {}, capabilities=V6))

    assert "    offload: as it is until its hardware class is measured" in lines(found, every_name=False)
    assert found.would_change == 1


def test_what_is_measured_of_other_classes_changes_nothing_here() -> None:
    state = state_document("db-1", {"offload": wish(profiles=[EIGHT])}, capabilities=V6)
    found = tuned_plan(EIGHT, OF_OTHERS, state=state, there=[asked(**TUNED)])

    assert [one.outcome for one in found.nodes] == ["same"]


def test_a_class_that_is_no_longer_measured_has_nothing_set() -> None:
    state = state_document("db-1", {"offload": wish(profiles=[EIGHT])}, capabilities=V6)
    found = tuned_plan(state=state, there=[asked(**TUNED)])

    assert changed(found) == ["offload.engine: DMA -> no longer set", "offload.channels: 8 -> no longer set"]
    assert found.would_change == 1


def test_a_file_that_says_what_is_stored_changes_nothing() -> None:
    found = planned([asked()], [state_document("db-1")])

    assert found.would_change == 0
    assert [one.outcome for one in found.nodes] == ["same"]


def test_a_new_policy_shows_what_the_kernel_says_now() -> None:
    knobs = [{"field": "offload.channels", "observed": "1"}]
    found = planned([], [state_document("db-1", {}, knobs=knobs, capabilities=V6)], settings=DMA_2)

    assert changed(found) == ["offload.channels: 1 -> 2", "offload.engine: the kernel's -> DMA"]


def test_what_the_kernel_has_already_is_no_change() -> None:
    knobs = [{"field": "demotion.enabled", "observed": "true"}]
    found = planned([], [state_document("db-1", {}, knobs=knobs)], settings={"demotion": {"enabled": True}})

    assert changed(found) == []
    assert [one.outcome for one in found.nodes] == ["same"]


def test_a_field_that_the_kernel_lacks_is_named_and_is_no_change() -> None:
    found = planned([], [state_document("db-1", {}, capabilities=V6)], settings={"batch": {"minSize": "32Ki"}})

    assert found.would_change == 0
    assert found.nodes[0].outcome == "unsupported"
    assert found.nodes[0].changes[0].lacking == ("batch.minSize",)


def test_a_node_that_has_some_of_the_groups_is_not_unsupported() -> None:
    there = {"offload": wish(), "demotion": wish(enabled=True)}
    settings = {"offload": {"engine": "DMA", "channels": 4}, "batch": {"minSize": "32Ki"}}
    found = planned(
        [asked()], [state_document("db-1", there, capabilities=V6)], settings=settings | {"demotion": {"enabled": True}}
    )

    assert [(one.outcome, [change.action for change in one.changes]) for one in found.nodes] == [
        ("same", ["unsupported"])
    ]


def test_a_group_that_another_policy_wins_is_overridden() -> None:
    strong = asked("database", priority=900)
    found = planned([strong], [state_document("db-1", {"offload": wish("database")})], settings=DMA_2)

    assert [(one.outcome, one.others) for one in found.nodes] == [("overridden", ("database",))]


def test_more_priority_takes_a_group_over() -> None:
    found = planned(
        [asked("database", priority=300)],
        [state_document("db-1", {"offload": wish("database")})],
        priority=900,
    )

    assert changed(found) == ["offload: taken over from database"]


def test_nodes_that_leave_the_selector_get_the_values_of_before_back() -> None:
    knobs = [{"field": "offload.channels", "observed": "4", "baseline": "1"}]
    found = planned([asked()], [state_document("db-1", knobs=knobs)], nodeSelector={"matchLabels": {"pool": "other"}})

    assert (found.matched, found.would_change) == (0, 1)
    assert found.nodes[0].changes[0].action == "restore"
    assert changed(found) == ["offload.channels: 4 -> 1"]


def test_with_keep_they_are_let_go() -> None:
    kept = {"offload": wish() | {"release": "Keep"}}
    found = planned(
        [asked(onDelete="Keep")],
        [state_document("db-1", kept)],
        nodeSelector={"matchLabels": {"pool": "other"}},
        onDelete="Keep",
    )

    assert [change.action for one in found.nodes for change in one.changes] == ["let go"]


def test_pausing_holds_what_is_there() -> None:
    found = planned([asked()], [state_document("db-1")], mode="Paused", settings=DMA_2)

    assert [change.action for one in found.nodes for change in one.changes] == ["hold"]


def test_mode_plan_writes_nothing_anywhere() -> None:
    found = planned([], [state_document("db-1", {})], mode="Plan")

    assert changed(found) == []


def test_what_another_policy_has_under_way_is_no_part_of_the_plan() -> None:
    other = asked("tiering", settings={"demotion": {"enabled": True}})
    found = planned([asked(), other], [state_document("db-1")])

    assert changed(found) == []


def test_a_node_without_an_agent_is_told_apart() -> None:
    found = planned([], [{"metadata": {"name": "new"}}])

    assert [one.outcome for one in found.nodes] == ["noAgent"]
    assert found.would_change == 0


def test_nodes_that_are_alike_are_told_together_in_80_columns() -> None:
    states = [state_document(f"db-{number}", capabilities=V6) for number in range(1, 6)]
    found = planned([asked()], [*states, FULL | {"metadata": {"name": "x"}}], settings=DMA_2)

    assert lines(found, every_name=False) == [
        "offload (stored): would change 6 of 6 matched nodes",
        "  rollout: 1 node of each kind first (V6), watched for 300 s; at most 10% unproven at a time",
        "",
        "  6 nodes (V6): would change: db-1, db-2, db-3 and 3 more",
        "    offload.channels: 4 -> 2",
    ]
    assert "db-1, db-2, db-3, db-4, db-5, x" in lines(found, every_name=True)[3]


def test_what_stands_above_all_policies_is_said() -> None:
    assert stops(Control(FleetSwitch.HOLD, "", (("hold.0123456789abcdef", "?"),))) == [
        "The fleet switch is hold: nothing new is pushed.",
        "1 class held: offload is turned on nowhere in there.",
    ]
    assert stops(Control()) == stops(None) == []


# Broken files


def problems(text: str) -> list[str]:
    with pytest.raises(BadFileError) as caught:
        read_policies(text)
    return caught.value.told("p.yaml").splitlines()


GOOD = """\
apiVersion: numamigration.dev/v1alpha1
kind: MigrationPolicy
metadata: {name: p}
spec:
  nodeSelector: {}
  settings:
    offload:
      engine: DMA
"""


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_is_a_policy(path: Path) -> None:
    found, others = read_policies(path.read_text())

    assert len(found) == 1
    assert others == []


def test_defaults_are_those_of_the_api_server() -> None:
    (found,), _ = read_policies(GOOD)

    assert found.name == "p"
    assert found.spec["rollout"]["maxUnproven"] == "10%"
    assert found.spec["onDelete"] == "Restore"


def test_other_kinds_are_left_out_and_named() -> None:
    found, others = read_policies("kind: Namespace\n---\n" + GOOD + "---\n")

    assert len(found) == 1
    assert others == ["Namespace", "NoneType"]


OFFLOAD = "spec.settings.offload"


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        pytest.param("engine: DMA", "engine: DSA", f"p.yaml:8:7: {OFFLOAD}.engine: ", id="a wrong word"),
        pytest.param("engine: DMA", "engine: Off", "quote it: bare, YAML reads On, Off", id="a bare Off"),
        pytest.param("DMA", "DMA\n      chanels: 2", f"p.yaml:9:7: {OFFLOAD}.chanels: no such field", id="a typo"),
        pytest.param(
            "offload:\n      engine: DMA", "demotion: {}", "spec.settings.demotion: enabled is missing", id="missing"
        ),
        pytest.param("DMA", "DMA\n      channels: 99", f"p.yaml:9:7: {OFFLOAD}.channels", id="out of bounds"),
        pytest.param(
            "nodeSelector", "node_selector", "p.yaml:5:3: spec.node_selector: no such field", id="a name of Python"
        ),
        pytest.param("DMA", "DMA\n      engine: Off", f"p.yaml:9:7: {OFFLOAD}.engine: stands here twice", id="twice"),
        pytest.param("v1alpha1", "v1", "p.yaml:1:1: apiVersion: must be numamigration.dev/v1alpha1", id="version"),
        pytest.param("{name: p}", "{name: 5}", "p.yaml:3:12: metadata.name: must be a name", id="name"),
        pytest.param("{name: p}", "{name: p", "p.yaml:4:5: no YAML: expected ',' or '}'", id="no YAML"),
        pytest.param("spec:", "sepc:", "p.yaml:4:1: sepc: no such field", id="top"),
        pytest.param("nodeSelector: {}", "nodeSelector: {}\n\tx: 1", "p.yaml:6:1: no YAML", id="a tab"),
    ],
)
def test_a_broken_file_says_line_and_column(before: str, after: str, told: str) -> None:
    found = problems(GOOD.replace(before, after, 1))

    assert any(told in line for line in found), found


def test_every_problem_of_a_file_is_told_in_its_order() -> None:
    found = problems(GOOD.replace("engine: DMA", "engine: DSA").replace("{}", "[]"))

    assert [line.split(":")[1] for line in found] == ["5", "8"]


def test_the_place_of_what_the_api_server_finds_is_found() -> None:
    (document,), _ = read_policies(GOOD)

    assert document.problem(path_of("spec.settings.offload"), "x")[:2] == (7, 5)
    assert document.problem(path_of("spec.rollout.guardrails[0].max"), "x")[:2] == (4, 1)
    assert path_of("spec.rollout.guardrails[0].max") == ["spec", "rollout", "guardrails", 0, "max"]


def test_an_alias_that_is_none_and_a_character_that_yaml_forbids_are_problems_too() -> None:
    assert problems("a: *b\n")[0].startswith("p.yaml:1:4: no YAML: found undefined alias")
    assert problems("a: \x07\n")[0].startswith("p.yaml:1:1: no YAML")
