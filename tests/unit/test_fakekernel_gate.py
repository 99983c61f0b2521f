# SPDX-License-Identifier: Apache-2.0
"""The gate, which holds one store of a program so that a test can do something right before or after it.

The mounted ones need root and libfuse3 (``scripts/setup fuse``).
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EINTR, ENODEV
from pathlib import Path

import pytest

from tests.fakekernel.calls import Call, Gate, StillUnderWayError, When
from tests.fakekernel.config import HostConfig
from tests.fakekernel.control import CloseGate, Drift, OpenGate, Reboot, RunningKernel, answer
from tests.fakekernel.host import FakeHost, FakeHostError
from tests.fakekernel.model import FakeKernel

pytestmark = pytest.mark.uncounted

PARAMETERS = "/sys/module/dcbm/parameters"
OFFLOADING = f"{PARAMETERS}/offloading"
CHANNELS = f"{PARAMETERS}/nr_dma_chan"
DEMOTION = "/sys/kernel/mm/numa/demotion_enabled"


@pytest.fixture
def kernel() -> FakeKernel:
    return FakeKernel(HostConfig(), random.Random(1))


def begin_write(kernel: FakeKernel, path: str, text: bytes) -> Call:
    return kernel.begin_write(kernel.open(path, os.O_WRONLY), text)


def channels(kernel: FakeKernel) -> int:
    return kernel.snapshot().nr_dma_chan


@pytest.mark.parametrize(("when", "meanwhile"), [(When.BEFORE, 1), (When.AFTER, 8)])
def test_a_held_store_takes_effect_on_its_side_of_the_gate(kernel: FakeKernel, when: When, meanwhile: int) -> None:
    kernel.gate.close(Gate(CHANNELS, when=when))

    call = begin_write(kernel, CHANNELS, b"8")
    held = (call.over, channels(kernel))
    kernel.open_gate(drop=False)

    assert held == (False, meanwhile)
    assert (call.result(), channels(kernel)) == (1, 8)


def test_a_store_dropped_before_its_effect_never_has_one(kernel: FakeKernel) -> None:
    kernel.gate.close(Gate(CHANNELS))
    call = begin_write(kernel, CHANNELS, b"8")

    kernel.open_gate(drop=True)

    with pytest.raises(OSError, match="Interrupted") as caught:
        call.result()
    assert caught.value.errno == EINTR
    assert (channels(kernel), kernel.stores) == (1, [])


def test_a_store_dropped_after_its_effect_keeps_it(kernel: FakeKernel) -> None:
    kernel.gate.close(Gate(CHANNELS, when=When.AFTER))
    call = begin_write(kernel, CHANNELS, b"8")

    kernel.open_gate(drop=True)

    assert (call.result(), channels(kernel)) == (1, 8)


@pytest.mark.parametrize(
    ("gate", "held"),
    [
        pytest.param(Gate(CHANNELS), 1, id="the next store to a path"),
        pytest.param(Gate(CHANNELS, nth=2), 3, id="the second next store to a path"),
        pytest.param(Gate(), 0, id="the next store to any path"),
        pytest.param(Gate(nth=3), 2, id="the third next store to any path"),
        pytest.param(Gate(nth=5), None, id="one that never comes"),
    ],
)
def test_the_gate_counts_stores_of_its_path(kernel: FakeKernel, gate: Gate, held: int | None) -> None:
    kernel.gate.close(gate)

    paths = (DEMOTION, CHANNELS, OFFLOADING, CHANNELS)
    calls = [begin_write(kernel, path, b"1") for path in paths]

    assert [number for number, call in enumerate(calls) if not call.over] == ([] if held is None else [held])


def test_the_gate_holds_one_store_and_the_next_passes(kernel: FakeKernel) -> None:
    kernel.gate.close(Gate(CHANNELS))
    held = begin_write(kernel, CHANNELS, b"8")

    passed = begin_write(kernel, CHANNELS, b"4")

    assert (held.over, passed.over, channels(kernel)) == (False, True, 4)


def test_writing_nothing_is_no_store(kernel: FakeKernel) -> None:
    kernel.gate.close(Gate(CHANNELS))

    assert begin_write(kernel, CHANNELS, b"").result() == 0


def test_other_processes_of_the_host_pass_the_gate(kernel: FakeKernel) -> None:
    kernel.gate.close(Gate(CHANNELS))

    kernel.drift(CHANNELS, "8")

    assert channels(kernel) == 8


def test_a_file_that_vanished_while_its_store_was_held_answers_enodev(kernel: FakeKernel) -> None:
    kernel.gate.close(Gate(CHANNELS))
    call = begin_write(kernel, CHANNELS, b"8")
    kernel.unload()

    kernel.open_gate(drop=False)

    with pytest.raises(OSError, match="No such device") as caught:
        call.result()
    assert caught.value.errno == ENODEV


def test_no_second_gate_while_somebody_is_held(kernel: FakeKernel) -> None:
    kernel.gate.close(Gate(CHANNELS))
    begin_write(kernel, CHANNELS, b"8")

    with pytest.raises(ValueError, match="open it first"):
        kernel.gate.close(Gate(CHANNELS))


def test_a_write_that_cannot_wait_says_that_it_is_held(kernel: FakeKernel) -> None:
    kernel.gate.close(Gate(CHANNELS))

    with pytest.raises(StillUnderWayError, match="nr_dma_chan held before"):
        kernel.write(kernel.open(CHANNELS, os.O_WRONLY), b"8")


def test_waiting_for_nobody_ends_with_a_word(kernel: FakeKernel) -> None:
    reply = answer(RunningKernel(kernel, clock=None), b'{"do": "awaitHeld", "seconds_max": 0}')

    assert reply.message == "no store was held within 0 s"


# With mounted files and processes of their own.


@pytest.fixture(scope="module")
def shared_host() -> Iterator[FakeHost]:
    with FakeHost(real_time=False) as host:
        yield host


@pytest.fixture
def host(shared_host: FakeHost) -> Iterator[FakeHost]:
    yield shared_host
    shared_host.do(OpenGate(drop=True))
    shared_host.do(Reboot())


@contextmanager
def writer(path: Path, text: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that writes once and ends with status 0."""
    script = "import os, sys; os.write(os.open(sys.argv[1], os.O_WRONLY), sys.argv[2].encode())"
    with subprocess.Popen([sys.executable, "-c", script, str(path), text]) as process:
        yield process


