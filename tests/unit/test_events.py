# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from numamigration_api.vocabulary import Reason
from numamigration_operator.cluster.client import Client, Response
from numamigration_operator.cluster.events import QUEUE_MAX, REPEAT_SECONDS, SAID_MAX, EventPoster
from numamigration_operator.core.decisions import EventWish

WALL = datetime(2026, 1, 2, tzinfo=UTC)
WISH = EventWish("p", "uid", True, Reason.RESTORE_INCOMPLETE, "gave up waiting for node-a")


class Server:
    """Keeps what was posted."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    async def request(self, method: str, path: str, *, body: bytes) -> Response:
        assert (method, path) == ("POST", "/apis/events.k8s.io/v1/namespaces/default/events")
        self.notes.append(json.loads(body)["note"])
        return Response(201, b"{}")


def posted(wishes: Iterable[tuple[float, EventWish]]) -> list[str]:
    """Take each wish at its time and post it; return the notes of what was posted."""

    async def inner() -> list[str]:
        server, now = Server(), 0.0
        poster = EventPoster(
            cast("Client", server), lambda: WALL, instance="i", may_send=lambda: True, clock=lambda: now
        )
        task = asyncio.create_task(poster.run())
        for at, wish in wishes:
            now = at
            poster.post(wish)
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return server.notes

    return asyncio.run(inner())


def test_what_was_said_a_moment_ago_is_not_said_again() -> None:
    assert posted([(1.0, WISH), (REPEAT_SECONDS, WISH)]) == [WISH.message]


def test_what_goes_on_is_said_again_each_time_the_pause_is_over() -> None:
    """A repetition does not make the pause longer."""
    times = [1.0, REPEAT_SECONDS, REPEAT_SECONDS + 1.0, 2 * REPEAT_SECONDS]

    assert posted([(at, WISH) for at in times]) == [WISH.message] * 2


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"message": "gave up waiting for node-b"}, id="message"),
        pytest.param({"reason": Reason.VERSION_SKEW}, id="reason"),
        pytest.param({"policy_uid": "another"}, id="policy of the same name"),
    ],
)
def test_what_differs_is_said_at_once(change: dict[str, Any]) -> None:
    assert len(posted([(1.0, WISH), (1.0, dataclasses.replace(WISH, **change))])) == 2


def test_what_is_remembered_is_bounded_and_the_oldest_goes_first() -> None:
    others = [dataclasses.replace(WISH, message=str(number)) for number in range(SAID_MAX)]

    notes = posted([(1.0, one) for one in (WISH, *others, others[-1], WISH)])

    assert notes == [WISH.message, *(one.message for one in others), WISH.message]


def test_what_was_said_again_is_not_the_oldest_any_more() -> None:
    others = [dataclasses.replace(WISH, message=str(number)) for number in range(SAID_MAX)]
    again = REPEAT_SECONDS + 1.0

    notes = posted([*((1.0, one) for one in (WISH, *others[1:])), (again, WISH), (again, others[0]), (again, WISH)])

    assert notes.count(WISH.message) == 2


def test_what_found_no_room_counts_as_dropped_and_may_be_said_later() -> None:
    poster = EventPoster(cast("Client", None), lambda: WALL, instance="i", may_send=lambda: True, clock=lambda: 1.0)
    for number in range(QUEUE_MAX):
        poster.post(dataclasses.replace(WISH, message=str(number)))

    poster.post(WISH)
    poster.post(WISH)

    assert poster.dropped == 2
