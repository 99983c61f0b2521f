# SPDX-License-Identifier: Apache-2.0
"""What scenarios are played on: control plane, fleet, operator, and who watches them.

Everything is as in a cluster but for what ``CONDITIONS`` says.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

import msgspec

from benchmarks.fleet import bare, meters
from benchmarks.fleet.report import Cost, Push
from benchmarks.fleet.states import StateLog, Wanted
from benchmarks.observer import Json, Observer
from benchmarks.processes import cpu_seconds, peak_rss, reset_peak
from numamigration_api.vocabulary import (
    API_VERSION,
    EPOCH_ANNOTATION,
    OPERATOR_MANAGER,
    POLICY_KIND,
    STATE_KIND,
    STATE_PLURAL,
)
from tests.apiserver.operator_process import LEASES, NODES, is_through
from tests.demo.stage import DEFAULTS, NAMESPACE, POLICIES, STATES, Stage
from tests.fakekernel.config import HostConfig
from tests.fleet.cast import BUSY, ZONE, Part
from tests.fleet.control import ask
from tests.testbed import processes
from tests.testbed.api import poll
from tests.testbed.binaries import Binaries
from tests.testbed.controlplane import ControlPlane
from tests.testbed.errors import BedError
from tests.testbed.progress import Progress

POOLS: Final = 20
"""Nodes are dealt to so many pools, by label ``pool``."""
NODES_A_PROCESS: Final = 2500
"""Agents of one process; more keep one core busy for longer than the API server takes to write their nodes."""
DRIFT_CHECK_SECONDS: Final = 300
"""Between two looks of an agent at its fake kernel, whose cost is Python's and no node's."""
CONTROL: Final = f"/api/v1/namespaces/{NAMESPACE}/configmaps/numamigration-control"
UNPACED: Final = {"apply-rate-per-second": "5000", "apply-burst": "10000"}
WIDTH: Final = 8
"""The operator's default of apply_requests_open_max."""
WAIT_SECONDS: Final = 60.0
NODE_SECONDS: Final = 0.2
"""Of each wait at most, and on top for each node: a loaded machine takes a quarter of that."""
STOP_SECONDS_MAX: Final = 10.0
LOOK_SECONDS: Final = 0.25
"""Between two looks at what is not measured."""
METRICS_SECONDS: Final = 1.0
"""Likewise, at metrics of the API server, which have megabytes."""
FILES_SPARE: Final = 500
"""File descriptors of the API server beside one for each agent's watch."""
BASE_BYTES: Final = 3 << 30
NODE_BYTES: Final = 1 << 20
"""Of API server and agents, for each node; measured at 1,000 nodes, rounded up."""
MAIN: Final = "fleet"
BENCH_MANAGER: Final = "bench"
AT_ONCE: Final[Json] = {"canary": {"soakSeconds": 0}, "maxUnproven": "100%"}
IN_WAVES: Final[Json] = {"canary": {"soakSeconds": 0}, "maxUnproven": "10%"}
"""The defaults, but for the soak: its 300 s after each doubling are known without a benchmark."""
OPERATOR, API_SERVER, ETCD, AGENTS = "operator", "API server", "etcd", "agents"
CONDITIONS: Final = (
    "Real etcd (no fsync) and kube-apiserver; all processes on one machine.",
    "Agents: the agent's own engine on a fake kernel of dialect V6, one watch each, writes by a pool of connections.",
    f"Agents look for drift every {DRIFT_CHECK_SECONDS} s, report every 300-600 s and wait up to 10 s at their start.",
    "Moments are those of one watch of all node states, which shares the machine with everything else.",
    "Unpaced is apply_rate_per_second 5000 and apply_burst 10000, paced the defaults 50 and 100.",
    f"{WIDTH} open requests in both, and in the bare push. No soak anywhere; maxUnproven 100 %, but 10 % where paced.",
    "Agents have the administrator's token; operator and bare loops have the operator's.",
)


class Extent(NamedTuple):
    """How much is done.

    Attributes:
        runs: of the edit, and of the bare push beside it; even, for they take turns two by two.
        steady_seconds: in which nothing is asked for.
    """

    nodes: int
    runs: int
    steady_seconds: float


class Start(NamedTuple):
    """When an operator that was started got the Lease, and when it knew everything; monotonic seconds."""

    begun: float
    leading: float
    ready: float


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


