# SPDX-License-Identifier: Apache-2.0
"""The guest's side of the conversation, run here: whatever a test does, there is one answer about it."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from typing import Any

import pytest

from tests.kernel.collection import GuestTestFailedError, judge
from tests.kernel.suite import kernellog
from tests.kernel.suite.marks import asks_switches
from tests.kernel.suite.runner import Runner, serve
from tests.unit import guest_samples
from tests.unit.guest_rig import PASSED

pytestmark = pytest.mark.uncounted

SAMPLES = "tests.unit.guest_samples"


class ScriptedLog:
    """A kernel log that has said `text` by the end of each test."""

    def __init__(self, *text: str) -> None:
        self.text = list(text)
        self.skipped = 0

    def skip(self) -> None:
        self.skipped += 1

    def lines(self) -> list[str]:
        return self.text


def outcome(name: str, *, case: int = 0, seconds: float = 30, log: ScriptedLog | None = None) -> dict[str, Any]:
    arguments = {"module": SAMPLES, "name": name, "case": case, "seconds": seconds}
    return Runner(log or ScriptedLog()).answer({"id": 1, "do": "test", "with": arguments})


def test_a_test_that_returns_has_passed_and_its_output_is_told() -> None:
    answer = outcome("test_that_passes")

    assert answer["outcome"] == "passed"
    assert answer["output"] == "said on the way\n"


def test_a_failed_assertion_comes_with_its_place_and_the_variables_there() -> None:
    answer = outcome("test_that_fails")

    assert answer["outcome"] == "failed"
    assert "assert found == {" in answer["message"]
    assert "found = {'node': 7}" in answer["message"]
    assert "runner.py" not in answer["message"]


def test_a_test_about_another_kernel_says_so() -> None:
    answer = outcome("test_that_is_about_another_kernel")

    assert (answer["outcome"], answer["message"]) == ("skipped", "the kernel's driver is V5")


def test_a_row_needs_switches_where_its_mark_says_so() -> None:
    assert asks_switches(guest_samples.test_that_needs_switches, 0)
    assert not asks_switches(guest_samples.test_that_passes, 0)
    assert [asks_switches(guest_samples.test_with_a_row_that_needs_switches, case) for case in (0, 1)] == [False, True]


def test_a_skip_is_pytests_with_a_driver_of_the_kernels_own_and_a_failure_with_our_module() -> None:
    answer = {**PASSED, "outcome": "skipped", "message": "the kernel's driver is V5"}

    with pytest.raises(pytest.skip.Exception, match="driver is V5"):
        judge(answer, may_skip=True)
    with pytest.raises(GuestTestFailedError, match="driver is V5"):
        judge(answer, may_skip=False)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param("test_that_exits", "SystemExit: 0", id="an exit is no pass"),
        pytest.param("test_that_is_killed", f"process died: signal {int(signal.SIGKILL)}", id="a death"),
    ],
)
def test_a_test_that_ends_its_process_has_failed(name: str, message: str) -> None:
    answer = outcome(name)

    assert answer["outcome"] == "failed"
    assert message in answer["message"]


def test_a_test_that_hangs_is_killed_and_its_state_in_the_kernel_told() -> None:
    answer = outcome("test_that_hangs", seconds=0.2)

    assert answer["outcome"] == "failed"
    assert answer["message"].startswith("no end within 0.2 s\nState:\tS (sleeping)")


def test_a_long_message_is_cut_and_still_an_answer() -> None:
    answer = outcome("test_that_talks_too_much_when_it_fails")

    assert answer["outcome"] == "failed"
    assert len(json.dumps(answer)) < 100_000


@pytest.mark.parametrize(("case", "output"), [(0, "row of 1\n"), (1, "row of 10\n")])
def test_a_row_is_run_with_its_arguments(case: int, output: str) -> None:
    assert outcome("test_with_rows", case=case)["output"] == output


def test_the_kernels_complaints_are_told_apart_from_what_else_it_said() -> None:
    log = ScriptedLog("dcbm: offloading enabled", "BUG: kernel NULL pointer dereference, address: 0")

    answer = outcome("test_that_passes", log=log)

    assert log.skipped == 1
    assert answer["kernel"] == log.text
    assert answer["splats"] == log.text[1:]


@pytest.mark.parametrize(
    "line",
    [
        "WARNING: CPU: 1 PID: 77 at mm/migrate.c:100 folio_mc_copy+0x1/0x2",
        "Oops: 0002 [#1] PREEMPT SMP PTI",
        "INFO: task python3:77 blocked for more than 120 seconds.",
        "list_del corruption. prev->next should be ffff888, but was ffff999",
    ],
)
def test_lines_that_mean_a_bug_are_known(line: str) -> None:
    assert kernellog.splats(["harmless", line]) == [line]


def test_a_record_of_the_kernels_log_is_its_first_line() -> None:
    assert kernellog.text(b"6,339,5140900,-;NET: Registered\n SUBSYSTEM=net\n") == "NET: Registered"


def test_a_question_that_the_runner_cannot_answer_is_answered_with_the_reason() -> None:
    answer = Runner(ScriptedLog()).answer({"id": 5, "do": "fly"})

    assert answer["id"] == 5
    assert "do_fly" in answer["error"]


def test_a_program_runs_beside_the_questions_until_it_is_told_to_end() -> None:
    runner = Runner(ScriptedLog())
    started = runner.do_start(["/bin/sh", "-c", "echo up; exec sleep 1000"], env={}, user=0)
    number = started["number"]

    assert runner.do_wait(number, seconds=0)["code"] is None
    runner.do_signal(number, signal.SIGTERM)
    assert runner.do_wait(number, seconds=30)["code"] == -signal.SIGTERM


def test_questions_are_answered_line_by_line_until_the_line_is_cut() -> None:
    here, there = socket.socketpair()
    questions = b'{"id": 1, "do": "fly"}\n{"id": 2, "do": "fly"}\n'
    with here, there:
        serving = threading.Thread(target=serve, args=(there.fileno(), Runner(ScriptedLog())))
        serving.start()
        here.sendall(questions[:30])
        here.sendall(questions[30:])
        here.shutdown(socket.SHUT_WR)
        serving.join(30)
        with os.fdopen(os.dup(here.fileno()), "rb") as stream:
            there.shutdown(socket.SHUT_WR)
            answers = [json.loads(line) for line in stream]

    assert [answer.get("id", "hello") for answer in answers] == ["hello", 1, 2]
