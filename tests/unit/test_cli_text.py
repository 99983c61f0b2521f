# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from numamigration_cli.text import Column, columns, duration, names, plural, printable, since, wrapped
from tests.unit.cli_samples import NOW

PAIR = (Column[tuple[str, str]]("NAME", lambda row: row[0]), Column[tuple[str, str]]("SAYS", lambda row: row[1]))


def test_what_is_empty_is_a_dash_and_nothing_stands_at_the_end_of_a_line() -> None:
    assert columns([("a", ""), ("bb", "x")], PAIR) == ["NAME  SAYS", "a     -", "bb    x"]


def test_nothing_in_a_cell_moves_the_cursor_or_changes_a_color() -> None:
    """Status is written by agents, and kernel files have anything in them."""
    assert columns([("a", "x\x1b[31m\nroot\r")], PAIR)[1] == r"a     x\x1b[31m\nroot\r"
    assert printable("a\u202eb") == r"a\u202eb"


@pytest.mark.parametrize("width", [1, 5, 8, 12, 80])
def test_no_line_is_longer_than_the_terminal(width: int) -> None:
    rows = [("a" * 63, "b" * 200), ("c", "d" * 50)]

    assert all(len(line) <= width for line in columns(rows, PAIR, width=width))


def test_a_column_that_gives_way_is_cut_in_its_middle_and_only_as_far_as_needed() -> None:
    table = (PAIR[0]._replace(least=5), PAIR[1])

    assert columns([("database-one", "x" * 10)], table, width=20)[1] == "data…one  xxxxxxxxxx"
    assert columns([("database-one", "x" * 30)], table, width=20)[1] == "da…ne  xxxxxxxxxxxx…"
    assert columns([("database-one", "x")], table, width=20)[1] == "database-one  x"


def test_of_two_columns_that_give_way_the_second_gives_what_the_first_cannot() -> None:
    table = (PAIR[0]._replace(least=5), PAIR[1]._replace(least=5))

    assert columns([("database-one", "x" * 10)], table, width=20)[1] == "data…one  xxxxxxxxxx"
    assert columns([("database-one", "x" * 10)], table, width=15)[1] == "da…ne  xxxx…xxx"


def test_without_a_terminal_nothing_is_cut() -> None:
    assert columns([("a", "b" * 500)], PAIR)[1].endswith("b" * 500)


def test_a_color_changes_no_column() -> None:
    rows = [("False", "x"), ("Unknown", "y")]
    painted = columns(rows, PAIR, paint=lambda text, color: f"<{color}>{text}</>")

    assert painted[1:] == ["<red>False</>    x", "<yellow>Unknown</>  y"]


def test_words_wrap_further_in_and_empty_lines_stay() -> None:
    assert wrapped(["", "  one two three"], 10) == ["", "  one two", "    three"]
    assert wrapped(["one two three"], None) == ["one two three"]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        pytest.param(-5, "0s", id="a clock that is ahead"),
        pytest.param(119, "119s", id="below two minutes"),
        pytest.param(120, "2m", id="two minutes"),
        pytest.param(7199, "119m", id="below two hours"),
        pytest.param(7200, "2h", id="two hours"),
        pytest.param(172_800, "2d", id="two days"),
    ],
)
def test_durations(seconds: int, shown: str) -> None:
    assert duration(seconds) == shown


def test_a_time_that_is_none_is_unknown() -> None:
    assert since(None, NOW) == since("", NOW) == since("yesterday", NOW) == since("2026-11-26T11:00:00", NOW) == ""


def test_many_names_are_some_names() -> None:
    assert names(["a", "b", "c"]) == "a, b, c"
    assert names(["a", "b", "c", "d"]) == "a, b, c and 1 more"
    assert [plural(1, "policy"), plural(0, "policy"), plural(2, "node")] == ["1 policy", "0 policies", "2 nodes"]
