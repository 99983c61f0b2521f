# SPDX-License-Identifier: Apache-2.0
"""A probe of settings in the whole agent, on a fake kernel whose engine is faster or slower than plain copy."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec import structs

from numamigration_agent.change import SaveBaselines, WriteKnob
from numamigration_agent.cluster import StateGone
from numamigration_agent.events import Command, Run
from numamigration_agent.jobs import ClockMoves, PrepareMoves, ReadRoom, SaveProbe
from numamigration_agent.kernel.timed_moves import EndMoves, TimedAnswer, TimedRequest, TimeMoves
from numamigration_agent.probe_record import FILE_NAME
from numamigration_agent.probing import DAY_SECONDS
from numamigration_api.vocabulary import Dialect, ProbePhase, ProbeReason
from tests.fakekernel.config import DmaEngine, HostConfig, NumaNode, Spoiled
from tests.twin.timed import DMA_LOSES, DMA_WINS, timed_twin
from tests.unit.agent_rig import OFFLOAD, Rig, no_room, wish

OFF = {"engine": "Off"}
CANDIDATES = [{"engine": "DMA", "channels": channels} for channels in (1, 2, 4)]
PROBE = {"id": "one", "candidates": CANDIDATES}
VERIFIED = {"verification": "FirstUse", "acceptedRisks": []}
LONG_ENOUGH = 120
"""Seconds in which a probe of a minute is over."""

WINS = HostConfig(speeds=DMA_WINS)
LOSES = HostConfig(speeds=DMA_LOSES)
CHANNELS = "/sys/module/dcbm/parameters/nr_dma_chan"
OFFLOADING = "/sys/module/dcbm/parameters/offloading"

Start = Callable[..., Rig]
Knobs = tuple[bool, int, tuple[str, ...]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    def start(config: HostConfig = WINS, **changes: Any) -> Rig:
        rig = Rig(tmp_path / "state", structs.replace(config, **changes))
        rig.settle()
        return rig

    return start


def ask(rig: Rig, settings: Any = OFF, probe: Any = PROBE, **changes: Any) -> None:
    """Wish for settings, and for a probe; without settings nobody wishes anything of offload."""
    groups = {} if settings is None else {"offload": wish(settings, **{**VERIFIED, **changes})}
    rig.wish(groups, **({} if probe is None else {"probe": probe}))


def knobs(rig: Rig) -> Knobs:
    found = rig.kernel.snapshot()
    return found.offloading, found.nr_dma_chan, found.reasons


def told(rig: Rig) -> tuple[str, str]:
    return rig.status["probe"]["phase"], rig.status["probe"]["reason"]


def engines(rig: Rig) -> set[str]:
    return {row["engine"] for row in rig.status["probe"].get("results", [])}


def at_sample(rig: Rig, nth: int, act: Callable[[], None]) -> None:
    """Do something while the nth sample is taken."""
    plain, seen = timed_twin(rig.kernel), [0]

    def move_timed(request: TimedRequest) -> TimedAnswer:
        if isinstance(request, TimeMoves):
            seen[0] += 1
            if seen[0] == nth:
                act()
        return plain(request)

    rig.move_timed = move_timed


def until_sample(rig: Rig, settings: Any = OFF) -> None:
    """Ask, and have the agent wait for the first sample."""
    rig.holds = ClockMoves
    ask(rig, settings)
    for _ in range(40):
        if rig.held:
            return
        rig.pass_time(0.5)
    raise AssertionError(f"nothing is measured: {rig.status['probe']}")


# --- what it measures


def test_an_engine_that_is_faster_is_told_with_its_channels_and_left_off(start: Start) -> None:
    """Promise 7: whoever asked decides; the node itself is as before."""
    rig = start()
    before = knobs(rig)

    ask(rig)
    rig.pass_time(LONG_ENOUGH)

    assert told(rig) == ("Done", "Measured")
    assert rig.status["probe"]["message"].startswith("best here: DMA, 4 channels (+")
    assert engines(rig) == {"CPU", "DMA"}
    assert knobs(rig) == before
    assert rig.group()["state"] == "Ready"


def test_one_candidate_alone_is_measured_until_that_is_sure(start: Start) -> None:
    rig = start()

    ask(rig, probe=PROBE | {"candidates": [{"engine": "DMA", "channels": 4}]})
    rig.pass_time(LONG_ENOUGH)

    assert rig.status["probe"]["message"].startswith("best here: DMA, 4 channels (+")


def test_an_engine_that_is_slower_is_told_so(start: Start) -> None:
    rig = start(LOSES)

    ask(rig)
    rig.pass_time(LONG_ENOUGH)

    assert told(rig) == ("Done", "Measured")
    assert rig.status["probe"]["message"] == "best here: offload off"


def test_what_one_folio_takes_and_two_migrators_reach_is_measured_too(start: Start) -> None:
    rig = start(LOSES)

    ask(rig)
    rig.pass_time(LONG_ENOUGH)

    shapes = {(row["folioBytes"], row["folios"], row["migrators"]) for row in rig.status["probe"]["results"]}
    assert {(4096, 1, 1), (2 << 20, 1, 1), (4096, 32, 2)} <= shapes


def test_more_channels_than_migrators_at_the_same_time_can_have_are_not_measured_together(start: Start) -> None:
    """Channels times migrators is at most what is there, or the rest is copied by the CPU without a word."""
    rig = start(WINS)

    ask(rig)
    rig.pass_time(LONG_ENOUGH)

    assert rig.status["probe"]["message"].startswith("best here: DMA, 4 channels")
    assert {(row["engine"], row["migrators"]) for row in rig.status["probe"]["results"]} == {
        ("CPU", 1),
        ("DMA", 1),
        ("CPU", 2),
    }


def test_candidates_beyond_the_channels_of_the_host_are_left_out(start: Start) -> None:
    rig = start(engines=(DmaEngine("ptdma"),) * 2)

    ask(rig)
    rig.pass_time(LONG_ENOUGH)

    assert {row["channels"] for row in rig.status["probe"]["results"]} == {0, 1, 2}


def test_the_mix_is_what_this_node_has_migrated(start: Start) -> None:
    rig = start()
    rig.kernel.set_counter("/proc/vmstat", 1_000_000, "pgmigrate_success")
    rig.kernel.set_counter("/proc/vmstat", 250_000, "numa_pages_migrated")

    ask(rig)
    rig.pass_time(LONG_ENOUGH)

    mix = rig.status["probe"]["mix"]
    assert {"folioBytes": 4096, "folios": 1, "share": "0.25", "reason": "numa_misplaced"} in mix


def test_pages_of_an_earlier_probe_are_no_part_of_the_mix(start: Start) -> None:
    rig = start()
    ask(rig)
    rig.pass_time(LONG_ENOUGH)
    rig.now += DAY_SECONDS

    ask(rig, probe=PROBE | {"id": "two"})
    rig.pass_time(LONG_ENOUGH)

    assert rig.status["probe"]["id"] == "two"
    assert "mix" not in rig.status["probe"]


def test_a_set_smaller_than_four_caches_is_told_as_such(start: Start) -> None:
    rig = start(cache_kib=512 << 10)

    ask(rig)
    rig.pass_time(LONG_ENOUGH)

    assert rig.status["probe"]["cacheBound"] is True


# --- what the node looks like meanwhile


def test_the_engine_is_verified_once_and_before_anything_is_measured(start: Start) -> None:
    """Promise 15."""
    rig = start()

    ask(rig)
    rig.pass_time(LONG_ENOUGH)

    assert rig.stores.count(("reason_mask", "mempolicy_mbind")) == 1
    first = next(name for name, _ in rig.stores if name == "offloading")
    assert rig.stores.index(("reason_mask", "mempolicy_mbind")) < rig.stores.index((first, "1"))
    assert ("nr_dma_chan", "4") in rig.stores[:2]


def test_only_the_reason_of_own_pages_is_offloaded_while_settings_are_measured(start: Start) -> None:
    """Promise 3."""
    rig = start()
    seen = set[tuple[str, ...]]()

    plain = timed_twin(rig.kernel)

    def move_timed(request: TimedRequest) -> TimedAnswer:
        found = rig.kernel.snapshot()
        if found.offloading and isinstance(request, TimeMoves):
            seen.add(found.reasons)
        return plain(request)

    rig.move_timed = move_timed
    ask(rig, OFFLOAD)
    rig.pass_time(LONG_ENOUGH)

    assert seen == {("syscall_or_cpuset",)}


@pytest.mark.parametrize("drift", ["Correct", "Report", "Ignore"])
def test_a_wish_that_was_in_force_is_in_force_again(start: Start, drift: str) -> None:
    """Whatever the policy says of drift: it is we who change the knobs."""
    rig = start()
    ask(rig, OFFLOAD, probe=None, drift=drift)
    before = knobs(rig)

    ask(rig, OFFLOAD, drift=drift)
    rig.pass_time(LONG_ENOUGH)

    assert told(rig) == ("Done", "Measured")
    assert knobs(rig) == before
    assert (rig.group()["state"], rig.group()["reason"]) == ("Ready", "AsExpected")
    assert rig.status["statistics"]["driftCorrections"] == 0


def test_where_nobody_wishes_anything_the_values_of_before_are_back_and_forgotten(start: Start) -> None:
    """Promise 7."""
    rig = start()
    before = knobs(rig)

    ask(rig, None)
    rig.pass_time(LONG_ENOUGH)

    assert told(rig) == ("Done", "Measured")
    assert knobs(rig) == before
    assert not any("baseline" in row for row in rig.status["knobs"])


def test_a_release_of_keep_keeps_nothing_of_a_probe(start: Start) -> None:
    """Promise 7: what it set is nobody's wish."""
    rig = start()
    before = knobs(rig)

    ask(rig, OFF, release="Keep")
    rig.pass_time(LONG_ENOUGH)

    assert told(rig) == ("Done", "Measured")
    assert knobs(rig) == before


