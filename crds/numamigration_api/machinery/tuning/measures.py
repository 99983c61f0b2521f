# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of a search: means of cells, the time a setting takes for a mix, and how sure a comparison is.

* A cell is (setting, shape). Its mean is that of the time a byte took, so it says how long many bytes take. Nothing is
  dropped for being slow: an engine that is slow now and then *is* slower, and a mean that forgets it would flatter it.
* The time of the mix is the weighted sum of its cells'. Settings are compared by the logarithm of the ratio of their
  times; the variance is that of the first order (delta method), cells being independent. All settings that are
  compared were measured in the same blocks, so a drift of the machine cancels from the ratio and widens the interval.
* A cell of two or three samples cannot know its own spread. It borrows a few samples' worth of the spread of its
  setting at other shapes; that borrows from all cells of the machine, and these from ``SPREAD_USUAL`` (Smyth 2004,
  moderated t). So equal samples make no certainty. Degrees of freedom are Satterthwaite's (1946) of what is not
  borrowed, and the borrowed ones once, for all cells borrow of the same; quantiles are Student's.

Sources: Smyth, Statistical Applications in Genetics and Molecular Biology 3 (2004) 3; Satterthwaite, Biometrics
Bulletin 2 (1946) 110; Student's distribution for whole degrees: Abramowitz and Stegun 26.7.3 and 26.7.4.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final, NamedTuple, TypeGuard

from numamigration_api.machinery.tuning.samples import Shape

SPREAD_USUAL: Final = 0.1
"""Relative standard deviation of one measurement, as far as a cell cannot know its own: a tenth, a round number."""
BORROWED: Final = 2.0
"""How many samples' worth a cell borrows, and a setting."""
OWN_MIN: Final = 0.1
"""Degrees of freedom of a cell with one sample, which says nothing of its spread."""
MATTERS: Final = 0.05
"""Share of the mix, or of its time, from which on a shape matters for a proof."""
DEGREES_MAX: Final = 200
"""Beyond these Student's quantiles are as good as constant."""
LOG_RATIO_MAX: Final = 50.0
"""Nobody is faster by more; keeps powers finite whatever samples say."""
SPEED_MIN: Final = 1.0
SPEED_MAX: Final = 1e15
"""Bytes per second that a measurement may have."""


class Cell:
    """Mean and spread of one setting at one shape, kept up sample by sample (Welford 1962)."""

    __slots__ = ("mean", "samples", "squares")

    def __init__(self) -> None:
        self.samples = 0
        self.mean = 0.0
        self.squares = 0.0

    def add(self, seconds: float) -> None:
        """Take the time that a byte took."""
        self.samples += 1
        step = seconds - self.mean
        self.mean += step / self.samples
        self.squares += step * (seconds - self.mean)

    @property
    def relative_squares(self) -> float:
        """Sum of squared deviations, as shares of the mean."""
        return self.squares / (self.mean * self.mean)


Cells = Mapping[Shape, Cell]
"""Of one setting."""


class Standing(NamedTuple):
    """What is known of one setting.

    Attributes:
        seconds_per_byte: of the mix.
        variance: of that, relative.
        crossed: sum of squared parts of the variance by their degrees of freedom, for Satterthwaite.
        narrowing: by how much one more sample of a shape lessens the variance.
        thinnest: of the shapes that matter, that with the fewest samples.
        least: how many these are.
    """

    seconds_per_byte: float
    variance: float
    crossed: float
    narrowing: Mapping[Shape, float]
    thinnest: Shape
    least: int


