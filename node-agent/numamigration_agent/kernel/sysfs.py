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
* No descriptor is kept: a file held open over an unload answers ENODEV for ever.
* Paths are plain text here: with pathlib a look, which comes each 15 s, takes twice the CPU time.
* Any call may block, turning offload off for up to 10 s per DMA channel: call from a job thread that can be left
  behind, never from the one that keeps watch and heartbeat (promise 10).

Sources: Documentation/filesystems/sysfs.rst; fs/kernfs/file.c; kernel/params.c.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from numamigration_agent.kernel.codecs import Value
from numamigration_agent.kernel.dialects import KNOBS, Knob
from numamigration_api.machinery.records import dataclass

READ_BYTES_MAX: Final = 1 << 20  # /proc/vmstat has a few KiB, /proc/config.gz below 300 KiB
_CHUNK_BYTES: Final = 1 << 16
_ABSENT_ERRNOS: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENXIO})


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

    def __init__(self, root: Path) -> None:
        self._root = str(root).rstrip("/")

    def read(self, path: str, bytes_max: int = READ_BYTES_MAX) -> Reading:
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
        descriptor = os.open(self._root + path, os.O_RDONLY | os.O_CLOEXEC)
        try:
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
        descriptor = os.open(self._root + path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, data)
        finally:
            os.close(descriptor)

    def mode(self, path: str) -> int | None:
        """Return the permission bits, or None when there is no such file."""
        try:
            return os.stat(self._root + path).st_mode & 0o777  # noqa: PTH116 - see above
        except OSError:
            return None

    def life(self, path: str) -> int | None:
        """Return what tells a folder from one that stood here before; None when there is none.

        A driver's folder is made anew when it is loaded anew, and its inode number with it (fs/kernfs/dir.c).
        """
        try:
            return os.stat(self._root + path).st_ino  # noqa: PTH116 - see above
        except OSError:
            return None

    def names(self, path: str) -> tuple[str, ...]:
        """Return the sorted names in a folder; none when there is no such folder."""
        try:
            return tuple(sorted(os.listdir(self._root + path)))  # noqa: PTH208 - see above
        except OSError:
            return ()

    def link_name(self, path: str) -> str | None:
        """Return the last part of where a link leads, which is how sysfs names a device's driver."""
        try:
            return os.readlink(self._root + path).rpartition("/")[2]  # noqa: PTH115 - see above
        except OSError:
            return None


def _read_all(descriptor: int, bytes_max: int) -> bytes:
    parts: list[bytes] = []
    left = bytes_max
    while left > 0 and (part := os.read(descriptor, min(left, _CHUNK_BYTES))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _unreadable(error: OSError) -> Absent | Denied:
    return Absent() if error.errno in _ABSENT_ERRNOS else Denied(error.errno or errno.EIO)
