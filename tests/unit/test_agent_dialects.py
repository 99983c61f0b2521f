# SPDX-License-Identifier: Apache-2.0
"""Every dialect on the fake kernel: each cell of docs/kernel-support.md, and what is told of each.

A cell is run as a policy does it: wish, read-back, restore. Nothing here knows a dialect but by its row of the table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from numamigration_agent.kernel.codecs import ReasonMask, Size, UInt, Words
from numamigration_agent.kernel.dialects import DIALECTS, MAINLINE_KNOBS, ROWS, DialectRow, Knob, knobs_of
from numamigration_agent.watch import Pause
from numamigration_api.vocabulary import AcceptedRisk, Dialect, Engine, Reason
from tests.fakekernel.config import DmaEngine, HostConfig
from tests.unit.agent_rig import Rig, wish

ENGINES = {Dialect.V6_SDXI: (DmaEngine("sdxi"), DmaEngine("sdxi"))}
"""Where the default ones would make another dialect of it."""
EVERY_RISK = {"acceptedRisks": list(AcceptedRisk)}
MANY = (DmaEngine("ptdma", channels=32),)

SERIES = tuple(row for row in DIALECTS if row.knobs)
SET = tuple(row for row in SERIES if not row.only_turned_off)
ONLY_TURNED_OFF = tuple(row for row in SERIES if row.only_turned_off)


def config_of(row: DialectRow, **changes: Any) -> HostConfig:
    engines = ENGINES.get(row.dialect, MANY)
    return HostConfig(dialect=row.dialect, **({"engines": engines, "test_patches": True} | changes))


def rig_of(folder: Path, row: DialectRow, **changes: Any) -> Rig:
    rig = Rig(folder, config_of(row, **changes))
    rig.wish()
    assert rig.status["dialect"] == row.dialect
    return rig


def shows(rig: Rig, path: str) -> str:
    handle = rig.kernel.open(path, 0, rig.kernel.agent())
    return rig.kernel.read(handle).decode().removesuffix("\n")


def another(knob: Knob, holds: str) -> Any:
    """Return a wish that is not what the kernel holds, as JSON has it."""
    match knob.codec:
        case UInt(lowest, highest):
            return next(number for number in (lowest, highest, 2) if number <= highest and str(number) != holds)
        case Size():
            return "64Ki"
        case ReasonMask():
            return ["demotion"]
        case Words() as words:
            other = next(word.shown for word in words.words if word.kernel != holds)
            return {"true": True, "false": False}.get(other, other)


def groups_for(row: DialectRow, knob: Knob, wanted: Any) -> dict[str, Any]:
    """Return the wish that sets one knob, with the engine it needs."""
    group, name = knob.setting.split(".")
    threads = not any(switch.turns_on(Engine.DMA) for switch in row.knobs) or name in {"count", "placement"}
    engine = {"engine": Engine.CPU_THREADS if threads else Engine.DMA}
    if group in {"balancing", "demotion"}:
        return {group: wish({"mode": "Normal", name: wanted} if group == "balancing" else {name: wanted})}
    if group == "offload":
        return {group: wish(engine | {name: wanted}, **EVERY_RISK)}
    return {"offload": wish(engine, **EVERY_RISK), group: wish({name: wanted}, **EVERY_RISK)}


def restored(groups: dict[str, Any]) -> dict[str, Any]:
    return {name: body | {"mode": "Restore"} for name, body in groups.items()}


LEADING = {"offload.channels", "offload.reasons", "cpuThreads.count"}
CELLS = [
    pytest.param(row, knob, id=f"{row.dialect} {knob.field}")
    for row in SET
    for knob in knobs_of(row.dialect)
    if not (row.dialect is Dialect.V6_SDXI and knob.field == "offload.channels")  # 1 is all it takes, and has
]


@pytest.mark.parametrize(("row", "knob"), CELLS)
def test_a_knob_is_set_read_back_and_restored(tmp_path: Path, row: DialectRow, knob: Knob) -> None:
    """Promise 7: exactly the value of before."""
    rig = rig_of(tmp_path, row)
    before = {known.path: shows(rig, known.path) for known in knobs_of(row.dialect)}
    wanted = another(knob, before[knob.path])
    groups = groups_for(row, knob, wanted)

    rig.wish(groups)

    shown = rig.knob(knob.field)
    assert (shown["outcome"], shown["path"]) == ("Applied", knob.path)
    assert shown["observed"] == shown["desired"] != shown["baseline"]
    assert shows(rig, knob.path) != before[knob.path]
    assert rig.group(knob.group)["state"] == "Ready"

    rig.wish(restored(groups))

    assert {path: shows(rig, path) for path in before} == before
    assert "baseline" not in rig.knob(knob.field)


@pytest.mark.parametrize(
    ("row", "knob"),
    [cell for cell in CELLS if isinstance(cell.values[1], Knob) and cell.values[1].field in LEADING],
)
def test_the_switch_is_written_after_all_else_and_first_when_it_goes_off(
    tmp_path: Path, row: DialectRow, knob: Knob
) -> None:
    """Promise 4."""
    rig = rig_of(tmp_path, row)
    groups = groups_for(row, knob, another(knob, shows(rig, knob.path)))
    switches = {knob.path.rpartition("/")[2] for knob in row.knobs if knob.is_engine}

    rig.wish(groups)
    on = [name for name, _ in rig.stores]
    rig.wish(restored(groups))
    off = [name for name, _ in rig.stores[len(on) :]]

    assert (on[-1] in switches, switches & set(on[:-1])) == (True, set())
    assert (off[0] in switches, switches & set(off[1:])) == (True, set())


@pytest.mark.parametrize("row", ONLY_TURNED_OFF, ids=lambda row: row.dialect)
@pytest.mark.parametrize("engine", [Engine.DMA, Engine.CPU_THREADS])
def test_what_is_only_turned_off_is_not_turned_on_and_says_why(tmp_path: Path, row: DialectRow, engine: Engine) -> None:
    """Promise 5: whatever the policy accepts."""
    rig = rig_of(tmp_path, row)

    rig.wish({"offload": wish({"engine": engine}, **EVERY_RISK)})

    assert (rig.group()["state"], rig.group()["reason"]) == ("Unsupported", "KernelUnsupported")
    assert row.only_turned_off in rig.group()["message"]
    assert rig.condition("Supported")["reason"] == "KernelUnsupported"
    assert rig.stores == []


@pytest.mark.parametrize("row", ONLY_TURNED_OFF, ids=lambda row: row.dialect)
def test_what_is_only_turned_off_goes_off_and_comes_back_on_at_restore(tmp_path: Path, row: DialectRow) -> None:
    """Promises 7 and 17."""
    rig = rig_of(tmp_path, row)
    switches = [knob for knob in row.knobs if knob.is_engine]
    for knob in switches:
        rig.kernel.drift(knob.path, "1")
    off = {"offload": wish({"engine": "Off"}, acceptedRisks=[], verification="FirstUse")}

    rig.wish(off)

    assert {shows(rig, knob.path) for knob in switches} == {"0"}
    assert (rig.group()["state"], rig.status["offload"]) == ("Ready", "Off")

    rig.wish(restored(off))

    assert {shows(rig, knob.path) for knob in switches} == {"1"}
    assert rig.group()["state"] == "Restored"


@pytest.mark.parametrize("row", ONLY_TURNED_OFF, ids=lambda row: row.dialect)
def test_the_knobs_of_what_is_only_turned_off_are_shown_and_not_among_its_capabilities(
    tmp_path: Path, row: DialectRow
) -> None:
    rig = rig_of(tmp_path, row)

    shown = {knob["field"]: knob.get("observed") for knob in rig.status["knobs"]}
    assert all(shown[knob.field] for knob in row.knobs)
    fields = rig.status["capabilities"]["fields"]
    assert fields == ["offload.engine", *(knob.field for knob in MAINLINE_KNOBS)]


@pytest.mark.parametrize("row", SERIES, ids=lambda row: row.dialect)
def test_a_probe_reads_and_writes_nothing(tmp_path: Path, row: DialectRow) -> None:
    """Promise 2."""
    rig = rig_of(tmp_path, row)
    rig.pass_time(60)

    assert rig.stores == []


@pytest.mark.parametrize("row", SERIES, ids=lambda row: row.dialect)
def test_no_file_of_a_known_dialect_is_unknown(tmp_path: Path, row: DialectRow) -> None:
    assert "unknownFiles" not in rig_of(tmp_path, row).status


@pytest.mark.parametrize(
    ("dialect", "ranges"),
    [
        pytest.param(Dialect.F_EXT, {"offload.channels: 1..32", "offload.engine: Off|DMA"}, id="F-ext"),
        pytest.param(Dialect.V3, {"offload.engine: Off|CPUThreads|DMA", "cpuThreads.count: 1..64"}, id="V3"),
        pytest.param(Dialect.ZY, {"offload.engine: Off|CPUThreads", "cpuThreads.placement: Push|Pull"}, id="ZY"),
        pytest.param(Dialect.V1, {"offload.engine: Off|DMA"}, id="V1"),
    ],
)
def test_capabilities_tell_what_is_legal_where_the_api_takes_more(
    tmp_path: Path, dialect: Dialect, ranges: set[str]
) -> None:
    capabilities = rig_of(tmp_path, ROWS[dialect]).status["capabilities"]

    assert ranges <= set(capabilities["ranges"])
    assert all(text.partition(": ")[0] in capabilities["fields"] for text in capabilities["ranges"])


# --- reasons


@pytest.mark.parametrize("row", SET, ids=lambda row: row.dialect)
def test_reasons_left_out_are_no_hazard_only_where_memory_failure_is_surely_left_out(
    tmp_path: Path, row: DialectRow
) -> None:
    """Promises 3 and 5."""
    rig = rig_of(tmp_path, row)
    engine = Engine.DMA if any(knob.turns_on(Engine.DMA) for knob in row.knobs) else Engine.CPU_THREADS
    others = [risk for risk in AcceptedRisk if risk is not AcceptedRisk.MEMORY_FAILURE_OFFLOAD]

    rig.wish({"offload": wish({"engine": engine}, acceptedRisks=others)})

    told = row.fixed_reasons is not None or any(knob.field == "offload.reasons" for knob in row.knobs)
    assert rig.group()["state"] == ("Ready" if told else "Refused")
    assert told or "MemoryFailureOffload" in rig.group()["message"]


@pytest.mark.parametrize("row", [ROWS[Dialect.V3], ROWS[Dialect.V4]], ids=lambda row: row.dialect)
def test_reasons_that_the_kernel_does_not_tell_cannot_be_asked_for(tmp_path: Path, row: DialectRow) -> None:
    """Promise 3: whatever the policy accepts."""
    rig = rig_of(tmp_path, row)

    rig.wish({"offload": wish({"engine": "DMA", "reasons": ["demotion"]}, **EVERY_RISK)})

    assert (rig.group()["state"], rig.group()["reason"]) == ("Refused", "ReasonsNotRestrictable")
    assert rig.stores == []


# --- V3: two engines

V3 = ROWS[Dialect.V3]
DMA_SWITCH, THREADS_SWITCH = "/sys/kernel/dcbm/offloading", "/sys/kernel/cpu_mt/offloading"


def offload(engine: str) -> dict[str, Any]:
    return {"offload": wish({"engine": engine}, **EVERY_RISK)}


def test_a_change_of_engine_turns_the_other_one_off_first(tmp_path: Path) -> None:
    """Promise 4: of two that are on only the last one works."""
    rig = rig_of(tmp_path, V3)
    rig.wish(offload("DMA"))
    before = len(rig.kernel.stores)

    rig.wish(offload("CPUThreads"))

    assert rig.stores[before:] == [("offloading", "0"), ("offloading", "1")]
    assert (shows(rig, DMA_SWITCH), shows(rig, THREADS_SWITCH)) == ("0", "1")
    assert rig.status["offload"] == "CPUThreads, 4 threads"


def test_cpu_threads_are_used_while_the_dma_engine_is_not_trusted(tmp_path: Path) -> None:
    """Promise 16: what one engine did says nothing of the other one, and does not turn that off."""
    rig = rig_of(tmp_path, V3)
    rig.wish(offload("DMA"))
    rig.agent._watchdog.watch.pause = Pause(Reason.ENGINE_STALLED, "it moved nothing", float("inf"), 1)
    rig.pass_time(30)
    assert (shows(rig, DMA_SWITCH), shows(rig, THREADS_SWITCH)) == ("0", "0")
    assert (rig.group()["state"], rig.group()["reason"]) == ("Failed", "EngineStalled")

    rig.wish(offload("CPUThreads"))
    rig.pass_time(30)

    assert (shows(rig, DMA_SWITCH), shows(rig, THREADS_SWITCH)) == ("0", "1")
    assert rig.group()["state"] == "Ready"
    rig.wish(offload("DMA"))
    assert (shows(rig, DMA_SWITCH), shows(rig, THREADS_SWITCH)) == ("0", "0")
    assert rig.group()["reason"] == "EngineStalled"


def test_the_two_switches_have_rows_and_baselines_of_their_own(tmp_path: Path) -> None:
    """Promise 7."""
    rig = rig_of(tmp_path, V3)
    rig.kernel.drift(THREADS_SWITCH, "1")

    rig.wish(offload("DMA"))

    dma, threads = rig.knob("offload.engine"), rig.knob("offload.engine/CPUThreads")
    assert (dma["path"], dma["desired"], dma["observed"], dma["baseline"]) == (DMA_SWITCH, "DMA", "DMA", "Off")
    assert (threads["path"], threads["desired"], threads["baseline"]) == (THREADS_SWITCH, "Off", "CPUThreads")

    rig.wish(restored(offload("DMA")))

    assert (shows(rig, DMA_SWITCH), shows(rig, THREADS_SWITCH)) == ("0", "1")


def test_where_both_engines_read_on_both_go_off_before_the_wished_one_goes_on(tmp_path: Path) -> None:
    """Promise 4: nobody can tell which one works, and turning one off may stop the other."""
    rig = rig_of(tmp_path, V3)
    rig.kernel.drift(DMA_SWITCH, "1")
    rig.kernel.drift(THREADS_SWITCH, "1")

    rig.wish(offload("DMA"))

    assert rig.stores[2:] == [("offloading", "0"), ("offloading", "0"), ("offloading", "1")]
    assert (shows(rig, DMA_SWITCH), shows(rig, THREADS_SWITCH)) == ("1", "0")
    assert rig.group()["state"] == "Ready"


def test_a_second_engine_that_somebody_turns_on_again_and_again_counts_as_drift(tmp_path: Path) -> None:
    """So it is met with growing pauses; the engine that goes off with it is part of the correction."""
    rig = rig_of(tmp_path, V3)
    rig.wish(offload("DMA"))
    for _ in range(3):
        rig.kernel.drift(THREADS_SWITCH, "1")
        rig.pass_time(20)

    assert "set back, 3 times lately" in rig.condition("Drifted")["message"]
    assert rig.status["offload"] == "DMA, 1 channel"


def test_a_second_engine_that_somebody_turns_on_is_left_where_drift_is_only_told(tmp_path: Path) -> None:
    """Neither engine is touched: half a correction would be worse than none."""
    rig = rig_of(tmp_path, V3)
    rig.wish({"offload": wish({"engine": "DMA"}, drift="Report", **EVERY_RISK)})
    before = len(rig.kernel.stores)
    rig.kernel.drift(THREADS_SWITCH, "1")

    rig.pass_time(60)

    assert len(rig.kernel.stores) == before + 1
    assert rig.condition("Drifted")["status"] == "True"


def test_a_refused_group_turns_off_both_engines_that_are_ours(tmp_path: Path) -> None:
    """Promise 3."""
    rig = rig_of(tmp_path, V3)
    rig.wish(offload("CPUThreads"))

    rig.wish({"offload": wish({"engine": "CPUThreads"}, acceptedRisks=[])})

    assert rig.group()["state"] == "Refused"
    assert shows(rig, THREADS_SWITCH) == "0"


def test_a_short_answer_to_a_write_is_success_and_is_not_repeated(tmp_path: Path) -> None:
    """cpu_mt answers 4 to a write of one byte."""
    rig = rig_of(tmp_path, V3)

    rig.wish(offload("CPUThreads"))

    assert rig.stores == [("offloading", "1")]
    assert rig.group()["state"] == "Ready"


def test_threads_beyond_what_this_kernel_takes_are_rejected_and_undone(tmp_path: Path) -> None:
    """Promise 4: 33..64 are legal without the test patch only, and no file tells."""
    rig = rig_of(tmp_path, V3)

    rig.wish(offload("CPUThreads") | {"cpuThreads": wish({"count": 64}, **EVERY_RISK)})

    assert rig.knob("cpuThreads.count")["outcome"] == "Rejected"
    assert (rig.group("cpuThreads")["state"], shows(rig, THREADS_SWITCH)) == ("Failed", "0")


@pytest.mark.parametrize(
    ("dialect", "test_patches", "placement", "outcome"),
    [
        pytest.param(Dialect.V3, True, "Fill", "Applied", id="V3 with the test patch"),
        pytest.param(Dialect.V3, True, "Push", "Unsupported", id="not a word of V3"),
        pytest.param(Dialect.V3, False, "Fill", "Unsupported", id="V3 as posted has no such file"),
        pytest.param(Dialect.ZY, False, "Pull", "Applied", id="ZY"),
        pytest.param(Dialect.ZY, False, "Spread", "Unsupported", id="not a word of ZY"),
    ],
)
def test_a_placement_is_set_where_the_kernel_has_that_word(
    tmp_path: Path, dialect: Dialect, test_patches: bool, placement: str, outcome: str
) -> None:
    """Promise 14: else the kernel decides what a word means that it was never told."""
    rig = rig_of(tmp_path, ROWS[dialect], test_patches=test_patches)

    rig.wish(offload("CPUThreads") | {"cpuThreads": wish({"placement": placement, "count": 8}, **EVERY_RISK)})

    row = next(row for row in rig.status["knobs"] if row["field"].startswith("cpuThreads.placement"))
    assert row["outcome"] == outcome
    assert rig.knob("cpuThreads.count")["outcome"] == "Applied"
    assert rig.group("cpuThreads")["state"] == "Ready"


def test_a_word_that_this_kernel_lacks_is_a_lacking_field_to_a_strict_policy(tmp_path: Path) -> None:
    rig = rig_of(tmp_path, V3)
    threads = wish({"placement": "Push", "count": 8}, unsupported="Strict", **EVERY_RISK)

    rig.wish({"cpuThreads": threads})

    assert (rig.group("cpuThreads")["state"], rig.group("cpuThreads")["reason"]) == ("Unsupported", "FieldUnsupported")
    assert rig.stores == []


# --- V6-SDXI, F-ext, F-mid

SDXI = ROWS[Dialect.V6_SDXI]


def test_a_host_with_sdxi_engines_only_gets_one_channel_and_is_told(tmp_path: Path) -> None:
    rig = rig_of(tmp_path, SDXI)

    rig.wish({"offload": wish({"engine": "DMA", "channels": 4}, **EVERY_RISK)})

    assert (rig.group()["state"], rig.group()["reason"]) == ("Ready", "Clamped")
    assert (rig.knob("offload.channels")["observed"], rig.status["offload"]) == ("1", "DMA, 1 channel")


def test_sdxi_is_a_shared_engine_and_refused_until_that_is_accepted(tmp_path: Path) -> None:
    """Promise 5."""
    rig = rig_of(tmp_path, SDXI)

    rig.wish({"offload": wish({"engine": "DMA"})})

    assert rig.group()["reason"] == "RiskNotAccepted"
    assert "DMA engine sdxi is shared; name SharedEngine in acceptedRisks" in rig.group()["message"]


def test_two_channels_on_a_mixed_host_that_is_v6_sdxi_after_all_are_rejected_and_undone(tmp_path: Path) -> None:
    """Promise 4: the files cannot tell, the write does."""
    engines = (DmaEngine("ptdma", channels=4), DmaEngine("sdxi"))
    rig = Rig(tmp_path, HostConfig(dialect=Dialect.V6_SDXI, engines=engines))

    rig.wish({"offload": wish({"engine": "DMA", "channels": 2, "reasons": ["demotion"]}, **EVERY_RISK)})

    row = rig.knob("offload.channels")
    assert (row["outcome"], row["reason"]) == ("Rejected", "InvalidValue")
    assert rig.status["dialect"] == "V6"
    assert (rig.group()["state"], rig.status["offload"]) == ("Failed", "Off")
    assert "memory_failure" in shows(rig, "/sys/module/dcbm/parameters/reason_mask")


F_EXT = ROWS[Dialect.F_EXT]
SEGMENTS = "/sys/module/dcbm/parameters/sg_elems"


def test_zero_segments_of_before_are_not_written_back_and_the_rest_is(tmp_path: Path) -> None:
    """Promise 5: 0 is never written, whatever was there."""
    rig = rig_of(tmp_path, F_EXT)
    rig.kernel.drift(SEGMENTS, "0")
    settings = {"batch": wish({"sgElements": 32, "descriptorsPerChannel": 8}, **EVERY_RISK)}
    rig.wish(settings)
    before = len(rig.kernel.stores)

    rig.wish(restored(settings))

    assert rig.stores[before:] == [("max_inflight", "32")]
    assert shows(rig, SEGMENTS) == "32"
    assert rig.group("batch")["state"] == "Restored"


def test_zero_segments_of_before_do_not_come_back_when_a_change_is_undone(tmp_path: Path) -> None:
    """Promise 5: nor does the agent fall over them."""
    rig = rig_of(tmp_path, F_EXT, other_migrator=True)
    rig.kernel.drift(SEGMENTS, "0")

    rig.wish(offload("DMA") | {"batch": wish({"sgElements": 32, "descriptorsPerChannel": 8}, **EVERY_RISK)})

    assert rig.group()["reason"] == "MigratorBusy"
    assert shows(rig, SEGMENTS) == "32"
    assert shows(rig, "/sys/module/dcbm/parameters/max_inflight") == "32"


QUANTUM = {"mapCache": wish({"quantumKiB": 64}, **EVERY_RISK)}


def test_a_knob_that_is_only_looked_at_when_the_engine_goes_on_turns_it_off_and_on(tmp_path: Path) -> None:
    """Promise 4: else it would read as asked and have no effect."""
    rig = rig_of(tmp_path, F_EXT)
    rig.wish(offload("DMA"))
    before = len(rig.kernel.stores)

    rig.wish(offload("DMA") | QUANTUM)

    assert rig.stores[before:] == [("offloading", "0"), ("map_quantum_kb", "64"), ("offloading", "1")]
    assert (rig.group()["state"], rig.group("mapCache")["state"]) == ("Ready", "Ready")


def test_an_engine_that_no_policy_keeps_on_is_not_turned_off_for_such_a_knob(tmp_path: Path) -> None:
    """Promise 6: nobody would turn it on again."""
    rig = rig_of(tmp_path, F_EXT)
    rig.kernel.drift("/sys/module/dcbm/parameters/offloading", "1")
    rig.wish(QUANTUM)

    rig.wish(restored(QUANTUM))

    assert rig.stores[1:] == [("map_quantum_kb", "64"), ("map_quantum_kb", "0")]


def test_engines_that_complete_out_of_order_are_no_hazard_of_f_ext(tmp_path: Path) -> None:
    """It looks at the result of each descriptor."""
    rig = rig_of(tmp_path, F_EXT, engines=(DmaEngine("idxd", channels=4),))

    rig.wish({"offload": wish({"engine": "DMA"})})

    assert rig.group()["state"] == "Ready"


@pytest.mark.parametrize(("loaded_anew", "state"), [(False, "Failed"), (True, "Unsupported")])
def test_channels_have_gone_only_where_their_own_switch_was_set_before(
    tmp_path: Path, loaded_anew: bool, state: str
) -> None:
    """Promise 11: that CPU threads were set here does not make a node without channels a broken one."""
    rig = rig_of(tmp_path, V3, engines=(DmaEngine("dw_dmac", memcpy=False),))
    rig.wish({"offload": wish({"engine": "Off"}, **EVERY_RISK)})
    if loaded_anew:
        rig.kernel.unload()
        rig.kernel.load({})

    rig.wish({"offload": wish({"engine": "DMA", "channels": 1}, **EVERY_RISK)})

    assert (rig.group()["state"], rig.group()["reason"]) == (state, "NoDmaChannel")


def test_a_driver_that_finds_no_channel_says_so(tmp_path: Path) -> None:
    """Promise 4: another client holds them all, so turning on is refused by the kernel and undone."""
    rig = rig_of(tmp_path, F_EXT, engines=(DmaEngine("ptdma", channels=4, taken=4),))

    rig.wish({"offload": wish({"engine": "DMA", "channels": 2}, **EVERY_RISK)})

    assert (rig.group()["state"], rig.group()["reason"]) == ("Failed", "NoDmaChannel")
    assert rig.knob("offload.engine")["outcome"] == "Rejected"
    assert rig.knob("offload.channels")["observed"] == "16"


def test_f_mid_would_stall_for_ever_and_says_so(tmp_path: Path) -> None:
    """Promise 5."""
    rig = rig_of(tmp_path, ROWS[Dialect.F_MID])

    rig.wish({"offload": wish({"engine": "DMA"}, **EVERY_RISK)})

    assert "UnboundedStall" in rig.group()["message"]


# --- a revision that nobody knows


def test_a_newer_revision_is_driven_by_what_is_known_of_it(tmp_path: Path) -> None:
    """Promise 14: what no table has is told and never written."""
    new = "/sys/module/dcbm/parameters/turbo"
    missing = ("/sys/module/dcbm/parameters/max_inflight",)
    rig = rig_of(tmp_path, F_EXT, extra_files={new: "7"}, missing_files=missing)

    groups = {
        "offload": wish({"engine": "DMA"}, **EVERY_RISK),
        "batch": wish({"descriptorsPerChannel": 8, "sgElements": 16}, **EVERY_RISK),
    }
    rig.wish(groups)

    assert rig.status["unknownFiles"] == [new]
    assert rig.knob("batch.descriptorsPerChannel")["outcome"] == "Unsupported"
    assert rig.knob("batch.sgElements")["outcome"] == "Applied"
    assert shows(rig, new) == "7"
    assert "turbo" not in {name for name, _ in rig.stores}


def test_a_driver_of_which_no_file_is_known_is_not_said_to_be_absent(tmp_path: Path) -> None:
    """A later revision with other names: a person shall look for a newer release, not for a driver."""
    folder = "/sys/module/dcbm/parameters"
    known = ("offloading", "nr_dma_chan", "reason_mask", "folios_migrated", "folios_failures")
    missing = tuple(f"{folder}/{name}" for name in known)
    rig = Rig(tmp_path, HostConfig(extra_files={f"{folder}/enabled": "0"}, missing_files=missing))

    rig.wish({"offload": wish({"engine": "DMA"}, **EVERY_RISK)})

    assert rig.group()["state"] == "Unsupported"
    assert rig.group()["message"] == (
        "this kernel has /sys/module/dcbm, but no file there that this release knows (unknownFiles)"
    )
    assert rig.status["unknownFiles"] == [f"{folder}/enabled"]
    assert rig.condition("Supported")["message"].startswith("the driver is there")


def test_v6_without_its_mask_cannot_restrict_reasons(tmp_path: Path) -> None:
    """Promise 3."""
    mask = "/sys/module/dcbm/parameters/reason_mask"
    rig = rig_of(tmp_path, ROWS[Dialect.V6], missing_files=(mask,))

    rig.wish({"offload": wish({"engine": "DMA", "reasons": ["demotion"]}, **EVERY_RISK)})
    assert rig.group()["reason"] == "ReasonsNotRestrictable"

    rig.wish({"offload": wish({"engine": "DMA"})})
    assert "MemoryFailureOffload" in rig.group()["message"]


@pytest.mark.parametrize("dialect", [Dialect.V3, Dialect.V2])
def test_copy_threads_alone_are_taken_for_v3(tmp_path: Path, dialect: Dialect) -> None:
    """Both have the same files of them, which behave alike."""
    rig = Rig(tmp_path, HostConfig(dialect=dialect, missing_files=("/sys/kernel/dcbm",)))
    rig.wish(offload("CPUThreads"))

    assert (rig.status["dialect"], rig.group()["state"]) == ("V3", "Ready")
    assert rig.condition("Supported")["status"] == "True"
