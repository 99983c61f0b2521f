# SPDX-License-Identifier: Apache-2.0
"""``numamigration-operator crds``: the CRDs of this release into the cluster, and never over newer ones.

By server-side apply, with force: whoever applied them before, kubectl or another release, ours are the fields of our
own CRDs. What was read is what is replaced (resourceVersion), so two releases that install at once cannot cross.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import yaml

from numamigration_api.definitions import definitions
from numamigration_operator.cluster.client import Client
from numamigration_operator.commands import Say
from numamigration_operator.commands.asking import ask
from numamigration_operator.core.crd_order import Found, Standing, compare
from numamigration_operator.core.decisions import Patch

CRDS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MANAGER: Final = "numamigration-crds"
LOOK_AGAIN_SECONDS: Final = 0.25
"""Between two looks at what the API server does by itself, which takes it tenths of a second."""

Json = dict[str, Any]


def print_crds() -> bool:
    """Print the CRDs as one YAML stream; it can be piped into ``kubectl apply --server-side -f -``."""
    sys.stdout.write("---\n".join(definitions().values()))
    return True


async def apply_crds(client: Client, wait_seconds: float, say: Say) -> bool:
    """Install or update the CRDs; return whether each is served now, in this release's form or a newer one.

    Raises:
        ClusterError: the API server refuses, or did not answer in time.
    """
    until = time.monotonic() + wait_seconds
    return all([await _apply(client, yaml.safe_load(text), until, say) for text in definitions().values()])


async def _apply(client: Client, ours: Json, until: float, say: Say) -> bool:
    name = ours["metadata"]["name"]
    while True:
        stored = await _stored(client, name, until, say)
        if _is_leaving(stored):
            say(f"{name}: is still being deleted; nothing was applied")
            return False
        found = compare(stored, ours)
        said = await _settle(client, ours, stored, found, until)
        if said or time.monotonic() >= until:
            break
    say(f"{name}: {said or 'is edited all the time; nothing was applied'}")
    return found.standing is not Standing.FOREIGN and bool(said) and await _served(client, name, until, say)


async def _stored(client: Client, name: str, until: float, say: Say) -> Json | None:
    """Return the CRD as it stands there; one that is being deleted is waited for."""
    is_said = False
    while True:
        stored = await read_crd(client, name, until)
        if not _is_leaving(stored) or time.monotonic() >= until:
            return stored
        if not is_said:
            say(f"{name}: is being deleted; waiting until it is gone")
            is_said = True
        await asyncio.sleep(LOOK_AGAIN_SECONDS)


def _is_leaving(stored: Json | None) -> bool:
    return stored is not None and "deletionTimestamp" in stored["metadata"]


async def read_crd(client: Client, name: str, until: float) -> Json | None:
    """Return a CRD; None when there is none.

    Raises:
        ClusterError: the API server refuses, or did not answer in time.
    """
    answer = await ask(client, "GET", f"{CRDS}/{name}", until=until)
    if answer.status == 404:
        return None
    found: Json = msgspec.json.decode(answer.check())
    return found


async def _settle(client: Client, ours: Json, stored: Json | None, found: Found, until: float) -> str:
    """Apply ours if it is time to; return what to say of it, or nothing when somebody else wrote meanwhile."""
    if found.standing is Standing.FOREIGN:
        return f"refused: the cluster has a CRD of this name that is not ours: {found.why}"
    if found.standing is Standing.NEWER:
        return f"newer: left alone; {found.why}"
    before = stored["metadata"]["resourceVersion"] if stored is not None else None
    seen = {} if before is None else {"resourceVersion": before}
    answer = await ask(
        client,
        "PATCH",
        f"{CRDS}/{ours['metadata']['name']}",
        until=until,
        query={"fieldManager": MANAGER, "force": "true", "fieldValidation": "Strict"},
        body=msgspec.json.encode({**ours, "metadata": {**ours["metadata"], **seen}}),
        content_type=Patch.APPLY,
    )
    if answer.status == 409:
        return ""
    after = msgspec.json.decode(answer.check())["metadata"]["resourceVersion"]
    return "created" if before is None else "unchanged" if after == before else "updated"


async def _served(client: Client, name: str, until: float, say: Say) -> bool:
    """Wait until the API server has accepted the names, which is when it begins to serve them."""
    while True:
        crd = await read_crd(client, name, until) or {}
        conditions = {one["type"]: one for one in crd.get("status", {}).get("conditions") or ()}
        if _is(conditions, "Established", "True"):
            return True
        if _is(conditions, "NamesAccepted", "False"):
            say(f"{name}: not served: {conditions['NamesAccepted'].get('message', 'its names are taken')}")
            return False
        if time.monotonic() >= until:
            say(f"{name}: not served yet; the time is over")
            return False
        await asyncio.sleep(LOOK_AGAIN_SECONDS)


def _is(conditions: Mapping[str, Json], kind: str, status: str) -> bool:
    return conditions.get(kind, {}).get("status") == status
