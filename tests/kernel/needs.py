# SPDX-License-Identifier: Apache-2.0
"""What the machine must have before a guest can run; each refusal is one line that says what to do."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from tests.testbed.commands import search_path
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

STDERR_CHARACTERS: Final = 500
ANSWER_SECONDS_MAX: Final = 60
"""For apt's own index, dpkg and depmod; they take a second or two."""


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


def _mib(lines: Iterable[str], key: str) -> int | None:
    for line in lines:
        if line.startswith(key):
            return int(line.split()[1]) // 1024
    return None
