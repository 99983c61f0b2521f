# SPDX-License-Identifier: Apache-2.0
"""Conditions: when the transition time moves, what is dropped, and that nothing changed means no write."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numamigration_api.machinery.conditions import (
    MESSAGE_LENGTH_MAX,
    Condition,
    find_condition,
    merge_conditions,
    shorten,
)
from numamigration_api.vocabulary import ConditionStatus, Reason

NOW = datetime(2026, 1, 2, tzinfo=UTC)
EARLIER = "2025-12-31T00:00:00Z"
READY = Condition("Ready", ConditionStatus.TRUE, Reason.AS_EXPECTED, "all good")


def known(**changes: Any) -> dict[str, Any]:
    return {
        "type": "Ready",
        "status": "True",
        "observedGeneration": 1,
        "lastTransitionTime": EARLIER,
        "reason": "AsExpected",
        "message": "all good",
    } | changes


def test_a_new_condition_gets_the_time_of_now() -> None:
    assert merge_conditions([], [READY], generation=3, now=NOW) == [
        {
            "type": "Ready",
            "status": "True",
            "observedGeneration": 3,
            "lastTransitionTime": "2026-01-02T00:00:00Z",
            "reason": "AsExpected",
            "message": "all good",
        }
    ]


@pytest.mark.parametrize(
    ("before", "since"),
    [
        pytest.param(known(), EARLIER, id="nothing changed"),
        pytest.param(known(reason="Paused"), EARLIER, id="another reason is no transition"),
        pytest.param(known(message="x", observedGeneration=0), EARLIER, id="nor message nor generation"),
        pytest.param(known(status="False"), "2026-01-02T00:00:00Z", id="another status is"),
        pytest.param(known(status="Unknown"), "2026-01-02T00:00:00Z", id="from Unknown too"),
        pytest.param({"type": "Ready", "status": "True"}, "2026-01-02T00:00:00Z", id="a time nobody wrote"),
    ],
)
def test_the_transition_time_moves_only_with_the_status(before: dict[str, Any], since: str) -> None:
    (merged,) = merge_conditions([before], [READY], generation=1, now=NOW)

    assert merged["lastTransitionTime"] == since


def test_nothing_changed_means_equal_json() -> None:
    """Promise 12: equal status, no write."""
    assert merge_conditions([known()], [READY], generation=1, now=NOW) == [known()]


def test_a_type_that_is_not_found_any_more_is_dropped() -> None:
    merged = merge_conditions([known(), known(type="Old")], [READY], generation=1, now=NOW)

    assert [condition["type"] for condition in merged] == ["Ready"]


@given(st.permutations(["Ready", "Stalled", "Degraded", "Conflicted"]))
def test_the_list_is_sorted_by_type_whatever_the_order_of_the_findings(types: list[str]) -> None:
    merged = merge_conditions([], [READY._replace(type=name) for name in types], generation=1, now=NOW)

    assert [condition["type"] for condition in merged] == ["Conflicted", "Degraded", "Ready", "Stalled"]


def test_a_long_message_is_cut_with_an_ellipsis() -> None:
    (merged,) = merge_conditions([], [READY._replace(message="x" * 10_000)], generation=1, now=NOW)

    assert len(merged["message"]) == MESSAGE_LENGTH_MAX
    assert merged["message"].endswith("x…")


def test_values_are_plain_strings() -> None:
    (merged,) = merge_conditions([], [READY], generation=1, now=NOW)

    assert {type(merged[key]) for key in ("type", "status", "reason", "message")} == {str}


@pytest.mark.parametrize(("text", "expected"), [("abc", "abc"), ("abcd", "ab…"), ("", "")])
def test_a_text_is_shortened_only_when_it_is_too_long(text: str, expected: str) -> None:
    assert shorten(text, 3) == expected


def test_a_condition_is_found_by_type() -> None:
    assert find_condition([known(type="Stalled"), known()], "Ready") == known()
    assert find_condition([known()], "Stalled") is None
