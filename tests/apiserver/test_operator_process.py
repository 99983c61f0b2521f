# SPDX-License-Identifier: Apache-2.0
"""The operator as a process of its own, with the rights of deploy/rbac.yaml, on a real kube-apiserver."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Self

import pytest
import yaml

from tests.testbed.api import Api, ApiError, Json, condition, poll
from tests.testbed.binaries import Binaries
from tests.testbed.controlplane import ControlPlane

ROOT: Final = Path(__file__).parents[2]
NAMESPACE: Final = "numamigration-system"
ACCOUNT: Final = "numamigration-operator"
API_VERSION: Final = "numamigration.dev/v1alpha1"
POLICIES: Final = f"/apis/{API_VERSION}/migrationpolicies"
STATES: Final = f"/apis/{API_VERSION}/nodemigrationstates"
NODES: Final = "/api/v1/nodes"
FINALIZER: Final = "numamigration.dev/restore"
STOP_SECONDS_MAX: Final = 20.0
RBAC: Final = "/apis/rbac.authorization.k8s.io/v1"

UniqueName = Callable[[str], str]


class OperatorProcess:
    """A running operator; its log is a file."""

    def __init__(self, kubeconfig: Path, log: Path, *flags: str) -> None:
        self.log = log
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "numamigration_operator", "--kubeconfig", str(kubeconfig), *flags],
                stderr=stream,
                env={**os.environ, "NUMAMIGRATION_STATUS_INTERVAL_SECONDS": "0.5"},
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def wait_line(self, text: str) -> None:
        def found() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return text in self.log.read_text()

        poll(found, f"{text!r} in the log")

    def lines(self, level: str) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if line.split()[1] == level]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS_MAX)


# --- a control plane of our own: servers are stopped, and every node and policy is ours ---------------------------


@pytest.fixture(scope="module")
def bed(binaries: Binaries) -> Iterator[ControlPlane]:
    with ControlPlane(binaries) as running:
        install_rights(running.api)
        install_crds(running.api)
        yield running


def documents(path: Path) -> list[Json]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def install_crds(api: Api) -> None:
    for path in sorted((ROOT / "crds").glob("*.yaml")):
        for document in documents(path):
            api.install_crd(document)


def install_rights(api: Api, *, without: str = "") -> None:
    for document in documents(ROOT / "deploy" / "rbac.yaml"):
        if document["kind"] != without:
            api.apply(object_path(document), document, "test-bed", force=True)


def object_path(document: Json) -> str:
    metadata = document["metadata"]
    group = f"/apis/{document['apiVersion']}" if "/" in document["apiVersion"] else f"/api/{document['apiVersion']}"
    namespace = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
    return f"{group}{namespace}/{document['kind'].lower()}s/{metadata['name']}"


def account(bed: ControlPlane, name: str = ACCOUNT) -> str:
    return bed.service_account_token(NAMESPACE, name)


@pytest.fixture
def operator(bed: ControlPlane, tmp_path: Path) -> Iterator[OperatorProcess]:
    with OperatorProcess(bed.kubeconfig_for(account(bed), name=ACCOUNT), tmp_path / "log") as running:
        running.wait_line("ready:")
        yield running


def await_served(api: Api) -> None:
    """Wait until a restarted API server serves custom resources; it answers 404 and 429 after it is ready."""

    def served() -> bool:
        try:
            return bool(api.get(STATES))
        except ApiError:
            return False

    poll(served, f"{STATES} being served")


def make_node(api: Api, name: str) -> None:
    api.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"name": name}}})


def make_policy(api: Api, name: str, node: str, **spec: Any) -> Json:
    body = {
        "apiVersion": API_VERSION,
        "kind": "MigrationPolicy",
        "metadata": {"name": name},
        "spec": {
            "nodeSelector": {"matchLabels": {"name": node}},
            "settings": {"demotion": {"enabled": True}},
            **spec,
        },
    }
    return api.create(POLICIES, body)


def buckets(policy: Json) -> Json:
    counts: Json = policy.get("status", {}).get("nodes", {})
    return {name: count for name, count in counts.items() if count and name != "matched"}


def groups(state: Json) -> Json:
    found: Json = state.get("spec", {}).get("groups", {})
    return found


# --- what it does -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("operator")
def test_a_node_gets_a_node_state_that_it_owns(bed: ControlPlane, unique_name: UniqueName) -> None:
    name = unique_name("node")
    make_node(bed.api, name)

    state = bed.api.watch_until(f"{STATES}/{name}", bool)

    owner = {key: state["metadata"]["ownerReferences"][0][key] for key in ("apiVersion", "kind", "name", "uid")}
    uid = bed.api.get(f"{NODES}/{name}")["metadata"]["uid"]
    assert owner == {"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}


@pytest.mark.usefixtures("operator")
def test_a_policy_reaches_its_node_and_goes_again(bed: ControlPlane, unique_name: UniqueName) -> None:
    node, name = unique_name("node"), unique_name("policy")
    make_node(bed.api, node)
    created = make_policy(bed.api, name, node)

    state = bed.api.watch_until(f"{STATES}/{node}", lambda obj: "demotion" in groups(obj))
    assert groups(state)["demotion"]["source"]["uid"] == created["metadata"]["uid"]
    assert groups(state)["demotion"]["settings"] == {"enabled": True}

    shown = bed.api.watch_until(f"{POLICIES}/{name}", lambda obj: bool(condition(obj, "Ready")))
    assert shown["status"]["nodes"]["matched"] == 1
    assert shown["metadata"]["finalizers"] == [FINALIZER]

    bed.api.delete(f"{POLICIES}/{name}")
    restoring = bed.api.watch_until(f"{STATES}/{node}", lambda obj: groups(obj)["demotion"]["mode"] == "Restore")
    assert bed.api.get(f"{POLICIES}/{name}")["metadata"]["finalizers"] == [FINALIZER]
    report(bed.api, restoring, "Restored")
    bed.api.wait_gone(f"{POLICIES}/{name}")


def report(api: Api, state: Json, word: str, *, reported_at: str = "2026-01-02T03:04:05Z") -> None:
    """Say what the node's agent would say."""
    status = {
        "observedGeneration": state["metadata"]["generation"],
        "observedRevision": state["spec"]["revision"],
        "reportedAt": reported_at,
        "groups": {"demotion": {"state": word, "reason": "AsExpected"}},
    }
    name = state["metadata"]["name"]
    body = {"apiVersion": API_VERSION, "kind": "NodeMigrationState", "metadata": {"name": name}, "status": status}
    api.apply(f"{STATES}/{name}", body, "numamigration-agent", force=True, subresource="status")


