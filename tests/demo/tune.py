# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.demo.tune``: two hardware classes are measured; one gets offload, the other is left without.

How fast their pages move is a table (``tests.twin.timed``): a model of two machines, which measures nothing.
Exit codes as the other demo has.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from rich.console import RenderableType
from rich.table import Table

from benchmarks.page.draw import draw
from benchmarks.page.figures import Line, Panel, Point, Style
from numamigration_api.machinery.quantities import size_text
from numamigration_api.vocabulary import API_VERSION, PROFILE_PLURAL
from tests.demo import screen as s
from tests.demo.play import Json, Play, perform
from tests.demo.stage import BASE, ROOT, STATES, NodePart
from tests.fakekernel.config import DmaEngine, HostConfig
from tests.twin.timed import DMA_LOSES, DMA_WINS

PROFILES: Final = f"{BASE}/{PROFILE_PLURAL}"
PICTURE: Final = Path("build/demo-tune.png")
GIGA: Final = 1e9
CAST: Final = (
    NodePart(
        "wins",
        "four channels of an engine that beats its CPU, if all are used",
        HostConfig(engines=tuple(DmaEngine("ptdma", numa_node=node % 2) for node in range(4)), speeds=DMA_WINS),
    ),
    NodePart(
        "loses",
        "four channels of an engine that is slower than its CPU",
        HostConfig(engines=tuple(DmaEngine("ae4dma", numa_node=node % 2) for node in range(4)), speeds=DMA_LOSES),
    ),
)


class Tune(Play):
    """The scenes."""

    def picture(self) -> RenderableType:
        """Return what nodes measure, and what their kernels say."""
        table = Table(box=None, width=s.WIDTH, padding=(0, 1))
        for name in ("NODE", "OFFLOADING", "CHANNELS", "READY", "REASON", "PROBE"):
            table.add_column(name, no_wrap=True)
        for state in self.stage.api.list_items(STATES):
            name, ready = state["metadata"]["name"], s.ready_of(state)
            files = self.files()[name]
            probe = state.get("status", {}).get("probe", {}).get("phase", "")
            status = s.styled(ready.get("status", "…"))
            table.add_row(name, *list(files.values())[:2], status, ready.get("reason", ""), probe)
        return table

    def profiles(self) -> dict[str, Json]:
        """Return the profiles that are measured, by the name of the node that was."""
        found = (one for one in self.stage.api.list_items(PROFILES) if one.get("status", {}).get("phase") == "Measured")
        return {one["status"]["nodes"][0]["node"]: one for one in found}

    def measure(self) -> None:
        """One node of each class measures with own pages."""
        self.screen.heading(1, "Two hardware classes (models), and a policy without a number")
        for part in self.stage.cast:
            self.screen.say(f"   {part.name}: {part.what}")
        self.kubectl("apply", "-f", "tests/demo/tune.yaml")
        self.wait("both classes are measured", lambda: len(self.profiles()) == len(CAST))
        for name, profile in sorted(self.profiles().items()):
            self.screen.say(f"{name}: {profile['status']['message']}", style="bold")
            self.screen.console.print(_table(profile["status"]["results"]))

    def choose(self) -> None:
        """What was measured goes out as any edit does."""
        self.screen.heading(2, "What each node gets")
        self.wait("offload is on where it surely wins, and off where it loses", self._is_as_measured)
        self.kubectl("get", "migprof")
        self.kubectl("get", "nms")
        self._plot()

    def _is_as_measured(self) -> bool:
        switches = {name: self.file(name, "sys/module/dcbm/parameters/offloading") for name in self.stage.hosts}
        recommended = {name: one["status"]["recommendation"]["engine"] for name, one in self.profiles().items()}
        wanted = {name: "1" if engine == "DMA" else "0" for name, engine in recommended.items()}
        return switches == wanted and all(self._is_ready(name) for name in switches)

    def _is_ready(self, name: str) -> bool:
        state = self.state(name)
        shown = "profiles" in state["spec"].get("groups", {}).get("offload", {}).get("settings", {})
        return shown and s.ready_of(state).get("status") == "True"

    def _plot(self) -> None:
        panels = [_panel(name, one["status"]["results"]) for name, one in sorted(self.profiles().items())]
        path = ROOT / PICTURE
        path.parent.mkdir(exist_ok=True)
        draw(panels, API_VERSION, path)
        self.done.append(f"plot: {PICTURE} (model)")


def _table(rows: Iterable[Json]) -> Table:
    """Return throughput by setting and shape, with its spread."""
    by_setting: defaultdict[str, dict[str, str]] = defaultdict(dict)
    shapes: dict[str, None] = {}
    for row in rows:
        shape = _shape(row["folioBytes"], row["folios"])
        shapes[shape] = None
        spread = f" ± {row['standardDeviation'] / GIGA:.1f}" if row["samples"] > 1 else ""
        by_setting[_setting(row)][shape] = f"{row['bytesPerSecond'] / GIGA:.1f}{spread}"
    table = Table("GB/s (model)", *shapes, box=None, padding=(0, 1))
    for setting, speeds in sorted(by_setting.items()):
        table.add_row(setting, *(speeds.get(shape, "") for shape in shapes))
    return table


def _shape(folio_bytes: int, folios: int) -> str:
    return f"{folios} × {size_text(folio_bytes)}"


def _setting(row: Json) -> str:
    return "CPU" if row["engine"] == "CPU" else f"{row['engine']} {row['channels']}"


def _point(channels: int, row: Json) -> Point:
    speed, spread = row["bytesPerSecond"] / GIGA, row["standardDeviation"] / GIGA
    return Point(channels, speed, speed - spread, speed + spread)


def _panel(name: str, rows: list[Json]) -> Panel:
    """Return throughput over channels, a line for the longest batches of each folio size; plain copy is a level."""
    lines: list[Line] = []
    most = max((row["channels"] for row in rows), default=1)
    longest = {row["folioBytes"]: row["folios"] for row in sorted(rows, key=lambda row: int(row["folios"]))}
    for size, folios in sorted(longest.items()):
        mine = [row for row in rows if (row["folioBytes"], row["folios"]) == (size, folios)]
        text = _shape(size, folios)
        by_dma = sorted(_point(row["channels"], row) for row in mine if row["channels"])
        lines += [Line(f"DMA, {text}", by_dma)] if by_dma else []
        cpu = [_point(channels, row) for row in mine if not row["channels"] for channels in (1, most)]
        lines += [Line(f"CPU, {text}", cpu, Style.BARE)] if cpu else []
    return Panel(f"channels ({name}, model)", "GB/s", lines)


def play(tune: Tune) -> None:
    """Play the scenes."""
    tune.measure()
    tune.choose()
    tune.summary()


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; return the exit code."""
    argparse.ArgumentParser(
        prog="make demo-tune", description="Show how two hardware classes are measured and tuned"
    ).parse_args(arguments)
    return perform(CAST, lambda stage, console: play(Tune(stage, console)), "two fake kernels, two agents")


if __name__ == "__main__":
    sys.exit(main())
