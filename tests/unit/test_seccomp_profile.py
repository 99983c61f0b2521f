# SPDX-License-Identifier: Apache-2.0
"""The seccomp profile that the chart publishes, in force in a process of its own.

That the whole agent works under it is in tests/apiserver/test_agent_process.py.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.testbed.commands import ROOT
from tests.testbed.confined import PROFILE

CONFINED = "from pathlib import Path; from tests.testbed.confined import PROFILE, confine; confine(PROFILE); "
NO_SYSCALL = "import ctypes, os; libc = ctypes.CDLL(None, use_errno=True); "


def confined(code: str) -> str:
    """Return what this Python code prints under the profile."""
    return subprocess.run(
        [sys.executable, "-c", NO_SYSCALL + CONFINED + code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.parametrize(
    "call",
    [
        pytest.param('libc.mount(b"none", b"/mnt", b"tmpfs", 0, None)', id="mount"),
        pytest.param("libc.unshare(0x10000000)", id="a user namespace"),
        pytest.param("libc.ptrace(16, os.getppid(), None, None)", id="another process"),
        pytest.param('libc.chroot(b"/")', id="another root"),
        pytest.param('libc.memfd_create(b"x", 0)', id="a file without a name"),
        pytest.param("libc.socket(16, 3, 0)", id="netlink"),
        pytest.param("libc.socket(17, 3, 0)", id="raw packets"),
        pytest.param('libc.sethostname(b"x", 1)', id="the host's name"),
        pytest.param('libc.swapon(b"/nowhere", 0)', id="swap"),
        pytest.param('libc.syscall(313, -1, b"", 0)', id="a kernel module"),
        pytest.param("libc.syscall(321, 0, None, 0)", id="bpf"),
    ],
)
def test_what_an_agent_never_does_is_refused(call: str) -> None:
    assert confined(f"print({call}, ctypes.get_errno())") == "-1 1"


def test_pages_can_be_moved_and_bound() -> None:
    """Under RuntimeDefault both are EPERM, and no engine can be verified."""
    move = "libc.syscall(279, 0, 0, None, None, None, 2)"
    bind = "libc.syscall(237, None, 0, 0, None, 0, 0)"

    assert confined(f"print({move}, {bind})") == "0 0"


def test_threads_and_child_processes_start() -> None:
    code = (
        "import threading, sys; thread = threading.Thread(target=print, args=('thread',), kwargs={'flush': True}); "
        "thread.start(); thread.join(); "
        "child = os.posix_spawn('/bin/true', ['true'], {}); print(os.waitpid(child, 0)[1])"
    )

    assert confined(code).split() == ["thread", "0"]


def test_no_name_stands_twice() -> None:
    rules = json.loads(PROFILE.read_text())["syscalls"]
    names = [name for rule in rules if "args" not in rule for name in rule["names"]]

    assert len(names) == len(set(names))
