# SPDX-License-Identifier: Apache-2.0
"""Every file of every dialect: what a write answers, what is read afterwards, and what else it does.

``FILES`` says which files there are and what they show at first; ``CASES`` what writing them answers. Both are
complete: tests compare them with the tree of a booted host and with each other.
"""

from __future__ import annotations

import gzip
import os
import random
from collections.abc import Callable
from errno import EBUSY, EINVAL, ENODEV, ENOENT, ERANGE
from typing import Final, NamedTuple

import pytest

from numamigration_api.vocabulary import Dialect, MigrationReason
from tests.fakekernel.config import REASONS_7_3, DmaEngine, HostConfig, Workload
from tests.fakekernel.files import Hold, number
from tests.fakekernel.host import FakeHost
from tests.fakekernel.model import FakeKernel, Snapshot
from tests.fakekernel.parsing import KernelError
from tests.fakekernel.series import SERIES

pytestmark = pytest.mark.uncounted

DCBM = "/sys/kernel/dcbm"
CPU_MT = "/sys/kernel/cpu_mt"
PADATA = "/sys/kernel/cpu_mt_copy"
MODULE = "/sys/module/dcbm"
PARAMETERS = f"{MODULE}/parameters"
PROVIDER = "/sys/module/mm_offload_dma/parameters"
VM = "/proc/sys/vm"
ALL = ",".join(REASONS_7_3)
SYSCALL = MigrationReason.SYSCALL_OR_CPUSET
MOVE_PAGES = Workload(SYSCALL, 0)
ENGINES: Final = {Dialect.V6_SDXI: (DmaEngine("sdxi", channels=2, public=True),)}
"""Where another than the default host's is needed: only shared channels serve there."""

V6_FILES: Final = {
    f"{PARAMETERS}/offloading": (0o644, "0"),
    f"{PARAMETERS}/nr_dma_chan": (0o644, "1"),
    f"{PARAMETERS}/folios_migrated": (0o644, "0"),
    f"{PARAMETERS}/folios_failures": (0o644, "0"),
    f"{PARAMETERS}/reason_mask": (0o644, ALL),
}
V3_FILES: Final = {
    f"{DCBM}/offloading": (0o644, "0"),
    f"{DCBM}/nr_dma_chan": (0o644, "1"),
    f"{CPU_MT}/offloading": (0o664, "0"),
    f"{CPU_MT}/threads": (0o664, "4"),
}

FILES: Final[dict[Dialect, dict[str, tuple[int, str]]]] = {
    Dialect.NO_SERIES: {},
    Dialect.V1: {f"{DCBM}/offloading": (0o664, "0")},
    Dialect.ZY: {
        f"{VM}/use_mt_copy": (0o644, "0"),
        f"{VM}/limit_mt_num": (0o644, "4"),
        f"{VM}/push_0_pull_1": (0o644, "0"),
    },
    Dialect.V2: {path: (0o664, shown) for path, (_, shown) in V3_FILES.items()},
    Dialect.V3: V3_FILES,
    Dialect.V3_DEV: V3_FILES | {f"{DCBM}/pages_migrated": (0o644, "0"), f"{DCBM}/pages_failures": (0o644, "0")},
    Dialect.V3_PADATA: {f"{PADATA}/offloading": (0o644, "0"), f"{PADATA}/threads": (0o644, "4")},
    Dialect.V4: {
        f"{DCBM}/offloading": (0o644, "0"),
        f"{DCBM}/nr_dma_chan": (0o644, "1"),
        f"{DCBM}/folios_migrated": (0o644, "0"),
        f"{DCBM}/folios_failures": (0o644, "0"),
    },
    Dialect.V5: {
        f"{MODULE}/offloading": (0o644, "0"),
        f"{MODULE}/nr_dma_chan": (0o644, "1"),
        f"{MODULE}/folios_migrated": (0o644, "0"),
        f"{MODULE}/folios_failures": (0o644, "0"),
    },
    Dialect.V6: V6_FILES,
    Dialect.V6_SDXI: V6_FILES,
    Dialect.F_MID: V6_FILES
    | {
        f"{PARAMETERS}/batches_refused": (0o644, "0"),
        f"{PARAMETERS}/sg_elems": (0o644, "32"),
        f"{PARAMETERS}/cache_ctrl": (0o644, "Y"),
    },
    Dialect.F_EXT: V6_FILES
    | {f"{PARAMETERS}/nr_dma_chan": (0o644, "16")}
    | {
        f"{PARAMETERS}/{name}": (0o644, shown)
        for name, shown in {
            "batches_refused": "0",
            "folios_cleared": "0",
            "clear_failures": "0",
            "folios_gated": "0",
            "min_clear_bytes": "2097152",
            "cpu_warm": "Y",
            "util_gate": "Y",
            "cache_ctrl": "Y",
            "max_inflight": "32",
            "sg_elems": "32",
            "min_chunk_bytes": "262144",
            "max_chunk_bytes": "2097152",
            "min_bytes": "32768",
            "map_cache": "Y",
            "map_cache_cap_mb": "4096",
            "map_cache_min_kb": "64",
            "map_quantum_kb": "0",
            "map_cache_clear": "Y",
            "map_cache_stats": "none",
        }.items()
    }
    | {f"{PROVIDER}/cross_node": (0o644, "0"), f"{PROVIDER}/shared": (0o444, "N")},
}
"""Path to mode and first text."""

READ_ONLY: Final = {f"{PROVIDER}/shared"}
"""Set when the module is loaded."""


class Case(NamedTuple):
    """One write to a freshly booted host."""

    dialects: tuple[Dialect, ...]
    path: str
    text: str
    errno: int = 0
    returns: int | None = None
    """None: the number of bytes."""
    shows: str = ""
    """What the file reads afterwards."""
    effect: Callable[[Snapshot], object] = lambda _: True
    """What holds then beside it."""
    first: tuple[tuple[str, str], ...] = ()
    """Writes before."""


