# SPDX-License-Identifier: Apache-2.0
"""``make bench-fleet NODES=5000 SCENARIOS=install,edit RUNS=6``; STEADY_SECONDS is how long nothing is asked for.

Scenarios that were chosen get a result file of their own, so that a run of some throws away nothing of a run of all.

Exit codes: 0 measured, whatever was found; 1 it could not be measured; 2 the machine lacks something, or wrong usage;
130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

import aiohttp
import msgspec
from msgspec import structs

from benchmarks import schema
from benchmarks.fleet import wire
from benchmarks.fleet.bed import CONDITIONS, FleetBed
from benchmarks.fleet.extent import POOLS, Extent, Room, lack, seconds_left, size_of
from benchmarks.fleet.report import COLUMNS, Report
from benchmarks.fleet.scenarios import SCENARIOS, chosen
from benchmarks.run import compile_product
from benchmarks.schema import FLEET_PREFIX, Machine, NotRun, Result, Row
from tests.fakekernel.host import FakeHostError
from tests.fleet.control import CommandError
from tests.testbed.api import ApiError
from tests.testbed.binaries import Binaries, find_binaries
from tests.testbed.commands import run_command
from tests.testbed.errors import BedError
from tests.testbed.progress import Progress, elapsed

INSTALL: Final = "install"
INTERRUPTED: Final = "somebody ended the run"
"""What was found until then is kept."""
FAILURES: Final = (ApiError, CommandError, FakeHostError, OSError)
STEADY_SECONDS: Final = 180.0


class Order(NamedTuple):
    """What is asked for: how much, which scenarios, and by which command."""

    extent: Extent
    names: Sequence[str]
    name: str
    command: str


def play(binaries: Binaries, order: Order, progress: Progress, *, own_network: bool) -> Result:
    """Play scenarios on one bed, until one cannot be; return what was found."""
    nodes, names = order.extent.nodes, order.names
    machine, versions = Machine.here(), {"msgspec": msgspec.__version__, "aiohttp": aiohttp.__version__}
    rows, failed, reason = list[Row](), "", lack(nodes, Room.here())
    if not reason:
        with FleetBed(binaries, order.extent, progress, own_network=own_network) as bed:
            versions |= bed.versions()
            played, begun = with_install(names), time.monotonic()
            for number, failed in enumerate(played):
                left = seconds_left(played, number, order.extent, time.monotonic() - begun)
                progress.tick(f"{failed}: {number + 1} of {len(played)}, some {elapsed(left)} to go")
                bed.renew()
                if reason := _play(bed, failed, rows):
                    break
    missing = names[names.index(failed) if failed in names else 0 :] if reason else ()
    not_run = [NotRun(name, nodes, reason) for name in missing]
    asked = [row for row in rows if row.scenario in names]
    found = schema.fleet_result(nodes, asked, not_run, machine=machine, conditions=CONDITIONS, versions=versions)
    return structs.replace(found, name=order.name, command=order.command)


def with_install(names: Sequence[str]) -> list[str]:
    """Return what is played: a fleet that is installed first, whatever is asked for."""
    return [INSTALL, *(name for name in names if name != INSTALL)]


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


def order_of(options: argparse.Namespace) -> Order:
    """Return what is asked for.

    Raises:
        ValueError: no such scenario.
    """
    size, nodes, asked = size_of(options.nodes), options.nodes, bool(options.scenarios.strip())
    names = chosen(options.scenarios, size.left_out)
    extent = Extent(nodes, options.runs or size.edits, options.runs or size.starts, options.steady_seconds)
    command = f"make bench-fleet NODES={nodes}" + (f" SCENARIOS={','.join(names)}" if asked else "")
    command += f" RUNS={options.runs}" if options.runs else ""
    command += f" STEADY_SECONDS={options.steady_seconds:g}" if options.steady_seconds != STEADY_SECONDS else ""
    return Order(extent, names, f"{FLEET_PREFIX}{nodes}" + (f"-{'+'.join(names)}" if asked else ""), command)


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    found = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    found.add_argument("--nodes", type=int, default=1000, help=f"more than {POOLS}")
    found.add_argument("--scenarios", default="", help=f"with commas, of {', '.join(SCENARIOS)}; empty means all")
    found.add_argument("--runs", type=int, default=0, help="of edits and starts; 0 means by the number of nodes")
    found.add_argument("--steady-seconds", type=float, default=STEADY_SECONDS)
    found.add_argument("--own-network", action="store_true", help="nobody else is in this network namespace")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Measure, write the result; return the exit code."""
    reader, arguments = parser(), sys.argv[1:] if arguments is None else arguments
    options = reader.parse_args(arguments)
    if options.nodes <= POOLS:
        reader.error(f"--nodes must be more than {POOLS}")
    try:
        order = order_of(options)
    except ValueError as error:
        reader.error(str(error))
    progress = Progress()

    def measure() -> int:
        binaries = find_binaries(progress)  # which may have to fetch something, so before the network is our own
        if options.own_network:
            wire.raise_loopback()
        elif way := wire.way_in():
            os.execvp(way[0], [*way, sys.executable, "-m", "benchmarks.fleet", "--own-network", *arguments])  # noqa: S606
        compile_product()
        seconds = seconds_left(with_install(order.names), 0, order.extent, 0.0)
        progress.note(f"{len(order.names)} scenarios, {order.extent.nodes} nodes: some {elapsed(seconds)}")
        return _tell(play(binaries, order, progress, own_network=options.own_network), progress)

    return run_command(measure, failures=FAILURES, say=progress.note)


def _tell(found: Result, progress: Progress) -> int:
    """Write a result, and say what is in it; return the exit code."""
    path = schema.write(found)
    progress.note(f"{len(found.results)} numbers in {path.relative_to(schema.RESULTS.parents[1])}")
    for missing in found.not_run:
        progress.note(f"not run: {missing.scenario}: {missing.reason}")
    if any(missing.reason == INTERRUPTED for missing in found.not_run):
        return 130
    return 1 if found.not_run and not found.results else 0


if __name__ == "__main__":
    sys.exit(main())
