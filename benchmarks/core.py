# SPDX-License-Identifier: Apache-2.0
"""What one node event costs the operator's core, in memory and on one core: ``make bench-core``.

A round takes the same kind of event from each of NODES_PER_ROUND nodes, drawn from the fleet: it tells the fleet, and
lets it decide after every BATCH events. Small and large fleet take turns, so that their ratio is of one moment. What
comes before is not counted (an event is decoded already), and is told apart. Time is the process's CPU time, for
nothing here waits.
"""

from __future__ import annotations

import copy
import gc
import json
import sys
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final, NamedTuple

import msgspec

from benchmarks.run import run_alone
from benchmarks.schema import Machine, Result, Row, Unit, result, row
from benchmarks.targets import CORE
from numamigration_api.machinery.clock import timestamp
from numamigration_operator.core.objects import NodeObject, StateObject
from tests.testbed.progress import Progress
from tests.unit.builders import World, node, policy

FLEETS: Final = (5_000, 15_000)
ROUNDS: Final = 7
NODES_PER_ROUND: Final = 2_000
BATCH: Final = 100
"""Events between two decisions; with 5,000 nodes and more the operator gathers them for 50 ms."""
BATCH_SECONDS: Final = BATCH / 50_000
"""That the fleet's clock moves with each: as if the target were met, so that status is due as seldom as then."""
SETTLE_STEPS_MAX: Final = 40
FAST: Final = {"canary": {"nodes": 1, "soakSeconds": 0}, "maxUnproven": "100%"}
STATISTICS: Final = {"foliosMigrated": 1000, "foliosFailed": 1, "pagesMigrated": 5000, "foliosPerSecond": "12.5"}

Event = StateObject | NodeObject
_states: Final = msgspec.json.Decoder(StateObject)


class Crowd(NamedTuple):
    """How many policies there are: each for every node, or apart, each for its share of them."""

    policies: int
    apart: bool = False

    def __str__(self) -> str:
        return f"{self.policies} pol.{' apart' if self.apart else ''}"


CROWDS: Final = (Crowd(1), Crowd(20), Crowd(200, apart=True))


class Kind(NamedTuple):
    """One kind of event: makes what a node says in a round."""

    name: str
    event: Callable[[World, str, int], Event]


def counter_moved(world: World, name: str, number: int) -> Event:
    """Return a report whose counters alone moved."""
    return _reported(world, name, number, {})


def result_changed(world: World, name: str, number: int) -> Event:
    """Return a report whose result of a group is another one than in the round before."""
    word, reason = ("Ready", "AsExpected") if number % 2 else ("Pending", "Applying")
    return _reported(world, name, number, {"demotion": {"state": word, "reason": reason}})


def heartbeat(world: World, name: str, number: int) -> Event:  # noqa: ARG001 - it is always the same
    """Return a Node as it was."""
    return copy.copy(world.nodes[name])


def label_flipped(world: World, name: str, number: int) -> Event:
    """Return a Node with another value of a label that no policy asks for."""
    return node(name, **{**world.nodes[name].metadata.labels, "flip": str(number % 2)})


def _reported(world: World, name: str, number: int, groups: dict[str, Any]) -> StateObject:
    document = copy.deepcopy(world.states[name])
    status = document["status"]
    status["groups"] |= groups
    status["reportedAt"] = timestamp(world.wall)
    status["statistics"] = STATISTICS | {"foliosMigrated": 1000 + number, "pagesMigrated": 5000 + 8 * number}
    return _states.decode(json.dumps(document).encode())


KINDS: Final = (
    Kind("counter moved", counter_moved),
    Kind("result changed", result_changed),
    Kind("Node as it was", heartbeat),
    Kind("label flipped", label_flipped),
)


