# SPDX-License-Identifier: Apache-2.0
"""How often a knob was set back after somebody else changed it, when the next time may be, and when to stop.

* The first correction is made at once. Whoever writes again soon is met with growing pauses, so that two writers in
  turn do not keep a kernel lock busy; a quiet while forgets it all.
* Who writes again after every one of ``CORRECTIONS_MAX`` corrections is not met any more: the knob is contended, and
  stays as the other writer has it. Now and then, and more and more seldom, one more correction is tried
  (docs/decisions/0022).
"""

from __future__ import annotations

from random import Random
from typing import Final

from numamigration_api.machinery.backoff import Backoff
from numamigration_api.machinery.records import dataclass, field

CORRECTION_WAIT_SECONDS_MIN: Final = 5.0
CORRECTION_WAIT_SECONDS_MAX: Final = 300.0
CORRECTIONS_MAX: Final = 5  # a person who tries things out, or a tool that ran twice, has given up by then
QUIET_SECONDS: Final = 900.0  # three times the longest pause: without drift for so long it is a new story
REST_SECONDS_MAX: Final = 14_400.0  # a contended knob is tried six times a day at least
SHOWN_SECONDS: Final = 300.0  # how long a correction stays in the condition Drifted, for people who look later


@dataclass(slots=True)
class DriftLog:
    """Corrections of one knob.

    Attributes:
        knob: its settings field.
        corrections: how many in a row.
        last_at: monotonic seconds of the last one.
        not_before: the next one has to wait until then.
        since: when somebody else first changed it, for people; empty before that.
    """

    knob: str
    corrections: int = 0
    last_at: float = float("-inf")
    not_before: float = float("-inf")
    since: str = ""
    _away: bool = False
    _backoff: Backoff = field(default_factory=lambda: Backoff(CORRECTION_WAIT_SECONDS_MIN, CORRECTION_WAIT_SECONDS_MAX))

    def drifted(self, now: float, wall: str) -> None:
        """Note that the knob was found changed; found so again, it is the same change."""
        if not self._away and self.forgotten(now):
            self.corrections, self.since = 0, wall
            self._backoff.reset()
        self.since = self.since or wall
        self._away = True

    def in_force(self) -> None:
        """Note that the knob was found as it shall be."""
        self._away = False

    def corrected(self, now: float, rng: Random) -> None:
        """Note a correction and set the pause before the next one."""
        self.corrections += 1
        self.last_at, self._away = now, False
        # The first pause is none: a single slip of a person is set back, and so is a second one, at once.
        first = self.corrections == 1
        self.not_before = now if first else now + self._backoff.next_wait(rng, CORRECTION_WAIT_SECONDS_MIN)

    def forgotten(self, now: float) -> bool:
        """Whether the last correction has lasted so long that the next change is a new story."""
        return not self._away and now - self.last_at > QUIET_SECONDS

    def contended(self, now: float) -> bool:
        """Whether corrections have stopped, for the other writer does not."""
        return self.corrections >= CORRECTIONS_MAX and now - self.last_at <= self._rest_seconds

    def shown(self, now: float) -> bool:
        """Whether the last correction is still told."""
        return now - self.last_at < SHOWN_SECONDS

    @property
    def contention(self) -> str:
        """What a person must know when corrections have stopped."""
        return (
            f"set back {self.corrections} times since {self.since} and changed again each time; "
            f"left as it is for {self._rest_seconds:g} s or until the spec changes"
        )

    @property
    def _rest_seconds(self) -> float:
        doublings = min(max(0, self.corrections - CORRECTIONS_MAX), 10)
        return min(QUIET_SECONDS * 2.0**doublings, REST_SECONDS_MAX)

    def __str__(self) -> str:
        times = "once" if self.corrections == 1 else f"{self.corrections} times"
        return f"{self.knob} was changed by somebody else and set back, {times} lately"


def contended_log(knob: str, now: float, since: str) -> DriftLog:
    """Return the log of a knob that an earlier life of this agent found contended."""
    return DriftLog(knob, CORRECTIONS_MAX, last_at=now, since=since)
