# SPDX-License-Identifier: Apache-2.0
"""What every benchmark does around its measurements: find the servers, end well, write and show the result.

Exit codes: 0 measured, whatever was found; 1 it could not be measured; 2 the machine lacks something; 130 interrupted.
"""

from __future__ import annotations

import compileall
import sys
from collections.abc import Callable
from typing import Final

from benchmarks import schema
from tests.demo.stage import ROOT
from tests.fakekernel.host import FakeHostError
from tests.testbed.api import Api, ApiError
from tests.testbed.binaries import Binaries, find_binaries
from tests.testbed.commands import run_command
from tests.testbed.progress import Progress

NAME_COLUMNS: Final = 42
PRODUCT: Final = ("crds/numamigration_api", "operator/numamigration_operator", "node-agent/numamigration_agent")


def run(benchmark: Callable[[Binaries, Progress], schema.Result]) -> int:
    """Run one benchmark that needs servers; return the exit code."""
    return run_alone(lambda progress: benchmark(find_binaries(progress), progress))


def run_alone(benchmark: Callable[[Progress], schema.Result]) -> int:
    """Run one benchmark that needs no server; return the exit code."""
    progress = Progress()
    compile_product()

    def measure() -> int:
        found = benchmark(progress)
        schema.write(found)
        sys.stdout.write(text(found))
        return 0

    return run_command(measure, failures=(ApiError, FakeHostError, OSError), say=progress.note)


def compile_product() -> None:
    """Compile all byte code, as an image has it; else a start would be measured with the compiler in it."""
    for package in PRODUCT:
        compileall.compile_dir(ROOT / package, quiet=1)


def api_server_version(api: Api) -> dict[str, str]:
    """Return the version of the API server, as results tell it."""
    return {"kube-apiserver": api.get("/version")["gitVersion"]}


def text(result: schema.Result) -> str:
    """Return a result for a terminal of 80 columns."""
    lines = [f"{'':{NAME_COLUMNS}} {'minimum':>8} {'median':>8} {'p99':>8} {'target':>8}"]
    return "\n".join([*lines, *map(_line, result.results), ""])


def _line(row: schema.Row) -> str:
    numbers = [row.minimum, row.median, row.p99, row.target and row.target.at_most]
    cells = " ".join(f"{'' if number is None else format(number, '.4g'):>8}" for number in numbers)
    return (
        f"{f'{row.metric}, {row.unit}'[:NAME_COLUMNS]:{NAME_COLUMNS}} {cells}{'' if row.met in {None, True} else ' !'}"
    )
