# SPDX-License-Identifier: Apache-2.0
"""The whole agent on a fake kernel in virtual time: what a node sees, end to end, but for threads and sockets."""

from __future__ import annotations

import copy
import json
from errno import ENODEV, EROFS
from pathlib import Path

import pytest

from numamigration_agent.baseline import FILE_NAME
from numamigration_agent.change import SaveBaselines, WriteKnob
from numamigration_agent.cluster import ApplyKind, ApplyResult, StateSeen
from numamigration_agent.events import JobDone
from numamigration_agent.jobs import Broken, Probe, ReadCounters
from numamigration_agent.kernel.probe import UNKNOWN_FILES_MAX
from numamigration_agent.lanes import JOB_SECONDS_MAX, Lane
from numamigration_api.vocabulary import Dialect, MigrationReason
from tests.fakekernel.config import DmaEngine, HostConfig, Spoiled, Workload
from tests.unit.agent_rig import APPLIED, OFFLOAD, TIMING, Rig, wish

CHANNELS = "/sys/module/dcbm/parameters/nr_dma_chan"
OFFLOADING = "/sys/module/dcbm/parameters/offloading"
REASON_MASK = "/sys/module/dcbm/parameters/reason_mask"
RATE_LIMIT = "/proc/sys/kernel/numa_balancing_promote_rate_limit_MBps"
EVERY_GROUP = {
    "offload": wish(OFFLOAD),
    "balancing": wish({"mode": "Tiering", "promoteRateLimitMBps": 2048}),
    "demotion": wish({"enabled": True}),
}


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    rig = Rig(tmp_path / "state")
    rig.settle()
    return rig


# --- the straight way


def test_a_node_that_nobody_wants_anything_of_reports_itself_and_writes_nothing(rig: Rig) -> None:
    assert rig.stores == []
    assert (rig.status["dialect"], rig.status["offload"]) == ("V6", "Off")
    assert rig.condition("Ready")["reason"] == "NoSettings"


def test_a_wish_becomes_kernel_settings_and_a_status_that_says_so(rig: Rig) -> None:
    rig.wish(EVERY_GROUP)

    snapshot = rig.kernel.snapshot()
    assert (snapshot.offloading, snapshot.nr_dma_chan, snapshot.reasons) == (True, 4, ("demotion", "damon"))
    assert (snapshot.numa_balancing, snapshot.promote_rate_limit, snapshot.demotion_enabled) == (2, 2048, True)
    assert {name: group["state"] for name, group in rig.status["groups"].items()} == dict.fromkeys(EVERY_GROUP, "Ready")
    assert rig.status["offload"] == "DMA, 4 channels"
    assert rig.status["observedRevision"] == rig.object["spec"]["revision"]
    assert rig.condition("Ready")["status"] == "True"
    assert rig.condition("Verified")["reason"] == "VerificationOff"
    assert {row["outcome"] for row in rig.status["knobs"]} == {"Applied"}
    assert rig.knob("offload.channels")["baseline"] == "1"
    assert "settledAt" in rig.status


def test_the_baselines_are_reported_before_the_first_write(rig: Rig) -> None:
    """Promise 1: the file alone would be lost with the host's folder."""
    rig.answer = ApplyResult(ApplyKind.RETRY, "the API server is not ready")

    rig.wish(EVERY_GROUP)
    rig.pass_time(120)
    assert rig.stores == []
    assert (rig.folder / FILE_NAME).exists()

    rig.answer = APPLIED
    rig.pass_time(120)
    assert rig.kernel.snapshot().offloading


def test_a_wish_that_changed_before_anything_was_written_is_not_carried_out(rig: Rig) -> None:
    rig.answer = ApplyResult(ApplyKind.RETRY, "the API server is not ready")
    rig.wish({"offload": wish(OFFLOAD)})
    rig.answer = APPLIED

    rig.wish({"demotion": wish({"enabled": True})})
    rig.pass_time(120)

    assert rig.stores == [("demotion_enabled", "1")]
    assert "baseline" not in rig.knob("offload.channels")


def test_a_wish_that_changed_while_its_baselines_were_saved_is_not_carried_out(rig: Rig) -> None:
    rig.holds = SaveBaselines
    rig.wish({"offload": wish(OFFLOAD)})
    rig.wish({"demotion": wish({"enabled": True})})

    rig.release()

    assert rig.stores == [("demotion_enabled", "1")]


def test_what_a_person_sets_while_the_baselines_wait_for_their_report_is_the_baseline(rig: Rig) -> None:
    """Promise 7: the value of before is the one that our first write replaces."""
    rig.answer = ApplyResult(ApplyKind.FORBIDDEN, "no rights")
    rig.wish({"offload": wish(OFFLOAD)})
    rig.pass_time(600)
    rig.kernel.drift(CHANNELS, "8")
    rig.answer = APPLIED

    rig.pass_time(200)

    assert rig.kernel.snapshot().nr_dma_chan == 4
    assert rig.knob("offload.channels")["baseline"] == "8"


