# SPDX-License-Identifier: Apache-2.0
"""The guest's side of the conversation: reads one JSON line, does what it asks, answers with one JSON line.

Each test runs in a child process: it may hang, crash, eat memory or set a memory policy without harm to the next one.
A child that does not end in time is killed; one that cannot be killed (state D) is told of and left behind.

The line is a virtio-serial port and not the network, nor a file in a share: it is there before anything is set up, it
needs no polling, and it says at once when the other end is gone.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, Final

from tests.kernel.suite import kernellog
from tests.kernel.suite.marks import SkippedError, rows_of

PORT_NAME: Final = b"numamigration.ask"
PORTS: Final = "/sys/class/virtio-ports"
OUTPUT_BYTES_MAX: Final = 64 * 1024
MESSAGE_CHARACTERS_MAX: Final = 16 * 1024
VARIABLES_MAX: Final = 40
REPR_CHARACTERS_MAX: Final = 300
KILL_SECONDS_MAX: Final = 5.0
"""How long a killed child may take to go; in state D it does not go."""

RESET_SECONDS: Final = 0.2
"""Between the answer and the reset: the runner's write to the port is no event for the process that resets."""

Json = dict[str, Any]


def main() -> None:
    """Answer until the machine goes down."""
    serve(os.open(_find_port(), os.O_RDWR), Runner(kernellog.Reader()))


def serve(port: int, runner: Runner) -> None:
    """Answer until the other end is gone."""
    _send(port, {"hello": runner.hello()})
    with os.fdopen(os.dup(port), "rb", buffering=0) as stream:
        pending = b""
        while chunk := stream.read(64 * 1024):
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                _send(port, runner.answer(json.loads(line)))


def _find_port() -> str:
    for name in os.listdir(PORTS):
        with open(f"{PORTS}/{name}/name", "rb") as stream:
            if stream.read().strip() == PORT_NAME:
                return f"/dev/{name}"
    raise SystemExit("guest: no virtio-serial port of ours (CONFIG_VIRTIO_CONSOLE)")


def _send(port: int, answer: Json) -> None:
    data = json.dumps(answer).encode() + b"\n"
    while data:
        data = data[os.write(port, data) :]


class Runner:
    """What the host can ask for."""

    def __init__(self, log: kernellog.Log) -> None:
        self._log = log
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def hello(self) -> Json:
        """Return what this boot is."""
        with open("/proc/sys/kernel/random/boot_id") as boot, open("/proc/uptime") as uptime:
            return {
                "release": os.uname().release,
                "boot_id": boot.read().strip(),
                "uptime": float(uptime.read().split()[0]),
                "python": sys.version.split()[0],
            }

    def answer(self, question: Json) -> Json:
        """Return the answer to one question; a mistake of ours is an answer too."""
        try:
            answer: Json = getattr(self, f"do_{question['do']}")(**question.get("with", {}))
        except Exception:  # noqa: BLE001 - whatever it is, the host must hear of it
            answer = {"error": traceback.format_exc()}
        return {"id": question["id"], **answer}

    def do_test(self, module: str, name: str, case: int, seconds: float) -> Json:
        """Run one test in a child; say how it ended, and what the kernel said meanwhile."""
        # Imported here and not in the child: once for all tests of a file, which takes an emulated processor seconds.
        test = getattr(importlib.import_module(module), name)
        arguments = rows_of(test)[case][1:]
        self._log.skip()
        begun = time.monotonic()
        result = in_child(lambda: test(*arguments), seconds)
        lines = self._log.lines()
        return {**result, "seconds": time.monotonic() - begun, "kernel": lines, "splats": kernellog.splats(lines)}

    def do_start(self, command: list[str], env: dict[str, str], user: int) -> Json:
        """Start a program and leave it running; its output goes to a file."""
        number = len(self._children)
        path = f"/tmp/output.{number}"
        with open(path, "wb") as output:
            child = subprocess.Popen(
                command,
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=user or None,
                group=user or None,
                extra_groups=[] if user else None,
            )
        self._children[number] = child
        return {"number": number, "pid": child.pid}

    def do_wait(self, number: int, seconds: float) -> Json:
        """Wait for a started program; code None means that it still runs."""
        try:
            code = self._children[number].wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        return {"code": code, "output": _tail(f"/tmp/output.{number}")}

    def do_signal(self, number: int, signal_number: int) -> Json:
        """Send a signal to a started program."""
        self._children[number].send_signal(signal_number)
        return {}

    def do_reboot(self) -> Json:
        """Reset the machine as soon as the answer is out; disks are synchronized."""
        os.sync()
        if not os.fork():
            time.sleep(RESET_SECONDS)
            with open("/proc/sysrq-trigger", "w") as trigger:
                trigger.write("b")
        return {}


