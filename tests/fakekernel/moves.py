# SPDX-License-Identifier: Apache-2.0
"""Moves a caller's own pages inside the model, by one system call: the twin of a program that does so for real.

* Folios lie in one range, small ones first, and the kernel gets all of them at once; it cuts them into batches after
  the folio that reaches the ceiling, so small ones and one huge one may share a batch.
* One task, and no copy in a second pass; each folio arrives unless its destination has no free memory. Who copies is
  decided anew for each batch, as for any other migration, and every counter moves as it does for a workload.
* An engine that takes time holds the call up: ``Move.over`` is false until the last batch is.
* What the caller may not do comes as the errno of the system call. The order of reasons: the profile that filters
  system calls, a NUMA node that is not there or has no memory, the cpuset.

Sources: mm/migrate.c (do_pages_move, migrate_pages), mm/mempolicy.c (do_mbind: a NUMA node that may not be used is
EINVAL; without MPOL_MF_STRICT a folio that stays is no error).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from errno import EACCES, EINVAL, EIO, ENODEV, ENOMEM
from typing import Final, NamedTuple

from numamigration_api.vocabulary import MigrationReason
from tests.fakekernel.config import HostConfig, Workload
from tests.fakekernel.layout import THP_PAGES
from tests.fakekernel.migration import (
    Flow,
    Pool,
    copier,
    failing,
    in_flight,
    is_big_enough,
    take_result,
    wrong_folios,
)
from tests.fakekernel.parsing import KernelError
from tests.fakekernel.state import Batch, CpuThreads, Dcbm, KernelState

SYSTEM_CALLS: Final = {MigrationReason.SYSCALL_OR_CPUSET: "move_pages", MigrationReason.MEMPOLICY_MBIND: "mbind"}
"""Which one makes folios migrate for a reason."""


class Moved(NamedTuple):
    """What came of one call.

    Attributes:
        folios: that arrived.
        huge: how many of those were huge.
        left: that did not.
        wrong: folios that hold wrong bytes.
        wrong_at: where the first wrong byte is, counted from the first; -1 when there is none.
        errno: of the first folio that did not arrive, as far as the call tells; 0 when all did.
        cause: the same in words.
        seconds: that the call took, in the model's time.
    """

    source: int
    destination: int
    folios: int
    huge: int = 0
    left: int = 0
    wrong: int = 0
    wrong_at: int = -1
    errno: int = 0
    cause: str = ""
    seconds: float = 0.0


class Folios(NamedTuple):
    """How many of which size."""

    small: int
    huge: int

    @property
    def pages(self) -> int:
        return self.small + self.huge * THP_PAGES


class Move:
    """One call under way."""

    def __init__(self, state: KernelState, reason: MigrationReason, way: tuple[int, int], folios: Folios) -> None:
        """Make the call.

        Raises:
            KernelError: the caller may not.
        """
        self.source, self.destination = way
        _check(state.config, reason, self.source, self.destination)
        self._flow = Flow(Workload(reason, 0))
        self._call = SYSTEM_CALLS[reason]
        self._folios = folios if state.config.huge_pages else Folios(folios.pages, 0)
        self._full = self.destination in state.config.full_numa_nodes
        self._waiting = deque(() if self._full else _cut(self._folios, state.config.batch_ceiling_pages))
        self._batch: Batch | None = None
        self._began = state.now
        self._wrong = 0
        self._wrong_at = -1
        self.over = False
        self._answer: Moved | KernelError | None = None
        if self._full:
            state.vmstat["pgmigrate_fail"] += self._folios.pages
            state.vmstat["thp_migration_fail"] += self._folios.huge

    @property
    def ends_at(self) -> float | None:
        """When the batch in flight ends; None when there is none."""
        return self._batch.ends_at if self._batch else None

    def interrupt(self) -> None:
        """End without an answer, as for a caller that went down with its host."""
        self.over, self._answer = True, KernelError(EIO)

    def answer(self) -> Moved:
        """Return what came of it.

        Raises:
            KernelError: the host went down.
            ValueError: it is not over.
        """
        if isinstance(self._answer, Moved):
            return self._answer
        raise self._answer or ValueError("the move is not over")

    def proceed(self, state: KernelState, chance: Flow) -> None:
        """Go as far as it goes; `chance` keeps what an engine's shares still owe from call to call."""
        if self._batch and self._batch.ends_at <= state.now + 1e-9:
            state.batches.remove(self._batch)
            self._take(state, self._batch)
            self._batch = None
        while self._waiting and not self._batch:
            self._begin(state, chance, self._waiting.popleft())
        if not self._waiting and not self._batch and not self.over:
            self.over, self._answer = True, self._result(state)

    def _begin(self, state: KernelState, chance: Flow, folios: Folios) -> None:
        self._count(state, folios)
        driver, offered = copier(state, self._flow.workload), sum(_offered(state, folios))
        if isinstance(driver, CpuThreads):
            state.folios_by_threads += offered
        if not isinstance(driver, Dcbm) or not offered or not is_big_enough(driver, folios.pages):
            return
        pool = Pool(state, driver)
        channels = pool.take(min(driver.nr_dma_chan, offered, state.series.channels_max))
        if not channels:
            name, amount = ("folios_gated", offered) if pool.gates else ("batches_refused", 1)
            driver.count(name, amount)
            return
        batch = in_flight(state, driver, channels, offered, chance.engine_errors.take(failing(channels).error_share))
        if not batch.error:
            batch.wrong_folios = wrong_folios(chance, channels, offered)
            batch.wrong_pages = _pages_of(batch.wrong_folios, _offered(state, folios))
        if batch.ends_at > state.now:
            self._batch = batch
            state.batches.append(batch)
        else:
            self._take(state, batch)

    def _take(self, state: KernelState, batch: Batch) -> None:
        take_result(state, batch)
        self._wrong += batch.wrong_folios
        self._wrong_at = 0 if self._wrong else -1

    def _count(self, state: KernelState, folios: Folios) -> None:
        state.vmstat["pgmigrate_success"] += folios.pages
        state.vmstat["thp_migration_success"] += folios.huge

    def _result(self, state: KernelState) -> Moved:
        count = sum(self._folios)
        told = ENOMEM if self._full and self._call == "move_pages" else 0
        return Moved(
            self.source,
            self.destination,
            folios=0 if self._full else count,
            huge=0 if self._full else self._folios.huge,
            left=count if self._full else 0,
            wrong=self._wrong,
            wrong_at=self._wrong_at,
            errno=told,
            cause=os.strerror(told) if told else "",
            seconds=state.now - self._began,
        )


