# SPDX-License-Identifier: Apache-2.0
"""What a fake host is made of: plain, immutable data that also travels as JSON.

* ``HostConfig`` is the host as it boots; ``Workload`` is what its programs do with their pages.
* ``Caller`` says who makes a system call, for the kernel answers by that, not by the file alone.

Sources for folio counts and sizes: mm/migrate.c; see migration.py.
"""

from __future__ import annotations

from enum import StrEnum
from errno import EIO
from typing import Annotated, Final, NamedTuple

from msgspec import Meta, Struct

from numamigration_api.vocabulary import Dialect, MigrationReason

REASONS_7_2: Final = tuple(reason.value for reason in MigrationReason)
"""Names that ``reason_mask`` knows on kernels up to 7.2, mask 0x3ff."""

REASONS_7_3: Final = (*REASONS_7_2, "never_migrated")
"""7.3 knows one more, mask 0x7ff; no migration ever has that reason."""

Share = Annotated[float, Meta(ge=0, le=1)]
AtLeastOne = Annotated[int, Meta(ge=1)]
NotNegative = Annotated[int, Meta(ge=0)]


class Caller(NamedTuple):
    """Who makes a system call, and through which mount."""

    uid: int = 0
    cap_sys_admin: bool = True
    read_only_mount: bool = False


HOST_ROOT: Final = Caller()
"""A process of the host itself: all capabilities, /sys mounted writable."""


class DmaEngine(Struct, frozen=True, forbid_unknown_fields=True):
    """One DMA device as its driver registers it with the dmaengine core."""

    driver: str
    channels: AtLeastOne = 1
    numa_node: int | None = -1
    """-1 is a PCI device on a machine that does not say; None a platform device, which has no such file."""
    memcpy: bool = True
    """False for engines that only serve a UART or SPI; they stand in /sys/class/dma all the same."""
    taken: NotNegative = 0
    """Channels held by another client (NTB, dmatest): not available, ``in_use`` is 1."""
    public: bool = False
    """Not exclusive (no DMA_PRIVATE): of no use to dcbm while anybody has called dmaengine_get()."""
    error_share: Share = 0.0
    """Share of this engine's batches that end with an error; the kernel then copies them by CPU."""
    failed_after: NotNegative = 0
    """How many folios of such a batch are copied before the error; only V6-SDXI's driver counts whole pieces of it."""
    error_number: int = EIO
    """Their errno, which only the log tells: EIO, a descriptor could not be made; EINVAL, the IOMMU merged segments."""
    copy_seconds: Annotated[float, Meta(ge=0)] = 0.0
    """What each channel takes for its part of a batch; more than 10 s after the channel before it is a time-out."""
    hangs: bool = False
    """No channel ever completes: 10 s for each batch, which then fails."""
    terminate_seconds: Annotated[float, Meta(ge=0)] = 0.0
    """What it takes on top to stop a channel after a time-out."""
    wrong_share: Share = 0.0
    """Share of folios reported as copied whose bytes are wrong: 1 for an engine that completes without copying, little
    less for one that completes out of order. No counter of the kernel shows it."""


class NumaNode(Struct, frozen=True, forbid_unknown_fields=True):
    """One NUMA node."""

    id: NotNegative
    cpus: str = ""
    """As in ``cpulist``; empty for memory without CPUs."""
    memory: bool = True
    tier: NotNegative = 0
    """Rank of its memory, 0 the fastest. Demotion and promotion need more than one rank."""


class Workload(Struct, frozen=True, forbid_unknown_fields=True):
    """Programs, or the kernel's own threads, that make folios migrate."""

    reason: MigrationReason
    folios_per_second: Annotated[float, Meta(ge=0)]
    folio_pages: AtLeastOne = 1
    """Base pages per folio: 1 is 4 KiB on x86, 512 a transparent huge page."""
    concurrency: AtLeastOne = 1
    """Tasks that migrate at the same moment and so compete for channels. Different workloads collide only with batches
    that take time."""
    eligible_share: Share = 1.0
    """The rest stays with the CPU: movable_ops pages."""
    pinned_share: Share = 0.0
    """Share of folios that somebody holds a reference to (direct I/O, RDMA); they cannot migrate."""
    retried_share: Share = 0.0
    """Share of folios that fail after the copy of the first pass and migrate in the second, synchronous one, copied
    again; callers that make one pass have none."""
    fail_share: Share = 0.0
    """Share of folios whose migration fails in the end, whoever copied them."""
    split_share: Share = 0.0
    """Share of transparent huge pages for which no huge page is free: split, they migrate as base pages. NUMA balancing
    splits none."""
    hugetlb: bool = False
    """hugetlb pages take another path, which is never offloaded."""
    promotion: bool = False
    """For ``numa_misplaced``: to a faster tier (needs the tiering bit) instead of between equals (the normal bit)."""
    direct: bool = False
    """For ``demotion``: by the allocating task itself instead of kswapd."""
    numa_node: NotNegative | None = None
    """Where promotion comes to and demotion goes from, whose own vmstat counts it; None: the first with the fastest
    memory."""


