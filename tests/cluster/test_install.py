# SPDX-License-Identifier: Apache-2.0
"""docs/install.md by Helm, line by line, on a real cluster, and what happens to the node's kernel files meanwhile.

An install takes a while, so the tests share it, in the order of this file: the last one uninstalls.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.bed import NODE, Cluster
from tests.cluster.installing import (
    DEMOTION,
    OFF,
    ON,
    OURS,
    POLICY,
    RUNBOOKS,
    STATE,
    apply_policy,
    follow,
    is_through,
    knobs,
    remove_all,
    turn_off,
)
from tests.testbed.chart import NAMESPACE

pytestmark = pytest.mark.uncounted


@pytest.fixture(scope="module")
def stores_before(cluster: Cluster) -> int:
    """How many writes the node's kernel has seen before the install."""
    turn_off(cluster)
    return len(cluster.host.stores)


@pytest.fixture(scope="module")
def installed(cluster: Cluster, stores_before: int) -> Iterator[Cluster]:  # noqa: ARG001 - it comes first
    """The cluster with the chart on it."""
    try:
        follow(cluster, "Helm", "Install")
        yield cluster
    finally:
        remove_all(cluster)


def test_nothing_on_the_node_is_written_before_there_is_a_policy(installed: Cluster, stores_before: int) -> None:
    assert len(installed.host.stores) == stores_before


def test_a_policy_reaches_the_kernel_files_of_the_node_with_its_label(installed: Cluster) -> None:
    machines = Path(DEMOTION).read_text()
    before = knobs(installed)

    apply_policy(installed)
    said = follow(installed, "GitOps")
    installed.api.watch_until(POLICY, is_through, timeout=90)

    assert "migrationpolicy.numamigration.dev/database-offload condition met" in said
    assert (before, knobs(installed)) == (OFF, ON)
    assert Path(DEMOTION).read_text() == machines


def test_losing_agent_and_operators_changes_no_kernel_file(installed: Cluster) -> None:
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


def test_upgrading_and_rolling_back_changes_no_kernel_file(installed: Cluster) -> None:
    """Promise 6: upgrading changes no knob."""
    stores = installed.host.stores

    follow(installed, "Helm", "Upgrade")
    said = follow(installed, "Helm", "Roll back")

    assert "Rollback was a success" in said
    assert (installed.host.stores, knobs(installed)) == (stores, ON)


@pytest.mark.parametrize("page", RUNBOOKS)
def test_what_a_runbook_has_one_type_about_pods_and_releases_ends_well(installed: Cluster, page: str) -> None:
    installed.shell("\n".join([f"NODE={NODE}", *RUNBOOKS[page]]))

    for workload in ("daemonset/numamigration-agent", "deployment/numamigration-operator"):
        installed.kubectl("rollout", "status", workload, "--namespace", NAMESPACE, "--timeout=90s")
    assert knobs(installed) == ON


def test_uninstalling_restores_the_node_and_lets_every_object_go(installed: Cluster) -> None:
    """Promise 13: uninstalling ends in bounded time."""
    said = follow(installed, "Helm", "Uninstall")

    assert knobs(installed) == OFF
    assert "1 of 1" in said
    assert "numamigration" not in installed.kubectl("get", "crds,clusterroles,namespaces", "--output=name")
