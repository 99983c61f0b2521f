# SPDX-License-Identifier: Apache-2.0
"""What a fleet tells metrics of its policies."""

from __future__ import annotations

from typing import Any

from numamigration_api.vocabulary import GuardrailMetric, NodeBucket, Reason, RolloutPhase
from numamigration_operator.core.numbers import GuardrailNumbers, PolicyNumbers
from numamigration_operator.core.objects import PolicyStatistics
from tests.unit.builders import policy
from tests.unit.test_core_rollouts import Rollout, channels, rollout
from tests.unit.test_core_stops import BROKEN, Stopped, fleet_of

SHARE: dict[str, Any] = {"metric": "foliosFailedShare", "max": "0.5"}
PRESSURE: dict[str, Any] = {"metric": "memoryPressure", "max": "40"}
READINESS: dict[str, Any] = {"metric": "nodeNotReady", "max": "0"}


def numbers(world: Rollout | Stopped) -> PolicyNumbers:
    (found,) = world.fleet.policy_numbers()
    return found


def tell(world: Rollout, name: str, after: dict[str, Any]) -> None:
    """The agent of a node tells the numbers of its window, and nothing has soaked yet."""
    window = {"revision": world.states[name]["spec"]["revision"], "after": after}
    world.report(name, soaked=False, window=window)
    world.pass_time()


def test_a_rollout_tells_its_nodes_its_wave_and_its_phase() -> None:
    world = Rollout(nodes=8)
    world.begin()

    told = numbers(world)

    assert (told.name, told.unproven, told.reserved) == ("p", 1, 0)
    assert told.buckets[NodeBucket.PENDING] == 8
    assert (told.phase, told.wave, told.waves) == (RolloutPhase.SOAKING, 1, 4)


def test_a_node_counts_as_reserved_once_that_is_stored_and_as_unproven_before() -> None:
    world = Rollout(nodes=4)
    world.add_policy(policy("p", rollout=rollout()))
    first = world.decide()
    decided = numbers(world)

    world.carry_out(first.writes)

    assert (decided.unproven, decided.reserved) == (1, 0)
    assert (numbers(world).unproven, numbers(world).reserved) == (1, 1)


def test_a_finished_rollout_has_nothing_unproven() -> None:
    world = Rollout(nodes=8)
    world.begin()
    world.finish()

    told = numbers(world)

    assert (told.unproven, told.reserved, told.phase) == (0, 0, RolloutPhase.COMPLETE)


def test_a_policy_that_sets_nothing_has_no_rollout() -> None:
    world = Rollout(nodes=2)
    world.begin(settings={})

    told = numbers(world)

    assert (told.phase, told.wave, told.waves) == (None, None, None)


def test_a_guardrail_tells_the_largest_value_over_unproven_nodes() -> None:
    world = Rollout(nodes=4)
    world.begin(rollout=rollout(nodes=2, guardrails=[SHARE, PRESSURE]))
    first, second = world.having(4)
    tell(world, first, {"foliosMigrated": 900, "foliosFailed": 100})
    tell(world, second, {"foliosMigrated": 800, "foliosFailed": 200})

    assert numbers(world).guardrails == (
        GuardrailNumbers(GuardrailMetric.FOLIOS_FAILED_SHARE, 0.2, 0.5),
        GuardrailNumbers(GuardrailMetric.MEMORY_PRESSURE, None, 40.0),
    )


def test_a_proven_node_counts_in_no_guardrail() -> None:
    world = Rollout(nodes=1)
    world.begin(rollout=rollout(guardrails=[PRESSURE]))
    tell(world, "n00", {"memoryPressure": "3.5"})
    assert numbers(world).guardrails[0].value == 3.5

    world.soak()

    assert numbers(world).guardrails[0].value is None


def test_a_window_of_another_revision_has_no_value() -> None:
    world = Rollout(nodes=1)
    world.begin(rollout=rollout(guardrails=[PRESSURE]))

    world.report("n00", soaked=False, window={"revision": "0" * 16, "after": {"memoryPressure": "3.5"}})
    world.pass_time()

    assert numbers(world).guardrails[0].value is None


