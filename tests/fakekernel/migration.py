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
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from errno import ETIMEDOUT
from typing import Final, NamedTuple

from numamigration_api.vocabulary import MigrationReason
from tests.fakekernel.config import DmaEngine, Workload
from tests.fakekernel.dma import free_channels
from tests.fakekernel.files import Busy, Hold
from tests.fakekernel.layout import NORMAL, TIERING
from tests.fakekernel.state import Batch, Channel, CpuThreads, Dcbm, KernelState

UP_TO_CEILING: Final = 1 << 30
"""The caller hands over whatever there is."""

FOLIOS_PER_CALL: Final[dict[MigrationReason, int]] = {
    MigrationReason.COMPACTION: 32,
    MigrationReason.MEMORY_FAILURE: 1,
    MigrationReason.MEMORY_HOTPLUG: UP_TO_CEILING,
    MigrationReason.SYSCALL_OR_CPUSET: UP_TO_CEILING,
    MigrationReason.MEMPOLICY_MBIND: UP_TO_CEILING,
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

PAGE_BYTES: Final = 4096
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
    match copier(state, flow.workload):
        case CpuThreads():
            state.folios_by_threads += copies
        case Dcbm() as driver:
            for task in _tasks(state, driver, flow, copies):
                if task.channels:
                    _copy_at_once(state, driver, flow, task)
                else:
                    _refuse(state, driver, flow, task)
        case None:
            pass
    _count(state, flow, folios, pinned)


def _begin_round(state: KernelState, flow: Flow) -> None:
    taken = min(flow.due, _round_folios(state, flow))
    flow.due -= taken
    folios = _admitted(state, flow, taken)
    pinned, copies = _copies(state, flow, folios)
    driver, batches = copier(state, flow.workload), []
    if isinstance(driver, Dcbm):
        for task in _tasks(state, driver, flow, copies):
            if task.channels:
                batches.append(_batch(state, flow, driver, task))
            else:
                _refuse(state, driver, flow, task)
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
    if not copier(state, workload):
        return pinned, 0
    synchronous = workload.reason in SYNCHRONOUS_CALLERS
    twice = flow.retried.take(eligible * workload.retried_share) if synchronous else 0
    return pinned, eligible + twice + _copied_in_vain(state, workload, pinned)


def _copied_in_vain(state: KernelState, workload: Workload, pinned: int) -> int:
    """Return how often folios that cannot migrate are handed to the engine: in every pass, or never."""
    if not state.series.copies_pinned:
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


def copier(state: KernelState, workload: Workload) -> Dcbm | CpuThreads | None:
    """Return who copies a workload's folios; None: the migrating task itself."""
    driver = state.migrator
    if driver is None or workload.hugetlb or isinstance(driver, CpuThreads):
        return None if workload.hugetlb else driver
    if driver.turning_off or (state.series.base_pages_only and workload.folio_pages > 1):
        return None
    chosen = {name for bit, name in enumerate(state.config.reason_names) if driver.reason_mask >> bit & 1}
    return driver if workload.reason.value in chosen else None


class Task(NamedTuple):
    """What one task of a workload hands to the driver, and with which channels."""

    channels: list[Channel]
    folios: int
    busy: bool = False
    """It got none because another has them."""


def _tasks(state: KernelState, driver: Dcbm, flow: Flow, folios: int) -> Iterator[Task]:
    """Yield each task's part; tasks ask in turn, and hold at the same time what they got."""
    workload = flow.workload
    pool = _Pool(state, driver)
    for task in range(workload.concurrency if folios else 0):
        share = _big_enough(state, driver, flow, (folios + task) // workload.concurrency)
        wanted = min(driver.nr_dma_chan, share, _batch_folios(state, flow), state.series.channels_max)
        if share:
            channels = pool.take(wanted)
            yield Task(channels, share, busy=not channels and pool.busy)


def _big_enough(state: KernelState, driver: Dcbm, flow: Flow, folios: int) -> int:
    """Return the folios without the batches that are too small for the driver, of which nobody takes note."""
    least, folio_bytes = driver.values.get("min_bytes", 0), flow.workload.folio_pages * PAGE_BYTES
    full = _batch_folios(state, flow)
    rest = folios % full
    if full * folio_bytes < least:
        return 0
    return folios - rest if rest * folio_bytes < least else folios


class _Pool:
    """The channels for the batches of one moment."""

    def __init__(self, state: KernelState, driver: Dcbm) -> None:
        self._held = state.series.hold is not Hold.FOR_BATCH
        self._free = (
            [Channel(engine, number, state.engines[engine]) for engine, number in driver.held]
            if self._held
            else free_channels(state)
        )
        gated = state.series.busy is Busy.GATED and driver.values.get("util_gate")
        self._one_at_a_time = self._held and (gated or state.series.busy is Busy.REFUSED)
        self.busy = bool(self._one_at_a_time and any(batch.driver is driver for batch in state.batches))

    def take(self, wanted: int) -> list[Channel]:
        """Return the channels of one batch; fewer than wanted, or none, when no more are there."""
        if self._held:
            taken = [] if self.busy else self._free[:wanted]
            self.busy = self.busy or bool(self._one_at_a_time and taken)
            return taken
        taken, self._free = self._free[:wanted], self._free[wanted:]
        return taken


def _refuse(state: KernelState, driver: Dcbm, flow: Flow, task: Task) -> None:
    """Count a batch that the driver does not take; only the forks do."""
    if task.busy and state.series.busy is Busy.GATED:
        driver.count("folios_gated", task.folios)
    else:
        driver.count("batches_refused", math.ceil(task.folios / _batch_folios(state, flow)))


def _takes_time(state: KernelState, flow: Flow) -> bool:
    driver = copier(state, flow.workload)
    return isinstance(driver, Dcbm) and any(
        channel.device.hangs or channel.device.copy_seconds
        for task in _tasks(state, driver, flow, _round_folios(state, flow))
        for channel in task.channels
    )


def _round_folios(state: KernelState, flow: Flow) -> int:
    return _batch_folios(state, flow) * flow.workload.concurrency


def _batch_folios(state: KernelState, flow: Flow) -> int:
    return batch_folios(flow.workload, state.config.batch_ceiling_pages)


def batch_folios(workload: Workload, ceiling_pages: int) -> int:
    """Return the folios of one full batch; it is cut after the folio that reaches the ceiling."""
    return min(FOLIOS_PER_CALL[workload.reason], math.ceil(ceiling_pages / workload.folio_pages))


def _batch(state: KernelState, flow: Flow, driver: Dcbm, task: Task) -> Batch:
    seconds, timed_out = _wait_for(task.channels, state.series.channel_seconds_max)
    worst = _failing(task.channels)
    failed = timed_out or flow.engine_errors.take(worst.error_share)
    return Batch(
        driver,
        task.channels,
        task.folios,
        wrong_pages=0 if failed else _wrong_pages(flow, task.channels, task.folios),
        error=0 if not failed else ETIMEDOUT if timed_out else worst.error_number,
        done=_done_before_error(state, worst, task.folios) if failed and not timed_out else 0,
        ends_at=state.now + seconds,
    )


def _done_before_error(state: KernelState, worst: DmaEngine, folios: int) -> int:
    """Return how many folios of a failing batch count as migrated: whole pieces, or none."""
    piece = state.series.piece_folios
    return min(worst.failed_after, folios) // piece * piece if piece else 0


def _wait_for(channels: Iterable[Channel], seconds_max: float) -> tuple[float, bool]:
    """Return how long a batch takes and whether it timed out: the driver waits for its channels one after the other."""
    waited = 0.0
    for _, _, device in channels:
        seconds = math.inf if device.hangs else device.copy_seconds
        if seconds > waited + seconds_max:
            return waited + seconds_max + device.terminate_seconds, True
        waited = max(waited, seconds)
    return waited, False


def _failing(channels: list[Channel]) -> DmaEngine:
    """Return the worst engine: one that fails is enough to fail a batch."""
    return max((channel.device for channel in channels), key=lambda device: device.error_share)


def _wrong_pages(flow: Flow, channels: list[Channel], folios: int) -> int:
    share = sum(channel.device.wrong_share for channel in channels) / len(channels)
    return flow.wrong_folios.take(folios * share) * flow.workload.folio_pages


def _copy_at_once(state: KernelState, driver: Dcbm, flow: Flow, task: Task) -> None:
    """Copy any number of batches, which take no time."""
    worst, per_batch = _failing(task.channels), _batch_folios(state, flow)
    full, rest = divmod(task.folios, per_batch)
    failed = [per_batch] * flow.engine_errors.take(full * worst.error_share)
    if rest and flow.engine_errors.take(worst.error_share):
        failed.append(rest)
    for folios, times in Counter(failed).items():
        _fail(state, driver, folios, _done_before_error(state, worst, folios), worst.error_number, times)
    moved = task.folios - sum(failed)
    _succeed(state, driver, moved, _wrong_pages(flow, task.channels, moved))


def _take_result(state: KernelState, batch: Batch) -> None:
    if batch.error:
        _fail(state, batch.driver, batch.folios, batch.done, batch.error, 1)
    else:
        _succeed(state, batch.driver, batch.folios, batch.wrong_pages)


def _fail(state: KernelState, driver: Dcbm, folios: int, done: int, error: int, times: int) -> None:
    """Count so many failed batches of so many folios."""
    driver.folios_migrated += done * times
    driver.folios_failures += (folios - done) * times
    lines = state.series.lines
    line = lines.failed.format(error=error, done=done, folios=folios)
    if lines.failed_limited and line:
        state.log.say_limited(line, "folios_copy_dma", state.now, times)
    else:
        for _ in range(times):
            state.log.say(line)


def _succeed(state: KernelState, driver: Dcbm, folios: int, wrong_pages: int) -> None:
    driver.folios_migrated += folios
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
