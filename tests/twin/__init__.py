# SPDX-License-Identifier: Apache-2.0
"""The twin of the module that moves the agent's own pages: on a fake kernel they move inside the model.

    python -m tests.twin --host-root=... (and the agent's other flags)

is the agent itself, with the twin of the fake host whose files are there. The program that people install has no such
door: it moves its pages on the kernel that it runs on.
"""

from __future__ import annotations

from collections.abc import Callable
from errno import ETIMEDOUT

from numamigration_agent.kernel.pages import MoveAnswer, Mover, MoveRequest, Passage
from numamigration_api.vocabulary import MigrationReason
from tests.fakekernel.control import MoveOwnPages
from tests.fakekernel.model import FakeKernel
from tests.fakekernel.moves import Moved
from tests.fakekernel.parsing import KernelError


def twin(kernel: FakeKernel) -> Mover:
    """Return the mover of a fake kernel in this process; the model's time passes until the pages are there."""

    def call(move: MoveOwnPages) -> Moved:
        return kernel.move_own_pages(move.reason, move.source, move.destination, small=move.small, huge=move.huge)

    return mover(call)


def mover(call: Callable[[MoveOwnPages], Moved]) -> Mover:
    """Return a mover that makes one call for each way of each batch, and none after the request's time is over."""

    def move(request: MoveRequest) -> MoveAnswer:
        reason, passages, seconds = MigrationReason(request.reason), list[Passage](), 0.0
        for batch in request.batches:
            for way in ((batch.source, batch.destination), (batch.destination, batch.source)):
                if seconds > request.seconds_max:
                    cause = f"took longer than {request.seconds_max:g} s"
                    return MoveAnswer(tuple(passages), ETIMEDOUT, cause, seconds)
                try:
                    moved = call(MoveOwnPages(reason, *way, batch.small, batch.huge))
                except KernelError as error:
                    return MoveAnswer(tuple(passages), error.errno or 0, str(error), seconds)
                passages.append(Passage(*moved))
                seconds += moved.seconds
                if moved.wrong:
                    return MoveAnswer(tuple(passages), seconds=seconds)
        return MoveAnswer(tuple(passages), seconds=seconds)

    return move