class Comparison(NamedTuple):
    """How much faster one setting moves the mix than another.

    Attributes:
        log_ratio: natural logarithm of the ratio of throughputs.
        error: its standard error.
        degrees: of freedom.
        least: samples that each of them has of every shape that matters.
    """

    log_ratio: float
    error: float
    degrees: int
    least: int

    @property
    def gain(self) -> float:
        """By how much it is faster, as a share."""
        return gain(self.log_ratio)

    def at_least(self, doubt: float) -> float:
        """Return the log ratio that the truth exceeds, but for a chance of `doubt`."""
        return self.log_ratio - quantile(self.degrees, doubt) * self.error

    def at_most(self, doubt: float) -> float:
        """Return the log ratio that the truth stays below, but for a chance of `doubt`."""
        return self.log_ratio + quantile(self.degrees, doubt) * self.error


def gain(log_ratio: float) -> float:
    """Turn a logarithm of a ratio into a share: 0.24 is 24 % faster."""
    return math.expm1(max(-LOG_RATIO_MAX, min(LOG_RATIO_MAX, log_ratio)))


def is_number(value: object) -> TypeGuard[float]:
    """Tell whether something that was measured is a number at all; infinite ones and NaN are."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_speed(value: object) -> bool:
    """Tell whether a measurement is a number that a speed can be."""
    return is_number(value) and SPEED_MIN <= value <= SPEED_MAX


def pooled_variance(cells: Iterable[Cell], usual: float) -> float:
    """Return the relative variance of one sample over several cells, which borrow from a usual one."""
    squares, degrees = BORROWED * usual, BORROWED
    for cell in cells:
        if cell.samples > 1:
            squares += cell.relative_squares
            degrees += cell.samples - 1
    return squares / degrees


def standing(cells: Cells, weights: Mapping[Shape, float], usual: float) -> Standing:
    """Sum up what is known of a setting, which must have a sample of every shape.

    Args:
        cells: of the setting.
        weights: of the mix.
        usual: relative variance of one sample on this machine.
    """
    time = math.fsum(weight * cells[shape].mean for shape, weight in weights.items())
    pooled = pooled_variance(cells.values(), usual)
    variance = crossed = 0.0
    narrowing, matters = {}, []
    for shape, weight in weights.items():
        cell = cells[shape]
        share, own = weight * cell.mean / time, cell.samples - 1
        part = share * share * (BORROWED * pooled + cell.relative_squares) / ((BORROWED + own) * cell.samples)
        variance += part
        crossed += part * part / max(OWN_MIN, own)
        narrowing[shape] = part / (cell.samples + 1)
        if max(share, weight) >= MATTERS:
            matters.append(shape)
    thinnest = min(matters or narrowing, key=lambda shape: cells[shape].samples)
    return Standing(time, variance, crossed, narrowing, thinnest, cells[thinnest].samples)


def compare(one: Standing, other: Standing) -> Comparison:
    """Compare two settings."""
    variance, crossed = one.variance + other.variance, one.crossed + other.crossed
    degrees = BORROWED + (variance * variance / crossed if crossed else 0.0)
    log_ratio = math.log(other.seconds_per_byte / one.seconds_per_byte)
    return Comparison(log_ratio, math.sqrt(variance), min(DEGREES_MAX, int(degrees)), min(one.least, other.least))


@lru_cache(maxsize=1024)
def quantile(degrees: int, doubt: float) -> float:
    """Return what Student's t exceeds with a chance of `doubt`, 0 < doubt <= 1/2."""
    low, high = 0.0, 2.0
    while _tail(high, degrees) > doubt:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _tail(middle, degrees) > doubt else (low, middle)
    return high


def _tail(t: float, degrees: int) -> float:
    """Return the chance that Student's t exceeds `t` >= 0."""
    angle = math.atan(t / math.sqrt(degrees))
    cosine, odd = math.cos(angle), degrees % 2
    term = math.sin(angle) * (cosine if odd else 1.0) if degrees > 1 else 0.0
    total = 0.0
    for k in range(1 + odd, degrees, 2):
        total += term
        term *= cosine * cosine * k / (k + 1)
    inside = (angle + total) * 2 / math.pi if odd else total
    return max(0.0, (1 - inside) / 2)
