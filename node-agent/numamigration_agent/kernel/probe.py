# SPDX-License-Identifier: Apache-2.0
"""What this kernel has and holds, by reading only.

Two looks: ``probe_host`` once, for what does not change while the kernel runs (and is dear to read), and ``probe``
again and again, for drivers and DMA engines come and go with their modules without a word.

* An absent driver folder is "no series in this kernel" unless the kernel's configuration has the driver as a module.
* A built-in driver has no ``refcnt``: /sys/module/dcbm has only ``parameters`` and ``uevent`` then.
* ``reason_mask`` shows the names that are set, not the names that exist. Only its initial state, which sets all, tells
  the latter, so whoever probes again and again adds up what was seen. A mask that somebody else had narrowed before
  hides the rest: then less is offloaded than was asked, never more. Where the reasons are fixed, all are known.

Sources: kernel/params.c (module parameters, built-in modules); Documentation/filesystems/proc.rst;
Documentation/ABI/stable/sysfs-devices-node.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

from numamigration_agent.kernel.codecs import ReasonMask, Value, reason_names
from numamigration_agent.kernel.dialects import (
    COUNTERS,
    DETECTIONS,
    DRIVEN,
    KNOBS,
    MODULE_DIR,
    MODULE_ENTRIES,
    REASONS_FIELD,
    Detection,
    Knob,
    knobs_of,
)
from numamigration_agent.kernel.engines import DmaEngines, find_engines
from numamigration_agent.kernel.sysfs import Absent, Present, Reading, Sysfs
from numamigration_api.machinery.records import dataclass, field
from numamigration_api.vocabulary import Dialect

UNKNOWN_FILES_MAX: Final = 16  # rows in status; the driver has five files, its largest fork about 25
CPUINFO_BYTES_MAX: Final = 4096  # the first CPU tells the model; the whole file has a page for each CPU
GZIP_BITS: Final = zlib.MAX_WBITS | 16
"""A gzip header and trailer are expected and checked (zlib.h, inflateInit2)."""

_NUMA_DIR: Final = "/sys/devices/system/node"
_MODEL_NAME: Final = re.compile(r"^model name\s*:\s*(.+?)\s*$", re.MULTILINE)
_ID_RANGE: Final = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")  # the kernel has at most 1024 NUMA nodes
_DRIVER_AS_MODULE: Final = re.compile(rb"^CONFIG_DCBM_DMA=m$", re.MULTILINE)


class DriverState(Enum):
    """How the kernel has the batch copy driver."""

    NONE = auto()
    NOT_LOADED = auto()
    MODULE = auto()
    BUILT_IN = auto()


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What stays while this kernel runs.

    Attributes:
        driver_as_module: the kernel's configuration has the driver as a module; False also when it cannot be read.
        numa_nodes: NUMA nodes that are online, with whether they have CPUs.
        memory_nodes: numbers of the NUMA nodes that have memory.
    """

    boot_id: str
    release: str
    cpu_model: str
    driver_as_module: bool
    numa_nodes: tuple[tuple[str, bool], ...]
    memory_nodes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """What the kernel has and holds now.

    Attributes:
        readings: for every knob that this dialect may have, by field.
        unknown_files: files in the driver's folder that no table knows.
        reasons_seen: migration reasons that this kernel is known to know.
        lives: by folder of the driver, what tells it from the one of a load before.
    """

    host: HostFacts
    dialect: Dialect
    driver: DriverState
    readings: Mapping[str, Reading]
    engines: tuple[DmaEngines, ...]
    unknown_files: tuple[str, ...]
    reasons_seen: frozenset[str] = frozenset()
    lives: Mapping[str, int] = field(default_factory=dict)

    @property
    def knobs(self) -> tuple[Knob, ...]:
        """The knobs whose file is there, readable or not."""
        rows = knobs_of(self.dialect)
        return tuple(knob for knob in rows if not isinstance(self.readings.get(knob.field, Absent()), Absent))

    def value(self, knob: Knob) -> Value | None:
        """Return what a knob holds; None when it is absent, denied, or says nothing that its codec knows."""
        reading = self.readings.get(knob.field)
        return knob.codec.parse(reading.text) if isinstance(reading, Present) else None

    @property
    def fixed_reasons(self) -> frozenset[str] | None:
        """Migration reasons that this dialect always offloads; None when a knob says which."""
        return DRIVEN[self.dialect].fixed_reasons if self.dialect in DRIVEN else None

    @property
    def channels_usable(self) -> int:
        """DMA channels that the driver can use, hazards aside."""
        return sum(row.channels for row in self.engines if row.usable)


