# SPDX-License-Identifier: Apache-2.0
"""Whether the engine that is on still does its work. Pure: samples and the time go in, a verdict comes out.

While an engine of ours is on, and only then, two things are sampled: each 2.5 s which DMA channels are in use, and
each 10 s what moved; both each second while a channel is in use.

* Stalled: a channel is in use and nothing moves for ``STALL_SECONDS``. That is half of the kernel's wait for a channel,
  so the turn-off is written while the first batch is still waited for, and no second one begins. A sound engine is far
  from it: a batch is below 4 MiB on a stock kernel, and 1 GiB with the raised ceiling that the series' tables were
  taken with, which would then be 0.2 GB/s. Several slow channels may keep a batch for 10 s each without an error; the
  tasks wait all the same, so that is a stall too.
* Where the driver keeps its channels while it is on (``keeps_channels``), ``in_use`` says nothing. There a stall begins
  as a suspicion: what moved has stopped at once, folios and pages alike. Work that has ended looks the same, so own
  pages are sent after it, and those tell: an engine that keeps them is stalled.
* Failing: more than ``FAILED_SHARE_MAX`` of at least ``FAILED_FOLIOS_MIN`` folios failed. A sound engine has none.
* A channel that another client holds looks like a stalled one as long as nothing moves. Nobody tells whose it is but
  the turn-off: who is in use after it is not ours, so the verdict is taken back. A few times; then it stays. Up to V3
  the turn-off waits for no batch, tells nothing, and the verdict stays at once.
* Channels that come and go are for the guards: the watch only asks for a look at once. Without one the engine goes off,
  and what comes back is looked at like any new engine.
* After a verdict the engine stays off for a pause that grows with each one, whatever policy comes; a person ends it
  (an explicit Off, a grown verifyEpoch), and so does an hour of sound work.
* Ineffective: pages migrate and no folio goes through the engine. Other reasons, or huge pages of hugetlb, look the
  same, so it is only a suspicion until own pages have taken that way. All channels in use: then others hold them.

Sources: "[PATCH RFC v6 0/5]" of the batch copy offload series, 4/5 (10 s for each channel; no channel is silent);
mm/migrate.c (NR_MAX_BATCHED_MIGRATION).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from random import Random
from typing import Final, NamedTuple

from numamigration_agent.kernel.counters import Counts
from numamigration_agent.kernel.signs import Channels, Signs
from numamigration_agent.situation import Refusal
from numamigration_api.machinery.clock import timestamp
from numamigration_api.vocabulary import ConditionStatus, GroupState, Reason

SAMPLE_SECONDS: Final = 2.5
SAMPLE_SECONDS_BUSY: Final = 1.0
COUNT_SECONDS: Final = 10.0  # a failing engine is seen within one of them
STALL_SECONDS: Final = 5.0  # with a sample before and one after, 8.5 s: less than the kernel waits for a channel

FAILED_SHARE_MAX: Final = 0.05
FAILED_FOLIOS_MIN: Final = 512  # one batch of base pages on a stock kernel

PAUSE_SECONDS_FIRST: Final = 60.0
PAUSE_SECONDS_MAX: Final = 3600.0  # a try costs the tasks of one batch up to 10 s
_DOUBLINGS_MAX: Final = 6
SOUND_SECONDS: Final = 3600.0
FALSE_ALARMS_MAX: Final = 3
"""How often channels of others are believed; who takes and gives them back again and again would flap the switch."""

INEFFECTIVE_SECONDS: Final = 30.0
INEFFECTIVE_PAGES_MIN: Final = 512
PROBE_PAUSE_SECONDS: Final = 180.0
PROBE_PAGES: Final = 64
_NAMES_SHOWN_MAX: Final = 4
_FOLIOS: Final = frozenset({"folios_migrated", "folios_failed"})


class Pause(NamedTuple):
    """Why the engine was turned off, and until when it stays so (monotonic seconds of this boot)."""

    reason: Reason
    message: str
    until: float
    trips: int


class Finding(NamedTuple):
    """What is wrong with an engine that stays on."""

    status: ConditionStatus
    reason: Reason
    message: str


class Probed(NamedTuple):
    """What came of moving own pages through the engine.

    Attributes:
        pages: that arrived, there and back.
        folios: by how much the engine's counters grew meanwhile; None when they could not be read.
        obstacle: why nothing can be said; empty when something can.
        postponed: the node was not calm, so nothing was moved.
    """

    pages: int = 0
    folios: int | None = None
    obstacle: str = ""
    postponed: bool = False


class Watch:
    """The watch over one node's engine.

    Attributes:
        pause: the last verdict; it holds until its time has come.
        mistaken: that verdict was taken back: it was not the engine.
        finding: what is wrong without being a reason to turn off.
        channels: what the last sample listed.
        look: the kernel should be looked at at once, for channels came or went.
        probe_due: own pages should be moved, to settle a suspicion.
    """

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self.pause: Pause | None = None
        self.finding: Finding | None = None
        self.channels = Channels()
        self.look = self.probe_due = self.mistaken = False
        self._on_since: float | None = None
        self._held = False
        self._tells_whose = True
        self._suspects: frozenset[str] = frozenset()
        self._foreign: frozenset[str] = frozenset()
        self._false_alarms = 0
        self._probe_not_before = float("-inf")
        self._forget_samples()

    def __repr__(self) -> str:
        return f"<Watch {'on' if self._on_since is not None else 'off'}; in use {sorted(self._busy)}; {self.pause}>"

    def _forget_samples(self) -> None:
        self._busy: dict[str, float] = {}
        self._in_use: frozenset[str] = frozenset()
        self._moved: tuple[int, ...] | None = None
        self._moved_at = float("-inf")
        self._judged: Counts | None = None
        self._flat_since: tuple[float, int] | None = None
        self._pages: tuple[float, int] | None = None
        self._stop_due = self._about_stop = False
        self.finding, self.probe_due = None, False

    # --- what the engine is wished and does --------------------------------------------------------------------------

    def engine(self, *, on: bool, held: bool = False, waits: bool = True, now: float) -> None:
        """Take notice of an engine of ours.

        Args:
            on: whether it is on.
            held: whether it then holds its channels all the time.
            waits: whether its turn-off waits for batches in flight; only then a channel still in use is another's.
            now: seconds of a monotonic clock.
        """
        self._held, self._tells_whose = held, waits
        if on and self._on_since is None:
            self._on_since = now
            self._suspects = frozenset()
        elif not on and self._on_since is not None:
            self._on_since = None
            self._forget_samples()

    def resume(self, pause: Pause | None, now: float) -> None:
        """Go on with what an earlier life of this agent knew."""
        self.pause = pause and pause._replace(until=min(pause.until, now + 2 * PAUSE_SECONDS_MAX))

    def forgive(self) -> None:
        """Forget the verdict: a person has decided."""
        self.pause, self._suspects, self._false_alarms, self.mistaken = None, frozenset(), 0, False

    def veto(self, now: float) -> Refusal | None:
        """Return why the engine must be off now."""
        if self.pause is None or now >= self.pause.until:
            return None
        return Refusal(GroupState.FAILED, self.pause.reason, self.pause.message)

    @property
    def wants_signs(self) -> bool:
        """Whether channels are to be sampled: while the engine is on, and once after a stall, whose they are."""
        return self._on_since is not None or bool(self._suspects)

    @property
    def count_seconds(self) -> float:
        """How long after a reading of the counters the next one is due."""
        return SAMPLE_SECONDS_BUSY if self._busy or self._held else COUNT_SECONDS

    @property
    def sample_seconds(self) -> float:
        """How long after a sample of the channels the next one is due."""
        return SAMPLE_SECONDS_BUSY if self._busy else SAMPLE_SECONDS

    # --- samples -----------------------------------------------------------------------------------------------------

    def saw(self, signs: Signs, now: float) -> None:
        """Take a sample of the channels."""
        if self._on_since is None:
            self._tell_whose(signs)
        if self.channels.usable != signs.channels.usable:
            self.look = self._on_since is not None and self.channels != Channels()
        self.channels = signs.channels
        self._foreign &= signs.in_use
        self._in_use = signs.in_use
        telling = self._on_since is not None and not self._held
        ours = signs.in_use - self._foreign if telling else frozenset[str]()
        self._busy = {name: self._busy.get(name, now) for name in ours}

    def counted(self, counts: Counts, now: float, wall: datetime) -> None:
        """Take a reading of the counters."""
        if self._on_since is None:
            self._judged = counts  # so that nothing is missed between turning on and the first reading after it
            return
        if self.pause is not None and now - max(self._on_since, self.pause.until) >= SOUND_SECONDS:
            self.forgive()
        self._note_moves(counts, now)
        self._judge_stall(now, wall)
        self._judge_failures(counts, now, wall)
        self._suspect_stop(counts, now)
        self._suspect(counts, now)

    def unanswered(self, what: str, seconds: float, now: float, wall: datetime) -> None:
        """Take notice that something which waits for the engine has not answered: counters, or own pages."""
        if self._on_since is not None and seconds >= STALL_SECONDS:
            self._trip(Reason.ENGINE_STALLED, f"{what} has not answered for {seconds:.0f} s", now, wall)

    def counters_blocked(self, now: float, wall: datetime) -> None:
        """Take notice that the counters do not answer: only the channels tell then."""
        self._judge_stall(now, wall)

    def _tell_whose(self, signs: Signs) -> None:
        suspects, self._suspects = self._suspects, frozenset()
        self._foreign |= suspects & signs.in_use
        if self.pause is None or not suspects or not suspects <= signs.in_use:
            return
        self._false_alarms += 1
        if self._false_alarms <= FALSE_ALARMS_MAX:
            self.mistaken = True
            trips = self.pause.trips - 1
            self.pause = self.pause._replace(until=0.0, trips=trips) if trips else None

    def _note_moves(self, counts: Counts, now: float) -> None:
        moved = _moved(counts)
        if moved != self._moved:
            self._moved, self._moved_at = moved, now

    def _judge_stall(self, now: float, wall: datetime) -> None:
        if not self._busy:
            return
        seconds = now - max(min(self._busy.values()), self._moved_at)
        if seconds >= STALL_SECONDS:
            self._suspects = frozenset(self._busy) if self._tells_whose else frozenset()
            names = _some(sorted(self._busy))
            self._trip(Reason.ENGINE_STALLED, f"{names} in use and nothing moved for {seconds:.0f} s", now, wall)

    def _judge_failures(self, counts: Counts, now: float, wall: datetime) -> None:
        if not counts.keys() >= _FOLIOS:
            return
        before = self._judged if self._judged and self._judged.keys() >= _FOLIOS else counts
        self._judged = before
        failed, migrated = (counts[name] - before[name] for name in ("folios_failed", "folios_migrated"))
        if failed < 0 or migrated < 0:  # somebody reset a counter
            self._judged = counts
        elif failed + migrated >= FAILED_FOLIOS_MIN:
            self._judged = counts
            if failed > FAILED_SHARE_MAX * (failed + migrated):
                self._trip(Reason.ENGINE_FAILING, f"{failed} of {failed + migrated} folios failed", now, wall)

    def _trip(self, reason: Reason, what: str, now: float, wall: datetime) -> None:
        if self.veto(now) is not None:
            return
        trips = self.pause.trips + 1 if self.pause else 1
        growing = min(PAUSE_SECONDS_MAX, PAUSE_SECONDS_FIRST * 2.0 ** min(trips - 1, _DOUBLINGS_MAX))
        # Not Backoff, whose full jitter may come back at once: a try is dear, and pauses shall grow.
        wait = self._rng.uniform(growing, 2 * growing)
        again = timestamp(wall + timedelta(seconds=wait))
        self.mistaken = False
        self.pause = Pause(reason, f"{what}; turned off, next try after {again}", now + wait, trips)
        self.finding, self.probe_due = None, False

    def _suspect_stop(self, counts: Counts, now: float) -> None:
        """Where channels are always in use: ask for own pages when all that moved has stopped."""
        pages = counts.get("pages_migrated", 0)
        if self._pages is None or pages != self._pages[1] or self._moved_at == now:
            self._stop_due |= self._held and self._pages is not None and self._moved_at == now
            self._pages = (now, pages)
        elif self._stop_due and now - self._pages[0] >= STALL_SECONDS and now >= self._probe_not_before:
            self._stop_due, self.probe_due, self._about_stop = False, True, True

    # --- an engine that does nothing ---------------------------------------------------------------------------------

    def _suspect(self, counts: Counts, now: float) -> None:
        pages = counts.get("pages_migrated")
        if pages is None or not _FOLIOS & counts.keys():
            return
        if self._flat_since is None or self._moved_at == now or pages < self._flat_since[1]:
            self._flat_since, self.finding, self.probe_due = (now, pages), None, False
            return
        since, pages_then = self._flat_since
        if now - since < INEFFECTIVE_SECONDS or pages - pages_then < INEFFECTIVE_PAGES_MIN:
            return
        if self.channels.usable and not self._held and self._in_use.issuperset(self.channels.usable):
            count = len(self.channels.usable)
            self._find(Reason.CHANNELS_EXHAUSTED, f"other clients hold all {count} DMA channels; pages migrate by CPU")
        else:
            self.probe_due, self._about_stop = now >= self._probe_not_before, False

    def _find(self, reason: Reason, message: str, status: ConditionStatus = ConditionStatus.TRUE) -> None:
        # The first words stay: a message with growing numbers would be a change to report each time.
        if self.finding is None or self.finding[:2] != (status, reason):
            self.finding = Finding(status, reason, message)

    def probing(self, now: float) -> None:
        """Take notice that own pages are on their way."""
        self.probe_due, self._probe_not_before = False, now + PROBE_PAUSE_SECONDS

    def probed(self, result: Probed) -> None:
        """Take what came of the own pages."""
        if self._on_since is None or self._flat_since is None or result.postponed:
            return
        unsettled = bool(result.obstacle) or not result.pages or result.folios is None
        if unsettled and self._about_stop:
            return  # most likely the work has ended
        if unsettled:
            why = result.obstacle or "own pages could not be moved"
            text = f"pages migrate and none goes through the engine, which may be right; not settled: {why}"
            self._find(Reason.OFFLOAD_INEFFECTIVE, text, ConditionStatus.UNKNOWN)
        elif result.folios:
            self._flat_since, self.finding = None, None
        else:
            text = f"{result.pages} own pages were migrated too, and the engine copied none; {_ADVICE}"
            self._find(Reason.OFFLOAD_INEFFECTIVE, text)


_ADVICE: Final = "are its channels there, free and exclusive (in_use in /sys/class/dma)?"


def _moved(counts: Counts) -> tuple[int, ...]:
    """Return what grows when the engine has done a batch; where the driver counts nothing, pages stand for it."""
    folios = tuple(counts[name] for name in ("folios_migrated", "folios_failed") if name in counts)
    return folios or tuple(counts[name] for name in ("pages_migrated",) if name in counts)


def _some(names: list[str]) -> str:
    more = len(names) - _NAMES_SHOWN_MAX
    return ", ".join(names[:_NAMES_SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")
