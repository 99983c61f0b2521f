# SPDX-License-Identifier: Apache-2.0
"""Counters of the driver and of the kernel's vmstat files, and pressure; read only: any write would reset a counter.

* What this kernel lacks, or what could not be read, is left out; it is never 0.
* A counter may fall: a reset by somebody's write, or a driver that was loaded anew. Rates are made elsewhere.
* Counters are 64 bits wide. The driver prints a signed number, which is negative in the upper half.
* The driver counts folios, vmstat base pages; neither follows from the other.
* Demoted pages are the sum of those ``pgdemote_*`` names that the kernel has.
* A promoted page is counted at the NUMA node it came to, a demoted one at the NUMA node it left. Those files are read
  once a minute: eight of them take 0.2 ms, more than all the rest of a look, and nobody asks for their rates.

Sources: mm/migrate.c (migrate_misplaced_folio), mm/vmscan.c (PGDEMOTE_KSWAPD), kernel/sched/psi.c,
Documentation/admin-guide/mm/transhuge.rst (hpage_pmd_size).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from numamigration_agent.kernel.dialects import COUNTERS, Counter, counters_of
from numamigration_agent.kernel.sysfs import LINE_BYTES_MAX, READ_BYTES_MAX, Present, Sysfs
from numamigration_api.vocabulary import Dialect

Counts = Mapping[str, int]
"""By ``Counter.name``, which are the names of ``status.statistics`` in snake case."""

VALUES: Final = 1 << 64
"""How many values an unsigned long has; after the last one it begins at 0 again."""
NUMA_NODES_MAX: Final = 32  # the lowest ids; to read so many takes less than a millisecond
NUMA_COUNTERS: Final = ("pages_promoted", "pages_demoted")
VMSTAT_PATH: Final = "/proc/vmstat"
THP_SIZE_PATH: Final = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size"
PRESSURES: Final = {"memory_pressure": "/proc/pressure/memory", "cpu_pressure": "/proc/pressure/cpu"}

_NODES_DIR: Final = "/sys/devices/system/node"
_VMSTAT_KEYS: Final = sorted({key for counter in COUNTERS for key in counter.vmstat_keys})
_VMSTAT_LINE: Final = re.compile(rf"^({'|'.join(_VMSTAT_KEYS)}) ([0-9]{{1,20}})$", re.MULTILINE)
_NUMBER: Final = re.compile(r"(-?[0-9]{1,20})\n?")
_SOME_AVG60: Final = re.compile(r"^some .*\bavg60=([0-9]{1,3}\.[0-9]{2})\b", re.MULTILINE)
_NODE: Final = re.compile(r"node([0-9]{1,4})")


class Look(NamedTuple):
    """What one look at the counters found.

    Attributes:
        pressures: percent of the last minute in which some task waited, by resource, as the kernel writes it.
        numa_nodes: the next is known, and each NUMA node's counters are among the counts.
        thp_pages: base pages of a transparent huge page; None where there is none.
    """

    counts: Counts
    pressures: Mapping[str, str]
    numa_nodes: bool = False
    thp_pages: int | None = None


def look(sysfs: Sysfs, dialect: Dialect, *, numa_nodes: bool) -> Look:
    """Read every counter of a dialect that this kernel has, and pressure.

    Args:
        sysfs: the kernel's files.
        dialect: whose counters.
        numa_nodes: read also what each NUMA node counts, and what never changes.
    """
    counts = read_counters(sysfs, dialect)
    pressures = {name: parse_pressure(_text(sysfs, path)) for name, path in PRESSURES.items()}
    known = {name: percent for name, percent in pressures.items() if percent is not None}
    if not numa_nodes:
        return Look(counts, known)
    return Look({**counts, **dict(_numa_counts(sysfs))}, known, numa_nodes=True, thp_pages=_thp_pages(sysfs))


def read_counters(sysfs: Sysfs, dialect: Dialect) -> Counts:
    """Read every counter of the whole host."""
    vmstat = parse_vmstat(_text(sysfs, VMSTAT_PATH, READ_BYTES_MAX))
    found = ((counter.name, _count(sysfs, counter, vmstat)) for counter in counters_of(dialect))
    return {name: count for name, count in found if count is not None}


def numa_name(number: int, name: str) -> str:
    """Return the name under which a NUMA node's counter is known."""
    return f"node{number}.{name}"


def split_numa_name(full_name: str) -> tuple[int | None, str]:
    """Return NUMA node and name of a counter; the first is None for one of the whole host."""
    node, _, name = full_name.rpartition(".")
    return int(node.removeprefix("node")) if node else None, name


def parse_vmstat(text: str) -> Mapping[str, int]:
    """Return those numbers of a vmstat file that counters are made from; lines of another form are skipped."""
    return {name: int(number) for name, number in _VMSTAT_LINE.findall(text)}


def parse_count(text: str) -> int | None:
    """Return what a counter's file says, as an unsigned number; None when that is no number of 64 bits."""
    match = _NUMBER.fullmatch(text)
    number = int(match[1]) if match else VALUES
    return number % VALUES if -VALUES // 2 <= number < VALUES else None


def parse_pressure(text: str) -> str | None:
    """Return the average of ``some`` over 60 s in percent; None when the kernel does not say."""
    match = _SOME_AVG60.search(text)
    return match[1] if match else None


def _count(sysfs: Sysfs, counter: Counter, vmstat: Mapping[str, int]) -> int | None:
    if counter.path:
        return parse_count(_text(sysfs, counter.path))
    found = [vmstat[key] for key in counter.vmstat_keys if key in vmstat]
    return sum(found) % VALUES if found else None


def _numa_counts(sysfs: Sysfs) -> Iterator[tuple[str, int]]:
    matches = (_NODE.fullmatch(name) for name in sysfs.names(_NODES_DIR))
    numbers = sorted(int(match[1]) for match in matches if match)
    if len(numbers) < 2:  # pages stay where they are
        return
    counters = [counter for counter in COUNTERS if counter.name in NUMA_COUNTERS]
    for number in numbers[:NUMA_NODES_MAX]:
        vmstat = parse_vmstat(_text(sysfs, f"{_NODES_DIR}/node{number}/vmstat", READ_BYTES_MAX))
        for counter in counters:
            count = _count(sysfs, counter, vmstat)
            if count is not None:
                yield numa_name(number, counter.name), count


def _thp_pages(sysfs: Sysfs) -> int | None:
    size = parse_count(_text(sysfs, THP_SIZE_PATH))
    return size // os.sysconf("SC_PAGE_SIZE") if size else None


def _text(sysfs: Sysfs, path: str, bytes_max: int = LINE_BYTES_MAX) -> str:
    reading = sysfs.read(path, bytes_max)
    return reading.text if isinstance(reading, Present) else ""
