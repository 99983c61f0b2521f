# SPDX-License-Identifier: Apache-2.0
"""Which write is sent when, and what an answer means: the applier as a step machine without I/O.

A driver submits writes, asks ``next(now)`` what to do, does it, and tells the machine how it went.

* Nothing is lost: a write leaves only when it was answered, when a newer one for its place came, or when the answer
  says that no repetition can help.
* One request a place at a time; of several writes for a place the latest is sent, after the open one.
* Safe-direction writes and holds of classes go first, then what is stored before a push, then policies, which are few
  and what people look at, then node states; what is only tidied away goes last. A write that replaces a waiting one
  takes its turn, or a place that changes often would never come up.
* All are paced by a token bucket and a bound on open requests.
* Retry-After holds everything back, since the server speaks of itself and not of one object.
* What the server refused is not asked for again before a growing wait is over, so a decision that is taken anew and
  anew from the same facts costs a request now and then, not a loop.

What the answers mean (all tried on kube-apiserver 1.37):

* 409: a precondition failed: metadata.resourceVersion of an apply, also to the status, or a deletion's uid. An apply
  with metadata.uid for an object that is gone answers so too, and creates nothing; for one that was created anew under
  the same name it is a 422 that names metadata.uid.
* 422 with FENCE_MESSAGE: the object was written by a newer leader. Nothing is sent any more. With LATE_MESSAGE:
  somebody raised our sequence there; the next life of this process has a greater epoch.
* Any other 422 to a JSON patch: one of its `test` operations failed; the server does not say which.
* 404: status of a deleted object, or a patch of one that is no apply; for what apply would create, a CRD or namespace
  that is not there; to a deletion, that another one was quicker.
* 500 "failed to create typed patch object ...: field not declared in schema": the CRD is older than this program;
  repeating never helps. A merge patch drops the field and stores the rest. An apply needs no fieldValidation for that:
  Strict would only have the server parse the body once more, for keys that stand there twice (docs/decisions/0032).

Sources: Kubernetes API concepts, "Server-side apply" and "Field validation"; k8s.io/apimachinery pkg/api/errors.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Final, NamedTuple

from numamigration_api.machinery.backoff import Backoff
from numamigration_api.vocabulary import (
    API_VERSION,
    CONTROL_CONFIG_MAP,
    FENCE_MESSAGE,
    FINALIZER_MANAGER,
    HOLD_KEY_PREFIX,
    JSON,
    LATE_MESSAGE,
    METADATA_ONLY,
    OPERATOR_MANAGER,
    POLICY_PLURAL,
    PROBE_MANAGER,
    PROFILE_PLURAL,
    STATE_PLURAL,
)
from numamigration_operator.core.decisions import Patch, Write, WriteKey, WriteKind

RETRY_BASE_SECONDS: Final = 0.2
RETRY_CAP_SECONDS: Final = 10.0
"""A way off must not wait long behind a server that has just come back."""
HOPELESS_BASE_SECONDS: Final = 5.0
HOPELESS_CAP_SECONDS: Final = 60.0
"""For what only a person can mend: missing rights, a missing CRD, a body that the schema refuses."""
SCHEMA_MARK: Final = "failed to create typed patch object"
"""Text of the API server's 500 when a body does not fit the schema of the CRD (structured-merge-diff)."""


class Target(NamedTuple):
    """Where writes of one kind go.

    Attributes:
        path: with {home} for the operator's namespace and {name} for the key's name.
        manager: field manager, with {digits} for those of a class hold's key.
        creates: an apply creates the object when there is none, so a 404 means that the resource is missing.
        rank: smaller goes first; 0 is the safe direction.
        accept: what is asked for in answers; of node states, which are many and have kilobytes, metadata alone.
    """

    path: str
    manager: str
    creates: bool
    rank: int
    accept: str = JSON


