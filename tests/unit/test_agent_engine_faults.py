# SPDX-License-Identifier: Apache-2.0
"""What the agent does alone about an engine that hangs, fails, vanishes, does nothing, or is somebody else's."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec import structs

from numamigration_agent.change import WriteKnob
from numamigration_agent.cluster import ApplyKind, ApplyResult, StateSeen
from numamigration_agent.jobs import MovePages, ReadSigns
from numamigration_agent.memory import FILE_BYTES_MAX, FILE_NAME
from numamigration_agent.retries import RETRY_SECONDS_MIN
from numamigration_agent.watch import PAUSE_SECONDS_FIRST, PAUSE_SECONDS_MAX
from numamigration_api.machinery.canonical import spec_revision
from numamigration_api.vocabulary import Dialect, MigrationReason
from tests.fakekernel.config import DmaEngine, HostConfig, NumaNode, Workload
from tests.unit.agent_rig import APPLIED, OFFLOAD, no_room, wish
from tests.unit.live_rig import LiveRig

BATCH_WAIT_SECONDS: Final = 10.0
OFF_SECONDS_MAX: Final = BATCH_WAIT_SECONDS + 5
TRAFFIC: Final = Workload(MigrationReason.DAMON, 2000)
BALANCING: Final = Workload(MigrationReason.NUMA_MISPLACED, 500)
SOUND: Final = HostConfig().engines
HUNG: Final = (structs.replace(SOUND[0], hangs=True), *SOUND[1:])
OFFLOAD_ALL: Final = {"engine": "DMA", "channels": 2}
WISH: Final = {"offload": wish(OFFLOAD)}


@pytest.fixture
def rig(tmp_path: Path) -> LiveRig:
    return rig_on(tmp_path)


def rig_on(
    folder: Path, config: HostConfig | None = None, offload: dict[str, Any] = OFFLOAD, **changes: Any
) -> LiveRig:
    """Return a node whose offload is on."""
    rig = LiveRig(folder / "state", config or HostConfig(workloads=(TRAFFIC,)))
    rig.settle()
    rig.wish({"offload": wish(offload, **changes)})
    rig.pass_time(20)
    assert rig.kernel.snapshot().offloading
    return rig


def is_off(rig: LiveRig) -> bool:
    return not rig.kernel.snapshot().offloading


def hang(rig: LiveRig) -> None:
    """Let the engine hang from now on, until a batch is in flight: that is the first sign."""
    rig.kernel.set_engines(HUNG)
    rig.until(lambda: rig.kernel.snapshot().channels_in_use > 0, 5, step=0.1)


def turn_offs(rig: LiveRig) -> int:
    return rig.stores.count(("offloading", "0"))


# --- stalled


@pytest.mark.parametrize("dialect", [Dialect.V5, Dialect.V6])
def test_an_engine_that_hangs_is_off_within_a_batch_wait_and_five_seconds(tmp_path: Path, dialect: Dialect) -> None:
    """Promise 16: from the first batch that hangs."""
    workload = Workload(MigrationReason.DEMOTION, 2000)
    config = HostConfig(dialect=dialect, demotion_enabled=True, workloads=(workload,))
    settings = {"engine": "DMA", "channels": 4}
    rig = rig_on(tmp_path, config, settings, acceptedRisks=["UnverifiedEngine", "DirectIOLostWrite"])
    hang(rig)

    rig.until(lambda: is_off(rig), OFF_SECONDS_MAX)

    rig.pass_time(30)
    assert is_off(rig)
    assert (rig.group()["state"], rig.group()["reason"]) == ("Failed", "EngineStalled")


def test_a_turn_off_that_waits_for_no_batch_acquits_no_engine(tmp_path: Path) -> None:
    """Promise 16: the batch that hangs is still in flight after it, so its channels are still in use."""
    workload = Workload(MigrationReason.DEMOTION, 2000)
    config = HostConfig(dialect=Dialect.V3, demotion_enabled=True, workloads=(workload,))
    risks = ["UnverifiedEngine", "MemoryFailureOffload"]
    rig = rig_on(tmp_path, config, {"engine": "DMA", "channels": 4}, acceptedRisks=risks)
    hang(rig)

    rig.until(lambda: is_off(rig), OFF_SECONDS_MAX)

    rig.pass_time(30)
    assert is_off(rig)
    assert turn_offs(rig) == 1


def test_an_engine_that_is_ours_again_is_judged_from_its_first_folio(rig: LiveRig) -> None:
    """Promise 16: nobody has read its counters since it was let go of."""
    rig.wish({})
    rig.kernel.set_engines(tuple(DmaEngine("ptdma", error_share=1.0) for _ in range(4)))
    rig.wish(WISH)

    rig.until(lambda: is_off(rig), OFF_SECONDS_MAX)


def test_an_engine_that_was_on_before_us_is_watched_before_its_baseline_is_reported(tmp_path: Path) -> None:
    """Promise 16: the file has it, and the API server may be away for long."""
    rig = LiveRig(tmp_path / "state", HostConfig(parameters={"offloading": "1"}, workloads=(TRAFFIC,)))
    rig.settle()
    rig.answer = ApplyResult(ApplyKind.RETRY, "no answer")
    rig.wish(WISH)
    hang(rig)

    rig.until(lambda: is_off(rig), OFF_SECONDS_MAX)


def test_an_engine_that_was_on_before_us_and_that_we_turned_off_still_has_its_value_of_before(tmp_path: Path) -> None:
    """Promise 7: the turn-off waits for no report, and what it leaves is nobody else's doing."""
    rig = LiveRig(tmp_path / "state", HostConfig(parameters={"offloading": "1"}, workloads=(TRAFFIC,)))
    rig.settle()
    rig.answer = ApplyResult(ApplyKind.RETRY, "no answer")
    rig.wish(WISH)
    hang(rig)
    rig.until(lambda: is_off(rig), OFF_SECONDS_MAX)

    rig.answer = APPLIED
    rig.pass_time(600)

    assert rig.knob("offload.engine")["baseline"] == "DMA"


