# SPDX-License-Identifier: Apache-2.0
"""What the demo plays on: control plane, three nodes with a fake kernel and an agent each, one operator.

Operator and agents run as their own processes, with their service accounts' tokens and no more rights than
``deploy/rbac.yaml`` gives them; the agents' tokens are bound to a Pod on their Node, as in a cluster.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType, TracebackType
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
    labels: Mapping[str, str] = LABELS


class Pace(NamedTuple):
    """Settings of operator and agents beside those that say where and who; by flag."""

    operator: Mapping[str, str]
    agent: Mapping[str, str]


QUICK: Final = Pace(
    operator={"status-interval-seconds": "1", "statistics-interval-seconds": "10"},
    agent={
        "start-jitter-seconds-max": "0",
        "report-interval-seconds-min": "1",
        "report-interval-seconds-max": "1",
        "statistics-window-seconds": "2",
        "drift-check-seconds": "1",
    },
)
"""For people who look on; DEFAULTS is what a cluster has, but for the wait at the start."""
DEFAULTS: Final = Pace(operator={}, agent={"start-jitter-seconds-max": "0"})


class Stage:
    """Everything that runs, from ``__enter__`` to ``__exit__``; whatever started is stopped, in reverse order.

    Args:
        binaries: of the control plane.
        cast: nodes that have a fake kernel and a running agent at once; with any of them the operator runs too.
        pace: of whatever is started.
        agent: the agent's module, or ``tests.twin``, where its own pages move inside the fake kernel.
    """

    def __init__(
        self,
        binaries: Binaries,
        cast: tuple[NodePart, ...] = (),
        pace: Pace = QUICK,
        agent: str = "numamigration_agent",
    ) -> None:
        self._binaries = binaries
        self._pace, self._agent = pace, agent
        self.cast = cast
        self.hosts: dict[str, FakeHost] = {}
        self.servers: list[processes.Server] = []

    def __enter__(self) -> Self:
        with ExitStack() as cleanup:
            self.control_plane = cleanup.enter_context(ControlPlane(self._binaries))
            self.api = self.control_plane.api
            self.folder = self.control_plane.folder
            self._install()
            self._cleanup = cleanup
            for part in self.cast:
                self.add_host(part.name, part.kernel)
                self.add_node(part.name, part.labels)
            if self.cast:
                self.start("operator", self.operator_command())
            for part in self.cast:
                self.start(f"agent-{part.name}", self.agent_command(part.name))
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
        files = (text for name in ("rbac", "fence") for text in ("-f", str(ROOT / "deploy" / f"{name}.yaml")))
        apply = [*self.kubectl, "apply", "--server-side", *files]
        subprocess.run(apply, check=True, capture_output=True, text=True)

    def add_host(self, name: str, kernel: HostConfig) -> FakeHost:
        """Boot the fake kernel of a node."""
        self.hosts[name] = self._cleanup.enter_context(FakeHost(kernel))
        return self.hosts[name]

    def add_node(self, name: str, labels: Mapping[str, str] = LABELS) -> None:
        """Make a Node object."""
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": dict(labels)}}
        self.api.apply(f"/api/v1/nodes/{name}", node, "demo")

    def start(self, name: str, command: list[str]) -> processes.Server:
        """Start a program that is stopped with the stage."""
        server = processes.start(name, command, self.folder / f"{name}.log")
        self._cleanup.callback(server.stop, STOP_GRACE_SECONDS)
        self.servers.append(server)
        return server

    def operator_command(self, settings: Mapping[str, str] = MappingProxyType({})) -> list[str]:
        """Return how to start the operator; `settings` by flag, beside the pace's."""
        token = self.control_plane.service_account_token(NAMESPACE, "numamigration-operator")
        kubeconfig = self.control_plane.kubeconfig_for(token, name="operator")
        return _command("numamigration_operator", {"kubeconfig": str(kubeconfig), **self._pace.operator, **settings})

    def agent_command(self, node: str, root: Path | None = None) -> list[str]:
        """Return how to start a node's agent; `root` stands in for the root of its fake kernel."""
        token = self.folder / f"agent-{node}.token"
        token.touch(mode=0o600)
        token.write_text(self.control_plane.node_bound_token(NAMESPACE, "numamigration-agent", node))
        options = {
            "node-name": node,
            "host-root": str(root or self.hosts[node].root),
            "state-dir": str(self.folder / f"state-{node}"),
            "api-server": self.control_plane.server,
            "ca-file": str(self.control_plane.ca),
            "token-file": str(token),
        }
        return _command(self._agent, {**options, **self._pace.agent})


def _command(package: str, options: Mapping[str, str]) -> list[str]:
    return [sys.executable, "-m", package, *(text for name, value in options.items() for text in (f"--{name}", value))]
