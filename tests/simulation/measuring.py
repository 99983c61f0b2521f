# SPDX-License-Identifier: Apache-2.0
"""What nodes measure, and how the model of an agent answers `spec.probe`: docs/decisions/0041 as seen from outside.

A class has a best number of channels, or gains nothing, by its name and the schedule's seed; each node finds that, or
something near it. A node has a habit: most measure, some refuse, are never calm, or are stopped halfway.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any, Final, NamedTuple

from numamigration_api.machinery.clock import NEVER
from tests.simulation.kernels import Kind

CALM_SECONDS: Final = (0.5, 20.0)
"""Until a node is calm enough to begin."""
PROBE_SECONDS: Final = (5.0, 50.0)
ENDED: Final = frozenset({"Done", "Stopped", "Refused"})
HABITS: Final = {"Done": 78, "Refused": 8, "Stopped": 8, "Waiting": 6}
REASONS: Final[Mapping[str, str]] = {
    "Waiting": "NotCalm",
    "Running": "Measuring",
    "Done": "Measured",
    "Stopped": "NotCalm",
    "Refused": "NoFreeMemory",
}
GAINS_SHARE: Final = 0.75
"""Of the classes in which offload is worth it."""
CHANNELS: Final = (2, 4)
ALIKE_SHARE: Final = 0.7
"""Of the nodes that find what their class is said to have."""
NOTHING_GAINED: Final[dict[str, Any]] = {"engine": "Off"}


class Bench(NamedTuple):
    """What a node's measurements come to, each time."""

    habit: str
    choice: Mapping[str, Any]


def bench_of(seed: int, node: str, kind: Kind) -> Bench:
    """Return what a node measures in a schedule."""
    of_class, own = Random(f"{seed} {kind.hardware_class}"), Random(f"{seed} {node} measures")
    gains, best = of_class.random() < GAINS_SHARE, of_class.choice(CHANNELS)
    channels = best if own.random() < ALIKE_SHARE else own.choice(CHANNELS)
    loses = not gains or own.random() < 0.05
    habit = own.choices(list(HABITS), list(HABITS.values()))[0] if kind.driver else "Refused"
    choice = NOTHING_GAINED if loses else {"engine": "DMA", "channels": channels, "gain": f"1.{channels}"}
    return Bench(habit, choice)


class Probing:
    """One agent's measurement, from the question to the answer.

    Attributes:
        due_at: when it goes on; monotonic seconds.
    """

    def __init__(self, bench: Bench, kept: dict[str, Any], rng: Random) -> None:
        """Begin a life of an agent; `kept` is what lies on tmpfs, of this or an earlier life of it."""
        self._bench, self._kept, self._rng = bench, kept, rng
        self._asked, self.due_at = "", NEVER
        if self.runs:
            self._end("Stopped", "Interrupted")

    @property
    def runs(self) -> bool:
        """Settings may be other ones than wished."""
        return bool(self._kept.get("phase") == "Running")

    def recall(self, told: Mapping[str, Any]) -> None:
        """Take in what the status says where tmpfs knows nothing: the host was booted in mid-probe."""
        if not self._kept and told.get("id"):
            ended = told["phase"] in ENDED
            self._kept.update(told if ended else {} if told["phase"] == "Waiting" else {"id": told["id"]})
            if told["phase"] == "Running":
                self._end("Stopped", "Interrupted")

    def ask(self, asked: str, now: float) -> None:
        """Take in the id of what is asked; empty: nothing. What has an answer is not measured again."""
        if asked == self._asked:
            return
        self._asked, self.due_at = asked, NEVER
        if self.runs:
            self._kept.clear()  # withdrawn: all is put back, and it may be asked anew
        if asked and self._kept.get("id") != asked:
            self.due_at = now + self._rng.uniform(*CALM_SECONDS)

    def stop(self) -> None:
        """End it, since what is wished became another thing."""
        if self.runs:
            self._end("Stopped", "Withdrawn")
            self.due_at = NEVER

    def go_on(self, now: float, *, may_begin: bool) -> bool:
        """Take the next step, if it is time for one; return whether there was one."""
        if now < self.due_at:
            return False
        if self.runs:
            self._end(self._bench.habit, REASONS[self._bench.habit])
            self.due_at = NEVER
        elif self._bench.habit in {"Waiting", "Refused"}:
            self._kept.clear()
            if self._bench.habit == "Refused":
                self._kept.update(id=self._asked)
                self._end("Refused", REASONS["Refused"])
            self.due_at = NEVER
        elif not may_begin:
            self.due_at = now + self._rng.uniform(*CALM_SECONDS)
        else:
            self._kept.clear()
            self._kept.update(id=self._asked, phase="Running", reason=REASONS["Running"])
            self.due_at = now + self._rng.uniform(*PROBE_SECONDS)
        return True

    def _end(self, phase: str, reason: str) -> None:
        self._kept.update(phase=phase, reason=reason, message=f"{phase} here")
        if phase == "Done":
            self._kept["choice"] = dict(self._bench.choice)

    def document(self) -> dict[str, Any] | None:
        """Return what the status says."""
        if not self._asked:
            return None
        if self._kept.get("id") == self._asked:
            return dict(self._kept)
        return {"id": self._asked, "phase": "Waiting", "reason": REASONS["Waiting"]}
