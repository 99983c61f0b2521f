# SPDX-License-Identifier: Apache-2.0
"""Rollouts on a real kube-apiserver: who is pushed when, as its own watch history has it; the tests play the agents."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from tests.apiserver import rollout_history
from tests.apiserver.operator_process import (
    ACCOUNT,
    NAMESPACE,
    POLICIES,
    STATES,
    OperatorProcess,
    account,
    buckets,
    forget_leader,
    groups,
    is_through,
    join,
    make_policy,
    report,
)
from tests.apiserver.rollout_history import History
from tests.testbed.api import Api, ApiError, Json, condition, poll
from tests.testbed.controlplane import ControlPlane
from tests.testbed.recorder import Version

pytestmark = pytest.mark.uncounted

REVISIONS: Final = f"/apis/apps/v1/namespaces/{NAMESPACE}/controllerrevisions"
EVENTS: Final = "/apis/events.k8s.io/v1/namespaces/default/events"
POLICY_UID: Final = "numamigration.dev/policy-uid"
CELL: Final = "cell.numamigration.dev/"
FLEET: Final = 8
BUDGET: Final = 3
CAREFUL: Final = {"canary": {"nodes": 1, "soakSeconds": 300}, "maxUnproven": BUDGET}

UniqueName = Callable[[str], str]


class Moment(NamedTuple):
    """What stood in the API server after one of its writes; by name."""

    policies: dict[str, Json]
    states: dict[str, Json]


def stored(api: Api, since: str) -> list[Version]:
    """Return every version since a resource version that a watch of both kinds tells of, in the order of etcd."""
    found = []
    for path in (POLICIES, STATES):
        for line in api.text(f"{path}?watch=true&resourceVersion={since}&timeoutSeconds=1").splitlines():
            event = json.loads(line)
            metadata, obj = event["object"]["metadata"], {} if event["type"] == "DELETED" else event["object"]
            found.append(Version(int(metadata["resourceVersion"]), path.rpartition("/")[2], metadata["name"], obj))
    return sorted(found, key=lambda version: version.revision)


def moments(versions: Iterable[Version]) -> Iterator[Moment]:
    """Yield what stood there after each version."""
    now = Moment({}, {})
    for _, plural, name, obj in versions:
        kind = now.states if plural == rollout_history.STATES else now.policies
        kind[name] = obj
        if not obj:
            del kind[name]
        yield now


def is_pushed(state: Json) -> bool:
    return bool(groups(state).get("demotion", {}).get("mode") == "Apply")


def has_soaked(state: Json) -> bool:
    return is_pushed(state) and rollout_history.has_soaked(state, "demotion", groups(state)["demotion"])


def enabled(state: Json) -> Any:
    return groups(state).get("demotion", {}).get("settings", {}).get("enabled")


class Fleet:
    """Nodes of one label, whose agents this plays, and the policy of that name."""

    def __init__(self, api: Api, name: str, size: int = FLEET) -> None:
        self.api, self.name = api, name
        self.since: str = api.request("GET", STATES)["metadata"]["resourceVersion"]
        self.nodes = [f"{name}-{number}" for number in range(size)]
        for node in self.nodes:
            join(api, node, fleet=name)

    @property
    def path(self) -> str:
        return f"{POLICIES}/{self.name}"

    def make_policy(self, **changes: Any) -> Json:
        selector = {"matchLabels": {"fleet": self.name}}
        return make_policy(self.api, self.name, "", nodeSelector=selector, rollout={**CAREFUL, **changes})

    def edit(self, *, value: bool) -> None:
        self.api.merge_patch(self.path, {"spec": {"settings": {"demotion": {"enabled": value}}}})

    def states(self) -> list[Json]:
        return [state for state in self.api.list_items(STATES) if state["metadata"]["name"] in self.nodes]

    def answer(self, word: str = "Ready", *, soaked: bool = True) -> None:
        """Let every agent report that has something new to report."""
        for state in self.states():
            if groups(state) and not has_soaked(state) and told(state) not in {"Failed", "Restored"}:
                report(self.api, state, "Restored" if restores(state) else word, soaked=soaked)

    def until(self, holds: Callable[[Json], bool], word: str = "Ready") -> Json:
        """Let the agents answer until the policy is as awaited; return it."""

        def look() -> Json:
            self.answer(word)
            policy = self.api.get(self.path)
            return policy if holds(policy) else {}

        return poll(look, f"{self.path} as awaited")

    def first(self) -> Json:
        """Return the node state that is pushed first."""
        return poll(lambda: next((state for state in self.states() if is_pushed(state)), {}), "a canary")

    def revisions(self) -> list[Json]:
        """Return what is stored of the policy, the oldest first."""
        selector = {"labelSelector": f"{POLICY_UID}={self.api.get(self.path)['metadata']['uid']}"}
        return sorted(self.api.list_items(REVISIONS, query=selector), key=lambda one: int(one["revision"]))

    def versions(self) -> list[Version]:
        """Return every version of the policy and the nodes."""
        return [version for version in stored(self.api, self.since) if version.name in {self.name, *self.nodes}]

    def history(self) -> Iterator[Moment]:
        return moments(self.versions())

    def check_budget(self, *, used: bool = True) -> None:
        """Check what promise 8 says, at every moment there was, and unless told otherwise that all of it was used."""
        history = History({self.name: BUDGET})
        assert list(history.findings(self.versions())) == []
        assert history.most[self.name] == BUDGET or not used, "the budget was not used"


def told(state: Json) -> str:
    """Return what the agent says of the spec as it stands."""
    status = state.get("status", {})
    current = status.get("observedGeneration") == state["metadata"]["generation"]
    return str(status.get("groups", {}).get("demotion", {}).get("state", "")) if current else ""


def restores(state: Json) -> bool:
    return bool(groups(state)["demotion"]["mode"] == "Restore")


def phase(policy: Json) -> str:
    return str(policy.get("status", {}).get("rollout", {}).get("phase", ""))


def verdicts(revision: Json) -> list[Json]:
    annotations = revision["metadata"].get("annotations", {})
    return [json.loads(text) for key, text in annotations.items() if key.startswith(CELL)]


@pytest.fixture
def fleet(bed: ControlPlane, operator: OperatorProcess, unique_name: UniqueName) -> Iterator[Fleet]:  # noqa: ARG001
    fleet = Fleet(bed.api, unique_name("fleet"))
    yield fleet
    if bed.api.get_if_exists(fleet.path):
        bed.api.merge_patch(fleet.path, {"spec": {"onDelete": "Keep"}})
        bed.api.watch_until(fleet.path, lambda policy: "finalizers" not in policy["metadata"])
        bed.api.delete(fleet.path)


# --- order and budget ---------------------------------------------------------------------------------------------


def test_one_node_is_pushed_and_the_others_wait_until_it_is_proven(fleet: Fleet) -> None:
    fleet.make_policy()
    report(fleet.api, fleet.first(), "Ready", soaked=False)
    shown = fleet.api.watch_until(fleet.path, lambda policy: phase(policy) == "Soaking")
    assert buckets(shown) == {"pending": FLEET}

    fleet.until(is_through)

    pushes = [
        (sum(map(is_pushed, moment.states.values())), any(map(has_soaked, moment.states.values())))
        for moment in fleet.history()
    ]
    assert {number for number, is_proven in pushes if not is_proven} == {0, 1}
    assert pushes[-1] == (FLEET, True)


def test_each_node_is_reserved_before_it_is_pushed(fleet: Fleet) -> None:
    """Promise 8: whoever leads next sees whom this leader may be pushing."""
    fleet.make_policy()

    fleet.until(is_through)

    reserved, pushed = set[str](), set[str]()
    for moment in fleet.history():
        reserved.update(moment.policies.get(fleet.name, {}).get("status", {}).get("rollout", {}).get("reserved", []))
        pushed.update(name for name, state in moment.states.items() if is_pushed(state))
        assert pushed <= reserved
    assert pushed == set(fleet.nodes)


def test_no_more_nodes_are_reserved_or_unproven_than_the_policy_allows(fleet: Fleet) -> None:
    """Promise 8, as the API server's own history has it."""
    fleet.make_policy()

    fleet.until(is_through)

    fleet.check_budget()


