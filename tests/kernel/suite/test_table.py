# SPDX-License-Identifier: Apache-2.0
"""Fake = kernel: each row of the table that the fake kernel answers to, on real sysfs and with real pages.

``tests/unit/test_fakekernel_seen.py`` runs the same rows, with the same ``Replay``, on the mounted fake. This file
alone needs more than the standard library: rows are made of the commands of the fake, which are msgspec structs,
and a second notation of them could drift from the first. ``tests.kernel.session`` hands msgspec over.
"""

from __future__ import annotations

from pathlib import Path

from tests.host.machine import Machine
from tests.kernel.suite import ownkernel
from tests.kernel.suite.marks import cases, needs_switches_where
from tests.kernel.suite.realhost import RealHost, be_quiet
from tests.kernel.table import GuestRow, guest_rows, needs_only_files


@needs_switches_where(lambda row: not needs_only_files(row.row))
@cases(*((row.name, row) for row in guest_rows()))
def test_the_kernel_answers_as_the_table_says(row: GuestRow) -> None:
    if ownkernel.is_asked_for():
        be_quiet()
        ownkernel.replay(row, Machine(Path("/")))
        return
    with RealHost(row) as host:
        host.replay()
