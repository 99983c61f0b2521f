# SPDX-License-Identifier: Apache-2.0
"""What a policy would change on every node, once its rollout has come everywhere: decided as the operator decides it.

Compared is with what the nodes' specs say now, so what other policies have under way is no part of it. Hazards, ranges
and the trial of an engine are the agents' own: mode Plan asks them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from numamigration_api.vocabulary import RESTORE_FINALIZER, FleetSwitch, GroupMode, PolicyMode, SettingsGroup
from numamigration_cli.text import names, plural
from numamigration_cli.views.history import flat
from numamigration_cli.views.profiles import settings_here
from numamigration_operator.core.course import Goal
from numamigration_operator.core.fleet_switch import Control
from numamigration_operator.core.leftovers import KnobStatus, KnobView
from numamigration_operator.core.matching import Matching
from numamigration_operator.core.objects import NodeObject, PolicyObject, StateObject, Struct
from numamigration_operator.core.render import Turn, render
from numamigration_operator.core.resolve import PolicyFacts, Resolution, policy_facts
from numamigration_operator.core.tuned import Profiles
from numamigration_operator.core.wishes import Spec, Wish, means_same, moves_same, observed_spec

NEW_UID: Final = "planned"
NAMES_SHOWN: Final = 3
HINT: Final = (
    "Hazards, ranges and the engine's trial are the agents' own: mode: Plan has them answer, and writes nothing."
)


class Honoured(Struct, frozen=True):
    """Which fields a kernel has."""

    fields: tuple[str, ...] = ()


class PlanStatus(KnobStatus, frozen=True):
    """A node state's status with its knobs, and with what the kernel can."""

    capabilities: Honoured | None = None


class PlanState(StateObject, frozen=True):
    """A NodeMigrationState, as plans need it."""

    status: PlanStatus = PlanStatus()


class GroupChange(Struct, frozen=True):
    """What would become of a group on a node.

    Attributes:
        action: set, unsupported (the kernel has none of its fields), measure (a tuned policy, and the node's class was
            not measured yet), restore, hold (a paused policy), or let go (values stay).
        policy: whose wish it would be.
        fields: what would change, a line each.
        lacking: fields that the node's kernel does not have.
    """

    group: str
    action: str
    policy: str
    fields: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()


class NodePlan(Struct, frozen=True):
    """What would become of a node.

    Attributes:
        outcome: change, same, unsupported, overridden (by whom says `others`), or noAgent.
    """

    node: str
    dialect: str
    outcome: str
    changes: tuple[GroupChange, ...] = ()
    others: tuple[str, ...] = ()


class Plan(Struct, frozen=True):
    """What a policy would do.

    Attributes:
        matched: nodes that it would select.
        would_change: nodes where something would change, those that it would leave among them.
    """

    policy: str
    mode: str
    is_new: bool
    matched: int
    would_change: int
    rollout: str
    nodes: tuple[NodePlan, ...]


class Objects(NamedTuple):
    """What there is."""

    policies: Sequence[PolicyObject]
    nodes: Sequence[NodeObject]
    states: Sequence[PlanState]
    profiles: Profiles = ()


def planned_policy(name: str, spec: Mapping[str, Any], stored: PolicyObject | None, now: str) -> PolicyObject:
    """Return a policy as it would be stored.

    Args:
        name: of it.
        spec: with defaults.
        stored: the one of this name that there is.
        now: timestamp of a new one.
    """
    fresh = {"name": name, "uid": f"{NEW_UID}:{name}", "generation": 1, "creationTimestamp": now}
    metadata = fresh if stored is None else msgspec.to_builtins(stored.metadata)
    return msgspec.convert({"metadata": metadata, "spec": spec}, PolicyObject)


def plan(wanted: PolicyObject, there: Objects) -> Plan:
    """Return what would change if a policy were stored as `wanted`."""
    stored = [policy for policy in there.policies if policy.metadata.name == wanted.metadata.name]
    others = [policy for policy in there.policies if policy.metadata.name != wanted.metadata.name]
    before, after = _matching([*stored, *others], there), _matching([wanted, *others], there)
    states = {state.metadata.name: state for state in there.states}
    found, matched = [], 0
    for node in sorted(there.nodes, key=lambda one: one.metadata.name):
        labels, uid = node.metadata.labels, wanted.metadata.uid
        then = after.resolution(labels)
        selected = any(policy.uid == uid for policy in then.policies)
        matched += selected
        one = _node(states.get(node.metadata.name), before.resolution(labels), then, uid)
        if selected or one.changes:
            found.append(msgspec.structs.replace(one, node=node.metadata.name))
    return Plan(
        policy=wanted.metadata.name,
        mode=wanted.spec.mode,
        is_new=not stored,
        matched=matched,
        would_change=sum(one.outcome == "change" for one in found),
        rollout=_rollout(wanted, found),
        nodes=tuple(found),
    )


