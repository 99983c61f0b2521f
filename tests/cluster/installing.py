# SPDX-License-Identifier: Apache-2.0
"""What the tests of docs/install.md share: its commands, one policy, and the kernel files that the policy changes.

Verification is off in that policy, for it moves pages between two NUMA nodes and the machine may have one.
"""

from __future__ import annotations

from typing import Final

from tests.cluster.bed import NODE, Cluster
from tests.testbed.api import Json, condition
from tests.testbed.chart import NAMESPACE, RELEASE
from tests.testbed.commands import ROOT
from tests.testbed.pages import CLUSTER, blocks, script, steps

PAGE: Final = ROOT / "docs" / "install.md"
RUNBOOKS: Final = {
    page.stem: commands
    for page in sorted((ROOT / "docs" / "runbooks").glob("*.md"))
    if (commands := [step.text for block in blocks(page) if block.kind == CLUSTER for step in steps(block)])
}
"""What runbooks have one type about Pods that run and releases of Helm."""
SETTINGS: Final = "Settings of this page"
"""Heading of the variables that the commands of a way use."""
AT_ONCE: Final = "--set agent.settings.startJitterSecondsMax=0"
"""Else an agent waits up to half a minute before its first request."""
DEBUG: Final = "--set agent.settings.logLevel=debug --set operator.settings.logLevel=debug"
"""So that an upgrade replaces every Pod."""

GROUP: Final = "/apis/numamigration.dev/v1alpha1"
CRDS: Final = ("migrationpolicies.numamigration.dev", "nodemigrationstates.numamigration.dev")
POLICY: Final = f"{GROUP}/migrationpolicies/database-offload"
STATE: Final = f"{GROUP}/nodemigrationstates/{NODE}"
OURS: Final = ("--namespace", NAMESPACE, "--selector", "app.kubernetes.io/component in (agent,operator)")
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
    """Run what the page says below some headings of one way, and return what it prints; all of it without `steps`.

    Who calls this with what is looked at by tests/unit/test_install_page.py: a command that nobody runs fails it.
    """
    chosen = [(way, step) for step in (SETTINGS, *steps)] if steps else [(way,)]
    text = "".join(script(PAGE, *sections) for sections in chosen)
    for command, flags in {"helm install": AT_ONCE, "helm upgrade": DEBUG}.items():
        text = text.replace(command, f"{command} {flags}")
    return cluster.shell(text)


def apply_policy(cluster: Cluster) -> None:
    policy = {
        "apiVersion": "numamigration.dev/v1alpha1",
        "kind": "MigrationPolicy",
        "metadata": {"name": "database-offload"},
        "spec": SPEC,
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


def turn_off(cluster: Cluster) -> None:
    """Set the node's files as a node has them that nobody tuned."""
    cluster.node.run("sh", "-ec", f"echo 0 >{OFFLOADING}; echo false >{DEMOTION}")
    assert knobs(cluster) == OFF


def remove_all(cluster: Cluster) -> None:
    """Remove whatever a test that failed has left, and what an uninstall keeps."""
    cluster.helm("uninstall", RELEASE, "--namespace", NAMESPACE, "--no-hooks", "--ignore-not-found", "--wait")
    if cluster.api.get_if_exists(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{CRDS[0]}"):
        for policy in cluster.api.list_items(f"{GROUP}/migrationpolicies"):
            cluster.api.merge_patch(
                f"{GROUP}/migrationpolicies/{policy['metadata']['name']}", {"metadata": {"finalizers": None}}
            )
    cluster.kubectl("delete", "crds", *CRDS, "--ignore-not-found", "--timeout=90s")
    cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=90s")
