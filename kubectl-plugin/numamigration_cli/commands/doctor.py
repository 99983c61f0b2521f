# SPDX-License-Identifier: Apache-2.0
"""``doctor``."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from numamigration_cli.app import with_cluster
from numamigration_cli.exits import Exit, Failure
from numamigration_cli.screen import Screen

if TYPE_CHECKING:
    from numamigration_cli.cluster import Cluster
    from numamigration_cli.views.doctor import Denied, Facts

Found = TypeVar("Found")

CRDS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
REVIEWS: Final = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
LEASES: Final = "/apis/coordination.k8s.io/v1"


@click.command("doctor", short_help="What is wrong with the installation, and what to do")
@with_cluster
async def doctor(cluster: Cluster, screen: Screen) -> int | None:
    """Look for what is wrong with the installation, and say what to do; exit code 1 when something is."""
    from numamigration_cli.views.doctor import COLUMNS, State, advice
    from numamigration_cli.views.doctor import doctor as view

    found = view(await read(cluster))
    if not screen.records(found):
        screen.table(found, COLUMNS)
        if told := advice(found):
            screen.lines(["", *told])
    return Exit.FAILED if any(one.state is State.WRONG for one in found) else None


async def read(cluster: Cluster) -> Facts:
    """Read everything that the checks look at."""
    from numamigration_api.vocabulary import LEASE_NAME
    from numamigration_cli import reads
    from numamigration_cli.cluster import METADATA_LIST
    from numamigration_cli.objects import NODES, POLICIES, STATES, ListedNode, Named, PolicyView
    from numamigration_cli.views.doctor import Denied, Facts

    told = await cluster.get("/version", dict[str, Any]) or {}
    nodes = await _or_denied(cluster.list_all(NODES, Named, accept=METADATA_LIST))
    control = await reads.control(cluster)
    return Facts(
        version=str(told.get("gitVersion", "")),
        plugin=version("numa-migration-operator"),
        crds=await _or_denied(_crds(cluster)),
        ours=_ours(),
        fence=await _or_denied(_fence(cluster)),
        lease=await _or_denied(cluster.get(cluster.in_namespace("leases", LEASE_NAME, LEASES), dict[str, Any])),
        operator=await _or_denied(_workload(cluster, "deployments", "numamigration-operator")),
        agents=await _or_denied(_workload(cluster, "daemonsets", "numamigration-agent")),
        states=await _or_denied(cluster.list_all(STATES, ListedNode)),
        nodes=nodes if isinstance(nodes, Denied) else [one.metadata.name for one in nodes],
        policies=await _or_denied(cluster.list_all(POLICIES, PolicyView)),
        profiles=await _or_denied(reads.profiles_if_known(cluster)),
        control=Denied("the ConfigMap may not be read") if control is None else control,
        may=await _rights(cluster),
        now=datetime.now(UTC),
    )


async def _or_denied(answer: Awaitable[Found]) -> Found | Denied:
    """Return what was read, or why not; without CRDs the rest is looked at all the same."""
    from numamigration_cli.views.doctor import Denied

    try:
        return await answer
    except Failure as failure:
        if failure.code in {Exit.NO_RIGHTS, Exit.NOT_INSTALLED}:
            return Denied(str(failure.args[0]))
        raise


def _ours() -> dict[str, Any]:
    import yaml

    from numamigration_api.definitions import definitions

    crds = [yaml.safe_load(text) for text in definitions().values()]
    return {crd["metadata"]["name"]: crd for crd in crds}


async def _crds(cluster: Cluster) -> Mapping[str, dict[str, Any] | None]:
    from numamigration_cli.cluster import one

    return {name: await cluster.get(one(CRDS, name), dict[str, Any]) for name in _ours()}


async def _fence(cluster: Cluster) -> str:
    from numamigration_api.fence import ADMISSION_API, FENCE_NAME, fence_problem

    base = f"/apis/{ADMISSION_API}"
    policy = await cluster.get(f"{base}/validatingadmissionpolicies/{FENCE_NAME}", dict[str, Any])
    binding = await cluster.get(f"{base}/validatingadmissionpolicybindings/{FENCE_NAME}", dict[str, Any])
    return fence_problem(policy, binding, cluster.namespace)


async def _workload(cluster: Cluster, resource: str, name: str) -> dict[str, Any] | None:
    from numamigration_cli.reads import APPS

    return await cluster.get(cluster.in_namespace(resource, name, APPS), dict[str, Any])


async def _rights(cluster: Cluster) -> dict[str, bool]:
    """Return whether this user may change policies, and the fleet switch."""
    from numamigration_api.vocabulary import CONTROL_CONFIG_MAP, GROUP, POLICY_PLURAL

    asked = {
        "change policies": {"group": GROUP, "resource": POLICY_PLURAL, "verb": "patch"},
        "turn the fleet switch": {
            "resource": "configmaps",
            "verb": "patch",
            "namespace": cluster.namespace,
            "name": CONTROL_CONFIG_MAP,
        },
    }
    found = {}
    for words, attributes in asked.items():
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        answer = await cluster.ask("POST", REVIEWS, body=body)
        found[words] = answer.status < 400 and b'"allowed":true' in answer.body.replace(b" ", b"")
    return found
