# SPDX-License-Identifier: Apache-2.0
"""The tuner's core: a search that any samples can come to, and a choice that is never slower than no offload."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Mapping
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from numamigration_api.machinery.tuning.choice import RULES, Choice, fewest, is_surely_faster
from numamigration_api.machinery.tuning.measures import Cell, Comparison, compare, quantile, standing
from numamigration_api.machinery.tuning.samples import (
    BASELINE,
    FOLIOS_PER_BATCH,
    Mix,
    Part,
    Probe,
    Sample,
    Setting,
    Shape,
    candidates,
)
from numamigration_api.machinery.tuning.search import (
    FAILURES_MAX,
    RESERVE,
    SEEN_MIN,
    Search,
    grid_probes,
    usual_budget,
)

SMALL, LARGE = Shape(4096, 512), Shape(2 << 20, 512)
BOTH = Mix.of([Part(SMALL, 1), Part(LARGE, 1)])
DMA = [Setting("DMA", channels) for channels in (1, 4, 16)]
GB = 1e9

Answer = Callable[[Probe, int], object]


def run(answer: Answer, *, mix: Mix = BOTH, among: list[Setting] = DMA, seed: int = 1, budget: int = 0) -> Search:
    """Search to the end; `answer` gives each probe's bytes per second, knowing how many were before."""
    search = Search(among, mix, budget or usual_budget(among, mix), Random(seed))
    made = 0
    while probe := search.next():
        search.take(Sample(*probe, answer(probe, made)))  # type: ignore[arg-type]  # whatever a broken probe says
        made += 1
    return search


def machine(gains: Mapping[Setting, float], *, noise: float = 0.05, seed: int = 7) -> Answer:
    """Return a machine whose settings are so many times as fast as plain copy, at every shape."""
    rng = Random(seed)
    return lambda probe, _: GB * gains.get(probe.setting, 1.0) * math.exp(rng.gauss(0, noise))


# --- what is chosen


def test_the_fastest_setting_is_chosen_when_it_is_surely_faster() -> None:
    choice = run(machine({DMA[0]: 0.7, DMA[1]: 1.5, DMA[2]: 3})).choice()

    assert choice.setting == DMA[2]
    assert choice.gain_low > 0
    assert choice.gain == pytest.approx(2, rel=0.2)


@pytest.mark.parametrize("gain", [0.5, 0.9, 0.99, 1.0])
def test_offload_stays_off_when_nothing_is_faster(gain: float) -> None:
    assert run(machine(dict.fromkeys(DMA, gain))).choice().setting == BASELINE


def test_offload_stays_off_when_a_gain_is_within_the_noise() -> None:
    assert run(machine(dict.fromkeys(DMA, 1.05), noise=0.3)).choice().setting == BASELINE


def test_a_tie_goes_to_fewer_channels() -> None:
    chosen = [run(machine(dict.fromkeys(DMA, 3.0), noise=0.001, seed=n)).choice().setting for n in range(10)]

    assert chosen == [DMA[0]] * 10


def test_a_mix_decides_what_is_faster() -> None:
    def answer(probe: Probe, _: int) -> float:
        wins = (probe.setting == DMA[2]) == (probe.shape == LARGE)
        return GB if probe.setting == BASELINE else GB * (2.5 if wins else 0.8)

    small, large = (Mix.of([Part(SMALL, 20 - w), Part(LARGE, w)]) for w in (1, 19))

    assert run(answer, mix=small).choice().setting == DMA[0]
    assert run(answer, mix=large).choice().setting == DMA[2]


def test_a_setting_that_is_seldom_very_slow_is_not_faster() -> None:
    """Its median is above plain copy, its mean is not: what is slow now and then is slower."""

    seen: list[Probe] = []

    def answer(probe: Probe, _: int) -> float:
        if probe.setting != BASELINE:
            seen.append(probe)
        return GB * (1 if probe.setting == BASELINE else 0.05 if len(seen) % 6 == 0 else 2)

    assert run(answer, among=DMA[:1], budget=200).choice().setting == BASELINE


def test_slower_settings_are_never_chosen_whatever_the_noise() -> None:
    slower = dict.fromkeys(DMA, 0.9)

    chosen = {
        run(machine(slower, noise=noise, seed=n)).choice().setting for noise in (0.1, 0.3, 0.5) for n in range(25)
    }

    assert chosen == {BASELINE}


def test_a_drift_of_the_machine_decides_nothing() -> None:
    chosen = {run(lambda _probe, made: GB * (1 + 0.01 * made), seed=n, budget=60).choice().setting for n in range(15)}

    assert chosen == {BASELINE}


