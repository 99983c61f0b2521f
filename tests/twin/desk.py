# SPDX-License-Identifier: Apache-2.0
"""An agent's jobs on a kernel in this process, without threads: what is held up is answered once it is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from numamigration_agent.change import WriteKnob
from numamigration_agent.events import JobDone
from numamigration_agent.jobs import Answer, Job, Wrote
from numamigration_agent.lanes import Lane
from tests.fakekernel.calls import Call
from tests.fakekernel.parsing import KernelError
from tests.twin.held_up import HeldUpError


class _Waiting(NamedTuple):
    lane: Lane
    job: Job
    held: HeldUpError


class JobDesk:
    """Jobs that may wait.

    Args:
        perform: does a job on a door and with a mover that raise HeldUpError.
    """

    def __init__(self, perform: Callable[[Job], Answer]) -> None:
        self._perform = perform
        self._waiting: list[_Waiting] = []

    def __bool__(self) -> bool:
        """Whether a job waits."""
        return bool(self._waiting)

    def begin(self, lane: Lane, job: Job) -> JobDone | None:
        """Do a job; None while the kernel holds it up."""
        try:
            return JobDone(lane, self._perform(job))
        except HeldUpError as held:
            self._waiting.append(_Waiting(lane, job, held))
            return None

    def over(self) -> Iterator[JobDone]:
        """Yield what is answered now: a read is made anew, a write has had its effect."""
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.held.is_over():
                self._waiting.append(one)
            elif isinstance(one.job, WriteKnob) and one.held.call is not None:
                yield JobDone(one.lane, _written(one.held.call))
            elif (done := self.begin(one.lane, one.job)) is not None:
                yield done


def _written(call: Call) -> Wrote:
    try:
        call.result()
    except KernelError as error:
        return Wrote(error.errno)
    return Wrote(None)
