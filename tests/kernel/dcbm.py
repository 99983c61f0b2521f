# SPDX-License-Identifier: Apache-2.0
"""Our modules in the guest, from the host's side: loaded, unloaded, their files, switches and counts."""

from __future__ import annotations

from typing import Final

import pytest

from tests.kernel.choice import DCBM
from tests.kernel.guest import EXCHANGE, Guest
from tests.kernel.hands import Hands

MODULES: Final = EXCHANGE / "modules"
ENGINE: Final = "/sys/module/softdma/parameters"
COUNTS: Final = "/sys/kernel/debug/dcbm_test/reasons"
FOLDERS: Final = {"v5": "/sys/module/dcbm", "v6": "/sys/module/dcbm/parameters"}
OFFLOADING: Final = " ".join(f"{folder}/offloading" for folder in FOLDERS.values())
CHANNELS: Final = 4
AS_LOADED: Final = {"nr_dma_chan": "1", "reason_mask": "all"}
COUNTERS: Final = ("folios_migrated", "folios_failures")
"""Any write resets them."""
AT_REST: Final = {
    "hang": "N", "skip": "N", "corrupt": "N", "sysfs_counts": "N", "victim": "0", "batch_delay_ms": "0",
    "refuse_permille": "0", "no_channel": "N", "taken": "0", "channels": str(CHANNELS),
}  # fmt: skip


class Driver:
    """The batch copy driver and its DMA engine in the guest."""

    has_switches = True
    """Whether it counts by itself, and can be told to go wrong."""

    def __init__(self, guest: Guest, hands: Hands, revision: str = "v6") -> None:
        self._guest, self._hands = guest, hands
        self.revision = revision

    def load(self, *parameters: str) -> None:
        """Load the driver."""
        self._do("insmod", str(MODULES / self.revision / "dcbm.ko"), *parameters)

    def load_engine(self, *parameters: str) -> None:
        """Load the DMA engine."""
        self._do("insmod", str(MODULES / "softdma/softdma.ko"), *parameters)

    def unload(self, name: str = "dcbm") -> None:
        """Unload a module; offload has to be off."""
        self._do("rmmod", name)

    def unload_all(self) -> None:
        """Unload what other tests of this boot have left, whatever it was told last."""
        loaded = [line.split()[0] for line in self._hands.read("/proc/modules").splitlines()]
        for name in ("dcbm", "softdma"):
            if name in loaded:
                self._do("sh", "-c", f"for f in {OFFLOADING}; do if [ -e $f ]; then echo 0 >$f; fi; done")
                self.unload(name)

    def switch(self, **values: object) -> None:
        """Set switches of the engine."""
        for name, value in values.items():
            self._hands.write(f"{ENGINE}/{name}", value)

    def at_rest(self) -> None:
        """Let the engine work as it should, and offload be off."""
        self.switch(**AT_REST)
        self.write("offloading", 0)

    def path(self, name: str) -> str:
        """Return where a file of the driver is."""
        return f"{FOLDERS[self.revision]}/{name}"

    def read(self, name: str) -> str:
        """Return what a file of the driver says."""
        return self._hands.read(self.path(name))

    def write(self, name: str, value: object) -> None:
        """Write to a file of the driver, as anybody may."""
        self._hands.write(self.path(name), value)

    def knobs(self) -> dict[str, str]:
        """Return what all files say that an agent writes."""
        names = ["offloading", "nr_dma_chan", *(["reason_mask"] if self.revision == "v6" else [])]
        return {name: self.read(name) for name in names}

    def counts(self, reason: str) -> dict[str, int]:
        """Return the module's own count of one migration reason, and what the kernel's tracepoints said of it."""
        rows = (line.split() for line in self._hands.read(COUNTS).splitlines())
        parts = next(parts for name, *parts in rows if name == reason)
        return {name: int(number) for name, number in (part.split("=") for part in parts)}

    def copied(self) -> int:
        """Return how many copies the channels in /sys/class/dma say they have made."""
        return sum(int(self._hands.read(f"/sys/class/dma/dma0chan{n}/memcpy_count")) for n in range(CHANNELS))

    def _do(self, *command: str) -> None:
        done = self._guest.run(command)
        assert done.code == 0, f"{' '.join(command)}: {done.output}"


class OwnDriver(Driver):
    """The driver that the guest's kernel brings itself: there from the start, and told nothing but its knobs."""

    has_switches = False

    def load(self, *parameters: str) -> None:
        """Write its knobs as they are after a load; a test for another revision is skipped by name."""
        found = [name for name, folder in FOLDERS.items() if self._has(f"{folder}/offloading")]
        assert found, f"{DCBM}=real, but the kernel has no driver at any of {FOLDERS}"
        if self.revision not in found:
            pytest.skip(f"{DCBM}=real: the kernel's driver is {found[0].upper()}")
        self.write("offloading", 0)
        given = dict(parameter.split("=") for parameter in parameters)
        for name in set(self.knobs()) - {"offloading"}:
            self.write(name, {**AS_LOADED, **given}[name])
        for name in COUNTERS:
            self.write(name, 0)

    def load_engine(self, *parameters: str) -> None:
        """Take the engine that is there."""

    def unload(self, name: str = "dcbm") -> None:
        """Leave it."""

    def unload_all(self) -> None:
        """Leave what is there: a reboot would be needed to have it back."""

    def counts(self, reason: str) -> dict[str, int]:  # noqa: ARG002 - as our module's
        """Return nothing: our module alone counts by reason."""
        return {}

    def copied(self) -> int:
        """Return 0: most engines count nothing here (drivers/dma/: the core only adds up)."""
        return 0

    def switch(self, **values: object) -> None:
        """Refuse.

        Raises:
            AssertionError: always; a test that needs it carries the mark ``needs_switches``.
        """
        raise AssertionError(f"no driver but ours can be told {values}")

    def at_rest(self) -> None:
        """Let offload be off."""
        self.write("offloading", 0)

    def _has(self, path: str) -> bool:
        return self._guest.run(["test", "-e", path]).code == 0


OFFLOAD: Final = {"engine": "DMA", "channels": CHANNELS, "reasons": ["syscall_or_cpuset", "mempolicy_mbind"]}
"""A wish whose migrations a program can cause."""
