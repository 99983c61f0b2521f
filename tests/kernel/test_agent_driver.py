# SPDX-License-Identifier: Apache-2.0
"""The driver comes and goes under an agent that runs, and the agent may not do what it should."""

from __future__ import annotations

import pytest

from tests.apiserver.agent_process import group_state
from tests.kernel.dcbm import OFFLOAD, Driver
from tests.kernel.guest import Guest
from tests.kernel.hands import Hands
from tests.kernel.node import GuestNode
from tests.unit.agent_rig import wish

NOBODY = 65534
READ_ONLY = ("unshare", "--mount", "sh", "-c", 'mount -o remount,bind,ro /sys && exec "$0" "$@"')
"""Starts a program for which /sys is read-only, as container runtimes have it."""


UNLOADS_MAX = 100
"""Tries; the agent waits longer after each correction, so one of the first is quicker than it."""


@pytest.mark.needs_switches
def test_a_driver_that_is_unloaded_and_loaded_again_is_told_and_set_anew_and_given_back_as_it_was_loaded(
    v6: Driver, node: GuestNode, guest: Guest
) -> None:
    """Promises 2, 7 and 11: nothing is created, and what stood there in the former life went with it."""
    node.start()
    node.push(offload=wish(OFFLOAD))
    node.until(lambda status: group_state(status) == "Ready")

    # Whoever is first: the agent turns on again what somebody else has turned off.
    once = f"echo 0 >{v6.path('offloading')}; rmmod dcbm"
    gone = guest.run(["sh", "-c", f"for again in $(seq {UNLOADS_MAX}); do {once} && exit 0; done; exit 1"])

    assert gone.code == 0, gone.output
    status = node.reason("KernelUnsupported")
    assert (status["offload"], group_state(status)) == ("Unsupported", "Unsupported")
    assert guest.run(["ls", "/sys/module/dcbm"]).code == 2
    v6.load("nr_dma_chan=2")
    status = node.until(lambda status: group_state(status) == "Ready")
    assert [row["baseline"] for row in status["knobs"] if row["field"] == "offload.channels"] == ["2"]
    node.push(offload=wish(OFFLOAD, mode="Restore"))
    node.until(lambda status: group_state(status) == "Restored")
    assert {name: v6.knobs()[name] for name in ("offloading", "nr_dma_chan")} == {"offloading": "0", "nr_dma_chan": "2"}


@pytest.mark.parametrize(
    ("within", "user", "reason"),
    [
        pytest.param(READ_ONLY, 0, "ReadOnlyFileSystem", id="EROFS"),
        pytest.param((), NOBODY, "PermissionDenied", id="EACCES"),
    ],
)
def test_an_agent_that_may_not_write_says_why_and_leaves_the_node_as_it_was(
    v6: Driver, node: GuestNode, hands: Hands, within: tuple[str, ...], user: int, reason: str
) -> None:
    """Promises 4 and 11: neither a driver's file nor one of the memory management."""
    demotion = "/sys/kernel/mm/numa/demotion_enabled"
    before = v6.knobs(), hands.read(demotion)
    node.start(f"--state-dir=/tmp/{node.name}", within=within, user=user)

    node.push(offload=wish(OFFLOAD), demotion=wish({"enabled": True}))

    node.reason(reason, "demotion")
    status = node.reason(reason)
    assert group_state(status) == group_state(status, "demotion") == "Failed"
    assert (v6.knobs(), hands.read(demotion)) == before
