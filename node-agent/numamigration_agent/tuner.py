# SPDX-License-Identifier: Apache-2.0
"""The probe in this agent's life: when one begins, which setting it wants now, and that all is put back. Pure.

A probe writes no knob. It says what offload shall be for the next samples, and the plan takes that for the wish: so
baselines, journal, guards, verification, the watch and the undo are those of any change. Once it is over, for whatever
reason, the plan takes the spec's own wish with release Restore, until the node is as that says; only then is it told.

* What the next life must know is on file before the first setting is another one (``probe_record``).
* First comes the setting with the most channels: the engine is verified with those, and fewer of them are no others.
* Samples are taken when the setting is in force, and read back before and after each: a sample during which somebody
  else changed a knob is thrown away.
* It waits as long as the node is not calm, has no memory, or a change is under way. Once begun, the same ends it: with
  settings other than wished nothing is waited for.

Who asks is the operator, with an id; what to measure is decided in ``probing``, in which order in ``search``.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from datetime import datetime
from random import Random
from typing import Any, Final

from numamigration_agent.change import Failure
from numamigration_agent.groups import GroupPlan, Known, plan_group
from numamigration_agent.jobs import ClockMoves, PrepareMoves, ReadRoom, Roomed, SaveProbe, Timed
from numamigration_agent.kernel.probe import KernelFacts
from numamigration_agent.kernel.room import not_calm
from numamigration_agent.kernel.timed_moves import EndMoves, Prepare, TimeMoves
from numamigration_agent.lanes import Running
from numamigration_agent.probe_record import ProbeRecord
from numamigration_agent.probing import (
    DAY_SECONDS,
    SAMPLE_SECONDS,
    SECONDS_MIN,
    Bounds,
    Halt,
    Table,
    bounds_of,
    even_mix,
    extras,
    halt_of,
    halt_of_errno,
    halt_of_failure,
    holds,
    judge_sample,
    knobs_of_setting,
    mix_json,
    mix_of,
    numa_pair,
    settings_of,
    shapes_of,
    wish_after,
    wish_of,
)
from numamigration_agent.verify import Record
from numamigration_agent.wishes import ProbeRequest, Wish
from numamigration_api.machinery.clock import NEVER, timestamp
from numamigration_api.machinery.conditions import shorten
from numamigration_api.machinery.quantities import decimal_text
from numamigration_api.machinery.tuning.samples import BASELINE, Sample, Setting, Shape
from numamigration_api.machinery.tuning.search import Search, usual_budget
from numamigration_api.vocabulary import Engine, GroupMode, ProbePhase, ProbeReason

log = logging.getLogger(__name__)

WAIT_SECONDS: Final = 15.0  # between two looks whether the node is calm
SETTING_SECONDS_MAX: Final = 30.0  # for one setting to come into force; a turn-off may wait 10 s for a slow engine
CELL_SAMPLES: Final = 8  # of few candidates a third of a grid is too little to be sure of anything; time is the bound
SPOILED_MAX: Final = 3  # samples during which somebody else changed a knob
MESSAGE_LENGTH_MAX: Final = 512
_OVER: Final = frozenset({ProbePhase.DONE, ProbePhase.STOPPED, ProbePhase.REFUSED})


class Session:
    """One probe that has begun.

    Attributes:
        setting: what is measured now, or about to be.
        in_force: a look at the kernel has found it so.
        outcome: why it is over; None while it is not.
        table: of all samples.
    """

    def __init__(self, facts: KernelFacts, request: ProbeRequest, roomed: Roomed, bounds: Bounds, rng: Random) -> None:
        self.request, self.bounds = request, bounds
        self.table = Table()
        self.outcome: Halt | None = None
        self.in_force = False
        self.cache_bound = bounds.cache_bound
        self._pair = numa_pair(facts) or (0, 0)
        self._channels = facts.channels_usable
        self._shapes = shapes_of(roomed.sizes, bounds.set_bytes)
        self._rng = rng
        self._candidates = settings_of(request, facts)
        self.setting = self._candidates[0]
        self.mix: list[dict[str, Any]] | None = None
        self.pages = self.huge = 0
        self._search: Search | None = None
        self._extras: deque[tuple[Setting, Shape]] | None = None
        self._shape = self._shapes[0]
        self._asked = False
        self._prepared: Prepare | None = None
        self._begun_at = self._deadline = 0.0
        self._not_before = 0.0
        self._spoiled = 0
        self._bad: Halt | None = None

    def begin(self, roomed: Roomed, own: tuple[int, int], huge_pages: int, now: float) -> None:
        """Begin with what the node migrates, as far as that is known."""
        mix = mix_of(roomed.room.migrated, own, self._shapes, huge_pages)
        self.mix = mix_json(mix) if mix else None
        known = mix if mix and mix.gaining else even_mix(self._shapes)
        self._weights = known.gaining
        self._search = Search(
            self._candidates,
            known,
            max(usual_budget(self._candidates, known), CELL_SAMPLES * len(known.gaining) * (1 + len(self._candidates))),
            self._rng,
            channels_present=self._channels,
        )
        self._begun_at, self._deadline = now, now + SETTING_SECONDS_MAX

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What was measured, for the status."""
        return self.table.rows(self._weights)

    def seconds(self, now: float) -> float:
        """Return for how long settings have been other ones."""
        return now - self._begun_at

    @property
    def ends_at(self) -> float:
        """When it is over at the latest."""
        return self._begun_at + self.bounds.seconds

    def wake_at(self) -> float:
        """Return when to look at it again."""
        if self.outcome:
            return NEVER
        return self._not_before if self.in_force else min(self._deadline, self.ends_at)

    def next_job(self, facts: KernelFacts, now: float) -> PrepareMoves | ClockMoves | None:
        """Return the next job, if it is time for one."""
        if self.outcome or not self.in_force or now < self._not_before:
            return None
        prepared = Prepare(*self._pair, self._shape.folio_bytes, self.bounds.set_bytes, self._shape.migrators)
        if prepared != self._prepared:
            return PrepareMoves(prepared)
        return ClockMoves(TimeMoves(self._shape.folios, SAMPLE_SECONDS), facts.dialect, knobs_of_setting(facts))

    def found_in_force(self, now: float) -> None:
        """Take in that the setting is in force; the first one, with the most channels, is there to be verified."""
        if not self.in_force:
            self.in_force = True
            if not self._asked:
                self._advance(now)

    def tick(self, now: float) -> None:
        """End what has taken too long."""
        if self.outcome is None and now >= self.ends_at:
            self._finish(ProbeReason.BUDGET_SPENT)
        elif self.outcome is None and not self.in_force and now >= self._deadline:
            message = f"{self.setting}: not in force after {SETTING_SECONDS_MAX:g} s"
            self.outcome = Halt(ProbeReason.SETTING_FAILED, message)

    def timed(self, job: PrepareMoves | ClockMoves, timed: Timed, running: Running, now: float) -> bool:
        """Take an answer; returns whether a look at the kernel is due."""
        if self.outcome:
            return False
        busy = now - running.since
        self._not_before = now + busy * (1 / self.bounds.cpu_share - 1)
        if isinstance(job, PrepareMoves):
            self._take_prepared(job, timed)
            return False
        return self._take_sample(job, timed, now)

    def _take_prepared(self, job: PrepareMoves, timed: Timed) -> None:
        if timed.answer is None or timed.answer.errno:
            cause = timed.answer or Timed(None).answer
            self.outcome = halt_of_errno(cause.errno, cause.cause) if cause else None
        elif isinstance(job.request, Prepare):
            self._prepared = job.request

    def _take_sample(self, job: ClockMoves, timed: Timed, now: float) -> bool:
        answer = timed.answer
        if answer is None:
            self.outcome = Halt(ProbeReason.NOT_CALM, not_calm(timed.strain, own=True))
            return False
        if not all(holds(self.setting, job.knobs, held) for held in timed.held):
            return self._spoil()
        if answer.errno:
            self.outcome = halt_of_errno(answer.errno, answer.cause)
            return False
        bad = judge_sample(self.setting, timed)
        self._bad = bad or self._bad
        if bad is None:
            self.table.add(self.setting, self._shape, answer)
        self._count_own(answer.folios)
        speed = 0.0 if bad else answer.bytes / answer.seconds
        if self._extras is None and self._search is not None:
            self._search.take(Sample(self.setting, self._shape, speed, answer.cpu_seconds))
        return self._advance(now)

    def _count_own(self, folios: int) -> None:
        page = min(shape.folio_bytes for shape in self._shapes)
        self.pages += folios * self._shape.folio_bytes // page
        self.huge += folios if self._shape.folio_bytes == max(shape.folio_bytes for shape in self._shapes) > page else 0

    def _spoil(self) -> bool:
        self._spoiled += 1
        self.in_force = False
        if self._spoiled > SPOILED_MAX:
            message = f"{self.setting}: somebody else changed a knob during {self._spoiled} samples"
            self.outcome = Halt(ProbeReason.SETTING_FAILED, message)
        return True

    def _advance(self, now: float) -> bool:
        """Turn to the next measurement; returns whether another setting has to come into force."""
        self._asked = True
        wanted = self._wanted()
        if wanted is None:
            self._finish(ProbeReason.MEASURED)
            return True
        setting, self._shape = wanted
        if setting == self.setting:
            return False
        self.setting, self.in_force = setting, False
        self._deadline = now + SETTING_SECONDS_MAX
        return True

    def _wanted(self) -> tuple[Setting, Shape] | None:
        if self._search is None:
            return None
        if self._extras is None:
            asked = self._search.next()
            if asked is not None:
                return asked
            self._extras = deque(extras(self._search.choice().setting, self._shapes, self._channels))
        return self._extras.popleft() if self._extras else None

    @property
    def choice(self) -> dict[str, Any] | None:
        """What was found, as the status has it; None where nothing was measured."""
        found = self._search.choice() if self._search else None
        if found is None:
            return None
        if found.setting == BASELINE:
            return {"engine": str(Engine.OFF)}
        gain = decimal_text(1.0 + found.gain_low)
        return {"engine": str(Engine.DMA), "channels": found.setting.channels, "gain": gain}

    def _finish(self, reason: ProbeReason) -> None:
        measured = {row["engine"] for row in self.rows}
        if self._bad and str(Engine.DMA) not in measured:
            self.outcome = self._bad
            return
        choice = self._search.choice() if self._search else None
        gain = f" ({choice.gain:+.0%})" if choice and choice.setting != BASELINE else ""
        self.outcome = Halt(reason, f"best here: {choice.setting}{gain}" if choice else "nothing was measured")


