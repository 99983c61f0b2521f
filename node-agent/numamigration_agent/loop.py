# SPDX-License-Identifier: Apache-2.0
"""The agent as one step machine: events and the time go in, commands come out. No thread, no socket, no file.

One pass decides after every event, whatever it was: which job is due on each lane, and whether a report is. A lane
carries one job at a time; kernel files may block, so a job that does not answer in time is told as blocked and keeps
its lane until it answers, while everything else goes on (promise 10).

What there is to know of one thing is kept by a part that the machine owns: ``lanes``, ``planning``, ``changes`` (with
``retries``), ``trials``, ``watchdog``, ``counting``, ``drift``, ``reports``. They do not know each other; this is where
their order is.

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
from typing import TYPE_CHECKING, Any, assert_never

from numamigration_agent.baseline import Baselines
from numamigration_agent.change import (
    Failure,
    WriteKnob,
)
from numamigration_agent.changes import Changes
from numamigration_agent.cluster import StateGone, StateSeen
from numamigration_agent.counting import Counting, early
from numamigration_agent.drift import Drifts
from numamigration_agent.events import Command, Event, JobDone, Report, ReportDone, Run, Tick, Timing
from numamigration_agent.groups import GroupPlan, Known
from numamigration_agent.jobs import (
    Answer,
    Begin,
    Begun,
    Broken,
    ClockMoves,
    Counted,
    Job,
    Moved,
    MovePages,
    PrepareMoves,
    Probe,
    Roomed,
    Saved,
    SaveMemory,
    SaveProbe,
    SaveVerdict,
    Timed,
    Wrote,
)
from numamigration_agent.kernel.counters import Look
from numamigration_agent.kernel.dialects import ENGINE_FIELD, Knob
from numamigration_agent.kernel.probe import KernelFacts
from numamigration_agent.kernel.signs import Signs
from numamigration_agent.kernel.sysfs import Absent, Denied, Present
from numamigration_agent.lanes import Lane, Lanes, Running
from numamigration_agent.plan import UNITS, Plan, UnitChange, fields_of, of_class
from numamigration_agent.planning import Planning
from numamigration_agent.recovery import recall
from numamigration_agent.reports import Reports
from numamigration_agent.situation import Veto
from numamigration_agent.soaks import Soaks
from numamigration_agent.status import build_status
from numamigration_agent.trials import Trials
from numamigration_agent.verify import TRIAL_SECONDS_MAX, WINDOW_SECONDS_MAX
from numamigration_agent.view import Hindrances, View, group_results, is_settled
from numamigration_agent.watch import Finding
from numamigration_agent.watchdog import Watchdog
from numamigration_agent.wishes import Spec, Wish, parse_spec, uid_of
from numamigration_api.machinery.clock import NEVER, timestamp
from numamigration_api.machinery.records import replace
from numamigration_api.machinery.shapes import mapping
from numamigration_api.vocabulary import DriftPolicy, Reason, SettingsGroup, VerificationResult

if TYPE_CHECKING:
    from numamigration_agent.tuner import Tuner

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
        self._timing, self._version, self._rng = timing, version, rng
        self._batch_ceiling_pages = batch_ceiling_pages
        self._lanes = Lanes()
        self._trials = Trials(rng)
        self._watchdog = Watchdog(rng)
        self._counting = Counting(timing.statistics_window)
        self._drifts = Drifts(rng)
        self._planning = Planning()
        self._changes = Changes(rng)
        self._reports = Reports(timing.report_min, timing.report_max, rng)
        self._begun: Begun | None = None
        self._state: Mapping[str, Any] | None = None
        self._baselines: Baselines | None = None
        self._facts: KernelFacts | None = None
        self._reasons_seen: frozenset[str] = frozenset()
        self._spec: Spec | None = None
        self._corruption: Veto | None = None  # as of the last plan
        self._tuner: Tuner | None = None  # made, with all that it imports, where a probe was ever asked for
        self._probe_told = ""
        self._look_at = 0.0
        self._waiting_until = NEVER
        self._unlooked = True

    def __repr__(self) -> str:
        return f"<Agent {self._lanes}; {self._changes}>"

    def handle(self, event: Event, now: float, wall: datetime) -> list[Command]:
        """Take an event and return what to do.

        Args:
            event: what happened.
            now: seconds of a monotonic clock.
            wall: the same moment for people, with zone.
        """
        before = self._facts, self._planning.plan, self._watchdog.watch.finding
        self._take_veto(now)
        match event:
            case StateSeen(state):
                self._see(state, now)
            case StateGone():
                self._state = self._spec = self._planning.plan = None
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
        self._tick_probe(now)
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
            case JobDone(_, Timed()):
                return self._tuner is not None and not self._tuner.measures
            case JobDone(_, KernelFacts()):
                # A correction that was told is told no more after a while, which only a status shows.
                return bool(self._changes.current or self._drifts) or before[:2] != (self._facts, self._planning.plan)
            case _:
                return True

    def wake_at(self) -> float:
        """Return when a Tick is due at the latest (monotonic seconds)."""
        looks = [] if self._lanes[Lane.KNOBS] else [self._next_look()]
        counts = [] if self._lanes[Lane.COUNTERS] or self._facts is None else [self._counting.due_at]
        watch = [] if self._lanes[Lane.WATCH] else [self._watchdog.sample_at]
        told = self._planning.plan is None or self._reports.under_way or not self._quiet()
        reports = [] if told else [self._reports.next_at]
        probe = [self._tuner.wake_at()] if self._tuner and self._may_measure and not self._lanes[Lane.PAGES] else []
        return min([*self._lanes.deadlines(), *looks, *counts, *watch, self._watchdog.wake_at(), *reports, *probe])

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
        self._changes.retries.clear()
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
        told = mapping(mapping(self._state.get("status")).get("groups"))  # a group of which we told was in this object
        self._baselines = earlier.baselines.with_state(uid_of(self._state), fields_of(told))
        self._reasons_seen = earlier.reasons_seen
        self._changes.on_file = earlier.on_file
        self._planning.resume(earlier.settled, earlier.settled_at)
        self._drifts.resume(earlier.contended, now, earlier.contended_since)
        self._trials.resume(self._begun.verdict, earlier.verdict)
        self._counting.soaks = Soaks(earlier.soaked)
        if earlier.statistics is not None:
            self._counting.resume(earlier.statistics, earlier.since, earlier.window)
        if self._begun.probe or mapping(self._state.get("status")).get("probe"):
            self._make_tuner()

    # --- jobs --------------------------------------------------------------------------------------------------------

    def _take_answer(self, lane: Lane, answer: Answer, now: float, wall: datetime) -> None:
        running = self._lanes.end(lane, now)
        self._unlooked |= running.blocked
        match answer:
            case Begun():
                self._begin(answer, now)
            case KernelFacts():
                self._take_facts(answer, now, wall)
            case Counted(look):
                self._count(look, running.since, now, wall)
            case Saved(problem):
                self._take_saved(running, problem, now)
            case Present() | Absent() | Denied():
                self._changes.running.read(answer)
            case Wrote(number):
                self._take_wrote(running, number)
            case Moved() | Roomed() | Timed():
                self._take_pages(running, answer, now, wall)
            case Signs():
                self._take_signs(answer, now)
            case Broken(error):
                raise error
            case _:
                assert_never(answer)

    def _take_facts(self, facts: KernelFacts, now: float, wall: datetime) -> None:
        if self._facts is not None and facts.engines != self._facts.engines:
            # Nobody has tried the new ones, and they may be on: what failed before must not make that wait.
            self._changes.retries.forget(UNITS[SettingsGroup.OFFLOAD])
        self._facts = facts
        self._look_at, self._waiting_until = now + self._timing.drift_check, NEVER
        self._watch_engine(facts, now)
        self._decide(now, wall)

    def _watch_engine(self, facts: KernelFacts, now: float) -> None:
        if self._watchdog.looked(facts, now, on=self._engine_to_watch() is not None):
            self._counting.hasten(now)  # its failures are counted from here

    def _take_saved(self, running: Running, problem: str, now: float) -> None:
        match running.job:
            case SaveVerdict(verdict):
                self._trials.saved(verdict, problem)
            case SaveProbe():
                self._take_probe_saved(problem, now)
            case SaveMemory():
                if problem:
                    log.error("what the watch remembers is not saved", extra={"problem": problem})
            case _:
                self._baselines = self._changes.saved(problem)
                if self._facts is not None:
                    self._watch_engine(self._facts, now)  # one that was on is ours now, however long the report takes

    def _take_wrote(self, running: Running, number: int | None) -> None:
        self._changes.running.wrote(number)
        if isinstance(running.job, WriteKnob):
            knob, value = running.job.knob, running.job.value
            if number is None:
                self._planning.forget({knob.field})
            log.info("knob written", extra={"knob": knob.field, "value": value, "errno": number or 0})

    def _take_pages(self, running: Running, answer: Moved | Roomed | Timed, now: float, wall: datetime) -> None:
        match answer:
            case Moved():
                self._take_moved(running, answer, now, wall)
            case Roomed():
                self._take_roomed(answer, now)
            case Timed():
                self._take_timed(running, answer, now)
            case _:
                assert_never(answer)

    def _take_moved(self, running: Running, moved: Moved, now: float, wall: datetime) -> None:
        self._look_at = now  # a trial may have waited for these pages
        if isinstance(running.job, MovePages) and running.job.calm_only:
            self._watchdog.moved(moved)
            return
        self._unlooked = True
        self._counting.trial_over(now)
        verdict = self._trials.moved(moved, running, now, wall)
        if verdict is not None:
            passed = verdict.result is VerificationResult.PASSED
            self._changes.running.tried(None if passed else Failure(verdict.reason, verdict.message))

    def _count(self, look: Look, begun: float, now: float, wall: datetime) -> None:
        watch = self._watchdog.watch
        watch.counted(look.counts, now, wall)
        is_planned = self._planning.plan is not None
        if is_planned:
            # Between two looks an engine may lose its trust; before the reading, which a soak may wait for.
            self._counting.decided(self._planning.spec, self._results(), now)
        self._counting.counted(look, now, wall, watch.count_seconds if watch.wants_signs else NEVER)
        settled_at = self._planning.settled_at
        in_force = settled_at.revision if settled_at else None
        if self._trial_pages_move(now) or (self._tuner and self._tuner.open):
            self._counting.leave_out()
        elif begun < self._counting.ours_until:
            self._counting.hasten(now)
        elif is_planned and self._counting.soaked(self._planning.spec, in_force, now):
            self._reports.hasten(now)

    def _trial_pages_move(self, now: float) -> bool:
        """Whether pages of a trial are under way, whose failures are no news about the change of another group."""
        running = self._lanes[Lane.PAGES]
        return running is not None and self._trials.under_way and now < running.since + TRIAL_SECONDS_MAX

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
        if self._spec is not self._planning.spec:
            told = self._spec is not None and self._spec.revision is not None
            self._changes.drop(asked_for=told and self._planning.plan is not None)
        if save := self._watchdog.next_save(self._begun.host.boot_id):
            return save
        self._begin_turn_off(now)
        if self._changes.current is not None:
            job = self._changes.next_job(reported=self._baselines_reported())
            if job is not None or not self._changes.is_over:
                return job
            self._finish_change(now)
        return Probe(self._begun.host) if self._may_look(now) else None

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
        trial = self._changes.trial
        if trial is not None:
            return self._trials.begin(trial)
        return self._next_tuner_job(now) or self._next_probe(now)

    def _next_probe(self, now: float) -> Job | None:
        """Return the move of own pages that settles a suspicion of the watch."""
        if self._facts is None or self._changes.current is not None:
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
        running = self._lanes[Lane.PAGES]
        if self._tuner is not None and running and isinstance(running.job, PrepareMoves | ClockMoves):
            self._tuner.late()
            self._look_at = now
        if self._trials.under_way:
            message = f"the engine has held our own test pages for {WINDOW_SECONDS_MAX:g} s; it is turned off"
            log.error("engine stalled", extra={"problem": message})
            self._changes.running.tried(Failure(Reason.ENGINE_STALLED, message))

    def _next_look(self) -> float:
        return NEVER if self._changes.current is not None else min(self._look_at, self._waiting_until)

    def _may_look(self, now: float) -> bool:
        """Whether a look is due, or will be so soon that the agent need not wake up for it once more."""
        soon = self._look_at - early(self._timing.drift_check)
        return self._changes.current is None and now >= min(soon, self._waiting_until)

    # --- the probe of settings ---------------------------------------------------------------------------------------

    def _make_tuner(self) -> Tuner | None:
        """Return the tuner, made once both its file and the status are known."""
        if self._tuner is None and self._begun is not None and self._state is not None:
            from numamigration_agent.tuner import Tuner

            status = mapping(self._state.get("status"))
            same_boot = status.get("bootID") == self._begun.host.boot_id
            told = mapping(status.get("probe"))
            self._tuner = Tuner(self._rng, self._begun.probe, told, same_boot=same_boot)
        return self._tuner

    def _ask_probe(self, spec: Spec) -> None:
        tuner = self._make_tuner() if spec.probe else self._tuner
        if tuner is not None:
            tuner.asked(spec.probe)

    def _tick_probe(self, now: float) -> None:
        if self._tuner and self._spec and self._tuner.tick(self._offload_wish, trusted=self._veto is None, now=now):
            self._end_measuring(now)

    def _end_measuring(self, now: float) -> None:
        """Let settings go back at once, whatever else has failed meanwhile."""
        self._changes.retries.forget(UNITS[SettingsGroup.OFFLOAD])
        self._counting.trial_over(now)
        self._look_at, self._unlooked = now, True

    @property
    def _may_measure(self) -> bool:
        """Whether it is known what the kernel holds, held before and shall hold."""
        known = self._facts is not None and self._spec is not None and self._baselines is not None
        return known and not (self._baselines and self._baselines.problem)

    @property
    def _offload_wish(self) -> Wish | None:
        """As this node's hardware class has it: what others have is none of a probe's concern."""
        wish = self._spec.wish(SettingsGroup.OFFLOAD) if self._spec else None
        return of_class(self._facts, wish) if wish and self._facts else wish

    @property
    def _at_rest(self) -> bool:
        """Whether offload is as it shall be, with nothing under way and nothing failed."""
        plan, unit = self._planning.plan, UNITS[SettingsGroup.OFFLOAD]
        if plan is None or self._spec is None or not self._spec.whole or self._changes.current is not None:
            return False
        return unit not in self._changes.retries.failures and all(change.unit != unit for change in plan.changes)

    def _next_tuner_job(self, now: float) -> Job | None:
        if self._tuner is None or not self._tuner.busy or not self._may_measure:
            return None
        if self._facts is None or self._spec is None or self._baselines is None:
            return None
        known = Known(self._baselines, veto=self._veto, record=self._trials.record(self._spec.verify_epoch))
        before = self._tuner.document()
        job = self._tuner.next_job(self._facts, self._offload_wish, known, at_rest=self._at_rest, now=now)
        self._unlooked |= before != self._tuner.document()
        return job

    def _take_roomed(self, roomed: Roomed, now: float) -> None:
        if self._tuner is None or self._facts is None:
            return
        thp_pages = self._counting.statistics.thp_pages or 0
        self._tuner.roomed(roomed, self._facts, self._offload_wish, thp_pages, now)
        self._unlooked = True

    def _take_timed(self, running: Running, timed: Timed, now: float) -> None:
        if isinstance(running.job, ClockMoves):
            self._counting.leave_out()
        if self._tuner is not None and self._tuner.timed(running, timed, now):
            self._look_at = now

    def _take_probe_saved(self, problem: str, now: float) -> None:
        if self._tuner is not None:
            self._tuner.saved(problem)
        self._look_at, self._unlooked = now, True

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
        self._watchdog.waits(self._lanes[Lane.PAGES], self._lanes[Lane.COUNTERS], now, wall)
        self._take_veto(now)

    def _take_veto(self, now: float) -> None:
        if not self._watchdog.barks(now):
            return
        if self._watchdog.veto is None and not self._watchdog.watch.mistaken:
            self._trials.forget_passed()
        self._changes.retries.forget(UNITS[SettingsGroup.OFFLOAD])
        self._look_at, self._unlooked = now, True
        if self._facts and self._spec and self._baselines:
            self._make_plan(self._facts, self._spec, self._baselines, now)

    @property
    def _veto(self) -> Veto | None:
        return self._corruption or self._watchdog.veto  # wrong bytes weigh more than lost time

    def _begin_turn_off(self, now: float) -> None:
        if self._veto is None or self._changes.turning_off:
            return
        knob, baselines = self._engine_to_watch(), self._known_baselines()
        if knob is None or self._facts is None or baselines is None:
            return
        if now >= self._changes.retries.not_before(UNITS[SettingsGroup.OFFLOAD]):
            life = self._facts.life(knob)
            self._changes.begin_turn_off(knob, life, baselines, reported=self._baselines_reported())

    # --- decisions ---------------------------------------------------------------------------------------------------

    def _decide(self, now: float, wall: datetime) -> None:
        if self._spec is None or self._facts is None or self._baselines is None:
            return
        self._trials.forget_impossible(now)
        self._reasons_seen |= self._facts.reasons_seen
        self._facts = replace(self._facts, reasons_seen=self._reasons_seen)
        baselines = self._of_this_life(self._facts, self._baselines)
        self._baselines = baselines.with_state(self._spec.uid, fields_of(wish.group for wish in self._spec.wishes))
        self._ask_probe(self._spec)
        plan = self._make_plan(self._facts, self._spec, self._baselines, now)
        while self._tuner and self._tuner.planned(plan.probe, at_rest=self._at_rest, now=now, wall=wall):
            if not self._tuner.measures:
                self._end_measuring(now)
            plan = self._make_plan(self._facts, self._spec, self._baselines, now)
        corrected = (group for group in plan.groups if group.wish.drift is DriftPolicy.CORRECT)
        self._drifts.looked((name for group in corrected for name in group.drifted), now, timestamp(wall))
        self._changes.no_longer_fresh(self._planning.remember(plan))
        # The turn-off of an engine that is not trusted may be in no plan, as on hold, and pauses all the same.
        distrusted = {UNITS[SettingsGroup.OFFLOAD]} if self._veto else set[str]()
        self._changes.keep(distrusted | {change.unit for change in plan.changes})
        begins = {change.unit: self._may_begin_at(change) for change in plan.changes}
        due = [change for change in plan.changes if begins[change.unit] <= now]
        self._waiting_until = min([begin for begin in begins.values() if begin > now], default=NEVER)
        self._changes.begin(due, self._baselines, self._reports.baselines)
        results = self._results()
        self._planning.is_in_force(wall, settled=is_settled(results))
        self._counting.decided(self._planning.spec, results, now)

    def _of_this_life(self, facts: KernelFacts, baselines: Baselines) -> Baselines:
        """Forget what a driver held before it was loaded anew: all that is lost, so its defaults are no drift."""
        lives = {knob.field: life for knob in facts.knobs if (life := facts.life(knob)) is not None}
        lost = baselines.of_another_life(lives)
        if lost:
            log.warning("driver was loaded anew", extra={"fields": ",".join(sorted(lost))})
            self._planning.forget(lost)
            self._changes.no_longer_fresh(lost)
        return baselines.without(lost).with_lives(lives)

    def _make_plan(self, facts: KernelFacts, spec: Spec, baselines: Baselines, now: float) -> Plan:
        self._corruption = self._trials.veto
        known = Known(
            baselines,
            contended=self._drifts.contended(now),
            veto=self._veto,
            record=self._trials.record(spec.verify_epoch),
        )
        if self._tuner is not None:
            known = replace(
                known, probe=self._tuner.wish(self._offload_wish, facts), record=self._tuner.covering(known.record)
            )
        return self._planning.make(facts, spec, known)

    def _may_begin_at(self, change: UnitChange) -> float:
        if change.window and self._trials.under_way:
            return NEVER  # the pages of an earlier trial are not back; a look follows once they are
        pause = self._drifts.not_before(change.drifted) if change.drift else 0.0
        return max(self._changes.retries.not_before(change.unit), pause)

    def _finish_change(self, now: float) -> None:
        self._look_at = now
        corrected = self._changes.finish(now, outdated=self._spec is not self._planning.spec)
        if corrected:
            self._drifts.corrected(corrected, now)
            self._counting.corrected(len(corrected))
        failure = self._changes.retries.failures.get(UNITS[SettingsGroup.OFFLOAD])
        if failure and failure.reason is Reason.CORRUPTION_DETECTED:
            # Nothing of it is tried again, and a pause would only delay turning off what somebody else turns on.
            self._changes.retries.forget(UNITS[SettingsGroup.OFFLOAD])
        if failure and self._tuner and self._tuner.measures:
            self._tuner.failed(failure)
            self._end_measuring(now)

    # --- reports -----------------------------------------------------------------------------------------------------

    def status(self, now: float, wall: datetime) -> dict[str, Any]:
        """Return the status as of now; empty while nothing is decided yet."""
        if self._planning.plan is None:
            return {}
        view = replace(self._view(), corrected=self._drifts.told(now), skewed=self._reports.skewed)
        return build_status(view, now=wall, conditions=self._reports.conditions)

    def _view(self) -> View:
        planning, counting = self._planning, self._counting
        if planning.plan is None or self._facts is None or self._baselines is None:
            raise RuntimeError("there is nothing to report yet")
        return View(
            spec=planning.spec,
            facts=self._facts,
            groups=planning.plan.groups,
            plans=planning.policies,
            baselines=self._baselines.values,
            distrust=self._baselines.problem,
            hindrances=self._hindrances(),
            verdict=self._trials.record(planning.spec.verify_epoch).current,
            statistics=counting.statistics,
            since=counting.since,
            window=counting.window,
            soaked=counting.soaks.done,
            settled_at=planning.settled_at.at if planning.settled_at else None,
            agent_version=self._version,
            batch_ceiling_pages=self._batch_ceiling_pages,
            probe=self._tuner.document() if self._tuner else None,
        )

    def _hindrances(self) -> Hindrances:
        knobs = self._lanes[Lane.KNOBS]
        blocked_unit = self._changes.unit if knobs and knobs.blocked else ""
        finding = self._watchdog.watch.finding
        return Hindrances(self._changes.retries.failures, self._lanes.blocked, blocked_unit, finding)

    def _results(self) -> tuple[GroupPlan, ...]:
        plan = self._planning.plan
        return group_results(plan.groups, self._hindrances()) if plan else ()

    def _quiet(self) -> bool:
        """Whether what would be told now is not about to be outdated within milliseconds.

        A change without a job under way waits for the report of its baselines, or for a trial.
        """
        if self._measures_quietly:
            return False
        running = self._lanes[Lane.KNOBS]
        answers = running is None or running.blocked or self._changes.turning_off
        return answers and self._changes.trial is None

    @property
    def _measures_quietly(self) -> bool:
        """Whether settings change from sample to sample, which is told once."""
        if self._tuner is None or not self._tuner.measures:
            return False
        return self._baselines_reported() and self._probe_told == mapping(self._tuner.document()).get("id")

    def _report(self, now: float, wall: datetime) -> list[Command]:
        if self._planning.plan is None or self._spec is None or self._reports.under_way or not self._quiet():
            return []
        if not self._unlooked and now < self._reports.next_at:
            return []
        self._unlooked = False
        status = self.status(now, wall)
        if not self._reports.wants(status, now):
            return []
        self._reports.send(status, now)
        self._probe_told = mapping(status.get("probe")).get("id", "")
        return [Report(status)]
