# SPDX-License-Identifier: Apache-2.0
"""Takes the commands of the fake kernel's ``control`` on a real one: with our modules, and with pages that really move.

* Every row begins with a driver as it is when it has just been loaded, and with an engine at rest.
* Time is real, and shorter by a factor: what takes 10 s of the table takes `SCALE` times as long here, by the module's
  own time-out and the engine's own delay. What has to have happened by a moment may be seen a little later, what must
  not have happened yet is looked at in time.
* A call is blocked when the kernel has its task in state D in read(2) or write(2) of that file.

Sources: proc_pid_syscall(5), proc_pid_stat(5); mount_namespaces(7).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from numamigration_api.vocabulary import Dialect
from tests.fakekernel.config import DmaEngine, Workload
from tests.fakekernel.control import (
    Advance,
    AwaitBlocked,
    Command,
    Load,
    Migrate,
    MoveOwnPages,
    ReadLog,
    Reply,
    SetDmaengineUsers,
    SetEngines,
    SetOtherMigrator,
    TakeSnapshot,
    Unload,
)
from tests.fakekernel.model import Snapshot
from tests.fakekernel.replay import DCBM, MismatchError, Replay
from tests.fakekernel.seen import Counted, Do, Logged, Read, Seen, Step, Within
from tests.kernel.suite import causes, modules
from tests.kernel.suite.kernellog import Reader
from tests.kernel.suite.lib import read, vmstat, write
from tests.kernel.table import SCALES, GuestRow

SCALE: Final = 0.05
"""Seconds here for a second of the table."""

GRACE_SECONDS_MAX: Final = 5.0
"""How much later than the table says something may be seen; an emulated processor is slow."""

WAIT_SECONDS_MAX: Final = 30.0
LOOK_SECONDS: Final = 0.005
"""Between two looks at what no event tells: the state of a task, a channel in use."""

TIMEOUT_SECONDS: Final = 10.0
"""Of the driver for one channel."""

ENGINE: Final = "/sys/module/softdma/parameters"
TEST: Final = "/sys/kernel/debug/dcbm_test"
DMA: Final = "/sys/class/dma"
SYS_READ, SYS_WRITE = 0, 1

MODE: Final = 0o644

AT_REST: Final = {
    "hang": "N",
    "skip": "N",
    "reverse": "N",
    "corrupt": "N",
    "victim": "0",
    "batch_delay_ms": "0",
    "refuse_permille": "0",
    "abort_permille": "0",
    "others": "N",
    "taken": "0",
    "channels": "4",
}
"""The engine's switches when nothing is wrong with it."""

QUIET: Final = {
    "/proc/sys/kernel/numa_balancing": "0",
    "/proc/sys/vm/compaction_proactiveness": "0",
    "/sys/kernel/mm/numa/demotion_enabled": "0",
    "/sys/kernel/mm/transparent_hugepage/enabled": "madvise",
    "/sys/kernel/mm/transparent_hugepage/khugepaged/defrag": "0",
}
"""What would migrate, or fold up, pages that a row counts."""


