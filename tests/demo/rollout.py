# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.demo.rollout [--keep] [--record]``: a bad policy stops at its canary, a good one goes in waves.

Sixty simulated nodes (``tests.fleet``) in one process. Exit codes as the other demo has; 1 also when what was printed
is not what docs/rollouts.md shows.
"""

from __future__ import annotations

import argparse
import io
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import msgspec
from rich.console import Console, Group, RenderableType
from rich.table import Table

from numamigration_api.vocabulary import CONTROL_CONFIG_MAP, FLEET_KEY, Dialect, Reason, RolloutPhase
from tests.demo import screen as s
from tests.demo.play import Json, Play, perform
from tests.demo.stage import LABELS, NAMESPACE, POLICIES, Stage
from tests.demo.transcript import RECORD, Block, differences, read, written
from tests.fakekernel.config import HostConfig
from tests.fleet.cast import BUSY, Part, Strain
from tests.fleet.control import ask

POLICY: Final = "offload"
WHAT: Final = {
    "v6": "the kernel series as posted last (V6), four DMA channels",
    "v5": "the series of April 2026 (V5); its engines bear two channels",
}
ZONES: Final = ("zone-a", "zone-b", "zone-c")
STRAIN: Final = Strain(channels=4, error_share=0.03)
CAST: Final = (
    Part("v6", 40, HostConfig(workloads=BUSY), ZONES, LABELS),
    Part("v5", 20, HostConfig(dialect=Dialect.V5, workloads=BUSY), ZONES, LABELS, STRAIN),
)
NODES: Final = sum(part.count for part in CAST)
SHOWN_WAVE: Final = 3
"""Documents show what `kubectl describe` says of it."""
PACE: Final = ("--report", "20", "30", "--window", "1", "--jitter", "0")


class Wave(NamedTuple):
    """What the policy said while a wave was under way: when it began, the most, and the last."""

    wave: int
    waves: int
    seconds: float
    reserved: int = 0
    unproven: int = 0
    ready: int = 0


class Rollout(Play):
    """The scenes; `record` is what they printed that documents show."""

    def __init__(self, stage: Stage, console: Console) -> None:
        super().__init__(stage, console)
        self._socket = stage.folder / "fleet.sock"
        self._touched, self._begun, self._waves = set[str](), 0.0, dict[int, Wave]()
        self._look: Callable[[], RenderableType] = Group
        self._under_way = ""
        self.record: list[Block] = []

    # --- what is there

    def facts(self) -> Json:
        """Return what the kernels of all nodes say together."""
        return ask(self._socket, "facts")

    def status(self) -> Json:
        """Return the policy's status."""
        status: Json = self.policy(POLICY).get("status", {})
        return status

    def picture(self) -> RenderableType:
        """Return what this scene is about."""
        return self._look()

    def _policies(self) -> Table:
        return s.policy_table(self.stage.api.list_items(POLICIES))

    def _nodes(self) -> Table:
        """Return the nodes that were ever reserved."""
        return _node_table([self.state(name) for name in sorted(self._touched)])

    def _table(self) -> Table:
        return _wave_table(self._waves.values())

    # --- scenes

    def start(self) -> None:
        """Sixty nodes, and nobody has asked for anything."""
        self.screen.heading(1, f"{NODES} simulated nodes of two kernel dialects in three zones")
        for part in CAST:
            self.screen.say(f"   {part.prefix}-000 to {part.prefix}-{part.count - 1:03d}: {WHAT[part.prefix]}")
        parts, config = self.stage.folder / "parts.json", self.stage.control_plane.kubeconfig
        parts.write_bytes(msgspec.json.encode(CAST))
        options = ("--kubeconfig", str(config), "--parts", str(parts), "--control", str(self._socket), *PACE)
        self.stage.start("operator", self.stage.operator_command())
        self.stage.start("fleet", [sys.executable, "-m", "tests.fleet", *options])
        self.wait("every agent has reported what its kernel is", self._all_reported)

    def _all_reported(self) -> bool:
        return self._socket.exists() and self.facts()["reports"] >= NODES

    def fail(self) -> None:
        """The canary of one dialect fails; nobody else is touched; what was before comes back."""
        self.screen.heading(2, "A policy that asks too much of the V5 engines: four channels")
        self._look = self._nodes
        self.kubectl("apply", "-f", "tests/demo/rollout-bad.yaml")
        self.wait("a canary failed, and what was before is back on every node", self._is_rolled_back)
        self.record += [Block("rolled-back", self.kubectl("get", "migpol")), Block("why", self._say(self._section()))]
        self.screen.say(f"{self.status()['rollout']['cursor']} of {NODES} nodes were ever touched.")

    def _is_rolled_back(self) -> bool:
        self._touched.update(self.status().get("rollout", {}).get("reserved", []))
        return (
            self.status().get("rollout", {}).get("phase") == RolloutPhase.ROLLED_BACK and not self.facts()["offloading"]
        )

    def _section(self) -> str:
        """Return the rollout as `kubectl describe` tells it, below the line that shows it so."""
        typed = f"$ kubectl describe migpol {POLICY} | awk '/^Status/ {{s = 1}} /^  [A-Z]/ {{p = s && /Rollout/}} p'"
        command = [*self.stage.kubectl, "describe", "migpol", POLICY]
        lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        keys = [number for number, line in enumerate(lines) if re.match(r"  [A-Z]", line)]
        first = next(number for number in keys if number > lines.index("Status:") and "Rollout" in lines[number])
        end = next((number for number in keys if number > first), len(lines))
        return "\n".join([typed, *lines[first:end]])

    def _say(self, text: str) -> str:
        typed, _, shown = text.partition("\n")
        self.screen.say(typed, style="bold")
        self.screen.say(shown)
        return text

    def succeed(self) -> None:
        """Waves grow as long as nodes are proven."""
        self.screen.heading(3, "A better policy: two channels")
        self._look = self._table
        self.kubectl("apply", "-f", "tests/demo/rollout-good.yaml")
        self._begun = time.monotonic()
        self.wait(f"all {NODES} nodes are ready", self._all_ready)
        history = ("get", "controllerrevisions", f"--namespace={NAMESPACE}")
        self.record += [
            Block("under-way", self._under_way, same=False),
            Block("waves", self._plain(self._table()), same=False),
            Block("complete", self.kubectl("get", "migpol")),
            Block("revisions", self.kubectl(*history), same=False),
        ]

    def _all_ready(self) -> bool:
        policy = self.policy(POLICY)
        status, generation = policy["status"], policy["metadata"]["generation"]
        if status.get("observedGeneration") == status.get("rollout", {}).get("generation") == generation:
            self._note_wave(status)
        return s.ready_of(policy).get("status") == "True"

    def _note_wave(self, status: Json) -> None:
        rollout, seconds = status["rollout"], time.monotonic() - self._begun
        if not self._under_way and rollout.get("wave") == SHOWN_WAVE and rollout.get("reserved"):
            self._under_way = self._section()
        wave = rollout.get("wave", 0)
        known = self._waves.get(wave) or Wave(wave, rollout.get("waves", 0), seconds)
        self._waves[wave] = known._replace(
            waves=rollout.get("waves", 0),
            reserved=max(known.reserved, len(rollout.get("reserved", []))),
            unproven=max(known.unproven, status.get("overlays", {}).get("unproven", 0)),
            ready=status["nodes"].get("ready", 0),
        )

    def switch_off(self) -> None:
        """One line turns everything off."""
        self.screen.heading(4, "Turn offload off everywhere, whatever the policies say")
        self._look = self._policies
        control = ("configmap", CONTROL_CONFIG_MAP, f"--namespace={NAMESPACE}")
        typed, begun = self.kubectl("create", *control, f"--from-literal={FLEET_KEY}=off"), time.monotonic()
        self.wait(f"{NODES} kernels have offload off, and the policy says so", self._is_off)
        seconds = time.monotonic() - begun
        shown = self.kubectl("get", "migpol")
        self.screen.say(f"{NODES} nodes were off {seconds:.1f} s after that line.")
        self.record.append(Block("fleet-off", typed + shown))

    def _is_off(self) -> bool:
        said = s.ready_of(self.policy(POLICY)).get("reason") == Reason.FLEET_OFF
        return said and not self.facts()["offloading"]

    def _plain(self, table: Table) -> str:
        console = Console(width=s.WIDTH, file=io.StringIO())
        with console.capture() as capture:
            console.print(table)
        return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _node_table(states: list[Json]) -> Table:
    table = Table(box=None, width=s.WIDTH, padding=(0, 1))
    for name in ("NODE", "KERNEL", "OFFLOAD", "READY", "REASON"):
        table.add_column(name, no_wrap=True)
    for state in states:
        status, ready = state.get("status", {}), s.ready_of(state)
        words = s.styled(ready.get("status", "…")), ready.get("reason", "")
        table.add_row(state["metadata"]["name"], status.get("dialect", ""), status.get("offload", ""), *words)
    return table


