# SPDX-License-Identifier: Apache-2.0
"""Who leads: the holder of a Lease as a step machine without I/O, with the semantics of client-go's leader election.

A driver asks ``next(now, wall)`` what to do, does it, and tells the machine how it went. One request at a time.

* Every write has the resourceVersion it was decided from, so of two that reach for the Lease one meets a 409.
* We hold the Lease for `renew_deadline` from the moment before our last stored write was sent. Others wait
  `lease` from the moment they saw that write, which is later, and longer. Both are measured on the own monotonic
  clock, so neither a wrong clock nor one that jumps matters; the times in the Lease are for people.
* What counts as a sign of life is a change of the Lease's spec. Whoever touches labels or annotations keeps no dead
  leader alive.
* A Lease that vanished may have been deleted under a living leader: whoever saw one before waits its time out once
  more, and the leader creates it again meanwhile. Whoever never saw one creates it at once.
* What another holder wrote is never believed to be shorter than our own lease, nor longer than LEASE_SECONDS_MAX;
  what is missing or absurd is waited out, never taken early.
* The leader's epoch, the fencing token, stands in an annotation and never falls: `claim` takes one more than the
  greatest that was ever seen, here or by the caller, and no less than the Lease's creation in milliseconds. So an epoch
  that stood only on a Lease which a person deleted, its first write still on the way, is not given out again.
* A lost Lease is lost for good, also when the answer to a renewal comes after its time: the process ends, and a new one
  starts with nothing in its queues.

Sources: k8s.io/client-go tools/leaderelection; k8s.io/api coordination/v1 and its validation; docs/decisions/0009.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import Any, Final

import msgspec

from numamigration_api.machinery.clock import micro_timestamp, parse_timestamp
from numamigration_api.vocabulary import EPOCH_ANNOTATION, EPOCH_MAX, LEASE_NAME
from numamigration_operator.core.objects import Struct

JITTER: Final = 1.2
"""A wait between two tries is up to so much longer than the retry period (client-go's JitterFactor)."""
LEASE_SECONDS_MAX: Final = 300
"""The longest lease that the settings allow; whoever asks for more is no operator of ours."""
TRANSITIONS_MAX: Final = 2**31 - 1
"""leaseTransitions is an int32; one more would be refused for ever."""
LEASES: Final = "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
_CREATE: Final = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}


class LeaseMeta(Struct, frozen=True):
    """``metav1.ObjectMeta``, the part that is used."""

    resource_version: str = ""
    creation_timestamp: str = ""
    annotations: dict[str, str] = {}


class LeaseSpec(Struct, frozen=True, omit_defaults=True):
    """``coordination.k8s.io/v1`` LeaseSpec, the part that is used; every field may be missing."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class LeaseObject(Struct, frozen=True):
    """A Lease."""

    metadata: LeaseMeta = LeaseMeta()
    spec: LeaseSpec = LeaseSpec()

    @property
    def epoch(self) -> int | None:
        """The leader's epoch; None when there is none that could be one."""
        text = self.metadata.annotations.get(EPOCH_ANNOTATION, "")
        is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(EPOCH_MAX))
        return int(text) if is_number and int(text) <= EPOCH_MAX else None

    @property
    def created(self) -> int:
        """Milliseconds since 1970 by the API server's clock; 0 when that cannot be read."""
        with suppress(ValueError):
            return min(int(parse_timestamp(self.metadata.creation_timestamp).timestamp()) * 1000, EPOCH_MAX)
        return 0

    def oddities(self) -> Iterator[str]:
        """Yield what no operator of ours would have written."""
        spec = self.spec
        if not spec.holder_identity:
            return
        if spec.lease_duration_seconds is None or not 1 <= spec.lease_duration_seconds <= LEASE_SECONDS_MAX:
            yield f"leaseDurationSeconds is {spec.lease_duration_seconds}, not 1 to {LEASE_SECONDS_MAX}"
        if not spec.renew_time:
            yield "renewTime is missing"
        if EPOCH_ANNOTATION in self.metadata.annotations and self.epoch is None:
            yield f"annotation {EPOCH_ANNOTATION} is no number from 0 to {EPOCH_MAX}"


@dataclass(frozen=True, slots=True)
class Durations:
    """Seconds; see the operator settings of the same names."""

    lease: int = 15
    renew_deadline: float = 10.0
    retry: float = 2.0


@dataclass(frozen=True, slots=True)
class Read:
    """Get the Lease; without an answer by `give_up_at` tell `unanswered`."""

    give_up_at: float


