# SPDX-License-Identifier: Apache-2.0
"""The mounted files answer as the model does: each table runs on both, on the mounted ones with real system calls.

These tests mount a FUSE file system, so they need root and libfuse3 (``scripts/setup fuse``).
"""

from __future__ import annotations

import os
import random
import select
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from errno import EACCES, EBUSY, ECONNABORTED, EINVAL, EIO, ENODEV, ENOENT, ENOTCONN, EPERM, ERANGE, EROFS, EWOULDBLOCK
from pathlib import Path
from typing import Protocol

import pytest

from numamigration_api.vocabulary import Dialect, MigrationReason
from tests.fakekernel.config import DmaEngine, HostConfig, Workload
from tests.fakekernel.control import (
    Advance,
    AwaitBlocked,
    AwaitInFlight,
    Drift,
    EndBatches,
    Load,
    Migrate,
    MoveOwnPages,
    Quit,
    Reboot,
    SetEngines,
    SetOtherMigrator,
    SetPressure,
    SetWorkloads,
    Unload,
)
from tests.fakekernel.host import PROJECT, FakeHost, FakeHostError, detach, is_mounted
from tests.fakekernel.model import FakeKernel

pytestmark = pytest.mark.uncounted

PARAMETERS = "/sys/module/dcbm/parameters"
OFFLOADING = f"{PARAMETERS}/offloading"
CHANNELS = f"{PARAMETERS}/nr_dma_chan"
REASONS = f"{PARAMETERS}/reason_mask"
MIGRATED = f"{PARAMETERS}/folios_migrated"
FAILURES = f"{PARAMETERS}/folios_failures"
DEMOTION = "/sys/kernel/mm/numa/demotion_enabled"
BALANCING = "/proc/sys/kernel/numa_balancing"
RATE_LIMIT = "/proc/sys/kernel/numa_balancing_promote_rate_limit_MBps"
BEFORE = {OFFLOADING: "1", CHANNELS: "4", REASONS: "demotion", DEMOTION: "1", BALANCING: "3", RATE_LIMIT: "100"}
"""Set before each row of the table, so that a refused write shows that the old value stands."""
NOBODY = 65534


class Files(Protocol):
    """A host's files, in process or mounted."""

    def write(self, path: str, *pieces: bytes, flags: int = 0) -> list[int]: ...

    def read(self, path: str) -> str: ...

    def size(self, path: str) -> int: ...


class InProcess:
    """System calls on the model."""

    def __init__(self, config: HostConfig, uid: int = 0) -> None:
        self.kernel = FakeKernel(config, random.Random(1))
        self.uid = uid

    def write(self, path: str, *pieces: bytes, flags: int = 0) -> list[int]:
        handle = self.kernel.open(path, os.O_WRONLY | flags, self.kernel.agent(self.uid))
        written: list[int] = []
        for piece in pieces:
            written.append(self.kernel.write(handle, piece, offset=sum(written)))
        return written

    def read(self, path: str) -> str:
        return self.kernel.read(self.kernel.open(path, os.O_RDONLY, self.kernel.agent(self.uid))).decode()

    def size(self, path: str) -> int:
        return self.kernel.stat(path).size


class Mounted:
    """System calls on mounted files."""

    def __init__(self, host: FakeHost, uid: int = 0) -> None:
        self.host = host
        self.uid = uid

    def write(self, path: str, *pieces: bytes, flags: int = 0) -> list[int]:
        with user(self.uid):
            descriptor = os.open(self.host.path(path), os.O_WRONLY | flags)
        try:
            return [os.write(descriptor, piece) for piece in pieces]
        finally:
            os.close(descriptor)

    def read(self, path: str) -> str:
        with user(self.uid):
            return self.host.path(path).read_text()

    def size(self, path: str) -> int:
        return self.host.path(path).stat().st_size