def _check(config: HostConfig, reason: MigrationReason, source: int, destination: int) -> None:
    """Refuse what the kernel refuses; the folios are put on their source by mbind(2), whatever moves them then."""
    if reason not in SYSTEM_CALLS:
        raise ValueError(f"no system call migrates with reason {reason}")
    call = SYSTEM_CALLS[reason]
    denied = next((config.denied_calls[name] for name in ("mbind", call) if name in config.denied_calls), 0)
    if denied:
        raise KernelError(denied)
    with_memory = {node.id for node in config.numa_nodes if node.memory}
    allowed = with_memory if config.cpuset_numa_nodes is None else with_memory & set(config.cpuset_numa_nodes)
    if source not in allowed or (call == "mbind" and destination not in allowed):
        raise KernelError(EINVAL)
    if destination not in allowed:
        raise KernelError(EACCES if destination in with_memory else ENODEV)
    if source in config.full_numa_nodes:
        raise KernelError(ENOMEM)


def _cut(folios: Folios, ceiling_pages: int) -> Iterator[Folios]:
    """Cut a list of folios into batches, each after the folio that reaches the ceiling."""
    small, huge = folios
    while small or huge:
        taken = min(small, ceiling_pages)
        more = min(huge, -(-(ceiling_pages - taken) // THP_PAGES))
        yield Folios(taken, more)
        small, huge = small - taken, huge - more


def _offered(state: KernelState, folios: Folios) -> Folios:
    """Return the folios that the driver would copy."""
    return folios._replace(huge=0) if state.series.base_pages_only else folios


def _pages_of(folios: int, of: Folios) -> int:
    """Return the base pages of so many folios, small ones first."""
    return min(folios, of.small) + THP_PAGES * max(0, folios - of.small)
