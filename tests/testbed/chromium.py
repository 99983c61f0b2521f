# SPDX-License-Identifier: Apache-2.0
"""Finds Chromium, and fetches it once when the machine has none: ``find_chromium(Progress())``.

1. On PATH.
2. Our cache, beside the servers of the test bed. What is missing there comes out of Debian's package ``chromium`` and
   those that it needs and this machine has not, whose signatures apt checks. They are unpacked and not installed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from tests.testbed.binaries import cache_folder, only_one, run_step
from tests.testbed.cache import free_mib, require_room
from tests.testbed.errors import MissingNeedError
from tests.testbed.progress import Progress

NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
PROGRAM: Final = "usr/lib/chromium/chromium"
REMEDY: Final = "install Chromium on PATH"
NEEDED_MIB: Final = 900  # the packages, and what is in them
FETCH: Final = (
    'needed() { apt-get install --simulate --no-install-recommends chromium | sed -n "s/^Inst \\([^ ]*\\).*/\\1/p"; };'
    ' get() { names=$(needed); test -n "$names" && apt-get download $names; };'
    " get || { apt-get update -qq && get; };"
    " for package in *.deb; do dpkg-deb --extract $package unpacked; rm $package; done"
)


class Chromium(NamedTuple):
    """The program, and where libraries lie that came with it."""

    program: Path
    libraries: tuple[Path, ...] = ()

    def environment(self, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
        """Return the variables to start it with."""
        if not self.libraries:
            return dict(environ)
        return {**environ, "LD_LIBRARY_PATH": os.pathsep.join(map(str, self.libraries))}


def find_chromium(progress: Progress, environ: Mapping[str, str] = os.environ) -> Chromium:
    """Return a browser that can be run.

    Raises:
        MissingNeedError: it is not there, and cannot be fetched; says what to do.
    """
    on_path = (shutil.which(name, path=environ.get("PATH")) for name in NAMES)
    found = next(filter(None, on_path), None)
    return Chromium(Path(found)) if found else _cached_or_fetched(progress, environ)


def _cached_or_fetched(progress: Progress, environ: Mapping[str, str]) -> Chromium:
    cache = cache_folder(environ)
    folder = cache / "chromium"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with only_one(cache / "chromium.lock", progress):
            if not (folder / PROGRAM).exists():
                _fetch(folder, progress, environ)
    except OSError as error:
        raise MissingNeedError(f"cannot keep Chromium in {cache}: {error}; make room or {REMEDY}") from error
    return Chromium(
        folder / PROGRAM, tuple(sorted({path.parent for path in (folder / "usr/lib").glob("*-linux-gnu/**/*.so*")}))
    )


def _fetch(folder: Path, progress: Progress, environ: Mapping[str, str]) -> None:
    require_room(folder.parent, NEEDED_MIB, free_mib(folder.parent))
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".chromium.") as scratch:
        run_step(
            "fetching Chromium, since there is none on PATH",
            ["sh", "-ec", FETCH],
            folder.parent / "chromium.log",
            progress,
            hint="120 MB, once",
            remedy=REMEDY,
            env=dict(environ),
            cwd=Path(scratch),
        )
        shutil.rmtree(folder, ignore_errors=True)
        (Path(scratch) / "unpacked").rename(folder)
