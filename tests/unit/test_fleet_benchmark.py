# SPDX-License-Identifier: Apache-2.0
"""The pure parts of the fleet benchmark: what is read from metrics, what becomes of samples, the table of scenarios."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from benchmarks import schema
from benchmarks.fleet import operators
from benchmarks.fleet.__main__ import order_of, parser
from benchmarks.fleet.extent import POOLS, SIZES, ZONES, Extent, Room, lack, parts, seconds_left, seconds_of, size_of
from benchmarks.fleet.meters import NOTHING, Counters, Request, open_watches, read_counters, series
from benchmarks.fleet.report import COLUMNS, NAME_COLUMNS, OPERATOR_WRITES, Cost, Push, Report
from benchmarks.fleet.scenarios import FLIPPED, GROWTH, LOST, SCENARIOS, cells, chosen, has_rate, is_off, is_released
from benchmarks.fleet.states import Group, Meta, Outcome, Spec, State, Status
from benchmarks.fleet.wire import loopback_bytes
from benchmarks.processes import peak_rss, reset_peak
from benchmarks.schema import Machine, NotRun, Unit, row
from tests.fleet.cast import ZONE
from tests.testbed.errors import ServerDiedError

pytestmark = pytest.mark.uncounted

MACHINE = Machine(cpu="a CPU", cores=2, memory_gib=4, kernel="6.1.0", python="3.11.2", load=0.1)
METRICS = """\
# HELP apiserver_request_total [STABLE] Counter of apiserver requests.
apiserver_request_total{code="200",resource="nodemigrationstates",subresource="status",verb="APPLY"} 7
apiserver_request_total{code="200",resource="nodemigrationstates",subresource="",verb="APPLY"} 5
apiserver_request_total{code="200",dry_run="All",resource="nodemigrationstates",subresource="",verb="APPLY"} 1
apiserver_request_total{code="0",resource="odd, \\"name\\" {x}",subresource="",verb="GET"} 1
apiserver_request_total_of_another_kind{verb="GET"} 99
apiserver_watch_events_total{resource="nodes"} 3
apiserver_watch_events_total{resource="nodemigrationstates"} 4
apiserver_watch_events_sizes_sum{resource="nodes"} 1.5e+03
apiserver_response_sizes_sum{resource="nodes"} 10
apiserver_longrunning_requests{resource="nodemigrationstates",verb="WATCH"} 12
apiserver_longrunning_requests{resource="nodes",verb="WATCH"} 2
etcd_mvcc_db_total_size_in_bytes 4096
"""


def cost(requests: dict[Request, int], wire: int | None = None) -> Cost:
    counters = Counters(requests, 2, 1_000_000, 0, 0)
    return Cost(1.0, counters, {"operator": 0.5}, {"operator": 2**20}, 2**20, 8_000, wire)


def test_requests_are_told_apart_by_verb_resource_and_code() -> None:
    found = read_counters(METRICS)

    assert found.requests == {
        Request("APPLY", "nodemigrationstates/status", "200"): 7,
        Request("APPLY", "nodemigrationstates", "200"): 6,
        Request("GET", 'odd, \\"name\\" {x}', "0"): 1,
    }
    assert (found.watch_events, found.watch_bytes, found.answer_bytes, found.request_bytes) == (7, 1500, 10, 0)


def test_what_was_counted_before_is_not_counted_again() -> None:
    before, kind = read_counters(METRICS), Request("APPLY", "nodemigrationstates", "200")
    after = before._replace(requests={**before.requests, kind: 106}, watch_events=17)

    assert after.since(before) == Counters({kind: 100}, 10, 0, 0, 0)
    assert before.since(NOTHING).watch_events == 7


def test_a_metric_without_labels_has_one_series() -> None:
    assert list(series(METRICS, "etcd_mvcc_db_total_size_in_bytes")) == [({}, 4096.0)]


def test_watches_of_other_resources_are_not_those_of_agents() -> None:
    assert open_watches(METRICS, "nodemigrationstates") == 12


def test_a_ratio_is_that_of_the_medians() -> None:
    found = row("edit", 100, "last", Unit.SECONDS, [3, 1, 2], bare=("bare: last", [1, 4, 1]))

    assert (found.minimum, found.median, found.maximum, found.runs) == (1, 2, 3, 3)
    assert (found.beside, found.ratio, found.samples) == ("bare: last", 2, (3, 1, 2))


def test_one_sample_is_told_once() -> None:
    found = row("install", 100, "last", Unit.SECONDS, [2.5])

    assert (found.minimum, found.median, found.maximum, found.runs, found.samples) == (2.5, 2.5, 2.5, 1, ())
    assert (found.beside, found.ratio) == ("", None)


def test_a_push_tells_of_its_first_and_its_last_node() -> None:
    report = Report("edit", 100)

    last = report.pushes("edit to written", [Push([float(n) for n in range(1, 101)], [7.0, 200.0])])

    assert {found.metric: found.median for found in report.rows} == {
        "edit to written, first node": 1,
        "edit to written, p50": 50,
        "edit to written, p99": 99,
        "edit to written, last node": 100,
        "edit to written, last answer": 200,
    }
    assert last.metric == "edit to written, last node"


def test_a_kind_of_request_that_came_in_one_run_only_is_told_of_all() -> None:
    report, apply = Report("edit", 100), Request("APPLY", "nodemigrationstates", "200")
    refused, own = Request("APPLY", "nodemigrationstates", "409"), Request("GET", "clusterroles", "200")

    report.cost([cost({apply: 100}), cost({apply: 100, refused: 2, own: 9})], ", bare")

    found = {line.metric: line.samples for line in report.rows}
    assert list(found["requests APPLY nodemigrationstates 409, bare"]) == [0, 2]
    assert not any("clusterroles" in metric for metric in found)


def test_reads_and_reports_of_agents_are_no_writes_of_the_operator() -> None:
    counts = {
        Request("APPLY", "nodemigrationstates", "200"): 3,
        Request("APPLY", "migrationpolicies/status", "409"): 1,
        Request("APPLY", "nodemigrationstates/status", "200"): 50,
        Request("LIST", "nodemigrationstates", "200"): 1,
        Request("PATCH", "leases", "200"): 4,
    }

    assert cost(counts).writes(OPERATOR_WRITES) == 4


def test_a_line_fits_a_terminal_of_80_columns() -> None:
    report = Report("install", 5000)
    report.headline = "word " * 40

    assert len(report.line) == COLUMNS


def test_scenarios_come_in_the_order_of_the_table() -> None:
    assert chosen("edit, install") == ["install", "edit"]
    assert chosen("") == list(SCENARIOS)
    assert (next(iter(SCENARIOS)), list(SCENARIOS)[-1]) == ("install", "delete")
    assert max(map(len, SCENARIOS)) < NAME_COLUMNS


def test_an_unknown_scenario_is_named_with_those_that_are_known() -> None:
    with pytest.raises(ValueError, match=r"no scenario edits; these are: install, edit"):
        chosen("edits")


def test_what_takes_too_long_is_played_when_it_is_asked_for() -> None:
    left_out = size_of(5000).left_out

    assert "policies" not in chosen("", left_out)
    assert chosen("policies", left_out) == ["policies"]


@pytest.mark.parametrize(
    ("nodes", "runs"),
    [pytest.param(1000, 6, id="few"), pytest.param(1001, 1, id="many"), pytest.param(99999, 1, id="most")],
)
def test_edits_of_many_nodes_are_measured_less_often(nodes: int, runs: int) -> None:
    assert size_of(nodes).edits == runs


def test_every_scenario_has_an_estimate_and_those_of_5000_nodes_fit_into_twenty_minutes() -> None:
    size = size_of(5000)
    extent = Extent(5000, size.edits, size.starts, 180.0)

    seconds = {name: seconds_of(name, extent) for name in SCENARIOS}

    assert min(seconds.values()) > 0
    assert sum(seconds[name] for name in chosen("", size.left_out)) <= 20 * 60
    assert all(size.left_out <= SCENARIOS.keys() for size in SIZES)


def test_what_is_left_is_guessed_by_how_long_the_machine_took_so_far() -> None:
    extent = Extent(5000, 1, 5, 180.0)
    first, rest = seconds_of("install", extent), seconds_of("paced", extent) + seconds_of("delete", extent)
    names = ["install", "paced", "steady", "delete"]

    assert seconds_left(names, 0, extent, 0.0) == pytest.approx(first + rest + 180)
    assert seconds_left(names, 1, extent, 2 * first) == pytest.approx(2 * rest + 180)  # which goes by the clock


@pytest.mark.parametrize(
    ("words", "name", "command"),
    [
        pytest.param("", "fleet-5000", "make bench-fleet NODES=5000", id="all"),
        pytest.param(
            "--scenarios edit,install --runs 6",
            "fleet-5000-install+edit",
            "make bench-fleet NODES=5000 SCENARIOS=install,edit RUNS=6",
            id="some",
        ),
        pytest.param(
            "--steady-seconds 60", "fleet-5000", "make bench-fleet NODES=5000 STEADY_SECONDS=60", id="shorter"
        ),
    ],
)
def test_a_run_of_some_scenarios_has_a_file_and_a_command_of_its_own(words: str, name: str, command: str) -> None:
    order = order_of(parser().parse_args(["--nodes", "5000", *words.split()]))

    assert (order.name, order.command) == (name, command)


def test_runs_that_are_asked_for_are_those_of_edits_and_of_starts() -> None:
    order = order_of(parser().parse_args(["--nodes", "5000", "--runs", "7"]))

    assert (order.extent.edits, order.extent.starts) == (7, 7)


def test_policies_of_cells_are_all_different_and_cover_the_fleet() -> None:
    members = {(part.prefix, part.member(n).labels[ZONE]) for part in parts(1000) for n in range(part.count)}

    assert GROWTH[-1] == POOLS * len(ZONES)
    assert {tuple(cell) for cell in cells(GROWTH[-1])} == members
    assert cells(GROWTH[-1])[: GROWTH[0]] == cells(GROWTH[0])


def test_bytes_on_the_wire_are_those_of_the_loopback_interface() -> None:
    text = """\