def errno_of(call: Callable[[], object]) -> int | None:
    """Return what the call fails with; None when it succeeds."""
    try:
        call()
    except OSError as error:
        return error.errno
    return None


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@contextmanager
def user(uid: int) -> Iterator[None]:
    if uid == os.geteuid():  # the C library would wait until each thread has changed, a blocked one too
        yield
        return
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture(scope="module")
def shared_host() -> Iterator[FakeHost]:
    with FakeHost(real_time=False) as host:
        yield host


@pytest.fixture
def host(shared_host: FakeHost) -> FakeHost:
    """The one mounted host of this module, as right after boot."""
    shared_host.do(Reboot())
    shared_host.do(SetWorkloads(()))
    return shared_host


@pytest.fixture(params=["in process", "mounted"])
def files(request: pytest.FixtureRequest) -> Files:
    if request.param == "in process":
        return InProcess(HostConfig())
    host: FakeHost = request.getfixturevalue("host")
    return Mounted(host)


def prepare(files: Files) -> None:
    for path, text in BEFORE.items():
        files.write(path, text.encode())


def kept(path: str) -> str:
    return {DEMOTION: "true"}.get(path, BEFORE[path])


WRITES = [
    pytest.param(OFFLOADING, b"1", None, "1", id="offloading: same value is a quiet success"),
    pytest.param(OFFLOADING, b"0\n", None, "0", id="offloading: off"),
    pytest.param(OFFLOADING, b"off", None, "0", id="offloading: off as a word"),
    pytest.param(OFFLOADING, b"01", None, "0", id="offloading: 01 is false"),
    pytest.param(OFFLOADING, b"10", None, "1", id="offloading: 10 is true"),
    pytest.param(OFFLOADING, b"2", EINVAL, "1", id="offloading: 2"),
    pytest.param(OFFLOADING, b"\n", EINVAL, "1", id="offloading: empty line"),
    pytest.param(OFFLOADING, b" 1", EINVAL, "1", id="offloading: blank before"),
    pytest.param(OFFLOADING, b"", None, "1", id="offloading: no bytes"),
    pytest.param(CHANNELS, b"1", None, "1", id="channels: lowest legal"),
    pytest.param(CHANNELS, b"16\n", None, "16", id="channels: highest legal, changed while on"),
    pytest.param(CHANNELS, b"010", None, "8", id="channels: 8 to the kernel, 10 to people"),
    pytest.param(CHANNELS, b"0", EINVAL, "4", id="channels: one below"),
    pytest.param(CHANNELS, b"17", EINVAL, "4", id="channels: one past the end"),
    pytest.param(CHANNELS, b"-1", EINVAL, "4", id="channels: negative"),
    pytest.param(CHANNELS, b"eight", EINVAL, "4", id="channels: a word"),
    pytest.param(CHANNELS, b"8 ", EINVAL, "4", id="channels: blank behind"),
    pytest.param(CHANNELS, b"4294967296", ERANGE, "4", id="channels: too large for the type"),
    pytest.param(CHANNELS, b"", None, "4", id="channels: no bytes"),
    pytest.param(REASONS, b"numa_misplaced,compaction", None, "compaction,numa_misplaced", id="reasons: in bit order"),
    pytest.param(REASONS, b"none", None, "none", id="reasons: none"),
    pytest.param(REASONS, b"\n", None, "none", id="reasons: an empty line means none"),
    pytest.param(REASONS, b"0x121", None, "compaction,numa_misplaced,demotion", id="reasons: a number"),
    pytest.param(REASONS, b"MR_DEMOTION", EINVAL, "demotion", id="reasons: name of the C enum"),
    pytest.param(REASONS, b"demotion,bogus", EINVAL, "demotion", id="reasons: unknown name"),
    pytest.param(REASONS, b"-1", EINVAL, "demotion", id="reasons: negative"),
    pytest.param(REASONS, b"", None, "demotion", id="reasons: no bytes"),
    pytest.param(DEMOTION, b"0", None, "false", id="demotion: reads as a word"),
    pytest.param(DEMOTION, b"true", None, "true", id="demotion: takes its own words"),
    pytest.param(DEMOTION, b"2", EINVAL, "true", id="demotion: 2"),
    pytest.param(BALANCING, b"0", None, "0", id="balancing: off"),
    pytest.param(BALANCING, b"2\n", None, "2", id="balancing: tiering"),
    pytest.param(BALANCING, b"4", None, "4", id="balancing: 4 means nothing and passes"),
    pytest.param(BALANCING, b" 1 x", None, "1", id="balancing: what follows a blank is ignored"),
    pytest.param(BALANCING, b"5", EINVAL, "3", id="balancing: one past the end"),
    pytest.param(BALANCING, b"-1", EINVAL, "3", id="balancing: negative"),
    pytest.param(BALANCING, b"+1", EINVAL, "3", id="balancing: no plus in a sysctl"),
    pytest.param(BALANCING, b"\n", EINVAL, "3", id="balancing: empty line"),
    pytest.param(BALANCING, b"99999999999", EINVAL, "3", id="balancing: too large is EINVAL in a sysctl"),
    pytest.param(BALANCING, b"", None, "3", id="balancing: no bytes"),
    pytest.param(RATE_LIMIT, b"0", None, "0", id="rate limit: none at all"),
    pytest.param(RATE_LIMIT, b"2147483647", None, "2147483647", id="rate limit: highest legal"),
    pytest.param(RATE_LIMIT, b"2147483648", EINVAL, "100", id="rate limit: one past the end"),
    pytest.param(RATE_LIMIT, b"-1", EINVAL, "100", id="rate limit: negative"),
]


