# SPDX-License-Identifier: Apache-2.0
"""Kernel files in memory: a copy of a fake kernel's files, which take a write and do nothing.

The fake kernel answers each component of each path by a Python call behind FUSE. So what a benchmark on it measures is
the fake as much as us: a look of the agent takes some 14 ms there, and 0.4 ms on files in memory, which cost what sysfs
costs. What needs a kernel that answers back stays on the fake one.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Final

MEMORY: Final = "/dev/shm"  # noqa: S108 - TemporaryDirectory makes a folder of its own there
"""tmpfs on every Linux with glibc (shm_open(3))."""
UNREADABLE: Final = shutil.ignore_patterns("uevent")


def memory_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a new folder in memory, a context manager that takes it away."""
    return tempfile.TemporaryDirectory(prefix="numamigration-kernel-", dir=MEMORY)


def copy_files(root: Path, folder: Path) -> None:
    """Copy what a fake kernel below `root` shows now to `folder`, which must not exist."""
    shutil.copytree(root, folder, symlinks=True, ignore=UNREADABLE, copy_function=_copy)


def _copy(source: str, destination: str) -> None:
    Path(destination).write_bytes(Path(source).read_bytes())  # the size of a kernel file is not what it says
    shutil.copymode(source, destination)
