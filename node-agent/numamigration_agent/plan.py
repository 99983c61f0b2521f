# SPDX-License-Identifier: Apache-2.0
"""Decides what to do about a spec, from what the kernel says and what it said before. Pure.

Level-triggered: the same question is asked after every look at the kernel, and the answer to a state in which all is
well is an empty plan. So a crash between any two steps of a change is continued by the next plan. What is said of each
group is decided in ``groups``, what its kernel files shall hold in ``rows``.

* A unit that was left open is first brought to an end, whatever is wished now: nothing is written when every knob holds
  its target, else what holds it goes back in safe order (docs/decisions/0012). Then follows a plan like any other.
* Two engines that both read on: nobody can tell which one works, so the wished one goes off with the other, and on
  again after the next look. So does an engine whose knob is only looked at when it goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from numamigration_agent.baseline import Swap
from numamigration_agent.groups import GroupPlan, Known, TrialWindow, plan_group
from numamigration_agent.guards import SERIES_GROUPS
from numamigration_agent.kernel.codecs import Value
from numamigration_agent.kernel.dialects import FIELD_ORDER, KNOBS, Knob, Phase
from numamigration_agent.kernel.probe import KernelFacts, hardware_class
from numamigration_agent.rows import KnobPlan, KnobWrite, write_of
from numamigration_agent.wishes import PlanRequest, Spec, Wish
from numamigration_api.machinery.profiles import profile_name, settings_of_class
from numamigration_api.machinery.records import dataclass, field, replace
from numamigration_api.vocabulary import (
    Engine,
    GroupMode,
    GroupState,
    Outcome,
    Reason,
    SettingsGroup,
    UnsupportedPolicy,
)

UNMEASURED: Final = "no MigrationProfile tells what is best for this node's hardware class, so offload is as before"
UNITS: Final = {group: "offload" if group in SERIES_GROUPS else group.value for group in SettingsGroup}
"""Groups of one unit change together, all or nothing (promise 4)."""

_FIELDS: Final[Mapping[str, frozenset[str]]] = {
    group: frozenset(knob.field for knob in KNOBS if knob.group is group) for group in SettingsGroup
}
_FIELDS_OF_UNIT: Final = {
    unit: frozenset(knob.field for knob in KNOBS if UNITS[knob.group] == unit) for unit in dict.fromkeys(UNITS.values())
}

CUT: Final = (
    "the node state is not as the operator wrote it, perhaps since its CRD is too old: apply the CRDs of this release;"
    " the engine stays as it is"
)


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
    """The whole answer; `changes` is empty when all is well.

    Attributes:
        groups: of the spec.
        probe: the group that stands in for offload while settings are measured.
    """

    groups: tuple[GroupPlan, ...]
    changes: tuple[UnitChange, ...]
    probe: GroupPlan | None = None


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


def make_plan(facts: KernelFacts, spec: Spec, known: Known) -> Plan:
    """Decide for all groups.

    Args:
        facts: what the kernel says now.
        spec: what this node shall have.
        known: what this node knows beside that.
    """
    baselines = known.baselines
    probe = plan_group(facts, known.probe, known) if known.probe else None
    groups = tuple(_plan_wish(facts, spec, of_class(facts, wish), known) for wish in spec.wishes)
    if baselines.problem:
        return Plan(tuple(_distrusted(group, baselines.problem) for group in groups), ())
    if probe is not None:
        groups = tuple(
            _measured(probe, group) if group.wish.group is SettingsGroup.OFFLOAD else group for group in groups
        )
    # An absent group means: touch nothing. So what was before has no meaning any more. But a group may also be absent
    # because somebody took it out by hand, an old CRD could not hold it, or the object is new: the operator will say.
    # One who makes it anew, after a person has deleted it, may not know what there was: that was never in this object.
    present = fields_of(wish.group for wish in spec.wishes) if spec.whole else fields_of(SettingsGroup)
    orphans = baselines.of_state(spec.uid) - present
    orphans -= _FIELDS[SettingsGroup.OFFLOAD] if probe else frozenset()
    open_units = baselines.open_units if spec.revision else {}
    ends = tuple(_ending(facts, unit, rows) for unit, rows in open_units.items())
    others = (group for group in groups if group.wish.group is not SettingsGroup.OFFLOAD)
    planned = groups if probe is None else (probe, *others)
    begins = (change for change in _unit_changes(facts, planned, orphans) if change.unit not in open_units)
    return Plan(groups, (*ends, *begins), probe)


def fields_of(groups: Iterable[str]) -> frozenset[str]:
    """Return all settings fields of some groups; a group that this release does not know has none."""
    return frozenset[str]().union(*(_FIELDS.get(group, ()) for group in groups))


def _measured(probe: GroupPlan, group: GroupPlan) -> GroupPlan:
    """Say of a group that another wish stands in for it; what is wrong with that one is told all the same."""
    shown = replace(probe, wish=group.wish)
    if probe.state in {GroupState.FAILED, GroupState.REFUSED}:
        return shown
    message = "settings are being measured with own pages, or put back after that"
    return replace(shown, state=GroupState.PENDING, reason=Reason.PROBING, message=message)


def of_class(facts: KernelFacts, wish: Wish) -> Wish:
    """Return a wish with the settings of this node's hardware class, where it has other ones for some.

    A class that was not measured yet has none: what was set here goes back to what it was before.
    """
    if wish.group is not SettingsGroup.OFFLOAD or "profiles" not in wish.settings or wish.mode is GroupMode.RESTORE:
        return wish
    return replace(wish, settings=settings_of_class(wish.settings, profile_name(facts.dialect, hardware_class(facts))))


def _plan_wish(facts: KernelFacts, spec: Spec, wish: Wish, known: Known) -> GroupPlan:
    """Decide for one group; an engine is turned on, or changed, only as the whole spec says.

    A CRD that is too old drops what it does not know, and what would have restricted the engine may be among it
    (promise 3).
    """
    if spec.whole or spec.revision is None or wish.mode is not GroupMode.APPLY or not _wants_engine(wish):
        return _explained(plan_group(facts, wish, known))
    group = replace(plan_group(facts, replace(wish, mode=GroupMode.HOLD), known), wish=wish)
    if group.state is not GroupState.HELD:
        return group
    return replace(group, state=GroupState.PENDING, reason=Reason.VERSION_SKEW, message=CUT)


def _explained(group: GroupPlan) -> GroupPlan:
    unmeasured = group.wish.group is SettingsGroup.OFFLOAD and not group.wish.settings
    return replace(group, message=UNMEASURED) if unmeasured and group.state is GroupState.READY else group


def _wants_engine(wish: Wish) -> bool:
    return wish.settings.get("engine") not in (None, Engine.OFF)


def _distrusted(group: GroupPlan, problem: str) -> GroupPlan:
    """Nothing is written, and nothing is said to be restored, while the values of before are unknown."""
    if not group.has_work and group.state is not GroupState.RESTORED:
        return group
    return GroupPlan(group.wish, GroupState.FAILED, Reason.BASELINE_NOT_SAVED, problem, group.knobs)


def plan_policy(facts: KernelFacts, request: PlanRequest, known: Known) -> PlannedPolicy:
    """Say what a Plan policy would change; nothing of it is written, so nothing of it drifts or is tried."""
    bare = Known(known.baselines, veto=known.veto)
    groups = tuple(plan_group(facts, of_class(facts, wish), bare) for wish in request.wishes)
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


def _unit_changes(facts: KernelFacts, groups: Sequence[GroupPlan], orphans: frozenset[str]) -> Iterable[UnitChange]:
    for unit, fields in _FIELDS_OF_UNIT.items():
        members = [group for group in groups if UNITS[group.wish.group] == unit]
        asked = tuple(write for group in members for write in group.writes)
        writes = in_safe_order((*asked, *_cycled(facts, members, asked)))
        captures = {name: value for group in members for name, value in group.captures.items()}
        forget = (orphans & fields).union(*(group.forget for group in members))
        window = next((group.window for group in members if group.window), None)
        if window and any(write.knob == window.engine and write.turns_off for write in writes):
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
    running = facts.running
    going = {write.knob.field for write in asked if write.knob in running and write.target == write.knob.off}
    if not going and not any(write.knob.while_off for write in asked):
        return ()
    applied = (row for group in members if group.wish.mode is GroupMode.APPLY for row in group.knobs)
    wished = {row.field for row in applied if row.target is not None} - going
    return tuple(write_of(facts, knob, knob.off) for knob in running if knob.field in wished and knob.off)


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
            write_of(facts, knobs[name], swap.before)
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
