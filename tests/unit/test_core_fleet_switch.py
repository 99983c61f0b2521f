# SPDX-License-Identifier: Apache-2.0
import json
from typing import Any

import msgspec
import pytest

from numamigration_api.vocabulary import RESTORE_FINALIZER, FleetSwitch, Release, SettingsGroup
from numamigration_operator.core.decisions import WriteKind
from numamigration_operator.core.fleet_switch import Control, read_control, under_switch, withheld
from numamigration_operator.core.objects import ConfigMapObject
from numamigration_operator.core.render import render
from numamigration_operator.core.resolve import policy_facts, resolve
from numamigration_operator.core.wishes import Spec, spec_json
from tests.unit.builders import OFFLOAD, TIERING, World, admitted, node, policy

ARMED = {"finalizers": ["numamigration.dev/restore"]}
BOTH = {"offload": OFFLOAD, "balancing": TIERING}
ALL = frozenset(SettingsGroup)
NOT_RUN = [FleetSwitch.HOLD, FleetSwitch.OFF, FleetSwitch.RESTORE]


def config_map(data: dict[str, str] | None = None, **more: Any) -> ConfigMapObject:
    return msgspec.convert({"metadata": {"name": "numamigration-control"}, "data": data or {}} | more, ConfigMapObject)


# What the ConfigMap says


@pytest.mark.parametrize(
    ("found", "switch"),
    [
        pytest.param(None, "run", id="no ConfigMap"),
        pytest.param(config_map(), "run", id="nothing in it"),
        pytest.param(config_map({"fleet": ""}), "run", id="empty word"),
        pytest.param(config_map({"fleet": "run"}), "run", id="run"),
        pytest.param(config_map({"fleet": "hold"}), "hold", id="hold"),
        pytest.param(config_map({"fleet": "off"}), "off", id="off"),
        pytest.param(config_map({"fleet": "restore"}), "restore", id="restore"),
        pytest.param(config_map({"fleet": " Off\n"}), "off", id="as a file or a hurried person has it"),
    ],
)
def test_a_word_of_the_switch_is_taken(found: ConfigMapObject | None, switch: str) -> None:
    assert read_control(found) == Control(FleetSwitch(switch))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        pytest.param(config_map({"fleet": "of"}), "fleet: 'of' is none of run, hold, off, restore", id="misspelt word"),
        pytest.param(config_map({"fleet": "run,off"}), "fleet: 'run,off' is none of", id="two words"),
        pytest.param(config_map({"flet": "off"}), "'flet': not a key of it", id="misspelt key"),
        pytest.param(config_map({"fleet": "run", "x": ""}), "'x': not a key of it", id="a key nobody knows"),
        pytest.param(config_map({"hold.0123456789abcdef": "a b c"}), "its value cannot be", id="a held class"),
        pytest.param(config_map(binaryData={"fleet": "b2Zm"}), "fleet: is in binaryData", id="binary data"),
        pytest.param(config_map({"fleet": "x" * 5000}), "xxx…' is none of", id="a long word"),
    ],
)
def test_garbage_in_the_control_config_map_holds_the_fleet_and_is_said(found: ConfigMapObject, said: str) -> None:
    """Promise 17: whoever reached for the switch and mistyped must not see the fleet go on."""
    control = read_control(found)

    assert control.switch is FleetSwitch.HOLD
    assert said in control.problem
    assert len(control.problem) < 200


# What a node shall have


def wished(*settings: dict[str, Any], now: Spec = Spec(), restored: Any = (), **spec: Any) -> Spec:  # noqa: B008
    policies = [policy(f"p{at}", settings=one, meta=ARMED, **spec) for at, one in enumerate(settings)]
    return render(resolve(policy_facts(one) for one in policies), now, restored, admitted)


def shown(spec: Spec) -> dict[str, Any]:
    groups = json.loads(json.dumps(spec_json(spec))).get("groups", {})
    return {group: (wish["mode"], wish["settings"]) for group, wish in groups.items()}


SETTLED = wished(BOTH, onDelete="Restore")


def test_run_changes_nothing_of_what_policies_want() -> None:
    assert under_switch(FleetSwitch.RUN, Spec(), SETTLED, ()) is SETTLED


@pytest.mark.parametrize("switch", NOT_RUN)
def test_no_switch_but_run_pushes_to_a_node_that_has_nothing(switch: FleetSwitch) -> None:
    """Promise 17: nothing is turned on, and a node that is not ours is not touched."""
    assert under_switch(switch, Spec(), SETTLED, ()) == Spec()


@pytest.mark.parametrize("switch", [FleetSwitch.HOLD, FleetSwitch.OFF])
def test_an_edit_that_turns_something_on_waits(switch: FleetSwitch) -> None:
    edited = wished({**BOTH, "balancing": {"mode": "Normal"}}, now=SETTLED, onDelete="Restore")

    assert shown(under_switch(switch, SETTLED, edited, ()))["balancing"] == ("Apply", TIERING)


def test_hold_leaves_what_is_set_as_it_is() -> None:
    assert under_switch(FleetSwitch.HOLD, SETTLED, SETTLED, ()) == SETTLED


