# SPDX-License-Identifier: Apache-2.0
"""Numbers of a kernel that migrates, from its files to the status; on every kernel that the fake has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from numamigration_agent.kernel.counters import VALUES
from numamigration_api.vocabulary import Dialect, MigrationReason
from tests.fakekernel.config import HostConfig, Workload
from tests.unit.agent_rig import TIMING, Rig, wish

PARAMETERS = "/sys/module/dcbm/parameters"
OFTEN = TIMING._replace(report_min=10, report_max=10)
MOVES = Workload(MigrationReason.SYSCALL_OR_CPUSET, folios_per_second=100)
EVERY_REASON = {"engine": "DMA", "channels": 4}


def run(rig: Rig, seconds: int = 120) -> dict[str, Any]:
    """Let the host work, and return the statistics that are told then."""
    for _ in range(seconds // 10):
        rig.kernel.advance(10)
        rig.pass_time(10)
    found: dict[str, Any] = rig.status["statistics"]
    return found


def test_each_numa_node_has_what_was_promoted_to_it_and_demoted_from_it(tmp_path: Path) -> None:
    promotion = Workload(MigrationReason.NUMA_MISPLACED, 10, promotion=True, numa_node=1)
    demotion = Workload(MigrationReason.DEMOTION, 20, numa_node=0)
    config = HostConfig(numa_balancing=2, demotion_enabled=True, workloads=(promotion, demotion))
    rig = Rig(tmp_path, config, OFTEN)

    statistics = run(rig, 300)

    rows = {row.pop("id"): row for row in statistics["numaNodes"]}
    assert set(rows) == {0, 1, 2}
    assert rows[2] == {"pagesPromoted": 0, "pagesDemoted": 0}
    assert (rows[0]["pagesPromoted"], rows[1]["pagesDemoted"]) == (0, 0)
    # NUMA nodes are looked at once a minute.
    assert 10 * 200 <= rows[1]["pagesPromoted"] <= statistics["pagesPromoted"] <= 10 * 300
    assert 20 * 200 <= rows[0]["pagesDemoted"] <= statistics["pagesDemoted"] <= 20 * 300


def test_a_kernel_that_counts_nothing_by_numa_node_has_the_sums_only(tmp_path: Path) -> None:
    rig = Rig(tmp_path, HostConfig(numa_node_counters=False), OFTEN)

    statistics = run(rig)

    assert "numaNodes" not in statistics
    assert statistics["pagesPromoted"] == 0


def test_pressure_reaches_the_status(tmp_path: Path) -> None:
    rig = Rig(tmp_path, timing=OFTEN)
    rig.kernel.set_pressure("memory", 0.015, 0.001)
    rig.kernel.set_pressure("cpu", 0.6378)

    statistics = run(rig)

    assert (statistics["memoryPressure"], statistics["cpuPressure"]) == ("1.50", "63.78")


@pytest.mark.parametrize(
    "begin", [pytest.param(VALUES // 2 - 300, id="into the negative"), pytest.param(VALUES - 300, id="past the end")]
)
def test_a_driver_that_counts_past_the_end_has_counted_on(tmp_path: Path, begin: int) -> None:
    rig = Rig(tmp_path, HostConfig(workloads=(MOVES,)), OFTEN)
    rig.wish({"offload": wish(EVERY_REASON)})
    rig.kernel.set_counter(f"{PARAMETERS}/folios_migrated", begin)
    before = run(rig, 20)["foliosMigrated"]

    after = run(rig, 60)["foliosMigrated"]

    assert after - before == 100 * 60


def test_whoever_resets_a_counter_takes_nothing_from_the_total(tmp_path: Path) -> None:
    rig = Rig(tmp_path, HostConfig(workloads=(MOVES,)), OFTEN)
    rig.wish({"offload": wish(EVERY_REASON)})
    run(rig, 60)

    before = rig.status["statistics"]["foliosMigrated"]
    rig.kernel.drift(f"{PARAMETERS}/folios_migrated", "garbage")

    assert run(rig, 60)["foliosMigrated"] - before == 100 * 60


@pytest.mark.parametrize("pages", [1, 512], ids=["base pages", "huge pages"])
def test_offload_that_works_shows_that_next_to_nothing_fell_back(tmp_path: Path, pages: int) -> None:
    workload = Workload(MigrationReason.SYSCALL_OR_CPUSET, folios_per_second=100, folio_pages=pages)
    rig = Rig(tmp_path, HostConfig(workloads=(workload,)), OFTEN)

    rig.wish({"offload": wish(EVERY_REASON)})

    assert float(run(rig)["fallbackShareMax"]) < 0.05


def test_offload_that_does_nothing_does_not_hide_that_all_may_have_fallen_back(tmp_path: Path) -> None:
    rig = Rig(tmp_path, HostConfig(workloads=(MOVES,)), OFTEN)
    rig.wish({"offload": wish(EVERY_REASON, drift="Report")})
    rig.kernel.drift(f"{PARAMETERS}/reason_mask", "none")

    statistics = run(rig)

    assert statistics["fallbackShareMax"] == "1"
    assert statistics["pagesMigrated"] > 0


def test_a_fork_that_refuses_folios_and_batches_says_how_many(tmp_path: Path) -> None:
    rig = Rig(tmp_path, HostConfig(dialect=Dialect.F_EXT), OFTEN)
    run(rig, 20)
    rig.kernel.set_counter(f"{PARAMETERS}/folios_gated", 5)
    rig.kernel.set_counter(f"{PARAMETERS}/batches_refused", 3)

    statistics = run(rig, 20)

    assert (statistics["foliosRefused"], statistics["batchesRefused"]) == (5, 3)


def test_huge_pages_that_migrate_are_counted_apart(tmp_path: Path) -> None:
    workload = Workload(MigrationReason.SYSCALL_OR_CPUSET, folios_per_second=10, folio_pages=512)
    rig = Rig(tmp_path, HostConfig(dialect=Dialect.NO_SERIES, workloads=(workload,)), OFTEN)

    statistics = run(rig)

    assert statistics["thpsMigrated"] * 512 == statistics["pagesMigrated"] > 0
    assert statistics["thpsSplit"] == 0
    assert "fallbackShareMax" not in statistics