@pytest.mark.usefixtures("operator")
def test_kopf_leaves_nothing_on_a_policy(bed: ControlPlane, unique_name: UniqueName) -> None:
    node, name = unique_name("node"), unique_name("policy")
    make_node(bed.api, node)
    make_policy(bed.api, name, node, onDelete="Keep")

    shown = bed.api.watch_until(f"{POLICIES}/{name}", lambda obj: bool(condition(obj, "Ready")))

    assert "finalizers" not in shown["metadata"]
    assert "annotations" not in shown["metadata"]
    managers = {entry["manager"] for entry in shown["metadata"]["managedFields"]}
    assert managers == {ACCOUNT, "unknown"}  # the second is whoever created it
    bed.api.delete(f"{POLICIES}/{name}")


@pytest.mark.usefixtures("operator")
def test_an_edit_is_seen_by_watch_long_before_the_next_list(bed: ControlPlane, unique_name: UniqueName) -> None:
    node, name = unique_name("node"), unique_name("policy")
    make_node(bed.api, node)
    make_policy(bed.api, name, node, onDelete="Keep")
    bed.api.watch_until(f"{STATES}/{node}", lambda obj: "demotion" in groups(obj))

    bed.api.merge_patch(f"{POLICIES}/{name}", {"spec": {"settings": {"demotion": {"enabled": False}}}})

    # The next list is a minute away; the wait ends after half of it.
    state = bed.api.watch_until(
        f"{STATES}/{node}", lambda obj: groups(obj).get("demotion", {}).get("settings") == {"enabled": False}
    )
    assert groups(state)["demotion"]["source"]["generation"] == 2
    bed.api.delete(f"{POLICIES}/{name}")


# --- how it starts and ends ---------------------------------------------------------------------------------------


