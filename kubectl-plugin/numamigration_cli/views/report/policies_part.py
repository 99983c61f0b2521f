# SPDX-License-Identifier: Apache-2.0
"""Policies: how each stands, what to do, how to undo it, and when what happened."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final
from xml.etree.ElementTree import Element

from numamigration_api.machinery.clock import parse_timestamp, timestamp
from numamigration_api.vocabulary import NodeBucket
from numamigration_cli.text import duration, plural, since
from numamigration_cli.views.report.elements import element, frame, percent, preformatted, section, table
from numamigration_cli.views.report.facts import Report
from numamigration_cli.views.report.moments import Mark, Moment, Timeline
from numamigration_cli.views.status import PolicyRow, details
from numamigration_operator.core.objects import NodeCounts

LANE_PIXELS: Final = 30
AXIS_PIXELS: Final = 22
TICKS_SECONDS: Final = (60, 600, 3600, 6 * 3600, 86400, 7 * 86400, 30 * 86400, 365 * 86400)
TICK_ROOM: Final = 0.09
"""Of the axis, between two ticks."""
SHAPES: Final = {
    Mark.PLAIN: ("circle", {"r": "4"}),
    Mark.GOOD: ("path", {"d": "M-5 0L-1 4L6 -5", "fill": "none"}),
    Mark.BAD: ("path", {"d": "M-5 -5L5 5M-5 5L5 -5", "fill": "none"}),
}
"""Not by color alone."""


def policies(report: Report, now: datetime) -> Element:
    """Return the part of the page about policies."""
    rows = report.status.policies
    if not rows:
        return section("Policies", "policies", element("p", "There is no policy."))
    pairs = zip(rows, report.timelines, strict=True)
    return section("Policies", "policies", *(_policy(row, line, now) for row, line in pairs))


def _policy(row: PolicyRow, line: Timeline, now: datetime) -> Element:
    return element(
        "article",
        element("h3", row.policy, " ", element("small", f"Ready {row.ready}, {row.reason}")),
        element("p", row.summary),
        *([_partition(row.nodes)] if row.nodes is not None and row.nodes.matched else []),
        element("p", f"{row.meaning} Undo: ", element("code", row.undo)),
        element("h4", "Rollout timeline"),
        _strip(line, now),
        _moments(line, now),
        element(
            "details", element("summary", f"All that status says of {row.policy}"), preformatted(details(row, now))
        ),
    )


def _partition(nodes: NodeCounts) -> Element:
    counts = [(bucket, getattr(nodes, bucket)) for bucket in reversed(NodeBucket) if getattr(nodes, bucket)]
    words = ", ".join(f"{count} {bucket}" for bucket, count in counts)
    return element("div", _bar(counts, nodes.matched, words), element("p", f"{plural(nodes.matched, 'node')}: {words}"))


def _bar(counts: Sequence[tuple[str, int]], total: int, words: str) -> Element:
    parts, at = [], 0
    for bucket, count in counts:
        parts.append(element("rect", x=percent(at / total), width=percent(count / total), height="14", class_=bucket))
        at += count
    return element("svg", element("title", words), *parts, width="100%", height="14", role="img", class_="partition")


# --- when what happened ---------------------------------------------------------------------------------------------


def _strip(line: Timeline, now: datetime) -> Element | None:
    """Return a drawing with a lane for each thing that has a past; the list under it says the same in words."""
    if not line.moments:
        return None
    oldest = max(3600.0, _age(line.moments[0], now))
    lanes = list(dict.fromkeys(moment.lane for moment in line.moments))
    height = LANE_PIXELS * len(lanes) + AXIS_PIXELS
    drawn = sorted(line.moments, key=lambda moment: moment.mark is Mark.BAD)  # over what happened at the same time
    marks = [_mark(moment, lanes.index(moment.lane), now, oldest) for moment in drawn]
    drawing = element(
        "svg",
        element("title", f"{line.policy}: {plural(len(line.moments), 'moment')}, the list below says each"),
        *(part for number, lane in enumerate(lanes) for part in _lane(number, lane)),
        *_axis(oldest, height),
        *marks,
        width="100%",
        height=str(height),
        role="img",
        class_="timeline",
    )
    return frame(drawing, f"Timeline of {line.policy}")


def _age(moment: Moment, now: datetime) -> float:
    return max(0.0, (now - parse_timestamp(moment.at)).total_seconds())


def along(age: float, oldest: float) -> float:
    """Return where an age lies from 0, the oldest, to 1, now: what is recent gets more room."""
    return 0.98 * (1 - math.log1p(age / 60) / math.log1p(oldest / 60)) + 0.01


def _lane(number: int, name: str) -> Iterator[Element]:
    top = LANE_PIXELS * number
    yield element("text", name, x="0", y=str(top + 11))
    yield element("line", x1="0", x2="100%", y1=str(top + 20), y2=str(top + 20))


def _axis(oldest: float, height: int) -> Iterator[Element]:
    yield element("text", "now", x="100%", y=str(height - 4), text_anchor="end")
    drawn = 0.95
    for seconds in TICKS_SECONDS:
        at = along(seconds, oldest)
        if seconds < oldest and TICK_ROOM / 2 < at < drawn - TICK_ROOM:
            drawn = at
            yield element("line", x1=percent(at), x2=percent(at), y1="0", y2=str(height - AXIS_PIXELS), class_="tick")
            yield element("text", f"{duration(seconds)} ago", x=percent(at), y=str(height - 4), text_anchor="middle")


def _mark(moment: Moment, lane: int, now: datetime, oldest: float) -> Element:
    tag, attributes = SHAPES[moment.mark]
    shape = element(tag, element("title", f"{moment.at} {moment.text}"), **attributes)
    return element(
        "svg",
        shape,
        x=percent(along(_age(moment, now), oldest)),
        y=str(LANE_PIXELS * lane + 20),
        class_=f"mark {moment.mark}",
    )


def _time(at: str) -> Element:
    return element("time", timestamp(parse_timestamp(at)), datetime=at)


def _moments(line: Timeline, now: datetime) -> Element:
    if not line.moments:
        return element("p", "Nothing is known of its past.")
    rows = [(_time(moment.at), since(moment.at, now), moment.lane, moment.text) for moment in line.moments]
    left_out = [element("p", f"{plural(line.left_out, 'older moment')} left out.")] if line.left_out else []
    return element(
        "details",
        element("summary", f"{plural(len(line.moments), 'moment')} in words"),
        *left_out,
        table(f"What happened to {line.policy}", ("When", "Ago", "What", "How it went"), rows, class_="moments"),
    )
