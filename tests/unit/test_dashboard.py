# SPDX-License-Identifier: Apache-2.0
"""Queries of alerts and dashboard name metrics, labels and values that exist, and a real Prometheus answers each."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import pytest

from numamigration_agent import metrics as agent
from numamigration_operator.metrics import LABELS, METRICS, PREFIX, Kind
from scripts.alerts import ALERTS
from scripts.dashboard import ROWS, UID, WIDTH, dashboard
from scripts.metrics_documents import AGENT_LABELS
from tests.testbed.chart import Helm

pytestmark = pytest.mark.uncounted

PANELS: Final = tuple(panel for row in ROWS for panel in row.panels)
QUERIES: Final = (
    *(pytest.param(alert.expr, id=alert.name) for alert in ALERTS),
    *(
        pytest.param(query.expr, id=f"{panel.title} {number}")
        for panel in PANELS
        for number, query in enumerate(panel.queries)
    ),
)
SELECTOR: Final = re.compile(r"\b(?P<metric>(?:numamigration_\w+|ALERTS))(?:\{(?P<matchers>[^}]*)\})?")
MATCHER: Final = re.compile(r'(?P<label>\w+)(?P<operator>=~|=)"(?P<value>[^"]*)"')
GROUPING: Final = re.compile(r"\bby \((?P<labels>[^)]*)\)")


def series() -> dict[str, frozenset[str]]:
    """Return the labels of every series of every metric."""
    found = {one.full_name: frozenset(one.labels) for one in METRICS if one.kind is not Kind.HISTOGRAM}
    for one in METRICS:
        if one.kind is Kind.HISTOGRAM:
            found[f"{one.full_name}_bucket"] = frozenset({*one.labels, "le"})
            found |= dict.fromkeys((f"{one.full_name}_sum", f"{one.full_name}_count"), frozenset(one.labels))
    found |= {one.full_name: frozenset({*one.labels, "node"}) for one in agent.METRICS}  # that one is the monitor's
    return found | {"ALERTS": frozenset({"alertname"})}


def problems(expr: str) -> Iterator[str]:
    """Yield what a query names that is not there."""
    known, seen = series(), set[str]()
    for found in SELECTOR.finditer(expr):
        metric, labels = found["metric"], known.get(found["metric"], frozenset())
        seen |= labels
        if metric not in known:
            yield f"no metric {metric}"
        for matcher in MATCHER.finditer(found["matchers"] or ""):
            if matcher["label"] not in labels:
                yield f"{metric} has no label {matcher['label']}"
            yield from _value_problems(metric, matcher["label"], matcher["value"])
    wanted = {label.strip() for found in GROUPING.finditer(expr) for label in found["labels"].split(",")}
    yield from (f"nothing there has the label {label}" for label in wanted - seen)
    if not seen and not SELECTOR.search(expr):
        yield "no metric at all"


def _value_problems(metric: str, label: str, values: str) -> Iterator[str]:
    known = AGENT_LABELS if metric.startswith(agent.PREFIX) else LABELS
    names = {alert.name for alert in ALERTS} if label == "alertname" else set(known[label].split(", "))
    for value in values.split("|"):
        if value not in names and not value.startswith("$"):
            yield f"{label} is never {value}"


@pytest.mark.parametrize("expr", QUERIES)
def test_a_query_names_metrics_labels_and_values_that_exist(expr: str) -> None:
    assert list(problems(expr)) == []


@pytest.mark.parametrize(
    ("expr", "problem"),
    [
        pytest.param(f"{PREFIX}leaders", f"no metric {PREFIX}leaders", id="metric"),
        pytest.param(f'{PREFIX}policy_nodes{{phase="Halted"}}', f"{PREFIX}policy_nodes has no label phase", id="label"),
        pytest.param(f'{PREFIX}policy_nodes{{bucket="lost"}}', "bucket is never lost", id="value"),
        pytest.param(f"max by (reason) ({PREFIX}leader)", "nothing there has the label reason", id="grouping"),
        pytest.param(
            f"rate({PREFIX}decision_delay_seconds[1m])", f"no metric {PREFIX}decision_delay_seconds", id="part"
        ),
    ],
)
def test_what_does_not_exist_would_be_noticed(expr: str, problem: str) -> None:
    assert problem in list(problems(expr))


def test_legends_name_labels_that_are_left_after_grouping() -> None:
    for panel in PANELS:
        for query in panel.queries:
            named, outermost = set(re.findall(r"\{\{(\w+)\}\}", query.legend)), GROUPING.search(query.expr)
            left = set(outermost["labels"].split(", ")) if outermost else set()
            assert named <= left, panel.title


def test_panels_do_not_overlap_and_stay_within_the_grid() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken
        assert place["x"] + place["w"] <= WIDTH
        taken |= cells


def test_panels_have_ids_of_their_own_and_say_what_they_show() -> None:
    panels = dashboard()["panels"]

    assert len({panel["id"] for panel in panels}) == len(panels)
    assert [row.title for row in ROWS] == ["Fleet overview", "Rollout", "Nodes", "DMA engines", "Agents"]
    assert all(panel["description"] for panel in panels if panel["type"] != "row")


def test_the_chart_hands_the_dashboard_to_the_sidecar_as_it_is(helm: Helm) -> None:
    documents = helm.template({"monitoring": {"dashboard": {"enabled": True}}})
    (found,) = (one for one in documents if one["kind"] == "ConfigMap")

    shown: Any = json.loads(found["data"]["numamigration.json"])
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert (shown, shown["uid"]) == (dashboard(), UID)
