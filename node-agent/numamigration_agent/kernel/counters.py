# SPDX-License-Identifier: Apache-2.0
"""Counters of the driver and of /proc/vmstat, read only: any write would reset them.

* A counter that this kernel lacks, or that could not be read, is left out; it is never 0.
* A counter may fall: a reset by somebody's write, or a driver that was loaded anew. Rates are made elsewhere.
* The driver counts folios, /proc/vmstat base pages; neither follows from the other.
* Demoted pages are the sum of those ``pgdemote_*`` names that the kernel has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from numamigration_agent.kernel.dialects import COUNTERS, Counter, counters_of
from numamigration_agent.kernel.sysfs import Present, Sysfs
from numamigration_api.vocabulary import Dialect

Counts = Mapping[str, int]
"""By ``Counter.name``, which are the names of ``status.statistics`` in snake case."""

VMSTAT_PATH: Final = "/proc/vmstat"
_VMSTAT_KEYS: Final = sorted({key for counter in COUNTERS for key in counter.vmstat_keys})
_VMSTAT_LINE: Final = re.compile(rf"^({'|'.join(_VMSTAT_KEYS)}) ([0-9]+)$", re.MULTILINE)


def read_counters(sysfs: Sysfs, dialect: Dialect) -> Counts:
    """Read every counter of a dialect that this kernel has."""
    vmstat = parse_vmstat(_text(sysfs, VMSTAT_PATH))
    found = ((counter.name, _count(sysfs, counter, vmstat)) for counter in counters_of(dialect))
    return {name: count for name, count in found if count is not None}


def parse_vmstat(text: str) -> Mapping[str, int]:
    """Return those numbers of /proc/vmstat that counters are made from; lines of another form are skipped."""
    return {name: int(number) for name, number in _VMSTAT_LINE.findall(text)}


def _count(sysfs: Sysfs, counter: Counter, vmstat: Mapping[str, int]) -> int | None:
    if counter.path:
        text = _text(sysfs, counter.path).strip()
        return int(text) if text.isdecimal() else None
    found = [vmstat[key] for key in counter.vmstat_keys if key in vmstat]
    return sum(found) if found else None


def _text(sysfs: Sysfs, path: str) -> str:
    reading = sysfs.read(path)
    return reading.text if isinstance(reading, Present) else ""