@pytest.mark.parametrize("switch", [FleetSwitch.HOLD, FleetSwitch.OFF])
def test_an_edit_of_on_delete_alone_reaches_every_group(switch: FleetSwitch) -> None:
    """Promise 7: under a switch, too, a policy that is deleted leaves all of its groups by what it said last."""
    held = under_switch(switch, SETTLED, SETTLED, ())
    keeping = under_switch(switch, held, wished(BOTH, now=held, onDelete="Keep"), ())

    assert shown(keeping) == shown(held)
    assert {wish.release for _, wish in keeping.groups} == {Release.KEEP}
    assert under_switch(switch, keeping, wished(now=keeping), ()) == Spec()


def test_an_edit_of_on_delete_does_not_end_a_restore_under_hold() -> None:
    restoring = under_switch(FleetSwitch.RESTORE, SETTLED, SETTLED, ())

    assert under_switch(FleetSwitch.HOLD, restoring, wished(BOTH, now=restoring, onDelete="Keep"), ()) == restoring


def test_hold_lets_offload_be_turned_off() -> None:
    """Promise 17: the safe direction is never held."""
    off = wished({**BOTH, "offload": {"engine": "Off"}}, now=SETTLED, onDelete="Restore")

    assert shown(under_switch(FleetSwitch.HOLD, SETTLED, off, ()))["offload"] == ("Apply", {"engine": "Off"})


@pytest.mark.parametrize("switch", [FleetSwitch.HOLD, FleetSwitch.OFF])
def test_a_deleted_policy_is_restored_under_any_switch(switch: FleetSwitch) -> None:
    """Promise 13: deletion ends, whatever the switch says."""
    restoring = under_switch(switch, SETTLED, wished(now=SETTLED), ())

    assert {mode for mode, _ in shown(restoring).values()} == {"Restore"}
    assert under_switch(switch, restoring, wished(now=restoring, restored=ALL), ALL) == Spec()


def test_off_turns_offload_off_and_leaves_the_rest() -> None:
    """Promise 17: there is a fast way off."""
    assert shown(under_switch(FleetSwitch.OFF, SETTLED, SETTLED, ())) == {
        "offload": ("Apply", {"engine": "Off"}),
        "balancing": ("Apply", TIERING),
    }


def test_off_reaches_nodes_of_a_paused_policy() -> None:
    """Promise 17: the switch beats every policy."""
    paused = wished(BOTH, now=SETTLED, mode="Paused", onDelete="Restore")

    assert shown(under_switch(FleetSwitch.OFF, SETTLED, paused, ()))["offload"] == ("Apply", {"engine": "Off"})


@pytest.mark.parametrize("on_delete", ["Restore", "Keep"])
def test_restore_puts_every_group_back_whatever_the_policy_says_then_drops_it(on_delete: str) -> None:
    """Promise 17: the switch beats every policy."""
    before = wished(BOTH, onDelete=on_delete)

    restoring = under_switch(FleetSwitch.RESTORE, before, before, ())
    assert {group: mode for group, (mode, _) in shown(restoring).items()} == {
        "offload": "Restore",
        "balancing": "Restore",
    }
    assert under_switch(FleetSwitch.RESTORE, restoring, wished(BOTH, now=restoring), ALL) == Spec()


@pytest.mark.parametrize("switch", NOT_RUN)
def test_what_a_switch_made_of_a_spec_stays_so_until_something_happens(switch: FleetSwitch) -> None:
    once = under_switch(switch, SETTLED, wished(BOTH, now=SETTLED, onDelete="Restore"), ())

    assert under_switch(switch, once, wished(BOTH, now=once, onDelete="Restore"), ()) == once


def test_withheld_are_the_groups_that_are_not_as_wished() -> None:
    assert withheld(SETTLED, under_switch(FleetSwitch.OFF, SETTLED, SETTLED, ())) == {SettingsGroup.OFFLOAD}
    assert withheld(SETTLED, SETTLED) == frozenset()


# What the fleet does and says


def at_rest(**spec: Any) -> World:
    """Three nodes with a policy for all groups in force."""
    world = World()
    for name in ("n0", "n1", "n2"):
        world.nodes[name] = node(name)
    world.sync()
    world.add_policy(policy(settings=BOTH, onDelete="Restore", **spec))
    world.settle()
    world.written.clear()
    return world


def specs_written(world: World) -> list[str]:
    return [write.key.name for write in world.written if write.key.kind is WriteKind.STATE_SPEC]


def test_off_is_written_to_every_node_in_the_safe_direction() -> None:
    """Promise 17: the fleet switch reaches every live node, before anything else that waits."""
    world = at_rest()

    world.turn(FleetSwitch.OFF)
    decided = world.step()

    assert [(write.key.name, write.safe) for write in decided.writes] == [("n0", True), ("n1", True), ("n2", True)]
    assert world.groups("n0")["offload"]["settings"] == {"engine": "Off"}


