# SPDX-License-Identifier: Apache-2.0
"""The operator as a process of its own, with the rights of deploy/rbac.yaml, on a real kube-apiserver."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.apiserver.agent_process import NodeUnderTest
from tests.apiserver.operator_process import (
    ACCOUNT,
    API_VERSION,
    AT_ONCE,
    FINALIZER,
    LEASES,
    NAMESPACE,
    NODES,
    POLICIES,
    STATES,
    OperatorProcess,
    account,
    await_served,
    buckets,
    groups,
    install_crds,
    install_rights,
    is_through,
    join,
    make_node,
    make_policy,
    report,
    report_in,
    versions,
)
from tests.fakekernel.config import DmaEngine, HostConfig
from tests.fakekernel.host import FakeHost
from tests.testbed.api import ApiError, condition
from tests.testbed.controlplane import ControlPlane

UniqueName = Callable[[str], str]


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
    join(bed.api, node)
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


@pytest.mark.usefixtures("operator")
def test_kopf_leaves_nothing_on_a_policy(bed: ControlPlane, unique_name: UniqueName) -> None:
    node, name = unique_name("node"), unique_name("policy")
    join(bed.api, node)
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
    join(bed.api, node)
    make_policy(bed.api, name, node, onDelete="Keep")
    bed.api.watch_until(f"{STATES}/{node}", lambda obj: "demotion" in groups(obj))

    bed.api.merge_patch(f"{POLICIES}/{name}", {"spec": {"settings": {"demotion": {"enabled": False}}}})

    # The next list is a minute away; the wait ends after half of it.
    state = bed.api.watch_until(
        f"{STATES}/{node}", lambda obj: groups(obj).get("demotion", {}).get("settings") == {"enabled": False}
    )
    assert groups(state)["demotion"]["source"]["generation"] == 2
    bed.api.delete(f"{POLICIES}/{name}")


@pytest.fixture
def corrupt_node(bed: ControlPlane, unique_name: UniqueName, tmp_path: Path) -> Iterator[NodeUnderTest]:
    """A node whose engine copies wrong, with its agent."""
    engines = (DmaEngine("ptdma", channels=4, wrong_share=0.01),)
    with FakeHost(HostConfig(engines=engines)) as host:
        node = NodeUnderTest(bed, host, unique_name("node"), tmp_path, program="tests.twin")
        node.start()
        yield node
        node.kill()


@pytest.mark.usefixtures("operator")
def test_a_node_whose_engine_copies_wrong_is_failed_by_that_name(
    bed: ControlPlane, corrupt_node: NodeUnderTest, unique_name: UniqueName
) -> None:
    """Promise 15: from the kernel to the policy, in words that one can act on."""
    node, policy = corrupt_node, unique_name("policy")
    make_node(bed.api, node.name)
    offload = {"engine": "DMA", "channels": 4}
    halting = {**AT_ONCE, "onFailure": "Halt"}
    make_policy(bed.api, policy, node.name, settings={"offload": offload}, rollout=halting, onDelete="Keep")

    shown = bed.api.watch_until(
        f"{POLICIES}/{policy}", lambda obj: obj.get("status", {}).get("nodes", {}).get("failed")
    )

    status = node.until(lambda status: "verification" in status)
    assert status["verification"]["result"] == "Failed"
    assert {row["type"]: row["reason"] for row in status["conditions"]}["Degraded"] == "CorruptionDetected"
    assert [(row["node"], row["reason"]) for row in shown["status"]["worstNodes"]] == [
        (node.name, "CorruptionDetected")
    ]
    assert condition(shown, "Ready")["reason"] == "CorruptionDetected"
    assert not node.host.snapshot().offloading
    bed.api.delete(f"{POLICIES}/{policy}")


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
        report_in(bed.api, node)
        state = bed.api.watch_until(f"{STATES}/{node}", lambda obj: "demotion" in groups(obj))
        report(bed.api, state, "Ready")
        bed.api.watch_until(f"{POLICIES}/{name}", is_through)
        first.stop()
    before = versions(bed.api)

    with OperatorProcess(kubeconfig, tmp_path / "second", "--log-level", "debug") as second:
        second.wait_line("ready:")
        # A node that comes now is decided after everything that was known at the start.
        witness = unique_name("node")
        make_node(bed.api, witness)
        bed.api.watch_until(f"{STATES}/{witness}", bool)

    assert {key: value for key, value in versions(bed.api).items() if witness not in key} == before


def test_a_node_with_a_wrong_clock_is_not_unreachable_after_a_restart(
    bed: ControlPlane, tmp_path: Path, unique_name: UniqueName
) -> None:
    """Promise 11: the API server says when a report came."""
    node, name = unique_name("node"), unique_name("policy")
    make_node(bed.api, node)
    make_policy(bed.api, name, node, onDelete="Keep")
    kubeconfig = bed.kubeconfig_for(account(bed), name=ACCOUNT)
    with OperatorProcess(kubeconfig, tmp_path / "first"):
        report_in(bed.api, node)
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
    bare_bed: ControlPlane, tmp_path: Path, unique_name: UniqueName
) -> None:
    bed, node, name = bare_bed, unique_name("node"), unique_name("policy")
    install_rights(bed.api, without="ClusterRoleBinding")
    kubeconfig = bed.kubeconfig_for(account(bed), name=ACCOUNT)
    with OperatorProcess(kubeconfig, tmp_path / "log") as operator:
        operator.wait_line("deploy/rbac.yaml")
        install_rights(bed.api)
        operator.wait_line("kubectl apply --server-side -f crds/")
        install_crds(bed.api)
        operator.wait_line("ready:")

        join(bed.api, node)
        make_policy(bed.api, name, node)
        bed.api.watch_until(f"{STATES}/{node}", lambda obj: "demotion" in groups(obj))
        told = _told_of_resources(operator)
        assert len(told) == 4
        assert all('error="403' in lines[0] for lines in told.values())
        # Once each, until it works: also a list that works before its watch does, while a CRD is being established.
        assert all(one != after for lines in told.values() for one, after in pairwise(lines)), told


def _told_of_resources(operator: OperatorProcess) -> dict[str, list[str]]:
    """Return by resource what was logged of reading it, without the times."""
    told: dict[str, list[str]] = {}
    for line in operator.log.read_text().splitlines():
        if found := re.search(r" resource=(\S+)", line):
            told.setdefault(found[1], []).append(line.split(None, 1)[1])
    return told


def test_a_crd_that_is_removed_and_comes_back_is_survived(
    bed: ControlPlane, tmp_path: Path, unique_name: UniqueName
) -> None:
    node, name = unique_name("node"), unique_name("policy")
    crd = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{POLICIES.rpartition('/')[2]}.numamigration.dev"
    kubeconfig = bed.kubeconfig_for(account(bed), name=ACCOUNT)
    with OperatorProcess(kubeconfig, tmp_path / "log", "--policy-resync-seconds", "1") as operator:
        operator.wait_line("ready:")
        bed.api.delete(crd)
        bed.api.wait_crd_gone(crd)
        operator.wait_line("cannot read objects")
        install_crds(bed.api)

        join(bed.api, node)
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
        pytest.param(ACCOUNT, "PATCH", f"{LEASES}/other", id="operator: another Lease"),
        pytest.param(ACCOUNT, "DELETE", f"{LEASES}/numamigration-operator", id="operator: delete its Lease"),
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
    agent = bed.api_as(bed.node_bound_token(NAMESPACE, "numamigration-agent", name))

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
