# SPDX-License-Identifier: Apache-2.0
"""Whatever becomes of a guest, whoever waits for it hears of it, with the end of its console; QEMU is a stand-in."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.kernel import image, machine
from tests.kernel.boot import CONSOLE_LINES, GuestDiedError, GuestHungError, console_tail
from tests.kernel.choice import Choice, read_choice
from tests.kernel.conftest import pytest_collection_modifyitems
from tests.kernel.guest import BOOTS_MAX, from_guest
from tests.kernel.machine import Parts
from tests.kernel.session import RUNS_KEPT, SESSION, Session
from tests.testbed.errors import BedError, ServerDiedError
from tests.unit.guest_rig import LAST_WORDS, install, rig_guest

pytestmark = pytest.mark.uncounted

ROOT = Path(__file__).parents[2]
SECONDS = 2.0
"""A deadline that shall pass: more than Python's start, so that the stand-in has said its last words."""


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


# --- boot ----------------------------------------------------------------------------------------------------------


def test_a_guest_that_says_hello_is_up_and_gone_after_its_block(tmp_path: Path) -> None:
    with rig_guest(tmp_path, "passes") as guest:
        assert guest.hello["release"] == "6.12.0-rig"
        pid = guest.pid
        assert not gone(pid)

    assert gone(pid)


def test_a_boot_that_hangs_ends_at_its_deadline_with_the_console_shown_and_named(tmp_path: Path) -> None:
    with pytest.raises(GuestHungError) as caught, rig_guest(tmp_path, "mute", seconds=SECONDS):
        pass

    assert str(caught.value).startswith(
        f"boot hang: not up within {SECONDS:g} s\nlast lines of {tmp_path}/run/console-1.log:"
    )
    assert str(caught.value).endswith(LAST_WORDS)


def test_a_guest_that_panics_is_noticed_by_qemus_end(tmp_path: Path) -> None:
    with pytest.raises(GuestDiedError, match=r"ended with code 0(?s:.*)Kernel panic"), rig_guest(tmp_path, "panics"):
        pass


def test_a_qemu_that_refuses_its_command_line_is_told_with_its_words(tmp_path: Path) -> None:
    with (
        pytest.raises(ServerDiedError, match=r"ended with code 1(?s:.*)-numa: there is no such thing"),
        rig_guest(tmp_path, "refuses"),
    ):
        pass


def test_a_console_is_shown_by_its_last_lines(tmp_path: Path) -> None:
    console = tmp_path / "console"
    assert console_tail(console) == "(nothing)"

    console.write_text("".join(f"{number}\n" for number in range(1000)))
    assert console_tail(console).splitlines() == [str(number) for number in range(1000 - CONSOLE_LINES, 1000)]


# --- questions -----------------------------------------------------------------------------------------------------


def test_a_guest_that_dies_while_it_is_asked_is_noticed_at_once(tmp_path: Path) -> None:
    with rig_guest(tmp_path, "dies_when_asked") as guest, pytest.raises(GuestDiedError) as caught:
        guest.ask("test", seconds=10_000)

    assert "ended with code -9" in str(caught.value)
    assert str(caught.value).endswith(LAST_WORDS)


def test_a_guest_that_does_not_answer_is_ended_at_the_deadline(tmp_path: Path) -> None:
    with rig_guest(tmp_path, "silent", seconds=SECONDS) as guest:
        pid = guest.pid
        with pytest.raises(GuestHungError, match=rf"no answer to 'test' within 0 s(?s:.*){LAST_WORDS[-9:]}"):
            guest.ask("test")
        assert gone(pid)


def test_a_guest_that_is_lost_fails_every_later_question_at_once_with_the_cause(tmp_path: Path) -> None:
    with rig_guest(tmp_path, "dies_when_asked") as guest:
        with pytest.raises(GuestDiedError):
            guest.ask("test")
        with pytest.raises(GuestDiedError, match=r"^lost before this test: QEMU .*ended with code -9"):
            guest.ask("test")