def test_the_turn_off_is_written_while_the_first_batch_is_waited_for(rig: LiveRig) -> None:
    """Promise 16: so that no second batch begins."""
    hang(rig)

    rig.until(lambda: bool(rig.kernel.blocked), BATCH_WAIT_SECONDS)

    rig.until(lambda: is_off(rig), OFF_SECONDS_MAX)
    assert rig.kernel.snapshot().folios_failures == 475


def test_a_stall_is_told_while_the_kernel_still_keeps_the_turn_off(rig: LiveRig) -> None:
    """Promises 10 and 16."""
    hang(rig)

    rig.until(lambda: bool(rig.kernel.blocked), BATCH_WAIT_SECONDS)

    assert rig.group()["reason"] == rig.condition("Degraded")["reason"] == "EngineStalled"
    assert "in use and nothing moved" in rig.group()["message"]


def test_the_channels_are_seen_while_the_kernel_keeps_the_turn_off_and_its_counters(tmp_path: Path) -> None:
    """Promise 10: the parameters of a module wait on one lock, what the dmaengine core shows does not."""
    rig = rig_on(tmp_path)
    rig.kernel.set_engines((DmaEngine("ptdma", hangs=True, terminate_seconds=30), *SOUND[1:]))
    rig.until(lambda: bool(rig.kernel.blocked), 20)
    since = rig.now

    rig.pass_time(20)

    assert rig.kernel.blocked
    assert len(rig.began(ReadSigns, since)) >= 19
    assert rig.group()["reason"] == "EngineStalled"
    assert "has not answered" in rig.group()["message"]


def test_an_engine_whose_channels_take_nine_seconds_each_is_a_stall(tmp_path: Path) -> None:
    """Promise 16: the kernel waits for them one after the other and calls that a success."""
    rig = rig_on(tmp_path)
    rig.kernel.set_engines([DmaEngine("ptdma", channels=4, copy_seconds=9)])

    rig.until(lambda: is_off(rig), OFF_SECONDS_MAX)

    rig.pass_time(5)
    assert rig.group()["reason"] == "EngineStalled"


def test_a_sound_engine_that_is_slow_stays_on(tmp_path: Path) -> None:
    rig = rig_on(tmp_path)
    rig.kernel.set_engines([DmaEngine("ptdma", channels=4, copy_seconds=4)])

    rig.pass_time(300)

    assert turn_offs(rig) == 0
    assert rig.group()["reason"] == "AsExpected"


