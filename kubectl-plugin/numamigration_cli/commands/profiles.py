# SPDX-License-Identifier: Apache-2.0
"""``profiles``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from numamigration_cli.app import with_cluster
from numamigration_cli.completion import Names
from numamigration_cli.screen import Screen

if TYPE_CHECKING:
    from numamigration_cli.cluster import Cluster
    from numamigration_operator.core.objects import ProfileObject


@click.command("profiles", short_help="Hardware classes: what was measured and chosen")
@click.argument("name", required=False, shell_complete=Names("profiles"))
@with_cluster
async def profiles(cluster: Cluster, screen: Screen, name: str | None) -> None:
    """List MigrationProfiles: what was measured of each hardware class, and what the tuner made of it.

    With NAME everything about that one: every setting that was measured, the choice in words, when it is measured anew.
    """
    from numamigration_cli import reads

    if name is None:
        show(await reads.all_profiles(cluster), screen)
    else:
        show_one(await reads.profile(cluster, name), screen)


def show(found: list[ProfileObject], screen: Screen) -> None:
    """Print the list."""
    from numamigration_cli.views.profiles import EMPTY, below, table
    from numamigration_cli.views.profiles import profiles as view

    now = datetime.now(UTC)
    rows = view(found, now)
    if screen.records(rows):
        return
    if not rows:
        screen.note(EMPTY)
        return
    screen.table(rows, table(now))
    screen.lines(below(rows, now))


def show_one(found: ProfileObject, screen: Screen) -> None:
    """Print everything about one."""
    from numamigration_cli.views.profiles import NO_RATES, NODES, RATES, explain, head

    now = datetime.now(UTC)
    report = explain(found, now)
    if screen.records(report):
        return
    screen.lines(head(report, now))
    if report.nodes:
        screen.say("")
        screen.table(report.nodes, NODES)
    screen.say("")
    if report.rates:
        screen.table(report.rates, RATES)
    else:
        screen.lines([NO_RATES])
