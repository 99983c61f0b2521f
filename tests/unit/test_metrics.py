# SPDX-License-Identifier: Apache-2.0
"""What Prometheus reads of the operator: names, labels, numbers, and what a scrape costs in series."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from numamigration_api.vocabulary import JSON, FleetSwitch, GuardrailMetric, NodeBucket, Reason, RolloutPhase
from numamigration_operator.cluster.api_call import ApiCall, api_call
from numamigration_operator.cluster.applier import Verdict
from numamigration_operator.cluster.client import Access, Client, NoAnswerError, StatusError
from numamigration_operator.cluster.lease_driver import Contact
from numamigration_operator.core.decisions import WriteKind
from numamigration_operator.core.fleet import Fleet, FleetSettings, FleetSnapshot
from numamigration_operator.core.fleet_switch import Control
from numamigration_operator.core.numbers import GuardrailNumbers, PolicyNumbers
from numamigration_operator.core.objects import PolicyStatistics
from numamigration_operator.health import Facts, serve_health
from numamigration_operator.metrics import (
    LABELS,
    METRICS,
    PREFIX,
    Exposition,
    FleetNumbers,
    Kind,
    Metrics,
    Numbers,
    ReaderNumbers,
)
from tests.testbed.pki import Pki, write_pki
from tests.unit.builders import START, node, policy
from tests.unit.scripted_server import ScriptedServer, chunked, whole

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
SERIES_OF_A_POLICY = len(NodeBucket) + len(RolloutPhase) + 2 * len(GuardrailMetric) + len(Reason) + 10
SERIES_OF_THE_REST = 150
NAMES = {
    "api_request_duration_seconds": "histogram verb resource",
    "api_requests_total": "counter verb resource code",
    "build_info": "gauge version python_version",
    "circuit_breaker_open": "gauge",
    "class_holds": "gauge",
    "corrupt_nodes": "gauge",
    "decision_delay_seconds": "histogram",
    "decision_duration_seconds": "histogram",
    "dirty_nodes": "gauge",
    "events_dropped_total": "counter",
    "events_posted_total": "counter",
    "fence_missing": "gauge",
    "fleet_switch": "gauge switch",
    "leader": "gauge",
    "leader_epoch": "gauge",
    "lease_renewals_total": "counter",
    "lease_transitions_total": "counter",
    "node_states": "gauge",
    "nodes": "gauge",
    "oldest_report_age_seconds": "gauge",
    "open_spec_writes": "gauge",
    "policies": "gauge",
    "policy_folios": "gauge policy result",
    "policy_folios_per_second": "gauge policy",
    "policy_guardrail_limit": "gauge policy metric",
    "policy_guardrail_value": "gauge policy metric",
    "policy_nodes": "gauge policy bucket",
    "policy_reason_nodes": "gauge policy reason",
    "policy_reserved_nodes": "gauge policy",
    "policy_rollbacks_total": "counter policy",
    "policy_rollout_halted": "gauge policy",
    "policy_rollout_phase": "gauge policy phase",
    "policy_rollout_wave": "gauge policy",
    "policy_rollout_waves": "gauge policy",
    "policy_unproven_nodes": "gauge policy",
    "policy_watch_ends_total": "counter",
    "reader_activity_age_seconds": "gauge reader",
    "reader_failures_total": "counter reader",
    "reader_lists_total": "counter reader",
    "restores_incomplete_total": "counter",
    "undecided_change_age_seconds": "gauge",
    "write_requests_open": "gauge",
    "write_results_total": "counter kind verdict",
    "writes_waiting": "gauge",
}
GUARDRAIL = GuardrailNumbers(GuardrailMetric.FOLIOS_FAILED_SHARE, 0.25, 0.01)
SILENT = GuardrailNumbers(GuardrailMetric.MEMORY_PRESSURE, None, 40.0)
POLICY = PolicyNumbers(
    "database",
    {NodeBucket.READY: 3, NodeBucket.FAILED: 1},
    unproven=2,
    reserved=1,
    phase=RolloutPhase.HALTED,
    wave=2,
    waves=5,
    rollbacks_total=1,
    guardrails=(GUARDRAIL, SILENT),
    reasons={Reason.ENGINE_STALLED: 1},
    statistics=PolicyStatistics(nodes=2, folios_migrated=900, folios_failed=1, folios_per_second="12.5"),
)
COUNTS = FleetSnapshot(
    policies=1,
    nodes=4,
    states=3,
    dirty_nodes=2,
    open_spec_writes=1,
    synced=True,
    class_holds=1,
    breaker_open=True,
    fence_missing=True,
    corrupt=2,
    restores_incomplete=1,
    oldest_report_at=30.0,
)
NUMBERS = Numbers(
    now=100.0,
    leads=True,
    epoch=7,
    lease_renewals=12,
    lease_transitions=3,
    fleet=FleetNumbers(COUNTS, FleetSwitch.HOLD, (POLICY,)),
    changed_at=98.5,
    writes_waiting=9,
    requests_open=8,
    write_results={(WriteKind.STATE_SPEC, Verdict.DONE): 40},
    readers=(ReaderNumbers("nodes", 2, 1, 90.0), ReaderNumbers("node states", 0, 0, None)),
    watch_ends=1,
    events_posted=6,
    events_dropped=2,
)


def parse_openmetrics(text: str) -> list[Family]:
    return list(openmetrics.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]


def scraped(numbers: Numbers = NUMBERS, metrics: Metrics | None = None, accept: str = "") -> list[Family]:
    """Render and parse."""
    text = (metrics or Metrics()).render(numbers, accept).body.decode()
    return parse_openmetrics(text) if accept else list(parse_text(text))


def series(families: list[Family]) -> dict[tuple[str, ...], float]:
    """Return our samples: name without prefix and label values in the order of the text, to value."""
    return {
        (sample.name.removeprefix(PREFIX), *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
        if sample.name.startswith(PREFIX)
    }


# --- names --------------------------------------------------------------------------------------------------------


def test_the_metrics_are_these_with_these_types_and_labels() -> None:
    """Dashboards and alerts of others name them, so a change of this list is one of the contract."""
    assert {one.name: " ".join((one.kind, *one.labels)) for one in METRICS} == NAMES


@pytest.mark.parametrize("accept", ["", OPENMETRICS], ids=["text", "OpenMetrics"])
def test_what_is_scraped_parses_and_has_the_types_and_help_texts_of_the_table(accept: str) -> None:
    found = {family.name: (family.type, family.documentation) for family in scraped(accept=accept)}

    # Both parsers name a counter without its suffix.
    assert {one.full_name.removesuffix("_total"): (one.kind, one.meaning) for one in METRICS}.items() <= found.items()


def test_names_follow_the_conventions_of_prometheus() -> None:
    for one in METRICS:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", one.name)
        assert (one.kind is Kind.COUNTER) is one.name.endswith("_total")
        assert not re.search(r"_(ms|milliseconds|minutes|hours|mb|mib|kb|percent)(_|$)", one.name)
        assert (one.kind is Kind.HISTOGRAM) is bool(one.buckets)
        assert re.fullmatch(r"[A-Z1].*[^.]\.", one.meaning)


def test_labels_are_documented_and_none_names_a_node() -> None:
    assert {label for one in METRICS for label in one.labels} | {"le"} == LABELS.keys()
    assert not {"node", "name", "uid", "identity"} & LABELS.keys()


def test_what_counts_seconds_says_so_in_its_name() -> None:
    found = series(scraped())

    assert found["undecided_change_age_seconds",] == 1.5
    assert found["reader_activity_age_seconds", "nodes"] == 10.0


# --- numbers ------------------------------------------------------------------------------------------------------


def test_every_number_stands_in_its_series() -> None:
    found = series(scraped())

    expected = {
        ("policy_nodes", "ready", "database"): 3,
        ("policy_nodes", "pending", "database"): 0,
        ("policy_unproven_nodes", "database"): 2,
        ("policy_reserved_nodes", "database"): 1,
        ("policy_rollout_wave", "database"): 2,
        ("policy_rollout_waves", "database"): 5,
        ("policy_rollout_halted", "database"): 1,
        ("policy_rollbacks_total", "database"): 1,
        ("policy_guardrail_value", "foliosFailedShare", "database"): 0.25,
        ("policy_guardrail_limit", "foliosFailedShare", "database"): 0.01,
        ("policy_reason_nodes", "database", "EngineStalled"): 1,
        ("policy_folios", "database", "migrated"): 900,
        ("policy_folios", "database", "failed"): 1,
        ("policy_folios_per_second", "database"): 12.5,
        ("policies",): 1,
        ("nodes",): 4,
        ("node_states",): 3,
        ("dirty_nodes",): 2,
        ("open_spec_writes",): 1,
        ("class_holds",): 1,
        ("corrupt_nodes",): 2,
        ("restores_incomplete_total",): 1,
        ("oldest_report_age_seconds",): 70,
        ("circuit_breaker_open",): 1,
        ("fence_missing",): 1,
        ("leader",): 1,
        ("leader_epoch",): 7,
        ("lease_renewals_total",): 12,
        ("lease_transitions_total",): 3,
        ("writes_waiting",): 9,
        ("write_requests_open",): 8,
        ("write_results_total", "StateSpec", "Done"): 40,
        ("write_results_total", "PolicyStatus", "Retry"): 0,
        ("reader_lists_total", "nodes"): 2,
        ("reader_failures_total", "nodes"): 1,
        ("policy_watch_ends_total",): 1,
        ("events_posted_total",): 6,
        ("events_dropped_total",): 2,
    }
    assert expected.items() <= found.items()


def test_exactly_one_phase_and_one_place_of_the_switch_is_1() -> None:
    found = series(scraped())

    phases = {key[1]: value for key, value in found.items() if key[0] == "policy_rollout_phase"}
    places = {key[1]: value for key, value in found.items() if key[0] == "fleet_switch"}
    assert phases == {phase: float(phase is RolloutPhase.HALTED) for phase in RolloutPhase}
    assert places == {place: float(place is FleetSwitch.HOLD) for place in FleetSwitch}


def test_what_is_not_known_has_no_sample() -> None:
    """Unknown is not 0: a dashboard would show a guardrail that nobody reported as quiet."""
    standby = NUMBERS._replace(fleet=None, epoch=None, lease_transitions=None, leads=False)
    quiet = PolicyNumbers("database", {}, guardrails=(SILENT,))
    resting = NUMBERS._replace(fleet=FleetNumbers(COUNTS, FleetSwitch.RUN, (quiet,)))

    names = {key[0] for key in series(scraped(standby))}
    found = series(scraped(resting))

    assert not names & {
        "policy_nodes",
        "nodes",
        "fleet_switch",
        "class_holds",
        "circuit_breaker_open",
        "fence_missing",
        "leader_epoch",
        "lease_transitions_total",
    }
    assert {"leader", "writes_waiting", "build_info"} <= names
    assert ("policy_guardrail_value", "memoryPressure", "database") not in found
    assert ("policy_guardrail_limit", "memoryPressure", "database") in found
    assert ("policy_folios", "database", "refused") not in series(scraped())
    assert not {"policy_folios", "policy_folios_per_second", "policy_reason_nodes"} & {key[0] for key in found}
    assert ("policy_rollout_wave", "database") not in found
    assert ("reader_activity_age_seconds", "node states") not in found


def test_decisions_and_waits_for_them_are_counted_in_seconds() -> None:
    metrics = Metrics()
    metrics.decided(seconds=0.003, delay=0.02)
    metrics.decided(seconds=0.001, delay=None)

    found = series(scraped(metrics=metrics))

    assert found["decision_duration_seconds_count",] == 2
    assert found["decision_duration_seconds_sum",] == pytest.approx(0.004)
    assert found["decision_duration_seconds_bucket", "0.002"] == 1
    assert found["decision_delay_seconds_count",] == 1


def test_no_series_says_since_when_another_one_counts() -> None:
    metrics = Metrics()
    metrics.api_call(ApiCall("list", "nodes", 200, 0.1))

    assert not [key for key in series(scraped(metrics=metrics)) if key[0].endswith("_created")]


# --- how many -----------------------------------------------------------------------------------------------------


def fleet_of(nodes: int, policies: int) -> Fleet:
    """Return a fleet that has decided once; each policy selects its share of the nodes."""
    fleet = Fleet(FleetSettings())
    fleet.control_changed(Control(), 0.0)
    fleet.fence_read("", 0.0)
    selectors = ({"matchLabels": {"pool": str(number)}} for number in range(policies))
    fleet.policies_listed([policy(f"p-{n}", nodeSelector=one) for n, one in enumerate(selectors)], 0.0)
    names = [f"node-{number}" for number in range(nodes)]
    for number, name in enumerate(names):
        fleet.node_changed(node(name, pool=str(number % policies)), 0.0)
    fleet.nodes_listed(names, 0.0)
    fleet.states_listed([], 0.0)
    fleet.revisions_listed([], 0.0)
    fleet.lead(1)
    fleet.decide(1.0, START)
    return fleet


def of_fleet(fleet: Fleet) -> Numbers:
    return NUMBERS._replace(
        fleet=FleetNumbers(fleet.snapshot(), FleetSwitch.RUN, tuple(fleet.policy_numbers())),
    )


@pytest.mark.uncounted
def test_series_grow_with_policies_and_never_with_nodes() -> None:
    numbers = of_fleet(fleet_of(15_000, 200))
    assert numbers.fleet is not None
    everything = dict.fromkeys(Reason, 1)
    full = tuple(
        POLICY._replace(name=one.name, buckets=one.buckets, reasons=everything) for one in numbers.fleet.policies
    )
    text = Metrics().render(numbers._replace(fleet=numbers.fleet._replace(policies=full)), "").body.decode()

    found = Counter(line.partition("{")[0] for line in text.splitlines() if line.startswith(PREFIX))

    assert found.total() <= 200 * SERIES_OF_A_POLICY + SERIES_OF_THE_REST
    assert found[f"{PREFIX}policy_nodes"] == 200 * len(NodeBucket)
    assert "node-" not in text
    assert sum(sum(one.buckets.values()) for one in numbers.fleet.policies) == 15_000


def test_the_series_of_a_deleted_policy_go_with_it() -> None:
    fleet = fleet_of(4, 2)
    fleet.policy_gone("uid-p-0", 2.0)
    fleet.decide(2.0, START)

    found = scraped(of_fleet(fleet))

    policies = {sample.labels["policy"] for one in found for sample in one.samples if "policy" in sample.labels}
    assert policies == {"p-1"}


# --- calls of the API server --------------------------------------------------------------------------------------

_OURS = "/apis/numamigration.dev/v1alpha1"


@pytest.mark.parametrize(
    ("line", "verb", "resource"),
    [
        pytest.param("GET /api/v1/nodes", "list", "nodes", id="list"),
        pytest.param("GET /api/v1/nodes/n", "get", "nodes", id="get"),
        pytest.param(
            f"PATCH {_OURS}/migrationpolicies/p/status", "patch", "migrationpolicies/status", id="subresource"
        ),
        pytest.param("POST /apis/events.k8s.io/v1/namespaces/default/events", "create", "events", id="create"),
        pytest.param("PUT /apis/coordination.k8s.io/v1/namespaces/x/leases/l", "update", "leases", id="update"),
        pytest.param("DELETE /apis/apps/v1/namespaces/x/daemonsets/r", "delete", "daemonsets", id="delete"),
        pytest.param("GET /api/v1/namespaces", "list", "namespaces", id="namespaces"),
        pytest.param("GET /api/v1/namespaces/x", "get", "namespaces", id="one namespace"),
        pytest.param("GET /k8s/clusters/c/api/v1/nodes", "list", "nodes", id="behind a proxy's path"),
        pytest.param("GET /apis", "get", "none", id="discovery"),
        pytest.param(f"GET {_OURS}", "get", "none", id="discovery of a group"),
        pytest.param("GET /version", "get", "none", id="version"),
    ],
)
def test_a_call_has_the_verb_and_resource_of_rbac(line: str, verb: str, resource: str) -> None:
    method, path = line.split()

    assert api_call(method, path, watch=False, code=200, seconds=0.5) == ApiCall(verb, resource, 200, 0.5)


def test_a_list_that_goes_on_is_a_watch() -> None:
    assert api_call("GET", "/api/v1/nodes", watch=True, code=200, seconds=0.5).verb == "watch"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return write_pki(tmp_path_factory.mktemp("pki") / "pki")


@pytest.fixture
def server(pki: Pki) -> Iterator[ScriptedServer]:
    with ScriptedServer(pki.server_cert, pki.server_key) as running:
        yield running


@pytest.fixture
def access(server: ScriptedServer, pki: Pki, tmp_path: Path) -> Access:
    cluster = {"name": "c", "cluster": {"server": server.url, "certificate-authority": str(pki.ca)}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    config = {
        "current-context": "x",
        "contexts": [context],
        "clusters": [cluster],
        "users": [{"name": "u", "user": {}}],
    }
    (tmp_path / "config").write_text(json.dumps(config))
    return Access(tmp_path / "config")


async def calls(access: Access, observed: Metrics) -> None:
    """List nodes twice, apply, be refused a watch, open one, and meet a cut line; one call is another session's."""
    client = await Client.connect(access, observed.api_call)
    try:
        await client.request("GET", "/api/v1/nodes", query={"limit": "500"})
        await client.request("GET", "/api/v1/nodes")
        await client.request("PATCH", f"{_OURS}/migrationpolicies/p/status", body=b"{}", content_type=JSON)
        with pytest.raises(StatusError):
            async with client.stream("/api/v1/nodes", query={"watch": "true"}):
                pass
        async with client.stream("/api/v1/nodes", query={"watch": "true"}) as lines:
            assert [line async for line in lines] == [b"{}"]
        with pytest.raises(NoAnswerError):
            await client.request("POST", f"{_OURS}/migrationpolicies", body=b"{}")
        async with client.new_session() as session, session.get(f"{client.server}/apis") as answer:
            assert answer.status == 403
    finally:
        await client.close()


