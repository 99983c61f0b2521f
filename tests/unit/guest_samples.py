# SPDX-License-Identifier: Apache-2.0
"""Tests for the guest's runner to run: each ends in a way of its own."""

from __future__ import annotations

import os
import signal

from tests.kernel.suite.marks import cases, seconds_max


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


@cases(("small", 1, 2), ("large", 10, 11))
@seconds_max(7)
def test_with_rows(number: int, following: int) -> None:
    assert number + 1 == following
    print(f"row of {number}")
