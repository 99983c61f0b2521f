# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.demo [--keep]``: the scenes, in order; exit code 0 when each went as told.

Exit codes: 0 done; 1 a scene went otherwise (what was awaited, and the end of the logs, are printed); 2 wrong usage, or
the machine lacks something (the message has the line that installs it); 130 interrupted.
"""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Final

from numamigration_api.machinery.conditions import find_condition
from numamigration_api.vocabulary import CONTROL_CONFIG_MAP, FLEET_KEY, Dialect, MigrationReason, Reason
from tests.demo import screen as s
from tests.demo.play import Json, Play, perform
from tests.demo.stage import NAMESPACE, ROOT, NodePart
from tests.fakekernel.config import HostConfig, Workload
from tests.fakekernel.control import Drift

OFFLOAD: Final = "database-offload"
TIERING: Final = "tiering"
SOAK_SECONDS: Final = 1
SOAK: Final = re.compile(r"soakSeconds: \d+")
SED: Final = f"s/soakSeconds: .*/soakSeconds: {SOAK_SECONDS}/"

MIGRATIONS: Final = (
    Workload(MigrationReason.SYSCALL_OR_CPUSET, folios_per_second=2000),
    Workload(MigrationReason.DEMOTION, folios_per_second=400),
    Workload(MigrationReason.NUMA_MISPLACED, folios_per_second=300, promotion=True),
)
V6: Final = HostConfig(workloads=MIGRATIONS)
V5: Final = HostConfig(dialect=Dialect.V5, workloads=MIGRATIONS)
STOCK: Final = HostConfig(dialect=Dialect.NO_SERIES, engines=(), workloads=MIGRATIONS)
CAST: Final = (
    NodePart("node-a", "the kernel series (V6), four DMA channels", V6),
    NodePart("node-b", "the kernel of April 2026 (V5), whose risk the policy does not accept", V5),
    NodePart("node-c", "a stock kernel of today, without the series", STOCK),
)


class Demo(Play):
    """The scenes."""

    def statistics(self) -> Json:
        """Return what the offload policy says its engines have copied."""
        statistics: Json = self.policy(OFFLOAD).get("status", {}).get("statistics", {})
        return statistics

    def apply(self) -> None:
        """Two policies, three kinds of node."""
        self.screen.heading(1, "Apply two policies to three nodes")
        for part in self.stage.cast:
            self.screen.say(f"   {part.name}: {part.what}")
        self.apply_example(TIERING)
        self.apply_example(OFFLOAD)
        wanted = {"ready": 1, "refused": 1, "unsupported": 1}
        self.wait("offload: one node ready, one refused, one unsupported", lambda: self.counts(OFFLOAD) == wanted)
        self.kubectl("wait", "--for=condition=Ready", f"migpol/{TIERING}", "--timeout=30s")
        self.kubectl("get", "migpol")
        self.kubectl("get", "nms")

    def apply_example(self, name: str) -> None:
        """Apply an example with a soak that people who look on can wait for."""
        text = SOAK.sub(f"soakSeconds: {SOAK_SECONDS}", (ROOT / "examples" / f"{name}.yaml").read_text())
        self.screen.say(f"$ sed '{SED}' examples/{name}.yaml | kubectl apply -f -", style="bold")
        command = [*self.stage.kubectl, "apply", "-f", "-"]
        done = subprocess.run(command, check=True, capture_output=True, text=True, input=text)
        self.screen.say(done.stdout.rstrip())

    def count(self) -> None:
        """Counters move."""
        self.screen.heading(2, "Pages migrate; the engine's counters reach the policy")
        before = self.statistics().get("foliosMigrated", 0)
        self.wait("the policy's statistics grow", lambda: self.statistics().get("foliosMigrated", 0) > before)
        numbers = self.statistics()
        self.screen.say(
            f"  {OFFLOAD}: {numbers['foliosMigrated']} folios copied by engines, {numbers['foliosFailed']} failed, "
            f"{numbers['foliosPerSecond']} a second"
        )

    def edit(self) -> None:
        """A spec edit reaches the kernel."""
        self.screen.heading(3, "Edit the policy: two channels instead of four")
        patch = '{"spec":{"settings":{"offload":{"channels":2}}}}'
        self.kubectl("patch", "migpol", OFFLOAD, "--type=merge", "-p", patch)
        self.wait("node-a's kernel has two channels, and node-a says that all is in force", self._is_edited)

    def _is_edited(self) -> bool:
        # What somebody writes while the engine is still being tried is no drift, for nothing was in force yet.
        state = self.state("node-a")
        told = state.get("status", {}).get("observedRevision") == state.get("spec", {}).get("revision")
        return told and s.ready_of(state).get("status") == "True" and self.files()["node-a"]["chan"] == "2"

    def drift(self) -> None:
        """Somebody else writes; the agent sets it back and says so."""
        self.screen.heading(4, "Somebody on node-a writes the kernel file by hand")
        self.screen.say("# echo 7 > /sys/module/dcbm/parameters/nr_dma_chan", style="bold")
        self.stage.hosts["node-a"].do(Drift(f"/{s.KNOB_FILES['chan']}", "7\n"))
        self.wait("the agent saw the drift and set two channels again", self._drift_corrected)
        self.screen.say(f"  node-a says: {self._drifted()['message']}")

    def _drifted(self) -> Mapping[str, Any]:
        return find_condition(self.state("node-a").get("status", {}).get("conditions", []), "Drifted") or {}

    def _drift_corrected(self) -> bool:
        return self._drifted().get("reason") == "DriftCorrected" and self.files()["node-a"]["chan"] == "2"

    def switch(self) -> None:
        """One line turns everything off, another one goes on."""
        self.screen.heading(5, "Something is wrong: turn offload off everywhere, whatever the policies say")
        control = ("configmap", CONTROL_CONFIG_MAP, f"--namespace={NAMESPACE}")
        self.kubectl("create", *control, f"--from-literal={FLEET_KEY}=off")
        self.wait("node-a's kernel has offload off", lambda: self.files()["node-a"]["offloading"] == "0")
        self.wait("each node has confirmed it, and the policy says so", self._is_off)
        self.kubectl("get", "migpol")
        self.kubectl("delete", *control)
        self.wait("node-a's kernel has offload on again", lambda: self.files()["node-a"]["offloading"] == "1")

    def _is_off(self) -> bool:
        return s.ready_of(self.policy(OFFLOAD)).get("reason") == Reason.FLEET_OFF

    def delete(self, before: dict[str, dict[str, str]]) -> None:
        """Deleting the policies puts back what was there."""
        self.screen.heading(6, "Delete the policies; every value of before comes back")
        self.kubectl("delete", "migpol", TIERING, OFFLOAD, "--wait=false")
        self.wait(
            "both policies are gone, and every kernel file is as it was before the demo",
            lambda: not self.policy(TIERING) and not self.policy(OFFLOAD) and self.files() == before,
        )


def play(demo: Demo, *, keep: bool) -> None:
    """Play the scenes; with `keep` stop before the policies are deleted and wait for Ctrl-C."""
    before = demo.files()
    demo.apply()
    demo.count()
    demo.edit()
    demo.drift()
    demo.switch()
    if keep:
        demo.summary()
        demo.screen.say("\nLeft running; Ctrl-C stops it. Look at it from another terminal:", style="bold")
        demo.screen.console.print("  " + " ".join([*demo.stage.kubectl, "get", "migpol,nms"]), soft_wrap=True)
        signal.pause()
    demo.delete(before)
    demo.summary()


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; return the exit code."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__.split(";")[0].split(": ")[1].capitalize())
    parser.add_argument("--keep", action="store_true", help="leave everything running before the last scene")
    options = parser.parse_args(arguments)
    return perform(
        CAST,
        lambda stage, console: play(Demo(stage, console), keep=options.keep),
        "three fake kernels, three agents",
    )


if __name__ == "__main__":
    sys.exit(main())
