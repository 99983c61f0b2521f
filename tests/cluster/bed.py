# SPDX-License-Identifier: Apache-2.0
"""A whole cluster: etcd, kube-apiserver, controller manager, scheduler, and one node that runs Pods.

``with Cluster(prepare(progress)) as cluster: cluster.kubectl("get", "nodes")``

* Control plane and what speaks to it are on the machine's loopback, as for the API tests; the node is in namespaces of
  its own (``node``), and a tunnel is the only way between them.
* No DNS and no kube-proxy: the ``kubernetes`` Service is there, no other Service leads anywhere.
* Images are not pulled: what is not imported is not there (``imagePullPolicy: Never`` or ``IfNotPresent``).
* When it ends, by ``__exit__``, an exception or SIGKILL, nothing is left on the machine (``traces``).

Sources: the command references of kube-controller-manager and kube-scheduler.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

import msgspec

from tests.cluster.images import PAUSE_IMAGE, pause_archive
from tests.cluster.node import SERVICE, Keeper, Node
from tests.cluster.prepare import Parts
from tests.fakekernel.config import HostConfig
from tests.fakekernel.host import FakeHost
from tests.testbed import processes
from tests.testbed.api import Api, Json
from tests.testbed.commands import ROOT
from tests.testbed.controlplane import ControlPlane
from tests.testbed.errors import BedError
from tests.testbed.processes import Server

NODE: Final = "bed"

TUNNEL: Final = Path(__file__).with_name("tunnel.py")

NODE_READY_SECONDS_MAX: Final = 90.0
"""It took 4 s on two idle cores."""

POD_SECONDS_MAX: Final = 90.0

STOP_GRACE_SECONDS: Final = 10.0

CONTROLLER_MANAGER: Final = "system:kube-controller-manager"
SCHEDULER: Final = "system:kube-scheduler"
KUBELET: Final = f"system:node:{NODE}"
USERS: Final[Mapping[str, str]] = {CONTROLLER_MANAGER: "", SCHEDULER: "", KUBELET: "system:nodes"}
"""Users by name, with their groups; RBAC has roles for them from the start."""


class CommandFailedError(BedError):
    """kubectl or helm failed; the message has what it printed."""


class Cluster:
    """A cluster from ``__enter__`` to ``__exit__``.

    Args:
        parts: what to start; the node has the project's images from the start.
        kernel: the node's fake kernel as it boots; None means the default one, V6 with four channels.

    Attributes:
        node: the node.
        host: its fake kernel.
        control_plane: etcd and kube-apiserver.
        folder: of everything.
    """

    def __init__(self, parts: Parts, kernel: HostConfig | None = None) -> None:
        self._parts = parts
        self._kernel = kernel or HostConfig()

    def __repr__(self) -> str:
        return f"<Cluster {self.control_plane!r} {self.node!r}>"

    def __enter__(self) -> Self:
        with ExitStack() as cleanup:
            self.folder = Path(tempfile.mkdtemp(prefix="numamigration-cluster-"))
            self._keeper = cleanup.enter_context(Keeper(self.folder))
            self._start_control_plane(cleanup)
            self.host = cleanup.enter_context(FakeHost(with_cgroup_folder(self._kernel), folder=self.folder))
            self._start_node(cleanup)
            self._await_node()
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    # --- what tests do -------------------------------------------------------------------------------------------

    @property
    def api(self) -> Api:
        """Client with all rights."""
        return self.control_plane.api

    @property
    def kubeconfig(self) -> Path:
        """Kubeconfig with all rights."""
        return self.control_plane.kubeconfig

    @property
    def cgroup(self) -> str:
        """Name of the cgroup in which all Pods are."""
        return self._keeper.cgroup

    def kubectl(self, *arguments: str | Path, given: str | Iterable[Json] = "") -> str:
        """Run kubectl with all rights and return what it prints.

        Args:
            arguments: behind ``kubectl``.
            given: its standard input: text, or objects for ``-f -``.

        Raises:
            CommandFailedError: it failed; says what it printed.
        """
        text = given if isinstance(given, str) else json.dumps({"apiVersion": "v1", "kind": "List", "items": [*given]})
        return self._run(self._parts.binaries.control_plane.kubectl, *arguments, given=text)

    def helm(self, *arguments: str | Path) -> str:
        """Run helm with all rights, apart from any settings of ours, and return what it prints.

        Raises:
            CommandFailedError: it failed; says what it printed.
        """
        return self._run(self._parts.helm, *arguments)

    def shell(self, text: str) -> str:
        """Run a shell script as somebody who has this cluster, kubectl and helm, in the folder of the project.

        Returns:
            What it prints, errors too.

        Raises:
            CommandFailedError: it failed; says what it printed.
        """
        folders = (self._parts.binaries.control_plane.kubectl.parent, self._parts.helm.parent, os.environ["PATH"])
        env = {**self._environment(), "PATH": os.pathsep.join(map(str, folders))}
        command = ["sh", "-ec", f"exec 2>&1\n{text}"]
        done = subprocess.run(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise CommandFailedError(f"{text}\n{done.stdout}")
        return done.stdout

    def run_pod(self, namespace: str, spec: Json, *, phase: str = "Succeeded", seconds: float = POD_SECONDS_MAX) -> str:
        """Run a Pod until it is in a phase; return its log.

        Args:
            namespace: an existing one.
            spec: its ``spec``, with one container.
            phase: ``Succeeded``, ``Failed`` or ``Running``.
            seconds: to wait for that.

        Raises:
            WaitTimeoutError: it did not come to that; shows its last state.
        """
        name = f"pod-{secrets.token_hex(4)}"
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {"restartPolicy": "Never", **spec},
        }
        pods = f"/api/v1/namespaces/{namespace}/pods"
        self.api.create(pods, pod)
        self.api.watch_until(f"{pods}/{name}", lambda pod: pod["status"].get("phase") == phase, timeout=seconds)
        return self.kubectl("logs", "--namespace", namespace, name)

    def story(self) -> str:
        """Return what is going on, for whoever looks at a failure."""
        questions = (
            ("get", "pods", "--all-namespaces", "--output=wide"),
            ("get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"),
        )
        parts = []
        for question in questions:
            with suppress(CommandFailedError):
                parts.append(self.kubectl(*question))
        parts += [f"{server.log}:\n{server.log_tail()}" for server in (*self._servers, *self.node.servers)]
        return "\n".join(parts)

    def _run(self, *command: str | Path, given: str = "") -> str:
        done = subprocess.run(
            command, env=self._environment(), input=given, capture_output=True, text=True, check=False
        )
        if done.returncode:
            words = " ".join(map(str, command[1:]))
            raise CommandFailedError(f"{Path(command[0]).name} {words}: {done.stderr}{done.stdout}")
        return done.stdout

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder / "home"), "KUBECONFIG": str(self.kubeconfig)}

    def check_alive(self) -> None:
        """Raise ServerDiedError, with the end of its log, when a server has ended by itself."""
        self.control_plane.check_alive()
        self.node.check_alive()
        for server in self._servers:
            server.check_alive()

    # --- start ---------------------------------------------------------------------------------------------------

    def _start_control_plane(self, cleanup: ExitStack) -> None:
        egress = self.folder / "egress.json"
        egress.write_text(json.dumps(_egress(self._to_node)))
        flags = [f"--egress-selector-config-file={egress}", "--kubelet-preferred-address-types=InternalIP"]
        binaries, folder = self._parts.binaries.control_plane, self.folder / "control-plane"
        self.control_plane = cleanup.enter_context(ControlPlane(binaries, folder, flags=flags, users=USERS))
        self._servers: list[Server] = []
        common = ("--leader-elect=false", "--secure-port=0")
        manager = (
            self._parts.binaries.controller_manager,
            f"--kubeconfig={self._kubeconfig_of(CONTROLLER_MANAGER)}",
            f"--service-account-private-key-file={self.control_plane.service_account_key}",
            f"--root-ca-file={self.control_plane.ca}",
            # Each controller acts as itself, for the roles that RBAC has from the start are theirs.
            "--use-service-account-credentials=true",
            "--node-monitor-grace-period=10s",
            "--node-monitor-period=1s",
            f"--flex-volume-plugin-dir={self.folder / 'volume-plugins'}",
            *common,
        )
        self._start(cleanup, "kube-controller-manager", manager)
        scheduler = (self._parts.binaries.scheduler, f"--kubeconfig={self._kubeconfig_of(SCHEDULER)}", *common)
        self._start(cleanup, "kube-scheduler", scheduler)

    def _start_node(self, cleanup: ExitStack) -> None:
        folder = self.folder / "node"
        folder.mkdir()
        self._keeper.start_node()
        self.node = Node(NODE, self._keeper, self._parts.binaries, folder)
        # It ends before all others: it has nobody to say goodbye to, and its Pods shall not see the others go.
        cleanup.callback(self.node.kill)
        self.node.set_up()
        api_port = str(urlsplit(self.control_plane.server).port)
        tunnel: list[str | Path] = [sys.executable, "-I", "-S", TUNNEL]
        tunnel += [str(self._keeper.pid), f"{SERVICE}:443", api_port, self._to_node]
        self._start(cleanup, "tunnel", tunnel)
        self.node.start_containerd(self.host.root, PAUSE_IMAGE)
        for archive in (pause_archive(self.folder), *self._parts.images):
            self.node.import_image(archive)
        self.node.start_kubelet(self._kubeconfig_of(KUBELET, f"https://{SERVICE}:443"))

    def _await_node(self) -> None:
        def ready(node: Json) -> bool:
            self.check_alive()
            conditions = node.get("status", {}).get("conditions", [])
            return any(row["type"] == "Ready" and row["status"] == "True" for row in conditions)

        self.api.watch_until(f"/api/v1/nodes/{NODE}", ready, timeout=NODE_READY_SECONDS_MAX)
        # Without it no Pod is admitted; a controller makes it.
        self.api.watch_until("/api/v1/namespaces/default/serviceaccounts/default", bool)

    @property
    def _to_node(self) -> Path:
        return self.folder / "to-node"

    def _start(self, cleanup: ExitStack, name: str, command: Sequence[str | Path]) -> None:
        server = processes.start(name, command, self.folder / f"{name}.log")
        cleanup.callback(server.stop, STOP_GRACE_SECONDS)
        self._servers.append(server)

    def _kubeconfig_of(self, user: str, server: str | None = None) -> Path:
        name = user.rpartition(":")[2]
        return self.control_plane.kubeconfig_for(self.control_plane.tokens[user], name=name, server=server)


def with_cgroup_folder(kernel: HostConfig) -> HostConfig:
    """Return a host that also has /sys/fs/cgroup, on which the machine's can be mounted."""
    return msgspec.structs.replace(kernel, extra_files={**kernel.extra_files, "/sys/fs/cgroup/fake": ""})


def _egress(socket: Path) -> Json:
    """Return how the API server reaches the node's network (KEP-1281)."""
    transport = {"proxyProtocol": "HTTPConnect", "transport": {"uds": {"udsName": str(socket)}}}
    return {
        "apiVersion": "apiserver.k8s.io/v1beta1",
        "kind": "EgressSelectorConfiguration",
        "egressSelections": [{"name": "cluster", "connection": transport}],
    }
