# SPDX-License-Identifier: Apache-2.0
"""Tests for the guest's runner to run: each ends in a way of its own."""

from __future__ import annotations

import os
import signal

from tests.kernel.suite.marks import SkippedError, cases, needs_switches, needs_switches_where, seconds_max


def test_that_passes() -> None:
    print("said on the way")


def test_that_fails() -> None:
    found = {"node": 7}
    assert found == {"node": 1}


def test_that_exits() -> None:
    raise SystemExit(0)


def test_that_is_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_that_hangs() -> None:
    signal.pause()


def test_that_talks_too_much_when_it_fails() -> None:
    raise AssertionError("x" * 1_000_000)


def test_that_is_about_another_kernel() -> None:
    raise SkippedError("the kernel's driver is V5")


@needs_switches
def test_that_needs_switches() -> None:
    pass


@needs_switches_where(lambda number: number > 1)
@cases(("small", 1), ("large", 10))
def test_with_a_row_that_needs_switches(number: int) -> None:
    assert number


@cases(("small", 1, 2), ("large", 10, 11))
@seconds_max(7)
def test_with_rows(number: int, following: int) -> None:
    assert number + 1 == following
    print(f"row of {number}")
