# SPDX-License-Identifier: Apache-2.0
"""Rows of text: columns as kubectl has them, durations as people say them.

Not rich's table, which takes seconds for 5,000 rows, where these take some hundredths of one
(``python -m benchmarks.plugin --columns``).
"""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Generic, NamedTuple, TypeVar

from numamigration_api.machinery.clock import parse_timestamp
from numamigration_api.machinery.conditions import shorten

GAP: Final = "  "
NONE: Final = "-"
TONES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("True", "ready", "Ready", "ok", "Applied", "AlreadySet", "Proven", "run", "Measured"), "green"),
    **dict.fromkeys(("False", "failed", "Failed", "wrong", "Rejected", "off", "restore", "Disputed"), "red"),
    **dict.fromkeys(
        ("Unknown", "pending", "Pending", "refused", "Refused", "note", "hold", "Clamped", "Measuring", "Edited"),
        "yellow",
    ),
}
"""Color of a cell that says exactly this. Color never says what words do not."""

Row = TypeVar("Row")
Paint = Callable[[str, str], str]


class Column(NamedTuple, Generic[Row]):
    """A column of a table.

    Attributes:
        cell: what stands there of a row; empty is shown as ``-``.
        wide: only with ``-o wide``.
        least: how narrow it may get, cut in its middle, where the table is too wide; 0: it stays whole.
    """

    name: str
    cell: Callable[[Row], Any]
    wide: bool = False
    least: int = 0


def printable(text: str) -> str:
    """Return `text` with nothing in it that moves a cursor or changes a color: status comes from many hands."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def columns(
    rows: Sequence[Row],
    table: Sequence[Column[Row]],
    *,
    wide: bool = False,
    width: int | None = None,
    paint: Paint = lambda text, _: text,
) -> list[str]:
    """Return a table's lines, the head first.

    Args:
        rows: what it is about.
        table: its columns.
        wide: with those that are for ``-o wide``.
        width: of the terminal: what is longer is cut at its end; None cuts nothing.
        paint: colors a text.
    """
    shown = [column for column in table if wide or not column.wide]
    cells = [[printable(_text(column.cell(row))) for column in shown] for row in rows]
    head = [column.name for column in shown]
    widths = [max(map(_columns, texts)) for texts in zip(head, *cells, strict=True)]
    cut = None if wide else width
    for place, size in _narrowed(shown, widths, cut):
        cells = [[*texts[:place], middle(texts[place], size), *texts[place + 1 :]] for texts in cells]
        widths[place] = size
    return [_line(texts, widths, cut, paint) for texts in (head, *cells)]


def _narrowed(shown: Sequence[Column[Row]], widths: Sequence[int], width: int | None) -> Iterator[tuple[int, int]]:
    """Yield place and new width of the columns that give way."""
    excess = 0 if width is None else sum(widths) + len(GAP) * (len(widths) - 1) - width
    for place, (column, size) in enumerate(zip(shown, widths, strict=True)):
        given = min(excess, size - column.least) if column.least else 0
        if given > 0:
            excess -= given
            yield place, size - given


def middle(text: str, columns_max: int) -> str:
    """Return a name that fits: its beginning and its end, by which names differ."""
    if len(text) <= columns_max:
        return text
    end = (columns_max - 1) // 2
    return f"{text[: columns_max - 1 - end]}…{text[len(text) - end :]}"


def wrapped(lines: Iterable[str], width: int | None) -> list[str]:
    """Return lines that fit, broken between words; what is broken goes on further in. None breaks nothing."""
    shown = [printable(line) for line in lines]
    if width is None:
        return shown
    return [part for line in shown for part in _broken(line, width)]


def _broken(line: str, width: int) -> list[str]:
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.wrap(line, width, subsequent_indent=indent, break_on_hyphens=False) or [""]


def _text(value: Any) -> str:
    return NONE if value is None or value == "" else str(value)


def _line(texts: Sequence[str], widths: Sequence[int], width: int | None, paint: Paint) -> str:
    parts, left = [], width
    for text, size in zip(texts, widths, strict=True):
        fitting = text if left is None or _columns(text) <= left else shorten(text, max(left, 1))
        painted = paint(fitting, TONES[text]) if text in TONES else fitting
        parts.append(painted + " " * max(0, size - _columns(fitting)))
        left = None if left is None else left - size - len(GAP)
        if left is not None and left <= 0:
            break
    return GAP.join(parts).rstrip()


def _columns(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(1 + (unicodedata.east_asian_width(one) in "WF") - (unicodedata.combining(one) > 0) for one in text)


def since(moment: str | None, now: datetime) -> str:
    """Return how long ago a timestamp is, as kubectl says ages; empty when there is none."""
    if not moment:
        return ""
    try:
        return duration((now - parse_timestamp(moment)).total_seconds())
    except ValueError:
        return ""


def duration(seconds: float) -> str:
    """Return a duration in its largest unit that has at least two of them."""
    whole = max(0, int(seconds))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if whole >= 2 * size:
            return f"{whole // size}{unit}"
    return f"{whole}s"


def names(found: Sequence[str], most: int = 3) -> str:
    """Return the first names of many."""
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + more


def plural(count: int, word: str) -> str:
    """Return ``1 node``, ``2 nodes``, ``3 policies``, ``4 classes``."""
    if count == 1:
        return f"1 {word}"
    if word.endswith("y"):
        return f"{count} {word[:-1]}ies"
    return f"{count} {word}es" if word.endswith("s") else f"{count} {word}s"
