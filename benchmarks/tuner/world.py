# SPDX-License-Identifier: Apache-2.0
"""A model of a machine: what a setting would move, and what one measurement of it would say. Nothing is measured.

* Between the cells of a table, logarithms are interpolated linearly over the logarithms of folio size and channels; of
  candidates that of the gain over plain copy, so that what a table lacks follows its baseline. A cell that is missing
  between others is the mean of both ways. Beyond the last cell the last one holds; below the fewest channels known,
  throughput goes down in proportion.
* A batch ends with the folio that reaches the kernel's ceiling of base pages. A batch uses no more channels than it has
  folios, and no more than 16.
* A shorter batch is slower as in the published column of 2 MiB folios by number per call, relative to its 512.
* Noise is of the time of one measurement: normal, with the published relative spread, cut on both sides alike (so that
  its mean stays) where a time would come near zero.
"""

from __future__ import annotations

import csv
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from benchmarks.tuner.tables import ENGINES, PUBLISHED, Table, median_spread, read
from numamigration_api.machinery.tuning.samples import BASELINE, CPU, Probe, Sample, Setting, Shape
from numamigration_api.vocabulary import Engine

PAGE_BYTES: Final = 4096
CEILING_RAISED: Final = 512 * 512
"""Base pages of a batch in the kernels that the published tables were made with (a patch for testing)."""
CEILING_MAINLINE: Final = 512
CHANNELS_MAX: Final = 16
"""Of one batch, whatever `nr_dma_chan` says (dialects V2 to V6)."""
CUT: Final = 0.9
"""No measurement takes less than a tenth of its time, and so none more than 1.9 times."""
BATCHES: Final = Path(__file__).with_name("batches.csv")
BATCH_OF_TABLES: Final = 512
"""Folios per call in the published table by folio size: 1 GB of 2 MiB folios."""

Curve = Sequence[tuple[float, float]]
"""Logarithms of (where, what), by where."""


@cache
def usual_spread() -> float:
    """Return the relative standard deviation of cells that have none: the median of the published ones."""
    return median_spread(read(PUBLISHED))


@cache
def batch_curves() -> Mapping[str, Curve]:
    """Return throughput by folios in a batch, relative to that of the tables, by engine."""
    with BATCHES.open() as file:
        rows = list(csv.DictReader(line for line in file if line[0] != "#"))
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        found.setdefault(ENGINES[row["engine"]], []).append(
            (math.log(int(row["folios"])), math.log(float(row["gbps"])))
        )
    at = math.log(BATCH_OF_TABLES)
    return {engine: [(x, y - interpolated(curve, at)) for x, y in curve] for engine, curve in found.items()}


def interpolated(curve: Curve, x: float) -> float:
    """Return the value of a curve; beyond its ends that of the end."""
    at = bisect_left(curve, (x, -math.inf))
    if at == len(curve):
        return curve[-1][1]
    if at == 0 or curve[at][0] == x:
        return curve[at][1]
    (left, low), (right, high) = curve[at - 1], curve[at]
    return low + (high - low) * (x - left) / (right - left)


def filled_in(given: Mapping[tuple[int, int], float], channels: int, folio: int) -> float | None:
    """Return a cell that is given or lies between others, of the same channels or the same folio size; else None."""
    if (channels, folio) in given:
        return given[channels, folio]
    by_size = sorted((math.log(size), gain) for (many, size), gain in given.items() if many == channels)
    by_channels = sorted((math.log(many), gain) for (many, size), gain in given.items() if size == folio)
    ways = ((by_size, math.log(folio)), (by_channels, math.log(channels)))
    found = [interpolated(curve, at) for curve, at in ways if curve[0][0] < at < curve[-1][0]]
    return sum(found) / len(found) if found else None


class Weather(NamedTuple):
    """What disturbs measurements, and what does not stop at them.

    Attributes:
        noise: the published spread, so many times.
        stolen: share of measurements during which others took the CPU.
        drift: the machine becomes slower and faster by this share, over the whole search.
        neighbor: channels that another user of the engines holds, half of the time.
        channels: present in the machine; matters only beside a neighbor.
    """

    noise: float = 1.0
    stolen: float = 0.0
    drift: float = 0.0
    neighbor: int = 0
    channels: int = CHANNELS_MAX


