# SPDX-License-Identifier: Apache-2.0
"""How often a unit's knobs were set back after somebody else changed them, and when the next time may be.

The first correction is made at once. Whoever writes again soon is met with growing pauses, so that two writers in turn
do not keep a kernel lock busy; a quiet while forgets it all.
"""

from __future__ import annotations

from random import Random
from typing import Final

from numamigration_api.machinery.backoff import Backoff
from numamigration_api.machinery.records import dataclass, field

CORRECTION_WAIT_SECONDS_MIN: Final = 5.0
CORRECTION_WAIT_SECONDS_MAX: Final = 300.0
QUIET_SECONDS: Final = 900.0  # three times the longest pause: without drift for so long it is a new story
SHOWN_SECONDS: Final = 300.0  # how long a correction stays in the condition Drifted, for people who look later


@dataclass(slots=True)
class DriftLog:
    """Corrections of one unit.

    Attributes:
        corrections: how many in a row.
        last_at: monotonic seconds of the last one.
        not_before: the next one has to wait until then.
        fields: what was set back last.
    """

    corrections: int = 0
    last_at: float = float("-inf")
    not_before: float = float("-inf")
    fields: tuple[str, ...] = ()
    _backoff: Backoff = field(default_factory=lambda: Backoff(CORRECTION_WAIT_SECONDS_MIN, CORRECTION_WAIT_SECONDS_MAX))

    def corrected(self, fields: tuple[str, ...], now: float, rng: Random) -> None:
        """Note a correction and set the pause before the next one."""
        if now - self.last_at > QUIET_SECONDS:
            self.corrections = 0
            self._backoff.reset()
        self.corrections += 1
        self.fields, self.last_at = fields, now
        # The first pause is none: a single slip of a person is set back, and so is a second one, at once.
        first = self.corrections == 1
        self.not_before = now if first else now + self._backoff.next_wait(rng, CORRECTION_WAIT_SECONDS_MIN)

    def shown(self, now: float) -> bool:
        """Whether the last correction is still told."""
        return now - self.last_at < SHOWN_SECONDS

    def __str__(self) -> str:
        times = "once" if self.corrections == 1 else f"{self.corrections} times"
        return f"{', '.join(self.fields)} was changed by somebody else and set back, {times} lately"
