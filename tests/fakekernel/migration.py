# SPDX-License-Identifier: Apache-2.0
"""Migrates folios on paper: what a workload does to the driver's counters and to /proc/vmstat in some seconds.

* ``folios_migrated`` counts folios copied by DMA, not pages, not bytes, and not whether their migration then worked.
* A batch that gets no channel is copied by CPU, and nothing tells: no counter, no log line, ``offloading`` still 1.
* A batch whose engine reports an error adds all its folios to ``folios_failures``; the CPU copies them.
* An engine that copies wrong and reports success shows in no counter of the kernel; ``corrupted_pages`` is ours.
* Shares and rates are exact over time: what is not yet a whole folio is carried over. Nothing is left to chance.
* Batches take no time unless their engine does. Where it does, a workload's tasks hand over one batch each, full ones,
  and go on together when the last is over; what they would have migrated meanwhile is not made up for.

Sources: mm/migrate.c (NR_MAX_BATCHED_MIGRATION); mm/vmscan.c (demotion); kernel/sched/fair.c (promotion rate limit);
"mm: batch migration copy offload" RFC v6. Folios per call were seen on a 7.3-rc7 kernel carrying that series.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from errno import ETIMEDOUT
from typing import Final

from numamigration_api.vocabulary import MigrationReason
from tests.fakekernel.config import DmaEngine, Workload
from tests.fakekernel.layout import CHANNELS_MAX, NORMAL, SERIES, TIERING
from tests.fakekernel.state import Batch, Channel, KernelState

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

CHANNEL_SECONDS_MAX: Final = 10.0
"""How long dcbm waits for each channel."""
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

    def missing(self, amount: int) -> float:
        """Return what must be added to take out `amount`."""
        return amount - self._rest


@dataclass
class Round:
    """One batch per task of a workload, and what of it is in flight."""

    folios: int
    pinned: int
    batches: list[Batch]


@dataclass
class Flow:
    """A workload, the fractions it still owes, and the round its tasks wait for."""

    workload: Workload
    once: int | None = None
    """Folios that are left to migrate of a program that does it once; None: it goes on for ever, at its rate."""
    due: int = 0
    """Whole folios that wait for a batch to become full."""
    round: Round | None = None
    folios: Carry = field(default_factory=Carry)
    eligible: Carry = field(default_factory=Carry)
    failing: Carry = field(default_factory=Carry)
    pinned: Carry = field(default_factory=Carry)
    retried: Carry = field(default_factory=Carry)
    engine_errors: Carry = field(default_factory=Carry)
    wrong_folios: Carry = field(default_factory=Carry)
    promotable_pages: float = 0.0

    @property
    def over(self) -> bool:
        """Whether a program that migrates once has ended."""
        return self.once == 0 and not self.due and self.round is None

    def stop(self) -> None:
        """End with the round under way."""
        self.once = self.due = 0


def let_time_pass(state: KernelState, flow: Flow, seconds: float) -> None:
    """Make folios due; whose batches are in flight waits for them."""
    _refill(state, flow, seconds)
    if flow.once is None and flow.round is None:
        flow.due += flow.folios.take(flow.workload.folios_per_second * seconds)


def hand_over(state: KernelState, flow: Flow) -> None:
    """Migrate what is due; an engine that takes time gets full batches only, one per task."""
    if flow.once and flow.round is None:
        flow.due, flow.once = flow.due + flow.once, 0
    if flow.round is not None or not flow.due:
        return
    if not _takes_time(state, flow):
        _migrate_at_once(state, flow)
    elif flow.once is not None or flow.due >= _round_folios(state, flow):
        _begin_round(state, flow)


def _migrate_at_once(state: KernelState, flow: Flow) -> None:
    folios, flow.due = _admitted(state, flow, flow.due), 0
    pinned, copies = _copies(state, flow, folios)
    for channels, share in _tasks(state, flow, copies):
        if channels:
            _copy_at_once(state, flow, channels, share)
    _count(state, flow, folios, pinned)


def _begin_round(state: KernelState, flow: Flow) -> None:
    taken = min(flow.due, _round_folios(state, flow))
    flow.due -= taken
    folios = _admitted(state, flow, taken)
    pinned, copies = _copies(state, flow, folios)
    batches = [_batch(state, flow, channels, share) for channels, share in _tasks(state, flow, copies) if channels]
    flow.round = Round(folios, pinned, batches)
    state.batches.extend(batches)


def next_event(state: KernelState, flow: Flow) -> float:
    """Return when a batch ends or the next round begins; infinity when neither is to come."""
    if flow.round is not None:
        return min((batch.ends_at for batch in flow.round.batches), default=state.now)
    rate = flow.workload.folios_per_second
    if flow.once is not None or not rate or not _takes_time(state, flow):
        return math.inf
    return state.now + max(0.0, flow.folios.missing(_round_folios(state, flow) - flow.due) / rate)


def end_batches(state: KernelState, flow: Flow) -> None:
    """Take the results of the batches whose time has come; the tasks of a workload go on together."""
    if flow.round is None:
        return
    over = [batch for batch in flow.round.batches if batch.ends_at <= state.now + ROUNDING]
    for batch in over:
        flow.round.batches.remove(batch)
        state.batches.remove(batch)
        _take_result(state, batch)
    if not flow.round.batches:
        done, flow.round = flow.round, None
        _count(state, flow, done.folios, done.pinned)


def _copies(state: KernelState, flow: Flow, folios: int) -> tuple[int, int]:
    """Return how many folios are pinned, and how many copies the driver is asked for."""
    workload = flow.workload
    pinned = flow.pinned.take(folios * workload.pinned_share)
    eligible = flow.eligible.take((folios - pinned) * workload.eligible_share)
    if not _offloads(state, workload):
        return pinned, 0
    synchronous = workload.reason in SYNCHRONOUS_CALLERS
    twice = flow.retried.take(eligible * workload.retried_share) if synchronous else 0
    return pinned, eligible + twice + _copied_in_vain(state, workload, pinned)


def _copied_in_vain(state: KernelState, workload: Workload, pinned: int) -> int:
    """Return how often folios that cannot migrate are handed to the engine: in every pass, or never."""
    if not SERIES[state.config.dialect].copies_pinned:
        return 0
    return pinned * (2 if workload.reason in SYNCHRONOUS_CALLERS else 1)


def _admitted(state: KernelState, flow: Flow, folios: int) -> int:
    """Return how many of these folios the kernel's own settings let migrate."""
    match flow.workload.reason:
        case MigrationReason.DEMOTION:
            return folios if state.demotion_enabled and state.tiered else 0
        case MigrationReason.NUMA_MISPLACED if flow.workload.promotion:
            return _promoted(state, flow, folios)
        case MigrationReason.NUMA_MISPLACED:
            return folios if state.numa_balancing & NORMAL else 0
        case _:
            return folios