@pytest.mark.parametrize(("path", "text", "expected", "shown"), WRITES)
def test_a_write_is_answered_at_the_write_and_a_refused_one_changes_nothing(
    files: Files, path: str, text: bytes, expected: int | None, shown: str
) -> None:
    prepare(files)

    assert errno_of(lambda: files.write(path, text)) == expected

    others = {other: kept(other) for other in BEFORE if other != path}
    assert {other: files.read(other) for other in BEFORE} == {
        other: f"{text}\n" for other, text in {**others, path: shown}.items()
    }


@pytest.mark.parametrize("text", [b"0", b"5", b"\n", b"garbage"], ids=repr)
@pytest.mark.parametrize("counter", [MIGRATED, FAILURES], ids=["folios_migrated", "folios_failures"])
def test_a_counter_takes_any_write(files: Files, counter: str, text: bytes) -> None:
    assert files.write(counter, text) == [len(text)]
    assert files.read(counter) == "0\n"


def test_a_write_resets_a_mounted_counter_and_no_bytes_do_not(host: FakeHost) -> None:
    files = Mounted(host)
    files.write(OFFLOADING, b"1")
    host.do(SetWorkloads((Workload(MigrationReason.SYSCALL_OR_CPUSET, 100),)))
    host.do(Advance(2))

    files.write(MIGRATED, b"")
    after_no_bytes = files.read(MIGRATED)
    files.write(MIGRATED, b"garbage")

    assert (after_no_bytes, files.read(MIGRATED)) == ("200\n", "0\n")


def test_a_write_longer_than_a_page_arrives_cut_and_says_so(files: Files) -> None:
    text = b"demotion".ljust(4096) + b",damon"

    assert files.write(REASONS, text) == [4096]
    assert files.read(REASONS) == "demotion\n"


def test_each_write_to_an_open_sysfs_file_is_a_store_of_its_own(files: Files) -> None:
    assert files.write(CHANNELS, b"2", b"3") == [1, 1]
    assert files.read(CHANNELS) == "3\n"


def test_a_second_write_to_an_open_sysctl_does_nothing(files: Files) -> None:
    assert files.write(BALANCING, b"2", b"0") == [1, 1]
    assert files.read(BALANCING) == "2\n"


@pytest.mark.parametrize("flags", [os.O_TRUNC, os.O_APPEND, os.O_CREAT], ids=["O_TRUNC", "O_APPEND", "O_CREAT"])
def test_flags_of_a_shell_redirection_are_taken_without_effect(files: Files, flags: int) -> None:
    files.write(CHANNELS, b"4")

    assert files.write(CHANNELS, flags=flags) == []
    assert files.read(CHANNELS) == "4\n"


