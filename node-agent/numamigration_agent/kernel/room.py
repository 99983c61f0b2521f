# SPDX-License-Identifier: Apache-2.0
"""What bounds a probe on this host now: free memory, the last-level cache, sizes of folios, and whether tasks wait.

* Free means free at once: memory that reclaim would have to make free is somebody's.
* Calm is what PSI says of the last ten seconds, for memory and for CPUs. A kernel without PSI is asked for its load
  average instead, which says less: then who asks is careful.
* One cache is looked at, that of the first CPU: a task that migrates runs on one CPU at a time.
* A size between small and huge pages is taken where the kernel makes such folios when asked (mTHP), the largest one:
  what may be made of smaller ones is not known, for the kernel takes the largest that fits.

Sources: Documentation/accounting/psi.rst; Documentation/admin-guide/mm/transhuge.rst; proc_loadavg(5);
Documentation/ABI/testing/sysfs-devices-system-cpu (cache); drivers/base/node.c (meminfo).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from numamigration_agent.kernel.counters import PRESSURES, THP_SIZE_PATH, VMSTAT_PATH, parse_count, parse_pressure
from numamigration_agent.kernel.sysfs import LINE_BYTES_MAX, READ_BYTES_MAX, Present, Sysfs

PRESSURES_MAX: Final[Mapping[str, float]] = {"memory_pressure": 10.0, "cpu_pressure": 20.0}
OWN_PRESSURE: Final = 20.0  # percent of CPU pressure that a probe may cause itself: its migrators wait as others do
LOAD_MAX: Final = 0.5  # of each CPU

_NODES_DIR: Final = "/sys/devices/system/node"
_CACHE_DIR: Final = "/sys/devices/system/cpu/cpu0/cache"
_THP_DIR: Final = "/sys/kernel/mm/transparent_hugepage"
_LOAD_PATH: Final = "/proc/loadavg"
_FREE: Final = re.compile(r"^Node [0-9]+ MemFree:\s+([0-9]{1,15}) kB$", re.MULTILINE)
_CACHE_SIZE: Final = re.compile(r"([0-9]{1,9})K\n?")
_SIZE_FOLDER: Final = re.compile(r"hugepages-([0-9]{1,9})kB")
_CHOSEN: Final = re.compile(r"\[([a-z]+)\]")
_LOAD: Final = re.compile(r"([0-9]{1,6}\.[0-9]{2}) ")
_MIGRATED: Final = re.compile(
    r"^(pgmigrate_success|thp_migration_success|numa_pages_migrated|pgpromote_success|pgdemote_[a-z]+) ([0-9]{1,20})$",
    re.MULTILINE,
)
_ID_RANGE: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_WANTED: Final = frozenset({"always", "madvise"})


class Strain(NamedTuple):
    """How much tasks wait.

    Attributes:
        pressures: percent of the last ten seconds in which some task waited, by resource; empty where the kernel does
            not tell.
        load: tasks that run or wait for it, for each CPU; None where nobody tells.
    """

    pressures: Mapping[str, float] = {}
    load: float | None = None


class Room(NamedTuple):
    """What there is.

    Attributes:
        free: bytes by NUMA node; one that does not tell is left out.
        cache_bytes: of the last-level cache of one CPU; 0 when that is not known.
        folio_sizes: bytes of what can be had, small pages first.
        migrated: what the whole host has migrated since it was booted, by names of /proc/vmstat.
    """

    free: Mapping[int, int]
    cache_bytes: int
    folio_sizes: tuple[int, ...]
    migrated: Mapping[str, int] = {}


def read_strain(sysfs: Sysfs) -> Strain:
    """Look whether tasks wait."""
    told = {name: parse_pressure(_text(sysfs, path), seconds=10) for name, path in PRESSURES.items()}
    pressures = {name: float(percent) for name, percent in told.items() if percent is not None}
    return Strain(pressures, None if pressures else _load(sysfs))


def not_calm(strain: Strain, *, own: bool) -> str:
    """Return who waits for what; empty when the node is calm. With `own`, a probe of ours is among those who wait."""
    for name, most in PRESSURES_MAX.items():
        limit = most + (OWN_PRESSURE if own and name == "cpu_pressure" else 0.0)
        if strain.pressures.get(name, 0.0) > limit:
            what = name.partition("_")[0]
            return f"tasks waited for {what} in {strain.pressures[name]:g} % of 10 s, more than {limit:g} %"
    if strain.load is not None and strain.load > LOAD_MAX + (1.0 if own else 0.0):
        return f"the load average is {strain.load:.2f} for each CPU, and this kernel tells no pressure"
    if not strain.pressures and strain.load is None:
        return "this kernel tells neither pressure nor load, so nobody knows whether tasks wait"
    return ""


def read_room(sysfs: Sysfs, numa_nodes: tuple[int, ...]) -> Room:
    """Look what there is for pages of our own on some NUMA nodes."""
    told = {node: _FREE.search(_text(sysfs, f"{_NODES_DIR}/node{node}/meminfo")) for node in numa_nodes}
    free = {node: int(found[1]) * 1024 for node, found in told.items() if found}
    migrated = {name: int(number) for name, number in _MIGRATED.findall(_text(sysfs, VMSTAT_PATH, READ_BYTES_MAX))}
    return Room(free, _cache_bytes(sysfs), _folio_sizes(sysfs), migrated)


def _load(sysfs: Sysfs) -> float | None:
    load = _LOAD.match(_text(sysfs, _LOAD_PATH))
    spans = [_ID_RANGE.fullmatch(part) for part in _text(sysfs, "/sys/devices/system/cpu/online").strip().split(",")]
    cpus = sum(int(span[2] or span[1]) - int(span[1]) + 1 for span in spans if span)
    return float(load[1]) / cpus if load and cpus else None


def _cache_bytes(sysfs: Sysfs) -> int:
    found = {}
    for name in sysfs.names(_CACHE_DIR):
        level, size = (_text(sysfs, f"{_CACHE_DIR}/{name}/{file}") for file in ("level", "size"))
        kibibytes = _CACHE_SIZE.fullmatch(size)
        if kibibytes and level.strip().isdecimal():
            found[int(level)] = int(kibibytes[1]) * 1024
    return found[max(found)] if found else 0


def _folio_sizes(sysfs: Sysfs) -> tuple[int, ...]:
    page, huge = os.sysconf("SC_PAGE_SIZE"), parse_count(_text(sysfs, THP_SIZE_PATH)) or 0
    chosen = _chosen(_text(sysfs, f"{_THP_DIR}/enabled"))
    matches = (_SIZE_FOLDER.fullmatch(name) for name in sysfs.names(_THP_DIR))
    sizes = {int(match[1]) * 1024 for match in matches if match}
    wanted = {size for size in sizes if _is_wanted(sysfs, size, chosen)}
    if huge not in sizes and chosen in _WANTED:  # older kernels make that size alone, and it has no folder
        wanted.add(huge)
    between = [size for size in wanted if page < size < huge]
    return (page, *([max(between)] if between else []), *([huge] if huge and huge in wanted else []))


def _is_wanted(sysfs: Sysfs, size: int, whole: str) -> bool:
    chosen = _chosen(_text(sysfs, f"{_THP_DIR}/hugepages-{size // 1024}kB/enabled"))
    return (whole if chosen == "inherit" else chosen) in _WANTED


def _chosen(text: str) -> str:
    match = _CHOSEN.search(text)
    return match[1] if match else ""


def _text(sysfs: Sysfs, path: str, bytes_max: int = LINE_BYTES_MAX) -> str:
    reading = sysfs.read(path, bytes_max)
    return reading.text if isinstance(reading, Present) else ""
