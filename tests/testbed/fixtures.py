# SPDX-License-Identifier: Apache-2.0
"""The test bed for pytest: ask for ``control_plane``, ``api``, ``crds``, ``helm``, ``prometheus`` or
``chromium``.

One control plane serves a whole run, so a test takes names from ``unique_name`` and leaves other tests' objects
alone. A test that stops servers makes a ``ControlPlane`` of its own from ``binaries``.

Servers, Helm, Prometheus and Chromium are found or built after collection and before the first test (``early``).
Nothing is built when no collected test needs it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
import yaml

from tests.testbed.api import Api, Json
from tests.testbed.binaries import Binaries, find_binaries, find_oldest
from tests.testbed.chart import Helm
from tests.testbed.chromium import Chromium, find_chromium
from tests.testbed.controlplane import ControlPlane
from tests.testbed.early import Early
from tests.testbed.helm import find_helm
from tests.testbed.prometheus import Prometheus, find_prometheus

CRD_FOLDER: Final = Path(__file__).parents[2] / "crds"

BINARIES: Final = Early("binaries", find_binaries)
OLDEST: Final = Early("oldest_binaries", find_oldest)
HELM: Final = Early("helm", find_helm)
PROMETHEUS: Final = Early("prometheus", find_prometheus)
CHROMIUM: Final = Early("chromium", find_chromium)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Find or build the servers, Helm, Prometheus and Chromium, when a collected test needs them."""
    BINARIES.collected(session)
    OLDEST.collected(session)
    HELM.collected(session)
    PROMETHEUS.collected(session)
    CHROMIUM.collected(session)


@pytest.fixture(scope="session")
def binaries(pytestconfig: pytest.Config) -> Binaries:
    """Programs of the test bed, for tests that start a control plane of their own."""
    return BINARIES.get(pytestconfig)


@pytest.fixture(scope="session")
def oldest_binaries(binaries: Binaries, pytestconfig: pytest.Config) -> Binaries:
    """The same with the oldest kube-apiserver that the project supports."""
    return binaries._replace(kube_apiserver=OLDEST.get(pytestconfig))


@pytest.fixture(scope="session")
def control_plane(binaries: Binaries) -> Iterator[ControlPlane]:
    """The control plane of the whole run."""
    with ControlPlane(binaries) as running:
        yield running


@pytest.fixture(scope="session")
def api(control_plane: ControlPlane) -> Api:
    """A client with all rights."""
    return control_plane.api


@pytest.fixture(scope="session")
def crds(api: Api) -> tuple[str, ...]:
    """Install every CustomResourceDefinition of ``crds/*.yaml``; returns their names."""
    documents = [document for path in sorted(CRD_FOLDER.glob("*.yaml")) for document in _documents(path)]
    for document in documents:
        api.install_crd(document)
    return tuple(document["metadata"]["name"] for document in documents)


def _documents(path: Path) -> Iterator[Json]:
    with path.open() as stream:
        yield from filter(None, yaml.safe_load_all(stream))


@pytest.fixture
def unique_name() -> Callable[[str], str]:
    """Return a function that makes a name nobody else in this run has."""
    return lambda prefix: f"{prefix}-{secrets.token_hex(4)}"


@pytest.fixture(scope="session")
def helm(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Helm that sees no cluster."""
    return Helm(HELM.get(pytestconfig), tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def prometheus(pytestconfig: pytest.Config) -> Prometheus:
    """Prometheus and promtool."""
    return PROMETHEUS.get(pytestconfig)


@pytest.fixture(scope="session")
def chromium(pytestconfig: pytest.Config) -> Chromium:
    """Chromium, found or fetched once."""
    return CHROMIUM.get(pytestconfig)
