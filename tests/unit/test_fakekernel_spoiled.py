# SPDX-License-Identifier: Apache-2.0
"""Files that are not what they should be, in the model and mounted: each case runs on both.

The mounted ones need root and libfuse3 (``scripts/setup fuse``).
"""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable, Iterator
from errno import EIO, EISDIR, ELOOP, ENODEV, ENOENT, ENXIO
from typing import Protocol

import pytest

from tests.fakekernel.calls import StillUnderWayError
from tests.fakekernel.config import HostConfig, Place, Spoiled
from tests.fakekernel.control import Command, Heal, Load, Reboot, RunningKernel, Spoil, Unload
from tests.fakekernel.host import FakeHost
from tests.fakekernel.model import FakeKernel
from tests.fakekernel.parsing import KernelError

pytestmark = pytest.mark.uncounted

PARAMETERS = "/sys/module/dcbm/parameters"
CHANNELS = f"{PARAMETERS}/nr_dma_chan"
BALANCING = "/proc/sys/kernel/numa_balancing"
VMSTAT = "/proc/vmstat"
MEBIBYTE = b"9" * (1 << 20)


class Host(Protocol):
    """A host's files, in process or mounted."""

    def do(self, command: Command) -> object: ...

    def read(self, path: str) -> bytes: ...

    def write(self, path: str, data: bytes) -> int: ...

    def kind(self, path: str) -> int: ...


class InProcess:
    def __init__(self) -> None:
        self.kernel = FakeKernel(HostConfig(), random.Random(1))

    def do(self, command: Command) -> object:
        with RunningKernel(self.kernel, None) as kernel:
            return command.perform(kernel)  # type: ignore[union-attr]

    def read(self, path: str) -> bytes:
        handle = self.kernel.open(path, os.O_RDONLY | os.O_NONBLOCK)
        return b"".join(iter(_pieces(lambda size, offset: self.kernel.read(handle, size, offset))))

    def write(self, path: str, data: bytes) -> int:
        return self.kernel.write(self.kernel.open(path, os.O_WRONLY | os.O_NONBLOCK), data)

    def kind(self, path: str) -> int:
        return stat.S_IFMT(self.kernel.stat(path, follow=False).mode)


def _pieces(read: Callable[[int, int], bytes]) -> Iterator[bytes]:
    offset = 0
    while piece := read(65536, offset):
        offset += len(piece)
        yield piece


class Mounted:
    def __init__(self, host: FakeHost) -> None:
        self.host = host

    def do(self, command: Command) -> object:
        return self.host.do(command)

    def read(self, path: str) -> bytes:
        descriptor = os.open(self.host.path(path), os.O_RDONLY | os.O_NONBLOCK)
        try:
            return b"".join(iter(lambda: os.read(descriptor, 65536), b""))
        finally:
            os.close(descriptor)

    def write(self, path: str, data: bytes) -> int:
        descriptor = os.open(self.host.path(path), os.O_WRONLY | os.O_NONBLOCK)
        try:
            return os.write(descriptor, data)
        finally:
            os.close(descriptor)

    def kind(self, path: str) -> int:
        return stat.S_IFMT(self.host.path(path).lstat().st_mode)


@pytest.fixture(scope="module")
def shared_host() -> Iterator[FakeHost]:
    with FakeHost(real_time=False) as host:
        yield host


@pytest.fixture(params=["in process", "mounted"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    if request.param == "in process":
        yield InProcess()
        return
    mounted: FakeHost = request.getfixturevalue("shared_host")
    mounted.do(Reboot())
    yield Mounted(mounted)
    for path in (CHANNELS, BALANCING, VMSTAT):
        mounted.do(Heal(path))


def errno_of(call: Callable[[], object]) -> int:
    try:
        call()
    except OSError as error:
        return error.errno or 0
    return 0


@pytest.mark.parametrize("path", [CHANNELS, BALANCING, VMSTAT])
@pytest.mark.parametrize(
    "shows",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x00\x1b[2Jeight\n", id="garbage"),
        pytest.param(b"\xff\xfe\xc3\x28\n", id="no UTF-8"),
        pytest.param(MEBIBYTE, id="1 MiB"),
    ],
)
def test_a_file_may_show_anything(host: Host, path: str, shows: bytes) -> None:
    host.do(Spoil(path, Spoiled(shows=shows)))

    assert host.read(path) == shows


def test_a_file_that_shows_garbage_still_takes_what_is_written(host: Host) -> None:
    host.do(Spoil(CHANNELS, Spoiled(shows=b"x\n")))
    host.write(CHANNELS, b"8")
    host.do(Heal(CHANNELS))

    assert host.read(CHANNELS) == b"8\n"


def test_a_read_or_a_write_may_fail(host: Host) -> None:
    host.do(Spoil(CHANNELS, Spoiled(read_error=EIO, write_error=ENODEV)))

    assert errno_of(lambda: host.read(CHANNELS)) == EIO
    assert errno_of(lambda: host.write(CHANNELS, b"8")) == ENODEV
    host.do(Heal(CHANNELS))
    assert host.read(CHANNELS) == b"1\n"


def test_a_folder_may_stand_where_a_file_should(host: Host) -> None:
    host.do(Spoil(CHANNELS, Spoiled(Place.FOLDER)))

    assert host.kind(CHANNELS) == stat.S_IFDIR
    assert errno_of(lambda: host.read(CHANNELS)) == EISDIR
    assert errno_of(lambda: host.write(CHANNELS, b"8")) == EISDIR


def test_a_link_may_lead_to_itself(host: Host) -> None:
    host.do(Spoil(CHANNELS, Spoiled(Place.LOOP)))

    assert host.kind(CHANNELS) == stat.S_IFLNK
    assert errno_of(lambda: host.read(CHANNELS)) == ELOOP
    assert errno_of(lambda: host.write(CHANNELS, b"8")) == ELOOP


def test_a_pipe_has_nobody_at_its_other_end(host: Host) -> None:
    host.do(Spoil(CHANNELS, Spoiled(Place.FIFO)))

    assert host.kind(CHANNELS) == stat.S_IFIFO
    assert host.read(CHANNELS) == b""
    assert errno_of(lambda: host.write(CHANNELS, b"8")) == ENXIO


def test_who_opens_a_pipe_without_o_nonblock_is_caught_in_the_model() -> None:
    kernel = FakeKernel(HostConfig(spoiled_files={CHANNELS: Spoiled(Place.FIFO)}), random.Random(1))

    for flags in (os.O_RDONLY, os.O_WRONLY):
        with pytest.raises(StillUnderWayError):
            kernel.open(CHANNELS, flags)


def test_a_spoiled_file_stays_spoiled_when_it_comes_back(host: Host) -> None:
    host.do(Spoil(CHANNELS, Spoiled(shows=b"x\n")))
    for command in (Unload(), Load()):
        host.do(command)
    after_load = host.read(CHANNELS)
    host.do(Reboot())

    assert (after_load, host.read(CHANNELS)) == (b"x\n", b"x\n")


def test_a_file_that_is_not_there_cannot_be_spoiled() -> None:
    kernel = FakeKernel(HostConfig(), random.Random(1))

    with pytest.raises(KernelError) as refused:
        kernel.spoil(f"{PARAMETERS}/sg_elems", Spoiled())
    assert refused.value.errno == ENOENT


def test_a_host_may_boot_with_spoiled_files() -> None:
    with FakeHost(HostConfig(spoiled_files={CHANNELS: Spoiled(shows=b"\xff")}), real_time=False) as host:
        assert host.path(CHANNELS).read_bytes() == b"\xff"
