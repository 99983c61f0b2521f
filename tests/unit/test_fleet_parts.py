# SPDX-License-Identifier: Apache-2.0
"""Simulated nodes without an API server: kernel and agent of a fleet's node, and what can be done to it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from numamigration_agent.cluster import ApplyKind, ApplyResult, StateSeen
from numamigration_agent.events import ReportDone, Timing
from numamigration_api.machinery.canonical import spec_revision
from numamigration_api.vocabulary import Dialect, Reason
from tests.fakekernel.config import HostConfig
from tests.fleet.cast import BUSY, ZONE, Part, Strain, parts_of
from tests.fleet.client import Access
from tests.fleet.control import obey
from tests.fleet.fleet import Fleet
from tests.fleet.node import FleetNode
from tests.unit.agent_rig import wish

TIMING = Timing(report_min=5, report_max=6, drift_check=15, statistics_window=1)
STEP = 0.5


class Driven:
    """A node whose time a test moves, with an object instead of an API server."""

    def __init__(self, folder: Path, part: Part, timing: Timing = TIMING, number: int = 0) -> None:
        self.now, self.reports = 0.0, 0
        self.node = FleetNode(part.member(number), folder, timing, f"test {number}", self.now)
        self.node.start()
        self.object: dict[str, Any] = {"metadata": {"name": "a", "uid": "1", "generation": 1}, "spec": {}}
        self.see()

    def see(self) -> None:
        self.take(self.node.handle(StateSeen(msgspec.json.decode(msgspec.json.encode(self.object))), self.now))

    def take(self, statuses: list[Mapping[str, Any]]) -> None:
        for status in statuses:
            self.reports += 1
            self.object["status"] = dict(status)
            self.see()
            self.take(self.node.handle(ReportDone(ApplyResult(ApplyKind.APPLIED)), self.now))

    def wish(self, **offload: Any) -> None:
        spec = {"groups": {"offload": wish({"engine": "DMA", **offload})}, "plans": [], "verifyEpoch": 0}
        self.object["metadata"]["generation"] += 1
        self.object["spec"] = {"revision": spec_revision(spec), **spec}
        self.see()

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += STEP
            self.take(self.node.tick(self.now))

    @property
    def offload(self) -> dict[str, Any]:
        found: dict[str, Any] = self.object["status"]["groups"]["offload"]
        return found


def test_a_wish_is_in_force_and_the_kernel_has_it(tmp_path: Path) -> None:
    driven = Driven(tmp_path, Part("v6", 1, HostConfig(workloads=BUSY)))
    driven.wish(channels=2, reasons=["syscall_or_cpuset"])
    driven.pass_time(20)
    assert (driven.offload["state"], driven.node.offloads) == ("Ready", True)
    assert driven.object["status"]["statistics"]["foliosMigrated"] > 0


def test_nodes_that_have_aged_report_one_by_one_and_not_all_after_an_interval(tmp_path: Path) -> None:
    timing = Timing(report_min=100, report_max=200, drift_check=1000, statistics_window=1)
    driven = [Driven(tmp_path / str(number), Part("v6", 8, HostConfig()), timing, number) for number in range(8)]
    for one in driven:
        one.pass_time(5)
        one.reports = 0
        one.node.age()

        one.pass_time(75)

    assert {one.reports for one in driven} == {0, 1}


def test_a_node_that_has_aged_also_waits_where_a_report_was_due_sooner(tmp_path: Path) -> None:
    timing = Timing(report_min=400, report_max=400, drift_check=1000, statistics_window=1)
    driven = [Driven(tmp_path / str(number), Part("v6", 8, HostConfig()), timing, number) for number in range(8)]
    for one in driven:
        one.pass_time(390)
        one.reports = 0
        one.node.age()

        one.pass_time(100)

    assert {one.reports for one in driven} == {0, 1}


def test_a_refused_write_is_told_with_its_cause(tmp_path: Path) -> None:
    driven = Driven(tmp_path, Part("v6", 1))
    driven.node.refuse_writes(13)
    driven.wish(channels=2)
    driven.pass_time(5)
    assert (driven.offload["state"], driven.offload["reason"]) == ("Failed", Reason.PERMISSION_DENIED)
    driven.node.heal()
    driven.pass_time(120)
    assert driven.offload["state"] == "Ready"


@pytest.mark.parametrize(("channels", "fails"), [(2, False), (4, True)])
def test_strained_engines_fail_from_so_many_channels_on(tmp_path: Path, channels: int, fails: bool) -> None:
    part = Part("v6", 1, HostConfig(workloads=BUSY), strain=Strain(4, 0.03))
    driven = Driven(tmp_path, part)
    driven.wish(channels=channels, reasons=["syscall_or_cpuset"])
    driven.pass_time(20)
    numbers = driven.object["status"]["statistics"]
    assert numbers["foliosMigrated"] > 0
    assert bool(numbers["foliosFailed"]) is fails


def test_another_agent_after_a_reboot_begins_anew(tmp_path: Path) -> None:
    driven = Driven(tmp_path, Part("v6", 1))
    driven.wish(channels=2)
    driven.pass_time(5)
    boot = driven.object["status"]["bootID"]
    driven.node.reboot()
    driven.see()
    driven.pass_time(5)
    assert driven.object["status"]["bootID"] != boot
    assert driven.node.offloads


def test_nodes_are_dealt_out_to_dialects_and_zones() -> None:
    parts = parts_of(7, [Dialect.V6, Dialect.NO_SERIES], zones=3)
    assert [(part.prefix, part.count) for part in parts] == [("v6", 4), ("noseries", 3)]
    assert [parts[0].member(number).labels[ZONE] for number in range(4)] == ["zone-a", "zone-b", "zone-c", "zone-a"]


def test_a_part_travels_as_json() -> None:
    part = Part("v5", 2, HostConfig(dialect=Dialect.V5, workloads=BUSY), strain=Strain(4, 0.5))
    assert msgspec.json.decode(msgspec.json.encode(part), type=Part) == part


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("dance v6-000", "no command"),
        ("refuse v6-000", "is used so: refuse PATTERN ERRNO"),
        ("refuse v6-000 ENOPE", "no errno"),
        ("heal v9-*", "no such node"),
        ("engines v6-000 wings=2", "wings"),
        ("add {}", "prefix"),
    ],
)
def test_a_line_that_is_no_command_says_what_is_wrong(tmp_path: Path, line: str, says: str) -> None:
    fleet = Fleet(Access("https://none.invalid", "", ""), [])
    node = FleetNode(Part("v6", 1).member(0), tmp_path, TIMING, "test", 0.0)
    fleet.nodes[node.member.name] = node
    fleet.do = lambda _node, change: change()  # type: ignore[method-assign,assignment]  # no event loop, no time
    assert says in asyncio.run(obey(fleet, line))["error"]
