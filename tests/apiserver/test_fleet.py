# SPDX-License-Identifier: Apache-2.0
"""A simulated fleet against a real API server: what its agents do there is what agents do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

import pytest

from numamigration_api.machinery.canonical import spec_revision
from numamigration_api.vocabulary import Reason
from tests.apiserver.operator_process import NODES, STATES
from tests.fleet.cast import ZONE, Pace, Part
from tests.fleet.client import Access
from tests.fleet.fleet import Fleet
from tests.testbed.api import Json
from tests.testbed.controlplane import ControlPlane
from tests.unit.agent_rig import wish

pytestmark = pytest.mark.uncounted

PACE: Final = Pace(statistics_window=1, start_jitter=0)
ZONES: Final = ("zone-a", "zone-b")


def write(bed: ControlPlane, name: str, groups: Json) -> None:
    """Write a node state's spec, as the operator does."""
    spec = {"groups": groups, "plans": [], "verifyEpoch": 0}
    body = {"apiVersion": "numamigration.dev/v1alpha1", "kind": "NodeMigrationState", "metadata": {"name": name}}
    bed.api.apply(f"{STATES}/{name}", {**body, "spec": {"revision": spec_revision(spec), **spec}}, "test", force=True)


async def until(bed: ControlPlane, name: str, holds: Callable[[Json], bool]) -> Json:
    """Return the node state's status once it is as awaited; the fleet goes on meanwhile."""
    path = f"{STATES}/{name}"
    found = await asyncio.to_thread(bed.api.watch_until, path, lambda state: holds(state.get("status", {})))
    status: Json = found["status"]
    return status


def play(bed: ControlPlane, part: Part, scene: Callable[[Fleet], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with Fleet(Access.of(bed.kubeconfig), [part], PACE, connections=2) as fleet:
            await scene(fleet)
            assert not fleet.crash.done()

    asyncio.run(run())


def offload(status: Json) -> Json:
    group: Json = status.get("groups", {}).get("offload", {})
    return group


def test_each_node_has_its_labels_and_carries_out_its_own_wish(bed: ControlPlane) -> None:
    async def scene(fleet: Fleet) -> None:
        for number in range(4):
            write(bed, f"many-00{number}", {"offload": wish({"engine": "DMA", "channels": number + 1})})
        for number in range(4):
            await until(bed, f"many-00{number}", lambda status: offload(status).get("state") == "Ready")
        shown = [node.knob("offload.channels") for node in fleet.nodes.values()]
        assert shown == ["1", "2", "3", "4"]
        assert fleet.facts()["offloading"] == 4
        assert bed.api.get(f"{NODES}/many-003")["metadata"]["labels"][ZONE] == "zone-b"

    play(bed, Part("many", 4, zones=ZONES), scene)


def test_a_silent_agent_hears_of_its_wish_once_it_is_back(bed: ControlPlane) -> None:
    async def scene(fleet: Fleet) -> None:
        [node] = fleet.select("quiet-*")
        write(bed, "quiet-000", {})
        await until(bed, "quiet-000", bool)
        fleet.stop(node)
        write(bed, "quiet-000", {"offload": wish({"engine": "DMA", "channels": 2})})
        assert not node.offloads
        fleet.start(node)
        await until(bed, "quiet-000", lambda status: offload(status).get("state") == "Ready")
        assert node.offloads

    play(bed, Part("quiet", 1), scene)


def test_a_refused_write_reaches_the_node_state(bed: ControlPlane) -> None:
    async def scene(fleet: Fleet) -> None:
        [node] = fleet.select("stubborn-*")
        fleet.do(node, lambda: node.refuse_writes(13))
        write(bed, "stubborn-000", {"offload": wish({"engine": "DMA", "channels": 2})})
        status = await until(bed, "stubborn-000", lambda status: offload(status).get("state") == "Failed")
        assert offload(status)["reason"] == Reason.PERMISSION_DENIED

    play(bed, Part("stubborn", 1), scene)
