# SPDX-License-Identifier: Apache-2.0
"""What a machine must have and allow before a cluster can run on it; each message says what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.testbed.commands import search_path
from tests.testbed.errors import MissingNeedError

PROGRAMS: Final = ("runc", "buildah", "nsenter", "unshare", "ip", "busybox", "fusermount3")
"""``scripts/setup cluster`` installs those that a Debian lacks."""


def find_program(name: str) -> Path:
    """Return a program of the machine.

    Raises:
        MissingNeedError: there is none.
    """
    found = shutil.which(name, path=search_path(os.environ))
    if not found:
        raise MissingNeedError(f"{name} is missing; run: scripts/setup cluster")
    return Path(found)


def find_runc() -> Path:
    """Return the machine's runc (docs/decisions/0028).

    Raises:
        MissingNeedError: there is none.
    """
    return find_program("runc")


def require_containers(uid: int | None = None) -> None:
    """Return when this machine can run containers.

    Args:
        uid: who wants to; None means whoever runs this.

    Raises:
        MissingNeedError: it cannot; says what it refuses.
    """
    if (os.geteuid() if uid is None else uid) != 0:
        raise MissingNeedError("a node needs root: namespaces, mounts and cgroups are made")
    for name in PROGRAMS:
        find_program(name)
    _require_namespaces()
    if not Path("/sys/fs/cgroup/memory/tasks").exists() and not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        raise MissingNeedError("no cgroups at /sys/fs/cgroup: neither version 2 nor the memory controller of version 1")
    if not os.access("/sys/fs/cgroup", os.W_OK):
        raise MissingNeedError("/sys/fs/cgroup is read only, as in a container that is not privileged")


def _require_namespaces() -> None:
    # What a node does first, on a small scale: its own mounts and network, and the two kinds of device that Pods need.
    script = "mount -t tmpfs tmpfs /run && ip link add b0 type bridge && ip link add v0 type veth peer name v1"
    own = ["unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--mount-proc", "sh", "-ec", script]
    done = subprocess.run(own, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MissingNeedError(f"this machine gives no namespaces, mounts, bridges or veths: {done.stderr.strip()}")