class RealHost:
    """The guest as one row finds it; ``with`` puts it there, and lets go what still hangs in the end."""

    def __init__(self, row: GuestRow) -> None:
        self._row = row
        self._scale = SCALES.get(row.row.id, SCALE)
        self._timeout = str(int(TIMEOUT_SECONDS * 1000 * self._scale))
        self._movers: list[Mover] = []
        self._pages: list[causes.Own] = []
        self._takes_time = False
        self._began = 0.0
        self._now = 0.0
        self.patient_until = 0.0

    def __enter__(self) -> Self:
        be_quiet()
        causes.set_policy(causes.MPOL_LOCAL)
        rest_engine()
        self._refresh()
        if modules.is_loaded("dcbm"):
            must_write(f"{TEST}/timeout_ms", self._timeout)
        if self._row.row.host.get("read_only"):
            causes.see_sys_read_only()
        if not self._row.row.host.get("cap_sys_admin", True):
            causes.drop_sys_admin()
        self._find_block()
        self._log = Reader()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        write(f"{ENGINE}/hang", "N")
        if error and modules.is_loaded("dcbm"):
            print(read(f"{TEST}/reasons"))
        self._end_migrations()

    def _find_block(self) -> None:
        if causes.NEED_BLOCK & {command.workload.reason for command in migrations(self._row.row)}:
            causes.movable_block()

    def _end_migrations(self) -> None:
        write("/proc/sys/kernel/numa_balancing", "0")  # at once, for it marks pages of whoever runs next
        causes.end_children()
        for mover in self._movers:
            mover.end()

    def replay(self) -> None:
        """Run the row.

        Raises:
            MismatchError: the kernel answered otherwise.
        """
        PatientReplay(self).run(self._row.row)

    @property
    def dialect(self) -> Dialect:
        """Of the row."""
        return self._row.dialect

    def do(self, command: Command) -> Reply:
        """Do a command.

        Raises:
            OSError: the kernel refuses.
            NotImplementedError: a real kernel cannot be told that.
        """
        for kind, perform in self._performers().items():
            if isinstance(command, kind):
                return perform(command) or Reply()
        raise NotImplementedError(f"{command}: a real kernel cannot be told that")

    def _performers(self) -> dict[type, Callable[..., Reply | None]]:
        return {
            Load: lambda command: self._load(command.parameters),
            Unload: lambda _: modules.unload("dcbm"),
            SetEngines: lambda command: self._set_engines(command.engines),
            SetDmaengineUsers: lambda command: must_write(f"{ENGINE}/others", "Y" if command.count else "N"),
            SetOtherMigrator: lambda command: must_write(f"{TEST}/other_migrator", str(int(command.registered))),
            Migrate: lambda command: self._migrate(command.workload, command.folios),
            MoveOwnPages: self._move_own,
            Advance: lambda command: self._advance(command.seconds),
            AwaitBlocked: lambda command: await_true(lambda: is_blocked(command.path), f"{command.path} blocked"),
            ReadLog: lambda _: self._read_log(),
            TakeSnapshot: lambda _: Reply(snapshot=self._snapshot()),
        }

    def _refresh(self) -> None:
        """Have the driver as it is right after boot: loaded anew, or, which is quicker, written so."""
        row = self._row.row
        wanted = self._row.dialect != Dialect.NO_SERIES and row.host.get("loaded", True)
        found = loaded_dialect()
        limited = any(isinstance(step, Logged) for step in row.steps)  # the log's limit remembers earlier lines
        if wanted and found == self._row.dialect and is_as_made(DCBM[found]) and not limited:
            rest_driver(DCBM[found])
            return
        if found:
            must_write(f"{DCBM[found]}/offloading", "0")  # while on, it holds the module
            modules.unload("dcbm")
        if wanted:
            self._load({})

    def _load(self, parameters: dict[str, str]) -> None:
        modules.load(f"{self._row.dialect.lower()}/dcbm.ko", parameters)

    def _set_engines(self, engines: tuple[DmaEngine, ...]) -> None:
        set_engine(engines, self._scale)
        self._takes_time = any(engine.hangs or engine.copy_seconds for engine in engines)

    def _migrate(self, workload: Workload, folios: int) -> None:
        must_write(f"{TEST}/again", str(round(folios * workload.retried_share)))
        self._move(workload, folios)

    def _move(self, workload: Workload, folios: int) -> None:
        movers = [Mover(work) for work in causes.works(workload, folios, self._pages)]
        self._movers += movers
        self._began, self._now = time.monotonic(), 0.0
        if len(movers) > 1:
            self._collide(movers)
        elif self._takes_time:
            movers[0].start()
            await_true(lambda: channels_in_use() > 0 or movers[0].is_over, "a batch in flight")
        else:
            movers[0].start()
            movers[0].end()
            self._began = time.monotonic()

    def _collide(self, movers: list[Mover]) -> None:
        """Have each task begin while the copies of those before it are under way, however slow this machine is."""
        share = int(read(f"{DCBM[self._row.dialect]}/nr_dma_chan"))
        must_write(f"{TEST}/timeout_ms", str(int(WAIT_SECONDS_MAX * 1000)))
        must_write(f"{ENGINE}/hang", "Y")
        for count, mover in enumerate(movers, 1):
            mover.start()
            await_true(partial(has_its_channels, mover, count * share), "a task that copies, or found no channel")
        must_write(f"{ENGINE}/hang", "N")
        for mover in movers:
            mover.end()
        must_write(f"{TEST}/timeout_ms", self._timeout)
        self._began = time.monotonic()

    def _move_own(self, command: MoveOwnPages) -> None:
        causes.move_own(command.source, command.destination, small=command.small, huge=command.huge)

    def _advance(self, seconds: float) -> None:
        self._now += seconds
        time.sleep(max(0.0, self._began + self._now * self._scale - time.monotonic()))
        self.patient_until = time.monotonic() + GRACE_SECONDS_MAX

    def _read_log(self) -> Reply:
        self._lines = [*getattr(self, "_lines", ()), *self._log.lines()]
        return Reply(log=tuple(self._lines))

    def _snapshot(self) -> Snapshot:
        folder = DCBM[self._row.dialect]
        offloading = read(f"{folder}/offloading") == "1"
        return Snapshot(
            boot_id=read("/proc/sys/kernel/random/boot_id"),
            loaded=True,
            offloading=offloading,
            nr_dma_chan=int(read(f"{folder}/nr_dma_chan")),
            reasons=(),
            folios_migrated=int(read(f"{folder}/folios_migrated")),
            folios_failures=int(read(f"{folder}/folios_failures")),
            numa_balancing=int(read("/proc/sys/kernel/numa_balancing")),
            promote_rate_limit=int(read("/proc/sys/kernel/numa_balancing_promote_rate_limit_MBps")),
            demotion_enabled=read("/sys/kernel/mm/numa/demotion_enabled") == "true",
            corrupted_pages=sum(own.damaged() for own in self._pages),
            channels_in_use=channels_in_use(),
            migrator="dcbm" if offloading else "",
            values={},
            folios_by_threads=0,
            vmstat=vmstat(),
        )


