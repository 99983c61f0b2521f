# SPDX-License-Identifier: Apache-2.0
"""When an agent has been silent for too long: nobody tells of that, so an alarm rings."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from numamigration_operator.core.node_record import NodeRecord

SPARE: Final = 1024  # outdated alarms that may lie in the heap before it is built anew


def silent_for(record: NodeRecord, deadlines: Sequence[int], now: float) -> int:
    """Return the longest of these deadlines (seconds, rising) that the agent's silence has passed; 0 for none."""
    if not deadlines or record.silent_since + deadlines[0] > now:
        return 0
    return max(one for one in deadlines if record.silent_since + one <= now)


class Alarms:
    """Rings when an agent's silence passes a deadline; a report moves that, which is seen when it rings."""

    def __init__(self, nodes: Mapping[str, NodeRecord]) -> None:
        self._nodes = nodes
        self._heap: list[tuple[float, str]] = []

    @property
    def due(self) -> float:
        """When the next one rings, monotonic seconds; infinity when none is set."""
        return self._heap[0][0] if self._heap else math.inf

    def set(self, record: NodeRecord, deadlines: Sequence[int], now: float) -> None:
        """Set the alarm of a node to the next of its policies' deadlines (seconds, rising)."""
        if record.report is None and not record.holds:
            return
        if record.alarm is not None and deadlines and record.alarm <= record.silent_since + deadlines[0]:
            return
        moments = (record.silent_since + one for one in deadlines)
        alarm = next((moment for moment in moments if moment > now), math.inf)
        if math.isinf(alarm) or (record.alarm is not None and record.alarm <= alarm):
            return
        record.alarm = alarm
        heapq.heappush(self._heap, (alarm, record.name))
        if len(self._heap) > 2 * len(self._nodes) + SPARE:
            self._heap = [(one.alarm, one.name) for one in self._nodes.values() if one.alarm is not None]
            heapq.heapify(self._heap)

    def ring(self, now: float) -> Iterator[NodeRecord]:
        """Yield the nodes whose alarm rings, and take it off."""
        while self._heap and self._heap[0][0] <= now:
            at, name = heapq.heappop(self._heap)
            record = self._nodes.get(name)
            if record is not None and record.alarm == at:
                record.alarm = None
                yield record
