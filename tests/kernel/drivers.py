# SPDX-License-Identifier: Apache-2.0
"""Our kernel modules, built for one kernel and cached by their source and that kernel.

The sources' own Makefile builds them, in a copy, so that the tree stays clean. The guest finds the modules below
``/mnt/exchange/modules``, each at the place that its source has in ``module/``.

Source: Documentation/kbuild/modules.rst.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.kernel import store
from tests.kernel.needs import find_program, untranslated
from tests.kernel.packages import Kernel
from tests.testbed import cache
from tests.testbed.binaries import run_step
from tests.testbed.errors import MissingNeedError
from tests.testbed.progress import Progress

SOURCES: Final = Path(__file__).with_name("module")
SUFFIXES: Final = frozenset({".c", ".h", ".kbuild"})
NAMES: Final = frozenset({"Kbuild", "Makefile"})
BUILD_MIB: Final = 50


def build(
    kernel: Kernel, progress: Progress, environ: Mapping[str, str] = os.environ, *, sources: Path = SOURCES
) -> Path:
    """Return the folder with the modules; the first call for a source and a kernel takes seconds.

    Raises:
        MissingNeedError: no headers, no compiler, or it does not build; has the compiler's last lines.
    """
    if kernel.build is None:
        raise MissingNeedError(f"{kernel.image}: without its headers none of our modules can be built")
    files = source_files(sources)
    if not files:
        raise MissingNeedError(f"{sources} has no sources of kernel modules")
    made_of = [part for name, content in files.items() for part in (name, content)]
    target = store.folder(environ) / f"modules-{kernel.release}-{cache.key(str(kernel.build), *made_of)}"

    def make(half_done: Path) -> None:
        work = half_done.with_name(f"{half_done.name}.build")
        try:
            _compile(kernel.build, files, work, progress, environ)
            _take(work, half_done)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    return cache.made_once(target, make, needed_mib=BUILD_MIB, progress=progress)


def source_files(folder: Path) -> dict[str, bytes]:
    """Return what the modules are made from, by path."""
    paths = (path for path in sorted(folder.rglob("*")) if path.suffix in SUFFIXES or path.name in NAMES)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if not path.name.endswith(".mod.c")}


def _compile(
    headers: Path | None, files: Mapping[str, bytes], work: Path, progress: Progress, environ: Mapping[str, str]
) -> None:
    for name, content in files.items():
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    find_program("x86_64-linux-gnu-gcc-12", environ)  # named here, rather than by make's error 127
    log = work.with_suffix(".log")
    run_step(
        "building our kernel modules",
        [find_program("make", environ), "-C", str(work), f"KDIR={headers}", "modules"],
        log,
        progress,
        hint="once for each kernel and source, seconds",
        remedy="see the compiler's message",
        env=untranslated(environ),
    )
    log.unlink()


def _take(work: Path, target: Path) -> None:
    modules = list(work.rglob("*.ko"))
    if not modules:
        raise MissingNeedError(f"{SOURCES}: its Makefile has built no module")
    for module in modules:
        place = target / module.relative_to(work)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(module, place)
