# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from numamigration_operator.core.selectors import selects
from numamigration_operator.label_selector import parse_label_selector

LABELS = {"pool": "db", "tier": "hot", "example.com/rack": "r1", "empty": ""}


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        pytest.param("", True, id="empty selects everything"),
        pytest.param("pool=db", True, id="equal"),
        pytest.param("pool==db", True, id="double equal"),
        pytest.param("pool = web", False, id="unequal value"),
        pytest.param("pool!=web", True, id="not equal"),
        pytest.param("absent!=web", True, id="not equal holds where the key is missing"),
        pytest.param("tier in (hot,warm)", True, id="in"),
        pytest.param("tier in ( cold )", False, id="not in the set"),
        pytest.param("tier notin (cold, warm)", True, id="notin"),
        pytest.param("example.com/rack", True, id="exists"),
        pytest.param("!spot", True, id="does not exist"),
        pytest.param("! pool", False, id="exists though it must not"),
        pytest.param("empty=", True, id="empty value"),
        pytest.param("in in (in)", False, id="a key named in"),
        pytest.param(" pool=db , tier in (hot,warm),!spot ", True, id="all together with spaces"),
        pytest.param("pool=db,tier=cold", False, id="one requirement does not hold"),
    ],
)
def test_selectors_mean_what_kubectl_means(text: str, selected: bool) -> None:
    assert selects(parse_label_selector(text), LABELS) is selected


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a in", id="no set"),
        pytest.param("a in ()(", id="stray parenthesis"),
        pytest.param("a in (b c)", id="space in a value"),
        pytest.param("=db", id="no key"),
        pytest.param("pool=db,", id="nothing after the comma"),
        pytest.param("pool=db tier=hot", id="no comma"),
        pytest.param("pool>3", id="not for labels here"),
        pytest.param("-a=b", id="key begins with a dash"),
        pytest.param("a=" + "x" * 64, id="value one too long"),
        pytest.param("UPPER.com/a", id="prefix must be lower case"),
    ],
)
def test_what_kubectl_does_not_take_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"cannot read|last comma|label value"):
        parse_label_selector(text)


def test_the_longest_value_is_taken() -> None:
    assert parse_label_selector("a=" + "x" * 63).match_expressions[0].values == ("x" * 63,)
