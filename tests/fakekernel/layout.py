# SPDX-License-Identifier: Apache-2.0
"""Which files a host has: one row per file, with its mode and what reading and writing it calls.

* A dialect is an entry in ``SERIES``: its files, and the few facts in which its driver differs; never a branch.
* ``show`` returns the whole text. ``store`` gets the bytes of one write(2) and changes the state or raises
  ``KernelError``; after an error nothing has changed.
* ``show_lock`` and ``store_lock`` name the lock that the kernel holds meanwhile; a turn-off keeps its own for as long
  as batches are in flight. All parameters of a module share one, those of all built-in modules share another.
* Kinds differ in what open and write answer (see ``model``): sysfs refuses to open a 0444 file for writing even to
  root, a sysctl takes capabilities into account and ignores writes at an offset, procfs opens and then fails with EIO.

Sources: "mm: batch migration copy offload" RFC v6, patch 4/5 (dcbm), and its predecessor of April 2026 (V5, patches 5/7
and 6/7: files of the module's own folder); kernel/params.c; kernel/module/sysfs.c; drivers/dma/dmaengine.c;
kernel/sched/core.c and fair.c (sysctls); mm/memory-tiers.c (demotion_enabled); drivers/base/node.c.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Mapping
from enum import Enum, auto
from errno import EBUSY, EINVAL, ENODEV, EPERM
from pathlib import PurePosixPath
from typing import Final, NamedTuple

from numamigration_api.vocabulary import Dialect, MigrationReason
from tests.fakekernel.config import HOST_ROOT, Caller, DmaEngine, HostConfig, NumaNode
from tests.fakekernel.parsing import (
    INT_MAX,
    KernelError,
    format_reason_mask,
    kstrtobool,
    kstrtouint,
    kstrtoul,
    parse_reason_mask,
    sysctl_int,
)
from tests.fakekernel.state import Dcbm, KernelState

DRIVER: Final = "/sys/module/dcbm"
PARAMETERS: Final = f"{DRIVER}/parameters"
DMA_CLASS: Final = "/sys/class/dma"
NODES: Final = "/sys/devices/system/node"
SYSCTL: Final = "/proc/sys/kernel"

CHANNELS_MAX: Final = 16
"""MAX_DMA_CHANNELS of dcbm."""
BALANCING_MAX: Final = 4
"""The sysctl table's maximum; 3 is the largest value that means something."""
NORMAL, TIERING = 1, 2
"""Bits of numa_balancing."""

BUILT_IN_LOCK: Final = "parameters of built-in modules"
DRIVER_LOCK: Final = "parameters of dcbm"
"""In kernel/params.c; V5, which has no parameters, takes a mutex of its own for the same two stores."""
OTHER_MODULE_LOCK: Final = "parameters of kvm_amd"


class Kind(Enum):
    """Whose rules a file follows."""

    SYSFS = auto()
    SYSCTL = auto()
    PROC = auto()


Show = Callable[[KernelState], bytes]
Store = Callable[[KernelState, bytes, Caller], None]


class Row(NamedTuple):
    """One file."""

    path: str
    mode: int
    kind: Kind
    show: Show
    store: Store | None = None
    show_lock: str = ""
    store_lock: str = ""
    refuses_unlocked: Callable[[KernelState, bytes], object] | None = None
    """What a handler that takes its own lock makes of the text before it does: a bad value never waits."""


class Link(NamedTuple):
    """One symbolic link; the target is relative, as in sysfs."""

    path: str
    target: str


def _store_offloading(state: KernelState, data: bytes, _caller: Caller) -> None:
    wanted = kstrtobool(data)
    driver = state.driver
    if wanted and not driver.offloading:
        _register(state)
    elif driver.offloading and not wanted:
        driver.turning_off = True
        finish_turning_off(state)


