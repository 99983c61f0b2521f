# SPDX-License-Identifier: Apache-2.0
import json
from datetime import timedelta
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from numamigration_api.vocabulary import RESTORE_FINALIZER, Reason
from numamigration_operator.core.decisions import Patch, Write, WriteKey, WriteKind
from numamigration_operator.core.fleet import Fleet, FleetSettings
from numamigration_operator.core.fleet_switch import Control
from numamigration_operator.core.objects import PolicyObject, Selector
from tests.unit.builders import ALL_AT_ONCE, OFFLOAD, START, TIERING, World, keys, node, policy, state

SPEC, STATUS, FINALIZER = WriteKind.STATE_SPEC, WriteKind.POLICY_STATUS, WriteKind.POLICY_FINALIZER


def world(*policies: PolicyObject, nodes: int = 2, settings: FleetSettings | None = None) -> World:
    """A world at rest: every spec written, every agent reported, every status shown."""
    made = World(settings)
    for number in range(nodes):
        made.nodes[f"n{number}"] = node(f"n{number}", number=str(number), role="db")
    made.sync()
    for one in policies:
        made.add_policy(one)
    made.settle()
    made.written.clear()
    return made


def written(made: World, kind: WriteKind) -> list[str]:
    return [write.key.name for write in made.written if write.key.kind is kind]


# Before the first look


@pytest.mark.parametrize("missing", ["fleet switch", "fence", "policies", "nodes", "states"])
def test_nothing_is_decided_before_everything_was_listed_once(missing: str) -> None:
    """Promises 6 and 9: half the policies would restore the nodes of the other half."""
    fleet = Fleet(FleetSettings())
    fleet.lead(1)
    if missing != "fleet switch":
        fleet.control_changed(Control(), 0)
    if missing != "fence":
        fleet.fence_read("", 0)
    if missing != "policies":
        fleet.policies_listed([policy()], 0)
    fleet.node_changed(node(), 0)
    if missing != "nodes":
        fleet.nodes_listed(["n"], 0)
    if missing != "states":
        fleet.states_listed([], 0)
    if missing != "revisions":
        fleet.revisions_listed([], 0)

    assert not fleet.synced
    assert fleet.decide(100, START).writes == ()


@pytest.mark.parametrize("mode", ["Apply", "Plan", "Paused"])
@pytest.mark.parametrize("on_delete", ["Keep", "Restore"])
def test_a_restart_writes_nothing(mode: str, on_delete: str) -> None:
    """Promise 12, and zero writes on operator restart: statuses are compared with what was read."""
    made = world(policy(mode=mode, onDelete=on_delete), policy("low", priority=1))
    made.report("n0", {"offload": ("Failed", "KernelError")})
    made.step(10)
    made.written.clear()
    made.restart()

    decided = [made.step(seconds).writes for seconds in (0, 1, 10, 100)]

    assert decided == [(), (), (), ()]


def test_a_restart_while_a_restore_is_under_way_goes_on_with_it() -> None:
    made = world(policy(onDelete="Restore"))
    made.delete_policy("p")
    made.step(10)
    made.restart()
    assert keys(made.step(10)) == []

    made.report("n0")

    assert keys(made.step()) == [WriteKey(SPEC, "n0")]
    assert made.groups("n0") == {}


# Node states


def test_every_selected_node_gets_an_empty_node_state() -> None:
    selector = msgspec.convert({"matchLabels": {"number": "1"}}, Selector)
    made = World(FleetSettings(agent_node_selector=selector))
    made.add_node("in", number="1")
    made.add_node("out", number="2")
    made.sync()

    made.step()

    assert list(made.states) == ["in"]
    assert made.groups("in") == {}


def test_a_write_is_decided_once_until_it_is_shown() -> None:
    made = World()
    made.add_node("n")
    made.sync()

    assert keys(made.decide()) == [WriteKey(SPEC, "n")]
    assert keys(made.decide()) == []
    made.fleet.write_failed(WriteKey(SPEC, "n"))
    assert keys(made.decide()) == [WriteKey(SPEC, "n")]


def test_a_node_state_that_was_deleted_is_written_again() -> None:
    made = world(policy(), nodes=1)
    del made.states["n0"]
    made.fleet.state_gone("n0", made.now)

    made.step()

    assert made.groups("n0")["offload"]["settings"] == OFFLOAD


def test_a_push_is_for_the_node_state_that_was_seen_and_one_to_a_new_node_creates_it() -> None:
    """Promise 8: where a node state was deleted, no spec stands that would refuse an older push that arrives late."""
    made = world(policy(), nodes=1)
    seen = made.states["n0"]["metadata"]["uid"]
    made.edit_policy("p", settings={"offload": {"engine": "Off"}})
    made.add_node("n1")

    pushes = [write for write in made.decide().writes if write.key.kind is SPEC]

    pushed = {write.key.name: json.loads(write.body)["metadata"] for write in pushes}

    assert {name: metadata.get("uid") for name, metadata in pushed.items()} == {"n0": seen, "n1": None}


def test_what_was_refused_for_a_deleted_node_state_is_not_what_makes_it_anew() -> None:
    """Or it would wait with what the server does not take."""
    made = world(policy(), nodes=1)
    made.edit_policy("p", settings={"offload": {"engine": "Off"}})
    (push,) = (write for write in made.decide().writes if write.key.kind is SPEC)
    made.fleet.state_gone("n0", made.now)
    made.fleet.write_failed(push.key)

    (anew,) = (write for write in made.decide().writes if write.key.kind is SPEC)

    assert json.loads(anew.body)["spec"]["revision"] == json.loads(push.body)["spec"]["revision"]
    assert anew.asks != push.asks


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param({"groups": {}}, id="a group removed"),
        pytest.param({"revision": "0" * 16}, id="the revision changed"),
        pytest.param({"plans": [{"source": {"policy": "x", "uid": "x"}, "settings": {}}]}, id="a plan added"),
    ],
)
def test_a_spec_edited_by_hand_is_written_again(edit: dict[str, Any]) -> None:
    made = world(policy(), nodes=1)
    before = made.states["n0"]["spec"]
    made.states["n0"]["spec"] = before | edit
    made.states["n0"]["metadata"]["generation"] += 1
    made.show_state("n0")

    made.step()

    assert made.states["n0"]["spec"] == before | {"writeSequence": made.states["n0"]["spec"]["writeSequence"]}


def test_a_group_that_somebody_took_out_by_hand_is_put_back_before_anything_else() -> None:
    """Promise 7: an agent that finds no wish for long takes it for ended, and forgets the values of before."""
    made = world(policy(), nodes=1)
    before = made.states["n0"]["spec"]
    made.states["n0"]["spec"] = before | {"groups": {}}
    made.states["n0"]["metadata"]["generation"] += 1
    made.show_state("n0")

    found = made.decide()

    assert keys(found) == [WriteKey(SPEC, "n0")]
    made.carry_out(found.writes)
    assert made.states["n0"]["spec"] == before | {"writeSequence": made.states["n0"]["spec"]["writeSequence"]}


