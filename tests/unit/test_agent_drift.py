# SPDX-License-Identifier: Apache-2.0
"""Somebody else writes to our knobs: how often that is set back, when it is not any more, and what is told then."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from numamigration_agent.cluster import StateSeen
from numamigration_agent.drift import CORRECTIONS_MAX, QUIET_SECONDS, REST_SECONDS_MAX, DriftLog
from numamigration_agent.watch import Pause
from numamigration_api.vocabulary import Reason
from tests.unit.agent_rig import OFFLOAD, TIMING, Longest, Rig, wish

PARAMETERS = "/sys/module/dcbm/parameters"
CHANNELS = f"{PARAMETERS}/nr_dma_chan"
OFFLOADING = f"{PARAMETERS}/offloading"
REASONS = f"{PARAMETERS}/reason_mask"
LOOK = TIMING.drift_check + 0.1


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    rig = Rig(tmp_path / "state")
    rig.wish({"offload": wish(OFFLOAD)})
    return rig


def fight(rig: Rig, path: str, text: str, seconds: float = 600) -> None:
    """Be another writer who puts its value back before every look."""
    end = rig.now + seconds
    while rig.now < end:
        rig.kernel.drift(path, text)
        rig.pass_time(LOOK)


def fought(corrections: int = CORRECTIONS_MAX, every: float = 1.0) -> DriftLog:
    """Return the log of a knob that was changed again after each correction."""
    log = DriftLog("offload.channels")
    for number in range(corrections):
        log.drifted(number * every, "then")
        log.corrected(number * every, Longest())
    return log


# --- the log


def test_the_first_drift_and_one_more_are_set_back_at_once_and_later_ones_after_a_pause() -> None:
    assert fought(1).not_before == 0
    assert fought(2).not_before > 1 + 5
    assert "2 times" in str(fought(2))


def test_a_quiet_while_forgets_earlier_drift() -> None:
    log = fought(3)

    log.drifted(2 + QUIET_SECONDS + 1, "now")
    log.corrected(2 + QUIET_SECONDS + 1, Longest())

    assert (log.corrections, log.since) == (1, "now")
    assert log.not_before == 2 + QUIET_SECONDS + 1


def test_a_knob_that_was_changed_again_after_every_correction_is_contended() -> None:
    assert not fought(CORRECTIONS_MAX - 1).contended(CORRECTIONS_MAX)
    assert fought().contended(CORRECTIONS_MAX)


def test_corrections_with_long_quiet_between_them_are_no_contention() -> None:
    log = fought(3 * CORRECTIONS_MAX, every=QUIET_SECONDS + 1)

    assert not log.contended(log.last_at)


def test_a_contended_knob_is_tried_again_after_a_quiet_while_and_once_only() -> None:
    log = fought()
    log.drifted(log.last_at + 1, "later")
    again = log.last_at + QUIET_SECONDS + 1
    assert not log.contended(again)

    log.corrected(again, Longest())
    log.drifted(again + 1, "later")

    assert log.contended(again + 1)
    assert (log.corrections, log.since) == (CORRECTIONS_MAX + 1, "then")


# --- the agent


def test_a_writer_who_does_not_give_up_keeps_the_knob_and_a_person_is_told(rig: Rig) -> None:
    """Promise 11: what is not as asked has failed, and who fights over it must be found by a person."""
    fight(rig, CHANNELS, "1")

    assert rig.kernel.snapshot().nr_dma_chan == 1
    assert [store for store in rig.stores if store == ("nr_dma_chan", "4")] == [("nr_dma_chan", "4")] * 6
    assert (rig.group()["state"], rig.group()["reason"]) == ("Failed", "Contended")
    assert rig.condition("Drifted")["status"] == "True"
    assert {rig.condition(name)["reason"] for name in ("Drifted", "Degraded", "Ready")} == {"Contended"}
    message = rig.group()["message"]
    assert message.startswith("offload.channels: 4 is wished, 1 is there; set back 5 times since 2026-01-02T03:2")
    assert message.endswith("left as it is for 900 s or until the spec changes")
    assert (rig.knob("offload.channels")["reason"], rig.knob("offload.channels")["observed"]) == ("Contended", "1")


def test_who_is_left_alone_costs_no_write_and_no_report(rig: Rig) -> None:
    """Promise 12."""
    fight(rig, CHANNELS, "1", seconds=200)
    stores, reports = len(rig.stores), len(rig.reports)

    fight(rig, CHANNELS, "1", seconds=200)

    assert len([store for store in rig.stores[stores:] if store[1] != "1"]) == 0
    assert len(rig.reports) <= reports + 1


def test_a_contended_knob_is_set_back_once_its_other_writer_has_gone(rig: Rig) -> None:
    fight(rig, CHANNELS, "1")

    rig.pass_time(QUIET_SECONDS)

    assert rig.kernel.snapshot().nr_dma_chan == 4
    assert rig.group()["state"] == "Ready"


@pytest.mark.uncounted
def test_a_fight_without_end_costs_a_write_now_and_then_and_more_and_more_seldom(rig: Rig) -> None:
    fight(rig, CHANNELS, "1", seconds=8 * QUIET_SECONDS)

    ours = [store for store in rig.stores if store == ("nr_dma_chan", "4")]
    assert len(ours) == 1 + CORRECTIONS_MAX + 3  # after 1, 1 + 2 and 1 + 2 + 4 quiet whiles
    assert "left as it is for 7200 s" in rig.group()["message"]


def test_a_contended_knob_is_tried_for_ever() -> None:
    log = fought()
    for _ in range(30):
        log.drifted(log.last_at + 1, "later")
        log.corrected(log.last_at + REST_SECONDS_MAX + 1, Longest())
        assert log.contended(log.last_at + QUIET_SECONDS)
        assert not log.contended(log.last_at + REST_SECONDS_MAX + 1)


def test_a_new_wish_takes_the_fight_up_again(rig: Rig) -> None:
    fight(rig, CHANNELS, "1")

    rig.wish({"offload": wish({**OFFLOAD, "channels": 2})})

    assert rig.kernel.snapshot().nr_dma_chan == 2
    assert rig.group()["state"] == "Ready"
    fight(rig, CHANNELS, "1", seconds=LOOK)
    assert rig.kernel.snapshot().nr_dma_chan == 2


def test_another_leader_alone_does_not_take_the_fight_up_again(rig: Rig) -> None:
    """The object's generation grows with the leader's epoch; the wish is the same."""
    fight(rig, CHANNELS, "1")
    rig.object["metadata"]["generation"] += 1

    rig.send(StateSeen(copy.deepcopy(rig.object)))
    rig.pass_time(LOOK)

    assert rig.kernel.snapshot().nr_dma_chan == 1


def test_a_restarted_agent_does_not_take_the_fight_up_again(rig: Rig) -> None:
    """An agent that crashes each minute would fight for ever."""
    fight(rig, CHANNELS, "1")
    told = rig.condition("Drifted")["lastTransitionTime"]

    rig.restart()
    fight(rig, CHANNELS, "1", seconds=QUIET_SECONDS / 2)

    assert rig.kernel.snapshot().nr_dma_chan == 1
    assert rig.group()["reason"] == "Contended"
    assert told in rig.group()["message"]
    rig.pass_time(QUIET_SECONDS)
    assert rig.kernel.snapshot().nr_dma_chan == 4


def test_the_other_knobs_of_a_contended_group_are_still_set_back(rig: Rig) -> None:
    fight(rig, CHANNELS, "1")
    rig.kernel.drift(REASONS, "demotion")

    rig.pass_time(LOOK)

    assert rig.kernel.snapshot().reasons == ("demotion", "damon")
    assert rig.kernel.snapshot().nr_dma_chan == 1


@pytest.mark.uncounted
def test_an_engine_that_somebody_turns_on_is_turned_off_without_end(rig: Rig) -> None:
    """Promise 17: the way off is never given up; only its pauses grow."""
    rig.wish({"offload": wish({"engine": "Off"})})
    turned_off = rig.stores.count(("offloading", "0"))

    fight(rig, OFFLOADING, "1", seconds=2 * 3600)

    assert rig.stores.count(("offloading", "0")) - turned_off > 2 * 3600 / 400
    assert rig.group()["state"] != "Failed"
    rig.pass_time(400)
    assert not rig.kernel.snapshot().offloading


def test_an_engine_that_somebody_turns_on_against_a_veto_is_turned_off_at_each_look(rig: Rig) -> None:
    """Promise 15."""
    rig.agent._watchdog.watch.pause = Pause(Reason.ENGINE_STALLED, "it moved nothing", float("inf"), 1)
    rig.pass_time(LOOK)

    for _ in range(3 * CORRECTIONS_MAX):
        rig.kernel.drift(OFFLOADING, "1")
        rig.pass_time(LOOK)
        assert not rig.kernel.snapshot().offloading
    assert rig.group()["reason"] == "EngineStalled"


def test_offload_goes_off_while_another_writer_has_more_reasons_offloaded_than_asked(rig: Rig) -> None:
    """Promise 3: the node cannot restrict who is offloaded."""
    fight(rig, REASONS, "all")

    assert not rig.kernel.snapshot().offloading
    assert (rig.group()["state"], rig.group()["reason"]) == ("Failed", "Contended")
    assert "offload is off" in rig.group()["message"]
    assert rig.condition("Drifted")["reason"] == "Contended"
    rig.pass_time(QUIET_SECONDS)
    assert rig.kernel.snapshot().offloading
    assert rig.kernel.snapshot().reasons == ("demotion", "damon")


def test_offload_stays_on_while_another_writer_has_fewer_reasons_offloaded_than_asked(rig: Rig) -> None:
    fight(rig, REASONS, "demotion")

    assert rig.kernel.snapshot().offloading
    assert rig.group()["reason"] == "Contended"


@pytest.mark.parametrize(("drift", "reason"), [("Report", "DriftDetected"), ("Ignore", "AsExpected")])
def test_who_does_not_correct_does_not_fight(rig: Rig, drift: str, reason: str) -> None:
    rig.wish({"offload": wish(OFFLOAD, drift=drift)})

    fight(rig, CHANNELS, "1")

    assert (rig.group()["state"], rig.group()["reason"]) == ("Ready", reason)


def test_corrections_are_counted_and_the_count_survives_a_restart(tmp_path: Path) -> None:
    rig = Rig(tmp_path, timing=TIMING._replace(report_min=20, report_max=20))
    rig.wish({"offload": wish(OFFLOAD)})
    assert corrections(rig) == 0

    rig.kernel.drift(CHANNELS, "1")
    rig.kernel.drift(REASONS, "demotion")
    rig.pass_time(40)
    assert corrections(rig) == 2

    rig.restart()
    rig.kernel.drift(CHANNELS, "1")
    rig.pass_time(40)
    assert corrections(rig) == 3


def corrections(rig: Rig) -> Any:
    return rig.status["statistics"]["driftCorrections"]
