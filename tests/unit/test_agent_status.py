# SPDX-License-Identifier: Apache-2.0
"""Words and rows of the status that no whole run shows; every document here also passes the contract's model."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from numamigration_agent.baseline import Baselines
from numamigration_agent.change import Failure
from numamigration_agent.groups import Known
from numamigration_agent.kernel.codecs import Value
from numamigration_agent.kernel.counters import numa_name
from numamigration_agent.kernel.probe import KernelFacts, probe, probe_host
from numamigration_agent.plan import make_plan, plan_policy
from numamigration_agent.recovery import contended_of_status, settled_of_status, totals_of_status
from numamigration_agent.statistics import Statistics, add_sample
from numamigration_agent.status import NUMA_ROWS_MAX, build_status, offload_phrase, significant
from numamigration_agent.view import Hindrances, View
from numamigration_agent.window import Window
from numamigration_agent.wishes import parse_spec
from numamigration_api.machinery.records import replace
from numamigration_api.models.node_state import NodeMigrationStateStatus
from numamigration_api.vocabulary import AcceptedRisk, Dialect, Reason
from tests.fakekernel.config import REASONS_7_2, REASONS_7_3, DmaEngine, HostConfig
from tests.fakekernel.model import FakeKernel
from tests.unit.agent_rig import OFFLOAD, START, FakeSysfs, wish

DRIVER = "/sys/module/dcbm/parameters"


def facts_of(config: HostConfig, **writes: str) -> KernelFacts:
    kernel = FakeKernel(config, random.Random(1))
    for name, text in writes.items():
        kernel.drift(f"{DRIVER}/{name}", text)
    sysfs = FakeSysfs(kernel)
    return probe(sysfs, probe_host(sysfs))


def status_of(
    groups: dict[str, Any], config: HostConfig | None = None, writes: dict[str, str] | None = None, **view: Any
) -> dict[str, Any]:
    facts = facts_of(config or HostConfig(), **(writes or {}))
    spec = parse_spec({"metadata": {"generation": 2}, "spec": {"groups": groups}})
    plan = make_plan(facts, spec, Known(Baselines("boot")))
    status = build_status(View(spec, facts, plan.groups, **view), now=START, conditions=())
    NodeMigrationStateStatus.model_validate_json(json.dumps(status))
    return status


def ready(status: dict[str, Any]) -> tuple[str, str]:
    row = next(row for row in status["conditions"] if row["type"] == "Ready")
    return row["status"], row["reason"]


@pytest.mark.parametrize(
    ("config", "writes", "phrase"),
    [
        pytest.param(HostConfig(), {}, "Off", id="off"),
        pytest.param(HostConfig(), {"offloading": "1"}, "DMA, 1 channel", id="one channel"),
        pytest.param(HostConfig(), {"offloading": "1", "nr_dma_chan": "4"}, "DMA, 4 channels", id="four"),
        pytest.param(HostConfig(dialect=Dialect.NO_SERIES), {}, "Unsupported", id="stock kernel"),
        pytest.param(HostConfig(loaded=False), {}, "Not loaded", id="module not loaded"),
        pytest.param(HostConfig(dialect=Dialect.ZY), {}, "Off", id="copy threads, off"),
    ],
)
def test_one_phrase_says_what_the_kernel_does_now(config: HostConfig, writes: dict[str, str], phrase: str) -> None:
    assert offload_phrase(facts_of(config, **writes)) == phrase


STOCK = HostConfig(dialect=Dialect.NO_SERIES)
REFUSED = wish(OFFLOAD, acceptedRisks=[])
PENDING = wish({"enabled": True})
DONE = wish({"enabled": False})


@pytest.mark.parametrize(
    ("groups", "config", "expected"),
    [
        pytest.param({}, None, ("True", "NoSettings"), id="nothing asked"),
        pytest.param({"demotion": DONE}, None, ("True", "AsExpected"), id="as asked"),
        pytest.param({"offload": REFUSED, "demotion": PENDING}, None, ("False", "RiskNotAccepted"), id="refused first"),
        pytest.param({"offload": wish(OFFLOAD), "demotion": DONE}, None, ("False", "Applying"), id="pending"),
        pytest.param({"offload": wish(OFFLOAD)}, STOCK, ("False", "KernelUnsupported"), id="all unsupported"),
        pytest.param(
            {"offload": wish(OFFLOAD), "demotion": DONE}, STOCK, ("True", "KernelUnsupported"), id="a part unsupported"
        ),
    ],
)
def test_ready_speaks_for_the_group_that_a_person_must_look_at_first(
    groups: dict[str, Any], config: HostConfig | None, expected: tuple[str, str]
) -> None:
    """Promise 11."""
    assert ready(status_of(groups, config)) == expected


def test_a_failure_comes_before_a_refusal() -> None:
    failure = Failure(Reason.KERNEL_ERROR, "EIO", "demotion.enabled")

    status = status_of({"offload": REFUSED, "demotion": PENDING}, hindrances=Hindrances({"demotion": failure}))

    assert ready(status) == ("False", "KernelError")
    row = next(row for row in status["knobs"] if row["field"] == "demotion.enabled")
    assert (row["outcome"], row["reason"], row["message"]) == ("Rejected", "KernelError", "EIO")


def test_every_condition_is_there_from_the_first_report_on() -> None:
    types = [row["type"] for row in status_of({})["conditions"]]

    assert types == ["Degraded", "Drifted", "Ready", "Supported", "Verified"]


def test_what_no_kernel_file_says_is_absent_and_never_null() -> None:
    text = json.dumps(status_of({"offload": wish({**OFFLOAD, "locality": "Local"})}, STOCK))

    assert "null" not in text
    assert "channelsMax" not in text


def test_texts_from_outside_are_cut_to_the_bounds_of_the_contract() -> None:
    config = HostConfig(cpu_model="x" * 5000, osrelease="y" * 5000)
    failure = Failure(Reason.KERNEL_ERROR, "z" * 5000, "demotion.enabled")

    status = status_of({"demotion": PENDING}, config, hindrances=Hindrances({"demotion": failure}))

    assert len(json.dumps(status)) < 10_000


F_EXT_SETTINGS: dict[str, dict[str, Any]] = {
    "offload": {
        "engine": "DMA",
        "channels": 31,
        "reasons": list(REASONS_7_2),
        "locality": "Remote",
        "cacheAllocate": False,
    },
    "batch": {
        "minSize": "64Ki",
        "chunkMinSize": "512Ki",
        "chunkMaxSize": "4Mi",
        "sgElements": 64,
        "descriptorsPerChannel": 64,
    },
    "mapCache": {"enabled": False, "capMiB": 1024, "minKiB": 128, "quantumKiB": 2048},
    "balancing": {"mode": "Tiering", "promoteRateLimitMBps": 1000},
    "demotion": {"enabled": True},
}
DRIVERS = ("ptdma", "ae4dma", "ioatdma", "sdxi", "dw_dmac_platform")


@pytest.mark.parametrize("words", [1, 600], ids=["short messages", "long messages"])
def test_the_status_of_the_dialect_with_most_knobs_stays_below_ten_kilobytes(words: int) -> None:
    """Promise 12: three plans, every engine, unknown files, a failed unit, and all values of before."""
    engines = tuple(DmaEngine(driver, numa_node=node) for driver in DRIVERS for node in range(8))
    config = HostConfig(
        dialect=Dialect.F_EXT,
        engines=engines,
        extra_files={f"{DRIVER}/{'x' * 200}{number}": "0" for number in range(20)},
        cpu_model="c" * 300,
    )
    facts = facts_of(config)
    source = {"policy": "p" * 253, "uid": "u" * 36, "generation": 3}
    wanted = {name: wish(settings, acceptedRisks=list(AcceptedRisk)) for name, settings in F_EXT_SETTINGS.items()}
    plans = [{"source": source, "settings": F_EXT_SETTINGS, "acceptedRisks": list(AcceptedRisk)}] * 3
    spec = parse_spec({"metadata": {"generation": 2}, "spec": {"groups": wanted, "plans": plans}})
    plan = make_plan(facts, spec, Known(Baselines("boot")))
    failure = Failure(Reason.KERNEL_ERROR, "why " * words, "offload.channels")
    view = View(
        spec,
        facts,
        plan.groups,
        tuple(plan_policy(facts, request, Known(Baselines("boot"))) for request in spec.plans),
        baselines={knob.field: facts.value(knob) or Value("0") for knob in facts.knobs},
        hindrances=Hindrances(dict.fromkeys(("offload", "balancing", "demotion"), failure)),
        distrust="lost " * words,
    )

    status = build_status(view, now=START, conditions=())

    NodeMigrationStateStatus.model_validate_json(json.dumps(status))
    assert len(json.dumps(status)) < 10_000
    assert all(row["baseline"] for row in status["knobs"])
    assert len(status["knobs"]) == len(facts.knobs) == 17


def test_every_reason_of_the_newest_kernel_fits_into_a_knob_row() -> None:
    status = status_of({"offload": wish({"engine": "DMA", "reasons": list(REASONS_7_3[:10])})})

    row = next(row for row in status["knobs"] if row["field"] == "offload.reasons")
    assert row["observed"] == ",".join(REASONS_7_3)


def test_a_moved_counter_and_the_time_are_not_significant() -> None:
    """Promise 12."""
    status = status_of({})

    later = {**status, "reportedAt": "2027-01-01T00:00:00Z", "statistics": {"foliosMigrated": 5}, "window": {}}
    assert significant(later) == significant(status)
    assert significant({**status, "offload": "Unknown"}) != significant(status)


def test_after_a_restart_only_what_was_in_force_counts_as_settled() -> None:
    rows = [
        {"field": "offload.channels", "desired": "8", "observed": "4", "outcome": "Clamped"},
        {"field": "offload.engine", "desired": "DMA", "observed": "Off"},
        {"field": "demotion.enabled", "desired": "true", "observed": "false", "reason": "DriftDetected"},
        {"field": "balancing.mode", "desired": "Tiering", "observed": "Normal", "outcome": "Rejected"},
        {"field": "of.a.newer.release", "desired": "1", "observed": "1", "outcome": "Applied"},
    ]

    assert settled_of_status({"knobs": rows}) == {"offload.channels": Value("4"), "demotion.enabled": Value("true")}


EVERY_TOTAL = {
    "folios_migrated": 1,
    "folios_failed": 2,
    "folios_refused": 3,
    "batches_refused": 4,
    "pages_migrated": 5,
    "pages_migration_failed": 6,
    "pages_promoted": 7,
    "pages_demoted": 8,
    "thps_migrated": 9,
    "thps_split": 10,
    "drift_corrections": 11,
    numa_name(0, "pages_promoted"): 12,
    numa_name(12, "pages_demoted"): 13,
}


def test_every_total_is_told_and_found_again_after_a_restart() -> None:
    status = status_of({}, statistics=Statistics(totals=EVERY_TOTAL))

    assert totals_of_status(json.loads(json.dumps(status))) == EVERY_TOTAL
    assert status["statistics"]["numaNodes"] == [{"id": 0, "pagesPromoted": 12}, {"id": 12, "pagesDemoted": 13}]


def test_what_no_counter_says_is_absent_and_never_zero() -> None:
    assert status_of({}, statistics=Statistics(totals={"pages_migrated": 0}))["statistics"] == {"pagesMigrated": 0}


def test_pressure_is_told_as_the_kernel_says_it() -> None:
    known = Statistics(totals={"pages_migrated": 0}, pressures={"cpu_pressure": "63.78"})

    assert status_of({}, statistics=known)["statistics"]["cpuPressure"] == "63.78"


@pytest.mark.parametrize(
    ("writes", "share"), [pytest.param({"offloading": "1"}, "0.5", id="on"), pytest.param({}, None, id="off")]
)
def test_the_share_that_fell_back_is_told_while_offload_is_on(writes: dict[str, str], share: str | None) -> None:
    known = Statistics(thp_pages=512)
    for at in (0, 1):
        counters = {"folios_migrated": at, "pages_migrated": 2 * at, "thps_migrated": 0}
        known = add_sample(known, at=at, counters=counters, window_seconds=10)

    status = status_of({}, writes=writes, statistics=known)

    assert status["statistics"].get("fallbackShareMax") == share


MOST = 2**63 - 1


def test_of_many_numa_nodes_the_busiest_are_told_by_id() -> None:
    totals = {numa_name(number, "pages_promoted"): 100 + number * (-1) ** number for number in range(20)}
    totals["pages_promoted"] = sum(totals.values())

    rows = status_of({}, statistics=Statistics(totals=totals))["statistics"]["numaNodes"]

    assert [row["id"] for row in rows] == [4, 6, 8, 10, 12, 14, 16, 18]


def test_numbers_of_a_whole_boot_take_a_bounded_part_of_the_status() -> None:
    """Promise 12: every number as long as it can be."""
    numa = {numa_name(n, name): MOST for n in range(1024) for name in ("pages_promoted", "pages_demoted")}
    numbers = {"seconds": "86400", "memoryPressure": "100.00", "cpuPressure": "100.00"} | dict.fromkeys(
        ("foliosMigrated", "foliosFailed", "foliosRefused", "batchesRefused", "pagesMigrated", "pagesMigrationFailed"),
        MOST,
    )

    status = status_of(
        {},
        statistics=Statistics(totals=dict.fromkeys(EVERY_TOTAL, MOST) | numa),
        window=Window("0" * 16, numbers, numbers),
    )

    assert len(status["statistics"]["numaNodes"]) == NUMA_ROWS_MAX
    assert len(json.dumps([status["statistics"], status["window"]])) < 2000


def test_a_status_that_would_be_too_large_does_without_its_numa_nodes() -> None:
    """Promise 12."""
    totals = {"pages_promoted": 1, numa_name(0, "pages_promoted"): 1}
    facts = replace(facts_of(HostConfig()), unknown_files=("/" + "x" * 250,) * 40)

    status = build_status(View(parse_spec({}), facts, statistics=Statistics(totals=totals)), now=START, conditions=())

    assert status["statistics"] == {"pagesPromoted": 1}


def test_after_a_restart_a_contended_knob_is_still_contended_and_was_in_force() -> None:
    rows = [
        {"field": "offload.channels", "desired": "4", "observed": "1", "reason": "Contended"},
        {"field": "offload.engine", "desired": "DMA", "observed": "Off", "outcome": "Refused", "reason": "Contended"},
    ]
    conditions = [{"type": "Drifted", "lastTransitionTime": "2026-01-02T03:04:05Z"}]

    assert contended_of_status({"knobs": rows, "conditions": conditions}) == (
        frozenset({"offload.channels"}),
        "2026-01-02T03:04:05Z",
    )
    assert settled_of_status({"knobs": rows}) == {"offload.channels": Value("4")}


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        pytest.param(0, "compile-time, not readable", id="nobody declared it"),
        pytest.param(512, "512 base pages, as declared", id="declared"),
    ],
)
def test_the_batch_ceiling_is_told_only_when_somebody_declared_it(declared: int, told: str) -> None:
    assert status_of({}, batch_ceiling_pages=declared)["capabilities"]["batchCeiling"] == told


def test_a_kernel_without_the_series_has_no_batch_ceiling() -> None:
    assert "batchCeiling" not in status_of({}, STOCK, batch_ceiling_pages=512)["capabilities"]


def test_an_engine_without_a_number_of_channels_is_told_without_one() -> None:
    kernel = FakeKernel(HostConfig(dialect=Dialect.V1), random.Random(1))
    kernel.drift("/sys/kernel/dcbm/offloading", "1")
    sysfs = FakeSysfs(kernel)

    assert offload_phrase(probe(sysfs, probe_host(sysfs))) == "DMA"


def test_two_engines_that_read_on_are_both_told() -> None:
    """Only one of them works, and no file says which."""
    kernel = FakeKernel(HostConfig(dialect=Dialect.V3), random.Random(1))
    for folder in ("dcbm", "cpu_mt"):
        kernel.drift(f"/sys/kernel/{folder}/offloading", "1")
    sysfs = FakeSysfs(kernel)

    phrase = offload_phrase(probe(sysfs, probe_host(sysfs)))

    assert sorted(phrase.split(" or ")) == ["CPUThreads, 4 threads", "DMA, 1 channel"]