class Tuner:
    """Probes of one node.

    Attributes:
        session: the probe whose settings are in force, or were and are to be put back.
    """

    def __init__(self, rng: Random, record: ProbeRecord | None, told: Mapping[str, Any], *, same_boot: bool) -> None:
        """Go on with what an earlier life of this agent knew.

        Args:
            rng: source of chance.
            record: of the file.
            told: what the status says of a probe.
            same_boot: the status is of this boot.
        """
        self._rng = rng
        self.session: Session | None = None
        self._record = self._tried = record or ProbeRecord()
        self._safe = self._record.open  # the file says so
        self._request: ProbeRequest | None = None
        self._waits = Halt(ProbeReason.CHANGE_UNDER_WAY, "")
        self._look_at = 0.0
        self._children = False
        self._returning: Halt | None = None
        if record and record.open and told.get("id") == record.id and told.get("phase") in _OVER:
            self._record = record._replace(open=False, settings=None, status=told)  # it is told once all is back
        elif record and record.open:
            self._returning = Halt(ProbeReason.INTERRUPTED, "the agent ended in mid-probe")
        elif not record and isinstance(told.get("id"), str):
            self._recall(told, same_boot=same_boot)

    def __repr__(self) -> str:
        return f"<Tuner {self._record.id or 'none'}; {self._returning or self._waits}>"

    def _recall(self, told: Mapping[str, Any], *, same_boot: bool) -> None:
        phase = told.get("phase")
        if phase in _OVER:
            self._record = self._record._replace(id=told["id"], status=told)
        elif phase == ProbePhase.RUNNING:
            message = "the agent lost what it knew of the probe" if same_boot else "the host was booted in mid-probe"
            status = _document(told["id"], ProbePhase.STOPPED, Halt(ProbeReason.INTERRUPTED, message))
            self._record = self._record._replace(id=told["id"], status=status)
            if same_boot:
                self._record, self._safe = self._record._replace(open=True), True
                self._returning = Halt(ProbeReason.INTERRUPTED, message)

    # --- what is asked for and told ------------------------------------------------------------------------------

    @property
    def open(self) -> bool:
        """Whether settings may be other ones than wished."""
        return self._record.open

    @property
    def due(self) -> bool:
        """Whether a probe is asked for that was not made yet, or that ended with nobody to be told."""
        if self._request is None or self.open:
            return False
        return self._request.id != self._record.id or not self._record.status

    @property
    def busy(self) -> bool:
        """Whether there is anything to be done or told."""
        return self.open or self._request is not None or self._children or self._tried != self._record

    def asked(self, request: ProbeRequest | None) -> None:
        """Take notice of what is asked for now."""
        if request == self._request:
            return
        before, self._request = self._request, request
        self._waits, self._look_at = Halt(ProbeReason.CHANGE_UNDER_WAY, ""), 0.0
        if self.open and self._returning is None and (before and request and request.id) != (before and before.id):
            self.stop(Halt(ProbeReason.WITHDRAWN, "it is asked for no more"))
        if request is None and self._record.status.get("phase") == ProbePhase.STOPPED:
            self._record = self._record._replace(status={})  # asked again, it is tried again

    def document(self) -> dict[str, Any] | None:
        """Return what the status says."""
        if self.open:
            why = self._returning or Halt(ProbeReason.MEASURING, "")
            return _document(self._record.id, ProbePhase.RUNNING, why)
        if self._request is None:
            return None
        if self.due:
            return _document(self._request.id, ProbePhase.WAITING, self._waits)
        return dict(self._record.status) or None

    # --- the wish ------------------------------------------------------------------------------------------------

    def wish(self, wish: Wish | None, facts: KernelFacts) -> Wish | None:
        """Return what offload shall be instead of what the spec says; None while that holds."""
        if not (self._record.open and self._safe):
            return None  # or the next life of the agent would not know of it
        if self._returning or self.session is None:
            return wish_after(wish, self._record.settings)
        return wish_of(self.session.setting, wish, self.session.request, facts)

    def covering(self, record: Record) -> Record:
        """Return what a trial says of the setting that is measured: one with more channels says all."""
        return record.covering(self.session.setting.channels) if self.measures and self.session else record

    @property
    def measures(self) -> bool:
        """Whether the wish is that of a setting to be measured."""
        return self.open and self._returning is None and self.session is not None

    def planned(self, group: GroupPlan | None, *, at_rest: bool, now: float, wall: datetime) -> bool:
        """Take in what a plan says of the wish; returns whether the wish is another one now.

        Args:
            group: as planned for the wish that was asked for; None when none was.
            at_rest: nothing is to be changed.
            now: seconds of a monotonic clock.
            wall: the same for people.
        """
        if not self.open or group is None:
            return False
        if not self.measures:
            return at_rest and not group.has_work and self._returned(now, wall)
        found = halt_of(group.state, group.reason, group.message)
        if found:
            return self.stop(found)
        if at_rest and not group.has_work and self.session:
            self.session.found_in_force(now)
            return self._over() or not self.session.in_force
        return False

    def failed(self, failure: Failure) -> None:
        """Take in that a change for a setting failed and was undone."""
        if self.measures:
            self.stop(halt_of_failure(failure.reason, failure.message))

    def tick(self, wish: Wish | None, *, trusted: bool, now: float) -> bool:
        """Look whether it has to end; returns whether the wish is another one now."""
        if not self.measures or self.session is None:
            return False
        if wish is not None and wish.mode is not GroupMode.APPLY:
            return self.stop(Halt(ProbeReason.POLICY_FORBIDS, f"the mode of offload is {wish.mode} now"))
        if (wish.settings if wish else None) != self._record.settings:
            return self.stop(Halt(ProbeReason.WITHDRAWN, "the wish for offload is another one now"))
        if not trusted:
            return self.stop(Halt(ProbeReason.ENGINE_NOT_TRUSTED, "the watch or a trial turned the engine off"))
        self.session.tick(now)
        return self._over()

    def late(self) -> None:
        """Take in that own pages do not come back."""
        if self.measures:
            self.stop(Halt(ProbeReason.MOVE_STALLED, "own pages did not come back in time"))

    def stop(self, why: Halt) -> bool:
        """End the probe: from now on all is put back."""
        self._returning = why
        log.info("probe over", extra={"probe": self._record.id, "reason": str(why.reason), "found": why.message})
        return True

    def _over(self) -> bool:
        outcome = self.session.outcome if self.session else None
        return self.stop(outcome) if outcome else False

    def _returned(self, now: float, wall: datetime) -> bool:
        """Note that all is as wished again, which is told with what was measured."""
        why = self._returning or Halt(ProbeReason.INTERRUPTED, "the agent ended in mid-probe")
        done = why.reason in {ProbeReason.MEASURED, ProbeReason.BUDGET_SPENT} and self.session and self.session.rows
        phase = ProbePhase.DONE if done else ProbePhase.STOPPED
        status = _document(self._record.id, phase, why) | {"finishedAt": timestamp(wall)}
        if self.session:
            status |= _measured(self.session)
            self._record = self._record._replace(
                own_pages=self._record.own_pages + self.session.pages,
                own_huge=self._record.own_huge + self.session.huge,
                spent=self._record.spent - self.session.bounds.seconds + self.session.seconds(now),
            )
        self._record = self._record._replace(open=False, settings=None, status=status if self._request else {})
        self.session = self._returning = None
        self._safe = False
        return True

    # --- jobs ----------------------------------------------------------------------------------------------------

    def wake_at(self) -> float:
        """Return when to look at it again (monotonic seconds)."""
        return self.session.wake_at() if self.measures and self.session else NEVER

    def next_job(
        self, facts: KernelFacts, wish: Wish | None, known: Known, *, at_rest: bool, now: float
    ) -> ReadRoom | PrepareMoves | ClockMoves | SaveProbe | None:
        """Return the job that is due on the lane of pages."""
        if self._tried != self._record:
            self._tried = self._record
            return SaveProbe(self._record, facts.host.boot_id)
        if self.measures and self.session:
            job = self.session.next_job(facts, now)
            self._children |= isinstance(job, PrepareMoves)
            return job
        if self._children:
            self._children = False
            return PrepareMoves(EndMoves())
        if not self.due or self._request is None or now < self._look_at:
            return None
        halt = _obstacle(self._request, facts, wish, known, at_rest=at_rest) or self._day_spent(now)
        if halt:
            self._wait(halt)
            return None
        self._look_at = now + WAIT_SECONDS
        pair = numa_pair(facts)
        return ReadRoom(pair) if pair else None

    def _day_spent(self, now: float) -> Halt | None:
        left = self._seconds_left(now)
        if left >= min(SECONDS_MIN, self._request.seconds if self._request else 0.0):
            return None
        return Halt(ProbeReason.BUDGET_SPENT, f"{self._record.spent:.0f} s of probes within a day")

    def _seconds_left(self, now: float) -> float:
        if now - self._record.day_began >= DAY_SECONDS:
            self._record = self._tried = self._record._replace(spent=0.0, day_began=now)
        return (self._request.seconds if self._request else 0.0) - self._record.spent

    def _wait(self, halt: Halt) -> None:
        if halt.lasting and self._request:
            status = _document(self._request.id, ProbePhase.REFUSED, halt)
            self._record = self._record._replace(id=self._request.id, status=status)
            log.info("probe refused", extra={"probe": self._request.id, "reason": str(halt.reason)})
        elif halt.reason is not self._waits.reason or not self._waits.message:
            self._waits = halt  # its numbers move, and each would be news

    def roomed(self, roomed: Roomed, facts: KernelFacts, wish: Wish | None, huge_pages: int, now: float) -> None:
        """Take the answer to ReadRoom: a probe begins, or waits."""
        if not self.due or self._request is None:
            return
        strained = not_calm(roomed.strain, own=False)
        if strained or roomed.survey is None:
            self._wait(Halt(ProbeReason.NOT_CALM, strained))
            return
        if roomed.survey.errno:
            self._wait(halt_of_errno(roomed.survey.errno, roomed.survey.cause))
            return
        left = self._seconds_left(now)
        bounds = bounds_of(roomed.room, roomed.survey.room, roomed.strain, self._request, left)
        if isinstance(bounds, Halt):
            self._wait(bounds)
            return
        self.session = Session(facts, self._request, roomed, bounds, self._rng)
        self.session.begin(roomed, (self._record.own_pages, self._record.own_huge), huge_pages, now)
        settings = wish.settings if wish is not None else None
        spent = self._record.spent + bounds.seconds  # all of it, should this life of the agent not see the end
        self._record = self._record._replace(id=self._request.id, open=True, settings=settings, status={}, spent=spent)
        log.info("probe begins", extra={"probe": self._request.id, "bytes": bounds.set_bytes})

    def saved(self, problem: str) -> None:
        """Take the answer to SaveProbe; without a file no probe begins."""
        if not problem:
            self._safe |= self._record.open
        elif not self._safe and self.measures:
            log.error("probe not noted, so none is made", extra={"problem": problem})
            status = _document(self._record.id, ProbePhase.REFUSED, Halt(ProbeReason.STATE_NOT_SAVED, problem))
            self._record = self._tried = self._record._replace(open=False, settings=None, status=status)
            self.session = None

    def timed(self, running: Running, timed: Timed, now: float) -> bool:
        """Take the answer to PrepareMoves or ClockMoves; returns whether a look at the kernel is due."""
        job = running.job
        if not self.measures or self.session is None or not isinstance(job, PrepareMoves | ClockMoves):
            return False
        look = self.session.timed(job, timed, running, now)
        return self._over() or look


