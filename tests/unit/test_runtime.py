# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import logging
import os
import signal
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from numamigration_api.vocabulary import Reason
from numamigration_operator.cluster.client import Client, NoAnswerError, Response
from numamigration_operator.cluster.events import QUEUE_MAX, EventPoster, event_body
from numamigration_operator.cluster.informer import Informer
from numamigration_operator.cluster.lease_driver import NotLeadingError
from numamigration_operator.core.decisions import EventWish
from numamigration_operator.runtime import (
    REST_SECONDS_MAX,
    REST_SPARED_SECONDS,
    Pulse,
    Relists,
    decide_again_and_again,
    supervise,
)


async def for_ever() -> None:
    await asyncio.Event().wait()


async def crash() -> None:
    raise RuntimeError("boom")


async def end() -> None:
    """End at once."""


@pytest.mark.parametrize("work", [crash, end], ids=["an exception", "a normal end"])
def test_a_task_that_ends_by_itself_ends_the_process_with_a_line_that_names_it(
    work: object, caplog: pytest.LogCaptureFixture
) -> None:
    async def inner() -> int:
        assert callable(work)
        bystander = asyncio.create_task(for_ever())
        code = await supervise([asyncio.create_task(work(), name="nodes"), bystander])
        assert bystander.cancelled()
        return code

    assert asyncio.run(inner()) == 1
    assert [vars(record)["task"] for record in caplog.records if record.levelno == logging.CRITICAL] == ["nodes"]


def test_a_lost_lease_ends_the_process_with_its_own_exit_code_and_a_plain_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def lose() -> None:
        raise NotLeadingError("the lease is b's now")

    async def inner() -> int:
        return await supervise([asyncio.create_task(lose(), name="lease"), asyncio.create_task(for_ever())])

    assert asyncio.run(inner()) == 3
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert vars(record)["why"] == "the lease is b's now"
    assert record.exc_info is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: signal.Signals(number).name)
def test_a_signal_ends_every_task_and_the_exit_code_is_0(number: int) -> None:
    async def inner() -> int:
        task = asyncio.create_task(for_ever())
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), number)
        code = await supervise([task])
        assert task.cancelled()
        return code

    assert asyncio.run(inner()) == 0


def test_marks_that_came_before_the_wait_are_not_lost() -> None:
    async def inner() -> bool:
        pulse = Pulse()
        pulse.changed()
        await pulse.next_change(None)
        return True

    assert asyncio.run(inner())


def test_a_wait_for_changes_ends_at_its_time() -> None:
    async def inner() -> bool:
        pulse = Pulse()
        await pulse.next_change(pulse.now() + 0.001)
        return True

    assert asyncio.run(inner())


def test_an_event_fits_the_bounds_of_the_api() -> None:
    wish = EventWish("p" * 253, "uid", True, Reason.RESTORE_INCOMPLETE, "…" * 5000)

    body = event_body(wish, datetime(2026, 1, 2, tzinfo=UTC), instance="i" * 500, suffix="0" * 16)

    assert len(body["metadata"]["name"]) == 253
    assert len(body["note"].encode()) <= 1024
    assert len(body["reportingInstance"]) == 128
    assert body["eventTime"] == "2026-01-02T00:00:00.000000Z"
    assert body["type"] == "Warning"
    assert body["regarding"]["uid"] == "uid"


class Reader:
    """A reader whose lists end when a test says so."""

    def __init__(self) -> None:
        self.list_ended = 1

    def relist(self) -> int:
        return 3  # the second list is open


def relists(*readers: Reader) -> Relists:
    return Relists([cast("Informer[Any]", reader) for reader in readers])


def test_lists_that_were_asked_for_are_over_once_all_have_ended_that_began_later() -> None:
    """Promise 8: what one of them has not told yet may have been written by the leader of before."""
    nodes, states = Reader(), Reader()
    made = relists(nodes, states)
    made.ask()

    nodes.list_ended = 4
    states.list_ended = 2
    assert not made.are_over()

    states.list_ended = 3
    assert made.are_over()


def test_that_lists_are_over_is_said_once_and_never_when_nobody_asked() -> None:
    reader = Reader()
    made = relists(reader)
    assert not made.are_over()

    made.ask()
    reader.list_ended = 3

    assert [made.are_over(), made.are_over()] == [True, False]


