# SPDX-License-Identifier: Apache-2.0
"""The one module through which the agent migrates pages: its own, filled with a pattern, moved, compared, moved back.

It has a child process do it (``mover``). An engine that hangs holds the caller in a state that no signal ends, 10 s for
each batch: then only the child hangs, and the agent reads its clock and turns the engine off. The memory is the child's
too, and gone with it. It is started without our other modules and without site packages, so that it starts fast.

Sources: mm/migrate.c; "[PATCH RFC v6 0/5]" of the batch copy offload series, 4/5 (the wait for a batch, 10 s).
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import IO, Any, Final, NamedTuple

SYSCALL_OR_CPUSET: Final = "syscall_or_cpuset"
"""Migration reason of move_pages(2)."""
MEMPOLICY_MBIND: Final = "mempolicy_mbind"
"""Migration reason of mbind(2) with MPOL_MF_MOVE."""

BATCH_BYTES_MAX: Final = 4 << 20
"""Of one batch. With its copy on the other NUMA node and the pattern, three times this is held at once."""
BATCHES_MAX: Final = 100  # two directions each, and the bytes of each direction are made in one of 255 ways
CHILD_SECONDS_MAX: Final = 10.0  # to start and to end, beside the request's own; whoever waits has given up before
START_SECONDS_MAX: Final = 0.3  # beyond the request's time, and well before whoever waits gives up
MOVES: Final = b" "
"""What the child says when it is about to move pages; its answer follows, and JSON takes no notice of a blank."""
_PIECE: Final = 1 << 16

_PACKAGES: Final = __file__.rsplit("/", 3)[0]
_BUSY: Final = "the node is busy, or the CPU limit of this container is low"
_PROGRAM: Final = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from numamigration_agent.kernel.{} import main; sys.exit(main(sys.argv[2:]))"
)


class Batch(NamedTuple):
    """Folios that one call moves from a NUMA node to another one, and then one call back."""

    source: int
    destination: int
    small: int
    huge: int = 0


class MoveRequest(NamedTuple):
    """What to move.

    Attributes:
        reason: a migration reason that we can cause, which decides the system call.
        salt: makes the bytes of this request unlike those of any other one.
        seconds_max: so long after the request no further call is made; one under way takes as long as the kernel does.
    """

    reason: str
    batches: tuple[Batch, ...]
    salt: int
    seconds_max: float


class Passage(NamedTuple):
    """What came of one direction of a batch.

    Attributes:
        source: NUMA node where the folios were.
        folios: that arrived.
        huge: how many of those were huge.
        left: folios that did not arrive.
        wrong: folios, arrived or not, that hold wrong bytes.
        wrong_at: where the first wrong byte is, counted from the batch's first; -1 when there is none.
        errno: of the first folio that did not arrive; 0 when all did, or when the kernel does not say.
        cause: the same in words.
        seconds: that the system call took.
    """

    source: int
    destination: int
    folios: int
    huge: int = 0
    left: int = 0
    wrong: int = 0
    wrong_at: int = -1
    errno: int = 0
    cause: str = ""
    seconds: float = 0.0


class MoveAnswer(NamedTuple):
    """What came of a request.

    Attributes:
        passages: two for each batch, there and back, in order, as far as there are such folios and they were tried.
        errno: why no more was tried; 0 when all was, or when `cause` is not an errno's.
        cause: the same in words; empty when all was tried.
        seconds: from the request to the answer.
        huge_left_out: bytes of a huge page of this kernel, where that is too large to be tried; else 0.
    """

    passages: tuple[Passage, ...]
    errno: int = 0
    cause: str = ""
    seconds: float = 0.0
    huge_left_out: int = 0


Mover = Callable[[MoveRequest], MoveAnswer]
"""Moves pages; may block for as long as the kernel does. ``move_own_pages`` or, on a fake kernel, its twin."""


def move_own_pages(request: MoveRequest) -> MoveAnswer:
    """Move pages in a child process; may block for as long as the child is where no signal reaches it."""
    try:
        # A child that starts late, as on a busy node, has less time: it is the engine that must not be on for longer.
        child, answered = _start(json.dumps([*request, time.monotonic()]).encode())
    except OSError as error:
        return MoveAnswer((), error.errno or errno.EIO, f"no process to move pages in: {error}")
    return _outcome(child, answered, request.seconds_max)


def _start(request: bytes) -> tuple[int, int]:
    """Return the child's process id, and where its answer can be read."""
    answered, stdout = os.pipe()
    stdin, asked = os.pipe()
    streams = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, stdout, 1)]
    try:
        command = child_command(str(os.getpid()))
        child = os.posix_spawn(command[0], command, {}, file_actions=streams)
        os.write(asked, request)  # a few KiB, which a new pipe always takes
    except OSError:
        os.close(answered)
        raise
    finally:
        for descriptor in (stdin, stdout, asked):
            os.close(descriptor)
    return child, answered


def child_command(*arguments: str, module: str = "mover") -> list[str]:
    """Return how a child is started; the standard library is all that it finds beside these packages."""
    return [sys.executable, "-I", "-S", "-c", _PROGRAM.format(module), _PACKAGES, *arguments]


def _outcome(child: int, answered: int, seconds_max: float) -> MoveAnswer:
    with os.fdopen(answered, "rb", buffering=0) as stream:
        # Until it moves pages no engine holds it: it can be ended at once, and no engine is called stalled for it.
        moves = _readable(stream, seconds_max + START_SECONDS_MAX)
        data = _read_to_end(stream, CHILD_SECONDS_MAX) if moves else None
    if not data:
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not moves:
        return MoveAnswer((), errno.ETIMEDOUT, f"no page could be moved within {seconds_max:g} s; {_BUSY}")
    if data is None:
        waited = seconds_max + CHILD_SECONDS_MAX
        return MoveAnswer((), errno.ETIMEDOUT, f"the process that moves pages had not answered after {waited:g} s")
    try:
        return _parse_answer(json.loads(data))
    except (ValueError, TypeError):
        how = f"was ended by signal {-code} (no memory left?)" if code < 0 else f"ended with code {code}"
        return MoveAnswer((), 0, f"the process that moves pages {how}")


def _readable(stream: IO[bytes], seconds_max: float) -> bool:
    return bool(select.select([stream], [], [], max(0.0, seconds_max))[0])


def _read_to_end(stream: IO[bytes], seconds_max: float) -> bytes | None:
    """Return all that the child has written, which may come in pieces; None when it has not ended in time."""
    deadline, data = time.monotonic() + seconds_max, b""
    while _readable(stream, deadline - time.monotonic()):
        piece = stream.read(_PIECE)
        if not piece:
            return data
        data += piece
    return None


def _parse_answer(document: Sequence[Any]) -> MoveAnswer:
    passages, *rest = document
    return MoveAnswer(tuple(Passage(*row) for row in passages), *rest)
