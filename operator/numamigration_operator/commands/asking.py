# SPDX-License-Identifier: Apache-2.0
"""How commands ask the API server: what is trouble of the moment is asked again, for a bounded time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from random import Random
from typing import Final

from numamigration_api.machinery.backoff import Backoff
from numamigration_api.vocabulary import JSON
from numamigration_operator.cluster.client import (
    Access,
    Client,
    ClusterError,
    NoAnswerError,
    Query,
    Response,
    StatusError,
)
from numamigration_operator.settings import OperatorSettings

WAIT_SECONDS_MAX: Final = 5.0
"""Between two tries: who installs looks on."""

_rng: Final = Random()  # noqa: S311 - spreads requests, keeps no secret


@contextlib.asynccontextmanager
async def connected(settings: OperatorSettings) -> AsyncIterator[Client]:
    """Give the client of these settings.

    Raises:
        ClusterConfigError: there is no usable configuration of a cluster.
    """
    client = await Client.connect(Access(settings.kubeconfig, settings.context))
    try:
        yield client
    finally:
        await client.close()


async def ask(
    client: Client,
    method: str,
    path: str,
    *,
    until: float,
    query: Query | None = None,
    body: bytes | None = None,
    content_type: str = JSON,
) -> Response:
    """Send a request until it is answered by more than trouble of the moment (no answer, 429, 5xx).

    It is sent once in any case, and not again after `until`, monotonic seconds.

    Raises:
        ClusterError: the trouble was not over by then.
    """
    backoff = Backoff(cap_seconds=WAIT_SECONDS_MAX)
    while True:
        trouble: ClusterError
        try:
            answer = await client.request(method, path, query=query, body=body, content_type=content_type)
            if answer.status != 429 and answer.status < 500:
                return answer
            trouble = StatusError(answer.status, answer.message)
            wait = backoff.next_wait(_rng, answer.retry_after)
        except NoAnswerError as error:
            trouble, wait = error, backoff.next_wait(_rng)
        if time.monotonic() + wait >= until:
            raise trouble
        await asyncio.sleep(wait)
