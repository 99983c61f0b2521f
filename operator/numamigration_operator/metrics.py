# SPDX-License-Identifier: Apache-2.0
"""What the operator tells Prometheus: one table of metrics, numbers taken at the scrape, two histograms filled before.

* A gauge that is set on each event is wrong as soon as one place forgets it, and stays when its policy is deleted. So
  nothing is set: a scrape takes the numbers that the parts have anyway, on the event loop, and renders them on another
  thread, for rendering takes longer than the loop can spare.
* Labels have closed sets of values, but for policies: no series names a node. The number of series grows with
  policies alone.
* Unknown is not 0: of fleet and policies only the process speaks that leads and has read everything, and a number
  that is not known has no sample.

Sources: Prometheus documentation, "Metric and label naming" and "Writing client libraries"; kube-state-metrics,
docs/metrics (an enumeration is one series a value, 1 for the one that holds).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client import Counter as PrometheusCounter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as FamilyOfSamples

from numamigration_api.vocabulary import FleetSwitch, GuardrailMetric, NodeBucket, Reason, RolloutPhase
from numamigration_operator import __version__
from numamigration_operator.cluster.api_call import ApiCall
from numamigration_operator.cluster.applier import Verdict
from numamigration_operator.core.decisions import WriteKind
from numamigration_operator.core.fleet import FleetSnapshot
from numamigration_operator.core.numbers import GuardrailNumbers, PolicyNumbers

PREFIX: Final = "numamigration_operator_"
NO_CODE: Final = "none"
API_SECONDS: Final = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0)
"""From an answer out of the API server's cache to the bound of a request."""
FOLIO_RESULTS: Final = ("migrated", "failed", "refused")
"""Of the folios that went to an engine; each is a counter of the nodes."""
DECISION_SECONDS: Final = (0.0005, 0.002, 0.01, 0.05, 0.2, 1.0, 5.0)
"""From one node of a small fleet to an edit that concerns every node of a large one."""


class ReaderNumbers(NamedTuple):
    """One reader of objects.

    Attributes:
        name: as in the health checks' answers.
        heard_at: when the API server last answered it, in monotonic seconds; None while it does not read.
    """

    name: str
    lists: int
    failures: int
    heard_at: float | None


class FleetNumbers(NamedTuple):
    """What only a process knows that leads and has read everything."""

    counts: FleetSnapshot
    switch: FleetSwitch
    policies: tuple[PolicyNumbers, ...]


class Numbers(NamedTuple):
    """What all parts of the operator count, as of one moment.

    Attributes:
        now: monotonic seconds.
        leads: this process holds the Lease.
        epoch: this leader's; None before it stands on the Lease.
        lease_transitions: as the Lease says; None when it was not seen.
        fleet: None while this process does not lead, or has not read everything.
        changed_at: when the oldest change came that is not decided yet; None when all are.
        watch_ends: ends of the policy watch.
    """

    now: float
    leads: bool
    epoch: int | None
    lease_renewals: int
    lease_transitions: int | None
    fleet: FleetNumbers | None
    changed_at: float | None
    writes_waiting: int
    requests_open: int
    write_results: Mapping[tuple[WriteKind, Verdict], int]
    readers: tuple[ReaderNumbers, ...]
    watch_ends: int
    events_posted: int
    events_dropped: int


Labels = tuple[str, ...]
Samples = Iterable[tuple[Labels, float]]


