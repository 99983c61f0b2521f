# SPDX-License-Identifier: Apache-2.0
"""``explain``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

import click

from numamigration_cli.app import with_cluster
from numamigration_cli.completion import Names
from numamigration_cli.exits import Exit, Failure
from numamigration_cli.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from numamigration_cli.cluster import Cluster

Item = TypeVar("Item")


@click.command("explain", short_help="One node: every group and knob, whose wish, and why")
@click.argument("node", shell_complete=Names("nodes"))
@with_cluster
async def explain(cluster: Cluster, screen: Screen, node: str) -> None:
    """Tell everything of NODE: whose wish each group is, who lost it; what each knob is, was, and why."""
    from numamigration_cli.cluster import METADATA_ONE, one
    from numamigration_cli.objects import NODES, POLICIES, STATES, Named, NodeView
    from numamigration_cli.views.explain import KNOBS, foot, groups, head
    from numamigration_cli.views.explain import explain as view
    from numamigration_operator.core.objects import PolicyObject

    state = await cluster.get(one(STATES, node), NodeView)
    if state is None:
        raise Failure(Exit.FAILED, f"no node state {node}", "kubectl numamigration nodes lists all")
    itself = await _if_allowed(cluster.get(one(NODES, node), Named, accept=METADATA_ONE))
    policies = await _if_allowed(cluster.list_all(POLICIES, PolicyObject))
    report = view(state, itself.metadata.labels if itself is not None else None, policies)
    if screen.records(report):
        return
    screen.lines([*head(report, datetime.now(UTC)), *groups(report)])
    if report.knobs:
        screen.say("")
        screen.table(report.knobs, KNOBS)
    screen.lines(foot(report))


async def _if_allowed(answer: Awaitable[Item]) -> Item | None:
    try:
        return await answer
    except Failure as failure:
        if failure.code is Exit.NO_RIGHTS:
            return None
        raise
