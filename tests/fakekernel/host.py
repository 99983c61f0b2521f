# SPDX-License-Identifier: Apache-2.0
"""A fake host as a context manager: its files under ``root``, its kernel in a child process.

    with FakeHost(HostConfig()) as host:
        subprocess.run([..., "--host-root", host.root])
        host.do(Drift("/proc/sys/kernel/numa_balancing", "0"))

* Started when the files are there: the child says so through a pipe, nothing polls.
* The child lives as long as its standard input is open. That end is ours, so it also closes when we are killed. (The
  parent-death signal would fire already when the starting *thread* ends; see prctl(2), PR_SET_PDEATHSIG.)
* However the child ended, a dead mount is taken away: one that nobody serves answers ENOTCONN to everything.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from errno import EINVAL
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

import msgspec

from tests.fakekernel.config import HostConfig
from tests.fakekernel.control import AwaitHeld, Command, MoveOwnPages, ReadLog, ReadStores, Reply, TakeSnapshot
from tests.fakekernel.model import Snapshot, Store
from tests.fakekernel.moves import Moved
from tests.fakekernel.parsing import KernelError

START_SECONDS_MAX: Final = 60.0
"""A start takes a fraction of a second; more than this means that it never comes up."""
STOP_SECONDS_MAX: Final = 10.0
"""After that the child is killed."""
MNT_FORCE, MNT_DETACH = 1, 2
"""<linux/mount.h>"""
FSNAME: Final = "fakekernel"
"""What the table of mounts calls a fake host's source."""
PROJECT: Final = Path(__file__).resolve().parents[2]


class FakeHostError(Exception):
    """The fake host itself does not work, which says nothing about the kernel it plays."""


class FakeHost:
    """One fake host; ``root`` is what an agent takes as ``--host-root``."""

    def __init__(self, config: HostConfig | None = None, *, real_time: bool = True, folder: Path | None = None) -> None:
        """Describe a host.

        Args:
            config: the host as it boots; None means the default one, V6 with four channels.
            real_time: False lets time stand still, it then moves by the ``Advance`` command only.
            folder: in which its own folder is made; None means the system's for temporary files.
        """
        self._folder = folder
        self.config = config or HostConfig()
        self._real_time = real_time
        self._lock = threading.Lock()
        self._home: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._replies: BinaryIO | None = None

    def __repr__(self) -> str:
        state = f"pid {self.pid}" if self._process else "not started"
        return f"<FakeHost {self.config.dialect} {state}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def home(self) -> Path:
        """The host's own folder: mount point, control socket, log."""
        if self._home is None:
            raise FakeHostError("not started")
        return self._home

    @property
    def root(self) -> Path:
        """Where the host's files are."""
        return self.home / "root"

    @property
    def pid(self) -> int:
        """The child's process id."""
        if self._process is None:
            raise FakeHostError("not started")
        return self._process.pid

    def path(self, kernel_path: str) -> Path:
        """Return where a kernel file, named as on a real host, is found."""
        return self.root / kernel_path.lstrip("/")

    def start(self) -> None:
        """Start the child and return when its files are there.

        Raises:
            FakeHostError: it did not come up; the message has its last words.
        """
        self._home = Path(tempfile.mkdtemp(prefix="fakekernel-", dir=self._folder))
        self._home.chmod(0o755)  # so that tests may look as somebody else than root
        self.root.mkdir()
        (self._home / "config.json").write_bytes(msgspec.json.encode(self.config))
        try:
            self._launch()
        except BaseException:
            self.stop()
            raise

    def _launch(self) -> None:
        ready, ready_writer = os.pipe()
        with os.fdopen(ready, "rb") as heard:
            self._process = self._popen(ready_writer)
            if not (select.select([heard], [], [], START_SECONDS_MAX)[0] and heard.readline()):
                raise FakeHostError(f"the fake kernel did not come up: {(self.home / 'log').read_text().strip()}")
        self._control = socket.socket(socket.AF_UNIX)
        self._control.connect(str(self.home / "control"))
        self._replies = self._control.makefile("rb")

    def _popen(self, ready_writer: int) -> subprocess.Popen[bytes]:
        try:
            with (self.home / "log").open("wb") as log:
                return subprocess.Popen(
                    self._command(ready_writer),
                    cwd=PROJECT,
                    # Coverage counts what is tested, not what it is tested with: a tracer doubles what a call costs.
                    env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")},
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    pass_fds=[ready_writer],
                    start_new_session=True,  # a Ctrl-C is for us; we then stop the child in our own order
                )
        finally:
            # Ours must go, or we would wait for a child that died without a word.
            os.close(ready_writer)

    def _command(self, ready_writer: int) -> list[str]:
        home = self.home
        command = [sys.executable, "-m", "tests.fakekernel", f"--mount={self.root}", f"--config={home / 'config.json'}"]
        command += [f"--control={home / 'control'}", f"--ready-fd={ready_writer}", "--until-stdin-closes"]
        return command if self._real_time else [*command, "--frozen"]

    def do(self, command: Command) -> Reply:
        """Do something to the host; see ``control``.

        Raises:
            KernelError: the host's kernel refuses.
            FakeHostError: the command makes no sense, or the child is gone.
        """
        with self._lock:
            return _understood(self._exchange(msgspec.json.encode(command) + b"\n"))

    def move_own_pages(self, command: MoveOwnPages) -> Moved:
        """Move the agent's own pages; other commands pass while an engine holds this one up.

        Raises:
            KernelError: the host's kernel refuses.
            FakeHostError: the command makes no sense, or the child is gone.
        """
        return move_own_pages(self.home / "control", command)

    def _exchange(self, line: bytes) -> bytes:
        if self._control is None or self._replies is None:
            raise FakeHostError("not started")
        try:
            self._control.sendall(line)
            reply = self._replies.readline()
        except ConnectionError as error:
            raise FakeHostError("the fake kernel is gone") from error
        return reply

    @property
    def stores(self) -> list[Store]:
        """Every call of a write handler so far, oldest first."""
        return list(self.do(ReadStores()).stores)

    @property
    def kernel_log(self) -> list[str]:
        """What driver and core have written to the kernel's log since boot, oldest first."""
        return list(self.do(ReadLog()).log)

    def await_held(self) -> str:
        """Return the path of the file whose store is held at the gate, once one is.

        Raises:
            FakeHostError: none was for long.
        """
        return self.do(AwaitHeld()).held

    def snapshot(self) -> Snapshot:
        """Return the kernel's state."""
        snapshot = self.do(TakeSnapshot()).snapshot
        if snapshot is None:
            raise FakeHostError("no snapshot in the reply")
        return snapshot

    def stop(self) -> None:
        """End the child, take the mount away and remove the folder; may be called again."""
        if self._control and self._replies:
            self._replies.close()
            self._control.close()
            self._control = self._replies = None
        if self._process:
            _end(self._process)
            self._process = None
        if self._home:
            detach(self.root)
            # Not rmtree for the mount point: were it still mounted, that must fail rather than go inside.
            self.root.rmdir()
            shutil.rmtree(self._home)
            self._home = None


