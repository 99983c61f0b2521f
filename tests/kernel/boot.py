# SPDX-License-Identifier: Apache-2.0
"""One boot of a guest: QEMU's process, the console's log, and the line to the runner in there.

* The runner connects to us through a virtio-serial port and says hello; until then the guest boots.
* Whatever is awaited has a deadline, and the end of QEMU ends every wait at once: its end of the socket closes.
* A message about a guest that hangs or is gone has the last lines of its console and the path of the whole.
* QEMU is a process group of its own, tied to us (``tests.testbed.tether``), and ended by its process id.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Self

from tests.kernel.machine import Parts, command
from tests.testbed import processes
from tests.testbed.errors import ServerDiedError, WaitTimeoutError

GRACE_SECONDS: Final = 5.0
"""For QEMU to end by SIGTERM; there is nothing in it to save."""

ACCEPT_SECONDS: Final = 0.1
"""Between two looks whether QEMU is still there while it starts."""

CONSOLE_LINES: Final = 40
CONSOLE_BYTES: Final = 64 * 1024
CHUNK_BYTES: Final = 64 * 1024

Json = dict[str, Any]


class GuestDiedError(ServerDiedError):
    """QEMU has ended: by itself, killed, or since the guest's kernel panicked."""


class GuestHungError(WaitTimeoutError):
    """The guest did not come up, or did not answer, within its deadline."""


class Boot:
    """A QEMU that runs, connected to us; made by ``start``."""

    def __init__(self, qemu: processes.Server, line: socket.socket, console: Path) -> None:
        self.qemu = qemu
        self.console = console
        self.hello: Json = {}
        self._line = line
        self._pending = b""

    @classmethod
    def start(cls, parts: Parts, folder: Path, number: int, exchange: Path, seconds: float) -> Self:
        """Start QEMU and return once the runner has said hello.

        Raises:
            GuestDiedError: QEMU ended before that.
            GuestHungError: no hello within `seconds`.
        """
        console = folder / f"console-{number}.log"
        with ExitStack() as cleanup:
            # A socket's path has 107 bytes at most (unix(7)), and the run's folder may be deep.
            short = cleanup.enter_context(tempfile.TemporaryDirectory(prefix="guest-"))
            listener = cleanup.enter_context(socket.socket(socket.AF_UNIX))
            port = Path(short) / "port"
            listener.bind(str(port))
            listener.listen(1)
            words = command(parts, console=console, port=port, exchange=exchange)
            qemu = processes.start("QEMU", words, folder / f"qemu-{number}.log")
            with ExitStack() as attempt:
                attempt.callback(qemu.stop, GRACE_SECONDS)
                line = attempt.enter_context(_accept(listener, qemu, seconds))
                boot = cls(qemu, line, console)
                boot.hello = boot.receive(seconds, f"boot hang: not up within {seconds:g} s")["hello"]
                attempt.pop_all()
        return boot

    def send(self, question: Json) -> None:
        """Send a line to the runner."""
        try:
            self._line.sendall(json.dumps(question).encode() + b"\n")
        except OSError as error:
            raise self._died() from error

    def receive(self, seconds: float, otherwise: str) -> Json:
        """Return the runner's next line; when none comes within `seconds`, an error that begins with `otherwise`."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self._pending:
            self._line.settimeout(max(0.001, deadline - time.monotonic()))
            self._pending += self._chunk(otherwise)
        line, _, self._pending = self._pending.partition(b"\n")
        answer: Json = json.loads(line)
        return answer

    def wait_gone(self, seconds: float) -> None:
        """Return when QEMU has ended by itself, as it does when the guest resets."""
        if self.qemu.wait(seconds) is None:
            raise GuestHungError(self._with_console(f"the guest did not reset within {seconds:g} s"))
        self.end()

    def end(self) -> None:
        """End QEMU; nothing happens when it is gone."""
        self._line.close()
        self.qemu.stop(GRACE_SECONDS)

    def _chunk(self, otherwise: str) -> bytes:
        try:
            chunk = self._line.recv(CHUNK_BYTES)
        except TimeoutError as error:
            raise GuestHungError(self._with_console(otherwise)) from error
        except OSError as error:
            raise self._died() from error
        if not chunk:
            raise self._died()
        return chunk

    def _died(self) -> GuestDiedError:
        code = self.qemu.wait(GRACE_SECONDS)
        ended = "has hung up" if code is None else f"(pid {self.qemu.pid}) ended with code {code}"
        return GuestDiedError(self._with_console(f"QEMU {ended}; it said: {self.qemu.log_tail() or 'nothing'}"))

    def _with_console(self, text: str) -> str:
        return f"{text}\nlast lines of {self.console}:\n{console_tail(self.console)}"


def console_tail(console: Path) -> str:
    """Return the last lines of a console."""
    try:
        with console.open("rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - CONSOLE_BYTES))
            lines = stream.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        lines = []
    return "\n".join(lines[-CONSOLE_LINES:]) or "(nothing)"


def _accept(listener: socket.socket, qemu: processes.Server, seconds: float) -> socket.socket:
    # QEMU connects before it starts the machine, or says in its log why it does not.
    listener.settimeout(ACCEPT_SECONDS)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            return listener.accept()[0]
        except TimeoutError:
            qemu.check_alive()
    raise GuestHungError(f"QEMU did not connect within {seconds:g} s; it said: {qemu.log_tail() or 'nothing'}")