def test_a_signal_stops_it_with_exit_code_0(operator: OperatorProcess) -> None:
    assert operator.stop() == 0
    assert operator.lines("WARNING") == []


def test_a_restart_writes_nothing(bed: ControlPlane, tmp_path: Path, unique_name: UniqueName) -> None:
    """Promise 12 and the target of section 7: zero writes on operator restart."""
    node, name = unique_name("node"), unique_name("policy")
    kubeconfig = bed.kubeconfig_for(account(bed), name=ACCOUNT)
    make_node(bed.api, node)
    make_policy(bed.api, name, node)
    with OperatorProcess(kubeconfig, tmp_path / "first") as first:
        bed.api.watch_until(f"{STATES}/{node}", lambda obj: "demotion" in groups(obj))
        bed.api.watch_until(f"{POLICIES}/{name}", lambda obj: bool(condition(obj, "Ready")))
        first.stop()
    before = versions(bed.api)

    with OperatorProcess(kubeconfig, tmp_path / "second", "--log-level", "debug") as second:
        second.wait_line("ready:")
        # A node that comes now is decided after everything that was known at the start.
        witness = unique_name("node")
        make_node(bed.api, witness)
        bed.api.watch_until(f"{STATES}/{witness}", bool)

    assert {key: value for key, value in versions(bed.api).items() if witness not in key} == before


def versions(api: Api) -> dict[str, str]:
    return {
        f"{path}/{item['metadata']['name']}": item["metadata"]["resourceVersion"]
        for path in (POLICIES, STATES)
        for item in api.list_items(path)
    }


def test_a_node_with_a_wrong_clock_is_not_unreachable_after_a_restart(
    bed: ControlPlane, tmp_path: Path, unique_name: UniqueName
) -> None:
    """Promise 11: the API server says when a report came."""
    node, name = unique_name("node"), unique_name("policy")
    make_node(bed.api, node)
    make_policy(bed.api, name, node, onDelete="Keep")
    kubeconfig = bed.kubeconfig_for(account(bed), name=ACCOUNT)
    with OperatorProcess(kubeconfig, tmp_path / "first"):
        state = bed.api.watch_until(f"{STATES}/{node}", lambda obj: "demotion" in groups(obj))
    report(bed.api, state, "Ready", reported_at="2001-01-01T00:00:00Z")
    report(bed.api, state, "Failed", reported_at="2001-01-01T00:05:00Z")

    with OperatorProcess(kubeconfig, tmp_path / "second"):
        bed.api.watch_until(f"{POLICIES}/{name}", lambda obj: buckets(obj) == {"failed": 1})

    bed.api.delete(f"{POLICIES}/{name}")


def test_a_server_that_restarts_is_said_once_and_survived(
    bed: ControlPlane, operator: OperatorProcess, unique_name: UniqueName
) -> None:
    bed.stop_apiserver()
    operator.wait_line("API server does not answer")
    bed.start_apiserver()
    await_served(bed.api)
    operator.wait_line("API server answers again")

    name = unique_name("node")
    make_node(bed.api, name)
    bed.api.watch_until(f"{STATES}/{name}", bool)
    assert sum("does not answer" in line for line in operator.lines("WARNING")) == 1
    assert operator.stop() == 0


def test_without_a_server_at_the_start_it_waits_and_gets_well(
    bed: ControlPlane, tmp_path: Path, unique_name: UniqueName
) -> None:
    kubeconfig = bed.kubeconfig_for(account(bed), name=ACCOUNT)
    bed.stop_apiserver()
    with OperatorProcess(kubeconfig, tmp_path / "log") as operator:
        operator.wait_line("API server does not answer")
        assert len(operator.lines("WARNING")) == 1
        bed.start_apiserver()
        await_served(bed.api)
        operator.wait_line("ready:")

        name = unique_name("node")
        make_node(bed.api, name)
        bed.api.watch_until(f"{STATES}/{name}", bool)


