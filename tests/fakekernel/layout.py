# SPDX-License-Identifier: Apache-2.0
"""Which files a host has, from the dialect's own to those of every kernel.

What the rows are made of stands in ``files``, what each dialect brings in ``series``.

Sources: kernel/params.c; kernel/module/sysfs.c; drivers/dma/dmaengine.c; kernel/sched/core.c and fair.c (sysctls);
mm/memory-tiers.c (demotion_enabled); drivers/base/node.c.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator, Mapping
from errno import EPERM
from pathlib import PurePosixPath
from typing import Final

from tests.fakekernel.config import HOST_ROOT, Caller, DmaEngine, HostConfig, NumaNode
from tests.fakekernel.dma import hold_channels
from tests.fakekernel.files import BUILT_IN_LOCK, Hold, Kind, Link, Row, Show, fixed, parameter, uevent
from tests.fakekernel.parsing import INT_MAX, ULONG_MAX, KernelError, kstrtobool, kstrtoul, sysctl_int
from tests.fakekernel.series import DRIVER, KERNEL_FOLDER, SERIES
from tests.fakekernel.state import NUMA_NODE_NAMES, PRESSURES, Dcbm, KernelState

DMA_CLASS: Final = "/sys/class/dma"
NODES: Final = "/sys/devices/system/node"
CPUS: Final = "/sys/devices/system/cpu"
SYSCTL: Final = "/proc/sys/kernel"
HUGE_PAGES: Final = "/sys/kernel/mm/transparent_hugepage"
THP_PAGES: Final = 512
PAGE_BYTES: Final = 4096
DRIVER_FOLDERS: Final = (DRIVER, KERNEL_FOLDER)
"""Gone, with whatever is in them, when the driver is."""

BALANCING_MAX: Final = 4
"""The sysctl table's maximum; 3 is the largest value that means something."""
NORMAL, TIERING = 1, 2
"""Bits of numa_balancing."""

OTHER_MODULE_LOCK: Final = "parameters of virtio_net"


def _store_numa_balancing(state: KernelState, data: bytes, caller: Caller) -> None:
    if not caller.cap_sys_admin:
        raise KernelError(EPERM)
    state.numa_balancing = sysctl_int(data, 0, BALANCING_MAX)


def _store_promote_rate_limit(state: KernelState, data: bytes, _caller: Caller) -> None:
    state.promote_rate_limit = sysctl_int(data, 0, INT_MAX)


def _store_printk_time(state: KernelState, data: bytes, _caller: Caller) -> None:
    state.printk_time = kstrtobool(data)


def _store_demotion_enabled(state: KernelState, data: bytes, _caller: Caller) -> None:
    state.demotion_enabled = kstrtobool(data)


LOADABLE_ROWS: Final = (
    Row(f"{DRIVER}/coresize", 0o444, Kind.SYSFS, lambda _: b"20480\n"),
    Row(f"{DRIVER}/initsize", 0o444, Kind.SYSFS, lambda _: b"0\n"),
    Row(f"{DRIVER}/initstate", 0o444, Kind.SYSFS, lambda state: b"going\n" if state.driver.going else b"live\n"),
    Row(f"{DRIVER}/refcnt", 0o444, Kind.SYSFS, lambda state: b"%d\n" % _references(state)),
    Row(f"{DRIVER}/taint", 0o444, Kind.SYSFS, lambda _: b"\n"),
    uevent(DRIVER),
)
"""What a loaded module has; a built-in one has uevent at most."""
LOADABLE_FOLDERS: Final = (f"{DRIVER}/holders", f"{DRIVER}/notes", f"{DRIVER}/sections")
"""Empty here."""


def _references(state: KernelState) -> int:
    return int(state.driver.offloading and state.series.holds_module)


def fresh_driver(config: HostConfig) -> Dcbm:
    """Return the driver as module_init leaves it: off, with the channels it begins with, every reason it can have."""
    series = SERIES[config.dialect]
    fixed_reasons = series.fixed_reasons
    names = enumerate(config.reason_names)
    return Dcbm(
        sum(1 << bit for bit, name in names if fixed_reasons is None or name in fixed_reasons),
        nr_dma_chan=series.channels_initial,
        values={row.name: row.initial for row in series.rows if row.initial is not None},
    )


