# SPDX-License-Identifier: Apache-2.0
"""The kernel of a simulated node: what its settings groups hold, in one phrase each, and what is wrong with it.

Here is a model of three values; `machines` has the fake kernel that the agent's own tests use, for the nodes on which
the real agent runs.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, NamedTuple

from numamigration_api.machinery.profiles import profile_name

GROUPS: Final = ("offload", "balancing", "demotion")
AT_BOOT: Final[Mapping[str, str]] = {"offload": "Off", "balancing": "Normal", "demotion": "False"}


class Kind(NamedTuple):
    """A cell: nodes that are alike."""

    dialect: str
    hardware_class: str
    driver: str
    groups: frozenset[str]

    @property
    def profile(self) -> str:
        """The name of its profile."""
        return profile_name(self.dialect, self.hardware_class)


KINDS: Final = (
    Kind("V6", "epyc-2-ptdma-4", "ptdma", frozenset(GROUPS)),
    Kind("V3", "xeon-4-idxd-8", "idxd", frozenset(GROUPS)),
    Kind("NoSeries", "epyc-2-none", "", frozenset({"balancing", "demotion"})),
)


class KernelWrite(NamedTuple):
    """A kernel file was written, and held another value before."""

    at: float
    node: str
    boot_id: str
    group: str
    before: str
    after: str


def of_class(settings: Mapping[str, Any], profile: str) -> Mapping[str, Any]:
    """Return the settings of offload that a class has, by the name of its profile; empty: it is not touched."""
    if "profiles" not in settings:
        return settings
    named = next((one for one in settings["profiles"] if one["name"] == profile), None)
    if named is not None:
        return {name: value for name, value in named.items() if name != "name"}
    return {name: value for name, value in settings.items() if name != "profiles"} if "engine" in settings else {}


def phrase(group: str, settings: Mapping[str, Any], profile: str = "") -> str:
    """Return what a group holds once its settings are in force; empty: what it held before.

    Args:
        group: of settings.
        settings: of a wish.
        profile: the name of the class's profile.
    """
    settings = of_class(settings, profile) if group == "offload" else settings
    match group:
        case "offload" if "engine" not in settings:
            return ""
        case "offload" if settings["engine"] == "DMA":
            return f"DMA {settings.get('channels', 1)}"
        case "offload":
            return "Off"
        case "balancing":
            return str(settings["mode"])
        case _:
            return str(bool(settings["enabled"]))


@dataclass
class ModelKernel:
    """A kernel of three values.

    Attributes:
        refuses: writes fail.
        corrupts: the engine copies wrong bytes, which a trial finds.
        stalls: the engine moves nothing, which the agent's watch finds.
        fails: half of the engine's folios fail, which only numbers tell.
    """

    node: str
    kind: Kind
    rng: Random
    on_write: Callable[[KernelWrite], None]
    refuses: bool = False
    corrupts: bool = False
    stalls: bool = False
    fails: bool = False
    values: dict[str, str] = field(default_factory=dict)
    boot_id: str = ""

    def __post_init__(self) -> None:
        self.boot()

    def boot(self) -> None:
        """Start anew; every setting is lost."""
        self.boot_id = str(uuid.UUID(int=self.rng.getrandbits(128)))
        self.values = {group: AT_BOOT[group] for group in GROUPS if group in self.kind.groups}

    def heal(self) -> None:
        """Be right again."""
        self.refuses = self.corrupts = self.stalls = self.fails = False

    def spoil(self, trouble: str) -> None:
        """Let something be wrong from now on: the name of an attribute."""
        setattr(self, trouble, True)

    def write(self, group: str, text: str, now: float) -> bool:
        """Write a group; returns whether the kernel took it."""
        if self.refuses:
            return False
        before, self.values[group] = self.values[group], text
        if before != text:
            self.on_write(KernelWrite(now, self.node, self.boot_id, group, before, text))
        return True
