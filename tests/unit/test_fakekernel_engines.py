# SPDX-License-Identifier: Apache-2.0
"""Engines that hang, are slow, fail, lie or leave, and what a turn-off waits for, in the model.

What was seen on a running kernel stands in tests/fakekernel/seen.py; here is the rest of the bookkeeping.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from errno import EAGAIN, EINVAL, EIO

import pytest

from numamigration_api.vocabulary import Dialect, MigrationReason
from tests.fakekernel.calls import Call, Gate, When
from tests.fakekernel.config import DmaEngine, HostConfig, Workload
from tests.fakekernel.model import FakeKernel
from tests.fakekernel.parsing import KernelError

pytestmark = pytest.mark.uncounted

DCBM = {Dialect.V5: "/sys/module/dcbm", Dialect.V6: "/sys/module/dcbm/parameters"}
PARAMETERS = DCBM[Dialect.V6]
OFFLOADING = f"{PARAMETERS}/offloading"
SYSCALL = MigrationReason.SYSCALL_OR_CPUSET
MOVE_PAGES = Workload(SYSCALL, 0)
HUNG = DmaEngine("ptdma", hangs=True)
SLOW = DmaEngine("ptdma", copy_seconds=3)


def boot(*engines: DmaEngine, workloads: tuple[Workload, ...] = (), dialect: Dialect = Dialect.V6) -> FakeKernel:
    config = HostConfig(dialect=dialect, engines=engines, workloads=workloads)
    kernel = FakeKernel(config, random.Random(1))
    kernel.drift(f"{DCBM[dialect]}/nr_dma_chan", "4")
    kernel.drift(f"{DCBM[dialect]}/offloading", "1")
    return kernel


def counters(kernel: FakeKernel) -> tuple[int, int]:
    snapshot = kernel.snapshot()
    return snapshot.folios_migrated, snapshot.folios_failures


def read(kernel: FakeKernel, path: str) -> Call:
    return kernel.begin_read(kernel.open(path, os.O_RDONLY))


def write(kernel: FakeKernel, path: str, text: str) -> Call:
    return kernel.begin_write(kernel.open(path, os.O_WRONLY), text.encode())


def errno_of(call: Callable[[], object]) -> int | None:
    try:
        call()
    except KernelError as error:
        return error.errno
    return None


def test_channels_are_in_use_while_a_batch_is_in_flight_and_not_after() -> None:
    kernel = boot(SLOW, SLOW, SLOW, SLOW)
    files = [f"/sys/class/dma/dma{engine}chan0/in_use" for engine in range(4)]

    kernel.migrate(MOVE_PAGES, 2)
    during = ([read(kernel, path).result() for path in files], kernel.snapshot().channels_in_use)
    kernel.advance(3)

    assert during == ([b"1\n", b"1\n", b"0\n", b"0\n"], 2)
    assert ({read(kernel, path).result() for path in files}, kernel.snapshot().channels_in_use) == ({b"0\n"}, 0)


def test_a_busy_channel_is_not_there_for_others() -> None:
    kernel = boot(SLOW)
    kernel.migrate(MOVE_PAGES, 512)

    kernel.migrate(MOVE_PAGES, 100)
    by_cpu = kernel.snapshot().vmstat["pgmigrate_success"]
    kernel.advance(3)

    assert (by_cpu, counters(kernel)) == (100, (512, 0))


def test_a_workload_goes_on_only_when_its_batch_is_over() -> None:
    """512 folios fill a batch after a second, which then takes three: 512 in every four seconds."""
    kernel = boot(SLOW, workloads=(Workload(SYSCALL, 512),))

    kernel.advance(9)

    assert counters(kernel) == (1024, 0)
    assert kernel.snapshot().vmstat["pgmigrate_success"] == 1024


@pytest.mark.parametrize("step", [0.25, 1.0, 40.0])
def test_batches_that_take_time_come_out_alike_however_time_is_cut(step: float) -> None:
    kernel = boot(SLOW, workloads=(Workload(SYSCALL, 512), Workload(MigrationReason.DEMOTION, 100)))

    for _ in range(int(40 / step)):
        kernel.advance(step)

    assert counters(kernel) == (512 * 10, 0)


def test_tasks_of_one_workload_go_on_together() -> None:
    kernel = boot(SLOW, SLOW, workloads=(Workload(SYSCALL, 1024, concurrency=2),))
    kernel.drift(f"{PARAMETERS}/nr_dma_chan", "1")

    kernel.advance(4)

    assert counters(kernel) == (1024, 0)


def test_a_hung_engine_among_good_ones_fails_the_batches_it_takes_part_in() -> None:
    kernel = boot(DmaEngine("ptdma"), HUNG)
    kernel.migrate(MOVE_PAGES, 512)

    kernel.advance(10)

    assert counters(kernel) == (0, 512)
    assert kernel.snapshot().vmstat["pgmigrate_success"] == 512


def test_a_slow_channel_is_waited_for_as_long_as_it_is_within_ten_seconds_of_the_one_before() -> None:
    kernel = boot(*(DmaEngine("ptdma", copy_seconds=seconds) for seconds in (9.0, 18.0, 27.0, 36.0)))
    kernel.migrate(MOVE_PAGES, 512)

    kernel.advance(35.9)
    before = counters(kernel)
    kernel.advance(0.1)

    assert (before, counters(kernel)) == ((0, 0), (512, 0))


def test_an_engine_that_is_hard_to_stop_makes_a_hung_batch_longer() -> None:
    kernel = boot(DmaEngine("ptdma", hangs=True, terminate_seconds=10))
    kernel.migrate(MOVE_PAGES, 512)

    kernel.advance(19)
    before = counters(kernel)
    kernel.advance(1)

    assert (before, counters(kernel)) == ((0, 0), (0, 512))


def test_a_test_may_end_a_stall_itself() -> None:
    kernel = boot(HUNG)
    kernel.migrate(MOVE_PAGES, 512)

    kernel.end_batches()

    assert counters(kernel) == (0, 512)
    assert kernel.snapshot().channels_in_use == 0


def test_the_errno_of_a_failed_copy_stands_in_the_log_only() -> None:
    kernel = boot(DmaEngine("ptdma", error_share=1, error_number=EINVAL))

    kernel.migrate(MOVE_PAGES, 512)

    assert kernel.log[-1] == "dcbm: DMA copy failed (-22), falling back to CPU"


def test_the_suppressed_lines_are_counted_at_the_first_line_of_the_next_five_seconds() -> None:
    kernel = boot(DmaEngine("ptdma", error_share=1), workloads=(Workload(SYSCALL, 512 * 4),))
    before = len(kernel.log)

    for _ in range(7):
        kernel.advance(1)

    lines = kernel.log[before:]
    failed = "dcbm: DMA copy failed (-5), falling back to CPU"
    assert lines.count(failed) == 14
    assert [line for line in lines if line != failed] == ["folios_copy_dma: 14 callbacks suppressed"]


def test_wrong_pages_are_counted_in_base_pages_over_all_channels_of_a_batch() -> None:
    kernel = boot(DmaEngine("ptdma"), DmaEngine("ptdma", wrong_share=1))

    kernel.migrate(Workload(SYSCALL, 0, folio_pages=16), 32)

    assert counters(kernel) == (32, 0)
    assert kernel.snapshot().corrupted_pages == 16 * 16


def test_a_failed_batch_corrupts_nothing() -> None:
    kernel = boot(DmaEngine("ptdma", wrong_share=1, error_share=1))

    kernel.migrate(MOVE_PAGES, 512)

    assert (counters(kernel), kernel.snapshot().corrupted_pages) == ((0, 512), 0)


# Turning off while a batch is in flight.


def test_no_batch_begins_once_a_turn_off_has_begun() -> None:
    kernel = boot(HUNG)
    kernel.migrate(MOVE_PAGES, 2048)

    turn_off = write(kernel, OFFLOADING, "0")
    kernel.advance(10)

    assert turn_off.result() == 1
    assert counters(kernel) == (0, 512)
    assert kernel.snapshot().vmstat["pgmigrate_success"] == 2048


def test_who_migrates_while_a_turn_off_waits_is_served_by_cpu_and_does_not_prolong_it() -> None:
    kernel = boot(HUNG, HUNG)
    kernel.drift(f"{PARAMETERS}/nr_dma_chan", "1")
    kernel.migrate(MOVE_PAGES, 512)
    turn_off = write(kernel, OFFLOADING, "0")
    kernel.advance(9)

    kernel.migrate(MOVE_PAGES, 100)
    by_cpu = kernel.snapshot().vmstat["pgmigrate_success"]
    kernel.advance(1)

    assert (by_cpu, turn_off.result()) == (100, 1)


def test_an_idle_turn_off_is_over_at_once() -> None:
    kernel = boot(HUNG)

    assert write(kernel, OFFLOADING, "0").result() == 1
    assert kernel.log[-1] == "migrate_offload: disabled by DCBM"


def test_calls_behind_a_turn_off_are_served_in_the_order_they_came() -> None:
    kernel = boot(HUNG)
    kernel.migrate(MOVE_PAGES, 512)

    off = write(kernel, OFFLOADING, "0")
    shown = read(kernel, OFFLOADING)
    on = write(kernel, OFFLOADING, "1")
    refused = write(kernel, f"{PARAMETERS}/nr_dma_chan", "17")
    blocked = len(kernel.blocked)
    kernel.advance(10)

    assert blocked == 4
    assert (off.result(), shown.result(), on.result()) == (1, b"0\n", 1)
    assert errno_of(refused.result) == EINVAL
    assert (kernel.blocked, kernel.snapshot().offloading) == ([], True)


def test_two_turn_offs_wait_for_the_same_batch() -> None:
    kernel = boot(HUNG)
    kernel.migrate(MOVE_PAGES, 512)
    calls = [write(kernel, OFFLOADING, "0") for _ in range(2)]

    kernel.advance(10)

    assert [call.result() for call in calls] == [1, 1]
    assert kernel.log.count("migrate_offload: disabled by DCBM") == 1


def test_v5_refuses_a_bad_value_before_it_waits_for_its_mutex() -> None:
    kernel = boot(HUNG, dialect=Dialect.V5)
    kernel.migrate(MOVE_PAGES, 512)
    write(kernel, "/sys/module/dcbm/offloading", "0")

    assert errno_of(write(kernel, "/sys/module/dcbm/nr_dma_chan", "17").result) == EINVAL
    assert errno_of(write(kernel, "/sys/module/dcbm/offloading", "2").result) == EINVAL
    assert not write(kernel, "/sys/module/dcbm/nr_dma_chan", "2").over
    assert write(kernel, "/sys/module/dcbm/folios_failures", "0").over


@pytest.mark.parametrize("dialect", [Dialect.V5, Dialect.V6])
def test_a_module_stays_in_use_until_its_turn_off_is_over(dialect: Dialect) -> None:
    kernel = boot(HUNG, dialect=dialect)
    kernel.migrate(MOVE_PAGES, 512)
    write(kernel, f"{DCBM[dialect]}/offloading", "0")

    during = (errno_of(kernel.unload), read(kernel, "/sys/module/dcbm/refcnt").result())
    kernel.advance(10)
    kernel.unload()

    assert during == (EAGAIN, b"1\n")


def test_writing_nothing_waits_for_nobody() -> None:
    kernel = boot(HUNG)
    kernel.migrate(MOVE_PAGES, 512)
    write(kernel, OFFLOADING, "0")

    assert write(kernel, OFFLOADING, "").result() == 0


def test_the_rest_of_what_was_shown_needs_no_lock() -> None:
    kernel = boot(HUNG)
    handle = kernel.open(f"{PARAMETERS}/nr_dma_chan", os.O_RDONLY)
    kernel.begin_read(handle)
    kernel.migrate(MOVE_PAGES, 512)
    write(kernel, OFFLOADING, "0")

    assert kernel.begin_read(handle, offset=1).result() == b"\n"
    assert not kernel.begin_read(handle).over


def test_another_process_that_turns_off_waits_in_our_place() -> None:
    kernel = boot(HUNG)
    kernel.migrate(MOVE_PAGES, 512)

    kernel.drift(OFFLOADING, "0")
    during = (len(kernel.blocked), kernel.snapshot().offloading)
    kernel.advance(10)

    assert (during, kernel.snapshot().offloading) == ((1, True), False)


def test_a_store_held_after_its_effect_is_held_when_the_turn_off_is_over() -> None:
    kernel = boot(HUNG)
    kernel.migrate(MOVE_PAGES, 512)
    kernel.gate.close(Gate(OFFLOADING, when=When.AFTER))

    call = write(kernel, OFFLOADING, "0")
    held_early = kernel.gate.held
    kernel.advance(10)

    assert (held_early, kernel.gate.held) == (None, call)
    assert not kernel.snapshot().offloading


def test_a_gate_that_opens_before_the_turn_off_is_over_holds_nobody() -> None:
    kernel = boot(HUNG)
    kernel.migrate(MOVE_PAGES, 512)
    kernel.gate.close(Gate(OFFLOADING, when=When.AFTER))
    call = write(kernel, OFFLOADING, "0")

    kernel.open_gate(drop=False)
    kernel.advance(10)

    assert call.result() == 1


def test_a_workload_that_is_replaced_ends_with_its_batch() -> None:
    kernel = boot(SLOW, workloads=(Workload(SYSCALL, 512),))
    kernel.advance(1)

    kernel.set_workloads(())
    kernel.advance(100)

    assert (counters(kernel), kernel.snapshot().channels_in_use) == ((512, 0), 0)


def test_a_reboot_ends_batches_in_flight() -> None:
    kernel = boot(SLOW, workloads=(Workload(SYSCALL, 512),))
    kernel.advance(1)

    kernel.reboot()
    kernel.advance(3)

    assert (counters(kernel), kernel.snapshot().channels_in_use) == ((0, 0), 0)
    assert kernel.snapshot().vmstat["pgmigrate_success"] == 512 * 3


def test_a_reboot_ends_what_was_blocked() -> None:
    kernel = boot(HUNG)
    kernel.migrate(MOVE_PAGES, 512)
    call = write(kernel, OFFLOADING, "0")

    kernel.reboot()

    assert errno_of(call.result) == EIO
    assert read(kernel, OFFLOADING).result() == b"0\n"
