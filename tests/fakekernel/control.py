# SPDX-License-Identifier: Apache-2.0
"""What one can do to a running fake host from outside, as JSON lines over a unix socket.

One command a line, one reply a line: ``{"do": "drift", "path": "/proc/sys/kernel/numa_balancing", "text": "0"}``.
A refusal of the kernel comes back as ``errno`` with a message, a malformed line as a message alone.

Everything that touches the kernel goes through ``RunningKernel``: one lock round the model, and time that is caught up
before each look. So no thread ticks, counters are exact at the moment they are read, and an unread host costs nothing.
Who waits for something in the model (a held call, a command that waits) lets go of the lock meanwhile.
"""

from __future__ import annotations

import math
import os
import signal
import socketserver
import threading
import time
from collections.abc import Callable
from errno import EIO
from pathlib import Path
from types import TracebackType
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from numamigration_api.vocabulary import MigrationReason
from tests.fakekernel.calls import Call, Gate
from tests.fakekernel.config import DmaEngine, Share, Spoiled, Workload
from tests.fakekernel.model import FakeKernel, Snapshot, Store
from tests.fakekernel.moves import Move, Moved
from tests.fakekernel.parsing import KernelError

Seconds = Annotated[float, Meta(ge=0)]


class RunningKernel:
    """The model, shared by threads and driven by a clock: ``with running as kernel``."""

    def __init__(self, kernel: FakeKernel, clock: Callable[[], float] | None) -> None:
        """Share `kernel`; without a clock time stands still and moves by ``Advance`` only."""
        self._kernel = kernel
        self._clock = clock
        self._changed = threading.Condition()
        self._caught_up_to = clock() if clock else 0.0
        self._ending = False

    def __enter__(self) -> FakeKernel:
        self._changed.acquire()
        self._catch_up()
        return self._kernel

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._changed.notify_all()
        self._changed.release()

    def wait(self, holds: Callable[[FakeKernel], bool], seconds_max: float | None = None) -> bool:
        """Wait until the kernel is in a state, and tell whether it came to that; the lock is free meanwhile."""
        deadline = None if seconds_max is None else time.monotonic() + seconds_max
        with self as kernel:
            while not holds(kernel):
                left = None if deadline is None else deadline - time.monotonic()
                if self._ending or (left is not None and left <= 0):
                    return False
                self._changed.wait(
                    min([wait for wait in (left, self._seconds_to_event()) if wait is not None], default=None)
                )
                self._catch_up()
                self._changed.notify_all()
            return True

    def finish(self, call: Call) -> bytes | int:
        """Wait until a call is over and return its answer, EIO when the host ends before."""
        if not self.wait(lambda _: call.over):
            raise KernelError(EIO)
        return call.result()

    def end(self) -> None:
        """Let go everybody who waits: a mount can only be left when nobody is in it."""
        with self:
            self._ending = True

    def _seconds_to_event(self) -> float | None:
        """Return when something happens that nobody does; None: never."""
        seconds = self._kernel.seconds_to_event() if self._clock else math.inf
        return None if seconds == math.inf else seconds

    def _catch_up(self) -> None:
        if self._clock:
            now = self._clock()
            self._kernel.advance(now - self._caught_up_to)
            self._caught_up_to = now


class Reply(Struct, frozen=True, omit_defaults=True):
    """What came of a command."""

    message: str = ""
    """Why it failed; empty when it did not."""
    errno: int = 0
    stores: tuple[Store, ...] = ()
    log: tuple[str, ...] = ()
    snapshot: Snapshot | None = None
    moved: Moved | None = None
    held: str = ""
    """Path of the file whose store is held at the gate."""


class Load(Struct, frozen=True, tag_field="do", tag="load"):
    """Load the driver, with parameters; V5 ignores them."""

    parameters: dict[str, str] = {}

    def perform(self, kernel: FakeKernel) -> Reply:
        kernel.load(self.parameters)
        return Reply()


class BeginUnload(Struct, frozen=True, tag_field="do", tag="beginUnload"):
    """Stop half way through an unload: the files are there, turning on answers ENODEV; ``Unload`` ends it."""

    def perform(self, kernel: FakeKernel) -> Reply:
        kernel.begin_unload()
        return Reply()


class Unload(Struct, frozen=True, tag_field="do", tag="unload"):
    """Unload the driver; EAGAIN while offload is on."""

    def perform(self, kernel: FakeKernel) -> Reply:
        kernel.unload()
        return Reply()


class Reboot(Struct, frozen=True, tag_field="do", tag="reboot"):
    """Lose all kernel state; the files stay reachable under the same mount."""

    def perform(self, kernel: FakeKernel) -> Reply:
        kernel.reboot()
        return Reply()


