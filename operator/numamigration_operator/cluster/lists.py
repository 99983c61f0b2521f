# SPDX-License-Identifier: Apache-2.0
"""A whole list, page by page: for commands that look once. Who goes on looking uses an informer.

Source: Kubernetes API concepts, "Retrieving large results sets in chunks" (410: the list is too old to be continued).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import msgspec

from numamigration_api.machinery.listwatch import LIST_LIMIT
from numamigration_operator.cluster.client import Query, Response
from numamigration_operator.cluster.informer import Page

Item = TypeVar("Item")

_page: Final = msgspec.json.Decoder(Page)


async def whole_list(
    ask: Callable[[Query], Awaitable[Response]], take: Callable[[msgspec.Raw], Item], query: Query | None = None
) -> list[Item]:
    """Return what `take` makes of each object of a list.

    Args:
        ask: sends one GET of the collection with the given query.
        take: makes something of an object's bytes.
        query: selectors.

    Raises:
        StatusError: the API server refuses.
        msgspec.ValidationError: from `take`.
    """
    found: list[Item] = []
    token = ""
    while True:
        more = {"continue": token} if token else {}
        answer = await ask({**(query or {}), "limit": str(LIST_LIMIT), **more})
        if answer.status == 410 and token:
            found, token = [], ""
            continue
        page = _page.decode(answer.check())
        found += (take(item) for item in page.items or ())
        token = page.metadata.continue_
        if not token:
            return found
