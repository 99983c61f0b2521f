# SPDX-License-Identifier: Apache-2.0
"""The agent's process between a real API server and a mounted fake kernel: what `kubectl` and the kernel then say."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from numamigration_api.vocabulary import API_VERSION, OPERATOR_MANAGER, STATE_KIND, STATE_PLURAL, MigrationReason
from tests.fakekernel.config import HostConfig, Workload
from tests.fakekernel.control import Drift, SetWorkloads
from tests.fakekernel.host import FakeHost
from tests.testbed.api import Api, Json
from tests.testbed.controlplane import ControlPlane
from tests.unit.agent_rig import OFFLOAD, wish

PROJECT: Final = Path(__file__).parents[2]
COLLECTION: Final = f"/apis/{API_VERSION}/{STATE_PLURAL}"
STOP_SECONDS_MAX: Final = 30


class NodeUnderTest:
    """A node state, a mounted host, and the agent's process between them."""

    def __init__(self, control_plane: ControlPlane, host: FakeHost, name: str, folder: Path) -> None:
        self.api, self.host, self.name = control_plane.api, host, name
        self._folder, self._server, self._ca = folder, control_plane.server, control_plane.ca
        (folder / "token").write_text(control_plane.admin_token)
        self._generation = 0
        self.agent: subprocess.Popen[bytes] | None = None

    @property
    def path(self) -> str:
        return f"{COLLECTION}/{self.name}"

    def start(self) -> None:
        flags = (
            f"--node-name={self.name}",
            f"--host-root={self.host.root}",
            f"--state-dir={self._folder / 'state'}",
            f"--api-server={self._server}",
            f"--ca-file={self._ca}",
            f"--token-file={self._folder / 'token'}",
            "--start-jitter-seconds-max=0",
            "--drift-check-seconds=0.2",
            "--statistics-window-seconds=0.5",
            "--report-interval-seconds-min=1",
            "--report-interval-seconds-max=1",
        )
        path = os.pathsep.join(str(PROJECT / room) for room in ("crds", "node-agent"))
        self.agent = subprocess.Popen(
            [sys.executable, "-m", "numamigration_agent", *flags],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": path},
        )

    def stop(self) -> int:
        assert self.agent is not None
        self.agent.terminate()
        return self.agent.wait(STOP_SECONDS_MAX)

    def push(self, **groups: Any) -> None:
        """Write a spec as the operator does."""
        self._generation += 1
        spec = {"revision": f"{self._generation:016x}", "groups": groups}
        document = {"apiVersion": API_VERSION, "kind": STATE_KIND, "metadata": {"name": self.name}, "spec": spec}
        self.api.apply(self.path, document, OPERATOR_MANAGER, force=True)

    def until(self, predicate: Callable[[Json], bool]) -> Json:
        """Return the status once it is about the last spec and satisfies `predicate`."""
        revision = f"{self._generation:016x}"

        def holds(state: Json) -> bool:
            status = state.get("status", {})
            return status.get("observedRevision") == revision and predicate(status)

        found: Json = self.api.watch_until(self.path, holds)["status"]
        return found


@pytest.fixture
def host() -> Iterator[FakeHost]:
    with FakeHost(HostConfig()) as host:
        yield host


@pytest.fixture
def node(
    control_plane: ControlPlane,
    crds: tuple[str, ...],  # noqa: ARG001 - the kind must be there
    host: FakeHost,
    unique_name: Callable[[str], str],
    tmp_path: Path,
) -> Iterator[NodeUnderTest]:
    node = NodeUnderTest(control_plane, host, unique_name("node"), tmp_path)
    node.start()
    yield node
    if node.agent is not None and node.agent.poll() is None:
        node.agent.kill()
        node.agent.wait()


def group_state(status: Json, name: str = "offload") -> str:
    state: str = status["groups"].get(name, {}).get("state", "")
    return state


def drifted_reason(status: Json) -> str:
    return next(str(row["reason"]) for row in status["conditions"] if row["type"] == "Drifted")


def test_a_wish_reaches_the_kernel_and_its_end_restores_what_was_there(node: NodeUnderTest) -> None:
    """Promises 1, 6 and 7, through files, sockets and a restart of the agent."""
    before = node.host.snapshot()
    node.push(offload=wish(OFFLOAD), demotion=wish({"enabled": True}))

    status = node.until(lambda status: group_state(status) == "Ready")
    assert status["offload"] == "DMA, 4 channels"
    assert node.host.snapshot().offloading

    assert node.stop() == 0
    assert node.host.snapshot().offloading
    node.start()

    node.push(offload=wish(OFFLOAD, mode="Restore"), demotion=wish({"enabled": True}, mode="Restore"))
    node.until(lambda status: group_state(status) == group_state(status, "demotion") == "Restored")
    after = node.host.snapshot()
    assert (after.offloading, after.nr_dma_chan, after.reasons) == (False, before.nr_dma_chan, before.reasons)
    assert after.demotion_enabled == before.demotion_enabled


def test_drift_is_set_back_and_told(node: NodeUnderTest) -> None:
    node.push(offload=wish(OFFLOAD))
    node.until(lambda status: group_state(status) == "Ready")

    node.host.do(Drift("/sys/module/dcbm/parameters/nr_dma_chan", "1"))

    node.until(lambda status: drifted_reason(status) == "DriftCorrected")
    assert node.host.snapshot().nr_dma_chan == 4


def test_moving_folios_are_counted_and_reported(node: NodeUnderTest, api: Api) -> None:
    node.push(offload=wish(OFFLOAD))
    node.host.do(SetWorkloads((Workload(MigrationReason.DAMON, 5000),)))

    node.until(lambda status: float(status.get("statistics", {}).get("foliosPerSecond", "0")) > 1000)

    managers = {entry["manager"] for entry in api.get(node.path)["metadata"]["managedFields"]}
    assert managers == {"numamigration-agent", "numamigration-operator"}
