# SPDX-License-Identifier: Apache-2.0
"""What every demo does: look at objects and kernel files, run kubectl, wait until something holds, sum up."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from rich.console import Console, RenderableType

from tests.demo import screen as s
from tests.demo.stage import POLICIES, ROOT, STATES, NodePart, Stage
from tests.fakekernel.host import FakeHostError
from tests.testbed.api import ApiError
from tests.testbed.binaries import find_binaries
from tests.testbed.commands import run_command
from tests.testbed.errors import BedError
from tests.testbed.progress import Progress

SCENE_SECONDS_MAX: Final = 90.0
POLL_SECONDS: Final = 0.1

Json = dict[str, Any]


class Play:
    """Scenes on a stage; each says what it does, does it, and waits until objects and kernel files agree."""

    def __init__(self, stage: Stage, console: Console) -> None:
        self.stage = stage
        self.screen = s.Screen(console, self.picture)
        self.done: list[str] = []

    # --- what is there ------------------------------------------------------------------------------------------

    def picture(self) -> RenderableType:
        """Return the tables of this moment."""
        api = self.stage.api
        return s.picture(api.list_items(POLICIES), api.list_items(STATES), self.files())

    def files(self) -> dict[str, dict[str, str]]:
        """Return what the kernels say, read from the files themselves."""
        return {name: {knob: self.file(name, path) for knob, path in s.KNOB_FILES.items()} for name in self.stage.hosts}

    def file(self, node: str, path: str) -> str:
        """Return one kernel file's text; a dash when this kernel has none."""
        try:
            return (self.stage.hosts[node].root / path).read_text().strip()
        except OSError:
            return "-"

    def policy(self, name: str) -> Json:
        """Return a policy."""
        return self.stage.api.get_if_exists(f"{POLICIES}/{name}")

    def state(self, node: str) -> Json:
        """Return a node state."""
        return self.stage.api.get_if_exists(f"{STATES}/{node}")

    def counts(self, name: str) -> Json:
        """Return a policy's partition of nodes, without zeros."""
        nodes: Json = self.policy(name).get("status", {}).get("nodes", {})
        return {bucket: count for bucket, count in nodes.items() if count and bucket != "matched"}

    # --- doing and waiting --------------------------------------------------------------------------------------

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl, show what was typed and answered, and return that too."""
        typed = f"$ kubectl {shlex.join(arguments)}"
        self.screen.say(typed, style="bold")
        result = subprocess.run([*self.stage.kubectl, *arguments], check=True, capture_output=True, text=True, cwd=ROOT)
        self.screen.say(result.stdout.rstrip())
        return f"{typed}\n{result.stdout.rstrip()}\n"

    def wait(self, what: str, probe: Callable[[], bool]) -> None:
        """Show the picture until `probe` holds.

        Raises:
            BedError: it did not within SCENE_SECONDS_MAX.
        """
        begun = time.monotonic()
        with self.screen.live():
            while not probe():
                self.stage.check_alive()
                if time.monotonic() - begun > SCENE_SECONDS_MAX:
                    raise BedError(f"not after {SCENE_SECONDS_MAX:g} s: {what}")
                time.sleep(POLL_SECONDS)
        self.done.append(f"{what} ({time.monotonic() - begun:.1f} s)")
        self.screen.say(f"✓ {self.done[-1]}", style="green")

    def summary(self) -> None:
        """Say what was seen."""
        self.screen.say("")
        self.screen.say("Summary", style="bold")
        for line in self.done:
            self.screen.say(f"  ✓ {line}")


def perform(cast: tuple[NodePart, ...], show: Callable[[Stage, Console], None], who: str) -> int:
    """Set the stage, let `show` play on it, and return the exit code; `who` says what is started for the cast."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else s.WIDTH)
    progress = Progress()

    def run() -> int:
        binaries = find_binaries(progress)
        progress.note(f"starting etcd, kube-apiserver, {who} and the operator")
        with Stage(binaries, cast, agent="tests.twin") as stage:
            show(stage, console)
        return 0

    failures = (ApiError, FakeHostError, subprocess.CalledProcessError)
    return run_command(run, failures=failures, say=lambda text: console.print(text, markup=False))
