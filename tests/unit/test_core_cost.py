# SPDX-License-Identifier: Apache-2.0
"""What one node event costs, in calls of functions: the same on every machine, unlike seconds (`make bench-core`).

Calls that Python and C functions make are counted, with those of the decision that follows; what the event is made from
is not.
"""

from __future__ import annotations

from typing import Final

import pytest

from benchmarks.core import KINDS, Crowd, Event, Kind, fleet_of
from numamigration_operator.core.objects import StateObject
from tests.unit.builders import World
from tests.unit.calls import ROOM, calls, fits

pytestmark = pytest.mark.uncounted

CALLS: Final = {
    ("counter moved", 1): 27,
    ("counter moved", 20): 28,
    ("result changed", 1): 114,
    ("result changed", 20): 115,
    ("Node as it was", 1): 13,
    ("Node as it was", 20): 14,
    ("label flipped", 1): 40,
    ("label flipped", 20): 41,
}
"""By kind of event and number of policies, with the share of one decision."""
REST_CALLS, REST_CALLS_A_POLICY = 44, 5
"""Of a decision with nothing to decide."""
EVENTS: Final = 100  # before one decision, as in `make bench-core`
SMALL, LARGE = 100, 400


def calls_of(world: World, events: list[Event]) -> int:
    """Return how many functions are called to take in these events and to decide."""

    def take() -> None:
        for event in events:
            if isinstance(event, StateObject):
                world.fleet.state_changed(event, world.now, world.wall)
            else:
                world.fleet.node_changed(event, world.now)
        world.fleet.decide(world.now, world.wall)

    return calls(take)


def calls_per_event(kind: Kind, world: World) -> float:
    """Return it for the second round: the first one fills what is remembered, and makes the state to differ from."""
    names = list(world.nodes)[:EVENTS]
    first, second = ([kind.event(world, name, number) for name in names] for number in (0, 1))
    calls_of(world, first)
    return calls_of(world, second) / EVENTS


@pytest.fixture(scope="module", params=[1, 20], ids=["1 policy", "20 policies"])
def worlds(request: pytest.FixtureRequest) -> tuple[int, World, World]:
    """Return the number of policies, and a small and a large fleet at rest."""
    policies: int = request.param
    return policies, fleet_of(SMALL, Crowd(policies)), fleet_of(LARGE, Crowd(policies))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_an_event_costs_no_more_calls_than_it_did(kind: Kind, worlds: tuple[int, World, World]) -> None:
    policies, world, _ = worlds

    found = calls_per_event(kind, world)

    assert fits(found, CALLS[kind.name, policies]), f"{found} calls an event"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_an_event_costs_the_same_in_a_large_fleet(kind: Kind, worlds: tuple[int, World, World]) -> None:
    _, small, large = worlds

    assert calls_per_event(kind, large) == pytest.approx(calls_per_event(kind, small), rel=0.1, abs=1)


def test_a_decision_at_rest_costs_few_calls_a_policy(worlds: tuple[int, World, World]) -> None:
    """With 200 policies it is taken as often as with one."""
    policies, world, _ = worlds
    calls_of(world, [])

    assert calls_of(world, []) <= ROOM * (REST_CALLS + REST_CALLS_A_POLICY * policies)
