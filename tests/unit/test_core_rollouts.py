# SPDX-License-Identifier: Apache-2.0
"""Rollouts as a fleet lives them: what is pushed when, what is remembered, and how far it goes when it fails."""

from __future__ import annotations

import json
from typing import Any

import pytest

from numamigration_api.machinery.canonical import wish_revision
from numamigration_api.vocabulary import RESTORE_FINALIZER, FleetSwitch, Reason
from numamigration_operator.core.decisions import Patch, Write, WriteKey, WriteKind
from numamigration_operator.core.fleet import Fleet, FleetSettings
from tests.unit.builders import OFFLOAD, TIERING, World, keys, policy

SOAK = 60
HOUR = 3600.0
ZONE = "topology.kubernetes.io/zone"
FAILED = ("Failed", "PermissionDenied")
FEW_FAIL = {"metric": "foliosFailedShare", "max": "0.01", "minFolios": 512}


def rollout(nodes: int = 1, soak: int = SOAK, unproven: int | str = "100%", **more: Any) -> dict[str, Any]:
    return {"canary": {"nodes": nodes, "soakSeconds": soak}, "maxUnproven": unproven} | more


def channels(number: int) -> dict[str, Any]:
    return {"offload": OFFLOAD | {"channels": number}}


class Rollout(World):
    """A world whose nodes have agents, and one policy `p`."""

    def __init__(self, nodes: int = 8, zones: int = 1, **cells: tuple[str, str]) -> None:
        super().__init__(FleetSettings())
        for number in range(nodes):
            self.add_node(f"n{number:02}", **{ZONE: f"z{number % zones}"})
        self.cells |= cells
        self.sync()
        self.step()
        self.answer()

    def begin(self, **changes: Any) -> None:
        self.add_policy(policy("p", **{"rollout": rollout()} | changes))
        self.pass_time()

    def pass_time(self, seconds: float = 7.0) -> None:
        """Long enough for the next reservation and the next status, and no agent says a word."""
        self.step(seconds)

    def answer(self, *, soaked: bool = False, failed: tuple[str, ...] = ()) -> None:
        """Every agent reports; nodes in `failed` could not apply offload."""
        for name in self.states:
            self.report(name, {"offload": FAILED} if name in failed and self.offload(name) else None, soaked=soaked)
        self.pass_time()

    def report_all_but(self, silent: str) -> None:
        for name in self.states:
            if name != silent:
                self.report(name, soaked=False)
        self.pass_time()

    def soak(self, **how: Any) -> None:
        """Agents apply, watch for as long as they are told, and say so."""
        self.answer(**how)
        self.now += SOAK
        self.answer(soaked=True, **how)

    def offload(self, name: str) -> int | None:
        """Channels that the node shall have; None without offload, 0 while it is being restored."""
        wish = self.groups(name).get("offload")
        if wish is None:
            return None
        found: int = 0 if wish["mode"] == "Restore" else wish["settings"]["channels"]
        return found

    def having(self, number: int | None) -> list[str]:
        return [name for name in sorted(self.states) if self.offload(name) == number]

    @property
    def stand(self) -> dict[str, Any]:
        found: dict[str, Any] = self.status("p")["rollout"]
        return found

    def store_ledgers(self, count: int) -> None:
        """Let no write through but the policy's, so many times."""
        for _ in range(count):
            self.now += 1
            self.carry_out(write for write in self.decide().writes if write.key.kind is not WriteKind.STATE_SPEC)

    def finish(self) -> None:
        for _ in range(12):
            self.soak()


def test_one_canary_is_pushed_and_the_rest_waits_until_it_has_soaked() -> None:
    world = Rollout(nodes=8)

    world.begin()
    world.answer()

    assert len(world.having(4)) == 1
    assert world.stand["phase"] == "Soaking"
    world.soak()
    assert len(world.having(4)) == 2


def test_the_rest_waits_for_no_interval_once_the_canary_is_proven() -> None:
    world = Rollout(nodes=8)
    world.add_policy(policy("p", rollout=rollout(soak=0)))
    world.step()
    (canary,) = world.having(4)
    world.report(canary)

    world.step()

    assert len(world.having(4)) > 1


def test_an_edit_waits_for_no_interval_between_reservations() -> None:
    world = Rollout(nodes=1)
    world.begin(rollout=rollout(soak=0))
    for number in (5, 6, 7):
        world.report("n00", soaked=True)
        world.edit_policy("p", settings=channels(number))

        world.step()

        assert world.offload("n00") == number


def test_a_wave_is_as_large_as_what_went_well_before() -> None:
    """Promise 8."""
    world, sizes = Rollout(nodes=20), []
    world.begin()

    for _ in range(5):
        sizes.append(len(world.having(4)))
        world.soak()

    assert sizes == [1, 2, 4, 8, 16]


def test_without_a_soak_the_rest_follows_the_canary_at_once() -> None:
    world = Rollout(nodes=20)
    world.begin(rollout=rollout(soak=0))

    assert len(world.having(4)) == 1
    world.answer(soaked=True)

    assert len(world.having(4)) == 20


def test_each_kind_of_node_has_its_own_canaries() -> None:
    world = Rollout(nodes=8, n00=("V5", "a"), n01=("V5", "a"), n02=("V6", "b"), n03=("V6", "b"))
    world.begin()

    pushed = world.having(4)

    assert len(pushed) == 3
    assert len({world.cells.get(name) for name in pushed}) == 3


def test_canaries_are_spread_over_zones() -> None:
    """Promise 8."""
    world = Rollout(nodes=30)
    for zone in ("z1", "z2"):
        world.add_node(f"in-{zone}", **{ZONE: zone})
    world.step()
    world.answer()

    world.begin(rollout=rollout(nodes=3))

    assert {world.nodes[name].metadata.labels[ZONE] for name in world.having(4)} == {"z0", "z1", "z2"}


@pytest.mark.parametrize("number", [5, 6, 7, 8])
def test_a_node_that_uses_up_the_budget_is_the_canary_whatever_its_zone(number: int) -> None:
    """It takes no new room, and nobody else has any: without it the rollout would stand still for ever."""
    world = Rollout(nodes=4, zones=4)
    world.begin(rollout=rollout(unproven=1))
    (canary,) = world.having(4)

    world.edit_policy("p", settings=channels(number))
    world.answer(failed=(canary,))

    assert world.having(number) == [canary]


def test_all_canaries_of_a_cell_have_to_soak_before_the_next_wave() -> None:
    """Promise 8."""
    world = Rollout(nodes=8)
    world.begin(rollout=rollout(nodes=2))
    world.answer()
    first, second = world.having(4)
    world.now += SOAK

    world.report(first, soaked=True)
    world.pass_time()

    assert world.having(4) == [first, second]


def test_a_canary_wave_larger_than_the_fleet_is_the_fleet() -> None:
    world = Rollout(nodes=3)

    world.begin(rollout=rollout(nodes=50))

    assert len(world.having(4)) == 3
    world.soak()
    assert world.stand["phase"] == "Complete"


@pytest.mark.parametrize(("unproven", "number"), [(1, 1), ("10%", 2), ("11%", 3), (5, 5), ("100%", 20)])
def test_no_more_nodes_are_unproven_than_the_policy_allows(unproven: int | str, number: int) -> None:
    """Promise 8: a percentage of the matched nodes rounds up, and is at least one."""
    world = Rollout(nodes=20)

    world.begin(rollout=rollout(nodes=20, unproven=unproven))
    world.answer()

    assert len(world.having(4)) == number
    assert world.status("p")["overlays"]["unproven"] == number


