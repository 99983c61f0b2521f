# SPDX-License-Identifier: Apache-2.0
"""The change under way of one agent, when it gives way to another one, and what is left once it is over. Pure."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import assert_never

from numamigration_agent.baseline import Baselines
from numamigration_agent.change import (
    Change,
    ReadKnob,
    ReportBaselines,
    SaveBaselines,
    TryEngine,
    UnitRun,
    WriteKnob,
    turn_off,
)
from numamigration_agent.kernel.codecs import Value
from numamigration_agent.kernel.dialects import ENGINE_FIELD, Knob
from numamigration_agent.plan import UNITS, UnitChange
from numamigration_agent.retries import Retries
from numamigration_agent.verify import Trial
from numamigration_api.vocabulary import SettingsGroup

log = logging.getLogger(__name__)


class Changes:
    """Changes of one node, one after the other.

    Attributes:
        current: the change under way.
        turning_off: it is the turn-off of an engine that is not trusted.
        on_file: baselines that the file has.
        retries: units that failed.
    """

    def __init__(self, rng: Random) -> None:
        self.current: Change | None = None
        self.turning_off = False
        self.on_file: Mapping[str, Value] = {}
        self.retries = Retries(rng)
        self._fresh: frozenset[str] = frozenset()
        self._overtaken: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"<Changes {self.current}{'; turning off' if self.turning_off else ''}>"

    @property
    def running(self) -> Change:
        """The change that a job has answered for.

        Raises:
            RuntimeError: there is none.
        """
        if self.current is None:
            raise RuntimeError("a knob answered and no change is under way")
        return self.current

    @property
    def trial(self) -> Trial | None:
        """The trial that it waits for."""
        step = self.current.next() if self.current else None
        return step.trial if isinstance(step, TryEngine) else None

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to be done for it."""
        return self.current is not None and self.current.next() is None

    @property
    def unit(self) -> str:
        """The unit whose turn it is; empty when there is none."""
        units = self.current.units if self.current else []
        return next((unit.change.unit for unit in units if unit.next()), "")

    def begin(self, due: Sequence[UnitChange], baselines: Baselines, reported: Mapping[str, Value]) -> None:
        """Begin what is due; `reported` are the baselines that the status is known to have."""
        if due:
            self.current = Change(due, baselines, on_file=self.on_file, reported=reported, fresh=self._fresh)

    def begin_turn_off(self, switch: Knob, life: int | None, baselines: Baselines, *, reported: bool) -> None:
        """Let the turn-off of an engine that is not trusted go before all that has not written anything yet.

        Args:
            switch: of the engine.
            life: of its driver.
            baselines: known so far.
            reported: the status is known to have them, so that a change which writes need not wait.
        """
        if self.current is not None:
            if (self.current.touched and reported) or self.current.on_trial:
                return
            # It waits for the API server. What of it is half done is open in the file, and is ended by the next plan.
            self._fresh = _still_fresh(self.current)
        self.current, self.turning_off = turn_off(switch, life, baselines, self._fresh), True

    def drop(self, *, asked_for: bool) -> None:
        """Forget a change of an older spec that has written nothing; another is finished, or half of it would stay.

        Args:
            asked_for: there is a spec, and a plan. Without one every change is forgotten: nobody asks for it, and
                nobody could be told. The file has it open. So it is when another spec has come meanwhile, for the new
                object has no baselines, and no report is made of a plan that went with the old one.
        """
        if self.current is None or self.turning_off or self.current.on_trial:
            return  # or an engine would stay on that nobody has tried
        if not (self.current.touched and asked_for):
            self._fresh = _still_fresh(self.current)
            self.current = None

    def next_job(self, *, reported: bool) -> ReadKnob | WriteKnob | SaveBaselines | None:
        """Return what is to be done with kernel files; None when it waits for the API server, for a trial, or is over.

        Args:
            reported: the status is known to have the baselines.
        """
        step = self.running.next()
        unreported = isinstance(step, ReportBaselines | WriteKnob) and not reported
        if unreported and not (self.turning_off or self.running.on_trial):
            return None
        match step:
            case SaveBaselines() | ReadKnob() | WriteKnob():
                return step
            case ReportBaselines():
                self.running.reported()
                return self.next_job(reported=reported)
            case TryEngine() | None:
                return None
            case _:
                assert_never(step)

    def keep(self, units: Iterable[str]) -> None:
        """Forget what came of all but these units: nothing is left to be done for the others."""
        working = frozenset(units)
        self.retries.keep(working)
        self._overtaken &= working

    def no_longer_fresh(self, fields: Iterable[str]) -> None:
        """Take in what was found in force after it was captured, or went with a driver that was loaded anew."""
        self._fresh -= frozenset(fields)

    def saved(self, problem: str) -> Baselines:
        """Take the answer to SaveBaselines; returns the baselines that are known then."""
        change = self.running
        change.saved(problem)
        if problem:
            log.error("baselines not saved", extra={"problem": problem})
        else:
            self.on_file = change.baselines.values
        return change.baselines

    def finish(self, now: float, *, outdated: bool) -> frozenset[str]:
        """End the change that is over; returns the fields of which a drift was corrected.

        Args:
            now: seconds of a monotonic clock.
            outdated: another spec has come, whose change must not be delayed by this one, nor spoken for.
        """
        change, turned_off = self.running, self.turning_off
        self.current, self.turning_off = None, False
        self._fresh = change.fresh - {ENGINE_FIELD} if turned_off else _still_fresh(change)
        corrected: frozenset[str] = frozenset()
        for unit in change.units:
            if unit.failure is None:
                corrected |= self._succeeded(unit)
            elif (turned_off or not outdated) and not self._is_planned_anew(unit):
                self.retries.failed(unit.change.unit, unit.failure, now, turns_off=turned_off)
        self._overtaken -= {unit.change.unit for unit in change.units if not unit.overtaken}
        self._overtaken |= {unit.change.unit for unit in change.units if unit.overtaken}
        if corrected:
            log.warning("drift corrected", extra={"fields": ",".join(sorted(corrected))})
        return corrected

    def _is_planned_anew(self, unit: UnitRun) -> bool:
        """Whether it has not failed but was overtaken; twice in a row, and it would be writers who fight."""
        return unit.overtaken and unit.change.unit not in self._overtaken

    def _succeeded(self, unit: UnitRun) -> frozenset[str]:
        name = unit.change.unit
        if unit.change.ends:
            # What it undid may fail again at once, so its pauses go on growing.
            log.warning("change that was left open ended", extra={"unit": name, "undone": unit.touched})
            return frozenset()
        self.retries.forget(name)
        return unit.change.drifted


def _still_fresh(change: Change) -> frozenset[str]:
    """Return what was captured and may still be another writer's by the time it is written for the first time."""
    written = {run.change.unit for run in change.units if run.touched and not run.change.ends}
    return frozenset(name for name in change.fresh if _unit_of(name) not in written)


def _unit_of(field: str) -> str:
    return UNITS[SettingsGroup(field.partition(".")[0])]
