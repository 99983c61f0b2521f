# SPDX-License-Identifier: Apache-2.0
"""The host's end of ``suite/hands.py``: kernel files and pages of the guest, as if they were here."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from typing import Any, Final, Self

from tests.kernel.guest import Guest
from tests.kernel.machine import HOST
from tests.testbed.errors import WaitTimeoutError

ANSWER_SECONDS: Final = 30.0
"""What an answer may take on top of what was asked for, on an emulated processor that others use too."""


class Hands:
    """One process in the guest that does as it is told."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        listener.settimeout(ANSWER_SECONDS)
        self._socket = listener.accept()[0]
        self._stream = self._socket.makefile("rwb", buffering=0)
        self.pid: int = self._receive(0)["pid"]

    @classmethod
    def start(cls, guest: Guest) -> Self:
        """Start it in the guest."""
        listener = socket.create_server(("127.0.0.1", 0))
        guest.start(["python3", "-m", "tests.kernel.suite.hands", HOST, str(listener.getsockname()[1])])
        return cls(listener)

    def another(self) -> Hands:
        """Start another process."""
        self.ask("fork")
        return Hands(self._listener)

    def end(self) -> None:
        """Let the process end; one that is in the kernel does when that lets it."""
        self._stream.close()
        self._socket.close()

    def end_all(self) -> None:
        """End it, and have no others."""
        self.end()
        self._listener.close()

    def ask(self, what: str, *arguments: Any, seconds: float = 0) -> Any:
        """Ask and return the answer.

        Raises:
            OSError: the system call in the guest failed, with its errno.
        """
        self.begin(what, *arguments)
        return self.result(seconds)

    def begin(self, what: str, *arguments: Any) -> None:
        """Ask and do not wait."""
        self._stream.write(json.dumps({"do": what, "with": arguments}).encode() + b"\n")

    def result(self, seconds: float = 0) -> Any:
        """Return the answer to what was begun."""
        answer = self._receive(seconds)
        if isinstance(answer, dict) and "errno" in answer:
            raise OSError(answer["errno"], answer["error"])
        return answer

    def read(self, path: str) -> str:
        """Return the content of a kernel file without its newline."""
        text: str = self.ask("read", path)
        return text

    def write(self, path: str, value: object) -> None:
        """Write a value, by one system call."""
        number = self.ask("write", path, str(value))
        assert number == 0, f"{path}: errno {number} for {value!r}"

    def until(self, path: str, wanted: str | Iterable[str], seconds: float = 40) -> str:
        """Return what a file says once it says what is wanted."""
        texts = [wanted] if isinstance(wanted, str) else list(wanted)
        found: str = self.ask("await", path, texts, seconds, seconds=seconds)
        assert found in texts, f"{path} says {found!r} after {seconds:g} s, not {texts}"
        return found

    def vmstat(self, name: str) -> int:
        """Return a counter of /proc/vmstat."""
        found: int = self.ask("vmstat")[name]
        return found

    def _receive(self, seconds: float) -> Any:
        self._socket.settimeout(ANSWER_SECONDS + seconds)
        try:
            line = self._stream.readline()
        except TimeoutError as error:
            raise WaitTimeoutError(f"no answer of the guest's process within {seconds:g} s") from error
        return json.loads(line)
