# SPDX-License-Identifier: Apache-2.0
"""What an agent tells Prometheus, and that it is what the agent's status says."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.parser import text_string_to_metric_families as parse

from numamigration_agent.cluster import ApplyKind
from numamigration_agent.metrics import METRICS, PREFIX, Kind, Process, Scrape, own_process, render
from numamigration_api.vocabulary import MigrationReason
from scripts.metrics_documents import AGENT_LABELS
from tests.fakekernel.config import HostConfig, Workload
from tests.unit.agent_rig import TIMING, Rig, wish

PROCESS: Final = Process(cpu_seconds=1.5, resident_bytes=20_000_000, open_descriptors=9, started_at=1_700_000_000.25)
STATUS: Final[dict[str, Any]] = {
    "dialect": "V4",
    "kernelRelease": "7.1.0-dcbm",
    "hardwareClass": "amd-2x-16ch",
    "offload": "DMA, 4 channels",
    "conditions": [{"type": "Ready", "status": "True"}, {"type": "Drifted", "status": "Unknown"}],
    "groups": {"offload": {"state": "Failed", "reason": "EngineStalled"}},
    "knobs": [{"field": "offload.engine", "outcome": "Applied"}, {"field": "offload.reasons"}],
    "dmaEngines": [
        {"driver": "ptdma", "channels": 2, "usable": True},
        {"driver": "ptdma", "channels": 3, "usable": True},
        {"driver": 'odd\\na"m\ne', "usable": False},
    ],
    "statistics": {
        "foliosMigrated": 900,
        "foliosFailed": 1,
        "batchesRefused": 7,
        "pagesMigrated": 5000,
        "pagesMigrationFailed": 6,
        "pagesPromoted": 11,
        "pagesDemoted": 12,
        "thpsMigrated": 13,
        "thpsSplit": 14,
        "driftCorrections": 2,
        "memoryPressure": "12.5",
        "cpuPressure": "0.00",
        "fallbackShareMax": "0.0625",
        "numaNodes": [{"id": 1, "pagesPromoted": 3}, {"id": 2, "pagesPromoted": 4, "pagesDemoted": 5}],
    },
}
SCRAPE: Final = Scrape(STATUS, Counter({ApplyKind.APPLIED: 4, ApplyKind.RETRY: 1}), 1_700_000_100.5, PROCESS)
NOTHING: Final = Scrape({}, Counter(), None, Process(0.5, None, None, 1.0))
NAMES: Final = {
    "folios_total": "counter result",
    "batches_refused_total": "counter",
    "pages_migrated_total": "counter",
    "pages_migration_failed_total": "counter",
    "pages_promoted_total": "counter",
    "pages_demoted_total": "counter",
    "numa_node_pages_promoted_total": "counter numa_node",
    "numa_node_pages_demoted_total": "counter numa_node",
    "thps_migrated_total": "counter",
    "thps_split_total": "counter",
    "drift_corrections_total": "counter",
    "fallback_ratio_max": "gauge",
    "pressure_ratio": "gauge resource",
    "offload_enabled": "gauge",
    "dma_channels": "gauge driver usable",
    "group_state": "gauge group state",
    "group_reason": "gauge group reason",
    "knobs": "gauge outcome",
    "condition": "gauge condition status",
    "kernel_info": "gauge dialect kernel_release hardware_class",
    "report_results_total": "counter result",
    "last_stored_report_timestamp_seconds": "gauge",
    "build_info": "gauge version python_version",
    "process_cpu_seconds_total": "counter",
    "process_resident_memory_bytes": "gauge",
    "process_open_fds": "gauge",
    "process_start_time_seconds": "gauge",
}


def scraped(scrape: Scrape) -> list[Family]:
    return list(parse(render(scrape)))


def series(scrape: Scrape) -> dict[tuple[str, ...], float]:
    """Return the samples: name without prefix and label values in their order, to value."""
    return {
        (sample.name.removeprefix(PREFIX), *sample.labels.values()): sample.value
        for family in scraped(scrape)
        for sample in family.samples
    }


# Names


def test_the_metrics_are_these_with_these_types_and_labels() -> None:
    """Dashboards of others name them, so a change of this list is one of the contract."""
    assert {one.name: " ".join((one.kind, *one.labels)) for one in METRICS} == NAMES


def test_names_follow_the_conventions_of_prometheus() -> None:
    for one in METRICS:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", one.name)
        assert (one.kind is Kind.COUNTER) is one.name.endswith("_total")
        assert re.fullmatch(r"[A-Z1].*[^.]\.", one.meaning)


def test_labels_are_documented_and_none_names_the_host() -> None:
    assert {label for one in METRICS for label in one.labels} == AGENT_LABELS.keys()
    assert not {"node", "name", "uid", "boot_id"} & AGENT_LABELS.keys()


def test_what_is_scraped_parses_and_has_the_types_and_help_texts_of_the_table() -> None:
    found = {family.name: (family.type, family.documentation) for family in scraped(SCRAPE)}

    # The parser names a counter without its suffix.
    assert {one.full_name.removesuffix("_total"): (one.kind, one.meaning) for one in METRICS} == found


# Numbers


def test_every_number_of_the_status_stands_in_its_series() -> None:
    expected = {
        ("folios_total", "migrated"): 900,
        ("folios_total", "failed"): 1,
        ("batches_refused_total",): 7,
        ("pages_migrated_total",): 5000,
        ("pages_migration_failed_total",): 6,
        ("pages_promoted_total",): 11,
        ("pages_demoted_total",): 12,
        ("numa_node_pages_promoted_total", "1"): 3,
        ("numa_node_pages_promoted_total", "2"): 4,
        ("numa_node_pages_demoted_total", "2"): 5,
        ("thps_migrated_total",): 13,
        ("thps_split_total",): 14,
        ("drift_corrections_total",): 2,
        ("pressure_ratio", "memory"): 0.125,
        ("pressure_ratio", "cpu"): 0,
        ("fallback_ratio_max",): 0.0625,
        ("offload_enabled",): 1,
        ("dma_channels", "ptdma", "true"): 5,
        ("group_reason", "offload", "EngineStalled"): 1,
        ("knobs", "Applied"): 1,
        ("knobs", "Rejected"): 0,
        ("kernel_info", "V4", "7.1.0-dcbm", "amd-2x-16ch"): 1,
        ("report_results_total", "applied"): 4,
        ("report_results_total", "skew"): 0,
        ("last_stored_report_timestamp_seconds",): 1_700_000_100.5,
        ("process_cpu_seconds_total",): 1.5,
        ("process_resident_memory_bytes",): 20_000_000,
        ("process_open_fds",): 9,
        ("process_start_time_seconds",): 1_700_000_000.25,
    }
    assert expected.items() <= series(SCRAPE).items()


def test_of_states_and_statuses_exactly_one_is_1() -> None:
    found = series(SCRAPE)

    assert [key[2] for key, value in found.items() if key[:2] == ("group_state", "offload") and value] == ["Failed"]
    assert [key[1:] for key, value in found.items() if key[0] == "condition" and value] == [
        ("Ready", "True"),
        ("Drifted", "Unknown"),
    ]


@pytest.mark.parametrize(
    ("phrase", "enabled"), [("DMA, 1 channel", 1), ("Off", 0), ("Not loaded", 0), ("Unsupported", 0), ("Unknown", None)]
)
def test_offload_is_on_off_or_not_told(phrase: str, enabled: int | None) -> None:
    found = series(SCRAPE._replace(status=STATUS | {"offload": phrase}))

    assert found.get(("offload_enabled",)) == enabled


def test_what_is_not_known_has_no_sample() -> None:
    assert {key[0] for key in series(NOTHING)} == {
        "report_results_total",
        "build_info",
        "process_cpu_seconds_total",
        "process_start_time_seconds",
    }


def test_a_kernel_that_counts_no_refused_folios_has_no_such_series() -> None:
    assert ("folios_total", "refused") not in series(SCRAPE)


def test_words_of_the_kernel_cannot_break_the_text() -> None:
    assert series(SCRAPE)["dma_channels", 'odd\\na"m\ne', "false"] == 0


# Of whom


def test_a_scrape_says_what_the_agent_would_report_now(tmp_path: Path) -> None:
    load = Workload(MigrationReason.SYSCALL_OR_CPUSET, folios_per_second=100)
    rig = Rig(tmp_path, HostConfig(workloads=(load,)), TIMING)
    rig.wish({"offload": wish({"engine": "DMA", "channels": 4})})
    rig.kernel.advance(100)
    rig.pass_time(100)

    found = series(NOTHING._replace(status=rig.agent.status(rig.now, rig.wall)))

    assert found["offload_enabled",] == 1
    assert found["group_state", "offload", "Ready"] == 1
    assert found["folios_total", "migrated"] > 0


def test_an_agent_that_has_decided_nothing_has_no_status(tmp_path: Path) -> None:
    rig = Rig(tmp_path, HostConfig(), TIMING)

    assert rig.agent.status(rig.now, rig.wall) == {}


def test_the_process_tells_of_itself() -> None:
    process = own_process(1.0)

    assert process.cpu_seconds > 0
    assert process.resident_bytes is not None
    assert process.resident_bytes > 1_000_000
    assert process.open_descriptors is not None
    assert process.open_descriptors >= 3


def test_without_procfs_the_process_tells_less(tmp_path: Path) -> None:
    assert own_process(1.0, tmp_path)[1:] == (None, None, 1.0)