_POLICY: Final = f"/apis/{API_VERSION}/{POLICY_PLURAL}/{{name}}"
_STATE: Final = f"/apis/{API_VERSION}/{STATE_PLURAL}/{{name}}"
_PROFILE: Final = f"/apis/{API_VERSION}/{PROFILE_PLURAL}/{{name}}"
_REVISION: Final = "/apis/apps/v1/namespaces/{home}/controllerrevisions/{name}"
_CONTROL: Final = f"/api/v1/namespaces/{{home}}/configmaps/{CONTROL_CONFIG_MAP}"
_HOLD_MANAGER: Final = "numamigration-hold-{digits}"
"""A field manager for each hold: applying one leaves the other keys as they are, whoever wrote them."""
TARGETS: Final[dict[WriteKind, Target]] = {
    WriteKind.CLASS_HOLD: Target(_CONTROL, _HOLD_MANAGER, creates=True, rank=0),
    WriteKind.REVISION: Target(_REVISION, OPERATOR_MANAGER, creates=True, rank=1),
    WriteKind.POLICY_STATUS: Target(f"{_POLICY}/status", OPERATOR_MANAGER, creates=False, rank=2),
    WriteKind.POLICY_FINALIZER: Target(_POLICY, FINALIZER_MANAGER, creates=False, rank=2),
    WriteKind.STATE_SPEC: Target(_STATE, OPERATOR_MANAGER, creates=True, rank=3, accept=METADATA_ONLY),
    WriteKind.PROFILE: Target(_PROFILE, OPERATOR_MANAGER, creates=True, rank=4),
    WriteKind.PROFILE_STATUS: Target(f"{_PROFILE}/status", OPERATOR_MANAGER, creates=False, rank=4),
    WriteKind.PROBE: Target(_STATE, PROBE_MANAGER, creates=True, rank=4, accept=METADATA_ONLY),
    WriteKind.REVISION_DELETION: Target(_REVISION, OPERATOR_MANAGER, creates=False, rank=4),
}


@dataclass(frozen=True, slots=True)
class Send:
    """Send this now, and tell `answered` or `unanswered` how it went."""

    write: Write
    patch: Patch = Patch.APPLY

    @property
    def method(self) -> str:
        """HTTP method of the request."""
        return {Patch.DELETE: "DELETE", Patch.CREATE: "POST"}.get(self.patch, "PATCH")

    def path(self, home: str) -> str:
        """Return the path of the object or its subresource, or of what it is created in.

        Args:
            home: the operator's namespace.
        """
        key = self.write.key
        path = TARGETS[key.kind].path
        path = path.removesuffix("/{name}") if self.patch is Patch.CREATE else path
        return path.format(home=home, name=key.name)

    @property
    def accept(self) -> str:
        """What of the answer is asked for."""
        return TARGETS[self.write.key.kind].accept

    @property
    def query(self) -> dict[str, str]:
        """Query of the request."""
        if self.patch is Patch.DELETE:
            return {}
        key = self.write.key
        query = {"fieldManager": TARGETS[key.kind].manager.format(digits=key.name.removeprefix(HOLD_KEY_PREFIX))}
        if self.patch is Patch.APPLY:
            return {**query, "force": "true", "fieldValidation": "Ignore"}
        if self.patch is Patch.CREATE:
            return {**query, "fieldValidation": "Strict"}
        return {**query, "fieldValidation": "Warn"}


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing to do before `until` (None: before a write or an answer comes)."""

    until: float | None


Step = Send | Idle


class Verdict(StrEnum):
    """What came of one request."""

    DONE = "Done"
    RETRY = "Retry"
    """Tried again by the machine; nobody has to do anything."""
    NO_RIGHT = "NoRight"
    """Tried again slowly; a person must grant the right or apply the CRDs."""
    DECIDE_ANEW = "DecideAnew"
    """The object is not what the decision was made from."""
    GONE = "Gone"
    """The object was deleted; there is nothing to write to."""
    SKEW = "Skew"
    """The CRD does not know a field; sent once more as a merge patch."""
    GIVEN_UP = "GivenUp"
    """The server will never take this body."""
    FENCED = "Fenced"
    """A newer leader wrote the object; this process must not write any more."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Pace and width; see the operator settings of the same names."""

    requests_open_max: int = 8
    rate_per_second: float = 50.0
    burst: int = 100


@dataclass(slots=True)
class _Place:
    """What is known of one place that is written."""

    waiting: Write | None = None
    turn: int = 0
    entry: int = 0
    patch: Patch = Patch.APPLY
    open: bool = False
    not_before: float = 0.0
    retries: Backoff = field(default_factory=lambda: Backoff(RETRY_BASE_SECONDS, RETRY_CAP_SECONDS))
    hopeless: Backoff = field(default_factory=lambda: Backoff(HOPELESS_BASE_SECONDS, HOPELESS_CAP_SECONDS))
    refused: bytes = b""

    def refuse(self, write: Write, not_before: float) -> None:
        """Remember what the server does not take, and until when it is not worth another request."""
        self.refused, self.not_before = _digest(write), not_before

    def forget_failures(self) -> None:
        """Start afresh, as after an answer that ends the matter."""
        self.retries.reset()
        self.hopeless.reset()
        self.refused, self.not_before = b"", 0.0