def test_what_is_on_its_way_stays_known_when_a_node_is_tried_again() -> None:
    """Promise 7: it may be there by then, while the watch still shows what somebody has taken out by hand."""
    made = world(policy(onDelete="Restore"), nodes=1)
    made.states["n0"]["spec"] = made.states["n0"]["spec"] | {"groups": {}}
    made.states["n0"]["metadata"]["generation"] += 1
    made.show_state("n0")
    assert len(made.specs()) == 1
    made.edit_policy("p", settings={"offload": OFFLOAD, "demotion": {"enabled": True}})
    (push,) = made.specs()

    made.fleet.policies_listed([made.policy("p")], made.now)

    (again,) = made.specs()
    asked = [json.loads(one.body)["spec"]["groups"] for one in (push, again)]
    assert asked[1].keys() == {"offload", "demotion"}
    assert asked[1] == asked[0]


def test_after_a_write_that_failed_the_next_one_goes_onto_what_was_seen() -> None:
    """Promise 7: a push before it may be there, while a slow watch still shows what that one has replaced."""
    made = world(policy(), nodes=1)
    made.edit_policy("p", settings={"demotion": {"enabled": True}})
    (push,) = made.specs()
    seen = made.state("n0").metadata.resource_version

    made.fleet.write_failed(push.key)

    (again,) = made.specs()
    assert ["resourceVersion" in json.loads(write.body)["metadata"] for write in (push, again)] == [False, True]
    assert json.loads(again.body)["metadata"]["resourceVersion"] == seen
    made.report("n0")
    (last,) = made.specs()
    assert "resourceVersion" not in json.loads(last.body)["metadata"]


def test_a_write_that_is_stored_after_one_that_failed_leaves_no_doubt() -> None:
    """The next one would be refused for it, as long as the watch has not shown it, and be decided once more."""
    made = world(policy(), nodes=1)
    made.edit_policy("p", settings={"demotion": {"enabled": True}})
    (push,) = made.specs()
    made.fleet.write_failed(push.key)
    (again,) = made.specs()

    made.fleet.write_stored(again.key, made.state("n0").metadata.generation + 1)

    made.edit_policy("p", settings={"demotion": {"enabled": False}})
    (other,) = made.specs()
    assert ["resourceVersion" in json.loads(write.body)["metadata"] for write in (again, other)] == [True, False]


def test_an_event_of_an_earlier_write_does_not_repeat_the_later_one() -> None:
    made = world(policy(), nodes=1)
    shown = []
    for channels in (5, 6):
        made.edit_policy("p", settings={"offload": OFFLOAD | {"channels": channels}})
        (write,) = made.specs()
        shown.append(json.loads(write.body))

    made._store_state(shown[0])
    assert made.specs() == []
    made._store_state(shown[1])
    assert keys(made.step()) == []
    assert made.groups("n0")["offload"]["settings"]["channels"] == 6


def test_a_policy_deleted_while_its_push_is_open_is_restored_nevertheless() -> None:
    """The watch shows no wish yet, but one is on its way: it must not stay behind."""
    made = world(policy(onDelete="Restore"), nodes=1)
    made.add_node("late")
    made.carry_out(made.specs())  # an empty one: nothing is pushed before its agent has told where it belongs
    (push,) = made.specs()
    assert json.loads(push.body)["spec"]["groups"]["offload"]["mode"] == "Apply"
    made.fleet.policy_gone("uid-p", made.now)

    (write,) = [one for one in made.decide().writes if one.key.name == "late"]

    assert json.loads(write.body)["spec"]["groups"]["offload"]["mode"] == "Restore"


def test_what_a_policy_was_to_take_over_is_restored_although_that_one_ends_with_keep() -> None:
    """Promise 7: the write that takes over waits behind a late one, and is replaced before it is sent."""
    made = world(policy(onDelete="Restore"), nodes=1)
    (push,) = _taken_over(made)
    assert json.loads(push.body)["spec"]["groups"]["offload"]["source"]["policy"] == "q"
    made.fleet.policy_gone("uid-q", made.now)
    made.fleet.policy_gone("uid-p", made.now)

    (write,) = made.specs()

    ending = json.loads(write.body)["spec"]["groups"]["offload"]
    assert (ending["source"]["policy"], ending["mode"]) == ("p", "Restore")


def test_what_a_policy_was_to_take_over_is_restored_although_an_edit_of_that_one_leaves_it_to_nobody() -> None:
    """Promise 7: the write that takes over is late, and both policies go on with other groups."""
    made = world(policy(onDelete="Restore"), nodes=1)
    assert len(_taken_over(made)) == 1
    made.edit_policy("p", settings={"demotion": {"enabled": True}})
    made.edit_policy("q", settings={"balancing": TIERING})

    (write,) = made.specs()

    ending = json.loads(write.body)["spec"]["groups"]["offload"]
    assert (ending["source"]["policy"], ending["mode"]) == ("p", "Restore")


def test_what_a_policy_has_taken_over_ends_with_its_keep_also_while_an_edit_is_on_its_way() -> None:
    """Promise 6: what the watch has shown since is what is there."""
    made = world(policy(onDelete="Restore"), nodes=1)
    made.edit_policy("p", settings={"offload": OFFLOAD | {"channels": 3}})
    assert len(made.specs()) == 1
    (push,) = _taken_over(made)
    made.edit_policy("q", settings={"offload": OFFLOAD | {"channels": 6}})
    assert len(made.specs()) == 1
    made.carry_out([push])
    made.fleet.policy_gone("uid-q", made.now)
    made.fleet.policy_gone("uid-p", made.now)

    (write,) = made.specs()

    assert "groups" not in json.loads(write.body)["spec"]


def _taken_over(made: World) -> list[Write]:
    """Return the open writes with which a policy that keeps takes over from all others."""
    made.add_policy(policy("q", priority=200, settings={"offload": OFFLOAD | {"channels": 5}}))
    return made.specs()


def test_every_write_carries_the_epoch_of_the_leader() -> None:
    """Promise 8: it is what the API server's fence compares."""
    made = world(policy(), nodes=1)
    made.fleet.lead(7)

    made.edit_policy("p", drift="Report")
    made.settle()

    assert made.states["n0"]["spec"]["leaderEpoch"] == 7
    assert made.status("p")["rollout"]["leaderEpoch"] == 7


