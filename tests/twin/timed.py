# SPDX-License-Identifier: Apache-2.0
"""The twin of what moves the agent's own pages against a clock: they move inside the model, as fast as a table says.

The table is the host's (``HostConfig.speeds``); what stands in it is a model of a machine and measures nothing. Which
row counts is decided by what the kernel does then: whether the switch is on, the reason eligible, and a channel free.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import ENOMEM, EOPNOTSUPP
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

import msgspec

from numamigration_agent.kernel.timed_moves import (
    EndMoves,
    Prepare,
    Survey,
    TimedAnswer,
    TimedMover,
    TimedRequest,
    TimeMoves,
)
from numamigration_api.vocabulary import MigrationReason
from tests.fakekernel.config import HostConfig, Speed
from tests.fakekernel.control import MoveOwnPages, TakeSnapshot
from tests.fakekernel.host import FakeHostError, ask, move_own_pages
from tests.fakekernel.layout import PAGE_BYTES, THP_PAGES
from tests.fakekernel.model import FakeKernel, Snapshot
from tests.fakekernel.moves import Move, Moved
from tests.fakekernel.parsing import KernelError
from tests.twin.held_up import HeldUpError

HUGE_BYTES: Final = THP_PAGES * PAGE_BYTES
REASON: Final = MigrationReason.SYSCALL_OR_CPUSET
CPU_SHARE: Final = 0.9
"""Of the time that a migrator waits, on its CPU; with an engine it sleeps meanwhile, and a fifth is left."""
CPU_SHARE_WITH_ENGINE: Final = 0.2
GIGA: Final = 1e9
BATCH_SECONDS_MAX: Final = 0.5
"""Of a batch that nothing holds up: its time passes at once."""


class Calls(NamedTuple):
    """What the twin asks of the fake kernel."""

    move: Callable[[MoveOwnPages], Moved]
    folios_offloaded: Callable[[], int]
    channels: Callable[[], int]
    """Of one batch, as the driver is set."""


def timed_twin(kernel: FakeKernel, rng: Random | None = None) -> TimedMover:
    """Return the timed mover of a fake kernel in this process."""

    def move(command: MoveOwnPages) -> Moved:
        return kernel.move_own_pages(
            command.reason, command.source, command.destination, small=command.small, huge=command.huge
        )

    calls = Calls(move, lambda: kernel.snapshot().folios_migrated, lambda: kernel.snapshot().nr_dma_chan)
    return timed_mover(kernel.config, calls, rng or Random(1))


class PatientTimedMover:
    """The same where moves may be held up: who made one is told, and asked again it waits for that one."""

    def __init__(self, kernel: FakeKernel, rng: Random) -> None:
        self._kernel = kernel
        self._held: Move | None = None
        calls = Calls(self._move, lambda: kernel.snapshot().folios_migrated, lambda: kernel.snapshot().nr_dma_chan)
        self._answer = timed_mover(kernel.config, calls, rng)

    def __call__(self, request: TimedRequest) -> TimedAnswer:
        """Answer a request.

        Raises:
            HeldUpError: an engine holds the pages.
        """
        return self._answer(request)

    def _move(self, command: MoveOwnPages) -> Moved:
        way = command.source, command.destination
        begun, self._held = self._held, None
        move = begun or self._kernel.begin_move(command.reason, *way, small=command.small, huge=command.huge)
        while not move.over:
            seconds = self._kernel.seconds_to_event()
            if seconds > BATCH_SECONDS_MAX:
                self._held = move
                raise HeldUpError(lambda: move.over)
            self._kernel.advance(seconds)
        return move.answer()


def timed_twin_of_host(home: Path) -> TimedMover:
    """Return the timed mover of the fake host whose folder that is; what it says of time is the table's."""
    control, config = home / "control", msgspec.json.decode((home / "config.json").read_bytes(), type=HostConfig)

    def snapshot() -> Snapshot:
        found = ask(control, TakeSnapshot()).snapshot
        if found is None:
            raise FakeHostError("no snapshot in the reply")
        return found

    calls = Calls(
        move=lambda command: move_own_pages(control, command),
        folios_offloaded=lambda: snapshot().folios_migrated,
        channels=lambda: snapshot().nr_dma_chan,
    )
    return timed_mover(config, calls, Random())


