# SPDX-License-Identifier: Apache-2.0
"""Policies: is it on, where does it not work, why, since when, and how to undo it."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final

from numamigration_api.vocabulary import FleetSwitch, PolicyCondition, PolicyMode, Reason
from numamigration_cli.objects import PolicyView
from numamigration_cli.text import Column, names, plural, since
from numamigration_cli.views.reasons import meaning
from numamigration_operator.core.class_hold import Hold, read_hold
from numamigration_operator.core.fleet_switch import Control
from numamigration_operator.core.objects import NodeCounts, Overlays, RolloutView, Struct, WorstNode

BARS: Final = "▁▂▃▄▅▆▇█"
BAR_COLUMNS: Final = 20
WATCHED_COLUMNS: Final = 8
WATCHED_NAME_COLUMNS: Final = 16
"""Of a policy's name where there is no room: what moves is what one watches."""
History = defaultdict[str, deque[float]]
"""Folios a second at the last looks, by policy."""
QUIET: Final = frozenset({Reason.AS_EXPECTED, Reason.APPLYING, Reason.SOAKING, Reason.NO_NODES_MATCHED})
"""Reasons of policies that need no word of explanation."""
CALM: Final = frozenset({PolicyCondition.READY, PolicyCondition.RECONCILING})
"""Conditions that the first line tells already."""


class PolicyRow(Struct, frozen=True, omit_defaults=True):
    """A policy.

    Attributes:
        since: when `ready` became what it is.
        summary: of its nodes, in a line.
        meaning: of the reason, and what to do.
        undo: the command that undoes it.
    """

    policy: str
    ready: str
    reason: str
    since: str
    summary: str
    mode: str
    priority: int
    message: str
    meaning: str
    undo: str
    nodes: NodeCounts | None = None
    overlays: Overlays | None = None
    rollout: RolloutView | None = None
    folios_per_second: str | None = None
    folios_migrated: int | None = None
    folios_failed: int | None = None
    groups: tuple[str, ...] = ()
    worst_nodes: tuple[WorstNode, ...] = ()
    conflicts: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()


class HeldClass(Struct, frozen=True):
    """A class that is held, and how to end that."""

    key: str
    hardware_class: str
    dialect: str
    driver: str
    node: str
    release: str


class Status(Struct, frozen=True):
    """The fleet switch, the held classes, and the policies.

    Attributes:
        fleet: where the switch stands; ``unknown`` when it may not be read.
        problem: why nobody can understand the switch.
    """

    fleet: str
    problem: str
    held: tuple[HeldClass, ...]
    policies: tuple[PolicyRow, ...]


def status(policies: Iterable[PolicyView], control: Control | None) -> Status:
    """Return what is shown of policies; `control` is None when the ConfigMap may not be read."""
    held = () if control is None else tuple(_held(key, text) for key, text in control.holds)
    return Status(
        fleet="unknown" if control is None else control.switch,
        problem="the control ConfigMap may not be read" if control is None else control.problem,
        held=held,
        policies=tuple(policy_row(policy) for policy in sorted(policies, key=lambda one: one.metadata.name)),
    )


def policy_row(policy: PolicyView) -> PolicyRow:
    """Return what is shown of one policy."""
    ready, said, totals = policy.condition(PolicyCondition.READY), policy.status, policy.status.statistics
    name, reason = policy.metadata.name, ready.reason if ready else ""
    return PolicyRow(
        policy=name,
        ready=ready.status if ready else "Unknown",
        reason=reason or "NotSeen",
        since=ready.last_transition_time if ready else policy.metadata.creation_timestamp,
        summary=said.summary or "no operator has seen it yet",
        mode=policy.spec.mode,
        priority=policy.spec.priority,
        message=ready.message if ready else "",
        meaning=meaning(reason) if reason else "No operator has written its status. Look: kubectl numamigration doctor",
        undo=undo(name, policy.spec.mode, said.rollout),
        nodes=said.nodes,
        overlays=said.overlays,
        rollout=said.rollout,
        folios_per_second=totals.folios_per_second if totals else None,
        folios_migrated=totals.folios_migrated if totals else None,
        folios_failed=totals.folios_failed if totals else None,
        groups=tuple(policy.spec.settings),
        worst_nodes=said.worst_nodes,
        conflicts=tuple(f"{one.group}: {one.winner} wins on {plural(one.nodes, 'node')}" for one in said.conflicts),
        conditions=tuple(_abnormal(policy)),
    )


