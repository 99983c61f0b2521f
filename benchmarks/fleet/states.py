# SPDX-License-Identifier: Apache-2.0
"""When each node's spec was written, and when its agent had answered, as one watch of all node states tells."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

import msgspec
from msgspec import Struct

from benchmarks.observer import Follower
from tests.demo.stage import STATES
from tests.testbed.controlplane import ControlPlane
from tests.testbed.errors import WaitTimeoutError

PENDING: Final = "Pending"
DELETED: Final = "DELETED"


class Meta(Struct, frozen=True, rename="camel"):
    """``metav1.ObjectMeta``, the part that is used."""

    name: str
    resource_version: str


class Group(Struct, frozen=True):
    """What a node shall have of a group."""

    settings: dict[str, object] = {}
    mode: str = ""


class Spec(Struct, frozen=True):
    """A node state's spec."""

    revision: str = ""
    groups: dict[str, Group] = {}


class Outcome(Struct, frozen=True):
    """What an agent says of a group."""

    state: str = ""


class Status(Struct, frozen=True, rename="camel"):
    """A node state's status."""

    observed_revision: str = ""
    groups: dict[str, Outcome] = {}


class State(Struct, frozen=True):
    """A node state."""

    metadata: Meta
    spec: Spec = Spec()
    status: Status = Status()

    @property
    def is_answered(self) -> bool:
        """Whether the agent has said what came of this very spec."""
        status = self.status
        settled = all(group.state != PENDING for group in status.groups.values())
        return bool(self.spec.revision) and status.observed_revision == self.spec.revision and settled


class Event(Struct, frozen=True):
    """One line of the watch."""

    type: str
    object: State


Wanted = Callable[[Spec], bool]
_event: Final = msgspec.json.Decoder(Event)


class StateLog(Follower):
    """Watches all node states.

    Attributes:
        states: as they are now.
        written: when a node's spec was first seen as expected; since `expect` was called.
        answered: when its agent's answer to such a spec was first seen.
        heard: when a node of those that `listen` named was first heard of since then.
        changes: how often a spec was written otherwise than it was, since then.
        largest: the most bytes that an event of one node state had, since then.
    """

    def __init__(self, plane: ControlPlane) -> None:
        super().__init__(plane, STATES, again=True)
        self._news = threading.Condition()
        self.states: dict[str, State] = {}
        self._forget(lambda _: False)
        self._listened: frozenset[str] = frozenset()
        self.heard: dict[str, float] = {}

    def _forget(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self.written: dict[str, float] = {}
        self.answered: dict[str, float] = {}
        self.changes = self.largest = 0
        self._others: set[str] = set()

    def expect(self, wanted: Wanted) -> None:
        """Begin anew: from now on specs are awaited that are so; nodes whose spec is so already do not count."""
        with self._news:
            self._forget(wanted)
            self._others = {name for name, state in self.states.items() if wanted(state.spec)}

    def listen(self, names: Iterable[str]) -> None:
        """From now on note when these nodes are first heard of, whatever of."""
        with self._news:
            self._listened, self.heard = frozenset(names), {}

    def await_heard(self, seconds: float, check: Callable[[], object]) -> None:
        """Return when all of them were heard of; otherwise as `await_written`."""
        self._await("heard of", lambda: len(self.heard), len(self._listened), seconds, check)

    def await_written(self, count: int, seconds: float, check: Callable[[], object]) -> None:
        """Return when so many nodes are written.

        Args:
            count: how many.
            seconds: at most.
            check: called now and then; raises when there is nothing to wait for any more.

        Raises:
            WaitTimeoutError: they were not within `seconds`.
        """
        self._await("written", lambda: len(self.written), count, seconds, check)

    def await_answered(self, count: int, seconds: float, check: Callable[[], object]) -> None:
        """Return when so many agents have answered; likewise."""
        self._await("answered", lambda: len(self.answered), count, seconds, check)

    def _await(
        self, what: str, found: Callable[[], int], count: int, seconds: float, check: Callable[[], object]
    ) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with self._news:
                if self._news.wait_for(lambda: found() >= count, timeout=1.0):
                    return
            check()
        raise WaitTimeoutError(f"{found()} of {count} node states {what} after {seconds:g} s")

    def _take(self, at: float, line: bytes) -> int:
        event = _event.decode(line)
        state, name = event.object, event.object.metadata.name
        with self._news:
            self.largest = max(self.largest, len(line))
            before = self.states.pop(name, None)
            if event.type == DELETED:
                return int(state.metadata.resource_version)
            self.states[name] = state
            if name in self._listened:
                self.heard.setdefault(name, at)
            self.changes += before is not None and before.spec != state.spec
            if name not in self._others and self._wanted(state.spec):
                self.written.setdefault(name, at)
                if state.is_answered:
                    self.answered.setdefault(name, at)
            self._news.notify_all()
        return int(state.metadata.resource_version)