def test_the_group_is_pending_meanwhile_and_says_why(start: Start) -> None:
    """Promise 11: what is wished is not in force then."""
    rig = start()

    ask(rig)
    rig.pass_time(LONG_ENOUGH)

    meanwhile = [status for status in rig.reports if status.get("probe", {}).get("phase") == "Running"]
    assert meanwhile
    assert {status["groups"]["offload"]["reason"] for status in meanwhile} == {"Probing"}
    assert {status["groups"]["offload"]["state"] for status in meanwhile} == {"Pending"}


def test_settings_that_change_from_sample_to_sample_are_not_told_one_by_one(start: Start) -> None:
    """Promise 12."""
    rig = start()
    sent = rig.sent

    ask(rig)
    rig.pass_time(LONG_ENOUGH)

    assert len(rig.stores) > 20
    assert rig.sent - sent <= 5


def test_own_pages_are_in_no_window_that_guardrails_judge(start: Start) -> None:
    rig = start()
    rig.wish(
        {"offload": wish(OFF, **VERIFIED)},
        observe={"soakSeconds": 200, "guardrails": [{"metric": "foliosFailedShare", "max": "0.01", "minFolios": 1}]},
        probe=PROBE,
    )
    rig.pass_time(400)

    assert told(rig) == ("Done", "Measured")
    assert rig.status["window"]["after"].get("pagesMigrated", 0) == 0
    assert rig.kernel.snapshot().vmstat["pgmigrate_success"] > 0


