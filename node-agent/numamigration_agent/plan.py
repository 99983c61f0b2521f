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
* A knob is drifted when it was in force with this very target and now holds something else.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from numamigration_agent.baseline import Baselines, Swap
from numamigration_agent.guards import SERIES_GROUPS, Refusal, Situation, first_refusal
from numamigration_agent.kernel.codecs import ReasonMask, UInt, Value, Words, reasons_value
from numamigration_agent.kernel.dialects import (
    CHANNELS_FIELD,
    ENGINE_FIELD,
    ENGINE_OFF,
    KNOBS,
    REASONS_FIELD,
    Knob,
    Phase,
)
from numamigration_agent.kernel.probe import KernelFacts
from numamigration_agent.kernel.sysfs import Absent, Denied
from numamigration_agent.verify import NO_RECORD, Record, Subject, Trial, Verdict, is_due, make_trial, subject_of
from numamigration_agent.wishes import PlanRequest, Spec, Wish
from numamigration_api.machinery.records import dataclass, field, replace
from numamigration_api.vocabulary import (
    DriftPolicy,
    Engine,
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
    """One knob to write."""

    knob: Knob
    target: Value


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
    verdict: Verdict | None = None,
) -> Plan:
    """Decide for all groups.

    Args:
        facts: what the kernel says now.
        spec: what this node shall have.
        baselines: values of before, of this boot.
        settled: by field, the target that was last found in force.
        veto: why no engine may be turned on, whatever is wished.
        verdict: what the last trial of an engine on this boot has shown.
    """
    record = Record(verdict, spec.verify_epoch)
    groups = tuple(plan_group(facts, wish, baselines, settled, veto, record=record) for wish in spec.wishes)
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
    record: Record = NO_RECORD,
) -> GroupPlan:
    """Decide for one group."""
    if wish.skew:
        return GroupPlan(wish, GroupState.FAILED, Reason.VERSION_SKEW, f"this agent does not know: {wish.skew}")
    if wish.mode is GroupMode.RESTORE:
        return _restore(facts, wish, baselines, veto)
    case = Situation(facts, wish, veto)
    if wish.mode is GroupMode.HOLD:
        rows = tuple(replace(row, target=None) for row in _rows(case, baselines))
        return GroupPlan(wish, GroupState.HELD, Reason.PAUSED, "the policy is paused; nothing is written", rows)
    refusal = first_refusal(case)
    if refusal is not None:
        return _refused(case, refusal, baselines)
    rows = _rows(case, baselines)
    untried = _impossible(case, rows, record)
    if untried is not None:
        return _refused(case, untried, baselines)
    return _tried(case, _applied(case, rows, baselines, settled), record)


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
    case: Situation, rows: tuple[KnobPlan, ...], baselines: Baselines, settled: Mapping[str, Value]
) -> GroupPlan:
    wish = case.wish
    unreadable = next((row for row in rows if row.outcome is Outcome.REJECTED), None)
    if unreadable is not None and unreadable.reason is not None:
        return GroupPlan(wish, GroupState.FAILED, unreadable.reason, unreadable.message, rows)
    left = _no_longer_named(case, rows, baselines)
    differing = tuple(row for row in (*rows, *left) if row.differs)
    drifted = frozenset(row.field for row in differing if settled.get(row.field) == row.target)
    if drifted and wish.drift is not DriftPolicy.CORRECT:
        shown = drifted if wish.drift is DriftPolicy.REPORT else frozenset[str]()
        differing = tuple(row for row in differing if row.field not in drifted)
    else:
        shown = drifted
    return GroupPlan(
        wish,
        *_state_of(rows, differing, shown),
        knobs=tuple(_mark_drift(row, shown) for row in (*rows, *left)),
        writes=tuple(KnobWrite(row.knob, row.target) for row in differing if row.knob and row.target is not None),
        captures=_captures(rows),
        forget=frozenset(row.field for row in left),
        drifted=shown,
    )


