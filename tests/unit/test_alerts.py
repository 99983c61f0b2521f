# SPDX-License-Identifier: Apache-2.0
"""Each alert fires, keeps quiet and resolves, by promtool; and each names only what exists."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import yaml

from numamigration_operator.metrics import PREFIX
from scripts.alerts import ALERTS, Alert
from scripts.monitoring_documents import rules
from tests.testbed.chart import Helm
from tests.testbed.commands import ROOT
from tests.testbed.prometheus import Prometheus

pytestmark = pytest.mark.uncounted

BEGINS: Final = 60
"""Minute at which what an alert is about begins."""
ENDS: Final = 180
BY_NAME: Final = {alert.name: alert for alert in ALERTS}
POD: Final = 'pod="numamigration-operator-0"'
POLICY: Final = f'policy="database", {POD}'


class Case(NamedTuple):
    """One way in which an alert comes about.

    Attributes:
        alert: its name.
        series: the one that makes it fire, without our prefix.
        good: its value before and after; empty: it has none.
        bad: its value meanwhile.
        summary: what a person reads.
        labels: of the alert, but for its severity.
        harmless: series that stand all the time and shall not make it fire.
        late: minutes beyond the alert's own wait, where the expression looks back.
        ends: minute at which it has resolved.
    """

    alert: str
    series: str
    good: str
    bad: str
    summary: str
    labels: Mapping[str, str] = {}
    harmless: tuple[str, ...] = ()
    late: int = 0
    ends: int = ENDS + 2

    @property
    def rule(self) -> Alert:
        return BY_NAME[f"NumaMigration{self.alert}"]

    @property
    def wait(self) -> int:
        return int(self.rule.wait.removesuffix("m"))

    @property
    def fires(self) -> int:
        """The first minute at which it fires."""
        return BEGINS + self.late + self.wait

    def values(self, minutes: int) -> dict[str, str]:
        """Return the series as promtool has them, with as many bad minutes."""
        parts = ((self.good, BEGINS), (self.bad, minutes), (self.good, ENDS))
        # A scrape in which a series is missing marks it as stale.
        text = " ".join(f"{value}x{count - 1}" if value else f"stale _x{count - 1}" for value, count in parts)
        return {self.series: text} | dict.fromkeys(self.harmless, f"9x{BEGINS + minutes + ENDS}")


def by_reason(alert: str, reason: str, summary: str) -> Case:
    return Case(
        alert,
        f'policy_reason_nodes{{reason="{reason}", {POLICY}}}',
        "",
        "3",
        summary,
        {"policy": "database", "reason": reason},
        (f'policy_reason_nodes{{reason="Soaking", {POLICY}}}',),
    )


def by_phase(phase: str) -> Case:
    return Case(
        "RolloutHalted",
        f'policy_rollout_phase{{phase="{phase}", {POLICY}}}',
        "0",
        "1",
        f"The rollout of the policy database has failed: {phase}.",
        {"policy": "database", "phase": phase},
        (f'policy_rollout_phase{{phase="Paused", {POLICY}}}',),
    )


NO_LEADER: Final = "No operator leads, or none is scraped."
BEHIND: Final = "The operator is behind."
GONE: Final = "A deleted policy is gone before all of its nodes were restored."
STALLED: Final = "3 node(s) of the policy database: {}."
CASES: Final = (
    Case(
        "CorruptionDetected",
        f"corrupt_nodes{{{POD}}}",
        "0",
        "2",
        "A DMA engine has corrupted pages on 2 node(s).",
    ),
    by_reason("EngineStalled", "EngineStalled", STALLED.format("EngineStalled")),
    by_reason("EngineStalled", "EngineFailing", STALLED.format("EngineFailing")),
    by_phase("Halted"),
    by_phase("RollingBack"),
    by_phase("RolledBack"),
    by_reason("GuardrailTripped", "GuardrailTripped", "3 node(s) of the policy database crossed a guardrail."),
    by_reason("OffloadIneffective", "OffloadIneffective", "Offload does nothing on 3 node(s) of the policy database."),
    by_reason("DriftContended", "Contended", "Somebody else writes the knobs of 3 node(s) of the policy database."),
    Case(
        "NodesUnreachable",
        f'policy_nodes{{bucket="unreachable", {POLICY}}}',
        "0",
        "4",
        "4 node(s) of the policy database do not report.",
        {"policy": "database"},
        (f'policy_nodes{{bucket="pending", {POLICY}}}',),
    ),
    Case(
        "AgentStale",
        f"oldest_report_age_seconds{{{POD}}}",
        "1800",
        "5400",
        "An agent has not reported for 1h 30m 0s.",
    ),
    Case("RestoreIncomplete", f"restores_incomplete_total{{{POD}}}", "0", "1", GONE, ends=BEGINS + 62),
    Case("RestoreIncomplete", f"restores_incomplete_total{{{POD}}}", "", "1", GONE, ends=BEGINS + 62),
    Case("OperatorWithoutLeader", f"leader{{{POD}}}", "1", "0", NO_LEADER),
    Case("OperatorWithoutLeader", f"leader{{{POD}}}", "1", "", NO_LEADER),
    Case("StatusLag", f"undecided_change_age_seconds{{{POD}}}", "30", "31", BEHIND),
    Case("StatusLag", f"writes_waiting{{{POD}}}", "0", "7", BEHIND, late=10),
    Case("FenceMissing", f"fence_missing{{{POD}}}", "0", "1", "The admission policy that fences agents is missing."),
    Case("ClassHeld", f"class_holds{{{POD}}}", "0", "2", "2 hardware class(es) are held."),
)


def name(case: Case) -> str:
    return f"{case.alert}: {case.series.partition(POD)[0]}"


@pytest.fixture
def promtool(prometheus: Prometheus, tmp_path: Path) -> Any:
    """Return what has promtool try one case: minute → alerts that shall fire then."""
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules(ALERTS)))

    def run(case: Case, minutes: int, expected: Mapping[int, list[Any]]) -> None:
        series = [{"series": f"{PREFIX}{one}", "values": text} for one, text in case.values(minutes).items()]
        checks = [
            {"eval_time": f"{minute}m", "alertname": case.rule.name, "exp_alerts": alerts}
            for minute, alerts in expected.items()
        ]
        test = {"interval": "1m", "input_series": series, "alert_rule_test": checks}
        (tmp_path / "test.yaml").write_text(
            yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]})
        )
        command: list[str | Path] = [prometheus.promtool, "test", "rules", tmp_path / "test.yaml"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr

    return run


def firing(case: Case) -> list[Any]:
    rule = case.rule
    return [
        {
            "exp_labels": {"severity": str(rule.severity), **case.labels},
            "exp_annotations": {
                "summary": case.summary,
                "description": rule.description,
                "runbook_url": f"RUNBOOK({rule.page})",
            },
        }
    ]


@pytest.mark.parametrize("case", CASES, ids=name)
def test_an_alert_fires_after_its_wait_and_resolves_when_all_is_well(promtool: Any, case: Case) -> None:
    promtool(case, ENDS - BEGINS, {BEGINS - 1: [], case.fires: firing(case), case.ends: []})


@pytest.mark.parametrize("case", [case for case in CASES if case.wait], ids=name)
def test_an_alert_does_not_fire_for_what_mends_itself_within_its_wait(promtool: Any, case: Case) -> None:
    promtool(case, case.wait, {minute: [] for minute in range(BEGINS, BEGINS + case.late + case.wait + 8)})


def test_every_alert_has_a_case() -> None:
    assert {case.rule.name for case in CASES} == BY_NAME.keys()
    assert len(BY_NAME) == len(ALERTS)


# --- the chart ----------------------------------------------------------------------------------------------------


def test_the_rule_of_the_chart_names_the_runbook_of_each_alert(helm: Helm) -> None:
    values = {"prometheusRule": {"enabled": True, "runbookUrl": "https://books.example/{page}/"}}
    urls = [[rule["annotations"]["runbook_url"] for rule in rendered_rules(helm, one)] for one in ({}, values)]

    assert urls == [
        [f"docs/runbooks/{alert.page}.md" for alert in ALERTS],
        [f"https://books.example/{alert.page}/" for alert in ALERTS],
    ]


def rendered_rules(helm: Helm, monitoring: Any) -> list[Any]:
    monitoring = {"prometheusRule": {"enabled": True}} | monitoring
    (found,) = (one for one in helm.template({"monitoring": monitoring}) if one["kind"] == "PrometheusRule")
    (group,) = found["spec"]["groups"]
    rendered: list[Any] = group["rules"]
    return rendered


def test_helm_leaves_the_templates_of_prometheus_alone(helm: Helm) -> None:
    rendered = rendered_rules(helm, {})

    assert [(one["alert"], one["expr"]) for one in rendered] == [(alert.name, alert.expr) for alert in ALERTS]
    assert [one["annotations"]["summary"] for one in rendered] == [alert.summary for alert in ALERTS]


@pytest.mark.parametrize("url", ["docs/runbooks", "a page/{page}", "{page}$1"])
def test_an_address_of_runbooks_that_cannot_work_is_refused(helm: Helm, url: str) -> None:
    assert "runbookUrl" in helm.refusal({"monitoring": {"prometheusRule": {"runbookUrl": url}}})


# --- the runbooks -------------------------------------------------------------------------------------------------


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    pages = {path.stem: path.read_text() for path in (ROOT / "docs" / "runbooks").glob("*.md")}
    index = pages.pop("README")

    assert pages.keys() == {alert.page for alert in ALERTS}
    assert [alert.name for alert in ALERTS if not pages[alert.page].startswith(f"# {alert.name}\n")] == []
    assert re.findall(r"\]\(([a-z-]+)\.md\)", index) == [alert.page for alert in ALERTS]