def test_an_engine_that_hangs_is_turned_off_although_the_policy_is_paused(rig: LiveRig) -> None:
    """Promise 16: a pause holds what is there, but for what must not be there."""
    rig.wish({"offload": wish(OFFLOAD, mode="Hold")})
    hang(rig)

    rig.until(lambda: is_off(rig), OFF_SECONDS_MAX)

    rig.pass_time(5)
    assert rig.group()["reason"] == "EngineStalled"


def test_an_engine_that_hangs_is_turned_off_although_the_node_state_was_deleted(rig: LiveRig) -> None:
    """Promise 16."""
    rig.delete_state()
    hang(rig)

    rig.until(lambda: is_off(rig), OFF_SECONDS_MAX)


def test_an_engine_that_somebody_else_turned_on_is_not_watched(tmp_path: Path) -> None:
    """Promise 2: an absent group means that nothing is touched."""
    rig = LiveRig(tmp_path / "state", HostConfig(workloads=(TRAFFIC,), parameters={"offloading": "1"}))
    rig.settle()
    rig.wish({"demotion": wish({"enabled": True})})
    rig.kernel.set_engines(HUNG)

    rig.pass_time(60)

    assert not is_off(rig)
    assert rig.began(ReadSigns) == []


def test_a_change_that_waits_for_the_api_server_does_not_delay_the_turn_off(rig: LiveRig) -> None:
    """Promise 16."""
    rig.wish({"offload": wish({**OFFLOAD, "channels": 2}), "demotion": wish({"enabled": True})})
    rig.api_away = True
    rig.object["status"] = {}
    rig.send(StateSeen(copy.deepcopy(rig.object)))
    rig.wish({"offload": wish({**OFFLOAD, "channels": 3}), "demotion": wish({"enabled": False})})
    hang(rig)

    rig.until(lambda: is_off(rig), OFF_SECONDS_MAX)


def test_a_stall_is_told_although_somebody_else_turns_off_and_every_counter_waits_for_it(rig: LiveRig) -> None:
    """Promises 10 and 16: the channels alone tell then."""
    rig.kernel.set_engines((DmaEngine("ptdma", hangs=True, terminate_seconds=60), *SOUND[1:]))
    rig.until(lambda: rig.kernel.snapshot().channels_in_use > 0, 5, step=0.1)
    rig.kernel.drift("/sys/module/dcbm/parameters/offloading", "0")

    rig.pass_time(15)

    assert rig.kernel.blocked
    assert rig.group()["reason"] == "EngineStalled"


def test_a_change_that_failed_before_does_not_delay_the_turn_off(tmp_path: Path) -> None:
    """Promise 16: its pause is its own."""
    rig = rig_on(tmp_path, HostConfig(channels_max=4, workloads=(TRAFFIC,)))
    rig.kernel.set_engines([DmaEngine("ptdma", channels=8)])
    rig.wish({"offload": wish({**OFFLOAD, "channels": 8})})
    rig.pass_time(60)
    assert rig.group()["reason"] == "InvalidValue"
    rig.kernel.set_engines([DmaEngine("ptdma", channels=8, hangs=True)])

    rig.until(lambda: is_off(rig), OFF_SECONDS_MAX)


def test_a_turn_off_that_is_refused_is_tried_again_with_pauses(rig: LiveRig) -> None:
    """Promise 16: until it works, at once then, and without a busy loop; the pauses do not grow."""
    rig.kernel.chmod("/sys/module/dcbm/parameters/offloading", 0o444)
    hang(rig)
    rig.pass_time(60)
    assert not is_off(rig)
    tries = rig.began(WriteKnob, rig.now - 60)
    assert 2 <= len(tries) <= 12
    assert max(after - before for before, after in pairwise(tries)) <= RETRY_SECONDS_MIN + 1

    rig.kernel.chmod("/sys/module/dcbm/parameters/offloading", 0o644)

    rig.until(lambda: is_off(rig), OFF_SECONDS_MAX)


