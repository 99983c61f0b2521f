# SPDX-License-Identifier: Apache-2.0
"""Which rows of the fake kernel's table the guest runs, and what is said of the others."""

from __future__ import annotations

from numamigration_api.vocabulary import Dialect
from tests.fakekernel.seen import SEEN
from tests.kernel.suite.marks import rows_of
from tests.kernel.suite.realhost import SCALES
from tests.kernel.suite.test_table import test_the_kernel_answers_as_the_table_says as in_the_guest
from tests.kernel.table import NOT_ON_THE_MODULE, files_in_the_guest

NAMES = {row.id for row in SEEN}


def test_every_row_on_every_dialect_runs_in_the_guest_or_has_a_reason_why_not() -> None:
    run = [row[0] for row in rows_of(in_the_guest)]
    wanted = {f"{dialect}: {row.id}" for row in SEEN for dialect in row.dialects if row.id not in NOT_ON_THE_MODULE}

    assert set(run) == wanted
    assert len(run) == len(wanted)


def test_what_the_guest_does_not_run_names_rows_of_the_table() -> None:
    assert set(NOT_ON_THE_MODULE) <= NAMES
    assert set(SCALES) <= NAMES


def test_every_row_that_the_guest_does_not_run_has_a_reason() -> None:
    assert all(len(reason.split()) > 3 for reason in NOT_ON_THE_MODULE.values())


def test_the_matrix_marks_the_files_that_a_row_writes_and_reads_in_the_guest() -> None:
    files = files_in_the_guest()

    assert (Dialect.V6, "/sys/module/dcbm/parameters/reason_mask") in files
    assert (Dialect.V5, "/sys/module/dcbm/offloading") in files
    assert (Dialect.NO_SERIES, "/proc/sys/kernel/numa_balancing") in files
    assert {dialect for dialect, _ in files} == {Dialect.NO_SERIES, Dialect.V5, Dialect.V6}
    assert not [path for _, path in files if path.endswith("/uevent")]
