# SPDX-License-Identifier: Apache-2.0
"""What a cluster could leave on this machine, looked at from outside.

``state_of_machine`` must be equal before, during and after; ``traces_of`` a run must be empty after it. Runs beside
each other are told apart by their folder and their cgroup.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.cluster.keeper import cgroup_folders
from tests.cluster.node import KNOB_PROC_FILES, SYSCTLS

KNOBS: Final = ("/sys/kernel/mm/numa/demotion_enabled", *(f"/proc/{name}" for name in KNOB_PROC_FILES))
"""The machine's own, for which the fake kernel stands in."""

PLACES: Final = (
    "/etc/cni",
    "/opt/cni",
    "/run/containerd",
    "/usr/libexec/kubernetes",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/pods",
)
"""Where containerd, kubelet and CNI put things unless told otherwise."""


def state_of_machine() -> dict[str, str]:
    """Return what nodes share with the machine or change by default: sysctls, knobs, places, interfaces, routes."""
    sysctls = [f"/proc/sys/{name}" for name in (*SYSCTLS, "net/ipv4/ip_forward")]
    state = {path: Path(path).read_text() for path in (*sysctls, *KNOBS) if Path(path).exists()}
    state |= {path: str(Path(path).exists()) for path in PLACES}
    for what in ("link", "address", "route"):
        # Link and address say how long something lasts still, unless asked for less.
        state[what] = subprocess.run(
            ["ip", "-brief", what, "show"], check=True, capture_output=True, text=True, timeout=60
        ).stdout
    return state


def traces_of(folder: Path, cgroup: str) -> list[str]:
    """Return what is there of a run: files, cgroups, mounts and processes."""
    found = [str(path) for path in (folder, *cgroup_folders(cgroup)) if path.exists()]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found += [f"mount {line}" for line in mounts if str(folder) in line]
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal() or int(process.name) == os.getpid():
            continue
        with suppress(OSError):  # it has ended meanwhile
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(folder) in command:
                found.append(f"process {process.name}: {command}")
    return found
