# SPDX-License-Identifier: Apache-2.0
"""Which machine it is, whether it may be written to, and that it is left as it was found."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.host.machine import ROOT_VARIABLE, WRITES_VARIABLE, Machine, rows_of

MACHINE: Final = pytest.StashKey[Machine]()
NO_ROWS: Final = "the table has no row for this dialect"
READ_ONLY: Final = f"only reads: {WRITES_VARIABLE}=1 allows to write, on a spare machine"


def pytest_configure(config: pytest.Config) -> None:
    """Look at the machine; a kill is an interrupt from here on, so that what was written is put back."""
    config.addinivalue_line("markers", "writes: writes kernel files, and puts them back")
    config.stash[MACHINE] = Machine(Path(os.environ.get(ROOT_VARIABLE, "/")))
    if _may_write() and os.geteuid():
        raise pytest.UsageError(f"{WRITES_VARIABLE}=1 needs root: kernel files are root's")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.default_int_handler)


def pytest_report_header(config: pytest.Config) -> str:
    """Say what was found."""
    return str(config.stash[MACHINE])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test for each knob, and for each row of the table that fits."""
    machine = metafunc.config.stash[MACHINE]
    if "knob" in metafunc.fixturenames:
        metafunc.parametrize("knob", machine.facts.knobs, ids=lambda knob: knob.field)
    if "row" in metafunc.fixturenames:
        rows = [pytest.param(row, id=row.id) for row in rows_of(machine.facts.dialect)]
        metafunc.parametrize("row", rows or [pytest.param(None, id="no row", marks=pytest.mark.skip(reason=NO_ROWS))])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip by name what writes, unless that is allowed."""
    if _may_write():
        return
    for item in items:
        if item.get_closest_marker("writes"):
            item.add_marker(pytest.mark.skip(reason=READ_ONLY))


def _may_write() -> bool:
    return os.environ.get(WRITES_VARIABLE) == "1"


@pytest.fixture(scope="session")
def machine(pytestconfig: pytest.Config) -> Machine:
    """This machine."""
    return pytestconfig.stash[MACHINE]


@pytest.fixture
def written(machine: Machine) -> Iterator[Machine]:
    """This machine, to be written to and put back."""
    with machine.put_back():
        yield machine