def _register(state: KernelState) -> None:
    # No channel is looked for here: without any, offloading reads 1 and nothing is offloaded.
    number = EBUSY if state.other_migrator else ENODEV if state.driver.going else 0
    if number:
        state.log.say(f"migrate_offload: DCBM: failed to register (-{number})")
        raise KernelError(number)
    state.driver.offloading = True
    state.log.say(SERIES[state.config.dialect].enabled_line.format(mask=state.driver.reason_mask))


def finish_turning_off(state: KernelState) -> None:
    """End a turn-off once no batch is in flight; until then ``turning_off`` stays."""
    if state.dcbm and state.dcbm.turning_off and not state.batches:
        state.dcbm.turning_off = state.dcbm.offloading = False
        state.log.say("migrate_offload: disabled by DCBM")


def _channel_count(state: KernelState, data: bytes) -> int:
    wanted = kstrtouint(data)
    if not 1 <= wanted <= state.config.channels_max:
        raise KernelError(EINVAL)
    return wanted


def _store_nr_dma_chan(state: KernelState, data: bytes, _caller: Caller) -> None:
    state.driver.nr_dma_chan = _channel_count(state, data)


def _store_reason_mask(state: KernelState, data: bytes, _caller: Caller) -> None:
    state.driver.reason_mask = parse_reason_mask(data, state.config.reason_names)


def _reset_folios_migrated(state: KernelState, _data: bytes, _caller: Caller) -> None:
    state.driver.folios_migrated = 0


def _reset_folios_failures(state: KernelState, _data: bytes, _caller: Caller) -> None:
    state.driver.folios_failures = 0


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


def _parameter(row: Row, lock: str) -> Row:
    return row._replace(show_lock=lock, store_lock=lock)


def _own_mutex(row: Row, refuses_unlocked: Callable[[KernelState, bytes], object]) -> Row:
    return row._replace(store_lock=DRIVER_LOCK, refuses_unlocked=refuses_unlocked)


def _driver_files(folder: str) -> tuple[Row, Row, Row, Row]:
    """Return the four files that V5 and V6 have in common."""
    return (
        Row(
            f"{folder}/offloading",
            0o644,
            Kind.SYSFS,
            lambda state: b"%d\n" % state.driver.offloading,
            _store_offloading,
        ),
        Row(
            f"{folder}/nr_dma_chan",
            0o644,
            Kind.SYSFS,
            lambda state: b"%d\n" % state.driver.nr_dma_chan,
            _store_nr_dma_chan,
        ),
        Row(
            f"{folder}/folios_migrated",
            0o644,
            Kind.SYSFS,
            lambda state: b"%d\n" % state.driver.folios_migrated,
            _reset_folios_migrated,
        ),
        Row(
            f"{folder}/folios_failures",
            0o644,
            Kind.SYSFS,
            lambda state: b"%d\n" % state.driver.folios_failures,
            _reset_folios_failures,
        ),
    )


REASON_MASK: Final = Row(
    f"{PARAMETERS}/reason_mask",
    0o644,
    Kind.SYSFS,
    lambda state: format_reason_mask(state.driver.reason_mask, state.config.reason_names),
    _store_reason_mask,
)


V5_OFFLOADING, V5_CHANNELS, *V5_COUNTERS = _driver_files(DRIVER)


class Series(NamedTuple):
    """What a dialect brings to the kernel."""

    rows: tuple[Row, ...] = ()
    fixed_reasons: frozenset[MigrationReason] | None = None
    """Which migrations are offloaded where no file says; None: ``reason_mask`` does."""
    may_be_built_in: bool = True
    """False where registering demands a module to hold a reference to."""
    copies_pinned: bool = False
    """Whether a folio that somebody holds a reference to is copied, in vain; else it is left out of the batch."""
    enabled_line: str = ""
    """What the log says when offload goes on."""


