# SPDX-License-Identifier: Apache-2.0
"""Who chooses: the tuner, and what it is compared with. Each gets a machine to measure, and a mix.

The others have no test against plain copy: they take what looked best, as one would with a table of numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import Final, NamedTuple

from benchmarks.tuner.world import Machine
from numamigration_api.machinery.tuning.samples import BASELINE, Mix, Probe, Setting, Shape
from numamigration_api.machinery.tuning.search import GRID_ROUNDS, Search, grid_probes, usual_budget
from numamigration_api.vocabulary import Engine


class Task(NamedTuple):
    """One decision to be made."""

    machine: Machine
    mix: Mix

    @property
    def settings(self) -> list[Setting]:
        """Candidates and the baseline."""
        return [BASELINE, *self.machine.settings]


class Decision(NamedTuple):
    """What was chosen, and how many measurements it took."""

    setting: Setting
    probes: int


Decider = Callable[[Task, Random], Decision]


def tuner(task: Task, rng: Random) -> Decision:
    """Choose as the product does."""
    budget = usual_budget(task.settings, task.mix)
    search = Search(task.machine.settings, task.mix, budget, rng)
    made = 0
    while probe := search.next():
        search.take(task.machine.measure(probe, rng, made / budget))
        made += 1
    return Decision(search.choice().setting, made)


def fixed(channels: int) -> Decider:
    """Choose so many DMA channels, or the nearest that there is; CPU threads where there is no DMA."""

    def choose(task: Task, _rng: Random) -> Decision:
        by_dma = [one for one in task.machine.settings if one.engine == Engine.DMA]
        among = by_dma or task.machine.settings or [BASELINE]
        return Decision(min(among, key=lambda one: abs(one.channels - channels)), 0)

    return choose


def grid(rounds: int) -> Decider:
    """Measure everything so many times, and take the best mean."""

    def choose(task: Task, rng: Random) -> Decision:
        sums = _Sums(task, rng, rounds * len(task.settings) * len(task.mix.gaining))
        for _ in range(rounds):
            sums.measure(task.settings)
        return sums.decision(task.settings)

    return choose


def random_search(task: Task, rng: Random) -> Decision:
    """Measure settings drawn by chance as thoroughly as the grid does, for as many probes as the tuner may take."""
    each = GRID_ROUNDS * len(task.mix.gaining)
    count = max(1, usual_budget(task.settings, task.mix) // each)
    drawn = rng.sample(task.settings, min(count, len(task.settings)))
    sums = _Sums(task, rng, each * len(drawn))
    for _ in range(GRID_ROUNDS):
        sums.measure(drawn)
    return sums.decision(drawn)


def successive_halving(task: Task, rng: Random) -> Decision:
    """Share the tuner's budget out over halvings of the field (Karnin, Koren, Somekh 2013)."""
    left, shapes, budget = list(task.settings), max(1, len(task.mix.gaining)), usual_budget(task.settings, task.mix)
    halvings = max(1, (len(left) - 1).bit_length())
    sums = _Sums(task, rng, budget)
    while len(left) > 1:
        for _ in range(max(1, budget // (halvings * len(left) * shapes))):
            sums.measure(left)
        left = sums.ranked(left)[: (len(left) + 1) // 2]
    return Decision(left[0], sums.made)


class _Sums:
    """Sums of times, by setting and shape."""

    def __init__(self, task: Task, rng: Random, budget: int) -> None:
        self._task, self._rng, self._budget = task, rng, max(1, budget)
        self._sums: dict[Probe, tuple[float, int]] = {}
        self.made = 0

    def measure(self, settings: Iterable[Setting]) -> None:
        """Measure each once at every shape, in random order."""
        probes = [Probe(one, shape) for one in settings for shape in self._task.mix.gaining]
        self._rng.shuffle(probes)
        for probe in probes:
            found = self._task.machine.measure(probe, self._rng, self.made / self._budget)
            total, count = self._sums.get(probe, (0.0, 0))
            self._sums[probe] = total + 1 / found.bytes_per_second, count + 1
            self.made += 1

    def ranked(self, settings: Iterable[Setting]) -> list[Setting]:
        """Return them, the fastest first."""
        return sorted(settings, key=lambda one: self._time(one, self._task.mix.gaining))

    def _time(self, setting: Setting, weights: Mapping[Shape, float]) -> float:
        sums = [(weight, *self._sums[Probe(setting, shape)]) for shape, weight in weights.items()]
        return sum(weight * total / count for weight, total, count in sums)

    def decision(self, settings: Sequence[Setting]) -> Decision:
        return Decision(self.ranked(settings)[0], self.made)


DECIDERS: Final[Mapping[str, Decider]] = {
    "tuner": tuner,
    **{f"fixed {channels}": fixed(channels) for channels in (1, 4, 8, 16)},
    "full grid": grid(GRID_ROUNDS),
    "grid of a third": grid(GRID_ROUNDS // 3),
    "random search": random_search,
    "successive halving": successive_halving,
}
__all__ = ["DECIDERS", "Decider", "Decision", "Task", "grid_probes", "tuner"]
