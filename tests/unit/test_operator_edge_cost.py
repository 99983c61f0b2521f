# SPDX-License-Identifier: Apache-2.0
"""What one node costs at the operator's edge, in calls of functions: an event that is read, a spec that is sent.

Counted are functions of the operator and of what it shares with the agent, and what they call in C; of so many more
nodes, so that what is done once does not count.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

import numamigration_operator
from benchmarks.core import Crowd, fleet_of
from numamigration_api import machinery
from numamigration_operator.cluster.applier import Applier, Idle, Limits
from numamigration_operator.cluster.informer import NODES, STATES, Resource
from numamigration_operator.core.decisions import Write, WriteKind
from tests.unit.builders import World
from tests.unit.calls import calls
from tests.unit.test_informer import event, page, run

pytestmark = pytest.mark.uncounted

COUNTED: Final = tuple(Path(module.__path__[0]) for module in (numamigration_operator, machinery))
FEW, MANY = 100, 200
ROOM: Final = 0.1
"""Of the calls when a limit was set: the work is little, so that one part of it done twice shows."""


def events_read(resource: Resource[Any], document: dict[str, object], count: int) -> int:
    """Return how many calls it takes to read so many events."""
    line = event("MODIFIED", document)
    return calls(lambda: run([page(), [line] * count], resource), COUNTED)


def of_one(work: Callable[[int], int]) -> float:
    """Return what one node costs."""
    return (work(MANY) - work(FEW)) / (MANY - FEW)


def push(world: World) -> list[Write]:
    """Edit a policy of a fleet; return what was written to node states until the last agent has answered."""
    begin = len(world.written)
    world.edit_policy("p-000", settings={"offload": {"engine": "DMA", "channels": 2}, "demotion": {"enabled": True}})
    world.settle()
    return [write for write in world.written[begin:] if write.key.kind is WriteKind.STATE_SPEC]


def pushed(nodes: int) -> int:
    """Return how many calls an edit takes, with the reports of all agents."""
    world = fleet_of(nodes, Crowd(1))
    return calls(lambda: push(world), COUNTED)


def sent(nodes: int) -> int:
    """Return how many calls it takes to send what was decided."""
    writes, machine = push(fleet_of(nodes, Crowd(1))), Applier(Limits(8, 1e6, nodes), Random(0))
    assert len(writes) == nodes

    def send() -> None:
        machine.submit(writes, 0.0)
        while not isinstance(step := machine.next(0.0), Idle):
            _ = step.method, step.path("home"), step.query
            machine.answered(step, 200, "", None, 0.0)

    return calls(send, COUNTED)


def a_state() -> dict[str, object]:
    """Return a node state that has been reported."""
    world = fleet_of(1, Crowd(1))
    [state] = world.states.values()
    found: dict[str, object] = json.loads(json.dumps(state))
    return found


@pytest.mark.parametrize(
    ("work", "limit"),
    [
        pytest.param(lambda count: events_read(STATES, a_state(), count), 9, id="event of a node state"),
        pytest.param(
            lambda count: events_read(NODES, {"metadata": {"name": "n", "resourceVersion": "2"}}, count),
            9,
            id="event of a Node",
        ),
        pytest.param(pushed, 1111, id="edit"),
        pytest.param(sent, 45, id="spec sent"),
    ],
)
def test_one_node_costs_no_more_calls_than_it_did(work: Callable[[int], int], limit: int) -> None:
    found = of_one(work)

    assert found == pytest.approx(limit, rel=ROOM), f"{found} calls"