def test_nothing_is_pushed_before_its_reservation_is_stored() -> None:
    """Promise 8."""
    world = Rollout(nodes=4)
    world.add_policy(policy("p", rollout=rollout()))

    first = world.decide()
    world.carry_out(write for write in first.writes if write.key.kind is WriteKind.REVISION)
    again = world.decide()

    assert WriteKind.STATE_SPEC not in {key.kind for key in keys(first) + keys(again)}
    reservation = next(write for write in first.writes if write.key.kind is WriteKind.POLICY_STATUS)
    assert len(json.loads(reservation.body)["status"]["rollout"]["reserved"]) == 1


def test_nothing_is_pushed_before_its_revision_is_stored() -> None:
    """Promise 8."""
    world = Rollout(nodes=4)
    world.add_policy(policy("p", rollout=rollout()))

    first = world.decide()
    world.carry_out(write for write in first.writes if write.key.kind is WriteKind.POLICY_STATUS)
    world.now += 2
    again = world.decide()

    assert WriteKind.STATE_SPEC not in {key.kind for key in keys(again)}


def test_a_reservation_goes_onto_the_status_that_was_seen_or_nowhere() -> None:
    """Promise 8."""
    world = Rollout(nodes=4)
    world.add_policy(policy("p", rollout=rollout()))
    first = world.decide()

    world.edit_policy("p", priority=7)
    world.carry_out(first.writes)

    assert world.status("p") == {}


def test_a_node_that_was_pushed_is_named_until_its_push_is_seen() -> None:
    """Promise 8: a crash in between leaves nobody uncounted."""
    world = Rollout(nodes=4)
    world.add_policy(policy("p", rollout=rollout()))
    world.carry_out(world.decide().writes)
    (name,) = world.stand["reserved"]

    push = world.decide()  # and nothing is heard of it
    for _ in range(3):
        world.now += 6
        world.carry_out(world.decide().writes)

    assert keys(push) == [WriteKey(WriteKind.STATE_SPEC, name)]
    assert world.stand["reserved"] == [name]


def test_a_finished_rollout_says_so_and_waits_for_nothing() -> None:
    world = Rollout(nodes=8)
    world.begin()

    world.finish()

    assert world.stand["phase"] == "Complete"
    assert world.status("p")["overlays"]["unproven"] == 0
    assert "reserved" not in world.stand
    assert world.condition("p", "Ready")["status"] == "True"


def test_nodes_that_wait_or_soak_are_pending_and_say_why() -> None:
    world = Rollout(nodes=4)
    world.begin()
    world.answer()
    world.pass_time(10)

    reasons = {one["node"]: one["reason"] for one in world.status("p")["worstNodes"]}

    (canary,) = world.having(4)
    assert reasons.pop(canary) == "Soaking"
    assert set(reasons.values()) == {"AwaitingRollout"}
    assert world.condition("p", "Ready")["reason"] == "Applying"


# Edits


def test_an_edit_in_mid_rollout_begins_with_a_canary_again() -> None:
    world = Rollout(nodes=8)
    world.begin()
    world.soak()

    world.edit_policy("p", settings=channels(2))
    world.pass_time()

    assert len(world.having(2)) == 1
    assert len(world.having(4)) <= 2


def test_a_soak_of_the_settings_of_before_proves_nothing() -> None:
    """Promise 8."""
    world = Rollout(nodes=8)
    world.begin()
    world.finish()
    world.edit_policy("p", settings=channels(2))
    world.pass_time()
    (canary,) = world.having(2)

    world.report(canary, soaked=False)
    world.states[canary]["status"]["groups"]["offload"]["soakedRevision"] = "0123456789abcdef"
    world.show_state(canary)
    world.pass_time()

    assert world.status("p")["overlays"]["unproven"] == 1
    assert world.having(2) == [canary]


def test_a_reservation_that_was_decided_before_an_edit_is_not_written_after_it() -> None:
    """Promise 8: what is on its way can no longer be stored, and the edit may have left less room."""
    world = Rollout(nodes=8)
    world.add_policy(policy("p", rollout=rollout(nodes=8)))
    world.decide()  # eight names, and nothing is heard of them

    world.edit_policy("p", rollout=rollout(nodes=8, unproven=2))
    world.now += 6
    world.carry_out(world.decide().writes)

    assert len(world.stand["reserved"]) == 2


def test_a_push_that_was_refused_is_closed_before_its_name_is_dropped() -> None:
    """Promise 8: an earlier request of it, which had no answer, may still arrive at a node that nobody names then."""
    world = Rollout(nodes=1)
    world.add_policy(policy("p", rollout=rollout()))
    (push,) = world.specs(7.0)
    world.turn(FleetSwitch.HOLD)
    world.decide()

    world.fleet.write_failed(push.key)
    world.now += 7
    again = [write for write in world.decide().writes if write.key == push.key]

    assert [json.loads(write.body)["spec"].get("groups") for write in again] == [None]
    assert json.loads(again[0].body)["spec"]["writeSequence"] > json.loads(push.body)["spec"]["writeSequence"]
    assert world.stand["reserved"] == ["n00"]


def test_a_name_stays_while_what_takes_its_push_back_looks_like_what_is_there() -> None:
    """Promise 8: the push has no answer yet, and may still arrive before what was decided after it."""
    world = Rollout(nodes=1)
    world.begin(rollout=rollout(soak=0))
    world.answer(soaked=True)
    world.edit_policy("p", settings=channels(2))
    (push,) = world.specs(7.0)
    world.edit_policy("p", settings=channels(4))
    (back,) = world.specs(7.0)

    world.report("n00", soaked=True)
    world.now += 7
    world.carry_out(write for write in world.decide().writes if write.key.kind is WriteKind.POLICY_STATUS)

    assert world.fleet.snapshot().open_spec_writes == 1
    assert "n00" in {*world.stand.get("reserved", ()), *world.stand.get("carried", ())}
    world.carry_out([push, back])
    world.pass_time()
    assert world.having(4) == ["n00"]
    assert not world.stand.get("reserved")


def test_after_an_edit_to_a_smaller_budget_nobody_is_reserved_before_there_is_room() -> None:
    """Promise 8."""
    world = Rollout(nodes=20)
    world.begin(rollout=rollout(nodes=8, unproven=8))

    world.edit_policy("p", rollout=rollout(nodes=20, unproven=2))
    world.soak()

    assert len(world.having(4)) == 10


def test_after_an_edit_to_a_smaller_budget_no_more_is_pushed_of_what_was_reserved_before() -> None:
    """Promise 8."""
    world = Rollout(nodes=8)
    world.add_policy(policy("p", rollout=rollout(nodes=8)))
    while len(world.status("p").get("rollout", {}).get("reserved", ())) < 8:
        world.carry_out(world.decide().writes)
        world.now += 1

    world.edit_policy("p", rollout=rollout(nodes=8, unproven=2))
    world.pass_time()

    assert len(world.having(4)) == 2


def test_after_an_edit_to_a_smaller_budget_no_more_are_pushed_anew_than_it_allows() -> None:
    """Promise 8: nodes that count already take no new room, and yet not all of them are pushed at once."""
    world = Rollout(nodes=8)
    world.begin(rollout=rollout(nodes=4, unproven=4))
    world.answer()

    world.edit_policy("p", settings=channels(2), rollout=rollout(nodes=4, unproven=1))
    world.pass_time()

    assert (len(world.having(2)), len(world.having(4))) == (1, 3)
    world.finish()
    assert len(world.having(2)) == 8


