# SPDX-License-Identifier: Apache-2.0
"""Time as the API writes and reads it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numamigration_api.machinery.clock import parse_timestamp, seconds_since, timestamp

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)


def test_a_moment_is_written_in_utc_with_whole_seconds() -> None:
    assert timestamp(MOMENT) == "2026-01-02T03:04:05Z"


def test_another_zone_is_turned_into_utc() -> None:
    assert timestamp(MOMENT.astimezone(timezone(timedelta(hours=-7)))) == "2026-01-02T03:04:05Z"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("2026-01-02T03:04:05Z", MOMENT.replace(microsecond=0), id="metav1.Time"),
        pytest.param("2026-01-02T03:04:05.678901Z", MOMENT, id="metav1.MicroTime"),
        pytest.param("2026-01-01T20:04:05-07:00", MOMENT.replace(microsecond=0), id="other zone"),
    ],
)
def test_a_timestamp_is_read(text: str, expected: datetime) -> None:
    assert parse_timestamp(text) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "2026-01-02T03:04:05", "2026-01-02", "2026-13-01T00:00:00Z"])
def test_what_names_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"isoformat|time zone|month"):
        parse_timestamp(text)


def test_a_time_without_zone_is_never_written() -> None:
    with pytest.raises(ValueError, match="zone"):
        timestamp(MOMENT.replace(tzinfo=None))


@given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - zone follows
def test_what_is_written_is_read_back_to_the_second(moment: datetime) -> None:
    assert parse_timestamp(timestamp(moment)) == moment.replace(microsecond=0)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param("2026-01-02T03:04:00Z", 5.678901, id="a moment ago"),
        pytest.param("2026-01-02T03:04:10Z", -4.321099, id="it lies ahead"),
        pytest.param(None, None, id="none"),
        pytest.param("yesterday", None, id="no timestamp"),
        pytest.param("2026-01-02T03:04:00", None, id="no zone"),
    ],
)
def test_how_long_ago_a_timestamp_was(text: str | None, seconds: float | None) -> None:
    assert seconds_since(text, MOMENT) == seconds
