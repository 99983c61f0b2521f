# SPDX-License-Identifier: Apache-2.0
"""An engine is tried with the agent's own pages before it is trusted: the whole agent on a fake kernel."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from numamigration_agent.baseline import FILE_NAME as BASELINES
from numamigration_agent.change import SaveBaselines, WriteKnob
from numamigration_agent.cluster import ApplyKind, ApplyResult, StateGone
from numamigration_agent.jobs import MovePages
from numamigration_agent.kernel.dialects import DIALECTS, DialectRow
from numamigration_agent.kernel.engines import DmaEngines
from numamigration_agent.kernel.pages import Batch, MoveAnswer, Mover, MoveRequest, Passage, move_own_pages
from numamigration_agent.kernel.probe import probe, probe_host
from numamigration_agent.record import FILE_NAME
from numamigration_agent.verify import (
    PAIRS_MAX,
    TRY_AGAIN_SECONDS,
    WINDOW_SECONDS_MAX,
    Subject,
    Trial,
    judge,
    numa_pairs,
    parse_verdict,
    subject_of,
    verdict_json,
)
from numamigration_api.machinery.records import replace
from numamigration_api.vocabulary import AcceptedRisk, Dialect, Engine, MigrationReason, VerificationResult
from tests.fakekernel.config import DmaEngine, HostConfig, NumaNode, Spoiled, Workload
from tests.twin import twin
from tests.unit.agent_rig import OFFLOAD, TIMING, FakeSysfs, Rig, no_room, wish

OFFLOADING = "/sys/module/dcbm/parameters/offloading"
CHANNELS = "/sys/module/dcbm/parameters/nr_dma_chan"
MASK = "/sys/module/dcbm/parameters/reason_mask"

SOUND = HostConfig()
CORRUPT = HostConfig(engines=(DmaEngine("ptdma", wrong_share=0.002),) * 4)
V5 = HostConfig(dialect=Dialect.V5)
V5_WISH = {"engine": "DMA", "channels": 4}

Start = Callable[..., Rig]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    def start(config: HostConfig = SOUND) -> Rig:
        rig = Rig(tmp_path / "state", config)
        rig.settle()
        return rig

    return start


def ask(rig: Rig, settings: Any = OFFLOAD, epoch: int = 0, **changes: Any) -> None:
    """Wish for offload, with an engine that has to be tried."""
    body = wish(settings, **{"verification": "FirstUse", "acceptedRisks": [], **changes})
    rig.wish({"offload": body}, verify_epoch=epoch)


def trials(rig: Rig) -> int:
    """How often the engine was turned on with nothing but our own pages eligible."""
    return rig.stores.count(("reason_mask", "mempolicy_mbind"))


def watched(rig: Rig, seen: list[MoveRequest]) -> Mover:
    def move(request: MoveRequest) -> MoveAnswer:
        seen.append(request)
        return twin(rig.kernel)(request)

    return move


class WrittenBefore(FakeSysfs):
    """A door beside which another writer waits: his one write comes right before ours to a file."""

    def __init__(self, rig: Rig, ours: str, path: str, text: str) -> None:
        super().__init__(rig.kernel)
        self._ours, self._writes = ours, [(path, text)]

    def _store(self, path: str, data: bytes) -> None:
        if path == self._ours and self._writes:
            self.kernel.drift(*self._writes.pop())
        super()._store(path, data)


def pair(number: int = 2) -> MoveAnswer:
    return MoveAnswer(tuple(Passage(0, 1, 10) for _ in range(number)))


# --- a sound engine


def test_an_engine_copies_our_own_pages_alone_before_anybody_elses(start: Start) -> None:
    """Promises 3 and 15: the wished reasons are set when the pages have come over right, and not before."""
    rig = start()
    seen: list[tuple[str, ...]] = []

    def move(request: MoveRequest) -> MoveAnswer:
        seen.append(rig.kernel.snapshot().reasons)
        return twin(rig.kernel)(request)

    rig.move = move
    ask(rig)

    assert seen == [("mempolicy_mbind",)]
    assert rig.stores == [
        ("nr_dma_chan", "4"),
        ("reason_mask", "mempolicy_mbind"),
        ("offloading", "1"),
        ("reason_mask", "demotion,damon"),
    ]
    assert (rig.group()["state"], rig.condition("Verified")["status"]) == ("Ready", "True")


def test_every_pair_of_numa_nodes_is_tried_both_ways_with_small_huge_full_and_mixed_batches(start: Start) -> None:
    """Promise 15."""
    rig = start()
    seen: list[MoveRequest] = []
    rig.move = watched(rig, seen)

    ask(rig)

    assert {(batch.source, batch.destination) for batch in seen[0].batches} == {(0, 1), (0, 2), (1, 2)}
    assert {(batch.small, batch.huge) for batch in seen[0].batches} == {(512, 0), (61, 0), (0, 1), (511, 1)}


def test_pairs_of_numa_nodes_that_are_left_out_are_told(start: Start) -> None:
    rig = start(HostConfig(numa_nodes=tuple(NumaNode(number, str(number)) for number in range(5))))

    ask(rig)

    assert "right on both ways of 6 NUMA pairs; 4 more pairs were not tried" in rig.status["verification"]["message"]


def test_the_salt_of_a_trial_is_another_one_each_time(start: Start) -> None:
    """Promise 15: what an engine left behind in a page must not look like what it should have copied."""
    rig = start()
    seen: list[MoveRequest] = []
    rig.move = watched(rig, seen)

    ask(rig)
    ask(rig, epoch=1)

    assert len({request.salt for request in seen}) == 2


def test_the_status_says_what_was_tried_and_what_was_not(start: Start) -> None:
    rig = start()

    ask(rig, {**OFFLOAD, "channels": 3})

    found = rig.status["verification"]
    assert (found["result"], found["driver"], found["channels"], found["unverifiedChannels"]) == (
        "Passed",
        "ptdma",
        3,
        1,
    )
    assert (found["foreignFolios"], found["windowSeconds"]) == (0, "0.00")
    assert "1 more channels of this host were not tried" in found["message"]


def test_an_engine_is_tried_once_and_not_again_when_it_is_turned_on_again(start: Start) -> None:
    rig = start()
    ask(rig)
    ask(rig, {"engine": "Off"})

    ask(rig)

    assert trials(rig) == 1
    assert rig.condition("Verified")["status"] == "True"


@pytest.mark.parametrize("lost", ["nothing", "the file", "the status"])
def test_a_passed_trial_outlives_the_agent(start: Start, lost: str) -> None:
    rig = start()
    ask(rig)
    if lost == "the file":
        (rig.folder / FILE_NAME).unlink()
    if lost == "the status":
        del rig.object["status"]["verification"]

    rig.restart()
    rig.settle()

    assert trials(rig) == 1
    assert rig.condition("Verified")["status"] == "True"


def test_always_means_before_each_turn_on(start: Start) -> None:
    rig = start()
    ask(rig, verification="Always")
    ask(rig, {"engine": "Off"}, verification="Always")

    ask(rig, verification="Always")

    assert trials(rig) == 2


def test_another_number_of_channels_is_tried_while_the_engine_is_on(start: Start) -> None:
    rig = start()
    ask(rig, {**OFFLOAD, "channels": 2})

    ask(rig)

    assert rig.stores[4:] == [
        ("nr_dma_chan", "4"),
        ("reason_mask", "mempolicy_mbind"),
        ("reason_mask", "demotion,damon"),
    ]
    assert rig.status["verification"]["channels"] == 4


def test_a_driver_that_was_loaded_anew_is_tried_anew(start: Start) -> None:
    """Promise 15: the record names the load, for another build may have been loaded."""
    rig = start()
    ask(rig)
    rig.kernel.drift(OFFLOADING, "0")
    rig.kernel.unload()
    rig.kernel.load({})

    rig.pass_time(15)

    assert trials(rig) == 2
    assert rig.kernel.snapshot().reasons == ("demotion", "damon")


def test_channels_that_went_and_came_back_are_tried_anew(start: Start) -> None:
    """Promise 15: under the names of before may be another engine, and the record is about the one of before."""
    rig = start()
    ask(rig)
    rig.kernel.set_engines([])
    rig.pass_time(15)

    rig.kernel.set_engines(CORRUPT.engines)
    rig.pass_time(15)

    assert (trials(rig), rig.group()["reason"]) == (2, "CorruptionDetected")
    assert not rig.kernel.snapshot().offloading


def test_the_record_is_about_the_channels_that_can_be_taken(start: Start) -> None:
    """Promise 15: the kernel chooses among them; engines that copy no memory may come and go."""
    kernel = FakeSysfs(start().kernel)
    facts = probe(kernel, probe_host(kernel))
    known = subject_of(facts, "DMA", 4)
    serial = DmaEngines("dw_dmac", None, 8, "not known to copy memory", life=1)
    other = replace(facts.engines[0], life=1)

    assert subject_of(replace(facts, engines=(*facts.engines, serial)), "DMA", 4) == known
    assert subject_of(replace(facts, engines=(other, *facts.engines[1:])), "DMA", 4) != known


def test_a_grown_epoch_has_a_trusted_engine_tried_anew(start: Start) -> None:
    """Promise 15."""
    rig = start()
    ask(rig)

    ask(rig, epoch=1)

    assert trials(rig) == 2
    assert rig.status["verification"]["epoch"] == 1
    assert rig.kernel.snapshot().reasons == ("demotion", "damon")


def test_an_engine_that_was_on_before_us_is_tried_before_it_is_called_verified(start: Start) -> None:
    """Promise 15."""
    rig = start()
    for path, text in ((CHANNELS, "4"), (MASK, "demotion,damon"), (OFFLOADING, "1")):
        rig.kernel.drift(path, text)
    written = len(rig.stores)

    ask(rig)

    assert rig.stores[written:] == [("reason_mask", "mempolicy_mbind"), ("reason_mask", "demotion,damon")]
    assert rig.condition("Verified")["status"] == "True"


def test_where_the_kernel_cannot_restrict_the_window_opens_as_the_policy_would(start: Start) -> None:
    """Promise 3: its reasons are fixed, so the pages move under one of these, and what else comes is counted."""
    rig = start(V5)
    seen: list[str] = []

    def move(request: MoveRequest) -> MoveAnswer:
        seen.append(request.reason)
        rig.kernel.migrate(Workload(MigrationReason.DEMOTION, 0), 7)
        rig.kernel.migrate(Workload(MigrationReason.COMPACTION, 0), 7)
        return twin(rig.kernel)(request)

    rig.move = move
    ask(rig, V5_WISH, acceptedRisks=["DirectIOLostWrite"])

    assert seen == ["syscall_or_cpuset"]
    assert rig.stores == [("nr_dma_chan", "4"), ("offloading", "1")]
    assert rig.status["verification"]["foreignFolios"] == 7


DRIVEN_ENGINES = [
    pytest.param(row, engine, id=f"{row.dialect} {engine}")
    for row in DIALECTS
    if row.knobs and not row.only_turned_off
    for engine in (Engine.DMA, Engine.CPU_THREADS)
    if any(switch.turns_on(engine) for switch in row.knobs)
]


@pytest.mark.parametrize(("row", "engine"), DRIVEN_ENGINES)
def test_every_engine_of_every_dialect_that_is_set_is_tried(start: Start, row: DialectRow, engine: Engine) -> None:
    """Promise 15: with a counter or without one."""
    sdxi = row.dialect is Dialect.V6_SDXI
    engines = (DmaEngine("sdxi" if sdxi else "ptdma", channels=4, public=sdxi),)
    rig = start(HostConfig(dialect=row.dialect, engines=engines))
    seen: list[MoveRequest] = []
    rig.move = watched(rig, seen)

    ask(rig, {"engine": engine}, acceptedRisks=list(set(AcceptedRisk) - {AcceptedRisk.UNVERIFIED_ENGINE}))

    found = rig.status["verification"]
    assert len(seen) == 1
    assert (found["result"], found["engine"], rig.condition("Verified")["status"]) == ("Passed", engine, "True")
    counted = engine is Engine.DMA and any(counter.name == "folios_migrated" for counter in row.counters)
    assert ("could not be shown" in found["message"]) is not counted


def test_nothing_is_told_in_the_middle_of_a_trial(start: Start) -> None:
    rig = start()
    ask(rig, {"engine": "Off"})
    before = len(rig.reports)
    rig.holds = MovePages

    ask(rig)
    told = [report["offload"] for report in rig.reports[before:]]
    rig.release()

    assert told == ["Off"]  # with the baselines
    assert rig.status["offload"] == "DMA, 4 channels"


def test_an_engine_that_is_not_asked_for_is_not_tried(start: Start) -> None:
    rig = start()

    ask(rig, {"engine": "Off"})

    assert rig.stores == []
    assert rig.condition("Verified")["status"] == "Unknown"


def test_an_engine_that_cannot_be_turned_on_is_not_tried(start: Start) -> None:
    rig = start(HostConfig(other_migrator=True))
    rig.holds = MovePages

    ask(rig)

    assert rig.held == []
    assert rig.group()["reason"] == "MigratorBusy"


# --- an engine that copies wrong


def test_an_engine_that_corrupts_is_turned_off_and_everything_is_as_before(start: Start) -> None:
    """Promises 4 and 15: the switch goes off first of all."""
    rig = start(CORRUPT)
    before = rig.kernel.snapshot()

    ask(rig)

    after = rig.kernel.snapshot()
    assert rig.stores[3] == ("offloading", "0")
    assert (after.offloading, after.nr_dma_chan, after.reasons) == (False, before.nr_dma_chan, before.reasons)
    assert (rig.group()["state"], rig.group()["reason"]) == ("Failed", "CorruptionDetected")
    assert (rig.condition("Verified")["status"], rig.condition("Degraded")["status"]) == ("False", "True")
    assert rig.status["verification"]["result"] == "Failed"


@pytest.mark.parametrize(
    "then",
    [
        pytest.param(lambda rig: ask(rig, {**OFFLOAD, "channels": 2}), id="another number of channels"),
        pytest.param(
            lambda rig: ask(rig, verification="Off", acceptedRisks=["UnverifiedEngine"]), id="verification Off"
        ),
        pytest.param(lambda rig: rig.pass_time(4000), id="an hour"),
        pytest.param(lambda rig: (rig.kernel.unload(), rig.kernel.load({}), rig.pass_time(15)), id="loaded anew"),
        pytest.param(lambda rig: (rig.restart(), rig.pass_time(400)), id="agent restarted"),
        pytest.param(
            lambda rig: ((rig.folder / FILE_NAME).unlink(), rig.restart(), rig.pass_time(400)), id="its file lost"
        ),
        pytest.param(
            lambda rig: (rig.object["status"].pop("verification"), rig.restart(), rig.pass_time(400)),
            id="its status lost",
        ),
    ],
)
def test_an_engine_that_corrupts_stays_off_for_this_boot(start: Start, then: Callable[[Rig], Any]) -> None:
    """Promise 15: whatever the spec says, and whatever the agent has been through."""
    rig = start(CORRUPT)
    ask(rig)
    rig.kernel.set_engines(SOUND.engines)  # it would pass now
    written = rig.stores

    then(rig)

    assert rig.stores == written
    assert rig.group()["reason"] == "CorruptionDetected"
    assert rig.condition("Degraded")["status"] == "True"


def test_what_an_engine_did_is_told_also_when_no_policy_asks_for_it_any_more(start: Start) -> None:
    rig = start(CORRUPT)
    ask(rig)

    rig.wish({})

    assert rig.condition("Degraded")["reason"] == "CorruptionDetected"
    assert rig.condition("Verified")["reason"] == "CorruptionDetected"


def test_a_plan_says_that_the_engine_would_stay_off(start: Start) -> None:
    rig = start(CORRUPT)
    ask(rig)
    source = {"policy": "planned", "uid": "uid-2", "generation": 1}

    rig.wish(plans=[{"source": source, "settings": {"offload": OFFLOAD}, "verification": "FirstUse"}])

    assert [(row["state"], row["reason"]) for row in rig.status["plans"]] == [("Failed", "CorruptionDetected")]


@pytest.mark.parametrize("restarts", [False, True])
def test_a_grown_epoch_does_not_bring_back_an_engine_that_corrupted_on_this_boot(start: Start, restarts: bool) -> None:
    """Promise 15: it asks the others of the class for a trial; and the status still says when this one was wrong."""
    rig = start(CORRUPT)
    ask(rig)
    rig.kernel.set_engines(SOUND.engines)
    stores = len(rig.stores)

    if restarts:
        rig.restart()
    ask(rig, epoch=1)
    ask(rig, {"engine": "CPUThreads"}, epoch=2)
    ask(rig, epoch=2)
    rig.pass_time(60)

    assert not rig.kernel.snapshot().offloading
    assert len(rig.stores) == stores
    assert (rig.status["verification"]["result"], rig.status["verification"]["epoch"]) == ("Failed", 0)
    assert (rig.group()["state"], rig.group()["reason"]) == ("Failed", "CorruptionDetected")
    assert "until this host is booted anew" in rig.group()["message"]
    assert rig.condition("Degraded")["reason"] == "CorruptionDetected"


def test_of_two_records_of_a_boot_the_mismatch_holds_though_the_other_is_of_a_younger_epoch(start: Start) -> None:
    """Promise 15: a state folder that came back from a copy may know a pass only."""
    rig = start(CORRUPT)
    ask(rig)
    rig.kernel.set_engines(SOUND.engines)
    record = rig.folder / FILE_NAME
    known = json.loads(record.read_text())
    record.write_text(json.dumps({**known, "verdict": {**known["verdict"], "result": "Passed", "epoch": 1}}))

    rig.restart()
    ask(rig, epoch=1)

    assert not rig.kernel.snapshot().offloading
    assert rig.group()["reason"] == "CorruptionDetected"


def test_the_next_boot_begins_anew(start: Start) -> None:
    rig = start(CORRUPT)
    ask(rig)
    rig.kernel.set_engines(SOUND.engines)

    rig.kernel.reboot()
    rig.restart()
    rig.settle()

    assert rig.kernel.snapshot().offloading
    assert rig.status["verification"]["result"] == "Passed"


def tried(start: Start, then: str) -> Rig:
    """Return a node whose engine was tried and is on; with another one in its place, unless `then` is empty."""
    rig = start()
    ask(rig)
    if then:
        rig.kernel.set_engines((DmaEngine(then, channels=4),))
    return rig


@pytest.mark.parametrize(("engine", "stays"), [("ae4dma", False), ("", True)])
def test_an_engine_that_came_in_place_of_a_tried_one_goes_off_if_its_trial_cannot_begin(
    start: Start, engine: str, stays: bool
) -> None:
    """Promise 15: a knob that stands before the trial is not taken; what was tried as it is stays on."""
    rig = tried(start, then=engine)
    rig.kernel.spoil(CHANNELS, Spoiled(write_error=errno.EIO))

    ask(rig, {**OFFLOAD, "channels": 2})

    assert rig.group()["state"] == "Failed"
    assert rig.kernel.snapshot().offloading is stays


@pytest.mark.parametrize(("engine", "stays"), [("ae4dma", False), ("", True)])
def test_an_engine_that_came_in_place_of_a_tried_one_goes_off_if_its_trial_cannot_be_saved(
    start: Start, engine: str, stays: bool
) -> None:
    """Promise 15: a full state folder keeps no engine on that nobody has tried."""
    rig = tried(start, then=engine)

    with no_room():
        ask(rig, {**OFFLOAD, "channels": 2})

        assert rig.group()["reason"] == "BaselineNotSaved"
        assert rig.kernel.snapshot().offloading is stays


@pytest.mark.parametrize("settings", [{"engine": "Off"}, OFFLOAD], ids=["told to", "no channel any more"])
def test_an_engine_goes_off_although_that_cannot_be_saved(start: Start, settings: Any) -> None:
    """Promises 15 and 17: the file has its value of before, and a full state folder is no reason to stay on."""
    rig = start()
    ask(rig)
    if settings is OFFLOAD:
        rig.kernel.set_engines(())

    with no_room():
        rig.wish({"offload": wish(settings), "demotion": wish({"enabled": True})})

        assert not rig.kernel.snapshot().offloading
        assert (rig.group("demotion")["reason"], rig.knob("demotion.enabled")["observed"]) == (
            "BaselineNotSaved",
            "false",
        )


def test_an_engine_whose_value_of_before_the_full_folder_has_lost_is_left_as_it_is(start: Start) -> None:
    """Promise 1: in the status alone it is not safe enough for a write, not even for this one."""
    rig = start()
    ask(rig)
    (rig.folder / BASELINES).unlink()

    with no_room():
        rig.restart()
        ask(rig, {"engine": "Off"})

        assert rig.group()["reason"] == "BaselineNotSaved"
        assert rig.kernel.snapshot().offloading


def test_a_corrupt_engine_that_was_on_before_us_is_turned_off_too(start: Start) -> None:
    """Promise 15: before anything else is undone, which would open it to the pages of others."""
    rig = start(CORRUPT)
    rig.kernel.drift(OFFLOADING, "1")

    ask(rig)

    assert [name for name, _ in rig.stores[1:]] == [
        "nr_dma_chan",
        "reason_mask",
        "offloading",
        "reason_mask",
        "nr_dma_chan",
    ]
    assert not rig.kernel.snapshot().offloading
    assert rig.group()["reason"] == "CorruptionDetected"


def test_a_corrupt_engine_that_somebody_turns_on_is_off_at_the_next_look(tmp_path: Path) -> None:
    """Promise 15: the pause after a failed change is for what may be tried again."""
    rig = Rig(tmp_path / "state", CORRUPT, timing=TIMING._replace(drift_check=1))
    rig.settle()
    ask(rig)
    rig.kernel.drift(OFFLOADING, "1")

    rig.pass_time(1.5)

    assert not rig.kernel.snapshot().offloading
    assert rig.group()["reason"] == "CorruptionDetected"


def test_restore_does_not_turn_on_an_engine_that_has_corrupted(start: Start) -> None:
    """Promise 15: it was on before us, and nobody knew what it does."""
    rig = start(CORRUPT)
    rig.kernel.drift(CHANNELS, "2")
    rig.kernel.drift(OFFLOADING, "1")
    ask(rig)

    ask(rig, mode="Restore")

    snapshot = rig.kernel.snapshot()
    assert (snapshot.offloading, snapshot.nr_dma_chan) == (False, 2)
    assert rig.group()["state"] == "Restored"


def test_restore_gives_other_switches_back_although_an_engine_has_corrupted(start: Start) -> None:
    """Promise 7: balancing was on before us."""
    rig = start(CORRUPT)
    groups = {"balancing": wish({"mode": "Off"})}
    rig.wish({"offload": wish(OFFLOAD, verification="FirstUse", acceptedRisks=[]), **groups})
    assert rig.kernel.snapshot().numa_balancing == 0

    rig.wish({"balancing": wish({"mode": "Off"}, mode="Restore")})

    assert rig.kernel.snapshot().numa_balancing == 1


def test_a_corrupt_engine_goes_off_although_the_node_state_has_gone_meanwhile(start: Start) -> None:
    """Promise 15: nobody would ever turn it off."""
    rig = start(CORRUPT)
    rig.holds = MovePages
    ask(rig)
    rig.send(StateGone())

    rig.release()

    assert not rig.kernel.snapshot().offloading


def test_a_corrupt_engine_goes_off_before_its_verdict_can_be_saved_or_told(start: Start) -> None:
    """Promise 15: a state folder without room does not keep it on."""
    rig = start(CORRUPT)
    rig.holds = MovePages
    ask(rig)
    (rig.folder / FILE_NAME).mkdir()  # nothing can replace a folder

    rig.release()

    assert not rig.kernel.snapshot().offloading
    rig.restart()
    rig.settle()
    assert rig.group()["reason"] == "CorruptionDetected"


# --- an engine that cannot be tried


def test_an_engine_without_a_free_channel_has_shown_nothing(start: Start) -> None:
    """Promise 15: the pages came over right, for the CPU copied them."""
    rig = start(HostConfig(engines=(DmaEngine("ioatdma", public=True),) * 4, dmaengine_users=1))

    ask(rig, acceptedRisks=["SharedEngine"])

    assert not rig.kernel.snapshot().offloading
    assert (rig.group()["state"], rig.group()["reason"]) == ("Refused", "VerificationImpossible")
    assert "folios_migrated grew by 0" in rig.group()["message"]


def test_a_trial_with_another_number_of_channels_says_nothing_about_ours(start: Start) -> None:
    """Promise 15: somebody else wrote nr_dma_chan before the engine went on, and nobody noticed."""
    rig = start()
    rig.sysfs = WrittenBefore(rig, OFFLOADING, CHANNELS, "2")

    ask(rig)

    assert not rig.kernel.snapshot().offloading
    assert rig.group()["reason"] == "VerificationImpossible"
    assert "nr_dma_chan held 2 in the window, not 4" in rig.group()["message"]


def test_a_trial_that_was_not_possible_is_made_again_later(start: Start) -> None:
    rig = start(HostConfig(engines=(DmaEngine("ioatdma", public=True),) * 4, dmaengine_users=1))
    ask(rig, acceptedRisks=["SharedEngine"])
    rig.kernel.set_dmaengine_users(0)
    rig.pass_time(TRY_AGAIN_SECONDS - 30)
    assert trials(rig) == 1

    rig.pass_time(60)

    assert rig.kernel.snapshot().offloading
    assert rig.condition("Verified")["status"] == "True"


@pytest.mark.parametrize(
    ("number", "again"),
    [
        pytest.param(errno.EPERM, 1, id="seccomp"),
        pytest.param(errno.EACCES, 1, id="cpuset"),
        pytest.param(errno.ENOMEM, 2, id="no memory"),
    ],
)
def test_what_keeps_pages_from_moving_is_said_and_tried_again_unless_it_stays_so(
    start: Start, number: int, again: int
) -> None:
    rig = start()
    rig.move = lambda _: MoveAnswer((), number, "move_pages: this is why")

    ask(rig)
    rig.pass_time(TRY_AGAIN_SECONDS + 30)

    assert (rig.group()["reason"], rig.group()["message"]) == ("VerificationImpossible", "move_pages: this is why")
    assert not rig.kernel.snapshot().offloading
    assert trials(rig) == again


def test_a_kernel_that_cannot_move_our_pages_is_told_by_the_child_that_tried(start: Start) -> None:
    """The real mover, on the machine that the tests run on, which has no NUMA node 999."""
    rig = start(HostConfig(numa_nodes=(NumaNode(0, "0-7"), NumaNode(999))))
    rig.move = move_own_pages

    ask(rig)

    assert (rig.group()["reason"], rig.group()["message"]) == ("VerificationImpossible", "there is no NUMA node 999")
    assert not rig.kernel.snapshot().offloading


def test_an_engine_that_fails_its_copies_has_shown_nothing(start: Start) -> None:
    rig = start(HostConfig(engines=(DmaEngine("ptdma", error_share=1.0),) * 4))

    ask(rig)

    assert not rig.kernel.snapshot().offloading
    assert "the engine failed 6516 folios" in rig.group()["message"]


# --- an engine that hangs


def test_an_engine_that_holds_our_pages_is_turned_off_at_the_end_of_the_window(start: Start) -> None:
    """Promises 15 and 16: by the agent's clock, since whoever moves the pages cannot say that it hangs."""
    rig = start()
    rig.holds = MovePages
    ask(rig)
    assert rig.kernel.snapshot().offloading

    rig.pass_time(WINDOW_SECONDS_MAX)

    assert not rig.kernel.snapshot().offloading
    assert (rig.group()["state"], rig.group()["reason"]) == ("Failed", "EngineStalled")
    assert rig.condition("Degraded")["reason"] == "EngineStalled"


