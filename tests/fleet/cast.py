# SPDX-License-Identifier: Apache-2.0
"""Who is in a fleet: parts of equal nodes, as plain data that also travels as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final, NamedTuple

from msgspec import Meta, Struct, structs

from numamigration_agent.events import Timing
from numamigration_api.vocabulary import Dialect, MigrationReason
from tests.fakekernel.config import DmaEngine, HostConfig, Share, Workload

ZONE: Final = "topology.kubernetes.io/zone"
SDXI: Final = tuple(DmaEngine("sdxi", numa_node=node, public=True) for node in (0, 1))
BUSY: Final = (Workload(MigrationReason.SYSCALL_OR_CPUSET, folios_per_second=20_000),)


class Strain(Struct, frozen=True, forbid_unknown_fields=True):
    """From so many channels on, engines of this kind end a share of their batches with an error."""

    channels: Annotated[int, Meta(ge=1)]
    error_share: Share


class Part(Struct, frozen=True, forbid_unknown_fields=True):
    """Nodes of one kind, named ``<prefix>-000`` and so on, dealt out to the zones in turn."""

    prefix: str
    count: Annotated[int, Meta(ge=1)]
    kernel: HostConfig = HostConfig(workloads=BUSY)
    zones: tuple[str, ...] = ("zone-a",)
    labels: dict[str, str] = {}
    strain: Strain | None = None

    def member(self, number: int) -> Member:
        """Return one of its nodes."""
        zone = self.zones[number % len(self.zones)]
        return Member(f"{self.prefix}-{number:03d}", {**self.labels, ZONE: zone}, self)


class Member(NamedTuple):
    """One node."""

    name: str
    labels: dict[str, str]
    part: Part


class Pace(Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of every agent, in seconds; defaults as in ``docs/settings-agent.md``."""

    report_min: float = 300.0
    report_max: float = 600.0
    drift_check: float = 15.0
    statistics_window: float = 60.0
    start_jitter: float = 10.0

    @property
    def timing(self) -> Timing:
        """What the agent's machine has of it."""
        return Timing(self.report_min, self.report_max, self.drift_check, self.statistics_window)


DEFAULTS: Final = Pace()


def parts_of(nodes: int, dialects: Iterable[Dialect], zones: int) -> list[Part]:
    """Return as many nodes, spread evenly over dialects and zones, each with something that migrates."""
    kinds, names = list(dialects), tuple(f"zone-{chr(ord('a') + number)}" for number in range(zones))
    counts = [len(range(place, nodes, len(kinds))) for place in range(len(kinds))]
    return [
        Part(kind.lower(), count, structs.replace(kernel_of(kind), workloads=BUSY), names)
        for kind, count in zip(kinds, counts, strict=True)
        if count
    ]


def kernel_of(dialect: Dialect) -> HostConfig:
    """Return a host as it boots, with the engines that its dialect goes with."""
    if dialect is Dialect.NO_SERIES:
        return HostConfig(dialect=dialect, engines=())
    return HostConfig(dialect=dialect, engines=SDXI) if dialect is Dialect.V6_SDXI else HostConfig(dialect=dialect)
