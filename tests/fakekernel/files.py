# SPDX-License-Identifier: Apache-2.0
"""What a kernel file and a state of the series are made of, as data: rows, and makers of rows that occur often.

* ``show`` returns the whole text. ``store`` gets the bytes of one write(2) and changes the state or raises
  ``KernelError``; after an error nothing has changed.
* ``show_lock`` and ``store_lock`` name the lock that the kernel holds meanwhile; a turn-off keeps its own for as long
  as batches are in flight. All parameters of a module share one, those of all built-in modules share another.
* Kinds differ in what open and write answer (see ``model``): sysfs refuses to open a 0444 file for writing even to
  root, a sysctl takes capabilities into account and ignores writes at an offset, procfs opens and then fails with EIO.
* What a dialect differs in is a field of ``Series``; ``dma`` and ``migration`` ask the fields, never for the name.

Sources: kernel/params.c; kernel/module/sysfs.c; fs/kernfs/file.c.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final, NamedTuple

from numamigration_api.vocabulary import MigrationReason
from tests.fakekernel.config import Caller
from tests.fakekernel.parsing import ULONG_MAX, kstrtobool, kstrtouint, sysctl_int

if TYPE_CHECKING:
    from tests.fakekernel.state import KernelState

BUILT_IN_LOCK: Final = "parameters of built-in modules"
DRIVER_LOCK: Final = "parameters of dcbm"
"""In kernel/params.c; V4 and V5, which have no parameters, take a mutex of their own for the same two stores."""

SIZE_OF_INT: Final = 4
"""What some store handlers answer, who return the size of the number instead of that of the text."""


class Kind(Enum):
    """Whose rules a file follows."""

    SYSFS = auto()
    SYSCTL = auto()
    PROC = auto()


Show = Callable[["KernelState"], bytes]
Store = Callable[["KernelState", bytes, Caller], None]
Parse = Callable[[bytes], int]


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
    returns: int | None = None
    """What a write that succeeds answers; None: the number of bytes given."""
    initial: int | None = None
    """What a plain number begins with; None: it is kept elsewhere in the state."""

    @property
    def name(self) -> str:
        """The file's name without its folder."""
        return PurePosixPath(self.path).name

    @property
    def folder(self) -> str:
        return str(PurePosixPath(self.path).parent)

    @property
    def is_parameter(self) -> bool:
        """Whether it can be given when the module is loaded."""
        return PurePosixPath(self.folder).name == "parameters"


class Link(NamedTuple):
    """One symbolic link; the target is relative, as in sysfs."""

    path: str
    target: str


class Hold(Enum):
    """When the driver takes its channels."""

    FOR_BATCH = auto()
    """Round each batch; none is asked for when it is turned on."""
    WHILE_ON = auto()
    """When it is turned on, which fails with ENODEV when there is none."""
    WHILE_LOADED = auto()
    """When the module is loaded, and shared with others."""


class Busy(Enum):
    """What becomes of a batch whose held channels are at work for another."""

    SHARED = auto()
    """The descriptors queue behind one another."""
    REFUSED = auto()
    """The CPU copies, and ``batches_refused`` counts it."""
    GATED = auto()
    """The same with ``util_gate`` on, counted in ``folios_gated``; else they queue."""


class Lines(NamedTuple):
    """What driver and core say in the kernel's log; empty where nothing is said or nothing is known."""

    loaded: str = "dcbm: DMA Core Batch Migrator initialized"
    unloaded: str = "dcbm: DMA Core Batch Migrator unloaded"
    on: tuple[str, ...] = ("migrate_offload: enabled by DCBM",)
    off: tuple[str, ...] = ("migrate_offload: disabled by DCBM",)
    refused: str = "migrate_offload: DCBM: failed to register (-{error})"
    repeated: str = ""
    """At error level, when a value is written that stands already; {state} is ON or OFF."""
    no_channel: str = ""
    failed: str = "dcbm: DMA copy failed (-{error}), falling back to CPU"
    failed_limited: bool = True
    """Whether printk's rate limit stands before it."""