def test_after_an_edit_to_a_smaller_budget_no_more_names_of_nodes_that_count_are_kept_than_it_allows() -> None:
    """Promise 8."""
    world = Rollout(nodes=8)
    world.begin(rollout=rollout(nodes=4, unproven=4))
    world.answer()
    world.edit_policy("p", settings=channels(2))
    while len(world.status("p")["rollout"].get("reserved") or ()) < 4:
        world.carry_out(world.decide().writes)
        world.now += 1

    world.edit_policy("p", rollout=rollout(nodes=4, unproven=1))
    world.pass_time()

    assert len(world.having(2)) == 1


@pytest.mark.parametrize("names", ["chosen", "kept"])
def test_after_an_edit_to_a_smaller_budget_a_push_that_may_still_come_has_its_place_in_it(names: str) -> None:
    """Promise 8: who is carried counts, and is no node that others may be taken for."""
    world = Rollout(nodes=8)
    world.begin(rollout=rollout(nodes=4, unproven=4))
    world.answer()
    world.edit_policy("p", settings=channels(2))
    _, *pushes = world.specs(7.0)  # the first one is on its way for long
    world.carry_out(pushes)
    if names == "kept":
        world.edit_policy("p", settings=channels(3), rollout=rollout(nodes=4, unproven=3))
        while not world.stand.get("carried"):
            world.store_ledgers(1)
    world.edit_policy("p", settings=channels(3), rollout=rollout(nodes=4, unproven=2))

    world.store_ledgers(8)

    assert len(world.stand["carried"]) == 1
    assert len(world.stand["reserved"]) == 1


def test_after_an_edit_to_a_larger_budget_what_was_reserved_before_is_pushed() -> None:
    world = Rollout(nodes=8)
    world.add_policy(policy("p", rollout=rollout(nodes=8, unproven=8)))
    while not world.status("p").get("rollout", {}).get("reserved"):
        world.carry_out(world.decide().writes)
        world.now += 1

    world.edit_policy("p", rollout=rollout(nodes=8, unproven=9))
    world.step()

    assert len(world.having(4)) == 8


def test_an_edit_takes_a_node_first_that_is_unproven_already() -> None:
    """Promise 8: it takes no new room."""
    world = Rollout(nodes=8)
    world.begin(rollout=rollout(unproven=1))
    world.answer()
    (canary,) = world.having(4)

    world.edit_policy("p", settings=channels(2))
    world.pass_time()

    assert world.having(2) == [canary]


def test_an_edit_that_moves_no_knob_waits_for_nobody() -> None:
    world = Rollout(nodes=8)
    world.begin()
    world.finish()

    world.edit_policy("p", onDelete="Keep", drift="Correct", priority=9)
    world.pass_time()

    assert len(world.having(4)) == 8
    assert world.stand["phase"] == "Complete"


def test_turning_offload_off_waits_for_nobody() -> None:
    """Promise 17."""
    world = Rollout(nodes=8)
    world.begin()
    world.finish()

    world.edit_policy("p", settings={"offload": {"engine": "Off"}})
    world.step()

    engines = {world.groups(name)["offload"]["settings"]["engine"] for name in world.states}
    assert engines == {"Off"}


def test_a_paused_rollout_stands_and_goes_on_where_it_stood() -> None:
    world = Rollout(nodes=8)
    world.begin()
    world.soak()

    world.edit_policy("p", mode="Paused")
    world.soak()
    stood = len(world.having(4))
    world.edit_policy("p", mode="Apply")
    world.soak()

    assert stood == 2
    assert len(world.having(4)) == 4


# New nodes


def test_a_new_node_in_a_proven_cell_joins_at_once() -> None:
    world = Rollout(nodes=4)
    world.begin()
    world.finish()

    world.add_node("new")
    world.pass_time()

    assert world.offload("new") == 4
    assert world.status("p")["overlays"]["unproven"] == 1


def test_a_new_node_joins_what_is_proven_while_something_newer_is_tried() -> None:
    """Promise 8."""
    world = Rollout(nodes=4)
    world.begin()
    world.finish()
    world.edit_policy("p", settings=channels(2))
    world.pass_time()

    world.add_node("new")
    world.pass_time()

    assert world.offload("new") == 4
    world.finish()
    assert world.offload("new") == 2


@pytest.mark.parametrize("how", ["relabelled", "switched off"])
def test_a_node_that_goes_and_comes_back_at_once_is_reserved_anew_before_its_next_push(how: str) -> None:
    """Promise 8: a reservation is good for one push, also while the stored ledger still has the name."""
    world = Rollout(nodes=4)
    for name in list(world.nodes):
        world.add_node(name, app="database")
    world.add_policy(policy("p", rollout=rollout(unproven=1), nodeSelector={"matchLabels": {"app": "database"}}))
    world.carry_out(world.specs(7))
    (canary,) = world.having(4)

    if how == "relabelled":
        world.add_node(canary)
        world.step()
        world.add_node(canary, app="database")
    else:
        world.turn(FleetSwitch.RESTORE)
        world.step()
        world.turn(FleetSwitch.RUN)
    again = world.step()

    assert world.stand["reserved"] == [canary]
    assert [write.key for write in again.writes if write.key.kind is WriteKind.STATE_SPEC] == []


def test_whoever_was_reserved_to_join_what_is_proven_is_no_canary_of_something_newer() -> None:
    """Promise 8: what waits for nobody of it comes at once, and then the node does not join any more."""
    world = Rollout(nodes=4)
    world.begin(settings={"offload": {"engine": "Off"}, "demotion": {"enabled": True}})
    world.finish()
    world.turn(FleetSwitch.RESTORE)
    world.answer()

    world.turn(FleetSwitch.RUN)
    world.edit_policy("p", settings=channels(2) | {"demotion": {"enabled": True}})
    world.pass_time()

    pushed = [name for name in world.states if world.groups(name)["offload"]["settings"].get("channels") == 2]
    assert len(pushed) == 1
    world.finish()
    assert (len(world.having(2)), world.stand["phase"]) == (4, "Complete")


def test_a_new_kind_of_node_is_its_own_canary() -> None:
    world = Rollout(nodes=4)
    world.begin()
    world.finish()
    world.cells |= {"new1": ("V5", "b"), "new2": ("V5", "b")}

    world.add_node("new1")
    world.add_node("new2")
    world.pass_time()

    assert sorted([world.offload("new1"), world.offload("new2")], key=str) == [4, None]


def test_a_node_whose_agent_never_spoke_is_not_pushed() -> None:
    world = Rollout(nodes=2)
    world.cells["dumb"] = ("", "")
    world.add_node("dumb")

    world.begin()
    world.finish()

    assert world.offload("dumb") is None


def test_a_reboot_makes_nobody_unproven() -> None:
    world = Rollout(nodes=4)
    world.begin()
    world.finish()

    world.report("n00", soaked=True, bootID="another")
    world.pass_time()

    assert world.status("p")["overlays"]["unproven"] == 0


# Silence


def test_a_silent_canary_blocks_for_as_long_as_the_deadline_and_then_another_is_taken() -> None:
    world = Rollout(nodes=3)
    world.begin()
    (silent,) = world.having(4)

    world.pass_time(600)
    world.report_all_but(silent)
    assert world.having(4) == [silent]
    world.pass_time(400)
    world.report_all_but(silent)

    assert len(world.having(4)) == 2
    assert world.stand["phase"] in {"Progressing", "Soaking"}


