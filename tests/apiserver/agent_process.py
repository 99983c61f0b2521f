# SPDX-License-Identifier: Apache-2.0
"""One node as tests see it: a node state, a mounted fake kernel, and the agent's process between them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

from numamigration_api.machinery.canonical import spec_revision
from numamigration_api.vocabulary import API_VERSION, OPERATOR_MANAGER, STATE_KIND, STATE_PLURAL
from tests.fakekernel.host import FakeHost
from tests.testbed.api import WAIT_SECONDS_MAX, Api, Json
from tests.testbed.controlplane import ControlPlane

PROJECT: Final = Path(__file__).parents[2]
COLLECTION: Final = f"/apis/{API_VERSION}/{STATE_PLURAL}"
STOP_SECONDS_MAX: Final = 30


class NodeState:
    """A node's object: what an operator writes into it, and what its agent answers."""

    def __init__(self, api: Api, name: str) -> None:
        self.api, self.name = api, name
        self._generation = 0

    @property
    def path(self) -> str:
        return f"{COLLECTION}/{self.name}"

    def push(self, *, probe: Json | None = None, **groups: Any) -> None:
        """Write a spec as the operator does, with what is to be measured or without."""
        spec = {"revision": spec_revision({"groups": groups}), "groups": groups, **({"probe": probe} if probe else {})}
        document = {"apiVersion": API_VERSION, "kind": STATE_KIND, "metadata": {"name": self.name}, "spec": spec}
        stored = self.api.apply(self.path, document, OPERATOR_MANAGER, force=True)
        self._generation = stored["metadata"]["generation"]

    def until(self, predicate: Callable[[Json], bool], *, seconds: float = WAIT_SECONDS_MAX) -> Json:
        """Return the status once it is about the last spec and satisfies `predicate`, within `seconds`."""

        def holds(state: Json) -> bool:
            status = state.get("status", {})
            return status.get("observedGeneration", 0) >= self._generation and predicate(status)

        found: Json = self.api.watch_until(self.path, holds, timeout=seconds)["status"]
        return found


class NodeUnderTest(NodeState):
    """A node state, a mounted host, and the agent's process between them."""

    def __init__(
        self,
        control_plane: ControlPlane,
        host: FakeHost,
        name: str,
        folder: Path,
        *,
        server: str | None = None,
        log: Path | None = None,
        program: str = "numamigration_agent",
    ) -> None:
        """Describe a node.

        Args:
            control_plane: the API server, with all rights.
            host: whose kernel it is.
            name: of the Node and of its node state.
            folder: for the agent's own files.
            server: where the agent finds the API server, when something stands in between.
            log: what the agent's lines are appended to; None means our standard error.
            program: the agent's module, or ``tests.twin``, where its own pages move inside the fake kernel.
        """
        self._log, self._program = log, program
        super().__init__(control_plane.api, name)
        self.host = host
        self._folder, self._server, self._ca = folder, server or control_plane.server, control_plane.ca
        self.token_file = folder / "token"
        self.token_file.write_text(control_plane.admin_token)
        self.agent: subprocess.Popen[bytes] | None = None

    def start(self, *flags: str) -> None:
        """Start the agent; `flags` beat those below."""
        common = (
            f"--node-name={self.name}",
            f"--host-root={self.host.root}",
            f"--state-dir={self._folder / 'state'}",
            f"--api-server={self._server}",
            f"--ca-file={self._ca}",
            f"--token-file={self.token_file}",
            "--start-jitter-seconds-max=0",
            "--drift-check-seconds=0.2",
            "--statistics-window-seconds=0.5",
            "--report-interval-seconds-min=1",
            "--report-interval-seconds-max=1",
        )
        path = os.pathsep.join(str(PROJECT / room) for room in ("crds", "node-agent", ""))
        with self._log.open("ab") if self._log else nullcontext() as stream:
            self.agent = subprocess.Popen(
                [sys.executable, "-m", self._program, *common, *flags],
                stderr=stream,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": path},
            )

    def stop(self) -> int:
        assert self.agent is not None
        self.agent.terminate()
        return self.agent.wait(STOP_SECONDS_MAX)

    def kill(self) -> None:
        """End the agent without a word."""
        if self.agent is not None:
            self.agent.kill()
            self.agent.wait()


def group_state(status: Json, name: str = "offload") -> str:
    state: str = status["groups"].get(name, {}).get("state", "")
    return state


def drifted_reason(status: Json) -> str:
    return next(str(row["reason"]) for row in status["conditions"] if row["type"] == "Drifted")
