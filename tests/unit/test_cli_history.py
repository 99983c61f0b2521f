# SPDX-License-Identifier: Apache-2.0
"""``history``, ``diff``, and the patches of what changes something."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from numamigration_api.vocabulary import CellVerdict, FleetSwitch, PolicyMode
from numamigration_cli.exits import Exit, Failure
from numamigration_cli.text import columns
from numamigration_cli.views.act import (
    held,
    mode_steps,
    release_steps,
    rollback_steps,
    switch_document,
    switch_question,
    tuning_ends,
)
from numamigration_cli.views.history import changes, content, find, history, named, table, verdict, way_back
from numamigration_operator.core.fleet_switch import Control
from numamigration_operator.core.objects import RevisionObject
from numamigration_operator.core.revisions import CellRecord, Revision, content_of, read_revision
from tests.unit.cli_samples import EPYC, NOW, asked

HOLD = f'{{"hardwareClass":"{EPYC}","dialect":"V6","driver":"ptdma","node":"db-9"}}'


def revision(number: int, verdict: str = "", **spec: Any) -> Revision:
    """Return a stored revision, read as it comes from the API server."""
    annotations = {}
    if verdict:
        record = CellRecord("V6", EPYC, CellVerdict(verdict), 1, "2026-11-26T11:00:00Z", reason="GuardrailTripped")
        annotations[record.cell.key] = msgspec.json.encode(record).decode()
    document = {
        "metadata": {"name": f"offload-{number}", "uid": f"r{number}", "annotations": annotations},
        "data": json.loads(content_of(asked(**spec).spec)),
        "revision": number,
    }
    read = read_revision(msgspec.json.decode(json.dumps(document).encode(), type=RevisionObject))
    assert read is not None
    return read


FIRST = revision(1, "Proven", settings={"offload": {"engine": "DMA", "channels": 2}})
SECOND = revision(2, "Failed", settings={"offload": {"engine": "DMA", "channels": 8}})
THIRD = revision(3, settings={"offload": {"engine": "DMA", "channels": 4}, "demotion": {"enabled": True}})
STORED = [THIRD, SECOND, FIRST]


def test_a_class_that_was_measured_again_is_one_line_whatever_others_there_are() -> None:
    other = {"name": "v6-1", "engine": "Off"}
    before, after = ([{"name": "v5-1", "engine": "DMA", "channels": channels}, other] for channels in (2, 4))

    assert changes({"profiles": before}, {"profiles": after}) == ["profiles.v5-1.channels: 2 -> 4"]


@pytest.mark.parametrize(
    ("mode", "offload", "told"),
    [
        pytest.param("Auto", {"profiles": []}, True, id="tuned, to what was measured"),
        pytest.param("Auto", {"engine": "Off"}, False, id="tuned, to numbers of a person"),
        pytest.param("Off", {"profiles": []}, False, id="not tuned"),
    ],
)
def test_a_rollback_that_ends_tuning_says_so(mode: str, offload: dict[str, Any], told: bool) -> None:
    spec = asked(tuning={"mode": mode}, settings={"offload": {"engine": "DMA"}}).spec

    assert bool(tuning_ends(spec, {"settings": {"offload": offload}})) is told


def test_history_stands_in_80_columns_the_latest_first() -> None:
    assert columns(history(STORED, THIRD.id), table(NOW), width=80) == [
        "NUMBER       REVISION          LAST VERDICT  WENT",
        f"3 (current)  {THIRD.id}  -             not proven",
        f"2            {SECOND.id}  60m           failed on 1 kind of node, V6: Guar…",
        f"1            {FIRST.id}  60m           proven on 1 kind of node",
    ]


def test_history_tells_what_each_revision_changed() -> None:
    rows = history(STORED, THIRD.id)

    assert rows[0].changes == ("settings.offload.channels: 8 -> 4", "settings.demotion.enabled: true")
    assert rows[1].changes == ("settings.offload.channels: 2 -> 8",)
    assert "settings.offload.engine: DMA" in rows[2].changes


def test_a_diff_names_what_is_left_out() -> None:
    assert changes(content(THIRD), content(FIRST)) == [
        "settings.demotion.enabled: true -> left out",
        "settings.offload.channels: 4 -> 2",
    ]


def test_equal_contents_do_not_differ() -> None:
    assert changes(content(FIRST), content(FIRST)) == []


@pytest.mark.parametrize("wanted", ["2", SECOND.id, SECOND.id[:6], "offload-2"])
def test_a_revision_is_found_by_number_hash_its_beginning_or_name(wanted: str) -> None:
    assert find(STORED, wanted, "offload") is SECOND


@pytest.mark.parametrize("wanted", ["4", "", "0", SECOND.id[:3]])
def test_a_revision_that_is_none_names_those_that_there_are(wanted: str) -> None:
    with pytest.raises(Failure, match=f"offload: no revision {wanted}\n  stored are: 3, 2, 1") as caught:
        find(STORED, wanted, "offload")

    assert caught.value.code is Exit.FAILED


def test_a_revision_is_named_with_its_policy() -> None:
    assert named("db/3") == ("db", "3")
    assert named("3") == ("", "3")
    with pytest.raises(Failure):
        named("a/b/c")


def test_the_way_back_is_the_latest_that_went_well_and_is_not_the_current_one() -> None:
    assert way_back(STORED, THIRD.id) is FIRST
    assert way_back(STORED, FIRST.id) is None
    assert verdict(SECOND) == "failed on 1 kind of node, V6: GuardrailTripped"


def test_a_rollback_replaces_what_reaches_nodes_and_only_in_the_spec_that_was_looked_at() -> None:
    steps = rollback_steps(asked().metadata, content(FIRST))

    assert steps[:2] == [
        {"op": "test", "path": "/metadata/uid", "value": "uid-offload"},
        {"op": "test", "path": "/metadata/generation", "value": 2},
    ]
    assert {step["path"] for step in steps[2:]} == {
        f"/spec/{field}" for field in ("settings", "acceptedRisks", "verification", "unsupported", "drift", "onDelete")
    }
    assert {"op": "add", "path": "/spec/settings", "value": {"offload": {"engine": "DMA", "channels": 2}}} in steps


def test_pausing_sets_the_mode_of_the_spec_that_was_looked_at_and_nothing_else() -> None:
    assert mode_steps(asked().metadata, "Apply", PolicyMode.PAUSED)[2:] == [
        {"op": "add", "path": "/spec/mode", "value": "Paused"}
    ]


def test_what_is_paused_is_not_paused_again() -> None:
    assert mode_steps(asked().metadata, "Paused", PolicyMode.PAUSED) == []


def test_a_plan_is_not_turned_into_an_order_by_resuming_it() -> None:
    with pytest.raises(Failure, match="offload is in mode Plan"):
        mode_steps(asked().metadata, "Plan", PolicyMode.APPLY)


def test_the_switch_is_turned_without_a_word_about_holds() -> None:
    assert switch_document(FleetSwitch.OFF)["data"] == {"fleet": "off"}


def test_who_turns_the_switch_is_asked_with_the_server_and_what_it_does() -> None:
    assert switch_question(FleetSwitch.OFF, "https://prod:6443", FleetSwitch.RUN) == (
        "https://prod:6443: turn the fleet switch from run to off (offload is turned off wherever this "
        "project turned it on, and nothing new is pushed)?"
    )


CONTROL = Control(FleetSwitch.RUN, "", (("hold.0123456789abcdef", HOLD), ("hold.aaaaaaaaaaaaaaaa", "?")))


@pytest.mark.parametrize("wanted", ["hold.0123456789abcdef", "0123456789abcdef", "epyc 7713", EPYC])
def test_a_held_class_is_meant_by_key_digits_or_a_part_of_its_name(wanted: str) -> None:
    key, text, hold = held(CONTROL, wanted)

    assert (key, text) == ("hold.0123456789abcdef", HOLD)
    assert hold is not None
    assert hold.node == "db-9"


def test_a_hold_that_nobody_understands_can_be_released_by_its_key() -> None:
    assert held(CONTROL, "aaaaaaaaaaaaaaaa")[2] is None


def test_a_class_that_is_not_held_names_those_that_are() -> None:
    with pytest.raises(Failure, match=r"hold\.aaaaaaaaaaaaaaaa \(unreadable\)"):
        held(CONTROL, "Xeon")
    with pytest.raises(Failure, match="no class is held"):
        held(Control(), "Xeon")


def test_a_hold_is_released_only_as_it_was_looked_at() -> None:
    assert release_steps("hold.0123456789abcdef", HOLD) == [
        {"op": "test", "path": "/data/hold.0123456789abcdef", "value": HOLD},
        {"op": "remove", "path": "/data/hold.0123456789abcdef"},
    ]
