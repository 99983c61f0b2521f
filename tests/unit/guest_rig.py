# SPDX-License-Identifier: Apache-2.0
"""A stand-in for QEMU: a script that takes its command line, writes the console, and plays the guest in some way.

Run as ``qemu-system-x86_64``, with the way in the variable ``WAY``.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any, Final

from tests.kernel.guest import Guest
from tests.kernel.machine import Parts

WAY: Final = "GUEST_RIG_WAY"
HELLO: Final = {"hello": {"release": "6.12.0-rig", "boot_id": "b", "uptime": 1.0, "python": "3.11.2"}}
LAST_WORDS: Final = "[    9.000000] the last words of the rig"


def install(folder: Path, way: str) -> dict[str, str]:
    """Put the stand-in on a PATH of its own; return the environment that leads to it."""
    folder.mkdir(exist_ok=True)
    program = folder / "qemu-system-x86_64"
    root = Path(__file__).parents[2]
    lines = (
        "#!/bin/sh",
        f"export PYTHONPATH={root} {WAY}={way}",
        f'exec {sys.executable} -m tests.unit.guest_rig "$@"',
    )
    program.write_text("\n".join((*lines, "")))
    program.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def rig_guest(folder: Path, way: str, *, seconds: float = 60) -> Guest:
    """Return a guest whose QEMU is the stand-in; `seconds` bounds both its boot and its answers."""
    install(folder / "bin", way)
    parts = Parts(folder / "bin/qemu-system-x86_64", Path("/dev/null"), None, None, folder)
    return Guest(parts, folder / "run", boot_seconds_max=seconds, answer_seconds=seconds)


class Rig:
    """The guest as the stand-in plays it."""

    def __init__(self, words: list[str]) -> None:
        chardevs = [word for word in words if word.startswith(("socket,", "file,"))]
        self.console, self.port = (Path(word.partition("path=")[2]) for word in chardevs)
        self.line = socket.socket(socket.AF_UNIX)

    def say(self, text: str) -> None:
        """Write a line to the console."""
        with self.console.open("a") as stream:
            stream.write(f"{text}\n")

    def tell(self, answer: dict[str, Any]) -> None:
        """Send a line to the host."""
        self.line.sendall(json.dumps(answer).encode() + b"\n")

    def play(self, way: str) -> None:
        """Be a guest in some way."""
        self.say("[    0.000000] Linux version 6.12.0-rig")
        if way == "refuses":
            sys.exit("qemu-system-x86_64: -numa: there is no such thing")
        self.line.connect(str(self.port))
        if way == "mute":
            self.say(LAST_WORDS)
            signal.pause()
        if way == "panics":
            self.say("Kernel panic - not syncing: the rig says so")
            return
        self.tell(HELLO)
        with self.line.makefile("rb") as questions:
            for question in questions:
                self.answer(json.loads(question), way)

    def answer(self, question: dict[str, Any], way: str) -> None:
        """Answer one question, or do not."""
        if way == "dies_when_asked":
            self.say(LAST_WORDS)
            os.kill(os.getpid(), signal.SIGKILL)
        if way == "silent":
            self.say(LAST_WORDS)
            return
        if question["do"] == "reboot":
            self.tell({"id": question["id"]})
            sys.exit(0)
        self.tell({"id": question["id"], **TEST_ANSWERS[way]})


PASSED: Final = {"outcome": "passed", "output": "", "kernel": [], "splats": [], "seconds": 0.1}
TEST_ANSWERS: Final[dict[str, dict[str, Any]]] = {
    "passes": PASSED,
    "fails": {**PASSED, "outcome": "failed", "message": "assert 1 == 2", "output": "output of the rig"},
    "splats": {**PASSED, "kernel": ["BUG: a rig"], "splats": ["BUG: a rig"]},
    "errs": {"error": "Traceback: the rig"},
}


if __name__ == "__main__":
    Rig(sys.argv[1:]).play(os.environ[WAY])
