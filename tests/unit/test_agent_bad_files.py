# SPDX-License-Identifier: Apache-2.0
"""The one door to kernel files, when something else stands behind it: real links, pipes, folders, holes without end."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from numamigration_agent.kernel.codecs import Value
from numamigration_agent.kernel.counters import read_counters
from numamigration_agent.kernel.dialects import knobs_of
from numamigration_agent.kernel.engines import find_engines
from numamigration_agent.kernel.probe import probe, probe_host
from numamigration_agent.kernel.sysfs import LINE_BYTES_MAX, NOT_A_FILE, Denied, Present, Sysfs
from numamigration_api.vocabulary import Dialect
from tests.unit.agent_rig import OFFLOAD, Rig, wish

V6: Final = {knob.field: knob for knob in knobs_of(Dialect.V6)}
CHANNELS: Final = V6["offload.channels"]
OUTSIDE: Final = "SECRET=1\n"
BOOT_ID: Final = "0b5a6b0c-95a2-4ae1-9d4f-5a3c8d7a1f10"
GIB: Final = 1 << 30


class PlainHost:
    """Plain files below a root, beside a file that is none of the agent's business."""

    def __init__(self, folder: Path) -> None:
        self.root, self.outside = folder / "host", folder / "outside"
        folder.mkdir(exist_ok=True)
        self.outside.write_text(OUTSIDE)
        for knob in V6.values():
            self.put(knob.path, "1\n" if knob.field != "demotion.enabled" else "false\n")
        self.put(V6["offload.reasons"].path, "demotion,damon\n")
        self.put(V6["offload.engine"].path, "0\n")
        self.put("/proc/sys/kernel/random/boot_id", f"{BOOT_ID}\n")
        self.put("/sys/module/dcbm/refcnt", "0\n")
        self.put("/proc/vmstat", "pgmigrate_success 7\n")
        device = self.path("/sys/devices/pci0000:00/0000:00:01.0")
        self.put("/sys/devices/pci0000:00/0000:00:01.0/numa_node", "0\n")
        (device / "driver").symlink_to("../../../bus/pci/drivers/ptdma")
        self.put("/sys/devices/pci0000:00/0000:00:01.0/dma/dma0chan0/in_use", "0\n")
        (device / "dma/dma0chan0/device").symlink_to("../..")
        self.path("/sys/class/dma").mkdir(parents=True)
        self.path("/sys/class/dma/dma0chan0").symlink_to("../../devices/pci0000:00/0000:00:01.0/dma/dma0chan0")

    def path(self, name: str) -> Path:
        return self.root / name.lstrip("/")

    def put(self, name: str, text: str) -> None:
        self.path(name).parent.mkdir(parents=True, exist_ok=True)
        self.path(name).write_text(text)


@pytest.fixture
def host(tmp_path: Path) -> PlainHost:
    return PlainHost(tmp_path)


@pytest.fixture
def sysfs(host: PlainHost) -> Sysfs:
    return Sysfs(host.root)


def an_absolute_link(host: PlainHost, path: Path) -> None:
    path.symlink_to(host.outside)


def a_relative_link(host: PlainHost, path: Path) -> None:
    path.symlink_to(os.path.relpath(host.outside, path.parent))


def a_link_to_a_knob(host: PlainHost, path: Path) -> None:
    path.symlink_to(host.path(V6["balancing.promoteRateLimitMBps"].path))


def a_dangling_link(_host: PlainHost, path: Path) -> None:
    path.symlink_to("nowhere")


def a_pipe(_host: PlainHost, path: Path) -> None:
    os.mkfifo(path)


def a_folder(_host: PlainHost, path: Path) -> None:
    path.mkdir()


def a_socket(_host: PlainHost, path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's name has 108 bytes at most
    try:
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).bind(path.name)
    finally:
        os.chdir(here)


NO_FILES: Final = [an_absolute_link, a_relative_link, a_link_to_a_knob, a_dangling_link, a_pipe, a_folder]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("stands", [*NO_FILES, a_socket], ids=lambda stands: stands.__name__)
def test_what_is_no_file_is_neither_read_nor_written_and_nobody_waits_for_it(
    host: PlainHost, sysfs: Sysfs, stands: Callable[[PlainHost, Path], None]
) -> None:
    """Promise 14: no kernel file, link or mount leads a write out of the knob table."""
    path = host.path(CHANNELS.path)
    path.unlink()
    stands(host, path)

    assert not isinstance(sysfs.read(CHANNELS.path), Present)
    assert sysfs.write(CHANNELS, Value("4")) is not None
    assert host.outside.read_text() == OUTSIDE
    assert host.path(V6["balancing.promoteRateLimitMBps"].path).read_text() == "1\n"