def test_memory_is_given_back_when_it_is_over(start: Start) -> None:
    rig = start()
    plain, seen = timed_twin(rig.kernel), list[TimedRequest]()

    def move_timed(request: TimedRequest) -> TimedAnswer:
        seen.append(request)
        return plain(request)

    rig.move_timed = move_timed
    ask(rig)
    rig.pass_time(LONG_ENOUGH)

    assert seen[-1] == EndMoves()


def test_a_node_that_is_not_asked_has_no_part_of_it(start: Start) -> None:
    rig = start()

    ask(rig, probe=None)
    rig.pass_time(LONG_ENOUGH)

    assert "probe" not in rig.status
    assert not (rig.folder / FILE_NAME).exists()


def test_an_agent_that_is_not_asked_loads_nothing_of_the_tuner() -> None:
    """What it would take of every node's memory."""
    code = "import sys, numamigration_agent.__main__; print(*(n for n in sys.modules if 'tun' in n or 'probing' in n))"

    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)

    assert done.stdout.split() == []


# --- once


def test_no_id_is_measured_twice(start: Start) -> None:
    rig = start()
    ask(rig)
    rig.pass_time(LONG_ENOUGH)
    stores, found = len(rig.stores), rig.status["probe"]

    rig.restart()
    rig.pass_time(LONG_ENOUGH)

    assert (len(rig.stores), rig.status["probe"]) == (stores, found)


def test_an_id_that_was_measured_before_a_reboot_is_not_measured_again(start: Start) -> None:
    rig = start()
    ask(rig)
    rig.pass_time(LONG_ENOUGH)
    found = rig.status["probe"]

    (rig.folder / FILE_NAME).unlink()
    rig.kernel.reboot()
    rig.restart()
    rig.pass_time(LONG_ENOUGH)

    assert rig.status["probe"] == found
    assert not rig.kernel.snapshot().folios_migrated


def test_a_result_is_dropped_when_nobody_asks_any_more(start: Start) -> None:
    rig = start()
    ask(rig)
    rig.pass_time(LONG_ENOUGH)

    ask(rig, probe=None)
    rig.pass_time(1)

    assert "probe" not in rig.status


