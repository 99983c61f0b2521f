# SPDX-License-Identifier: Apache-2.0
"""``nodes``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from numamigration_api.vocabulary import ConditionStatus, Dialect, Reason
from numamigration_cli.app import with_cluster
from numamigration_cli.completion import Names
from numamigration_cli.screen import Screen

if TYPE_CHECKING:
    from numamigration_cli.cluster import Cluster


def words(kind: type[Reason | Dialect | ConditionStatus]) -> click.Choice[str]:
    """Return a flag's type: a word of a closed set."""
    return click.Choice([str(word) for word in kind])


@click.command("nodes", short_help="Nodes: what the kernel does, as wished or why not")
@click.option("--reason", type=words(Reason), metavar="REASON", help="A condition or group has this reason.")
@click.option("--dialect", type=words(Dialect), metavar="DIALECT", help="The kernel's dialect, for example V6.")
@click.option("--class", "hardware_class", help="A part of the hardware class, for example EPYC.")
@click.option("--policy", shell_complete=Names("policies"), help="Has something of this policy.")
@click.option("--ready", type=words(ConditionStatus), metavar="STATUS", help="True, False or Unknown.")
@with_cluster
async def nodes(cluster: Cluster, screen: Screen, **asked: str | None) -> None:
    """List nodes: what the kernel does, whether that is as wished, why not.

    Flags narrow the list; all must hold.
    """
    from numamigration_cli.objects import STATES, ListedNode
    from numamigration_cli.views.nodes import Wanted, table
    from numamigration_cli.views.nodes import nodes as view

    found = await cluster.list_all(STATES, ListedNode)
    rows = view(found, Wanted(**{name: word or "" for name, word in asked.items()}))
    if screen.records(rows):
        return
    if rows:
        screen.table(rows, table(datetime.now(UTC)))
    elif found:
        screen.note(f"none of {len(found)} nodes is so")
    else:
        screen.note("no node state yet: is the operator installed? kubectl numamigration doctor")