def _matching(policies: Iterable[PolicyObject], there: Objects) -> Matching:
    matching = Matching()
    matching.take([policy_facts(_armed(policy), there.profiles) for policy in policies])
    return matching


def _armed(policy: PolicyObject) -> PolicyObject:
    """The finalizer comes by itself, before the first push."""
    return msgspec.structs.replace(
        policy, metadata=msgspec.structs.replace(policy.metadata, finalizers=(RESTORE_FINALIZER,))
    )


def _admitted(policy: PolicyFacts) -> Turn:
    return Turn(Goal(policy.wishes, policy.revision), admitted=True)


def _node(state: PlanState | None, before: Resolution, after: Resolution, uid: str) -> NodePlan:
    if state is None or not state.status.dialect:
        return NodePlan("", "", "noAgent")
    now = observed_spec(state.spec)
    then = render(after, now, frozenset(), _admitted)
    involved = [group for group in SettingsGroup if uid in _owners(group, now, before, after)]
    changes = tuple(
        change
        for group in involved
        if (change := _change(group, now.wish(group), then.wish(group), state.status)) is not None
    )
    others = tuple(dict.fromkeys(loss.winner for loss in after.losses.get(uid, ())))
    return NodePlan("", state.status.dialect, _outcome(changes, after, uid), changes, others)


def _owners(group: SettingsGroup, now: Spec, before: Resolution, after: Resolution) -> set[str]:
    wish = now.wish(group)
    winners = {one.winners[group].uid for one in (before, after) if group in one.winners}
    return winners | ({wish.source.uid} if wish is not None else set())


def _outcome(changes: Sequence[GroupChange], after: Resolution, uid: str) -> str:
    won = after.won.get(uid, ())
    if any(one.action not in {"set", "unsupported"} or one.fields for one in changes):
        return "change"
    if won and sum(one.action == "unsupported" for one in changes) == len(won):
        return "unsupported"
    return "same" if won else "overridden"


def _change(group: SettingsGroup, now: Wish | None, then: Wish | None, status: PlanStatus) -> GroupChange | None:
    if means_same(now, then) or (then is None and now is None):
        return None
    if then is None:
        return GroupChange(group, "let go", now.source.policy if now else "")
    match then.mode:
        case GroupMode.RESTORE:
            return GroupChange(group, "restore", then.source.policy, tuple(_restored(group, status.knobs)))
        case GroupMode.HOLD:
            held = now is None or now.mode is not GroupMode.HOLD
            return GroupChange(group, "hold", then.source.policy) if held else None
        case GroupMode.APPLY:
            if moves_same(now, then) and now is not None and now.mode is then.mode:
                return None
            return _set(group, now, then, status)


def _restored(group: SettingsGroup, knobs: Iterable[KnobView]) -> Iterator[str]:
    for knob in knobs:
        if knob.field.startswith(f"{group}.") and knob.baseline is not None and knob.baseline != knob.observed:
            yield f"{knob.field}: {knob.observed} -> {knob.baseline}"


def _set(group: SettingsGroup, now: Wish | None, then: Wish, status: PlanStatus) -> GroupChange | None:
    knobs, can = {knob.field: knob for knob in status.knobs}, status.capabilities
    before = _fields(group, now, status) if now is not None and now.mode is GroupMode.APPLY else {}
    after = _fields(group, then, status)
    lacking = [field for field in after if can is not None and field not in can.fields]
    lines = [
        f"{field}: {old} -> {value}"
        for field, value in after.items()
        if field not in lacking and (old := _shown(field, before, knobs)) != value
    ]
    lines += [f"{field}: {value} -> no longer set" for field, value in before.items() if field not in after]
    if not (lines or lacking or now is None) and (kept := _kept(now, then)):
        lines.append(f"{group}: {kept}")
    if not lines and not lacking and now is not None:
        return None
    if not after and not lines:
        return GroupChange(group, "measure", then.source.policy)
    action = "set" if len(lacking) < len(after) or not after else "unsupported"
    return GroupChange(group, action, then.source.policy, tuple(lines), tuple(lacking))


