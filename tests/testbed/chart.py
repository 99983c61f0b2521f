# SPDX-License-Identifier: Apache-2.0
"""The chart, rendered or installed by the real Helm: ``Helm(find_helm(Progress()), home)``."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from tests.testbed.api import Json
from tests.testbed.commands import ROOT

CHART: Final = ROOT / "charts" / "numa-migration-operator"
RELEASE: Final = "numa-migration-operator"
NAMESPACE: Final = "numamigration-system"
HELM_SECONDS_MAX: Final = 60.0

EVERYTHING: Final[Json] = {
    "imagePullSecrets": [{"name": "registry"}],
    "namespace": {"create": True},
    "crds": {"keep": False},
    "pluginRoles": {
        "viewers": [{"kind": "Group", "name": "developers", "apiGroup": "rbac.authorization.k8s.io"}],
        "operators": [{"kind": "ServiceAccount", "name": "sre", "namespace": "sre"}],
    },
    "operator": {
        "image": {"digest": f"sha256:{'0' * 64}"},
        "tolerations": [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}],
        "priorityClassName": "system-cluster-critical",
        "podLabels": {"team": "platform"},
        "podAnnotations": {"example.com/owner": "platform"},
    },
    "agent": {
        "hostWrite": {"sysKernel": True, "procSysVm": True, "procSysKernel": True},
        "seccompProfile": {"type": "Localhost", "localhostProfile": "profiles/agent.json"},
        "seLinuxOptions": {"type": "spc_t"},
        "podLabels": {"team": "platform"},
        "podAnnotations": {"example.com/owner": "platform"},
    },
    "networkPolicy": {
        "enabled": True,
        "apiServer": {"cidrs": ["192.0.2.1/32"]},
        "metricsFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
    },
    "monitoring": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "agentPodMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboard": {"enabled": True},
    },
}
"""Values that turn on whatever the chart can render."""


class Helm(NamedTuple):
    """The program, with folders of its own and perhaps a cluster.

    Attributes:
        home: for what it would keep in the home folder.
        kubeconfig: None lets it see no cluster.
    """

    program: Path
    home: Path
    kubeconfig: Path | None = None

    def run(self, *arguments: str | Path, values: Mapping[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, whatever that is; `values` go in by standard input."""
        chosen: tuple[str, ...] = () if values is None else ("--values", "-")
        return subprocess.run(
            [self.program, *arguments, *chosen],
            input="" if values is None else yaml.safe_dump(dict(values)),
            env={"PATH": os.environ["PATH"], "HOME": str(self.home), "KUBECONFIG": str(self.kubeconfig or os.devnull)},
            capture_output=True,
            text=True,
            timeout=HELM_SECONDS_MAX,
            check=False,
        )

    def template(self, values: Mapping[str, Any] | None = None, *flags: str) -> list[Json]:
        """Return the objects that the chart renders, hooks included.

        Raises:
            AssertionError: Helm refused; the message is its own.
        """
        result = self.run("template", RELEASE, CHART, "--namespace", NAMESPACE, *flags, values=values or {})
        assert result.returncode == 0, result.stderr
        return [document for document in yaml.safe_load_all(result.stdout) if document]

    def refusal(self, values: Mapping[str, Any], *flags: str) -> str:
        """Return what Helm says when it refuses to render.

        Raises:
            AssertionError: it does not refuse.
        """
        result = self.run("template", RELEASE, CHART, "--namespace", NAMESPACE, *flags, values=values)
        assert result.returncode != 0, result.stdout
        return result.stderr


def hooks_of(document: Json) -> tuple[str, ...]:
    """Return the events at which Helm applies an object; none for one that belongs to the release."""
    annotations = document["metadata"].get("annotations", {})
    return tuple(filter(None, annotations.get("helm.sh/hook", "").split(",")))


def pod_spec(document: Json) -> Json:
    """Return the spec of the Pods that an object is or makes; ``{}`` when it makes none."""
    spec = document.get("spec", {})
    found: Json = spec if document["kind"] == "Pod" else spec.get("template", {}).get("spec", {})
    return found
