# SPDX-License-Identifier: Apache-2.0
"""Promises 15 and 16, looked at from outside: what engines did to pages, and when the agent acted on it.

* Own pages are seen to pass in the model itself: how many, with which bytes, and by how much the engine's counter grew.
* A verdict is about a load of the driver, its kinds of engine and its number of channels; engines that were exchanged
  for others of the same look cannot be told apart by anybody, so their corruption is not charged to the agent.
* Signs are the model's: a batch in flight on an engine that hangs, or 512 folios that failed on one that always fails.
  The clock of promise 16 runs only while the agent can know that an engine of its node's is on: since its last look,
  with the values of before in its file, and while the switch can be read.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from numamigration_agent.jobs import Moved, MovePages, SaveVerdict
from numamigration_agent.kernel.pages import MoveAnswer
from numamigration_api.vocabulary import Dialect, VerificationResult
from tests.fuzz.judgement import require
from tests.fuzz.tables import CHANNELS, COUNTS_FAILURES, ENGINE, KEEPS_CHANNELS, THREADS

if TYPE_CHECKING:
    from numamigration_agent.jobs import Answer, Job
    from tests.fuzz.oracle import Oracle

OFF_WITHIN: Final = 10.0 + 5.0 + 2.5
"""Seconds from the first sign: a batch's wait, what is promised after it, and the time between two samples."""
NOTICED_WITHIN: Final = 5.0 + 2.5 + 1.0
"""A stall that is over sooner need not be noticed: nothing may move for 5 s, between two samples."""
NEXT_TRY: Final = re.compile(r"next try after ([-0-9T:]+Z)")
FOLIOS_FAILED: Final = 512

Key = tuple[int, frozenset[str], str]


