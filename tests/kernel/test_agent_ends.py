# SPDX-License-Identifier: Apache-2.0
"""The agent is killed, or the kernel ends: what was begun is ended, and what was before comes back."""

from __future__ import annotations

import pytest

from tests.apiserver.agent_process import group_state
from tests.kernel.agent_bed import Rebooted
from tests.kernel.dcbm import OFFLOAD, Driver
from tests.kernel.guest import Guest
from tests.kernel.hands import Hands
from tests.kernel.node import GuestNode, install
from tests.unit.agent_rig import wish

WISHED = {"offloading": "1", "nr_dma_chan": "4", "reason_mask": "syscall_or_cpuset,mempolicy_mbind"}
RESTORE = wish(OFFLOAD, mode="Restore")


def test_a_killed_agent_changes_nothing_and_the_next_one_restores_what_was_before_the_first(
    v6: Driver, node: GuestNode
) -> None:
    """Promises 6 and 7."""
    v6.write("nr_dma_chan", 3)
    before = v6.knobs()
    node.start()
    node.push(offload=wish(OFFLOAD))
    node.until(lambda status: group_state(status) == "Ready")

    node.kill()

    assert v6.knobs() == WISHED
    node.push(offload=RESTORE)
    node.start()
    node.until(lambda status: group_state(status) == "Restored")
    assert v6.knobs() == before


@pytest.mark.needs_switches
def test_an_agent_killed_while_the_kernel_keeps_its_turn_off_is_followed_by_one_that_restores_the_rest(
    v6: Driver, node: GuestNode, hands: Hands
) -> None:
    """Promises 4, 7 and 10: a killed writer goes when the batch is over, and its write takes effect."""
    before = v6.knobs()
    node.start()
    node.push(offload=wish(OFFLOAD))
    node.until(lambda status: group_state(status) == "Ready")
    v6.switch(hang="Y")
    workload = hands.another()
    workload.ask("have", 64, 0)
    workload.begin("move", 1)
    hands.until("/sys/class/dma/dma0chan0/in_use", "1")

    node.push(offload=RESTORE)
    assert node.agent is not None
    assert hands.ask("await_blocked", node.agent.pid, 10, seconds=10)
    node.kill(seconds=0)  # it does not go before the kernel lets it
    v6.switch(hang="N")

    assert workload.result() == 64
    assert v6.knobs() == {**WISHED, "offloading": "0"}
    node.start()
    node.until(lambda status: group_state(status) == "Restored")
    assert v6.knobs() == before
    assert workload.ask("damaged") == 0
    workload.end()


@pytest.mark.needs_switches
def test_an_agent_killed_in_a_trial_is_followed_by_one_that_tries_again(
    v6: Driver, node: GuestNode, hands: Hands
) -> None:
    """Promises 4, 7 and 15: the engine that nobody has tried does not stay on."""
    before = v6.knobs()
    v6.switch(hang="Y")
    node.start()
    node.push(offload=wish(OFFLOAD, verification="FirstUse", acceptedRisks=[]))
    hands.until("/sys/class/dma/dma0chan0/in_use", "1")
    assert v6.knobs() == {**WISHED, "reason_mask": "mempolicy_mbind"}

    node.kill()

    v6.switch(hang="N")
    node.start()
    status = node.until(lambda status: group_state(status) == "Ready")
    assert status["verification"]["result"] == "Passed"
    assert v6.knobs() == WISHED
    node.push(offload=RESTORE)
    node.until(lambda status: group_state(status) == "Restored")
    assert v6.knobs() == before


@pytest.mark.reboots_guest
def test_after_a_reboot_the_wish_is_set_again_and_what_was_before_the_former_boot_is_forgotten(
    guest: Guest, rebooted: Rebooted
) -> None:
    """Promises 1 and 7: the status has values of the former boot, which are nobody's values of before any more."""
    hands, node = Hands.start(guest), rebooted.node
    install(guest)
    driver = rebooted.driver(guest, hands)
    driver.load_engine()
    driver.load()

    node.start()

    status = node.until(lambda status: status["bootID"] == guest.hello["boot_id"] and group_state(status) == "Ready")
    assert status["bootID"] != rebooted.hello["boot_id"]
    assert [row["baseline"] for row in status["knobs"] if row["field"] == "offload.channels"] == ["1"]
    assert driver.knobs() == WISHED
    node.push(offload=RESTORE)
    node.until(lambda status: group_state(status) == "Restored")
    assert (driver.read("offloading"), driver.read("nr_dma_chan")) == ("0", "1")
    assert node.stop().code == 0
    hands.end_all()
