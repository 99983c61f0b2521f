# SPDX-License-Identifier: Apache-2.0
"""Which DMA engines the kernel has, and which of them the batch copy driver can use.

* No file tells what a channel can do, and ``/sys/class/dma`` also lists engines that only serve a UART or SPI. So
  drivers are known by name; one that is not in the table does not count as usable.
* ``in_use`` is not looked at: the driver requests channels around each batch, so a count taken now says little about
  the next batch. Channels that another client holds are therefore counted here and lacking later.
* The kernel takes channels in its own order, so a hazardous engine counts although a better one stands beside it.
* A channel that went and came back has the same name and another folder, so its inode number tells (fs/kernfs/dir.c).
* The sdxi driver's engines are shared, and their ring overflows with more than 512 folios at once; only the state of
  the series that was made for them (V6-SDXI) looks after that.

Sources: drivers/dma/dmaengine.c; drivers/dma/{amd/ptdma,amd/ae4dma,ioat,idxd}; the SDXI series of 2025-09 (RFC).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from typing import Final, NamedTuple

from numamigration_agent.kernel.sysfs import Present, Sysfs
from numamigration_api.machinery.records import dataclass
from numamigration_api.vocabulary import Dialect

DMA_CLASS_DIR: Final = "/sys/class/dma"
ENGINES_MAX: Final = 16  # rows in status; 8 sockets with 2 drivers each

CHANNEL_NAME: Final = re.compile(r"(dma[0-9]+)chan[0-9]+")
_NUMA_NODES: Final = range(-1, 1024)  # MAX_NUMNODES is 1024 at most; -1: the device belongs to none


class DmaDriver(NamedTuple):
    """What is known of a driver whose engines copy memory.

    Attributes:
        only: the dialects that can use them; None: every one with DMA.
        obstacle: why not the others.
    """

    exclusive: bool
    in_order: bool = True
    only: frozenset[Dialect] | None = None
    obstacle: str = ""


DMA_DRIVERS: Final = {
    "ptdma": DmaDriver(exclusive=True),
    "ae4dma": DmaDriver(exclusive=True),
    "idxd": DmaDriver(exclusive=True, in_order=False),
    "ioatdma": DmaDriver(exclusive=False),
    "sdxi": DmaDriver(
        exclusive=False,
        only=frozenset({Dialect.V6_SDXI}),
        obstacle="sdxi is no exclusive engine, and its ring can overflow and hang",
    ),
}


@dataclass(frozen=True, slots=True)
class DmaEngines:
    """All channels of one driver on one NUMA node.

    Attributes:
        numa_node: None: the device does not say where it is.
        obstacle: why the batch copy driver cannot use them; empty when it can.
        life: tells these channels from others, also from those that had their names before.
    """

    driver: str
    numa_node: int | None
    channels: int
    obstacle: str = ""
    life: int = 0

    @property
    def usable(self) -> bool:
        """Whether the batch copy driver can use them, hazards aside."""
        return not self.obstacle


def copying_drivers(engines: Iterable[DmaEngines]) -> frozenset[str]:
    """Return the drivers among them that copy memory."""
    return frozenset(row.driver for row in engines if row.driver in DMA_DRIVERS)


def obstacle_of(driver: str, dialect: Dialect) -> str:
    """Say why a dialect cannot use a driver's engines; empty when it can."""
    known = DMA_DRIVERS.get(driver)
    if known is None:
        return "not known to copy memory"
    return "" if known.only is None or dialect in known.only else known.obstacle


def find_engines(sysfs: Sysfs) -> tuple[DmaEngines, ...]:
    """Find the DMA channels, counted by driver and NUMA node.

    Channels of one number are of one device (drivers/dma/dmaengine.c, __dma_async_device_channel_register), so one of
    them tells for all.
    """
    found: dict[tuple[str, int | None], list[str]] = {}
    devices: dict[str, tuple[str, int | None]] = {}
    for name in sysfs.names(DMA_CLASS_DIR):
        if channel := CHANNEL_NAME.fullmatch(name):
            device = channel[1]
            if device not in devices:
                devices[device] = _driver_and_place(sysfs, f"{DMA_CLASS_DIR}/{name}/device")
            found.setdefault(devices[device], []).append(name)
    rows = sorted(found.items(), key=lambda row: (row[0][0], -1 if row[0][1] is None else row[0][1]))
    return tuple(DmaEngines(*where, len(names), life=_life(sysfs, names)) for where, names in rows)


def _life(sysfs: Sysfs, channels: Iterable[str]) -> int:
    lives = (f"{name} {sysfs.life(f'{DMA_CLASS_DIR}/{name}')}" for name in channels)
    return zlib.crc32("\n".join(lives).encode())


def _driver_and_place(sysfs: Sysfs, device: str) -> tuple[str, int | None]:
    driver = sysfs.link_name(f"{device}/driver") or "unknown"
    reading = sysfs.read(f"{device}/numa_node")
    return driver, parse_numa_node(reading.text) if isinstance(reading, Present) else None


def parse_numa_node(text: str) -> int | None:
    """Return the NUMA node that a device says; None for anything else."""
    stripped = text.removesuffix("\n")
    number = int(stripped) if re.fullmatch(r"-?[0-9]{1,4}", stripped) else None
    return number if number in _NUMA_NODES else None
