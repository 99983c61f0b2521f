# SPDX-License-Identifier: Apache-2.0
"""What was seen on a running kernel, as one table: V5 and V6 of the series on 7.3-rc7 in a virtual machine.

Three NUMA nodes, one of them a lower tier, and a software DMA engine that can fail, hang, delay and lie. Each row is
plain data: a situation, and steps with what each must answer. ``replay`` runs a row on anything that has a root folder
and takes the commands of ``control``: the mounted fake, or a kernel in a virtual machine whose harness knows them.

``FINDINGS`` are the statements, each with the place in the kernel that explains it; every one has a row here, or stands
in ``NOT_SHOWN`` with the reason why no row can show it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from errno import EACCES, EAGAIN, EBUSY, EINVAL, EIO, ENODEV, ENOENT, EPERM, ERANGE, EROFS, EXDEV
from typing import Any, Final, NamedTuple

from numamigration_api.vocabulary import Dialect, MigrationReason
from tests.fakekernel.config import REASONS_7_2, REASONS_7_3, DmaEngine, Workload
from tests.fakekernel.control import (
    Advance,
    AwaitBlocked,
    Command,
    Load,
    Migrate,
    MoveOwnPages,
    Reboot,
    SetDmaengineUsers,
    SetEngines,
    SetOtherMigrator,
    Unload,
)

FINDINGS: Final = {
    "bool": "kstrtobool looks at the first character, for o at the second (lib/kstrtox.c)",
    "uint": "kstrtouint with base 0 takes octal, hexadecimal and a plus; EINVAL for garbage, ERANGE for overflow",
    "bytes": "a write of no bytes calls nothing, one above 4096 bytes arrives cut (fs/kernfs/file.c)",
    "hung": "a hung engine costs every batch 10 s, whole batches fail, and nothing turns offload off (dcbm)",
    "slow": "channels are waited for one after the other: 19.7 s for two without error or log line (dcbm)",
    "state D": "a blocked writer cannot be killed before its call is over",
    "V6 blocked": "while a turn-off waits, every parameter of dcbm blocks; the rest answers (kernel/params.c)",
    "built-in blocked": "with a built-in dcbm the parameters of all built-in modules block (kernel/params.c)",
    "V5 blocked": "while a turn-off waits, V5's files are read at once and offloading shows 1",
    "no check": "turning on asks for no channel",
    "provider": "the engine's driver may go while offload is on and idle; back, it works without a write",
    "no channel": "a batch without a channel goes by CPU, without counter or log line",
    "concurrency": "channels asked for, times tasks that migrate at once, must not exceed the channels there are",
    "public": "an engine that is not exclusive works only while nobody else has called dmaengine_get()",
    "copied twice": "a folio copied in both passes counts twice: 17 against 16",
    "synchronous": "the reason alone decides, the synchronous pass is offloaded too",
    "pinned": "V6 leaves out folios that somebody holds a reference to, V5 copies and counts them in vain",
    "hugetlb": "hugetlb pages are never offloaded nor counted by the driver",
    "direct I/O": "V5 loses bytes that a holder of a reference writes between copy and completion; V6 does not",
    "lost": "all is lost at an unload; counters outlast off and on; a descriptor held over an unload answers ENODEV",
    "log limit": "at most ten lines about failed copies in 5 s, so they undercount (lib/ratelimit.c)",
    "lies": "an engine that reports success without having copied corrupts pages, failures stay 0",
    "batch size": "folios per batch depend on who migrates (mm/migrate.c and its callers)",
    "empty mask": "an empty line, a comma or a blank is a mask of no reason; a number in a list is EINVAL",
    "mask width": "ten names up to 7.2, never_migrated as an eleventh from 7.3 on",
    "reasons": "V6 offloads each of the ten, V5 exactly four",
    "load parameters": "V6 takes its parameters at load in any order, a bad value fails the load; V5 ignores them",
    "built in": "a built-in dcbm shows parameters and uevent; names on the command line leave the mask as it is",
    "not loaded": "without /sys/module/dcbm the kernel's configuration tells whether the driver is a module",
    "ceiling": "two transparent huge pages never share a batch",
    "mixed batch": "511 base pages and a huge page went as one batch",
    "platform device": "a platform device without a NUMA node has no numa_node, a PCI device says -1",
    "rights": "root opens no sysfs file and no sysctl against its mode, but other files of /proc (fs/kernfs/file.c)",
    "sysctl": "blanks round the number, what is behind them is left and not counted; any refusal is EINVAL",
    "capability": "numa_balancing asks root for CAP_SYS_ADMIN at the write (kernel/sched/core.c)",
    "mainline": "what each kernel with NUMA nodes has, with or without the series",
    "EBUSY": "while another migrator is registered, turning on answers EBUSY and tells so (dcbm)",
    "module folder": "what the folder of a loaded module has (kernel/module/sysfs.c)",
    "sysfs": "what a plain file would answer otherwise (fs/kernfs, fs/sysfs, fs/namei.c)",
}
"""Statement by key, in the order in which they are met here."""

NOT_SHOWN: Final = {
    "direct I/O": "the fake has no page contents; the agent refuses V5 for it, which its own tests show",
}
"""Findings without a row, and why."""

BOTH: Final = (Dialect.V5, Dialect.V6)
V5: Final = (Dialect.V5,)
V6: Final = (Dialect.V6,)
NONE: Final = (Dialect.NO_SERIES,)
NOBODY: Final = 65534


class Write(NamedTuple):
    """open(2), write(2); `{dcbm}` in a path stands for the folder of the driver's files in this dialect."""

    file: str
    text: str | bytes
    errno: int = 0
    returns: int | None = None
    """What write(2) returns; None: the number of bytes given."""
    flags: int = 0
    uid: int = 0


