# SPDX-License-Identifier: Apache-2.0
"""The fleet: a map with a cell for each node, the same as counts by kind of node, and as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Final
from xml.etree.ElementTree import Element

from numamigration_api.vocabulary import Reason
from numamigration_cli.text import plural, since
from numamigration_cli.views.reasons import meaning
from numamigration_cli.views.report.elements import Part, element, section, table
from numamigration_cli.views.report.facts import Band, Place, PlacedNode, Report
from numamigration_cli.views.report.traffic import Kind, failed_share

SHADES: Final = 4
"""Of a count in the table of kinds: a quarter of the kind's nodes each."""
PLACE_MEANING: Final = {
    Place.FAILED: "something is wrong there",
    Place.REFUSED: "a person must decide",
    Place.UNREACHABLE: "the agent has gone quiet",
    Place.PENDING: "under way, or held",
    Place.UNSUPPORTED: "the kernel cannot, or no agent is there",
    Place.READY: "as its policies ask",
    Place.UNTOUCHED: "no policy sets anything there",
}
NODE_HEAD: Final = (
    "Node", "Stands", "Reason", "Since", "Kind", "Offload", "Policies", "Folios/s", "Failed", "Reported", "Message"
)  # fmt: skip


def fleet(report: Report, now: datetime) -> Element:
    """Return the part of the page about all nodes."""
    nodes = report.nodes
    if not nodes:
        return section(
            "Fleet",
            "fleet",
            element("p", "There is no node state. Look: ", element("code", "kubectl numamigration doctor")),
        )
    return section(
        "Fleet",
        "fleet",
        element(
            "p",
            "A cell is a node. Worst stands first; the pointer shows which node, a click its row of the table.",
        ),
        _legend(report.bands, len(nodes)),
        *(_band(number, band, len(nodes)) for number, band in enumerate(report.bands)),
        element("h3", "By kind of node"),
        _kinds(report),
        _nodes(nodes, now),
    )


def _legend(bands: tuple[Band, ...], total: int) -> Element:
    return element(
        "ul", *(element("li", *_entry(number, band, total)) for number, band in enumerate(bands)), class_="legend"
    )


def _entry(number: int, band: Band, total: int) -> Iterator[Part]:
    yield swatch(band.place)
    yield element("a", band.reason, href=f"#band-{number}")
    yield f" {band.place}, {_share(len(band.nodes), total)}"


def swatch(place: Place) -> Element:
    """Return a spot of a place's color; what it says, words beside it say too."""
    return element("span", class_=f"swatch {place}", aria_hidden="true")


def _share(count: int, total: int) -> str:
    share = 100 * count / total
    return f"{count} ({share:.0f} %)" if share >= 1 or not count else f"{count} (below 1 %)"


def _band(number: int, band: Band, total: int) -> Element:
    count = plural(len(band.nodes), "node")
    return element(
        "div",
        element(
            "h3",
            swatch(band.place),
            f"{band.reason} ",
            element("small", f"{band.place}: {_share(len(band.nodes), total)}"),
        ),
        None if band.reason == Reason.AS_EXPECTED else element("p", meaning(band.reason), class_="meaning"),
        element(
            "div",
            *(_cell(node) for node in band.nodes),
            class_=f"cells {band.place}",
            role="img",
            aria_label=f"{count}: {band.place}, {band.reason}; the table of all nodes names them",
        ),
        class_="band",
        id=f"band-{number}",
    )


def _cell(node: PlacedNode) -> Element:
    told = "" if node.reason == Reason.AS_EXPECTED or not node.row.message else f": {node.row.message}"
    return element("i", title=f"{node.row.node}{told}")


def _kinds(report: Report) -> Element:
    counts = Counter((node.kind, node.place, node.reason) for node in report.nodes)
    head = [element("span", swatch(band.place), band.reason) for band in report.bands]
    rows: list[list[Part]] = [
        [
            kind_name(kind),
            str(kind.nodes),
            *(_count(counts[kind.number, band.place, band.reason], kind, band) for band in report.bands),
        ]
        for kind in report.kinds
    ]
    return table("Nodes by kind and reason", ["Kind of node", "Nodes", *head], rows, class_="matrix")


def kind_name(kind: Kind) -> str:
    """Return how people know a kind of node."""
    if not kind.dialect and not kind.hardware_class:
        return f"{kind.number}: not reported"
    return f"{kind.number}: " + ", ".join(filter(None, (kind.dialect, kind.hardware_class)))


def _count(count: int, kind: Kind, band: Band) -> Element:
    shade = -(-SHADES * count // kind.nodes)
    return element("td", str(count) if count else "·", class_=f"{band.place} shade-{shade}" if count else None)


def _nodes(nodes: list[PlacedNode], now: datetime) -> Element:
    return element(
        "details",
        element("summary", f"Table of all {plural(len(nodes), 'node')}"),
        element("label", "Rows with ", element("input", type="search", id="filter"), class_="scripted"),
        table("All nodes", NODE_HEAD, (_row(node, now) for node in nodes), id="nodes"),
        id="all-nodes",
    )


def _row(node: PlacedNode, now: datetime) -> list[Part]:
    row = node.row
    return [
        row.node,
        node.place,
        node.reason,
        since(row.since, now),
        str(node.kind),
        row.offload,
        ", ".join(row.policies),
        row.folios_per_second,
        share_text(failed_share(row.folios_migrated, row.folios_failed)),
        since(row.reported, now),
        row.message,
    ]


def share_text(share: float | None) -> str:
    """Return a share as people read it: some is never shown as none."""
    if share is None:
        return ""
    return f"{100 * share:.2g} %" if 0 < share < 0.01 else f"{100 * share:.1f} %".replace(".0 %", " %")