def test_no_other_trial_begins_before_the_pages_are_back(start: Start) -> None:
    rig = start()
    rig.holds = MovePages
    ask(rig)
    rig.pass_time(WINDOW_SECONDS_MAX)

    ask(rig, {**OFFLOAD, "channels": 2})
    rig.pass_time(1000)
    assert trials(rig) == 1
    rig.release()

    assert trials(rig) == 2
    assert rig.condition("Verified")["status"] == "True"


def test_an_engine_that_hung_is_not_tried_again_at_once(start: Start) -> None:
    """Promise 16: whoever migrates pages meanwhile would hang with us, again and again."""
    rig = start()
    rig.holds = MovePages
    ask(rig)
    rig.pass_time(WINDOW_SECONDS_MAX)
    rig.release()

    rig.pass_time(TRY_AGAIN_SECONDS - 30)

    assert trials(rig) == 1


def test_pages_that_come_back_late_and_wrong_are_a_mismatch_all_the_same(start: Start) -> None:
    """Promise 15."""
    rig = start(CORRUPT)
    rig.move = lambda _: MoveAnswer((Passage(0, 1, 10, wrong=1, wrong_at=8),))
    rig.holds = MovePages
    ask(rig)
    rig.pass_time(WINDOW_SECONDS_MAX)

    rig.release()

    assert rig.group()["reason"] == "CorruptionDetected"


