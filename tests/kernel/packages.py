# SPDX-License-Identifier: Apache-2.0
"""Debian's 6.12 kernel and the headers of the very same version, unpacked in the cache and never installed.

* Debian puts the version into the packages' names, and each security update is another version: the names are
  resolved at run time.
* Headers of another version build modules that the kernel refuses to load (vermagic), so image and headers are taken
  together or not at all.
* The headers are unpacked, not installed: two versions can lie side by side, nobody but us sees them, and no root is
  needed. One line has to be changed, the absolute path in the headers' Makefile. ``vmlinux`` is left out, since with
  it each build wants pahole, to make type information (BTF) that nothing here reads.
* apt checks what it downloads against the archive's signed list.

Sources: apt-cache(8), apt-get(8); Documentation/kbuild/modules.rst; debian/rules.real of Debian's linux.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from tests.kernel import store
from tests.kernel.needs import answer_of, untranslated
from tests.testbed import cache
from tests.testbed.binaries import run_step
from tests.testbed.errors import MissingNeedError
from tests.testbed.progress import Progress

META: Final = "linux-image-6.12-amd64"
"""Debian 12's package that depends on its newest 6.12 kernel."""

UNPACKED_MIB: Final = 500
"""Packages and what is in them: 120 MiB and 210 MiB of 6.12.117, seen."""


class KernelPackages(NamedTuple):
    """One build of Debian's kernel: its release (``uname -r``) and the packages' version."""

    release: str
    version: str

    @property
    def names(self) -> tuple[str, ...]:
        """Image, headers of this flavor, headers common to all flavors, and the programs of kbuild."""
        base = self.release.rpartition("-")[0]
        return (
            f"linux-image-{self.release}",
            f"linux-headers-{self.release}",
            f"linux-headers-{base}-common",
            f"linux-kbuild-{base}",
        )


class Kernel(NamedTuple):
    """A kernel to boot.

    Attributes:
        release: as ``uname -r`` says; empty when only the kernel knows.
        image: what QEMU boots.
        tree: folder with ``lib/modules/RELEASE``, for our initramfs; None when it is not ours to make.
        build: folder for ``make -C``, to build modules; None when there are no headers.
    """

    release: str
    image: Path
    tree: Path | None = None
    build: Path | None = None


class NotKnownError(MissingNeedError):
    """apt's lists do not have the package; a newer list may."""


def parse_meta(shown: str) -> KernelPackages:
    """Return the kernel that the meta package depends on.

    Args:
        shown: what ``apt-cache show`` prints of it, the newest version first.
    """
    found = re.search(r"^Depends:.*\blinux-image-(\S+-amd64) \(= ([^)]+)\)", shown, re.MULTILINE)
    if not found:
        raise NotKnownError(
            f"apt's lists have no {META}: is there a network, and a Debian 12 (bookworm) source with security updates"
        )
    return KernelPackages(found[1], found[2])


def check_versions(wanted: KernelPackages, madison: str) -> None:
    """Refuse when apt does not have every package in the version of the image.

    Args:
        wanted: release and version of the image.
        madison: what ``apt-cache madison`` prints: lines of ``package | version | source``.
    """
    offered: dict[str, set[str]] = {}
    for line in madison.splitlines():
        package, version, *_ = (word.strip() for word in line.split("|"))
        offered.setdefault(package, set()).add(version)
    for name in wanted.names:
        versions = offered.get(name, set())
        if wanted.version not in versions:
            others = ", ".join(sorted(versions)) or "none"
            raise NotKnownError(
                f"headers of another version: {name} is needed in {wanted.version} as the image, apt has {others}"
            )


def debian_kernel(progress: Progress, environ: Mapping[str, str] = os.environ) -> Kernel:
    """Return Debian's kernel, unpacked; the first call for a version downloads some 120 MiB.

    Raises:
        MissingNeedError: no network, no such package, headers of another version, no room.
    """
    try:
        return _unpacked(_resolve(environ), progress, environ)
    except NotKnownError:
        # Old lists name packages that the archive has replaced; a fresh machine has no lists at all.
        _refresh(progress, environ)
        return _unpacked(_resolve(environ), progress, environ)


def _resolve(environ: Mapping[str, str]) -> KernelPackages:
    wanted = parse_meta(answer_of(["apt-cache", "show", "--no-all-versions", META], environ))
    check_versions(wanted, answer_of(["apt-cache", "madison", *wanted.names], environ))
    return wanted


def _unpacked(wanted: KernelPackages, progress: Progress, environ: Mapping[str, str]) -> Kernel:
    tree = store.folder(environ) / "debian" / f"{wanted.release}_{wanted.version.replace(':', '_')}"

    def make(folder: Path) -> None:
        folder.mkdir()
        _download(wanted, folder, progress, environ)
        _unpack(wanted, folder, environ)

    cache.made_once(tree, make, needed_mib=UNPACKED_MIB, progress=progress)
    build = tree / "usr/src" / f"linux-headers-{wanted.release}"
    return Kernel(wanted.release, tree / "boot" / f"vmlinuz-{wanted.release}", tree, build)


def _download(wanted: KernelPackages, folder: Path, progress: Progress, environ: Mapping[str, str]) -> None:
    log = folder.with_suffix(".log")
    command = ["apt-get", "download", *(f"{name}={wanted.version}" for name in wanted.names)]
    try:
        run_step(
            f"downloading {wanted.names[0]} {wanted.version} and its headers",
            command,
            log,
            progress,
            hint="once for each kernel version, some 120 MiB",
            remedy="is there a network",
            env=untranslated(environ),
            cwd=folder,
        )
    except MissingNeedError as error:
        raise download_error(wanted, log.read_text(errors="replace")) from error
    finally:
        log.unlink(missing_ok=True)


def download_error(wanted: KernelPackages, log: str) -> MissingNeedError:
    """Return what a failed download means: the archive has moved on, or there is no way to it."""
    lines = [line for line in log.splitlines() if line.startswith("E: ")]
    said = (lines or log.splitlines() or ["nothing"])[0]
    if "404" in log:
        return NotKnownError(f"the archive has no {wanted.names[0]} {wanted.version} any more; apt says: {said}")
    return MissingNeedError(f"no network: cannot download {wanted.names[0]} {wanted.version}; apt says: {said}")


def _unpack(wanted: KernelPackages, folder: Path, environ: Mapping[str, str]) -> None:
    for package in sorted(folder.glob("*.deb")):
        answer_of(["dpkg", "-x", str(package), str(folder)], environ)
        package.unlink()
    headers = folder / "usr/src" / f"linux-headers-{wanted.release}"
    (headers / "vmlinux").unlink(missing_ok=True)
    makefile = headers / "Makefile"
    # The folder is renamed when it is whole, so the path is told from where the Makefile lies.
    here = "$(dir $(abspath $(lastword $(MAKEFILE_LIST))))../"
    makefile.write_text(makefile.read_text().replace("/usr/src/", here))
    answer_of(["depmod", "-b", str(folder), wanted.release], environ)


def _refresh(progress: Progress, environ: Mapping[str, str]) -> None:
    log = store.folder(environ) / "apt-get-update.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    run_step(
        "reading the package lists anew",
        ["apt-get", "update", "-qq"],
        log,
        progress,
        hint="usually under 1 min",
        remedy="`apt-get update` as root must work: is there a network, and a Debian 12 source",
        env=untranslated(environ),
    )