@pytest.mark.parametrize(
    ("switch", "pending", "reason"),
    [
        pytest.param(FleetSwitch.OFF, 3, "FleetOff", id="off"),
        pytest.param(FleetSwitch.RESTORE, 3, "FleetRestore", id="restore"),
        pytest.param(FleetSwitch.HOLD, 0, "FleetHold", id="hold"),
    ],
)
def test_the_switch_is_shown_on_a_policy_whether_or_not_it_waits(
    switch: FleetSwitch, pending: int, reason: str
) -> None:
    """Promise 17: every policy says where the switch stands."""
    world = at_rest()

    world.turn(switch)
    world.settle()

    assert world.status("p")["summary"].startswith(f"fleet {switch}: ")
    assert world.status("p")["nodes"]["pending"] == pending
    stalled = world.condition("p", "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True" if pending else "False", reason)
    assert world.condition("p", "Ready")["status"] == ("False" if pending else "True")


def test_a_node_is_told_apart_that_has_not_confirmed_yet() -> None:
    """Promise 17: somebody waits to hear that it is off everywhere."""
    world = at_rest()
    world.turn(FleetSwitch.OFF)
    world.step()
    world.report("n0")
    world.step(6)

    reasons = {row["node"]: row["reason"] for row in world.status("p")["worstNodes"]}
    assert reasons == {"n0": "FleetOff", "n1": "Applying", "n2": "Applying"}


def test_why_garbage_holds_the_fleet_is_said_on_the_policy() -> None:
    """Promise 17: the safe side, said in status."""
    world = at_rest()

    world.turn(FleetSwitch.HOLD, "ConfigMap numamigration-control cannot be understood: fleet: 'of'")
    world.settle()

    assert "cannot be understood: fleet: 'of'" in world.condition("p", "Stalled")["message"]


@pytest.mark.parametrize("switch", NOT_RUN)
def test_back_at_run_every_node_has_what_it_had(switch: FleetSwitch) -> None:
    """Promise 17: the switch loses nothing."""
    world = at_rest()
    before = {name: world.groups(name) for name in world.states}

    world.turn(switch)
    world.settle()
    world.turn(FleetSwitch.RUN)
    world.settle()

    assert {name: world.groups(name) for name in world.states} == before
    assert world.condition("p", "Ready")["status"] == "True"
    assert world.status("p")["summary"] == "3/3 ready"


@pytest.mark.parametrize("switch", NOT_RUN)
def test_a_restart_under_a_switch_writes_nothing(switch: FleetSwitch) -> None:
    """Promise 12: nothing changed, so nothing is written."""
    world = at_rest()
    world.turn(switch)
    world.settle()
    world.written.clear()

    world.restart()
    world.settle(agents=False)

    assert world.written == []


@pytest.mark.parametrize("switch", NOT_RUN)
def test_a_new_node_and_a_new_policy_wait_for_run(switch: FleetSwitch) -> None:
    """Promise 17: nothing is turned on."""
    world = at_rest()
    world.turn(switch)
    world.settle()
    world.written.clear()

    world.add_node("n3")
    world.settle()

    assert world.groups("n3") == {}
    assert specs_written(world) == ["n3"]  # an empty one, so that its agent has something to report into
    world.turn(FleetSwitch.RUN)
    world.settle()
    assert world.groups("n3")["offload"]["settings"] == OFFLOAD


@pytest.mark.parametrize("switch", list(FleetSwitch))
def test_a_policy_can_be_deleted_under_any_switch(switch: FleetSwitch) -> None:
    """Promise 13: deletion ends, and the values of before are back."""
    world = at_rest()
    world.turn(switch)
    world.settle()

    world.delete_policy("p")
    world.settle()

    assert world.policies == {}
    assert world.groups("n0") == {}


@pytest.mark.parametrize("dead", [False, True], ids=["nodes answer", "nodes are dead"])
def test_a_finalizer_that_is_taken_out_under_restore_stays_out_until_run(dead: bool) -> None:
    """Promise 13: who uninstalls takes it out once, beside an operator that still runs."""
    world = at_rest()
    world.turn(FleetSwitch.RESTORE)
    world.settle(agents=not dead)
    world.policies["p"]["metadata"]["finalizers"] = []
    world.show_policy("p")

    world.edit_policy("p", priority=7)
    world.settle(agents=not dead)
    assert world.policies["p"]["metadata"]["finalizers"] == []

    world.turn(FleetSwitch.RUN)
    world.settle()
    assert world.policies["p"]["metadata"]["finalizers"] == [RESTORE_FINALIZER]
    assert world.groups("n0")["offload"]["mode"] == "Apply"


def test_a_new_policy_gets_no_finalizer_under_restore_and_its_nodes_say_why() -> None:
    """Promise 11: a node that waits for the switch does not say that it waits for a finalizer."""
    world = at_rest()
    world.turn(FleetSwitch.RESTORE)
    world.settle()

    world.add_policy(policy("late", settings=BOTH, onDelete="Restore", priority=900))
    world.settle()

    assert world.policies["late"]["metadata"]["finalizers"] == []
    assert {worst["reason"] for worst in world.status("late")["worstNodes"]} == {"FleetRestore"}
