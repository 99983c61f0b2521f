# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.demo.hazards``: five nodes whose engine no counter warns of; exit codes as the other demo has.

Each node has one policy of its own, all with the same settings, so that `kubectl get` and the Events tell them apart.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import Final, NamedTuple

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from numamigration_api.vocabulary import Dialect, MigrationReason, Reason
from tests.demo import screen as s
from tests.demo.play import Json, Play, perform
from tests.demo.stage import STATES, NodePart
from tests.fakekernel.config import DmaEngine, HostConfig, Workload
from tests.fakekernel.control import SetEngines

QUIET: Final = (Workload(MigrationReason.SYSCALL_OR_CPUSET, folios_per_second=512),)
SOUND: Final = (DmaEngine("ptdma", numa_node=0), DmaEngine("ptdma", numa_node=1))
TAKEN: Final = tuple(DmaEngine("ptdma", numa_node=node, taken=1) for node in (0, 1))
HUNG: Final = tuple(DmaEngine("ptdma", numa_node=node, hangs=True) for node in (0, 1))
LYING: Final = tuple(DmaEngine("ae4dma", numa_node=node, wrong_share=1.0) for node in (0, 1))
"""Of another driver: a class in which one engine lies is turned on nowhere, and the other nodes have sound ones."""


class Hazard(NamedTuple):
    """One node: what is wrong with it from the start, what goes wrong later, and what must be said then."""

    name: str
    what: str
    kernel: HostConfig
    reason: Reason
    later: tuple[SetEngines, ...] = ()


HAZARDS: Final = (
    Hazard(
        "corrupts",
        "its engine reports success and copies nothing",
        HostConfig(engines=LYING, workloads=QUIET),
        Reason.CORRUPTION_DETECTED,
    ),
    Hazard(
        "loses-writes",
        "kernel of April 2026 (V5), and the policy does not accept its risk",
        HostConfig(dialect=Dialect.V5, engines=SOUND, workloads=QUIET),
        Reason.RISK_NOT_ACCEPTED,
    ),
    Hazard(
        "hangs",
        "its engine is sound at first, and then never completes",
        HostConfig(engines=SOUND, workloads=QUIET),
        Reason.ENGINE_STALLED,
        (SetEngines(HUNG),),
    ),
    Hazard(
        "vanishes",
        "the driver of its engines is unloaded while offload is on",
        HostConfig(engines=SOUND, workloads=QUIET),
        Reason.NO_DMA_CHANNEL,
        (SetEngines(()),),
    ),
    Hazard(
        "taken",
        "another client of the kernel takes its channels (as dmatest does)",
        HostConfig(engines=SOUND, workloads=QUIET),
        Reason.CHANNELS_EXHAUSTED,
        (SetEngines(TAKEN),),
    ),
)
SECONDS: Final = {Reason.NO_DMA_CHANNEL: 1, Reason.ENGINE_STALLED: 12, Reason.CHANNELS_EXHAUSTED: 40}
"""About when each is told; the last one is settled by own pages, which are sent once nothing has moved for 30 s."""
CAST: Final = tuple(NodePart(one.name, one.what, one.kernel, {"hazard": one.name}) for one in HAZARDS)


class Hazards(Play):
    """The scenes."""

    def picture(self) -> RenderableType:
        """Return what the nodes say, with the kernel's own word beside it."""
        table = Table(box=None, width=s.WIDTH, padding=(0, 1))
        for name in ("NODE", "KERNEL", "OFFLOADING", "READY", "REASON"):
            table.add_column(name, no_wrap=True)
        for state in self.stage.api.list_items(STATES):
            ready, name = s.ready_of(state), state["metadata"]["name"]
            kernel, offloading = state.get("status", {}).get("dialect", ""), self.offloading(name)
            table.add_row(name, kernel, offloading, s.styled(ready.get("status", "…")), ready.get("reason", ""))
        return table

    def offloading(self, node: str) -> str:
        """Return what the kernel file says; reading it may wait for a turn-off that an engine holds up."""
        found = (self.file(node, f"sys/module/dcbm/{place}offloading") for place in ("parameters/", ""))
        return next((text for text in found if text != "-"), "-")

    def says(self, policy: str, reason: Reason) -> bool:
        """Whether that is the reason of a policy's Ready condition."""
        return s.ready_of(self.policy(policy)).get("reason") == reason

    def apply(self) -> None:
        """What is wrong from the start never gets on; the rest is tested with pages of the agent's own and goes on."""
        self.screen.heading(1, "The same policy for five nodes; no hazard is accepted")
        for part in self.stage.cast:
            self.screen.say(f"   {part.name}: {part.what}")
        self.kubectl("apply", "-f", "tests/demo/hazards.yaml")
        expected = {one.name: Reason.AS_EXPECTED if one.later else one.reason for one in HAZARDS}
        self.wait(
            "two engines are kept off, three have copied test pages right and are on",
            lambda: all(self.says(name, reason) for name, reason in expected.items()),
        )

    def go_wrong(self) -> None:
        """What goes wrong later is found by the node itself."""
        self.screen.heading(2, "Now three engines go wrong")
        later = [one for one in HAZARDS if one.later]
        for one in later:
            self.screen.say(f"   {one.name}: {one.what}")
            for command in one.later:
                self.stage.hosts[one.name].do(command)
        for one in sorted(later, key=lambda one: SECONDS[one.reason]):
            self.wait(f"{one.name}: {one.reason}", partial(self.says, one.name, one.reason))

    def tell(self) -> None:
        """What an SRE sees."""
        self.screen.heading(3, "What kubectl shows, and what the Events say")
        self.kubectl("get", "migpol")
        self.kubectl("get", "nms")
        for one in HAZARDS:
            for event in self.events(one.name):
                self.screen.say(f"{event['type']:7} {one.name}: {event['reason']}", style="bold")
                self.screen.console.print(Text(f"  {event['note']}"))

    def events(self, policy: str) -> list[Json]:
        """Return the warnings about a policy, oldest first."""
        items = self.stage.api.list_items("/apis/events.k8s.io/v1/namespaces/default/events")
        about = [item for item in items if item.get("regarding", {}).get("name") == policy]
        return sorted((item for item in about if item["type"] == "Warning"), key=lambda item: str(item["eventTime"]))


def play(hazards: Hazards) -> None:
    """Play the scenes."""
    hazards.apply()
    hazards.go_wrong()
    hazards.tell()
    hazards.summary()


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; return the exit code."""
    argparse.ArgumentParser(
        prog="make demo-hazards", description="Show five hazards and what is said of each"
    ).parse_args(arguments)
    return perform(CAST, lambda stage, console: play(Hazards(stage, console)), "five fake kernels, five agents")


if __name__ == "__main__":
    sys.exit(main())
