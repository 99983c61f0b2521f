# SPDX-License-Identifier: Apache-2.0
"""How large a fleet is and how it is dealt, and whether a machine can hold it."""

from __future__ import annotations

import resource
import sys
from collections import Counter
from collections.abc import Sequence
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
STEADY: Final = "steady"
ZONES: Final = tuple(f"zone-{letter}" for letter in "abcdefghij")
"""So that a zone has a tenth of each pool."""


class Extent(NamedTuple):
    """How much is done.

    Attributes:
        edits: of the policy; and as many bare pushes beside them, in turn.
        starts: of the operator; and as many bare lists.
        steady_seconds: in which nothing is asked for.
    """

    nodes: int
    edits: int
    starts: int
    steady_seconds: float


class Size(NamedTuple):
    """What is done by default to fleets of at most so many nodes, so that all of it takes some twenty minutes.

    Attributes:
        left_out: scenarios that are played when they are asked for.
    """

    nodes_max: int
    edits: int
    starts: int
    left_out: frozenset[str] = frozenset()


MORE: Final = frozenset({"policies", "profile", "reports", "unanswered"})
SIZES: Final = (
    Size(1000, 6, 6),
    Size(5000, 1, 5, MORE),
    Size(sys.maxsize, 1, 3, MORE),
)


def size_of(nodes: int) -> Size:
    """Return what is done by default to so many nodes."""
    return next(size for size in SIZES if nodes <= size.nodes_max)


class Load(NamedTuple):
    """What a scenario takes, roughly: how often every node is written, and seconds that do not grow with nodes."""

    pushes: float
    seconds: float


LOADS: Final = {
    "install": Load(2.5, 20),
    "unanswered": Load(2.5, 20),
    "profile": Load(1.0, 15),
    "paced": Load(2.0, 15),
    "twenty": Load(0.3, 20),
    "policies": Load(5.0, 100),
    "labels": Load(0.4, 5),
    "failover": Load(1.0, 25),
    "api-server": Load(0.6, 45),
    "vanish": Load(0.2, 15),
    "switch-off": Load(1.0, 5),
    "delete": Load(1.2, 5),
}
EDIT_LOAD: Final = Load(2.2, 5)
"""Of each edit, with the bare push and the start after it."""
START_LOAD: Final = Load(0.1, 6)
REPORTS_LOAD: Final = Load(0.0, 42)
"""Of each round, and of a rest before it that is as long."""
PUSH_SECONDS: Final = 0.012
"""For each node, on two idle cores: a guess by which people are told how long it will take, and no result."""


def seconds_of(name: str, extent: Extent) -> float:
    """Return how long a scenario takes, roughly."""
    times = {
        "edit": (EDIT_LOAD, extent.edits),
        "reports": (REPORTS_LOAD, extent.edits),
        "restart": (START_LOAD, 1 + extent.starts),
    }
    if name == STEADY:
        return extent.steady_seconds
    load, count = times.get(name) or (LOADS[name], 1)
    return count * (load.pushes * extent.nodes * PUSH_SECONDS + load.seconds)


def seconds_left(names: Sequence[str], done: int, extent: Extent, passed: float) -> float:
    """Return how long the scenarios after the first `done` take, roughly: guessed, and corrected by what `passed`."""
    guesses = [seconds_of(name, extent) for name in names]
    pace = passed / sum(guesses[:done]) if done else 1.0
    return sum(
        guess if name == STEADY else pace * guess for name, guess in zip(names[done:], guesses[done:], strict=True)
    )


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
    kernel = HostConfig(workloads=BUSY)
    return [Part(pool(n), counts[n], kernel, ZONES, {"pool": pool(n)}) for n in range(POOLS) if counts[n]]


def pool(number: int) -> str:
    """Return a pool's name, which its nodes' names begin with."""
    return f"p{number:02d}"
