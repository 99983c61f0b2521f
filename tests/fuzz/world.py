# SPDX-License-Identifier: Apache-2.0
"""One node, and everything round its agent: kernel, state folder, node state, API server. Virtual time, no threads.

What the agent asks for is not done at once: it waits as a task, like what comes back to it, and a move says how many
tasks are done and which. So a crash, a reboot or an edit may fall between any two of them. A task is one event handed
to the agent, or one of its commands carried out.

Objects reach the agent in the order in which they were written; nothing else has an order.
"""

from __future__ import annotations

import copy
import errno
import random
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from msgspec import structs

from numamigration_agent.baseline import FILE_NAME, BaselineFile, Baselines
from numamigration_agent.change import WriteKnob
from numamigration_agent.cluster import ApplyKind, ApplyResult, StateGone, StateSeen
from numamigration_agent.events import Command, Event, JobDone, Report, ReportDone, Run, Tick, Timing
from numamigration_agent.jobs import Begin, MovePages, Probe, Wrote, perform
from numamigration_agent.loop import Agent
from numamigration_api.machinery.canonical import spec_revision, wish_revision
from numamigration_api.vocabulary import Dialect, MigrationReason
from tests.fakekernel.calls import Call
from tests.fakekernel.config import Workload
from tests.fakekernel.model import FakeKernel
from tests.fakekernel.parsing import KernelError
from tests.fuzz.moves import ENGINES, History
from tests.fuzz.oracle import Oracle
from tests.fuzz.tables import knob_path
from tests.twin.held_up import HeldUpError, PatientMover, answer_of
from tests.unit.agent_rig import FakeSysfs

START: Final = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TIMING: Final = Timing(report_min=100, report_max=150, drift_check=60, statistics_window=60)
SOAK_SECONDS: Final = 30
GUARDRAIL: Final = {"metric": "migrationFailures", "max": "0.1", "minFolios": 512}
CALM_SECONDS: Final = 500.0
"""Longer than the longest pause before another try (300 s), and a report interval (150 s) after it."""
TASKS_MAX: Final = 2000
"""An agent that needs more tasks to come to rest never will."""
MINUTE: Final = 60.0
WORKLOADS: Final = {
    "none": (),
    "demotion": (Workload(MigrationReason.DEMOTION, 640),),
    "promotion": (Workload(MigrationReason.NUMA_MISPLACED, 100, promotion=True),),
    "syscall": (Workload(MigrationReason.SYSCALL_OR_CPUSET, 2048, concurrency=2),),
}
ANSWERS: Final = {
    "retry": ApplyResult(ApplyKind.RETRY, "no answer"),
    "conflict": ApplyResult(ApplyKind.RETRY, "somebody else wrote at the same moment"),
    "skew": ApplyResult(ApplyKind.SKEW, "apply the CRDs of this release"),
    "gone": ApplyResult(ApplyKind.GONE, "no such kind"),
    "forbidden": ApplyResult(ApplyKind.FORBIDDEN, "the agent lacks rights"),
    "lost": ApplyResult(ApplyKind.RETRY, "the connection broke after the write"),
}
JUNK: Final = {"junk": b"\xff\xfe~?\n", "empty": b"", "huge": b"9" * 5000}
READ_FAULTS: Final = frozenset({"EACCES", "EIO", "ENODEV", "ENOENT"})
WRITE_FAULTS: Final = READ_FAULTS | {"EROFS", "EINVAL"}
NOT_HELD: Final = frozenset({"ignored", "clamped"})
"""The kernel takes a write, and holds what was there before, or another number."""
STEP_SECONDS_MIN: Final = 0.5  # many small batches must not make many small steps