def load_driver(state: KernelState, parameters: Mapping[str, str]) -> None:
    """Do what module_init does, with what is given at load; a name that is no parameter is ignored, with a log line.

    Raises:
        KernelError: a bad value of a loaded module, which is then not loaded; a built-in one ignores it, as the
            kernel's command line does.
    """
    state.dcbm = fresh_driver(state.config)
    if state.series.hold is Hold.WHILE_LOADED:
        hold_channels(state, state.dcbm)
    try:
        _set_parameters(state, parameters)
    except KernelError:
        state.dcbm = None
        raise
    state.log.say(state.series.lines.loaded)


def _set_parameters(state: KernelState, parameters: Mapping[str, str]) -> None:
    rows = {row.name: row for row in state.series.rows if row.is_parameter}
    for name, text in parameters.items():
        store = rows[name].store if name in rows else None
        if store is None:
            state.log.say(f"dcbm: unknown parameter '{name}' ignored")
            continue
        try:
            # So early in the boot nothing can be allocated, which names of reasons would need.
            if state.config.built_in and name == "reason_mask":
                kstrtoul(text.encode())
            store(state, text.encode(), HOST_ROOT)
        except KernelError:
            if not state.config.built_in:
                raise
            state.log.say(f"dcbm: `{text}' invalid for parameter `{name}'")


def _vmstat(state: KernelState) -> bytes:
    return _vmstat_lines(state, state.vmstat)


def _numa_vmstat(numa_node: int) -> Show:
    def show(state: KernelState) -> bytes:
        counts = dict.fromkeys(NUMA_NODE_NAMES, 0) | state.numa_vmstat.get(numa_node, {})
        tiering = () if state.config.numa_node_counters else ("pgpromote_", "pgdemote_")
        return _vmstat_lines(state, {name: count for name, count in counts.items() if not name.startswith(tiering)})

    return show


def _vmstat_lines(state: KernelState, counts: Mapping[str, int]) -> bytes:
    known = {name: count for name, count in counts.items() if name not in state.config.absent_counters}
    return b"".join(b"%s %d\n" % (name.encode(), count & ULONG_MAX) for name, count in known.items())


def _pressure(resource: str) -> Row:
    def line(kind: str, share: float, seconds: float) -> str:
        averages = " ".join(f"avg{span}={100 * share:.2f}" for span in (10, 60, 300))
        return f"{kind} {averages} total={round(seconds * 1e6)}\n"

    def show(state: KernelState) -> bytes:
        now = state.pressure[resource]
        return (line("some", now.some, now.some_seconds) + line("full", now.full, now.full_seconds)).encode()

    # In truth 0666, for a trigger may be written; nobody here does, and a write that fails is found sooner.
    return Row(f"/proc/pressure/{resource}", 0o444, Kind.PROC, show)


def _cpuinfo(state: KernelState) -> bytes:
    # /proc/cpuinfo has a block per CPU; readers take the first, so one is enough here.
    return f"processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: {state.config.cpu_model}\n\n".encode()


def _kernel_config(state: KernelState) -> bytes:
    lines = ["CONFIG_NUMA_BALANCING=y", "CONFIG_MIGRATION=y", "CONFIG_DMA_ENGINE=y", "CONFIG_TRANSPARENT_HUGEPAGE=y"]
    lines += [f"{symbol}=y" for symbol in state.series.symbols]
    if state.series.rows:
        lines += [f"CONFIG_DCBM_DMA={'y' if state.config.built_in else 'm'}"]
    return gzip.compress("".join(f"{line}\n" for line in lines).encode(), mtime=0)


