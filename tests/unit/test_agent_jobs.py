# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
import threading
from queue import SimpleQueue

from numamigration_agent.jobs import Answer, Broken, Worker, Wrote


def test_a_job_that_blocks_does_not_hold_its_caller_and_answers_late() -> None:
    """Promise 10."""
    gate = threading.Event()
    answers: SimpleQueue[Answer] = SimpleQueue()

    def work() -> Answer:
        gate.wait()
        return Wrote(None)

    Worker("knobs-jobs").start(work, answers.put)
    assert answers.empty()

    gate.set()
    assert answers.get(timeout=10) == Wrote(None)


def test_the_process_does_not_wait_for_a_job() -> None:
    """Promise 10: a thread in an uninterruptible write cannot be joined."""
    program = """
import threading
from numamigration_agent.jobs import Worker
begun = threading.Event()
Worker("knobs-jobs").start(lambda: begun.set() or threading.Event().wait(), print)
begun.wait()
"""

    ended = subprocess.run([sys.executable, "-c", program], timeout=10, check=True)

    assert ended.returncode == 0


def test_an_error_of_a_job_is_an_answer_too_and_the_next_job_is_done() -> None:
    answers: SimpleQueue[Answer] = SimpleQueue()
    error = ZeroDivisionError()

    def work() -> Answer:
        raise error

    worker = Worker("knobs-jobs")
    worker.start(work, answers.put)
    assert answers.get(timeout=10) == Broken(error)

    worker.start(lambda: Wrote(None), answers.put)
    assert answers.get(timeout=10) == Wrote(None)


def test_a_job_that_blocks_holds_no_other_lane() -> None:
    """Promise 10: while a turn-off blocks, the counters of a dialect that answers are read on."""
    gate = threading.Event()
    blocked: SimpleQueue[Answer] = SimpleQueue()
    answers: SimpleQueue[Answer] = SimpleQueue()

    def work() -> Answer:
        gate.wait()
        return Wrote(None)

    Worker("knobs-jobs").start(work, blocked.put)
    Worker("counters-jobs").start(lambda: Wrote(None), answers.put)

    assert answers.get(timeout=10) == Wrote(None)
    assert blocked.empty()
    gate.set()
    assert blocked.get(timeout=10) == Wrote(None)


def test_every_job_of_a_lane_is_done_by_the_same_thread() -> None:
    """A thread for each job costs an idle agent a quarter of its CPU time."""
    threads: SimpleQueue[threading.Thread] = SimpleQueue()
    answers: SimpleQueue[Answer] = SimpleQueue()

    def work() -> Answer:
        threads.put(threading.current_thread())
        return Wrote(None)

    worker = Worker("knobs-jobs")
    for _ in range(2):
        worker.start(work, answers.put)
        answers.get(timeout=10)

    assert threads.get() is threads.get()
