# SPDX-License-Identifier: Apache-2.0
"""Holds a node's namespaces, and puts everything back once its standard input ends.

Usage: ``python -I -S keeper.py CGROUP FOLDER``. A line on standard input makes the namespaces, with the mounts that are
there by then; the answer is the process id of the node's first process.

* Standard input is the reading end of a pipe whose other end is the test run's, so it ends with the run however that
  ends, SIGKILL included.
* Every process of the node is in its process-id namespace and dies with the first one. The mounts, interfaces and
  addresses that are its own go with the last process. The cgroup folders and FOLDER remain: those are removed.
* Signals that end a session are ignored: nobody else would clean up. Whoever kills this with SIGKILL still ends the
  node (``tether.py``).

Sources: pid_namespaces(7), unshare(1), cgroups(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

CGROUPS: Final = Path("/sys/fs/cgroup")

REMOVE_SECONDS_MAX: Final = 60.0
"""A cgroup can be removed when the last of its processes is reaped, which comes without an event; a folder with images
has ten thousand files."""

RETRY_SECONDS: Final = 0.02

MNT_FORCE, MNT_DETACH = 1, 2
"""<linux/mount.h>"""

TETHER: Final = Path(__file__).parents[1] / "testbed" / "tether.py"


def cgroup_folders(name: str) -> list[Path]:
    """Return where a cgroup stands: one folder, or with cgroup v1 one in each hierarchy: runc uses all."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS / name]
    return [hierarchy / name for hierarchy in sorted(CGROUPS.iterdir()) if (hierarchy / "cgroup.procs").exists()]


def remove_cgroups(folders: list[Path]) -> None:
    """Remove these cgroups and those below them.

    Raises:
        TimeoutError: one of them still has processes.
    """
    deadline = time.monotonic() + REMOVE_SECONDS_MAX
    while left := [folder for folder in folders if folder.exists()]:
        for folder in left:
            # Deepest first; rmtree would try to remove the files, which the kernel makes and takes.
            for path, _, _ in os.walk(folder, topdown=False):
                with contextlib.suppress(OSError):
                    Path(path).rmdir()
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes are left in {left[0]}")
        time.sleep(RETRY_SECONDS)


def remove_folder(folder: Path) -> None:
    """Remove a folder in which processes that are just being killed may still write.

    Raises:
        TimeoutError: somebody goes on writing, or a mount stays.
    """
    deadline = time.monotonic() + REMOVE_SECONDS_MAX
    while folder.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{folder} cannot be removed")
        detach_below(folder)
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(RETRY_SECONDS)


def detach_below(folder: Path) -> None:
    """Unmount what a killed fake kernel may have left in a folder; one that nobody serves answers to nothing."""
    libc = ctypes.CDLL(None, use_errno=True)
    places = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for place in reversed(places):
        if place.startswith(f"{folder}/"):
            libc.umount2(os.fsencode(place), MNT_FORCE | MNT_DETACH)


def be_first_process() -> None:
    """Be the node's process 1: reap whoever is left to it, until killed."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    print("up", flush=True)
    while True:
        signal.sigwait({signal.SIGCHLD})
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _start_node() -> tuple[subprocess.Popen[bytes], int]:
    """Start process 1 in namespaces of its own; return its parent and its process id out here."""
    python = [sys.executable, "-I", "-S"]
    namespaces = ["unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc"]
    command = [*python, str(TETHER), str(os.getpid()), *namespaces, *python, __file__, "--first"]
    parent = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert parent.stdout
    if parent.stdout.readline() != b"up\n":
        raise RuntimeError("no namespaces; the message stands above")
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    return parent, int(children[0])


def keep(cgroup: str, folder: Path) -> None:
    """Start the node when told to, and wait for the end of standard input; then end it and clean up."""
    cgroups = cgroup_folders(cgroup)
    node = None
    try:
        for path in cgroups:
            path.mkdir()
        if os.read(sys.stdin.fileno(), 4096):
            node, first = _start_node()
            print(first, flush=True)
        while os.read(sys.stdin.fileno(), 4096):
            pass
    finally:
        if node:
            node.kill()  # and with it process 1, by --kill-child
            node.wait()
        remove_cgroups(cgroups)
        remove_folder(folder)


def main() -> int:
    if sys.argv[1:] == ["--first"]:
        be_first_process()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    cgroup, folder = sys.argv[1:]
    keep(cgroup, Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
