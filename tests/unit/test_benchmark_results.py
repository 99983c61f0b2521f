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
from benchmarks.schema import Machine, Measurement, Statistic, Target, Unit, measured, percentile

pytestmark = pytest.mark.uncounted

MACHINE = Machine(cpu="a CPU", cores=2, memory_gib=4, kernel="6.1.0", python="3.11.2", load=0.1)


def result(*measurements: Measurement, name: str = "some") -> schema.Result:
    return schema.result(name, f"make bench-{name}", MACHINE, ("Of a test.",), measurements)


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
        pytest.param(Statistic.WORST, False, id="the worst is over it"),
        pytest.param(Statistic.P99, False, id="so is the 99th percentile"),
    ],
)
def test_a_target_is_compared_with_its_own_statistic(of: Statistic, met: bool) -> None:
    row = measured("RSS", Unit.MEGABYTES, [1, 2, 3], target=Target(2, of))

    assert (row.best, row.median, row.worst, row.met) == (1, 2, 3, met)


def test_a_target_is_not_met_by_rounding() -> None:
    assert not measured("RSS", Unit.MEGABYTES, [24.0001], target=Target(24)).met


@pytest.mark.parametrize("samples", [[], [1.0, float("nan")]])
def test_samples_that_say_nothing_are_no_measurement(samples: list[float]) -> None:
    with pytest.raises(ValueError, match="cannot summarize"):
        measured("RSS", Unit.MEGABYTES, samples)


def test_a_written_result_is_read_as_it_was(tmp_path: Path) -> None:
    row = measured("edit", Unit.MILLISECONDS, [1.25, 3], latency=True, target=Target(200))
    found = result(row)

    path = schema.write(found, tmp_path)

    assert (path.name, schema.read_all(tmp_path)) == ("some.json", [found])


def test_the_facts_of_a_machine_do_not_name_it() -> None:
    told = msgspec.json.encode(Machine.here()).decode()

    assert platform.node() not in told
    assert "-" not in Machine.here().kernel


def test_the_table_says_of_each_target_whether_it_is_met() -> None:
    rows = (
        measured("agent RSS", Unit.MEGABYTES, [25], target=Target(24)),
        measured("edit", Unit.RATIO, [1.2, 1.4], latency=True, target=Target(1.5, Statistic.P99)),
        measured("agent USS", Unit.MEGABYTES, [9.87654]),
    )

    lines = table.render([result(*rows)]).splitlines()

    assert lines[-3:] == [
        "| agent RSS, MB | 25 | 25 |  | median ≤ 24 | **no** |",
        "| edit | 1.2 | 1.3 | 1.4 | p99 ≤ 1.5 | yes |",
        "| agent USS, MB | 9.88 | 9.88 |  |  |  |",
    ]


def test_a_terminal_of_80_columns_shows_every_number() -> None:
    row = measured("n" * 60, Unit.CORE_PERCENT, [1234.5678], latency=True, target=Target(0.01))

    assert max(map(len, text(result(row)).splitlines())) <= 80


def test_the_readme_shows_the_results_and_keeps_the_rest() -> None:
    before = f"head\n{table.BEGIN}\nold\n{table.END}\ntail\n"

    after = table.replaced(before, "new\n")

    assert after == f"head\n{table.BEGIN}\n\nnew\n\n{table.END}\ntail\n"
    assert table.replaced(after, "new\n") == after


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
