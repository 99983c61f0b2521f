# SPDX-License-Identifier: Apache-2.0
"""One host's kernel as programs see it through files: pure, without I/O and without a clock of its own.

Made from a ``HostConfig``; time passes in ``advance`` only, chance comes in as a ``random.Random``.
The calls are the system calls, with their errnos:

* ``open`` answers who may (EACCES, EROFS) and what exists (ENOENT); ``write`` answers whether the value is legal.
  Nothing is ever created, whatever the flags.
* One write is one call of the file's handler, of at most 4096 bytes for sysfs; no bytes, no call.
* What a handle was opened on may vanish (unload, reboot): then ENODEV.
* Truncating and appending are taken without effect, as sysfs does.
* A call that is held up is not over when it returns: ``begin_read`` and ``begin_write`` answer with it (see ``calls``).

Sources: fs/kernfs/file.c, fs/sysfs/file.c, fs/proc/proc_sysctl.c, fs/proc/inode.c, fs/namei.c; every refusal of a
sysfs folder or file was also run on a 7.3-rc7 kernel.
"""

from __future__ import annotations

import itertools
import math
import os
import random
import stat
import uuid
from collections.abc import Iterable, Mapping
from errno import (
    EACCES,
    EAGAIN,
    EBADF,
    EEXIST,
    EINTR,
    EINVAL,
    EIO,
    EISDIR,
    ENODEV,
    ENOENT,
    EPERM,
    EROFS,
)
from pathlib import PurePosixPath
from typing import Final, NamedTuple

from msgspec import Struct

from numamigration_api.vocabulary import MigrationReason
from tests.fakekernel.calls import Call, GateKeeper, Locks, StillUnderWayError, When
from tests.fakekernel.config import HOST_ROOT, Caller, DmaEngine, HostConfig, Spoiled, Workload
from tests.fakekernel.dma import finish_turning_off
from tests.fakekernel.files import Kind, Link
from tests.fakekernel.layout import (
    DMA_CLASS,
    DRIVER_FOLDERS,
    LOADABLE_FOLDERS,
    device_path,
    driver_path,
    driver_rows,
    engine_entries,
    fresh_driver,
    host_rows,
    kernel_rows,
    load_driver,
)
from tests.fakekernel.migration import Flow, end_batches, hand_over, let_time_pass, next_event, refill
from tests.fakekernel.moves import Folios, Move, Moved
from tests.fakekernel.parsing import KernelError, sysctl_bytes_taken
from tests.fakekernel.series import SERIES
from tests.fakekernel.state import NUMA_NODE_NAMES, CpuThreads, Dcbm, KernelState
from tests.fakekernel.tree import SOUND, Fifo, File, Folder, Tree, parent

SYSFS_FILE_BYTES: Final = 4096
"""stat(2) says so of every sysfs file, and no write is longer."""
ALWAYS_FOLDERS: Final = ("/", "/sys/module", DMA_CLASS, "/sys/bus/pci/drivers", "/sys/bus/platform/drivers")
"""There even when empty."""


class Status(NamedTuple):
    """What stat(2) tells."""

    mode: int
    size: int
    inode: int
    """A file or folder that went and came back has another one, as in kernfs."""


class Store(NamedTuple):
    """One call of a file's write handler, failed ones included."""

    name: str
    """The file's name without its folder."""
    text: str
    """What was written, without the one newline that may end it."""


class Snapshot(Struct, frozen=True):
    """The kernel's state at one moment, for people and tests."""

    boot_id: str
    loaded: bool
    offloading: bool
    nr_dma_chan: int
    reasons: tuple[str, ...]
    folios_migrated: int
    folios_failures: int
    numa_balancing: int
    promote_rate_limit: int
    demotion_enabled: bool
    corrupted_pages: int
    """Base pages with wrong bytes; the kernel itself does not know."""
    channels_in_use: int
    """By batches in flight; held ones are not counted."""
    migrator: str
    """Who copies: ``dcbm``, the file that turned on an engine of threads, or nobody."""
    values: dict[str, int]
    """The dialect's further numbers and counters: by name those of the driver, by path those that stay."""
    folios_by_threads: int
    vmstat: dict[str, int]


