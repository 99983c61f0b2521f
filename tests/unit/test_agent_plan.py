# SPDX-License-Identifier: Apache-2.0
"""What the agent decides, from facts of a fake kernel. Nothing is written here."""

from __future__ import annotations

import random
from collections.abc import Mapping
from errno import EACCES, EIO
from typing import Any

import pytest

from numamigration_agent.baseline import Baselines, Swap
from numamigration_agent.groups import GroupPlan, Known
from numamigration_agent.guards import GUARDS, TURN_ON_GUARDS
from numamigration_agent.hazards import HAZARDS
from numamigration_agent.kernel.codecs import Value
from numamigration_agent.kernel.dialects import knobs_of
from numamigration_agent.kernel.probe import KernelFacts, hardware_class, probe, probe_host
from numamigration_agent.kernel.sysfs import Absent, Denied
from numamigration_agent.plan import in_safe_order, make_plan, plan_policy
from numamigration_agent.rows import KnobWrite
from numamigration_agent.situation import Refusal, Veto
from numamigration_agent.wishes import Spec, parse_spec
from numamigration_api.machinery.canonical import spec_revision
from numamigration_api.machinery.profiles import profile_name
from numamigration_api.machinery.records import replace
from numamigration_api.vocabulary import AcceptedRisk, Dialect, Engine, GroupState, MigrationReason, Outcome, Reason
from tests.fakekernel.config import REASONS_7_3, DmaEngine, HostConfig, NumaNode
from tests.fakekernel.model import FakeKernel
from tests.unit.agent_rig import OFFLOAD, FakeSysfs, wish

UNVERIFIED = "UnverifiedEngine"


def facts_of(config: HostConfig, writes: Mapping[str, str] | None = None) -> KernelFacts:
    kernel = FakeKernel(config, random.Random(1))
    for path, text in (writes or {}).items():
        kernel.drift(path, text)
    sysfs = FakeSysfs(kernel)
    return probe(sysfs, probe_host(sysfs))


def plan_one(
    group: str,
    body: Mapping[str, Any],
    config: HostConfig | None = None,
    *,
    writes: Mapping[str, str] | None = None,
    baselines: Mapping[str, str] | None = None,
    settled: Mapping[str, str] | None = None,
    veto: Veto | None = None,
) -> GroupPlan:
    spec = parse_spec({"spec": {"groups": {group: body}}})
    before = Baselines("boot", {name: Value(value) for name, value in (baselines or {}).items()})
    in_force = {name: Value(value) for name, value in (settled or {}).items()}
    return make_plan(facts_of(config or HostConfig(), writes), spec, Known(before, in_force, veto=veto)).groups[0]


def written(plan: GroupPlan) -> list[tuple[str, str]]:
    return [(write.knob.field, write.target) for write in in_safe_order(plan.writes)]


def outcomes(plan: GroupPlan) -> dict[str, Outcome | None]:
    return {row.field: row.outcome for row in plan.knobs}


OFFLOADING = "/sys/module/dcbm/parameters/offloading"
CHANNELS = "/sys/module/dcbm/parameters/nr_dma_chan"
MASK = "/sys/module/dcbm/parameters/reason_mask"

IDXD = (DmaEngine("ptdma"), DmaEngine("idxd"))
EVERY_HAZARD = HostConfig(engines=(*IDXD, DmaEngine("ioatdma")), built_in=True, numa_nodes=(NumaNode(0, cpus="0-7"),))
HAZARDOUS = {"engine": "DMA", "reasons": ["memory_failure"]}

# --- refusals


def test_refusals_are_asked_in_this_order() -> None:
    """People read the first refusal: what the kernel lacks, what this node saw, known hazards, what cannot be done."""
    assert [guard.__name__ for guard in GUARDS + TURN_ON_GUARDS] == [
        "group_supported",
        "dialect_driven",
        "engine_supported",
        "fields_supported",
        "engine_trusted",
        "hazards_accepted",
        "engine_verified",
        "reasons_restrictable",
        "channel_available",
    ]
    assert [row.risk for row in HAZARDS] == [
        "DirectIOLostWrite",
        "UnboundedStall",
        "OutOfOrderEngine",
        "SharedEngine",
        "MemoryFailureOffload",
        "BuiltInDriverStall",
        "UnverifiedEngine",
    ]


