# SPDX-License-Identifier: Apache-2.0
"""How long to wait before the next try: exponential, capped, full jitter.

Full jitter (a uniform draw from zero to the growing cap) spreads clients that failed together; a fixed or half
jitter keeps them in step. A server's Retry-After is a floor: we never come back earlier, and spread above it. One
that asks for more than ``RETRY_AFTER_SECONDS_MAX`` is broken (or too large for a timer) and is cut there.

Source: "Exponential Backoff And Jitter", AWS Architecture Blog 2015; RFC 9110 section 10.2.3 (Retry-After).
"""

from __future__ import annotations

from random import Random
from typing import Final

from numamigration_api.machinery.records import dataclass

RETRY_AFTER_SECONDS_MAX: Final = 600.0  # the API server asks for 1 s; ten minutes later it deserves another try
EXPONENT_MAX: Final = 32  # 2**32 s is past every cap; keeps the power small however long a server is away


@dataclass(slots=True)
class Backoff:
    """Waits of one retried thing; ``reset()`` after a success.

    Attributes:
        base_seconds: upper bound of the first wait.
        cap_seconds: upper bound of every wait.
        attempts: failures since the last reset.
    """

    base_seconds: float = 0.5
    cap_seconds: float = 30.0
    attempts: int = 0

    def reset(self) -> None:
        """Forget earlier failures."""
        self.attempts = 0

    def next_wait(self, rng: Random, retry_after: float | None = None) -> float:
        """Return the seconds to wait after one more failure.

        Args:
            rng: source of chance; passed in so that a test decides.
            retry_after: what the server asked for, in seconds; a floor of the answer.
        """
        ceiling = min(self.cap_seconds, self.base_seconds * 2.0 ** min(self.attempts, EXPONENT_MAX))
        self.attempts += 1
        return min(retry_after or 0.0, RETRY_AFTER_SECONDS_MAX) + rng.uniform(0.0, ceiling)


def parse_retry_after(value: str | None) -> float | None:
    """Read a Retry-After header of the form "seconds"; None when absent, a date, or not a number.

    The API server sends seconds only (k8s.io/apimachinery, pkg/api/errors).
    """
    if value is None or not value.strip().isdecimal():
        return None
    return float(value)
