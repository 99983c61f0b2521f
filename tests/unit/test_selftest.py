# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from numamigration_operator.commands.selftest import Agents, look, selftest, told
from numamigration_operator.core.objects import StateObject
from tests.unit.test_commands import ok, run, scripted

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
TAKEN = ok({})


def state(name: str, *, seconds_ago: float | None, dialect: str = "V6") -> dict[str, Any]:
    status: dict[str, Any] = {"dialect": dialect}
    if seconds_ago is not None:
        status["reportedAt"] = (NOW - timedelta(seconds=seconds_ago)).isoformat()
    return {"metadata": {"name": name, "resourceVersion": "1", "uid": name}, "status": status}


def looked(*states: dict[str, Any]) -> Agents:
    return look((msgspec.convert(one, StateObject) for one in states), NOW)


def test_agents_that_report_are_counted_by_dialect() -> None:
    found = looked(state("a", seconds_ago=3), state("b", seconds_ago=3), state("c", seconds_ago=3, dialect="NoSeries"))

    assert told(found) == ["agents: 3 of 3 nodes report: NoSeries on 1, V6 on 2"]


@pytest.mark.parametrize(
    ("seconds_ago", "silent"),
    [
        pytest.param(None, ("a",), id="never"),
        pytest.param(1200, (), id="just so"),
        pytest.param(1201, ("a",), id="for too long"),
        pytest.param(-60, (), id="a clock that is ahead"),
    ],
)
def test_an_agent_is_silent_when_it_has_not_reported_for_two_intervals(
    seconds_ago: float | None, silent: tuple[str, ...]
) -> None:
    assert looked(state("a", seconds_ago=seconds_ago)).silent == silent


def test_silent_agents_are_named_up_to_a_bound() -> None:
    found = looked(state("here", seconds_ago=1), *(state(f"n{number:02}", seconds_ago=None) for number in range(22)))

    first, second = told(found)
    assert first == "agents: 1 of 23 nodes report: V6 on 1"
    assert second.startswith("agents: silent: n00, n01, ")
    assert "n19 and 2 more; look at the pods" in second


def test_no_node_state_at_all_is_another_word() -> None:
    assert "there is no node state" in told(looked())[0]


def listed(*states: dict[str, Any], more: str = "") -> Any:
    return ok({"metadata": {"resourceVersion": "1", "continue": more}, "items": list(states)})


def outcome(*answers: Any, wait_seconds: float = 0) -> tuple[bool, list[str], Any]:
    said: list[str] = []
    client = scripted(*answers)
    return run(selftest(client, wait_seconds, said.append)), said, client


def fresh(name: str) -> dict[str, Any]:
    return {**state(name, seconds_ago=None), "status": {"reportedAt": datetime.now(UTC).isoformat(), "dialect": "V6"}}


def test_one_agent_that_reports_is_enough() -> None:
    done, said, _ = outcome(TAKEN, listed(fresh("a"), state("b", seconds_ago=None)))

    assert done
    assert said[0] == "policy: the API server would take one"
    assert "1 of 2 nodes report" in said[1]


def test_no_agent_that_reports_is_a_failure() -> None:
    done, said, _ = outcome(TAKEN, listed(state("b", seconds_ago=None)))

    assert not done
    assert "0 of 1 nodes report" in said[1]


def test_every_page_of_a_large_fleet_is_read() -> None:
    done, said, _ = outcome(TAKEN, listed(fresh("a"), more="next"), listed(fresh("b")))

    assert done
    assert "2 of 2 nodes report" in said[1]


def test_a_policy_that_is_refused_fails_with_the_words_of_the_api_server() -> None:
    done, said, client = outcome(ok({"message": "spec.mode: Unsupported value"}, status=422))

    assert not done
    assert said == ["policy: refused: 422: spec.mode: Unsupported value"]
    assert len(client.sent) == 1


def test_a_missing_kind_says_what_to_install() -> None:
    _, said, _ = outcome(ok({"message": "the server could not find the requested resource"}, status=404))

    assert said == ["policy: refused: there is no such kind; install the CRDs: numamigration-operator crds apply"]
