# SPDX-License-Identifier: Apache-2.0
"""A running guest: its start, questions to it, and its certain end.

* The guest's runner connects to us through a virtio-serial port and says hello; until then it boots.
* Whatever is awaited has a deadline, and the end of QEMU ends every wait at once: its end of the socket closes.
* A message about a guest that hangs or is gone has the last lines of its console and the path of the whole.
* QEMU is a process group of its own, tied to us (``tests.testbed.tether``), and ended by its process id.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from tests.kernel.machine import HOST, Parts, command
from tests.testbed import processes
from tests.testbed.errors import BedError, ServerDiedError, WaitTimeoutError

BOOT_SECONDS_MAX: Final = 100.0
"""From QEMU's start to hello: about 15 s on two idle cores."""

ANSWER_SECONDS: Final = 15.0
"""What an answer may take on top of what was asked for: killing a child, reading its output."""

GONE_SECONDS_MAX: Final = 20.0
"""From the reset to QEMU's end."""

GRACE_SECONDS: Final = 5.0
BOOTS_MAX: Final = 2
CONSOLE_LINES: Final = 40
CONSOLE_BYTES: Final = 64 * 1024
EXCHANGE: Final = Path("/mnt/exchange")

Json = dict[str, Any]


class GuestDiedError(ServerDiedError):
    """QEMU has ended: by itself, killed, or since the guest's kernel panicked."""


class GuestHungError(WaitTimeoutError):
    """The guest did not come up, or did not answer, within its deadline."""


class Done(NamedTuple):
    """How a program in the guest ended; no code means that it still runs."""

    code: int | None
    output: str


