# SPDX-License-Identifier: Apache-2.0
"""Fake = kernel: each row of the table that the fake kernel answers to, on real sysfs and with real pages.

``tests/unit/test_fakekernel_seen.py`` runs the same rows, with the same ``Replay``, on the mounted fake. This file
alone needs more than the standard library: rows are made of the commands of the fake, which are msgspec structs,
and a second notation of them could drift from the first. ``tests.kernel.session`` hands msgspec over.
"""

from __future__ import annotations

from tests.kernel.suite.marks import cases, needs_switches_where
from tests.kernel.suite.ownkernel import OwnHost, is_asked_for
from tests.kernel.suite.realhost import RealHost
from tests.kernel.table import GuestRow, guest_rows, needs_no_switches


@needs_switches_where(lambda row: not needs_no_switches(row.row))
@cases(*((row.name, row) for row in guest_rows()))
def test_the_kernel_answers_as_the_table_says(row: GuestRow) -> None:
    with OwnHost(row) if is_asked_for() else RealHost(row) as host:
        host.replay()
