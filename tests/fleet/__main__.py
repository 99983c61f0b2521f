# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.fleet``: run a fleet until SIGTERM; its agents change no knob when they end.

Exit codes: 0 ended by a signal; 1 an agent crashed, or the API server refused its Nodes; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import resource
import signal
import sys
from pathlib import Path
from typing import Final

import msgspec

from numamigration_agent import watch
from numamigration_api.vocabulary import Dialect
from tests.fleet.cast import DEFAULTS, Pace, Part, parts_of
from tests.fleet.client import Access
from tests.fleet.control import serve
from tests.fleet.fleet import CONNECTIONS, Fleet

log = logging.getLogger(__name__)

GC_THRESHOLDS: Final = (20_000, 50, 1_000)
"""So that looks for garbage are as seldom as in a process of one agent; each looks through what all of them keep."""


async def run(options: argparse.Namespace) -> int:
    """Run until a signal comes, or an agent crashes."""
    loop, ending = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    pace = Pace(options.report[0], options.report[1], options.drift_check, options.window, options.jitter)
    access = Access.of(options.kubeconfig)
    async with contextlib.AsyncExitStack() as cleanup:
        fleet = Fleet(access, _parts(options), pace, connections=options.connections)
        await cleanup.enter_async_context(fleet)
        if options.control is not None:
            await cleanup.enter_async_context(await serve(fleet, options.control))
        log.info("running: %s", fleet.facts())
        await _ended(ending, fleet.crash)
    return 1 if fleet.crash.done() else 0


async def _ended(ending: asyncio.Event, crash: asyncio.Future[None]) -> None:
    crash.add_done_callback(lambda _: ending.set())
    await ending.wait()


def _parts(options: argparse.Namespace) -> list[Part]:
    if options.parts is not None:
        return msgspec.json.decode(options.parts.read_bytes(), type=list[Part])
    return parts_of(options.nodes, options.dialects, options.zones)


def _dialects(text: str) -> list[Dialect]:
    return [Dialect(word) for word in text.split(",")]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fleet", description="Run many simulated nodes.")
    parser.add_argument("--kubeconfig", type=Path, required=True, help="of the test bed")
    parser.add_argument("--nodes", type=int, default=200, help="how many, evenly over dialects and zones")
    parser.add_argument("--dialects", type=_dialects, default=[Dialect.V6, Dialect.V5], metavar="V6,V5,...")
    parser.add_argument("--zones", type=int, default=3)
    parser.add_argument("--parts", type=Path, help="JSON file with a list of tests.fleet.cast.Part, instead")
    parser.add_argument("--control", type=Path, metavar="SOCKET", help="listen for commands there")
    parser.add_argument("--connections", type=int, default=CONNECTIONS, help="at most, for what is no watch")
    parser.add_argument(
        "--report", type=float, nargs=2, default=[DEFAULTS.report_min, DEFAULTS.report_max], metavar="S"
    )
    parser.add_argument("--drift-check", type=float, default=DEFAULTS.drift_check, metavar="S")
    parser.add_argument("--window", type=float, default=DEFAULTS.statistics_window, metavar="S")
    parser.add_argument(
        "--sample",
        type=float,
        metavar="S",
        help="between two looks at an engine that is on; the product's, if left out",
    )
    parser.add_argument("--jitter", type=float, default=DEFAULTS.start_jitter, metavar="S")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run a fleet; return the exit code."""
    options = _parser().parse_args(arguments)
    if options.sample is not None:
        # No setting of the product's: each node has a core of its own for it, and here thousands share one.
        vars(watch).update(dict.fromkeys(("SAMPLE_SECONDS", "SAMPLE_SECONDS_BUSY", "COUNT_SECONDS"), options.sample))
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    log.setLevel(logging.INFO)
    gc.set_threshold(*GC_THRESHOLDS)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))  # a watch is a file descriptor
    try:
        return asyncio.run(run(options))
    except OSError as error:
        sys.stderr.write(f"tests.fleet: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
