# SPDX-License-Identifier: Apache-2.0
"""Times migrations of pages of the agent's own, in child processes that live as long as one probe of settings.

* Child processes, and not threads: an engine that hangs holds whoever migrates where no signal reaches it, and the
  memory would be held with it. A process is left behind with its memory, and is gone once the kernel lets it go. Nor
  do concurrent migrators share an address space then, which would make them wait for each other.
* One for each concurrent migrator, kept from sample to sample: memory takes longer to make and fill than to move.
* All that is asked of them is a line, and so is what they answer. They die with the agent, and when asked no more.

``move_timed`` of a ``Movers`` is called from one thread, which may be left behind with it (jobs.py).

Sources: as in ``pages``.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from numamigration_agent.kernel.pages import child_command

PREPARE_SECONDS_MAX: Final = 30.0  # memory is taken and written; nothing of it goes through an engine
WAIT_SECONDS_MAX: Final = 30.0  # beyond a sample's time; whoever waits for it has given up long before
REAP_SECONDS_MAX: Final = 2.0
_PIECE: Final = 1 << 16


class Survey(NamedTuple):
    """Ask whether pages can be moved between two NUMA nodes at all, and for how much memory there is room."""

    source: int
    destination: int


class Prepare(NamedTuple):
    """Have folios of one size at hand on `source`, shared among so many migrators.

    Attributes:
        bytes: of all migrators together.
    """

    source: int
    destination: int
    folio_bytes: int
    bytes: int
    migrators: int = 1


class TimeMoves(NamedTuple):
    """Move folios that are at hand, `folios` with each call, for about so long.

    Attributes:
        seconds: the call under way then is still waited for.
    """

    folios: int
    seconds: float


class EndMoves(NamedTuple):
    """Give all memory back."""


class TimedAnswer(NamedTuple):
    """What came of a request.

    Attributes:
        bytes: that arrived on the other NUMA node.
        folios: that did.
        left: folios that did not.
        seconds: in which they moved.
        cpu_seconds: that the migrators took for it.
        errno: why nothing, or no more, was done; 0 when all was.
        cause: the same in words; empty when all was done.
        room: bytes until the next limit of the agent's control groups; None when there is none.
    """

    bytes: int = 0
    folios: int = 0
    left: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    errno: int = 0
    cause: str = ""
    room: int | None = None


TimedRequest = Survey | Prepare | TimeMoves | EndMoves
TimedMover = Callable[[TimedRequest], TimedAnswer]
"""Moves and times pages; may block. ``Movers().move_timed`` or, on a fake kernel, its twin."""


class Migrator:
    """One child process."""

    def __init__(self) -> None:
        """Start it.

        Raises:
            OSError: it could not be started.
        """
        self._answers, stdout = os.pipe()
        stdin, self._asks = os.pipe()
        command = child_command(str(os.getpid()), module="timed_mover")
        streams = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, stdout, 1)]
        try:
            self.pid = os.posix_spawn(command[0], command, {}, file_actions=streams)
        except OSError:
            self._close()
            raise
        finally:
            os.close(stdin)
            os.close(stdout)
        self._read = b""

    def ask(self, *words: object) -> None:
        """Send a request; a child that is gone is found when it should answer."""
        with contextlib.suppress(OSError):
            os.write(self._asks, json.dumps(words).encode() + b"\n")

    def answer(self, deadline: float) -> TimedAnswer:
        """Return the answer to the last request."""
        while b"\n" not in self._read:
            if not select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return TimedAnswer(errno=errno.ETIMEDOUT, cause="the process that moves pages did not answer in time")
            piece = os.read(self._answers, _PIECE)
            if not piece:
                return TimedAnswer(errno=errno.ECHILD, cause="the process that moves pages has ended (no memory left?)")
            self._read += piece
        line, _, self._read = self._read.partition(b"\n")
        return TimedAnswer(*json.loads(line))

    def end(self) -> None:
        """End it as soon as the kernel lets it go."""
        self._close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def reap(self) -> bool:
        """Whether it is gone."""
        try:
            return os.waitpid(self.pid, os.WNOHANG)[0] != 0
        except ChildProcessError:
            return True

    def _close(self) -> None:
        os.close(self._answers)
        os.close(self._asks)


class Movers:
    """The children of one agent."""

    def __init__(self) -> None:
        self._migrators: list[Migrator] = []
        self._ended: list[Migrator] = []
        self._prepared: Prepare | None = None

    def move_timed(self, request: TimedRequest) -> TimedAnswer:
        """Do what is asked for; may block as long as a child does, but for no longer than the bounds above."""
        try:
            answer = self._do(request)
        except OSError as error:
            answer = TimedAnswer(errno=error.errno or errno.EIO, cause=f"no process to move pages in: {error}")
        except (ValueError, TypeError) as error:
            answer = TimedAnswer(errno=errno.EIO, cause=f"the process that moves pages answered nonsense: {error}")
        if answer.errno:
            self._end()
        return answer

    def _do(self, request: TimedRequest) -> TimedAnswer:
        match request:
            case EndMoves():
                self._end()
                return TimedAnswer()
            case Survey():
                self._have(1)
                return self._ask(PREPARE_SECONDS_MAX, "survey", *request)
            case Prepare():
                return TimedAnswer() if request == self._prepared else self._prepare(request)
            case TimeMoves(folios, seconds):
                if self._prepared is None:
                    return TimedAnswer(errno=errno.ENOMEM, cause="no folios are at hand")
                return self._ask(seconds + WAIT_SECONDS_MAX, "time", folios, seconds)

    def _prepare(self, request: Prepare) -> TimedAnswer:
        self._have(request.migrators)
        self._prepared = None
        share = request.bytes // request.migrators
        answer = self._ask(PREPARE_SECONDS_MAX, "have", request.source, request.destination, request.folio_bytes, share)
        self._prepared = None if answer.errno else request
        return answer

    def _have(self, number: int) -> None:
        while len(self._migrators) > number:
            self._leave(self._migrators.pop())
        while len(self._migrators) < number:
            self._migrators.append(Migrator())

    def _ask(self, seconds_max: float, *words: object) -> TimedAnswer:
        deadline = time.monotonic() + seconds_max
        for migrator in self._migrators:
            migrator.ask(*words)
        return together([migrator.answer(deadline) for migrator in self._migrators])

    def _end(self) -> None:
        for migrator in self._migrators:
            self._leave(migrator)
        self._migrators, self._prepared = [], None
        deadline = time.monotonic() + REAP_SECONDS_MAX
        while self._reaping() and time.monotonic() < deadline:
            time.sleep(0.01)  # one that a hung engine holds is looked for again when the next probe ends

    def _leave(self, migrator: Migrator) -> None:
        migrator.end()
        self._ended.append(migrator)

    def _reaping(self) -> bool:
        self._ended = [migrator for migrator in self._ended if not migrator.reap()]
        return bool(self._ended)


def together(answers: Sequence[TimedAnswer]) -> TimedAnswer:
    """Return what migrators did at the same time as one answer, whose speed is the sum of theirs."""
    failed = next((answer for answer in answers if answer.errno), None)
    if failed is not None:
        return failed
    moved, speed = sum(one.bytes for one in answers), sum(one.bytes / one.seconds for one in answers if one.seconds > 0)
    rooms = [one.room for one in answers if one.room is not None]
    return TimedAnswer(
        bytes=moved,
        folios=sum(one.folios for one in answers),
        left=sum(one.left for one in answers),
        seconds=moved / speed if speed else max((one.seconds for one in answers), default=0.0),
        cpu_seconds=sum(one.cpu_seconds for one in answers),
        room=min(rooms, default=None),
    )
