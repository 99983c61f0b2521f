# SPDX-License-Identifier: Apache-2.0
"""What the demo shows: policies, nodes and the kernel files themselves, in 80 columns.

The tables are built from the objects as the API server has them and from the files as the kernel answers them, never
from what the demo believes. On a terminal they are redrawn in place; elsewhere one picture is printed a scene.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from numamigration_api.machinery.conditions import find_condition

Json = Mapping[str, Any]

WIDTH: Final = 80
REDRAW_SECONDS: Final = 0.5
STATUS_STYLE: Final = {"True": "green", "False": "red", "Unknown": "yellow"}
LONGEST: Final = {"NAME": "database-offload", "READY": "False", "REASON": "MigratorBusy"}
KNOB_FILES: Final = {
    "offloading": "sys/module/dcbm/parameters/offloading",
    "chan": "sys/module/dcbm/parameters/nr_dma_chan",
    "balancing": "proc/sys/kernel/numa_balancing",
    "demotion": "sys/kernel/mm/numa/demotion_enabled",
}


def ready_of(obj: Json) -> Json:
    """Return the Ready condition of a policy or node state, ``{}`` while there is none."""
    return find_condition(obj.get("status", {}).get("conditions", []), "Ready") or {}


def policy_table(policies: Sequence[Json]) -> Table:
    """Return the policies as ``kubectl get migpol`` shows them."""
    table = Table(title="policies", title_justify="left", box=None, width=WIDTH, title_style="bold", padding=(0, 1))
    for name, longest in LONGEST.items():
        table.add_column(name, no_wrap=True, min_width=len(longest))
    # Of a line that is too long the counts are cut: what is not ready stands in the conditions too.
    table.add_column("NODES", no_wrap=True, ratio=1)
    for policy in policies:
        status, ready = policy.get("status", {}), ready_of(policy)
        table.add_row(
            policy["metadata"]["name"],
            styled(ready.get("status", "…")),
            ready.get("reason", ""),
            status.get("summary", ""),
        )
    return table


def node_table(states: Sequence[Json]) -> Table:
    """Return the node states as ``kubectl get nms`` shows them."""
    table = Table(title="nodes", title_justify="left", box=None, width=WIDTH, title_style="bold", padding=(0, 1))
    for name in ("NODE", "DIALECT", "OFFLOAD", "READY", "REASON", "FOLIOS", "FOLIOS/S"):
        table.add_column(name, justify="right" if name.startswith("FOLIOS") else "left", no_wrap=True)
    for state in states:
        status, ready = state.get("status", {}), ready_of(state)
        numbers = status.get("statistics", {})
        table.add_row(
            state["metadata"]["name"],
            status.get("dialect", ""),
            status.get("offload", ""),
            styled(ready.get("status", "…")),
            ready.get("reason", ""),
            str(numbers.get("foliosMigrated", "")),
            str(numbers.get("foliosPerSecond", "")),
        )
    return table


def kernel_table(files: Mapping[str, Mapping[str, str]]) -> Table:
    """Return what the kernel files themselves say; `files` is node → knob → text."""
    table = Table(title="kernel files", title_justify="left", box=None, width=WIDTH, title_style="bold", padding=(0, 1))
    table.add_column("NODE")
    for name in KNOB_FILES:
        table.add_column(name, justify="right")
    for node, values in files.items():
        table.add_row(node, *(values[name] for name in KNOB_FILES))
    return table


def styled(status: str) -> Text:
    """Return a condition's status in its color; the word itself stays, for those who see no color."""
    return Text(status, style=STATUS_STYLE.get(status, ""))


class Screen:
    """The terminal, or a log."""

    def __init__(self, console: Console, picture: Callable[[], RenderableType]) -> None:
        self.console = console
        self._picture = picture

    def say(self, text: str, style: str = "") -> None:
        """Print a paragraph."""
        self.console.print(Text(text, style=style), soft_wrap=not self.console.is_terminal)

    def heading(self, number: int, text: str) -> None:
        """Begin a scene."""
        self.console.print()
        self.console.print(Text(f"{number}. {text}", style="bold cyan"))

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show the picture while something is awaited; it stays as it was at the end."""
        if not self.console.is_terminal:
            yield
            self.console.print(self._picture())
            return
        with Live(self._picture(), console=self.console, auto_refresh=False) as live:
            ended = threading.Event()
            painter = threading.Thread(target=self._paint, args=(live, ended), daemon=True)
            painter.start()
            try:
                yield
            finally:
                ended.set()
                painter.join()
                live.update(self._picture(), refresh=True)

    def _paint(self, live: Live, ended: threading.Event) -> None:
        while not ended.wait(REDRAW_SECONDS):
            live.update(self._picture(), refresh=True)


def picture(policies: Sequence[Json], states: Sequence[Json], files: Mapping[str, Mapping[str, str]]) -> RenderableType:
    """Return the three tables."""
    return Group(policy_table(policies), Text(), node_table(states), Text(), kernel_table(files))
