# SPDX-License-Identifier: Apache-2.0
"""The rollout of one policy: its revisions, where its nodes stand, and the ledger in its status.

The ledger is what leaders promise each other (docs/decisions/0025):

* `reserved` names the nodes that may be pushed; it is written before any of them is, and only onto the status that it
  was decided from (``metadata.resourceVersion``). A node counts from there until it is proven.
* A node is admitted when the stored ledger of this leader names it, and none that is on its way drops it.
* A name stays until its push is seen, so a crash in between leaves nobody uncounted.
* Names are good for the budget by which they were reserved: after an edit of it nobody is pushed before a ledger is
  stored that was decided by the new one.
* A name is good for the revision for which it was reserved: who was to join what its cell has proven before is no
  canary of the policy's own.
* Where the whole fleet may be unproven at once, names bound nothing: above so many there is a star in their place.
  One that a predecessor left stands for any node: by a smaller budget nobody is reserved before all are closed to it.
* A new leader claims the ledger first, and carries over what it finds there; then all nodes are listed once more, and
  the carried ones written once more: so nothing that its predecessor sent is unseen or can still arrive.

A failed revision is said on its ControllerRevision before anything is done about it; else the nodes that went back
would look like nodes that wait for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from numamigration_api.machinery.clock import seconds_since, timestamp
from numamigration_api.machinery.conditions import shorten
from numamigration_api.vocabulary import (
    RESERVED_MAX,
    CellVerdict,
    OnFailure,
    PolicyMode,
    RolloutPhase,
)
from numamigration_operator.core.course import Course, Grounds, went_well
from numamigration_operator.core.decisions import Write
from numamigration_operator.core.objects import RolloutView, is_older
from numamigration_operator.core.resolve import PolicyFacts
from numamigration_operator.core.revisions import (
    Cell,
    CellRecord,
    Revision,
    deletion_write,
    expendable,
    name_of,
    revision_write,
)
from numamigration_operator.core.rollout import (
    Book,
    Failure,
    Turn,
    anew,
    budget,
    judge,
    next_nodes,
    proven_cells,
    waves_of,
)

NAMES_BYTES_MAX: Final = 128 * 44  # of all names in the ledger; with the rest a status stays below 20 kB (promise 12)
NAME_BYTES: Final = 3  # quotes and comma
WHOLE_FLEET: Final = "100%"
"""As maxUnproven: whoever is pushed, no more are unproven than may be."""
NAMELESS: Final = "*"
"""In place of more names than there is room for, where the whole fleet may be unproven: no node's name."""
FAILED_PHASES: Final = frozenset({RolloutPhase.HALTED, RolloutPhase.ROLLING_BACK, RolloutPhase.ROLLED_BACK})


class Ledger(NamedTuple):
    """The part of a policy's status that other leaders go by."""

    revision: str = ""
    generation: int = 0
    cursor: int = 0
    reserved: tuple[str, ...] = ()
    carried: tuple[str, ...] = ()
    started_at: str = ""

    @property
    def names(self) -> frozenset[str]:
        """All nodes that count because they are named."""
        return frozenset((*self.reserved, *self.carried)) - {NAMELESS}


NO_LEDGER: Final = Ledger()


def ledger_of(view: RolloutView | None) -> Ledger:
    """Return the ledger in a status."""
    if view is None:
        return Ledger()
    return Ledger(
        view.revision or "",
        view.generation or 0,
        view.cursor or 0,
        view.reserved,
        view.carried,
        view.started_at or "",
    )


class Stand(NamedTuple):
    """What `PolicyRollout.next_ledger` has to know of the rest of the fleet.

    Attributes:
        matched: nodes that the policy selects.
        may_reserve: nothing stops the fleet.
        is_open: whether a write of a node is on its way.
        is_waiting: whether a node still has to be pushed.
        is_fenced: whether nothing of an earlier leader can arrive at a node any more; of NAMELESS, at any node.
    """

    matched: int
    may_reserve: bool
    is_open: Callable[[str], bool]
    is_waiting: Callable[[str], bool]
    is_fenced: Callable[[str], bool]


