# SPDX-License-Identifier: Apache-2.0
"""Runs rows of ``seen`` with real system calls: all it needs is a root folder and somebody who takes commands."""

from __future__ import annotations

import dataclasses
import errno
import gzip
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final, assert_never

import msgspec

from numamigration_api.vocabulary import Dialect
from tests.fakekernel.control import Advance, AwaitBlocked, Command, Load, ReadLog, Reply, TakeSnapshot, Unload
from tests.fakekernel.seen import (
    COUNTERS,
    Attempt,
    Begin,
    Corrupted,
    Counted,
    Do,
    End,
    Lists,
    Logged,
    Read,
    Seen,
    Step,
    Within,
    Write,
)

DCBM: Final = {Dialect.V5: "/sys/module/dcbm", Dialect.V6: "/sys/module/dcbm/parameters"}
ANSWER_SECONDS_MAX: Final = 30.0
"""A call that must not block and is not over by then does block."""
READ_BYTES: Final = 1 << 16


class MismatchError(AssertionError):
    """The kernel answered something else than the row says."""


@dataclasses.dataclass
class Replay:
    """One run of one row.

    Args:
        root: where the kernel's files are, ``/`` on a host.
        do: takes a command of ``control``; raises OSError when the kernel refuses.
        dialect: decides where the driver's files are.
    """

    root: Path
    do: Callable[[Command], Reply]
    dialect: Dialect

    def run(self, row: Seen) -> None:
        """Do a row's steps.

        Raises:
            MismatchError: a step was answered otherwise.
        """
        self._begun: list[Future[None]] = []
        self._vmstat = self._read_vmstat()
        with ThreadPoolExecutor(16) as self._threads:
            for step in row.steps:
                self._do(step)

    def _do(self, step: Step) -> None:
        match step:
            case Write() | Read():
                self._threads.submit(self._call, step).result(ANSWER_SECONDS_MAX)
            case Begin(call):
                self._begun.append(self._threads.submit(self._call, call))
            case End():
                for future in self._begun:
                    future.result(ANSWER_SECONDS_MAX)
            case Do(command, number):
                _expect(_errno_of(lambda: self.do(self._placed(command))), number, step)
            case Attempt(action, path, number):
                _expect(_errno_of(lambda: ACTIONS[action](self, self._path(path))), number, step)
            case Lists() | Counted() | Within() | Corrupted() | Logged():
                self._look(step)
            case _:
                assert_never(step)

    def _look(self, step: Lists | Counted | Within | Corrupted | Logged) -> None:
        match step:
            case Lists(folder, has, lacks):
                names = {entry.name for entry in self._path(folder).iterdir()}
                _expect((set(has) - names, set(lacks) & names), (set(), set()), step)
            case Counted(name, by):
                _expect(self._read_vmstat()[name] - self._vmstat[name], by, step)
            case Within(file, least, most):
                number = int(self._path(file).read_text())
                _expect(number if not least <= number <= most else "within", "within", step)
            case Corrupted(pages):
                snapshot = self.do(TakeSnapshot()).snapshot
                _expect(snapshot and snapshot.corrupted_pages, pages, step)
            case Logged(line, times):
                _expect(sum(line in found for found in self.do(ReadLog()).log), times, step)
            case _:
                assert_never(step)

    def _call(self, call: Write | Read) -> None:
        if isinstance(call, Write):
            self._write(call)
        else:
            self._read(call)

    def _write(self, call: Write) -> None:
        data = call.text.encode() if isinstance(call.text, str) else call.text
        returned = -1

        def write() -> None:
            nonlocal returned
            with _descriptor(self._path(call.file), os.O_WRONLY | call.flags, call.uid) as descriptor:
                returned = os.write(descriptor, data)

        _expect(_errno_of(write), call.errno, call)
        if not call.errno:
            _expect(returned, len(data) if call.returns is None else call.returns, call)

    def _read(self, call: Read) -> None:
        shown = ""

        def read() -> None:
            nonlocal shown
            with _descriptor(self._path(call.file), os.O_RDONLY, call.uid) as descriptor:
                shown = os.read(descriptor, READ_BYTES).decode()

        _expect(_errno_of(read), call.errno, call)
        if call.shows is not None:
            _expect(shown, f"{call.shows}\n", call)

    def _path(self, path: str) -> Path:
        return self.root / path.replace("{dcbm}", DCBM.get(self.dialect, "")).lstrip("/")

    def _placed(self, command: Command) -> Command:
        if isinstance(command, AwaitBlocked):
            return msgspec.structs.replace(command, path=command.path.replace("{dcbm}", DCBM[self.dialect]))
        return command

    def _read_vmstat(self) -> dict[str, int]:
        lines = self._path("/proc/vmstat").read_text().splitlines()
        return {name: int(value) for name, value in (line.split() for line in lines)}


def _expect(found: object, expected: object, step: object) -> None:
    if found != expected:
        raise MismatchError(f"{step}: answered {found!r}, expected {expected!r}")


def _errno_of(call: Callable[[], object]) -> int:
    try:
        call()
    except OSError as error:
        return error.errno or errno.EIO
    return 0


@contextmanager
def _descriptor(path: Path, flags: int, uid: int = 0) -> Iterator[int]:
    before = os.geteuid()
    if uid != before:
        os.seteuid(uid)
    try:
        descriptor = os.open(path, flags)
    finally:
        if uid != before:
            os.seteuid(before)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open_and_close(_replay: Replay, path: Path) -> None:
    with _descriptor(path, os.O_RDWR):
        pass


