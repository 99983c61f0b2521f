# SPDX-License-Identifier: Apache-2.0
"""Which fault met which step of the protocol: what a run of many schedules has to show to be worth anything.

A fault of a request meets the step that the request was to take. Any other fault meets the steps that are taken within
some seconds of it, before and after.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from numamigration_api.vocabulary import EPOCH_ANNOTATION, PROBE_MANAGER
from tests.simulation.clock import Clock
from tests.simulation.kernels import GROUPS
from tests.simulation.measuring import ENDED
from tests.simulation.network import REQUEST_FAULTS
from tests.simulation.objects import Json, find
from tests.simulation.rollouts import ledger, verdicts
from tests.simulation.server import (
    CONFIG_MAPS,
    EVENTS,
    LEASES,
    POLICIES,
    PROFILES,
    REVISIONS,
    STATES,
    Request,
    Written,
)
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
    "claim",
    "relist",
    "revision stored",
    "reservation",
    "soaked",
    "proven",
    "verdict",
    "rollback",
    "hold",
    "readiness read",
)
TUNED_STEPS: Final = ("probe asked", "probe answered", "profile made", "profile told")
"""Of schedules whose policies are tuned."""
REQUEST_STEPS: Final = tuple(step for step in STEPS if step not in {"agent applied", "relist", "rollback"})
"""Those of all schedules that a single request shows; a rollback looks like any push."""
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
    "kernel fails",
    "node not ready",
    "clock jump",
    "cut off",
    "cut",
    "slow",
    "duplicate",
    "expired",
)
FAULTS: Final = (*REQUEST_FAULTS, *WORLD_FAULTS)
ALL_STEPS: Final = (*STEPS, *TUNED_STEPS)
NO_SUCH_PAIR: Final = frozenset(
    {(fault, step) for fault in ("409", "500 after") for step in ("list", "watch", "readiness read")}
    | {("late", "watch")}
)
"""What only reads changes nothing, so it meets no conflict and has no effect."""
PAIRS: Final = frozenset(
    {(fault, step) for fault in REQUEST_FAULTS for step in (*REQUEST_STEPS, *TUNED_STEPS)} - NO_SUCH_PAIR
    | {(fault, step) for fault in WORLD_FAULTS for step in ALL_STEPS}
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

    def read(self, request: Request) -> None:
        """Take in the step that a request is which reads."""
        for step in asked_for(request):
            self.step(step)

    def _forget(self) -> None:
        for queue in (self._steps, self._faults):
            while queue and queue[0][0] < self._clock.now - NEAR_SECONDS:
                queue.popleft()

    def wrote(self, written: Written) -> None:
        """Take in the steps that a write is."""
        for step in taken(written):
            self.step(step)


def asked_for(request: Request) -> tuple[str, ...]:
    """Return the steps that a request may be, by what it asks for."""
    if not request.writes:
        return (_asked_to_read(request),)
    match request.collection:
        case c if c == LEASES:
            return (
                ("epoch claimed", "lease taken") if b"leader-epoch" in request.body else ("lease taken", "lease kept")
            )
        case c if c == EVENTS:
            return ("event",)
        case c if c == POLICIES and request.path.endswith("/status"):
            return _asked_of_a_status(request.body)
        case c if c == REVISIONS:
            words = {"verdict": b'\\"Failed\\"', "proven": b'\\"Proven\\"'}
            return (*(step for step, word in words.items() if word in request.body), "revision stored")
        case c if c == CONFIG_MAPS:
            return ("hold",)
        case c if c == POLICIES:
            return ("finalizer set",) if b"MigrationPolicy" in request.body else ("finalizer dropped",)
        case c if c == PROFILES:
            return ("profile told",) if request.path.endswith("/status") else ("profile made",)
        case _:
            return _asked_of_a_state(request)


def _asked_of_a_state(request: Request) -> tuple[str, ...]:
    if request.path.endswith("/status"):
        words = {"probe answered": b'"probe"', "restored": b'"Restored"', "soaked": b'"soakedRevision"'}
        return (*(step for step, word in words.items() if word in request.body), "report")
    if request.query.get("fieldManager") == PROBE_MANAGER:
        return ("probe asked",)
    return ("state created", "push") if b'"mode":"Apply"' in request.body else ("state created", "safe push")


def _asked_to_read(request: Request) -> str:
    if request.collection == LEASES:
        return "lease kept"
    if request.path != request.collection:
        return "readiness read"
    return "watch" if "watch" in request.query else "list"


def _asked_of_a_status(body: bytes) -> tuple[str, ...]:
    if b'"carried":["' in body:
        return ("claim", "policy status")
    return ("reservation", "policy status") if b'"reserved":["' in body else ("policy status",)


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
            moved = _status_steps(before, after)
            return (
                *moved,
                *{(False, True): ("finalizer set",), (True, False): ("finalizer dropped",)}.get((held[0], held[1]), ()),
            )
        case c if c == POLICIES:
            return ("finalizer dropped",)
        case c if c == STATES and before.get("status") != after.get("status") and after:
            return _report_steps(before, after)
        case c if c == PROFILES and after:
            return ("profile told",) if before else ("profile made",)
        case c if c == REVISIONS and after:
            return _revision_steps(before, after)
        case c if c == CONFIG_MAPS and after and written.client.startswith("operator"):
            return ("hold",)
        case c if c == STATES and after:
            return _push_steps(before, after)
        case _:
            return ()


def _status_steps(before: Json, after: Json) -> tuple[str, ...]:
    if before.get("status") == after.get("status"):
        return ()
    reserves = set(ledger(after, "reserved")) > set(ledger(before, "reserved"))
    claims = bool(set(ledger(after, "carried")) - set(ledger(before, "carried")))
    return ("policy status", *("reservation",) * reserves, *("claim",) * claims)


def _report_steps(before: Json, after: Json) -> tuple[str, ...]:
    old, new = (find(one, ("status", "groups")) or {} for one in (before, after))
    restored = any(one["state"] == "Restored" for one in new.values())
    soaked = any(
        one.get("soakedRevision", "") != (old.get(group) or {}).get("soakedRevision", "") for group, one in new.items()
    )
    path = ("status", "probe", "phase")
    answered = find(after, path) in ENDED and find(before, path) not in ENDED
    return ("report", *("restored",) * restored, *("soaked",) * soaked, *("probe answered",) * answered)


def _revision_steps(before: Json, after: Json) -> tuple[str, ...]:
    old, new = verdicts(before), verdicts(after)
    words = {one["verdict"] for cell, one in new.items() if one != old.get(cell)}
    return ("revision stored", *("verdict",) * ("Failed" in words), *("proven",) * ("Proven" in words))


def _lease_steps(before: dict[str, object], after: dict[str, object]) -> tuple[str, ...]:
    path = ("spec", "holderIdentity")
    if find(before, path) != find(after, path):
        return ("lease taken",)
    epoch = ("metadata", "annotations", EPOCH_ANNOTATION)
    return ("epoch claimed",) if find(before, epoch) != find(after, epoch) else ("lease kept",)


def _push_steps(before: dict[str, object], after: dict[str, object]) -> tuple[str, ...]:
    if not before:
        return ("state created",)
    asked = ("probe asked",) * bool(find(before, ("spec", "probe")) != find(after, ("spec", "probe")))
    pairs = [
        (group, find(before, ("spec", "groups", group)), find(after, ("spec", "groups", group))) for group in GROUPS
    ]
    moved = [(group, new) for group, old, new in pairs if not same_wish(old, new)]
    if not moved:
        return asked
    return ("safe push",) if all(is_safe(group, new) for group, new in moved) else ("push",)