# --- an agent that dies while an engine is on trial


def test_an_agent_that_died_in_a_trial_does_not_leave_an_untried_engine_on(start: Start) -> None:
    """Promises 4 and 15: the next one ends what was begun, and tries anew."""
    rig = start()
    rig.holds = MovePages
    ask(rig)

    rig.holds = None
    rig.restart()
    rig.settle()

    assert rig.stores[3] == ("offloading", "0")
    assert trials(rig) == 2
    assert rig.condition("Verified")["status"] == "True"


def test_an_agent_that_died_in_a_trial_on_a_kernel_without_mask_is_followed_by_one_that_tries(start: Start) -> None:
    """Promise 15."""
    rig = start(HostConfig(dialect=Dialect.V5, engines=CORRUPT.engines))
    rig.holds = MovePages
    ask(rig, V5_WISH, acceptedRisks=["DirectIOLostWrite"])

    rig.holds = None
    rig.restart()
    rig.settle()

    assert not rig.kernel.snapshot().offloading
    assert rig.group()["reason"] == "CorruptionDetected"


def test_reasons_that_were_narrowed_for_a_trial_go_back_when_the_agent_died_in_it(start: Start) -> None:
    """Promise 6: also when nobody wishes anything for the engine any more, and what is there is to be kept."""
    rig = start()
    ask(rig, release="Keep")
    rig.holds = MovePages
    ask(rig, release="Keep", epoch=1)
    assert rig.kernel.snapshot().reasons == ("mempolicy_mbind",)

    rig.restart()
    rig.wish({})

    assert rig.kernel.snapshot().reasons == ("demotion", "damon")
    assert rig.kernel.snapshot().offloading