@pytest.mark.parametrize(
    ("accepted", "verification", "reason", "words"),
    [
        pytest.param([], "Off", Reason.RISK_NOT_ACCEPTED, "OutOfOrderEngine", id="out of order"),
        pytest.param(["OutOfOrderEngine"], "Off", Reason.RISK_NOT_ACCEPTED, "SharedEngine", id="shared"),
        pytest.param(
            ["OutOfOrderEngine", "SharedEngine"],
            "Off",
            Reason.RISK_NOT_ACCEPTED,
            "MemoryFailureOffload",
            id="memory failure",
        ),
        pytest.param(
            ["OutOfOrderEngine", "SharedEngine", "MemoryFailureOffload"],
            "Off",
            Reason.RISK_NOT_ACCEPTED,
            "BuiltInDriverStall",
            id="built in",
        ),
        pytest.param(
            ["OutOfOrderEngine", "SharedEngine", "MemoryFailureOffload", "BuiltInDriverStall"],
            "FirstUse",
            Reason.VERIFICATION_IMPOSSIBLE,
            "verification: Off",
            id="cannot be verified",
        ),
        pytest.param(
            ["OutOfOrderEngine", "SharedEngine", "MemoryFailureOffload", "BuiltInDriverStall"],
            "Off",
            Reason.RISK_NOT_ACCEPTED,
            UNVERIFIED,
            id="unverified",
        ),
    ],
)
def test_a_hazard_that_is_not_accepted_is_refused_and_named(
    accepted: list[str], verification: str, reason: Reason, words: str
) -> None:
    """Promises 5 and 15."""
    body = wish(HAZARDOUS, acceptedRisks=accepted, verification=verification)

    plan = plan_one("offload", body, EVERY_HAZARD)

    assert (plan.state, plan.reason) == (GroupState.REFUSED, reason)
    assert words in plan.message
    assert plan.writes == ()
    assert plan.captures == {}


def test_a_policy_that_names_every_risk_is_carried_out() -> None:
    risks = ["OutOfOrderEngine", "SharedEngine", "MemoryFailureOffload", "BuiltInDriverStall", UNVERIFIED]

    plan = plan_one("offload", wish(HAZARDOUS, acceptedRisks=risks), EVERY_HAZARD)

    assert written(plan)[-1] == ("offload.engine", "1")


def test_turning_off_needs_no_risk_and_no_channel() -> None:
    config = HostConfig(engines=(), built_in=True)
    body = wish({"engine": "Off"}, acceptedRisks=[], verification="FirstUse")

    plan = plan_one("offload", body, config, writes={OFFLOADING: "1"})

    assert written(plan) == [("offload.engine", "0")]


def test_without_a_dma_channel_offload_stays_off() -> None:
    """The kernel would say "on" and silently copy by CPU."""
    engines = (DmaEngine("dw_dmac", memcpy=False), DmaEngine("sdxi"))

    plan = plan_one("offload", wish({"engine": "DMA"}, **V5_RISKS), HostConfig(dialect=Dialect.V5, engines=engines))

    assert (plan.state, plan.reason) == (GroupState.UNSUPPORTED, Reason.NO_DMA_CHANNEL)
    assert "sdxi" in plan.message
    assert plan.writes == ()


def test_channels_that_have_gone_are_a_failure_and_no_kind_of_node() -> None:
    """Promises 11 and 16: a node that lost its engines is not like one that never had any."""
    gone, before = HostConfig(engines=()), {"offload.engine": "0"}

    plan = plan_one("offload", wish(OFFLOAD), gone, writes={OFFLOADING: "1"}, baselines=before)

    assert (plan.state, plan.reason) == (GroupState.FAILED, Reason.NO_DMA_CHANNEL)
    assert written(plan) == [("offload.engine", "0")]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        pytest.param(HostConfig(dialect=Dialect.NO_SERIES), Reason.KERNEL_UNSUPPORTED, id="stock kernel"),
        pytest.param(HostConfig(loaded=False), Reason.NOT_LOADED, id="module not loaded"),
    ],
)
@pytest.mark.parametrize("engine", ["DMA", "Off"])
def test_a_kernel_without_the_series_is_unsupported_and_no_failure(
    config: HostConfig, reason: Reason, engine: str
) -> None:
    plan = plan_one("offload", wish({"engine": engine}), config)

    assert (plan.state, plan.reason) == (GroupState.UNSUPPORTED, reason)
    assert outcomes(plan)["offload.engine"] is Outcome.UNSUPPORTED


def test_copy_threads_are_unsupported_in_v6() -> None:
    plan = plan_one("offload", wish({"engine": "CPUThreads"}))

    assert (plan.state, plan.reason) == (GroupState.UNSUPPORTED, Reason.KERNEL_UNSUPPORTED)


def test_a_group_that_v6_lacks_as_a_whole_is_unsupported() -> None:
    plan = plan_one("batch", wish({"minSize": "32Ki"}))

    assert (plan.state, plan.reason) == (GroupState.UNSUPPORTED, Reason.KERNEL_UNSUPPORTED)


def test_a_strict_policy_writes_nothing_when_a_field_is_lacking() -> None:
    body = wish({**OFFLOAD, "locality": "Local"}, unsupported="Strict")

    plan = plan_one("offload", body)

    assert (plan.state, plan.reason) == (GroupState.UNSUPPORTED, Reason.FIELD_UNSUPPORTED)
    assert "offload.locality" in plan.message
    assert plan.writes == ()


def test_best_effort_applies_the_rest_and_tells_the_lacking_field() -> None:
    plan = plan_one("offload", wish({**OFFLOAD, "locality": "Local"}))

    assert outcomes(plan)["offload.locality"] is Outcome.UNSUPPORTED
    assert written(plan)[-1] == ("offload.engine", "1")


