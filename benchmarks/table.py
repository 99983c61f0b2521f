# SPDX-License-Identifier: Apache-2.0
"""Puts the results into README.md, between two markers: ``python -m benchmarks.table [--check]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from benchmarks.schema import Measurement, Result, Unit, read_all

README: Final = Path(__file__).parents[1] / "README.md"
BEGIN: Final = "<!-- Written by `make bench-table` from benchmarks/results/; do not edit. -->"
END: Final = "<!-- End of the benchmark table. -->"


def render(results: Iterable[Result]) -> str:
    """Return the tables of all results, in Markdown."""
    return "\n".join(_section(result) for result in results)


def _section(result: Result) -> str:
    machine = result.machine
    day = result.date.partition("T")[0]
    place = (
        f"`{result.command}` at {result.revision}, {day}: {machine.cores} cores of {machine.cpu}, "
        f"{machine.memory_gib} GiB, Linux {machine.kernel}, Python {machine.python}, load {machine.load:g} before."
    )
    rows = [
        "| what | best | median | p99 | target | met |",
        "|---|---|---|---|---|---|",
        *map(_row, result.measurements),
    ]
    return "\n".join([" ".join([place, *result.conditions]), "", *rows, ""])


def _row(row: Measurement) -> str:
    p99 = "" if row.p99 is None else _number(row.p99)
    target = "" if row.target is None else f"{row.target.of} ≤ {_number(row.target.at_most)}"
    met = {None: "", True: "yes", False: "**no**"}[row.met]
    unit = "" if row.unit is Unit.RATIO else f", {row.unit}"
    return f"| {row.name}{unit} | {_number(row.best)} | {_number(row.median)} | {p99} | {target} | {met} |"


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def replaced(text: str, table: str) -> str:
    """Return a document with another table between its markers.

    Raises:
        ValueError: a marker is missing.
    """
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document needs the lines {BEGIN!r} and {END!r}")
    return f"{head}{begin}\n\n{table}\n{end}{tail}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table, or with ``--check`` compare it; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when README.md is stale")
    options = parser.parse_args(arguments)
    found = README.read_text()
    wanted = replaced(found, render(read_all()))
    if options.check and found != wanted:
        sys.stderr.write("README.md does not show benchmarks/results/; run make bench-table\n")
        return 1
    if not options.check:
        README.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
