# SPDX-License-Identifier: Apache-2.0
"""Which nodes a rollout takes next, and when it has failed: pure functions of where its nodes stand.

* The places of nodes are kept by difference in a `Book`; one node event costs the same whatever the number of nodes.
* Canaries first: `canary.nodes` of each cell, spread over zones. Then each cell takes as many at a time as went well
  there already, so the wave doubles with each soak. Without a soak there is nothing to learn by growing slowly.
* A cell whose nodes settle without a change (refused, unsupported) grows in the same way: it is asked, not exposed.
* Nodes are taken in the order of a hash, so that a wave is no rack.
* A node that is unproven already, by an earlier revision or leader, takes no new room in the budget. Where more are
  than a smaller budget allows by now, no more of them are taken anew than that.
* Whoever is silent is no candidate, and neither proves nor fails anything.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from enum import StrEnum
from typing import Final, NamedTuple

from numamigration_api.machinery.quantities import count_of
from numamigration_operator.core.objects import Rollout
from numamigration_operator.core.revisions import Cell

ZONE_LABEL: Final = "topology.kubernetes.io/zone"
"""Source: kubernetes.io/docs/reference/labels-annotations-taints."""


class Stage(StrEnum):
    """Where a node stands in the rollout of one revision."""

    OUT = "out"
    """Nothing is to be done there, or nothing can be."""
    JOINING = "joining"
    """It waits for a revision that its cell has proven before, since this one is not proven there yet."""
    WAITING = "waiting"
    """It waits for this revision."""
    SETTLING = "settling"
    """It has this revision, and has not soaked."""
    PROVEN = "proven"
    PASSED = "passed"
    """It settled without a change: the agent refused, or the kernel has no such files."""
    FAILED = "failed"


class Place(NamedTuple):
    """Where one node stands.

    Attributes:
        cell: None while its agent has not told.
        unproven: it counts in the budget, whatever revision it has.
        at_revision: its spec has the revision that is rolled out.
        unreverted: it does, and is not back at an earlier one that asks the same of the groups that are won there.
        values: what the policy's guardrails watch there, in their order.
    """

    stage: Stage = Stage.OUT
    cell: Cell | None = None
    zone: str = ""
    unproven: bool = False
    at_revision: bool = False
    unreverted: bool = False
    values: tuple[float | None, ...] = ()


NOWHERE: Final = Place()


class CellBook:
    """The nodes of one cell, by stage; `waiting` and `joining` with their zones."""

    __slots__ = ("failed", "joining", "passed", "proven", "settling", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[str, str] = {}
        self.joining: dict[str, str] = {}
        self.settling: set[str] = set()
        self.failed: set[str] = set()
        self.proven = 0
        self.passed = 0

    @property
    def resolved(self) -> int:
        """Nodes that went well."""
        return self.proven + self.passed

    @property
    def pushed(self) -> int:
        """Nodes that have the revision."""
        return self.resolved + len(self.settling) + len(self.failed)

    @property
    def size(self) -> int:
        """Nodes that can have it."""
        return self.pushed + len(self.waiting)

    def count(self, name: str, place: Place, sign: int) -> None:
        """Take in, or out, a node."""
        match place.stage:
            case Stage.WAITING | Stage.JOINING:
                names = self.waiting if place.stage is Stage.WAITING else self.joining
                if sign > 0:
                    names[name] = place.zone
                else:
                    del names[name]
            case Stage.SETTLING | Stage.FAILED:
                group = self.settling if place.stage is Stage.SETTLING else self.failed
                (group.add if sign > 0 else group.discard)(name)
            case Stage.PROVEN:
                self.proven += sign
            case Stage.PASSED:
                self.passed += sign
            case Stage.OUT:
                pass

    @property
    def is_complete(self) -> bool:
        """Every node that could have the revision has it, and it went well."""
        return not (self.waiting or self.settling or self.failed)

    def takes_all(self, canaries: int) -> bool:
        """Return whether its canaries went well."""
        return self.resolved >= min(canaries, self.size)


class Book:
    """Where all nodes of one policy stand.

    Attributes:
        cells: by stage.
        unproven: nodes that count in the budget.
        unreverted: nodes with which a rollback would not be through.
        values: by unproven node, what guardrails watch.
        version: grows with every change.
    """

    __slots__ = ("cells", "unproven", "unreverted", "values", "version")

    def __init__(self) -> None:
        self.cells: dict[Cell, CellBook] = {}
        self.unproven: set[str] = set()
        self.unreverted: set[str] = set()
        self.values: dict[str, tuple[float | None, ...]] = {}
        self.version = 0

    def replace(self, name: str, old: Place, new: Place) -> None:
        """Count a node as `new` where it was counted as `old`."""
        self.version += 1
        if (old.stage, old.cell, old.zone) != (new.stage, new.cell, new.zone):
            self._count(name, old, -1)
            self._count(name, new, 1)
        if old.unproven is not new.unproven:
            (self.unproven.add if new.unproven else self.unproven.discard)(name)
        if old.unreverted is not new.unreverted:
            (self.unreverted.add if new.unreverted else self.unreverted.discard)(name)
        if new.values:
            self.values[name] = new.values
        else:
            self.values.pop(name, None)

    def _count(self, name: str, place: Place, sign: int) -> None:
        if place.cell is None or place.stage is Stage.OUT:
            return
        book = self.cells.get(place.cell)
        if book is None:
            book = self.cells[place.cell] = CellBook()
        book.count(name, place, sign)

    def largest(self, number: int) -> float | None:
        """Return the largest value that the guardrail of this number has on any node; None when none told."""
        known = (values[number] for values in self.values.values() if number < len(values))
        return max((value for value in known if value is not None), default=None)

    def waits(self, name: str) -> bool:
        """Return whether a node is to be pushed."""
        return any(name in book.waiting or name in book.joining for book in self.cells.values())

    def joins(self, name: str) -> bool:
        """Return whether a node is to be pushed what its cell has proven before."""
        return any(name in book.joining for book in self.cells.values())

    @property
    def waiting(self) -> int:
        """Nodes that are to be pushed."""
        return sum(len(book.waiting) + len(book.joining) for book in self.cells.values())

    @property
    def failed(self) -> int:
        """Nodes that failed with the revision."""
        return sum(len(book.failed) for book in self.cells.values())

    @property
    def pushed(self) -> int:
        """Nodes that have the revision."""
        return sum(book.pushed for book in self.cells.values())

    @property
    def settling(self) -> int:
        """Nodes that have the revision and have not soaked."""
        return sum(len(book.settling) for book in self.cells.values())


def budget(rollout: Rollout, matched: int) -> int:
    """Return how many nodes may be reserved or unproven at a time."""
    return count_of(rollout.max_unproven, matched, at_least=1)


class Turn(NamedTuple):
    """What `next_nodes` goes by.

    Attributes:
        revision: the order of nodes depends on it.
        counted: nodes that count in the budget.
        reserved: nodes of these that are reserved and not pushed yet.
        named: all nodes of these that the ledger names, also where no more than an earlier push may still come.
        room: how many more may count.
        proven: whether the revision went well in a cell before.
    """

    revision: str
    rollout: Rollout
    counted: Collection[str]
    reserved: Collection[str]
    named: Collection[str]
    room: int
    proven: Callable[[Cell], bool]


def next_nodes(book: Book, turn: Turn) -> Iterator[str]:
    """Yield the nodes to reserve now, the most telling first."""
    room, again = turn.room, anew(book, turn.room, turn.counted, turn.named)
    for name in _candidates(book, turn):
        counts = name in turn.counted
        if (again if counts else room) <= 0:
            continue
        again, room = again - counts, room - (not counts)
        yield name


def anew(book: Book, room: int, counted: Collection[str], taken: Collection[str]) -> float:
    """Return how many of the nodes that count already may be reserved: as many as the others leave of the budget.

    Args:
        book: where all nodes stand.
        room: how many more may count; below zero where too many do.
        counted: nodes that count.
        taken: nodes of these that are named already, and stay so.
    """
    if room >= 0:
        return math.inf
    return room + sum(name not in taken and book.waits(name) for name in counted)


def _candidates(book: Book, turn: Turn) -> Iterator[str]:
    """Yield canaries of all cells, then those that join what is proven, then waves."""
    canaries: list[tuple[Cell, CellBook]] = []
    waves: list[tuple[Cell, CellBook]] = []
    for cell in sorted(cell for cell, nodes in book.cells.items() if nodes.waiting):
        nodes = book.cells[cell]
        is_open = turn.proven(cell) or nodes.takes_all(turn.rollout.canary.nodes)
        (waves if is_open else canaries).append((cell, nodes))
    for _, nodes in canaries:
        missing = turn.rollout.canary.nodes - nodes.resolved - _outstanding(nodes, turn)
        yield from _spread(_free(nodes.waiting, turn), turn, missing)
    for cell in sorted(book.cells):
        yield from _ordered(_free(book.cells[cell].joining, turn), turn)
    for _, nodes in waves:
        limit = _wave(nodes, turn.rollout)
        yield from _ordered(_free(nodes.waiting, turn), turn)[: max(0, limit - _outstanding(nodes, turn))]


def _wave(nodes: CellBook, rollout: Rollout) -> int:
    """Return how many nodes of a cell may be unproven at a time, beside the budget."""
    return max(rollout.canary.nodes, nodes.resolved) if rollout.canary.soak_seconds else nodes.size


def _outstanding(nodes: CellBook, turn: Turn) -> int:
    return len(nodes.settling) + sum(name in nodes.waiting for name in turn.reserved)


def _free(names: dict[str, str], turn: Turn) -> dict[str, str]:
    return {name: zone for name, zone in names.items() if name not in turn.reserved}


def _ordered(names: Iterable[str], turn: Turn) -> list[str]:
    """Return nodes in the order of a hash; those that count already come first."""
    return sorted(names, key=lambda name: (name not in turn.counted, _position(turn.revision, name)))


def _spread(names: dict[str, str], turn: Turn, number: int) -> list[str]:
    """Return `number` nodes from as many zones as there are; of all zones those that count already come first.

    Where they use up the budget nobody else can be a canary, and a failed one of the revision before counts for ever.
    """
    zones: defaultdict[str, list[str]] = defaultdict(list)
    for name in _ordered(names, turn):
        zones[names[name]].append(name)
    by_round = (
        (name not in turn.counted, place, _position(turn.revision, zone), name)
        for zone, members in zones.items()
        for place, name in enumerate(members)
    )
    return [name for *_, name in sorted(by_round)][: max(0, number)]


def _position(revision: str, name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=8, key=revision.encode()).digest()


class Failure(NamedTuple):
    """Why a revision failed.

    Attributes:
        cells: where.
        nodes: that failed there.
        canary: one of them was a canary.
    """

    cells: tuple[Cell, ...]
    nodes: tuple[str, ...]
    pushed: int
    canary: bool


def judge(book: Book, rollout: Rollout, matched: int, proven: Callable[[Cell], bool]) -> Failure | None:
    """Return why the rollout has failed; None while it has not.

    Any failed canary fails it; later, as many as the threshold says, of the nodes that have the revision. So does a
    budget that is used up by failed nodes: nothing could go on.
    """
    cells = [(cell, nodes) for cell, nodes in sorted(book.cells.items()) if nodes.failed]
    if not cells:
        return None
    pushed, names = book.pushed, _failed_nodes(cells)
    first = [(cell, nodes) for cell, nodes in cells if not proven(cell) and nodes.resolved < rollout.canary.nodes]
    if first:
        return Failure(tuple(cell for cell, _ in first), _failed_nodes(first), pushed, canary=True)
    threshold = count_of(rollout.failure_threshold, pushed, at_least=1)
    if len(names) >= min(threshold, budget(rollout, matched)):
        return Failure(tuple(cell for cell, _ in cells), names, pushed, canary=False)
    return None


def _failed_nodes(cells: Iterable[tuple[Cell, CellBook]]) -> tuple[str, ...]:
    """Return the failed nodes of these cells, in order."""
    return tuple(sorted(name for _, nodes in cells for name in nodes.failed))


def proven_cells(book: Book, rollout: Rollout) -> frozenset[Cell]:
    """Return the cells whose canaries went well, at least one of them with a change that soaked."""
    return frozenset(
        cell
        for cell, nodes in book.cells.items()
        if nodes.proven and not nodes.failed and nodes.takes_all(rollout.canary.nodes)
    )


def waves_of(book: Book, rollout: Rollout, matched: int) -> tuple[int, int]:
    """Return the wave that is under way and how many there will be, canaries being the first; for people.

    Model: waves double from the canaries to the budget, and are counted as if all nodes were one cell.
    """
    total = sum(nodes.size for nodes in book.cells.values())
    done = sum(nodes.resolved for nodes in book.cells.values())
    canaries = min(total, max(1, rollout.canary.nodes) * max(1, sum(bool(nodes.size) for nodes in book.cells.values())))
    largest = budget(rollout, matched)
    if not total:
        return 0, 0
    wave, waves, reached = 1, 1, canaries
    while reached < total:
        step = min(largest, reached) if rollout.canary.soak_seconds else largest
        if reached <= done:
            wave += 1
        reached += max(1, step)
        waves += 1
    return min(wave, waves), waves
