# SPDX-License-Identifier: Apache-2.0
"""Schedules by the thousand: ``make simulate SEEDS=100000``, or ``python -m tests.simulation --seed 7`` for one.

First the kept seeds, then fresh ones, numbered from --first on: by default those of the commit that is checked out
(`fresh`). A schedule that does not end well is printed as short as it can be made, with what to type to see it again.

Exit codes: 0 nothing found; 1 something, or too few pairs of fault and step were met; 2 wrong usage; 130 interrupted.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice, takewhile
from pathlib import Path
from typing import Final

from tests.simulation.fresh import asked_first, first_seed
from tests.simulation.hunt import hunt
from tests.simulation.schedule import (
    FAULTS_MIN,
    MOVES_PER_SCHEDULE,
    STEPS_MIN,
    Finding,
    Outcome,
    Schedule,
    make_schedule,
    shorten,
)
from tests.simulation.schedule import run as run_schedule
from tests.simulation.steps import ALL_STEPS, FAULTS, PAIRS
from tests.simulation.world import has_real_agents, is_tuned
from tests.testbed.commands import commit, run_command
from tests.testbed.progress import Progress, elapsed

KEPT: Final = Path(__file__).with_name("kept_seeds.txt")
PAIRS_SHARE_MIN: Final = 0.9
SEEDS_FOR_PAIRS: Final = 1000  # fewer cannot be asked to meet every pair
SMALL_SHARE_MAX: Final = 0.01
BATCH: Final = 20
KIND_LENGTH: Final = 60
WIDTH: Final = 80

_FORK: Final = multiprocessing.get_context("fork")
_OVER: Final = _FORK.Event()
"""No more schedules are begun; all processes of a run have it."""


@dataclass(slots=True)
class Tally:
    """What was run and found."""

    schedules: int = 0
    small: int = 0
    steps: int = 0
    faults: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    met: set[tuple[str, str]] = field(default_factory=set)
    found: dict[str, list[int]] = field(default_factory=dict)

    def take(self, outcome: Outcome) -> None:
        """Count one schedule; one with too few steps or faults is none that was asked for, if it found nothing."""
        small = outcome.finding is None and (outcome.steps < STEPS_MIN or outcome.faults < FAULTS_MIN)
        self.small += small
        self.schedules += not small
        self.steps += outcome.steps
        self.faults += outcome.faults
        self.seconds += outcome.seconds
        self.cpu += outcome.cpu
        self.met |= outcome.met

    @property
    def pairs_share(self) -> float:
        """Share of the pairs of fault and step that were met."""
        return len(self.met & PAIRS) / len(PAIRS)


def kept_schedules() -> Iterator[Schedule]:
    """Yield the schedules that once found something, as they were drawn then."""
    for line in KEPT.read_text().splitlines():
        if line and not line.startswith("#"):
            seed, moves = line.split()[:2]
            yield make_schedule(int(seed), int(moves))


def run_batch(schedules: list[Schedule]) -> list[Outcome]:
    """Run some schedules, until the run is over; for another process."""
    return [run_schedule(schedule) for schedule in takewhile(lambda _: not _OVER.is_set(), schedules)]


def run(schedules: Iterator[Schedule], jobs: int, seconds: float, progress: Progress) -> Tally:
    """Run schedules until there are no more, or until the time is over.

    A signal to all processes of a terminal is this one's to answer: the pool would wait without end for one that ended
    in the middle of a batch, or that was just being forked and forgot that it was to end. Those are born with signals
    blocked, by threads that have them blocked, and end by themselves once the run is over.
    """
    tally, begun = Tally(), time.monotonic()
    room = threading.Semaphore(jobs + 1)
    _OVER.clear()

    def batches() -> Iterator[list[Schedule]]:
        while room.acquire() and not _OVER.is_set() and (batch := list(islice(schedules, BATCH))):
            yield batch

    # A process for each batch: it ends sooner than its clusters, a few MB each, would be looked through for garbage.
    with _signals(signal.SIG_BLOCK), _FORK.Pool(jobs, gc.disable, maxtasksperchild=1) as pool:
        try:
            with _signals(signal.SIG_UNBLOCK):
                for outcomes in pool.imap_unordered(run_batch, batches()):
                    for outcome in outcomes:
                        _take(outcome, tally, progress)
                    progress.tick(_line(tally, time.monotonic() - begun))
                    if time.monotonic() - begun >= seconds:
                        _OVER.set()
                    room.release()
        finally:
            _OVER.set()
            room.release()  # the pool waits for whoever asks for batches
            pool.close()
            pool.join()
    return tally


@contextmanager
def _signals(how: int) -> Iterator[None]:
    """Block or unblock for a while what interrupts a run."""
    before = signal.pthread_sigmask(how, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _take(outcome: Outcome, tally: Tally, progress: Progress) -> None:
    tally.take(outcome)
    if outcome.finding is None:
        return
    seeds = tally.found.setdefault(outcome.finding.problem[:KIND_LENGTH], [])
    seeds.append(outcome.finding.schedule.seed)
    if len(seeds) == 1:
        _show(outcome.finding, progress)


def _show(finding: Finding, progress: Progress) -> None:
    again = f"python -m tests.simulation --seed {finding.schedule.seed} --moves {finding.schedule.length}"
    progress.note(f"{shorten(finding)}again: {again}\n")


def _line(tally: Tally, seconds: float) -> str:
    rate = tally.schedules / max(seconds, 0.001)
    share = f"{100 * tally.pairs_share:.0f} %"
    return f"{elapsed(seconds)}: {tally.schedules} schedules ({rate:.1f}/s), pairs {share}, {len(tally.found)} found"


def report(tally: Tally, seconds: float) -> str:
    """Return what was done, for people."""
    count = max(tally.schedules, 1)
    rows = {
        "schedules": f"{tally.schedules} in {elapsed(seconds)} ({tally.schedules / max(seconds, 0.001):.1f} a second)",
        "steps": f"{tally.steps} ({tally.steps // count} each)",
        "faults": f"{tally.faults} ({tally.faults / count:.1f} each)",
        "processor": f"{1000 * tally.cpu / count:.0f} ms a schedule",
        "time": f"{tally.seconds / 3600:.1f} hours of the clusters' time",
        "too small": f"{tally.small} more (fewer than {STEPS_MIN} steps or {FAULTS_MIN} faults)",
        "pairs": f"{len(tally.met & PAIRS)} of {len(PAIRS)} (fault x step), {100 * tally.pairs_share:.1f} %",
        "not met": _not_met(tally),
        "found": ", ".join(f"{kind} (seeds {seeds[:3]})" for kind, seeds in tally.found.items()) or "nothing",
    }
    return "".join(f"{name + ':':<11}{value}\n" for name, value in rows.items())


def _not_met(tally: Tally) -> str:
    missing = PAIRS - tally.met
    if len(missing) > len(PAIRS) // 5:
        return f"{len(missing)} pairs"
    by_fault = Counter(fault for fault, _ in missing)
    names = [
        f"{fault}: {', '.join(step for step in ALL_STEPS if (fault, step) in missing)}"
        for fault in FAULTS
        if by_fault[fault]
    ]
    return "; ".join(names) or "none"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    options = _parser().parse_args(arguments)
    return run_command(lambda: _simulate(options, Progress()))


def _simulate(options: argparse.Namespace, progress: Progress) -> int:
    begun = time.monotonic()
    if options.mutants:
        return 0 if all(one.schedules for one in hunt(options.mutants, options.jobs, options.seeds)) else 1
    if options.seed is not None:
        return _run_one(make_schedule(options.seed, options.moves), progress, verbose=options.verbose)
    first, origin = first_seed(options.first, commit(), time.time())
    fresh = fresh_schedules(first, options)
    if options.until_found:
        return _find_one(fresh, progress)
    progress.note(f"first seed {first}, {origin}; {options.moves} moves, {options.jobs} processes")
    tally = run(itertools.chain(kept_schedules(), fresh), options.jobs, options.seconds, progress)
    progress.note(report(tally, time.monotonic() - begun).rstrip())
    enough = tally.pairs_share >= PAIRS_SHARE_MIN or tally.schedules < SEEDS_FOR_PAIRS
    if not enough:
        progress.note(f"error: fewer than {100 * PAIRS_SHARE_MIN:.0f} % of the pairs of fault and step were met")
    too_small = tally.small > SMALL_SHARE_MAX * tally.schedules
    if too_small:
        progress.note(f"error: {tally.small} schedules had fewer than {STEPS_MIN} steps or {FAULTS_MIN} faults")
    return 0 if enough and not tally.found and not too_small else 1


def fresh_schedules(first: int, options: argparse.Namespace) -> Iterator[Schedule]:
    """Yield the schedules of as many seeds as were asked for, from a first one on: all, or only some kinds of them."""
    seeds = itertools.count(first)
    chosen: Iterable[int] = filter(has_real_agents, seeds) if options.real_agents else seeds
    chosen = filter(is_tuned, chosen) if options.tuned else chosen
    return (make_schedule(seed, options.moves) for seed in islice(chosen, options.seeds))


def _run_one(schedule: Schedule, progress: Progress, *, verbose: bool) -> int:
    outcome = run_schedule(schedule)
    if verbose:
        progress.note("\n".join(map(str, schedule.moves)))
    if outcome.finding is not None:
        progress.note(str(shorten(outcome.finding)))
        return 1
    progress.note(f"seed {schedule.seed}: nothing found in {outcome.steps} steps")
    return 0


def _find_one(schedules: Iterable[Schedule], progress: Progress) -> int:
    """Run schedules one after the other until one does not end well."""
    for number, schedule in enumerate(schedules, 1):
        finding = run_schedule(schedule).finding
        if finding is not None:
            progress.note(f"first found: seed {schedule.seed}, after {number} schedules: {finding.problem}")
            return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Random schedules of a cluster.")
    parser.add_argument("--seeds", type=int, default=1100, help="how many fresh schedules (default: 1100)")
    parser.add_argument(
        "--first", type=asked_first, default="commit", help="first fresh seed, or from where: commit (default), clock"
    )
    parser.add_argument(
        "--moves", type=int, default=MOVES_PER_SCHEDULE, help=f"of each schedule (default: {MOVES_PER_SCHEDULE})"
    )
    parser.add_argument("--seed", type=int, help="run only the schedule of this seed, and make it short if it fails")
    parser.add_argument("--verbose", action="store_true", help="with --seed: print the whole schedule")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="processes (default: 2)")
    parser.add_argument("--mutants", nargs="?", const="*", help="look for mutants whose names fit this (default: all)")
    parser.add_argument("--until-found", action="store_true", help="run one after the other, and end at a finding")
    parser.add_argument("--real-agents", action="store_true", help="only schedules whose nodes run the real agent")
    parser.add_argument("--tuned", action="store_true", help="only schedules whose policies are tuned")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no more after this")
    return parser


if __name__ == "__main__":
    sys.exit(main())
