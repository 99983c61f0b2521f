# SPDX-License-Identifier: Apache-2.0
"""The tables: how a dialect is recognized, which knobs and counters and hazards it has. A dialect is a row.

* Outside these tables nothing can be written (promise 14), and a counter is in another table than a knob, for any
  write to it, garbage too, resets it (promise 2).
* A knob is named by its settings field. Where a kernel has two files for one field, or another meaning of it, the name
  goes on behind a slash: ``offload.engine`` is the switch of the DMA engine, ``offload.engine/CPUThreads`` that of the
  copy threads. So one name has one spelling in every dialect, and baselines are kept by name (docs/decisions/0019).
* A dialect that is ``only_turned_off`` shows its knobs, and no wish sets any of them but the switches, to off.
* Later dialects keep the files of earlier ones, so the youngest row comes first and the first hit wins. A kernel of an
  unknown later state is taken for the closest row; files that its row does not know are reported and never written.

Sources: the postings of the batch copy offload series ("Enhancements to Page Migration with Batch Offloading via DMA",
2024-06-14, to "[PATCH RFC v6 0/5]", 2026-06-30), "Accelerate page migration with batching and multi threads" (ZY,
2025-01-03) and the public trees derived from them, for layout, modes, ranges and errnos;
Documentation/admin-guide/sysctl/kernel.rst; Documentation/ABI/testing/sysfs-kernel-mm-numa.
"""

from __future__ import annotations

import errno
from enum import IntEnum, StrEnum
from typing import Final, NamedTuple

from numamigration_agent.kernel.codecs import Codec, ReasonMask, Size, UInt, Value, Word, Words
from numamigration_api.machinery.records import dataclass, replace
from numamigration_api.vocabulary import (
    AcceptedRisk,
    BalancingMode,
    Dialect,
    Engine,
    Locality,
    MigrationReason,
    Placement,
    Reason,
    SettingsGroup,
)

MODULE_DIR: Final = "/sys/module/dcbm"
MODULE_SYMBOL: Final = "CONFIG_DCBM_DMA"
PARAMETERS_DIR: Final = f"{MODULE_DIR}/parameters"
CHANNEL_POOL_DIR: Final = "/sys/module/mm_offload_dma/parameters"
DCBM_DIR: Final = "/sys/kernel/dcbm"
THREADS_DIR: Final = "/sys/kernel/cpu_mt"
PADATA_DIR: Final = "/sys/kernel/cpu_mt_copy"
VM_DIR: Final = "/proc/sys/vm"

ENGINE_FIELD: Final = "offload.engine"
THREADS_FIELD: Final = "offload.engine/CPUThreads"
CHANNELS_FIELD: Final = "offload.channels"
REASONS_FIELD: Final = "offload.reasons"
THREAD_COUNT_FIELD: Final = "cpuThreads.count"

ENGINE_OFF: Final = Value("0")
ENGINE_ON: Final = Value("1")

_INT_MAX: Final = (1 << 31) - 1
_UINT_MAX: Final = (1 << 32) - 1
_ULONG_MAX: Final = (1 << 64) - 1


class Evidence(StrEnum):
    """How far a row is to be trusted, the best word first."""

    SEEN = "seen"
    """Run on a kernel."""
    CODE = "code"
    """Read in the source of that state."""
    MAIL = "mail"
    """Read in a posting or its review."""
    INFERENCE = "inference"
    """Follows from what was read; nobody says it."""


class Phase(IntEnum):
    """When a knob is written: parameters before their switch when it goes on, after it when it goes off."""

    PARAMETER = 0
    SWITCH = 1


class Trap(StrEnum):
    """Hazards that need no consent, for the agent walks round them; what each is stands in ``hazards``."""

    BLOCKING_TURN_OFF = "BlockingTurnOff"
    LAST_START_WINS = "LastStartWins"
    SHORT_WRITE = "ShortWrite"
    SILENT_CLAMP = "SilentClamp"
    SILENT_CPU_COPY = "SilentCpuCopy"
    COUNTER_RESET = "CounterReset"
    EMPTY_MASK = "EmptyMask"
    ZERO_SEGMENTS = "ZeroSegments"


