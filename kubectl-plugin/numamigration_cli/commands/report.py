# SPDX-License-Identifier: Apache-2.0
"""``report``."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import click

from numamigration_cli.app import with_cluster
from numamigration_cli.exits import Exit, Failure
from numamigration_cli.screen import Screen

if TYPE_CHECKING:
    from numamigration_cli.cluster import Cluster
    from numamigration_cli.views.report.facts import Objects

Item = TypeVar("Item")

STANDARD_OUTPUT: Final = "-"


@click.command("report", short_help="One HTML page about the fleet, to look at or to send")
@click.option(
    "-f",
    "--filename",
    "file",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="File to write, which must be new; - is standard output.",
)
@with_cluster
async def report(cluster: Cluster, screen: Screen, file: Path | None) -> None:
    """Write one HTML page: nodes by reason, rollouts, measured classes, throughput. It opens without network."""
    from numamigration_cli.commands.files import new_file
    from numamigration_cli.views.report.facts import report as view
    from numamigration_cli.views.report.page import page

    moment = datetime.now(UTC)
    found = view(await read(cluster, moment))
    if screen.records(found):
        return
    text = page(found)
    if str(file) == STANDARD_OUTPUT:
        screen.say(text.rstrip("\n"))
        return
    target = file or Path(f"numamigration-report-{moment:%Y%m%d-%H%M%S}.html")
    with new_file(target) as stream:
        stream.write(text.encode())
    screen.say(f"{target}: {target.stat().st_size} bytes. It opens in any browser, without network.")


async def read(cluster: Cluster, moment: datetime) -> Objects:
    """Return what the page is made of; what may not be read, or is not installed, is told on the page.

    Raises:
        Failure: neither policies nor node states can be read.
    """
    from numamigration_cli import reads
    from numamigration_cli.objects import STATES, ReportedNode
    from numamigration_cli.views.report.facts import Objects

    missing: list[Failure] = []
    policies = await _or_missing("policies", reads.policies(cluster), missing)
    nodes = await _or_missing("node states", cluster.list_all(STATES, ReportedNode), missing)
    if policies is None and nodes is None:
        raise missing[0]
    control = await reads.control(cluster)
    revisions = await _or_missing("revisions", reads.stored_revisions(cluster), missing)
    events = await _or_missing("events", reads.policy_events(cluster), missing)
    profiles = await _or_missing("profiles", reads.profiles_if_known(cluster), missing)
    return Objects(
        now=moment,
        server=cluster.server,
        policies=policies or (),
        nodes=nodes or (),
        control=control,
        revisions=revisions or (),
        events=events or (),
        profiles=profiles or (),
        missing=[str(failure.args[0]) for failure in missing],
    )


async def _or_missing(what: str, answer: Awaitable[Item], missing: list[Failure]) -> Item | None:
    try:
        return await answer
    except Failure as failure:
        if failure.code not in {Exit.NO_RIGHTS, Exit.NOT_INSTALLED}:
            raise
        missing.append(Failure(failure.code, f"{what}: {failure.args[0]}", failure.advice))
        return None
