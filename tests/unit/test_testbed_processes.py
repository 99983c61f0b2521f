# SPDX-License-Identifier: Apache-2.0
"""Whatever the test bed starts ends, and says why when it ends by itself."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.testbed import processes
from tests.testbed.binaries import Binaries
from tests.testbed.controlplane import ADDRESS_IN_USE, START_TRIES_MAX, ControlPlane, free_ports, is_free
from tests.testbed.errors import BedError, ServerDiedError

pytestmark = pytest.mark.uncounted

FOREVER = "exec /bin/sleep 1000"


def shell(text: str, log: Path) -> processes.Server:
    return processes.start("a server", ["/bin/sh", "-c", text], log)


def test_stopped_server_is_gone(tmp_path: Path) -> None:
    server = shell(FOREVER, tmp_path / "log")
    server.stop(grace_seconds=30)

    assert not Path(f"/proc/{server.pid}").exists()


def test_server_that_ignores_the_polite_signal_is_killed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "deaf")
    server = shell(f"trap '' TERM; echo >{tmp_path}/deaf; {FOREVER}", tmp_path / "log")
    (tmp_path / "deaf").read_text()  # returns when the shell is past its trap
    server.stop(grace_seconds=0.1)

    assert server.wait() == -signal.SIGKILL


def test_stopping_twice_is_harmless(tmp_path: Path) -> None:
    server = shell(FOREVER, tmp_path / "log")
    server.stop(grace_seconds=30)
    server.stop(grace_seconds=30)

    assert not server.alive


def test_death_of_a_server_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    server = shell("for i in 1 2 3; do echo line $i; done; echo cannot bind; exit 3", tmp_path / "log")
    server.wait(30)

    with pytest.raises(ServerDiedError, match=r"(?s)a server ended with code 3.*line 3\ncannot bind"):
        server.check_alive()


def test_log_tail_is_bounded(tmp_path: Path) -> None:
    server = shell("i=0; while [ $i -lt 100 ]; do echo line $i; i=$((i+1)); done", tmp_path / "log")
    server.wait(30)

    assert server.log_tail().splitlines() == [f"line {number}" for number in range(80, 100)]


def test_restarted_server_keeps_its_log(tmp_path: Path) -> None:
    for text in ("echo first", "echo second"):
        shell(text, tmp_path / "log").wait(30)

    assert (tmp_path / "log").read_text() == "first\nsecond\n"


def test_server_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """No ``finally`` runs after SIGKILL; the kernel's parent-death signal does."""
    os.mkfifo(tmp_path / "up")
    parent_code = (
        "import pathlib, signal, sys; from tests.testbed import processes;"
        f"command = ['/bin/sh', '-c', 'echo >{tmp_path}/up; {FOREVER}'];"
        "server = processes.start('s', command, pathlib.Path(sys.argv[1]));"
        "print(server.pid, flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", parent_code, tmp_path / "log"], stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        server = os.pidfd_open(int(parent.stdout.readline()))
        (tmp_path / "up").read_text()  # returns when the tether has become the server
        parent.kill()

    ended, _, _ = select.select([server], [], [], 30)
    os.close(server)
    assert ended


def test_server_is_not_started_from_a_thread_that_would_take_it_along(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError, match="main thread"):
        pool.submit(shell, FOREVER, tmp_path / "log").result()


def test_ports_are_distinct_and_free() -> None:
    ports = free_ports(3)

    assert len(set(ports)) == 3
    assert all(map(is_free, ports))


def fake_binaries(tmp_path: Path, etcd: str, apiserver: str = FOREVER) -> Binaries:
    paths = {"etcd": tmp_path / "etcd", "kube_apiserver": tmp_path / "kube-apiserver"}
    for path, text in zip(paths.values(), (etcd, apiserver), strict=True):
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    return Binaries(**paths, kubectl=Path("kubectl"))


def test_server_that_dies_at_start_is_told_with_its_log(tmp_path: Path) -> None:
    binaries = fake_binaries(tmp_path, "echo 'no space left on device'; exit 1")

    with pytest.raises(ServerDiedError, match=r"(?s)etcd ended with code 1.*no space left"), ControlPlane(binaries):
        pytest.fail("it must not come up")


def test_taken_port_is_tried_again_with_others_a_bounded_number_of_times(tmp_path: Path) -> None:
    binaries = fake_binaries(tmp_path, f'echo "{ADDRESS_IN_USE}: $2"; exit 1')
    folder = tmp_path / "bed"

    with pytest.raises(ServerDiedError, match=ADDRESS_IN_USE), ControlPlane(binaries, folder):
        pytest.fail("it must not come up")

    assert len(set((folder / "etcd.log").read_text().splitlines())) == START_TRIES_MAX


def test_failed_start_leaves_the_other_server_stopped(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pid")
    binaries = fake_binaries(
        tmp_path,
        etcd=f"echo $$ >{tmp_path}/pid; {FOREVER}",
        apiserver=f"read pid <{tmp_path}/pid; echo etcd is $pid; exit 1",
    )

    with pytest.raises(ServerDiedError, match=r"etcd is \d+") as failure, ControlPlane(binaries):
        pytest.fail("it must not come up")

    etcd_pid = str(failure.value).rsplit(maxsplit=1)[-1]
    assert not Path(f"/proc/{etcd_pid}").exists()


def test_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letters").touch()

    with pytest.raises(BedError, match="not empty"), ControlPlane(fake_binaries(tmp_path, FOREVER), tmp_path):
        pytest.fail("it must not come up")
