# SPDX-License-Identifier: Apache-2.0
"""Parts of the cluster bed that need no cluster: what it refuses, what it asks of the fake kernel, its tunnel."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from pathlib import Path
from random import Random

import pytest

from tests.cluster import tunnel
from tests.cluster.bed import with_cgroup_folder
from tests.cluster.needs import find_program, require_containers
from tests.fakekernel.config import HostConfig
from tests.fakekernel.model import FakeKernel
from tests.testbed.errors import MissingNeedError

pytestmark = pytest.mark.uncounted


def test_somebody_who_is_not_root_is_told_so_at_once() -> None:
    with pytest.raises(MissingNeedError, match="needs root"):
        require_containers(uid=1000)


def test_a_missing_program_is_named_with_what_installs_it() -> None:
    with pytest.raises(MissingNeedError, match="no-such-program is missing; run: scripts/setup cluster"):
        find_program("no-such-program")


def test_a_machine_that_lacks_something_ends_the_command_with_two(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.cluster", "prepare"]

    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert done.stderr.startswith("error: ")


def test_the_fake_kernel_has_a_folder_for_the_machines_cgroups() -> None:
    kernel = FakeKernel(with_cgroup_folder(HostConfig(extra_files={"/sys/other": "x"})), Random(1))

    assert kernel.listdir("/sys/fs") == ["cgroup"]
    assert "other" in kernel.listdir("/sys")


def test_the_tunnel_carries_on_one_way_when_the_other_has_ended() -> None:
    """A client that has said all it has to say still gets its answer."""
    client, near = socket.socketpair()
    far, server = socket.socketpair()
    carrier = threading.Thread(target=tunnel.splice, args=(near, far))
    carrier.start()

    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    asked = server.makefile("rb").read()
    server.sendall(b"answer")
    server.close()
    answered = client.makefile("rb").read()
    carrier.join()
    for end in (client, near, far):
        end.close()

    assert (asked, answered) == (b"question", b"answer")