@pytest.mark.parametrize(
    ("path", "size"),
    [
        pytest.param(OFFLOADING, 4096, id="sysfs"),
        pytest.param("/sys/devices/system/node/online", 4096, id="sysfs, read-only"),
        pytest.param("/proc/vmstat", 0, id="procfs"),
        pytest.param(BALANCING, 0, id="sysctl"),
    ],
)
def test_a_files_size_is_its_file_systems_constant(files: Files, path: str, size: int) -> None:
    assert files.size(path) == size


@pytest.mark.parametrize(
    ("path", "flags", "expected"),
    [
        pytest.param(f"{PARAMETERS}/sg_elems", 0, ENOENT, id="missing knob"),
        pytest.param(f"{PARAMETERS}/sg_elems", os.O_CREAT, EACCES, id="missing knob, asked to create it"),
        pytest.param("/proc/sys/kernel/nothing", os.O_CREAT, EACCES, id="missing sysctl, asked to create it"),
        pytest.param("/sys/devices/system/node/online", 0, EACCES, id="0444 in sysfs, even for root"),
        pytest.param("/proc/sys/kernel/osrelease", 0, EACCES, id="0444 sysctl, even for root"),
    ],
)
def test_opening_for_a_write_is_refused(files: Files, path: str, flags: int, expected: int) -> None:
    assert errno_of(lambda: files.write(path, flags=flags)) == expected


def test_procfs_opens_for_a_write_and_refuses_the_write(files: Files) -> None:
    assert files.write("/proc/vmstat") == []
    assert errno_of(lambda: files.write("/proc/vmstat", b"0")) == EIO


@pytest.fixture(params=["in process", "mounted"])
def nobodys_files(request: pytest.FixtureRequest) -> Files:
    if request.param == "in process":
        return InProcess(HostConfig(), uid=NOBODY)
    host: FakeHost = request.getfixturevalue("host")
    return Mounted(host, uid=NOBODY)


@pytest.mark.parametrize("path", [OFFLOADING, MIGRATED, DEMOTION, BALANCING])
def test_nobody_reads_and_may_not_open_for_a_write(nobodys_files: Files, path: str) -> None:
    assert nobodys_files.read(path).endswith("\n")
    assert errno_of(lambda: nobodys_files.write(path)) == EACCES


@pytest.fixture(scope="module")
def restricted_host() -> Iterator[FakeHost]:
    config = HostConfig(other_migrator=True, read_only=True, cap_sys_admin=False)
    with FakeHost(config, real_time=False) as host:
        yield host


@pytest.fixture(params=["in process", "mounted"])
def read_only_files(request: pytest.FixtureRequest) -> Files:
    if request.param == "in process":
        return InProcess(HostConfig(read_only=True))
    host: FakeHost = request.getfixturevalue("restricted_host")
    return Mounted(host)


@pytest.mark.parametrize("path", [OFFLOADING, DEMOTION, BALANCING, "/sys/devices/system/node/online"])
def test_a_read_only_mount_refuses_at_the_open(read_only_files: Files, path: str) -> None:
    assert read_only_files.read(path).endswith("\n")
    assert errno_of(lambda: read_only_files.write(path)) == EROFS


def test_a_read_only_mount_creates_nothing_and_says_why(read_only_files: Files) -> None:
    assert errno_of(lambda: read_only_files.write(f"{PARAMETERS}/sg_elems", flags=os.O_CREAT)) == EROFS


def test_the_hosts_refusals_reach_whoever_drives_it(restricted_host: FakeHost) -> None:
    assert errno_of(lambda: restricted_host.do(Drift(OFFLOADING, "1"))) == EBUSY


