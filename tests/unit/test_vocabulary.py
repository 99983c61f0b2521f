# SPDX-License-Identifier: Apache-2.0
"""The shared words: complete, explained, and the same in the CRDs."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from numamigration_api import vocabulary as v
from numamigration_api.generate import structural
from numamigration_api.models import MigrationPolicy, MigrationProfile, NodeMigrationState
from numamigration_api.models.node_state import Groups, GroupStatuses
from numamigration_api.models.policy import NodeCounts
from numamigration_api.models.settings import Settings

SELECTOR_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")  # Kubernetes' words, not ours
# Names of fields, keys of condition lists, a word of the control ConfigMap, and one of annotations.
NOT_IN_THE_CRD = {v.CellVerdict, v.SettingsGroup, v.PolicyCondition, v.NodeCondition, v.FleetSwitch}

ENUMS = {
    member for _, member in inspect.getmembers(v, inspect.isclass) if issubclass(member, StrEnum) and member != StrEnum
}


def nodes(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
    for inner in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from nodes(inner)


@cache
def crd_enums() -> frozenset[tuple[str, ...]]:
    schemas = [structural(kind) for kind in (MigrationPolicy, NodeMigrationState, MigrationProfile)]
    found = (node["enum"] for schema in schemas for node in nodes(schema) if isinstance(node.get("enum"), list))
    return frozenset(map(tuple, found))


def test_every_reason_tells_what_to_do() -> None:
    assert set(v.REASON_MEANING) == set(v.Reason)


def test_every_risk_tells_what_may_happen() -> None:
    assert set(v.RISK_MEANING) == set(v.AcceptedRisk)


@pytest.mark.parametrize("meaning", [*v.REASON_MEANING.values(), *v.RISK_MEANING.values()])
def test_a_meaning_is_one_line_of_sentences(meaning: str) -> None:
    assert re.fullmatch(r"[A-Z0-9].{9,110}\.", meaning)


@pytest.mark.parametrize("reason", v.Reason)
def test_a_reason_is_a_camel_case_word_that_kubernetes_takes(reason: v.Reason) -> None:
    """metav1.Condition: ^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$."""
    assert re.fullmatch(r"([A-Z][a-z]*)+", reason)
    assert len(reason) <= 64


@pytest.mark.parametrize("enum", sorted(ENUMS, key=repr))
def test_every_enum_says_what_it_is_for(enum: type[StrEnum]) -> None:
    assert enum.__doc__
    assert enum.__doc__ != StrEnum.__doc__


@pytest.mark.parametrize(
    "path",
    [*sorted((Path(v.__file__).parent / "machinery").glob("*.py")), Path(v.__file__)],
    ids=lambda path: path.name,
)
def test_only_the_standard_library_is_imported(path: Path) -> None:
    """The agent imports these modules and runs with host rights."""
    imported = [
        name.split(".")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or "."]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    ]

    ours = [["numamigration_api", "vocabulary"], ["numamigration_api", "machinery"]]
    assert [name for name in imported if name[0] not in sys.stdlib_module_names and name[:2] not in ours] == []


def test_every_enum_of_the_crds_is_a_whole_enum_of_the_vocabulary() -> None:
    words = {tuple(member.value for member in enum) for enum in ENUMS} | {SELECTOR_OPERATORS}

    assert crd_enums() - words == set()


def test_every_enum_of_the_vocabulary_is_in_the_crds() -> None:
    unused = {enum for enum in ENUMS if tuple(member.value for member in enum) not in crd_enums()}

    assert unused == NOT_IN_THE_CRD


@pytest.mark.parametrize("model", [Settings, Groups, GroupStatuses])
def test_settings_groups_are_the_fields_wherever_groups_are_named(model: type[Settings]) -> None:
    assert [field.alias for field in model.model_fields.values()] == list(v.SettingsGroup)


def test_the_buckets_of_nodes_are_the_counts_of_the_status() -> None:
    """Promise 11: different words with different counts."""
    assert {field.alias for field in NodeCounts.model_fields.values()} == {"matched", *v.NodeBucket}
