# SPDX-License-Identifier: Apache-2.0
"""One object for equal values, so that thousands of nodes share what is the same on all of them."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

POOL_VALUES_MAX: Final = 65_536  # one label pair of its own for each of 15,000 nodes, and room for what they share

Value = TypeVar("Value", bound=Hashable)


class Pool(Generic[Value]):
    """Interns values. Forgets them all when it is full: then equal values exist twice, and nothing breaks."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: dict[Value, Value] = {}

    def __call__(self, value: Value) -> Value:
        """Return the first object that was equal to `value`."""
        if len(self._values) >= POOL_VALUES_MAX:
            self._values.clear()
        return self._values.setdefault(value, value)