def test_a_trial_is_saved_as_open_before_the_first_write(start: Start) -> None:
    """Promise 4."""
    rig = start()
    rig.holds = SaveBaselines

    ask(rig)

    saved = [job.baselines for _, job in rig.held if isinstance(job, SaveBaselines)]
    assert [opened.open_units["offload"]["offload.reasons"].passing for opened in saved] == ["mempolicy_mbind"]
    assert rig.stores == []


def test_a_turn_off_that_blocks_is_not_waited_for(start: Start) -> None:
    """Promise 10: the engine hangs, and so does the write that turns it off."""
    rig = start()
    rig.holds = MovePages
    ask(rig)
    rig.holds = WriteKnob

    rig.pass_time(WINDOW_SECONDS_MAX + 6)

    assert [type(job) for _, job in rig.held] == [MovePages, WriteKnob]
    assert rig.condition("Degraded")["reason"] == "KernelFileBlocked"


# --- judging


TRIAL = Trial(Subject("1", "V6", "DMA", "ptdma", 4), 0, "mempolicy_mbind", ((0, 1),))


@pytest.mark.parametrize(
    ("grown", "failed", "result"),
    [
        pytest.param(20, 0, VerificationResult.PASSED, id="just ours"),
        pytest.param(25, 0, VerificationResult.PASSED, id="others too"),
        pytest.param(19, 0, VerificationResult.IMPOSSIBLE, id="one of ours by CPU"),
        pytest.param(0, 0, VerificationResult.IMPOSSIBLE, id="all by CPU"),
        pytest.param(-5, 0, VerificationResult.IMPOSSIBLE, id="reset by somebody"),
        pytest.param(0, 20, VerificationResult.IMPOSSIBLE, id="all failed"),
        pytest.param(20, 5, VerificationResult.PASSED, id="others failed"),
    ],
)
def test_the_engine_must_have_counted_what_was_moved(grown: int, failed: int, result: VerificationResult) -> None:
    """Promise 15."""
    before = {"folios_migrated": 100, "folios_failed": 0}
    after = {"folios_migrated": 100 + grown, "folios_failed": failed}

    verdict = judge(TRIAL, before, pair(), after)

    assert verdict.result is result
    assert verdict.foreign == max(0, grown - 20)


