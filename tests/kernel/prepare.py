# SPDX-License-Identifier: Apache-2.0
"""Everything that one guest is made of, found or made, and the guest made of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from tests.kernel import drivers, image, packages
from tests.kernel.choice import Choice
from tests.kernel.guest import Guest
from tests.kernel.machine import GUEST_MIB, QEMU_MIB, Parts
from tests.kernel.needs import QEMU, find_program, require_memory
from tests.kernel.packages import Kernel
from tests.testbed.cache import free_mib, require_room
from tests.testbed.commands import ROOT
from tests.testbed.progress import Progress

SCRATCH_MIB: Final = 200
MEMINFO: Final = Path("/proc/meminfo")


def prepare(choice: Choice, progress: Progress, environ: Mapping[str, str] = os.environ) -> tuple[Parts, Path | None]:
    """Return the parts of the guest, and the folder of our modules; None where the kernel has the driver itself.

    Raises:
        MissingNeedError: the machine lacks something, in one line.
    """
    qemu = Path(find_program(QEMU, environ))
    require_memory(GUEST_MIB + QEMU_MIB, MEMINFO.read_text())
    scratch = Path(environ.get("TMPDIR") or "/var/tmp")  # where QEMU puts what the guest writes (snapshot=on)
    require_room(scratch, SCRATCH_MIB, free_mib(scratch))
    kernel = _kernel(choice, progress, environ)
    disk = image.root_disk(progress, environ)
    initrd = choice.initrd or (image.initramfs(kernel, progress, environ, load=choice.load) if kernel.tree else None)
    modules = drivers.build(kernel, progress, environ) if choice.has_switches else None
    return Parts(qemu, kernel.image, initrd, disk, ROOT), modules


def new_guest(choice: Choice, parts: Parts, modules: Path | None, folder: Path) -> Guest:
    """Return a guest that is not up yet, and finds our modules below ``/mnt/exchange/modules``."""
    guest = Guest(parts, folder, boot_seconds_max=choice.boot_seconds)
    guest.hand_over("guest", {"dcbm": choice.dcbm})
    # The table's rows are made of msgspec structs: the very package that this run has, of the hashed lock.
    guest.hand_folder(Path(msgspec.__file__).parent, "python/msgspec")
    if modules:
        guest.hand_folder(modules, "modules")
    return guest


def _kernel(choice: Choice, progress: Progress, environ: Mapping[str, str]) -> Kernel:
    if choice.kernel is None:
        return packages.debian_kernel(progress, environ)
    if choice.modules is None:
        return Kernel("", choice.kernel)
    return Kernel(image.only_release(choice.modules), choice.kernel, choice.modules)
