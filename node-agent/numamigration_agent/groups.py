# SPDX-License-Identifier: Apache-2.0
"""Decides what to say of one group of a spec, and what to write for it. Pure.

* What already is so is not written (promise 2).
* The baseline of every knob that a group names is captured when the group is first applied, also where nothing has to
  be written then: otherwise a value that somebody else puts there later would be taken for the value of before.
* A knob that the wish no longer names goes back to its baseline when the group's release is Restore, else it stays.
* A refused group leaves offload off: where this project holds the baseline of the engine, it turns it off.
* A knob is drifted when it was in force with this very target and now holds something else. One that is contended is
  left as it is, and its group has failed; but an engine that somebody else turns on is turned off for ever, and where
  the other writer widens the migration reasons, offload goes off, for they fail closed (promise 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from numamigration_agent.baseline import Baselines
from numamigration_agent.guards import first_refusal
from numamigration_agent.kernel.codecs import Value, reason_names, reasons_value
from numamigration_agent.kernel.dialects import CHANNELS_FIELD, KNOBS, REASONS_FIELD, Knob, knobs_of
from numamigration_agent.kernel.probe import KernelFacts
from numamigration_agent.kernel.sysfs import Denied
from numamigration_agent.rows import KnobPlan, KnobWrite, row_to_baseline, rows_of, why_unreadable, write_of, writes_of
from numamigration_agent.situation import Refusal, Situation, Veto, unknown_words
from numamigration_agent.verify import NO_RECORD, Record, Subject, Trial, is_due, make_trial, subject_of
from numamigration_agent.wishes import Wish
from numamigration_api.machinery.records import dataclass, field, replace
from numamigration_api.vocabulary import (
    DriftPolicy,
    GroupMode,
    GroupState,
    Outcome,
    Reason,
    Release,
    SettingsGroup,
    Verification,
    VerificationResult,
)


@dataclass(frozen=True, slots=True)
class Known:
    """What this node knows beside what the kernel says now.

    Attributes:
        baselines: values of before, of this boot.
        settled: by field, the target that was last found in force.
        contended: by field, what is to be said of a knob that another writer changes again and again.
        veto: why an engine may not be on, whatever is wished.
        record: what the last trial of an engine on this boot has shown.
        probe: what offload shall be instead of what the spec says, while settings are measured and until all is back.
    """

    baselines: Baselines
    settled: Mapping[str, Value] = field(default_factory=dict)
    contended: Mapping[str, str] = field(default_factory=dict)
    veto: Veto | None = None
    record: Record = NO_RECORD
    probe: Wish | None = None


class TrialWindow(NamedTuple):
    """A trial of an engine within a change: what is set for it, and what afterwards.

    Attributes:
        engine: the switch, which goes off when the trial is not passed.
        mask: what the eligible reasons are meanwhile, where a knob says them.
        wished: what they are afterwards.
        untried: the engine is on, and nobody has tried it as it is: it goes off whatever fails, its trial or what
            stands before that.
    """

    trial: Trial
    engine: Knob
    mask: KnobWrite | None = None
    wished: KnobWrite | None = None
    untried: bool = False

    @property
    def fields(self) -> frozenset[str]:
        """What it may write."""
        return frozenset({self.engine.field} | ({self.mask.knob.field} if self.mask else set()))


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """What is to be said of a group, and what is to be written for it.

    Attributes:
        captures: baselines to be saved before anything is written.
        forget: fields whose baselines go once the writes are done.
        drifted: fields that somebody else changed.
        window: in which the engine is tried before it is left on.
    """

    wish: Wish
    state: GroupState
    reason: Reason
    message: str = ""
    knobs: tuple[KnobPlan, ...] = ()
    writes: tuple[KnobWrite, ...] = ()
    captures: Mapping[str, Value] = field(default_factory=dict)
    forget: frozenset[str] = frozenset()
    drifted: frozenset[str] = frozenset()
    window: TrialWindow | None = None

    @property
    def has_work(self) -> bool:
        """Whether anything is to be saved, written, tried or forgotten."""
        return bool(self.writes or self.captures or self.forget or self.window)


def plan_group(facts: KernelFacts, wish: Wish, known: Known) -> GroupPlan:
    """Decide for one group."""
    if wish.mode is GroupMode.RESTORE:
        return _restore(facts, wish, known)
    if unknown := unknown_words(wish):
        return GroupPlan(wish, GroupState.FAILED, Reason.VERSION_SKEW, f"this agent does not know: {unknown}")
    case = Situation(facts, wish, known.veto)
    if wish.mode is GroupMode.HOLD:
        rows = tuple(replace(row, target=None) for row in rows_of(case, known.baselines))
        if case.engine and case.distrust:
            return GroupPlan(wish, *case.distrust, rows)  # what is held is no more
        return GroupPlan(wish, GroupState.HELD, Reason.PAUSED, "the policy is paused; nothing is written", rows)
    refusal = first_refusal(case)
    if refusal is not None:
        return _refused(case, refusal, known.baselines)
    rows = rows_of(case, known.baselines)
    untried = _impossible(case, rows, known.record)
    if untried is not None:
        return _refused(case, untried, known.baselines)
    return _tried(case, _applied(case, rows, known), known.record)


def _restore(facts: KernelFacts, wish: Wish, known: Known) -> GroupPlan:
    """Put every knob of the group back; one that went with its driver lost what it held, and is forgotten.

    An engine that was on before us and that has copied wrong meanwhile is not turned on again (promise 15).
    """
    before = known.baselines.values
    held = frozenset(knob.field for knob in KNOBS if knob.group is wish.group) & frozenset(before)
    if not held:
        return GroupPlan(wish, GroupState.RESTORED, Reason.RESTORED, "the values of before are back")
    knobs = [knob for knob in facts.knobs if knob.field in held]
    denied = next((knob for knob in knobs if isinstance(facts.readings[knob.field], Denied)), None)
    if denied is not None:
        reason, message = why_unreadable(denied, facts)
        return GroupPlan(wish, GroupState.FAILED, reason, message)
    hidden = [knob.path for knob in knobs_of(facts.dialect) if knob.field in held and _is_hidden(facts, knob)]
    if hidden:
        message = f"{', '.join(hidden)} has gone, and its folder has not: are /sys and /proc mounted whole?"
        return GroupPlan(wish, GroupState.FAILED, Reason.KERNEL_ERROR, message)
    vetoed = known.veto is not None and known.veto.refusal.reason is Reason.CORRUPTION_DETECTED
    rows = tuple(
        row_to_baseline(facts, knob, knob.off if vetoed and knob.is_engine and knob.off else before[knob.field])
        for knob in knobs
    )
    writes = writes_of(facts, (row for row in rows if row.differs))
    message = f"putting {len(writes)} back"
    return GroupPlan(wish, GroupState.PENDING, Reason.RESTORING, message, rows, writes, forget=held)


def _is_hidden(facts: KernelFacts, knob: Knob) -> bool:
    """Whether a knob's file is gone although nothing went that would have taken along what it held."""
    went_with_its_folder = knob.folder in facts.row.folders and facts.life(knob) is None
    return knob not in facts.knobs and not went_with_its_folder