def offloads(snapshot: Snapshot) -> bool:
    return snapshot.migrator == "dcbm"


def idle(snapshot: Snapshot) -> bool:
    return not snapshot.migrator


def int_switch(dialects: tuple[Dialect, ...], path: str, copies: Callable[[Snapshot], object]) -> list[Case]:
    """Return what a switch that is an int answers: 4 to whatever succeeds."""
    on = ((path, "1"),)
    return [
        Case(dialects, path, "1\n", returns=4, shows="1", effect=copies),
        Case(dialects, path, "1", returns=4, shows="1", effect=copies),
        Case(dialects, path, "+1", returns=4, shows="1", effect=copies),
        Case(dialects, path, "0x1", returns=4, shows="1", effect=copies),
        Case(dialects, path, "00000001\n", returns=4, shows="1", effect=copies),
        Case(dialects, path, "0", returns=4, shows="0", effect=idle, first=on),
        Case(dialects, path, "2", returns=4, shows="0", effect=idle),
        Case(dialects, path, "2", returns=4, shows="1", effect=copies, first=on),
        Case(dialects, path, "-1", returns=4, shows="1", effect=copies, first=on),
        Case(dialects, path, "10", returns=4, shows="0", effect=idle),
        Case(dialects, path, "", returns=0, shows="0"),
        Case(dialects, path, "y", EINVAL, shows="0"),
        Case(dialects, path, "on", EINVAL, shows="1", effect=copies, first=on),
        Case(dialects, path, "1 ", EINVAL, shows="0"),
        Case(dialects, path, "2147483648", ERANGE, shows="0"),
    ]


def bool_switch(dialects: tuple[Dialect, ...], path: str) -> list[Case]:
    on = ((path, "1"),)
    return [
        Case(dialects, path, "1\n", shows="1", effect=offloads),
        Case(dialects, path, "yes", shows="1", effect=offloads),
        Case(dialects, path, "10", shows="1", effect=offloads),
        Case(dialects, path, "1garbage", shows="1", effect=offloads),
        Case(dialects, path, "1", shows="1", effect=offloads, first=on),
        Case(dialects, path, "0", shows="0", effect=idle, first=on),
        Case(dialects, path, "01", shows="0", effect=idle, first=on),
        Case(dialects, path, "off", shows="0", effect=idle, first=on),
        Case(dialects, path, "", returns=0, shows="0"),
        *(Case(dialects, path, text, EINVAL, shows="1", first=on) for text in ("2", " 1", "+1", "-1", "o", "\n")),
    ]


def uint(dialects: tuple[Dialect, ...], path: str, initial: str, *, largest: str, too_large: str) -> list[Case]:
    """Return what every number answers, its range aside."""
    return [
        Case(dialects, path, "7\n", shows="7"),
        Case(dialects, path, "010", shows="8"),
        Case(dialects, path, "0x10", shows="16"),
        Case(dialects, path, "+4", shows="4"),
        Case(dialects, path, largest, shows=largest),
        Case(dialects, path, "", returns=0, shows=initial),
        Case(dialects, path, too_large, ERANGE, shows=initial),
        *(
            Case(dialects, path, text, EINVAL, shows=initial)
            for text in ("eight", "08", "0x", "0b11", "++4", "-0", "-1", " 4", "4 ", "4\r\n", "4\n\n", "1e1")
        ),
    ]


def within(dialects: tuple[Dialect, ...], path: str, initial: str, highest: int) -> list[Case]:
    """Return what a number of 1 and more answers."""
    return [
        *uint(dialects, path, initial, largest=str(highest), too_large="4294967296"),
        Case(dialects, path, "1", shows="1"),
        Case(dialects, path, "0", EINVAL, shows=initial),
        Case(dialects, path, str(highest + 1), EINVAL, shows=initial),
    ]


def plain_uint(dialects: tuple[Dialect, ...], path: str, initial: str, *, lowest: str = "0") -> list[Case]:
    """Return what a number without a range check answers."""
    return [
        *uint(dialects, path, initial, largest="4294967295", too_large="4294967296"),
        Case(dialects, path, "0", shows=lowest),
    ]


def plain_ulong(dialects: tuple[Dialect, ...], path: str, initial: str) -> list[Case]:
    return [
        *uint(dialects, path, initial, largest="18446744073709551615", too_large="18446744073709551616"),
        Case(dialects, path, "0", shows="0"),
    ]


def plain_bool(dialects: tuple[Dialect, ...], path: str) -> list[Case]:
    return [
        *(Case(dialects, path, text, shows="N") for text in ("0", "n", "N\n", "off", "01")),
        *(Case(dialects, path, text, shows="Y", first=((path, "0"),)) for text in ("1", "y", "Y\n", "on", "10")),
        *(Case(dialects, path, text, EINVAL, shows="Y") for text in ("2", " 0", "-1", "o", "\n")),
        Case(dialects, path, "", returns=0, shows="Y"),
    ]


def counter(dialects: tuple[Dialect, ...], path: str) -> list[Case]:
    return [
        *(Case(dialects, path, text, shows="0") for text in ("0", "5", "garbage", "\n")),
        Case(dialects, path, "", returns=0, shows="0"),
    ]


def ranged_sysctl(dialects: tuple[Dialect, ...], path: str, initial: str, lowest: int, highest: int) -> list[Case]:
    return [
        Case(dialects, path, f"{highest}\n", shows=str(highest)),
        Case(dialects, path, f" {lowest} ", shows=str(lowest)),
        Case(dialects, path, "01", shows="1"),
        Case(dialects, path, "", returns=0, shows=initial),
        *(
            Case(dialects, path, text, EINVAL, shows=initial)
            for text in (str(lowest - 1), str(highest + 1), "yes", "1x", "99999999999")
        ),
    ]


