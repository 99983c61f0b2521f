# SPDX-License-Identifier: Apache-2.0
"""Kills and edits at random, and a check after each calm: ``make soak``, or ``SOAK="--seed 7 --minutes 60" make soak``.

A round is: some edits, one kill in the middle of what follows from them, then calm. Checked is, each time:

* each kernel holds the winner's wish or what was before, and node states say whose wish it is;
* each policy's counts are a partition of its nodes, all ready or overridden;
* a round without an edit stores nothing in a kernel and writes no spec;
* an edit writes no more than SPEC_WRITES_PER_EDIT specs to a node.

Half-way the API server is away for a minute. In the end every policy is deleted, and every kernel holds what was
before. The same seed gives the same edits and kills, not the same moments.

Exit codes: 0 passed; 1 not; 2 wrong usage, or the machine lacks something; 130 interrupted.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Final

from tests.fakekernel.control import Drift
from tests.soak.model import POLICIES_MAX, ROLES, Kernel, Model, Policy, some_settings
from tests.soak.stage import AGENT, API_SERVER, OPERATOR, Stage
from tests.testbed.api import ApiError
from tests.testbed.binaries import find_binaries
from tests.testbed.commands import revision, run_command
from tests.testbed.progress import Progress, elapsed

NODES: Final = ("node-a", "node-b", "node-c")
EDITS_MAX: Final = 4
QUIET_SHARE: Final = 0.3
"""Of rounds that have a kill and no edit."""
KILL_WITHIN_SECONDS: Final = 0.6
"""After the edits: a push to three nodes takes about as long."""
CALM_SECONDS_MAX: Final = 120.0
"""A wait for the API server may have grown to 30 s."""
LOOK_SECONDS: Final = 0.2
SPEC_WRITES_PER_EDIT: Final = 3
"""Restore, drop, and the next wish; a new leader writes each node that it finds reserved once more."""
BALANCING: Final = "/proc/sys/kernel/numa_balancing"


class NotCalmError(Exception):
    """Something is not as it shall be."""


@dataclass(slots=True)
class Tally:
    """What was done so far."""

    kills: Counter[str] = field(default_factory=Counter)
    edits: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    quiet_rounds: int = 0
    spec_writes: int = 0
    calm_seconds_max: float = 0.0

    def rows(self) -> dict[str, str]:
        """Return what was done, for the log."""
        return {
            "nodes": str(len(NODES)),
            "kills": f"{self.kills.total()}: {listed(self.kills)}",
            "edits": f"{self.edits.total()}: {listed(self.edits)}",
            "rounds": f"{self.rounds}, {self.quiet_rounds} of them without an edit",
            "specs written": str(self.spec_writes),
            "longest way to calm": f"{self.calm_seconds_max:.1f} s",
        }


class Soak:
    """One run."""

    def __init__(self, stage: Stage, rng: Random, progress: Progress) -> None:
        self.stage, self.rng, self._progress = stage, rng, progress
        self.model = Model(dict.fromkeys(NODES, ROLES[0]))
        self.tally = Tally()
        self._begun = time.monotonic()

    def begin(self) -> None:
        """Register the nodes and bring a first policy into force."""
        for name, role in self.model.roles.items():
            self.stage.make_node(name, role)
        self.stage.write(self.model.new_policy(self.rng))
        self.await_calm()

    def round(self) -> None:
        """Edit, kill, await calm, check."""
        edits = 0 if self.rng.random() < QUIET_SHARE else self.rng.randint(1, EDITS_MAX)
        mark, stores = self.stage.proxy.mark(), self.stage.stores()
        for _ in range(edits):
            self.edit()
        time.sleep(self.rng.uniform(0, KILL_WITHIN_SECONDS))
        kind = self.rng.choice((AGENT, OPERATOR, API_SERVER))
        self.stage.kill(kind, self.rng.choice(NODES))
        self.tally.kills[kind] += 1
        self.await_calm()
        self._check_writes(edits, mark, stores, takeovers=kind == OPERATOR)
        self.tally.rounds += 1
        self.tally.quiet_rounds += not edits

    def edit(self) -> None:
        """Do what a person does."""
        name = self.rng.choice(NODES)
        doings = ["create", "settings", "delete", "relabel", "node state"]
        doing = self.rng.choice(doings if self.model.policies else ["create"])
        if doing == "create" and len(self.model.policies) >= POLICIES_MAX:
            doing = "delete"
        self.tally.edits[doing] += 1
        match doing:
            case "create":
                self.stage.write(self.model.new_policy(self.rng))
            case "settings":
                policy = replace(self._some_policy(), settings=some_settings(self.rng))
                self.model.policies[policy.name] = policy
                self.stage.write(policy)
            case "delete":
                self.stage.delete(self.model.policies.pop(self._some_policy().name))
            case "relabel":
                self.model.roles[name] = self.rng.choice(ROLES)
                self.stage.relabel(name, self.model.roles[name])
            case _:
                self.stage.delete_state(name)

    def api_server_away(self, seconds: float) -> None:
        """Take the API server away, change a knob behind the agents' backs, and bring it back."""
        self.stage.await_reports()
        managed = next((name for name in NODES if "balancing" in self.model.winners(name)), None)
        mark, stores = self.stage.proxy.mark(), self.stage.stores()
        self.stage.take_api_server()
        until = time.monotonic() + seconds
        if managed is not None:
            self.stage.nodes[managed].host.do(Drift(BALANCING, "3"))
        while time.monotonic() < until:
            self._say("API server away")
            time.sleep(LOOK_SECONDS)
        for name, node in self.stage.nodes.items():
            held, wanted = Kernel.of(node.host.snapshot()), self.model.kernel(name, self.stage.before[name])
            if held != wanted:
                raise NotCalmError(f"without API server {name} holds {held}, not {wanted}")
        self.stage.bring_api_server()
        self.await_calm()
        if managed is not None:
            stores[managed] += 2  # the drift itself, and its end
        self._check_writes(0, mark, stores)

    def end(self) -> None:
        """Delete every policy; every kernel must hold what was before."""
        while self.model.policies:
            self.stage.delete(self.model.policies.popitem()[1])
        self.await_calm()

    def await_calm(self) -> None:
        """Return when all is as it shall be.

        Raises:
            NotCalmError: it is not after CALM_SECONDS_MAX.
        """
        begun = time.monotonic()
        while findings := self._findings():
            if time.monotonic() - begun > CALM_SECONDS_MAX:
                raise NotCalmError("; ".join(findings))
            self._say("awaiting calm")
            time.sleep(LOOK_SECONDS)
        self.tally.calm_seconds_max = max(self.tally.calm_seconds_max, time.monotonic() - begun)

    def _findings(self) -> list[str]:
        try:
            return self.stage.findings(self.model)
        except (ApiError, OSError) as error:
            return [str(error)]

    def _check_writes(self, edits: int, mark: int, stores: dict[str, int], *, takeovers: int = 0) -> None:
        each = SPEC_WRITES_PER_EDIT * edits + (takeovers if edits else 0)
        writes, bound = self.stage.spec_writes(mark), each * len(NODES)
        self.tally.spec_writes += writes
        if writes > bound:
            raise NotCalmError(f"{writes} specs written for {edits} edits; {bound} at most")
        if not edits and self.stage.stores() != stores:
            raise NotCalmError(f"kernels were written to and nothing was asked: {stores}, {self.stage.stores()}")

    def _some_policy(self) -> Policy:
        return self.model.policies[self.rng.choice(sorted(self.model.policies))]

    def _say(self, what: str) -> None:
        self._progress.tick(f"{elapsed(time.monotonic() - self._begun)}: {self.tally.kills.total()} kills, {what}")


