# SPDX-License-Identifier: Apache-2.0
"""The one module through which the agent migrates pages: its own, filled with a pattern, moved, compared, moved back.

* It runs in a child process, and this file is that child's whole program. An engine that hangs holds the caller in a
  state that no signal ends, 10 s for each batch: then only the child hangs, the agent reads its clock and turns the
  engine off. The memory is the child's too, and gone with it. It dies with the agent as soon as it can (prctl(2)).
* The pattern differs for every request, direction, page and 8 bytes, so that a page left out, left over from an earlier
  direction, put elsewhere or cut short shows. Every byte is compared, and written anew before the way back.
* Small folios stand right before huge ones in one range of addresses: mbind(2) takes a range, and both system calls
  hand all of it to the kernel at once, which cuts it into batches.
* Sizes are asked for, never assumed: arm64 has pages of 4, 16 or 64 KiB. Where a huge page is larger than the memory
  bound, or the kernel has none, the folios are small ones, and the answer says how many were huge.

Sources: move_pages(2), mbind(2), prctl(2); mm/migrate.c, mm/mempolicy.c; arch/x86/entry/syscalls/syscall_64.tbl;
include/uapi/asm-generic/unistd.h (arm64); Documentation/admin-guide/mm/transhuge.rst.
"""

# The child starts with this file alone, so it imports neither our packages nor anything large.
from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

SYSCALL_OR_CPUSET: Final = "syscall_or_cpuset"
"""Migration reason of move_pages(2)."""
MEMPOLICY_MBIND: Final = "mempolicy_mbind"
"""Migration reason of mbind(2) with MPOL_MF_MOVE."""

BATCH_BYTES_MAX: Final = 4 << 20
"""Of one batch. With its copy on the other NUMA node and the pattern, three times this is held at once."""


class Batch(NamedTuple):
    """Folios that one call moves from a NUMA node to another one, and then one call back."""

    source: int
    destination: int
    small: int
    huge: int = 0


class MoveRequest(NamedTuple):
    """What to move.

    Attributes:
        reason: a migration reason that we can cause, which decides the system call.
        salt: makes the bytes of this request unlike those of any other one.
    """

    reason: str
    batches: tuple[Batch, ...]
    salt: int


class Passage(NamedTuple):
    """What came of one direction of a batch.

    Attributes:
        source: NUMA node where the folios were.
        folios: that arrived.
        huge: how many of those were huge.
        left: folios that did not arrive.
        wrong: folios, arrived or not, that hold wrong bytes.
        wrong_at: where the first wrong byte is, counted from the batch's first; -1 when there is none.
        errno: of the system call, or of the first folio that did not arrive; 0 when all went well.
        cause: the same in words.
        seconds: that the system call took.
    """

    source: int
    destination: int
    folios: int
    huge: int = 0
    left: int = 0
    wrong: int = 0
    wrong_at: int = -1
    errno: int = 0
    cause: str = ""
    seconds: float = 0.0


class MoveAnswer(NamedTuple):
    """What came of a request.

    Attributes:
        passages: two for each batch, there and back, in order; those before `errno` stopped the rest.
        errno: why no more was moved; 0 when all was tried.
        cause: the same in words; not empty with errno 0 when the mover itself failed.
        seconds: from the request to the answer.
    """

    passages: tuple[Passage, ...]
    errno: int = 0
    cause: str = ""
    seconds: float = 0.0


Mover = Callable[[MoveRequest], MoveAnswer]
"""Moves pages; may block for as long as the kernel does. ``move_own_pages`` or, on a fake kernel, its twin."""
