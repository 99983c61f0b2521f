# SPDX-License-Identifier: Apache-2.0
"""Everything that touches kernel files or the baseline file, as jobs on threads that can be left behind.

* A kernel file may block for ten seconds and more, in a state that no signal ends. So each lane has a daemon thread of
  its own: nobody joins it, its answer may come late, and the process exits without it (promise 10).
* Deadlines are not here: whoever started a job looks at the clock, for a blocked job cannot say that it is.

Source: kernel/params.c and mm/migrate.c's SRCU wait at turn-off (batch copy offload series, RFC v6 2/5).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from errno import ENOSYS, EOPNOTSUPP
from queue import SimpleQueue
from typing import Final, assert_never

from numamigration_agent.baseline import BaselineFile, Loaded
from numamigration_agent.change import ReadKnob, SaveBaselines, WriteKnob
from numamigration_agent.kernel.codecs import Value
from numamigration_agent.kernel.counters import Counts, Look, look, memory_pressure, read_counters
from numamigration_agent.kernel.dialects import Knob
from numamigration_agent.kernel.engines import DMA_CLASS_DIR
from numamigration_agent.kernel.pages import MoveAnswer, Mover, MoveRequest, move_own_pages
from numamigration_agent.kernel.probe import HostFacts, KernelFacts, probe, probe_host
from numamigration_agent.kernel.room import Room, Strain, not_calm, read_room, read_strain
from numamigration_agent.kernel.signs import Channels, Signs, read_signs
from numamigration_agent.kernel.sysfs import STALE, Denied, Present, Reading, Sysfs
from numamigration_agent.kernel.timed_moves import (
    EndMoves,
    Prepare,
    Survey,
    TimedAnswer,
    TimedMover,
    TimedRequest,
    TimeMoves,
)
from numamigration_agent.memory import Memory, MemoryFile, Remembered
from numamigration_agent.probe_record import ProbeFile, ProbeRecord
from numamigration_agent.record import RecordFile
from numamigration_agent.verify import Verdict
from numamigration_api.machinery.records import dataclass
from numamigration_api.vocabulary import Dialect

PRESSURE_PERCENT_MAX: Final = 10.0  # then tasks wait for memory, and own pages would make them wait longer


@dataclass(frozen=True, slots=True)
class Begin:
    """Read what stays while this kernel runs, and the files of the state folder."""


@dataclass(frozen=True, slots=True)
class Begun:
    """Answer to Begin."""

    host: HostFacts
    loaded: Loaded
    verdict: Verdict | None = None
    remembered: Remembered = Remembered()
    probe: ProbeRecord | None = None


@dataclass(frozen=True, slots=True)
class Probe:
    """Read what the kernel has and holds now."""

    host: HostFacts


@dataclass(frozen=True, slots=True)
class ReadCounters:
    """Read the counters of a dialect, those of each NUMA node too when it is their turn."""

    dialect: Dialect
    numa_nodes: bool


@dataclass(frozen=True, slots=True)
class MovePages:
    """Move own pages, and read the counters of a dialect before and after; with `calm_only` not while tasks wait.

    `channels` is a knob to be read before and after, too: somebody else may write it meanwhile.
    """

    request: MoveRequest
    dialect: Dialect
    calm_only: bool = False
    channels: Knob | None = None


@dataclass(frozen=True, slots=True)
class Moved:
    """Answer to MovePages; `answer` is None when nothing was moved, for tasks waited for memory."""

    before: Counts
    answer: MoveAnswer | None
    after: Counts
    channels: tuple[Value | None, ...] = ()


@dataclass(frozen=True, slots=True)
class ReadSigns:
    """Read which channels are in use; `known` are those of the last sample. Waits for no turn-off."""

    known: Channels
    dialect: Dialect


@dataclass(frozen=True, slots=True)
class ReadRoom:
    """Look what there is for a probe on two NUMA nodes, and, where no task waits, what may be moved there."""

    numa_nodes: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Roomed:
    """Answer to ReadRoom.

    Attributes:
        survey: None where tasks wait.
        sizes: bytes of the folios that could be had.
    """

    strain: Strain
    room: Room
    survey: TimedAnswer | None = None
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class PrepareMoves:
    """Have own folios at hand, or give them back."""

    request: Prepare | EndMoves


@dataclass(frozen=True, slots=True)
class ClockMoves:
    """Move own folios against a clock, if no task waits; read counters and knobs before and after."""

    request: TimeMoves
    dialect: Dialect
    knobs: tuple[Knob, ...]


@dataclass(frozen=True, slots=True)
class Timed:
    """Answer to PrepareMoves and ClockMoves; `answer` is None where nothing was moved, since tasks wait."""

    answer: TimedAnswer | None
    strain: Strain = Strain()
    before: Counts = {}
    after: Counts = {}
    held: tuple[tuple[Value | None, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class SaveProbe:
    """Replace what is remembered of probes."""

    record: ProbeRecord
    boot_id: str


@dataclass(frozen=True, slots=True)
class SaveVerdict:
    """Replace the file with the last verdict."""

    verdict: Verdict
    boot_id: str


@dataclass(frozen=True, slots=True)
class SaveMemory:
    """Replace what the watch remembers."""

    memory: Memory
    boot_id: str


@dataclass(frozen=True, slots=True)
class Saved:
    """Answer to SaveBaselines, SaveVerdict, SaveMemory and SaveProbe; `problem` is empty when the file is safe."""

    problem: str


@dataclass(frozen=True, slots=True)
class Wrote:
    """Answer to WriteKnob; `errno` is None when the kernel took it."""

    errno: int | None


@dataclass(frozen=True, slots=True)
class Counted:
    """Answer to ReadCounters."""

    look: Look


@dataclass(frozen=True, slots=True)
class Broken:
    """The job ended with an error of this program."""

    error: Exception


Job = (
    Begin
    | Probe
    | ReadCounters
    | ReadSigns
    | MovePages
    | ReadRoom
    | PrepareMoves
    | ClockMoves
    | SaveProbe
    | SaveVerdict
    | SaveMemory
    | SaveBaselines
    | ReadKnob
    | WriteKnob
)
Answer = Begun | KernelFacts | Counted | Signs | Moved | Roomed | Timed | Saved | Reading | Wrote | Broken


def describe(job: Job) -> str:
    """Say what a job waits for."""
    match job:
        case ReadKnob(knob, _):
            return f"reading {knob.path}"
        case WriteKnob(knob, _, _):
            return f"writing {knob.path}"
        case SaveBaselines():
            return "saving the baselines"
        case _:
            return _WAITS_FOR.get(type(job), "reading the kernel's files")


_WAITS_FOR: Final[dict[type, str]] = {
    MovePages: "moving own pages",
    ReadRoom: "measuring with own pages",
    PrepareMoves: "measuring with own pages",
    ClockMoves: "measuring with own pages",
    SaveProbe: "saving what is known of the probe",
    SaveVerdict: "saving the verdict on the engine",
    SaveMemory: "saving what the watch remembers",
    ReadSigns: f"reading {DMA_CLASS_DIR}",
}


def nothing_timed(_request: TimedRequest) -> TimedAnswer:
    """Move nothing: for whoever has no process to move pages in."""
    return TimedAnswer(errno=ENOSYS, cause="nobody here moves pages against a clock")


def perform(
    job: Job,
    sysfs: Sysfs,
    file: BaselineFile,
    move: Mover = move_own_pages,
    move_timed: TimedMover = nothing_timed,
) -> Answer:
    """Do a job; may block."""
    match job:
        case Begin():
            return _begin(sysfs, file)
        case Probe(host):
            return probe(sysfs, host)
        case ReadCounters(dialect, numa_nodes):
            return Counted(look(sysfs, dialect, numa_nodes=numa_nodes))
        case ReadSigns(known, dialect):
            return read_signs(sysfs, known, dialect)
        case MovePages():
            return _move(job, sysfs, move)
        case ReadRoom() | PrepareMoves() | ClockMoves():
            return _measure(job, sysfs, move_timed)
        case SaveBaselines() | SaveVerdict() | SaveMemory() | SaveProbe():
            return _save(job, file)
        case ReadKnob(knob, life):
            return sysfs.read(knob.path) if _lives(sysfs, knob, life) else Denied(STALE)
        case WriteKnob(knob, value, life):
            return Wrote(sysfs.write(knob, value) if _lives(sysfs, knob, life) else STALE)
        case _:
            assert_never(job)


def _lives(sysfs: Sysfs, knob: Knob, life: int | None) -> bool:
    return life is None or sysfs.life(knob.folder) == life


def _begin(sysfs: Sysfs, file: BaselineFile) -> Begun:
    host = probe_host(sysfs)
    verdict = RecordFile(file.folder).load(host.boot_id)
    remembered, record = MemoryFile(file.folder).load(host.boot_id), ProbeFile(file.folder).load(host.boot_id)
    return Begun(host, file.load(host.boot_id), verdict, remembered, record)


def _move(job: MovePages, sysfs: Sysfs, move: Mover) -> Moved:
    if job.calm_only and memory_pressure(sysfs) > PRESSURE_PERCENT_MAX:
        return Moved({}, None, {})
    before, held = read_counters(sysfs, job.dialect), [_held(job.channels, sysfs)]
    answer = move(job.request)
    held.append(_held(job.channels, sysfs))
    return Moved(before, answer, read_counters(sysfs, job.dialect), tuple(held))


def _measure(job: ReadRoom | PrepareMoves | ClockMoves, sysfs: Sysfs, move_timed: TimedMover) -> Roomed | Timed:
    match job:
        case ReadRoom(numa_nodes):
            return _look_for_room(numa_nodes, sysfs, move_timed)
        case PrepareMoves(request):
            return Timed(move_timed(request))
        case ClockMoves():
            return _clock(job, sysfs, move_timed)
        case _:
            assert_never(job)


def _look_for_room(numa_nodes: tuple[int, int], sysfs: Sysfs, move_timed: TimedMover) -> Roomed:
    strain, room = read_strain(sysfs), read_room(sysfs, numa_nodes)
    if not_calm(strain, own=False):
        return Roomed(strain, room)
    survey = move_timed(Survey(*numa_nodes))
    sizes = [size for size in room.folio_sizes if not survey.errno and _can_be_had(size, numa_nodes, move_timed)]
    move_timed(EndMoves())
    return Roomed(strain, room, survey, tuple(sizes))


def _can_be_had(size: int, numa_nodes: tuple[int, int], move_timed: TimedMover) -> bool:
    """Whether the kernel makes folios of a size; else why not is told when all of them are wanted."""
    return move_timed(Prepare(*numa_nodes, size, 2 * size)).errno != EOPNOTSUPP


def _clock(job: ClockMoves, sysfs: Sysfs, move_timed: TimedMover) -> Timed:
    strain = read_strain(sysfs)
    if not_calm(strain, own=True):
        return Timed(None, strain)
    before, held = read_counters(sysfs, job.dialect), [tuple(_held(knob, sysfs) for knob in job.knobs)]
    answer = move_timed(job.request)
    held.append(tuple(_held(knob, sysfs) for knob in job.knobs))
    return Timed(answer, strain, before, read_counters(sysfs, job.dialect), tuple(held))


def _held(knob: Knob | None, sysfs: Sysfs) -> Value | None:
    reading = sysfs.read(knob.path) if knob else None
    return knob.codec.parse(reading.text) if knob and isinstance(reading, Present) else None


def _save(job: SaveBaselines | SaveVerdict | SaveMemory | SaveProbe, file: BaselineFile) -> Saved:
    match job:
        case SaveBaselines(baselines):
            return Saved(file.save(baselines))
        case SaveVerdict(verdict, boot_id):
            return Saved(RecordFile(file.folder).save(verdict, boot_id))
        case SaveMemory(memory, boot_id):
            return Saved(MemoryFile(file.folder).save(memory, boot_id))
        case SaveProbe(record, boot_id):
            return Saved(ProbeFile(file.folder).save(record, boot_id))
        case _:
            assert_never(job)


class Worker:
    """A thread that carries out jobs one after the other, and may be left behind with any of them.

    One for each lane, since a lane carries one job at a time: a job that blocks keeps its own lane's thread only. It
    lives as long as the process; a thread for each job took a quarter of the CPU time of looks and counts.
    """

    def __init__(self, name: str) -> None:
        self._work: SimpleQueue[tuple[Callable[[], Answer], Callable[[Answer], None]]] = SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def start(self, work: Callable[[], Answer], deliver: Callable[[Answer], None]) -> None:
        """Do `work`, and deliver its answer from the thread, however late."""
        self._work.put((work, deliver))

    def _run(self) -> None:
        while True:
            work, deliver = self._work.get()
            deliver(_answer(work))


def _answer(work: Callable[[], Answer]) -> Answer:
    try:
        return work()
    except Exception as error:  # noqa: BLE001  # raised again on the main thread, which then ends the process
        return Broken(error)
