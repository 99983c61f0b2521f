# SPDX-License-Identifier: Apache-2.0
"""The kernel's log (/dev/kmsg) between two moments, and the lines that mean a bug in the kernel or in a module.

Source: Documentation/ABI/testing/dev-kmsg.
"""

from __future__ import annotations

import os
import re
from typing import Final, Protocol

SPLAT: Final = re.compile(
    r"BUG:|WARNING: CPU|Oops|general protection fault|kernel BUG at|Kernel panic|refcount_t:|"
    r"UBSAN|INFO: task .* blocked|list_(add|del) corruption"
)
RECORD_BYTES_MAX: Final = 8192
"""The kernel's own bound of one record (PRINTKRB_RECORD_MAX)."""


class Log(Protocol):
    """What came since it was last looked at."""

    def skip(self) -> None: ...

    def lines(self) -> list[str]: ...


class Reader:
    """Reads what came since it last did."""

    def __init__(self) -> None:
        self._descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        self.skip()

    def skip(self) -> None:
        """Leave out what there is until now."""
        os.lseek(self._descriptor, 0, os.SEEK_END)

    def lines(self) -> list[str]:
        """Return the new lines."""
        found: list[str] = []
        while True:
            try:
                record = os.read(self._descriptor, RECORD_BYTES_MAX)
            except BlockingIOError:
                return found
            except BrokenPipeError:
                continue  # records were overwritten before they were read; the next one is there
            found.append(text(record))


def text(record: bytes) -> str:
    """Return the message of one record: prefix, semicolon, message; further lines are key-value pairs."""
    return record.decode(errors="replace").partition(";")[2].splitlines()[0]


def splats(lines: list[str]) -> list[str]:
    """Return the lines that tell of a bug in the kernel."""
    return [line for line in lines if SPLAT.search(line)]
