# SPDX-License-Identifier: Apache-2.0
"""How calls are counted by which tests of cost judge."""

from __future__ import annotations

import gc
import json
from functools import partial
from pathlib import Path

import pytest

from tests.unit.calls import calls, fits

pytestmark = pytest.mark.uncounted
HERE = Path(__file__).parent


def work() -> None:
    json.dumps({"a": [1]}, indent=1)


def work_twice() -> None:
    work()
    work()


def test_calls_of_work_done_twice_are_twice_as_many() -> None:
    assert calls(work_twice) - 1 == 2 * calls(work)


def test_what_others_call_within_is_not_counted() -> None:
    assert calls(work, (HERE,)) == 1
    assert calls(work) > 10


def test_what_the_garbage_collector_calls_is_not_counted(request: pytest.FixtureRequest) -> None:
    def collected(phase: str, details: dict[str, int]) -> None:
        """Is told of each collection."""

    request.addfinalizer(partial(gc.set_threshold, *gc.get_threshold()))
    request.addfinalizer(partial(gc.callbacks.remove, collected))
    gc.callbacks.append(collected)
    gc.set_threshold(1)
    assert calls(lambda: [[], [], [], []], (HERE,)) == 1
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("found", "fit"),
    [
        pytest.param(125, True, id="at the upper limit"),
        pytest.param(126, False, id="too many"),
        pytest.param(80, True, id="at the lower limit"),
        pytest.param(79, False, id="so few that the limit is too high"),
    ],
)
def test_a_limit_has_room_on_both_sides(found: int, fit: bool) -> None:
    assert fits(found, 100) is fit
