# SPDX-License-Identifier: Apache-2.0
"""Which job is under way on each lane, and which of them does not answer. Pure.

Jobs of one lane follow each other; lanes do not wait for each other. A job that is late keeps its lane until it
answers, and is told as blocked (promise 10).
"""

from __future__ import annotations

import logging
from enum import Enum, auto
from typing import Final

from numamigration_agent.jobs import ClockMoves, Job, PrepareMoves, ReadRoom, describe
from numamigration_agent.kernel.timed_moves import PREPARE_SECONDS_MAX
from numamigration_agent.verify import WINDOW_SECONDS_MAX
from numamigration_api.machinery.records import dataclass

log = logging.getLogger(__name__)

JOB_SECONDS_MAX: Final = 5.0  # an idle turn-off takes milliseconds, one beside a hung engine 10 s and more


class Lane(Enum):
    """What jobs are told apart by, so that one which blocks holds up no others."""

    KNOBS = auto()
    COUNTERS = auto()
    PAGES = auto()
    WATCH = auto()


_SECONDS_MAX: Final = {Lane.PAGES: WINDOW_SECONDS_MAX}
CLOCKED_SECONDS_MAX: Final = 2.0  # a sample takes a tenth of a second, and the watch tells a stall after 5 s
_PREPARING_SECONDS_MAX: Final = 4 * PREPARE_SECONDS_MAX  # no page is moved: no engine can be what it waits for


@dataclass(slots=True)
class Running:
    """A job under way."""

    job: Job
    since: float
    blocked: bool = False


class Lanes:
    """The lanes of one agent."""

    def __init__(self) -> None:
        self._running: dict[Lane, Running | None] = dict.fromkeys(Lane)

    def __str__(self) -> str:
        return ", ".join(f"{lane.name}: {running and running.job}" for lane, running in self._running.items())

    def __getitem__(self, lane: Lane) -> Running | None:
        return self._running[lane]

    def start(self, lane: Lane, job: Job, now: float) -> None:
        """Note that a job begins."""
        self._running[lane] = Running(job, now)

    def end(self, lane: Lane, now: float) -> Running:
        """Return the job that has answered; its lane is free.

        Raises:
            RuntimeError: there is none.
        """
        running, self._running[lane] = self._running[lane], None
        if running is None:
            raise RuntimeError(f"an answer came on the lane {lane.name}, which has no job")
        if running.blocked:
            log.info("kernel answered at last", extra={"job": describe(running.job), "after": now - running.since})
        return running

    def is_late(self, lane: Lane, now: float) -> bool:
        """Note whether a job does not answer; True when it has just become too late."""
        running = self._running[lane]
        late = running is not None and not running.blocked and now >= running.since + _seconds_max(lane, running.job)
        if late and running:
            running.blocked = True
            log.warning("kernel does not answer", extra={"job": describe(running.job)})
        return late

    def deadlines(self) -> list[float]:
        """Return when the jobs that are waited for will be late."""
        waited_for = ((lane, job) for lane, job in self._running.items() if job and not job.blocked)
        return [job.since + _seconds_max(lane, job.job) for lane, job in waited_for]

    @property
    def blocked(self) -> str:
        """What a kernel file that does not answer keeps waiting; empty when all answer.

        Pages that do not come back are no file: their change has failed, which is told.
        """
        files = (running for lane, running in self._running.items() if lane is not Lane.PAGES)
        first = next((running for running in files if running and running.blocked), None)
        return f"{describe(first.job)} has not answered for {JOB_SECONDS_MAX:g} s" if first else ""


def _seconds_max(lane: Lane, job: Job) -> float:
    if isinstance(job, ReadRoom | PrepareMoves):
        return _PREPARING_SECONDS_MAX
    if isinstance(job, ClockMoves):
        return CLOCKED_SECONDS_MAX
    return _SECONDS_MAX.get(lane, JOB_SECONDS_MAX)