@pytest.mark.parametrize(
    ("found", "may"),
    [
        pytest.param(Comparison(0.080, 0.02, 200, 5), True, id="four standard errors above plain copy"),
        pytest.param(Comparison(0.055, 0.02, 200, 5), False, id="less than three: it may be slower"),
        pytest.param(Comparison(0.330, 0.10, 200, 5), False, id="more than three, so wide that it may be much slower"),
        pytest.param(Comparison(0.080, 0.02, 4, 5), False, id="of few degrees of freedom"),
        pytest.param(Comparison(0.080, 0.02, 200, 3), True, id="three samples of each shape"),
        pytest.param(Comparison(0.080, 0.02, 200, 2), False, id="two"),
    ],
)
def test_a_candidate_has_to_be_surely_faster(found: Comparison, may: bool) -> None:
    assert is_surely_faster(found, 1, RULES) is may


def test_one_of_many_candidates_has_to_be_surer() -> None:
    found = Comparison(0.07, 0.02, 200, 5)

    assert is_surely_faster(found, 1, RULES)
    assert not is_surely_faster(found, 20, RULES)


def test_ending_early_takes_a_surer_leader() -> None:
    found = Comparison(0.07, 0.02, 200, 5)

    assert not is_surely_faster(found, 1, RULES, interim=True)
    assert is_surely_faster(found._replace(log_ratio=0.09), 1, RULES, interim=True)
    assert not is_surely_faster(found._replace(log_ratio=0.09, least=4), 1, RULES, interim=True)


@pytest.mark.parametrize(
    ("ratios", "chosen"),
    [
        pytest.param((0.500, 0.505, 0.502), DMA[0], id="equal: fewest channels"),
        pytest.param((0.480, 0.500, 0.500), DMA[1], id="one is worse by more than a tie"),
        pytest.param((0.100, 0.500, 0.520), DMA[1], id="more channels do not pay for themselves"),
        pytest.param((0.100, 0.500, 0.540), DMA[2], id="more channels pay"),
    ],
)
def test_channels_have_to_pay_for_themselves(ratios: tuple[float, ...], chosen: Setting) -> None:
    assert fewest(dict(zip(DMA, ratios, strict=True)), RULES) == chosen


def test_a_race_does_not_end_early_before_the_leader_was_seen_often() -> None:
    search = run(machine({DMA[0]: 5}, noise=0), among=DMA[:1], mix=Mix.of([Part(SMALL, 1)]), budget=100)

    assert [row.samples for row in search.choice().rows] == [SEEN_MIN, SEEN_MIN]


# --- samples that say little


def test_equal_samples_make_no_certainty() -> None:
    three_of_each = run(lambda probe, _: GB * (1.04 if probe.setting == DMA[0] else 1), among=DMA[:1], budget=14)

    assert three_of_each.choice().setting == BASELINE


def test_two_samples_of_each_prove_nothing_however_fast() -> None:
    two_of_each = run(machine({DMA[0]: 9}, noise=0), among=DMA[:1], mix=Mix.of([Part(SMALL, 1)]), budget=5)

    assert two_of_each.choice().setting == BASELINE


def test_a_disturbed_sample_of_plain_copy_makes_no_winner() -> None:
    def answer(probe: Probe, made: int) -> float:
        return GB * (0.2 if probe.setting == BASELINE and made == 5 else 1)

    assert run(answer).choice().setting == BASELINE


BROKEN = [0, 0.0, -1.0, math.inf, -math.inf, math.nan, 1e-300, 1e300, 10**400, True, None, "fast"]


@given(seed=st.integers(0, 1000), data=st.data(), budget=st.integers(0, 80))
@settings(max_examples=25, deadline=None)
def test_no_sample_raises_and_the_budget_holds(seed: int, data: st.DataObject, budget: int) -> None:
    speeds = st.one_of(st.sampled_from(BROKEN), st.floats(1, 1e15))
    search = Search(DMA, BOTH, budget, Random(seed))
    made = 0
    while probe := search.next():
        search.take(Sample(*probe, data.draw(speeds), data.draw(st.one_of(st.none(), st.floats()))))  # type: ignore[arg-type]
        made += 1
    choice = search.choice()

    assert made == choice.probes <= budget
    assert math.isfinite(choice.gain)
    assert choice.explain()


def test_no_speed_at_all_leaves_offload_off_and_says_why() -> None:
    choice = run(lambda _probe, _made: math.nan).choice()

    assert choice.setting == BASELINE
    assert any("gave no speed" in note for note in choice.notes)
    assert "Too few measurements to compare anything." in choice.notes


def test_a_setting_without_speed_leaves_the_race_and_is_named() -> None:
    search = run(lambda probe, _: 0 if probe.setting == DMA[2] else GB * (3 if probe.setting == DMA[1] else 1))
    choice = search.choice()

    assert choice.setting == DMA[1]
    assert f"No more measured after {FAILURES_MAX} such: {DMA[2]}." in choice.notes