class VirtualPulse(Pulse):
    """Time passes only by rests and by what decisions cost; there is always another change."""

    def __init__(self, decisions: int) -> None:
        super().__init__()
        self.time = 0.0
        self._left = decisions

    def now(self) -> float:
        return self.time

    async def next_change(self, until: float | None) -> None:  # noqa: ARG002 - the signature of a Pulse
        self._left -= 1
        if self._left < 0:
            raise EOFError

    async def rest(self, seconds: float) -> None:
        self.time += seconds


def moments_of_decisions(cost: float, count: int = 3) -> list[float]:
    """Decide so many times, each for `cost` seconds, with changes all the time; return when each began."""
    pulse, begun = VirtualPulse(count), list[float]()

    def decide() -> None:
        begun.append(pulse.time)
        pulse.time += cost

    with pytest.raises(EOFError):
        asyncio.run(decide_again_and_again(pulse, decide))
    return begun


def test_after_a_cheap_decision_the_next_change_is_answered_at_once() -> None:
    assert moments_of_decisions(0.0) == [0.0, 0.0, 0.0]


def test_after_a_quiet_time_the_decisions_of_one_edit_do_not_wait_for_one_another() -> None:
    assert moments_of_decisions(0.002) == pytest.approx([0.0, 0.002, 0.004])


def test_decisions_take_at_most_an_eleventh_of_the_time() -> None:
    *_, before, last = moments_of_decisions(0.001, 1000)

    assert last == pytest.approx(999 * 0.011 - REST_SPARED_SECONDS)
    assert last - before == pytest.approx(0.011)


def test_a_rest_that_passed_without_a_change_is_not_taken_once_more() -> None:
    pulse, rests = VirtualPulse(100), list[float]()

    def decide() -> None:
        rests.append(pulse.time)
        pulse.time += 0.001

    async def next_change(until: float | None) -> None:
        await VirtualPulse.next_change(pulse, until)
        pulse.time += 0.01

    pulse.next_change = next_change  # type: ignore[method-assign]
    with pytest.raises(EOFError):
        asyncio.run(decide_again_and_again(pulse, decide))

    assert rests == pytest.approx([0.01 + 0.011 * number for number in range(100)])


def test_however_dear_a_decision_changes_do_not_wait_longer_than_the_bound() -> None:
    assert moments_of_decisions(1.0) == pytest.approx([0.0, 1 + REST_SECONDS_MAX, 2 + 2 * REST_SECONDS_MAX])


def test_the_wait_of_changes_counts_from_the_oldest_that_is_not_decided() -> None:
    pulse = VirtualPulse(0)
    pulse.changed()
    pulse.time = 2.0
    pulse.changed()
    pulse.time = 3.0

    found = [pulse.changed_at, pulse.take_changes(), pulse.changed_at, pulse.take_changes()]

    assert found == [0.0, 3.0, None, None]


class Answers:
    """An API server that gives these answers to Events; the last one comes to nobody."""

    def __init__(self, *answers: Response | NoAnswerError) -> None:
        self.left = list(answers)
        self.all_given = asyncio.Event()

    async def request(self, *_: object, **__: object) -> Response:
        if not self.left:
            self.all_given.set()
            await for_ever()
        answer = self.left.pop(0)
        if isinstance(answer, NoAnswerError):
            raise answer
        return answer


def test_events_are_counted_as_stored_or_as_lost() -> None:
    """Lost are those that found the queue full, that were refused, and that nobody answered."""

    async def inner() -> tuple[int, int]:
        server = Answers(Response(201, b"{}"), Response(403, b"{}"), NoAnswerError("away"))
        poster = EventPoster(cast("Client", server), lambda: datetime.now(UTC), instance="a", may_send=lambda: True)
        for number in range(QUEUE_MAX + 2):
            poster.post(EventWish(f"p-{number}", "uid", False, Reason.AS_EXPECTED, "all is well"))
        task = asyncio.create_task(poster.run())
        await server.all_given.wait()
        task.cancel()
        return poster.posted, poster.dropped

    assert asyncio.run(inner()) == (1, 4)
