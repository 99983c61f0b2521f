# SPDX-License-Identifier: Apache-2.0
"""Nodes with the real agent: its engine and its state files, on the fake kernel that its own tests use.

What can be seen from outside is judged: what the kernel's files hold after each write, and what a report says of it.

* A change takes several writes, and is one transaction from a look at the kernel to the next: in between a group may
  hold what a wish says that was known then, `Off` (offload goes off before its channels change, and is only on trial
  until its pages are back), or what it held when a change was begun that is not told as in force (the undo).
* A report that says Ready is made while the kernel holds what that spec says; one that says Restored while every file
  of the group holds what it held at boot; and nothing has soaked before it was there for its soak.
* A knob is written once the node state has what it held before, but for the turn-off of an engine.
* While settings are measured, and until all is back, offload may hold what is asked to be measured, or what it held
  before.
* An engine is told as Ready once the agent's pages were moved on this boot while it was sound; and one that the agent
  has told as corrupt stays off.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from errno import EIO
from pathlib import Path
from random import Random
from typing import Any, Final

from numamigration_agent.change import WriteKnob
from numamigration_agent.events import JobDone, Timing
from numamigration_agent.jobs import Job, MovePages, Probe
from numamigration_agent.lanes import Lane
from numamigration_agent.loop import Agent
from numamigration_api.machinery.canonical import wish_revision
from numamigration_api.machinery.profiles import profile_name
from numamigration_api.vocabulary import Dialect, MigrationReason
from tests.fakekernel.config import DmaEngine, HostConfig, Workload
from tests.fuzz.tables import BALANCING, FILES
from tests.simulation.kernels import GROUPS, KernelWrite, Kind, phrase
from tests.simulation.objects import Json, find
from tests.simulation.oracle import BrokenPromiseError, Oracle
from tests.twin.machine import Machine
from tests.twin.timed import DMA_LOSES, DMA_WINS

TIMING: Final = Timing(report_min=60.0, report_max=100.0, drift_check=60.0, statistics_window=60.0)
BUSY: Final = (Workload(MigrationReason.SYSCALL_OR_CPUSET, folios_per_second=200),)
"""So much migrates that a guardrail has its folios within seconds."""
HOSTS: Final[Mapping[str, HostConfig]] = {
    "V6": HostConfig(workloads=BUSY, speeds=DMA_WINS),
    "V3": HostConfig(
        dialect=Dialect.F_EXT, engines=(DmaEngine("idxd", 4), DmaEngine("idxd", 4)), workloads=BUSY, speeds=DMA_LOSES
    ),
    "NoSeries": HostConfig(dialect=Dialect.NO_SERIES, engines=(), workloads=BUSY),
}
"""By the dialect of a kind; the real agent refuses to turn offload on by V3 without accepted risks."""
FAILED_SHARE: Final = 0.5
MODES: Final = {int(text): word for word, text in BALANCING.items()}
CHANNELS_TRIED: Final = (1, 2, 4, 8, 16)
"""What operators ask to be measured."""
IN_FORCE: Final = frozenset({"Ready", "Restored"})


class RealMachine:
    """A node's kernel and state folder, with the agent's jobs on them, and what it may do there.

    Attributes:
        values: what each group holds, in one phrase each.
        corrupt: the agent has told that the engine corrupts; it stays off for this boot.
    """

    def __init__(
        self,
        node: str,
        kind: Kind,
        rng: Random,
        folder: Path,
        oracle: Oracle,
        now: Callable[[], float],
        on_write: Callable[[KernelWrite, frozenset[str]], None],
    ) -> None:
        self._node, self._kind, self._oracle = node, kind, oracle
        self._now, self._on_write = now, on_write
        self._machine = Machine(HOSTS[kind.dialect], rng, folder, now())
        self._troubles: set[str] = set()
        self._told: set[tuple[str, str]] = set()
        self._last: Json = {}
        self._profile = ""
        self._begin_life()

    def _begin_life(self) -> None:
        self.corrupt = self._was_tried = self._measures = False
        self._saved: set[str] = set()
        self._safe: set[str] = set()
        self.values = self._read()
        # By group: what its files held at boot, and where a policy kept what it had set.
        self._files_before = {group: [self._files(group)] for group in self.values}
        self._changed_at = dict.fromkeys(self.values, self._now())
        self._befores: dict[str, set[str]] = {group: {value} for group, value in self.values.items()}
        self._undone: dict[str, set[str]] = defaultdict(set)
        self._known: list[Json] = [self._last]
        self._specs: dict[int, Json] = {}
        self._asked: dict[tuple[str, str], tuple[float, float]] = {}

    # --- the kernel

    def boot(self) -> None:
        """Start anew; every setting and the state folder are lost."""
        self._machine.pass_time(self._now())
        self._machine.reboot()
        self._begin_life()

    def heal(self) -> None:
        """Be right again."""
        self._troubles.clear()
        self._machine.heal()

    def spoil(self, trouble: str) -> None:
        """Refuse writes; or have engines that copy wrong bytes, hang, or fail with half of their batches."""
        self._troubles.add(trouble)
        if trouble == "refuses":
            self._machine.refuse_writes(EIO)
        self._machine.change_engines(
            wrong_share=float("corrupts" in self._troubles),
            hangs="stalls" in self._troubles,
            error_share=FAILED_SHARE if "fails" in self._troubles else 0.0,
        )

    def _read(self) -> dict[str, str]:
        shot = self._machine.kernel.snapshot()
        values = {
            "offload": f"DMA {shot.nr_dma_chan}" if shot.offloading else "Off",
            "balancing": MODES.get(shot.numa_balancing, str(shot.numa_balancing)),
            "demotion": str(shot.demotion_enabled),
        }
        return {group: values[group] for group in GROUPS if group in self._kind.groups}

    def _files(self, group: str) -> dict[str, bytes]:
        """Return what every knob file of a group holds."""
        kernel = self._machine.kernel
        paths = (path for name, path in FILES[kernel.config.dialect].items() if name.startswith(f"{group}."))
        return {path: kernel.read(kernel.open(path, 0), 4096) for path in paths}

    # --- the agent

    def start(self, rng: Random) -> Agent:
        """Start an agent."""
        self._machine.take_agent()
        return Agent(TIMING, rng, "0.0.0")

    def begin(self, lane: Lane, job: Job) -> JobDone | None:
        """Do a job; None while the kernel holds it up.

        A change that has begun goes on when somebody deletes the node state that told what was there before it.
        """
        self._machine.pass_time(self._now())
        if isinstance(job, Probe):
            self._known, self._safe = [self._last], set()
        self._safe |= self._saved
        if isinstance(job, WriteKnob) and job.value != job.knob.off and job.knob.field not in self._safe:
            raise BrokenPromiseError(
                f"promise 1: {self._node} writes {job.knob.field}, whose value of before is not told"
            )
        if isinstance(job, MovePages):
            self._was_tried |= "corrupts" not in self._troubles
        done = self._machine.begin(lane, job)
        if isinstance(job, WriteKnob):
            self._look()
        return done

    def over(self) -> Iterator[JobDone]:
        """Yield what is answered now of what was held up."""
        self._machine.pass_time(self._now())
        self._look()
        yield from self._machine.over()

    def due_at(self) -> float:
        """Return when to look again for what is held up."""
        return self._machine.due_at()

    # --- what it may do

    def delivered(self, state: Mapping[str, Any] | None) -> None:
        """Take in the node state that reaches the agent."""
        if state is None:
            return
        old = self._last
        self._last = dict(state)
        self._known.append(self._last)
        self._measures |= find(self._last, ("spec", "probe")) is not None
        if _uid(old) != _uid(self._last):
            self._specs.clear()
            self._saved.clear()
        self.stored(state)
        self._specs[int(find(self._last, ("metadata", "generation")) or 0)] = self._last
        for group in self.values:
            wish, gone = _wish(self._last, group), _wish(old, group)
            if wish is not None:
                key = group, wish_revision(wish)
                since, shortest = self._asked.get(key, (self._now(), math.inf))
                soak = float(find(self._last, ("spec", "observe", "soakSeconds")) or 0)
                self._asked[key] = since, min(shortest, soak)
            elif gone is not None and gone["release"] == "Keep":
                self._befores[group].add(self.values[group])
                self._files_before[group].append(self._files(group))

    def stored(self, state: Mapping[str, Any]) -> None:
        """Take in what the API server has of this node: which values of before it knows."""
        status = state.get("status") or {}
        if status.get("bootID") == self.boot_id:
            self._saved |= {row["field"] for row in status.get("knobs") or () if "baseline" in row}

    @property
    def boot_id(self) -> str:
        """What tells this boot from others."""
        return self._machine.kernel.snapshot().boot_id

    def _look(self) -> None:
        """Judge what has changed in the kernel."""
        new = self._read()
        for group in [group for group in new if new[group] != self.values[group]]:
            self._told.update(key for key in self._asked if key[0] == group and self._lacks(*key) <= 0)  # or will be
            before, self.values[group], self._changed_at[group] = self.values[group], new[group], self._now()
            if group == "offload" and new[group] != "Off" and self.corrupt:
                raise BrokenPromiseError(f"promise 15: {self._node} turns an engine on that it knows to be corrupt")
            write = KernelWrite(self._now(), self._node, self.boot_id, group, before, new[group])
            self._on_write(write, frozenset(self._passing(group)))
            self._undone[group].add("Off" if group == "offload" else before)

    def _text(self, group: str, wish: Json) -> str:
        return phrase(group, wish["settings"], self._profile)

    def _passing(self, group: str) -> Iterator[str]:
        yield from self._undone[group]
        if group == "offload" and self._measures:
            yield from ("Off", *self._befores[group])
            yield from (f"DMA {channels}" for channels in CHANNELS_TRIED)
        if group == "offload" and self._troubles:
            yield "Off"
        for wish in (_wish(state, group) for state in self._known):
            if wish is not None and wish["mode"] == "Apply":
                text = self._text(group, wish)
                yield from {text} if text else self._befores[group]
                if group == "offload":
                    yield "Off"
            elif wish is not None and wish["mode"] == "Restore":
                yield from self._befores[group]

    def reported(self, status: Mapping[str, Any]) -> None:
        """Check what a report says, at the moment it is made."""
        self.corrupt |= find(status, ("verification", "result")) == "Failed"
        self._profile = profile_name(status.get("dialect") or "", status.get("hardwareClass") or "")
        asked = find(self._last, ("spec", "probe"))
        self._measures = asked is not None or find(status, ("probe", "phase")) == "Running"
        state = self._specs.get(status.get("observedGeneration") or 0)
        for group, result in (status.get("groups") or {}).items():
            if result["state"] in IN_FORCE:
                self._undone.pop(group, None)
            wish = _wish(state, group)
            if wish is None or group not in self.values:
                continue
            self._check_result(group, wish, result["state"])
            if revision := result.get("soakedRevision"):
                self._check_soak(group, revision)

    def _check_result(self, group: str, wish: Json, told: str) -> None:
        held = self.values[group]
        if told == "Ready" and wish["mode"] == "Apply":
            if (text := self._text(group, wish)) and held != text:
                raise BrokenPromiseError(f"{self._node} tells {group} as Ready, which holds {held}, not {text}")
            if held.startswith("DMA") and not self._was_tried:
                raise BrokenPromiseError(
                    f"promise 15: {self._node} tells an engine as Ready that has copied no page right"
                )
        elif told == "Restored" and self._befores[group] == {self._oracle.before[self._node, group]}:
            files = self._files(group)
            if files not in self._files_before[group]:
                other = [path for path, text in self._files_before[group][0].items() if files[path] != text]
                raise BrokenPromiseError(f"promise 7: {self._node} tells {group} as Restored, but not {other}")

    def _check_soak(self, group: str, revision: str) -> None:
        if (group, revision) in self._told:
            return
        self._told.add((group, revision))
        if (lacks := self._lacks(group, revision)) > 0:
            raise BrokenPromiseError(f"promise 8: {self._node} tells {group} as soaked {lacks:.1f} s too early")

    def _lacks(self, group: str, revision: str) -> float:
        """Return how many seconds the kernel has yet to stand still until a wish has soaked."""
        since, seconds = self._asked.get((group, revision), (self._now(), math.inf))
        return max(self._changed_at[group], since) + seconds - self._now()


def _wish(state: Mapping[str, Any] | None, group: str) -> Json | None:
    found = find(state, ("spec", "groups", group))
    return found if isinstance(found, dict) else None


def _uid(state: Mapping[str, Any]) -> Any:
    return find(dict(state), ("metadata", "uid"))
