# SPDX-License-Identifier: Apache-2.0
"""How the fake kernel's counters move when folios migrate."""

from __future__ import annotations

import random

import pytest

from numamigration_api.vocabulary import Dialect, MigrationReason
from tests.fakekernel.config import DmaEngine, HostConfig, NumaNode, Workload
from tests.fakekernel.migration import FOLIOS_PER_CALL, batch_folios
from tests.fakekernel.model import FakeKernel
from tests.fakekernel.parsing import KernelError

pytestmark = pytest.mark.uncounted

PARAMETERS = "/sys/module/dcbm/parameters"
OFFLOADING_OF = {Dialect.V5: "/sys/module/dcbm/offloading", Dialect.V6: f"{PARAMETERS}/offloading"}
BALANCING = "/proc/sys/kernel/numa_balancing"
RATE_LIMIT = "/proc/sys/kernel/numa_balancing_promote_rate_limit_MBps"
DEMOTION_ENABLED = "/sys/kernel/mm/numa/demotion_enabled"
SYSCALL = MigrationReason.SYSCALL_OR_CPUSET
ONE_TIER = (NumaNode(0, "0-7"), NumaNode(1, "8-15"))


def channels(count: int, *, taken: int = 0, error_share: float = 0.0) -> tuple[DmaEngine, ...]:
    return (DmaEngine("ae4dma", channels=count, numa_node=0, taken=taken, error_share=error_share),)


def boot(
    *workloads: Workload,
    engines: tuple[DmaEngine, ...] = channels(4),
    nodes: tuple[NumaNode, ...] = HostConfig().numa_nodes,
    ceiling_pages: int = 512,
) -> FakeKernel:
    config = HostConfig(workloads=workloads, engines=engines, numa_nodes=nodes, batch_ceiling_pages=ceiling_pages)
    return FakeKernel(config, random.Random(1))


def turn_on(kernel: FakeKernel, *, channels: int = 1) -> FakeKernel:
    kernel.drift(f"{PARAMETERS}/nr_dma_chan", str(channels))
    kernel.drift(f"{PARAMETERS}/offloading", "1")
    return kernel


def read(kernel: FakeKernel, path: str) -> str:
    return kernel.read(kernel.open(path, 0)).decode()


def counters(kernel: FakeKernel) -> tuple[int, int]:
    snapshot = kernel.snapshot()
    return snapshot.folios_migrated, snapshot.folios_failures


def moved(kernel: FakeKernel) -> dict[str, int]:
    return {name: value for name, value in kernel.snapshot().vmstat.items() if value}


def test_folios_are_counted_and_pages_too() -> None:
    kernel = turn_on(boot(Workload(SYSCALL, 1000, folio_pages=16)))

    kernel.advance(2)

    assert counters(kernel) == (2000, 0)
    assert moved(kernel) == {"pgmigrate_success": 32000}
    assert read(kernel, f"{PARAMETERS}/folios_migrated") == "2000\n"
    assert "pgmigrate_success 32000\n" in read(kernel, "/proc/vmstat")


@pytest.mark.parametrize("rate", [0.7, 1 / 3, 7.7, 1000.1])
def test_a_rate_is_exact_however_time_is_cut(rate: float) -> None:
    at_once, in_pieces = (turn_on(boot(Workload(SYSCALL, rate))) for _ in range(2))

    at_once.advance(100)
    for _ in range(1000):
        in_pieces.advance(0.1)

    assert counters(at_once) == counters(in_pieces) == (int(rate * 100 + 1e-6), 0)


def test_nothing_is_offloaded_while_off() -> None:
    kernel = boot(Workload(SYSCALL, 100))

    kernel.advance(1)

    assert counters(kernel) == (0, 0)
    assert moved(kernel) == {"pgmigrate_success": 100}


def test_an_unchosen_reason_is_copied_by_cpu() -> None:
    kernel = turn_on(boot(Workload(SYSCALL, 100), Workload(MigrationReason.COMPACTION, 10)))
    kernel.drift(f"{PARAMETERS}/reason_mask", "compaction")

    kernel.advance(1)

    assert counters(kernel) == (10, 0)
    assert moved(kernel) == {"pgmigrate_success": 110, "compact_isolated": 10}


@pytest.mark.parametrize("reason", MigrationReason)
def test_every_reason_of_the_mask_can_be_offloaded(reason: MigrationReason) -> None:
    kernel = turn_on(boot(Workload(reason, 64)))
    kernel.drift(DEMOTION_ENABLED, "1")
    kernel.drift(f"{PARAMETERS}/reason_mask", reason.value)

    kernel.advance(1)

    assert counters(kernel) == (64, 0)


