# SPDX-License-Identifier: Apache-2.0
"""The tuner's benchmark: ``make bench-tuner``.

Systems are those of published.csv, and unseen ones: made up by families (``families``), with a seed that no constant of
the tuner was chosen by. Groups of decisions run in two processes; each decision depends on its seed alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Final, NamedTuple

from benchmarks.run import run_alone
from benchmarks.schema import Machine, Result, Row, Unit, result, row
from benchmarks.targets import TUNER
from benchmarks.tuner.deciders import DECIDERS
from benchmarks.tuner.families import FAMILIES, unseen
from benchmarks.tuner.judge import Verdict, decide, summary
from benchmarks.tuner.tables import PUBLISHED, Table, read
from benchmarks.tuner.world import Weather
from tests.testbed.progress import Progress

SEED: Final = 20261128
SYSTEMS: Final = 12
"""Of each family."""
DECISIONS: Final = {"published": 200, "unseen": 12}
"""Of each system."""
NOISES: Final = (1, 2, 3, 5)
WEATHERS: Final[Mapping[str, Weather]] = {
    **{f"× {noise}": Weather(float(noise)) for noise in NOISES},
    "stolen CPU": Weather(stolen=0.1),
    "drift": Weather(drift=0.2),
    "neighbor": Weather(neighbor=8),
    "all at once": Weather(noise=2, stolen=0.1, drift=0.2, neighbor=8),
}
CALM: Final = "× 1"
TUNER_NAME: Final = "tuner"


class Group(NamedTuple):
    """Decisions that are told as one: by whom, on which systems, in which weather."""

    decider: str
    systems: str
    weather: str


Verdicts = Mapping[Group, Sequence[Verdict]]


def systems() -> dict[str, dict[str, list[Table]]]:
    """Return all tables, by whether they are published, and by family."""
    published = read(PUBLISHED)
    return {"published": {"published": published}, "unseen": unseen(SYSTEMS, SEED, published)}


def groups() -> list[Group]:
    """Return what is run: the tuner in all weathers, the others in calm."""
    mine = [Group(TUNER_NAME, of, weather) for weather in WEATHERS for of in DECISIONS]
    return [*mine, *(Group(name, of, CALM) for name in DECIDERS for of in DECISIONS if name != TUNER_NAME)]


def judged(job: tuple[Group, Table]) -> list[Verdict]:
    """Decide on one system."""
    group, table = job
    numbers = range(DECISIONS[group.systems])
    return decide(table, WEATHERS[group.weather], numbers, SEED, DECIDERS[group.decider])


def rows(found: Verdicts, by_kind: Mapping[str, Sequence[Verdict]]) -> Iterator[Row]:
    """Yield what is told: the tuner first, then published systems and made-up families, then the others."""
    for group, verdicts in found.items():
        if group.decider == TUNER_NAME:
            yield from _told(f"{group.systems}, {group.weather}", verdicts)
    for kind, verdicts in by_kind.items():
        yield _percent(f"regret of {kind}", summary(verdicts)["mean_regret"])
    for group, verdicts in found.items():
        if group.weather == CALM:
            numbers, who = summary(verdicts), f"{group.decider}, {group.systems}"
            yield _percent(f"beside: mean regret, {who}", numbers["mean_regret"])
            yield _percent(f"beside: slower than no offload, {who}", 1 - numbers["not_slower_share"])
            yield _percent(f"beside: probes, {who}", numbers["probes_share_of_grid"])


def _told(where: str, verdicts: Sequence[Verdict]) -> Iterator[Row]:
    numbers = summary(verdicts)
    yield row(TUNER, 1, f"decisions, {where}", Unit.COUNT, [numbers["decisions"]])
    yield _percent(f"decisions slower than no offload, {where}", 1 - numbers["not_slower_share"])
    yield _percent(f"worst slowdown, {where}", numbers["worst_slowdown"])
    yield _percent(f"mean regret, {where}", numbers["mean_regret"])
    yield _percent(f"regret, p95, {where}", numbers["p95_regret"])
    yield _percent(f"probes by full grid, {where}", numbers["probes_share_of_grid"])


def _percent(metric: str, share: float) -> Row:
    return row(TUNER, 1, metric, Unit.PERCENT, [100 * share])


def benchmark(progress: Progress) -> Result:
    """Run all groups."""
    machine, tables = Machine.here(), systems()
    jobs = [(group, table) for group in groups() for ones in tables[group.systems].values() for table in ones]
    progress.note(f"{sum(DECISIONS[group.systems] for group, _ in jobs):,} decisions on a model of machines")
    with ProcessPoolExecutor(2) as pool:
        done = list(zip(jobs, pool.map(judged, jobs, chunksize=4), strict=True))
    found: dict[Group, list[Verdict]] = {}
    by_kind: dict[str, list[Verdict]] = {}
    family_of = {table.system: family for family, ones in tables["unseen"].items() for table in ones}
    for (group, table), verdicts in done:
        found.setdefault(group, []).extend(verdicts)
        if (group.decider, group.weather) == (TUNER_NAME, CALM):
            by_kind.setdefault(family_of.get(table.system, table.system), []).extend(verdicts)
    return result(TUNER, "make bench-tuner", machine, conditions(tables), rows(found, by_kind), versions={})


def conditions(tables: Mapping[str, Mapping[str, Sequence[Table]]]) -> tuple[str, ...]:
    """Return what a reader has to know."""
    count = sum(map(len, tables["unseen"].values()))
    return (
        "A model, nothing is measured: machines are the published tables, and made-up ones.",
        f"{len(tables['published']['published'])} published systems of {DECISIONS['published']} decisions each.",
        f"{count} made-up ones of {DECISIONS['unseen']} each in {len(FAMILIES) + 1} families; seed {SEED}.",
        "Each decision draws folio sizes and their weights, calls of 32 or 512 folios, and the kernel's batch ceiling.",
    )


def main() -> int:
    """Run, write and show the result; return the exit code."""
    return run_alone(benchmark)


if __name__ == "__main__":
    sys.exit(main())