def test_without_rights_and_crds_it_says_so_and_gets_well(
    binaries: Binaries, tmp_path: Path, unique_name: UniqueName
) -> None:
    node, name = unique_name("node"), unique_name("policy")
    with ControlPlane(binaries) as bed:
        install_rights(bed.api, without="ClusterRoleBinding")
        kubeconfig = bed.kubeconfig_for(account(bed), name=ACCOUNT)
        with OperatorProcess(kubeconfig, tmp_path / "log") as operator:
            operator.wait_line("deploy/rbac.yaml")
            install_rights(bed.api)
            operator.wait_line("kubectl apply --server-side -f crds/")
            install_crds(bed.api)
            operator.wait_line("ready:")

            make_node(bed.api, node)
            make_policy(bed.api, name, node)
            bed.api.watch_until(f"{STATES}/{node}", lambda obj: "demotion" in groups(obj))
            assert len(operator.lines("WARNING")) <= 6  # each of three kinds: no right, then no CRD


def test_a_crd_that_is_removed_and_comes_back_is_survived(
    binaries: Binaries, tmp_path: Path, unique_name: UniqueName
) -> None:
    node, name = unique_name("node"), unique_name("policy")
    crd = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{POLICIES.rpartition('/')[2]}.numamigration.dev"
    with ControlPlane(binaries) as bed:
        install_rights(bed.api)
        install_crds(bed.api)
        kubeconfig = bed.kubeconfig_for(account(bed), name=ACCOUNT)
        with OperatorProcess(kubeconfig, tmp_path / "log", "--policy-resync-seconds", "1") as operator:
            operator.wait_line("ready:")
            bed.api.delete(crd)
            bed.api.wait_gone(crd)
            operator.wait_line("cannot read objects")
            install_crds(bed.api)

            make_node(bed.api, node)
            make_policy(bed.api, name, node)
            bed.api.watch_until(f"{STATES}/{node}", lambda obj: "demotion" in groups(obj))
            assert operator.stop() == 0


# --- rights -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "method", "path"),
    [
        pytest.param(ACCOUNT, "PATCH", f"{NODES}/any", id="operator: a Node"),
        pytest.param(ACCOUNT, "PATCH", f"{STATES}/any/status", id="operator: a node state's status"),
        pytest.param(ACCOUNT, "DELETE", f"{STATES}/any", id="operator: delete a node state"),
        pytest.param(ACCOUNT, "DELETE", f"{POLICIES}/any", id="operator: delete a policy"),
        pytest.param(ACCOUNT, "GET", "/api/v1/secrets", id="operator: secrets"),
        pytest.param("numamigration-agent", "PATCH", f"{STATES}/any", id="agent: a node state's spec"),
        pytest.param("numamigration-agent", "GET", POLICIES, id="agent: policies"),
        pytest.param("numamigration-agent", "GET", NODES, id="agent: Nodes"),
        pytest.param("numamigration-agent", "DELETE", f"{STATES}/any", id="agent: delete a node state"),
    ],
)
def test_what_is_not_needed_is_forbidden(bed: ControlPlane, who: str, method: str, path: str) -> None:
    api = bed.api_as(account(bed, who))

    with pytest.raises(ApiError) as refused:
        api.request(method, path, {} if method == "PATCH" else None, content_type="application/merge-patch+json")

    assert refused.value.status == 403


def test_an_agent_may_read_node_states_and_write_their_status(bed: ControlPlane, unique_name: UniqueName) -> None:
    name = unique_name("node")
    state = {"apiVersion": API_VERSION, "kind": "NodeMigrationState", "metadata": {"name": name}}
    created = bed.api.create(STATES, {**state, "spec": {"revision": "0" * 16}})
    agent = bed.api_as(account(bed, "numamigration-agent"))

    report(agent, created, "Restored")

    assert agent.get(f"{STATES}/{name}")["status"]["observedRevision"] == "0" * 16


# --- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("", id="empty"),
        pytest.param(": : {", id="no YAML"),
        pytest.param("[]", id="a list"),
        pytest.param('{"current-context": "x"}', id="no contexts"),
        pytest.param('{"current-context": "x", "contexts": [], "clusters": [], "users": []}', id="no such context"),
    ],
)
def test_a_broken_kubeconfig_is_one_line_and_exit_code_2(tmp_path: Path, content: str) -> None:
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(content)

    ended = subprocess.run(
        [sys.executable, "-m", "numamigration_operator", "--kubeconfig", str(kubeconfig)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith(f"numamigration-operator: {kubeconfig}: ")