@pytest.mark.parametrize("reason", MigrationReason)
def test_v5_offloads_four_reasons_and_no_other(reason: MigrationReason) -> None:
    kernel = FakeKernel(HostConfig(dialect=Dialect.V5, workloads=(Workload(reason, 64),)), random.Random(1))
    kernel.drift("/sys/module/dcbm/offloading", "1")
    kernel.drift(DEMOTION_ENABLED, "1")

    kernel.advance(1)

    offloaded = {"compaction", "syscall_or_cpuset", "demotion", "numa_misplaced"}
    assert counters(kernel) == (64 if reason in offloaded else 0, 0)


@pytest.mark.parametrize(
    ("dialect", "reason", "migrated"),
    [
        pytest.param(Dialect.V6, SYSCALL, 100 - 16, id="V6 leaves pinned folios out"),
        pytest.param(Dialect.V5, SYSCALL, 100 + 16, id="V5 copies them in vain in both passes of move_pages"),
        pytest.param(Dialect.V5, MigrationReason.NUMA_MISPLACED, 100, id="V5, and balancing makes one pass"),
    ],
)
def test_a_pinned_folio_never_migrates_whatever_was_copied(
    dialect: Dialect, reason: MigrationReason, migrated: int
) -> None:
    config = HostConfig(dialect=dialect, workloads=(Workload(reason, 100, pinned_share=0.16),))
    kernel = FakeKernel(config, random.Random(1))
    kernel.drift(OFFLOADING_OF[dialect], "1")

    kernel.advance(1)

    assert counters(kernel) == (migrated, 0)
    assert (moved(kernel)["pgmigrate_success"], moved(kernel)["pgmigrate_fail"]) == (84, 16)


def test_a_mask_written_while_on_takes_effect_at_once() -> None:
    kernel = turn_on(boot(Workload(SYSCALL, 100)))
    kernel.advance(1)

    kernel.drift(f"{PARAMETERS}/reason_mask", "none")
    kernel.advance(1)

    assert counters(kernel) == (100, 0)


@pytest.mark.parametrize(
    ("reason", "folio_pages", "folios"),
    [
        pytest.param(SYSCALL, 1, 512, id="move_pages of base pages fills the ceiling"),
        pytest.param(SYSCALL, 16, 32, id="64 KiB folios reach the ceiling with 32"),
        pytest.param(SYSCALL, 3, 171, id="the folio that reaches the ceiling still belongs to the batch"),
        pytest.param(SYSCALL, 512, 1, id="two huge pages never share a batch"),
        pytest.param(SYSCALL, 1024, 1, id="a folio above the ceiling goes alone"),
        pytest.param(MigrationReason.DEMOTION, 1, 32, id="demotion hands over 32"),
        pytest.param(MigrationReason.NUMA_MISPLACED, 1, 1, id="balancing hands over one"),
        pytest.param(MigrationReason.DAMON, 1, 475, id="damon hands over 475"),
    ],
)
def test_a_batch_is_what_the_caller_hands_over_cut_at_the_ceiling(
    reason: MigrationReason, folio_pages: int, folios: int
) -> None:
    assert batch_folios(Workload(reason, 1, folio_pages), ceiling_pages=512) == folios


def test_every_reason_has_a_number_of_folios_per_call() -> None:
    assert set(FOLIOS_PER_CALL) == set(MigrationReason)


def test_a_kernel_built_with_a_higher_ceiling_batches_huge_pages() -> None:
    assert batch_folios(Workload(SYSCALL, 1, 512), ceiling_pages=262144) == 512


@pytest.mark.parametrize(
    "engines",
    [
        pytest.param((), id="no engine at all"),
        pytest.param((DmaEngine("8250", channels=8, memcpy=False),), id="only engines that serve a UART"),
        pytest.param(channels(4, taken=4), id="another client holds every channel"),
    ],
)
def test_without_a_channel_offload_does_nothing_and_nothing_tells(engines: tuple[DmaEngine, ...]) -> None:
    kernel = turn_on(boot(Workload(SYSCALL, 512), engines=engines))

    kernel.advance(1)

    assert read(kernel, f"{PARAMETERS}/offloading") == "1\n"
    assert counters(kernel) == (0, 0)
    assert moved(kernel) == {"pgmigrate_success": 512}


def test_offload_works_again_without_a_write_when_the_engine_is_back() -> None:
    kernel = turn_on(boot(Workload(SYSCALL, 100)))
    kernel.set_engines(())
    kernel.advance(1)

    kernel.set_engines(channels(1))
    kernel.advance(1)

    assert counters(kernel) == (100, 0)


