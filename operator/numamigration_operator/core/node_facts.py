# SPDX-License-Identifier: Apache-2.0
"""A node as decisions need it: plain values from which alone follows what it shall have and how it counts.

Thousands of nodes are alike in all of them, and what was decided for one holds for all (``core.outlook``). So nothing
here is one node's own: no name, no number that moves, no time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from numamigration_api.vocabulary import (
    ConditionStatus,
    FleetSwitch,
    GroupMode,
    GroupState,
    NodeCondition,
    Reason,
    SettingsGroup,
)
from numamigration_operator.core.course import Course, Goal
from numamigration_operator.core.objects import (
    GroupResult,
    PlanView,
    StateStatus,
    Statistics,
    VerificationView,
    WindowView,
)
from numamigration_operator.core.render import is_safe_wish
from numamigration_operator.core.resolve import NOTHING_WISHED, Resolution
from numamigration_operator.core.revisions import Cell
from numamigration_operator.core.wishes import GROUPS, Spec, Wish, does_same, moving_revision

UNCHANGED: Final = frozenset({GroupState.REFUSED, GroupState.UNSUPPORTED})
RESTORE_DONE: Final = frozenset({GroupState.RESTORED, GroupState.UNSUPPORTED})  # no such files, nothing to put back
ANSWERS_CACHED: Final = 1024

Share = Callable[[tuple[SettingsGroup, GroupResult]], tuple[SettingsGroup, GroupResult]]


class Said(NamedTuple):
    """What an agent says of what it was asked for."""

    groups: tuple[tuple[SettingsGroup, GroupResult], ...] = ()
    plans: tuple[PlanView, ...] = ()
    drifted: bool = False

    def group(self, group: SettingsGroup) -> GroupResult | None:
        """Return the result of one group, or None."""
        for name, result in self.groups:
            if name is group:
                return result
        return None

    def has_soaked(self, group: SettingsGroup, wish: Wish) -> bool:
        """Return whether a wish was in force for as long as was asked for."""
        result = self.group(group)
        return result is not None and result.soaked_revision == moving_revision(wish)

    @property
    def is_ineffective(self) -> bool:
        """Offload is in force, and does nothing."""
        result = self.group(SettingsGroup.OFFLOAD)
        return result is not None and result.reason is Reason.OFFLOAD_INEFFECTIVE


NOTHING_SAID: Final = Said()


class Report(NamedTuple):
    """What an agent said last, as far as it counts."""

    observed_generation: int
    observed_revision: str | None
    said: Said
    statistics: Statistics
    verification: VerificationView
    window: WindowView

    def tells_the_same(self, status: StateStatus) -> bool:
        """Return whether a status says the same, numbers aside; nothing is made of it for that."""
        said = self.said
        return (
            status.observed_revision == self.observed_revision
            and status.observed_generation == self.observed_generation
            and (status.reported_at is not None or status.observed_revision is not None)
            and dict(said.groups) == status.groups
            and status.window == self.window
            and status.verification == self.verification
            and status.plans == said.plans
            and is_drifted(status) == said.drifted
        )


def report_of(status: StateStatus, share: Share = lambda result: result) -> Report | None:
    """Return what the agent says, with results that nodes share; None when it never spoke."""
    if status.reported_at is None and status.observed_revision is None:
        return None
    groups = status.groups
    return Report(
        observed_generation=status.observed_generation,
        observed_revision=status.observed_revision,
        said=Said(
            tuple([share((group, groups[group])) for group in GROUPS if group in groups]),
            status.plans,
            is_drifted(status),
        ),
        statistics=status.statistics,
        verification=status.verification,
        window=status.window.copy(),
    )


def is_drifted(status: StateStatus) -> bool:
    """Return whether the agent says that somebody else changed a knob."""
    return any(one.type == NodeCondition.DRIFTED and one.status == ConditionStatus.TRUE for one in status.conditions)


class Stop(NamedTuple):
    """What keeps new pushes from a node.

    Attributes:
        reason: why; None when nothing does.
        message: more of it.
        offload_only: other groups are pushed.
    """

    reason: Reason | None = None
    message: str = ""
    offload_only: bool = False

    def holds(self, goal: Goal, won: Collection[SettingsGroup]) -> bool:
        """Return whether it keeps a goal from a node where these groups are won."""
        if self.reason is None or goal.wishes is None:
            return False
        held = (SettingsGroup.OFFLOAD,) if self.offload_only else won
        return any(group in won and not is_safe_wish(group, goal.wishes.get(group)) for group in held)


GO_ON: Final = Stop()


class Watched(NamedTuple):
    """What the guardrails of a policy say of a node.

    Attributes:
        tripped: which one was crossed; empty when none was.
        values: what they watch, in their order; None where nobody knows. Empty: nothing is watched.
    """

    tripped: str = ""
    values: tuple[float | None, ...] = ()


NOT_WATCHED: Final = Watched()


class Part(NamedTuple):
    """One policy's part in a node: it wins something there, or has something there.

    Attributes:
        course: what it asks for.
        admitted: its rollout lets the node be pushed now.
        joins: that is for what its cell has proven before, and not for the policy's own revision.
        counted: the node is in its budget so far.
        watched: what its guardrails say, as long as something of it has not soaked there.
    """

    course: Course
    admitted: bool = False
    joins: bool = False
    counted: bool = False
    watched: Watched = NOT_WATCHED


class NodeFacts(NamedTuple):
    """What is known of a node.

    Attributes:
        selected: the operator gives it a node state.
        resolution: who wins what.
        spec: what its spec says.
        open_spec: what it will say; None when nothing is on its way.
        rivals: what other sources may have there in its place.
        reported: the spec that the report is about, as far as it stands; None while that is not known.
        said: what the report says; None when no agent ever spoke.
        confirmed: the report is about the spec as it was shown last.
        silent: the longest deadline of a policy that the agent's silence has passed, seconds; 0 for none.
        skew: why the CRD could not hold the spec as it was decided; empty when it could.
        try_again: it is to be written once more, whole.
        cell: where it belongs; None while its agent has not told.
        zone: of its Node.
        ready: its Node's Ready condition; None when nobody has asked lately.
        switch: where the fleet switch stands.
        stop: what keeps pushes from it.
        verify_epoch: with which it shall verify.
        class_held: its class is held, and it has not to verify anew first: nothing is turned on there.
        parts: of the policies that win something there, in the order of ``resolution.won``, and then of others that
            have something there.
    """

    selected: bool = True
    resolution: Resolution = NOTHING_WISHED
    spec: Spec = Spec()
    open_spec: Spec | None = None
    rivals: Spec = Spec()
    reported: Spec | None = None
    said: Said | None = None
    confirmed: bool = False
    silent: int = 0
    skew: str = ""
    try_again: bool = False
    cell: Cell | None = None
    zone: str = ""
    ready: bool | None = None
    switch: FleetSwitch = FleetSwitch.RUN
    stop: Stop = GO_ON
    verify_epoch: int = 0
    class_held: bool = False
    parts: tuple[Part, ...] = ()

    @property
    def kept_off(self) -> bool:
        """The hold of its class keeps offload off there, whether it pauses it or a person did."""
        return self.class_held or self.stop.offload_only

    @property
    def unproven(self) -> frozenset[str]:
        """The uids of policies of which something has not soaked there."""
        return unproven_sources(self.spec, self.open_spec, self.reported, self.said, kept_off=self.kept_off)

    @property
    def base(self) -> Spec:
        """What the spec says, or will say once the open write is through."""
        return self.spec if self.open_spec is None else self.open_spec

    @property
    def restored(self) -> frozenset[SettingsGroup]:
        """Groups whose restore the agent confirmed; none while a write is open or the report is about another spec.

        The generation counts here, not the revision: a node that is restored, pushed and restored again has the same
        revision twice, and the first report must not end the second restore.
        """
        if self.said is None or self.open_spec is not None or not self.confirmed:
            return frozenset()
        return frozenset([group for group, result in self.said.groups if result.state in RESTORE_DONE])

    def has_soaked(self, group: SettingsGroup, wish: Wish) -> bool:
        """Return whether a wish was in force here for as long as was asked for."""
        return self.said is not None and self.said.has_soaked(group, wish)


@lru_cache(maxsize=ANSWERS_CACHED)
def unproven_sources(
    spec: Spec, open_spec: Spec | None, reported: Spec | None, said: Said | None, *, kept_off: bool
) -> frozenset[str]:
    """Return the uids of policies that have something on a node, shown or on its way, that has not soaked.

    What is held where the hold of a class keeps offload off (`kept_off`) goes on counting: it comes back by itself.
    """
    wishes = spec.groups if open_spec is None else (*spec.groups, *open_spec.groups)
    return frozenset(
        wish.source.uid
        for group, wish in wishes
        if not is_safe_wish(group, _resumed(wish) if kept_off else wish)
        and not _is_settled(group, wish, reported, said)
    )


def _resumed(wish: Wish) -> Wish:
    return msgspec.structs.replace(wish, mode=GroupMode.APPLY) if wish.mode is GroupMode.HOLD else wish


def _is_settled(group: SettingsGroup, wish: Wish, reported: Spec | None, said: Said | None) -> bool:
    """Return whether a wish has soaked, or the agent let it be without a change."""
    result = said.group(group) if said is not None else None
    if said is None or result is None or said.has_soaked(group, wish):
        return result is not None
    about = reported is not None and does_same(reported.wish(group), wish)
    return about and result.state in UNCHANGED