def mask(dialects: tuple[Dialect, ...]) -> list[Case]:
    path = f"{PARAMETERS}/reason_mask"
    return [
        Case(dialects, path, "numa_misplaced, compaction\n", shows="compaction,numa_misplaced"),
        Case(dialects, path, "0x120", shows="numa_misplaced,demotion"),
        Case(dialects, path, "0xffffffff", shows=ALL),
        Case(dialects, path, "all", shows=ALL),
        Case(dialects, path, "compaction,none", shows="none"),
        Case(dialects, path, "none,demotion", shows="demotion"),
        *(Case(dialects, path, text, shows="none") for text in ("\n", ",", ",,", " ")),
        Case(dialects, path, "", returns=0, shows=ALL),
        *(
            Case(dialects, path, text, EINVAL, shows="damon", first=((path, "damon"),))
            for text in ("MR_DEMOTION", "Demotion", "demotion,0x1", "-1", "18446744073709551616")
        ),
    ]


V2_AND_V3 = (Dialect.V2, Dialect.V3, Dialect.V3_DEV)
V3S = (Dialect.V3, Dialect.V3_DEV)
V6S = (Dialect.V6, Dialect.V6_SDXI, Dialect.F_MID, Dialect.F_EXT)
MID = (Dialect.F_MID,)
EXT = (Dialect.F_EXT,)

CASES: Final = (
    *int_switch((Dialect.V1, Dialect.V2), f"{DCBM}/offloading", offloads),
    *int_switch(V2_AND_V3, f"{CPU_MT}/offloading", lambda snapshot: snapshot.migrator == f"{CPU_MT}/offloading"),
    *int_switch(
        (Dialect.V3_PADATA,), f"{PADATA}/offloading", lambda snapshot: snapshot.migrator == f"{PADATA}/offloading"
    ),
    *ranged_sysctl((Dialect.ZY,), f"{VM}/use_mt_copy", "0", 0, 1),
    Case((Dialect.ZY,), f"{VM}/use_mt_copy", "1", shows="1", effect=lambda now: now.migrator == f"{VM}/use_mt_copy"),
    *ranged_sysctl((Dialect.ZY,), f"{VM}/limit_mt_num", "4", 1, 64),
    *ranged_sysctl((Dialect.ZY,), f"{VM}/push_0_pull_1", "0", 0, 1),
    # V2 clamps, and answers 4 to whatever succeeds.
    *(
        Case((Dialect.V2,), f"{DCBM}/nr_dma_chan", text, returns=4, shows=shown)
        for text, shown in {"1": "1", "15\n": "15", "16": "16", "17": "16", "2147483647": "16", "010": "8"}.items()
    ),
    *(
        Case((Dialect.V2,), f"{DCBM}/nr_dma_chan", text, EINVAL, shows="1")
        for text in ("0", "-1", "-0", "x", "4 ", "08")
    ),
    Case((Dialect.V2,), f"{DCBM}/nr_dma_chan", "2147483648", ERANGE, shows="1"),
    *within(V2_AND_V3, f"{CPU_MT}/threads", "4", 64),
    *within((Dialect.V3_PADATA,), f"{PADATA}/threads", "4", 64),
    *bool_switch((*V3S, Dialect.V4), f"{DCBM}/offloading"),
    *within((*V3S, Dialect.V4), f"{DCBM}/nr_dma_chan", "1", 16),
    *counter((Dialect.V3_DEV,), f"{DCBM}/pages_migrated"),
    *counter((Dialect.V3_DEV,), f"{DCBM}/pages_failures"),
    *counter((Dialect.V4,), f"{DCBM}/folios_migrated"),
    *counter((Dialect.V4,), f"{DCBM}/folios_failures"),
    *bool_switch((Dialect.V5,), f"{MODULE}/offloading"),
    *within((Dialect.V5,), f"{MODULE}/nr_dma_chan", "1", 16),
    *counter((Dialect.V5,), f"{MODULE}/folios_migrated"),
    *counter((Dialect.V5,), f"{MODULE}/folios_failures"),
    *bool_switch(V6S, f"{PARAMETERS}/offloading"),
    *within((Dialect.V6, Dialect.F_MID), f"{PARAMETERS}/nr_dma_chan", "1", 16),
    *within(EXT, f"{PARAMETERS}/nr_dma_chan", "16", 32),
    Case(
        (Dialect.V6, Dialect.F_EXT),
        f"{PARAMETERS}/nr_dma_chan",
        "2",
        shows="2",
        first=((f"{PARAMETERS}/offloading", "1"),),
    ),
    Case(MID, f"{PARAMETERS}/nr_dma_chan", "2", EBUSY, shows="1", first=((f"{PARAMETERS}/offloading", "1"),)),
    Case((Dialect.V6_SDXI,), f"{PARAMETERS}/nr_dma_chan", "1", shows="1"),
    *(Case((Dialect.V6_SDXI,), f"{PARAMETERS}/nr_dma_chan", text, EINVAL, shows="1") for text in ("0", "2", "16")),
    *mask(V6S),
    *counter(V6S, f"{PARAMETERS}/folios_migrated"),
    *counter(V6S, f"{PARAMETERS}/folios_failures"),
    *counter((*MID, *EXT), f"{PARAMETERS}/batches_refused"),
    *plain_uint((*MID, *EXT), f"{PARAMETERS}/sg_elems", "32"),
    *plain_bool((*MID, *EXT), f"{PARAMETERS}/cache_ctrl"),
    *(
        case
        for name in ("folios_cleared", "clear_failures", "folios_gated")
        for case in counter(EXT, f"{PARAMETERS}/{name}")
    ),
    *(
        case
        for name in ("cpu_warm", "util_gate", "map_cache", "map_cache_clear")
        for case in plain_bool(EXT, f"{PARAMETERS}/{name}")
    ),
    *plain_uint(EXT, f"{PARAMETERS}/max_inflight", "32", lowest="1"),
    *plain_uint(EXT, f"{PARAMETERS}/map_cache_cap_mb", "4096"),
    *plain_uint(EXT, f"{PARAMETERS}/map_cache_min_kb", "64"),
    *plain_uint(EXT, f"{PARAMETERS}/map_quantum_kb", "0"),
    *plain_ulong(EXT, f"{PARAMETERS}/min_clear_bytes", "2097152"),
    *plain_ulong(EXT, f"{PARAMETERS}/min_chunk_bytes", "262144"),
    *plain_ulong(EXT, f"{PARAMETERS}/max_chunk_bytes", "2097152"),
    *plain_ulong(EXT, f"{PARAMETERS}/min_bytes", "32768"),
    Case(EXT, f"{PARAMETERS}/map_cache_stats", "anything flushes", shows="none"),
    *plain_uint(EXT, f"{PROVIDER}/cross_node", "0"),
)