def test_an_unreachable_node_is_not_pushed() -> None:
    """Promise 8."""
    world = Rollout(nodes=3)
    world.now += 1000
    for name in ("n00", "n01"):
        world.report(name)

    world.begin(rollout=rollout(nodes=3))

    assert world.having(4) == ["n00", "n01"]


def test_a_silent_node_that_could_not_do_it_before_holds_up_nobody() -> None:
    """It counts as unsupported, as its last report says; yet nothing that it is sent will ever be answered."""
    world = Rollout(nodes=3, n00=("V3", "other"))
    world.begin(rollout=rollout(soak=0))
    for _ in range(4):
        for name in world.states:
            world.report(name, {"offload": "Unsupported"} if name == "n00" else None)
        world.pass_time()
    assert world.having(4) == ["n00", "n01", "n02"]

    world.now += 1000
    world.report_all_but("n00")
    world.edit_policy("p", settings=channels(5))
    for _ in range(4):
        for name in ("n01", "n02"):
            world.report(name)
        world.pass_time()

    assert world.having(5) == ["n01", "n02"]
    assert world.stand["phase"] == "Complete"


# Failure


def test_a_failed_canary_halts_the_rollout() -> None:
    world = Rollout(nodes=8)
    world.begin(rollout=rollout(onFailure="Halt"))
    (canary,) = world.having(4)

    world.soak(failed=(canary,))
    world.soak(failed=(canary,))

    assert world.having(4) == [canary]
    assert world.stand["phase"] == "Halted"
    assert canary in world.stand["message"]
    assert world.condition("p", "Stalled")["reason"] == "RolloutHalted"


def test_where_a_node_has_failed_with_what_an_edit_leaves_of_a_policy_no_other_one_gets_it() -> None:
    """Promise 8: it is a canary of the new revision that has failed, before that revision is stored."""
    world = Rollout(nodes=4)
    world.begin(settings=channels(4) | {"demotion": {"enabled": True}}, rollout=rollout(onFailure="Halt"))
    (canary,) = world.having(4)
    world.answer(failed=(canary,))
    assert world.stand["phase"] == "Halted"

    world.edit_policy("p", settings=channels(4))
    world.pass_time()
    world.pass_time()

    assert world.having(4) == [canary]
    assert (world.stand["phase"], world.stand["generation"]) == ("Halted", 2)


def test_a_revision_is_created_and_then_written_onto_what_was_seen_of_it() -> None:
    """Promise 8: revisions have no fence, and the first write of one may arrive after a verdict."""
    world = Rollout(nodes=4)
    world.begin(rollout=rollout(onFailure="Halt"))
    (canary,) = world.having(4)
    world.answer(failed=(canary,))

    first, verdict = (one for one in world.written if one.key.kind is WriteKind.REVISION)

    assert (first.patch, verdict.patch) == (Patch.CREATE, Patch.APPLY)
    versions = (json.loads(one.body)["metadata"].get("resourceVersion") for one in (first, verdict))
    assert list(versions) == [None, "1"]


def test_a_verdict_that_another_write_has_overtaken_is_written_onto_that_one() -> None:
    world = Rollout(nodes=4)
    world.begin(rollout=rollout(onFailure="Halt"))
    (canary,), (name,) = world.having(4), world.revisions
    world.revisions[name]["metadata"]["resourceVersion"] = "8"

    world.answer(failed=(canary,))

    assert world.revisions[name]["metadata"]["resourceVersion"] == "9"
    assert world.stand["phase"] == "Halted"
    assert world.having(4) == [canary]


@pytest.mark.parametrize(("number", "joined"), [(4, None), (2, 4)], ids=["only onDelete differs", "settings differ"])
def test_after_a_halt_a_new_node_gets_nothing_of_what_failed(number: int, joined: int | None) -> None:
    """Promise 8: not either as an older revision, which went well, and asks the same of its groups."""
    world = Rollout(nodes=4)
    world.begin(onDelete="Restore", rollout=rollout(onFailure="Halt"), meta={"finalizers": [RESTORE_FINALIZER]})
    world.finish()
    world.edit_policy("p", onDelete="Keep", settings=channels(number))
    world.finish()
    world.soak(failed=tuple(world.states))
    assert world.stand["phase"] == "Halted"

    world.add_node("new")
    world.finish()

    assert world.offload("new") == joined


def test_a_failed_revision_is_taken_back_to_what_was_there_before_the_policy() -> None:
    world = Rollout(nodes=8)
    world.begin(onDelete="Restore", meta={"finalizers": ["numamigration.dev/restore"]})
    (canary,) = world.having(4)

    world.answer(failed=(canary,))
    assert world.having(0) == [canary]
    world.answer()

    assert world.having(None) == sorted(world.states)
    assert world.stand["phase"] == "RolledBack"
    assert world.condition("p", "Ready")["reason"] == "RolledBack"


def test_a_rollback_does_not_wait_for_nodes_on_which_both_revisions_ask_the_same() -> None:
    """They have what they shall have, so nobody is told that the failed one is still there."""
    world = Rollout(nodes=4)
    world.add_node("n09", **{ZONE: "far"})
    far = {"matchLabels": {ZONE: "far"}}
    world.add_policy(policy("high", priority=900, nodeSelector=far, settings=channels(8), rollout=rollout()))
    world.begin(settings={"demotion": {"enabled": True}}, rollout=rollout(nodes=5))
    world.finish()
    world.edit_policy("p", settings=channels(4) | {"demotion": {"enabled": True}})
    world.pass_time()
    assert world.offload("n09") == 8

    world.answer(failed=tuple(world.having(4)))
    world.answer()

    assert world.stand["phase"] == "RolledBack"
    assert "still have it" not in world.stand["message"]


def test_a_rollback_ends_in_time_where_the_clock_of_the_last_leader_was_ahead() -> None:
    """What nodes still have is told once the deadline is over, and not hours later."""
    world = Rollout(nodes=4)
    world.begin()
    world.finish()
    world.edit_policy("p", settings=channels(2))
    world.pass_time()
    (canary,) = world.having(2)
    world.turn(FleetSwitch.HOLD)
    world.now += HOUR
    world.answer(failed=(canary,))
    world.now -= HOUR
    world.restart(epoch=2)
    world.pass_time()
    assert world.stand["phase"] == "RollingBack"

    world.pass_time(900.0)

    assert world.stand["phase"] == "RolledBack"
    assert world.stand["message"].endswith(f"1 nodes still have it, for example {canary}")


def test_why_a_rollout_failed_stands_in_the_line_that_is_shown() -> None:
    world = Rollout(nodes=8)
    world.begin(onDelete="Restore", meta={"finalizers": ["numamigration.dev/restore"]})
    (canary,) = world.having(4)
    world.answer(failed=(canary,))
    world.answer()
    assert world.policies["p"]["status"]["summary"] == "0/8 ready, rolled back: PermissionDenied on V6"


def test_a_rollback_is_one_event() -> None:
    world = Rollout(nodes=8)
    world.begin(onDelete="Restore", meta={"finalizers": ["numamigration.dev/restore"]})
    (canary,) = world.having(4)
    world.report(canary, {"offload": FAILED})
    events = world.step(7.0).events
    world.report(canary)
    events += world.step(7.0).events
    assert [event.reason for event in events].count(Reason.ROLLED_BACK) == 1