@pytest.mark.parametrize("name", ["folios_migrated", "../../../kernel/dcbm/offloading", "engine\n", ""])
def test_a_setting_without_a_row_in_the_knob_table_is_told_and_not_written(name: str) -> None:
    """Promise 14: whatever a policy calls it."""
    plan = plan_one("offload", wish({**OFFLOAD, name: "1"}))

    assert outcomes(plan)[f"offload.{name}"] is Outcome.UNSUPPORTED
    assert written(plan) == ON


def test_a_refused_group_turns_off_what_this_project_turned_on() -> None:
    """Promise 3: a risk that is no longer accepted ends the offload."""
    body = wish(OFFLOAD, acceptedRisks=[])

    plan = plan_one("offload", body, writes={OFFLOADING: "1"}, baselines={"offload.engine": "0"})

    assert plan.state is GroupState.REFUSED
    assert written(plan) == [("offload.engine", "0")]


def test_a_veto_turns_off_what_this_project_turned_on_and_is_told() -> None:
    """Promise 16: an engine that this node has seen to fail is off, whatever is wished."""
    veto = Veto(Refusal(GroupState.FAILED, Reason.ENGINE_STALLED, "nothing moved for 3 s"))

    plan = plan_one("offload", wish(OFFLOAD), writes={OFFLOADING: "1"}, baselines={"offload.engine": "0"}, veto=veto)

    assert (plan.state, plan.reason, plan.message) == veto.refusal
    assert written(plan) == [("offload.engine", "0")]


@pytest.mark.parametrize(
    ("engine", "state"), [("DMA", GroupState.FAILED), ("CPUThreads", GroupState.PENDING)], ids=["its engine", "another"]
)
def test_a_veto_is_about_the_engine_in_question(engine: str, state: GroupState) -> None:
    """Promise 16."""
    veto = Veto(Refusal(GroupState.FAILED, Reason.ENGINE_STALLED, "nothing moved for 3 s"), Engine.DMA)
    body = wish({"engine": engine}, acceptedRisks=list(AcceptedRisk))

    assert plan_one("offload", body, HostConfig(dialect=Dialect.V3), veto=veto).state is state


def test_a_veto_keeps_no_other_group_from_its_wish() -> None:
    veto = Veto(Refusal(GroupState.FAILED, Reason.ENGINE_STALLED, "nothing moved for 3 s"))

    assert plan_one("demotion", wish({"enabled": True}), veto=veto).writes


def test_a_refused_group_leaves_alone_what_somebody_else_turned_on() -> None:
    plan = plan_one("offload", wish(OFFLOAD, acceptedRisks=[]), writes={OFFLOADING: "1"})

    assert plan.writes == ()


def test_a_wish_of_a_newer_operator_is_shown_and_not_written() -> None:
    plan = plan_one("offload", wish(OFFLOAD, mode="Gently"))

    assert (plan.state, plan.reason) == (GroupState.FAILED, Reason.VERSION_SKEW)
    assert "Gently" in plan.message
    assert plan.writes == ()


# --- migration reasons


def test_reasons_left_out_mean_all_that_the_kernel_knows_but_memory_failure() -> None:
    """Promise 3: whatever mask stood there before."""
    plan = plan_one("offload", wish({"engine": "DMA"}))

    mask = dict(written(plan))["offload.reasons"]
    assert set(mask.split(",")) == set(REASONS_7_3) - {MigrationReason.MEMORY_FAILURE}


def test_a_reason_that_this_kernel_does_not_know_is_dropped_and_told() -> None:
    """Promise 3: the others are restricted as asked."""
    config = HostConfig(reason_names=REASONS_7_3[:9])  # up to demotion: no damon yet

    plan = plan_one("offload", wish(OFFLOAD), config)

    assert dict(written(plan))["offload.reasons"] == "demotion"
    assert any("damon" in row.message for row in plan.knobs)


def test_no_known_reason_left_is_refused() -> None:
    """Promise 3: an empty mask would mean "on, and nothing eligible"; a wrong one would offload what nobody asked."""
    config = HostConfig(reason_names=REASONS_7_3[:9])

    plan = plan_one("offload", wish({"engine": "DMA", "reasons": ["damon"]}), config)

    assert (plan.state, plan.reason) == (GroupState.REFUSED, Reason.REASONS_NOT_RESTRICTABLE)
    assert plan.writes == ()


FIXED = ["compaction", "syscall_or_cpuset", "numa_misplaced", "demotion"]
V5 = HostConfig(dialect=Dialect.V5)
V5_RISKS = {"acceptedRisks": [UNVERIFIED, "DirectIOLostWrite"]}


def test_v5_is_refused_until_the_policy_names_what_it_can_lose() -> None:
    """Promise 5: V5 can lose bytes that direct I/O writes while a folio migrates."""
    plan = plan_one("offload", wish({"engine": "DMA"}), V5)

    assert (plan.state, plan.reason) == (GroupState.REFUSED, Reason.RISK_NOT_ACCEPTED)
    assert "DirectIOLostWrite" in plan.message
    assert plan.writes == ()


