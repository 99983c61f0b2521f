# SPDX-License-Identifier: Apache-2.0
"""What keeps new pushes from nodes, whatever their rollouts say.

The fleet switch, a missing node fence, the circuit breaker, a held class.

The breaker opens while too large a share of the nodes with agents has failed, for whatever policy: what is wrong then
is not one policy, and no rollout alone can see it. It closes by itself. All of them let through what restores,
releases, holds or turns offload off.
"""

from __future__ import annotations

from collections.abc import Iterable

from numamigration_api.vocabulary import FleetSwitch, Reason, VerificationResult
from numamigration_operator.core.class_hold import Hold, fresh_corruption, hold_of, read_hold
from numamigration_operator.core.classify import SWITCH_REASONS
from numamigration_operator.core.fleet_switch import Control
from numamigration_operator.core.node_facts import GO_ON, Stop
from numamigration_operator.core.node_record import NodeRecord


class Stops:
    """All of them.

    Attributes:
        control: what the control ConfigMap says.
        fence_problem: why agents are not kept to their own nodes, and what to do; empty while they are.
        breaker: why the circuit breaker is open; empty while it is closed.
    """

    def __init__(self, breaker_percent: int, breaker_nodes_min: int) -> None:
        self.control = Control()
        self.fence_problem = ""
        self.breaker = ""
        self._percent, self._nodes_min = breaker_percent, breaker_nodes_min
        self._failed: set[str] = set()
        self._reporting: set[str] = set()
        self._shown: dict[str, Hold] = {}
        self._open: dict[str, Hold] = {}  # decided and not shown yet, by key

    @property
    def all_stand(self) -> bool:
        """Nothing is to be reserved anywhere."""
        return self.control.switch is not FleetSwitch.RUN or bool(self.fence_problem or self.breaker)

    @property
    def holds(self) -> tuple[Hold, ...]:
        """The held classes."""
        return (*self._shown.values(), *self._open.values())

    def take_control(self, control: Control) -> None:
        """Take in what the control ConfigMap says."""
        self.control = control
        self._shown = {key: hold for key, text in control.holds if (hold := read_hold(text)) is not None}
        for key in self._shown:
            self._open.pop(key, None)

    def stop(self, record: NodeRecord) -> Stop:
        """Return what keeps pushes from a node."""
        if self.control.switch is not FleetSwitch.RUN:
            return Stop(SWITCH_REASONS[self.control.switch], f"the fleet switch is {self.control.switch}")
        if self.fence_problem:
            return Stop(Reason.FENCE_MISSING, self.fence_problem)
        if self.breaker:
            return Stop(Reason.CIRCUIT_BREAKER_OPEN, self.breaker)
        hold = self._hold(record) if self._shown or self._open else None
        return Stop(Reason.CLASS_HELD, str(hold), offload_only=True) if hold is not None else GO_ON

    # Held classes

    def _hold(self, record: NodeRecord) -> Hold | None:
        return next((hold for hold in self.holds if hold.concerns(record)), None)

    def new_hold(self, record: NodeRecord, everyone: Iterable[NodeRecord]) -> Hold | None:
        """Return the hold that a node's report asks for, unless its class is held already."""
        epoch = fresh_corruption(record)
        if epoch is None or record.uid is None or self._hold(record) is not None:
            return None
        hold = hold_of(record, 1 + max(epoch, *(one.base.verify_epoch for one in everyone if one.cell == record.cell)))
        self._open[hold.key] = hold
        return hold

    def forget_open_hold(self, key: str) -> None:
        """Take in that a hold could not be written."""
        self._open.pop(key, None)

    def verify_epoch(self, record: NodeRecord) -> int:
        """Return the epoch with which a node shall verify: in a held class anew, and the corrupt one is noted."""
        hold = next((hold for hold in self._shown.values() if hold.concerns(record)), None) if self._shown else None
        if hold is None:
            return record.base.verify_epoch
        corrupt = fresh_corruption(record)
        return max(record.base.verify_epoch, hold.verify_epoch, 0 if corrupt is None else corrupt + 1)

    def keeps_off(self, record: NodeRecord, *, is_silent: bool) -> bool:
        """Return whether nothing is turned on at a node, after a reboot either, since its class is held.

        An engine that is trusted by now goes through the trial that the hold asks for first, unless the node is down.
        """
        if not any(hold.concerns(record) for hold in self._shown.values()):
            return False
        if is_silent:
            return True
        trial = record.report.verification if record.report is not None else None
        return trial is None or trial.result != VerificationResult.PASSED or trial.epoch >= self.verify_epoch(record)

    # The circuit breaker

    def note(self, record: NodeRecord) -> None:
        """Take in how a node fares."""
        (self._failed.add if record.is_failed else self._failed.discard)(record.name)
        (self._reporting.add if record.report is not None else self._reporting.discard)(record.name)

    def forget(self, name: str) -> None:
        """Take in that a node is gone."""
        self._failed.discard(name)
        self._reporting.discard(name)

    def judge(self) -> bool:
        """Open or close the circuit breaker; return whether it moved."""
        failed = len(self._failed)
        is_open = failed >= self._nodes_min and failed * 100 >= self._percent * len(self._reporting)
        text = f"{self._percent} % of the nodes with agents or more have failed" if is_open else ""
        moved, self.breaker = text != self.breaker, text
        return moved
