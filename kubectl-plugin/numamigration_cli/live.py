# SPDX-License-Identifier: Apache-2.0
"""``status --watch``: looks again and again; on a terminal in place, elsewhere a table when something has changed."""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from numamigration_cli.screen import Screen, painted
from numamigration_cli.text import columns, wrapped
from numamigration_cli.views.status import BAR_COLUMNS, History, Status, above, below, details, watched
from numamigration_operator.cluster.client import NoAnswerError

SILENT: Final = "The API server does not answer; trying again."


async def watch_status(read: Callable[[], Awaitable[Status]], screen: Screen, interval: float, *, one: bool) -> None:
    """Look until somebody stops it.

    Args:
        read: looks once.
        screen: where it is shown.
        interval: seconds between two looks.
        one: about one policy, with everything.
    """
    history: History = defaultdict(lambda: deque(maxlen=BAR_COLUMNS))
    found, trouble = await read(), ""
    if not (screen.for_people and sys.stdout.isatty()):
        await _print_changes(read, found, screen, interval)
    console = Console(no_color=screen.colorless, highlight=False)
    with Live(console=console, auto_refresh=False, screen=True, vertical_overflow="crop") as live:
        while True:
            live.update(Group(*_shown(found, history, trouble, console.width, one=one)), refresh=True)
            await asyncio.sleep(interval)
            try:
                found, trouble = await read(), ""
            except NoAnswerError:
                trouble = SILENT


async def _print_changes(read: Callable[[], Awaitable[Status]], found: Status, screen: Screen, interval: float) -> None:
    last: Status | None = None
    while True:
        if found != last and not screen.records(found):
            screen.lines(
                [*above(found), *columns(found.policies, watched(datetime.now(UTC), {}), wide=screen.wide), ""]
            )
        last = found
        sys.stdout.flush()
        await asyncio.sleep(interval)
        try:
            found = await read()
        except NoAnswerError:
            screen.note(SILENT)


def _shown(found: Status, history: History, trouble: str, width: int, *, one: bool) -> list[Text]:
    now = datetime.now(UTC)
    for row in found.policies:
        history[row.policy].append(float(row.folios_per_second or 0.0))
    table = columns(found.policies, watched(now, history), width=width, paint=painted)
    rest = ["", *details(found.policies[0], now)] if one else below(found)
    head = f"{now:%H:%M:%S} UTC   Ctrl-C ends"
    lines = [*wrapped([head, trouble, *above(found), ""], width), *table, *wrapped(rest, width)]
    return [Text.from_ansi(line) for line in lines]