def test_a_later_decision_has_a_greater_sequence() -> None:
    """Promise 8: a request of ours that outlives its time-out must not undo the one that was sent in its place."""
    made = world(policy(), nodes=1)
    first = made.states["n0"]["spec"]["writeSequence"]

    made.edit_policy("p", settings={"offload": OFFLOAD | {"channels": 5}})
    made.step()

    assert made.states["n0"]["spec"]["writeSequence"] > first


def test_a_replacement_carries_the_epoch_of_the_leader() -> None:
    """Promise 8: a JSON patch would else drop it, and be refused by the fence for ever."""
    made = world(policy(), nodes=1)
    made.fleet.lead(7)
    made.edit_policy("p", settings={"demotion": {"enabled": True}})
    kept = made.groups("n0")
    made.carry_out(made.specs())
    (decided,) = made.specs()
    applied = json.loads(decided.body)["spec"]
    made.states["n0"]["spec"] = {**applied, "groups": {**kept, **applied["groups"]}}
    made.states["n0"]["metadata"]["generation"] += 1
    made.show_state("n0")

    (write,) = made.specs()

    assert write.patch is Patch.JSON
    (spec,) = (step["value"] for step in json.loads(write.body) if step["path"] == "/spec")
    assert spec["leaderEpoch"] == 7


def test_what_is_put_back_while_a_write_may_still_arrive_goes_only_onto_what_was_seen() -> None:
    """Promise 7: what that write turns on would be dropped unseen, without a restore."""
    made = world(policy(settings={"demotion": {"enabled": True}}), nodes=1)
    made.edit_policy("p", settings={"demotion": {"enabled": True}, "balancing": {"mode": "Tiering"}})
    assert made.specs()  # sent, and not answered
    made.states["n0"]["spec"]["groups"] = {}
    made.states["n0"]["metadata"]["generation"] += 1
    made.show_state("n0")

    (write,) = made.specs()

    seen = {"op": "test", "path": "/metadata/resourceVersion"}
    assert seen | {"value": made.states["n0"]["metadata"]["resourceVersion"]} in json.loads(write.body)


def test_restored_groups_that_another_manager_owns_too_go_once_for_all() -> None:
    """Promise 12: applied in vain, restored anew, and applied in vain again would go on for ever."""
    made = world(policy(onDelete="Restore"), nodes=1)
    made.settle()
    made.delete_policy("p")
    made.step()
    made.report("n0")
    (decided,) = made.specs()
    made.states["n0"]["spec"] |= json.loads(decided.body)[
        "spec"
    ]  # and the groups stay: an apply leaves what others own
    made.states["n0"]["metadata"]["generation"] += 1
    made.show_state("n0")
    made.carry_out(made.specs())
    made.report("n0")

    (write,) = made.specs()

    assert write.patch is Patch.JSON
    assert "groups" not in json.loads(write.body)[1]["value"]


def test_a_new_leader_writes_nothing_when_nothing_changed() -> None:
    """Promise 12: another epoch alone is no reason to write."""
    made = world(policy(), nodes=2)
    made.settle()
    made.fleet = Fleet(made.settings)
    made.sync()
    made.fleet.lead(made.fleet.greatest_epoch + 1)

    assert made.step(10.0).writes == ()
    assert made.step(120.0).writes == ()


def test_nothing_is_decided_before_this_process_leads() -> None:
    """Promise 8: with the fleet known and no epoch, whatever is written could not be fenced."""
    made = world(policy(), nodes=1)
    made.fleet = Fleet(made.settings)
    made.sync()
    made.add_node("late")

    assert made.decide().writes == ()


@pytest.mark.parametrize(
    ("in_policy", "in_state", "greatest"),
    [
        pytest.param(None, None, 0, id="nowhere"),
        pytest.param(3, None, 3, id="in a policy"),
        pytest.param(None, 4, 4, id="in a node state"),
        pytest.param(9, 4, 9, id="the policy's is greater"),
        pytest.param(3, 4, 4, id="the node state's is greater"),
    ],
)
def test_the_greatest_epoch_of_all_objects_is_found(in_policy: int | None, in_state: int | None, greatest: int) -> None:
    """Promise 8: a leader with a smaller one could write nothing."""
    fleet = Fleet(FleetSettings())
    fleet.policies_listed([policy("a"), policy("b", status={"rollout": {"leaderEpoch": in_policy}})], 0.0)
    fleet.state_changed(state("n", {"leaderEpoch": in_state}), 0.0, START)
    fleet.state_changed(state("m"), 0.0, START)

    assert fleet.greatest_epoch == greatest


def test_a_node_that_came_back_under_its_name_owns_its_state() -> None:
    made = world(policy(), nodes=1)
    made.nodes["n0"] = node("n0", uid="second")
    made.fleet.node_changed(made.nodes["n0"], made.now)

    made.step()

    assert made.states["n0"]["metadata"]["ownerReferences"][0]["uid"] == "second"
    assert keys(made.step(1)) == []


@pytest.mark.parametrize("how", ["gone", "listed"])
def test_a_node_that_is_gone_counts_nowhere_and_gets_no_writes(how: str) -> None:
    made = world(policy())
    if how == "gone":
        made.fleet.node_gone("n0", made.now)
    else:
        made.fleet.nodes_listed(["n1"], made.now)
    made.show_state("n0")

    made.step(10)

    assert written(made, SPEC) == []
    assert made.status("p")["nodes"]["matched"] == 1


def test_a_state_without_a_node_is_nobodys() -> None:
    made = world(policy(), nodes=1)

    made.fleet.state_changed(state("stray", {"groups": {}}), made.now, made.wall)

    assert keys(made.step(10)) == []
    assert made.fleet.snapshot()[:3] == (1, 1, 2)
    made.fleet.states_listed(["n0"], made.now)
    assert made.fleet.snapshot()[:3] == (1, 1, 1)


def test_a_relabelled_node_is_restored_and_then_left_alone() -> None:
    made = world(policy(nodeSelector={"matchLabels": {"role": "db"}}, onDelete="Restore"), nodes=1)
    made.add_node("n0", role="web")

    made.step()
    assert made.groups("n0")["offload"]["mode"] == "Restore"
    made.report("n0")
    made.step()

    assert made.groups("n0") == {}


def test_the_report_of_an_earlier_restore_does_not_end_a_later_one() -> None:
    """Promise 7: the same revision comes twice, with an unreported push in between."""
    made = world(policy(nodeSelector={"matchLabels": {"role": "db"}}, onDelete="Restore"), nodes=1)
    made.add_node("n0", role="web")
    made.step()
    made.report("n0")
    for role in ("db", "web"):
        made.step()
        made.add_node("n0", role=role)
    made.step()
    made.step(10)

    assert made.groups("n0")["offload"]["mode"] == "Restore"


