# SPDX-License-Identifier: Apache-2.0
"""A driver that is unloaded and loaded again while an agent runs, or while none does (docs/decisions/0019)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from numamigration_agent.baseline import FILE_NAME
from numamigration_agent.change import ReadKnob, SaveBaselines, WriteKnob
from numamigration_agent.jobs import Job
from numamigration_api.vocabulary import Dialect
from tests.fakekernel.config import HostConfig
from tests.unit.agent_rig import OFFLOAD, Rig, wish

DRIVER = "/sys/module/dcbm/parameters"
RESTORE = {"offload": wish(OFFLOAD, mode="Restore")}
LOOK = 20.0  # seconds; more than the time between two looks


def load_anew(rig: Rig, **parameters: str) -> None:
    """Do what an administrator does; offload has to be off for that."""
    rig.kernel.drift(f"{DRIVER}/offloading", "0")
    rig.kernel.unload()
    rig.kernel.load(parameters)


def channels(rig: Rig) -> int:
    return rig.kernel.snapshot().nr_dma_chan


def nothing_between(_rig: Rig) -> None:
    """The agent lives on."""


@pytest.mark.parametrize("between", [nothing_between, Rig.restart], ids=["same agent", "another agent"])
def test_after_a_load_the_wish_is_applied_again_and_restore_gives_back_what_that_load_brought(
    tmp_path: Path, between: Callable[[Rig], None]
) -> None:
    """Promise 7: what stood there in the former life went with it."""
    rig = Rig(tmp_path)
    rig.wish({"offload": wish(OFFLOAD)})
    assert rig.knob("offload.channels")["baseline"] == "1"

    load_anew(rig, nr_dma_chan="2")
    between(rig)
    rig.pass_time(LOOK)

    assert (channels(rig), rig.status["offload"]) == (4, "DMA, 4 channels")
    assert rig.knob("offload.channels")["baseline"] == "2"
    rig.wish(RESTORE)
    assert (channels(rig), rig.status["offload"]) == (2, "Off")


def test_what_a_load_brings_is_no_drift(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.wish({"offload": wish(OFFLOAD, drift="Report")})

    load_anew(rig)
    rig.pass_time(LOOK)

    assert rig.status["offload"] == "DMA, 4 channels"
    assert rig.condition("Drifted")["reason"] == "AsExpected"


def test_a_load_between_plan_and_write_makes_no_value_of_ours_a_value_of_before(tmp_path: Path) -> None:
    """Promise 7: else the next look would find our value in a new life, and take it for what was there."""
    rig = Rig(tmp_path, holds=WriteKnob)
    rig.wish({"offload": wish(OFFLOAD)})

    rig.kernel.unload()
    rig.kernel.load()
    rig.release()
    rig.pass_time(2 * LOOK)

    assert rig.status["offload"] == "DMA, 4 channels"
    rig.wish(RESTORE)
    assert (channels(rig), rig.status["offload"]) == (1, "Off")


def failed_reports(rig: Rig) -> list[str]:
    groups = (group for report in rig.reports for group in report.get("groups", {}).values())
    return [group["message"] for group in groups if group["state"] == "Failed"]


@pytest.mark.parametrize("held", [SaveBaselines, ReadKnob, WriteKnob])
@pytest.mark.parametrize("brought", ["1", "2", "4"])
def test_a_load_in_the_middle_of_a_change_is_no_failure_of_the_node(
    tmp_path: Path, held: type[Job], brought: str
) -> None:
    """Promise 11: a rollout would stop or go back for it, although all that is needed is another plan."""
    rig = Rig(tmp_path, holds=held)
    rig.wish({"offload": wish(OFFLOAD)})
    assert [type(job) for _, job in rig.held] == [held]

    rig.kernel.unload()
    rig.kernel.load({"nr_dma_chan": brought})
    rig.release()
    rig.pass_time(2 * LOOK)

    assert failed_reports(rig) == []
    assert (channels(rig), rig.status["offload"]) == (4, "DMA, 4 channels")
    assert rig.knob("offload.channels")["baseline"] == brought


@pytest.mark.parametrize("held", [ReadKnob, WriteKnob])
def test_a_load_after_some_of_the_writes_leaves_nothing_to_undo(tmp_path: Path, held: type[Job]) -> None:
    """Promise 4: what was written went with its driver."""
    rig = Rig(tmp_path, holds=held)
    rig.wish({"offload": wish(OFFLOAD)})
    while channels(rig) != 4:
        rig.release(then_holds=held)

    rig.kernel.unload()
    rig.kernel.load()
    rig.release()
    rig.pass_time(2 * LOOK)

    assert failed_reports(rig) == []
    assert (channels(rig), rig.status["offload"]) == (4, "DMA, 4 channels")


def test_a_driver_that_is_loaded_again_and_again_in_the_middle_of_changes_is_said(tmp_path: Path) -> None:
    """Promise 11: once is an accident; this node never comes to rest, and somebody has to know."""
    rig = Rig(tmp_path, holds=WriteKnob)
    rig.wish({"offload": wish(OFFLOAD)})

    for _ in range(2):
        rig.kernel.unload()
        rig.kernel.load()
        rig.release(then_holds=WriteKnob)

    assert "its driver was unloaded or loaded anew meanwhile" in rig.group()["message"]
    assert (rig.group()["state"], rig.group()["reason"]) == ("Failed", "NotLoaded")


def test_changes_that_a_load_met_with_a_driver_at_rest_in_between_are_no_failure_of_the_node(tmp_path: Path) -> None:
    """Promise 11: the second accident has nothing to do with the first one."""
    rig = Rig(tmp_path, holds=WriteKnob)
    rig.wish({"offload": wish(OFFLOAD)})
    rig.kernel.unload()
    rig.release()
    rig.pass_time(LOOK)
    assert rig.group()["reason"] == "NotLoaded"

    rig.kernel.load()
    rig.holds = WriteKnob
    rig.pass_time(LOOK)
    assert [type(job) for _, job in rig.held] == [WriteKnob]
    rig.kernel.unload()
    rig.kernel.load()
    rig.release()
    rig.pass_time(2 * LOOK)

    assert failed_reports(rig) == []
    assert rig.status["offload"] == "DMA, 4 channels"


def test_a_change_that_was_left_open_in_a_former_life_is_not_undone_in_this_one(tmp_path: Path) -> None:
    """Promise 7: the options of this load are the values of before, although one of them is what was wished."""
    rig = Rig(tmp_path, holds=WriteKnob)
    rig.wish({"offload": wish(OFFLOAD)})
    assert json.loads((tmp_path / FILE_NAME).read_text())["openUnits"]

    rig.kernel.unload()
    rig.kernel.load({"nr_dma_chan": "4"})
    rig.holds = None
    rig.restart()
    rig.pass_time(LOOK)

    assert ("nr_dma_chan", "1") not in rig.stores
    rig.wish(RESTORE)
    assert channels(rig) == 4


def test_while_the_driver_is_away_nothing_is_written_and_the_status_says_so(tmp_path: Path) -> None:
    """Promise 11."""
    rig = Rig(tmp_path)
    rig.wish({"offload": wish(OFFLOAD)})
    rig.kernel.drift(f"{DRIVER}/offloading", "0")
    rig.kernel.unload()
    rig.pass_time(LOOK)

    assert (rig.group()["state"], rig.group()["reason"]) == ("Unsupported", "NotLoaded")
    assert rig.status["offload"] == "Not loaded"


def test_a_file_of_a_release_that_knew_no_lives_is_taken_for_one_of_this_life(tmp_path: Path) -> None:
    """Promise 7."""
    rig = Rig(tmp_path)
    rig.wish({"offload": wish(OFFLOAD)})
    path = tmp_path / FILE_NAME
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "lives"}))

    rig.restart()
    rig.wish(RESTORE)

    assert (channels(rig), rig.status["offload"]) == (1, "Off")


@pytest.mark.parametrize("dialect", [Dialect.V4, Dialect.V5, Dialect.V6, Dialect.F_EXT])
def test_every_driver_that_is_a_module_begins_a_new_life_when_it_is_loaded(tmp_path: Path, dialect: Dialect) -> None:
    """Promise 7."""
    rig = Rig(tmp_path, HostConfig(dialect=dialect))
    risks = ["UnverifiedEngine", "DirectIOLostWrite", "MemoryFailureOffload"]
    rig.wish({"offload": wish({"engine": "DMA", "channels": 3}, acceptedRisks=risks)})
    switch = rig.knob("offload.engine")["path"]
    number = rig.knob("offload.channels")["path"]
    first = rig.knob("offload.channels")["baseline"]

    rig.kernel.drift(switch, "0")
    rig.kernel.unload()
    rig.kernel.load()
    rig.kernel.drift(number, "2")
    rig.pass_time(LOOK)

    assert rig.knob("offload.channels")["observed"] == "3"
    assert rig.knob("offload.channels")["baseline"] == "2" != first
