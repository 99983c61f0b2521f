# SPDX-License-Identifier: Apache-2.0
"""``plan``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from numamigration_cli.app import with_cluster
from numamigration_cli.exits import Exit, Failure
from numamigration_cli.screen import Screen

if TYPE_CHECKING:
    from numamigration_cli.cluster import Cluster
    from numamigration_cli.policyfile import Document
    from numamigration_cli.views.plan import Objects
    from numamigration_operator.core.objects import PolicyObject


@click.command("plan", short_help="What a policy file would change on every node")
@click.option(
    "-f",
    "--filename",
    "file",
    required=True,
    type=click.Path(allow_dash=True, path_type=Path, dir_okay=False),
    help="File with one policy or more; - reads standard input.",
)
@with_cluster
async def plan(cluster: Cluster, screen: Screen, file: Path) -> int | None:
    """Show what a policy file would change on every node; nothing is written. Exit code 2 when anything would.

    Decided here, from the objects of the cluster, as the operator decides it. The API server is asked whether it would
    take the file, where this user has the right to create policies.
    """
    from numamigration_cli import reads
    from numamigration_cli.views.plan import HINT, lines, stops
    from numamigration_cli.views.plan import plan as view

    text, name = _read(file)
    documents = _documents(text, name, screen)
    there = await objects(cluster, documents)
    stored = {policy.metadata.name: policy for policy in there.policies}
    plans = []
    for document in documents:
        version = stored[document.name].metadata.resource_version if document.name in stored else ""
        await _try(cluster, document, name, version, screen)
        plans.append(view(wanted(document, there.policies), there))
    if not screen.records(plans):
        for one in plans:
            screen.lines([*lines(one, every_name=screen.wide), ""])
        screen.note(HINT)
        for line in stops(await reads.control(cluster)):
            screen.note(line)
    return Exit.WOULD_CHANGE if any(one.would_change and one.mode != "Plan" for one in plans) else None


def _read(file: Path) -> tuple[str, str]:
    try:
        return (sys.stdin.read(), "standard input") if str(file) == "-" else (file.read_text(), str(file))
    except OSError as error:
        raise Failure(Exit.BAD_FILE, f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Failure(
            Exit.BAD_FILE, f"{file}: no UTF-8: byte {error.start} is {error.object[error.start]:#x}"
        ) from error


def _documents(text: str, name: str, screen: Screen) -> list[Document]:
    from numamigration_cli.policyfile import BadFileError, read_policies

    try:
        found, others = read_policies(text)
    except BadFileError as error:
        raise Failure(Exit.BAD_FILE, error.told(name)) from error
    if others:
        screen.note(f"{name}: left out: {', '.join(others)}")
    if not found:
        raise Failure(Exit.BAD_FILE, f"{name}: no MigrationPolicy in it")
    return found


async def objects(cluster: Cluster, documents: Sequence[Document]) -> Objects:
    """Read what plans of a file's policies are made from."""
    from numamigration_cli import reads
    from numamigration_cli.cluster import METADATA_LIST
    from numamigration_cli.objects import NODES, POLICIES, STATES
    from numamigration_cli.views.plan import Objects, PlanState
    from numamigration_operator.core.objects import NodeObject, PolicyObject

    stored = await cluster.list_all(POLICIES, PolicyObject)
    return Objects(
        stored,
        await cluster.list_all(NODES, NodeObject, accept=METADATA_LIST),
        await cluster.list_all(STATES, PlanState),
        await reads.profiles(cluster, [*stored, *(wanted(one, stored) for one in documents)]),
    )


def wanted(document: Document, policies: Sequence[PolicyObject]) -> PolicyObject:
    """Return one policy of a file as it would be stored."""
    from numamigration_api.machinery.clock import timestamp
    from numamigration_cli.views.plan import planned_policy

    stored = next((policy for policy in policies if policy.metadata.name == document.name), None)
    return planned_policy(document.name, document.spec, stored, timestamp(datetime.now(UTC)))


async def _try(cluster: Cluster, document: Document, name: str, version: str, screen: Screen) -> None:
    """Have the API server try the policy, with all its rules, and store nothing.

    Raises:
        Failure: it would not take it.
    """
    from numamigration_cli.cluster import MANAGER, one, refused
    from numamigration_cli.objects import POLICIES
    from numamigration_cli.policyfile import BadFileError

    body = document.body | {"metadata": document.body["metadata"] | ({"resourceVersion": version} if version else {})}
    method, path = ("PUT", one(POLICIES, document.name)) if version else ("POST", POLICIES)
    query = {"dryRun": "All", "fieldValidation": "Strict", "fieldManager": MANAGER}
    answer = await cluster.ask(method, path, query=query, body=body)
    if answer.status == 403:
        screen.note(f"the API server was not asked whether it would take {document.name}: {answer.message}")
    elif answer.status in {400, 422}:
        problems = [document.problem(where, text) for where, text in _causes(answer.body, answer.message)]
        raise Failure(Exit.BAD_FILE, BadFileError(problems).told(name))
    elif answer.status >= 400:
        raise refused(answer.status, answer.message, path)


def _causes(body: bytes, message: str) -> list[tuple[list[str | int], str]]:
    """Return what the API server finds fault with: the path of each part, and the words."""
    import json

    from numamigration_cli.policyfile import path_of

    details: dict[str, Any] = json.loads(body).get("details") or {}
    causes = [
        (path_of(str(cause.get("field", ""))), f"{cause.get('field', '')}: {cause.get('message', '')}")
        for cause in details.get("causes") or ()
    ]
    return causes or [([], message)]
