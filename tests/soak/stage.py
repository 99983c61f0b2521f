# SPDX-License-Identifier: Apache-2.0
"""The processes of a soak, and what they say when they are asked: kernels, node states, policies, writes."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.apiserver.agent_process import NodeUnderTest
from tests.apiserver.operator_process import (
    ACCOUNT,
    NODES,
    POLICIES,
    STATES,
    OperatorProcess,
    account,
    await_served,
    buckets,
    forget_leader,
    groups,
    install_crds,
    install_rights,
    is_through,
)
from tests.fakekernel.config import HostConfig
from tests.fakekernel.host import FakeHost
from tests.soak.model import Kernel, Model, Policy
from tests.testbed.api import Api, Json
from tests.testbed.binaries import Binaries
from tests.testbed.controlplane import ControlPlane
from tests.testbed.faultproxy import FaultProxy, Match

SPEC_WRITE: Final = Match("PATCH", r"/nodemigrationstates/[^/]+\?")
API_SERVER: Final = "API server"
OPERATOR: Final = "operator"
AGENT: Final = "agent"
LOGS_SHOWN: Final = 5
LINES_SHOWN: Final = 30


class Stage:
    """Everything runs from ``__enter__`` to ``__exit__``."""

    def __init__(self, binaries: Binaries, folder: Path, names: tuple[str, ...]) -> None:
        self._binaries, self._folder, self._names = binaries, folder, names
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as cleanup:
            self._bed = cleanup.enter_context(ControlPlane(self._binaries))
            install_rights(self.api)
            install_crds(self.api)
            self.proxy = cleanup.enter_context(FaultProxy.before(self._bed))
            self.nodes = {name: self._node(name, cleanup) for name in self._names}
            self.before = {name: Kernel.of(node.host.snapshot()) for name, node in self.nodes.items()}
            token = account(self._bed)
            self._kubeconfig = self._bed.kubeconfig_for(token, name=ACCOUNT, server=self.proxy.url)
            self._start_operator()
            cleanup.callback(self._stop_operator)
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    def _node(self, name: str, cleanup: ExitStack) -> NodeUnderTest:
        host = cleanup.enter_context(FakeHost(HostConfig()))
        folder = self._folder / name
        folder.mkdir()
        node = NodeUnderTest(self._bed, host, name, folder, server=self.proxy.url, log=self._folder / f"{name}.log")
        node.start()
        cleanup.callback(node.kill)
        return node

    def _start_operator(self) -> None:
        log = self._folder / f"operator-{len(list(self._folder.glob('operator-*')))}.log"
        self._operator = OperatorProcess(self._kubeconfig, log, "--policy-resync-seconds=2")

    def _stop_operator(self) -> None:
        self._operator.kill()

    @property
    def api(self) -> Api:
        """A client with all rights, past the proxy."""
        return self._bed.api

    # --- what goes wrong -----------------------------------------------------------------------------------------

    def kill(self, kind: str, node: str) -> None:
        """SIGKILL one process; what keeps processes alive in a cluster starts it again at once."""
        match kind:
            case "API server":
                self._bed.kill_apiserver()
                self.bring_api_server()
            case "operator":
                self._operator.kill()
                forget_leader(self.api)
                self._start_operator()
            case _:
                self.nodes[node].kill()
                self.nodes[node].start()

    def take_api_server(self) -> None:
        """Stop the API server."""
        self._bed.stop_apiserver()

    def bring_api_server(self) -> None:
        """Start the API server; return when it serves our kinds."""
        self._bed.start_apiserver()
        await_served(self.api)

    # --- what people do ------------------------------------------------------------------------------------------

    def make_node(self, name: str, role: str) -> None:
        """Register a Node."""
        labels = {"name": name, "role": role}
        self.api.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}})

    def relabel(self, name: str, role: str) -> None:
        """Give a Node another role."""
        self.api.merge_patch(f"{NODES}/{name}", {"metadata": {"labels": {"role": role}}})

    def write(self, policy: Policy) -> None:
        """Create a policy or give it other settings."""
        path = f"{POLICIES}/{policy.name}"
        body: Json = {"apiVersion": "numamigration.dev/v1alpha1", "kind": "MigrationPolicy"}
        self.api.apply(path, body | {"metadata": {"name": policy.name}, "spec": policy.spec()}, "person", force=True)

    def delete(self, policy: Policy) -> None:
        """Delete a policy, without waiting for its nodes."""
        self.api.delete(f"{POLICIES}/{policy.name}")

    def delete_state(self, name: str) -> None:
        """Delete a node state, as nobody should, unless somebody just did."""
        if self.api.get_if_exists(f"{STATES}/{name}"):
            self.api.delete(f"{STATES}/{name}")

    def last_words(self) -> str:
        """Return the ends of all logs, for a person who looks for what went wrong."""
        logs = sorted(self._folder.glob("*.log"), key=lambda path: path.stat().st_mtime)[-LOGS_SHOWN:]
        return "\n".join(f"--- {log.name}\n" + "\n".join(log.read_text().splitlines()[-LINES_SHOWN:]) for log in logs)

    # --- how it is -----------------------------------------------------------------------------------------------

    def findings(self, model: Model) -> list[str]:
        """Return what is not as it shall be once all is calm."""
        found = [finding for name in self.nodes for finding in self._node_findings(name, model)]
        shown = {item["metadata"]["name"]: item for item in self.api.list_items(POLICIES)}
        if set(shown) != set(model.policies):
            found.append(f"policies {sorted(shown)}, not {sorted(model.policies)}")
        for name in set(shown) & set(model.policies):
            counts, wanted = buckets(shown[name]), model.counts(model.policies[name])
            matched = shown[name].get("status", {}).get("nodes", {}).get("matched")
            if counts != wanted or matched != sum(wanted.values()):
                found.append(f"{name} counts {counts} of {matched}, not {wanted}")
            if not is_through(shown[name]):
                found.append(f"{name} is still rolled out")
        return found

    def _node_findings(self, name: str, model: Model) -> list[str]:
        kernel, wanted = Kernel.of(self.nodes[name].host.snapshot()), model.kernel(name, self.before[name])
        state = self.api.get_if_exists(f"{STATES}/{name}")
        told = {group: (wish["source"]["policy"], wish["settings"]) for group, wish in groups(state).items()}
        winners = {group: (policy.name, policy.settings[group]) for group, policy in model.winners(name).items()}
        found = [] if kernel == wanted else [f"{name} holds {kernel}, not {wanted}"]
        if told != winners:
            found.append(f"{name} is told {told}, not {winners}")
        if not state or state.get("status", {}).get("observedGeneration") != state["metadata"]["generation"]:
            found.append(f"{name} has not reported")
        return found

    def stores(self) -> dict[str, int]:
        """Return how often each kernel was written to."""
        return {name: len(node.host.stores) for name, node in self.nodes.items()}

    def await_reports(self) -> None:
        """Return when each agent has reported from now on: one that was just killed knows its wish again by then."""
        mark = self.proxy.mark()
        for name in self.nodes:
            self.proxy.wait_seen(Match("PATCH", f"/{name}/status"), since=mark, status=200)

    def spec_writes(self, since: int) -> int:
        """Return how many node states the API server stored a spec for since a mark of the proxy."""
        return sum(one.status in {200, 201} for one in self.proxy.seen(SPEC_WRITE, since=since))
