# SPDX-License-Identifier: Apache-2.0
"""``make bench-fleet NODES=5000 SCENARIOS=install,edit RUNS=6``; STEADY_SECONDS is how long nothing is asked for.

Exit codes: 0 measured, whatever was found; 1 it could not be measured; 2 the machine lacks something, or wrong usage;
130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Final

import aiohttp
import msgspec

from benchmarks import schema
from benchmarks.fleet.bed import CONDITIONS, FleetBed
from benchmarks.fleet.extent import POOLS, Extent, Room, default_runs, lack
from benchmarks.fleet.report import COLUMNS, Report
from benchmarks.fleet.scenarios import IN_A_ROW, SCENARIOS, chosen
from benchmarks.run import compile_product
from benchmarks.schema import Machine, NotRun, Result, Row
from tests.fleet.control import CommandError
from tests.testbed.api import ApiError
from tests.testbed.binaries import Binaries, find_binaries
from tests.testbed.commands import run_command
from tests.testbed.errors import BedError
from tests.testbed.progress import Progress, elapsed

INSTALL: Final = "install"
INTERRUPTED: Final = "somebody ended the run"
"""What was found until then is kept."""
FAILURES: Final = (ApiError, CommandError, OSError)


def play(binaries: Binaries, extent: Extent, names: Sequence[str], progress: Progress) -> Result:
    """Play scenarios on one bed, until one cannot be; return what was found."""
    nodes = extent.nodes
    machine, versions = Machine.here(), {"msgspec": msgspec.__version__, "aiohttp": aiohttp.__version__}
    rows, failed, reason = list[Row](), "", lack(nodes, Room.here())
    if not reason:
        with FleetBed(binaries, extent, progress) as bed:
            versions |= bed.versions()
            for failed in [INSTALL, *(name for name in names if name != INSTALL)]:
                if reason := _play(bed, failed, rows):
                    break
    left = names[names.index(failed) if failed in names else 0 :] if reason else ()
    not_run = [NotRun(name, nodes, reason) for name in left]
    return schema.fleet_result(nodes, rows, not_run, machine=machine, conditions=CONDITIONS, versions=versions)


def _play(bed: FleetBed, name: str, rows: list[Row]) -> str:
    """Play one scenario; return why it has no numbers, or nothing."""
    report, begun = Report(name, bed.nodes), time.monotonic()
    try:
        SCENARIOS[name].play(bed, report)
    except (BedError, *FAILURES) as error:
        bed.progress.note(f"{name}: {error}")
        return f"{name} ended with {type(error).__name__}"
    except KeyboardInterrupt:
        return INTERRUPTED
    rows += report.rows
    took = f" ({elapsed(time.monotonic() - begun)})"
    bed.progress.note(f"{report.line[: COLUMNS - len(took)]}{took}")
    return ""


def main(arguments: list[str] | None = None) -> int:
    """Measure, write the result; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--scenarios", default="", help=f"with commas, of {', '.join(SCENARIOS)}; empty means all")
    parser.add_argument("--runs", type=int, default=0, help="of the edit; 0 means 6, above 1,000 nodes 2")
    parser.add_argument("--steady-seconds", type=float, default=180.0)
    options = parser.parse_args(arguments)
    if options.nodes < POOLS:
        parser.error(f"--nodes must be at least {POOLS}")
    if options.runs % IN_A_ROW:
        parser.error(f"--runs must be a multiple of {IN_A_ROW}")
    extent = Extent(options.nodes, options.runs or default_runs(options.nodes), options.steady_seconds)
    try:
        names = chosen(options.scenarios)
    except ValueError as error:
        parser.error(str(error))
    progress = Progress()
    compile_product()

    def measure() -> int:
        found = play(find_binaries(progress), extent, names, progress)
        path = schema.write(found)
        progress.note(f"{len(found.results)} numbers in {path.relative_to(schema.RESULTS.parents[1])}")
        for missing in found.not_run:
            progress.note(f"not run: {missing.scenario}: {missing.reason}")
        if any(missing.reason == INTERRUPTED for missing in found.not_run):
            return 130
        return 1 if found.not_run and not found.results else 0

    return run_command(measure, failures=FAILURES, say=progress.note)


if __name__ == "__main__":
    sys.exit(main())
