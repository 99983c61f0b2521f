# SPDX-License-Identifier: Apache-2.0
"""What the postings say of each dialect, spelled anew for the oracle: files, legal values, reasons, hazards.

Nothing here comes from the agent's own tables; that the two agree is what random histories look for.

Sources: docs/promises.md; kernel/params.c; the postings that ``tests/fakekernel/series.py`` names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from numamigration_api.vocabulary import Dialect

ENGINE, CHANNELS, REASONS = "offload.engine", "offload.channels", "offload.reasons"
MODE, RATE, DEMOTION = "balancing.mode", "balancing.promoteRateLimitMBps", "demotion.enabled"
THREADS, THREAD_COUNT = "offload.engine/CPUThreads", "cpuThreads.count"
PLACEMENT, DIE = "cpuThreads.placement", "cpuThreads.placement/die"
SWITCHES: Final = {ENGINE: "DMA", THREADS: "CPUThreads"}
"""Which engine a switch turns on."""

MAINLINE: Final = {
    MODE: "/proc/sys/kernel/numa_balancing",
    RATE: "/proc/sys/kernel/numa_balancing_promote_rate_limit_MBps",
    DEMOTION: "/sys/kernel/mm/numa/demotion_enabled",
}
V5_DIR, V6_DIR = "/sys/module/dcbm", "/sys/module/dcbm/parameters"
DCBM_DIR, THREADS_DIR, PADATA_DIR = "/sys/kernel/dcbm", "/sys/kernel/cpu_mt", "/sys/kernel/cpu_mt_copy"
V4_FILES: Final = {ENGINE: f"{DCBM_DIR}/offloading", CHANNELS: f"{DCBM_DIR}/nr_dma_chan"}
V6_FILES: Final = {
    ENGINE: f"{V6_DIR}/offloading",
    CHANNELS: f"{V6_DIR}/nr_dma_chan",
    REASONS: f"{V6_DIR}/reason_mask",
}
THREAD_FILES: Final = {
    THREADS: f"{THREADS_DIR}/offloading",
    THREAD_COUNT: f"{THREADS_DIR}/threads",
    DIE: f"{THREADS_DIR}/cpuselect",
}
F_MID_FILES: Final = {
    **V6_FILES,
    "offload.cacheAllocate": f"{V6_DIR}/cache_ctrl",
    "batch.sgElements": f"{V6_DIR}/sg_elems",
}
F_EXT_FILES: Final = {
    **F_MID_FILES,
    "offload.locality": "/sys/module/mm_offload_dma/parameters/cross_node",
    "batch.minSize": f"{V6_DIR}/min_bytes",
    "batch.chunkMinSize": f"{V6_DIR}/min_chunk_bytes",
    "batch.chunkMaxSize": f"{V6_DIR}/max_chunk_bytes",
    "batch.descriptorsPerChannel": f"{V6_DIR}/max_inflight",
    "mapCache.enabled": f"{V6_DIR}/map_cache",
    "mapCache.capMiB": f"{V6_DIR}/map_cache_cap_mb",
    "mapCache.minKiB": f"{V6_DIR}/map_cache_min_kb",
    "mapCache.quantumKiB": f"{V6_DIR}/map_quantum_kb",
}
FILES: Final = {
    Dialect.NO_SERIES: MAINLINE,
    Dialect.V5: {ENGINE: f"{V5_DIR}/offloading", CHANNELS: f"{V5_DIR}/nr_dma_chan", **MAINLINE},
    Dialect.V6: {**V6_FILES, **MAINLINE},
    Dialect.V1: {ENGINE: f"{DCBM_DIR}/offloading", **MAINLINE},
    Dialect.ZY: {
        THREADS: "/proc/sys/vm/use_mt_copy",
        THREAD_COUNT: "/proc/sys/vm/limit_mt_num",
        PLACEMENT: "/proc/sys/vm/push_0_pull_1",
        **MAINLINE,
    },
    Dialect.V2: {**V4_FILES, **THREAD_FILES, **MAINLINE},
    Dialect.V3: {**V4_FILES, **THREAD_FILES, **MAINLINE},
    Dialect.V3_DEV: {**V4_FILES, **THREAD_FILES, **MAINLINE},
    Dialect.V3_PADATA: {THREADS: f"{PADATA_DIR}/offloading", THREAD_COUNT: f"{PADATA_DIR}/threads", **MAINLINE},
    Dialect.V4: {**V4_FILES, **MAINLINE},
    Dialect.V6_SDXI: {**V6_FILES, **MAINLINE},
    Dialect.F_MID: {**F_MID_FILES, **MAINLINE},
    Dialect.F_EXT: {**F_EXT_FILES, **MAINLINE},
}
"""Every file that may ever be written, by dialect."""

LEGAL: Final = {
    ENGINE: r"[01]",
    CHANNELS: r"[1-9]|[12][0-9]|3[0-2]",
    REASONS: r"none|(?!(?:.*,)?(?:all|none)(?:,|$))[a-z_]+(?:,[a-z_]+)*",
    MODE: r"[0-4]",
    RATE: r"0|[1-9][0-9]{0,9}",
    DEMOTION: r"[01]",
    THREADS: r"[01]",
}
NUMBER_OR_BOOLEAN: Final = r"0|[1-9][0-9]{0,9}|[YN]"
BALANCING: Final = {"Off": "0", "Normal": "1", "Tiering": "2"}

ONLY_TURNED_OFF: Final = frozenset({Dialect.V1, Dialect.V2, Dialect.V3_DEV, Dialect.V3_PADATA, Dialect.F_MID})
"""Nothing is ever turned on there: one waits for ever, the others were measured slower or never posted."""
LIKE_V6: Final = frozenset({Dialect.V6, Dialect.V6_SDXI})
"""The same files: only the engines of the host tell which one it is taken for."""
LIKE_V3: Final = frozenset({Dialect.V2, Dialect.V3, Dialect.V3_DEV})
"""Without the driver they have the files of V3's copy threads, and nothing else."""
CHANNELS_MAX: Final = {Dialect.V6_SDXI: 1, Dialect.F_EXT: 32}
"""What ``nr_dma_chan`` takes; 16 elsewhere."""
FIXED_REASONS: Final = {Dialect.V5: frozenset({"compaction", "syscall_or_cpuset", "demotion", "numa_misplaced"})}
"""Reasons that cannot be chosen and are known. Without a reason_mask, elsewhere, nobody has written them down."""
OUT_OF_ORDER_HARMS: Final = frozenset({Dialect.V3, Dialect.V4, Dialect.V5, Dialect.V6, Dialect.V6_SDXI})
"""They take the last descriptor's completion for that of all; F-ext looks at each one."""
TRIAL_REASONS: Final = ({"mempolicy_mbind"}, {"syscall_or_cpuset"})
"""What may be offloaded while an engine is tried: one reason that a program can cause."""
KEEPS_CHANNELS: Final = frozenset({Dialect.V1, Dialect.F_MID, Dialect.F_EXT, Dialect.V6_SDXI})
"""in_use is 1 there all the time."""
COUNTS_FAILURES: Final = frozenset({Dialect.V4, Dialect.V5, Dialect.V6, Dialect.V6_SDXI, Dialect.F_EXT})