def _wave_table(waves: Iterable[Wave]) -> Table:
    table = Table(box=None, padding=(0, 1))
    for name in ("WAVE", "BEGINS AT", "MOST RESERVED", "MOST UNPROVEN", "READY AT ITS END"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in waves:
        numbers = map(str, (one.reserved, one.unproven, one.ready))
        table.add_row(f"{one.wave} of {one.waves}", f"{one.seconds:.1f} s", *numbers)
    return table


def play(rollout: Rollout, *, keep: bool) -> None:
    """Play the scenes; with `keep` wait for Ctrl-C at the end."""
    rollout.start()
    rollout.fail()
    rollout.succeed()
    rollout.switch_off()
    rollout.summary()
    if keep:
        rollout.screen.say("\nLeft running; Ctrl-C stops it. Look at it from another terminal:", style="bold")
        rollout.screen.console.print("  " + " ".join([*rollout.stage.kubectl, "get", "migpol,nms"]), soft_wrap=True)
        signal.pause()


def judge(record: list[Block], *, write: bool) -> int:
    """Write what was printed, or compare it with what was; return the exit code."""
    if write:
        RECORD.write_text(written(record))
        return 0
    lines = list(differences(read(RECORD.read_text()), record))
    if lines:
        sys.stderr.write("\n".join([*lines, f"not as in {RECORD.name}: make demo-rollout RECORD=1", ""]))
    return int(bool(lines))


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; return the exit code."""
    parser = argparse.ArgumentParser(prog="make demo-rollout", description="Show how a policy reaches sixty nodes")
    parser.add_argument("--keep", action="store_true", help="leave everything running at the end")
    parser.add_argument("--record", action="store_true", help="write docs/rollouts-transcript.txt")
    options = parser.parse_args(arguments)
    record: list[Block] = []

    def show(stage: Stage, console: Console) -> None:
        rollout = Rollout(stage, console)
        play(rollout, keep=options.keep)
        record.extend(rollout.record)

    return perform((), show, f"{NODES} simulated nodes") or judge(record, write=options.record)


if __name__ == "__main__":
    sys.exit(main())
