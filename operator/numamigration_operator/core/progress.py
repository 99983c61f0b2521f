# SPDX-License-Identifier: Apache-2.0
"""What the rollout of a policy is to one node: whether it is its turn, where it stands, what is said of it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from numamigration_api.machinery.guardrails import Reading, read
from numamigration_api.vocabulary import (
    GroupMode,
    GuardrailMetric,
    NodeBucket,
    OnFailure,
    PolicyMode,
    Reason,
    SettingsGroup,
)
from numamigration_operator.core.classify import ARRIVED, Progress, Verdict
from numamigration_operator.core.course import Course
from numamigration_operator.core.node_facts import NOT_WATCHED, NodeFacts, Part, Watched
from numamigration_operator.core.node_record import NodeRecord
from numamigration_operator.core.objects import Guardrail, Observe, WindowView
from numamigration_operator.core.render import Turn, is_safe_wish
from numamigration_operator.core.resolve import PolicyFacts
from numamigration_operator.core.rollout import Place, Stage
from numamigration_operator.core.wishes import Spec, Wish, moves_same

NO_NUMBERS: Final[Mapping[str, Any]] = {}


def turn_of(node: NodeFacts, part: Part) -> Turn:
    """Return what a policy's rollout says of a node on which it wins something."""
    course, stop = part.course, node.stop
    facts = course.facts
    won = node.resolution.won[facts.uid]
    goal = course.goal(node.cell, won, has_content=_has_content(node.base, facts.uid))
    if goal.wishes is None or stop.holds(goal, won):
        return Turn(goal, stopped=stop.reason is not None)
    free = goal.undoing and part.counted
    admitted = part.admitted and part.joins is (goal.revision != facts.revision)
    return Turn(goal, free or (admitted and (node.ready is True or not watches_readiness(facts))))


def _has_content(spec: Spec, uid: str) -> bool:
    return any(wish.source.uid == uid and wish.mode is not GroupMode.RESTORE for _, wish in spec.groups)


def watches_readiness(policy: PolicyFacts) -> bool:
    """Return whether a policy wants to know of the readiness of its Nodes."""
    return _limit(policy, GuardrailMetric.NODE_NOT_READY) is not None


def _is_held_back(node: NodeFacts, part: Part) -> bool:
    """Return whether a node that has soaked goes on counting, for what its agent does not measure."""
    if not part.counted:
        return False
    facts = part.course.facts
    if node.ready is not True and watches_readiness(facts):
        return True
    ineffective = node.said is not None and node.said.is_ineffective
    return ineffective and _limit(facts, GuardrailMetric.INEFFECTIVE_SHARE) is not None


def is_unproven(node: NodeFacts, part: Part, unproven: Collection[str]) -> bool:
    """Return whether something of a policy on a node counts in its budget; `unproven` has not soaked there."""
    return part.course.facts.uid in unproven or _is_held_back(node, part)


def _limit(policy: PolicyFacts, metric: GuardrailMetric) -> str | None:
    guardrails = policy.rollout.guardrails
    return next((one.max for one in guardrails if one.metric is metric), None) if guardrails else None


def observe_of(policies: Collection[PolicyFacts]) -> Observe | None:
    """Return what an agent shall watch once it has what these policies push: the longest soak, the narrowest limits."""
    rollouts = [policy.rollout for policy in policies]
    if not rollouts:
        return None
    narrowest: dict[GuardrailMetric, Guardrail] = {}
    for guardrail in (one for rollout in rollouts for one in rollout.guardrails):
        known = narrowest.get(guardrail.metric)
        if known is None or float(guardrail.max) < float(known.max):
            narrowest[guardrail.metric] = guardrail
    guardrails = tuple(narrowest[metric] for metric in GuardrailMetric if metric in narrowest)
    return Observe(max(rollout.canary.soak_seconds for rollout in rollouts), guardrails)


def observed(before: Spec, after: Spec, policies: Iterable[PolicyFacts], unproven: Collection[str]) -> Spec:
    """Return `after` with what the agent shall watch: what all policies ask of which something has not soaked there.

    It comes with a push, and follows edits of rollouts where there is such a policy: agent and operator judge by the
    same. Elsewhere it stays as it is, and also where of several policies some have soaked earlier than others.

    Args:
        before: what the spec says, or will say.
        after: what it shall say.
        policies: that select the node, but for those of which it goes back: that does not soak.
        unproven: uids of those of which something in `before` has not soaked.
    """
    there = {wish.source.uid for group, wish in after.groups if not is_safe_wish(group, wish)}
    pushed = {
        wish.source.uid
        for group, wish in after.groups
        if not is_safe_wish(group, wish) and not moves_same(before.wish(group), wish)
    }
    mine = [policy for policy in policies if policy.uid in there]
    soaking = [policy for policy in mine if policy.uid in pushed or policy.uid in unproven]
    stays = not pushed and (not soaking or before.observe == observe_of(mine))
    watched = before.observe if stays else observe_of(soaking)
    return after._replace(observe=watched if after.groups else None)


