# SPDX-License-Identifier: Apache-2.0
"""System calls that take their time: who is held up, by what, and in which order they go on.

A call is made at once and is over at once, unless something holds it up. Then it stays a ``Call`` that is not over, and
whoever made it waits outside; in here nothing waits.

* A gate is the test's own: it holds one store, before it takes effect or after it did and before write(2) returns. No
  kernel has that, so a held store keeps no lock of the kernel, and every other call goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from errno import EINTR
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

    def __init__(self, path: str, work: Callable[[], bytes | int]) -> None:
        """Describe a call; `work` is its effect, done once, and returns what the call returns."""
        self.path = path
        self.over = False
        self.held: When | None = None
        self._work = work
        self._answer: bytes | int | KernelError | None = None

    def __repr__(self) -> str:
        state = "over" if self.over else f"held {self.held}" if self.held else "under way"
        return f"<Call {self.path} {state}>"

    def work(self) -> None:
        """Let it take effect."""
        try:
            self._answer = self._work()
        except KernelError as error:
            self._answer = error

    def interrupt(self) -> None:
        """End it without any effect, as for a caller that was killed."""
        self._answer = KernelError(EINTR)
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


class GateKeeper:
    """The one gate of a host, and who is held at it."""

    def __init__(self) -> None:
        self._gate: Gate | None = None
        self._passed = 0
        self.held: Call | None = None

    def close(self, gate: Gate) -> None:
        """Put a gate up, in place of one that nobody has reached.

        Raises:
            ValueError: somebody is held at the old one.
        """
        if self.held:
            raise ValueError(f"{self.held} is held at the gate; open it first")
        self._gate, self._passed = gate, 0

    def meets(self, path: str) -> When | None:
        """Count a store; return on which side it is to be held, None when it passes."""
        gate = self._gate
        if gate is None or gate.path not in {"", path}:
            return None
        self._passed += 1
        if self._passed != gate.nth:
            return None
        self._gate = None
        return gate.when

    def open(self) -> Call | None:
        """Take the gate away; return who was held at it."""
        self._gate, held, self.held = None, self.held, None
        return held