SERIES: Final[dict[Dialect, Series]] = {
    Dialect.NO_SERIES: Series(),
    Dialect.V5: Series(
        (
            _own_mutex(V5_OFFLOADING, lambda _, data: kstrtobool(data)),
            _own_mutex(V5_CHANNELS, _channel_count),
            *V5_COUNTERS,
        ),
        fixed_reasons=frozenset(
            {
                MigrationReason.COMPACTION,
                MigrationReason.SYSCALL_OR_CPUSET,
                MigrationReason.DEMOTION,
                MigrationReason.NUMA_MISPLACED,
            }
        ),
        may_be_built_in=False,
        copies_pinned=True,
        enabled_line="migrate_offload: enabled by DCBM",
    ),
    Dialect.V6: Series(
        tuple(_parameter(row, DRIVER_LOCK) for row in (*_driver_files(PARAMETERS), REASON_MASK)),
        enabled_line="migrate_offload: enabled by DCBM (reason_mask=0x{mask:x})",
    ),
}
"""Dialects that can be faked."""

UEVENT: Final = Row(f"{DRIVER}/uevent", 0o200, Kind.SYSFS, lambda _: b"", lambda _state, _data, _caller: None)

LOADABLE_ROWS: Final = (
    Row(f"{DRIVER}/coresize", 0o444, Kind.SYSFS, lambda _: b"20480\n"),
    Row(f"{DRIVER}/initsize", 0o444, Kind.SYSFS, lambda _: b"0\n"),
    Row(f"{DRIVER}/initstate", 0o444, Kind.SYSFS, lambda state: b"going\n" if state.driver.going else b"live\n"),
    Row(f"{DRIVER}/refcnt", 0o444, Kind.SYSFS, lambda state: b"%d\n" % state.driver.offloading),
    Row(f"{DRIVER}/taint", 0o444, Kind.SYSFS, lambda _: b"\n"),
)
"""What only a loaded module has, not a built-in one."""
LOADABLE_FOLDERS: Final = (f"{DRIVER}/holders", f"{DRIVER}/notes", f"{DRIVER}/sections")
"""Empty here."""


def fresh_driver(config: HostConfig) -> Dcbm:
    """Return the driver as module_init leaves it: off, one channel, every reason it can have."""
    fixed = SERIES[config.dialect].fixed_reasons
    return Dcbm(sum(1 << bit for bit, name in enumerate(config.reason_names) if fixed is None or name in fixed))


def set_parameters(state: KernelState, parameters: Mapping[str, str]) -> None:
    """Set what is given when the module is loaded; a name that is no parameter is ignored, with a line in the log.

    Raises:
        KernelError: a bad value of a loaded module; a built-in one ignores it, as the kernel's command line does.
    """
    rows = {PurePosixPath(row.path).name: row for row in SERIES[state.config.dialect].rows if _is_parameter(row)}
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


def _is_parameter(row: Row) -> bool:
    return PurePosixPath(row.path).parent.name == "parameters"


def _vmstat(state: KernelState) -> bytes:
    return b"".join(
        b"%s %d\n" % (name.encode(), value)
        for name, value in state.vmstat.items()
        if name not in state.config.absent_counters
    )


def _memory_pressure(state: KernelState) -> bytes:
    percent = 100 * state.memory_pressure
    averages = f"avg10={percent:.2f} avg60={percent:.2f} avg300={percent:.2f}"
    some = f"some {averages} total={round(state.memory_stall_seconds * 1e6)}\n"
    return (some + "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n").encode()


def _cpuinfo(state: KernelState) -> bytes:
    # /proc/cpuinfo has a block per CPU; readers take the first, so one is enough here.
    return f"processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: {state.config.cpu_model}\n\n".encode()


