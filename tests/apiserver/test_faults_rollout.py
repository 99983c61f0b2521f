# SPDX-License-Identifier: Apache-2.0
"""What goes wrong in the middle of a rollout over 100 nodes, judged by everything that the API server ever stored.

One fleet and one policy for all of it; each test leaves the last edit on every node. The long form, over 200 nodes, is
`make soak`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from random import Random
from typing import Final

import pytest

from tests.apiserver.operator_process import install_crds, install_rights
from tests.apiserver.rollout_scene import WAIT_SECONDS_MAX, RolloutScene
from tests.testbed.binaries import Binaries
from tests.testbed.controlplane import ControlPlane

pytestmark = [
    pytest.mark.timeout(3 * WAIT_SECONDS_MAX),  # far more than one of its own waits
    pytest.mark.uncounted,  # an operator that is killed says nothing of what it ran
]


NODES: Final = 100
"""Ten of them may be unproven, more than there are requests open at a time."""


@pytest.fixture(scope="module")
def bed(binaries: Binaries) -> Iterator[ControlPlane]:
    """A control plane of its own: both servers are killed, and its history is read from the first version on."""
    with ControlPlane(binaries) as running:
        install_rights(running.api)
        install_crds(running.api)
        yield running


@pytest.fixture(scope="module")
def scene(bed: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RolloutScene]:
    seed = secrets.randbelow(1 << 31)
    print(f"seed {seed}")
    with RolloutScene(bed, tmp_path_factory.mktemp("rollout"), Random(seed), nodes=NODES) as running:
        yield running


def test_kills_of_operator_api_server_and_etcd_under_edits_end_with_the_last_edit_everywhere(
    scene: RolloutScene,
) -> None:
    """Promise 8: a crash at any point."""
    faults = [*[scene.kill_operator] * 3, scene.kill_apiserver, scene.kill_etcd]
    scene.rng.shuffle(faults)
    for number, fault in enumerate(faults):
        if number == 2:
            scene.edit()
        scene.some_progress()
        fault()

    scene.settle()

    scene.judge()
    assert scene.most == scene.budget, "the budget was not used"


def test_of_a_leader_that_was_stopped_beyond_its_lease_only_what_it_was_sending_lands_on_nodes_that_count(
    scene: RolloutScene,
) -> None:
    """Promise 8: two leaders, one of which does not know yet; it ends itself, the other ends its rollout."""
    scene.freeze_leader()

    scene.settle()

    scene.judge()
