# SPDX-License-Identifier: Apache-2.0
"""Signs of life of the DMA engines that answer whatever the batch copy driver does: which channels are held.

* Turning offload off keeps one lock for all parameters of the driver until every batch in flight is over, so its
  counters cannot be read then. ``/sys/class/dma`` belongs to another subsystem and answers at once.
* ``in_use`` counts the clients of a channel, not its work: another client (NTB, dmatest) shows as ours does.
* Some dialects take their channels when they are turned on and keep them; their rows say so, and ``in_use`` then tells
  nothing of a batch.
* A channel's driver is looked up only when the list of channels is another one than before: a sample each second would
  else follow one link for each channel.

Sources: drivers/dma/dmaengine.c (in_use); kernel/params.c (param_attr_show takes the module's param_lock); dcbm of the
June 2024 posting and of the public trees derived from the sixth one (channels that are kept).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from numamigration_agent.kernel.engines import CHANNEL_NAME, DMA_CLASS_DIR, obstacle_of
from numamigration_agent.kernel.sysfs import Present, Sysfs
from numamigration_api.vocabulary import Dialect

CHANNELS_READ_MAX: Final = 64
"""The driver takes at most 16 or 32, in dmaengine's order; a host with hundreds must not cost more than that."""


class Channels(NamedTuple):
    """What /sys/class/dma lists, and those channels of it that the batch copy driver can use."""

    names: tuple[str, ...] = ()
    usable: tuple[str, ...] = ()


class Signs(NamedTuple):
    """One sample: the channels there are, and the usable ones that somebody holds."""

    channels: Channels
    in_use: frozenset[str]


def read_signs(sysfs: Sysfs, known: Channels, dialect: Dialect) -> Signs:
    """Look which channels are in use; `known` is what the last sample had."""
    names = sysfs.names(DMA_CLASS_DIR)
    channels = known if names == known.names else Channels(names, _usable(sysfs, names, dialect))
    return Signs(channels, frozenset(name for name in channels.usable if _is_held(sysfs, name)))


def _usable(sysfs: Sysfs, names: tuple[str, ...], dialect: Dialect) -> tuple[str, ...]:
    found = (name for name in names if CHANNEL_NAME.fullmatch(name) and _can_copy(sysfs, name, dialect))
    return tuple(found)[:CHANNELS_READ_MAX]


def _can_copy(sysfs: Sysfs, name: str, dialect: Dialect) -> bool:
    driver = sysfs.link_name(f"{DMA_CLASS_DIR}/{name}/device/driver")
    return driver is not None and not obstacle_of(driver, dialect)


def _is_held(sysfs: Sysfs, name: str) -> bool:
    reading = sysfs.read(f"{DMA_CLASS_DIR}/{name}/in_use")
    return isinstance(reading, Present) and reading.text.strip() not in {"", "0"}
