# SPDX-License-Identifier: Apache-2.0
"""Memory, time to the first status, idle CPU: ``python -m benchmarks.footprint``, about four minutes.

Agents and operator are processes with their default settings, but for the agents' wait at the start; API server and
kernel are those of the tests: a real kube-apiserver, a fake kernel behind FUSE. The agent is laid out, compiled and
started as in its image. Beside it: an interpreter that has loaded what a TLS client with a log needs, and does nothing.

Start and idle CPU are held against their targets on kernel files in memory (``kernel_files`` says why; counters are
moved here), and told for the fake kernel beside it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from benchmarks import schema
from benchmarks.kernel_files import copy_files, memory_folder
from benchmarks.observer import Json, Observer
from benchmarks.processes import Memory, cpu_seconds, memory
from benchmarks.run import api_server_version, run
from benchmarks.schema import Machine, Row, Unit, row
from benchmarks.targets import FOOTPRINT
from numamigration_api.vocabulary import AGENT_MANAGER, API_VERSION, POLICY_KIND, STATE_KIND, MigrationReason
from scripts.image_tree import HOME, compile_all, lay_out
from tests.demo.stage import DEFAULTS, LABELS, POLICIES, ROOT, STATES, Stage
from tests.fakekernel.config import HostConfig, Workload
from tests.testbed import processes
from tests.testbed.binaries import Binaries
from tests.testbed.progress import Progress

NODES: Final = 100
STARTS: Final = 20
"""Agents that are started and timed, one after the other, after one that warms the caches."""
NO_SERVER: Final = "https://127.0.0.1:1"
"""Nobody listens there: the agent is alone with its host."""
WATCHING: Final = "watching the engine"
"""What the agent logs with its first sample."""
SETTLE_SECONDS: Final = 20.0
"""Longer than a drift check and a statistics window: what is needed once is loaded."""
WINDOW_SECONDS: Final = 120.0
SAMPLE_SECONDS: Final = 5.0
STOP_SECONDS_MAX: Final = 10.0

OFF, ON = "node-000", "node-001"
"""The nodes whose agents keep running: without and with offload."""
COPIES: Final = {"node-002": OFF, "node-003": ON}
"""Nodes whose kernel files are copies in memory, and of which host."""
OFF_COPY, ON_COPY = COPIES
FUSE: Final = ", FUSE"
AT_ONCE: Final[Json] = {"canary": {"nodes": NODES, "soakSeconds": 0}, "maxUnproven": "100%"}
"""Agents that were timed have ended, and as the only canaries would hold up all other nodes."""
MOVED: Final = "sys/module/dcbm/parameters/folios_migrated"
BARE: Final = """
import datetime, enum, json, logging, re, ssl, sys, threading, typing
ssl.create_default_context(cafile=sys.argv[1])
print(flush=True)
sys.stdin.read()
"""
_ENVIRONMENT: Final = re.compile(r" AS agent\n(?:.*\n)*?ENV (.+)")
FOLIOS: Final = HostConfig(workloads=(Workload(MigrationReason.SYSCALL_OR_CPUSET, folios_per_second=2000),))


class Start(NamedTuple):
    """One start of an agent, in milliseconds."""

    wall: float
    cpu: float

    @classmethod
    def of(cls, pid: int, begun: float, at: float) -> Self:
        """Return that of a process that was begun, and there, at these moments (monotonic seconds)."""
        return cls(1000 * (at - begun), 1000 * cpu_seconds(pid))


class ShippedStage(Stage):
    """A stage whose agents are those of the image.

    Args:
        binaries: of the control plane.
        folder: where they are laid out.
    """

    def __init__(self, binaries: Binaries, folder: Path) -> None:
        super().__init__(binaries, pace=DEFAULTS)
        lay_out("agent", ROOT, folder, folder)
        compile_all("agent", folder)
        self._environment = [*image_environment(), f"PYTHONPATH={folder / HOME}"]

    def agent_command(self, node: str, root: Path | None = None) -> list[str]:
        """Return how to start a node's agent."""
        return ["env", *self._environment, *super().agent_command(node, root)]