class Place(StrEnum):
    """What stands where a kernel file should be."""

    FILE = "file"
    FIFO = "fifo"
    FOLDER = "folder"
    LOOP = "loop"
    """A symbolic link to itself."""


class Spoiled(Struct, frozen=True, forbid_unknown_fields=True):
    """What is wrong with a file."""

    place: Place = Place.FILE
    shows: bytes | None = None
    """What it reads instead of the truth; as JSON in base64."""
    read_error: int = 0
    """Errno that read(2) answers."""
    write_error: int = 0
    """Errno that write(2) answers; the handler is not called then."""


class Speed(Struct, frozen=True, forbid_unknown_fields=True):
    """How fast one setting moves folios of one size by move_pages(2), in batches of 32 and more."""

    channels: NotNegative
    """0: the CPU copies."""
    folio_bytes: AtLeastOne
    gbps: Annotated[float, Meta(gt=0)]
    deviation: Annotated[float, Meta(ge=0)] = 0.0


class HostConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """A host as it boots."""

    dialect: Dialect = Dialect.V6
    loaded: bool = True
    """Whether dcbm is there after boot; False: a module that nobody has loaded."""
    built_in: bool = False
    """dcbm is part of the kernel image: no refcnt, never unloaded. V5 has no such form."""
    kernel_config: bool = True
    """Whether there is a /proc/config.gz."""
    engines: tuple[DmaEngine, ...] = (
        DmaEngine("ptdma", numa_node=0),
        DmaEngine("ptdma", numa_node=0),
        DmaEngine("ptdma", numa_node=1),
        DmaEngine("ptdma", numa_node=1),
    )
    channels_max: AtLeastOne | None = None
    """What ``nr_dma_chan`` takes at most; a driver with other limits has the same files, so only a write tells. None:
    what the dialect's driver takes."""
    test_patches: bool = False
    """Whether the posting's patches "for testing" are in the kernel; they add files to V2 and V3."""
    extra_files: dict[str, str] = {}
    """Files by path with what they hold at first, as a newer revision would add; those in the driver's folder come and
    go with it. They take any text."""
    spoiled_files: dict[str, Spoiled] = {}
    """Files, by path, that are not what they should be; the path is that of the file itself, not one through links."""
    missing_files: tuple[str, ...] = ()
    """Files or folders, by path, that this kernel does not have although the dialect does."""
    dmaengine_users: NotNegative = 0
    """Others that have called dmaengine_get() (async_tx, for example)."""
    parameters: dict[str, str] = {}
    """Options of the module when it is loaded at boot; of a built-in one, on the kernel's command line."""
    other_migrator: bool = False
    """Somebody else is registered as the system's migrator: ``offloading=1`` answers EBUSY."""
    numa_nodes: tuple[NumaNode, ...] = (NumaNode(0, "0-7"), NumaNode(1, "8-15"), NumaNode(2, tier=1))
    numa_balancing: Annotated[int, Meta(ge=0, le=4)] = 1
    demotion_enabled: bool = False
    reason_names: tuple[str, ...] = REASONS_7_3
    batch_ceiling_pages: AtLeastOne = 512
    """NR_MAX_BATCHED_MIGRATION in base pages, fixed when the kernel is compiled."""
    absent_counters: tuple[str, ...] = ()
    """Names this kernel's vmstat files do not have."""
    numa_node_counters: bool = True
    """Whether promotion and demotion stand in each NUMA node's vmstat too, as in newer kernels."""
    huge_pages: bool = True
    """Whether there are transparent huge pages; else what would be one is as many base pages."""
    denied_calls: dict[str, int] = {}
    """Errno by system call (``move_pages``, ``mbind``) that a seccomp profile answers to the agent: EPERM or ENOSYS."""
    cpuset_numa_nodes: tuple[int, ...] | None = None
    """Where the agent's cpuset lets it have memory; None: everywhere."""
    full_numa_nodes: tuple[int, ...] = ()
    """NUMA nodes without a free page for the agent."""
    free_kib: NotNegative = 4 << 20
    """Free memory of each NUMA node that is not full."""
    cache_kib: NotNegative = 16 << 10
    """Last-level cache of a CPU; 0 shows none."""
    load: float = 0.0
    """First number of /proc/loadavg."""
    memory_room: int | None = None
    """Bytes to the next limit of the agent's control groups; None: there is none."""
    speeds: tuple[Speed, ...] = ()
    """Of the agent's own pages when it moves them against a clock; a setting that is not here takes its neighbour's."""
    osrelease: str = "7.3.0-rc7"
    cpu_model: str = "AMD EPYC 7713 64-Core Processor"
    read_only: bool = False
    """The agent sees /sys and /proc/sys through a read-only mount."""
    cap_sys_admin: bool = True
    """Whether the agent, when root, has CAP_SYS_ADMIN."""
    workloads: tuple[Workload, ...] = ()
    seed: int | None = None
    """Of what is left to chance, which is the boot ids; None draws them anew at every start."""
