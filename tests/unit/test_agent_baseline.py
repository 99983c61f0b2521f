# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from numamigration_agent.baseline import (
    BaselineFile,
    Baselines,
    DamagedFile,
    NewerFile,
    NoFile,
    Swap,
    baselines_of_status,
    format_baselines,
    recover,
)
from numamigration_agent.kernel.codecs import Value
from tests.fakekernel.config import HostConfig
from tests.fakekernel.host import FakeHost
from tests.unit.agent_rig import no_room

BOOT = "cd613e30-d8f1-4adf-91b7-584a2265b1f5"
KEPT = Baselines(BOOT, {"offload.engine": Value("0"), "demotion.enabled": Value("false")})
OPEN = KEPT.with_open({"offload": {"offload.engine": Swap(Value("0"), Value("1"))}})
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
    """Promise 1: its values mean nothing to this kernel."""
    file = BaselineFile(tmp_path)
    file.save(KEPT)

    assert file.load("another boot") == NoFile()


def test_only_its_owner_may_read_the_file_and_nothing_else_is_left_behind(tmp_path: Path) -> None:
    file = BaselineFile(tmp_path)
    file.save(KEPT)

    assert stat.S_IMODE(Path(file.path).stat().st_mode) == 0o600
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
        pytest.param(b"[" * 60_000, id="deeper than a parser goes"),
        pytest.param(b'{"version": NaN, "bootID": NaN, "values": NaN}', id="no numbers"),
        pytest.param(b"\0" * 4096, id="zeros, as some file systems leave after a crash"),
        pytest.param(
            format_baselines(KEPT).replace(b'"openUnits": {}', b'"openUnits": []'), id="open units of no shape"
        ),
        pytest.param(
            format_baselines(KEPT.with_open({"offload": {"offload.channels": Swap(Value("1"), Value("4"))}})),
            id="a change was begun without a value of before",
        ),
        pytest.param(format_baselines(KEPT).replace(b'"version": 2', b'"version": 0'), id="of no release"),
        pytest.param(format_baselines(KEPT).replace(b"offload.engine", b"offload.motor"), id="unknown knob"),
        pytest.param(format_baselines(KEPT).replace(b'"0"', b'"maybe"'), id="no value of the knob"),
        pytest.param(format_baselines(KEPT).replace(b'"0"', b"0"), id="a number in place of a text"),
        pytest.param(format_baselines(KEPT).replace(b'"lives": {}', b'"lives": {"offload.engine": "y"}'), id="no life"),
        pytest.param(format_baselines(KEPT) + b" " * 70_000, id="far too long"),
    ],
)
def test_a_damaged_file_is_told_from_none(tmp_path: Path, data: bytes) -> None:
    file = BaselineFile(tmp_path)
    Path(file.path).write_bytes(data)

    assert isinstance(file.load(BOOT), DamagedFile)


def test_a_file_cut_at_any_byte_is_damaged(tmp_path: Path) -> None:
    """Promise 1: half a record is none."""
    file = BaselineFile(tmp_path)
    whole = format_baselines(OPEN)

    for length in range(len(whole) - 1):
        Path(file.path).write_bytes(whole[:length])
        assert isinstance(file.load(BOOT), DamagedFile), length


def a_folder(path: Path) -> None:
    path.mkdir()


def a_link_to_a_whole_file(path: Path) -> None:
    elsewhere = path.with_name("elsewhere")
    elsewhere.write_bytes(format_baselines(KEPT))
    path.symlink_to(elsewhere)


def a_link_to_nothing(path: Path) -> None:
    path.symlink_to(path.with_name("nothing"))


def a_pipe_that_nobody_writes(path: Path) -> None:
    os.mkfifo(path)


def a_hundred_megabytes(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100 << 20)