def test_going_back_to_what_is_stored_does_not_hold_up_a_restore() -> None:
    """Promise 13: of two quick relabelings only the second is sent, changes nothing, and no watch event tells of it.

    So it is with a CRD that has no room for the number of a decision.
    """
    made = world(policy(nodeSelector={"matchLabels": {"role": "db"}}, onDelete="Restore"), nodes=1)
    made.add_node("n0", role="web")
    made.step()
    del made.states["n0"]["spec"]["writeSequence"]
    made.states["n0"]["metadata"]["generation"] += 1
    made.show_state("n0")
    made.add_node("n0", role="db")
    assert made.specs()
    made.report("n0")
    made.add_node("n0", role="web")
    assert made.specs()
    assert made.groups("n0")["offload"]["mode"] == "Restore"

    assert made.fleet.write_stored(WriteKey(SPEC, "n0"), made.states["n0"]["metadata"]["generation"])
    made.step()

    assert made.groups("n0") == {}


def test_an_answer_about_a_generation_that_is_not_shown_yet_ends_no_restore() -> None:
    """Promise 7: what was pushed in between is not restored by the report of before."""
    made = world(policy(nodeSelector={"matchLabels": {"role": "db"}}, onDelete="Restore"), nodes=1)
    made.add_node("n0", role="web")
    made.step()
    made.report("n0")
    for role in ("db", "web"):
        made.add_node("n0", role=role)
        while made.specs():
            pass

    assert not made.fleet.write_stored(WriteKey(SPEC, "n0"), made.states["n0"]["metadata"]["generation"] + 2)
    made.step()

    assert made.groups("n0")["offload"]["mode"] == "Restore"


def test_a_group_that_another_manager_owns_too_is_taken_out_all_the_same() -> None:
    """Promise 13: a backup of node states that was applied again would hold every wish for ever."""
    made = world(policy(), nodes=1)
    kept = made.groups("n0")
    made.delete_policy("p")
    made.step()
    made.states["n0"]["spec"]["groups"] = kept
    made.states["n0"]["metadata"]["generation"] += 1
    made.show_state("n0")

    made.step()

    assert made.groups("n0") == {}
    assert made.written[-1].patch is Patch.JSON
    assert made.decide().writes == ()


def test_a_content_that_the_api_server_cuts_is_not_written_again_and_again() -> None:
    """An older CRD drops a field; the node state never becomes what its revision says."""
    made = world(policy(), nodes=1)
    made.states["n0"]["spec"]["groups"]["offload"]["settings"] = {"engine": "DMA"}
    for _ in range(3):
        made.states["n0"]["metadata"]["generation"] += 1
        made.show_state("n0")
        first = made.specs(10)
        assert [write.patch for write in first] == [Patch.JSON]
        made.fleet.write_stored(WriteKey(SPEC, "n0"), made.states["n0"]["metadata"]["generation"])
        made.show_state("n0")
        assert made.specs() == []


def test_content_that_no_rollout_has_admitted_is_not_made_whole() -> None:
    """Promise 8: an agent leaves alone what is not as its revision says; the operator must not bless it."""
    made = world(policy(rollout=ALL_AT_ONCE | {"maxUnproven": 1}))
    ours = made.states["n1"]["spec"]
    made.states["n1"]["spec"] = json.loads(json.dumps(ours).replace('"channels": 4', '"channels": 9'))
    made.states["n1"]["metadata"]["generation"] += 1
    made.show_state("n1")

    made.step()

    assert [json.loads(write.body)[1]["value"]["groups"] for write in made.written if write.key.kind is SPEC] == [
        ours["groups"]
    ]


def test_a_node_that_leaves_the_agents_selector_is_released() -> None:
    selector = msgspec.convert({"matchLabels": {"role": "db"}}, Selector)
    made = world(policy(onDelete="Restore"), nodes=1, settings=FleetSettings(agent_node_selector=selector))
    made.report("n0", statistics={"foliosMigrated": 1})
    made.add_node("n0", role="web")

    made.step(10)

    assert made.groups("n0")["offload"]["mode"] == "Restore"
    assert made.status("p")["worstNodes"][0]["reason"] == Reason.NO_AGENT
    assert "statistics" not in made.status("p")


def test_a_policy_edit_that_changes_nothing_for_a_node_is_not_pushed() -> None:
    made = world(policy(), nodes=1)

    made.edit_policy("p", priority=101)
    made.step(10)

    assert written(made, SPEC) == []
    assert (made.status("p")["observedGeneration"], made.status("p")["summary"]) == (2, "1/1 ready")


def test_safe_specs_are_started_before_others() -> None:
    made = world(policy("a", nodeSelector={"matchLabels": {"number": "0"}}), policy("b", mode="Plan"))
    made.edit_policy("a", nodeSelector={"matchLabels": {"number": "1"}})
    (release,) = made.specs()
    assert (release.key.name, release.safe) == ("n0", True)
    made.add_node("n2", number="9")
    made.add_node("n3", number="9")

    writes = made.specs()

    assert [(write.key.name, write.safe) for write in writes] == [("n2", True), ("n3", True), ("n1", False)]


# Policies


def test_an_edit_to_other_groups_reaches_a_node_that_keeps_nothing_of_before() -> None:
    """There is nothing of the proven revision to join: the node is a canary of the new one."""
    made = world(policy(), nodes=1)

    made.edit_policy("p", settings={"demotion": {"enabled": True}})
    made.settle()

    assert list(made.groups("n0")) == ["demotion"]


def test_whoever_looks_whenever_the_fleet_asks_for_it_sees_the_last_name_go() -> None:
    """Looks come a quarter of a second after a change, reservations a second after each other."""
    made = world(nodes=1, settings=FleetSettings(status_interval_seconds=0.5))
    made.add_policy(policy())
    made.step()
    assert made.status("p")["rollout"]["reserved"] == ["n0"]
    made.now += 0.3
    made.report("n0")

    until = made.now + 20
    while made.now < until:
        made.now = min(made.step().look_again or until, until)

    assert made.status("p")["summary"] == "1/1 ready"
    assert "reserved" not in made.status("p")["rollout"]


def test_an_older_version_of_a_policy_is_ignored() -> None:
    made = world(policy(), nodes=1)

    made.fleet.policy_changed(policy(mode="Paused", meta={"resourceVersion": "5"}), made.now)

    assert keys(made.step(10)) == []


@pytest.mark.parametrize("version", ["", "x1"])
def test_a_version_that_is_no_number_is_taken(version: str) -> None:
    made = world(policy(), nodes=1)

    made.policies["p"]["spec"]["mode"] = "Paused"
    made.policies["p"]["metadata"]["resourceVersion"] = version
    made.fleet.policy_changed(made.policy("p"), made.now)

    assert WriteKey(SPEC, "n0") in keys(made.step())


