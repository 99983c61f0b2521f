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
from tests.fakekernel.layout import NORMAL, PAGE_BYTES, THP_PAGES, TIERING
from tests.fakekernel.state import Batch, Channel, CpuThreads, Dcbm, KernelState

NEVER_SPLIT: Final = frozenset({MigrationReason.NUMA_MISPLACED})
"""A huge page that finds no free one stays where it is."""

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
    MigrationReason.LONGTERM_PIN: UP_TO_CEILING,
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


class Load(NamedTuple):
    """What becomes of some folios."""

    folios: int
    pinned: int
    split: int
    """Huge ones that go on as base pages, since no huge page was free for them."""
    copies: int
    """What the driver is asked to copy."""


@dataclass
class Round:
    """One batch per task of a workload, and what of it is in flight."""

    load: Load
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
    split: Carry = field(default_factory=Carry)
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
    refill(state, flow, seconds)
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
    load, flow.due = _load(state, flow, _admitted(state, flow, flow.due)), 0
    match copier(state, flow.workload):
        case CpuThreads():
            state.folios_by_threads += load.copies
        case Dcbm() as driver:
            for task in _tasks(state, driver, flow, load.copies):
                if task.channels:
                    _copy_at_once(state, driver, flow, task)
                else:
                    _refuse(state, driver, flow, task)
        case None:
            pass
    _count(state, flow, load)


def _begin_round(state: KernelState, flow: Flow) -> None:
    taken = min(flow.due, _round_folios(state, flow))
    flow.due -= taken
    load = _load(state, flow, _admitted(state, flow, taken))
    driver, batches = copier(state, flow.workload), []
    if isinstance(driver, Dcbm):
        for task in _tasks(state, driver, flow, load.copies):
            if task.channels:
                batches.append(_batch(state, flow, driver, task))
            else:
                _refuse(state, driver, flow, task)
    flow.round = Round(load, batches)
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
        take_result(state, batch)
    if not flow.round.batches:
        done, flow.round = flow.round, None
        _count(state, flow, done.load)


def _load(state: KernelState, flow: Flow, folios: int) -> Load:
    workload = flow.workload
    pinned = flow.pinned.take(folios * workload.pinned_share)
    may_split = workload.folio_pages == THP_PAGES and workload.reason not in NEVER_SPLIT and not workload.hugetlb
    split = flow.split.take((folios - pinned) * workload.split_share) if may_split else 0
    pieces = folios - pinned + split * (THP_PAGES - 1)
    eligible = flow.eligible.take(pieces * workload.eligible_share)
    if not copier(state, workload):
        return Load(folios, pinned, split, 0)
    synchronous = workload.reason in SYNCHRONOUS_CALLERS
    twice = flow.retried.take(eligible * workload.retried_share) if synchronous else 0
    return Load(folios, pinned, split, eligible + twice + _copied_in_vain(state, workload, pinned))


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


def refill(state: KernelState, flow: Flow, seconds: float) -> None:
    """Let so many more pages be promoted as the rate limit allows in that time."""
    pages = flow.workload.folio_pages
    per_second = state.promote_rate_limit * PAGES_PER_MB
    # What was not used within a second is lost, but one folio always fits in unless the limit is 0.
    kept = min(flow.promotable_pages, max(per_second, pages if per_second else 0))
    flow.promotable_pages = kept + per_second * seconds


def _promoted(state: KernelState, flow: Flow, folios: int) -> int:
    if not (state.numa_balancing & TIERING and state.tiered):
        return 0
    pages = flow.workload.folio_pages
    state.count("pgpromote_candidate", folios * pages, flow.workload.numa_node)
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
    gated: bool = False
    """It got none because another has them, and the gate says so."""


