# SPDX-License-Identifier: Apache-2.0
"""Migrates folios on paper: what a workload does to the driver's counters and to /proc/vmstat in some seconds.

* ``folios_migrated`` counts folios copied by DMA, not pages, not bytes, and not whether their migration then worked.
* A batch that gets no channel is copied by CPU, and nothing tells: no counter, no log line, ``offloading`` still 1.
* A batch whose engine reports an error adds all its folios to ``folios_failures``; the CPU copies them.
* Shares and rates are exact over time: what is not yet a whole folio is carried over. Nothing is left to chance.

Sources: mm/migrate.c (NR_MAX_BATCHED_MIGRATION); mm/vmscan.c (demotion); kernel/sched/fair.c (promotion rate limit);
"mm: batch migration copy offload" RFC v6. Folios per call were seen on a 7.3-rc7 kernel carrying that series.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from numamigration_api.vocabulary import MigrationReason
from tests.fakekernel.config import Workload
from tests.fakekernel.layout import CHANNELS_MAX, NORMAL, SERIES, TIERING
from tests.fakekernel.state import Dcbm, KernelState

FOLIOS_PER_CALL: Final[dict[MigrationReason, int]] = {
    MigrationReason.COMPACTION: 32,
    MigrationReason.MEMORY_FAILURE: 1,
    MigrationReason.MEMORY_HOTPLUG: 512,
    MigrationReason.SYSCALL_OR_CPUSET: 512,
    MigrationReason.MEMPOLICY_MBIND: 512,
    MigrationReason.NUMA_MISPLACED: 1,
    MigrationReason.CONTIG_RANGE: 32,
    MigrationReason.LONGTERM_PIN: 1,
    MigrationReason.DEMOTION: 32,
    MigrationReason.DAMON: 475,
}
"""How many folios the kernel's callers hand over at once; the batch ceiling may cut that."""

SYNCHRONOUS_CALLERS: Final = frozenset(
    {
        MigrationReason.COMPACTION,
        MigrationReason.MEMORY_FAILURE,
        MigrationReason.MEMORY_HOTPLUG,
        MigrationReason.SYSCALL_OR_CPUSET,
        MigrationReason.MEMPOLICY_MBIND,
        MigrationReason.CONTIG_RANGE,
        MigrationReason.LONGTERM_PIN,
    }
)
"""They try folios that did not migrate a second time, one by one; the others give up after the first pass.
Compaction's mode varies; here it is kcompactd's."""

THP_PAGES: Final = 512
PAGES_PER_MB: Final = 1 << (20 - 12)
ROUNDING: Final = 1e-9
"""Rates times seconds are floats; this much short of a whole folio is a whole folio."""


class Carry:
    """Hands out whole numbers of something that comes in fractions, and keeps the rest."""

    def __init__(self) -> None:
        self._rest = 0.0

    def take(self, amount: float) -> int:
        """Add `amount`, take out what is whole."""
        self._rest += amount
        whole = math.floor(self._rest + ROUNDING)
        self._rest -= whole
        return whole


@dataclass
class Flow:
    """A workload and the fractions it still owes."""

    workload: Workload
    folios: Carry = field(default_factory=Carry)
    eligible: Carry = field(default_factory=Carry)
    failing: Carry = field(default_factory=Carry)
    pinned: Carry = field(default_factory=Carry)
    engine_errors: Carry = field(default_factory=Carry)
    promotable_pages: float = 0.0


def migrate(state: KernelState, flow: Flow, seconds: float) -> None:
    """Let one workload run for some seconds."""
    workload = flow.workload
    wanted = flow.folios.take(workload.folios_per_second * seconds)
    folios = _admitted(state, flow, wanted, seconds)
    pinned = flow.pinned.take(folios * workload.pinned_share)
    eligible = flow.eligible.take((folios - pinned) * workload.eligible_share)
    if state.dcbm and _offloads(state, state.dcbm, workload):
        _offload(state, state.dcbm, flow, eligible + _copied_in_vain(state, workload, pinned))
    _count(state, flow, folios, pinned)


def _copied_in_vain(state: KernelState, workload: Workload, pinned: int) -> int:
    """Return how often folios that cannot migrate are handed to the engine: in every pass, or never."""
    if not SERIES[state.config.dialect].copies_pinned:
        return 0
    return pinned * (2 if workload.reason in SYNCHRONOUS_CALLERS else 1)