class Read(NamedTuple):
    """open(2), read(2)."""

    file: str
    shows: str | None = None
    """The text without its newline; None: whatever."""
    errno: int = 0
    uid: int = 0


class Begin(NamedTuple):
    """Make a call and leave it blocked."""

    call: Write | Read


class End(NamedTuple):
    """Now every call that was begun is over, and answers as it says."""


class Do(NamedTuple):
    """A command of ``control``."""

    command: Command
    errno: int = 0


class Lists(NamedTuple):
    """A folder has some names and lacks others."""

    folder: str
    has: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()


class Attempt(NamedTuple):
    """Something else that one can do to a file or folder; the actions are in ``replay``."""

    action: str
    path: str
    errno: int = 0


class Counted(NamedTuple):
    """A counter of /proc/vmstat grew by so much since the row began."""

    name: str
    by: int


class Within(NamedTuple):
    """A file shows a number in a range; for what nobody can ask the kernel to do so and so often."""

    file: str
    least: int
    most: int


class Corrupted(NamedTuple):
    """So many pages hold wrong bytes."""

    pages: int


class Logged(NamedTuple):
    """A line stands in the kernel's log so many times."""

    line: str
    times: int = 1


Step = Write | Read | Begin | End | Do | Lists | Attempt | Counted | Within | Corrupted | Logged
Steps = tuple[Step, ...]


class Seen(NamedTuple):
    """One row."""

    id: str
    finding: str
    dialects: tuple[Dialect, ...]
    steps: Steps
    host: dict[str, Any] = {}  # a NamedTuple's default; never changed
    """The situation: fields of HostConfig that differ from the default."""


SYSCALL: Final = MigrationReason.SYSCALL_OR_CPUSET
MOVE_PAGES: Final = Workload(SYSCALL, 0)
HUNG: Final = (DmaEngine("ptdma", hangs=True),)
SLOW: Final = (DmaEngine("ptdma", copy_seconds=9), DmaEngine("ptdma", copy_seconds=18))
FOUR_CHANNELS: Final = (DmaEngine("ptdma", channels=4),)
DEVICE: Final = "/sys/class/dma/dma0chan0/device"
ON: Final = Write("{dcbm}/offloading", "1")
OFF: Final = Write("{dcbm}/offloading", "0")
FAILED_NONE: Final = Read("{dcbm}/folios_failures", "0")
FAILED_LINE: Final = "dcbm: DMA copy failed (-{}), falling back to CPU"


def _counters(migrated: int, failures: int) -> tuple[Read, Read]:
    return Read("{dcbm}/folios_migrated", str(migrated)), Read("{dcbm}/folios_failures", str(failures))


def _range(least: int, most: int) -> str:
    return str(most) if least == most else f"{least} to {most}"


def _bools() -> Iterator[Seen]:
    readings = {
        "1": ("1", "y", "Y", "t", "T", "on", "On", "oN", "10", "1garbage", "1 "),
        "0": ("0", "n", "N", "f", "F", "of", "off", "oFF", "00", "01", "0x1"),
    }
    other = {"0": ON, "1": OFF}
    for value, texts in readings.items():
        for text in texts:
            steps: Steps = (other[value], Write("{dcbm}/offloading", text), Read("{dcbm}/offloading", value))
            yield Seen(f"offloading takes {text!r} as {value}", "bool", BOTH, steps)
    for text in ("2", " 1", "+1", "-1", "o", "\n"):
        steps = (ON, Write("{dcbm}/offloading", text, EINVAL), Read("{dcbm}/offloading", "1"))
        yield Seen(f"offloading refuses {text!r}", "bool", BOTH, steps)