def test_a_failed_revision_is_taken_back_to_the_last_proven_one() -> None:
    world = Rollout(nodes=8)
    world.begin()
    world.finish()
    world.edit_policy("p", settings=channels(2))
    world.pass_time()
    (canary,) = world.having(2)

    world.answer(failed=(canary,))
    world.finish()

    assert world.having(4) == sorted(world.states)
    assert world.stand["phase"] == "RolledBack"
    assert world.stand["revision"] != world.stand["provenRevision"]


def test_a_rollback_takes_nodes_of_other_cells_back_too() -> None:
    world = Rollout(nodes=8, n00=("V5", "b"), n01=("V5", "b"))
    world.begin()
    world.finish()
    world.edit_policy("p", settings=channels(2))
    world.pass_time()
    bad = next(name for name in world.having(2) if name in {"n00", "n01"})

    for _ in range(3):
        world.soak(failed=(bad,) if world.offload(bad) == 2 else ())
    world.finish()

    assert world.having(4) == sorted(world.states)


def test_a_revision_that_failed_in_one_cell_is_not_shown_as_the_proven_one() -> None:
    world = Rollout(nodes=8, n00=("V5", "b"), n01=("V5", "b"))
    world.begin()
    bad = next(name for name in world.having(4) if name in {"n00", "n01"})
    for name in world.states:
        world.report(name, soaked=name != bad)
    world.pass_time()
    assert world.stand["provenRevision"]

    world.report(bad, {"offload": FAILED})
    world.pass_time()

    assert world.stand["phase"] in {"RollingBack", "RolledBack"}
    assert "provenRevision" not in world.stand


def test_nothing_is_taken_back_before_the_verdict_is_stored() -> None:
    """Promise 8."""
    world = Rollout(nodes=8)
    world.begin()
    (canary,) = world.having(4)
    world.report(canary, {"offload": FAILED})

    first = world.decide()
    world.report(canary, {"offload": ("Failed", "KernelError")})
    second = world.decide()

    assert WriteKind.REVISION in {write.key.kind for write in first.writes}
    assert WriteKind.STATE_SPEC not in {write.key.kind for write in (*first.writes, *second.writes)}


def test_a_failed_revision_is_not_tried_again_by_another_operator() -> None:
    world = Rollout(nodes=8)
    world.begin()
    (canary,) = world.having(4)
    world.answer(failed=(canary,))
    world.finish()

    world.restart(epoch=2)
    world.finish()

    assert world.having(4) == []


def test_a_failed_revision_is_not_tried_again_when_somebody_deletes_its_record() -> None:
    world = Rollout(nodes=8)
    world.begin()
    (canary,) = world.having(4)
    world.answer(failed=(canary,))
    world.finish()

    for name in list(world.revisions):
        del world.revisions[name]
        world.fleet.revision_gone(name, world.now)
    world.finish()

    assert world.having(4) == []


def test_an_edit_of_the_policy_tries_a_failed_revision_again() -> None:
    world = Rollout(nodes=8)
    world.begin()
    (canary,) = world.having(4)
    world.answer(failed=(canary,))
    world.finish()

    world.edit_policy("p", rollout=rollout(unproven="50%"))
    world.finish()

    assert len(world.having(4)) == 8
    assert world.stand["phase"] == "Complete"


def test_after_the_canaries_so_many_failed_nodes_are_borne() -> None:
    world = Rollout(nodes=20)
    world.begin(rollout=rollout(soak=0, failureThreshold=2, onFailure="Halt"))
    (canary,) = world.having(4)
    world.report(canary)
    world.pass_time()
    one, two = [name for name in world.having(4) if name != canary][:2]

    world.answer(soaked=True, failed=(one,))
    borne = world.stand["phase"]
    world.answer(soaked=True, failed=(one, two))

    assert borne != "Halted"
    assert world.stand["phase"] == "Halted"
    assert world.stand["message"].startswith(f"2 of 20 nodes failed, first {min(one, two)}: PermissionDenied: ")


def test_failed_nodes_that_use_up_the_budget_fail_the_rollout() -> None:
    world = Rollout(nodes=20)
    world.begin(rollout=rollout(soak=0, unproven=1, failureThreshold="100%", onFailure="Halt"))
    (canary,) = world.having(4)
    world.report(canary)
    world.pass_time()
    (second,) = [name for name in world.having(4) if name != canary]

    world.answer(soaked=True, failed=(second,))
    world.pass_time()

    assert world.stand["phase"] == "Halted"


def test_a_node_that_refuses_takes_no_room_and_proves_nothing() -> None:
    world = Rollout(nodes=8)
    world.begin(rollout=rollout(unproven=1))
    (canary,) = world.having(4)

    world.report(canary, {"offload": ("Refused", "RiskNotAccepted")})
    world.pass_time()

    assert len(world.having(4)) == 2
    assert "Proven" not in json.dumps(world.revisions)


def test_an_edit_of_on_delete_makes_no_node_unproven_that_has_no_such_files() -> None:
    """Promise 8: else those nodes would count already, and a later edit would push them all at once."""
    world = Rollout(nodes=4)
    world.begin(rollout=rollout(soak=0, unproven=1))
    for _ in world.states:
        for name in world.states:
            world.report(name, {"offload": "Unsupported"})
        world.pass_time()

    world.edit_policy("p", onDelete="Restore")
    world.pass_time()

    assert {world.groups(name)["offload"]["release"] for name in world.states} == {"Restore"}
    assert world.status("p")["overlays"]["unproven"] == 0
    world.edit_policy("p", settings=channels(2))
    world.pass_time()
    assert len(world.having(2)) == 1


def test_a_node_where_others_win_all_that_needs_canaries_proves_nothing() -> None:
    """Promise 8."""
    world = Rollout(nodes=4)
    world.add_node("n00", app="busy")
    demotion = {"demotion": {"enabled": True}}
    world.add_policy(policy("q", priority=900, settings=demotion, nodeSelector={"matchLabels": {"app": "busy"}}))
    world.pass_time()
    world.answer(soaked=True)

    world.begin(settings={"offload": {"engine": "Off"}} | demotion)
    world.answer()
    world.answer()

    demoted = [name for name in world.states if "demotion" in world.groups(name)]
    assert len(demoted) == 2  # one of them by q
    assert "Proven" not in json.dumps([one for name, one in world.revisions.items() if name.startswith("p-")])


# Leaders


def test_a_new_leader_pushes_nothing_before_it_has_claimed_and_listed_anew() -> None:
    """Promise 8: what its predecessor did between our list and our claim would be unseen."""
    world = Rollout(nodes=8)
    world.begin()
    world.soak()
    world.restart(epoch=2)
    world.now += 10

    claim = world.decide()
    world.carry_out(claim.writes)
    world.now += 10
    waiting = world.decide()

    assert [key.kind for key in keys(claim)] == [WriteKind.POLICY_STATUS]
    assert waiting.relist
    assert WriteKind.STATE_SPEC not in {key.kind for key in keys(waiting)}


def test_what_the_predecessor_reserved_counts_until_it_can_arrive_no_more() -> None:
    """Promise 8."""
    world = Rollout(nodes=8)
    world.add_policy(policy("p", rollout=rollout(unproven=1)))
    first = world.decide()
    world.carry_out(first.writes)  # reserved, and nothing is pushed: the leader dies here
    (name,) = world.stand["reserved"]
    world.restart(epoch=2)
    world.now += 10

    world.carry_out(world.decide().writes)

    assert world.stand["carried"] == [name]
    assert "reserved" not in world.stand
    world.step(10)
    world.step(10)
    assert world.having(4) == [name]
    assert "carried" not in world.stand


