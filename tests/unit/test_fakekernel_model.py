# SPDX-License-Identifier: Apache-2.0
"""The fake kernel's life: boot, load, unload, reboot, other parties, and what its files are.

What a write answers stands in test_fakekernel_fuse.py, where the model and the mounted files are compared.
"""

from __future__ import annotations

import gzip
import os
import random
from collections.abc import Callable
from errno import EACCES, EAGAIN, EBUSY, EEXIST, EINVAL, ENODEV, ENOENT, EPERM

import pytest

from numamigration_api.vocabulary import Dialect, MigrationReason
from tests.fakekernel.config import REASONS_7_2, DmaEngine, HostConfig, NumaNode, Workload
from tests.fakekernel.control import RunningKernel, answer
from tests.fakekernel.model import FakeKernel
from tests.fakekernel.parsing import KernelError

pytestmark = pytest.mark.uncounted

PARAMETERS = "/sys/module/dcbm/parameters"
OFFLOADING_OF = {Dialect.V5: "/sys/module/dcbm/offloading", Dialect.V6: f"{PARAMETERS}/offloading"}
MAINLINE = (
    "/sys/kernel/mm/numa/demotion_enabled",
    "/proc/sys/kernel/numa_balancing",
    "/proc/sys/kernel/numa_balancing_promote_rate_limit_MBps",
    "/proc/sys/kernel/random/boot_id",
    "/proc/sys/kernel/osrelease",
    "/proc/vmstat",
    "/proc/cpuinfo",
    "/proc/pressure/memory",
    "/sys/devices/system/node/online",
)


def boot(config: HostConfig | None = None) -> FakeKernel:
    return FakeKernel(config or HostConfig(), random.Random(1))


@pytest.fixture
def kernel() -> FakeKernel:
    return boot()


def read(kernel: FakeKernel, path: str) -> str:
    return kernel.read(kernel.open(path, os.O_RDONLY)).decode()


def errno_of(call: Callable[[], object]) -> int | None:
    """Return what the call fails with; None when it succeeds."""
    try:
        call()
    except KernelError as error:
        return error.errno
    return None


def exists(kernel: FakeKernel, path: str) -> bool:
    return errno_of(lambda: kernel.stat(path)) is None


def test_a_freshly_loaded_driver_is_off_with_one_channel_and_every_reason(kernel: FakeKernel) -> None:
    shown = {name: read(kernel, f"{PARAMETERS}/{name}") for name in kernel.listdir(PARAMETERS)}

    assert shown == {
        "folios_failures": "0\n",
        "folios_migrated": "0\n",
        "nr_dma_chan": "1\n",
        "offloading": "0\n",
        "reason_mask": ",".join((*REASONS_7_2, "never_migrated")) + "\n",
    }


def test_v5_has_its_four_files_in_the_modules_own_folder() -> None:
    kernel = boot(HostConfig(dialect=Dialect.V5))
    knobs = ("folios_failures", "folios_migrated", "nr_dma_chan", "offloading")

    assert set(knobs) <= set(kernel.listdir("/sys/module/dcbm"))
    assert not {"parameters", "reason_mask"} & set(kernel.listdir("/sys/module/dcbm"))
    assert [read(kernel, f"/sys/module/dcbm/{name}") for name in knobs] == ["0\n", "0\n", "1\n", "0\n"]
    assert {kernel.stat(f"/sys/module/dcbm/{name}").mode & 0o777 for name in knobs} == {0o644}


def test_v5_has_no_built_in_form() -> None:
    with pytest.raises(ValueError, match="V5 has no built-in form"):
        boot(HostConfig(dialect=Dialect.V5, built_in=True))


@pytest.mark.parametrize("dialect", [Dialect.V5, Dialect.V6])
def test_a_driver_may_take_fewer_channels_and_only_a_write_tells(dialect: Dialect) -> None:
    kernel = boot(HostConfig(dialect=dialect, channels_max=1))
    channels = OFFLOADING_OF[dialect].replace("offloading", "nr_dma_chan")

    kernel.drift(channels, "1")

    assert errno_of(lambda: kernel.drift(channels, "2")) == EINVAL


