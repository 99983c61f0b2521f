# SPDX-License-Identifier: Apache-2.0
"""Calls to a fake kernel in this process that take time: who makes one is told, and comes back once it is over."""

from __future__ import annotations

from collections.abc import Callable

from numamigration_agent.kernel.pages import MoveAnswer, MoveRequest
from tests.fakekernel.calls import Call
from tests.fakekernel.control import MoveOwnPages
from tests.fakekernel.model import FakeKernel
from tests.fakekernel.moves import Move, Moved
from tests.twin import mover


class HeldUpError(Exception):
    """The kernel has taken a call and does not answer yet; `call` is one to a file."""

    def __init__(self, is_over: Callable[[], bool], call: Call | None = None) -> None:
        super().__init__()
        self.is_over, self.call = is_over, call


def answer_of(call: Call) -> bytes | int:
    """Return what a call to a file answers.

    Raises:
        HeldUpError: it does not answer yet.
    """
    if not call.over:
        raise HeldUpError(lambda: call.over, call)
    return call.result()


class PatientMover:
    """Moves own pages; asked again, it waits for the call under way, and makes none of those before it again."""

    def __init__(self, kernel: FakeKernel) -> None:
        self._kernel = kernel
        self._moves: list[Move] = []

    def __call__(self, request: MoveRequest) -> MoveAnswer:
        """Move pages.

        Raises:
            HeldUpError: an engine holds them.
        """
        begun = iter(self._moves)

        def call(asked: MoveOwnPages) -> Moved:
            move = next(begun, None)
            if move is None:
                way = asked.source, asked.destination
                move = self._kernel.begin_move(asked.reason, *way, small=asked.small, huge=asked.huge)
                self._moves.append(move)
            if not move.over:
                raise HeldUpError(lambda: move.over)
            return move.answer()

        answer = mover(call)(request)
        self._moves = []
        return answer
