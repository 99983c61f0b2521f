# SPDX-License-Identifier: Apache-2.0
"""The Grafana dashboard: a table of rows and panels, from which its JSON is made (``scripts/monitoring_documents.py``).

No series of the operator names a node, so neither does a panel of its own: the row "Nodes" counts them by reason;
``kubectl get nms`` has names. Of fleet and policies only the leader speaks, hence the greatest over the pods. The last
row is of the agents, and empty unless the chart's ``monitoring.agentPodMonitor`` is on.

Source: Grafana documentation, "JSON model" of dashboards, schema version 39.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from scripts.alerts import ALERTS

UID: Final = "numamigration"
WIDTH: Final = 24
"""Columns of Grafana's grid."""
HEIGHT: Final = {"stat": 4, "timeseries": 8, "bargauge": 8, "table": 8}
CHOSEN: Final = '{policy=~"$policy"'
"""Begins the selector of what the dashboard's variable chooses."""
FOLIOS_PER_SECOND: Final = 'rate(numamigration_agent_folios_total{result="migrated"}[$__rate_interval])'
BUSIEST: Final = 10
"""Nodes that a panel of the agents shows."""
DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}

Json = dict[str, Any]


class Query(NamedTuple):
    """One line or number.

    Attributes:
        expr: PromQL.
        legend: Grafana's template of its name.
    """

    expr: str
    legend: str = "__auto"


class Panel(NamedTuple):
    """One panel.

    Attributes:
        kind: Grafana's type.
        width: columns of the grid.
        unit: Grafana's name of it.
        meaning: what a person reads behind the "i".
    """

    title: str
    kind: str
    width: int
    queries: tuple[Query, ...]
    meaning: str
    unit: str = "short"


class Row(NamedTuple):
    """Panels below one heading."""

    title: str
    panels: tuple[Panel, ...]


def _greatest(metric: str, *labels: str, more: str = "") -> str:
    by = f" by ({', '.join(labels)})" if labels else ""
    selector = f"{CHOSEN}{more}}}" if "policy" in labels else ""
    return f"max{by} (numamigration_operator_{metric}{selector})"


def _number(title: str, metric: str, meaning: str, unit: str = "short") -> Panel:
    return Panel(title, "stat", 4, (Query(_greatest(metric)),), meaning, unit)


def _rate(metric: str, *labels: str) -> str:
    return f"sum by ({', '.join(labels)}) (rate(numamigration_operator_{metric}[$__rate_interval]))"


def _quantile(quantile: float, metric: str) -> str:
    buckets = f"rate(numamigration_operator_{metric}_bucket[$__rate_interval])"
    return f"histogram_quantile({quantile}, sum by (le) ({buckets}))"


def _busiest(expr: str) -> str:
    return f"topk({BUSIEST}, {expr})"


