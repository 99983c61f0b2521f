# SPDX-License-Identifier: Apache-2.0
"""A host in this process as its agent meets it: fake kernel, state folder, and jobs that may wait for the kernel.

No clock, no thread, no I/O but the state folder. Whoever drives it says what the time is; the kernel catches up then.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, Final

from msgspec import structs

from numamigration_agent.baseline import BaselineFile
from numamigration_agent.events import JobDone
from numamigration_agent.jobs import Answer, Job, perform
from numamigration_agent.kernel.sysfs import Sysfs
from numamigration_agent.lanes import Lane
from numamigration_api.machinery.clock import NEVER
from tests.fakekernel.config import DmaEngine, HostConfig, Spoiled
from tests.fakekernel.model import FakeKernel
from tests.fuzz.tables import FILES
from tests.twin.desk import JobDesk
from tests.twin.held_up import PatientMover
from tests.twin.timed import PatientTimedMover
from tests.unit.live_rig import LiveSysfs

HELD_SECONDS_MIN: Final = 0.05
"""Between two looks at what the kernel holds up: batches that follow each other closely end more often."""
IN_MEMORY: Final = Path("/dev/shm")  # so that a save's fsync costs nothing


def temporary_folder(prefix: str) -> tempfile.TemporaryDirectory[str]:
    """Make a folder for state folders, in memory where that can be."""
    return tempfile.TemporaryDirectory(prefix=prefix, dir=IN_MEMORY if IN_MEMORY.is_dir() else None)


class Machine:
    """One host.

    Args:
        config: as it boots.
        rng: the kernel's chance.
        folder: for the agent's state; this host's alone.
        now: monotonic seconds.
        door: makes the agent's door to kernel files.
    """

    def __init__(
        self,
        config: HostConfig,
        rng: Random,
        folder: Path,
        now: float,
        door: Callable[[FakeKernel], Sysfs] = LiveSysfs,
    ) -> None:
        self.config = config
        self.kernel = FakeKernel(config, rng)
        self._folder, self._file, self._now = folder, BaselineFile(folder), now
        self._sysfs = door(self.kernel)
        self.take_agent()

    def take_agent(self) -> None:
        """Let an agent start; what an earlier one waited for is answered to nobody."""
        self._desk = JobDesk(self._perform)
        self._move = PatientMover(self.kernel)
        self._move_timed = PatientTimedMover(self.kernel, Random(1))

    def reboot(self) -> None:
        """Boot anew; what lies on tmpfs is gone."""
        self.kernel.reboot()
        for path in self._folder.glob("*"):
            path.unlink()
        self.take_agent()

    def pass_time(self, now: float) -> None:
        """Let the kernel catch up."""
        self.kernel.advance(max(0.0, now - self._now))
        self._now = max(now, self._now)

    # --- jobs

    def begin(self, lane: Lane, job: Job) -> JobDone | None:
        """Do a job; None while the kernel holds it up."""
        return self._desk.begin(lane, job)

    def over(self) -> Iterator[JobDone]:
        """Yield what is answered now of what was held up."""
        return self._desk.over()

    def due_at(self) -> float:
        """Return when to look again for what is held up; never when nothing is."""
        return self._now + max(HELD_SECONDS_MIN, self.kernel.seconds_to_event()) if self._desk else NEVER

    def _perform(self, job: Job) -> Answer:
        return perform(job, self._sysfs, self._file, self._move, self._move_timed)

    # --- trouble

    def refuse_writes(self, error: int) -> None:
        """Let every write to a knob fail with an errno."""
        for path in FILES[self.config.dialect].values():
            self.kernel.spoil(path, Spoiled(write_error=error))

    def heal(self) -> None:
        """Let files and engines be sound again."""
        for path in FILES[self.config.dialect].values():
            self.kernel.heal(path)
        self.kernel.set_engines(self.config.engines)

    def change_engines(self, **changes: Any) -> None:
        """Let the engines behave otherwise; `changes` are fields of DmaEngine."""
        engines: tuple[DmaEngine, ...] = self.config.engines
        self.kernel.set_engines(structs.replace(engine, **changes) for engine in engines)
