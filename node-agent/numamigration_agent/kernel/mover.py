# SPDX-License-Identifier: Apache-2.0
"""The child process of ``pages``: moves pages of its own between NUMA nodes and compares every byte.

* The pattern differs for every request, direction, page and 8 bytes, so that a page left out, left over from an earlier
  direction, put elsewhere or cut short shows. Every byte is compared, and written anew before the way back.
* Small folios stand right before huge ones in one range of addresses: mbind(2) takes a range, and both system calls
  hand all of it to the kernel at once, which cuts it into batches.
* Sizes are asked for, never assumed: arm64 has pages of 4, 16 or 64 KiB. Where a huge page is larger than the memory
  bound, or the kernel has none, the folios are small ones, and the answer says how many were huge.
* The first wrong byte ends it: who waits turns the engine off then.
* It dies with the agent as soon as it can, and should memory run out, before the agent.

Sources: move_pages(2), mbind(2), prctl(2), proc(5); mm/migrate.c, mm/mempolicy.c;
arch/x86/entry/syscalls/syscall_64.tbl; include/uapi/asm-generic/unistd.h (arm64);
Documentation/admin-guide/mm/transhuge.rst.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import mmap
import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Final, NamedTuple

from numamigration_agent.kernel.pages import (
    BATCH_BYTES_MAX,
    BATCHES_MAX,
    MEMPOLICY_MBIND,
    MOVES,
    SYSCALL_OR_CPUSET,
    Batch,
    MoveAnswer,
    MoveRequest,
    Passage,
)


class Calls(NamedTuple):
    """Numbers of the system calls for which the C library has no functions."""

    mbind: int
    move_pages: int


SYSCALLS: Final = {"x86_64": Calls(mbind=237, move_pages=279), "aarch64": Calls(mbind=235, move_pages=239)}
"""By machine (uname(2))."""

_MPOL_PREFERRED: Final = 1  # not MPOL_BIND: on a full NUMA node that one calls the out-of-memory killer
_MPOL_MF_MOVE: Final = 2
_PR_SET_PDEATHSIG: Final = 1
_POINTER, _INT = ctypes.sizeof(ctypes.c_void_p), ctypes.sizeof(ctypes.c_int)
PAGE: Final = os.sysconf("SC_PAGESIZE")
_CHUNK: Final = 1 << 16  # what is copied at once when the pattern turns
_LANE: Final = 8
"""Bytes in which the pattern never repeats."""
_THP_SIZE: Final = Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")
_WORDS: Final = {
    errno.EPERM: "refused by the seccomp profile; set the chart's agent.seccompProfile to Unconfined or Localhost",
    errno.ENOSYS: "this kernel has no NUMA or page migration, or the chart's agent.seccompProfile hides the call",
    errno.ENOMEM: "no memory for it",
}


class Libc:
    """The system calls that pages are moved with.

    Raises:
        OSError: as the call answered, with the call's name as file name; ENOSYS on a machine that is not in the table.
    """

    def __init__(self, machine: str) -> None:
        if machine not in SYSCALLS:
            raise OSError(errno.ENOSYS, f"no table of system calls for {machine}")
        self._numbers = SYSCALLS[machine]
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.syscall.restype = ctypes.c_long
        self._move_number = ctypes.c_long(self._numbers.move_pages)

    def prefer(self, start: int, length: int, numa_node: int, flags: int = 0) -> None:
        """Let new pages of a range be on a NUMA node; with MPOL_MF_MOVE those that are there too."""
        bits = 8 * ctypes.sizeof(ctypes.c_ulong)
        mask = (ctypes.c_ulong * (numa_node // bits + 1))()
        mask[numa_node // bits] = 1 << numa_node % bits
        arguments = (start, length, _MPOL_PREFERRED, mask, len(mask) * bits + 1, flags)
        self._call("mbind", self._numbers.mbind, *arguments)

    def move(self, addresses: Sequence[int], numa_node: int) -> list[int]:
        """Move the folios at these addresses to a NUMA node; returns where each is then, or a negative errno."""
        return self._move_pages(addresses, (ctypes.c_int * len(addresses))(*[numa_node] * len(addresses)))

    def where(self, addresses: Sequence[int]) -> list[int]:
        """Return the NUMA node of each address, or a negative errno."""
        return self._move_pages(addresses, None)

    def same(self, address: int, expected: bytearray, length: int) -> bool:
        """Whether memory at an address begins like `expected`."""
        other = (ctypes.c_char * length).from_buffer(expected)
        return bool(self._libc.memcmp(ctypes.c_void_p(address), other, ctypes.c_size_t(length)) == 0)

    def move_raw(self, pages: Any, held: Any, first: int, count: int, targets: Any) -> None:
        """Move `count` folios of arrays of their addresses and of where they are then, and make nothing on the way."""
        at_page, at_held = ctypes.byref(pages, first * _POINTER), ctypes.byref(held, first * _INT)
        if self._libc.syscall(self._move_number, 0, ctypes.c_long(count), at_page, targets, at_held, _MPOL_MF_MOVE) < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), "move_pages")

    def _move_pages(self, addresses: Sequence[int], numa_nodes: Any) -> list[int]:
        count, status = len(addresses), (ctypes.c_int * len(addresses))()
        pages = (ctypes.c_void_p * count)(*addresses)
        self._call("move_pages", self._numbers.move_pages, 0, count, pages, numa_nodes, status, _MPOL_MF_MOVE)
        return list(status)

    def _call(self, name: str, number: int, *arguments: Any) -> None:
        plain = (ctypes.c_long(value) if isinstance(value, int) else value for value in arguments)
        if self._libc.syscall(ctypes.c_long(number), *plain) < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), name)


class Pattern:
    """Bytes that differ for each salt, page and 8 bytes, and all at once for each turn."""

    def __init__(self, salt: int, length: int) -> None:
        self.bytes = bytearray()
        lanes = PAGE // _LANE
        # A lane's low 16 bits are its place in the page, the next 16 the page: no two lanes are alike.
        first = b"".join((_mix(salt + lane) & ~0xFFFF | lane).to_bytes(_LANE, "little") for lane in range(lanes))
        every_lane = int.from_bytes((1).to_bytes(_LANE, "little") * lanes, "little")
        plain = int.from_bytes(first, "little")
        for page in range(-(-length // PAGE)):
            key = _mix(salt ^ page << 32) & ~0xFFFFFFFF | page << 16
            self.bytes += (plain ^ every_lane * key).to_bytes(PAGE, "little")
        self._turn = 0
        self._turns = [0] * -(-len(self.bytes) // _CHUNK)

    def turn(self, length: int = BATCH_BYTES_MAX) -> None:
        """Change every byte into one that it has not been before; those beyond `length` have their turn later."""
        self._turn += 1
        tables = {turn: bytes(byte ^ turn ^ self._turn for byte in range(256)) for turn in set(self._turns)}
        for index in range(min(len(self._turns), -(-length // _CHUNK))):
            chunk = slice(index * _CHUNK, (index + 1) * _CHUNK)
            self.bytes[chunk] = self.bytes[chunk].translate(tables[self._turns[index]])
            self._turns[index] = self._turn


def _mix(number: int) -> int:
    """Return 64 well-mixed bits (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014)."""
    number = number + 0x9E3779B97F4A7C15 & _MASK
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    number = (number ^ number >> 27) * 0x94D049BB133111EB & _MASK
    return number ^ number >> 31


_MASK: Final = (1 << 64) - 1


class Folio(NamedTuple):
    """Where a folio is, in this process."""

    address: int
    length: int


class Region:
    """Memory of this process with a batch's folios: small ones, and right behind them huge ones.

    Attributes:
        start: address of the first byte.
        length: bytes.
    """

    def __init__(self, libc: Libc, batch: Batch, huge_size: int) -> None:
        huge = min(batch.huge, BATCH_BYTES_MAX // huge_size) if huge_size else 0
        small = min(batch.small, (BATCH_BYTES_MAX - huge * huge_size) // PAGE)
        self._libc, self._huge_size, self._untouched = libc, huge_size, True
        self._small_length, self.length = small * PAGE, small * PAGE + huge * huge_size
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self._map = mmap.mmap(-1, self.length + huge_size + PAGE, flags=flags)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        boundary = address + self._small_length
        boundary += -boundary % huge_size if huge else 0
        self.start = boundary - self._small_length
        self._offset = self.start - address
        if small:
            # Else the kernel may choose folios of some pages by itself, which count as one each.
            with contextlib.suppress(OSError):  # EINVAL: a kernel without transparent huge pages
                self._map.madvise(mmap.MADV_NOHUGEPAGE, self._offset, self._small_length)
        if huge:
            self._map.madvise(mmap.MADV_HUGEPAGE, self._offset + self._small_length, huge * huge_size)

    def fill(self, pattern: Pattern) -> None:
        """Write the pattern; what cannot be huge at first becomes small, for it may be of any size in between."""
        self._write(pattern)
        if self._untouched and self._small_length < self.length and not self._has_huge():
            rest = self._offset + self._small_length, self.length - self._small_length
            self._map.madvise(mmap.MADV_NOHUGEPAGE, *rest)
            self._map.madvise(mmap.MADV_DONTNEED, *rest)
            self._write(pattern)
        self._untouched = False

    def _write(self, pattern: Pattern) -> None:
        with memoryview(pattern.bytes) as view:
            self._map[self._offset : self._offset + self.length] = view[: self.length]

    def _has_huge(self) -> bool:
        boundary, end = self.start + self._small_length, self.start + self.length
        return boundary < end and huge_bytes(boundary, end) == end - boundary

    def folios(self) -> list[Folio]:
        """Return the folios in order; without enough huge pages, what should have been huge is small."""
        boundary, end = self.start + self._small_length, self.start + self.length
        small = range(self.start, boundary, PAGE)
        huge = self._huge_size if self._has_huge() else PAGE
        return [*(Folio(at, PAGE) for at in small), *(Folio(at, huge) for at in range(boundary, end, huge))]

    def wrong(self, pattern: Pattern, folios: Iterable[Folio]) -> tuple[int, int]:
        """Return how many folios hold wrong bytes, and where the first such byte is; -1 when there is none."""
        if self._libc.same(self.start, pattern.bytes, self.length):
            return 0, -1
        number, first = 0, -1
        for address, length in folios:
            at = address - self.start
            holds = self._map[self._offset + at : self._offset + at + length]
            expected = pattern.bytes[at : at + length]
            if holds != expected:
                number += 1
                places = range(length)
                first = first if number > 1 else at + next(i for i in places if holds[i] != expected[i])
        return number, first


def huge_bytes(start: int, end: int) -> int:
    """Return how much of a range of our addresses is in huge pages (proc_pid_smaps(5))."""
    found, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, _, rest = line.partition(" ")
        if "-" in name and not name.endswith(":"):
            first, last = (int(part, 16) for part in name.split("-"))
            inside = start <= first and last <= end
        elif inside and name == "AnonHugePages:":
            found += int(rest.split()[0]) * 1024
    return found


def die_with(parent: int) -> None:
    """Die when the thread that started this process does, or now if it is gone already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)


