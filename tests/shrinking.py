# SPDX-License-Identifier: Apache-2.0
"""Finds the few of many moves that a failure needs: for histories of an agent and schedules of a fleet."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

Found = TypeVar("Found")


def shrink(
    found: Found,
    moves: Callable[[Found], tuple[Any, ...]],
    left_out: Callable[[tuple[Any, ...], int], Iterable[tuple[Any, ...]]],
    again: Callable[[tuple[Any, ...]], Found | None],
    runs_max: int,
) -> Found:
    """Return what fails for the same reason with as few moves as can be; most at once are left out first.

    Args:
        found: a failure.
        moves: of a failure.
        left_out: yields the moves without so many of them that follow each other.
        again: runs moves; returns a failure of the same kind, or None.
        runs_max: after so many runs it is short enough.
    """
    best, runs = found, 0
    size = max(1, len(moves(best)) // 2)
    while size and runs < runs_max:
        shorter = None
        for fewer in left_out(moves(best), size):
            runs += 1
            shorter = again(fewer)
            if shorter is not None:
                break
        best, size = (shorter, min(size, len(moves(shorter)))) if shorter is not None else (best, size // 2)
    return best