@pytest.mark.parametrize("dialect", [Dialect.V5, Dialect.V6])
def test_a_module_that_is_going_away_is_not_turned_on(dialect: Dialect) -> None:
    kernel = boot(HostConfig(dialect=dialect))
    offloading = OFFLOADING_OF[dialect]

    kernel.begin_unload()

    assert read(kernel, "/sys/module/dcbm/initstate") == "going\n"
    assert errno_of(lambda: kernel.drift(offloading, "1")) == ENODEV
    assert read(kernel, offloading) == "0\n"
    kernel.unload()
    assert not exists(kernel, offloading)


def test_a_loaded_module_has_the_files_of_every_module_beside_its_own(kernel: FakeKernel) -> None:
    names = kernel.listdir("/sys/module/dcbm")

    assert names == [
        *("coresize", "holders", "initsize", "initstate", "notes", "parameters", "refcnt", "sections", "taint"),
        "uevent",
    ]


def test_a_write_only_sysfs_file_is_not_opened_for_reading_even_by_root(kernel: FakeKernel) -> None:
    assert errno_of(lambda: kernel.open("/sys/module/dcbm/uevent", os.O_RDONLY)) == EACCES
    kernel.open("/sys/module/dcbm/uevent", os.O_WRONLY)


def test_a_7_2_kernel_knows_ten_reasons() -> None:
    kernel = boot(HostConfig(reason_names=REASONS_7_2))

    assert read(kernel, f"{PARAMETERS}/reason_mask") == ",".join(REASONS_7_2) + "\n"


def test_a_kernel_without_the_series_has_the_mainline_files_alone() -> None:
    kernel = boot(HostConfig(dialect=Dialect.NO_SERIES))

    assert "dcbm" not in kernel.listdir("/sys/module")
    assert all(exists(kernel, path) for path in MAINLINE)


def test_a_kernel_without_the_series_has_no_driver_to_load() -> None:
    assert errno_of(lambda: boot(HostConfig(dialect=Dialect.NO_SERIES)).load()) == ENOENT


@pytest.mark.parametrize("dialect", [Dialect.V5, Dialect.V6])
def test_turning_on_fails_while_another_migrator_is_registered(dialect: Dialect) -> None:
    kernel = boot(HostConfig(dialect=dialect, other_migrator=True))

    assert errno_of(lambda: kernel.drift(OFFLOADING_OF[dialect], "1")) == EBUSY
    assert read(kernel, OFFLOADING_OF[dialect]) == "0\n"


def test_turning_off_what_is_off_succeeds_although_another_migrator_is_registered() -> None:
    kernel = boot(HostConfig(other_migrator=True))

    kernel.drift(f"{PARAMETERS}/offloading", "0")

    assert read(kernel, f"{PARAMETERS}/offloading") == "0\n"


def test_turning_on_works_once_the_other_migrator_is_gone() -> None:
    kernel = boot(HostConfig(other_migrator=True))

    kernel.set_other_migrator(registered=False)
    kernel.drift(f"{PARAMETERS}/offloading", "1")

    assert read(kernel, f"{PARAMETERS}/offloading") == "1\n"


def test_no_second_migrator_registers_while_offload_is_on(kernel: FakeKernel) -> None:
    kernel.drift(f"{PARAMETERS}/offloading", "1")

    with pytest.raises(ValueError, match="turn it off first"):
        kernel.set_other_migrator(registered=True)


def test_turning_on_needs_no_channel() -> None:
    kernel = boot(HostConfig(engines=()))

    kernel.drift(f"{PARAMETERS}/offloading", "1")

    assert read(kernel, f"{PARAMETERS}/offloading") == "1\n"


def test_every_handler_call_is_kept_in_order_refused_ones_too(kernel: FakeKernel) -> None:
    kernel.drift(f"{PARAMETERS}/nr_dma_chan", "8\n")
    errno_of(lambda: kernel.drift(f"{PARAMETERS}/nr_dma_chan", "99"))
    kernel.drift("/proc/sys/kernel/numa_balancing", "2")

    assert kernel.stores == [("nr_dma_chan", "8"), ("nr_dma_chan", "99"), ("numa_balancing", "2")]