def become_child(arguments: Sequence[str]) -> None:
    """Live no longer than whose process id is given, if one is."""
    # Should memory run out, it is this process that has to go, not the agent.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    if arguments:
        os.setsid()
        die_with(int(arguments[0]))


def move(request: MoveRequest, began: float | None = None) -> MoveAnswer:
    """Move pages in this process; `began` is when the request was made, if not now (monotonic seconds)."""
    began = time.monotonic() if began is None else began
    passages: list[Passage] = []
    try:
        _check(request)
        libc = Libc(os.uname().machine)
        _move_all(libc, request, passages, began + request.seconds_max)
    except OSError as error:
        return MoveAnswer(tuple(passages), error.errno or errno.EIO, explain(error), time.monotonic() - began)
    left_out = size if (size := huge_size()) > BATCH_BYTES_MAX else 0
    return MoveAnswer(tuple(passages), seconds=time.monotonic() - began, huge_left_out=left_out)


def explain(error: OSError) -> str:
    """Say what an error of a system call means, or of a check before it."""
    words = _WORDS.get(error.errno or errno.EIO, "") if error.filename else ""
    words = words or error.strerror or str(error)
    return f"{error.filename}: {words}" if error.filename else words


def _check(request: MoveRequest) -> None:
    """Refuse what cannot be moved, in words that say why."""
    if request.reason not in {SYSCALL_OR_CPUSET, MEMPOLICY_MBIND}:
        raise OSError(errno.EINVAL, f"no system call migrates with reason {request.reason}")
    if len(request.batches) > BATCHES_MAX:
        raise OSError(errno.EINVAL, f"more than {BATCHES_MAX} batches")
    check_numa_nodes({node for batch in request.batches for node in batch[:2]})


