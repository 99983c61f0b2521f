# SPDX-License-Identifier: Apache-2.0
"""Which wishes have been in force for as long as was asked, and guardrails that are crossed meanwhile."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec import structs

from numamigration_agent.jobs import ReadCounters
from numamigration_api.machinery.canonical import wish_revision
from numamigration_api.vocabulary import MigrationReason
from tests.fakekernel.config import HostConfig, Workload
from tests.unit.agent_rig import OFFLOAD, Rig, wish
from tests.unit.live_rig import LiveRig
from tests.unit.test_agent_engine_faults import OFF_SECONDS_MAX, TRAFFIC, hang, is_off

SOAK: Final = 120
PLAIN: Final = {"offload": wish(OFFLOAD)}
DEMOTION: Final = {"demotion": wish({"enabled": True}, source={"policy": "tiering", "uid": "uid-2", "generation": 1})}
MEMORY: Final = {"metric": "memoryPressure", "max": "20", "minFolios": 512}
FOLIOS: Final = {"metric": "foliosFailedShare", "max": "0.05", "minFolios": 16}
RATE: Final = {"metric": "migrationRateDrop", "max": "0.5", "minFolios": 512}
CPU: Final = {"metric": "cpuPressure", "max": "30", "minFolios": 512}


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    rig = Rig(tmp_path, HostConfig(workloads=(Workload(MigrationReason.DAMON, folios_per_second=100),)))
    run(rig, 200)
    return rig


def run(rig: Rig, seconds: float) -> None:
    """Let time pass for agent and kernel, to the second."""
    while seconds > 0:
        rig.kernel.advance(min(1, seconds))
        rig.pass_time(min(1, seconds))
        seconds -= 1


def ask(rig: Rig, groups: dict[str, Any] | None = None, soak: int = SOAK, guardrails: tuple[Any, ...] = ()) -> None:
    rails = {"guardrails": list(guardrails)} if guardrails else {}
    rig.wish(PLAIN if groups is None else groups, observe={"soakSeconds": soak, **rails})


def is_soaked(rig: Rig, group: str = "offload") -> bool:
    """Tell whether the status says so of the wish that the spec has."""
    told = rig.group(group).get("soakedRevision")
    assert told in {None, wish_revision(rig.object["spec"]["groups"][group])}
    return told is not None


def soaked_rig(rig: Rig) -> Rig:
    ask(rig)
    run(rig, SOAK)
    assert is_soaked(rig)
    return rig


# --- when


def test_a_wish_is_soaked_once_it_was_in_force_for_as_long_as_the_spec_asks(rig: Rig) -> None:
    """Promise 8: not a second before, and told at once."""
    ask(rig)
    reports = len(rig.reports)

    run(rig, SOAK - 1)
    assert not is_soaked(rig)
    assert len(rig.reports) == reports

    run(rig, 1)
    assert is_soaked(rig)
    assert len(rig.reports) == reports + 1


@pytest.mark.parametrize("observe", [{}, {"observe": {}}, {"observe": {"soakSeconds": 0}}])
def test_without_a_soak_it_is_told_with_the_report_that_says_ready(rig: Rig, observe: dict[str, Any]) -> None:
    rig.wish(PLAIN, **observe)

    states = [(row["state"], "soakedRevision" in row) for report in rig.reports for row in groups_of(report)]
    assert set(states) == {("Pending", False), ("Ready", True)}


def groups_of(report: dict[str, Any]) -> list[dict[str, Any]]:
    return list(report.get("groups", {}).values())


@pytest.mark.parametrize("seconds", [1, 5, SOAK])
def test_the_end_of_a_soak_is_told_with_numbers_of_the_whole_soak(rig: Rig, seconds: int) -> None:
    """Also of one that is shorter than the statistics window."""
    ask(rig, soak=seconds)
    assert "after" not in rig.status["window"]

    run(rig, seconds)

    assert is_soaked(rig)
    after = rig.status["window"]["after"]
    assert after["seconds"] == str(seconds)
    assert after["foliosMigrated"] == 100 * seconds


def test_a_soak_that_is_shortened_ends_at_once_when_it_was_long_enough_already(rig: Rig) -> None:
    ask(rig)
    run(rig, 60)

    ask(rig, soak=30)

    assert is_soaked(rig)


def test_what_was_asked_is_not_soaked_while_it_is_not_in_force(rig: Rig) -> None:
    """Promise 8: the clock begins when the kernel holds what is wished."""
    ask(rig, {"offload": wish(OFFLOAD, acceptedRisks=[])})
    assert rig.group()["state"] == "Refused"

    run(rig, 2 * SOAK)

    assert not is_soaked(rig)


# --- whose


def test_the_clock_of_a_group_goes_on_when_another_group_is_wished(rig: Rig) -> None:
    ask(rig)
    run(rig, 60)
    ask(rig, PLAIN | DEMOTION)

    run(rig, 59)
    assert (is_soaked(rig), is_soaked(rig, "demotion")) == (False, False)
    run(rig, 1)
    assert (is_soaked(rig), is_soaked(rig, "demotion")) == (True, False)
    assert rig.status["window"]["after"]["seconds"] == str(SOAK)
    run(rig, 60)
    assert (is_soaked(rig), is_soaked(rig, "demotion")) == (True, True)
    assert rig.status["window"]["after"]["seconds"] == str(SOAK)


def test_what_was_before_stays_while_an_earlier_change_soaks(rig: Rig) -> None:
    """Numbers that a change may have moved already are none of before it."""
    ask(rig)
    before = rig.status["window"]["before"]
    run(rig, 60)

    ask(rig, PLAIN | DEMOTION)
    assert rig.status["window"]["before"] == before

    run(rig, 2 * SOAK)
    ask(rig, PLAIN)
    assert rig.status["window"]["before"] != before


@pytest.mark.parametrize(
    "other", [wish({**OFFLOAD, "channels": 2}), wish(OFFLOAD, verification="FirstUse"), wish(OFFLOAD, drift="Ignore")]
)
def test_another_wish_for_the_group_begins_anew(rig: Rig, other: dict[str, Any]) -> None:
    """Promise 8: also one that takes no write."""
    ask(rig)
    run(rig, SOAK - 1)

    ask(rig, {"offload": other})
    run(rig, SOAK - 1)
    assert not is_soaked(rig)

    run(rig, 1)
    assert is_soaked(rig)


def test_what_was_changed_by_somebody_else_meanwhile_begins_anew(rig: Rig) -> None:
    """Promise 8: it was not in force for as long as was asked."""
    ask(rig)
    run(rig, 60)
    rig.kernel.drift("/sys/module/dcbm/parameters/nr_dma_chan", "1")
    run(rig, 20)
    assert rig.knob("offload.channels")["observed"] == "4"

    run(rig, SOAK - 20)
    assert not is_soaked(rig)
    run(rig, 20)
    assert is_soaked(rig)


def test_a_restart_begins_anew_what_was_not_soaked_yet(rig: Rig) -> None:
    """Promise 8: nobody knows what was in force while no agent ran."""
    ask(rig)
    run(rig, SOAK - 1)

    rig.restart()
    run(rig, SOAK - 1)
    assert not is_soaked(rig)
    run(rig, 1)
    assert is_soaked(rig)


def test_what_is_held_in_mid_soak_begins_anew(rig: Rig) -> None:
    ask(rig)
    run(rig, SOAK - 1)

    ask(rig, {"offload": wish(OFFLOAD, mode="Hold")})
    run(rig, SOAK)
    assert not is_soaked(rig)

    ask(rig)
    run(rig, SOAK - 1)
    assert not is_soaked(rig)


def test_an_engine_that_lost_its_trust_is_not_soaked_while_its_turn_off_waits(tmp_path: Path) -> None:
    """Promise 8: between two looks at the kernel too."""
    rig = LiveRig(tmp_path / "state", HostConfig(workloads=(TRAFFIC,)))
    rig.settle()
    ask(rig)
    end = rig.now + SOAK
    rig.pass_time(SOAK - 8)
    hang(rig)

    rig.until(lambda: rig.now > end, SOAK, step=0.1)
    assert not is_off(rig)
    assert (rig.group()["reason"], is_soaked(rig)) == ("EngineStalled", False)

    rig.until(lambda: is_off(rig), OFF_SECONDS_MAX)
    assert not is_soaked(rig)


# --- how long it is known


def test_a_soaked_wish_stays_so_when_it_is_held_and_when_it_goes_on(rig: Rig) -> None:
    soaked_rig(rig)

    ask(rig, {"offload": wish(OFFLOAD, mode="Hold")})
    assert (rig.group()["state"], is_soaked(rig)) == ("Held", True)
    ask(rig)
    assert (rig.group()["state"], is_soaked(rig)) == ("Ready", True)


def test_an_edit_that_changes_nothing_here_leaves_it_soaked(rig: Rig) -> None:
    soaked_rig(rig)

    ask(rig, {"offload": wish(OFFLOAD, source={"policy": "database", "uid": "uid-1", "generation": 2})})

    assert is_soaked(rig)


@pytest.mark.parametrize("reboots", [False, True])
def test_a_soaked_wish_stays_so_over_restarts_and_reboots(rig: Rig, reboots: bool) -> None:
    soaked_rig(rig)
    reports = len(rig.reports)

    if reboots:
        rig.kernel.reboot()
    rig.restart()
    run(rig, 20)

    assert rig.kernel.snapshot().offloading
    assert all("soakedRevision" in row for report in rig.reports[reports:] for row in groups_of(report))
    assert is_soaked(rig)


@pytest.mark.parametrize("restarts", [False, True])
def test_another_wish_is_not_soaked_since_an_earlier_one_was(rig: Rig, restarts: bool) -> None:
    """Promise 8: the mark is of a wish, not of a group."""
    soaked_rig(rig)

    if restarts:
        rig.restart()
    ask(rig, {"offload": wish({**OFFLOAD, "channels": 2})})
    run(rig, SOAK - 1)
    assert "soakedRevision" not in rig.group()

    ask(rig)
    assert "soakedRevision" not in rig.group()


@pytest.mark.parametrize("meanwhile", [{}, {"offload": wish(OFFLOAD, mode="Restore")}])
def test_a_wish_that_ended_and_came_back_soaks_again(rig: Rig, meanwhile: dict[str, Any]) -> None:
    """Promise 8."""
    soaked_rig(rig)

    ask(rig, meanwhile)
    run(rig, 20)
    ask(rig)

    assert not is_soaked(rig)


@pytest.mark.parametrize("word", [None, 7, "", "0123456789abcdef"])
def test_a_mark_in_the_status_that_is_not_of_the_wish_is_worth_nothing(rig: Rig, word: object) -> None:
    ask(rig)
    rig.status["groups"]["offload"]["soakedRevision"] = word

    rig.restart()
    run(rig, 20)

    assert not is_soaked(rig)


def test_a_wish_whose_source_is_no_object_is_never_soaked(rig: Rig) -> None:
    ask(rig)
    run(rig, 1)
    rig.object["spec"]["groups"] = {"offload": {**wish(OFFLOAD), "source": "database"}}

    rig.restart()
    run(rig, 2 * SOAK)

    assert "soakedRevision" not in rig.group()


# --- guardrails


def test_a_guardrail_that_becomes_crossed_is_told_at_once_with_the_numbers_so_far(rig: Rig) -> None:
    """Promise 8: a canary that goes wrong stops the rollout before its soak is over."""
    ask(rig, soak=300, guardrails=(MEMORY,))
    run(rig, 50)
    reports = len(rig.reports)
    assert "after" not in rig.status["window"]

    rig.kernel.set_pressure("memory", 0.25)
    run(rig, 40)

    assert len(rig.reports) == reports + 1
    after = rig.status["window"]["after"]
    assert 45 <= float(after["seconds"]) <= 75
    assert float(after["memoryPressure"]) > 20
    assert not is_soaked(rig)


@pytest.mark.parametrize(
    ("folios_per_second", "is_told"), [pytest.param(40, True, id="by more"), pytest.param(60, False, id="by less")]
)
def test_migrations_that_fall_by_more_than_half_after_a_change_are_told(
    rig: Rig, folios_per_second: int, is_told: bool
) -> None:
    rig.kernel.set_workloads([Workload(MigrationReason.DAMON, folios_per_second)])
    ask(rig, soak=300, guardrails=(RATE,))

    run(rig, 100)

    assert ("after" in rig.status["window"]) is is_told


def test_a_guardrail_that_stays_crossed_is_not_told_again_and_another_one_is(rig: Rig) -> None:
    """Promise 12."""
    ask(rig, soak=300, guardrails=(MEMORY, CPU))
    rig.kernel.set_pressure("memory", 0.4)
    run(rig, 60)
    told = rig.status["window"]["after"]
    reports = len(rig.reports)

    run(rig, 60)
    assert len(rig.reports) == reports
    assert rig.status["window"]["after"] == told

    rig.kernel.set_pressure("cpu", 0.4)
    run(rig, 60)
    assert len(rig.reports) == reports + 1
    assert float(rig.status["window"]["after"]["cpuPressure"]) > 30


def test_what_is_not_crossed_is_not_told_before_the_end_of_the_soak(rig: Rig) -> None:
    ask(rig, guardrails=(MEMORY, CPU))
    reports = len(rig.reports)

    run(rig, SOAK - 1)
    assert len(rig.reports) == reports
    run(rig, 1)
    assert rig.status["window"]["after"]["seconds"] == str(SOAK)


def test_while_a_guardrail_is_crossed_no_soak_ends(rig: Rig) -> None:
    """Promise 8: nobody takes for proven what went wrong while it was watched."""
    ask(rig, soak=120, guardrails=(MEMORY,))
    rig.kernel.set_pressure("memory", 0.4)

    run(rig, 300)

    assert "after" in rig.status["window"]
    assert not is_soaked(rig)


def test_a_new_revision_in_mid_soak_is_told_what_is_crossed_too(rig: Rig) -> None:
    """The operator judges by the window of the revision that it wrote last."""
    ask(rig, soak=300, guardrails=(MEMORY,))
    rig.kernel.set_pressure("memory", 0.4)
    run(rig, 60)

    ask(rig, PLAIN | DEMOTION, soak=300, guardrails=(MEMORY,))
    run(rig, 31)

    assert rig.status["window"]["revision"] == rig.object["spec"]["revision"]
    assert float(rig.status["window"]["after"]["seconds"]) >= 60


def test_what_was_over_the_limit_before_the_change_is_not_told(rig: Rig) -> None:
    rig.kernel.set_pressure("memory", 0.4)
    run(rig, 300)
    ask(rig, guardrails=(MEMORY,))
    reports = len(rig.reports)

    run(rig, SOAK - 1)

    assert len(rig.reports) == reports


@pytest.mark.parametrize(("soak", "apart"), [(300, 10), (60, 6), (5, 1)])
def test_counters_are_read_often_enough_for_guardrails(tmp_path: Path, soak: int, apart: float) -> None:
    """The tenth part of the soak, at most the statistics window (10 s here), at least a second."""
    rig = LiveRig(tmp_path / "state")
    rig.settle()
    rig.pass_time(20)
    begun = rig.now
    ask(rig, {"demotion": wish({"enabled": True})}, soak=soak, guardrails=(MEMORY,))
    rig.pass_time(soak)

    reads = [at - begun for at in rig.began(ReadCounters, begun)]
    assert max(later - earlier for earlier, later in pairwise(reads)) <= apart + 0.001
    assert len(reads) <= soak / apart + 2


def test_nobody_who_asks_for_no_guardrail_has_counters_read_more_often(tmp_path: Path) -> None:
    rig = LiveRig(tmp_path / "state")
    rig.settle()
    rig.pass_time(20)
    begun = rig.now

    ask(rig, {"demotion": wish({"enabled": True})}, soak=60)
    rig.pass_time(60)

    assert len(rig.began(ReadCounters, begun)) <= 60 / 10 + 2


@pytest.mark.parametrize("trouble", [{"hangs": True}, {"error_share": 1.0}])
def test_pages_of_a_trial_cross_no_guardrail_of_another_group(tmp_path: Path, trouble: dict[str, Any]) -> None:
    """Nor do they keep its soak from its end: what an engine does in a trial says nothing about demotion."""
    engines = (structs.replace(HostConfig().engines[0], **trouble), *HostConfig().engines[1:])
    rig = LiveRig(tmp_path / "state", HostConfig(engines=engines))
    rig.settle()
    rig.wish(DEMOTION, observe={"soakSeconds": SOAK, "guardrails": [FOLIOS]})
    rig.pass_time(30)

    tried = {"offload": wish(OFFLOAD, verification="FirstUse")}
    rig.wish(DEMOTION | tried, observe={"soakSeconds": SOAK, "guardrails": [FOLIOS]})
    rig.pass_time(60)
    assert "after" not in rig.status["window"]
    rig.pass_time(SOAK - 90 + 1)

    assert is_soaked(rig, "demotion")
    assert rig.status["statistics"]["foliosFailed"] > 16
    assert rig.status["window"]["after"]["foliosFailed"] == 0