Inter-|   Receive                                     |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo:    3193      29    0    0    0     0          0   0  3200      29    0    0    0     0       0          0
  eth0: 659789830 21873    0    0    0     0          0   0  1538329 13186   0    0    0     0       0          0
"""

    assert loopback_bytes(text) == 3200


@pytest.mark.parametrize(
    ("sizes", "megabytes"),
    [pytest.param([2_000_000], [2.0], id="counted"), pytest.param([None], [], id="no network of its own")],
)
def test_bytes_that_nobody_could_count_are_left_out(sizes: list[int | None], megabytes: list[float]) -> None:
    report = Report("edit", 100)

    report.cost([cost({}, size) for size in sizes])

    assert [line.median for line in report.rows if line.metric == "bytes on the wire"] == megabytes


@pytest.mark.parametrize(
    ("pools", "share"), [pytest.param(FLIPPED, 0.1, id="relabelled"), pytest.param(LOST, 0.3, id="vanished")]
)
def test_pools_are_shares_of_the_fleet(pools: tuple[int, ...], share: float) -> None:
    dealt = parts(1000)

    assert sum(part.count for part in dealt) == 1000
    assert sum(dealt[number].count for number in pools) == share * 1000
    assert [part.prefix for part in dealt] == sorted(part.prefix for part in dealt)


def test_a_fleet_that_cannot_be_dealt_evenly_has_every_node() -> None:
    dealt = parts(POOLS + 3)

    assert [part.count for part in dealt[:4]] == [2, 2, 2, 1]


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        pytest.param(5000, "", id="there is room"),
        pytest.param(9501, "the API server needs 10001 open files, and 10000 are allowed", id="one file too few"),
        pytest.param(9500, "it needs 12.3 GiB of memory, and 10.0 GiB are free", id="too little memory"),
    ],
)
def test_what_a_machine_cannot_hold_is_told(nodes: int, reason: str) -> None:
    assert lack(nodes, Room(files=10_000, memory=10 << 30)) == reason


@pytest.mark.parametrize(
    ("status", "answered"),
    [
        pytest.param(Status("b", {"balancing": Outcome("Ready")}), True, id="of this revision"),
        pytest.param(Status("a", {"balancing": Outcome("Ready")}), False, id="of an earlier one"),
        pytest.param(Status("b", {"balancing": Outcome("Pending")}), False, id="not yet over"),
    ],
)
def test_an_answer_is_one_to_this_very_spec(status: Status, answered: bool) -> None:
    assert State(Meta("p00-000", "7"), Spec("b"), status).is_answered is answered


def test_what_is_awaited_is_told_from_what_stands_there() -> None:
    edited = Spec("a", {"balancing": Group({"promoteRateLimitMBps": 1001}, "Apply")})
    off = Spec("b", {"offload": Group({"engine": "Off"}, "Apply")})
    released = Spec("c", {"offload": Group({"engine": "DMA"}, "Restore")})

    assert [has_rate(1001)(spec) for spec in (edited, off, released)] == [True, False, False]
    assert [is_off(spec) for spec in (edited, off, released)] == [False, True, False]
    assert [is_released(spec) for spec in (edited, off, released, Spec())] == [False, False, True, True]


def test_results_of_fleets_are_read_as_they_were_the_smallest_first(tmp_path: Path) -> None:
    for nodes in (1000, 100):
        found = schema.fleet_result(
            nodes,
            [row("edit", nodes, "last", Unit.SECONDS, [2, 1])],
            [NotRun("delete", nodes, "no memory")],
            machine=MACHINE,
            conditions=("Of a test.",),
            versions={"etcd": "3.7.3"},
        )
        path = schema.write(found, tmp_path)

    assert (path.name, found.command) == ("fleet-100.json", "make bench-fleet NODES=100")
    assert schema.read_all(tmp_path)[0] == found
    assert [schema.fleet_nodes(fleet) for fleet in schema.read_all(tmp_path)] == [100, 1000]


def test_a_peak_is_that_since_it_was_reset() -> None:
    size = 64 << 20
    b"x" * size
    high = peak_rss(os.getpid())
    reset_peak(os.getpid())

    assert peak_rss(os.getpid()) < high - size // 2


def test_an_operator_that_has_ended_by_itself_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that has lost its Lease: what nobody writes any more would be waited for until patience ends."""
    monkeypatch.setattr(operators, "Observer", lambda *_, **__: None)
    stage = SimpleNamespace(folder=tmp_path, control_plane=None, operator_command=lambda _: ["sh", "-c", "exit 3"])
    made = operators.Operators(cast("Any", stage), 1.0)
    made.check_alive()
    made.launch({}).wait(10.0)

    with pytest.raises(ServerDiedError, match="code 3"):
        made.check_alive()