class Detection(NamedTuple):
    """A file that tells a dialect.

    Attributes:
        mode: only with these permission bits.
        drivers: only when the DMA engines that can copy memory are of these drivers.
    """

    path: str
    mode: int | None = None
    drivers: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Knob:
    """One writable kernel file.

    Attributes:
        field: its name: the settings field it serves, with more behind a slash where that is not enough.
        off: of a switch, the value in which it acts on nothing.
        never: values that are not written, whoever wishes them and whatever stood there before.
        while_off: it is taken, or acted on, only while its engine is off.
        errnos: what an errno means that says more here than elsewhere.
        note: what a person should know of this file.
        evidence: where it is not that of its dialect.
    """

    field: str
    group: SettingsGroup
    path: str
    codec: Codec
    phase: Phase = Phase.PARAMETER
    off: Value | None = None
    never: frozenset[Value] = frozenset()
    while_off: bool = False
    errnos: tuple[tuple[int, Reason], ...] = ()
    note: str = ""
    evidence: Evidence | None = None

    @property
    def setting(self) -> str:
        """The settings field it serves."""
        return self.field.partition("/")[0]

    @property
    def folder(self) -> str:
        """Where its file is."""
        return self.path.rpartition("/")[0]

    @property
    def is_engine(self) -> bool:
        """Whether it turns an engine on and off."""
        return self.phase is Phase.SWITCH and self.setting == ENGINE_FIELD

    def takes(self, wanted: str) -> bool:
        """Whether it has anything for a wish: a number can be clamped, and another engine's name is off to a switch."""
        return self.is_engine or not isinstance(self.codec, Words) or self.codec.unshow(wanted) is not None

    def turns_on(self, engine: str) -> bool:
        """Whether it is the switch of an engine."""
        return self.is_engine and self.codec.unshow(engine) not in {None, self.off}


@dataclass(frozen=True, slots=True)
class Counter:
    """One number to read: a file of the driver, or keys of /proc/vmstat that are added up."""

    name: str
    path: str = ""
    vmstat_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DialectRow:
    """All that is known of one dialect.

    Attributes:
        detections: files of which each tells it.
        evidence: of all its rows that have none of their own.
        source: where it was read.
        folders: where files that no row knows would appear; they are made anew when the driver is loaded anew.
        other_files: files in them that are known and neither read nor written.
        module_dir: the folder of its module; empty where the driver cannot be a module.
        module_symbol: what the kernel's configuration calls it.
        fixed_reasons: the migrations that are offloaded where no knob says; None where nobody knows, or a knob says.
        hazards: names of rows of the risk table.
        keeps_channels: it takes its DMA channels when it is turned on, and keeps them: in_use says nothing of a batch.
        only_turned_off: why no wish may turn it on; empty where all its knobs are set.
    """

    dialect: Dialect
    detections: tuple[Detection, ...]
    evidence: Evidence
    source: str
    knobs: tuple[Knob, ...] = ()
    counters: tuple[Counter, ...] = ()
    folders: tuple[str, ...] = ()
    other_files: frozenset[str] = frozenset()
    module_dir: str = ""
    module_symbol: str = ""
    fixed_reasons: frozenset[str] | None = None
    hazards: frozenset[str] = frozenset()
    keeps_channels: bool = False
    only_turned_off: str = ""


# --- rows that several dialects have, each at its own place ---------------------------------------------------------

_DMA: Final = Words((Word(ENGINE_OFF, Engine.OFF), Word(ENGINE_ON, Engine.DMA)))
_THREADS: Final = Words((Word(ENGINE_OFF, Engine.OFF), Word(ENGINE_ON, Engine.CPU_THREADS)))
_YES_NO: Final = Words((Word("N", "false"), Word("Y", "true")))

_BUSY: Final = ((errno.EBUSY, Reason.MIGRATOR_BUSY),)
_NO_CHANNEL: Final = ((errno.ENODEV, Reason.NO_DMA_CHANNEL),)
_IGNORES_ODD: Final = "Any other whole number is taken and ignored."


