# SPDX-License-Identifier: Apache-2.0
"""The guest's initramfs and root disk, made from Debian's packages and kept in the cache.

* The initramfs loads the modules that reach the root disk and the shares, then hands over. It honors ``init=`` as
  those of distributions do, so that an initrd of another kernel can take its place.
* The root disk is the same for every kernel: it has no modules. QEMU opens it with ``snapshot=on``, so no guest
  changes it.
* Packages come from where apt on this machine is configured to take Debian 12 from.

Sources: Documentation/filesystems/ramfs-rootfs-initramfs.rst; modprobe(8); debootstrap(8); mke2fs(8), ``-d``.
"""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.kernel import store
from tests.kernel.needs import answer_of, find_program, require_root, untranslated
from tests.kernel.packages import Kernel
from tests.testbed import cache
from tests.testbed.binaries import run_step
from tests.testbed.errors import MissingNeedError
from tests.testbed.progress import Progress

DRIVERS: Final = ("virtio_pci", "virtio_blk", "ext4", "9pnet_virtio", "9p", "virtio_net", "virtio_console")
"""What the guest needs of a kernel, built in or as a module: its bus, root disk, shares, network, and port to us."""

SUITE: Final = "bookworm"
PACKAGES: Final = ("iproute2", "kmod", "numactl", "python3", "redis-server")
DISK_MIB: Final = 600
DISK_MAKING_MIB: Final = 1200
"""The folder, the packages in it before they are cleaned away, and the image."""

NEEDLESS: Final = ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale")

INITRAMFS_INIT: Final = """\
#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
while read m; do insmod /lib/modules/$m || echo "initramfs: insmod $m failed"; done </modlist
mount -t ext4 -o rw /dev/vda /newroot || echo "initramfs: no root disk at /dev/vda"
mount --move /dev /newroot/dev; mount --move /sys /newroot/sys; mount --move /proc /newroot/proc
init=/sbin/init
for word in $(cat /newroot/proc/cmdline); do case $word in init=*) init=${word#init=};; esac; done
exec switch_root /newroot $init
"""

GUEST_INIT: Final = """\
#!/bin/sh
# First program of the root disk. Only what is needed to reach the code; the rest is there.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
[ -e /proc/self ] || mount -t proc proc /proc
[ -d /sys/kernel ] || mount -t sysfs sysfs /sys
[ -e /dev/null ] || mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro code /mnt/code ||
    echo "guest: this kernel cannot mount 9p (CONFIG_NET_9P_VIRTIO, CONFIG_9P_FS)"
exec /bin/sh /mnt/code/tests/kernel/suite/boot.sh
"""

DYNAMIC_LOADER: Final = b"/lib64/ld-linux"
"""The interpreter that every dynamically linked program of amd64 names (PT_INTERP)."""

APPLETS: Final = ("sh", "mount", "insmod", "switch_root", "cat", "echo")


def initramfs(
    kernel: Kernel, progress: Progress, environ: Mapping[str, str] = os.environ, *, load: Sequence[str] = ()
) -> Path:
    """Return the initramfs for a kernel whose modules are at hand; it loads those of `load` last."""
    if kernel.tree is None:
        raise MissingNeedError(f"{kernel.image}: no modules to make an initramfs of")
    busybox = Path(find_program("busybox", environ))
    modules = module_files(kernel.tree, kernel.release, environ, (*DRIVERS, *load))
    program = busybox.read_bytes()
    if DYNAMIC_LOADER in program:
        raise MissingNeedError(f"{busybox} wants shared libraries, which an initramfs lacks: install busybox-static")
    made_of = cache.key(kernel.release, INITRAMFS_INIT, program, *(path.read_bytes() for path in modules))
    target = store.folder(environ) / f"initramfs-{kernel.release}-{made_of}.gz"

    def make(half_done: Path) -> None:
        half_done.write_bytes(pack(initramfs_content(busybox, modules), environ))

    return cache.made_once(target, make, needed_mib=50, progress=progress)


def module_files(tree: Path, release: str, environ: Mapping[str, str], names: Sequence[str] = DRIVERS) -> list[Path]:
    """Return the module files that the guest needs, each after those it depends on."""
    found: dict[Path, None] = {}
    for name in names:
        try:
            shown = answer_of(["modprobe", "-d", str(tree), "-S", release, "--show-depends", name], environ)
        except MissingNeedError as error:
            raise MissingNeedError(f"{release} has no {name}, which the guest needs; {error}") from error
        found |= dict.fromkeys(insmod_order(shown))
    return list(found)


def only_release(tree: Path) -> str:
    """Return the kernel release whose modules a folder has.

    Raises:
        MissingNeedError: there is none or more than one.
    """
    found = sorted(path.name for path in (tree / "lib/modules").glob("*") if path.is_dir())
    if len(found) != 1:
        raise MissingNeedError(f"{tree}/lib/modules must hold one kernel's modules, and holds {found or 'none'}")
    return found[0]


def insmod_order(shown: str) -> list[Path]:
    """Return the files of ``modprobe --show-depends``; what is built in has none."""
    rows = [line.split() for line in shown.splitlines()]
    return [Path(row[1]) for row in rows if len(row) > 1 and row[0] == "insmod"]