def check_numa_nodes(numa_nodes: AbstractSet[int]) -> None:
    """Refuse NUMA nodes that are not there, or where this process may have no memory.

    Raises:
        OSError: in words that say why.
    """
    allowed = _allowed_numa_nodes()
    for numa_node in sorted(numa_nodes - allowed):
        if not Path(f"/sys/devices/system/node/node{numa_node}").exists():
            raise OSError(errno.ENODEV, f"there is no NUMA node {numa_node}")
        ours = ", ".join(map(str, sorted(allowed)))
        raise OSError(errno.EACCES, f"the cpuset of this container keeps it off NUMA node {numa_node}; it has {ours}")


def _allowed_numa_nodes() -> frozenset[int]:
    """Return where this process may have memory (proc_pid_status(5))."""
    lines = Path("/proc/self/status").read_text().splitlines()
    ranges = next((line.split()[1] for line in lines if line.startswith("Mems_allowed_list:")), "0")
    bounds = (part.partition("-") for part in ranges.split(","))
    return frozenset(node for low, _, high in bounds for node in range(int(low), int(high or low) + 1))


def _move_all(libc: Libc, request: MoveRequest, passages: list[Passage], deadline: float) -> None:
    huge = size if (size := huge_size()) <= BATCH_BYTES_MAX else 0
    longest = max(batch.small * PAGE + batch.huge * huge for batch in request.batches)
    pattern = Pattern(request.salt, min(longest, BATCH_BYTES_MAX))
    for batch in request.batches:
        region = Region(libc, batch, huge)
        if not region.length:  # a batch of huge folios alone, where there are none
            continue
        libc.prefer(region.start, region.length, batch.source)
        for way in ((batch.source, batch.destination), (batch.destination, batch.source)):
            if time.monotonic() > deadline:
                raise OSError(errno.ETIMEDOUT, f"took longer than {request.seconds_max:g} s")
            passages.append(_pass(libc, request.reason, region, pattern, way))
            if passages[-1].wrong:  # nothing more is to be learned, and the engine goes off the sooner
                return