def _refill(state: KernelState, flow: Flow, seconds: float) -> None:
    pages = flow.workload.folio_pages
    per_second = state.promote_rate_limit * PAGES_PER_MB
    # What was not used within a second is lost, but one folio always fits in unless the limit is 0.
    kept = min(flow.promotable_pages, max(per_second, pages if per_second else 0))
    flow.promotable_pages = kept + per_second * seconds


def _promoted(state: KernelState, flow: Flow, folios: int) -> int:
    if not (state.numa_balancing & TIERING and state.tiered):
        return 0
    pages = flow.workload.folio_pages
    state.vmstat["pgpromote_candidate"] += folios * pages
    promoted = min(folios, int(flow.promotable_pages / pages + ROUNDING))
    flow.promotable_pages -= promoted * pages
    return promoted


def _offloads(state: KernelState, workload: Workload) -> bool:
    dcbm = state.dcbm
    if dcbm is None or workload.hugetlb or not dcbm.offloading or dcbm.turning_off:
        return False
    chosen = {name for bit, name in enumerate(state.config.reason_names) if dcbm.reason_mask >> bit & 1}
    return workload.reason.value in chosen


def _tasks(state: KernelState, flow: Flow, folios: int) -> Iterator[tuple[list[Channel], int]]:
    """Yield each task's channels and folios; tasks ask for channels in turn and hold them at the same time."""
    workload = flow.workload
    free = free_channels(state)
    for task in range(workload.concurrency if folios else 0):
        share = (folios + task) // workload.concurrency
        wanted = min(state.driver.nr_dma_chan, share, _batch_folios(state, flow), CHANNELS_MAX)
        channels, free = free[:wanted], free[wanted:]
        yield channels, share


