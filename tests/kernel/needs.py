# SPDX-License-Identifier: Apache-2.0
"""What the machine must have before a guest can run; each refusal is one line that says what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.testbed.errors import MissingNeedError

QEMU: Final = "qemu-system-x86_64"

PACKAGE_OF: Final = {
    QEMU: "qemu-system-x86",
    "apt-cache": "apt",
    "apt-get": "apt",
    "busybox": "busybox-static",
    "cpio": "cpio",
    "debootstrap": "debootstrap",
    "depmod": "kmod",
    "dpkg": "dpkg",
    "make": "make",
    "mke2fs": "e2fsprogs",
    "modprobe": "kmod",
    "unshare": "util-linux",
    "x86_64-linux-gnu-gcc-12": "gcc-12",
}
"""Program to Debian package; ``scripts/setup kernel`` installs those that a Debian lacks."""

ADMIN_FOLDERS: Final = "/usr/sbin:/sbin"
"""Not on everyone's PATH, and mke2fs, depmod and debootstrap are there."""

MIB: Final = 1 << 20

STDERR_CHARACTERS: Final = 500
ANSWER_SECONDS_MAX: Final = 60
"""For apt's own index, dpkg and depmod; they take a second or two."""


def search_path(environ: Mapping[str, str]) -> str:
    """Return where programs are looked for."""
    return f"{environ.get('PATH', os.defpath)}:{ADMIN_FOLDERS}"


def find_program(name: str, environ: Mapping[str, str]) -> str:
    """Return the path of a program.

    Raises:
        MissingNeedError: it is not installed; names the package.
    """
    found = shutil.which(name, path=search_path(environ))
    if not found:
        raise MissingNeedError(f"{name} is missing: `scripts/setup kernel` as root, or install {PACKAGE_OF[name]}")
    return found


def answer_of(command: Sequence[str], environ: Mapping[str, str]) -> str:
    """Return what a program prints.

    Raises:
        MissingNeedError: it is missing or it fails.
    """
    done = subprocess.run(
        [find_program(command[0], environ), *command[1:]],
        env=untranslated(environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=ANSWER_SECONDS_MAX,
        check=False,
    )
    # apt-cache answers 100 for a name that it does not know; its empty output says the same.
    if done.returncode and command[0] != "apt-cache":
        raise MissingNeedError(f"{' '.join(command[:2])} failed: {done.stderr.strip()[-STDERR_CHARACTERS:]}")
    return done.stdout


def untranslated(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of programs whose words are looked at."""
    return {**environ, "PATH": search_path(environ), "LC_ALL": "C"}


def require_root(what: str, uid: int) -> None:
    """Refuse when the user is not root."""
    if uid != 0:
        raise MissingNeedError(f"{what} needs root once; run `python -m tests.kernel prepare` as root, then go on")


def require_memory(needed_mib: int, meminfo: str) -> None:
    """Refuse when the machine has less memory to give than the guest takes.

    Args:
        needed_mib: of the guest and of QEMU itself.
        meminfo: content of /proc/meminfo; MemAvailable is what can be had without swapping (proc_meminfo(5)).
    """
    available = _mib(meminfo.splitlines(), "MemAvailable:")
    if available is not None and available < needed_mib:
        raise MissingNeedError(f"too little memory: the guest needs {needed_mib} MiB, available are {available} MiB")


def require_room(folder: Path, needed_mib: int, free_mib: int) -> None:
    """Refuse when a folder's file system has less room than what shall be put there."""
    if free_mib < needed_mib:
        raise MissingNeedError(
            f"disk full: {folder} needs {needed_mib} MiB, free are {free_mib} MiB; make room or set XDG_CACHE_HOME"
        )


def free_mib(folder: Path) -> int:
    """Return the room on a folder's file system."""
    return shutil.disk_usage(folder).free // MIB


def _mib(lines: Iterable[str], key: str) -> int | None:
    for line in lines:
        if line.startswith(key):
            return int(line.split()[1]) // 1024
    return None
