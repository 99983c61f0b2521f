# SPDX-License-Identifier: Apache-2.0
"""Two base images from the packages that apt takes here, for beds without a container registry.

``BASE`` is made like the Dockerfile's default: an interpreter with its libraries, no shell, no package manager.
``BUILDER`` is the same with a shell and venv. Packages are unpacked, and none of their scripts is run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

PYTHON: Final = "python3.11"
BASE: Final = "localhost/numamigration-base:bookworm"
BUILDER: Final = "localhost/numamigration-builder:bookworm"

PACKAGES: Final = (
    *("base-files", "ca-certificates", "media-types", "netbase", "tzdata"),
    *("libbz2-1.0", "libc6", "libcrypt1", "libdb5.3", "libexpat1", "libffi8", "libgcc-s1", "liblzma5", "libncursesw6"),
    *("libreadline8", "libsqlite3-0", "libssl3", "libstdc++6", "libtinfo6", "libuuid1", "zlib1g"),
    *("libpython3.11-minimal", "libpython3.11-stdlib", "python3.11-minimal"),
)
BUILDER_PACKAGES: Final = (
    *("coreutils", "dash", "libacl1", "libattr1", "libgmp10", "libpcre2-8-0", "libselinux1"),
    *(
        "python3.11",
        "python3.11-venv",
        "python3-distutils",
        "python3-lib2to3",
        "python3-pip-whl",
        "python3-setuptools-whl",
    ),
)
IMAGES: Final = {BASE: PACKAGES, BUILDER: (*PACKAGES, *BUILDER_PACKAGES)}
NEEDLESS: Final = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/lintian")
PATH_INSIDE: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DOCKERFILE: Final = f"FROM scratch\nCOPY root/ /\nENV PATH={PATH_INSIDE}\n"


def make_base(name: str, folder: Path, buildah: Sequence[str], environ: Mapping[str, str] = os.environ) -> None:
    """Make one of the images in buildah's store.

    Args:
        name: BASE or BUILDER.
        folder: for files on the way, empty.
        buildah: the command, without arguments.
        environ: of it, which may name the store.

    Raises:
        subprocess.CalledProcessError: a package cannot be had; the output says which.
    """
    packages, root = folder / "packages", folder / "root"
    packages.mkdir()
    _run("apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", *IMAGES[name], cwd=packages, environ=environ)
    _merge_usr(root)
    for package in sorted(packages.glob("*.deb")):
        archive = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], check=True, capture_output=True).stdout
        _run("tar", "-x", "--keep-directory-symlink", "-C", str(root), data=archive, environ=environ)
    _finish(root)
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / ".dockerignore").write_text("packages\n")
    options = ("--quiet", "--timestamp=0", "--isolation=chroot")
    _run(*buildah, "build", *options, f"--tag={name}", str(folder), environ=environ)


def _merge_usr(root: Path) -> None:
    """Put links where packages still have the folders of before (merged /usr)."""
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")


def _finish(root: Path) -> None:
    for name in NEEDLESS:
        shutil.rmtree(root / name, ignore_errors=True)
    (root / "usr/bin/python3").symlink_to(PYTHON)
    authorities = _texts((root / "usr/share/ca-certificates/mozilla").glob("*.crt"))
    (root / "etc/ssl/certs/ca-certificates.crt").write_text("".join(authorities))


def _texts(paths: Iterable[Path]) -> list[str]:
    return [path.read_text() for path in sorted(paths)]


def _run(*command: str, environ: Mapping[str, str], cwd: Path | None = None, data: bytes | None = None) -> None:
    environment = {**environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(command, check=True, cwd=cwd, input=data, env=environment, stdout=subprocess.DEVNULL)
