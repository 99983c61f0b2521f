# SPDX-License-Identifier: Apache-2.0
"""The agent is killed at each step of a change, and another one goes on.

A step is a command that leaves a trace outside of the agent: a write of a knob, a save of the file, a report. What a
dead agent had read or heard makes no difference to the next one, so these are all the places where it can die: the step
is done, and its answer is not heard any more. Each scenario runs once to count its steps and then once for each step.
The rig looks at every single store: both homes must have the exact value of before, and offload must not be on with
parameters that nobody asked for.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Final

import pytest

from numamigration_agent.baseline import FILE_NAME, BaselineFile, Baselines, Loaded, NoFile, baselines_of_status
from numamigration_agent.change import SaveBaselines, WriteKnob
from numamigration_agent.events import Command, Event, Report
from numamigration_agent.jobs import Job
from numamigration_agent.kernel.codecs import Value
from numamigration_agent.kernel.probe import probe, probe_host
from numamigration_agent.lanes import Lane
from numamigration_api.vocabulary import Dialect
from tests.fakekernel.config import HostConfig
from tests.unit.agent_rig import OFFLOAD, FakeSysfs, Rig, wish

pytestmark = pytest.mark.uncounted

PARAMETERS: Final = "/sys/module/dcbm/parameters"
ASKED: Final = ("demotion", "damon")
EVERY: Final = HostConfig().reason_names
SECONDS_TO_REST: Final = 16  # a failed change is tried again after 5 to 10 s, drift is looked for after 15 s

OnStates = frozenset[tuple[int, tuple[str, ...]]]


def whole(found: Loaded) -> Baselines:
    assert isinstance(found, Baselines), found
    return found


class KilledError(Exception):
    """The agent is no more."""


@dataclass
class MortalRig(Rig):
    """A rig whose agent dies at one step, and that looks at every store."""

    on_states: OnStates = frozenset()
    """Channels and reasons with which offload may be on."""
    loss: Callable[[MortalRig], None] = lambda _rig: None
    steps: int = 0
    dies_at: list[int] = field(default_factory=list)
    deaths: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        sysfs = FakeSysfs(self.kernel)
        facts = probe(sysfs, probe_host(sysfs))
        self.initial = self.kernel.snapshot()
        self.before = {knob.field: facts.value(knob) for knob in facts.knobs}

    def arm(self, *steps: int) -> None:
        """Die after the first of `steps` from now, then after the next of them from there."""
        self.steps, self.dies_at = 0, list(steps)

    def on_file(self) -> Baselines:
        found = BaselineFile(self.folder).load(self.initial.boot_id)
        # Where nothing has to be written after the folder was lost, the status alone has them.
        return Baselines(self.initial.boot_id, self.in_status()) if isinstance(found, NoFile) else whole(found)

    def in_status(self) -> Mapping[str, Value]:
        found = baselines_of_status(self.status, self.initial.boot_id)
        return found.values if found else {}

    def _handle(self, event: Event) -> None:
        try:
            super()._handle(event)
        except KilledError:
            self.deaths += 1
            self.loss(self)
            self.restart()

    def _do(self, command: Command) -> None:
        super()._do(command)
        self.steps += isinstance(command, Report) or isinstance(command.job, WriteKnob | SaveBaselines)
        if self.dies_at and self.steps == self.dies_at[0]:
            self.arm(*self.dies_at[1:])
            raise KilledError

    def _perform(self, lane: Lane, job: Job) -> None:
        if isinstance(job, WriteKnob):
            name = job.knob.field
            assert (self.folder / FILE_NAME).exists()
            assert self.on_file().values[name] == self.in_status()[name] == self.before[name]
        super()._perform(lane, job)
        snapshot = self.kernel.snapshot()
        assert not snapshot.offloading or (snapshot.nr_dma_chan, snapshot.reasons) in self.on_states


@dataclass(frozen=True)
class Scenario:
    """What is there, what happens, and how the kernel shall be in the end; None is "as it was at first"."""

    name: str
    act: Callable[[MortalRig], None]
    end: tuple[bool, int, tuple[str, ...]] | None
    prepare: Callable[[MortalRig], None] = lambda rig: rig.settle()
    on_states: OnStates = frozenset({(4, ASKED)})
    config: HostConfig = field(default_factory=HostConfig)

    def rig(self, folder: Path) -> MortalRig:
        rig = MortalRig(folder, self.config, on_states=self.on_states)
        self.prepare(rig)
        return rig


def wishes(groups: Mapping[str, Any]) -> Callable[[MortalRig], None]:
    return lambda rig: rig.wish(groups)


def drifts(rig: MortalRig) -> None:
    rig.kernel.drift(f"{PARAMETERS}/nr_dma_chan", "1")
    rig.kernel.drift(f"{PARAMETERS}/reason_mask", "all")
    rig.pass_time(16)


ON: Final = wishes({"offload": wish(OFFLOAD)})
EVERY_GROUP: Final = {
    "offload": wish(OFFLOAD),
    "balancing": wish({"mode": "Tiering", "promoteRateLimitMBps": 2048}),
    "demotion": wish({"enabled": True}),
}
V5_REASONS: Final = ("compaction", "syscall_or_cpuset", "numa_misplaced", "demotion")
V5_WISH: Final = wish({"engine": "DMA", "channels": 4}, acceptedRisks=["UnverifiedEngine", "DirectIOLostWrite"])
FAILED: Final = Scenario("a failed change and its undo", ON, None, config=HostConfig(other_migrator=True))
SCENARIOS: Final = (
    Scenario("turn on", ON, (True, 4, ASKED)),
    Scenario("turn on, beside other units", wishes(EVERY_GROUP), (True, 4, ASKED)),
    Scenario("turn off", wishes({"offload": wish({"engine": "Off"})}), (False, 1, EVERY), ON),
    Scenario(
        "change the parameters",
        wishes({"offload": wish({**OFFLOAD, "channels": 2, "reasons": ["compaction"]})}),
        (True, 2, ("compaction",)),
        ON,
        frozenset(product((4, 2), (ASKED, ("compaction",)))),
    ),
    Scenario("restore", wishes({name: {**body, "mode": "Restore"} for name, body in EVERY_GROUP.items()}), None,
             wishes(EVERY_GROUP)),
    Scenario("correct drift", drifts, (True, 4, ASKED), ON, frozenset(product((4, 1), (ASKED, EVERY)))),
    Scenario("turn V5 on", wishes({"offload": V5_WISH}), (True, 4, V5_REASONS), on_states=frozenset({(4, V5_REASONS)}),
             config=HostConfig(dialect=Dialect.V5)),
    FAILED,
)  # fmt: skip
LOSSY: Final = [row for row in SCENARIOS if row.name in {"turn on, beside other units", "turn off", "restore"}]


def nothing(_rig: MortalRig) -> None:
    """Nothing but the agent is lost."""


def folder(rig: MortalRig) -> None:
    shutil.rmtree(rig.folder, ignore_errors=True)


def status(rig: MortalRig) -> None:
    rig.object["status"] = {}


def node_state(rig: MortalRig) -> None:
    rig.object["metadata"]["uid"] += "'"
    rig.object["status"] = {}


def open_units(rig: MortalRig) -> None:
    """Leave the file as a release without open units would have written it."""
    path = rig.folder / FILE_NAME
    if path.exists():
        document = json.loads(path.read_text())
        del document["openUnits"]
        path.write_text(json.dumps(document | {"version": 1}))


def steps_of(scenario: Scenario, folder: Path) -> range:
    """Count the steps of a life that nothing cuts short."""
    rig = scenario.rig(folder)
    rig.arm()
    scenario.act(rig)
    return range(1, rig.steps + 1)


def killed(scenario: Scenario, folder: Path, loss: Callable[[MortalRig], None], *steps: int) -> MortalRig:
    rig = scenario.rig(folder)
    rig.loss = loss
    rig.arm(*steps)
    scenario.act(rig)
    rig.pass_time(SECONDS_TO_REST)
    assert rig.deaths == len(steps)
    return rig


def assert_end(rig: MortalRig, end: tuple[bool, int, tuple[str, ...]] | None) -> None:
    """The kernel is where it shall be, no unit is open, and Restore gives back what was there at first."""
    found = rig.kernel.snapshot()
    if end is None:
        assert found == rig.initial
    else:
        assert (found.offloading, found.nr_dma_chan, found.reasons) == end
    assert_restores(rig)


def assert_restores(rig: MortalRig) -> None:
    assert rig.on_file().open_units == {}
    held = rig.on_file().values
    assert held == rig.in_status() == {name: rig.before[name] for name in held}
    rig.wish({name: {**body, "mode": "Restore"} for name, body in EVERY_GROUP.items()})
    assert rig.kernel.snapshot() == rig.initial
    assert rig.on_file().values == rig.in_status() == {}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_an_agent_killed_at_any_step_is_continued_to_the_end(tmp_path: Path, scenario: Scenario) -> None:
    """Promise 4: all or nothing, also for a change that failed and was not undone yet. Promises 1, 6 and 7 with it."""
    for step in steps_of(scenario, tmp_path / "whole"):
        assert_end(killed(scenario, tmp_path / str(step), nothing, step), scenario.end)


@pytest.mark.parametrize("second", [1, 2, 3])
def test_an_agent_killed_while_it_undoes_what_another_left_is_continued_too(tmp_path: Path, second: int) -> None:
    """Promise 4."""
    for first in steps_of(FAILED, tmp_path / "whole"):
        assert_end(killed(FAILED, tmp_path / str(first), nothing, first, second), FAILED.end)


@pytest.mark.parametrize("loss", [folder, status, node_state, open_units], ids=lambda loss: loss.__name__)
@pytest.mark.parametrize("scenario", LOSSY, ids=lambda row: row.name)
def test_a_home_that_is_lost_with_the_agent_changes_nothing(
    tmp_path: Path, scenario: Scenario, loss: Callable[[MortalRig], None]
) -> None:
    """Promise 7: either home of the baselines is enough. Promise 1: the lost one has them again before a write."""
    for step in steps_of(scenario, tmp_path / "whole"):
        assert_end(killed(scenario, tmp_path / str(step), loss, step), scenario.end)
