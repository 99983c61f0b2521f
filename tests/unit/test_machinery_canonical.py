# SPDX-License-Identifier: Apache-2.0
"""Equal things have equal bytes and equal hashes; different ones do not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numamigration_api.machinery.canonical import canonical_json, revision_hash

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def reordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reordered(item) for key, item in reversed(value.items())}
    return [reordered(item) for item in value] if isinstance(value, list) else value


def test_keys_are_sorted_and_spaces_left_out() -> None:
    assert canonical_json({"b": [1, True, None], "a": "ü"}) == b'{"a":"\\u00fc","b":[1,true,null]}'


@given(JSON)
def test_the_order_of_keys_does_not_matter(value: Any) -> None:
    assert canonical_json(reordered(value)) == canonical_json(value)


@given(JSON)
def test_nothing_is_lost(value: Any) -> None:
    assert json.loads(canonical_json(value)) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_cannot_say_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(value)


def test_a_type_that_json_does_not_have_is_refused() -> None:
    with pytest.raises(TypeError):
        canonical_json({"reasons": {"demotion"}})


def test_a_revision_is_16_hexadecimal_digits_that_never_change_between_releases() -> None:
    """Another hash for the same spec would make every agent report, and every node be pushed, after an upgrade."""
    assert revision_hash({"groups": {"demotion": {"settings": {"enabled": True}}}}) == "4a69a55ff349556e"


@pytest.mark.uncounted
@given(st.dictionaries(st.text(max_size=3), JSON, max_size=4), st.dictionaries(st.text(max_size=3), JSON, max_size=4))
def test_revisions_are_equal_exactly_when_the_json_is(one: dict[str, Any], other: dict[str, Any]) -> None:
    same = canonical_json(one) == canonical_json(other)

    assert (revision_hash(one) == revision_hash(other)) is same
