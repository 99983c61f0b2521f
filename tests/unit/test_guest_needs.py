# SPDX-License-Identifier: Apache-2.0
"""What the guest needs of the machine, of apt and of whoever chooses a kernel: each lack is one line that says so."""

from __future__ import annotations

import errno
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest

from tests.kernel import drivers, image, store
from tests.kernel.choice import Choice, read_choice
from tests.kernel.needs import PACKAGE_OF, QEMU, find_program, require_memory, require_root
from tests.kernel.packages import (
    META,
    Kernel,
    KernelPackages,
    NotKnownError,
    check_versions,
    debian_kernel,
    download_error,
    parse_meta,
)
from tests.kernel.prepare import prepare
from tests.testbed import cache
from tests.testbed.cache import require_room
from tests.testbed.errors import MissingNeedError
from tests.testbed.progress import Progress

pytestmark = pytest.mark.uncounted

WANTED = KernelPackages("6.12.117+deb12-amd64", "6.12.117-1~deb12u1")
SHOWN = f"""\
Package: {META}
Version: {WANTED.version}
Depends: linux-image-{WANTED.release} (= {WANTED.version})
Description: Linux for 64-bit PCs (meta-package)
"""


def madison(version: str, *names: str) -> str:
    return "".join(f" {name} | {version} | a mirror bookworm/main amd64 Packages\n" for name in names)


class Machine:
    """A machine with nothing on PATH but what a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.calls = folder / "calls"
        self.environ = {"PATH": str(self.bin), "XDG_CACHE_HOME": str(folder / "cache"), "HOME": str(folder)}
        self.shown = StringIO()

    def install(self, name: str, *lines: str) -> None:
        path = self.bin / name
        path.write_text("\n".join(["#!/bin/sh", f'echo "{name} $*" >>{self.calls}', *lines, ""]))
        path.chmod(0o755)

    def install_apt(self, *get: str, headers: str = WANTED.version) -> None:
        """Have apt know the kernel's image and the headers in a version."""
        (self.bin / "shown").write_text(SHOWN)
        image_name, *header_names = WANTED.names
        known = madison(WANTED.version, image_name) + madison(headers, *header_names)
        (self.bin / "known").write_text(known)
        self.install("apt-cache", f"case $1 in show) /bin/cat {self.bin}/shown;; *) /bin/cat {self.bin}/known;; esac")
        self.install("apt-get", *get)

    def kernel(self) -> Kernel:
        return debian_kernel(Progress(self.shown), self.environ)

    def called(self, word: str) -> int:
        return self.calls.read_text().count(word)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr("tests.testbed.commands.ADMIN_FOLDERS", "/nowhere")
    return Machine(tmp_path)


# --- the machine ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PACKAGE_OF)
def test_a_missing_program_is_named_with_its_package(name: str, machine: Machine) -> None:
    with pytest.raises(MissingNeedError, match=rf"^{name} is missing: .* install {PACKAGE_OF[name]}$"):
        find_program(name, machine.environ)


def test_without_qemu_nothing_is_downloaded(machine: Machine) -> None:
    machine.install_apt()

    with pytest.raises(MissingNeedError, match=f"^{QEMU} is missing"):
        prepare(read_choice({}), Progress(machine.shown), machine.environ)
    assert not machine.calls.exists()


@pytest.mark.parametrize(
    ("available_kib", "refused"),
    [
        pytest.param(1792 * 1024, False, id="just enough"),
        pytest.param(1792 * 1024 - 1, True, id="a kibibyte less"),
    ],
)
def test_a_machine_with_less_memory_than_the_guest_takes_is_refused(available_kib: int, refused: bool) -> None:
    meminfo = f"MemTotal:       99999999 kB\nMemFree:          1000 kB\nMemAvailable:   {available_kib} kB\n"

    if not refused:
        require_memory(1792, meminfo)
        return
    with pytest.raises(MissingNeedError, match=r"too little memory: the guest needs 1792 MiB, available are 1791 MiB"):
        require_memory(1792, meminfo)


def test_a_kernel_that_tells_no_available_memory_is_taken_at_its_word() -> None:
    require_memory(1792, "MemTotal: 1 kB\n")


def test_a_full_disk_is_told_before_anything_is_made(tmp_path: Path) -> None:
    require_room(tmp_path, needed_mib=500, free_mib=500)
    with pytest.raises(MissingNeedError, match=r"disk full: .* needs 500 MiB, free are 499 MiB"):
        require_room(tmp_path, needed_mib=500, free_mib=499)