ROWS = [
    pytest.param(
        dialect,
        case,
        id=f"{dialect} {case.path} {case.text!r}{' after ' + case.first[-1][1] if case.first else ''}",
    )
    for case in CASES
    for dialect in case.dialects
]


def boot(dialect: Dialect, **host: object) -> FakeKernel:
    config = {"engines": ENGINES.get(dialect, HostConfig().engines)} | host
    return FakeKernel(HostConfig(dialect=dialect, **config), random.Random(1))  # type: ignore[arg-type]


def read(kernel: FakeKernel, path: str) -> str:
    return kernel.read(kernel.open(path, os.O_RDONLY)).decode().removesuffix("\n")


def write(kernel: FakeKernel, path: str, text: str) -> int:
    return kernel.write(kernel.open(path, os.O_WRONLY), text.encode())


def errno_of(call: Callable[[], object]) -> int:
    try:
        call()
    except KernelError as error:
        return error.errno or 0
    return 0


def exists(kernel: FakeKernel, path: str) -> bool:
    return errno_of(lambda: kernel.stat(path)) == 0


def walk(kernel: FakeKernel, folder: str) -> set[str]:
    """Return the files below a folder."""
    if not exists(kernel, folder):
        return set()
    found = set()
    for name in kernel.listdir(folder):
        path = f"{folder}/{name}"
        try:
            found |= walk(kernel, path)
        except KernelError:
            found.add(path)
    return found


OF_EVERY_MODULE = {"coresize", "initsize", "initstate", "refcnt", "taint", "uevent"}
PLACES = (DCBM, CPU_MT, PADATA, MODULE, "/sys/module/mm_offload_dma", VM)


@pytest.mark.parametrize("dialect", Dialect)
def test_a_dialect_has_its_files_and_no_others(dialect: Dialect) -> None:
    kernel = boot(dialect)

    found = {path for place in PLACES for path in walk(kernel, place) if path.rpartition("/")[2] not in OF_EVERY_MODULE}

    assert {path: (kernel.stat(path).mode & 0o7777, read(kernel, path)) for path in found} == FILES[dialect]


@pytest.mark.parametrize("dialect", Dialect)
def test_the_files_of_every_dialect_can_be_mounted(dialect: Dialect) -> None:
    config = HostConfig(dialect=dialect, engines=ENGINES.get(dialect, HostConfig().engines))

    with FakeHost(config, real_time=False) as host:
        found = {
            path: (host.path(path).stat().st_mode & 0o7777, host.path(path).read_text()) for path in FILES[dialect]
        }

    assert found == {path: (mode, f"{shown}\n") for path, (mode, shown) in FILES[dialect].items()}


def test_a_made_up_dialect_is_an_entry_of_the_table_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    depth = number(f"{PARAMETERS}/queue_depth", 8)
    made_up = SERIES[Dialect.V6]._replace(rows=(*SERIES[Dialect.V6].rows, depth), channels_max=4, hold=Hold.WHILE_ON)
    monkeypatch.setitem(SERIES, Dialect.V6, made_up)
    kernel = boot(Dialect.V6)

    write(kernel, f"{PARAMETERS}/queue_depth", "16")
    write(kernel, f"{PARAMETERS}/nr_dma_chan", "4")
    write(kernel, f"{PARAMETERS}/offloading", "1")

    assert read(kernel, f"{PARAMETERS}/queue_depth") == "16"
    assert errno_of(lambda: write(kernel, f"{PARAMETERS}/nr_dma_chan", "5")) == EINVAL
    assert in_use(kernel) == ["1"] * 4


@pytest.mark.parametrize(("dialect", "case"), ROWS)
def test_a_write_answers_as_the_dialect_does(dialect: Dialect, case: Case) -> None:
    kernel = boot(dialect)
    for path, text in case.first:
        write(kernel, path, text)
    answered = 0

    def attempt() -> None:
        nonlocal answered
        answered = write(kernel, case.path, case.text)

    assert errno_of(attempt) == case.errno
    assert case.errno or answered == (len(case.text) if case.returns is None else case.returns)
    assert read(kernel, case.path) == case.shows
    assert case.effect(kernel.snapshot())


def test_every_writable_file_of_every_dialect_has_cases() -> None:
    covered = {(dialect, case.path) for case in CASES for dialect in case.dialects}

    assert covered == {(dialect, path) for dialect, files in FILES.items() for path in files if path not in READ_ONLY}


def test_every_dialect_can_be_faked() -> None:
    assert set(SERIES) == set(Dialect)


# What a table of writes cannot show: who copies, with which channels, and what is counted.

TWO = (DmaEngine("ptdma", channels=2),)


def in_use(kernel: FakeKernel) -> list[str]:
    return [read(kernel, f"/sys/class/dma/{channel}/in_use") for channel in kernel.listdir("/sys/class/dma")]


