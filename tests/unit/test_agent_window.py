# SPDX-License-Identifier: Apache-2.0
"""Numbers before and after a change, by which an operator judges it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from numamigration_agent.change import WriteKnob
from numamigration_agent.statistics import Statistics, add_sample
from numamigration_agent.window import advance_window, begin_window, window_json
from numamigration_api.machinery.records import replace
from numamigration_api.vocabulary import MigrationReason
from tests.fakekernel.config import HostConfig, Workload
from tests.unit.agent_rig import OFFLOAD, Rig, wish

REVISION = "0123456789abcdef"
STEP = 10.0
SOAK = 120


def sampled(seconds: float, *, begin: float = 0.0, known: Statistics | None = None, **per_second: int) -> Statistics:
    """Return the statistics after samples each ten seconds, with counters that grow evenly."""
    statistics = known or Statistics()
    for number in range(int(seconds / STEP) + 1):
        at = begin + number * STEP
        counters = {name: int(at * rate) for name, rate in per_second.items()}
        statistics = add_sample(statistics, at=at, counters=counters, window_seconds=STEP)
    return statistics


def test_before_is_what_the_last_minutes_brought() -> None:
    known = replace(sampled(1000, pages_migrated=3, folios_migrated=1), pressures={"memory_pressure": "1.50"})

    before = begin_window(REVISION, known).before

    assert before is not None
    seconds = int(before["seconds"])
    assert 270 <= seconds <= 330
    assert before == {
        "seconds": str(seconds),
        "pagesMigrated": 3 * seconds,
        "foliosMigrated": seconds,
        "memoryPressure": "1.50",
    }


@pytest.mark.parametrize("known", [Statistics(), sampled(0, pages_migrated=1)], ids=["no sample", "one sample"])
def test_without_two_samples_there_is_no_before(known: Statistics) -> None:
    assert window_json(begin_window(REVISION, known)) == {"revision": REVISION}


def test_a_counter_that_came_within_the_window_is_not_told_as_if_it_had_always_been_there() -> None:
    known = sampled(100, pages_migrated=1)
    known = sampled(100, begin=110, known=known, pages_migrated=1, folios_migrated=1)

    assert begin_window(REVISION, known).before == {"seconds": "210", "pagesMigrated": 210}


def test_after_begins_once_the_revision_is_in_force_and_is_told_when_it_is_long_enough() -> None:
    window, known = begin_window(REVISION, Statistics()), Statistics()
    for at in range(0, 200, 10):
        known = add_sample(known, at=at, counters={"folios_migrated": at}, window_seconds=STEP)
        window = advance_window(window, known, in_force=at >= 50, seconds=100)
        assert (window.after is not None) == (at >= 150)

    assert window.after == {"seconds": "100", "foliosMigrated": 100}


def test_what_is_not_in_force_any_more_is_watched_anew() -> None:
    window, known = begin_window(REVISION, Statistics()), Statistics()
    for at in range(0, 200, 10):
        known = add_sample(known, at=at, counters={}, window_seconds=STEP)
        window = advance_window(window, known, in_force=at != 60, seconds=100)
        assert (window.after is not None) == (at >= 170)


# --- the agent


def busy_rig(folder: Path) -> Rig:
    config = HostConfig(workloads=(Workload(MigrationReason.DAMON, folios_per_second=100),))
    rig = Rig(folder, config)
    run(rig, 200)
    return rig


def run(rig: Rig, seconds: int) -> None:
    for _ in range(seconds // 10):
        rig.kernel.advance(10)
        rig.pass_time(10)


def ask(rig: Rig, soak_seconds: int = SOAK) -> None:
    rig.wish({"offload": wish(OFFLOAD)}, observe={"soakSeconds": soak_seconds})


def window(rig: Rig) -> dict[str, Any]:
    found: dict[str, Any] = rig.status["window"]
    return found


def test_a_change_is_told_with_the_numbers_of_before_and_at_the_end_of_its_soak_with_those_of_after(
    tmp_path: Path,
) -> None:
    rig = busy_rig(tmp_path)

    ask(rig)
    assert window(rig)["revision"] == rig.object["spec"]["revision"]
    assert (window(rig)["before"]["foliosMigrated"], "after" in window(rig)) == (0, False)
    assert window(rig)["before"]["pagesMigrated"] > 0
    reports = len(rig.reports)
    run(rig, SOAK - 1)
    assert len(rig.reports) == reports
    run(rig, 20)

    assert len(rig.reports) == reports + 1
    after = window(rig)["after"]
    assert after["seconds"] == str(SOAK)
    assert after["foliosMigrated"] == pytest.approx(100 * SOAK, rel=0.05)
    assert after["memoryPressure"] == "0.00"


def test_who_asked_for_no_soak_gets_no_report_of_its_end(tmp_path: Path) -> None:
    """Promise 12."""
    rig = busy_rig(tmp_path)
    ask(rig, 0)
    reports = len(rig.reports)

    run(rig, 200)
    assert len(rig.reports) == reports

    run(rig, 600)
    assert "after" in window(rig)


def test_the_numbers_of_before_are_those_before_the_first_write(tmp_path: Path) -> None:
    rig = busy_rig(tmp_path)
    rig.holds = WriteKnob
    ask(rig)
    run(rig, 60)

    rig.release()

    assert window(rig)["before"]["foliosMigrated"] == 0
    assert int(window(rig)["before"]["seconds"]) <= 200


def test_a_window_survives_a_restart_and_its_after_is_watched_anew(tmp_path: Path) -> None:
    rig = busy_rig(tmp_path)
    ask(rig)
    before = window(rig)["before"]
    run(rig, SOAK // 2)

    rig.restart()
    run(rig, SOAK - 20)
    assert "after" not in window(rig)
    run(rig, 40)

    assert window(rig)["before"] == before
    assert window(rig)["after"]["seconds"] == str(SOAK)


def test_an_agent_that_starts_with_a_new_revision_makes_up_no_before(tmp_path: Path) -> None:
    rig = Rig(tmp_path)

    ask(rig)

    assert window(rig) == {"revision": rig.object["spec"]["revision"]}


def test_a_node_that_nobody_wants_anything_of_has_no_window(tmp_path: Path) -> None:
    assert "window" not in busy_rig(tmp_path).status