def test_the_hazard_of_v5_is_none_of_v6() -> None:
    assert plan_one("offload", wish(OFFLOAD)).state is not GroupState.REFUSED


@pytest.mark.parametrize(
    ("driver", "risk"),
    [
        pytest.param("idxd", "OutOfOrderEngine", id="out of order"),
        pytest.param("ioatdma", "SharedEngine", id="shared"),
    ],
)
def test_the_engines_of_v5_have_the_hazards_of_v6(driver: str, risk: str) -> None:
    """Promise 5."""
    config = HostConfig(dialect=Dialect.V5, engines=(DmaEngine(driver),))

    plan = plan_one("offload", wish({"engine": "DMA"}, **V5_RISKS), config)

    assert plan.reason is Reason.RISK_NOT_ACCEPTED
    assert risk in plan.message


@pytest.mark.parametrize(
    ("reasons", "outcome", "words"),
    [
        pytest.param(None, None, "", id="left out: the fixed set lacks memory_failure"),
        pytest.param(FIXED, Outcome.ALREADY_SET, "", id="just what is fixed"),
        pytest.param([*FIXED, "damon"], Outcome.CLAMPED, "damon", id="one more than is fixed"),
        pytest.param([*FIXED, "memory_failure"], Outcome.CLAMPED, "memory_failure", id="never offloaded, so no hazard"),
    ],
)
def test_fixed_reasons_that_were_all_asked_for_let_offload_go_on(
    reasons: list[str] | None, outcome: Outcome | None, words: str
) -> None:
    asked = {} if reasons is None else {"reasons": reasons}

    plan = plan_one("offload", wish({"engine": "DMA", "channels": 4} | asked, **V5_RISKS), V5)

    assert written(plan) == [("offload.channels", "4"), ("offload.engine", "1")]
    assert outcomes(plan).get("offload.reasons") is outcome
    assert all(words in row.message for row in plan.knobs if row.field == "offload.reasons")


@pytest.mark.parametrize("unasked", FIXED)
def test_a_fixed_reason_that_was_not_asked_for_keeps_offload_off(unasked: str) -> None:
    """Promise 3: V5 cannot leave it out."""
    asked = [*(name for name in FIXED if name != unasked), "damon"]

    plan = plan_one("offload", wish({"engine": "DMA", "reasons": asked}, **V5_RISKS), V5)

    assert (plan.state, plan.reason) == (GroupState.REFUSED, Reason.REASONS_NOT_RESTRICTABLE)
    assert f"would offload {unasked} too" in plan.message
    assert plan.writes == ()


def test_a_reason_that_v5_cannot_leave_out_turns_off_what_this_project_turned_on() -> None:
    """Promise 3."""
    body = wish({"engine": "DMA", "reasons": ["demotion"]}, **V5_RISKS)
    switch = {"/sys/module/dcbm/offloading": "1"}

    plan = plan_one("offload", body, V5, writes=switch, baselines={"offload.engine": "0"})

    assert written(plan) == [("offload.engine", "0")]


def test_a_strict_policy_may_name_the_reasons_that_are_fixed() -> None:
    body = wish({"engine": "DMA", "reasons": FIXED}, unsupported="Strict", **V5_RISKS)

    assert plan_one("offload", body, V5).state is GroupState.PENDING


# --- what is written


def test_nothing_is_written_where_everything_already_is_so() -> None:
    """Promise 2; the values of before are captured all the same, for later."""
    plan = plan_one("offload", wish(OFFLOAD), writes={OFFLOADING: "1", CHANNELS: "4", MASK: "demotion,damon"})

    assert plan.writes == ()
    assert plan.state is GroupState.READY
    assert set(outcomes(plan).values()) == {Outcome.ALREADY_SET}
    assert plan.captures == {"offload.engine": "1", "offload.channels": "4", "offload.reasons": "demotion,damon"}


def test_a_baseline_is_captured_once() -> None:
    """Promise 7: what a second capture would find is our own value."""
    plan = plan_one("offload", wish(OFFLOAD), writes={CHANNELS: "2"}, baselines={"offload.channels": "1"})

    assert "offload.channels" not in plan.captures


@pytest.mark.parametrize(
    ("channels", "engines", "target", "words"),
    [
        pytest.param(4, 4, "4", "", id="as asked"),
        pytest.param(5, 4, "4", "4 DMA channels", id="one more than the host has"),
        pytest.param(16, 32, "16", "", id="the driver's bound"),
        pytest.param(17, 32, "16", "takes 1..16", id="one past the driver's bound"),
    ],
)
def test_channels_are_clamped_to_the_driver_and_the_host(channels: int, engines: int, target: str, words: str) -> None:
    config = HostConfig(engines=(DmaEngine("ptdma", channels=engines),))
    body = wish({"engine": "DMA", "channels": channels})

    plan = plan_one("offload", body, config)

    assert dict(written(plan))["offload.channels"] == target
    row = next(row for row in plan.knobs if row.field == "offload.channels")
    assert (words in row.message) if words else not row.message


