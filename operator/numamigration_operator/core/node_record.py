# SPDX-License-Identifier: Apache-2.0
"""What the fleet remembers of one node: its labels, its node state, and what was decided for it.

An open write is one that was decided and that no watch event has shown yet. While it is open, decisions start from what
it will say, not from what the watch still shows; else a policy deleted meanwhile would leave its wish behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from numamigration_api.machinery.clock import seconds_since
from numamigration_api.vocabulary import SettingsGroup, VerificationResult
from numamigration_operator.core.node_facts import Report, Said, report_of
from numamigration_operator.core.objects import GroupResult, StateObject, StateStatus, Statistics
from numamigration_operator.core.pool import Pool
from numamigration_operator.core.resolve import NOTHING_WISHED, Resolution
from numamigration_operator.core.revisions import Cell
from numamigration_operator.core.rollout import ZONE_LABEL, Place
from numamigration_operator.core.tally import Contribution
from numamigration_operator.core.wishes import (
    Spec,
    Wish,
    Writer,
    completed,
    observed_spec,
    revision_of,
    rivals,
    unchanged,
)

OPEN_REVISIONS_MAX: Final = 32  # an event of an open write is no foreign edit; a watch lags by a few of them
NO_CELL: Final = Cell("", "")
NO_RIVALS: Final = Spec()


class Pools:
    """What nodes share: cells, label pairs, wishes, whole specs, group results."""

    __slots__ = ("cells", "labels", "results", "specs", "wishes")

    def __init__(self) -> None:
        self.cells: Pool[Cell] = Pool()
        self.labels: Pool[tuple[str, str]] = Pool()
        self.wishes: Pool[Wish] = Pool()
        self.specs: Pool[Spec] = Pool()
        self.results: Pool[tuple[SettingsGroup, GroupResult]] = Pool()

    def spec(self, spec: Spec) -> Spec:
        """Return the shared spec, made of shared wishes."""
        groups = tuple((group, self.wishes(wish)) for group, wish in spec.groups)
        return self.specs(spec._replace(groups=groups))

    def report(self, status: StateStatus) -> Report | None:
        """Return the report, made of shared results."""
        return report_of(status, self.results)


class NodeRecord:
    """One name: a Node, a node state, or both.

    Attributes:
        uid: of the Node; None while there is none.
        selected: the operator gives this Node a node state.
        matched: uids of the policies that select it.
        state_uid: of the node state; None while there is none.
        version: resource version of the node state as it was shown last; empty while there is none.
        shown: revision of the node state's spec; None when its content is not what its revision says.
        open_revisions: decided and not shown yet, the latest last.
        open_specs: what has these revisions.
        open_writers: who decided them.
        onto: the version that the latest of them may replace; empty: any.
        sequence: of the decision that is shown; None where the CRD has no room for it.
        reported: the wishes that the report is about, as far as they stood unchanged ever since, but for how they will
            end; None while that is not known, as after a start in mid-change.
        resisted: the spec has our revision and another content: somebody else owns a part that we left out.
        silent_since: monotonic seconds of the agent's last report; without one, of when that was seen first.
        shared: another manager owns groups of the spec too: an apply that leaves them out leaves them there.
        skew: why the CRD could not hold the spec as it was decided; empty once a whole one is shown.
        doubted: a write of it failed, and nothing newer was shown since: something else may stand there.
        lost: somebody's edit was shown in place of a write of it whose answer has not come: it may arrive after that.
        try_again: to be written although nothing new was decided: the CRD may be a newer one by now, or what was sent
            before may still arrive.
        cell: where it belongs; None while its agent has not told.
        zone: that its labels name; empty when they name none.
        alarm: when to look whether the agent is silent for too long; monotonic seconds.
        contributions: by policy uid, how it counts.
        counted: the resolution by which it counts so.
        summed: its counters as they are in the sums of a policy.
        summed_for: uid of that policy; empty for none.
        is_lost: it counts as unreachable for a policy, or is silent for its deadline.
        is_failed: it counts as failed for a policy.
        holds: uids of policies that have a group in the spec, shown or open.
        places: by policy uid, where the node stands in its rollout; absent is nowhere.
        ready: what the Node's Ready condition said when it was read last; None when nobody has asked lately.
    """

    __slots__ = (
        "_labels",
        "alarm",
        "cell",
        "contributions",
        "counted",
        "doubted",
        "generation",
        "holds",
        "is_failed",
        "is_lost",
        "leader_epoch",
        "lost",
        "matched",
        "name",
        "onto",
        "open_revisions",
        "open_specs",
        "open_writers",
        "owners",
        "places",
        "ready",
        "report",
        "reported",
        "reported_at",
        "resisted",
        "resolution",
        "selected",
        "sequence",
        "shared",
        "shown",
        "silent_since",
        "skew",
        "spec",
        "state_uid",
        "summed",
        "summed_for",
        "try_again",
        "uid",
        "version",
        "zone",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.uid: str | None = None
        self._labels: tuple[tuple[str, str], ...] = ()
        self.zone = ""
        self.selected = False
        self.matched: tuple[str, ...] = ()
        self.resolution: Resolution = NOTHING_WISHED
        self.counted: Resolution | None = None
        self.is_lost = self.is_failed = False
        self.contributions: Mapping[str, Contribution] = {}
        self.summed: Statistics | None = None
        self.summed_for = ""
        self.holds: frozenset[str] = frozenset()
        self.places: Mapping[str, Place] = {}
        self.ready: bool | None = None
        self.alarm: float | None = None
        self.spec = Spec()
        self.open_specs: tuple[Spec, ...] = ()
        self.forget_state()

    def forget_state(self) -> None:
        """Take in that there is no node state.

        What its spec said stays the base of decisions: a wish that ended with the object in somebody's hands, or that
        was just being restored, would otherwise be left in the kernel for ever.
        """
        self.state_uid: str | None = None
        self.version = ""
        self.generation = 0
        self.spec = self.base
        self.shown: str | None = None
        self.resisted: str | None = None
        self.shared = False
        self.leader_epoch: int | None = None
        self.sequence: int | None = None
        self.owners: tuple[str, ...] = ()
        self.report: Report | None = None
        self.reported: Spec | None = None
        self.reported_at: str | None = None
        self.cell: Cell | None = None
        self.silent_since = 0.0
        self.skew = ""
        self.try_again = self.doubted = self.lost = False
        self.forget_open_write()

    def forget_open_write(self) -> None:
        """Take in that nothing is on its way."""
        self.open_specs = ()
        self.open_revisions: tuple[str, ...] = ()
        self.open_writers: tuple[Writer, ...] = ()
        self.onto = ""

    @property
    def labels(self) -> Mapping[str, str]:
        """The Node's labels."""
        return dict(self._labels)

    @property
    def open_spec(self) -> Spec | None:
        """What the spec will say; None when nothing is on its way."""
        return self.open_specs[-1] if self.open_specs else None

    @property
    def base(self) -> Spec:
        """What the spec says, or will say once the open write is through."""
        return self.spec if self.open_spec is None else self.open_spec

    @property
    def rivals(self) -> Spec:
        """What other sources may have there in place of the open write, which may never be sent."""
        if not self.open_specs:
            return NO_RIVALS
        return rivals((self.spec, *self.open_specs[self._seen :]))

    @property
    def _seen(self) -> int:
        """How many of the open writes can arrive no more: the one that is shown, and those before it.

        A revision may come back, so it does not tell which of two writes is there.
        """
        if self.sequence is None:
            return self.open_revisions.index(self.shown) + 1 if self.shown in self.open_revisions else 0
        shown = Writer(self.leader_epoch or 0, self.sequence)
        return sum(writer <= shown for writer in self.open_writers)

    @property
    def _told(self) -> tuple[Spec, str | None, str | None, int | None, int | None]:
        """What the spec said last of what is decided here, and who wrote it."""
        return self.spec, self.shown, self.resisted, self.leader_epoch, self.sequence

    @property
    def is_open(self) -> bool:
        """A write of it is on its way."""
        return bool(self.open_revisions)

    @property
    def is_overtaken(self) -> bool:
        """The open write goes onto a version that stands there no more, so it will be refused."""
        return self.onto not in {"", self.version}

    @property
    def said(self) -> Said | None:
        """What its agent says of what it was asked for; None when it never spoke."""
        return self.report.said if self.report is not None else None

    @property
    def is_corrupt(self) -> bool:
        """Its agent says that its engine has copied test pages wrong, on this boot."""
        return self.report is not None and self.report.verification.result == VerificationResult.FAILED

    def take_labels(self, labels: Mapping[str, str], pools: Pools) -> bool:
        """Take in the Node's labels; return whether they changed."""
        if len(labels) == len(self._labels) and all(labels.get(key) == value for key, value in self._labels):
            return False
        self._labels = tuple(pools.labels(pair) for pair in sorted(labels.items()))
        self.zone = labels.get(ZONE_LABEL, "")
        return True

    def take_numbers(self, state: StateObject, now: float) -> bool:
        """Take in a report in which nothing but numbers moved; return False, and take nothing, if it is another one."""
        meta, status, known = state.metadata, state.status, self.report
        if known is None or meta.generation != self.generation or meta.uid != self.state_uid or self.open_revisions:
            return False
        if not known.tells_the_same(status) or not self._owned_alike(state):
            return False
        self._take_version(meta.resource_version)
        self.report = known._replace(statistics=status.statistics)
        if status.reported_at != self.reported_at:
            self.reported_at, self.silent_since = status.reported_at, now
        return True

    def _owned_alike(self, state: StateObject) -> bool:
        owners = tuple([owner.uid for owner in state.metadata.owner_references])
        return owners == self.owners and self._in_cell(state.status)

    def _in_cell(self, status: StateStatus) -> bool:
        dialect, hardware_class = self.cell or NO_CELL
        return status.dialect == dialect and status.hardware_class == hardware_class

    def take_state(self, state: StateObject, now: float, wall: datetime, pools: Pools) -> None:
        """Take in the node state as the API server shows it."""
        meta = state.metadata
        known = self.state_uid == meta.uid
        if self.state_uid is not None and not known:
            self.forget_state()
        moved = not known or meta.generation != self.generation
        before = self._told if moved else None
        if moved:
            self._take_spec(state, pools)
        self._take_version(meta.resource_version)
        self.state_uid, self.generation = meta.uid, meta.generation
        self.owners = tuple([owner.uid for owner in meta.owner_references])
        # What a node is asked to measure stands in the spec too, and moves the generation, but nothing that is decided.
        self._close_open_write(foreign_counts=moved and (self.shown is None or self._told != before))
        if state.status.reported_at != self.reported_at:
            self.reported_at = state.status.reported_at
            self.silent_since = now if known else now - max(0.0, seconds_since(state.status_stored_at, wall) or 0.0)
        elif not known:
            self.silent_since = now
        if not self._in_cell(state.status):
            cell = Cell(state.status.dialect, state.status.hardware_class)
            self.cell = pools.cells(cell) if cell.dialect else None
        self.report = pools.report(state.status)
        if self.report is not None and self.shown is not None and self.report.observed_revision == self.shown:
            # Of a revision that came back, an old report may still stand there: the agent may be at what came between.
            current = self.report.observed_generation == self.generation
            self.reported = self.spec if current or not known else self.reported

    def _take_version(self, version: str) -> None:
        self.doubted = self.doubted and version == self.version
        self.version = version

    def open_write(self, spec: Spec, revision: str, writer: Writer) -> None:
        """Take in that `spec` is on its way, as `writer` has decided.

        Over what another leader wrote it goes only onto what was seen: something of that one may be on its way too, and
        what that turns on would be dropped unseen, without a restore. Where our epoch stands, the fence refuses it.
        After a write that failed, one before it may stand there unseen, for the watch is slow; so it is the same then.
        So it is after one that was given up for an edit by hand, until its answer is there.
        """
        certain = self.leader_epoch == writer.epoch and not (self.doubted or self.lost)
        self.try_again, self.onto = False, "" if certain else self.version
        self.open_specs = (*self.open_specs, spec)[-OPEN_REVISIONS_MAX:]
        self.open_revisions = (*self.open_revisions, revision)[-OPEN_REVISIONS_MAX:]
        self.open_writers = (*self.open_writers, writer)[-OPEN_REVISIONS_MAX:]

    def needs(self, revision: str) -> bool:
        """Return whether a spec with this revision has yet to be written."""
        if self.try_again:
            return self.selected or self.state_uid is not None
        if self.open_revisions:
            return (self.open_revisions[-1] != revision or self.is_overtaken) and not self.cannot_be_created
        if self.state_uid is None:
            return self.selected
        if self.skew and self.resisted == revision:
            return False  # what stands there is as much of it as the CRD can hold
        return self.shown != revision or self.uid not in self.owners

    @property
    def cannot_be_created(self) -> bool:
        """There is no node state, and the CRD does not take the one that was decided: an empty one comes first."""
        return self.state_uid is None and bool(self.skew)

    def write_stored(self, generation: int) -> bool:
        """Take in that an open write is stored, since no watch event follows one that changed nothing.

        Returns whether nothing is on its way any more. An answer about a later generation than the shown one says
        nothing: the watch will tell.
        """
        self.doubted = self.lost = False  # after one that failed or was lost, none is stored but onto what was seen
        if self.generation != generation or not self.open_revisions:
            return False
        if self.skew and self.open_spec is not None and self.resisted == self.open_revisions[-1]:
            # The CRD took all of it. A watch that began under the older one goes on to show less, and no event follows.
            self.spec, self.shown, self.resisted, self.skew = self.open_spec, self.resisted, None, ""
            self.leader_epoch, self.sequence = self.open_writers[-1]
        self._close_open_write(foreign_counts=False)
        return not self.open_revisions

    def _take_spec(self, state: StateObject, pools: Pools) -> None:
        before, self.spec = self.spec, pools.spec(observed_spec(state.spec))
        revision = revision_of(self.spec)
        self.shown = revision if state.spec.revision == revision else None
        self.resisted = state.spec.revision if self.shown is None else None
        self.skew = self.skew if self.shown is None else ""
        self.shared = bool(self.spec.groups) and (self.shared or (self.resisted is not None and not self.skew))
        self.reported = self.reported and unchanged(self.reported, self.spec)
        self.leader_epoch, self.sequence = state.spec.leader_epoch, state.spec.write_sequence
        if self.shown is None and self.resisted == revision_of(before):
            # Somebody took wishes out by hand, which ends none: put back at once, or the agent forgets what was before.
            self.spec = pools.spec(self.spec._replace(groups=completed(self.spec, before)))

    def _close_open_write(self, *, foreign_counts: bool) -> None:
        """Forget the open write once it is shown, or once something is shown that no open write explains."""
        if not self.open_revisions:
            return
        is_last = self.shown == self.open_revisions[-1] and self._seen == len(self.open_revisions)
        arrived = is_last and self.uid in self.owners
        foreign = foreign_counts and self.shown not in self.open_revisions
        if arrived or foreign:
            self.forget_open_write()
            self.lost |= foreign and not arrived
