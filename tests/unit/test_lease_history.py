# SPDX-License-Identifier: Apache-2.0
"""Whatever is delayed, stopped, lost or deleted, in any order: no two processes believe to hold the Lease at once.

And whoever has held it and does not any more never holds it again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from numamigration_operator.cluster.lease import Durations, LeaseHolder, LeaseObject, Request, Rest, Save
from tests.unit.test_lease import LEASE, RENEW, RETRY, LeaseStore

pytestmark = pytest.mark.uncounted

PROCESSES = st.integers(0, 1)
SECONDS = st.one_of(st.floats(0.0, 0.5), st.floats(0.0, 4.0), st.floats(0.0, 20.0))
WALL = datetime(2026, 1, 2, tzinfo=UTC)


@dataclass
class Life:
    """One process: its clock runs up to 15 % wrong, and began anywhere; so does its time of day."""

    holder: LeaseHolder
    offset: float
    rate: float
    wall_offset: float
    sent: Request | None = None
    answer: tuple[int, LeaseObject | None] | None = None
    has_seen_a_lease: bool = False
    ending: bool = False
    has_held: bool = False
    was_refused: bool = False


@dataclass
class Network:
    """Requests whose sender gave up, and which the server may still handle at any time."""

    late: list[Request] = field(default_factory=list)


class TwoHolders(RuleBasedStateMachine):
    """Two processes and one Lease, with every request on its way for any time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.serial = 0
        self.store = LeaseStore()
        self.network = Network()
        self.lives = [self.born(0.0, 1.0, 0.0), self.born(5000.0, 1.0, 0.0)]

    def born(self, offset: float, rate: float, wall_offset: float) -> Life:
        self.serial += 1
        holder = LeaseHolder(f"p{self.serial}", Durations(LEASE, RENEW, RETRY), Random(self.serial))
        return Life(holder, offset, rate, wall_offset)

    def clock(self, life: Life) -> float:
        return life.offset + self.now * life.rate

    # What a process does

    @rule(which=PROCESSES)
    def process_acts(self, which: int) -> None:
        life = self.lives[which]
        now = self.clock(life)
        if life.sent is not None or life.holder.lost(now):
            return
        wall = WALL + timedelta(seconds=self.now + life.wall_offset)
        step = life.holder.release(now, wall) if life.ending else life.holder.next(now, wall)
        if step is not None and not isinstance(step, Rest):
            life.sent = step

    @rule(which=PROCESSES)
    def server_handles(self, which: int) -> None:
        life = self.lives[which]
        if life.sent is not None and life.answer is None:
            life.answer = self.store.handle(life.sent)

    @rule(which=PROCESSES)
    def answer_arrives(self, which: int) -> None:
        life = self.lives[which]
        if life.sent is None or life.answer is None:
            return
        life.holder.answered(life.sent, *life.answer, self.clock(life))
        life.has_seen_a_lease = life.has_seen_a_lease or life.answer[1] is not None
        life.sent = life.answer = None

    @rule(which=PROCESSES)
    def process_gives_up_waiting(self, which: int) -> None:
        life = self.lives[which]
        if life.sent is None:
            return
        if life.answer is None:
            self.network.late.append(life.sent)
        life.holder.unanswered(self.clock(life))
        life.sent = life.answer = None

    @precondition(lambda self: self.network.late)
    @rule(data=st.data())
    def server_handles_what_was_given_up(self, data: st.DataObject) -> None:
        self.store.handle(self.network.late.pop(data.draw(st.integers(0, len(self.network.late) - 1))))

    @rule(which=PROCESSES, there=SECONDS, back=SECONDS)
    def request_goes_there_and_back(self, which: int, there: float, back: float) -> None:
        self.process_acts(which)
        self.time_passes(there)
        self.server_handles(which)
        self.time_passes(back)
        self.answer_arrives(which)

    @rule(which=PROCESSES)
    def process_stops_in_good_order(self, which: int) -> None:
        self.lives[which].ending = True

    @precondition(lambda self: self.store.lease is not None)  # see may_be_deleted
    @rule(which=PROCESSES, offset=st.floats(-1e6, 1e6), rate=st.floats(0.85, 1.15), wall=st.floats(-1e6, 1e6))
    def process_is_killed_and_born_again(self, which: int, offset: float, rate: float, wall: float) -> None:
        life = self.lives[which]
        if life.sent is not None and life.answer is None:
            self.network.late.append(life.sent)
        self.lives[which] = self.born(offset, rate, wall)

    # What happens to both

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        """A process that does nothing meanwhile is one that was stopped."""
        self.now += seconds
        self.nobody_holds_it_twice()  # also when an answer is heard next

    @rule(which=PROCESSES, seconds=st.integers(1, 40))
    def one_process_runs_smoothly(self, which: int, seconds: int) -> None:
        """The other one stands still, perhaps in the middle of a request."""
        for _ in range(seconds):
            self.request_goes_there_and_back(which, 0.5, 0.5)
            self.at_most_one_believes_to_hold_it()

    @precondition(lambda self: self.may_be_deleted)
    @rule()
    def lease_is_deleted_by_hand(self) -> None:
        self.store.lease = None
        for life in self.lives:
            life.has_seen_a_lease = False  # the next one is another one

    @property
    def may_be_deleted(self) -> bool:
        """Who never saw this Lease cannot know that there was one; there the API server's fence has to do."""
        on_their_way = [*self.network.late, *(life.sent for life in self.lives if life.sent is not None)]
        creates = [one for one in on_their_way if isinstance(one, Save) and one.resource_version is None]
        return not creates and all(life.has_seen_a_lease for life in self.lives)

    @invariant()
    def at_most_one_believes_to_hold_it(self) -> None:
        believers = [life.holder for life in self.lives if life.holder.holds(self.clock(life))]
        assert len(believers) <= 1, believers

    @invariant()
    def nobody_holds_it_twice(self) -> None:
        """Whoever may not send drops what it was to send, since the process ends."""
        for life in self.lives:
            holds = life.holder.holds(self.clock(life))
            assert not (holds and life.was_refused), life.holder
            life.was_refused = life.was_refused or (life.has_held and not holds)
            life.has_held = life.has_held or holds


TestTwoHolders = TwoHolders.TestCase
TestTwoHolders.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
