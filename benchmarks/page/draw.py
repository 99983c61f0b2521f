# SPDX-License-Identifier: Apache-2.0
"""Makes pictures of figures: the only place that knows matplotlib.

The background is clear, and every colour is of middle lightness, so that a picture reads on light and on dark pages.
Same data and same libraries make the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

from benchmarks.page.figures import Line, Panel, Style

INK: Final = "#7d8590"
"""Text and axes: contrast with white and with a dark page is 3.7 : 1 and 5 : 1."""
FAINT: Final = "#7d859055"
COLORS: Final = ("#2f81f7", "#d9730d", "#1a9e6c", "#a560e8", "#c2569b")
RED: Final = "#e5484d"
LINES: Final[dict[Style, dict[str, Any]]] = {
    Style.OURS: {"linestyle": "-", "marker": "o"},
    Style.BARE: {"linestyle": "--", "marker": "s", "color": INK},
    Style.TARGET: {"linestyle": ":", "marker": "", "color": RED, "linewidth": 2},
    Style.MARK: {"linestyle": "", "marker": "_", "color": RED, "markersize": 16, "markeredgewidth": 2},
    Style.GUIDE: {"linestyle": (0, (1, 3)), "marker": "", "color": INK},
}
SIZE_INCHES: Final = (4.6, 3.9)
"""Of one panel."""
DPI: Final = 150
HEADROOM: Final = 1.06
"""Of axes that begin at nothing, above the greatest number."""
BAR: Final = 0.8
"""Share of a category's width that its bars take."""
SETTINGS: Final[dict[Any, Any]] = {
    "svg.hashsalt": "numa-migration-operator",
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "lines.markersize": 4,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
}


def draw(panels: Sequence[Panel], digest: str, path: Path) -> None:
    """Draw one figure into a file.

    Args:
        panels: at least one.
        digest: of the data; the file holds it.
        path: of a PNG or SVG file, by its suffix.
    """
    with mpl.rc_context(SETTINGS):
        width, height = SIZE_INCHES
        canvas = Canvas(figsize=(width * max(len(panels), 1.5), height), layout="constrained")
        places = canvas.subfigures(1, len(panels), squeeze=False)[0]
        for place, panel in zip(places, panels, strict=True):
            _panel(place.add_subplot(), panel)
            labels = len(panel.lines) + len(panel.bars)
            place.legend(loc="outside lower center", ncols=2 if labels == 4 else 3)  # where it covers no data
        nameless = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        canvas.savefig(path, dpi=DPI, transparent=True, metadata={"Description": digest, **nameless})


def _panel(axes: Axes, panel: Panel) -> None:
    axes.set_title(panel.y, loc="left", fontsize=9)
    axes.set_xlabel(panel.x)
    axes.grid(visible=True, axis="y")
    if panel.bars:
        _bars(axes, panel)
    _lines(axes, panel)
    if panel.log_y:
        axes.set_yscale("log")
        _plain_numbers(axes.yaxis)
    else:
        axes.set_ylim(0, HEADROOM * axes.dataLim.y1)
        axes.yaxis.set_major_formatter(_plain)


def _lines(axes: Axes, panel: Panel) -> None:
    colors = iter(COLORS)
    for line in panel.lines:
        _line(axes, line, {"color": next(colors)} if line.style is Style.OURS else {}, steps=panel.steps)
    if not panel.bars:
        axes.set_xscale("log")
        _log_ticks(axes, panel)


def _line(axes: Axes, line: Line, color: dict[str, Any], *, steps: bool) -> None:
    xs, ys = [point.x for point in line.points], [point.y for point in line.points]
    style = {**LINES[line.style], **color}
    if steps:
        style["marker"] = ""
    [drawn] = axes.plot(xs, ys, **style, drawstyle="steps-post" if steps else "default", label=line.label)
    spread = [[p.y - p.low for p in line.points], [p.high - p.y for p in line.points]]
    if any(map(any, spread)):
        axes.errorbar(xs, ys, yerr=spread, fmt="none", ecolor=drawn.get_color(), capsize=2.5, elinewidth=1)


def _log_ticks(axes: Axes, panel: Panel) -> None:
    """Mark the numbers that were measured, or where these are too many, round ones."""
    if panel.steps:
        _plain_numbers(axes.xaxis)
        return
    marks = sorted({point.x for line in panel.lines for point in line.points})
    axes.set_xticks(marks, [f"{mark:,.0f}" for mark in marks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(marks[0] / 1.4, marks[-1] * 1.4)


def _plain(value: float, _: float) -> str:
    return f"{value:,g}"


def _plain_numbers(axis: Any) -> None:
    axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axis.set_major_formatter(_plain)
    axis.set_minor_formatter(NullFormatter())


def _bars(axes: Axes, panel: Panel) -> None:
    places, width = range(len(panel.categories)), BAR if panel.stacked else BAR / len(panel.bars)
    floor = [0.0] * len(panel.categories)
    for number, bars, color in zip(count(), panel.bars, COLORS, strict=False):
        shift = 0.0 if panel.stacked else (number - (len(panel.bars) - 1) / 2) * width
        axes.bar([at + shift for at in places], bars.values, width, bottom=floor, color=color, label=bars.label)
        if panel.stacked:
            floor = [low + value for low, value in zip(floor, bars.values, strict=True)]
    axes.set_xticks(list(places), panel.categories)
    axes.tick_params(axis="x", length=0)
