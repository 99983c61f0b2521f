# SPDX-License-Identifier: Apache-2.0
"""When a hardware class is measured, and when anew: pure functions of what its profile says.

The tuner goes by it, and the plugin says it.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Final

from numamigration_api.machinery.clock import seconds_since
from numamigration_api.vocabulary import ProfilePhase
from numamigration_operator.core.objects import ProfileStatus

RETRY_SECONDS: Final = 3600.0
"""After a round in which no node could measure."""
REMEASURE_SECONDS: Final = 30 * 86_400.0
"""Firmware, kernels and neighbours change what was measured."""
DISPUTE_SECONDS: Final = 86_400.0
"""After the first failure in service; twice as long after each further one."""


def seconds_until_due(status: ProfileStatus, wall: datetime) -> float:
    """Return in how many seconds a class is to be measured; 0 or less: now."""
    attempted, measured = _age(status.attempted_at, wall), _age(status.measured_at, wall)
    if status.phase == ProfilePhase.DISPUTED:
        return min(DISPUTE_SECONDS * 2.0 ** (min(status.disputes, 16) - 1), REMEASURE_SECONDS) - attempted
    if status.phase == ProfilePhase.MEASURED:
        return max(REMEASURE_SECONDS - measured, RETRY_SECONDS - attempted)
    return RETRY_SECONDS - attempted


def _age(moment: str | None, wall: datetime) -> float:
    """Seconds since a moment; infinity when there is none, or it cannot be."""
    age = seconds_since(moment, wall)
    return math.inf if age is None or age < 0 else age