def test_a_clamped_knob_that_is_in_force_leaves_the_group_ready() -> None:
    config = HostConfig(engines=(DmaEngine("ptdma"),))
    body = wish({"engine": "DMA", "channels": 4, "reasons": ["demotion"]})

    plan = plan_one("offload", body, config, writes={OFFLOADING: "1", MASK: "demotion"})

    assert (plan.state, plan.reason) == (GroupState.READY, Reason.CLAMPED)
    assert outcomes(plan)["offload.channels"] is Outcome.CLAMPED


ON = [("offload.channels", "4"), ("offload.reasons", "demotion,damon"), ("offload.engine", "1")]


@pytest.mark.parametrize(
    ("plan", "order"),
    [
        pytest.param(plan_one("offload", wish(OFFLOAD)), ON, id="on: the switch last"),
        pytest.param(
            plan_one(
                "offload",
                wish({"engine": "Off"}),
                writes={OFFLOADING: "1", CHANNELS: "4", MASK: "demotion"},
                baselines={"offload.engine": "0", "offload.channels": "1", "offload.reasons": "compaction,demotion"},
            ),
            [("offload.engine", "0"), ("offload.channels", "1"), ("offload.reasons", "compaction,demotion")],
            id="off: the switch first",
        ),
        pytest.param(
            plan_one("balancing", wish({"mode": "Tiering", "promoteRateLimitMBps": 5})),
            [("balancing.promoteRateLimitMBps", "5"), ("balancing.mode", "2")],
            id="tiering: the limit before the mode",
        ),
    ],
)
def test_parameters_are_written_before_a_switch_goes_on_and_after_it_goes_off(
    plan: GroupPlan, order: list[tuple[str, str]]
) -> None:
    """Promise 4: on before the channel count means one channel, which is slower than no offload."""
    assert written(plan) == order


def test_groups_of_one_driver_change_together_and_others_apart() -> None:
    spec = parse_spec(
        {
            "spec": {
                "groups": {
                    "offload": wish(OFFLOAD),
                    "balancing": wish({"mode": "Off"}),
                    "demotion": wish({"enabled": True}),
                }
            }
        }
    )

    plan = make_plan(facts_of(HostConfig()), spec, Known(Baselines("boot")))

    assert [change.unit for change in plan.changes] == ["offload", "balancing", "demotion"]


# --- restore, hold, release


BEFORE = {"offload.engine": "0", "offload.channels": "1", "offload.reasons": "compaction,demotion,damon"}
OURS = {OFFLOADING: "1", CHANNELS: "4", MASK: "demotion,damon"}


def test_restore_puts_back_what_has_a_baseline_and_forgets_it() -> None:
    plan = plan_one("offload", wish(OFFLOAD, mode="Restore"), writes=OURS, baselines=BEFORE)

    assert (plan.state, plan.reason) == (GroupState.PENDING, Reason.RESTORING)
    assert written(plan) == [
        ("offload.engine", "0"),
        ("offload.channels", "1"),
        ("offload.reasons", "compaction,demotion,damon"),
    ]
    assert plan.forget == set(BEFORE)


@pytest.mark.parametrize("settings", [{"engine": "Off"}, OFFLOAD], ids=["offload was off", "offload was on"])
def test_restore_needs_no_risk_although_it_turns_on(settings: dict[str, Any]) -> None:
    """Promise 7: what was on before comes back on."""
    body = wish(settings, mode="Restore", acceptedRisks=[])
    shared = HostConfig(engines=(DmaEngine("ioatdma"),))

    plan = plan_one("offload", body, shared, baselines={"offload.engine": "1", "offload.channels": "2"})

    assert written(plan) == [("offload.channels", "2"), ("offload.engine", "1")]


def test_restore_without_a_baseline_is_done() -> None:
    plan = plan_one("offload", wish(OFFLOAD, mode="Restore"), writes=OURS)

    assert plan.state is GroupState.RESTORED
    assert not plan.has_work


def test_restore_forgets_a_knob_whose_driver_is_gone() -> None:
    """All state of the driver went with it, so there is nothing to put back."""
    plan = plan_one("offload", wish(OFFLOAD, mode="Restore"), HostConfig(loaded=False), baselines=BEFORE)

    assert plan.writes == ()
    assert plan.forget == set(BEFORE)


def test_hold_writes_nothing_and_keeps_the_baselines() -> None:
    plan = plan_one("offload", wish(OFFLOAD, mode="Hold"), baselines=BEFORE)

    assert (plan.state, plan.reason) == (GroupState.HELD, Reason.PAUSED)
    assert not plan.has_work


