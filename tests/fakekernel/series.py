# SPDX-License-Identifier: Apache-2.0
"""Every state of the series that can be faked: one entry of ``SERIES`` each, and nothing elsewhere.

A new one is its files and, where it behaves like none before, a new field of ``files.Series``. Only V5 and V6 were seen
running; the others were read as patches, and what a patch leaves open is taken from the posting next to it:

* V4: everything that its files do not show is V5's, its fixed list of reasons too.
* V3-padata: its switch answers as ``cpu_mt/offloading`` of V3 does.
* What the forks do when their held channels are busy, and that a batch without a channel is then in
  ``batches_refused``; that ``cross_node`` and ``map_quantum_kb`` take any number. Where a channel is (``cross_node``)
  and the IOMMU map cache have no effect here.
* V1 to V3 were posted as part of the kernel image (a bool in Kconfig): that form is ``built_in``. Here they can be
  modules too, whose files come and go.

Sources: "Enhancements to Page Migration with Batch Offloading via DMA", June 2024 (V1); "Accelerate page migration with
batching and multi threads", January 2025 (ZY); the postings of March 2025 (V2), September 2025 (V3), March 2026 (V4),
April 2026 (V5) and June 2026 (V6) and their author's tree; the trees of AMDESE (V6-SDXI), x-y-z (V3-padata) and byrnedj
(forks).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from numamigration_api.vocabulary import Dialect, MigrationReason
from tests.fakekernel import dma
from tests.fakekernel.config import Caller
from tests.fakekernel.files import (
    BUILT_IN_LOCK,
    SIZE_OF_INT,
    Busy,
    Hold,
    Kind,
    Lines,
    Row,
    Series,
    Store,
    counter,
    fixed,
    kernel_number,
    number,
    own_mutex,
    parameter,
    signed,
    sysctl,
    truth,
    uevent,
    unsigned,
)
from tests.fakekernel.parsing import format_reason_mask, kstrtobool, kstrtoint, kstrtouint, kstrtoul, parse_reason_mask
from tests.fakekernel.state import KernelState

DRIVER: Final = "/sys/module/dcbm"
PARAMETERS: Final = f"{DRIVER}/parameters"
KERNEL_FOLDER: Final = "/sys/kernel/dcbm"
CPU_FOLDER: Final = "/sys/kernel/cpu_mt"
PROVIDER_PARAMETERS: Final = "/sys/module/mm_offload_dma/parameters"
VM: Final = "/proc/sys/vm"
KIB: Final = 1 << 10
FOLIOS: Final = ("folios_migrated", "folios_failures")

FOUR_REASONS: Final = frozenset(
    {
        MigrationReason.COMPACTION,
        MigrationReason.SYSCALL_OR_CPUSET,
        MigrationReason.DEMOTION,
        MigrationReason.NUMA_MISPLACED,
    }
)

# The driver's files.


def _offloading(folder: str, mode: int = 0o644, store: Store = dma.store_switch) -> Row:
    return Row(f"{folder}/offloading", mode, Kind.SYSFS, lambda state: b"%d\n" % state.driver.offloading, store)


def _channels(folder: str, mode: int = 0o644, store: Store = dma.store_channels) -> Row:
    return Row(f"{folder}/nr_dma_chan", mode, Kind.SYSFS, lambda state: b"%d\n" % state.driver.nr_dma_chan, store)


def _counters(folder: str, names: tuple[str, str] = FOLIOS, shown: Callable[[int], int] = unsigned) -> tuple[Row, Row]:
    migrated, failures = names
    return (
        Row(
            f"{folder}/{migrated}",
            0o644,
            Kind.SYSFS,
            lambda state: b"%d\n" % shown(state.driver.folios_migrated),
            _reset_migrated,
        ),
        Row(
            f"{folder}/{failures}",
            0o644,
            Kind.SYSFS,
            lambda state: b"%d\n" % shown(state.driver.folios_failures),
            _reset_failures,
        ),
    )


def _reset_migrated(state: KernelState, _data: bytes, _caller: Caller) -> None:
    state.driver.folios_migrated = 0


def _reset_failures(state: KernelState, _data: bytes, _caller: Caller) -> None:
    state.driver.folios_failures = 0


def _store_reason_mask(state: KernelState, data: bytes, _caller: Caller) -> None:
    state.driver.reason_mask = parse_reason_mask(data, state.config.reason_names)


REASON_MASK: Final = Row(
    f"{PARAMETERS}/reason_mask",
    0o644,
    Kind.SYSFS,
    lambda state: format_reason_mask(state.driver.reason_mask, state.config.reason_names),
    _store_reason_mask,
)


def _mutex_rows(folder: str) -> tuple[Row, ...]:
    """Return the files of V4 and V5, whose stores take a mutex of the driver."""
    return (
        own_mutex(_offloading(folder), lambda _, data: kstrtobool(data)),
        own_mutex(_channels(folder), dma.channel_count),
        *_counters(folder),
    )


def _parameters(*more: Row, channels: Store = dma.store_channels) -> tuple[Row, ...]:
    """Return the files of V6, which are parameters, and what a descendant adds."""
    rows = (
        _offloading(PARAMETERS),
        _channels(PARAMETERS, store=channels),
        *_counters(PARAMETERS, shown=signed),
        REASON_MASK,
        *more,
    )
    return tuple(parameter(row) for row in rows)


def _at_least_one(data: bytes) -> int:
    return max(1, kstrtouint(data))


MAP_CACHE_STATS: Final = (
    *("quantum_kb", "covered_kb", "hits", "misses", "inserts"),
    *("insert_fails", "range_fallbacks", "evictions", "ref_skips"),
)


def _map_cache_stats(state: KernelState) -> bytes:
    zeroes = " ".join(f"{name}=0" for name in MAP_CACHE_STATS)
    engines = sorted({engine for engine, _ in state.driver.held})
    return "".join(f"dma{engine} {zeroes}\n" for engine in engines).encode() or b"none\n"


def _flush(_state: KernelState, _data: bytes, _caller: Caller) -> None:
    """Forget what the map cache holds, of which nothing is kept here."""


EXTENDED_ROWS: Final = (
    *(
        counter(f"{PARAMETERS}/{name}")
        for name in ("batches_refused", "folios_cleared", "clear_failures", "folios_gated")
    ),
    *(truth(f"{PARAMETERS}/{name}", initial=True) for name in ("cpu_warm", "util_gate", "cache_ctrl")),
    *(truth(f"{PARAMETERS}/{name}", initial=True) for name in ("map_cache", "map_cache_clear")),
    number(f"{PARAMETERS}/max_inflight", 32, parse=_at_least_one),
    number(f"{PARAMETERS}/sg_elems", 32),
    number(f"{PARAMETERS}/min_clear_bytes", 2048 * KIB, parse=kstrtoul),
    number(f"{PARAMETERS}/min_chunk_bytes", 256 * KIB, parse=kstrtoul),
    number(f"{PARAMETERS}/max_chunk_bytes", 2048 * KIB, parse=kstrtoul),
    number(f"{PARAMETERS}/min_bytes", 32 * KIB, parse=kstrtoul),
    number(f"{PARAMETERS}/map_cache_cap_mb", 4096),
    number(f"{PARAMETERS}/map_cache_min_kb", 64),
    number(f"{PARAMETERS}/map_quantum_kb", 0),
    Row(f"{PARAMETERS}/map_cache_stats", 0o644, Kind.SYSFS, _map_cache_stats, _flush),
)

V3_LINES: Final = Lines(
    loaded="",
    unloaded="",
    on=("starting migration offload by DCBM", "migration offloading is now ON"),
    off=("stopping migration offload by DCBM", "migration offloading is now OFF"),
    repeated="migration offloading is already {state}",
    failed="DCBM: Falling back to CPU copy",
    failed_limited=False,
)
OLD_LINES: Final = Lines(
    loaded="",
    unloaded="",
    on=("starting migration offload by DCBM",),
    off=("stopping migration offload by DCBM",),
    no_channel="Error requesting DMA channel",
    failed="",
)
V6_LINES: Final = Lines(on=("migrate_offload: enabled by DCBM (reason_mask=0x{mask:x})",))
EXTENDED_LINES: Final = Lines(
    on=(
        "mm_offload_dma: {held} channel(s) in {engines} group(s), 1 user(s)",
        "mm_offload: enabled by DCBM",
    ),
    off=("mm_offload: disabled by DCBM", "mm_offload_dma: channels released"),
    refused="mm_offload: DCBM: failed to register (-{error})",
)
SDXI_LINES: Final = V6_LINES._replace(
    failed="dcbm: DMA copy failed (-{error}) after {done}/{folios} folios; CPU fallback for the rest"
)

# Series whose migrators take each other's place.

OLD: Final = Series(exclusive=False, turn_off_waits=False)
THREADS_SYMBOLS: Final = ("CONFIG_OFFC_MIGRATION", "CONFIG_MTCOPY_CPU")
CPU_SELECT: Final = kernel_number(f"{CPU_FOLDER}/cpuselect", 0, mode=0o664, parse=kstrtoint)
V3: Final = OLD._replace(
    rows=(_offloading(KERNEL_FOLDER), _channels(KERNEL_FOLDER)),
    kernel_rows=dma.cpu_threads(CPU_FOLDER, 0o664),
    test_rows=(*dma.cpu_threads(CPU_FOLDER, 0o664, threads_max=32), CPU_SELECT),
    symbols=THREADS_SYMBOLS,
    lines=V3_LINES,
)
COPY_OFFLOAD: Final = ("CONFIG_MIGRATION_COPY_OFFLOAD",)
V6: Final = Series(_parameters(), symbols=COPY_OFFLOAD, lines=V6_LINES)

SERIES: Final[dict[Dialect, Series]] = {
    Dialect.NO_SERIES: Series(),
    Dialect.V1: OLD._replace(
        rows=(_offloading(KERNEL_FOLDER, 0o664, dma.store_int_switch)._replace(returns=SIZE_OF_INT),),
        symbols=("CONFIG_DMA_MIGRATION",),
        base_pages_only=True,
        holds_module=False,
        hold=Hold.WHILE_ON,
        lines=OLD_LINES,
    ),
    Dialect.ZY: OLD._replace(
        kernel_rows=(
            dma.thread_sysctl(f"{VM}/use_mt_copy"),
            sysctl(f"{VM}/limit_mt_num", 4, 1, 64),
            sysctl(f"{VM}/push_0_pull_1", 0, 0, 1),
        ),
    ),
    Dialect.V2: OLD._replace(
        rows=(
            _offloading(KERNEL_FOLDER, 0o664, dma.store_int_switch)._replace(returns=SIZE_OF_INT),
            _channels(KERNEL_FOLDER, 0o664, dma.store_clamped_channels)._replace(returns=SIZE_OF_INT),
        ),
        kernel_rows=dma.cpu_threads(CPU_FOLDER, 0o664),
        test_rows=(CPU_SELECT,),
        symbols=THREADS_SYMBOLS,
        holds_module=False,
        lines=OLD_LINES,
    ),
    Dialect.V3: V3,
    Dialect.V3_DEV: V3._replace(rows=(*V3.rows, *_counters(KERNEL_FOLDER, ("pages_migrated", "pages_failures")))),
    Dialect.V3_PADATA: OLD._replace(
        kernel_rows=dma.cpu_threads("/sys/kernel/cpu_mt_copy", 0o644), symbols=THREADS_SYMBOLS
    ),
    Dialect.V4: Series(
        _mutex_rows(KERNEL_FOLDER),
        symbols=COPY_OFFLOAD,
        fixed_reasons=FOUR_REASONS,
        may_be_built_in=False,
        copies_pinned=True,
    ),
    Dialect.V5: Series(
        _mutex_rows(DRIVER),
        symbols=COPY_OFFLOAD,
        fixed_reasons=FOUR_REASONS,
        may_be_built_in=False,
        copies_pinned=True,
    ),
    Dialect.V6: V6,
    Dialect.V6_SDXI: V6._replace(
        hold=Hold.WHILE_LOADED, public_channels=True, channels_max=1, piece_folios=512, lines=SDXI_LINES
    ),
    Dialect.F_MID: V6._replace(
        rows=_parameters(
            counter(f"{PARAMETERS}/batches_refused"),
            number(f"{PARAMETERS}/sg_elems", 32),
            truth(f"{PARAMETERS}/cache_ctrl", initial=True),
            channels=dma.store_channels_while_off,
        ),
        hold=Hold.WHILE_ON,
        busy=Busy.REFUSED,
        channel_seconds_max=float("inf"),
    ),
    Dialect.F_EXT: V6._replace(
        rows=_parameters(*EXTENDED_ROWS),
        kernel_rows=(
            *(
                parameter(row, BUILT_IN_LOCK)
                for row in (
                    kernel_number(f"{PROVIDER_PARAMETERS}/cross_node", 0, parse=kstrtouint),
                    fixed(f"{PROVIDER_PARAMETERS}/shared", "N"),
                )
            ),
            uevent("/sys/module/mm_offload_dma"),
        ),
        symbols=("CONFIG_MM_OFFLOAD",),
        hold=Hold.WHILE_ON,
        holds_all=True,
        busy=Busy.GATED,
        channels_initial=16,
        channels_max=32,
        lines=EXTENDED_LINES,
    ),
}
"""Dialects that can be faked."""
