# SPDX-License-Identifier: Apache-2.0
"""What a policy asks of nodes while nothing of it moves: its revision, where that failed, and what cells shall have.

It follows from the policy, its stored revisions and the word of its status alone, and never changes: one that moved is
another one. So what was decided by it for one node holds for all nodes that are alike, as long as it stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from numamigration_api.machinery.conditions import shorten
from numamigration_api.vocabulary import CellVerdict, OnFailure, PolicyMode, SettingsGroup
from numamigration_operator.core.resolve import PolicyFacts
from numamigration_operator.core.revisions import Cell, CellRecord, Revision, wishes_of
from numamigration_operator.core.wishes import Wish, moves_same


class Goal(NamedTuple):
    """What a node shall have of a policy.

    Attributes:
        wishes: by group; None: what is there stays.
        revision: of these wishes.
        soak: whether they are watched.
        undoing: they are what was there before the revision that failed.
    """

    wishes: Mapping[SettingsGroup, Wish] | None
    revision: str = ""
    soak: bool = True
    undoing: bool = False

    def __hash__(self) -> int:
        """By the wishes as an object, which nodes share."""
        return hash((id(self.wishes), self.revision))


KEEP: Final = Goal(None)


class Grounds(NamedTuple):
    """All that a course follows from.

    Attributes:
        revisions: those that are stored.
        told_failed: the status says that the policy's revision failed, and nobody has edited the policy since.
        history_known: the stored revisions were listed.
    """

    facts: PolicyFacts
    revisions: tuple[Revision, ...] = ()
    told_failed: bool = False
    history_known: bool = False


class Course:
    """What a policy asks of nodes. Equal to itself only, which is what keeps answers by it apart.

    Attributes:
        grounds: what it follows from.
        facts: the policy.
        current: the stored revision that the policy asks for.
        failures: where that failed, since the policy was last edited.
        has_failed: it failed, and nobody has edited the policy since; the status counts too, for revisions that
            somebody deleted.
        message: why it stands where it stands; empty when there is nothing to say.
    """

    __slots__ = (
        "_goals",
        "_history_known",
        "_revisions",
        "current",
        "facts",
        "failures",
        "grounds",
        "has_failed",
        "message",
    )

    def __init__(self, grounds: Grounds) -> None:
        self.grounds = grounds
        self.facts, self._revisions, told_failed, self._history_known = grounds
        facts = self.facts
        self.current = next((one for one in self._revisions if one.id == facts.revision), None)
        records = self.current.cells.values() if self.current is not None else ()
        self.failures: tuple[CellRecord, ...] = tuple(
            one for one in records if one.verdict is CellVerdict.FAILED and one.generation >= facts.generation
        )
        self.has_failed = bool(self.failures) or told_failed
        self.message = shorten("; ".join(sorted({one.message for one in self.failures if one.message})))
        self._goals: dict[tuple[Cell, tuple[SettingsGroup, ...], bool], Goal] = {}

    @property
    def cause(self) -> str:
        """Why the policy's revision failed, in three words; empty while it has not."""
        return min((f"{one.reason} on {one.dialect}" for one in self.failures if one.reason), default="")

    def is_proven(self, cell: Cell) -> bool:
        """Return whether the policy's revision went well in a cell."""
        return self.current is not None and self.current.is_proven(cell)

    def way_back(self, cell: Cell) -> Revision | None:
        """Return the last revision that went well in a cell, other than the policy's own."""
        others = (one for one in self._revisions if one.id != self.facts.revision and one.is_proven(cell))
        return max(filter(went_well, others), key=lambda one: one.number, default=None)

    def goal(self, cell: Cell | None, won: tuple[SettingsGroup, ...], *, has_content: bool) -> Goal:
        """Return what a node of a cell shall have.

        Args:
            cell: where it is.
            won: the groups that the policy wins there.
            has_content: it has something of this policy.
        """
        if self.facts.mode is not PolicyMode.APPLY or cell is None:
            return KEEP
        if not self._history_known:  # nobody can tell yet where to go back to; nothing unsafe is admitted
            return KEEP if self.has_failed else Goal(self.facts.wishes, self.facts.revision)
        key = (cell, won, has_content)
        known = self._goals.get(key)
        if known is None:
            known = self._goals[key] = self._goal(cell, won, has_content=has_content)
        return known

    def _goal(self, cell: Cell, won: tuple[SettingsGroup, ...], *, has_content: bool) -> Goal:
        if self.has_failed:
            return self._goal_after_failure(cell, won, has_content=has_content)
        back = None if has_content or self.is_proven(cell) else self.way_back(cell)
        if back is not None and back.is_complete(cell):
            wishes = wishes_of(back.content, self.facts.source)
            if not wishes.keys().isdisjoint(won):  # else it would have nothing, and never be a canary
                return Goal(wishes, back.id)
        return Goal(self.facts.wishes, self.facts.revision)

    def _goal_after_failure(self, cell: Cell, won: tuple[SettingsGroup, ...], *, has_content: bool) -> Goal:
        halts = self.facts.rollout.on_failure is OnFailure.HALT
        if has_content and halts:
            return KEEP
        back = self.way_back(cell)
        if back is None:
            return Goal({}, undoing=True) if has_content else KEEP
        wishes = wishes_of(back.content, self.facts.source)
        if halts and all(moves_same(wishes.get(group), self.facts.wishes.get(group)) for group in won):
            return KEEP  # halted is what failed, whichever revision asks for it
        return Goal(wishes, back.id, soak=not has_content, undoing=has_content)


def went_well(revision: Revision) -> bool:
    """Return whether a revision was proven somewhere, and failed nowhere."""
    return bool(revision.cells) and all(one.verdict is CellVerdict.PROVEN for one in revision.cells.values())
