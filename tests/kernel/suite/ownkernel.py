# SPDX-License-Identifier: Apache-2.0
"""The table's rows on the driver that the guest's kernel brings itself (``DCBM=real``): those that need files alone.

Nobody loads or unloads it, and no engine is told anything. Each row begins with the values of a driver that was just
loaded, and every knob is put back after it.
"""

from __future__ import annotations

from numamigration_api.vocabulary import Dialect
from tests.fakekernel.control import Command, Reply
from tests.fakekernel.replay import Replay
from tests.host.machine import Machine
from tests.kernel.choice import REAL
from tests.kernel.suite.lib import handed
from tests.kernel.suite.marks import SkippedError
from tests.kernel.table import GuestRow, reason_not_to_run


def is_asked_for() -> bool:
    """Tell whether the kernel's own driver is to be tested, and not our module."""
    return bool(handed("guest")["dcbm"] == REAL)


def replay(row: GuestRow, machine: Machine) -> None:
    """Run a row.

    Raises:
        MismatchError: the kernel answered otherwise.
        SkippedError: the row is about another kernel.
    """
    assert machine.facts.dialect is not Dialect.NO_SERIES, f"DCBM=real, but there is no driver: {machine}"
    reason = reason_not_to_run(row, machine.facts.dialect, machine.facts.driver)
    if reason:
        raise SkippedError(reason)
    with machine.put_back():
        machine.as_loaded()
        Replay(machine.root, _take_nothing, row.dialect).run(row.row)


def _take_nothing(command: Command) -> Reply:
    raise AssertionError(f"{command} is for a kernel that can be told what to do")
