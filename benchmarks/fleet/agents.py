# SPDX-License-Identifier: Apache-2.0
"""The agents of a fleet: processes of ``tests.fleet``, a share of the pools each."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from benchmarks.fleet.extent import parts, pool
from tests.fleet.cast import ZONE, Part
from tests.fleet.control import ask
from tests.testbed import processes

NODES_A_PROCESS: Final = 2500
"""Agents of one process; more keep one core busy for longer than the API server takes to write their nodes."""
CONNECTIONS: Final = 64
"""Of all agents together, for what is no watch."""
DRIFT_CHECK_SECONDS: Final = 300
"""Between two looks of an agent at its fake kernel, whose cost is Python's and no node's."""
SAMPLE_SECONDS: Final = 120
"""Likewise, at an engine that is on; the product's 2.5 s are 2,000 looks a second with 5,000 nodes."""


class Agents:
    """All agents, from ``__enter__`` to ``__exit__``; their Nodes stay.

    Args:
        kubeconfig: whose rights they have.
        folder: for their files.
        nodes: how many.
    """

    def __init__(self, kubeconfig: Path, folder: Path, nodes: int) -> None:
        self._kubeconfig, self._folder, self._parts = kubeconfig, folder, parts(nodes)
        self._processes = min(len(self._parts), -(-nodes // NODES_A_PROCESS))
        self._running: dict[Path, tuple[processes.Server, list[Part]]] = {}

    def __enter__(self) -> Self:
        for number in range(self._processes):
            self._start(number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server, _ in self._running.values():
            server.kill()  # nothing of theirs is needed, and closing thousands of connections takes them long

    def _start(self, number: int) -> None:
        name, mine = f"fleet-{number}", self._parts[number :: self._processes]
        socket, file = self._folder / f"{name}.sock", self._folder / f"{name}.json"
        file.write_bytes(msgspec.json.encode(mine))
        command: list[str | Path] = [sys.executable, "-m", "tests.fleet", "--kubeconfig", self._kubeconfig]
        command += ["--connections", str(max(1, CONNECTIONS // self._processes))]
        command += ["--parts", file, "--control", socket, "--drift-check", str(DRIFT_CHECK_SECONDS)]
        command += ["--sample", str(SAMPLE_SECONDS)]
        self._running[socket] = processes.start(name, command, self._folder / f"{name}.log"), mine

    @property
    def pids(self) -> list[int]:
        """Ids of their processes."""
        return [server.pid for server, _ in self._running.values()]

    def check_alive(self) -> None:
        """Raise ServerDiedError when a process has ended."""
        for server, _ in self._running.values():
            server.check_alive()

    def tell(self, word: str, pools: Sequence[int]) -> None:
        """Give the agents of some pools a command of ``tests.fleet.control``."""
        chosen = {pool(number) for number in pools}
        for socket, (_, mine) in self._running.items():
            for part in mine:
                if part.prefix in chosen:
                    ask(socket, f"{word} {part.prefix}-*")

    def members(self, pools: Sequence[int]) -> list[str]:
        """Return the names of some pools' nodes."""
        chosen = {pool(number) for number in pools}
        return [part.member(n).name for part in self._parts if part.prefix in chosen for n in range(part.count)]

    def cell(self, prefix: str, zone: str) -> list[str]:
        """Return the names of the nodes of one pool and zone."""
        found = (part.member(n) for part in self._parts if part.prefix == prefix for n in range(part.count))
        return [member.name for member in found if member.labels[ZONE] == zone]

    def offloading(self) -> int:
        """Return on how many nodes the kernel says that offload is on."""
        return sum(int(ask(socket, "facts")["offloading"]) for socket in self._running)
