# SPDX-License-Identifier: Apache-2.0
"""Conditions as the Kubernetes API conventions have them, for policies and node states alike.

* The transition time moves only when the status moves (not with reason or message), so "since when" is true.
* Every known type is there from the first write on; an unwritten one is Unknown.
* No heartbeat times: a condition that did not change makes no write.

Source: kubernetes/community, contributors/devel/sig-architecture/api-conventions.md, "Typical status properties".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from numamigration_api.machinery.clock import timestamp
from numamigration_api.machinery.shapes import moment
from numamigration_api.vocabulary import ConditionStatus, Reason

MESSAGE_LENGTH_MAX: Final = 512  # twenty of them stay far below the 20 kB of a policy's status (promise 12)


class Condition(NamedTuple):
    """One finding, without the times that the object keeps."""

    type: str
    status: ConditionStatus
    reason: Reason
    message: str = ""


def shorten(text: str, length: int = MESSAGE_LENGTH_MAX) -> str:
    """Return `text` in at most `length` characters, with an ellipsis when it was cut."""
    return text if len(text) <= length else text[: length - 1] + "…"


def merge_conditions(
    known: Iterable[Mapping[str, Any]], found: Iterable[Condition], *, generation: int, now: datetime
) -> list[dict[str, Any]]:
    """Return the condition list to write, sorted by type.

    Args:
        known: the conditions the object has, as JSON objects.
        found: what holds now; types not among them are dropped.
        generation: the generation the findings are about.
        now: timezone-aware time for conditions whose status moved.
    """
    before = {str(condition.get("type")): condition for condition in known}
    return [_merged(before.get(c.type), c, generation, now) for c in sorted(found)]


def _merged(before: Mapping[str, Any] | None, found: Condition, generation: int, now: datetime) -> dict[str, Any]:
    stands = before is not None and before.get("status") == found.status
    since = moment(before.get("lastTransitionTime")) if before and stands else None
    return {
        "type": str(found.type),
        "status": str(found.status),
        "observedGeneration": generation,
        "lastTransitionTime": since or timestamp(now),
        "reason": str(found.reason),
        "message": shorten(found.message),
    }


def find_condition(conditions: Iterable[Mapping[str, Any]], type_: str) -> Mapping[str, Any] | None:
    """Return the condition of one type, or None."""
    return next((condition for condition in conditions if condition.get("type") == type_), None)
