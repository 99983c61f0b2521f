# SPDX-License-Identifier: Apache-2.0
"""When the status is told to the API server, and what the API server is known to have. Pure.

* A significant change is told at once; else the next report is due after an interval that is drawn anew each time, so
  that a fleet never reports in step. A moved counter alone is no change.
* The end of a soak is told at once too: somebody waits for its numbers.
* One report is under way at a time; what changed meanwhile is in the next one.
* An object that was created anew knows nothing of what an earlier one was told.
* A status that is not one of ours was edited, and is told again: once for each edit, so that an API server that keeps
  something else than it is told is not asked without end.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from random import Random
from typing import Any, Final

from numamigration_agent.baseline import Baselines, baselines_of_status
from numamigration_agent.cluster import ApplyKind, ApplyResult
from numamigration_agent.kernel.codecs import Value
from numamigration_agent.status import significant
from numamigration_api.machinery.backoff import Backoff
from numamigration_api.machinery.shapes import mapping, objects

log = logging.getLogger(__name__)

RETRY_SECONDS_FIRST: Final = 1.0
RETRY_SECONDS_MAX: Final = 60.0
OWN_MAX: Final = 4  # statuses by which our own writes are known when the watch brings them, which may be late


class Reports:
    """Reports of one node.

    Attributes:
        conditions: of the last status, for their transition times.
        skewed: the installed CRD did not take the last status as a whole.
    """

    def __init__(self, interval_min: float, interval_max: float, rng: Random) -> None:
        self._interval, self._rng = (interval_min, interval_max), rng
        self._backoff = Backoff(RETRY_SECONDS_FIRST, RETRY_SECONDS_MAX)
        self._uid: str | None = None
        self._sent_uid: str | None = None
        self._told: Mapping[str, Any] | None = None
        self._sending: Mapping[str, Any] | None = None
        self._own: deque[Mapping[str, Any]] = deque(maxlen=OWN_MAX)
        self._edited: Mapping[str, Any] | None = None
        self._overtaken = False  # an edit was seen while the report was under way, and may have come after it
        self._arrived = False  # the watch brought the report that is under way, so an older one after it is an edit
        self._due = self._not_before = float("-inf")
        self.skewed = False
        self._shown: Mapping[str, Value] = {}
        self._claimed: Mapping[str, Value] | None = None  # by our last report, whether it has arrived or not
        self.conditions: tuple[Mapping[str, Any], ...] = ()

    def __repr__(self) -> str:
        return f"<Reports {'under way' if self._sending else 'idle'}, next at {self.next_at:.0f}>"

    @property
    def under_way(self) -> bool:
        """Whether a report has not been answered yet."""
        return self._sending is not None

    @property
    def next_at(self) -> float:
        """When a report is due although nothing significant changed."""
        return max(self._due, self._not_before)

    def hasten(self, now: float) -> None:
        """Make a report due although nothing significant changed."""
        self._due = min(self._due, now)

    def seen(self, state: Mapping[str, Any], boot_id: str | None) -> None:
        """Take notice of what the object has."""
        uid, status = mapping(state.get("metadata")).get("uid"), mapping(state.get("status"))
        if uid != self._uid:
            self._uid, self._told, self._shown, self._claimed = uid, None, {}, None
            self.conditions = objects(status.get("conditions"))
            self._not_before = float("-inf")
            self._own.clear()
            self._own.append(significant(status))
        self._look_for_edit(significant(status))
        if not boot_id:
            return
        found = baselines_of_status(status, boot_id)
        known = found.values if found else {}
        if found is None:
            # Somebody took away what was told, or an older copy of the object came back.
            self._told, self._overtaken = None, self._sending is not None
        self._shown = known

    def _look_for_edit(self, shown: Mapping[str, Any]) -> None:
        if shown in self._own:
            self._edited = None
            self._arrived |= self._sending is not None and shown == self._own[-1]
            if self._arrived and shown != self._own[-1]:
                self._told, self._overtaken = None, True
        elif self._own and shown != self._edited:
            self._edited, self._told = shown, None
            self._overtaken = self._sending is not None

    @property
    def baselines(self) -> Mapping[str, Value]:
        """Baselines that the object's status has, and will have when our last report is in it.

        The watch may bring a copy that is older than that report, which may have left out what the copy shows.
        """
        if self._claimed is None:
            return self._shown
        return {name: value for name, value in self._shown.items() if self._claimed.get(name) == value}

    def has(self, baselines: Baselines) -> bool:
        """Whether the object's status has these baselines."""
        known = self.baselines
        return all(known.get(name) == value for name, value in baselines.values.items())

    def wants(self, status: Mapping[str, Any], now: float) -> bool:
        """Whether `status` is to be told now."""
        if self._sending is not None or now < self._not_before:
            return False
        return now >= self._due or significant(status) != self._told

    def send(self, status: Mapping[str, Any], now: float) -> None:
        """Note that `status` is on its way."""
        self._sending, self._sent_uid, self._overtaken, self._arrived = status, self._uid, False, False
        self._own.append(significant(status))
        self._claimed = _baselines_in(status)
        self._due = now + self._rng.uniform(*self._interval)

    def answered(self, result: ApplyResult, now: float) -> None:
        """Take the answer to the report under way."""
        sent, self._sending, self._arrived = self._sending, None, False
        if sent is None or self._sent_uid != self._uid:
            # Nobody knows whether the new object or the one before it got that.
            return
        if result.kind is ApplyKind.APPLIED:
            self._backoff.reset()
            self._applied(sent)
            return
        log.warning("status not applied", extra={"kind": str(result.kind), "problem": result.message})
        if result.kind is ApplyKind.SKEW:
            # The same words would get the same answer, until somebody applies other CRDs: the next change or the next
            # interval is another try. Transition times are part of the words: made anew each second, they would look
            # like a change. What such a CRD keeps of our words is no edit.
            self._own.clear()
            self.skewed = True
            self._told, self.conditions = significant(sent), tuple(sent["conditions"])
            return
        self._due = now
        self._not_before = now + self._backoff.next_wait(self._rng, result.retry_after)

    def _applied(self, status: Mapping[str, Any]) -> None:
        self.skewed = False
        self.conditions = tuple(status["conditions"])
        if self._overtaken:
            return
        self._told = significant(status)
        self._shown = _baselines_in(status)


def _baselines_in(status: Mapping[str, Any]) -> Mapping[str, Value]:
    found = baselines_of_status(status, status["bootID"])
    return found.values if found else {}
