# SPDX-License-Identifier: Apache-2.0
"""Which rows of the fake kernel's table the guest runs, and what is said of the others."""

from __future__ import annotations

import pytest

from numamigration_agent.kernel.probe import DriverState
from numamigration_api.vocabulary import Dialect
from tests.fakekernel.config import HostConfig
from tests.fakekernel.control import Migrate
from tests.fakekernel.host import FakeHost
from tests.fakekernel.seen import SEEN, Do
from tests.host.machine import Machine
from tests.kernel.suite import ownkernel
from tests.kernel.suite.marks import SkippedError, rows_of
from tests.kernel.suite.test_table import test_the_kernel_answers_as_the_table_says as in_the_guest
from tests.kernel.table import (
    NOT_ON_THE_MODULE,
    SCALES,
    GuestRow,
    files_in_the_guest,
    guest_rows,
    is_twin,
    needs_no_switches,
    reason_not_to_run,
)

pytestmark = pytest.mark.uncounted

NAMES = {row.id for row in SEEN}


def test_every_row_on_every_dialect_runs_in_the_guest_or_has_a_reason_why_not() -> None:
    run = [row[0] for row in rows_of(in_the_guest)]
    wanted = {f"{dialect}: {row.id}" for row in SEEN for dialect in row.dialects if row.id not in NOT_ON_THE_MODULE}

    assert set(run) == wanted
    assert len(run) == len(wanted)


def test_what_the_guest_does_not_run_names_rows_of_the_table() -> None:
    assert set(NOT_ON_THE_MODULE) <= NAMES
    assert set(SCALES) <= NAMES


def test_what_only_long_runs_show_of_a_row_is_shown_of_another_dialect_each_time() -> None:
    twins = {row.row.id for row in guest_rows() if is_twin(row)}

    assert twins
    assert twins <= {row.row.id for row in guest_rows() if not is_twin(row)}


def test_every_row_that_the_guest_does_not_run_has_a_reason() -> None:
    assert all(len(reason.split()) > 3 for reason in NOT_ON_THE_MODULE.values())


def test_the_matrix_marks_the_files_that_a_row_writes_and_reads_in_the_guest() -> None:
    files = files_in_the_guest()

    assert (Dialect.V6, "/sys/module/dcbm/parameters/reason_mask") in files
    assert (Dialect.V5, "/sys/module/dcbm/offloading") in files
    assert (Dialect.NO_SERIES, "/proc/sys/kernel/numa_balancing") in files
    assert {dialect for dialect, _ in files} == {Dialect.NO_SERIES, Dialect.V5, Dialect.V6}
    assert not [path for _, path in files if path.endswith("/uevent")]


# --- on a kernel that brings the driver itself -----------------------------------------------------------------------


def row_named(name: str) -> GuestRow:
    return next(row for row in guest_rows() if row.name == name)


def test_a_row_needs_switches_unless_it_reads_and_writes_files_and_migrates_pages() -> None:
    rows = [row.row for row in guest_rows() if needs_no_switches(row.row)]

    assert len(rows) > 250
    assert {type(step.command) for row in rows for step in row.steps if isinstance(step, Do)} == {Migrate}
    assert not [row.id for row in rows if row.host]
    assert not needs_no_switches(row_named("V6: chmod 0600").row)
    assert not needs_no_switches(row_named("V6: 16 folios, one of them tried twice: 17").row)
    assert not needs_no_switches(row_named("V6: a driver that nobody loaded").row)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        pytest.param("V6: unlink", "", id="the kernel's own dialect"),
        pytest.param("V5: unlink", "the kernel's driver is V6", id="another dialect"),
        pytest.param("NoSeries: numa_balancing takes '1' as 1", "", id="what every kernel has"),
        pytest.param("NoSeries: without the series", "the kernel has the series", id="a kernel without the series"),
    ],
)
def test_what_is_about_another_kernel_has_a_reason(name: str, reason: str) -> None:
    assert reason_not_to_run(row_named(name), Dialect.V6, DriverState.MODULE) == reason


def test_a_driver_that_is_built_in_is_not_asked_for_a_modules_files() -> None:
    rows = [row for row in guest_rows() if row.dialect is Dialect.V6 and needs_no_switches(row.row)]

    left_out = [row.row.id for row in rows if reason_not_to_run(row, Dialect.V6, DriverState.BUILT_IN)]

    assert {"a module that nobody uses", "mode of /sys/module/dcbm/refcnt"} <= set(left_out)
    assert "unlink" not in left_out


@pytest.mark.parametrize("dialect", [Dialect.V5, Dialect.V6])
def test_the_rows_that_need_no_switches_are_met_and_every_knob_is_as_before(dialect: Dialect) -> None:
    rows = [row for row in guest_rows() if row.dialect is dialect and needs_no_switches(row.row)]
    with FakeHost(HostConfig(dialect=dialect)) as host:
        machine = Machine(host.root)
        before = {knob.path: machine.text(knob) for knob in machine.facts.knobs}

        for row in rows:
            ownkernel.replay(row, machine, host.do)

        assert {knob.path: machine.text(knob) for knob in machine.facts.knobs} == before
        assert len(host.stores) > 100


def test_a_row_of_another_dialect_is_skipped_and_a_kernel_without_a_driver_fails() -> None:
    with FakeHost(HostConfig(dialect=Dialect.V6)) as host, pytest.raises(SkippedError, match="driver is V6"):
        ownkernel.replay(row_named("V5: unlink"), Machine(host.root), host.do)
    with FakeHost(HostConfig(dialect=Dialect.NO_SERIES)) as host, pytest.raises(AssertionError, match="no driver"):
        ownkernel.replay(row_named("V6: unlink"), Machine(host.root), host.do)
