# SPDX-License-Identifier: Apache-2.0
import json
from collections.abc import Callable
from typing import Any

import pytest

from numamigration_api.vocabulary import GroupMode, SettingsGroup
from numamigration_operator.core.course import KEEP, Goal
from numamigration_operator.core.objects import PolicyObject
from numamigration_operator.core.render import Turn, is_safe, render
from numamigration_operator.core.resolve import PolicyFacts, policy_facts, resolve
from numamigration_operator.core.wishes import Spec, spec_json
from tests.unit.builders import OFFLOAD, TIERING, admitted, awaiting, policy

GROUP = SettingsGroup.OFFLOAD
ARMED = {"finalizers": ["numamigration.dev/restore"]}


def rendered(
    *policies: PolicyObject,
    now: Spec = Spec(),  # noqa: B008
    restored: tuple[SettingsGroup, ...] = (),
    turn: Callable[[PolicyFacts], Turn] = admitted,
    rivals: Spec = Spec(),  # noqa: B008
) -> Spec:
    return render(resolve(policy_facts(one) for one in policies), now, restored, turn, rivals)


def offload(spec: Spec) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(spec_json(spec)))["groups"]["offload"]
    return found


RESTORABLE = rendered(policy(onDelete="Restore", meta=ARMED))


def test_a_wish_carries_all_that_the_policy_says() -> None:
    asked = policy(
        onDelete="Restore",
        meta=ARMED | {"generation": 3},
        drift="Report",
        unsupported="Strict",
        verification="Off",
        acceptedRisks=["UnverifiedEngine"],
    )

    assert offload(rendered(asked)) == {
        "source": {"policy": "p", "uid": "uid-p", "generation": 3},
        "mode": "Apply",
        "settings": OFFLOAD,
        "release": "Restore",
        "drift": "Report",
        "unsupported": "Strict",
        "verification": "Off",
        "acceptedRisks": ["UnverifiedEngine"],
    }


def test_a_wish_that_ended_is_restored_with_the_rest_unchanged() -> None:
    assert offload(rendered(now=RESTORABLE)) == offload(RESTORABLE) | {"mode": "Restore"}


def test_a_restore_stays_until_the_agent_confirms_it() -> None:
    restoring = rendered(now=RESTORABLE)

    assert rendered(now=restoring) == restoring
    assert rendered(now=restoring, restored=(GROUP,)) == Spec()


def test_a_confirmation_of_an_earlier_restore_does_not_end_a_new_one() -> None:
    assert offload(rendered(now=RESTORABLE, restored=(GROUP,)))["mode"] == "Restore"


def test_a_wish_that_ended_with_keep_is_dropped_at_once() -> None:
    """Promise 6: only Restore restores."""
    assert rendered(now=rendered(policy(onDelete="Keep"))) == Spec()


def test_a_wish_that_ended_with_keep_before_it_came_leaves_the_restore_of_what_it_was_to_replace() -> None:
    """Promise 7: the write that was to replace it may never have been sent."""
    open_wish = rendered(policy("q", onDelete="Keep"))

    assert offload(rendered(now=open_wish, rivals=RESTORABLE)) == offload(RESTORABLE) | {"mode": "Restore"}
    assert rendered(now=open_wish, rivals=rendered(policy(onDelete="Keep"))) == Spec()


def test_what_was_to_be_replaced_is_restored_also_where_its_policies_go_on_without_the_group() -> None:
    """Promise 7: that a policy selects the node still does not say that it wishes this there."""
    open_wish, others = rendered(policy("q", onDelete="Keep")), {"balancing": TIERING}
    edited = policy("q", onDelete="Keep", settings=others), policy(onDelete="Restore", meta=ARMED, settings=others)

    after = rendered(*edited, now=open_wish, rivals=RESTORABLE, turn=awaiting)

    assert offload(after) == offload(RESTORABLE) | {"mode": "Restore"}


def test_what_was_to_be_replaced_is_held_until_it_is_known_what_is_there() -> None:
    """Promise 8: given back, it would be a push of its own; dropped, it would never be restored."""
    wins, open_wish = policy(onDelete="Restore", meta=ARMED), rendered(policy("q", onDelete="Keep"))

    held = rendered(wins, now=open_wish, rivals=RESTORABLE, turn=awaiting)

    assert offload(held) == offload(RESTORABLE) | {"mode": "Hold"}
    assert rendered(wins, now=held, rivals=open_wish, turn=awaiting) == held
    assert rendered(wins, now=held, turn=awaiting) == RESTORABLE


def test_another_winner_replaces_a_wish_without_a_restore() -> None:
    after = rendered(policy("q"), now=RESTORABLE)

    assert (offload(after)["source"]["policy"], offload(after)["mode"]) == ("q", "Apply")


def test_a_winner_takes_over_a_group_that_is_being_restored() -> None:
    assert offload(rendered(policy("q"), now=rendered(now=RESTORABLE)))["mode"] == "Apply"


