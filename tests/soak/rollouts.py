# SPDX-License-Identifier: Apache-2.0
"""Kills at random in rollouts over 200 simulated nodes: ``make soak``, or ``SOAK_ROLLOUTS="--seed 7" make soak``.

A round is: an edit, and one to three of these in the middle of its rollout, maybe with another edit between them; then
the last edit must be everywhere, and everything that the API server stored meanwhile is judged.

* the operator is killed, and another one starts;
* the API server, or etcd, is killed and started again;
* the leader is stopped beyond its lease and goes on when another one leads: it ends, and nothing of it lands.

The same seed gives the same edits and kills, not the same moments.

Exit codes: 0 passed; 1 not, the logs stay; 2 wrong usage, or the machine lacks something; 130 interrupted.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Final

from tests.apiserver.operator_process import install_crds, install_rights
from tests.apiserver.rollout_scene import BrokenRolloutError, RolloutScene
from tests.soak.__main__ import listed
from tests.testbed.binaries import find_binaries
from tests.testbed.commands import revision, run_command
from tests.testbed.controlplane import ControlPlane
from tests.testbed.errors import WaitTimeoutError
from tests.testbed.progress import Progress, elapsed

FAULTS_MAX: Final = 3
SECOND_EDIT_SHARE: Final = 0.5


class Soak:
    """One run.

    Attributes:
        done: what was done so far, and how often.
    """

    def __init__(self, scene: RolloutScene, rng: Random) -> None:
        self._scene, self._rng = scene, rng
        self._faults = {
            "operator killed": scene.kill_operator,
            "API server killed": scene.kill_apiserver,
            "etcd killed": scene.kill_etcd,
            "leader frozen": scene.freeze_leader,
        }
        self.done = Counter[str]()

    def round(self) -> None:
        """Edit, break, settle, judge."""
        self._edit()
        for _ in range(self._rng.randint(1, FAULTS_MAX)):
            self._scene.some_progress()
            name = self._rng.choice(sorted(self._faults))
            self._faults[name]()
            self.done[name] += 1
            if self._rng.random() < SECOND_EDIT_SHARE:
                self._edit()
        self._scene.settle()
        self._scene.judge()
        self.done["round"] += 1

    def _edit(self) -> None:
        self._scene.edit()
        self.done["edit"] += 1


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    options = _parser().parse_args(arguments)
    print(f"seed {options.seed}", flush=True)
    return run_command(lambda: _soak(options, Progress()), failures=(BrokenRolloutError, WaitTimeoutError))


def _soak(options: argparse.Namespace, progress: Progress) -> int:
    begun, binaries, rng = time.monotonic(), find_binaries(progress), Random(options.seed)
    folder = Path(tempfile.mkdtemp(prefix="numamigration-soak-"))
    print(f"revision {revision()}, logs in {folder}", flush=True)
    with ControlPlane(binaries) as bed:
        install_rights(bed.api)
        install_crds(bed.api)
        with RolloutScene(bed, folder, rng, options.nodes) as scene:
            soak = Soak(scene, rng)
            while not soak.done["round"] or time.monotonic() < begun + 60 * options.minutes:
                soak.round()
                progress.note(f"{elapsed(time.monotonic() - begun)}: {listed(soak.done)}; {scene.judged} versions")
            print(f"passed: at most {scene.most} of {options.nodes} nodes unproven, {scene.budget} allowed")
    shutil.rmtree(folder)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.rollouts", description="Kills in rollouts, for long.")
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(1 << 31), help="of edits and kills (default: new)"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="begin no round after so long (default: 10)")
    parser.add_argument("--nodes", type=int, default=200, help="simulated ones (default: 200)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