class Kind(StrEnum):
    """Types of Prometheus."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


class Metric(NamedTuple):
    """One metric.

    Attributes:
        name: without PREFIX.
        meaning: one sentence; the metric's help text.
        read: its samples at a scrape; None: it is counted when it happens.
        buckets: upper bounds of a histogram.
    """

    name: str
    kind: Kind
    labels: Labels
    meaning: str
    read: Callable[[Numbers], Samples] | None = None
    buckets: tuple[float, ...] = ()

    @property
    def full_name(self) -> str:
        """The name as Prometheus has it."""
        return PREFIX + self.name


# --- readings -------------------------------------------------------------------------------------------------------

Read = Callable[[Numbers], Samples]


def _one(number: Callable[[Numbers], float | None]) -> Read:
    return lambda numbers: [] if (value := number(numbers)) is None else [((), value)]


def _of_fleet(number: Callable[[FleetNumbers], float]) -> Read:
    return lambda numbers: [] if numbers.fleet is None else [((), number(numbers.fleet))]


def _policies(numbers: Numbers) -> tuple[PolicyNumbers, ...]:
    return () if numbers.fleet is None else numbers.fleet.policies


def _each_policy(number: Callable[[PolicyNumbers], float | None]) -> Read:
    return lambda numbers: [
        ((policy.name,), value) for policy in _policies(numbers) if (value := number(policy)) is not None
    ]


def _each_guardrail(number: Callable[[GuardrailNumbers], float | None]) -> Read:
    return lambda numbers: [
        ((policy.name, guardrail.metric), value)
        for policy in _policies(numbers)
        for guardrail in policy.guardrails
        if (value := number(guardrail)) is not None
    ]


def _each_reader(number: Callable[[ReaderNumbers, float], float | None]) -> Read:
    return lambda numbers: [
        ((reader.name,), value) for reader in numbers.readers if (value := number(reader, numbers.now)) is not None
    ]


def _buckets(numbers: Numbers) -> Samples:
    return [
        ((policy.name, bucket), policy.buckets.get(bucket, 0)) for policy in _policies(numbers) for bucket in NodeBucket
    ]


def _reasons(numbers: Numbers) -> Samples:
    return [((policy.name, reason), nodes) for policy in _policies(numbers) for reason, nodes in policy.reasons.items()]


def _folios(numbers: Numbers) -> Samples:
    return [
        ((policy.name, result), value)
        for policy in _policies(numbers)
        for result in FOLIO_RESULTS
        if (value := getattr(policy.statistics, f"folios_{result}", None)) is not None
    ]


def _folios_per_second(policy: PolicyNumbers) -> float | None:
    rate = policy.statistics.folios_per_second if policy.statistics is not None else None
    return None if rate is None else float(rate)


def _phases(numbers: Numbers) -> Samples:
    return [((policy.name, phase), policy.phase is phase) for policy in _policies(numbers) for phase in RolloutPhase]


def _switch(numbers: Numbers) -> Samples:
    return [((switch,), numbers.fleet.switch is switch) for switch in FleetSwitch] if numbers.fleet is not None else []


def _write_results(numbers: Numbers) -> Samples:
    return [
        ((kind, verdict), numbers.write_results.get((kind, verdict), 0)) for kind in WriteKind for verdict in Verdict
    ]


def _build(_: Numbers) -> Samples:
    return [((__version__, ".".join(map(str, sys.version_info[:3]))), 1)]


def _age(since: float | None, now: float) -> float | None:
    return None if since is None else max(0.0, now - since)


def _oldest_report_age(numbers: Numbers) -> Samples:
    age = None if numbers.fleet is None else _age(numbers.fleet.counts.oldest_report_at, numbers.now)
    return [] if age is None else [((), age)]


# --- the table ------------------------------------------------------------------------------------------------------

API_REQUESTS: Final = Metric(
    "api_requests_total",
    Kind.COUNTER,
    ("verb", "resource", "code"),
    "Requests to the API server, those of the policy watch included; a watch counts when it opens.",
)
API_DURATION: Final = Metric(
    "api_request_duration_seconds",
    Kind.HISTOGRAM,
    ("verb", "resource"),
    "Time from a request to the first bytes of its answer, or until it was given up.",
    buckets=API_SECONDS,
)
DECISION_DURATION: Final = Metric(
    "decision_duration_seconds",
    Kind.HISTOGRAM,
    (),
    "Time that one decision about everything that changed took, with nothing else on the event loop.",
    buckets=DECISION_SECONDS,
)
DECISION_DELAY: Final = Metric(
    "decision_delay_seconds",
    Kind.HISTOGRAM,
    (),
    "Time from the oldest change to the start of the decision that took it in; the first one waited for the take-over.",
    buckets=DECISION_SECONDS,
)
_POLICY: Final = ("policy",)
METRICS: Final = (
    Metric(
        "policy_nodes",
        Kind.GAUGE,
        ("policy", "bucket"),
        "Nodes that the policy selects, each in one bucket.",
        _buckets,
    ),
    Metric(
        "policy_reason_nodes",
        Kind.GAUGE,
        ("policy", "reason"),
        "Nodes of the policy of which there is something to say, by reason; a reason that no node has is left out.",
        _reasons,
    ),
    Metric(
        "policy_unproven_nodes",
        Kind.GAUGE,
        _POLICY,
        "Nodes of the policy that are reserved, or changed and not yet proven.",
        _each_policy(lambda policy: policy.unproven),
    ),
    Metric(
        "policy_reserved_nodes",
        Kind.GAUGE,
        _POLICY,
        "Nodes that the policy's stored reservation names.",
        _each_policy(lambda policy: policy.reserved),
    ),
    Metric(
        "policy_rollout_phase",
        Kind.GAUGE,
        ("policy", "phase"),
        "1 for the phase that the policy's rollout is in, 0 for the others.",
        _phases,
    ),
    Metric(
        "policy_rollout_halted",
        Kind.GAUGE,
        _POLICY,
        "1 when the policy's rollout was halted by a failure.",
        _each_policy(lambda policy: policy.phase is RolloutPhase.HALTED),
    ),
    Metric(
        "policy_rollout_wave",
        Kind.GAUGE,
        _POLICY,
        "Wave of the policy's rollout that is under way, from 1.",
        _each_policy(lambda policy: policy.wave),
    ),
    Metric(
        "policy_rollout_waves",
        Kind.GAUGE,
        _POLICY,
        "Waves that the policy's rollout will have.",
        _each_policy(lambda policy: policy.waves),
    ),
    Metric(
        "policy_rollbacks_total",
        Kind.COUNTER,
        _POLICY,
        "Rollbacks of the policy that this process began.",
        _each_policy(lambda policy: policy.rollbacks_total),
    ),
    Metric(
        "policy_guardrail_value",
        Kind.GAUGE,
        ("policy", "metric"),
        "Largest value over the policy's unproven nodes of what a guardrail watches.",
        _each_guardrail(lambda guardrail: guardrail.value),
    ),
    Metric(
        "policy_guardrail_limit",
        Kind.GAUGE,
        ("policy", "metric"),
        "What the value of the policy's guardrail may not exceed.",
        _each_guardrail(lambda guardrail: guardrail.limit),
    ),
    Metric(
        "policy_folios",
        Kind.GAUGE,
        ("policy", "result"),
        "Folios that engines took, by the kernels' counters; a sum over nodes, so it falls when one leaves.",
        _folios,
    ),
    Metric(
        "policy_folios_per_second",
        Kind.GAUGE,
        _POLICY,
        "Folios that engines copied, per second of each agent's last window; a sum over nodes.",
        _each_policy(_folios_per_second),
    ),
    Metric("policies", Kind.GAUGE, (), "Policies that exist.", _of_fleet(lambda fleet: fleet.counts.policies)),
    Metric("nodes", Kind.GAUGE, (), "Nodes that exist.", _of_fleet(lambda fleet: fleet.counts.nodes)),
    Metric("node_states", Kind.GAUGE, (), "Node states that exist.", _of_fleet(lambda fleet: fleet.counts.states)),
    Metric(
        "dirty_nodes",
        Kind.GAUGE,
        (),
        "Nodes of which something changed that is not decided yet.",
        _of_fleet(lambda fleet: fleet.counts.dirty_nodes),
    ),
    Metric(
        "open_spec_writes",
        Kind.GAUGE,
        (),
        "Nodes whose decided spec was not seen in the watch yet.",
        _of_fleet(lambda fleet: fleet.counts.open_spec_writes),
    ),
    Metric(
        "fleet_switch",
        Kind.GAUGE,
        ("switch",),
        "1 for where the fleet switch stands, 0 for the others; hold also when it cannot be understood.",
        _switch,
    ),
    Metric(
        "class_holds",
        Kind.GAUGE,
        (),
        "Holds of a hardware class with its dialect and driver.",
        _of_fleet(lambda fleet: fleet.counts.class_holds),
    ),
    Metric(
        "corrupt_nodes",
        Kind.GAUGE,
        (),
        "Nodes whose engine has copied the agent's test pages wrong on this boot.",
        _of_fleet(lambda fleet: fleet.counts.corrupt),
    ),
    Metric(
        "restores_incomplete_total",
        Kind.COUNTER,
        (),
        "Deleted policies that this process let go although nodes had not confirmed their restore.",
        # Known before anything was read, and so scraped as 0 before it counts what a start finds overdue.
        _one(lambda numbers: numbers.fleet.counts.restores_incomplete if numbers.fleet is not None else 0),
    ),
    Metric(
        "oldest_report_age_seconds",
        Kind.GAUGE,
        (),
        "Time since the report of the agent that was silent longest, of all nodes that shall have one.",
        _oldest_report_age,
    ),
    Metric(
        "circuit_breaker_open",
        Kind.GAUGE,
        (),
        "1 while so many nodes have failed that nothing is pushed but what turns off or restores.",
        _of_fleet(lambda fleet: fleet.counts.breaker_open),
    ),
    Metric(
        "fence_missing",
        Kind.GAUGE,
        (),
        "1 while the admission policy that fences agents is missing, and nothing is pushed but what undoes.",
        _of_fleet(lambda fleet: fleet.counts.fence_missing),
    ),
    Metric("leader", Kind.GAUGE, (), "1 when this process holds the Lease.", _one(lambda numbers: numbers.leads)),
    Metric(
        "leader_epoch",
        Kind.GAUGE,
        (),
        "Epoch with which this process leads.",
        _one(lambda numbers: numbers.epoch),
    ),
    Metric(
        "lease_renewals_total",
        Kind.COUNTER,
        (),
        "Writes by which this process got or kept the Lease.",
        _one(lambda numbers: numbers.lease_renewals),
    ),
    Metric(
        "lease_transitions_total",
        Kind.COUNTER,
        (),
        "How often the Lease went to another process, as the Lease says.",
        _one(lambda numbers: numbers.lease_transitions),
    ),
    DECISION_DURATION,
    DECISION_DELAY,
    Metric(
        "undecided_change_age_seconds",
        Kind.GAUGE,
        (),
        "Age of the oldest change that is not decided yet; 0 when all are.",
        _one(lambda numbers: _age(numbers.changed_at, numbers.now) or 0.0),
    ),
    Metric(
        "writes_waiting",
        Kind.GAUGE,
        (),
        "Writes that are decided and not sent yet, those that wait for another try included.",
        _one(lambda numbers: numbers.writes_waiting),
    ),
    Metric(
        "write_requests_open",
        Kind.GAUGE,
        (),
        "Writes that are sent and not answered yet.",
        _one(lambda numbers: numbers.requests_open),
    ),
    Metric(
        "write_results_total",
        Kind.COUNTER,
        ("kind", "verdict"),
        "What came of writes.",
        _write_results,
    ),
    API_REQUESTS,
    API_DURATION,
    Metric(
        "reader_lists_total",
        Kind.COUNTER,
        ("reader",),
        "Whole lists that were read.",
        _each_reader(lambda reader, _: reader.lists),
    ),
    Metric(
        "reader_failures_total",
        Kind.COUNTER,
        ("reader",),
        "Lists and watches that failed; one that expired is none.",
        _each_reader(lambda reader, _: reader.failures),
    ),
    Metric(
        "reader_activity_age_seconds",
        Kind.GAUGE,
        ("reader",),
        "Time since the API server last answered this reader or told it anything.",
        _each_reader(lambda reader, now: _age(reader.heard_at, now)),
    ),
    Metric(
        "policy_watch_ends_total",
        Kind.COUNTER,
        (),
        "Ends of the policy watch, which starts anew each time.",
        _one(lambda numbers: numbers.watch_ends),
    ),
    Metric(
        "events_posted_total",
        Kind.COUNTER,
        (),
        "Events that the API server stored.",
        _one(lambda numbers: numbers.events_posted),
    ),
    Metric(
        "events_dropped_total",
        Kind.COUNTER,
        (),
        "Events that found the queue full or were not stored.",
        _one(lambda numbers: numbers.events_dropped),
    ),
    Metric("build_info", Kind.GAUGE, ("version", "python_version"), "1, with the versions that are running.", _build),
)
LABELS: Final = {
    "policy": "name of a MigrationPolicy",
    "bucket": ", ".join(NodeBucket),
    "reason": ", ".join(reason for reason in Reason if reason is not Reason.AS_EXPECTED),
    "result": ", ".join(FOLIO_RESULTS),
    "phase": ", ".join(RolloutPhase),
    "metric": ", ".join(GuardrailMetric),
    "switch": ", ".join(FleetSwitch),
    "kind": ", ".join(WriteKind),
    "verdict": ", ".join(Verdict),
    "verb": "verb of RBAC",
    "resource": "resource of RBAC, with its subresource; none for discovery",
    "code": f"HTTP status; {NO_CODE} when no answer came",
    "reader": "as the answers of /healthz name it, for example node states",
    "version": "of the operator",
    "python_version": "of the interpreter",
    "le": "upper bound of a histogram's bucket, in seconds",
}
"""What the values of each label are."""


# --- the scrape -----------------------------------------------------------------------------------------------------


class Exposition(NamedTuple):
    """The answer to a scrape."""

    body: bytes
    content_type: str


class Metrics:
    """Counts what happens between scrapes, and renders a scrape. Each has a registry of its own."""

    def __init__(self) -> None:
        # A second series for each, which says since when it counts; ours all begin with the process.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._requests = PrometheusCounter(
            API_REQUESTS.full_name, API_REQUESTS.meaning, API_REQUESTS.labels, registry=self._registry
        )
        self._request_seconds = self._histogram(API_DURATION)
        self._decision_seconds = self._histogram(DECISION_DURATION)
        self._delay_seconds = self._histogram(DECISION_DELAY)
        self._rendering = asyncio.Lock()
        ProcessCollector(registry=self._registry)

    def _histogram(self, metric: Metric) -> Histogram:
        return Histogram(
            metric.full_name, metric.meaning, metric.labels, buckets=metric.buckets, registry=self._registry
        )

    def api_call(self, call: ApiCall) -> None:
        """Count a call; from any thread."""
        code = NO_CODE if call.code is None else str(call.code)
        self._requests.labels(call.verb, call.resource, code).inc()
        self._request_seconds.labels(call.verb, call.resource).observe(call.seconds)

    def decided(self, *, seconds: float, delay: float | None) -> None:
        """Count a decision that took so long, `delay` after the oldest change (None: nothing had changed)."""
        self._decision_seconds.observe(seconds)
        if delay is not None:
            self._delay_seconds.observe(delay)

    async def scrape(self, numbers: Callable[[], Numbers], accept: str) -> Exposition:
        """Return everything, in the format that `accept` (of the HTTP header) asks for.

        Args:
            numbers: takes the numbers, on the event loop; one scrape is rendered at a time.
            accept: may be empty, or whatever a client makes up.
        """
        async with self._rendering:
            return await asyncio.to_thread(self.render, numbers(), accept)

    def render(self, numbers: Numbers, accept: str) -> Exposition:
        """Return everything as bytes; pure but for the process's own numbers."""
        try:
            encode, content_type = choose_encoder(accept)
        except TypeError:  # a version that is no number
            encode, content_type = choose_encoder("")
        return Exposition(encode(_Scrape(self._registry, numbers)), content_type)


class _Scrape(NamedTuple):
    """What an encoder of prometheus_client takes."""

    registry: CollectorRegistry
    numbers: Numbers

    def collect(self) -> Iterator[FamilyOfSamples]:
        """Yield every family."""
        for metric in METRICS:
            if metric.read is not None:
                yield _family(metric, metric.read(self.numbers))
        yield from self.registry.collect()


def _family(metric: Metric, samples: Samples) -> FamilyOfSamples:
    kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    family = kind(metric.full_name, metric.meaning, labels=metric.labels)
    for labels, value in samples:
        family.add_metric(labels, float(value))
    return family
