# SPDX-License-Identifier: Apache-2.0
"""Writes docs/tuning.md from page.md and the committed result: ``python -m benchmarks.tuner.page [--check]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Final

from benchmarks.markdown import number, place
from benchmarks.page.book import Book
from benchmarks.page.fill import fill
from benchmarks.page.verdicts import NOT_RUN
from benchmarks.schema import Row, read_all
from benchmarks.targets import TUNER
from benchmarks.tuner.bench import CALM, DECISIONS, WEATHERS
from benchmarks.tuner.deciders import DECIDERS, Task
from benchmarks.tuner.tables import PUBLISHED, read
from benchmarks.tuner.world import CEILING_MAINLINE, CEILING_RAISED, Machine
from numamigration_api.machinery.tuning.samples import Mix, Part, Shape
from numamigration_api.machinery.tuning.search import Search, usual_budget

PAGE: Final = Path(__file__).parents[2] / "docs" / "tuning.md"
TEMPLATE: Final = Path(__file__).with_name("page.md")
KIND: Final = "regret of "
MEASURES: Final = ("decisions slower than no offload", "worst slowdown", "mean regret", "probes by full grid")


def render(book: Book) -> str:
    """Return docs/tuning.md."""
    results = book.named(TUNER)
    rows = {row.metric: row for row in book.rows(TUNER, TUNER)}
    sections = {
        "raised": decision(CEILING_RAISED),
        "mainline": decision(CEILING_MAINLINE),
        "conditions": place(results[0]) if results else f"{NOT_RUN.capitalize()}.",
        "targets": "\n".join(_targets(rows)),
        "weathers": "\n".join(_line(name, rows, [f"{what}, {{}}, {name}" for what in MEASURES]) for name in WEATHERS),
        "kinds": "\n".join(
            f"| {metric.removeprefix(KIND)} | {_percent(rows, metric)} |" for metric in rows if metric.startswith(KIND)
        ),
        "deciders": "\n".join(_line(name, rows, _beside(name)) for name in DECIDERS),
    }
    return fill(TEMPLATE.read_text(), sections, book)


def decision(ceiling: int) -> str:
    """Return a decision in words: 4 KiB and 2 MiB folios, half and half, on the machine of V3's table."""
    table, rng = read(PUBLISHED)[0], Random(1)  # noqa: S311 - chance of a model
    mix = Mix.of([Part(Shape(4096, 512), 1, "mempolicy_mbind"), Part(Shape(2 << 20, 512), 1, "mempolicy_mbind")])
    task = Task(Machine(table, ceiling), mix)
    budget = usual_budget(task.settings, mix)
    search = Search(task.machine.settings, mix, budget, rng, channels_present=16)
    made = 0
    while probe := search.next():
        search.take(task.machine.measure(probe, rng, made / budget))
        made += 1
    return search.choice().explain().strip()


def _targets(rows: dict[str, Row]) -> Iterator[str]:
    told = (
        ("decisions slower than no offload, × 1", f"decisions slower than no offload, {{}}, {CALM}", "at most 0.5 %"),
        ("slowdown of the worst of these, × 1", f"worst slowdown, {{}}, {CALM}", "below 2 %"),
        ("decisions slower than no offload, × 5", "decisions slower than no offload, {}, × 5", "at most 0.5 %"),
        ("slowdown of the worst of these, × 5", "worst slowdown, {}, × 5", "below 2 %"),
        ("mean regret, × 1", f"mean regret, {{}}, {CALM}", "at most 3 %, unseen 5 %"),
        ("probes, share of a full grid, × 1", f"probes by full grid, {{}}, {CALM}", "at most a third"),
    )
    for what, metric, target in told:
        yield f"{_line(what, rows, [metric])} {target} |"


def _beside(name: str) -> list[str]:
    return [f"beside: {what}, {name}, {{}}" for what in ("mean regret", "slower than no offload", "probes")]


def _line(name: str, rows: dict[str, Row], metrics: Sequence[str]) -> str:
    """Return a line of a table: each metric for published and for unseen systems."""
    cells = [_percent(rows, metric.format(of)) for metric in metrics for of in DECISIONS]
    return f"| {' | '.join([name, *cells])} |"


def _percent(rows: dict[str, Row], metric: str) -> str:
    return f"{number(rows[metric].median)} %" if metric in rows else NOT_RUN


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page, or with ``--check`` compare it; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tuner.page", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when the page is stale")
    options = parser.parse_args(arguments)
    text = render(Book(read_all()))
    if not options.check:
        PAGE.write_text(text)
        return 0
    if PAGE.exists() and PAGE.read_text() == text:
        return 0
    sys.stderr.write("docs/tuning.md does not show benchmarks/results/; run make generate\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
