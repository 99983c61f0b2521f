# SPDX-License-Identifier: Apache-2.0
"""Starts our Python programs from a process that has imported them: imports are most of what a start costs.

A start is a fork of that process, which then runs the module as ``python -m`` would: with arguments, environment and
output of its own, and an id and an exit code as any other process has. What a program does at its start is all done in
the fork, for nothing is imported beforehand but modules, and those do nothing when they are imported.

The process ends when whoever started it is gone; what it has started goes on.
"""

from __future__ import annotations

import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import IO, Final, Self

REQUEST_BYTES_MAX: Final = 128 * 1024
"""Arguments and environment; below what a socket takes in one piece by default (net.core.wmem_default)."""

STREAMS: Final = (1, 2)


class Program:
    """A running program; a small part of ``subprocess.Popen``.

    Attributes:
        returncode: None until `poll` or `wait` found that it has ended; minus the signal that ended it.
        stdout: what it prints, errors among it; None when it prints into a file.
    """

    def __init__(self, starter: Starter, pid: int, stdout: IO[str] | None) -> None:
        self.pid, self.stdout = pid, stdout
        self.returncode: int | None = None
        # Nobody else reaps it, so until then the id is nobody else's.
        self._starter, self._pidfd = starter, os.pidfd_open(pid)

    def __repr__(self) -> str:
        return f"<Program {self.pid} {'running' if self.poll() is None else f'ended {self.returncode}'}>"

    def read(self) -> str:
        """Return what it printed until its end, and read no more."""
        assert self.stdout is not None
        with self.stdout as stream:
            return stream.read()

    def poll(self) -> int | None:
        """Return its exit code, None while it runs."""
        if self.returncode is None and select.select([self._pidfd], [], [], 0)[0]:
            self.returncode = self._starter.ask(reap=self.pid)
            os.close(self._pidfd)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit code once it has ended.

        Raises:
            subprocess.TimeoutExpired: it runs after `timeout` seconds.
        """
        if self.returncode is None:
            select.select([self._pidfd], [], [], timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, when it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it without a word."""
        self.send_signal(signal.SIGKILL)


class Starter:
    """A process with modules in it, and the way to ask it."""

    def __init__(self, *modules: str) -> None:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            command = [sys.executable, "-m", "tests.testbed.warm", str(its.fileno()), *modules]
            self._process = subprocess.Popen(command, pass_fds=[its.fileno()], stdin=subprocess.DEVNULL)
        self._channel = ours

    def __repr__(self) -> str:
        return f"<Starter {self._process.pid}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> int:
        """End the process; return its exit code."""
        self._channel.close()
        return self._process.wait()

    def start(self, module: str, *arguments: str, env: Mapping[str, str], stderr: int | None = None) -> Program:
        """Run a module as a program.

        Args:
            module: what ``python -m`` would be given.
            arguments: the program's.
            env: its whole environment.
            stderr: where its errors go, and its output to ours; None lets both be read from its `stdout`.
        """
        request = {"module": module, "arguments": arguments, "env": dict(env)}
        if stderr is not None:
            return Program(self, self.ask(STREAMS[0], stderr, **request), None)
        read, write = os.pipe()
        try:
            pid = self.ask(write, write, **request)
        finally:
            os.close(write)
        return Program(self, pid, os.fdopen(read))

    def ask(self, *streams: int, **request: object) -> int:
        """Send a request with the descriptors that go with it; return the number that answers it."""
        socket.send_fds(self._channel, [json.dumps(request).encode()], streams)
        return int(self._channel.recv(REQUEST_BYTES_MAX))


def serve(channel: socket.socket) -> tuple[str, Sequence[str]] | None:
    """Answer requests; return in each fork with what it shall run, and with None once nobody can ask any more."""
    while True:
        raw, streams, _, _ = socket.recv_fds(channel, REQUEST_BYTES_MAX, len(STREAMS))
        if not raw:
            return None
        request = json.loads(raw)
        if "reap" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["reap"], 0)[1])
        elif not (answer := os.fork()):
            channel.close()
            become(request["env"], streams)
            return request["module"], request["arguments"]
        for stream in streams:
            os.close(stream)
        channel.send(str(answer).encode())


def become(env: Mapping[str, str], streams: Sequence[int]) -> None:
    """Take this environment and these outputs."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(env)
    for stream, standard in zip(streams, STREAMS, strict=True):
        os.dup2(stream, standard)
    for stream in set(streams):
        os.close(stream)


def main() -> None:
    """Import the modules, and serve."""
    descriptor, *modules = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches us too; whoever started us ends first
    for module in modules:
        import_module(module)
    if program := serve(socket.socket(fileno=int(descriptor))):
        module, arguments = program
        sys.argv[1:] = arguments
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
