# SPDX-License-Identifier: Apache-2.0
"""The agent's own pages, on the kernel that the tests run on: one NUMA node is enough for all but the move itself.

Where both NUMA nodes are the same one, the kernel takes the call and leaves the pages where they are.
"""

from __future__ import annotations

import ctypes
import errno
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from numamigration_agent.kernel import mover, pages
from numamigration_agent.kernel.mover import SYSCALLS, Folio, Libc, Pattern, Region, move
from numamigration_agent.kernel.pages import (
    BATCH_BYTES_MAX,
    BATCHES_MAX,
    MEMPOLICY_MBIND,
    SYSCALL_OR_CPUSET,
    Batch,
    MoveAnswer,
    MoveRequest,
    Passage,
    child_command,
    move_own_pages,
)
from numamigration_agent.verify import MOVING_SECONDS_MAX, SHAPES, WINDOW_SECONDS_MAX

PAGE = os.sysconf("SC_PAGESIZE")
LIBC = Libc(os.uname().machine)
HERE = int(Path("/sys/devices/system/node/has_memory").read_text().split("-")[0].split(",")[0])
MIXED = Batch(HERE, HERE, small=5, huge=1)


def request(*batches: Batch, reason: str = SYSCALL_OR_CPUSET, seconds_max: float = 30.0) -> MoveRequest:
    return MoveRequest(reason, batches or (MIXED,), 42, seconds_max)


# --- the pattern


def test_no_two_lanes_of_a_pattern_are_alike() -> None:
    """Promise 15: a page that is missing, or that stands elsewhere, shows."""
    pattern = Pattern(7, 64 * PAGE)

    lanes = {bytes(pattern.bytes[at : at + 8]) for at in range(0, len(pattern.bytes), 8)}

    assert len(lanes) == len(pattern.bytes) // 8


def test_every_byte_changes_with_each_turn() -> None:
    """Promise 15: what a direction before left in the target's pages does not look right."""
    pattern = Pattern(7, PAGE)
    seen = [bytes(pattern.bytes)]

    for _ in range(2 * BATCHES_MAX):
        pattern.turn()
        seen.append(bytes(pattern.bytes))

    assert all(len(set(column)) == len(seen) for column in zip(*seen, strict=True))


def test_a_turn_of_the_beginning_alone_brings_no_byte_back_later() -> None:
    """Promise 15: batches are of different length, and a longer one follows a shorter one."""
    chunk, pages = 1 << 16, 40
    pattern = Pattern(7, pages * PAGE)
    first, last = [pattern.bytes[0]], [pattern.bytes[-1]]

    for length in (chunk, pages * PAGE) * 4:
        pattern.turn(length)
        first.append(pattern.bytes[0])
        if length > chunk:
            last.append(pattern.bytes[-1])

    assert (len(set(first)), len(set(last))) == (9, 5)


def test_another_salt_is_another_pattern() -> None:
    """Promise 15."""
    one, other = Pattern(7, PAGE).bytes, Pattern(8, PAGE).bytes

    assert all(one[at : at + 8] != other[at : at + 8] for at in range(0, PAGE, 8))


# --- the comparison


@pytest.mark.parametrize("at", [0, 1, PAGE - 1, 3 * PAGE + 9, 8 * PAGE - 1])
def test_one_wrong_byte_anywhere_is_found(at: int) -> None:
    """Promise 15: every byte is compared."""
    pattern, region = Pattern(7, 8 * PAGE), Region(LIBC, Batch(HERE, HERE, small=8), 0)
    region.fill(pattern)
    assert region.wrong(pattern, region.folios()) == (0, -1)

    ctypes.memset(region.start + at, pattern.bytes[at] ^ 1, 1)

    assert region.wrong(pattern, region.folios()) == (1, at)


def test_folios_with_wrong_bytes_are_counted_once_each() -> None:
    pattern, region = Pattern(7, 8 * PAGE), Region(LIBC, Batch(HERE, HERE, small=8), 0)
    region.fill(pattern)

    ctypes.memset(region.start + 2 * PAGE, 0, 3 * PAGE)

    assert region.wrong(pattern, region.folios())[0] == 3


def test_pages_of_an_earlier_direction_are_wrong() -> None:
    """Promise 15: an engine that copies nothing leaves in a page what was there before."""
    pattern, region = Pattern(7, 8 * PAGE), Region(LIBC, Batch(HERE, HERE, small=8), 0)
    region.fill(pattern)

    pattern.turn()

    assert region.wrong(pattern, region.folios())[0] == 8


# --- the folios


def test_small_folios_stand_right_before_huge_ones() -> None:
    huge = 1 << 21
    region = Region(LIBC, Batch(HERE, HERE, small=3, huge=1), huge)

    assert (region.start + 3 * PAGE) % huge == 0
    assert region.length == 3 * PAGE + huge


