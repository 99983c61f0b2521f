# SPDX-License-Identifier: Apache-2.0
"""What a look at the dialect with most knobs and a plan cost beside the files themselves: ``make bench-plan``.

A round is a look (probe) and a plan with a wish for every group, and right before it a bare loop that opens, reads and
closes the same files and lists the same folders. The files are those of a fake F-ext kernel, in memory and behind FUSE.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.kernel_files import copy_files, memory_folder
from benchmarks.run import run_alone
from benchmarks.schema import Machine, Result, Row, Unit, result, row
from benchmarks.targets import PLAN
from numamigration_agent.baseline import Baselines
from numamigration_agent.groups import Known
from numamigration_agent.kernel.probe import KernelFacts, probe, probe_host
from numamigration_agent.kernel.sysfs import Sysfs
from numamigration_agent.plan import Plan, make_plan
from numamigration_agent.wishes import Spec, parse_spec
from numamigration_api.machinery.canonical import spec_revision
from numamigration_api.vocabulary import AcceptedRisk, Dialect
from tests.fakekernel.config import DmaEngine, HostConfig
from tests.fakekernel.host import FakeHost
from tests.testbed.progress import Progress

ROUNDS: Final = 300
WARM_UP: Final = 20
SETTINGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "offload": {"engine": "DMA", "channels": 16, "locality": "LocalFirst", "cacheAllocate": False},
    "batch": {
        "minSize": "64Ki",
        "chunkMinSize": "512Ki",
        "chunkMaxSize": "4Mi",
        "sgElements": 64,
        "descriptorsPerChannel": 64,
    },
    "mapCache": {"enabled": False, "capMiB": 1024, "minKiB": 128, "quantumKiB": 64},
    "balancing": {"mode": "Tiering", "promoteRateLimitMBps": 2048},
    "demotion": {"enabled": True},
}


class Recorder(Sysfs):
    """The door to kernel files, remembering what went through it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.calls: list[tuple[Callable[[str], object], str]] = []

    def _note(self, call: Callable[[str], object], path: str) -> None:
        self.calls.append((call, str(self._root) + path))

    def _load(self, path: str, bytes_max: int) -> bytes:
        self._note(bare_read, path)
        return super()._load(path, bytes_max)

    def mode(self, path: str) -> int | None:
        """Ask for one file's mode."""
        self._note(bare_stat, path)
        return super().mode(path)

    def life(self, path: str) -> int | None:
        """Ask for one folder."""
        self._note(bare_stat, path)
        return super().life(path)

    def names(self, path: str) -> tuple[str, ...]:
        """List one folder."""
        self._note(bare_list, path)
        return super().names(path)

    def link_name(self, path: str) -> str | None:
        """Read one link."""
        self._note(bare_link, path)
        return super().link_name(path)


def bare_read(path: str) -> None:
    """Open, read to the end, close."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    while os.read(descriptor, 1 << 16):
        pass
    os.close(descriptor)


def bare_stat(path: str) -> None:
    """Ask for one file."""
    os.access(path, os.F_OK)


def bare_list(path: str) -> None:
    """List one folder."""
    try:
        os.listdir(path)  # noqa: PTH208 - as the agent does
    except OSError:
        return


def bare_link(path: str) -> None:
    """Read one link."""
    try:
        os.readlink(path)  # noqa: PTH115 - as the agent does
    except OSError:
        return


def spec() -> Spec:
    """Return a wish for every group of the dialect."""
    shared = {
        "source": {"policy": "bench", "uid": "uid-1", "generation": 1},
        "mode": "Apply",
        "verification": "Off",
        "acceptedRisks": list(AcceptedRisk),
        "release": "Restore",
    }
    groups = {name: {"settings": settings, **shared} for name, settings in SETTINGS.items()}
    spec = {"revision": spec_revision({"groups": groups}), "groups": groups}
    return parse_spec({"metadata": {"generation": 1}, "spec": spec})


def rounds(root: Path, wanted: Spec) -> tuple[list[float], list[float]]:
    """Return milliseconds of the bare loop, and of look and plan, taking turns."""
    recorder = Recorder(root)
    host = probe_host(recorder)
    recorder.calls.clear()
    facts = probe(recorder, host)
    calls, sysfs = list(recorder.calls), Sysfs(root)
    if not look(sysfs, facts, wanted).changes:
        raise OSError("the plan is empty, so nothing would be measured")
    pairs = [
        (_timed(lambda: [call(path) for call, path in calls]), _timed(lambda: look(sysfs, facts, wanted)))
        for _ in range(WARM_UP + ROUNDS)
    ]
    bare, ours = zip(*pairs[WARM_UP:], strict=True)
    return list(bare), list(ours)


def look(sysfs: Sysfs, known: KernelFacts, wanted: Spec) -> Plan:
    """Probe and plan, as the agent does each time something may have changed."""
    return make_plan(probe(sysfs, known.host), wanted, Known(Baselines(known.host.boot_id)))


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - begun)


def benchmark(progress: Progress) -> Result:
    """Measure both places."""
    machine, wanted = Machine.here(), spec()
    config = HostConfig(dialect=Dialect.F_EXT, engines=tuple(DmaEngine("ptdma", numa_node=n % 2) for n in range(16)))
    with FakeHost(config, real_time=False) as fake, memory_folder() as folder:
        copied = Path(folder) / "root"
        copy_files(fake.root, copied)
        progress.note(f"{ROUNDS} rounds on kernel files in memory, as many behind FUSE")
        found = [*_rows("", *rounds(copied, wanted)), *_rows(" (FUSE)", *rounds(fake.root, wanted))]
    conditions = (
        f"{ROUNDS} rounds, taking turns with a bare loop over the same files; F-ext with 16 DMA engines.",
        "Kernel files in memory, or by FUSE where it says so.",
    )
    return result(PLAN, "make bench-plan", machine, conditions, found, versions={})


def _rows(place: str, bare: list[float], ours: list[float]) -> list[Row]:
    beside = [mine - files for mine, files in zip(ours, bare, strict=True)]
    files = f"the bare files{place}"
    return [
        row(PLAN, 1, f"look and plan, beside the bare files{place}", Unit.MILLISECONDS, beside),
        row(PLAN, 1, f"look and plan{place}", Unit.MILLISECONDS, ours, bare=(files, bare), latency=True),
        row(PLAN, 1, files, Unit.MILLISECONDS, bare, latency=True),
    ]


if __name__ == "__main__":
    sys.exit(run_alone(benchmark))
