# SPDX-License-Identifier: Apache-2.0
"""``status``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

from numamigration_cli.app import with_cluster
from numamigration_cli.completion import Names
from numamigration_cli.screen import Screen

if TYPE_CHECKING:
    from numamigration_cli.cluster import Cluster
    from numamigration_cli.views.status import Status

EMPTY: Final = "There is no policy yet. Try one from examples/: kubectl numamigration plan -f examples/tiering.yaml"


@click.command("status", short_help="Policies: on or not, where not, why, how to undo it")
@click.argument("policy", required=False, shell_complete=Names("policies"))
@click.option("-w", "--watch", is_flag=True, help="Go on looking, until Ctrl-C.")
@click.option(
    "--interval", type=click.FloatRange(0.5, 3600), default=2.0, show_default=True, help="Seconds between looks."
)
@with_cluster
async def status(cluster: Cluster, screen: Screen, policy: str | None, watch: bool, interval: float) -> None:
    """Show policies: on or not, where not, why, since when, how to undo it.

    With POLICY everything about that one.
    """
    if watch:
        from numamigration_cli.live import watch_status

        await watch_status(lambda: read(cluster, policy), screen, interval, one=policy is not None)
        return
    show(await read(cluster, policy), screen, one=policy is not None)


async def read(cluster: Cluster, policy: str | None) -> Status:
    """Return what there is to show."""
    from numamigration_cli import reads
    from numamigration_cli.views.status import status as view

    found = await reads.policies(cluster) if policy is None else [await reads.policy(cluster, policy)]
    return view(found, await reads.control(cluster))


def show(found: Status, screen: Screen, *, one: bool) -> None:
    """Print it."""
    from numamigration_cli.views.status import above, below, details, table

    now = datetime.now(UTC)
    if screen.records(found):
        return
    screen.lines([*above(found), ""])
    if one:
        screen.lines(details(found.policies[0], now))
    elif found.policies:
        screen.table(found.policies, table(now))
        if lines := below(found):
            screen.lines(lines)
    else:
        screen.lines([EMPTY])