def _uints() -> Iterator[Seen]:
    for text, shown in {"+4": "4", "007": "7", "020": "16", "0X0a": "10", "0x10": "16", "4\n": "4"}.items():
        steps: Steps = (Write("{dcbm}/nr_dma_chan", text), Read("{dcbm}/nr_dma_chan", shown))
        yield Seen(f"nr_dma_chan takes {text!r} as {shown}", "uint", BOTH, steps)
    garbage = ("08", "0x", "0b11", "++4", "-0", "-1", " 4", "4 ", "4\r\n", "4\n\n", "1e1", "0", "17")
    refused = dict.fromkeys(garbage, EINVAL) | dict.fromkeys(
        ("4294967296", "0x100000001", "18446744073709551616"), ERANGE
    )
    for text, number in refused.items():
        steps = (
            Write("{dcbm}/nr_dma_chan", "3"),
            Write("{dcbm}/nr_dma_chan", text, number),
            Read("{dcbm}/nr_dma_chan", "3"),
        )
        yield Seen(f"nr_dma_chan refuses {text!r}", "uint", BOTH, steps)


def _masks() -> Iterator[Seen]:
    mask = "{dcbm}/reason_mask"
    for text in ("\n", ",", ",,", " "):
        steps: Steps = (Write(mask, text), Read(mask, "none"))
        yield Seen(f"reason_mask takes {text!r} as none", "empty mask", V6, steps)
    steps = (Write(mask, "damon"), Write(mask, "demotion,0x1", EINVAL), Read(mask, "damon"))
    yield Seen("reason_mask refuses a number in a list", "empty mask", V6, steps)
    for names, version in ((REASONS_7_2, "7.2"), (REASONS_7_3, "7.3")):
        steps = (Read(mask, ",".join(names)), Write(mask, "0xffffffff"), Read(mask, ",".join(names)))
        yield Seen(f"{len(names)} reasons on {version}", "mask width", V6, steps, {"reason_names": names})


V5_REASONS: Final = ("compaction", "syscall_or_cpuset", "demotion", "numa_misplaced")
FOLIOS_PER_BATCH: Final = {
    MigrationReason.SYSCALL_OR_CPUSET: (512, 512),
    MigrationReason.MEMPOLICY_MBIND: (512, 512),
    MigrationReason.MEMORY_HOTPLUG: (1, 512),
    MigrationReason.DAMON: (1, 512),
    MigrationReason.COMPACTION: (1, 480),
    MigrationReason.CONTIG_RANGE: (1, 32),
    MigrationReason.DEMOTION: (1, 64),
    MigrationReason.NUMA_MISPLACED: (1, 1),
    MigrationReason.MEMORY_FAILURE: (1, 1),
    MigrationReason.LONGTERM_PIN: (1, 512),
}
"""Least and most by reason. What exactly the fake hands over, ``tests/unit/test_fakekernel_migration.py`` has."""

BY_COUNT: Final = (MigrationReason.SYSCALL_OR_CPUSET, MigrationReason.MEMPOLICY_MBIND)
"""Whoever asks for these says how many folios; of the others the kernel moves as many as it sees fit."""


def _reasons() -> Iterator[Seen]:
    demotion = Write("/sys/kernel/mm/numa/demotion_enabled", "1")
    for reason, (least, most) in FOLIOS_PER_BATCH.items():
        migrate = Do(Migrate(Workload(reason, 0), 512))
        some = _counters(512, 0) if reason in BY_COUNT else (Within("{dcbm}/folios_migrated", 1, 1 << 20), FAILED_NONE)
        steps = (demotion, Write("{dcbm}/reason_mask", reason.value), ON, migrate, *some)
        yield Seen(f"{reason} alone is offloaded", "reasons", V6, steps)
        offloaded = reason in V5_REASONS
        seen = some if offloaded else _counters(0, 0)
        yield Seen(f"{reason} is offloaded: {offloaded}", "reasons", V5, (demotion, ON, migrate, *seen))
        first = (Do(Advance(10)), Within("{dcbm}/folios_failures", least, most), Read("{dcbm}/folios_migrated", "0"))
        one_batch = (demotion, Write("{dcbm}/reason_mask", reason.value), Do(SetEngines(HUNG)), ON, migrate, *first)
        yield Seen(f"{reason} hands over {_range(least, most)} folios", "batch size", V6, one_batch)


def _files() -> Iterator[Seen]:
    channels = "{dcbm}/nr_dma_chan"
    flags = {name: getattr(os, name) for name in ("O_TRUNC", "O_APPEND", "O_CREAT")}
    for name, flag in flags.items():
        steps: Steps = (Write(channels, "5", flags=flag), Read(channels, "5"))
        yield Seen(f"{name} is taken without effect", "sysfs", BOTH, steps)
    attempts = {
        "truncate": 0,
        "open read-write": 0,
        "create beside": EACCES,
        "rename inside": EPERM,
        "rename over from elsewhere": EXDEV,
        "unlink": EPERM,
        "mkdir beside": EPERM,
        "chmod 0600": 0,
    }
    for action, number in attempts.items():
        steps = (Write(channels, "5"), Attempt(action, channels, number), Read(channels, "5"))
        yield Seen(action, "sysfs", BOTH, steps)
    for action in ("stat says 4096 bytes", "each write of a descriptor is a store", "a read after a rewind is fresh"):
        yield Seen(action, "sysfs", BOTH, (Attempt(action, channels),))
    nobody = (Read(channels, "1", uid=NOBODY), Write(channels, "2", EACCES, uid=NOBODY), Read(channels, "1"))
    yield Seen("nobody reads and may not write", "sysfs", BOTH, nobody)
    read_only = (Read(channels, "1"), Write(channels, "2", EROFS), Read(channels, "1"))
    yield Seen("a read-only mount refuses at the open", "sysfs", BOTH, read_only, {"read_only": True})