def test_an_edit_in_the_middle_of_a_rollout_takes_no_more_than_the_budget(fleet: Fleet) -> None:
    """Promise 8: nodes that the superseded revision left unproven count on."""
    fleet.make_policy()
    fleet.until(lambda _: sum(map(is_pushed, fleet.states())) > BUDGET)

    fleet.edit(value=False)

    fleet.until(lambda policy: policy["status"]["observedGeneration"] == 2 and is_through(policy))
    assert {enabled(state) for state in fleet.states()} == {False}
    fleet.check_budget()


def test_an_operator_that_is_killed_in_the_middle_of_a_rollout_leaves_a_budget_that_the_next_one_keeps(
    bed: ControlPlane, tmp_path: Path, unique_name: UniqueName
) -> None:
    """Promise 8: a crash at any point."""
    kubeconfig = bed.kubeconfig_for(account(bed), name=ACCOUNT)
    with OperatorProcess(kubeconfig, tmp_path / "first") as first:
        fleet = Fleet(bed.api, unique_name("fleet"))
        fleet.make_policy()
        fleet.until(lambda _: sum(map(is_pushed, fleet.states())) > 1)
        first.kill()
        forget_leader(bed.api)

    with OperatorProcess(kubeconfig, tmp_path / "second"):
        fleet.until(is_through)

        # Where the kill falls decides how many nodes were left for waves of the second one.
        fleet.check_budget(used=False)
        bed.api.merge_patch(fleet.path, {"spec": {"onDelete": "Keep"}})
        bed.api.watch_until(fleet.path, lambda policy: "finalizers" not in policy["metadata"])
        bed.api.delete(fleet.path)


# --- failure ------------------------------------------------------------------------------------------------------


