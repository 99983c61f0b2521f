# SPDX-License-Identifier: Apache-2.0
"""Decides what to do about a spec, from what the kernel says and what it said before. Pure.

Level-triggered: the same question is asked after every look at the kernel, and the answer to a state in which all is
well is an empty plan. So a crash between any two steps of a change is continued by the next plan.

* A unit that was left open is first brought to an end, whatever is wished now: nothing is written when every knob holds
  its target, else what holds it goes back in safe order (docs/decisions/0012). Then follows a plan like any other.
* What already is so is not written (promise 2).
* The baseline of every knob that a group names is captured when the group is first applied, also where nothing has to
  be written then: otherwise a value that somebody else puts there later would be taken for the value of before.
* A knob that the wish no longer names goes back to its baseline when the group's release is Restore, else it stays.
* A refused group leaves offload off: where this project holds the baseline of the engine, it turns it off.
* Two engines that both read on: nobody can tell which one works, so the wished one goes off with the other, and on
  again after the next look. So does an engine whose knob is only looked at when it goes on.
* A value that is never written (``Knob.never``) is not put back either.
* A knob is drifted when it was in force with this very target and now holds something else. One that is contended is
  left as it is, and its group has failed; but an engine that somebody else turns on is turned off for ever, and where
  the other writer widens the migration reasons, offload goes off, for they fail closed (promise 3).
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from numamigration_agent.baseline import Baselines, Swap
from numamigration_agent.guards import SERIES_GROUPS, first_refusal
from numamigration_agent.kernel.codecs import ReasonMask, Size, UInt, Value, Words, reason_names, reasons_value
from numamigration_agent.kernel.dialects import CHANNELS_FIELD, FIELD_ORDER, KNOBS, REASONS_FIELD, Knob, Phase, knobs_of
from numamigration_agent.kernel.probe import KernelFacts
from numamigration_agent.kernel.sysfs import Absent, Denied, explain_errno
from numamigration_agent.situation import Refusal, Situation, in_words, unknown_words
from numamigration_agent.verify import NO_RECORD, Record, Subject, Trial, Verdict, is_due, make_trial, subject_of
from numamigration_agent.wishes import PlanRequest, Spec, Wish
from numamigration_api.machinery.quantities import size_bytes
from numamigration_api.machinery.records import dataclass, field, replace
from numamigration_api.vocabulary import (
    DriftPolicy,
    GroupMode,
    GroupState,
    Outcome,
    Reason,
    Release,
    SettingsGroup,
    UnsupportedPolicy,
    Verification,
    VerificationResult,
)

UNITS: Final = {group: "offload" if group in SERIES_GROUPS else group.value for group in SettingsGroup}
"""Groups of one unit change together, all or nothing (promise 4)."""

ERRNO_REASONS: Final = {
    errno.EACCES: Reason.PERMISSION_DENIED,
    errno.EPERM: Reason.PERMISSION_DENIED,
    errno.EROFS: Reason.READ_ONLY_FILE_SYSTEM,
    errno.EINVAL: Reason.INVALID_VALUE,
    errno.ERANGE: Reason.INVALID_VALUE,
}
"""What an errno of a knob's file means; any other one is a KernelError."""

NOTHING_CONTENDED: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True)
class KnobPlan:
    """One field of a wish on this kernel.

    Attributes:
        knob: None when the kernel lacks it.
        asked: as people say it; empty when nothing is asked.
        target: what the kernel shall hold; None when it is not to be written.
        outcome: None while it has yet to be written.
    """

    field: str
    knob: Knob | None = None
    asked: str = ""
    target: Value | None = None
    observed: Value | None = None
    baseline: Value | None = None
    outcome: Outcome | None = None
    reason: Reason | None = None
    message: str = ""

    @property
    def differs(self) -> bool:
        """Whether the kernel does not hold what it shall."""
        return self.target is not None and self.observed != self.target


class KnobWrite(NamedTuple):
    """One knob to write.

    Attributes:
        life: what told its driver from that of another load when this was planned; None where nothing does.
    """

    knob: Knob
    target: Value
    life: int | None = None


class TrialWindow(NamedTuple):
    """A trial of an engine within a change: what is set for it, and what afterwards.

    Attributes:
        engine: the switch, which goes off when the trial is not passed.
        mask: what the eligible reasons are meanwhile, where a knob says them.
        wished: what they are afterwards.
    """

    trial: Trial
    engine: Knob
    mask: KnobWrite | None = None
    wished: KnobWrite | None = None

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


