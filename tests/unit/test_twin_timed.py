# SPDX-License-Identifier: Apache-2.0
"""The twin of clocked moves: as fast as the host's table says, with the setting that its kernel is in."""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator

import pytest

from numamigration_agent.kernel.timed_moves import EndMoves, Prepare, Survey, TimeMoves
from tests.fakekernel.config import HostConfig, Speed
from tests.fakekernel.control import Drift
from tests.fakekernel.host import FakeHost
from tests.fakekernel.model import FakeKernel
from tests.twin.timed import DMA_LOSES, DMA_WINS, timed_twin, timed_twin_of_host

PARAMETERS = "/sys/module/dcbm/parameters"
PAGE, HUGE = 4096, 2 << 20
TABLE = (Speed(0, PAGE, 2.0), Speed(0, HUGE, 8.0), Speed(1, PAGE, 1.0), Speed(4, PAGE, 4.0), Speed(4, HUGE, 16.0))


@pytest.fixture
def kernel() -> FakeKernel:
    return FakeKernel(HostConfig(speeds=TABLE), random.Random(1))


def speed(kernel: FakeKernel, folio_bytes: int = PAGE, migrators: int = 1) -> float:
    move_timed = timed_twin(kernel)
    assert move_timed(Prepare(0, 1, folio_bytes, 64 << 20, migrators)).errno == 0
    moved = move_timed(TimeMoves(32, 0.1))
    assert (moved.errno, moved.folios, moved.bytes) == (0, 32 * migrators, 32 * migrators * folio_bytes)
    return moved.bytes / moved.seconds / 1e9


def turn_on(kernel: FakeKernel, channels: int) -> None:
    kernel.drift(f"{PARAMETERS}/nr_dma_chan", str(channels))
    kernel.drift(f"{PARAMETERS}/offloading", "1")


def test_without_an_engine_the_cpu_s_row_counts(kernel: FakeKernel) -> None:
    assert [speed(kernel), speed(kernel, HUGE)] == pytest.approx([2.0, 8.0])


def test_with_an_engine_the_row_of_its_channels_counts(kernel: FakeKernel) -> None:
    turn_on(kernel, 4)

    assert [speed(kernel), speed(kernel, HUGE)] == pytest.approx([4.0, 16.0])


def test_own_pages_that_are_not_eligible_are_as_slow_as_the_cpu(kernel: FakeKernel) -> None:
    turn_on(kernel, 4)
    kernel.drift(f"{PARAMETERS}/reason_mask", "demotion")

    assert speed(kernel) == pytest.approx(2.0)


def test_a_setting_without_a_row_takes_its_neighbour_s(kernel: FakeKernel) -> None:
    turn_on(kernel, 2)

    assert speed(kernel) == pytest.approx(1.0)


def test_a_size_that_the_model_does_not_have_is_refused(kernel: FakeKernel) -> None:
    assert timed_twin(kernel)(Prepare(0, 1, 65536, 1 << 20)).errno == errno.EOPNOTSUPP


@pytest.fixture(scope="module")
def host() -> Iterator[FakeHost]:
    with FakeHost(HostConfig(speeds=TABLE), real_time=False) as host:
        yield host


def test_the_twin_of_a_mounted_host_reads_its_table_and_its_knobs(host: FakeHost) -> None:
    move_timed = timed_twin_of_host(host.home)
    assert move_timed(Survey(0, 1)).errno == 0
    move_timed(Prepare(0, 1, PAGE, 1 << 20))
    before = move_timed(TimeMoves(32, 0.1))

    host.do(Drift(f"{PARAMETERS}/nr_dma_chan", "4"))
    host.do(Drift(f"{PARAMETERS}/offloading", "1"))
    after = move_timed(TimeMoves(32, 0.1))

    assert before.seconds / after.seconds == pytest.approx(2.0)
    assert move_timed(EndMoves()).errno == 0


def test_one_table_has_an_engine_that_wins_and_one_that_loses_at_every_size() -> None:
    for table, wins in ((DMA_WINS, True), (DMA_LOSES, False)):
        for size in (PAGE, HUGE):
            cpu = next(row.gbps for row in table if not row.channels and row.folio_bytes == size)
            best = max(row.gbps for row in table if row.channels and row.folio_bytes == size)
            assert (best > cpu) is wins