def _kept(now: Wish, then: Wish) -> str:
    """What differs where no value does: how settings are kept, or whose they are; empty: those of other classes."""
    fields = ("drift", "unsupported", "verification", "accepted_risks", "mode")
    differing = [field for field in fields if getattr(now, field) != getattr(then, field)]
    if differing:
        return ", ".join(f"{field} {getattr(now, field)} -> {getattr(then, field)}" for field in differing)
    return "" if now.source.uid == then.source.uid else f"taken over from {now.source.policy}"


def _fields(group: SettingsGroup, wish: Wish, status: PlanStatus) -> dict[str, str]:
    settings = settings_here(group, msgspec.json.decode(wish.settings), status.dialect, status.hardware_class)
    return {f"{group}.{field}": text for field, text in flat(settings)}


def _shown(field: str, before: Mapping[str, str], knobs: Mapping[str, KnobView]) -> str:
    knob = knobs.get(field)
    observed = knob.observed if knob is not None else None
    return before.get(field) or observed or "the kernel's"


def _rollout(policy: PolicyObject, nodes: Iterable[NodePlan]) -> str:
    kinds = {one.dialect for one in nodes if one.outcome == "change"}
    rollout, canaries = policy.spec.rollout, plural(policy.spec.rollout.canary.nodes, "node")
    return (
        f"{canaries} of each kind first ({', '.join(sorted(kinds)) or 'none'}), watched for "
        f"{rollout.canary.soak_seconds} s; at most {rollout.max_unproven} unproven at a time"
    )


def stops(control: Control | None) -> list[str]:
    """Return what would keep a plan from the nodes whatever it says; `control` is None when nobody may tell."""
    if control is None:
        return []
    switch = (
        [f"The fleet switch is {control.switch}: nothing new is pushed."] if control.switch != FleetSwitch.RUN else []
    )
    held = (
        [f"{plural(len(control.holds), 'class')} held: offload is turned on nowhere in there."] if control.holds else []
    )
    return switch + held


def lines(found: Plan, *, every_name: bool) -> list[str]:
    """Return a plan for people, nodes that are alike together."""
    verb = "new" if found.is_new else "stored"
    told = [f"{found.policy} ({verb}): would change {found.would_change} of {plural(found.matched, 'matched node')}"]
    if found.mode == PolicyMode.PLAN:
        told.append("  mode: Plan: nothing is written; status.plan will have what the agents say")
    elif found.would_change:
        told.append(f"  rollout: {found.rollout}")
    alike: dict[NodePlan, list[str]] = defaultdict(list)
    for node in found.nodes:
        alike[msgspec.structs.replace(node, node="")].append(node.node)
    for kind, members in sorted(alike.items(), key=lambda one: (one[0].outcome != "change", -len(one[1]))):
        told += ["", *_alike(kind, members, every_name=every_name)]
    return told


def _alike(kind: NodePlan, members: Sequence[str], *, every_name: bool) -> Iterator[str]:
    shown = names(members, len(members) if every_name else NAMES_SHOWN)
    dialect = f" ({kind.dialect})" if kind.dialect else ""
    yield f"  {plural(len(members), 'node')}{dialect}: {_WORDS[kind.outcome]}: {shown}"
    if kind.others:
        yield f"    won by {', '.join(kind.others)}"
    for change in kind.changes:
        if change.action in _ACTIONS:
            yield f"    {change.group}: {_ACTIONS[change.action]}"
        yield from (f"    {line}" for line in change.fields)
        if change.lacking:
            yield f"    not on this kernel: {', '.join(change.lacking)}"


_WORDS: Final = {
    "change": "would change",
    "same": "as asked already",
    "unsupported": "unsupported",
    "overridden": "overridden by another policy",
    "noAgent": "no agent has reported",
}
_ACTIONS: Final = {
    "restore": "the values of before come back",
    "hold": "held as it is",
    "let go": "let go, values stay",
    "measure": "as it is until its hardware class is measured",
}