def test_what_a_person_sets_before_the_next_try_is_the_baseline_whatever_else_was_written(rig: Rig) -> None:
    """Promise 7: another unit of the same change was in force at once, and is not asked about this one."""
    rig.kernel.spoil(RATE_LIMIT, Spoiled(write_error=EROFS))
    balancing = wish({"mode": "Normal", "promoteRateLimitMBps": 1024})
    rig.wish({"balancing": balancing, "demotion": wish({"enabled": True})})
    rig.kernel.heal(RATE_LIMIT)
    rig.kernel.drift(RATE_LIMIT, "100")
    rig.pass_time(600)
    assert (rig.group("balancing")["state"], rig.kernel.snapshot().promote_rate_limit) == ("Ready", 1024)

    rig.wish({"balancing": {**balancing, "mode": "Restore"}})

    assert rig.kernel.snapshot().promote_rate_limit == 100


def test_what_a_person_sets_while_another_unit_is_written_is_the_baseline_of_what_was_right_so_far(rig: Rig) -> None:
    """Promise 7: a knob that held what was wished is captured, and nobody has looked since whether it still does."""
    rig.holds = WriteKnob
    rig.wish({"demotion": wish({"enabled": True}), "balancing": wish({"mode": "Normal"})})
    rig.kernel.drift("/proc/sys/kernel/numa_balancing", "3")
    rig.wish({"demotion": wish({"enabled": True}), "balancing": wish({"mode": "Tiering"})})
    rig.release()
    rig.pass_time(600)
    assert rig.kernel.snapshot().numa_balancing == 2

    rig.wish({"balancing": wish({"mode": "Tiering"}, mode="Restore")})

    assert rig.kernel.snapshot().numa_balancing == 3


def test_what_a_person_sets_before_a_captured_knob_is_given_back_unwritten_is_its_baseline(rig: Rig) -> None:
    """Promise 7: a look that found the value of before does not say that it is still there when we write."""
    limited = {"mode": "Tiering", "promoteRateLimitMBps": 1024}
    rig.answer = ApplyResult(ApplyKind.RETRY, "no answer")
    rig.wish({"demotion": wish({"enabled": True}), "balancing": wish(limited)})
    rig.holds = WriteKnob
    rig.answer = APPLIED
    rig.wish({"demotion": wish({"enabled": True}), "balancing": wish(limited, mode="Restore")})
    rig.kernel.drift(RATE_LIMIT, "100")
    rig.wish({"demotion": wish({"enabled": True}), "balancing": wish(limited)})
    rig.release()
    rig.pass_time(600)
    assert rig.kernel.snapshot().promote_rate_limit == 1024

    rig.wish({"balancing": wish(limited, mode="Restore")})

    assert rig.kernel.snapshot().promote_rate_limit == 100


def test_reasons_that_a_mask_has_shown_restrict_nothing_once_it_has_gone(rig: Rig) -> None:
    """Promise 3: the names are remembered, the file that leaves the others out is not there."""
    rig.wish({"offload": wish({"engine": "Off"})})
    rig.kernel.spoil(REASON_MASK, Spoiled(read_error=ENODEV))

    rig.wish({"offload": wish({"engine": "DMA", "reasons": ["demotion"]})})

    assert (rig.group()["state"], rig.group()["reason"]) == ("Refused", "ReasonsNotRestrictable")
    assert not rig.kernel.snapshot().offloading


def test_the_baseline_of_a_knob_that_was_right_from_the_start_outlives_drift(rig: Rig) -> None:
    """Promise 7."""
    rig.wish({"offload": wish({**OFFLOAD, "engine": "Off", "channels": 1})})
    rig.kernel.drift(CHANNELS, "8")

    rig.pass_time(60)

    assert rig.kernel.snapshot().nr_dma_chan == 1
    assert rig.knob("offload.channels")["baseline"] == "1"


def test_baselines_that_are_safe_already_are_not_saved_again(rig: Rig) -> None:
    rig.wish({"offload": wish(OFFLOAD)})
    saved = (rig.folder / FILE_NAME).stat().st_ino

    rig.wish({"offload": wish({**OFFLOAD, "channels": 2})})

    assert (rig.folder / FILE_NAME).stat().st_ino == saved


def test_the_same_spec_again_writes_and_reports_nothing(rig: Rig) -> None:
    rig.wish(EVERY_GROUP)
    stores, reports = list(rig.stores), len(rig.reports)

    rig.send(StateSeen(rig.object))
    rig.pass_time(60)

    assert (rig.stores, len(rig.reports)) == (stores, reports)


