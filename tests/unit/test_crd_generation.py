# SPDX-License-Identifier: Apache-2.0
"""The CRD files: up to date, and within what the API server takes and can bound the cost of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from numamigration_api import generate

CRDS = Path(__file__).parents[2] / "crds"

Found = list[str]


def schemas(crd: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (path, schema) of every value of a kind."""
    yield from _schemas("", crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"])


def _schemas(path: str, schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path or ".", schema
    for name, inner in schema.get("properties", {}).items():
        yield from _schemas(f"{path}.{name}", inner)
    for key, suffix in (("items", "[]"), ("additionalProperties", "{}")):
        if key in schema:
            yield from _schemas(path + suffix, schema[key])


@pytest.fixture(params=sorted(generate.all_crds()))
def crd(request: pytest.FixtureRequest) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((CRDS / request.param).read_text())
    return loaded


def test_the_files_are_what_the_models_say() -> None:
    assert generate.main(["--check", str(CRDS)]) == 0


def test_generating_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    generate.main([str(tmp_path)])

    assert generate.main(["--check", str(tmp_path)]) == 0


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        pytest.param("maximum: 32", "-                        maximum: 33", id="edited by hand"),
        pytest.param(None, "+kind: CustomResourceDefinition", id="absent"),
    ],
)
def test_check_fails_on_a_stale_file_and_shows_the_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, shown: str
) -> None:
    generate.main([str(tmp_path)])
    stale = tmp_path / "migrationpolicies.yaml"
    if content is None:
        stale.unlink()
    else:
        stale.write_text(stale.read_text().replace(content, "maximum: 33", 1))

    assert generate.main(["--check", str(tmp_path)]) == 1

    told = capsys.readouterr().err
    assert any(line.replace(" ", "") == shown.replace(" ", "") for line in told.splitlines())
    assert "migrationpolicies.yaml: not what the models say; run `make generate`" in told
    assert "nodemigrationstates.yaml" not in told


def test_check_writes_nothing(tmp_path: Path) -> None:
    assert generate.main(["--check", str(tmp_path)]) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_schema_is_structural(crd: dict[str, Any]) -> None:
    forbidden = {"$ref", "$defs", "nullable", "anyOf", "oneOf", "allOf", "not", "title", "uniqueItems", "const"}

    assert [f"{path}: {key}" for path, schema in schemas(crd) for key in sorted(forbidden & set(schema))] == []


def test_every_value_has_a_type(crd: dict[str, Any]) -> None:
    assert [p for p, schema in schemas(crd) if not {"type", "x-kubernetes-int-or-string"} & set(schema)] == []


def test_no_default_is_null(crd: dict[str, Any]) -> None:
    assert [path for path, schema in schemas(crd) if "default" in schema and schema["default"] is None] == []


def test_every_string_is_bounded(crd: dict[str, Any]) -> None:
    strings = [
        (p, s) for p, s in schemas(crd) if s.get("type") == "string" or s.get("x-kubernetes-int-or-string") is True
    ]

    assert strings
    assert [path for path, schema in strings if not {"maxLength", "enum"} & set(schema)] == []


def test_every_number_is_bounded_below(crd: dict[str, Any]) -> None:
    numbers = [(path, schema) for path, schema in schemas(crd) if schema.get("type") == "integer"]

    assert numbers
    assert [path for path, schema in numbers if "minimum" not in schema] == []


def test_nothing_is_a_float(crd: dict[str, Any]) -> None:
    assert [path for path, schema in schemas(crd) if schema.get("type") == "number"] == []


def test_every_list_is_bounded_and_says_how_it_merges(crd: dict[str, Any]) -> None:
    lists = [(path, schema) for path, schema in schemas(crd) if schema.get("type") == "array"]

    assert lists
    assert [p for p, s in lists if "maxItems" not in s or "x-kubernetes-list-type" not in s or "items" not in s] == []


def test_no_list_of_a_node_states_spec_is_a_map(crd: dict[str, Any]) -> None:
    """Each item would be an entry of managedFields, and every push 1.5 times slower (docs/decisions/0003)."""
    maps = [path for path, schema in schemas(crd) if schema.get("x-kubernetes-list-type") == "map"]

    assert set(maps) <= {".status.conditions"}


def test_what_one_writer_owns_of_a_node_state_is_owned_as_a_whole() -> None:
    """Each field would be an entry of managedFields, and every apply dearer (docs/decisions/0032)."""
    crd = yaml.safe_load((CRDS / "nodemigrationstates.yaml").read_text())

    atomic = [path for path, schema in schemas(crd) if schema.get("x-kubernetes-map-type") == "atomic"]

    assert atomic == [".spec.groups", ".spec.observe", ".spec.probe", ".status"]


def test_every_map_is_bounded(crd: dict[str, Any]) -> None:
    maps = [(path, schema) for path, schema in schemas(crd) if "additionalProperties" in schema]

    assert [path for path, schema in maps if "maxProperties" not in schema or "properties" in schema] == []


def test_every_rule_has_a_message(crd: dict[str, Any]) -> None:
    rules = [(path, rule) for path, schema in schemas(crd) for rule in schema.get("x-kubernetes-validations", [])]

    assert rules
    assert [path for path, rule in rules if len(rule["message"]) < 15 or "self" in rule["message"].split()] == []


def test_every_field_that_people_write_is_described() -> None:
    """`kubectl explain` is where people look first."""
    policy = dict(schemas(generate.all_crds()["migrationpolicies.yaml"]))
    fields = [path for path in policy if path.startswith(".spec") and not path.endswith(("[]", "{}"))]

    assert [path for path in fields if "description" not in policy[path]] == []