def _refused(case: Situation, refusal: Refusal, baselines: Baselines) -> GroupPlan:
    switches = (knob for knob in case.facts.switches if knob.turns_on(case.engine))
    if refusal.reason is Reason.NO_DMA_CHANNEL and any(knob.field in baselines.values for knob in switches):
        # A node that never had one is just another kind of node; where offload has been set, something broke.
        refusal = refusal._replace(state=GroupState.FAILED, message=f"{refusal.message}; offload was set here before")
    unsupported = refusal.state is GroupState.UNSUPPORTED
    outcome = Outcome.UNSUPPORTED if unsupported else Outcome.REFUSED
    rows = tuple(
        replace(row, target=None, outcome=outcome, reason=refusal.reason, message="")
        for row in rows_of(case, baselines)
    )
    concerned = case.facts.running if case.wish.group is SettingsGroup.OFFLOAD else ()
    ours = (knob for knob in concerned if knob.field in baselines.values)
    writes = tuple(write_of(case.facts, knob, knob.off) for knob in ours if knob.off is not None)
    return GroupPlan(case.wish, *refusal, knobs=rows, writes=writes)


def _applied(case: Situation, rows: tuple[KnobPlan, ...], known: Known) -> GroupPlan:
    wish = case.wish
    unreadable = next((row for row in rows if row.outcome is Outcome.REJECTED), None)
    if unreadable is not None and unreadable.reason is not None:
        return GroupPlan(wish, GroupState.FAILED, unreadable.reason, unreadable.message, rows)
    left = _no_longer_named(case, rows, known.baselines)
    differing = tuple(row for row in (*rows, *left) if row.differs)
    drifted = tuple(row for row in differing if known.settled.get(row.field) == row.target)
    fought = _fought(wish, drifted, known.contended)
    contention = _contention(fought, known.contended)
    alone = fought if wish.drift is DriftPolicy.CORRECT else drifted
    differing = tuple(row for row in differing if row not in alone)
    shown = frozenset(row.field for row in drifted if wish.drift is not DriftPolicy.IGNORE)
    if any(_widens_reasons(case, row) for row in fought):
        message = f"{contention}; offload is off meanwhile, for more would be offloaded than asked"
        refused = _refused(case, Refusal(GroupState.FAILED, Reason.CONTENDED, message), known.baselines)
        return replace(refused, drifted=shown)
    return GroupPlan(
        wish,
        *_state_of(rows, differing, shown, contention),
        knobs=tuple(_mark_drift(row, shown, fought) for row in (*rows, *left)),
        writes=writes_of(case.facts, differing),
        captures=_captures(rows),
        forget=frozenset(row.field for row in left),
        drifted=shown,
    )