def test_a_mounted_kernel_asks_for_cap_sys_admin_at_the_write() -> None:
    with FakeHost(HostConfig(cap_sys_admin=False), real_time=False) as host:
        assert errno_of(lambda: Mounted(host).write(BALANCING, b"2")) == EPERM
        assert Mounted(host).read(BALANCING) == "1\n"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(lambda folder: (folder / "new").mkdir(), EPERM, id="mkdir"),
        pytest.param(lambda folder: (folder / "new").touch(), EACCES, id="touch"),
        pytest.param(lambda folder: (folder / "nr_dma_chan").unlink(), EPERM, id="unlink"),
        pytest.param(lambda folder: (folder / "nr_dma_chan").rename(folder / "new"), EPERM, id="rename"),
        pytest.param(lambda folder: (folder / "new").symlink_to("nr_dma_chan"), EPERM, id="symlink"),
        pytest.param(lambda folder: (folder / "new").hardlink_to(folder / "nr_dma_chan"), EPERM, id="hard link"),
        pytest.param(lambda folder: os.mkfifo(folder / "new"), EPERM, id="mknod"),
        pytest.param(lambda folder: folder.rmdir(), EPERM, id="rmdir"),
    ],
)
def test_nothing_is_made_or_removed_in_a_kernel_folder(
    host: FakeHost, change: Callable[[Path], object], expected: int
) -> None:
    folder = host.path(PARAMETERS)
    assert errno_of(lambda: change(folder)) == expected
    assert names(folder) == [
        "folios_failures",
        "folios_migrated",
        "nr_dma_chan",
        "offloading",
        "reason_mask",
    ]


def test_truncating_takes_no_effect(host: FakeHost) -> None:
    stores = host.stores

    os.truncate(host.path(CHANNELS), 0)

    assert Mounted(host).read(CHANNELS) == "1\n"
    assert host.stores == stores


def test_modes_are_as_sysfs_has_them(host: FakeHost) -> None:
    modes = {path: stat.filemode(host.path(path).stat().st_mode) for path in (OFFLOADING, "/proc/vmstat", PARAMETERS)}

    assert modes == {OFFLOADING: "-rw-r--r--", "/proc/vmstat": "-r--r--r--", PARAMETERS: "drwxr-xr-x"}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda folder: (folder / "new").mkdir(), id="mkdir"),
        pytest.param(lambda folder: (folder / "nr_dma_chan").unlink(), id="unlink"),
    ],
)
def test_nobody_lacks_the_right_to_change_a_kernel_folder(host: FakeHost, change: Callable[[Path], object]) -> None:
    with user(NOBODY):
        assert errno_of(lambda: change(host.path(PARAMETERS))) == EACCES


@pytest.mark.parametrize(("uid", "may"), [(0, True), (NOBODY, False)], ids=["root", "nobody"])
def test_access_tells_what_an_open_would(host: FakeHost, uid: int, may: bool) -> None:
    with user(uid):
        assert os.access(host.path(OFFLOADING), os.W_OK, effective_ids=True) is may
        assert os.access(host.path(OFFLOADING), os.R_OK, effective_ids=True)


def test_a_channels_driver_is_found_through_links(host: FakeHost) -> None:
    driver = host.path("/sys/class/dma/dma0chan0/device/driver")

    assert driver.readlink().name == "ptdma"
    assert driver.resolve() == host.path("/sys/bus/pci/drivers/ptdma")


def test_a_read_after_a_rewind_is_fresh(host: FakeHost) -> None:
    descriptor = os.open(host.path(CHANNELS), os.O_RDONLY)
    try:
        first, at_end = os.read(descriptor, 100), os.read(descriptor, 100)
        host.do(Drift(CHANNELS, "16"))
        os.lseek(descriptor, 0, os.SEEK_SET)
        again = os.read(descriptor, 100)
    finally:
        os.close(descriptor)

    assert (first, at_end, again) == (b"1\n", b"", b"16\n")


def test_an_unload_makes_mounted_files_vanish_at_once(host: FakeHost) -> None:
    path = host.path(OFFLOADING)
    there = path.exists()

    host.do(Unload())
    gone = not path.exists() and not host.path("/sys/module/dcbm").exists()
    host.do(Load())

    assert (there, gone, path.exists()) == (True, True, True)


def test_an_unload_is_refused_while_on_and_mounted_files_stay(host: FakeHost) -> None:
    Mounted(host).write(OFFLOADING, b"1")

    assert errno_of(lambda: host.do(Unload())) == EWOULDBLOCK
    assert Mounted(host).read(OFFLOADING) == "1\n"