def test_where_nobody_counts_the_message_says_that_nobody_knows_who_copied() -> None:
    verdict = judge(TRIAL, {}, pair(), {})

    assert (verdict.result, verdict.foreign) == (VerificationResult.PASSED, None)
    assert "could not be shown" in verdict.message


def test_one_wrong_byte_speaks_louder_than_a_call_that_failed() -> None:
    """Promise 15."""
    answer = MoveAnswer((Passage(0, 1, 10, wrong=1, wrong_at=4096),), errno.ENOMEM, "no memory")

    verdict = judge(TRIAL, {}, answer, {})

    assert verdict.result is VerificationResult.FAILED
    assert "from NUMA node 0 to 1 at byte 4096" in verdict.message


def test_a_batch_of_which_nothing_arrived_is_no_proof() -> None:
    """Promise 15."""
    answer = MoveAnswer((Passage(0, 1, 10), Passage(1, 0, 0, left=10, errno=errno.EBUSY, cause="busy")))

    verdict = judge(TRIAL, {}, answer, {})

    assert (verdict.result, verdict.message) == (
        VerificationResult.IMPOSSIBLE,
        "no folio of a batch could be moved: busy",
    )


def test_huge_pages_that_are_too_large_for_a_trial_are_left_out_and_that_is_said() -> None:
    """arm64 with pages of 64 KiB: the engine is taken, and a person knows that no huge page was copied."""
    verdict = judge(TRIAL, {}, pair()._replace(huge_left_out=512 << 20), {})

    assert verdict.result is VerificationResult.PASSED
    assert "huge pages have 512Mi here, too much for a trial: none was tried" in verdict.message


