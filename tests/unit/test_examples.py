# SPDX-License-Identifier: Apache-2.0
"""Examples are policies that the models take, and the tutorials show them as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from numamigration_api.models import MigrationPolicy
from numamigration_api.vocabulary import API_VERSION, POLICY_KIND
from tests.testbed.pages import blocks

ROOT: Final = Path(__file__).parents[2]
EXAMPLES: Final = sorted((ROOT / "examples").glob("*.yaml"))
TUTORIALS: Final = {
    "tutorial-databases.md": "database-offload.yaml",
    "tutorial-virtual-machine-hosts.md": "virtual-machine-hosts.yaml",
    "tutorial-in-memory-computing.md": "in-memory-computing.yaml",
}


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    return document


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_a_policy_that_the_models_take(path: Path) -> None:
    document = read(path)

    assert (document["apiVersion"], document["kind"]) == (API_VERSION, POLICY_KIND)
    MigrationPolicy.model_validate_json(json.dumps({"spec": document["spec"]}), strict=True)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_accepts_no_risk_and_verifies_its_engine(path: Path) -> None:
    """People copy examples: what may cost data is for them to add."""
    spec = read(path)["spec"]

    assert "acceptedRisks" not in spec
    assert spec.get("verification") != "Off"


def test_examples_can_be_applied_beside_each_other() -> None:
    names = [read(path)["metadata"]["name"] for path in EXAMPLES]

    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize(("page", "example"), TUTORIALS.items())
def test_a_tutorial_shows_its_example_word_for_word(page: str, example: str) -> None:
    shown = [block.text for block in blocks(ROOT / "docs" / page) if block.mark == f"example: {example}"]

    assert shown == [(ROOT / "examples" / example).read_text()]


@pytest.mark.parametrize("page", TUTORIALS)
def test_a_tutorial_gives_a_reason_for_every_number_of_its_example(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    table = text.partition("## Why these numbers")[2]
    spec = read(ROOT / "examples" / TUTORIALS[page])["spec"]

    assert [value for value in numbers(spec) if value not in table] == []


def numbers(value: Any) -> list[str]:
    """Return every number in a policy, as it is written."""
    if isinstance(value, dict):
        return [number for inner in value.values() for number in numbers(inner)]
    if isinstance(value, list):
        return [number for inner in value for number in numbers(inner)]
    return [str(value)] if not isinstance(value, bool) and str(value)[:1].isdigit() else []
