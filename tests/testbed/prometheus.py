# SPDX-License-Identifier: Apache-2.0
"""Finds Prometheus and promtool, and fetches them once when the machine has none: ``find_prometheus(Progress())``.

1. Both on PATH.
2. Our cache, beside the servers of the test bed. What is missing there comes out of Debian's package ``prometheus``,
   whose signature apt checks. It is not installed: that would start a server on the machine.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from tests.testbed.binaries import cache_folder, only_one, run_step
from tests.testbed.errors import MissingNeedError
from tests.testbed.progress import Progress

PROGRAMS: Final = ("prometheus", "promtool")
REMEDY: Final = "install Prometheus (with promtool) on PATH"
FETCH: Final = (
    "apt-get download prometheus || { apt-get update -qq && apt-get download prometheus; }"
    " && dpkg-deb --fsys-tarfile prometheus_*.deb >package.tar"
    " && tar -xf package.tar --strip-components=3 ./usr/bin/prometheus ./usr/bin/promtool"
)


class Prometheus(NamedTuple):
    """Both programs."""

    server: Path
    promtool: Path


def find_prometheus(progress: Progress, environ: Mapping[str, str] = os.environ) -> Prometheus:
    """Return programs that can be run.

    Raises:
        MissingNeedError: they are not there, and cannot be fetched; says what to do.
    """
    on_path = [shutil.which(name, path=environ.get("PATH")) for name in PROGRAMS]
    found = [Path(path) for path in on_path if path]
    if len(found) < len(PROGRAMS):
        found = _cached_or_fetched(progress, environ)
    return Prometheus(*found)


def _cached_or_fetched(progress: Progress, environ: Mapping[str, str]) -> list[Path]:
    cache = cache_folder(environ)
    folder = cache / "prometheus"
    found = [folder / name for name in PROGRAMS]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with only_one(cache / "prometheus.lock", progress):
            if not all(path.exists() for path in found):
                _fetch(folder, progress, environ)
    except OSError as error:
        raise MissingNeedError(f"cannot keep Prometheus in {cache}: {error}; make room or {REMEDY}") from error
    return found


def _fetch(folder: Path, progress: Progress, environ: Mapping[str, str]) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        run_step(
            "fetching Prometheus, since there is none on PATH",
            ["sh", "-ec", FETCH],
            folder / "apt.log",
            progress,
            hint="19 MB, once",
            remedy=REMEDY,
            env=dict(environ),
            cwd=Path(scratch),
        )
        for name in PROGRAMS:
            (Path(scratch) / name).replace(folder / name)
