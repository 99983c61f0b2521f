# SPDX-License-Identifier: Apache-2.0
"""A guest for tests: questions to it, programs in it, files for it, and its reboot.

A guest that is gone, or does not answer, is lost: it is ended, and every later question fails at once with the cause.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from tests.kernel.boot import Boot, GuestDiedError, GuestHungError, Json
from tests.kernel.choice import BOOT_SECONDS_DEFAULT
from tests.kernel.machine import HOST, Parts
from tests.testbed.errors import BedError

ANSWER_SECONDS: Final = 15.0
"""For killing a child and reading its output, on an emulated processor."""

RESET_SECONDS_MAX: Final = 20.0
"""From the answer to the reset, disks synchronized."""

BOOTS_MAX: Final = 2
EXCHANGE: Final = Path("/mnt/exchange")
"""In the guest."""


class Done(NamedTuple):
    """How a program in the guest ended; no code means that it still runs."""

    code: int | None
    output: str


class Guest:
    """One machine; ``with`` boots it and ends it.

    Args:
        parts: what it is made of.
        folder: new folder, made here, for the console's log and the exchange; the caller keeps it or takes it away.
        boot_seconds_max: deadline of a boot.
        answer_seconds: what an answer may take on top of what was asked for.
    """

    def __init__(
        self,
        parts: Parts,
        folder: Path,
        *,
        boot_seconds_max: float = BOOT_SECONDS_DEFAULT,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self.folder = folder
        self.exchange = folder / "exchange"
        self.exchange.mkdir(parents=True)
        self.boots = 0
        self._parts = parts
        self._boot_seconds_max = boot_seconds_max
        self._answer_seconds = answer_seconds
        self._asked = 0
        self._lost: BedError | None = None

    def __repr__(self) -> str:
        return f"<Guest in {self.folder}, boot {self.boots}{', lost' if self._lost else ''}>"

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._boot.end()

    @property
    def hello(self) -> Json:
        """What the runner said of this boot: release, boot_id, uptime, python."""
        return self._boot.hello

    @property
    def pid(self) -> int:
        """Of QEMU."""
        return self._boot.qemu.pid

    def run(
        self, program: Sequence[str], *, seconds: float = 30, env: Mapping[str, str] | None = None, user: int = 0
    ) -> Done:
        """Run a program to its end.

        Raises:
            BedError: it still ran after `seconds`; it goes on.
        """
        done = self.start(program, env=env, user=user).wait(seconds)
        if done.code is None:
            raise BedError(f"{' '.join(program)} still runs after {seconds:g} s; its output:\n{done.output}")
        return done

    def start(self, program: Sequence[str], *, env: Mapping[str, str] | None = None, user: int = 0) -> Started:
        """Start a program and leave it running; as root, or as the user with the id `user`."""
        answer = self.ask("start", {"command": list(program), "env": dict(env or {}), "user": user})
        return Started(self, answer["number"], answer["pid"])

    def hand_over(self, name: str, value: Any) -> None:
        """Let the guest's tests have a value: ``lib.handed(name)``."""
        (self.exchange / f"{name}.json").write_text(json.dumps(value))

    def hand_file(self, source: Path) -> str:
        """Copy a file to the guest; return its path in there."""
        shutil.copy(source, self.exchange)
        return str(EXCHANGE / source.name)

    def hand_folder(self, source: Path, name: str) -> str:
        """Copy a folder to the guest; return its path in there."""
        shutil.copytree(source, self.exchange / name)
        return str(EXCHANGE / name)

    def reboot(self) -> None:
        """Reset the machine and start it again; only the exchange folder outlives that.

        Raises:
            BedError: that is one boot too many.
        """
        self.ask("reboot")
        self._boot.wait_gone(RESET_SECONDS_MAX)
        self._start()

    def ask(self, what: str, arguments: Json | None = None, *, seconds: float = 0) -> Json:
        """Ask the runner and return its answer; it has `seconds` for what is asked.

        Raises:
            GuestDiedError: QEMU is gone.
            GuestHungError: no answer in time.
            BedError: the runner cannot do that.
        """
        if self._lost:
            raise type(self._lost)(f"lost before this test: {self._lost}")
        try:
            answer = self._answer(what, arguments or {}, seconds)
        except (GuestDiedError, GuestHungError) as error:
            self._lost = error
            self._boot.end()
            raise
        if "error" in answer:
            raise BedError(f"the guest's runner failed at {what!r}:\n{answer['error']}")
        return answer

    def _answer(self, what: str, arguments: Json, seconds: float) -> Json:
        self._asked += 1
        self._boot.send({"id": self._asked, "do": what, "with": arguments})
        return self._boot.receive(seconds + self._answer_seconds, f"no answer to {what!r} within {seconds:g} s")

    def _start(self) -> None:
        if self.boots == BOOTS_MAX:
            raise BedError(f"{BOOTS_MAX} boots carry all tests; a further one takes too long")
        self.boots += 1
        try:
            self._boot = Boot.start(self._parts, self.folder, self.boots, self.exchange, self._boot_seconds_max)
        except BedError as error:
            self._lost = error
            raise


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
