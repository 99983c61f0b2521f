# SPDX-License-Identifier: Apache-2.0
"""Serves the model as real files: FUSE calls in, the model's answers and errnos out. No rule of the kernel is here.

* ``direct_io``: each read(2) and write(2) arrives as it was made, whatever size stat(2) tells.
* No caching of names and attributes, so that files vanish at the moment of an unload.
* ``allow_other`` without ``default_permissions``: everybody comes in, and the model says who may do what. The FUSE
  module would let root open a 0444 file for writing; sysfs does not.
* Mounted by somebody who is not root, nobody else comes in, and whoever mounted is the fake host's root, as in a user
  namespace; so the demo needs no root.
* A write of no bytes never arrives (the VFS answers 0), and rename over a file system border is the VFS's EXDEV.
* FUSE lets no write answer more than it was given: EIO (fs/fuse/file.c). So where a driver answers 4 to two bytes, two
  come back; shorter answers do come through.
* A call that is held up keeps its thread and nothing else; there is a thread for every request under way.
* A process that is killed within a read or write is gone only when that is answered, as in a driver that waits in state
  D: FUSE waits out what it has handed over (fs/fuse/dev.c, request_wait_answer). Its other threads end at once.
* ``use_ino``: stat tells the model's inode numbers, so that a folder that went and came back shows.
* The file system's magic number is FUSE's, not that of sysfs.

Importing this needs libfuse3 (Debian: fuse3). Sources: libfuse's include/fuse.h; fs/fuse/file.c.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import mfusepy

from tests.fakekernel.config import Caller
from tests.fakekernel.control import RunningKernel
from tests.fakekernel.host import FSNAME
from tests.fakekernel.model import FakeKernel, OpenFile

THREADS_MAX: Final = 1000
"""Calls that are held up at the same time; each keeps a thread."""

OWNER: Final = {"st_uid": 0, "st_gid": 0}


class Frontend:
    """The operations libfuse calls, each on a thread of its own; the names and signatures are libfuse's."""

    use_ns = True

    def __init__(self, running: RunningKernel, mounted: Callable[[], None]) -> None:
        self._running = running
        self._mounted = mounted
        self._handles: dict[int, OpenFile] = {}
        self._numbers = itertools.count(1)

    def init(self, _path: str) -> None:
        """Called once, when the kernel has made the mount."""
        self._mounted()

    def getattr(self, path: str, _fi: Any = None) -> dict[str, int]:
        with self._running as kernel:
            status = kernel.stat(path, follow=False)
        return {"st_mode": status.mode, "st_size": status.size, "st_ino": status.inode, "st_nlink": 1} | OWNER

    def access(self, path: str, mask: int) -> int:
        with self._running as kernel:
            kernel.access(path, write=bool(mask & os.W_OK), caller=_caller(kernel))
        return 0

    def readdir(self, path: str, _fh: int) -> Iterator[tuple[str, dict[str, int], int]]:
        with self._running as kernel:
            inodes = {name: kernel.stat(f"{path}/{name}", follow=False).inode for name in kernel.listdir(path)}
            here = kernel.stat(path).inode
        # Without a number the C library takes an entry for a deleted one.
        return iter([(name, {"st_ino": inode}, 0) for name, inode in ({".": here, "..": here} | inodes).items()])

    def readlink(self, path: str) -> str:
        with self._running as kernel:
            return kernel.readlink(path)

    def open(self, path: str, fi: Any) -> int:
        with self._running as kernel:
            handle = kernel.open(path, fi.flags, _caller(kernel))
            number = next(self._numbers)
            self._handles[number] = handle
        fi.fh = number
        fi.direct_io = True
        return 0

    def release(self, _path: str, fi: Any) -> int:
        with self._running:
            del self._handles[fi.fh]
        return 0

    def read(self, _path: str, size: int, offset: int, fi: Any) -> bytes:
        with self._running as kernel:
            call = kernel.begin_read(self._handles[fi.fh], size, offset)
        answer = self._running.finish(call)
        return answer if isinstance(answer, bytes) else b""

    def write(self, _path: str, data: bytes, offset: int, fi: Any) -> int:
        with self._running as kernel:
            call = kernel.begin_write(self._handles[fi.fh], data, offset)
        return min(int(self._running.finish(call)), len(data))

    def truncate(self, path: str, _length: int, _fi: Any = None) -> int:
        with self._running as kernel:
            kernel.truncate(path, _caller(kernel))
        return 0

    def chmod(self, path: str, mode: int, _fi: Any = None) -> int:
        with self._running as kernel:
            kernel.chmod(path, mode, _caller(kernel))
        return 0

    def create(self, path: str, _mode: int, _fi: Any) -> int:
        with self._running as kernel:
            kernel.create(path, _caller(kernel))
        return 0

    def _refuse(self, path: str, *_others: object) -> int:
        with self._running as kernel:
            kernel.refuse(path, _caller(kernel))
        return 0

    mkdir = rmdir = unlink = rename = symlink = link = mknod = _refuse


def _caller(kernel: FakeKernel) -> Caller:
    uid, _gid, _pid = mfusepy.fuse_get_context()
    return kernel.agent(0 if uid == os.geteuid() else uid)


def mount(running: RunningKernel, folder: Path, mounted: Callable[[], None]) -> None:
    """Serve until unmounted.

    Raises:
        RuntimeError: it could not be mounted; libfuse has said why on standard error.
    """
    try:
        mfusepy.FUSE(
            Frontend(running, mounted),
            str(folder),
            raw_fi=True,
            foreground=True,
            nothreads=False,
            allow_other=os.geteuid() == 0,
            fsname=FSNAME,
            use_ino=True,
            entry_timeout=0,
            attr_timeout=0,
            # Since 3.12 libfuse serves ten requests at a time unless told otherwise; before there is no limit to set.
            **(
                {"max_threads": THREADS_MAX}
                if (mfusepy.fuse_version_major, mfusepy.fuse_version_minor) >= (3, 12)
                else {}
            ),
        )
    except RuntimeError as error:
        raise RuntimeError(f"libfuse gave up with code {error}; its own message stands above") from error
