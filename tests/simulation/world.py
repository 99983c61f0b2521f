# SPDX-License-Identifier: Apache-2.0
"""Everything round the programs: nodes and their kernels, people, faults. Each move of `schedule.MOVES` is a method.

A move that makes no sense now (an edit of a policy that is not there) does nothing, so that any move can be left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec

from numamigration_agent.events import Tick
from numamigration_api.vocabulary import CONTROL_CONFIG_MAP, FLEET_KEY, HOLD_KEY_PREFIX, LEASE_NAME, PROBE_MANAGER
from tests.simulation.agents import ModelAgent, SimAgent, StateFolder
from tests.simulation.clock import Clock, Process
from tests.simulation.kernels import KINDS, KernelWrite, Kind, ModelKernel
from tests.simulation.machines import RealMachine
from tests.simulation.measuring import bench_of
from tests.simulation.network import Network
from tests.simulation.objects import Json, find
from tests.simulation.operators import SimOperator, Tuned
from tests.simulation.oracle import BrokenPromiseError, Oracle
from tests.simulation.rollouts import cell_of
from tests.simulation.server import (
    CONFIG_MAPS,
    LEASES,
    MERGE,
    NODES,
    POLICIES,
    PROFILES,
    REVISIONS,
    STATES,
    Request,
    SimServer,
)
from tests.simulation.steps import Coverage, asked_for
from tests.simulation.tuning import FORGED_CHANNELS, is_answered
from tests.twin.machine import temporary_folder

OPERATORS: Final = ("operator-0", "operator-1")
SETTLE_SECONDS: Final = 75.0
"""From the end of trouble to the first check: a lease, the longest back-off, and what was late has arrived."""
SETTLE_TIMES: Final = 21
"""So often it may take as long again: a restore deadline, a silent node's, nodes one by one, each with its soak."""
QUIET_SECONDS: Final = 45.0  # four looks of the tuner
QUIET_WRITES_MAX: Final = 2  # of a place: a node that was waited for may be let be just then
WAY_OFF_SECONDS: Final = 100.0  # a watch, a write of each node, a report of each agent
CLOCK_SECONDS: Final = 20.0  # wrong by so much, a leader that starts may take nodes for silent ones
KUBELET_SECONDS: Final = 40.0  # of silence, until the node controller says Unknown
SAMPLE_SECONDS: Final = (1.0, 10.0)  # until an agent looks at its numbers
GARBAGE_SECONDS: Final = (0.1, 5.0)
MACHINE_SECONDS_MAX: Final = 60.0
SETTINGS: Final[Mapping[str, tuple[Json, ...]]] = {
    "offload": (
        {"engine": "DMA", "channels": 2},
        {"engine": "DMA", "channels": 4},
        {"engine": "Off"},
    ),
    "balancing": ({"mode": "Tiering"}, {"mode": "Off"}, {"mode": "Normal"}),
    "demotion": ({"enabled": True}, {"enabled": False}),
}
REAL_EVERY, REAL_AT = 32, 7
"""Of so many schedules one runs real agents, which costs four to five times as much as another."""
TUNED_EVERY, TUNED_AT = 16, 11
"""Of so many schedules one has policies that are tuned; the others are drawn as if there were none."""
REAL_TUNED_EVERY, REAL_TUNED_AT = 512, 27
"""Of so many schedules one has both."""
WRONG_SHARE: Final = 0.1
WRONG: Final = ("corrupts", "stalls", "fails")
"""So are some machines with the real agent from the start: a trial is made once, and rarely just after a fault."""
LABELS: Final = ("database", "cache")
FORGED: Final[Json] = {"engine": "DMA", "channels": FORGED_CHANNELS}
PROFILE_EDITS: Final[Mapping[str, Json]] = {
    "recommendation": {"recommendation": FORGED},
    "whole": {"phase": "Measured", "recommendation": FORGED, "nodes": [{"node": "node-00", **FORGED}]},
    "phase": {"phase": "Measuring"},
    "disputed": {"phase": "Disputed"},
    "moment": {"measuredAt": "2025-01-01T00:00:00Z"},
    "message": {"message": "somebody was here"},
}
"""What a person may write into the status of a profile; a channel number that no node measures."""
STRUCK_SECONDS: Final[Mapping[str, tuple[float]]] = {"reboot": (20.0,), "crash_agent": (5.0,)}
CANDIDATES: Final[list[Json]] = [{"engine": "DMA", "channels": 1}]


