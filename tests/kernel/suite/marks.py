# SPDX-License-Identifier: Apache-2.0
"""Marks of the guest's tests; the host reads them when it collects, the guest when it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

Test = Callable[..., None]

SECONDS_MAX: Final = 60
"""Default bound of one test; an emulated processor is slow."""


def cases(*rows: tuple[Any, ...]) -> Callable[[Test], Test]:
    """Run a test once for each row: its name, then the arguments."""

    def mark(test: Test) -> Test:
        vars(test)["cases"] = rows
        return test

    return mark


def seconds_max(seconds: float) -> Callable[[Test], Test]:
    """Give a test another bound."""

    def mark(test: Test) -> Test:
        vars(test)["seconds_max"] = seconds
        return test

    return mark


class SkippedError(Exception):
    """Raised by a test that is about another kernel than the one that was given; with our module that is a failure."""


def needs_switches(test: Test) -> Test:
    """Mark a test that loads our module, or asks it to fail, hang or corrupt; no other driver can be asked for that."""
    return needs_switches_where(lambda *_: True)(test)


def needs_switches_where(holds: Callable[..., bool]) -> Callable[[Test], Test]:
    """Mark so those rows of a test for whose arguments `holds` is true."""

    def mark(test: Test) -> Test:
        vars(test)["needs_switches"] = holds
        return test

    return mark


def asks_switches(test: Test, case: int) -> bool:
    """Tell whether a row of a test needs our module's switches."""
    holds: Callable[..., bool] = vars(test).get("needs_switches", lambda *_: False)
    return holds(*rows_of(test)[case][1:])


def rows_of(test: Test) -> tuple[tuple[Any, ...], ...]:
    """Return the rows of a test; one without ``@cases`` has a single row without a name."""
    rows: tuple[tuple[Any, ...], ...] = vars(test).get("cases", (("",),))
    return rows


def bound_of(test: Test) -> float:
    """Return how long a test may take."""
    seconds: float = vars(test).get("seconds_max", SECONDS_MAX)
    return seconds
