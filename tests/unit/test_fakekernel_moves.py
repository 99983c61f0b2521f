# SPDX-License-Identifier: Apache-2.0
"""Moves of the agent's own pages inside the model: what arrives, what is wrong, who copied, how long it took."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from errno import EACCES, EINVAL, EIO, ENODEV, ENOMEM, ENOSYS, EPERM
from typing import Any

import pytest

from numamigration_api.vocabulary import Dialect, MigrationReason
from tests.fakekernel.calls import StillUnderWayError
from tests.fakekernel.config import DmaEngine, HostConfig, NumaNode, Workload
from tests.fakekernel.control import RunningKernel, answer
from tests.fakekernel.model import FakeKernel
from tests.fakekernel.moves import Moved
from tests.fakekernel.parsing import KernelError

pytestmark = pytest.mark.uncounted

PARAMETERS = "/sys/module/dcbm/parameters"
SYSCALL = MigrationReason.SYSCALL_OR_CPUSET
MBIND = MigrationReason.MEMPOLICY_MBIND
HUNG = (DmaEngine("ptdma", hangs=True),)


def boot(*, on: bool = True, **host: Any) -> FakeKernel:
    kernel = FakeKernel(HostConfig(**host), random.Random(1))
    if on:
        kernel.drift(f"{PARAMETERS}/offloading", "1")
    return kernel


def read(kernel: FakeKernel, name: str) -> int:
    return int(kernel.read(kernel.open(f"{PARAMETERS}/{name}", os.O_RDONLY)))


def counted(kernel: FakeKernel) -> tuple[int, int]:
    return read(kernel, "folios_migrated"), read(kernel, "folios_failures")


def errno_of(call: Callable[[], object]) -> int:
    try:
        call()
    except KernelError as error:
        return error.errno or 0
    return 0


def test_folios_arrive_and_every_counter_moves() -> None:
    kernel = boot()

    moved = kernel.move_own_pages(SYSCALL, 0, 1, small=64, huge=2)

    assert moved == Moved(source=0, destination=1, folios=66, huge=2)
    assert counted(kernel) == (66, 0)
    vmstat = {name: value for name, value in kernel.snapshot().vmstat.items() if value}
    assert vmstat == {"pgmigrate_success": 64 + 1024, "thp_migration_success": 2}


@pytest.mark.parametrize(
    ("mask", "reason", "offloaded"),
    [
        ("mempolicy_mbind", MBIND, True),
        ("mempolicy_mbind", SYSCALL, False),
        ("syscall_or_cpuset", SYSCALL, True),
        ("demotion", MBIND, False),
        ("none", SYSCALL, False),
    ],
)
def test_the_mask_decides_who_copies(mask: str, reason: MigrationReason, offloaded: bool) -> None:
    kernel = boot()
    kernel.drift(f"{PARAMETERS}/reason_mask", mask)

    moved = kernel.move_own_pages(reason, 0, 1, small=8)

    assert moved.folios == 8
    assert counted(kernel) == (8 if offloaded else 0, 0)


def test_v5_offloads_the_one_system_call_and_not_the_other() -> None:
    kernel = FakeKernel(HostConfig(dialect=Dialect.V5), random.Random(1))
    kernel.drift("/sys/module/dcbm/offloading", "1")

    kernel.move_own_pages(MBIND, 0, 1, small=8)
    kernel.move_own_pages(SYSCALL, 0, 1, small=4)

    assert kernel.snapshot().folios_migrated == 4


@pytest.mark.parametrize("engines", [(), (DmaEngine("ptdma", taken=1),)], ids=["none", "taken"])
def test_without_a_channel_the_cpu_copies(engines: tuple[DmaEngine, ...]) -> None:
    kernel = boot(engines=engines)

    assert kernel.move_own_pages(SYSCALL, 0, 1, small=8).folios == 8
    assert counted(kernel) == (0, 0)


def test_threads_copy_where_they_are_on() -> None:
    kernel = boot(on=False, dialect=Dialect.ZY)
    kernel.drift("/proc/sys/vm/use_mt_copy", "1")

    kernel.move_own_pages(SYSCALL, 0, 1, small=8)

    assert kernel.snapshot().folios_by_threads == 8


def test_v1_leaves_huge_pages_to_the_cpu() -> None:
    kernel = FakeKernel(HostConfig(dialect=Dialect.V1), random.Random(1))
    kernel.drift("/sys/kernel/dcbm/offloading", "1")

    kernel.move_own_pages(SYSCALL, 0, 1, small=8, huge=1)

    assert kernel.snapshot().folios_migrated == 8


@pytest.mark.parametrize(
    ("wrong_share", "small", "huge", "wrong", "pages"),
    [
        pytest.param(1.0, 64, 1, 65, 64 + 512, id="an engine that copies nothing"),
        pytest.param(0.5, 64, 0, 32, 32, id="every second folio"),
        pytest.param(511 / 512, 512, 0, 511, 511, id="all but the first"),
    ],
)
def test_an_engine_that_lies_shows_in_the_bytes_alone(
    wrong_share: float, small: int, huge: int, wrong: int, pages: int
) -> None:
    kernel = boot(engines=(DmaEngine("ptdma", wrong_share=wrong_share),))

    moved = kernel.move_own_pages(SYSCALL, 0, 1, small=small, huge=huge)

    assert (moved.folios, moved.wrong, moved.wrong_at) == (small + huge, wrong, 0)
    assert counted(kernel) == (small + huge, 0)
    assert kernel.snapshot().corrupted_pages == pages


def test_a_rare_lie_comes_up_after_as_many_folios_as_it_should() -> None:
    kernel = boot(engines=(DmaEngine("ptdma", wrong_share=1 / 1000),))

    wrong = [kernel.move_own_pages(SYSCALL, 0, 1, small=100).wrong for _ in range(20)]

    assert wrong == [0] * 9 + [1] + [0] * 9 + [1]


def test_what_the_cpu_copies_is_right_whatever_the_engine_does() -> None:
    kernel = boot(on=False, engines=(DmaEngine("ptdma", wrong_share=1.0),))

    assert kernel.move_own_pages(SYSCALL, 0, 1, small=64).wrong == 0


def test_a_batch_that_fails_arrives_by_cpu_with_right_bytes() -> None:
    kernel = boot(engines=(DmaEngine("ptdma", error_share=1.0, wrong_share=1.0),))

    moved = kernel.move_own_pages(SYSCALL, 0, 1, small=64)

    assert (moved.folios, moved.wrong, moved.errno) == (64, 0, 0)
    assert counted(kernel) == (0, 64)


@pytest.mark.parametrize(("small", "huge", "batches"), [(512, 0, 1), (513, 0, 2), (511, 1, 1), (512, 1, 2), (0, 3, 3)])
def test_folios_go_in_batches_that_end_at_the_ceiling(small: int, huge: int, batches: int) -> None:
    kernel = boot(engines=(DmaEngine("ptdma", error_share=1.0),))

    kernel.move_own_pages(SYSCALL, 0, 1, small=small, huge=huge)

    assert kernel.log.count("dcbm: DMA copy failed (-5), falling back to CPU") == batches


def test_a_hung_engine_holds_the_call_up_for_10_s_a_batch() -> None:
    kernel = boot(engines=HUNG)

    moved = kernel.move_own_pages(SYSCALL, 0, 1, small=1024)

    assert (moved.folios, moved.seconds) == (1024, 20)
    assert counted(kernel) == (0, 1024)


def test_a_move_under_way_holds_the_turn_off_up_and_ends_by_cpu() -> None:
    kernel = boot(engines=HUNG)
    move = kernel.begin_move(SYSCALL, 0, 1, small=1024)
    kernel.drift(f"{PARAMETERS}/offloading", "0")
    assert [call.path for call in kernel.blocked] == [f"{PARAMETERS}/offloading"]
    assert not move.over

    kernel.advance(10)

    assert move.answer() == Moved(source=0, destination=1, folios=1024, seconds=10)
    assert kernel.blocked == []
    assert counted(kernel) == (0, 512)


def test_batches_that_are_let_go_end_the_move() -> None:
    kernel = boot(engines=HUNG)
    move = kernel.begin_move(SYSCALL, 0, 1, small=8)

    kernel.end_batches()

    assert move.over


def test_f_mid_never_answers_on_a_hung_engine() -> None:
    kernel = boot(dialect=Dialect.F_MID, engines=HUNG)

    with pytest.raises(StillUnderWayError):
        kernel.move_own_pages(SYSCALL, 0, 1, small=8)


def test_a_host_that_goes_down_takes_the_caller_along() -> None:
    kernel = boot(engines=HUNG)
    move = kernel.begin_move(SYSCALL, 0, 1, small=8)

    kernel.reboot()

    assert move.over
    assert errno_of(move.answer) == EIO


def test_a_workload_that_has_every_channel_leaves_the_move_to_the_cpu() -> None:
    kernel = boot(engines=(DmaEngine("ptdma", copy_seconds=5),))
    kernel.migrate(Workload(SYSCALL, 0), 512)

    assert kernel.move_own_pages(SYSCALL, 0, 1, small=8).folios == 8
    assert counted(kernel) == (0, 0)


@pytest.mark.parametrize(
    ("dialect", "counter", "amount"), [(Dialect.F_MID, "batches_refused", 1), (Dialect.F_EXT, "folios_gated", 64)]
)
def test_the_forks_count_what_a_busy_engine_does_not_take(dialect: Dialect, counter: str, amount: int) -> None:
    kernel = boot(dialect=dialect, engines=(DmaEngine("ptdma", copy_seconds=5),))
    kernel.migrate(Workload(SYSCALL, 0), 512)

    kernel.move_own_pages(SYSCALL, 0, 1, small=64)

    assert read(kernel, counter) == amount


def test_f_ext_leaves_a_small_move_to_the_cpu_without_a_count() -> None:
    kernel = boot(dialect=Dialect.F_EXT)

    kernel.move_own_pages(SYSCALL, 0, 1, small=7)
    kernel.move_own_pages(SYSCALL, 0, 1, small=8)

    assert (counted(kernel), read(kernel, "batches_refused")) == ((8, 0), 0)


def test_without_huge_pages_there_are_as_many_small_ones() -> None:
    kernel = boot(huge_pages=False)

    moved = kernel.move_own_pages(SYSCALL, 0, 1, small=8, huge=1)

    assert (moved.folios, moved.huge) == (520, 0)


NODES = (NumaNode(0, "0-7"), NumaNode(1, "8-15"), NumaNode(2, "16-23", memory=False))


@pytest.mark.parametrize(
    ("host", "way", "answers"),
    [
        pytest.param({"numa_nodes": NODES[:1]}, (0, 1), (ENODEV, EINVAL), id="one NUMA node"),
        pytest.param({"numa_nodes": NODES}, (0, 2), (ENODEV, EINVAL), id="destination without memory"),
        pytest.param({"numa_nodes": NODES}, (2, 0), (EINVAL, EINVAL), id="source without memory"),
        pytest.param({"cpuset_numa_nodes": (0,)}, (0, 1), (EACCES, EINVAL), id="cpuset keeps it off the destination"),
        pytest.param({"cpuset_numa_nodes": (1,)}, (0, 1), (EINVAL, EINVAL), id="cpuset keeps it off the source"),
        pytest.param({"denied_calls": {"move_pages": EPERM}}, (0, 1), (EPERM, 0), id="move_pages denied"),
        pytest.param({"denied_calls": {"mbind": ENOSYS}}, (0, 1), (ENOSYS, ENOSYS), id="mbind, which places, denied"),
        pytest.param({"full_numa_nodes": (0,)}, (0, 1), (ENOMEM, ENOMEM), id="no free memory at the source"),
    ],
)
def test_a_move_that_cannot_be_made_is_refused(
    host: dict[str, Any], way: tuple[int, int], answers: tuple[int, int]
) -> None:
    kernel = boot(**host)

    found = tuple(
        errno_of(lambda reason=reason: kernel.move_own_pages(reason, *way, small=8))  # type: ignore[misc]
        for reason in (SYSCALL, MBIND)
    )

    assert found == answers


@pytest.mark.parametrize(("reason", "told"), [(SYSCALL, ENOMEM), (MBIND, 0)])
def test_folios_stay_when_the_destination_is_full_and_mbind_does_not_say_so(reason: MigrationReason, told: int) -> None:
    kernel = boot(full_numa_nodes=(1,))

    moved = kernel.move_own_pages(reason, 0, 1, small=8, huge=1)

    assert (moved.folios, moved.left, moved.errno, moved.cause != "") == (0, 9, told, bool(told))
    assert counted(kernel) == (0, 0)
    assert kernel.snapshot().vmstat["pgmigrate_fail"] == 520


def test_no_system_call_migrates_for_another_reason() -> None:
    with pytest.raises(ValueError, match="demotion"):
        boot().move_own_pages(MigrationReason.DEMOTION, 0, 1, small=8)


def test_the_control_channel_moves_pages_too() -> None:
    running = RunningKernel(boot(), clock=None)

    reply = answer(running, b'{"do":"moveOwnPages","reason":"syscall_or_cpuset","source":0,"destination":1,"small":8}')

    assert reply.moved == Moved(source=0, destination=1, folios=8)


def test_the_control_channel_tells_why_a_move_is_refused() -> None:
    running = RunningKernel(boot(denied_calls={"move_pages": EPERM}), clock=None)
    command = b'{"do":"moveOwnPages","reason":"%s","source":0,"destination":1,"small":8}'

    assert answer(running, command % b"syscall_or_cpuset").errno == EPERM
    assert "demotion" in answer(running, command % b"demotion").message
