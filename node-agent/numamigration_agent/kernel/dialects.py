# SPDX-License-Identifier: Apache-2.0
"""The tables: how a dialect is recognized, which knobs it has, which counters. A dialect is rows, not a class.

* Outside these tables nothing can be written (promise 14), and a counter is in another table than a knob, for any
  write to it, garbage too, resets it (promise 2).
* A dialect that is recognized and has no row in ``DRIVEN`` is reported by its name and never written.
* V5 has its files in the module's own folder, beside those that every module has, and no ``reason_mask``: which
  migrations it offloads is fixed in mm/migrate.c.
* V6-SDXI cannot be told from V6 by its files; it refuses ``nr_dma_chan=2`` with EINVAL, which is then shown.

Sources: the postings of the batch copy offload series ("Enhancements to Page Migration with Batch Offloading via DMA",
2024-06-14, to "[PATCH RFC v6 0/5]", 2026-06-30) and the public trees derived from it, for layout and file modes;
Documentation/admin-guide/sysctl/kernel.rst; Documentation/ABI/testing/sysfs-kernel-mm-numa.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Final, NamedTuple

from numamigration_agent.kernel.codecs import Codec, ReasonMask, UInt, Value, Word, Words
from numamigration_api.machinery.records import dataclass, field
from numamigration_api.vocabulary import (
    AcceptedRisk,
    BalancingMode,
    Dialect,
    Engine,
    MigrationReason,
    SettingsGroup,
)

MODULE_DIR: Final = "/sys/module/dcbm"
PARAMETERS_DIR: Final = f"{MODULE_DIR}/parameters"

ENGINE_FIELD: Final = "offload.engine"
CHANNELS_FIELD: Final = "offload.channels"
REASONS_FIELD: Final = "offload.reasons"

ENGINE_OFF: Final = Value("0")
ENGINE_ON: Final = Value("1")


class Detection(NamedTuple):
    """A file that tells a dialect; with `mode`, only with these permission bits."""

    path: str
    dialect: Dialect
    mode: int | None = None


DETECTIONS: Final = (
    Detection(f"{PARAMETERS_DIR}/map_cache", Dialect.F_EXT),
    Detection(f"{PARAMETERS_DIR}/sg_elems", Dialect.F_MID),
    Detection(f"{PARAMETERS_DIR}/reason_mask", Dialect.V6),
    Detection(f"{MODULE_DIR}/offloading", Dialect.V5),
    Detection("/sys/kernel/dcbm/folios_migrated", Dialect.V4),
    Detection("/sys/kernel/dcbm/pages_migrated", Dialect.V3_DEV),
    Detection("/sys/kernel/dcbm/nr_dma_chan", Dialect.V3, 0o644),
    Detection("/sys/kernel/dcbm/nr_dma_chan", Dialect.V2, 0o664),
    Detection("/sys/kernel/dcbm/offloading", Dialect.V1),
    Detection("/proc/sys/vm/use_mt_copy", Dialect.ZY),
    Detection("/sys/kernel/cpu_mt_copy/offloading", Dialect.V3_PADATA),
    # V2 has the same file with the same mode; alone it does not tell which. Neither is driven.
    Detection("/sys/kernel/cpu_mt/offloading", Dialect.V3),
)
"""First hit wins: later dialects keep the files of earlier ones, so the youngest comes first."""

MAINLINE: Final = frozenset(Dialect)
"""Knobs of every kernel, whatever series it carries."""


class Phase(IntEnum):
    """When a knob is written: parameters before their switch when it goes on, after it when it goes off."""

    PARAMETER = 0
    SWITCH = 1


@dataclass(frozen=True, slots=True)
class Knob:
    """One writable kernel file.

    Attributes:
        field: the settings field it serves.
        off: of a switch, the value in which it acts on nothing.
    """

    field: str
    group: SettingsGroup
    path: str
    codec: Codec
    dialects: frozenset[Dialect]
    phase: Phase
    off: Value | None = None


_CHANNELS: Final = UInt(1, 16)
_SWITCH: Final = Words((Word(ENGINE_OFF, Engine.OFF), Word(ENGINE_ON, Engine.DMA)))

KNOBS: Final = (
    Knob(
        field=CHANNELS_FIELD,
        group=SettingsGroup.OFFLOAD,
        path=f"{MODULE_DIR}/nr_dma_chan",
        codec=_CHANNELS,
        dialects=frozenset({Dialect.V5}),
        phase=Phase.PARAMETER,
    ),
    Knob(
        field=CHANNELS_FIELD,
        group=SettingsGroup.OFFLOAD,
        path=f"{PARAMETERS_DIR}/nr_dma_chan",
        codec=_CHANNELS,
        dialects=frozenset({Dialect.V6}),
        phase=Phase.PARAMETER,
    ),
    Knob(
        field=REASONS_FIELD,
        group=SettingsGroup.OFFLOAD,
        path=f"{PARAMETERS_DIR}/reason_mask",
        codec=ReasonMask(),
        dialects=frozenset({Dialect.V6}),
        phase=Phase.PARAMETER,
    ),
    Knob(
        field=ENGINE_FIELD,
        group=SettingsGroup.OFFLOAD,
        path=f"{MODULE_DIR}/offloading",
        codec=_SWITCH,
        dialects=frozenset({Dialect.V5}),
        phase=Phase.SWITCH,
        off=ENGINE_OFF,
    ),
    Knob(
        field=ENGINE_FIELD,
        group=SettingsGroup.OFFLOAD,
        path=f"{PARAMETERS_DIR}/offloading",
        codec=_SWITCH,
        dialects=frozenset({Dialect.V6}),
        phase=Phase.SWITCH,
        off=ENGINE_OFF,
    ),
    Knob(
        field="balancing.promoteRateLimitMBps",
        group=SettingsGroup.BALANCING,
        path="/proc/sys/kernel/numa_balancing_promote_rate_limit_MBps",
        codec=UInt(0, (1 << 32) - 1),
        dialects=MAINLINE,
        phase=Phase.PARAMETER,
    ),
    Knob(
        field="balancing.mode",
        group=SettingsGroup.BALANCING,
        path="/proc/sys/kernel/numa_balancing",
        codec=Words(
            (Word("0", BalancingMode.OFF), Word("1", BalancingMode.NORMAL), Word("2", BalancingMode.TIERING)),
            numbers=True,  # 3 is both bits, and the kernel's table lets 4 pass
        ),
        dialects=MAINLINE,
        phase=Phase.SWITCH,
        off=Value("0"),
    ),
    Knob(
        field="demotion.enabled",
        group=SettingsGroup.DEMOTION,
        path="/sys/kernel/mm/numa/demotion_enabled",
        codec=Words((Word("false", "false", "0"), Word("true", "true", "1"))),
        dialects=MAINLINE,
        phase=Phase.SWITCH,
        off=Value("false"),
    ),
)
"""In the order in which people read them, and parameters of a phase are written."""

CODECS: Final = {knob.field: knob.codec for knob in KNOBS}
"""By settings field: how a value is spelled does not depend on where a dialect has its file."""


@dataclass(frozen=True, slots=True)
class Driven:
    """A dialect whose knobs this release writes, beside its rows of the other tables.

    Attributes:
        driver_dir: where files that no table knows would appear.
        fixed_reasons: which migrations are offloaded where no knob says; None where one does.
        risks: known hazards of the dialect itself, each with what happens (promise 5).
    """

    driver_dir: str
    fixed_reasons: frozenset[str] | None = None
    risks: Mapping[AcceptedRisk, str] = field(default_factory=dict)


DRIVEN: Final = {
    Dialect.V5: Driven(
        MODULE_DIR,
        fixed_reasons=frozenset(
            {
                MigrationReason.COMPACTION,
                MigrationReason.SYSCALL_OR_CPUSET,
                MigrationReason.NUMA_MISPLACED,
                MigrationReason.DEMOTION,
            }
        ),
        risks={
            # The copy comes before the last look at the folio's references, and nothing looks again.
            AcceptedRisk.DIRECT_IO_LOST_WRITE: "dialect V5 can lose bytes that direct I/O writes while a folio migrates"
        },
    ),
    Dialect.V6: Driven(PARAMETERS_DIR),
}
"""Dialects of the series whose knobs this release writes."""

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


@dataclass(frozen=True, slots=True)
class Counter:
    """One number to read: a file of the driver, or keys of /proc/vmstat that are added up."""

    name: str
    dialects: frozenset[Dialect]
    path: str = ""
    vmstat_keys: tuple[str, ...] = ()


COUNTERS: Final = (
    Counter("folios_migrated", frozenset({Dialect.V5}), path=f"{MODULE_DIR}/folios_migrated"),
    Counter("folios_failed", frozenset({Dialect.V5}), path=f"{MODULE_DIR}/folios_failures"),
    Counter("folios_migrated", frozenset({Dialect.V6}), path=f"{PARAMETERS_DIR}/folios_migrated"),
    Counter("folios_failed", frozenset({Dialect.V6}), path=f"{PARAMETERS_DIR}/folios_failures"),
    Counter("batches_refused", frozenset({Dialect.F_MID, Dialect.F_EXT}), path=f"{PARAMETERS_DIR}/batches_refused"),
    Counter("folios_refused", frozenset({Dialect.F_EXT}), path=f"{PARAMETERS_DIR}/folios_gated"),
    Counter("pages_migrated", MAINLINE, vmstat_keys=("pgmigrate_success",)),
    Counter("pages_migration_failed", MAINLINE, vmstat_keys=("pgmigrate_fail",)),
    Counter("pages_promoted", MAINLINE, vmstat_keys=("pgpromote_success",)),
    Counter(
        "pages_demoted",
        MAINLINE,
        vmstat_keys=("pgdemote_kswapd", "pgdemote_direct", "pgdemote_khugepaged", "pgdemote_proactive"),
    ),
    Counter("thps_migrated", MAINLINE, vmstat_keys=("thp_migration_success",)),
    Counter("thps_split", MAINLINE, vmstat_keys=("thp_migration_split",)),
)


def knobs_of(dialect: Dialect) -> tuple[Knob, ...]:
    """Return the rows of the knob table for one dialect."""
    return tuple(knob for knob in KNOBS if dialect in knob.dialects)


def counters_of(dialect: Dialect) -> tuple[Counter, ...]:
    """Return the rows of the counter table for one dialect."""
    return tuple(counter for counter in COUNTERS if dialect in counter.dialects)
