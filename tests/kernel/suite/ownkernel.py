# SPDX-License-Identifier: Apache-2.0
"""The table's rows on the driver that the guest's kernel brings itself (``DCBM=real``).

Nobody loads or unloads it, and no engine is told anything: rows write files, read files, and migrate pages. Each begins
with the values of a driver that was just loaded, and every knob is put back after it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from numamigration_api.vocabulary import Dialect
from tests.fakekernel.control import Command, Migrate, Reply
from tests.fakekernel.replay import DCBM, Replay
from tests.host.machine import Machine
from tests.kernel.choice import REAL
from tests.kernel.suite import causes
from tests.kernel.suite.lib import handed
from tests.kernel.suite.marks import SkippedError
from tests.kernel.suite.realhost import RealHost, be_quiet, rest_files
from tests.kernel.table import GuestRow, reason_not_to_run


def is_asked_for() -> bool:
    """Tell whether the kernel's own driver is to be tested, and not our module."""
    return bool(handed("guest")["dcbm"] == REAL)


class OwnHost(RealHost):
    """The guest as one row finds it, with a driver and an engine that are as they are."""

    def __enter__(self) -> Self:
        be_quiet()
        causes.set_policy(causes.MPOL_LOCAL)
        self._find_block()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_migrations()

    def replay(self) -> None:
        """Run the row.

        Raises:
            MismatchError: the kernel answered otherwise.
            SkippedError: the row is about another kernel.
        """
        replay(self._row, Machine(Path("/")), self.do)

    def _performers(self) -> dict[type, Callable[..., Reply | None]]:
        return {Migrate: lambda command: self._move(command.workload, command.folios)}


def replay(row: GuestRow, machine: Machine, do: Callable[[Command], Reply]) -> None:
    """Run a row on a machine whose kernel takes the commands to migrate; raises as ``OwnHost.replay`` does."""
    dialect = machine.facts.dialect
    assert dialect is not Dialect.NO_SERIES, f"DCBM=real, but there is no driver: {machine}"
    reason = reason_not_to_run(row, dialect, machine.facts.driver)
    if reason:
        raise SkippedError(reason)
    with machine.put_back():
        rest_files(machine.root / DCBM[dialect].lstrip("/"))
        Replay(machine.root, do, row.dialect).run(row.row)
