# SPDX-License-Identifier: Apache-2.0
"""HTML and SVG as trees of elements: what is text stays text, whatever it says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final
from xml.etree.ElementTree import Element, tostring

from numamigration_cli.text import NONE, printable

Part = Element | str | None
"""An element, or text; None is nothing."""
DOCTYPE: Final = "<!doctype html>\n"


def element(tag: str, *inside: Part, **attributes: str | float | None) -> Element:
    """Return an element.

    Args:
        tag: its name.
        inside: what stands in it, in order.
        attributes: by name, ``class_`` is class and ``aria_label`` is aria-label; None is left out.
    """
    named = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items() if value is not None}
    made = Element(tag, {name: printable(str(value)) for name, value in named.items()})
    for part in inside:
        if isinstance(part, Element):
            made.append(part)
        elif part:
            _append_text(made, printable(part))
    return made


def verbatim(tag: str, code: str) -> Element:
    """Return a style or script element, whose text is no text but code: it may only be our own."""
    made = Element(tag)
    made.text = code
    return made


def preformatted(lines: Iterable[str], **attributes: str) -> Element:
    """Return lines as a terminal has them, each on one line whatever it says."""
    made = element("pre", **attributes)
    made.text = "\n".join(map(printable, lines))
    return made


def frame(inside: Element, label: str) -> Element:
    """Return a place that scrolls by itself when what is in it is too wide."""
    return element("div", inside, class_="frame", tabindex="0", role="region", aria_label=label)


def _append_text(made: Element, text: str) -> None:
    if len(made):
        made[-1].tail = (made[-1].tail or "") + text
    else:
        made.text = (made.text or "") + text


def document(html: Element) -> str:
    """Return a whole document's text."""
    return DOCTYPE + tostring(html, encoding="unicode", method="html") + "\n"


def table(caption: str, head: Sequence[Part], rows: Iterable[Sequence[Part]], **attributes: str) -> Element:
    """Return a table whose first column names the rows, in a frame that scrolls when it is too narrow."""
    made = element(
        "table",
        element("caption", caption),
        element("thead", element("tr", *(element("th", part, scope="col") for part in head))),
        element("tbody", *(_row(row) for row in rows)),
        **attributes,
    )
    return frame(made, caption)


def _row(cells: Sequence[Part]) -> Element:
    first, *others = (part if isinstance(part, Element) else part or NONE for part in cells)
    return element("tr", _cell("th", first, scope="row"), *(_cell("td", part) for part in others))


def _cell(tag: str, part: Part, **attributes: str) -> Element:
    """Return a cell; what is one already stays as it is."""
    if isinstance(part, Element) and part.tag in {"td", "th"}:
        return part
    return element(tag, part, **attributes)


def bullets(items: Iterable[Part], **attributes: str) -> Element:
    """Return a list."""
    return element("ul", *(element("li", item) for item in items), **attributes)


def section(title: str, name: str, *inside: Part) -> Element:
    """Return a section of the page, to which ``#name`` leads."""
    return element(
        "section", element("h2", title, id=f"{name}-title"), *inside, id=name, aria_labelledby=f"{name}-title"
    )


def percent(share: float) -> str:
    """Return a place or length along an axis from 0 to 1, as SVG has it at any width."""
    return f"{100 * min(1.0, max(0.0, share)):.2f}%"