def _fought(wish: Wish, drifted: Iterable[KnobPlan], contended: Mapping[str, str]) -> tuple[KnobPlan, ...]:
    """Return what is left to the other writer; that never is an engine that shall be off."""
    if wish.drift is not DriftPolicy.CORRECT:
        return ()
    return tuple(row for row in drifted if row.field in contended and not _turns_off(row))


def _turns_off(row: KnobPlan) -> bool:
    return row.knob is not None and row.knob.is_engine and row.target == row.knob.off


def _widens_reasons(case: Situation, row: KnobPlan) -> bool:
    if row.field != REASONS_FIELD or not case.by_dma or not row.observed or not row.target:
        return False
    return not reason_names(row.observed) <= reason_names(row.target)


def _contention(fought: Iterable[KnobPlan], contended: Mapping[str, str]) -> str:
    return "; ".join(
        f"{row.field}: {row.asked} is wished, {row.knob.codec.show(row.observed)} is there; {contended[row.field]}"
        for row in fought
        if row.knob and row.observed is not None
    )


def _engine_of(case: Situation, rows: Sequence[KnobPlan]) -> KnobPlan | None:
    """Return the row of the switch that the wish turns on, or leaves on."""
    if case.wish.group is not SettingsGroup.OFFLOAD:
        return None
    on = (row for row in rows if row.knob and row.knob.is_engine and row.target not in {None, row.knob.off})
    return next(on, None)


def _subject(case: Situation, rows: Sequence[KnobPlan]) -> Subject:
    """Return what would be tried; channels that the wish does not name are those that are set."""
    wished = next((row.target for row in rows if row.field == CHANNELS_FIELD), None)
    return subject_of(case.facts, case.engine, int(wished or _channels_set(case)))


def _channels_set(case: Situation) -> int:
    return int(next((case.facts.value(knob) for knob in case.knobs(CHANNELS_FIELD)), None) or 1)


def _impossible(case: Situation, rows: Sequence[KnobPlan], record: Record) -> Refusal | None:
    """Refuse an engine of which a trial has just shown that it cannot be tried."""
    if case.wish.verification is Verification.OFF or _engine_of(case, rows) is None:
        return None
    found = record.about(_subject(case, rows))
    if found is None or found.result is not VerificationResult.IMPOSSIBLE:
        return None
    return Refusal(GroupState.REFUSED, Reason.VERIFICATION_IMPOSSIBLE, found.message)


