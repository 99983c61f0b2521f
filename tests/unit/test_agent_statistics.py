# SPDX-License-Identifier: Apache-2.0
"""Totals and rates of kernel counters, which go back to 0 at any write and may come and go with a module."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numamigration_agent.statistics import SAMPLES_MAX, Rates, Statistics, add_sample, rates

Readings = list[tuple[float, dict[str, int]]]

WINDOW = 10.0


def after(readings: Readings, window_seconds: float = WINDOW) -> Statistics:
    statistics = Statistics()
    for at, counters in readings:
        statistics = add_sample(statistics, at=at, counters=counters, window_seconds=window_seconds)
    return statistics


@pytest.mark.parametrize(
    ("readings", "total"),
    [
        pytest.param([1000], 0, id="what was there before us does not count"),
        pytest.param([1000, 1004, 1010], 10, id="increases add up"),
        pytest.param([1000, 1010, 3], 13, id="a drop is a reset, what the counter holds then is new"),
        pytest.param([1000, 1010, 0, 0], 10, id="a reset to zero adds nothing"),
        pytest.param([1000, 1010, 0, 5, 2, 4], 19, id="two resets"),
    ],
)
def test_a_total_survives_counter_resets(readings: list[int], total: int) -> None:
    statistics = after([(float(at), {"folios": value}) for at, value in enumerate(readings)])

    assert statistics.totals == {"folios": total}


def test_a_counter_that_never_was_there_stays_absent() -> None:
    statistics = after([(0.0, {"pages": 1}), (10.0, {"pages": 2})])

    assert statistics.totals == {"pages": 1}
    assert rates(statistics).per_second == {"pages": "0.1"}


def test_a_counter_that_is_gone_keeps_its_total_and_has_no_rate() -> None:
    statistics = after([(0.0, {"folios": 5, "pages": 0}), (10.0, {"folios": 9, "pages": 0}), (20.0, {"pages": 0})])

    assert statistics.totals == {"folios": 4, "pages": 0}
    assert rates(statistics).per_second == {"pages": "0"}


def test_a_module_that_is_loaded_again_starts_from_zero_and_the_total_goes_on() -> None:
    statistics = after([(0.0, {"folios": 5}), (10.0, {"folios": 9}), (20.0, {}), (30.0, {"folios": 2})])

    assert statistics.totals == {"folios": 6}


def test_one_sample_has_no_rate() -> None:
    assert rates(after([(0.0, {"folios": 5})])) == Rates(None, {})


def test_no_sample_has_no_rate() -> None:
    assert rates(Statistics()) == Rates(None, {})


def test_two_samples_at_the_same_moment_have_no_rate() -> None:
    assert rates(after([(3.0, {"folios": 5}), (3.0, {"folios": 9})])) == Rates(None, {})


def test_rates_are_over_the_last_window_only() -> None:
    statistics = after([(0.0, {"folios": 0}), (10.0, {"folios": 1000}), (20.0, {"folios": 1015})])

    assert rates(statistics) == Rates("10", {"folios": "1.5"})


def test_a_late_sample_widens_the_window_rather_than_losing_the_rate() -> None:
    statistics = after([(0.0, {"folios": 0}), (12.5, {"folios": 25})])

    assert rates(statistics) == Rates("12.5", {"folios": "2"})


def test_a_reset_within_the_window_makes_no_negative_rate() -> None:
    statistics = after([(0.0, {"folios": 100}), (5.0, {"folios": 110}), (10.0, {"folios": 5})])

    assert rates(statistics) == Rates("10", {"folios": "1.5"})


def test_a_counter_that_appears_within_the_window_is_rated_from_there() -> None:
    statistics = after([(0.0, {"pages": 0}), (5.0, {"pages": 0, "folios": 0}), (10.0, {"pages": 0, "folios": 10})])

    assert rates(statistics).per_second == {"pages": "0", "folios": "2"}


def test_a_counter_that_appears_with_the_last_sample_has_no_rate_yet() -> None:
    statistics = after([(0.0, {"pages": 0}), (10.0, {"pages": 0, "folios": 10})])

    assert rates(statistics).per_second == {"pages": "0"}


def test_frequent_samples_take_bounded_memory_and_give_the_same_rate() -> None:
    statistics = after([(step / 100, {"folios": step}) for step in range(10_001)])

    assert len(statistics.history) <= SAMPLES_MAX + 2
    assert rates(statistics).per_second == {"folios": "100"}
    assert statistics.totals == {"folios": 10_000}


def test_a_restarted_agent_goes_on_from_what_it_kept() -> None:
    kept = after([(500.0, {"folios": 100}), (510.0, {"folios": 130})])

    resumed = add_sample(
        Statistics(raw=kept.raw, totals=kept.totals), at=3.0, counters={"folios": 150}, window_seconds=WINDOW
    )

    assert resumed.totals == {"folios": 50}
    assert rates(resumed) == Rates(None, {})


@given(
    st.lists(
        st.tuples(
            st.floats(0.001, 30, allow_nan=False),
            st.dictionaries(st.sampled_from("abc"), st.integers(0, 2**63), max_size=3),
        ),
        max_size=40,
    )
)
def test_whatever_the_kernel_says_totals_never_fall_and_rates_are_never_negative(
    steps: list[tuple[float, dict[str, int]]],
) -> None:
    statistics, at = Statistics(), 0.0
    for pause, counters in steps:
        at += pause
        before = statistics
        statistics = add_sample(statistics, at=at, counters=counters, window_seconds=WINDOW)

        assert set(statistics.totals) == set(before.totals) | set(counters)
        assert all(statistics.totals[name] >= total for name, total in before.totals.items())
        assert [rate for rate in rates(statistics).per_second.values() if rate.startswith("-")] == []
