# SPDX-License-Identifier: Apache-2.0
"""The fleet switch in the hands of people: a ConfigMap on a real kube-apiserver, read with the rights we ask for."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.apiserver.operator_process import (
    ACCOUNT,
    NAMESPACE,
    POLICIES,
    RBAC,
    STATES,
    OperatorProcess,
    account,
    groups,
    join,
    make_node,
    make_policy,
    report_in,
)
from tests.testbed.api import Json, condition
from tests.testbed.controlplane import ControlPlane

pytestmark = pytest.mark.uncounted

CONTROL: Final = f"/api/v1/namespaces/{NAMESPACE}/configmaps/numamigration-control"
DMA: Final = {"engine": "DMA", "channels": 4}
READER: Final = f"{RBAC}/namespaces/{NAMESPACE}/roles/{ACCOUNT}"

UniqueName = Callable[[str], str]


@pytest.fixture
def kubectl(bed: ControlPlane) -> Callable[..., None]:
    def run(*arguments: str) -> None:
        command = [str(bed.binaries.kubectl), "--kubeconfig", str(bed.kubeconfig), "-n", NAMESPACE, *arguments]
        subprocess.run(command, check=True, capture_output=True)

    return run


@pytest.fixture
def pushed(bed: ControlPlane, operator: OperatorProcess, unique_name: UniqueName) -> Iterator[str]:  # noqa: ARG001
    """A node, and a policy of the same name that turned offload on there."""
    name = unique_name("node")
    join(bed.api, name)
    make_policy(bed.api, name, name, settings={"offload": DMA}, onDelete="Keep")
    bed.api.watch_until(f"{STATES}/{name}", lambda state: settings(state) == DMA)
    yield name
    bed.api.delete(f"{POLICIES}/{name}")
    if bed.api.get_if_exists(CONTROL):
        bed.api.delete(CONTROL)


def settings(state: Json) -> Any:
    return groups(state).get("offload", {}).get("settings")


def stalled(word: str, text: str) -> Callable[[Json], bool]:
    def said(policy: Json) -> bool:
        found = condition(policy, "Stalled")
        return found.get("reason") == word and text in found["message"]

    return said


def test_one_line_of_kubectl_turns_offload_off_everywhere_and_deleting_it_goes_on(
    bed: ControlPlane, kubectl: Callable[..., None], pushed: str
) -> None:
    """Promise 17: there is always a fast way off."""
    kubectl("create", "configmap", "numamigration-control", "--from-literal=fleet=off")

    bed.api.watch_until(f"{STATES}/{pushed}", lambda state: settings(state) == {"engine": "Off"})
    shown = bed.api.watch_until(f"{POLICIES}/{pushed}", stalled("FleetOff", "fleet switch: off"))
    assert shown["status"]["summary"].startswith("fleet off: ")

    kubectl("delete", "configmap", "numamigration-control")
    bed.api.watch_until(f"{STATES}/{pushed}", lambda state: settings(state) == DMA)
    bed.api.watch_until(f"{POLICIES}/{pushed}", lambda policy: not policy["status"]["summary"].startswith("fleet"))


def test_garbage_in_it_holds_the_fleet_and_every_policy_says_why(
    bed: ControlPlane, kubectl: Callable[..., None], pushed: str
) -> None:
    """Promise 17: a mistyped switch is on the safe side."""
    kubectl("create", "configmap", "numamigration-control", "--from-literal=fleet=of")

    bed.api.watch_until(f"{POLICIES}/{pushed}", stalled("FleetHold", "fleet: 'of' is none of"))
    edited = bed.api.merge_patch(f"{POLICIES}/{pushed}", {"spec": {"settings": {"offload": {"channels": 2}}}})
    bed.api.watch_until(
        f"{POLICIES}/{pushed}",
        lambda policy: policy["status"]["observedGeneration"] == edited["metadata"]["generation"],
    )
    assert settings(bed.api.get(f"{STATES}/{pushed}")) == DMA

    kubectl("patch", "configmap", "numamigration-control", "--patch", '{"data": {"fleet": "run"}}')
    bed.api.watch_until(f"{STATES}/{pushed}", lambda state: settings(state) == {**DMA, "channels": 2})


def test_without_the_right_to_read_it_nothing_is_turned_on_and_that_is_said(
    bed: ControlPlane, tmp_path: Path, unique_name: UniqueName
) -> None:
    """Promise 17: what cannot be read may say off."""
    name = unique_name("node")
    rules = bed.api.get(READER)["rules"]
    bed.api.merge_patch(READER, {"rules": [rule for rule in rules if "configmaps" not in rule["resources"]]})
    make_node(bed.api, name)
    make_policy(bed.api, name, name, settings={"offload": DMA}, onDelete="Keep")
    with OperatorProcess(bed.kubeconfig_for(account(bed), name=ACCOUNT), tmp_path / "log"):
        report_in(bed.api, name)
        bed.api.watch_until(f"{POLICIES}/{name}", stalled("FleetHold", "cannot be understood: configmaps"))
        assert settings(bed.api.get(f"{STATES}/{name}")) is None

        bed.api.merge_patch(READER, {"rules": rules})
        bed.api.watch_until(f"{STATES}/{name}", lambda state: settings(state) == DMA)
    bed.api.delete(f"{POLICIES}/{name}")
