# SPDX-License-Identifier: Apache-2.0
"""Fixtures for tests of the agent in the guest: hands in there, the driver with its engine, and a node."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import pytest

from tests.apiserver.agent_process import group_state
from tests.kernel.dcbm import OFFLOAD, Driver, OwnDriver
from tests.kernel.guest import Guest
from tests.kernel.hands import Hands
from tests.kernel.node import GuestNode, install
from tests.kernel.session import SESSION
from tests.testbed.api import Json
from tests.testbed.controlplane import ControlPlane
from tests.unit.agent_rig import wish

QUIET: Final = {"/proc/sys/kernel/numa_balancing": "0", "/sys/kernel/mm/transparent_hugepage/enabled": "madvise"}
"""So that nobody migrates pages but who is told to, and a page is a folio unless it shall be a huge one."""


@pytest.fixture(scope="session")
def hands(guest: Guest) -> Iterator[Hands]:
    """A process in the guest, for the whole run."""
    hands = Hands.start(guest)
    for path, value in QUIET.items():
        hands.write(path, value)
    install(guest)
    yield hands
    hands.end_all()


@pytest.fixture(scope="session")
def drivers(guest: Guest, hands: Hands, pytestconfig: pytest.Config) -> dict[str, Driver]:
    """Both revisions; the engine is loaded, and none of them, unless the kernel brings one itself."""
    kind = Driver if pytestconfig.stash[SESSION].choice.has_switches else OwnDriver
    drivers: dict[str, Driver] = {name: kind(guest, hands, name) for name in ("v5", "v6")}
    drivers["v6"].unload_all()
    drivers["v6"].load_engine()
    return drivers


def _loaded(driver: Driver, hands: Hands) -> Iterator[Driver]:
    driver.load()
    yield driver
    driver.at_rest()
    driver.unload()
    assert hands.ask("splats") == []


@pytest.fixture
def v6(drivers: dict[str, Driver], hands: Hands) -> Iterator[Driver]:
    """The revision of June 2026, just loaded."""
    yield from _loaded(drivers["v6"], hands)


@pytest.fixture
def v5(drivers: dict[str, Driver], hands: Hands) -> Iterator[Driver]:
    """The revision of April 2026, just loaded."""
    yield from _loaded(drivers["v5"], hands)


@pytest.fixture
def node(
    guest: Guest,
    hands: Hands,  # noqa: ARG001 - the guest is calm, and the agent installed
    control_plane: ControlPlane,
    crds: tuple[str, ...],  # noqa: ARG001 - the kind must be there
    unique_name: Callable[[str], str],
) -> Iterator[GuestNode]:
    """The guest as a node whose agent is not started yet."""
    node = GuestNode(guest, control_plane, unique_name("guest"))
    node.push()
    yield node
    if node.agent is not None:
        print(node.kill().output)


class Rebooted(NamedTuple):
    """What stood before the reboot: the first boot's hello, a node with a wish that was in force, and on what."""

    hello: Json
    node: GuestNode
    driver: type[Driver]


@pytest.fixture(scope="session")
def rebooted(
    guest: Guest,
    drivers: dict[str, Driver],
    hands: Hands,
    control_plane: ControlPlane,
    crds: tuple[str, ...],  # noqa: ARG001 - the kind must be there
) -> Rebooted:
    """The one reboot of the run, for all tests that need it; those that need the first boot have run then."""
    assert guest.run(["touch", "/run/mine", "/mnt/exchange/ours"]).code == 0
    driver, node = drivers["v6"], GuestNode(guest, control_plane, "guest-rebooted")
    driver.load("nr_dma_chan=3")
    node.start()
    node.push(offload=wish(OFFLOAD))
    node.until(lambda status: group_state(status) == "Ready")
    found = Rebooted(guest.hello, node, type(driver))
    hands.end()
    guest.reboot()
    return found