class FleetBed:
    """Everything that runs, from ``__enter__`` to ``__exit__``: agents at first, which wait for their node states.

    Attributes:
        extent: how much is done.
        nodes: how many.
        states: tells of node states.
        patience: seconds that anything may take.
        rate: what all nodes shall have now; ``next_rate`` makes another one.
    """

    def __init__(self, binaries: Binaries, extent: Extent, progress: Progress) -> None:
        self._binaries, self.nodes, self.progress = binaries, extent.nodes, progress
        self.extent = extent
        self.patience = WAIT_SECONDS + self.nodes * NODE_SECONDS
        self.parts = parts(self.nodes)
        self.operators: list[processes.Server] = []
        self._fleets: dict[Path, tuple[processes.Server, list[Part]]] = {}
        self._ended_cpu = defaultdict[str, float](float)
        self._holder, self._epoch = "", 0
        self._count = 0
        self.rate = 1000

    def __enter__(self) -> Self:
        with ExitStack() as cleanup:
            self.stage = cleanup.enter_context(Stage(self._binaries, pace=DEFAULTS))
            self.plane: ControlPlane = self.stage.control_plane
            self.api, self.folder = self.stage.api, self.stage.folder
            cleanup.callback(self._end)
            self._start_fleets()
            self.states = cleanup.enter_context(StateLog(self.plane))
            self.policies = cleanup.enter_context(Observer(self.plane, POLICIES, again=True))
            self._leases = cleanup.enter_context(Observer(self.plane, LEASES, again=True))
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    def _end(self) -> None:
        for server, _ in self._fleets.values():
            server.kill()  # nothing of theirs is needed, and closing thousands of connections takes them long
        for operator in self.operators:
            operator.kill()

    # --- the fleet

    def _start_fleets(self) -> None:
        count = min(len(self.parts), -(-self.nodes // NODES_A_PROCESS))
        for number in range(count):
            mine, socket = self.parts[number::count], self.folder / f"fleet-{number}.sock"
            file = self.folder / f"fleet-{number}.json"
            file.write_bytes(msgspec.json.encode(mine))
            command: list[str | Path] = [sys.executable, "-m", "tests.fleet", "--kubeconfig", self.plane.kubeconfig]
            command += ["--parts", file, "--control", socket, "--drift-check", str(DRIFT_CHECK_SECONDS)]
            server = processes.start(f"fleet-{number}", command, self.folder / f"fleet-{number}.log")
            self._fleets[socket] = server, mine

    def await_watches(self) -> None:
        """Return when every agent watches."""

        def watching() -> bool:
            self.check()
            others = 1 + len(self.operators)
            count = self.watches() - others
            self.progress.tick(f"agents that watch: {count} of {self.nodes}")
            time.sleep(METRICS_SECONDS)
            return count >= self.nodes

        poll(watching, "a watch of every agent", timeout=self.patience)

    def watches(self) -> int:
        """Return how many watches of node states are open, with ours and the operators'."""
        return meters.open_watches(self._metrics(), STATE_PLURAL)

    def tell(self, word: str, pools: Sequence[int]) -> None:
        """Give the agents of some pools a command of ``tests.fleet.control``."""
        chosen = {pool(number) for number in pools}
        for socket, (_, mine) in self._fleets.items():
            for part in mine:
                if part.prefix in chosen:
                    ask(socket, f"{word} {part.prefix}-*")

    def members(self, pools: Sequence[int], zone: str = "") -> list[str]:
        """Return the names of some pools' nodes, of one zone or of all."""
        chosen = {pool(number) for number in pools}
        found = (part.member(n) for part in self.parts if part.prefix in chosen for n in range(part.count))
        return [member.name for member in found if zone in {"", member.labels[ZONE]}]

    def offloading(self) -> int:
        """Return on how many nodes the kernel says that offload is on."""
        return sum(int(ask(socket, "facts")["offloading"]) for socket in self._fleets)

    def check(self) -> None:
        """Raise ServerDiedError when something has ended that should run."""
        self.plane.check_alive()
        for server, _ in self._fleets.values():
            server.check_alive()

    # --- the operator

    def start_operator(self, settings: Mapping[str, str] = UNPACED) -> Start:
        """Start an operator, of which there is none; return when it knows everything."""
        begun = time.monotonic()
        self.launch(settings)
        return self.await_leader(begun)

    def launch(self, settings: Mapping[str, str]) -> processes.Server:
        """Start an operator's process."""
        self._count += 1
        name = f"operator-{self._count}"
        server = processes.start(name, self.stage.operator_command(settings), self.folder / f"{name}.log")
        self.operators.append(server)
        return server

    def await_leader(self, begun: float) -> Start:
        """Return when an operator leads that did not lead before, and knows everything."""
        taken = self._leases.wait("an operator that leads", self._is_taken, self.patience)
        ready = self._leases.wait("an operator that is ready", self._is_claimed, self.patience)
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

    def revive_operator(self) -> bool:
        """Start an operator when the last one has ended by itself, as a kubelet would; return whether it was so."""
        if any(operator.alive for operator in self.operators):
            return False
        self.operators.clear()
        self.launch(UNPACED)
        return True

    def stop_operator(self) -> None:
        """Stop it in good order: it gives the Lease back."""
        for operator in self.operators:
            self._note_end(operator)
            operator.stop(STOP_SECONDS_MAX)
        self.operators.clear()
        self._leases.wait("the Lease given back", lambda lease: not lease["spec"].get("holderIdentity"))

    def kill_operator(self) -> float:
        """SIGKILL the one that leads, which was started first; return when."""
        leader = self.operators.pop(0)
        self._note_end(leader)
        leader.kill()
        return time.monotonic()

    def _note_end(self, server: processes.Server) -> None:
        if server.alive:
            self._ended_cpu[OPERATOR] += cpu_seconds(server.pid)

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
        with self._bare("push", work) as begin:
            yield lambda: begin().begun

    def bare_list(self) -> bare.Done:
        """Read everything as a plain process does."""
        with self._bare("list", bare.Lists(str(self._operator_kubeconfig))) as begin:
            return begin()

    @contextmanager
    def _bare(self, loop: str, work: msgspec.Struct) -> Iterator[Callable[[], bare.Done]]:
        file = self.folder / "bare.json"
        file.write_bytes(msgspec.json.encode(work))
        command = [sys.executable, "-m", "benchmarks.fleet.bare", loop, str(file)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            stdin, stdout = process.stdin, process.stdout
            if stdout.readline().strip() != bare.READY:
                raise BedError(f"the bare {loop} did not start")

            def begin() -> bare.Done:
                stdin.write("\n")
                stdin.flush()
                line = stdout.readline()
                if not line:
                    raise BedError(f"the bare {loop} ended without an answer")
                return msgspec.json.decode(line, type=bare.Done)

            yield begin

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
        cpu, begun = self._cpu(), time.monotonic()
        yield
        seconds, spent = time.monotonic() - begun, self._cpu()
        counters = meters.read_counters(self._metrics()).since(meters.NOTHING if after_restart else before)
        costs.append(
            Cost(
                seconds,
                counters,
                {name: max(0.0, spent[name] - cpu[name]) for name in cpu},
                {name: sum(map(peak_rss, pids)) for name, pids in self._pids().items()},
                self._store_bytes(),
                self.states.largest,
            )
        )

    def _pids(self) -> dict[str, list[int]]:
        etcd, apiserver = self.plane.servers
        return {
            OPERATOR: [server.pid for server in self.operators if server.alive],
            API_SERVER: [apiserver.pid],
            ETCD: [etcd.pid],
            AGENTS: [server.pid for server, _ in self._fleets.values()],
        }

    def _cpu(self) -> dict[str, float]:
        return {name: self._ended_cpu[name] + sum(map(cpu_seconds, pids)) for name, pids in self._pids().items()}

    def _metrics(self) -> str:
        return self.api.text("/metrics")

    def _store_bytes(self) -> int:
        with urllib.request.urlopen(f"{self.plane.etcd}/metrics", timeout=10) as answer:  # noqa: S310 - ours
            return int(meters.total(answer.read().decode(), meters.STORE_BYTES))

    def versions(self) -> dict[str, str]:
        """Return the versions that numbers depend on."""
        etcd = subprocess.run([self._binaries.etcd, "--version"], check=True, capture_output=True, text=True).stdout
        return {
            "kube-apiserver": self.api.get("/version")["gitVersion"],
            "etcd": etcd.split()[2],
        }