def test_a_late_event_does_not_bring_a_deleted_policy_back() -> None:
    made = world(policy(), nodes=1)
    made.fleet.policy_gone("uid-p", made.now)
    made.fleet.policy_changed(made.policy("p"), made.now)

    made.step()

    assert made.groups("n0") == {}


def test_a_list_is_the_whole_truth() -> None:
    made = world(policy(), nodes=1)
    made.fleet.policies_listed([], made.now)

    made.step()

    assert made.groups("n0") == {}


def test_a_list_counts_also_where_versions_begin_again() -> None:
    """After a restored backup of etcd the watch's versions are from a future that never was."""
    made = world(policy(), nodes=1)
    made.policies["p"]["spec"]["mode"] = "Paused"
    made.policies["p"]["metadata"]["resourceVersion"] = "5"

    made.fleet.policies_listed([made.policy("p")], made.now)
    made.step()

    assert made.groups("n0")["offload"]["mode"] == "Hold"


def test_a_list_brings_back_a_policy_that_was_deleted_after_the_backup() -> None:
    made = world(policy(), nodes=1)
    restored = made.policy("p")
    made.delete_policy("p")
    made.step()
    assert made.groups("n0") == {}

    made.policies["p"] = json.loads(msgspec.json.encode(restored))
    made.fleet.policies_listed([restored], made.now)
    made.step()
    assert made.groups("n0")["offload"]["mode"] == "Apply"

    made.edit_policy("p", mode="Paused")
    made.step()
    assert made.groups("n0")["offload"]["mode"] == "Hold"


def test_a_policy_that_was_missing_in_a_list_counts_right_when_it_is_back() -> None:
    made = world(policy(onDelete="Restore"))
    made.fleet.policies_listed([], made.now)
    made.fleet.policies_listed([made.policy("p")], made.now)
    made.step(10)

    assert made.status("p")["nodes"]["matched"] == 2
    made.delete_policy("p")
    made.step()
    assert "p" in made.policies


def test_a_late_event_of_a_policys_predecessor_does_not_replace_it() -> None:
    made = world(policy(), nodes=1)

    made.fleet.policy_changed(policy(meta={"uid": "before", "resourceVersion": "3"}), made.now)

    assert keys(made.step(10)) == []


def test_a_namesake_replaces_its_predecessor() -> None:
    made = world(policy(onDelete="Restore"), nodes=1)
    made.add_policy(policy(meta={"uid": "second"}, settings={"balancing": TIERING}))

    made.step()

    assert made.groups("n0")["offload"]["mode"] == "Restore"
    assert made.groups("n0")["balancing"]["source"]["uid"] == "second"


# Finalizer


def test_no_node_is_pushed_before_the_finalizer_is_seen() -> None:
    """Promise 7: who pushes without it may never restore."""
    made = world(nodes=1)
    made.add_policy(policy(onDelete="Restore"))

    first = made.decide()
    assert keys(first) == [WriteKey(FINALIZER, "p")]
    assert keys(made.decide()) == []
    made.carry_out(first.writes)
    assert WriteKey(SPEC, "n0") in keys(made.step())


def test_a_failed_finalizer_is_written_again() -> None:
    made = world(nodes=0)
    made.add_policy(policy(onDelete="Restore"))
    made.decide()

    made.fleet.write_failed(WriteKey(FINALIZER, "p"))

    assert keys(made.decide()) == [WriteKey(FINALIZER, "p")]


@pytest.mark.parametrize("changes", [{"onDelete": "Keep"}, {"mode": "Plan"}])
def test_a_finalizer_that_is_not_needed_is_dropped(changes: dict[str, Any]) -> None:
    made = world(policy(onDelete="Restore"))
    assert made.policies["p"]["metadata"]["finalizers"] == [RESTORE_FINALIZER]

    made.edit_policy("p", **changes)
    made.settle()

    assert made.policies["p"]["metadata"]["finalizers"] == []


@pytest.mark.parametrize(
    ("finalizers", "left"),
    [
        pytest.param([RESTORE_FINALIZER], [], id="ours alone"),
        pytest.param(["a/one", RESTORE_FINALIZER, "b/two"], ["a/one", "b/two"], id="between others"),
        pytest.param([RESTORE_FINALIZER, "a/one", RESTORE_FINALIZER], ["a/one"], id="twice"),
    ],
)
def test_dropping_the_finalizer_takes_out_ours_wherever_it_stands_and_no_other(
    finalizers: list[str], left: list[str]
) -> None:
    """Promise 13: also where a backup that was applied again owns the finalizer beside us."""
    made = world()
    made.add_policy(policy(meta={"finalizers": finalizers}))
    made.step()

    assert made.policies["p"]["metadata"]["finalizers"] == left


def test_a_finalizer_that_moved_meanwhile_is_found_again() -> None:
    made = world()
    made.add_policy(policy(meta={"finalizers": ["a/one", RESTORE_FINALIZER]}))
    late = made.decide()
    made.policies["p"]["metadata"]["finalizers"] = [RESTORE_FINALIZER]

    made.carry_out(late.writes)
    made.show_policy("p")
    made.step()

    assert made.policies["p"]["metadata"]["finalizers"] == []


def test_a_finalizer_that_was_on_its_way_when_it_was_wanted_no_more_is_taken_out_once_it_is_seen() -> None:
    """Promise 13: nothing else would ever take it out, and the policy could not be deleted."""
    made = world()
    made.add_policy(policy(onDelete="Restore"))
    added = made.decide().writes
    made.edit_policy("p", onDelete="Keep")
    meanwhile = made.decide().writes

    made.carry_out((*added, *meanwhile))
    made.step()

    assert made.policies["p"]["metadata"]["finalizers"] == []
    made.delete_policy("p")
    assert made.policies == {}


def test_revisions_have_their_own_numbers_also_where_one_is_still_on_its_way() -> None:
    """The way back is the greatest that went well."""
    made = world()
    made.add_policy(policy())
    writes = made.decide().writes
    made.edit_policy("p", settings={"offload": OFFLOAD | {"channels": 9}})
    made.carry_out((*writes, *made.decide().writes))

    assert sorted(one["revision"] for one in made.revisions.values()) == [1, 2]


def test_a_late_drop_leaves_the_finalizer_of_a_namesake() -> None:
    """Promise 7: the namesake is a policy of its own."""
    made = world()
    made.add_policy(policy(meta={"finalizers": [RESTORE_FINALIZER]}))
    late = made.decide()
    made.policies["p"]["metadata"]["uid"] = "another"

    made.carry_out(late.writes)

    assert made.policies["p"]["metadata"]["finalizers"] == [RESTORE_FINALIZER]


