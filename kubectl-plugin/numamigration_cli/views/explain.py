# SPDX-License-Identifier: Apache-2.0
"""One node: each group with its source and who lost it, each knob with what is, what was, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from numamigration_api.machinery.profiles import profile_name
from numamigration_api.vocabulary import NodeCondition, SettingsGroup
from numamigration_cli.objects import Engine, GroupSaid, GroupWish, Knob, NodeView, PlanSaid, Trial
from numamigration_cli.text import Column, since
from numamigration_cli.views.history import flat
from numamigration_cli.views.profiles import settings_here
from numamigration_cli.views.reasons import meaning
from numamigration_operator.core.objects import PolicyObject, Struct
from numamigration_operator.core.resolve import Resolution, policy_facts, resolve
from numamigration_operator.core.selectors import selects

NOTHING_SAID: Final = GroupSaid()
NOT_HERE: Final = GroupWish()


class GroupRow(Struct, frozen=True):
    """A settings group on a node.

    Attributes:
        value: what the node's spec asks for.
        here: the same for the node's own hardware class.
        profile: name of that class's profile, where the spec asks for what is in profiles.
        source: the policy whose wish that is; empty when the spec says nothing of the group.
        mode: Apply, Hold or Restore.
        winner: the policy that wins it by priority; another one than `source` while a rollout has not come here.
        losers: policies that set it too, the strongest first.
    """

    group: str
    value: dict[str, Any]
    source: str
    mode: str
    release: str
    state: str
    reason: str
    message: str
    winner: str
    losers: tuple[str, ...]
    here: Mapping[str, Any]
    profile: str = ""


class Finding(Struct, frozen=True):
    """A condition."""

    type: str
    status: str
    reason: str
    message: str
    since: str


class NodeReport(Struct, frozen=True):
    """Everything that is known of a node.

    Attributes:
        in_force: the report is about the spec as it stands.
        losers_known: policies could be read, and of Nodes the labels.
    """

    node: str
    offload: str
    kernel: str
    dialect: str
    agent: str
    hardware_class: str
    reported: str | None
    in_force: bool
    losers_known: bool
    conditions: tuple[Finding, ...]
    groups: tuple[GroupRow, ...]
    knobs: tuple[Knob, ...]
    engines: tuple[Engine, ...]
    verification: Trial | None
    plans: tuple[PlanSaid, ...]
    unknown_files: tuple[str, ...]


def explain(node: NodeView, labels: Mapping[str, str] | None, policies: Iterable[PolicyObject] | None) -> NodeReport:
    """Return everything that is known of a node.

    Args:
        node: its node state.
        labels: of the Node; None when nobody may tell.
        policies: all of them; None likewise.
    """
    resolution = _resolution(labels, policies)
    said = node.status
    asked = [group for group in SettingsGroup if group in node.spec.groups or _setters(resolution, group)]
    return NodeReport(
        node=node.metadata.name,
        offload=said.offload,
        kernel=said.kernel_release,
        dialect=said.dialect,
        agent=said.agent_version,
        hardware_class=said.hardware_class,
        reported=said.reported_at,
        in_force=bool(node.spec.revision) and said.observed_revision == node.spec.revision,
        losers_known=resolution is not None,
        conditions=tuple(
            Finding(one.type, one.status, one.reason, one.message, one.last_transition_time) for one in said.conditions
        ),
        groups=tuple(_group(node, resolution, group) for group in asked),
        knobs=said.knobs,
        engines=said.dma_engines,
        verification=said.verification,
        plans=said.plans,
        unknown_files=said.unknown_files,
    )


def _resolution(labels: Mapping[str, str] | None, policies: Iterable[PolicyObject] | None) -> Resolution | None:
    if labels is None or policies is None:
        return None
    facts = (policy_facts(policy) for policy in policies)
    return resolve(one for one in facts if selects(one.selector, labels))


def _setters(resolution: Resolution | None, group: SettingsGroup) -> list[str]:
    """Return the policies that want a group on this node, the winner first."""
    if resolution is None or group not in resolution.winners:
        return []
    losers = {uid for uid, losses in resolution.losses.items() if any(loss.group is group for loss in losses)}
    return [resolution.winners[group].name, *(one.name for one in resolution.policies if one.uid in losers)]


def _group(node: NodeView, resolution: Resolution | None, group: SettingsGroup) -> GroupRow:
    wish, said = node.spec.groups.get(group, NOT_HERE), node.status.groups.get(group, NOTHING_SAID)
    winner, *losers = _setters(resolution, group) or [""]
    cell = node.status.dialect, node.status.hardware_class
    return GroupRow(
        group=group,
        value=wish.settings,
        source=wish.source.policy,
        mode=wish.mode,
        release=wish.release,
        state=said.state,
        reason=said.reason,
        message=said.message,
        winner=winner,
        losers=tuple(losers),
        here=settings_here(group, wish.settings, *cell),
        profile=profile_name(*cell) if "profiles" in wish.settings else "",
    )


KNOBS: Final[tuple[Column[Knob], ...]] = (
    Column("KNOB", lambda knob: knob.field),
    Column("DESIRED", lambda knob: knob.desired),
    Column("OBSERVED", lambda knob: knob.observed),
    Column("BASELINE", lambda knob: knob.baseline),
    Column("OUTCOME", lambda knob: knob.outcome),
    Column("FILE", lambda knob: knob.path, wide=True),
    Column("WHY", lambda knob: _why(knob.reason, knob.message)),
)


def _why(reason: str, message: str) -> str:
    return f"{reason}: {message}" if reason and message else reason or message


def head(report: NodeReport, now: datetime) -> list[str]:
    """Return the lines above the groups: is it on, does it work, why not, since when."""
    ready = next((one for one in report.conditions if one.type == NodeCondition.READY), None)
    if ready is None:
        return [f"{report.node}: no agent has reported yet", "  Look at the DaemonSet: kubectl numamigration doctor"]
    age, told = since(ready.since, now), since(report.reported, now)
    lines = [
        f"{report.node}: {report.offload or 'offload unknown'}; Ready {ready.status}, {ready.reason}, for {age}",
        *([f"  {ready.message}"] if ready.message else []),
        f"  {meaning(ready.reason)}",
        f"  kernel {report.kernel or 'unknown'} ({report.dialect or 'no dialect'}), agent {report.agent or 'unknown'}",
        f"  last report {f'{told} ago' if told else 'unknown'}{'' if report.in_force else ', about an earlier spec'}",
        f"  class: {report.hardware_class or 'unknown'}",
    ]
    abnormal = (one for one in report.conditions if one.type in {NodeCondition.DRIFTED, NodeCondition.DEGRADED})
    lines += [f"  {one.type}: {_why(one.reason, one.message)}" for one in abnormal if one.status == "True"]
    lines += [f"  engines: {_engine(one)}" for one in report.engines]
    return lines + _trial(report.verification, now)


def _engine(engine: Engine) -> str:
    where = "" if engine.numa_node is None else f" on NUMA node {engine.numa_node}"
    use = "usable" if engine.usable else f"not usable: {engine.reason or 'the agent does not say why'}"
    return f"{engine.channels} channels of {engine.driver}{where}, {use}"


def _trial(trial: Trial | None, now: datetime) -> list[str]:
    if trial is None:
        return []
    parts = [trial.result, trial.driver, f"{trial.channels} channels" if trial.channels else "", trial.message]
    age = f" {since(trial.at, now)} ago" if trial.at else ""
    return [f"  verification{age}: {', '.join(part for part in parts if part)}"]


def groups(report: NodeReport) -> list[str]:
    """Return the lines that tell of each group."""
    lines: list[str] = []
    for row in report.groups:
        lines += ["", *_group_lines(row)]
    if not report.groups:
        lines += ["", "No policy sets anything here."]
    if not report.losers_known:
        lines += ["", "Who lost a group is not known: policies, or the Node's labels, may not be read."]
    return lines


def _group_lines(row: GroupRow) -> list[str]:
    if not row.source:
        return [f"{row.group}: {row.winner} wins it, and its rollout has not come here yet", *_losers(row.losers)]
    state = f"{row.state}, {row.reason}" if row.state else "not reported yet"
    value = ", ".join(f"{field} {text}" for field, text in flat(row.here))
    waiting = row.winner and row.winner != row.source
    return [
        f"{row.group}: {state}" + (f": {row.message}" if row.message else ""),
        f"  value:  {value or 'nothing'}",
        *([f"  tuned:  kubectl numamigration profiles {row.profile}"] if row.profile else []),
        f"  source: {row.source}, {row.mode}; when that ends: {row.release}",
        *([f"  wins:   {row.winner}, whose rollout has not come here yet"] if waiting else []),
        *_losers(row.losers),
    ]


def _losers(losers: Sequence[str]) -> list[str]:
    return [f"  losers: {', '.join(losers)}"] if losers else []


def foot(report: NodeReport) -> list[str]:
    """Return the lines below the knobs."""
    lines = [f"Plan of {one.policy}: {one.state}: {_why(one.reason, one.message)}" for one in report.plans]
    lines += [f"Not known to this release, never written: {file}" for file in report.unknown_files]
    return ["", *lines] if lines else []
