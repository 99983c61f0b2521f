# SPDX-License-Identifier: Apache-2.0
"""The only module of the agent that opens kernel files.

One door: the fake kernel stands behind it, and a reviewer reads one file.

* One change is one os.write() of the whole value: sysfs calls the driver once per write(2). A short return is not
  tried again, for drivers of 2024 and 2025 answer 4 whatever the length; the read-back tells.
* A value that a knob's row has among ``never`` (``sg_elems`` 0) is refused here too, whoever asks (promise 5).
* Files are opened for reading or for writing only, never created, truncated or renamed (promise 2), and only rows of
  the knob table are opened for writing (promise 14).
* A missing file, or one whose driver is just being unloaded (ENODEV), is Absent. Access errors come from open(2),
  value errors from write(2); after a failed write the old value stands.
* What is no regular file is refused, and opening it does not wait (a pipe would, for its other end). No last part of a
  path is followed when it is a link, and of a written path no part at all: below the mount of a host's root an absolute
  link leads out of it. Reading goes through links on the way to a DMA channel's device, for so sysfs tells it.
* A kernel file shows a line; whatever stands there instead is read no further than that, be it endless.
* No descriptor is kept: a file held open over an unload answers ENODEV for ever.
* Paths are plain text here: with pathlib a look, which comes each 15 s, takes twice the CPU time.
* Any call may block, turning offload off for up to 10 s per DMA channel: call from a job thread that can be left
  behind, never from the one that keeps watch and heartbeat (promise 10).

Sources: Documentation/filesystems/sysfs.rst; fs/kernfs/file.c; kernel/params.c.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from typing import Final

from numamigration_agent.kernel.codecs import Value
from numamigration_agent.kernel.dialects import KNOBS, Knob
from numamigration_api.machinery.records import dataclass

READ_BYTES_MAX: Final = 1 << 20  # /proc/vmstat has a few KiB, /proc/config.gz below 300 KiB
LINE_BYTES_MAX: Final = 4096  # a page, and so all that sysfs shows on most machines; what we know of is far shorter
NOT_A_FILE: Final = errno.EMEDIUMTYPE
"""Stands for "no regular file"; no kernel file answers it."""
STALE: Final = errno.ESTALE
"""Stands for "of another load of its driver than was meant"; no kernel file answers it."""

_CHUNK_BYTES: Final = 1 << 16
_ABSENT_ERRNOS: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENXIO})
_EXPLANATIONS: Final = {
    NOT_A_FILE: "is no regular file",
    STALE: "its driver was unloaded or loaded anew meanwhile",
    errno.ELOOP: "is or leads through a symbolic link",
}
_PLAIN: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_STEP: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_UNPRINTABLE: Final = re.compile(r"[^ -~]")


@dataclass(frozen=True, slots=True)
class Present:
    """The file was read."""

    text: str


@dataclass(frozen=True, slots=True)
class Absent:
    """This kernel has no such file now."""


@dataclass(frozen=True, slots=True)
class Denied:
    """The file is there and could not be read."""

    errno: int


Reading = Present | Absent | Denied


class Sysfs:
    """Kernel files below a root: ``/`` on a host, the mount of the host's root in a container."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = os.fspath(root).rstrip("/")

    def read(self, path: str, bytes_max: int = LINE_BYTES_MAX) -> Reading:
        """Read a file freshly, at most `bytes_max` bytes of it."""
        data = self.read_bytes(path, bytes_max)
        return Present(data.decode(errors="replace")) if isinstance(data, bytes) else data

    def read_bytes(self, path: str, bytes_max: int = READ_BYTES_MAX) -> bytes | Absent | Denied:
        """Read a file that is not text."""
        try:
            return self._load(path, bytes_max)
        except OSError as error:
            return _unreadable(error)

    def _load(self, path: str, bytes_max: int) -> bytes:
        descriptor = os.open(self._root + path, os.O_RDONLY | _PLAIN)
        try:
            _refuse_what_is_no_file(descriptor)
            return _read_all(descriptor, bytes_max)
        finally:
            os.close(descriptor)

    def write(self, knob: Knob, value: Value) -> int | None:
        """Write a whole value once.

        Returns:
            The errno, or None when the kernel took it.

        Raises:
            ValueError: no row of the knob table, a value that is never written, or nothing to write: write(2) of
                nothing succeeds and does nothing.
        """
        data = knob.codec.format(value).encode()
        if knob not in KNOBS or value in knob.never or not data.strip():
            raise ValueError(f"not a write of the knob table: {knob.path!r} {value!r}")
        try:
            self._store(knob.path, data)
        except OSError as error:
            return error.errno or errno.EIO
        return None

    def _store(self, path: str, data: bytes) -> None:
        folder = self._open_folder(path)
        try:
            descriptor = os.open(path.rpartition("/")[2], os.O_WRONLY | _PLAIN, dir_fd=folder)
        finally:
            os.close(folder)
        try:
            _refuse_what_is_no_file(descriptor)
            os.write(descriptor, data)
        finally:
            os.close(descriptor)

    def _open_folder(self, path: str) -> int:
        """Open the folder of a file step by step, through no link; the root itself may be reached by one."""
        folder = os.open(self._root or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        for name in path.split("/")[1:-1]:
            try:
                step = os.open(name, _STEP, dir_fd=folder)
            finally:
                os.close(folder)
            folder = step
        return folder

    def mode(self, path: str) -> int | None:
        """Return the permission bits, or None when there is no such file."""
        try:
            return os.lstat(self._root + path).st_mode & 0o777
        except OSError:
            return None

    def life(self, path: str) -> int | None:
        """Return what tells a folder from one that stood here before; None when there is none.

        A driver's folder is made anew when it is loaded anew, and its inode number with it (fs/kernfs/dir.c).
        """
        try:
            return os.stat(self._root + path).st_ino
        except OSError:
            return None

    def names(self, path: str) -> tuple[str, ...]:
        """Return the sorted names in a folder, as ``printable``; none when there is no such folder."""
        try:
            return tuple(sorted(map(printable, os.listdir(self._root + path))))
        except OSError:
            return ()

    def link_name(self, path: str) -> str | None:
        """Return the last part of where a link leads, as ``printable``: so sysfs names a device's driver."""
        try:
            return printable(os.readlink(self._root + path).rpartition("/")[2])
        except OSError:
            return None


def printable(text: str) -> str:
    """Return text of the kernel for people: one line, a byte for each character, nothing that a terminal obeys."""
    return text if text.isascii() and text.isprintable() else _UNPRINTABLE.sub("?", text)


def explain_errno(number: int) -> str:
    """Say what an errno of this door means."""
    return _EXPLANATIONS.get(number) or os.strerror(number)


def _refuse_what_is_no_file(descriptor: int) -> None:
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else NOT_A_FILE, "no regular file")


def _read_all(descriptor: int, bytes_max: int) -> bytes:
    parts: list[bytes] = []
    left = bytes_max
    while left > 0 and (part := os.read(descriptor, min(left, _CHUNK_BYTES))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _unreadable(error: OSError) -> Absent | Denied:
    return Absent() if error.errno in _ABSENT_ERRNOS else Denied(error.errno or errno.EIO)
