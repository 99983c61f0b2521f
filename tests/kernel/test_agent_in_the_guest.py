# SPDX-License-Identifier: Apache-2.0
"""The agent on a real kernel, with the real API server on the host."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.kernel.guest import Guest
from tests.kernel.node import GuestNode
from tests.testbed.controlplane import ControlPlane


@pytest.mark.usefixtures("crds")
def test_the_agent_reports_the_guests_kernel_to_the_api_server_on_the_host(
    guest: Guest, control_plane: ControlPlane, unique_name: Callable[[str], str]
) -> None:
    node = GuestNode(guest, control_plane, unique_name("guest"))
    node.push()

    node.start()
    status = node.until(lambda status: bool(status.get("kernelRelease")))
    ended = node.stop()

    assert status["kernelRelease"] == guest.hello["release"]
    assert ended.code == 0, ended.output