def test_whoever_is_not_root_is_told_what_to_run_as_root() -> None:
    require_root("making it", uid=0)
    with pytest.raises(MissingNeedError, match=r"making it needs root once; run `python -m tests.kernel prepare`"):
        require_root("making it", uid=1000)


def test_a_root_disk_is_made_by_root_only(machine: Machine) -> None:
    with pytest.raises(MissingNeedError, match=r"debootstrap.* needs root once"):
        image.root_disk(Progress(machine.shown), machine.environ, uid=1000)


def test_a_root_disk_that_is_there_needs_no_root(machine: Machine) -> None:
    disk = image.disk_path(machine.environ)
    disk.parent.mkdir(parents=True)
    disk.touch()

    assert image.root_disk(Progress(machine.shown), machine.environ, uid=1000) == disk


# --- the cache -----------------------------------------------------------------------------------------------------


def make_once(target: Path, make: Callable[[Path], None]) -> Path:
    return cache.made_once(target, make, needed_mib=0, progress=Progress(StringIO()))


def test_what_is_in_the_cache_is_not_made_again(tmp_path: Path) -> None:
    made = []

    def make(path: Path) -> None:
        made.append(path)
        path.write_text("whole")

    for _ in range(2):
        assert make_once(tmp_path / "cache" / "thing", make).read_text() == "whole"
    assert len(made) == 1


