# SPDX-License-Identifier: Apache-2.0
"""What takes minutes to find or build is found after collection and before the first test, when a test asks for it.

A build takes more than a test's time-out, and its progress must be seen, which pytest would capture inside a fixture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import pytest

from tests.testbed.errors import BedError
from tests.testbed.progress import Progress

T = TypeVar("T")


class Early(Generic[T]):
    """One such thing, for the fixture that gives it to tests.

    Args:
        fixture: name of that fixture.
        find: finds or builds it; raises BedError when it cannot be had.
    """

    def __init__(self, fixture: str, find: Callable[[Progress], T]) -> None:
        self._fixture = fixture
        self._find_now = find
        self._key = pytest.StashKey[T | BedError]()

    def collected(self, session: pytest.Session) -> None:
        """Find it when a collected test needs it."""
        if session.config.option.collectonly:
            return
        if any(self._fixture in getattr(item, "fixturenames", ()) for item in session.items):
            session.config.stash[self._key] = self._find()

    def get(self, config: pytest.Config) -> T:
        """Return it, or fail the test with what is missing."""
        found = config.stash.get(self._key, None) or self._find()  # None: asked for by name while a test runs
        if isinstance(found, BedError):
            pytest.fail(str(found), pytrace=False)
        return found

    def _find(self) -> T | BedError:
        try:
            return self._find_now(Progress())
        except BedError as error:
            return error
