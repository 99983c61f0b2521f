# SPDX-License-Identifier: Apache-2.0
"""A control plane of a module's own, where servers may be stopped and every node and policy is the module's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.apiserver.operator_process import ACCOUNT, OperatorProcess, account, install_crds, install_rights
from tests.testbed.binaries import Binaries
from tests.testbed.controlplane import ControlPlane

LONGEST: Final = (
    "test_faults_rollout",
    "test_operator_rollouts",
    "test_operator_process",
    "test_operator_leadership",
    "test_fence",
    "test_faults_operator",
    "test_control_plane",
    "test_agent_kernel_faults",
    "test_uninstall_command",
    "test_crds_command",
    "test_chart",
    "test_chart_commands",
    "test_faults_agent",
)
"""Files that take long, in the order in which processes begin with them: none of them shall be the last one alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes long first."""
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(LONGEST)))


@pytest.fixture(scope="module")
def bed(binaries: Binaries) -> Iterator[ControlPlane]:
    with ControlPlane(binaries) as running:
        install_rights(running.api)
        install_crds(running.api)
        yield running


@pytest.fixture
def operator(bed: ControlPlane, tmp_path: Path) -> Iterator[OperatorProcess]:
    with OperatorProcess(bed.kubeconfig_for(account(bed), name=ACCOUNT), tmp_path / "log") as running:
        running.wait_line("ready:")
        yield running
