# SPDX-License-Identifier: Apache-2.0
"""Which schedules nobody has run yet: each commit has a million seeds of its own (docs/decisions/0027)."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from typing import Final

SEEDS_OF_EACH: Final = 1_000_000
"""Of each commit, or second: runs of up to so many have all seeds in common, or none."""
DIGITS: Final = 7
"""Of a commit's name, as git abbreviates it: of a thousand commits, two have the same ones with a chance of 0.2 %."""
COMMIT: Final = re.compile(r"[0-9a-f]{40,64}")


def asked_first(text: str) -> str:
    """Return what --first may say.

    Raises:
        ArgumentTypeError: it is no number, and neither `commit` nor `clock`.
    """
    if text in {"commit", "clock"} or text.isdecimal():
        return text
    raise ArgumentTypeError(f"{text!r} is no number, and neither commit nor clock")


def first_seed(asked: str, commit: str, now: float) -> tuple[int, str]:
    """Return the first fresh seed, and in words where it is from.

    Args:
        asked: a number, `commit` or `clock` (`asked_first`).
        commit: the name of the commit that is checked out, in hexadecimal digits; empty: there is none.
        now: seconds since 1970.
    """
    if asked == "commit" and COMMIT.fullmatch(commit):
        return int(commit[:DIGITS], 16) * SEEDS_OF_EACH, f"of commit {commit[:DIGITS]}"
    if asked in {"commit", "clock"}:
        return int(now) % 16**DIGITS * SEEDS_OF_EACH, "from the clock"
    return int(asked), "as asked for"