class Case(NamedTuple):
    """One policy on one node, after it was decided what the node shall have.

    Attributes:
        won: the groups that the policy wins there.
        spec: what the node has, or will have.
        has_revision: the node has what the policy asks for now.
        unproven: something of the policy there counts in its budget, unless the agent is silent.
    """

    node: NodeFacts
    part: Part
    turn: Turn
    won: tuple[SettingsGroup, ...]
    spec: Spec
    has_revision: bool
    unproven: bool

    @property
    def course(self) -> Course:
        """What the policy asks of nodes."""
        return self.part.course

    @property
    def silent(self) -> bool:
        """No report has come for the policy's deadline, whatever bucket the last one leaves the node in."""
        return self.node.silent >= self.course.facts.deadline_seconds

    @property
    def uid(self) -> str:
        """Of the policy."""
        return self.part.course.facts.uid

    @property
    def has_goal(self) -> bool:
        """The node has what it shall have."""
        wishes = self.turn.goal.wishes
        return wishes is not None and all(_has(self._mine(group), wishes.get(group)) for group in self.won)

    def _mine(self, group: SettingsGroup) -> Wish | None:
        """Return what the node has of the policy; what another one left there is none of its goals."""
        wish = self.spec.wish(group)
        return wish if wish is not None and wish.source.uid == self.uid else None


def has_all(spec: Spec, won: Iterable[SettingsGroup], wishes: Mapping[SettingsGroup, Wish]) -> bool:
    """Return whether a spec has what a policy asks for in the groups that it wins."""
    return all(_has(spec.wish(group), wishes[group]) for group in won)


def _has(now: Wish | None, wanted: Wish | None) -> bool:
    if wanted is None:
        return now is None or now.mode is GroupMode.RESTORE
    return now is not None and now.mode is not GroupMode.RESTORE and moves_same(now, wanted)


def is_strange(node: NodeFacts, wanted: Spec, asked: Mapping[str, Mapping[SettingsGroup, Wish]]) -> bool:
    """Return whether a spec that is not what its revision says would be made whole as it is, by nobody's wish.

    Agents leave it alone. Somebody edited it, or the CRD has cut it: content that no rollout has admitted.

    Args:
        node: its spec is not what its revision says.
        wanted: what its spec is to be.
        asked: by uid of the policies that win something there, what they ask of it.
    """
    if node.open_spec is not None or wanted.groups != node.spec.groups:
        return False
    return not all(
        is_safe_wish(group, wish)
        or node.has_soaked(group, wish)
        or moves_same(wish, asked.get(wish.source.uid, {}).get(group))
        for group, wish in wanted.groups
    )


def progress_of(case: Case) -> Progress:
    """Return how far a rollout is on a node."""
    facts = case.course.facts
    if not case.won or facts.mode is PolicyMode.PLAN:
        return ARRIVED
    if case.has_revision:
        return Progress(soaking=True, watched=case.part.watched) if case.unproven else ARRIVED
    if facts.mode is PolicyMode.PAUSED:
        held = _has_content(case.spec, facts.uid)
        return ARRIVED if held else Progress(Reason.PAUSED, "the policy was paused before it came here")
    if case.course.has_failed:
        return Progress(_after_failure(case), case.course.message)
    if case.node.stop.holds(case.turn.goal, case.won):
        return Progress(case.node.stop.reason, case.node.stop.message)
    return Progress(Reason.AWAITING_ROLLOUT, "the rollout has not reached it yet")


def _after_failure(case: Case) -> Reason:
    if case.course.facts.rollout.on_failure is OnFailure.HALT:
        return Reason.ROLLOUT_HALTED
    return Reason.ROLLED_BACK if case.has_goal or case.turn.goal.wishes is None else Reason.ROLLING_BACK


