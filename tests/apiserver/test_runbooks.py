# SPDX-License-Identifier: Apache-2.0
"""The marked commands of docs/runbooks, run by kubectl on a real kube-apiserver as they stand in the pages."""

from __future__ import annotations

import os
import subprocess
from itertools import groupby
from typing import Final

import pytest

from numamigration_api.vocabulary import API_VERSION, CONTROL_CONFIG_MAP, POLICY_KIND, STATE_KIND
from tests.testbed.api import Json
from tests.testbed.chart import NAMESPACE
from tests.testbed.commands import ROOT
from tests.testbed.controlplane import ControlPlane
from tests.testbed.runbooks import Step, steps

pytestmark = pytest.mark.uncounted

KEY: Final = "hold.0123456789abcdef"
COLLECTION: Final = f"/apis/{API_VERSION}"
PAGES: Final = {
    page: list(found) for page, found in groupby(filter(lambda step: step.runs, steps()), lambda one: one.page)
}
SETTINGS: Final = {"offload": {"engine": "DMA", "channels": 4}}


@pytest.fixture
def there(bed: ControlPlane) -> ControlPlane:
    """A policy, a node state, and a control ConfigMap with a held class."""
    policy = {"nodeSelector": {}, "settings": SETTINGS}
    objects: tuple[tuple[str, str, str, str, Json], ...] = (
        ("migrationpolicies", POLICY_KIND, API_VERSION, COLLECTION, {"spec": policy}),
        ("nodemigrationstates", STATE_KIND, API_VERSION, COLLECTION, {"spec": {}}),
        ("configmaps", "ConfigMap", "v1", f"/api/v1/namespaces/{NAMESPACE}", {"data": {KEY: "{}"}}),
    )
    for plural, kind, version, above, content in objects:
        name = CONTROL_CONFIG_MAP if kind == "ConfigMap" else "one"
        document = {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **content}
        bed.api.apply(f"{above}/{plural}/{name}", document, "test-bed", force=True)
    return bed


@pytest.mark.parametrize("page", PAGES)
def test_the_marked_commands_of_a_runbook_run(there: ControlPlane, page: str) -> None:
    for step in PAGES[page]:
        assert run(there, step) == 0, step.text


def run(cluster: ControlPlane, step: Step) -> int:
    ours = {"KUBECONFIG": str(cluster.kubeconfig), "POLICY": "one", "NODE": "one", "KEY": KEY}
    path = f"{cluster.binaries.kubectl.parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["sh", "-ec", step.text], cwd=ROOT, env={**os.environ, **ours, "PATH": path}, check=False
    ).returncode
