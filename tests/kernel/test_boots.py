# SPDX-License-Identifier: Apache-2.0
"""Guests that come up, that do not, and that are gone: a real QEMU and a real kernel, and what is said of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kernel import image
from tests.kernel.agent_bed import Rebooted
from tests.kernel.boot import GuestDiedError, GuestHungError
from tests.kernel.guest import Guest
from tests.kernel.machine import Parts
from tests.kernel.needs import find_program

BOOT_SECONDS_MAX = 8.0
"""Long enough for the kernel's first lines, short enough to wait for."""

RebuiltWith = Callable[[str], Parts]


@pytest.fixture
def rebuilt_with(parts: Parts, tmp_path: Path) -> RebuiltWith:
    """Return a function that makes the guest's parts with another init."""

    def rebuild(init: str) -> Parts:
        busybox = Path(find_program("busybox", os.environ))
        script = f"#!/bin/sh\nmount -t proc proc /proc\n{init}\n"
        content = {**image.initramfs_content(busybox, []), "init": script.encode()}
        initrd = tmp_path / "initrd.gz"
        initrd.write_bytes(image.pack(content, os.environ))
        return parts._replace(initrd=initrd)

    return rebuild


@pytest.mark.own_machine
def test_a_guest_that_does_not_come_up_is_ended_at_its_deadline_and_its_console_shown(
    rebuilt_with: RebuiltWith, tmp_path: Path
) -> None:
    guest = Guest(rebuilt_with("exec busybox sleep 1000"), tmp_path / "run", boot_seconds_max=BOOT_SECONDS_MAX)

    with pytest.raises(GuestHungError) as caught, guest:
        pass

    console = tmp_path / "run" / "console-1.log"
    assert f"boot hang: not up within {BOOT_SECONDS_MAX:g} s" in str(caught.value)
    assert str(console) in str(caught.value)
    assert console.read_text().splitlines()[-1] in str(caught.value)
    assert not running_with(console)


@pytest.mark.own_machine
def test_a_kernel_that_panics_is_noticed_at_once(rebuilt_with: RebuiltWith, tmp_path: Path) -> None:
    guest = Guest(rebuilt_with("echo c >/proc/sysrq-trigger"), tmp_path / "run")

    with pytest.raises(GuestDiedError, match="Kernel panic - not syncing: sysrq triggered crash"), guest:
        pass


@pytest.mark.reboots_guest
def test_a_reboot_is_another_boot_and_leaves_only_what_was_exchanged(guest: Guest, rebooted: Rebooted) -> None:
    assert guest.hello["boot_id"] != rebooted.hello["boot_id"]
    assert guest.run(["ls", "/run/mine"]).code == 2
    assert guest.run(["ls", "/mnt/exchange/ours"]).code == 0


@pytest.mark.ends_guest
def test_a_killed_qemu_fails_what_waits_for_it_and_all_that_comes_after(guest: Guest) -> None:
    asleep = guest.start(["sleep", "1000"])
    os.kill(guest.pid, signal.SIGKILL)

    with pytest.raises(GuestDiedError, match=r"ended with code -9(?s:.*)console-\d\.log"):
        asleep.wait(600)
    with pytest.raises(GuestDiedError, match="lost before this test: QEMU"):
        guest.run(["true"])


def running_with(console: Path) -> list[str]:
    """Return the command lines of processes that write to a console log."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return [line for line in lines if str(console) in line]
