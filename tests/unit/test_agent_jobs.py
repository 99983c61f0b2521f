# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import threading
from queue import SimpleQueue

from numamigration_agent.jobs import Answer, Broken, Wrote, start


def test_a_job_that_blocks_does_not_hold_its_caller_and_answers_late() -> None:
    """Promise 10."""
    gate = threading.Event()
    answers: SimpleQueue[Answer] = SimpleQueue()

    def work() -> Answer:
        gate.wait()
        return Wrote(None)

    start(work, answers.put, "knobs-job")
    assert answers.empty()

    gate.set()
    assert answers.get(timeout=10) == Wrote(None)


def test_the_process_does_not_wait_for_a_job() -> None:
    """Promise 10: a thread in an uninterruptible write cannot be joined."""
    gate = threading.Event()
    before = set(threading.enumerate())

    def work() -> Answer:
        gate.wait()
        return Wrote(None)

    start(work, lambda _answer: None, "knobs-job")
    (thread,) = set(threading.enumerate()) - before

    gate.set()
    thread.join()

    assert thread.daemon


def test_an_error_of_a_job_is_an_answer_too() -> None:
    answers: SimpleQueue[Answer] = SimpleQueue()
    error = ZeroDivisionError()

    def work() -> Answer:
        raise error

    start(work, answers.put, "knobs-job")

    assert answers.get(timeout=10) == Broken(error)
