# SPDX-License-Identifier: Apache-2.0
"""A control plane of a module's own, where servers may be stopped and every node and policy is the module's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.apiserver.operator_process import ACCOUNT, OperatorProcess, account, install_crds, install_rights
from tests.testbed.binaries import Binaries
from tests.testbed.controlplane import ControlPlane


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