def _dma_switch(folder: str, errnos: tuple[tuple[int, Reason], ...] = (), note: str = "") -> Knob:
    path, group = f"{folder}/offloading", SettingsGroup.OFFLOAD
    return Knob(ENGINE_FIELD, group, path, _DMA, Phase.SWITCH, ENGINE_OFF, errnos=errnos, note=note)


def _threads_switch(path: str, note: str = "") -> Knob:
    return Knob(THREADS_FIELD, SettingsGroup.OFFLOAD, path, _THREADS, Phase.SWITCH, ENGINE_OFF, note=note)


def _channels(folder: str, highest: int = 16, note: str = "") -> Knob:
    return Knob(CHANNELS_FIELD, SettingsGroup.OFFLOAD, f"{folder}/nr_dma_chan", UInt(1, highest), note=note)


def _thread_count(path: str, highest: int = 64, note: str = "") -> Knob:
    return Knob(THREAD_COUNT_FIELD, SettingsGroup.CPU_THREADS, path, UInt(1, highest), note=note)


def _folio_counters(
    folder: str, migrated: str = "folios_migrated", failed: str = "folios_failures"
) -> tuple[Counter, ...]:
    return Counter("folios_migrated", f"{folder}/{migrated}"), Counter("folios_failed", f"{folder}/{failed}")


def _parameter(group: SettingsGroup, name: str, file: str, codec: Codec, note: str = "") -> Knob:
    return Knob(f"{group}.{name}", group, f"{PARAMETERS_DIR}/{file}", codec, note=note)


_REASONS: Final = Knob(
    REASONS_FIELD,
    SettingsGroup.OFFLOAD,
    f"{PARAMETERS_DIR}/reason_mask",
    ReasonMask(),
    note="Names that the kernel does not know are EINVAL, so they are left out.",
)
_CACHE: Final = _parameter(SettingsGroup.OFFLOAD, "cacheAllocate", "cache_ctrl", _YES_NO)
_SEGMENTS: Final = replace(
    _parameter(SettingsGroup.BATCH, "sgElements", "sg_elems", UInt(1, _UINT_MAX)), never=frozenset({Value("0")})
)

_THREADS_DIR_SWITCH: Final = _threads_switch(f"{THREADS_DIR}/offloading", f"Each write answers 4. {_IGNORES_ODD}")
_THREADS_DIR_COUNT: Final = _thread_count(
    f"{THREADS_DIR}/threads", note="Kernels with the series' test patch take 1..32: more is EINVAL."
)
_THREADS_DIR_PLACEMENT: Final = Knob(
    "cpuThreads.placement/die",
    SettingsGroup.CPU_THREADS,
    f"{THREADS_DIR}/cpuselect",
    Words((Word("0", Placement.SPREAD), Word("1", Placement.FILL)), numbers=True),
    note="Only with the series' test patch.",
)

_EVERY_ENGINE: Final = frozenset({AcceptedRisk.MEMORY_FAILURE_OFFLOAD, AcceptedRisk.UNVERIFIED_ENGINE})
_EVERY_DMA: Final = _EVERY_ENGINE | {AcceptedRisk.SHARED_ENGINE}
_POSTED_DMA: Final = _EVERY_DMA | {AcceptedRisk.OUT_OF_ORDER_ENGINE, Trap.SILENT_CPU_COPY}
_REGISTERED: Final = frozenset({Trap.BLOCKING_TURN_OFF, Trap.COUNTER_RESET})
_PARAMETERS: Final = _REGISTERED | {AcceptedRisk.BUILT_IN_DRIVER_STALL, Trap.EMPTY_MASK}

_V5_REASONS: Final = frozenset(
    {
        MigrationReason.COMPACTION,
        MigrationReason.SYSCALL_OR_CPUSET,
        MigrationReason.NUMA_MISPLACED,
        MigrationReason.DEMOTION,
    }
)

