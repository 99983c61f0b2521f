# SPDX-License-Identifier: Apache-2.0
"""The one form of every benchmark result: what was measured, on what, against which target.

* Less is better in every measurement.
* Samples are kept, so that a reader can compute another statistic than ours.
* Nothing in a result names a host, a person or a path.
"""

from __future__ import annotations

import math
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

import msgspec
from msgspec import Struct

RESULTS: Final = Path(__file__).with_name("results")
FLEET_PREFIX: Final = "fleet-"
"""Of result files; the number of nodes follows."""
DIGITS: Final = 4  # significant ones; no measurement here is finer


class Unit(StrEnum):
    """What a number counts."""

    MEGABYTES = "MB"
    """10^6 bytes."""
    MEBIBYTES = "MiB"
    MILLISECONDS = "ms"
    MICROSECONDS = "µs"
    CORE_PERCENT = "% of a core"
    RATIO = "x"
    SECONDS = "s"
    CPU_SECONDS = "CPU s"
    KILOBYTES = "kB"
    """10^3 bytes."""
    COUNT = "1"
    PER_SECOND = "1/s"


class Statistic(StrEnum):
    """One number of many samples."""

    MEDIAN = "median"
    P99 = "p99"
    WORST = "worst"


class Target(Struct, frozen=True):
    """What a measurement is held against.

    Attributes:
        at_most: in the measurement's unit.
        of: the statistic that is compared.
    """

    at_most: float
    of: Statistic = Statistic.MEDIAN


class Measurement(Struct, frozen=True, omit_defaults=True):
    """One thing measured; ``measured`` makes it from samples.

    Attributes:
        name: what, in words of docs/glossary.md.
        p99: of latencies; with fewer than 100 samples it is the worst one.
        met: whether the target is met; None where there is none.
    """

    name: str
    unit: Unit
    samples: tuple[float, ...]
    best: float
    median: float
    worst: float
    p99: float | None = None
    target: Target | None = None
    met: bool | None = None


class Machine(Struct, frozen=True):
    """Where it was measured, as far as it matters for numbers.

    Attributes:
        kernel: version, without what its builder appended.
        load: of the minute before the start, in processes; an idle machine has 0.
    """

    cpu: str
    cores: int
    memory_gib: int
    kernel: str
    python: str
    load: float

    @classmethod
    def here(cls) -> Self:
        """Return this machine."""
        model = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        return cls(
            cpu=model[1].strip() if model else platform.machine(),
            cores=len(os.sched_getaffinity(0)),
            memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
            kernel=platform.release().partition("-")[0],
            python=platform.python_version(),
            load=round(os.getloadavg()[0], 2),
        )


class Run(Struct, frozen=True):
    """One run of one benchmark, whatever it measures.

    Attributes:
        date: RFC 3339, of the end.
        revision: of the tree; ends in ``-dirty`` when it had uncommitted changes.
        conditions: what a reader has to know to run or judge it, a sentence each.
    """

    name: str
    command: str
    date: str
    revision: str
    machine: Machine
    conditions: tuple[str, ...]


class Result(Run, frozen=True):
    """One run of a benchmark that holds single numbers against targets."""

    measurements: tuple[Measurement, ...]


class Row(Struct, frozen=True, omit_defaults=True):
    """One number of one scenario of a fleet; ``row`` makes it from samples.

    Attributes:
        scenario: of the table ``benchmarks.fleet.scenarios.SCENARIOS``.
        metric: what was measured.
        runs: how many samples.
        beside: the bare loop of the same run that it is compared with; empty when there is none.
        ratio: its median by the bare loop's.
        samples: in their order; left out where one run has one.
    """

    scenario: str
    nodes: int
    metric: str
    unit: Unit
    minimum: float
    median: float
    maximum: float
    runs: int
    beside: str = ""
    ratio: float | None = None
    samples: tuple[float, ...] = ()


class NotRun(Struct, frozen=True):
    """A scenario without numbers, and why."""

    scenario: str
    nodes: int
    reason: str


class FleetResult(Run, frozen=True):
    """One run of the fleet benchmark.

    Attributes:
        versions: of the servers and libraries that numbers depend on.
    """

    nodes: int
    versions: dict[str, str]
    results: tuple[Row, ...]
    not_run: tuple[NotRun, ...] = ()


