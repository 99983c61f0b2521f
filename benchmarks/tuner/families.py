# SPDX-License-Identifier: Apache-2.0
"""Tables of machines that do not exist: made up by seed, for the tuner must choose well where nobody has measured.

Each family is one way to be unlike the published tables. Their shapes follow from how copying goes: part of a migration
is never copied by others (Amdahl), engines saturate, more of them get in each other's way. Every cell is then moved by
chance, so that nothing is smooth or monotonic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Final, NamedTuple

from benchmarks.tuner.tables import Table, Value
from numamigration_api.machinery.tuning.samples import BASELINE, Setting
from numamigration_api.vocabulary import Engine

FOLIOS: Final = tuple(4096 << n for n in range(10))
CHANNELS: Final = (1, 2, 4, 8, 12, 16)
WOBBLE: Final = 0.04
"""Of a cell, by chance, as a share."""


class Engines(NamedTuple):
    """How candidates of one engine do.

    Attributes:
        work: share of a migration that they can take over, at the smallest and at the largest folio.
        speed: of one channel, as a multiple of plain copy, at the smallest and at the largest folio.
        saturation: channels beyond which no copy is faster.
        crowding: share that each doubling beyond costs.
    """

    work: tuple[float, float]
    speed: tuple[float, float]
    saturation: float
    crowding: float

    def gain(self, channels: int, at: float) -> float:
        """Return throughput as a multiple of plain copy; `at` is 0 at the smallest folio and 1 at the largest."""
        work = self.work[0] + (self.work[1] - self.work[0]) * at
        speed = self.speed[0] * math.exp(at * math.log(self.speed[1] / self.speed[0]))
        copies = speed * min(channels, self.saturation)
        crowd = math.exp(math.log1p(self.crowding) * max(0.0, math.log2(channels / self.saturation)))
        return 1 / ((1 - work) + work * crowd / copies)


Gain = Callable[[Setting, float, Random], float]


def _engines(rng: Random) -> dict[str, Engines]:
    """Draw engines with their crossover anywhere."""
    return {
        str(engine): Engines(
            work=(rng.uniform(0.2, 0.6), rng.uniform(0.6, 0.98)),
            speed=(rng.uniform(0.1, 1.0), rng.uniform(0.3, 1.5)),
            saturation=rng.choice((1, 2, 3, 6, 10, 16)),
            crowding=rng.choice((0.0, 0.1, 0.3)),
        )
        for engine in (Engine.DMA, Engine.CPU_THREADS)
    }


def _crossing(rng: Random) -> Gain:
    """Engines lose below some size and win above it."""
    engines = _engines(rng)
    return lambda one, at, chance: engines[one.engine].gain(one.channels, at) * _near(1, WOBBLE, chance)


def _flat(rng: Random) -> Gain:
    """Nothing differs by more than chance."""
    width = rng.choice((0.002, 0.01, 0.03))
    return lambda _one, _at, chance: _near(1, width, chance)


def _losing(rng: Random) -> Gain:
    """Everything is slower than plain copy, some of it hardly."""
    worst = rng.uniform(0.4, 0.97)
    return lambda _one, _at, chance: chance.uniform(worst, 0.995)


def _hardly(rng: Random) -> Gain:
    """The best gain is small."""
    most = rng.uniform(1.02, 1.15)
    return lambda one, at, chance: 0.95 + (most - 0.95) * _bump(one, at) * _near(1, WOBBLE, chance)


def _one_channel(rng: Random) -> Gain:
    """One channel wins, and each further one costs."""
    first, slope = rng.uniform(1.1, 2.5), rng.uniform(0.1, 0.5)
    return lambda one, _at, chance: first * math.exp(-slope * math.log(one.channels)) * _near(1, WOBBLE, chance)


def _flipping(rng: Random) -> Gain:
    """One engine wins at small folios and loses at large ones; with the other it is the other way round."""
    turn, height = rng.uniform(0.2, 0.8), rng.uniform(0.3, 1.2)
    sign = rng.choice((1, -1))

    def gain(one: Setting, at: float, chance: Random) -> float:
        side = sign * (1 if one.engine == Engine.DMA else -1)
        return math.exp(height * side * math.tanh(3 * (at - turn)) * _bump(one, 0.5)) * _near(1, WOBBLE, chance)

    return gain


def _jagged(rng: Random) -> Gain:
    """No order at all: every cell is drawn alone."""
    width = rng.uniform(0.1, 0.6)
    return lambda _one, _at, chance: math.exp(chance.gauss(0, width))


def _bump(one: Setting, at: float) -> float:
    """Return 0 to 1, greatest at some number of channels between."""
    return math.exp(-((math.log2(one.channels) - 1 - 2 * at) ** 2) / 4)


def _near(middle: float, width: float, chance: Random) -> float:
    return middle * math.exp(chance.gauss(0, width))


FAMILIES: Final[Mapping[str, Callable[[Random], Gain]]] = {
    "crossing": _crossing,
    "flat": _flat,
    "losing": _losing,
    "hardly": _hardly,
    "one channel": _one_channel,
    "flipping": _flipping,
    "jagged": _jagged,
}


def tables(family: str, count: int, seed: int) -> list[Table]:
    """Make up systems of one family."""
    return [_table(f"{family} {n}", FAMILIES[family], Random(f"{seed}/{family}/{n}")) for n in range(count)]  # noqa: S311


def _table(system: str, make: Callable[[Random], Gain], rng: Random) -> Table:
    gain = make(rng)
    folios = sorted(rng.sample(FOLIOS, rng.randint(2, 8)))
    engines = rng.choice(((Engine.DMA,), (Engine.CPU_THREADS,), (Engine.DMA, Engine.CPU_THREADS)))
    channels = sorted(rng.sample(CHANNELS, rng.randint(2, 6)))
    settings = [Setting(str(engine), number) for engine in engines for number in channels]
    spread, missing = _spreads(rng), rng.choice((0.0, 0.0, 0.15))
    cells: dict[tuple[Setting, int], Value] = {}
    for folio in folios:
        at = math.log2(folio / FOLIOS[0]) / (len(FOLIOS) - 1)
        base = rng.uniform(1, 4) * (1 + 2 * at)
        cells[BASELINE, folio] = Value(base, spread(BASELINE, at))
        for one in settings:
            if rng.random() >= missing:
                cells[one, folio] = Value(base * gain(one, at, rng), spread(one, at))
    return Table(system, cells)


def _spreads(rng: Random) -> Callable[[Setting, float], float | None]:
    """Draw how cells scatter: not told, alike, or wide at middle sizes and many channels."""
    usual, wide = rng.uniform(0.02, 0.12), rng.uniform(0.1, 0.3)
    kind = rng.choice(("untold", "alike", "mixed", "middle"))

    def spread(one: Setting, at: float) -> float | None:
        if kind == "untold":
            return None
        if kind == "mixed":
            return rng.choice((0.01, usual, wide))
        return wide if kind == "middle" and 0.2 < at < 0.9 and one.channels >= 8 else usual

    return spread


def distorted(table: Table, count: int, seed: int) -> list[Table]:
    """Make machines like one of a table, but scaled: gains stretched, sizes and channels shifted, spreads other."""
    return [_distort(table, f"{table.system} ~{n}", Random(f"{seed}/{table.system}/{n}")) for n in range(count)]  # noqa: S311


def _distort(table: Table, system: str, rng: Random) -> Table:
    stretch, shift, spread = rng.uniform(0.3, 1.5), rng.uniform(-0.4, 0.2), rng.uniform(0.5, 2)
    move = rng.choice((0.25, 0.5, 1, 2, 4))
    bases = {folio: value.gbps for (one, folio), value in table.cells.items() if one == BASELINE}
    cells: dict[tuple[Setting, int], Value] = {}
    for (one, folio), value in table.cells.items():
        gain = stretch * math.log(value.gbps / bases[folio]) + shift + rng.gauss(0, WOBBLE) if one != BASELINE else 0.0
        own = None if value.spread is None else value.spread * spread
        cells[one, int(folio * move)] = Value(bases[folio] * math.exp(gain), own)
    return Table(system, cells)


def unseen(count: int, seed: int, published: Sequence[Table]) -> dict[str, list[Table]]:
    """Return all systems that were made up, by family; so many of each."""
    found = {family: tables(family, count, seed) for family in FAMILIES}
    found["distorted"] = [one for table in published for one in distorted(table, max(1, count // len(published)), seed)]
    return found
