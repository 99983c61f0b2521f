# SPDX-License-Identifier: Apache-2.0
"""Which rows of ``tests.fakekernel.seen`` run in the guest too, on real sysfs and our module; the rest with the reason.

A row that runs here and on the fake is what makes the fake's word good: both give the very same answers, or the build
fails.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from numamigration_agent.kernel.probe import DriverState
from numamigration_api.vocabulary import Dialect
from tests.fakekernel.control import Migrate
from tests.fakekernel.replay import DCBM
from tests.fakekernel.seen import SEEN, Attempt, Counted, Do, Lists, Read, Seen, Step, Within, Write

NOT_LOADABLE: Final = "the guest's driver is a module that is loaded; only a kernel built anew has it built in"

NO_CONTIG_RANGE: Final = "drivers and 1 GiB pages ask for contiguous ranges; no program can in NUMA nodes of 512 MiB"

NOT_ON_THE_MODULE: Final = {
    "11 reasons on 7.3": "the guest's kernel is 6.12, which knows ten reasons",
    "a blocked turn-off of a built-in driver blocks the parameters of every built-in module": NOT_LOADABLE,
    "what a built-in driver's folder has": NOT_LOADABLE,
    "dcbm.reason_mask=demotion on the command line": NOT_LOADABLE,
    "dcbm.reason_mask=0x100 on the command line": NOT_LOADABLE,
    "contig_range alone is offloaded": NO_CONTIG_RANGE,
    "contig_range hands over 1 to 32 folios": NO_CONTIG_RANGE,
    "contig_range is offloaded: False": NO_CONTIG_RANGE,
    "a caller without a synchronous pass copies once": "nobody can tell NUMA balancing how many folios to move",
    "a PCI device that has no NUMA node shows -1": "the guest's engine is a platform device, and has no file then",
    "the configuration tells that it is a module": "Debian's kernel is made without CONFIG_IKCONFIG",
    "nothing outlasts a reboot": "all rows run in one boot; test_boots.py has the guest's reboot",
}
"""Row by name, and why our module in the guest cannot show it."""

MORE_THAN_FILES: Final = frozenset(
    {
        "use a descriptor held over an unload",
        "kill the writer of a turn-off",
        "configured as a module",
        "is driven by ptdma",
        "chmod 0600",  # nobody would put the mode back
    }
)
"""Attempts of the table for which a driver has to be unloaded, an engine to be a certain one, or who is not undone."""

WITHOUT_THE_SERIES: Final = frozenset({"without the series"})
"""Rows of kernels without the series that one with it answers otherwise; the others are about what every kernel has."""

SCALES: Final = {
    "1024 base pages on a hung engine take 20 s, and offload stays on": 0.3,
    "two slow channels take 18 s without error or log line": 0.3,
    "a killed writer is gone when its turn-off is over": 0.4,
    "25 failed batches leave ten lines": 1.0,
}
"""Seconds here for a second of these rows, which look shortly before something happens, start a program meanwhile, or
take the time that the kernel alone decides. So they take seconds here too."""

MODULE_FOLDER: Final = "/sys/module/dcbm"


class GuestRow(NamedTuple):
    """One row on one dialect, as the guest runs it."""

    name: str
    row: Seen
    dialect: Dialect


def files_in_the_guest() -> frozenset[tuple[Dialect, str]]:
    """Return the files, by dialect, that a row writes and reads back in the guest."""
    return frozenset((row.dialect, path) for row in guest_rows() for path in _written_and_read(row))


def _written_and_read(row: GuestRow) -> set[str]:
    written = {step.file for step in row.row.steps if isinstance(step, Write) and not step.errno}
    read = {step.file for step in row.row.steps if isinstance(step, Read) and not step.errno}
    return {path.replace("{dcbm}", DCBM.get(row.dialect, "")) for path in written & read}


def guest_rows() -> tuple[GuestRow, ...]:
    """Return what runs in the guest, one dialect after the other, for each wants another module."""
    return tuple(
        GuestRow(f"{dialect}: {row.id}", row, dialect)
        for dialect in (Dialect.NO_SERIES, Dialect.V5, Dialect.V6)
        for row in SEEN
        if dialect in row.dialects and row.id not in NOT_ON_THE_MODULE
    )


def is_twin(row: GuestRow) -> bool:
    """Tell whether a row takes seconds, and shows what another dialect with the same engine and waits shows as well."""
    return row.dialect is Dialect.V5 and row.row.id in SCALES


def needs_no_switches(row: Seen) -> bool:
    """Tell whether a row runs on any driver: it loads none, and tells no engine anything but to copy."""
    return not row.host and all(_runs_anywhere(step) for step in row.steps)


def reason_not_to_run(row: GuestRow, dialect: Dialect, driver: DriverState) -> str:
    """Return why a row that needs no switches is not about a kernel with its own driver; empty: it is.

    Args:
        row: of the table.
        dialect: that the agent's probe has found, one with the series.
        driver: likewise.
    """
    if row.row.id in WITHOUT_THE_SERIES:
        return "the kernel has the series"
    if row.dialect not in {Dialect.NO_SERIES, dialect}:
        return f"the kernel's driver is {dialect}"
    if driver is DriverState.BUILT_IN and any(_place(step).startswith(MODULE_FOLDER) for step in row.row.steps):
        return "the driver is built in, and has no module's files"
    return ""


def _runs_anywhere(step: Step) -> bool:
    match step:
        case Do(Migrate(workload=workload)):
            return not workload.retried_share  # which our module alone can be told
        case Attempt(action):
            return action not in MORE_THAN_FILES
        case _:
            return isinstance(step, Write | Read | Lists | Counted | Within)


def _place(step: Step) -> str:
    match step:
        case Write() | Read():
            return step.file
        case Lists():
            return step.folder
        case Attempt():
            return step.path
        case _:
            return ""
