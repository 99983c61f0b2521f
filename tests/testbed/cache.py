# SPDX-License-Identifier: Apache-2.0
"""What is made once and kept in a cache folder: whole, and named by what it was made from."""

from __future__ import annotations

import errno
import hashlib
import shutil
from collections.abc import Callable
from os import getpid
from pathlib import Path
from typing import Final

from tests.testbed.binaries import only_one
from tests.testbed.errors import MissingNeedError
from tests.testbed.progress import Progress

MIB: Final = 1 << 20


def key(*parts: str | bytes) -> str:
    """Return a name for something made from `parts`; equal parts, equal name."""
    digest = hashlib.sha256()
    for part in parts:
        content = part if isinstance(part, bytes) else part.encode()
        # A length before each part, so that no two lists of parts read the same.
        digest.update(b"%d:" % len(content) + content)
    return digest.hexdigest()[:16]


def made_once(target: Path, make: Callable[[Path], None], *, needed_mib: int, progress: Progress) -> Path:
    """Return `target`; when it is absent, `make` makes it under another name, and only the whole is renamed.

    Args:
        target: file or folder in the cache.
        make: gets the path at which it shall make the file or folder.
        needed_mib: room that making it takes.
        progress: shows that another run makes the same.

    Raises:
        MissingNeedError: no room, or `make` says what it lacks.
    """
    if target.exists():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with only_one(target.parent / "lock", progress):
            if not target.exists():
                require_room(target.parent, needed_mib, free_mib(target.parent))
                _make_whole(target, make)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise MissingNeedError(f"disk full while making {target}; make room or set XDG_CACHE_HOME") from error
        raise MissingNeedError(f"cannot make {target}: {error}") from error
    return target


def require_room(folder: Path, needed_mib: int, free_mib: int) -> None:
    """Refuse when a folder's file system has less room than what shall be put there."""
    if free_mib < needed_mib:
        raise MissingNeedError(
            f"disk full: {folder} needs {needed_mib} MiB, free are {free_mib} MiB; make room or set XDG_CACHE_HOME"
        )


def free_mib(folder: Path) -> int:
    """Return the room on a folder's file system."""
    return shutil.disk_usage(folder).free // MIB


def _make_whole(target: Path, make: Callable[[Path], None]) -> None:
    half_done = target.with_name(f".{target.name}.{getpid()}")
    _remove(half_done)
    try:
        make(half_done)
        half_done.rename(target)
    finally:
        _remove(half_done)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
