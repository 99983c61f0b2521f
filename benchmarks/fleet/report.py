# SPDX-License-Identifier: Apache-2.0
"""The numbers of one scenario, and its line for people."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from benchmarks.fleet.meters import Counters
from benchmarks.schema import Row, Unit, percentile, row

NAME_COLUMNS: Final = 13
COLUMNS: Final = 80
WRITES: Final = frozenset({"APPLY", "PATCH", "POST", "PUT", "DELETE"})
OPERATOR_WRITES: Final = frozenset(
    {"nodemigrationstates", "migrationpolicies", "migrationpolicies/status", "controllerrevisions", "configmaps"}
)
AGENT_WRITES: Final = frozenset({"nodemigrationstates/status"})
"""Resources that only the operator writes while nobody edits, and only the agents."""
SHOWN: Final = OPERATOR_WRITES | AGENT_WRITES | {"nodes", "leases", "events"}
"""What the API server reads of itself is left out, and what the test bed asks."""
PERCENTS: Final = (50, 99)


class Push(NamedTuple):
    """One change that reached many nodes; seconds since it was asked for, sorted.

    Attributes:
        written: when each node's spec was.
        answered: when each node's agent had said what came of it; empty when nobody waited.
    """

    written: Sequence[float]
    answered: Sequence[float]

    @property
    def last(self) -> float:
        """When the last node was written."""
        return self.written[-1]


class Cost(NamedTuple):
    """What something took.

    Attributes:
        cpu: seconds by process.
        peak: most bytes resident at a time, by process; of several processes their sum.
        store: bytes of etcd's database afterwards.
        largest: bytes of the largest event of one node state.
        wire: bytes that the API server and whoever asks it exchanged; None where nobody could count them.
    """

    seconds: float
    counters: Counters
    cpu: Mapping[str, float]
    peak: Mapping[str, int]
    store: int
    largest: int
    wire: int | None

    def writes(self, resources: Collection[str]) -> int:
        """Return how many requests wrote one of these."""
        found = self.counters.requests.items()
        return sum(count for request, count in found if request.verb in WRITES and request.resource in resources)


class Report:
    """Collects what one scenario found.

    Attributes:
        headline: what its line says.
    """

    def __init__(self, scenario: str, nodes: int) -> None:
        self._scenario, self._nodes = scenario, nodes
        self.rows: list[Row] = []
        self.headline = ""

    def add(
        self, metric: str, unit: Unit, samples: Iterable[float], *, bare: tuple[str, Iterable[float]] | None = None
    ) -> Row:
        """Take samples of one metric."""
        self.rows.append(row(self._scenario, self._nodes, metric, unit, samples, bare=bare))
        return self.rows[-1]

    def pushes(self, what: str, pushes: Sequence[Push], *, bare: Sequence[Push] = ()) -> Row:
        """Take pushes of one kind; return the row of the last node."""
        for name, percent in (("first node", 0), *((f"p{percent}", percent) for percent in PERCENTS)):
            self.add(f"{what}, {name}", Unit.SECONDS, [percentile(push.written, percent) for push in pushes])
        beside = (f"bare: {what}, last node", [push.last for push in bare]) if bare else None
        last = self.add(f"{what}, last node", Unit.SECONDS, [push.last for push in pushes], bare=beside)
        if answered := [push.answered[-1] for push in pushes if push.answered]:
            self.add(f"{what}, last answer", Unit.SECONDS, answered)
        return last

    def cost(self, costs: Sequence[Cost], who: str = "") -> None:
        """Take what runs of one kind took; `who` ends each metric's name. Processes that did not run are left out."""
        kinds = sorted({request for cost in costs for request in cost.counters.requests if request.resource in SHOWN})
        for kind in kinds:
            name = f"requests {kind.verb} {kind.resource} {kind.code}{who}"
            self.add(name, Unit.COUNT, [cost.counters.requests.get(kind, 0) for cost in costs])
        self.add(f"watch events{who}", Unit.COUNT, [cost.counters.watch_events for cost in costs])
        self.add(f"watch events, size{who}", Unit.MEGABYTES, [cost.counters.watch_bytes / 1e6 for cost in costs])
        self.add(f"request bodies, size{who}", Unit.MEGABYTES, [cost.counters.request_bytes / 1e6 for cost in costs])
        self.add(f"answers to reads, size{who}", Unit.MEGABYTES, [cost.counters.answer_bytes / 1e6 for cost in costs])
        if wire := [cost.wire / 1e6 for cost in costs if cost.wire is not None]:
            self.add(f"bytes on the wire{who}", Unit.MEGABYTES, wire)
        for name in (name for name in costs[0].cpu if any(cost.cpu[name] for cost in costs)):
            self.add(f"CPU, {name}{who}", Unit.CPU_SECONDS, [cost.cpu[name] for cost in costs])
            self.add(f"peak RSS, {name}{who}", Unit.MEBIBYTES, [cost.peak[name] / 2**20 for cost in costs])
        self.add(f"etcd database{who}", Unit.MEBIBYTES, [cost.store / 2**20 for cost in costs])
        if largest := [cost.largest / 1e3 for cost in costs if cost.largest]:
            self.add(f"largest node state{who}", Unit.KILOBYTES, largest)

    @property
    def line(self) -> str:
        """What a terminal of 80 columns shows."""
        return f"{self._scenario:{NAME_COLUMNS}} {self.headline}"[:COLUMNS]