def _store_twice(_replay: Replay, path: Path) -> None:
    with _descriptor(path, os.O_WRONLY) as descriptor:
        os.write(descriptor, b"2")
        os.write(descriptor, b"3")
    _expect(path.read_text(), "3\n", "second store")


def _read_afresh(_replay: Replay, path: Path) -> None:
    with _descriptor(path, os.O_RDONLY) as descriptor:
        first = os.read(descriptor, 10), os.read(descriptor, 10)
        path.write_text("9")
        os.lseek(descriptor, 0, os.SEEK_SET)
        _expect((*first, os.read(descriptor, 10)), (b"1\n", b"", b"9\n"), "reads")


def _change_mode(_replay: Replay, path: Path) -> None:
    path.chmod(0o600)
    _expect(path.stat().st_mode & 0o777, 0o600, "mode")


def _rename_over(_replay: Replay, path: Path) -> None:
    elsewhere = Path("/tmp") / f"fakekernel-{os.getpid()}"
    elsewhere.write_text("5")
    try:
        elsewhere.rename(path)
    finally:
        elsewhere.unlink(missing_ok=True)


def _use_kept(replay: Replay, path: Path) -> None:
    with _descriptor(path, os.O_RDWR) as descriptor:
        replay.do(Unload())
        replay.do(Load())
        _expect(_errno_of(lambda: os.read(descriptor, 10)), errno.ENODEV, "read")
        os.write(descriptor, b"1")


def _kill_writer(replay: Replay, path: Path) -> None:
    script = "import os, sys; os.write(os.open(sys.argv[1], os.O_WRONLY), b'0')"
    with subprocess.Popen([sys.executable, "-ISc", script, str(path)]) as writer:
        replay.do(AwaitBlocked("/" + str(path.relative_to(replay.root))))
        writer.kill()
        _await_uninterruptible(writer.pid)
        _expect(writer.poll(), None, "the killed writer, while its call is under way")
        replay.do(Advance(10))
        _expect(writer.wait(), -signal.SIGKILL, "the killed writer")


def _await_uninterruptible(pid: int) -> None:
    """Return when a process is in state D, which no event tells; a signal has been taken and waits then."""
    deadline = time.monotonic() + ANSWER_SECONDS_MAX
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "D":
        _expect(time.monotonic() < deadline, True, f"state D of {pid}")


def _store_once(_replay: Replay, path: Path) -> None:
    with _descriptor(path, os.O_WRONLY) as descriptor:
        _expect((os.write(descriptor, b"2"), os.write(descriptor, b"3")), (1, 1), "writes")
    _expect(path.read_text(), "2\n", "the second write")


def _read_to_the_end(_replay: Replay, path: Path) -> None:
    with _descriptor(path, os.O_RDONLY) as descriptor:
        _expect((os.read(descriptor, 10), os.read(descriptor, 10)), (b"1\n", b""), "reads")


def _is_pressure(_replay: Replay, path: Path) -> None:
    found = [line.split() for line in path.read_text().splitlines()]
    keys = [[part.partition("=")[0] for part in line] for line in found]
    _expect(keys, [[kind, "avg10", "avg60", "avg300", "total"] for kind in ("some", "full")], "lines")


def _expect_mode(mode: int) -> Callable[[Replay, Path], None]:
    return lambda _, path: _expect(oct(stat.S_IMODE(path.stat().st_mode)), oct(mode), "mode")


def _expect_name(name: str) -> Callable[[Replay, Path], None]:
    return lambda _, path: _expect(name in [line.split()[0] for line in path.read_text().splitlines()], True, name)


def _configured(_replay: Replay, path: Path) -> None:
    _expect(b"CONFIG_DCBM_DMA=m\n" in gzip.decompress(path.read_bytes()), True, "configuration")


ACTIONS: Final[dict[str, Callable[[Replay, Path], object]]] = {
    "stat": lambda _, path: path.stat(),
    "stat says 4096 bytes": lambda _, path: _expect(path.stat().st_size, 4096, "size"),
    "open and close": _open_and_close,
    "open read-write": _open_and_close,
    "truncate": lambda _, path: os.truncate(path, 0),
    "create beside": lambda _, path: (path.parent / "sg_elems").touch(),
    "rename inside": lambda _, path: path.rename(path.parent / "other"),
    "rename over from elsewhere": _rename_over,
    "unlink": lambda _, path: path.unlink(),
    "mkdir beside": lambda _, path: (path.parent / "other").mkdir(),
    "chmod 0600": _change_mode,
    "each write of a descriptor is a store": _store_twice,
    "a read after a rewind is fresh": _read_afresh,
    "use a descriptor held over an unload": _use_kept,
    "kill the writer of a turn-off": _kill_writer,
    "configured as a module": _configured,
    "a second write of a descriptor does nothing": _store_once,
    "a read after the end is empty": _read_to_the_end,
    "is a pressure file": _is_pressure,
    "is a link": lambda _, path: _expect(path.is_symlink(), True, "a link"),
    "is driven by ptdma": lambda _, path: _expect(path.resolve().name, "ptdma", "driver"),
    **{f"mode {mode:04o}": _expect_mode(mode) for mode in (0o200, 0o444, 0o644)},
    **{f"tells {name}": _expect_name(name) for name in COUNTERS},
}
"""What ``Attempt`` can do."""
