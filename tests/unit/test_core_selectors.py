# SPDX-License-Identifier: Apache-2.0
import msgspec
import pytest

from numamigration_operator.core.objects import Selector
from numamigration_operator.core.selectors import selects

LABELS = {"zone": "a", "workload": "database", "empty": ""}


def selector(labels: dict[str, str] | None = None, *expressions: tuple[str, str, list[str]]) -> Selector:
    requirements = [{"key": key, "operator": operator, "values": values} for key, operator, values in expressions]
    return msgspec.convert({"matchLabels": labels or {}, "matchExpressions": requirements}, Selector)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param(selector(), True, id="empty selects everything"),
        pytest.param(selector({"zone": "a"}), True, id="label equal"),
        pytest.param(selector({"zone": "b"}), False, id="label differs"),
        pytest.param(selector({"missing": "a"}), False, id="label missing"),
        pytest.param(selector({"missing": ""}), False, id="a missing label is not an empty one"),
        pytest.param(selector({"zone": "a", "workload": "web"}), False, id="all labels must hold"),
        pytest.param(selector(None, ("zone", "In", ["a", "b"])), True, id="In, listed"),
        pytest.param(selector(None, ("zone", "In", ["b"])), False, id="In, not listed"),
        pytest.param(selector(None, ("missing", "In", ["a"])), False, id="In, missing key"),
        pytest.param(selector(None, ("zone", "NotIn", ["a"])), False, id="NotIn, listed"),
        pytest.param(selector(None, ("zone", "NotIn", ["b"])), True, id="NotIn, not listed"),
        pytest.param(selector(None, ("missing", "NotIn", ["b"])), True, id="NotIn holds where the key is missing"),
        pytest.param(selector(None, ("empty", "Exists", [])), True, id="Exists, empty value"),
        pytest.param(selector(None, ("missing", "Exists", [])), False, id="Exists, missing key"),
        pytest.param(selector(None, ("zone", "DoesNotExist", [])), False, id="DoesNotExist, key there"),
        pytest.param(selector(None, ("missing", "DoesNotExist", [])), True, id="DoesNotExist, missing key"),
        pytest.param(selector(None, ("zone", "Near", ["a"])), False, id="an unknown operator selects nothing"),
        pytest.param(
            selector({"zone": "a"}, ("zone", "NotIn", ["a"])), False, id="labels and expressions must both hold"
        ),
    ],
)
def test_a_selector_selects_as_metav1_says(asked: Selector, expected: bool) -> None:
    assert selects(asked, LABELS) is expected