def test_a_change_that_needs_no_new_baseline_costs_one_report(rig: Rig) -> None:
    rig.wish({"offload": wish(OFFLOAD)})
    reports = len(rig.reports)

    rig.wish({"offload": wish({**OFFLOAD, "channels": 2})})

    assert len(rig.reports) == reports + 1
    assert rig.kernel.snapshot().nr_dma_chan == 2


def test_a_stock_kernel_gets_the_mainline_knobs_and_offload_is_unsupported(tmp_path: Path) -> None:
    rig = Rig(tmp_path, HostConfig(dialect=Dialect.NO_SERIES))

    rig.wish(EVERY_GROUP)

    assert rig.group()["state"] == "Unsupported"
    assert rig.group("balancing")["state"] == "Ready"
    assert (rig.status["offload"], rig.status["dialect"]) == ("Unsupported", "NoSeries")
    assert rig.condition("Supported")["status"] == "False"
    assert rig.condition("Degraded")["status"] == "False"
    assert "foliosMigrated" not in rig.status["statistics"]


def test_a_plan_is_reported_and_nothing_of_it_written(rig: Rig) -> None:
    source = {"policy": "trial", "uid": "uid-9", "generation": 7}
    plan = {"source": source, "settings": {"offload": OFFLOAD}, "verification": "Off", "acceptedRisks": []}

    rig.wish(plans=[plan, {**plan, "acceptedRisks": ["UnverifiedEngine"]}])

    assert rig.stores == []
    assert [(plan["state"], plan["wouldChange"]) for plan in rig.status["plans"]] == [("Refused", 0), ("Ready", 3)]
    assert rig.status["plans"][0]["generation"] == 7


def test_v5_is_set_counted_and_restored(tmp_path: Path) -> None:
    """Promise 7."""
    rig = Rig(tmp_path, HostConfig(dialect=Dialect.V5))
    before = rig.kernel.snapshot()
    body = wish({"engine": "DMA", "channels": 4}, acceptedRisks=["UnverifiedEngine", "DirectIOLostWrite"])

    rig.wish({"offload": body})
    rig.pass_time(700)

    assert (rig.group()["state"], rig.status["offload"]) == ("Ready", "DMA, 4 channels")
    assert rig.stores == [("nr_dma_chan", "4"), ("offloading", "1")]
    assert rig.status["capabilities"]["migrationReasons"] == [
        "compaction",
        "demotion",
        "numa_misplaced",
        "syscall_or_cpuset",
    ]
    assert rig.status["statistics"]["foliosMigrated"] == 0

    rig.wish({"offload": {**body, "mode": "Restore"}})
    assert rig.kernel.snapshot() == before


# --- failures


def test_another_migrator_makes_the_group_failed_and_leaves_the_kernel_as_it_was(tmp_path: Path) -> None:
    """Promise 4."""
    rig = Rig(tmp_path, HostConfig(other_migrator=True))
    before = rig.kernel.snapshot()

    rig.wish(EVERY_GROUP)

    assert (rig.group()["state"], rig.group()["reason"]) == ("Failed", "MigratorBusy")
    assert rig.knob("offload.engine")["outcome"] == "Rejected"
    assert rig.condition("Ready")["reason"] == "MigratorBusy"
    assert rig.condition("Degraded")["status"] == "True"
    assert rig.group("demotion")["state"] == "Ready"
    after = rig.kernel.snapshot()
    assert (after.offloading, after.nr_dma_chan, after.reasons) == (False, before.nr_dma_chan, before.reasons)
    assert "settledAt" not in rig.status


def test_a_failure_is_retried_with_pauses_and_heals_by_itself(tmp_path: Path) -> None:
    rig = Rig(tmp_path, HostConfig(other_migrator=True))
    rig.wish({"offload": wish(OFFLOAD)})
    tries = len(rig.stores)
    rig.pass_time(4)
    assert len(rig.stores) == tries

    rig.kernel.set_other_migrator(registered=False)
    rig.pass_time(30)

    assert rig.group()["state"] == "Ready"
    assert rig.kernel.snapshot().offloading


@pytest.mark.uncounted
def test_a_failure_that_lasts_is_not_tried_without_end(tmp_path: Path) -> None:
    rig = Rig(tmp_path, HostConfig(other_migrator=True))
    rig.wish({"offload": wish(OFFLOAD)})

    rig.pass_time(3600)

    assert sum(name == "offloading" for name, _ in rig.stores) < 40


def test_a_new_spec_ends_the_pause_after_a_failure(tmp_path: Path) -> None:
    rig = Rig(tmp_path, HostConfig(other_migrator=True))
    rig.wish({"offload": wish(OFFLOAD)})
    rig.kernel.set_other_migrator(registered=False)

    rig.wish({"offload": wish({**OFFLOAD, "channels": 2})})

    assert rig.group()["state"] == "Ready"


