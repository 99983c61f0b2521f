# SPDX-License-Identifier: Apache-2.0
"""One spelling for each value, so that equal things have equal bytes and equal hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

_canonical: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
REVISION_DIGITS: Final = 16  # 64 bits: two of 10^5 revisions collide with probability below 10^-9


def canonical_json(value: Any) -> bytes:
    """Return JSON with sorted keys and no spaces.

    Raises:
        TypeError: a value that JSON does not have.
        ValueError: NaN or infinity.
    """
    return _canonical.encode(value).encode()


def revision_hash(value: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits that change when anything in `value` changes."""
    return hashlib.sha256(canonical_json(value)).hexdigest()[:REVISION_DIGITS]


def spec_revision(spec: Mapping[str, Any]) -> str:
    """Return the revision of a node state's spec as JSON has it: of what this release writes there, whoever may write
    what else.

    The generations of the sources are left out: an edit of a policy that changes nothing here is no new revision.
    """
    plain: dict[str, Any] = {key: spec[key] for key in ("observe", "verifyEpoch") if spec.get(key)}
    if groups := spec.get("groups"):
        plain["groups"] = {name: _without_generation(wish) for name, wish in groups.items()}
    if plans := spec.get("plans"):
        plain["plans"] = [_without_generation(plan) for plan in plans]
    return revision_hash(plain)


def wish_revision(wish: Mapping[str, Any]) -> str:
    """Return the hash of one group's wish as JSON has it, by which operator and agent know what was soaked.

    What moves no knob is left out: a wish that was held for a while is the same one afterwards, however it will end.
    """
    moving = {key: value for key, value in _without_generation(wish).items() if key not in {"mode", "release"}}
    return revision_hash(moving)


def _without_generation(wish: Mapping[str, Any]) -> dict[str, Any]:
    source = {key: value for key, value in (wish.get("source") or {}).items() if key != "generation"}
    return {**wish, "source": source}
