# SPDX-License-Identifier: Apache-2.0
"""docs/kubectl-plugin.md shows what the plugin shows of the sample objects, in 80 columns."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from numamigration_cli.policyfile import BadFileError, read_policies
from numamigration_cli.text import columns, wrapped
from numamigration_cli.views.explain import KNOBS, explain, foot, groups, head
from numamigration_cli.views.plan import Objects, lines, plan, planned_policy
from numamigration_cli.views.status import above, below, status, table
from numamigration_operator.core.fleet_switch import Control
from tests.unit.cli_samples import (
    FULL,
    NOW,
    READY,
    ROLLED_BACK,
    asked,
    node,
    planned_state,
    policy,
    policy_document,
    state_document,
    viewed,
)

PAGE = Path(__file__).parents[2] / "docs" / "kubectl-plugin.md"
BLOCK = r"<!-- sample: {name} -->\n```console\n\$ [^\n]+\n(.*?)\n```"
BROKEN = """\
apiVersion: numamigration.dev/v1alpha1
kind: MigrationPolicy
metadata: {name: offload}
spec:
  nodeSelector: {}
  settings:
    offload:
      engine: Off
      chanels: 2
"""


def shown_status() -> list[str]:
    found = status([policy(status=ROLLED_BACK), policy("tiering", status=READY)], Control())
    return [
        *wrapped([*above(found), ""], 80),
        *columns(found.policies, table(NOW), width=80),
        *wrapped(below(found), 80),
    ]


def shown_node() -> list[str]:
    policies = [asked(), asked("loser", priority=50), asked("tiering", settings={"demotion": {"enabled": True}})]
    report = explain(viewed(FULL), {}, policies)
    told = wrapped([*head(report, NOW), *groups(report), ""], 80)
    return [*told, *columns(report.knobs, KNOBS, width=80), *wrapped(foot(report), 80)]


def shown_plan() -> list[str]:
    spec = policy_document()["spec"] | {"settings": {"offload": {"engine": "DMA", "channels": 8, "locality": "Local"}}}
    states = [planned_state(state_document(f"db-{number}")) for number in (1, 3, 4, 5)]
    nodes = [node(f"db-{number}") for number in range(1, 7)]
    found = plan(
        planned_policy("offload", spec, asked(), ""), Objects([asked()], nodes, [*states, planned_state(FULL)])
    )
    return wrapped(lines(found, every_name=False), 80)


def shown_problems() -> list[str]:
    with pytest.raises(BadFileError) as caught:
        read_policies(BROKEN)
    return f"error: {caught.value.told('policy.yaml')}".splitlines()


@pytest.mark.parametrize(
    ("name", "shown"),
    [("status", shown_status), ("explain", shown_node), ("plan", shown_plan), ("broken", shown_problems)],
)
def test_the_page_shows_what_the_command_shows(name: str, shown: Callable[[], list[str]]) -> None:
    found = re.search(BLOCK.format(name=name), PAGE.read_text(), re.DOTALL)

    assert found is not None
    assert found[1].splitlines() == shown()