@pytest.mark.parametrize(
    ("release", "writes", "forget"),
    [
        pytest.param("Restore", [("offload.channels", "1")], {"offload.channels"}, id="put back"),
        pytest.param("Keep", [], set(), id="left"),
    ],
)
def test_a_knob_that_is_no_longer_named_is_released(
    release: str, writes: list[tuple[str, str]], forget: set[str]
) -> None:
    """Promises 6 and 7: only Restore restores, and to the value of before."""
    body = wish({"engine": "DMA", "reasons": ["demotion", "damon"]}, release=release)

    plan = plan_one("offload", body, writes=OURS, baselines=BEFORE)

    assert written(plan) == writes
    assert plan.forget == forget


@pytest.mark.parametrize(
    ("group", "name"),
    [
        pytest.param("demotion", "demotion.enabled", id="of every kernel"),
        pytest.param("offload", "offload.channels", id="of a driver that is there"),
    ],
)
def test_a_knob_whose_file_alone_is_gone_is_not_said_to_be_restored(group: str, name: str) -> None:
    """Promise 7: the kernel still holds what we wrote; a mount over /sys hides the file and changes nothing."""
    facts = facts_of(HostConfig())
    hidden = replace(facts, readings={**facts.readings, name: Absent()})
    spec = parse_spec({"spec": {"groups": {group: wish({}, mode="Restore")}}})

    plan = make_plan(hidden, spec, Known(Baselines("boot", {name: Value("1")})))

    assert (plan.groups[0].state, plan.groups[0].reason) == (GroupState.FAILED, Reason.KERNEL_ERROR)
    assert "has gone" in plan.groups[0].message
    assert plan.changes == ()


def test_a_knob_that_went_with_one_of_two_drivers_is_forgotten() -> None:
    """Promise 13: the copy threads of V3 are there, and the DMA driver's folder went with what it held."""
    kernel = FakeKernel(HostConfig(dialect=Dialect.V3), random.Random(1))
    kernel.unload()
    sysfs = FakeSysfs(kernel)
    spec = parse_spec({"spec": {"groups": {"offload": wish({}, mode="Restore")}}})

    plan = make_plan(probe(sysfs, probe_host(sysfs)), spec, Known(Baselines("boot", {"offload.engine": Value("1")})))

    assert plan.groups[0].state is GroupState.PENDING
    assert plan.changes[0].forget == {"offload.engine"}


def test_a_knob_that_another_dialect_of_the_driver_lacks_is_forgotten() -> None:
    """Promise 13: the driver was replaced, and what its mask held went with it."""
    plan = plan_one(
        "offload", wish({}, mode="Restore"), HostConfig(dialect=Dialect.V5), baselines={"offload.reasons": "damon"}
    )

    assert plan.state is GroupState.PENDING
    assert plan.forget == {"offload.reasons"}


def test_the_baselines_of_an_absent_group_are_forgotten_and_nothing_is_written() -> None:
    baselines = Baselines("boot", {"offload.channels": Value("1")})

    plan = make_plan(
        facts_of(HostConfig(), OURS), parse_spec({"spec": {"revision": spec_revision({})}}), Known(baselines)
    )

    assert plan.groups == ()
    assert [change.writes for change in plan.changes] == [()]
    assert [change.forget for change in plan.changes] == [{"offload.channels"}]


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({}, id="a new object"),
        pytest.param({"revision": spec_revision({"groups": {"offload": wish(OFFLOAD)}})}, id="taken out by hand"),
    ],
)
def test_baselines_are_kept_while_a_group_is_absent_that_the_operator_did_not_drop(spec: dict[str, Any]) -> None:
    """Promise 7: what was there before is asked for later."""
    baselines = Baselines("boot", {"offload.channels": Value("1")})

    assert make_plan(facts_of(HostConfig(), OURS), parse_spec({"spec": spec}), Known(baselines)).changes == ()


@pytest.mark.parametrize(
    ("number", "reason"),
    [pytest.param(EACCES, Reason.PERMISSION_DENIED, id="EACCES"), pytest.param(EIO, Reason.KERNEL_ERROR, id="EIO")],
)
def test_a_knob_that_cannot_be_read_is_told_by_its_errno(number: int, reason: Reason) -> None:
    """Promise 11."""
    facts = facts_of(HostConfig())
    facts = replace(facts, readings={**facts.readings, "demotion.enabled": Denied(number)})

    spec = parse_spec({"spec": {"revision": "0" * 16, "groups": {"demotion": wish({"enabled": True})}}})
    plan = make_plan(facts, spec, Known(Baselines("boot")))

    assert (plan.groups[0].state, plan.groups[0].reason) == (GroupState.FAILED, reason)
    assert plan.changes == ()


# --- a spec of which something is missing


def cut_spec(offload: dict[str, Any], **more: Any) -> Spec:
    """Return a spec of the operator's that lost the reasons on its way."""
    groups = {"offload": wish(offload), **more}
    revision = spec_revision({"groups": groups})
    del groups["offload"]["settings"]["reasons"]
    return parse_spec({"spec": {"groups": groups, "revision": revision}})


