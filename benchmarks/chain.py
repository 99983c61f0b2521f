# SPDX-License-Identifier: Apache-2.0
"""The bare chain that the product is compared with: two processes that do the same hops and nothing else.

``operator``: watch one policy, apply one node state. ``agent``: watch that node state, write one file. No decision, no
baseline, no read-back, no status, no retry; blocking sockets that stay open. Whoever is as fast as this does nothing.
Its objects are as large as the product's, and its tokens of the same kind, for what the API server takes is not ours.

``python -m benchmarks.chain operator|agent PART.json``, where the file holds a ``Part``.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from benchmarks.observer import connect, watch_lines
from numamigration_api.vocabulary import OPERATOR_MANAGER

Json = dict[str, Any]


class Part(Struct, frozen=True):
    """What both processes have to know.

    Attributes:
        operator_token, agent_token: of service accounts.
        policy, state: paths of the two objects.
        document: of the node state, as it is applied; only the wanted value in it is replaced.
        file: what is written.
    """

    server: str
    ca: str
    operator_token: str
    agent_token: str
    policy: str
    state: str
    document: Json
    file: str


def wanted(groups: Json) -> int:
    """Return the value that the edits are about."""
    limit: int = groups["balancing"]["promoteRateLimitMBps"]
    return limit


def operator(part: Part) -> None:
    """Apply the node state after each change of the policy."""
    applies = connect(part.server, part.ca)
    query = f"fieldManager={OPERATOR_MANAGER}&force=true&fieldValidation=Ignore"
    headers = {"Authorization": f"Bearer {part.operator_token}", "Content-Type": "application/apply-patch+yaml"}
    for policy in _objects(part, part.policy, part.operator_token):
        settings = part.document["spec"]["groups"]["balancing"]["settings"]
        settings["promoteRateLimitMBps"] = wanted(policy["spec"]["settings"])
        applies.request("PATCH", f"{part.state}?{query}", json.dumps(part.document), headers)
        _check(applies.getresponse())


def agent(part: Part) -> None:
    """Write the file after each change of the node state."""
    for state in _objects(part, part.state, part.agent_token):
        limit = wanted({name: group["settings"] for name, group in state["spec"]["groups"].items()})
        descriptor = os.open(part.file, os.O_WRONLY)
        os.write(descriptor, str(limit).encode())
        os.close(descriptor)


def _objects(part: Part, path: str, token: str) -> Iterator[Json]:
    collection, _, name = path.rpartition("/")
    headers, query = {"Authorization": f"Bearer {token}"}, {"fieldSelector": f"metadata.name={name}"}
    for line in watch_lines(connect(part.server, part.ca), collection, headers, query):
        yield json.loads(line)["object"]


def _check(answer: http.client.HTTPResponse) -> None:
    body = answer.read()
    if answer.status >= 300:
        raise OSError(f"{answer.status}: {body!r}")


if __name__ == "__main__":
    role = {"operator": operator, "agent": agent}[sys.argv[1]]
    role(msgspec.json.decode(Path(sys.argv[2]).read_bytes(), type=Part))