@dataclass
class SimNode:
    """One machine."""

    name: str
    kind: Kind
    kernel: ModelKernel | RealMachine
    agent: SimAgent
    folder: StateFolder = field(default_factory=StateFolder)
    registered: bool = False
    dead: bool = False

    @property
    def corrupt(self) -> bool:
        """Whether its engine was found corrupt on this boot."""
        return self.kernel.corrupt if isinstance(self.kernel, RealMachine) else self.folder.corrupt


class World:
    """One cluster in the middle of its history."""

    def __init__(self, seed: int, nodes: int) -> None:
        self._seed = seed
        self._memory = temporary_folder("numamigration-simulation-") if has_real_agents(seed) else None
        self.rng = Random(seed)
        self.clock = Clock(self.rng)
        self.host = Process(self.clock)
        self.server = SimServer(self.host, self.rng)
        self.coverage = Coverage(self.clock)
        self.network = Network(self.server, self.rng, asked_for, self.coverage.request_fault)
        self.network.on_read = self.coverage.read
        self.network.on_write = self._wrote_to
        self.oracle = Oracle(
            self.server, frozenset(OPERATORS), on_step=self.coverage.step, sent_bodies=self.network.sent
        )
        self.server.observers += [self.oracle.wrote, self.coverage.wrote, self._wrote]
        self.counts: Counter[str] = Counter()
        self._measuring: Counter[str] = Counter()  # writes of profiles and questions, by path
        tuned = Tuned(measures=is_tuned(seed))
        self.operators = {name: SimOperator(self.clock, self.network, self.rng, name, tuned) for name in OPERATORS}
        self.nodes: dict[str, SimNode] = {}
        for number in range(nodes):
            self.add_node(number)
        for operator in self.operators.values():
            operator.on_step = self.coverage.step
            self._start_operator(operator)

    def _start_operator(self, operator: SimOperator) -> None:
        self.clock.after(self.rng.uniform(0.0, 2.0), operator.start)

    def _wrote(self, written: Any) -> None:
        self.counts["writes"] += 1
        node = self.nodes.get(written.name)
        if written.collection == STATES and written.after is not None and node and isinstance(node.kernel, RealMachine):
            node.kernel.stored(written.after)
        # Also for a state that is written after its Node is gone: the garbage collector looks at every new object.
        orphaned = written.collection in {NODES, POLICIES} and written.after is None
        if orphaned or (written.collection in {STATES, REVISIONS} and written.before is None):
            self.clock.after(self.rng.uniform(*GARBAGE_SECONDS), self.server.collect_garbage)

    def _wrote_to(self, request: Request) -> None:
        if request.collection == PROFILES or request.query.get("fieldManager") == PROBE_MANAGER:
            self._measuring[request.path] += 1

    def close(self) -> None:
        """Remove what the nodes' agents keep."""
        if self._memory is not None:
            self._memory.cleanup()

    # --- people

    def _ask(self, method: str, path: str, body: Any = None, content_type: str = MERGE) -> int:
        data = b"" if body is None else msgspec.json.encode(body)
        request = Request("person", method, path, {"fieldManager": "person"}, data, content_type, self.clock.now)
        return self.server.handle(request).status

    def create_policy(self, name: str, spec: Json) -> None:
        """Create a policy."""
        body = {"apiVersion": "numamigration.dev/v1alpha1", "kind": "MigrationPolicy", "metadata": {"name": name}}
        self._ask("POST", POLICIES, body | {"spec": spec})

    def edit_policy(self, name: str, spec: Json) -> None:
        """Edit some fields of a policy's spec."""
        policy = self.server.get(POLICIES, name)
        if policy is not None:
            patch = dict(spec)
            if "settings" in patch:  # as a whole: a merge would keep groups and fields
                old = policy["spec"]["settings"]
                gone = dict.fromkeys(old.keys() - patch["settings"].keys())
                new = {
                    group: {**dict.fromkeys(old.get(group, {})), **value} for group, value in patch["settings"].items()
                }
                patch["settings"] = gone | new
            if "nodeSelector" in patch:
                patch["nodeSelector"] = {"matchLabels": {"app": None, **patch["nodeSelector"].get("matchLabels", {})}}
            self._ask("PATCH", f"{POLICIES}/{name}", {"spec": patch})

    def delete_policy(self, name: str) -> None:
        """Delete a policy."""
        self._ask("DELETE", f"{POLICIES}/{name}")

    def strip_finalizer(self, name: str) -> None:
        """Take a policy's finalizers away by hand."""
        self._ask("PATCH", f"{POLICIES}/{name}", {"metadata": {"finalizers": None}})

    def wipe_policy_status(self, name: str) -> None:
        """Try to clear a policy's status; the fence's rule refuses it once an operator has written there."""
        self._ask("PATCH", f"{POLICIES}/{name}/status", {"status": None})

    def turn_switch(self, word: str) -> None:
        """Turn the fleet switch; an empty word deletes the ConfigMap, and all holds with it."""
        if not word:
            self._ask("DELETE", f"{CONFIG_MAPS}/{CONTROL_CONFIG_MAP}")
        elif self.server.get(CONFIG_MAPS, CONTROL_CONFIG_MAP) is None:
            self._ask("POST", CONFIG_MAPS, {"metadata": {"name": CONTROL_CONFIG_MAP}, "data": {FLEET_KEY: word}})
        else:
            self._ask("PATCH", f"{CONFIG_MAPS}/{CONTROL_CONFIG_MAP}", {"data": {FLEET_KEY: word}})

    def remove_hold(self) -> None:
        """Remove the holds of classes, as a person does who has looked into them."""
        data = find(self.server.get(CONFIG_MAPS, CONTROL_CONFIG_MAP), ("data",)) or {}
        keys = [key for key in data if key.startswith(HOLD_KEY_PREFIX)]
        if keys:
            self._ask("PATCH", f"{CONFIG_MAPS}/{CONTROL_CONFIG_MAP}", {"data": dict.fromkeys(keys)})

    def delete_revision(self, number: int) -> None:
        """Delete a ControllerRevision by hand."""
        names = sorted(self.server.all(REVISIONS))
        if names:
            self._ask("DELETE", f"{REVISIONS}/{names[number % len(names)]}")

    def delete_state(self, number: int) -> None:
        """Delete a node state by hand."""
        self._ask("DELETE", f"{STATES}/{_name(number)}")

    def edit_state(self, number: int) -> None:
        """Take a group out of a node state's spec by hand."""
        groups = find(self.server.get(STATES, _name(number)), ("spec", "groups")) or {}
        if groups:
            self._ask("PATCH", f"{STATES}/{_name(number)}", {"spec": {"groups": {min(groups): None}}})

    def wipe_status(self, number: int) -> None:
        """Clear a node state's status by hand."""
        self._ask("PATCH", f"{STATES}/{_name(number)}/status", {"status": None})

    def edit_profile(self, number: int, edit: str) -> None:
        """Edit a profile's status by hand."""
        names = sorted(self.server.all(PROFILES))
        if names:
            self._ask("PATCH", f"{PROFILES}/{names[number % len(names)]}/status", {"status": PROFILE_EDITS[edit]})

    def delete_profile(self, number: int) -> None:
        """Delete a profile by hand."""
        names = sorted(self.server.all(PROFILES))
        if names:
            self._ask("DELETE", f"{PROFILES}/{names[number % len(names)]}")

    def spoil_tuned(self, trouble: str) -> None:
        """Let engines be wrong where what was measured has turned offload on, or is about to."""
        profiles = [one for one in self.server.all(PROFILES).values() if _turns_on(one)]
        classes = {(one["spec"]["dialect"], one["spec"]["hardwareClass"]) for one in profiles}
        for name, state in sorted(self.server.all(STATES).items()):
            if cell_of(state) in classes and name in self.nodes:
                self.spoil_kernel(int(name.removeprefix("node-")), trouble)

    def strike_probed(self, move: str) -> None:
        """Let something befall the node that measures: the name of a move, and how long its end lasts."""
        states = sorted(self.server.all(STATES).items())
        asked = (name for name, state in states if find(state, ("spec", "probe")) and not is_answered(state))
        name = next(asked, None)
        if name is not None:
            getattr(self, move)(int(name.removeprefix("node-")), *STRUCK_SECONDS.get(move, ()))

    def edit_probe(self, number: int) -> None:
        """Take what a node is asked out of its spec by hand, or ask it something."""
        state = self.server.get(STATES, _name(number)) or {}
        asked = None if find(state, ("spec", "probe")) else {"id": "0123456789abcdef", "candidates": CANDIDATES}
        self._ask("PATCH", f"{STATES}/{_name(number)}", {"spec": {"probe": asked}})

    def delete_lease(self) -> None:
        """Delete the Lease by hand."""
        self._ask("DELETE", f"{LEASES}/{LEASE_NAME}")

    # --- nodes

    def add_node(self, number: int) -> None:
        """Add a Node, or the same machine again."""
        name = _name(number)
        if name not in self.nodes:
            kind = KINDS[number % len(KINDS)] if number % 4 != 3 else KINDS[number % 2]
            agent = SimAgent(self.clock, self.network, self.rng, name)
            kernel = self._make_kernel(agent, kind)
            self.nodes[name] = SimNode(name, kind, kernel, agent)
            self.oracle.booted(name, kernel.values)
            if self._memory is not None and self.rng.random() < WRONG_SHARE:
                self.spoil_kernel(number, self.rng.choice(WRONG))
        node = self.nodes[name]
        if not node.registered:
            labels = {"app": LABELS[number % 2], "topology.kubernetes.io/zone": f"zone-{number % 3}"}
            self._ask("POST", NODES, {"metadata": {"name": name, "labels": labels}, "status": _ready("True")})
            node.registered = True
            self._start_agent(node, self.rng.uniform(0.0, 5.0))

    def _make_kernel(self, agent: SimAgent, kind: Kind) -> ModelKernel | RealMachine:
        name = agent.node
        agent.on_delivered = self.oracle.delivered.__setitem__
        if self._memory is None:
            return ModelKernel(name, kind, self.rng, self._kernel_wrote)
        folder, chance = Path(self._memory.name) / name, Random(f"{self._seed} {name}")
        machine = RealMachine(name, kind, chance, folder, self.oracle, agent.now, self._kernel_wrote)

        def delivered(node: str, state: Mapping[str, Any] | None) -> None:
            self.oracle.delivered[node] = state
            machine.delivered(state)

        agent.on_delivered, agent.on_report = delivered, machine.reported
        return machine

    def remove_node(self, number: int) -> None:
        """Remove a Node; its machine stops."""
        node = self.nodes.get(_name(number))
        if node is not None and node.registered and sum(one.registered for one in self.nodes.values()) > 4:
            node.registered = False
            self._ask("DELETE", f"{NODES}/{node.name}")
            node.agent.die()
            self._boot(node)

    def relabel(self, number: int, app: str) -> None:
        """Change the label that policies select by."""
        self._ask("PATCH", f"{NODES}/{_name(number)}", {"metadata": {"labels": {"app": app}}})

    def _start_agent(self, node: SimNode, seconds: float) -> None:
        def start() -> None:
            if node.registered and not node.dead and not node.agent.alive:
                if isinstance(node.kernel, RealMachine):
                    node.agent.start(node.kernel.start(self.rng), node.kernel)
                else:
                    bench = bench_of(self._seed, node.name, node.kind)
                    node.agent.start(ModelAgent(node.kernel, node.folder, self.rng, bench))

        self.clock.after(seconds, start)

    def crash_agent(self, number: int, seconds: float) -> None:
        """End an agent; another one starts later."""
        node = self.nodes.get(_name(number))
        if node is not None and node.agent.alive:
            self.coverage.fault("agent crash")
            node.agent.die()
            self._start_agent(node, seconds)

    def stop_agent(self, number: int, seconds: float) -> None:
        """Let an agent stand still for a while."""
        node = self.nodes.get(_name(number))
        if node is not None and node.agent.alive:
            node.agent.stop()
            self.coverage.fault("agent stopped")
            self.clock.after(seconds, node.agent.go_on)

    def reboot(self, number: int, seconds: float) -> None:
        """Boot a node anew: its kernel forgets everything, its agent starts later."""
        node = self.nodes.get(_name(number))
        if node is not None and node.registered:
            self.coverage.fault("node reboot")
            node.agent.die()
            self._boot(node)
            self._start_agent(node, seconds)

    def _boot(self, node: SimNode) -> None:
        node.kernel.boot()
        node.folder = StateFolder()
        self.oracle.troubled.discard(node.name)
        self.oracle.booted(node.name, node.kernel.values)

    def lose_node(self, number: int) -> None:
        """Let a machine die for good, while its Node stays."""
        node = self.nodes.get(_name(number))
        if node is not None and node.registered:
            self.coverage.fault("node dead")
            node.dead = True
            node.agent.die()
            self.clock.after(KUBELET_SECONDS, lambda: self._set_ready(node.name, "Unknown"))

    def unready(self, number: int, seconds: float) -> None:
        """Let a Node not be ready for a while."""
        node = self.nodes.get(_name(number))
        if node is not None and node.registered and not node.dead:
            self.coverage.fault("node not ready")
            self._set_ready(node.name, "False")
            self.clock.after(seconds, lambda: None if node.dead else self._set_ready(node.name, "True"))

    def _set_ready(self, name: str, word: str) -> None:
        self._ask("PATCH", f"{NODES}/{name}", {"status": _ready(word)})

    def spoil_kernel(self, number: int, trouble: str) -> None:
        """Let a kernel refuse writes, or its engine corrupt pages or stall."""
        node = self.nodes.get(_name(number))
        if node is not None:
            self.coverage.fault(f"kernel {trouble}")
            node.kernel.spoil(trouble)
            self.oracle.troubled.add(node.name)
            self._look_soon(node)

    def _look_soon(self, node: SimNode) -> None:
        if node.agent.alive:
            node.agent.at(self.clock.now + self.rng.uniform(*SAMPLE_SECONDS), lambda: node.agent.take(Tick()))

    def heal_kernel(self, number: int) -> None:
        """Let a kernel be right again; what was found corrupt stays off for this boot."""
        node = self.nodes.get(_name(number))
        if node is not None:
            node.kernel.heal()

    def _kernel_wrote(self, write: KernelWrite, passing: frozenset[str] = frozenset()) -> None:
        self.oracle.kernel_wrote(write, passing)
        self.coverage.step("agent applied")

    # --- operators

    def crash_operator(self, number: int, seconds: float) -> None:
        """End an operator at this very moment."""
        operator = self.operators[OPERATORS[number]]
        if operator.alive:
            self.coverage.fault("operator crash")
            operator.crash(seconds)

    def terminate_operator(self, number: int) -> None:
        """End an operator by a signal, as a rolling update does."""
        operator = self.operators[OPERATORS[number]]
        if operator.alive and not operator.stopped:
            self.coverage.fault("operator ends")
            operator.terminate()

    def stop_operator(self, number: int, seconds: float) -> None:
        """Let an operator stand still, perhaps for longer than its lease."""
        operator = self.operators[OPERATORS[number]]
        if operator.alive:
            self.coverage.fault("operator stopped")
            operator.stop()
            self.clock.after(seconds, operator.go_on)

    def jump_clock(self, who: str, seconds: float) -> None:
        """Set a wall clock wrong."""
        self.coverage.fault("clock jump")
        self.oracle.clocks_wrong |= abs(seconds) >= CLOCK_SECONDS
        process = self.host if who == "server" else self._process(who)
        if process is not None:
            process.skew += seconds

    def _process(self, who: str) -> Process | None:
        if who in self.operators:
            return self.operators[who]
        node = self.nodes.get(who.removeprefix("agent-"))
        return node.agent if node is not None else None

    # --- network

    def spoil_requests(self, client: str, faults: list[str]) -> None:
        """Let the next requests of a client go wrong."""
        self.network.weather_of(client).requests.extend(faults)

    def spoil_step(self, step: str, fault: str) -> None:
        """Let the next request that takes a step of the protocol go wrong."""
        self.network.aim(step, fault)

    def strike(self, step: str, fault: str, end: str, seconds: float) -> None:
        """Let the operator end, or stand still, that takes a step next, and its request meet a fault, if any."""

        def fall(request: Request) -> None:
            number = OPERATORS.index(request.client) if request.client in OPERATORS else -1
            if number >= 0:
                getattr(self, end)(number, seconds)

        self.network.wait_for(step, fall)
        if fault:
            self.network.aim(step, fault)

    def cut_off(self, client: str, seconds: float) -> None:
        """Take a client's connection away."""
        self.coverage.fault("cut off")
        self.network.weather_of(client).until = self.clock.now + seconds
        self.network.cut(client)

    def cut_watches(self, client: str) -> None:
        """End every watch of a client."""
        self.network.cut(client)

    def slow_watch(self, client: str, collection: str, seconds: float) -> None:
        """Let one kind of events be late for a client, so that others overtake it."""
        self.coverage.fault("slow")
        self.network.weather_of(client).slow[collection] = seconds

    def duplicate_events(self, client: str, count: int) -> None:
        """Let the next events come twice."""
        self.network.weather_of(client).duplicates = count

    def compact(self) -> None:
        """Let the server forget its history, and end all watches, so that everybody meets 410."""
        self.coverage.fault("expired")
        self.server.forget_history()
        for client in (*OPERATORS, *(node.agent.name for node in self.nodes.values())):
            self.network.cut(client)

    # --- time

    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.run(self.clock.now + seconds)

    def settle(self) -> None:
        """Take every trouble away, let time pass, and check that all is as it shall be."""
        self.network.calm()
        for node in self.nodes.values():
            node.kernel.heal()
            if node.agent.stopped:
                node.agent.go_on()
            self._look_soon(node)
        for operator in self.operators.values():
            if operator.stopped:
                operator.go_on()
        self.pass_time(SETTLE_SECONDS)
        for _ in range(SETTLE_TIMES):
            try:
                self._check_rest()
            except BrokenPromiseError:
                self.pass_time(SETTLE_SECONDS)
            else:
                return
        self._check_rest()

    def stay_at_rest(self) -> None:
        """Let time pass over a fleet at rest: nothing more is written of measurements."""
        before = self._measuring.copy()
        self.pass_time(QUIET_SECONDS)
        busy = {path: count for path, count in (self._measuring - before).items() if count > QUIET_WRITES_MAX}
        if busy:
            raise BrokenPromiseError(f"tuning: at rest, and within {QUIET_SECONDS:.0f} s there were writes of {busy}")

    def go_off(self, word: str) -> None:
        """Turn the switch of a fleet at rest: it reaches every node that lives, whatever else happens there."""
        self.turn_switch(word)
        self.pass_time(WAY_OFF_SECONDS)
        self._check_rest()

    def _check_rest(self) -> None:
        self.oracle.at_rest(frozenset(node.name for node in self.nodes.values() if self._is_well(node)))

    def _is_well(self, node: SimNode) -> bool:
        return node.registered and node.agent.alive and not node.corrupt


def has_real_agents(seed: int) -> bool:
    """Whether the nodes of a schedule run the real agent."""
    return seed % REAL_EVERY == REAL_AT or seed % REAL_TUNED_EVERY == REAL_TUNED_AT


def is_tuned(seed: int) -> bool:
    """Whether policies of a schedule may be tuned."""
    return seed % TUNED_EVERY == TUNED_AT


def _turns_on(profile: Json) -> bool:
    return bool(find(profile, ("status", "recommendation", "engine")) == "DMA")


def _name(number: int) -> str:
    return f"node-{number:02d}"


def _ready(word: str) -> Json:
    return {"conditions": [{"type": "Ready", "status": word}]}
