# SPDX-License-Identifier: Apache-2.0
"""A rig whose kernel lives: time passes for both, batches are in flight, and calls wait where the kernel holds them."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from numamigration_agent.baseline import BaselineFile
from numamigration_agent.cluster import StateSeen
from numamigration_agent.events import Tick
from numamigration_agent.jobs import Answer, Job, perform
from numamigration_agent.lanes import Lane
from tests.twin.desk import JobDesk
from tests.twin.held_up import PatientMover, answer_of
from tests.unit.agent_rig import FakeSysfs, Rig

STEPS_MAX: Final = 20_000


class LiveSysfs(FakeSysfs):
    """Kernel files that may not answer yet."""

    def _load(self, path: str, bytes_max: int) -> bytes:
        handle = self.kernel.open(path, os.O_RDONLY, self.kernel.agent())
        answer = answer_of(self.kernel.begin_read(handle, bytes_max))
        return answer if isinstance(answer, bytes) else b""

    def _store(self, path: str, data: bytes) -> None:
        handle = self.kernel.open(path, os.O_WRONLY, self.kernel.agent())
        answer_of(self.kernel.begin_write(handle, data))


@dataclass
class LiveRig(Rig):
    """One node whose kernel goes on while the agent waits."""

    done: list[tuple[float, Job]] = field(default_factory=list)
    """Every job that the agent began, and when."""
    api_away: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.sysfs = LiveSysfs(self.kernel)

    def restart(self) -> None:
        """End the agent and start another one, which sees its node state only if there is an API server."""
        super().restart()
        self.desk = JobDesk(self._do_job)
        self._patient = PatientMover(self.kernel)
        if self.api_away:
            self._events = [Tick()]

    def come_back(self) -> None:
        """Let the API server be there again."""
        self.api_away = False
        self.send(StateSeen(copy.deepcopy(self.object)))

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        for _ in range(STEPS_MAX):
            self.settle()
            left = min(max(self.agent.wake_at(), self.now), end, self.now + self.kernel.seconds_to_event()) - self.now
            self.kernel.advance(left)
            self.now += left
            self._events += self.desk.over()
            self.send(Tick())
            if self.now >= end:
                return
        raise AssertionError(f"ticks without end: {self.agent}")

    def until(self, holds: Callable[[], bool], seconds_max: float, step: float = 0.5) -> float:
        """Let time pass until something holds; returns how long that took."""
        begun = self.now
        while not holds():
            assert self.now - begun < seconds_max, f"not within {seconds_max:g} s: {self.agent} {self.status}"
            self.pass_time(step)
        return self.now - begun

    def began(self, kind: type[Job], since: float = 0.0) -> list[float]:
        """Return when jobs of a kind were begun."""
        return [at for at, job in self.done if isinstance(job, kind) and at >= since]

    def _perform(self, lane: Lane, job: Job) -> None:
        self.done.append((self.now, job))
        if done := self.desk.begin(lane, job):
            self._events.append(done)

    def _do_job(self, job: Job) -> Answer:
        return perform(job, self.sysfs or FakeSysfs(self.kernel), BaselineFile(self.folder), self.move or self._patient)

    def _take(self, status: dict[str, Any]) -> None:
        if not self.api_away:
            super()._take(status)