def test_a_held_writer_goes_on_when_the_gate_opens(host: FakeHost) -> None:
    host.do(CloseGate(Gate(CHANNELS)))

    with writer(host.path(CHANNELS), "8") as process:
        held = host.await_held()
        shown = host.path(CHANNELS).read_text()
        host.do(OpenGate())

    assert (held, shown, process.returncode) == (CHANNELS, "1\n", 0)
    assert host.path(CHANNELS).read_text() == "8\n"


def test_while_a_store_is_held_every_other_file_answers(host: FakeHost) -> None:
    host.do(CloseGate(Gate(CHANNELS)))

    with writer(host.path(CHANNELS), "8"):
        host.await_held()
        host.path(DEMOTION).write_text("1")
        host.do(Drift(OFFLOADING, "1"))
        shown = [host.path(path).read_text() for path in (DEMOTION, OFFLOADING, CHANNELS)]
        listed = {entry.name for entry in host.path(PARAMETERS).iterdir()}
        host.do(OpenGate())

    assert shown == ["true\n", "1\n", "1\n"]
    assert "nr_dma_chan" in listed


@pytest.mark.parametrize(("when", "left"), [(When.BEFORE, "1\n"), (When.AFTER, "8\n")])
def test_a_writer_killed_at_the_gate_leaves_the_value_of_that_side_and_a_host_that_works(
    host: FakeHost, when: When, left: str
) -> None:
    host.do(CloseGate(Gate(CHANNELS, when=when)))
    with writer(host.path(CHANNELS), "8") as process:
        host.await_held()
        process.kill()
        host.do(OpenGate(drop=True))
        killed = process.wait()

    assert killed == -9
    assert host.path(CHANNELS).read_text() == left
    host.path(CHANNELS).write_text("4")
    assert host.path(CHANNELS).read_text() == "4\n"


def test_a_host_stops_although_a_writer_is_held() -> None:
    with FakeHost() as host:
        root = host.root
        host.do(CloseGate(Gate(CHANNELS)))
        with writer(host.path(CHANNELS), "8") as process:
            host.await_held()
            host.stop()

    assert process.returncode == 1
    assert not root.exists()


def test_a_host_that_is_gone_says_so_instead_of_waiting() -> None:
    with FakeHost() as host:
        pass
    with pytest.raises(FakeHostError, match="not started"):
        host.await_held()
