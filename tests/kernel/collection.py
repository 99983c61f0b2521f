# SPDX-License-Identifier: Apache-2.0
"""Makes each test of ``suite/`` one of pytest's: collected here, run in the guest, reported as any other."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.kernel.guest import ANSWER_SECONDS
from tests.kernel.session import SESSION
from tests.kernel.suite.marks import Test, asks_switches, bound_of, rows_of
from tests.kernel.table import GuestRow, is_twin
from tests.testbed.errors import BedError

SUITE: Final = Path(__file__).with_name("suite")
PACKAGE: Final = "tests.kernel.suite"
KERNEL_LINES: Final = 30


class GuestTestFailedError(Exception):
    """The guest's account of a test that failed."""


class GuestFile(pytest.File):
    """One ``test_*.py`` of the suite."""

    def collect(self) -> Iterator[pytest.Item]:
        module = importlib.import_module(f"{PACKAGE}.{self.path.stem}")
        for name, test in vars(module).items():
            if name.startswith("test_") and inspect.isfunction(test):
                yield from self._items(name, test)

    def _items(self, name: str, test: Test) -> Iterator[pytest.Item]:
        for number, row in enumerate(rows_of(test)):
            shown = f"{name}[{row[0]}]" if row[0] else name
            yield GuestItem.from_parent(self, name=shown, test=test, case=number)


class GuestItem(pytest.Item):
    """One test, or one row of it, in the guest."""

    def __init__(self, *, test: Test, case: int, **rest: Any) -> None:
        super().__init__(**rest)
        self.test = test
        self.case = case
        if asks_switches(test, case):
            self.add_marker(pytest.mark.needs_switches)
        if any(isinstance(part, GuestRow) and is_twin(part) for part in rows_of(test)[case]):
            self.add_marker(pytest.mark.twin)
        # The first test waits for the boot as well. Past these bounds there is a better message than pytest's own.
        boot_seconds = self.config.stash[SESSION].choice.boot_seconds
        self.add_marker(pytest.mark.timeout(boot_seconds + bound_of(test) + 2 * ANSWER_SECONDS))

    def runtest(self) -> None:
        """Have the guest run it; what it tells of a failure becomes ours."""
        seconds = bound_of(self.test)
        question = {"module": self.test.__module__, "name": self.test.__name__, "case": self.case, "seconds": seconds}
        session = self.config.stash[SESSION]
        answer = session.guest().ask("test", question, seconds=seconds)
        self._add_sections(answer)
        judge(answer, may_skip=not session.choice.has_switches)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show what the guest or the harness says, without our own frames."""
        if isinstance(excinfo.value, GuestTestFailedError | BedError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Say where it stands."""
        return self.path, self.test.__code__.co_firstlineno - 1, self.name

    def _add_sections(self, answer: dict[str, Any]) -> None:
        if answer["output"]:
            self.add_report_section("call", "output in the guest", answer["output"])
        if answer["kernel"]:
            self.add_report_section("call", "kernel log meanwhile", "\n".join(answer["kernel"][-KERNEL_LINES:]))


def judge(answer: dict[str, Any], *, may_skip: bool) -> None:
    """Make the guest's answer pytest's outcome.

    Args:
        answer: of the runner.
        may_skip: whether a test may be about another kernel; with our module each is about this one.

    Raises:
        GuestTestFailedError: it did not pass, or the kernel complained meanwhile.
    """
    if answer["outcome"] == "skipped" and may_skip:
        pytest.skip(answer["message"])
    if answer["outcome"] != "passed":
        raise GuestTestFailedError(answer["message"])
    if answer["splats"]:
        raise GuestTestFailedError("it passed, but the kernel complained:\n" + "\n".join(answer["splats"]))
