# SPDX-License-Identifier: Apache-2.0
"""How much memory this process may still have before the kernel ends somebody for it: of its own control groups.

* Both versions, and every group from the process's own up to the topmost that can be seen: any of them may have the
  tightest limit. In a container the topmost one is the container's, by its mount or by its namespace.
* File pages that nobody has used for long are given back before anybody is ended, so they do not count as taken.
* What cannot be read is no limit: a group that has none looks the same.

Sources: cgroups(7); Documentation/admin-guide/cgroup-v2.rst (memory.max, memory.current) and cgroup-v1/memory.rst.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

Read = Callable[[str], str | None]
"""Returns what a file says; None when it cannot be read."""

UNLIMITED: Final = 1 << 60  # version 1 says "no limit" with a number just below 2^63


class Files(NamedTuple):
    """Where a version has its groups, and what it calls their files."""

    root: str
    limit: str
    usage: str
    idle: str
    """In memory.stat."""


V1: Final = Files("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2: Final = Files("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")


def memory_room(read: Read) -> int | None:
    """Return the bytes to the nearest limit; None when there is none."""
    rooms = [_room(read, files, path) for files, group in _groups(read) for path in _upwards(group)]
    return min((room for room in rooms if room is not None), default=None)


def _groups(read: Read) -> Iterator[tuple[Files, str]]:
    for line in (read("/proc/self/cgroup") or "").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            yield V2, path
        elif "memory" in controllers.split(","):
            yield V1, path


def _upwards(path: str) -> Iterator[str]:
    parts = [part for part in path.split("/") if part not in {"", ".."}]
    for depth in range(len(parts), -1, -1):
        yield "".join(f"/{part}" for part in parts[:depth])


def _room(read: Read, files: Files, path: str) -> int | None:
    limit, usage = (_number(read(f"{files.root}{path}/{name}")) for name in (files.limit, files.usage))
    if limit is None or usage is None or limit >= UNLIMITED:
        return None
    stat = (line.partition(" ") for line in (read(f"{files.root}{path}/memory.stat") or "").splitlines())
    idle = next((_number(number) for name, _, number in stat if name == files.idle), None) or 0
    return max(0, limit - max(0, usage - idle))


def _number(text: str | None) -> int | None:
    stripped = (text or "").strip()
    return int(stripped) if stripped.isascii() and stripped.isdigit() and len(stripped) <= 20 else None