def _admitted(state: KernelState, flow: Flow, folios: int, seconds: float) -> int:
    """Return how many of these folios the kernel's own settings let migrate."""
    match flow.workload.reason:
        case MigrationReason.DEMOTION:
            return folios if state.demotion_enabled and state.tiered else 0
        case MigrationReason.NUMA_MISPLACED if flow.workload.promotion:
            return _promoted(state, flow, folios, seconds)
        case MigrationReason.NUMA_MISPLACED:
            return folios if state.numa_balancing & NORMAL else 0
        case _:
            return folios


def _promoted(state: KernelState, flow: Flow, folios: int, seconds: float) -> int:
    if not (state.numa_balancing & TIERING and state.tiered):
        return 0
    pages = flow.workload.folio_pages
    state.vmstat["pgpromote_candidate"] += folios * pages
    per_second = state.promote_rate_limit * PAGES_PER_MB
    # What was not used within a second is lost, but one folio always fits in unless the limit is 0.
    kept = min(flow.promotable_pages, max(per_second, pages if per_second else 0))
    flow.promotable_pages = kept + per_second * seconds
    promoted = min(folios, int(flow.promotable_pages / pages + ROUNDING))
    flow.promotable_pages -= promoted * pages
    return promoted


def _offloads(state: KernelState, dcbm: Dcbm, workload: Workload) -> bool:
    if workload.hugetlb or not dcbm.offloading:
        return False
    chosen = {name for bit, name in enumerate(state.config.reason_names) if dcbm.reason_mask >> bit & 1}
    return workload.reason.value in chosen


def _offload(state: KernelState, dcbm: Dcbm, flow: Flow, folios: int) -> None:
    """Copy batches by DMA as far as channels reach; tasks ask for channels in turn and hold them at the same time."""
    workload = flow.workload
    per_batch = batch_folios(workload, state.config.batch_ceiling_pages)
    free = _free_channels(state)
    for task in range(workload.concurrency):
        share = (folios + task) // workload.concurrency
        wanted = min(dcbm.nr_dma_chan, share, per_batch, CHANNELS_MAX)
        granted, free = free[:wanted], free[wanted:]
        if granted:
            _copy(dcbm, flow, share, per_batch, error_share=max(granted))


def batch_folios(workload: Workload, ceiling_pages: int) -> int:
    """Return the folios of one full batch; it is cut after the folio that reaches the ceiling."""
    return min(FOLIOS_PER_CALL[workload.reason], math.ceil(ceiling_pages / workload.folio_pages))


def _free_channels(state: KernelState) -> list[float]:
    """Return the error share of every channel the driver can have, in dmaengine's order."""
    return [
        engine.error_share
        for engine in state.engines
        if engine.memcpy
        for _ in range(max(0, engine.channels - engine.taken))
    ]


def _copy(dcbm: Dcbm, flow: Flow, folios: int, per_batch: int, *, error_share: float) -> None:
    full, rest = divmod(folios, per_batch)
    failures = flow.engine_errors.take(full * error_share) * per_batch
    if rest:
        failures += flow.engine_errors.take(error_share) * rest
    dcbm.folios_failures += failures
    dcbm.folios_migrated += folios - failures


def _count(state: KernelState, flow: Flow, folios: int, pinned: int) -> None:
    workload = flow.workload
    failed = pinned + flow.failing.take((folios - pinned) * workload.fail_share)
    moved = folios - failed
    pages = workload.folio_pages
    state.vmstat["pgmigrate_success"] += moved * pages
    state.vmstat["pgmigrate_fail"] += failed * pages
    if pages == THP_PAGES and not workload.hugetlb:
        state.vmstat["thp_migration_success"] += moved
        state.vmstat["thp_migration_fail"] += failed
    for name, amount in _counted_by_reason(workload, folios, moved * pages).items():
        state.vmstat[name] += amount


def _counted_by_reason(workload: Workload, folios: int, moved_pages: int) -> dict[str, int]:
    match workload.reason:
        case MigrationReason.NUMA_MISPLACED:
            promoted = {"pgpromote_success": moved_pages} if workload.promotion else {}
            return {"numa_hint_faults": folios, "numa_pages_migrated": moved_pages, **promoted}
        case MigrationReason.DEMOTION:
            return {"pgdemote_direct" if workload.direct else "pgdemote_kswapd": moved_pages}
        case MigrationReason.COMPACTION:
            return {"compact_isolated": folios * workload.folio_pages}
        case _:
            return {}