def _tried(case: Situation, plan: GroupPlan, record: Record) -> GroupPlan:
    """Have the engine tried before it is left on, if that is due (promise 15)."""
    row = _engine_of(case, plan.knobs)
    turns_on = row is not None and any(write.knob == row.knob for write in plan.writes)
    if row is None or row.knob is None or not (turns_on or row.observed == row.target):
        return plan
    subject = _subject(case, plan.knobs)
    if not is_due(record, subject, case.wish.verification, turns_on=turns_on):
        return plan
    trial = make_trial(case.facts, subject, record.epoch)
    masks = _masks(case, plan, trial)
    present = subject_of(case.facts, case.engine, _channels_set(case))
    untried = row.observed == row.target and is_due(record, present, case.wish.verification, turns_on=False)
    written = {row.field, *(mask.knob.field for mask in masks if mask)}
    if plan.state is GroupState.FAILED and not written <= {row.field for row in plan.knobs if row.baseline is not None}:
        # Nothing is captured of a group that failed, so a trial may not write. The engine alone may be ours already.
        if row.knob.off is None or row.baseline is None or not untried:
            return plan
        return replace(plan, writes=(write_of(case.facts, row.knob, row.knob.off),))
    window = TrialWindow(trial, row.knob, *masks, untried=untried)
    if plan.writes:
        return replace(plan, window=window)
    message = f"own pages are about to be copied by {subject}"
    return replace(plan, window=window, state=GroupState.PENDING, reason=Reason.VERIFYING, message=message)


def _masks(case: Situation, plan: GroupPlan, trial: Trial) -> tuple[KnobWrite | None, KnobWrite | None]:
    knob = next(iter(case.knobs(REASONS_FIELD)), None)
    if knob is None:
        return None, None
    wished = next((write.target for write in plan.writes if write.knob == knob), case.facts.value(knob))
    narrowed = write_of(case.facts, knob, reasons_value({trial.reason}))
    return narrowed, write_of(case.facts, knob, wished) if wished else None


def _state_of(
    rows: Sequence[KnobPlan], differing: Sequence[KnobPlan], drifted: frozenset[str], contention: str
) -> tuple[GroupState, Reason, str]:
    names = ", ".join(sorted(drifted))
    if contention:
        return GroupState.FAILED, Reason.CONTENDED, contention
    if differing:
        if drifted.issuperset(row.field for row in differing):
            return GroupState.PENDING, Reason.DRIFT_DETECTED, f"{names} was changed by somebody else; setting it back"
        return GroupState.PENDING, Reason.APPLYING, f"{len(differing)} to write"
    if drifted:
        return GroupState.READY, Reason.DRIFT_DETECTED, f"{names} was changed by somebody else; left as it is"
    clamped = next((row for row in rows if row.outcome is Outcome.CLAMPED), None)
    if clamped is not None:
        return GroupState.READY, Reason.CLAMPED, clamped.message
    lacking = [row.field for row in rows if row.outcome is Outcome.UNSUPPORTED]
    return GroupState.READY, Reason.AS_EXPECTED, f"this kernel lacks {', '.join(lacking)}" if lacking else ""


def _mark_drift(row: KnobPlan, drifted: frozenset[str], fought: Sequence[KnobPlan]) -> KnobPlan:
    if row.field not in drifted:
        return row
    return replace(row, reason=Reason.CONTENDED if row in fought else Reason.DRIFT_DETECTED)


def _captures(rows: Iterable[KnobPlan]) -> Mapping[str, Value]:
    return {
        row.field: row.observed
        for row in rows
        if row.target is not None and row.baseline is None and row.observed is not None
    }


def _no_longer_named(case: Situation, rows: Sequence[KnobPlan], baselines: Baselines) -> tuple[KnobPlan, ...]:
    if case.wish.release is not Release.RESTORE:
        return ()
    named = {row.field for row in rows}
    return tuple(
        row_to_baseline(case.facts, knob, baselines.values[knob.field])
        for knob in case.facts.knobs
        if knob.group is case.wish.group and knob.field in baselines.values and knob.field not in named
    )
