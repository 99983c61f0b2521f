# SPDX-License-Identifier: Apache-2.0
"""The agent turns offload on and off on a real kernel: real sysfs, real migrations, real counters."""

from __future__ import annotations

from tests.apiserver.agent_process import group_state
from tests.kernel.dcbm import OFFLOAD, Driver
from tests.kernel.hands import Hands
from tests.kernel.node import GuestNode
from tests.testbed.api import Json
from tests.unit.agent_rig import wish

VERIFIED = {"verification": "FirstUse", "acceptedRisks": []}
V5_OFFLOAD = {"engine": "DMA", "channels": 4}
PAGES = 1024


def is_ready(status: Json) -> bool:
    return group_state(status) == "Ready" and "pagesMigrated" in status.get("statistics", {})


def test_an_engine_that_copies_right_is_verified_and_turned_on_and_restored_byte_for_byte(
    v6: Driver, node: GuestNode
) -> None:
    """Promises 3, 7 and 15: own pages went through the real engine before anybody else's may."""
    v6.write("nr_dma_chan", 2)
    before = v6.knobs()
    seen = v6.counts("mempolicy_mbind")
    node.start()

    node.push(offload=wish(OFFLOAD, **VERIFIED))

    status = node.until(is_ready)
    assert status["dialect"] == "V6"
    assert v6.knobs() == {"offloading": "1", "nr_dma_chan": "4", "reason_mask": "syscall_or_cpuset,mempolicy_mbind"}
    own = int(v6.read("folios_migrated"))
    if v6.has_switches:
        grown = {name: number - seen[name] for name, number in v6.counts("mempolicy_mbind").items()}
        assert (grown["offloaded"], grown["by_cpu"]) == (own, 0)
    verification = status["verification"]
    assert (verification["result"], verification["foreignFolios"]) == ("Passed", 0)
    assert f"{own} own folios" in verification["message"]
    node.push(offload=wish(OFFLOAD, mode="Restore", **VERIFIED))
    node.until(lambda status: group_state(status) == "Restored")
    assert v6.knobs() == before


def test_what_move_pages_and_mbind_migrate_is_counted_alike_by_agent_kernel_tracepoints_and_engine(
    v6: Driver, node: GuestNode, hands: Hands
) -> None:
    if v6.has_switches:
        v6.switch(sysfs_counts="Y")
    migrated, copied = hands.vmstat("pgmigrate_success"), v6.copied()
    reasons = ("syscall_or_cpuset", "mempolicy_mbind")
    traced = [v6.counts(reason) for reason in reasons]
    node.start()
    node.push(offload=wish(OFFLOAD))
    node.until(is_ready)

    hands.ask("have", PAGES, 0)
    assert hands.ask("move", 1) == PAGES
    assert hands.ask("bind", 0) == PAGES

    found = node.until(lambda status: status["statistics"]["foliosMigrated"] >= 2 * PAGES)["statistics"]
    assert found["foliosMigrated"] == 2 * PAGES == int(v6.read("folios_migrated"))
    assert found["pagesMigrated"] == hands.vmstat("pgmigrate_success") - migrated == 2 * PAGES
    assert hands.ask("damaged") == 0
    if v6.has_switches:
        grown = [
            {name: now - before[name] for name, now in v6.counts(reason).items()}
            for reason, before in zip(reasons, traced, strict=True)
        ]
        assert [(row["pages_ok"], row["offloaded"]) for row in grown] == [(PAGES, PAGES)] * 2
        assert v6.copied() - copied == 2 * PAGES


def test_the_revision_that_can_lose_bytes_is_refused_until_the_policy_takes_the_risk(
    v5: Driver, node: GuestNode
) -> None:
    """Promise 5."""
    node.start()

    node.push(offload=wish(V5_OFFLOAD, **VERIFIED))

    refused = node.reason("RiskNotAccepted")
    assert (refused["dialect"], group_state(refused)) == ("V5", "Refused")
    assert v5.knobs() == {"offloading": "0", "nr_dma_chan": "1"}
    node.push(offload=wish(V5_OFFLOAD, verification="FirstUse", acceptedRisks=["DirectIOLostWrite"]))
    status = node.until(is_ready)
    assert status["verification"]["result"] == "Passed"
    assert v5.knobs() == {"offloading": "1", "nr_dma_chan": "4"}
    node.push(offload=wish(V5_OFFLOAD, mode="Restore"))
    node.until(lambda status: group_state(status) == "Restored")
    assert v5.knobs() == {"offloading": "0", "nr_dma_chan": "1"}