@pytest.mark.parametrize(
    ("setting", "tasks", "offloaded"),
    [
        pytest.param(4, 1, 1024, id="one task may have all channels"),
        pytest.param(4, 2, 512, id="two tasks, all channels each: one gets them, the other none"),
        pytest.param(2, 2, 1024, id="two tasks, half of the channels each"),
        pytest.param(3, 2, 1024, id="fewer channels than asked is good enough"),
        pytest.param(4, 4, 256, id="four tasks, all channels each"),
        pytest.param(1, 4, 1024, id="four tasks, one channel each"),
        pytest.param(1, 8, 512, id="eight tasks, one channel each"),
    ],
)
def test_tasks_that_migrate_at_once_compete_for_channels(setting: int, tasks: int, offloaded: int) -> None:
    kernel = turn_on(boot(Workload(SYSCALL, 1024, concurrency=tasks)), channels=setting)

    kernel.advance(1)

    assert counters(kernel) == (offloaded, 0)
    assert moved(kernel) == {"pgmigrate_success": 1024}


def test_a_batch_asks_for_no_more_channels_than_it_has_folios() -> None:
    """Balancing hands over one folio, so four tasks need four channels, whatever the setting."""
    kernel = turn_on(boot(Workload(MigrationReason.NUMA_MISPLACED, 400, concurrency=4)), channels=4)

    kernel.advance(1)

    assert counters(kernel) == (400, 0)


def test_an_engine_error_fails_whole_batches_and_loses_no_page() -> None:
    kernel = turn_on(boot(Workload(SYSCALL, 512 * 4 + 100), engines=channels(1, error_share=0.5)))

    kernel.advance(1)

    assert counters(kernel) == (512 * 2 + 100, 512 * 2)
    assert moved(kernel) == {"pgmigrate_success": 512 * 4 + 100}


def test_one_failing_engine_fails_the_batches_it_takes_part_in() -> None:
    engines = (*channels(1), *channels(1, error_share=1.0))
    kernel = turn_on(boot(Workload(SYSCALL, 512), engines=engines), channels=1)
    kernel.advance(1)
    kernel.drift(f"{PARAMETERS}/nr_dma_chan", "2")

    kernel.advance(1)

    assert counters(kernel) == (512, 512)


def test_ineligible_folios_go_by_cpu() -> None:
    kernel = turn_on(boot(Workload(SYSCALL, 1000, eligible_share=0.25)))

    kernel.advance(1)

    assert counters(kernel) == (250, 0)
    assert moved(kernel) == {"pgmigrate_success": 1000}


def test_hugetlb_pages_are_never_offloaded_nor_counted_by_the_driver() -> None:
    kernel = turn_on(boot(Workload(SYSCALL, 4, folio_pages=512, hugetlb=True)))

    kernel.advance(1)

    assert counters(kernel) == (0, 0)
    assert moved(kernel) == {"pgmigrate_success": 2048}


def test_huge_pages_have_counters_of_their_own() -> None:
    kernel = turn_on(boot(Workload(SYSCALL, 8, folio_pages=512, fail_share=0.25)))

    kernel.advance(1)

    assert counters(kernel) == (8, 0)
    assert moved(kernel) == {
        "pgmigrate_success": 6 * 512,
        "pgmigrate_fail": 2 * 512,
        "thp_migration_success": 6,
        "thp_migration_fail": 2,
    }


def test_a_folio_copied_by_dma_counts_even_if_its_migration_fails_then() -> None:
    kernel = turn_on(boot(Workload(SYSCALL, 100, fail_share=1.0)))

    kernel.advance(1)

    assert counters(kernel) == (100, 0)
    assert moved(kernel) == {"pgmigrate_fail": 100}


@pytest.mark.parametrize("counter", ["folios_migrated", "folios_failures"])
def test_writing_a_counter_resets_that_counter_alone(counter: str) -> None:
    kernel = turn_on(boot(Workload(SYSCALL, 1024), engines=channels(1, error_share=0.5)))
    kernel.advance(1)

    kernel.drift(f"{PARAMETERS}/{counter}", "whatever")

    left = {"folios_migrated": (0, 512), "folios_failures": (512, 0)}[counter]
    assert counters(kernel) == left


def test_counters_survive_off_and_on() -> None:
    kernel = turn_on(boot(Workload(SYSCALL, 100)))
    kernel.advance(1)

    kernel.drift(f"{PARAMETERS}/offloading", "0")
    kernel.advance(1)
    kernel.drift(f"{PARAMETERS}/offloading", "1")

    assert counters(kernel) == (100, 0)


@pytest.mark.parametrize(
    ("direct", "counter"), [(False, "pgdemote_kswapd"), (True, "pgdemote_direct")], ids=["kswapd", "direct"]
)
def test_demotion_is_counted_by_who_reclaims(direct: bool, counter: str) -> None:
    kernel = boot(Workload(MigrationReason.DEMOTION, 64, folio_pages=16, direct=direct))
    kernel.drift(DEMOTION_ENABLED, "1")

    kernel.advance(1)

    assert moved(kernel) == {"pgmigrate_success": 1024, counter: 1024}