@dataclass(frozen=True, slots=True)
class UnitChange:
    """What changes together.

    Attributes:
        writes: in the order in which they are safe.
        drift: all of it sets back what somebody else changed.
        drifted: the fields of which that is true.
        swaps: what is to be known before the first write, to undo it after a crash.
        ends: it is the undo of a change that was left open, which may have nothing to write.
        window: in which the engine is tried in the middle of it.
    """

    unit: str
    writes: tuple[KnobWrite, ...]
    captures: Mapping[str, Value]
    forget: frozenset[str]
    drift: bool
    swaps: Mapping[str, Swap] = field(default_factory=dict)
    ends: bool = False
    drifted: frozenset[str] = frozenset()
    window: TrialWindow | None = None

    @property
    def fields(self) -> frozenset[str]:
        """All that may be written."""
        written = frozenset(write.knob.field for write in self.writes)
        return written | self.window.fields if self.window else written

    @property
    def before_trial(self) -> tuple[KnobWrite, ...]:
        """What is written before the engine is tried, in safe order; without a trial, all of it."""
        if self.window is None or self.window.mask is None:
            return self.writes
        mask = self.window.mask
        return in_safe_order([*(write for write in self.writes if write.knob != mask.knob), mask])

    @property
    def after_trial(self) -> tuple[KnobWrite, ...]:
        """What is written once the engine has passed."""
        return (self.window.wished,) if self.window and self.window.wished else ()


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole answer; `changes` is empty when all is well."""

    groups: tuple[GroupPlan, ...]
    changes: tuple[UnitChange, ...]


@dataclass(frozen=True, slots=True)
class PlannedPolicy:
    """What a Plan policy would change here."""

    request: PlanRequest
    state: GroupState
    reason: Reason
    message: str
    knobs: tuple[KnobPlan, ...]

    @property
    def would_change(self) -> int:
        """How many knobs it would write."""
        return sum(row.outcome is Outcome.WOULD_CHANGE for row in self.knobs)


def make_plan(
    facts: KernelFacts,
    spec: Spec,
    baselines: Baselines,
    settled: Mapping[str, Value],
    veto: Refusal | None = None,
    *,
    contended: Mapping[str, str] = NOTHING_CONTENDED,
    verdict: Verdict | None = None,
) -> Plan:
    """Decide for all groups.

    Args:
        facts: what the kernel says now.
        spec: what this node shall have.
        baselines: values of before, of this boot.
        settled: by field, the target that was last found in force.
        veto: why no engine may be turned on, whatever is wished.
        contended: by field, what is to be said of a knob that another writer changes again and again.
        verdict: what the last trial of an engine on this boot has shown.
    """
    record = Record(verdict, spec.verify_epoch)
    groups = tuple(
        plan_group(facts, wish, baselines, settled, veto, record=record, contended=contended) for wish in spec.wishes
    )
    if baselines.problem:
        return Plan(tuple(_distrusted(group, baselines.problem) for group in groups), ())
    # An absent group means: touch nothing. So what was before has no meaning any more. But a group may also be absent
    # because somebody took it out by hand, an old CRD could not hold it, or the object is new: the operator will say.
    present = {wish.group for wish in spec.wishes} if spec.whole else set(SettingsGroup)
    orphans = frozenset(knob.field for knob in KNOBS if knob.group not in present) & frozenset(baselines.values)
    open_units = baselines.open_units if spec.revision else {}
    ends = tuple(_ending(facts, unit, rows) for unit, rows in open_units.items())
    begins = (change for change in _unit_changes(facts, groups, orphans) if change.unit not in open_units)
    return Plan(groups, (*ends, *begins))


def _distrusted(group: GroupPlan, problem: str) -> GroupPlan:
    """Nothing is written, and nothing is said to be restored, while the values of before are unknown."""
    if not group.has_work and group.state is not GroupState.RESTORED:
        return group
    return GroupPlan(group.wish, GroupState.FAILED, Reason.BASELINE_NOT_SAVED, problem, group.knobs)


def plan_group(
    facts: KernelFacts,
    wish: Wish,
    baselines: Baselines,
    settled: Mapping[str, Value],
    veto: Refusal | None = None,
    *,
    contended: Mapping[str, str] = NOTHING_CONTENDED,
    record: Record = NO_RECORD,
) -> GroupPlan:
    """Decide for one group."""
    if wish.mode is GroupMode.RESTORE:
        return _restore(facts, wish, baselines, veto)
    if unknown := unknown_words(wish):
        return GroupPlan(wish, GroupState.FAILED, Reason.VERSION_SKEW, f"this agent does not know: {unknown}")
    case = Situation(facts, wish, veto)
    if wish.mode is GroupMode.HOLD:
        rows = tuple(replace(row, target=None) for row in _rows(case, baselines))
        if veto is not None and case.engine:
            return GroupPlan(wish, *veto, rows)  # what is held is no more
        return GroupPlan(wish, GroupState.HELD, Reason.PAUSED, "the policy is paused; nothing is written", rows)
    refusal = first_refusal(case)
    if refusal is not None:
        return _refused(case, refusal, baselines)
    rows = _rows(case, baselines)
    untried = _impossible(case, rows, record)
    if untried is not None:
        return _refused(case, untried, baselines)
    return _tried(case, _applied(case, rows, baselines, settled, contended), record)


def plan_policy(
    facts: KernelFacts, request: PlanRequest, baselines: Baselines, veto: Refusal | None = None
) -> PlannedPolicy:
    """Say what a Plan policy would change; nothing of it is written."""
    groups = tuple(plan_group(facts, wish, baselines, {}, veto) for wish in request.wishes)
    rows = tuple(
        replace(row, outcome=Outcome.WOULD_CHANGE) if row.differs else row for group in groups for row in group.knobs
    )
    worst = _worst(groups)
    if worst is not None:
        return PlannedPolicy(request, worst.state, worst.reason, worst.message, rows)
    planned = PlannedPolicy(request, GroupState.READY, Reason.PLAN_ONLY, "", rows)
    return replace(planned, message=f"would change {planned.would_change} of {len(rows)} knobs")


def _worst(groups: Sequence[GroupPlan]) -> GroupPlan | None:
    """Refused and failed groups speak for the policy; unsupported ones when there is no other, or when it is strict."""
    for state in (GroupState.REFUSED, GroupState.FAILED):
        found = next((group for group in groups if group.state is state), None)
        if found is not None:
            return found
    unsupported = [group for group in groups if group.state is GroupState.UNSUPPORTED]
    decisive = len(unsupported) == len(groups) or any(
        group.wish.unsupported is UnsupportedPolicy.STRICT for group in unsupported
    )
    return unsupported[0] if unsupported and decisive else None


def _applied(
    case: Situation,
    rows: tuple[KnobPlan, ...],
    baselines: Baselines,
    settled: Mapping[str, Value],
    contended: Mapping[str, str],
) -> GroupPlan:
    wish = case.wish
    unreadable = next((row for row in rows if row.outcome is Outcome.REJECTED), None)
    if unreadable is not None and unreadable.reason is not None:
        return GroupPlan(wish, GroupState.FAILED, unreadable.reason, unreadable.message, rows)
    left = _no_longer_named(case, rows, baselines)
    differing = tuple(row for row in (*rows, *left) if row.differs)
    drifted = tuple(row for row in differing if settled.get(row.field) == row.target)
    fought = _fought(wish, drifted, contended)
    alone = fought if wish.drift is DriftPolicy.CORRECT else drifted
    differing = tuple(row for row in differing if row not in alone)
    shown = frozenset(row.field for row in drifted if wish.drift is not DriftPolicy.IGNORE)
    if any(_widens_reasons(case, row) for row in fought):
        message = f"{_contention(fought, contended)}; offload is off meanwhile, for more would be offloaded than asked"
        refused = _refused(case, Refusal(GroupState.FAILED, Reason.CONTENDED, message), baselines)
        return replace(refused, drifted=shown)
    return GroupPlan(
        wish,
        *_state_of(rows, differing, shown, _contention(fought, contended)),
        knobs=tuple(_mark_drift(row, shown, fought) for row in (*rows, *left)),
        writes=_writes(case.facts, differing),
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
    found = next((case.facts.value(knob) for knob in case.knobs(CHANNELS_FIELD)), None)
    return subject_of(case.facts, case.engine, int(wished or found or 1))


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
    window = TrialWindow(trial, row.knob, *_masks(case, plan, trial))
    if plan.writes:
        return replace(plan, window=window)
    message = f"own pages are about to be copied by {subject}"
    return replace(plan, window=window, state=GroupState.PENDING, reason=Reason.VERIFYING, message=message)


def _masks(case: Situation, plan: GroupPlan, trial: Trial) -> tuple[KnobWrite | None, KnobWrite | None]:
    knob = next(iter(case.knobs(REASONS_FIELD)), None)
    if knob is None:
        return None, None
    wished = next((write.target for write in plan.writes if write.knob == knob), case.facts.value(knob))
    narrowed = _write(case.facts, knob, reasons_value({trial.reason}))
    return narrowed, _write(case.facts, knob, wished) if wished else None


def _writes(facts: KernelFacts, rows: Iterable[KnobPlan]) -> tuple[KnobWrite, ...]:
    return tuple(_write(facts, row.knob, row.target) for row in rows if row.knob and row.target is not None)


def _write(facts: KernelFacts, knob: Knob, target: Value) -> KnobWrite:
    return KnobWrite(knob, target, facts.life(knob))


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
        _to_baseline(case.facts, knob, baselines.values[knob.field])
        for knob in case.facts.knobs
        if knob.group is case.wish.group and knob.field in baselines.values and knob.field not in named
    )


def _to_baseline(facts: KernelFacts, knob: Knob, before: Value) -> KnobPlan:
    asked, observed = knob.codec.show(before), facts.value(knob)
    if before in knob.never:
        message = f"{knob.path}: held {before} before, which is never written; it stays as it is"
        return KnobPlan(knob.field, knob, asked, None, observed, before, Outcome.REFUSED, message=message)
    return KnobPlan(knob.field, knob, asked, before, observed, before)


def _restore(facts: KernelFacts, wish: Wish, baselines: Baselines, veto: Refusal | None) -> GroupPlan:
    """Put every knob of the group back; one that went with its driver lost what it held, and is forgotten.

    An engine that was on before us and that has copied wrong meanwhile is not turned on again (promise 15).
    """
    held = frozenset(knob.field for knob in KNOBS if knob.group is wish.group) & frozenset(baselines.values)
    if not held:
        return GroupPlan(wish, GroupState.RESTORED, Reason.RESTORED, "the values of before are back")
    knobs = [knob for knob in facts.knobs if knob.field in held]
    denied = next((knob for knob in knobs if isinstance(facts.readings[knob.field], Denied)), None)
    if denied is not None:
        reason, message = _denial(denied, facts)
        return GroupPlan(wish, GroupState.FAILED, reason, message)
    hidden = [knob.path for knob in knobs_of(facts.dialect) if knob.field in held and _is_hidden(facts, knob)]
    if hidden:
        message = f"{', '.join(hidden)} has gone, and its folder has not: are /sys and /proc mounted whole?"
        return GroupPlan(wish, GroupState.FAILED, Reason.KERNEL_ERROR, message)
    vetoed = veto is not None and veto.reason is Reason.CORRUPTION_DETECTED
    rows = tuple(
        _to_baseline(facts, knob, knob.off if vetoed and knob.is_engine and knob.off else baselines.values[knob.field])
        for knob in knobs
    )
    writes = _writes(facts, (row for row in rows if row.differs))
    message = f"putting {len(writes)} back"
    return GroupPlan(wish, GroupState.PENDING, Reason.RESTORING, message, rows, writes, forget=held)


def _is_hidden(facts: KernelFacts, knob: Knob) -> bool:
    """Whether a knob's file is gone although nothing went that would have taken along what it held."""
    went_with_its_folder = knob.folder in facts.row.folders and facts.life(knob) is None
    return knob not in facts.knobs and not went_with_its_folder