def test_no_batch_is_larger_than_the_bound_whatever_is_asked_for() -> None:
    region = Region(LIBC, Batch(HERE, HERE, small=100_000, huge=100), 1 << 21)

    assert region.length <= BATCH_BYTES_MAX


def test_where_no_huge_page_is_small_enough_the_folios_are_small() -> None:
    """arm64 with pages of 64 KiB has huge pages of 512 MiB."""
    region = Region(LIBC, Batch(HERE, HERE, small=2, huge=1), 0)

    assert region.folios() == [Folio(region.start, PAGE), Folio(region.start + PAGE, PAGE)]


@pytest.mark.parametrize(
    ("page", "huge_size", "expected"),
    [
        pytest.param(4 << 10, 2 << 20, [(512, 0), (61, 0), (0, 1), (511, 1)], id="x86, arm64 with pages of 4 KiB"),
        pytest.param(16 << 10, 32 << 20, [(256, 0), (61, 0), (256, 0)], id="arm64 with pages of 16 KiB"),
        pytest.param(64 << 10, 512 << 20, [(64, 0), (61, 0), (64, 0)], id="arm64 with pages of 64 KiB"),
        pytest.param(4 << 10, 0, [(512, 0), (61, 0), (511, 0)], id="a kernel without huge pages"),
    ],
)
def test_batches_keep_to_the_bound_on_every_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, page: int, huge_size: int, expected: list[tuple[int, int]]
) -> None:
    """Huge pages that are larger than a batch are left out, and the answer says how large they are."""
    size = tmp_path / "hpage_pmd_size"
    size.write_text(f"{huge_size}\n")
    lengths: list[int] = []

    def watched(_libc: Libc, _reason: str, region: Region, _pattern: Pattern, _way: tuple[int, int]) -> Passage:
        lengths.append(region.length)
        return Passage(HERE, HERE, 1)

    monkeypatch.setattr(mover, "_THP_SIZE", size)
    monkeypatch.setattr(mover, "PAGE", page)
    monkeypatch.setattr(mover, "_pass", watched)

    answer = move(request(*(Batch(HERE, HERE, *shape) for shape in SHAPES)))

    assert answer.cause == ""
    assert lengths[::2] == [small * page + huge * huge_size for small, huge in expected]
    assert max(lengths) <= BATCH_BYTES_MAX
    assert answer.huge_left_out == (huge_size if huge_size > BATCH_BYTES_MAX else 0)


def flags_of(address: int) -> list[str]:
    """Return what the kernel says of the memory at an address of ours (proc_pid_smaps(5), VmFlags)."""
    here = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name = line.split()[0]
        if "-" in name and not name.endswith(":"):
            first, last = (int(part, 16) for part in name.split("-"))
            here = first <= address < last
        elif here and name == "VmFlags:":
            return line.split()[1:]
    raise AssertionError(f"{address:x} is not mapped")


@pytest.mark.parametrize("huge_size", [0, 1 << 21])
def test_small_folios_are_single_pages_whatever_sizes_the_kernel_prefers(huge_size: int) -> None:
    """Promise 15: a folio of some pages is counted once, and would look like pages that nobody offloaded."""
    region = Region(LIBC, Batch(HERE, HERE, small=2, huge=1), huge_size)

    assert "nh" in flags_of(region.start)


def test_what_cannot_be_huge_is_single_pages_and_holds_the_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise 15: without a free huge page the kernel may choose folios of any size in between."""
    monkeypatch.setattr(mover, "huge_bytes", lambda *_: 0)
    huge_size = 1 << 21
    pattern = Pattern(7, huge_size + 2 * PAGE)
    region = Region(LIBC, Batch(HERE, HERE, small=2, huge=1), huge_size)

    region.fill(pattern)

    assert "nh" in flags_of(region.start + 2 * PAGE)
    assert {folio.length for folio in region.folios()} == {PAGE}
    assert region.wrong(pattern, region.folios()) == (0, -1)


def test_a_batch_of_huge_folios_alone_is_left_out_where_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mover, "_THP_SIZE", Path("/nowhere"))

    answer = move(request(Batch(HERE, HERE, 0, 1), Batch(HERE, HERE, 3, 1)))

    assert [(row.folios, row.huge) for row in answer.passages] == [(3, 0), (3, 0)]


# --- the system calls


@pytest.mark.parametrize("reason", [SYSCALL_OR_CPUSET, MEMPOLICY_MBIND])
def test_pages_are_filled_moved_and_compared_there_and_back(reason: str) -> None:
    answer = move(request(reason=reason))

    assert (answer.errno, answer.cause) == (0, "")
    assert [(row.wrong, row.left, row.errno) for row in answer.passages] == [(0, 0, 0), (0, 0, 0)]
    assert all(row.folios - row.huge >= 5 for row in answer.passages)


def test_the_bytes_are_other_ones_on_each_way_of_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise 15: else an engine that copies nothing could find on the way back what it should have copied."""
    written: list[bytes] = []
    fill = Region.fill

    def watched(region: Region, pattern: Pattern) -> None:
        written.append(bytes(pattern.bytes[:8]))
        fill(region, pattern)

    monkeypatch.setattr(Region, "fill", watched)

    move(request(MIXED, MIXED))

    assert len(set(written)) == len(written) == 4