def measured(
    name: str, unit: Unit, samples: Iterable[float], *, latency: bool = False, target: Target | None = None
) -> Measurement:
    """Summarize samples.

    Args:
        name: what was measured.
        unit: of the samples.
        samples: at least one.
        latency: also tell the 99th percentile.
        target: to compare with.

    Raises:
        ValueError: no sample, or one that is no number.
    """
    numbers = tuple(float(sample) for sample in samples)
    if not numbers or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{name}: cannot summarize {numbers!r}")
    p99 = percentile(numbers, 99)
    found = {Statistic.MEDIAN: statistics.median(numbers), Statistic.P99: p99, Statistic.WORST: max(numbers)}
    return Measurement(
        name=name,
        unit=unit,
        samples=tuple(map(_rounded, numbers)),
        best=_rounded(min(numbers)),
        median=_rounded(found[Statistic.MEDIAN]),
        worst=_rounded(max(numbers)),
        p99=_rounded(p99) if latency else None,
        target=target,
        met=None if target is None else found[target.of] <= target.at_most,
    )


def row(
    scenario: str,
    nodes: int,
    metric: str,
    unit: Unit,
    samples: Iterable[float],
    *,
    bare: tuple[str, Iterable[float]] | None = None,
) -> Row:
    """Summarize samples of one scenario.

    Args:
        scenario: whose.
        nodes: how many the fleet has.
        metric: what was measured.
        unit: of the samples.
        samples: at least one.
        bare: the bare loop's metric and samples, of the same unit.

    Raises:
        ValueError: no sample, or one that is no number.
    """
    found = measured(metric, unit, samples)
    beside = None if bare is None else measured(bare[0], unit, bare[1])
    return Row(
        scenario=scenario,
        nodes=nodes,
        metric=metric,
        unit=unit,
        minimum=found.best,
        median=found.median,
        maximum=found.worst,
        runs=len(found.samples),
        beside="" if beside is None else beside.name,
        ratio=None if beside is None else _rounded(found.median / beside.median),
        samples=found.samples if len(found.samples) > 1 else (),
    )


def percentile(samples: Sequence[float], percent: int) -> float:
    """Return the smallest sample that at least `percent` of a hundred do not exceed (nearest rank)."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def result(
    name: str, command: str, machine: Machine, conditions: Iterable[str], measurements: Iterable[Measurement]
) -> Result:
    """Put a run together: this tree, this moment."""
    return Result(*_head(name, command, machine, conditions), measurements=tuple(measurements))


def fleet_result(
    nodes: int,
    found: Iterable[Row],
    not_run: Iterable[NotRun],
    *,
    machine: Machine,
    conditions: Iterable[str],
    versions: Mapping[str, str],
) -> FleetResult:
    """Put a run of the fleet benchmark together: this tree, this moment."""
    head = _head(f"{FLEET_PREFIX}{nodes}", f"make bench-fleet NODES={nodes}", machine, conditions)
    return FleetResult(*head, nodes=nodes, versions=dict(versions), results=tuple(found), not_run=tuple(not_run))


def write(found: Run, folder: Path = RESULTS) -> Path:
    """Write a result; return its file."""
    path = folder / f"{found.name}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    return path


def read_all(folder: Path = RESULTS) -> list[Result]:
    """Return all results but those of fleets, by name.

    Raises:
        msgspec.ValidationError: a file of another form.
    """
    paths = sorted(set(folder.glob("*.json")) - set(folder.glob(f"{FLEET_PREFIX}*.json")))
    return [msgspec.json.decode(path.read_bytes(), type=Result) for path in paths]


def read_fleets(folder: Path = RESULTS) -> list[FleetResult]:
    """Return all results of fleets, the smallest first.

    Raises:
        msgspec.ValidationError: a file of another form.
    """
    found = [msgspec.json.decode(path.read_bytes(), type=FleetResult) for path in folder.glob(f"{FLEET_PREFIX}*.json")]
    return sorted(found, key=lambda fleet: fleet.nodes)


def _head(
    name: str, command: str, machine: Machine, conditions: Iterable[str]
) -> tuple[str, str, str, str, Machine, tuple[str, ...]]:
    date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return name, command, date, _revision(), machine, tuple(conditions)


def _rounded(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")


def _revision() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=RESULTS).stdout.strip()