def test_a_runner_that_fails_is_told_and_the_guest_goes_on(tmp_path: Path) -> None:
    with rig_guest(tmp_path, "errs") as guest:
        for _ in range(2):
            with pytest.raises(BedError, match=r"the guest's runner failed at 'test':\nTraceback: the rig"):
                guest.ask("test")


def test_a_guest_boots_as_often_as_all_tests_may_take_and_no_more(tmp_path: Path) -> None:
    with rig_guest(tmp_path, "passes") as guest:
        for _ in range(BOOTS_MAX - 1):
            guest.reboot()
        with pytest.raises(BedError, match=f"{BOOTS_MAX} boots carry all tests"):
            guest.reboot()


def test_the_guest_reaches_our_loopback_under_another_address() -> None:
    assert from_guest("https://127.0.0.1:20001") == "https://10.0.2.2:20001"


# --- the command line ----------------------------------------------------------------------------------------------


def command_line(tmp_path: Path) -> list[str]:
    parts = Parts(Path("qemu"), Path("/k"), Path("/i"), Path("/d"), Path("/code"))
    return [
        str(word) for word in machine.command(parts, console=tmp_path / "c", port=tmp_path / "p", exchange=tmp_path)
    ]


def test_no_hardware_virtualization_is_asked_for(tmp_path: Path) -> None:
    words = command_line(tmp_path)

    assert words[words.index("-accel") + 1].startswith("tcg")
    assert "kvm" not in " ".join(words)


def test_neither_the_disk_nor_the_code_can_be_changed_by_a_guest(tmp_path: Path) -> None:
    words = command_line(tmp_path)

    assert "file=/d,format=raw,if=none,id=root,snapshot=on" in words
    assert "local,id=code,path=/code,security_model=none,readonly=on" in words


def test_latency_and_bandwidth_are_told_for_every_pair(tmp_path: Path) -> None:
    # The kernel drops a node's HMAT targets whose attributes are incomplete (drivers/acpi/numa/hmat.c).
    told = [word for word in command_line(tmp_path) if word.startswith("hmat-lb")]

    assert len(told) == 2 * 2 * len(machine.NODES)


# --- reports of pytest ---------------------------------------------------------------------------------------------