def turn_on(dialect: Dialect, *, channels: str = "", **host: object) -> tuple[FakeKernel, str]:
    """Return a host whose driver is on, and the folder of the driver's files."""
    kernel = boot(dialect, **host)
    folder = next(iter(FILES[dialect])).rpartition("/")[0]
    if channels:
        write(kernel, f"{folder}/nr_dma_chan", channels)
    write(kernel, f"{folder}/offloading", "1")
    return kernel, folder


def counted(kernel: FakeKernel) -> tuple[int, int]:
    snapshot = kernel.snapshot()
    return snapshot.folios_migrated, snapshot.folios_failures


DMA_DIALECTS = [dialect for dialect in Dialect if SERIES[dialect].rows]


@pytest.mark.parametrize("dialect", DMA_DIALECTS)
def test_folios_of_a_move_go_through_the_engine(dialect: Dialect) -> None:
    kernel, _ = turn_on(dialect)

    kernel.migrate(MOVE_PAGES, 1024)

    assert counted(kernel) == (1024, 0)
    assert kernel.snapshot().vmstat["pgmigrate_success"] == 1024


@pytest.mark.parametrize("dialect", [Dialect.V1, Dialect.F_MID, Dialect.F_EXT])
def test_turning_on_takes_channels_and_fails_without_any(dialect: Dialect) -> None:
    kernel = boot(dialect, engines=())
    switch = next(path for path in FILES[dialect] if path.endswith("/offloading"))

    assert errno_of(lambda: write(kernel, switch, "1")) == ENODEV
    assert read(kernel, switch) == "0"
    assert idle(kernel.snapshot())


@pytest.mark.parametrize("dialect", [d for d in DMA_DIALECTS if d not in {Dialect.V1, Dialect.F_MID, Dialect.F_EXT}])
def test_turning_on_asks_for_no_channel(dialect: Dialect) -> None:
    kernel, folder = turn_on(dialect, engines=())

    kernel.migrate(MOVE_PAGES, 512)

    assert read(kernel, f"{folder}/offloading") == "1"
    assert counted(kernel) == (0, 0)
    assert kernel.snapshot().vmstat["pgmigrate_success"] == 512


@pytest.mark.parametrize(
    ("dialect", "channels", "off", "on"),
    [
        pytest.param(Dialect.V1, "", "00", "10", id="V1 holds one while on"),
        pytest.param(Dialect.V2, "2", "00", "00", id="V2 takes them for each batch"),
        pytest.param(Dialect.V3, "2", "00", "00", id="V3 takes them for each batch"),
        pytest.param(Dialect.V4, "2", "00", "00", id="V4 takes them for each batch"),
        pytest.param(Dialect.V5, "2", "00", "00", id="V5 takes them for each batch"),
        pytest.param(Dialect.V6, "2", "00", "00", id="V6 takes them for each batch"),
        pytest.param(Dialect.V6_SDXI, "", "10", "10", id="V6-SDXI holds one from load to unload"),
        pytest.param(Dialect.F_MID, "2", "00", "11", id="F-mid holds as many as it was told while on"),
        pytest.param(Dialect.F_EXT, "1", "00", "11", id="F-ext holds every one while on"),
    ],
)
def test_channels_are_in_use_while_the_driver_holds_them(dialect: Dialect, channels: str, off: str, on: str) -> None:
    engines = {"engines": TWO} if dialect is not Dialect.V6_SDXI else {}
    kernel, folder = turn_on(dialect, channels=channels, **engines)
    shown_on = "".join(in_use(kernel))

    write(kernel, f"{folder}/offloading", "0")

    assert (shown_on, "".join(in_use(kernel))) == (on, off)


def test_a_shared_channel_of_sdxi_is_let_go_at_the_unload() -> None:
    kernel = boot(Dialect.V6_SDXI)

    kernel.unload()

    assert in_use(kernel) == ["0", "0"]


def test_sdxi_shares_a_channel_that_another_client_has() -> None:
    kernel, _ = turn_on(Dialect.V6_SDXI, engines=(DmaEngine("sdxi", public=True, taken=1),), dmaengine_users=1)

    kernel.migrate(MOVE_PAGES, 512)

    assert counted(kernel) == (512, 0)


def test_an_exclusive_engine_gives_sdxi_no_channel() -> None:
    kernel, _ = turn_on(Dialect.V6_SDXI, engines=TWO)

    kernel.migrate(MOVE_PAGES, 512)

    assert counted(kernel) == (0, 0)


def test_sdxi_counts_the_pieces_done_before_an_error() -> None:
    engine = DmaEngine("sdxi", public=True, error_share=1, failed_after=700)
    kernel, _ = turn_on(Dialect.V6_SDXI, engines=(engine,), batch_ceiling_pages=1024)

    kernel.migrate(MOVE_PAGES, 1024)

    assert counted(kernel) == (512, 512)
    assert kernel.log[-1] == "dcbm: DMA copy failed (-5) after 512/1024 folios; CPU fallback for the rest"


def test_v6_fails_a_batch_as_a_whole_however_much_was_done() -> None:
    kernel, _ = turn_on(Dialect.V6, engines=(DmaEngine("ptdma", error_share=1, failed_after=700),))

    kernel.migrate(MOVE_PAGES, 512)

    assert counted(kernel) == (0, 512)


def test_v1_offloads_base_pages_only() -> None:
    kernel, _ = turn_on(Dialect.V1)

    kernel.migrate(Workload(SYSCALL, 0, folio_pages=16), 32)

    assert counted(kernel) == (0, 0)