def _refused(case: Situation, refusal: Refusal, baselines: Baselines) -> GroupPlan:
    if refusal.reason is Reason.NO_DMA_CHANNEL and any(knob.field in baselines.values for knob in case.facts.switches):
        # A node that never had one is just another kind of node; where offload has been set, something broke.
        refusal = refusal._replace(state=GroupState.FAILED, message=f"{refusal.message}; offload was set here before")
    unsupported = refusal.state is GroupState.UNSUPPORTED
    outcome = Outcome.UNSUPPORTED if unsupported else Outcome.REFUSED
    rows = tuple(
        replace(row, target=None, outcome=outcome, reason=refusal.reason, message="") for row in _rows(case, baselines)
    )
    concerned = case.facts.running if case.wish.group is SettingsGroup.OFFLOAD else ()
    ours = (knob for knob in concerned if knob.field in baselines.values)
    writes = tuple(_write(case.facts, knob, knob.off) for knob in ours if knob.off is not None)
    return GroupPlan(case.wish, *refusal, knobs=rows, writes=writes)


def _rows(case: Situation, baselines: Baselines) -> tuple[KnobPlan, ...]:
    settings = dict(case.wish.settings)
    if case.wish.group is SettingsGroup.OFFLOAD and case.by_dma and case.facts.restricts_reasons:
        settings.setdefault("reasons", None)
    named = ((f"{case.wish.group}.{key}", wanted) for key, wanted in settings.items())
    return tuple(row for setting, wanted in named for row in _rows_of(case, setting, wanted, baselines))