def _understood(line: bytes) -> Reply:
    if not line:
        raise FakeHostError("the fake kernel is gone")
    reply = msgspec.json.decode(line, type=Reply)
    if reply.errno:
        raise KernelError(reply.errno)
    if reply.message:
        raise FakeHostError(reply.message)
    return reply


def move_own_pages(control: Path, command: MoveOwnPages) -> Moved:
    """Move the agent's own pages on the host whose control socket that is; see ``FakeHost.move_own_pages``."""
    moved = ask(control, command).moved
    if moved is None:
        raise FakeHostError("no move in the reply")
    return moved


def ask(control: Path, command: Command) -> Reply:
    """Do something to the host whose control socket that is; see ``FakeHost.do``."""
    with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rb") as replies:
        connection.connect(str(control))
        connection.sendall(msgspec.json.encode(command) + b"\n")
        return _understood(replies.readline())


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.stdin:
        process.stdin.close()
    try:
        process.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def detach(folder: Path) -> None:
    """Unmount a fake host from a folder, now, whoever holds a file open; anything else mounted there stays.

    Works too when the file system's process is dead: force ends its connection, so that no reader hangs, and a lazy
    unmount asks nobody. Source: umount2(2); fs/fuse/inode.c (fuse_umount_begin).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    while is_mounted(folder):
        if os.geteuid() != 0:  # who mounted through the set-uid helper unmounts through it
            subprocess.run(["fusermount3", "-u", "-z", folder], check=True)
        # EINVAL: another thread or process was faster.
        elif libc.umount2(os.fsencode(folder), MNT_FORCE | MNT_DETACH) != 0 and ctypes.get_errno() != EINVAL:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))


def is_mounted(folder: Path) -> bool:
    """Whether a fake host, dead or alive, is mounted on a folder.

    Asks the table of mounts (proc_pid_mountinfo(5)), since a dead mount answers nothing.
    """
    place = str(folder).replace(" ", "\\040")
    table = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return any(fields[4] == place and fields[fields.index("-") + 1 :][:2] == ["fuse", FSNAME] for fields in table)
