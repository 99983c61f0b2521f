# SPDX-License-Identifier: Apache-2.0
"""Which kernel the guest runs: Debian's, or the one that environment variables name.

``make test-kernel KERNEL=bzImage INITRD=initrd DCBM=real`` sets them; docs/testing-on-your-kernel.md explains them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from tests.testbed.errors import MissingNeedError

KERNEL: Final = "GUEST_KERNEL"
INITRD: Final = "GUEST_INITRD"
MODULES: Final = "GUEST_MODULES"
DCBM: Final = "GUEST_DCBM"
LOAD: Final = "GUEST_LOAD"
BOOT_SECONDS: Final = "GUEST_BOOT_SECONDS"

BOOT_SECONDS_DEFAULT: Final = 100.0
"""From QEMU's start to the runner's hello: 9 to 15 s on two cores. Below pytest's time-out, whose message is poorer."""

OURS: Final = "ours"
REAL: Final = "real"


class Choice(NamedTuple):
    """What the guest shall run.

    Attributes:
        kernel: an image to boot; None means Debian's.
        initrd: loads what the kernel does not have built in, and honors ``root=`` and ``init=``; None means ours.
        modules: folder that holds ``lib/modules/RELEASE`` of `kernel`, for our initramfs.
        dcbm: ``ours``: our module stands in for the driver; ``real``: the kernel carries the series itself.
        boot_seconds: deadline of a boot.
        load: names of modules in `modules` that our initramfs loads as well, in that order.
    """

    kernel: Path | None
    initrd: Path | None
    modules: Path | None
    dcbm: str
    boot_seconds: float = BOOT_SECONDS_DEFAULT
    load: tuple[str, ...] = ()

    @property
    def has_switches(self) -> bool:
        """Whether tests may ask our module to fail, hang or corrupt."""
        return self.dcbm == OURS


def read_choice(environ: Mapping[str, str]) -> Choice:
    """Return what the variables ask for; an empty one counts as absent.

    Raises:
        MissingNeedError: a file is not there, or the variables contradict each other.
    """
    kernel, initrd, modules = (_path(environ, name) for name in (KERNEL, INITRD, MODULES))
    dcbm = environ.get(DCBM) or OURS
    if dcbm not in {OURS, REAL}:
        raise MissingNeedError(f"{DCBM}={dcbm}: 'real' (the kernel's own driver) or 'ours' (our module)")
    if (initrd or modules) and not kernel:
        raise MissingNeedError(f"{INITRD} and {MODULES} belong to a kernel: set {KERNEL} as well")
    if initrd and modules:
        raise MissingNeedError(f"{INITRD} and {MODULES} exclude each other: the initrd brings its own modules")
    if bool(kernel) != (dcbm == REAL):
        raise MissingNeedError(
            f"{KERNEL} and {DCBM}=real belong together: our module is built for Debian's kernel only"
        )
    load = tuple(environ.get(LOAD, "").split())
    if load and not modules:
        raise MissingNeedError(f"{LOAD} names modules of {MODULES}: set that as well")
    return Choice(kernel, initrd, modules, dcbm, _seconds(environ), load)


def _path(environ: Mapping[str, str], name: str) -> Path | None:
    text = environ.get(name)
    if not text:
        return None
    path = Path(text).absolute()
    if not path.exists():
        raise MissingNeedError(f"{name}={text}: no such file or folder")
    return path


def _seconds(environ: Mapping[str, str]) -> float:
    text = environ.get(BOOT_SECONDS) or str(BOOT_SECONDS_DEFAULT)
    try:
        return float(text)
    except ValueError:
        raise MissingNeedError(f"{BOOT_SECONDS}={text}: a number of seconds") from None
