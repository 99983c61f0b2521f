# SPDX-License-Identifier: Apache-2.0
"""The model of machines by which the tuner is judged, and the judge."""

from __future__ import annotations

import statistics
from random import Random

import pytest

from benchmarks.page.book import Book, Origin, origin
from benchmarks.page.verdicts import verdict
from benchmarks.schema import Machine as Place
from benchmarks.schema import result
from benchmarks.targets import AIMS, TUNER
from benchmarks.tuner import bench
from benchmarks.tuner.deciders import DECIDERS, Task
from benchmarks.tuner.families import FAMILIES, distorted, tables
from benchmarks.tuner.judge import Verdict, decide, draw_mix, judge, summary
from benchmarks.tuner.tables import PUBLISHED, Table, Value, read
from benchmarks.tuner.world import CEILING_MAINLINE, Machine, Weather, usual_spread
from numamigration_api.machinery.tuning.samples import BASELINE, Mix, Part, Probe, Setting, Shape

pytestmark = pytest.mark.uncounted

ZEN3 = read(PUBLISHED)[0]
BIG, SMALL = 2 << 20, 4096


def gbps(machine: Machine, setting: Setting, shape: Shape) -> float:
    return 1e-9 / machine.seconds_per_byte(setting, shape)


@pytest.mark.parametrize(
    ("setting", "folio", "published"),
    [(BASELINE, SMALL, 3.73), (Setting("DMA", 16), BIG, 63.69), (Setting("CPUThreads", 4), 65536, 10.08)],
)
def test_a_published_cell_is_what_was_published(setting: Setting, folio: int, published: float) -> None:
    assert gbps(Machine(ZEN3), setting, Shape(folio, 512)) == pytest.approx(published)


def test_between_cells_throughput_lies_between() -> None:
    machine = Machine(ZEN3)
    four, six, eight = (gbps(machine, Setting("DMA", n), Shape(BIG, 512)) for n in (4, 6, 8))

    assert four < six < eight


def test_a_missing_cell_follows_its_neighbors_and_its_baseline() -> None:
    cells = {(BASELINE, SMALL): Value(1, None), (BASELINE, BIG): Value(10, None)}
    cells |= {(Setting("DMA", 1), SMALL): Value(2, None), (Setting("DMA", 4), BIG): Value(40, None)}
    machine = Machine(Table("a", cells))

    assert gbps(machine, Setting("DMA", 1), Shape(BIG, 512)) == pytest.approx(20)


def test_under_the_ceiling_of_mainline_a_large_folio_is_alone_in_its_batch() -> None:
    """One folio a batch: channels beyond the first have nothing to copy."""
    machine = Machine(ZEN3, CEILING_MAINLINE)
    speeds = {gbps(machine, Setting("DMA", n), Shape(BIG, 512)) for n in (1, 4, 16)}

    assert len(speeds) == 1
    assert speeds.pop() < gbps(machine, BASELINE, Shape(BIG, 512))


def test_a_batch_ends_with_the_folio_that_reaches_the_ceiling() -> None:
    machine = Machine(ZEN3, CEILING_MAINLINE)
    two, four, sixteen = (gbps(machine, Setting("DMA", n), Shape(1 << 20, 512)) for n in (2, 4, 16))

    assert two == pytest.approx(four) == pytest.approx(sixteen)


def test_a_single_folio_gains_nothing_as_published() -> None:
    machine = Machine(ZEN3)

    assert gbps(machine, Setting("DMA", 1), Shape(BIG, 1)) < gbps(machine, BASELINE, Shape(BIG, 1))


def test_a_neighbor_takes_channels_half_of_the_time() -> None:
    alone, beside = Machine(ZEN3), Machine(ZEN3, weather=Weather(neighbor=8))
    shape = Shape(BIG, 512)
    halves = [alone.seconds_per_byte(Setting("DMA", n), shape) for n in (16, 8)]

    assert beside.seconds_per_byte(Setting("DMA", 16), shape) == pytest.approx(statistics.fmean(halves))
    assert beside.seconds_per_byte(Setting("DMA", 8), shape) == pytest.approx(halves[1])


