# SPDX-License-Identifier: Apache-2.0
"""Policies that nothing has moved are passed by in a decision, and nothing is missed by that.

Schedules of the simulation are run twice: as they are, and with every policy looked at in every decision. What is
written, what is told, and when, is the same; so whoever moves something of a policy has to stir it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import pytest

from numamigration_operator.core.decisions import Decisions
from numamigration_operator.core.fleet import Fleet
from tests.simulation.schedule import run_seed

pytestmark = pytest.mark.uncounted

SEEDS: Final = (5003, 5022, 5034)
"""Each way to stir a policy is needed by one of them; three have tests of their own (docs/decisions/0043)."""

Told = tuple[float, Any, Any]


def story(seed: int, *, everywhere: bool) -> list[Told]:
    """Return what the operators of a schedule decide, with the time; `everywhere`: each looks at all its policies."""
    found: list[Told] = []
    decide = Fleet.decide

    def listen(fleet: Fleet, now: float, wall: datetime) -> Decisions:
        for policy in fleet._policies.values() if everywhere else ():
            policy.stir()
        decided = decide(fleet, now, wall)
        if decided.writes or decided.events:
            found.append((now, decided.writes, decided.events))
        return decided

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Fleet, "decide", listen)
        run_seed(seed)
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_what_no_look_was_taken_at_had_nothing_to_say(seed: int) -> None:
    assert story(seed, everywhere=False) == story(seed, everywhere=True)