def _abnormal(policy: PolicyView) -> Iterator[str]:
    for kind in PolicyCondition:
        found = policy.condition(kind)
        if found is not None and found.status == "True" and kind not in CALM:
            yield f"{kind}: {found.reason}" + (f": {found.message}" if found.message else "")


def undo(name: str, mode: str, rollout: RolloutView | None) -> str:
    """Return the command by which a person undoes most of what a policy does now."""
    if mode == PolicyMode.PAUSED:
        return f"kubectl numamigration resume {name}"
    if rollout is not None and rollout.proven_revision and rollout.proven_revision != rollout.revision:
        return f"kubectl numamigration rollback {name}"
    return f"kubectl numamigration pause {name}"


def _held(key: str, text: str) -> HeldClass:
    hold = read_hold(text) or Hold(hardware_class="cannot be understood", dialect="", driver="")
    digits = key.rpartition(".")[2]
    release = f"kubectl numamigration release-hold {digits}"
    return HeldClass(key, hold.hardware_class, hold.dialect, hold.driver, hold.node, release)


def table(now: datetime) -> tuple[Column[PolicyRow], ...]:
    """Return the columns of policies."""
    return (
        Column("POLICY", lambda row: row.policy),
        Column("READY", lambda row: row.ready),
        Column("REASON", lambda row: row.reason),
        Column("SINCE", lambda row: since(row.since, now)),
        Column("WAVE", lambda row: wave(row.rollout), wide=True),
        Column("NODES", lambda row: row.summary),
        Column("MODE", lambda row: row.mode, wide=True),
        Column("PRIORITY", lambda row: row.priority, wide=True),
        Column("FOLIOS/S", lambda row: row.folios_per_second, wide=True),
        Column("MESSAGE", lambda row: row.message, wide=True),
    )


def watched(now: datetime, history: Mapping[str, Iterable[float]]) -> tuple[Column[PolicyRow], ...]:
    """Return the columns of ``--watch``: bars for waves, and folios a second over the last looks, by policy."""
    return (
        Column("POLICY", lambda row: row.policy, least=WATCHED_NAME_COLUMNS),
        Column("READY", lambda row: row.ready),
        Column("REASON", lambda row: row.reason),
        Column("SINCE", lambda row: since(row.since, now)),
        Column("WAVES", lambda row: _waves(row.rollout)),
        Column("FOLIOS/S", lambda row: _rate(row.folios_per_second, history.get(row.policy, ()))),
        Column("NODES", lambda row: row.summary),
    )


def _waves(rollout: RolloutView | None) -> str:
    number = wave(rollout)
    return f"{bar(rollout.wave or 0, rollout.waves or 0, WATCHED_COLUMNS)} {number}" if rollout and number else ""


def _rate(now: str | None, history: Iterable[float]) -> str:
    return "" if now is None else f"{sparkline(history, WATCHED_COLUMNS)} {now}".strip()


def wave(rollout: RolloutView | None) -> str:
    """Return ``3/7``; empty when nothing is under way."""
    return f"{rollout.wave}/{rollout.waves}" if rollout is not None and rollout.wave and rollout.waves else ""


def above(found: Status) -> list[str]:
    """Return the lines above the table: what holds for the whole fleet."""
    lines = [f"Fleet switch: {found.fleet}" + (f" ({found.problem})" if found.problem else "")]
    if found.fleet not in {FleetSwitch.RUN, "unknown"}:
        lines.append("  back to normal: kubectl numamigration stop run")
    for hold in found.held:
        lines.append(
            f"Held class: {hold.driver} on {hold.hardware_class}, {hold.dialect}: corrupted pages on {hold.node}"
        )
        lines.append(f"  once the engine is replaced: {hold.release}")
    return lines


