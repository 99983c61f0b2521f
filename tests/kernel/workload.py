# SPDX-License-Identifier: Apache-2.0
"""Redis in the guest: one program of the kind that examples/in-memory-computing.yaml is for, and where its pages are.

Its memory is in a cgroup of its own, so that the kernel can be asked to reclaim from it alone, and to tell how much of
it is on which NUMA node. Debian's redis-server and redis-benchmark, the client that comes with it.

Sources: Documentation/admin-guide/cgroup-v2.rst (memory.reclaim, memory.numa_stat); redis-benchmark --help.
"""

from __future__ import annotations

import errno
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.kernel.guest import Guest, Started
from tests.kernel.hands import Hands
from tests.testbed.api import poll

CGROUP: Final = "/sys/fs/cgroup/redis"
KEYS: Final = 2048
VALUE_BYTES: Final = 3500
"""A little less than a page."""
FILL: Final = """
for number = 0, ARGV[1] - 1 do
  redis.call("set", string.format("key:%012d", number), string.rep("x", ARGV[2]))
end
return redis.call("dbsize")
"""
"""Sets the keys that the client gets, without a way over the network for each."""
FOR_EVER: Final = 100_000_000
PAGE_BYTES: Final = 4096
SERVER: Final = ("redis-server", "--bind", "127.0.0.1", "--save", "", "--enable-debug-command", "local")
CLIENT: Final = ("redis-benchmark", "-c", "1", "-P", "16", "-q", "-r", str(KEYS))
SECONDS_MAX: Final = 60.0
END_SECONDS_MAX: Final = 20.0


class Redis:
    """A server that runs on the processor of NUMA node 0, and its client."""

    def __init__(self, guest: Guest, hands: Hands) -> None:
        self._guest, self._hands = guest, hands
        hands.write("/sys/fs/cgroup/cgroup.subtree_control", "+memory")
        assert guest.run(["mkdir", CGROUP]).code == 0
        enter = f'echo 0 >{CGROUP}/cgroup.procs && exec numactl --cpunodebind=0 "$@"'
        self._server = guest.start(["sh", "-ec", enter, "sh", *SERVER])
        poll(lambda: self._ask("ping") == "PONG", "an answer of Redis")

    def end(self) -> None:
        """End the server, and have no such cgroup."""
        _end(self._server)
        assert self._guest.run(["rmdir", CGROUP]).code == 0

    def fill(self) -> None:
        """Set every key."""
        assert self._ask("eval", FILL, "0", str(KEYS), str(VALUE_BYTES)) == str(KEYS)

    def digest(self) -> str:
        """Return a digest of every key and value."""
        return self._ask("debug", "digest")

    @contextmanager
    def used(self) -> Iterator[None]:
        """Have a client get keys by chance for a while."""
        client = self._guest.start([*CLIENT, "-t", "get", "-n", str(FOR_EVER)])
        try:
            yield
        finally:
            _end(client)

    def pages(self, numa_node: int) -> int:
        """Return how many pages of its own it has on a NUMA node."""
        line = re.search(rf"^anon .*\bN{numa_node}=(\d+)", self._hands.read(f"{CGROUP}/memory.numa_stat"), re.MULTILINE)
        assert line is not None
        return int(line[1]) // PAGE_BYTES

    def reclaim(self, wanted: int, numa_node: int) -> int:
        """Have the kernel reclaim until so many of its pages are on a NUMA node; return how many are."""

        def done() -> bool:
            missing = wanted - self.pages(numa_node)
            if missing > 0:
                number = self._hands.ask("write", f"{CGROUP}/memory.reclaim", str(missing * PAGE_BYTES))
                assert number in {0, errno.EAGAIN}, errno.errorcode.get(number, number)  # EAGAIN: it was less
            return missing <= 0

        poll(done, f"{wanted} pages of Redis on NUMA node {numa_node}", timeout=SECONDS_MAX)
        return self.pages(numa_node)

    def _ask(self, *words: str) -> str:
        return self._guest.run(["redis-cli", *words], seconds=SECONDS_MAX).output.strip()


def _end(program: Started) -> None:
    program.signal(signal.SIGKILL)
    program.wait(END_SECONDS_MAX)
