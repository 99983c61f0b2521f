# SPDX-License-Identifier: Apache-2.0
"""Reads whether the node fence stands: its admission policy and binding, by name, every few seconds.

* One that is absent, or that we may not read, does not stand; nor does one that is not as this release has it.
* An API server that does not answer, or answers with an error of its own, changes nothing: what was read last stands.
* That both objects are there is all that can be read: an API server whose admission plugin is off has them too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from numamigration_api.fence import ADMISSION_API, BINDING_KIND, FENCE_NAME, POLICY_KIND, fence_problem
from numamigration_operator.cluster.client import Client, NoAnswerError, StatusError

log = logging.getLogger(__name__)

CHECK_SECONDS: Final = 10.0
"""So long may pushes go on after somebody took the fence away, and so long waits who has put it back."""
FIRST_SECONDS: Final = 1.0
"""Between two tries before the first answer, for which every decision waits."""
PATHS: Final = {
    POLICY_KIND: f"/apis/{ADMISSION_API}/validatingadmissionpolicies",
    BINDING_KIND: f"/apis/{ADMISSION_API}/validatingadmissionpolicybindings",
}
MEND: Final = (
    "apply deploy/fence.yaml (chart: fence.enabled=true); without fence: operator setting fence_required=false"
)

_decoder: Final = msgspec.json.Decoder(dict[str, Any])


class FenceReader:
    """Looks again and again.

    Args:
        client: the API server.
        namespace: of the agents.
        on_read: told after each look that had an answer why agents are not fenced, and what to do; empty when they are.
        rest: lets seconds pass.
    """

    def __init__(
        self,
        client: Client,
        namespace: str,
        on_read: Callable[[str], None],
        rest: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._on_read = on_read
        self._rest = rest
        self._said: str | None = None

    async def run(self) -> None:
        """Read for ever."""
        while True:
            problem = await self._look()
            if problem is not None:
                self._tell(problem)
            await self._rest(FIRST_SECONDS if self._said is None else CHECK_SECONDS)

    async def _look(self) -> str | None:
        """Return what is wrong; None when nobody can tell now."""
        try:
            problem = fence_problem(await self._get(POLICY_KIND), await self._get(BINDING_KIND), self._namespace)
        except StatusError as error:
            return f"{FENCE_NAME} may not be read: apply deploy/rbac.yaml" if error.status == 403 else None
        except (NoAnswerError, msgspec.DecodeError):  # silence is said by the client; no API server answers so
            return None
        return f"{problem}: {MEND}" if problem else ""

    async def _get(self, kind: str) -> dict[str, Any] | None:
        answer = await self._client.request("GET", f"{PATHS[kind]}/{FENCE_NAME}")
        return None if answer.status == 404 else _decoder.decode(answer.check())

    def _tell(self, problem: str) -> None:
        if problem and problem != self._said:
            log.warning("agents are not fenced; only what undoes is pushed", extra={"problem": problem})
        elif self._said and not problem:
            log.info("agents are fenced")
        self._said = problem
        self._on_read(problem)