def pytest_of_the_suite(
    tmp_path: Path, *, way: str | None, options: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run one file of the suite with a stand-in for QEMU, and a root disk that nobody reads."""
    environ = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environ |= {"GUEST_KERNEL": "/dev/null", "GUEST_INITRD": "/dev/null", "GUEST_DCBM": "real"}
    if way:
        environ |= install(tmp_path / "bin", way)
    else:
        environ["PATH"] = str(tmp_path)
    disk = image.disk_path(environ)
    disk.parent.mkdir(parents=True)
    disk.touch()
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:hypothesispytest",  # unused, and most of the time that pytest takes to start
            "-rA",
            *options,
            "tests/kernel/suite/test_machine.py",
        ],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )


TESTS = 3
"""In the file that is run."""


class MarkedItem:
    """As much of a pytest item as ordering and skipping look at."""

    def __init__(self, *marks: pytest.MarkDecorator) -> None:
        self.marks = [mark.mark for mark in marks]

    def iter_markers(self) -> list[pytest.Mark]:
        return self.marks

    def get_closest_marker(self, name: str) -> pytest.Mark | None:
        return next((mark for mark in self.marks if mark.name == name), None)

    def add_marker(self, mark: pytest.MarkDecorator) -> None:
        self.marks.append(mark.mark)


def sorted_and_skipped(dcbm: str, *items: MarkedItem) -> list[MarkedItem]:
    config: Any = SimpleNamespace(stash=pytest.Stash())
    config.stash[SESSION] = Session(Choice(None, None, None, dcbm), Path("/nowhere"))
    found: list[Any] = list(items)
    pytest_collection_modifyitems(config, found)
    return found


@pytest.mark.parametrize(("dcbm", "skipped"), [("ours", False), ("real", True)])
def test_only_with_another_driver_and_only_what_needs_our_switches_is_skipped(dcbm: str, skipped: bool) -> None:
    plain, needy = MarkedItem(), MarkedItem(pytest.mark.needs_switches)

    sorted_and_skipped(dcbm, plain, needy)

    assert plain.get_closest_marker("skip") is None
    mark = needy.get_closest_marker("skip")
    assert (mark is not None) == skipped
    assert mark is None or "GUEST_DCBM=real" in mark.kwargs["reason"]


def test_machines_of_their_own_come_first_and_what_ends_a_boot_last() -> None:
    ends, reboots, plain, own = (
        MarkedItem(pytest.mark.ends_guest),
        MarkedItem(pytest.mark.reboots_guest),
        MarkedItem(),
        MarkedItem(pytest.mark.own_machine),
    )

    assert sorted_and_skipped("ours", ends, reboots, plain, own) == [own, plain, reboots, ends]


def test_there_is_one_guest_however_many_processes_run_the_tests(tmp_path: Path) -> None:
    done = pytest_of_the_suite(tmp_path, way="passes", options=["--numprocesses=2"])

    assert done.returncode == 1
    assert "there is one guest: run tests/kernel without --numprocesses" in done.stdout


@dataclass(frozen=True)
class PassedRun:
    """The suite's file, run where the guest passes every test."""

    done: subprocess.CompletedProcess[str]
    folder: Path


@pytest.fixture(scope="module")
def passed_run(tmp_path_factory: pytest.TempPathFactory) -> PassedRun:
    folder = tmp_path_factory.mktemp("passes")
    return PassedRun(pytest_of_the_suite(folder, way="passes"), folder)


def test_each_of_the_guests_tests_is_reported_by_its_name(passed_run: PassedRun) -> None:
    done = passed_run.done

    assert done.returncode == 0, done.stdout
    assert f"{TESTS} passed" in done.stdout
    assert "PASSED tests/kernel/suite/test_machine.py::test_moved_pages_change_their_node" in done.stdout


def test_a_failure_in_the_guest_is_shown_with_its_output_and_the_logs_are_kept(tmp_path: Path) -> None:
    done = pytest_of_the_suite(tmp_path, way="fails")

    assert done.returncode == 1
    assert f"{TESTS} failed" in done.stdout
    assert "assert 1 == 2" in done.stdout
    assert "output of the rig" in done.stdout
    (run,) = (tmp_path / "cache/numa-migration-operator/kernel/runs").iterdir()
    assert f"console and logs of the guest: {run}" in done.stdout
    assert (run / "console-1.log").exists()


def test_logs_of_the_last_failed_runs_are_kept_and_those_of_runs_that_go_on(tmp_path: Path) -> None:
    mine = tmp_path / f"20260102T000000-{os.getpid()}"
    others = [tmp_path / f"20260101T00000{number}-{number + 2**30}" for number in range(RUNS_KEPT)]
    goes_on = tmp_path / "20250101T000000-1"
    for folder in (mine, *others, goes_on):
        folder.mkdir()

    assert Session(read_choice({}), mine).keep_or_clean(failed=True) == mine

    assert sorted(tmp_path.iterdir()) == sorted((mine, *others[1:], goes_on))


def test_logs_of_a_run_that_passed_are_removed(passed_run: PassedRun) -> None:
    assert not list((passed_run.folder / "cache/numa-migration-operator/kernel/runs").iterdir())


def test_a_test_that_passed_while_the_kernel_complained_has_failed(tmp_path: Path) -> None:
    done = pytest_of_the_suite(tmp_path, way="splats")

    assert done.returncode == 1
    assert "it passed, but the kernel complained:\nBUG: a rig" in done.stdout


@pytest.mark.parametrize(
    ("way", "message"),
    [
        pytest.param("dies_when_asked", "ended with code -9", id="killed in the middle"),
        pytest.param("panics", "Kernel panic - not syncing", id="panic"),
        pytest.param("refuses", "there is no such thing", id="QEMU refuses"),
        pytest.param(None, "qemu-system-x86_64 is missing", id="QEMU missing"),
    ],
)
def test_a_guest_that_is_not_there_fails_every_test_and_skips_none(
    way: str | None, message: str, tmp_path: Path
) -> None:
    done = pytest_of_the_suite(tmp_path, way=way)

    assert done.returncode == 1, done.stdout
    assert f"{TESTS} failed in" in done.stdout
    assert message in done.stdout
