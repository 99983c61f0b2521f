# SPDX-License-Identifier: Apache-2.0
"""One started server: its process id, its log, and its certain end.

* Its own session: a Ctrl-C at the terminal reaches us only, so that we stop servers in the right order.
* Its own tether (``tether.py``): if we die without a word, it dies too.
* Stopped by process id, SIGTERM first, SIGKILL when the grace is over; never by name.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.testbed.errors import ServerDiedError

TETHER: Final = Path(__file__).with_name("tether.py")

LOG_TAIL_LINES: Final = 20
"""Enough for a Go panic's first frames or the last flags refused, little enough for a terminal."""

LOG_TAIL_BYTES: Final = 64 * 1024
"""Bounds what is read of a log that may have grown for hours."""


class Server:
    """A running program with a log file; made by ``start``."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process

    def __repr__(self) -> str:
        state = "running" if self.alive else f"ended {self._process.returncode}"
        return f"<{self.name} pid {self.pid} {state}>"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def wait(self, timeout: float | None = None) -> int | None:
        """Return the exit code, or None when it still runs after `timeout` seconds."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def log_tail(self) -> str:
        """Return the last lines of the log."""
        with self.log.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - LOG_TAIL_BYTES))
            lines = stream.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-LOG_TAIL_LINES:])

    def check_alive(self) -> None:
        """Raise ServerDiedError, with the end of the log, when the program is gone."""
        if not self.alive:
            raise ServerDiedError(
                f"{self.name} ended with code {self._process.returncode}; last lines of {self.log}:\n{self.log_tail()}"
            )

    def stop(self, grace_seconds: float) -> None:
        """End the program and everything in its process group; return when it is gone."""
        if self.alive:
            self._signal(signal.SIGTERM)
        if self.wait(grace_seconds) is None:
            self._signal(signal.SIGKILL)
            self.wait()

    def kill(self) -> None:
        """End the program without a word; return when it is gone."""
        if self.alive:
            self._signal(signal.SIGKILL)
        self.wait()

    def _signal(self, number: signal.Signals) -> None:
        # The process is ours and not yet reaped, so neither its id nor its group's can belong to anyone else.
        os.killpg(self.pid, number)


def start(
    name: str,
    command: Sequence[str | Path],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Server:
    """Start `command` in its own session, tethered to this process, its output appended to `log`.

    Args:
        name: what people call it, for messages.
        command: program and arguments; the program is looked up on PATH.
        log: appended to, so that a restarted server keeps its history.
        env: the whole environment; None means ours.
        cwd: working folder; None means ours.

    Raises:
        RuntimeError: called outside the main thread; the kernel would end the server together with that thread.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(f"{name} must be started from the main thread: it ends with the thread that started it")
    tethered = [sys.executable, "-I", "-S", TETHER, str(os.getpid()), *command]
    with log.open("ab") as stream:
        process = subprocess.Popen(
            tethered,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=env,
            cwd=cwd,
        )
    return Server(name, process, log)