def test_an_id_that_is_asked_again_has_the_result_of_before(start: Start) -> None:
    """The fleet switch, or a silence of the agent's, takes a question back for a while."""
    rig = start()
    ask(rig)
    rig.pass_time(LONG_ENOUGH)
    stores, found = len(rig.stores), rig.status["probe"]

    ask(rig, probe=None)
    rig.pass_time(1)
    ask(rig)
    rig.pass_time(LONG_ENOUGH)

    assert (len(rig.stores), rig.status["probe"]) == (stores, found)


def test_an_id_that_was_withdrawn_in_mid_probe_is_measured_when_it_is_asked_again(start: Start) -> None:
    rig = start()
    until_sample(rig)
    ask(rig, probe=None)
    rig.release()
    rig.pass_time(LONG_ENOUGH)
    assert "probe" not in rig.status

    ask(rig)
    rig.pass_time(LONG_ENOUGH)

    assert told(rig) == ("Done", "Measured")


def test_an_id_whose_probe_was_stopped_is_tried_again_when_it_is_asked_again(start: Start) -> None:
    rig = start()
    at_sample(rig, 5, lambda: rig.kernel.set_pressure("memory", 0.5))
    ask(rig)
    rig.pass_time(LONG_ENOUGH)
    assert told(rig) == ("Stopped", "NotCalm")

    rig.kernel.set_pressure("memory", 0.0)
    ask(rig, probe=None)
    rig.pass_time(LONG_ENOUGH)
    ask(rig)
    rig.pass_time(LONG_ENOUGH)

    assert told(rig) == ("Done", "Measured")


def test_another_id_of_the_same_day_waits_for_the_next_one(start: Start) -> None:
    rig = start()
    plain = timed_twin(rig.kernel)

    def slow(request: TimedRequest) -> TimedAnswer:
        rig.now += 1.0 if isinstance(request, TimeMoves) else 0.0
        return plain(request)

    rig.move_timed = slow
    ask(rig, probe=PROBE | {"secondsMax": 10})
    rig.pass_time(400)
    assert told(rig) == ("Done", "BudgetSpent")

    ask(rig, probe=PROBE | {"id": "two", "secondsMax": 10})
    rig.pass_time(LONG_ENOUGH)
    assert told(rig) == ("Waiting", "BudgetSpent")

    rig.now += DAY_SECONDS
    rig.pass_time(LONG_ENOUGH)
    assert told(rig)[0] == "Done"


def test_time_that_is_over_ends_it_with_what_was_measured(start: Start) -> None:
    rig = start()
    before, plain = knobs(rig), timed_twin(rig.kernel)

    def slow(request: TimedRequest) -> TimedAnswer:
        rig.now += 1.0 if isinstance(request, TimeMoves) else 0.0
        return plain(request)

    rig.move_timed = slow
    ask(rig, probe=PROBE | {"secondsMax": 10})
    rig.pass_time(LONG_ENOUGH)

    assert told(rig) == ("Done", "BudgetSpent")
    assert rig.status["probe"]["results"]
    assert knobs(rig) == before


