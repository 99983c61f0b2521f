# SPDX-License-Identifier: Apache-2.0
"""The child process of ``timed_moves``: has folios of one size, and moves them to and fro while a clock runs.

* Folios are what the kernel makes when it is asked the way programs ask: small pages where huge ones are declined, a
  transparent huge page where 2 MiB are aligned and huge pages are wanted, and for the sizes in between an address range
  of just that size, with a gap behind it. Whether it did is looked up, never assumed.
* A sample goes on where the last one ended, so that all of the set is moved before any of it is moved again: what is
  moved is not in a cache, if the set is a few times larger than that.
* Clocked are the system calls and the few instructions between two of them. The kernel says of each folio where it is
  then, and that is counted with the clock stopped.
* No page is locked, so no limit of locked memory (RLIMIT_MEMLOCK) matters.

Sources: as in ``mover``; Documentation/admin-guide/mm/transhuge.rst (hugepages-<size>kB/stats/anon_fault_alloc).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import mmap
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from numamigration_agent.kernel.cgroups import memory_room
from numamigration_agent.kernel.mover import (
    PAGE,
    Libc,
    become_child,
    check_numa_nodes,
    explain,
    huge_bytes,
    huge_size,
)
from numamigration_agent.kernel.timed_moves import TimedAnswer

_FILLING: Final = 0x5A
_MAPPED: Final = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
_STATS: Final = "/sys/kernel/mm/transparent_hugepage/hugepages-{}kB/stats/anon_fault_alloc"
_HAD_SHARE_MIN: Final = 0.9
"""So much of the memory must be in folios of the size that is timed."""


class Memory:
    """An address range of this process, given back when it is closed."""

    def __init__(self, length: int, alignment: int) -> None:
        """Reserve it; nothing of it is there before it is written.

        Raises:
            OSError: there is no room for it.
        """
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.mmap.restype = ctypes.c_void_p
        self._length = length + alignment
        found = self._libc.mmap(None, ctypes.c_size_t(self._length), 0, _MAPPED, -1, ctypes.c_long(0))
        if found in {None, ctypes.c_void_p(-1).value}:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "mmap")
        self._found = int(found)
        self.start = self._found + -self._found % alignment

    def use(self, start: int, length: int) -> None:
        """Let a part be read and written."""
        self._call("mprotect", start, length, mmap.PROT_READ | mmap.PROT_WRITE)

    def advise(self, start: int, length: int, advice: int) -> None:
        """Say how a part will be used (madvise(2))."""
        self._call("madvise", start, length, advice)

    def close(self) -> None:
        """Give it back."""
        self._call("munmap", self._found, self._length)

    def _call(self, name: str, start: int, length: int, *more: int) -> None:
        if getattr(self._libc, name)(ctypes.c_void_p(start), ctypes.c_size_t(length), *more):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name)


class FolioSet:
    """Folios of one size, at first on `source`.

    Attributes:
        count: how many.
    """

    def __init__(self, libc: Libc, way: tuple[int, int], folio_bytes: int, length: int) -> None:
        """Have the folios.

        Raises:
            OSError: there is no memory for them, or none in folios of that size.
        """
        self._libc, (self._here, self._there), self._folio_bytes = libc, way, folio_bytes
        self.count = max(1, length // folio_bytes)
        spaced = PAGE < folio_bytes < huge_size()
        stride = 2 * folio_bytes if spaced else folio_bytes
        self._memory = Memory(self.count * stride, max(folio_bytes, PAGE))
        try:
            addresses = range(self._memory.start, self._memory.start + self.count * stride, stride)
            self._fill(addresses, spaced=spaced)
        except OSError:
            self._memory.close()
            raise
        self._pages = (ctypes.c_void_p * self.count)(*addresses)
        self._held = (ctypes.c_int * self.count)()
        self._next = 0

    def _fill(self, addresses: range, *, spaced: bool) -> None:
        memory, length = self._memory, len(addresses) * addresses.step
        self._libc.prefer(memory.start, length, self._here)
        with contextlib.suppress(OSError):  # EINVAL: a kernel without transparent huge pages
            wanted = mmap.MADV_NOHUGEPAGE if self._folio_bytes == PAGE else mmap.MADV_HUGEPAGE
            memory.advise(memory.start, length, wanted)
        before = _faulted(self._folio_bytes)
        if spaced:
            for address in addresses:
                memory.use(address, self._folio_bytes)
                ctypes.memset(address, _FILLING, self._folio_bytes)
        else:
            memory.use(memory.start, length)
            ctypes.memset(memory.start, _FILLING, length)
        self._check_size(before, memory.start, length)
        if self._libc.where([addresses[0], addresses[-1]]) != [self._here] * 2:
            raise OSError(errno.ENOMEM, f"no free memory on NUMA node {self._here}")

    def _check_size(self, before: int, start: int, length: int) -> None:
        if self._folio_bytes == PAGE:
            return
        if self._folio_bytes == huge_size():
            had = huge_bytes(start, start + length) / length
        else:
            had = (_faulted(self._folio_bytes) - before) / self.count
        if had < _HAD_SHARE_MIN:
            size = self._folio_bytes // 1024
            raise OSError(
                errno.EOPNOTSUPP, f"{had:.0%} of the memory came in folios of {size} KiB, so they are not timed"
            )

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()

    def move(self, folios: int, seconds_max: float) -> TimedAnswer:
        """Move `folios` with each call, until the time is over.

        Raises:
            OSError: the call did not work.
        """
        folios = min(folios, self.count)
        seconds = cpu_seconds = 0.0
        arrived = left = 0
        while seconds < seconds_max:
            first = self._next
            begun, begun_cpu = time.perf_counter(), time.process_time()
            self._move(folios, begun + seconds_max - seconds)
            seconds += time.perf_counter() - begun
            cpu_seconds += time.process_time() - begun_cpu
            there = sum(holder == self._there for holder in self._held[first : self._next])
            arrived, left = arrived + there, left + self._next - first - there
            if self._next >= self.count:
                self._next, self._here, self._there = 0, self._there, self._here
            if not there:
                self._raise(self._held[first])
        return TimedAnswer(arrived * self._folio_bytes, arrived, left, seconds, cpu_seconds)

    def _move(self, folios: int, until: float) -> None:
        """Make calls until the time or the set is over; at least one."""
        targets, clock, move = (ctypes.c_int * folios)(*[self._there] * folios), time.perf_counter, self._libc.move_raw
        at, count = self._next, self.count
        while True:
            number = min(folios, count - at)
            move(self._pages, self._held, at, number, targets)
            at += number
            if at >= count or clock() >= until:
                break
        self._next = at

    def _raise(self, held: int) -> None:
        if held == -errno.ENOMEM or held >= 0:
            raise OSError(errno.ENOMEM, f"no free memory on NUMA node {self._there}")
        raise OSError(-held, f"no folio could be moved: {os.strerror(-held)}")


def _faulted(folio_bytes: int) -> int:
    """Return how many folios of a size the whole kernel has made for page faults; 0 where it does not say."""
    return int(_read(_STATS.format(folio_bytes // 1024)) or 0)


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text()
    except (OSError, ValueError):
        return None


class Desk:
    """What this process has, and what is asked of it."""

    def __init__(self) -> None:
        self._folios: FolioSet | None = None
        self._libc: Libc | None = None

    @property
    def libc(self) -> Libc:
        """The system calls.

        Raises:
            OSError: there is no table of them for this machine.
        """
        self._libc = self._libc or Libc(os.uname().machine)
        return self._libc

    def survey(self, source: int, destination: int) -> TimedAnswer:
        """Try the system calls on a page, and look for limits."""
        check_numa_nodes({source, destination})
        memory = Memory(PAGE, PAGE)
        memory.use(memory.start, PAGE)
        self.libc.prefer(memory.start, PAGE, source)
        ctypes.memset(memory.start, _FILLING, PAGE)
        held = self.libc.move([memory.start], destination)[0]
        memory.close()
        if held < 0 and -held != errno.ENOMEM:
            raise OSError(-held, os.strerror(-held), "move_pages")
        return TimedAnswer(room=memory_room(_read))

    def have(self, source: int, destination: int, folio_bytes: int, length: int) -> TimedAnswer:
        """Have folios of one size instead of those of another one."""
        if self._folios is not None:
            self._folios.close()
            self._folios = None
        self._folios = FolioSet(self.libc, (source, destination), folio_bytes, length)
        return TimedAnswer(bytes=self._folios.count * folio_bytes)

    def time(self, folios: int, seconds_max: float) -> TimedAnswer:
        """Move them."""
        if self._folios is None:
            raise OSError(errno.ENOMEM, "no folios are at hand")
        return self._folios.move(folios, seconds_max)

    def answer(self, line: str) -> TimedAnswer:
        """Do what a line asks for."""
        word, *arguments = json.loads(line)
        work: dict[str, Callable[..., TimedAnswer]] = {"survey": self.survey, "have": self.have, "time": self.time}
        try:
            return work[word](*arguments)
        except OSError as error:
            return TimedAnswer(errno=error.errno or errno.EIO, cause=explain(error))


def main(arguments: Sequence[str]) -> int:
    """Answer each line of standard input with one on standard output.

    Args:
        arguments: the process id of whoever starts this, to die with it; none when a person does.
    """
    become_child(arguments)
    desk = Desk()
    for line in sys.stdin:
        answer: Any = desk.answer(line)
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
