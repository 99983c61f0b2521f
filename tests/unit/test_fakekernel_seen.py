# SPDX-License-Identifier: Apache-2.0
"""The fake kernel answers as the running kernel did, row by row, through mounted files.

Needs root and libfuse3 (``scripts/setup fuse``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import msgspec
import pytest

from numamigration_api.vocabulary import Dialect
from tests.fakekernel.config import HostConfig
from tests.fakekernel.control import Reboot, SetEngines
from tests.fakekernel.host import FakeHost
from tests.fakekernel.replay import MismatchError, Replay
from tests.fakekernel.seen import FINDINGS, NOT_SHOWN, SEEN, Read, Seen

pytestmark = pytest.mark.uncounted

Hosts = Callable[[HostConfig], FakeHost]


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """Return the mounted host of a configuration as right after boot; one for each configuration."""
    started: dict[bytes, FakeHost] = {}
    with ExitStack() as stack:

        def host_of(config: HostConfig) -> FakeHost:
            key = msgspec.json.encode(config)
            if key not in started:
                started[key] = stack.enter_context(FakeHost(config, real_time=False))
            started[key].do(Reboot())
            started[key].do(SetEngines(config.engines))
            return started[key]

        yield host_of


CASES = [pytest.param(row, dialect, id=f"{dialect}: {row.id}") for row in SEEN for dialect in row.dialects]


@pytest.mark.parametrize(("row", "dialect"), CASES)
def test_the_fake_answers_as_the_kernel_was_seen_to(hosts: Hosts, row: Seen, dialect: Dialect) -> None:
    host = hosts(HostConfig(dialect=dialect, **row.host))

    Replay(host.root, host.do, dialect).run(row)


def test_every_finding_has_a_row_or_a_reason_why_not() -> None:
    assert {row.finding for row in SEEN} | set(NOT_SHOWN) == set(FINDINGS)
    assert not {row.finding for row in SEEN} & set(NOT_SHOWN)


def test_row_names_are_unique() -> None:
    names = Counter((row.id, dialect) for row in SEEN for dialect in row.dialects)

    assert {name: times for name, times in names.items() if times > 1} == {}


def test_a_replay_notices_an_answer_that_differs(hosts: Hosts) -> None:
    host = hosts(HostConfig())

    with pytest.raises(MismatchError, match="answered '0"):
        Replay(host.root, host.do, Dialect.V6).run(Seen("", "", (), (Read("{dcbm}/offloading", "1"),)))