def test_an_unload_is_refused_while_on(kernel: FakeKernel) -> None:
    kernel.drift(f"{PARAMETERS}/offloading", "1")

    assert errno_of(kernel.unload) == EAGAIN
    assert read(kernel, "/sys/module/dcbm/refcnt") == "1\n"


def test_an_unload_takes_the_files_away_and_a_load_brings_fresh_ones(kernel: FakeKernel) -> None:
    kernel.drift(f"{PARAMETERS}/nr_dma_chan", "8")

    kernel.unload()
    after_unload = exists(kernel, "/sys/module/dcbm")
    kernel.load()

    assert not after_unload
    assert read(kernel, f"{PARAMETERS}/nr_dma_chan") == "1\n"


@pytest.mark.parametrize("reload", [False, True], ids=["unloaded", "loaded again"])
def test_a_file_held_open_over_an_unload_answers_enodev(kernel: FakeKernel, reload: bool) -> None:
    held = kernel.open(f"{PARAMETERS}/offloading", os.O_RDWR)
    kernel.unload()
    if reload:
        kernel.load()

    for use in (lambda: kernel.read(held), lambda: kernel.write(held, b"1"), lambda: kernel.write(held, b"")):
        assert errno_of(use) == ENODEV


def test_a_loaded_driver_is_not_loaded_twice(kernel: FakeKernel) -> None:
    assert errno_of(kernel.load) == EEXIST


def test_a_driver_that_nobody_loaded_shows_only_in_the_kernel_configuration() -> None:
    kernel = boot(HostConfig(loaded=False))

    assert not exists(kernel, "/sys/module/dcbm")
    packed = kernel.read(kernel.open("/proc/config.gz", os.O_RDONLY))
    assert b"CONFIG_DCBM_DMA=m\n" in gzip.decompress(packed)


def test_a_built_in_driver_has_no_refcnt_and_is_never_unloaded() -> None:
    kernel = boot(HostConfig(built_in=True, loaded=False))

    assert kernel.listdir("/sys/module/dcbm") == ["parameters", "uevent"]
    assert errno_of(kernel.unload) == ENOENT


def test_a_host_may_come_without_its_kernel_configuration() -> None:
    assert not exists(boot(HostConfig(kernel_config=False)), "/proc/config.gz")


def test_a_reboot_loses_every_setting_and_changes_the_boot_id(kernel: FakeKernel) -> None:
    before = kernel.snapshot()
    kernel.drift(f"{PARAMETERS}/nr_dma_chan", "8")
    kernel.drift(f"{PARAMETERS}/reason_mask", "demotion")
    kernel.drift(f"{PARAMETERS}/offloading", "1")
    for path, text in zip(MAINLINE[:3], ("1", "3", "10"), strict=True):
        kernel.drift(path, text)

    kernel.reboot()

    after = kernel.snapshot()
    assert after.boot_id != before.boot_id
    assert (after.offloading, after.nr_dma_chan, after.reasons) == (False, 1, before.reasons)
    assert (after.demotion_enabled, after.numa_balancing, after.promote_rate_limit) == (False, 1, 65536)


def test_a_reboot_keeps_what_is_not_the_kernels(kernel: FakeKernel) -> None:
    kernel.set_engines([DmaEngine("sdxi")])

    kernel.reboot()

    assert kernel.listdir("/sys/class/dma") == ["dma0chan0"]


def test_two_hosts_never_share_a_boot_id() -> None:
    hosts = (FakeKernel(HostConfig(), random.Random(HostConfig().seed)) for _ in range(2))

    assert len({host.snapshot().boot_id for host in hosts}) == 2


def test_a_channel_links_to_its_device_and_driver(kernel: FakeKernel) -> None:
    channel = "/sys/class/dma/dma2chan0"

    assert kernel.readlink(channel) == "../../devices/pci0000:00/0000:00:03.0/dma/dma2chan0"
    assert kernel.readlink(f"{channel}/device/driver") == "../../../bus/pci/drivers/ptdma"
    assert kernel.listdir(f"{channel}/device/driver") == []
    assert read(kernel, f"{channel}/device/numa_node") == "1\n"


