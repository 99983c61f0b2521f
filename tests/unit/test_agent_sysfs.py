# SPDX-License-Identifier: Apache-2.0
"""The one door to kernel files, on real files mounted by FUSE: a folder of plain files has none of the errnos."""

from __future__ import annotations

import os
from collections.abc import Iterator
from errno import EBUSY, EINVAL, EIO, EROFS
from pathlib import Path

import pytest

from numamigration_agent.kernel.codecs import UInt, Value
from numamigration_agent.kernel.dialects import knobs_of
from numamigration_agent.kernel.probe import probe, probe_host
from numamigration_agent.kernel.sysfs import Absent, Denied, Present, Sysfs
from numamigration_api.vocabulary import Dialect
from tests.fakekernel.config import HostConfig
from tests.fakekernel.control import Unload
from tests.fakekernel.host import FakeHost

KNOB = {knob.field: knob for knob in knobs_of(Dialect.V6)}
CHANNELS, ENGINE = KNOB["offload.channels"], KNOB["offload.engine"]


@pytest.fixture(scope="module")
def host() -> Iterator[FakeHost]:
    with FakeHost(HostConfig(other_migrator=True), real_time=False) as host:
        yield host


@pytest.fixture
def sysfs(host: FakeHost) -> Sysfs:
    return Sysfs(host.root)


def test_a_value_is_written_once_as_a_whole_and_read_freshly(host: FakeHost, sysfs: Sysfs) -> None:
    stores = len(host.stores)

    assert sysfs.write(CHANNELS, Value("16")) is None
    assert sysfs.read(CHANNELS.path) == Present("16\n")
    assert [tuple(store) for store in host.stores[stores:]] == [("nr_dma_chan", "16")]


def test_a_refused_value_is_an_errno_and_the_old_one_stands(sysfs: Sysfs) -> None:
    sysfs.write(CHANNELS, Value("2"))

    assert sysfs.write(CHANNELS, Value("17")) == EINVAL
    assert sysfs.write(ENGINE, Value("1")) == EBUSY
    assert sysfs.read(CHANNELS.path) == Present("2\n")


def test_a_file_that_does_not_exist_is_absent_and_is_not_created(tmp_path: Path) -> None:
    """Promise 2."""
    sysfs = Sysfs(tmp_path)
    folder = tmp_path / "sys/module/dcbm/parameters"
    folder.mkdir(parents=True)

    assert sysfs.read(CHANNELS.path) == Absent()
    assert sysfs.write(CHANNELS, Value("4")) is not None
    assert list(folder.iterdir()) == []


def test_a_write_does_not_cut_a_file_short(tmp_path: Path) -> None:
    """Promise 2: the kernel ignores O_TRUNC, but a wrong mount would not."""
    path = tmp_path / CHANNELS.path.lstrip("/")
    path.parent.mkdir(parents=True)
    path.write_text("12345\n")

    Sysfs(tmp_path).write(CHANNELS, Value("4"))

    assert path.read_text() == "42345\n"


@pytest.mark.parametrize("value", ["", " "])
def test_nothing_is_never_written(sysfs: Sysfs, value: str) -> None:
    """write(2) of nothing succeeds and does nothing; an empty reason_mask would mean none."""
    with pytest.raises(ValueError, match="not a write"):
        sysfs.write(CHANNELS, Value(value))


def test_only_rows_of_the_knob_table_can_be_written(host: FakeHost, sysfs: Sysfs) -> None:
    """Promise 14: also when a program error makes a knob of something else."""
    counter = type(CHANNELS)(
        field="offload.channels",
        group=CHANNELS.group,
        path="/sys/module/dcbm/parameters/folios_migrated",
        codec=UInt(0, 9),
        phase=CHANNELS.phase,
    )
    stores = len(host.stores)

    with pytest.raises(ValueError, match="folios_migrated"):
        sysfs.write(counter, Value("0"))
    assert len(host.stores) == stores


def test_a_folder_in_place_of_a_file_is_denied(sysfs: Sysfs) -> None:
    assert isinstance(sysfs.read("/sys/module/dcbm/parameters"), Denied)


def test_a_read_only_mount_says_so_at_the_write() -> None:
    with FakeHost(HostConfig(read_only=True), real_time=False) as host:
        sysfs = Sysfs(host.root)

        assert sysfs.write(CHANNELS, Value("4")) == EROFS
        assert sysfs.read(CHANNELS.path) == Present("1\n")


def test_a_mounted_host_is_probed_through_its_links(sysfs: Sysfs) -> None:
    facts = probe(sysfs, probe_host(sysfs))

    assert facts.dialect is Dialect.V6
    assert [(row.driver, row.numa_node, row.channels) for row in facts.engines] == [("ptdma", 0, 2), ("ptdma", 1, 2)]
    assert len(facts.host.boot_id) == 36
    assert facts.host.numa_nodes == (("node0", True), ("node1", True), ("node2", False))


def test_no_descriptor_is_kept(host: FakeHost, sysfs: Sysfs) -> None:
    """A file held open over an unload answers ENODEV for ever."""
    probe(sysfs, probe_host(sysfs))
    sysfs.write(CHANNELS, Value("3"))
    open_files = [Path("/proc/self/fd", number) for number in os.listdir("/proc/self/fd")]  # noqa: PTH208

    below = [path for path in open_files if path.is_symlink() and str(path.readlink()).startswith(str(host.root))]
    assert below == []


def test_an_unloaded_driver_is_absent() -> None:
    with FakeHost(HostConfig(), real_time=False) as host:
        sysfs = Sysfs(host.root)
        host.do(Unload())

        assert sysfs.read(CHANNELS.path) == Absent()
        assert sysfs.write(CHANNELS, Value("4")) not in {None, EIO}
        assert probe(sysfs, probe_host(sysfs)).dialect is Dialect.NO_SERIES


def test_a_value_that_is_never_written_is_refused_whoever_asks(host: FakeHost, sysfs: Sysfs) -> None:
    """Promise 5: sg_elems 0 is taken by the kernel, and nobody knows what it does then."""
    segments = next(knob for knob in knobs_of(Dialect.F_EXT) if knob.field == "batch.sgElements")
    stores = len(host.stores)

    with pytest.raises(ValueError, match="sg_elems"):
        sysfs.write(segments, Value("0"))
    assert len(host.stores) == stores
