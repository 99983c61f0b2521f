# SPDX-License-Identifier: Apache-2.0
"""Whether an engine copies right: when that has to be tried, with which pages, and what came of it. Pure (promise 15).

A trial is a short window in which the engine is on under the least used migration reason, and pages of our own are
moved and compared. Counters cannot replace it: an engine that copies wrong counts a success.

* Once for each boot, load of the driver, dialect, set of the host's DMA channels and number of channels; with Always,
  before each turn-on too. A grown ``verifyEpoch`` asks for it anew. A channel that went and came back is another one.
* Pages that came over right show nothing if the CPU copied them. So ``folios_migrated`` must have grown by what was
  moved; where there is no such counter, the message says that nobody knows who copied.
* A mismatch holds for the boot, whatever is loaded or wished afterwards, a grown ``verifyEpoch`` included: an engine
  that was wrong once is not trusted because it was right later. The epoch under which it was found stays with it, and
  tells the operator whether it has taken it in. What could not be tried is no verdict, and is tried again later.
* The kernel takes channels in its own order, so one can say how many channels were not tried, not which.

Sources: "[PATCH RFC v6 0/5]" of the batch copy offload series, 3/5 (reasons) and 4/5 (dcbm: channels, counters);
mm/migrate.c (NR_MAX_BATCHED_MIGRATION: a batch is cut after the folio that reaches 512 base pages).
"""

from __future__ import annotations

import errno
import zlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from math import comb
from typing import Any, Final, NamedTuple

from numamigration_agent.kernel.codecs import Value
from numamigration_agent.kernel.counters import Counts
from numamigration_agent.kernel.dialects import CHANNELS_FIELD, Knob
from numamigration_agent.kernel.pages import (
    MEMPOLICY_MBIND,
    SYSCALL_OR_CPUSET,
    Batch,
    MoveAnswer,
    MoveRequest,
    Passage,
)
from numamigration_agent.kernel.probe import KernelFacts
from numamigration_api.machinery.conditions import shorten
from numamigration_api.machinery.quantities import size_text
from numamigration_api.machinery.records import dataclass, replace
from numamigration_api.vocabulary import Engine, Reason, Verification, VerificationResult

CAUSABLE: Final = (MEMPOLICY_MBIND, SYSCALL_OR_CPUSET)
"""Migration reasons that a system call of ours causes; the less used one first."""

PAIRS_MAX: Final = 6  # all pairs of four NUMA nodes; the window takes some 60 ms of CPU for each
TRIAL_SECONDS_MAX: Final = 60.0  # so long numbers wait for pages that the kernel keeps
WINDOW_SECONDS_MAX: Final = 2.0
MOVING_SECONDS_MAX: Final = 1.5  # no batch begins later, so that one that has not ended at the window's end is stuck
TRY_AGAIN_SECONDS: Final = 300.0  # after a trial for which there was no channel or memory, or whose engine hung
SHAPES: Final = ((512, 0), (61, 0), (0, 1), (511, 1))
"""Small and huge folios of the batches: full, one that no number of channels divides, huge, and mixed.

The second one fits into a batch with pages of 64 KiB too.
"""

_LASTING: Final = frozenset({errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENODEV})
"""What does not change while the agent runs: seccomp profile, cpuset, kernel."""


