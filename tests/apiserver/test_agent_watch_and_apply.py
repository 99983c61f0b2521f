# SPDX-License-Identifier: Apache-2.0
"""The agent's driver on a real API server: what it sees, what it writes, and how it comes back."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from numamigration_agent.cluster import (
    ApiClient,
    ApplyKind,
    ApplyResult,
    StateEvent,
    StateGone,
    StateSeen,
    StateWatcher,
)
from numamigration_api.vocabulary import AGENT_MANAGER, API_VERSION, OPERATOR_MANAGER, STATE_KIND, STATE_PLURAL
from tests.apiserver.operator_process import await_served
from tests.testbed.api import CRDS, Api, Json
from tests.testbed.controlplane import ControlPlane
from tests.testbed.fixtures import CRD_FOLDER

COLLECTION = f"/apis/{API_VERSION}/{STATE_PLURAL}"
WAIT_SECONDS_MAX = 60.0

UniqueName = Callable[[str], str]


def client_of(control_plane: ControlPlane, folder: Path, token: str) -> ApiClient:
    (folder / "token").write_text(token)
    return ApiClient(control_plane.server, control_plane.ca, folder / "token")


@pytest.fixture
def client(control_plane: ControlPlane, crds: tuple[str, ...], tmp_path: Path) -> Iterator[ApiClient]:  # noqa: ARG001
    client = client_of(control_plane, tmp_path, control_plane.admin_token)
    yield client
    client.disconnect()


@pytest.fixture
def node(api: Api, crds: tuple[str, ...], unique_name: UniqueName) -> str:  # noqa: ARG001 - the kind must be there
    name = unique_name("node")
    push(api, name)
    return name


def push(api: Api, name: str, **spec: Any) -> Json:
    document = {"apiVersion": API_VERSION, "kind": STATE_KIND, "metadata": {"name": name}, "spec": spec}
    return api.apply(f"{COLLECTION}/{name}", document, OPERATOR_MANAGER, force=True)


class Watching:
    """A watcher that runs, and the events it emits."""

    def __init__(self, client: ApiClient, name: str) -> None:
        self._events: queue.Queue[StateEvent] = queue.Queue()
        self.thread = StateWatcher(client, name, self._events.put, rng=Random(1), start_jitter_seconds_max=0.0)
        self.thread.start()

    def next_event(self) -> StateEvent:
        return self._events.get(timeout=WAIT_SECONDS_MAX)

    def until_epoch(self, epoch: int) -> None:
        """Return when a state with this spec.verifyEpoch is seen."""
        while not (
            isinstance(event := self.next_event(), StateSeen) and event.object["spec"].get("verifyEpoch") == epoch
        ):
            pass

    def stop(self) -> None:
        self.thread.stop()
        self.thread.join(WAIT_SECONDS_MAX)
        assert not self.thread.is_alive()


# --- watch -------------------------------------------------------------------------------------------------------


def test_a_state_is_seen_from_its_creation_to_its_end(api: Api, client: ApiClient, unique_name: UniqueName) -> None:
    name = unique_name("node")
    watching = Watching(client, name)

    assert watching.next_event() == StateGone()
    push(api, name, verifyEpoch=1)
    watching.until_epoch(1)
    push(api, name, verifyEpoch=2)
    watching.until_epoch(2)
    api.delete(f"{COLLECTION}/{name}")
    assert watching.next_event() == StateGone()

    watching.stop()


def test_other_nodes_are_not_seen(api: Api, client: ApiClient, node: str, unique_name: UniqueName) -> None:
    watching = Watching(client, node)
    assert isinstance(watching.next_event(), StateSeen)

    push(api, unique_name("node"), verifyEpoch=7)
    push(api, node, verifyEpoch=1)

    event = watching.next_event()
    assert isinstance(event, StateSeen)
    assert event.object["metadata"]["name"] == node
    watching.stop()


def test_a_restart_of_the_api_server_is_survived(control_plane: ControlPlane, node: str, tmp_path: Path) -> None:
    push(control_plane.api, node, verifyEpoch=1)
    watching = Watching(client_of(control_plane, tmp_path, control_plane.admin_token), node)
    watching.until_epoch(1)

    control_plane.restart_apiserver()
    await_served(control_plane.api)
    push(control_plane.api, node, verifyEpoch=2)

    watching.until_epoch(2)
    watching.stop()


def test_a_missing_definition_is_said_and_waited_for(
    bare_bed: ControlPlane, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = client_of(bare_bed, tmp_path, bare_bed.admin_token)
    assert client.apply_status({"dialect": "V6"}, "node-a").kind is ApplyKind.GONE
    client.disconnect()
    watching = Watching(client, "node-a")

    for path in CRD_FOLDER.glob("*.yaml"):
        bare_bed.api.install_crd(yaml.safe_load(path.read_text()))

    assert watching.next_event() == StateGone()
    watching.stop()
    problems = [getattr(record, "problem", "") for record in caplog.records]
    assert [problem for problem in problems if "apply the CRDs of this release" in problem]


def test_missing_rights_are_said_and_waited_for(
    api: Api, control_plane: ControlPlane, node: str, tmp_path: Path, unique_name: UniqueName
) -> None:
    account = unique_name("agent")
    base = "/api/v1/namespaces/default/serviceaccounts"
    api.create(base, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}})
    client = client_of(control_plane, tmp_path, control_plane.service_account_token("default", account))

    refused = client.apply_status({"dialect": "V6"}, node)
    client.disconnect()
    watching = Watching(client, node)
    allow(api, account)

    assert refused.kind is ApplyKind.FORBIDDEN
    assert "RBAC" in refused.message
    assert isinstance(watching.next_event(), StateSeen)
    watching.stop()


def allow(api: Api, account: str) -> None:
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    head = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": account}}
    rules = [{"apiGroups": ["numamigration.dev"], "resources": [STATE_PLURAL], "verbs": ["list", "watch"]}]
    subject = {"kind": "ServiceAccount", "name": account, "namespace": "default"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": account}
    api.create(f"{rbac}/clusterroles", head | {"kind": "ClusterRole", "rules": rules})
    api.create(
        f"{rbac}/clusterrolebindings", head | {"kind": "ClusterRoleBinding", "roleRef": role, "subjects": [subject]}
    )


def test_a_token_nobody_gave_is_forbidden(control_plane: ControlPlane, node: str, tmp_path: Path) -> None:
    client = client_of(control_plane, tmp_path, "stolen")

    result = client.apply_status({"dialect": "V6"}, node)

    client.disconnect()
    assert result.kind is ApplyKind.FORBIDDEN
    assert "token" in result.message


# --- apply -------------------------------------------------------------------------------------------------------


def test_a_status_is_written_by_the_agents_field_manager_only(api: Api, client: ApiClient, node: str) -> None:
    assert client.apply_status({"dialect": "V6", "offload": "Off"}, node) == ApplyResult(ApplyKind.APPLIED)

    found = api.get(f"{COLLECTION}/{node}")
    assert found["status"] == {"dialect": "V6", "offload": "Off"}
    managers = [
        (entry["manager"], entry.get("subresource"))
        for entry in found["metadata"]["managedFields"]
        if "f:status" in entry["fieldsV1"]
    ]
    assert managers == [(AGENT_MANAGER, "status")]


def test_a_field_left_out_of_the_next_status_is_gone(api: Api, client: ApiClient, node: str) -> None:
    client.apply_status({"dialect": "V6", "offload": "Off"}, node)

    client.apply_status({"dialect": "V6"}, node)

    assert api.get(f"{COLLECTION}/{node}")["status"] == {"dialect": "V6"}


def test_a_status_never_makes_an_object(api: Api, client: ApiClient, unique_name: UniqueName) -> None:
    name = unique_name("node")

    assert client.apply_status({"dialect": "V6"}, name).kind is ApplyKind.GONE
    assert api.get_if_exists(f"{COLLECTION}/{name}") == {}


def test_a_field_the_installed_definition_lacks_is_skew_and_the_rest_is_written(
    api: Api, client: ApiClient, node: str
) -> None:
    result = client.apply_status({"dialect": "V6", "fromTheFuture": 1}, node)

    assert result.kind is ApplyKind.SKEW
    assert "fromTheFuture" in result.message
    assert api.get(f"{COLLECTION}/{node}")["status"] == {"dialect": "V6"}


@pytest.mark.parametrize(
    "status",
    [
        pytest.param({"dialect": "V7"}, id="a word of a later release"),
        pytest.param({"statistics": {"foliosMigrated": "many"}}, id="another type"),
    ],
)
def test_a_value_the_installed_definition_does_not_take_is_skew(
    api: Api, client: ApiClient, node: str, status: Json
) -> None:
    assert client.apply_status(status, node).kind is ApplyKind.SKEW
    assert "status" not in api.get(f"{COLLECTION}/{node}")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("plain … ü", id="text"),
        pytest.param("\U0001f600", id="beyond 16 bits, where JSON escapes are no YAML"),
        pytest.param("a\tb\nc\x00\x1b[0m", id="control characters"),
        pytest.param("\x7f\x85\x9f\u2028\ufeff\ufffe", id="what YAML calls unprintable"),
        pytest.param("yes: [no, *x, &y] # %", id="what means something to YAML"),
    ],
)
def test_whatever_a_kernel_file_says_reaches_the_status(api: Api, client: ApiClient, node: str, text: str) -> None:
    assert client.apply_status({"kernelRelease": text}, node) == ApplyResult(ApplyKind.APPLIED)

    assert api.get(f"{COLLECTION}/{node}")["status"]["kernelRelease"] == text


def test_the_kind_is_installed_as_the_driver_spells_it(api: Api, crds: tuple[str, ...]) -> None:
    assert f"{STATE_PLURAL}.numamigration.dev" in crds
    assert api.get(f"{CRDS}/{STATE_PLURAL}.numamigration.dev")["spec"]["names"]["kind"] == STATE_KIND
