# SPDX-License-Identifier: Apache-2.0
"""Totals and rates of kernel counters, which go back to 0 at any write and may come and go with a module."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numamigration_agent.kernel.counters import VALUES
from numamigration_agent.statistics import (
    PAST_SAMPLES_MAX,
    PAST_SECONDS,
    RATE_MAX,
    SAMPLES_MAX,
    STEP_MAX,
    TOTAL_MAX,
    Rates,
    Statistics,
    add_sample,
    add_to_total,
    fallback_share_max,
    rates,
)
from numamigration_api.machinery.records import replace

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
        pytest.param([VALUES - 3, 2], 5, id="past its last value it begins at 0 again"),
        pytest.param(
            [VALUES // 2 - 1, VALUES // 2 + 4], 5, id="through the middle, where a signed number turns negative"
        ),
        pytest.param([VALUES // 2 + 10, 7], 7, id="a reset in the upper half is no wrap"),
        pytest.param([5, VALUES - 1, VALUES - 1], 0, id="what no host can have done is not believed"),
        pytest.param([0, STEP_MAX - 1], STEP_MAX - 1, id="the largest step"),
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


def test_some_samples_of_the_last_minutes_are_kept_and_no_more() -> None:
    statistics = after([(float(at), {"folios": at}) for at in range(0, 2000, 10)])

    assert len(statistics.past) <= PAST_SAMPLES_MAX + 1
    assert statistics.history[-1].at - statistics.past[0].at == pytest.approx(PAST_SECONDS, abs=40)


def test_a_count_of_our_own_is_no_sample() -> None:
    statistics = add_to_total(after([(0.0, {"folios": 0}), (10.0, {"folios": 5})]), "corrections", 2)

    statistics = add_sample(statistics, at=20.0, counters={"folios": 9}, window_seconds=WINDOW)

    assert statistics.totals == {"folios": 9, "corrections": 2}
    assert rates(statistics).per_second == {"folios": "0.4"}


def grown(thp_pages: int | None = 512, **increases: int) -> Statistics:
    """Return the statistics of a window in which counters have grown."""
    return replace(after([(0.0, dict.fromkeys(increases, 0)), (10.0, increases)]), thp_pages=thp_pages)


def test_a_counter_of_nonsense_stays_within_what_the_schema_takes() -> None:
    known = Statistics(totals={"folios": TOTAL_MAX - 5})
    for at in range(4):
        known = add_sample(known, at=at / 10, counters={"folios": (at % 2) * (STEP_MAX - 1)}, window_seconds=WINDOW)

    assert known.totals == {"folios": TOTAL_MAX}
    known = after([(0.0, {"folios": 0}), (0.1, {"folios": STEP_MAX - 1})])
    assert rates(known).per_second == {"folios": str(RATE_MAX)}


@pytest.mark.parametrize(
    ("folios", "pages", "thps", "share"),
    [
        pytest.param(1000, 1000, 0, "0", id="every base page was offloaded"),
        pytest.param(250, 1000, 0, "0.75", id="a quarter of the base pages"),
        pytest.param(8, 8 * 512, 8, "0", id="every huge page"),
        pytest.param(2, 8 * 512, 8, "0.75", id="a quarter of the huge pages"),
        pytest.param(300, 500 + 2 * 512, 2, "0.803", id="both kinds: the folios may all have been base pages"),
        pytest.param(501, 500 + 2 * 512, 2, "0.336", id="more folios than base pages: the rest was huge"),
        pytest.param(0, 1000, 0, "1", id="nothing went through an engine"),
        pytest.param(17, 16, 0, "0", id="one folio was copied twice"),
        pytest.param(1, 1000, 2, "0.488", id="fewer pages than the huge ones have: read between two migrations"),
    ],
)
def test_the_share_that_fell_back_is_told_as_what_it_can_be_at_most(
    folios: int, pages: int, thps: int, share: str
) -> None:
    statistics = grown(folios_migrated=folios, pages_migrated=pages, thps_migrated=thps)

    assert fallback_share_max(statistics) == share


@pytest.mark.parametrize(
    "statistics",
    [
        pytest.param(Statistics(), id="no sample"),
        pytest.param(grown(folios_migrated=0, pages_migrated=0, thps_migrated=0), id="nothing migrated"),
        pytest.param(grown(pages_migrated=5, thps_migrated=0), id="no counter of folios"),
        pytest.param(grown(folios_migrated=5, thps_migrated=0), id="no counter of pages"),
        pytest.param(grown(folios_migrated=5, pages_migrated=5), id="no counter of huge pages"),
        pytest.param(
            grown(None, folios_migrated=5, pages_migrated=5, thps_migrated=0), id="huge pages of unknown size"
        ),
    ],
)
def test_the_share_that_fell_back_is_unknown_where_a_number_is(statistics: Statistics) -> None:
    assert fallback_share_max(statistics) is None


@given(st.integers(0, 2000), st.integers(0, 50), st.integers(0, 2000), st.data())
def test_the_true_share_that_fell_back_is_never_larger_than_told(
    single: int, huge: int, other: int, data: st.DataObject
) -> None:
    """`other` are pages of middle-sized folios, eight to a folio, of which nothing is counted apart."""
    offloaded = [data.draw(st.integers(0, count)) for count in (single, huge, other // 8)]
    pages = single + 512 * huge + other // 8 * 8
    statistics = grown(folios_migrated=sum(offloaded), pages_migrated=pages, thps_migrated=huge)

    told = fallback_share_max(statistics)

    true = 1 - (offloaded[0] + 512 * offloaded[1] + 8 * offloaded[2]) / pages if pages else 0
    assert told is None or float(told) >= true - 0.001


@pytest.mark.uncounted
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