@pytest.mark.parametrize("noise", [1.0, 5.0])
def test_noise_keeps_the_mean_time(noise: float) -> None:
    machine, rng = Machine(ZEN3, weather=Weather(noise)), Random(3)
    probe = Probe(Setting("DMA", 16), Shape(1 << 20, 512))
    times = [1 / machine.measure(probe, rng, 0).bytes_per_second for _ in range(4000)]

    assert statistics.fmean(times) == pytest.approx(machine.seconds_per_byte(*probe), rel=0.03)
    assert min(times) > 0


def test_a_cell_without_a_spread_has_the_median_published_one() -> None:
    machine = Machine(ZEN3)

    assert machine.spread(Setting("DMA", 4), Shape(BIG, 512)) == usual_spread()
    assert machine.spread(BASELINE, Shape(BIG, 512)) == pytest.approx(0.36 / 10.67)


# --- the judge


def task() -> Task:
    return Task(Machine(ZEN3), Mix.of([Part(Shape(BIG, 512), 1)]))


def test_regret_is_lost_throughput_against_the_best_in_hindsight() -> None:
    assert judge(task(), Setting("DMA", 16), 1).regret == 0
    assert judge(task(), Setting("DMA", 8), 1).regret == pytest.approx(1 - 45.27 / 63.69)
    assert judge(task(), BASELINE, 1).slowdown == 0


def test_a_slowdown_is_lost_throughput_against_plain_copy() -> None:
    small = Task(Machine(ZEN3), Mix.of([Part(Shape(SMALL, 512), 1)]))

    assert judge(small, Setting("DMA", 1), 1).slowdown == pytest.approx(1 - 2.75 / 3.73)


def test_a_summary_counts_what_targets_are_about() -> None:
    found = summary([Verdict(0.0, 0.0, 10, 100), Verdict(0.5, 0.25, 30, 100)])

    assert found == {
        "decisions": 2,
        "not_slower_share": 0.5,
        "worst_slowdown": 0.25,
        "mean_regret": 0.25,
        "p95_regret": 0.5,
        "probes_share_of_grid": 0.2,
    }


@pytest.mark.parametrize("name", DECIDERS)
def test_everybody_decides_and_a_decision_depends_on_its_seed_alone(name: str) -> None:
    first, second = (decide(ZEN3, Weather(), range(5, 7), 1, DECIDERS[name]) for _ in range(2))

    assert first == second
    assert first[1] == decide(ZEN3, Weather(), [6], 1, DECIDERS[name])[0]


def test_a_mix_has_only_calls_that_batch() -> None:
    mixes = [draw_mix(ZEN3.folios, Random(n)) for n in range(50)]

    assert all(mix.single_folio_share == 0 for mix in mixes)
    assert {len(mix.parts) for mix in mixes} >= {1, 3, 8}


# --- made-up machines


@pytest.mark.parametrize("family", FAMILIES)
def test_a_made_up_machine_has_a_baseline_and_something_to_choose(family: str) -> None:
    for table in tables(family, 6, 1):
        assert all((BASELINE, folio) in table.cells for folio in table.folios)
        assert table.settings


def test_made_up_machines_depend_on_their_seed() -> None:
    first, again, other = (tables("jagged", 2, seed) for seed in (1, 1, 2))

    assert first == again != other


def test_a_distorted_machine_is_another() -> None:
    [one] = distorted(ZEN3, 1, 1)

    assert one.settings == ZEN3.settings
    assert one.cells != ZEN3.cells


# --- its result


def test_every_target_of_the_tuner_finds_its_numbers_and_they_are_a_model_s() -> None:
    verdicts = [Verdict(0.01, 0.0, 10, 100)]
    rows = list(bench.rows(dict.fromkeys(bench.groups(), verdicts), {"flat": verdicts}))
    place = Place(cpu="a CPU", cores=2, memory_gib=4, kernel="6.1.0", python="3.11.2", load=0.1)
    book = Book([result(TUNER, "make bench-tuner", place, (), rows, versions={})])

    assert [verdict(aim, book).met for aim in AIMS if aim.benchmark == TUNER] == [True] * 5
    assert {origin(row) for row in rows} == {Origin.MODEL}
