# SPDX-License-Identifier: Apache-2.0
"""One cluster for every page and every object."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.docs.world import World
from tests.testbed.binaries import Binaries


@pytest.fixture(scope="session")
def world(binaries: Binaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(binaries, tmp_path_factory.mktemp("checkout")) as running:
        yield running
