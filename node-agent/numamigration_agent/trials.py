# SPDX-License-Identifier: Apache-2.0
"""The trials of one agent: the one under way, what the last one has shown, and whether that is on file. Pure.

Nobody waits for an answer that comes too late, but what it shows is judged all the same: what is wrong is wrong.
"""

from __future__ import annotations

import logging
from datetime import datetime
from random import Random

from numamigration_agent.jobs import Moved, MovePages, SaveVerdict
from numamigration_agent.lanes import Running
from numamigration_agent.situation import Refusal, Veto
from numamigration_agent.verify import TRY_AGAIN_SECONDS, Record, Trial, Verdict, judge, worst
from numamigration_api.machinery.clock import NEVER, timestamp
from numamigration_api.machinery.records import replace
from numamigration_api.vocabulary import Dialect, GroupState, VerificationResult

log = logging.getLogger(__name__)


class Trials:
    """Trials of the engines of one node.

    Attributes:
        verdict: the last one of this boot; None when there is none, or when another one is to be made.
    """

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self.verdict: Verdict | None = None
        self._on_file: Verdict | None = None
        self._trial: Trial | None = None
        self._try_again_at = NEVER

    def __repr__(self) -> str:
        return f"<Trials {self._trial.subject if self._trial else 'none under way'}; {self.verdict}>"

    @property
    def under_way(self) -> bool:
        """Whether pages of a trial are not back."""
        return self._trial is not None

    def resume(self, on_file: Verdict | None, of_status: Verdict | None) -> None:
        """Go on with what an earlier life of this agent knew."""
        self._on_file = on_file
        self.verdict = worst([on_file, of_status])

    def record(self, epoch: int) -> Record:
        """Return the last verdict, beside how often a spec has asked for one."""
        return Record(self.verdict, epoch)

    @property
    def veto(self) -> Veto | None:
        """Why no engine may be on: one has copied wrong on this boot, whatever is asked for now."""
        corrupt = self.verdict if self.verdict and self.verdict.is_corrupt else None
        return Veto(Refusal(GroupState.FAILED, corrupt.reason, corrupt.message)) if corrupt else None

    def begin(self, trial: Trial) -> MovePages:
        """Return the job of a trial that is due."""
        self._trial = trial
        request, dialect = trial.request(self._rng.getrandbits(32)), Dialect(trial.subject.dialect)
        return MovePages(request, dialect, channels=trial.channels)

    def moved(self, moved: Moved, running: Running, now: float, wall: datetime) -> Verdict | None:
        """Take the pages back and judge; returns the verdict if a change waits for it."""
        trial, self._trial = self._trial, None
        if trial is None or moved.answer is None:
            return None
        found = judge(trial, moved.before, moved.answer, moved.after, moved.channels)
        found = replace(found, seconds=now - running.since, at=timestamp(wall))
        if not running.blocked or found.is_corrupt:
            self._keep(found, now)
        return None if running.blocked else found

    def _keep(self, verdict: Verdict, now: float) -> None:
        self.verdict = verdict
        again = verdict.result is VerificationResult.IMPOSSIBLE and not verdict.lasting
        self._try_again_at = now + TRY_AGAIN_SECONDS if again else NEVER
        level = logging.ERROR if verdict.is_corrupt else logging.INFO
        log.log(level, "engine tried", extra={"result": str(verdict.result), "found": verdict.message})

    def forget_impossible(self, now: float) -> None:
        """Let an engine that could not be tried be tried again, once its time has come."""
        if now >= self._try_again_at:
            self.verdict, self._try_again_at = None, NEVER

    def forget_passed(self) -> None:
        """Let the next try begin with own pages, where the wish asks for trials at all: then nobody else waits."""
        if self.verdict is not None and self.verdict.result is VerificationResult.PASSED:
            self.verdict = None

    def next_save(self, boot_id: str) -> SaveVerdict | None:
        """Return the job that puts the verdict on file; None when it is there."""
        unsaved = self.verdict is not None and self.verdict != self._on_file and self.verdict.is_kept
        return SaveVerdict(self.verdict, boot_id) if unsaved and self.verdict else None

    def saved(self, verdict: Verdict, problem: str) -> None:
        """Take the answer to SaveVerdict: what went wrong, or nothing."""
        if problem:
            log.error("verdict not saved", extra={"problem": problem})
        # Also when it was not saved: the status has it too, and asking again and again would not help.
        self._on_file = verdict
