# SPDX-License-Identifier: Apache-2.0
"""Waits between tries: they grow, are capped, spread over their whole range, and obey Retry-After."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numamigration_api.machinery.backoff import RETRY_AFTER_SECONDS_MAX, Backoff, parse_retry_after


class Highest(Random):
    """Chance that always draws the upper bound."""

    def uniform(self, a: float, b: float) -> float:
        assert a == 0.0
        return b


def test_the_upper_bound_doubles_up_to_the_cap() -> None:
    backoff = Backoff(base_seconds=0.5, cap_seconds=3.0)

    assert [backoff.next_wait(Highest()) for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_a_success_starts_over() -> None:
    backoff = Backoff(base_seconds=0.5, cap_seconds=3.0, attempts=9)

    backoff.reset()

    assert backoff.next_wait(Highest()) == 0.5


def test_the_jitter_is_full_so_that_clients_that_failed_together_spread() -> None:
    backoff = Backoff(base_seconds=8.0, cap_seconds=8.0)
    rng = Random(1)
    waits = [backoff.next_wait(rng) for _ in range(1000)]

    assert min(waits) < 0.1
    assert max(waits) > 7.9


def test_retry_after_is_a_floor_with_the_jitter_above_it() -> None:
    assert Backoff(base_seconds=0.5).next_wait(Highest(), retry_after=7.0) == 7.5


@given(st.integers(0, 10**9), st.one_of(st.none(), st.floats(allow_nan=False)), st.integers(0))
def test_every_wait_is_bounded_whatever_the_server_asks_for(
    attempts: int, retry_after: float | None, seed: int
) -> None:
    backoff = Backoff(attempts=attempts)

    assert backoff.next_wait(Random(seed), retry_after) <= RETRY_AFTER_SECONDS_MAX + backoff.cap_seconds


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        pytest.param(None, None, id="absent"),
        pytest.param("5", 5.0, id="seconds"),
        pytest.param(" 5 ", 5.0, id="spaces"),
        pytest.param("0", 0.0, id="zero"),
        pytest.param("-1", None, id="negative"),
        pytest.param("1.5", None, id="fraction"),
        pytest.param("Wed, 21 Oct 2026 07:28:00 GMT", None, id="date"),
        pytest.param("", None, id="empty"),
    ],
)
def test_a_retry_after_header_is_read(header: str | None, seconds: float | None) -> None:
    assert parse_retry_after(header) == seconds


def test_a_number_that_no_timer_takes_is_cut_rather_than_fatal() -> None:
    assert Backoff().next_wait(Highest(), parse_retry_after("9" * 400)) == RETRY_AFTER_SECONDS_MAX + 0.5
