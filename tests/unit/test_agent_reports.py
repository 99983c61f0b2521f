# SPDX-License-Identifier: Apache-2.0
"""When to report."""

from __future__ import annotations

from typing import Any

import pytest

from numamigration_agent.baseline import Baselines
from numamigration_agent.cluster import ApplyKind, ApplyResult
from numamigration_agent.kernel.codecs import Value
from numamigration_agent.reports import RETRY_SECONDS_FIRST, RETRY_SECONDS_MAX, Reports
from tests.unit.agent_rig import APPLIED, Longest

RETRY = ApplyResult(ApplyKind.RETRY, "no answer")
STATUS: dict[str, Any] = {
    "bootID": "boot",
    "conditions": [],
    "offload": "Off",
    "knobs": [{"field": "offload.channels", "baseline": "1"}],
}


@pytest.fixture
def reports() -> Reports:
    return Reports(300, 600, Longest())


def test_waits_grow_while_the_api_server_is_away_and_begin_anew_after_it_answered(reports: Reports) -> None:
    waits = []
    for result in (RETRY, RETRY, RETRY, APPLIED, RETRY):
        reports.send(STATUS, 0)
        reports.answered(result, 0)
        waits.append(reports.next_at)

    assert waits[0] == RETRY_SECONDS_FIRST
    assert waits[:3] == sorted(set(waits[:3]))
    assert waits[4] == RETRY_SECONDS_FIRST


def test_no_wait_is_longer_than_its_bound(reports: Reports) -> None:
    for _ in range(50):
        reports.send(STATUS, 0)
        reports.answered(RETRY, 0)

    assert reports.next_at == RETRY_SECONDS_MAX


def test_an_answer_meant_for_a_node_state_that_is_gone_proves_nothing_about_its_successor(reports: Reports) -> None:
    """Promise 1: baselines count as reported only when this very object has them."""
    successor = {"bootID": "boot", "knobs": [{"field": "batch.minSize", "baseline": "1"}]}
    reports.seen({"metadata": {"uid": "one"}}, "boot")
    reports.send(STATUS, 0)
    reports.seen({"metadata": {"uid": "two"}, "status": successor}, "boot")

    reports.answered(APPLIED, 0)

    assert reports.baselines == {"batch.minSize": "1"}
    assert reports.wants(STATUS, 0)


def test_an_edit_that_is_seen_before_the_answer_to_a_report_is_not_taken_back_by_it(reports: Reports) -> None:
    """Promise 1: the watch may be ahead of the answer, and then the status has no value of before any more."""
    reports.seen({"metadata": {"uid": "one"}}, "boot")
    reports.send(STATUS, 0)
    reports.seen({"metadata": {"uid": "one"}, "status": STATUS}, "boot")
    reports.seen({"metadata": {"uid": "one"}, "status": {"bootID": "boot"}}, "boot")

    reports.answered(APPLIED, 0)

    assert reports.baselines == {}
    assert reports.wants(STATUS, 0)


def test_an_older_status_that_came_back_before_the_answer_to_a_report_is_not_taken_for_a_late_one(
    reports: Reports,
) -> None:
    """Promise 1: the watch has brought the report already, so whoever put the older one there came after it."""
    older = {**STATUS, "offload": "On", "knobs": []}
    reports.seen({"metadata": {"uid": "one"}}, "boot")
    reports.send(older, 0)
    reports.answered(APPLIED, 0)
    reports.send(STATUS, 0)
    reports.seen({"metadata": {"uid": "one"}, "status": STATUS}, "boot")
    reports.seen({"metadata": {"uid": "one"}, "status": older}, "boot")

    reports.answered(APPLIED, 0)

    assert reports.baselines == {}
    assert reports.wants(STATUS, 0)


def test_a_status_that_was_cleared_before_the_answer_to_a_report_is_told_again(reports: Reports) -> None:
    """Promise 1: it looks like that of a new object, which the agent knows."""
    reports.seen({"metadata": {"uid": "one"}}, "boot")
    reports.send(STATUS, 0)
    reports.seen({"metadata": {"uid": "one"}, "status": STATUS}, "boot")
    reports.seen({"metadata": {"uid": "one"}}, "boot")

    reports.answered(APPLIED, 0)

    assert reports.baselines == {}
    assert reports.wants(STATUS, 0)