def test_a_descriptor_held_over_an_unload_answers_enodev(host: FakeHost) -> None:
    descriptor = os.open(host.path(OFFLOADING), os.O_RDWR)
    try:
        host.do(Unload())
        host.do(Load())
        errors = [errno_of(lambda: os.read(descriptor, 10)), errno_of(lambda: os.write(descriptor, b"1"))]
    finally:
        os.close(descriptor)

    assert errors == [ENODEV, ENODEV]


def test_a_reboot_loses_mounted_state_and_changes_the_boot_id(host: FakeHost) -> None:
    files = Mounted(host)
    boot_id = files.read("/proc/sys/kernel/random/boot_id")
    prepare(files)

    host.do(Reboot())

    assert files.read("/proc/sys/kernel/random/boot_id") != boot_id
    assert [files.read(path) for path in (OFFLOADING, CHANNELS, BALANCING)] == ["0\n", "1\n", "1\n"]


def test_mounted_counters_move_as_the_models(host: FakeHost) -> None:
    host.do(SetWorkloads((Workload(MigrationReason.MEMPOLICY_MBIND, 1000, folio_pages=4),)))
    Mounted(host).write(OFFLOADING, b"1")
    host.do(Advance(1.5))

    assert Mounted(host).read(MIGRATED) == "1500\n"
    assert "pgmigrate_success 6000\n" in Mounted(host).read("/proc/vmstat")


def test_a_mounted_file_longer_than_a_small_read_is_whole(host: FakeHost) -> None:
    with host.path("/proc/vmstat").open("rb", buffering=0) as stream:
        pieces = list(iter(lambda: stream.read(7), b""))

    assert b"".join(pieces) == host.path("/proc/vmstat").read_bytes()


def test_the_control_channel_changes_the_world_around_the_kernel(host: FakeHost) -> None:
    host.do(SetPressure("memory", 0.5))
    host.do(SetOtherMigrator(registered=True))
    before = host.config.engines
    host.do(SetEngines(()))
    channels = names(host.path("/sys/class/dma"))
    host.do(SetEngines(before))

    assert channels == []
    assert Mounted(host).read("/proc/pressure/memory").startswith("some avg10=50.00")
    assert errno_of(lambda: Mounted(host).write(OFFLOADING, b"1")) == EBUSY


def test_writers_at_the_same_time_are_taken_one_by_one(host: FakeHost) -> None:
    already = len(host.stores)

    def write(number: int) -> list[int]:
        return Mounted(host).write(CHANNELS, *[str(number).encode()] * 25)

    with ThreadPoolExecutor(8) as writers:
        written = list(writers.map(write, range(1, 9)))

    assert written == [[1] * 25] * 8
    assert sorted(host.stores[already:]) == sorted([("nr_dma_chan", str(n)) for n in range(1, 9)] * 25)


def test_any_number_of_blocked_calls_leaves_room_for_others(host: FakeHost) -> None:
    """Of its own accord libfuse serves ten requests at a time."""
    files = Mounted(host)
    host.do(SetEngines((DmaEngine("ptdma", hangs=True),)))
    files.write(OFFLOADING, b"1")
    host.do(Migrate(Workload(MigrationReason.SYSCALL_OR_CPUSET, 0), 512))

    with ThreadPoolExecutor(40) as threads:
        turn_off = threads.submit(files.write, OFFLOADING, b"0")
        host.do(AwaitBlocked(OFFLOADING))
        readers = [threads.submit(files.read, CHANNELS) for _ in range(30)]
        host.do(AwaitBlocked(CHANNELS))
        answer = threads.submit(files.read, "/sys/module/dcbm/refcnt").result(30)
        host.do(EndBatches())

        assert [reader.result(30) for reader in readers] == ["1\n"] * 30
    assert (answer, turn_off.result()) == ("1\n", [1])
    host.do(SetEngines(host.config.engines))


