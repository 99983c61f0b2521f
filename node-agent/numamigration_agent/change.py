# SPDX-License-Identifier: Apache-2.0
"""Carries out a plan's changes, step by step, without doing I/O: requests come out, answers go in.

Save the baselines to the file, with the units that are about to be open, report them in the status, and only then, unit
by unit: look at a knob, write it, read it back, next. When a knob fails, the knobs of its unit that were written before
go back in reverse order, each read back too; other units are not concerned. At last the units are no longer open, and
the baselines that are not needed any more are forgotten.

* A change that dies at any point leaves a state that the next plan continues from: the baselines are safe before the
  first write, they are never captured twice, and the file names what may be half done (promises 1, 4, 7).
* A unit whose undo failed stays open, and is brought to an end like one that an earlier life of the agent left open.
* Each knob is looked at right before it is written: the plan may be as old as an answer of the API server. One that no
  longer holds what was captured for it was changed meanwhile: it is not written, and its baseline is captured anew.
* A driver that was loaded anew since the plan was made is not written: its values of before are others (0019).
* A unit that finds no longer what it was planned from has not failed, unless it happens again: it is planned anew.
* A write that is refused changes nothing, so only knobs that took a write are undone.
* Offload that was turned off stays off, whatever fails after it: off is the safe direction. A value of before that is
  never written does not come back either.
* An engine that is to be tried is turned on with the reasons narrowed to that of the trial; the wished reasons follow
  once it has passed. If it has not, or something fails before it can be tried, it goes off first of all, also where it
  was on before (promise 15).

Sources: fs/kernfs/file.c (a failed store keeps the old value); kernel/sysctl.c.
"""

from __future__ import annotations

import errno
from collections.abc import Container, Mapping, Sequence
from enum import Enum, auto
from typing import Final, assert_never

from numamigration_agent.baseline import Baselines
from numamigration_agent.groups import TrialWindow
from numamigration_agent.kernel.codecs import Value
from numamigration_agent.kernel.dialects import ENGINE_OFF, Knob
from numamigration_agent.kernel.sysfs import STALE, Absent, Denied, Present, Reading, explain_errno
from numamigration_agent.mounts import mount_of
from numamigration_agent.plan import UNITS, UnitChange, stays
from numamigration_agent.rows import ERRNO_REASONS, KnobWrite
from numamigration_agent.verify import Trial
from numamigration_api.machinery.records import dataclass, replace
from numamigration_api.vocabulary import Outcome, Reason


@dataclass(frozen=True, slots=True)
class SaveBaselines:
    """Replace the baseline file; answer with ``saved``."""

    baselines: Baselines


@dataclass(frozen=True, slots=True)
class ReportBaselines:
    """Get the baselines into the node's status; answer with ``reported`` once they are there."""


@dataclass(frozen=True, slots=True)
class ReadKnob:
    """Read a knob; answer with ``read``. Of a driver that has another life by now: Denied, STALE."""

    knob: Knob
    life: int | None = None


@dataclass(frozen=True, slots=True)
class WriteKnob:
    """Write a knob once; answer with ``wrote``. Of a driver that has another life by now: STALE, unwritten."""

    knob: Knob
    value: Value
    life: int | None = None


@dataclass(frozen=True, slots=True)
class TryEngine:
    """Have the engine copy pages of our own; answer with ``tried``."""

    trial: Trial