class Subject(NamedTuple):
    """What a trial is about; of another one it says nothing.

    Attributes:
        load: tells a driver from the same one loaded anew, and the host's DMA channels from others.
        engine: who copies, as a policy says it.
        drivers: of the DMA engines that the kernel may take, joined by commas; empty where CPU threads copy.
        channels: 0 where CPU threads copy.
    """

    load: str
    dialect: str
    engine: str
    drivers: str
    channels: int

    def __str__(self) -> str:
        if not self.drivers:
            return self.engine
        return f"{self.drivers}, {self.channels} channel{'' if self.channels == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class Trial:
    """One trial to be made.

    Attributes:
        reason: under which pages are moved.
        epoch: of the spec that asked for it.
        unverified: channels that the host has beyond those that are tried.
        pairs_beyond: pairs of NUMA nodes that the host has beyond those that are tried.
        channels: the knob that shows how many are taken; None where there is none, or CPU threads copy.
    """

    subject: Subject
    epoch: int
    reason: str
    pairs: tuple[tuple[int, int], ...]
    unverified: int = 0
    pairs_beyond: int = 0
    channels: Knob | None = None

    def request(self, salt: int) -> MoveRequest:
        """Return what is to be moved."""
        batches = tuple(Batch(*pair, *shape) for pair in self.pairs for shape in SHAPES)
        return MoveRequest(self.reason, batches, salt, MOVING_SECONDS_MAX)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a trial.

    Attributes:
        foreign: folios in the window that were not ours; None where they are not counted.
        lasting: of an impossible trial, whether another one would come to the same end.
    """

    result: VerificationResult
    subject: Subject
    epoch: int
    message: str
    unverified: int = 0
    foreign: int | None = None
    seconds: float = 0.0
    at: str = ""
    lasting: bool = False

    @property
    def is_kept(self) -> bool:
        """Whether it outlives this process; a trial that was not possible says nothing of the engine."""
        return self.result is not VerificationResult.IMPOSSIBLE

    @property
    def is_corrupt(self) -> bool:
        """Whether it is that an engine copies wrong, which holds until the next boot."""
        return self.result is VerificationResult.FAILED

    @property
    def reason(self) -> Reason:
        """What to say in conditions and groups."""
        return _REASONS[self.result]


_REASONS: Final = {
    VerificationResult.PASSED: Reason.AS_EXPECTED,
    VerificationResult.FAILED: Reason.CORRUPTION_DETECTED,
    VerificationResult.IMPOSSIBLE: Reason.VERIFICATION_IMPOSSIBLE,
    VerificationResult.SKIPPED: Reason.VERIFICATION_OFF,
}


class Record(NamedTuple):
    """The last verdict of this boot, and how often a trial was asked for since it was first asked for."""

    verdict: Verdict | None = None
    epoch: int = 0

    @property
    def current(self) -> Verdict | None:
        """The verdict, unless another trial was asked for since; nothing that is asked for undoes a mismatch."""
        holds = self.verdict is not None and (self.verdict.is_corrupt or self.verdict.epoch >= self.epoch)
        return self.verdict if holds else None

    def covering(self, channels: int) -> Record:
        """Return what it says of fewer channels of the same engine: they are among those that passed."""
        found = self.current
        if found is None or found.result is not VerificationResult.PASSED or found.subject.channels < channels:
            return self
        return self._replace(verdict=replace(found, subject=found.subject._replace(channels=channels)))

    def about(self, subject: Subject) -> Verdict | None:
        """Return the verdict on just this subject."""
        found = self.current
        return found if found and found.subject == subject else None


NO_RECORD: Final = Record()


def obstacle(facts: KernelFacts) -> str:
    """Return why no engine can be tried on this host; empty when one can."""
    memory = facts.host.memory_nodes
    if len(memory) < 2:
        return f"{len(memory) or 'no'} NUMA node has memory, and pages of our own are moved between two"
    if _reason(facts) is None:
        known = ", ".join(sorted(facts.reasons_seen)) or "none"
        return f"no migration that a program can cause is offloaded here ({known})"
    return ""


def _reason(facts: KernelFacts) -> str | None:
    known = facts.reasons_seen if facts.fixed_reasons is None else facts.fixed_reasons
    # Which ones are offloaded is nowhere written down for the oldest states; then a system call is the best guess.
    return next((reason for reason in CAUSABLE if reason in known), None if known else SYSCALL_OR_CPUSET)


def subject_of(facts: KernelFacts, engine: str, channels: int) -> Subject:
    """Return what would be tried: the loaded driver, with `channels` of the DMA engines that it can use."""
    usable = [row for row in facts.engines if row.usable] if engine == Engine.DMA else []
    drivers = ",".join(sorted({row.driver for row in usable}))
    lives = [str(life) for _, life in sorted(facts.lives.items())]
    channel_set = [f"{zlib.crc32(repr([row.life for row in usable]).encode()):08x}"] if usable else []
    return Subject(",".join(lives + channel_set), str(facts.dialect), engine, drivers, channels if drivers else 0)


def is_due(record: Record, subject: Subject, policy: Verification, *, turns_on: bool) -> bool:
    """Whether an engine has to be tried before it is left on."""
    if policy is Verification.OFF:
        return False
    if policy is Verification.ALWAYS and turns_on:
        return True
    found = record.about(subject)
    return found is None or found.result is not VerificationResult.PASSED


def make_trial(facts: KernelFacts, subject: Subject, epoch: int) -> Trial:
    """Return the trial of a subject, on a host without an ``obstacle``."""
    beyond = max(0, facts.channels_usable - subject.channels) if subject.drivers else 0
    pairs = numa_pairs(facts.host.memory_nodes)
    pairs_beyond = comb(len(facts.host.memory_nodes), 2) - len(pairs)
    channels = next((knob for knob in facts.knobs if knob.field == CHANNELS_FIELD), None) if subject.drivers else None
    return Trial(subject, epoch, _reason(facts) or SYSCALL_OR_CPUSET, pairs, beyond, pairs_beyond, channels)


def numa_pairs(numa_nodes: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return at most `PAIRS_MAX` pairs: first so that each NUMA node is in one, then the others."""
    apart = [(numa_nodes[index], numa_nodes[index + 1]) for index in range(0, len(numa_nodes) - 1, 2)]
    lone = [(numa_nodes[-2], numa_nodes[-1])] if len(numa_nodes) > 2 and len(numa_nodes) % 2 else []
    every = dict.fromkeys([*apart, *lone, *combinations(numa_nodes, 2)])
    return tuple(every)[:PAIRS_MAX]


