# SPDX-License-Identifier: Apache-2.0
"""What the agent tells Prometheus: one table of metrics, read from the status that it would report now. Pure.

* What a status says and what a scrape says cannot differ, since one is made from the other. What is not known has no
  field there and no sample here: unknown is not 0.
* Labels have closed sets of values, or as many as the host has NUMA nodes and DMA drivers. None names the node, for a
  scrape knows whom it asks.
* Totals outlive a restart of the agent, as in the status; they begin anew at a boot.
* Loaded at the first scrape, so that an agent that nobody scrapes does not pay for it.

Sources: Prometheus documentation, "Exposition formats" (text format 0.0.4) and "Metric and label naming";
kube-state-metrics, docs/metrics (an enumeration is one series a value, 1 for the one that holds).
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from resource import getpagesize
from typing import Any, Final, NamedTuple

from numamigration_agent import __version__
from numamigration_agent.cluster import ApplyKind
from numamigration_agent.status import OFFLOAD_OFF, OFFLOAD_UNKNOWN
from numamigration_api.vocabulary import ConditionStatus, GroupState, NodeCondition, Outcome

PREFIX: Final = "numamigration_agent_"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
PERCENT: Final = 100
PROC: Final = Path("/proc/self")

Document = Mapping[str, Any]
Labels = tuple[str, ...]
Samples = Iterable[tuple[Labels, float]]


class Kind(StrEnum):
    """Types of Prometheus."""

    GAUGE = "gauge"
    COUNTER = "counter"


class Process(NamedTuple):
    """What the kernel says of this process; None where it does not say.

    Attributes:
        started_at: in seconds since 1970.
    """

    cpu_seconds: float
    resident_bytes: int | None
    open_descriptors: int | None
    started_at: float


class Scrape(NamedTuple):
    """All that a scrape is made of.

    Attributes:
        status: as it would be reported now; empty while there is nothing to report.
        reports: how many reports came to which end, in this life of the agent.
        stored_at: when the API server last stored one, in seconds since 1970; None when it has not.
    """

    status: Document
    reports: Counter[ApplyKind]
    stored_at: float | None
    process: Process


class Metric(NamedTuple):
    """One metric.

    Attributes:
        name: without PREFIX; those of the process have none, so that they are called as everywhere.
        meaning: one sentence; the metric's help text.
    """

    name: str
    kind: Kind
    labels: Labels
    meaning: str
    read: Callable[[Scrape], Samples]

    @property
    def full_name(self) -> str:
        """The name as Prometheus has it."""
        return self.name if self.name.startswith("process_") else PREFIX + self.name


# --- readings -------------------------------------------------------------------------------------------------------


def _one(number: Callable[[Scrape], float | None]) -> Callable[[Scrape], Samples]:
    return lambda scrape: [] if (value := number(scrape)) is None else [((), value)]


def _statistic(name: str) -> Callable[[Scrape], Samples]:
    return _one(lambda scrape: scrape.status.get("statistics", {}).get(name))


def _folios(scrape: Scrape) -> Samples:
    known = scrape.status.get("statistics", {})
    found = {result: known.get(f"folios{result.capitalize()}") for result in ("migrated", "failed", "refused")}
    return [((result,), value) for result, value in found.items() if value is not None]


def _numa_nodes(name: str) -> Callable[[Scrape], Samples]:
    return lambda scrape: [
        ((str(row["id"]),), row[name])
        for row in scrape.status.get("statistics", {}).get("numaNodes", ())
        if name in row
    ]


def _pressures(scrape: Scrape) -> Samples:
    known = scrape.status.get("statistics", {})
    found = {resource: known.get(f"{resource}Pressure") for resource in ("memory", "cpu")}
    return [((resource,), float(value) / PERCENT) for resource, value in found.items() if value is not None]


def _fallback(scrape: Scrape) -> float | None:
    share = scrape.status.get("statistics", {}).get("fallbackShareMax")
    return None if share is None else float(share)


def _enabled(scrape: Scrape) -> float | None:
    phrase = scrape.status.get("offload", OFFLOAD_UNKNOWN)
    return None if phrase == OFFLOAD_UNKNOWN else phrase not in OFFLOAD_OFF


def _channels(scrape: Scrape) -> Samples:
    found: Counter[Labels] = Counter()
    for row in scrape.status.get("dmaEngines", ()):
        found[row["driver"], "true" if row["usable"] else "false"] += row.get("channels", 0)
    return found.items()


def _groups(scrape: Scrape) -> Samples:
    rows = scrape.status.get("groups", {}).items()
    return [((name, state), row["state"] == state) for name, row in rows for state in GroupState]


def _group_reasons(scrape: Scrape) -> Samples:
    return [((name, row["reason"]), 1) for name, row in scrape.status.get("groups", {}).items()]


def _knobs(scrape: Scrape) -> Samples:
    if not scrape.status:
        return []
    found = Counter(row.get("outcome") for row in scrape.status.get("knobs", ()))
    return [((outcome,), found[outcome]) for outcome in Outcome]


def _conditions(scrape: Scrape) -> Samples:
    found = {row["type"]: row["status"] for row in scrape.status.get("conditions", ())}
    return [
        ((name, status), found[name] == status) for name in NodeCondition if name in found for status in ConditionStatus
    ]


def _kernel(scrape: Scrape) -> Samples:
    names = ("dialect", "kernelRelease", "hardwareClass")
    return [(tuple(scrape.status.get(name, "") for name in names), 1)] if scrape.status else []


def _reports(scrape: Scrape) -> Samples:
    return [((kind,), scrape.reports[kind]) for kind in ApplyKind]


def _build(_: Scrape) -> Samples:
    return [((__version__, ".".join(map(str, sys.version_info[:3]))), 1)]


# --- the table ------------------------------------------------------------------------------------------------------

METRICS: Final = (
    Metric(
        "folios_total",
        Kind.COUNTER,
        ("result",),
        "Folios that the engine was given, by the kernel's counters; resets of these are no drop here.",
        _folios,
    ),
    Metric(
        "batches_refused_total",
        Kind.COUNTER,
        (),
        "Batches that the engine did not take, where the kernel counts them.",
        _statistic("batchesRefused"),
    ),
    Metric(
        "pages_migrated_total",
        Kind.COUNTER,
        (),
        "Base pages that the kernel migrated, by whatever way.",
        _statistic("pagesMigrated"),
    ),
    Metric(
        "pages_migration_failed_total",
        Kind.COUNTER,
        (),
        "Base pages that the kernel could not migrate.",
        _statistic("pagesMigrationFailed"),
    ),
    Metric(
        "pages_promoted_total",
        Kind.COUNTER,
        (),
        "Base pages that went up to a faster tier of memory.",
        _statistic("pagesPromoted"),
    ),
    Metric(
        "pages_demoted_total",
        Kind.COUNTER,
        (),
        "Base pages that went down to a slower tier of memory.",
        _statistic("pagesDemoted"),
    ),
    Metric(
        "numa_node_pages_promoted_total",
        Kind.COUNTER,
        ("numa_node",),
        "Base pages that were promoted to a NUMA node; the busiest NUMA nodes only.",
        _numa_nodes("pagesPromoted"),
    ),
    Metric(
        "numa_node_pages_demoted_total",
        Kind.COUNTER,
        ("numa_node",),
        "Base pages that were demoted from a NUMA node; the busiest NUMA nodes only.",
        _numa_nodes("pagesDemoted"),
    ),
    Metric(
        "thps_migrated_total",
        Kind.COUNTER,
        (),
        "Transparent huge pages that migrated whole.",
        _statistic("thpsMigrated"),
    ),
    Metric(
        "thps_split_total",
        Kind.COUNTER,
        (),
        "Transparent huge pages that were split to migrate.",
        _statistic("thpsSplit"),
    ),
    Metric(
        "drift_corrections_total",
        Kind.COUNTER,
        (),
        "Knobs that somebody else had changed and the agent set back.",
        _statistic("driftCorrections"),
    ),
    Metric(
        "fallback_ratio_max",
        Kind.GAUGE,
        (),
        "How large the part of migrated pages that the CPU copied can have been at most, over the last window.",
        _one(_fallback),
    ),
    Metric(
        "pressure_ratio",
        Kind.GAUGE,
        ("resource",),
        "Part of the time in which some task waited for the resource (PSI, average of 60 seconds).",
        _pressures,
    ),
    Metric(
        "offload_enabled",
        Kind.GAUGE,
        (),
        "1 while the kernel copies by an engine, 0 while it does not; absent when its files do not say.",
        _one(_enabled),
    ),
    Metric(
        "dma_channels",
        Kind.GAUGE,
        ("driver", "usable"),
        "DMA channels that the host has, by driver.",
        _channels,
    ),
    Metric(
        "group_state",
        Kind.GAUGE,
        ("group", "state"),
        "1 for the state that a group of settings is in, 0 for the others; groups that no policy sets are left out.",
        _groups,
    ),
    Metric(
        "group_reason",
        Kind.GAUGE,
        ("group", "reason"),
        "1 for the reason of the state of a group of settings; the others are left out.",
        _group_reasons,
    ),
    Metric(
        "knobs",
        Kind.GAUGE,
        ("outcome",),
        "Knobs by what became of what was asked of them.",
        _knobs,
    ),
    Metric(
        "condition",
        Kind.GAUGE,
        ("condition", "status"),
        "1 for the status that a condition of the node state has, 0 for the others.",
        _conditions,
    ),
    Metric(
        "kernel_info",
        Kind.GAUGE,
        ("dialect", "kernel_release", "hardware_class"),
        "1, with what the agent found itself on.",
        _kernel,
    ),
    Metric(
        "report_results_total",
        Kind.COUNTER,
        ("result",),
        "What came of reports to the API server, in this life of the agent.",
        _reports,
    ),
    Metric(
        "last_stored_report_timestamp_seconds",
        Kind.GAUGE,
        (),
        "When the API server last stored a report of this life of the agent, in seconds since 1970.",
        _one(lambda scrape: scrape.stored_at),
    ),
    Metric("build_info", Kind.GAUGE, ("version", "python_version"), "1, with the versions that are running.", _build),
    Metric(
        "process_cpu_seconds_total",
        Kind.COUNTER,
        (),
        "CPU time of the agent's process, in user and system mode.",
        _one(lambda scrape: scrape.process.cpu_seconds),
    ),
    Metric(
        "process_resident_memory_bytes",
        Kind.GAUGE,
        (),
        "Resident memory of the agent's process.",
        _one(lambda scrape: scrape.process.resident_bytes),
    ),
    Metric(
        "process_open_fds",
        Kind.GAUGE,
        (),
        "Open file descriptors of the agent's process.",
        _one(lambda scrape: scrape.process.open_descriptors),
    ),
    Metric(
        "process_start_time_seconds",
        Kind.GAUGE,
        (),
        "When the agent's process started, in seconds since 1970.",
        _one(lambda scrape: scrape.process.started_at),
    ),
)


# --- the text -------------------------------------------------------------------------------------------------------


def render(scrape: Scrape) -> str:
    """Return everything in the text format; a metric that has no sample is left out."""
    return "".join(line for metric in METRICS for line in _lines(metric, metric.read(scrape)))


def _lines(metric: Metric, samples: Samples) -> Iterator[str]:
    rows = [f"{metric.full_name}{_labels(metric.labels, values)} {_number(value)}\n" for values, value in samples]
    if rows:
        yield f"# HELP {metric.full_name} {metric.meaning}\n# TYPE {metric.full_name} {metric.kind}\n"
        yield from rows


def _labels(names: Labels, values: Labels) -> str:
    pairs = (f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))
    return "{" + ",".join(pairs) + "}" if names else ""


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def own_process(started_at: float, proc: Path = PROC) -> Process:
    """Return what the kernel says of this process.

    Args:
        started_at: in seconds since 1970.
        proc: its folder in procfs.
    """
    return Process(time.process_time(), _resident_bytes(proc), _open_descriptors(proc), started_at)


def _resident_bytes(proc: Path) -> int | None:
    try:
        return int((proc / "statm").read_text().split()[1]) * getpagesize()
    except (OSError, ValueError, IndexError):
        return None


def _open_descriptors(proc: Path) -> int | None:
    try:
        return sum(1 for _ in (proc / "fd").iterdir()) - 1  # the listing has one of its own
    except OSError:
        return None