def test_nothing_is_demoted_while_demotion_is_off() -> None:
    kernel = boot(Workload(MigrationReason.DEMOTION, 64))

    kernel.advance(1)

    assert moved(kernel) == {}


def test_nothing_is_demoted_without_slower_memory() -> None:
    kernel = boot(Workload(MigrationReason.DEMOTION, 64), nodes=ONE_TIER)
    kernel.drift(DEMOTION_ENABLED, "1")

    kernel.advance(1)

    assert moved(kernel) == {}


@pytest.mark.parametrize(
    ("mode", "migrates"), [("0", False), ("1", True), ("2", False), ("3", True)], ids="mode {}".format
)
def test_balancing_between_equals_needs_the_normal_bit(mode: str, migrates: bool) -> None:
    kernel = boot(Workload(MigrationReason.NUMA_MISPLACED, 10, folio_pages=16))
    kernel.drift(BALANCING, mode)

    kernel.advance(1)

    counted = {"pgmigrate_success": 160, "numa_hint_faults": 10, "numa_pages_migrated": 160}
    assert moved(kernel) == (counted if migrates else {})


@pytest.mark.parametrize(
    ("mode", "migrates"), [("0", False), ("1", False), ("2", True), ("3", True)], ids="mode {}".format
)
def test_promotion_needs_the_tiering_bit(mode: str, migrates: bool) -> None:
    kernel = boot(Workload(MigrationReason.NUMA_MISPLACED, 10, promotion=True))
    kernel.drift(BALANCING, mode)

    kernel.advance(1)

    counted = {
        "pgpromote_candidate": 10,
        "pgpromote_success": 10,
        "pgmigrate_success": 10,
        "numa_hint_faults": 10,
        "numa_pages_migrated": 10,
    }
    assert moved(kernel) == (counted if migrates else {})


def test_nothing_is_promoted_without_slower_memory() -> None:
    kernel = boot(Workload(MigrationReason.NUMA_MISPLACED, 10, promotion=True), nodes=ONE_TIER)
    kernel.drift(BALANCING, "2")

    kernel.advance(1)

    assert moved(kernel) == {}


@pytest.mark.parametrize("step", [10.0, 1.0, 0.125], ids="steps of {} s".format)
@pytest.mark.parametrize(
    ("limit", "folio_pages", "promoted_pages"),
    [
        pytest.param("4", 1, 10 * 4 * 256, id="4 MB/s of base pages"),
        pytest.param("4", 512, 10 * 4 * 256, id="4 MB/s of huge pages"),
        pytest.param("1", 512, 10 * 256, id="a huge page takes two seconds of 1 MB/s"),
        pytest.param("0", 1, 0, id="limit 0 promotes nothing"),
        pytest.param("65536", 1, 100_000, id="the default does not limit"),
    ],
)
def test_promotion_is_limited_to_its_rate(limit: str, folio_pages: int, promoted_pages: int, step: float) -> None:
    candidates_per_second = 10_000 / folio_pages
    kernel = boot(Workload(MigrationReason.NUMA_MISPLACED, candidates_per_second, folio_pages, promotion=True))
    kernel.drift(BALANCING, "2")
    kernel.drift(RATE_LIMIT, limit)

    for _ in range(int(10 / step)):
        kernel.advance(step)

    assert kernel.snapshot().vmstat["pgpromote_success"] == promoted_pages


def test_what_a_promotion_limit_left_unused_is_not_saved_up() -> None:
    kernel = boot(Workload(MigrationReason.NUMA_MISPLACED, 100, folio_pages=512, promotion=True))
    kernel.drift(BALANCING, "2")
    kernel.advance(10)
    before = kernel.snapshot().vmstat["pgpromote_success"]

    kernel.drift(RATE_LIMIT, "2")
    kernel.advance(1)

    within_a_second_and_one_more = 2 * 2 * 256
    assert kernel.snapshot().vmstat["pgpromote_success"] - before <= within_a_second_and_one_more


def test_memory_pressure_adds_up() -> None:
    kernel = boot()
    kernel.set_pressure("memory", 0.25)

    kernel.advance(4)

    some = read(kernel, "/proc/pressure/memory").splitlines()[0]
    assert some == "some avg10=25.00 avg60=25.00 avg300=25.00 total=1000000"


def test_a_new_workload_replaces_the_old() -> None:
    kernel = turn_on(boot(Workload(SYSCALL, 1000)))

    kernel.set_workloads([Workload(SYSCALL, 10)])
    kernel.advance(1)

    assert counters(kernel) == (10, 0)


def test_without_the_driver_pages_still_migrate() -> None:
    kernel = boot(Workload(SYSCALL, 10))
    kernel.unload()

    kernel.advance(1)

    assert moved(kernel) == {"pgmigrate_success": 10}
    with pytest.raises(KernelError):
        kernel.open(f"{PARAMETERS}/folios_migrated", 0)
