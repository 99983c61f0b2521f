# SPDX-License-Identifier: Apache-2.0
"""What the agent finds out by reading. Folders of plain files stand in only where nothing but names is asked."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Final

import pytest

from numamigration_agent.kernel.counters import parse_vmstat, read_counters
from numamigration_agent.kernel.engines import DmaEngines
from numamigration_agent.kernel.probe import (
    DriverState,
    KernelFacts,
    find_dialect,
    hardware_class,
    parse_cpu_model,
    probe,
    probe_host,
)
from numamigration_agent.kernel.sysfs import READ_BYTES_MAX, Present, Sysfs
from numamigration_api.machinery.records import replace
from numamigration_api.vocabulary import Dialect
from tests.fakekernel.config import DmaEngine, HostConfig, NumaNode
from tests.fakekernel.model import FakeKernel
from tests.unit.agent_rig import FakeSysfs

PARAMETERS: Final = "/sys/module/dcbm/parameters"


def facts_of(config: HostConfig) -> KernelFacts:
    sysfs = FakeSysfs(FakeKernel(config, random.Random(1)))
    return probe(sysfs, probe_host(sysfs))


@pytest.mark.parametrize(
    ("files", "dialect"),
    [
        pytest.param({}, Dialect.NO_SERIES, id="stock kernel"),
        pytest.param({"sys/kernel/dcbm/offloading": 0o664}, Dialect.V1, id="V1"),
        pytest.param(
            {"sys/kernel/dcbm/offloading": 0o664, "sys/kernel/dcbm/nr_dma_chan": 0o664}, Dialect.V2, id="V2 by mode"
        ),
        pytest.param(
            {"sys/kernel/dcbm/offloading": 0o644, "sys/kernel/dcbm/nr_dma_chan": 0o644}, Dialect.V3, id="V3 by mode"
        ),
        pytest.param(
            {"sys/kernel/dcbm/nr_dma_chan": 0o644, "sys/kernel/dcbm/pages_migrated": 0o644},
            Dialect.V3_DEV,
            id="V3-dev",
        ),
        pytest.param(
            {"sys/kernel/dcbm/nr_dma_chan": 0o644, "sys/kernel/dcbm/folios_migrated": 0o644}, Dialect.V4, id="V4"
        ),
        pytest.param({"sys/module/dcbm/offloading": 0o644}, Dialect.V5, id="V5 has no parameters folder"),
        pytest.param({"sys/module/dcbm/parameters/reason_mask": 0o644}, Dialect.V6, id="V6"),
        pytest.param(
            {"sys/module/dcbm/parameters/reason_mask": 0o644, "sys/module/dcbm/parameters/sg_elems": 0o644},
            Dialect.F_MID,
            id="F-mid has V6's files too",
        ),
        pytest.param(
            {"sys/module/dcbm/parameters/sg_elems": 0o644, "sys/module/dcbm/parameters/map_cache": 0o644},
            Dialect.F_EXT,
            id="F-ext has F-mid's files too",
        ),
        pytest.param({"proc/sys/vm/use_mt_copy": 0o644}, Dialect.ZY, id="ZY"),
        pytest.param({"sys/kernel/cpu_mt_copy/offloading": 0o644}, Dialect.V3_PADATA, id="V3-padata"),
    ],
)
def test_the_dialect_is_told_by_the_files_that_are_there(
    tmp_path: Path, files: dict[str, int], dialect: Dialect
) -> None:
    for name, mode in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("0\n")
        path.chmod(mode)

    assert find_dialect(Sysfs(tmp_path)) is dialect


def test_knobs_are_read_with_what_they_hold() -> None:
    facts = facts_of(HostConfig())

    held = {knob.field: facts.value(knob) for knob in facts.knobs}
    assert held["offload.engine"] == "0"
    assert held["offload.channels"] == "1"
    assert held["balancing.mode"] == "1"
    assert held["demotion.enabled"] == "false"


class ReloadedSysfs(FakeSysfs):
    """Kernel files whose driver is loaded anew, with other options, right before one request of many."""

    def __init__(self, kernel: FakeKernel, left: int) -> None:
        super().__init__(kernel)
        self.left = left

    def _load(self, path: str, bytes_max: int) -> bytes:
        self._count()
        return super()._load(path, bytes_max)

    def life(self, path: str) -> int | None:
        self._count()
        return super().life(path)

    def _count(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.kernel.unload()
            self.kernel.load({"nr_dma_chan": "7"})


def test_a_driver_that_is_loaded_anew_in_the_middle_of_a_look_is_seen_as_it_was_or_as_it_is() -> None:
    """Promise 7: values of the former load with the life of this one would become values of before."""
    seen = set[tuple[bool, bool]]()
    for left in range(1, 100):
        kernel = FakeKernel(HostConfig(), random.Random(1))
        kernel.drift(f"{PARAMETERS}/nr_dma_chan", "3")
        kernel.drift(f"{PARAMETERS}/reason_mask", "demotion")
        sysfs = ReloadedSysfs(kernel, left)
        first = sysfs.kernel.stat(PARAMETERS).inode
        facts = probe(sysfs, probe_host(FakeSysfs(kernel)))
        values = [facts.readings[name] for name in ("offload.channels", "offload.reasons")]
        seen.add((facts.lives[PARAMETERS] == first, values == [Present("3\n"), Present("demotion\n")]))
        if sysfs.left > 0:
            break

    assert sysfs.left > 0
    assert seen == {(True, True), (False, False)}


def test_a_stock_kernel_has_the_mainline_knobs_only() -> None:
    facts = facts_of(HostConfig(dialect=Dialect.NO_SERIES))

    assert facts.driver is DriverState.NONE
    assert {knob.group for knob in facts.knobs} == {"balancing", "demotion"}


@pytest.mark.parametrize(
    ("config", "driver"),
    [
        pytest.param(HostConfig(), DriverState.MODULE, id="loaded"),
        pytest.param(HostConfig(built_in=True), DriverState.BUILT_IN, id="no refcnt"),
        pytest.param(HostConfig(loaded=False), DriverState.NOT_LOADED, id="a module, says the configuration"),
        pytest.param(HostConfig(loaded=False, kernel_config=False), DriverState.NONE, id="nobody says"),
        pytest.param(HostConfig(dialect=Dialect.F_EXT, loaded=False), DriverState.NOT_LOADED, id="a fork's module"),
        pytest.param(HostConfig(dialect=Dialect.V4, loaded=False), DriverState.NOT_LOADED, id="V4's module"),
        pytest.param(HostConfig(dialect=Dialect.V4), DriverState.MODULE, id="V4, whose files are elsewhere"),
        pytest.param(HostConfig(dialect=Dialect.ZY), DriverState.BUILT_IN, id="ZY is no module"),
    ],
)
def test_it_is_known_how_the_kernel_has_the_driver(config: HostConfig, driver: DriverState) -> None:
    assert facts_of(config).driver is driver


def test_channels_are_counted_by_driver_and_numa_node_and_engines_for_devices_are_not_usable() -> None:
    engines = (
        DmaEngine("ptdma", numa_node=0),
        DmaEngine("ptdma", numa_node=0),
        DmaEngine("idxd", channels=2, numa_node=1),
        DmaEngine("dw_dmac", channels=8, numa_node=None, memcpy=False),
    )
    facts = facts_of(HostConfig(engines=engines))

    assert tuple(replace(row, life=0) for row in facts.engines) == (
        DmaEngines("dw_dmac", None, 8, "not known to copy memory"),
        DmaEngines("idxd", 1, 2),
        DmaEngines("ptdma", 0, 2),
    )
    assert [row.usable for row in facts.engines] == [False, True, True]
    assert facts.channels_usable == 4


def test_the_hardware_class_tells_model_layout_and_engines_and_no_release() -> None:
    nodes = (NumaNode(0, "0-7"), NumaNode(1, "8-15"), NumaNode(2, tier=1))
    one = facts_of(HostConfig(numa_nodes=nodes, osrelease="7.2.1"))
    other = facts_of(HostConfig(numa_nodes=nodes, osrelease="7.3.0"))

    assert hardware_class(one) == "AMD EPYC 7713 64-Core Processor; 2 NUMA + 1 memory-only; 4 ptdma"
    assert hardware_class(one) == hardware_class(other)


X86: Final = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC 7713 64-Core Processor\nstepping\t: 1\n"
ARM64: Final = (
    "processor\t: 0\nBogoMIPS\t: 2000.00\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
    "CPU variant\t: 0x0\nCPU part\t: 0xd4f\nCPU revision\t: 0\n\n"
)
OTHER_ARM64: Final = ARM64.replace("0xd4f", "0xd0c")


@pytest.mark.parametrize(
    ("cpuinfo", "model"),
    [
        pytest.param(X86, "AMD EPYC 7713 64-Core Processor", id="x86_64"),
        pytest.param(ARM64, "CPU implementer 0x41, part 0xd4f", id="arm64 has no model name"),
        pytest.param(ARM64 + OTHER_ARM64, "CPU implementer 0x41, part 0xd4f", id="arm64, the first of two kinds"),
        pytest.param("processor\t: 0\nCPU part\t: 0xd4f\n", "unknown CPU", id="a part of nobody knows whom"),
        pytest.param("CPU implementer\t: 0x41\nCPU part\t: Ω\n", "unknown CPU", id="garbage"),
        pytest.param("processor\t: 0\nhart\t: 0\nisa\t: rv64imafdc\n", "unknown CPU", id="riscv64"),
        pytest.param("", "unknown CPU", id="nothing"),
    ],
)
def test_the_cpu_is_told_as_each_machine_tells_it(cpuinfo: str, model: str) -> None:
    assert parse_cpu_model(cpuinfo) == model


def test_files_of_the_driver_that_no_table_knows_are_reported(tmp_path: Path) -> None:
    folder = tmp_path / "sys/module/dcbm/parameters"
    folder.mkdir(parents=True)
    for name in ("offloading", "reason_mask", "folios_migrated", "turbo"):
        (folder / name).write_text("0\n")
    sysfs = Sysfs(tmp_path)

    facts = probe(sysfs, probe_host(sysfs))

    assert facts.unknown_files == ("/sys/module/dcbm/parameters/turbo",)


def test_what_every_module_has_in_its_folder_is_no_unknown_file_of_v5() -> None:
    assert facts_of(HostConfig(dialect=Dialect.V5)).unknown_files == ()


def test_v5_knows_its_fixed_reasons_and_no_others() -> None:
    facts = facts_of(HostConfig(dialect=Dialect.V5))

    assert facts.reasons_seen == {"compaction", "syscall_or_cpuset", "numa_misplaced", "demotion"}
    assert "offload.reasons" not in {knob.field for knob in facts.knobs}


@pytest.mark.parametrize("dialect", [Dialect.V5, Dialect.V6])
def test_the_driver_s_counters_are_read_where_the_dialect_has_them(dialect: Dialect) -> None:
    counts = read_counters(FakeSysfs(FakeKernel(HostConfig(dialect=dialect), random.Random(1))), dialect)

    assert (counts["folios_migrated"], counts["folios_failed"]) == (0, 0)


def test_a_counter_that_the_kernel_lacks_is_left_out_and_never_zero() -> None:
    config = HostConfig(dialect=Dialect.NO_SERIES, absent_counters=("pgpromote_success", "pgdemote_khugepaged"))
    counts = read_counters(FakeSysfs(FakeKernel(config, random.Random(1))), Dialect.NO_SERIES)

    assert "pages_promoted" not in counts
    assert "folios_migrated" not in counts
    assert counts["pages_demoted"] == 0


def test_reading_counters_writes_nothing() -> None:
    """Promise 2: a write, whatever it says, would set them to zero."""
    kernel = FakeKernel(HostConfig(), random.Random(1))

    read_counters(FakeSysfs(kernel), Dialect.V6)

    assert kernel.stores == []


def test_lines_of_vmstat_that_are_no_pair_are_skipped() -> None:
    text = "pgmigrate_success 1\npgmigrate_fail\npgpromote_success x\npgdemote_direct 2 3\n\npgdemote_kswapd 5\n"

    assert parse_vmstat(text) == {"pgmigrate_success": 1, "pgdemote_kswapd": 5}


def test_a_long_file_is_read_to_its_end_and_no_further_than_asked(tmp_path: Path) -> None:
    (tmp_path / "long").write_text("x" * 200_000)

    assert Sysfs(tmp_path).read("/long", READ_BYTES_MAX) == Present("x" * 200_000)
    assert Sysfs(tmp_path).read("/long", 10) == Present("x" * 10)
