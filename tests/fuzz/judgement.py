# SPDX-License-Identifier: Apache-2.0
"""How an oracle says that a promise does not hold."""

from __future__ import annotations


class BrokenPromiseError(AssertionError):
    """A promise does not hold; the text begins with its number."""


def require(holds: object, promise: int, text: str) -> None:
    """Raise unless it holds."""
    if not holds:
        raise BrokenPromiseError(f"promise {promise}: {text}")
