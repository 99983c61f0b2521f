# SPDX-License-Identifier: Apache-2.0
"""The process itself, without an API server: start, signals, exit codes."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from queue import SimpleQueue
from typing import Final

import pytest

from numamigration_agent.__main__ import Crash, Events, run
from numamigration_agent.health import Health
from numamigration_agent.settings import parse_settings
from tests.fakekernel.config import HostConfig
from tests.fakekernel.host import FakeHost

PROJECT: Final = Path(__file__).parents[2]
STOP_SECONDS_MAX: Final = 30  # for a machine under load; the promise is one second and is measured elsewhere


def command(*flags: str) -> list[str]:
    return [sys.executable, "-m", "numamigration_agent", *flags]


def environment() -> dict[str, str]:
    path = os.pathsep.join(str(PROJECT / room) for room in ("crds", "node-agent"))
    return {"PATH": os.environ["PATH"], "PYTHONPATH": path}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_agent_well_and_changes_no_knob(tmp_path: Path, number: signal.Signals) -> None:
    """Promises 6 and 10: no knob is touched, and nobody is waited for."""
    with FakeHost(HostConfig(), real_time=False) as host:
        flags = (
            f"--host-root={host.root}",
            f"--state-dir={tmp_path / 'state'}",
            "--node-name=node-a",
            "--api-server=https://127.0.0.1:9",  # the discard port: nobody answers
            "--start-jitter-seconds-max=0",
        )
        with subprocess.Popen(command(*flags), env=environment(), stderr=subprocess.PIPE, text=True) as agent:
            try:
                assert agent.stderr is not None
                assert "starting" in agent.stderr.readline()
                agent.send_signal(number)
                _, rest = agent.communicate(timeout=STOP_SECONDS_MAX)
            finally:
                agent.kill()  # or an agent that does not end would hold this test for ever

        assert agent.returncode == 0
        assert "every knob stays as it is" in rest
        assert host.stores == []


def test_a_signal_ends_an_agent_whose_kernel_file_does_not_answer(tmp_path: Path) -> None:
    """Promise 10: the thread that reads it is left behind."""
    silent = tmp_path / "proc/sys/kernel/random/boot_id"
    silent.parent.mkdir(parents=True)
    os.mkfifo(silent)
    flags = (
        f"--host-root={tmp_path}",
        f"--state-dir={tmp_path / 'state'}",
        "--node-name=node-a",
        "--api-server=https://127.0.0.1:9",
        "--start-jitter-seconds-max=0",
    )
    with subprocess.Popen(command(*flags), env=environment(), stderr=subprocess.PIPE, text=True) as agent:
        try:
            with silent.open("wb"):  # returns once the agent reads, and nothing is ever written
                agent.send_signal(signal.SIGTERM)
                agent.communicate(timeout=STOP_SECONDS_MAX)
        finally:
            agent.kill()

    assert agent.returncode == 0


def test_an_agent_whose_kernel_file_does_not_answer_is_alive(tmp_path: Path) -> None:
    """Promise 10: a restart would mend nothing."""
    silent = tmp_path / "proc/sys/kernel/random/boot_id"
    silent.parent.mkdir(parents=True)
    os.mkfifo(silent)
    with socket.create_server(("127.0.0.1", 0)) as finder:
        port = finder.getsockname()[1]
    flags = (
        f"--host-root={tmp_path}",
        f"--state-dir={tmp_path / 'state'}",
        "--node-name=node-a",
        "--api-server=https://127.0.0.1:9",
        "--start-jitter-seconds-max=0",
        f"--health-address=127.0.0.1:{port}",
    )
    with subprocess.Popen(command(*flags), env=environment(), stderr=subprocess.DEVNULL) as agent:
        try:
            with silent.open("wb"):  # returns once the agent reads, and nothing is ever written
                line = http.client.HTTPConnection("127.0.0.1", port, timeout=STOP_SECONDS_MAX)
                line.request("GET", "/healthz")
                answer = line.getresponse().read()
                line.close()
        finally:
            agent.kill()

    assert answer == b"alive\n"


def test_an_address_that_is_taken_is_one_line_and_exit_code_two() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"--health-address=127.0.0.1:{taken.getsockname()[1]}"
        flags = ("--node-name=node-a", "--api-server=https://127.0.0.1:9", "--log-level=error", address)
        done = subprocess.run(command(*flags), env=environment(), capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "health_address: cannot listen there: " in done.stderr


def test_a_crashed_thread_ends_the_agent_instead_of_leaving_it_half_alive(tmp_path: Path) -> None:
    settings = parse_settings(
        ["--node-name=n", "--api-server=https://127.0.0.1:9", f"--host-root={tmp_path}", f"--state-dir={tmp_path}"], {}
    )
    events: Events = SimpleQueue()
    events.put(Crash("status-applier", ValueError("a fault of ours")))

    assert run(settings, events, Health(events.put)) == 1


def test_a_broken_setting_is_one_line_and_exit_code_two() -> None:
    done = subprocess.run(
        command("--node-name=node-a", "--api-server=https://127.0.0.1:9", "--drift-check-seconds=never"),
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "drift_check_seconds: 'never'" in done.stderr
