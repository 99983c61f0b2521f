# SPDX-License-Identifier: Apache-2.0
"""One node of a fleet: fake kernel, agent, and what is under way between them. No I/O but its state folder, no clock.

Whoever drives it says what the time is; the kernel catches up before the agent looks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, Final

from msgspec import structs

from numamigration_agent.baseline import BaselineFile
from numamigration_agent.events import Command, Event, JobDone, Report, Run, Tick, Timing
from numamigration_agent.jobs import Answer, Job, perform
from numamigration_agent.loop import Agent
from numamigration_api.machinery.clock import NEVER
from tests.fakekernel.config import DmaEngine, Spoiled
from tests.fakekernel.model import FakeKernel
from tests.fleet.cast import Member, Strain
from tests.fuzz.tables import CHANNELS, ENGINE, FILES, knob_path
from tests.twin.desk import JobDesk
from tests.twin.held_up import PatientMover
from tests.unit.live_rig import LiveSysfs

VERSION: Final = "0.0.0"
EVENTS_MAX: Final = 2000
"""A machine that needs more to calm down never will."""
HELD_SECONDS_MIN: Final = 0.05
"""Between two looks at what the kernel holds up: batches that follow each other closely end more often."""


class StrainedSysfs(LiveSysfs):
    """Kernel files, behind which engines bear only so many channels."""

    def __init__(self, kernel: FakeKernel, strain: Strain | None) -> None:
        super().__init__(kernel)
        self._strain, self._sound = strain, kernel.config.engines

    def _store(self, path: str, data: bytes) -> None:
        super()._store(path, data)
        if self._strain is not None and path == knob_path(self.kernel.config.dialect, CHANNELS):
            share = self._strain.error_share if int(data) >= self._strain.channels else 0.0
            self.kernel.set_engines(structs.replace(engine, error_share=share) for engine in self._sound)


class FleetNode:
    """One node.

    Attributes:
        member: who it is.
        kernel: its kernel.
        life: which agent in a row this is; 0 before the first.
        running: whether its agent runs.
    """

    def __init__(self, member: Member, folder: Path, timing: Timing, seed: str, now: float) -> None:
        self.member = member
        self.kernel = FakeKernel(member.part.kernel, Random(f"{seed} kernel"))
        self.rng = Random(f"{seed} agent")
        self.life, self.running = 0, False
        self._timing, self._folder, self._file = timing, folder, BaselineFile(folder)
        self._sysfs = StrainedSysfs(self.kernel, member.part.strain)
        self._now = now

    def __repr__(self) -> str:
        return f"<FleetNode {self.member.name}>"

    # --- the agent

    def start(self) -> None:
        """Start an agent; ends the one before at this very moment."""
        self.life += 1
        self.running = True
        self._agent = Agent(self._timing, self.rng, VERSION)
        self._desk = JobDesk(self._perform)
        self._move = PatientMover(self.kernel)

    def stop(self) -> None:
        """End the agent; every knob stays as it is."""
        self.running = False

    def reboot(self) -> None:
        """Boot the host anew; what lies on tmpfs is gone, and the agent starts again."""
        self.kernel.reboot()
        for path in self._folder.glob("*"):
            path.unlink()
        self.start()

    def handle(self, event: Event, now: float) -> list[Mapping[str, Any]]:
        """Take an event, and all that follows from it; return the statuses to be applied."""
        self.pass_time(now)
        events, reports = [*self._desk.over(), event], list[Mapping[str, Any]]()
        for _ in range(EVENTS_MAX):
            if not events:
                return reports
            for command in self._agent.handle(events.pop(0), now, datetime.now(UTC)):
                events += self._do(command, reports)
        raise AssertionError(f"{self.member.name} does not come to rest: {self._agent}")

    def tick(self, now: float) -> list[Mapping[str, Any]]:
        """Let the agent look at the time."""
        return self.handle(Tick(), now)

    def due_at(self) -> float:
        """Return when a tick is due at the latest."""
        if not self.running:
            return NEVER
        held = self._now + max(HELD_SECONDS_MIN, self.kernel.seconds_to_event()) if self._desk else NEVER
        return min(self._agent.wake_at(), held)

    def _do(self, command: Command, reports: list[Mapping[str, Any]]) -> Iterator[JobDone]:
        match command:
            case Run(lane, job):
                done = self._desk.begin(lane, job)
                if done is not None:
                    yield done
            case Report(status):
                reports.append(status)

    def _perform(self, job: Job) -> Answer:
        return perform(job, self._sysfs, self._file, self._move)

    # --- the kernel

    def pass_time(self, now: float) -> None:
        """Let the kernel catch up."""
        self.kernel.advance(max(0.0, now - self._now))
        self._now = max(now, self._now)

    def knob(self, field: str) -> str:
        """Return what a knob's file says; empty when this kernel has none, or does not answer yet."""
        path = knob_path(self.member.part.kernel.dialect, field)
        if not path:
            return ""
        call = self.kernel.begin_read(self.kernel.open(path, 0))
        answer = call.result() if call.over else b""
        return answer.decode().strip() if isinstance(answer, bytes) else ""

    @property
    def offloads(self) -> bool:
        """Whether the kernel says that its engine by DMA is on."""
        return self.knob(ENGINE) not in {"", "0", "N"}

    def refuse_writes(self, error: int) -> None:
        """Let every write to a knob fail with an errno."""
        for path in FILES[self.member.part.kernel.dialect].values():
            self.kernel.spoil(path, Spoiled(write_error=error))

    def heal(self) -> None:
        """Let files and engines be sound again."""
        for path in FILES[self.member.part.kernel.dialect].values():
            self.kernel.heal(path)
        self.kernel.set_engines(self.member.part.kernel.engines)

    def change_engines(self, **changes: Any) -> None:
        """Let the engines behave otherwise; `changes` are fields of DmaEngine."""
        engines: tuple[DmaEngine, ...] = self.member.part.kernel.engines
        self.kernel.set_engines(structs.replace(engine, **changes) for engine in engines)