# --- when there is none


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(
            {"numa_nodes": (NumaNode(0, "0-7"),)}, (ProbePhase.REFUSED, ProbeReason.ONE_NUMA_NODE), id="one NUMA node"
        ),
        pytest.param(
            {"numa_nodes": (NumaNode(0, "0-7"), NumaNode(1, "8-15", memory=False))},
            (ProbePhase.REFUSED, ProbeReason.ONE_NUMA_NODE),
            id="a node without memory",
        ),
        pytest.param(
            {"numa_nodes": (NumaNode(0, "0-7"), NumaNode(1, tier=1))},
            (ProbePhase.DONE, ProbeReason.MEASURED),
            id="a node without CPUs",
        ),
        pytest.param(
            {"full_numa_nodes": (1,)}, (ProbePhase.WAITING, ProbeReason.NO_FREE_MEMORY), id="no free memory on one"
        ),
        pytest.param({"free_kib": 16 << 10}, (ProbePhase.WAITING, ProbeReason.NO_FREE_MEMORY), id="too little is free"),
        pytest.param(
            {"missing_files": ("/sys/devices/system/node/node1/meminfo",)},
            (ProbePhase.WAITING, ProbeReason.NO_FREE_MEMORY),
            id="free memory is not told",
        ),
        pytest.param(
            {"memory_room": 20 << 20}, (ProbePhase.REFUSED, ProbeReason.MEMORY_LIMIT), id="limit of the container"
        ),
        pytest.param(
            {"cpuset_numa_nodes": (0,)}, (ProbePhase.REFUSED, ProbeReason.CPUSET_FORBIDS), id="cpuset forbids a node"
        ),
        pytest.param(
            {"denied_calls": {"move_pages": errno.EPERM}},
            (ProbePhase.REFUSED, ProbeReason.CALL_FORBIDDEN),
            id="seccomp says EPERM",
        ),
        pytest.param(
            {"denied_calls": {"move_pages": errno.ENOSYS}},
            (ProbePhase.REFUSED, ProbeReason.CALL_FORBIDDEN),
            id="seccomp says ENOSYS",
        ),
        pytest.param(
            {"dialect": Dialect.NO_SERIES},
            (ProbePhase.REFUSED, ProbeReason.SETTING_REFUSED),
            id="a kernel without the series",
        ),
        pytest.param({"loaded": False}, (ProbePhase.REFUSED, ProbeReason.SETTING_REFUSED), id="driver not loaded"),
        pytest.param({"engines": ()}, (ProbePhase.REFUSED, ProbeReason.SETTING_REFUSED), id="no DMA channel"),
        pytest.param(
            {"engines": (DmaEngine("idxd", channels=4),)},
            (ProbePhase.REFUSED, ProbeReason.SETTING_REFUSED),
            id="a risk that nobody accepted",
        ),
        pytest.param(
            {"dialect": Dialect.V5},
            (ProbePhase.REFUSED, ProbeReason.SETTING_REFUSED),
            id="direct I/O loses bytes with V5, and nobody accepted that",
        ),
        pytest.param(
            {"missing_files": ("/proc/pressure",)}, (ProbePhase.DONE, ProbeReason.MEASURED), id="no PSI, and no load"
        ),
        pytest.param(
            {"missing_files": ("/proc/pressure",), "load": 9.0},
            (ProbePhase.WAITING, ProbeReason.NOT_CALM),
            id="no PSI, and load",
        ),
        pytest.param(
            {"missing_files": ("/proc/pressure", "/proc/loadavg")},
            (ProbePhase.WAITING, ProbeReason.NOT_CALM),
            id="nobody tells whether tasks wait",
        ),
    ],
)
def test_a_host_where_nothing_can_be_measured_is_told_with_the_reason(
    start: Start, changes: Any, expected: tuple[str, str]
) -> None:
    """Promise 11: and offload is as before."""
    rig = start(**changes)
    before = knobs(rig)

    ask(rig)
    rig.pass_time(LONG_ENOUGH)

    assert told(rig) == expected
    assert knobs(rig) == before
    if expected[0] != ProbePhase.DONE:
        assert "offloading" not in {name for name, _ in rig.stores}


def test_candidates_without_dma_are_refused(start: Start) -> None:
    rig = start()

    ask(rig, probe=PROBE | {"candidates": [{"engine": "CPUThreads", "channels": 4}]})
    rig.pass_time(LONG_ENOUGH)

    assert told(rig) == ("Refused", "SettingRefused")


@pytest.mark.parametrize("mode", ["Hold", "Restore"])
def test_a_node_whose_policy_says_no_is_left_alone(start: Start, mode: str) -> None:
    rig = start()

    ask(rig, mode=mode)
    rig.pass_time(LONG_ENOUGH)

    assert told(rig) == ("Waiting", "PolicyForbids")
    assert rig.stores == []


@pytest.mark.parametrize("resource", ["memory", "cpu"])
def test_a_node_that_is_not_calm_is_measured_once_it_is(start: Start, resource: str) -> None:
    rig = start()
    rig.kernel.set_pressure(resource, 0.5)
    ask(rig)
    rig.pass_time(LONG_ENOUGH)
    assert told(rig) == ("Waiting", "NotCalm")
    assert rig.stores == []

    rig.kernel.set_pressure(resource, 0.0)
    rig.pass_time(LONG_ENOUGH)

    assert told(rig) == ("Done", "Measured")


def test_the_message_of_one_who_waits_does_not_move_with_its_numbers(start: Start) -> None:
    """Promise 12: each would be a report."""
    rig = start()
    rig.kernel.set_pressure("cpu", 0.5)
    ask(rig)
    rig.pass_time(40)
    sent = rig.sent

    rig.kernel.set_pressure("cpu", 0.6)
    rig.pass_time(40)

    assert rig.sent == sent


def test_a_state_folder_that_cannot_be_written_lets_no_probe_begin(start: Start) -> None:
    """Promise 1: what the next life of the agent must know is on file first."""
    rig = start()
    ask(rig, probe=None)

    with no_room():
        ask(rig)
        rig.pass_time(LONG_ENOUGH)

    assert told(rig) == ("Refused", "StateNotSaved")
    assert rig.stores == []