CLASS: Final = "/sys/class/dma"
BALANCING: Final = "/proc/sys/kernel/numa_balancing"
RATE_LIMIT: Final = "/proc/sys/kernel/numa_balancing_promote_rate_limit_MBps"
DEMOTION: Final = "/sys/kernel/mm/numa/demotion_enabled"
PRINTK_TIME: Final = "/sys/module/printk/parameters/time"
NODES: Final = "/sys/devices/system/node"
THP: Final = "/sys/kernel/mm/transparent_hugepage"


def _sysctls() -> Iterator[Seen]:
    as_two = (" 2", "\t2", "\n2", "2 ", "2 x", "2\n", "2\t9", "0x2", "0X2", "02", "2\n\n")
    counted = {"2 x": 2, "2\t9": 2}
    taken = dict.fromkeys(as_two, "2") | {"0": "0", "00": "0", "-0": "0", "1": "1", "3": "3", "4": "4"}
    for text, shown in taken.items():
        steps: Steps = (Write(BALANCING, text, returns=counted.get(text)), Read(BALANCING, shown))
        yield Seen(f"numa_balancing takes {text!r} as {shown}", "sysctl", NONE, steps)
    refused = ("5", "-1", "+2", "x", "2x", "2,", "\n", " ", "08", "0x", "--1", "4294967296", "18446744073709551618",
               "000000000000000000002", "2\r\n")  # fmt: skip
    for text in refused:
        steps = (Write(BALANCING, "1"), Write(BALANCING, text, EINVAL), Read(BALANCING, "1"))
        yield Seen(f"numa_balancing refuses {text!r}", "sysctl", NONE, steps)
    for text in ("0", "2147483647"):
        yield Seen(f"the rate limit takes {text}", "sysctl", NONE, (Write(RATE_LIMIT, text), Read(RATE_LIMIT, text)))
    for text in ("-1", "2147483648", "4294967295"):
        steps = (Write(RATE_LIMIT, "7"), Write(RATE_LIMIT, text, EINVAL), Read(RATE_LIMIT, "7"))
        yield Seen(f"the rate limit refuses {text}", "sysctl", NONE, steps)
    for action in ("a second write of a descriptor does nothing", "a read after the end is empty"):
        yield Seen(f"{action}: a sysctl", "sysctl", NONE, (Write(BALANCING, "1"), Attempt(action, BALANCING)))
    empty = (Write(BALANCING, "1"), Write(BALANCING, b"", returns=0), Read(BALANCING, "1"))
    yield Seen("a write of no bytes changes no sysctl", "sysctl", NONE, empty)
    nobody = (Read(BALANCING, uid=NOBODY), Write(BALANCING, "1", EACCES, uid=NOBODY))
    yield Seen("nobody reads a sysctl and may not write it", "sysctl", NONE, nobody)
    bare = (Write(BALANCING, "1", EPERM), Write(RATE_LIMIT, "9"), Read(RATE_LIMIT, "9"))
    yield Seen("root without CAP_SYS_ADMIN", "capability", NONE, bare, {"cap_sys_admin": False})


def _mainline() -> Iterator[Seen]:
    for path, on, off in ((DEMOTION, "true", "false"), (PRINTK_TIME, "Y", "N")):
        name = path.rpartition("/")[2]
        for text in ("1", "y", "on", "true", "10"):
            steps: Steps = (Write(path, "0"), Write(path, text), Read(path, on), Write(path, "1"))
            yield Seen(f"{name} takes {text!r}", "mainline", NONE, steps)
        for text in ("0", "N", "off", "false", "01"):
            steps = (Write(path, "1"), Write(path, text), Read(path, off), Write(path, "1"))
            yield Seen(f"{name} takes {text!r}", "mainline", NONE, steps)
        for text in ("2", "x", " 1", "-1", "\n"):
            steps = (Write(path, "1"), Write(path, text, EINVAL), Read(path, on))
            yield Seen(f"{name} refuses {text!r}", "mainline", NONE, steps)
    nodes = (
        *(Read(f"{NODES}/online", "0-2"), Read(f"{NODES}/has_cpu", "0-1"), Read(f"{NODES}/has_memory", "0-2")),
        *(Read(f"{NODES}/node2/cpulist", ""), Lists(f"{NODES}/node0", has=("cpulist", "distance", "vmstat"))),
    )
    yield Seen("three NUMA nodes, one without processors", "mainline", NONE, nodes)
    huge = (Read(f"{THP}/hpage_pmd_size", "2097152"), Read(f"{THP}/enabled", "always [madvise] never"))
    yield Seen("transparent huge pages", "mainline", NONE, huge)
    for name in COUNTERS:
        yield Seen(f"vmstat has {name}", "mainline", NONE, (Attempt(f"tells {name}", "/proc/vmstat"),))
    for name in NUMA_NODE_COUNTERS:
        where = f"{NODES}/node0/vmstat"
        yield Seen(f"each NUMA node counts {name}", "mainline", NONE, (Attempt(f"tells {name}", where),))
    for name in ("cpu", "memory", "io"):
        yield Seen(f"pressure of {name}", "mainline", NONE, (Attempt("is a pressure file", f"/proc/pressure/{name}"),))
    yield Seen("without the series", "mainline", NONE, (Lists("/sys/module", lacks=("dcbm",)),))