def watched_on(record: NodeRecord, policy: PolicyFacts) -> Watched:
    """Return what guardrails say of a node that has something of a policy that has not soaked.

    What the agent watches for other policies counts too: the numbers are of the node, and while one is crossed there
    no soak ends.
    """
    guardrails, observe = policy.rollout.guardrails, record.base.observe
    others = tuple(one for one in observe.guardrails if one not in guardrails and _is_numbers(one)) if observe else ()
    if not guardrails and not others:
        return NOT_WATCHED
    window = record.report.window if record.report is not None else WindowView()
    told = bool(window.after) and window.revision == record.shown
    before, after = (_numbers(raw) for raw in (window.before, window.after)) if told else (NO_NUMBERS, NO_NUMBERS)
    readings = [(one, _reading(one, record, before, after)) for one in (*guardrails, *others)]
    crossed = (_crossing(*pair) for pair in readings if pair[1].crossed)
    values = tuple(None if one.value is None else float(one.value) for _, one in readings[: len(guardrails)])
    return Watched(next(crossed, ""), values)


def _is_numbers(guardrail: Guardrail) -> bool:
    return guardrail.metric not in {GuardrailMetric.NODE_NOT_READY, GuardrailMetric.INEFFECTIVE_SHARE}


def _reading(guardrail: Guardrail, record: NodeRecord, before: Mapping[str, Any], after: Mapping[str, Any]) -> Reading:
    if guardrail.metric is GuardrailMetric.INEFFECTIVE_SHARE:
        # Engines count folios of unknown size: only pages of the agent's own tell, and then it is none or all.
        ineffective = record.report is not None and record.report.said.is_ineffective
        return Reading("1", crossed=float(guardrail.max) < 1) if ineffective else Reading()
    if guardrail.metric is not GuardrailMetric.NODE_NOT_READY:
        return read(msgspec.to_builtins(guardrail), before, after)
    return Reading() if record.ready is None else Reading("0" if record.ready else "1", crossed=not record.ready)


def _crossing(guardrail: Guardrail, reading: Reading) -> str:
    if guardrail.metric is GuardrailMetric.NODE_NOT_READY:
        return "nodeNotReady: the Node is not ready since it was changed"
    return f"{guardrail.metric} is {reading.value}, and {guardrail.max} is allowed"


def _numbers(raw: msgspec.Raw) -> Mapping[str, Any]:
    numbers = msgspec.json.decode(raw) if raw else NO_NUMBERS
    return numbers if isinstance(numbers, dict) else NO_NUMBERS


def place_of(case: Case, verdict: Verdict, progress: Progress) -> Place:
    """Return where a node stands in a rollout."""
    unproven = case.unproven and not case.silent
    at_revision = bool(case.won) and case.has_revision
    return Place(
        stage=_stage(case, verdict),
        cell=case.node.cell,
        zone=case.node.zone,
        unproven=unproven,
        at_revision=at_revision,
        unreverted=at_revision and not (case.turn.goal.undoing and case.has_goal),
        values=progress.watched.values if unproven else (),
    )


def _stage(case: Case, verdict: Verdict) -> Stage:
    course, goal = case.course, case.turn.goal
    if case.node.cell is None or not case.won or case.silent:
        return Stage.OUT
    if case.has_revision and (goal.wishes is None or goal.revision == course.facts.revision):
        return _outcome(case, verdict)
    if goal.wishes is None or case.has_goal or _is_kept_away(case):
        return Stage.OUT
    return Stage.WAITING if goal.revision == course.facts.revision else Stage.JOINING


def _is_kept_away(case: Case) -> bool:
    node, policy = case.node, case.course.facts
    unready = node.ready is False and watches_readiness(policy)
    cut = bool(node.skew) and not node.try_again
    return not policy.armed or cut or unready or case.turn.stopped


def _has_only_safe_part(case: Case) -> bool:
    """Return whether others win there all that needs canaries of what the policy asks for."""
    wishes = case.course.facts.wishes
    risky = [group for group, wish in wishes.items() if not is_safe_wish(group, wish)]
    return bool(risky) and not any(group in case.won for group in risky)


def _outcome(case: Case, verdict: Verdict) -> Stage:
    if verdict.bucket is NodeBucket.FAILED:
        return Stage.FAILED
    if case.unproven or verdict.bucket is NodeBucket.PENDING:
        return Stage.SETTLING
    if _has_only_safe_part(case):
        return Stage.OUT  # it stands for no node that has the rest
    if verdict.bucket is NodeBucket.READY:
        return Stage.PROVEN
    changed = any(
        case.node.has_soaked(group, wish)
        for group, wish in case.spec.groups
        if group in case.won and not is_safe_wish(group, wish)
    )
    return Stage.PROVEN if changed else Stage.PASSED