@pytest.mark.parametrize(
    ("config", "group", "reason"),
    [
        pytest.param(HostConfig(read_only=True), "demotion", "ReadOnlyFileSystem", id="read-only mount"),
        pytest.param(HostConfig(cap_sys_admin=False), "balancing", "PermissionDenied", id="no CAP_SYS_ADMIN"),
    ],
)
def test_what_the_host_forbids_has_its_own_word(tmp_path: Path, config: HostConfig, group: str, reason: str) -> None:
    """Promise 11."""
    rig = Rig(tmp_path, config)

    rig.wish(EVERY_GROUP)

    assert (rig.group(group)["state"], rig.group(group)["reason"]) == ("Failed", reason)


def test_what_the_host_forbids_is_said_with_the_value_of_the_chart(tmp_path: Path) -> None:
    rig = Rig(tmp_path, HostConfig(cap_sys_admin=False))

    rig.wish(EVERY_GROUP)

    assert "EPERM" in rig.group("balancing")["message"]
    assert "set the chart's agent.hostWrite.procSysKernel=true" in rig.group("balancing")["message"]


def test_a_state_folder_that_cannot_be_written_stops_every_write(tmp_path: Path) -> None:
    """Promise 1."""
    (tmp_path / "state").write_text("a file where the folder should be")
    rig = Rig(tmp_path / "state")

    rig.wish(EVERY_GROUP)

    assert {group["reason"] for group in rig.status["groups"].values()} == {"BaselineNotSaved"}
    assert rig.stores == []


def test_a_damaged_baseline_file_without_a_status_stops_every_write(tmp_path: Path) -> None:
    """Promise 1: the values of before may have been in it."""
    (tmp_path / FILE_NAME).write_text("{")
    rig = Rig(tmp_path)

    rig.wish(EVERY_GROUP)

    assert {group["reason"] for group in rig.status["groups"].values()} == {"BaselineNotSaved"}
    assert rig.stores == []


def test_a_damaged_baseline_file_stops_every_write_of_the_next_agent_too(tmp_path: Path) -> None:
    """Promise 1: the status that the first agent wrote has no baselines, and that is no proof that there were none."""
    (tmp_path / FILE_NAME).write_text("{")
    rig = Rig(tmp_path)
    rig.settle()

    rig.restart()
    rig.wish(EVERY_GROUP)

    assert rig.stores == []
    assert rig.condition("Degraded")["reason"] == "BaselineNotSaved"


def test_nothing_is_said_to_be_restored_when_the_baselines_are_unknown(tmp_path: Path) -> None:
    """Promise 7."""
    (tmp_path / FILE_NAME).write_text("{")
    rig = Rig(tmp_path)

    rig.wish({"offload": wish(OFFLOAD, mode="Restore")})

    assert (rig.group()["state"], rig.group()["reason"]) == ("Failed", "BaselineNotSaved")


def test_the_failure_of_a_wish_that_is_no_more_neither_delays_nor_speaks_for_the_next_one(tmp_path: Path) -> None:
    """Promise 11."""
    rig = Rig(tmp_path, HostConfig(other_migrator=True))
    rig.settle()
    rig.holds = WriteKnob
    rig.wish({"offload": wish(OFFLOAD)})
    rig.wish({"offload": wish({"engine": "Off"})})

    rig.release()

    assert rig.group()["state"] == "Ready"


# --- restarts


@pytest.mark.parametrize("lost", ["nothing", "file", "status"])
def test_restore_gives_back_the_values_of_before_after_a_restart(rig: Rig, lost: str) -> None:
    """Promises 6 and 7: the agent's end changes nothing, and either home of the baselines is enough."""
    before = rig.kernel.snapshot()
    rig.wish(EVERY_GROUP)
    stores = list(rig.stores)
    if lost == "file":
        (rig.folder / FILE_NAME).unlink()
    if lost == "status":
        rig.object = {**rig.object, "status": {}, "metadata": {**rig.object["metadata"], "uid": "state-2"}}

    rig.restart()
    rig.settle()
    assert rig.stores == stores

    rig.wish({name: {**body, "mode": "Restore"} for name, body in EVERY_GROUP.items()})
    assert rig.kernel.snapshot() == before
    assert {group["state"] for group in rig.status["groups"].values()} == {"Restored"}
    assert json.loads((rig.folder / FILE_NAME).read_text())["values"] == {}
    assert not any("baseline" in row for row in rig.status["knobs"])


def test_restore_turns_offload_off_before_anything_else(rig: Rig) -> None:
    """Promise 4."""
    rig.wish({"offload": wish(OFFLOAD)})
    stores = len(rig.stores)

    rig.wish({"offload": wish(OFFLOAD, mode="Restore")})

    assert rig.stores[stores] == ("offloading", "0")


