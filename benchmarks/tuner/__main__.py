# SPDX-License-Identifier: Apache-2.0
"""``python -m benchmarks.tuner --tables FILE --json OUT``: decisions on the systems of a file. Exit code 2: bad input."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.tuner.judge import Verdict, decide, summary
from benchmarks.tuner.tables import Table, TableError, read
from benchmarks.tuner.world import Weather

def evaluate(tables: Sequence[Table], *, noise: float, decisions: int, seed: int) -> dict[str, Any]:
    """Decide on every system; return what the JSON file has."""
    work = partial(_decide, weather=Weather(noise), decisions=decisions, seed=seed)
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


def _decide(table: Table, *, weather: Weather, decisions: int, seed: int) -> list[Verdict]:
    return decide(table, weather, range(decisions), seed)


def parser() -> argparse.ArgumentParser:
    """Return what the command line may have."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.tuner", description=__doc__)
    made.add_argument("--tables", type=Path, help="CSV: system,engine,folio,channels,gbps,sd")
    made.add_argument("--json", type=Path, help="file to write the result to")
    made.add_argument("--noise", type=_positive, default=1.0, help="the spread of the tables, so many times")
    made.add_argument("--decisions", type=_count, default=200, help="of each system")
    made.add_argument("--seed", type=int, default=1)
    return made


def _positive(text: str) -> float:
    value = float(text)
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{text} is no factor; expected 0 or more")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of decisions; expected 1 or more")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge the tables of a file; return the exit code."""
    options = parser().parse_args(arguments)
    try:
        tables = read(options.tables)
    except TableError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    found = evaluate(tables, noise=options.noise, decisions=options.decisions, seed=options.seed)
    options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
