# SPDX-License-Identifier: Apache-2.0
"""A probe of settings on a real kernel: own pages migrate, with an engine made slower or faster than the CPU's copy.

An emulated processor says nothing of speed. So what is slower is made slower by far, and looked at is what the agent
does and finds, not how fast anything was.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

import pytest

from tests.apiserver.agent_process import group_state
from tests.kernel.dcbm import CHANNELS, Driver
from tests.kernel.hands import Hands
from tests.kernel.node import GuestNode
from tests.testbed.api import Json
from tests.unit.agent_rig import wish

pytestmark = pytest.mark.needs_switches

CPU_DELAY: Final = "/sys/kernel/debug/dcbm_test/cpu_delay_us"
HUGE: Final = "/sys/kernel/mm/transparent_hugepage/enabled"
OFF: Final = {"engine": "Off"}
BATCH: Final = 512
PROBE_SECONDS: Final = 200
"""Of one probe, at most: a choice between settings that are far apart takes some twenty samples."""


@pytest.fixture
def small_pages(hands: Hands) -> Iterator[None]:
    """Huge pages take an emulated processor long, and small ones show the same."""
    hands.write(HUGE, "never")
    yield
    hands.write(HUGE, "madvise")


@pytest.fixture
def slow_cpu(hands: Hands) -> Iterator[None]:
    """Each copy by the CPU sleeps, which takes a millisecond and more."""
    hands.write(CPU_DELAY, 1000)
    yield
    hands.write(CPU_DELAY, 0)


def probe(id_: str, *channels: int) -> Json:
    candidates = [{"engine": "DMA", "channels": number} for number in channels]
    return {"id": id_, "candidates": candidates, "memoryBytesMax": 48 << 20, "secondsMax": PROBE_SECONDS}


def measured(node: GuestNode, id_: str) -> Json:
    """Return what became of a probe, once it is over."""
    over = {"Done", "Stopped", "Refused"}
    status = node.until(
        lambda status: status.get("probe", {}).get("id") == id_ and status["probe"]["phase"] in over,
        seconds=PROBE_SECONDS + 60,
    )
    found: Json = status["probe"]
    return found


def test_an_engine_slower_than_the_cpu_is_left_off(v6: Driver, node: GuestNode, small_pages: None) -> None:  # noqa: ARG001
    """Promise 7: it is measured, found slower, and all is as before."""
    v6.switch(batch_delay_ms=30)
    before = v6.knobs()
    node.start()

    node.push(offload=wish(OFF), probe=probe("slow", CHANNELS))

    found = measured(node, "slow")
    assert (found["phase"], found["message"]) == ("Done", "best here: offload off")
    assert {row["engine"] for row in found["results"]} == {"CPU", "DMA"}
    assert v6.knobs() == before
    counts = v6.counts("syscall_or_cpuset")
    assert counts["offloaded"] > BATCH
    assert counts["by_cpu"] > BATCH
    node.until(lambda status: group_state(status) == "Ready" and status["offload"] == "Off")


def test_an_engine_faster_than_the_cpu_is_found_and_can_be_turned_on_and_restored(
    v6: Driver,
    node: GuestNode,
    small_pages: None,  # noqa: ARG001
    slow_cpu: None,  # noqa: ARG001
) -> None:
    """Promise 7: the choice comes into force as any policy's wish does, and goes as one."""
    before = v6.knobs()
    node.start()
    node.push(offload=wish(OFF), probe=probe("fast", CHANNELS))

    found = measured(node, "fast")

    assert found["phase"] == "Done", json.dumps(found)
    best = found["message"].removeprefix("best here: ")
    assert best.startswith("DMA, "), json.dumps(found["results"])
    assert v6.knobs() == before
    channels = int(best.removeprefix("DMA, ").split()[0])
    node.push(offload=wish({"engine": "DMA", "channels": channels}), probe=probe("fast", CHANNELS))
    node.until(lambda status: group_state(status) == "Ready" and status["offload"].startswith("DMA"))
    assert (v6.read("offloading"), v6.read("nr_dma_chan")) == ("1", str(channels))
    node.push(offload=wish(OFF, mode="Restore"))
    node.until(lambda status: group_state(status) == "Restored")
    assert v6.knobs() == before


def test_an_agent_that_is_killed_in_mid_probe_puts_all_back_when_it_is_started_again(
    v6: Driver,
    node: GuestNode,
    hands: Hands,
    small_pages: None,  # noqa: ARG001
) -> None:
    """Promises 6 and 7."""
    v6.switch(batch_delay_ms=30)
    before = v6.knobs()
    node.start()
    node.push(offload=wish(OFF), probe=probe("killed", CHANNELS))
    hands.until(v6.path("offloading"), "1", seconds=90)
    hands.until(v6.path("reason_mask"), "syscall_or_cpuset")

    node.kill()
    node.start()

    found = measured(node, "killed")
    assert (found["phase"], found["reason"]) == ("Stopped", "Interrupted")
    assert v6.knobs() == before