def test_an_agent_that_died_in_the_middle_of_a_change_finishes_it(rig: Rig) -> None:
    """Promise 1: the second agent does not take the first one's value for the value of before."""
    rig.holds = WriteKnob
    rig.wish({"offload": wish(OFFLOAD)})
    (_, job), *_ = rig.held
    assert isinstance(job, WriteKnob)
    rig.kernel.drift(job.knob.path, job.value)  # the write arrived, its answer did not

    rig.holds = None
    rig.restart()
    rig.settle()

    assert rig.group()["state"] == "Ready"
    assert rig.knob("offload.channels")["baseline"] == "1"


def test_totals_go_on_after_a_restart(rig: Rig) -> None:
    rig.wish({"offload": wish(OFFLOAD)})
    rig.kernel.set_workloads([Workload(MigrationReason.DAMON, 1000)])
    rig.kernel.advance(10)
    rig.pass_time(700)
    total = rig.status["statistics"]["foliosMigrated"]
    since = rig.status["statistics"]["since"]

    rig.restart()
    rig.pass_time(700)

    assert total > 0
    assert rig.status["statistics"]["foliosMigrated"] == total
    assert rig.status["statistics"]["since"] == since


# --- the wish ends


def test_an_absent_group_is_not_touched_and_its_baseline_is_forgotten(rig: Rig) -> None:
    rig.wish({"offload": wish(OFFLOAD)})
    stores = list(rig.stores)

    rig.wish({})

    assert rig.stores == stores
    assert "groups" not in rig.status
    assert "baseline" not in rig.knob("offload.channels")


def test_a_deleted_node_state_changes_no_knob_and_forgets_nothing(rig: Rig) -> None:
    """Promises 6 and 13: it may be made anew with the same wish."""
    rig.wish({"offload": wish(OFFLOAD)})
    stores = list(rig.stores)

    rig.delete_state()
    rig.pass_time(60)
    assert rig.stores == stores

    rig.wish({"offload": wish(OFFLOAD)})
    assert rig.status["groups"]["offload"]["state"] == "Ready"
    assert rig.knob("offload.channels")["baseline"] == "1"


def test_a_node_state_that_the_operator_has_not_written_to_yet_forgets_nothing(rig: Rig) -> None:
    """Promise 7: our own values would become the values of before."""
    rig.wish({"offload": wish(OFFLOAD)})
    rig.delete_state()

    rig.send(StateSeen(rig.object))
    rig.wish({"offload": wish(OFFLOAD)})

    assert rig.knob("offload.channels")["baseline"] == "1"


@pytest.mark.parametrize("restarts", [False, True], ids=["", "restarted"])
def test_a_group_that_a_new_node_state_never_had_ends_no_wish(rig: Rig, restarts: bool) -> None:
    """Promise 7: an operator that knows nothing of the deleted one has to reserve the node before it pushes a group."""
    rig.wish({"offload": wish(OFFLOAD), "demotion": wish({"enabled": True})})
    rig.delete_state()
    if restarts:
        rig.restart()

    rig.wish({})
    rig.wish({"offload": wish(OFFLOAD)})
    rig.wish({"offload": wish(OFFLOAD), "demotion": wish({"enabled": True})})

    assert (rig.knob("offload.channels")["baseline"], rig.knob("demotion.enabled")["baseline"]) == ("1", "false")


@pytest.mark.parametrize("restarts", [False, True], ids=["", "restarted"])
def test_a_group_that_a_new_node_state_had_ends_with_it(rig: Rig, restarts: bool) -> None:
    """Promise 7: with Keep it is dropped, and what is there is the node's own from then on."""
    rig.wish({"offload": wish(OFFLOAD)})
    rig.delete_state()
    kept = wish({**OFFLOAD, "channels": 3}, release="Keep")
    rig.wish({"offload": kept})
    if restarts:
        rig.restart()

    rig.wish({})
    rig.wish({"offload": wish({**OFFLOAD, "channels": 4})})

    assert rig.knob("offload.channels")["baseline"] == "3"


def test_migration_reasons_that_were_kept_do_not_hide_the_others_from_the_next_policy(rig: Rig) -> None:
    rig.wish({"offload": wish(OFFLOAD, release="Keep")})
    rig.wish({})
    rig.restart()

    rig.wish({"offload": wish({**OFFLOAD, "reasons": ["compaction"]})})

    assert rig.group()["state"] == "Ready"
    assert rig.kernel.snapshot().reasons == ("compaction",)


def test_a_mask_that_we_narrowed_still_tells_the_names_of_before_when_the_status_is_lost(rig: Rig) -> None:
    rig.wish({"offload": wish(OFFLOAD)})
    rig.object["status"] = {}
    rig.restart()

    rig.wish({"offload": wish({**OFFLOAD, "reasons": ["compaction"]})})

    assert rig.kernel.snapshot().reasons == ("compaction",)