def test_nothing_is_measured_while_the_watch_keeps_the_engine_off(start: Start) -> None:
    """Promise 16."""
    rig = start(engines=(DmaEngine("ptdma", hangs=True),) * 4)
    plain = rig.kernel.advance

    ask(rig)
    rig.pass_time(5)
    plain(0)
    rig.pass_time(LONG_ENOUGH)

    assert rig.status["probe"]["phase"] in {"Stopped", "Waiting", "Refused"}
    assert not knobs(rig)[0]
    assert engines(rig) == set()


def test_an_engine_that_copies_wrong_is_never_measured(start: Start) -> None:
    """Promise 15."""
    rig = start(engines=(DmaEngine("ptdma", wrong_share=1.0),) * 4)

    ask(rig)
    rig.pass_time(LONG_ENOUGH)

    assert told(rig) == ("Stopped", "EngineNotTrusted")
    assert not knobs(rig)[0]
    assert engines(rig) == set()
    assert rig.condition("Verified")["reason"] == "CorruptionDetected"


# --- what ends it


def test_a_node_that_is_no_longer_calm_ends_it_with_the_next_sample(start: Start) -> None:
    """Promise 16: who has work to do does not wait for a measurement."""
    rig = start()
    before = knobs(rig)
    at_sample(rig, 5, lambda: rig.kernel.set_pressure("memory", 0.5))

    ask(rig)
    rig.pass_time(LONG_ENOUGH)

    assert told(rig) == ("Stopped", "NotCalm")
    assert knobs(rig) == before


def test_the_strain_that_a_probe_itself_causes_does_not_end_it(start: Start) -> None:
    rig = start()
    at_sample(rig, 1, lambda: rig.kernel.set_pressure("cpu", 0.3))

    ask(rig)
    rig.pass_time(LONG_ENOUGH)

    assert told(rig) == ("Done", "Measured")


def test_a_driver_that_is_unloaded_in_mid_probe_ends_it(start: Start) -> None:
    rig = start()

    def vanish() -> None:
        rig.kernel.drift(OFFLOADING, "0")
        rig.kernel.unload()

    at_sample(rig, 4, vanish)
    ask(rig)
    rig.pass_time(LONG_ENOUGH)

    assert rig.status["probe"]["phase"] == "Stopped"
    assert rig.status["probe"]["reason"] in {"SettingRefused", "SettingFailed"}
    assert rig.group()["state"] == "Unsupported"


def test_channels_that_go_in_mid_probe_are_no_plain_copy_that_looks_like_an_engine(start: Start) -> None:
    """The kernel says on, and copies by CPU without a word."""
    rig = start()
    taken = tuple(structs.replace(engine, taken=1) for engine in WINS.engines)
    before = knobs(rig)
    at_sample(rig, 1, lambda: rig.kernel.set_engines(taken))

    ask(rig)
    rig.pass_time(2 * LONG_ENOUGH)

    assert told(rig) == ("Stopped", "EngineIneffective")
    assert engines(rig) <= {"CPU"}
    assert knobs(rig) == before


def test_a_sample_during_which_somebody_changed_a_knob_is_thrown_away(start: Start) -> None:
    rig = start(LOSES)
    at_sample(rig, 3, lambda: rig.kernel.drift(CHANNELS, "3"))
    before = knobs(rig)

    ask(rig)
    rig.pass_time(LONG_ENOUGH)

    assert told(rig) == ("Done", "Measured")
    assert knobs(rig) == before


def test_somebody_who_goes_on_changing_a_knob_ends_it(start: Start) -> None:
    rig = start()
    plain = timed_twin(rig.kernel)

    def move_timed(request: TimedRequest) -> TimedAnswer:
        if isinstance(request, TimeMoves):
            rig.kernel.drift(OFFLOADING, "0" if rig.kernel.snapshot().offloading else "1")
        return plain(request)

    rig.move_timed = move_timed
    ask(rig)
    rig.pass_time(2 * LONG_ENOUGH)

    assert told(rig) == ("Stopped", "SettingFailed")


