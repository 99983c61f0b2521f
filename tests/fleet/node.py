# SPDX-License-Identifier: Apache-2.0
"""One node of a fleet: a host, its agent, and what is under way between them. No I/O but its state folder, no clock.

Whoever drives it says what the time is; the kernel catches up before the agent looks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, Final

from msgspec import structs

from numamigration_agent.events import Command, Event, JobDone, Report, Run, Tick, Timing
from numamigration_agent.loop import Agent
from numamigration_api.machinery.clock import NEVER
from tests.fakekernel.model import FakeKernel
from tests.fleet.cast import Member, Strain
from tests.fuzz.tables import CHANNELS, ENGINE, knob_path
from tests.twin.machine import Machine
from tests.unit.live_rig import LiveSysfs

VERSION: Final = "0.0.0"
EVENTS_MAX: Final = 2000
"""A machine that needs more to calm down never will."""


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


class FleetNode(Machine):
    """One node.

    Attributes:
        member: who it is.
        kernel: its kernel.
        life: which agent in a row this is; 0 before the first.
        running: whether its agent runs.
    """

    def __init__(self, member: Member, folder: Path, timing: Timing, seed: str, now: float) -> None:
        self.member = member
        self.rng = Random(f"{seed} agent")
        self.life, self.running = 0, False
        self._timing = timing
        part = member.part
        super().__init__(
            part.kernel, Random(f"{seed} kernel"), folder, now, lambda kernel: StrainedSysfs(kernel, part.strain)
        )

    def __repr__(self) -> str:
        return f"<FleetNode {self.member.name}>"

    # --- the agent

    def start(self) -> None:
        """Start an agent; ends the one before at this very moment."""
        self.life += 1
        self.running = True
        self._agent = Agent(self._timing, self.rng, VERSION)
        self.take_agent()

    def stop(self) -> None:
        """End the agent; every knob stays as it is."""
        self.running = False

    def reboot(self) -> None:
        """Boot the host anew; what lies on tmpfs is gone, and the agent starts again."""
        super().reboot()
        self.start()

    def age(self) -> None:
        """Let the next report be due as if nothing had changed for long: at any moment of a mean interval."""
        mean = (self._timing.report_min + self._timing.report_max) / 2
        self._agent._reports._due = self._now + self.rng.uniform(0.0, mean)  # also one that was due sooner

    def handle(self, event: Event, now: float) -> list[Mapping[str, Any]]:
        """Take an event, and all that follows from it; return the statuses to be applied."""
        self.pass_time(now)
        events, reports = [*self.over(), event], list[Mapping[str, Any]]()
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
        return min(self._agent.wake_at(), super().due_at()) if self.running else NEVER

    def _do(self, command: Command, reports: list[Mapping[str, Any]]) -> Iterator[JobDone]:
        match command:
            case Run(lane, job):
                done = self.begin(lane, job)
                if done is not None:
                    yield done
            case Report(status):
                reports.append(status)

    # --- the kernel

    def knob(self, field: str) -> str:
        """Return what a knob's file says; empty when this kernel has none, or does not answer yet."""
        path = knob_path(self.config.dialect, field)
        if not path:
            return ""
        call = self.kernel.begin_read(self.kernel.open(path, 0))
        answer = call.result() if call.over else b""
        return answer.decode().strip() if isinstance(answer, bytes) else ""

    @property
    def offloads(self) -> bool:
        """Whether the kernel says that its engine by DMA is on."""
        return self.knob(ENGINE) not in {"", "0", "N"}