def _kernel_config(state: KernelState) -> bytes:
    lines = ["CONFIG_NUMA_BALANCING=y", "CONFIG_MIGRATION=y", "CONFIG_DMA_ENGINE=y", "CONFIG_TRANSPARENT_HUGEPAGE=y"]
    if SERIES[state.config.dialect].rows:
        lines += ["CONFIG_MIGRATION_COPY_OFFLOAD=y", f"CONFIG_DCBM_DMA={'y' if state.config.built_in else 'm'}"]
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
    _parameter(
        Row(
            "/sys/module/printk/parameters/time",
            0o644,
            Kind.SYSFS,
            lambda state: b"Y\n" if state.printk_time else b"N\n",
            _store_printk_time,
        ),
        BUILT_IN_LOCK,
    ),
    _parameter(
        Row("/sys/module/kvm_amd/parameters/npt", 0o444, Kind.SYSFS, lambda _: b"Y\n"),
        OTHER_MODULE_LOCK,
    ),
    Row(f"{SYSCTL}/osrelease", 0o444, Kind.SYSCTL, lambda state: f"{state.config.osrelease}\n".encode()),
    Row(f"{SYSCTL}/random/boot_id", 0o444, Kind.SYSCTL, lambda state: f"{state.boot_id}\n".encode()),
    Row("/proc/vmstat", 0o444, Kind.PROC, _vmstat),
    Row("/proc/cpuinfo", 0o444, Kind.PROC, _cpuinfo),
    # In truth 0666, for a trigger may be written; nobody here does, and a write that fails is found sooner.
    Row("/proc/pressure/memory", 0o444, Kind.PROC, _memory_pressure),
)
"""What every kernel here has, with or without the series. One parameter of printk, which is built in, and one of
kvm_amd, which is loaded, show whom a blocked parameter blocks."""


def driver_rows(config: HostConfig) -> tuple[Row, ...]:
    """Return the files that come and go with the driver; none on a kernel without the series."""
    rows = SERIES[config.dialect].rows
    if not rows:
        return ()
    if config.built_in:
        return (*(_parameter(row, BUILT_IN_LOCK) for row in rows), UEVENT)
    return (*rows, UEVENT, *LOADABLE_ROWS)


def host_rows(config: HostConfig) -> Iterator[Row]:
    """Yield the files that stay from boot to reboot."""
    yield from MAINLINE_ROWS
    if config.kernel_config:
        yield Row("/proc/config.gz", 0o444, Kind.PROC, _kernel_config)
    nodes = config.numa_nodes
    yield _fixed(f"{NODES}/online", _id_list(nodes))
    yield _fixed(f"{NODES}/has_cpu", _id_list([node for node in nodes if node.cpus]))
    yield _fixed(f"{NODES}/has_memory", _id_list([node for node in nodes if node.memory]))
    for node in nodes:
        yield _fixed(f"{NODES}/node{node.id}/cpulist", node.cpus)
        distances = " ".join(str(_distance(node, other)) for other in nodes)
        yield _fixed(f"{NODES}/node{node.id}/distance", distances)


def _fixed(path: str, text: str) -> Row:
    return Row(path, 0o444, Kind.SYSFS, lambda _: f"{text}\n".encode())


def _id_list(nodes: tuple[NumaNode, ...] | list[NumaNode]) -> str:
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


def engine_entries(engines: tuple[DmaEngine, ...]) -> Iterator[Row | Link]:
    """Yield the files and links of every DMA channel.

    As in the kernel, /sys/class/dma holds only links into /sys/devices, and each channel links to its device.
    """
    for number, engine in enumerate(engines):
        device = device_path(number, engine)
        yield Link(f"{device}/driver", _relative(driver_path(engine), device))
        if engine.numa_node is not None:
            yield _fixed(f"{device}/numa_node", str(engine.numa_node))
        for channel in range(engine.channels):
            home = f"{device}/dma/dma{number}chan{channel}"
            yield Link(f"{DMA_CLASS}/dma{number}chan{channel}", _relative(home, DMA_CLASS))
            yield Link(f"{home}/device", _relative(device, home))
            yield Row(f"{home}/in_use", 0o444, Kind.SYSFS, _show_in_use(number, channel))
            # The dmaengine core never adds to these; ptdma and ae4dma do not either.
            yield _fixed(f"{home}/memcpy_count", "0")
            yield _fixed(f"{home}/bytes_transferred", "0")


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
