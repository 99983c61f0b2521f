# SPDX-License-Identifier: Apache-2.0
"""Numbers, tables and places of measurements, as README.md and docs/performance.md show them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from benchmarks.schema import Result, Row, Unit
from benchmarks.targets import Statistic, Target

MET: Final = {None: "", True: "yes", False: "**no**"}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; cells hold no line breaks and no bars."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def number(value: float) -> str:
    """Return a number with the digits that say something."""
    return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"


def quantity(value: float, unit: Unit, of: Statistic = Statistic.MEDIAN) -> str:
    """Return a number with its unit; a ratio has none but ``×``."""
    if unit is Unit.RATIO or of is Statistic.RATIO:
        return f"{number(value)} ×"
    return number(value) if unit is Unit.COUNT else f"{number(value)} {unit}"


def limit(target: Target) -> str:
    """Return what a target asks for, in the unit that stands beside it."""
    return f"{target.of} ≤ {number(target.at_most)}"


def place(result: Result) -> str:
    """Return where and when it was measured, and under which conditions."""
    machine, day = result.machine, result.date.partition("T")[0]
    versions = "".join(f", {name} {version}" for name, version in sorted(result.versions.items()))
    where = (
        f"`{result.command}` at {result.revision}, {day}: {machine.cores} cores of {machine.cpu}, "
        f"{machine.memory_gib} GiB, Linux {machine.kernel}, Python {machine.python}{versions}, "
        f"load {machine.load:g} before."
    )
    return " ".join([where, *result.conditions])


def spread(row: Row) -> str:
    """Return the median and, of several runs, the least and the greatest."""
    if row.runs == 1:
        return number(row.median)
    return f"{number(row.median)} ({number(row.minimum)}-{number(row.maximum)})"