def test_the_kernel_is_asked_where_pages_are() -> None:
    region = Region(LIBC, Batch(HERE, HERE, small=4), 0)
    region.fill(Pattern(7, 4 * PAGE))

    assert LIBC.where([folio.address for folio in region.folios()]) == [HERE] * 4


def test_pages_that_were_never_written_are_nowhere() -> None:
    region = Region(LIBC, Batch(HERE, HERE, small=1), 0)

    assert LIBC.where([region.start]) == [-errno.ENOENT]


def test_the_kernel_refuses_a_numa_node_that_is_not_there() -> None:
    region = Region(LIBC, Batch(HERE, HERE, small=1), 0)
    region.fill(Pattern(7, PAGE))

    with pytest.raises(OSError, match="mbind") as of_mbind:
        LIBC.prefer(region.start, region.length, 1000)
    with pytest.raises(OSError, match="move_pages") as of_move_pages:
        LIBC.move([region.start], 1000)

    assert (of_mbind.value.errno, of_move_pages.value.errno) == (errno.EINVAL, errno.ENODEV)


# --- why not


def test_a_numa_node_that_is_not_there_is_named() -> None:
    answer = move(request(Batch(HERE, 999, 1)))

    assert answer[:3] == ((), errno.ENODEV, "there is no NUMA node 999")


def test_a_cpuset_that_keeps_us_off_a_numa_node_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mover, "_allowed_numa_nodes", lambda: frozenset({998}))

    answer = move(request())

    assert answer.errno == errno.EACCES
    assert f"the cpuset of this container keeps it off NUMA node {HERE}; it has 998" in answer.cause


def test_a_machine_without_a_table_of_system_calls_is_named() -> None:
    with pytest.raises(OSError, match="no table of system calls for riscv64"):
        Libc("riscv64")


def test_system_calls_are_numbered_by_machine() -> None:
    """arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h."""
    assert {name: tuple(calls) for name, calls in SYSCALLS.items()} == {"x86_64": (237, 279), "aarch64": (235, 239)}


def test_a_reason_that_no_system_call_causes_is_refused() -> None:
    assert move(request(reason="demotion")).cause == "no system call migrates with reason demotion"


def test_too_many_batches_are_refused() -> None:
    assert move(request(*[MIXED] * (BATCHES_MAX + 1))).errno == errno.EINVAL


def test_no_batch_begins_after_the_time_is_over() -> None:
    answer = move(request(seconds_max=-1.0))

    assert answer[:2] == ((), errno.ETIMEDOUT)


SECCOMP = """
import ctypes, errno, struct, sys
sys.path[:0] = {path!r}
from numamigration_agent.kernel.mover import *
libc = ctypes.CDLL(None)
rules = [(0x20, 0, 0, 0), (0x15, 0, 1, SYSCALLS[os.uname().machine].mbind), (6, 0, 0, 0x50000 | errno.EPERM),
         (6, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(rules), ctypes.addressof(code)))
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program) == 0
answer = move(MoveRequest(SYSCALL_OR_CPUSET, (Batch({here}, {here}, 1),), 1, 2.0))
print(answer.errno, answer.cause)
"""
"""A program with a seccomp filter that answers EPERM to mbind(2), as container runtimes have it (seccomp(2))."""


def test_a_seccomp_profile_that_forbids_the_call_is_named() -> None:
    program = SECCOMP.format(path=sys.path, here=HERE)

    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    advice = "set the chart's agent.seccompProfile to Unconfined or Localhost"
    assert said == f"{errno.EPERM} mbind: refused by the seccomp profile; {advice}\n"


# --- the child


def test_a_child_moves_the_pages_and_answers() -> None:
    answer = move_own_pages(request())

    assert answer.cause == ""
    assert [row.wrong for row in answer.passages] == [0, 0]