@pytest.mark.parametrize(
    "put",
    [a_folder, a_link_to_a_whole_file, a_link_to_nothing, a_pipe_that_nobody_writes, a_hundred_megabytes],
    ids=lambda put: put.__name__.replace("_", " "),
)
def test_what_stands_in_the_file_s_place_is_damage_and_no_crash(tmp_path: Path, put: Callable[[Path], None]) -> None:
    """Promise 1: it may have taken the place of a record."""
    file = BaselineFile(tmp_path)
    put(Path(file.path))

    assert isinstance(file.load(BOOT), DamagedFile)


def test_a_link_in_the_file_s_place_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    file = BaselineFile(tmp_path)
    a_link_to_nothing(Path(file.path))

    assert file.save(KEPT) == ""
    assert not (tmp_path / "nothing").exists()
    assert file.load(BOOT) == KEPT


@pytest.mark.parametrize("version", [3, 10**30])
def test_a_file_of_a_newer_release_is_told_from_a_damaged_one(tmp_path: Path, version: int) -> None:
    file = BaselineFile(tmp_path)
    Path(file.path).write_text(json.dumps({"version": version, "bootID": BOOT, "records": []}))

    assert isinstance(file.load(BOOT), NewerFile)


def test_a_newer_file_of_another_boot_is_as_void_as_any(tmp_path: Path) -> None:
    file = BaselineFile(tmp_path)
    Path(file.path).write_text(json.dumps({"version": 3, "bootID": "another boot"}))

    assert file.load(BOOT) == NoFile()


def test_a_file_of_the_release_before_is_read(tmp_path: Path) -> None:
    """Promise 7: an upgrade of the agent forgets nothing."""
    file = BaselineFile(tmp_path)
    Path(file.path).write_text(json.dumps({"version": 1, "bootID": BOOT, "values": dict(KEPT.values)}))

    assert file.load(BOOT) == KEPT


def test_open_units_are_loaded_again_on_the_same_boot(tmp_path: Path) -> None:
    """Promise 4: also after a restart of the agent."""
    file = BaselineFile(tmp_path)
    file.save(OPEN)

    assert file.load(BOOT) == OPEN
    assert file.load("another boot") == NoFile()


def test_a_forgotten_baseline_takes_its_knob_out_of_an_open_unit() -> None:
    """A file whose open unit has a knob without baseline would be damaged."""
    assert OPEN.without(["offload.engine"]).open_units == {"offload": {}}


def test_a_full_file_system_is_told_and_the_old_file_stands(tmp_path: Path) -> None:
    """Promise 1."""
    file = BaselineFile(tmp_path)
    file.save(KEPT)

    with no_room():
        problem = file.save(OPEN)

    assert "large" in problem
    assert file.load(BOOT) == KEPT
    assert [path.name for path in tmp_path.iterdir()] == ["baseline.json"]


def test_a_read_only_file_system_is_told() -> None:
    """Promise 1."""
    with FakeHost(HostConfig(read_only=True), real_time=False) as host:
        assert "Read-only" in BaselineFile(host.path("/sys/module")).save(KEPT)


def test_the_first_value_of_a_field_wins() -> None:
    """Promise 7: a later capture would take our own value for the one of before."""
    kept = KEPT.with_captures({"offload.engine": Value("1"), "offload.channels": Value("2")})

    assert kept.values == {"offload.engine": "0", "demotion.enabled": "false", "offload.channels": "2"}


def test_the_status_of_this_boot_tells_the_baselines() -> None:
    assert baselines_of_status(STATUS, BOOT) == KEPT


def test_the_status_of_another_boot_tells_nothing() -> None:
    """Promise 1: nor do the values in the status of another boot."""
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


def test_beside_a_newer_file_nothing_is_written_and_the_baselines_of_the_status_are_kept() -> None:
    """Promise 1: the newer release knows more than this one can read."""
    recovered = recover(NewerFile("baseline.json: version 3"), STATUS, BOOT)

    assert "run that release again" in recovered.problem
    assert recovered.values == KEPT.values


def test_the_file_is_plain_json_that_a_person_can_read() -> None:
    assert json.loads(format_baselines(KEPT)) == {
        "version": 2,
        "bootID": BOOT,
        "values": dict(KEPT.values),
        "lives": {},
        "states": {},
        "openUnits": {},
    }
