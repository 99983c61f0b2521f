# SPDX-License-Identifier: Apache-2.0
"""docs/install.md, line by line, on a cluster that runs it, and what happens to the node's kernel files meanwhile.

An install takes a while, so the tests of one way share it: the last one of a class uninstalls. Verification is off,
for it moves pages between two NUMA nodes and the machine may have one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.cluster.bed import NODE, Cluster
from tests.testbed.api import Json, condition
from tests.testbed.chart import NAMESPACE, RELEASE
from tests.testbed.commands import ROOT
from tests.testbed.pages import script

pytestmark = pytest.mark.uncounted

PAGE: Final = ROOT / "docs" / "install.md"
AT_ONCE: Final = "--set agent.settings.startJitterSecondsMax=0"
"""Else an agent waits up to half a minute before its first request."""
DEBUG: Final = "--set agent.settings.logLevel=debug --set operator.settings.logLevel=debug"
"""So that an upgrade replaces every Pod."""

GROUP: Final = "/apis/numamigration.dev/v1alpha1"
POLICY: Final = f"{GROUP}/migrationpolicies/database-offload"
STATE: Final = f"{GROUP}/nodemigrationstates/{NODE}"
OURS: Final = ("--namespace", NAMESPACE, "--selector", "app.kubernetes.io/name=numa-migration-operator")
DEMOTION: Final = "/sys/kernel/mm/numa/demotion_enabled"
OFFLOADING: Final = "/sys/module/dcbm/parameters/offloading"
OFF, ON = ("0", "false"), ("1", "true")

SPEC: Final[Json] = {
    "nodeSelector": {"matchLabels": {"workload": "database"}},
    "settings": {
        "offload": {"engine": "DMA", "channels": 2, "reasons": ["mempolicy_mbind"]},
        "demotion": {"enabled": True},
    },
    "verification": "Off",
    "acceptedRisks": ["UnverifiedEngine"],
    "rollout": {"canary": {"nodes": 1, "soakSeconds": 0}},
}


def follow(cluster: Cluster, way: str, *steps: str) -> str:
    """Run what the page says below some headings of one way, and return what it prints."""
    text = "".join(script(PAGE, way, step) for step in ("Settings of this page", *steps))
    for command, flags in {"helm install": AT_ONCE, "helm upgrade": DEBUG}.items():
        text = text.replace(command, f"{command} {flags}")
    return cluster.shell(text)


def apply_policy(cluster: Cluster, **changes: object) -> None:
    policy = {
        "apiVersion": "numamigration.dev/v1alpha1",
        "kind": "MigrationPolicy",
        "metadata": {"name": "database-offload"},
        "spec": SPEC | changes,
    }
    cluster.kubectl("label", "node", NODE, "workload=database", "--overwrite")
    cluster.kubectl("apply", "--server-side", "--filename=-", given=[policy])


def is_through(policy: Json) -> bool:
    """Tell whether the node has what the present generation of its policy wants."""
    status = policy.get("status", {})
    latest = status.get("observedGeneration") == policy["metadata"]["generation"]
    return latest and status["nodes"]["ready"] == 1 and condition(policy, "Ready").get("status") == "True"


def knobs(cluster: Cluster) -> tuple[str, str]:
    return cluster.node.read(OFFLOADING).strip(), cluster.node.read(DEMOTION).strip()


def remove_all(cluster: Cluster) -> None:
    """Remove whatever a test that failed has left."""
    if RELEASE in cluster.helm("list", "--all", "--short", "--namespace", NAMESPACE):
        cluster.helm("uninstall", RELEASE, "--namespace", NAMESPACE, "--no-hooks", "--wait")
    cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=90s")


class TestByHelm:
    """From ``helm install`` to ``helm uninstall``."""

    @pytest.fixture(scope="class")
    def installed(self, cluster: Cluster) -> Iterator[Cluster]:
        try:
            follow(cluster, "Helm", "Install")
            yield cluster
        finally:
            remove_all(cluster)

    def test_nothing_on_the_node_is_written_before_there_is_a_policy(self, installed: Cluster) -> None:
        assert installed.host.stores == []

    def test_a_policy_reaches_the_kernel_files_of_the_node_with_its_label(self, installed: Cluster) -> None:
        machines = Path(DEMOTION).read_text()
        before = knobs(installed)

        apply_policy(installed)
        installed.api.watch_until(POLICY, is_through, timeout=90)

        assert (before, knobs(installed)) == (OFF, ON)
        assert Path(DEMOTION).read_text() == machines

    def test_losing_agent_and_operators_changes_no_kernel_file(self, installed: Cluster) -> None:
        """Promise 6: stopping or losing an agent or the operator changes no knob."""
        stores, state = installed.host.stores, installed.api.get(STATE)
        lost = set(installed.kubectl("get", "pods", *OURS, "--output=name").split())

        installed.kubectl("delete", *lost, "--namespace", NAMESPACE, "--grace-period=0", "--force")
        for workload in ("daemonset/numamigration-agent", "deployment/numamigration-operator"):
            installed.kubectl("rollout", "status", workload, "--namespace", NAMESPACE, "--timeout=90s")
        reported = state["status"]["reportedAt"]
        installed.api.watch_until(STATE, lambda now: now["status"]["reportedAt"] > reported, timeout=90)

        assert len(lost) == 3
        assert (installed.host.stores, knobs(installed)) == (stores, ON)

    def test_upgrading_and_rolling_back_changes_no_kernel_file(self, installed: Cluster) -> None:
        """Promise 6: upgrading changes no knob."""
        stores = installed.host.stores

        follow(installed, "Helm", "Upgrade")
        said = follow(installed, "Helm", "Roll back")

        assert "Rollback was a success" in said
        assert (installed.host.stores, knobs(installed)) == (stores, ON)

    def test_uninstalling_restores_the_node_and_lets_every_object_go(self, installed: Cluster) -> None:
        """Promise 13: uninstalling ends in bounded time."""
        said = follow(installed, "Helm", "Uninstall")

        assert knobs(installed) == OFF
        assert "1 of 1" in said
        assert "numamigration" not in installed.kubectl("get", "crds,clusterroles,namespaces", "--output=name")
