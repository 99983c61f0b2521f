# SPDX-License-Identifier: Apache-2.0
"""Throughput: what the nodes of each kind have counted, drawn as far as objects have it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final
from xml.etree.ElementTree import Element

from numamigration_cli.text import NONE, plural
from numamigration_cli.views.report.elements import Part, element, percent, section, table
from numamigration_cli.views.report.facts import PlacedNode, Report
from numamigration_cli.views.report.fleet_part import kind_name, share_text
from numamigration_cli.views.report.traffic import BINS, Kind, Traffic, decimal, failed_share

WORST_MAX: Final = 10
FOLIOS_MIN: Final = 512
"""Below that a share says little; guardrails have the same default."""
HISTOGRAM_PIXELS: Final = 48
HONEST: Final = (
    "One look, no curve: objects hold the totals since an agent first saw its kernel, and the rate of each node's last"
    " report. Curves over time are on the dashboard that the chart brings."
)
KIND_HEAD: Final = (
    "Kind of node", "Folios/s, all", "Nodes by folios/s", "Median, most", "Migrated", "Failed", "Failed share",
    "Before the last change", "After",
)  # fmt: skip


def traffic(report: Report, _now: datetime) -> Element:
    """Return the part of the page about throughput."""
    kinds = {kind.number: kind for kind in report.kinds}
    told = [one for one in report.traffic if one.rate is not None or one.folios_migrated is not None]
    if not told:
        text = "No node counts folios: no kernel here has the counters, or no agent has reported yet."
        return section("Throughput", "throughput", element("p", text))
    most = max((one.failed_share or 0.0 for one in told), default=0.0)
    rows = [_row(kinds[one.kind], one, most) for one in told]
    return section(
        "Throughput",
        "throughput",
        element("p", HONEST),
        table("Folios copied, by kind of node", KIND_HEAD, rows, class_="traffic"),
        *_worst(report.nodes),
    )


def _row(kind: Kind, one: Traffic, most: float) -> Sequence[Part]:
    return (
        kind_name(kind),
        number(one.rate),
        _histogram(one),
        f"{number(one.rate_median)}, {number(one.rate_max)}" if one.measured else "",
        count(one.folios_migrated),
        count(one.folios_failed),
        _share(one.failed_share, most),
        *_compared(one),
    )


def number(value: float | None) -> str:
    """Return a rate with three digits or more."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def count(value: int | None) -> str:
    """Return a count with its thousands apart."""
    return "" if value is None else f"{value:,}"


def _compared(one: Traffic) -> Iterator[Part]:
    """Yield folios a second and node before and after a change, of the nodes that counted both."""
    if one.before is None or one.after is None:
        yield from (None, None)
        return
    most = max(one.before, one.after) or 1.0
    for value in (one.before, one.after):
        yield _bar(value / most, f"{number(value)} a node", plural(one.compared, "node"))


def _share(share: float | None, most: float) -> Part:
    """Return a share, with a bar that is full for the largest: of one in a thousand nothing would be seen."""
    return None if share is None else _bar(share / most if most else 0.0, share_text(share), "", "failed")


def _bar(share: float, text: str, note: str, color: str = "plain") -> Element:
    shown = element(
        "svg",
        element("rect", width=percent(share), height="8", class_=color),
        width="100%",
        height="8",
        aria_hidden="true",
    )
    return element("div", f"{text} ", element("small", note), shown, class_="bar")


def _histogram(one: Traffic) -> Part:
    """Return bars: how many nodes have which rate, from none to the most."""
    if not one.bins:
        return None
    most = max(one.bins)
    words = f"{plural(one.measured, 'node')}, from 0 to {number(one.rate_max)} folios a second"
    return element(
        "svg",
        element("title", words),
        *(_step(place, nodes, most, one.rate_max or 0.0) for place, nodes in enumerate(one.bins) if nodes),
        element("line", x1="0", x2="100%", y1=str(HISTOGRAM_PIXELS), y2=str(HISTOGRAM_PIXELS)),
        width="100%",
        height=str(HISTOGRAM_PIXELS + 1),
        role="img",
        class_="histogram",
    )


def _step(place: int, nodes: int, most: int, rate_max: float) -> Element:
    height = max(2, round(HISTOGRAM_PIXELS * nodes / most))
    span = f"{number(rate_max * place / BINS)} to {number(rate_max * (place + 1) / BINS)} folios a second"
    return element(
        "rect",
        element("title", f"{span}: {plural(nodes, 'node')}"),
        x=percent(place / BINS),
        width=percent(0.9 / BINS),
        y=str(HISTOGRAM_PIXELS - height),
        height=str(height),
        class_="plain",
    )


def _worst(nodes: Sequence[PlacedNode]) -> Iterator[Element]:
    """Yield the nodes with the largest share of failed folios, where any failed."""
    shares = [
        (share, node)
        for node in nodes
        if (share := failed_share(node.row.folios_migrated, node.row.folios_failed))
        and (node.row.folios_migrated or 0) + (node.row.folios_failed or 0) >= FOLIOS_MIN
    ]
    worst = sorted(shares, key=lambda pair: (-pair[0], pair[1].row.node))[:WORST_MAX]
    if worst:
        yield element("h3", "Most failed folios")
        yield table(
            f"Nodes with {FOLIOS_MIN} folios or more, largest failed share first",
            ("Node", "Failed share", "Failed", "Migrated", "Folios/s", "Kind"),
            (
                (
                    node.row.node,
                    _share(share, worst[0][0]),
                    count(node.row.folios_failed),
                    count(node.row.folios_migrated),
                    number(decimal(node.row.folios_per_second)) or NONE,
                    str(node.kind),
                )
                for share, node in worst
            ),
            class_="names",
        )