def test_an_engine_is_not_turned_on_where_what_restricts_it_may_be_missing() -> None:
    """Promise 3: a CRD that is too old drops the reasons, and without them every reason is allowed."""
    spec = cut_spec({**OFFLOAD, "reasons": ["damon"]}, demotion=wish({"enabled": True}))

    plan = make_plan(facts_of(HostConfig()), spec, Known(Baselines("boot")))

    offload, demotion = plan.groups
    assert (offload.state, offload.reason) == (GroupState.PENDING, Reason.VERSION_SKEW)
    assert demotion.has_work
    assert [change.unit for change in plan.changes] == ["demotion"]


def test_an_engine_is_turned_off_whatever_is_missing() -> None:
    """Promise 17."""
    spec = cut_spec({"engine": "Off", "reasons": ["damon"]})

    (change,) = make_plan(facts_of(HostConfig(), {OFFLOADING: "1"}), spec, Known(Baselines("boot"))).changes

    assert [(write.knob.field, write.target) for write in change.writes] == [("offload.engine", "0")]


# --- open units


def open_unit(**swaps: tuple[str, str]) -> Baselines:
    rows = {f"offload.{name}": Swap(Value(before), Value(target)) for name, (before, target) in swaps.items()}
    held = {name: swap.before for name, swap in rows.items()}
    return Baselines("boot", held, open_units={"offload": rows})


TURN_ON = open_unit(channels=("1", "4"), engine=("0", "1"))
TURN_OFF = open_unit(channels=("4", "1"), engine=("1", "0"))


@pytest.mark.parametrize(
    ("opened", "holds", "undo"),
    [
        pytest.param(TURN_ON, {}, [], id="nothing was written yet"),
        pytest.param(TURN_ON, {CHANNELS: "4"}, [("offload.channels", "1")], id="the first half was written"),
        pytest.param(TURN_ON, {CHANNELS: "4", OFFLOADING: "1"}, [], id="it is in force"),
        pytest.param(TURN_ON, {CHANNELS: "8"}, [], id="a third value is somebody else's"),
        pytest.param(
            TURN_ON, {CHANNELS: "8", OFFLOADING: "1"}, [("offload.engine", "0")], id="the switch goes off without them"
        ),
        pytest.param(TURN_OFF, {CHANNELS: "4"}, [], id="offload that went off stays off"),
    ],
)
def test_an_open_unit_is_undone_unless_it_is_in_force(
    opened: Baselines, holds: dict[str, str], undo: list[tuple[str, str]]
) -> None:
    """Promise 4: all or nothing. Promise 6: an agent that died after the last write left nothing to do."""
    spec = parse_spec({"spec": {"revision": "0" * 16, "groups": {"offload": wish(OFFLOAD)}}})

    plan = make_plan(facts_of(HostConfig(), holds), spec, Known(opened))

    (change,) = plan.changes
    assert change.ends
    assert [(write.knob.field, write.target) for write in change.writes] == undo
    assert change.captures == {}


def test_a_knob_of_an_open_unit_that_cannot_be_read_is_not_given_up() -> None:
    """Promise 4: whether it holds our value is not known yet."""
    facts = facts_of(HostConfig())
    facts = replace(facts, readings={**facts.readings, "offload.channels": Denied(EIO)})
    spec = parse_spec({"spec": {"revision": "0" * 16}})

    (change,) = make_plan(facts, spec, Known(TURN_ON)).changes

    assert [write.knob.field for write in change.writes] == ["offload.channels"]


def test_an_open_unit_waits_for_a_spec_and_keeps_no_other_unit_waiting() -> None:
    """Promise 6."""
    facts = facts_of(HostConfig(), {CHANNELS: "4"})
    groups = {"offload": wish(OFFLOAD), "demotion": wish({"enabled": True})}

    assert make_plan(facts, parse_spec({"spec": {}}), Known(TURN_ON)).changes == ()
    whole = {"revision": spec_revision({"groups": groups}), "groups": groups}
    plan = make_plan(facts, parse_spec({"spec": whole}), Known(TURN_ON))
    assert [(change.unit, change.ends) for change in plan.changes] == [("offload", True), ("demotion", False)]


def test_only_a_change_of_several_knobs_has_to_be_remembered() -> None:
    """Promise 4: what an agent leaves half done is known to the next one."""
    groups = {"offload": wish(OFFLOAD), "demotion": wish({"enabled": True})}
    spec = parse_spec({"spec": {"revision": spec_revision({"groups": groups}), "groups": groups}})

    several, one = make_plan(facts_of(HostConfig()), spec, Known(Baselines("boot"))).changes

    assert several.swaps["offload.channels"] == Swap(Value("1"), Value("4"))
    assert one.swaps == {}


# --- drift


