# SPDX-License-Identifier: Apache-2.0
"""What the kernel does to the agent's process at the worst moment, and what node and node state then say.

The process is killed at a gate of the fake kernel, right before or right after a store takes effect. As with a driver
that waits in state D, a killed or stopped process is reaped when the kernel has answered its last call; what the agent
itself decides, the end of its main thread, is seen before.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from numamigration_api.vocabulary import MigrationReason
from tests.apiserver.agent_process import NodeUnderTest, group_state
from tests.fakekernel.calls import Gate, When
from tests.fakekernel.config import DmaEngine, HostConfig, Workload
from tests.fakekernel.control import AwaitBlocked, CloseGate, EndBatches, Load, Migrate, OpenGate, Unload
from tests.fakekernel.host import FakeHost
from tests.fakekernel.model import Snapshot
from tests.testbed.api import Json, poll
from tests.testbed.controlplane import ControlPlane
from tests.unit.agent_rig import OFFLOAD, wish

pytestmark = pytest.mark.uncounted

PARAMETERS: Final = "/sys/module/dcbm/parameters"
OFFLOADING: Final = f"{PARAMETERS}/offloading"
STALLS: Final = DmaEngine("ptdma", channels=4, hangs=True, terminate_seconds=10)
"""A batch takes 20 s: 10 s until the time-out, 10 s to stop the engine."""
EXIT_SECONDS_MAX: Final = 1.0

WISH: Final = {"offload": wish(OFFLOAD)}
RESTORE: Final = {"offload": wish(OFFLOAD, mode="Restore")}

NodeOn = Callable[..., NodeUnderTest]


@pytest.fixture
def agent_log(tmp_path: Path) -> Iterator[Path]:
    """What the node's agents log; printed when the test fails."""
    path = tmp_path / "agent.log"
    yield path
    sys.stderr.write(path.read_text())


@pytest.fixture
def node_on(
    control_plane: ControlPlane,
    crds: tuple[str, ...],  # noqa: ARG001 - the kind must be there
    unique_name: Callable[[str], str],
    tmp_path: Path,
    agent_log: Path,
) -> Iterator[NodeOn]:
    """Return a function that makes a node with a host of that configuration, and starts its agent (or its twin)."""
    with ExitStack() as stack:

        def make(config: HostConfig, program: str = "numamigration_agent") -> NodeUnderTest:
            host = stack.enter_context(FakeHost(config))
            name = unique_name("node")
            node = NodeUnderTest(control_plane, host, name, tmp_path, log=agent_log, program=program)
            stack.callback(node.kill)
            stack.callback(host.do, EndBatches())
            stack.callback(host.do, OpenGate(drop=True))
            node.start()
            return node

        yield make


@pytest.fixture
def node(node_on: NodeOn) -> NodeUnderTest:
    return node_on(HostConfig())


def knobs(snapshot: Snapshot) -> tuple[bool, int, tuple[str, ...]]:
    return snapshot.offloading, snapshot.nr_dma_chan, snapshot.reasons


def writes(node: NodeUnderTest) -> list[tuple[str, str]]:
    return [(store.name, store.text.strip()) for store in node.host.stores]


def kill_at_gate(node: NodeUnderTest) -> None:
    """Kill the agent once it is held; what has no effect yet then never has one."""
    node.host.await_held()
    assert node.agent is not None
    node.agent.kill()
    node.host.do(OpenGate(drop=True))
    node.agent.wait()


def is_(state: str) -> Callable[[Json], bool]:
    return lambda status: group_state(status) == state


def failed_with(reason: str) -> Callable[[Json], bool]:
    return lambda status: status["groups"].get("offload", {}).get("reason") == reason


WISHED: Final = (True, 4, ("demotion", "damon"))
STORES: Final = [
    pytest.param(nth, when, id=f"{when} store {nth}") for nth in (1, 2, 3) for when in (When.BEFORE, When.AFTER)
]
"""Of three knobs: channels, reasons, and the switch last when turning on, first when turning off."""


# --- killed between any two steps --------------------------------------------------------------------------------


@pytest.mark.parametrize(("nth", "when"), STORES)
def test_an_agent_killed_while_turning_on_ends_at_the_wish_and_restores_the_baseline(
    node: NodeUnderTest, nth: int, when: When
) -> None:
    """Promises 1, 4 and 7: what was before is safe before the first store, so the next agent finishes the work."""
    before = knobs(node.host.snapshot())
    node.host.do(CloseGate(Gate(nth=nth, when=when)))
    node.push(**WISH)
    kill_at_gate(node)

    node.start()

    node.until(is_("Ready"))
    assert knobs(node.host.snapshot()) == WISHED
    node.push(**RESTORE)
    node.until(is_("Restored"))
    assert knobs(node.host.snapshot()) == before