def test_a_carried_node_is_written_once_more_with_what_is_on_its_way() -> None:
    """Promise 7: a push of another policy would be taken back, and nothing of it restored."""
    world = Rollout(nodes=1)
    world.add_policy(policy("p", rollout=rollout(unproven=1)))
    world.carry_out(world.decide().writes)  # reserved, and nothing is pushed: the leader dies here
    world.restart(epoch=2)
    world.add_policy(policy("q", priority=900, settings={"balancing": {"mode": "Off"}}, rollout=rollout()))
    pushes: list[bytes] = []
    while not pushes:
        world.now += 1
        decided = world.decide()
        pushes = [write.body for write in decided.writes if write.key.kind is WriteKind.STATE_SPEC]
        world.carry_out([write for write in decided.writes if write.key.kind is not WriteKind.STATE_SPEC])

    world.fleet.relisted(world.now)
    again = [write.body for write in world.decide().writes if write.key.kind is WriteKind.STATE_SPEC]

    assert [list(json.loads(body)["spec"]["groups"]) for body in again] == [["balancing"]]


def test_what_a_predecessor_pushes_late_is_not_replaced_before_it_is_seen() -> None:
    """Promise 7: the node is to be closed as it was seen, and what came meanwhile would go without a restore."""
    world = Rollout(nodes=1)
    world.add_policy(policy("p", rollout=rollout(unproven=1), onDelete="Restore"))
    (late,) = world.specs(10)
    world.restart(epoch=2)
    (closing,) = world.specs(10)
    assert "groups" not in json.loads(closing.body)["spec"]
    world.store_late(late)

    world.carry_out([closing])

    assert world.having(4) == ["n00"]
    world.step(10)
    assert world.states["n00"]["spec"]["leaderEpoch"] == 2
    assert world.having(4) == ["n00"]


def test_a_replacement_of_what_a_predecessor_wrote_goes_onto_what_was_seen() -> None:
    """Promise 7."""
    world = Rollout(nodes=1)
    world.begin(onDelete="Restore")
    world.states["n00"]["spec"]["groups"]["balancing"] = world.groups("n00")["offload"] | {"settings": TIERING}
    world.states["n00"]["metadata"]["generation"] += 1
    world.restart(epoch=2)

    (write,) = world.specs(10)

    assert write.patch is Patch.JSON
    version = {"op": "test", "path": "/metadata/resourceVersion", "value": world.state("n00").metadata.resource_version}
    assert version in json.loads(write.body)


def test_a_push_over_what_a_predecessor_wrote_follows_what_is_shown() -> None:
    """Promise 17: after a takeover a way off may wait for its turn while agents report, and was refused for each."""
    world = Rollout(nodes=1)
    world.begin()
    world.soak()
    world.restart(epoch=2)
    world.turn(FleetSwitch.OFF)
    (first,) = world.specs()
    world.report("n00")

    (again,) = world.specs()

    bodies = [json.loads(write.body) for write in (first, again)]
    versions = [body["metadata"]["resourceVersion"] for body in bodies]
    assert versions == [versions[0], world.state("n00").metadata.resource_version]
    assert versions[0] != versions[1]
    assert bodies[0]["spec"]["groups"] == bodies[1]["spec"]["groups"]
    world.carry_out([again])
    assert world.states["n00"]["spec"]["leaderEpoch"] == 2


def test_of_two_pushes_over_what_a_predecessor_wrote_the_second_is_not_refused_for_the_first() -> None:
    world = Rollout(nodes=1)
    world.begin()
    world.soak()
    world.restart(epoch=2)
    world.turn(FleetSwitch.OFF)
    (first,) = world.specs()
    world.turn(FleetSwitch.RESTORE)
    (second,) = world.specs()
    assert "resourceVersion" in json.loads(second.body)["metadata"]

    world.carry_out([first])

    (again,) = world.specs()
    assert "resourceVersion" not in json.loads(again.body)["metadata"]
    assert json.loads(again.body)["spec"]["groups"] == json.loads(second.body)["spec"]["groups"]
    world.carry_out([again])
    assert world.specs() == []


def test_a_push_over_what_this_leader_wrote_waits_for_no_report() -> None:
    """Promise 17: the fence and its sequence refuse all else, and no report of an agent is to hold it up."""
    world = Rollout(nodes=1)
    world.begin()
    world.soak()
    world.turn(FleetSwitch.OFF)
    (push,) = world.specs()
    world.report("n00")

    assert "resourceVersion" not in json.loads(push.body)["metadata"]
    assert world.specs() == []


def test_a_restart_in_mid_rollout_goes_on_without_a_new_canary() -> None:
    world = Rollout(nodes=8)
    world.begin()
    world.soak()
    assert len(world.having(4)) == 2

    world.restart(epoch=2)
    world.pass_time(10)
    world.soak()

    assert len(world.having(4)) == 4


# Several policies


def test_each_policy_has_its_own_budget_on_nodes_that_two_of_them_select() -> None:
    """Promise 8."""
    world = Rollout(nodes=10)
    world.begin(rollout=rollout(nodes=10, unproven=2))
    world.add_policy(policy("q", settings={"demotion": {"enabled": True}}, rollout=rollout(nodes=10, unproven=3)))

    world.pass_time()
    world.answer()

    demoted = [name for name in world.states if "demotion" in world.groups(name)]
    assert (len(world.having(4)), len(demoted)) == (2, 3)


def test_a_push_of_one_policy_makes_nobody_unproven_for_another() -> None:
    world = Rollout(nodes=4)
    world.begin()
    world.finish()

    world.add_policy(policy("q", settings={"demotion": {"enabled": True}}, rollout=rollout()))
    world.pass_time()
    for name in world.states:
        world.report(name)
    world.pass_time()

    assert world.status("p")["overlays"]["unproven"] == 0


def test_a_group_that_is_lost_stays_as_it_is_until_the_winner_comes() -> None:
    world = Rollout(nodes=4)
    world.begin()
    world.finish()

    world.add_policy(policy("q", priority=900, settings=channels(8), rollout=rollout()))
    world.pass_time()

    assert (len(world.having(8)), len(world.having(4))) == (1, 3)


def test_a_node_to_which_the_way_back_brings_nothing_is_not_waited_for() -> None:
    world = Rollout(nodes=3)
    world.add_policy(policy("low", priority=1, rollout=rollout()))
    world.add_node("n09", **{ZONE: "far"})
    world.finish()
    near = {"matchLabels": {ZONE: "z0"}}
    world.begin(
        priority=200, nodeSelector=near, settings={"balancing": {"mode": "Off"}}, rollout=rollout(onFailure="Halt")
    )
    world.finish()
    world.edit_policy("p", settings=channels(8))
    world.pass_time()
    (canary,) = world.having(8)
    world.soak(failed=(canary,))

    world.add_node("n09", **{ZONE: "z0"})
    world.soak(failed=(canary,))

    assert world.stand["phase"] == "Halted"
    assert world.offload("n09") == 4
    assert not world.stand.get("reserved")


def test_what_a_deleted_policy_leaves_is_restored_where_the_next_winner_has_to_wait() -> None:
    world = Rollout(nodes=4)
    world.begin(onDelete="Restore", meta={"finalizers": ["numamigration.dev/restore"]})
    world.finish()
    world.add_policy(policy("low", priority=1, settings=channels(8), rollout=rollout()))
    world.pass_time()

    world.delete_policy("p")
    world.step()

    assert (len(world.having(0)), len(world.having(8))) == (3, 1)


# The switch


def test_under_the_fleet_switch_nothing_is_reserved() -> None:
    world = Rollout(nodes=4)
    world.turn(FleetSwitch.HOLD)

    world.begin()

    assert world.having(4) == []
    assert "reserved" not in world.stand