def image_environment() -> list[str]:
    """Return the environment that the agent's image sets.

    Raises:
        OSError: the Dockerfile says none.
    """
    found = _ENVIRONMENT.search((ROOT / "Dockerfile").read_text())
    if found is None:
        raise OSError("no environment of the agent in the Dockerfile")
    return found[1].split()


class Bare(NamedTuple):
    """The same of bare interpreters, with what they hold in memory then, and never more."""

    starts: Sequence[Start]
    memory: Sequence[Memory]


class Window(NamedTuple):
    """What a process took while it was watched."""

    cpu_percent: float
    memory: Sequence[Memory]


def benchmark(binaries: Binaries, progress: Progress) -> schema.Result:
    """Measure everything, on one control plane."""
    machine = Machine.here()
    with (
        memory_folder() as folder,
        ShippedStage(binaries, Path(folder) / "image") as stage,
        Observer(stage.control_plane, STATES) as states,
    ):
        in_memory = Path(folder)
        progress.note(f"making {NODES} nodes, starting the operator")
        operator = _start_operator(stage, states)
        at_start = memory(operator.pid)
        starts = _time_starts(stage, states, in_memory, progress)
        bare = _time_bare_starts(stage.control_plane.ca, progress)
        agents = _start_agents(stage, states) | _start_copies(stage, states, in_memory)
        _answer_for_others(stage)
        watches = _time_watches(stage, in_memory / ON_COPY, progress)
        watched = {name: server.pid for name, server in {**agents, "operator": operator}.items()}
        versions = api_server_version(stage.api)
        windows = _watch(stage, watched, in_memory / ON_COPY / MOVED, progress)
    rows = [*_of_agents(starts, windows, bare), _of_watches(watches), *_of_operator(at_start, windows["operator"])]
    conditions = (
        f"{STARTS} starts; memory and idle CPU over {WINDOW_SECONDS:g} s.",
        "Agents are laid out, compiled and started as in the image.",
        "Real kube-apiserver; kernel files in memory, but for memory in use and where it says FUSE: those behind FUSE.",
    )
    return schema.result(FOOTPRINT, "make bench-footprint", machine, conditions, rows, versions=versions)


# --- the parts ---------------------------------------------------------------------------------------------------


def _start_operator(stage: Stage, states: Observer) -> processes.Server:
    for number in range(NODES):
        name = f"node-{number:03}"
        stage.add_node(name, {**LABELS, "name": name})
    operator = stage.start("operator", stage.operator_command())
    for _ in range(NODES):
        states.wait("every node has a node state", lambda _: True)
    return operator


def _time_starts(stage: Stage, states: Observer, in_memory: Path, progress: Progress) -> dict[str, list[Start]]:
    """Time starts on both kinds of files in turn; by what the rows of the kind end in."""
    host = stage.add_host("starts", HostConfig())
    copy_files(host.root, in_memory / "starts")
    kinds = {"": in_memory / "starts", FUSE: host.root}
    names = (f"node-{NODES - 1 - number:03}" for number in range(len(kinds) * (STARTS + 1)))
    starts: dict[str, list[Start]] = {kind: [] for kind in kinds}
    for number in range(STARTS + 1):
        progress.tick(f"timing starts of the agent: {number} of {STARTS}")
        for kind, root in kinds.items():
            name = next(names)
            starts[kind].append(_time_start(name, stage.agent_command(name, root), states))
    return {kind: found[1:] for kind, found in starts.items()}


def _time_start(name: str, command: list[str], states: Observer) -> Start:
    begun = time.monotonic()
    # Not on the tether of tests.testbed.processes, which is a Python of its own before the program.
    agent = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        seen = states.wait(f"first status of {name}", lambda state: _has_status(state, name))
        return Start.of(agent.pid, begun, seen.at)
    finally:
        agent.terminate()
        agent.wait(STOP_SECONDS_MAX)