def test_a_stall_ends_by_itself_in_real_time() -> None:
    slow = DmaEngine("ptdma", copy_seconds=0.2)
    with FakeHost(HostConfig(engines=(slow,))) as host:
        files = Mounted(host)
        files.write(OFFLOADING, b"1")
        host.do(Migrate(Workload(MigrationReason.SYSCALL_OR_CPUSET, 0), 512))

        files.write(OFFLOADING, b"0")

        assert files.read(MIGRATED) == "512\n"


def test_a_host_stops_although_calls_are_blocked() -> None:
    with FakeHost(HostConfig(engines=(DmaEngine("ptdma", hangs=True),))) as host, ThreadPoolExecutor() as threads:
        files = Mounted(host)
        files.write(OFFLOADING, b"1")
        host.do(Migrate(Workload(MigrationReason.SYSCALL_OR_CPUSET, 0), 512))
        turn_off = threads.submit(errno_of, lambda: files.write(OFFLOADING, b"0"))
        host.do(AwaitBlocked(OFFLOADING))

        host.stop()

        assert turn_off.result(30) in {EIO, ECONNABORTED}  # our answer, or that of a connection which is no more


def test_stores_and_snapshot_are_seen_from_outside(host: FakeHost) -> None:
    already = len(host.stores)
    Mounted(host).write(CHANNELS, b"8\n")
    host.do(Drift(BALANCING, "2"))

    assert host.stores[already:] == [("nr_dma_chan", "8"), ("numa_balancing", "2")]
    assert (host.snapshot().nr_dma_chan, host.snapshot().numa_balancing) == (8, 2)


def test_a_mounted_kernel_without_the_series_has_no_driver_folder() -> None:
    with FakeHost(HostConfig(dialect=Dialect.NO_SERIES)) as host:
        assert "dcbm" not in names(host.path("/sys/module"))
        assert Mounted(host).read(DEMOTION) == "false\n"


def test_a_host_in_real_time_advances_by_itself() -> None:
    busy = Workload(MigrationReason.SYSCALL_OR_CPUSET, 1e9)
    with FakeHost(HostConfig(workloads=(busy,))) as host:
        before = host.snapshot().vmstat["pgmigrate_success"]

        assert host.snapshot().vmstat["pgmigrate_success"] > before


def wait_for_end(pid: int) -> None:
    descriptor = os.pidfd_open(pid)
    try:
        assert select.select([descriptor], [], [], 30)[0], f"process {pid} does not end"
    finally:
        os.close(descriptor)


def test_leaving_the_context_leaves_nothing_behind() -> None:
    with FakeHost() as host:
        home, root, pid = host.home, host.root, host.pid
        was_mounted = is_mounted(root)

    assert was_mounted
    assert not is_mounted(root)
    assert not home.exists()
    assert not Path(f"/proc/{pid}").exists()


def test_a_killed_child_leaves_a_dead_mount_that_is_taken_away() -> None:
    with FakeHost() as host:
        root, home = host.root, host.home
        os.kill(host.pid, signal.SIGKILL)
        wait_for_end(host.pid)
        dead = errno_of(lambda: names(root))
        with pytest.raises(FakeHostError, match="is gone"):
            host.snapshot()

    assert dead == ENOTCONN
    assert not is_mounted(root)
    assert not home.exists()


def test_a_dead_mount_does_not_stop_the_next_start() -> None:
    with FakeHost() as host:
        os.kill(host.pid, signal.SIGKILL)
        wait_for_end(host.pid)
        ready, writer = os.pipe()
        again = subprocess.Popen(
            [sys.executable, "-m", "tests.fakekernel", f"--mount={host.root}", f"--ready-fd={writer}"],
            cwd=PROJECT,
            pass_fds=[writer],
        )
        os.close(writer)
        with os.fdopen(ready) as stream, again:
            heard = stream.readline()
            shown = Mounted(host).read(OFFLOADING)
            again.terminate()

    assert (heard, shown, again.returncode) == ("ready\n", "0\n", 0)