def _rights() -> Iterator[Seen]:
    modes = {f"{{dcbm}}/{name}": 0o644 for name in ("offloading", "nr_dma_chan", "folios_migrated", "folios_failures")}
    modes |= {f"/sys/module/dcbm/{name}": 0o444 for name in ("coresize", "initsize", "initstate", "refcnt", "taint")}
    modes |= {"/sys/module/dcbm/uevent": 0o200, DEMOTION: 0o644, BALANCING: 0o644, RATE_LIMIT: 0o644}
    modes |= {PRINTK_TIME: 0o644, f"{NODES}/online": 0o444, "/proc/vmstat": 0o444, f"{NODES}/node0/vmstat": 0o444}
    modes |= dict.fromkeys((f"{CLASS}/dma0chan0/{name}" for name in CHANNEL_FILES), 0o444)
    for path, mode in modes.items():
        yield Seen(f"mode of {path}", "rights", BOTH, (Attempt(f"mode {mode:04o}", path),))
    read_only = (
        "/sys/module/dcbm/refcnt",
        f"{CLASS}/dma0chan0/in_use",
        f"{NODES}/online",
        "/proc/sys/kernel/osrelease",
    )
    for path in read_only:
        yield Seen(f"root may not write {path}", "rights", BOTH, (Write(path, "1", EACCES),))
    yield Seen("root may not read uevent", "rights", BOTH, (Read("/sys/module/dcbm/uevent", errno=EACCES),))
    yield Seen("root opens vmstat for writing, and cannot write", "rights", BOTH, (Write("/proc/vmstat", "1", EIO),))
    folder = ("coresize", "holders", "initsize", "initstate", "notes", "refcnt", "sections", "taint", "uevent")
    v5 = ("offloading", "nr_dma_chan", "folios_migrated", "folios_failures")
    has: Steps = (Lists("/sys/module/dcbm", has=(*folder, *v5), lacks=("parameters", "reason_mask")),)
    yield Seen("the module's folder holds the driver's files", "module folder", V5, has)
    has = (Lists("/sys/module/dcbm", has=(*folder, "parameters"), lacks=v5), Lists("{dcbm}", has=(*v5, "reason_mask")))
    yield Seen("the driver's files are parameters", "module folder", V6, has)
    yield Seen("a module that nobody uses", "module folder", BOTH, (Read("/sys/module/dcbm/refcnt", "0"),))
    at_rest: Steps = tuple(Read(f"{CLASS}/dma0chan0/{name}", "0") for name in CHANNEL_FILES)
    links = (Attempt("is a link", f"{CLASS}/dma0chan0"), Attempt("is driven by ptdma", f"{DEVICE}/driver"))
    moved = (ON, Do(Migrate(MOVE_PAGES, 512)), *_counters(512, 0), *at_rest)
    yield Seen("a channel between batches, and what it counts", "mainline", BOTH, (*at_rest, *links, *moved))
    busy = (
        Do(SetOtherMigrator(registered=True)),
        Write("{dcbm}/offloading", "1", EBUSY),
        Read("{dcbm}/offloading", "0"),
    )
    told = (Logged("migrate_offload: DCBM: failed to register (-16)"), Write("{dcbm}/offloading", "0"))
    free = (Do(SetOtherMigrator(registered=False)), ON, Read("{dcbm}/offloading", "1"))
    yield Seen("a second migrator is refused", "EBUSY", BOTH, (*busy, *told, *free))


NUMA_NODE_COUNTERS: Final = (
    "nr_free_pages",
    "pgpromote_success",
    "pgpromote_candidate",
    "pgdemote_kswapd",
    "pgdemote_direct",
)
COUNTERS: Final = (
    *NUMA_NODE_COUNTERS,
    "pgmigrate_success",
    "pgmigrate_fail",
    "thp_migration_success",
    "thp_migration_fail",
    "thp_migration_split",
    "numa_pages_migrated",
    "numa_hint_faults",
    "numa_pte_updates",
    "pgdemote_khugepaged",
)
CHANNEL_FILES: Final = ("in_use", "memcpy_count", "bytes_transferred")


