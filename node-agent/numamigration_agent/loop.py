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
from collections.abc import Mapping
from datetime import datetime
from enum import Enum, auto
from random import Random
from typing import Any, Final, NamedTuple, assert_never

from numamigration_agent.baseline import Baselines, recover
from numamigration_agent.change import (
    Change,
    Failure,
    ReadKnob,
    ReportBaselines,
    SaveBaselines,
    TryEngine,
    UnitRun,
    WriteKnob,
)
from numamigration_agent.cluster import ApplyResult, StateGone, StateSeen
from numamigration_agent.drift import DriftLog, contended_log
from numamigration_agent.effect import probe_request
from numamigration_agent.jobs import (
    Answer,
    Begin,
    Begun,
    Broken,
    Counted,
    Job,
    Kept,
    Moved,
    MovePages,
    Probe,
    ProbeEngine,
    ReadCounters,
    ReadSigns,
    Saved,
    SaveMemory,
    SaveVerdict,
    VerdictSaved,
    Wrote,
    describe,
)
from numamigration_agent.kernel.codecs import Value, reason_names
from numamigration_agent.kernel.counters import Look
from numamigration_agent.kernel.dialects import ENGINE_FIELD, ENGINE_OFF, REASONS_FIELD, ROWS, Knob
from numamigration_agent.kernel.probe import KernelFacts
from numamigration_agent.kernel.signs import Signs
from numamigration_agent.kernel.sysfs import Absent, Denied, Present
from numamigration_agent.memory import Memory, remembered_state
from numamigration_agent.plan import UNITS, KnobWrite, Plan, PlannedPolicy, UnitChange, make_plan, plan_policy
from numamigration_agent.record import verdict_of_status
from numamigration_agent.reports import Reports
from numamigration_agent.situation import Refusal
from numamigration_agent.statistics import DRIFT_CORRECTIONS, Statistics, add_sample, add_to_total
from numamigration_agent.status import (
    View,
    build_status,
    contended_of_status,
    group_results,
    is_settled,
    reasons_of_status,
    settled_of_status,
    totals_of_status,
)
from numamigration_agent.verify import WINDOW_SECONDS_MAX, Record, Trial, Verdict, judge, worst
from numamigration_agent.watch import Finding, Probed, Watch
from numamigration_agent.window import Window, advance_window, begin_window, window_of_status
from numamigration_agent.wishes import Spec, parse_spec
from numamigration_api.machinery.backoff import Backoff
from numamigration_api.machinery.clock import timestamp
from numamigration_api.machinery.records import dataclass, replace
from numamigration_api.machinery.shapes import mapping, moment
from numamigration_api.vocabulary import (
    Dialect,
    DriftPolicy,
    Engine,
    GroupMode,
    GroupState,
    Reason,
    SettingsGroup,
    VerificationResult,
)

log = logging.getLogger(__name__)

JOB_SECONDS_MAX: Final = 5.0  # an idle turn-off takes milliseconds, one beside a hung engine 10 s and more
TRY_AGAIN_SECONDS: Final = 300.0  # a trial for which there was no channel or memory, or whose engine hung
RETRY_SECONDS_MIN: Final = 5.0
RETRY_SECONDS_MAX: Final = 295.0  # drawn on top of the shortest, so 300 s at most
NUMA_NODES_SECONDS: Final = 60.0  # for reports, which are minutes apart; kernel/counters.py has the price
EARLY_SECONDS_MAX: Final = 1.0
NEVER: Final = float("inf")


class Timing(NamedTuple):
    """The settings that the machine needs, in seconds."""

    report_min: float
    report_max: float
    drift_check: float
    statistics_window: float


class Lane(Enum):
    """Jobs of one lane follow each other; lanes do not wait for each other."""

    KNOBS = auto()
    COUNTERS = auto()
    PAGES = auto()
    WATCH = auto()


_SECONDS_MAX: Final = {Lane.PAGES: WINDOW_SECONDS_MAX}


