# SPDX-License-Identifier: Apache-2.0
"""What this kernel has and holds, by reading only.

Two looks: ``probe_host`` once, for what does not change while the kernel runs (and is dear to read), and ``probe``
again and again, for drivers and DMA engines come and go with their modules without a word.

* An absent driver folder is "no series in this kernel" unless the kernel's configuration has the driver as a module.
* A built-in driver has no ``refcnt``: /sys/module/dcbm has only ``parameters`` and ``uevent`` then. A state of the
  series that cannot be a module has no folder there at all.
* ``lives`` tells a driver that was unloaded and loaded again from the one before: all its values are then the defaults.
  A look in the middle of that has values of the one with the life of the other, so it is made anew.
* ``reason_mask`` shows the names that are set, not the names that exist. Only its initial state, which sets all, tells
  the latter, so whoever probes again and again adds up what was seen. A mask that somebody else had narrowed before
  hides the rest: then less is offloaded than was asked, never more. Where the reasons are fixed, all are known.

Sources: kernel/params.c (module parameters, built-in modules); Documentation/filesystems/proc.rst;
arch/x86/kernel/cpu/proc.c and arch/arm64/kernel/cpuinfo.c;
Documentation/ABI/stable/sysfs-devices-node.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from enum import Enum, auto
from functools import cache
from typing import Final

from numamigration_agent.kernel.codecs import ReasonMask, Value, reason_names
from numamigration_agent.kernel.dialects import (
    DIALECTS,
    MODULE_ENTRIES,
    REASONS_FIELD,
    ROWS,
    Detection,
    DialectRow,
    Knob,
    counters_of,
    knobs_of,
    switches_of,
)
from numamigration_agent.kernel.engines import DmaEngines, copying_drivers, find_engines, obstacle_of
from numamigration_agent.kernel.sysfs import Absent, Present, Reading, Sysfs, printable
from numamigration_api.machinery.conditions import shorten
from numamigration_api.machinery.records import dataclass, field, replace
from numamigration_api.vocabulary import Dialect

UNKNOWN_FILES_MAX: Final = 16  # rows in status; the driver has five files, its largest fork about 25
TORN_LOOKS_MAX: Final = 3  # one is an accident; what is written from more of them is looked at once more before that
CONFIG_BYTES_MAX: Final = 4 << 20  # unpacked; a kernel's configuration has some 300 KiB
NUMA_NODES_MAX: Final = 1024  # MAX_NUMNODES at most (include/linux/numa.h)
HARDWARE_CLASS_LENGTH_MAX: Final = 253
GZIP_BITS: Final = zlib.MAX_WBITS | 16
"""A gzip header and trailer are expected and checked (zlib.h, inflateInit2)."""

_NUMA_DIR: Final = "/sys/devices/system/node"
_MODEL_NAME: Final = re.compile(r"^model name[ \t]*:[ \t]*(\S.*)", re.MULTILINE)
_ARM_FIELD: Final = re.compile(r"^CPU (implementer|part)[ \t]*:[ \t]*(0x[0-9a-f]{1,8})$", re.MULTILINE)
_BOOT_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")  # drivers/char/random.c, proc_do_uuid
_ID_RANGE: Final = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")  # the kernel has at most 1024 NUMA nodes
_SYMBOLS: Final = "|".join(sorted({row.module_symbol for row in DIALECTS if row.module_symbol}))
_DRIVER_AS_MODULE: Final = re.compile(rf"^({_SYMBOLS})=m$".encode(), re.MULTILINE)


_ABSENT: Final = Absent()


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
        unknown_files: files in the driver's folders that no table knows.
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
    def row(self) -> DialectRow:
        """What is known of the dialect."""
        return ROWS[self.dialect]

    @property
    def knobs(self) -> tuple[Knob, ...]:
        """The knobs whose file is there, readable or not."""
        return tuple(knob for knob in knobs_of(self.dialect) if self._has(knob.field))

    @property
    def switches(self) -> tuple[Knob, ...]:
        """The knobs that turn an engine on and off."""
        return tuple(knob for knob in switches_of(self.dialect) if self._has(knob.field))

    @property
    def running(self) -> tuple[Knob, ...]:
        """The switches that say that their engine is on."""
        return tuple(knob for knob in switches_of(self.dialect) if self.value(knob) not in {None, knob.off})

    def _has(self, name: str) -> bool:
        return not isinstance(self.readings.get(name, _ABSENT), Absent)

    def life(self, knob: Knob) -> int | None:
        """Return what tells a knob's file from that of an earlier load of its driver; None where nothing does."""
        return self.lives.get(knob.folder)

    def value(self, knob: Knob) -> Value | None:
        """Return what a knob holds; None when it is absent, denied, or says nothing that its codec knows."""
        reading = self.readings.get(knob.field)
        return knob.codec.parse(reading.text) if isinstance(reading, Present) else None

    @property
    def restricts_reasons(self) -> bool:
        """Whether a knob says which migrations are offloaded."""
        return self._has(REASONS_FIELD)

    @property
    def fixed_reasons(self) -> frozenset[str] | None:
        """Migration reasons that this dialect always offloads; None when a knob says which, or nobody knows."""
        return None if self.restricts_reasons else self.row.fixed_reasons

    @property
    def channels_usable(self) -> int:
        """DMA channels that the driver can use, hazards aside."""
        return sum(row.channels for row in self.engines if row.usable)