def _blocked() -> Iterator[Seen]:
    in_flight: Steps = (Do(SetEngines(HUNG)), ON, Do(Migrate(MOVE_PAGES, 512)))
    stall: Steps = (*in_flight, Begin(OFF), Do(AwaitBlocked("{dcbm}/offloading")))
    over = (Do(Advance(10)), End(), Read("{dcbm}/offloading", "0"), *_counters(0, 512))
    at_once: Steps = (
        Attempt("stat", "{dcbm}/folios_migrated"),
        Attempt("open and close", "{dcbm}/folios_migrated"),
        Lists("{dcbm}", has=("folios_migrated", "nr_dma_chan", "offloading")),
        Read("/sys/class/dma/dma0chan0/in_use", "1"),
        Read("/sys/module/virtio_net/parameters/csum", "Y"),
    )
    module: Steps = (Read("/sys/module/dcbm/refcnt", "1"), Read("/sys/module/dcbm/initstate", "live"))
    built_in_answers = (Read("/sys/module/printk/parameters/time", "Y"),)
    parameters: Steps = (
        Begin(Read("{dcbm}/folios_migrated", "0")),
        Begin(Read("{dcbm}/nr_dma_chan", "1")),
        Begin(Write("{dcbm}/folios_failures", "0")),
        Begin(Write("{dcbm}/reason_mask", "all")),
        *(
            Do(AwaitBlocked(f"{{dcbm}}/{name}"))
            for name in ("folios_migrated", "nr_dma_chan", "folios_failures", "reason_mask")
        ),
    )
    done = (Do(Advance(10)), End(), Read("{dcbm}/offloading", "0"))
    yield Seen(
        "a blocked turn-off blocks every parameter of the module and nothing else",
        "V6 blocked",
        V6,
        (*stall, *parameters, *at_once, *module, *built_in_answers, *done),
    )
    printk = "/sys/module/printk/parameters/time"
    yield Seen(
        "a blocked turn-off of a built-in driver blocks the parameters of every built-in module",
        "built-in blocked",
        V6,
        (*stall, *parameters, Begin(Read(printk, "Y")), Do(AwaitBlocked(printk)), *at_once, *done),
        {"built_in": True},
    )
    reads = (Read("{dcbm}/offloading", "1"), Read("{dcbm}/nr_dma_chan", "1"), *_counters(0, 0))
    writer = (Begin(Write("{dcbm}/nr_dma_chan", "2")), Do(AwaitBlocked("{dcbm}/nr_dma_chan")))
    yield Seen(
        "a blocked turn-off lets reads pass and shows 1",
        "V5 blocked",
        V5,
        (*stall, *reads, *writer, *at_once, *module, *built_in_answers, *over),
    )
    kill = (Attempt("kill the writer of a turn-off", "{dcbm}/offloading"), Read("{dcbm}/offloading", "0"))
    yield Seen("a killed writer is gone when its turn-off is over", "state D", BOTH, (*in_flight, *kill))


def _stalls() -> Iterator[Seen]:
    slow = (Do(SetEngines(SLOW)), Write("{dcbm}/nr_dma_chan", "2"), ON, Do(Migrate(MOVE_PAGES, 512)))
    yield Seen(
        "1024 base pages on a hung engine take 20 s, and offload stays on",
        "hung",
        BOTH,
        (
            *(Do(SetEngines(HUNG)), ON, Do(Migrate(MOVE_PAGES, 1024))),
            *(Do(Advance(9.5)), *_counters(0, 0), Counted("pgmigrate_success", 0)),
            *(Do(Advance(0.5)), *_counters(0, 512), Do(Advance(9.5)), *_counters(0, 512)),
            *(Do(Advance(0.5)), *_counters(0, 1024), Counted("pgmigrate_success", 1024)),
            *(Logged(FAILED_LINE.format(110), 2), Read("{dcbm}/offloading", "1")),
        ),
    )
    yield Seen(
        "two slow channels take 18 s without error or log line",
        "slow",
        BOTH,
        (
            *slow,
            Do(Advance(17.5)),
            *_counters(0, 0),
            Do(Advance(0.5)),
            *_counters(512, 0),
            Logged("DMA copy failed", 0),
        ),
    )