def test_a_lost_sample_is_measured_again() -> None:
    asked: list[Probe] = []

    def answer(probe: Probe, made: int) -> float:
        asked.append(probe)
        return math.inf if made == 1 else GB

    run(answer)
    block = asked[1 : 2 + 1 + len(DMA)]

    assert len(block) == 2 + len(DMA)
    assert block.count(asked[1]) == 2


def test_a_sample_that_was_not_asked_for_is_dropped_and_told() -> None:
    search = Search(DMA, BOTH, 100, Random(1))
    probe = search.next()
    search.take(Sample(Setting("DMA", 99), SMALL, GB))

    assert search.next() == probe
    assert "1 samples were not asked for and were dropped." in search.choice().notes


def test_too_small_a_budget_leaves_offload_off() -> None:
    choice = run(machine({DMA[2]: 9}), budget=3).choice()

    assert (choice.setting, choice.probes) == (BASELINE, 0)


# --- how it is measured


def test_a_search_asks_the_same_until_it_is_answered() -> None:
    search = Search(DMA, BOTH, 100, Random(1))

    assert search.next() == search.next()


def test_a_block_is_a_warm_up_and_then_every_setting_once_in_random_order() -> None:
    blocks = []
    for seed in range(8):
        search = Search(DMA, BOTH, 100, Random(seed))
        asked: list[Setting] = []
        while len(asked) < 2 + len(DMA) and (probe := search.next()):
            asked.append(probe.setting)
            search.take(Sample(*probe, GB))
        blocks.append(tuple(asked[1:]))
        assert asked[0] == BASELINE

    assert all(sorted(block) == sorted([BASELINE, *DMA]) for block in blocks)
    assert len(set(blocks)) > 4


def test_a_warm_up_counts_as_a_probe_and_says_nothing() -> None:
    choice = run(lambda _probe, made: 1.0 if made == 0 else GB).choice()
    plain = choice.rows[0]

    assert plain.bytes_per_second == pytest.approx(GB)
    assert sum(row.samples for row in choice.rows) == choice.probes - len(BOTH.parts)


def test_a_clear_case_takes_less_than_a_third_of_a_full_grid() -> None:
    search = run(machine({DMA[2]: 4}, noise=0.02))

    assert search.choice().probes < usual_budget(DMA, BOTH) <= grid_probes(DMA, BOTH) / 3


def test_half_of_the_budget_is_for_the_leader_and_plain_copy_alone() -> None:
    asked: list[Setting] = []
    equal = machine(dict.fromkeys(DMA, 1.15), noise=0.2)

    def answer(probe: Probe, made: int) -> object:
        asked.append(probe.setting)
        return equal(probe, made)

    run(answer, budget=80)

    assert len(set(asked[int(80 * RESERVE) :])) <= 2


def test_the_shape_with_most_weight_and_spread_is_measured_most() -> None:
    rng = Random(1)
    asked: list[Shape] = []

    def answer(probe: Probe, _: int) -> float:
        asked.append(probe.shape)
        return GB * (1.1 if probe.setting != BASELINE else 1) * math.exp(rng.gauss(0, 0.1))

    run(answer, mix=Mix.of([Part(SMALL, 9), Part(LARGE, 1)]), budget=120)

    assert asked.count(SMALL) > 3 * asked.count(LARGE)


def test_the_same_chance_makes_the_same_search() -> None:
    first, second = (run(machine({DMA[1]: 1.3}, noise=0.2)).choice() for _ in range(2))

    assert first == second


# --- what is not measured


def test_more_channels_than_folios_in_a_batch_are_left_out() -> None:
    kept, left = candidates(DMA, Mix.of([Part(Shape(1 << 20, 4), 1), Part(Shape(2 << 20, 2), 1)]))

    assert kept == DMA[:2]
    assert [(one.setting, one.why) for one in left] == [
        (DMA[2], "the same as fewer: a batch of this mix has at most 4 folios")
    ]


def test_of_all_beyond_the_folios_of_a_batch_one_is_kept() -> None:
    kept, _ = candidates([Setting("DMA", 8), Setting("DMA", 16)], Mix.of([Part(Shape(4096, 4), 1)]))

    assert kept == [Setting("DMA", 8)]


@pytest.mark.parametrize(
    ("present", "kept"),
    [
        pytest.param(8, DMA[:2], id="just enough for two migrating tasks"),
        pytest.param(7, DMA[:1], id="one too few"),
        pytest.param(None, DMA, id="nobody knows"),
    ],
)
def test_channels_are_shared_by_concurrent_migrators(present: int | None, kept: list[Setting]) -> None:
    assert candidates(DMA, Mix.of([Part(Shape(4096, 512, migrators=2), 1)]), present)[0] == kept


