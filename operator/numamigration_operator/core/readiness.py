# SPDX-License-Identifier: Apache-2.0
"""Whose Ready condition is read: reserved and unproven Nodes only, of policies that have a guardrail on it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final

from numamigration_operator.core.node_record import NodeRecord
from numamigration_operator.core.policy_record import PolicyRecord
from numamigration_operator.core.progress import watches_readiness

READINESS_SECONDS: Final = 15.0  # between two reads of one Node; kubelets report every 10 s, and leases every 10 s


class Readiness:
    """Asks for the readiness of Nodes, and forgets it again."""

    def __init__(self, nodes: Mapping[str, NodeRecord], policies: Mapping[str, PolicyRecord]) -> None:
        self._nodes = nodes
        self._policies = policies
        self._read: dict[str, float] = {}  # Nodes that were asked for, and when it is worth asking again

    @property
    def _watched(self) -> frozenset[str]:
        """Nodes whose readiness somebody waits for."""
        waiting = (one.rollout.counted for one in self._policies.values() if watches_readiness(one.facts))
        return frozenset().union(*waiting)

    def due(self, now: float) -> float:
        """Return when to look again, monotonic seconds; infinity when nobody waits."""
        return now + READINESS_SECONDS if self._read or self._watched else math.inf

    def unread(self, now: float) -> Iterator[str]:
        """Yield Nodes whose readiness is to be read now."""
        for name in sorted(self._watched):
            record = self._nodes.get(name)
            if record is not None and record.uid is not None and self._read.get(name, -math.inf) <= now:
                self._read[name] = now + READINESS_SECONDS
                yield name

    def forget(self, now: float) -> Iterator[NodeRecord]:
        """Forget what nobody has asked for lately, and yield whose: a node that was passed over may be ready by now."""
        due = [name for name, at in self._read.items() if at + READINESS_SECONDS <= now]
        watched = self._watched if due else frozenset()
        for name in due:
            record = self._nodes.get(name)
            if name not in watched:
                del self._read[name]
                if record is not None:
                    record.ready = None
                    yield record