Step = SaveBaselines | ReportBaselines | ReadKnob | WriteKnob | TryEngine


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong, at which knob (empty: at none)."""

    reason: Reason
    message: str
    field: str = ""
    outcome: Outcome = Outcome.REJECTED


class Stage(Enum):
    """Where the writing of one knob stands."""

    LOOK = auto()
    WRITE = auto()
    READ_BACK = auto()
    OVER = auto()


class KnobRun:
    """One knob: look, write unless it already is so, read back.

    Attributes:
        before: what it held when it was looked at.
        touched: the kernel took a write.
        outdated: it no longer held what was captured as its baseline.
        overtaken: what it was planned from has passed: it is outdated, or the driver was unloaded or loaded anew.
        failure: why it does not hold its target.
    """

    def __init__(self, write: KnobWrite, captured: Value | None = None) -> None:
        self.knob, self.target, self._life = write
        self.before: Value | None = None
        self.touched = self.outdated = self.overtaken = False
        self._captured = captured
        self.failure: Failure | None = None
        self._stage = Stage.LOOK

    def __repr__(self) -> str:
        return f"<KnobRun {self.knob.field} to {self.target!r}: {self._stage.name}>"

    @property
    def stays(self) -> bool:
        """Whether its write is not undone: offload that went off, and what must never be written."""
        return stays(self.knob, self.before, self.target)

    def undo(self, before: Value) -> KnobWrite:
        """Return the write that takes it back."""
        return KnobWrite(self.knob, before, self._life)

    def next(self) -> ReadKnob | WriteKnob | None:
        """Return the next request; None when it is over."""
        match self._stage:
            case Stage.LOOK | Stage.READ_BACK:
                return ReadKnob(self.knob, self._life)
            case Stage.WRITE:
                return WriteKnob(self.knob, self.target, self._life)
            case Stage.OVER:
                return None
            case _:
                assert_never(self._stage)

    def read(self, reading: Reading) -> None:
        """Take the answer to ReadKnob."""
        value = self.knob.codec.parse(reading.text) if isinstance(reading, Present) else None
        if value is None:
            went = isinstance(reading, Absent) and self._life is not None
            self.overtaken = went or reading == Denied(STALE)
            self._fail(unreadable(self.knob, reading))
        elif self._stage is Stage.LOOK and self._captured not in {None, value}:
            self.outdated = self.overtaken = True
            self._fail(baseline_outdated(self.knob, value))
        elif self._stage is Stage.LOOK:
            self.before = value
            self._stage = Stage.OVER if value == self.target else Stage.WRITE
        elif value != self.target:
            self._fail(read_back_mismatch(self.knob, self.target, value))
        else:
            self._stage = Stage.OVER

    def wrote(self, number: int | None) -> None:
        """Take the answer to WriteKnob: an errno or None."""
        if number is None:
            self.touched = True
            self._stage = Stage.READ_BACK
        else:
            self.overtaken = number == STALE
            self._fail(rejected(self.knob, self.target, number))

    def _fail(self, failure: Failure) -> None:
        self.failure = failure
        self._stage = Stage.OVER


class TrialRun:
    """The trial of an engine that is on.

    Attributes:
        failure: why it has not passed.
    """

    touched = outdated = overtaken = False

    def __init__(self, window: TrialWindow) -> None:
        self.window = window
        self.failure: Failure | None = None
        self.over = False

    def __repr__(self) -> str:
        return f"<TrialRun {self.window.trial.subject}: {'over' if self.over else 'not over'}>"

    def next(self) -> TryEngine | None:
        """Return the request; None when it is over."""
        return None if self.over else TryEngine(self.window.trial)

    def tried(self, failure: Failure | None) -> None:
        """Take the answer to TryEngine: why it has not passed, or None."""
        self.failure, self.over = failure, True


class UnitRun:
    """The knobs of one unit, all or nothing (promise 4); or the undo alone, of a change that was left open.

    Attributes:
        failure: why the unit is not in force; says what became of the undo.
    """

    def __init__(self, change: UnitChange, fresh: Mapping[str, Value]) -> None:
        self.change = change
        self.failure: Failure | None = None
        self._runs: list[KnobRun | TrialRun] = []
        self._undo: list[KnobRun] | None = None
        if change.ends:
            self._undo = [KnobRun(write) for write in change.writes]
        else:
            self._runs = [KnobRun(write, fresh.get(write.knob.field)) for write in change.before_trial]
            self._runs += [TrialRun(change.window)] if change.window else []
            self._runs += [KnobRun(write) for write in change.after_trial]

    def __repr__(self) -> str:
        return f"<UnitRun {self.change.unit}: {self._runs if self._undo is None else self._undo}>"

    @property
    def touched(self) -> bool:
        """Whether the kernel took a write, undone or not."""
        return any(run.touched for run in (*self._runs, *(self._undo or ())))

    @property
    def half_done(self) -> bool:
        """Whether an undo failed, so that the unit is neither in force nor as it was before."""
        return any(run.failure for run in self._undo or ())

    @property
    def overtaken(self) -> bool:
        """Whether it failed for nothing but that the node has changed since it was planned, and left nothing behind."""
        return not self.half_done and any(run.overtaken for run in self._runs)

    @property
    def forgettable(self) -> frozenset[str]:
        """Fields whose baselines are not needed any more, or must be captured anew."""
        if self.failure is None:
            return self.change.forget
        return frozenset(run.knob.field for run in self._knob_runs if run.outdated)

    @property
    def on_trial(self) -> bool:
        """Whether an engine may be on that has not passed, so that stopping here would leave it on."""
        current, window = self._current(), self.change.window
        if window is None or current is None:
            return False
        turned_on = any(run.touched and run.knob == window.engine for run in self._knob_runs)
        return turned_on or any(run is current or run.over for run in self._runs if isinstance(run, TrialRun))

    @property
    def _knob_runs(self) -> list[KnobRun]:
        return [run for run in self._runs if isinstance(run, KnobRun)]

    def next(self) -> ReadKnob | WriteKnob | TryEngine | None:
        """Return the next request; None when the unit is over."""
        run = self._current()
        return run.next() if run else None

    def read(self, reading: Reading) -> None:
        """Take the answer to ReadKnob."""
        run = self._current()
        if isinstance(run, KnobRun):
            run.read(reading)
            self._look_for_failure(run)

    def wrote(self, number: int | None) -> None:
        """Take the answer to WriteKnob."""
        run = self._current()
        if isinstance(run, KnobRun):
            run.wrote(number)
            self._look_for_failure(run)

    def tried(self, failure: Failure | None) -> None:
        """Take the answer to TryEngine."""
        run = self._current()
        if isinstance(run, TrialRun):
            run.tried(failure)
            self._look_for_failure(run)

    def not_opened(self, failure: Failure, on_file: Container[str]) -> None:
        """Take in that it could not be opened in the file: of it nothing may be written but that engines go off.

        Args:
            failure: why.
            on_file: fields whose values of before the file has all the same.
        """
        self.failure = failure
        offs = [KnobRun(write) for write in self.change.writes if write.turns_off] or self._turn_off()
        self._undo = [run for run in offs if run.knob.field in on_file]

    def _current(self) -> KnobRun | TrialRun | None:
        if self._undo is not None:
            return next((run for run in self._undo if run.next()), None)
        return next((run for run in self._runs if run.next()), None)

    def _look_for_failure(self, run: KnobRun | TrialRun) -> None:
        if run.failure is None:
            return
        if self._undo is not None and run.overtaken:
            run.failure = None  # what was to be undone went with its driver
        elif self._undo is None:
            self.failure = run.failure
            self._undo = self._turn_off(after=run) + [
                KnobRun(done.undo(done.before))
                for done in reversed(self._knob_runs)
                if done.touched and not done.stays and done.before is not None
            ]
        else:
            self.failure = undo_failed(self.failure, run.failure)
            if isinstance(run, KnobRun) and run.knob.is_engine:
                # It may still be on: its reasons stay narrowed, and the unit open, until it can be turned off.
                self._undo = [done for done in self._undo if done is run or done.next() is None]

    def _turn_off(self, after: KnobRun | TrialRun | None = None) -> list[KnobRun]:
        """Return the turning off of an engine that has not passed, which an undo alone would leave on if it was."""
        window = self.change.window
        if window is None or window.engine.off is None or not (isinstance(after, TrialRun) or window.untried):
            return []
        return [KnobRun(KnobWrite(window.engine, window.engine.off))]


class Progress(Enum):
    """Where a change stands."""

    SAVE = auto()
    REPORT = auto()
    WRITE = auto()
    CLOSE = auto()
    OVER = auto()


class Change:
    """All units of a plan, between one save that opens them and one that closes them.

    Attributes:
        baselines: as far as the file has them.
        fresh: fields whose baselines were captured and not written since.
        units: one run for each unit, in order.
    """

    def __init__(
        self,
        changes: Sequence[UnitChange],
        baselines: Baselines,
        *,
        on_file: Mapping[str, Value],
        reported: Mapping[str, Value],
        fresh: frozenset[str],
    ) -> None:
        """Begin.

        Args:
            changes: of one plan.
            baselines: known so far.
            on_file: those that the file has; fewer when they were recovered from the status.
            reported: those that the status is known to have; fewer when it was lost.
            fresh: fields captured by an earlier change that wrote nothing.
        """
        self.baselines, self._on_file = baselines, on_file
        captures = {name: value for change in changes for name, value in change.captures.items()}
        opened = {change.unit: change.swaps for change in changes if change.swaps}
        self._opened = baselines.with_captures(captures).with_open(opened)
        self.fresh = fresh | captures.keys()
        expected = {name: value for name, value in self._opened.values.items() if name in self.fresh}
        self.units = [UnitRun(change, expected) for change in changes]
        written = frozenset[str]().union(*(change.fields for change in changes))
        needed = {name: value for name, value in self._opened.values.items() if name in written}
        self._to_report = any(reported.get(name) != value for name, value in needed.items())
        to_save = captures or opened or any(on_file.get(name) != value for name, value in needed.items())
        self._progress = Progress.SAVE if to_save else self._after_save()

    def __repr__(self) -> str:
        return f"<Change {self._progress.name} {self.units}>"

    @property
    def touched(self) -> bool:
        """Whether the kernel took a write."""
        return any(unit.touched for unit in self.units)

    def next(self) -> Step | None:
        """Return the next request; None when the change is over."""
        if self._progress is Progress.SAVE:
            return SaveBaselines(self._opened)
        if self._progress is Progress.REPORT:
            return ReportBaselines()
        if self._progress is Progress.WRITE:
            step = next((step for unit in self.units if (step := unit.next())), None)
            if step is not None:
                return step
            self._progress = Progress.CLOSE if self._closed() != self.baselines else Progress.OVER
        if self._progress is Progress.CLOSE:
            return SaveBaselines(self._closed())
        return None

    def saved(self, problem: str) -> None:
        """Take the answer to SaveBaselines: what went wrong, or nothing."""
        if problem:
            self._not_saved(problem)
        elif self._progress is Progress.SAVE:
            self.baselines = self._opened
            self._progress = self._after_save()
        else:
            self.baselines = self._closed()
            self._progress = Progress.OVER

    def reported(self) -> None:
        """Take the answer to ReportBaselines."""
        self._progress = Progress.WRITE

    def read(self, reading: Reading) -> None:
        """Take the answer to ReadKnob."""
        self._current().read(reading)

    def wrote(self, number: int | None) -> None:
        """Take the answer to WriteKnob."""
        self._current().wrote(number)

    def tried(self, failure: Failure | None) -> None:
        """Take the answer to TryEngine: why the engine has not passed, or None."""
        self._current().tried(failure)

    @property
    def on_trial(self) -> bool:
        """Whether an engine may be on that has not passed its trial; one whose turn has not come holds up nothing."""
        return next((unit.on_trial for unit in self.units if unit.next()), False)

    def _current(self) -> UnitRun:
        return next(unit for unit in self.units if unit.next())

    def _after_save(self) -> Progress:
        return Progress.REPORT if self._to_report else Progress.WRITE

    def _closed(self) -> Baselines:
        forgettable = frozenset[str]().union(*(unit.forgettable for unit in self.units))
        ended = (unit.change.unit for unit in self.units if not unit.half_done)
        return self.baselines.without(forgettable).with_ended(ended)

    def _not_saved(self, problem: str) -> None:
        failure = Failure(Reason.BASELINE_NOT_SAVED, f"baseline not saved: {problem}")
        for unit in self.units:
            if self._progress is Progress.SAVE:
                unit.not_opened(failure, self._on_file)
            else:
                unit.failure = unit.failure or failure
        self._progress = Progress.WRITE if self._progress is Progress.SAVE else Progress.OVER


def turn_off(switch: Knob, life: int | None, baselines: Baselines, fresh: frozenset[str]) -> Change:
    """Return the turn-off of an engine that is not trusted, of which nothing may wait and no unit may be ended.

    So it is made as if all baselines were safe everywhere, as they were before the engine went on.
    """
    off = UnitChange(UNITS[switch.group], (KnobWrite(switch, ENGINE_OFF, life),), {}, frozenset(), drift=False)
    known = replace(baselines, open_units={})
    return Change([off], known, on_file=known.values, reported=known.values, fresh=fresh)


_OF_THE_MOUNT: Final = frozenset({Reason.PERMISSION_DENIED, Reason.READ_ONLY_FILE_SYSTEM})
_ADVICE: Final = {
    Reason.MIGRATOR_BUSY: "another migrator is registered in the kernel; turn that one off first",
    Reason.NO_DMA_CHANNEL: "the driver found no DMA channel to take",
    Reason.NOT_LOADED: "the driver is being unloaded, or was just loaded anew",
    Reason.INVALID_VALUE: "this kernel does not take the value",
}


def rejected(knob: Knob, target: Value, number: int) -> Failure:
    """Say what an errno at a write means."""
    reason = dict(knob.errnos).get(number) or ERRNO_REASONS.get(number, Reason.KERNEL_ERROR)
    advice = mount_of(knob.path).advice if reason in _OF_THE_MOUNT else _ADVICE.get(reason)
    name = errno.errorcode.get(number, str(number))
    message = "; ".join(filter(None, (f"{knob.path}: writing {target!r}: {name} ({explain_errno(number)})", advice)))
    return Failure(reason, message, knob.field)


def read_back_mismatch(knob: Knob, wrote: Value, holds: Value) -> Failure:
    """Say that the kernel took a write and holds another value."""
    message = f"{knob.path}: wrote {wrote!r}, the kernel holds {holds!r}; change spec.settings.{knob.field}"
    return Failure(Reason.READ_BACK_MISMATCH, message, knob.field)


def baseline_outdated(knob: Knob, holds: Value) -> Failure:
    """Say that a knob was changed while its baseline was made safe."""
    message = f"{knob.path}: was set to {holds!r} by somebody else while its value of before was being saved"
    return Failure(Reason.CONTENDED, f"{message}; it is saved anew", knob.field)


def unreadable(knob: Knob, reading: Reading) -> Failure:
    """Say that a knob does not show a value."""
    match reading:
        case Absent():
            return Failure(Reason.KERNEL_ERROR, f"{knob.path}: has gone; was the driver unloaded?", knob.field)
        case Denied(number):
            message = f"{knob.path}: cannot be read: {explain_errno(number)}"
            return Failure(ERRNO_REASONS.get(number, Reason.KERNEL_ERROR), message, knob.field)
        case Present(text):
            return Failure(Reason.KERNEL_ERROR, f"{knob.path}: shows {text[:80]!r}", knob.field)
        case _:
            assert_never(reading)


def undo_failed(cause: Failure | None, undo: Failure) -> Failure:
    """Say that a change could not be undone; `cause` is why it should be, None when an earlier agent left it open."""
    why = cause.message if cause else "a change was left half done"
    return Failure(Reason.UNDO_FAILED, f"{why}; and the undo failed: {undo.message}", undo.field)