def timed_mover(config: HostConfig, calls: Calls, rng: Random) -> TimedMover:
    """Return what answers for one host, with the spread of its table."""
    prepared: list[Prepare] = []

    def answer(request: TimedRequest) -> TimedAnswer:
        match request:
            case EndMoves():
                prepared.clear()
                return TimedAnswer()
            case Survey(source, destination):
                calls.move(MoveOwnPages(REASON, source, destination, 1, 0))
                return TimedAnswer(room=config.memory_room)
            case Prepare():
                if request.folio_bytes not in {PAGE_BYTES, HUGE_BYTES}:
                    return TimedAnswer(errno=EOPNOTSUPP, cause="the model has two sizes of folios")
                prepared[:] = [request]
                return TimedAnswer(bytes=request.bytes)
            case TimeMoves(folios, _):
                return _time(prepared[0], folios, config.speeds, calls, rng)

    def safe(request: TimedRequest) -> TimedAnswer:
        try:
            return answer(request)
        except KernelError as error:
            return TimedAnswer(errno=error.errno or 0, cause=str(error))

    return safe


def _time(prepared: Prepare, folios: int, speeds: tuple[Speed, ...], calls: Calls, rng: Random) -> TimedAnswer:
    is_huge = prepared.folio_bytes == HUGE_BYTES
    before, moved = calls.folios_offloaded(), 0
    for _ in range(prepared.migrators):
        command = MoveOwnPages(
            REASON, prepared.source, prepared.destination, 0 if is_huge else folios, folios if is_huge else 0
        )
        found = calls.move(command)
        if found.errno:
            return TimedAnswer(errno=found.errno, cause=found.cause)
        moved += found.folios
    if not moved:
        return TimedAnswer(errno=ENOMEM, cause="no folio arrived")
    by_engine = calls.folios_offloaded() - before >= moved
    speed = _speed(speeds, calls.channels() if by_engine else 0, prepared.folio_bytes, rng)
    bytes_moved = moved * prepared.folio_bytes
    seconds = bytes_moved / speed
    share = CPU_SHARE_WITH_ENGINE if by_engine else CPU_SHARE
    return TimedAnswer(bytes_moved, moved, 0, seconds, seconds * share)


def _speed(speeds: tuple[Speed, ...], channels: int, folio_bytes: int, rng: Random) -> float:
    """Return bytes per second of the nearest row."""
    kind = [row for row in speeds if bool(row.channels) == bool(channels)] or [Speed(0, 1, 1.0)]
    row = min(kind, key=lambda row: (abs(row.folio_bytes - folio_bytes), abs(row.channels - channels)))
    return max(0.01, rng.gauss(row.gbps, row.deviation)) * GIGA


def _table(cpu: tuple[float, float], dma: dict[int, tuple[float, float]], spread: float) -> tuple[Speed, ...]:
    rows = {0: cpu, **dma}
    return tuple(
        Speed(channels, size, gbps, gbps * spread)
        for channels, both in rows.items()
        for size, gbps in zip((PAGE_BYTES, HUGE_BYTES), both, strict=True)
    )


DMA_WINS: Final = _table((3.7, 10.7), {1: (2.8, 12.5), 2: (3.4, 14.2), 4: (5.6, 26.8)}, 0.03)
"""A model of a machine whose engine is the faster one with four channels, and not with one."""
DMA_LOSES: Final = _table((3.7, 10.7), {1: (1.1, 2.9), 2: (1.6, 4.0), 4: (2.2, 6.1)}, 0.03)
"""A model of a machine whose engine is slower than plain copy, however many channels it has."""
