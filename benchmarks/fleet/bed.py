# SPDX-License-Identifier: Apache-2.0
"""What scenarios are played on: control plane, fleet, operator, and who watches them.

Everything is as in a cluster but for what ``CONDITIONS`` says.
"""

from __future__ import annotations

import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from benchmarks.fleet import bare, meters, wire
from benchmarks.fleet.agents import CONNECTIONS, DRIFT_CHECK_SECONDS, SAMPLE_SECONDS, Agents
from benchmarks.fleet.extent import Extent
from benchmarks.fleet.operators import Operators
from benchmarks.fleet.report import Cost, Push
from benchmarks.fleet.states import StateLog, Wanted
from benchmarks.observer import Json, Observer
from benchmarks.processes import cpu_seconds, peak_rss, reset_peak
from numamigration_api.vocabulary import (
    API_VERSION,
    OPERATOR_MANAGER,
    POLICY_KIND,
    STATE_KIND,
    STATE_PLURAL,
)
from tests.apiserver.operator_process import NODES, is_through
from tests.demo.stage import DEFAULTS, NAMESPACE, POLICIES, STATES, Stage
from tests.fakekernel.config import HostConfig
from tests.fleet.cast import BUSY
from tests.testbed import processes
from tests.testbed.api import poll
from tests.testbed.binaries import Binaries
from tests.testbed.controlplane import ControlPlane
from tests.testbed.progress import Progress

CONTROL: Final = f"/api/v1/namespaces/{NAMESPACE}/configmaps/numamigration-control"
WIDTH: Final = 8
"""The operator's default of apply_requests_open_max."""
WAIT_SECONDS: Final = 60.0
NODE_SECONDS: Final = 0.2
"""Of each wait at most, and on top for each node: a loaded machine takes a quarter of that."""
LOOK_SECONDS: Final = 0.25
"""Between two looks at what is not measured."""
METRICS_SECONDS: Final = 1.0
"""Likewise, at metrics of the API server, which have megabytes."""
MAIN: Final = "fleet"
BENCH_MANAGER: Final = "bench"
AT_ONCE: Final[Json] = {"canary": {"soakSeconds": 0}, "maxUnproven": "100%"}
IN_WAVES: Final[Json] = {"canary": {"soakSeconds": 0}, "maxUnproven": "10%"}
"""The defaults, but for the soak: its 300 s after each doubling are known without a benchmark."""
OPERATOR, API_SERVER, ETCD, AGENTS, REAL_AGENT = "operator", "API server", "etcd", "agents", "stand-alone agent"
REAL: Final = "real"
"""The node whose agent is a process of its own, its pool, and the policy by which its offload need not be verified."""
CONDITIONS: Final = (
    "Real etcd (no fsync) and kube-apiserver; all processes on one machine.",
    f"Agents: the agent's own engine on a fake V6 kernel, one watch each, writes by a pool of {CONNECTIONS}.",
    "One of them is a process of its own, on a fake kernel behind FUSE.",
    f"Agents look for drift every {DRIFT_CHECK_SECONDS} s, report every 300-600 s and wait up to 10 s at their start.",
    "In the steady state their reports come evenly, as they do long after the last change.",
    f"They look at an engine that is on every {SAMPLE_SECONDS} s; the stand-alone one has the product's defaults.",
    "Moments are those of one watch of all node states, which shares the machine with everything else.",
    "Unpaced is apply_rate_per_second 5000 and apply_burst 10000, paced the defaults 50 and 100.",
    f"{WIDTH} open requests in both, and in the bare push. No soak anywhere; maxUnproven 100 %, but 10 % where paced.",
    "Agents have the administrator's token; operator and bare loops have the operator's.",
    "Bytes on the wire: loopback of a network namespace of the bed's own, with TLS and headers, less etcd's messages.",
    "Our own watch of all node states is among them.",
)


