# SPDX-License-Identifier: Apache-2.0
"""The guest is what the other tests take it for."""

from __future__ import annotations

import os

from tests.kernel.suite.lib import NODES, TIERS, Pages, read, vmstat


def test_the_guest_has_three_nodes_and_two_of_them_have_processors() -> None:
    found = {name: read(f"{NODES}/{name}") for name in ("online", "has_cpu", "has_memory")}

    assert found == {"online": "0-2", "has_cpu": "0-1", "has_memory": "0-2"}


def test_the_node_without_processors_is_a_lower_memory_tier() -> None:
    tiers = sorted(
        (int(name.removeprefix("memory_tier")), name) for name in os.listdir(TIERS) if name.startswith("memory_tier")
    )

    assert [read(f"{TIERS}/{name}/nodelist") for _, name in tiers] == ["0-1", "2"]


def test_moved_pages_change_their_node_and_the_kernel_counts_them() -> None:
    pages = Pages(1024, node=0)
    before = vmstat()["pgmigrate_success"]

    moved = pages.move(1)

    assert moved == {1: 1024}
    assert pages.where() == {1: 1024}
    assert vmstat()["pgmigrate_success"] - before >= 1024
    assert pages.damaged() == []