USABLE: Final = frozenset({"ptdma", "ae4dma", "idxd", "ioatdma"})
COPYING: Final = USABLE | {"sdxi"}
SHARED: Final = frozenset({"ioatdma", "sdxi"})
OUT_OF_ORDER: Final = frozenset({"idxd"})
SERIES_GROUPS: Final = frozenset({"offload", "batch", "cpuThreads", "mapCache"})
"""Groups that change together."""


def knob_path(dialect: Dialect, name: str) -> str:
    """Return the file of a settings field; empty when this dialect has none."""
    return FILES[dialect].get(name, "")


def taken_for(dialect: Dialect, drivers: set[str], *, has_driver: bool) -> Dialect:
    """Return what a kernel looks like with these DMA engines, with its driver or without."""
    if dialect in LIKE_V6:
        return Dialect.V6_SDXI if drivers & COPYING == {"sdxi"} else Dialect.V6
    return Dialect.V3 if dialect in LIKE_V3 and not has_driver else dialect


def usable_drivers(seen: Dialect, drivers: set[str]) -> set[str]:
    """Return which of a host's engines can copy, by what its kernel looks like."""
    return drivers & (USABLE | ({"sdxi"} if seen is Dialect.V6_SDXI else set()))


def asked_reasons(settings: Mapping[str, Any]) -> set[str]:
    """Return the migration reasons that may be offloaded; without a list every one but memory_failure."""
    every = {
        *("compaction", "memory_hotplug", "syscall_or_cpuset", "mempolicy_mbind", "numa_misplaced"),
        *("contig_range", "longterm_pin", "demotion", "damon", "never_migrated"),
    }
    return set(settings["reasons"]) if "reasons" in settings else every


def hazards(
    dialect: Dialect, drivers: set[str], wish: Mapping[str, Any], known: set[str], *, built_in: bool
) -> set[str]:
    """Return the risks that a wish has to name before its engine goes on.

    Args:
        dialect: what kernel it is.
        drivers: of the DMA engines that can copy.
        wish: for offload, with an engine to turn on.
        known: reasons that this kernel can have; of those it does not know nothing is offloaded.
        built_in: the driver is part of the kernel image.
    """
    settings, found = wish["settings"], set[str]()
    by_dma, mask = settings["engine"] == "DMA", REASONS in FILES[dialect]
    if by_dma and drivers & OUT_OF_ORDER and dialect in OUT_OF_ORDER_HARMS:
        found.add("OutOfOrderEngine")
    if by_dma and drivers & SHARED:
        found.add("SharedEngine")
    if dialect in {Dialect.V4, Dialect.V5}:
        found.add("DirectIOLostWrite")
    if built_in:
        found.add("BuiltInDriverStall")
    unknown = not mask and dialect not in FIXED_REASONS
    if ("reasons" not in settings and unknown) or (mask and "memory_failure" in asked_reasons(settings) & known):
        found.add("MemoryFailureOffload")
    return found | ({"UnverifiedEngine"} if wish["verification"] == "Off" else set())
