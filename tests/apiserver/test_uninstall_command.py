# SPDX-License-Identifier: Apache-2.0
"""``numamigration-operator uninstall`` on a real kube-apiserver, with no more rights than a job of it needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.apiserver.operator_process import (
    FINALIZER,
    NAMESPACE,
    NODES,
    POLICIES,
    STATES,
    OperatorProcess,
    end_command,
    forget_leader,
    grant,
    groups,
    install_crds,
    join,
    make_policy,
    report,
    start_command,
)
from tests.apiserver.test_crds_command import ALL, POLICY_CRD
from tests.testbed.api import Api, Json, condition
from tests.testbed.controlplane import ControlPlane
from tests.testbed.warm import Program

ACCOUNT: Final = "numamigration-uninstall"
CONTROL: Final = f"/api/v1/namespaces/{NAMESPACE}/configmaps/numamigration-control"
AT_HOME: Final = [
    {
        "apiGroups": [""],
        "resources": ["configmaps"],
        "resourceNames": ["numamigration-control"],
        "verbs": ["create", "patch"],
    }
]
RULES: Final = [
    {"apiGroups": ["numamigration.dev"], "resources": ["migrationpolicies"], "verbs": ["list", "patch"]},
    {"apiGroups": ["numamigration.dev"], "resources": ["nodemigrationstates"], "verbs": ["list", "watch"]},
    # Only for --delete-crds.
    {
        "apiGroups": ["apiextensions.k8s.io"],
        "resources": ["customresourcedefinitions"],
        "resourceNames": [path.rpartition("/")[2] for path in ALL],
        "verbs": ["get", "delete"],
    },
]
FOREIGN: Final = "test.example.com/held"

Start = Callable[..., Program]


@pytest.fixture(scope="module")
def kubeconfig(bed: ControlPlane) -> Path:
    return grant(bed, ACCOUNT, RULES, at_home=AT_HOME)


@pytest.fixture
def start(kubeconfig: Path) -> Start:
    def run(*arguments: str) -> Program:
        return start_command(kubeconfig, "uninstall", "--namespace", NAMESPACE, *arguments)

    return run


@pytest.fixture(autouse=True)
def empty(bed: ControlPlane) -> Iterator[None]:
    """Every test is about the whole cluster, and leaves nothing in it."""
    install_crds(bed.api)
    yield
    if bed.api.get_if_exists(POLICY_CRD):
        for policy in bed.api.list_items(POLICIES):
            path = f"{POLICIES}/{policy['metadata']['name']}"
            bed.api.merge_patch(path, {"metadata": {"finalizers": None}})
            if bed.api.get_if_exists(path):
                bed.api.delete(path)
        for state in bed.api.list_items(STATES):
            bed.api.delete(f"{STATES}/{state['metadata']['name']}")
    for node in bed.api.list_items(NODES):
        bed.api.delete(f"{NODES}/{node['metadata']['name']}")
    if bed.api.get_if_exists(CONTROL):
        bed.api.delete(CONTROL)
    forget_leader(bed.api)


def restoring(state: Json) -> bool:
    found = groups(state)
    return bool(found) and all(wish["mode"] == "Restore" for wish in found.values())


def push(api: Api, name: str, **spec: Any) -> None:
    """A node with a policy of the same name in force; an operator must be running."""
    join(api, name)
    make_policy(api, name, name, **spec)
    report(api, api.watch_until(f"{STATES}/{name}", groups_are_there), "Ready")


def groups_are_there(state: Json) -> bool:
    return bool(groups(state))


def finalizers(api: Api, name: str) -> list[str]:
    found: list[str] = api.get(f"{POLICIES}/{name}")["metadata"].get("finalizers", [])
    return found


def orphan(api: Api, name: str, **status: Any) -> None:
    """A node on which a policy is in force, and nobody alive: no operator, no agent."""
    policy = make_policy(api, name, name)
    api.merge_patch(f"{POLICIES}/{name}", {"metadata": {"finalizers": [FINALIZER]}})
    wish = {
        "settings": {"enabled": True},
        "source": {"policy": name, "uid": policy["metadata"]["uid"], "generation": 1},
        "mode": "Apply",
        "release": "Restore",
    }
    kind = {"apiVersion": "numamigration.dev/v1alpha1", "kind": "NodeMigrationState"}
    spec = {"revision": "0" * 16, "groups": {"demotion": wish}}
    state = api.create(STATES, {**kind, "metadata": {"name": name}, "spec": spec})
    report(api, state, "Ready", **status)


def test_beside_an_operator_every_node_is_restored_and_the_finalizer_stays_out(
    bed: ControlPlane, operator: OperatorProcess, start: Start
) -> None:
    """Promise 13: uninstalling ends, and then so does the deletion of policies."""
    push(bed.api, "node-a")
    push(bed.api, "node-b", onDelete="Keep")

    process = start()
    for name in ("node-a", "node-b"):
        report(bed.api, bed.api.watch_until(f"{STATES}/{name}", restoring), "Restored")
    code, said = end_command(process)

    assert code == 0, said
    assert "nothing of ours is in force on any of 2 nodes" in said
    assert "finalizer taken out of 1 policies" in said
    edited = bed.api.merge_patch(f"{POLICIES}/node-a", {"spec": {"priority": 7}})
    bed.api.watch_until(f"{POLICIES}/node-a", lambda seen: is_shown(seen, edited))
    assert finalizers(bed.api, "node-a") == []
    assert groups(bed.api.get(f"{STATES}/node-a")) == {}
    for name in ("node-a", "node-b"):
        bed.api.delete(f"{POLICIES}/{name}")
        bed.api.wait_gone(f"{POLICIES}/{name}")
    assert operator.process.poll() is None


def is_shown(policy: Json, edited: Json) -> bool:
    return bool(
        policy["status"]["observedGeneration"] == edited["metadata"]["generation"] and condition(policy, "Ready")
    )


def test_dead_nodes_are_named_with_their_values_and_keep_nothing(
    bed: ControlPlane, operator: OperatorProcess, start: Start
) -> None:
    """Promise 13: with any number of dead nodes; what is left there is said."""
    push(bed.api, "dead")
    push(bed.api, "live")
    knobs = [{"field": "demotion.enabled", "observed": "true", "baseline": "false"}]
    report(bed.api, bed.api.get(f"{STATES}/dead"), "Ready", knobs=knobs)

    process = start("--wait-seconds", "4")
    report(bed.api, bed.api.watch_until(f"{STATES}/live", restoring), "Restored")
    code, said = end_command(process)

    assert code == 0, said
    assert "left on 1 of 2 nodes:" in said
    assert "  dead: demotion: the agent has not answered; its last report is of 20" in said
    assert "    demotion.enabled is true, was false\n" in said
    assert "live" not in said.partition("left on")[2]
    assert "2 policies are still there: kubectl delete migrationpolicies --all" in said
    for name in ("dead", "live"):
        bed.api.delete(f"{POLICIES}/{name}")
        bed.api.wait_gone(f"{POLICIES}/{name}")
    assert operator.process.poll() is None


def test_with_operator_and_agents_dead_it_ends_and_so_does_a_deletion_that_has_waited(
    bed: ControlPlane, start: Start
) -> None:
    """Promise 13: nobody has to be alive."""
    orphan(bed.api, "node")
    bed.api.merge_patch(f"{POLICIES}/node", {"metadata": {"finalizers": [FOREIGN, FINALIZER]}})
    bed.api.delete(f"{POLICIES}/node")
    orphan(bed.api, "other")

    code, said = end_command(start("--wait-seconds", "1"))

    assert code == 0, said
    assert "left on 2 of 2 nodes:" in said
    assert "  node: demotion: no operator has asked for it" in said
    assert bed.api.get(CONTROL)["data"] == {"fleet": "restore"}
    assert finalizers(bed.api, "node") == [FOREIGN]
    bed.api.delete(f"{POLICIES}/other")
    bed.api.wait_gone(f"{POLICIES}/other")


def test_run_again_it_says_the_same_and_writes_nothing(bed: ControlPlane, start: Start) -> None:
    """Promise 12: nothing is written when nothing changed."""
    orphan(bed.api, "node")
    end_command(start("--wait-seconds", "0"))
    before = bed.api.get(CONTROL)["metadata"]["resourceVersion"]

    code, said = end_command(start("--wait-seconds", "0"))

    assert code == 0
    assert "left on 1 of 1 nodes:" in said
    assert "finalizer taken out of 0 policies" in said
    assert bed.api.get(CONTROL)["metadata"]["resourceVersion"] == before


def test_progress_is_said_while_a_node_is_waited_for(bed: ControlPlane, start: Start) -> None:
    for number in range(5):
        orphan(bed.api, f"node-{number}")

    process = start("--wait-seconds", "2")

    assert process.stdout is not None
    process.stdout.readline()
    assert process.stdout.readline() == "waiting 2 s more for 5 of 5 nodes: node-0, node-1, node-2 and 2 more\n"
    assert end_command(process)[0] == 0


def test_the_hold_of_a_class_is_kept(bed: ControlPlane, start: Start) -> None:
    """Promise 15: a corrupt engine stays held over an uninstall."""
    hold = {"hold.0123456789abcdef": '{"hardwareClass": "x", "dialect": "V6", "driver": "ptdma"}'}
    make_control(bed.api, hold)

    code, said = end_command(start("--wait-seconds", "1"))

    assert bed.api.get(CONTROL)["data"] == {**hold, "fleet": "restore"}
    assert (code, said.splitlines()[0]) == (
        0,
        f"fleet switch: restore (ConfigMap numamigration-control in {NAMESPACE})",
    )


def make_control(api: Api, data: dict[str, str]) -> None:
    metadata = {"name": "numamigration-control", "namespace": NAMESPACE}
    api.create(
        CONTROL.rpartition("/")[0], {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
    )


def test_a_control_config_map_that_no_operator_understands_stops_it_before_anything_is_taken_out(
    bed: ControlPlane, start: Start
) -> None:
    """Promise 7: an operator would hold, and restore nothing; then the finalizers are still needed."""
    orphan(bed.api, "node")
    make_control(bed.api, {"flet": "off"})

    code, said = end_command(start("--wait-seconds", "1"))

    assert code == 1
    assert "stopped: ConfigMap numamigration-control cannot be understood: 'flet': not a key of it." in said
    assert finalizers(bed.api, "node") == [FINALIZER]


def test_the_crds_go_too_when_that_is_asked_for(bed: ControlPlane, start: Start) -> None:
    """Promise 13: with dead nodes and without an operator as well."""
    orphan(bed.api, "node")

    code, said = end_command(start("--wait-seconds", "0", "--delete-crds"))

    assert code == 0, said
    assert "migrationpolicies.numamigration.dev: deleted" in said
    assert [bed.api.get_if_exists(path) for path in ALL] == [{}] * len(ALL)

    code, said = end_command(start("--delete-crds"))
    assert (code, said) == (0, "no CRD of ours is installed: there is nothing to restore\n")


def test_without_the_right_to_turn_the_switch_nothing_is_taken_out(bed: ControlPlane) -> None:
    """Promise 7: what cannot be asked to restore keeps its finalizer."""
    orphan(bed.api, "node")
    kubeconfig = grant(bed, "numamigration-reader", RULES)

    code, said = end_command(start_command(kubeconfig, "uninstall", "--namespace", NAMESPACE))

    assert code == 1
    assert said.startswith("numamigration-operator uninstall: 403: configmaps")
    assert finalizers(bed.api, "node") == [FINALIZER]
