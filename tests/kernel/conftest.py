# SPDX-License-Identifier: Apache-2.0
"""One guest for all tests of this folder: prepared after collection, booted by the first test, ended with the run.

What the machine lacks, or how the guest ended, fails every test that needs it, each with that cause. Nothing is skipped
but what ``GUEST_DCBM=real`` rules out: there is no asking another driver to fail.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import pytest

from tests.kernel import store
from tests.kernel.agent_bed import drivers, hands, node, rebooted, v5, v6  # noqa: F401 - fixtures
from tests.kernel.choice import DCBM, read_choice
from tests.kernel.collection import SUITE, GuestFile, GuestItem
from tests.kernel.guest import Guest
from tests.kernel.machine import Parts
from tests.kernel.session import SESSION, Session
from tests.testbed.errors import BedError, MissingNeedError

Found = TypeVar("Found")

ORDER: Final = {"own_machine": -1, "reboots_guest": 1, "ends_guest": 2}
"""Where tests stand that must not disturb the others; without such a mark it is 0."""

NO_SWITCHES: Final = f"{DCBM}=real: no driver but ours can be loaded anew, or asked to go wrong"


def pytest_configure(config: pytest.Config) -> None:
    """Read which kernel is wanted."""
    try:
        choice = read_choice(os.environ)
    except MissingNeedError as error:
        raise pytest.UsageError(str(error)) from error
    runs = store.folder(os.environ) / "runs"
    folder = runs / time.strftime(f"%Y%m%dT%H%M%S-{os.getpid()}")
    config.stash[SESSION] = Session(choice, folder, alone=not hasattr(config, "workerinput"))


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Take the suite's files; ours run here."""
    return GuestFile.from_parent(parent, path=module_path) if module_path.parent == SUITE else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put what ends a boot last, and skip by name what needs our module where there is another driver."""
    items.sort(key=lambda item: sum(ORDER.get(mark.name, 0) for mark in item.iter_markers()))
    if config.stash[SESSION].choice.has_switches:
        return
    for item in items:
        if item.get_closest_marker("needs_switches"):
            item.add_marker(pytest.mark.skip(reason=NO_SWITCHES))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Prepare the guest when a collected test needs it: that may take longer than a test, and shows what it does."""
    if not session.config.option.collectonly and any(_needs_guest(item) for item in session.items):
        session.config.stash[SESSION].prepare()


def _needs_guest(item: pytest.Item) -> bool:
    return isinstance(item, GuestItem) or not {"guest", "parts"}.isdisjoint(getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session")
def parts(pytestconfig: pytest.Config) -> Parts:
    """What the guest is made of, for machines of a test's own."""
    return _or_fail(pytestconfig.stash[SESSION].parts)[0]


@pytest.fixture(scope="session")
def guest(pytestconfig: pytest.Config) -> Guest:
    """The running guest."""
    return _or_fail(pytestconfig.stash[SESSION].guest)


def _or_fail(find: Callable[[], Found]) -> Found:
    try:
        return find()
    except BedError as error:
        pytest.fail(str(error), pytrace=False)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End the guest."""
    session.config.stash[SESSION].end()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    """Name the folder of a failed run's logs."""
    kept = config.stash[SESSION].keep_or_clean(failed=exitstatus != 0)
    if kept:
        terminalreporter.write_line(f"console and logs of the guest: {kept}")