def _engine_of(case: Situation, rows: Sequence[KnobPlan]) -> KnobPlan | None:
    """Return the row of the switch that the wish turns on, or leaves on."""
    if case.wish.group is not SettingsGroup.OFFLOAD:
        return None
    on = (row for row in rows if row.knob and row.knob.phase is Phase.SWITCH and row.target not in {None, row.knob.off})
    return next(on, None)


def _subject(case: Situation, rows: Sequence[KnobPlan]) -> Subject:
    """Return what would be tried; channels that the wish does not name are those that are set."""
    row = next((row for row in rows if row.field == CHANNELS_FIELD), None)
    knob = case.knob(CHANNELS_FIELD)
    channels = (row.target if row else None) or (case.facts.value(knob) if knob else None)
    return subject_of(case.facts, str(case.wish.settings.get("engine")), int(channels or 1))


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
    knob = case.knob(REASONS_FIELD)
    if knob is None:
        return None, None
    wished = next((write.target for write in plan.writes if write.knob == knob), case.facts.value(knob))
    return KnobWrite(knob, reasons_value({trial.reason})), KnobWrite(knob, wished) if wished else None


def _state_of(
    rows: Sequence[KnobPlan], differing: Sequence[KnobPlan], drifted: frozenset[str]
) -> tuple[GroupState, Reason, str]:
    names = ", ".join(sorted(drifted))
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


def _mark_drift(row: KnobPlan, drifted: frozenset[str]) -> KnobPlan:
    return replace(row, reason=Reason.DRIFT_DETECTED) if row.field in drifted else row


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
    return KnobPlan(knob.field, knob, knob.codec.show(before), before, facts.value(knob), before)


