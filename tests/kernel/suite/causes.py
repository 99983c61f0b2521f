# SPDX-License-Identifier: Apache-2.0
"""Makes the kernel migrate pages, for each reason that somebody in user space can give it.

Sources: move_pages(2), mbind(2), madvise(2), vmsplice(2), mmap(2); Documentation/admin-guide/cgroup-v2.rst
(memory.reclaim), admin-guide/mm/{hugetlbpage,memory-hotplug,transhuge}.rst, admin-guide/sysctl/vm.rst (compact_memory),
admin-guide/mm/damon/usage.rst.
"""

from __future__ import annotations

import array
import ctypes
import errno
import mmap
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from numamigration_api.vocabulary import MigrationReason
from tests.fakekernel.config import Workload
from tests.kernel.suite.lib import (
    LIBC,
    MASK_BITS,
    MPOL_BIND,
    MPOL_MF_MOVE,
    NODES,
    PAGE,
    SYS_MBIND,
    SYS_MOVE_PAGES,
    read,
    vmstat,
    write,
)

CLONE_NEWNS: Final = 0x00020000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
MAP_HUGETLB: Final = 0x40000
HUGE: Final = 512
"""Base pages of a huge one."""
SALT_BYTES: Final = 16
FRAME_BITS: Final = (1 << 55) - 1
LOWER_TIER: Final = 2
MEMORY: Final = "/sys/devices/system/memory"
BLOCK: Final = re.compile(r"memory\d+")
DAMON: Final = "/sys/kernel/mm/damon/admin/kdamonds"
DAMON_SECONDS_MAX: Final = 10.0
MCL_CURRENT: Final = 1
MADV_POPULATE_WRITE: Final = 23
MADV_SOFT_OFFLINE: Final = 101
POISONED_MAX: Final = 4
"""A page that was taken out of use never comes back."""
FOUND: Final = "/run/movable_block"
NEED_BLOCK: Final = frozenset({MigrationReason.MEMORY_HOTPLUG, MigrationReason.LONGTERM_PIN})
"""They take a memory block away, which ``movable_block`` has to find while nothing is offloaded."""
ABOVE_HUGE_PAGES: Final = 64
GROUP: Final = "/sys/fs/cgroup/moved"
CHILDREN: Final[list[int]] = []
SYS_SET_MEMPOLICY: Final = 238
CAPABILITY_VERSION_3, CAP_SYS_ADMIN = 0x20080522, 21
MPOL_DEFAULT, MPOL_LOCAL = 0, 4
SCANS_MAX: Final = 10
COMPACTED: Final = 16
"""So many times the pages that are asked for are spread, half of them holes."""
BALANCE_SOON: Final = {"scan_delay_ms": "10", "scan_period_min_ms": "10", "scan_period_max_ms": "50"}
BALANCED_SECONDS: Final = 2.0
SYS_IO_URING_SETUP, SYS_IO_URING_REGISTER = 425, 427
IORING_REGISTER_BUFFERS: Final = 0
IO_URING_PARAMS_BYTES: Final = 120

Work = Callable[[], None]


