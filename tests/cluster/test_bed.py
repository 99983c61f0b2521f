# SPDX-License-Identifier: Apache-2.0
"""The cluster itself: Pods run, the fake kernel takes what they write, and nothing is left on the machine."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.cluster.bed import NODE, Cluster, CommandFailedError
from tests.cluster.images import AGENT_IMAGE, PAUSE_IMAGE
from tests.cluster.prepare import Parts
from tests.cluster.traces import state_of_machine, traces_of
from tests.testbed.api import Json, poll
from tests.testbed.commands import ROOT

pytestmark = pytest.mark.uncounted

START_SECONDS_MAX: Final = 150.0
STOP_SECONDS_MAX: Final = 60.0

KNOB: Final = "/sys/kernel/mm/numa/demotion_enabled"
SYSCTL: Final = "/proc/sys/kernel/numa_balancing"

WHO_AM_I: Final = """
import json, os, ssl, urllib.request
home = "/var/run/secrets/kubernetes.io/serviceaccount"
server = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
request = urllib.request.Request(
    f"{server}/apis/authentication.k8s.io/v1/selfsubjectreviews",
    json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).encode(),
    {"Authorization": "Bearer " + open(f"{home}/token").read(), "Content-Type": "application/json"},
)
tls = ssl.create_default_context(cafile=f"{home}/ca.crt")
print(urllib.request.urlopen(request, context=tls).read().decode())
"""


def pod(command: str, *, image: str = PAUSE_IMAGE, read_only: bool = False, **mounts: str) -> Json:
    """Return the spec of a Pod with as few rights as the agent's.

    Args:
        command: of a shell.
        image: one that the node has.
        read_only: whether it may only read what is mounted.
        mounts: folders of the node, each by the name under which it is found in /host.
    """
    security = {"capabilities": {"drop": ["ALL"]}, "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True}
    container: Json = {"name": "main", "image": image, "imagePullPolicy": "Never", "securityContext": security}
    container["command"] = ["sh", "-ec", command]
    container["volumeMounts"] = [{"name": name, "mountPath": f"/host/{name}", "readOnly": read_only} for name in mounts]
    volumes = [{"name": name, "hostPath": {"path": path}} for name, path in mounts.items()]
    return {"containers": [container], "volumes": volumes}


def test_the_node_is_ready_and_runs_the_kubernetes_that_the_project_targets(cluster: Cluster) -> None:
    status = cluster.api.get(f"/api/v1/nodes/{NODE}")["status"]

    assert [row["status"] for row in status["conditions"] if row["type"] == "Ready"] == ["True"]
    assert status["nodeInfo"]["kubeletVersion"] == "v1.37.2"


def test_a_pod_with_the_default_profile_runs(cluster: Cluster, namespace: str) -> None:
    spec = pod("grep -E '^(Seccomp|CapEff):' /proc/self/status")
    spec["securityContext"] = {"seccompProfile": {"type": "RuntimeDefault"}}

    said = cluster.run_pod(namespace, spec)

    assert said.split() == ["CapEff:", "0000000000000000", "Seccomp:", "2"]


def test_a_command_can_be_run_in_a_pod(cluster: Cluster, namespace: str) -> None:
    """Logs and exec take the way from the API server to the kubelet."""
    cluster.run_pod(namespace, pod("exec sleep infinity"), phase="Running")
    name = cluster.kubectl("get", "pods", "-n", namespace, "-o", "name").strip()

    assert cluster.kubectl("exec", "-n", namespace, name, "--", "echo", "here") == "here\n"


def test_a_pod_reaches_the_api_server_by_in_cluster_configuration(cluster: Cluster, namespace: str) -> None:
    spec = pod("", image=AGENT_IMAGE)
    spec["containers"][0]["command"] = ["python3", "-c", WHO_AM_I]

    said = cluster.run_pod(namespace, spec)

    assert f"system:serviceaccount:{namespace}:default" in said
    assert f'"authentication.kubernetes.io/node-name":["{NODE}"]' in said


def test_a_daemonset_writes_the_fake_kernels_file_and_the_machines_own_stays(cluster: Cluster, namespace: str) -> None:
    machines, before = Path(KNOB).read_text(), len(cluster.host.stores)
    template = pod("echo true >/host/mm/numa/demotion_enabled && exec sleep infinity", mm="/sys/kernel/mm")
    template["containers"][0]["readinessProbe"] = {
        "exec": {"command": ["grep", "-q", "true", "/host/mm/numa/demotion_enabled"]},
        "periodSeconds": 1,
    }
    labels = {"app": "writer"}
    daemonset = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "writer", "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": template},
        },
    }

    cluster.kubectl("apply", "-f", "-", given=[daemonset])
    cluster.kubectl("rollout", "status", "daemonset/writer", "-n", namespace, "--timeout=90s")

    assert cluster.node.read(KNOB) == "true\n"
    assert cluster.host.stores[before:] == [("demotion_enabled", "true")]
    assert Path(KNOB).read_text() == machines


def test_a_hostpath_that_is_read_only_is_so_for_every_knob(cluster: Cluster, namespace: str) -> None:
    """As on a real node, where all of /sys but the cgroups is one mount."""
    before = len(cluster.host.stores)
    command = "! echo 1 >/host/sys/module/dcbm/parameters/offloading && ! echo 1 >/host/proc/sys/kernel/numa_balancing"

    said = cluster.run_pod(namespace, pod(f"({command}) 2>&1", read_only=True, sys="/sys", proc="/proc"))

    assert said.count("Read-only file system") == 2
    assert len(cluster.host.stores) == before


def test_sysctls_of_the_fake_kernel_can_be_written_while_that_is_allowed(cluster: Cluster, namespace: str) -> None:
    machines = Path(SYSCTL).read_text()
    write = pod("echo 2 >/host/kernel/numa_balancing", kernel="/proc/sys/kernel")

    with cluster.node.sysctls_writable():
        cluster.run_pod(namespace, write)
    cluster.run_pod(namespace, write, phase="Failed")

    assert cluster.host.stores[-1:] == [("numa_balancing", "2")]
    assert cluster.node.read(SYSCTL) == "2\n"
    assert Path(SYSCTL).read_text() == machines


def test_helm_finds_the_cluster(cluster: Cluster) -> None:
    assert cluster.helm("list", "--all-namespaces", "--output", "json").strip() == "[]"


def test_a_command_that_fails_says_why(cluster: Cluster) -> None:
    with pytest.raises(CommandFailedError, match=r'kubectl get pods nobody: .*pods "nobody" not found'):
        cluster.kubectl("get", "pods", "nobody")


# --- the machine afterwards ------------------------------------------------------------------------------------------


class Run(NamedTuple):
    """A cluster of another process."""

    process: subprocess.Popen[str]
    folder: Path
    cgroup: str


@contextmanager
def other_process() -> Iterator[Run]:
    """Start a cluster beside that of this run, by the command line."""
    command = [sys.executable, "-m", "tests.cluster", "up"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            found = re.fullmatch(r"cgroup (\S+), logs in (\S+)\n", process.stdout.readline())
            assert found
            process.stdout.readline()
            yield Run(process, Path(found[2]), found[1])
        finally:
            process.kill()


def end_in_order(run: Run) -> None:
    run.process.send_signal(signal.SIGTERM)
    assert run.process.wait(STOP_SECONDS_MAX) == 0


def end_at_once(run: Run) -> None:
    run.process.kill()
    run.process.wait(STOP_SECONDS_MAX)


@pytest.mark.parametrize("end", [end_in_order, end_at_once])
def test_nothing_is_left_on_the_machine_however_a_run_ends(cluster: Cluster, end: Callable[[Run], None]) -> None:
    """Beside another one, which goes on."""
    before = state_of_machine()

    with other_process() as run:
        during, found = state_of_machine(), traces_of(run.folder, run.cgroup)
        end(run)
        poll(lambda: not traces_of(run.folder, run.cgroup), f"traces of {run} gone", timeout=STOP_SECONDS_MAX)

    assert any("kubelet" in line for line in found)
    assert before == during == state_of_machine()
    cluster.check_alive()
    assert cluster.node.read("/proc/sys/kernel/random/boot_id") != Path("/proc/sys/kernel/random/boot_id").read_text()


def test_nothing_is_left_on_the_machine_when_a_start_fails(parts: Parts, tmp_path: Path) -> None:
    before = state_of_machine()
    failing = Cluster(parts._replace(images=(tmp_path / "no-such-image.tar",)))

    with pytest.raises(subprocess.CalledProcessError), failing:
        pass

    assert traces_of(failing.folder, failing.cgroup) == []
    assert state_of_machine() == before
