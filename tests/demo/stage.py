# SPDX-License-Identifier: Apache-2.0
"""What the demo plays on: control plane, three nodes with a fake kernel and an agent each, one operator.

Operator and agents run as their own processes, with their service accounts' tokens and no more rights than
``deploy/rbac.yaml`` gives them; the agents' tokens are bound to a Pod on their Node, as in a cluster.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

import yaml

from numamigration_api.vocabulary import API_VERSION, POLICY_PLURAL, STATE_PLURAL
from tests.fakekernel.config import HostConfig
from tests.fakekernel.host import FakeHost
from tests.testbed import processes
from tests.testbed.binaries import Binaries
from tests.testbed.controlplane import ControlPlane

ROOT: Final = Path(__file__).parents[2]
NAMESPACE: Final = "numamigration-system"
BASE: Final = f"/apis/{API_VERSION}"
POLICIES: Final = f"{BASE}/{POLICY_PLURAL}"
STATES: Final = f"{BASE}/{STATE_PLURAL}"
LABELS: Final = {"workload": "database"}
STOP_GRACE_SECONDS: Final = 5.0


class NodePart(NamedTuple):
    """One node of the cast."""

    name: str
    what: str
    kernel: HostConfig


class Stage:
    """Everything that runs, from ``__enter__`` to ``__exit__``; whatever started is stopped, in reverse order."""

    def __init__(self, binaries: Binaries, cast: tuple[NodePart, ...]) -> None:
        self._binaries = binaries
        self.cast = cast
        self.hosts: dict[str, FakeHost] = {}
        self.servers: list[processes.Server] = []

    def __enter__(self) -> Self:
        with ExitStack() as cleanup:
            self.control_plane = cleanup.enter_context(ControlPlane(self._binaries))
            self.api = self.control_plane.api
            self.folder = self.control_plane.folder
            self._install()
            for part in self.cast:
                self.hosts[part.name] = cleanup.enter_context(FakeHost(part.kernel))
                self._add_node(part)
            self._start(cleanup, "operator", self._operator_command())
            for part in self.cast:
                self._start(cleanup, f"agent-{part.name}", self._agent_command(part.name))
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    @property
    def kubectl(self) -> list[str]:
        """The command line's beginning, for us and for people."""
        return [str(self._binaries.kubectl), "--kubeconfig", str(self.control_plane.kubeconfig)]

    def check_alive(self) -> None:
        """Raise ServerDiedError, with the end of its log, when operator or an agent has ended."""
        for server in self.servers:
            server.check_alive()

    def _install(self) -> None:
        for path in sorted((ROOT / "crds").glob("*.yaml")):
            self.api.install_crd(yaml.safe_load(path.read_text()))
        apply = [*self.kubectl, "apply", "--server-side", "-f", str(ROOT / "deploy" / "rbac.yaml")]
        subprocess.run(apply, check=True, capture_output=True, text=True)

    def _add_node(self, part: NodePart) -> None:
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": part.name, "labels": LABELS}}
        self.api.apply(f"/api/v1/nodes/{part.name}", node, "demo")

    def _start(self, cleanup: ExitStack, name: str, command: list[str]) -> None:
        server = processes.start(name, command, self.folder / f"{name}.log")
        cleanup.callback(server.stop, STOP_GRACE_SECONDS)
        self.servers.append(server)

    def _operator_command(self) -> list[str]:
        token = self.control_plane.service_account_token(NAMESPACE, "numamigration-operator")
        kubeconfig = self.control_plane.kubeconfig_for(token, name="operator")
        quick = ["--status-interval-seconds", "1", "--statistics-interval-seconds", "10"]
        return [sys.executable, "-m", "numamigration_operator", "--kubeconfig", str(kubeconfig), *quick]

    def _agent_command(self, node: str) -> list[str]:
        token = self.folder / f"agent-{node}.token"
        token.touch(mode=0o600)
        token.write_text(self.control_plane.node_bound_token(NAMESPACE, "numamigration-agent", node))
        options = {
            "node-name": node,
            "host-root": str(self.hosts[node].root),
            "state-dir": str(self.folder / f"state-{node}"),
            "api-server": self.control_plane.server,
            "ca-file": str(self.control_plane.ca),
            "token-file": str(token),
            "start-jitter-seconds-max": "0",
            "report-interval-seconds-min": "1",
            "report-interval-seconds-max": "1",
            "statistics-window-seconds": "2",
            "drift-check-seconds": "1",
        }
        flags = [text for name, value in options.items() for text in (f"--{name}", value)]
        return [sys.executable, "-m", "numamigration_agent", *flags]