def test_the_child_ends_and_unmounts_when_its_parent_is_killed() -> None:
    script = """
import os, signal
from tests.fakekernel.host import FakeHost
host = FakeHost()
host.start()
print(host.pid, host.root, flush=True)
signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=PROJECT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        pid, root = parent.stdout.readline().split()
        parent.kill()
        parent.wait()
        wait_for_end(int(pid))

    still_mounted = is_mounted(Path(root))
    Path(root).rmdir()
    for leftover in Path(root).parent.iterdir():
        leftover.unlink()
    Path(root).parent.rmdir()
    assert not still_mounted


def test_a_host_ends_on_the_command_quit_even_if_a_file_is_open() -> None:
    with FakeHost() as host:
        root, pid = host.root, host.pid
        descriptor = os.open(host.path(OFFLOADING), os.O_RDONLY)

        host.do(Quit())
        wait_for_end(pid)

        assert errno_of(lambda: os.close(descriptor)) == ENOTCONN
        assert not is_mounted(root)


def test_a_host_that_cannot_start_says_why_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    host = FakeHost(HostConfig(dialect=Dialect.V5, built_in=True))

    with pytest.raises(FakeHostError, match="dialect V5 has no built-in form"):
        host.start()

    assert names(tmp_path) == []


def test_a_foreign_mount_is_never_taken_away(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "fakekernel", tmp_path], check=True)
    try:
        detach(tmp_path)

        assert tmp_path.is_mount()
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        pytest.param('{"dialect": "V9"}', "Invalid enum value 'V9' - at `$.dialect`", id="unknown dialect"),
        pytest.param('{"engine": []}', "unknown field `engine`", id="unknown field"),
        pytest.param('{"numa_balancing": 5}', "`int` <= 4 - at `$.numa_balancing`", id="out of range"),
        pytest.param("{", "Input data was truncated", id="no JSON"),
        pytest.param(None, "No such file or directory", id="no file"),
    ],
)
def test_a_wrong_configuration_is_named_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], config: str | None, message: str
) -> None:
    from tests.fakekernel.__main__ import main

    file = tmp_path / "config.json"
    if config is not None:
        file.write_text(config)

    assert main([f"--mount={tmp_path}", f"--config={file}"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_other_commands_pass_while_a_move_is_held_up(host: FakeHost) -> None:
    before = host.config.engines
    host.do(SetEngines((DmaEngine("ptdma", hangs=True),)))
    host.path(OFFLOADING).write_text("1")
    with ThreadPoolExecutor(1) as threads:
        move = threads.submit(host.move_own_pages, MoveOwnPages(MigrationReason.SYSCALL_OR_CPUSET, 0, 1, 8))
        host.do(AwaitInFlight())
        host.do(Advance(10))
        moved = move.result(30)
    host.do(SetEngines(before))

    assert (moved.folios, moved.seconds) == (8, 10)


def test_a_refused_move_raises_what_the_kernel_answers(host: FakeHost) -> None:
    assert errno_of(lambda: host.move_own_pages(MoveOwnPages(MigrationReason.SYSCALL_OR_CPUSET, 0, 9, 8))) == ENODEV


def test_stat_and_a_listing_tell_a_folder_that_came_back_from_the_one_before(host: FakeHost) -> None:
    driver = host.path("/sys/module/dcbm")

    def numbers() -> list[int]:
        with os.scandir(driver.parent) as entries:
            listed = [entry.inode() for entry in entries if entry.name == "dcbm"]
        return [driver.stat().st_ino, *listed]

    before = numbers()
    host.do(Unload())
    host.do(Load())
    after = numbers()

    assert len({*before, *after}) == 2
    assert before[0] == before[1] != after[0]


def test_a_mounted_write_may_answer_less_than_it_was_given_and_never_more() -> None:
    with FakeHost(HostConfig(dialect=Dialect.V1), real_time=False) as host:
        descriptor = os.open(host.path("/sys/kernel/dcbm/offloading"), os.O_WRONLY)
        try:
            answers = [os.write(descriptor, data) for data in (b"1\n", b"0000001\n")]
        finally:
            os.close(descriptor)

        assert answers == [2, 4]
