# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from numamigration_agent.baseline import (
    BaselineFile,
    Baselines,
    DamagedFile,
    NoFile,
    baselines_of_status,
    format_baselines,
    recover,
)
from numamigration_agent.kernel.codecs import Value

BOOT = "cd613e30-d8f1-4adf-91b7-584a2265b1f5"
KEPT = Baselines(BOOT, {"offload.engine": Value("0"), "demotion.enabled": Value("false")})
STATUS: dict[str, Any] = {
    "bootID": BOOT,
    "knobs": [
        {"field": "offload.engine", "baseline": "Off", "observed": "DMA"},
        {"field": "demotion.enabled", "baseline": "false"},
        {"field": "balancing.mode", "observed": "Normal"},
        {"field": "of.a.newer.release", "baseline": "7"},
    ],
}


def test_what_is_saved_is_loaded_again_on_the_same_boot(tmp_path: Path) -> None:
    """Promise 7: also after a restart of the agent."""
    file = BaselineFile(tmp_path / "deep" / "state")

    assert file.save(KEPT) == ""
    assert file.load(BOOT) == KEPT


def test_the_file_of_another_boot_is_ignored(tmp_path: Path) -> None:
    file = BaselineFile(tmp_path)
    file.save(KEPT)

    assert file.load("another boot") == NoFile()


def test_only_its_owner_may_read_the_file_and_nothing_else_is_left_behind(tmp_path: Path) -> None:
    file = BaselineFile(tmp_path)
    file.save(KEPT)

    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["baseline.json"]


def test_a_file_that_cannot_be_saved_is_told_and_the_old_one_stands(tmp_path: Path) -> None:
    file = BaselineFile(tmp_path)
    file.save(KEPT)
    (tmp_path / ".baseline.json.new").mkdir()

    assert "directory" in file.save(Baselines(BOOT)).lower()
    assert file.load(BOOT) == KEPT


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut"),
        pytest.param(b"[]", id="no object"),
        pytest.param(b"\xff\xfe", id="no text"),
        pytest.param(format_baselines(KEPT).replace(b'"version": 2', b'"version": 0'), id="of no release"),
        pytest.param(format_baselines(KEPT).replace(b"offload.engine", b"offload.motor"), id="unknown knob"),
        pytest.param(format_baselines(KEPT).replace(b'"0"', b'"maybe"'), id="no value of the knob"),
        pytest.param(format_baselines(KEPT).replace(b'"0"', b"0"), id="a number in place of a text"),
        pytest.param(format_baselines(KEPT) + b" " * 70_000, id="far too long"),
    ],
)
def test_a_damaged_file_is_told_from_none(tmp_path: Path, data: bytes) -> None:
    file = BaselineFile(tmp_path)
    file.path.write_bytes(data)

    assert isinstance(file.load(BOOT), DamagedFile)


def test_the_first_value_of_a_field_wins() -> None:
    """Promise 7: a later capture would take our own value for the one of before."""
    kept = KEPT.with_captures({"offload.engine": Value("1"), "offload.channels": Value("2")})

    assert kept.values == {"offload.engine": "0", "demotion.enabled": "false", "offload.channels": "2"}


def test_the_status_of_this_boot_tells_the_baselines() -> None:
    assert baselines_of_status(STATUS, BOOT) == KEPT


def test_the_status_of_another_boot_tells_nothing() -> None:
    assert baselines_of_status(STATUS, "another boot") is None


@pytest.mark.parametrize(
    ("loaded", "status", "expected"),
    [
        pytest.param(Baselines(BOOT), STATUS, Baselines(BOOT), id="the file has the last word"),
        pytest.param(NoFile(), STATUS, KEPT, id="file lost"),
        pytest.param(DamagedFile("cut"), STATUS, KEPT, id="file damaged"),
        pytest.param(NoFile(), {}, Baselines(BOOT), id="first start on this boot"),
    ],
)
def test_baselines_are_recovered(loaded: Any, status: dict[str, Any], expected: Baselines) -> None:
    assert recover(loaded, status, BOOT) == expected


def test_without_a_boot_id_no_baseline_is_trusted() -> None:
    """Promise 1: neither home could be told from that of another boot."""
    assert recover(Baselines("", KEPT.values), {"bootID": ""}, "").problem


def test_a_damaged_file_without_a_status_of_this_boot_is_a_problem_for_a_person() -> None:
    """Promise 1: nobody can tell what was there before, so nothing may be written."""
    recovered = recover(DamagedFile("baseline.json: cut"), {"bootID": "another"}, BOOT)

    assert "baseline.json: cut" in recovered.problem


def test_the_file_is_plain_json_that_a_person_can_read() -> None:
    assert json.loads(format_baselines(KEPT)) == {
        "version": 2,
        "bootID": BOOT,
        "values": dict(KEPT.values),
        "openUnits": {},
    }
