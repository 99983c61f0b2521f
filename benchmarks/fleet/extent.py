# SPDX-License-Identifier: Apache-2.0
"""How large a fleet is and how it is dealt, and whether a machine can hold it."""

from __future__ import annotations

import resource
import sys
from collections import Counter
from pathlib import Path
from typing import Final, NamedTuple, Self

from tests.fakekernel.config import HostConfig
from tests.fleet.cast import BUSY, Part

POOLS: Final = 20
"""Nodes are dealt to so many pools, by label ``pool``."""
FILES_SPARE: Final = 500
"""File descriptors of the API server beside one for each agent's watch."""
BASE_BYTES: Final = 3 << 30
NODE_BYTES: Final = 1 << 20
"""Of API server, etcd and agents, for each node; what they have at 5,000 nodes, with room."""
RUNS, RUNS_OF_MANY, NODES_FEW = 6, 2, 1000


class Extent(NamedTuple):
    """How much is done.

    Attributes:
        runs: of the edit, and of the bare push beside it; even, for they take turns two by two.
        steady_seconds: in which nothing is asked for.
    """

    nodes: int
    runs: int
    steady_seconds: float


def default_runs(nodes: int) -> int:
    """Return how often an edit is measured so that all scenarios together take some twenty minutes at most."""
    return RUNS if nodes <= NODES_FEW else RUNS_OF_MANY


class Room(NamedTuple):
    """What a machine has for a fleet: open files of one process, and bytes of memory."""

    files: int
    memory: int

    @classmethod
    def here(cls) -> Self:
        """Return what this one has; raises the soft limit of open files to the hard one."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        files = sys.maxsize if hard == resource.RLIM_INFINITY else hard
        return cls(files, 1024 * int(fields["MemAvailable"].split()[0]))


def lack(nodes: int, room: Room) -> str:
    """Return why a machine cannot hold so many nodes; empty when it can."""
    files, memory = nodes + FILES_SPARE, BASE_BYTES + nodes * NODE_BYTES
    if files > room.files:
        return f"the API server needs {files} open files, and {room.files} are allowed"
    if memory > room.memory:
        return f"it needs {memory / 2**30:.1f} GiB of memory, and {room.memory / 2**30:.1f} GiB are free"
    return ""


def parts(nodes: int) -> list[Part]:
    """Return the pools of a fleet."""
    counts = Counter(number % POOLS for number in range(nodes))
    zones = ("zone-a", "zone-b", "zone-c")
    kernel = HostConfig(workloads=BUSY)
    return [Part(pool(n), counts[n], kernel, zones, {"pool": pool(n)}) for n in range(POOLS) if counts[n]]


def pool(number: int) -> str:
    """Return a pool's name, which its nodes' names begin with."""
    return f"p{number:02d}"