def test_back_at_run_settings_are_rolled_out_anew() -> None:
    world = Rollout(nodes=8)
    world.begin()
    world.finish()
    world.turn(FleetSwitch.OFF)
    world.answer()

    world.turn(FleetSwitch.RUN)
    world.pass_time()

    on = [name for name in world.states if world.groups(name)["offload"]["settings"]["engine"] == "DMA"]
    assert len(on) == 1


# Guardrails


def test_a_crossed_guardrail_fails_the_canary() -> None:
    world = Rollout(nodes=4)
    world.begin(rollout=rollout(guardrails=[FEW_FAIL], onFailure="Halt"))
    (canary,) = world.having(4)
    numbers = {"seconds": "30", "foliosMigrated": 900, "foliosFailed": 100}

    world.report(canary, soaked=False, window={"revision": world.states[canary]["spec"]["revision"], "after": numbers})
    world.pass_time()
    world.pass_time()

    assert world.stand["phase"] == "Halted"
    assert world.status("p")["worstNodes"][0]["reason"] == "GuardrailTripped"


def test_agents_are_told_what_to_watch_with_the_push() -> None:
    world = Rollout(nodes=4)
    guardrails = [{"metric": "foliosFailedShare", "max": "0.01", "minFolios": 512}]

    world.begin(rollout=rollout(guardrails=guardrails))

    (canary,) = world.having(4)
    assert world.states[canary]["spec"]["observe"] == {"soakSeconds": SOAK, "guardrails": guardrails}


def test_an_edit_of_guardrails_reaches_nodes_that_soak_and_no_others() -> None:
    """Agents keep marks away by the limits that they know: by old ones no soak might ever end."""
    world = Rollout(nodes=8)
    world.begin(rollout=rollout(guardrails=[FEW_FAIL]))
    world.soak()
    (proven,) = [name for name in world.having(4) if "soakedRevision" in str(world.states[name]["status"])]
    (soaking,) = set(world.having(4)) - {proven}
    before = world.states[proven]["spec"]

    world.edit_policy("p", rollout=rollout(soak=2 * SOAK))
    world.pass_time()

    assert world.states[soaking]["spec"]["observe"] == {"soakSeconds": 2 * SOAK, "guardrails": []}
    assert world.states[proven]["spec"] == before


def test_a_push_of_one_policy_shortens_no_soak_of_another() -> None:
    """Promise 8."""
    world = Rollout(nodes=1)
    world.begin(rollout=rollout(guardrails=[FEW_FAIL]))
    world.answer()

    world.add_policy(policy("q", settings={"demotion": {"enabled": True}}, rollout=rollout(soak=1)))
    world.pass_time()

    assert set(world.groups("n00")) == {"offload", "demotion"}
    assert world.states["n00"]["spec"]["observe"] == {"soakSeconds": SOAK, "guardrails": [FEW_FAIL]}


def test_what_is_watched_is_not_written_anew_because_one_of_two_policies_has_soaked() -> None:
    """Promise 12."""
    world = Rollout(nodes=1)
    world.begin(rollout=rollout(guardrails=[FEW_FAIL]))
    world.add_policy(policy("q", settings={"demotion": {"enabled": True}}, rollout=rollout(soak=1)))
    world.pass_time()
    before = world.states["n00"]["spec"]

    soaked = wish_revision(before["groups"]["offload"])
    world.report("n00", soaked=False)
    world.states["n00"]["status"]["groups"]["offload"]["soakedRevision"] = soaked
    world.show_state("n00")
    world.pass_time()

    assert world.stand["phase"] == "Complete"
    assert world.states["n00"]["spec"] == before


def test_a_policy_that_soaks_where_a_guardrail_of_another_is_crossed_fails_with_it() -> None:
    """The agent keeps all marks away meanwhile, so its soak would never end."""
    world = Rollout(nodes=1)
    world.begin(rollout=rollout(guardrails=[FEW_FAIL]))
    world.add_policy(policy("q", settings={"demotion": {"enabled": True}}, rollout=rollout(onFailure="Halt")))
    world.pass_time()
    numbers = {"seconds": "30", "foliosMigrated": 900, "foliosFailed": 100}

    world.report("n00", soaked=False, window={"revision": world.states["n00"]["spec"]["revision"], "after": numbers})
    world.pass_time()
    world.pass_time()

    assert world.status("q")["rollout"]["phase"] == "Halted"


def test_a_node_is_not_judged_by_a_guardrail_that_was_dropped() -> None:
    world = Rollout(nodes=1)
    world.begin(rollout=rollout(guardrails=[FEW_FAIL], onFailure="Halt"))
    numbers = {"seconds": "30", "foliosMigrated": 900, "foliosFailed": 100}
    world.report("n00", soaked=False, window={"revision": world.states["n00"]["spec"]["revision"], "after": numbers})
    world.pass_time()
    world.pass_time()
    failed = world.stand["phase"]

    world.edit_policy("p", rollout=rollout(onFailure="Halt"))
    world.pass_time()
    world.soak()

    assert (failed, world.stand["phase"]) == ("Halted", "Complete")


# History


def test_history_is_bounded_and_keeps_the_way_back() -> None:
    world = Rollout(nodes=2)
    world.begin()
    world.finish()
    proven = next(iter(world.revisions))

    for number in range(1, 16):
        world.edit_policy("p", settings=channels(number))
        world.pass_time()

    assert len(world.revisions) <= 11
    assert proven in world.revisions


def test_the_latest_revision_keeps_the_greatest_number_whoever_numbers_another_one() -> None:
    """As a person does who edits a ControllerRevision, or a backup that is applied again."""
    world = Rollout(nodes=2)
    world.begin()
    world.finish()
    world.edit_policy("p", settings=channels(2))
    world.finish()
    first, latest = sorted(world.revisions, key=lambda name: world.revisions[name]["revision"])

    world.revisions[first]["revision"] = 7
    world.show_revision(first)
    world.step()

    assert world.revisions[latest]["revision"] == 8


def test_a_policy_that_only_plans_by_now_has_no_rollout_any_more() -> None:
    world = Rollout(nodes=2)
    world.begin()
    world.finish()

    world.edit_policy("p", mode="Plan")
    world.pass_time()

    assert world.stand.get("revision") is None


def test_where_the_whole_fleet_may_be_unproven_no_number_of_names_is_a_bound() -> None:
    world = Rollout(nodes=200)

    world.begin(rollout=rollout(nodes=100, soak=0))
    world.answer(soaked=True)

    assert world.having(4) == sorted(world.states)
    world.answer(soaked=True)
    assert world.stand["phase"] == "Complete"


def test_otherwise_no_more_are_reserved_at_a_time_than_can_be_named() -> None:
    """Promise 12."""
    world = Rollout(nodes=200)
    world.add_policy(policy("p", rollout=rollout(nodes=200, unproven="99%", soak=0)))

    world.carry_out(world.decide().writes)

    assert len(world.stand["reserved"]) == 128


@pytest.mark.uncounted
def test_a_star_that_a_predecessor_left_is_carried_by_nobody() -> None:
    world = Rollout(nodes=200)
    world.add_policy(policy("p", rollout=rollout(nodes=150)))
    world.carry_out(world.decide().writes)
    assert world.stand["reserved"] == ["*"]

    world.restart(epoch=2)
    world.step(10)
    world.finish()

    assert "carried" not in world.stand
    assert world.having(4) == sorted(world.states)