def huge_size() -> int:
    """Return the size of a huge page; 0 when there is none."""
    try:
        return int(_THP_SIZE.read_text())
    except (OSError, ValueError):
        return 0


def _pass(libc: Libc, reason: str, region: Region, pattern: Pattern, way: tuple[int, int]) -> Passage:
    source, destination = way
    pattern.turn(region.length)
    region.fill(pattern)
    folios = region.folios()
    present = [folio for folio, holder in _held(libc, folios) if holder == source]
    if not present:
        raise OSError(errno.ENOMEM, f"no free memory on NUMA node {source}")
    began = time.monotonic()
    if reason == MEMPOLICY_MBIND:
        libc.prefer(region.start, region.length, destination, _MPOL_MF_MOVE)
        said = [0]
    else:
        said = libc.move([address for address, _ in present], destination)
    seconds = time.monotonic() - began
    arrived = [folio for folio, holder in _held(libc, present) if holder == destination]
    failed = next((-code for code in said if code < 0), 0)
    wrong, wrong_at = region.wrong(pattern, folios)
    return Passage(
        source=source,
        destination=destination,
        folios=len(arrived),
        huge=sum(length > PAGE for _, length in arrived),
        left=len(present) - len(arrived),
        wrong=wrong,
        wrong_at=wrong_at,
        errno=failed,
        cause=os.strerror(failed) if failed else "",
        seconds=seconds,
    )


def _held(libc: Libc, folios: Sequence[Folio]) -> list[tuple[Folio, int]]:
    return list(zip(folios, libc.where([folio.address for folio in folios]), strict=True))


def main(arguments: Sequence[str]) -> int:
    """Read a request from standard input and write the answer to standard output.

    Args:
        arguments: the process id of whoever starts this, to die with it; none when a person does.
    """
    become_child(arguments)
    reason, batches, salt, seconds_max, *began = json.load(sys.stdin)
    sys.stdout.write(MOVES.decode())
    sys.stdout.flush()
    request = MoveRequest(reason, tuple(Batch(*row) for row in batches), salt, seconds_max)
    sys.stdout.write(json.dumps(move(request, *began)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