def test_a_pipe_that_somebody_reads_takes_no_write(host: PlainHost, sysfs: Sysfs) -> None:
    """Promise 14: it opens at once then, and would take what belongs to the kernel."""
    path = host.path(CHANNELS.path)
    path.unlink()
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert sysfs.write(CHANNELS, Value("4")) == NOT_A_FILE
        assert sysfs.read(CHANNELS.path) == Denied(NOT_A_FILE)
        assert os.read(reader, 10) == b""
    finally:
        os.close(reader)


def test_a_device_takes_no_write_and_is_not_read_without_end(host: PlainHost, sysfs: Sysfs) -> None:
    """Promise 14."""
    device = Sysfs(Path("/dev"))

    assert device.read("/zero") == Denied(NOT_A_FILE)
    with pytest.raises(OSError, match="no regular file") as refused:
        device._store("/zero", b"4")
    assert refused.value.errno == NOT_A_FILE
    assert sysfs.read(CHANNELS.path) == Present("1\n")
    assert host.outside.read_text() == OUTSIDE


@pytest.mark.parametrize("part", ["/sys", "/sys/module", "/sys/module/dcbm", "/sys/module/dcbm/parameters"])
def test_no_folder_on_the_way_to_a_knob_may_be_a_link(tmp_path: Path, part: str) -> None:
    """Promise 14: below a mount of the host's root an absolute link leads into the agent's own file system."""
    host, elsewhere = PlainHost(tmp_path / "one"), PlainHost(tmp_path / "two")
    host.path(part).rename(tmp_path / "away")
    host.path(part).symlink_to(elsewhere.path(part))

    assert Sysfs(host.root).write(CHANNELS, Value("4")) in {errno.ELOOP, errno.ENOTDIR}
    assert elsewhere.path(CHANNELS.path).read_text() == "1\n"


def test_the_root_itself_may_be_reached_by_a_link(tmp_path: Path) -> None:
    host = PlainHost(tmp_path)
    (tmp_path / "link").symlink_to(host.root)

    assert Sysfs(tmp_path / "link").write(CHANNELS, Value("4")) is None
    assert host.path(CHANNELS.path).read_text() == "4\n"


def places(sysfs: Sysfs) -> list[tuple[str, int | None, int]]:
    return [(row.driver, row.numa_node, row.channels) for row in find_engines(sysfs)]


def test_the_kernel_s_own_links_are_followed(sysfs: Sysfs) -> None:
    assert places(sysfs) == [("ptdma", 0, 1)]


@pytest.mark.parametrize("said", ["99999\n", "-7\n", "٤\n", "1_0\n", "9" * 5000, "", "\n", "1\n2\n"])
def test_a_place_that_no_machine_has_is_unknown(host: PlainHost, sysfs: Sysfs, said: str) -> None:
    host.put("/sys/devices/pci0000:00/0000:00:01.0/numa_node", said)

    assert places(sysfs) == [("ptdma", None, 1)]


def test_a_hole_of_a_gib_is_read_no_further_than_a_line(host: PlainHost, sysfs: Sysfs) -> None:
    for path in (CHANNELS.path, "/proc/vmstat", "/proc/cpuinfo", "/proc/config.gz"):
        host.put(path, "")
        os.truncate(host.path(path), GIB)

    reading = sysfs.read(CHANNELS.path)
    facts = probe(sysfs, probe_host(sysfs))
    assert isinstance(reading, Present)
    assert len(reading.text) == LINE_BYTES_MAX
    assert facts.value(CHANNELS) is None
    assert "pages_migrated" not in read_counters(sysfs, Dialect.V6)


def test_names_that_are_no_text_are_told_as_far_as_they_are(host: PlainHost, sysfs: Sysfs) -> None:
    folder = os.fsencode(host.path("/sys/module/dcbm/parameters"))
    Path(os.fsdecode(folder + b"/tur\xffbo\n\x1b[2J")).write_text("1\n")

    assert probe(sysfs, probe_host(sysfs)).unknown_files == ("/sys/module/dcbm/parameters/tur?bo??[2J",)


# --- the whole agent on such files


BAD_CONTENTS: Final = [
    pytest.param(b"", id="empty"),
    pytest.param(b"\n", id="a newline"),
    pytest.param(b"\xff\xfe\x00garbage\x1b[31m\n", id="not UTF-8"),
    pytest.param(b"9" * 100_000, id="huge"),
    pytest.param(b"1\n" * 30, id="many lines"),
    pytest.param("1²\n".encode(), id="no ASCII"),
    pytest.param(b"-1\n", id="out of range"),
    pytest.param(b"010\n", id="octal"),
]
PLACES: Final = ["offload.channels", "offload.reasons", "balancing.mode"]
WISHES: Final = {"offload": wish(OFFLOAD), "balancing": wish({"mode": "Tiering"})}
SWITCHES_ON: Final = {"offload": ("offload.engine", "1\n"), "balancing": ("balancing.mode", "2\n")}