def probe_host(sysfs: Sysfs) -> HostFacts:
    """Read what does not change while this kernel runs."""
    return HostFacts(
        boot_id=parse_boot_id(_text(sysfs, "/proc/sys/kernel/random/boot_id")),
        release=printable(_text(sysfs, "/proc/sys/kernel/osrelease").strip()),
        cpu_model=parse_cpu_model(_text(sysfs, "/proc/cpuinfo")),
        driver_as_module=_driver_as_module(sysfs),
        numa_nodes=tuple(_numa_nodes(sysfs)),
        memory_nodes=_id_list(_text(sysfs, f"{_NUMA_DIR}/has_memory")),
    )


def probe(sysfs: Sysfs, host: HostFacts) -> KernelFacts:
    """Read which dialect, knobs and DMA engines there are now."""
    facts = _look(sysfs, host)
    for _ in range(TORN_LOOKS_MAX):
        if facts.lives == _lives(sysfs, facts.row):
            break
        facts = _look(sysfs, host)
    return facts


def _look(sysfs: Sysfs, host: HostFacts) -> KernelFacts:
    engines = find_engines(sysfs)
    dialect = find_dialect(sysfs, copying_drivers(engines))
    row = ROWS[dialect]
    lives = _lives(sysfs, row)  # before all that is asked of its folders, so that a change in between shows
    readings = {knob.field: sysfs.read(knob.path) for knob in knobs_of(dialect)}
    return KernelFacts(
        host=host,
        dialect=dialect,
        driver=_driver_state(sysfs, host, row),
        readings=readings,
        engines=tuple(
            replace(engine, obstacle=obstacle) if (obstacle := obstacle_of(engine.driver, dialect)) else engine
            for engine in engines
        ),
        unknown_files=_unknown_files(sysfs, row),
        reasons_seen=_reasons_shown(row, readings.get(REASONS_FIELD, _ABSENT)),
        lives=lives,
    )


def _lives(sysfs: Sysfs, row: DialectRow) -> Mapping[str, int]:
    return {folder: life for folder in row.folders if (life := sysfs.life(folder)) is not None}


def parse_boot_id(text: str) -> str:
    """Return the boot id; empty for anything else."""
    stripped = text.strip()
    return stripped if _BOOT_ID.fullmatch(stripped) else ""


def parse_cpu_model(text: str) -> str:
    """Return the model of the first CPU in /proc/cpuinfo, whose beginning is enough: it has a page for each CPU.

    arm64 has no model name there but the numbers of implementer and part (arch/arm64/kernel/cpuinfo.c). They stay
    numbers: a name that a later release learns would make another hardware class of the same host.
    """
    model = _MODEL_NAME.search(text)
    if model:
        return printable(model[1].strip())
    arm = dict(reversed(_ARM_FIELD.findall(text)))
    return f"CPU implementer {arm['implementer']}, part {arm['part']}" if len(arm) == 2 else "unknown CPU"


