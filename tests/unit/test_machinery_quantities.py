# SPDX-License-Identifier: Apache-2.0
"""Sizes, shares and decimals as the API spells them."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numamigration_api.machinery.quantities import (
    DECIMAL_LENGTH_MAX,
    DECIMAL_PATTERN,
    PERCENT_PATTERN,
    SIZE_LENGTH_MAX,
    SIZE_PATTERN,
    count_of,
    decimal_text,
    parse_decimal,
    size_bytes,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("1", 1, id="smallest"),
        pytest.param("4096", 4096, id="bytes"),
        pytest.param("32Ki", 32 << 10, id="Ki"),
        pytest.param("2Mi", 2 << 20, id="Mi"),
        pytest.param("1Gi", 1 << 30, id="Gi"),
        pytest.param("9" * 15 + "Gi", int("9" * 15) << 30, id="largest"),
    ],
)
def test_a_size_is_read(text: str, value: int) -> None:
    assert size_bytes(text) == value
    assert len(text) <= SIZE_LENGTH_MAX


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "+1", "1.5Gi", "1G", "1k", "1Ti", "Ki", "01", "1 Ki", "1Ki\n", "٣", "1" * 16, "0x10", "1e3"]
)
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="for example 32Ki"):
        size_bytes(text)


@given(st.from_regex(SIZE_PATTERN, fullmatch=True))
def test_every_size_the_schema_takes_is_read(text: str) -> None:
    assert size_bytes(text) >= 1
    assert len(text) <= SIZE_LENGTH_MAX


@pytest.mark.parametrize(
    ("value", "total", "count"),
    [
        pytest.param(3, 100, 3, id="a count stays"),
        pytest.param("10%", 100, 10, id="even"),
        pytest.param("10%", 101, 11, id="rounds up"),
        pytest.param("10%", 1, 1, id="one node"),
        pytest.param("1%", 5000, 50, id="fleet"),
        pytest.param("100%", 7, 7, id="all"),
        pytest.param("10%", 0, 1, id="at least one, of nothing"),
    ],
)
def test_a_count_or_a_share_becomes_a_count(value: int | str, total: int, count: int) -> None:
    assert count_of(value, total, at_least=1) == count


def test_a_share_of_nothing_may_be_zero_where_zero_is_meant() -> None:
    assert count_of("0%", 5000, at_least=0) == 0


@pytest.mark.parametrize("text", ["10", "101%", "-1%", "1.5%", "%", "010%", "10 %", "", "10%\n"])
def test_text_that_is_no_percentage_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="10%"):
        count_of(text, 100, at_least=1)


@given(st.from_regex(PERCENT_PATTERN, fullmatch=True), st.integers(0, 100_000))
def test_a_share_is_never_below_its_exact_value_nor_a_whole_one_above(text: str, total: int) -> None:
    exact = Decimal(text.removesuffix("%")) * total / 100

    assert exact <= count_of(text, total, at_least=0) < exact + 1


@pytest.mark.parametrize(
    ("value", "places", "text"),
    [
        pytest.param(12.5, 3, "12.5", id="fraction"),
        pytest.param(12.0, 3, "12", id="whole"),
        pytest.param(120.0, 0, "120", id="zeros of a whole number stay"),
        pytest.param(0.0004, 3, "0", id="too small"),
        pytest.param(1e9, 3, "1000000000", id="no exponent"),
        pytest.param(1e-9, 6, "0", id="no exponent below"),
        pytest.param(Decimal("0.125"), 2, "0.12", id="Decimal"),
    ],
)
def test_a_decimal_is_written_without_exponent_and_trailing_zeros(
    value: float | Decimal, places: int, text: str
) -> None:
    assert decimal_text(value, places=places) == text


@given(st.floats(0, 1e12, exclude_max=True), st.integers(0, 6))
def test_what_is_written_is_a_decimal_of_the_api(value: float, places: int) -> None:
    text = decimal_text(value, places=places)

    assert re.fullmatch(DECIMAL_PATTERN, text) or value > 1e12 - 1
    assert len(text) <= DECIMAL_LENGTH_MAX


@given(st.from_regex(DECIMAL_PATTERN, fullmatch=True))
def test_every_decimal_the_schema_takes_is_read(text: str) -> None:
    assert parse_decimal(text) >= 0
    assert len(text) <= DECIMAL_LENGTH_MAX


@pytest.mark.parametrize("text", ["", "-1", "1.", ".5", "1e3", "NaN", "1,5", "0.1234567", "1" * 13, "0.5\n", "0.5x"])
def test_what_is_no_decimal_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="decimal"):
        parse_decimal(text)