def _tasks(state: KernelState, driver: Dcbm, flow: Flow, folios: int) -> Iterator[Task]:
    """Yield each task's part; tasks ask in turn, and hold at the same time what they got."""
    workload = flow.workload
    pool = Pool(state, driver)
    for task in range(workload.concurrency if folios else 0):
        share = _big_enough(state, driver, flow, (folios + task) // workload.concurrency)
        wanted = min(driver.nr_dma_chan, share, _batch_folios(state, flow), state.series.channels_max)
        if share:
            channels = pool.take(wanted)
            yield Task(channels, share, gated=not channels and pool.gates)


def _big_enough(state: KernelState, driver: Dcbm, flow: Flow, folios: int) -> int:
    """Return the folios without the batches that are too small for the driver."""
    pages, full = flow.workload.folio_pages, _batch_folios(state, flow)
    rest = folios % full
    if not is_big_enough(driver, full * pages):
        return 0
    return folios if is_big_enough(driver, rest * pages) else folios - rest


def is_big_enough(driver: Dcbm, pages: int) -> bool:
    """Whether the driver takes a batch; of one that is too small nobody takes note."""
    return pages * PAGE_BYTES >= driver.values.get("min_bytes", 0)


class Pool:
    """The channels for the batches of one moment.

    Attributes:
        busy: held channels are at work for somebody else, and not shared.
        gates: and that is counted as the gate's doing.
    """

    def __init__(self, state: KernelState, driver: Dcbm) -> None:
        self._held = state.series.hold is not Hold.FOR_BATCH
        self._free = (
            [Channel(engine, number, state.engines[engine]) for engine, number in driver.held]
            if self._held
            else free_channels(state)
        )
        self._gated = state.series.busy is Busy.GATED and bool(driver.values.get("util_gate"))
        self._one_at_a_time = self._held and (self._gated or state.series.busy is Busy.REFUSED)
        self.busy = bool(self._one_at_a_time and any(batch.driver is driver for batch in state.batches))

    @property
    def gates(self) -> bool:
        return self.busy and self._gated

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
    if task.gated:
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
    fails = flow.engine_errors.take(failing(task.channels).error_share)
    batch = in_flight(state, driver, task.channels, task.folios, fails)
    if not batch.error:
        batch.wrong_folios = wrong_folios(flow, task.channels, task.folios)
        batch.wrong_pages = batch.wrong_folios * flow.workload.folio_pages
    return batch


def in_flight(state: KernelState, driver: Dcbm, channels: list[Channel], folios: int, fails: int) -> Batch:
    """Return a batch that begins now; what of it will be wrong is for the caller to say."""
    seconds, timed_out = _wait_for(channels, state.series.channel_seconds_max)
    worst = failing(channels)
    return Batch(
        driver,
        channels,
        folios,
        error=ETIMEDOUT if timed_out else worst.error_number if fails else 0,
        done=_done_before_error(state, worst, folios) if fails and not timed_out else 0,
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


def failing(channels: list[Channel]) -> DmaEngine:
    """Return the worst engine: one that fails is enough to fail a batch."""
    return max((channel.device for channel in channels), key=lambda device: device.error_share)


def wrong_folios(flow: Flow, channels: list[Channel], folios: int) -> int:
    """Return how many of these folios the engines copy wrong without a word."""
    share = sum(channel.device.wrong_share for channel in channels) / len(channels)
    return flow.wrong_folios.take(folios * share)


def _copy_at_once(state: KernelState, driver: Dcbm, flow: Flow, task: Task) -> None:
    """Copy any number of batches, which take no time."""
    worst, per_batch = failing(task.channels), _batch_folios(state, flow)
    full, rest = divmod(task.folios, per_batch)
    failed = [per_batch] * flow.engine_errors.take(full * worst.error_share)
    if rest and flow.engine_errors.take(worst.error_share):
        failed.append(rest)
    for folios, times in Counter(failed).items():
        _fail(state, driver, folios, _done_before_error(state, worst, folios), worst.error_number, times)
    moved = task.folios - sum(failed)
    wrong = wrong_folios(flow, task.channels, moved)
    _succeed(state, driver, moved, wrong * flow.workload.folio_pages)


def take_result(state: KernelState, batch: Batch) -> None:
    """Count what came of a batch."""
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


def _count(state: KernelState, flow: Flow, load: Load) -> None:
    workload, (folios, pinned, split, _) = flow.workload, load
    failed = pinned + flow.failing.take((folios - pinned) * workload.fail_share)
    moved = folios - failed
    pages = workload.folio_pages
    state.vmstat["pgmigrate_success"] += moved * pages
    state.vmstat["pgmigrate_fail"] += failed * pages
    if pages == THP_PAGES and not workload.hugetlb:
        state.vmstat["thp_migration_success"] += moved - split
        state.vmstat["thp_migration_fail"] += failed + split
        state.vmstat["thp_migration_split"] += split
    for name, amount in _counted_by_reason(workload, folios, moved * pages).items():
        state.count(name, amount, workload.numa_node)


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
