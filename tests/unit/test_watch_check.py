# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from numamigration_operator.watch_check import WatchCheck


@pytest.fixture
def check() -> WatchCheck:
    made = WatchCheck()
    made.told("a", "1")
    return made


def test_a_watch_that_tells_what_lists_show_is_well(check: WatchCheck) -> None:
    assert not check.is_blind({"a": "1"})
    check.told("a", "2")
    check.told("b", "3")
    assert not check.is_blind({"a": "2", "b": "3"})


@pytest.mark.parametrize(
    "listed",
    [
        pytest.param({"a": "2"}, id="a change not told"),
        pytest.param({"a": "1", "b": "3"}, id="a new object not told"),
        pytest.param({}, id="a deletion not told"),
    ],
)
def test_what_is_still_not_told_a_whole_interval_later_shows_blindness(
    check: WatchCheck, listed: dict[str, str]
) -> None:
    assert not check.is_blind(listed)
    assert check.is_blind(listed)


def test_a_watch_that_catches_up_is_well(check: WatchCheck) -> None:
    check.is_blind({"a": "2"})
    check.told("a", "2")

    assert not check.is_blind({"a": "2"})


def test_a_watch_ahead_of_a_list_is_well(check: WatchCheck) -> None:
    check.told("a", "2")
    check.is_blind({"a": "1"})

    assert not check.is_blind({"a": "2"})


def test_a_watch_that_told_something_else_in_between_gets_another_interval(check: WatchCheck) -> None:
    check.is_blind({"a": "3"})
    check.told("a", "2")

    assert not check.is_blind({"a": "3"})


def test_a_deletion_that_was_told_is_no_difference(check: WatchCheck) -> None:
    check.told_gone("a")

    assert not check.is_blind({})
    assert not check.is_blind({})


def test_a_new_watch_starts_without_suspicion(check: WatchCheck) -> None:
    check.is_blind({"a": "2"})
    check.begun()

    assert not check.is_blind({"a": "2"})
