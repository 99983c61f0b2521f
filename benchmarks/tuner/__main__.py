# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.tuner --tables FILE --json OUT``: how well the tuner chooses on the systems of a file.

Without ``--tables`` it is the whole benchmark, and writes benchmarks/results/tuner.json (``make bench-tuner``). All
numbers are of a model. Exit codes: 0 judged, whatever was found; 2 bad input.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.tuner.judge import Verdict, decide, summary
from benchmarks.tuner.tables import Table, TableError, read
from benchmarks.tuner.world import Weather

BAD_INPUT: Final = 2


def evaluate(tables: Sequence[Table], *, noise: float, decisions: int, seed: int) -> dict[str, Any]:
    """Decide on every system; return what the JSON file has."""
    work = partial(_decide, noise=noise, decisions=decisions, seed=seed)
    with ProcessPoolExecutor() as pool:
        found = dict(zip([table.system for table in tables], pool.map(work, tables), strict=True))
    return {
        "summary": summary([one for verdicts in found.values() for one in verdicts]),
        "systems": {system: summary(verdicts) for system, verdicts in found.items()},
        "origin": "model",
        "noise": noise,
        "seed": seed,
        "notes": [note for table in tables for note in table.notes],
    }


def _decide(table: Table, *, noise: float, decisions: int, seed: int) -> list[Verdict]:
    return decide(table, Weather(noise), range(decisions), seed)


def parser() -> argparse.ArgumentParser:
    """Return what the command line may have."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.tuner", description=__doc__)
    made.add_argument("--tables", type=Path, help="CSV: system,engine,folio,channels,gbps,sd; without it all is run")
    made.add_argument("--json", type=Path, help="file for the result; without it standard output")
    made.add_argument("--noise", type=_factor, default=1.0, help="the spread of the tables, so many times (1)")
    made.add_argument("--decisions", type=_count, default=200, help="of each system (200)")
    made.add_argument("--seed", type=int, default=1, help="of all that is drawn (1)")
    return made


def _factor(text: str) -> float:
    value = _number(text)
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{text!r}; expected a number of 0 or more")
    return value


def _count(text: str) -> int:
    value = _number(text)
    if value < 1 or value != int(value):
        raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number of 1 or more")
    return int(value)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a number") from None


def _lines(found: dict[str, Any], path: Path) -> Iterator[str]:
    """Yield what people want to know of a result."""
    for name, one in {**found["systems"], "all": found["summary"]}.items():
        yield (
            f"{name}: {one['not_slower_share']:.2%} of {one['decisions']} decisions not slower (worst "
            f"{one['worst_slowdown']:.2%}), mean regret {one['mean_regret']:.2%}, "
            f"{one['probes_share_of_grid']:.0%} of the grid's probes\n"
        )
    yield f"model; the rest in {path}\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge the tables of a file, or run the benchmark; return the exit code."""
    options = parser().parse_args(arguments)
    if options.tables is None:
        from benchmarks.tuner.bench import main as bench  # needs all of the tests' equipment; a file's tables do not

        return bench()
    try:
        tables = read(options.tables)
        found = evaluate(tables, noise=options.noise, decisions=options.decisions, seed=options.seed)
        text = json.dumps(found, indent=1) + "\n"
        if options.json is None:
            sys.stdout.write(text)
        else:
            options.json.write_text(text)
            sys.stdout.writelines(_lines(found, options.json))
    except (TableError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return BAD_INPUT
    sys.stderr.writelines(f"{note}\n" for note in found["notes"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