def test_a_paused_policy_holds_what_is_there(rig: Rig) -> None:
    rig.wish({"offload": wish(OFFLOAD)})
    stores = list(rig.stores)

    rig.wish({"offload": wish({**OFFLOAD, "channels": 1}, mode="Hold")})

    assert (rig.group()["state"], rig.group()["reason"]) == ("Held", "Paused")
    assert rig.stores == stores
    assert rig.knob("offload.channels")["baseline"] == "1"


# --- drift


def test_drift_is_corrected_and_told(rig: Rig) -> None:
    rig.wish({"offload": wish(OFFLOAD)})
    rig.kernel.drift(CHANNELS, "1")

    rig.pass_time(16)

    assert rig.kernel.snapshot().nr_dma_chan == 4
    assert rig.condition("Drifted")["reason"] == "DriftCorrected"
    assert "offload.channels" in rig.condition("Drifted")["message"]
    assert rig.group()["state"] == "Ready"


def test_a_correction_is_told_for_a_while_only(tmp_path: Path) -> None:
    rig = Rig(tmp_path, timing=TIMING._replace(report_min=3600, report_max=3600))
    rig.wish({"offload": wish(OFFLOAD)})
    rig.kernel.drift(CHANNELS, "1")
    rig.pass_time(16)

    rig.pass_time(400)

    assert rig.condition("Drifted")["reason"] == "AsExpected"


@pytest.mark.uncounted
def test_somebody_who_drifts_again_and_again_is_corrected_with_pauses(rig: Rig) -> None:
    rig.wish({"offload": wish(OFFLOAD)})
    corrections = len(rig.stores)
    for _ in range(200):
        rig.kernel.drift(CHANNELS, "1")
        rig.pass_time(15)

    ours = [store for store in rig.stores[corrections:] if store == ("nr_dma_chan", "4")]
    assert 3 < len(ours) < 60


def test_drift_that_waits_for_its_correction_is_shown(rig: Rig) -> None:
    rig.wish({"offload": wish(OFFLOAD)})
    for _ in range(3):
        rig.kernel.drift(CHANNELS, "1")
        rig.pass_time(15.1)
    while rig.kernel.snapshot().nr_dma_chan == 4:
        rig.kernel.drift(CHANNELS, "1")
        rig.pass_time(15.1)

    assert rig.condition("Drifted")["status"] == "True"
    assert (rig.group()["state"], rig.group()["reason"]) == ("Pending", "DriftDetected")


@pytest.mark.parametrize(
    ("drift", "status"), [pytest.param("Report", "True", id="report"), pytest.param("Ignore", "False", id="ignore")]
)
@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
def test_drift_is_left_where_the_policy_says_so(rig: Rig, drift: str, status: str, restarted: bool) -> None:
    rig.wish({"offload": wish(OFFLOAD, drift=drift)})
    rig.kernel.drift(CHANNELS, "1")

    if restarted:
        rig.restart()
    rig.pass_time(31)

    assert rig.kernel.snapshot().nr_dma_chan == 1
    assert rig.condition("Drifted")["status"] == status
    assert rig.group()["state"] == "Ready"
    assert rig.knob("offload.channels")["observed"] == "1"


@pytest.mark.parametrize("drift", ["Correct", "Report"])
def test_a_driver_that_was_loaded_anew_gets_its_settings_again(rig: Rig, drift: str) -> None:
    rig.wish({"offload": wish(OFFLOAD, drift=drift)})
    rig.kernel.drift(OFFLOADING, "0")
    rig.kernel.unload()
    rig.pass_time(16)
    assert rig.group()["state"] == "Unsupported"
    assert rig.knob("offload.channels")["baseline"] == "1"

    rig.kernel.load()
    rig.pass_time(16)

    assert rig.group()["state"] == "Ready"
    assert rig.kernel.snapshot().offloading
    assert rig.condition("Drifted")["reason"] == "AsExpected"


@pytest.mark.parametrize("drift", ["Correct", "Report"])
def test_offload_that_we_turned_off_ourselves_comes_back_and_is_no_drift(rig: Rig, drift: str) -> None:
    rig.wish({"offload": wish(OFFLOAD, drift=drift)})
    rig.kernel.set_engines([])
    rig.pass_time(16)

    rig.kernel.set_engines(rig.config.engines)
    rig.pass_time(16)

    assert rig.kernel.snapshot().offloading
    assert rig.condition("Drifted")["reason"] == "AsExpected"


def test_a_wish_that_comes_back_while_another_is_written_is_carried_out_and_is_no_drift(rig: Rig) -> None:
    rig.wish({"offload": wish(OFFLOAD, drift="Report")})
    rig.holds = WriteKnob
    rig.wish({"offload": wish({**OFFLOAD, "channels": 2}, drift="Report")})
    rig.wish({"offload": wish(OFFLOAD, drift="Report")})

    rig.release()

    assert rig.kernel.snapshot().nr_dma_chan == 4


