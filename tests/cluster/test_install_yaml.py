# SPDX-License-Identifier: Apache-2.0
"""docs/install.md by plain YAML, line by line, on a real cluster; the tests share the install, the last uninstalls."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.bed import Cluster
from tests.cluster.installing import OFF, ON, POLICY, apply_policy, follow, is_through, knobs, remove_all, turn_off

pytestmark = pytest.mark.uncounted

WAY = "Plain YAML"


@pytest.fixture(scope="module")
def installed(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with everything of deploy/ on it."""
    try:
        turn_off(cluster)
        follow(cluster, WAY, "Install or upgrade")
        yield cluster
    finally:
        remove_all(cluster)


def test_a_policy_reaches_the_kernel_files(installed: Cluster) -> None:
    apply_policy(installed)
    installed.api.watch_until(POLICY, is_through, timeout=120)

    assert knobs(installed) == ON


def test_rolling_back_leaves_the_crds_and_every_kernel_file_alone(installed: Cluster) -> None:
    """Promise 6: upgrading changes no knob."""
    stores = installed.host.stores

    said = follow(installed, WAY, "Roll back")

    assert "daemonset.apps/numamigration-agent serverside-applied" in said
    assert "customresourcedefinition" not in said
    assert (installed.host.stores, knobs(installed)) == (stores, ON)


def test_uninstalling_restores_the_node_and_lets_every_object_go(installed: Cluster) -> None:
    """Promise 13: uninstalling ends in bounded time."""
    said = follow(installed, WAY, "Uninstall")

    assert knobs(installed) == OFF
    assert "1 of 1" in said
    assert "numamigration" not in installed.kubectl("get", "crds,clusterroles,namespaces", "--output=name")
