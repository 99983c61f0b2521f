# SPDX-License-Identifier: Apache-2.0
"""Hands of the host in the guest: a process with pages of its own that reads, writes and migrates on request.

It connects to the host and answers each JSON line with one. What blocks in the kernel blocks this process alone, so the
host takes another one (``fork``) for that, and one more for each process whose pages have to be somebody's.

Source: cgroup-v2.rst (cgroup.procs, memory.reclaim).
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from tests.kernel.suite import kernellog, lib

POLL_SECONDS: Final = 0.01
"""Kernel files tell nobody that they have changed."""

STORE: Final = "kernfs_fop_write_iter"
"""In the kernel's stack of whoever writes to a file of sysfs (fs/kernfs/file.c)."""

MPOL_DEFAULT: Final = 0

Json = dict[str, Any]


class Memory(lib.Pages):
    """Pages that can be moved by a memory policy too, and used."""

    def bind(self, node: int) -> None:
        """Move all pages by mbind(2)."""
        mask = ctypes.c_ulong(1 << node)
        arguments = (ctypes.c_void_p(self._address), ctypes.c_ulong(self.count * lib.PAGE), lib.MPOL_BIND)
        if lib.LIBC.syscall(lib.SYS_MBIND, *arguments, ctypes.byref(mask), lib.MASK_BITS, lib.MPOL_MF_MOVE):
            raise OSError(ctypes.get_errno(), "mbind")

    def forget_policy(self) -> None:
        """Let pages be where the kernel wants them: NUMA balancing leaves those alone that are bound (mempolicy.c)."""
        arguments = (ctypes.c_void_p(self._address), ctypes.c_ulong(self.count * lib.PAGE), MPOL_DEFAULT, None)
        if lib.LIBC.syscall(lib.SYS_MBIND, *arguments, ctypes.c_ulong(0), 0):
            raise OSError(ctypes.get_errno(), "mbind")

    def use(self) -> None:
        """Read from each page once."""
        for index in range(self.count):
            self._memory[index * lib.PAGE]


class Hands:
    """What the host can ask for."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._memory = Memory(1, 0)
        self._log = kernellog.Reader()

    def serve(self) -> None:
        """Answer until the other end is gone."""
        with self._connect() as connection, connection.makefile("rwb", buffering=0) as stream:
            stream.write(json.dumps({"pid": os.getpid()}).encode() + b"\n")
            for line in stream:
                stream.write(json.dumps(self._answer(json.loads(line))).encode() + b"\n")

    def _answer(self, question: Json) -> Any:
        try:
            return getattr(self, f"do_{question['do']}")(*question["with"])
        except OSError as error:
            return {"errno": error.errno, "error": str(error)}

    def do_fork(self) -> int:
        """Have another pair of hands, with a connection of its own."""
        child = os.fork()
        if child:
            return child
        try:
            Hands(self._connect).serve()
        finally:
            os._exit(0)

    def do_read(self, path: str) -> str:
        return lib.read(path)

    def do_write(self, path: str, text: str) -> int:
        """Return 0 or the errno."""
        return lib.write(path, text)

    def do_vmstat(self) -> dict[str, int]:
        return lib.vmstat()

    def do_splats(self) -> list[str]:
        """Return what the kernel has complained of since this was last asked."""
        return kernellog.splats(self._log.lines())

    def do_await(self, path: str, texts: list[str], seconds: float) -> str:
        """Return what a file says once that is one of `texts`, or when time is up."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                text = lib.read(path)
            except OSError as error:
                text = errno.errorcode.get(error.errno or 0, "")
            if text in texts or time.monotonic() > deadline:
                return text
            time.sleep(POLL_SECONDS)

    def do_await_blocked(self, pid: int, seconds: float) -> bool:
        """Return once a thread of a process sits in a store to a kernel file that waits, or False when time is up."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if any(STORE in _stack(pid, thread) for thread in os.listdir(f"/proc/{pid}/task")):
                return True
            time.sleep(POLL_SECONDS)
        return False

    def do_have(self, pages: int, node: int) -> int:
        self._memory = Memory(pages, node)
        return pages

    def do_move(self, node: int) -> int:
        """Return how many pages are there then."""
        return self._memory.move(node)[node]

    def do_bind(self, node: int) -> int:
        """Return how many pages are there then."""
        self._memory.bind(node)
        return self.do_count(node)

    def do_count(self, node: int) -> int:
        """Return how many pages are on a node."""
        return self._memory.where()[node]

    def do_use(self, node: int, pages: int, seconds: float) -> int:
        """Use the pages again and again until at most `pages` of them are on a node, or time is up."""
        self._memory.forget_policy()
        deadline = time.monotonic() + seconds
        while (left := self.do_count(node)) > pages and time.monotonic() < deadline:
            self._memory.use()
        return left

    def do_reclaim(self, cgroup: str, node: int, pages: int, seconds: float) -> int:
        """Have a cgroup's memory reclaimed until `pages` of ours are on a node, or time is up."""
        deadline = time.monotonic() + seconds
        while (there := self.do_count(node)) < pages and time.monotonic() < deadline:
            lib.write(f"{cgroup}/memory.reclaim", str((pages - there) * lib.PAGE))  # EAGAIN: it was less
        return there

    def do_damaged(self) -> int:
        """Return how many pages do not hold what was written."""
        return len(self._memory.damaged())


def _stack(pid: int, thread: str) -> str:
    try:
        return lib.read(f"/proc/{pid}/task/{thread}/stack")
    except OSError:
        return ""  # it has ended


def main(host: str, port: str) -> None:
    """Serve the host that listens there."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    Hands(lambda: socket.create_connection((host, int(port)))).serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