@pytest.mark.parametrize(("nth", "when"), STORES)
def test_a_wish_that_ended_while_its_agent_was_dead_half_way_is_restored(
    node: NodeUnderTest, nth: int, when: When
) -> None:
    """Promises 1, 4 and 7."""
    before = knobs(node.host.snapshot())
    node.host.do(CloseGate(Gate(nth=nth, when=when)))
    node.push(**WISH)
    kill_at_gate(node)

    node.push(**RESTORE)
    node.start()

    node.until(is_("Restored"))
    assert knobs(node.host.snapshot()) == before


@pytest.mark.parametrize(("nth", "when"), STORES)
def test_an_agent_killed_while_restoring_ends_at_the_baseline(node: NodeUnderTest, nth: int, when: When) -> None:
    """Promises 1, 4 and 7: a baseline goes only when it was put back."""
    before = knobs(node.host.snapshot())
    node.push(**WISH)
    node.until(is_("Ready"))
    node.host.do(CloseGate(Gate(nth=nth, when=when)))
    node.push(**RESTORE)
    kill_at_gate(node)

    node.start()

    node.until(is_("Restored"))
    assert knobs(node.host.snapshot()) == before


# --- refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        pytest.param(HostConfig(other_migrator=True), "MigratorBusy", id="EBUSY: another migrator is registered"),
        pytest.param(HostConfig(channels_max=1), "InvalidValue", id="EINVAL: a driver that takes one channel only"),
        pytest.param(HostConfig(read_only=True), "ReadOnlyFileSystem", id="EROFS: /sys is mounted read-only"),
    ],
)
def test_a_store_that_is_refused_is_named_and_leaves_the_node_as_it_was(
    node_on: NodeOn, config: HostConfig, reason: str
) -> None:
    """Promises 4 and 11."""
    node = node_on(config)
    before = knobs(node.host.snapshot())

    node.push(**WISH)

    status = node.until(failed_with(reason))
    assert group_state(status) == "Failed"
    assert knobs(node.host.snapshot()) == before


@pytest.mark.parametrize("file", ["nr_dma_chan", "reason_mask", "offloading"])
def test_a_file_that_may_not_be_written_is_named_and_the_node_left_as_it_was(node: NodeUnderTest, file: str) -> None:
    """Promises 4 and 11; 0444 refuses even root at the open, EACCES."""
    before = knobs(node.host.snapshot())
    node.host.path(f"{PARAMETERS}/{file}").chmod(0o444)

    node.push(**WISH)

    status = node.until(failed_with("PermissionDenied"))
    assert (group_state(status), knobs(node.host.snapshot())) == ("Failed", before)


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_driver_unloaded_between_two_stores_is_told_and_served_when_it_is_back(node: NodeUnderTest, nth: int) -> None:
    """Promises 2 and 11: nothing is created, and a driver that is not there is no failure of the node."""
    node.host.do(CloseGate(Gate(nth=nth)))
    node.push(**WISH)
    node.host.await_held()

    node.host.do(Unload())
    node.host.do(OpenGate())

    node.until(failed_with("NotLoaded"))
    assert not node.host.path("/sys/module/dcbm").exists()
    node.host.do(Load())
    node.until(is_("Ready"))
    assert knobs(node.host.snapshot()) == WISHED


# --- blocked -----------------------------------------------------------------------------------------------------


@pytest.fixture
def blocked(node_on: NodeOn) -> NodeUnderTest:
    """A node whose agent turns offload off while a batch is in flight for 20 s."""
    node = node_on(HostConfig(engines=(STALLS,)))
    node.push(**WISH)
    node.until(is_("Ready"))
    node.host.do(Migrate(Workload(MigrationReason.DAMON, 0), 475))
    node.push(**RESTORE)
    node.host.do(AwaitBlocked(OFFLOADING))
    return node


def await_main_thread(process: subprocess.Popen[bytes], seconds_max: float) -> None:
    """Return when a process has ended but for threads that the kernel keeps: its leader is a zombie then."""
    deadline = time.monotonic() + seconds_max
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline, f"the main thread has not ended within {seconds_max:g} s"