def test_a_turn_off_that_is_refused_is_tried_with_pauses_on_hold_too(rig: LiveRig) -> None:
    """Promise 16: no plan has it then, and it must be no busy loop."""
    rig.wish({"offload": wish(OFFLOAD, mode="Hold")})
    rig.kernel.chmod("/sys/module/dcbm/parameters/offloading", 0o444)

    hang(rig)
    rig.pass_time(60)

    assert 2 <= len(rig.began(WriteKnob, rig.now - 60)) <= 12


def test_a_full_state_folder_does_not_keep_a_hung_engine_on(rig: LiveRig, caplog: pytest.LogCaptureFixture) -> None:
    """Promise 16: what cannot be remembered is said, and done all the same."""
    hang(rig)

    with no_room():
        rig.until(lambda: is_off(rig), OFF_SECONDS_MAX)

    assert "what the watch remembers is not saved" in caplog.text


def test_another_engine_is_tried_at_once_although_a_change_has_just_failed(tmp_path: Path) -> None:
    """Promise 15: the pause after a failure is about what failed, and the new engine is on meanwhile."""
    rig = rig_on(tmp_path, offload={"engine": "DMA"}, verification="FirstUse")
    rig.kernel.chmod("/sys/module/dcbm/parameters/nr_dma_chan", 0o444)
    rig.wish({"offload": wish({"engine": "DMA", "channels": 3}, verification="FirstUse")})
    rig.until(lambda: rig.group()["reason"] == "PermissionDenied", 5)
    rig.pass_time(200)
    rig.until(lambda: rig.agent._changes.retries.not_before("offload") > rig.now + 20, 300)

    rig.kernel.set_engines([DmaEngine("ae4dma", channels=4)])

    rig.until(lambda: is_off(rig), 5)


# --- whose channel it is


def test_a_channel_that_another_client_holds_is_no_stall_for_long(tmp_path: Path) -> None:
    """Nothing tells whose a channel is but the turn-off: what is in use after it is not ours."""
    rig = rig_on(tmp_path, HostConfig())
    rig.kernel.set_engines([DmaEngine("ptdma", channels=4, taken=1)])

    rig.until(lambda: turn_offs(rig) == 1, OFF_SECONDS_MAX)
    rig.until(lambda: not is_off(rig), 5)

    rig.pass_time(600)
    assert turn_offs(rig) == 1
    assert rig.group()["reason"] == "AsExpected"


def test_channels_that_all_belong_to_others_are_told_and_the_engine_stays_on(tmp_path: Path) -> None:
    """It is not the engine's fault, so it is not tried again, which without a channel could not be done."""
    rig = rig_on(tmp_path, offload={"engine": "DMA"}, verification="FirstUse")
    rig.kernel.set_engines([structs.replace(engine, taken=1) for engine in HostConfig().engines])

    rig.until(lambda: rig.group()["reason"] == "ChannelsExhausted", 120)

    assert not is_off(rig)
    assert turn_offs(rig) == 1


def test_a_channel_of_somebody_else_does_not_acquit_one_that_hangs(tmp_path: Path) -> None:
    """Promise 16: the verdict is taken back only if all that was suspected is not ours."""
    rig = rig_on(tmp_path)
    rig.kernel.set_engines((DmaEngine("ptdma", taken=1), DmaEngine("ptdma", hangs=True)))

    rig.until(lambda: is_off(rig), OFF_SECONDS_MAX)

    rig.pass_time(30)
    assert is_off(rig)
    assert rig.group()["reason"] == "EngineStalled"


def test_a_client_that_takes_and_gives_back_does_not_flap_the_switch_for_ever(tmp_path: Path) -> None:
    rig = rig_on(tmp_path, HostConfig())

    for _ in range(20):
        rig.kernel.set_engines([DmaEngine("ptdma", channels=4, taken=1)])
        rig.pass_time(20)
        rig.kernel.set_engines([DmaEngine("ptdma", channels=4)])
        rig.pass_time(20)

    assert turn_offs(rig) <= 6


# --- failing


