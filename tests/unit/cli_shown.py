# SPDX-License-Identifier: Apache-2.0
"""What commands of the plugin show of the sample objects, as they put it together for a terminal."""

from __future__ import annotations

from collections import defaultdict, deque

from numamigration_cli.live import shown
from numamigration_cli.text import Paint, columns, wrapped
from numamigration_cli.views import profiles as of_profiles
from numamigration_cli.views.explain import KNOBS, explain, foot, groups, head
from numamigration_cli.views.nodes import Wanted, nodes
from numamigration_cli.views.nodes import table as node_table
from numamigration_cli.views.status import BAR_COLUMNS, History, Status, above, below, status, table
from numamigration_operator.core.fleet_switch import Control
from tests.unit.cli_samples import (
    DISPUTED,
    FULL,
    NOW,
    READY,
    ROLLED_BACK,
    UNKNOWN,
    asked,
    policy,
    profile,
    profile_document,
    viewed,
)
from tests.unit.report_scene import scene

RATES = (12.0, 40.0, 180.0, 220.0, 260.0, 240.0, 330.0, 350.2)


def plain(text: str, _: str) -> str:
    """Return a text in no color."""
    return text


def sample_status() -> Status:
    """Return a policy that was rolled back, and one that is well."""
    return status([policy(status=ROLLED_BACK), policy("tiering", status=READY)], Control())


def shown_status(width: int = 80, *, wide: bool = False, paint: Paint = plain) -> list[str]:
    """Return the lines of ``status``."""
    found = sample_status()
    return [
        *wrapped([*above(found), ""], width),
        *columns(found.policies, table(NOW), width=width, wide=wide, paint=paint),
        *wrapped(below(found), width),
    ]


def shown_watch(width: int = 80, *, paint: Paint = plain) -> list[str]:
    """Return the lines of ``status --watch`` after some looks."""
    found = sample_status()
    history: History = defaultdict(lambda: deque(maxlen=BAR_COLUMNS), {"offload": deque(RATES)})
    head = f"{NOW:%H:%M:%S} UTC   Ctrl-C ends"
    return [head, *shown(found, history, "", NOW, width, one=False, paint=paint)]


def shown_nodes(width: int = 80, *, wide: bool = False, paint: Paint = plain) -> list[str]:
    """Return the lines of ``nodes --ready False``."""
    rows = nodes(scene(60).nodes, Wanted(ready="False"))
    return columns(rows, node_table(NOW), width=width, wide=wide, paint=paint)


def shown_node(width: int = 80, *, paint: Paint = plain) -> list[str]:
    """Return the lines of ``explain``."""
    policies = [asked(), asked("loser", priority=50), asked("tiering", settings={"demotion": {"enabled": True}})]
    report = explain(viewed(FULL), {}, policies)
    told = wrapped([*head(report, NOW), *groups(report), ""], width)
    return [*told, *columns(report.knobs, KNOBS, width=width, paint=paint), *wrapped(foot(report), width)]


def shown_profiles(width: int = 80, *, wide: bool = False, paint: Paint = plain) -> list[str]:
    """Return the lines of ``profiles``."""
    rows = of_profiles.profiles(map(profile, (profile_document(), DISPUTED, UNKNOWN)), NOW)
    table = columns(rows, of_profiles.table(NOW), width=width, wide=wide, paint=paint)
    return [*table, *wrapped(of_profiles.below(rows, NOW), width)]


def shown_profile(width: int = 80, *, paint: Paint = plain) -> list[str]:
    """Return the lines of ``profiles`` about one."""
    report = of_profiles.explain(profile(profile_document()), NOW)
    nodes = columns(report.nodes, of_profiles.NODES, width=width, paint=paint)
    rates = columns(report.rates, of_profiles.RATES, width=width, paint=paint)
    return [*wrapped(of_profiles.head(report, NOW), width), "", *nodes, "", *rates]
