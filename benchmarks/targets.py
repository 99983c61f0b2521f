# SPDX-License-Identifier: Apache-2.0
"""What every measurement is held against: one table, set before measuring."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from msgspec import Struct


class Statistic(StrEnum):
    """One number of many samples; fields of a row have these names."""

    MEDIAN = "median"
    P99 = "p99"
    MAXIMUM = "maximum"
    RATIO = "ratio"
    """The median by that of the bare loop."""


class Target(Struct, frozen=True):
    """What a measurement is held against.

    Attributes:
        at_most: in the measurement's unit; of a ratio without one.
        of: the statistic that is compared.
    """

    at_most: float
    of: Statistic = Statistic.MEDIAN

    def is_met(self, found: Mapping[Statistic, float]) -> bool | None:
        """Compare; None when there is no such statistic."""
        value = found.get(self.of)
        return None if value is None else value <= self.at_most


class Aim(NamedTuple):
    """One row of the table.

    Attributes:
        what: what it is about, for people, with the unit.
        benchmark: whose; of a fleet without the number of nodes.
        scenario, metric: patterns with ``*``, of rows of results.
        nodes: fleets of up to so many are held against it; its own fleet has exactly so many.
        target: what they are held against.
    """

    what: str
    benchmark: str
    scenario: str
    metric: str
    nodes: int
    target: Target


CORE, LATENCY, FOOTPRINT, PLAN, PLUGIN, FLEET, TUNER = (
    "core", "latency", "footprint", "plan", "plugin", "fleet", "tuner",
)  # fmt: skip
"""Benchmarks. All but the fleet's have one scenario, of the same name."""
FEW, MANY = 5_000, 15_000
PEERS_BEST_SECONDS: Final = 165.0
"""One edit to 5,000 objects by the fastest of four peers at its defaults; docs/performance.md says how it was found."""
_WORST, _RATIO = Statistic.MAXIMUM, Statistic.RATIO
_ONE_OPERATOR = "[!f]*"  # all scenarios but failover, where two are added up

AIMS: Final = (
    Aim(
        "edit to last node written, × a bare apply loop",
        FLEET,
        "edit",
        "edit to written, last node",
        FEW,
        Target(1.2, _RATIO),
    ),
    Aim(
        "edit to last node written, agents answering, s (a tenth of the fastest peer's 165 s)",
        FLEET,
        "edit",
        "edit to written, last node",
        FEW,
        Target(PEERS_BEST_SECONDS / 10),
    ),
    Aim(
        "the same with no agent answering, s (as peers were measured)",
        FLEET,
        "unanswered",
        "edit to written, last node",
        FEW,
        Target(PEERS_BEST_SECONDS / 10),
    ),
    Aim("lease to ready, × bare paged lists", FLEET, "restart", "lease to ready", FEW, Target(1.5, _RATIO)),
    Aim("lease to ready, × bare paged lists", FLEET, "restart", "lease to ready", MANY, Target(1.5, _RATIO)),
    Aim("writes of the operator after its start", FLEET, "restart", "writes of all starts", FEW, Target(0, _WORST)),
    Aim("writes when nothing changes, 1/s", FLEET, "steady", "writes", FEW, Target(20)),
    Aim("operator, idle CPU, % of a core", FLEET, "steady", "operator CPU", FEW, Target(1)),
    Aim("operator, idle CPU, % of a core", FLEET, "steady", "operator CPU", MANY, Target(1)),
    Aim(
        "operator, peak RSS in any scenario but failover, MiB",
        FLEET,
        _ONE_OPERATOR,
        "peak RSS, operator",
        FEW,
        Target(110, _WORST),
    ),
    Aim(
        "operator, peak RSS in any scenario but failover, MiB",
        FLEET,
        _ONE_OPERATOR,
        "peak RSS, operator",
        MANY,
        Target(150, _WORST),
    ),
    Aim("policy status lag, s", FLEET, "*", "policy status lag", FEW, Target(5, _WORST)),
    Aim("edit to kernel file, p50, × a bare chain's", LATENCY, LATENCY, "*, p50 by bare p50", 1, Target(1.5)),
    Aim("edit to kernel file, p99, × a bare chain's", LATENCY, LATENCY, "*, p99 by bare p99", 1, Target(1.5)),
    Aim("one node event, CPU, × that with 5,000 nodes", CORE, CORE, "*, large : small", MANY, Target(1.2)),
    Aim("one node event, CPU, µs", CORE, CORE, "* pol.*, * nodes", MANY, Target(20)),
    Aim("agent, RSS, MB", FOOTPRINT, FOOTPRINT, "agent RSS, *", 1, Target(24, _WORST)),
    Aim("agent, start to first status, ms", FOOTPRINT, FOOTPRINT, "agent, exec to first status", 1, Target(200)),
    Aim("agent, idle CPU, offload off, % of a core", FOOTPRINT, FOOTPRINT, "agent idle CPU, off", 1, Target(0.02)),
    Aim("agent, idle CPU, offload on, % of a core", FOOTPRINT, FOOTPRINT, "agent idle CPU, on", 1, Target(0.1)),
    Aim("operator, RSS, MiB", FOOTPRINT, FOOTPRINT, "operator RSS, 100 nodes", 100, Target(100, _WORST)),
    Aim("operator, idle CPU, % of a core", FOOTPRINT, FOOTPRINT, "operator idle CPU, *", 100, Target(1)),
    Aim("agent, a look and a plan, ms more than the bare files", PLAN, PLAN, "*, beside the bare files*", 1, Target(5)),
    Aim(
        "plugin, a table at 5,000 nodes, × the time allowed (2 × kubectl get nms + 1 s)",
        PLUGIN,
        PLUGIN,
        "kubectl numamigration *",
        FEW,
        Target(1, _RATIO),
    ),
    Aim(
        "tuner (model), noise × 1-5, any weather, % of decisions slower than no offload",
        TUNER,
        TUNER,
        "decisions slower than no offload, *",
        1,
        Target(0.5),
    ),
    Aim("tuner (model), slowdown of the worst decision, %", TUNER, TUNER, "worst slowdown, *", 1, Target(2)),
    Aim("tuner (model), published tables, mean regret, %", TUNER, TUNER, "mean regret, published, × 1", 1, Target(3)),
    Aim("tuner (model), unseen tables, mean regret, %", TUNER, TUNER, "mean regret, unseen, × 1", 1, Target(5)),
    Aim("tuner (model), probes, % of a full grid", TUNER, TUNER, "probes by full grid, *", 1, Target(100 / 3)),
)
"""Where two rows hold for one measurement, its result tells the first; docs/performance.md tells all."""


def is_about(aim: Aim, scenario: str, metric: str) -> bool:
    """Tell whether a measurement is of the kind that an aim is about, whatever the number of nodes."""
    return fnmatchcase(scenario, aim.scenario) and fnmatchcase(metric, aim.metric)


def target_of(scenario: str, metric: str, nodes: int) -> Target | None:
    """Return what a measurement is held against; None when it is only told."""
    found = (aim.target for aim in AIMS if nodes <= aim.nodes and is_about(aim, scenario, metric))
    return next(found, None)
