# SPDX-License-Identifier: Apache-2.0
"""Nodes in a list, filtered by what an SRE asks for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Final, NamedTuple

from numamigration_api.machinery.clock import parse_timestamp
from numamigration_api.vocabulary import NodeCondition, Reason
from numamigration_cli.objects import ListedNode
from numamigration_cli.text import Column, since
from numamigration_operator.core.objects import Struct

REPORT_AGE_SECONDS_MAX: Final = 1200.0
"""Twice the longest report interval: an agent that is older has gone."""


NAME_COLUMNS: Final = 36
"""Of a node's name where there is no room; what it is, whether ready and why stand beside it in 80 columns."""


class NodeRow(Struct, frozen=True, omit_defaults=True):
    """A node.

    Attributes:
        offload: what the kernel does now, in a phrase.
        since: when `ready` became what it is.
        reasons: of every condition and group that is not as asked.
    """

    node: str
    offload: str
    ready: str
    reason: str
    since: str
    message: str
    dialect: str
    hardware_class: str
    policies: tuple[str, ...]
    drifted: str
    reasons: tuple[str, ...] = ()
    kernel: str = ""
    agent: str = ""
    reported: str | None = None
    folios_per_second: str | None = None
    folios_migrated: int | None = None
    folios_failed: int | None = None


class Wanted(NamedTuple):
    """Which nodes are asked for; an empty word asks for all. All but `hardware_class` are compared whole.

    Attributes:
        hardware_class: a part of the name, whatever its case.
        policy: has a group there.
        ready: True, False or Unknown.
    """

    reason: str = ""
    dialect: str = ""
    hardware_class: str = ""
    policy: str = ""
    ready: str = ""

    def takes(self, row: NodeRow) -> bool:
        """Return whether a node is asked for."""
        return (
            self.reason in {"", row.reason, *row.reasons}
            and self.dialect in {"", row.dialect}
            and self.hardware_class.lower() in row.hardware_class.lower()
            and (not self.policy or self.policy in row.policies)
            and self.ready in {"", row.ready}
        )


def nodes(found: Iterable[ListedNode], wanted: Wanted) -> list[NodeRow]:
    """Return the nodes that are asked for, by name."""
    rows = (node_row(node) for node in found)
    return sorted([row for row in rows if wanted.takes(row)], key=lambda row: row.node)


def node_row(node: ListedNode) -> NodeRow:
    """Return what is shown of one node."""
    said = node.status
    ready, drifted = said.condition(NodeCondition.READY), said.condition(NodeCondition.DRIFTED)
    numbers = said.statistics
    return NodeRow(
        node=node.metadata.name,
        offload=said.offload,
        ready=ready.status if ready else "Unknown",
        reason=ready.reason if ready else Reason.NO_AGENT,
        since=ready.last_transition_time if ready else node.metadata.creation_timestamp,
        message=ready.message if ready else "no agent has reported yet",
        dialect=said.dialect,
        hardware_class=said.hardware_class,
        policies=tuple(sorted({wish.source.policy for wish in node.spec.groups.values()})),
        drifted=drifted.status if drifted else "",
        reasons=tuple(sorted(set(_reasons(node)))),
        kernel=said.kernel_release,
        agent=said.agent_version,
        reported=said.reported_at,
        folios_per_second=numbers.folios_per_second,
        folios_migrated=numbers.folios_migrated,
        folios_failed=numbers.folios_failed,
    )


def is_recent(reported: str | None, now: datetime) -> bool:
    """Return whether an agent that last reported then is still there."""
    try:
        return reported is not None and (now - parse_timestamp(reported)).total_seconds() <= REPORT_AGE_SECONDS_MAX
    except ValueError:
        return False


def _reasons(node: ListedNode) -> Iterator[str]:
    words = [one.reason for one in node.status.conditions] + [one.reason for one in node.status.groups.values()]
    return (word for word in words if word and word != Reason.AS_EXPECTED)


def table(now: datetime) -> tuple[Column[NodeRow], ...]:
    """Return the columns of nodes."""
    return (
        Column("NODE", lambda row: row.node, least=NAME_COLUMNS),
        Column("OFFLOAD", lambda row: row.offload),
        Column("READY", lambda row: row.ready),
        Column("REASON", lambda row: row.reason),
        Column("SINCE", lambda row: since(row.since, now)),
        Column("DIALECT", lambda row: row.dialect, wide=True),
        Column("POLICY", lambda row: ",".join(row.policies), wide=True),
        Column("FOLIOS/S", lambda row: row.folios_per_second, wide=True),
        Column("DRIFTED", lambda row: row.drifted, wide=True),
        Column("REPORTED", lambda row: since(row.reported, now), wide=True),
        Column("CLASS", lambda row: row.hardware_class, wide=True),
        Column("MESSAGE", lambda row: row.message),
    )