def test_without_a_huge_page_the_message_says_so() -> None:
    assert "no huge page could be had" in judge(TRIAL, {}, pair(), {}).message


@pytest.mark.parametrize("number", [2, 3, 4, 5, 9, 12])
def test_each_numa_node_is_in_one_of_at_most_six_pairs(number: int) -> None:
    pairs = numa_pairs(range(number))

    assert len(pairs) == len(set(pairs)) == min(PAIRS_MAX, number * (number - 1) // 2)
    assert {numa_node for pair in pairs for numa_node in pair} == set(range(number))


def test_a_trial_moves_both_sizes_between_all_pairs() -> None:
    assert TRIAL.request(7) == MoveRequest(
        "mempolicy_mbind", (Batch(0, 1, 512), Batch(0, 1, 61), Batch(0, 1, 0, 1), Batch(0, 1, 511, 1)), 7, 1.5
    )


def test_a_verdict_is_read_back_as_it_was_told() -> None:
    verdict = judge(TRIAL, {}, pair(), {})

    assert parse_verdict(verdict_json(verdict), "V6") == verdict


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2}', '{"version": 1, "bootID": "b", "verdict": {}}'])
def test_a_file_that_is_not_ours_is_as_good_as_none(start: Start, text: str) -> None:
    rig = start()
    rig.folder.mkdir(exist_ok=True)
    (rig.folder / FILE_NAME).write_text(text.replace('"b"', f'"{rig.status["bootID"]}"'))
    rig.restart()

    ask(rig)

    assert rig.condition("Verified")["status"] == "True"


