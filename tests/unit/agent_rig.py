# SPDX-License-Identifier: Apache-2.0
"""An agent on a fake kernel in one process: virtual time, no threads, an object instead of an API server.

Jobs are performed by the agent's own ``perform`` at the moment they are asked for, unless the test holds them back.
What an API server would do with the object is done by the tests that have a real one.
"""

from __future__ import annotations

import copy
import json
import os
import random
import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from numamigration_agent.baseline import BaselineFile
from numamigration_agent.cluster import ApplyKind, ApplyResult, StateGone, StateSeen
from numamigration_agent.events import Command, Event, JobDone, Report, ReportDone, Run, Tick, Timing
from numamigration_agent.jobs import Job, perform
from numamigration_agent.kernel.pages import Mover
from numamigration_agent.kernel.sysfs import Sysfs
from numamigration_agent.kernel.timed_moves import TimedMover
from numamigration_agent.lanes import Lane
from numamigration_agent.loop import Agent
from numamigration_api.machinery.canonical import spec_revision
from numamigration_api.models.node_state import NodeMigrationStateStatus
from tests.fakekernel.config import HostConfig
from tests.fakekernel.model import FakeKernel
from tests.twin import twin
from tests.twin.timed import timed_twin

START: Final = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TIMING: Final = Timing(report_min=300, report_max=600, drift_check=15, statistics_window=10)
APPLIED: Final = ApplyResult(ApplyKind.APPLIED)
EVENTS_MAX: Final = 500  # a machine that needs more to calm down never will

OFFLOAD: Final = {"engine": "DMA", "channels": 4, "reasons": ["demotion", "damon"]}