@dataclass(slots=True)
class TokenBucket:
    """Allows `burst` at once and `rate` a second in the long run."""

    rate: float
    burst: float
    tokens: float
    filled_at: float = 0.0

    def fill(self, now: float) -> None:
        """Add what has come in since the last call."""
        self.tokens = min(self.burst, self.tokens + max(0.0, now - self.filled_at) * self.rate)
        self.filled_at = now

    def next_at(self) -> float:
        """Return when there is a whole token, as of the last `fill`."""
        return self.filled_at + max(0.0, 1.0 - self.tokens) / self.rate


class Applier:
    """The machine. Times are seconds of one monotonic clock.

    Attributes:
        counts: requests by kind and verdict, since the start.
    """

    def __init__(self, limits: Limits, rng: Random) -> None:
        self.counts: Counter[tuple[WriteKind, Verdict]] = Counter()
        self._limits = limits
        self._rng = rng
        self._bucket = TokenBucket(limits.rate_per_second, limits.burst, limits.burst)
        self._places: dict[WriteKey, _Place] = {}
        # Heaps. An entry is void once its place has got a newer one, or has nothing to send.
        self._ready: list[tuple[int, int, int, WriteKey]] = []  # rank, turn, entry, key
        self._delayed: list[tuple[float, int, WriteKey]] = []  # not before, entry, key
        self._numbers = itertools.count(1)
        self._open = 0
        self._paused_until = 0.0
        self._fenced = False
        self._silence = Backoff(RETRY_BASE_SECONDS, RETRY_CAP_SECONDS)

    def __repr__(self) -> str:
        return f"<Applier: {self.waiting} waiting, {self._open} open>"

    @property
    def waiting(self) -> int:
        """Writes that are not sent yet."""
        return sum(place.waiting is not None for place in self._places.values())

    @property
    def open(self) -> int:
        """Requests that are not answered yet."""
        return self._open

    def follows(self, key: WriteKey) -> bool:
        """Return whether a write for a place is still to be sent."""
        place = self._places.get(key)
        return place is not None and place.waiting is not None

    # --- in ------------------------------------------------------------------------------------------------------

    def submit(self, writes: Iterable[Write], now: float) -> None:
        """Take writes; the last one for a place replaces an earlier one that is not sent yet.

        One that says what an open request says is sent all the same: that request may have been stored before the
        object was deleted, and its answer is only late.
        """
        for write in writes:
            self._submit(write, now)

    def _submit(self, write: Write, now: float) -> None:
        place = self._places.setdefault(write.key, _Place())
        if place.refused and place.refused != _digest(write):
            place.forget_failures()  # something else may be taken at once; the wait was about the old one
        if place.waiting is None:
            place.turn = next(self._numbers)
        place.waiting, place.patch = write, write.patch
        self._enqueue(write.key, place, now)

    def answered(self, sent: Send, status: int, message: str, retry_after: float | None, now: float) -> Verdict:
        """Take the answer to a request; returns what it means."""
        place = self._close(sent)
        self._silence.reset()
        verdict = judge(sent, status, message)
        self.counts[sent.write.key.kind, verdict] += 1
        match verdict:
            case Verdict.RETRY:
                if retry_after:
                    self._paused_until = max(self._paused_until, now + retry_after)
                self._again(place, sent, now + place.retries.next_wait(self._rng, retry_after))
            case Verdict.NO_RIGHT:
                # As it was decided: a merge patch, sent for a skew, creates nothing, and the CRD may be new by then.
                self._again(place, Send(sent.write, sent.write.patch), now + place.hopeless.next_wait(self._rng))
            case Verdict.SKEW:
                self._again(place, Send(sent.write, Patch.MERGE), now)
            case Verdict.GIVEN_UP:
                place.refuse(sent.write, now + place.hopeless.next_wait(self._rng))
            case Verdict.DECIDE_ANEW:
                place.refuse(sent.write, now + place.retries.next_wait(self._rng))
            case Verdict.FENCED:
                self._fenced = True
            case Verdict.DONE | Verdict.GONE:
                place.forget_failures()
        self._settle(sent.write.key, place, now)
        return verdict

    def unanswered(self, sent: Send, now: float) -> None:
        """Take that no answer came; whether the write was stored is unknown, and repeating an apply is harmless."""
        place = self._close(sent)
        self.counts[sent.write.key.kind, Verdict.RETRY] += 1
        if now >= self._paused_until:  # the first of the requests that were open when the server went away
            self._paused_until = now + self._silence.next_wait(self._rng)
        self._again(place, sent, now)
        self._settle(sent.write.key, place, now)

    # --- out -----------------------------------------------------------------------------------------------------

    def next(self, now: float) -> Step:
        """Return what to do now; a returned `Send` counts as open."""
        if self._fenced:
            return Idle(None)
        self._bucket.fill(now)
        self._wake(now)
        self._drop_void()
        if not self._ready:
            return Idle(self._delayed[0][0] if self._delayed else None)
        if self._open >= self._limits.requests_open_max:
            return Idle(None)
        allowed_at = max(self._paused_until, self._bucket.next_at())
        if allowed_at > now:
            return Idle(allowed_at)
        return self._take()

    def _take(self) -> Send:
        *_, key = heapq.heappop(self._ready)
        place = self._places[key]
        write = place.waiting
        if write is None:  # pragma: no cover - _drop_void left only entries of waiting writes
            raise RuntimeError(key)
        place.open, place.waiting = True, None
        self._open += 1
        self._bucket.tokens -= 1.0
        return Send(write, place.patch)

    # --- queue ---------------------------------------------------------------------------------------------------

    def _enqueue(self, key: WriteKey, place: _Place, now: float) -> None:
        if place.open:
            return
        place.entry = next(self._numbers)
        if place.not_before > now or place.waiting is None:
            heapq.heappush(self._delayed, (place.not_before, place.entry, key))
        else:
            heapq.heappush(self._ready, (_rank(place.waiting), place.turn, place.entry, key))

    def _wake(self, now: float) -> None:
        while self._delayed and (self._delayed[0][0] <= now or self._is_void(*self._delayed[0][1:])):
            _, entry, key = heapq.heappop(self._delayed)
            if self._is_void(entry, key):
                continue
            if self._places[key].waiting is None:
                del self._places[key]  # refused long ago, and nobody insists
            else:
                self._enqueue(key, self._places[key], now)

    def _drop_void(self) -> None:
        while self._ready and self._is_void(*self._ready[0][2:]):
            heapq.heappop(self._ready)

    def _is_void(self, entry: int, key: WriteKey) -> bool:
        place = self._places.get(key)
        return place is None or place.entry != entry or place.open

    def _close(self, sent: Send) -> _Place:
        self._open -= 1
        place = self._places[sent.write.key]
        place.open = False
        return place

    def _again(self, place: _Place, sent: Send, not_before: float) -> None:
        place.not_before = max(place.not_before, not_before)
        if place.waiting is None:
            place.waiting, place.patch = sent.write, sent.patch

    def _settle(self, key: WriteKey, place: _Place, now: float) -> None:
        if place.waiting is None and not place.refused:
            del self._places[key]
        else:
            self._enqueue(key, place, now)