def run(soak: Soak, *, minutes: float, kills: int, away_seconds: float) -> None:
    """Do all of it.

    Raises:
        NotCalmError: something was not as it shall be.
    """
    until = time.monotonic() + 60 * minutes
    soak.begin()
    while soak.tally.kills.total() < kills // 2:
        soak.round()
    soak.api_server_away(away_seconds)
    while soak.tally.kills.total() < kills or time.monotonic() < until:
        soak.round()
    soak.end()


def listed(counts: Counter[str]) -> str:
    """Return counts as people say them."""
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    options = _parser().parse_args(arguments)
    print(f"seed {options.seed}", flush=True)
    return run_command(lambda: _soak(options, Progress()))


def _soak(options: argparse.Namespace, progress: Progress) -> int:
    begun, head = time.monotonic(), revision()
    with (
        tempfile.TemporaryDirectory(prefix="numamigration-soak-") as folder,
        Stage(find_binaries(progress), Path(folder), NODES) as stage,
    ):
        soak = Soak(stage, Random(options.seed), progress)
        failure = ""
        try:
            run(soak, minutes=options.minutes, kills=options.kills, away_seconds=options.away_seconds)
        except NotCalmError as error:
            failure = str(error)
            print(stage.last_words(), file=sys.stderr)
    verdict = (
        f"FAILED: {failure}" if failure else f"passed; every baseline is back on {len(NODES)} of {len(NODES)} nodes"
    )
    seconds = time.monotonic() - begun
    rows = {
        "revision": head if head == revision() else f"{head}, changed while it ran",
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "seed": str(options.seed),
        "duration": elapsed(seconds),
        "API server away": f"{options.away_seconds:g} s",
        **soak.tally.rows(),
        "result": verdict,
    }
    text = "".join(f"{name + ':':<21}{value}\n" for name, value in rows.items())
    progress.note(text.rstrip())
    if options.log:
        options.log.parent.mkdir(parents=True, exist_ok=True)
        options.log.write_text(text)
    return 1 if failure else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Kills and edits at random, for long.")
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(1 << 31), help="of edits and kills (default: new)"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="go on for at least so long (default: 10)")
    parser.add_argument("--kills", type=int, default=50, help="at least so many (default: 50)")
    parser.add_argument("--away-seconds", type=float, default=60.0, help="without API server, once (default: 60)")
    parser.add_argument("--log", type=Path, help="write the result there, too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
