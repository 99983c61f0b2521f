# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus answers every query of dashboard and alerts, over series that operator and agent render."""

from __future__ import annotations

import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from numamigration_agent.metrics import render
from numamigration_operator.cluster.api_call import ApiCall
from numamigration_operator.metrics import Metrics
from scripts.alerts import ALERTS
from scripts.dashboard import ROWS
from tests.testbed.api import poll
from tests.testbed.controlplane import free_ports
from tests.testbed.prometheus import Prometheus
from tests.unit.test_agent_metrics import SCRAPE
from tests.unit.test_metrics import NUMBERS

pytestmark = pytest.mark.uncounted

NOW: Final = 1_700_000_000
SAMPLES: Final = 5
STEP_SECONDS: Final = 60
VARIABLES: Final = {"$policy": ".*", "$__rate_interval": "5m"}
SHOWN: Final = [
    pytest.param(query.expr, id=f"{panel.title} {number}")
    for row in ROWS
    for panel in row.panels
    for number, query in enumerate(panel.queries)
    if not query.expr.startswith("ALERTS{")  # Prometheus makes that series itself, while one of them fires
]
Ask = Callable[[str], list[Any]]


def lines() -> Iterator[str]:
    """Yield what an operator tells in some minutes, in the format that promtool fills a store from."""
    metrics = Metrics()
    for sample in range(SAMPLES):
        metrics.api_call(ApiCall("list", "nodes", 200, 0.1))
        metrics.decided(seconds=0.003, delay=0.02)
        moment = NOW - (SAMPLES - 1 - sample) * STEP_SECONDS
        yield from timed(metrics.render(NUMBERS, "").body.decode(), {}, moment)
        yield from timed(render(SCRAPE), {"node": "node-1"}, moment)
    yield "# EOF"


def timed(text: str, target: Mapping[str, str], moment: int) -> Iterator[str]:
    """Yield the samples of a scrape, with the labels of whom it asked; those of the process are no concern here."""
    for family in parse(text):
        for one in family.samples:
            if one.name.startswith("numamigration_"):
                labels = ",".join(f"{name}={json.dumps(value)}" for name, value in {**one.labels, **target}.items())
                yield f"{one.name}{{{labels}}} {one.value} {moment}"


@pytest.fixture(scope="module")
def ask(prometheus: Prometheus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Return what a query is answered with at ``NOW``."""
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "series").write_text("\n".join([*lines(), ""]))
    (folder / "config.yaml").write_text("{}\n")
    fill = ("tsdb", "create-blocks-from", "openmetrics", folder / "series", folder / "data")
    subprocess.run([prometheus.promtool, *fill], check=True, capture_output=True)
    address = f"127.0.0.1:{free_ports(1)[0]}"
    flags = {"config.file": "config.yaml", "storage.tsdb.path": "data", "web.listen-address": address}
    with (folder / "log").open("wb") as log:
        arguments = [f"--{name}={value}" for name, value in flags.items()]
        process = subprocess.Popen([prometheus.server, *arguments], cwd=folder, stdout=log, stderr=log)
    try:
        poll(lambda: is_ready(process, address, folder / "log"), "Prometheus")
        yield lambda expr: asked(address, expr)
    finally:
        process.terminate()
        process.wait()


def is_ready(process: subprocess.Popen[bytes], address: str, log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        with urllib.request.urlopen(f"http://{address}/-/ready") as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def asked(address: str, expr: str) -> list[Any]:
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    query = urllib.parse.urlencode({"query": expr, "time": NOW})
    with urllib.request.urlopen(f"http://{address}/api/v1/query?{query}") as answer:
        found: list[Any] = json.load(answer)["data"]["result"]
    return found


@pytest.mark.parametrize("expr", SHOWN)
def test_every_query_of_the_dashboard_has_an_answer(ask: Ask, expr: str) -> None:
    assert ask(expr) != []


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_every_alert_can_be_asked(ask: Ask, alert: Any) -> None:
    assert isinstance(ask(alert.expr), list)


def test_a_query_of_what_is_not_there_has_none(ask: Ask) -> None:
    assert ask("numamigration_operator_leaders") == []
