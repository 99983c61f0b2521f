# SPDX-License-Identifier: Apache-2.0
"""What the tuner speaks of: settings, what is migrated, measurements, and the mix that a node really has.

A mix has one part for each kind of call: so many folios of one size in one batch. Its weights are shares of the bytes
that are moved; so the time that a setting takes for a mix is the sum of weight by throughput, and a harmonic mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, Self

from numamigration_api.vocabulary import Engine, MigrationReason

CPU: Final = "CPU"
"""Engine of the baseline: the migrating task copies, offload is off."""

WEIGHT_MAX: Final = 1e30
NEGLIGIBLE: Final = 1e-3
"""A part with less of the greatest part's weight is not worth its measurements."""

FOLIOS_PER_BATCH: Final[Mapping[MigrationReason, int]] = {
    MigrationReason.SYSCALL_OR_CPUSET: 512,
    MigrationReason.MEMPOLICY_MBIND: 512,
    MigrationReason.MEMORY_HOTPLUG: 512,
    MigrationReason.DAMON: 475,
    MigrationReason.COMPACTION: 32,
    MigrationReason.CONTIG_RANGE: 32,
    MigrationReason.DEMOTION: 32,
    MigrationReason.NUMA_MISPLACED: 1,
    MigrationReason.MEMORY_FAILURE: 1,
    MigrationReason.LONGTERM_PIN: 1,
}
"""How many folios the kernel's callers put into one batch, as seen on a running kernel (docs/published-numbers.md)."""


class Setting(NamedTuple):
    """One way to copy.

    Attributes:
        engine: ``CPU`` (offload off), ``DMA`` or ``CPUThreads``.
        channels: DMA channels of one batch, or threads; 0 with ``CPU``.
    """

    engine: str
    channels: int

    def __str__(self) -> str:
        """Return it as people say it."""
        if self.engine == CPU:
            return "offload off"
        unit = "thread" if self.engine == Engine.CPU_THREADS else "channel"
        who = "CPU" if self.engine == Engine.CPU_THREADS else self.engine
        return f"{who}, {self.channels} {unit}{'' if self.channels == 1 else 's'}"


BASELINE: Final = Setting(CPU, 0)


class Shape(NamedTuple):
    """What one measurement moves with each call.

    Attributes:
        folio_bytes: size of one folio.
        folios: in one call, and so in one batch where the kernel's ceiling does not cut it.
        migrators: tasks that do so at the same time.
    """

    folio_bytes: int
    folios: int
    migrators: int = 1

    @property
    def can_gain(self) -> bool:
        """Whether a batch has anything to share out; a single folio has not (published: none gained)."""
        return self.folios > 1


class Probe(NamedTuple):
    """One measurement to be made."""

    setting: Setting
    shape: Shape


class Sample(NamedTuple):
    """One measurement that was made.

    Attributes:
        bytes_per_second: whatever came out; what is no speed is dropped, and the choice says so.
        cpu_seconds: of the moving task and its helpers, for the same bytes always.
    """

    setting: Setting
    shape: Shape
    bytes_per_second: float
    cpu_seconds: float = 0.0


class Part(NamedTuple):
    """One kind of call of a mix.

    Attributes:
        weight: share of the bytes moved.
        reason: migration reason, as the kernel spells it; empty where it is not known.
    """

    shape: Shape
    weight: float
    reason: str = ""


class Mix(NamedTuple):
    """What a node really migrates. Weights sum to 1, or there is no part at all."""

    parts: tuple[Part, ...]

    @classmethod
    def of(cls, parts: Iterable[Part]) -> Self:
        """Make a mix of parts whose weights have any sum; what has no weight beside the others is left out."""
        real = [part for part in parts if 0 < part.weight <= WEIGHT_MAX]
        least = NEGLIGIBLE * max((part.weight for part in real), default=0.0)
        kept = [part for part in real if part.weight > least]
        total = math.fsum(part.weight for part in kept)
        return cls(tuple(part._replace(weight=part.weight / total) for part in kept))

    @property
    def gaining(self) -> dict[Shape, float]:
        """Weights of the shapes that can gain; they sum to 1, or there are none."""
        found: dict[Shape, float] = {}
        for part in self.parts:
            if part.shape.can_gain:
                found[part.shape] = found.get(part.shape, 0.0) + part.weight
        total = math.fsum(found.values())
        return {shape: weight / total for shape, weight in found.items()}

    @property
    def single_folio_share(self) -> float:
        """Share of the bytes that move one folio a batch."""
        return math.fsum(part.weight for part in self.parts if not part.shape.can_gain)

    @property
    def reasons_without_gain(self) -> tuple[str, ...]:
        """Migration reasons of which every call moves one folio, in order."""
        gaining = {part.reason for part in self.parts if part.shape.can_gain}
        return tuple(dict.fromkeys(part.reason for part in self.parts if part.reason and part.reason not in gaining))


class LeftOut(NamedTuple):
    """A setting that is not measured, and why."""

    setting: Setting
    why: str


def candidates(
    settings: Iterable[Setting], mix: Mix, channels_present: int | None = None
) -> tuple[list[Setting], list[LeftOut]]:
    """Sort settings into those worth measuring and those that are not.

    Args:
        settings: in any order, the baseline among them or not.
        mix: of the node.
        channels_present: DMA channels that the node has; None when nobody knows.
    """
    kept: list[Setting] = []
    left: list[LeftOut] = []
    shapes = mix.gaining
    folios_max = max((shape.folios for shape in shapes), default=0)
    migrators = max((shape.migrators for shape in shapes), default=1)
    for setting in sorted(set(settings) - {BASELINE}):
        why = _why_not(setting, kept, folios_max, migrators, channels_present)
        if why:
            left.append(LeftOut(setting, why))
        else:
            kept.append(setting)
    return kept, left


def _why_not(
    setting: Setting, kept: Iterable[Setting], folios_max: int, migrators: int, channels_present: int | None
) -> str:
    engine, channels = setting
    if engine not in {Engine.DMA, Engine.CPU_THREADS} or channels < 1:
        return "no setting of an engine that we know"
    if engine == Engine.DMA and channels_present is not None and channels * migrators > channels_present:
        return f"{channels} channels for each of {migrators} migrating tasks, and {channels_present} present"
    if any(other.engine == engine and other.channels >= folios_max for other in kept):
        return f"the same as fewer: a batch of this mix has at most {folios_max} folios"
    return ""