@dataclass(frozen=True, slots=True)
class Save:
    """Write the Lease.

    Attributes:
        resource_version: that it must still have; None creates it.
        epoch: to be written; None leaves the annotation alone.
        decided_at: before it is sent; the lease is held from here.
        give_up_at: without an answer by then tell `unanswered`.
    """

    spec: LeaseSpec
    resource_version: str | None
    epoch: int | None
    decided_at: float
    give_up_at: float

    @property
    def body(self) -> bytes:
        """A whole object to create, else a merge patch, which leaves what others put there."""
        metadata: dict[str, Any] = {} if self.epoch is None else {"annotations": {EPOCH_ANNOTATION: str(self.epoch)}}
        if self.resource_version is None:
            return msgspec.json.encode({**_CREATE, "metadata": {"name": LEASE_NAME, **metadata}, "spec": self.spec})
        return msgspec.json.encode(
            {"metadata": {"resourceVersion": self.resource_version, **metadata}, "spec": self.spec}
        )


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing to do before `until`."""

    until: float


Request = Read | Save
Step = Request | Rest


class LeaseHolder:
    """The machine. `now` is seconds of one monotonic clock, `wall` the time of day for people.

    Attributes:
        identity: of this process, and of no other one, also not of an earlier life of this pod.
        greatest_epoch: the greatest that was ever seen on the Lease.
        claimed: the epoch that stands on the Lease by our own write; None before.
        renewals: writes by which this process got or kept the Lease.
    """

    def __init__(self, identity: str, durations: Durations, rng: Random) -> None:
        self.identity = identity
        self.greatest_epoch = 0
        self._created = 0
        self.claimed: int | None = None
        self.renewals = 0
        self._durations = durations
        self._rng = rng
        self._seen: LeaseObject | None = None
        self._stale = True  # what was seen is known to be outdated, or nothing was seen yet
        self._free_at = -math.inf
        self._wait_until = -math.inf
        self._leads = False
        self._held_until = -math.inf
        self._lost = ""
        self._releasing = False
        self._epoch: int | None = None

    def __repr__(self) -> str:
        role = "lost" if self._lost else "leads" if self._leads else "stands by"
        return f"<LeaseHolder {self.identity} {role}, lease of {self.holder or 'nobody'}>"

    @property
    def holder(self) -> str:
        """Whose the Lease was when it was last seen; empty when nobody's."""
        return (self._seen.spec.holder_identity or "") if self._seen is not None else ""

    @property
    def transitions(self) -> int | None:
        """How often the Lease went to somebody else, as it said when it was last seen."""
        return None if self._seen is None else self._seen.spec.lease_transitions

    @property
    def leads(self) -> bool:
        """Whether this process has ever held the Lease."""
        return self._leads

    def oddities(self) -> tuple[str, ...]:
        """Return what no operator of ours would have written into the Lease that was last seen."""
        return () if self._seen is None else tuple(self._seen.oddities())

    def holds(self, now: float) -> bool:
        """Return whether this process may act now."""
        return self._leads and not self._lost and not self._releasing and now < self._held_until

    def lost(self, now: float) -> str:
        """Return why this process, which has led, may never act again; empty as long as it may."""
        if self._leads and not self._lost and now >= self._held_until:
            return f"the lease could not be renewed for {self._durations.renew_deadline:g} s"
        return self._lost

    # --- out -----------------------------------------------------------------------------------------------------

    def next(self, now: float, wall: datetime) -> Step:
        """Return what to do now."""
        if now < self._wait_until:
            return Rest(min(self._wait_until, self._held_until) if self._leads else self._wait_until)
        if self._stale or not (self.holds(now) or now >= self._free_at):
            return Read(self._give_up_at(now))
        return self._save(now, wall, self.identity)

    def claim(self, greatest: int) -> int:
        """Choose this leader's epoch, to be written at once; later calls return the same.

        Args:
            greatest: the greatest that the caller knows of.
        """
        if self._epoch is None:
            # At the very end no greater one exists; an equal one still lets this leader work.
            self._epoch = min(max(greatest + 1, self.greatest_epoch + 1, self._created), EPOCH_MAX)
            self._wait_until = -math.inf
        return self._epoch

    def lose(self, reason: str) -> None:
        """Take in that somebody newer leads, whatever the Lease says."""
        self._lost = self._lost or reason

    def release(self, now: float, wall: datetime) -> Request | None:
        """Return what to do so that another one can lead at once; None when there is nothing to give back.

        From here on this process may not act. Ask again after each answer.
        """
        self._releasing = True
        if now >= self._held_until or self.holder != self.identity:
            return None
        return Read(self._give_up_at(now)) if self._stale else self._save(now, wall, "")

    def _save(self, now: float, wall: datetime, holder: str) -> Save:
        before = LeaseSpec() if self._seen is None else self._seen.spec
        time = micro_timestamp(wall)
        if time == before.renew_time:  # a clock that stands still must not make a renewal look like none
            time = micro_timestamp(wall + timedelta(microseconds=1))
        mine = before.holder_identity == self.identity
        taken = self._seen is not None and not mine
        spec = LeaseSpec(
            holder_identity=holder,
            lease_duration_seconds=self._durations.lease,
            acquire_time=(before.acquire_time if mine else None) or time,
            renew_time=time,
            lease_transitions=min((before.lease_transitions or 0) + taken, TRANSITIONS_MAX),
        )
        known = self._epoch if self._epoch is not None else self.greatest_epoch or None
        version = None if self._seen is None else self._seen.metadata.resource_version
        return Save(spec, version, known, now, self._give_up_at(now))

    def _give_up_at(self, now: float) -> float:
        patience = now + self._durations.renew_deadline / 2
        return min(patience, self._held_until) if self.holds(now) else patience

    # --- in ------------------------------------------------------------------------------------------------------

    def answered(self, request: Request, status: int, lease: LeaseObject | None, now: float) -> None:
        """Take the answer to a request.

        Args:
            request: what `next` or `release` returned.
            status: of the answer.
            lease: the body of a success.
            now: the monotonic clock.
        """
        creates = isinstance(request, Save) and request.resource_version is None
        if lease is not None and status < 300:
            if isinstance(request, Save):
                self._stored(request, lease, now)
            else:
                self._read(lease, now)
        elif status == 404 and not creates:
            self._read(None, now)
        elif status == 409 and isinstance(request, Save):
            self._stale = True
            self._wait_until = now + self._rng.uniform(0.0, self._durations.retry)
        else:
            self.unanswered(now)

    def unanswered(self, now: float) -> None:
        """Take that a request had no answer, or none that helps; whether a write was stored will be seen."""
        self._wait_until = now + self._retry()

    def _stored(self, save: Save, lease: LeaseObject, now: float) -> None:
        # Too late, as after a stop: whoever asked meanwhile was told no, and has dropped what it was to send.
        self._lost = self.lost(now)
        self._take(lease)
        if save.spec.holder_identity != self.identity:  # given back
            return
        self._held_until = save.decided_at + self._durations.renew_deadline
        self._free_at = -math.inf
        self._leads = self._leads or now < self._held_until
        if self._epoch is not None and save.epoch == self._epoch:
            self.claimed = self._epoch
        self._wait_until = now + self._durations.retry
        self.renewals += 1

    def _read(self, lease: LeaseObject | None, now: float) -> None:
        before = self._seen
        self._take(lease)
        if self._leads:
            self._check_still_ours(lease)
        elif lease is None:
            if before is not None:
                self._free_at = now + self._patience(before)
        elif not self._is_others(lease):
            self._free_at = -math.inf
        elif before is None or before.spec != lease.spec:
            self._free_at = now + self._patience(lease)
        waits = now < self._free_at
        self._wait_until = min(now + self._retry(), self._free_at) if waits else -math.inf

    def _take(self, lease: LeaseObject | None) -> None:
        self._seen, self._stale = lease, False
        if lease is not None:
            self.greatest_epoch = max(self.greatest_epoch, lease.epoch or 0)
            self._created = max(self._created, lease.created)

    def _check_still_ours(self, lease: LeaseObject | None) -> None:
        if lease is None:
            return  # deleted by hand; it is created again, with our epoch
        if self.holder != self.identity:
            self._lost = f"the lease is {self.holder or 'nobody'}'s now"
            self._held_until = -math.inf
        elif self._epoch is not None and (lease.epoch or 0) > self._epoch:
            self._lost = f"the lease has epoch {lease.epoch} now, ours is {self._epoch}"

    def _is_others(self, lease: LeaseObject) -> bool:
        return lease.spec.holder_identity not in {None, "", self.identity}

    def _patience(self, lease: LeaseObject) -> float:
        asked = lease.spec.lease_duration_seconds or 0
        return min(max(self._durations.lease, asked), LEASE_SECONDS_MAX)

    def _retry(self) -> float:
        return self._durations.retry * self._rng.uniform(1.0, JITTER)
