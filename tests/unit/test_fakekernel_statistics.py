# SPDX-License-Identifier: Apache-2.0
"""Where statistics come from: vmstat of the host and of each NUMA node, pressure, and counters that jump."""

from __future__ import annotations

import os
import random
from errno import EINVAL, ENOENT

import pytest
from msgspec import structs

from numamigration_api.vocabulary import Dialect, MigrationReason
from tests.fakekernel.config import HostConfig, NumaNode, Workload
from tests.fakekernel.model import FakeKernel
from tests.fakekernel.parsing import KernelError

pytestmark = pytest.mark.uncounted

PARAMETERS = "/sys/module/dcbm/parameters"
DEMOTION = Workload(MigrationReason.DEMOTION, 0)
PROMOTION = Workload(MigrationReason.NUMA_MISPLACED, 0, promotion=True)
HUGE = Workload(MigrationReason.SYSCALL_OR_CPUSET, 0, folio_pages=512, split_share=0.25)
TIERING = {"numa_balancing": 2, "demotion_enabled": True}
BY_NUMA_NODE = ("pgpromote_success", "pgpromote_candidate", "pgdemote_kswapd", "pgdemote_direct")


def boot(**host: object) -> FakeKernel:
    return FakeKernel(HostConfig(**host), random.Random(1))  # type: ignore[arg-type]


def read(kernel: FakeKernel, path: str) -> str:
    return kernel.read(kernel.open(path, os.O_RDONLY)).decode()


def vmstat(kernel: FakeKernel, numa_node: int | None = None) -> dict[str, int]:
    path = "/proc/vmstat" if numa_node is None else f"/sys/devices/system/node/node{numa_node}/vmstat"
    return {name: int(count) for name, count in (line.split() for line in read(kernel, path).splitlines())}