def _rows_of(case: Situation, setting: str, wanted: Any, baselines: Baselines) -> Iterable[KnobPlan]:
    """Yield a row for each kernel file that serves a setting; two engines have a switch each."""
    if setting == REASONS_FIELD and case.facts.fixed_reasons is not None:
        yield _fixed_reasons_row(setting, frozenset(wanted), case.facts.fixed_reasons)
        return
    knobs = case.knobs(setting)
    for knob in knobs:
        yield _row(case, knob, wanted, baselines)
    if not knobs:
        yield KnobPlan(setting, asked=in_words(wanted), outcome=Outcome.UNSUPPORTED, reason=Reason.FIELD_UNSUPPORTED)


def _row(case: Situation, knob: Knob, wanted: Any, baselines: Baselines) -> KnobPlan:
    name = knob.field
    observed, before = case.facts.value(knob), baselines.values.get(name)
    if observed is None:
        reason, message = _denial(knob, case.facts)
        return KnobPlan(name, knob, in_words(wanted), None, None, before, Outcome.REJECTED, reason, message)
    target, clamp = _target(case, knob, wanted)
    if target is None:
        row = KnobPlan(name, knob, in_words(wanted), None, observed, before, message=clamp)
        return replace(row, outcome=Outcome.UNSUPPORTED, reason=Reason.FIELD_UNSUPPORTED)
    asked = knob.codec.show(target) if wanted is None or knob.is_engine else in_words(wanted)
    row = KnobPlan(name, knob, asked, target, observed, before, message=clamp)
    if row.differs:
        return row
    if clamp:
        return replace(row, outcome=Outcome.CLAMPED, reason=Reason.CLAMPED)
    ours = before is not None and before != observed
    return replace(row, outcome=Outcome.APPLIED if ours else Outcome.ALREADY_SET)