def _channels() -> Iterator[Seen]:
    by_cpu = (Read("{dcbm}/offloading", "1"), *_counters(0, 0), Counted("pgmigrate_success", 512))
    quiet = Logged("DMA copy failed", 0)
    migrate = Do(Migrate(MOVE_PAGES, 512))
    yield Seen(
        "without any engine offload is on and does nothing",
        "no check",
        BOTH,
        (Do(SetEngines(())), ON, migrate, *by_cpu),
    )
    taken = (DmaEngine("ptdma", channels=2, taken=2),)
    yield Seen(
        "a batch without a channel tells nobody",
        "no channel",
        BOTH,
        (Do(SetEngines(taken)), ON, migrate, *by_cpu, quiet),
    )
    yield Seen(
        "an engine that left and came back is used without a write",
        "provider",
        BOTH,
        (ON, Do(SetEngines(())), migrate, *by_cpu, Do(SetEngines(FOUR_CHANNELS)), migrate, *_counters(512, 0)),
    )
    for channels, offloaded in (("4", 512), ("2", 1024)):
        tasks = Do(Migrate(Workload(SYSCALL, 0, concurrency=2), 1024))
        steps = (Do(SetEngines(FOUR_CHANNELS)), Write("{dcbm}/nr_dma_chan", channels), ON, tasks)
        after = (*_counters(offloaded, 0), Counted("pgmigrate_success", 1024), quiet)
        yield Seen(
            f"two tasks, {channels} of 4 channels each: {offloaded} of 1024", "concurrency", BOTH, (*steps, *after)
        )
    public = (Do(SetEngines((DmaEngine("ptdma", public=True),))), ON)
    yield Seen(
        "a public engine serves while nobody else uses dmaengine",
        "public",
        BOTH,
        (*public, migrate, *_counters(512, 0), Do(SetDmaengineUsers(1)), migrate, *_counters(512, 0)),
    )


def _faults() -> Iterator[Seen]:
    migrate = Do(Migrate(MOVE_PAGES, 512))
    for wrong, pages in ((1.0, 512), (511 / 512, 511)):
        lie = (
            Do(SetEngines((DmaEngine("ptdma", wrong_share=wrong),))),
            ON,
            migrate,
            *_counters(512, 0),
            Corrupted(pages),
        )
        yield Seen(f"{pages} of 512 pages wrong, failures 0", "lies", BOTH, lie)
    failing = (Do(SetEngines((DmaEngine("ptdma", error_share=1.0),))), ON, Do(Migrate(MOVE_PAGES, 512 * 25)))
    limited = (*_counters(0, 512 * 25), Logged(FAILED_LINE.format(5), 10))
    suppressed = (Do(Advance(5.5)), migrate, Logged("15 callbacks suppressed"), Logged(FAILED_LINE.format(5), 11))
    yield Seen("25 failed batches leave ten lines", "log limit", BOTH, (*failing, *limited, *suppressed))
    places: tuple[tuple[str, int | None, Steps], ...] = (
        ("a platform device has no numa_node", None, (Lists(DEVICE, has=("driver",), lacks=("numa_node",)),)),
        ("a platform device that has a NUMA node shows it", 1, (Read(f"{DEVICE}/numa_node", "1"),)),
        ("a PCI device that has no NUMA node shows -1", -1, (Read(f"{DEVICE}/numa_node", "-1"),)),
    )
    for name, numa_node, steps in places:
        engine = Do(SetEngines((DmaEngine("ptdma", numa_node=numa_node),)))
        yield Seen(name, "platform device", BOTH, (engine, *steps))


def _folios() -> Iterator[Seen]:
    twice = Do(Migrate(Workload(SYSCALL, 0, retried_share=1 / 16), 16))
    steps = (ON, twice, *_counters(17, 0), Counted("pgmigrate_success", 16), Counted("pgmigrate_fail", 0))
    yield Seen("16 folios, one of them tried twice: 17", "copied twice", BOTH, steps)
    one_pass = Do(Migrate(Workload(MigrationReason.NUMA_MISPLACED, 0, retried_share=1 / 16), 16))
    yield Seen(
        "a caller without a synchronous pass copies once", "synchronous", BOTH, (ON, one_pass, *_counters(16, 0))
    )
    yield Seen("a caller with a synchronous pass copies again", "synchronous", BOTH, (ON, twice, *_counters(17, 0)))
    pinned = Do(Migrate(Workload(SYSCALL, 0, pinned_share=0.25), 64))
    moved = (Counted("pgmigrate_success", 48), Counted("pgmigrate_fail", 16))
    yield Seen("pinned folios are left out", "pinned", V6, (ON, pinned, *_counters(48, 0), *moved))
    yield Seen(
        "pinned folios are copied in both passes", "pinned", V5, (ON, pinned, *_counters(48 + 2 * 16, 0), *moved)
    )
    huge = Do(Migrate(Workload(SYSCALL, 0, folio_pages=512, hugetlb=True), 4))
    yield Seen("4 hugetlb pages", "hugetlb", BOTH, (ON, huge, *_counters(0, 0), Counted("pgmigrate_success", 2048)))
    thp = (Do(SetEngines(HUNG)), ON, Do(Migrate(Workload(SYSCALL, 0, folio_pages=512), 2)))
    failing = Do(SetEngines((DmaEngine("ptdma", error_share=1.0),)))
    mixed = Do(MoveOwnPages(SYSCALL, source=0, destination=1, small=511, huge=1))
    one_batch = (*_counters(0, 512), Counted("thp_migration_success", 1), Logged(FAILED_LINE.format(5), 1))
    yield Seen("511 base pages and a huge page are one batch", "mixed batch", BOTH, (failing, ON, mixed, *one_batch))
    yield Seen("two huge pages are two batches", "ceiling", BOTH, (*thp, Do(Advance(10)), *_counters(0, 1)))