def test_a_trial_to_come_lets_no_other_unit_write_before_its_baseline_is_in_the_status(tmp_path: Path) -> None:
    """Promise 1: only what a trial has begun is brought to its end without the API server."""
    rig = Rig(tmp_path / "state", HostConfig(dialect=Dialect.V5))
    risks = ["UnverifiedEngine", "DirectIOLostWrite"]
    offload = wish({"engine": "DMA", "channels": 4}, acceptedRisks=risks)
    rig.wish({"offload": offload})
    rig.holds = SaveBaselines
    rig.wish({"offload": offload, "balancing": wish({"mode": "Tiering", "promoteRateLimitMBps": 100})})
    rig.kernel.drift(
        "/proc/sys/kernel/numa_balancing", "2"
    )  # which an agent that died in the middle might have written
    rig.answer = ApplyResult(ApplyKind.RETRY, "away")
    before = len(rig.stores)

    rig.wish({"offload": {**offload, "verification": "FirstUse"}})
    rig.release()

    assert "numa_balancing" not in dict(rig.stores[before:])


def test_an_engine_that_is_not_ours_is_not_turned_off_for_a_trial_that_cannot_be_made(tmp_path: Path) -> None:
    """Promise 1: nothing of it is captured, for its mask cannot be read."""
    rig = Rig(tmp_path / "state")
    rig.kernel.drift("/sys/module/dcbm/parameters/offloading", "1")
    rig.wish()
    rig.kernel.spoil("/sys/module/dcbm/parameters/reason_mask", Spoiled(read_error=errno.EIO))

    rig.wish({"offload": wish({"engine": "DMA", "channels": 1}, verification="Always")})

    assert rig.stores == [("offloading", "1")]
    assert rig.group()["state"] == "Failed"


def test_an_untried_engine_of_ours_goes_off_where_the_knobs_of_its_trial_cannot_be_captured(tmp_path: Path) -> None:
    """Promises 1 and 15: its mask has no value of before that is safe, so it is not narrowed for a trial."""
    rig = Rig(tmp_path / "state")
    rig.kernel.drift(OFFLOADING, "1")
    rig.holds = WriteKnob
    rig.wish({"offload": wish({"engine": "Off"})})
    rig.kernel.spoil(CHANNELS, Spoiled(read_error=errno.EACCES))
    rig.held.clear()
    rig.restart()
    rig.holds = None

    rig.wish({"offload": wish(OFFLOAD, verification="Always", acceptedRisks=[])})

    assert rig.group()["state"] == "Failed"
    assert [name for name, _ in rig.stores if name == "reason_mask"] == []
    assert not rig.kernel.snapshot().offloading


def test_an_engine_that_is_asked_for_and_refused_is_not_said_to_be_unasked(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "state", HostConfig(dialect=Dialect.V5))

    rig.wish({"offload": wish({"engine": "DMA"}, acceptedRisks=[])})

    verified = rig.condition("Verified")
    assert (verified["status"], verified["reason"]) == ("Unknown", "RiskNotAccepted")
