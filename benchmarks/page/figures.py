# SPDX-License-Identifier: Apache-2.0
"""The figures: which numbers each one shows. Plain data; ``draw`` makes pictures of it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from benchmarks.page.book import Book, Origin
from benchmarks.schema import Row
from benchmarks.targets import AIMS, CORE, FLEET, LATENCY, TUNER, Statistic, target_of

NODES: Final = "nodes"
EDIT_LAST: Final = "edit to written, last node"
PROCESSES: Final = ("operator", "API server", "etcd", "agents")
EVENT: Final = re.compile(r"(?P<kind>.+), (?P<policies>\d+) pol\.(?: apart)?, [\d,]+ nodes")


class Style(StrEnum):
    """What a line is."""

    OURS = "ours"
    BARE = "bare"
    TARGET = "target"
    MARK = "mark"
    """A target of single points, with nothing between them."""
    GUIDE = "guide"


class Point(NamedTuple):
    """One number: where, its median, and the least and the greatest of its runs."""

    x: float
    y: float
    low: float
    high: float


class Line(NamedTuple):
    """Points of one kind, by x."""

    label: str
    points: Sequence[Point]
    style: Style = Style.OURS


class Bars(NamedTuple):
    """One number for each category of its panel."""

    label: str
    values: Sequence[float]


class Panel(NamedTuple):
    """One pair of axes.

    Attributes:
        x: what is on the horizontal axis.
        y: what is on the vertical one, with its unit.
        lines, bars: one of both; over bars a line from -0.5 on, for they stand at 0, 1, …
        categories: of bars, in words.
        stacked: bars of a category stand on each other, else side by side.
        log_y: the vertical scale; that of numbers on the horizontal axis is logarithmic always.
        steps: lines go in steps, and have no marks.
    """

    x: str
    y: str
    lines: Sequence[Line] = ()
    bars: Sequence[Bars] = ()
    categories: Sequence[str] = ()
    stacked: bool = False
    log_y: bool = False
    steps: bool = False


class Figure(NamedTuple):
    """One row of the table of figures.

    Attributes:
        name: of its files.
        title: what it shows.
        benchmark: whose results it is made from.
        origin: how its numbers came about.
        panels: picks the data; none means that nothing of it was run.
    """

    name: str
    title: str
    benchmark: str
    origin: Origin
    panels: Callable[[Book], list[Panel]]


def digest(panels: Sequence[Panel], drawn_by: bytes) -> str:
    """Return what tells a picture from one of other data, or drawn in another way."""
    return hashlib.sha256(msgspec.json.encode(panels) + drawn_by).hexdigest()[:16]


# --- parts of panels


def _medians(rows: Iterable[Row]) -> list[Point]:
    return [Point(row.nodes, row.median, row.minimum, row.maximum) for row in rows]


def _ratios(rows: Iterable[Row]) -> list[Point]:
    return [Point(row.nodes, row.ratio, row.ratio, row.ratio) for row in rows if row.ratio is not None]


def _flat(label: str, points: Iterable[tuple[float, float]], style: Style) -> Line:
    return Line(label, [Point(x, y, y, y) for x, y in points], style)


def _targets(scenario: str, metric: str, nodes: Sequence[float], of: Statistic = Statistic.MEDIAN) -> list[Line]:
    """Return what fleets of these sizes are held against, as a line; none when they are not."""
    found = [(n, target_of(scenario, metric, int(n))) for n in nodes]
    points = [(n, target.at_most) for n, target in found if target and target.of is of]
    return [_flat("target", points, Style.TARGET if len(points) > 1 else Style.MARK)] if points else []


def _drawn(panel: Panel) -> list[Panel]:
    """Return a panel without lines that cannot be drawn; none without a line of ours."""
    lines = [line for line in panel.lines if len(line.points) > (line.style is Style.GUIDE)]
    return [panel._replace(lines=lines)] if any(line.style is Style.OURS for line in lines) else []


def _with_target(book: Book, y: str, scenario: str, metric: str, label: str) -> list[Panel]:
    points = _medians(book.of_fleets(scenario, metric))
    return _drawn(Panel(NODES, y, [Line(label, points), *_targets(scenario, metric, [point.x for point in points])]))


# --- the figures' data


def _edit(book: Book) -> list[Panel]:
    ours = _medians(book.of_fleets("edit", EDIT_LAST))
    bare = _medians(book.of_fleets("edit", f"bare: {EDIT_LAST}"))
    paced = _medians(book.of_fleets("paced", EDIT_LAST))
    lines = [Line("unpaced", ours), Line("at the default pace", paced), Line("bare apply loop", bare, Style.BARE)]
    return _drawn(Panel(NODES, "last node written, s", lines, log_y=True))


def _beside_bare(book: Book) -> list[Panel]:
    kinds = (("edit", EDIT_LAST, "edit, by bare applies"), ("restart", "lease to ready", "restart, by bare lists"))
    panels = []
    for scenario, metric, y in kinds:
        points = _ratios(book.of_fleets(scenario, metric))
        targets = _targets(scenario, metric, [point.x for point in points], Statistic.RATIO)
        even = _flat("as fast as bare", [(point.x, 1.0) for point in points], Style.GUIDE)
        panels += _drawn(Panel(NODES, f"{y}, ×", [Line("product", points), *targets, even]))
    return panels


FAILOVER: Final = ("killed to lease", "lease to ready", "ready to last node written")


def _failover(book: Book) -> list[Point]:
    """Return kill to last node: three parts of one run, one after the other."""
    parts = zip(*(book.of_fleets("failover", metric) for metric in FAILOVER), strict=False)
    sums = [(rows[0].nodes, sum(row.median for row in rows)) for rows in parts]
    return [Point(nodes, seconds, seconds, seconds) for nodes, seconds in sums]


def _growth(book: Book) -> list[Panel]:
    kinds = (
        ("first install", "install", "lease to written"),
        ("edit", "edit", "edit to written"),
        ("fleet switch to off", "switch-off", "switch to written"),
        ("deletion", "delete", "deletion to written"),
    )
    lines = [Line(name, _medians(book.of_fleets(scenario, f"{what}, last node"))) for name, scenario, what in kinds]
    lines.append(Line("failover, from the kill", _failover(book)))
    if edits := lines[1].points:
        rate = edits[-1].y / edits[-1].x
        lines.append(_flat("linear", [(point.x, rate * point.x) for point in edits], Style.GUIDE))
    return _drawn(Panel(NODES, "last node written, s", lines, log_y=True))


def _operator(book: Book) -> list[Panel]:
    metric, cpu = "peak RSS, operator", _medians(book.of_fleets("edit", "CPU, operator"))
    kinds = (("install", "install"), ("edit", "edit"), ("steady", "steady"))
    lines = [Line(name, _medians(book.of_fleets(scenario, metric))) for name, scenario in kinds]
    marks = [(aim.nodes, aim.target.at_most) for aim in AIMS if aim.metric == metric and aim.nodes in book.fleets]
    memory = Panel(NODES, "operator, peak RSS, MiB", [*lines, _flat("target", marks, Style.MARK)])
    linear = [_flat("linear", [(p.x, cpu[-1].y / cpu[-1].x * p.x) for p in cpu], Style.GUIDE)] if cpu else []
    time = Panel(NODES, "operator, CPU of one edit, s", [Line("edit", cpu), *linear], log_y=True)
    return [*_drawn(memory), *_drawn(time)]


def _steady(book: Book) -> list[Panel]:
    return [
        *_with_target(book, "writes, 1/s", "steady", "writes", "operator and agents"),
        *_with_target(book, "operator, CPU, % of a core", "steady", "operator CPU", "operator"),
    ]


def _processes(book: Book) -> list[Panel]:
    kinds = [
        (nodes, who, {row.metric: row.median for row in rows})
        for nodes in book.fleets
        if (rows := book.rows(f"{FLEET}-{nodes}", "edit"))
        for who in ("", ", bare")
    ]
    bars = [
        Bars(process, [1000 * found.get(f"CPU, {process}{who}", 0.0) / nodes for nodes, who, found in kinds])
        for process in PROCESSES
    ]
    categories = [f"{nodes:,}\n{'bare' if who else 'product'}" for nodes, who, _ in kinds]
    return [Panel(NODES, "CPU, ms per node written", (), bars, categories, stacked=True)] if kinds else []


def _core(book: Book) -> list[Panel]:
    found = [(EVENT.fullmatch(row.metric), row) for row in book.rows(CORE, CORE)]
    events = [(match["kind"], int(match["policies"]), row) for match, row in found if match]
    if not events:
        return []
    kinds, least = list(dict.fromkeys(kind for kind, _, _ in events)), min(policies for _, policies, _ in events)
    nodes, few = (
        sorted({row.nodes for _, _, row in events}),
        {(k, row.nodes): row for k, n, row in events if n == least},
    )
    bars = [Bars(f"{n:,} nodes", [few[kind, n].median for kind in kinds]) for n in nodes]
    counts = [
        Line(kind, [Point(n, row.median, row.minimum, row.maximum) for k, n, row in events if (k, row.nodes) == key])
        for kind in kinds
        for key in [(kind, nodes[-1])]
    ]
    aim = max(row.target.at_most for _, _, row in events if row.target)
    width = _flat("target", [(-0.5, aim), (len(kinds) - 0.5, aim)], Style.TARGET)
    above = _flat("target", [(point.x, aim) for point in counts[0].points], Style.TARGET)
    names, y = [kind.replace(" ", "\n", 1) for kind in kinds], "CPU of one event, µs"
    return [
        Panel(f"kind of event, {least} policy", y, [width], bars, names),
        *_drawn(Panel(f"policies, {nodes[-1]:,} nodes", y, [*counts, above], log_y=True)),
    ]


def _policies(book: Book) -> list[Panel]:
    kinds = (
        ("edit of one to written{}, last node", "edit of one policy, last node written, s"),
        ("lease to ready{}", "restart, lease to ready, s"),
        ("peak RSS, operator{}", "operator, peak RSS, MiB"),
    )
    return [
        panel
        for metric, y in kinds
        for panel in _drawn(
            Panel("policies beside one for all nodes", y, [_by_policies(book, n, metric) for n in book.fleets])
        )
    ]


def _by_policies(book: Book, nodes: int, metric: str) -> Line:
    """Return one metric of one fleet by the number of policies, which its name tells."""
    found = re.compile(re.escape(metric).replace(r"\{\}", r", (\d+) policies"))
    rows = [(found.fullmatch(row.metric), row) for row in book.rows(f"{FLEET}-{nodes}", "policies")]
    points = [Point(int(match[1]), row.median, row.minimum, row.maximum) for match, row in rows if match]
    return Line(f"{nodes:,} nodes", sorted(points))


def _latency(book: Book) -> list[Panel]:
    lines = [
        Line(label, _shares(row), style)
        for label, metric, style in (
            ("product", "edit to kernel file", Style.OURS),
            ("bare chain", "edit to kernel file, bare", Style.BARE),
        )
        if (row := book.row(LATENCY, LATENCY, metric))
    ]
    return _drawn(Panel("edit to kernel file, ms", "share of edits, %", lines, steps=True))


def _shares(row: Row) -> list[Point]:
    """Return which share of samples, in percent, each one does not exceed."""
    shares = [(x, 100 * (n + 1) / row.runs) for n, x in enumerate(sorted(row.samples))]
    return [Point(x, y, y, y) for x, y in shares]


DECIDERS: Final = ("tuner", "fixed 4", "fixed 16", "full grid", "random search", "successive halving")
SYSTEMS: Final = ("published", "unseen")
NOISE: Final = re.compile(r"mean regret, (?P<systems>\w+), × (?P<noise>\d+)")


def _tuner(book: Book) -> list[Panel]:
    found = {row.metric: row.median for row in book.rows(TUNER, TUNER)}
    if not found:
        return []
    names, kinds = [name.replace(" ", "\n", 1) for name in DECIDERS], ("mean regret", "slower than no offload")
    panels = [
        Panel(
            "who decides, noise × 1",
            f"{kind}, % of throughput" if kind == "mean regret" else f"{kind}, % of decisions",
            bars=[Bars(of, [found[f"beside: {kind}, {name}, {of}"] for name in DECIDERS]) for of in SYSTEMS],
            categories=names,
        )
        for kind in kinds
    ]
    matches = [(match, value) for metric, value in found.items() if (match := NOISE.fullmatch(metric))]
    lines = [
        _flat(of, [(int(match["noise"]), value) for match, value in matches if match["systems"] == of], Style.OURS)
        for of in SYSTEMS
    ]
    return [*panels, *_drawn(Panel("published spread, times", "tuner, mean regret, % of throughput", lines))]


FIGURES: Final = (
    Figure("edit", "From an edit of one policy to the last node's spec written", FLEET, Origin.MEASURED, _edit),
    Figure("beside-bare", "Product beside bare loops of the same run", FLEET, Origin.COMPUTED, _beside_bare),
    Figure("growth", "How time grows with the fleet", FLEET, Origin.MEASURED, _growth),
    Figure("operator", "What the operator takes", FLEET, Origin.MEASURED, _operator),
    Figure("steady", "Nothing is asked for, statistics move", FLEET, Origin.MEASURED, _steady),
    Figure("processes", "Who computes while one edit reaches the fleet", FLEET, Origin.MEASURED, _processes),
    Figure("policies", "How cost grows with the number of policies", FLEET, Origin.MEASURED, _policies),
    Figure("core", "One node event in the operator's core", CORE, Origin.MEASURED, _core),
    Figure("latency", "From an edit to the kernel file of one node", LATENCY, Origin.SIMULATED, _latency),
    Figure("tuner", "The tuner beside other ways to choose", TUNER, Origin.MODEL, _tuner),
)
"""In docs/performance.md each stands above the text that explains it (page.md)."""
