# SPDX-License-Identifier: Apache-2.0
"""All results at hand, and where a number in them comes from."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final

from benchmarks.schema import FLEET_PREFIX, Result, Row, Unit, fleet_nodes
from benchmarks.targets import Statistic


class Origin(StrEnum):
    """How a number came about; docs/performance.md explains the words."""

    MEASURED = "measured"
    SIMULATED = "simulated"
    COMPUTED = "computed"


COMPUTED: Final = ("*, beside the bare files*",)
SIMULATED: Final = (
    "*, last answer",
    "*, agents*",
    "nodes that still offload",
    "back to *",
    "*to policy gone",
    "*edit to kernel file*",
    "*node state event to kernel file*",
    "agent, exec to *",
    "agent idle CPU*",
    "agent CPU *",
    "look and plan*",
    "the bare files*",
)
"""Metrics with a stand-in on the way that is timed: a fake kernel, or agents that share a process."""


def origin(row: Row, statistic: Statistic = Statistic.MEDIAN) -> Origin:
    """Return how a number of a row came about."""
    if statistic is Statistic.RATIO or row.unit is Unit.RATIO or _is_one_of(row.metric, COMPUTED):
        return Origin.COMPUTED
    return Origin.SIMULATED if _is_one_of(row.metric, SIMULATED) else Origin.MEASURED


def _is_one_of(metric: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(metric, pattern) for pattern in patterns)


class Book:
    """All results, by name.

    Attributes:
        results: by name.
        fleets: numbers of nodes of the fleets that have a result, ascending.
    """

    def __init__(self, results: Iterable[Result]) -> None:
        self.results = {result.name: result for result in results}
        self.fleets = sorted(filter(None, map(fleet_nodes, self.results.values())))

    def rows(self, name: str, scenario: str) -> list[Row]:
        """Return the rows of one scenario; none when it was not run."""
        result = self.results.get(name)
        return [row for row in result.results if row.scenario == scenario] if result else []

    def row(self, name: str, scenario: str, metric: str) -> Row | None:
        """Return one row; None when its scenario was not run, or has no such metric."""
        return next((row for row in self.rows(name, scenario) if row.metric == metric), None)

    def of_fleets(self, scenario: str, metric: str) -> list[Row]:
        """Return one metric of every fleet that has it, the smallest first."""
        found = (self.row(f"{FLEET_PREFIX}{nodes}", scenario, metric) for nodes in self.fleets)
        return [row for row in found if row]
