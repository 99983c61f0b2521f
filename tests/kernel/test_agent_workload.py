# SPDX-License-Identifier: Apache-2.0
"""Redis under examples/in-memory-computing.yaml, which a real operator brings to the guest: its pages go down and up.

Numbers are counts of pages and folios. The processors are emulated: nothing here says how fast anything is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest
import yaml

from tests.apiserver.operator_process import (
    ACCOUNT,
    NODES,
    POLICIES,
    OperatorProcess,
    account,
    end_starters,
    install_rights,
)
from tests.kernel.dcbm import Driver
from tests.kernel.guest import Guest
from tests.kernel.hands import Hands
from tests.kernel.machine import LOWER_TIER
from tests.kernel.node import GuestNode
from tests.kernel.workload import Redis
from tests.testbed.api import Json, poll
from tests.testbed.commands import ROOT
from tests.testbed.controlplane import ControlPlane

pytestmark = pytest.mark.uncounted

EXAMPLE: Final[Json] = yaml.safe_load((ROOT / "examples" / "in-memory-computing.yaml").read_text())
NAME: Final[str] = EXAMPLE["metadata"]["name"]
LABELS: Final[Json] = EXAMPLE["spec"]["nodeSelector"]["matchLabels"]
KERNEL_FILES: Final = {
    "/sys/kernel/mm/numa/demotion_enabled": "true",
    "/proc/sys/kernel/numa_balancing": "2",
    "/proc/sys/kernel/numa_balancing_promote_rate_limit_MBps": "2048",
}
DRIVER_FILES: Final = {
    "offloading": "1",
    "nr_dma_chan": "4",
    "reason_mask": "syscall_or_cpuset,mempolicy_mbind,demotion,damon",
}
IMPATIENT: Final = {
    "scan_delay_ms": "10",
    "scan_period_min_ms": "10",
    "scan_period_max_ms": "50",
    "hot_threshold_ms": "60000",
}
"""So that the kernel looks often who uses which page, and takes one for hot however late an emulated processor is."""
SECONDS_MAX: Final = 60.0


@pytest.fixture
def operator(control_plane: ControlPlane, tmp_path: Path) -> Iterator[OperatorProcess]:
    install_rights(control_plane.api)
    with OperatorProcess(
        control_plane.kubeconfig_for(account(control_plane), name=ACCOUNT), tmp_path / "log"
    ) as running:
        running.wait_line("ready:")
        yield running
    end_starters()


@pytest.fixture
def redis(guest: Guest, hands: Hands) -> Iterator[Redis]:
    redis = Redis(guest, hands)
    redis.fill()
    yield redis
    redis.end()


@pytest.fixture
def impatient(hands: Hands) -> Iterator[None]:
    paths = {f"/sys/kernel/debug/sched/numa_balancing/{name}": value for name, value in IMPATIENT.items()}
    before = {path: hands.read(path) for path in paths}
    for path, value in paths.items():
        hands.write(path, value)
    yield
    for path, value in before.items():
        hands.write(path, value)


class Counts(NamedTuple):
    """What the kernel has counted since it booted: pages that went down and up, and looks at who uses one."""

    demoted: int
    promoted: int
    hint_faults: int


def counts(hands: Hands) -> Counts:
    found: dict[str, int] = hands.ask("vmstat")
    demoted = sum(count for name, count in found.items() if name.startswith("pgdemote_"))
    return Counts(demoted, found["pgpromote_success"], found["numa_hint_faults"])


def files(hands: Hands, driver: Driver) -> dict[str, str]:
    return {**{path: hands.read(path) for path in KERNEL_FILES}, **driver.knobs()}


def is_ready(status: Json) -> bool:
    states = {name: group["state"] for name, group in status.get("groups", {}).items()}
    return states == dict.fromkeys(EXAMPLE["spec"]["settings"], "Ready")


def told(status: Json) -> tuple[int, int]:
    statistics = status["statistics"]
    return statistics["pagesDemoted"], statistics["pagesPromoted"]


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("operator", "impatient")
def test_pages_of_redis_are_demoted_by_the_engine_and_promoted_without_it_under_the_example_policy(
    v6: Driver, node: GuestNode, hands: Hands, redis: Redis, control_plane: ControlPlane
) -> None:
    """Promise 7: what the policy set goes back when it is deleted."""
    api, before, begun, digest = control_plane.api, files(hands, v6), counts(hands), redis.digest()
    pages = redis.pages(0)
    api.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node.name, "labels": LABELS}})
    node.start()

    api.create(POLICIES, EXAMPLE)
    node.until(is_ready, seconds=SECONDS_MAX)
    assert files(hands, v6) == KERNEL_FILES | DRIVER_FILES

    copied, by_reason = int(v6.read("folios_migrated")), v6.counts("numa_misplaced")
    redis.reclaim(pages * 3 // 4, LOWER_TIER)  # first what nobody uses, which does not come back
    down = counts(hands)
    assert down.demoted - begun.demoted >= pages * 3 // 4
    offloaded = int(v6.read("folios_migrated")) - copied
    assert offloaded >= pages * 3 // 4

    with redis.used():
        poll(lambda: counts(hands).promoted - down.promoted >= pages // 4, "promoted pages", timeout=SECONDS_MAX)
    assert counts(hands).hint_faults - down.hint_faults >= pages // 4
    if v6.has_switches:
        grown = {name: number - by_reason[name] for name, number in v6.counts("numa_misplaced").items()}
        assert grown["offloaded"] == 0
        assert grown["by_cpu"] >= pages // 4
    assert redis.digest() == digest

    node.until(lambda status: told(status) == tuple(a - b for a, b in zip(counts(hands), begun, strict=True))[:2])
    up = counts(hands)
    print(f"Redis: {pages} pages; {begun=} {down=} {up=} {offloaded=}")
    api.delete(f"{POLICIES}/{NAME}")
    api.watch_until(f"{POLICIES}/{NAME}", lambda policy: not policy, timeout=SECONDS_MAX)
    assert files(hands, v6) == before
