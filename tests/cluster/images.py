# SPDX-License-Identifier: Apache-2.0
"""Container images for the node: the two of the project, built once for each state of their sources, and a small one.

* buildah builds them from the Dockerfile, in a store of its own below the cache folder; nothing of the machine's own
  images is read or changed.
* The base image is one of ours, made of the packages that apt on this machine takes: no registry has to be within
  reach. It stands in for whatever the Dockerfile begins ``FROM`` (``ARG BASE``).
* What a build needs of this machine (certificates, pip's configuration) is mounted into it and stays out of the
  image.

Sources: buildah-build(1), buildah-push(1); OCI image specification (config, layer); Docker's archive form (``docker
save``), which containerd imports.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from numamigration_agent import __version__
from tests.cluster.needs import find_program
from tests.kernel.image import bootstrap
from tests.kernel.store import key, made_once
from tests.testbed.binaries import cache_folder, run_step
from tests.testbed.commands import ROOT
from tests.testbed.golang import go_arch
from tests.testbed.progress import Progress

PAUSE_IMAGE: Final = "localhost/busybox:1"
"""One static program: its container holds a Pod's namespaces, and tests use its shell."""

APPLETS: Final = ("sh", "cat", "sleep", "ls", "id", "grep", "echo", "touch")

OPERATOR_IMAGE: Final = f"docker.io/library/numa-migration-operator:{__version__}"
AGENT_IMAGE: Final = f"docker.io/library/numa-migration-agent:{__version__}"
"""As a kubelet completes the chart's default names."""

NAMES: Final = {"operator": OPERATOR_IMAGE, "agent": AGENT_IMAGE}
"""By the Dockerfile's target."""

DOCKERFILE: Final = ROOT / "tests" / "cluster" / "standin.Dockerfile"

SOURCES: Final = (
    "crds",
    "operator",
    "node-agent",
    "requirements/operator.txt",
    "pyproject.toml",
    "README.md",
    "LICENSE",
)
"""What a Dockerfile may copy."""

BASE_IMAGE: Final = "localhost/python:bookworm"
BASE_PACKAGES: Final = ("python3", "python3-venv", "ca-certificates")

BASE_MAKING_MIB: Final = 1500
IMAGE_MAKING_MIB: Final = 1000

ARCHIVES_KEPT_MAX: Final = 6
"""Of all states of the sources together; some 60 to 300 MB each."""

MACHINE_FILES: Final = ("/etc/ssl/certs", "/etc/pip.conf")
"""How this machine reaches its package index: its certificates and pip's configuration."""


def image_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the cache folder of images."""
    return cache_folder(environ).with_name("images")


def project_images(progress: Progress) -> tuple[Path, ...]:
    """Return archives of the operator's and the agent's image; the first call for a state of the sources builds them.

    Raises:
        MissingNeedError: no network, no room, no buildah.
    """
    return tuple(_project_image(target, progress) for target in NAMES)


def _project_image(target: str, progress: Progress) -> Path:
    archive = image_folder() / f"{target}-{key(target, NAMES[target], *_contents())}.tar"

    def make(half_done: Path) -> None:
        _build(target, half_done, progress)

    if not archive.exists():
        base = _base(progress)
        with_base = _buildah("images", "--quiet", "--filter", f"reference={BASE_IMAGE}")
        if not with_base.strip():
            _buildah("pull", f"docker-archive:{base}")
        _remove_oldest(image_folder(), ARCHIVES_KEPT_MAX)
    return made_once(archive, make, needed_mib=IMAGE_MAKING_MIB, progress=progress)


def _contents() -> Iterable[bytes]:
    """Yield everything the images are made of."""
    yield DOCKERFILE.read_bytes()
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *SOURCES],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    for name in sorted(filter(None, names)):
        path = ROOT / name
        if path.is_file():
            yield name.encode()
            yield path.read_bytes()


def _remove_oldest(folder: Path, kept: int) -> None:
    archives = [path for target in NAMES for path in folder.glob(f"{target}-*.tar")]
    for path in sorted(archives, key=lambda path: path.stat().st_mtime, reverse=True)[kept:]:
        path.unlink(missing_ok=True)


def _base(progress: Progress) -> Path:
    """Return the archive of the base image."""
    archive = image_folder() / f"base-{key(BASE_IMAGE, *BASE_PACKAGES)}.tar"

    def make(half_done: Path) -> None:
        folder = half_done.with_suffix(".root")
        try:
            bootstrap(folder, BASE_PACKAGES, "the images' base", progress, os.environ)
            for name in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"):
                shutil.rmtree(folder / name, ignore_errors=True)
            write_archive(half_done, BASE_IMAGE, folder_layer(folder), ["python3"], {"PATH": os.defpath})
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    return made_once(archive, make, needed_mib=BASE_MAKING_MIB, progress=progress)


def _build(target: str, archive: Path, progress: Progress) -> None:
    mounts = [f"--volume={name}:{name}:ro" for name in MACHINE_FILES if Path(name).exists()]
    build = ["build", "--isolation=chroot", "--pull=never", f"--build-arg=BASE={BASE_IMAGE}", *mounts]
    run_step(
        f"building the {target}'s image",
        _command(*build, f"--target={target}", f"--tag={NAMES[target]}", f"--file={DOCKERFILE}", ROOT),
        archive.with_suffix(".log"),
        progress,
        hint="once for each state of the sources, usually under 1 min",
        remedy="let pip reach its package index",
        env=os.environ,
    )
    _buildah("push", "--quiet", NAMES[target], f"docker-archive:{archive}:{NAMES[target]}")


def _buildah(*arguments: str | Path) -> str:
    return subprocess.run(_command(*arguments), check=True, capture_output=True, text=True).stdout


def _command(*arguments: str | Path) -> list[str | Path]:
    store = image_folder() / "store"
    store.mkdir(parents=True, exist_ok=True)
    where: list[str | Path] = [f"--root={store / 'root'}", f"--runroot={store / 'run'}", "--storage-driver=overlay"]
    return [find_program("buildah"), *where, *arguments]


def pause_archive(folder: Path) -> Path:
    """Write the archive of ``PAUSE_IMAGE``; it takes milliseconds."""
    archive = folder / "busybox.tar"
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add(find_program("busybox"), "bin/busybox", filter=_of_root)
        for name in APPLETS:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    write_archive(archive, PAUSE_IMAGE, layer.getvalue(), ["/bin/sleep", "infinity"], {"PATH": "/bin"})
    return archive


def folder_layer(folder: Path) -> bytes:
    """Return a folder's content as a layer."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name)
    return layer.getvalue()


def write_archive(
    archive: Path, name: str, layer: bytes, entrypoint: Sequence[str], environment: Mapping[str, str]
) -> None:
    """Write an image of one layer.

    Args:
        archive: the file to make.
        name: of the image, with its tag.
        layer: a tar archive of its files.
        entrypoint: what runs when a container names no command.
        environment: of that.
    """
    digest = hashlib.sha256(layer).hexdigest()
    run = {"Entrypoint": list(entrypoint), "Env": [f"{key}={value}" for key, value in environment.items()]}
    roots = {"type": "layers", "diff_ids": [f"sha256:{digest}"]}
    config = json.dumps({"architecture": go_arch(), "os": "linux", "config": run, "rootfs": roots}).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": [f"{digest}.tar"]}]
    members = {config_name: config, f"{digest}.tar": layer, "manifest.json": json.dumps(manifest).encode()}
    with tarfile.open(archive, "w") as tar:
        for member, content in members.items():
            entry = tarfile.TarInfo(member)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def _of_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = "root"
    return entry
