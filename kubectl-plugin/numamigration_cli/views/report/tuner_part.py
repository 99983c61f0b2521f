# SPDX-License-Identifier: Apache-2.0
"""The tuner: of each hardware class how fast every setting was, beside the plain copy by CPU, and which was chosen."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby, pairwise
from typing import Final
from xml.etree.ElementTree import Element

from numamigration_cli.text import plural, since
from numamigration_cli.views.profiles import GIGA, NO_RATES, ProfileReport, anew
from numamigration_cli.views.rates import Rate, gain_text
from numamigration_cli.views.report.elements import element, percent, section, table
from numamigration_cli.views.report.facts import Report
from numamigration_cli.views.report.fleet_part import kind_name
from numamigration_cli.views.report.traffic import Kind

TOP_PIXELS, FLOOR_PIXELS, AXIS_PIXELS = 18, 130, 20
"""Of a drawing: where its highest value lies, where zero does, and what is below that for words."""
LEFT, RIGHT = 0.15, 0.98
"""Of a drawing's width: between them lie the settings."""
NICE: Final = (1, 1.5, 2, 3, 4, 5, 6, 8, 10)
"""Where an axis may end, times a power of ten."""
HOW_TO_READ: Final = (
    "GB/s of real page migrations on one node of each class, by what one call moves (folios × their size) and DMA"
    " channels; each drawing has its own scale. The dashed line is the plain copy by CPU. The choice, one for all"
    " calls together, is green: a ring, or that line."
)
HEAD: Final = ("One call", "Setting", "GB/s", "±", "Samples", "Against CPU", "")


def tuning(report: Report, now: datetime) -> Element | None:
    """Return the part of the page about measured hardware classes; None when there are none."""
    if not report.profiles:
        return None
    known = {kind.key: kind for kind in report.kinds}
    return section("Tuner", "tuner", element("p", HOW_TO_READ), *(_profile(one, known, now) for one in report.profiles))


def _profile(report: ProfileReport, known: dict[tuple[str, str], Kind], now: datetime) -> Element:
    row = report.profile
    key = row.dialect, row.hardware_class
    name = kind_name(known[key]) if key in known else ", ".join(key)
    age, due = since(row.measured, now), anew(row, now)
    on = f" {age} ago on {plural(row.nodes, 'node')}" if age else ""
    return element(
        "article",
        element("h3", name, " ", element("small", f"{row.phase}{on}; measured anew: {due}")),
        element("p", row.message) if row.message else None,
        element("p", report.effect),
        *(_rates(name, report.rates) if report.rates else [element("p", NO_RATES)]),
    )


def _rates(name: str, found: Sequence[Rate]) -> Iterator[Element]:
    channels = sorted({one.measured.channels for one in found if not one.is_baseline})
    shapes = [list(group) for _, group in groupby(found, key=lambda one: one.shape)]
    yield element("div", *(_curve(shape, channels) for shape in shapes), class_="curves")
    rows = [_words(one) for one in found]
    caption = f"What was measured: {name}"
    summary = element("summary", f"{plural(len(rows), 'measurement')} in words")
    yield element("details", summary, table(caption, HEAD, rows, class_="names"))


def _words(one: Rate) -> tuple[str, ...]:
    speed, spread = _gigabytes(one.measured.bytes_per_second), _gigabytes(one.measured.standard_deviation)
    against = "" if one.is_baseline else gain_text(one.against)
    return one.shape, one.setting, speed, spread, str(one.measured.samples), against, "chosen" if one.chosen else " "


def _gigabytes(count: int) -> str:
    return f"{count / GIGA:.2f}"


def _curve(found: Sequence[Rate], channels: Sequence[int]) -> Element:
    """Return the drawing of one kind of call."""
    top = axis_end(max(one.measured.bytes_per_second + one.measured.standard_deviation for one in found))
    drawing = element(
        "svg",
        element("title", f"{found[0].shape}: GB/s by DMA channels; the table below says each"),
        *_axes(channels, top),
        *(_baseline(one, top) for one in found if one.is_baseline),
        *_engines([one for one in found if not one.is_baseline], channels, top),
        width="100%",
        height=str(FLOOR_PIXELS + AXIS_PIXELS),
        role="img",
    )
    return element("figure", drawing, element("figcaption", f"{found[0].shape}, by channels"))


def axis_end(most: float) -> float:
    """Return where an axis ends that has room for the largest value; 1 where all are zero."""
    if most <= 0:
        return 1.0
    step = 10.0 ** math.floor(math.log10(most))
    return next(factor * step for factor in NICE if factor * step >= most)


def _height(value: float, top: float) -> float:
    return round(FLOOR_PIXELS - (FLOOR_PIXELS - TOP_PIXELS) * min(1.0, max(0.0, value / top)), 1)


def _place(channels: int, all_channels: Sequence[int]) -> str:
    return percent(LEFT + (RIGHT - LEFT) * (all_channels.index(channels) + 0.5) / len(all_channels))


def _axes(channels: Sequence[int], top: float) -> Iterator[Element]:
    for value in (0.0, top / 2, top):
        y = _height(value, top)
        yield element("line", x1=percent(LEFT), x2=percent(RIGHT), y1=y, y2=y)
        yield element("text", f"{value / GIGA:g}", x=percent(LEFT - 0.02), y=y + 4, text_anchor="end")
    for one in channels:
        x, y = _place(one, channels), FLOOR_PIXELS + AXIS_PIXELS - 5
        yield element("text", str(one), x=x, y=y, text_anchor="middle")


def _baseline(one: Rate, top: float) -> Element:
    y = _height(one.measured.bytes_per_second, top)
    words = element("title", _told(one))
    return element("line", words, x1=percent(LEFT), x2=percent(RIGHT), y1=y, y2=y, class_=_class("copy", one))


def _engines(found: Sequence[Rate], channels: Sequence[int], top: float) -> Iterator[Element]:
    ordered = sorted(found, key=lambda one: (one.measured.engine, one.measured.channels))
    ends = [(_place(one.measured.channels, channels), _height(one.measured.bytes_per_second, top)) for one in ordered]
    for (one, (x1, y1)), (other, (x2, y2)) in pairwise(zip(ordered, ends, strict=True)):
        if one.measured.engine == other.measured.engine:
            yield element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="engine")
    for one, (x, y) in zip(ordered, ends, strict=True):
        speed, spread = one.measured.bytes_per_second, one.measured.standard_deviation
        bar = (_height(speed - spread, top), _height(speed + spread, top))
        yield element("line", x1=x, x2=x, y1=bar[0], y2=bar[1], class_="engine")
        yield element("circle", element("title", _told(one)), cx=x, cy=y, r="4", class_=_class("engine", one))


def _class(name: str, one: Rate) -> str:
    return f"{name} chosen" if one.chosen else name


def _told(one: Rate) -> str:
    _, setting, speed, spread, samples, against, chosen = _words(one)
    parts = (f"{setting}: {speed} GB/s ± {spread}", against, f"{samples} samples", chosen.strip())
    return ", ".join(filter(None, parts))
