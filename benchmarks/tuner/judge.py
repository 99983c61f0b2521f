# SPDX-License-Identifier: Apache-2.0
"""What decisions cost: regret against the best setting in hindsight, and whether they are slower than no offload."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any, Final, NamedTuple

from benchmarks.schema import percentile
from benchmarks.tuner.deciders import Decider, Task, grid_probes, tuner
from benchmarks.tuner.tables import Table
from benchmarks.tuner.world import CEILING_MAINLINE, CEILING_RAISED, Machine, Weather
from numamigration_api.machinery.tuning.samples import BASELINE, Mix, Part, Setting, Shape

FOLIOS_PER_CALL: Final = (32, 512)
"""What the kernel's callers that batch put into one call."""
EVEN: Final = 1e-9
"""Relative difference that is rounding."""


class Verdict(NamedTuple):
    """One decision, judged by the true means of its machine; shares of throughput.

    Attributes:
        regret: lost against the best setting in hindsight.
        slowdown: lost against plain copy; 0 where nothing is.
        probes: that it took.
        grid: probes of a full grid.
    """

    regret: float
    slowdown: float
    probes: int
    grid: int


def judge(task: Task, setting: Setting, probes: int) -> Verdict:
    """Judge one choice."""
    weights = task.mix.gaining
    times = {
        one: sum(weight * task.machine.seconds_per_byte(one, shape) for shape, weight in weights.items())
        for one in task.settings
    }
    slowdown = 1 - times[BASELINE] / times[setting]
    return Verdict(
        regret=max(0.0, 1 - min(times.values()) / times[setting]),
        slowdown=slowdown if slowdown > EVEN else 0.0,
        probes=probes,
        grid=grid_probes(task.settings, task.mix),
    )


def summary(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Return the numbers that targets are about."""
    regrets = [one.regret for one in verdicts]
    return {
        "decisions": len(verdicts),
        "not_slower_share": statistics.fmean(one.slowdown == 0 for one in verdicts),
        "worst_slowdown": max(one.slowdown for one in verdicts),
        "mean_regret": statistics.fmean(regrets),
        "p95_regret": percentile(regrets, 95),
        "probes_share_of_grid": sum(one.probes for one in verdicts) / sum(one.grid for one in verdicts),
    }


def draw_mix(folios: Sequence[int], rng: Random) -> Mix:
    """Draw what a node migrates: one folio size, some, or all, with random weights, each in calls of one length."""
    count = rng.choice((1, min(3, len(folios)), len(folios)))
    sizes = rng.sample(list(folios), count)
    return Mix.of(Part(Shape(size, rng.choice(FOLIOS_PER_CALL)), rng.expovariate(1)) for size in sizes)


def draw_task(table: Table, weather: Weather, rng: Random) -> Task:
    """Draw one decision on a system: its mix, and its kernel's ceiling."""
    ceiling = rng.choice((CEILING_RAISED, CEILING_MAINLINE))
    return Task(Machine(table, ceiling, weather), draw_mix(table.folios, rng))


def decide(
    table: Table,
    weather: Weather,
    numbers: Iterable[int],
    seed: int,
    decider: Decider = tuner,
    *,
    draw: Callable[[Table, Weather, Random], Task] = draw_task,
) -> list[Verdict]:
    """Make decisions on one system; each depends on nothing but seed, system and its number."""
    found = []
    for number in numbers:
        rng = Random(f"{seed}/{table.system}/{number}")  # noqa: S311 - chance of a simulation
        task = draw(table, weather, rng)
        decision = decider(task, rng)
        found.append(judge(task, decision.setting, decision.probes))
    return found
