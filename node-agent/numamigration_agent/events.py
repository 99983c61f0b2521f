# SPDX-License-Identifier: Apache-2.0
"""What goes into the agent's machine and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from numamigration_agent.cluster import ApplyResult, StateGone, StateSeen
from numamigration_agent.jobs import Answer, Job
from numamigration_agent.lanes import Lane
from numamigration_api.machinery.records import dataclass


class Timing(NamedTuple):
    """The settings that the machine needs, in seconds."""

    report_min: float
    report_max: float
    drift_check: float
    statistics_window: float


@dataclass(frozen=True, slots=True)
class JobDone:
    """The job of a lane answered."""

    lane: Lane
    answer: Answer


@dataclass(frozen=True, slots=True)
class ReportDone:
    """The API server answered to a report, or did not."""

    result: ApplyResult


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event = StateSeen | StateGone | JobDone | ReportDone | Tick


@dataclass(frozen=True, slots=True)
class Run:
    """Start a job."""

    lane: Lane
    job: Job


@dataclass(frozen=True, slots=True)
class Report:
    """Apply a status."""

    status: Mapping[str, Any]


Command = Run | Report