MAINLINE_ROWS: Final = (
    Row(
        "/sys/kernel/mm/numa/demotion_enabled",
        0o644,
        Kind.SYSFS,
        lambda state: b"true\n" if state.demotion_enabled else b"false\n",
        _store_demotion_enabled,
    ),
    Row(
        f"{SYSCTL}/numa_balancing",
        0o644,
        Kind.SYSCTL,
        lambda state: b"%d\n" % state.numa_balancing,
        _store_numa_balancing,
    ),
    Row(
        f"{SYSCTL}/numa_balancing_promote_rate_limit_MBps",
        0o644,
        Kind.SYSCTL,
        lambda state: b"%d\n" % state.promote_rate_limit,
        _store_promote_rate_limit,
    ),
    parameter(
        Row(
            "/sys/module/printk/parameters/time",
            0o644,
            Kind.SYSFS,
            lambda state: b"Y\n" if state.printk_time else b"N\n",
            _store_printk_time,
        ),
        BUILT_IN_LOCK,
    ),
    parameter(
        Row("/sys/module/virtio_net/parameters/csum", 0o444, Kind.SYSFS, lambda _: b"Y\n"),
        OTHER_MODULE_LOCK,
    ),
    Row(f"{SYSCTL}/osrelease", 0o444, Kind.SYSCTL, lambda state: f"{state.config.osrelease}\n".encode()),
    Row(f"{SYSCTL}/random/boot_id", 0o444, Kind.SYSCTL, lambda state: f"{state.boot_id}\n".encode()),
    Row("/proc/vmstat", 0o444, Kind.PROC, _vmstat),
    Row("/proc/cpuinfo", 0o444, Kind.PROC, _cpuinfo),
    *(_pressure(resource) for resource in PRESSURES),
)
"""What every kernel here has, with or without the series. One parameter of printk, which is built in, and one of
virtio_net, which is loaded, show whom a blocked parameter blocks."""


def driver_rows(config: HostConfig) -> Iterator[Row]:
    """Yield the files that come and go with the driver; none on a kernel without the series."""
    rows = SERIES[config.dialect].rows
    if not config.built_in:
        yield from (*rows, *LOADABLE_ROWS)
    else:
        yield from (parameter(row, BUILT_IN_LOCK) if row.is_parameter else row for row in rows)
        if any(row.is_parameter for row in rows):
            yield uevent(DRIVER)
    yield from (_unknown(path, text) for path, text in config.extra_files.items() if _is_drivers(path))


def host_rows(config: HostConfig) -> Iterator[Row]:
    """Yield the files that stay from boot to reboot."""
    yield from MAINLINE_ROWS
    yield from kernel_rows(config)
    yield from (_unknown(path, text) for path, text in config.extra_files.items() if not _is_drivers(path))
    if config.kernel_config:
        yield Row("/proc/config.gz", 0o444, Kind.PROC, _kernel_config)
    nodes = config.numa_nodes
    yield fixed(f"{NODES}/online", _id_list(nodes))
    yield fixed(f"{NODES}/has_cpu", _id_list([node for node in nodes if node.cpus]))
    yield fixed(f"{NODES}/has_memory", _id_list([node for node in nodes if node.memory]))
    for node in nodes:
        yield fixed(f"{NODES}/node{node.id}/cpulist", node.cpus)
        distances = " ".join(str(_distance(node, other)) for other in nodes)
        yield fixed(f"{NODES}/node{node.id}/distance", distances)
        yield Row(f"{NODES}/node{node.id}/vmstat", 0o444, Kind.SYSFS, _numa_vmstat(node.id))
        free = 0 if node.id in config.full_numa_nodes or not node.memory else config.free_kib
        yield fixed(f"{NODES}/node{node.id}/meminfo", f"Node {node.id} MemFree:{free:15} kB")
    yield fixed("/proc/loadavg", f"{config.load:.2f} 0.00 0.00 1/100 1000")
    yield fixed(f"{CPUS}/online", ",".join(filter(None, (node.cpus for node in nodes))))
    if config.cache_kib:
        for name, level, kib in (("index0", 1, 32), ("index3", 3, config.cache_kib)):
            yield fixed(f"{CPUS}/cpu0/cache/{name}/level", str(level))
            yield fixed(f"{CPUS}/cpu0/cache/{name}/size", f"{kib}K")
    if config.huge_pages:
        yield fixed(f"{HUGE_PAGES}/hpage_pmd_size", str(THP_PAGES * PAGE_BYTES))
        yield fixed(f"{HUGE_PAGES}/enabled", "always [madvise] never")