def fleet_of(nodes: int, crowd: Crowd) -> World:
    """Return a fleet at rest: every agent has reported.

    Raises:
        OSError: it does not come to rest.
    """
    world = World()
    world.sync()
    for number in range(crowd.policies):
        settings = {"offload": {"engine": "DMA", "channels": 1 + number % 16}, "demotion": {"enabled": True}}
        labels = {"share": str(number)} if crowd.apart else {"bench": "yes"}
        selector = {"matchLabels": labels}
        world.add_policy(
            policy(f"p-{number:03}", nodeSelector=selector, settings=settings, priority=number, rollout=FAST)
        )
    for number in range(nodes):
        world.add_node(f"node-{number:05}", bench="yes", share=str(number % crowd.policies))
    for _ in range(SETTLE_STEPS_MAX):
        if not world.step(world.settings.status_interval_seconds + 1).writes:
            return world
        for name in world.states:
            world.report(name)
    raise OSError(f"{nodes} nodes do not come to rest in {SETTLE_STEPS_MAX} steps")


def timed(world: World, events: Sequence[Event]) -> float:
    """Tell the fleet of events and let it decide; return microseconds of CPU an event."""
    fleet = world.fleet
    gc.collect()  # what making the events left behind is not theirs
    begun = time.process_time()
    for first in range(0, len(events), BATCH):
        for event in events[first : first + BATCH]:
            if isinstance(event, StateObject):
                fleet.state_changed(event, world.now, world.wall)
            else:
                fleet.node_changed(event, world.now)
        world.now += BATCH_SECONDS
        fleet.decide(world.now, world.wall)
    return 1e6 * (time.process_time() - begun) / len(events)


def round_of(kind: Kind, world: World, number: int) -> float:
    """Run one round on one fleet; return microseconds an event."""
    # Drawn: each second one of 5,000 nodes is of 100 policies out of 200, each seventh of 15,000 of all.
    names = Random(0).sample(list(world.nodes), NODES_PER_ROUND)  # noqa: S311 - not for cryptography
    world.now += world.settings.statistics_interval_seconds  # each round has the same statuses to show
    return timed(world, [kind.event(world, name, number) for name in names])


def decoding(world: World) -> float:
    """Return microseconds that it takes to decode a node state as a watch brings it."""
    bodies = [json.dumps(world.states[name]).encode() for name in list(world.states)[:NODES_PER_ROUND]]
    begun = time.process_time()
    for body in bodies:
        _states.decode(body)
    return 1e6 * (time.process_time() - begun) / len(bodies)


def benchmark(progress: Progress) -> Result:
    """Measure every kind of event on every fleet."""
    machine, found = Machine.here(), list[Row]()
    for crowd in CROWDS:
        progress.note(f"making fleets of {' and '.join(map(str, FLEETS))} nodes with {crowd}")
        worlds = [fleet_of(nodes, crowd) for nodes in FLEETS]
        for kind in KINDS:
            progress.note(f"{ROUNDS} rounds: {kind.name}")
            # The first one warms up, and makes the state from which the others differ.
            rows = [[round_of(kind, world, number) for world in worlds] for number in range(ROUNDS + 1)][1:]
            found.extend(_measurements(f"{kind.name}, {crowd}", rows))
    decoded = [decoding(worlds[0]) for _ in range(ROUNDS)]
    found.append(row(CORE, 1, "decoding a node state", Unit.MICROSECONDS, decoded))
    conditions = (
        f"{ROUNDS} rounds of {NODES_PER_ROUND} events, a decision after each {BATCH}.",
        "Every policy selects every node; where it says apart, each its share of them.",
        "CPU time; no API server; events are decoded before.",
    )
    return result(CORE, "make bench-core", machine, conditions, found, versions={"msgspec": msgspec.__version__})


def _measurements(name: str, rows: Sequence[Sequence[float]]) -> list[Row]:
    small, large = zip(*rows, strict=True)
    return [
        *(
            row(CORE, nodes, f"{name}, {nodes:,} nodes", Unit.MICROSECONDS, samples)
            for nodes, samples in zip(FLEETS, (small, large), strict=True)
        ),
        row(CORE, FLEETS[-1], f"{name}, large : small", Unit.RATIO, [b / a for a, b in rows]),
    ]


if __name__ == "__main__":
    sys.exit(run_alone(benchmark))