def counted(counts: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


def test_promotion_counts_where_pages_come_to_and_demotion_where_they_leave() -> None:
    kernel = boot(**TIERING)
    for numa_node, pages in ((0, 10), (1, 20)):
        for workload in (DEMOTION, PROMOTION):
            kernel.migrate(structs.replace(workload, numa_node=numa_node), pages)

    assert [counted(vmstat(kernel, node)) for node in (0, 1, 2)] == [
        {"pgpromote_success": 10, "pgpromote_candidate": 10, "pgdemote_kswapd": 10},
        {"pgpromote_success": 20, "pgpromote_candidate": 20, "pgdemote_kswapd": 20},
        {},
    ]


def test_what_the_numa_nodes_count_adds_up_to_what_the_host_counts() -> None:
    kernel = boot(
        **TIERING,
        workloads=(
            Workload(MigrationReason.DEMOTION, 7.3),
            Workload(MigrationReason.DEMOTION, 3.1, direct=True, numa_node=1),
            Workload(MigrationReason.NUMA_MISPLACED, 5.5, promotion=True, numa_node=1),
        ),
    )
    kernel.advance(100)

    nodes = [vmstat(kernel, node) for node in (0, 1, 2)]
    host = vmstat(kernel)
    assert all(host[name] for name in BY_NUMA_NODE)
    assert [sum(node[name] for node in nodes) for name in BY_NUMA_NODE] == [host[name] for name in BY_NUMA_NODE]


def test_without_a_name_the_first_numa_node_with_the_fastest_memory_counts() -> None:
    nodes = (NumaNode(0, "0-3", tier=1), NumaNode(1, "4-7"), NumaNode(3, "8-11"))
    kernel = boot(**TIERING, numa_nodes=nodes)

    kernel.migrate(DEMOTION, 10)

    assert [vmstat(kernel, node)["pgdemote_kswapd"] for node in (0, 1, 3)] == [0, 10, 0]


def test_an_older_kernel_counts_tiering_for_the_host_alone() -> None:
    kernel = boot(**TIERING, numa_node_counters=False)
    kernel.migrate(DEMOTION, 10)

    assert vmstat(kernel)["pgdemote_kswapd"] == 10
    assert [name for name in vmstat(kernel, 0) if name.startswith("pg")] == []
    assert vmstat(kernel, 0)["numa_hit"] == 0


def test_a_counter_this_kernel_lacks_is_absent_at_the_numa_nodes_too() -> None:
    assert "pgdemote_khugepaged" not in vmstat(boot(absent_counters=("pgdemote_khugepaged",)), 0)


def test_a_huge_page_for_which_none_is_free_is_split_and_goes_on_as_base_pages() -> None:
    kernel = boot()
    kernel.drift(f"{PARAMETERS}/offloading", "1")

    kernel.migrate(HUGE, 8)

    assert counted(vmstat(kernel)) == {
        "pgmigrate_success": 8 * 512,
        "thp_migration_success": 6,
        "thp_migration_fail": 2,
        "thp_migration_split": 2,
    }
    assert kernel.snapshot().folios_migrated == 6 + 2 * 512


@pytest.mark.parametrize(
    "workload",
    [
        pytest.param(Workload(MigrationReason.NUMA_MISPLACED, 0, folio_pages=512, split_share=1), id="NUMA balancing"),
        pytest.param(Workload(MigrationReason.DAMON, 0, folio_pages=16, split_share=1), id="no huge page"),
        pytest.param(Workload(MigrationReason.DAMON, 0, folio_pages=512, split_share=1, hugetlb=True), id="hugetlb"),
    ],
)
def test_nothing_else_is_split(workload: Workload) -> None:
    kernel = boot()

    kernel.migrate(workload, 8)

    assert vmstat(kernel)["thp_migration_split"] == 0


@pytest.mark.parametrize("resource", ["cpu", "memory", "io"])
def test_pressure_is_told_by_resource(resource: str) -> None:
    kernel = boot()
    kernel.set_pressure(resource, 0.5, 0.125)
    kernel.advance(8)

    shown = {name: read(kernel, f"/proc/pressure/{name}").splitlines() for name in ("cpu", "memory", "io")}

    assert shown.pop(resource) == [
        "some avg10=50.00 avg60=50.00 avg300=50.00 total=4000000",
        "full avg10=12.50 avg60=12.50 avg300=12.50 total=1000000",
    ]
    quiet = ["avg10=0.00 avg60=0.00 avg300=0.00 total=0"]
    assert {line.split(" ", 1)[1] for lines in shown.values() for line in lines} == set(quiet)


@pytest.mark.parametrize(
    ("dialect", "path", "value", "shown"),
    [
        pytest.param(Dialect.V5, "/sys/module/dcbm/folios_migrated", 2**63, str(2**63), id="V5 shows %lu"),
        pytest.param(Dialect.V6, f"{PARAMETERS}/folios_migrated", 2**63, str(-(2**63)), id="V6 shows %ld"),
        pytest.param(Dialect.V6, f"{PARAMETERS}/folios_failures", 2**64 - 1, "-1", id="V6 before the end"),
        pytest.param(Dialect.F_EXT, f"{PARAMETERS}/folios_gated", 2**63, str(-(2**63)), id="F-ext shows %ld"),
        pytest.param(Dialect.V3_DEV, "/sys/kernel/dcbm/pages_migrated", 2**64 + 3, "3", id="V3-dev shows %llu"),
        pytest.param(Dialect.V3_DEV, "/sys/kernel/dcbm/pages_failures", 7, "7", id="failures"),
    ],
)
def test_a_counter_of_the_driver_may_stand_near_its_end(dialect: Dialect, path: str, value: int, shown: str) -> None:
    kernel = boot(dialect=dialect)

    kernel.set_counter(path, value)

    assert read(kernel, path) == f"{shown}\n"


def test_a_counter_begins_anew_after_its_last_value() -> None:
    kernel = boot()
    kernel.drift(f"{PARAMETERS}/offloading", "1")
    kernel.set_counter(f"{PARAMETERS}/folios_migrated", 2**64 - 1)
    kernel.set_counter("/proc/vmstat", 2**64 - 1, "pgmigrate_success")

    kernel.migrate(Workload(MigrationReason.SYSCALL_OR_CPUSET, 0), 3)

    assert read(kernel, f"{PARAMETERS}/folios_migrated") == "2\n"
    assert vmstat(kernel)["pgmigrate_success"] == 2


def test_a_numa_nodes_counter_jumps_alone() -> None:
    kernel = boot()

    kernel.set_counter("/sys/devices/system/node/node1/vmstat", 5, "pgdemote_kswapd")

    assert [vmstat(kernel, node)["pgdemote_kswapd"] for node in (0, 1)] == [0, 5]


def test_somebody_elses_write_resets_a_counter() -> None:
    kernel = boot()
    kernel.set_counter(f"{PARAMETERS}/folios_migrated", 100)

    kernel.drift(f"{PARAMETERS}/folios_migrated", "whatever")

    assert read(kernel, f"{PARAMETERS}/folios_migrated") == "0\n"


@pytest.mark.parametrize(
    ("path", "name", "number"),
    [("/proc/vmstat", "pgnothing", ENOENT), (f"{PARAMETERS}/offloading", "", EINVAL), (f"{PARAMETERS}/x", "", ENOENT)],
)
def test_what_is_no_counter_is_not_set(path: str, name: str, number: int) -> None:
    with pytest.raises(KernelError) as refused:
        boot().set_counter(path, 1, name)
    assert refused.value.errno == number


def test_the_size_of_a_huge_page_is_told_where_there_are_any() -> None:
    path = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size"

    assert read(boot(), path) == "2097152\n"
    with pytest.raises(KernelError):
        boot(huge_pages=False).stat(path)