def kernel_rows(config: HostConfig) -> tuple[Row, ...]:
    """Return the dialect's own files that stay from boot to reboot."""
    series = SERIES[config.dialect]
    rows = (*series.kernel_rows, *(series.test_rows if config.test_patches else ()))
    return tuple({row.path: row for row in rows}.values())


def _is_drivers(path: str) -> bool:
    return any(path.startswith(f"{folder}/") for folder in DRIVER_FOLDERS)


def _unknown(path: str, text: str) -> Row:
    """Return a file of which nobody knows what it does; it keeps what is written."""

    def store(state: KernelState, data: bytes, _caller: Caller) -> None:
        state.texts[path] = data.decode(errors="replace")

    kind = Kind.SYSCTL if path.startswith("/proc/sys/") else Kind.PROC if path.startswith("/proc/") else Kind.SYSFS
    row = Row(path, 0o644, kind, lambda state: state.texts.get(path, text).encode(), store)
    return parameter(row) if row.is_parameter and _is_drivers(path) else row


def _id_list(nodes: Iterable[NumaNode]) -> str:
    """Write ids as the kernel's list format does: runs as a-b."""
    runs: list[list[int]] = []
    for number in sorted(node.id for node in nodes):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _distance(node: NumaNode, other: NumaNode) -> int:
    """SLIT distance: 10 to itself, 20 to a neighbor, more to slower memory."""
    return 10 if node.id == other.id else 20 + 10 * abs(node.tier - other.tier)


def engine_entries(engines: Iterable[tuple[int, DmaEngine]]) -> Iterator[Row | Link]:
    """Yield the files and links of every DMA channel of these devices, which are numbered.

    As in the kernel, /sys/class/dma holds only links into /sys/devices, and each channel links to its device.
    """
    for number, engine in engines:
        device = device_path(number, engine)
        yield Link(f"{device}/driver", _relative(driver_path(engine), device))
        if engine.numa_node is not None:
            yield fixed(f"{device}/numa_node", str(engine.numa_node))
        for channel in range(engine.channels):
            home = f"{device}/dma/dma{number}chan{channel}"
            yield Link(f"{DMA_CLASS}/dma{number}chan{channel}", _relative(home, DMA_CLASS))
            yield Link(f"{home}/device", _relative(device, home))
            yield Row(f"{home}/in_use", 0o444, Kind.SYSFS, _show_in_use(number, channel))
            # The dmaengine core never adds to these; ptdma and ae4dma do not either.
            yield fixed(f"{home}/memcpy_count", "0")
            yield fixed(f"{home}/bytes_transferred", "0")


def _show_in_use(engine: int, number: int) -> Show:
    return lambda state: b"%d\n" % state.in_use(engine, number)


def driver_path(engine: DmaEngine) -> str:
    """Return the folder of an engine's driver; its basename is all that tells drivers apart."""
    bus = "platform" if engine.numa_node is None else "pci"
    return f"/sys/bus/{bus}/drivers/{engine.driver}"


def device_path(number: int, engine: DmaEngine) -> str:
    """Return the folder of an engine's device."""
    if engine.numa_node is None:
        return f"/sys/devices/platform/{engine.driver}.{number}"
    return f"/sys/devices/pci0000:00/0000:00:{number + 1:02x}.0"


def _relative(target: str, folder: str) -> str:
    there, here = PurePosixPath(target).parts, PurePosixPath(folder).parts
    shared = next((i for i, (a, b) in enumerate(zip(there, here, strict=False)) if a != b), min(len(there), len(here)))
    return "/".join((*[".."] * (len(here) - shared), *there[shared:]))
