# SPDX-License-Identifier: Apache-2.0
"""For pytest: coverage rests while a test marked ``uncounted`` runs, and in the processes that such a test starts.

On Python 3.11 a tracer doubles what a test costs. Tests of the test equipment cover nothing of the product, and
histories by the hundred cover again what tests of one behaviour each cover: they run at their own speed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest
from coverage import Coverage

MARK: Final = "uncounted"
FOR_CHILDREN: Final = "COVERAGE_PROCESS_CONFIG"
"""A Python process that finds this variable counts too."""


@contextmanager
def resting() -> Iterator[None]:
    """Count nothing for a while, here and in new processes."""
    running = Coverage.current()
    inherited = os.environ.pop(FOR_CHILDREN, None)
    if running:
        running.stop()
    try:
        yield
    finally:
        if inherited is not None:
            os.environ[FOR_CHILDREN] = inherited
        if running:
            running.start()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Rest from a marked test's set-up to its teardown."""
    if item.get_closest_marker(MARK):
        with resting():
            return (yield)
    return (yield)
