# SPDX-License-Identifier: Apache-2.0
"""What the API server counted, and what processes took, between two moments.

Sources: Kubernetes metrics reference (apiserver_request_total is stable); etcd "Metrics"; the Prometheus text format.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
REQUESTS: Final = "apiserver_request_total"
WATCH_EVENTS: Final = "apiserver_watch_events_total"
WATCH_BYTES: Final = "apiserver_watch_events_sizes_sum"
ANSWER_BYTES: Final = "apiserver_response_sizes_sum"
REQUEST_BYTES: Final = "apiserver_request_body_size_bytes_sum"
OPEN_REQUESTS: Final = "apiserver_longrunning_requests"
STORE_BYTES: Final = "etcd_mvcc_db_total_size_in_bytes"
STORE_TRAFFIC: Final = ("etcd_network_client_grpc_sent_bytes_total", "etcd_network_client_grpc_received_bytes_total")


_SUMS: Final = (WATCH_EVENTS, WATCH_BYTES, ANSWER_BYTES, REQUEST_BYTES)


class Request(NamedTuple):
    """A kind of request, as the API server tells them apart; an apply is the verb APPLY."""

    verb: str
    resource: str
    code: str


class Counters(NamedTuple):
    """What the API server has counted since it started.

    Attributes:
        watch_bytes: of events, before compression.
        answer_bytes: of the answers that it measures, which are those to reads.
        request_bytes: of bodies.
    """

    requests: Mapping[Request, int]
    watch_events: int
    watch_bytes: int
    answer_bytes: int
    request_bytes: int

    def since(self, before: Counters) -> Counters:
        """Return what came on top; kinds of which nothing came are left out."""
        more = Counter(self.requests)
        more.subtract(before.requests)
        return Counters(
            {request: count for request, count in sorted(more.items()) if count},
            self.watch_events - before.watch_events,
            self.watch_bytes - before.watch_bytes,
            self.answer_bytes - before.answer_bytes,
            self.request_bytes - before.request_bytes,
        )


NOTHING: Final = Counters({}, 0, 0, 0, 0)


def read_counters(text: str) -> Counters:
    """Read the API server's metrics."""
    requests = Counter[Request]()
    for labels, value in series(text, REQUESTS):
        resource = "/".join(filter(None, (labels.get("resource", ""), labels.get("subresource", ""))))
        requests[Request(labels.get("verb", ""), resource, labels.get("code", ""))] += int(value)
    return Counters(requests, *(int(total(text, name)) for name in _SUMS))


def open_watches(text: str, resource: str) -> int:
    """Return how many watches of a resource are open, by the API server's metrics."""
    found = series(text, OPEN_REQUESTS)
    return int(sum(value for labels, value in found if labels.get("resource") == resource))


def total(text: str, name: str) -> float:
    """Return the sum of a metric over all its labels."""
    return sum(value for _, value in series(text, name))


def series(text: str, name: str) -> Iterator[tuple[dict[str, str], float]]:
    """Yield labels and value of each series of a metric in the Prometheus text format."""
    for line in text.splitlines():
        if line.startswith(name) and line[len(name) : len(name) + 1] in {"{", " "}:
            head, _, value = line.rpartition(" ")
            yield dict(_LABEL.findall(head)), float(value)
