# SPDX-License-Identifier: Apache-2.0
"""Random histories of an agent and its kernel, with a check after every step; ``make fuzz`` runs more of them.

The seeds are fixed, so that this says the same thing each time; what a longer run finds gets a test of its own.
"""

from __future__ import annotations

import random

import pytest

from numamigration_api.vocabulary import Dialect
from tests.fuzz.histories import DIALECTS, MOVES_PER_HISTORY, Finding, run, run_seed, shorten
from tests.fuzz.moves import MOVES, History, Move, make_history
from tests.fuzz.world import World

pytestmark = pytest.mark.uncounted

HISTORIES = 260
STEPS_MIN = 10_000
SHARES = 4
"""Tests among which the seeds are shared, so that a failure is told before all have run."""


@pytest.mark.parametrize("share", range(SHARES))
def test_the_promises_hold_after_every_step_of_random_histories(share: int) -> None:
    """Promises 1, 2, 3, 4, 5, 6, 7, 11, 12, 14, 15 and 16."""
    steps = 0
    for seed in range(share, HISTORIES, SHARES):
        outcome = run_seed(seed)
        assert outcome.finding is None, f"{shorten(outcome.finding)}"
        steps += outcome.moves
    assert steps >= STEPS_MIN // SHARES


def test_a_seed_gives_the_same_history_each_time() -> None:
    assert make_history(7, MOVES_PER_HISTORY, DIALECTS) == make_history(7, MOVES_PER_HISTORY, DIALECTS)
    assert run_seed(7) == run_seed(7)


def test_every_move_is_made_and_takes_what_it_is_given() -> None:
    made = {move.name for seed in range(150) for move in make_history(seed, MOVES_PER_HISTORY, DIALECTS).moves}

    assert made == set(MOVES)
    assert all(callable(getattr(World, name)) for name in MOVES)


def test_a_history_that_fails_is_made_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the moves without which it does not fail are left."""

    def trip(world: World, times: int) -> None:
        world.now += times
        if world.now > 1001:
            raise RuntimeError("tripped")

    monkeypatch.setattr(World, "trip", trip, raising=False)
    rng = random.Random(1)
    noise = [Move("answer", MOVES["answer"][1](rng)) for _ in range(20)]
    moves = (*noise[:10], Move("trip", (1,)), *noise[10:], Move("trip", (1,)), Move("settle"))
    host = make_history(1, 3, (Dialect.V6,)).host

    found = run(History(1, host, moves)).finding

    assert isinstance(found, Finding)
    assert shorten(found).history.moves == (Move("trip", (1,)), Move("trip", (1,)))