def in_child(work: Callable[[], None], seconds: float) -> Json:
    """Do `work` in a child process and return its result, its output and how it ended."""
    read_end, write_end = os.pipe()
    path = "/tmp/output.test"
    child = os.fork()
    if not child:
        os.close(read_end)
        _child(work, write_end, path)
    os.close(write_end)
    data, ended = _read_all(read_end, seconds)
    os.close(read_end)
    state = "" if ended else _state(child)
    code = _end(child)
    result: Json = (
        json.loads(data) if data and ended else {"outcome": "failed", "message": _death(code, state, seconds)}
    )
    return {**result, "output": _tail(path)}


def _child(work: Callable[[], None], write_end: int, path: str) -> None:
    os.setsid()
    output = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1)  # line by line: a crash keeps what was said
    try:
        work()
        result: Json = {"outcome": "passed"}
    except SkippedError as reason:
        result = {"outcome": "skipped", "message": str(reason)}
    except BaseException as error:  # noqa: BLE001 - SystemExit of a test is a failure as well
        result = {"outcome": "failed", "message": _told(error)}
    sys.stdout.flush()
    os.write(write_end, json.dumps(result).encode())
    os._exit(0)


def _told(error: BaseException) -> str:
    """Return traceback and the values of the variables where it happened: there is no pytest that explains asserts."""
    place = error.__traceback__
    while place and place.tb_frame.f_code.co_filename == __file__:
        place = place.tb_next  # how the runner came to the test says nothing about the test
    error = error.with_traceback(place)
    text = "".join(traceback.format_exception(error))[-MESSAGE_CHARACTERS_MAX:]
    frames = list(traceback.walk_tb(error.__traceback__))
    if not frames:
        return text
    variables = list(frames[-1][0].f_locals.items())[:VARIABLES_MAX]
    shown = "".join(f"    {name} = {repr(value)[:REPR_CHARACTERS_MAX]}\n" for name, value in variables)
    return f"{text}variables there:\n{shown}"


def _read_all(descriptor: int, seconds: float) -> tuple[bytes, bool]:
    """Return what came, and whether the other end was closed in time."""
    deadline = time.monotonic() + seconds
    data = b""
    while select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
        chunk = os.read(descriptor, 64 * 1024)
        if not chunk:
            return data, True
        data += chunk
    return data, False


def _state(child: int) -> str:
    """Return where the kernel has a process: its state and its kernel stack."""
    found = []
    for name in ("status", "stack"):
        try:
            with open(f"/proc/{child}/{name}") as stream:
                found += [line for line in stream.read().splitlines() if name == "stack" or line.startswith("State")]
        except OSError as error:
            found.append(f"{name}: {error}")
    return "\n".join(found)


def _end(child: int) -> int | None:
    """Kill what is left of a child and return its exit code; None when the kernel does not let go of it."""
    deadline = time.monotonic() + KILL_SECONDS_MAX
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    return None


def _death(code: int | None, state: str, seconds: float) -> str:
    if state:
        left = "" if code is not None else "; it cannot be killed"
        return f"no end within {seconds:g} s{left}\n{state}"
    return f"the test's process died: {f'signal {-code}' if code is not None and code < 0 else f'exit code {code}'}"


def _tail(path: str) -> str:
    try:
        with open(path, "rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - OUTPUT_BYTES_MAX))
            return stream.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


if __name__ == "__main__":
    main()