def test_channel_statistics_stay_zero_and_in_use_tells_of_other_clients_only() -> None:
    kernel = boot(HostConfig(engines=(DmaEngine("ae4dma", channels=2, taken=1),)))
    kernel.drift(f"{PARAMETERS}/offloading", "1")

    names = ("in_use", "memcpy_count", "bytes_transferred")
    shown = [[read(kernel, f"/sys/class/dma/dma0chan{channel}/{name}") for name in names] for channel in (0, 1)]

    assert shown == [["1\n", "0\n", "0\n"], ["0\n", "0\n", "0\n"]]


def test_an_engine_that_cannot_copy_stands_among_the_others() -> None:
    kernel = boot(HostConfig(engines=(DmaEngine("8250_dw", numa_node=None, memcpy=False), DmaEngine("ptdma"))))

    assert kernel.listdir("/sys/class/dma") == ["dma0chan0", "dma1chan0"]
    assert kernel.readlink("/sys/class/dma/dma0chan0/device/driver").endswith("/8250_dw")
    assert not exists(kernel, "/sys/class/dma/dma0chan0/device/numa_node")
    assert read(kernel, "/sys/class/dma/dma1chan0/device/numa_node") == "-1\n"


def test_an_engine_that_behaves_otherwise_is_the_same_device_and_one_that_comes_back_is_not() -> None:
    """As in kernfs: what is made anew has another inode number, and what stays keeps its own."""
    sound, taken, other = DmaEngine("ptdma"), DmaEngine("ptdma", taken=1), DmaEngine("ae4dma")
    kernel = FakeKernel(HostConfig(engines=(sound, sound)), random.Random(1))
    channels = ("/sys/class/dma/dma0chan0", "/sys/class/dma/dma1chan0")

    def inodes() -> list[int]:
        return [kernel.stat(path).inode for path in channels]

    first = inodes()
    kernel.set_engines([taken, other])
    second = inodes()
    kernel.set_engines([])
    kernel.set_engines([sound, sound])
    third = inodes()

    assert (first[0] == second[0], first[1] == second[1]) == (True, False)
    assert not set(third) & {*first, *second}


def test_engines_that_leave_take_their_files_along(kernel: FakeKernel) -> None:
    kernel.set_engines([])

    assert kernel.listdir("/sys/class/dma") == []
    assert kernel.listdir("/sys/devices/pci0000:00") == []


def test_numa_nodes_are_listed_as_the_kernel_lists_them() -> None:
    nodes = (NumaNode(0, "0-3,8-11"), NumaNode(1, "4-7"), NumaNode(2, tier=1), NumaNode(5, "12", memory=False))
    kernel = boot(HostConfig(numa_nodes=nodes))
    folder = "/sys/devices/system/node"

    assert [read(kernel, f"{folder}/{name}") for name in ("online", "has_cpu", "has_memory")] == [
        "0-2,5\n",
        "0-1,5\n",
        "0-2\n",
    ]
    assert [read(kernel, f"{folder}/node{n}/cpulist") for n in (0, 2)] == ["0-3,8-11\n", "\n"]
    assert read(kernel, f"{folder}/node2/distance") == "30 30 10 30\n"


def test_a_counter_this_kernel_lacks_is_absent_not_zero() -> None:
    shown = read(boot(HostConfig(absent_counters=("pgpromote_candidate",))), "/proc/vmstat")

    assert "pgpromote_candidate " not in shown
    assert "pgpromote_success 0\n" in shown


def test_a_reader_in_pieces_sees_one_moment_and_a_rewind_is_fresh(kernel: FakeKernel) -> None:
    handle = kernel.open(f"{PARAMETERS}/nr_dma_chan", os.O_RDONLY)
    first = kernel.read(handle, size=1)
    kernel.drift(f"{PARAMETERS}/nr_dma_chan", "16")

    rest = kernel.read(handle, size=100, offset=1)

    assert (first, rest) == (b"1", b"\n")
    assert kernel.read(handle) == b"16\n"


