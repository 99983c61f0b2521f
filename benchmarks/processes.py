# SPDX-License-Identifier: Apache-2.0
"""What a running process costs, read from the kernel.

Sources: Documentation/ABI/testing/procfs-smaps_rollup; Documentation/filesystems/proc.rst; clock_getcpuclockid(3).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final, NamedTuple

CPUCLOCK_SCHED: Final = 2
"""<linux/posix-timers.h>: the scheduler's count, in nanoseconds and not in ticks."""

RESET_PEAK: Final = "5"
"""Documentation/filesystems/proc.rst, clear_refs: VmHWM becomes VmRSS."""


class Memory(NamedTuple):
    """Bytes of one process.

    Attributes:
        rss: resident, shared pages counted whole.
        pss: resident, shared pages counted by their share.
        uss: resident and not shared.
    """

    rss: int
    pss: int
    uss: int


def memory(pid: int) -> Memory:
    """Return what a process has in memory now."""
    lines = [line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]]
    kilobytes = {fields[0].rstrip(":"): int(fields[1]) for fields in lines}
    uss = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    return Memory(*(1024 * count for count in (kilobytes["Rss"], kilobytes["Pss"], uss)))


def reset_peak(pid: int) -> None:
    """Let `peak_rss` begin anew with what is resident now; may be asked of our own user's processes."""
    Path(f"/proc/{pid}/clear_refs").write_text(RESET_PEAK)


def peak_rss(pid: int) -> int:
    """Return the most bytes that were resident at a time."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return 1024 * int(fields["VmHWM"].split()[0])


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of all threads of a process, those that have ended included.

    /proc/PID/task/*/schedstat forgets ended threads, and /proc/PID/stat counts in ticks of 10 ms.
    """
    return time.clock_gettime((~pid << 3) | CPUCLOCK_SCHED)