class FleetBed:
    """Everything that runs, from ``__enter__`` to ``__exit__``: agents at first, which wait for their node states.

    Attributes:
        extent: how much is done.
        agents, operators: the processes.
        nodes: how many, the one included whose agent is a process of its own.
        states: tells of node states.
        patience: seconds that anything may take.
        rate: what all nodes shall have now; ``next_rate`` makes another one.
    """

    def __init__(self, binaries: Binaries, extent: Extent, progress: Progress, *, own_network: bool) -> None:
        self._binaries, self.nodes, self.progress = binaries, extent.nodes, progress
        self._own_network = own_network
        self.extent = extent
        self.patience = WAIT_SECONDS + self.nodes * NODE_SECONDS
        self.rate = 1000

    def __enter__(self) -> Self:
        with ExitStack() as cleanup:
            self.stage = cleanup.enter_context(Stage(self._binaries, pace=DEFAULTS))
            self.plane: ControlPlane = self.stage.control_plane
            self.api, self.folder = self.stage.api, self.stage.folder
            self.agents = cleanup.enter_context(Agents(self.plane.kubeconfig, self.folder, self.nodes - 1))
            self.real = self._start_real()
            self.operators = cleanup.enter_context(Operators(self.stage, self.patience))
            self.states = cleanup.enter_context(StateLog(self.plane))
            self.policies = cleanup.enter_context(Observer(self.plane, POLICIES, again=True))
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    def _start_real(self) -> processes.Server:
        self.stage.add_host(REAL, HostConfig(workloads=BUSY))
        self.stage.add_node(REAL, {"pool": REAL})
        return self.stage.start(REAL, self.stage.agent_command(REAL))

    def renew(self) -> None:
        """Write a new token for the stand-alone agent, as a kubelet does; one lasts an hour."""
        self.stage.agent_command(REAL)

    # --- whether all is well

    def await_watches(self, wanted: int | None = None, *, at_most: bool = False) -> None:
        """Return when so many agents watch, which is all unless told otherwise; or when no more than that do."""
        aim = self.nodes if wanted is None else wanted

        def watching() -> bool:
            self.check()
            others = 1 + len(self.operators.pids)
            count = self.watches() - others
            self.progress.tick(f"agents that watch: {count} of {aim}")
            time.sleep(METRICS_SECONDS)
            return count <= aim if at_most else count >= aim

        poll(watching, "a watch of every agent", timeout=self.patience)

    def watches(self) -> int:
        """Return how many watches of node states are open, with ours and the operators'."""
        return meters.open_watches(self._metrics(), STATE_PLURAL)

    def check(self) -> None:
        """Raise ServerDiedError when something has ended that should run."""
        self.plane.check_alive()
        self.agents.check_alive()
        self.real.check_alive()
        self.operators.check_alive()

    # --- what people do

    def make_policy(self, name: str, spec: Json) -> None:
        """Create a policy."""
        head = {"apiVersion": API_VERSION, "kind": POLICY_KIND, "metadata": {"name": name}}
        self.api.create(POLICIES, {**head, "spec": {"rollout": AT_ONCE, **spec}})

    def next_rate(self) -> int:
        """Return a promotion rate that no node has had."""
        self.rate += 1
        return self.rate

    def edit(self, name: str, settings: Json, **more: Json) -> None:
        """Change settings of a policy, and more of its spec."""
        self.api.merge_patch(f"{POLICIES}/{name}", {"spec": {"settings": settings, **more}})

    def switch(self, word: str) -> None:
        """Set the fleet switch."""
        metadata = {"name": CONTROL.rpartition("/")[2]}
        document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"fleet": word}}
        self.api.apply(CONTROL, document, BENCH_MANAGER, force=True)

    # --- what comes of it

    def push(self, wanted: Wanted, count: int, act: Callable[[], float | None], *, answers: bool = True) -> Push:
        """Do something that changes the specs of nodes; return when all are written, and answered.

        Args:
            wanted: what their specs are then.
            count: how many nodes.
            act: returns when it began; None when that is when it is called.
            answers: wait for the agents too.
        """
        self.states.expect(wanted)
        called = time.monotonic()
        begun = act() or called
        self.await_push(count, answers=answers)
        return self.pushed(begun)

    def await_push(self, count: int, *, answers: bool = True) -> None:
        """Return when so many nodes are as expected."""
        self.states.await_written(count, self.patience, self.check)
        if answers:
            self.states.await_answered(count, self.patience, self.check)

    def pushed(self, begun: float) -> Push:
        """Return what has come, in seconds since a moment."""
        log = self.states
        return Push(*(sorted(at - begun for at in times.values()) for times in (log.written, log.answered)))

    def await_ready(self, name: str, count: int) -> float:
        """Return when a policy's status first said, of its last edit, that so many nodes are ready."""
        generation = self.api.get(f"{POLICIES}/{name}")["metadata"]["generation"]

        def ready(policy: Json) -> bool:
            status = policy.get("status", {})
            counts = status.get("nodes", {})
            current = status.get("observedGeneration") == generation and policy["metadata"]["name"] == name
            return bool(current and counts.get("ready", 0) == count)

        return self.policies.wait(f"{name}: {count} nodes ready", ready, self.patience).at

    def settle(self) -> None:
        """Return when every rollout is over and its ledger empty: a new leader would write who stands in it again."""

        def settled() -> bool:
            time.sleep(LOOK_SECONDS)
            return all(map(is_through, self.api.list_items(POLICIES)))

        poll(settled, "the end of every rollout", timeout=self.patience)

    def status_lag(self, name: str, count: int) -> float:
        """Return how long after the last agent's answer a policy said so."""
        return max(0.0, self.await_ready(name, count) - max(self.states.answered.values()))

    # --- bare loops

    def documents(self, change: Callable[[Json], None]) -> dict[str, Json]:
        """Return apply documents as the operator's, of what every node has now and a change to its spec, by path."""
        found = {}
        for state in self.api.list_items(STATES):
            metadata = {key: state["metadata"][key] for key in ("name", "uid", "ownerReferences")}
            change(state["spec"])
            document = {"apiVersion": API_VERSION, "kind": STATE_KIND, "metadata": metadata, "spec": state["spec"]}
            found[f"{STATES}/{metadata['name']}"] = document
        return found

    @contextmanager
    def bare_push(self, documents: dict[str, Json]) -> Iterator[Callable[[], float]]:
        """Give what lets a plain process apply documents as the operator, and returns when it began."""
        with self._push(self._operator_kubeconfig, OPERATOR_MANAGER, documents) as begin:
            yield begin

    @contextmanager
    def label(self, names: Sequence[str], labels: Mapping[str, str]) -> Iterator[Callable[[], float]]:
        """Give what gives Nodes these labels and no others of ours, likewise."""
        head = {"apiVersion": "v1", "kind": "Node"}
        documents = {f"{NODES}/{name}": {**head, "metadata": {"name": name, "labels": labels}} for name in names}
        with self._push(self.plane.kubeconfig, BENCH_MANAGER, documents) as begin:
            yield begin

    @contextmanager
    def _push(self, kubeconfig: Path, manager: str, documents: dict[str, Json]) -> Iterator[Callable[[], float]]:
        work = bare.Push(str(kubeconfig), manager, WIDTH, documents)
        with bare.started("push", work, self._bare_file) as begin:
            yield lambda: begin().begun

    def bare_list(self) -> bare.Done:
        """Read everything as a plain process does."""
        with bare.started("list", bare.Lists(str(self._operator_kubeconfig)), self._bare_file) as begin:
            return begin()

    @property
    def _bare_file(self) -> Path:
        return self.folder / "bare.json"

    @property
    def _operator_kubeconfig(self) -> Path:
        return self.folder / "operator.kubeconfig"

    # --- what it costs

    @contextmanager
    def measured(self, costs: list[Cost], *, after_restart: bool = False) -> Iterator[None]:
        """Add what the block took to `costs`.

        Args:
            costs: one more comes to them.
            after_restart: the API server starts anew within the block, and counts from nothing.
        """
        before = meters.read_counters(self._metrics())
        for pids in self._pids().values():
            for pid in pids:
                reset_peak(pid)
        exchanged, cpu = self._exchanged(), self._cpu()
        sent, begun = self._sent(), time.monotonic()
        yield
        seconds, sent = time.monotonic() - begun, self._sent() - sent  # before anything is asked, which is sent too
        spent, exchanged = self._cpu(), self._exchanged() - exchanged
        counters = meters.read_counters(self._metrics()).since(meters.NOTHING if after_restart else before)
        costs.append(
            Cost(
                seconds,
                counters,
                {name: max(0.0, spent[name] - cpu[name]) for name in cpu},
                {name: sum(map(peak_rss, pids)) for name, pids in self._pids().items()},
                int(meters.total(self._store_metrics(), meters.STORE_BYTES)),
                self.states.largest,
                sent - exchanged if self._own_network else None,
            )
        )

    def _pids(self) -> dict[str, list[int]]:
        etcd, apiserver = self.plane.servers
        return {
            OPERATOR: self.operators.pids,
            API_SERVER: [apiserver.pid],
            ETCD: [etcd.pid],
            AGENTS: self.agents.pids,
            REAL_AGENT: [self.real.pid],
        }

    def _cpu(self) -> dict[str, float]:
        others = {name: sum(map(cpu_seconds, pids)) for name, pids in self._pids().items()}
        return {**others, OPERATOR: self.operators.cpu}

    def _metrics(self) -> str:
        return self.api.text("/metrics")

    def _sent(self) -> int:
        """Return how many bytes this machine has sent to itself; of a network of our own, nobody else's."""
        return wire.loopback_bytes(Path("/proc/self/net/dev").read_text())

    def _exchanged(self) -> int:
        """Return how many of them API server and etcd have exchanged."""
        text = self._store_metrics()
        return int(sum(meters.total(text, name) for name in meters.STORE_TRAFFIC))

    def _store_metrics(self) -> str:
        with urllib.request.urlopen(f"{self.plane.etcd}/metrics", timeout=10) as answer:  # noqa: S310 - ours
            text: str = answer.read().decode()
        return text

    def versions(self) -> dict[str, str]:
        """Return the versions that numbers depend on."""
        etcd = subprocess.run([self._binaries.etcd, "--version"], check=True, capture_output=True, text=True).stdout
        return {
            "kube-apiserver": self.api.get("/version")["gitVersion"],
            "etcd": etcd.split()[2],
        }