def test_offload_is_turned_off_when_the_last_channel_goes(rig: Rig) -> None:
    """Promise 3's sister: on without a channel is a silent nothing."""
    rig.wish({"offload": wish(OFFLOAD)})
    rig.kernel.set_engines([])

    rig.pass_time(16)

    assert not rig.kernel.snapshot().offloading
    assert rig.group()["reason"] == "NoDmaChannel"


# --- blocked files


def test_a_write_that_blocks_is_told_and_everything_else_goes_on(rig: Rig) -> None:
    """Promise 10."""
    rig.wish({"offload": wish(OFFLOAD)})
    rig.holds = WriteKnob

    rig.wish({"offload": wish({"engine": "Off"}), "demotion": wish({"enabled": True})})
    rig.pass_time(JOB_SECONDS_MAX + 1)

    assert (rig.group()["state"], rig.group()["reason"]) == ("Pending", "KernelFileBlocked")
    assert OFFLOADING in rig.group()["message"]
    assert rig.condition("Degraded")["reason"] == "KernelFileBlocked"
    reports = len(rig.reports)
    rig.pass_time(700)
    assert len(rig.reports) > reports


def test_counters_are_read_on_while_a_write_blocks(rig: Rig) -> None:
    """Promise 10: lanes do not wait for each other."""
    rig.wish({"offload": wish(OFFLOAD)})
    rig.holds = WriteKnob
    rig.wish({"offload": wish(OFFLOAD), "demotion": wish({"enabled": True})})
    rig.kernel.set_workloads([Workload(MigrationReason.DAMON, 1000)])
    rig.kernel.advance(10)

    rig.pass_time(700)

    assert rig.status["statistics"]["foliosMigrated"] > 0


def test_the_late_answer_of_a_blocked_write_ends_the_change(rig: Rig) -> None:
    rig.wish({"offload": wish(OFFLOAD)})
    rig.holds = WriteKnob
    rig.wish({"offload": wish({"engine": "Off"})})
    rig.pass_time(60)

    rig.release()

    assert not rig.kernel.snapshot().offloading
    assert rig.group()["state"] == "Ready"
    assert rig.condition("Degraded")["status"] == "False"


def test_a_wish_that_comes_while_a_write_is_blocked_is_carried_out_after_it(rig: Rig) -> None:
    rig.wish({"offload": wish(OFFLOAD)})
    rig.holds = WriteKnob
    rig.wish({"offload": wish({"engine": "Off"})})
    rig.pass_time(60)
    rig.wish({"offload": wish({**OFFLOAD, "channels": 2})})

    rig.release()

    snapshot = rig.kernel.snapshot()
    assert (snapshot.offloading, snapshot.nr_dma_chan) == (True, 2)
    assert rig.status["observedRevision"] == rig.object["spec"]["revision"]


@pytest.mark.parametrize("kind", [Probe, ReadCounters])
def test_a_read_that_blocks_is_told(rig: Rig, kind: type[Probe | ReadCounters]) -> None:
    """Promise 10: while a turn-off blocks, reading any parameter of the module blocks too."""
    rig.wish({"offload": wish(OFFLOAD)})
    rig.holds = kind

    rig.pass_time(15 + JOB_SECONDS_MAX + 1)
    assert rig.condition("Degraded")["reason"] == "KernelFileBlocked"

    rig.release()
    rig.pass_time(16)
    assert rig.condition("Degraded")["status"] == "False"


def test_an_error_of_this_program_in_a_job_ends_the_process(rig: Rig) -> None:
    """A lane that waits for an answer that never comes would look like a blocked kernel for ever."""
    rig.holds = Probe
    rig.pass_time(16)

    with pytest.raises(ZeroDivisionError):
        rig.send(JobDone(Lane.KNOBS, Broken(ZeroDivisionError())))


# --- reports


def test_without_a_change_reports_come_at_the_drawn_interval(rig: Rig) -> None:
    reports = len(rig.reports)

    rig.pass_time(3600)

    assert 3600 / 600 - 1 <= len(rig.reports) - reports <= 3600 / 300 + 1


def test_moving_counters_alone_are_no_change(rig: Rig) -> None:
    """Promise 12."""
    rig.wish({"offload": wish(OFFLOAD)})
    rig.kernel.set_workloads([Workload(MigrationReason.DAMON, 1000)])
    reports = len(rig.reports)

    for _ in range(20):
        rig.kernel.advance(10)
        rig.pass_time(10)
        rig.send(StateSeen(rig.object))  # whatever makes the agent look whether something is to be told

    assert len(rig.reports) == reports


