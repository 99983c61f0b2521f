# SPDX-License-Identifier: Apache-2.0
"""Time as the API writes it. Durations are measured on a monotonic clock elsewhere; wall time is only for people."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

NEVER: Final = float("inf")
"""On a monotonic clock, when what will not come is due."""


def timestamp(moment: datetime) -> str:
    """Return RFC 3339 in UTC with whole seconds, as ``metav1.Time`` has it, for example ``2026-01-02T03:04:05Z``.

    Raises:
        ValueError: `moment` has no time zone.
    """
    return _in_utc(moment).isoformat(timespec="seconds").removesuffix("+00:00") + "Z"


def micro_timestamp(moment: datetime) -> str:
    """Return RFC 3339 in UTC with exactly six decimals, the only form that ``metav1.MicroTime`` takes.

    Raises:
        ValueError: `moment` has no time zone.
    """
    return _in_utc(moment).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def _in_utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a time without a zone cannot be written to the API")
    return moment.astimezone(UTC)


def parse_timestamp(text: str) -> datetime:
    """Return the moment of an RFC 3339 text, with or without fractions.

    Raises:
        ValueError: not a timestamp, or one without a zone.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return moment


def seconds_since(text: str | None, wall: datetime) -> float | None:
    """Return how long ago the moment of a timestamp was, negative when it lies ahead; None for what is none."""
    try:
        return (wall - parse_timestamp(text or "")).total_seconds()
    except ValueError:
        return None