def judge(
    trial: Trial, before: Counts, answer: MoveAnswer, after: Counts, held: Sequence[Value | None] = ()
) -> Verdict:
    """Say what a trial has shown.

    Args:
        trial: what was tried.
        before: counters right before the pages were moved.
        answer: what the mover says.
        after: counters right after.
        held: what the trial's channels knob held right before and right after; None where it could not be read.
    """
    moved = sum(row.folios for row in answer.passages)
    grown = _grown(before, after, "folios_migrated")
    foreign = None if grown is None else max(0, grown - moved)
    failed = _grown(before, after, "folios_failed") or 0

    def verdict(result: VerificationResult, message: str, *, lasting: bool = False) -> Verdict:
        return Verdict(
            result,
            trial.subject,
            trial.epoch,
            shorten(message),
            unverified=trial.unverified,
            foreign=foreign,
            lasting=lasting,
        )

    wrong = [row for row in answer.passages if row.wrong]
    if wrong:
        return verdict(VerificationResult.FAILED, _mismatch(trial, wrong))
    cause = _other_subject(trial, held) or _why_not(trial, answer, moved, grown, failed)
    if cause:
        return verdict(VerificationResult.IMPOSSIBLE, cause, lasting=answer.errno in _LASTING)
    return verdict(VerificationResult.PASSED, _proof(trial, answer, grown))


def _grown(before: Counts, after: Counts, name: str) -> int | None:
    return after[name] - before[name] if name in before and name in after else None


def _mismatch(trial: Trial, wrong: Sequence[Passage]) -> str:
    first, number = wrong[0], sum(row.wrong for row in wrong)
    return (
        f"{number} of our own test folios came over with wrong bytes, the first one from NUMA node {first.source} to "
        f"{first.destination} at byte {first.wrong_at} of its batch ({trial.subject}); offload stays off until this "
        "host is booted anew"
    )