def _time_bare_starts(authority: Path, progress: Progress) -> Bare:
    starts, sizes = list[Start](), list[Memory]()
    for number in range(STARTS + 1):
        progress.tick(f"timing starts of a bare interpreter: {number} of {STARTS}")
        begun = time.monotonic()
        command: list[str | Path] = [sys.executable, "-c", BARE, authority]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as bare:
            assert bare.stdin is not None
            assert bare.stdout is not None
            bare.stdout.readline()
            starts.append(Start.of(bare.pid, begun, time.monotonic()))
            sizes.append(memory(bare.pid))
            bare.stdin.close()
    return Bare(starts[1:], sizes[1:])


def _time_watches(stage: Stage, files: Path, progress: Progress) -> list[float]:
    """Time, in milliseconds, how long a host is without a watch after its agent was started anew, alone."""
    command = [*stage.agent_command(ON_COPY, files), "--api-server", NO_SERVER]
    waits = []
    for number in range(STARTS + 1):
        progress.tick(f"timing starts of the watch: {number} of {STARTS}")
        begun = time.monotonic()
        agent = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            next(line for line in agent.stderr or () if WATCHING in line)
            waits.append(1000 * (time.monotonic() - begun))
        finally:
            agent.terminate()
            agent.communicate(timeout=STOP_SECONDS_MAX)
    return waits[1:]


def _start_agents(stage: Stage, states: Observer) -> dict[str, processes.Server]:
    stage.add_host(OFF, HostConfig())
    stage.add_host(ON, FOLIOS)
    agents = {name: stage.start(f"agent-{name}", stage.agent_command(name)) for name in (OFF, ON)}
    stage.api.create(POLICIES, _policy("everywhere", {}, {"settings": {"demotion": {"enabled": True}}}))
    offload = {"settings": {"offload": {"engine": "DMA", "channels": 4}}, "verification": "Off"}
    risks = {"acceptedRisks": ["UnverifiedEngine"]}
    wanted = {"key": "name", "operator": "In", "values": [ON, ON_COPY]}
    stage.api.create(POLICIES, _policy("offload", {"matchExpressions": [wanted]}, {**offload, **risks}))
    _await_ready(states, {OFF: "Off", ON: "DMA, 4 channels"})
    return agents


def _start_copies(stage: Stage, states: Observer, in_memory: Path) -> dict[str, processes.Server]:
    """Start agents on copies of what the others have made of their kernels, so that nothing is left to write."""
    agents = {}
    for name, origin in COPIES.items():
        copy_files(stage.hosts[origin].root, in_memory / name)
        command = stage.agent_command(name, in_memory / name)
        agents[name] = stage.start(f"agent-{name}", command)
    _await_ready(states, {OFF_COPY: "Off", ON_COPY: "DMA, 4 channels"})
    return agents


def _await_ready(states: Observer, offload: dict[str, str]) -> None:
    while offload:
        seen = states.wait("agents have applied their specs", lambda state: _is_ready(state, offload))
        del offload[seen.object["metadata"]["name"]]


def _policy(name: str, selector: Json, spec: Json) -> Json:
    head = {"apiVersion": API_VERSION, "kind": POLICY_KIND, "metadata": {"name": name}}
    return {**head, "spec": {"nodeSelector": selector, "rollout": AT_ONCE, **spec}}


def _has_status(state: Json, name: str) -> bool:
    return bool(state["metadata"]["name"] == name and state.get("status"))


def _is_ready(state: Json, waiting: Mapping[str, str]) -> bool:
    name, status = state["metadata"]["name"], state.get("status", {})
    groups = status.get("groups", {}).values()
    settled = bool(groups) and all(group["state"] == "Ready" for group in groups)
    return bool(settled and waiting.get(name) == status["offload"])


def _answer_for_others(stage: Stage) -> None:
    """Give each node without an agent the status that one with the same spec has, as the operator would see it."""
    status: dict[str, Any] = stage.api.get(f"{STATES}/{OFF}")["status"]
    for number in range(2 + len(COPIES), NODES):
        path = f"{STATES}/node-{number:03}"
        state = stage.api.get(path)
        told = {**status, "observedGeneration": state["metadata"]["generation"]}
        head = {"apiVersion": API_VERSION, "kind": STATE_KIND, "metadata": {"name": state["metadata"]["name"]}}
        stage.api.apply(path, {**head, "status": told}, AGENT_MANAGER, subresource="status", force=True)