def test_a_deleted_policy_stays_until_the_last_node_has_restored() -> None:
    made = world(policy(onDelete="Restore"))
    made.delete_policy("p")
    made.step(10)
    assert made.status("p")["summary"] == "restoring, 2 nodes left"
    made.report("n0")
    made.step()
    made.step(10)
    assert made.status("p")["summary"] == "restoring, 1 node left"

    made.report("n1")
    made.step()
    made.step()

    assert made.policies == {}
    assert made.groups("n0") == made.groups("n1") == {}


def test_a_deleted_policy_waits_for_a_node_whose_push_is_not_shown_yet() -> None:
    made = world(policy(onDelete="Restore"), nodes=0)
    made.add_node("late")
    made.carry_out(made.specs())
    assert made.specs()

    made.delete_policy("p")

    assert WriteKey(FINALIZER, "p") not in keys(made.decide())


def test_a_finalizer_that_was_dropped_at_deletion_is_not_put_back() -> None:
    """The API server refuses new finalizers on a deleted object."""
    made = world(policy(onDelete="Restore"), nodes=1)
    made.remove_node("n0")
    made.delete_policy("p")
    assert WriteKey(FINALIZER, "p") in keys(made.decide())

    made.add_node("n0")

    assert WriteKey(FINALIZER, "p") not in keys(made.decide())


def test_a_node_state_deleted_in_mid_restore_is_made_again_with_the_restore() -> None:
    """Promise 7: only the node's own agent knows what was there before, and it has to be asked."""
    made = world(policy(onDelete="Restore"), nodes=1)
    made.delete_policy("p")
    made.step()
    del made.states["n0"]
    made.fleet.state_gone("n0", made.now)

    made.step()

    assert made.groups("n0")["offload"]["mode"] == "Restore"
    assert "p" in made.policies
    made.settle()
    assert made.policies == {}


def test_a_node_state_deleted_together_with_its_policy_is_made_again_with_a_restore() -> None:
    """Promise 7."""
    made = world(policy(onDelete="Restore"), nodes=1)
    del made.states["n0"]
    made.fleet.state_gone("n0", made.now)
    made.delete_policy("p")

    made.step()

    assert made.groups("n0")["offload"]["mode"] == "Restore"


def test_a_node_state_deleted_in_mid_restore_is_made_again_with_the_restore_also_by_a_new_leader() -> None:
    """Promise 7: nobody has told it what the node has, but the policy still waits for its nodes."""
    made = world(policy(onDelete="Restore"), nodes=1)
    made.delete_policy("p")
    made.step()
    del made.states["n0"]

    made.restart(epoch=2)
    made.step()

    assert made.groups("n0")["offload"]["mode"] == "Restore"
    made.settle()
    assert made.policies == {}


def test_a_new_leader_restores_nothing_of_a_deleted_policy_that_keeps_or_never_pushed() -> None:
    made = world(policy(onDelete="Restore"), policy("q", onDelete="Keep"), nodes=1)
    for name in ("p", "q"):
        made.policies[name]["metadata"] |= {"deletionTimestamp": "2026-01-02T03:04:05Z", "finalizers": []}
    made.states.clear()

    made.restart(epoch=2)
    made.step()

    assert made.groups("n0") == {}


def test_a_node_that_comes_back_without_its_labels_is_restored() -> None:
    """Promise 7: a Node that was deleted by mistake registers again on the same boot."""
    made = world(policy(onDelete="Restore", nodeSelector={"matchLabels": {"role": "db"}}), nodes=1)
    made.remove_node("n0")
    made.step()

    made.add_node("n0")
    made.step()

    assert made.groups("n0")["offload"]["mode"] == "Restore"
    made.settle()
    assert made.groups("n0") == {}


def test_a_wish_is_restored_however_far_the_watch_lags_behind_the_writes() -> None:
    """Promise 7: an event about an older write of ours is no foreign edit."""
    made = world(policy(settings={"balancing": TIERING}, onDelete="Restore"), nodes=1)
    made.edit_policy("p", settings={"balancing": {"mode": "Normal"}})
    (first,) = made.specs()
    for channels in range(1, 9):
        made.edit_policy("p", settings={"offload": {"engine": "DMA", "channels": channels}, "balancing": TIERING})
        assert made.specs()
    made.carry_out([first])

    made.delete_policy("p")

    (write,) = [write for write in made.decide().writes if write.key.kind is SPEC]
    assert {group: wish["mode"] for group, wish in json.loads(write.body)["spec"]["groups"].items()} == {
        "offload": "Restore",
        "balancing": "Restore",
    }


def test_a_deleted_policy_does_not_wait_for_a_node_that_is_gone() -> None:
    """Promise 13."""
    made = world(policy(onDelete="Restore"), nodes=1)
    made.delete_policy("p")
    made.step()

    made.remove_node("n0")
    made.step()

    assert made.policies == {}


@pytest.mark.parametrize("restarted", [False, True], ids=["same operator", "another operator"])
def test_after_a_deadline_a_deleted_policy_goes_and_says_who_was_not_restored(restarted: bool) -> None:
    """Promise 13: deletion ends in bounded time with any number of dead nodes."""
    made = world(policy(onDelete="Restore"), nodes=25)
    made.delete_policy("p")
    made.step()
    made.step(300)
    if restarted:
        made.restart()

    made.step(298)
    assert "p" in made.policies
    last = made.step(2)

    assert "p" not in made.policies
    (event,) = [one for one in last.events if one.reason is Reason.RESTORE_INCOMPLETE]
    assert event.warning
    assert "gave up waiting for 25 nodes" in event.message
    assert event.message.count("n1") == 11
    assert event.message.endswith("and 5 more")
    assert made.fleet.snapshot().restores_incomplete == 1


# Status


def test_the_first_change_after_a_quiet_time_is_shown_soon() -> None:
    made = world(policy())
    made.step(100)
    made.report("n0", {"offload": ("Failed", "KernelError")})

    look_again = made.step().look_again

    assert look_again == made.now + 0.25
    assert keys(made.step(0.25)) == [WriteKey(STATUS, "p")]


