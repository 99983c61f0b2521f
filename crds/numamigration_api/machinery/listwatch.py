# SPDX-License-Identifier: Apache-2.0
"""List, then watch, for ever: the loop of every informer as a step machine without I/O.

A driver asks ``next(now)`` what to do, does it, and tells the machine how it went. Operator (many objects, paged) and
agent (its own object) use the same machine, so a fault that one survives the other survives too.

* A list is consistent only over all its pages: a 410 in the middle starts again at page one.
* A watch goes on from the last resource version seen, bookmarks included; a normal end by the server's time-out is
  no failure. A watch that ends at once counts as one, or a misbehaving proxy would make us spin.
* Each watch is asked to last for another time: agents that began together, as after a restart of the API server,
  would otherwise come back together, for ever.
* 410 (Expired) means: list again. After any other failure the same step is tried again, after a jittered wait.
* Waits grow until a *watch* works. A list alone proves nothing: where each watch answers 410, lists would follow each
  other several times a second, and a whole list is the most expensive thing we ask for.
* A watch that is refused WATCH_TRIES_MAX times in a row lists again too: after a restored backup the server may never
  have heard of the resource version, and says so with other codes than 410.
* A first list may be answered from the API server's cache (resourceVersion=0 would be stale for ever after a restart
  of an HA server, so none is given): consistent reads from cache make it cheap since Kubernetes 1.31 (KEP-2340).

Sources: Kubernetes API concepts, "Efficient detection of changes" and "Retrieving large results sets in chunks";
k8s.io/client-go tools/cache/reflector.go, whose watches last as long.
"""

from __future__ import annotations

from random import Random
from typing import Final
from zlib import crc32

from numamigration_api.machinery.backoff import Backoff
from numamigration_api.machinery.records import dataclass, field

LIST_LIMIT: Final = 500  # objects a page, the default of client-go's pager
WATCH_SECONDS: Final = (300, 600)  # at least and at most
WATCH_SILENCE_SECONDS: Final = 120.0  # then it is dead: two bookmarks did not come, of which there is one a minute
WATCH_SHORT_SECONDS: Final = 1.0  # a watch that ended sooner without an event counts as failed
WATCH_TRIES_MAX: Final = 5  # some ten seconds with the default back-off; rare enough to burden no busy server
EXPIRED: Final = 410


@dataclass(frozen=True, slots=True)
class ListPage:
    """Get one page. `continue_token` is empty for the first."""

    continue_token: str
    limit: int = LIST_LIMIT


@dataclass(frozen=True, slots=True)
class Watch:
    """Open a watch with bookmarks from `resource_version`; how long it lasts says `watch_seconds`."""

    resource_version: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing until `until` (the driver's monotonic clock, seconds)."""

    until: float


Step = ListPage | Watch | Wait


def watch_seconds(step: Watch, who: str) -> int:
    """Return for how long the server is asked to let a watch last.

    Another time for each who asks, and for each watch of theirs: a bookmark a minute moves where the next one goes on.
    """
    least, most = WATCH_SECONDS
    return least + crc32(f"{who} {step.resource_version}".encode()) % (most - least + 1)


@dataclass(slots=True)
class ListWatch:
    """The machine. Times are seconds of one monotonic clock.

    Attributes:
        synced: a whole list has been read since the last expiry.
        last_activity: when the server last answered anything, refusals included, or until when it wished to be left
            alone; a liveness check looks at its age.
    """

    rng: Random
    backoff: Backoff = field(default_factory=Backoff)
    synced: bool = False
    last_activity: float = 0.0
    _continue: str = ""
    _resource_version: str = ""
    _wait_until: float = 0.0
    _watch_opened: float = 0.0
    _watching: bool = False
    _watch_spoke: bool = False

    def next(self, now: float) -> Step:
        """Return what to do now."""
        if now < self._wait_until:
            return Wait(self._wait_until)
        self._watching = bool(self._resource_version)
        if not self._watching:
            return ListPage(self._continue)
        self._watch_opened, self._watch_spoke = now, False
        return Watch(self._resource_version)

    def page_read(self, now: float, *, resource_version: str, continue_token: str) -> bool:
        """One page was read. Returns True when it was the last: what was not listed does not exist."""
        self.last_activity = now
        self._continue = continue_token
        if continue_token:
            return False
        if not resource_version:  # nowhere to watch from; no Kubernetes list is like that
            self.failed(now)
            return False
        self._resource_version = resource_version
        self.synced = True
        return True

    def event_read(self, now: float, resource_version: str) -> None:
        """An event or bookmark of the open watch was read."""
        self._watch_works(now)
        self._watch_spoke = True
        self._resource_version = resource_version or self._resource_version

    def watch_ended(self, now: float) -> None:
        """The watch ended without an error."""
        if not self._watch_spoke and now - self._watch_opened < WATCH_SHORT_SECONDS:
            self.failed(now)
        else:
            self._watch_works(now)

    def failed(self, now: float, *, status: int | None = None, retry_after: float | None = None) -> None:
        """The last step failed.

        Args:
            now: the monotonic clock.
            status: HTTP status of the answer or code of an ERROR event; None when no answer came.
            retry_after: the server's wish, in seconds.
        """
        refused = self._watching and status is not None and self.backoff.attempts >= WATCH_TRIES_MAX
        if status == EXPIRED or refused:
            self.list_again()
        self._wait_until = now + self.backoff.next_wait(self.rng, retry_after)
        if status is not None:
            self.last_activity = self._wait_until

    def list_again(self) -> None:
        """Start over with a list, whatever was read before."""
        self.synced = False
        self._resource_version = self._continue = ""

    def _watch_works(self, now: float) -> None:
        self.last_activity = now
        self.backoff.reset()