class Series(NamedTuple):
    """What a dialect brings to the kernel."""

    rows: tuple[Row, ...] = ()
    """Files that come and go with the driver."""
    kernel_rows: tuple[Row, ...] = ()
    """Files that stay from boot to reboot."""
    test_rows: tuple[Row, ...] = ()
    """Those that the posting's patches "for testing" add to ``kernel_rows``, or put in place of one."""
    symbols: tuple[str, ...] = ()
    """What the kernel's configuration has, beside ``CONFIG_DCBM_DMA``."""
    fixed_reasons: frozenset[MigrationReason] | None = None
    """Which migrations are offloaded where no file says; None: ``reason_mask`` does, or every one is."""
    base_pages_only: bool = False
    exclusive: bool = True
    """Whether a second migrator is refused with EBUSY; else the last one to start is the only one, and nobody tells
    the one before."""
    holds_module: bool = True
    """Whether it can be unloaded only when off; else it goes, and offload does not stop."""
    may_be_built_in: bool = True
    """False where registering demands a module to hold a reference to."""
    turn_off_waits: bool = True
    """Whether turning off waits for the batches in flight."""
    copies_pinned: bool = False
    """Whether a folio that somebody holds a reference to is copied, in vain; else it is left out of the batch."""
    hold: Hold = Hold.FOR_BATCH
    holds_all: bool = False
    """Whether it holds every channel there is, instead of ``nr_dma_chan``."""
    busy: Busy = Busy.SHARED
    public_channels: bool = False
    """Whether it takes shared channels, which an exclusive engine does not give, instead of exclusive ones."""
    channels_initial: int = 1
    channels_max: int = 16
    """MAX_DMA_CHANNELS of dcbm."""
    channel_seconds_max: float = 10.0
    """How long the driver waits for each channel."""
    piece_folios: int | None = None
    """A batch goes in pieces of so many, and those done before an error count as migrated; None: all or nothing."""
    lines: Lines = Lines()


def parameter(row: Row, lock: str = DRIVER_LOCK) -> Row:
    """Return a file as a module's parameter, behind the lock that all of them share."""
    return row._replace(show_lock=lock, store_lock=lock)


def own_mutex(row: Row, refuses_unlocked: Callable[[KernelState, bytes], object]) -> Row:
    """Return a file whose store takes the driver's own mutex, and whose show takes none."""
    return row._replace(store_lock=DRIVER_LOCK, refuses_unlocked=refuses_unlocked)


def fixed(path: str, text: str) -> Row:
    """Return a file that always says the same."""
    return Row(path, 0o444, Kind.SYSFS, lambda _: f"{text}\n".encode())


def number(path: str, initial: int, *, parse: Parse = kstrtouint) -> Row:
    """Return a plain number of the driver; without a range check unless `parse` has one."""
    name = PurePosixPath(path).name

    def store(state: KernelState, data: bytes, _caller: Caller) -> None:
        state.driver.values[name] = parse(data)

    return Row(
        path,
        0o644,
        Kind.SYSFS,
        lambda state: b"%d\n" % state.driver.values[name],
        store,
        initial=initial,
    )


def truth(path: str, *, initial: bool) -> Row:
    """Return a plain bool of the driver; the kernel shows those as a letter."""
    name = PurePosixPath(path).name
    row = number(path, int(initial), parse=kstrtobool)
    return row._replace(show=lambda state: b"Y\n" if state.driver.values[name] else b"N\n")


def counter(path: str) -> Row:
    """Return one more counter of the driver: any write sets it to zero."""
    name, row = PurePosixPath(path).name, number(path, 0, parse=lambda _: 0)
    return row._replace(show=lambda state: b"%d\n" % signed(state.driver.values[name]))


def unsigned(value: int) -> int:
    """Return what ``%lu`` makes of an unsigned long: after the last value comes 0."""
    return value & ULONG_MAX


def signed(value: int) -> int:
    """Return what ``%ld`` makes of an unsigned long: the upper half is negative."""
    value &= ULONG_MAX
    return value - ULONG_MAX - 1 if value > ULONG_MAX >> 1 else value


def kernel_number(path: str, initial: int, *, mode: int = 0o644, parse: Parse) -> Row:
    """Return a plain number that stays from boot to reboot."""

    def store(state: KernelState, data: bytes, _caller: Caller) -> None:
        state.values[path] = parse(data)

    return Row(path, mode, Kind.SYSFS, lambda state: b"%d\n" % state.values[path], store, initial=initial)


def sysctl(path: str, initial: int, lowest: int, highest: int) -> Row:
    """Return a sysctl with a range."""
    row = kernel_number(path, initial, parse=lambda data: sysctl_int(data, lowest, highest))
    return row._replace(kind=Kind.SYSCTL)


def uevent(folder: str) -> Row:
    """Return the file that every module has, a built-in one with parameters too."""
    return Row(f"{folder}/uevent", 0o200, Kind.SYSFS, lambda _: b"", lambda _state, _data, _caller: None)
