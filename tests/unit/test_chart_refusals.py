# SPDX-License-Identifier: Apache-2.0
"""What the chart refuses, and with what words; what only a cluster shows is in tests/apiserver/test_chart.py."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from scripts.chart_documents import ValuesError, rows, schema
from tests.testbed.api import Json
from tests.testbed.chart import CHART, Helm


@pytest.mark.parametrize(
    ("values", "said"),
    [
        pytest.param({"replicas": 3}, "additional properties 'replicas' not allowed", id="at the top"),
        pytest.param({"operator": {"replica": 3}}, "at '/operator': additional properties 'replica'", id="one below"),
        pytest.param({"agent": {"image": {"name": "x"}}}, "at '/agent/image': additional properties 'name'", id="deep"),
        pytest.param({"agent": {"settings": {"stateDir": "/x"}}}, "at '/agent/settings': additional", id="no value"),
        pytest.param({"agent": {"resources": {"limit": {}}}}, "at '/agent/resources': additional", id="of Kubernetes"),
        pytest.param(
            {"agent": {"tolerations": [{"keys": "x"}]}}, "at '/agent/tolerations/0': additional", id="in a list"
        ),
    ],
)
def test_a_value_that_does_not_exist_is_refused_with_its_place(helm: Helm, values: Json, said: str) -> None:
    assert said in helm.refusal(values)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        pytest.param({"operator": {"replicas": "2"}}, "at '/operator/replicas': got string, want integer", id="number"),
        pytest.param({"crds": {"keep": "no"}}, "at '/crds/keep': got string, want boolean", id="switch"),
        pytest.param({"operator": {"image": {"tag": 1.0}}}, "'/operator/image/tag': got number, want string", id="tag"),
        pytest.param({"operator": {"settings": {"applyBurst": 0}}}, "minimum: got 0, want 1", id="below a bound"),
        pytest.param({"agent": {"updateMaxUnavailable": 0}}, "minimum: got 0, want 1", id="no agent may be updated"),
        pytest.param({"agent": {"updateMaxUnavailable": "101%"}}, "does not match pattern", id="over all"),
        pytest.param({"operator": {"image": {"digest": "sha256:1"}}}, "does not match pattern", id="half a digest"),
        pytest.param({"agent": {"seccompProfile": {"type": "Off"}}}, "value must be one of", id="no such profile"),
        pytest.param({"agent": {"nodeSelector": {"pool": 1}}}, "got number, want string", id="a label's value"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_with_its_place(helm: Helm, values: Json, said: str) -> None:
    assert said in helm.refusal(values)


def test_a_profile_on_the_nodes_needs_a_name(helm: Helm) -> None:
    said = helm.refusal({"agent": {"seccompProfile": {"type": "Localhost"}}})

    assert "agent.seccompProfile.localhostProfile must name the profile" in said


@pytest.mark.parametrize("version", ["1.31.14", "1.31.4-gke.100"])
def test_kubernetes_before_1_32_is_refused(helm: Helm, version: str) -> None:
    said = helm.refusal({}, "--kube-version", version)

    assert f"chart requires kubeVersion: >=1.32.0-0 which is incompatible with Kubernetes v{version}" in said


@pytest.mark.parametrize("version", ["1.32.0", "1.32.1-eks-1234", "1.37.2"])
def test_kubernetes_from_1_32_on_is_taken(helm: Helm, version: str) -> None:
    assert helm.template({}, "--kube-version", version)


def test_nothing_that_is_not_listed_is_legal_anywhere() -> None:
    """But global, which Helm fills, and maps whose keys are the user's own."""
    found: Json = yaml.safe_load((CHART / "values.schema.json").read_text())

    open_ones = [path for path, node in _objects("", found) if node.get("additionalProperties", True) is True]

    assert open_ones == [".global"]


def _objects(path: str, node: Any) -> Iterator[tuple[str, Json]]:
    if node.get("type") == "object":
        yield path, node
    for name, inner in node.get("properties", {}).items():
        yield from _objects(f"{path}.{name}", inner)
    if "items" in node:
        yield from _objects(f"{path}[]", node["items"])


def test_every_value_says_what_it_means() -> None:
    table = {row.path: row for row in rows((CHART / "values.yaml").read_text())}

    silent = [".".join(path) for path, row in table.items() if row.shape and not row.meaning]

    assert silent == []


def test_a_meaning_may_take_several_lines() -> None:
    text = "top:\n  # -- One thing,\n  # and another.\n  # @schema $strings\n  inner: {}\n"

    (row,) = rows(text)

    assert row == (("top", "inner"), "One thing, and another.", "$strings")


def test_a_shape_that_is_not_there_is_named_with_its_value() -> None:
    table = rows("# -- Meaning.\n# @schema $nothing\ntop: 1\n")

    with pytest.raises(ValuesError, match=r"top: no schema: \$nothing"):
        schema(table)