def _fixed_reasons_row(name: str, asked: frozenset[str], fixed: frozenset[str]) -> KnobPlan:
    row = KnobPlan(name, asked=reasons_value(asked), observed=reasons_value(fixed), outcome=Outcome.ALREADY_SET)
    surplus = sorted(asked - fixed)
    if not surplus:
        return row
    message = f"fixed in this kernel, never offloaded: {', '.join(surplus)}"
    return replace(row, outcome=Outcome.CLAMPED, reason=Reason.CLAMPED, message=message)


def _target(case: Situation, knob: Knob, wanted: Any) -> tuple[Value | None, str]:
    """Return what the kernel shall hold, and why it is not just what was asked; None: it has nothing like that."""
    match knob.codec:
        case UInt() as codec:
            usable = case.facts.channels_usable if knob.field == CHANNELS_FIELD else 0
            if 0 < usable < codec.highest:
                return _clamped(int(wanted), codec.lowest, usable, f"the host has {usable} DMA channels")
            return _clamped(int(wanted), codec.lowest, codec.highest, _bounds(knob))
        case Size() as codec:
            return _clamped(size_bytes(str(wanted)), codec.lowest, codec.highest, _bounds(knob))
        case ReasonMask():
            dropped = sorted(frozenset(wanted or ()) - case.facts.reasons_seen)
            clamp = f"not known to this kernel, left out: {', '.join(dropped)}" if dropped else ""
            return reasons_value(case.eligible_reasons), clamp
        case Words() as words:
            # A switch knows only its own engine's name, and every other one means off to it.
            target = words.unshow(in_words(wanted)) or (knob.off if knob.is_engine else None)
            return target, "" if target is not None else _bounds(knob)


def _clamped(wanted: int, lowest: int, highest: int, why: str) -> tuple[Value, str]:
    target = max(lowest, min(wanted, highest))
    return Value(str(target)), why if target != wanted else ""


def _bounds(knob: Knob) -> str:
    return f"{knob.path} takes {knob.codec.legal}"