class Guest:
    """One machine; ``with`` boots it and ends it.

    Args:
        parts: what it is made of.
        folder: new folder for the console's log and the exchange; the caller keeps it or takes it away.
        boot_seconds_max: deadline of a boot.
    """

    def __init__(self, parts: Parts, folder: Path, *, boot_seconds_max: float = BOOT_SECONDS_MAX) -> None:
        self.parts = parts
        self.folder = folder
        self.exchange = folder / "exchange"
        self.boots = 0
        self.hello: Json = {}
        self._boot_seconds_max = boot_seconds_max
        self._asked = 0
        self._pending = b""

    def __repr__(self) -> str:
        return f"<Guest {self.hello.get('release', 'not up')} boot {self.boots} {self._qemu!r}>"

    def __enter__(self) -> Self:
        self.exchange.mkdir(parents=True)
        self._boot()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    # --- what tests ask for ---------------------------------------------------------------------------------------

    @property
    def console(self) -> Path:
        """Log of the console of this boot."""
        return self.folder / f"console-{self.boots}.log"

    @property
    def pid(self) -> int:
        """Of QEMU."""
        return self._qemu.pid

    def run(
        self, program: Sequence[str], *, seconds: float = 30, env: Mapping[str, str] | None = None, user: int = 0
    ) -> Done:
        """Run a program to its end.

        Raises:
            GuestHungError: it still ran after `seconds`; it goes on.
        """
        started = self.start(program, env=env, user=user)
        done = started.wait(seconds)
        if done.code is None:
            raise GuestHungError(f"{' '.join(program)} still runs after {seconds:g} s; its output:\n{done.output}")
        return done

    def start(self, program: Sequence[str], *, env: Mapping[str, str] | None = None, user: int = 0) -> Started:
        """Start a program and leave it running; as root, or as the user with the id `user`."""
        answer = self.ask("start", {"command": list(program), "env": dict(env or {}), "user": user})
        return Started(self, answer["number"], answer["pid"])

    def hand_over(self, name: str, value: Any) -> None:
        """Let the guest's tests have a value: ``lib.handed(name)``."""
        (self.exchange / f"{name}.json").write_text(json.dumps(value))

    def hand_file(self, source: Path, name: str | None = None) -> str:
        """Copy a file to the guest; return its path in there."""
        name = name or source.name
        shutil.copy(source, self.exchange / name)
        return str(EXCHANGE / name)

    def reboot(self) -> None:
        """Reset the machine and start it again; only the exchange folder outlives that.

        Raises:
            BedError: that was one boot too many.
        """
        self.ask("reboot")
        if self._qemu.wait(GONE_SECONDS_MAX) is None:
            raise GuestHungError(self._with_console(f"the guest did not reset within {GONE_SECONDS_MAX:g} s"))
        self._end()
        self._boot()

    def ask(self, what: str, arguments: Json | None = None, *, seconds: float = 0) -> Json:
        """Ask the runner and return its answer; it has `seconds` for what is asked.

        Raises:
            GuestDiedError: QEMU is gone.
            GuestHungError: no answer in time.
            BedError: the runner cannot do that.
        """
        self._asked += 1
        question = {"id": self._asked, "do": what, "with": arguments or {}}
        deadline = time.monotonic() + seconds + ANSWER_SECONDS
        try:
            self._line.sendall(json.dumps(question).encode() + b"\n")
        except OSError as error:
            raise self._died() from error
        while (answer := self._next_line(deadline, f"no answer to {what!r}")).get("id") != self._asked:
            # Late, to a question that we gave up.
            continue
        if "error" in answer:
            raise BedError(f"the guest's runner failed at {what!r}:\n{answer['error']}")
        return answer

    # --- start and end --------------------------------------------------------------------------------------------

    def _boot(self) -> None:
        if self.boots == BOOTS_MAX:
            raise BedError(f"{BOOTS_MAX} boots carry all tests; a further one takes too long")
        self.boots += 1
        self._pending = b""
        # A socket's path has 107 bytes at most (unix(7)), and the run's folder may be deep.
        with tempfile.TemporaryDirectory(prefix="guest-") as short, socket.socket(socket.AF_UNIX) as listener:
            port = Path(short) / "port"
            listener.bind(str(port))
            listener.listen(1)
            words = command(self.parts, console=self.console, port=port, exchange=self.exchange)
            self._qemu = processes.start("QEMU", words, self.folder / f"qemu-{self.boots}.log")
            try:
                self._line = self._accept(listener)
                self._await_hello()
            except BaseException:
                self._end()
                raise

    def _accept(self, listener: socket.socket) -> socket.socket:
        # QEMU connects before it starts the machine, or it says in its log why not.
        listener.settimeout(0.1)
        deadline = time.monotonic() + self._boot_seconds_max
        while time.monotonic() < deadline:
            try:
                return listener.accept()[0]
            except TimeoutError:
                self._qemu.check_alive()
        raise GuestHungError(f"QEMU did not start within {self._boot_seconds_max:g} s: {self._qemu.log_tail()}")

    def _await_hello(self) -> None:
        limit = self._boot_seconds_max
        self.hello = self._next_line(time.monotonic() + limit, f"boot hang: not up within {limit:g} s")["hello"]

    def _end(self) -> None:
        line = getattr(self, "_line", None)
        if line:
            line.close()
        self._qemu.stop(GRACE_SECONDS)

    # --- the line -------------------------------------------------------------------------------------------------

    def _next_line(self, deadline: float, otherwise: str) -> Json:
        while b"\n" not in self._pending:
            self._line.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                chunk = self._line.recv(64 * 1024)
            except TimeoutError as error:
                raise GuestHungError(self._with_console(otherwise)) from error
            except OSError as error:
                raise self._died() from error
            if not chunk:
                raise self._died()
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        answer: Json = json.loads(line)
        return answer

    def _died(self) -> GuestDiedError:
        code = self._qemu.wait(GRACE_SECONDS)
        ended = f"QEMU (pid {self.pid}) has ended with code {code}" if code is not None else "QEMU has hung up"
        return GuestDiedError(self._with_console(f"{ended}: {self._qemu.log_tail() or 'it said nothing'}"))

    def _with_console(self, text: str) -> str:
        return f"{text}\nlast lines of {self.console}:\n{console_tail(self.console)}"


class Started(NamedTuple):
    """A program that runs in the guest."""

    guest: Guest
    number: int
    pid: int

    def wait(self, seconds: float) -> Done:
        """Return how it ended, or after `seconds` what it has written so far."""
        answer = self.guest.ask("wait", {"number": self.number, "seconds": seconds}, seconds=seconds)
        return Done(answer["code"], answer["output"])

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.guest.ask("signal", {"number": self.number, "signal_number": number})


def from_guest(url: str) -> str:
    """Return the URL at which the guest reaches what listens on this machine's loopback."""
    return url.replace("127.0.0.1", HOST)


def console_tail(console: Path) -> str:
    """Return the last lines of a console."""
    try:
        with console.open("rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - CONSOLE_BYTES))
            lines = stream.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return "(nothing: the machine did not start)"
    return "\n".join(lines[-CONSOLE_LINES:])
