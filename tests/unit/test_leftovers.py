# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from numamigration_operator.core.leftovers import KnobState, leftover

STORED = {"manager": "numamigration-agent", "subresource": "status", "time": "2026-01-02T03:04:05Z"}


def wish(mode: str) -> dict[str, Any]:
    return {"source": {"policy": "p", "uid": "u"}, "mode": mode, "settings": {}, "release": "Restore"}


def state(spec: dict[str, str], said: dict[str, str] | None = None, *, about: int = 2, **status: Any) -> KnobState:
    """A node state of generation 2: groups by mode, and what its agent says of them."""
    results = {
        group: {"state": word, "reason": "KernelError", "message": "EIO"} for group, word in (said or {}).items()
    }
    document = {
        "metadata": {"name": "n", "generation": 2},
        "spec": {"groups": {group: wish(mode) for group, mode in spec.items()}},
        "status": {"observedGeneration": about, "groups": results, **status},
    }
    return msgspec.json.decode(json.dumps(document).encode(), type=KnobState)


def test_a_node_without_groups_has_nothing_left() -> None:
    assert leftover(state({})) is None


@pytest.mark.parametrize("word", ["Restored", "Unsupported"])
def test_a_restore_that_the_agent_confirms_of_this_very_spec_leaves_nothing(word: str) -> None:
    assert leftover(state({"offload": "Restore"}, {"offload": word})) is None


def test_a_restore_confirmed_of_an_earlier_spec_is_none() -> None:
    """Promise 7: a node that was restored, pushed and is restored again has said Restored before."""
    assert leftover(state({"offload": "Restore"}, {"offload": "Restored"}, about=1)) is not None


@pytest.mark.parametrize("mode", ["Apply", "Hold"])
def test_a_group_that_nobody_asked_to_restore_is_left(mode: str) -> None:
    left = leftover(state({"offload": mode}, {"offload": "Restored"}))

    assert left is not None
    assert left.why == "no operator has asked for it"


def test_a_restore_that_failed_is_left_with_what_the_agent_says() -> None:
    left = leftover(state({"offload": "Restore"}, {"offload": "Failed"}))

    assert left is not None
    assert left.why == "offload: KernelError: EIO"


def test_only_groups_that_are_not_back_are_named_in_the_order_of_the_settings() -> None:
    spec = {"demotion": "Restore", "balancing": "Restore", "offload": "Apply"}

    left = leftover(state(spec, {"balancing": "Restored"}))

    assert left is not None
    assert left.groups == ("offload", "demotion")


@pytest.mark.parametrize(
    ("managed", "why"),
    [
        pytest.param([STORED], "the agent has not answered; its last report is of 2026-01-02T03:04:05Z", id="silent"),
        pytest.param([], "no agent has ever reported", id="never there"),
    ],
)
def test_a_silent_agent_is_told_apart_from_one_that_was_never_there(managed: list[dict[str, str]], why: str) -> None:
    """Promise 11: different troubles have different words."""
    document = {
        "metadata": {"name": "n", "generation": 2, "managedFields": managed},
        "spec": {"groups": {"offload": wish("Restore")}},
    }

    left = leftover(msgspec.json.decode(json.dumps(document).encode(), type=KnobState))

    assert left is not None
    assert left.why == why


def test_values_that_are_not_as_before_are_told() -> None:
    knobs = [
        {"field": "offload.channels", "observed": "8", "baseline": "1"},
        {"field": "offload.engine", "baseline": "0"},
        {"field": "demotion.enabled", "observed": "true", "baseline": "true"},
        {"field": "batch.minSize", "observed": "32768"},
    ]

    left = leftover(state({"offload": "Restore"}, knobs=knobs))

    assert left is not None
    assert left.values == ("offload.channels is 8, was 1", "offload.engine is unknown, was 0")
