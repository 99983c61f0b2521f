# SPDX-License-Identifier: Apache-2.0
"""``history`` and ``diff``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from numamigration_cli.app import with_cluster
from numamigration_cli.completion import Names
from numamigration_cli.exits import Exit, Failure
from numamigration_cli.screen import Screen

if TYPE_CHECKING:
    from numamigration_cli.cluster import Cluster


@click.command("history", short_help="What a policy has asked so far, and how it went")
@click.argument("policy", shell_complete=Names("policies"))
@with_cluster
async def history(cluster: Cluster, screen: Screen, policy: str) -> None:
    """List what POLICY has asked of nodes so far, and what became of it."""
    from numamigration_cli import reads
    from numamigration_cli.views.history import history as view
    from numamigration_cli.views.history import table
    from numamigration_operator.core.revisions import revision_id

    asked = await reads.asked_policy(cluster, policy)
    now = revision_id(await reads.content_now(cluster, asked))
    rows = view(await reads.revisions(cluster, asked.metadata.uid), now)
    if screen.records(rows):
        return
    if rows:
        screen.table(rows, table(datetime.now(UTC)))
    else:
        screen.note(f"{policy} has no revision yet: nothing of it was pushed to a node (namespace {cluster.namespace})")


@click.command("diff", short_help="What going back to a revision would change")
@click.argument("revision", shell_complete=Names("policies"))
@click.argument("other", required=False)
@with_cluster
async def diff(cluster: Cluster, screen: Screen, revision: str, other: str | None) -> int | None:
    """Show what going back to REVISION would change in its policy; exit code 2 when anything would.

    REVISION is POLICY/NUMBER or POLICY/HASH, as history shows them. With OTHER, a number or hash of the same policy:
    what differs between the two.
    """
    from numamigration_cli import reads
    from numamigration_cli.views.history import changes, content, decoded, find, named

    name, wanted = named(revision)
    if not name:
        raise Failure(Exit.USAGE, f"{revision!r} does not say of which policy", f"for example POLICY/{wanted}")
    asked = await reads.asked_policy(cluster, name)
    stored = await reads.revisions(cluster, asked.metadata.uid)
    one = content(find(stored, wanted, name))
    if other is None:
        found = changes(decoded(await reads.content_now(cluster, asked)), one)
    else:
        found = changes(one, content(find(stored, other, name)))
    if not screen.records(found):
        screen.lines(found or ["nothing differs"])
    return Exit.WOULD_CHANGE if found else None
