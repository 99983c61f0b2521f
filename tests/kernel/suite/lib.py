# SPDX-License-Identifier: Apache-2.0
"""What the guest's tests share: counters of the kernel, nodes, and pages that are moved for real.

Sources: proc_vmstat(5), move_pages(2), mbind(2), <linux/mempolicy.h>.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
from collections import Counter
from typing import Any, Final

PAGE: Final = mmap.PAGESIZE
EXCHANGE: Final = "/mnt/exchange"
NODES: Final = "/sys/devices/system/node"
TIERS: Final = "/sys/devices/virtual/memory_tiering"

SYS_MBIND: Final = 237
SYS_MOVE_PAGES: Final = 279
MPOL_BIND: Final = 2
MPOL_MF_MOVE: Final = 2
MASK_BITS: Final = 64

LIBC: Final = ctypes.CDLL(None, use_errno=True)


def read(path: str) -> str:
    """Return the content of a kernel file without its newline."""
    with open(path) as stream:
        return stream.read().rstrip("\n")


def write(path: str, value: str) -> int:
    """Write a value with one write(2) and return 0 or the errno; a shell's echo tells none."""
    try:
        descriptor = os.open(path, os.O_WRONLY)
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        return error.errno or 0
    return 0


def handed(name: str) -> Any:
    """Return what a fixture on the host has handed over under `name`."""
    with open(f"{EXCHANGE}/{name}.json") as stream:
        return json.load(stream)


def vmstat() -> dict[str, int]:
    """Return the counters of /proc/vmstat."""
    return {name: int(value) for name, value in (line.split() for line in read("/proc/vmstat").splitlines())}


class Pages:
    """Pages of our own on one NUMA node, each with content of its own."""

    def __init__(self, count: int, node: int) -> None:
        self.count = count
        self._memory = mmap.mmap(-1, count * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        # One mapping of huge pages would move as one folio; these shall be what they are counted as.
        self._memory.madvise(mmap.MADV_NOHUGEPAGE)
        self._bind(node)
        self._salt = os.urandom(8)
        for index in range(count):
            self._memory[index * PAGE : index * PAGE + 16] = self._content(index)

    def move(self, node: int) -> Counter[int]:
        """Move all pages to `node`; return how often each status came (a node, or a negative errno)."""
        return self._move_pages(node)

    def where(self) -> Counter[int]:
        """Return how many pages are on which node."""
        return self._move_pages(None)

    def damaged(self) -> list[int]:
        """Return the pages whose content is not what was written."""
        return [
            index
            for index in range(self.count)
            if self._memory[index * PAGE : index * PAGE + 16] != self._content(index)
        ]

    def _content(self, index: int) -> bytes:
        return index.to_bytes(8, "little") + self._salt

    def _bind(self, node: int) -> None:
        mask = ctypes.c_ulong(1 << node)
        arguments = (ctypes.c_void_p(self._address), ctypes.c_ulong(self.count * PAGE), MPOL_BIND)
        _syscall(SYS_MBIND, *arguments, ctypes.byref(mask), ctypes.c_ulong(MASK_BITS), 0)

    def _move_pages(self, node: int | None) -> Counter[int]:
        pages = (ctypes.c_void_p * self.count)(*(self._address + index * PAGE for index in range(self.count)))
        nodes = None if node is None else (ctypes.c_int * self.count)(*[node] * self.count)
        status = (ctypes.c_int * self.count)()
        flags = 0 if node is None else MPOL_MF_MOVE
        _syscall(SYS_MOVE_PAGES, 0, ctypes.c_ulong(self.count), pages, nodes, status, flags)
        return Counter(status)


def _syscall(number: int, *arguments: Any) -> int:
    result: int = LIBC.syscall(number, *arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"system call {number}: {os.strerror(error)}")
    return result