class PolicyRollout:
    """The rollout of one policy.

    Attributes:
        course: what it asks of nodes; another one once something of it has moved.
        book: where its nodes stand.
        revisions: those that are stored, by name.
        ledger: the stored one.
        claimed: the stored ledger carries this leader's epoch.
        fresh: all nodes were listed after it was claimed.
        history_known: the stored revisions were listed.
        phase_stored: what the status says of the phase.
    """

    __slots__ = (
        "_begun",
        "_bound",
        "_chosen",
        "_granted",
        "_joining",
        "_judged_at",
        "_looked_at",
        "_looked_for",
        "_open_bound",
        "_open_ledger",
        "_open_onto",
        "_open_revisions",
        "_pushed",
        "_reserve_seconds",
        "_reserved",
        "_to_join",
        "book",
        "claimed",
        "course",
        "facts",
        "fresh",
        "history_known",
        "ledger",
        "phase_stored",
        "revisions",
    )

    def __init__(self, facts: PolicyFacts, reserve_seconds: float) -> None:
        self._reserve_seconds = reserve_seconds
        self.book = Book()
        self.revisions: dict[str, Revision] = {}
        self.ledger = Ledger()
        self.claimed = self.fresh = self.history_known = False
        self.phase_stored = ""
        self.course = Course(Grounds(facts))
        self.take_policy(facts)
        self._open_ledger: Ledger | None = None
        self._open_onto = ""
        self._bound = self._open_bound = facts.rollout.max_unproven  # by which the ledger was decided
        self._open_revisions: dict[str, Revision] = {}
        self._reserved: frozenset[str] = frozenset()
        self._pushed: set[str] = set()
        self._chosen: frozenset[str] = frozenset()
        self._joining: frozenset[str] = frozenset()  # of those that are reserved
        self._to_join: frozenset[str] = frozenset()  # of those that are chosen
        self._granted: frozenset[str] = frozenset()
        self._looked_at = -math.inf
        self._looked_for: Course | None = None
        self._begun = ("", -math.inf)  # the rollback: as its record says, and in monotonic seconds

    def take_policy(self, facts: PolicyFacts) -> None:
        """Take in the policy as it is now."""
        self.facts = facts
        self._moved()

    def _moved(self) -> None:
        """Take in that policy, ledger or revisions may have moved; what was made of them stands unless they did."""
        ledger, facts = self.ledger, self.facts
        same = ledger.revision == facts.revision and ledger.generation == facts.generation
        told_failed = same and self.phase_stored in FAILED_PHASES
        grounds = Grounds(facts, tuple(self.revisions.values()), told_failed, self.history_known)
        if grounds != self.course.grounds:
            self.course = Course(grounds)
        self._judged_at: tuple[int, int] | None = None  # version of the book, and matched nodes

    # What the API server shows

    def history_listed(self) -> None:
        """Take in that the stored revisions were listed."""
        self.history_known = True
        self._moved()

    def take_status(self, view: RolloutView | None, version: str, epoch: int) -> frozenset[str]:
        """Take in the stored ledger; return the nodes that it admits or drops.

        A ledger that is still on its way to an older version can never be stored: what it was decided from has changed.
        """
        before, was, joining = self._admitted(), self.ledger, self._joining
        self.ledger = ledger_of(view)
        arrived, to_join = (self._chosen, self._to_join) if self.ledger == self._open_ledger else (frozenset(),) * 2
        granted = self._granted | arrived if NAMELESS in self.ledger.reserved else frozenset()
        self._bound = self._open_bound if self.ledger == self._open_ledger else self._bound
        self._granted = granted if was.revision == self.ledger.revision else arrived & granted
        self._reserved = frozenset(self.ledger.reserved) | self._granted
        self._joining = (self._joining - arrived | to_join) & self._reserved
        self._pushed &= self._reserved - arrived
        claimed = bool(epoch) and view is not None and view.leader_epoch == epoch
        # Where no leader ever reserved, there is nothing of a predecessor to be seen.
        self.fresh = claimed and (self.fresh or (not self.claimed and was == NO_LEDGER))
        self.claimed = claimed
        self.phase_stored = (view.phase or "") if view is not None else ""
        self._moved()
        if self.ledger == self._open_ledger or is_older(self._open_onto, version):
            self._open_ledger = None
        return (before ^ self._admitted()) | (joining ^ self._joining)

    def forget_open_ledger(self) -> None:
        """Take in that the write of the status did not stick."""
        self._open_ledger = None

    def take_revision(self, revision: Revision) -> bool:
        """Take in a stored revision; return whether nodes have to be decided anew."""
        before = self.revisions.get(revision.name)
        self.revisions[revision.name] = revision
        if self._open_revisions.get(revision.name) == revision.asked:
            del self._open_revisions[revision.name]
        self._moved()
        return before is None or before.cells != revision.cells

    def drop_revision(self, name: str) -> bool:
        """Take in that a revision is gone; return whether nodes have to be decided anew."""
        self._open_revisions.pop(name, None)
        known = self.revisions.pop(name, None)
        self._moved()
        return known is not None

    def forget_open_revision(self, name: str) -> None:
        """Take in that the write of a revision did not stick."""
        self._open_revisions.pop(name, None)
        self._moved()

    # Revisions

    # Admission

    def admits(self, name: str) -> bool:
        """Return whether a node may be pushed now."""
        if not self.fresh or self.ledger.revision != self.facts.revision or name not in self._reserved:
            return False
        if self.course.current is None or name in self._pushed:  # there would be no way back to it; it had its push
            return False
        if self._is_outdated:
            return False
        return self._open_ledger is None or name in self._open_ledger.reserved

    def joins(self, name: str) -> bool:
        """Return whether a node was reserved to join a revision before the policy's own."""
        return name in self._joining

    def _admitted(self) -> frozenset[str]:
        return frozenset(name for name in self._reserved if self.admits(name))

    def pushed(self, name: str) -> None:
        """Take in that a node is being pushed: a reservation is good for one push."""
        self._pushed.add(name)

    @property
    def counted(self) -> frozenset[str]:
        """Nodes that are reserved or unproven."""
        open_names = self._open_ledger.names if self._open_ledger is not None else frozenset()
        return self.ledger.names | open_names | self.book.unproven

    # Decisions

    def revision_writes(self, matched: int, wall: datetime, why: Callable[[str], str]) -> Iterator[Write]:
        """Yield what has to be stored or deleted of the revisions; `why` says why a node failed."""
        if not self.history_known:
            return
        looked_at = (self.book.version, matched)
        if looked_at == self._judged_at:
            return
        self._judged_at = looked_at
        wanted = self._wanted_revision(matched, wall, why)
        if wanted is not None and self._known(wanted.name) != wanted.asked:
            self._open_revisions[wanted.name] = wanted.asked
            yield revision_write(self.facts.name, self.facts.uid, wanted, self.revisions.get(wanted.name))
        needed = frozenset({self.facts.revision, self.ledger.revision})
        for one in expendable(self.revisions.values(), needed):
            del self.revisions[one.name]
            self._moved()
            yield deletion_write(one)

    def _known(self, name: str) -> Revision | None:
        stored = self.revisions.get(name)
        return self._open_revisions.get(name) or (stored and stored.asked)

    def _wanted_revision(self, matched: int, wall: datetime, why: Callable[[str], str]) -> Revision | None:
        """Return the policy's revision as it shall be stored; None when nothing is pushed by this policy."""
        facts = self.facts
        if facts.mode is PolicyMode.PLAN or not facts.wishes or facts.deleting:
            return None
        name = name_of(facts.name, facts.uid, facts.revision)
        stored_or_open = (*self.revisions.values(), *self._open_revisions.values())
        latest = max((one.number for one in stored_or_open), default=0)
        known = self._open_revisions.get(name) or self.revisions.get(name)
        if known is None:
            return Revision(facts.revision, latest + 1, name, "", facts.content, {})
        number = known.number if known.number >= latest else latest + 1
        return known._replace(number=number, cells=self._verdicts(known, matched, wall, why))

    def _verdicts(
        self, known: Revision, matched: int, wall: datetime, why: Callable[[str], str]
    ) -> Mapping[Cell, CellRecord]:
        verdicts = dict(known.cells)
        failure = self._untold_failure(matched)
        if failure is not None:
            text, reason = shorten(_failure_text(failure, why)), why(failure.nodes[0]).partition(":")[0]
            for cell in failure.cells:
                verdicts[cell] = CellRecord(
                    *cell, CellVerdict.FAILED, self.facts.generation, timestamp(wall), message=text, reason=reason
                )
        for cell in proven_cells(self.book, self.facts.rollout):
            record, complete = verdicts.get(cell), self.book.cells[cell].is_complete
            if record is None or (record.verdict is CellVerdict.FAILED and record.generation < self.facts.generation):
                verdicts[cell] = CellRecord(*cell, CellVerdict.PROVEN, self.facts.generation, timestamp(wall), complete)
            elif record.verdict is CellVerdict.PROVEN and complete and not record.complete:
                verdicts[cell] = msgspec.structs.replace(record, complete=True)
        return verdicts

    def next_ledger(self, stand: Stand, now: float, wall: datetime, *, is_due: bool) -> Ledger:
        """Return the ledger that the next write of the status shall have.

        Nothing of it differs from the stored one but when a reservation is due, when this leader writes it first, and
        when the status is written anyway (`is_due`): that is when names are dropped.
        """
        if self._open_ledger is not None:
            return self._open_ledger
        if not self.claimed and self.ledger != NO_LEDGER:
            return self.ledger._replace(reserved=(), carried=_named((*self.ledger.reserved, *self.ledger.carried)))
        is_edited = self.ledger.revision != self.facts.revision or self._is_outdated
        has_moved = self.course is not self._looked_for  # as when a cell is proven, and others may follow
        if now < self._looked_at + self._reserve_seconds and not (is_due or is_edited or has_moved):
            return self.ledger
        if self._is_idle:
            self._chosen = self._to_join = frozenset()
            return self.ledger
        if self.book.waiting or self._is_named:  # looking costs what there is to look at
            self._looked_at, self._looked_for = now, self.course
        return self._wanted_ledger(stand, wall)

    @property
    def _is_idle(self) -> bool:
        """There is nobody to reserve, nobody to drop, and nothing to begin."""
        named = self._is_named or self.facts.mode is PolicyMode.PLAN
        return not (named or self.book.waiting or self._begins_anew)

    @property
    def is_written(self) -> bool:
        """A ledger is on its way."""
        return self._open_ledger is not None

    @property
    def _is_named(self) -> bool:
        """The stored ledger names somebody, or all of them."""
        return bool(self.ledger.reserved or self.ledger.carried)

    @property
    def _begins_anew(self) -> bool:
        """The policy asks for another revision, or an edit of it tries a failed one again."""
        edited = self.ledger.generation != self.facts.generation
        again = edited and self.phase_stored in FAILED_PHASES
        return again or self.ledger.revision != self.facts.revision

    @property
    def _is_outdated(self) -> bool:
        """The names in the ledger were reserved by another budget."""
        return bool(self.ledger.reserved) and self._bound != self.facts.rollout.max_unproven

    def has_news(self, ledger: Ledger) -> bool:
        """Return whether a ledger is worth a write of its own, which only succeeds onto the status as it was seen."""
        if self._open_ledger is not None:
            return False
        if not self.claimed and self.ledger != NO_LEDGER:
            return bool(self.ledger.names) or self.book.waiting > 0
        begins = (ledger.revision, ledger.generation) != (self.ledger.revision, self.ledger.generation)
        return begins or ledger.cursor != self.ledger.cursor or self._is_outdated

    def ledger_due(self, now: float) -> float:
        """Return when to look for a ledger again, monotonic seconds; infinity when there is nothing to look for."""
        due = self._looked_at + self._reserve_seconds
        return due if due > now and not self._is_idle else math.inf

    def _wanted_ledger(self, stand: Stand, wall: datetime) -> Ledger:
        known, facts = self.ledger, self.facts
        self._chosen = self._to_join = frozenset()
        if self.course.current is None and known == NO_LEDGER and not self.book.waiting:
            return known
        if facts.mode is PolicyMode.PLAN and not known.names:
            return NO_LEDGER
        if self._begins_anew:
            open_names = (*filter(stand.is_open, known.reserved), *known.carried)
            known = Ledger(facts.revision, facts.generation, 0, (), _named(open_names), timestamp(wall))
        carried = tuple(name for name in known.carried if stand.is_open(name) or not stand.is_fenced(name))
        kept = tuple(self._kept(known.reserved, carried, stand))
        known = known._replace(reserved=kept, carried=carried)
        if not stand.may_reserve or not (self.fresh or self.ledger == NO_LEDGER) or self._untold_failure(stand.matched):
            return known
        chosen = tuple(self._choose(known, stand))
        self._chosen = frozenset(chosen)
        self._to_join = frozenset(filter(self.book.joins, chosen))
        named = (*kept, *chosen) if _has_room(kept + chosen) else (NAMELESS,)
        return known._replace(reserved=named, cursor=known.cursor + len(chosen))

    def _kept(self, names: tuple[str, ...], carried: tuple[str, ...], stand: Stand) -> Iterator[str]:
        """Yield the names that stay: pushes on their way, and those to come as far as a smaller budget has room."""
        pushing = frozenset(filter(stand.is_open, names))
        counted = pushing.union(self.book.unproven, carried)
        room = budget(self.facts.rollout, stand.matched) - len(counted)
        again = anew(self.book, room, counted, pushing.union(carried))
        room = 0 if self._is_blind(carried) else room
        for name in names:
            counts = name in counted
            if name in pushing:
                yield name
            elif self._is_to_come(name, stand) and (again if counts else room) > 0:
                again, room = again - counts, room - (not counts)
                yield name

    def _is_to_come(self, name: str, stand: Stand) -> bool:
        """Return whether a node still waits for the push for which it was reserved."""
        return stand.is_waiting(name) and name not in self._pushed and self.book.joins(name) is self.joins(name)

    def _untold_failure(self, matched: int) -> Failure | None:
        """Return why the revision has failed, while nothing says so where it lasts.

        It may have failed before it is stored: an edit can leave a node that failed all that it has.
        """
        if self.course.has_failed:
            return None
        return judge(self.book, self.facts.rollout, matched, self.course.is_proven)

    def _is_blind(self, carried: Collection[str]) -> bool:
        """Return whether a predecessor's pushes may still arrive, nobody knows where, and more than may be."""
        return NAMELESS in carried and self.facts.rollout.max_unproven != WHOLE_FLEET

    @property
    def closes_all(self) -> bool:
        """Every node is to be closed to a predecessor, whose names are not known."""
        return self.fresh and self._is_blind(self.ledger.carried)

    def _choose(self, known: Ledger, stand: Stand) -> Iterator[str]:
        if self._is_blind(known.carried):
            return
        counted = self.book.unproven | known.names
        room = budget(self.facts.rollout, stand.matched) - len(counted)
        reserved = (frozenset(known.reserved) | self._granted) - self._pushed
        named = known.names | self._granted
        turn = Turn(self.facts.revision, self.facts.rollout, counted, reserved, named, room, self.course.is_proven)
        names = next_nodes(self.book, turn)
        if self.facts.rollout.max_unproven == WHOLE_FLEET:
            yield from names
            return
        taken = list(known.names)
        for name in names:
            taken.append(name)
            if not _has_room(taken):
                return
            yield name

    def ledger_written(self, ledger: Ledger, version: str, now: float) -> None:
        """Take in that a ledger is on its way, onto the policy's status as of a resource version."""
        self._open_ledger, self._open_onto, self._looked_at = ledger, version, now
        self._open_bound = self.facts.rollout.max_unproven

    # For people

    def view(self, ledger: Ledger, stand_matched: int, now: float, wall: datetime) -> RolloutView | None:
        """Return ``status.rollout`` without the epoch."""
        facts = self.facts
        if (facts.mode is PolicyMode.PLAN or not facts.wishes) and ledger == NO_LEDGER:
            return None
        wave, waves = waves_of(self.book, facts.rollout, stand_matched)
        phase = self.phase(ledger, now, wall)
        return RolloutView(
            revision=ledger.revision or None,
            generation=ledger.generation or None,
            proven_revision=self._last_proven(),
            cursor=ledger.cursor,
            reserved=ledger.reserved,
            carried=ledger.carried,
            wave=wave or None,
            waves=waves or None,
            phase=phase,
            started_at=ledger.started_at or None,
            message=self._told(phase) or None,
        )

    def _last_proven(self) -> str | None:
        newest = max(filter(went_well, self.revisions.values()), key=lambda one: one.number, default=None)
        return newest.id if newest is not None else None

    def phase(self, ledger: Ledger, now: float, wall: datetime) -> RolloutPhase:
        """Return where the rollout stands, with this ledger."""
        if self.facts.mode is PolicyMode.PAUSED:
            return RolloutPhase.PAUSED
        if self.course.has_failed:
            if self.facts.rollout.on_failure is OnFailure.HALT:
                return RolloutPhase.HALTED
            return RolloutPhase.ROLLING_BACK if self.is_going_back(now, wall) else RolloutPhase.ROLLED_BACK
        if self.book.waiting or ledger.names or (self.course.current is None and self.book.settling):
            may_wait = self.book.settling and not ledger.reserved
            return RolloutPhase.SOAKING if may_wait else RolloutPhase.PROGRESSING
        return RolloutPhase.SOAKING if self.book.settling else RolloutPhase.COMPLETE

    def is_going_back(self, now: float, wall: datetime) -> bool:
        """Return whether nodes still have a failed revision, and time is left for them."""
        undoes = self.course.has_failed and self.facts.rollout.on_failure is OnFailure.ROLLBACK
        return undoes and bool(self.book.unreverted) and self.rollback_ends(now, wall) > now

    def rollback_ends(self, now: float, wall: datetime) -> float:
        """Return until when nodes may still go back, monotonic seconds; then it counts as ended, whatever they do.

        How long ago it began is asked of the wall clock once: whoever wrote that may have had a clock that was ahead.
        """
        recorded = min((one.at for one in self.course.failures), default="")
        if recorded != self._begun[0]:
            age = seconds_since(recorded, wall)  # None: somebody edited or deleted the record
            begun = -math.inf if age is None else now - max(0.0, age)
            self._begun = recorded, begun
        return self._begun[1] + self.facts.rollout.node_deadline_seconds

    def _told(self, phase: RolloutPhase) -> str:
        """Return the message, with the nodes that a rollback could not reach."""
        left = self.book.unreverted if phase is RolloutPhase.ROLLED_BACK else ()
        if not left:
            return self.course.message
        return shorten(f"{self.course.message}; {len(left)} nodes still have it, for example {min(left)}")


def _failure_text(failure: Failure, why: Callable[[str], str]) -> str:
    """Return why a revision failed, in a line: who, why, and where."""
    first, others = failure.nodes[0], len(failure.nodes) - 1
    if failure.canary:
        who = f"canary {first} and {others} more failed" if others else f"canary {first} failed"
    else:
        who = f"{len(failure.nodes)} of {failure.pushed} nodes failed, {'first ' if others else ''}{first}"
    return f"{who}: {why(first)} ({', '.join(map(str, failure.cells))})"


def _has_room(names: Collection[str]) -> bool:
    return len(names) <= RESERVED_MAX and sum(len(name) + NAME_BYTES for name in names) <= NAMES_BYTES_MAX


def _named(names: Iterable[str]) -> tuple[str, ...]:
    """Return names, each once, in order."""
    return tuple(dict.fromkeys(names))
