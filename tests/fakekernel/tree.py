# SPDX-License-Identifier: Apache-2.0
"""The names of one boot: which file, folder or link stands where, and what is wrong with it.

* What comes back under its old name is another thing, with another inode number, as in kernfs.
* A file may be spoiled: it shows something else, fails, or is no file at all. That outlasts an unload and a reboot.

Sources: fs/namei.c, fs/kernfs/dir.c, fifo(7).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from errno import EISDIR, ELOOP, ENOENT, ENOTDIR, ENXIO
from pathlib import PurePosixPath
from typing import Final

from tests.fakekernel.calls import StillUnderWayError
from tests.fakekernel.config import Place, Spoiled
from tests.fakekernel.files import Kind, Link, Row
from tests.fakekernel.parsing import KernelError
from tests.fakekernel.state import KernelState

LINKS_MAX: Final = 40
"""Symbolic links in one path before ELOOP, as in the kernel."""
SOUND: Final = Spoiled()


class Folder:
    """A directory."""


class Fifo:
    """A named pipe where a kernel file should be; nobody ever has its other end open."""


class File:
    """A file as long as it exists; unloading and loading make a new one of the same name."""

    def __init__(self, row: Row, spoiled: Spoiled = SOUND) -> None:
        self.row = row
        self.mode = row.mode
        self.spoiled = spoiled

    def show(self, state: KernelState) -> bytes:
        """Return the text, true or not."""
        if self.spoiled.read_error:
            raise KernelError(self.spoiled.read_error)
        return self.row.show(state) if self.spoiled.shows is None else self.spoiled.shows


Entry = Folder | File | Link | Fifo
EMPTY_PIPE: Final = Row("", 0o644, Kind.PROC, lambda _: b"")


class Tree:
    """Paths without links and dots, and what stands there."""

    def __init__(self, missing: tuple[str, ...], spoiled: dict[str, Spoiled], numbers: Iterator[int]) -> None:
        """Begin empty; `spoiled` and `numbers`, the next inode numbers, belong to the host and outlast a boot."""
        self._missing = missing
        self._spoiled = spoiled
        self._numbers = numbers
        self._entries: dict[str, Entry] = {}
        self._inodes: dict[str, int] = {}
        self._rows: dict[str, Row | Link] = {}

    def __getitem__(self, path: str) -> Entry:
        return self._entries[path]

    def inode(self, path: str) -> int:
        return self._inodes[path]

    def has(self, path: str, file: File) -> bool:
        """Whether a file is still there; a pipe, once open, always is."""
        return file.row is EMPTY_PIPE or self._entries.get(path) is file

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, sorted."""
        if not isinstance(self._entries[folder], Folder):
            raise KernelError(ENOTDIR)
        start = f"{folder.rstrip('/')}/"
        inside = (path[len(start) :] for path in self._entries if path.startswith(start))
        return sorted(name for name in inside if name and "/" not in name)

    def add_folder(self, path: str) -> None:
        while path not in self._entries:
            self._put(path, Folder())
            path = parent(path)

    def add(self, entries: Iterable[Row | Link]) -> None:
        """Make files and links, and the folders that they stand in; not those that this host lacks."""
        for entry in entries:
            if not any(entry.path == path or entry.path.startswith(f"{path}/") for path in self._missing):
                self.add_folder(parent(entry.path))
                self._rows[entry.path] = entry
                self._put(entry.path, self._made_of(entry))

    def drop(self, folder: str) -> None:
        """Take a folder away, with all that is in it."""
        for path in [path for path in self._entries if path == folder or path.startswith(f"{folder}/")]:
            del self._entries[path]
            self._rows.pop(path, None)

    def spoil(self, path: str, spoiled: Spoiled) -> None:
        """Let something be wrong with a file or link."""
        if path not in self._rows:
            raise KernelError(ENOENT)
        self._spoiled[path] = spoiled
        self._put(path, self._made_of(self._rows[path]))

    def _put(self, path: str, entry: Entry) -> None:
        self._entries[path] = entry
        self._inodes[path] = next(self._numbers)

    def _made_of(self, entry: Row | Link) -> Entry:
        spoiled = self._spoiled.get(entry.path, SOUND)
        match spoiled.place:
            case Place.FIFO:
                return Fifo()
            case Place.FOLDER:
                return Folder()
            case Place.LOOP:
                return Link(entry.path, PurePosixPath(entry.path).name)
            case Place.FILE:
                return entry if isinstance(entry, Link) else File(entry, spoiled)

    def opened(self, path: str, flags: int) -> File:
        """Return the file that open(2) opens.

        Raises:
            KernelError: there is none.
            StillUnderWayError: it is a pipe, and the call waits for somebody at the other end.
        """
        match self._entries[path]:
            case File() as file:
                return file
            case Fifo() if not flags & os.O_NONBLOCK:
                raise StillUnderWayError(f"open of {path} waits for somebody at the pipe's other end")
            case Fifo() if flags & os.O_ACCMODE == os.O_WRONLY:
                raise KernelError(ENXIO)
            case Fifo():
                return File(EMPTY_PIPE)
            case _:
                raise KernelError(EISDIR)

    def resolve(self, path: str, *, follow: bool = True) -> str:
        """Return the path without links and dots; ENOENT, ENOTDIR and ELOOP as the kernel."""
        entry = self._entries.get(path)
        if entry is not None and not (follow and isinstance(entry, Link)):
            return path  # what stands in the tree has no links and dots on its way
        done, rest, links = "/", _parts(path), 0
        while rest:
            name = rest.pop(0)
            if not isinstance(self._entries[done], Folder):
                raise KernelError(ENOTDIR)
            step = parent(done) if name == ".." else f"{done.rstrip('/')}/{name}"
            entry = self._entries.get(step)
            if entry is None:
                raise KernelError(ENOENT)
            if not isinstance(entry, Link) or not (rest or follow):
                done = step
                continue
            links += 1
            if links > LINKS_MAX:
                raise KernelError(ELOOP)
            rest = _parts(entry.target) + rest
        return done


def parent(path: str) -> str:
    """Return the folder that a path stands in."""
    return path.rpartition("/")[0] or "/"


def _parts(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in {"", "."}]
