# SPDX-License-Identifier: Apache-2.0
"""The agent's process between a real API server and a mounted fake kernel: what `kubectl` and the kernel then say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest

from numamigration_api.vocabulary import MigrationReason
from tests.apiserver.agent_process import NodeUnderTest, drifted_reason, group_state
from tests.fakekernel.config import HostConfig, Workload
from tests.fakekernel.control import Drift, SetWorkloads
from tests.fakekernel.host import FakeHost
from tests.testbed.api import Api, poll
from tests.testbed.controlplane import ControlPlane, free_ports
from tests.unit.agent_rig import OFFLOAD, wish


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
    node.kill()


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


def test_the_agent_works_under_the_seccomp_profile_of_the_chart(
    control_plane: ControlPlane,
    crds: tuple[str, ...],  # noqa: ARG001 - the kind must be there
    host: FakeHost,
    unique_name: Callable[[str], str],
    tmp_path: Path,
) -> None:
    node = NodeUnderTest(control_plane, host, unique_name("node"), tmp_path, program="tests.testbed.confined")
    node.start()
    try:
        node.push(offload=wish(OFFLOAD), demotion=wish({"enabled": True}))
        node.until(lambda status: group_state(status) == group_state(status, "demotion") == "Ready")
        node.push(offload=wish(OFFLOAD, mode="Restore"))
        node.until(lambda status: group_state(status) == "Restored")
        assert node.stop() == 0
    finally:
        node.kill()


def test_it_is_ready_and_tells_numbers_once_the_api_server_has_a_report_of_this_life(node: NodeUnderTest) -> None:
    node.push(demotion=wish({"enabled": True}))
    node.until(lambda status: group_state(status, "demotion") == "Ready")
    assert node.stop() == 0
    (port,) = free_ports(1)

    node.start(f"--health-address=127.0.0.1:{port}")

    def ready() -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{port}/readyz") as answer:
                return bool(answer.read() == b"reports are stored\n")
        except (HTTPError, URLError):
            return False

    assert poll(ready, "a report of this life")
    with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    assert '\nnumamigration_agent_group_state{group="demotion",state="Ready"} 1\n' in text
    assert '\nnumamigration_agent_report_results_total{result="applied"} 1\n' in text


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


def test_the_end_of_the_last_wish_is_reported(node: NodeUnderTest) -> None:
    """Promise 11: a node that nobody wishes anything of any more is one that still reports."""
    node.push(demotion=wish({"enabled": True}, release="Keep"))
    node.until(lambda status: group_state(status, "demotion") == "Ready")

    node.push()

    assert "groups" not in node.until(lambda status: "groups" not in status)