def test_readiness_is_0_or_1_or_nothing() -> None:
    world = Rollout(nodes=1)
    world.begin(rollout=rollout(guardrails=[READINESS], onFailure="Halt"))
    world.fleet.node_ready("n00", True, world.now)
    world.pass_time()
    world.answer()
    known = [numbers(world).guardrails[0].value]
    for ready in (None, False):
        world.fleet.node_ready("n00", ready, world.now)
        world.pass_time()
        known.append(numbers(world).guardrails[0].value)

    assert known == [0.0, None, 1.0]


def test_a_rollback_counts_once_from_its_beginning() -> None:
    world = Rollout(nodes=4)
    world.begin()
    world.finish()
    world.edit_policy("p", settings=channels(8))
    world.pass_time()
    (canary,) = world.having(8)
    before = numbers(world).rollbacks_total

    world.answer(failed=(canary,))
    for _ in range(3):
        world.pass_time()
        world.answer()

    assert (before, numbers(world).rollbacks_total) == (0, 1)
    assert numbers(world).phase is RolloutPhase.ROLLED_BACK


def test_a_halt_is_no_rollback() -> None:
    world = Rollout(nodes=4)
    world.begin(rollout=rollout(onFailure="Halt"))
    world.answer(failed=tuple(world.having(4)))
    world.pass_time()

    assert (numbers(world).rollbacks_total, numbers(world).phase) == (0, RolloutPhase.HALTED)


def test_held_classes_are_counted() -> None:
    world = Stopped(2)
    before = world.fleet.snapshot().class_holds

    world.corrupt("n0")

    assert (before, world.fleet.snapshot().class_holds) == (0, 1)


def test_the_snapshot_says_whether_the_circuit_breaker_is_open() -> None:
    world = fleet_of(8, 2)
    while_open = world.fleet.snapshot().breaker_open

    world.answer(n0=BROKEN)

    assert (while_open, world.fleet.snapshot().breaker_open) == (True, False)


def test_the_snapshot_says_whether_the_fence_is_missing() -> None:
    world = Stopped(2)
    before = world.fleet.snapshot().fence_missing

    world.fleet.fence_read("no fence", world.now)

    assert (before, world.fleet.snapshot().fence_missing) == (False, True)


def test_nodes_are_told_by_reason_in_whatever_count_they_are() -> None:
    world = Rollout(nodes=4)
    world.begin(rollout=rollout(nodes=1, onFailure="Halt"))
    assert numbers(world).reasons == {Reason.APPLYING: 1, Reason.AWAITING_ROLLOUT: 3}

    world.answer(failed=tuple(world.having(4)))
    world.pass_time()

    assert sum(numbers(world).reasons.values()) == 4
    assert numbers(world).buckets[NodeBucket.FAILED] == 1


def test_a_node_of_which_there_is_nothing_to_say_has_no_reason() -> None:
    world = Rollout(nodes=2)
    world.begin()
    world.finish()

    assert numbers(world).reasons == {}


def test_the_sums_of_a_policy_are_told_as_its_status_has_them() -> None:
    world = Rollout(nodes=1)
    world.begin()
    before = numbers(world).statistics

    world.report("n00", soaked=False, statistics={"foliosMigrated": 900, "foliosPerSecond": "12.5"})
    world.pass_time()

    assert before is None
    assert numbers(world).statistics == PolicyStatistics(nodes=1, folios_migrated=900, folios_per_second="12.5")


def test_a_corrupt_node_counts_after_its_class_was_held_too() -> None:
    world = Stopped(2)
    before = world.fleet.snapshot().corrupt

    world.corrupt("n0")

    assert (before, world.fleet.snapshot().corrupt) == (0, 1)


def test_the_oldest_report_is_the_one_of_the_agent_that_is_silent() -> None:
    world = Rollout(nodes=2)
    world.begin()
    world.report("n00", soaked=False)
    silent_since = world.now
    world.pass_time()

    world.report_all_but("n00")

    assert Rollout(nodes=0).fleet.snapshot().oldest_report_at is None
    assert world.fleet.snapshot().oldest_report_at == silent_since
