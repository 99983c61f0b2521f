# SPDX-License-Identifier: Apache-2.0
"""The commands of the chart's hooks, with the very rights that the chart gives each, on a real kube-apiserver."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import pytest

from tests.apiserver.hook_rights import grant_hooks
from tests.apiserver.operator_process import (
    NODES,
    POLICIES,
    STATES,
    OperatorProcess,
    end_command,
    forget_leader,
    install_crds,
    join,
    start_command,
)
from tests.testbed.api import CRDS, Json, is_established
from tests.testbed.chart import Helm, hooks_of, pod_spec
from tests.testbed.controlplane import ControlPlane

POLICY_CRD: Final = f"{CRDS}/migrationpolicies.numamigration.dev"
STATE_CRD: Final = f"{CRDS}/nodemigrationstates.numamigration.dev"

UniqueName = Callable[[str], str]
Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(bed: ControlPlane, helm: Helm) -> Iterator[Command]:
    """Run what a hook of the chart runs, as its account; further arguments replace its last ones."""
    given: list[str] = []

    def run(event: str, *instead: str, values: Json | None = None) -> tuple[int, str]:
        hooks = [one for one in helm.template(values) if event in hooks_of(one)]
        given.extend(grant_hooks(bed.api, hooks))
        (runner,) = (one for one in hooks if pod_spec(one))
        arguments = [*pod_spec(runner)["containers"][0]["args"], *instead]
        name = pod_spec(runner)["serviceAccountName"]
        token = bed.service_account_token(runner["metadata"]["namespace"], name)
        return end_command(start_command(bed.kubeconfig_for(token, name=name), *arguments))

    yield run
    for path in given:
        bed.api.delete(path)


def test_the_install_job_may_do_what_it_does(bed: ControlPlane, command: Command) -> None:
    for path in (POLICY_CRD, STATE_CRD):
        bed.api.delete(path)
        bed.api.wait_crd_gone(path)

    code, said = command("pre-install")

    assert code == 0, said
    assert is_established(bed.api.get(POLICY_CRD))
    assert is_established(bed.api.get(STATE_CRD))
    install_crds(bed.api)


def test_the_uninstall_job_may_do_what_it_does(bed: ControlPlane, command: Command) -> None:
    code, said = command("pre-delete", "--namespace", "numamigration-system")

    assert code == 0, said
    assert "fleet switch: restore" in said
    assert bed.api.get(POLICY_CRD)
    bed.api.delete("/api/v1/namespaces/numamigration-system/configmaps/numamigration-control")


def test_the_uninstall_job_may_delete_crds_where_they_are_not_kept(bed: ControlPlane, command: Command) -> None:
    arguments = ("--namespace", "numamigration-system")

    code, said = command("pre-delete", *arguments, values={"crds": {"keep": False}})

    assert code == 0, said
    assert not bed.api.get_if_exists(POLICY_CRD)
    bed.api.delete("/api/v1/namespaces/numamigration-system/configmaps/numamigration-control")
    install_crds(bed.api)


def test_the_test_pod_sees_a_policy_taken_and_agents_report(
    bed: ControlPlane, operator: OperatorProcess, command: Command, unique_name: UniqueName
) -> None:
    name = unique_name("node")
    join(bed.api, name)

    code, said = command("test", "--wait-seconds", "0")

    assert code == 0, said
    assert "policy: the API server would take one" in said
    assert "1 of 1 nodes report" in said
    assert bed.api.get_if_exists(f"{POLICIES}/numamigration-selftest") == {}
    operator.stop()
    forget_leader(bed.api)
    bed.api.delete(f"{STATES}/{name}")
    bed.api.delete(f"{NODES}/{name}")


def test_the_test_pod_fails_where_no_agent_reports(command: Command) -> None:
    code, said = command("test", "--wait-seconds", "0")

    assert code == 1
    assert "agents: there is no node state" in said
