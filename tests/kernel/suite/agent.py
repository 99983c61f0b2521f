# SPDX-License-Identifier: Apache-2.0
"""The agent with more time to move pages of its own: an emulated processor takes seconds for what takes 0.2 s.

It reads the counters of each NUMA node each second instead of each minute, and wonders after 5 s instead of 30 s why
pages migrate and none goes through the engine. All else is as people install it, also how long an engine may hold
others' pages: ``python -m tests.kernel.suite.agent`` and the agent's flags.
"""

from __future__ import annotations

import sys
from typing import Final

from numamigration_agent import counting, effect, lanes, loop, verify, watch
from numamigration_agent.__main__ import main
from numamigration_agent.lanes import Lane

MOVING_SECONDS_MAX: Final = 8.0
WINDOW_SECONDS_MAX: Final = 9.0
"""Less than the kernel waits for a channel, so that an engine that hangs is still told by it."""
PROBE_SECONDS_MAX: Final = 4.0
"""Less than the watch waits before it calls the engine stalled."""

CLOCKED_SECONDS_MAX: Final = 60.0
"""A copy by the CPU that is made to sleep at each page takes what timers of an emulated processor take."""


def adjust() -> None:
    """Let a trial take longer, and a test of counters less long."""
    for module, name, seconds in (
        (verify, "MOVING_SECONDS_MAX", MOVING_SECONDS_MAX),
        (loop, "WINDOW_SECONDS_MAX", WINDOW_SECONDS_MAX),
        (effect, "SECONDS_MAX", PROBE_SECONDS_MAX),
        (watch, "INEFFECTIVE_SECONDS", 5.0),
        (lanes, "CLOCKED_SECONDS_MAX", CLOCKED_SECONDS_MAX),
        (counting, "NUMA_NODES_SECONDS", 1.0),
    ):
        getattr(module, name)  # there is such a name
        setattr(module, name, seconds)
    lanes._SECONDS_MAX[Lane.PAGES] = WINDOW_SECONDS_MAX


if __name__ == "__main__":
    adjust()
    sys.exit(main())