class Own:
    """Pages of this process on one NUMA node, each with content of its own.

    Args:
        count: of folios.
        node: where they lie at first; None: wherever this task runs.
        folio_pages: 1, or 512 for transparent huge pages.
        hugetlb: huge pages of the other kind.
        salted: False leaves them empty, which many pages are sooner.
    """

    def __init__(
        self, count: int, node: int | None, *, folio_pages: int = 1, hugetlb: bool = False, salted: bool = True
    ) -> None:
        self._step = folio_pages * PAGE
        self._length = count * self._step
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | (MAP_HUGETLB if hugetlb else 0)
        self._memory = mmap.mmap(-1, self._length + (0 if hugetlb else HUGE * PAGE), flags=flags)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._skipped = -start % (HUGE * PAGE) if not hugetlb else 0
        self._address = start + self._skipped
        if not hugetlb:
            self._memory.madvise(mmap.MADV_NOHUGEPAGE if folio_pages == 1 else mmap.MADV_HUGEPAGE)
        if node is not None:
            self.bind(node, 0)
        self._salt = os.urandom(SALT_BYTES - 8)
        if not salted:
            _call("madvise", ctypes.c_void_p(self._address), ctypes.c_size_t(self._length), MADV_POPULATE_WRITE)
            return
        for index in range(self._length // PAGE):
            self._memory[self._at(index)] = self._content(index)

    @property
    def folios(self) -> list[int]:
        """Where each folio begins."""
        return list(range(self._address, self._address + self._length, self._step))

    def bind(self, node: int, flags: int) -> None:
        """Bind the pages to a NUMA node, and move them there if the flags say so."""
        mask = ctypes.c_ulong(1 << node)
        _system_call(SYS_MBIND, ctypes.c_void_p(self._address), ctypes.c_ulong(self._length), MPOL_BIND,
                     ctypes.byref(mask), ctypes.c_ulong(MASK_BITS), flags)  # fmt: skip

    def damaged(self) -> int:
        """Return how many base pages do not begin with what was written."""
        return sum(self._memory[self._at(index)] != self._content(index) for index in range(self._length // PAGE))

    def frames(self) -> list[int]:
        """Return the page frame number of each base page (Documentation/admin-guide/mm/pagemap.rst)."""
        with open("/proc/self/pagemap", "rb") as stream:
            stream.seek(self._address // PAGE * 8)
            data = stream.read(self._length // PAGE * 8)
        return [entry & FRAME_BITS for entry in memoryview(data).cast("Q")]

    def free(self, begin: int = 0, end: int | None = None) -> None:
        """Give base pages back, all of them or those from `begin` up to `end`; they read as zeros then."""
        end = self._length // PAGE if end is None else end
        if begin < end:
            address, length = ctypes.c_void_p(self._address + begin * PAGE), ctypes.c_size_t((end - begin) * PAGE)
            _call("madvise", address, length, mmap.MADV_DONTNEED)

    def advise(self, index: int, advice: int) -> None:
        """Say something about one base page; madvise(2)."""
        _call("madvise", ctypes.c_void_p(self._address + index * PAGE), ctypes.c_size_t(PAGE), advice)

    def touch(self) -> None:
        """Read each base page."""
        for index in range(self._length // PAGE):
            self._memory[self._skipped + index * PAGE]

    def hold(self, count: int) -> tuple[int, int]:
        """Hold a reference to the first pages, as direct I/O does: they lie in a pipe, whose ends are returned."""
        ends = os.pipe()
        vector = (ctypes.c_ulong * 2)(self._address, count * PAGE)
        if LIBC.vmsplice(ends[1], vector, ctypes.c_ulong(1), 0) != count * PAGE:
            raise OSError(ctypes.get_errno(), "vmsplice")
        return ends

    def _at(self, index: int) -> slice:
        begin = self._skipped + index * PAGE
        return slice(begin, begin + SALT_BYTES)

    def _content(self, index: int) -> bytes:
        return index.to_bytes(8, "little") + self._salt


def move(folios: list[int], node: int) -> Counter[int]:
    """Move folios by one system call and return how often each status came: a NUMA node, or a negative errno."""
    count = len(folios)
    addresses = (ctypes.c_void_p * count)(*folios)
    nodes, status = (ctypes.c_int * count)(*[node] * count), (ctypes.c_int * count)()
    _system_call(SYS_MOVE_PAGES, 0, ctypes.c_ulong(count), addresses, nodes, status, MPOL_MF_MOVE)
    return Counter(status)


def where(folios: list[int]) -> Counter[int]:
    """Return how many folios are on which NUMA node."""
    count = len(folios)
    status = (ctypes.c_int * count)()
    _system_call(SYS_MOVE_PAGES, 0, ctypes.c_ulong(count), (ctypes.c_void_p * count)(*folios), None, status, 0)
    return Counter(status)


def works(workload: Workload, folios: int, owned: list[Own]) -> Iterator[Work]:
    """Return what each of a workload's tasks has to do; its pages are added to `owned`.

    Raises:
        NotImplementedError: nobody in user space can give the kernel that reason.
    """
    if workload.reason not in CAUSES:
        raise NotImplementedError(f"{workload.reason}: nobody in user space can cause it")
    for _ in range(workload.concurrency):
        yield CAUSES[workload.reason](workload, folios // workload.concurrency, owned)


def _by_move_pages(workload: Workload, count: int, owned: list[Own]) -> Work:
    if workload.hugetlb:
        for node in (0, 1):
            reserve_huge_pages(node, count)
    own = Own(count, 0, folio_pages=workload.folio_pages, hugetlb=workload.hugetlb)
    owned.append(own)
    held = round(count * workload.pinned_share)
    if held:
        own.hold(held)

    def work() -> None:
        move(own.folios, 1)
        _expect_moved(where(own.folios), count - held)  # of a call that leaves some behind no status tells

    return work


def _by_mbind(_workload: Workload, count: int, owned: list[Own]) -> Work:
    own = Own(count, 0)
    owned.append(own)

    def work() -> None:
        own.bind(1, MPOL_MF_MOVE)
        _expect_moved(where(own.folios), count)

    return work


def _expect_moved(found: Counter[int], count: int) -> None:
    if found[1] != count:
        raise AssertionError(f"{count} folios should be on NUMA node 1: {found}")


def reserve_huge_pages(node: int, count: int) -> None:
    """Have huge pages of the kind that is set aside."""
    path = f"{NODES}/node{node}/hugepages/hugepages-2048kB/nr_hugepages"
    with open(path, "w") as stream:
        stream.write(str(count))


def _by_compaction(_workload: Workload, count: int, owned: list[Own]) -> Work:
    # It takes everybody's pages, ours too, and whoever touches one that is on its way waits: locked ones it leaves.
    write_all("/proc/sys/vm/compact_unevictable_allowed", "0")
    _call("mlockall", MCL_CURRENT)
    # Compaction moves pages to higher addresses, and memory is given out from there: what is free above must come late.
    above = Own(ABOVE_HUGE_PAGES, 0, folio_pages=HUGE, salted=False)
    own = Own(COMPACTED * count, 0)
    owned.append(own)
    for index in range(0, COMPACTED * count, 2):
        own.advise(index, mmap.MADV_DONTNEED)  # holes: half of the memory is free, and nowhere in one piece
    above.free()
    return _compact


def _compact() -> None:
    # Of what a scan takes all may be in somebody's use for a moment; then no batch was handed over, and nothing moved.
    moved = vmstat()["pgmigrate_success"]
    for _ in range(SCANS_MAX):
        write_all("/proc/sys/vm/compact_memory", "1")
        if vmstat()["pgmigrate_success"] > moved:
            return


def _by_soft_offline(_workload: Workload, count: int, owned: list[Own]) -> Work:
    own = Own(min(count, POISONED_MAX), 0)
    owned.append(own)

    def work() -> None:
        for index in range(len(own.folios)):
            own.advise(index, MADV_SOFT_OFFLINE)

    return work


def _by_memory_hotplug(_workload: Workload, count: int, owned: list[Own]) -> Work:
    block = movable_block()
    owned.append(Own(count, LOWER_TIER))

    def work() -> None:
        write_all(f"{block}/state", "offline")
        write_all(f"{block}/state", "online_movable")

    return work


def _by_longterm_pin(_workload: Workload, count: int, owned: list[Own]) -> Work:
    movable_block()
    own = Own(count, LOWER_TIER)
    owned.append(own)
    return lambda: register_buffer(own)


def _by_demotion(_workload: Workload, count: int, _owned: list[Own]) -> Work:
    idle_process(2 * count)
    return lambda: write_all(f"{GROUP}/memory.reclaim", str(count * PAGE), may_fail={errno.EAGAIN})


def _by_damon(_workload: Workload, count: int, _owned: list[Own]) -> Work:
    frames = idle_process(count)
    return lambda: migrate_by_damon(min(frames) * PAGE, (max(frames) + 1) * PAGE, node=1)


def idle_process(count: int) -> list[int]:
    """Start a process that has pages on node 0, in a control group of its own, and return their frame numbers.

    It does nothing else, for whoever touches a page that is on its way waits until it has arrived.
    """
    ready, told = os.pipe()
    child = os.fork()
    if not child:
        enter_group()
        own = Own(count, 0)
        os.write(told, array.array("Q", own.frames()).tobytes())
        os.close(told)
        signal.pause()
        own.touch()
    CHILDREN.append(child)
    os.close(told)
    with os.fdopen(ready, "rb") as stream:
        return array.array("Q", stream.read()).tolist()


def end_children() -> None:
    """End the processes that were started here."""
    while CHILDREN:
        child = CHILDREN.pop()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _by_numa_balancing(_workload: Workload, count: int, _owned: list[Own]) -> Work:
    for name, value in BALANCE_SOON.items():
        write_all(f"/sys/kernel/debug/sched/numa_balancing/{name}", value)

    def work() -> None:
        write_all("/proc/sys/kernel/numa_balancing", "1")
        child = os.fork()
        if not child:
            _touch_from_elsewhere(count)
        CHILDREN.append(child)
        time.sleep(BALANCED_SECONDS)

    return work


def _touch_from_elsewhere(count: int) -> None:
    set_policy(MPOL_DEFAULT)
    os.sched_setaffinity(0, {0})
    own = Own(count, None)
    os.sched_setaffinity(0, {1})
    while True:
        own.touch()


def write_all(path: str, value: str, *, may_fail: frozenset[int] | set[int] = frozenset()) -> None:
    """Write what the kernel must take, with one write(2)."""
    number = write(path, value)
    if number and number not in may_fail:
        raise OSError(number, f"{path} did not take {value!r}: {os.strerror(number)}")


def enter_group() -> None:
    """Go into a control group of our own, so that what is allocated from now on is charged to it."""
    write("/sys/fs/cgroup/cgroup.subtree_control", "+memory")
    os.makedirs(GROUP, exist_ok=True)
    write_all(f"{GROUP}/cgroup.procs", "0")


def movable_block() -> str:
    """Return the folder of a memory block of the lower tier that can be taken away; movable pages come from it first.

    It is found by trying, for in the first one is the kernel's own list of pages, and in the last one a hole for the
    firmware's tables; and remembered for this boot.
    """
    if not os.path.exists(FOUND):
        block = next(block for block in reversed(blocks(LOWER_TIER)) if not write(f"{block}/state", "offline"))
        write_all(f"{block}/state", "online_movable")
        with open(FOUND, "w") as stream:
            stream.write(block)
    return read(FOUND)


def blocks(node: int) -> list[str]:
    """Return the folders of a NUMA node's memory blocks, in the order of their addresses."""
    numbers = [int(name.removeprefix("memory")) for name in os.listdir(f"{NODES}/node{node}") if BLOCK.fullmatch(name)]
    return [f"{MEMORY}/memory{number}" for number in sorted(numbers)]


def set_policy(mode: int) -> None:
    """Set the memory policy of this task; with one of its own NUMA balancing leaves its pages alone."""
    _system_call(SYS_SET_MEMPOLICY, mode, None, 0)


def register_buffer(own: Own) -> None:
    """Pin pages for a long time, as io_uring does with the buffers it is told of."""
    ring = LIBC.syscall(SYS_IO_URING_SETUP, 1, ctypes.create_string_buffer(IO_URING_PARAMS_BYTES))
    if ring < 0:
        raise OSError(ctypes.get_errno(), "io_uring_setup")
    vector = (ctypes.c_ulong * 2)(own.folios[0], len(own.folios) * PAGE)
    _system_call(SYS_IO_URING_REGISTER, ring, IORING_REGISTER_BUFFERS, vector, 1)
    os.close(ring)


def migrate_by_damon(start: int, end: int, *, node: int) -> None:
    """Have DAMON migrate whatever is cold in a range of physical addresses, and all is."""
    for name, value in damon_settings(start, end, node):
        write_all(f"{DAMON}/{name}", value)
    write_all(f"{DAMON}/0/state", "on")
    try:
        deadline = time.monotonic() + DAMON_SECONDS_MAX
        tried = f"{DAMON}/0/contexts/0/schemes/0/stats/nr_applied"
        while time.monotonic() < deadline and read(tried) == "0":
            time.sleep(0.02)
            write_all(f"{DAMON}/0/state", "update_schemes_stats")
    finally:
        write_all(f"{DAMON}/0/state", "off")


def damon_settings(start: int, end: int, node: int) -> Iterator[tuple[str, str]]:
    """Return what has to be written, in this order: a number of folders makes the folders."""
    yield "nr_kdamonds", "1"
    yield "0/contexts/nr_contexts", "1"
    context = "0/contexts/0"
    yield f"{context}/operations", "paddr"
    for name, value in {"sample_us": "5000", "aggr_us": "50000", "update_us": "1000000"}.items():
        yield f"{context}/monitoring_attrs/intervals/{name}", value
    yield f"{context}/targets/nr_targets", "1"
    yield f"{context}/targets/0/regions/nr_regions", "1"
    yield f"{context}/targets/0/regions/0/start", str(start)
    yield f"{context}/targets/0/regions/0/end", str(end)
    yield f"{context}/schemes/nr_schemes", "1"
    scheme = f"{context}/schemes/0"
    yield f"{scheme}/action", "migrate_cold"
    yield f"{scheme}/target_nid", str(node)
    for name in ("sz", "nr_accesses", "age"):
        yield f"{scheme}/access_pattern/{name}/max", str(1 << 31)
    yield f"{scheme}/filters/nr_filters", "1"
    for name, value in {"type": "memcg", "memcg_path": GROUP.removeprefix("/sys/fs/cgroup"), "matching": "N"}.items():
        yield f"{scheme}/filters/0/{name}", value  # leaves out what does not match


CAUSES: Final[dict[MigrationReason, Callable[[Workload, int, list[Own]], Work]]] = {
    MigrationReason.SYSCALL_OR_CPUSET: _by_move_pages,
    MigrationReason.MEMPOLICY_MBIND: _by_mbind,
    MigrationReason.COMPACTION: _by_compaction,
    MigrationReason.MEMORY_FAILURE: _by_soft_offline,
    MigrationReason.MEMORY_HOTPLUG: _by_memory_hotplug,
    MigrationReason.LONGTERM_PIN: _by_longterm_pin,
    MigrationReason.DEMOTION: _by_demotion,
    MigrationReason.DAMON: _by_damon,
    MigrationReason.NUMA_MISPLACED: _by_numa_balancing,
}


def move_own(source: int, destination: int, *, small: int, huge: int) -> None:
    """Move small and huge pages with one system call, the small ones first."""
    owned = [Own(small, source), *([Own(huge, source, folio_pages=HUGE)] if huge else [])]
    folios = [folio for own in owned for folio in own.folios]
    found = move(folios, destination)
    if found != {destination: small + huge}:
        raise AssertionError(f"{small} + {huge} folios should be on NUMA node {destination}: {found}")


def see_sys_read_only() -> None:
    """See /sys through a read-only mount from now on, in this process alone; before it has threads."""
    _call("unshare", CLONE_NEWNS)
    _call("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
    _call("mount", b"/sys", b"/sys", None, MS_BIND | MS_REC, None)
    _call("mount", None, b"/sys", None, MS_REMOUNT | MS_BIND | MS_RDONLY, None)


def drop_sys_admin() -> None:
    """Be root without CAP_SYS_ADMIN from now on, in this process; before it has threads (capset(2))."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)()
    _call("capget", header, data)
    for place in (0, 1):  # effective and permitted, of the first 32 capabilities
        data[place] &= ~(1 << CAP_SYS_ADMIN)
    _call("capset", header, data)


def _call(name: str, *arguments: object) -> None:
    if getattr(LIBC, name)(*arguments):
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


def _system_call(number: int, *arguments: object) -> None:
    if LIBC.syscall(number, *arguments) < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"system call {number}: {os.strerror(error)}")