def _denial(knob: Knob, facts: KernelFacts) -> tuple[Reason, str]:
    reading = facts.readings.get(knob.field, Absent())
    if isinstance(reading, Denied):
        reason = ERRNO_REASONS.get(reading.errno, Reason.KERNEL_ERROR)
        return reason, f"{knob.path}: cannot be read: {explain_errno(reading.errno)}"
    return Reason.KERNEL_ERROR, f"{knob.path}: says what no {knob.field} is: {str(reading)[:80]}"


def _unit_changes(facts: KernelFacts, groups: Sequence[GroupPlan], orphans: frozenset[str]) -> Iterable[UnitChange]:
    for unit in dict.fromkeys(UNITS.values()):
        members = [group for group in groups if UNITS[group.wish.group] == unit]
        asked = tuple(write for group in members for write in group.writes)
        writes = in_safe_order((*asked, *_cycled(facts, members, asked)))
        captures = {name: value for group in members for name, value in group.captures.items()}
        gone = {knob.field for knob in KNOBS if UNITS[knob.group] == unit} & orphans
        forget = frozenset(gone).union(*(group.forget for group in members))
        window = next((group.window for group in members if group.window), None)
        if window and any(write.knob == window.engine and write.target == write.knob.off for write in writes):
            window = None  # it is cycled, and tried when it goes on again
        if writes or captures or forget or window:
            named = frozenset(write.knob.field for write in asked)
            drifted = named & frozenset[str]().union(*(group.drifted for group in members))
            drift = bool(asked) and drifted == named
            swaps = _swaps(facts, writes, window)
            yield UnitChange(unit, writes, captures, forget, drift, swaps, window=window, drifted=drifted)


def _cycled(facts: KernelFacts, members: Sequence[GroupPlan], asked: Sequence[KnobWrite]) -> tuple[KnobWrite, ...]:
    """Return the engines that go off although they are wished, for the next look to turn them on again.

    That is when a knob is set that an engine only looks at when it goes on, or when another engine goes off that read
    on too: it may be the one that works, and its end that of both.
    """
    going = {write.knob.field for write in asked if write.knob in facts.running and write.target == write.knob.off}
    if not going and not any(write.knob.while_off for write in asked):
        return ()
    applied = (row for group in members if group.wish.mode is GroupMode.APPLY for row in group.knobs)
    wished = {row.field for row in applied if row.target is not None} - going
    return tuple(_write(facts, knob, knob.off) for knob in facts.running if knob.field in wished and knob.off)


def _swaps(facts: KernelFacts, writes: Sequence[KnobWrite], window: TrialWindow | None) -> Mapping[str, Swap]:
    """Return what an undo must know; one write alone is taken by the kernel or it is not, but a trial is in between."""
    if len(writes) < 2 and window is None:
        return {}
    wished = window.wished if window else None
    targets = {write.knob: write.target for write in (*writes, *((wished,) if wished else ()))}
    passing = {window.mask.knob: window.mask.target} if window and window.mask else {}
    held = {knob: facts.value(knob) for knob in targets}
    return {
        knob.field: Swap(before, targets[knob], passing.get(knob))
        for knob, before in held.items()
        if before is not None
    }


def _ending(facts: KernelFacts, unit: str, rows: Mapping[str, Swap]) -> UnitChange:
    """End a change that was left open: it is in force, or what holds its target goes back; the rest is not ours."""
    knobs = {knob.field: knob for knob in facts.knobs}
    in_force = all(name in knobs and facts.value(knobs[name]) == swap.target for name, swap in rows.items())
    undo = (
        ()
        if in_force
        else tuple(
            _write(facts, knobs[name], swap.before)
            for name, swap in rows.items()
            if name in knobs
            and facts.value(knobs[name]) in {swap.target, swap.passing, None}
            and not stays(knobs[name], swap.before, swap.target)
        )
    )
    return UnitChange(unit, in_safe_order(undo), {}, frozenset(), drift=False, ends=True)


def stays(knob: Knob, before: Value | None, target: Value) -> bool:
    """Whether a change of a knob is not undone: it turned offload off, or what it held is never written."""
    return (knob.is_engine and target == knob.off) or before in knob.never


def in_safe_order(writes: Iterable[KnobWrite]) -> tuple[KnobWrite, ...]:
    """Order writes: switches that go off, parameters, switches that go on; inside, as the table is (promise 4)."""
    return tuple(sorted(writes, key=lambda write: (_rank(write), FIELD_ORDER[write.knob.field])))


def _rank(write: KnobWrite) -> int:
    if write.knob.phase is Phase.PARAMETER:
        return 1
    return 0 if write.target == write.knob.off else 2
