# SPDX-License-Identifier: Apache-2.0
"""What several commands read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from numamigration_api.vocabulary import CONTROL_CONFIG_MAP, POLICY_KIND, POLICY_UID_LABEL
from numamigration_cli.cluster import Cluster, one
from numamigration_cli.exits import Exit, Failure
from numamigration_cli.objects import EVENTS, POLICIES, PROFILES, EventView, PolicyView
from numamigration_cli.text import names
from numamigration_operator.core.fleet_switch import Control, read_control
from numamigration_operator.core.objects import ConfigMapObject, PolicyObject, ProfileObject, RevisionObject
from numamigration_operator.core.revisions import Revision, content_of, read_revision
from numamigration_operator.core.tuned import Profiles, Tuned, profiles_of, tuned_by

APPS: Final = "/apis/apps/v1"
NAMED_MAX: Final = 5


async def policies(cluster: Cluster) -> list[PolicyView]:
    """Return all policies."""
    return await cluster.list_all(POLICIES, PolicyView)


async def policy(cluster: Cluster, name: str) -> PolicyView:
    """Return one policy.

    Raises:
        Failure: there is none of that name; the message names those that there are.
    """
    found = await cluster.get(one(POLICIES, name), PolicyView)
    if found is None:
        others = [other.metadata.name for other in await policies(cluster)]
        raise missing(f"no policy {name}", others, "there is no policy at all")
    return found


def missing(message: str, others: Iterable[str], none: str) -> Failure:
    """Return what a name that nothing has ends with, with those that there are; `none` says that there are none."""
    known = sorted(others)
    return Failure(Exit.FAILED, message, f"there is {names(known, NAMED_MAX)}" if known else none)


async def control(cluster: Cluster) -> Control | None:
    """Return what the control ConfigMap says; None when this user may not read it."""
    path = cluster.in_namespace("configmaps", CONTROL_CONFIG_MAP)
    try:
        return read_control(await cluster.get(path, ConfigMapObject))
    except Failure as failure:
        if failure.code is Exit.NO_RIGHTS:
            return None
        raise


async def revisions(cluster: Cluster, uid: str) -> list[Revision]:
    """Return the stored revisions of a policy, the latest first."""
    read = (read_revision(seen) for seen in await stored_revisions(cluster, f"={uid}"))
    return sorted((one for one in read if one is not None), key=lambda one: -one.number)


async def stored_revisions(cluster: Cluster, of: str = "") -> list[RevisionObject]:
    """Return the ControllerRevisions of all policies; with ``=UID`` of one."""
    path = cluster.in_namespace("controllerrevisions", api=APPS)
    return await cluster.list_all(path, RevisionObject, query={"labelSelector": f"{POLICY_UID_LABEL}{of}"})


async def policy_events(cluster: Cluster) -> list[EventView]:
    """Return the Events on policies."""
    return await cluster.list_all(EVENTS, EventView, query={"fieldSelector": f"regarding.kind={POLICY_KIND}"})


async def asked_policy(cluster: Cluster, name: str) -> PolicyObject:
    """Return one policy as the operator's core reads it.

    Raises:
        Failure: there is none of that name, or it is of a newer release.
    """
    found = await cluster.get(one(POLICIES, name), PolicyObject)
    if found is None:
        await policy(cluster, name)  # says which there are
        raise Failure(Exit.FAILED, f"no policy {name}")
    return found


async def all_profiles(cluster: Cluster) -> list[ProfileObject]:
    """Return all MigrationProfiles."""
    return await cluster.list_all(PROFILES, ProfileObject)


async def profile(cluster: Cluster, name: str) -> ProfileObject:
    """Return one MigrationProfile.

    Raises:
        Failure: there is none of that name; the message names those that there are.
    """
    found = await cluster.get(one(PROFILES, name), ProfileObject)
    if found is None:
        others = [other.metadata.name for other in await all_profiles(cluster)]
        raise missing(f"no profile {name}", others, "no hardware class was measured yet")
    return found


async def profiles_if_known(cluster: Cluster) -> list[ProfileObject]:
    """Return all MigrationProfiles; CRDs of a release that did not have them yet have none."""
    try:
        return await all_profiles(cluster)
    except Failure as failure:
        if failure.code is Exit.NOT_INSTALLED:
            return []
        raise


async def profiles(cluster: Cluster, policies: Iterable[PolicyObject]) -> Profiles:
    """Return what was measured of hardware classes; nothing is read where none of the policies has it."""
    if all(tuned_by(policy.spec) is not Tuned.APPLIED for policy in policies):
        return ()
    return profiles_of(await profiles_if_known(cluster))


async def content_now(cluster: Cluster, asked: PolicyObject) -> bytes:
    """Return what a policy asks of a node now, as canonical JSON."""
    return content_of(asked.spec, await profiles(cluster, [asked]))