def below(found: Status) -> list[str]:
    """Return the lines below the table: of each policy that needs a word, what, why, and what to do."""
    lines: list[str] = []
    for row in found.policies:
        if row.reason not in QUIET:
            message = row.rollout.message if row.rollout is not None and row.rollout.message else row.message
            lines += ["", f"{row.policy}: {row.reason}" + (f": {message}" if message else "")]
            lines += [f"  {row.meaning}", f"  undo: {row.undo}"]
    return lines


def details(row: PolicyRow, now: datetime) -> list[str]:
    """Return everything that is known of one policy, for people."""
    age = since(row.since, now)
    lines = [
        f"{row.policy}: {row.summary}",
        f"  Ready {row.ready}, {row.reason}" + (f", for {age}" if age else "") + f", mode {row.mode}",
        *([f"  {row.message}"] if row.message else []),
        f"  {row.meaning}",
        f"  sets: {', '.join(row.groups) or 'nothing'}; priority {row.priority}",
        f"  undo: {row.undo}",
    ]
    lines += [f"  {condition}" for condition in row.conditions]
    lines += [f"  lost {conflict}" for conflict in row.conflicts]
    lines += _rollout(row.rollout)
    lines += _counts(row.nodes, row.overlays)
    lines += _traffic(row)
    if row.worst_nodes:
        lines += ["", "Worst nodes:"]
        lines += [f"  {one.node}: {one.state}: {one.reason}: {one.message}".rstrip(": ") for one in row.worst_nodes]
        lines += ["  more of one: kubectl numamigration explain NODE"]
    return lines


def _rollout(rollout: RolloutView | None) -> list[str]:
    if rollout is None or rollout.phase is None:
        return []
    done, total = rollout.wave or 0, rollout.waves or 0
    number = f" wave {wave(rollout)} {bar(done, total)}" if wave(rollout) else ""
    lines = ["", f"Rollout: {rollout.phase}{number}, revision {rollout.revision}"]
    if rollout.message:
        lines.append(f"  {rollout.message}")
    if rollout.reserved:
        lines.append(f"  being changed: {names(rollout.reserved)}")
    return lines


def _counts(nodes: NodeCounts | None, overlays: Overlays | None) -> list[str]:
    if nodes is None:
        return []
    counts = [(word, getattr(nodes, word)) for word in reversed(NodeCounts.__struct_fields__) if word != "matched"]
    lines = ["", f"Nodes: {nodes.matched}"]
    lines += [f"  {word:<12} {count:>6}  {bar(count, nodes.matched)}" for word, count in counts if count]
    if overlays is not None and (overlays.drifted or overlays.unproven):
        lines.append(f"  of these {overlays.unproven} unproven, {overlays.drifted} drifted")
    return lines


def _traffic(row: PolicyRow) -> list[str]:
    if row.folios_migrated is None:
        return []
    failed = "" if row.folios_failed is None else f", {row.folios_failed} failed"
    rate = "" if row.folios_per_second is None else f", {row.folios_per_second} a second"
    return ["", f"Folios: {row.folios_migrated} copied by engines{failed}{rate}"]


def bar(done: float, total: float, size: int = BAR_COLUMNS) -> str:
    """Return a bar; something that is not nothing shows at least one block."""
    if total <= 0 or done <= 0:
        return "░" * size
    full = min(size, max(1, int(size * done / total)))
    return "█" * full + "░" * (size - full)


def sparkline(values: Iterable[float], size: int = BAR_COLUMNS) -> str:
    """Return the last `size` values as one line of blocks, from zero to the largest."""
    shown = list(values)[-size:]
    most = max(shown, default=0.0)
    return "".join(BARS[0 if most <= 0 else round((len(BARS) - 1) * max(0.0, one) / most)] for one in shown)
