# SPDX-License-Identifier: Apache-2.0
"""Measuring a hardware class on a real kube-apiserver, with the operator's own rights; the tests play the agents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from numamigration_api.machinery.profiles import profile_name
from tests.apiserver.operator_process import (
    API_VERSION,
    POLICIES,
    STATES,
    OperatorProcess,
    make_node,
    make_policy,
    report,
)
from tests.testbed.api import Api, ApiError, Json, poll

pytestmark = pytest.mark.uncounted

PROFILES: Final = f"/apis/{API_VERSION}/migrationprofiles"
CHOICE: Final = {"engine": "DMA", "channels": 8, "gain": "2.5"}

UniqueName = Callable[[str], str]


class Class:
    """Nodes of one hardware class, and a tuned policy of that name."""

    def __init__(self, api: Api, name: str, size: int = 2) -> None:
        self.api, self.name = api, name
        self.nodes = [f"{name}-{number}" for number in range(size)]
        for node in self.nodes:
            make_node(api, node, fleet=name)
            self.answer(api.watch_until(f"{STATES}/{node}", bool))

    @property
    def profile(self) -> str:
        return f"{PROFILES}/{profile_name('V6', self.name)}"

    def make_policy(self, **spec: Any) -> None:
        selector = {"matchLabels": {"fleet": self.name}}
        make_policy(self.api, self.name, "", **{"nodeSelector": selector, "tuning": {"mode": "Auto"}} | spec)

    def states(self) -> list[Json]:
        return [state for state in self.api.list_items(STATES) if state["metadata"]["name"] in self.nodes]

    def answer(self, state: Json, **probe: Any) -> None:
        asked = state["spec"].get("probe")
        said: dict[str, Any] = (
            {"probe": {"id": asked["id"], "phase": "Done", "reason": "Measured", **probe}} if asked else {}
        )
        report(self.api, state, "Ready", hardwareClass=self.name, **said)

    def until(self, path: str, holds: Callable[[Json], Any]) -> Json:
        """Let agents answer what is new to them until an object is as awaited; return it."""

        def look() -> Json:
            for state in self.states():
                if state.get("status", {}).get("observedGeneration") != state["metadata"]["generation"]:
                    self.answer(state, choice=CHOICE)
            found = self.api.get_if_exists(path)
            return found if found and holds(found) else {}

        return poll(look, f"{path} as awaited")


@pytest.fixture
def tuned(api: Api, operator: OperatorProcess, unique_name: UniqueName) -> Class:  # noqa: ARG001
    return Class(api, unique_name("class"))


def test_a_tuned_class_is_measured_and_its_nodes_get_what_was_found(tuned: Class) -> None:
    tuned.make_policy(settings={})

    profile = tuned.until(tuned.profile, lambda one: one.get("status", {}).get("phase") == "Measured")
    assert profile["spec"] == {"dialect": "V6", "hardwareClass": tuned.name}
    assert profile["status"]["recommendation"] == {"engine": "DMA", "channels": 8}
    assert [one["node"] for one in profile["status"]["nodes"]] == tuned.nodes

    def has_it(state: Json) -> bool:
        offload = state["spec"].get("groups", {}).get("offload", {}).get("settings", {})
        wanted = {"name": profile["metadata"]["name"], "engine": "DMA", "channels": 8}
        return wanted in offload.get("profiles", []) and "probe" not in state["spec"]

    for node in tuned.nodes:
        tuned.until(f"{STATES}/{node}", has_it)


def test_a_question_to_a_node_leaves_the_rest_of_its_spec_alone(tuned: Class) -> None:
    tuned.make_policy(settings={"demotion": {"enabled": True}}, tuning={"mode": "Recommend"})

    def is_asked(state: Json) -> bool:
        return "probe" in state["spec"] and "demotion" in state["spec"].get("groups", {})

    asked = poll(lambda: next(filter(is_asked, tuned.states()), {}), "a node that is asked")
    assert asked["spec"]["probe"]["candidates"] == [{"engine": "DMA", "channels": n} for n in (1, 2, 4, 8, 16)]


def test_a_profile_says_for_ever_whom_it_is_about(tuned: Class) -> None:
    tuned.make_policy(settings={})
    tuned.until(tuned.profile, bool)

    with pytest.raises(ApiError, match="one class for ever"):
        tuned.api.merge_patch(tuned.profile, {"spec": {"hardwareClass": "another"}})


def test_an_offload_without_an_engine_is_refused_where_nothing_is_measured(api: Api, unique_name: UniqueName) -> None:
    with pytest.raises(ApiError, match="offload needs an engine"):
        make_policy(api, unique_name("p"), "", settings={"offload": {"reasons": ["damon"]}})


def test_a_tuned_policy_may_leave_the_engine_out(api: Api, unique_name: UniqueName) -> None:
    name = unique_name("p")
    make_policy(api, name, "", settings={"offload": {"reasons": ["damon"]}}, tuning={"mode": "Auto"})

    assert api.get(f"{POLICIES}/{name}")["spec"]["settings"]["offload"] == {"reasons": ["damon"]}
