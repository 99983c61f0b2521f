# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from numamigration_api.definitions import definitions
from numamigration_operator.core.crd_order import Found, Standing, compare, paths

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "mode": {"type": "string", "enum": ["Apply", "Plan"]},
                "rails": {"type": "array", "items": {"type": "object", "properties": {"max": {"type": "string"}}}},
                "labels": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {}}}},
            },
        }
    },
}
SPEC = ("properties", "spec", "properties")


def crd(*edits: tuple[tuple[str, ...], Any], versions: tuple[str, ...] = ("v1alpha1",), **spec: Any) -> dict[str, Any]:
    schema = copy.deepcopy(SCHEMA)
    for path, value in edits:
        at = schema
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value
    return {
        "spec": {
            "group": "numamigration.dev",
            "scope": "Cluster",
            "names": {"kind": "MigrationPolicy", "plural": "migrationpolicies"},
            "versions": [{"name": name, "schema": {"openAPIV3Schema": schema}} for name in versions],
        }
        | spec
    }


def test_a_crd_that_is_not_there_is_absent() -> None:
    assert compare(None, crd()) == Found(Standing.ABSENT)


def test_the_same_crd_is_known() -> None:
    assert compare(crd(), crd()) == Found(Standing.KNOWN)


def test_the_paths_of_a_crd_are_its_versions_properties_and_words() -> None:
    assert paths(crd()) == {
        "v1alpha1",
        "v1alpha1.spec",
        "v1alpha1.spec.mode",
        "v1alpha1.spec.mode=Apply",
        "v1alpha1.spec.mode=Plan",
        "v1alpha1.spec.rails",
        "v1alpha1.spec.rails[]",
        "v1alpha1.spec.rails[].max",
        "v1alpha1.spec.labels",
        "v1alpha1.spec.labels.*",
        "v1alpha1.spec.labels.*.a",
    }


GROWN = [
    pytest.param(crd(((*SPEC, "fresh"), {"type": "string"})), "v1alpha1.spec.fresh", id="property"),
    pytest.param(
        crd(((*SPEC, "rails", "items", "properties", "min"), {})), "v1alpha1.spec.rails[].min", id="property of items"
    ),
    pytest.param(
        crd(((*SPEC, "labels", "additionalProperties", "properties", "b"), {})),
        "v1alpha1.spec.labels.*.b",
        id="property of values",
    ),
    pytest.param(crd(((*SPEC, "mode", "enum"), ["Apply", "Plan", "Off"])), "v1alpha1.spec.mode=Off", id="word"),
    pytest.param(crd(versions=("v1alpha1", "v1beta1")), "v1beta1", id="version"),
]


@pytest.mark.parametrize(("grown", "path"), GROWN)
def test_a_stored_crd_with_more_than_ours_is_newer_and_it_is_said_by_what(grown: dict[str, Any], path: str) -> None:
    found = compare(grown, crd())

    assert found.standing is Standing.NEWER
    assert path in found.why


@pytest.mark.parametrize(("grown", "path"), GROWN)
def test_a_stored_crd_with_less_than_ours_is_known(grown: dict[str, Any], path: str) -> None:
    assert path in paths(grown)
    assert compare(crd(), grown) == Found(Standing.KNOWN)


def test_one_property_that_ours_lacks_is_enough_however_much_ours_has_beside() -> None:
    theirs, ours = crd(((*SPEC, "theirs"), {})), crd(((*SPEC, "ours"), {}))

    assert compare(theirs, ours).standing is Standing.NEWER


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(((*SPEC, "mode", "maxLength"), 9), id="bound"),
        pytest.param(((*SPEC, "mode", "description"), "other words"), id="text"),
        pytest.param(((*SPEC, "mode", "x-kubernetes-validations"), [{"rule": "true"}]), id="rule"),
        pytest.param(((*SPEC, "mode", "default"), "Apply"), id="default"),
    ],
)
def test_what_tells_nothing_of_age_is_not_looked_at(edit: tuple[tuple[str, ...], Any]) -> None:
    assert compare(crd(edit), crd()) == compare(crd(), crd(edit)) == Found(Standing.KNOWN)


def test_many_differences_are_counted_and_the_first_are_named() -> None:
    found = compare(crd(*(((*SPEC, f"f{at}"), {}) for at in range(5))), crd())

    assert (
        found.why == "it has v1alpha1.spec.f0, v1alpha1.spec.f1, v1alpha1.spec.f2 and 2 more, which this release lacks"
    )


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        pytest.param({"group": "example.com"}, "its group is example.com, not numamigration.dev", id="group"),
        pytest.param({"scope": "Namespaced"}, "its scope is Namespaced, not Cluster", id="scope"),
        pytest.param(
            {"names": {"kind": "Other", "plural": "migrationpolicies"}},
            "its kind is Other, not MigrationPolicy",
            id="kind",
        ),
        pytest.param({"names": {"kind": "MigrationPolicy"}}, "its plural is None, not migrationpolicies", id="plural"),
    ],
)
def test_a_crd_that_is_not_of_our_making_is_foreign(spec: dict[str, Any], why: str) -> None:
    assert compare(crd(**spec), crd()) == Found(Standing.FOREIGN, why)


@pytest.mark.parametrize("text", definitions().values(), ids=definitions())
def test_the_crds_that_we_carry_are_known_to_themselves(text: str) -> None:
    ours = yaml.safe_load(text)

    assert compare(ours, ours) == Found(Standing.KNOWN)
    assert "v1alpha1.spec" in paths(ours)
