# SPDX-License-Identifier: Apache-2.0
"""What the kernel holds in memory: all of it is gone at a reboot, the driver's part already at an unload.

Nothing in here does anything; ``layout`` shows and stores it, ``migration`` counts in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from tests.fakekernel.config import DmaEngine, HostConfig, NumaNode
from tests.fakekernel.files import Series
from tests.fakekernel.kernellog import KernelLog

VMSTAT_NAMES = (
    "nr_free_pages",
    "numa_hit",
    "numa_miss",
    "numa_foreign",
    "numa_interleave",
    "numa_local",
    "numa_other",
    "nr_anon_pages",
    "nr_file_pages",
    "pgpromote_success",
    "pgpromote_candidate",
    "pgpromote_candidate_nrl",
    "pgdemote_kswapd",
    "pgdemote_direct",
    "pgdemote_khugepaged",
    "pgdemote_proactive",
    "pgpgin",
    "pgpgout",
    "pgfault",
    "pgmajfault",
    "zone_reclaim_success",
    "zone_reclaim_failed",
    "numa_pte_updates",
    "numa_huge_pte_updates",
    "numa_hint_faults",
    "numa_hint_faults_local",
    "numa_pages_migrated",
    "pgmigrate_success",
    "pgmigrate_fail",
    "thp_migration_success",
    "thp_migration_fail",
    "thp_migration_split",
    "compact_migrate_scanned",
    "compact_free_scanned",
    "compact_isolated",
    "compact_stall",
    "compact_fail",
    "compact_success",
)
"""The names near page migration in their order in mm/vmstat.c; a real file has about four times as many."""

NUMA_NODE_NAMES: Final = VMSTAT_NAMES[:16]
"""Those that each NUMA node counts; the host's number is their sum."""
PRESSURES: Final = ("cpu", "memory", "io")
"""What tasks may wait for, by the names in /proc/pressure."""


@dataclass
class Dcbm:
    """The driver's variables, as they are right after it was loaded."""

    reason_mask: int
    offloading: bool = False
    nr_dma_chan: int = 1
    folios_migrated: int = 0
    folios_failures: int = 0
    turning_off: bool = False
    """No batch begins any more, and those in flight are waited for; ``offloading`` is still true."""
    going: bool = False
    """Being unloaded: the files are still there, and nobody gets a new reference to the module."""
    held: tuple[tuple[int, int], ...] = ()
    """Channels that it keeps between batches: engine and number."""
    values: dict[str, int] = field(default_factory=dict)
    """Its plain numbers and further counters, by the names of their files; what is absent is not in this driver."""

    def count(self, name: str, amount: int) -> None:
        """Add to a counter, if the driver has it."""
        if name in self.values:
            self.values[name] += amount


class CpuThreads(NamedTuple):
    """A migrator that copies with threads; it has no channels and no counters."""

    switch: str
    """Path of the file that turned it on."""


class Channel(NamedTuple):
    """One DMA channel, ``dma<engine>chan<number>``."""

    engine: int
    number: int
    device: DmaEngine


@dataclass
class Batch:
    """Folios on their way through an engine."""

    driver: Dcbm
    """Who handed it over; the module may be gone before it ends."""
    channels: Sequence[Channel]
    folios: int
    error: int
    """Errno it ends with; 0 for success, or what passes for it."""
    done: int
    """Folios that count as migrated although it ends with an error."""
    ends_at: float
    wrong_folios: int = 0
    """How many of them will hold wrong bytes if it succeeds."""
    wrong_pages: int = 0
    """The same in base pages."""


@dataclass
class Pressure:
    """How long tasks wait for something; the averages follow at once."""

    some: float = 0.0
    """Share of time in which some task waits, 0..1."""
    full: float = 0.0
    """Share of time in which all do."""
    some_seconds: float = 0.0
    full_seconds: float = 0.0

    def pass_by(self, seconds: float) -> None:
        """Let time pass."""
        self.some_seconds += self.some * seconds
        self.full_seconds += self.full * seconds


@dataclass
class KernelState:
    """One boot of one host."""

    config: HostConfig
    series: Series
    boot_id: str
    engines: tuple[DmaEngine, ...]
    other_migrator: bool
    numa_balancing: int
    demotion_enabled: bool
    dcbm: Dcbm | None
    """The loaded driver."""
    dmaengine_users: int
    values: dict[str, int] = field(default_factory=dict)
    """Plain numbers that stay from boot to reboot, by path."""
    texts: dict[str, str] = field(default_factory=dict)
    """What files that nobody knows hold, by path."""
    migrator: Dcbm | CpuThreads | None = None
    """Who copies; None: the CPU of the migrating task, or somebody who is not from here."""
    folios_by_threads: int = 0
    """Folios that the engine of threads has copied; the kernel itself does not count them."""
    now: float = 0.0
    """Seconds since boot."""
    batches: list[Batch] = field(default_factory=list)
    """In flight, and only those that take time."""
    corrupted_pages: int = 0
    log: KernelLog = field(default_factory=KernelLog)
    promote_rate_limit: int = 65536
    printk_time: bool = True
    vmstat: dict[str, int] = field(default_factory=lambda: dict.fromkeys(VMSTAT_NAMES, 0))
    numa_vmstat: dict[int, dict[str, int]] = field(default_factory=dict)
    """By NUMA node."""
    pressure: dict[str, Pressure] = field(default_factory=lambda: {name: Pressure() for name in PRESSURES})

    def count(self, name: str, amount: int, numa_node: int | None) -> None:
        """Add to a counter of vmstat, and to the NUMA node's own where it has one; None: the first of the fastest."""
        self.vmstat[name] += amount
        if name in NUMA_NODE_NAMES:
            fastest = min(self.memory_nodes, key=lambda node: node.tier, default=None)
            place = numa_node if numa_node is not None else fastest.id if fastest else 0
            self.numa_vmstat.setdefault(place, dict.fromkeys(NUMA_NODE_NAMES, 0))[name] += amount

    @property
    def driver(self) -> Dcbm:
        """The loaded driver; its files exist only while it is there."""
        if self.dcbm is None:
            raise LookupError("dcbm is not loaded")
        return self.dcbm

    def in_use(self, engine: int, number: int) -> bool:
        """Whether somebody holds a channel: another client for good, a batch while it is in flight, or the driver."""
        if number < self.engines[engine].taken:
            return True
        holders = [holder for holder in (self.dcbm, self.migrator) if isinstance(holder, Dcbm)]
        if any((engine, number) in holder.held for holder in holders):
            return True
        return any(channel[:2] == (engine, number) for batch in self.batches for channel in batch.channels)

    def let_go_of_lost_channels(self) -> None:
        """Forget held channels that are no more: one that comes back is taken at the next turn-on."""
        there = {(engine, number) for engine, device in enumerate(self.engines) for number in range(device.channels)}
        for holder in (self.dcbm, self.migrator):
            if isinstance(holder, Dcbm):
                holder.held = tuple(channel for channel in holder.held if channel in there)

    @property
    def tiered(self) -> bool:
        """Whether some memory is slower than other memory."""
        return len({node.tier for node in self.memory_nodes}) > 1

    @property
    def memory_nodes(self) -> list[NumaNode]:
        return [node for node in self.config.numa_nodes if node.memory]