_V6: Final = DialectRow(
    Dialect.V6,
    # The second file alone: a later state without the mask. Its reasons are then unknown, as in V4.
    (Detection(f"{PARAMETERS_DIR}/reason_mask"), Detection(f"{PARAMETERS_DIR}/offloading")),
    Evidence.SEEN,
    "[PATCH RFC v6 0/5], 2026-06-30, patches 2/5 to 4/5",
    knobs=(_channels(PARAMETERS_DIR), _REASONS, _dma_switch(PARAMETERS_DIR, _BUSY)),
    counters=_folio_counters(PARAMETERS_DIR),
    folders=(PARAMETERS_DIR, MODULE_DIR),
    module_dir=MODULE_DIR,
    module_symbol=MODULE_SYMBOL,
    hazards=_POSTED_DMA | _PARAMETERS,
)

_V3: Final = DialectRow(
    Dialect.V3,
    # V2 has the same files of the copy threads with the same modes; alone they do not tell which, and behave alike.
    (Detection(f"{DCBM_DIR}/nr_dma_chan", 0o644), Detection(f"{THREADS_DIR}/offloading")),
    Evidence.MAIL,
    "RFC 0/9 of 2025-09-23, patches 6/9, 7/9 and 9/9",
    knobs=(
        _channels(DCBM_DIR),
        _THREADS_DIR_COUNT,
        _THREADS_DIR_PLACEMENT,
        replace(_THREADS_DIR_SWITCH, evidence=Evidence.CODE),
        _dma_switch(DCBM_DIR, note="Reads 1 also while the copy threads, started later, do the work."),
    ),
    folders=(DCBM_DIR, THREADS_DIR),
    hazards=_POSTED_DMA | {Trap.LAST_START_WINS, Trap.SHORT_WRITE},
)

# --- the table ------------------------------------------------------------------------------------------------------

