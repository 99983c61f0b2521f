# SPDX-License-Identifier: Apache-2.0
"""What the world does to an agent: its file, its status, its node state, its clock, its kernel files."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from datetime import timedelta
from errno import ENODEV, EROFS
from pathlib import Path
from typing import Any, Final

import pytest

from numamigration_agent.baseline import FILE_NAME, BaselineFile, Baselines
from numamigration_agent.change import SaveBaselines, WriteKnob
from numamigration_agent.cluster import ApplyKind, ApplyResult, StateGone, StateSeen
from numamigration_agent.jobs import Probe
from numamigration_agent.kernel.codecs import Value
from numamigration_agent.kernel.dialects import Knob
from numamigration_api.machinery.clock import parse_timestamp
from tests.fakekernel.config import HostConfig, Spoiled
from tests.unit.agent_rig import APPLIED, OFFLOAD, START, FakeSysfs, Rig, no_room, wish

PARAMETERS: Final = "/sys/module/dcbm/parameters"
CHANNELS: Final = f"{PARAMETERS}/nr_dma_chan"
YEAR: Final = timedelta(days=365)
SKEW: Final = ApplyResult(ApplyKind.SKEW, "apply the CRDs of this release")


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    rig = Rig(tmp_path / "state")
    rig.settle()
    return rig


def on_file(rig: Rig) -> Baselines:
    found = BaselineFile(rig.folder).load(rig.kernel.snapshot().boot_id)
    assert isinstance(found, Baselines)
    return found


def see(rig: Rig) -> None:
    """Let the watch bring the object as it is."""
    rig.send(StateSeen(copy.deepcopy(rig.object)))


# --- the state file


def a_cut_file(rig: Rig) -> None:
    path = rig.folder / FILE_NAME
    path.write_bytes(path.read_bytes()[:-9])


def a_newer_file(rig: Rig) -> None:
    path = rig.folder / FILE_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 3}))


def a_deep_file(rig: Rig) -> None:
    (rig.folder / FILE_NAME).write_bytes(b"[" * 60_000)


def a_folder_in_its_place(rig: Rig) -> None:
    (rig.folder / FILE_NAME).unlink()
    (rig.folder / FILE_NAME).mkdir()


def a_pipe_in_its_place(rig: Rig) -> None:
    (rig.folder / FILE_NAME).unlink()
    os.mkfifo(rig.folder / FILE_NAME)


BAD_FILES: Final = [a_cut_file, a_newer_file, a_deep_file, a_folder_in_its_place, a_pipe_in_its_place]


@pytest.mark.parametrize("spoil", BAD_FILES, ids=lambda spoil: spoil.__name__)
def test_a_bad_state_file_without_a_status_stops_every_write_and_is_told(
    rig: Rig, spoil: Callable[[Rig], None]
) -> None:
    """Promise 1: what was there before is in neither home."""
    rig.wish({"offload": wish(OFFLOAD)})
    stores = list(rig.stores)
    rig.object["status"] = {}
    spoil(rig)

    rig.restart()
    rig.wish({"offload": wish({**OFFLOAD, "channels": 2})})
    rig.pass_time(60)

    assert rig.stores == stores
    assert rig.condition("Degraded")["reason"] == "BaselineNotSaved"
    assert rig.group()["reason"] == "BaselineNotSaved"


def test_a_file_of_a_newer_release_is_left_as_it_is(rig: Rig) -> None:
    """Promise 7: a downgrade of the agent loses nothing that the newer release knows."""
    rig.wish({"offload": wish(OFFLOAD)})
    a_newer_file(rig)
    newer, stores = (rig.folder / FILE_NAME).read_bytes(), list(rig.stores)

    rig.restart()
    rig.wish({"offload": wish(OFFLOAD, mode="Restore")})
    rig.pass_time(60)

    assert (rig.folder / FILE_NAME).read_bytes() == newer
    assert rig.stores == stores
    assert "newer release" in rig.condition("Degraded")["message"]
    assert rig.knob("offload.channels")["baseline"] == "1"


def test_a_full_state_folder_stops_every_write_until_there_is_room(rig: Rig) -> None:
    """Promise 1."""
    with no_room():
        rig.wish({"offload": wish(OFFLOAD)})
        assert rig.stores == []
        assert rig.condition("Degraded")["reason"] == "BaselineNotSaved"

    rig.pass_time(30)

    assert rig.group()["state"] == "Ready"


def test_a_folder_that_became_full_keeps_what_it_has_and_says_so(rig: Rig) -> None:
    """Promises 7 and 17: of what it should give back, only the engine goes off at once."""
    rig.wish({"offload": wish(OFFLOAD)})
    with no_room():
        rig.wish({"offload": wish(OFFLOAD, mode="Restore")})
        assert (rig.kernel.snapshot().offloading, rig.kernel.snapshot().nr_dma_chan) == (False, 4)
        assert rig.condition("Degraded")["reason"] == "BaselineNotSaved"
        assert on_file(rig).values["offload.channels"] == "1"

    rig.pass_time(30)

    assert rig.group()["state"] == "Restored"


def test_a_baseline_that_cannot_be_forgotten_for_want_of_room_is_told_although_nothing_is_asked(rig: Rig) -> None:
    rig.wish({"demotion": wish({"enabled": True})})
    with no_room():
        rig.wish({})

        assert rig.condition("Degraded")["reason"] == "BaselineNotSaved"
    rig.pass_time(30)

    assert rig.condition("Degraded")["status"] == "False"
    assert on_file(rig).values == {}


# --- a status that was edited


def without_baselines(status: dict[str, Any]) -> None:
    for row in status["knobs"]:
        row.pop("baseline", None)


def with_other_baselines(status: dict[str, Any]) -> None:
    next(row for row in status["knobs"] if row["field"] == "offload.channels")["baseline"] = "16"


def with_another_result(status: dict[str, Any]) -> None:
    status["groups"]["offload"]["state"] = "Failed"


def cleared(status: dict[str, Any]) -> None:
    status.clear()


EDITS: Final = [without_baselines, with_other_baselines, with_another_result, cleared]


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_an_edited_status_is_told_again_and_nothing_is_written_for_it(
    rig: Rig, edit: Callable[[dict[str, Any]], None]
) -> None:
    """Promise 1: the status is one of the two homes. Promise 2: what it says is no wish."""
    rig.wish({"offload": wish(OFFLOAD)})
    told, stores = copy.deepcopy(rig.status), list(rig.stores)

    edit(rig.object["status"])
    see(rig)

    assert {**rig.status, "reportedAt": ""} == {**told, "reportedAt": ""}
    assert rig.stores == stores


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_the_next_agent_believes_the_file_and_not_an_edited_status(
    rig: Rig, edit: Callable[[dict[str, Any]], None]
) -> None:
    """Promise 7."""
    before = rig.kernel.snapshot()
    rig.wish({"offload": wish(OFFLOAD)})
    stores = list(rig.stores)
    edit(rig.object["status"])

    rig.restart()
    rig.settle()
    assert rig.stores == stores
    assert rig.knob("offload.channels")["baseline"] == "1"

    rig.wish({"offload": wish(OFFLOAD, mode="Restore")})
    assert rig.kernel.snapshot() == before


def test_our_own_writes_are_no_edits_however_late_the_watch_brings_them(rig: Rig) -> None:
    """Promise 12."""
    rig.wish({"offload": wish(OFFLOAD)})
    late = copy.deepcopy(rig.object)
    rig.wish({"offload": wish({**OFFLOAD, "channels": 2})})
    rig.pass_time(1)
    late["spec"] = rig.object["spec"]
    late["metadata"] = rig.object["metadata"]
    sent = rig.sent

    rig.send(StateSeen(late))

    assert rig.sent == sent


class Defaulting(Rig):
    """An API server that keeps something else than it is told, behind a watch that is slower than its answers."""

    def _take(self, status: dict[str, Any]) -> None:
        super()._take({**status, "offload": "as a webhook likes it"})
        self._events[-2:] = reversed(self._events[-2:])


def test_an_api_server_that_keeps_something_else_is_told_once_more(tmp_path: Path) -> None:
    """Promise 12: an admission webhook, or a field that a newer CRD defaults, must not make a storm."""
    rig = Defaulting(tmp_path)

    rig.wish({"offload": wish(OFFLOAD)})

    assert rig.sent <= 4


@pytest.mark.parametrize("edit", [without_baselines, cleared], ids=lambda edit: edit.__name__)
def test_no_knob_is_written_while_the_status_lacks_a_baseline(rig: Rig, edit: Callable[[dict[str, Any]], None]) -> None:
    """Promise 1: also when somebody takes it away between two writes of a change."""
    rig.holds = WriteKnob
    rig.wish({"offload": wish(OFFLOAD)})
    rig.answer = ApplyResult(ApplyKind.RETRY, "no answer")
    edit(rig.object["status"])
    see(rig)

    rig.release()
    assert rig.stores == [("nr_dma_chan", "4")]

    rig.answer = APPLIED
    rig.pass_time(60)
    assert rig.kernel.snapshot().offloading


# --- the node state goes


def test_a_node_state_that_went_and_came_while_a_knob_was_written_is_served(rig: Rig) -> None:
    """Promise 13: the change waited for a report that nobody could make, and nothing was done until a restart."""
    rig.wish({"demotion": wish({"enabled": True}), "balancing": wish({"mode": "Normal"})})
    rig.holds = WriteKnob
    rig.wish({"demotion": wish({"enabled": False}), "balancing": wish({"mode": "Tiering"})})
    assert rig.held

    rig.delete_state()
    rig.wish({"demotion": wish({"enabled": True})})
    rig.release()
    rig.pass_time(60)

    assert rig.group("demotion")["state"] == "Ready"
    assert rig.status["observedRevision"] == rig.object["spec"]["revision"]


@pytest.mark.parametrize("watched", [True, False], ids=["deletion seen", "deletion missed"])
@pytest.mark.parametrize("mode", ["Apply", "Restore"])
def test_a_node_state_deleted_in_mid_change_stops_it_and_forgets_nothing(rig: Rig, mode: str, watched: bool) -> None:
    """Promises 1 and 13: one home of the baselines is gone, and nobody asks for anything."""
    before = rig.kernel.snapshot()
    if mode == "Restore":
        rig.wish({"offload": wish(OFFLOAD)})
    held = {"offload.channels": "1", "offload.engine": "0", "offload.reasons": ",".join(before.reasons)}
    rig.holds = WriteKnob
    rig.wish({"offload": wish(OFFLOAD, mode=mode)})
    rig.object = {"metadata": {"name": "node-a", "uid": "state-2", "generation": 1}, "spec": {}}
    if watched:
        rig.send(StateGone())
        rig.release()
    stores = len(rig.stores) + (not watched)

    see(rig)
    rig.release()
    rig.pass_time(60)
    assert len(rig.stores) == stores
    assert set(on_file(rig).values) == set(held)
    assert all(rig.knob(name).get("baseline") for name in held)

    rig.wish({"offload": wish(OFFLOAD, mode=mode)})
    if mode == "Apply":
        assert rig.kernel.snapshot().offloading
        rig.wish({"offload": wish(OFFLOAD, mode="Restore")})
    assert rig.kernel.snapshot() == before
    assert on_file(rig) == Baselines(before.boot_id)


def test_a_knob_written_right_before_its_node_state_went_keeps_its_baseline(rig: Rig) -> None:
    """Promise 7: our own value is not taken for one that somebody set before us."""
    before = rig.kernel.snapshot()
    rig.holds = WriteKnob
    rig.wish({"balancing": wish({"promoteRateLimitMBps": 2048})})
    rig.send(StateGone())
    rig.release()

    rig.wish({"balancing": wish({"promoteRateLimitMBps": 1024})})
    assert rig.kernel.snapshot().promote_rate_limit == 1024
    rig.wish({"balancing": wish({"promoteRateLimitMBps": 1024}, mode="Restore")})

    assert rig.kernel.snapshot() == before


def test_the_baselines_are_in_the_new_node_state_before_a_write(rig: Rig) -> None:
    """Promise 1."""
    rig.wish({"offload": wish(OFFLOAD)})
    stores = list(rig.stores)
    rig.delete_state()
    rig.answer = ApplyResult(ApplyKind.RETRY, "no answer")

    rig.wish({"offload": wish({**OFFLOAD, "channels": 2})})
    rig.pass_time(60)
    assert rig.stores == stores

    rig.answer = APPLIED
    rig.pass_time(60)
    assert rig.kernel.snapshot().nr_dma_chan == 2


# --- the CRD is another one


def test_a_crd_that_does_not_take_the_status_is_shown_in_what_it_takes(rig: Rig) -> None:
    rig.answer = SKEW
    rig.wish({"demotion": wish({"enabled": True}, mode="Hold")})

    rig.answer = APPLIED
    rig.wish({"demotion": wish({"enabled": False}, mode="Hold")})

    reasons = [row["reason"] for row in rig.reports[-2]["conditions"] if row["type"] == "Degraded"]
    assert reasons == ["VersionSkew"]
    assert rig.condition("Degraded")["status"] == "False"


def test_a_crd_that_was_mended_gets_the_status_within_the_report_interval(rig: Rig) -> None:
    """Nobody tells the agent that CRDs were applied; it tries again at its ordinary pace."""
    rig.answer = SKEW
    rig.wish({"demotion": wish({"enabled": True}, mode="Hold")})
    sent = rig.sent
    rig.pass_time(3600)
    assert rig.sent - sent <= 3600 / rig.timing.report_min + 1

    rig.answer = APPLIED
    rig.pass_time(rig.timing.report_max)

    assert rig.group("demotion")["state"] == "Held"
    assert rig.condition("Degraded")["status"] == "False"


# --- the clock


@pytest.mark.uncounted
@pytest.mark.parametrize("jump", [YEAR, -YEAR], ids=["forward", "back"])
def test_a_clock_that_jumps_neither_hurries_nor_delays_a_report(rig: Rig, jump: timedelta) -> None:
    """Promise 12: durations are monotonic; the wall clock is for people."""
    rig.wish({"offload": wish(OFFLOAD)})
    other = Rig(rig.folder.with_name("other"))
    other.settle()
    other.wish({"offload": wish(OFFLOAD)})

    for step in range(6):
        rig.wall = START + jump * (step % 2)
        rig.pass_time(300)
        other.pass_time(300)

    assert len(rig.reports) == len(other.reports)


@pytest.mark.uncounted
@pytest.mark.parametrize("jump", [YEAR, -YEAR], ids=["forward", "back"])
def test_a_clock_that_jumps_changes_no_retry(tmp_path: Path, jump: timedelta) -> None:
    rigs = [Rig(tmp_path / name, HostConfig(other_migrator=True)) for name in ("a", "b")]
    for rig in rigs:
        rig.wish({"offload": wish(OFFLOAD)})
    rigs[0].wall = START + jump

    for rig in rigs:
        rig.pass_time(600)

    assert rigs[0].stores == rigs[1].stores


@pytest.mark.parametrize("jump", [YEAR, -YEAR], ids=["forward", "back"])
def test_a_clock_that_jumps_moves_no_transition_time(rig: Rig, jump: timedelta) -> None:
    rig.wish({"demotion": wish({"enabled": True})})
    since = {row["type"]: row["lastTransitionTime"] for row in rig.status["conditions"]}
    settled = rig.status["settledAt"]

    rig.wall = START + jump
    rig.pass_time(700)

    assert {row["type"]: row["lastTransitionTime"] for row in rig.status["conditions"]} == since
    assert rig.status["settledAt"] == settled
    told = parse_timestamp(rig.status["reportedAt"])
    assert abs(told - (rig.wall + timedelta(seconds=rig.now))) < timedelta(seconds=700)


# --- kernel files


class Trapped(FakeSysfs):
    """Something happens right before a write."""

    def __init__(self, rig: Rig, name: str, happens: Callable[[Rig], int | None]) -> None:
        super().__init__(rig.kernel)
        self._rig, self._name, self._happens = rig, name, happens

    def write(self, knob: Knob, value: Value) -> int | None:
        number = self._happens(self._rig) if knob.path.endswith(self._name) else None
        return super().write(knob, value) if number is None else number


def unload(rig: Rig) -> None:
    if rig.kernel.snapshot().loaded:
        rig.kernel.unload()


@pytest.mark.parametrize("name", ["nr_dma_chan", "reason_mask", "offloading"])
def test_a_driver_unloaded_in_mid_change_is_unsupported_and_set_anew_when_it_is_back(rig: Rig, name: str) -> None:
    """Promises 4 and 7: a new driver has none of the first half, and the baselines stand."""
    before = rig.kernel.snapshot()
    rig.sysfs = Trapped(rig, name, unload)
    rig.wish({"offload": wish(OFFLOAD)})
    rig.pass_time(31)
    assert rig.group()["reason"] == "NotLoaded"
    assert on_file(rig).open_units == {}

    rig.sysfs = None
    rig.kernel.load()
    rig.pass_time(31)

    assert rig.group()["state"] == "Ready"
    rig.wish({"offload": wish(OFFLOAD, mode="Restore")})
    assert rig.kernel.snapshot() == before


def test_a_driver_that_is_just_being_unloaded_is_named(rig: Rig) -> None:
    """Promise 11: its files are there until it has gone, and refuse; seen on 6.12."""
    rig.kernel.spoil(f"{PARAMETERS}/offloading", Spoiled(write_error=ENODEV))

    rig.wish({"offload": wish(OFFLOAD)})

    assert (rig.group()["state"], rig.group()["reason"]) == ("Failed", "NotLoaded")
    assert "the driver is being unloaded, or was just loaded anew" in rig.group()["message"]


def test_an_undo_that_failed_is_made_up_for_while_the_change_goes_on_failing(tmp_path: Path) -> None:
    """Promise 4: /sys became read-only between the write and its undo, then writable again."""
    rig = Rig(tmp_path, HostConfig(other_migrator=True))
    broken = {"now": False}

    def breaks(_rig: Rig) -> int | None:
        return EROFS if broken["now"] else None

    class BreaksAtTheSwitch(Trapped):
        def write(self, knob: Knob, value: Value) -> int | None:
            number = super().write(knob, value)
            broken["now"] |= knob.path.endswith("offloading")
            return number

    rig.sysfs = BreaksAtTheSwitch(rig, "", breaks)
    before = rig.kernel.snapshot()
    rig.wish({"offload": wish(OFFLOAD)})
    assert rig.group()["reason"] == "UndoFailed"
    assert rig.kernel.snapshot() != before

    rig.sysfs = None
    rig.pass_time(30)

    assert rig.kernel.snapshot() == before
    assert rig.group()["reason"] == "MigratorBusy"
    assert on_file(rig).open_units == {}


class BreaksEveryFirstUndo(FakeSysfs):
    """Putting the channels back fails once for each time that they were set."""

    breaks = False

    def write(self, knob: Knob, value: Value) -> int | None:
        if knob.path == CHANNELS and value == "1" and self.breaks:
            self.breaks = False
            return EROFS
        self.breaks |= knob.path == CHANNELS and value == "4"
        return super().write(knob, value)


def test_an_undo_that_is_made_up_for_does_not_hurry_the_next_try(tmp_path: Path) -> None:
    rig = Rig(tmp_path, HostConfig(other_migrator=True))
    rig.sysfs = BreaksEveryFirstUndo(rig.kernel)
    rig.wish({"offload": wish(OFFLOAD)})

    rig.pass_time(900)

    assert 2 < sum(name == "offloading" for name, _ in rig.stores) < 20


@pytest.mark.parametrize("kind", [WriteKnob, Probe, SaveBaselines])
def test_a_job_that_never_answers_keeps_no_spec_from_being_seen(rig: Rig, kind: type[Any]) -> None:
    """Promise 10: it is told; the newest spec is carried out once the file answers, and no other."""
    rig.holds = kind
    for channels in (4, 3, 2):
        rig.wish({"offload": wish({**OFFLOAD, "channels": channels})})
        rig.pass_time(60)
    assert len(rig.held) == 1
    assert rig.condition("Degraded")["reason"] == "KernelFileBlocked"

    rig.release()
    rig.pass_time(1)

    assert rig.kernel.snapshot().nr_dma_chan == 2
    assert ("nr_dma_chan", "3") not in rig.stores
    assert rig.status["observedRevision"] == rig.object["spec"]["revision"]


def test_an_answer_that_comes_after_the_node_state_has_gone_is_heard(rig: Rig) -> None:
    """Promise 10: the lane is free again, and the half that was done is known."""
    rig.holds = WriteKnob
    rig.wish({"offload": wish(OFFLOAD)})
    rig.pass_time(60)
    rig.send(StateGone())

    rig.release()
    rig.pass_time(60)

    assert rig.stores == [("nr_dma_chan", "4")]
    assert set(on_file(rig).open_units) == {"offload"}