def test_what_was_cut_off_is_not_taken_for_whole(tmp_path: Path) -> None:
    def cut_off(path: Path) -> None:
        path.mkdir()
        (path / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_once(tmp_path / "thing", cut_off)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_a_disk_that_gets_full_on_the_way_is_told_as_such(tmp_path: Path) -> None:
    def fill(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with pytest.raises(MissingNeedError, match=r"disk full while making .*thing; make room or set XDG_CACHE_HOME"):
        make_once(tmp_path / "thing", fill)


def test_parts_that_only_read_the_same_have_different_names() -> None:
    assert cache.key("ab", "c") != cache.key("a", "bc")
    assert cache.key("ab", "c") == cache.key("ab", b"c")


# --- Debian's kernel -----------------------------------------------------------------------------------------------


def test_release_and_version_are_those_the_meta_package_depends_on() -> None:
    assert parse_meta(SHOWN) == WANTED
    assert WANTED.names == (
        "linux-image-6.12.117+deb12-amd64",
        "linux-headers-6.12.117+deb12-amd64",
        "linux-headers-6.12.117+deb12-common",
        "linux-kbuild-6.12.117+deb12",
    )


def test_lists_without_the_meta_package_are_told_as_such() -> None:
    with pytest.raises(NotKnownError, match=f"apt's lists have no {META}"):
        parse_meta("")


@pytest.mark.parametrize("missing", WANTED.names)
def test_headers_of_another_version_are_refused(missing: str) -> None:
    others = [name for name in WANTED.names if name != missing]
    known = madison(WANTED.version, *others) + madison("6.12.116-1", missing)

    with pytest.raises(NotKnownError) as caught:
        check_versions(WANTED, known)

    assert str(caught.value) == (
        f"headers of another version: {missing} is needed in {WANTED.version} as the image, apt has 6.12.116-1"
    )


def test_an_older_version_beside_the_wanted_one_does_no_harm() -> None:
    check_versions(WANTED, madison(WANTED.version, *WANTED.names) + madison("6.12.116-1", *WANTED.names))


def test_headers_of_another_version_end_the_search_once_the_lists_are_new(machine: Machine) -> None:
    machine.install_apt(headers="6.12.116-1")

    with pytest.raises(MissingNeedError, match="headers of another version"):
        machine.kernel()
    assert machine.called("apt-get update") == 1
    assert machine.called("apt-get download") == 0


def test_no_network_is_told_with_apts_own_words(machine: Machine) -> None:
    machine.install_apt("echo \"E: Failed to fetch it  Temporary failure resolving 'a.mirror'\" >&2", "exit 100")

    with pytest.raises(MissingNeedError) as caught:
        machine.kernel()

    assert str(caught.value) == (
        f"no network: cannot download {WANTED.names[0]} {WANTED.version}; "
        "apt says: E: Failed to fetch it  Temporary failure resolving 'a.mirror'"
    )
    assert not list(store.folder(machine.environ).glob("debian/*amd64*"))


def test_a_version_that_the_archive_has_replaced_is_looked_up_anew() -> None:
    assert isinstance(download_error(WANTED, "Err:1\nE: Failed to fetch it  404  Not Found\n"), NotKnownError)
    assert not isinstance(download_error(WANTED, "E: Failed to fetch it  Connection refused\n"), NotKnownError)


def test_a_kernel_is_unpacked_with_headers_that_can_be_moved(machine: Machine) -> None:
    headers = f"usr/src/linux-headers-{WANTED.release}"
    machine.install_apt("[ $1 = update ] || for package; do case $package in linux-*) >${package%%=*}.deb;; esac; done")
    machine.install(
        "dpkg",
        f"/bin/mkdir -p $3/{headers}",
        f"echo 'include /usr/src/linux-headers-common/Makefile' >$3/{headers}/Makefile",
        f">$3/{headers}/vmlinux",
    )
    machine.install("depmod")

    kernel = machine.kernel()

    assert kernel.build is not None
    assert kernel.build == store.folder(machine.environ) / f"debian/{WANTED.release}_{WANTED.version}" / headers
    assert [path.name for path in kernel.build.iterdir()] == ["Makefile"]
    assert "/usr/src/" not in (kernel.build / "Makefile").read_text()
    assert machine.called("dpkg -x") == len(WANTED.names)


# --- initramfs, root disk, modules ---------------------------------------------------------------------------------


def test_the_root_disk_comes_from_where_apt_takes_debian_12() -> None:
    targets = "uri:/security bookworm-security main\nuri:/updates bookworm non-free\nuri:/debian bookworm main\n"

    assert image.mirror(targets) == "uri:/debian"
    with pytest.raises(MissingNeedError, match="apt has no source of Debian 12"):
        image.mirror("uri:/debian trixie main\n")


def test_modules_are_loaded_after_those_they_depend_on_and_built_in_ones_not_at_all() -> None:
    shown = "builtin virtio_ring\ninsmod /k/mbcache.ko.xz \ninsmod /k/ext4.ko.xz \n"

    assert image.insmod_order(shown) == [Path("/k/mbcache.ko.xz"), Path("/k/ext4.ko.xz")]


@pytest.mark.parametrize("name", ["ext4.ko", "ext4.ko.xz", "ext4.ko.gz", "ext4.ko.zst"])
def test_a_module_is_known_by_its_name_however_it_is_compressed(name: str) -> None:
    path = Path("/k") / name

    assert image.module_name(path) == "ext4.ko"
    assert path.suffix in image.DECOMPRESS


def test_a_busybox_that_wants_libraries_is_refused(machine: Machine, tmp_path: Path) -> None:
    machine.install("busybox", "# /lib64/ld-linux-x86-64.so.2")
    machine.install("modprobe")

    with pytest.raises(MissingNeedError, match=r"wants shared libraries.* install busybox-static"):
        image.initramfs(Kernel("6.12", tmp_path / "vmlinuz", tmp_path), Progress(machine.shown), machine.environ)


def test_a_kernel_without_a_driver_that_the_guest_needs_is_told_by_its_name(machine: Machine, tmp_path: Path) -> None:
    machine.install("modprobe", "echo 'modprobe: FATAL: Module not found' >&2", "exit 1")

    with pytest.raises(MissingNeedError, match=r"^6\.12 has no virtio_pci, which the guest needs; .*FATAL: Module"):
        image.module_files(tmp_path, "6.12", machine.environ)


def test_the_initramfs_loads_further_modules_too(machine: Machine, tmp_path: Path) -> None:
    machine.install("busybox")
    machine.install("modprobe", "for name; do :; done", "[ $name != dcbm ] || exit 1", "echo builtin $name")
    kernel = Kernel("6.12", tmp_path / "vmlinuz", tmp_path)

    with pytest.raises(MissingNeedError, match=r"^6\.12 has no dcbm, which the guest needs"):
        image.initramfs(kernel, Progress(machine.shown), machine.environ, load=("engine", "dcbm"))


def test_a_folder_of_modules_must_say_which_kernel_they_are_for(tmp_path: Path) -> None:
    (tmp_path / "lib/modules/6.12.1").mkdir(parents=True)
    assert image.only_release(tmp_path) == "6.12.1"

    (tmp_path / "lib/modules/6.12.2").mkdir()
    with pytest.raises(MissingNeedError, match=r"must hold one kernel's modules, and holds \['6.12.1', '6.12.2'\]"):
        image.only_release(tmp_path)


class Headers:
    """Sources of a module and headers of a kernel, with a make that does what it is told."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.machine = machine
        self.sources = folder / "module"
        (self.sources / "v5").mkdir(parents=True)
        for name in ("Kbuild", "engine.c", "v5/Kbuild", "README.md", "engine.mod.c"):
            (self.sources / name).write_text(name)
        self.kernel = Kernel("6.12.1", folder / "vmlinuz", folder, folder / "headers")
        machine.install("x86_64-linux-gnu-gcc-12")
        machine.install("make", "cd $2", "[ ! -e README.md ] && [ ! -e engine.mod.c ] && >engine.ko && >v5/dcbm.ko")

    def build(self) -> Path:
        return drivers.build(self.kernel, Progress(self.machine.shown), self.machine.environ, sources=self.sources)


@pytest.fixture
def headers(machine: Machine, tmp_path: Path) -> Headers:
    return Headers(machine, tmp_path)


def test_modules_are_built_once_for_a_source_in_a_copy_of_it(headers: Headers) -> None:
    built = headers.build()

    assert headers.build() == built
    assert headers.machine.called("make") == 1
    assert sorted(str(path.relative_to(built)) for path in built.rglob("*.ko")) == ["engine.ko", "v5/dcbm.ko"]
    assert not list(headers.sources.rglob("*.ko"))


def test_modules_are_built_again_when_a_source_has_changed(headers: Headers) -> None:
    built = headers.build()
    (headers.sources / "engine.c").write_text("changed")

    assert headers.build() != built


def test_a_module_that_does_not_build_is_told_with_the_compilers_words(headers: Headers) -> None:
    headers.machine.install("make", "echo 'engine.c:7:1: error: expected identifier' >&2", "exit 2")

    with pytest.raises(
        MissingNeedError, match=r"building our kernel modules failed(?s:.*)engine.c:7:1: error: expected"
    ):
        headers.build()


def test_a_build_that_makes_nothing_is_no_build(headers: Headers) -> None:
    headers.machine.install("make")

    with pytest.raises(MissingNeedError, match="has built no module"):
        headers.build()


def test_a_kernel_without_headers_is_told_as_such(headers: Headers) -> None:
    headers.kernel = headers.kernel._replace(build=None)

    with pytest.raises(MissingNeedError, match="without its headers none of our modules can be built"):
        headers.build()


# --- a kernel of one's own -----------------------------------------------------------------------------------------


def test_without_a_word_it_is_debians_kernel_with_our_module() -> None:
    assert read_choice({"GUEST_KERNEL": "", "GUEST_DCBM": ""}) == Choice(None, None, None, "ours")
    assert read_choice({}).has_switches


def test_a_kernel_with_its_own_driver_has_no_switches(tmp_path: Path) -> None:
    environ = {"GUEST_KERNEL": str(tmp_path), "GUEST_INITRD": str(tmp_path), "GUEST_DCBM": "real"}

    assert read_choice(environ) == Choice(tmp_path, tmp_path, None, "real")
    assert not read_choice(environ).has_switches


def test_further_modules_are_loaded_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    environ = {"GUEST_KERNEL": str(tmp_path), "GUEST_MODULES": str(tmp_path), "GUEST_LOAD": "engine dcbm"}

    assert read_choice({**environ, "GUEST_DCBM": "real"}).load == ("engine", "dcbm")


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        pytest.param({"GUEST_KERNEL": "/nowhere"}, "GUEST_KERNEL=/nowhere: no such file", id="not there"),
        pytest.param({"GUEST_INITRD": "/"}, "belong to a kernel: set GUEST_KERNEL", id="an initrd alone"),
        pytest.param({"GUEST_DCBM": "real"}, "GUEST_KERNEL and GUEST_DCBM=real belong together", id="no kernel"),
        pytest.param({"GUEST_KERNEL": "/"}, "GUEST_KERNEL and GUEST_DCBM=real belong together", id="no driver"),
        pytest.param({"GUEST_DCBM": "none"}, "GUEST_DCBM=none: 'real'", id="no such driver"),
        pytest.param({"GUEST_LOAD": "dcbm"}, "set that as well", id="modules of no folder"),
        pytest.param({"GUEST_BOOT_SECONDS": "soon"}, "GUEST_BOOT_SECONDS=soon: a number of seconds", id="no number"),
        pytest.param(
            {"GUEST_KERNEL": "/", "GUEST_INITRD": "/", "GUEST_MODULES": "/", "GUEST_DCBM": "real"},
            "exclude each other",
            id="modules twice",
        ),
    ],
)
def test_a_choice_that_cannot_be_is_refused(environ: dict[str, str], message: str) -> None:
    with pytest.raises(MissingNeedError, match=message):
        read_choice(environ)