DIALECTS: Final = (
    DialectRow(
        Dialect.F_EXT,
        (Detection(f"{PARAMETERS_DIR}/map_cache"), Detection(f"{PARAMETERS_DIR}/min_chunk_bytes")),
        Evidence.CODE,
        "byrnedj/linux, drivers/mm_offload/dcbm/dcbm.c and mm_offload_dma.c at 09ba0a66; a third party's tree",
        knobs=(
            _channels(PARAMETERS_DIR, 32),
            _REASONS,
            Knob(
                "offload.locality",
                SettingsGroup.OFFLOAD,
                f"{CHANNEL_POOL_DIR}/cross_node",
                Words(
                    (Word("0", Locality.LOCAL), Word("1", Locality.LOCAL_FIRST), Word("2", Locality.REMOTE)),
                    numbers=True,  # the file has no range check
                ),
            ),
            _CACHE,
            _parameter(SettingsGroup.BATCH, "minSize", "min_bytes", Size(1, _ULONG_MAX)),
            _parameter(SettingsGroup.BATCH, "chunkMinSize", "min_chunk_bytes", Size(1, _ULONG_MAX)),
            _parameter(SettingsGroup.BATCH, "chunkMaxSize", "max_chunk_bytes", Size(1, _ULONG_MAX)),
            _SEGMENTS,
            _parameter(SettingsGroup.BATCH, "descriptorsPerChannel", "max_inflight", UInt(1, _UINT_MAX)),
            _parameter(SettingsGroup.MAP_CACHE, "enabled", "map_cache", _YES_NO, "Turning it off flushes the cache."),
            _parameter(
                SettingsGroup.MAP_CACHE, "capMiB", "map_cache_cap_mb", UInt(0, _UINT_MAX), "0 disables and revokes."
            ),
            _parameter(SettingsGroup.MAP_CACHE, "minKiB", "map_cache_min_kb", UInt(0, _UINT_MAX)),
            replace(
                _parameter(SettingsGroup.MAP_CACHE, "quantumKiB", "map_quantum_kb", UInt(0, 2048)),
                while_off=True,
                note="Used at the next turn-on, so an engine that a policy keeps on goes off and on.",
            ),
            _dma_switch(PARAMETERS_DIR, _BUSY + _NO_CHANNEL),
        ),
        counters=(
            *_folio_counters(PARAMETERS_DIR),
            Counter("batches_refused", f"{PARAMETERS_DIR}/batches_refused"),
            Counter("folios_refused", f"{PARAMETERS_DIR}/folios_gated"),
        ),
        folders=(PARAMETERS_DIR, MODULE_DIR, CHANNEL_POOL_DIR),
        other_files=frozenset(
            {f"{CHANNEL_POOL_DIR}/shared"}
            | {
                f"{PARAMETERS_DIR}/{name}"
                for name in (
                    "clear_failures",
                    "cpu_warm",
                    "folios_cleared",
                    "map_cache_clear",
                    "map_cache_stats",
                    "min_clear_bytes",
                    "util_gate",
                )
            }
        ),
        module_dir=MODULE_DIR,
        module_symbol=MODULE_SYMBOL,
        # Not out of order: it looks at each descriptor's result, and was made for engines that complete so.
        hazards=_EVERY_DMA | _PARAMETERS | {Trap.ZERO_SEGMENTS},
        keeps_channels=True,
    ),
    DialectRow(
        Dialect.F_MID,
        (Detection(f"{PARAMETERS_DIR}/sg_elems"),),
        Evidence.CODE,
        "byrnedj/linux, drivers/migrate_offload/dcbm/dcbm.c at 315003dc; a third party's tree",
        knobs=(
            replace(_channels(PARAMETERS_DIR), while_off=True, note="EBUSY while on."),
            _REASONS,
            _CACHE,
            _SEGMENTS,
            _dma_switch(PARAMETERS_DIR, _BUSY + _NO_CHANNEL),
        ),
        counters=(*_folio_counters(PARAMETERS_DIR), Counter("batches_refused", f"{PARAMETERS_DIR}/batches_refused")),
        folders=(PARAMETERS_DIR, MODULE_DIR),
        module_dir=MODULE_DIR,
        module_symbol=MODULE_SYMBOL,
        hazards=_EVERY_DMA | _PARAMETERS | {AcceptedRisk.UNBOUNDED_STALL, Trap.ZERO_SEGMENTS},
        keeps_channels=True,
        only_turned_off="it waits for a hung engine for ever (UnboundedStall)",
    ),
    replace(
        _V6,
        dialect=Dialect.V6_SDXI,
        # The files are V6's. A host with other engines too is taken for V6; 2 channels are then EINVAL, and told so.
        detections=(Detection(f"{PARAMETERS_DIR}/reason_mask", drivers=frozenset({"sdxi"})),),
        evidence=Evidence.CODE,
        source="AMDESE/linux-mm, dcbm.c at d32058b7; not posted",
        knobs=(
            _channels(PARAMETERS_DIR, 1, "Only 1 is taken, whatever modinfo says."),
            _REASONS,
            _dma_switch(PARAMETERS_DIR, _BUSY),
        ),
        keeps_channels=True,
    ),
    _V6,
    DialectRow(
        Dialect.V5,
        (Detection(f"{MODULE_DIR}/offloading"),),
        Evidence.SEEN,
        "[PATCH 0/7], 2026-04-28, patches 5/7 and 6/7",
        knobs=(_channels(MODULE_DIR), _dma_switch(MODULE_DIR, _BUSY)),
        counters=_folio_counters(MODULE_DIR),
        # In the module's own folder, beside what every module has.
        folders=(MODULE_DIR,),
        module_dir=MODULE_DIR,
        module_symbol=MODULE_SYMBOL,
        fixed_reasons=_V5_REASONS,
        # Its fixed reasons lack memory_failure.
        hazards=(_POSTED_DMA | _REGISTERED | {AcceptedRisk.DIRECT_IO_LOST_WRITE})
        - {AcceptedRisk.MEMORY_FAILURE_OFFLOAD},
    ),
    DialectRow(
        Dialect.V4,
        (Detection(f"{DCBM_DIR}/folios_migrated"),),
        Evidence.MAIL,
        "RFC 0/6 of 2026-03-09, patches 4/6 and 5/6; its errnos are taken to be those of V5",
        knobs=(_channels(DCBM_DIR), _dma_switch(DCBM_DIR, _BUSY)),
        counters=_folio_counters(DCBM_DIR),
        folders=(DCBM_DIR,),
        module_dir=MODULE_DIR,
        module_symbol=MODULE_SYMBOL,
        hazards=_POSTED_DMA | _REGISTERED | {AcceptedRisk.DIRECT_IO_LOST_WRITE},
    ),
    replace(
        _V3,
        dialect=Dialect.V3_DEV,
        detections=(Detection(f"{DCBM_DIR}/pages_migrated"),),
        evidence=Evidence.CODE,
        source="shivankgarg98/linux at 7c5e99b2; not posted",
        counters=_folio_counters(DCBM_DIR, "pages_migrated", "pages_failures"),  # which count folios
        only_turned_off="it is a state between V3 and V4 that was never posted",
    ),
    DialectRow(
        Dialect.V2,
        (Detection(f"{DCBM_DIR}/nr_dma_chan", 0o664),),
        Evidence.CODE,
        "RFC 0/9 of 2025-03-19; shivankgarg98/linux at 913d1f6b",
        knobs=(
            _channels(DCBM_DIR, note="Each write answers 4. 16 and more are clamped to 16 without a word."),
            replace(_THREADS_DIR_COUNT, note=""),  # the test patch that takes fewer is one of V3
            _THREADS_DIR_PLACEMENT,
            _THREADS_DIR_SWITCH,
            _dma_switch(DCBM_DIR, note=f"Each write answers 4. {_IGNORES_ODD}"),
        ),
        folders=(DCBM_DIR, THREADS_DIR),
        hazards=_EVERY_DMA | {Trap.LAST_START_WINS, Trap.SHORT_WRITE, Trap.SILENT_CLAMP, Trap.SILENT_CPU_COPY},
        only_turned_off="it has no counter that could show what it does",
    ),
    _V3,
    DialectRow(
        Dialect.V1,
        (Detection(f"{DCBM_DIR}/offloading"),),
        Evidence.CODE,
        "RFC 0/5 of 2024-06-14",
        knobs=(_dma_switch(DCBM_DIR, _NO_CHANNEL, f"Each write answers 4. {_IGNORES_ODD}"),),
        folders=(DCBM_DIR,),
        hazards=_EVERY_DMA | {Trap.SHORT_WRITE},
        keeps_channels=True,
        only_turned_off="its one channel made migration 2.6 to 4 times slower, says its posting",
    ),
    DialectRow(
        Dialect.ZY,
        (Detection(f"{VM_DIR}/use_mt_copy"),),
        Evidence.CODE,
        "RFC 0/5 of 2025-01-03; x-y-z/linux-dev, kernel/sysctl.c and mm/copy_pages.c",
        knobs=(
            _thread_count(f"{VM_DIR}/limit_mt_num", note="At most 32 are used, and the NUMA node's CPUs."),
            Knob(
                "cpuThreads.placement",
                SettingsGroup.CPU_THREADS,
                f"{VM_DIR}/push_0_pull_1",
                Words((Word("0", Placement.PUSH), Word("1", Placement.PULL))),
            ),
            _threads_switch(f"{VM_DIR}/use_mt_copy"),
        ),
        hazards=_EVERY_ENGINE,
    ),
    DialectRow(
        Dialect.V3_PADATA,
        (Detection(f"{PADATA_DIR}/offloading"),),
        Evidence.CODE,
        "x-y-z/linux-dev, branches batched_page_migration_copy_amd_v3-*; not posted",
        knobs=(_thread_count(f"{PADATA_DIR}/threads"), _threads_switch(f"{PADATA_DIR}/offloading")),
        folders=(PADATA_DIR,),
        hazards=_EVERY_ENGINE,
        only_turned_off="it is a state of V3 that was never posted",
    ),
    DialectRow(
        Dialect.NO_SERIES,
        (),
        Evidence.CODE,
        "kernel/sched/core.c and fair.c; mm/memory-tiers.c",
        folders=(PARAMETERS_DIR, MODULE_DIR),
        module_dir=MODULE_DIR,
    ),
)
"""The youngest first; first hit wins, and the last row is what is left when none hits."""

