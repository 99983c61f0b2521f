# SPDX-License-Identifier: Apache-2.0
"""All results at hand, and where a number in them comes from."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final

from benchmarks.schema import FLEET_PREFIX, Result, Row, Unit, fleet_nodes
from benchmarks.targets import TUNER, Statistic


class Origin(StrEnum):
    """How a number came about; docs/performance.md explains the words."""

    MEASURED = "measured"
    SIMULATED = "simulated"
    COMPUTED = "computed"
    MODEL = "model"


COMPUTED: Final = ("*, beside the bare files*",)
SIMULATED: Final = (
    "*, last answer",
    "*, agents*",
    "*, stand-alone agent*",
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
    if row.scenario == TUNER:
        return Origin.MODEL
    if statistic is Statistic.RATIO or row.unit is Unit.RATIO or _is_one_of(row.metric, COMPUTED):
        return Origin.COMPUTED
    return Origin.SIMULATED if _is_one_of(row.metric, SIMULATED) else Origin.MEASURED


def _is_one_of(metric: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(metric, pattern) for pattern in patterns)


class Book:
    """All results.

    A name stands for a whole run and for runs of some scenarios of the same fleet, whose names go on after a dash; each
    scenario is that of the latest run which has it.

    Attributes:
        results: in their order.
        fleets: numbers of nodes of the fleets that have a result, ascending.
    """

    def __init__(self, results: Iterable[Result]) -> None:
        self.results = list(results)
        self.fleets = sorted({nodes for nodes in map(fleet_nodes, self.results) if nodes})

    def named(self, name: str) -> list[Result]:
        """Return the results that a name stands for, the latest first."""
        found = [result for result in self.results if result.name == name or result.name.startswith(f"{name}-")]
        return sorted(found, key=lambda result: result.date, reverse=True)

    def all_rows(self, name: str) -> list[Row]:
        """Return the rows of all scenarios, each from the first result that has it."""
        home: dict[str, Result] = {}
        for result in self.named(name):
            for row in result.results:
                home.setdefault(row.scenario, result)
        return [row for result in self.named(name) for row in result.results if home[row.scenario] is result]

    def rows(self, name: str, scenario: str) -> list[Row]:
        """Return the rows of one scenario; none when it was not run."""
        return [row for row in self.all_rows(name) if row.scenario == scenario]

    def row(self, name: str, scenario: str, metric: str) -> Row | None:
        """Return one row; None when its scenario was not run, or has no such metric."""
        return next((row for row in self.rows(name, scenario) if row.metric == metric), None)

    def of_fleets(self, scenario: str, metric: str) -> list[Row]:
        """Return one metric of every fleet that has it, the smallest first."""
        found = (self.row(f"{FLEET_PREFIX}{nodes}", scenario, metric) for nodes in self.fleets)
        return [row for row in found if row]
