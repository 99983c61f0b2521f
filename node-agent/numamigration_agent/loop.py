# SPDX-License-Identifier: Apache-2.0
"""The agent as one step machine: events and the time go in, commands come out. No thread, no socket, no file.

One pass decides after every event, whatever it was: which job is due on each lane, and whether a report is. A lane
carries one job at a time; kernel files may block, so a job that does not answer in time is told as blocked and keeps
its lane until it answers, while everything else goes on (promise 10).

* Nothing is decided on old facts: a new spec, the end of a change and a retry each cause a fresh look first.
* A report is due when something significant changed; while a change runs its intermediate states are not told, unless
  it waits for the report of its baselines or for a blocked file.
* Between reports without a change lies an interval drawn anew each time, so that a fleet never reports in step.
* Without a node state (not created yet, or deleted) nothing is written and nothing forgotten. A change that is under
  way then stops where it is, and is ended once an operator has written a spec again.
* No knob is written while the node state lacks a baseline, whoever took it away (promise 1); but a trial is brought to
  its end, which may be that the engine goes off, whatever is heard meanwhile (promise 15). And an engine that is not
  trusted any more is turned off at once, from the baseline on file, with or without an API server, a spec or a node
  state, and whatever mode its group has (promise 16, docs/decisions/0021).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from random import Random
from typing import Any, assert_never

from numamigration_agent.baseline import Baselines
from numamigration_agent.change import (
    Change,
    Failure,
    ReadKnob,
    ReportBaselines,
    SaveBaselines,
    TryEngine,
    UnitRun,
    WriteKnob,
    turn_off,
)
from numamigration_agent.cluster import StateGone, StateSeen
from numamigration_agent.counting import Counting
from numamigration_agent.drift import Drifts
from numamigration_agent.events import Command, Event, JobDone, Report, ReportDone, Run, Tick, Timing
from numamigration_agent.groups import Known
from numamigration_agent.jobs import (
    Answer,
    Begin,
    Begun,
    Broken,
    Counted,
    Job,
    Moved,
    MovePages,
    Probe,
    Saved,
    SaveMemory,
    SaveVerdict,
    Wrote,
    describe,
)
from numamigration_agent.kernel.codecs import Value
from numamigration_agent.kernel.counters import Look
from numamigration_agent.kernel.dialects import ENGINE_FIELD, Knob
from numamigration_agent.kernel.probe import KernelFacts
from numamigration_agent.kernel.signs import Signs
from numamigration_agent.kernel.sysfs import Absent, Denied, Present
from numamigration_agent.lanes import Lane, Lanes, Running
from numamigration_agent.plan import UNITS, Plan, PlannedPolicy, UnitChange, make_plan, plan_policy
from numamigration_agent.recovery import Settled, recall
from numamigration_agent.reports import Reports
from numamigration_agent.retries import Retries
from numamigration_agent.situation import Veto
from numamigration_agent.status import View, build_status, group_results, is_settled
from numamigration_agent.trials import Trials
from numamigration_agent.verify import WINDOW_SECONDS_MAX
from numamigration_agent.watch import Finding
from numamigration_agent.watchdog import Watchdog
from numamigration_agent.wishes import Spec, parse_spec
from numamigration_api.machinery.clock import NEVER, timestamp
from numamigration_api.machinery.records import replace
from numamigration_api.vocabulary import DriftPolicy, Reason, SettingsGroup, VerificationResult

log = logging.getLogger(__name__)


class Agent:
    """One node's agent.

    Args:
        timing: see Timing.
        rng: chance for waits.
        version: of this agent, for the status.
        batch_ceiling_pages: as declared; 0 when nobody has.
    """

    def __init__(self, timing: Timing, rng: Random, version: str, batch_ceiling_pages: int = 0) -> None:
        self._timing, self._version = timing, version
        self._batch_ceiling_pages = batch_ceiling_pages
        self._lanes = Lanes()
        self._trials = Trials(rng)
        self._watchdog = Watchdog(rng)
        self._counting = Counting(timing.statistics_window)
        self._drifts = Drifts(rng)
        self._retries = Retries(rng)
        self._reports = Reports(timing.report_min, timing.report_max, rng)
        self._begun: Begun | None = None
        self._state: Mapping[str, Any] | None = None
        self._baselines: Baselines | None = None
        self._on_file: Mapping[str, Value] = {}
        self._facts: KernelFacts | None = None
        self._reasons_seen: frozenset[str] = frozenset()
        self._spec: Spec | None = None
        self._plan: Plan | None = None
        self._planned_for = Spec()
        self._planned_from: tuple[KernelFacts, Spec, Known] | None = None
        self._policies: tuple[PlannedPolicy, ...] = ()
        self._settled: dict[str, Value] = {}
        self._settled_at: Settled | None = None
        self._corruption: Veto | None = None  # as of the last plan
        self._change: Change | None = None
        self._turning_off = False  # the change under way is the turn-off of an engine that is not trusted
        self._fresh: frozenset[str] = frozenset()
        self._look_at = 0.0
        self._waiting_until = NEVER
        self._unlooked = True

    def __repr__(self) -> str:
        return f"<Agent {self._lanes}; {self._change}>"

    def handle(self, event: Event, now: float, wall: datetime) -> list[Command]:
        """Take an event and return what to do.

        Args:
            event: what happened.
            now: seconds of a monotonic clock.
            wall: the same moment for people, with zone.
        """
        before = self._facts, self._plan, self._watchdog.watch.finding
        self._take_veto(now)
        match event:
            case StateSeen(state):
                self._see(state, now)
            case StateGone():
                self._state = self._spec = self._plan = None
            case JobDone(lane, answer):
                self._take_answer(lane, answer, now, wall)
                self._take_veto(now)
            case ReportDone(result):
                self._reports.answered(result, now)
            case Tick():
                pass
            case _:
                assert_never(event)
        self._unlooked |= self._is_news(event, before)
        self._wait_for_engine(now, wall)
        self._give_up_stalled(now)
        commands = [
            *self._lane(Lane.KNOBS, self._next_knob_job, now),
            *self._lane(Lane.COUNTERS, self._next_counter_job, now),
            *self._lane(Lane.WATCH, self._next_sample, now),
            *self._lane(Lane.PAGES, self._next_page_job, now),
        ]
        return [*commands, *self._report(now, wall)]

    def _is_news(self, event: Event, before: tuple[KernelFacts | None, Plan | None, Finding | None]) -> bool:
        """Whether a status has to be built to find out if something changed.

        Most events are those of counters, whose moves are no change, and looks that find everything as it was.
        """
        match event:
            case Tick() | JobDone(Lane.COUNTERS | Lane.WATCH, _) | JobDone(_, Moved()):
                return before[2] != self._watchdog.watch.finding
            case JobDone(_, KernelFacts()):
                # A correction that was told is told no more after a while, which only a status shows.
                return bool(self._change or self._drifts) or before[:2] != (self._facts, self._plan)
            case _:
                return True

    def wake_at(self) -> float:
        """Return when a Tick is due at the latest (monotonic seconds)."""
        looks = [] if self._lanes[Lane.KNOBS] else [self._next_look()]
        counts = [] if self._lanes[Lane.COUNTERS] or self._facts is None else [self._counting.due_at]
        watch = [] if self._lanes[Lane.WATCH] else [self._watchdog.sample_at]
        told = self._plan is None or self._reports.under_way or not self._quiet()
        reports = [] if told else [self._reports.next_at]
        return min([*self._lanes.deadlines(), *looks, *counts, *watch, self._watchdog.wake_at(), *reports])

    # --- the node state ----------------------------------------------------------------------------------------------

    def _see(self, state: Mapping[str, Any], now: float) -> None:
        self._state = state
        self._reports.seen(state, self._begun.host.boot_id if self._begun else None)
        self._recover(now)
        spec = parse_spec(state)
        if spec == self._spec:
            return
        if self._spec is not None and self._spec.revision != spec.revision:
            self._drifts.clear()
        log.info("spec seen", extra={"generation": spec.generation, "revision": spec.revision})
        self._spec = spec
        self._remember()
        self._retries.clear()
        self._look_at = now

    def _recover(self, now: float) -> None:
        """Once file and status are both known: take from them what an earlier life of this agent knew."""
        if self._begun is None or self._state is None or self._baselines is not None:
            return
        self._reports.seen(self._state, self._begun.host.boot_id)
        earlier = recall(self._begun, self._state)
        if earlier.baselines.problem:
            problem = earlier.baselines.problem
            log.error("baselines cannot be trusted; nothing will be written", extra={"problem": problem})
        self._baselines, self._on_file = earlier.baselines, earlier.on_file
        self._reasons_seen, self._settled = earlier.reasons_seen, dict(earlier.settled)
        self._settled_at = earlier.settled_at
        self._drifts.resume(earlier.contended, now, earlier.contended_since)
        self._trials.resume(self._begun.verdict, earlier.verdict)
        if earlier.statistics is not None:
            self._counting.resume(earlier.statistics, earlier.since, earlier.window)

    def _drop_outdated_change(self) -> None:
        """Forget a change of an older spec that has written nothing; another is finished, or half of it would stay.

        Without a spec every change is forgotten: nobody asks for it, and nobody could be told. The file has it open. So
        it is when another spec has come meanwhile, for the new object has no baselines, and no report is made of a plan
        that went with the old one.
        """
        if self._change is None or self._turning_off or self._spec is self._planned_for:
            return
        if self._change.on_trial:  # or an engine would stay on that nobody has tried
            return
        touched = self._change.touched
        if not touched or self._plan is None or self._spec is None or self._spec.revision is None:
            self._fresh, self._change = frozenset() if touched else self._change.fresh, None

    # --- jobs --------------------------------------------------------------------------------------------------------

    def _take_answer(self, lane: Lane, answer: Answer, now: float, wall: datetime) -> None:
        running = self._lanes.end(lane)
        if running is not None and running.blocked:
            self._unlooked = True
            log.info("kernel answered at last", extra={"job": describe(running.job), "after": now - running.since})
        match answer:
            case Begun():
                self._begin(answer, now)
            case KernelFacts():
                self._take_facts(answer, now, wall)
            case Counted(look):
                self._count(look, now, wall)
            case Saved(problem):
                self._take_saved(running, problem)
            case Present() | Absent() | Denied():
                self._running_change().read(answer)
            case Wrote(number):
                self._take_wrote(running, number)
            case Moved():
                self._take_moved(running, answer, now, wall)
            case Signs():
                self._take_signs(answer, now)
            case Broken(error):
                raise error
            case _:
                assert_never(answer)

    def _take_facts(self, facts: KernelFacts, now: float, wall: datetime) -> None:
        self._facts = facts
        self._look_at, self._waiting_until = now + self._timing.drift_check, NEVER
        self._watchdog.looked(facts, now, on=self._engine_to_watch() is not None)
        self._decide(now, wall)

    def _running_change(self) -> Change:
        if self._change is None:
            raise RuntimeError("a knob answered and no change is under way")
        return self._change

    def _take_saved(self, running: Running | None, problem: str) -> None:
        match running.job if running else None:
            case SaveVerdict(verdict):
                self._trials.saved(verdict, problem)
            case SaveMemory():
                if problem:
                    log.error("what the watch remembers is not saved", extra={"problem": problem})
            case _:
                self._take_baselines_saved(self._running_change(), problem)

    def _take_baselines_saved(self, change: Change, problem: str) -> None:
        change.saved(problem)
        self._baselines = change.baselines
        self._on_file = self._on_file if problem else change.baselines.values
        if problem:
            log.error("baselines not saved", extra={"problem": problem})

    def _take_wrote(self, running: Running | None, number: int | None) -> None:
        change = self._running_change()
        change.wrote(number)
        if running is not None and isinstance(running.job, WriteKnob):
            knob, value = running.job.knob, running.job.value
            if number is None:
                # What we write ourselves is no drift, wherever this change or the next one ends.
                self._settled.pop(knob.field, None)
            log.info("knob written", extra={"knob": knob.field, "value": value, "errno": number or 0})

    def _take_moved(self, running: Running | None, moved: Moved, now: float, wall: datetime) -> None:
        self._look_at = now  # a trial may have waited for these pages
        if running is not None and isinstance(running.job, MovePages) and running.job.calm_only:
            self._watchdog.moved(moved)
            return
        self._unlooked = True
        verdict = self._trials.moved(moved, running, now, wall) if running else None
        if verdict is not None:
            passed = verdict.result is VerificationResult.PASSED
            self._running_change().tried(None if passed else Failure(verdict.reason, verdict.message))

    def _count(self, look: Look, now: float, wall: datetime) -> None:
        watch = self._watchdog.watch
        watch.counted(look.counts, now, wall)
        self._counting.counted(look, now, wall, watch.count_seconds if watch.wants_signs else NEVER)
        in_force = self._settled_at.revision if self._settled_at else None
        if self._counting.soaked(in_force, self._planned_for.soak_seconds):
            self._reports.hasten(now)

    def _lane(self, lane: Lane, next_job: Callable[[float], Job | None], now: float) -> list[Command]:
        if self._lanes[lane] is not None:
            self._unlooked |= self._lanes.is_late(lane, now)
            return []
        job = next_job(now)
        if job is None:
            return []
        self._lanes.start(lane, job, now)
        return [Run(lane, job)]

    def _next_knob_job(self, now: float) -> Job | None:
        if self._begun is None:
            return Begin()
        self._drop_outdated_change()
        if save := self._watchdog.next_save(self._begun.host.boot_id):
            return save
        self._begin_turn_off(now)
        if self._change is not None:
            step = self._change.next()
            unreported = isinstance(step, ReportBaselines | WriteKnob) and not self._baselines_reported()
            if unreported and not (self._turning_off or self._change.on_trial):
                return None
            match step:
                case TryEngine():
                    return None  # that is for the lane of pages
                case SaveBaselines() | ReadKnob() | WriteKnob():
                    return step
                case ReportBaselines():
                    self._change.reported()
                    return self._next_knob_job(now)
                case None:
                    self._finish_change(self._change, now)
                case _:
                    assert_never(step)
        return Probe(self._begun.host) if now >= self._next_look() else None

    def _baselines_reported(self) -> bool:
        return self._baselines is not None and self._reports.has(self._baselines)

    def _next_counter_job(self, now: float) -> Job | None:
        return self._counting.next_job(self._facts.dialect, now) if self._facts else None

    def _next_sample(self, now: float) -> Job | None:
        return self._watchdog.next_sample(self._facts.dialect, now) if self._facts else None

    def _next_page_job(self, now: float) -> Job | None:
        save = self._trials.next_save(self._begun.host.boot_id) if self._begun else None
        if save is not None:
            return save
        step = self._change.next() if self._change else None
        if isinstance(step, TryEngine):
            return self._trials.begin(step.trial)
        return self._next_probe(now)

    def _next_probe(self, now: float) -> Job | None:
        """Return the move of own pages that settles a suspicion of the watch."""
        if self._facts is None or self._change is not None:
            return None
        found = self._watchdog.watch.finding
        probe = self._watchdog.next_probe(self._facts, now)
        self._unlooked |= found != self._watchdog.watch.finding
        return probe

    def _give_up_stalled(self, now: float) -> None:
        """End a trial whose pages are late: whoever moves pages hangs, and others hang with it until it is off."""
        if not self._lanes.is_late(Lane.PAGES, now):
            return
        self._unlooked = True
        if self._trials.under_way:
            message = f"the engine has held our own test pages for {WINDOW_SECONDS_MAX:g} s; it is turned off"
            log.error("engine stalled", extra={"problem": message})
            self._running_change().tried(Failure(Reason.ENGINE_STALLED, message))

    def _next_look(self) -> float:
        return NEVER if self._change is not None else min(self._look_at, self._waiting_until)

    # --- the watch over the engine -----------------------------------------------------------------------------------

    def _begin(self, begun: Begun, now: float) -> None:
        self._begun = begun
        self._watchdog.resume(begun.remembered, now)
        self._remember()
        self._recover(now)

    def _remember(self) -> None:
        if self._begun and self._spec and self._state is not None:
            self._watchdog.remember(self._spec, self._state)

    def _known_baselines(self) -> Baselines | None:
        """Return the baselines; before the node state was seen, those of the file."""
        loaded = self._begun.loaded if self._begun else None
        return self._baselines or (loaded if isinstance(loaded, Baselines) else None)

    def _engine_to_watch(self) -> Knob | None:
        """Return the switch of the engine by DMA, which is the one that is watched, if it is on by our doing."""
        baselines = self._known_baselines()
        if self._facts is None or baselines is None or ENGINE_FIELD not in baselines.values:
            return None
        return next((knob for knob in self._facts.running if knob.field == ENGINE_FIELD), None)

    def _take_signs(self, signs: Signs, now: float) -> None:
        if self._watchdog.saw(signs, now):
            self._look_at = now
        self._counting.hasten(now + self._watchdog.watch.count_seconds)

    def _wait_for_engine(self, now: float, wall: datetime) -> None:
        pages, counters = self._lanes[Lane.PAGES], self._lanes[Lane.COUNTERS]
        moving = pages is not None and isinstance(pages.job, MovePages)
        self._watchdog.waits(
            now - pages.since if pages and moving else None,
            now,
            wall,
            counters_blocked=counters is not None and counters.blocked,
        )
        self._take_veto(now)

    def _take_veto(self, now: float) -> None:
        if not self._watchdog.barks(now):
            return
        if self._watchdog.veto:
            self._trials.forget_passed()
        self._retries.forget(UNITS[SettingsGroup.OFFLOAD])
        self._look_at, self._unlooked = now, True
        if self._facts and self._spec and self._baselines:
            self._make_plan(self._facts, self._spec, self._baselines, now)

    def _begin_turn_off(self, now: float) -> None:
        """Let the turn-off of an engine that is not trusted go before all that has not written anything yet."""
        if not (self._corruption or self._watchdog.veto) or self._turning_off:
            return
        knob, baselines = self._engine_to_watch(), self._known_baselines()
        if knob is None or self._facts is None or baselines is None:
            return
        if now < self._retries.not_before(UNITS[SettingsGroup.OFFLOAD]):
            return
        if self._change is not None:
            writing = self._change.touched and self._baselines_reported()
            if writing or self._change.on_trial:
                return
            # It waits for the API server. What of it is half done is open in the file, and is ended by the next plan.
            self._fresh = frozenset() if self._change.touched else self._change.fresh
        self._change = turn_off(knob, self._facts.life(knob), baselines, self._fresh)
        self._turning_off = True

    # --- decisions ---------------------------------------------------------------------------------------------------

    def _decide(self, now: float, wall: datetime) -> None:
        if self._spec is None or self._facts is None or self._baselines is None:
            return
        self._trials.forget_impossible(now)
        self._reasons_seen |= self._facts.reasons_seen
        self._facts = replace(self._facts, reasons_seen=self._reasons_seen)
        self._baselines = self._of_this_life(self._facts, self._baselines)
        plan = self._make_plan(self._facts, self._spec, self._baselines, now)
        corrected = (group for group in plan.groups if group.wish.drift is DriftPolicy.CORRECT)
        self._drifts.looked((name for group in corrected for name in group.drifted), now, timestamp(wall))
        self._remember_settled(plan)
        self._retries.keep(change.unit for change in plan.changes)
        begins = {change.unit: self._may_begin_at(change) for change in plan.changes}
        due = [change for change in plan.changes if begins[change.unit] <= now]
        self._waiting_until = min([begin for begin in begins.values() if begin > now], default=NEVER)
        if due:
            self._change = Change(
                due, self._baselines, on_file=self._on_file, reported=self._reports.baselines, fresh=self._fresh
            )
        self._note_settled(wall)
        self._counting.decided(self._planned_for.revision)

    def _of_this_life(self, facts: KernelFacts, baselines: Baselines) -> Baselines:
        """Forget what a driver held before it was loaded anew: all that is lost, so its defaults are no drift."""
        lives = {knob.field: life for knob in facts.knobs if (life := facts.life(knob)) is not None}
        lost = baselines.of_another_life(lives)
        if lost:
            log.warning("driver was loaded anew", extra={"fields": ",".join(sorted(lost))})
            self._settled = {name: value for name, value in self._settled.items() if name not in lost}
            self._fresh -= lost
        return baselines.without(lost).with_lives(lives)

    def _make_plan(self, facts: KernelFacts, spec: Spec, baselines: Baselines, now: float) -> Plan:
        """Plan, unless all that a plan is made from is as it was: most looks find that."""
        self._corruption = self._trials.veto(spec.verify_epoch)
        known = Known(
            baselines,
            settled=dict(self._settled),
            contended=self._drifts.contended(now),
            veto=self._corruption or self._watchdog.veto,  # wrong bytes weigh more than lost time
            record=self._trials.record(spec.verify_epoch),
        )
        if self._plan is None or (facts, spec, known) != self._planned_from:
            self._plan = make_plan(facts, spec, known)
            self._planned_from = facts, spec, known
            self._policies = tuple(plan_policy(facts, request, known) for request in spec.plans)
        self._planned_for = spec
        return self._plan

    def _may_begin_at(self, change: UnitChange) -> float:
        if change.window and self._trials.under_way:
            return NEVER  # the pages of an earlier trial are not back; a look follows once they are
        pause = self._drifts.not_before(change.drifted) if change.drift else 0.0
        return max(self._retries.not_before(change.unit), pause)

    def _remember_settled(self, plan: Plan) -> None:
        # A knob whose file went lost its value with the driver; nobody else changed it.
        rows = {row.field: row for group in plan.groups for row in group.knobs if row.knob}
        self._settled = {name: value for name, value in self._settled.items() if name in rows}
        self._settled |= {name: row.target for name, row in rows.items() if row.target is not None and not row.differs}

    def _note_settled(self, wall: datetime) -> None:
        revision = self._planned_for.revision
        if not is_settled(group_results(self._view())):
            self._settled_at = None
        elif self._settled_at is None or self._settled_at.revision != revision:
            self._settled_at = Settled(revision, timestamp(wall))

    def _finish_change(self, change: Change, now: float) -> None:
        turned_off, self._turning_off, self._change = self._turning_off, False, None
        self._look_at = now
        wrote_nothing = all(unit.change.ends or (unit.failure and not unit.touched) for unit in change.units)
        self._fresh = change.fresh if wrote_nothing or turned_off else frozenset()
        for unit in change.units:
            if unit.failure is None:
                self._succeeded(unit, now)
            elif turned_off or self._spec is self._planned_for:
                # A wish that is no more must not delay or speak for the next one.
                self._retries.failed(unit.change.unit, unit.failure, now)

    def _succeeded(self, unit: UnitRun, now: float) -> None:
        name = unit.change.unit
        if unit.change.ends:
            # What it undid may fail again at once, so its pauses go on growing.
            log.warning("change that was left open ended", extra={"unit": name, "undone": unit.touched})
            return
        self._retries.forget(name)
        if unit.change.drifted:
            self._drifts.corrected(unit.change.drifted, now)
            self._counting.corrected(len(unit.change.drifted))
            log.warning("drift corrected", extra={"fields": ",".join(sorted(unit.change.drifted))})

    # --- reports -----------------------------------------------------------------------------------------------------

    def _view(self) -> View:
        if self._plan is None or self._facts is None or self._baselines is None:
            raise RuntimeError("there is nothing to report yet")
        return View(
            spec=self._planned_for,
            facts=self._facts,
            groups=self._plan.groups,
            plans=self._policies,
            baselines=self._baselines.values,
            distrust=self._baselines.problem,
            failures=self._retries.failures,
            blocked=self._lanes.blocked,
            blocked_unit=self._blocked_unit(),
            verdict=self._trials.record(self._planned_for.verify_epoch).current,
            statistics=self._counting.statistics,
            since=self._counting.since,
            window=self._counting.window,
            settled_at=self._settled_at.at if self._settled_at else None,
            agent_version=self._version,
            batch_ceiling_pages=self._batch_ceiling_pages,
            finding=self._watchdog.watch.finding,
        )

    def _blocked_unit(self) -> str:
        running = self._lanes[Lane.KNOBS]
        if self._change is None or running is None or not running.blocked:
            return ""
        return next((unit.change.unit for unit in self._change.units if unit.next()), "")

    def _quiet(self) -> bool:
        """Whether what would be told now is not about to be outdated within milliseconds.

        A change without a job under way waits for the report of its baselines, or for a trial.
        """
        running = self._lanes[Lane.KNOBS]
        trying = self._change is not None and self._change.trying
        return not trying and (running is None or running.blocked or self._turning_off)

    def _report(self, now: float, wall: datetime) -> list[Command]:
        if self._plan is None or self._spec is None or self._reports.under_way or not self._quiet():
            return []
        if not self._unlooked and now < self._reports.next_at:
            return []
        self._unlooked = False
        view = replace(self._view(), corrected=self._drifts.told(now), skewed=self._reports.skewed)
        status = build_status(view, now=wall, conditions=self._reports.conditions)
        if not self._reports.wants(status, now):
            return []
        self._reports.send(status, now)
        return [Report(status)]