@dataclass(frozen=True, slots=True)
class JobDone:
    """The job of a lane answered."""

    lane: Lane
    answer: Answer


@dataclass(frozen=True, slots=True)
class ReportDone:
    """The API server answered to a report, or did not."""

    result: ApplyResult


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event = StateSeen | StateGone | JobDone | ReportDone | Tick


@dataclass(frozen=True, slots=True)
class Run:
    """Start a job."""

    lane: Lane
    job: Job


@dataclass(frozen=True, slots=True)
class Report:
    """Apply a status."""

    status: Mapping[str, Any]


Command = Run | Report


@dataclass(slots=True)
class Running:
    """A job under way."""

    job: Job
    since: float
    blocked: bool = False


@dataclass(slots=True)
class Retry:
    """A unit that failed."""

    failure: Failure
    not_before: float
    backoff: Backoff


class Agent:
    """One node's agent.

    Args:
        timing: see Timing.
        rng: chance for waits.
        version: of this agent, for the status.
        batch_ceiling_pages: as declared; 0 when nobody has.
    """

    def __init__(self, timing: Timing, rng: Random, version: str, batch_ceiling_pages: int = 0) -> None:
        self._timing, self._rng, self._version = timing, rng, version
        self._batch_ceiling_pages = batch_ceiling_pages
        self._lanes: dict[Lane, Running | None] = dict.fromkeys(Lane)
        self._begun: Begun | None = None
        self._state: Mapping[str, Any] | None = None
        self._baselines: Baselines | None = None
        self._on_file: Mapping[str, Value] = {}
        self._facts: KernelFacts | None = None
        self._spec: Spec | None = None
        self._plan: Plan | None = None
        self._planned_for = Spec()
        self._planned_from: tuple[Any, ...] | None = None
        self._vetoes: dict[str, Refusal] = {}  # by who has lost the trust in the engine
        self._verdict: Verdict | None = None
        self._verdict_on_file: Verdict | None = None
        self._trial: Trial | None = None
        self._try_again_at = NEVER
        self._watch = Watch(rng)
        self._memory = self._memory_tried = Memory()
        self._turning_off = False  # the change under way is the turn-off of an engine that is not trusted
        self._watch_at = NEVER
        self._watching = False
        self._policies: tuple[PlannedPolicy, ...] = ()
        self._settled: dict[str, Value] = {}
        self._fresh: frozenset[str] = frozenset()
        self._reasons_seen: frozenset[str] = frozenset()
        self._settled_at: tuple[str | None, str] | None = None
        self._change: Change | None = None
        self._retries: dict[str, Retry] = {}
        self._drifts: dict[str, DriftLog] = {}  # by settings field
        self._statistics = add_to_total(Statistics(), DRIFT_CORRECTIONS, 0)
        self._since: str | None = None
        self._window: Window | None = None
        self._reports = Reports(timing.report_min, timing.report_max, rng)
        self._look_at = self._count_at = self._numa_nodes_at = 0.0
        # Counters that are due soon are read with whatever wakes the agent: waking up costs more than reading.
        self._early = min(EARLY_SECONDS_MAX, timing.statistics_window / 10)
        self._waiting_until = NEVER
        self._unlooked = True

    def __repr__(self) -> str:
        lanes = ", ".join(f"{lane.name}: {running and running.job}" for lane, running in self._lanes.items())
        return f"<Agent {lanes}; {self._change}>"

    def handle(self, event: Event, now: float, wall: datetime) -> list[Command]:
        """Take an event and return what to do.

        Args:
            event: what happened.
            now: seconds of a monotonic clock.
            wall: the same moment for people, with zone.
        """
        before = self._facts, self._plan, self._watch.finding
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
        lanes = [*self._knob_lane(now), *self._counter_lane(now), *self._watch_lane(now), *self._page_lane(now)]
        return [*lanes, *self._report(now, wall)]

    def _is_news(self, event: Event, before: tuple[KernelFacts | None, Plan | None, Finding | None]) -> bool:
        """Whether a status has to be built to find out if something changed.

        Most events are those of counters, whose moves are no change, and looks that find everything as it was.
        """
        match event:
            case Tick() | JobDone(Lane.COUNTERS | Lane.WATCH, _) | JobDone(_, Probed()):
                return before[2] != self._watch.finding
            case JobDone(_, KernelFacts()):
                # A correction that was told is told no more after a while, which only a status shows.
                return bool(self._change or self._drifts) or before[:2] != (self._facts, self._plan)
            case _:
                return True

    def wake_at(self) -> float:
        """Return when a Tick is due at the latest (monotonic seconds)."""
        deadlines = [
            job.since + _SECONDS_MAX.get(lane, JOB_SECONDS_MAX)
            for lane, job in self._lanes.items()
            if job and not job.blocked
        ]
        looks = [] if self._lanes[Lane.KNOBS] else [self._next_look()]
        counts = [] if self._lanes[Lane.COUNTERS] or self._facts is None else [self._count_at]
        watch = [] if self._lanes[Lane.WATCH] else [self._watch_at]
        pause = self._watch.pause
        tries = [pause.until] if pause and "watch" in self._vetoes else []
        told = self._plan is None or self._reports.under_way or not self._quiet()
        reports = [] if told else [self._reports.next_at]
        return min([*deadlines, *looks, *counts, *watch, *tries, *reports, NEVER])

    # --- the node state ----------------------------------------------------------------------------------------------

    def _see(self, state: Mapping[str, Any], now: float) -> None:
        self._state = state
        self._reports.seen(state, self._begun.host.boot_id if self._begun else None)
        self._recover(now)
        spec = parse_spec(state)
        if spec == self._spec:
            return
        if self._spec is not None and self._spec.revision != spec.revision:
            self._drifts.clear()  # whoever fights over a knob fights over another wish now
        log.info("spec seen", extra={"generation": spec.generation, "revision": spec.revision})
        self._spec = spec
        self._remember()
        self._retries.clear()
        self._look_at = now

    def _recover(self, now: float) -> None:
        """Once file and status are both known: take from them what an earlier life of this agent knew."""
        if self._begun is None or self._state is None or self._baselines is not None:
            return
        status, boot_id = mapping(self._state.get("status")), self._begun.host.boot_id
        self._reports.seen(self._state, boot_id)
        self._baselines = recover(self._begun.loaded, status, boot_id)
        if self._baselines.problem:
            problem = self._baselines.problem
            log.error("baselines cannot be trusted; nothing will be written", extra={"problem": problem})
        mask = self._baselines.values.get(REASONS_FIELD)
        self._reasons_seen = reason_names(mask) if mask else frozenset()
        if isinstance(self._begun.loaded, Baselines):
            self._on_file = self._begun.loaded.values
        if status.get("bootID") == boot_id:
            self._settled = settled_of_status(status)
            self._reasons_seen |= reasons_of_status(status)
            self._statistics = Statistics(totals={DRIFT_CORRECTIONS: 0, **totals_of_status(status)})
            self._since = moment(mapping(status.get("statistics")).get("since"))
            self._window = window_of_status(status)
            if status.get("observedRevision") == mapping(self._state.get("spec")).get("revision"):
                contended, since = contended_of_status(status)
                self._drifts = {name: contended_log(name, now, since) for name in contended}
            settled_at = moment(status.get("settledAt"))
            self._settled_at = (status.get("observedRevision"), settled_at) if settled_at else None
        self._verdict_on_file = self._begun.verdict
        self._verdict = worst([self._begun.verdict, verdict_of_status(status, boot_id)])

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
        running, self._lanes[lane] = self._lanes[lane], None
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
                self._take_saved(problem)
            case Present() | Absent() | Denied():
                self._running_change().read(answer)
            case Wrote(number):
                self._take_wrote(running, number)
            case Moved() | VerdictSaved() | Signs() | Probed() | Kept():
                self._take_engine_answer(running, answer, now, wall)
            case Broken(error):
                raise error
            case _:
                assert_never(answer)

    def _take_facts(self, facts: KernelFacts, now: float, wall: datetime) -> None:
        self._facts = facts
        self._look_at, self._waiting_until = now + self._timing.drift_check, NEVER
        row, watched = ROWS.get(facts.dialect), self._watch.wants_signs
        self._watch.engine(on=self._engine_to_watch() is not None, held=row is not None and row.keeps_channels, now=now)
        self._watch_at = min(self._watch_at, now) if self._watch.wants_signs else NEVER
        if self._watch.wants_signs and not watched:
            self._watching = False
        self._decide(now, wall)

    def _running_change(self) -> Change:
        if self._change is None:
            raise RuntimeError("a knob answered and no change is under way")
        return self._change

    def _take_saved(self, problem: str) -> None:
        change = self._running_change()
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

    def _take_engine_answer(
        self, running: Running | None, answer: Moved | VerdictSaved | Signs | Probed | Kept, now: float, wall: datetime
    ) -> None:
        match answer:
            case Moved():
                self._take_moved(running, answer, now, wall)
            case VerdictSaved(problem):
                self._take_verdict_saved(running, problem)
            case Signs():
                self._take_signs(answer, now)
            case Probed():
                self._watch.probed(answer)
                self._look_at = now  # a trial may have waited for these pages
            case Kept(problem):
                if problem:
                    log.error("what the watch remembers is not saved", extra={"problem": problem})
            case _:
                assert_never(answer)

    def _take_moved(self, running: Running | None, moved: Moved, now: float, wall: datetime) -> None:
        """Judge, also when the answer comes too late to be waited for: what is wrong is wrong."""
        trial, self._trial = self._trial, None
        self._look_at = now
        if trial is None or running is None:
            return
        seconds = now - running.since
        verdict = judge(trial, moved.before, moved.answer, moved.after)
        verdict = replace(verdict, seconds=seconds, at=timestamp(wall))
        stalled = running.blocked and verdict.result is not VerificationResult.FAILED
        if not stalled:
            self._take_verdict(verdict, now)
        if not running.blocked:
            passed = verdict.result is VerificationResult.PASSED
            self._running_change().tried(None if passed else Failure(verdict.reason, verdict.message))

    def _take_verdict(self, verdict: Verdict, now: float) -> None:
        self._verdict = verdict
        impossible = verdict.result is VerificationResult.IMPOSSIBLE
        again = impossible and not verdict.lasting
        self._try_again_at = now + TRY_AGAIN_SECONDS if again else NEVER
        level = logging.ERROR if verdict.result is VerificationResult.FAILED else logging.INFO
        log.log(level, "engine tried", extra={"result": str(verdict.result), "found": verdict.message})

    def _take_verdict_saved(self, running: Running | None, problem: str) -> None:
        if problem:
            log.error("verdict not saved", extra={"problem": problem})
        if running is not None and isinstance(running.job, SaveVerdict):
            # Also when it was not saved: the status has it too, and asking again and again would not help.
            self._verdict_on_file = running.job.verdict

    def _count(self, look: Look, now: float, wall: datetime) -> None:
        self._watch.counted(look.counts, now, wall)
        wait = self._timing.statistics_window
        if self._watch.wants_signs:
            wait = min(wait, self._watch.count_seconds)
        self._count_at, self._early = now + wait, min(EARLY_SECONDS_MAX, wait / 10)
        self._since = self._since or timestamp(wall)
        known = add_sample(
            self._statistics, at=now, counters=look.counts, window_seconds=self._timing.statistics_window
        )
        self._statistics = replace(
            known, pressures=look.pressures, thp_pages=look.thp_pages if look.numa_nodes else known.thp_pages
        )
        self._advance_window(now)

    def _advance_window(self, now: float) -> None:
        if self._window is None or self._window.after is not None:
            return
        soak = self._planned_for.soak_seconds
        in_force = self._settled_at is not None and self._settled_at[0] == self._window.revision
        seconds = max(soak, self._timing.statistics_window)
        self._window = advance_window(self._window, self._statistics, in_force=in_force, seconds=seconds)
        if self._window.after is not None and soak:
            self._reports.hasten(now)

    def _knob_lane(self, now: float) -> list[Command]:
        running = self._lanes[Lane.KNOBS]
        if running is not None:
            self._watch_over(running, now)
            return []
        job = self._next_knob_job(now)
        if job is None:
            return []
        self._lanes[Lane.KNOBS] = Running(job, now)
        return [Run(Lane.KNOBS, job)]

    def _next_knob_job(self, now: float) -> Job | None:
        if self._begun is None:
            return Begin()
        self._drop_outdated_change()
        if self._memory_tried != self._memory:
            self._memory_tried = self._memory
            return SaveMemory(self._memory, self._begun.host.boot_id)
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

    def _counter_lane(self, now: float) -> list[Command]:
        running = self._lanes[Lane.COUNTERS]
        if running is not None:
            self._watch_over(running, now)
            return []
        if self._facts is None or now < self._count_at - self._early:
            return []
        numa_nodes = now >= self._numa_nodes_at
        if numa_nodes:
            self._numa_nodes_at = now + NUMA_NODES_SECONDS
        job = ReadCounters(self._facts.dialect, numa_nodes)
        self._lanes[Lane.COUNTERS] = Running(job, now)
        return [Run(Lane.COUNTERS, job)]

    def _page_lane(self, now: float) -> list[Command]:
        running = self._lanes[Lane.PAGES]
        if running is not None:
            if self._watch_over(running, now, WINDOW_SECONDS_MAX) and self._trial is not None:
                return self._stalled(now)
            return []
        job = self._next_page_job() or self._next_probe(now)
        if job is None:
            return []
        self._lanes[Lane.PAGES] = Running(job, now)
        return [Run(Lane.PAGES, job)]

    def _next_page_job(self) -> Job | None:
        if self._verdict != self._verdict_on_file and self._verdict and self._begun and self._verdict.is_kept:
            return SaveVerdict(self._verdict, self._begun.host.boot_id)
        step = self._change.next() if self._change else None
        if isinstance(step, TryEngine):
            self._trial = step.trial
            return MovePages(step.trial.request(self._rng.getrandbits(32)), Dialect(step.trial.subject.dialect))
        return None

    def _stalled(self, now: float) -> list[Command]:
        """Give the engine up: whoever moves pages hangs, and others hang with it until it is off."""
        message = f"the engine has held our own test pages for {WINDOW_SECONDS_MAX:g} s; it is turned off"
        log.error("engine stalled", extra={"problem": message})
        self._running_change().tried(Failure(Reason.ENGINE_STALLED, message))
        return self._knob_lane(now)

    def _watch_over(self, running: Running, now: float, seconds_max: float = JOB_SECONDS_MAX) -> bool:
        """Note that a job does not answer; returns whether it has just become too late."""
        late = not running.blocked and now - running.since >= seconds_max
        if late:
            running.blocked = self._unlooked = True
            log.warning("kernel does not answer", extra={"job": describe(running.job)})
        return late

    def _next_look(self) -> float:
        return NEVER if self._change is not None else min(self._look_at, self._waiting_until)

    # --- the watch over the engine -----------------------------------------------------------------------------------

    def _begin(self, begun: Begun, now: float) -> None:
        self._begun = begun
        self._memory, problem = begun.remembered
        self._memory_tried = self._memory
        if problem:
            log.warning("what the watch remembered is ignored", extra={"problem": problem})
        self._watch.resume(self._memory.pause, now)
        self._remember()
        self._recover(now)

    def _remember(self) -> None:
        """Take notice of the spec: what a person decides in it ends a pause, and a restarted agent shall know it."""
        if self._begun is None or self._spec is None or self._state is None:
            return
        wish = self._spec.wish(SettingsGroup.OFFLOAD)
        off = wish is not None and wish.mode is GroupMode.APPLY and wish.settings.get("engine") == Engine.OFF
        if off or self._spec.verify_epoch > parse_spec(self._memory.state).verify_epoch:
            self._watch.forgive()
        kept = remembered_state(self._state) if wish or self._watch.pause else {}
        self._memory = Memory(kept, self._watch.pause)

    def _known_baselines(self) -> Baselines | None:
        """Return the baselines; before the node state was seen, those of the file."""
        loaded = self._begun.loaded if self._begun else None
        return self._baselines or (loaded if isinstance(loaded, Baselines) else None)

    def _engine_to_watch(self) -> Knob | None:
        """Return the switch of an engine that is on by our doing."""
        baselines = self._known_baselines()
        if self._facts is None or baselines is None or ENGINE_FIELD not in baselines.values:
            return None
        return next((knob for knob in self._facts.running if knob.field == ENGINE_FIELD), None)

    def _take_signs(self, signs: Signs, now: float) -> None:
        self._watch.saw(signs, now)
        if not self._watching:
            self._watching = True
            log.info("watching the engine", extra={"channels": len(signs.channels.usable)})
        self._watch_at = now + self._watch.sample_seconds if self._watch.wants_signs else NEVER
        if now + self._watch.count_seconds < self._count_at:
            self._count_at, self._early = now + self._watch.count_seconds, 0.0
        if self._watch.look:
            self._watch.look, self._look_at = False, now

    def _wait_for_engine(self, now: float, wall: datetime) -> None:
        """Tell the watch what waits for the engine, which says more than any number."""
        pages, counters = self._lanes[Lane.PAGES], self._lanes[Lane.COUNTERS]
        if pages is not None and isinstance(pages.job, MovePages | ProbeEngine):
            self._watch.unanswered("a move of own pages", now - pages.since, now, wall)
        if counters is not None and counters.blocked:
            self._watch.counters_blocked(now, wall)
        self._take_veto(now)

    def _take_veto(self, now: float) -> None:
        veto = self._watch.veto(now)
        if veto == self._vetoes.get("watch"):
            return
        if veto is None:
            del self._vetoes["watch"]
            if not self._watch.mistaken:
                self._forget_passed_trial()
            log.info("the engine may be turned on again")
        else:
            self._vetoes["watch"] = veto
            log.error("engine not trusted", extra={"reason": str(veto.reason), "problem": veto.message})
        self._memory = Memory(self._memory.state, self._watch.pause)
        self._retries.pop(UNITS[SettingsGroup.OFFLOAD], None)
        self._look_at, self._unlooked = now, True
        if self._facts and self._spec and self._baselines:
            self._make_plan(self._facts, self._spec, self._baselines, now)

    def _forget_passed_trial(self) -> None:
        """Let the next try begin with own pages, where the wish asks for trials at all: then nobody else waits."""
        if self._verdict is not None and self._verdict.result is VerificationResult.PASSED:
            self._verdict = None

    def _begin_turn_off(self, now: float) -> None:
        """Let the turn-off of an engine that is not trusted go before all that has not written anything yet."""
        if not self._vetoes or self._turning_off:
            return
        knob, baselines, unit = self._engine_to_watch(), self._known_baselines(), UNITS[SettingsGroup.OFFLOAD]
        retry = self._retries.get(unit)
        if knob is None or self._facts is None or baselines is None or (retry and now < retry.not_before):
            return
        if self._change is not None:
            writing = self._change.touched and self._baselines_reported()
            if writing or self._change.on_trial:
                return
            # It waits for the API server. What of it is half done is open in the file, and is ended by the next plan.
            self._fresh = frozenset() if self._change.touched else self._change.fresh
        life = self._facts.life(knob)
        off = UnitChange(unit, (KnobWrite(knob, ENGINE_OFF, life),), {}, frozenset(), drift=False)
        # As if all were safe everywhere, as it was before the engine went on: nothing here may wait, or end a unit.
        known = replace(baselines, open_units={})
        self._change = Change([off], known, on_file=known.values, reported=known.values, fresh=self._fresh)
        self._turning_off = True

    def _watch_lane(self, now: float) -> list[Command]:
        running = self._lanes[Lane.WATCH]
        if running is not None:
            self._watch_over(running, now)
        if running is not None or now < self._watch_at or self._facts is None:
            return []
        return self._run(Lane.WATCH, ReadSigns(self._watch.channels, self._facts.dialect), now)

    def _next_probe(self, now: float) -> Job | None:
        """Return the move of own pages that settles a suspicion of the watch."""
        if not self._watch.probe_due or self._facts is None or self._change is not None:
            return None
        self._watch.probing(now)
        request = probe_request(self._facts, self._rng)
        if isinstance(request, str):
            self._watch.probed(Probed(obstacle=request))
            self._unlooked = True
            return None
        return ProbeEngine(request, self._facts.dialect)

    def _run(self, lane: Lane, job: Job, now: float) -> list[Command]:
        self._lanes[lane] = Running(job, now)
        return [Run(lane, job)]

    # --- decisions ---------------------------------------------------------------------------------------------------

    def _decide(self, now: float, wall: datetime) -> None:
        if self._spec is None or self._facts is None or self._baselines is None:
            return
        if now >= self._try_again_at:
            self._verdict, self._try_again_at = None, NEVER
        self._reasons_seen |= self._facts.reasons_seen
        self._facts = replace(self._facts, reasons_seen=self._reasons_seen)
        self._baselines = self._of_this_life(self._facts, self._baselines)
        plan = self._make_plan(self._facts, self._spec, self._baselines, now)
        self._note_drifts(plan, now, wall)
        self._remember_settled(plan)
        self._note_retries(plan)
        begins = {change.unit: self._may_begin_at(change) for change in plan.changes}
        due = [change for change in plan.changes if begins[change.unit] <= now]
        self._waiting_until = min([begin for begin in begins.values() if begin > now], default=NEVER)
        if due:
            self._change = Change(
                due, self._baselines, on_file=self._on_file, reported=self._reports.baselines, fresh=self._fresh
            )
        self._note_settled(wall)
        revision = self._planned_for.revision
        if revision and (self._window is None or self._window.revision != revision):
            self._window = begin_window(revision, self._statistics)

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
        self._note_corruption(spec)
        veto = self._vetoes.get("verification") or self._vetoes.get("watch")  # wrong bytes weigh more than lost time
        contended = {name: drift.contention for name, drift in self._drifts.items() if drift.contended(now)}
        given = (facts, spec, baselines, dict(self._settled), veto, contended, self._verdict)
        if self._plan is None or given != self._planned_from:
            self._plan = make_plan(
                facts, spec, baselines, self._settled, veto, contended=contended, verdict=self._verdict
            )
            self._planned_from = given
            self._policies = tuple(plan_policy(facts, request, baselines, veto) for request in spec.plans)
        self._planned_for = spec
        return self._plan

    def _note_corruption(self, spec: Spec) -> None:
        self._vetoes.pop("verification", None)
        corrupt = Record(self._verdict, spec.verify_epoch).corrupt
        if corrupt:
            self._vetoes["verification"] = Refusal(GroupState.FAILED, corrupt.reason, corrupt.message)

    def _may_begin_at(self, change: UnitChange) -> float:
        if change.window and self._trial:
            return NEVER  # the pages of an earlier trial are not back; a look follows once they are
        retry = self._retries.get(change.unit)
        after_failure = retry.not_before if retry else 0.0
        pauses = [self._drifts[name].not_before for name in change.drifted] if change.drift else []
        return max([after_failure, *pauses])

    def _note_retries(self, plan: Plan) -> None:
        working = {change.unit for change in plan.changes}
        self._retries = {unit: retry for unit, retry in self._retries.items() if unit in working}

    def _note_drifts(self, plan: Plan, now: float, wall: datetime) -> None:
        drifted = {name for group in plan.groups if group.wish.drift is DriftPolicy.CORRECT for name in group.drifted}
        self._drifts |= {name: DriftLog(name) for name in drifted if name not in self._drifts}
        for name, drift in self._drifts.items():
            if name in drifted:
                drift.drifted(now, timestamp(wall))
            else:
                drift.in_force()
        self._drifts = {name: drift for name, drift in self._drifts.items() if not drift.forgotten(now)}

    def _remember_settled(self, plan: Plan) -> None:
        # A knob whose file went lost its value with the driver; nobody else changed it.
        rows = {row.field: row for group in plan.groups for row in group.knobs if row.knob}
        self._settled = {name: value for name, value in self._settled.items() if name in rows}
        self._settled |= {name: row.target for name, row in rows.items() if row.target is not None and not row.differs}

    def _note_settled(self, wall: datetime) -> None:
        revision = self._planned_for.revision
        if not is_settled(group_results(self._view())):
            self._settled_at = None
        elif self._settled_at is None or self._settled_at[0] != revision:
            self._settled_at = (revision, timestamp(wall))

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
                self._failed(unit.change.unit, unit.failure, now)

    def _succeeded(self, unit: UnitRun, now: float) -> None:
        name = unit.change.unit
        if unit.change.ends:
            # What it undid may fail again at once, so its pauses go on growing.
            log.warning("change that was left open ended", extra={"unit": name, "undone": unit.touched})
            return
        self._retries.pop(name, None)
        if unit.change.drifted:
            for knob in unit.change.drifted:
                self._drifts.setdefault(knob, DriftLog(knob)).corrected(now, self._rng)
            self._statistics = add_to_total(self._statistics, DRIFT_CORRECTIONS, len(unit.change.drifted))
            log.warning("drift corrected", extra={"fields": ",".join(sorted(unit.change.drifted))})

    def _failed(self, unit: str, failure: Failure, now: float) -> None:
        before = self._retries.get(unit)
        backoff = before.backoff if before else Backoff(RETRY_SECONDS_MIN, RETRY_SECONDS_MAX)
        # Each try of an engine that hangs holds up whoever migrates pages meanwhile.
        shortest = TRY_AGAIN_SECONDS if failure.reason is Reason.ENGINE_STALLED else RETRY_SECONDS_MIN
        wait = backoff.next_wait(self._rng, shortest)
        self._retries[unit] = Retry(failure, now + wait, backoff)
        log.warning(
            "change failed",
            extra={"unit": unit, "reason": str(failure.reason), "problem": failure.message, "retry_seconds": wait},
        )

    # --- reports -----------------------------------------------------------------------------------------------------

    def _view(self) -> View:
        if self._plan is None or self._facts is None or self._baselines is None:
            raise RuntimeError("there is nothing to report yet")
        # Pages that do not come back are no file: their change has failed, which is told.
        files = (running for lane, running in self._lanes.items() if lane is not Lane.PAGES)
        blocked = [running for running in files if running and running.blocked]
        waiting = f"{describe(blocked[0].job)} has not answered for {JOB_SECONDS_MAX:g} s" if blocked else ""
        return View(
            spec=self._planned_for,
            facts=self._facts,
            groups=self._plan.groups,
            plans=self._policies,
            baselines=self._baselines.values,
            distrust=self._baselines.problem,
            failures={unit: retry.failure for unit, retry in self._retries.items()},
            blocked=waiting,
            blocked_unit=self._blocked_unit(),
            verdict=Record(self._verdict, self._planned_for.verify_epoch).current,
            statistics=self._statistics,
            since=self._since,
            window=self._window,
            settled_at=self._settled_at[1] if self._settled_at else None,
            agent_version=self._version,
            batch_ceiling_pages=self._batch_ceiling_pages,
            finding=self._watch.finding,
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
        corrected = "; ".join(str(self._drifts[name]) for name in sorted(self._drifts) if self._drifts[name].shown(now))
        view = replace(self._view(), corrected=corrected, skewed=self._reports.skewed)
        status = build_status(view, now=wall, conditions=self._reports.conditions)
        if not self._reports.wants(status, now):
            return []
        self._reports.send(status, now)
        return [Report(status)]