@pytest.mark.parametrize("dialect", [Dialect.V4, Dialect.V5])
@pytest.mark.parametrize("reason", MigrationReason)
def test_v4_and_v5_offload_four_reasons(dialect: Dialect, reason: MigrationReason) -> None:
    kernel, _ = turn_on(dialect, demotion_enabled=True)

    kernel.migrate(Workload(reason, 0), 32)

    four = {"compaction", "syscall_or_cpuset", "demotion", "numa_misplaced"}
    assert counted(kernel) == (32 if reason.value in four else 0, 0)


@pytest.mark.parametrize(("dialect", "copies"), [(Dialect.V4, 96), (Dialect.V5, 96), (Dialect.V6, 32)])
def test_v4_and_v5_copy_pinned_folios_in_vain_in_both_passes(dialect: Dialect, copies: int) -> None:
    kernel, _ = turn_on(dialect)

    kernel.migrate(Workload(SYSCALL, 0, pinned_share=0.5), 64)

    assert counted(kernel) == (copies, 0)


@pytest.mark.parametrize("dialect", [Dialect.V2, *V3S])
def test_two_switches_read_1_and_the_last_to_start_copies(dialect: Dialect) -> None:
    kernel, folder = turn_on(dialect)
    write(kernel, f"{CPU_MT}/offloading", "1")

    kernel.migrate(MOVE_PAGES, 512)

    assert (read(kernel, f"{folder}/offloading"), read(kernel, f"{CPU_MT}/offloading")) == ("1", "1")
    assert (counted(kernel), kernel.snapshot().folios_by_threads) == ((0, 0), 512)


@pytest.mark.parametrize("dialect", [Dialect.V2, *V3S])
def test_stopping_one_migrator_stops_the_one_that_took_its_place(dialect: Dialect) -> None:
    kernel, folder = turn_on(dialect)
    write(kernel, f"{CPU_MT}/offloading", "1")

    write(kernel, f"{folder}/offloading", "0")
    kernel.migrate(MOVE_PAGES, 512)

    assert read(kernel, f"{CPU_MT}/offloading") == "1"
    assert (counted(kernel), kernel.snapshot().folios_by_threads) == ((0, 0), 0)


@pytest.mark.parametrize("dialect", [Dialect.V2, *V3S])
def test_a_switch_that_reads_1_already_does_not_take_the_place_back(dialect: Dialect) -> None:
    kernel = boot(dialect)
    write(kernel, f"{CPU_MT}/offloading", "1")
    write(kernel, f"{DCBM}/offloading", "1")

    write(kernel, f"{CPU_MT}/offloading", "1")

    assert offloads(kernel.snapshot())


@pytest.mark.parametrize("dialect", [Dialect.V1, Dialect.V2, *V3S])
def test_another_migrator_is_replaced_up_to_v3(dialect: Dialect) -> None:
    kernel, folder = turn_on(dialect, other_migrator=True)
    assert offloads(kernel.snapshot())

    kernel.set_other_migrator(registered=True)

    assert read(kernel, f"{folder}/offloading") == "1"
    assert idle(kernel.snapshot())


@pytest.mark.parametrize("dialect", [Dialect.V4, Dialect.V5, *V6S])
def test_another_migrator_keeps_the_driver_out_from_v4_on(dialect: Dialect) -> None:
    kernel = boot(dialect, other_migrator=True)
    switch = next(iter(FILES[dialect])).rpartition("/")[0] + "/offloading"

    assert errno_of(lambda: write(kernel, switch, "1")) == EBUSY
    assert read(kernel, switch) == "0"


@pytest.mark.parametrize("dialect", V3S)
def test_v3_calls_a_repeated_value_an_error_in_the_log(dialect: Dialect) -> None:
    kernel, folder = turn_on(dialect)
    write(kernel, f"{folder}/offloading", "1")
    write(kernel, f"{folder}/offloading", "0")
    write(kernel, f"{folder}/offloading", "n")

    assert kernel.log_errors == ["migration offloading is already ON", "migration offloading is already OFF"]


@pytest.mark.parametrize("dialect", [d for d in DMA_DIALECTS if d not in V3S])
def test_the_others_take_a_repeated_value_without_a_word(dialect: Dialect) -> None:
    kernel, folder = turn_on(dialect)
    said = kernel.log

    write(kernel, f"{folder}/offloading", "1")

    assert kernel.log == said


def test_v2_logs_an_error_for_no_channels() -> None:
    kernel = boot(Dialect.V2)

    errno_of(lambda: write(kernel, f"{DCBM}/nr_dma_chan", "0"))

    assert len(kernel.log_errors) == 1


def test_v3_says_each_time_that_it_falls_back() -> None:
    kernel, _ = turn_on(Dialect.V3, engines=(DmaEngine("ptdma", error_share=1),))

    kernel.migrate(MOVE_PAGES, 25 * 512)

    assert kernel.log.count("DCBM: Falling back to CPU copy") == 25


@pytest.mark.parametrize("dialect", [Dialect.V1, Dialect.V2])
def test_v1_and_v2_go_on_copying_when_their_module_goes(dialect: Dialect) -> None:
    kernel, _ = turn_on(dialect)
    assert read(kernel, f"{MODULE}/refcnt") == "0"

    kernel.unload()

    assert not exists(kernel, DCBM)
    assert offloads(kernel.snapshot())


@pytest.mark.parametrize("dialect", [d for d in DMA_DIALECTS if d not in {Dialect.V1, Dialect.V2}])
def test_the_others_stay_loaded_while_on(dialect: Dialect) -> None:
    kernel, folder = turn_on(dialect)

    assert errno_of(kernel.unload) != 0
    write(kernel, f"{folder}/offloading", "0")
    kernel.unload()
    assert not exists(kernel, folder)


@pytest.mark.parametrize("dialect", DMA_DIALECTS)
def test_what_is_not_the_drivers_stays_when_it_goes(dialect: Dialect) -> None:
    kernel = boot(dialect)
    stays = {path for path in FILES[dialect] if not path.startswith((f"{DCBM}/", f"{MODULE}/"))}

    kernel.unload()

    assert {path for path in FILES[dialect] if exists(kernel, path)} == stays


