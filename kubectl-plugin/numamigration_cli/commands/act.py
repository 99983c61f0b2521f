# SPDX-License-Identifier: Apache-2.0
"""``pause``, ``resume``, ``rollback``, ``stop``, ``release-hold``: what changes something."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from numamigration_api.vocabulary import FleetSwitch, PolicyMode
from numamigration_cli.app import with_cluster
from numamigration_cli.completion import Names
from numamigration_cli.exits import Exit, Failure
from numamigration_cli.screen import Screen

if TYPE_CHECKING:
    from numamigration_cli.cluster import Cluster

_policy = click.argument("policy", shell_complete=Names("policies"))
_yes = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


@click.command("pause", short_help="Hold what a policy has set")
@_policy
@with_cluster
async def pause(cluster: Cluster, screen: Screen, policy: str) -> None:
    """Hold what POLICY has set, in mid-rollout too; drift is not corrected meanwhile."""
    await _set_mode(cluster, screen, policy, PolicyMode.PAUSED)


@click.command("resume", short_help="Let a paused policy go on")
@_policy
@with_cluster
async def resume(cluster: Cluster, screen: Screen, policy: str) -> None:
    """Let a paused POLICY go on; one whose rollout had failed is tried anew."""
    await _set_mode(cluster, screen, policy, PolicyMode.APPLY)


async def _set_mode(cluster: Cluster, screen: Screen, policy: str, wanted: PolicyMode) -> None:
    from numamigration_cli import reads
    from numamigration_cli.cluster import one
    from numamigration_cli.objects import POLICIES
    from numamigration_cli.views.act import mode_steps

    found = await reads.policy(cluster, policy)
    steps = mode_steps(found.metadata, found.spec.mode, wanted)
    if steps:
        await cluster.patch(one(POLICIES, policy), steps)
    screen.say(f"{policy}: mode {wanted}" + ("" if steps else ", as before"))


@click.command("rollback", short_help="Make an earlier revision of a policy its spec")
@_policy
@click.option(
    "--to", "wanted", default="", metavar="REVISION", help="Number or hash; else the last one that went well."
)
@_yes
@with_cluster
async def rollback(cluster: Cluster, screen: Screen, policy: str, wanted: str, yes: bool) -> None:
    """Make an earlier revision of POLICY its spec; it is rolled out as any edit is, canaries first.

    Selector, priority, mode and rollout stay as they are. A GitOps tool puts its own version back: roll back there too.
    """
    from numamigration_cli import reads
    from numamigration_cli.cluster import one
    from numamigration_cli.objects import POLICIES
    from numamigration_cli.views.act import rollback_steps, tuning_ends
    from numamigration_cli.views.history import changes, content, decoded, find, way_back
    from numamigration_operator.core.revisions import revision_id

    asked = await reads.asked_policy(cluster, policy)
    stored = await reads.revisions(cluster, asked.metadata.uid)
    now = await reads.content_now(cluster, asked)
    back = find(stored, wanted, policy) if wanted else way_back(stored, revision_id(now))
    if back is None:
        raise Failure(Exit.FAILED, f"{policy}: no other revision went well", "kubectl numamigration history; then --to")
    found = changes(decoded(now), content(back))
    if not found:
        screen.say(f"{policy} asks for revision {back.number} already")
        return
    for line in (*found, *tuning_ends(asked.spec, content(back))):
        screen.note(line)
    screen.confirm(f"{cluster.server}: roll {policy} back to revision {back.number}?", yes=yes)
    await cluster.patch(one(POLICIES, policy), rollback_steps(asked.metadata, content(back)))
    screen.say(f"{policy}: spec is that of revision {back.number}; look: kubectl numamigration status {policy} --watch")
    if asked.spec.mode is PolicyMode.PAUSED:
        screen.note(f"{policy} is paused; nothing moves before: kubectl numamigration resume {policy}")


@click.command("stop", short_help="The fleet switch: off, hold, restore, run")
@click.argument("switch", type=click.Choice([word.value for word in FleetSwitch]))
@_yes
@with_cluster
async def stop(cluster: Cluster, screen: Screen, switch: str, yes: bool) -> None:
    """Turn the fleet switch, which beats every policy; asks first.

    \b
    off      offload is turned off wherever this project turned it on
    hold     nothing new is pushed, but what turns off or restores
    restore  every value of before is put back
    run      back to normal
    """  # noqa: D301 - click's own mark
    from numamigration_api.vocabulary import CONTROL_CONFIG_MAP
    from numamigration_cli import reads
    from numamigration_cli.cluster import decode
    from numamigration_cli.views.act import switch_document, switch_question
    from numamigration_operator.core.fleet_switch import read_control
    from numamigration_operator.core.objects import ConfigMapObject

    wanted = FleetSwitch(switch)
    if not yes:  # who is in a hurry does not wait for what only a question needs
        before = await reads.control(cluster)
        question = switch_question(wanted, cluster.server, None if before is None else before.switch)
        screen.confirm(question, yes=False)
    path = cluster.in_namespace("configmaps", CONTROL_CONFIG_MAP)
    after = read_control(decode(await cluster.apply(path, switch_document(wanted)), ConfigMapObject))
    if after.switch is not wanted:
        raise Failure(
            Exit.FAILED, f"the fleet switch is at {after.switch}: {after.problem}", "mend the ConfigMap first"
        )
    screen.say(f"fleet switch: {wanted}; look: kubectl numamigration status --watch")


@click.command("release-hold", short_help="Use a class again whose engine corrupted pages")
@click.argument("held_class", metavar="CLASS")
@_yes
@with_cluster
async def release_hold(cluster: Cluster, screen: Screen, held_class: str, yes: bool) -> None:
    """Let offload be turned on again in a held CLASS: its key, the digits of it, or a part of its name.

    A class is held since one of its engines corrupted pages. Find out what happened, and replace the engine, first.
    """
    from numamigration_api.vocabulary import CONTROL_CONFIG_MAP
    from numamigration_cli import reads
    from numamigration_cli.views.act import held, release_steps

    control = await reads.control(cluster)
    if control is None:
        raise Failure(Exit.NO_RIGHTS, f"ConfigMap {CONTROL_CONFIG_MAP} may not be read")
    key, text, hold = held(control, held_class)
    screen.confirm(f"{hold or key}. Is the engine replaced, and shall its class be used again?", yes=yes)
    await cluster.patch(cluster.in_namespace("configmaps", CONTROL_CONFIG_MAP), release_steps(key, text))
    screen.say(f"{key}: released; its nodes verify their engines before they are trusted")