def test_an_unknown_engine_is_left_out() -> None:
    assert candidates([Setting("FPGA", 4), Setting("DMA", 0)], BOTH)[0] == []


def test_single_folios_are_not_measured_and_their_reasons_are_told() -> None:
    balancing = Part(Shape(4096, 1), 3, "numa_misplaced")
    search = run(machine({DMA[2]: 4}), mix=Mix.of([balancing, Part(LARGE, 1, "mempolicy_mbind")]))
    choice = search.choice()

    assert choice.setting == DMA[2]
    assert choice.reasons_left_out == ("numa_misplaced", "memory_failure", "longterm_pin")
    assert "75 % of the bytes move one folio a batch; offload cannot speed these up." in choice.notes


def test_a_node_that_only_moves_single_folios_is_not_measured() -> None:
    search = Search(DMA, Mix.of([Part(Shape(4096, 1), 1, "numa_misplaced")]), 100, Random(1))

    assert search.next() is None
    assert "Nothing that this node migrates comes in batches." in search.choice().notes


def test_a_node_that_migrates_nothing_is_not_measured() -> None:
    assert Search(DMA, Mix.of([]), 100, Random(1)).next() is None


def test_every_reason_has_its_batch() -> None:
    assert {str(one) for one, folios in FOLIOS_PER_BATCH.items() if folios == 1} == {
        "numa_misplaced",
        "memory_failure",
        "longterm_pin",
    }


@given(st.lists(st.floats(), max_size=6))
@settings(max_examples=40, deadline=None)
def test_weights_of_a_mix_sum_to_one_or_there_are_none(weights: list[float]) -> None:
    mix = Mix.of(Part(Shape(4096 << n, 32), weight) for n, weight in enumerate(weights))

    assert not mix.parts or math.fsum(part.weight for part in mix.parts) == pytest.approx(1)


# --- the arithmetic


@pytest.mark.parametrize(
    ("degrees", "doubt", "expected"),
    [(1, 0.05, 6.3138), (2, 0.05, 2.9200), (5, 0.001, 5.8934), (10, 0.001, 4.1437), (200, 0.005, 2.6006)],
)
def test_quantiles_are_students(degrees: int, doubt: float, expected: float) -> None:
    assert quantile(degrees, doubt) == pytest.approx(expected, abs=1e-4)


def test_the_time_of_a_mix_is_the_weighted_sum_of_its_shapes() -> None:
    cells = {SMALL: Cell(), LARGE: Cell()}
    cells[SMALL].add(3.0)
    cells[LARGE].add(1.0)

    assert standing(cells, {SMALL: 0.75, LARGE: 0.25}, 0.01).seconds_per_byte == 2.5


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=12))
@settings(max_examples=40, deadline=None)
def test_a_cell_has_mean_and_squares_of_its_samples(values: list[float]) -> None:
    cell = Cell()
    for value in values:
        cell.add(value)
    mean = math.fsum(values) / len(values)

    assert cell.mean == pytest.approx(mean)
    assert cell.squares == pytest.approx(math.fsum((value - mean) ** 2 for value in values), abs=1e-9)


def test_more_samples_narrow_an_interval() -> None:
    def error(count: int) -> float:
        cell = Cell()
        for n in range(count):
            cell.add(1 + 0.1 * (n % 2))
        one = standing({SMALL: cell}, {SMALL: 1.0}, 0.01)
        return compare(one, one).error

    assert error(16) < error(4) / 1.5


# --- what people read


def test_a_choice_explains_itself_in_80_columns() -> None:
    mix = Mix.of([Part(SMALL, 1, "demotion"), Part(Shape(4096, 1), 1, "numa_misplaced")])
    among = [*DMA, Setting("CPUThreads", 8)]
    text = run(machine({DMA[1]: 2, DMA[0]: 0.3}, noise=0.1), mix=mix, among=among).choice().explain()

    assert text.startswith("DMA, 4 channels: +")
    assert "offload off" in text
    assert "slower than plain copy" in text
    assert max(map(len, text.splitlines())) <= 80


def test_offload_that_stays_off_is_explained() -> None:
    choice: Choice = run(machine({})).choice()

    assert choice.explain().startswith("Offload stays off: no setting is surely faster than plain CPU copy")


def test_the_core_costs_an_agent_no_large_module() -> None:
    # What was there before, as where coverage is counted, is none of its cost.
    imports = "import numamigration_api.machinery.tuning.search"
    code = f"import sys; old = set(sys.modules); {imports}; print(*set(sys.modules) - old)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()

    assert {"statistics", "fractions", "decimal", "dataclasses", "pydantic"}.isdisjoint(loaded)