def test_a_status_is_written_at_most_once_in_five_seconds() -> None:
    """Promise 12."""
    made = world(policy())
    made.step(100)
    times = []
    for number in range(200):
        made.report("n0", {"offload": ("Failed", "KernelError") if number // 7 % 2 else "Ready"})
        made.now += 0.1
        if keys(made.step()):
            times.append(made.now)

    assert len(times) >= 3
    assert all(later - earlier >= 5 for earlier, later in pairwise(times))


def test_counters_alone_are_written_every_sixty_seconds() -> None:
    """Promise 12."""
    made = world(policy())
    made.step(100)
    times = []
    for number in range(400):
        made.report("n0", statistics={"foliosMigrated": number})
        made.now += 1
        if keys(made.step()):
            times.append(made.now)

    assert len(times) >= 5
    assert all(later - earlier >= 60 for earlier, later in pairwise(times))


def test_moved_counters_ask_for_no_look_before_they_are_due() -> None:
    made = world(policy())
    made.step(100)
    made.report("n0", statistics={"foliosMigrated": 1})
    made.step()
    written_at = made.now

    made.report("n0", statistics={"foliosMigrated": 2})

    assert made.step().look_again == written_at + 60


def test_of_moved_counters_one_decision_is_made_until_they_are_due() -> None:
    """Promise 12: it says when they are due; a fleet of thousands reports several times a second."""
    made = world(policy(), nodes=2)
    made.step(60)

    def moved(name: str, number: int) -> bool:
        made.states[name]["status"]["statistics"] = {"foliosMigrated": number}
        return made.show_state(name)

    assert moved("n0", 1)
    made.step()  # due at once, for nothing was told for long
    assert moved("n0", 2)
    due = made.decide().look_again

    assert due is not None
    assert [moved("n0", 3), moved("n1", 4), moved("n1", 4)] == [False] * 3
    made.step(due - made.now)
    assert made.status("p")["statistics"]["foliosMigrated"] == 7
    assert moved("n0", 5)


def test_of_a_node_as_it_was_nothing_is_decided() -> None:
    made = world(policy(), nodes=1)

    told = [made.fleet.node_changed(one, made.now) for one in (made.nodes["n0"], node("n0", role="db"))]

    assert told == [False, True]


def test_counters_that_moved_while_the_operator_was_away_are_no_reason_to_write() -> None:
    """Promise 12: never as the first write after a start."""
    made = world(policy())
    made.states["n0"]["status"]["statistics"] = {"foliosMigrated": 10**6}
    made.restart()

    assert [keys(made.step(seconds)) for seconds in (0, 1, 60, 600)] == [[], [], [], []]
    assert "statistics" not in made.status("p")


def test_counters_are_summed_where_the_policy_sets_offload_only() -> None:
    made = world(policy("a"), policy("b", priority=1, settings={"balancing": TIERING}))
    for name in ("n0", "n1"):
        made.report(name, statistics={"foliosMigrated": 5, "foliosPerSecond": "0.5"})

    made.step(100)
    made.step(1)

    assert made.status("a")["statistics"] == {"nodes": 2, "foliosMigrated": 10, "foliosPerSecond": "1"}
    assert "statistics" not in made.status("b")


def test_a_status_that_did_not_stick_is_written_again() -> None:
    made = world(policy())
    made.step(100)
    made.report("n0", {"offload": ("Failed", "KernelError")})
    made.decide()
    made.now += 1
    assert keys(made.decide()) == [WriteKey(STATUS, "p")]
    made.now += 10
    assert keys(made.decide()) == []

    made.fleet.write_failed(WriteKey(STATUS, "p"))
    made.decide()
    made.now += 1

    assert keys(made.decide()) == [WriteKey(STATUS, "p")]


def test_a_status_changed_by_somebody_else_is_written_again() -> None:
    made = world(policy())
    made.policies["p"]["status"]["summary"] = "all fine"
    made.show_policy("p")

    made.step()
    made.step(10)

    assert made.status("p")["summary"] == "2/2 ready"


def test_drift_is_counted_over_the_partition() -> None:
    made = world(policy())
    made.report("n0", conditions=[{"type": "Drifted", "status": "True"}])

    made.step()
    made.step(10)

    assert (made.status("p")["overlays"], made.status("p")["nodes"]["ready"]) == ({"drifted": 1, "unproven": 0}, 2)


# Silence


def test_a_node_is_unreachable_once_its_deadline_has_passed() -> None:
    """Promise 11; a dead node never blocks."""
    made = world(policy(rollout={"nodeDeadlineSeconds": 700}), policy("q", priority=1))
    made.report("n0")
    last = made.now
    made.step(690)
    made.report("n1")

    look_again = made.step().look_again
    assert look_again == last + 700
    made.step(look_again - made.now)
    made.step(1)

    assert made.status("p")["summary"] == "1/2 ready, 1 unreachable"
    assert made.condition("p", "Ready")["status"] == "True"
    assert made.condition("p", "Degraded")["reason"] == Reason.NODE_UNREACHABLE
    assert made.status("q")["nodes"]["unreachable"] == 0


def test_a_node_that_reports_again_is_reachable_again() -> None:
    made = world(policy(), nodes=1)
    made.step(2000)
    made.step(10)
    assert made.status("p")["nodes"]["unreachable"] == 1

    made.report("n0")
    made.step()
    made.step(10)

    assert made.status("p")["nodes"]["ready"] == 1


@pytest.mark.parametrize(
    ("age", "unreachable"),
    [pytest.param(899, 0, id="young"), pytest.param(900, 1, id="old"), pytest.param(-5000, 0, id="from the future")],
)
def test_at_first_sight_the_age_of_a_report_counts(age: int, unreachable: int) -> None:
    made = world(policy(), nodes=1)
    made.states["n0"]["status"]["reportedAt"] = (made.wall - timedelta(seconds=age)).isoformat()
    made.restart()

    made.step()
    made.step(0.5)

    assert made.status("p")["nodes"]["unreachable"] == unreachable


@pytest.mark.parametrize("lead", [timedelta(days=-3000), timedelta(days=3000)], ids=["far behind", "far ahead"])
@pytest.mark.parametrize(("age", "unreachable"), [(899, 0), (900, 1)], ids=["young", "old"])
def test_the_age_of_a_report_is_taken_from_the_api_servers_clock(lead: timedelta, age: int, unreachable: int) -> None:
    """Promise 11: a node whose clock is wrong is not unreachable."""
    made = world(policy(), nodes=1)
    made.states["n0"]["status"]["reportedAt"] = (made.wall + lead).isoformat()
    stored = (made.wall - timedelta(seconds=age)).isoformat()
    made.states["n0"]["metadata"]["managedFields"] = [
        {"manager": "numamigration-operator", "operation": "Apply", "time": "2020-01-01T00:00:00Z"},
        {"manager": "numamigration-agent", "operation": "Apply", "subresource": "status", "time": stored},
    ]
    made.restart()

    made.step()
    made.step(0.5)

    assert made.status("p")["nodes"]["unreachable"] == unreachable


def test_a_shorter_deadline_rings_sooner() -> None:
    made = world(policy(rollout={"nodeDeadlineSeconds": 9000}), nodes=1)
    made.report("n0")
    reported = made.now
    made.edit_policy("p", rollout={"nodeDeadlineSeconds": 700})
    made.step(10)

    assert made.step(10).look_again == reported + 700


# Events


def test_a_ready_condition_that_moves_is_an_event() -> None:
    made = world(policy())
    made.report("n0", {"offload": ("Failed", "MigratorBusy")})
    made.step()
    (event,) = made.step(10).events

    assert (event.policy, event.policy_uid, event.warning, event.reason) == ("p", "uid-p", True, "MigratorBusy")
    assert event.message == "1 of 2 nodes failed, for example n0: MigratorBusy: offload: offload is Failed"
    made.report("n0")
    made.step()
    assert [(one.warning, one.reason) for one in made.step(10).events] == [(False, "AsExpected")]


def test_a_restart_tells_no_event_again() -> None:
    made = world(policy())
    made.report("n0", {"offload": ("Failed", "MigratorBusy")})
    made.step()
    made.step(10)
    made.restart()
    made.report("n1", {"offload": ("Failed", "MigratorBusy")})
    made.step()

    decisions = made.step(10)

    assert keys(decisions) == [WriteKey(STATUS, "p")]
    assert decisions.events == ()


@pytest.mark.parametrize("late", [False, True], ids=["of the first time", "of what came between"])
def test_settings_that_came_back_are_pending_until_they_are_reported_anew(late: bool) -> None:
    """Promise 11: the agent may still be at what came between; `kubectl wait` would believe a report of before."""
    made = world(policy(), policy("other", settings={"balancing": TIERING}), nodes=1)
    made.edit_policy("p", settings={"offload": {"engine": "Off"}})
    made.step()
    between = made.state("n0")
    made.edit_policy("p", settings={"offload": OFFLOAD})
    made.step()
    if late:
        made.states["n0"]["status"] |= {
            "observedGeneration": between.metadata.generation,
            "observedRevision": between.spec.revision,
        }
        made.show_state("n0")
    made.step(10)

    assert made.status("p")["summary"] == "0/1 ready, 1 pending"
    assert made.status("other")["summary"] == "1/1 ready"
    made.report("n0")
    made.step(10)
    assert made.status("p")["summary"] == "1/1 ready"


def test_an_edit_makes_nodes_pending_on_its_own_policy_only() -> None:
    made = world(policy("offload"), policy("tiering", settings={"demotion": {"enabled": True}}))
    made.settle()

    made.edit_policy("offload", settings={"offload": {"engine": "DMA", "channels": 2}})
    made.step()
    decisions = made.step(10)

    assert made.status("offload")["nodes"]["pending"] == 2
    assert made.status("tiering")["nodes"]["ready"] == 2
    assert WriteKey(STATUS, "tiering") not in keys(decisions)


def cut_by_the_crd(nodes: int) -> World:
    """Return a fleet whose CRD has no field `channels`: each spec was stored without it, as a merge patch."""
    made = world(policy(), nodes=nodes)
    made.settle()
    made.edit_policy("p", settings={"offload": {"engine": "DMA", "channels": 2}})
    for write in made.specs():
        stored = made.states[write.key.name]
        stored["spec"] = json.loads(write.body)["spec"]
        del stored["spec"]["groups"]["offload"]["settings"]["channels"]
        stored["metadata"]["generation"] += 1
        made.fleet.write_skewed(write.key.name, "the CRD has no field channels")
        made.show_state(write.key.name)
    return made


def test_a_spec_that_the_crd_cannot_hold_is_not_written_again_at_once() -> None:
    """Promise 12: what cannot be stored is no reason for a storm."""
    made = cut_by_the_crd(nodes=2)

    assert [key for key in keys(made.step(100)) if key.kind is SPEC] == []
    assert made.condition("p", "Ready")["reason"] == "VersionSkew"


def test_where_a_spec_cannot_be_stored_a_new_node_gets_an_empty_node_state_first() -> None:
    """Promise 11: a merge patch, which drops what the CRD does not know, creates nothing."""
    made = world(policy(mode="Plan"), nodes=1)
    made.settle()
    made.add_node("n9", role="db")
    (write,) = made.specs()

    made.fleet.write_skewed("n9", "the CRD has no field channels")

    (again,) = [write for write in made.decide().writes if write.key.kind is SPEC]
    assert "plans" in json.loads(write.body)["spec"]
    assert "plans" not in json.loads(again.body)["spec"]
    assert made.decide().writes == ()
    made.carry_out([again])
    whole = json.loads(write.body)["spec"]["revision"]
    assert [json.loads(one.body)["spec"]["revision"] for one in made.decide().writes] == [whole]


def test_with_each_list_of_policies_one_node_is_tried_again_by_turns() -> None:
    made = cut_by_the_crd(nodes=2)

    tried = []
    for _ in range(3):
        made.fleet.policies_listed([made.policy("p")], made.now)
        writes = made.specs(10)
        assert [write.patch for write in writes] == [Patch.APPLY]
        tried += [write.key.name for write in writes]

    assert tried == ["n0", "n1", "n0"]


def test_after_a_restart_what_the_crd_cut_is_found_again() -> None:
    made = cut_by_the_crd(nodes=1)
    made.restart()
    made.decide()
    made.fleet.policies_listed([made.policy("p")], made.now)

    writes = made.specs(10)

    assert [write.patch for write in writes] == [Patch.APPLY]


def test_once_one_spec_is_whole_the_others_follow() -> None:
    """Promise 11: a newer CRD is noticed without an edit and without a restart."""
    made = cut_by_the_crd(nodes=3)
    made.fleet.policies_listed([made.policy("p")], made.now)

    made.step()
    made.settle()

    channels = {name: made.groups(name)["offload"]["settings"]["channels"] for name in ("n0", "n1", "n2")}
    assert channels == {"n0": 2, "n1": 2, "n2": 2}
    assert made.condition("p", "Ready")["reason"] != "VersionSkew"


def test_a_spec_that_the_newer_crd_took_is_whole_although_an_older_watch_shows_less() -> None:
    """Promise 11: no event follows an apply that changes nothing; without this the policy would say VersionSkew on."""
    made = cut_by_the_crd(nodes=1)
    made.fleet.policies_listed([made.policy("p")], made.now)
    (write,) = made.specs(10)

    made.fleet.write_stored(write.key, made.states["n0"]["metadata"]["generation"])
    made.step(10)

    assert made.condition("p", "Ready")["reason"] != "VersionSkew"


def test_a_spec_that_the_crd_cannot_hold_is_shown_as_version_skew() -> None:
    made = world(policy(), nodes=1)
    made.settle()
    made.edit_policy("p", settings={"offload": {"engine": "DMA", "channels": 2}})
    assert made.specs()

    made.fleet.write_skewed("n0", "the CRD has no field channels")
    made.step(10)

    assert made.condition("p", "Reconciling")["status"] == "True"
    assert made.condition("p", "Ready")["reason"] == "VersionSkew"
    assert "no field channels" in made.condition("p", "Ready")["message"]
