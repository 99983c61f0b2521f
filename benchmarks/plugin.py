# SPDX-License-Identifier: Apache-2.0
"""What ``kubectl numamigration nodes`` costs beside ``kubectl get nms``: ``python -m benchmarks.plugin``.

On a real API server with that many node states, each with a status of the usual size. The two take turns; output goes
to nobody. The target is twice kubectl's time and a second, for an interpreter that starts. With ``--columns`` no server
is started: the plugin's columns beside rich's table, on the same rows.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import yaml

from benchmarks.run import compile_product
from numamigration_api.definitions import definitions
from numamigration_api.vocabulary import API_VERSION, STATE_KIND, STATE_PLURAL
from numamigration_cli.text import Column, columns
from tests.testbed.api import Api
from tests.testbed.binaries import find_binaries
from tests.testbed.controlplane import ControlPlane
from tests.testbed.progress import Progress

STATES: Final = f"/apis/{API_VERSION}/{STATE_PLURAL}"
ROUNDS: Final = 5
WRITERS: Final = 4
ROW: Final = ("db-00001", "DMA, 4 channels", "False", "PermissionDenied", "30m", "open(2): EACCES, set agent.hostWrite")
KNOBS: Final = [
    {
        "field": f"offload.field{number}",
        "path": f"/sys/module/dcbm/parameters/field{number}",
        "desired": "4",
        "observed": "4",
        "baseline": "1",
        "outcome": "Applied",
    }
    for number in range(12)
]


def status() -> dict[str, Any]:
    """Return the status of a node that is well."""
    condition = {"status": "True", "reason": "AsExpected", "lastTransitionTime": "2026-01-02T03:04:05Z"}
    return {
        "reportedAt": "2026-01-02T03:04:05Z",
        "dialect": "V6",
        "hardwareClass": "AMD EPYC 7713 64-Core Processor; 2 NUMA + 1 memory-only; 4 ptdma",
        "offload": "DMA, 4 channels",
        "conditions": [{"type": kind, **condition} for kind in ("Ready", "Supported", "Verified")],
        "knobs": KNOBS,
        "statistics": {"foliosMigrated": 123456, "foliosFailed": 0, "foliosPerSecond": "12.5"},
    }


def fill(api: Api, nodes: int) -> None:
    """Make the node states."""

    def make(number: int) -> None:
        name = f"db-{number:05}"
        identity = {"apiVersion": API_VERSION, "kind": STATE_KIND, "metadata": {"name": name}}
        api.create(STATES, identity)
        document = identity | {"status": status()}
        api.apply(f"{STATES}/{name}", document, "numamigration-agent", force=True, subresource="status")

    with ThreadPoolExecutor(WRITERS) as writers:
        for _ in writers.map(make, range(nodes)):
            pass


def seconds(work: Callable[[], object]) -> float:
    """Return how long it takes."""
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def command(words: Sequence[str], kubeconfig: Path) -> float:
    """Return how long a command takes whose output nobody reads."""
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    return seconds(lambda: subprocess.run(words, check=True, stdout=subprocess.DEVNULL, env=environment))


def measure(nodes: int) -> str:
    """Return the comparison in a few lines."""
    progress = Progress()
    binaries = find_binaries(progress)
    compile_product()
    with ControlPlane(binaries) as bed:
        for text in definitions().values():
            bed.api.install_crd(yaml.safe_load(text))
        fill(bed.api, nodes)
        kubectl = [str(binaries.kubectl), "get", "nodemigrationstates"]
        plugin = [sys.executable, "-m", "numamigration_cli", "nodes"]
        pairs = [(command(kubectl, bed.kubeconfig), command(plugin, bed.kubeconfig)) for _ in range(ROUNDS)]
    theirs, ours = (statistics.median(side) for side in zip(*pairs, strict=True))
    target = 2 * theirs + 1
    return (
        f"{nodes} nodes, median of {ROUNDS}: kubectl get nms {theirs:.2f} s, kubectl numamigration nodes {ours:.2f} s; "
        f"target {target:.2f} s: {'met' if ours <= target else 'missed'}\n"
    )


def compare_columns(rows: int) -> str:
    """Return how long the plugin's columns and rich's table take for the same rows."""
    from rich.console import Console
    from rich.table import Table

    cells: list[tuple[str, ...]] = [ROW] * rows
    table = [Column[tuple[str, ...]](f"C{number}", itemgetter(number)) for number in range(len(ROW))]
    ours = seconds(lambda: columns(cells, table, width=120))
    rich = Table(box=None)
    for number in range(len(ROW)):
        rich.add_column(f"C{number}")
    for _ in range(rows):
        rich.add_row(*ROW)
    theirs = seconds(lambda: Console(file=io.StringIO(), width=120).print(rich))
    return f"{rows} rows: columns {ours:.3f} s, rich's table {theirs:.3f} s\n"


def main() -> int:
    """Measure and tell."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plugin")
    parser.add_argument("--nodes", type=int, default=5000)
    parser.add_argument("--columns", action="store_true", help="compare columns only")
    options = parser.parse_args()
    sys.stdout.write(compare_columns(options.nodes) if options.columns else measure(options.nodes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
