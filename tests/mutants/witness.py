# SPDX-License-Identifier: Apache-2.0
"""A pytest plugin that tells how each test ended, and from where the product was imported.

Only a test that ran and failed in its own call notices a mutant. A tree that cannot be imported, a broken fixture or a
name that the patch forgot say nothing about the guard.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import pytest

FILE_VARIABLE: Final = "MUTANT_WITNESS"
PACKAGES: Final = ("numamigration_api", "numamigration_operator", "numamigration_agent")
BROKEN: Final = (ImportError, SyntaxError, NameError)
"""What a careless patch raises; an AttributeError or TypeError may be what the guard was there to prevent."""

_calls: dict[str, str] = {}
_errors: list[str] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note the outcome of one phase of one test."""
    report = yield
    kind = call.excinfo.typename if call.excinfo else ""
    broken = call.excinfo is not None and isinstance(call.excinfo.value, BROKEN)
    if report.failed and (report.when != "call" or broken):
        _errors.append(f"{item.nodeid}: {kind} in {report.when}")
    elif report.when == "call":
        timed_out = report.failed and "from pytest-timeout" in report.longreprtext
        _calls[item.nodeid] = "timeout" if timed_out else report.outcome
    return report


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Note what could not even be collected."""
    if report.failed:
        _errors.append(f"{report.nodeid}: cannot be collected")


def pytest_sessionfinish() -> None:
    """Write what was seen; the runner reads it."""
    here = Path.cwd()
    loaded = [module for name, module in list(sys.modules.items()) if name.split(".")[0] in PACKAGES]
    files = [Path(module.__file__) for module in loaded if module.__file__]
    strangers = sorted(str(file) for file in files if not file.is_relative_to(here))
    document = {"calls": _calls, "errors": _errors, "strangers": strangers}
    Path(os.environ[FILE_VARIABLE]).write_text(json.dumps(document))
