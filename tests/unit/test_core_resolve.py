# SPDX-License-Identifier: Apache-2.0
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numamigration_api.vocabulary import RESTORE_FINALIZER, PolicyMode, SettingsGroup
from numamigration_operator.core.objects import PolicyObject
from numamigration_operator.core.resolve import Loss, Resolution, policy_facts, resolve
from tests.unit.builders import OFFLOAD, TIERING, policy

OLD, NEW = {"creationTimestamp": "2026-01-01T00:00:00Z"}, {"creationTimestamp": "2026-01-02T00:00:00Z"}


def resolved(*policies: PolicyObject) -> Resolution:
    return resolve(policy_facts(one) for one in policies)


@pytest.mark.parametrize(
    ("one", "other", "winner"),
    [
        pytest.param(policy("a", priority=1, meta=OLD), policy("b", priority=2, meta=NEW), "b", id="priority first"),
        pytest.param(policy("b", meta=OLD), policy("a", meta=NEW), "b", id="then the older"),
        pytest.param(policy("b"), policy("a"), "a", id="then the smaller name"),
        pytest.param(policy("b", mode="Paused", priority=900), policy("a"), "b", id="a paused policy wins, too"),
        pytest.param(policy("b", mode="Plan", priority=900), policy("a"), "a", id="a Plan policy never wins"),
        pytest.param(
            policy("b", priority=900, meta={"deletionTimestamp": "2026-01-03T00:00:00Z"}),
            policy("a"),
            "a",
            id="a policy that is being deleted takes no part",
        ),
    ],
)
def test_a_group_goes_to(one: PolicyObject, other: PolicyObject, winner: str) -> None:
    assert resolved(one, other).winners[SettingsGroup.OFFLOAD].name == winner


def test_groups_may_have_different_winners_and_losers_are_told() -> None:
    high = policy("high", priority=900)
    low = policy("low", settings={"offload": OFFLOAD, "balancing": TIERING})

    resolution = resolved(low, high)

    assert {group: facts.name for group, facts in resolution.winners.items()} == {"offload": "high", "balancing": "low"}
    assert resolution.losses == {"uid-low": (Loss(SettingsGroup.OFFLOAD, "high"),)}


def test_the_first_three_plan_policies_find_room() -> None:
    plans = [policy(f"plan-{priority}", mode="Plan", priority=priority) for priority in range(5)]

    assert [facts.name for facts in resolved(*plans).plans] == ["plan-4", "plan-3", "plan-2"]


@pytest.mark.parametrize(
    ("on_delete", "finalizers", "armed"),
    [
        pytest.param("Keep", [], True, id="Keep needs no finalizer"),
        pytest.param("Restore", [], False, id="Restore without the finalizer"),
        pytest.param("Restore", ["other/one"], False, id="Restore with somebody else's finalizer"),
        pytest.param("Restore", ["other/one", RESTORE_FINALIZER], True, id="Restore with the finalizer"),
    ],
)
def test_a_policy_is_armed_once_its_finalizer_is_seen(on_delete: str, finalizers: list[str], armed: bool) -> None:
    assert policy_facts(policy(onDelete=on_delete, meta={"finalizers": finalizers})).armed is armed


@st.composite
def policies(draw: st.DrawFn) -> list[PolicyObject]:
    groups: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
        st.sampled_from(["offload", "balancing", "demotion"]), st.just({}), min_size=1
    )
    names = draw(st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=6))
    return [
        policy(
            name,
            meta=draw(st.sampled_from([OLD, NEW])),
            priority=draw(st.integers(0, 2)),
            mode=draw(st.sampled_from([mode.value for mode in PolicyMode])),
            settings=draw(groups),
        )
        for name in names
    ]


@given(policies(), st.randoms())
def test_a_resolution_does_not_depend_on_the_order_of_policies(some: list[PolicyObject], rng: object) -> None:
    facts = [policy_facts(one) for one in some]
    shuffled = list(facts)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]

    assert resolve(shuffled) == resolve(facts)


@pytest.mark.uncounted
@given(policies())
def test_every_group_that_is_set_is_won_and_its_other_setters_lose_it(some: list[PolicyObject]) -> None:
    resolution = resolved(*some)

    for group in SettingsGroup:
        setters = {one.metadata.uid for one in some if group in one.spec.settings and one.spec.mode != "Plan"}
        plans = {one.metadata.uid for one in some if one.spec.mode == "Plan"}
        lost = {uid for uid, losses in resolution.losses.items() if any(loss.group is group for loss in losses)}
        losers = lost - plans
        winner = {resolution.winners[group].uid} if group in resolution.winners else set()
        assert losers | winner == setters
        assert len(winner) == bool(setters)
        assert not losers & winner
