# SPDX-License-Identifier: Apache-2.0
"""What ``profiles`` shows."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from numamigration_cli.text import columns
from numamigration_cli.views.profiles import RATES, anew, below, explain, head, profile_row, profiles, table
from tests.unit.cli_samples import DISPUTED, EPYC, NOW, UNKNOWN, profile, profile_document, results
from tests.unit.cli_shown import shown_profile, shown_profiles

NEW = profile_document() | {"status": {}}
EDITED = profile_document() | {"status": profile_document()["status"] | {"recommendation": {"engine": "Off"}}}
NEWER = profile_document(phase="Refining")
LEFT_OFF = profile_document(recommendation={"engine": "Off"}, gain=None)


def lines(document: dict[str, Any]) -> list[str]:
    return head(explain(profile(document), NOW), NOW)


def test_no_line_of_a_terminal_of_80_columns_is_longer() -> None:
    assert max(map(len, [*shown_profiles(80), *shown_profile(80)])) <= 80


def test_classes_stand_by_name_with_both_ends_of_it_in_80_columns() -> None:
    names, classes = zip(*((row.split()[0][:2], row[62:]) for row in shown_profiles()[1:4]), strict=True)

    assert names == ("v6", "v5", "v6")
    assert classes == ("AMD EPYC … 4 ptdma", "Intel Xeo…; 8 idxd", "Intel Xeo…; 8 idxd")


def test_wide_has_nodes_disputes_and_when_it_is_measured_anew() -> None:
    top, _, disputed, *_ = shown_profiles(200, wide=True)

    assert top.split()[6:] == ["DIALECT", "NODES", "DISPUTES", "ANEW", "CLASS", "MESSAGE"]
    assert "V5       1      1         in 23h" in disputed


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        pytest.param(profile_document(), "in 27d", id="thirty days after it was measured"),
        pytest.param(DISPUTED, "in 23h", id="a day after the first dispute"),
        pytest.param(UNKNOWN, "in 30m", id="an hour after nobody could"),
        pytest.param(NEW, "due", id="never looked at"),
        pytest.param(EDITED, "due", id="edited by hand"),
        pytest.param(profile_document(measuredAt="2026-10-01T00:00:00Z"), "due", id="too old"),
        pytest.param(
            profile_document(measuredAt="2026-10-01T00:00:00Z", attemptedAt="2026-11-26T11:30:00Z"),
            "in 30m",
            id="too old, and nobody could",
        ),
        pytest.param(profile_document(measuredAt="yesterday", attemptedAt=None), "due", id="a time that is none"),
    ],
)
def test_it_is_told_when_a_class_is_measured_anew(document: dict[str, Any], expected: str) -> None:
    assert anew(profile_row(profile(document), NOW), NOW) == expected


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        pytest.param(profile_document(), "nodes of this class have: DMA, 4 channels.", id="measured"),
        pytest.param(LEFT_OFF, "nodes of this class have: offload off.", id="the engine would lose"),
        pytest.param(DISPUTED, "the class goes without offload.", id="disputed"),
        pytest.param(UNKNOWN, "leaves nodes of this class as they are.", id="not measured yet"),
        pytest.param(NEW, "leaves nodes of this class as they are.", id="never looked at"),
        pytest.param(NEWER, "nodes of this class have: DMA, 4 channels.", id="a phase of a newer release"),
        pytest.param(EDITED, "Somebody edited it by hand, so it is not used.", id="edited"),
    ],
)
def test_it_is_told_what_nodes_have_of_it(document: dict[str, Any], expected: str) -> None:
    assert explain(profile(document), NOW).effect.endswith(expected)


def test_a_class_whose_choice_is_in_use_needs_no_word_below_the_table() -> None:
    assert below(profiles([profile(profile_document())], NOW), NOW) == []


def test_a_phase_of_a_newer_release_is_shown_as_it_is() -> None:
    (_, first, then, _) = below(profiles([profile(NEWER)], NOW), NOW)

    assert first.endswith(": Refining: best here: DMA, 4 channels (+21%)")
    assert then == "  Under tuning.mode Auto nodes of this class have: DMA, 4 channels."


def test_one_that_somebody_edited_is_shown_as_that() -> None:
    rows = profiles([profile(EDITED)], NOW)

    assert columns(rows, table(NOW))[1].split()[1] == "Edited"
    assert "  Somebody edited it by hand, so it is not used." in below(rows, NOW)


def test_a_profile_that_nobody_has_written_yet_waits_for_a_calm_node() -> None:
    assert lines(NEW)[0].endswith(": Measuring")
    assert "  measured as soon as a node of it is calm" in lines(NEW)


def test_every_setting_stands_beside_the_plain_copy_of_the_same_call() -> None:
    rows = columns(explain(profile(profile_document()), NOW).rates, RATES)

    assert rows[1].split("  ")[0] == "512 × 4Ki"
    assert [row.rpartition("  10       ")[2] for row in rows[1:5]] == ["-", "-57 %", "-20 %", "+22 %        chosen"]


def test_a_setting_without_a_plain_copy_beside_it_is_compared_with_nothing() -> None:
    measured = results(({("CPU", 0): 0.0, ("DMA", 1): 1.0},) * 3)
    report = explain(profile(profile_document(results=measured)), NOW)

    assert {one.against for one in report.rates} == {None}


def test_calls_of_several_tasks_are_not_compared_with_those_of_one() -> None:
    two = [row | {"migrators": 2} for row in results(({("DMA", 1): 1.0},) * 3)]
    report = explain(profile(profile_document(results=[*results(({("CPU", 0): 1.0},) * 3), *two])), NOW)

    assert [(one.shape, one.against) for one in report.rates[3:4]] == [("512 × 4Ki, 2 tasks", None)]


def test_a_gain_that_is_no_number_is_none() -> None:
    assert columns(profiles([profile(profile_document(gain="much"))], NOW), table(NOW))[1].split()[4] == "-"


def test_disputes_are_counted() -> None:
    assert lines(DISPUTED)[-1] == "  disputed 1 time so far"
    assert not [line for line in lines(profile_document()) if "disputed" in line]


def test_a_look_later_is_a_day_closer() -> None:
    row = profile_row(profile(profile_document()), NOW)

    assert anew(row, NOW + timedelta(days=1)) == "in 26d"
    assert row.hardware_class == EPYC
