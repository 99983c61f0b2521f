# SPDX-License-Identifier: Apache-2.0
"""An install with the seccomp profile that the chart publishes, on a node whose driver comes and goes.

The tests share it, in the order of this file: the last one uninstalls when nobody lives any more.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import pytest

from numamigration_agent.kernel.pages import SYSCALL_OR_CPUSET
from tests.cluster.bed import NODE, Cluster
from tests.cluster.installing import (
    DEMOTION,
    OFF,
    OFFLOADING,
    ON,
    POLICY,
    STATE,
    apply_policy,
    is_through,
    knobs,
    remove_all,
    turn_off,
)
from tests.cluster.test_seccomp import MOVE
from tests.fakekernel.control import Drift, Load, Unload
from tests.fakekernel.parsing import KernelError
from tests.testbed.api import Json, poll
from tests.testbed.chart import CHART, NAMESPACE, RELEASE

pytestmark = pytest.mark.uncounted

PROFILE: Final = CHART / "seccomp" / "numamigration-agent.json"
VALUES: Final[Json] = {
    # A driver that is loaded is seen after half a second at most.
    "agent.settings": {"startJitterSecondsMax": 0, "driftCheckSeconds": 0.5},
    "agent.seccompProfile": {"type": "Localhost", "localhostProfile": PROFILE.name},
    "uninstall.waitSeconds": 2,
}
CHANNELS: Final = "/sys/module/dcbm/parameters/nr_dma_chan"
IN_NAMESPACE: Final = ("--namespace", NAMESPACE)
AGENT: Final = "app.kubernetes.io/component=agent"


def unload(cluster: Cluster) -> None:
    """Do what ``rmmod`` does once nobody offloads; an agent may turn that on again in between."""

    def unloaded() -> bool:
        cluster.host.do(Drift(OFFLOADING, "0"))
        with suppress(KernelError):
            cluster.host.do(Unload())
            return True
        return False

    poll(unloaded, "the driver unloaded")


def offload(state: Json) -> Json:
    found: Json = state.get("status", {}).get("groups", {}).get("offload", {})
    return found


@pytest.fixture(scope="module")
def installed(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with the chart on it, and a node that has the profile and whose driver nobody has loaded."""
    try:
        turn_off(cluster)
        unload(cluster)
        cluster.node.seccomp_folder.mkdir(exist_ok=True)
        shutil.copy(PROFILE, cluster.node.seccomp_folder)
        yield cluster
    finally:
        remove_all(cluster)
        with suppress(KernelError):
            cluster.host.do(Load())
        turn_off(cluster)


def test_a_namespace_without_the_pod_security_label_is_said_by_the_install(installed: Cluster) -> None:
    settings = [part for name, value in VALUES.items() for part in ("--set-json", f"{name}={json.dumps(value)}")]

    said = installed.helm("install", RELEASE, CHART, *IN_NAMESPACE, "--create-namespace", *settings, "--wait")

    assert f"CAUTION: no pod security label was seen on the namespace {NAMESPACE}" in said


def test_under_the_published_profile_the_agents_own_process_may_move_pages(installed: Cluster) -> None:
    """The same calls that RuntimeDefault refuses (test_seccomp)."""
    filter_of_agent = "print(open('/proc/1/status').read().partition('Seccomp:')[2].split()[0])"
    code = f"{filter_of_agent}\n{MOVE.format(reason=SYSCALL_OR_CPUSET)}"

    said = installed.kubectl("exec", *IN_NAMESPACE, "daemonset/numamigration-agent", "--", "python3", "-c", code)

    filtered, answer = said.splitlines()
    assert filtered == "2"
    assert json.loads(answer) == [0, "", [[16, 0, 0, 0], [16, 0, 0, 0]]]


def test_a_driver_that_is_not_loaded_is_said_and_the_rest_of_the_policy_applied(installed: Cluster) -> None:
    """Promise 11: its folder is missing on the host, which is no failure of the agent."""
    apply_policy(installed)

    state = installed.api.watch_until(STATE, lambda state: offload(state).get("reason") == "NotLoaded", timeout=60)

    assert offload(state)["state"] == "Unsupported"
    poll(lambda: installed.node.read(DEMOTION).strip() == ON[1], "demotion is on")
    assert not installed.node.run("ls", "/sys/module/dcbm", check=False).stdout


@pytest.mark.parametrize("load", ["after the agent", "once more"])
def test_a_driver_that_is_loaded_gets_the_policys_settings(installed: Cluster, load: str) -> None:
    """Promise 7: what it brings is the value of before, each time anew."""
    brought = {"after the agent": "1", "once more": "4"}[load]
    if load == "once more":
        unload(installed)

    installed.host.do(Load({"nr_dma_chan": brought}))
    installed.api.watch_until(POLICY, is_through, timeout=60)

    def taken(state: Json) -> bool:
        rows = {row["field"]: row for row in state["status"].get("knobs", [])}
        return bool(rows.get("offload.channels", {}).get("baseline") == brought and offload(state)["state"] == "Ready")

    state = installed.api.watch_until(STATE, taken, timeout=60)
    assert state["status"]["offload"] == "DMA, 2 channels"
    assert (knobs(installed), installed.node.read(CHANNELS).strip()) == (ON, "2")


def test_no_agent_ended_by_itself(installed: Cluster) -> None:
    pods = installed.api.list_items(f"/api/v1/namespaces/{NAMESPACE}/pods", query={"labelSelector": AGENT})

    assert [row["restartCount"] for pod in pods for row in pod["status"]["containerStatuses"]] == [0]


def test_a_missing_folder_of_the_host_is_named_in_the_pods_events(installed: Cluster) -> None:
    before = set(installed.kubectl("get", "pods", *IN_NAMESPACE, "--selector", AGENT, "--output=name").split())

    with installed.node.without("/sys/kernel"):
        installed.kubectl("delete", *before, *IN_NAMESPACE)
        poll(lambda: "/sys/kernel/mm is not a directory" in events(installed), "the missing folder named", timeout=60)
    installed.kubectl("rollout", "status", "daemonset/numamigration-agent", *IN_NAMESPACE, "--timeout=90s")

    assert knobs(installed) == ON


def events(cluster: Cluster) -> str:
    return cluster.kubectl("get", "events", *IN_NAMESPACE, "--field-selector=reason=FailedMount")


def test_with_nobody_alive_uninstalling_ends_and_policies_can_be_deleted(installed: Cluster) -> None:
    """Promise 13: operators are gone, agents too, whose image is broken, and what stays on the node is said."""
    ours = installed.kubectl("get", "pods", *IN_NAMESPACE, "--output=name", "--field-selector=status.phase=Running")
    installed.kubectl("scale", "deployment/numamigration-operator", *IN_NAMESPACE, "--replicas=0")
    installed.kubectl("set", "image", "daemonset/numamigration-agent", *IN_NAMESPACE, "agent=localhost/gone:1")
    installed.kubectl("wait", "--for=delete", *ours.split(), *IN_NAMESPACE, "--timeout=90s")

    installed.helm("uninstall", RELEASE, *IN_NAMESPACE, "--timeout=90s")
    said = installed.kubectl("logs", "job/numamigration-uninstall", *IN_NAMESPACE)

    assert "left on 1 of 1 nodes:" in said
    assert f"  {NODE}: " in said
    assert "finalizer taken out of 1 policies" in said
    installed.kubectl("delete", "migrationpolicies", "--all", "--timeout=30s")
    assert installed.kubectl("get", "migrationpolicies", "--output=name") == ""
    assert knobs(installed) == ON != OFF