def test_a_write_that_the_kernel_refuses_ends_it(start: Start) -> None:
    """Promise 4: what was written before it goes back."""
    rig = start()
    before = knobs(rig)
    rig.kernel.spoil(OFFLOADING, Spoiled(write_error=errno.EBUSY))

    ask(rig)
    rig.pass_time(LONG_ENOUGH)

    assert told(rig) == ("Stopped", "SettingFailed")
    assert knobs(rig) == before


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(TimedAnswer(0, 0, 512, 0.1), id="no folio arrived"),
        pytest.param(TimedAnswer(4096, 1, 511, 0.1), id="few folios arrived"),
        pytest.param(TimedAnswer(2 << 20, 512, 0, 0.0), id="no time passed"),
    ],
)
def test_samples_that_are_no_speed_are_no_result(start: Start, answer: TimedAnswer) -> None:
    rig = start()
    plain = timed_twin(rig.kernel)
    rig.move_timed = lambda request: answer if isinstance(request, TimeMoves) else plain(request)
    before = knobs(rig)

    ask(rig)
    rig.pass_time(2 * LONG_ENOUGH)

    assert told(rig) == ("Stopped", "SamplesUnusable")
    assert "results" not in rig.status["probe"]
    assert knobs(rig) == before


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOMEM, "NoFreeMemory"),
        (errno.ETIMEDOUT, "MoveStalled"),
        (errno.ECHILD, "MoveFailed"),
        (errno.EPERM, "CallForbidden"),
    ],
)
def test_a_mover_that_fails_ends_it(start: Start, number: int, reason: str) -> None:
    rig = start()
    plain, before = timed_twin(rig.kernel), knobs(rig)
    broken = TimedAnswer(errno=number, cause="as the test says")
    rig.move_timed = lambda request: broken if isinstance(request, TimeMoves) else plain(request)

    ask(rig)
    rig.pass_time(LONG_ENOUGH)

    assert told(rig) == ("Stopped", reason)
    assert rig.status["probe"]["message"] == "as the test says"
    assert knobs(rig) == before


def test_pages_that_do_not_come_back_end_it_and_the_engine_goes_off(start: Start) -> None:
    """Promises 10 and 16: nobody waits for them, and what they show later is of no interest."""
    rig = start()
    before = knobs(rig)
    ask(rig, probe=None)
    rig.holds = ClockMoves

    ask(rig)
    rig.pass_time(LONG_ENOUGH)

    assert told(rig) == ("Stopped", "MoveStalled")
    assert knobs(rig) == before
    rig.release()
    assert told(rig) == ("Stopped", "MoveStalled")


def test_a_hold_in_mid_probe_puts_back_what_was_there_before(start: Start) -> None:
    """Promise 7."""
    rig = start()
    ask(rig, OFFLOAD, probe=None)
    before = knobs(rig)
    until_sample(rig, OFFLOAD)
    assert knobs(rig) != before

    rig.holds = None
    ask(rig, OFFLOAD, mode="Hold")
    rig.release()
    rig.pass_time(LONG_ENOUGH)

    assert told(rig) == ("Stopped", "PolicyForbids")
    assert knobs(rig) == before
    assert rig.group()["state"] == "Held"


def test_a_wish_that_changes_in_mid_probe_comes_into_force_at_once(start: Start) -> None:
    rig = start()
    until_sample(rig)

    rig.holds = None
    ask(rig, OFFLOAD)
    rig.release()
    rig.pass_time(LONG_ENOUGH)

    assert told(rig) == ("Stopped", "Withdrawn")
    assert knobs(rig) == (True, 4, ("demotion", "damon"))
    assert rig.group()["state"] == "Ready"


def test_a_probe_that_is_asked_for_no_more_is_put_back_and_forgotten(start: Start) -> None:
    rig = start()
    before = knobs(rig)
    until_sample(rig)

    rig.holds = None
    ask(rig, probe=None)
    rig.release()
    rig.pass_time(LONG_ENOUGH)

    assert "probe" not in rig.status
    assert knobs(rig) == before


def test_another_id_in_mid_probe_is_measured_once_all_is_back(start: Start) -> None:
    rig = start()
    before = knobs(rig)
    until_sample(rig)

    rig.holds = None
    ask(rig, probe=PROBE | {"id": "two", "secondsMax": 300})
    rig.release()
    rig.pass_time(2 * LONG_ENOUGH)

    assert rig.status["probe"]["id"] == "two"
    assert told(rig)[0] == "Done"
    assert knobs(rig) == before


def test_a_node_state_that_is_deleted_in_mid_probe_forgets_nothing(start: Start) -> None:
    """Promise 7: an operator makes a new one, and then all goes back."""
    rig = start()
    before = knobs(rig)
    until_sample(rig)
    rig.holds = None
    rig.object = {"metadata": {"name": "node-a", "uid": "state-2", "generation": 1}, "spec": {}}
    rig.send(StateGone())
    rig.release()
    rig.pass_time(LONG_ENOUGH)  # nothing is measured, and nothing spins

    ask(rig, probe=None)
    rig.pass_time(LONG_ENOUGH)

    assert knobs(rig) == before
    assert not json.loads((rig.folder / FILE_NAME).read_text())["probe"]["open"]


