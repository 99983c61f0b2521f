# SPDX-License-Identifier: Apache-2.0
"""The tables of docs/performance.md: of one fleet, of any other benchmark, and of what was not run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from benchmarks.fleet.report import WRITES
from benchmarks.fleet.scenarios import SCENARIOS
from benchmarks.markdown import MET, limit, number, place, spread, table
from benchmarks.page.book import Book, origin
from benchmarks.page.figures import FIGURES
from benchmarks.schema import FLEET_PREFIX, Result, Row, Unit, fleet_nodes

SIZES: Final = (100, 1_000, 5_000, 15_000)
"""Fleets that are asked for."""
LAST: Final = ", last node"
PUSH: Final = (", first node", ", p50", ", p99", LAST, ", last answer")
COSTS: Final = (
    "CPU, operator",
    "CPU, API server",
    "CPU, etcd",
    "CPU, agents",
    "CPU, stand-alone agent",
    "peak RSS, operator",
    "peak RSS, API server",
    "peak RSS, etcd",
    "peak RSS, stand-alone agent",
    "watch events",
    "watch events, size",
    "request bodies, size",
    "bytes on the wire",
    "etcd database",
    "largest node state",
)
COST_HEAD: Final = (
    "CPU, s: operator", "API server", "etcd", "agents (simulated)", "stand-alone agent (simulated)",
    "peak RSS, MiB: operator", "API server", "etcd", "stand-alone agent (simulated)",
    "watch events", "of them MB", "request bodies, MB", "on the wire, MB", "etcd, MiB", "largest node state, kB",
)  # fmt: skip
COST: Final = re.compile(
    f"(?P<name>{'|'.join(map(re.escape, sorted(COSTS, key=len, reverse=True)))}"
    r"|requests (?P<verb>\w+) \S+ (?P<code>\d+)|answers to reads, size|(?:CPU|peak RSS), [\w -]+?)(?P<who>, .+)?"
)
"""A metric of ``Report.cost``, and of whom it is where not of the operator's run."""


def of_fleet(result: Result) -> str:
    """Return all that is told of one fleet: pushes, what else was timed or counted, costs."""
    rows = result.results
    push_head = (
        "scenario", "from and to", "first node, s", "p50, s", "p99, s", "last node, s", "runs", "by bare (computed)",
        "last answer, s (simulated)",
    )  # fmt: skip
    head = ("scenario", "what", "median (range)", "unit", "runs", "by bare (computed)", "target", "met", "number is")
    return "\n\n".join(
        [
            f"### {fleet_nodes(result):,} nodes{_chosen(result)}",
            place(result),
            table(push_head, _pushes(rows)),
            table(head, (_line(row) for row in rows if not _is_cost(row) and not row.metric.endswith(PUSH))),
            table(("scenario", *COST_HEAD, "writes (computed)", "refused"), _costs(rows)),
        ]
    )


def _chosen(result: Result) -> str:
    """Return which scenarios a run was of; nothing when it was of all."""
    _, _, words = result.name.removeprefix(FLEET_PREFIX).partition("-")
    return f": {words.replace('+', ', ')}" if words else ""


def of_other(result: Result) -> str:
    """Return all numbers of a benchmark that is of no fleet."""
    head = ("what", "minimum", "median", "p99", "unit", "runs", "by bare", "target", "met", "number is")
    return "\n\n".join([f"### {result.name.capitalize()}", place(result), table(head, map(_other, result.results))])


def not_run(book: Book) -> str:
    """Return what has no numbers, and why, as a list."""
    return "\n".join(f"* {what}: {why}" for what, why in _not_run(book)) or "Nothing: all was run."


def _not_run(book: Book) -> Iterator[tuple[str, str]]:
    for nodes in SIZES:
        if nodes not in book.fleets:
            yield f"fleet of {nodes:,} nodes", f"no result here; `make bench-fleet NODES={nodes}` makes it"
    for nodes in book.fleets:
        name = f"{FLEET_PREFIX}{nodes}"
        found = {row.scenario for row in book.all_rows(name)}
        reasons = {one.scenario: one.reason for result in book.named(name) for one in result.not_run}
        for name in SCENARIOS:
            if name not in found:
                yield f"{name}, {nodes:,} nodes", reasons.get(name, "not asked for")
    for figure in FIGURES:
        if not figure.panels(book):
            yield f'figure "{figure.title}"', "none of its measurements was run"


def _pushes(rows: Iterable[Row]) -> Iterator[list[str]]:
    by_name = {(row.scenario, row.metric): row for row in rows}
    for (scenario, metric), last in by_name.items():
        if metric.endswith(LAST):
            what = metric.removesuffix(LAST)
            first, p50, p99, _, answer = (by_name.get((scenario, what + part)) for part in PUSH)
            times = [number(row.median) if row else "" for row in (first, p50, p99)]
            yield [
                scenario,
                what,
                *times,
                spread(last),
                str(last.runs),
                _ratio(last),
                number(answer.median) if answer else "",
            ]


def _is_cost(row: Row) -> bool:
    return bool(COST.fullmatch(row.metric))


def _costs(rows: Iterable[Row]) -> Iterator[list[str]]:
    found: dict[str, list[tuple[re.Match[str], Row]]] = {}
    for row in rows:
        if match := COST.fullmatch(row.metric):
            found.setdefault(row.scenario + (match["who"] or ""), []).append((match, row))
    for who, costs in found.items():
        by_name = {match["name"]: row for match, row in costs}
        cells = [number(by_name[name].median) if name in by_name else "" for name in COSTS]
        writes = sum(row.median for match, row in costs if match["verb"] in WRITES)
        refused = sum(row.median for match, row in costs if (match["code"] or "") >= "400")
        yield [who, *cells, number(writes), number(refused)]


def _ratio(row: Row) -> str:
    return "" if row.ratio is None else f"{number(row.ratio)} ×"


def _aim(row: Row) -> list[str]:
    return [limit(row.target) if row.target else "", MET[row.met], origin(row)]


def _line(row: Row) -> list[str]:
    return [row.scenario, row.metric, spread(row), _unit(row), str(row.runs), _ratio(row), *_aim(row)]


def _other(row: Row) -> list[str]:
    p99 = "" if row.p99 is None else number(row.p99)
    numbers = [number(row.minimum), number(row.median), p99, _unit(row), str(row.runs), _ratio(row)]
    return [row.metric, *numbers, *_aim(row)]


def _unit(row: Row) -> str:
    return {Unit.COUNT: "", Unit.RATIO: "×"}.get(row.unit, row.unit)
