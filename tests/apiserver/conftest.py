# SPDX-License-Identifier: Apache-2.0
"""An API server whose every node and policy is the module's, though the modules of a process share it.

A module may stop the kube-apiserver and start it again, and change or delete whatever stands in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Final

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from tests.apiserver.operator_process import ACCOUNT, OperatorProcess, account, end_starters
from tests.apiserver.shared_bed import VERSIONS, SharedBed
from tests.testbed.api import CRDS, Api
from tests.testbed.controlplane import ControlPlane
from tests.testbed.order import begin_with

ON_EVERY_VERSION: Final = ("test_fence", "test_chart", "test_contract")
LONGEST: Final = (
    *ON_EVERY_VERSION,
    "test_faults_rollout",
    "test_control_plane",
    "test_faults_operator",
    "test_agent_kernel_faults",
    "test_operator_process",
    "test_uninstall_command",
    "test_crds_command",
    "test_faults_agent",
    "test_operator_rollouts",
    "test_operator_leadership",
    "test_chart_commands",
)
"""Files that take long, in the order in which processes begin with them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes long first."""
    begin_with(LONGEST, items)


class ByFileAndVersion(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """One process for all that asks for the oldest Kubernetes too: even an idle API server costs processor time."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "every version" if Path(file).stem in ON_EVERY_VERSION else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFileAndVersion | None:
    return ByFileAndVersion(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_sessionfinish() -> None:
    end_starters()


@pytest.fixture(scope="session")
def shared_beds(request: pytest.FixtureRequest) -> Iterator[Callable[[str], SharedBed]]:
    """Give the API server of a version; it starts when it is asked for first."""
    with ExitStack() as ending:

        @cache
        def of(version: str) -> SharedBed:
            return SharedBed.furnish(ending.enter_context(ControlPlane(request.getfixturevalue(VERSIONS[version]))))

        yield of


@pytest.fixture(scope="module")
def version(request: pytest.FixtureRequest) -> str:
    """The Kubernetes version; modules for which it matters have ``EVERY_VERSION``."""
    chosen: str = getattr(request, "param", "newest")
    return chosen


@pytest.fixture(scope="module")
def shared_bed(version: str, shared_beds: Callable[[str], SharedBed]) -> Iterator[SharedBed]:
    shared = shared_beds(version)
    yield shared
    shared.put_back()


@pytest.fixture(scope="module")
def bed(shared_bed: SharedBed) -> ControlPlane:
    """An API server with our rights and kinds in it, and nothing of another module."""
    return shared_bed.control_plane


@pytest.fixture(scope="module")
def control_plane(bed: ControlPlane) -> ControlPlane:
    """The same, for tests that leave other tests' objects alone."""
    return bed


@pytest.fixture(scope="module")
def api(bed: ControlPlane) -> Api:
    return bed.api


@pytest.fixture(scope="module")
def crds(bed: ControlPlane) -> tuple[str, ...]:
    """Names of our CRDs, which are installed."""
    return tuple(crd["metadata"]["name"] for crd in bed.api.list_items(CRDS))


@pytest.fixture
def changed_bed(shared_bed: SharedBed) -> Iterator[ControlPlane]:
    """The same API server; what the test changes is put back at its end."""
    yield shared_bed.control_plane
    shared_bed.put_back()


@pytest.fixture
def bare_bed(shared_bed: SharedBed) -> Iterator[ControlPlane]:
    """The same API server with nothing of ours in it for one test."""
    yield shared_bed.empty()
    shared_bed.put_back()


@pytest.fixture
def operator(bed: ControlPlane, tmp_path: Path) -> Iterator[OperatorProcess]:
    with OperatorProcess(bed.kubeconfig_for(account(bed), name=ACCOUNT), tmp_path / "log") as running:
        running.wait_line("ready:")
        yield running