@pytest.mark.parametrize("dialect", DMA_DIALECTS)
def test_a_folder_that_came_back_has_another_inode_number(dialect: Dialect) -> None:
    kernel = boot(dialect)
    folder = next(iter(FILES[dialect])).rpartition("/")[0]
    before = [kernel.stat(path).inode for path in (folder, MODULE)]
    assert before == [kernel.stat(path).inode for path in (folder, MODULE)]

    kernel.unload()
    kernel.load()

    assert not set(before) & {kernel.stat(path).inode for path in (folder, MODULE)}


@pytest.mark.parametrize("dialect", [Dialect.NO_SERIES, Dialect.ZY, Dialect.V3_PADATA])
def test_a_kernel_without_the_driver_has_none_to_load(dialect: Dialect) -> None:
    assert errno_of(boot(dialect).load) == ENOENT


def test_f_mid_turned_off_takes_another_number_of_channels() -> None:
    kernel, folder = turn_on(Dialect.F_MID)

    for name, text in (("offloading", "0"), ("nr_dma_chan", "3"), ("offloading", "1")):
        write(kernel, f"{folder}/{name}", text)

    assert in_use(kernel) == ["1", "1", "1", "0"]


def test_f_mid_waits_for_ever_for_a_hung_engine() -> None:
    kernel, _ = turn_on(Dialect.F_MID)
    kernel.set_engines((DmaEngine("ptdma", hangs=True),))

    kernel.migrate(MOVE_PAGES, 512)
    kernel.advance(1_000_000)

    assert counted(kernel) == (0, 0)
    assert kernel.snapshot().channels_in_use == 1


def test_f_mid_counts_the_batch_of_a_second_task_as_refused() -> None:
    kernel, folder = turn_on(Dialect.F_MID)

    kernel.migrate(Workload(SYSCALL, 0, concurrency=2), 1024)

    assert (counted(kernel), read(kernel, f"{folder}/batches_refused")) == ((512, 0), "1")


@pytest.mark.parametrize(("gate", "migrated", "gated"), [("1", 512, "512"), ("0", 1024, "0")])
def test_the_gate_of_f_ext_sends_folios_of_a_busy_engine_to_the_cpu(gate: str, migrated: int, gated: str) -> None:
    kernel, folder = turn_on(Dialect.F_EXT)
    write(kernel, f"{folder}/util_gate", gate)

    kernel.migrate(Workload(SYSCALL, 0, concurrency=2), 1024)

    assert (counted(kernel), read(kernel, f"{folder}/folios_gated")) == ((migrated, 0), gated)
    assert read(kernel, f"{folder}/batches_refused") == "0"


def test_f_ext_leaves_small_batches_to_the_cpu_and_counts_them_nowhere() -> None:
    kernel, folder = turn_on(Dialect.F_EXT)

    kernel.migrate(MOVE_PAGES, 512 + 7)  # 28 KiB are left for a second batch
    kernel.migrate(Workload(MigrationReason.NUMA_MISPLACED, 0), 10)  # one base page at a time

    assert (counted(kernel), read(kernel, f"{folder}/batches_refused")) == ((512, 0), "0")
    assert kernel.snapshot().vmstat["pgmigrate_success"] == 529


def test_f_ext_takes_every_batch_once_the_limit_is_gone() -> None:
    kernel, folder = turn_on(Dialect.F_EXT)
    write(kernel, f"{folder}/min_bytes", "0")

    kernel.migrate(Workload(MigrationReason.NUMA_MISPLACED, 0), 10)

    assert counted(kernel) == (10, 0)


def test_f_ext_tells_a_line_for_each_device_of_its_map_cache_while_on() -> None:
    kernel, folder = turn_on(Dialect.F_EXT)

    lines = read(kernel, f"{folder}/map_cache_stats").splitlines()

    assert [line.split()[0] for line in lines] == ["dma0", "dma1", "dma2", "dma3"]


@pytest.mark.parametrize("dialect", [Dialect.V1, Dialect.F_MID, Dialect.F_EXT, Dialect.V6_SDXI])
def test_held_channels_that_were_lost_come_back_with_the_next_start(dialect: Dialect) -> None:
    kernel, folder = turn_on(dialect)
    engines = ENGINES.get(dialect, HostConfig().engines)
    kernel.set_engines(())
    kernel.set_engines(engines)

    kernel.migrate(MOVE_PAGES, 512)
    lost = counted(kernel)
    write(kernel, f"{folder}/offloading", "0")
    if dialect is Dialect.V6_SDXI:
        kernel.unload()
        kernel.load()
    write(kernel, f"{folder}/offloading", "1")
    kernel.migrate(MOVE_PAGES, 512)

    assert (lost, counted(kernel)) == ((0, 0), (512, 0))


@pytest.mark.parametrize("dialect", [Dialect.V1, Dialect.V2, *V3S])
def test_turning_off_waits_for_nobody_up_to_v3(dialect: Dialect) -> None:
    kernel, folder = turn_on(dialect, engines=(DmaEngine("ptdma", hangs=True),))
    kernel.migrate(MOVE_PAGES, 512)

    write(kernel, f"{folder}/offloading", "0")

    assert read(kernel, f"{folder}/offloading") == "0"
    assert kernel.blocked == []


@pytest.mark.parametrize("dialect", [Dialect.V4, Dialect.V5, *V6S])
def test_turning_off_waits_for_the_batch_in_flight_from_v4_on(dialect: Dialect) -> None:
    driver = "sdxi" if dialect is Dialect.V6_SDXI else "ptdma"
    engine = DmaEngine(driver, public=dialect is Dialect.V6_SDXI, hangs=True)
    kernel, folder = turn_on(dialect, engines=(engine,))
    kernel.migrate(MOVE_PAGES, 512)

    kernel.drift(f"{folder}/offloading", "0")

    assert [call.path for call in kernel.blocked] == [f"{folder}/offloading"]