class SetWorkloads(Struct, frozen=True, tag_field="do", tag="setWorkloads"):
    """Replace what migrates."""

    workloads: tuple[Workload, ...]

    def perform(self, kernel: FakeKernel) -> Reply:
        kernel.set_workloads(self.workloads)
        return Reply()


class SetEngines(Struct, frozen=True, tag_field="do", tag="setEngines"):
    """Replace the DMA devices."""

    engines: tuple[DmaEngine, ...]

    def perform(self, kernel: FakeKernel) -> Reply:
        kernel.set_engines(self.engines)
        return Reply()


class SetDmaengineUsers(Struct, frozen=True, tag_field="do", tag="setDmaengineUsers"):
    """Let so many others have called dmaengine_get(): with one or more, public engines are of no use to dcbm."""

    count: Annotated[int, Meta(ge=0)]

    def perform(self, kernel: FakeKernel) -> Reply:
        kernel.set_dmaengine_users(self.count)
        return Reply()


class SetOtherMigrator(Struct, frozen=True, tag_field="do", tag="setOtherMigrator"):
    """Let another migrator be registered, or not."""

    registered: bool

    def perform(self, kernel: FakeKernel) -> Reply:
        kernel.set_other_migrator(registered=self.registered)
        return Reply()


class SetPressure(Struct, frozen=True, tag_field="do", tag="setPressure"):
    """Set the shares of time in which some task, or all of them, wait for something."""

    resource: Literal["cpu", "memory", "io"]
    some: Share
    full: Share = 0.0

    def perform(self, kernel: FakeKernel) -> Reply:
        kernel.set_pressure(self.resource, self.some, self.full)
        return Reply()


class SetCounter(Struct, frozen=True, tag_field="do", tag="setCounter"):
    """Let a counter be somewhere else: one of the driver by its file, one of a vmstat file by its name in there."""

    path: str
    value: Annotated[int, Meta(ge=0)]
    name: str = ""

    def perform(self, kernel: FakeKernel) -> Reply:
        kernel.set_counter(self.path, self.value, self.name)
        return Reply()


class Spoil(Struct, frozen=True, tag_field="do", tag="spoil"):
    """Let something be wrong with a file."""

    path: str
    spoiled: Spoiled

    def perform(self, kernel: FakeKernel) -> Reply:
        kernel.spoil(self.path, self.spoiled)
        return Reply()


class Heal(Struct, frozen=True, tag_field="do", tag="heal"):
    """Let a file be itself again."""

    path: str

    def perform(self, kernel: FakeKernel) -> Reply:
        kernel.heal(self.path)
        return Reply()


class Migrate(Struct, frozen=True, tag_field="do", tag="migrate"):
    """Let a program migrate some folios now and end; with an engine that takes time its batches are then in flight."""

    workload: Workload
    folios: Annotated[int, Meta(ge=1)]

    def perform(self, kernel: FakeKernel) -> Reply:
        kernel.migrate(self.workload, self.folios)
        return Reply()


class MoveOwnPages(Struct, frozen=True, tag_field="do", tag="moveOwnPages"):
    """Move folios of the agent's own with one system call and answer when it is over; see ``moves``."""

    reason: MigrationReason
    source: int
    destination: int
    small: Annotated[int, Meta(ge=0)]
    huge: Annotated[int, Meta(ge=0)] = 0

    def begin(self, kernel: FakeKernel) -> Move:
        return kernel.begin_move(self.reason, self.source, self.destination, small=self.small, huge=self.huge)


class EndBatches(Struct, frozen=True, tag_field="do", tag="endBatches"):
    """Let every batch in flight end now, with the result it was to have; so a test decides how long a stall is."""

    def perform(self, kernel: FakeKernel) -> Reply:
        kernel.end_batches()
        return Reply()


class Drift(Struct, frozen=True, tag_field="do", tag="drift"):
    """Write a file as another process of the host, which waits where the kernel makes it wait; the command does not."""

    path: str
    text: str

    def perform(self, kernel: FakeKernel) -> Reply:
        kernel.drift(self.path, self.text)
        return Reply()


class Advance(Struct, frozen=True, tag_field="do", tag="advance"):
    """Let time pass at once."""

    seconds: Seconds

    def perform(self, kernel: FakeKernel) -> Reply:
        kernel.advance(self.seconds)
        return Reply()


class CloseGate(Struct, frozen=True, tag_field="do", tag="closeGate"):
    """Hold one of the next stores that programs make; those of ``Drift`` pass."""

    gate: Gate = Gate()

    def perform(self, kernel: FakeKernel) -> Reply:
        kernel.gate.close(self.gate)
        return Reply()


class OpenGate(Struct, frozen=True, tag_field="do", tag="openGate"):
    """Let the held store go on, if one is held, and hold none any more.

    After the writer was killed, ``drop`` makes a store that has no effect yet have none. The killed process is gone
    only then: FUSE, like a driver, lets nobody go whose request it has taken.
    """

    drop: bool = False

    def perform(self, kernel: FakeKernel) -> Reply:
        kernel.open_gate(drop=self.drop)
        return Reply()


