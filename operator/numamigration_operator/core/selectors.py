# SPDX-License-Identifier: Apache-2.0
"""Label selectors as ``metav1.LabelSelector`` has them.

* Everything in a selector must hold; an empty selector selects every node.
* ``NotIn`` and ``DoesNotExist`` hold where the key is missing.
* An operator word that is not known selects nothing: the schema refuses it, and a guess could widen a policy.

Source: k8s.io/apimachinery pkg/labels/selector.go, Requirement.Matches.
"""

from __future__ import annotations

from collections.abc import Mapping

from numamigration_operator.core.objects import Requirement, Selector


def selects(selector: Selector, labels: Mapping[str, str]) -> bool:
    """Return whether `labels` fulfil every requirement of `selector`."""
    return all(labels.get(key) == value for key, value in selector.match_labels.items()) and all(
        _holds(requirement, labels.get(requirement.key)) for requirement in selector.match_expressions
    )


def keys_of(selector: Selector) -> frozenset[str]:
    """Return the keys of the labels that an answer depends on."""
    return frozenset(selector.match_labels) | {requirement.key for requirement in selector.match_expressions}


def _holds(requirement: Requirement, value: str | None) -> bool:
    match requirement.operator:
        case "In":
            return value in requirement.values
        case "NotIn":
            return value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case _:
            return False