class Trust:
    """What is known of the engines of one boot."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle, self._world = oracle, oracle.world
        self.checked = 0
        """How often the clock of promise 16 was looked at while it ran."""
        self.rebooted()

    def rebooted(self) -> None:
        """Forget all: engines are tried anew on each boot."""
        self._loads, self._proven = 0, set[Key]()
        self.is_corrupt = False
        """Own pages came over wrong on this boot, and a home of that is left."""
        self._corrupt_homes = set[str]()
        self._wrong = self._passed = self._exchanged = False
        self.in_window = self._turned_on_verified = False
        self._seen_on = self._knows_on = self._missed = self._refused_off = False
        self._sign: float | None = None
        self._is_sick = False
        self._known_as: Dialect | None = None
        self._sign_seen = 0.0
        self._failed_before = 0
        self._paused_until = float("-inf")
        self._epoch = 0
        self._memory_gone = False
        self._corrupted_before = 0

    @property
    def _state(self) -> Any:
        return self._world.kernel._state

    @property
    def is_suspect(self) -> bool:
        """Whether any engine of this host may ever give a reason to turn it off."""
        slow_or_failing = any(row.hangs or row.error_share or row.copy_seconds for row in self._state.engines)
        return self._exchanged or self.is_corrupt or slow_or_failing

    def _key(self) -> Key:
        return self._loads, frozenset(self._oracle.usable()), self._oracle.held().get(CHANNELS, "")

    # --- what the world did

    def started(self) -> None:
        """Note that a new agent knows what is in files and status alone."""
        if not self._corrupt_homes:
            self.is_corrupt = False
        if self._memory_gone:
            self._paused_until = float("-inf")
        self._wrong = self._passed = False
        self._forget_signs()

    def driver_came(self) -> None:
        """Note another load of the driver, which has to show anew what it does."""
        self._loads += 1
        self.switched_by_others()

    def switched_by_others(self) -> None:
        """Note that whether the engine is on is not the agent's doing any more."""
        self._turned_on_verified = self.in_window = False
        self._forget_signs()

    def exchanged(self) -> None:
        """Note that the DMA engines are others now."""
        self._exchanged = True
        self._sign = None

    def faulted(self, path: str) -> None:
        """Note that the agent did not get to see a file."""
        self._missed |= path == self._oracle.path(ENGINE)

    def lost_home(self, home: str) -> None:
        """Note that somebody took the state folder, or the status."""
        self._corrupt_homes.discard(home)
        self._memory_gone |= home == "file"

    def _forget_signs(self) -> None:
        self._seen_on = self._knows_on = False
        self._sign = None

    # --- what the agent was shown and did

    def shown(self, spec: Any) -> None:
        """Note what a person decides in a spec: an explicit Off, Restore and a grown epoch end a pause."""
        wish = ((spec or {}).get("groups") or {}).get("offload") or {}
        epoch, mode = (spec or {}).get("verifyEpoch", 0), wish.get("mode")
        decided = mode == "Restore" or (mode == "Apply" and wish["settings"].get("engine") == "Off")
        if epoch > self._epoch or decided:
            self._paused_until = float("-inf")
        self._epoch = max(self._epoch, epoch)

    def probed(self) -> None:
        """Note that the agent has looked at the switch."""
        self._knows_on, self._missed = self._is_on and not self._missed, False
        self._known_as = self._oracle.seen
        self._look_at_switch()

    def saved(self) -> None:
        """Note that an engine which was on before may be the agent's from now on."""
        self._look_at_switch()

    def _look_at_switch(self) -> None:
        was, self._seen_on = self._seen_on, self._knows_on and self._is_on and self._is_on_file
        if self._seen_on and not was:
            self._sign, self._failed_before = None, self._failures()

    @property
    def _is_on(self) -> bool:
        driver = self._state.dcbm
        return driver is not None and driver.offloading and not driver.turning_off

    @property
    def _is_on_file(self) -> bool:
        return ENGINE in self._oracle.safe() and not self._oracle.is_spoiled

    def _failures(self) -> int:
        return self._state.dcbm.folios_failures if self._state.dcbm else 0

    def performed(self, job: Job, answer: Answer) -> None:
        """Note what became of own pages, and of what was found."""
        if isinstance(job, MovePages) and isinstance(answer, Moved):
            self._wrong = self._passed = False
            if answer.answer is not None and not job.calm_only:
                self._note_moved(answer, answer.answer)
        elif isinstance(job, SaveVerdict) and job.verdict.result is VerificationResult.FAILED:
            self._corrupt_homes.add("file")
            self._memory_gone = False

    def _note_moved(self, moved: Moved, answer: MoveAnswer) -> None:
        passages = answer.passages
        folios = sum(row.folios for row in passages)
        counted = "folios_migrated" in moved.before and "folios_migrated" in moved.after
        grown = moved.after["folios_migrated"] - moved.before["folios_migrated"] if counted else folios
        self._wrong = any(row.wrong for row in passages)
        arrived = passages and all(row.folios for row in passages) and not answer.cause
        self._passed = bool(arrived and not self._wrong and grown >= folios)
        if self._passed:
            self._proven.add(self._key())

    def heard(self, answer: Answer) -> None:
        """Note that the agent knows how its pages came over."""
        if not isinstance(answer, Moved):
            return
        if self._wrong:
            self.is_corrupt, self._corrupt_homes = True, set()
        elif self._passed:
            self.in_window = False

    def told(self, status: Any) -> None:
        """Note what is in the other home, and that the agent stays away from the engine."""
        if (status.get("verification") or {}).get("result") == "Failed":
            self._corrupt_homes.add("status")
        result = (status.get("groups") or {}).get("offload") or {}
        found = NEXT_TRY.search(result.get("message", ""))
        if found and self._is_sick:  # a false alarm is taken back
            self._paused_until = self._world.seconds_at(found[1])

    def storing(self, name: str, text: str, *, verified: bool) -> None:
        """Check a write to a switch at the moment at which it reaches the kernel."""
        if name != ENGINE:
            return
        if text == "0":
            self._seen_on, self._knows_on, self._sign = False, False, None
            return
        require(not self.is_corrupt, 15, "an engine is turned on after one copied wrong on this boot")
        require(self._world.now >= self._paused_until, 16, "an engine goes on again before its pause is over")
        self.in_window, self._is_sick = verified, False

    def stored(self, name: str, *, verified: bool) -> None:
        """Note that the kernel took a write."""
        if name in {ENGINE, THREADS}:
            on = self._oracle.held().get(name) == "1"
            self._turned_on_verified = on and verified and name == ENGINE
            self.in_window &= on
            self._refused_off = False

    def refused(self, name: str) -> None:
        """Note that the kernel did not take a write, and that what is on may have to stay."""
        self._refused_off |= name == ENGINE

    # --- what holds

    def check_rest(self, wish: Any) -> None:
        """Check at rest that what is on has been tried, and has not copied wrong."""
        known = self._knows_on and self._is_on and self._is_on_file  # a switch that shows junk tells nobody
        if not known or self._refused_off or not wish or ENGINE in self._oracle._others:
            return
        require(not self.is_corrupt, 15, "an engine that copied wrong is on")
        tries = wish["mode"] == "Apply" and wish["verification"] != "Off" and wish["settings"]["engine"] == "DMA"
        if tries and self._turned_on_verified and CHANNELS not in self._oracle._others:
            require(self._key() in self._proven, 15, f"{self._key()} is on, and our pages passed {self._proven} only")

    def before_time(self) -> None:
        """Note what is corrupted until now."""
        self._corrupted_before = self._state.corrupted_pages

    def after_time(self) -> None:
        """Check that time, as it passed, did no harm, and that nobody has waited too long."""
        grown = self._state.corrupted_pages - self._corrupted_before
        trusted = self._turned_on_verified and not self.in_window and not self._exchanged and not self._refused_off
        require(not (grown and trusted), 15, f"{grown} pages of others were corrupted")
        self._look_for_signs()
        if self._sign is not None:
            self.checked += 1
            waited = self._world.now - self._sign
            require(waited <= OFF_WITHIN, 16, f"an engine is on {waited:g} s after the first sign")

    def _look_for_signs(self) -> None:
        world = self._world
        blind = bool(world.kernel.blocked) or world.is_read_only or self._oracle.path(ENGINE) in world.faults
        if not (self._seen_on and self._is_on and self._is_on_file) or blind:
            self._sign = None
        elif self._has_sign():
            self._is_sick = True
            self._sign, self._sign_seen = (world.now if self._sign is None else self._sign), world.now
        elif self._sign is not None and self._sign_seen - self._sign < NOTICED_WITHIN:
            self._sign = None  # it was over before anybody could be sure

    def _has_sign(self) -> bool:
        dialect, engines = self._oracle.seen, self._state.engines
        hanging = any(channel.device.hangs for batch in self._state.batches for channel in batch.channels)
        # Engines that came in place of others under their names may make it another dialect, which only a look tells.
        if hanging and not {dialect, self._known_as} & KEEPS_CHANNELS:
            return True
        always = bool(engines) and all(row.error_share == 1 for row in engines)
        return always and dialect in COUNTS_FAILURES and self._failures() - self._failed_before >= FOLIOS_FAILED