def test_a_child_that_starts_late_begins_no_batch_after_the_requests_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Promise 15: on a busy node it would keep an untried engine on for longer, and the engine be called stalled."""
    late = tmp_path / "late"
    late.write_text(f'#!/bin/sh\nsleep 0.3\nexec {sys.executable} "$@"\n')
    late.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(late))
    monkeypatch.setattr(pages, "START_SECONDS_MAX", 60.0)  # however busy this machine is, it is the child that gives up

    answer = move_own_pages(request(seconds_max=0.2))

    assert answer[:3] == ((), errno.ETIMEDOUT, "took longer than 0.2 s")


def test_a_child_that_comes_to_nothing_is_ended_before_its_engine_is_called_stalled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A container with a tenth of a processor: the engine holds nothing."""
    sleeper = tmp_path / "sleeper"
    sleeper.write_text("#!/bin/sh\nexec sleep 600\n")
    sleeper.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(sleeper))

    answer = move_own_pages(request(seconds_max=0.1))

    assert answer[:2] == ((), errno.ETIMEDOUT)
    assert "CPU limit of this container is low" in answer.cause
    assert MOVING_SECONDS_MAX + pages.START_SECONDS_MAX < WINDOW_SECONDS_MAX


def test_an_answer_may_come_in_pieces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    teller = tmp_path / "teller"
    teller.write_text("#!/bin/sh\nprintf ' [[], '; sleep 0.1; printf '0, \"told\"]'\n")
    teller.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(teller))

    assert move_own_pages(request()) == MoveAnswer((), 0, "told")


def test_a_child_that_was_ended_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory, for one: the kernel takes the child, and the agent goes on."""
    monkeypatch.setattr(sys, "executable", "/bin/false")

    assert move_own_pages(request()) == MoveAnswer((), 0, "the process that moves pages ended with code 1")


def test_a_child_that_cannot_be_started_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")

    answer = move_own_pages(request())

    assert answer.errno == errno.ENOENT
    assert "no process to move pages in" in answer.cause


def test_a_child_that_does_not_answer_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Promise 10: one that only sleeps; one that the kernel holds goes once it is let go."""
    sleeper = tmp_path / "sleeper"
    sleeper.write_text("#!/bin/sh\nprintf ' '; exec sleep 600\n")
    sleeper.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(sleeper))
    monkeypatch.setattr(pages, "CHILD_SECONDS_MAX", 0.01)

    answer = move_own_pages(request(seconds_max=0.0))

    assert answer.errno == errno.ETIMEDOUT
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_child_whose_agent_is_gone_does_nothing() -> None:
    done = subprocess.run(
        child_command("1" if os.getpid() != 1 else "2"),
        input=json.dumps(request()),
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (1, "")


def test_a_child_dies_with_the_thread_that_started_it() -> None:
    """Promise 10: nothing is left of an agent that was killed, once the kernel lets go."""
    program = (
        "import os, signal, sys, threading; from numamigration_agent.kernel.mover import die_with\n"
        "read, write = os.pipe()\n"
        "def start():\n"
        "    if os.fork() == 0:\n"
        "        die_with(os.getppid())\n"
        "        os.write(write, b'.')\n"
        "        signal.pause()\n"
        "    os.read(read, 1)\n"
        "thread = threading.Thread(target=start); thread.start(); thread.join()\n"
        "print(os.waitstatus_to_exitcode(os.wait()[1]))\n"
    )

    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert int(said) == -signal.SIGKILL


def test_the_child_loads_nothing_else_of_ours() -> None:
    """So it starts fast and stays small."""
    command = child_command()
    command[1:1] = ["-X", "importtime"]

    done = subprocess.run(command, input=json.dumps(request()), capture_output=True, text=True, check=True)

    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert {name for name in loaded if name.startswith("numamigration")} == {
        "numamigration_agent",
        "numamigration_agent.kernel",
        "numamigration_agent.kernel.mover",
        "numamigration_agent.kernel.pages",
    }
    assert json.loads(done.stdout)[1:3] == [0, ""]


def test_the_child_stays_within_its_memory() -> None:
    """With the program's own files, which others have mapped too (VmHWM of proc_pid_status(5))."""
    command = child_command()
    command[command.index("-c") + 1] = (
        "import io, sys; sys.path.append(sys.argv[1]); from numamigration_agent.kernel.mover import main\n"
        "out, sys.stdout = sys.stdout, io.StringIO(); main([])\n"
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM:')), file=out)"
    )
    batches = [Batch(HERE, HERE, *shape) for shape in SHAPES]

    said = subprocess.run(command, input=json.dumps(request(*batches)), capture_output=True, text=True, check=True)

    assert int(said.stdout) << 10 <= 24 << 20


def test_what_moves_pages_is_not_loaded_into_the_agent() -> None:
    program = "import sys; import numamigration_agent.__main__; print('ctypes' in sys.modules, 'mmap' in sys.modules)"

    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert said == "False False\n"


def test_a_person_may_run_it_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(request(reason="demotion"))))
    monkeypatch.setattr(Path, "write_text", lambda *_: None)

    assert mover.main([]) == 0
    assert json.loads(capsys.readouterr().out)[1] == errno.EINVAL
