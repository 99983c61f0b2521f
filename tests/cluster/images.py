# SPDX-License-Identifier: Apache-2.0
"""Container images for the node: the two of the project, built once for each state of their sources, and a small one.

* buildah builds them from the Dockerfile, in a store of its own below the cache folder; nothing of the machine's own
  images is read or changed.
* It works in a mount namespace of its own each time: what it mounts for its store goes with it, also when it is killed,
  and so does what it writes beside any store (/var/lib/containers/cache, /run/containers, /etc/cni).
* The images stand on base images of ours (``bases``): no registry has to be within reach.
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
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from scripts.build_images import ROOT, build_command, image_name, version
from tests.cluster.bases import BASE, BUILDER, IMAGES, make_base
from tests.cluster.needs import find_program
from tests.testbed.binaries import cache_folder, run_step
from tests.testbed.cache import key, made_once
from tests.testbed.errors import MissingNeedError
from tests.testbed.golang import go_arch
from tests.testbed.progress import Progress

PAUSE_IMAGE: Final = "localhost/busybox:1"
"""One static program: its container holds a Pod's namespaces, and tests use its shell."""

APPLETS: Final = ("sh", "cat", "sleep", "ls", "id", "grep", "echo", "touch")

OPERATOR_IMAGE: Final = f"docker.io/library/{image_name('operator', version())}"
AGENT_IMAGE: Final = f"docker.io/library/{image_name('agent', version())}"
"""As a kubelet completes the chart's default names."""

NAMES: Final = {"operator": OPERATOR_IMAGE, "agent": AGENT_IMAGE}
"""By the Dockerfile's target."""

NOT_IN_IMAGES: Final = re.compile(r"__pycache__|\.pyc$")

OWN_PLACES: Final = """\
exec 9<"$1"
mount -t tmpfs tmpfs /run
mkdir /run/etc /run/etc-work /run/lib /run/lib-work
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/etc-work /etc
mount -t overlay overlay -o lowerdir=/var/lib,upperdir=/run/lib,workdir=/run/lib-work /var/lib
mkdir -p "$1"
mount --no-canonicalize --bind /proc/self/fd/9 "$1"
shift
exec "$@" 9<&-
"""
"""The first argument is a folder that stays the machine's: a cache may well be in one of these."""

IMAGE_MAKING_MIB: Final = 1500

EPOCH: Final = "1"
"""Time of every file, in seconds: an archive serves all commits with the same sources."""

ARCHIVES_KEPT_MAX: Final = 6
"""Of all states of the sources together; the operator's has 130 MB at most."""

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
    sources = key(*_sources())
    return tuple(_project_image(target, sources, progress) for target in NAMES)


def _project_image(target: str, sources: str, progress: Progress) -> Path:
    archive = image_folder() / f"{target}-{sources}.tar"

    def make(half_done: Path) -> None:
        for name in (BASE, BUILDER):
            if not run_buildah("images", "--quiet", "--filter", f"reference={name}"):
                with tempfile.TemporaryDirectory() as folder:
                    progress.note(f"making {name}, once")
                    make_base(name, Path(folder), buildah_command(), _store_environment())
        build(target, NAMES[target], progress)
        run_buildah("push", "--quiet", NAMES[target], f"docker-archive:{half_done}:{NAMES[target]}")
        _remove_oldest(image_folder(), ARCHIVES_KEPT_MAX - 1)

    return made_once(archive, make, needed_mib=IMAGE_MAKING_MIB, progress=progress)


def _sources() -> Iterator[str | bytes]:
    """Yield all that can be copied into the images, as .dockerignore has it, and what they are made by."""
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    yield from (BASE, BUILDER, *(package for packages in IMAGES.values() for package in packages))
    for name in sorted(["Dockerfile", "scripts/build_images.py", *allowed]):
        for path in sorted((ROOT / name).rglob("*")) if (ROOT / name).is_dir() else [ROOT / name]:
            if path.is_file() and not NOT_IN_IMAGES.search(str(path)):
                yield str(path.relative_to(ROOT))
                yield path.read_bytes()


def _remove_oldest(folder: Path, kept: int) -> None:
    archives = [path for target in NAMES for path in folder.glob(f"{target}-*.tar")]
    for path in sorted(archives, key=lambda path: path.stat().st_mtime, reverse=True)[kept:]:
        path.unlink(missing_ok=True)


def build(target: str, name: str, progress: Progress, *more: str) -> None:
    """Build one target of the Dockerfile; its bases are in the store.

    Args:
        target: ``operator`` or ``agent``.
        name: of the image.
        progress: shows the wait.
        more: further options of buildah.

    Raises:
        MissingNeedError: it failed; shows the log's end.
    """
    mounts = [f"--volume={name}:{name}:ro" for name in MACHINE_FILES if Path(name).exists()]
    options = ["--isolation=chroot", "--pull=never", *mounts, *more]
    *apart, program = buildah_command()
    log = image_folder() / f"{target}.log"
    command = build_command(
        program, target, arch=go_arch(), base=BASE, builder=BUILDER, tag=name, options=options, epoch=EPOCH
    )
    run_step(
        f"building the {target}'s image",
        [*apart, *command],
        log,
        progress,
        hint="once for each state of the sources, usually under 1 min",
        remedy="let pip reach its package index",
        env=_store_environment(),
    )
    log.unlink()


def run_buildah(*arguments: str) -> str:
    """Run buildah on the store of our own; return what it prints.

    Raises:
        MissingNeedError: it failed, or there is none.
    """
    done = subprocess.run(
        [*buildah_command(), *arguments], env=_store_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise MissingNeedError(f"buildah {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def buildah_command() -> list[str]:
    """Return how buildah is started, without its arguments.

    Raises:
        MissingNeedError: there is none.
    """
    folder = image_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return ["unshare", "--mount", "sh", "-ec", OWN_PLACES, "sh", str(folder), str(find_program("buildah"))]


def _store_environment() -> dict[str, str]:
    """Return our environment with a store of our own; Debian's configuration names the machine's."""
    store = image_folder() / "store"
    store.mkdir(parents=True, exist_ok=True)
    configuration = store / "storage.conf"
    roots = f'graphroot = "{store}/root"\nrunroot = "{store}/run"\n'
    configuration.write_text(f'[storage]\ndriver = "overlay"\n{roots}')
    return {**os.environ, "CONTAINERS_STORAGE_CONF": str(configuration)}


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