SYMBOLS: Final = {
    Dialect.NO_SERIES: set[str](),
    Dialect.ZY: set[str](),
    Dialect.V1: {"DMA_MIGRATION=y", "DCBM_DMA=m"},
    Dialect.V2: {"OFFC_MIGRATION=y", "MTCOPY_CPU=y", "DCBM_DMA=m"},
    Dialect.V3: {"OFFC_MIGRATION=y", "MTCOPY_CPU=y", "DCBM_DMA=m"},
    Dialect.V3_DEV: {"OFFC_MIGRATION=y", "MTCOPY_CPU=y", "DCBM_DMA=m"},
    Dialect.V3_PADATA: {"OFFC_MIGRATION=y", "MTCOPY_CPU=y"},
    Dialect.V4: {"MIGRATION_COPY_OFFLOAD=y", "DCBM_DMA=m"},
    Dialect.V5: {"MIGRATION_COPY_OFFLOAD=y", "DCBM_DMA=m"},
    Dialect.V6: {"MIGRATION_COPY_OFFLOAD=y", "DCBM_DMA=m"},
    Dialect.V6_SDXI: {"MIGRATION_COPY_OFFLOAD=y", "DCBM_DMA=m"},
    Dialect.F_MID: {"MIGRATION_COPY_OFFLOAD=y", "DCBM_DMA=m"},
    Dialect.F_EXT: {"MM_OFFLOAD=y", "DCBM_DMA=m"},
}


def config_symbols(kernel: FakeKernel) -> set[str]:
    packed = kernel.read(kernel.open("/proc/config.gz", os.O_RDONLY))
    return {line.removeprefix("CONFIG_") for line in gzip.decompress(packed).decode().splitlines()}


@pytest.mark.parametrize("dialect", Dialect)
def test_the_kernel_configuration_names_what_the_dialect_has(dialect: Dialect) -> None:
    symbols = config_symbols(boot(dialect))

    assert symbols - config_symbols(boot(Dialect.NO_SERIES)) == SYMBOLS[dialect]


@pytest.mark.parametrize("dialect", [Dialect.V1, Dialect.V2, *V3S])
def test_the_posted_form_up_to_v3_is_part_of_the_image_and_no_module(dialect: Dialect) -> None:
    kernel = boot(dialect, built_in=True)

    assert "DCBM_DMA=y" in config_symbols(kernel)
    assert exists(kernel, f"{DCBM}/offloading")
    assert not exists(kernel, MODULE)


@pytest.mark.parametrize(
    ("dialect", "more"),
    [
        pytest.param(Dialect.V2, {f"{CPU_MT}/cpuselect"}, id="V2"),
        pytest.param(Dialect.V3, {f"{CPU_MT}/cpuselect"}, id="V3"),
        pytest.param(Dialect.V6, set(), id="V6 has none"),
    ],
)
def test_the_patches_for_testing_add_files(dialect: Dialect, more: set[str]) -> None:
    plain, patched = (walk(boot(dialect, test_patches=given), "/sys/kernel") for given in (False, True))

    assert patched - plain == more


def test_the_patches_for_testing_halve_the_threads_of_v3() -> None:
    threads = f"{CPU_MT}/threads"
    kernel = boot(Dialect.V3, test_patches=True)

    assert write(kernel, threads, "32") == 2
    assert errno_of(lambda: write(kernel, threads, "33")) == EINVAL
    assert read(kernel, threads) == "32"


NEWER = {f"{PARAMETERS}/copy_order": "0\n", f"{PARAMETERS}/batch_pages": "512\n", "/sys/kernel/mm/numa/copier": "dma\n"}


def test_a_newer_revision_has_files_that_nobody_knows() -> None:
    kernel = boot(Dialect.V6, extra_files=NEWER)

    assert {path: read(kernel, path) for path in NEWER} == {path: text.strip() for path, text in NEWER.items()}
    assert {kernel.stat(path).mode & 0o7777 for path in NEWER} == {0o644}


def test_a_write_to_an_unknown_file_is_kept_and_seen() -> None:
    kernel = boot(Dialect.V6, extra_files=NEWER)

    write(kernel, f"{PARAMETERS}/copy_order", "1\n")

    assert read(kernel, f"{PARAMETERS}/copy_order") == "1"
    assert kernel.stores == [("copy_order", "1")]


def test_an_unknown_file_of_the_driver_comes_and_goes_with_it() -> None:
    kernel, unloaded = (boot(Dialect.V6, extra_files=NEWER, loaded=loaded) for loaded in (True, False))

    kernel.unload()

    for host in (kernel, unloaded):
        assert {path for path in NEWER if exists(host, path)} == {"/sys/kernel/mm/numa/copier"}


def test_an_unknown_parameter_is_behind_the_lock_of_the_others() -> None:
    kernel, folder = turn_on(Dialect.V6, extra_files=NEWER, engines=(DmaEngine("ptdma", hangs=True),))
    kernel.migrate(MOVE_PAGES, 512)
    kernel.drift(f"{folder}/offloading", "0")

    assert not kernel.begin_read(kernel.open(f"{folder}/copy_order", os.O_RDONLY)).over


def test_a_file_or_folder_may_be_missing_from_a_dialect() -> None:
    gone = (f"{PARAMETERS}/folios_failures", "/proc/pressure")
    kernel = boot(Dialect.V6, missing_files=gone)

    assert [exists(kernel, path) for path in (*gone, f"{PARAMETERS}/folios_migrated")] == [False, False, True]
    kernel.unload()
    kernel.load()
    assert not exists(kernel, gone[0])
