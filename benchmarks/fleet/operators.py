# SPDX-License-Identifier: Apache-2.0
"""Operators as processes of their own, and when one of them leads and is ready, as the Lease tells."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Final, NamedTuple, Self

from benchmarks.observer import Json, Observer
from benchmarks.processes import cpu_seconds
from numamigration_api.vocabulary import EPOCH_ANNOTATION
from tests.apiserver.operator_process import LEASES
from tests.demo.stage import Stage
from tests.testbed import processes
from tests.testbed.api import poll

UNPACED: Final = {"apply-rate-per-second": "5000", "apply-burst": "10000"}
STOP_SECONDS_MAX: Final = 10.0


class Start(NamedTuple):
    """When an operator that was started got the Lease, and when it knew everything; monotonic seconds."""

    begun: float
    leading: float
    ready: float


class Operators:
    """Those that run, the leader first; from ``__enter__`` to ``__exit__``, where none runs at first.

    Args:
        stage: whose API server and account.
        patience: seconds that anything may take.
    """

    def __init__(self, stage: Stage, patience: float) -> None:
        self._stage, self._patience = stage, patience
        self._running: list[processes.Server] = []
        self._leases = Observer(stage.control_plane, LEASES, again=True)
        self._holder, self._epoch = "", 0
        self._count, self._ended_cpu = 0, 0.0

    def __enter__(self) -> Self:
        self._leases.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leases.__exit__(kind, error, trace)
        for operator in self._running:
            operator.kill()

    @property
    def pids(self) -> list[int]:
        """Ids of those that run."""
        return [server.pid for server in self._running if server.alive]

    @property
    def cpu(self) -> float:
        """Seconds of all that ran, those that have ended included."""
        return self._ended_cpu + sum(map(cpu_seconds, self.pids))

    def check_alive(self) -> None:
        """Raise ServerDiedError when one has ended by itself, as when it lost its Lease: no kubelet starts another."""
        for operator in self._running:
            operator.check_alive()

    def start(self, settings: Mapping[str, str] = UNPACED) -> Start:
        """Start an operator, of which there is none; return when it knows everything."""
        begun = time.monotonic()
        self.launch(settings)
        return self.await_leader(begun)

    def launch(self, settings: Mapping[str, str]) -> processes.Server:
        """Start an operator's process."""
        self._count += 1
        name = f"operator-{self._count}"
        server = processes.start(name, self._stage.operator_command(settings), self._stage.folder / f"{name}.log")
        self._running.append(server)
        return server

    def await_leader(self, begun: float) -> Start:
        """Return when an operator leads that did not lead before, and knows everything."""
        taken = self._leases.wait("an operator that leads", self._is_taken, self._patience)
        ready = self._leases.wait("an operator that is ready", self._is_claimed, self._patience)
        return Start(begun, taken.at, ready.at)

    def _is_taken(self, lease: Json) -> bool:
        holder, before = lease["spec"].get("holderIdentity"), self._holder
        self._holder = holder or before
        return bool(holder and holder != before)

    def _is_claimed(self, lease: Json) -> bool:
        epoch, before = int(lease["metadata"].get("annotations", {}).get(EPOCH_ANNOTATION, 0)), self._epoch
        self._epoch = max(epoch, before)
        return epoch > before

    def await_line(self, server: processes.Server, text: str) -> None:
        """Return when a process has said something."""

        def said() -> bool:
            server.check_alive()
            return text in server.log.read_text()

        poll(said, f"{text!r} of {server.name}")

    def revive(self) -> bool:
        """Start an operator when the last one has ended by itself, as a kubelet would; return whether it was so."""
        if any(operator.alive for operator in self._running):
            return False
        self._running.clear()
        self.launch(UNPACED)
        return True

    def stop(self) -> None:
        """Stop it in good order: it gives the Lease back."""
        for operator in self._running:
            self._note_end(operator)
            operator.stop(STOP_SECONDS_MAX)
        self._running.clear()
        self._leases.wait("the Lease given back", lambda lease: not lease["spec"].get("holderIdentity"))

    def kill(self) -> float:
        """SIGKILL the one that leads, which was started first; return when."""
        leader = self._running.pop(0)
        self._note_end(leader)
        leader.kill()
        return time.monotonic()

    def _note_end(self, server: processes.Server) -> None:
        if server.alive:
            self._ended_cpu += cpu_seconds(server.pid)