def _lives() -> Iterator[Seen]:
    changed = (Write("{dcbm}/nr_dma_chan", "8"), ON, Do(Migrate(MOVE_PAGES, 512)), OFF, ON, *_counters(512, 0), OFF)
    fresh = (Read("{dcbm}/offloading", "0"), Read("{dcbm}/nr_dma_chan", "1"), *_counters(0, 0))
    yield Seen(
        "counters outlast off and on, nothing outlasts an unload",
        "lost",
        BOTH,
        (*changed, Do(Unload()), Do(Load()), *fresh),
    )
    yield Seen("nothing outlasts a reboot", "lost", BOTH, (*changed, Do(Reboot()), *fresh))
    gone = (Do(Unload()), Read("{dcbm}/offloading", errno=ENOENT), Do(Load()))
    yield Seen("an unload takes the files away", "lost", BOTH, gone)
    yield Seen("a module in use stays", "lost", BOTH, (ON, Do(Unload(), EAGAIN), Read("{dcbm}/offloading", "1"), OFF))
    kept = Attempt("use a descriptor held over an unload", "{dcbm}/offloading", ENODEV)
    yield Seen("a descriptor held over an unload", "lost", BOTH, (kept,))
    orders: tuple[dict[str, str], ...] = (
        {"nr_dma_chan": "8", "reason_mask": "demotion,numa_misplaced", "offloading": "1"},
        {"offloading": "1", "reason_mask": "demotion,numa_misplaced", "nr_dma_chan": "8"},
    )
    for order in orders:
        loaded = (Do(Unload()), Do(Load(order)))
        taken = (
            Read("{dcbm}/offloading", "1"),
            Read("{dcbm}/nr_dma_chan", "8"),
            Read("{dcbm}/reason_mask", "numa_misplaced,demotion"),
        )
        yield Seen(f"loaded with {', '.join(order)}", "load parameters", V6, (*loaded, *taken))
    bad = (Do(Unload()), Do(Load({"nr_dma_chan": "17"}), EINVAL), Lists("/sys/module", lacks=("dcbm",)), Do(Load()))
    yield Seen("a bad parameter fails the load", "load parameters", V6, bad)
    ignored = (Do(Unload()), Do(Load(orders[0])), *fresh, Logged("dcbm: unknown parameter 'offloading' ignored"))
    yield Seen("parameters are ignored", "load parameters", V5, ignored)
    folder = (Lists("/sys/module/dcbm", has=("parameters", "uevent"), lacks=("refcnt", "initstate")),)
    yield Seen("what a built-in driver's folder has", "built in", V6, folder, {"built_in": True})
    for given, shown in (("demotion", ",".join(REASONS_7_3)), ("0x100", "demotion")):
        mask = (Read("{dcbm}/reason_mask", shown),)
        host = {"built_in": True, "parameters": {"reason_mask": given}}
        yield Seen(f"dcbm.reason_mask={given} on the command line", "built in", V6, mask, host)
    absent = (Lists("/sys/module", lacks=("dcbm",)),)
    yield Seen("a driver that nobody loaded", "not loaded", BOTH, absent, {"loaded": False})
    told = (*absent, Attempt("configured as a module", "/proc/config.gz"))
    yield Seen("the configuration tells that it is a module", "not loaded", BOTH, told, {"loaded": False})


def _bytes() -> Iterator[Seen]:
    files = ("offloading", "nr_dma_chan", "folios_migrated", "folios_failures")
    empty = tuple(Write(f"{{dcbm}}/{name}", b"", returns=0) for name in files)
    steps: Steps = (Write("{dcbm}/nr_dma_chan", "4"), ON, Do(Migrate(MOVE_PAGES, 512)), *empty)
    after = (Read("{dcbm}/offloading", "1"), Read("{dcbm}/nr_dma_chan", "4"), *_counters(512, 0))
    yield Seen("a write of no bytes changes nothing, not even a counter", "bytes", BOTH, (*steps, *after))
    mask = "{dcbm}/reason_mask"
    cut = (Write(mask, "damon".ljust(4096) + ",demotion", returns=4096), Read(mask, "damon"))
    yield Seen("a write above 4096 bytes arrives cut", "bytes", V6, cut)
    garbage = (ON, Do(Migrate(MOVE_PAGES, 512)), Write("{dcbm}/folios_migrated", "garbage"), *_counters(0, 0))
    yield Seen("any write of a byte and more resets a counter", "bytes", BOTH, garbage)


SEEN: Final = tuple(
    row
    for rows in (
        _bools,
        _uints,
        _bytes,
        _masks,
        _reasons,
        _stalls,
        _channels,
        _faults,
        _folios,
        _blocked,
        _lives,
        _files,
        _rights,
        _sysctls,
        _mainline,
    )
    for row in rows()
)
"""The table."""