def test_calls_are_counted_by_verb_resource_and_code(server: ScriptedServer, access: Access) -> None:
    server.script(whole(200, {}), whole(500, {}), whole(409, {}), whole(410, {}), chunked(b"{}\n"))
    server.script(whole(200, b"")._replace(content=b"HTTP/1.1 2", then="cut"), whole(403, {}))
    metrics = Metrics()

    asyncio.run(calls(access, metrics))

    found = {
        tuple(sample.labels[label] for label in ("verb", "resource", "code")): sample.value
        for family in scraped(metrics=metrics)
        for sample in family.samples
        if sample.name == f"{PREFIX}api_requests_total"
    }
    assert found == {
        ("list", "nodes", "200"): 1,
        ("list", "nodes", "500"): 1,
        ("patch", "migrationpolicies/status", "409"): 1,
        ("watch", "nodes", "410"): 1,
        ("watch", "nodes", "200"): 1,
        ("create", "migrationpolicies", "none"): 1,
        ("get", "none", "403"): 1,
    }


def test_the_time_of_calls_is_told_by_verb_and_resource() -> None:
    metrics = Metrics()
    metrics.api_call(ApiCall("list", "nodes", 200, 0.05))
    metrics.api_call(ApiCall("list", "nodes", None, 60.0))

    found = series(scraped(metrics=metrics))

    assert found["api_request_duration_seconds_count", "nodes", "list"] == 2
    assert found["api_request_duration_seconds_sum", "nodes", "list"] == pytest.approx(60.05)


