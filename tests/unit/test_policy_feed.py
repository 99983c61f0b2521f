# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from numamigration_operator.cluster.informer import AnyObject
from numamigration_operator.core.decisions import Write, WriteKey, WriteKind
from numamigration_operator.core.objects import (
    Meta,
    NodeObject,
    PolicyObject,
    RevisionMeta,
    RevisionObject,
    StateMeta,
    StateObject,
)
from numamigration_operator.feeds import AnswerFeed, PolicyFeed, RevisionFeed, StateFeed, node_feed

WALL = datetime(2026, 1, 2, tzinfo=UTC)


class Recorder:
    """A fleet and a clock that keep what they are told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.changes = 0
        self.synced = False
        self.decides = True

    def __getattr__(self, name: str) -> Any:
        def told(*arguments: Any) -> bool:
            self.told.append((name, *arguments))
            return self.decides

        return told

    def now(self) -> float:
        return 7.0

    def wall(self) -> datetime:
        return WALL

    def changed(self) -> None:
        self.changes += 1


def policy(uid: str, generation: int = 1) -> PolicyObject:
    body = {
        "metadata": {"name": uid, "uid": uid, "generation": generation, "resourceVersion": str(generation)},
        "spec": {"nodeSelector": {}},
    }
    return msgspec.convert(body, PolicyObject)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def feed(recorder: Recorder) -> PolicyFeed:
    return PolicyFeed(recorder, recorder, on_listed=lambda blind: recorder.told.append(("on_listed", blind)))


def last_list(recorder: Recorder) -> list[tuple[str, int]]:
    policies = next(told[1] for told in reversed(recorder.told) if told[0] == "policies_listed")
    return [(one.metadata.uid, one.metadata.generation) for one in policies]


def test_a_complete_list_is_told_as_one(feed: PolicyFeed, recorder: Recorder) -> None:
    feed.list_begun()
    feed.upsert(policy("a"))
    feed.upsert(policy("b"))
    assert recorder.told == []

    feed.listed(frozenset({"a", "b"}))

    assert last_list(recorder) == [("a", 1), ("b", 1)]
    assert recorder.told[-1] == ("on_listed", False)
    assert recorder.changes == 1


def test_what_the_watch_told_while_a_list_was_open_wins_over_it(feed: PolicyFeed, recorder: Recorder) -> None:
    """A list that is a moment old must not bring a deleted policy back, nor end a new one."""
    feed.list_begun()
    feed.upsert(policy("deleted"))
    feed.upsert(policy("edited", generation=1))
    feed.watch_gone("deleted")
    feed.watch_changed(policy("edited", generation=2))
    feed.watch_changed(policy("new"))

    feed.listed(frozenset({"deleted", "edited"}))

    assert last_list(recorder) == [("edited", 2), ("new", 1)]


def test_what_the_watch_told_before_a_list_does_not_count_for_it(feed: PolicyFeed, recorder: Recorder) -> None:
    feed.watch_changed(policy("a", generation=1))
    feed.list_begun()
    feed.upsert(policy("a", generation=2))

    feed.listed(frozenset({"a"}))

    assert last_list(recorder) == [("a", 2)]


def test_a_list_that_starts_over_forgets_the_first_try(feed: PolicyFeed, recorder: Recorder) -> None:
    feed.list_begun()
    feed.upsert(policy("a"))
    feed.list_begun()
    feed.upsert(policy("b"))

    feed.listed(frozenset({"b"}))

    assert last_list(recorder) == [("b", 1)]


def test_what_the_watch_told_during_a_failed_list_does_not_count_for_the_next(
    feed: PolicyFeed, recorder: Recorder
) -> None:
    feed.list_begun()
    feed.watch_changed(policy("a", generation=1))
    feed.list_begun()
    feed.upsert(policy("a", generation=2))

    feed.listed(frozenset({"a"}))

    assert last_list(recorder) == [("a", 2)]


def test_the_watch_is_told_on_at_once(feed: PolicyFeed, recorder: Recorder) -> None:
    one = policy("a")
    feed.watch_changed(one)
    feed.watch_gone("a")

    assert recorder.told == [("policy_changed", one, 7.0), ("policy_gone", "a", 7.0)]
    assert recorder.changes == 2


def test_nodes_are_told_by_name(recorder: Recorder) -> None:
    feed, node = node_feed(recorder, recorder), NodeObject(Meta("n1"))
    feed.upsert(node)
    feed.gone(AnyObject(Meta("n1")))
    feed.listed(frozenset({"n2"}))

    assert recorder.told == [("node_changed", node, 7.0), ("node_gone", "n1", 7.0), ("nodes_listed", {"n2"}, 7.0)]
    assert recorder.changes == 3


def test_node_states_are_told_with_the_time_of_day(recorder: Recorder) -> None:
    feed, state = StateFeed(recorder, recorder), StateObject(StateMeta("n1"))
    feed.upsert(state)
    feed.gone(AnyObject(Meta("n1")))
    feed.listed(frozenset({"n2"}))

    assert recorder.told == [
        ("state_changed", state, 7.0, WALL),
        ("state_gone", "n1", 7.0),
        ("states_listed", {"n2"}, 7.0),
    ]
    assert recorder.changes == 3


def test_of_what_leaves_nothing_to_decide_nobody_decides(recorder: Recorder) -> None:
    """Kubelets touch their Node every few minutes, agents report as often."""
    recorder.decides = False

    node_feed(recorder, recorder).upsert(NodeObject(Meta("n1")))
    StateFeed(recorder, recorder).upsert(StateObject(StateMeta("n1")))

    assert [call[0] for call in recorder.told] == ["node_changed", "state_changed"]
    assert recorder.changes == 0


def test_a_watch_that_tells_nothing_of_what_lists_show_is_blind(feed: PolicyFeed, recorder: Recorder) -> None:
    feed.watch_begun()
    for blind in (False, True):
        feed.list_begun()
        feed.upsert(policy("a"))
        feed.listed(frozenset({"a"}))
        assert recorder.told[-1] == ("on_listed", blind)


# --- answers to our own writes ------------------------------------------------------------------------------------


def changes(recorder: Recorder) -> list[tuple[str, str]]:
    return [(told[0], told[1].metadata.resource_version) for told in recorder.told if told[0].endswith("_changed")]


def test_a_status_that_was_stored_is_told_without_waiting_for_the_watch(recorder: Recorder, feed: PolicyFeed) -> None:
    feed.watch_changed(policy("a", 1))

    feed.stored(policy("a", 2))

    assert changes(recorder) == [("policy_changed", "1"), ("policy_changed", "2")]
    assert recorder.changes == 2


def test_a_late_answer_does_not_bring_back_a_policy_that_a_list_lacks(recorder: Recorder, feed: PolicyFeed) -> None:
    """Promise 13: what the fleet knows no more, it would push."""
    feed.watch_changed(policy("a", 1))
    feed.list_begun()
    feed.listed(frozenset())

    feed.stored(policy("a", 2))

    assert changes(recorder) == [("policy_changed", "1")]


def test_a_late_answer_does_not_bring_back_a_policy_that_the_watch_told_gone(
    recorder: Recorder, feed: PolicyFeed
) -> None:
    feed.watch_changed(policy("a", 1))
    feed.watch_gone("a")

    feed.stored(policy("a", 2))

    assert changes(recorder) == [("policy_changed", "1")]


def test_an_answer_while_a_list_is_open_is_left_to_list_and_watch(recorder: Recorder, feed: PolicyFeed) -> None:
    """The list may be older, and would take it back."""
    feed.watch_changed(policy("a", 1))
    feed.list_begun()

    feed.stored(policy("a", 2))

    assert changes(recorder) == [("policy_changed", "1")]


# --- contents of policies -----------------------------------------------------------------------------------------


def revision(version: str) -> RevisionObject:
    return RevisionObject(RevisionMeta("r", resource_version=version))


@pytest.fixture
def revisions(recorder: Recorder) -> RevisionFeed:
    """A feed that has listed one ControllerRevision of version 10."""
    feed = RevisionFeed(recorder, recorder)
    feed.list_begun()
    feed.upsert(revision("10"))
    feed.listed(frozenset({"r"}))
    return feed


def test_controller_revisions_are_told_as_they_come_and_go(recorder: Recorder, revisions: RevisionFeed) -> None:
    revisions.gone(AnyObject(Meta("r", resource_version="11")))

    assert recorder.told == [
        ("revision_changed", revision("10"), 7.0),
        ("revisions_listed", frozenset({"r"}), 7.0),
        ("revision_gone", "r", 7.0),
    ]
    assert recorder.changes == 3


def test_a_controller_revision_that_was_stored_is_told_without_waiting_for_the_watch(
    recorder: Recorder, revisions: RevisionFeed
) -> None:
    revisions.stored(revision("11"))

    assert changes(recorder) == [("revision_changed", "10"), ("revision_changed", "11")]
    assert recorder.changes == 3


def test_an_answer_that_comes_after_what_the_watch_told_is_left_out(
    recorder: Recorder, revisions: RevisionFeed
) -> None:
    """A deleted one would come back, and be rolled back to."""
    revisions.gone(AnyObject(Meta("r", resource_version="12")))

    revisions.stored(revision("11"))

    assert changes(recorder) == [("revision_changed", "10")]


def test_an_answer_while_controller_revisions_are_listed_is_left_to_list_and_watch(
    recorder: Recorder, revisions: RevisionFeed
) -> None:
    revisions.list_begun()

    revisions.stored(revision("11"))

    assert changes(recorder) == [("revision_changed", "10")]


def test_after_a_restored_backup_versions_count_from_the_next_list(recorder: Recorder, revisions: RevisionFeed) -> None:
    revisions.list_begun()
    revisions.upsert(revision("3"))
    revisions.listed(frozenset({"r"}))

    revisions.stored(revision("4"))

    assert changes(recorder)[-1] == ("revision_changed", "4")


# --- answers, by the kind of what was written ---------------------------------------------------------------------


STORED = (
    b'{"metadata": {"name": "a", "uid": "a", "resourceVersion": "11", "generation": 3}, "spec": {"nodeSelector": {}}}'
)


@pytest.fixture
def answers(recorder: Recorder, feed: PolicyFeed, revisions: RevisionFeed) -> AnswerFeed:
    """A feed after one policy and one ControllerRevision were heard of."""
    feed.watch_changed(policy("a", 1))
    recorder.told.clear()
    recorder.changes = 0
    return AnswerFeed(recorder, recorder, feed, revisions, StateFeed(recorder, recorder))


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        pytest.param(WriteKind.STATE_SPEC, "write_stored", id="spec of a node"),
        pytest.param(WriteKind.POLICY_STATUS, "policy_changed", id="status of a policy"),
        pytest.param(WriteKind.REVISION, "revision_changed", id="content of a policy"),
        pytest.param(WriteKind.POLICY_FINALIZER, None, id="finalizer"),
        pytest.param(WriteKind.CLASS_HOLD, None, id="hold of a class"),
    ],
)
def test_the_fleet_is_told_what_became_of_what_it_waits_for(
    recorder: Recorder, answers: AnswerFeed, kind: WriteKind, told: str | None
) -> None:
    answers.stored(Write(WriteKey(kind, "a"), b"{}"), STORED)

    assert [one[0] for one in recorder.told] == ([] if told is None else [told])
    assert recorder.changes == len(recorder.told)


def test_of_an_answer_that_leaves_nothing_to_decide_nobody_decides(recorder: Recorder, answers: AnswerFeed) -> None:
    """It comes once for each node that is written; most are ahead of the watch, which will tell."""
    recorder.decides = False

    answers.stored(Write(WriteKey(WriteKind.STATE_SPEC, "a"), b"{}"), STORED)

    assert [one[0] for one in recorder.told] == ["write_stored"]
    assert recorder.changes == 0


def test_the_generation_of_a_stored_spec_is_told(recorder: Recorder, answers: AnswerFeed) -> None:
    key = WriteKey(WriteKind.STATE_SPEC, "a")

    answers.stored(Write(key, b"{}"), STORED)

    assert recorder.told == [("write_stored", key, 3)]


@pytest.mark.parametrize("kind", [WriteKind.STATE_SPEC, WriteKind.POLICY_STATUS, WriteKind.REVISION])
def test_an_answer_that_cannot_be_read_is_left_to_the_watch(
    recorder: Recorder, answers: AnswerFeed, kind: WriteKind
) -> None:
    answers.stored(Write(WriteKey(kind, "a"), b"{}"), b"<html>")

    assert recorder.told == []


def state_at(version: int) -> StateObject:
    return StateObject(StateMeta("n1", resource_version=str(version)))


def test_what_the_watch_tells_late_of_a_node_that_we_wrote_is_skipped(recorder: Recorder) -> None:
    """Promise 7: it would look like somebody's edit, and a wish that is on its way like one that was overwritten."""
    feed = StateFeed(recorder, recorder)
    feed.stored("n1", "12")

    feed.upsert(state_at(11))
    feed.gone(AnyObject(Meta("n1", resource_version="11")))
    assert recorder.told == []
    feed.upsert(state_at(12))

    assert [call[0] for call in recorder.told] == ["state_changed"]


def test_after_the_watch_has_caught_up_versions_do_not_count(recorder: Recorder) -> None:
    feed = StateFeed(recorder, recorder)
    feed.stored("n1", "12")
    feed.upsert(state_at(12))

    feed.upsert(state_at(3))

    assert len(recorder.told) == 2


def test_a_list_that_began_after_the_answer_counts_also_where_versions_begin_again(recorder: Recorder) -> None:
    feed = StateFeed(recorder, recorder)
    feed.stored("n1", "12")

    feed.list_begun()
    feed.upsert(state_at(3))

    assert [call[0] for call in recorder.told] == ["state_changed"]


def test_a_list_that_is_older_than_the_answer_is_late(recorder: Recorder) -> None:
    feed = StateFeed(recorder, recorder)
    feed.list_begun()
    feed.stored("n1", "12")

    feed.upsert(state_at(3))

    assert recorder.told == []