class PatientReplay(Replay):
    """A replay whose looks, once time has passed, wait a little for what they expect."""

    def __init__(self, host: RealHost) -> None:
        super().__init__(Path("/"), host.do, host.dialect)
        self._host = host

    def _do(self, step: Step) -> None:
        while True:
            try:
                return super()._do(step)
            except MismatchError:
                if not isinstance(step, Read | Counted | Within) or time.monotonic() > self._host.patient_until:
                    raise
            time.sleep(LOOK_SECONDS)


class Mover:
    """Somebody who migrates pages, in a thread: it may hang."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def end(self) -> None:
        """Wait until it is over, and fail as it did."""
        self._thread.join(WAIT_SECONDS_MAX)
        if self._thread.is_alive():
            raise TimeoutError(f"pages did not arrive within {WAIT_SECONDS_MAX:g} s")
        if self._error:
            raise self._error

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001  # told by whoever waits
            self._error = error


def has_its_channels(mover: Mover, channels: int) -> bool:
    """Tell whether a task has come as far as it can while nothing completes: all channels are taken, or it is over."""
    return mover.is_over or channels_in_use() >= channels


def migrations(row: Seen) -> list[Migrate]:
    """Return what migrates in a row."""
    commands = [step.command for step in row.steps if isinstance(step, Do)]
    return [command for command in commands if isinstance(command, Migrate)]


def must_write(path: str, value: str) -> None:
    """Write what the kernel must take."""
    number = write(path, value)
    if number:
        raise OSError(number, f"{path} did not take {value!r}: {os.strerror(number)}")


def loaded_dialect() -> Dialect | None:
    """Return the dialect of the driver that is loaded; None: there is none."""
    return next(
        (dialect for dialect in (Dialect.V6, Dialect.V5) if os.path.exists(f"{DCBM[dialect]}/offloading")), None
    )


def is_as_made(folder: str) -> bool:
    """Tell whether no row has changed the mode of a driver's file."""
    return all(os.stat(f"{folder}/{name}").st_mode & 0o777 == MODE for name in ("offloading", "nr_dma_chan"))


def rest_driver(folder: str) -> None:
    """Write a loaded driver's files as they are when it has just been loaded."""
    rest_files(Path(folder))
    for name, value in {"other_migrator": "N", "cpu_delay_us": "0", "again": "0"}.items():
        must_write(f"{TEST}/{name}", value)