# --- the scrape ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        pytest.param("", "text/plain; version=0.0.4", id="nothing asked for"),
        pytest.param(OPENMETRICS, "application/openmetrics-text; version=1.0.0", id="OpenMetrics"),
        pytest.param("text/plain; version=1.0.0", "text/plain; version=1.0.0", id="text 1.0.0"),
        pytest.param("image/png", "text/plain; version=0.0.4", id="something else"),
        pytest.param("text/plain; version=x", "text/plain; version=0.0.4", id="a version that is no number"),
    ],
)
def test_the_format_is_the_one_that_is_asked_for(accept: str, content_type: str) -> None:
    assert Metrics().render(NUMBERS, accept).content_type.startswith(content_type)


class Watched(Metrics):
    """Remembers which thread rendered."""

    rendered_on = 0

    def render(self, numbers: Numbers, accept: str) -> Exposition:
        self.rendered_on = threading.get_ident()
        return super().render(numbers, accept)


def test_numbers_are_taken_on_the_event_loop_and_rendered_beside_it() -> None:
    """The fleet belongs to the loop; what takes tens of milliseconds does not belong there."""
    taken_on = list[int]()

    def numbers() -> Numbers:
        taken_on.append(threading.get_ident())
        return NUMBERS

    metrics = Watched()
    asyncio.run(metrics.scrape(numbers, ""))

    assert taken_on == [threading.get_ident()]
    assert metrics.rendered_on not in {0, threading.get_ident()}


def test_metrics_are_served_beside_the_checks_in_the_format_that_is_asked_for() -> None:
    metrics = Metrics()

    async def ask(address: str) -> tuple[str, str]:
        facts = Facts(0.0, Contact(0.0), 15.0)
        async with (
            serve_health(address, lambda: facts, lambda accept: metrics.scrape(lambda: NUMBERS, accept)),
            aiohttp.ClientSession() as session,
            session.get(f"http://{address}/metrics", headers={"Accept": OPENMETRICS}) as answer,
        ):
            return answer.headers["Content-Type"], await answer.text()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    content_type, text = asyncio.run(ask(address))

    assert content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"
    assert series(parse_openmetrics(text))["nodes",] == 4


def test_two_operators_in_one_process_count_apart() -> None:
    first, second = Metrics(), Metrics()
    first.decided(seconds=1.0, delay=None)

    assert series(scraped(metrics=second))["decision_duration_seconds_count",] == 0


def test_the_process_tells_of_itself_by_the_usual_names() -> None:
    names = {family.name for family in scraped()}

    assert {"process_resident_memory_bytes", "process_cpu_seconds", "process_open_fds"} <= names