class Machine:
    """One system of a table, under one ceiling and in one weather.

    Args:
        table: of its system.
        ceiling: base pages of a batch.
        weather: what disturbs it.
    """

    def __init__(self, table: Table, ceiling: int = CEILING_RAISED, weather: Weather | None = None) -> None:
        self.system, self.folios, self.settings = table.system, table.folios, table.settings
        self.weather = weather or Weather()
        self._ceiling = ceiling
        spreads = {at: value.spread for at, value in table.cells.items() if value.spread is not None}
        self._spreads = spreads
        self._base = sorted(
            (math.log(folio), math.log(value.gbps)) for (one, folio), value in table.cells.items() if one == BASELINE
        )
        self._gains = {engine: self._surface(table, engine) for engine in {one.engine for one in self.settings}}
        self._known: dict[Probe, float] = {}

    def _surface(self, table: Table, engine: str) -> dict[int, Curve]:
        """Return log gain over log folio size, by channels, with what is missing between others filled in."""
        given = {
            (one.channels, folio): math.log(value.gbps) - interpolated(self._base, math.log(folio))
            for (one, folio), value in table.cells.items()
            if one.engine == engine
        }
        folios, channels = sorted({at[1] for at in given}), sorted({at[0] for at in given})
        filled = {(many, folio): filled_in(given, many, folio) for many in channels for folio in folios}
        return {
            many: [(math.log(folio), gain) for folio in folios if (gain := filled[many, folio]) is not None]
            for many in channels
        }

    def seconds_per_byte(self, setting: Setting, shape: Shape) -> float:
        """Return the true mean time of a byte."""
        probe = Probe(setting, shape)
        if probe not in self._known:
            held = self.weather.neighbor if setting.engine == Engine.DMA else 0
            alone, beside = (self._seconds(setting, shape, taken) for taken in (0, held))
            self._known[probe] = (alone + beside) / 2
        return self._known[probe]

    def _seconds(self, setting: Setting, shape: Shape, taken: int) -> float:
        """Return the mean time of a byte while another user holds so many channels; without any the CPU copies."""
        batch = min(shape.folios, max(1, math.ceil(self._ceiling * PAGE_BYTES / shape.folio_bytes)))
        left = min(setting.channels, self.weather.channels - taken) if taken else setting.channels
        engine = setting.engine if left > 0 else CPU
        size = math.log(shape.folio_bytes)
        log_gbps = interpolated(self._base, size) + interpolated(batch_curves()[engine], math.log(batch))
        if engine != CPU:
            log_gbps += self._log_gain(engine, min(left, batch), size)
        return math.exp(-log_gbps) / 1e9

    def _log_gain(self, engine: str, channels: int, size: float) -> float:
        surface = self._gains[engine]
        curve = [(math.log(known), interpolated(by_size, size)) for known, by_size in surface.items()]
        at = math.log(min(channels, CHANNELS_MAX) if engine == Engine.DMA else channels)
        return interpolated(curve, at) + min(0.0, at - curve[0][0])

    def spread(self, setting: Setting, shape: Shape) -> float:
        """Return the relative standard deviation of one measurement."""
        return self._spreads.get((setting, shape.folio_bytes), usual_spread()) * self.weather.noise

    def measure(self, probe: Probe, rng: Random, progress: float) -> Sample:
        """Return what one measurement says.

        Args:
            probe: what is measured.
            rng: source of chance.
            progress: of the search, 0 to 1; for the drift.
        """
        setting, shape = probe
        taken = self.weather.neighbor if setting.engine == Engine.DMA and rng.random() < 0.5 else 0
        mean = self._seconds(setting, shape, taken) if self.weather.neighbor else self.seconds_per_byte(setting, shape)
        seconds = mean * (1 + self._noise(self.spread(setting, shape), rng))
        if rng.random() < self.weather.stolen:
            seconds *= rng.uniform(1.5, 4)
        seconds *= 1 + self.weather.drift * math.sin(2 * math.pi * progress)
        return Sample(setting, shape, 1 / seconds)

    @staticmethod
    def _noise(spread: float, rng: Random) -> float:
        while abs(found := rng.gauss(0, spread)) > CUT:
            pass
        return found