class OpenFile:
    """An open file description; remembers what was shown, since a long file is read in pieces."""

    def __init__(self, path: str, file: File, flags: int, caller: Caller) -> None:
        self.path = path
        self.file = file
        self.caller = caller
        access = flags & os.O_ACCMODE
        self.readable = access != os.O_WRONLY
        self.writable = access != os.O_RDONLY
        self.shown: bytes | None = None


class FakeKernel:
    """A running kernel."""

    def __init__(self, config: HostConfig, chance: random.Random) -> None:
        if config.built_in and not SERIES[config.dialect].may_be_built_in:
            raise ValueError(f"dialect {config.dialect} has no built-in form")
        self.config = config
        self.stores: list[Store] = []
        self.gate = GateKeeper()
        self._chance = chance
        self._engines = config.engines
        self._flows = [Flow(workload) for workload in config.workloads]
        self._locks = Locks()
        self._inode_numbers = itertools.count(1)
        self._spoiled = dict(config.spoiled_files)
        self._moves: list[Move] = []
        self._own_pages = Flow(Workload(MigrationReason.SYSCALL_OR_CPUSET, 0))
        self._boot()

    def __repr__(self) -> str:
        return f"<{self.config.dialect} {self.snapshot()}>"

    # What happens to the host.

    def _boot(self) -> None:
        config = self.config
        present = bool(SERIES[config.dialect].rows) and (config.loaded or config.built_in)
        self._state = KernelState(
            config=config,
            series=SERIES[config.dialect],
            boot_id=str(uuid.UUID(int=self._chance.getrandbits(128), version=4)),
            engines=self._engines,
            other_migrator=config.other_migrator,
            dmaengine_users=config.dmaengine_users,
            numa_balancing=config.numa_balancing,
            demotion_enabled=config.demotion_enabled,
            dcbm=None,
            values={row.path: row.initial for row in kernel_rows(config) if row.initial is not None},
        )
        for call in self.blocked:
            call.interrupt(EIO)
        for move in self._moves:
            move.interrupt()
        self._moves = []
        self._locks = Locks()
        self._tree = Tree(config.missing_files, self._spoiled, self._inode_numbers)
        for path in ALWAYS_FOLDERS:
            self._tree.add_folder(path)
        self._tree.add(host_rows(config))
        self._add_engines(enumerate(self._engines))
        if present:
            load_driver(self._state, config.parameters)
            self._add_driver()

    def reboot(self) -> None:
        """Lose every setting and counter and get a new boot id; devices and workloads stay."""
        self._flows = [Flow(flow.workload) for flow in self._flows if flow.once is None]
        self._boot()

    def load(self, parameters: Mapping[str, str] | None = None) -> None:
        """Do what ``modprobe dcbm`` does: off, one channel, every reason, but for what the parameters say.

        Raises:
            KernelError: it is loaded, there is none, or the errno of the first parameter with a bad value.
        """
        if not SERIES[self.config.dialect].rows:
            raise KernelError(ENOENT)
        if self._state.dcbm:
            raise KernelError(EEXIST)
        load_driver(self._state, parameters or {})
        self._add_driver()

    def begin_unload(self) -> None:
        """Stop ``rmmod dcbm`` half way: the module is going away and its files are still there."""
        if not self._state.dcbm or self.config.built_in:
            raise KernelError(ENOENT)
        if self._state.dcbm.offloading and self._state.series.holds_module:
            raise KernelError(EAGAIN)
        self._state.dcbm.going = True

    def unload(self) -> None:
        """Do what ``rmmod dcbm`` does; refused while offload is on where the module is then in use.

        Where it is not, the migrator stays and copies on, without files.
        """
        self.begin_unload()
        self._state.dcbm = None
        self._state.log.say(self._state.series.lines.unloaded)
        for folder in DRIVER_FOLDERS:
            self._tree.drop(folder)

    def set_engines(self, engines: Iterable[DmaEngine]) -> None:
        """Replace the DMA devices, as when their driver goes and comes; needs no write to take effect.

        One with the driver, place and channels of the one before is the same device, which behaves otherwise now.
        """
        before, after = ({_files_of(row): row for row in enumerate(rows)} for rows in (self._engines, tuple(engines)))
        for number, engine in (before[files] for files in before.keys() - after.keys()):
            self._tree.drop(device_path(number, engine))
            for channel in range(engine.channels):
                self._tree.drop(f"{DMA_CLASS}/dma{number}chan{channel}")
        self._engines = tuple(engine for _, engine in after.values())
        self._state.engines = self._engines
        self._state.let_go_of_lost_channels()
        self._add_engines(after[files] for files in after if files not in before)
        self._hand_over()

    def set_workloads(self, workloads: Iterable[Workload]) -> None:
        """Replace what the host's programs do from now on."""
        in_flight = [flow for flow in self._flows if flow.round]
        for flow in in_flight:
            flow.stop()
        self._flows = [*in_flight, *map(Flow, workloads)]

    def set_dmaengine_users(self, count: int) -> None:
        """Let so many others hold public engines."""
        self._state.dmaengine_users = count

    def set_other_migrator(self, *, registered: bool) -> None:
        """Let somebody else become, or cease to be, the system's migrator."""
        if registered and self._state.migrator:
            if self._state.series.exclusive:
                raise ValueError("dcbm is the registered migrator; turn it off first")
            self._state.migrator = None
        self._state.other_migrator = registered

    def set_pressure(self, resource: str, some: float, full: float = 0.0) -> None:
        """Let some task, or all of them, wait for cpu, memory or io during these shares of the time, 0..1."""
        self._state.pressure[resource].some = some
        self._state.pressure[resource].full = full

    def set_counter(self, path: str, value: int, name: str = "") -> None:
        """Let a counter be somewhere else: near its end, or back at the start.

        Args:
            path: a counter of the driver, or a vmstat file.
            value: what it is now; it is 64 bits wide.
            name: which counter of a vmstat file.
        """
        if name:
            counts = self._vmstat_of(path)
            if name not in counts:
                raise KernelError(ENOENT)
            counts[name] = value
            return
        file = PurePosixPath(self._tree.resolve(path)).name
        driver = self._state.driver
        if file in driver.values:
            driver.values[file] = value
        elif file.endswith("_migrated"):
            driver.folios_migrated = value
        elif file.endswith("_failures"):
            driver.folios_failures = value
        else:
            raise KernelError(EINVAL)

    def _vmstat_of(self, path: str) -> dict[str, int]:
        if path == "/proc/vmstat":
            return self._state.vmstat
        number = int(PurePosixPath(path).parent.name.removeprefix("node"))
        return self._state.numa_vmstat.setdefault(number, dict.fromkeys(NUMA_NODE_NAMES, 0))

    def advance(self, seconds: float) -> None:
        """Let time pass: folios migrate, counters move, batches end and calls with them."""
        self._hand_over()
        left = seconds
        while left > 0:
            # Differences, not moments: the carried fractions would see the rounding of a long uptime.
            step = min(left, self.seconds_to_event())
            self._step(step)
            left -= step
        for pressure in self._state.pressure.values():
            pressure.pass_by(seconds)

    def seconds_to_event(self) -> float:
        """Return when a batch ends or begins, in seconds from now; infinity when none will."""
        moves = (move.ends_at for move in self._moves)
        events = [*(next_event(self._state, flow) for flow in self._flows), *(at for at in moves if at is not None)]
        return max(0.0, min([math.inf, *events]) - self._state.now)

    def _step(self, seconds: float) -> None:
        for flow in self._flows:
            let_time_pass(self._state, flow, seconds)
        self._state.now += seconds
        self._hand_over()
        self._settle()

    def _settle(self) -> None:
        for flow in self._flows:
            end_batches(self._state, flow)
        for move in self._moves:
            move.proceed(self._state, self._own_pages)
        self._moves = [move for move in self._moves if not move.over]
        self._proceed()
        self._hand_over()
        self._flows = [flow for flow in self._flows if not flow.over]

    def _hand_over(self) -> None:
        for flow in self._flows:
            hand_over(self._state, flow)

    def migrate(self, workload: Workload, folios: int) -> None:
        """Let a program migrate some folios now, as fast as it can; its rate means nothing."""
        flow = Flow(workload, once=folios)
        refill(self._state, flow, seconds=1)  # it finds the promotion limit's second unused
        self._flows.append(flow)
        self._settle()

    def begin_move(self, reason: MigrationReason, source: int, destination: int, *, small: int, huge: int = 0) -> Move:
        """Let the agent move folios of its own with one system call; it may be under way when this returns.

        Raises:
            KernelError: the call is refused.
            ValueError: no system call migrates for this reason.
        """
        move = Move(self._state, reason, (source, destination), Folios(small, huge))
        self._moves.append(move)
        self._settle()
        return move

    def move_own_pages(
        self, reason: MigrationReason, source: int, destination: int, *, small: int, huge: int = 0
    ) -> Moved:
        """Let the agent move folios of its own with one system call, and time pass until that is over.

        Raises:
            KernelError: the call is refused.
            ValueError: no system call migrates for this reason.
            StillUnderWayError: it will never be over.
        """
        move = self.begin_move(reason, source, destination, small=small, huge=huge)
        while not move.over:
            if move.ends_at == math.inf:
                raise StillUnderWayError("the engine never ends this batch")
            self.advance(self.seconds_to_event())
        return move.answer()

    def spoil(self, path: str, spoiled: Spoiled) -> None:
        """Let something be wrong with a file, also when it goes and comes back; no part of `path` is a link."""
        self._tree.spoil(path, spoiled)

    def heal(self, path: str) -> None:
        """Let a file be itself again."""
        self._tree.spoil(path, SOUND)

    def end_batches(self) -> None:
        """Let every batch in flight end now, with the result it was to have."""
        for batch in self._state.batches:
            batch.ends_at = self._state.now
        self._settle()

    def drift(self, path: str, text: str) -> None:
        """Write as another process of the host does, with all rights and through a writable mount.

        Where a lock of the kernel is taken, that process waits for it, not whoever calls this.
        """
        handle, data = self.open(path, os.O_WRONLY, HOST_ROOT), text.encode()
        call = Call(handle.path, lambda: self._write(handle, data, 0), self._store_lock(handle, data))
        self._perform(call)
        if call.over:
            call.result()

    def snapshot(self) -> Snapshot:
        """Return what the kernel holds; for an absent driver its values after loading."""
        state = self._state
        dcbm = state.dcbm or fresh_driver(self.config)
        return Snapshot(
            boot_id=state.boot_id,
            loaded=state.dcbm is not None,
            offloading=dcbm.offloading,
            nr_dma_chan=dcbm.nr_dma_chan,
            migrator=_name_of(state.migrator),
            values=dict(dcbm.values) | dict(state.values),
            folios_by_threads=state.folios_by_threads,
            reasons=tuple(name for bit, name in enumerate(self.config.reason_names) if dcbm.reason_mask >> bit & 1),
            folios_migrated=dcbm.folios_migrated,
            folios_failures=dcbm.folios_failures,
            numa_balancing=state.numa_balancing,
            promote_rate_limit=state.promote_rate_limit,
            demotion_enabled=state.demotion_enabled,
            corrupted_pages=state.corrupted_pages,
            channels_in_use=sum(len(batch.channels) for batch in state.batches),
            vmstat=dict(state.vmstat),
        )

    @property
    def log(self) -> list[str]:
        """What driver and core have written to the kernel's log since boot, oldest first."""
        return list(self._state.log.lines)

    @property
    def log_errors(self) -> list[str]:
        """Those of them at error level."""
        return list(self._state.log.errors)

    # What programs of the host ask.

    def agent(self, uid: int = 0) -> Caller:
        """Return the caller that a process in the agent's container is."""
        return Caller(uid, self.config.cap_sys_admin, self.config.read_only)

    def stat(self, path: str, *, follow: bool = True) -> Status:
        """Answer stat, or lstat with `follow` false."""
        real = self._tree.resolve(path, follow=follow)
        inode = self._tree.inode(real)
        match self._tree[real]:
            case Folder():
                return Status(stat.S_IFDIR | 0o755, 0, inode)
            case Link(target=target):
                return Status(stat.S_IFLNK | 0o777, len(target), inode)
            case Fifo():
                return Status(stat.S_IFIFO | 0o644, 0, inode)
            case File(row=row, mode=mode):
                return Status(stat.S_IFREG | mode, SYSFS_FILE_BYTES if row.kind is Kind.SYSFS else 0, inode)

    def listdir(self, path: str) -> list[str]:
        """Return the names in a folder, sorted."""
        return self._tree.names(self._tree.resolve(path))

    def readlink(self, path: str) -> str:
        """Answer the link's target."""
        entry = self._tree[self._tree.resolve(path, follow=False)]
        if not isinstance(entry, Link):
            raise KernelError(EINVAL)
        return entry.target

    def access(self, path: str, *, write: bool, caller: Caller = HOST_ROOT) -> None:
        """Answer access with R_OK or W_OK; it asks about rights only, so a 0444 sysfs file passes for root."""
        entry = self._tree[self._tree.resolve(path)]
        mode, kind = (entry.mode, entry.row.kind) if isinstance(entry, File) else (0o755, Kind.SYSFS)
        _check_rights(mode, kind, write=write, caller=caller)

    def open(self, path: str, flags: int, caller: Caller = HOST_ROOT) -> OpenFile:
        """Open an existing file; nothing is ever created."""
        try:
            real = self._tree.resolve(path)
        except KernelError as error:
            if error.errno == ENOENT and flags & os.O_CREAT:
                self.create(path, caller)
            raise
        entry = self._tree.opened(real, flags)
        access = flags & os.O_ACCMODE
        read, write = access != os.O_WRONLY, access != os.O_RDONLY
        row = entry.row
        _check_rights(entry.mode, row.kind, write=write, caller=caller)
        # kernfs asks for a mode bit even of root; only who asks comes before it, and a read-only mount.
        asked = (0o444 if read else 0) | (0o222 if write else 0)
        if row.kind is Kind.SYSFS and any(asked & bits and not entry.mode & bits for bits in (0o444, 0o222)):
            raise KernelError(EACCES)
        return OpenFile(real, entry, flags, caller)

    def read(self, handle: OpenFile, size: int = 1 << 20, offset: int = 0) -> bytes:
        """Answer a pread that nothing holds up.

        Raises:
            StillUnderWayError: something does; the call goes on.
        """
        answer = self.begin_read(handle, size, offset).result()
        return answer if isinstance(answer, bytes) else b""

    def begin_read(self, handle: OpenFile, size: int = 1 << 20, offset: int = 0) -> Call:
        """Take a pread, which may be held up; at offset 0 the value is fresh, further on it is what was shown."""
        fresh = offset == 0 or handle.shown is None
        call = Call(handle.path, lambda: self._read(handle, size, offset), handle.file.row.show_lock if fresh else "")
        self._perform(call)
        return call

    def _read(self, handle: OpenFile, size: int, offset: int) -> bytes:
        if not handle.readable:
            raise KernelError(EBADF)
        self._check_exists(handle)
        if offset == 0 or handle.shown is None:
            handle.shown = handle.file.show(self._state)
        return handle.shown[offset : offset + size]

    def write(self, handle: OpenFile, data: bytes, offset: int = 0) -> int:
        """Answer a pwrite that nothing holds up.

        Raises:
            StillUnderWayError: something does; the call goes on.
        """
        return int(self.begin_write(handle, data, offset).result())

    def begin_write(self, handle: OpenFile, data: bytes, offset: int = 0) -> Call:
        """Take a pwrite, which may be held up."""
        call = Call(handle.path, lambda: self._write(handle, data, offset), self._store_lock(handle, data))
        if not (_is_store(handle, data) and self.gate.holds_before(call)):
            self._perform(call)
        return call

    def _store_lock(self, handle: OpenFile, data: bytes) -> str:
        """Return the lock that a store waits for; a handler that takes its own refuses a bad value before."""
        row = handle.file.row
        if not _is_store(handle, data):
            return ""
        try:
            if row.refuses_unlocked:
                row.refuses_unlocked(self._state, data)
        except KernelError:
            return ""
        return row.store_lock

    def open_gate(self, *, drop: bool) -> None:
        """Take the gate away and let go who is held there; with `drop`, a store that has no effect yet never has."""
        call = self.gate.open()
        if call is None:
            return
        side, call.held = call.held, None
        if side is When.AFTER:
            call.over = True
        elif drop:
            call.interrupt(EINTR)
        else:
            self._perform(call)

    @property
    def blocked(self) -> list[Call]:
        """Calls that wait for a lock of the kernel, or keep one until no batch is in flight."""
        return self._locks.blocked

    def _perform(self, call: Call) -> None:
        if call.lock:
            self._locks.add(call)
            self._proceed()
        else:
            call.work()
            self._finish(call)

    def _proceed(self) -> None:
        """Let every call go as far as it comes."""
        finish_turning_off(self._state)
        for call in self._locks.proceed(self._turning_off):
            self._finish(call)

    def _turning_off(self) -> bool:
        return self._state.dcbm is not None and self._state.dcbm.turning_off

    def _finish(self, call: Call) -> None:
        call.over = not self.gate.holds_after(call)

    def _write(self, handle: OpenFile, data: bytes, offset: int) -> int:
        """Do a pwrite; the one place where a file's handler is called."""
        if not handle.writable:
            raise KernelError(EBADF)
        self._check_exists(handle)
        row = handle.file.row
        if not data:
            return 0
        if row.store is None:
            raise KernelError(EIO)
        if row.kind is Kind.SYSFS:
            data = data[:SYSFS_FILE_BYTES]
        elif offset:
            # sysctl_writes_strict: a second write on the same descriptor succeeds and does nothing.
            return len(data)
        if handle.file.spoiled.write_error:
            raise KernelError(handle.file.spoiled.write_error)
        text = data.decode(errors="replace").removesuffix("\n")
        self.stores.append(Store(PurePosixPath(handle.path).name, text))
        row.store(self._state, data, handle.caller)
        if row.kind is Kind.SYSCTL:
            return sysctl_bytes_taken(data)
        return len(data) if row.returns is None else row.returns

    def create(self, path: str, caller: Caller = HOST_ROOT) -> None:
        """Refuse to make a file, as for open(2) with O_CREAT of a name that is not there."""
        self._tree.resolve(parent(path))
        raise KernelError(EROFS if caller.read_only_mount else EACCES)

    def refuse(self, path: str, caller: Caller = HOST_ROOT) -> None:
        """Refuse mkdir, rmdir, unlink, rename, symlink, link and mknod of this name."""
        self._tree.resolve(parent(path))
        if caller.read_only_mount:
            raise KernelError(EROFS)
        raise KernelError(EACCES if caller.uid else EPERM)

    def chmod(self, path: str, mode: int, caller: Caller = HOST_ROOT) -> None:
        """Answer chmod: root may, and it lasts as long as the file; a sysctl's mode is fixed."""
        entry = self._tree[self._tree.resolve(path)]
        if caller.read_only_mount:
            raise KernelError(EROFS)
        if caller.uid or not isinstance(entry, File) or entry.row.kind is Kind.SYSCTL:
            raise KernelError(EPERM)
        entry.mode = mode & 0o7777

    def truncate(self, path: str, caller: Caller = HOST_ROOT) -> None:
        """Answer truncate, which kernel files take without effect."""
        entry = self._tree[self._tree.resolve(path)]
        if isinstance(entry, Folder):
            raise KernelError(EISDIR)
        self.access(path, write=True, caller=caller)

    # The tree of names.

    def _add_driver(self) -> None:
        self._tree.add(driver_rows(self.config))
        if not self.config.built_in:
            for folder in LOADABLE_FOLDERS:
                self._tree.add_folder(folder)

    def _add_engines(self, engines: Iterable[tuple[int, DmaEngine]]) -> None:
        numbered = tuple(engines)
        self._tree.add_folder(DMA_CLASS)
        for _, engine in numbered:
            self._tree.add_folder(driver_path(engine))
        self._tree.add(engine_entries(numbered))

    def _check_exists(self, handle: OpenFile) -> None:
        if not self._tree.has(handle.path, handle.file):
            raise KernelError(ENODEV)


def _files_of(numbered: tuple[int, DmaEngine]) -> tuple[int, str, int, int | None]:
    """Return all by which the files of two DMA devices differ."""
    number, engine = numbered
    return number, engine.driver, engine.channels, engine.numa_node


def _name_of(migrator: Dcbm | CpuThreads | None) -> str:
    match migrator:
        case None:
            return ""
        case Dcbm():
            return "dcbm"
        case CpuThreads(switch):
            return switch


def _check_rights(mode: int, kind: Kind, *, write: bool, caller: Caller) -> None:
    """Root passes every mode, but not a sysctl's (fs/proc/proc_sysctl.c); others have the last three bits."""
    bits = mode >> 6 if caller.uid == 0 else mode
    asked = 0o2 if write else 0o4
    if not bits & asked and (caller.uid != 0 or kind is Kind.SYSCTL):
        raise KernelError(EACCES)
    if write and caller.read_only_mount:
        raise KernelError(EROFS)


def _is_store(handle: OpenFile, data: bytes) -> bool:
    return bool(data) and handle.file.row.store is not None