def test_an_agent_stops_at_once_while_the_kernel_keeps_its_turn_off(blocked: NodeUnderTest) -> None:
    """Promises 6 and 10: nobody waits for a call that may take 10 s per channel, and stopping changes no knob."""
    before = writes(blocked)
    assert blocked.agent is not None

    blocked.agent.terminate()

    await_main_thread(blocked.agent, EXIT_SECONDS_MAX)
    assert writes(blocked) == before
    blocked.host.do(EndBatches())
    assert blocked.agent.wait(30) == 0
    assert writes(blocked) == before
    assert not blocked.host.snapshot().offloading


def test_a_blocked_turn_off_is_told_and_reports_go_on(blocked: NodeUnderTest) -> None:
    """Promise 10."""
    told = blocked.until(failed_with("KernelFileBlocked"))
    assert OFFLOADING in told["groups"]["offload"]["message"]

    for _ in range(2):
        told = blocked.until(lambda status, last=told["reportedAt"]: status["reportedAt"] > last)  # type: ignore[misc]

    assert failed_with("KernelFileBlocked")(told)


def test_a_wish_that_comes_while_a_turn_off_is_blocked_is_seen_at_once_and_carried_out_after_it(
    blocked: NodeUnderTest, agent_log: Path
) -> None:
    """Promise 10: the watch goes on."""
    blocked.push(**RESTORE, demotion=wish({"enabled": True}))

    poll(lambda: "spec seen generation=3" in agent_log.read_text(), "the spec in the agent's log")
    assert not blocked.host.snapshot().demotion_enabled
    blocked.host.do(EndBatches())
    blocked.until(lambda status: is_("Restored")(status) and group_state(status, "demotion") == "Ready")
    assert knobs(blocked.host.snapshot())[:2] == (False, 1)
    assert blocked.host.snapshot().demotion_enabled


def test_an_agent_killed_while_its_turn_off_is_blocked_is_followed_by_one_that_finishes_it(
    blocked: NodeUnderTest,
) -> None:
    """Promises 7 and 10: the store goes on to its end in the kernel; the next agent restores the rest."""
    killed = blocked.agent
    assert killed is not None
    killed.kill()
    await_main_thread(killed, EXIT_SECONDS_MAX)

    blocked.start()
    blocked.host.do(EndBatches())
    killed.wait()

    blocked.until(is_("Restored"))
    assert knobs(blocked.host.snapshot())[:2] == (False, 1)


# --- an engine on trial -------------------------------------------------------------------------------------------


def test_an_engine_that_hangs_in_its_trial_is_turned_off_and_named(node_on: NodeOn) -> None:
    """Promises 15 and 16: the agent gives up after two seconds; the write that turns the engine off waits with us."""
    node = node_on(HostConfig(engines=(STALLS,)), "tests.twin")
    node.push(offload=wish(OFFLOAD, verification="FirstUse", acceptedRisks=[]))

    node.host.do(AwaitBlocked(OFFLOADING))
    node.host.do(EndBatches())

    assert node.until(failed_with("EngineStalled"))
    assert not node.host.snapshot().offloading


# --- an engine that is not sound ---------------------------------------------------------------------------------

NO_SERVER: Final = "--api-server=https://127.0.0.1:1"
"""Nobody listens there."""


def test_an_agent_restarted_without_an_api_server_turns_a_hung_engine_off_and_tells_it_later(node_on: NodeOn) -> None:
    """Promises 10 and 16: the host's tmpfs has all that the watch needs, and nobody waits for the turn-off."""
    node = node_on(HostConfig(engines=(STALLS,)))
    node.push(**WISH)
    node.until(is_("Ready"))
    node.stop()
    node.start(NO_SERVER)

    node.host.do(Migrate(Workload(MigrationReason.DAMON, 0), 475))
    node.host.do(AwaitBlocked(OFFLOADING))

    assert writes(node)[-1] == ("offloading", "0")
    assert node.agent is not None
    node.agent.terminate()
    await_main_thread(node.agent, EXIT_SECONDS_MAX)
    node.host.do(EndBatches())
    node.agent.wait()
    assert not node.host.snapshot().offloading
    node.start()
    assert group_state(node.until(failed_with("EngineStalled"))) == "Failed"


def test_an_engine_that_fails_is_turned_off_and_told_with_its_numbers(node_on: NodeOn) -> None:
    """Promise 16."""
    node = node_on(HostConfig(engines=(DmaEngine("ptdma", channels=4, error_share=1.0),)))
    node.push(**WISH)
    node.until(is_("Ready"))

    node.host.do(Migrate(Workload(MigrationReason.DAMON, 0), 2000))

    status = node.until(lambda status: failed_with("EngineFailing")(status) and status["offload"] == "Off")
    assert "2000 of 2000 folios failed" in status["groups"]["offload"]["message"]
    assert not node.host.snapshot().offloading