def _watch(stage: Stage, pids: Mapping[str, int], moved: Path, progress: Progress) -> dict[str, Window]:
    progress.note(f"settling for {SETTLE_SECONDS:g} s")
    time.sleep(SETTLE_SECONDS)
    begun, before = time.monotonic(), {name: cpu_seconds(pid) for name, pid in pids.items()}
    samples: dict[str, list[Memory]] = {name: [] for name in pids}
    while (passed := time.monotonic() - begun) < WINDOW_SECONDS:
        progress.tick(f"watching idle processes: {passed:.0f} of {WINDOW_SECONDS:g} s")
        stage.check_alive()
        for name, pid in pids.items():
            samples[name].append(memory(pid))
        moved.write_text(f"{int(1000 * passed)}\n")
        time.sleep(SAMPLE_SECONDS)
    after = {name: cpu_seconds(pid) for name, pid in pids.items()}
    return {name: Window(100 * (after[name] - before[name]) / passed, samples[name]) for name in pids}


# --- the numbers -------------------------------------------------------------------------------------------------


def _of_agents(starts: Mapping[str, Sequence[Start]], windows: Mapping[str, Window], bare: Bare) -> list[Row]:
    off, on, off_copy, on_copy = (windows[name] for name in (OFF, ON, OFF_COPY, ON_COPY))
    in_memory = [start.wall for start in starts[""]]
    return [
        _megabytes("bare interpreter, RSS", [at.rss for at in bare.memory]),
        _row("bare interpreter, exec to TLS", Unit.MILLISECONDS, [start.wall for start in bare.starts], latency=True),
        _row("bare interpreter, CPU until then", Unit.MILLISECONDS, [start.cpu for start in bare.starts]),
        _megabytes("agent RSS, offload off", [at.rss for at in off.memory]),
        _megabytes("agent RSS, offload on", [at.rss for at in on.memory]),
        _megabytes("agent PSS, offload on", [at.pss for at in on.memory]),
        _megabytes("agent USS, offload on", [at.uss for at in on.memory]),
        _row("agent, exec to first status", Unit.MILLISECONDS, in_memory, latency=True),
        _row("agent CPU until first status", Unit.MILLISECONDS, [start.cpu for start in starts[""]]),
        _row(
            f"agent, exec to first status{FUSE}",
            Unit.MILLISECONDS,
            [start.wall for start in starts[FUSE]],
            latency=True,
        ),
        _row("agent idle CPU, off", Unit.CORE_PERCENT, [off_copy.cpu_percent]),
        _row("agent idle CPU, on", Unit.CORE_PERCENT, [on_copy.cpu_percent]),
        _row(f"agent idle CPU, off{FUSE}", Unit.CORE_PERCENT, [off.cpu_percent]),
        _row(f"agent idle CPU, on{FUSE}", Unit.CORE_PERCENT, [on.cpu_percent]),
    ]


def _of_watches(waits: Sequence[float]) -> Row:
    return _row("agent, exec to first watch sample, no API server", Unit.MILLISECONDS, waits, latency=True)


def _of_operator(at_start: Memory, window: Window) -> list[Row]:
    mib = [at.rss / 2**20 for at in window.memory]
    return [
        row(FOOTPRINT, NODES, f"operator RSS at start, {NODES} nodes", Unit.MEBIBYTES, [at_start.rss / 2**20]),
        row(FOOTPRINT, NODES, f"operator RSS, {NODES} nodes", Unit.MEBIBYTES, mib),
        row(FOOTPRINT, NODES, f"operator idle CPU, {NODES} nodes", Unit.CORE_PERCENT, [window.cpu_percent]),
    ]


def _row(name: str, unit: Unit, samples: Iterable[float], *, latency: bool = False) -> Row:
    return row(FOOTPRINT, 1, name, unit, samples, latency=latency)


def _megabytes(name: str, sizes: Sequence[int]) -> Row:
    return _row(name, Unit.MEGABYTES, [size / 1e6 for size in sizes])


if __name__ == "__main__":
    sys.exit(run(benchmark))
