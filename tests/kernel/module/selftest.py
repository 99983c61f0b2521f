# SPDX-License-Identifier: Apache-2.0
"""Runs softdma and dcbm in a virtual machine and looks at what they do: ``selftest.py FOLDER``, as root, in the guest.

FOLDER holds ``softdma/softdma.ko``, ``v5/dcbm.ko`` and ``v6/dcbm.ko``. A second argument chooses checks by a part of
their name. Only the standard library; x86-64 system calls. Never on a machine that matters: it loads modules that
replace a part of the kernel's page migration.

One line a check, ``ok NAME (seconds)`` or ``FAIL NAME: why``; exit 1 when one failed.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import re
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

PAGE = 4096
SYS_MBIND, SYS_VMSPLICE, SYS_MOVE_PAGES = 237, 278, 279  # arch/x86/entry/syscalls/syscall_64.tbl
MPOL_DEFAULT, MPOL_BIND, MPOL_MF_MOVE = 0, 2, 2
MADV_HUGEPAGE = 14
MAP_HUGETLB = 0x40000
ENGINE = Path("/sys/module/softdma/parameters")
TEST = Path("/sys/kernel/debug/dcbm_test")
CLASS = Path("/sys/class/dma")
FOLDERS = {"v5": Path("/sys/module/dcbm"), "v6": Path("/sys/module/dcbm/parameters")}
REASONS = (
    "compaction,memory_failure,memory_hotplug,syscall_or_cpuset,mempolicy_mbind,"
    "numa_misplaced,contig_range,longterm_pin,demotion,damon"
)
LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass
class Run:
    """What is under test."""

    modules: Path = Path()
    revision: str = ""


RUN = Run()
CHECKS: list[tuple[tuple[str, ...], Callable[[], None]]] = []


def check(*revisions: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Mark a function as a check of these revisions; none: of both."""

    def mark(function: Callable[[], None]) -> Callable[[], None]:
        CHECKS.append((revisions or ("v5", "v6"), function))
        return function

    return mark


def expect(found: object, wanted: object, what: str) -> None:
    if found != wanted:
        raise AssertionError(f"{what}: {found!r}, expected {wanted!r}")


# Files and modules.


def write(path: Path, text: str | bytes) -> int:
    """Write with one system call; return the errno, 0 when it was taken."""
    data = text.encode() if isinstance(text, str) else text
    try:
        descriptor = os.open(path, os.O_WRONLY)
        try:
            expect(os.write(descriptor, data), len(data), f"{path}: bytes taken")
        finally:
            os.close(descriptor)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def must_write(path: Path, text: str) -> None:
    expect(write(path, text), 0, f"{path}: errno of {text!r}")


def read(path: Path) -> str:
    return path.read_text().removesuffix("\n")


def dcbm(name: str) -> Path:
    return FOLDERS[RUN.revision] / name


def run(*command: str) -> str:
    """Run a program; return what it says when it fails."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return (done.stderr.strip() or str(done.returncode)) if done.returncode else ""


def load_engine(*parameters: str) -> None:
    expect(run("insmod", str(RUN.modules / "softdma/softdma.ko"), *parameters), "", "insmod softdma")


def load_driver(*parameters: str) -> None:
    expect(run("insmod", str(RUN.modules / RUN.revision / "dcbm.ko"), *parameters), "", "insmod dcbm")


def unload(name: str) -> None:
    expect(run("rmmod", name), "", f"rmmod {name}")


def loaded(name: str) -> bool:
    return Path("/sys/module", name).exists()


ENGINE_AT_REST = {
    "hang": "N",
    "skip": "N",
    "corrupt": "N",
    "sysfs_counts": "N",
    "victim": "0",
    "delay_us": "0",
    "batch_delay_ms": "0",
    "refuse_permille": "0",
    "abort_permille": "0",
    "reverse": "N",
    "taken": "0",
    "others": "N",
    "channels": "4",
}


@contextmanager
def both_loaded(**switches: str) -> Iterator[None]:
    """Have both modules loaded, everything at rest but these switches of the engine; they stay loaded."""
    if not loaded("softdma"):
        load_engine()
    if not loaded("dcbm"):
        load_driver()
    try:
        for name, value in switches.items():
            must_write(ENGINE / name, value)
        yield
    finally:
        for name, value in ENGINE_AT_REST.items():
            must_write(ENGINE / name, value)
        for name in ("offloading", "folios_migrated", "folios_failures"):
            must_write(dcbm(name), "0")
        must_write(dcbm("nr_dma_chan"), "1")
        if RUN.revision == "v6":
            must_write(dcbm("reason_mask"), "all")
        for name, value in {"timeout_ms": "10000", "cpu_delay_us": "0", "other_migrator": "N"}.items():
            must_write(TEST / name, value)


def unload_both() -> None:
    for name in ("dcbm", "softdma"):
        if loaded(name):
            unload(name)


def counters() -> tuple[int, int]:
    return int(read(dcbm("folios_migrated"))), int(read(dcbm("folios_failures")))


def reasons() -> dict[str, dict[str, int]]:
    """Return the module's own count, by reason."""
    rows = (line.split() for line in (TEST / "reasons").read_text().splitlines())
    return {name: {key: int(value) for key, value in (part.split("=") for part in parts)} for name, *parts in rows}


def grown_since(before: dict[str, dict[str, int]], reason: str) -> dict[str, int]:
    now = reasons()[reason]
    return {key: now[key] - before[reason][key] for key in now if now[key] != before[reason][key]}


def engine_counts() -> list[int]:
    """Return transfers and bytes of the engine, then memcpy_count of each channel."""
    files = [ENGINE / "transfers", ENGINE / "bytes", *(path / "memcpy_count" for path in sorted(CLASS.glob("dma*")))]
    return [int(read(path)) for path in files]