ROWS: Final = (
    Row(
        "Fleet overview",
        (
            _number("Nodes", "nodes", "Nodes that exist."),
            _number("Policies", "policies", "Policies that exist."),
            _number("Corrupt nodes", "corrupt_nodes", "Nodes whose engine copied test pages wrong on this boot."),
            _number("Held classes", "class_holds", "Hardware classes where nothing is turned on."),
            _number("Oldest report", "oldest_report_age_seconds", "Of the agent that was silent longest.", "s"),
            Panel(
                "Fleet switch",
                "stat",
                4,
                (Query("max by (switch) (numamigration_operator_fleet_switch) == 1", "{{switch}}"),),
                "Where the fleet switch stands.",
            ),
            Panel(
                "Nodes by count",
                "timeseries",
                12,
                (
                    Query(
                        f"sum by (bucket) ({_greatest('policy_nodes', 'policy', 'bucket')})",
                        "{{bucket}}",
                    ),
                ),
                "Matched nodes of the chosen policies; a node that two policies select counts twice.",
            ),
            Panel(
                "What stops pushes",
                "timeseries",
                12,
                (
                    Query(_greatest("fence_missing"), "fence missing"),
                    Query(_greatest("circuit_breaker_open"), "circuit breaker open"),
                    Query("sum(numamigration_operator_leader)", "leaders"),
                ),
                "One leader, and nothing else, is as it should be.",
            ),
            Panel(
                "Alerts",
                "table",
                24,
                (Query(f'ALERTS{{alertname=~"{"|".join(alert.name for alert in ALERTS)}"}}'),),
                "Alerts of this project that are pending or fire.",
            ),
        ),
    ),
    Row(
        "Rollout",
        (
            Panel(
                "Phase",
                "timeseries",
                8,
                (Query(f"{_greatest('policy_rollout_phase', 'policy', 'phase')} == 1", "{{policy}}: {{phase}}"),),
                "The phase that each policy's rollout is in.",
            ),
            Panel(
                "Wave",
                "timeseries",
                8,
                (
                    Query(_greatest("policy_rollout_wave", "policy"), "{{policy}}"),
                    Query(_greatest("policy_rollout_waves", "policy"), "{{policy}}: of"),
                ),
                "The wave under way, and how many there will be.",
            ),
            Panel(
                "Unproven nodes",
                "timeseries",
                8,
                (
                    Query(_greatest("policy_unproven_nodes", "policy"), "{{policy}}"),
                    Query(_greatest("policy_reserved_nodes", "policy"), "{{policy}}: reserved"),
                ),
                "Nodes reserved, or changed and not yet proven; never more than rollout.maxUnproven.",
            ),
            Panel(
                "Guardrails, part of their limit",
                "timeseries",
                12,
                (
                    Query(
                        f"{_greatest('policy_guardrail_value', 'policy', 'metric')}"
                        f" / ({_greatest('policy_guardrail_limit', 'policy', 'metric')} > 0)",
                        "{{policy}}: {{metric}}",
                    ),
                ),
                "The largest value over the unproven nodes; beyond 100 % it trips.",
                "percentunit",
            ),
            Panel(
                "Rollbacks",
                "timeseries",
                12,
                (
                    Query(
                        f"sum by (policy) (increase(numamigration_operator_policy_rollbacks_total{CHOSEN}}}[1h]))",
                        "{{policy}}",
                    ),
                ),
                "Rollbacks that began within an hour.",
            ),
        ),
    ),
    Row(
        "Nodes",
        (
            Panel(
                "Nodes by reason",
                "timeseries",
                12,
                (Query(f"sum by (reason) ({_greatest('policy_reason_nodes', 'policy', 'reason')})", "{{reason}}"),),
                "Why nodes are not as their policies ask. `kubectl get nms` has their names.",
            ),
            Panel(
                "Now, by policy and reason",
                "bargauge",
                12,
                (Query(_greatest("policy_reason_nodes", "policy", "reason"), "{{policy}}: {{reason}}"),),
                "Nodes of which there is something to say.",
            ),
            Panel(
                "Node states",
                "timeseries",
                8,
                (
                    Query(_greatest("node_states"), "node states"),
                    Query(_greatest("open_spec_writes"), "specs on their way"),
                    Query(_greatest("dirty_nodes"), "to be decided"),
                ),
                "Node states that exist, and nodes with something under way.",
            ),
            Panel(
                "Delay of decisions",
                "timeseries",
                8,
                (
                    Query(_greatest("undecided_change_age_seconds"), "oldest undecided change"),
                    Query(_quantile(0.99, "decision_delay_seconds"), "change to decision, p99"),
                    Query(_quantile(0.99, "decision_duration_seconds"), "one decision, p99"),
                ),
                "How far the operator is behind.",
                "s",
            ),
            Panel(
                "Requests to the API server",
                "timeseries",
                8,
                (
                    Query(_rate("api_requests_total", "verb", "code"), "{{verb}} {{code}}"),
                    Query(_greatest("writes_waiting"), "writes that wait"),
                ),
                "Requests per second by verb and status, and writes that are decided and not sent.",
                "reqps",
            ),
        ),
    ),
    Row(
        "DMA engines",
        (
            Panel(
                "Folios copied per second",
                "timeseries",
                8,
                (Query(_greatest("policy_folios_per_second", "policy"), "{{policy}}"),),
                "Sum over nodes of each agent's last window.",
            ),
            Panel(
                "Folios so far",
                "timeseries",
                8,
                (Query(_greatest("policy_folios", "policy", "result"), "{{policy}}: {{result}}"),),
                "Sum over nodes of the kernels' counters; it falls when a node leaves.",
            ),
            Panel(
                "Engines in trouble",
                "timeseries",
                8,
                (
                    Query(
                        _greatest(
                            "policy_reason_nodes",
                            "policy",
                            "reason",
                            more=', reason=~"EngineStalled|EngineFailing|CorruptionDetected|OffloadIneffective'
                            '|ChannelsExhausted|NoDmaChannel|VerificationImpossible|ClassHeld"',
                        ),
                        "{{policy}}: {{reason}}",
                    ),
                ),
                "Nodes whose engine is off, cannot be trusted, or does nothing.",
            ),
        ),
    ),
    Row(
        "Agents",
        (
            Panel(
                "Busiest engines",
                "timeseries",
                8,
                (
                    Query(
                        _busiest(f"sum by (node) ({FOLIOS_PER_SECOND})"),
                        "{{node}}",
                    ),
                ),
                "Folios that a node's engine copied, per second.",
                "ops",
            ),
            Panel(
                "Pages that may have fallen back",
                "timeseries",
                8,
                (Query(_busiest("max by (node) (numamigration_agent_fallback_ratio_max)"), "{{node}}"),),
                "Part of migrated pages that the CPU can have copied although offload is on, at most.",
                "percentunit",
            ),
            Panel(
                "Groups by state",
                "timeseries",
                8,
                (Query("sum by (group, state) (numamigration_agent_group_state) > 0", "{{group}}: {{state}}"),),
                "Nodes by the state of each group of settings.",
            ),
            Panel(
                "Pressure",
                "timeseries",
                8,
                (
                    Query(
                        _busiest("max by (node, resource) (numamigration_agent_pressure_ratio)"),
                        "{{node}}: {{resource}}",
                    ),
                ),
                "Part of the time in which some task waited for memory or CPU.",
                "percentunit",
            ),
            Panel(
                "Pages demoted and promoted",
                "timeseries",
                8,
                (
                    Query("sum(rate(numamigration_agent_pages_demoted_total[$__rate_interval]))", "demoted"),
                    Query("sum(rate(numamigration_agent_pages_promoted_total[$__rate_interval]))", "promoted"),
                ),
                "Base pages per second, over all nodes.",
                "ops",
            ),
            Panel(
                "Time since the last stored report",
                "timeseries",
                8,
                (
                    Query(
                        _busiest("max by (node) (time() - numamigration_agent_last_stored_report_timestamp_seconds)"),
                        "{{node}}",
                    ),
                ),
                "Of the agents that have not been heard for longest.",
                "s",
            ),
        ),
    ),
)