def test_a_canary_that_fails_is_restored_and_status_and_event_say_so(fleet: Fleet) -> None:
    fleet.make_policy()
    canary = fleet.first()

    report(fleet.api, canary, "Failed")

    shown = fleet.until(lambda policy: phase(policy) == "RolledBack", word="Failed")
    assert f"canary {canary['metadata']['name']} failed" in shown["status"]["rollout"]["message"]
    assert condition(shown, "Ready")["status"] == "False"
    (verdict,) = verdicts(fleet.revisions()[0])
    assert (verdict["verdict"], verdict["generation"]) == ("Failed", 1)
    assert {name for moment in fleet.history() for name, one in moment.states.items() if is_pushed(one)} == {
        canary["metadata"]["name"]
    }
    poll(lambda: "RolledBack" in event_reasons(fleet), "an Event")


def event_reasons(fleet: Fleet) -> set[str]:
    events = fleet.api.list_items(EVENTS)
    return {one["reason"] for one in events if one.get("regarding", {}).get("name") == fleet.name}


def test_what_fails_goes_back_to_the_revision_that_was_proven(fleet: Fleet) -> None:
    fleet.make_policy()
    fleet.until(is_through)
    fleet.edit(value=False)
    canary = fleet.api.watch_until(fleet.path, lambda policy: policy["status"]["observedGeneration"] == 2)
    canary = poll(lambda: next((one for one in fleet.states() if enabled(one) is False), {}), "a canary")

    report(fleet.api, canary, "Failed")

    fleet.until(lambda policy: phase(policy) == "RolledBack")
    assert {enabled(state) for state in fleet.states()} == {True}
    good, bad = fleet.revisions()
    assert [(one["verdict"], one["complete"]) for one in verdicts(good)] == [("Proven", True)]
    assert [one["verdict"] for one in verdicts(bad)] == ["Failed"]


def test_halt_leaves_what_failed_and_pushes_nobody_else(fleet: Fleet) -> None:
    fleet.make_policy(onFailure="Halt")
    canary = fleet.first()

    report(fleet.api, canary, "Failed")

    shown = fleet.api.watch_until(fleet.path, lambda policy: phase(policy) == "Halted")
    assert buckets(shown) == {"failed": 1, "pending": FLEET - 1}
    assert [state["metadata"]["name"] for state in fleet.states() if groups(state)] == [canary["metadata"]["name"]]


# --- revisions ----------------------------------------------------------------------------------------------------


def test_each_content_is_stored_once_and_goes_with_its_policy(fleet: Fleet) -> None:
    """The garbage collector deletes what has lost its owner, and no other object names the policy."""
    policy = fleet.make_policy(maxUnproven="100%")
    fleet.until(is_through)
    fleet.edit(value=False)
    fleet.until(lambda shown: shown["status"]["observedGeneration"] == 2 and is_through(shown))
    fleet.edit(value=True)
    fleet.until(lambda shown: shown["status"]["observedGeneration"] == 3 and is_through(shown))

    stored = fleet.revisions()

    owner = {"apiVersion": policy["apiVersion"], "kind": "MigrationPolicy", "name": fleet.name}
    for one in stored:
        assert one["metadata"]["ownerReferences"] == [{**owner, "uid": policy["metadata"]["uid"]}]
        assert one["metadata"]["labels"] == {POLICY_UID: policy["metadata"]["uid"]}
        assert [found["verdict"] for found in verdicts(one)] == ["Proven"]
    assert [one["data"]["settings"]["demotion"]["enabled"] for one in stored] == [False, True]
    assert [one["revision"] for one in stored] == [2, 3]


# --- what people do -----------------------------------------------------------------------------------------------


def test_revisions_that_are_deleted_by_hand_in_the_middle_of_a_rollout_do_not_stop_it(fleet: Fleet) -> None:
    fleet.make_policy()
    canary = fleet.first()
    for revision in fleet.revisions():
        fleet.api.delete(f"{REVISIONS}/{revision['metadata']['name']}")
    report(fleet.api, canary, "Ready")

    fleet.until(is_through)

    assert len(fleet.revisions()) == 1
    fleet.check_budget()


@pytest.mark.parametrize("wiped", [{"reserved": None}, {"reserved": None, "cursor": None, "revision": None}])
def test_a_ledger_that_is_wiped_by_hand_is_written_anew_within_the_budget(fleet: Fleet, wiped: dict[str, None]) -> None:
    """Promise 8: what was pushed still counts, whoever took its name away."""
    fleet.make_policy()
    report(fleet.api, fleet.first(), "Ready", soaked=False)

    fleet.api.merge_patch(fleet.path, {"status": {"rollout": wiped}}, subresource="status")

    fleet.until(is_through)
    assert {enabled(state) for state in fleet.states()} == {True}
    fleet.check_budget()


@pytest.mark.parametrize("status", [None, {"rollout": None}])
def test_a_status_that_is_wiped_by_hand_is_refused_with_the_epoch_in_it(fleet: Fleet, status: Json | None) -> None:
    """Promise 8: a deposed leader could write again."""
    fleet.make_policy()
    fleet.first()

    with pytest.raises(ApiError, match="another operator leads now"):
        fleet.api.merge_patch(fleet.path, {"status": status}, subresource="status")