def probe_host(sysfs: Sysfs) -> HostFacts:
    """Read what does not change while this kernel runs."""
    model = _MODEL_NAME.search(_text(sysfs, "/proc/cpuinfo", CPUINFO_BYTES_MAX))
    return HostFacts(
        boot_id=_text(sysfs, "/proc/sys/kernel/random/boot_id").strip(),
        release=_text(sysfs, "/proc/sys/kernel/osrelease").strip(),
        cpu_model=model[1] if model else "unknown CPU",
        driver_as_module=_driver_as_module(sysfs),
        numa_nodes=tuple(_numa_nodes(sysfs)),
        memory_nodes=_id_list(_text(sysfs, f"{_NUMA_DIR}/has_memory")),
    )


def probe(sysfs: Sysfs, host: HostFacts) -> KernelFacts:
    """Read which dialect, knobs and DMA engines there are now."""
    dialect = find_dialect(sysfs)
    readings = {knob.field: sysfs.read(knob.path) for knob in knobs_of(dialect)}
    fixed = DRIVEN[dialect].fixed_reasons if dialect in DRIVEN else None
    return KernelFacts(
        host=host,
        dialect=dialect,
        driver=_driver_state(sysfs, host),
        readings=readings,
        engines=find_engines(sysfs),
        unknown_files=_unknown_files(sysfs, dialect),
        lives={folder: life for folder in _folders(dialect) if (life := sysfs.life(folder)) is not None},
        reasons_seen=_reasons_seen(readings.get(REASONS_FIELD, Absent())) if fixed is None else fixed,
    )


def find_dialect(sysfs: Sysfs) -> Dialect:
    """Return the dialect whose telling file is there."""
    return next((row.dialect for row in DETECTIONS if _detected(sysfs, row)), Dialect.NO_SERIES)


def hardware_class(facts: KernelFacts) -> str:
    """Return the words by which hosts may be tuned alike: CPU model, NUMA layout, DMA engines; not the release."""
    with_cpus = sum(has_cpus for _, has_cpus in facts.host.numa_nodes)
    without = len(facts.host.numa_nodes) - with_cpus
    by_driver: dict[str, int] = {}
    for row in facts.engines:
        if row.usable:
            by_driver[row.driver] = by_driver.get(row.driver, 0) + row.channels
    engines = " + ".join(f"{count} {driver}" for driver, count in sorted(by_driver.items())) or "no DMA"
    layout = f"{with_cpus} NUMA" + (f" + {without} memory-only" if without else "")
    return f"{facts.host.cpu_model}; {layout}; {engines}"


def _detected(sysfs: Sysfs, row: Detection) -> bool:
    mode = sysfs.mode(row.path)
    return mode is not None and row.mode in {None, mode}


def _driver_state(sysfs: Sysfs, host: HostFacts) -> DriverState:
    names = sysfs.names(MODULE_DIR)
    if not names:
        return DriverState.NOT_LOADED if host.driver_as_module else DriverState.NONE
    return DriverState.MODULE if "refcnt" in names else DriverState.BUILT_IN


def _reasons_seen(mask: Reading) -> frozenset[str]:
    value = ReasonMask().parse(mask.text) if isinstance(mask, Present) else None
    return reason_names(value) if value else frozenset()


def _unknown_files(sysfs: Sysfs, dialect: Dialect) -> tuple[str, ...]:
    if dialect not in DRIVEN:
        return ()
    folder = DRIVEN[dialect].driver_dir
    known = {knob.path for knob in KNOBS} | {counter.path for counter in COUNTERS}
    paths = (f"{folder}/{name}" for name in sysfs.names(folder) if name not in MODULE_ENTRIES)
    return tuple(path for path in paths if path not in known)[:UNKNOWN_FILES_MAX]


def _folders(dialect: Dialect) -> tuple[str, ...]:
    return (DRIVEN[dialect].driver_dir,) if dialect in DRIVEN else ()


def _numa_nodes(sysfs: Sysfs) -> list[tuple[str, bool]]:
    names = (name for name in sysfs.names(_NUMA_DIR) if re.fullmatch(r"node[0-9]+", name))
    return [(name, bool(_text(sysfs, f"{_NUMA_DIR}/{name}/cpulist").strip())) for name in names]


def _id_list(text: str) -> tuple[int, ...]:
    """Return the numbers of a list like ``0-2,5`` (lib/bitmap-str.c); none when it is something else."""
    bounds = [_ID_RANGE.fullmatch(part) for part in text.strip().split(",")]
    if not all(bounds):
        return ()
    return tuple(number for found in bounds if found for number in range(int(found[1]), int(found[2] or found[1]) + 1))


def _driver_as_module(sysfs: Sysfs) -> bool:
    data = sysfs.read_bytes("/proc/config.gz")
    if not isinstance(data, bytes):
        return False
    try:
        return _DRIVER_AS_MODULE.search(zlib.decompress(data, GZIP_BITS)) is not None
    except zlib.error:
        return False


def _text(sysfs: Sysfs, path: str, bytes_max: int | None = None) -> str:
    reading = sysfs.read(path, bytes_max) if bytes_max else sysfs.read(path)
    return reading.text if isinstance(reading, Present) else ""
