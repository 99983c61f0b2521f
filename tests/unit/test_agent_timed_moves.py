# SPDX-License-Identifier: Apache-2.0
"""Pages that are moved against a clock, in real child processes on the kernel that the tests run on.

One NUMA node is enough for all but the move itself: where both are the same one, pages stay and the kernel says so.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from numamigration_agent.kernel.pages import child_command
from numamigration_agent.kernel.timed_mover import Desk
from numamigration_agent.kernel.timed_moves import (
    EndMoves,
    Movers,
    Prepare,
    Survey,
    TimedAnswer,
    TimeMoves,
    together,
)

PAGE = os.sysconf("SC_PAGESIZE")
HERE = int(Path("/sys/devices/system/node/has_memory").read_text().split("-")[0].split(",")[0])
NOWHERE = 1000
SET = 64 * PAGE


@pytest.fixture
def movers() -> Iterator[Movers]:
    movers = Movers()
    yield movers
    movers.move_timed(EndMoves())


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_pages_of_each_size_are_had_moved_and_given_back(movers: Movers) -> None:
    assert movers.move_timed(Survey(HERE, HERE)).errno == 0
    assert movers.move_timed(Prepare(HERE, HERE, PAGE, SET)).errno == 0

    moved = movers.move_timed(TimeMoves(16, 0.01))

    # They are where they shall be already, so the kernel says "there" of each.
    assert (moved.errno, moved.left) == (0, 0)
    assert moved.folios >= 16
    assert moved.bytes == moved.folios * PAGE
    assert moved.seconds > 0


def test_two_migrators_share_the_set_and_their_speeds_add_up(movers: Movers) -> None:
    assert movers.move_timed(Prepare(HERE, HERE, PAGE, SET, 2)).errno == 0

    moved = movers.move_timed(TimeMoves(4, 0.01))

    assert (moved.errno, len(movers._migrators)) == (0, 2)
    assert moved.folios >= 8


def test_folios_are_made_once_for_all_samples_of_a_size(movers: Movers) -> None:
    movers.move_timed(Prepare(HERE, HERE, PAGE, SET))
    first = movers._migrators[0].pid
    movers.move_timed(Prepare(HERE, HERE, PAGE, SET))
    movers.move_timed(Prepare(HERE, HERE, PAGE, 2 * SET))

    assert [migrator.pid for migrator in movers._migrators] == [first]


def test_no_process_is_left_when_it_is_over(movers: Movers) -> None:
    movers.move_timed(Prepare(HERE, HERE, PAGE, SET, 2))
    pids = [migrator.pid for migrator in movers._migrators]
    assert all(alive(pid) for pid in pids)

    movers.move_timed(EndMoves())

    assert not any(alive(pid) for pid in pids)


def test_a_child_that_has_died_is_told_and_another_one_is_started_for_the_next_probe(movers: Movers) -> None:
    movers.move_timed(Prepare(HERE, HERE, PAGE, SET))
    os.kill(movers._migrators[0].pid, 9)

    assert movers.move_timed(TimeMoves(4, 0.01)).errno == errno.ECHILD

    assert movers.move_timed(Prepare(HERE, HERE, PAGE, SET)).errno == 0


def test_nothing_is_timed_before_there_are_folios(movers: Movers) -> None:
    assert movers.move_timed(TimeMoves(4, 0.01)).errno == errno.ENOMEM


def test_a_numa_node_that_is_not_there_is_told(movers: Movers) -> None:
    found = movers.move_timed(Survey(HERE, NOWHERE))

    assert (found.errno, found.cause) == (errno.ENODEV, f"there is no NUMA node {NOWHERE}")


def test_folios_of_a_size_that_the_kernel_does_not_make_are_told(movers: Movers) -> None:
    size = PAGE * 2
    if Path(f"/sys/kernel/mm/transparent_hugepage/hugepages-{size // 1024}kB").exists():
        size = PAGE * 3  # no kernel has such

    found = movers.move_timed(Prepare(HERE, HERE, size, 64 * size))

    assert found.errno == errno.EOPNOTSUPP


def test_more_memory_than_there_can_be_is_told(movers: Movers) -> None:
    found = movers.move_timed(Prepare(HERE, HERE, PAGE, 1 << 62))

    assert found.errno in {errno.ENOMEM, errno.EIO, errno.ECHILD}


def test_a_sample_goes_on_where_the_last_one_ended() -> None:
    desk = Desk()
    desk.have(HERE, HERE, PAGE, SET)

    desk.time(24, 0.0)
    assert desk._folios is not None
    first = desk._folios._next
    desk.time(24, 0.0)

    assert (first, desk._folios._next) in {(0, 0), (24, 48)}


def test_the_child_ends_with_its_input() -> None:
    done = subprocess.run(
        child_command(module="timed_mover"), input=b"", stdout=subprocess.PIPE, timeout=30, check=False
    )

    assert (done.returncode, done.stdout) == (0, b"")


def test_the_child_answers_line_by_line() -> None:
    lines = [["have", HERE, HERE, PAGE, SET], ["time", 4, 0.01]]
    done = subprocess.run(
        [sys.executable, *child_command(module="timed_mover")[1:]],
        input="".join(f"{json.dumps(line)}\n" for line in lines).encode(),
        stdout=subprocess.PIPE,
        timeout=30,
        check=True,
    )

    answers = [TimedAnswer(*json.loads(line)) for line in done.stdout.splitlines()]
    assert [answer.errno for answer in answers] == [0, 0]


# --- several at once


def test_the_speeds_of_migrators_add_up() -> None:
    one, other = TimedAnswer(100, 1, 0, 1.0, 0.5, room=7), TimedAnswer(300, 3, 1, 1.0, 0.25)

    found = together([one, other])

    assert (found.bytes, found.folios, found.left, found.cpu_seconds, found.room) == (400, 4, 1, 0.75, 7)
    assert found.bytes / found.seconds == 400


def test_one_that_failed_speaks_for_all() -> None:
    failed = TimedAnswer(errno=errno.ENOMEM, cause="none left")

    assert together([TimedAnswer(100, 1, 0, 1.0), failed]) == failed


def test_none_that_moved_makes_no_speed() -> None:
    assert together([TimedAnswer(seconds=0.5)]).bytes == 0
