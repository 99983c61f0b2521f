# SPDX-License-Identifier: Apache-2.0
"""The list-and-watch machine under any sequence of answers."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from numamigration_api.machinery.backoff import RETRY_AFTER_SECONDS_MAX, Backoff
from numamigration_api.machinery.listwatch import (
    EXPIRED,
    WATCH_SHORT_SECONDS,
    WATCH_TRIES_MAX,
    ListPage,
    ListWatch,
    Step,
    Wait,
    Watch,
    watch_seconds,
)


def listed(version: str = "7") -> ListWatch:
    machine = ListWatch(Random(1))
    machine.next(0.0)
    machine.page_read(0.0, resource_version=version, continue_token="")
    return machine


def step_after_wait(machine: ListWatch, now: float = 0.0) -> Step:
    step = machine.next(now)
    return machine.next(step.until) if isinstance(step, Wait) else step


def test_it_begins_with_the_first_page() -> None:
    assert ListWatch(Random(1)).next(5.0) == ListPage("")


def test_pages_follow_each_other_and_only_the_last_completes_the_list() -> None:
    machine = ListWatch(Random(1))
    machine.next(0.0)

    assert not machine.page_read(0.0, resource_version="7", continue_token="more")
    assert not machine.synced
    assert machine.next(0.0) == ListPage("more")
    assert machine.page_read(0.0, resource_version="7", continue_token="")
    assert machine.synced


def test_after_the_list_it_watches_from_there() -> None:
    assert listed("7").next(0.0) == Watch("7")


def test_bookmarks_and_events_move_the_place_where_the_watch_goes_on() -> None:
    machine = listed("7")
    machine.next(0.0)

    machine.event_read(1.0, "9")
    machine.watch_ended(2.0)

    assert machine.next(2.0) == Watch("9")


def test_410_in_the_middle_of_a_list_starts_again_at_page_one() -> None:
    machine = ListWatch(Random(1))
    machine.next(0.0)
    machine.page_read(0.0, resource_version="7", continue_token="more")

    machine.failed(0.0, status=EXPIRED)

    assert step_after_wait(machine) == ListPage("")


def test_another_failure_in_the_middle_of_a_list_asks_for_the_same_page_again() -> None:
    machine = ListWatch(Random(1))
    machine.next(0.0)
    machine.page_read(0.0, resource_version="7", continue_token="more")

    machine.failed(0.0, status=500)

    assert step_after_wait(machine) == ListPage("more")


def test_410_of_a_watch_lists_again_and_is_not_in_sync_until_then() -> None:
    machine = listed()
    machine.next(0.0)

    machine.failed(0.0, status=EXPIRED)

    assert not machine.synced
    assert step_after_wait(machine) == ListPage("")


def test_a_cut_watch_goes_on_from_the_same_place() -> None:
    machine = listed("7")
    machine.next(0.0)

    machine.failed(0.0)

    assert machine.synced
    assert step_after_wait(machine) == Watch("7")


def test_a_watch_that_is_refused_again_and_again_lists_again() -> None:
    machine, now = listed("7"), 0.0
    for _ in range(WATCH_TRIES_MAX + 1):
        assert machine.next(now) == Watch("7")
        machine.failed(now, status=504)
        step = machine.next(now)
        now = step.until if isinstance(step, Wait) else now

    assert machine.next(now) == ListPage("")


def test_a_server_that_does_not_answer_does_not_make_it_list_again() -> None:
    machine, now = listed("7"), 0.0
    for _ in range(10 * WATCH_TRIES_MAX):
        assert machine.next(now) == Watch("7")
        machine.failed(now)
        step = machine.next(now)
        now = step.until if isinstance(step, Wait) else now

    assert machine.next(now) == Watch("7")


def test_a_watch_that_ends_in_its_time_is_opened_again_without_a_wait() -> None:
    machine = listed("7")
    machine.next(0.0)

    machine.watch_ended(290.0)

    assert machine.next(290.0) == Watch("7")


def test_agents_that_began_their_watches_together_do_not_begin_the_next_ones_together() -> None:
    """Of 5,000 that came back within one second, as many as an even spread over five minutes has in any second."""
    ends = Counter(watch_seconds(Watch("7"), f"node-{number}") for number in range(5000))

    assert (min(ends), max(ends)) == (300, 600)
    assert max(ends.values()) < 3 * 5000 / 301


def test_the_watches_of_one_agent_last_for_different_times() -> None:
    assert len({watch_seconds(Watch(str(version)), "node-a") for version in range(100)}) > 50


@pytest.mark.parametrize("opened", [pytest.param(0.0, id="at the moment of the list"), pytest.param(5.0, id="later")])
def test_a_watch_that_ends_at_once_waits_even_if_the_clock_is_coarse(opened: float) -> None:
    machine = listed("7")
    machine.next(opened)

    machine.watch_ended(opened)

    assert isinstance(machine.next(opened), Wait)


def test_a_short_watch_with_an_event_is_no_failure() -> None:
    machine = listed("7")
    machine.next(5.0)
    machine.event_read(5.0, "8")

    machine.watch_ended(5.0)

    assert machine.next(5.0) == Watch("8")


def test_waits_grow_while_lists_work_and_each_watch_is_expired() -> None:
    """A whole list is dear: without growing waits it would follow each 410 within half a second, for ever."""
    machine, now = listed(), 0.0
    for _ in range(100):
        machine.next(now)
        machine.failed(now, status=EXPIRED)
        step = machine.next(now)
        now = step.until if isinstance(step, Wait) else now
        assert machine.next(now) == ListPage("")
        machine.page_read(now, resource_version="7", continue_token="")

    assert now > 100 * Backoff().cap_seconds / 4


@pytest.mark.parametrize(
    "watch_for", [pytest.param(290.0, id="a quiet watch"), pytest.param(0.0, id="a watch with an event")]
)
def test_a_watch_that_works_ends_the_memory_of_failures(watch_for: float) -> None:
    machine = listed()
    machine.backoff.attempts = 9
    machine.next(0.0)
    if not watch_for:
        machine.event_read(0.0, "8")

    machine.watch_ended(watch_for)

    assert machine.backoff.attempts == 0


def test_a_quiet_watch_is_a_sign_of_life() -> None:
    machine = listed()
    machine.next(0.0)

    machine.watch_ended(290.0)

    assert machine.last_activity == 290.0


def test_an_answered_failure_is_a_sign_of_life() -> None:
    machine = listed()

    machine.failed(100.0, status=403, retry_after=50.0)

    assert machine.last_activity >= 150.0


def test_a_failure_without_an_answer_is_no_sign_of_life() -> None:
    machine = listed()

    machine.failed(100.0)

    assert machine.last_activity == 0.0


def test_a_list_without_a_version_to_watch_from_is_a_failure() -> None:
    machine = ListWatch(Random(1))
    machine.next(0.0)

    assert not machine.page_read(0.0, resource_version="", continue_token="")
    assert isinstance(machine.next(0.0), Wait)


def test_an_event_without_version_does_not_forget_the_place() -> None:
    machine = listed("7")
    machine.next(0.0)

    machine.event_read(0.0, "")

    machine.watch_ended(0.0)
    assert machine.next(0.0) == Watch("7")


@given(st.floats(0, 1e6), st.integers(0, 40), st.floats(0.001, 600))
def test_retry_after_is_obeyed(now: float, earlier_failures: int, retry_after: float) -> None:
    machine = listed()
    machine.backoff.attempts = earlier_failures
    machine.next(now)

    machine.failed(now, status=429, retry_after=retry_after)

    step = machine.next(now)
    assert isinstance(step, Wait)
    assert step.until >= now + retry_after


class AnyAnswers(RuleBasedStateMachine):
    """Whatever a server answers, in whatever order, at whatever pace."""

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.now = 0.0
        self.machine = ListWatch(Random(seed))
        self.step = self.machine.next(self.now)
        self.version = 0
        self.expired = False
        self.failures_without_wait = 0

    def follow(self) -> None:
        self.step = self.machine.next(self.now)
        if isinstance(self.step, Wait):
            assert self.step.until <= self.now + RETRY_AFTER_SECONDS_MAX + self.machine.backoff.cap_seconds
            self.now = self.step.until
            self.step = self.machine.next(self.now)
        assert not isinstance(self.step, Wait), "a wait that is over must not be followed by another one"
        if self.expired:
            assert self.step == ListPage(""), "410 must lead to a new list from page one"
            self.expired = False

    @rule(more=st.booleans())
    @precondition(lambda self: isinstance(self.step, ListPage))
    def page(self, more: bool) -> None:
        self.version += 1
        last = self.machine.page_read(
            self.now, resource_version=str(self.version), continue_token="more" if more else ""
        )
        assert last is not more
        self.follow()
        assert self.step == (ListPage("more") if more else Watch(str(self.version)))

    @rule()
    @precondition(lambda self: isinstance(self.step, Watch))
    def event(self) -> None:
        self.version += 1
        self.machine.event_read(self.now, str(self.version))

    @rule(lasted=st.sampled_from([0.0, 0.5, WATCH_SHORT_SECONDS, 290.0]))
    @precondition(lambda self: isinstance(self.step, Watch))
    def watch_ends(self, lasted: float) -> None:
        self.now += lasted
        self.machine.watch_ended(self.now)
        self.follow()
        assert self.step == Watch(str(self.version)), "events between two watches must not be lost"

    @rule(status=st.sampled_from([None, 401, 403, 404, 429, 500, 503]), retry_after=st.sampled_from([None, 0, 1, 1e12]))
    def failure(self, status: int | None, retry_after: float | None) -> None:
        same = Watch(str(self.version)) if isinstance(self.step, Watch) else self.step
        self.machine.failed(self.now, status=status, retry_after=retry_after)
        self.follow()
        assert self.step in {same, ListPage("")}, "a failure repeats the step or starts over, and skips nothing"

    @rule()
    def expiry(self) -> None:
        self.machine.failed(self.now, status=EXPIRED)
        self.expired = True
        assert not self.machine.synced
        self.follow()

    @rule(tries=st.integers(20, 60), status=st.sampled_from([None, 410, 503]))
    def nothing_works(self, tries: int, status: int | None) -> None:
        """Never spins: what fails for long is tried seldom."""
        begin = self.now
        for _ in range(tries):
            self.machine.failed(self.now, status=status)
            self.follow()
        assert self.now - begin > tries / 4

    @rule(tries=st.integers(20, 60))
    @precondition(lambda self: isinstance(self.step, Watch))
    def watches_end_at_once(self, tries: int) -> None:
        """Never spins: nor when a proxy ends each watch politely and at once."""
        begin = self.now
        self.machine.watch_ended(self.now)
        self.follow()
        for _ in range(tries):
            self.machine.watch_ended(self.now)
            self.follow()
        assert self.now - begin > tries / 4

    @invariant()
    def a_watch_is_only_opened_in_sync(self) -> None:
        if hasattr(self, "step"):
            assert self.machine.synced or not isinstance(self.step, Watch)


TestAnyAnswers = pytest.mark.uncounted(AnyAnswers.TestCase)