def test_a_paused_policy_holds_the_settings_that_the_node_has() -> None:
    paused = policy(onDelete="Restore", meta=ARMED, mode="Paused", settings={"offload": {"engine": "Off"}})

    assert offload(rendered(paused, now=RESTORABLE)) == offload(RESTORABLE) | {"mode": "Hold"}


def test_a_paused_policy_still_says_what_happens_at_its_end() -> None:
    assert offload(rendered(policy(onDelete="Keep", mode="Paused"), now=RESTORABLE))["release"] == "Keep"


LOSER = policy("q", priority=1)


@pytest.mark.parametrize(
    "now",
    [
        pytest.param(Spec(), id="nothing was there"),
        pytest.param(rendered(policy("q")), id="a policy that is gone was there"),
        pytest.param(rendered(policy("q", onDelete="Restore", meta=ARMED)), id="one that has to be restored"),
        pytest.param(rendered(now=RESTORABLE), id="its own wish was being restored"),
    ],
)
def test_a_paused_policy_pushes_nothing_where_it_did_not_source_the_group(now: Spec) -> None:
    paused = policy(onDelete="Restore", meta=ARMED, mode="Paused", settings={"offload": {"engine": "Off"}})

    assert rendered(paused, now=now) == rendered(now=now)


def test_a_paused_policy_that_newly_wins_leaves_to_the_loser_what_it_had() -> None:
    had = rendered(LOSER)

    assert rendered(policy(mode="Paused"), LOSER, now=had) == had


@pytest.mark.parametrize(
    ("now", "loser"),
    [
        pytest.param(Spec(), (), id="nothing"),
        pytest.param(rendered(LOSER), (LOSER,), id="another"),
        pytest.param(RESTORABLE, (), id="its own"),
    ],
)
def test_nothing_moves_until_the_finalizer_of_the_winner_is_seen(now: Spec, loser: tuple[PolicyObject, ...]) -> None:
    asked = policy(onDelete="Restore", settings={"offload": {"engine": "DMA", "channels": 9}})

    assert rendered(asked, *loser, now=now) == now


UNREADY = [
    pytest.param(policy(), awaiting, id="not admitted"),
    pytest.param(policy(), lambda _: Turn(KEEP), id="nothing to be pushed"),
    pytest.param(policy(onDelete="Restore"), admitted, id="its finalizer is not seen"),
    pytest.param(policy(mode="Paused"), admitted, id="paused"),
]


@pytest.mark.parametrize(("winner", "turn"), UNREADY)
def test_what_a_loser_had_stays_until_the_winner_is_pushed(
    winner: PolicyObject, turn: Callable[[PolicyFacts], Turn]
) -> None:
    had = rendered(LOSER)

    assert rendered(winner, LOSER, now=had, turn=turn) == had


@pytest.mark.parametrize(("winner", "turn"), UNREADY)
def test_what_a_policy_had_that_is_gone_ends_at_once_whoever_wins_next(
    winner: PolicyObject, turn: Callable[[PolicyFacts], Turn]
) -> None:
    """Promise 13: a deletion waits for no rollout."""
    had = rendered(policy("q", onDelete="Restore", meta=ARMED))

    assert offload(rendered(winner, now=had, turn=turn))["mode"] == "Restore"
    assert rendered(winner, now=rendered(LOSER), turn=turn) == Spec()


def test_an_edit_waits_for_the_rollout_and_what_is_there_stays() -> None:
    """Promise 8: nothing is pushed before it is admitted."""
    had = rendered(policy())
    edited = policy(settings={"offload": {"engine": "DMA", "channels": 9}})

    assert rendered(edited, now=had, turn=awaiting) == had
    assert offload(rendered(edited, now=had))["settings"]["channels"] == 9


def test_nothing_is_pushed_to_a_node_that_is_not_admitted() -> None:
    """Promise 8."""
    assert rendered(policy(), turn=awaiting) == Spec()


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param({"onDelete": "Restore", "meta": ARMED}, id="another end"),
        pytest.param({"mode": "Paused"}, id="a pause"),
        pytest.param({"settings": {"offload": {"engine": "Off"}}}, id="turning off"),
    ],
)
def test_an_edit_that_moves_nothing_or_turns_off_waits_for_no_rollout(edit: dict[str, Any]) -> None:
    edited = policy(**edit)

    assert rendered(edited, now=rendered(policy()), turn=awaiting) == rendered(edited, now=rendered(policy()))
    assert rendered(edited, now=rendered(policy()), turn=awaiting) != rendered(policy())