def test_an_engine_that_fails_is_off_and_the_numbers_are_told(rig: LiveRig) -> None:
    """Promise 16."""
    rig.kernel.set_engines([DmaEngine("ptdma", channels=4, error_share=0.2)])

    rig.until(lambda: is_off(rig), OFF_SECONDS_MAX)

    rig.pass_time(5)
    assert (rig.group()["state"], rig.group()["reason"]) == ("Failed", "EngineFailing")
    assert " folios failed" in rig.group()["message"]


def test_a_few_failed_folios_are_no_reason_to_turn_off(rig: LiveRig) -> None:
    rig.kernel.set_engines([DmaEngine("ptdma", channels=4, error_share=0.02)])

    rig.pass_time(300)

    assert turn_offs(rig) == 0


def test_counters_that_somebody_reset_are_no_failure(rig: LiveRig) -> None:
    rig.kernel.drift("/sys/module/dcbm/parameters/folios_migrated", "0")

    rig.pass_time(60)

    assert turn_offs(rig) == 0


# --- vanished


def test_an_engine_that_vanishes_is_off_at_once_and_on_when_it_is_back(rig: LiveRig) -> None:
    """Promise 16: what comes back may be another engine, so it is looked at like a new one."""
    rig.kernel.set_engines([])

    rig.until(lambda: is_off(rig), 3)

    assert (rig.group()["state"], rig.group()["reason"]) == ("Failed", "NoDmaChannel")
    rig.kernel.set_engines(SOUND)
    rig.until(lambda: not is_off(rig), 20)
    assert rig.group()["state"] == "Ready"


# --- the pause after a verdict


def stalled(rig: LiveRig) -> None:
    hang(rig)
    rig.until(lambda: is_off(rig), OFF_SECONDS_MAX)
    rig.pass_time(5)
    assert rig.group()["reason"] == "EngineStalled"


def off_for(rig: LiveRig) -> float:
    return rig.until(lambda: not is_off(rig), 3 * PAUSE_SECONDS_MAX, step=5)


def test_the_pauses_before_the_next_try_grow(rig: LiveRig) -> None:
    """Promise 16: each try costs somebody a batch."""
    stalled(rig)
    first = off_for(rig)
    rig.until(lambda: is_off(rig), 2 * OFF_SECONDS_MAX)
    second = off_for(rig)
    rig.until(lambda: is_off(rig), 2 * OFF_SECONDS_MAX)
    third = off_for(rig)

    assert PAUSE_SECONDS_FIRST - 10 < first < second < third


def test_an_engine_that_is_sound_again_stays_on_after_its_pause(rig: LiveRig) -> None:
    stalled(rig)
    rig.kernel.set_engines(SOUND)

    off_for(rig)
    rig.pass_time(600)

    assert not is_off(rig)
    assert rig.group()["reason"] == "AsExpected"
    assert rig.condition("Degraded")["status"] == "False"


def test_a_new_revision_does_not_end_the_pause(rig: LiveRig) -> None:
    """Promise 16: off until told or backed off; an edited policy does not tell that the engine is sound."""
    stalled(rig)
    rig.kernel.set_engines(SOUND)

    rig.wish({"offload": wish({**OFFLOAD, "channels": 2})})
    rig.pass_time(30)

    assert is_off(rig)
    assert rig.group()["reason"] == "EngineStalled"


def test_an_explicit_off_ends_the_pause(rig: LiveRig) -> None:
    """Promise 16: a person has decided."""
    stalled(rig)
    rig.kernel.set_engines(SOUND)

    rig.wish({"offload": wish({"engine": "Off"})})
    rig.wish({"offload": wish(OFFLOAD)})
    rig.pass_time(5)

    assert not is_off(rig)


def test_a_grown_verify_epoch_ends_the_pause(rig: LiveRig) -> None:
    """Promise 16: somebody asks for a fresh trial."""
    stalled(rig)
    rig.kernel.set_engines(SOUND)

    wish_with_epoch(rig, 1)
    rig.pass_time(5)

    assert not is_off(rig)


def wish_with_epoch(rig: LiveRig, epoch: int) -> None:
    spec = {"groups": WISH, "plans": [], "verifyEpoch": epoch}
    rig.object["metadata"]["generation"] += 1
    rig.object["spec"] = {"revision": spec_revision(spec), **spec}
    rig.send(StateSeen(copy.deepcopy(rig.object)))


