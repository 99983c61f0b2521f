# SPDX-License-Identifier: Apache-2.0
"""docs/performance.md: what it makes of results; none of its numbers is asserted."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from benchmarks import schema
from benchmarks.fleet.report import Push, Report
from benchmarks.fleet.scenarios import SCENARIOS
from benchmarks.page import __main__ as page
from benchmarks.page.book import Book, Origin, origin
from benchmarks.page.figures import FIGURES, digest
from benchmarks.page.fill import UnknownPlaceError, fill
from benchmarks.page.tables import COST, not_run, of_fleet
from benchmarks.page.verdicts import summary, verdict
from benchmarks.schema import Machine, NotRun, Result, Row, Unit, row
from benchmarks.targets import AIMS, CORE, FOOTPRINT, LATENCY, Aim, Statistic

pytestmark = pytest.mark.uncounted

MACHINE = Machine(cpu="a CPU", cores=2, memory_gib=4, kernel="6.1.0", python="3.11.2", load=0.1)
EDIT = "edit to written, last node"


def push_rows(nodes: int, ours: Sequence[float] = (2, 4, 3), bare: Sequence[float] = (2, 2, 2)) -> list[Row]:
    report = Report("edit", nodes)
    report.pushes(
        "edit to written", [Push([0.5, last], [last + 1]) for last in ours], bare=[Push([0.5, b], []) for b in bare]
    )
    report.pushes("bare: edit to written", [Push([0.5, last], []) for last in bare])
    for who in ("", ", bare"):
        report.add(f"requests APPLY nodemigrationstates 200{who}", Unit.COUNT, [nodes])
        report.add(f"requests APPLY nodemigrationstates 409{who}", Unit.COUNT, [2])
        report.add(f"CPU, API server{who}", Unit.CPU_SECONDS, [12.5])
    report.add("CPU, operator", Unit.CPU_SECONDS, [1.25])
    report.add("peak RSS, operator", Unit.MEBIBYTES, [90, 111])
    return report.rows


def fleet(nodes: int, rows: Sequence[Row] = (), missing: Sequence[NotRun] = ()) -> Result:
    rows = rows or push_rows(nodes)
    return schema.fleet_result(
        nodes, rows, missing, machine=MACHINE, conditions=("Of a test.",), versions={"etcd": "3"}
    )


def other(name: str, *rows: Row) -> Result:
    return schema.result(name, f"make bench-{name}", MACHINE, ("Of a test.",), rows, versions={})


def aim_of(scenario: str, metric: str, nodes: int, of: Statistic) -> Aim:
    keys = (scenario, metric, nodes, of)
    return next(aim for aim in AIMS if (aim.scenario, aim.metric, aim.nodes, aim.target.of) == keys)


def cells(text: str, *words: str) -> list[str]:
    [line] = [line for line in text.splitlines() if all(word in line for word in words)]
    return [cell.strip() for cell in line.strip("|").split("|")]


# --- targets


def test_a_missed_target_says_by_how_much() -> None:
    line = cells(summary(Book([fleet(5_000)])), "× a bare apply loop")

    assert line[1:] == ["5,000", "1.5", "ratio ≤ 1.2", "**no**, missed by 0.3 (25 %)", "computed", f"edit: {EDIT}"]


def test_a_target_of_5_000_nodes_is_not_met_by_a_smaller_fleet() -> None:
    found = verdict(aim_of("edit", EDIT, 5_000, Statistic.RATIO), Book([fleet(1_000, push_rows(1_000, bare=(9, 9)))]))

    assert (found.row, found.met) == (None, None)


def test_one_measurement_is_held_against_each_of_its_targets() -> None:
    book = Book([fleet(5_000)])

    assert not verdict(aim_of("edit", EDIT, 5_000, Statistic.RATIO), book).met
    assert verdict(aim_of("edit", EDIT, 5_000, Statistic.MEDIAN), book).met


def test_of_many_measurements_the_worst_one_is_shown() -> None:
    rows = [
        row(CORE, 15_000, f"{kind}, {policies} pol., large : small", Unit.RATIO, [ratio])
        for kind, policies, ratio in (("a", 1, 1.1), ("b", 1, 1.3), ("b", 20, 1.0))
    ]

    line = cells(summary(Book([other(CORE, *rows)])), "b, 1 pol.")

    assert line[2:5] == ["1.3", "median ≤ 1.2", "**no**, missed by 0.1 (8 %)"]


def test_a_small_fleet_s_event_that_costs_more_is_not_hidden() -> None:
    rows = [row(CORE, n, f"a, 1 pol., {n:,} nodes", Unit.MICROSECONDS, [us]) for n, us in ((5_000, 30), (15_000, 10))]

    assert cells(summary(Book([other(CORE, *rows)])), "one node event, CPU, µs")[1:3] == ["5,000", "30"]


def test_a_target_that_is_missed_by_less_than_is_shown_is_missed() -> None:
    rows = [row(FOOTPRINT, 1, "agent RSS, offload on", Unit.MEGABYTES, [24.0001])]

    assert cells(summary(Book([other(FOOTPRINT, *rows)])), "agent, RSS")[4].startswith("**no**")


def test_a_target_of_nothing_is_missed_without_a_share() -> None:
    rows = [row("restart", 5_000, "writes of all starts", Unit.COUNT, [2])]

    assert cells(summary(Book([fleet(5_000, rows)])), "after its start")[4] == "**no**, missed by 2"


def test_a_target_without_a_measurement_is_not_run() -> None:
    text = summary(Book([]))

    assert len(text.splitlines()) == 2 + len(AIMS)
    assert all(cells(line, "|")[2] == "not run" for line in text.splitlines()[2:])


@pytest.mark.parametrize(
    ("metric", "unit", "statistic", "expected"),
    [
        pytest.param(EDIT, Unit.SECONDS, Statistic.MEDIAN, Origin.MEASURED, id="a clock"),
        pytest.param(EDIT, Unit.SECONDS, Statistic.RATIO, Origin.COMPUTED, id="by the bare loop"),
        pytest.param("large : small", Unit.RATIO, Statistic.MEDIAN, Origin.COMPUTED, id="of two fleets"),
        pytest.param(
            "edit to written, last answer", Unit.SECONDS, Statistic.MEDIAN, Origin.SIMULATED, id="fake kernel"
        ),
    ],
)
def test_each_number_says_how_it_came_about(metric: str, unit: Unit, statistic: Statistic, expected: Origin) -> None:
    assert origin(row("edit", 100, metric, unit, [1]), statistic) is expected


# --- tables


def test_a_push_is_one_line_of_its_fleet() -> None:
    line = cells(of_fleet(fleet(100)), "| edit | edit to written |")

    assert line == ["edit", "edit to written", "0.5", "0.5", "3", "3 (2-4)", "3", "1.5 ×", "4"]


def test_what_runs_cost_stands_beside_what_the_bare_loop_costs() -> None:
    text = of_fleet(fleet(100))

    ours, bare = cells(text, "| edit | 1.25 |"), cells(text, "| edit, bare |")
    assert (ours[2], bare[1:3]) == ("12.5", ["", "12.5"])
    assert ours[-2:] == bare[-2:] == ["102", "2"]


def test_every_number_of_a_fleet_is_in_one_of_its_tables() -> None:
    rows = [row("restart", 100, "lease to ready", Unit.SECONDS, [1.5], bare=("bare: paged lists", [1]))]

    assert cells(of_fleet(fleet(100, rows)), "lease to ready")[5:8] == ["1.5 ×", "ratio ≤ 1.5", "yes"]


def test_a_missing_scenario_is_not_run_with_its_reason() -> None:
    lines = not_run(Book([fleet(100, missing=[NotRun("delete", 100, "no memory")])])).splitlines()

    assert "* delete, 100 nodes: no memory" in lines
    assert "* steady, 100 nodes: not asked for" in lines
    assert "* fleet of 1,000 nodes: no result here; `make bench-fleet NODES=1000` makes it" in lines
    assert not any(line.startswith("* edit, 100 nodes") for line in lines)
    assert sum(line.endswith("not asked for") for line in lines) == len(SCENARIOS) - 2


@pytest.mark.parametrize(("date", "edit"), [("2026-01-01T00:00:00Z", 3), ("2026-03-01T00:00:00Z", 9)])
def test_each_scenario_is_that_of_the_latest_run_of_all_or_some(date: str, edit: int) -> None:
    starts = [row("restart", 100, "lease to ready", Unit.SECONDS, [1.5], bare=("bare: paged lists", [1]))]
    rows = [*push_rows(100, ours=[9]), *starts]
    some = msgspec.structs.replace(fleet(100, rows), name="fleet-100-edit+restart", date=date)
    whole = msgspec.structs.replace(fleet(100), date="2026-02-01T00:00:00Z")

    book = Book([some, whole])

    assert [found.median for found in book.of_fleets("edit", EDIT)] == [edit]
    assert [found.median for found in book.of_fleets("restart", "lease to ready")] == [1.5]
    assert book.fleets == [100]
    assert of_fleet(some).startswith("### 100 nodes: edit, restart\n")
    assert not any("restart" in line for line in not_run(book).splitlines())


def test_costs_of_one_scenario_under_different_names_are_lines_of_their_own() -> None:
    report = Report("policies", 100)
    for count in (1, 200):
        report.add(f"CPU, operator, {count} policies", Unit.CPU_SECONDS, [count / 10])
        report.add(f"watch events, size, {count} policies", Unit.MEGABYTES, [count])
        report.add(f"requests APPLY nodemigrationstates 200, {count} policies", Unit.COUNT, [7])

    text = of_fleet(fleet(100, report.rows))

    assert cells(text, "| policies, 1 policies |")[1] == "0.1"
    assert cells(text, "| policies, 200 policies |")[-2:] == ["7", "0"]


@pytest.mark.parametrize(
    "metric",
    [
        "CPU, operator",
        "CPU, stand-alone agent, bare",
        "peak RSS, API server, 20 policies",
        "watch events",
        "watch events, size, bare",
        "requests LIST nodes 200",
        "answers to reads, size, bare",
        "largest node state",
    ],
)
def test_what_a_process_took_is_a_cost(metric: str) -> None:
    assert COST.fullmatch(metric)


@pytest.mark.parametrize("metric", ["policy status lag", "lease to ready, 20 policies", "operator CPU", "writes"])
def test_what_was_timed_is_no_cost(metric: str) -> None:
    assert not COST.fullmatch(metric)


# --- places of hand-written text


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        pytest.param(f"{{{{fleet-100 | edit | {EDIT} | median}}}}", "3 s", id="median"),
        pytest.param(f"{{{{fleet-100 | edit | {EDIT} | ratio}}}}", "1.5 ×", id="ratio"),
        pytest.param(f"{{{{fleet-100 | edit | {EDIT} | minimum}}}}", "2 s", id="minimum"),
        pytest.param("{{fleet-100 | paced | any | median}}", "not run", id="a scenario that was not run"),
        pytest.param(f"{{{{fleet-9 | edit | {EDIT} | median}}}}", "not run", id="a fleet that was not run"),
        pytest.param("{{hello}}", "world", id="a section"),
    ],
)
def test_a_place_is_filled_from_the_results(place: str, expected: str) -> None:
    assert fill(f"It is {place}.", {"hello": "world"}, Book([fleet(100)])) == f"It is {expected}."


@pytest.mark.parametrize(
    "place",
    [
        pytest.param("{{fleet-100 | edit | edit to writen | median}}", id="metric"),
        pytest.param(f"{{{{fleet-100 | edit | {EDIT} | mean}}}}", id="statistic"),
        pytest.param("{{helo}}", id="section"),
    ],
)
def test_a_misspelt_place_is_an_error(place: str) -> None:
    with pytest.raises(UnknownPlaceError, match=r"there|neither"):
        fill(place, {}, Book([fleet(100)]))


# --- the page and its pictures


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the page of some results once, for it takes seconds; return the folder with results and docs."""
    folder = tmp_path_factory.mktemp("made") / "results"
    folder.mkdir()
    for nodes in (100, 1_000):
        schema.write(fleet(nodes), folder)
    samples = [float(n) for n in range(1, 21)]
    hop = "policy event to node state event"
    hops = ("edit to kernel file", hop, f"{hop}, bare")
    schema.write(other(LATENCY, *(row(LATENCY, 1, one, Unit.MILLISECONDS, samples) for one in hops)), folder)
    agents = ("bare interpreter, exec to TLS", "agent, exec to first status")
    rows = [row(FOOTPRINT, 1, one, Unit.MILLISECONDS, samples) for one in agents]
    rows += [
        row(FOOTPRINT, 1, one, Unit.MEGABYTES, samples) for one in ("bare interpreter, RSS", "agent RSS, offload on")
    ]
    idle = row(FOOTPRINT, 1, "agent idle CPU, off", Unit.CORE_PERCENT, samples)
    schema.write(other(FOOTPRINT, *rows, idle), folder)
    assert make(folder) == 0
    return folder.parent


