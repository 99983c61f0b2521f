# SPDX-License-Identifier: Apache-2.0
"""JSON that may have another shape than it should: what a newer release, an older CRD or a person's edit left there.

A part of the wrong shape counts as absent, so that whoever reads goes on with the rest and never guesses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from numamigration_api.machinery.clock import parse_timestamp

MOMENT_LENGTH_MAX: Final = 40  # of a time in the CRDs


def mapping(value: Any) -> Mapping[str, Any]:
    """Return an object as it is, and an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def objects(value: Any) -> tuple[Mapping[str, Any], ...]:
    """Return the objects of a list, and none for anything else."""
    return tuple(row for row in value if isinstance(row, Mapping)) if isinstance(value, list | tuple) else ()


def texts(value: Any) -> tuple[str, ...]:
    """Return the strings of a list, and none for anything else."""
    return tuple(text for text in value if isinstance(text, str)) if isinstance(value, list | tuple) else ()


def count(value: Any) -> int | None:
    """Return a whole number that is not negative, and None for anything else; true is no number."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def moment(value: Any) -> str | None:
    """Return the text of a time, and None for anything else."""
    try:
        parse_timestamp(value)
    except (TypeError, ValueError):
        return None
    return str(value) if len(value) <= MOMENT_LENGTH_MAX else None