class AwaitHeld(Struct, frozen=True, tag_field="do", tag="awaitHeld"):
    """Answer when a store is held at the gate, with its file."""

    seconds_max: Seconds = 30.0

    def holds(self, kernel: FakeKernel) -> bool:
        return kernel.gate.held is not None

    def perform(self, kernel: FakeKernel) -> Reply:
        held = kernel.gate.held
        return Reply(held=held.path) if held else Reply(message=f"no store was held within {self.seconds_max:g} s")


class AwaitBlocked(Struct, frozen=True, tag_field="do", tag="awaitBlocked"):
    """Answer when a call to a file (empty: to any) waits for a lock of the kernel or for batches in flight."""

    path: str = ""
    seconds_max: Seconds = 30.0

    def holds(self, kernel: FakeKernel) -> bool:
        return any(self.path in {"", call.path} for call in kernel.blocked)

    def perform(self, kernel: FakeKernel) -> Reply:
        if self.holds(kernel):
            return Reply()
        return Reply(message=f"no call to {self.path or 'any file'} was blocked within {self.seconds_max:g} s")


class AwaitInFlight(Struct, frozen=True, tag_field="do", tag="awaitInFlight"):
    """Answer when a batch is on its way through an engine."""

    seconds_max: Seconds = 30.0

    def holds(self, kernel: FakeKernel) -> bool:
        return kernel.snapshot().channels_in_use > 0

    def perform(self, kernel: FakeKernel) -> Reply:
        return Reply() if self.holds(kernel) else Reply(message=f"no batch was in flight within {self.seconds_max:g} s")


class ReadStores(Struct, frozen=True, tag_field="do", tag="readStores"):
    """Return every call of a write handler since the start, oldest first."""

    def perform(self, kernel: FakeKernel) -> Reply:
        return Reply(stores=tuple(kernel.stores))


class ReadLog(Struct, frozen=True, tag_field="do", tag="readLog"):
    """Return what driver and core have written to the kernel's log since boot, oldest first."""

    def perform(self, kernel: FakeKernel) -> Reply:
        return Reply(log=tuple(kernel.log))


class TakeSnapshot(Struct, frozen=True, tag_field="do", tag="takeSnapshot"):
    """Return the kernel's state."""

    def perform(self, kernel: FakeKernel) -> Reply:
        return Reply(snapshot=kernel.snapshot())


class Quit(Struct, frozen=True, tag_field="do", tag="quit"):
    """Unmount and end."""

    def perform(self, kernel: FakeKernel) -> Reply:  # noqa: ARG002  # one signature for all commands
        os.kill(os.getpid(), signal.SIGTERM)
        return Reply()


Command = (
    Load
    | BeginUnload
    | Unload
    | Reboot
    | SetWorkloads
    | SetEngines
    | SetDmaengineUsers
    | SetOtherMigrator
    | SetPressure
    | SetCounter
    | Spoil
    | Heal
    | Migrate
    | MoveOwnPages
    | EndBatches
    | Drift
    | Advance
    | CloseGate
    | OpenGate
    | AwaitHeld
    | AwaitBlocked
    | AwaitInFlight
    | ReadStores
    | ReadLog
    | TakeSnapshot
    | Quit
)

_COMMANDS = msgspec.json.Decoder(Command)


def answer(running: RunningKernel, line: bytes) -> Reply:
    """Decode one line, do it, say what came of it."""
    try:
        command: Command = _COMMANDS.decode(line)
    except msgspec.DecodeError as error:
        return Reply(message=str(error))
    try:
        if isinstance(command, MoveOwnPages):
            return Reply(moved=_move(running, command))
        if isinstance(command, AwaitHeld | AwaitBlocked | AwaitInFlight):
            running.wait(command.holds, command.seconds_max)
        with running as kernel:
            return command.perform(kernel)
    except KernelError as error:
        return Reply(message=str(error), errno=error.errno or 0)
    except ValueError as error:
        return Reply(message=str(error))


def _move(running: RunningKernel, command: MoveOwnPages) -> Moved:
    with running as kernel:
        move = command.begin(kernel)
    if not running.wait(lambda _: move.over):
        raise KernelError(EIO)
    return move.answer()


def serve(running: RunningKernel, socket_path: Path) -> None:
    """Answer commands on a unix socket, each connection on its own thread, until the process ends."""

    class Connection(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                self.wfile.write(msgspec.json.encode(answer(running, line)) + b"\n")

    socket_path.unlink(missing_ok=True)  # of an earlier run, by hand, on the same path
    server = socketserver.ThreadingUnixStreamServer(str(socket_path), Connection)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="control", daemon=True).start()
