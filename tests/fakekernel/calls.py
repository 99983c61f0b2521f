# SPDX-License-Identifier: Apache-2.0
"""System calls that take their time: who is held up, by what, and in which order they go on.

A call is made at once and is over at once, unless something holds it up. Then it stays a ``Call`` that is not over, and
whoever made it waits outside; in here nothing waits.

* A gate is the test's own: it holds one store, before it takes effect or after it did and before write(2) returns. No
  kernel has that, so a held store keeps no lock of the kernel, and every other call goes on.
* A lock is the kernel's: calls that need the same one go one by one, in the order in which they came. The store that
  turns offload off keeps its lock until no batch is in flight, which may take 10 s for each channel and longer.
* In a kernel such a caller is in state D: a signal, SIGKILL too, takes effect when the call is over. So a call here
  goes on to its end whatever becomes of its caller.

Sources: kernel/params.c (kernel_param_lock, one mutex per module, one for all that is built in); dcbm of "mm: batch
migration copy offload".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from tests.fakekernel.parsing import KernelError


class When(StrEnum):
    """On which side of its effect a store is held."""

    BEFORE = "before"
    AFTER = "after"


class Gate(Struct, frozen=True):
    """Holds one of the next stores."""

    path: str = ""
    """As on a real host; empty means any file. Not resolved: a store through a link counts by the link's target."""
    nth: Annotated[int, Meta(ge=1)] = 1
    """Which of the next stores to this path; 1 is the very next."""
    when: When = When.BEFORE


class StillUnderWayError(Exception):
    """The call is held up; nobody in this process can wait for it."""


class Call:
    """One read(2) or write(2) that may be held up."""

    def __init__(self, path: str, work: Callable[[], bytes | int], lock: str = "") -> None:
        """Describe a call; `work` is its effect, done once, and returns what the call returns."""
        self.path = path
        self.lock = lock
        self.working = self.turns_off = False
        self.over = False
        self.held: When | None = None
        self._work = work
        self._answer: bytes | int | KernelError | None = None

    def __repr__(self) -> str:
        state = "over" if self.over else f"held {self.held}" if self.held else "blocked"
        return f"<Call {self.path} {state}>"

    def work(self) -> None:
        """Let it take effect."""
        self.working = True
        try:
            self._answer = self._work()
        except KernelError as error:
            self._answer = error

    def interrupt(self, number: int) -> None:
        """End it with an errno and without any effect, as for a caller that was killed."""
        self._answer = KernelError(number)
        self.over = True

    def result(self) -> bytes | int:
        """Return what the call answers.

        Raises:
            KernelError: that is its answer.
            StillUnderWayError: it is not over.
        """
        if not self.over or self._answer is None:
            raise StillUnderWayError(repr(self))
        if isinstance(self._answer, KernelError):
            raise self._answer
        return self._answer


class Locks:
    """Who works under which lock of the kernel, and who waits for it."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[Call]] = {}

    @property
    def blocked(self) -> list[Call]:
        """Calls that are not over."""
        return [call for queue in self._queues.values() for call in queue]

    def add(self, call: Call) -> None:
        """Let a call wait for its lock."""
        self._queues.setdefault(call.lock, deque()).append(call)

    def proceed(self, turning_off: Callable[[], bool]) -> Iterator[Call]:
        """Let calls work in turn and yield those that are done; who turns off keeps its lock until that is over."""
        for queue in self._queues.values():
            while queue:
                call = queue[0]
                if not call.working:
                    already = turning_off()
                    call.work()
                    call.turns_off = turning_off() and not already
                if call.turns_off and turning_off():
                    break
                yield queue.popleft()


class GateKeeper:
    """The one gate of a host, and who is held at it."""

    def __init__(self) -> None:
        self._gate: Gate | None = None
        self._passed = 0
        self._expected: Call | None = None
        self.held: Call | None = None

    def close(self, gate: Gate) -> None:
        """Put a gate up, in place of one that nobody has reached.

        Raises:
            ValueError: somebody is held at the old one.
        """
        if self.held:
            raise ValueError(f"{self.held} is held at the gate; open it first")
        self._gate, self._passed, self._expected = gate, 0, None

    def holds_before(self, call: Call) -> bool:
        """Count a store that comes; tell whether it is held, so that it has no effect yet."""
        gate = self._gate
        if gate is None or gate.path not in {"", call.path}:
            return False
        self._passed += 1
        if self._passed != gate.nth:
            return False
        self._gate = None
        if gate.when is When.AFTER:
            self._expected = call
            return False
        self._hold(call, When.BEFORE)
        return True

    def holds_after(self, call: Call) -> bool:
        """Tell whether a store that has had its effect is held."""
        if self._expected is not call:
            return False
        self._expected = None
        self._hold(call, When.AFTER)
        return True

    def _hold(self, call: Call, side: When) -> None:
        self.held, call.held = call, side

    def open(self) -> Call | None:
        """Take the gate away; return who was held at it."""
        self._gate = self._expected = None
        held, self.held = self.held, None
        return held