def look_without_specs(world: Rollout, seconds: int = 20) -> list[Write]:
    """Let time pass while no spec arrives; return the specs that were decided."""
    specs: list[Write] = []
    for _ in range(seconds):
        world.now += 1
        found = world.decide()
        specs += [write for write in found.writes if write.key.kind is WriteKind.STATE_SPEC]
        world.carry_out([write for write in found.writes if write.key.kind is not WriteKind.STATE_SPEC])
        if found.relist:
            world.relist()
    return specs


def test_by_a_smaller_budget_nobody_is_reserved_before_all_nodes_are_closed_to_a_predecessor_with_a_star() -> None:
    """Promise 8: its pushes are on their way, and nobody knows to whom."""
    world = Rollout(nodes=200)
    world.add_policy(policy("p", rollout=rollout(nodes=150)))
    world.carry_out(world.decide().writes)
    assert world.stand["reserved"] == ["*"]
    world.restart(epoch=2)
    world.edit_policy("p", rollout=rollout(nodes=150, unproven=5))

    specs = look_without_specs(world)

    assert len(specs) == 200
    assert world.stand["carried"] == ["*"]
    assert "reserved" not in world.stand
    world.carry_out(specs)
    world.pass_time()
    assert len(world.having(4)) == 5


def test_a_budget_that_shrinks_after_a_takeover_waits_for_a_predecessor_with_a_star() -> None:
    """Promise 8."""
    world = Rollout(nodes=200)
    world.add_policy(policy("p", rollout=rollout(nodes=150)))
    world.carry_out(world.decide().writes)
    world.turn(FleetSwitch.HOLD)
    world.restart(epoch=2)
    look_without_specs(world)

    world.turn(FleetSwitch.RUN)
    world.edit_policy("p", rollout=rollout(nodes=150, unproven=5))
    look_without_specs(world)

    assert "reserved" not in world.stand


# Bad input


def test_a_policy_that_is_deleted_in_mid_rollout_takes_back_what_it_pushed() -> None:
    """Promise 13."""
    world = Rollout(nodes=8)
    world.begin(onDelete="Restore", meta={"finalizers": ["numamigration.dev/restore"]})
    world.soak()
    pushed = world.having(4)

    world.delete_policy("p")
    world.step()
    assert world.having(0) == pushed
    world.answer()

    assert "p" not in world.policies
    assert world.having(None) == sorted(world.states)


def test_two_hundred_policies_on_one_node_leave_one_winner_and_no_loop() -> None:
    world = Rollout(nodes=1)

    for number in range(200):
        world.add_policy(
            policy(f"p{number:03}", priority=number, rollout=rollout(), settings=channels(1 + number % 16))
        )
    world.pass_time()
    world.answer(soaked=True)

    assert world.groups("n00")["offload"]["source"]["policy"] == "p199"
    assert world.status("p000")["nodes"]["overridden"] == 1


def test_of_two_equal_policies_the_smaller_name_wins_and_the_other_one_says_so() -> None:
    world = Rollout(nodes=2)
    world.add_policy(policy("q", settings=channels(8), rollout=rollout(soak=0)))

    world.begin(rollout=rollout(soak=0))
    world.answer(soaked=True)

    assert world.having(4) == ["n00", "n01"]
    (conflict,) = world.status("q")["conflicts"]
    assert conflict == {"group": "offload", "winner": "p", "nodes": 2}


def test_a_selector_that_matches_nothing_rolls_out_nothing_and_is_complete() -> None:
    world = Rollout(nodes=2)

    world.begin(nodeSelector={"matchLabels": {"no": "node"}})

    assert world.stand["phase"] == "Complete"
    assert world.condition("p", "Ready")["reason"] == "NoNodesMatched"


def test_revisions_that_somebody_deleted_in_mid_rollout_are_made_again_with_what_is_proven() -> None:
    world = Rollout(nodes=8)
    world.begin()
    world.finish()

    for name in list(world.revisions):
        del world.revisions[name]
        world.fleet.revision_gone(name, world.now)
    world.pass_time()

    assert "Proven" in json.dumps(world.revisions)
    assert world.stand["phase"] == "Complete"
    assert len(world.having(4)) == 8


def test_a_status_that_somebody_wiped_is_made_again() -> None:
    """Promise 8: what is on its way counts without it."""
    world = Rollout(nodes=8)
    world.begin(rollout=rollout(unproven=1))
    pushed = world.having(4)

    world.policies["p"]["status"] = {}
    world.show_policy("p")
    world.pass_time()
    world.answer()

    assert world.having(4) == pushed
    assert world.stand["phase"] == "Soaking"


@pytest.mark.parametrize(
    "spoiled",
    [
        {"data": {}},
        {"data": {"settings": "nothing"}},
        {"metadata": {"annotations": {"cell.numamigration.dev/0123456789abcdef": "no JSON"}}},
        {"metadata": {"annotations": {"cell.numamigration.dev/0123456789abcdef": '{"verdict": "Good"}'}}},
    ],
)
def test_a_revision_that_cannot_be_read_is_none(spoiled: dict[str, Any]) -> None:
    world = Rollout(nodes=4)
    world.begin()
    world.finish()
    name = next(iter(world.revisions))
    document = json.loads(json.dumps(world.revisions[name]))
    document["metadata"] |= {"name": "spoiled"} | spoiled.get("metadata", {})
    document["data"] = spoiled.get("data", document["data"])

    world.revisions["spoiled"] = document
    world.show_revision("spoiled")
    world.pass_time()

    assert world.having(4) == sorted(world.states)


# Where revisions cannot be read


class Forbidden(Rollout):
    """A world whose operator may not list ControllerRevisions."""

    def restart(self, epoch: int = 1) -> None:
        self.fleet = Fleet(self.settings)
        self.fleet.lead(epoch)
        self.fleet.revisions_listed = lambda *_: None  # type: ignore[method-assign]
        self.sync()


def test_without_history_nothing_new_is_pushed() -> None:
    world = Forbidden(nodes=4)
    world.begin()
    world.finish()
    world.restart(epoch=2)

    world.edit_policy("p", settings=channels(2))
    world.finish()

    assert world.having(4) == sorted(world.states)


def test_once_the_history_is_known_the_edit_is_stored_at_once() -> None:
    world = Forbidden(nodes=4)
    world.begin()
    world.finish()
    world.restart(epoch=2)
    world.edit_policy("p", settings=channels(2))
    world.finish()
    assert world.decide().writes == ()

    Fleet.revisions_listed(world.fleet, world.revisions, world.now)

    assert WriteKind.REVISION in {write.key.kind for write in world.decide().writes}


def test_without_history_what_undoes_does_not_wait() -> None:
    """Promise 17."""
    world = Forbidden(nodes=4)
    world.begin()
    world.finish()
    world.restart(epoch=2)

    world.edit_policy("p", settings={"offload": {"engine": "Off"}})
    world.step()

    assert {world.groups(name)["offload"]["settings"]["engine"] for name in world.states} == {"Off"}


def test_a_node_whose_report_was_wiped_and_whose_agent_is_gone_blocks_for_as_long_as_the_deadline() -> None:
    world = Rollout(nodes=3)
    world.begin(rollout=rollout(unproven=1))
    (gone,) = world.having(4)
    world.states[gone]["status"] = {}
    world.show_state(gone)

    world.pass_time(600)
    world.report_all_but(gone)
    assert world.having(4) == [gone]
    world.pass_time(400)
    world.report_all_but(gone)

    assert len(world.having(4)) == 2
