# SPDX-License-Identifier: Apache-2.0
"""Random histories for as long as one likes: ``make fuzz``, or ``FUZZ="--seed 7 --minutes 60" make fuzz``.

Histories are numbered by their seeds, from --seed on, so one that does not end well is run again by its number. It is
printed as short as it can be made, with what to type; the next ones are run all the same, to see what else there is.

Exit codes: 0 nothing found; 1 something; 2 wrong usage; 130 interrupted.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Final

from tests.fuzz.histories import MOVES_PER_HISTORY, Finding, run_seed, shorten
from tests.testbed.commands import revision, run_command
from tests.testbed.progress import Progress, elapsed

KIND_LENGTH: Final = 60
"""So much of a problem tells its kind; the rest are the values of one case."""
SEEDS_SHOWN: Final = 3


@dataclass(slots=True)
class Tally:
    """What was done so far, and what was found, by kind."""

    histories: int = 0
    moves: int = 0
    units: int = 0
    found: dict[str, list[int]] = field(default_factory=dict)

    def rows(self) -> dict[str, str]:
        """Return what was done, for the log."""
        rows = {
            "histories": str(self.histories),
            "moves": f"{self.moves}, a check after each of {self.units} units of work",
            "found": str(len(self.found)),
        }
        kinds = enumerate(self.found.items(), 1)
        return rows | {f"finding {number}": f"{kind} (seeds {_some(seeds)})" for number, (kind, seeds) in kinds}


def _some(seeds: list[int]) -> str:
    more = f" and {len(seeds) - SEEDS_SHOWN} more" if len(seeds) > SEEDS_SHOWN else ""
    return ", ".join(map(str, seeds[:SEEDS_SHOWN])) + more


def run(seeds: Iterator[int], minutes: float, moves: int, progress: Progress) -> Tally:
    """Run histories until the time is over."""
    tally, begun = Tally(), time.monotonic()
    for seed in seeds:
        outcome = run_seed(seed, moves)
        tally.histories += 1
        tally.moves += outcome.moves
        tally.units += outcome.units
        if outcome.finding:
            _note(outcome.finding, tally, moves, progress)
        passed = time.monotonic() - begun
        if passed >= 60 * minutes:
            break
        progress.tick(f"{elapsed(passed)}: {tally.moves} moves, {len(tally.found)} kinds of findings, seed {seed}")
    return tally


def _note(finding: Finding, tally: Tally, moves: int, progress: Progress) -> None:
    kind = finding.problem[:KIND_LENGTH]
    known = tally.found.setdefault(kind, [])
    known.append(finding.history.seed)
    if len(known) == 1:
        again = f'FUZZ="--history {finding.history.seed} --moves {moves}" make fuzz'
        progress.note(f"{shorten(finding)}again: {again}\n")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    options = _parser().parse_args(arguments)
    return run_command(lambda: _fuzz(options, Progress()))


def _fuzz(options: argparse.Namespace, progress: Progress) -> int:
    begun, head = time.monotonic(), revision()
    one = options.history is not None
    progress.note(f"seed {options.history if one else options.seed}")
    seeds = iter([options.history]) if one else count(options.seed)
    tally = run(seeds, options.minutes, options.moves, progress)
    rows = {
        "revision": head if head == revision() else f"{head}, changed while it ran",
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "first seed": str(options.history if one else options.seed),
        "duration": elapsed(time.monotonic() - begun),
        **tally.rows(),
        "result": "FAILED" if tally.found else "passed; nothing found",
    }
    text = "".join(f"{name + ':':<12} {value}\n" for name, value in rows.items())
    progress.note(text.rstrip())
    if options.log:
        options.log.parent.mkdir(parents=True, exist_ok=True)
        options.log.write_text(text)
    return 1 if tally.found else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Random histories of an agent, for long.")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 31), help="of the first one (default: new)")
    parser.add_argument("--minutes", type=float, default=5.0, help="go on for so long (default: 5)")
    parser.add_argument("--moves", type=int, default=MOVES_PER_HISTORY, help="in each history (default: 40)")
    parser.add_argument("--history", type=int, help="run only the one of this seed, and make it short")
    parser.add_argument("--log", type=Path, help="write the result there, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
