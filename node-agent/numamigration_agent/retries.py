# SPDX-License-Identifier: Apache-2.0
"""Units whose change failed, and when each may be tried again: with growing pauses, until a new spec comes. Pure."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from random import Random
from typing import Final

from numamigration_agent.change import Failure
from numamigration_agent.verify import TRY_AGAIN_SECONDS
from numamigration_api.machinery.backoff import Backoff
from numamigration_api.machinery.records import dataclass
from numamigration_api.vocabulary import Reason

log = logging.getLogger(__name__)

RETRY_SECONDS_MIN: Final = 5.0
RETRY_SECONDS_MAX: Final = 295.0  # drawn on top of the shortest, so 300 s at most


@dataclass(slots=True)
class Retry:
    """A unit that failed."""

    failure: Failure
    not_before: float
    backoff: Backoff


class Retries:
    """Failures of one node, by unit."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._units: dict[str, Retry] = {}

    @property
    def failures(self) -> Mapping[str, Failure]:
        """By unit, why it is not in force."""
        return {unit: retry.failure for unit, retry in self._units.items()}

    def not_before(self, unit: str) -> float:
        """Return when a unit may be tried; 0 when it has not failed."""
        retry = self._units.get(unit)
        return retry.not_before if retry else 0.0

    def failed(self, unit: str, failure: Failure, now: float, *, turns_off: bool = False) -> None:
        """Note a failure and set the pause before the next try, which does not grow for an engine that must go off."""
        before = self._units.get(unit)
        backoff = before.backoff if before else Backoff(RETRY_SECONDS_MIN, RETRY_SECONDS_MAX)
        # Each try of an engine that hangs holds up whoever migrates pages meanwhile.
        shortest = TRY_AGAIN_SECONDS if failure.reason is Reason.ENGINE_STALLED else RETRY_SECONDS_MIN
        wait = RETRY_SECONDS_MIN if turns_off else backoff.next_wait(self._rng, shortest)
        self._units[unit] = Retry(failure, now + wait, backoff)
        log.warning(
            "change failed",
            extra={"unit": unit, "reason": str(failure.reason), "problem": failure.message, "retry_seconds": wait},
        )

    def forget(self, unit: str) -> None:
        """Forget a unit that is in force, or that another wish is due for."""
        self._units.pop(unit, None)

    def keep(self, units: Iterable[str]) -> None:
        """Forget all but these units: nothing is left to be done for the others."""
        working = frozenset(units)
        self._units = {unit: retry for unit, retry in self._units.items() if unit in working}

    def clear(self) -> None:
        """Forget all."""
        self._units.clear()
