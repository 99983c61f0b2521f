# SPDX-License-Identifier: Apache-2.0
"""The alerts: one table, from which the chart's PrometheusRule is written (``scripts/monitoring_documents.py``).

* Only the operator that leads speaks of the fleet, and for a moment two may: so each expression takes the greatest over
  the scraped pods, and never the sum.
* A name, once published, stays: people route and silence by it.
* Each alert has a page of docs/runbooks and a case in tests/unit/test_alerts.py: fires, does not fire, resolves.

Source: Prometheus documentation, "Alerting" (few alerts, on what a person can do something about) and "Alerting rules".
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from numamigration_api.vocabulary import NodeBucket, Reason, RolloutPhase
from numamigration_operator.metrics import PREFIX


class Severity(StrEnum):
    """Who is told: ``critical`` wakes a person, ``warning`` waits for the day."""

    CRITICAL = "critical"
    WARNING = "warning"


class Alert(NamedTuple):
    """One alert.

    Attributes:
        name: as Alertmanager has it.
        page: of docs/runbooks, without its suffix.
        expr: PromQL.
        wait: how long the expression must hold (``for``), so that what mends itself tells nobody.
        summary: one line, with templates of Prometheus.
        description: what it means and where to look.
    """

    name: str
    page: str
    severity: Severity
    expr: str
    wait: str
    summary: str
    description: str


REPORT_AGE_SECONDS_MAX: Final = 1800
"""Three times the longest interval between two reports that the agent's settings allow."""
CHANGE_AGE_SECONDS_MAX: Final = 30
"""Six times the pause between two statuses of a policy: beyond it people read what was true before."""

POLICY: Final = "{{ $labels.policy }}"
NODES: Final = "{{ $value }} node(s) of the policy " + POLICY


def _nodes_with(*reasons: Reason) -> str:
    chosen = f'="{reasons[0]}"' if len(reasons) == 1 else f'=~"{"|".join(reasons)}"'
    return f"max by (policy, reason) ({PREFIX}policy_reason_nodes{{reason{chosen}}}) > 0"


_STOPPED: Final = (RolloutPhase.HALTED, RolloutPhase.ROLLING_BACK, RolloutPhase.ROLLED_BACK)
_GIVEN_UP: Final = f"{PREFIX}restores_incomplete_total"

ALERTS: Final = (
    Alert(
        "NumaMigrationCorruptionDetected",
        "corruption-detected",
        Severity.CRITICAL,
        f"max({PREFIX}corrupt_nodes) > 0",
        "0m",
        "A DMA engine has corrupted pages on {{ $value }} node(s).",
        "The engine copied the agent's own test pages wrong. It is off there until the next boot, and nothing of its "
        "hardware class is turned on. Whatever it copied before that may be wrong, too.",
    ),
    Alert(
        "NumaMigrationEngineStalled",
        "engine-stalled",
        Severity.WARNING,
        _nodes_with(Reason.ENGINE_STALLED, Reason.ENGINE_FAILING),
        "1m",
        f"{NODES}: {{{{ $labels.reason }}}}.",
        "The agent turned offload off, since its engine moved nothing for seconds or too many folios failed in it. It "
        "is tried again after a growing pause.",
    ),
    Alert(
        "NumaMigrationRolloutHalted",
        "rollout-halted",
        Severity.WARNING,
        f'max by (policy, phase) ({PREFIX}policy_rollout_phase{{phase=~"{"|".join(_STOPPED)}"}}) == 1',
        "1m",
        f"The rollout of the policy {POLICY} has failed: {{{{ $labels.phase }}}}.",
        "Too many nodes failed, or a canary. No further node gets the revision until the policy is edited.",
    ),
    Alert(
        "NumaMigrationGuardrailTripped",
        "guardrail-tripped",
        Severity.WARNING,
        _nodes_with(Reason.GUARDRAIL_TRIPPED),
        "0m",
        f"{NODES} crossed a guardrail.",
        "What a guardrail of the policy measures went beyond its limit after the change.",
    ),
    Alert(
        "NumaMigrationOffloadIneffective",
        "offload-ineffective",
        Severity.WARNING,
        _nodes_with(Reason.OFFLOAD_INEFFECTIVE),
        "15m",
        f"Offload does nothing on {NODES}.",
        "Offload is on and pages migrate, yet none goes through the engine: the nodes copy by CPU.",
    ),
    Alert(
        "NumaMigrationDriftContended",
        "drift-contended",
        Severity.WARNING,
        _nodes_with(Reason.CONTENDED),
        "5m",
        f"Somebody else writes the knobs of {NODES}.",
        "Another program changes a kernel setting whenever the agent sets it back, so the agent has stopped.",
    ),
    Alert(
        "NumaMigrationNodesUnreachable",
        "nodes-unreachable",
        Severity.WARNING,
        f'max by (policy) ({PREFIX}policy_nodes{{bucket="{NodeBucket.UNREACHABLE}"}}) > 0',
        "15m",
        f"{NODES} do not report.",
        "Their agents have been silent for longer than the policy's rollout.nodeDeadlineSeconds.",
    ),
    Alert(
        "NumaMigrationAgentStale",
        "agent-stale",
        Severity.WARNING,
        f"max({PREFIX}oldest_report_age_seconds) > {REPORT_AGE_SECONDS_MAX}",
        "10m",
        "An agent has not reported for {{ $value | humanizeDuration }}.",
        "At least one node that shall have an agent has none that reports, whether a policy selects it or not.",
    ),
    Alert(
        "NumaMigrationRestoreIncomplete",
        "restore-incomplete",
        Severity.WARNING,
        # The second half is for a process that gives up before its first scrape.
        f"max(increase({_GIVEN_UP}[1h]) > 0 or ({_GIVEN_UP} > 0 unless {_GIVEN_UP} offset 1h)) > 0",
        "0m",
        "A deleted policy is gone before all of its nodes were restored.",
        "Nodes did not confirm the restore within the deadline. Each is restored once its agent is back.",
    ),
    Alert(
        "NumaMigrationOperatorWithoutLeader",
        "operator-without-leader",
        Severity.CRITICAL,
        f"absent({PREFIX}leader == 1)",
        "2m",
        "No operator leads, or none is scraped.",
        "Nothing is decided, and no policy's status is written. Agents keep what they have, and guard it.",
    ),
    Alert(
        "NumaMigrationStatusLag",
        "status-lag",
        Severity.WARNING,
        f"max({PREFIX}undecided_change_age_seconds) > {CHANGE_AGE_SECONDS_MAX}"
        f" or max(min_over_time({PREFIX}writes_waiting[10m])) > 0",
        "5m",
        "The operator is behind.",
        "Changes wait for a decision, or writes wait for the API server: statuses say what was true before.",
    ),
    Alert(
        "NumaMigrationFenceMissing",
        "fence-missing",
        Severity.CRITICAL,
        f"max({PREFIX}fence_missing) == 1",
        "2m",
        "The admission policy that fences agents is missing.",
        "An agent's token reaches the status of every node, so nothing is pushed but what turns off or restores.",
    ),
    Alert(
        "NumaMigrationClassHeld",
        "class-held",
        Severity.WARNING,
        f"max({PREFIX}class_holds) > 0",
        "1m",
        "{{ $value }} hardware class(es) are held.",
        "An engine of the class corrupted pages. Offload stays off on all of its nodes until a person removes the key.",
    ),
)