def vmstat(name: str) -> int:
    found = re.search(rf"^{name} (\d+)$", Path("/proc/vmstat").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


def kernel_log() -> list[str]:
    return subprocess.run(("dmesg",), capture_output=True, text=True, check=True).stdout.splitlines()


# Memory.


def move_pages(pid: int, start: int, pages: int, node: int, step: int = 1) -> int:
    """Move each `step`-th page of a process, 0 is this one; return how many are on the node then."""
    return move_addresses(pid, range(start, start + pages // step * step * PAGE, step * PAGE), node)


def move_addresses(pid: int, starts: Sequence[int], node: int) -> int:
    count = len(starts)
    addresses = (ctypes.c_void_p * count)(*starts)
    nodes, status = (ctypes.c_int * count)(*[node] * count), (ctypes.c_int * count)(*[-1] * count)
    LIBC.syscall(SYS_MOVE_PAGES, pid, ctypes.c_ulong(count), addresses, nodes, status, MPOL_MF_MOVE)
    return sum(value == node for value in status)


def pages_on(start: int, pages: int, node: int) -> int:
    """Ask where pages of this process are; return how many are on the node."""
    addresses = (ctypes.c_void_p * pages)(*range(start, start + pages * PAGE, PAGE))
    status = (ctypes.c_int * pages)()
    LIBC.syscall(SYS_MOVE_PAGES, 0, ctypes.c_ulong(pages), addresses, None, status, 0)
    return sum(value == node for value in status)


class Memory:
    """Random pages of this process, at first on one NUMA node."""

    def __init__(self, pages: int, node: int = 0, *, huge: bool = False, flags: int = 0) -> None:
        self.pages = pages
        self._map = mmap.mmap(-1, (pages + 512) * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | flags)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self._skipped = -start % (512 * PAGE)
        self.start = start + self._skipped
        if huge:
            expect(
                LIBC.madvise(ctypes.c_void_p(self.start), ctypes.c_size_t(pages * PAGE), MADV_HUGEPAGE), 0, "madvise"
            )
        self.bind(node)
        self._content = os.urandom(pages * PAGE)
        self._map[self._skipped : self._skipped + pages * PAGE] = self._content

    def touch(self, seconds: float) -> int:
        """Read every page over and over, with no policy of its own."""
        LIBC.syscall(
            SYS_MBIND, ctypes.c_void_p(self.start), ctypes.c_ulong(self.pages * PAGE), MPOL_DEFAULT, None, 0, 0
        )
        deadline, rounds = time.monotonic() + seconds, 0
        while time.monotonic() < deadline:
            sum(self._map[self._skipped : self._skipped + self.pages * PAGE : PAGE])
            rounds += 1
        return rounds

    def bind(self, node: int, flags: int = 0) -> None:
        mask = ctypes.c_ulong(1 << node)
        length = ctypes.c_ulong(self.pages * PAGE)
        rc = LIBC.syscall(SYS_MBIND, ctypes.c_void_p(self.start), length, MPOL_BIND, ctypes.byref(mask), 64, flags)
        expect(rc, 0, f"mbind, errno {ctypes.get_errno()}")

    def move(self, node: int, step: int = 1) -> int:
        """Move each `step`-th page; return how many are on the node then."""
        return move_pages(0, self.start, self.pages, node, step)

    def wrong_pages(self) -> int:
        """Count the pages that do not hold what was written."""
        return sum(was != now for was, now in self._compared())

    def wrong_bytes(self) -> int:
        return sum(a != b for was, now in self._compared() if was != now for a, b in zip(was, now, strict=True))

    def _compared(self) -> Iterator[tuple[bytes, bytes]]:
        now = bytes(self._map[self._skipped : self._skipped + self.pages * PAGE])
        return ((self._content[i : i + PAGE], now[i : i + PAGE]) for i in range(0, len(now), PAGE))


class Task(threading.Thread):
    """A call in a thread of its own, which may block."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self.result: object = None
        self.began = time.monotonic()
        self.seconds = -1.0
        self.start()

    def run(self) -> None:
        self.result = self._call()
        self.seconds = time.monotonic() - self.began

    def await_blocked(self) -> None:
        """Return when its call waits in the kernel, which no signal ends."""
        state = Path(f"/proc/self/task/{self.native_id}/stat")
        await_true(lambda: state.read_text().rpartition(")")[2].split()[0] == "D", "state D")

    def end(self, seconds_max: float = 60) -> object:
        self.join(seconds_max)
        expect(self.is_alive(), False, f"still blocked after {seconds_max} s")
        return self.result


def await_true(holds: Callable[[], bool], what: str, seconds_max: float = 20) -> None:
    deadline = time.monotonic() + seconds_max
    while not holds():
        expect(time.monotonic() < deadline, True, f"{what} within {seconds_max} s")
        time.sleep(0.01)


def in_use() -> int:
    return sum(int(read(channel / "in_use")) for channel in CLASS.glob("dma*chan*"))


# Checks.


@check()
def files_have_mode_0644_and_first_values() -> None:
    with both_loaded():
        expect(read(TEST / "timeout_ms"), "10000", "time-out")
        wanted = {"offloading": "0", "nr_dma_chan": "1", "folios_migrated": "0", "folios_failures": "0"}
        if RUN.revision == "v6":
            wanted["reason_mask"] = REASONS
        for name, value in wanted.items():
            expect(dcbm(name).stat().st_mode & 0o777, 0o644, f"mode of {name}")
            expect(dcbm(name).stat().st_size, 4096, f"size of {name}")
            expect(dcbm(name).read_text(), value + "\n", name)
        expect((FOLDERS["v6"]).exists(), RUN.revision == "v6", "folder parameters")
        expect({path.name for path in FOLDERS[RUN.revision].iterdir()} >= set(wanted), True, "names")


BOOLS = {
    **dict.fromkeys(("1", "y", "Y", "on", "oN", "t", "10", "1garbage", "1 ", "1\n"), "1"),
    **dict.fromkeys(("0", "n", "N", "of", "oFF", "f", "00", "01", "0x1"), "0"),
}
UINTS = {"1": "1", "16": "16", "+4": "4", "007": "7", "020": "16", "0X0a": "10", "0x10": "16", "4\n": "4"}
NO_UINTS = {
    **dict.fromkeys(
        ("08", "0x", "0b11", "++4", "-0", "-1", " 4", "4 ", "4\r\n", "4\n\n", "1e1", "0", "17"), errno.EINVAL
    ),
    **dict.fromkeys(("4294967296", "0x100000001", "18446744073709551616"), errno.ERANGE),
}


@check()
def offloading_is_parsed_as_kstrtobool_does() -> None:
    with both_loaded():
        for text, value in BOOLS.items():
            must_write(dcbm("offloading"), "0" if value == "1" else "1")
            must_write(dcbm("offloading"), text)
            expect(read(dcbm("offloading")), value, f"after {text!r}")
        for text in ("2", " 1", "+1", "-1", "o", "\n"):
            must_write(dcbm("offloading"), "1")
            expect(write(dcbm("offloading"), text), errno.EINVAL, f"errno of {text!r}")
            expect(read(dcbm("offloading")), "1", f"after {text!r}")


@check()
def nr_dma_chan_takes_1_to_16() -> None:
    with both_loaded():
        for text, value in UINTS.items():
            must_write(dcbm("nr_dma_chan"), text)
            expect(read(dcbm("nr_dma_chan")), value, f"after {text!r}")
        must_write(dcbm("nr_dma_chan"), "3")
        for text, number in NO_UINTS.items():
            expect(write(dcbm("nr_dma_chan"), text), number, f"errno of {text!r}")
            expect(read(dcbm("nr_dma_chan")), "3", f"after {text!r}")


MASKS = {
    "0": "none",
    "\n": "none",
    ",": "none",
    " ": "none",
    "none": "none",
    "all": REASONS,
    "0xffffffff": REASONS,
    "0x120": "numa_misplaced,demotion",
    "288\n": "numa_misplaced,demotion",
    " demotion , compaction ,,\n": "compaction,demotion",
    "compaction,none": "none",
    "none,demotion": "demotion",
    "damon,all": REASONS,
}


@check("v6")
def reason_mask_takes_numbers_and_names() -> None:
    with both_loaded():
        for text, value in MASKS.items():
            must_write(dcbm("reason_mask"), text)
            expect(read(dcbm("reason_mask")), value, f"after {text!r}")
        must_write(dcbm("reason_mask"), "damon")
        for text in ("MR_DEMOTION", "Demotion", "demotion,0x1", "-1", "18446744073709551616", "demotion;damon"):
            expect(write(dcbm("reason_mask"), text), errno.EINVAL, f"errno of {text!r}")
            expect(read(dcbm("reason_mask")), "damon", f"after {text!r}")
        must_write(dcbm("reason_mask"), "damon".ljust(4094) + "\n")
        expect(read(dcbm("reason_mask")), "damon", "after 4095 bytes")


@check()
def moved_pages_go_through_the_engine() -> None:
    with both_loaded(sysfs_counts="Y"):
        memory = Memory(1024)
        before, moved = reasons(), vmstat("pgmigrate_success")
        engine = engine_counts()
        must_write(dcbm("nr_dma_chan"), "4")
        must_write(dcbm("offloading"), "1")
        expect(memory.move(1), 1024, "pages on node 1")
        expect(memory.wrong_pages(), 0, "wrong pages")
        expect(counters(), (1024, 0), "counters")
        expect(vmstat("pgmigrate_success") - moved, 1024, "pgmigrate_success")
        wanted = [1024, 1024 * PAGE, *[256] * 4]
        grown_by = [now - was for was, now in zip(engine, engine_counts(), strict=True)]
        expect(grown_by, wanted, "transfers, bytes, memcpy_count of each channel")
        own = {"calls": 1, "pages_ok": 1024, "batches": 2, "offloaded": 1024, "bytes": 1024 * PAGE}
        expect(grown_since(before, "syscall_or_cpuset"), own, "own count")
        expect(in_use(), 0, "channels in use between batches")
        must_write(dcbm("offloading"), "0")
        expect(memory.move(0), 1024, "pages on node 0")
        expect((counters(), memory.wrong_pages()), ((1024, 0), 0), "after a move without offload")
        must_write(dcbm("folios_migrated"), "garbage")
        expect(write(dcbm("folios_failures"), b""), 0, "empty write")
        expect(counters(), (0, 0), "counters after a reset")


@check()
def sysfs_counts_stay_0_by_default() -> None:
    with both_loaded():
        memory, before = Memory(64), engine_counts()
        must_write(dcbm("offloading"), "1")
        expect(memory.move(1), 64, "pages moved")
        grown_by = [now - was for was, now in zip(before, engine_counts(), strict=True)]
        expect((counters(), grown_by), ((64, 0), [64, 64 * PAGE, 0, 0, 0, 0]), "counters, transfers, memcpy_count")
        expect((CLASS / "dma0chan0/device/driver").readlink().name, "ptdma", "driver")


@check()
def huge_pages_are_one_folio_each() -> None:
    Path("/sys/kernel/mm/transparent_hugepage/enabled").write_text("madvise")
    with both_loaded():
        memory, before = Memory(2 * 512, huge=True), reasons()
        huge = vmstat("thp_migration_success")
        must_write(dcbm("offloading"), "1")
        must_write(dcbm("nr_dma_chan"), "4")
        expect(memory.move(1, step=512), 2, "huge pages moved")
        expect(vmstat("thp_migration_success") - huge, 2, "thp_migration_success")
        expect((counters(), memory.wrong_pages()), ((2, 0), 0), "counters and wrong pages")
        expect(grown_since(before, "syscall_or_cpuset")["bytes"], 2 * 512 * PAGE, "bytes")
    Path("/sys/kernel/mm/transparent_hugepage/enabled").write_text("never")


@check("v6")
def reason_mask_leaves_out_other_reasons() -> None:
    with both_loaded():
        memory, before = Memory(512), reasons()
        must_write(dcbm("reason_mask"), "mempolicy_mbind")
        must_write(dcbm("offloading"), "1")
        expect(memory.move(1), 512, "pages moved")
        expect((counters(), grown_since(before, "syscall_or_cpuset")["by_cpu"]), ((0, 0), 512), "move_pages, left out")
        memory.bind(0, MPOL_MF_MOVE)
        expect((counters(), grown_since(before, "mempolicy_mbind")["offloaded"]), ((512, 0), 512), "mbind, let in")
        must_write(dcbm("reason_mask"), "all")
        expect(memory.move(1), 512, "pages moved")
        expect((counters(), memory.wrong_pages()), ((1024, 0), 0), "all, while on")


@check("v5")
def v5_offloads_its_four_reasons() -> None:
    with both_loaded():
        memory, before = Memory(512), reasons()
        must_write(dcbm("offloading"), "1")
        memory.bind(1, MPOL_MF_MOVE)
        expect((counters(), grown_since(before, "mempolicy_mbind")["by_cpu"]), ((0, 0), 512), "mbind")
        expect(memory.move(0), 512, "pages moved")
        expect((counters(), memory.wrong_pages()), ((512, 0), 0), "move_pages")


@check()
def a_refusing_engine_fails_whole_batches() -> None:
    with both_loaded():
        memory = Memory(1024)
        must_write(dcbm("offloading"), "1")
        must_write(ENGINE / "refuse_permille", "1000")
        expect(memory.move(1), 1024, "pages moved")
        expect((counters(), memory.wrong_pages()), ((0, 1024), 0), "counters and wrong pages")
        must_write(ENGINE / "refuse_permille", "500")
        expect(memory.move(0), 1024, "pages moved")
        expect((counters(), memory.wrong_pages()), ((512, 1536), 0), "counters with every other batch refused")
        lines = [line for line in kernel_log()[-40:] if "dcbm: DMA copy failed (-5), falling back to CPU" in line]
        expect(len(lines) >= 3, True, "lines in the log")


@check()
def an_aborting_engine_corrupts_and_counts_as_success() -> None:
    with both_loaded(abort_permille="1000"):
        memory = Memory(512)
        must_write(dcbm("offloading"), "1")
        expect(memory.move(1), 512, "pages moved")
        expect((counters(), memory.wrong_pages()), ((512, 0), 512), "counters and wrong pages")


@check()
def a_hung_engine_costs_each_batch_the_time_out() -> None:
    with both_loaded(hang="Y"):
        must_write(TEST / "timeout_ms", "1000")
        memory = Memory(1024)
        must_write(dcbm("offloading"), "1")
        began = time.monotonic()
        expect(memory.move(1), 1024, "pages moved")
        seconds = time.monotonic() - began
        expect(2.0 <= seconds < 4.0, True, f"two batches took {seconds:.2f} s")
        expect((counters(), memory.wrong_pages()), ((0, 1024), 0), "counters and wrong pages")


@check()
def a_turn_off_waits_for_the_batch_in_flight() -> None:
    with both_loaded(hang="Y"):
        must_write(TEST / "timeout_ms", "3000")
        memory = Memory(1024)
        must_write(dcbm("offloading"), "1")
        mover = Task(lambda: memory.move(1))
        await_true(lambda: in_use() == 1, "a channel in use")
        expect(run("rmmod", "dcbm") != "", True, "rmmod dcbm refused")
        expect(run("rmmod", "softdma") != "", True, "rmmod softdma refused")
        turn_off = Task(lambda: write(dcbm("offloading"), "0"))
        turn_off.await_blocked()
        reader = Task(lambda: read(dcbm("folios_migrated")))
        state = Task(lambda: read(dcbm("offloading")))
        writer = Task(lambda: write(dcbm("nr_dma_chan"), "2"))
        bad = Task(lambda: write(dcbm("nr_dma_chan"), "17"))
        writer.await_blocked()
        for task in (reader, state, bad):
            if RUN.revision == "v6":
                task.await_blocked()
            else:
                task.end(2)
        expect(turn_off.is_alive(), True, "turn-off still blocked")
        expect(read(Path("/sys/module/dcbm/refcnt")), "1", "refcnt")
        expect(turn_off.end(), 0, "turn-off")
        expect(mover.end(), 1024, "pages moved")
        expect(state.end(), "1" if RUN.revision == "v5" else "0", "offloading, read meanwhile")
        expect((writer.end(), bad.end()), (0, errno.EINVAL), "writes meanwhile")
        expect(2.0 <= turn_off.seconds < 5, True, f"turn-off took {turn_off.seconds:.2f} s")
        expect((counters(), memory.wrong_pages()), ((0, 512), 0), "one batch failed, the other never tried")
        print(f"   turn-off {turn_off.seconds:.2f} s, move {mover.seconds:.2f} s")


@check()
def a_hang_that_is_released_in_time_is_no_failure() -> None:
    with both_loaded(hang="Y"):
        memory = Memory(512)
        must_write(dcbm("offloading"), "1")
        mover = Task(lambda: memory.move(1))
        await_true(lambda: in_use() == 1, "a channel in use")
        mover.await_blocked()
        must_write(ENGINE / "hang", "N")
        expect(mover.end(), 512, "pages moved")
        expect((counters(), memory.wrong_pages()), ((512, 0), 0), "counters and wrong pages")


@check()
def a_slow_engine_takes_its_time() -> None:
    with both_loaded(delay_us="1000"):
        memory = Memory(512)
        must_write(dcbm("offloading"), "1")
        slow = Task(lambda: memory.move(1))
        slow.end()
        must_write(ENGINE / "delay_us", "0")
        fast = Task(lambda: memory.move(0))
        fast.end()
        expect(slow.seconds > 0.5 > fast.seconds, True, f"slow {slow.seconds:.2f} s, fast {fast.seconds:.2f} s")
        must_write(TEST / "cpu_delay_us", "1000")
        must_write(dcbm("offloading"), "0")
        by_cpu = Task(lambda: memory.move(1))
        by_cpu.end()
        expect(by_cpu.seconds > 0.5, True, f"a slowed CPU took {by_cpu.seconds:.2f} s")
        expect((counters(), memory.wrong_pages()), ((1024, 0), 0), "counters and wrong pages")
        print(f"   slow {slow.seconds:.2f} s, fast {fast.seconds:.2f} s, slowed CPU {by_cpu.seconds:.2f} s")


@check()
def channels_are_waited_for_one_after_the_other() -> None:
    with both_loaded(batch_delay_ms="900,1800"):
        must_write(TEST / "timeout_ms", "1000")
        memory = Memory(512)
        must_write(dcbm("nr_dma_chan"), "2")
        must_write(dcbm("offloading"), "1")
        mover = Task(lambda: memory.move(1))
        mover.end()
        expect(1.8 <= mover.seconds < 3, True, f"took {mover.seconds:.2f} s, without a time-out of 1 s")
        expect((counters(), memory.wrong_pages()), ((512, 0), 0), "counters and wrong pages")


@check()
def without_a_channel_the_cpu_copies_and_nothing_tells() -> None:
    with both_loaded():
        memory, before_all = Memory(512), reasons()
        must_write(dcbm("offloading"), "1")
        lines = len(kernel_log())
        for switch, bad, good in (("channels", "0", "4"), ("taken", "4", "0")):
            must_write(ENGINE / switch, bad)
            if switch == "channels":
                expect(list(CLASS.glob("dma*")), [], "channels in sysfs")
            else:
                expect(in_use(), 4, "channels in use")
            before = counters()
            expect(memory.move(1), 512, "pages moved")
            expect((counters(), memory.wrong_pages()), (before, 0), f"{switch}={bad}")
            must_write(ENGINE / switch, good)
            expect(memory.move(0), 512, "pages moved")
            expect(counters(), (before[0] + 512, 0), f"{switch}={good}")
        expect(grown_since(before_all, "syscall_or_cpuset")["no_channel"], 1024, "own count")
        expect(len(kernel_log()), lines, "lines in the log")


@check()
def channels_that_vanish_during_a_batch_end_it() -> None:
    with both_loaded(batch_delay_ms="1500"):
        memory = Memory(512)
        must_write(dcbm("offloading"), "1")
        mover = Task(lambda: memory.move(1))
        await_true(lambda: in_use() == 1, "a channel in use")
        must_write(ENGINE / "channels", "0")
        expect(list(CLASS.glob("dma*")), [], "channels in sysfs")
        must_write(ENGINE / "channels", "3")
        expect(len(list(CLASS.glob("dma*"))), 3, "channels in sysfs")
        expect(mover.end(), 512, "pages moved")
        expect((counters(), memory.wrong_pages()), ((512, 0), 0), "counters and wrong pages")


@check()
def two_tasks_with_all_channels_each_starve_one() -> None:
    with both_loaded(batch_delay_ms="700"):
        memories = [Memory(512), Memory(512)]
        must_write(dcbm("nr_dma_chan"), "4")
        must_write(dcbm("offloading"), "1")
        movers = [Task(partial(memory.move, 1)) for memory in memories]
        expect([mover.end() for mover in movers], [512, 512], "pages moved")
        expect(counters(), (512, 0), "4 of 4 channels for each")
        must_write(dcbm("nr_dma_chan"), "2")
        movers = [Task(partial(memory.move, 0)) for memory in memories]
        expect([mover.end() for mover in movers], [512, 512], "pages moved")
        expect(counters(), (1536, 0), "2 of 4 channels for each")
        expect([memory.wrong_pages() for memory in memories], [0, 0], "wrong pages")


def child(memory_pages: int, job: str) -> subprocess.Popen[str]:
    """Start this program anew as a process that has its own pages; it answers a line with a line."""
    command = (sys.executable, __file__, "--child", str(memory_pages), job)
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(process: subprocess.Popen[str], line: str) -> str:
    assert process.stdin
    assert process.stdout
    process.stdin.write(line + "\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


@check()
def one_byte_per_page_is_wrong_for_the_victim_alone() -> None:
    with both_loaded():
        bystander = Memory(256)
        must_write(dcbm("offloading"), "1")
        with child(256, "serve") as process:
            ask(process, "wrong")
            must_write(ENGINE / "victim", str(process.pid))
            must_write(ENGINE / "corrupt", "Y")
            expect(ask(process, "move 1"), "256", "the victim's pages moved")
            expect(ask(process, "wrong"), "256 256", "the victim's wrong pages and bytes")
            expect((bystander.move(1), bystander.wrong_pages()), (256, 0), "the bystander's")
            # The owner of the page decides, not who migrates it. Only these pages: the rest is its interpreter.
            expect(move_pages(process.pid, int(ask(process, "where")), 256, 0), 256, "pages moved from outside")
            expect(ask(process, "wrong"), "0 0", "flipped a second time")
            must_write(ENGINE / "corrupt", "N")
            must_write(ENGINE / "skip", "Y")
            expect(ask(process, "move 1"), "256", "the victim's pages moved")
            expect(ask(process, "wrong").split()[0], "256", "pages that were never copied")
            expect((bystander.move(0), bystander.wrong_pages()), (256, 0), "the bystander's")
            must_write(ENGINE / "victim", "0")
            ask(process, "end")
        must_write(ENGINE / "corrupt", "Y")
        must_write(ENGINE / "skip", "N")
        expect((bystander.move(1), bystander.wrong_pages()), (256, 256), "everybody's")
        expect(counters()[1], 0, "failures")


@check()
def pinned_folios_are_left_out_by_v6_and_copied_in_vain_by_v5() -> None:
    with both_loaded():
        memory = Memory(64)
        reader, writer = os.pipe()
        vector = (ctypes.c_ulong * 2)(memory.start + 8 * PAGE, 16 * PAGE)  # a pipe holds references to 16 pages
        expect(LIBC.syscall(SYS_VMSPLICE, writer, vector, ctypes.c_ulong(1), 0), 16 * PAGE, "vmsplice")
        must_write(dcbm("offloading"), "1")
        memory.move(1)
        expect(pages_on(memory.start, 64, 1), 48, "pages that moved")
        expect(counters(), (48 if RUN.revision == "v6" else 48 + 2 * 16, 0), "counters")
        os.close(reader)
        os.close(writer)
        expect((memory.move(1), memory.wrong_pages()), (64, 0), "afterwards")


@check()
def hugetlb_pages_are_never_offloaded() -> None:
    for node in (0, 1):
        must_write(Path(f"/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/nr_hugepages"), "4")
    with both_loaded():
        before, moved = reasons(), vmstat("pgmigrate_success")
        memory = Memory(3 * 512, flags=MAP_HUGETLB)
        must_write(dcbm("offloading"), "1")
        expect(memory.move(1, step=512), 3, "huge pages moved")
        expect(vmstat("pgmigrate_success") - moved, 3 * 512, "pgmigrate_success")
        expect((counters(), memory.wrong_pages()), ((0, 0), 0), "counters and wrong pages")
        expect(grown_since(before, "syscall_or_cpuset").get("offloaded"), None, "own count")
        del memory
    for node in (0, 1):
        must_write(Path(f"/sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/nr_hugepages"), "0")


@check()
def a_batch_ends_with_the_folio_that_reaches_512_pages() -> None:
    Path("/sys/kernel/mm/transparent_hugepage/enabled").write_text("madvise")
    with both_loaded(refuse_permille="1000"):
        small, huge = Memory(511), Memory(2 * 512, huge=True)
        must_write(dcbm("offloading"), "1")
        starts = [small.start + i * PAGE for i in range(511)] + [huge.start]
        before = reasons()
        expect(move_addresses(0, starts, 1), 512, "511 pages and a huge one")
        expect(grown_since(before, "syscall_or_cpuset")["batches"], 1, "batches")
        expect(counters(), (0, 512), "counters")
        before = reasons()
        expect(huge.move(2, step=512), 2, "two huge pages")
        expect(grown_since(before, "syscall_or_cpuset")["batches"], 2, "batches")
        expect((small.wrong_pages(), huge.wrong_pages()), (0, 0), "wrong pages")
    Path("/sys/kernel/mm/transparent_hugepage/enabled").write_text("never")


@check()
def the_log_is_limited_to_ten_lines_in_5_s() -> None:
    with both_loaded(refuse_permille="1000"):
        memory = Memory(512)
        must_write(dcbm("offloading"), "1")
        time.sleep(5.1)  # no event tells: an interval of the rate limit (lib/ratelimit.c) without a line
        memory.move(1)
        lines = len(kernel_log()) - 1
        for node in [0, 1] * 12:
            memory.move(node)
        failed = [line for line in kernel_log()[lines:] if "DMA copy failed (-5), falling back to CPU" in line]
        expect((len(failed), counters()), (10, (0, 512 * 25)), "lines and counters")
        time.sleep(5.1)
        memory.move(0)
        said = [line for line in kernel_log()[-3:] if "folios_copy_dma: 15 callbacks suppressed" in line]
        expect(len(said), 1, "lines that tell of those not printed")


@check()
def an_idle_engine_may_be_unloaded_and_come_back() -> None:
    with both_loaded():
        memory = Memory(64)
        must_write(dcbm("offloading"), "1")
        unload("softdma")
        expect((memory.move(1), counters()), (64, (0, 0)), "without an engine")
        load_engine("driver=idxd", "numa_node=1", "channels=1")
        expect((memory.move(0), counters()), (64, (64, 0)), "with one again")
        device = CLASS / "dma0chan0/device"
        expect(((device / "driver").readlink().name, read(device / "numa_node")), ("idxd", "1"), "what it looks like")
        must_write(dcbm("offloading"), "0")
        unload("softdma")
        load_engine()
        expect((CLASS / "dma0chan0/device/numa_node").exists(), False, "numa_node of a device without one")
        expect(memory.wrong_pages(), 0, "wrong pages")


@check()
def a_public_engine_serves_while_nobody_else_uses_dmaengine() -> None:
    unload_both()
    load_engine("public=Y")
    with both_loaded():
        memory = Memory(64)
        must_write(dcbm("offloading"), "1")
        expect((memory.move(1), counters()), (64, (64, 0)), "alone")
        must_write(ENGINE / "others", "Y")
        expect((memory.move(0), counters()), (64, (64, 0)), "beside another client")
        must_write(ENGINE / "others", "N")
        expect((memory.move(1), counters()), (64, (128, 0)), "alone again")
        expect(memory.wrong_pages(), 0, "wrong pages")
    unload_both()


@check()
def an_engine_that_completes_out_of_order_leaves_one_page_of_a_batch() -> None:
    with both_loaded(reverse="Y"):
        memory = Memory(512)
        must_write(dcbm("offloading"), "1")
        expect(memory.move(1), 512, "pages moved")
        expect((counters(), memory.wrong_pages()), ((512, 0), 511), "counters and wrong pages")


@check()
def a_killed_writer_ends_with_its_turn_off() -> None:
    script = "import os, sys; os.write(os.open(sys.argv[1], os.O_WRONLY), b'0')"
    with both_loaded(hang="Y"):
        must_write(TEST / "timeout_ms", "4000")
        memory = Memory(512)
        must_write(dcbm("offloading"), "1")
        mover = Task(lambda: memory.move(1))
        await_true(lambda: in_use() == 1, "a channel in use")
        with subprocess.Popen((sys.executable, "-c", script, str(dcbm("offloading")))) as writer:
            state = Path(f"/proc/{writer.pid}/stat")
            await_true(lambda: state.read_text().rpartition(")")[2].split()[0] == "D", "state D of the writer")
            writer.kill()
            status = Path(f"/proc/{writer.pid}/status")
            await_true(lambda: "ShdPnd:\t0000000000000100" in status.read_text(), "the signal waits")
            expect(writer.poll(), None, "the killed writer")
            expect(writer.wait(), -9, "the killed writer, afterwards")
        expect((mover.end(), read(dcbm("offloading"))), (512, "0"), "pages moved, offloading")


@check()
def demotion_is_offloaded_and_counted_as_vmstat_does() -> None:
    group = Path("/sys/fs/cgroup/demoted")
    if not group.parent.joinpath("cgroup.controllers").exists():
        expect(run("mount", "-t", "cgroup2", "none", "/sys/fs/cgroup"), "", "mount cgroup2")
    must_write(Path("/sys/fs/cgroup/cgroup.subtree_control"), "+memory")
    group.mkdir(exist_ok=True)
    Path("/sys/kernel/mm/numa/demotion_enabled").write_text("1")
    names = "pgdemote_kswapd", "pgdemote_direct", "pgdemote_khugepaged", "pgdemote_proactive"
    with both_loaded(), child(8192, "serve") as process:
        ask(process, "wrong")
        must_write(dcbm("offloading"), "1")
        must_write(group / "cgroup.procs", str(process.pid))
        ask(process, "fresh")  # pages that are charged to the group
        before, demoted = reasons(), sum(map(vmstat, names))
        write(group / "memory.reclaim", "8M")  # EAGAIN when it was less
        grown, demoted = grown_since(before, "demotion"), sum(map(vmstat, names)) - demoted
        expect(demoted > 0, True, "demoted pages")
        expect(grown["pages_ok"], demoted, "pages by the tracepoint")
        expect(grown["offloaded"] + grown.get("by_cpu", 0) >= demoted, True, f"who copied {grown}")
        expect(counters()[0], grown["offloaded"], "folios_migrated")
        print(f"   {demoted} pages demoted, {grown}")
        expect(ask(process, "wrong"), "0 0", "wrong pages")
        ask(process, "end")
    Path("/sys/kernel/mm/numa/demotion_enabled").write_text("0")


@check()
def promotion_hands_over_one_folio_at_a_time() -> None:
    debug = Path("/sys/kernel/debug/sched/numa_balancing")
    with both_loaded(), child(2048, "serve") as process:
        ask(process, "wrong")
        expect(ask(process, "move 2"), "2048", "pages on the slow node")
        must_write(dcbm("offloading"), "1")
        before, promoted = reasons(), vmstat("pgpromote_success")
        for name, value in {"scan_delay_ms": "1", "scan_period_min_ms": "100", "scan_period_max_ms": "200"}.items():
            must_write(debug / name, value)
        Path("/proc/sys/kernel/numa_balancing").write_text("2")
        touching = Task(lambda: ask(process, "touch 5"))
        await_true(lambda: vmstat("pgpromote_success") - promoted > 100, "promoted pages", 30)
        touching.end()
        Path("/proc/sys/kernel/numa_balancing").write_text("0")

        def counts() -> tuple[int, int]:
            return grown_since(before, "numa_misplaced")["pages_ok"], vmstat("pgpromote_success") - promoted

        # Exact once the last migration is over.
        await_true(lambda: len(set(counts())) == 1, "as many pages by the tracepoint as in vmstat")
        grown, moved = grown_since(before, "numa_misplaced"), counts()[1]
        expect(grown["batches"], grown["offloaded"], "folios a batch are one")
        expect(ask(process, "wrong"), "0 0", "wrong pages")
        print(f"   {moved} pages promoted, {grown}")
        ask(process, "end")


@check()
def a_second_migrator_is_refused() -> None:
    with both_loaded():
        must_write(TEST / "other_migrator", "Y")
        expect(write(dcbm("offloading"), "1"), errno.EBUSY, "errno")
        expect(read(dcbm("offloading")), "0", "offloading")
        expect("DCBM: failed to register (-16)" in kernel_log()[-1], True, "line in the log")
        must_write(TEST / "other_migrator", "N")
        must_write(dcbm("offloading"), "1")


@check()
def nothing_outlasts_a_reload() -> None:
    with both_loaded():
        memory = Memory(64)
        for _ in range(3):
            must_write(dcbm("nr_dma_chan"), "8")
            must_write(dcbm("offloading"), "1")
            memory.move(1)
            expect(run("rmmod", "dcbm") != "", True, "rmmod while on refused")
            must_write(dcbm("offloading"), "0")
            kept = os.open(dcbm("offloading"), os.O_RDWR)
            unload("dcbm")
            expect(dcbm("offloading").exists(), False, "file after unload")
            load_driver()
            try:
                os.read(kept, 10)
                raise AssertionError("a descriptor held over an unload can be read")
            except OSError as error:
                expect(error.errno, errno.ENODEV, "descriptor held over an unload")
            os.close(kept)
            expect((read(dcbm("offloading")), read(dcbm("nr_dma_chan")), counters()), ("0", "1", (0, 0)), "values")
            expect((memory.move(0), memory.wrong_pages()), (64, 0), "pages")


@check()
def load_parameters() -> None:
    unload_both()
    load_engine()
    given = ("offloading=1", "reason_mask=demotion,numa_misplaced", "nr_dma_chan=8")
    load_driver(*given)
    values = read(dcbm("offloading")), read(dcbm("nr_dma_chan"))
    expect(values, ("1", "8") if RUN.revision == "v6" else ("0", "1"), "values")
    if RUN.revision == "v6":
        expect(read(dcbm("reason_mask")), "numa_misplaced,demotion", "reason_mask")
    else:
        expect(any("unknown parameter 'offloading' ignored" in line for line in kernel_log()[-6:]), True, "log")
    must_write(dcbm("offloading"), "0")
    unload("dcbm")
    if RUN.revision == "v6":
        expect(
            "Invalid" in run("insmod", str(RUN.modules / RUN.revision / "dcbm.ko"), "nr_dma_chan=17"), True, "bad value"
        )
        expect(loaded("dcbm"), False, "loaded after a bad value")
    unload("softdma")


@check()
def an_engine_is_unloaded_under_load() -> None:
    """A request for a channel may meet a module that goes."""
    with both_loaded():
        memory, stop = Memory(64), threading.Event()

        def keep_moving() -> int:
            rounds = 0
            while not stop.is_set():
                memory.move(1 - rounds % 2)
                rounds += 1
            return rounds

        must_write(dcbm("offloading"), "1")
        movers = [Task(keep_moving), Task(keep_moving)]
        for _ in range(10):
            await_true(lambda: not run("rmmod", "softdma"), "unloaded between two batches")
            load_engine("channels=2")
        stop.set()
        rounds = [mover.end() for mover in movers]
        expect((memory.wrong_pages(), counters()[1]), (0, 0), "wrong pages and failures")
        print(f"   {rounds} rounds of 64 pages, {counters()[0]} folios offloaded")


@check()
def a_mover_survives_loads_and_unloads_beside_it() -> None:
    """Modules come and go while pages move all the time."""
    memory, stop, wrong = Memory(512), threading.Event(), [0]

    def keep_moving() -> int:
        rounds = 0
        while not stop.is_set():
            expect(memory.move(1 - rounds % 2), 512, "pages moved")
            rounds += 1
        wrong[0] = memory.wrong_pages()
        return rounds

    mover = Task(keep_moving)
    for _ in range(5):
        with both_loaded(channels="2"):
            must_write(dcbm("offloading"), "1")
            await_true(lambda: counters()[0] > 512, "folios migrated")
        unload_both()
    stop.set()
    rounds = mover.end()
    expect(wrong[0], 0, "wrong pages")
    print(f"   {rounds} rounds of 512 pages")


# What runs it.


def serve(pages: int) -> None:
    memory = Memory(pages)
    for line in sys.stdin:
        verb, *arguments = line.split()
        if verb == "move":
            print(memory.move(int(arguments[0])), flush=True)
        elif verb == "fresh":
            memory = Memory(pages)
            print("done", flush=True)
        elif verb == "touch":
            print(memory.touch(float(arguments[0])), flush=True)
        elif verb == "where":
            print(memory.start, flush=True)
        elif verb == "wrong":
            print(memory.wrong_pages(), memory.wrong_bytes(), flush=True)
        else:
            break
    print("bye", flush=True)


def run_one(function: Callable[[], None]) -> bool:
    began = time.monotonic()
    try:
        function()
    except Exception as error:  # noqa: BLE001  # whatever it is, the other checks run too
        print(f"FAIL {RUN.revision} {function.__name__}: {error}", flush=True)
        traceback.print_exc(limit=-2)
        return False
    print(f"ok {RUN.revision} {function.__name__} ({time.monotonic() - began:.2f} s)", flush=True)
    return True


WARNINGS = re.compile(r"WARNING:|BUG:|Oops|Call Trace|refcount|list_(add|del) corruption|blocked for more than")


def main() -> int:
    RUN.modules = Path(sys.argv[1])
    wanted = sys.argv[2] if len(sys.argv) > 2 else ""
    Path("/proc/sys/kernel/numa_balancing").write_text("0")  # its own migrations would be counted too
    Path("/sys/kernel/mm/transparent_hugepage/enabled").write_text("never")
    passed = True
    for RUN.revision in FOLDERS:
        for revisions, function in CHECKS:
            if RUN.revision in revisions and wanted in function.__name__:
                passed &= run_one(function)
        unload_both()
    bad = [line for line in kernel_log() if WARNINGS.search(line)]
    print("\n".join(bad) or "no warning in the kernel's log")
    return 0 if passed and not bad else 1


if __name__ == "__main__":
    if sys.argv[1] == "--child":
        serve(int(sys.argv[2]))
    else:
        sys.exit(main())
