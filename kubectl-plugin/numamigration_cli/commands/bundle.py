# SPDX-License-Identifier: Apache-2.0
"""``support-bundle``."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from numamigration_api.vocabulary import CONTROL_CONFIG_MAP, GROUP, POLICY_UID_LABEL
from numamigration_cli.app import with_cluster
from numamigration_cli.commands.files import new_file
from numamigration_cli.exits import Failure
from numamigration_cli.screen import Screen

if TYPE_CHECKING:
    from numamigration_cli.cluster import Cluster

LOG_LINES_MAX: Final = 5000
LOG_BYTES_MAX: Final = 5_000_000
OURS: Final = "app.kubernetes.io/name=numa-migration-operator"
README: Final = """\
Support bundle of {server}, {moment}, namespace {namespace}.
Objects as JSON, of Nodes only names and labels; events; logs and metrics of pods.
Secrets were never read; what looks like one in variables, texts and logs is replaced by (removed).
Look before you send.
What could not be read is in missing.txt.
"""


@click.command("support-bundle", short_help="Objects, events, logs and metrics in a tar")
@click.option(
    "-f", "--filename", "file", type=click.Path(path_type=Path, dir_okay=False), help="File to write; must be new."
)
@click.option(
    "--agents",
    type=click.IntRange(0, 5000),
    default=20,
    show_default=True,
    help="Agents to take logs of; bad nodes first.",
)
@with_cluster
async def support_bundle(cluster: Cluster, screen: Screen, file: Path | None, agents: int) -> None:
    """Write a tar with objects, events, logs and metrics; secrets are left out."""
    moment = datetime.now(UTC)
    target = file or Path(f"numamigration-{moment:%Y%m%d-%H%M%S}.tar.gz")
    collected = await collect(cluster, agents, moment)
    with new_file(target) as stream:
        pack(collected, target.name.removesuffix(".gz").removesuffix(".tar"), stream, moment)
    screen.say(f"{target}: {len(collected)} files, {target.stat().st_size} bytes. Look into it before you send it.")


async def collect(cluster: Cluster, agents: int, moment: datetime) -> dict[str, str]:
    """Return the bundle's files by name."""
    from numamigration_cli.cluster import METADATA_LIST
    from numamigration_cli.views.redaction import cleaned, cleaned_text

    files: dict[str, str] = {}
    missing: list[str] = []
    objects: dict[str, list[Any]] = {}
    for name, (path, query) in _collections(cluster).items():
        try:
            accept = METADATA_LIST if name == "nodes" else "application/json"
            objects[name] = await cluster.list_all(path, dict[str, Any], accept=accept, query=query)
        except Failure as failure:
            missing.append(f"{name}: {failure.args[0]}")
            continue
        files[f"{name}.json"] = json.dumps(
            {"apiVersion": "v1", "kind": "List", "items": cleaned(objects[name])}, indent=1
        )
    for pod in _pods(objects.get("pods", []), objects.get("nodemigrationstates", []), agents):
        for name, path, query in _of_pod(cluster, pod):
            answer = await cluster.ask("GET", path, query=query, accept="*/*")
            if answer.status >= 400:
                missing.append(f"{name}: {answer.message}")
            else:
                files[name] = cleaned_text(answer.body.decode(errors="replace"))
    readme = README.format(server=cluster.server, moment=f"{moment:%Y-%m-%d %H:%M:%S} UTC", namespace=cluster.namespace)
    return {"README.txt": readme, "missing.txt": "".join(f"{line}\n" for line in missing), **files}


def _collections(cluster: Cluster) -> dict[str, tuple[str, dict[str, str]]]:
    from numamigration_api.fence import ADMISSION_API, FENCE_NAME
    from numamigration_cli.commands.doctor import CRDS, LEASES
    from numamigration_cli.objects import NODES, POLICIES, PROFILES, STATES
    from numamigration_cli.reads import APPS

    here, admission = cluster.in_namespace, f"/apis/{ADMISSION_API}"
    fence = {"fieldSelector": f"metadata.name={FENCE_NAME}"}
    return {
        "migrationpolicies": (POLICIES, {}),
        "nodemigrationstates": (STATES, {}),
        "migrationprofiles": (PROFILES, {}),
        "nodes": (NODES, {}),
        "controllerrevisions": (here("controllerrevisions", api=APPS), {"labelSelector": POLICY_UID_LABEL}),
        "control": (here("configmaps"), {"fieldSelector": f"metadata.name={CONTROL_CONFIG_MAP}"}),
        "leases": (here("leases", api=LEASES), {}),
        "deployments": (here("deployments", api=APPS), {"labelSelector": OURS}),
        "daemonsets": (here("daemonsets", api=APPS), {"labelSelector": OURS}),
        "pods": (here("pods"), {"labelSelector": OURS}),
        "events": (here("events"), {}),
        "policy-events": ("/api/v1/events", {"fieldSelector": "involvedObject.kind=MigrationPolicy"}),
        "crds": (CRDS, {"fieldSelector": f"metadata.name=migrationpolicies.{GROUP}"}),
        "crds-node-states": (CRDS, {"fieldSelector": f"metadata.name=nodemigrationstates.{GROUP}"}),
        "crds-profiles": (CRDS, {"fieldSelector": f"metadata.name=migrationprofiles.{GROUP}"}),
        "admission-policies": (f"{admission}/validatingadmissionpolicies", fence),
        "admission-bindings": (f"{admission}/validatingadmissionpolicybindings", fence),
    }


def _pods(pods: Sequence[dict[str, Any]], states: Sequence[dict[str, Any]], agents: int) -> list[dict[str, Any]]:
    """Return the pods to look into: every operator, and of the agents those of bad nodes first."""
    bad = {state["metadata"]["name"] for state in states if not _is_ready(state)}
    others = [pod for pod in pods if not _is_agent(pod)]
    ours = sorted((pod for pod in pods if _is_agent(pod)), key=lambda pod: pod["spec"].get("nodeName") not in bad)
    return [*others, *ours[:agents]]


def _is_agent(pod: dict[str, Any]) -> bool:
    return (pod["metadata"].get("labels") or {}).get("app.kubernetes.io/component") == "agent"


def _is_ready(state: dict[str, Any]) -> bool:
    conditions = (state.get("status") or {}).get("conditions") or ()
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def _of_pod(cluster: Cluster, pod: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Yield name in the bundle, path and query of what a pod tells: its log, that of its last life, its metrics."""
    name = pod["metadata"]["name"]
    path = cluster.in_namespace("pods", name)
    bounds = {"tailLines": str(LOG_LINES_MAX), "limitBytes": str(LOG_BYTES_MAX), "timestamps": "true"}
    yield f"logs/{name}.log", f"{path}/log", bounds
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    if any(one.get("restartCount") for one in statuses):
        yield f"logs/{name}.previous.log", f"{path}/log", {**bounds, "previous": "true"}
    ports = [port["containerPort"] for one in pod["spec"].get("containers", ()) for port in one.get("ports") or ()]
    if ports:
        yield f"metrics/{name}.txt", f"{path}:{ports[0]}/proxy/metrics", {}


def pack(files: dict[str, str], folder: str, stream: Any, moment: datetime) -> None:
    """Write a gzipped tar; everything in it lies in one folder."""
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, text in files.items():
            content = text.encode()
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size, entry.mtime, entry.mode = len(content), int(moment.timestamp()), 0o600
            tar.addfile(entry, io.BytesIO(content))
