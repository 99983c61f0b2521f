# SPDX-License-Identifier: Apache-2.0
"""Which fault met which step of the protocol: what a run of many schedules has to show to be worth anything.

A fault of a request meets the step that the request was to take. Any other fault meets the steps that are taken within
some seconds of it, before and after.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from numamigration_api.vocabulary import EPOCH_ANNOTATION
from tests.simulation.clock import Clock
from tests.simulation.kernels import GROUPS
from tests.simulation.network import REQUEST_FAULTS
from tests.simulation.objects import find
from tests.simulation.server import EVENTS, LEASES, POLICIES, STATES, Request, Written
from tests.simulation.wanted import FINALIZER, is_safe, same_wish

NEAR_SECONDS: Final = 3.0
STEPS: Final = (
    "lease taken",
    "lease kept",
    "epoch claimed",
    "list",
    "watch",
    "finalizer set",
    "state created",
    "push",
    "safe push",
    "agent applied",
    "report",
    "restored",
    "finalizer dropped",
    "policy status",
    "event",
)
REQUEST_STEPS: Final = tuple(step for step in STEPS if step != "agent applied")
WORLD_FAULTS: Final = (
    "operator crash",
    "operator ends",
    "operator stopped",
    "agent crash",
    "agent stopped",
    "node reboot",
    "node dead",
    "kernel refuses",
    "kernel corrupts",
    "kernel stalls",
    "clock jump",
    "cut off",
    "cut",
    "slow",
    "duplicate",
    "expired",
)
FAULTS: Final = (*REQUEST_FAULTS, *WORLD_FAULTS)
NO_SUCH_PAIR: Final = frozenset(
    {("409", "list"), ("409", "watch"), ("500 after", "list"), ("500 after", "watch"), ("late", "watch")}
)
"""A list changes nothing, so it meets no conflict and has no effect."""
PAIRS: Final = frozenset(
    {(fault, step) for fault in REQUEST_FAULTS for step in REQUEST_STEPS} - NO_SUCH_PAIR
    | {(fault, step) for fault in WORLD_FAULTS for step in STEPS}
)


class Coverage:
    """What one schedule has met.

    Attributes:
        met: pairs of fault and step.
        faults: how many.
    """

    def __init__(self, clock: Clock) -> None:
        self.met: set[tuple[str, str]] = set()
        self.faults = 0
        self._clock = clock
        self._steps: deque[tuple[float, str]] = deque()
        self._faults: deque[tuple[float, str]] = deque()

    def fault(self, name: str) -> None:
        """Take in a fault."""
        self.faults += 1
        self._forget()
        self._faults.append((self._clock.now, name))
        self.met.update((name, step) for _, step in self._steps)

    def step(self, name: str) -> None:
        """Take in a step."""
        self._forget()
        self._steps.append((self._clock.now, name))
        self.met.update((fault, name) for _, fault in self._faults)

    def request_fault(self, name: str, request: Request) -> None:
        """Take in a fault of a request."""
        if name not in REQUEST_FAULTS:
            self.fault(name)
            return
        self.faults += 1
        for step in asked_for(request):
            self.met.add((name, step))

    def _forget(self) -> None:
        for queue in (self._steps, self._faults):
            while queue and queue[0][0] < self._clock.now - NEAR_SECONDS:
                queue.popleft()

    def wrote(self, written: Written) -> None:
        """Take in the step that a write is."""
        for step in taken(written):
            self.step(step)


def asked_for(request: Request) -> tuple[str, ...]:
    """Return the steps that a request may be, by what it asks for."""
    if not request.writes:
        if request.collection == LEASES:
            return ("lease kept",)
        return ("watch",) if "watch" in request.query else ("list",)
    match request.collection:
        case c if c == LEASES:
            return (
                ("epoch claimed", "lease taken") if b"leader-epoch" in request.body else ("lease taken", "lease kept")
            )
        case c if c == EVENTS:
            return ("event",)
        case c if c == POLICIES and request.path.endswith("/status"):
            return ("policy status",)
        case c if c == POLICIES:
            return ("finalizer set",) if b"MigrationPolicy" in request.body else ("finalizer dropped",)
        case c if c == STATES and request.path.endswith("/status"):
            return ("restored", "report") if b'"Restored"' in request.body else ("report",)
        case _:
            return ("state created", "push") if b'"mode":"Apply"' in request.body else ("state created", "safe push")


def taken(written: Written) -> tuple[str, ...]:
    """Return the steps that a write was."""
    before, after = written.before or {}, written.after or {}
    match written.collection:
        case c if c == LEASES:
            return _lease_steps(before, after)
        case c if c == EVENTS:
            return ("event",)
        case c if c == POLICIES and after:
            held = [FINALIZER in (one.get("metadata", {}).get("finalizers") or []) for one in (before, after)]
            moved = ("policy status",) if before.get("status") != after.get("status") else ()
            return (
                *moved,
                *{(False, True): ("finalizer set",), (True, False): ("finalizer dropped",)}.get((held[0], held[1]), ()),
            )
        case c if c == POLICIES:
            return ("finalizer dropped",)
        case c if c == STATES and before.get("status") != after.get("status") and after:
            results = find(after, ("status", "groups")) or {}
            done = any(one["state"] == "Restored" for one in results.values())
            return ("report", "restored") if done else ("report",)
        case c if c == STATES and after:
            return _push_steps(before, after)
        case _:
            return ()


def _lease_steps(before: dict[str, object], after: dict[str, object]) -> tuple[str, ...]:
    path = ("spec", "holderIdentity")
    if find(before, path) != find(after, path):
        return ("lease taken",)
    epoch = ("metadata", "annotations", EPOCH_ANNOTATION)
    return ("epoch claimed",) if find(before, epoch) != find(after, epoch) else ("lease kept",)


def _push_steps(before: dict[str, object], after: dict[str, object]) -> tuple[str, ...]:
    if not before:
        return ("state created",)
    pairs = [
        (group, find(before, ("spec", "groups", group)), find(after, ("spec", "groups", group))) for group in GROUPS
    ]
    moved = [(group, new) for group, old, new in pairs if not same_wish(old, new)]
    if not moved:
        return ()
    return ("safe push",) if all(is_safe(group, new) for group, new in moved) else ("push",)