def check_that_only_its_group_failed(host: PlainHost, rig: Rig, name: str) -> None:
    group = V6[name].group
    own = {knob: host.path(knob.path) for knob in V6.values() if knob.group is group and knob.field != name}
    before = {knob: path.read_text() for knob, path in own.items()}
    rig.wish(WISHES)
    rig.pass_time(60)

    # Without the names of the reasons it cannot be told which would be offloaded, and nobody has to look further.
    assert rig.group(group)["state"] == ("Refused" if name == "offload.reasons" else "Failed")
    assert Path(V6[name].path).name in rig.group(group)["message"]
    assert rig.condition("Ready")["status"] == "False"
    assert {knob: path.read_text() for knob, path in own.items()} == before
    (other,) = WISHES.keys() - {group}
    switch, on = SWITCHES_ON[other]
    assert rig.group(other)["state"] == "Ready"
    assert host.path(V6[switch].path).read_text() == on
    assert len(json.dumps(rig.status)) < 10_000
    assert host.outside.read_text() == OUTSIDE


@pytest.mark.parametrize("name", ["offload.engine", "balancing.mode"])
@pytest.mark.parametrize("data", BAD_CONTENTS)
def test_a_knob_that_shows_garbage_fails_its_group_and_no_other(tmp_path: Path, name: str, data: bytes) -> None:
    """Promises 1 and 11: what cannot be read cannot be put back, so it is not written; and the status says which."""
    host = PlainHost(tmp_path)
    host.path(V6[name].path).write_bytes(data)

    check_that_only_its_group_failed(host, Rig(tmp_path / "state", sysfs=Sysfs(host.root)), name)
    assert host.path(V6[name].path).read_bytes() == data


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize(
    "stands", [an_absolute_link, a_link_to_a_knob, a_pipe, a_folder], ids=lambda stands: stands.__name__
)
def test_a_knob_that_is_no_file_fails_its_group_and_no_other(
    tmp_path: Path, name: str, stands: Callable[[PlainHost, Path], None]
) -> None:
    """Promises 11 and 14."""
    host = PlainHost(tmp_path)
    host.path(V6[name].path).unlink()
    stands(host, host.path(V6[name].path))

    check_that_only_its_group_failed(host, Rig(tmp_path / "state", sysfs=Sysfs(host.root)), name)


@pytest.mark.parametrize(
    ("path", "data"),
    [
        pytest.param("/proc/sys/kernel/random/boot_id", b"\xff" * 5000, id="boot id"),
        pytest.param("/proc/sys/kernel/random/boot_id", b"", id="no boot id"),
    ],
)
def test_without_a_boot_id_nothing_is_written_and_the_status_says_why(tmp_path: Path, path: str, data: bytes) -> None:
    """Promise 1."""
    host = PlainHost(tmp_path)
    host.path(path).write_bytes(data)
    rig = Rig(tmp_path / "state", sysfs=Sysfs(host.root))
    rig.wish(WISHES)

    assert host.path(CHANNELS.path).read_text() == "1\n"
    assert rig.condition("Degraded")["reason"] == "BaselineNotSaved"


@pytest.mark.parametrize("stands", [an_absolute_link, a_pipe, a_folder], ids=lambda stands: stands.__name__)
@pytest.mark.parametrize(
    "path",
    [
        *("/proc/vmstat", "/proc/cpuinfo", "/proc/config.gz", "/proc/sys/kernel/osrelease"),
        *("/sys/devices/system/node/node0/cpulist", "/sys/devices/pci0000:00/0000:00:01.0/numa_node"),
        *("/sys/module/dcbm/parameters/folios_migrated", "/sys/class/dma/dma1chan0"),
    ],
)
def test_no_other_kernel_file_can_stop_a_knob(
    tmp_path: Path, path: str, stands: Callable[[PlainHost, Path], None]
) -> None:
    host = PlainHost(tmp_path)
    host.path(path).parent.mkdir(parents=True, exist_ok=True)
    host.path(path).unlink(missing_ok=True)
    stands(host, host.path(path))
    rig = Rig(tmp_path / "state", sysfs=Sysfs(host.root))

    rig.wish({"balancing": WISHES["balancing"]})

    assert rig.group("balancing")["state"] == "Ready"
    assert host.path(V6["balancing.mode"].path).read_text() == "2\n"