def _other_subject(trial: Trial, held: Sequence[Value | None]) -> str:
    other = [value for value in held if value != str(trial.subject.channels)]
    if trial.channels is None or not other:
        return ""
    return f"{trial.channels.path} held {other[0] or 'no number'} in the window, not {trial.subject.channels}"


def _why_not(trial: Trial, answer: MoveAnswer, moved: int, grown: int | None, failed: int) -> str:
    if answer.cause:
        return answer.cause
    silent = next((row for row in answer.passages if not row.folios), None)
    if silent is not None or not answer.passages:
        cause = silent.cause if silent and silent.cause else "all stayed where they were"
        return f"no folio of a batch could be moved: {cause}"
    if grown is None or grown >= moved:
        return ""
    if failed > 0:
        return f"the engine failed {failed} folios in the window and copied {max(0, grown)} of our {moved}"
    if grown < 0:
        return "somebody reset folios_migrated in the window"
    free = "is a channel free?" if trial.subject.drivers else "does it run?"
    return f"it could not be shown that the engine copied: folios_migrated grew by {grown} of our {moved}; {free}"


def _proof(trial: Trial, answer: MoveAnswer, grown: int | None) -> str:
    folios, huge = sum(row.folios for row in answer.passages), sum(row.huge for row in answer.passages)
    pairs = len(trial.pairs)
    parts = [f"{folios} own folios, {huge} of them huge, right on both ways of {pairs} NUMA pair{'s'[: pairs != 1]}"]
    if answer.huge_left_out:
        parts.append(f"huge pages have {size_text(answer.huge_left_out)} here, too much for a trial: none was tried")
    elif not huge:
        parts.append("no huge page could be had, so none was tried")
    if grown is None:
        parts.append("this kernel does not count who copied, so that could not be shown")
    if trial.pairs_beyond:
        parts.append(f"{trial.pairs_beyond} more pairs were not tried")
    if trial.unverified:
        parts.append(f"{trial.unverified} more channels of this host were not tried")
    return f"{trial.subject}: " + "; ".join(parts)


# --- where a verdict is kept -----------------------------------------------------------------------------------------


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """Return what the status says of a verdict, which is enough to take it up again after a restart."""
    document = {
        "result": str(verdict.result),
        "epoch": verdict.epoch,
        "engine": verdict.subject.engine,
        "driver": verdict.subject.drivers,
        "channels": verdict.subject.channels,
        "moduleLoad": verdict.subject.load,
        "unverifiedChannels": verdict.unverified,
        "foreignFolios": verdict.foreign,
        "windowSeconds": f"{verdict.seconds:.2f}",
        "at": verdict.at,
        "message": verdict.message,
    }
    return {key: value for key, value in document.items() if value not in {None, ""}}


def parse_verdict(document: Mapping[str, Any], dialect: str) -> Verdict:
    """Read a verdict of this boot.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is none.
    """
    subject = Subject(
        load=str(document.get("moduleLoad", "")),
        dialect=dialect,
        engine=str(document["engine"]),
        drivers=str(document.get("driver", "")),
        channels=int(document["channels"]),
    )
    foreign = document.get("foreignFolios")
    return Verdict(
        result=VerificationResult(document["result"]),
        subject=subject,
        epoch=int(document["epoch"]),
        message=str(document.get("message", "")),
        unverified=int(document.get("unverifiedChannels", 0)),
        foreign=None if foreign is None else int(foreign),
        seconds=float(document.get("windowSeconds", 0)),
        at=str(document.get("at", "")),
    )


def worst(verdicts: Iterable[Verdict | None]) -> Verdict | None:
    """Return which of several records of one boot holds: the bad news, else the youngest epoch."""
    known = [verdict for verdict in verdicts if verdict and verdict.is_kept]
    return max(known, key=lambda found: (found.is_corrupt, found.epoch), default=None)