def parse_driver_as_module(data: bytes) -> bool:
    """Tell whether a kernel's packed configuration has the driver as a module; False also when it is none."""
    unpacker = zlib.decompressobj(GZIP_BITS)
    try:
        text = unpacker.decompress(data, CONFIG_BYTES_MAX)
    except zlib.error:
        return False
    return unpacker.eof and _DRIVER_AS_MODULE.search(text) is not None


def find_dialect(sysfs: Sysfs, drivers: frozenset[str] = frozenset()) -> Dialect:
    """Return the dialect whose telling file is there; `drivers` are those of the engines that copy memory."""
    found = (row.dialect for row in DIALECTS for telling in row.detections if _detected(sysfs, telling, drivers))
    return next(found, DIALECTS[-1].dialect)


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
    return shorten(f"{facts.host.cpu_model}; {layout}; {engines}", HARDWARE_CLASS_LENGTH_MAX)


def _detected(sysfs: Sysfs, telling: Detection, drivers: frozenset[str]) -> bool:
    if telling.drivers is not None and telling.drivers != drivers:
        return False
    mode = sysfs.mode(telling.path)
    return mode is not None and telling.mode in {None, mode}


def _driver_state(sysfs: Sysfs, host: HostFacts, row: DialectRow) -> DriverState:
    names = sysfs.names(row.module_dir) if row.module_dir else ()
    if "refcnt" in names:
        return DriverState.MODULE
    if names or row.detections:
        return DriverState.BUILT_IN
    return DriverState.NOT_LOADED if host.driver_as_module else DriverState.NONE


def _reasons_shown(row: DialectRow, mask: Reading) -> frozenset[str]:
    if isinstance(mask, Absent):
        return row.fixed_reasons or frozenset()
    value = ReasonMask().parse(mask.text) if isinstance(mask, Present) else None
    return reason_names(value) if value else frozenset()


def _unknown_files(sysfs: Sysfs, row: DialectRow) -> tuple[str, ...]:
    known = _known_files(row.dialect)
    names = ((folder, name) for folder in row.folders for name in sysfs.names(folder) if name not in MODULE_ENTRIES)
    paths = (f"{folder}/{name}" for folder, name in names)
    return tuple(path for path in paths if path not in known)[:UNKNOWN_FILES_MAX]


@cache
def _known_files(dialect: Dialect) -> frozenset[str]:
    knobs, counters = knobs_of(dialect), counters_of(dialect)
    return ROWS[dialect].other_files.union((knob.path for knob in knobs), (counter.path for counter in counters))


def _numa_nodes(sysfs: Sysfs) -> list[tuple[str, bool]]:
    names = (name for name in sysfs.names(_NUMA_DIR) if re.fullmatch(r"node[0-9]+", name))
    return [(name, bool(_text(sysfs, f"{_NUMA_DIR}/{name}/cpulist").strip())) for name in names]


def _id_list(text: str) -> tuple[int, ...]:
    """Return the numbers of a list like ``0-2,5`` (lib/bitmap-str.c); none when it is something else."""
    bounds = [_ID_RANGE.fullmatch(part) for part in text.strip().split(",")]
    if not all(bounds):
        return ()
    spans = (range(int(found[1]), min(int(found[2] or found[1]), NUMA_NODES_MAX - 1) + 1) for found in bounds if found)
    return tuple(sorted({number for span in spans for number in span}))


def _driver_as_module(sysfs: Sysfs) -> bool:
    data = sysfs.read_bytes("/proc/config.gz")
    return isinstance(data, bytes) and parse_driver_as_module(data)


def _text(sysfs: Sysfs, path: str) -> str:
    reading = sysfs.read(path)
    return reading.text if isinstance(reading, Present) else ""