# --- crashes


FIRST_STEPS: Final = 16
"""Of a probe, among which each of its kinds is."""


class KilledError(Exception):
    """The agent is no more."""


@dataclass
class MortalRig(Rig):
    """A rig whose agent dies right after one of the commands that leave a trace."""

    steps: int = 0
    dies_at: int = 0

    def _do(self, command: Command) -> None:
        super()._do(command)
        traces = WriteKnob | SaveBaselines | SaveProbe | ClockMoves | PrepareMoves | ReadRoom
        if not isinstance(command, Run) or isinstance(command.job, traces):
            self.steps += 1
            if self.steps == self.dies_at:
                raise KilledError


@pytest.mark.uncounted
@pytest.mark.parametrize(
    ("settings", "later"),
    [pytest.param(OFF, 0, id="off"), pytest.param(OFFLOAD, 1, id="on"), pytest.param(None, 2, id="nothing")],
)
def test_an_agent_killed_at_a_step_of_a_probe_leaves_all_as_it_was(tmp_path: Path, settings: Any, later: int) -> None:
    """Promises 1, 6 and 7: a crash in a probe is a crash in a change.

    After all kinds of steps have come, one sample is like the other: each setting dies at every third.
    """
    config = structs.replace(LOSES, cache_kib=2048)
    probe = PROBE | {"candidates": [{"engine": "DMA", "channels": 4}]}
    died = 0
    for step in chain(range(1, FIRST_STEPS), count(FIRST_STEPS + later, 3)):
        rig = MortalRig(tmp_path / f"state-{step}", config)
        rig.settle()
        if settings is not None:
            ask(rig, settings, probe=None)
        before = knobs(rig)
        rig.steps, rig.dies_at = 0, step
        try:
            ask(rig, settings, probe=probe)
            rig.pass_time(LONG_ENOUGH)
            break
        except KilledError:
            died += 1
            rig.restart()
        rig.pass_time(LONG_ENOUGH)

        assert knobs(rig) == before, f"step {step}: {rig.status['probe']}"
        assert rig.status["probe"]["phase"] in {"Done", "Stopped"}, step
        if settings is None:
            assert not any("baseline" in row for row in rig.status["knobs"]), step
        else:
            assert rig.group()["state"] == "Ready", step
    assert died > 20


def test_a_probe_that_a_crash_ended_is_told_as_interrupted(start: Start) -> None:
    """Promise 7."""
    rig = start()
    until_sample(rig)

    rig.holds = None
    rig.restart()
    rig.pass_time(LONG_ENOUGH)

    assert told(rig) == ("Stopped", "Interrupted")


def test_a_reboot_in_mid_probe_is_told_as_such_and_not_measured_again(start: Start) -> None:
    rig = start()
    until_sample(rig)

    rig.holds = None
    (rig.folder / FILE_NAME).unlink()
    rig.kernel.reboot()
    rig.restart()
    rig.pass_time(LONG_ENOUGH)

    assert told(rig) == ("Stopped", "Interrupted")
    assert "booted" in rig.status["probe"]["message"]
    assert rig.kernel.snapshot().folios_migrated == 0


def test_no_knob_is_written_before_the_file_says_that_a_probe_is_open(start: Start) -> None:
    """Promise 1: the save may take its time."""
    rig = start()
    ask(rig, probe=None)
    rig.holds = SaveProbe

    ask(rig)
    rig.pass_time(20)  # another look comes meanwhile

    assert rig.held
    assert rig.stores == []
    rig.release()
    rig.pass_time(LONG_ENOUGH)
    assert told(rig) == ("Done", "Measured")


def test_a_file_that_stayed_open_makes_no_interruption_of_a_probe_that_was_told_as_over(start: Start) -> None:
    rig = start()
    ask(rig)
    rig.pass_time(LONG_ENOUGH)
    found = rig.status["probe"]
    path = rig.folder / FILE_NAME
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"probe": document["probe"] | {"open": True}}))

    rig.restart()
    rig.pass_time(LONG_ENOUGH)

    assert rig.status["probe"] == found


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2}'])
def test_a_damaged_file_in_mid_probe_lets_the_status_tell(start: Start, text: str) -> None:
    rig = start()
    before = knobs(rig)
    until_sample(rig)

    rig.holds = None
    (rig.folder / FILE_NAME).write_text(text)
    rig.restart()
    rig.pass_time(LONG_ENOUGH)

    assert told(rig) == ("Stopped", "Interrupted")
    assert knobs(rig) == before
