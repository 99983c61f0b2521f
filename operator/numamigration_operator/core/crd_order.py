# SPDX-License-Identifier: Apache-2.0
"""Which of two CustomResourceDefinitions is newer: the one that stands in the cluster, or the one that we carry.

v1alpha1 may only grow (docs/decisions/0031). So a stored CRD that has what ours lacks, a version, a property or a word
of an enumeration, comes from a newer release: to replace it would take fields away that nodes and people use. Bounds,
texts, columns and rules tell nothing of age, and are not looked at.

No number of a release is compared: it can be missing or edited, and a CRD that was built from a branch has none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

NAMED_MAX: Final = 3
"""Of what is missing in ours, in the message; one would do to find the release that has it."""

Json = Mapping[str, Any]


class Standing(StrEnum):
    """What a stored CRD is to ours."""

    ABSENT = "absent"
    FOREIGN = "foreign"
    NEWER = "newer"
    KNOWN = "known"
    """Ours has all that it has: the same release, or an older one."""


class Found(NamedTuple):
    """What the comparison found.

    Attributes:
        why: one line for people; empty when there is nothing to tell.
    """

    standing: Standing
    why: str = ""


def compare(stored: Json | None, ours: Json) -> Found:
    """Return what `stored` is to `ours`; None is a CRD that does not exist."""
    if stored is None:
        return Found(Standing.ABSENT)
    if strange := list(_differences(stored, ours)):
        return Found(Standing.FOREIGN, "; ".join(strange))
    lacking = sorted(paths(stored) - paths(ours))
    if not lacking:
        return Found(Standing.KNOWN)
    more = f" and {len(lacking) - NAMED_MAX} more" if len(lacking) > NAMED_MAX else ""
    return Found(Standing.NEWER, f"it has {', '.join(lacking[:NAMED_MAX])}{more}, which this release lacks")


def _differences(stored: Json, ours: Json) -> Iterator[str]:
    """Yield in what a CRD of this name is not of our making."""
    for what, path in IDENTITY.items():
        theirs, wanted = _at(stored, path), _at(ours, path)
        if theirs != wanted:
            yield f"its {what} is {theirs}, not {wanted}"


IDENTITY: Final[Mapping[str, tuple[str, ...]]] = {
    "group": ("spec", "group"),
    "scope": ("spec", "scope"),
    "kind": ("spec", "names", "kind"),
    "plural": ("spec", "names", "plural"),
}
"""What no release of ours changes, and the API server never lets anybody change in place."""


def _at(document: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        document = document.get(key) if isinstance(document, Mapping) else None
    return document


def paths(crd: Json) -> frozenset[str]:
    """Return every version, property and enumerated word of a CRD, as ``v1alpha1.spec.mode`` and ``….mode=Plan``."""
    return frozenset(
        path
        for version in crd["spec"]["versions"]
        for path in _schema_paths(_at(version, ("schema", "openAPIV3Schema")) or {}, version["name"])
    )


def _schema_paths(schema: Json, at: str) -> Iterator[str]:
    yield at
    for name, child in schema.get("properties", {}).items():
        yield from _schema_paths(child, f"{at}.{name}")
    for key, step in (("items", "[]"), ("additionalProperties", ".*")):
        if isinstance(child := schema.get(key), Mapping):
            yield from _schema_paths(child, at + step)
    for word in schema.get("enum", ()):
        yield f"{at}={word if isinstance(word, str) else json.dumps(word)}"