class Door(FakeSysfs):
    """The agent's door, with faults and an oracle in it."""

    def __init__(self, world: World) -> None:
        super().__init__(world.kernel)
        self._world = world

    def _load(self, path: str, bytes_max: int) -> bytes:
        fault = self._world.fault_at(path, READ_FAULTS | JUNK.keys())
        if fault in JUNK:
            return JUNK[fault][:bytes_max]
        if fault:
            raise OSError(getattr(errno, fault), path)
        handle = self.kernel.open(path, 0, self.kernel.agent())
        data = answer_of(self.kernel.begin_read(handle, bytes_max))
        text = data if isinstance(data, bytes) else b""
        self._world.oracle.loaded(path, text.decode(errors="replace"))
        return text

    def _store(self, path: str, data: bytes) -> None:
        oracle = self._world.oracle
        oracle.storing(path, data.decode())
        fault = "EROFS" if self._world.is_read_only else self._world.fault_at(path, WRITE_FAULTS)
        if fault:
            oracle.failed(path)
            raise OSError(getattr(errno, fault), path)
        kind = self._world.fault_at(path, NOT_HELD)
        try:
            handle = self.kernel.open(path, 1, self.kernel.agent())
            if kind:
                self._store_other(path, data, kind)
                return
            answer_of(self.kernel.begin_write(handle, data))
        except KernelError:
            oracle.failed(path)
            raise
        oracle.stored(path)

    def _store_other(self, path: str, data: bytes, kind: str) -> None:
        text = data.decode()
        if kind == "clamped" and text.isdecimal() and int(text) > 1:
            self.kernel.drift(path, str(int(text) // 2))
        self._world.oracle.not_held(path)

    def mode(self, path: str) -> int | None:
        return None if self._world.fault_at(path, frozenset({"ENOENT"})) else super().mode(path)


class RoomyFile(BaselineFile):
    """The baseline file, on a file system that may be full."""

    def __init__(self, folder: Path, world: World) -> None:
        super().__init__(folder)
        self._world = world

    def save(self, baselines: Baselines) -> str:
        if self._world.is_full:
            return "no space left on device"
        problem = super().save(baselines)
        self._world.oracle.saved()
        return problem


Task = Event | Command


class World:
    """A node in the middle of its history; each move is a method."""

    def __init__(self, history: History, folder: Path) -> None:
        self.folder = folder
        self.kernel = FakeKernel(history.host, random.Random(history.seed))
        self.object: dict[str, Any] | None = None
        self.now, self.units = 1000.0, 0
        self.is_read_only = self.is_full = False
        self.faults: dict[str, tuple[str, int]] = {}
        self.answers: list[str] = []
        self.tasks: list[Task] = []
        self._held: list[tuple[Run, HeldUpError]] = []
        self._move = PatientMover(self.kernel)
        self._old_statuses: list[dict[str, Any]] = []
        self._made = self._epoch = 0
        self.soak_seconds = SOAK_SECONDS
        self.asked_at: dict[tuple[str, str], float] = {}
        """By group and revision of a wish, when it was written for the first time."""
        self._rng = random.Random(history.seed)
        self.oracle = Oracle(self)
        self._create()
        self._start()

    # --- what is done for the agent

    def _start(self) -> None:
        self.tasks.clear()
        self._held.clear()
        self._move = PatientMover(self.kernel)
        self.agent = Agent(TIMING, self._rng, "0.0.0")
        self.door, self.file = Door(self), RoomyFile(self.folder, self)
        self.oracle.started()
        self._show()

    def _show(self) -> None:
        """Let the watch bring the object as it is."""
        self.tasks.append(StateSeen(copy.deepcopy(self.object)) if self.object else StateGone())

    def _do(self, task: Task) -> None:
        self.units += 1
        match task:
            case Run():
                self._perform(task)
            case Report(status):
                self._apply(status)
            case _:
                self._hand_over(task)
        self.oracle.check()

    def _hand_over(self, event: Event) -> None:
        self.oracle.handing_over(event)
        for command in self.agent.handle(event, self.now, START + timedelta(seconds=self.now)):
            self.oracle.issued(command)
            self.tasks.append(command)

    def _perform(self, run: Run) -> None:
        try:
            answer = perform(run.job, self.door, self.file, self._move)
        except HeldUpError as held:
            self._held.append((run, held))
            return
        self.oracle.trust.performed(run.job, answer)
        if isinstance(run.job, Probe):
            self.oracle.probed()
        if isinstance(run.job, MovePages) and not run.job.calm_only:
            self.oracle.tried()
        if isinstance(run.job, Begin):
            self.oracle.began()
        self.tasks.append(JobDone(run.lane, answer))

    def _let_go(self) -> None:
        """Answer what is held up no more: a read is made anew, a write has had its effect."""
        over = [(run, held) for run, held in self._held if held.is_over()]
        self._held = [(run, held) for run, held in self._held if not held.is_over()]
        for run, held in over:
            if isinstance(run.job, WriteKnob) and held.call is not None:
                number = _errno_of(held.call)
                (self.oracle.failed if number else self.oracle.stored)(run.job.knob.path)
                self.tasks.append(JobDone(run.lane, Wrote(number)))
            else:
                self.tasks.append(run)

    def _apply(self, status: Mapping[str, Any]) -> None:
        told = self.oracle.told(status)
        kind = self.answers.pop(0) if self.answers else ""
        if self.object is None:
            kind = "gone"
        if self.object is not None and kind in {"", "lost"}:
            self._old_statuses.append(self.object.get("status", {}))
            self.object["status"] = told
            self.oracle.applied()
            self._show()
        self.tasks.append(ReportDone(ANSWERS.get(kind, ApplyResult(ApplyKind.APPLIED))))

    def fault_at(self, path: str, kinds: frozenset[str]) -> str:
        """Return the fault that a call meets, and count it."""
        kind, left = self.faults.get(path, ("", 0))
        if kind not in kinds:
            return ""
        self.faults[path] = kind, left - 1
        if left <= 1:
            del self.faults[path]
        self.oracle.disturbed()
        self.oracle.trust.faulted(path)
        return kind

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way, nor due before time passes."""
        return not self.tasks and not self._held and self.agent.wake_at() > self.now

    def seconds_at(self, text: str) -> float:
        """Return the time of a timestamp of the status."""
        return (datetime.fromisoformat(text) - START).total_seconds()

    def _advance(self, seconds: float) -> None:
        self.oracle.trust.before_time()
        self.now += seconds
        self.kernel.advance(seconds)
        self.oracle.trust.after_time()
        self._let_go()

    # --- moves: time

    def work(self, count: int, pick: int) -> None:
        """Do some of the tasks."""
        for number in range(count):
            eligible: list[Task] = [task for task in self.tasks if not isinstance(task, StateSeen | StateGone)]
            eligible += [task for task in self.tasks if isinstance(task, StateSeen | StateGone)][:1]
            if not eligible:
                return
            task = eligible[(pick >> number) % len(eligible)]
            del self.tasks[next(index for index, other in enumerate(self.tasks) if other is task)]
            self._do(task)

    def settle(self) -> None:
        """Do every task, and those that follow."""
        for _ in range(TASKS_MAX):
            self._let_go()
            if not self.tasks:
                return
            self._do(self.tasks.pop(0))
        raise AssertionError(f"does not come to rest: {self.agent}")

    def pass_time(self, seconds: float) -> None:
        """Let time pass, with a tick whenever the agent asks for one."""
        end = self.now + seconds
        for _ in range(TASKS_MAX):
            self.settle()
            steps = [self.agent.wake_at(), end]
            if self._held:  # what waits for the kernel goes on as soon as that lets it
                steps.append(self.now + max(STEP_SECONDS_MIN, self.kernel.seconds_to_event()))
            self._advance(max(0.0, min(steps) - self.now))
            self.tasks.append(Tick())
            if self.now >= end:
                self.settle()
                return
        raise AssertionError(f"ticks without end: {self.agent}")

    def calm(self) -> None:
        """Take every trouble away and let time pass; then all must be as it shall be."""
        self.heal()
        self.workload("none")
        self.answers.clear()
        self.is_full = self.is_read_only = False
        self.unload_half_done()
        self.pass_time(2 * MINUTE)  # batches of an engine that hangs
        self.pass_time(CALM_SECONDS)
        if not self.is_idle:
            self.pass_time(MINUTE)  # an engine that hangs has just got its next trial
        self.oracle.check_calm()

    # --- moves: wishes

    def wish(self, groups: Mapping[str, Any]) -> None:
        """Write a spec, as the operator does."""
        self.make_state()
        if self.object is not None:
            observe = {"soakSeconds": SOAK_SECONDS, "guardrails": [GUARDRAIL]}
            spec = {"groups": copy.deepcopy(dict(groups)), "plans": [], "verifyEpoch": self._epoch, "observe": observe}
            for name, body in groups.items():
                self.asked_at.setdefault((name, wish_revision(body)), self.now)
            self.object["metadata"]["generation"] += 1
            self.object["spec"] = {"revision": spec_revision(spec), **spec}
            self._show()

    def verify_anew(self) -> None:
        """Ask for another trial, as the operator does when an engine of this kind was wrong somewhere."""
        self._epoch += 1
        if (self.object or {}).get("spec", {}).get("groups") is not None and self.object is not None:
            spec = self.object["spec"]
            self.object["metadata"]["generation"] += 1
            spec["verifyEpoch"] = self._epoch
            if not spec.get("isEdited"):
                spec["revision"] = spec_revision(spec)
            self._show()

    def turn(self, mode: str) -> None:
        """Give every group another mode, or wish nothing."""
        groups = (self.object or {}).get("spec", {}).get("groups", {})
        self.wish({} if mode == "absent" else {name: {**body, "mode": mode} for name, body in groups.items()})

    def delete_state(self) -> None:
        """Delete the node state; the next wish makes another one."""
        if self.object is not None:
            self.object = None
            self.oracle.status_lost()
            self._show()

    def make_state(self) -> None:
        """Make the node state that is not there, without a wish: its operator comes later."""
        if self.object is None:
            self._create()
            self._show()

    def edit_spec(self) -> None:
        """Take a group out of the spec by hand; its revision is still that of the whole."""
        groups = (self.object or {}).get("spec", {}).get("groups")
        if self.object is not None and groups:
            self.object["metadata"]["generation"] += 1
            del groups[min(groups)]
            self.object["spec"]["isEdited"] = True
            self._show()

    def _create(self) -> None:
        self._made += 1
        metadata = {"name": "node-a", "uid": f"state-{self._made}", "generation": 1}
        self.object = {"metadata": metadata, "spec": {}}

    def edit_status(self, kind: str) -> None:
        """Do what an administrator can do to a status."""
        if self.object is None:
            return
        status = self.object.setdefault("status", {})
        rows = [row for row in status.get("knobs", []) if row]
        match kind:
            case "clear":
                self.object["status"] = {}
            case "no baselines":
                status["knobs"] = [{key: row[key] for key in row if key != "baseline"} for row in rows]
            case "other baselines":
                status["knobs"] = [{**row, "baseline": "3"} if "baseline" in row else row for row in rows]
            case "no conditions":
                status.pop("conditions", None)
            case "old copy" if self._old_statuses:
                self.object["status"] = copy.deepcopy(self._rng.choice(self._old_statuses))
            case "nonsense":
                self.object["status"] = {"bootID": status.get("bootID"), "knobs": [None, {"field": []}], "settledAt": 5}
            case _:
                status["groups"] = {name: {"state": "Failed", "reason": "KernelError"} for name in ("offload",)}
        self.oracle.status_edited()
        self._show()

    def answer(self, kind: str, times: int) -> None:
        """Let the API server answer the next reports otherwise."""
        self.answers += [kind] * times

    # --- moves: the agent's end, and its folder

    def crash(self) -> None:
        """End the agent at this very moment; another one starts."""
        self._start()

    def lose_file(self, kind: str) -> None:
        """Lose the state folder, or spoil the file in it; an agent that runs does not see it."""
        path = self.folder / FILE_NAME
        if not path.exists():
            return
        match kind:
            case "folder":
                shutil.rmtree(self.folder)
                self.oracle.trust.lost_home("file")
            case "cut":
                path.write_bytes(path.read_bytes()[:-9])
            case "empty":
                path.write_bytes(b"")
            case _:
                path.write_text('{"version": 1, "bootID": "another", "values": {}}')
        self.oracle.file_lost(spoiled=kind in {"cut", "empty"})

    def room(self, is_there: bool) -> None:  # moves are positional
        """Let the state folder's file system be full, or not."""
        self.is_full = not is_there

    # --- moves: the kernel

    def fault(self, name: str, kind: str, times: int) -> None:
        """Let the next calls to a knob's file fail, or show something else."""
        path = knob_path(self.kernel.config.dialect, name)
        if path:
            self.faults[path] = kind, times
            self.oracle.disturbed()

    def heal(self) -> None:
        """Let every file be itself again."""
        self.faults.clear()
        self.oracle.disturbed()

    def read_only(self, is_so: bool) -> None:
        """Let the agent's mount be read-only, or not."""
        self.is_read_only = is_so
        self.oracle.disturbed()

    def drift(self, name: str, text: str) -> None:
        """Write a knob as somebody else."""
        path = knob_path(self.kernel.config.dialect, name)
        if path and _tried(lambda: self.kernel.drift(path, text)):
            self.oracle.written_by_others(name, text)

    def load(self, parameters: Mapping[str, str]) -> None:
        """Load the driver."""
        if _tried(lambda: self.kernel.load(parameters)):
            self.oracle.driver_came()

    def unload(self) -> None:
        """Unload the driver; refused while it is in use."""
        if self._may_unload() and _tried(self.kernel.unload):
            self.oracle.disturbed()

    def begin_unload(self) -> None:
        """Stop half way through an unload."""
        if self._may_unload() and _tried(self.kernel.begin_unload):
            self.oracle.disturbed()

    def unload_half_done(self) -> None:
        """End an unload that was begun."""
        driver = self.kernel._state.dcbm
        if driver is not None and driver.going:
            self.unload()

    def _may_unload(self) -> bool:
        return not self.kernel.blocked

    def reboot(self, keeps_folder: bool) -> None:
        """Boot the host anew; the folder is on tmpfs, unless somebody put it elsewhere."""
        self.kernel.reboot()
        if not keeps_folder:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.faults.clear()
        self.is_read_only = self.is_full = False
        self.oracle.rebooted(keeps_folder=keeps_folder)
        self._start()

    def engines(self, kind: str) -> None:
        """Replace the DMA engines; a kernel that was made for sdxi has no others."""
        engines = ENGINES[kind]
        if self.kernel.config.dialect is Dialect.V6_SDXI:
            engines = tuple(structs.replace(engine, driver="sdxi", public=True) for engine in engines if engine.memcpy)
        self.kernel.set_engines(engines)
        self.oracle.disturbed()
        self.oracle.trust.exchanged()

    def workload(self, kind: str) -> None:
        """Replace what migrates."""
        self.kernel.set_workloads(WORKLOADS[kind])

    def other_migrator(self, registered: bool) -> None:
        """Let somebody else be the migrator, or not."""
        if _tried(lambda: self.kernel.set_other_migrator(registered=registered)):
            self.oracle.disturbed()


def _errno_of(call: Call) -> int | None:
    try:
        call.result()
    except KernelError as error:
        return error.errno
    return None


def _tried(doing: Callable[[], object]) -> bool:
    """Tell whether the kernel let it be done."""
    try:
        doing()
    except (KernelError, ValueError):
        return False
    return True