@pytest.mark.parametrize("turn", [awaiting, lambda _: Turn(KEEP)], ids=["not admitted", "nothing to be pushed"])
def test_how_settings_end_is_as_the_policy_says_also_where_an_edit_waits(
    turn: Callable[[PolicyFacts], Turn],
) -> None:
    """Promise 7: else the finalizer would be dropped while nodes still had to be restored."""
    edited = policy(onDelete="Keep", settings={"offload": {"engine": "DMA", "channels": 9}})

    kept = offload(rendered(edited, now=RESTORABLE, turn=turn))

    assert (kept["release"], kept["settings"]) == ("Keep", OFFLOAD)


def test_settings_of_before_end_as_the_policy_says_by_now() -> None:
    """Promise 7."""
    before, edited = (
        policy_facts(policy(onDelete="Restore", meta=ARMED)),
        policy(onDelete="Keep", settings={"offload": OFFLOAD | {"channels": 9}}),
    )

    back = rendered(edited, now=rendered(edited), turn=lambda _: Turn(Goal(before.wishes, undoing=True), admitted=True))

    assert (offload(back)["release"], offload(back)["settings"]) == ("Keep", OFFLOAD)


@pytest.mark.parametrize("on_delete", ["Keep", "Restore"])
def test_a_failed_revision_with_nothing_before_it_is_restored_however_the_policy_ends(on_delete: str) -> None:
    asked = policy(onDelete=on_delete, meta=ARMED)
    undone: Callable[[PolicyFacts], Turn] = lambda _: Turn(Goal({}, undoing=True), admitted=True)  # noqa: E731

    restoring = rendered(asked, now=rendered(asked), turn=undone)

    assert offload(restoring)["mode"] == "Restore"
    assert rendered(asked, now=restoring, restored=(GROUP,), turn=undone) == Spec()


@pytest.mark.parametrize("turn", [awaiting, lambda _: Turn(KEEP)], ids=["not admitted", "nothing to be pushed"])
def test_the_end_of_a_pause_gives_back_what_was_held(turn: Callable[[PolicyFacts], Turn]) -> None:
    had = rendered(policy())
    held = rendered(policy(mode="Paused"), now=had)

    assert rendered(policy(), now=held, turn=turn) == had


def test_plans_go_to_the_node_as_a_whole() -> None:
    plan = policy("plan", mode="Plan", settings={"offload": OFFLOAD, "balancing": TIERING})

    spec = spec_json(rendered(plan))

    assert "groups" not in spec
    assert spec["plans"][0]["settings"] == {"offload": OFFLOAD, "balancing": TIERING}


@pytest.mark.parametrize(
    "policies",
    [
        pytest.param((), id="nobody"),
        pytest.param((policy("q"),), id="another policy"),
        pytest.param((policy(mode="Paused", settings={"offload": {"engine": "Off"}}),), id="paused"),
        pytest.param((policy(onDelete="Restore"),), id="not armed"),
        pytest.param((policy("q"), policy(priority=1)), id="another policy, and the loser is there"),
    ],
)
@pytest.mark.parametrize("turn", [admitted, awaiting], ids=["admitted", "not admitted"])
def test_rendering_twice_changes_nothing(
    policies: tuple[PolicyObject, ...], turn: Callable[[PolicyFacts], Turn]
) -> None:
    once = rendered(*policies, now=RESTORABLE, turn=turn)

    assert rendered(*policies, now=once, turn=turn) == once


OFF = {"offload": {"engine": "Off"}}
BOTH = {"offload": OFFLOAD, "balancing": TIERING}


@pytest.mark.parametrize(
    ("before", "after", "safe"),
    [
        pytest.param(Spec(), Spec(), True, id="an empty wish"),
        pytest.param(Spec(), rendered(policy()), False, id="turning on"),
        pytest.param(rendered(policy()), rendered(policy(settings=OFF)), True, id="turning off"),
        pytest.param(
            rendered(policy(settings=BOTH)),
            rendered(policy(settings=OFF | {"balancing": TIERING}, meta={"generation": 2})),
            True,
            id="turning off beside a group that stays",
        ),
        pytest.param(
            rendered(policy()),
            rendered(policy(settings=OFF | {"balancing": TIERING})),
            False,
            id="turning off beside a group that is new",
        ),
        pytest.param(RESTORABLE, rendered(now=RESTORABLE), True, id="restoring"),
        pytest.param(rendered(policy()), Spec(), True, id="releasing"),
        pytest.param(rendered(policy()), rendered(policy(mode="Paused"), now=rendered(policy())), True, id="holding"),
        pytest.param(rendered(policy()), rendered(policy("q")), False, id="another source"),
    ],
)
def test_a_change_is_safe_when_it_only_restores_or_turns_off(before: Spec, after: Spec, safe: bool) -> None:
    assert is_safe(before, after) is safe


def test_the_group_modes_are_all_rendered_somewhere() -> None:
    paused = rendered(policy(mode="Paused"), now=rendered(policy()))
    modes = {wish.mode for spec in (RESTORABLE, rendered(now=RESTORABLE), paused) for _, wish in spec.groups}

    assert modes == set(GroupMode)