def _obstacle(
    request: ProbeRequest, facts: KernelFacts, wish: Wish | None, known: Known, *, at_rest: bool
) -> Halt | None:
    """Return why no probe can begin, as far as that shows without looking any further."""
    if wish is not None and wish.mode is not GroupMode.APPLY:
        return Halt(ProbeReason.POLICY_FORBIDS, f"the mode of offload is {wish.mode}")
    if len(facts.host.memory_nodes) < 2:
        count = len(facts.host.memory_nodes) or "no"
        return Halt(ProbeReason.ONE_NUMA_NODE, f"{count} NUMA node has memory", lasting=True)
    wanted = [channels for engine, channels in request.candidates if engine == Engine.DMA and channels]
    if not wanted:
        return Halt(ProbeReason.SETTING_REFUSED, "no candidate is one with DMA channels", lasting=True)
    most = next(iter(settings_of(request, facts)), Setting(Engine.DMA, min(wanted)))
    group = plan_group(facts, wish_of(most, wish, request, facts), known)
    found = halt_of(group.state, group.reason, group.message)
    if found:
        return found
    if most.channels > facts.channels_usable:
        message = f"the host has {facts.channels_usable} DMA channels, fewer than any candidate"
        return Halt(ProbeReason.SETTING_REFUSED, message, lasting=True)
    return None if at_rest else Halt(ProbeReason.CHANGE_UNDER_WAY, "the settings are not at rest")


def _document(id_: str, phase: ProbePhase, why: Halt) -> dict[str, Any]:
    document = {"id": id_, "phase": str(phase), "reason": str(why.reason)}
    return document | ({"message": shorten(why.message, MESSAGE_LENGTH_MAX)} if why.message else {})


def _measured(session: Session) -> dict[str, Any]:
    rows = session.rows
    found: dict[str, Any] = {"cacheBound": session.cache_bound} if rows else {}
    found |= {"choice": session.choice} if rows and session.choice else {}
    return found | ({"results": rows} if rows else {}) | ({"mix": session.mix} if session.mix else {})