@pytest.mark.parametrize("api_away", [False, True])
def test_a_restarted_agent_keeps_the_pause(rig: LiveRig, api_away: bool) -> None:
    """Promise 16: the verdict is on the host's tmpfs."""
    stalled(rig)
    rig.kernel.set_engines(SOUND)

    rig.api_away = api_away
    rig.restart()
    rig.pass_time(20)
    assert is_off(rig)

    if api_away:
        rig.come_back()
    assert rig.group()["reason"] == "EngineStalled"
    assert off_for(rig) > 0


@pytest.mark.parametrize("restarted", [False, True])
def test_an_epoch_that_went_and_came_back_with_the_node_state_does_not_end_the_pause(
    rig: LiveRig, restarted: bool
) -> None:
    """Promise 16: a node state that somebody deleted comes back with the epoch that its policy had asked for."""
    wish_with_epoch(rig, 3)
    stalled(rig)
    rig.kernel.set_engines(SOUND)

    rig.delete_state()
    rig.send(StateSeen(copy.deepcopy(rig.object)))
    if restarted:
        rig.restart()
    wish_with_epoch(rig, 3)
    rig.pass_time(20)

    assert is_off(rig)
    assert rig.group()["reason"] == "EngineStalled"


def test_an_epoch_that_the_restarted_agent_has_seen_before_does_not_end_the_pause(rig: LiveRig) -> None:
    """Promise 16: told once is told once."""
    wish_with_epoch(rig, 3)
    stalled(rig)
    rig.kernel.set_engines(SOUND)

    rig.restart()
    rig.pass_time(20)

    assert is_off(rig)


def test_the_next_try_after_a_stall_is_made_with_own_pages_and_nobody_elses(tmp_path: Path) -> None:
    """Promise 16: an engine that still hangs holds up the agent's own pages, under a reason of their own."""
    rig = rig_on(tmp_path, verification="FirstUse")
    stalled(rig)
    since, before = rig.now, len(rig.stores)

    rig.until(lambda: bool(rig.began(MovePages, since)), 3 * PAUSE_SECONDS_FIRST, step=1)
    rig.pass_time(60)

    assert is_off(rig)
    masks = [text for name, text in rig.stores[before:] if name == "reason_mask"]
    assert masks[0] == "mempolicy_mbind"
    assert len(rig.began(MovePages, since)) == 1
    assert rig.group()["reason"] == "EngineStalled"


# --- without an API server


def test_a_restarted_agent_without_an_api_server_turns_a_hung_engine_off(rig: LiveRig) -> None:
    """Promise 16."""
    rig.api_away = True
    rig.restart()
    hang(rig)

    rig.until(lambda: is_off(rig), OFF_SECONDS_MAX)

    rig.come_back()
    rig.pass_time(5)
    assert rig.group()["reason"] == "EngineStalled"


def test_a_restarted_agent_without_an_api_server_writes_nothing_else(rig: LiveRig) -> None:
    """Promise 16: what was wished then may not be wished now."""
    rig.api_away = True
    rig.restart()
    rig.kernel.drift("/sys/module/dcbm/parameters/nr_dma_chan", "1")
    before = len(rig.began(WriteKnob))
    hang(rig)

    rig.until(lambda: is_off(rig), OFF_SECONDS_MAX)
    rig.pass_time(3 * PAUSE_SECONDS_FIRST)

    written = [job for _, job in rig.done if isinstance(job, WriteKnob)][before:]
    assert [(job.knob.field, job.value) for job in written] == [("offload.engine", "0")]


def garbage(path: Path) -> None:
    path.write_bytes(b"\xff\x00{")


def a_newer_file(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 2}))


def another_boot(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"bootID": "other"}))


def too_large(path: Path) -> None:
    path.write_bytes(b" " * (FILE_BYTES_MAX + 1))


def too_deep(path: Path) -> None:
    path.write_bytes(b"[" * 60_000)


def an_endless_pause(path: Path) -> None:
    pause = {"reason": "EngineStalled", "message": "", "until": float("nan"), "trips": 1}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pause": pause}))


