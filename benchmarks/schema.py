# SPDX-License-Identifier: Apache-2.0
"""The one form of every benchmark result: what was measured, on what, against which target.

* Less is better in every measurement that has a target.
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

from benchmarks.targets import Statistic, Target, target_of

RESULTS: Final = Path(__file__).with_name("results")
FLEET_PREFIX: Final = "fleet-"
"""Of result files; the number of nodes follows, and what was chosen when not all scenarios were."""
FLEET_NAME: Final = re.compile(rf"{FLEET_PREFIX}(\d+)(?:-|$)")
DIGITS: Final = 4  # significant ones; no measurement here is finer


class Unit(StrEnum):
    """What a number counts."""

    MEGABYTES = "MB"
    """10^6 bytes."""
    MEBIBYTES = "MiB"
    MILLISECONDS = "ms"
    MICROSECONDS = "µs"
    CORE_PERCENT = "% of a core"
    PERCENT = "%"
    RATIO = "x"
    SECONDS = "s"
    CPU_SECONDS = "CPU s"
    KILOBYTES = "kB"
    """10^3 bytes."""
    COUNT = "1"
    PER_SECOND = "1/s"


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


class Row(Struct, frozen=True, omit_defaults=True):
    """One number of one scenario; ``row`` makes it from samples.

    Attributes:
        scenario: of a fleet: of the table ``benchmarks.fleet.scenarios.SCENARIOS``; else the benchmark's name.
        nodes: how many the fleet has, real or in memory; 1 where there is none.
        metric: what was measured, in words of docs/glossary.md.
        runs: how many samples.
        beside: the bare loop of the same run that it is compared with; empty when there is none.
        ratio: its median by the bare loop's.
        samples: in their order; left out where one run has one.
        p99: of latencies; with fewer than 100 samples it is the worst one.
        target: of the table ``benchmarks.targets.AIMS``.
        met: whether the target is met; None where there is none.
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
    p99: float | None = None
    target: Target | None = None
    met: bool | None = None

    def found(self) -> dict[Statistic, float]:
        """Return what targets are compared with."""
        told: dict[Statistic, float | None] = {name: getattr(self, name) for name in Statistic}
        return {name: value for name, value in told.items() if value is not None}


class NotRun(Struct, frozen=True):
    """A scenario without numbers, and why."""

    scenario: str
    nodes: int
    reason: str


class Result(Struct, frozen=True):
    """One run of one benchmark, whatever it measures.

    Attributes:
        date: RFC 3339, of the end.
        revision: of the tree; ends in ``-dirty`` when it had uncommitted changes.
        conditions: what a reader has to know to run or judge it, a sentence each.
        versions: of the servers and libraries that numbers depend on.
    """

    name: str
    command: str
    date: str
    revision: str
    machine: Machine
    conditions: tuple[str, ...]
    versions: dict[str, str]
    results: tuple[Row, ...]
    not_run: tuple[NotRun, ...] = ()


def row(
    scenario: str,
    nodes: int,
    metric: str,
    unit: Unit,
    samples: Iterable[float],
    *,
    bare: tuple[str, Iterable[float]] | None = None,
    latency: bool = False,
) -> Row:
    """Summarize samples, and hold them against their target when they have one.

    Args:
        scenario: whose.
        nodes: how many the fleet has; 1 where there is none.
        metric: what was measured.
        unit: of the samples.
        samples: at least one.
        bare: the bare loop's metric and samples, of the same unit.
        latency: also tell the 99th percentile.

    Raises:
        ValueError: no sample, or one that is no number.
    """
    numbers, (beside, others) = _numbers(metric, samples), bare or ("", ())
    found = {
        Statistic.MEDIAN: statistics.median(numbers),
        Statistic.MAXIMUM: max(numbers),
        Statistic.P99: percentile(numbers, 99),
    }
    if beside:
        found[Statistic.RATIO] = found[Statistic.MEDIAN] / statistics.median(_numbers(beside, others))
    target = target_of(scenario, metric, nodes)
    return Row(
        scenario=scenario,
        nodes=nodes,
        metric=metric,
        unit=unit,
        minimum=_rounded(min(numbers)),
        median=_rounded(found[Statistic.MEDIAN]),
        maximum=_rounded(found[Statistic.MAXIMUM]),
        runs=len(numbers),
        beside=beside,
        ratio=_rounded(found[Statistic.RATIO]) if beside else None,
        samples=tuple(map(_rounded, numbers)) if len(numbers) > 1 else (),
        p99=_rounded(found[Statistic.P99]) if latency else None,
        target=target,
        met=target.is_met(found) if target else None,
    )


def percentile(samples: Sequence[float], percent: int) -> float:
    """Return the smallest sample that at least `percent` of a hundred do not exceed (nearest rank)."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def result(
    name: str,
    command: str,
    machine: Machine,
    conditions: Iterable[str],
    results: Iterable[Row],
    *,
    versions: Mapping[str, str],
    not_run: Iterable[NotRun] = (),
) -> Result:
    """Put a run together: this tree, this moment."""
    return Result(
        name=name,
        command=command,
        date=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        revision=_revision(),
        machine=machine,
        conditions=tuple(conditions),
        versions=dict(versions),
        results=tuple(results),
        not_run=tuple(not_run),
    )


def fleet_result(
    nodes: int,
    found: Iterable[Row],
    not_run: Iterable[NotRun],
    *,
    machine: Machine,
    conditions: Iterable[str],
    versions: Mapping[str, str],
) -> Result:
    """Put a run of the fleet benchmark together: this tree, this moment."""
    command = f"make bench-fleet NODES={nodes}"
    name = f"{FLEET_PREFIX}{nodes}"
    return result(name, command, machine, conditions, found, versions=versions, not_run=not_run)


def write(found: Result, folder: Path = RESULTS) -> Path:
    """Write a result; return its file."""
    path = folder / f"{found.name}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    return path


def read_all(folder: Path = RESULTS) -> list[Result]:
    """Return all results: by name, then those of fleets, the smallest first.

    Raises:
        msgspec.ValidationError: a file of another form.
    """
    found = [msgspec.json.decode(path.read_bytes(), type=Result) for path in folder.glob("*.json")]
    return sorted(found, key=lambda one: (fleet_nodes(one), one.name))


def fleet_nodes(found: Result) -> int:
    """Return how many nodes the fleet of a result has; 0 when it is of no fleet."""
    match = FLEET_NAME.match(found.name)
    return int(match[1]) if match else 0


def _numbers(metric: str, samples: Iterable[float]) -> list[float]:
    numbers = [float(sample) for sample in samples]
    if not numbers or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{metric}: cannot summarize {numbers!r}")
    return numbers


def _rounded(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")


def _revision() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=RESULTS).stdout.strip()