def rest_files(folder: Path) -> None:
    """Write the files that any driver has as they are when it has just been loaded; a write resets a counter."""
    fresh = {"offloading": "0", "nr_dma_chan": "1", "folios_migrated": "0", "folios_failures": "0"}
    if (folder / "reason_mask").exists():
        fresh["reason_mask"] = "all"
    for name, value in fresh.items():
        must_write(str(folder / name), value)


def be_quiet() -> None:
    """Have nothing migrate of which a row does not know."""
    for path, value in QUIET.items():
        must_write(path, value)


def rest_engine() -> None:
    """Have the engine as it is when nothing is wrong with it."""
    load_engine({"driver": "ptdma", "numa_node": "-1", "public": "N"})
    for name, value in AT_REST.items():
        if read(f"{ENGINE}/{name}") != value:
            must_write(f"{ENGINE}/{name}", value)


def load_engine(wanted: dict[str, str]) -> None:
    """Have the engine loaded with these parameters, which can be given at load only."""
    if modules.is_loaded("softdma"):
        if all(read(f"{ENGINE}/{name}") == value for name, value in wanted.items()):
            return
        must_write(f"{ENGINE}/others", "N")
        modules.unload("softdma")
    modules.load("softdma/softdma.ko", wanted)


def set_engine(engines: tuple[DmaEngine, ...], scale: float) -> None:
    """Make one device of ours look and behave like these.

    Raises:
        NotImplementedError: they differ in what one device has once.
    """
    looks = {(e.driver, e.numa_node, e.public, e.hangs, e.wrong_share, e.error_share, e.memcpy) for e in engines}
    if len(looks) > 1:
        raise NotImplementedError(f"one device cannot be all of these: {engines}")
    if not engines:
        must_write(f"{ENGINE}/channels", "0")
        return
    first = engines[0]
    load_engine(
        {
            "driver": first.driver,
            "numa_node": str(-1 if first.numa_node is None else first.numa_node),
            "public": "Y" if first.public else "N",
        }
    )
    switches = AT_REST | {
        "channels": str(sum(engine.channels for engine in engines)),
        "taken": str(sum(engine.taken for engine in engines)),
        "hang": "Y" if first.hangs else "N",
        "skip": "Y" if first.wrong_share == 1 else "N",
        "reverse": "Y" if 0 < first.wrong_share < 1 else "N",
        "refuse_permille": str(int(1000 * first.error_share)),
        "batch_delay_ms": ",".join(str(int(1000 * e.copy_seconds * scale)) for e in engines for _ in range(e.channels)),
    }
    for name, value in switches.items():
        if read(f"{ENGINE}/{name}") != value:
            must_write(f"{ENGINE}/{name}", value)


def channels_in_use() -> int:
    """Return how many channels have a client, but for those that are held all the time."""
    names = [name for name in os.listdir(DMA) if name.startswith("dma")]
    return sum(int(read(f"{DMA}/{name}/in_use")) for name in names) - int(read(f"{ENGINE}/taken"))


def await_true(holds: Callable[[], bool], what: str) -> None:
    """Return as soon as something holds that no event tells."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {WAIT_SECONDS_MAX:g} s: {what}")
        time.sleep(LOOK_SECONDS)


def is_blocked(path: str) -> bool:
    """Tell whether a task of ours or of our children is held up by the kernel in a call to a file."""
    return any(held_up_at(task) == path for pid in family() for task in tasks(pid))


def family() -> Iterator[int]:
    """Return this process and its children."""
    yield os.getpid()
    for task in tasks(os.getpid()):
        yield from (int(pid) for pid in read(f"{task}/children").split())


def tasks(pid: int) -> list[str]:
    """Return the folders of a process's threads."""
    try:
        return [f"/proc/{pid}/task/{name}" for name in os.listdir(f"/proc/{pid}/task")]
    except FileNotFoundError:
        return []


def held_up_at(task: str) -> str:
    """Return the file of the call in which the kernel has a task in state D; empty when there is none."""
    try:
        if read(f"{task}/stat").rpartition(")")[2].split()[0] != "D":
            return ""
        number, first, *_ = read(f"{task}/syscall").split()
        if number not in {str(SYS_READ), str(SYS_WRITE)}:
            return ""
        return os.readlink(f"{task.partition('/task/')[0]}/fd/{int(first, 16)}")
    except (OSError, ValueError):
        return ""  # it has gone on meanwhile