MAINLINE_KNOBS: Final = (
    Knob(
        field="balancing.promoteRateLimitMBps",
        group=SettingsGroup.BALANCING,
        path="/proc/sys/kernel/numa_balancing_promote_rate_limit_MBps",
        codec=UInt(0, _INT_MAX),
    ),
    Knob(
        field="balancing.mode",
        group=SettingsGroup.BALANCING,
        path="/proc/sys/kernel/numa_balancing",
        codec=Words(
            (Word("0", BalancingMode.OFF), Word("1", BalancingMode.NORMAL), Word("2", BalancingMode.TIERING)),
            numbers=True,  # 3 is both bits, and the kernel's table lets 4 pass
        ),
        phase=Phase.SWITCH,
        off=Value("0"),
        note="Writing it takes CAP_SYS_ADMIN.",
    ),
    Knob(
        field="demotion.enabled",
        group=SettingsGroup.DEMOTION,
        path="/sys/kernel/mm/numa/demotion_enabled",
        codec=Words((Word("false", "false", "0"), Word("true", "true", "1"))),
        phase=Phase.SWITCH,
        off=Value("false"),
    ),
)
"""Knobs of every kernel, whatever series it carries."""

MAINLINE_COUNTERS: Final = (
    Counter("pages_migrated", vmstat_keys=("pgmigrate_success",)),
    Counter("pages_migration_failed", vmstat_keys=("pgmigrate_fail",)),
    Counter("pages_promoted", vmstat_keys=("pgpromote_success",)),
    Counter(
        "pages_demoted",
        vmstat_keys=("pgdemote_kswapd", "pgdemote_direct", "pgdemote_khugepaged", "pgdemote_proactive"),
    ),
    Counter("thps_migrated", vmstat_keys=("thp_migration_success",)),
    Counter("thps_split", vmstat_keys=("thp_migration_split",)),
)

