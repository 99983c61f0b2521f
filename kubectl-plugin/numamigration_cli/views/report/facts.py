# SPDX-License-Identifier: Apache-2.0
"""What a report is made of: decoded objects go in, data of the page come out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple

from numamigration_api.machinery.clock import timestamp
from numamigration_api.vocabulary import ConditionStatus, GroupState, NodeBucket, NodeCondition, Reason
from numamigration_cli.objects import EventView, ListedNode, PolicyView, ReportedNode
from numamigration_cli.views.nodes import NodeRow, is_recent, node_row
from numamigration_cli.views.profiles import ProfileReport, explain, in_order
from numamigration_cli.views.report.moments import Timeline, timeline
from numamigration_cli.views.report.traffic import Kind, Traffic, kind_key, kinds_of, traffic
from numamigration_cli.views.status import Status, status
from numamigration_operator.core.fleet_switch import Control
from numamigration_operator.core.objects import ProfileObject, RevisionObject, Struct


class Place(StrEnum):
    """Where a node stands, whatever policy asks: words of the partition of a policy's nodes. Worst first."""

    FAILED = NodeBucket.FAILED
    REFUSED = NodeBucket.REFUSED
    UNREACHABLE = NodeBucket.UNREACHABLE
    PENDING = NodeBucket.PENDING
    UNSUPPORTED = NodeBucket.UNSUPPORTED
    READY = NodeBucket.READY
    UNTOUCHED = "untouched"
    """No policy sets anything there."""


GROUP_PLACE: Final = {
    GroupState.FAILED: Place.FAILED,
    GroupState.REFUSED: Place.REFUSED,
    GroupState.PENDING: Place.PENDING,
    GroupState.UNSUPPORTED: Place.UNSUPPORTED,
}
"""Of a node that is not ready: the first that a group of it has, as its agent chooses the reason."""


class Objects(NamedTuple):
    """What was read.

    Attributes:
        control: None when it may not be read.
        events: on policies.
        profiles: of hardware classes.
        missing: what could not be read, and why.
    """

    now: datetime
    server: str
    policies: Sequence[PolicyView] = ()
    nodes: Sequence[ReportedNode] = ()
    control: Control | None = None
    revisions: Sequence[RevisionObject] = ()
    events: Sequence[EventView] = ()
    profiles: Sequence[ProfileObject] = ()
    missing: Sequence[str] = ()


class PlacedNode(Struct, frozen=True):
    """A node on the map.

    Attributes:
        reason: of its Ready condition; of one that is unreachable, that.
        kind: number of the kind of node that it is.
    """

    place: Place
    reason: str
    kind: int
    row: NodeRow


class Band(Struct, frozen=True):
    """Nodes of one place and reason."""

    place: Place
    reason: str
    nodes: tuple[PlacedNode, ...]


class Report(Struct, frozen=True):
    """Everything that the page shows."""

    made_at: str
    server: str
    status: Status
    bands: tuple[Band, ...]
    kinds: tuple[Kind, ...]
    traffic: tuple[Traffic, ...]
    timelines: tuple[Timeline, ...]
    profiles: tuple[ProfileReport, ...]
    missing: tuple[str, ...]

    @property
    def nodes(self) -> list[PlacedNode]:
        """All nodes, by name."""
        return sorted((node for band in self.bands for node in band.nodes), key=lambda node: node.row.node)


def report(objects: Objects) -> Report:
    """Return the data of the page."""
    nodes = sorted(objects.nodes, key=lambda node: node.metadata.name)
    kinds = kinds_of(nodes)
    numbers = {kind.key: kind.number for kind in kinds}
    policies = sorted(objects.policies, key=lambda policy: policy.metadata.name)
    return Report(
        made_at=timestamp(objects.now),
        server=objects.server,
        status=status(policies, objects.control),
        bands=_bands(_placed(node, numbers[kind_key(node)], objects.now) for node in nodes),
        kinds=kinds,
        traffic=traffic(kinds, nodes),
        timelines=tuple(timeline(policy, objects.revisions, objects.events) for policy in policies),
        profiles=tuple(explain(one, objects.now) for one in in_order(objects.profiles)),
        missing=tuple(objects.missing),
    )


def place_of(node: ListedNode, now: datetime) -> Place:
    """Return where a node stands."""
    ready = node.status.condition(NodeCondition.READY)
    if ready is None:
        return Place.UNSUPPORTED
    if not is_recent(node.status.reported_at, now):
        return Place.UNREACHABLE
    if ready.status == ConditionStatus.TRUE:
        return Place.UNTOUCHED if ready.reason == Reason.NO_SETTINGS else Place.READY
    said = {group.state for group in node.status.groups.values()}
    return next((place for state, place in GROUP_PLACE.items() if state in said), Place.PENDING)


def _placed(node: ListedNode, kind: int, now: datetime) -> PlacedNode:
    place, row = place_of(node, now), node_row(node)
    return PlacedNode(place, Reason.NODE_UNREACHABLE if place is Place.UNREACHABLE else row.reason, kind, row)


def _bands(nodes: Iterable[PlacedNode]) -> tuple[Band, ...]:
    """Return the nodes by place, worst first, and reason, the most frequent first."""
    found: dict[tuple[Place, str], list[PlacedNode]] = {}
    for node in nodes:
        found.setdefault((node.place, node.reason), []).append(node)
    order = list(Place)
    bands = [Band(place, reason, tuple(members)) for (place, reason), members in found.items()]
    return tuple(sorted(bands, key=lambda band: (order.index(band.place), -len(band.nodes), band.reason)))