@pytest.fixture
def results(made: Path, tmp_path: Path) -> Path:
    """Return a folder of results beside a page of them that is up to date."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "results"


def make(results: Path, *more: str) -> int:
    return page.main(["--results", str(results), "--docs", str(results.parent / "docs"), *more])


def test_the_page_shows_what_there_is_and_says_what_there_is_not(results: Path) -> None:
    docs = results.parent / "docs"
    text = (docs / page.PAGE).read_text()
    assert "### 1,000 nodes" in text
    assert "(images/performance/edit.png)](images/performance/edit.svg)" in text
    assert "$ for n in 100 1000; do make bench-fleet NODES=$n; done; make performance-page" in text
    assert "$ make bench-latency performance-page" in text
    assert "### Nothing is asked for, statistics move\n\nNot run:" in text
    assert "{{" not in text
    pictures = {path.name for path in (docs / page.IMAGES).iterdir()}
    assert {"edit.png", "edit.svg", "latency.png", "processes.svg"} <= pictures
    assert "steady.png" not in pictures


def test_what_was_just_written_is_not_stale_and_stays_as_it_is(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = results.parent / "docs" / page.IMAGES / "edit.svg"
    before = picture.stat().st_mtime_ns

    assert make(results, "--check") == 0
    assert make(results) == 0
    assert (picture.stat().st_mtime_ns, capsys.readouterr().err) == (before, "")


def test_the_same_results_make_the_same_pictures(results: Path) -> None:
    folder = results.parent / "docs" / page.IMAGES
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in folder.iterdir():
        path.unlink()
    make(results)

    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_other_results_make_the_page_and_their_figures_stale(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schema.write(fleet(1_000, push_rows(1_000, ours=(9, 9))), results)

    assert make(results, "--check") == 1
    told = capsys.readouterr().err
    assert "performance.md is another; run make performance-page" in told
    assert "edit.png is missing, or drawn from other data" in told
    assert "latency.png" not in told


def test_a_picture_that_is_drawn_in_another_way_is_another() -> None:
    [(_, panels)] = page.drawn(
        Book([other(LATENCY, row(LATENCY, 1, "edit to kernel file", Unit.MILLISECONDS, [1, 2]))])
    ).values()

    assert digest(panels, b"thin lines") != digest(panels, b"thick lines")


@pytest.mark.parametrize("change", ["missing", "left over"])
def test_pictures_that_do_not_belong_to_the_results_are_stale(results: Path, change: str) -> None:
    folder = results.parent / "docs" / page.IMAGES
    if change == "missing":
        (folder / "edit.svg").unlink()
    else:
        (folder / "steady.png").write_bytes(b"")

    assert make(results, "--check") == 1
    assert make(results) == 0
    assert make(results, "--check") == 0


def test_the_core_is_drawn_by_the_number_of_policies_however_they_select() -> None:
    rows = [
        row(CORE, nodes, f"{kind}, {crowd}, {nodes:,} nodes", Unit.MICROSECONDS, [nodes / 1000])
        for kind in ("counter moved", "label flipped")
        for crowd in ("1 pol.", "20 pol.", "200 pol. apart")
        for nodes in (5_000, 15_000)
    ]

    _, panels = page.drawn(Book([other(CORE, *rows)]))["core"]

    kinds, policies = panels
    assert [(bars.label, bars.values) for bars in kinds.bars] == [("5,000 nodes", [5, 5]), ("15,000 nodes", [15, 15])]
    assert [point.x for point in policies.lines[0].points] == [1, 20, 200]


def test_a_fleet_is_drawn_by_the_number_of_policies() -> None:
    rows = [row("policies", 100, f"lease to ready, {n} policies", Unit.SECONDS, [n / 10]) for n in (1, 20, 200)]

    _, [panel] = page.drawn(Book([fleet(100, rows)]))["policies"]

    assert [(point.x, point.y) for point in panel.lines[0].points] == [(1, 0.1), (20, 2), (200, 20)]


def test_every_figure_has_its_place_in_the_page() -> None:
    text = (page.HERE / "page.md").read_text()

    assert [figure.name for figure in FIGURES if f"{{{{figure {figure.name}}}}}" not in text] == []


def test_a_fleet_of_one_size_is_drawn(tmp_path: Path) -> None:
    figures = page.drawn(Book([fleet(5_000)]))

    page.write(tmp_path, "", figures)

    assert {path.suffix for path in (tmp_path / page.IMAGES).iterdir()} == {".png", ".svg"}
    assert "operator" in figures