def _takes_time(state: KernelState, flow: Flow) -> bool:
    if not _offloads(state, flow.workload):
        return False
    return any(
        channel.device.hangs or channel.device.copy_seconds
        for channels, _ in _tasks(state, flow, _round_folios(state, flow))
        for channel in channels
    )


def _round_folios(state: KernelState, flow: Flow) -> int:
    return _batch_folios(state, flow) * flow.workload.concurrency


def _batch_folios(state: KernelState, flow: Flow) -> int:
    return batch_folios(flow.workload, state.config.batch_ceiling_pages)


def batch_folios(workload: Workload, ceiling_pages: int) -> int:
    """Return the folios of one full batch; it is cut after the folio that reaches the ceiling."""
    return min(FOLIOS_PER_CALL[workload.reason], math.ceil(ceiling_pages / workload.folio_pages))


def free_channels(state: KernelState) -> list[Channel]:
    """Return every channel that the driver can have, in dmaengine's order."""
    return [
        Channel(engine, number, device)
        for engine, device in enumerate(state.engines)
        if device.memcpy and not (device.public and state.dmaengine_users)
        for number in range(device.channels)
        if not state.in_use(engine, number)
    ]


def _batch(state: KernelState, flow: Flow, channels: list[Channel], folios: int) -> Batch:
    seconds, timed_out = _wait_for(channels)
    error = ETIMEDOUT if timed_out else _failing(channels).error_number
    failed = timed_out or flow.engine_errors.take(_failing(channels).error_share)
    return Batch(
        channels,
        folios,
        wrong_pages=0 if failed else _wrong_pages(flow, channels, folios),
        error=error if failed else 0,
        ends_at=state.now + seconds,
    )


def _wait_for(channels: Iterable[Channel]) -> tuple[float, bool]:
    """Return how long a batch takes and whether it timed out: the driver waits for its channels one after the other."""
    waited = 0.0
    for _, _, device in channels:
        if device.hangs or device.copy_seconds > waited + CHANNEL_SECONDS_MAX:
            return waited + CHANNEL_SECONDS_MAX + device.terminate_seconds, True
        waited = max(waited, device.copy_seconds)
    return waited, False


def _failing(channels: list[Channel]) -> DmaEngine:
    """Return the worst engine: one that fails is enough to fail a batch."""
    return max((channel.device for channel in channels), key=lambda device: device.error_share)


def _wrong_pages(flow: Flow, channels: list[Channel], folios: int) -> int:
    share = sum(channel.device.wrong_share for channel in channels) / len(channels)
    return flow.wrong_folios.take(folios * share) * flow.workload.folio_pages


def _copy_at_once(state: KernelState, flow: Flow, channels: list[Channel], folios: int) -> None:
    """Copy any number of batches, which take no time."""
    worst, per_batch = _failing(channels), _batch_folios(state, flow)
    full, rest = divmod(folios, per_batch)
    failed = flow.engine_errors.take(full * worst.error_share)
    failures = failed * per_batch
    if rest and flow.engine_errors.take(worst.error_share):
        failed, failures = failed + 1, failures + rest
    _fail(state, failures, worst.error_number, batches=failed)
    _succeed(state, folios - failures, _wrong_pages(flow, channels, folios - failures))


def _take_result(state: KernelState, batch: Batch) -> None:
    if batch.error:
        _fail(state, batch.folios, batch.error, batches=1)
    else:
        _succeed(state, batch.folios, batch.wrong_pages)


def _fail(state: KernelState, folios: int, error: int, *, batches: int) -> None:
    if batches:
        state.driver.folios_failures += folios
        line = f"dcbm: DMA copy failed (-{error}), falling back to CPU"
        state.log.say_limited(line, "folios_copy_dma", state.now, batches)


def _succeed(state: KernelState, folios: int, wrong_pages: int) -> None:
    state.driver.folios_migrated += folios
    state.corrupted_pages += wrong_pages


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
