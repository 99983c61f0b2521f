# SPDX-License-Identifier: Apache-2.0
"""The judge of rollouts on a real API server finds what is wrong with a history, and nothing in a sound one."""

from __future__ import annotations

import copy
from typing import Any, Final

import pytest

from numamigration_api.machinery.canonical import wish_revision
from tests.apiserver.rollout_history import POLICIES, STATES, History
from tests.testbed.api import Json
from tests.testbed.recorder import Version

SOURCE: Final = {"policy": "pol", "uid": "u-pol", "generation": 1}


class Made:
    """A made-up history: each call stores one version."""

    def __init__(self) -> None:
        self.versions: list[Version] = []
        self._now: dict[tuple[str, str], Json] = {}

    def store(self, plural: str, name: str, part: str, content: Json) -> None:
        """Replace spec or status of an object."""
        new = {"metadata": {"uid": f"u-{name}", "generation": 0}}
        obj = copy.deepcopy(self._now.get((plural, name), new))
        obj["metadata"]["generation"] += part == "spec"
        obj[part] = content
        self._now[plural, name] = obj
        self.versions.append(Version(len(self.versions) + 1, plural, name, copy.deepcopy(obj)))

    def ledger(self, *reserved: str, carried: tuple[str, ...] = (), epoch: int = 1) -> None:
        rollout = {"reserved": list(reserved), "carried": list(carried), "leaderEpoch": epoch}
        self.store(POLICIES, "pol", "status", {"rollout": rollout})

    def push(self, node: str, *, epoch: int = 1, sequence: int = 1, **wish: Any) -> None:
        self.store(STATES, node, "spec", spec(epoch=epoch, sequence=sequence, **wish))

    def soak(self, node: str) -> None:
        groups = self._now[STATES, node]["spec"]["groups"]
        told = {group: {"soakedRevision": wish_revision(wish)} for group, wish in groups.items()}
        self.store(STATES, node, "status", {"groups": told})

    def findings(self, budget: int = 2) -> list[str]:
        return list(History({"pol": budget}).findings(self.versions))


def spec(*, epoch: int, sequence: int, group: str = "demotion", **wish: Any) -> Json:
    whole = {"mode": "Apply", "settings": {"enabled": True}, "source": SOURCE, **wish}
    return {"leaderEpoch": epoch, "writeSequence": sequence, "groups": {group: whole}}


@pytest.fixture
def made() -> Made:
    """A policy that two nodes wait for; the first one is named."""
    made = Made()
    made.store(POLICIES, "pol", "spec", {})
    made.ledger("a")
    return made


def test_nothing_is_found_in_a_sound_rollout(made: Made) -> None:
    made.push("a")
    made.ledger("b")
    made.push("b", sequence=2)
    made.soak("a")
    made.ledger("c", carried=("b",), epoch=2)
    made.push("c", epoch=2)

    assert made.findings() == []


def test_one_named_node_too_many_is_found(made: Made) -> None:
    made.push("a")
    made.ledger("a", "b", "c")

    (finding,) = made.findings()
    assert finding.startswith("at 4: migrationpolicies pol: 3 nodes of pol")


def test_a_node_that_is_dropped_from_the_ledger_counts_until_it_has_soaked(made: Made) -> None:
    made.push("a")
    made.ledger("b", "c")

    (finding,) = made.findings()
    assert "3 nodes of pol are reserved or unproven, 2 may be: ['a', 'b', 'c']" in finding


def test_carried_nodes_count(made: Made) -> None:
    made.ledger("a", carried=("b", "c"))

    assert len(made.findings()) == 1


def test_a_soak_of_another_wish_is_no_proof(made: Made) -> None:
    made.push("a")
    made.soak("a")
    made.push("a", sequence=2, settings={"enabled": False})
    made.ledger("b", "c")

    assert len(made.findings()) == 1


def test_a_push_that_no_ledger_named_before_is_found(made: Made) -> None:
    made.push("b")
    made.ledger("b")

    (finding,) = made.findings()
    assert finding == "at 3: nodemigrationstates b: demotion is pushed, and the ledger of pol names ['a']"


def test_a_push_of_new_settings_that_no_ledger_names_any_more_is_found(made: Made) -> None:
    made.push("a")
    made.soak("a")
    made.ledger()
    made.push("a", sequence=2, settings={"enabled": False})

    (finding,) = made.findings()
    assert finding.startswith("at 6: nodemigrationstates a: demotion is pushed")


def test_writing_the_same_wish_again_is_no_push(made: Made) -> None:
    made.push("a")
    made.soak("a")
    made.ledger()
    made.push("a", epoch=2, source={**SOURCE, "generation": 2})

    assert made.findings() == []


@pytest.mark.parametrize(
    "wish",
    [
        pytest.param({"mode": "Restore"}, id="restore"),
        pytest.param({"mode": "Hold"}, id="hold"),
        pytest.param({"group": "offload", "settings": {"engine": "Off"}}, id="offload off"),
    ],
)
def test_the_safe_direction_needs_no_ledger_and_counts_nowhere(made: Made, wish: Json) -> None:
    for node in "bcd":
        made.push(node, **wish)

    assert made.findings() == []


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        pytest.param((2, 1), (1, 9), True, id="an older epoch"),
        pytest.param((2, 5), (2, 4), True, id="an older number of the same epoch"),
        pytest.param((2, 5), (3, 1), False, id="numbers begin anew with an epoch"),
        pytest.param((2, 5), (2, 5), False, id="the same again"),
    ],
)
def test_an_epoch_or_a_number_that_falls_is_found(
    made: Made, old: tuple[int, int], new: tuple[int, int], found: bool
) -> None:
    made.push("a", epoch=old[0], sequence=old[1])
    made.push("a", epoch=new[0], sequence=new[1])

    assert any("falls from" in finding for finding in made.findings()) is found


def test_the_epoch_of_a_policy_that_falls_is_found(made: Made) -> None:
    made.ledger(epoch=3)
    made.ledger(epoch=2)

    (finding,) = made.findings()
    assert finding.endswith("falls from (3, 0) to (2, 0)")


def test_a_history_that_misses_a_spec_is_found(made: Made) -> None:
    for sequence in (1, 2, 3):
        made.push("a", sequence=sequence)
    del made.versions[-2]

    (finding,) = made.findings()
    assert finding.endswith("generation 3 follows on 1: what was between was not seen")


def test_what_is_deleted_counts_no_longer(made: Made) -> None:
    made.push("a")
    made.versions.append(Version(4, STATES, "a", {}))
    made.ledger("b", "c")

    assert made.findings() == []


def test_what_each_leader_changed_is_told_with_its_version(made: Made) -> None:
    made.push("a", epoch=1)
    made.push("b", epoch=1)
    made.soak("a")
    made.push("a", epoch=2)
    history = History({})

    assert list(history.findings(made.versions)) == []
    assert history.changed == {1: [(2, "pol"), (3, "a"), (4, "b")], 2: [(6, "a")]}
