# SPDX-License-Identifier: Apache-2.0
"""The watch in this agent's life: when it takes its samples, and what of it the next life shall know. Pure."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from random import Random
from typing import Any

from numamigration_agent.effect import probe_request, probed
from numamigration_agent.jobs import ClockMoves, Moved, MovePages, ReadSigns, SaveMemory
from numamigration_agent.kernel.dialects import ROWS, Trap
from numamigration_agent.kernel.probe import KernelFacts
from numamigration_agent.kernel.signs import Signs
from numamigration_agent.lanes import Running
from numamigration_agent.memory import Memory, Remembered, remembered_state
from numamigration_agent.situation import Veto
from numamigration_agent.watch import Probed, Watch
from numamigration_agent.wishes import Spec
from numamigration_api.machinery.clock import NEVER
from numamigration_api.vocabulary import Dialect, Engine, GroupMode, SettingsGroup

log = logging.getLogger(__name__)


class Watchdog:
    """The watch over one node's engine, and its memory.

    Attributes:
        watch: what it judges by.
        veto: why the engine must be off; as of the last ``barks``.
    """

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self.watch = Watch(rng)
        self.veto: Veto | None = None
        self._memory = self._memory_tried = Memory()
        self._watching = False
        self._sample_at = NEVER

    def __repr__(self) -> str:
        return f"<Watchdog {self.watch}; {self.veto}>"

    # --- what outlives this process ----------------------------------------------------------------------------------

    def resume(self, remembered: Remembered, now: float) -> None:
        """Go on with what an earlier life of this agent knew."""
        self._memory, problem = remembered
        self._memory_tried = self._memory
        if problem:
            log.warning("what the watch remembered is ignored", extra={"problem": problem})
        self.watch.resume(self._memory.pause, now)

    def remember(self, spec: Spec, state: Mapping[str, Any]) -> None:
        """Take notice of the spec: what a person decides in it ends a pause, and a restarted agent shall know it."""
        wish = spec.wish(SettingsGroup.OFFLOAD)
        off = wish is not None and wish.mode is GroupMode.APPLY and wish.settings.get("engine") == Engine.OFF
        if off or spec.verify_epoch > self._memory.epoch:
            self.watch.forgive()
        kept = remembered_state(state) if wish or self.watch.pause else {}
        self._memory = Memory(kept, self.watch.pause, max(self._memory.epoch, spec.verify_epoch))

    def next_save(self, boot_id: str) -> SaveMemory | None:
        """Return the job that puts the memory on file; None when that was tried."""
        if self._memory_tried == self._memory:
            return None
        self._memory_tried = self._memory
        return SaveMemory(self._memory, boot_id)

    # --- verdicts ----------------------------------------------------------------------------------------------------

    def barks(self, now: float) -> bool:
        """Whether the verdict is another one than before; the only engine that is watched is that by DMA."""
        refusal = self.watch.veto(now)
        veto = Veto(refusal, Engine.DMA) if refusal else None
        if veto == self.veto:
            return False
        self.veto = veto
        if veto is None:
            log.info("the engine may be turned on again")
        else:
            log.error("engine not trusted", extra={"reason": str(veto.refusal.reason), "problem": veto.refusal.message})
        self._memory = self._memory._replace(pause=self.watch.pause)
        return True

    # --- samples -----------------------------------------------------------------------------------------------------

    def wake_at(self) -> float:
        """Return when a sample is due, or a pause over (monotonic seconds); samples that are under way are not."""
        return self.watch.pause.until if self.watch.pause and self.veto else NEVER

    @property
    def sample_at(self) -> float:
        """When the channels are to be sampled (monotonic seconds)."""
        return self._sample_at

    def looked(self, facts: KernelFacts, now: float, *, on: bool) -> bool:
        """Take notice of a look at the kernel, and of whether an engine of ours is on; returns whether that is new."""
        row, watched = ROWS.get(facts.dialect), self.watch.wants_signs
        waits = row is not None and Trap.BLOCKING_TURN_OFF in row.hazards
        self.watch.engine(on=on, held=row is not None and row.keeps_channels, waits=waits, now=now)
        self._sample_at = min(self._sample_at, now) if self.watch.wants_signs else NEVER
        begins = self.watch.wants_signs and not watched
        self._watching &= not begins
        return begins

    def next_sample(self, dialect: Dialect, now: float) -> ReadSigns | None:
        """Return the sample that is due."""
        return ReadSigns(self.watch.channels, dialect) if now >= self._sample_at else None

    def saw(self, signs: Signs, now: float) -> bool:
        """Take a sample; returns whether the kernel should be looked at at once."""
        self.watch.saw(signs, now)
        if not self._watching:
            self._watching = True
            log.info("watching the engine", extra={"channels": len(signs.channels.usable)})
        self._sample_at = now + self.watch.sample_seconds if self.watch.wants_signs else NEVER
        look, self.watch.look = self.watch.look, False
        return look

    def next_probe(self, facts: KernelFacts, now: float) -> MovePages | None:
        """Return the move of own pages that settles a suspicion."""
        if not self.watch.probe_due:
            return None
        self.watch.probing(now)
        request = probe_request(facts, self._rng)
        if isinstance(request, str):
            self.watch.probed(Probed(obstacle=request))
            return None
        return MovePages(request, facts.dialect, calm_only=True)

    def moved(self, moved: Moved) -> None:
        """Take what came of the own pages."""
        self.watch.probed(probed(moved))

    def waits(self, pages: Running | None, counters: Running | None, now: float, wall: datetime) -> None:
        """Take notice of jobs that wait for the engine, which says more than any number."""
        if pages is not None and isinstance(pages.job, MovePages | ClockMoves):
            self.watch.unanswered("a move of own pages", now - pages.since, now, wall)
        if counters is not None and counters.blocked:
            self.watch.counters_blocked(now, wall)
