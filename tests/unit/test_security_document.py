# SPDX-License-Identifier: Apache-2.0
"""Every claim of docs/security.md has a test, and its tables say what the code says.

That the tests are there says ``scripts/document_names.py``, for all pages.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from numamigration_agent.kernel.dialects import DIALECTS, KNOBS
from numamigration_agent.mounts import MOUNTS, Mount, mount_of
from tests.testbed.tables import read_table

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "security.md"
CITED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
PLAYERS = (
    "a stolen agent token",
    "a Pod creator in the agents' namespace",
    "a malicious policy author",
    "a compromised operator",
    "a hostile kernel file",
)


@pytest.mark.parametrize("player", PLAYERS)
def test_every_claim_about_who_takes_something_over_has_a_test_or_says_why_not(player: str) -> None:
    rows = read_table(DOCUMENT, player)

    assert len(rows) >= 3
    assert {row[player].split()[0] for row in rows} <= {"can", "cannot", "is", "ends", "gains"}
    assert [row[player] for row in rows if not (CITED.search(row["test"]) or row["test"].startswith("stated;"))] == []


@pytest.mark.parametrize("mount", MOUNTS, ids=lambda mount: mount.folder)
def test_the_folders_that_agents_write_are_those_of_the_knob_table(mount: Mount) -> None:
    rows = {row["folder of the host"].strip("`"): row for row in read_table(DOCUMENT, "folder of the host")}
    row = rows[mount.folder]
    groups = {str(knob.group) for knob in KNOBS if mount_of(knob.path) is mount}
    dialects = {str(one.dialect) for one in DIALECTS if any(mount_of(knob.path) is mount for knob in one.knobs)}
    words = re.findall(r"dialects? ([^)]*)\)", row["knobs"])

    assert row["writable by"].strip("`") == (mount.value or "always")
    assert set(re.findall(r"`(\w+)`", row["knobs"])) == groups
    assert set(words[0].split(", ") if words else ()) == dialects