def dashboard() -> Json:
    """Return the dashboard as Grafana imports it."""
    return {
        "uid": UID,
        "title": "NUMA page migration",
        "tags": ["numamigration"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_datasource_variable(), _policy_variable()]},
        "panels": list(_panels()),
    }


def _datasource_variable() -> Json:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _policy_variable() -> Json:
    query = "label_values(numamigration_operator_policy_nodes, policy)"
    return {
        "name": "policy",
        "label": "Policy",
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": "policy"},
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _panels() -> Iterator[Json]:
    y, number = 0, 0
    for row in ROWS:
        number += 1
        yield {"id": number, "type": "row", "title": row.title, "collapsed": False, "gridPos": _place(0, y, WIDTH, 1)}
        x, y, line = 0, y + 1, 0
        for panel in row.panels:
            if x + panel.width > WIDTH:
                x, y = 0, y + line
            number, line = number + 1, HEIGHT[panel.kind]
            yield _panel(number, panel, _place(x, y, panel.width, line))
            x += panel.width
        y += line


def _place(x: int, y: int, width: int, height: int) -> Json:
    return {"x": x, "y": y, "w": width, "h": height}


def _panel(number: int, panel: Panel, place: Json) -> Json:
    instant = panel.kind != "timeseries"
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": DATASOURCE,
            "expr": query.expr,
            "legendFormat": query.legend,
            "instant": instant,
            "range": not instant,
        }
        | ({"format": "table"} if panel.kind == "table" else {})
        for index, query in enumerate(panel.queries)
    ]
    names = {"textMode": "name"} if panel.title == "Fleet switch" else {}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.meaning,
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"reduceOptions": {"calcs": ["lastNotNull"]}} | names if panel.kind in {"stat", "bargauge"} else {},
        "targets": targets,
    }
