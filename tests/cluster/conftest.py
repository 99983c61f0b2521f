# SPDX-License-Identifier: Apache-2.0
"""The cluster for pytest: ask for ``cluster`` and ``namespace``.

One cluster serves a whole run, so a test works in a namespace of its own; what is not namespaced gets names from
``unique_name``. What a cluster is made of is found or built after collection and before the first test, as the servers
of the test bed are, and for the same reasons.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.cluster.bed import Cluster
from tests.cluster.prepare import Parts, prepare
from tests.testbed.early import Early
from tests.testbed.order import begin_with

TEST_SECONDS_MAX: Final = 300
"""The first test's includes the start of the cluster, and others run beside it."""

PARTS: Final = Early("parts", prepare)

LONGEST: Final = ("test_install", "test_install_yaml", "test_install_narrow", "test_bed", "test_images")
"""Files that take long, in the order in which processes begin with them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give those in this folder more time, and put what takes long first."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(TEST_SECONDS_MAX))
    begin_with(LONGEST, items)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Find or build what a cluster is made of when a collected test needs it."""
    PARTS.collected(session)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failure what the cluster has to say."""
    report = yield
    cluster = getattr(item, "funcargs", {}).get("cluster")
    if report.when == "call" and report.failed and isinstance(cluster, Cluster):
        report.sections.append(("Cluster", cluster.story()))
    return report


@pytest.fixture(scope="session")
def parts(pytestconfig: pytest.Config) -> Parts:
    """What a cluster is made of, for tests that start one of their own."""
    return PARTS.get(pytestconfig)


@pytest.fixture(scope="session")
def cluster(parts: Parts) -> Iterator[Cluster]:
    """The cluster of the whole run, or of one of the processes in which it runs."""
    with Cluster(parts) as running:
        yield running


@pytest.fixture
def namespace(cluster: Cluster, unique_name: Callable[[str], str]) -> Iterator[str]:
    """A namespace of the test's own, with its default service account; deleted after the test, without waiting."""
    name = unique_name("test")
    cluster.kubectl("create", "namespace", name)
    cluster.api.watch_until(f"/api/v1/namespaces/{name}/serviceaccounts/default", bool)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")