def test_an_edit_that_a_report_has_overwritten_is_over(reports: Reports) -> None:
    """Promise 12: it is told once for each edit."""
    reports.seen({"metadata": {"uid": "one"}}, "boot")
    reports.seen({"metadata": {"uid": "one"}, "status": {"bootID": "boot"}}, "boot")
    reports.send(STATUS, 0)

    reports.answered(APPLIED, 0)

    assert reports.baselines == {"offload.channels": "1"}
    assert not reports.wants(STATUS, 0)


def test_what_the_server_asks_for_is_obeyed(reports: Reports) -> None:
    reports.send(STATUS, 0)
    reports.answered(RETRY._replace(retry_after=120.0), 0)

    assert not reports.wants(STATUS, 119)
    assert reports.wants(STATUS, 122)


def test_an_object_made_anew_is_told_everything_again(reports: Reports) -> None:
    reports.seen({"metadata": {"uid": "one"}, "status": STATUS}, "boot")
    reports.send(STATUS, 0)
    reports.answered(APPLIED, 0)
    assert not reports.wants(STATUS, 1)
    assert reports.has(Baselines("boot", {"offload.channels": Value("1")}))

    reports.seen({"metadata": {"uid": "two"}}, "boot")

    assert reports.wants(STATUS, 1)
    assert not reports.has(Baselines("boot", {"offload.channels": Value("1")}))


def test_baselines_that_somebody_took_out_of_the_status_are_told_again(reports: Reports) -> None:
    """Promise 1: the second copy of what was before does not wait for the next interval."""
    reports.seen({"metadata": {"uid": "one"}, "status": STATUS}, "boot")
    reports.send(STATUS, 0)
    reports.answered(APPLIED, 0)

    reports.seen({"metadata": {"uid": "one"}, "status": {**STATUS, "knobs": []}}, "boot")

    assert reports.wants(STATUS, 1)


@pytest.mark.parametrize("result", [APPLIED, RETRY, None])
def test_an_older_copy_proves_no_baseline_that_the_last_report_left_out(
    reports: Reports, result: ApplyResult | None
) -> None:
    """Promise 1: the watch brings the object as it was before the report, answered or not, and that may arrive yet."""
    baselines = {"offload.channels": Value("1")}
    reports.send(STATUS, 0)
    reports.answered(APPLIED, 0)
    reports.send({**STATUS, "knobs": []}, 1)
    if result:
        reports.answered(result, 1)

    reports.seen({"metadata": {}, "status": STATUS}, "boot")

    assert not reports.has(Baselines("boot", baselines))


def test_what_an_older_crd_keeps_of_a_status_is_no_edit(reports: Reports) -> None:
    """Promise 12: it will keep no more of it the next time."""
    reports.seen({"metadata": {"uid": "one"}, "status": {}}, "boot")
    reports.send(STATUS, 0)
    reports.answered(ApplyResult(ApplyKind.SKEW, "no such field"), 0)

    kept = {name: value for name, value in STATUS.items() if name != "offload"}
    reports.seen({"metadata": {"uid": "one"}, "status": kept}, "boot")

    assert not reports.wants(STATUS, 1)


def test_only_one_report_is_under_way(reports: Reports) -> None:
    reports.send(STATUS, 0)

    assert not reports.wants({**STATUS, "offload": "Unknown"}, 1000)


def test_a_report_that_is_hastened_is_due_at_once_and_only_once(reports: Reports) -> None:
    reports.send(STATUS, 0)
    reports.answered(ApplyResult(ApplyKind.APPLIED), 0)
    assert not reports.wants(STATUS, 1)

    reports.hasten(1)
    assert reports.wants(STATUS, 1)

    reports.send(STATUS, 1)
    reports.answered(ApplyResult(ApplyKind.APPLIED), 1)
    assert not reports.wants(STATUS, 2)
