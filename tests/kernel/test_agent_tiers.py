# SPDX-License-Identifier: Apache-2.0
"""Pages of a workload go to the lower memory tier and come back, under settings of the agent's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.apiserver.agent_process import group_state
from tests.kernel.guest import Guest
from tests.kernel.hands import Hands
from tests.kernel.machine import LOWER_TIER, NODES
from tests.kernel.node import GuestNode
from tests.testbed.api import Json
from tests.unit.agent_rig import wish

CGROUP = "/sys/fs/cgroup/workload"
BALANCING = "/proc/sys/kernel/numa_balancing"
DEMOTION = "/sys/kernel/mm/numa/demotion_enabled"
PAGES = 1024
USE_SECONDS = 40.0
DEMOTED = ("pgdemote_kswapd", "pgdemote_direct", "pgdemote_khugepaged")
PROMOTED = ("pgpromote_success",)


@pytest.fixture
def workload(guest: Guest, hands: Hands) -> Iterator[Hands]:
    """A process in a cgroup of its own, with pages on NUMA node 0."""
    hands.write("/sys/fs/cgroup/cgroup.subtree_control", "+memory")
    assert guest.run(["mkdir", CGROUP]).code == 0
    workload = hands.another()
    hands.write(f"{CGROUP}/cgroup.procs", workload.pid)
    workload.ask("have", PAGES, 0)
    yield workload
    workload.end()


def moves(hands: Hands) -> dict[int, tuple[int, int]]:
    """Return how many pages were demoted from and promoted to each NUMA node since the boot."""
    found = {}
    for number in NODES:
        lines = hands.read(f"/sys/devices/system/node/node{number}/vmstat").splitlines()
        counts = {name: int(value) for name, value in (line.split() for line in lines)}
        found[number] = sum(counts[name] for name in DEMOTED), sum(counts[name] for name in PROMOTED)
    return found


def grown(hands: Hands, before: dict[int, tuple[int, int]]) -> dict[int, tuple[int, int]]:
    return {number: (row[0] - before[number][0], row[1] - before[number][1]) for number, row in moves(hands).items()}


def told(status: Json) -> dict[int, tuple[int, int]]:
    rows = status["statistics"]["numaNodes"]
    return {row["id"]: (row["pagesDemoted"], row["pagesPromoted"]) for row in rows}


def test_demoted_and_promoted_pages_are_told_by_numa_node_as_the_kernel_counts_them(
    node: GuestNode, hands: Hands, workload: Hands
) -> None:
    """Promise 7: what was set for it goes back."""
    before, settings = moves(hands), (hands.read(DEMOTION), hands.read(BALANCING))
    groups: dict[str, Json] = {"demotion": {"enabled": True}, "balancing": {"mode": "Tiering"}}
    node.start()
    node.push(demotion=wish({"enabled": True}))
    node.until(lambda status: group_state(status, "demotion") == "Ready" and "statistics" in status)

    assert workload.ask("reclaim", CGROUP, LOWER_TIER, PAGES // 2, USE_SECONDS, seconds=USE_SECONDS) >= PAGES // 2
    node.push(**{name: wish(settings) for name, settings in groups.items()})
    node.until(lambda status: group_state(status, "balancing") == "Ready")
    below = workload.ask("count", LOWER_TIER)
    assert workload.ask("use", LOWER_TIER, below // 2, USE_SECONDS, seconds=USE_SECONDS) <= below // 2
    node.push(**{name: wish(settings, mode="Restore") for name, settings in groups.items()})
    node.until(lambda status: group_state(status, "balancing") == group_state(status, "demotion") == "Restored")

    status = node.until(lambda status: told(status) == grown(hands, before))
    total = [sum(column) for column in zip(*told(status).values(), strict=True)]
    assert [status["statistics"][name] for name in ("pagesDemoted", "pagesPromoted")] == total
    assert total[0] >= PAGES // 2
    assert total[1] >= below // 2
    assert told(status)[LOWER_TIER] == (0, 0)
    assert workload.ask("damaged") == 0
    assert (hands.read(DEMOTION), hands.read(BALANCING)) == settings
