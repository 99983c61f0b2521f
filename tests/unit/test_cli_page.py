# SPDX-License-Identifier: Apache-2.0
"""docs/kubectl-plugin.md shows what the plugin shows of the sample objects, in 80 columns."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from numamigration_cli.policyfile import BadFileError, read_policies
from numamigration_cli.text import wrapped
from numamigration_cli.views.plan import Objects, lines, plan, planned_policy
from tests.unit.cli_samples import (
    FULL,
    asked,
    node,
    planned_state,
    policy_document,
    state_document,
)
from tests.unit.cli_shown import shown_node, shown_profile, shown_profiles, shown_status

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
    [
        ("status", shown_status),
        ("explain", shown_node),
        ("profiles", shown_profiles),
        ("profile", shown_profile),
        ("plan", shown_plan),
        ("broken", shown_problems),
    ],
)
def test_the_page_shows_what_the_command_shows(name: str, shown: Callable[[], list[str]]) -> None:
    found = re.search(BLOCK.format(name=name), PAGE.read_text(), re.DOTALL)

    assert found is not None
    assert found[1].splitlines() == shown()
