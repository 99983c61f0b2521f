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
from numamigration_cli.text import Paint, columns, wrapped
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
    console, lines = Console(no_color=screen.colorless, highlight=False), list[str]()
    try:
        with Live(console=console, auto_refresh=False, screen=True, vertical_overflow="crop") as live:
            while True:
                now = datetime.now(UTC)
                remember(found, history)
                lines = shown(found, history, trouble, now, console.width, one=one)
                live.update(Group(*map(Text.from_ansi, [f"{now:%H:%M:%S} UTC   Ctrl-C ends", *lines])), refresh=True)
                await asyncio.sleep(interval)
                try:
                    found, trouble = await read(), ""
                except NoAnswerError:
                    trouble = SILENT
    finally:  # the terminal has its own screen again: what was seen last stays on it
        console.print(*map(Text.from_ansi, lines), sep="\n")


async def _print_changes(read: Callable[[], Awaitable[Status]], found: Status, screen: Screen, interval: float) -> None:
    last: Status | None = None
    while True:
        if found != last and not screen.records(found):
            now = datetime.now(UTC)
            table = columns(found.policies, watched(now, {}), wide=screen.wide)
            screen.lines([f"{now:%H:%M:%S} UTC", *above(found), *table, ""])
        last = found
        sys.stdout.flush()
        await asyncio.sleep(interval)
        try:
            found = await read()
        except NoAnswerError:
            screen.note(SILENT)


def remember(found: Status, history: History) -> None:
    """Add the rates of this look."""
    for row in found.policies:
        history[row.policy].append(float(row.folios_per_second or 0.0))


def shown(
    found: Status, history: History, trouble: str, now: datetime, width: int, *, one: bool, paint: Paint = painted
) -> list[str]:
    """Return the lines of one look on a terminal."""
    table = columns(found.policies, watched(now, history), width=width, paint=paint)
    rest = ["", *details(found.policies[0], now)] if one else below(found)
    return [*wrapped([trouble, *above(found), ""], width), *table, *wrapped(rest, width)]