@pytest.mark.parametrize(
    ("drift", "state", "reason", "writes"),
    [
        pytest.param("Correct", GroupState.PENDING, Reason.DRIFT_DETECTED, [("offload.channels", "4")], id="correct"),
        pytest.param("Report", GroupState.READY, Reason.DRIFT_DETECTED, [], id="report"),
        pytest.param("Ignore", GroupState.READY, Reason.AS_EXPECTED, [], id="ignore"),
    ],
)
def test_drift_is_corrected_told_or_ignored(
    drift: str, state: GroupState, reason: Reason, writes: list[tuple[str, str]]
) -> None:
    plan = plan_one(
        "offload",
        wish(OFFLOAD, drift=drift),
        writes={**OURS, CHANNELS: "2"},
        baselines=BEFORE,
        settled={"offload.channels": "4"},
    )

    assert (plan.state, plan.reason) == (state, reason)
    assert written(plan) == writes


def test_a_new_wish_is_no_drift() -> None:
    body = wish({**OFFLOAD, "channels": 3}, drift="Report")

    plan = plan_one("offload", body, writes=OURS, baselines=BEFORE, settled={"offload.channels": "4"})

    assert written(plan) == [("offload.channels", "3")]
    assert plan.drifted == set()


# --- plans


def plan_of(settings: Mapping[str, Any], config: HostConfig | None = None, **changes: Any) -> Any:
    body = {
        "source": {"policy": "trial", "uid": "u", "generation": 3},
        "settings": settings,
        "verification": "Off",
        "acceptedRisks": [UNVERIFIED],
        **changes,
    }
    spec = parse_spec({"spec": {"plans": [body]}})
    return plan_policy(facts_of(config or HostConfig()), spec.plans[0], Known(Baselines("boot")))


def test_a_plan_says_what_it_would_change() -> None:
    planned = plan_of({"offload": {**OFFLOAD, "channels": 1}, "demotion": {"enabled": True}})

    assert (planned.state, planned.reason) == (GroupState.READY, Reason.PLAN_ONLY)
    assert planned.would_change == 3
    assert {row.field: row.outcome for row in planned.knobs} == {
        "offload.engine": Outcome.WOULD_CHANGE,
        "offload.channels": Outcome.ALREADY_SET,
        "offload.reasons": Outcome.WOULD_CHANGE,
        "demotion.enabled": Outcome.WOULD_CHANGE,
    }


def test_a_plan_that_would_be_refused_says_so() -> None:
    planned = plan_of({"offload": OFFLOAD, "demotion": {"enabled": True}}, acceptedRisks=[])

    assert (planned.state, planned.reason) == (GroupState.REFUSED, Reason.RISK_NOT_ACCEPTED)


@pytest.mark.parametrize(
    ("unsupported", "state"),
    [
        pytest.param("BestEffort", GroupState.READY, id="the rest would be applied"),
        pytest.param("Strict", GroupState.UNSUPPORTED, id="strict"),
    ],
)
def test_a_plan_with_a_group_that_the_kernel_lacks(unsupported: str, state: GroupState) -> None:
    settings = {"offload": OFFLOAD, "demotion": {"enabled": True}}

    planned = plan_of(settings, HostConfig(dialect=Dialect.NO_SERIES), unsupported=unsupported)

    assert planned.state is state


def test_the_order_of_writes_does_not_depend_on_how_they_come() -> None:
    writes = [KnobWrite(knob, Value("1")) for knob in knobs_of(Dialect.V6) if knob.group == "offload"]

    assert in_safe_order(reversed(writes)) == in_safe_order(writes)


# --- hardware classes


def named(entry: Mapping[str, Any], **settings: Any) -> dict[str, Any]:
    """A wish with a profile of this host's class."""
    facts = facts_of(HostConfig())
    name = profile_name(facts.dialect, hardware_class(facts))
    return wish({"profiles": [{"name": "another", "engine": "Off"}, {"name": name, **entry}], **settings})


def test_a_class_that_is_named_has_its_own_engine_and_channels() -> None:
    plan = plan_one("offload", named({"engine": "DMA", "channels": 2}, engine="Off"))

    assert dict(written(plan))["offload.channels"] == "2"


def test_a_class_that_is_not_named_has_what_the_group_says() -> None:
    body = wish({"engine": "DMA", "channels": 1, "profiles": [{"name": "another", "engine": "DMA", "channels": 2}]})

    assert written(plan_one("offload", body)) == written(plan_one("offload", wish({"engine": "DMA", "channels": 1})))


def test_a_class_that_loses_by_offload_goes_without_whatever_dma_was_to_do() -> None:
    plan = plan_one(
        "offload",
        named({"engine": "Off"}, engine="DMA", channels=4, reasons=["damon"]),
        writes={OFFLOADING: "1"},
    )

    assert written(plan) == [("offload.engine", "0")]


def test_a_class_that_was_not_measured_is_not_touched() -> None:
    plan = plan_one("offload", wish({"profiles": []}), writes={OFFLOADING: "1"})

    assert (plan.state, plan.writes) == (GroupState.READY, ())
    assert "no MigrationProfile" in plan.message


def test_a_class_that_is_measured_no_more_goes_back_to_what_was_before() -> None:
    plan = plan_one("offload", wish({"profiles": []}), writes={OFFLOADING: "1"}, baselines={"offload.engine": "0"})

    assert written(plan) == [("offload.engine", "0")]
