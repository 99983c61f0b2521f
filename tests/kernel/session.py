# SPDX-License-Identifier: Apache-2.0
"""The one guest of a pytest run: prepared once, booted when the first test asks, and what became of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final, TypeVar

import pytest

from tests.kernel.choice import Choice
from tests.kernel.guest import Guest
from tests.kernel.machine import Parts
from tests.kernel.prepare import new_guest, prepare
from tests.testbed.errors import BedError
from tests.testbed.progress import Progress

RUNS_KEPT: Final = 5
"""Folders of failed runs; the oldest go first."""

Outcome = TypeVar("Outcome")


class Session:
    """The guest of one run.

    Args:
        choice: which kernel it runs.
        folder: for logs and exchange; kept when the run failed.
        alone: whether this process runs all tests; pytest-xdist's run some.
    """

    def __init__(self, choice: Choice, folder: Path, *, alone: bool = True) -> None:
        self.choice = choice
        self.folder = folder
        self._alone = alone
        self._prepared: tuple[Parts, Path | None] | BedError | None = None
        self._guest: Guest | BedError | None = None

    def prepare(self) -> None:
        """Find or make what the guest needs; an error waits for the first test, and for each one after it."""
        if not self._alone:
            self._prepared = BedError("there is one guest: run tests/kernel without --numprocesses")
            return
        try:
            self._prepared = prepare(self.choice, Progress())
        except BedError as error:
            self._prepared = error

    def parts(self) -> tuple[Parts, Path | None]:
        """Return what the guest is made of, and the folder of our modules."""
        if self._prepared is None:
            self.prepare()
        assert self._prepared is not None
        return _told(self._prepared)

    def guest(self) -> Guest:
        """Return the running guest, booted at the first call."""
        if self._guest is None:
            self._guest = self._boot()
        return _told(self._guest)

    def end(self) -> None:
        """End the guest."""
        if isinstance(self._guest, Guest):
            self._guest.__exit__(None, None, None)

    def keep_or_clean(self, *, failed: bool) -> Path | None:
        """Remove the folder of a run that passed; return the one that stays."""
        if not self.folder.exists():
            return None
        if not failed:
            shutil.rmtree(self.folder)
            return None
        ended = [path for path in sorted(self.folder.parent.iterdir()) if not _runs(path) or path == self.folder]
        for old in ended[:-RUNS_KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        return self.folder

    def _boot(self) -> Guest | BedError:
        try:
            guest = new_guest(self.choice, *self.parts(), self.folder)
            return guest.__enter__()
        except BedError as error:
            return error


SESSION: Final = pytest.StashKey[Session]()


def _runs(folder: Path) -> bool:
    # Named TIME-PID; a process id that is used again only keeps a folder longer.
    return Path("/proc", folder.name.rpartition("-")[2]).exists()


def _told(found: Outcome | BedError) -> Outcome:
    if isinstance(found, BedError):
        raise type(found)(str(found))
    return found
