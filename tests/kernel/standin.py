# SPDX-License-Identifier: Apache-2.0
"""A stand-in for a kernel that brings the driver itself: Debian's, and an initrd that has loaded ours before anything
else runs. So that ``make test-kernel … DCBM=real`` is shown to work where there is no kernel with the series.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from tests.kernel import drivers, image, packages
from tests.kernel.needs import find_program
from tests.testbed.progress import Progress


def make(folder: Path, revision: str, progress: Progress, environ: Mapping[str, str] = os.environ) -> tuple[Path, Path]:
    """Write an initrd to a folder; return the kernel's image and the initrd.

    Args:
        folder: is made.
        revision: of the driver, ``v5`` or ``v6``.
        progress: tells what takes time.
        environ: where the cache and programs are.
    """
    kernel = packages.debian_kernel(progress, environ)
    modules = drivers.build(kernel, progress, environ)
    assert kernel.tree is not None, "Debian's has its modules"
    loaded = [
        *image.module_files(kernel.tree, kernel.release, environ),
        modules / "softdma/softdma.ko",
        modules / revision / "dcbm.ko",
    ]
    folder.mkdir(parents=True, exist_ok=True)
    initrd = folder / f"initrd-{revision}.gz"
    busybox = Path(find_program("busybox", environ))
    initrd.write_bytes(image.pack(image.initramfs_content(busybox, loaded), environ))
    return kernel.image, initrd
