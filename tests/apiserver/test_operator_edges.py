# SPDX-License-Identifier: Apache-2.0
"""Everything between the API server and the fleet, with a fleet that decides what a test tells it.

It runs with the rights of deploy/rbac.yaml, on a real kube-apiserver.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import deque
from collections.abc import Callable
from datetime import datetime
from random import Random
from typing import Any, Final

import pytest

from numamigration_operator.cluster.client import Access, Client
from numamigration_operator.core.decisions import Decisions, Patch, Write, WriteKey, WriteKind
from numamigration_operator.metrics import Metrics
from numamigration_operator.runtime import Operator
from numamigration_operator.settings import OperatorSettings
from tests.apiserver.operator_process import (
    ACCOUNT,
    API_VERSION,
    NAMESPACE,
    NODES,
    POLICIES,
    STATES,
    account,
    make_node,
    make_policy,
)
from tests.testbed.api import ApiError, Json
from tests.testbed.controlplane import ControlPlane

UniqueName = Callable[[str], str]
REVISIONS: Final = f"/apis/apps/v1/namespaces/{NAMESPACE}/controllerrevisions"
CONTROL: Final = f"/api/v1/namespaces/{NAMESPACE}/configmaps/numamigration-control"
WAIT_SECONDS_MAX: Final = 30.0
LOOK_SECONDS: Final = 0.02


class ToldFleet:
    """Decides what it is given, one after the other, and keeps what it is told."""

    greatest_epoch = 0

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.to_decide: deque[Decisions] = deque()
        self._news = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self._tell(name, *arguments)

    def _tell(self, *told: Any) -> None:
        self.told.append(told)
        self._news.set()

    @property
    def synced(self) -> bool:
        kinds = {told[0] for told in self.told}
        return {"policies_listed", "nodes_listed", "states_listed", "revisions_listed"} <= kinds

    def decide(self, now: float, wall: datetime) -> Decisions:  # noqa: ARG002 - as a fleet
        return self.to_decide.popleft() if self.to_decide else Decisions(look_again=now + LOOK_SECONDS)

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        return [told[1:] for told in self.told if told[0] == kind]

    async def until(self, condition: Callable[[], Any]) -> Any:
        """Wait until what was told makes `condition` true; return what it returns."""
        async with asyncio.timeout(WAIT_SECONDS_MAX):
            while not (found := condition()):
                self._news.clear()
                await self._news.wait()
        return found


def operate(bed: ControlPlane, work: Callable[[ToldFleet], Any]) -> None:
    """Run an operator with the rights it has in a cluster while `work` lasts."""
    kubeconfig = bed.kubeconfig_for(account(bed), name=ACCOUNT)

    async def inner() -> None:
        fleet = ToldFleet()
        client = await Client.connect(Access(kubeconfig))
        settings = OperatorSettings(namespace=NAMESPACE, health_address="")
        running = asyncio.create_task(Operator(settings, client, fleet, Random(0), Metrics()).run())
        try:
            await fleet.until(lambda: fleet.of("lead"))
            await work(fleet)
        finally:
            if not running.done():
                os.kill(os.getpid(), signal.SIGTERM)
            await running
            await client.close()

    asyncio.run(inner())


def body(kind: WriteKind, key: str, document: Json) -> Write:
    return Write(WriteKey(kind, key), json.dumps(document).encode())


def revision_of(policy: Json, name: str) -> Write:
    owner = {
        "apiVersion": API_VERSION,
        "kind": "MigrationPolicy",
        **{k: policy["metadata"][k] for k in ("name", "uid")},
    }
    metadata = {
        "name": name,
        "labels": {"numamigration.dev/policy-uid": policy["metadata"]["uid"]},
        "annotations": {"cell.numamigration.dev/0123456789abcdef": "{}"},
        "ownerReferences": [owner],
    }
    document = {"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": metadata, "data": {}, "revision": 1}
    return body(WriteKind.REVISION, name, document)


def test_a_controller_revision_is_written_read_and_deleted_with_the_rights_there_are(
    bed: ControlPlane, unique_name: UniqueName
) -> None:
    policy, name = make_policy(bed.api, unique_name("policy"), "none", onDelete="Keep"), unique_name("revision")

    async def work(fleet: ToldFleet) -> None:
        fleet.to_decide.append(Decisions(writes=(revision_of(policy, name),)))
        revision, _ = await fleet.until(
            lambda: next((told for told in fleet.of("revision_changed") if told[0].metadata.name == name), None)
        )
        assert revision.metadata.annotations == {"cell.numamigration.dev/0123456789abcdef": "{}"}

        preconditions = {"preconditions": {"uid": revision.metadata.uid}}
        key = WriteKey(WriteKind.REVISION_DELETION, name)
        fleet.to_decide.append(Decisions(writes=(Write(key, json.dumps(preconditions).encode(), patch=Patch.DELETE),)))
        await fleet.until(lambda: name in [told[0] for told in fleet.of("revision_gone")])

    operate(bed, work)
    assert bed.api.get_if_exists(f"{REVISIONS}/{name}") == {}


def test_a_controller_revision_of_somebody_else_is_not_read(bed: ControlPlane, unique_name: UniqueName) -> None:
    other, ours = unique_name("other"), unique_name("ours")
    for name, labels in ((other, {}), (ours, {"numamigration.dev/policy-uid": "u"})):
        document = {"apiVersion": "apps/v1", "kind": "ControllerRevision", "data": {}, "revision": 1}
        bed.api.create(REVISIONS, {**document, "metadata": {"name": name, "labels": labels}})

    async def work(fleet: ToldFleet) -> None:
        names = (await fleet.until(lambda: fleet.of("revisions_listed")))[0][0]
        assert ours in names
        assert other not in names

    operate(bed, work)


def test_the_fence_is_read_with_the_rights_there_are(bed: ControlPlane) -> None:
    """Promise 9."""

    async def work(fleet: ToldFleet) -> None:
        (problem, _), *_ = await fleet.until(lambda: fleet.synced and fleet.of("fence_read"))
        assert problem == ""

    operate(bed, work)


def test_a_class_is_held_with_the_rights_there_are_though_nobody_made_the_config_map(bed: ControlPlane) -> None:
    """Promise 15: the hold must not need a person."""
    key = "hold.0123456789abcdef"
    metadata = {"name": "numamigration-control"}
    hold = body(
        WriteKind.CLASS_HOLD, key, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {key: "{}"}}
    )
    assert bed.api.get_if_exists(CONTROL) == {}

    async def work(fleet: ToldFleet) -> None:
        before = len(fleet.of("control_changed"))
        fleet.to_decide.append(Decisions(writes=(hold,)))
        await fleet.until(lambda: len(fleet.of("control_changed")) > before)

    operate(bed, work)
    assert bed.api.get(CONTROL)["data"] == {key: "{}"}
    bed.api.delete(CONTROL)


def test_a_stored_status_is_told_as_the_policy_it_belongs_to(bed: ControlPlane, unique_name: UniqueName) -> None:
    name = unique_name("policy")
    make_policy(bed.api, name, "none", onDelete="Keep")

    async def work(fleet: ToldFleet) -> None:
        shown = bed.api.get(f"{POLICIES}/{name}")
        metadata = {key: shown["metadata"][key] for key in ("name", "uid", "resourceVersion")}
        document = {"apiVersion": API_VERSION, "kind": "MigrationPolicy", "metadata": metadata}
        status = {"summary": "rolling out", "rollout": {"leaderEpoch": 1}}
        fleet.to_decide.append(Decisions(writes=(body(WriteKind.POLICY_STATUS, name, {**document, "status": status}),)))
        await fleet.until(
            lambda: [
                policy
                for policy, _ in fleet.of("policy_changed")
                if policy.metadata.name == name and policy.status.summary == "rolling out"
            ]
        )

    operate(bed, work)
    assert bed.api.get(f"{POLICIES}/{name}")["status"]["summary"] == "rolling out"
    bed.api.delete(f"{POLICIES}/{name}")


def test_whether_a_node_is_ready_is_read_when_it_is_asked_for(bed: ControlPlane, unique_name: UniqueName) -> None:
    ready, broken, gone = (unique_name(name) for name in ("ready", "broken", "gone"))
    for name, word in ((ready, "True"), (broken, "False")):
        make_node(bed.api, name)
        condition = {"type": "Ready", "status": word, "reason": "Kubelet", "message": ""}
        bed.api.merge_patch(f"{NODES}/{name}", {"status": {"conditions": [condition]}}, subresource="status")

    async def work(fleet: ToldFleet) -> None:
        fleet.to_decide.append(Decisions(readiness=(ready, broken, gone)))
        await fleet.until(lambda: len(fleet.of("node_ready")) == 3)
        assert {told[0]: told[1] for told in fleet.of("node_ready")} == {ready: True, broken: False, gone: None}

    operate(bed, work)


def test_after_a_call_nodes_and_node_states_are_listed_once_more_and_then_it_is_said_so(
    bed: ControlPlane, unique_name: UniqueName
) -> None:
    """Promise 8: what was stored before the call is told before the answer, however late the watches are."""
    name = unique_name("node")

    async def work(fleet: ToldFleet) -> None:
        make_node(bed.api, name)
        bed.api.create(STATES, {"apiVersion": API_VERSION, "kind": "NodeMigrationState", "metadata": {"name": name}})
        begun = len(fleet.told)
        fleet.to_decide.append(Decisions(relist=True))
        await fleet.until(lambda: fleet.of("relisted"))
        news = fleet.told[begun:]
        kinds = [told[0] for told in news]
        assert kinds.index("relisted") > max(kinds.index("nodes_listed"), kinds.index("states_listed"))
        assert all(name in told[1] for told in news if told[0] in {"nodes_listed", "states_listed"})

        for path in (NODES, STATES):  # the watches go on from the new lists
            bed.api.delete(f"{path}/{name}")
        await fleet.until(lambda: fleet.of("node_gone") and fleet.of("state_gone"))
        assert len(fleet.of("relisted")) == 1

    operate(bed, work)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        pytest.param("PATCH", f"/api/v1/namespaces/{NAMESPACE}/configmaps/other", id="another ConfigMap"),
        pytest.param("DELETE", CONTROL, id="delete the control ConfigMap"),
        pytest.param("PATCH", "/apis/apps/v1/namespaces/default/controllerrevisions/any", id="revisions elsewhere"),
        pytest.param("GET", "/apis/apps/v1/controllerrevisions", id="revisions of all namespaces"),
        pytest.param("PATCH", f"{NODES}/any/status", id="a Node's status"),
    ],
)
def test_rollouts_need_no_more_rights_than_these(bed: ControlPlane, method: str, path: str) -> None:
    api = bed.api_as(account(bed))
    query = {"fieldManager": "test", "force": "true"} if method == "PATCH" else None
    name = path.rpartition("/")[2]
    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}} if method == "PATCH" else None

    with pytest.raises(ApiError) as refused:
        api.request(method, path, document, query=query, content_type="application/apply-patch+yaml")

    assert refused.value.status == 403
