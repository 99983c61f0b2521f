# SPDX-License-Identifier: Apache-2.0
"""``numamigration-operator selftest``: would a policy be taken, and do the agents report? Nothing is stored.

1. The API server tries a small policy, by server-side apply with dry run: the CRD is there, schema and rules hold.
2. Until every node state has a report, or the time is over, we look. One agent that reports is enough: a large fleet
   always has a node that is down, and those are named.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from numamigration_api.machinery.canonical import canonical_json
from numamigration_api.machinery.clock import parse_timestamp
from numamigration_api.vocabulary import API_VERSION
from numamigration_operator.cluster.client import Client, Response
from numamigration_operator.cluster.informer import POLICIES, STATES
from numamigration_operator.cluster.lists import whole_list
from numamigration_operator.commands import Say
from numamigration_operator.commands.asking import ask
from numamigration_operator.core.decisions import Patch
from numamigration_operator.core.objects import StateObject

MANAGER: Final = "numamigration-selftest"
SAMPLE: Final[dict[str, Any]] = {
    "apiVersion": API_VERSION,
    "kind": "MigrationPolicy",
    "metadata": {"name": MANAGER},
    "spec": {
        "nodeSelector": {},
        "mode": "Plan",
        "settings": {"offload": {"engine": "DMA", "channels": 2}, "balancing": {"mode": "Tiering"}},
    },
}
"""In mode Plan, should anybody ever apply it in earnest."""
REQUEST_SECONDS: Final = 30.0
LOOK_AGAIN_SECONDS: Final = 3.0
REPORT_AGE_SECONDS_MAX: Final = 1200.0
"""Twice the longest report interval: an agent that is older has gone."""
NAMED_MAX: Final = 20


class Agents(NamedTuple):
    """What node states say of their agents.

    Attributes:
        dialects: of those that report, with how many there are of each.
        silent: names of nodes whose agent has not reported, or not for long.
    """

    dialects: Counter[str]
    silent: tuple[str, ...]


async def selftest(client: Client, wait_seconds: float, say: Say) -> bool:
    """Do all of it; return whether a policy would be taken and at least one agent reports.

    Raises:
        ClusterError: the API server refuses to tell, or did not answer in time.
    """
    return await _try_policy(client, say) and await _look_at_agents(client, wait_seconds, say)


async def _try_policy(client: Client, say: Say) -> bool:
    answer = await ask(
        client,
        "PATCH",
        f"{POLICIES.path}/{MANAGER}",
        until=time.monotonic() + REQUEST_SECONDS,
        query={"fieldManager": MANAGER, "fieldValidation": "Strict", "dryRun": "All"},
        body=canonical_json(SAMPLE),
        content_type=Patch.APPLY,
    )
    if answer.status < 400:
        say("policy: the API server would take one")
        return True
    say(f"policy: refused: {_refusal(answer)}")
    return False


def _refusal(answer: Response) -> str:
    if answer.status == 404:
        return "there is no such kind; install the CRDs: numamigration-operator crds apply"
    return f"{answer.status}: {answer.message}"


async def _look_at_agents(client: Client, wait_seconds: float, say: Say) -> bool:
    until = time.monotonic() + wait_seconds
    while True:
        found = look(await _states(client), datetime.now(UTC))
        if (found.dialects and not found.silent) or time.monotonic() + LOOK_AGAIN_SECONDS > until:
            break
        await asyncio.sleep(LOOK_AGAIN_SECONDS)
    for line in told(found):
        say(line)
    return bool(found.dialects)


async def _states(client: Client) -> list[StateObject]:
    return await whole_list(
        lambda query: ask(client, "GET", STATES.path, until=time.monotonic() + REQUEST_SECONDS, query=query),
        STATES.decoder.decode,
    )


def look(states: Iterable[StateObject], now: datetime) -> Agents:
    """Return which agents report."""
    dialects: Counter[str] = Counter()
    silent: list[str] = []
    for state in states:
        if _is_recent(state.status_stored_at, now):
            dialects[state.status.dialect] += 1
        else:
            silent.append(state.metadata.name)
    return Agents(dialects, tuple(sorted(silent)))


def _is_recent(reported: str | None, now: datetime) -> bool:
    return reported is not None and now - parse_timestamp(reported) <= timedelta(seconds=REPORT_AGE_SECONDS_MAX)


def told(agents: Agents) -> list[str]:
    """Return what is to be said of them, a line each."""
    reporting = sum(agents.dialects.values())
    if not reporting and not agents.silent:
        return ["agents: there is no node state; does an operator lead, and does agent_node_selector select a node?"]
    kinds = ", ".join(f"{name} on {count}" for name, count in sorted(agents.dialects.items()))
    lines = [f"agents: {reporting} of {reporting + len(agents.silent)} nodes report" + (f": {kinds}" if kinds else "")]
    if agents.silent:
        more = len(agents.silent) - NAMED_MAX
        names = ", ".join(agents.silent[:NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
        lines.append(f"agents: silent: {names}; look at the pods of the DaemonSet numamigration-agent")
    return lines