def judge(sent: Send, status: int, message: str) -> Verdict:
    """Return what an answer means for a write."""
    if status < 300:
        return Verdict.DONE
    if status == 422 and (FENCE_MESSAGE in message or LATE_MESSAGE in message):
        return Verdict.FENCED
    if status == 409 or (status == 422 and (sent.patch is Patch.JSON or "metadata.uid" in message)):
        return Verdict.DECIDE_ANEW
    if status in {401, 403}:
        return Verdict.NO_RIGHT
    if status == 404:
        if sent.patch is Patch.DELETE:
            return Verdict.DONE
        # As it was decided: an apply that goes as a merge patch, for a field the CRD does not know, is an apply again.
        creates = TARGETS[sent.write.key.kind].creates and sent.write.patch in {Patch.APPLY, Patch.CREATE}
        return Verdict.NO_RIGHT if creates else Verdict.GONE
    if status == 500 and SCHEMA_MARK in message:
        return Verdict.SKEW if sent.patch is Patch.APPLY else Verdict.GIVEN_UP
    if status == 429 or status >= 500 or status < 400:
        return Verdict.RETRY
    return Verdict.GIVEN_UP


def _rank(write: Write) -> int:
    return 0 if write.safe else TARGETS[write.key.kind].rank


def _digest(write: Write) -> bytes:
    return hashlib.sha256(write.asks.encode() or write.body).digest()
