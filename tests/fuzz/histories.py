# SPDX-License-Identifier: Apache-2.0
"""Runs histories, and makes one that fails as short as can be: by leaving out moves, most at once first."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from numamigration_api.vocabulary import Dialect
from tests.fakekernel.series import SERIES
from tests.fuzz.moves import History, Move, make_history
from tests.fuzz.tables import FILES
from tests.fuzz.world import World
from tests.shrinking import shrink
from tests.twin.machine import temporary_folder

MOVES_PER_HISTORY: Final = 40
DIALECTS: Final = tuple(dialect for dialect in FILES if dialect in SERIES and dialect is not Dialect.NO_SERIES)
RUNS_MAX: Final = 400
"""To make one history shorter; each takes some hundredths of a second."""


class Finding(NamedTuple):
    """A history that does not end well."""

    history: History
    step: int
    problem: str
    trace: str

    def __str__(self) -> str:
        """Say what to type and what happens."""
        moves = "\n".join(f"  {number}. {move}" for number, move in enumerate(self.history.moves))
        return f"seed {self.history.seed}, move {self.step}: {self.problem}\n{self.history.host}\n{moves}\n{self.trace}"


class Outcome(NamedTuple):
    """What running a history came to: moves done, units of work done, and what was found."""

    moves: int
    units: int
    finding: Finding | None


def run_seed(seed: int, length: int = MOVES_PER_HISTORY) -> Outcome:
    """Run the history of a seed."""
    return run(make_history(seed, length, DIALECTS))


def run(history: History) -> Outcome:
    """Run a history to its end, or to the first thing that is not as it shall be."""
    logging.disable(logging.CRITICAL)
    done, units = 0, 0
    try:
        with temporary_folder("numamigration-fuzz-") as place:
            world = World(history, Path(place) / "state")
            for move in history.moves:
                getattr(world, move.name)(*move.args)
                world.oracle.check()
                done, units = done + 1, world.units
    except Exception as error:  # noqa: BLE001  # whatever it is, it is found
        kind = f"{type(error).__name__}: {error}"
        trace = "".join(traceback.format_exception(error)[-6:])
        return Outcome(done, units, Finding(history, done, kind, trace))
    finally:
        logging.disable(logging.NOTSET)
    return Outcome(done, units, None)


def shorten(finding: Finding) -> Finding:
    """Return a history that fails for the same reason with as few moves as can be."""

    def again(moves: tuple[Move, ...]) -> Finding | None:
        other = run(finding.history._replace(moves=moves)).finding
        return other if other is not None and _alike(other, finding) else None

    return shrink(finding, lambda one: one.history.moves, _left_out, again, RUNS_MAX)


def _left_out(moves: tuple[Move, ...], size: int) -> Iterable[tuple[Move, ...]]:
    return (moves[:start] + moves[start + size :] for start in range(0, len(moves), size))


def _alike(one: Finding, other: Finding) -> bool:
    # Same promise, or same kind of error; the values in the text may differ.
    return one.problem[:35] == other.problem[:35]