def no_spec(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"state": {"spec": []}}))


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(
    "spoil",
    [garbage, a_newer_file, another_boot, too_large, too_deep, an_endless_pause, no_spec, a_folder, gone],
    ids=lambda spoil: spoil.__name__,
)
def test_an_agent_whose_memory_is_bad_watches_what_the_baselines_say(
    rig: LiveRig, spoil: Callable[[Path], None]
) -> None:
    """Promise 16: the memory is a help and no authority."""
    spoil(rig.folder / FILE_NAME)
    rig.api_away = True
    rig.restart()
    rig.pass_time(5)
    assert not is_off(rig)
    hang(rig)

    rig.until(lambda: is_off(rig), OFF_SECONDS_MAX)


@pytest.mark.parametrize(
    "spoil", [garbage, a_newer_file, too_large, an_endless_pause], ids=lambda spoil: spoil.__name__
)
def test_a_bad_memory_is_said_and_replaced_with_the_next_spec(
    rig: LiveRig, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    spoil(rig.folder / FILE_NAME)
    rig.restart()

    rig.pass_time(5)

    assert "what the watch remembered is ignored" in caplog.text
    assert json.loads((rig.folder / FILE_NAME).read_text())["state"]["spec"] == rig.object["spec"]


@pytest.mark.uncounted
def test_a_pause_that_no_agent_would_make_is_cut(rig: LiveRig) -> None:
    """Promise 16: off until backed off, which ends."""
    stalled(rig)
    rig.kernel.set_engines(SOUND)
    path = rig.folder / FILE_NAME
    document = json.loads(path.read_text())
    document["pause"]["until"] = 1e9
    path.write_text(json.dumps(document))

    rig.restart()

    assert off_for(rig) <= 2 * PAUSE_SECONDS_MAX + 30


# --- an engine that does nothing


def probes(rig: LiveRig) -> list[float]:
    return [at for at, job in rig.done if isinstance(job, MovePages) and job.calm_only]


NUMA_NODES = HostConfig().numa_nodes


def ineffective(folder: Path, reasons: list[str], numa_nodes: tuple[NumaNode, ...] = NUMA_NODES) -> LiveRig:
    """Return a node whose engine gets no channel: a public one, and somebody else has called dmaengine_get()."""
    engines = (DmaEngine("ioatdma", channels=4, public=True),)
    config = HostConfig(engines=engines, dmaengine_users=1, workloads=(TRAFFIC,), numa_nodes=numa_nodes)
    settings = {"engine": "DMA", "channels": 2, "reasons": reasons}
    return rig_on(folder, config, settings, acceptedRisks=["UnverifiedEngine", "SharedEngine"])


def test_an_engine_that_copies_nothing_is_told_after_own_pages_have_shown_it(tmp_path: Path) -> None:
    rig = ineffective(tmp_path, ["damon", "syscall_or_cpuset"])

    rig.pass_time(60)

    assert rig.condition("Degraded")["status"] == "True"
    assert rig.group()["reason"] == rig.condition("Degraded")["reason"] == "OffloadIneffective"
    assert rig.group()["state"] == "Ready"
    assert not is_off(rig)


def test_own_pages_are_moved_between_numa_nodes_that_have_memory(tmp_path: Path) -> None:
    """One with CPUs alone takes no page, and nothing would be settled."""
    numa_nodes = (NumaNode(0, "0-7"), NumaNode(1, "8-15", memory=False), NumaNode(2, "16-23"))
    rig = ineffective(tmp_path, ["damon", "syscall_or_cpuset"], numa_nodes)

    rig.pass_time(60)

    assert (rig.condition("Degraded")["status"], rig.group()["reason"]) == ("True", "OffloadIneffective")


def test_an_engine_that_works_again_is_told_as_such(tmp_path: Path) -> None:
    rig = ineffective(tmp_path, ["damon", "mempolicy_mbind"])
    rig.pass_time(60)

    rig.kernel.set_dmaengine_users(0)
    rig.pass_time(10)

    assert rig.condition("Degraded")["status"] == "False"
    assert rig.group()["reason"] == "AsExpected"


def test_traffic_that_is_not_eligible_is_no_fault_of_the_engine(tmp_path: Path) -> None:
    config = HostConfig(workloads=(BALANCING,))
    rig = rig_on(tmp_path, config, {"engine": "DMA", "channels": 2, "reasons": ["syscall_or_cpuset"]})

    rig.pass_time(120)

    assert probes(rig)
    assert rig.condition("Degraded")["status"] == "False"


def test_a_suspicion_that_own_pages_cannot_settle_is_unknown_and_no_guess(tmp_path: Path) -> None:
    rig = ineffective(tmp_path, ["damon", "demotion"])

    rig.pass_time(60)

    assert rig.condition("Degraded")["status"] == "Unknown"
    assert "no enabled reason" in rig.condition("Degraded")["message"]
    assert probes(rig) == []


def test_own_pages_are_moved_once_in_some_minutes_at_most(tmp_path: Path) -> None:
    rig = ineffective(tmp_path, ["damon", "syscall_or_cpuset"])

    rig.pass_time(900)

    assert 2 <= len(probes(rig)) <= 5


def test_no_own_pages_are_moved_while_tasks_wait_for_memory(tmp_path: Path) -> None:
    rig = ineffective(tmp_path, ["damon", "syscall_or_cpuset"])
    rig.kernel.set_pressure("memory", 0.5)
    before = rig.kernel.snapshot().vmstat["pgmigrate_success"]

    rig.pass_time(60)

    moved = rig.kernel.snapshot().vmstat["pgmigrate_success"] - before
    assert moved == TRAFFIC.folios_per_second * 60
    assert rig.condition("Degraded")["status"] == "False"


def test_channels_that_are_all_in_use_by_others_are_told(tmp_path: Path) -> None:
    rig = rig_on(tmp_path)
    rig.kernel.set_engines([DmaEngine("ptdma", channels=4, taken=4)])

    rig.pass_time(60)

    assert rig.group()["reason"] == rig.condition("Degraded")["reason"] == "ChannelsExhausted"
    assert rig.group()["state"] == "Ready"


def test_a_hang_is_found_where_the_driver_keeps_its_channels(tmp_path: Path) -> None:
    """Promise 16: in_use says nothing there, so own pages are sent after the work that has stopped."""
    config = HostConfig(dialect=Dialect.V6_SDXI, engines=(DmaEngine("sdxi", public=True),), workloads=(TRAFFIC,))
    settings = {"engine": "DMA", "channels": 1, "reasons": ["damon", "syscall_or_cpuset"]}
    rig = rig_on(tmp_path, config, settings, acceptedRisks=["UnverifiedEngine", "SharedEngine"])
    rig.pass_time(300)
    assert turn_offs(rig) == 0
    rig.kernel.set_engines((DmaEngine("sdxi", public=True, hangs=True, terminate_seconds=30),))

    rig.until(lambda: bool(rig.kernel.blocked), OFF_SECONDS_MAX)

    assert rig.group()["reason"] == "EngineStalled"
    rig.until(lambda: is_off(rig), 60)


def test_own_pages_that_do_not_come_back_are_a_stall(tmp_path: Path) -> None:
    """Promise 16: also where other traffic does not show it."""
    rig = rig_on(tmp_path, HostConfig(workloads=(BALANCING,)), {**OFFLOAD, "reasons": ["syscall_or_cpuset"]})
    rig.kernel.set_engines(HUNG)

    rig.until(lambda: is_off(rig), 60 + OFF_SECONDS_MAX)

    rig.pass_time(15)
    assert rig.group()["reason"] == "EngineStalled"


# --- what it costs


def test_nothing_is_sampled_while_no_engine_is_on(rig: LiveRig) -> None:
    rig.wish({"offload": wish({"engine": "Off"})})
    since = rig.now

    rig.pass_time(300)

    assert rig.began(ReadSigns, since + 1) == []


def test_the_channels_are_sampled_each_few_seconds_while_an_engine_is_on_and_idle(tmp_path: Path) -> None:
    rig = rig_on(tmp_path, HostConfig())
    since = rig.now

    rig.pass_time(60)

    assert 24 <= len(rig.began(ReadSigns, since)) <= 32


def test_a_status_with_a_stall_stays_small(rig: LiveRig) -> None:
    """Promise 12."""
    stalled(rig)

    assert len(json.dumps(rig.status)) < 10_000