def _restore(facts: KernelFacts, wish: Wish, baselines: Baselines, veto: Refusal | None) -> GroupPlan:
    """Put every knob of the group back; one whose file is gone lost its state with the driver and is forgotten.

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
    vetoed = veto is not None and veto.reason is Reason.CORRUPTION_DETECTED
    rows = tuple(
        _to_baseline(facts, knob, knob.off if vetoed and knob.off else baselines.values[knob.field]) for knob in knobs
    )
    writes = tuple(KnobWrite(row.knob, row.target) for row in rows if row.differs and row.knob and row.target)
    message = f"putting {len(writes)} back"
    return GroupPlan(wish, GroupState.PENDING, Reason.RESTORING, message, rows, writes, forget=held)


def _refused(case: Situation, refusal: Refusal, baselines: Baselines) -> GroupPlan:
    unsupported = refusal.state is GroupState.UNSUPPORTED
    outcome = Outcome.UNSUPPORTED if unsupported else Outcome.REFUSED
    rows = tuple(
        replace(row, target=None, outcome=outcome, reason=refusal.reason, message="") for row in _rows(case, baselines)
    )
    engine = case.knob(ENGINE_FIELD)
    ours = case.wish.group is SettingsGroup.OFFLOAD and ENGINE_FIELD in baselines.values
    on = engine is not None and case.facts.value(engine) not in {None, ENGINE_OFF}
    writes = (KnobWrite(engine, ENGINE_OFF),) if engine and ours and on else ()
    return GroupPlan(case.wish, *refusal, knobs=rows, writes=writes)


def _rows(case: Situation, baselines: Baselines) -> tuple[KnobPlan, ...]:
    settings = dict(case.wish.settings)
    adjustable = case.facts.fixed_reasons is None
    if case.wish.group is SettingsGroup.OFFLOAD and settings.get("engine") == Engine.DMA and adjustable:
        settings.setdefault("reasons", None)
    return tuple(_row(case, f"{case.wish.group}.{key}", wanted, baselines) for key, wanted in settings.items())


def _row(case: Situation, name: str, wanted: Any, baselines: Baselines) -> KnobPlan:
    knob = case.knob(name)
    if name == REASONS_FIELD and case.facts.fixed_reasons is not None:
        return _fixed_reasons_row(name, frozenset(wanted), case.facts.fixed_reasons)
    if knob is None:
        return KnobPlan(name, asked=_say(wanted), outcome=Outcome.UNSUPPORTED, reason=Reason.FIELD_UNSUPPORTED)
    observed, before = case.facts.value(knob), baselines.values.get(name)
    if observed is None:
        reason, message = _denial(knob, case.facts)
        return KnobPlan(name, knob, _say(wanted), None, None, before, Outcome.REJECTED, reason, message)
    target, clamp = _target(case, knob, wanted)
    asked = _say(wanted) if wanted is not None else knob.codec.show(target)
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


def _target(case: Situation, knob: Knob, wanted: Any) -> tuple[Value, str]:
    """Return what the kernel shall hold, and why it is not just what was asked."""
    match knob.codec:
        case UInt() as codec:
            bound, why = codec.highest, f"{knob.path} takes at most {codec.highest}"
            if knob.field == CHANNELS_FIELD and 0 < case.facts.channels_usable < bound:
                bound, why = case.facts.channels_usable, f"the host has {case.facts.channels_usable} DMA channels"
            return Value(str(min(int(wanted), bound))), why if int(wanted) > bound else ""
        case ReasonMask():
            dropped = sorted(frozenset(wanted or ()) - case.facts.reasons_seen)
            clamp = f"not known to this kernel, left out: {', '.join(dropped)}" if dropped else ""
            return reasons_value(case.eligible_reasons), clamp
        case Words() as words:
            return words.unshow(_say(wanted)) or Value(_say(wanted)), ""


def _denial(knob: Knob, facts: KernelFacts) -> tuple[Reason, str]:
    reading = facts.readings.get(knob.field, Absent())
    if isinstance(reading, Denied):
        reason = ERRNO_REASONS.get(reading.errno, Reason.KERNEL_ERROR)
        return reason, f"{knob.path}: cannot be read: {os.strerror(reading.errno)}"
    return Reason.KERNEL_ERROR, f"{knob.path}: says what no {knob.field} is: {str(reading)[:80]}"


def _say(wanted: Any) -> str:
    if isinstance(wanted, bool):
        return "true" if wanted else "false"
    return ",".join(wanted) if isinstance(wanted, list) else "" if wanted is None else str(wanted)


def _unit_changes(facts: KernelFacts, groups: Sequence[GroupPlan], orphans: frozenset[str]) -> Iterable[UnitChange]:
    for unit in dict.fromkeys(UNITS.values()):
        members = [group for group in groups if UNITS[group.wish.group] == unit]
        writes = in_safe_order(write for group in members for write in group.writes)
        captures = {name: value for group in members for name, value in group.captures.items()}
        gone = {knob.field for knob in KNOBS if UNITS[knob.group] == unit} & orphans
        forget = frozenset(gone).union(*(group.forget for group in members))
        window = next((group.window for group in members if group.window), None)
        if writes or captures or forget or window:
            drifted = frozenset[str]().union(*(group.drifted for group in members))
            drift = bool(writes) and all(write.knob.field in drifted for write in writes)
            swaps = _swaps(facts, writes, window)
            yield UnitChange(unit, writes, captures, forget, drift, swaps, window=window)


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
            KnobWrite(knobs[name], swap.before)
            for name, swap in rows.items()
            if name in knobs
            and facts.value(knobs[name]) in {swap.target, swap.passing, None}
            and not _turned_offload_off(name, swap)
        )
    )
    return UnitChange(unit, in_safe_order(undo), {}, frozenset(), drift=False, ends=True)


def _turned_offload_off(name: str, swap: Swap) -> bool:
    return name == ENGINE_FIELD and swap.target == ENGINE_OFF


def in_safe_order(writes: Iterable[KnobWrite]) -> tuple[KnobWrite, ...]:
    """Order writes: switches that go off, parameters, switches that go on; inside, as the table is (promise 4)."""
    return tuple(sorted(writes, key=lambda write: (_rank(write), KNOBS.index(write.knob))))


def _rank(write: KnobWrite) -> int:
    if write.knob.phase is Phase.PARAMETER:
        return 1
    return 0 if write.target == write.knob.off else 2
