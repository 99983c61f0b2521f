# SPDX-License-Identifier: Apache-2.0
"""Mutants of operator and agent that the simulation has to find: ``python -m tests.simulation --mutants``.

Each is a patch that takes one guard away, from `mutants.txt` (those that single tests find too) or `mutants/`. It is
applied to a copy of the tree, and schedules are run there, from seed 1 on, until one does not end well.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from typing import Final, NamedTuple

from tests.mutants import ROOT
from tests.mutants.__main__ import ROOMS, copy_tree

HERE: Final = Path(__file__).parent
LISTED: Final = HERE / "mutants.txt"
OWN: Final = HERE / "mutants"
CHOSEN: Final = {"+++ b/node-agent/": "--real-agents", "+++ b/operator/numamigration_operator/core/tun": "--tuned"}
"""Mutants of the agent, and of the tuner: only schedules that run it can find them."""
FOUND: Final = re.compile(r"^first found: seed (\d+), after (\d+) schedules: (.*)$", re.MULTILINE)


class Hunt(NamedTuple):
    """What became of one mutant; `schedules` is 0 for one that was not found."""

    name: str
    seed: int
    schedules: int
    problem: str


def patches(pattern: str) -> Iterator[Path]:
    """Yield the patches whose names fit a pattern."""
    names = [line.split()[0] for line in LISTED.read_text().splitlines() if line and not line.startswith("#")]
    listed = [ROOT / "tests/mutants" / f"{name}.patch" for name in names]
    yield from (path for path in (*listed, *sorted(OWN.glob("*.patch"))) if fnmatch(path.stem, pattern))


def hunt(pattern: str, jobs: int, seeds: int) -> list[Hunt]:
    """Look for every mutant; tell about each as it is found."""
    with tempfile.TemporaryDirectory() as folder:
        clean = Path(folder) / "clean"
        copy_tree(clean)
        subprocess.run(["git", "init", "--quiet"], cwd=clean, check=True)
        with ThreadPoolExecutor(jobs) as pool:
            return list(pool.map(lambda path: _hunt(path, clean, Path(folder), seeds), patches(pattern)))


def _hunt(path: Path, clean: Path, folder: Path, seeds: int) -> Hunt:
    tree = folder / path.stem
    shutil.copytree(clean, tree, copy_function=os.link)
    subprocess.run(["git", "apply", str(path)], cwd=tree, check=True)
    environment = os.environ | {"PYTHONPATH": ":".join(str(tree / room) for room in (*ROOMS, ""))}
    command = [sys.executable, "-m", "tests.simulation", "--first", "1", "--seeds", str(seeds), "--until-found"]
    patch = path.read_text()
    command += [option for part, option in CHOSEN.items() if part in patch]
    said = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    shutil.rmtree(tree)
    match = FOUND.search(said.stdout + said.stderr)
    found = Hunt(path.stem, 0, 0, said.stderr.strip()[-80:])
    if match is not None:
        found = Hunt(path.stem, int(match[1]), int(match[2]), match[3])
    line = f"{found.name:<44} {f'seed {found.seed}' if found.seed else 'NOT FOUND':<10} {found.problem[:100]}\n"
    sys.stdout.write(line)
    sys.stdout.flush()
    return found
