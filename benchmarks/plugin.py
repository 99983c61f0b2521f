# SPDX-License-Identifier: Apache-2.0
"""What ``kubectl numamigration`` costs beside ``kubectl get nms`` at 5,000 nodes: ``make bench-plugin``.

On a real API server with that many node states, each with a status of the usual size. Commands take turns. The target
is twice kubectl's time and a second, for an interpreter that starts. With ``--columns`` no server is started: the
plugin's columns beside rich's table, on the same rows.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import yaml

from benchmarks.run import api_server_version, run
from benchmarks.schema import Machine, Result, Row, Unit, result, row
from benchmarks.targets import FEW, PLUGIN
from numamigration_api.definitions import definitions
from numamigration_api.vocabulary import (
    AGENT_MANAGER,
    API_VERSION,
    POLICY_KIND,
    POLICY_PLURAL,
    STATE_KIND,
    STATE_PLURAL,
)
from numamigration_cli.text import Column, columns
from tests.testbed.api import Api
from tests.testbed.binaries import Binaries
from tests.testbed.controlplane import ControlPlane
from tests.testbed.progress import Progress

STATES: Final = f"/apis/{API_VERSION}/{STATE_PLURAL}"
NODES: Final = FEW
POLICIES: Final = 20
ROUNDS: Final = 9
MEASURED: Final = ("status", "nodes")
THEIRS: Final = "kubectl get nms"
ALLOWED: Final = "2 × kubectl get nms + 1 s"
START_SECONDS: Final = 1.0
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


def fill(api: Api) -> None:
    """Make the node states and policies."""

    def make(number: int) -> None:
        name = f"db-{number:05}"
        identity = {"apiVersion": API_VERSION, "kind": STATE_KIND, "metadata": {"name": name}}
        api.create(STATES, identity)
        document = identity | {"status": status()}
        api.apply(f"{STATES}/{name}", document, AGENT_MANAGER, force=True, subresource="status")

    for number in range(POLICIES):
        spec = {"nodeSelector": {"matchLabels": {"pool": f"{number}"}}, "settings": {"demotion": {"enabled": True}}}
        metadata = {"name": f"policy-{number}"}
        api.create(
            f"/apis/{API_VERSION}/{POLICY_PLURAL}",
            {"apiVersion": API_VERSION, "kind": POLICY_KIND, "metadata": metadata, "spec": spec},
        )
    with ThreadPoolExecutor(WRITERS) as writers:
        for _ in writers.map(make, range(NODES)):
            pass


def seconds(work: Callable[[], object]) -> float:
    """Return how long it takes."""
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def commands(binaries: Binaries) -> dict[str, list[str]]:
    """Return what is run, by the name of its metric."""
    plugin = [sys.executable, "-m", "numamigration_cli"]
    return {
        THEIRS: [str(binaries.kubectl), "get", STATE_PLURAL],
        **{f"kubectl numamigration {name}": [*plugin, name] for name in MEASURED},
    }


def timed(words: Sequence[str], kubeconfig: Path) -> float:
    """Return how long a command takes whose output nobody reads."""
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    return seconds(lambda: subprocess.run(words, check=True, stdout=subprocess.DEVNULL, env=environment))


def benchmark(binaries: Binaries, progress: Progress) -> Result:
    """Measure all commands in turns, after one turn that does not count."""
    machine = Machine.here()
    with ControlPlane(binaries) as bed:
        for text in definitions().values():
            bed.api.install_crd(yaml.safe_load(text))
        progress.note(f"making {NODES} node states and {POLICIES} policies")
        fill(bed.api)
        rounds = []
        for number in range(1 + ROUNDS):
            progress.note(f"round {number} of {ROUNDS}")
            rounds.append({name: timed(words, bed.kubeconfig) for name, words in commands(binaries).items()})
        versions = api_server_version(bed.api)
    found = {name: [one[name] for one in rounds[1:]] for name in rounds[0]}
    conditions = (
        f"{NODES} node states with a status of {len(json.dumps(status()))} bytes each, and {POLICIES} policies.",
        f"{ROUNDS} rounds, in each every command once, after a round that does not count.",
        "Output goes to nobody. kubectl is itself, and the plugin a Python process that kubectl would start.",
    )
    return result(PLUGIN, "make bench-plugin", machine, conditions, _rows(found), versions=versions)


def _rows(found: Mapping[str, Sequence[float]]) -> list[Row]:
    allowed = [2 * one + START_SECONDS for one in found[THEIRS]]
    return [
        row(PLUGIN, NODES, THEIRS, Unit.SECONDS, found[THEIRS]),
        *(
            row(PLUGIN, NODES, name, Unit.SECONDS, samples, bare=(ALLOWED, allowed))
            for name, samples in found.items()
            if name != THEIRS
        ),
    ]


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


if __name__ == "__main__":
    if sys.argv[1:] == ["--columns"]:
        sys.stdout.write(compare_columns(NODES))
    else:
        sys.exit(run(benchmark))
