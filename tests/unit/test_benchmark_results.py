# SPDX-License-Identifier: Apache-2.0
"""The form of benchmark results, their table, and what is read from /proc; no number of a benchmark is asserted."""

from __future__ import annotations

import os
import platform
import threading
from pathlib import Path

import msgspec
import pytest

from benchmarks import schema, table
from benchmarks.observer import StoreObserver
from benchmarks.processes import cpu_seconds, memory
from benchmarks.run import text
from benchmarks.schema import Machine, Row, Unit, percentile, row
from benchmarks.targets import AIMS, FOOTPRINT, LATENCY, Statistic, Target, target_of

pytestmark = pytest.mark.uncounted

MACHINE = Machine(cpu="a CPU", cores=2, memory_gib=4, kernel="6.1.0", python="3.11.2", load=0.1)


def result(*rows: Row, name: str = "some") -> schema.Result:
    return schema.result(name, f"make bench-{name}", MACHINE, ("Of a test.",), rows, versions={})


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        pytest.param([3.0], 3.0, id="one sample is every percentile"),
        pytest.param(list(range(1, 101)), 99, id="of a hundred the last but one"),
        pytest.param(list(range(1, 100)), 99, id="of fewer the last"),
        pytest.param(list(range(201, 0, -1)), 199, id="in any order"),
    ],
)
def test_the_99th_percentile_is_a_sample(samples: list[float], expected: float) -> None:
    assert percentile(samples, 99) == expected


@pytest.mark.parametrize(
    ("of", "met"),
    [
        pytest.param(Statistic.MEDIAN, True, id="the median is at the limit"),
        pytest.param(Statistic.MAXIMUM, False, id="the maximum is over it"),
        pytest.param(Statistic.P99, False, id="so is the 99th percentile"),
        pytest.param(Statistic.RATIO, None, id="there is no bare loop to compare with"),
    ],
)
def test_a_target_is_compared_with_its_own_statistic(of: Statistic, met: bool | None) -> None:
    found = row("some", 1, "edit", Unit.MILLISECONDS, [1, 2, 3], latency=True)

    assert Target(2, of).is_met(found.found()) is met


def test_a_target_is_not_met_by_rounding() -> None:
    found = row(FOOTPRINT, 1, "agent RSS, offload on", Unit.MEGABYTES, [24.0001])

    assert (found.maximum, found.target, found.met) == (24, Target(24, Statistic.MAXIMUM), False)


@pytest.mark.parametrize(
    ("nodes", "limit"),
    [
        pytest.param(100, 110, id="smaller than any"),
        pytest.param(5_000, 110, id="as large as the smaller one"),
        pytest.param(5_001, 150, id="one node more"),
        pytest.param(15_001, None, id="larger than any"),
    ],
)
def test_a_fleet_is_held_against_the_target_of_the_next_size(nodes: int, limit: float | None) -> None:
    target = target_of("edit", "peak RSS, operator", nodes)

    assert (target and target.at_most) == limit


def test_the_memory_of_two_operators_is_not_held_against_that_of_one() -> None:
    assert target_of("failover", "peak RSS, operator", 5_000) is None


def test_of_two_fleet_sizes_the_smaller_one_s_target_comes_first() -> None:
    sizes: dict[tuple[str, str], list[int]] = {}
    for aim in AIMS:
        sizes.setdefault((aim.scenario, aim.metric), []).append(aim.nodes)

    assert all(nodes == sorted(nodes) for nodes in sizes.values())


@pytest.mark.parametrize("samples", [[], [1.0, float("nan")]])
def test_samples_that_say_nothing_are_no_measurement(samples: list[float]) -> None:
    with pytest.raises(ValueError, match="cannot summarize"):
        row("some", 1, "RSS", Unit.MEGABYTES, samples)


def test_a_written_result_is_read_as_it_was(tmp_path: Path) -> None:
    first = row(FOOTPRINT, 1, "agent, exec to first status", Unit.MILLISECONDS, [1.25, 3], latency=True)
    found = result(first, row(LATENCY, 1, "edit", Unit.MILLISECONDS, [3], bare=("bare", [2])))

    path = schema.write(found, tmp_path)

    assert (path.name, schema.read_all(tmp_path)) == ("some.json", [found])


def test_the_facts_of_a_machine_do_not_name_it() -> None:
    told = msgspec.json.encode(Machine.here()).decode()

    assert platform.node() not in told
    assert "-" not in Machine.here().kernel


def test_a_terminal_of_80_columns_shows_every_number() -> None:
    found = row("some", 1, "n" * 60, Unit.CORE_PERCENT, [1234.5678], latency=True)
    missed = msgspec.structs.replace(found, target=Target(0.01), met=False)

    assert max(map(len, text(result(missed)).splitlines())) <= 80


def test_the_readme_shows_the_results_and_keeps_the_rest() -> None:
    before = f"head\n{table.BEGIN}\nold\n{table.END}\ntail\n"

    after = table.replaced(before, "new")

    assert after == f"head\n{table.BEGIN}\n\nnew\n\n{table.END}\ntail\n"
    assert table.replaced(after, "new") == after


def test_a_readme_without_markers_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs the lines"):
        table.replaced("head\n", "new\n")


def test_the_memory_of_a_process_is_told_in_bytes() -> None:
    found = memory(os.getpid())

    assert 1_000_000 < found.uss <= found.pss <= found.rss


def test_the_cpu_time_of_a_process_counts_threads_that_have_ended() -> None:
    before = cpu_seconds(os.getpid())
    thread = threading.Thread(target=lambda: sum(range(1_000_000)))
    thread.start()
    thread.join()

    assert cpu_seconds(os.getpid()) > before


def test_a_write_to_a_file_is_told(tmp_path: Path) -> None:
    file = tmp_path / "knob"
    file.touch()
    with StoreObserver(file) as stores:
        file.write_text("1")

        assert stores.wait() > 0