def test_balancing_asks_for_cap_sys_admin_at_the_write() -> None:
    kernel = boot(HostConfig(cap_sys_admin=False))
    handle = kernel.open("/proc/sys/kernel/numa_balancing", os.O_WRONLY, kernel.agent())

    assert errno_of(lambda: kernel.write(handle, b"2")) == EPERM
    assert read(kernel, "/proc/sys/kernel/numa_balancing") == "1\n"


def test_only_balancing_asks_for_cap_sys_admin() -> None:
    kernel = boot(HostConfig(cap_sys_admin=False))

    for path in (f"{PARAMETERS}/offloading", MAINLINE[0], MAINLINE[2]):
        kernel.write(kernel.open(path, os.O_WRONLY, kernel.agent()), b"1")

    assert len(kernel.stores) == 3


def test_another_process_of_the_host_writes_whatever_the_agent_may_not() -> None:
    kernel = boot(HostConfig(cap_sys_admin=False, read_only=True))

    kernel.drift("/proc/sys/kernel/numa_balancing", "2")

    assert read(kernel, "/proc/sys/kernel/numa_balancing") == "2\n"


def test_drift_creates_no_file(kernel: FakeKernel) -> None:
    assert errno_of(lambda: kernel.drift(f"{PARAMETERS}/sg_elems", "1")) == ENOENT


def test_a_path_may_take_any_way_through_links(kernel: FakeKernel) -> None:
    roundabout = "/sys/class/dma/dma0chan0/../../../../module/./dcbm/parameters/nr_dma_chan"

    with pytest.raises(KernelError):  # dma0chan0 is a link, so .. leads up from its device
        kernel.open(roundabout, os.O_RDONLY)
    assert read(kernel, "/sys/class/dma/dma0chan0/device/../0000:00:03.0/numa_node") == "1\n"


def test_creating_below_a_missing_folder_is_enoent(kernel: FakeKernel) -> None:
    assert errno_of(lambda: kernel.open("/sys/module/other/parameters/x", os.O_WRONLY | os.O_CREAT)) == ENOENT


def test_a_root_only_sysctl_is_closed_to_others_before_any_write(kernel: FakeKernel) -> None:
    assert (
        errno_of(lambda: kernel.open("/proc/sys/kernel/numa_balancing", os.O_WRONLY, kernel.agent(uid=65534))) == EACCES
    )


def test_time_is_caught_up_before_each_look() -> None:
    busy = Workload(MigrationReason.SYSCALL_OR_CPUSET, 50)
    running = RunningKernel(boot(HostConfig(workloads=(busy,))), clock=iter([100.0, 102.0, 103.5]).__next__)

    seen = []
    for _ in range(2):
        with running as kernel:
            seen.append(kernel.snapshot().vmstat["pgmigrate_success"])

    assert seen == [100, 175]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        pytest.param(b"nonsense", "JSON is malformed", id="no JSON"),
        pytest.param(b'{"do": "fly"}', "Invalid value 'fly'", id="unknown command"),
        pytest.param(b'{"do": "drift"}', "missing required field `path`", id="missing field"),
        pytest.param(b'{"do": "advance", "seconds": -1}', "`float` >= 0", id="time runs forward only"),
        pytest.param(
            b'{"do": "setWorkloads", "workloads": [{"reason": "x", "folios_per_second": 1}]}',
            "Invalid enum value 'x'",
            id="unknown reason",
        ),
    ],
)
def test_a_wrong_control_line_is_answered_with_what_is_wrong(line: bytes, message: str) -> None:
    reply = answer(RunningKernel(boot(), clock=None), line)

    assert message in reply.message
    assert reply.errno == 0


def test_a_kernels_refusal_comes_back_as_errno() -> None:
    running = RunningKernel(boot(), clock=None)

    reply = answer(running, b'{"do": "drift", "path": "/proc/vmstat", "text": "1"}')

    assert (reply.errno, reply.message) == (5, "[Errno 5] Input/output error")