def initramfs_content(busybox: Path, modules: list[Path]) -> dict[str, bytes | str | None]:
    """Return what is in the initramfs: bytes are a file, text is the target of a link, None is a folder."""
    content: dict[str, bytes | str | None] = dict.fromkeys(("bin", "dev", "lib", "newroot", "proc", "sys"))
    content["lib/modules"] = None
    content["bin/busybox"] = busybox.read_bytes()
    content |= {f"bin/{applet}": "busybox" for applet in APPLETS}
    plain = {module_name(path): decompressed(path) for path in modules}
    content |= {f"lib/modules/{name}": data for name, data in plain.items()}
    content["modlist"] = "".join(f"{name}\n" for name in plain).encode()
    content["init"] = INITRAMFS_INIT.encode()
    return content


DECOMPRESS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    ".ko": bytes,
    ".xz": lzma.decompress,
    ".gz": gzip.decompress,
    ".zst": lambda packed: _piped(["zstd", "-dc"], packed),
}
"""By suffix: how a distribution may have compressed its modules (CONFIG_MODULE_COMPRESS_*)."""


def module_name(path: Path) -> str:
    """Return the file name of a module without the suffix of its compression."""
    return path.name[: path.name.index(".ko") + 3]


def decompressed(path: Path) -> bytes:
    """Return a module as ``insmod`` of busybox takes it."""
    return DECOMPRESS[path.suffix](path.read_bytes())


def pack(content: Mapping[str, bytes | str | None], environ: Mapping[str, str]) -> bytes:
    """Return a compressed cpio archive of `content`."""
    scratch = store.folder(environ) / f".initramfs.{os.getpid()}"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        _lay_out(content, scratch)
        names = "".join(f"{name}\n" for name in content).encode()
        packed = _piped([find_program("cpio", environ), "-o", "-H", "newc", "--quiet"], names, cwd=scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return gzip.compress(packed, compresslevel=1, mtime=0)


def _lay_out(content: Mapping[str, bytes | str | None], folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, what in content.items():
        path = folder / name
        if what is None:
            path.mkdir()
        elif isinstance(what, str):
            path.symlink_to(what)
        else:
            path.write_bytes(what)
            path.chmod(0o755)


def _piped(command: list[str], data: bytes, cwd: Path | None = None) -> bytes:
    done = subprocess.run(command, input=data, capture_output=True, cwd=cwd, check=False)
    if done.returncode:
        raise MissingNeedError(f"{command[0]} failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def root_disk(progress: Progress, environ: Mapping[str, str] = os.environ, *, uid: int | None = None) -> Path:
    """Return the root disk; the first call on a machine takes a minute or two, and root.

    Raises:
        MissingNeedError: not root, no network, no room.
    """
    target = disk_path(environ)
    if not target.exists():
        require_root("making the guest's root disk (debootstrap)", os.getuid() if uid is None else uid)

    def make(half_done: Path) -> None:
        folder = half_done.with_name(f"{half_done.name}.root")
        try:
            _bootstrap(folder, progress, environ)
            _settle(folder)
            _format(folder, half_done, progress, environ)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    return cache.made_once(target, make, needed_mib=DISK_MAKING_MIB, progress=progress)


def disk_path(environ: Mapping[str, str]) -> Path:
    """Return where the root disk is kept."""
    return store.folder(environ) / f"root-{SUITE}-{cache.key(SUITE, GUEST_INIT, *PACKAGES, *NEEDLESS)}.img"


def mirror(targets: str) -> str:
    """Return where apt takes Debian 12 from.

    Args:
        targets: lines of ``REPO_URI CODENAME COMPONENT`` as ``apt-get indextargets`` prints them.
    """
    for line in targets.splitlines():
        uri, codename, component = line.split()
        if (codename, component) == (SUITE, "main"):
            return uri
    raise MissingNeedError(f"apt has no source of Debian 12 ({SUITE} main), from which the guest's root disk is made")


def _bootstrap(folder: Path, progress: Progress, environ: Mapping[str, str]) -> None:
    shown = "$(REPO_URI) $(CODENAME) $(COMPONENT)"
    uri = mirror(answer_of(["apt-get", "indextargets", "--format", shown, "Created-By: Packages"], environ))
    options = ["--variant=minbase", f"--include={','.join(PACKAGES)}"]
    run_step(
        "making the guest's root disk",
        # In a mount namespace of its own: what it mounts in there goes with it, however it ends.
        ["unshare", "--mount", find_program("debootstrap", environ), *options, SUITE, folder, uri],
        folder.with_suffix(".log"),
        progress,
        hint="once, usually 1 to 2 min",
        remedy="no network, or a source that lacks a package",
        env=untranslated(environ),
    )


def _settle(folder: Path) -> None:
    for name in NEEDLESS:
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("mnt/code", "mnt/exchange"):
        (folder / name).mkdir()
    init = folder / "guest-init"
    init.write_text(GUEST_INIT)
    init.chmod(0o755)


def _format(folder: Path, target: Path, progress: Progress, environ: Mapping[str, str]) -> None:
    run_step(
        "writing the guest's root disk",
        [find_program("mke2fs", environ), "-q", "-t", "ext4", "-d", folder, target, f"{DISK_MIB}M"],
        folder.with_suffix(".log"),
        progress,
        hint="seconds",
        remedy="see the log",
        env=dict(environ),
    )
    folder.with_suffix(".log").unlink(missing_ok=True)