def test_rates_are_those_of_the_last_window(tmp_path: Path) -> None:
    rig = Rig(tmp_path, timing=TIMING._replace(report_min=10, report_max=10))
    rig.wish({"offload": wish(OFFLOAD)})
    rig.kernel.set_workloads([Workload(MigrationReason.DAMON, 1000)])

    for _ in range(6):
        rig.kernel.advance(10)
        rig.pass_time(10)

    assert float(rig.status["statistics"]["foliosPerSecond"]) == pytest.approx(1000, rel=0.05)
    assert rig.status["statistics"]["windowSeconds"] == "10"


def test_counters_that_are_due_soon_are_read_with_the_look_at_the_knobs(tmp_path: Path) -> None:
    """An idle agent's time on the CPU is mostly that of waking up."""
    rig = Rig(tmp_path, timing=TIMING._replace(statistics_window=TIMING.drift_check), holds=ReadCounters)
    rig.settle()
    rig.pass_time(0.5)
    rig.release()  # so the counters are due half a second after the look

    rig.pass_time(TIMING.drift_check - 0.4)

    assert rig.agent.wake_at() - rig.now > TIMING.drift_check - 1


def test_a_look_that_is_due_soon_is_taken_with_the_counters(tmp_path: Path) -> None:
    """Or whatever wakes the agent up within that second parts the two for good."""
    rig = Rig(tmp_path, timing=TIMING._replace(statistics_window=TIMING.drift_check))
    rig.settle()

    rig.pass_time(TIMING.drift_check - 0.5)

    assert rig.agent.wake_at() - rig.now > TIMING.drift_check - 1


def test_an_api_server_that_is_away_is_asked_again_with_pauses(rig: Rig) -> None:
    rig.answer = ApplyResult(ApplyKind.RETRY, "no answer")
    rig.wish({"demotion": wish({"enabled": True}, mode="Hold")})
    rig.pass_time(600)
    assert "groups" not in rig.status

    rig.answer = APPLIED
    rig.pass_time(61)

    assert rig.group("demotion")["state"] == "Held"


def test_a_status_that_the_crd_does_not_take_is_not_sent_again_and_again(rig: Rig) -> None:
    rig.answer = ApplyResult(ApplyKind.SKEW, "apply the CRDs of this release")
    rig.wish({"demotion": wish({"enabled": True}, mode="Hold")})
    sent = rig.sent

    rig.pass_time(250)

    assert rig.sent == sent


def test_a_condition_that_moved_is_not_sent_again_and_again_to_a_crd_that_does_not_take_it(rig: Rig) -> None:
    """Promise 12: its transition time must not be made anew each second."""
    rig.answer = ApplyResult(ApplyKind.SKEW, "apply the CRDs of this release")
    rig.wish({"offload": wish(OFFLOAD, acceptedRisks=[])})
    sent = rig.sent

    rig.pass_time(250)

    assert rig.sent == sent


def test_a_status_that_somebody_took_away_is_told_again(rig: Rig) -> None:
    """Promise 1: one of the two homes of the baselines."""
    rig.wish({"offload": wish(OFFLOAD)})
    del rig.object["status"]

    rig.send(StateSeen(copy.deepcopy(rig.object)))

    assert rig.knob("offload.channels")["baseline"] == "1"


def test_conditions_keep_the_time_of_their_last_transition(rig: Rig) -> None:
    before = rig.condition("Ready")["lastTransitionTime"]
    rig.pass_time(1000)

    rig.wish({"demotion": wish({"enabled": True})})

    assert rig.condition("Ready")["lastTransitionTime"] > before
    assert rig.condition("Supported")["lastTransitionTime"] == before


def test_a_status_stays_below_ten_kilobytes(tmp_path: Path) -> None:
    """Promise 12."""
    drivers = ("ptdma", "ae4dma", "idxd", "ioatdma", "dw_dmac_platform")
    engines = tuple(DmaEngine(driver, numa_node=node, channels=1) for driver in drivers for node in range(8))
    rig = Rig(tmp_path, HostConfig(engines=engines, other_migrator=True))
    risks = {"acceptedRisks": ["UnverifiedEngine", "OutOfOrderEngine", "SharedEngine"], "verification": "Off"}
    source = {"policy": "p" * 253, "uid": "u" * 36, "generation": 1}
    balancing = {"mode": "Off", "promoteRateLimitMBps": 2048}
    settings = {"offload": OFFLOAD, "balancing": balancing, "demotion": {"enabled": True}}

    rig.wish(EVERY_GROUP | {"offload": wish(OFFLOAD, **risks)}, [{"source": source, "settings": settings, **risks}] * 3)
    rig.pass_time(700)

    unknown_files = UNKNOWN_FILES_MAX * 60  # the fake kernel has none
    assert len(json.dumps(rig.status)) + unknown_files < 10_000