def wish(settings: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """Return a group's wish as the operator writes it, with every risk of a plain engine accepted."""
    plain = {
        "settings": dict(settings),
        "source": {"policy": "database", "uid": "uid-1", "generation": 1},
        "mode": "Apply",
        "drift": "Correct",
        "unsupported": "BestEffort",
        "verification": "Off",
        "acceptedRisks": ["UnverifiedEngine"],
        "release": "Restore",
    }
    return plain | changes


@contextmanager
def no_room(bytes_max: int = 16) -> Iterator[None]:
    """Let no file grow beyond some bytes (EFBIG), as on a full file system; takes no rights and no mount."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_max, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Longest(random.Random):
    """Chance that always draws the longest wait."""

    def uniform(self, a: float, b: float) -> float:  # noqa: ARG002
        return b


class FakeSysfs(Sysfs):
    """The agent's door to kernel files, with the fake kernel's model right behind it."""

    def __init__(self, kernel: FakeKernel) -> None:
        super().__init__(Path("/"))
        self.kernel = kernel

    def _load(self, path: str, bytes_max: int) -> bytes:
        handle = self.kernel.open(path, os.O_RDONLY, self.kernel.agent())
        return self.kernel.read(handle, bytes_max)

    def _store(self, path: str, data: bytes) -> None:
        handle = self.kernel.open(path, os.O_WRONLY, self.kernel.agent())
        self.kernel.write(handle, data)

    def mode(self, path: str) -> int | None:
        try:
            return self.kernel.stat(path).mode & 0o777
        except OSError:
            return None

    def life(self, path: str) -> int | None:
        try:
            return self.kernel.stat(path).inode
        except OSError:
            return None

    def names(self, path: str) -> tuple[str, ...]:
        try:
            return tuple(self.kernel.listdir(path))
        except OSError:
            return ()

    def link_name(self, path: str) -> str | None:
        try:
            return self.kernel.readlink(path).rsplit("/", 1)[-1]
        except OSError:
            return None


@dataclass
class Rig:
    """One node: kernel, state folder, node state, agent."""

    folder: Path
    config: HostConfig = field(default_factory=HostConfig)
    timing: Timing = TIMING
    now: float = 1000.0
    wall: datetime = START
    """What the host's clock said at monotonic 0."""
    reports: list[dict[str, Any]] = field(default_factory=list)
    held: list[tuple[Lane, Job]] = field(default_factory=list)
    holds: type[Job] | None = None
    """Jobs of this kind are not performed before ``release``."""
    answer: ApplyResult = APPLIED
    sysfs: Sysfs | None = None
    move: Mover | None = None
    """Moves the agent's own pages; the twin in the model unless a test has another one."""
    move_timed: TimedMover | None = None
    """Moves and times them; the same."""
    sent: int = 0
    """Reports, whatever was answered."""

    def __post_init__(self) -> None:
        self.kernel = FakeKernel(self.config, random.Random(1))
        self.object: dict[str, Any] = {"metadata": {"name": "node-a", "uid": "state-1", "generation": 1}, "spec": {}}
        self.restart()

    def restart(self) -> None:
        """End the agent at this very moment and start another one."""
        self.held.clear()
        self._events: list[Event] = [StateSeen(copy.deepcopy(self.object))]
        self.agent = Agent(self.timing, random.Random(2), "0.0.0")

    @property
    def stores(self) -> list[tuple[str, str]]:
        """What was written to kernel files so far, failed writes included."""
        return [(store.name, store.text) for store in self.kernel.stores]

    @property
    def status(self) -> dict[str, Any]:
        """The node state's status."""
        found: dict[str, Any] = self.object.get("status", {})
        return found

    def group(self, name: str = "offload") -> dict[str, Any]:
        found: dict[str, Any] = self.status["groups"][name]
        return found

    def knob(self, name: str) -> dict[str, Any]:
        return next(row for row in self.status["knobs"] if row["field"] == name)

    def condition(self, type_: str) -> dict[str, Any]:
        return next(row for row in self.status["conditions"] if row["type"] == type_)

    def wish(
        self,
        groups: Mapping[str, Any] | None = None,
        plans: list[Any] | None = None,
        *,
        verify_epoch: int = 0,
        **more: Mapping[str, Any],
    ) -> None:
        """Write a spec, as the operator does, and let the agent come to rest."""
        generation = self.object["metadata"]["generation"] + 1
        self.object["metadata"]["generation"] = generation
        spec = {"groups": dict(groups or {}), "plans": plans or [], "verifyEpoch": verify_epoch, **more}
        self.object["spec"] = {"revision": spec_revision(spec), **spec}
        self.send(StateSeen(copy.deepcopy(self.object)))

    def delete_state(self) -> None:
        """Delete the node state, and what its status knew."""
        self.object = {"metadata": {"name": "node-a", "uid": "state-2", "generation": 1}, "spec": {}}
        self.send(StateGone())

    def send(self, event: Event) -> None:
        self._events.append(event)
        self.settle()

    def settle(self) -> None:
        """Handle events until none is left."""
        for _ in range(EVENTS_MAX):
            if not self._events:
                return
            self._handle(self._events.pop(0))
        raise AssertionError(f"does not come to rest: {self.agent}")

    def pass_time(self, seconds: float) -> None:
        """Let time pass, with a tick whenever the agent asked for one."""
        end = self.now + seconds
        for _ in range(EVENTS_MAX + int(seconds)):
            self.settle()
            self.now = min(max(self.agent.wake_at(), self.now), end)
            self.send(Tick())
            if self.now >= end:
                return
        raise AssertionError(f"ticks without end: {self.agent}")

    def release(self, then_holds: type[Job] | None = None) -> None:
        """Perform what was held back."""
        self.holds = then_holds
        held, self.held = self.held, []
        for lane, job in held:
            self._perform(lane, job)
        self.settle()

    def _handle(self, event: Event) -> None:
        wall = self.wall + timedelta(seconds=self.now)
        for command in self.agent.handle(event, self.now, wall):
            self._do(command)

    def _do(self, command: Command) -> None:
        match command:
            case Run(lane, job):
                if self.holds is not None and isinstance(job, self.holds):
                    self.held.append((lane, job))
                else:
                    self._perform(lane, job)
            case Report(status):
                self._take(dict(status))

    def _perform(self, lane: Lane, job: Job) -> None:
        sysfs = self.sysfs or FakeSysfs(self.kernel)
        self._events.append(
            JobDone(lane, perform(job, sysfs, BaselineFile(self.folder), self.move or twin(self.kernel), self._timed()))
        )

    def _timed(self) -> TimedMover:
        if self.move_timed is None:
            self.move_timed = timed_twin(self.kernel)
        return self.move_timed

    def _take(self, status: dict[str, Any]) -> None:
        self.sent += 1
        document = json.dumps(status)
        NodeMigrationStateStatus.model_validate_json(document)
        if self.answer.kind is ApplyKind.APPLIED:
            status = json.loads(document)  # what the object has is no part of the agent
            self.reports.append(status)
            self.object["status"] = status
            self._events.append(StateSeen(copy.deepcopy(self.object)))
        self._events.append(ReportDone(self.answer))
