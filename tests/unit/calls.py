# SPDX-License-Identifier: Apache-2.0
"""How many functions some work calls: the same on every machine, unlike seconds."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final

ROOM: Final = 1.25
"""Of the calls when a limit was set, so that half as much work more fails, and half the work asks for a lower limit."""


def calls(work: Callable[[], object], within: tuple[Path, ...] = (Path("/"),)) -> int:
    """Return how many Python functions were called that are defined below these folders, and C functions from there.

    The garbage collector rests meanwhile: what it calls to clean up after other tests comes when it comes.
    """
    folders, count, ours = tuple(map(str, within)), 0, calls.__code__

    def note(frame: FrameType, event: str, argument: object) -> None:  # noqa: ARG001 - as sys.setprofile has it
        nonlocal count
        code = frame.f_code
        count += event in {"call", "c_call"} and code is not ours and code.co_filename.startswith(folders)

    collected = gc.isenabled()
    gc.disable()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
        if collected:
            gc.enable()
    return count


def fits(found: float, limit: float) -> bool:
    """Whether work takes as many calls as it did when the limit was set, give or take `ROOM`."""
    return limit / ROOM <= found <= ROOM * limit