ROWS: Final = {row.dialect: row for row in DIALECTS}
KNOBS: Final = tuple(dict.fromkeys([*(knob for row in DIALECTS for knob in row.knobs), *MAINLINE_KNOBS]))
"""Every row that can be written."""
FIELD_ORDER: Final = {name: index for index, name in enumerate(dict.fromkeys(knob.field for knob in KNOBS))}
"""The order in which people read knobs, and parameters of a phase are written."""
COUNTERS: Final = tuple(dict.fromkeys([*(row for rows in DIALECTS for row in rows.counters), *MAINLINE_COUNTERS]))
DRIVEN: Final = {row.dialect: row for row in DIALECTS if row.knobs and not row.only_turned_off}
"""Dialects of the series whose knobs this release sets."""
CODECS: Final = {knob.field: knob.codec for knob in reversed(KNOBS)}
"""By name: how a value is spelled does not depend on where a dialect has its file; what is legal may."""

_KNOBS_OF: Final = {row.dialect: row.knobs + MAINLINE_KNOBS for row in DIALECTS}
_SWITCHES_OF: Final = {name: tuple(knob for knob in knobs if knob.is_engine) for name, knobs in _KNOBS_OF.items()}
_COUNTERS_OF: Final = {row.dialect: row.counters + MAINLINE_COUNTERS for row in DIALECTS}

MODULE_ENTRIES: Final = frozenset(
    {
        "coresize",
        "drivers",
        "holders",
        "initsize",
        "initstate",
        "notes",
        "parameters",
        "refcnt",
        "sections",
        "srcversion",
        "taint",
        "uevent",
        "version",
    }
)
"""What the folder of any module may have (kernel/module/sysfs.c, kernel/module/main.c, drivers/base/module.c)."""


def knobs_of(dialect: Dialect) -> tuple[Knob, ...]:
    """Return the rows of the knob table for one dialect."""
    return _KNOBS_OF[dialect]


def switches_of(dialect: Dialect) -> tuple[Knob, ...]:
    """Return those of its knobs that turn an engine on and off."""
    return _SWITCHES_OF[dialect]


def counters_of(dialect: Dialect) -> tuple[Counter, ...]:
    """Return the rows of the counter table for one dialect."""
    return _COUNTERS_OF[dialect]
