# SPDX-License-Identifier: Apache-2.0
"""``make test-host`` on a mounted fake instead of a machine: what it writes, and that it leaves all as it was.

Needs root and libfuse3 (``scripts/setup fuse``).
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from numamigration_api.vocabulary import Dialect
from tests.fakekernel.calls import Gate
from tests.fakekernel.config import HostConfig, Spoiled
from tests.fakekernel.control import CloseGate, OpenGate, Spoil
from tests.fakekernel.host import FakeHost

pytestmark = pytest.mark.uncounted

ROOT = Path(__file__).parents[2]
KNOBS = {
    Dialect.V5: ("module/dcbm/offloading", "module/dcbm/nr_dma_chan", "kernel/mm/numa/demotion_enabled"),
    Dialect.V6: tuple(f"module/dcbm/parameters/{name}" for name in ("offloading", "nr_dma_chan", "reason_mask")),
}
IN_USE = {"offloading": "1", "nr_dma_chan": "3"}
"""How the driver was loaded; V5's takes nothing at load."""


def command(*arguments: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:randomly",
        "-p",
        "no:hypothesispytest",
        "-rsf",
        *arguments,
        "tests/host",
    ]


def environment(host: FakeHost, *, writes: bool) -> dict[str, str]:
    return {**os.environ, "TEST_HOST_ROOT": str(host.root), "ALLOW_WRITES": "1" if writes else ""}


def run(host: FakeHost, *, writes: bool) -> tuple[int, str]:
    done = subprocess.run(
        command(), cwd=ROOT, env=environment(host, writes=writes), capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def held(host: FakeHost, dialect: Dialect) -> Mapping[str, str]:
    return {name: host.path(f"/sys/{name}").read_text() for name in KNOBS[dialect]}


def loaded(dialect: Dialect) -> HostConfig:
    return HostConfig(dialect=dialect, parameters=IN_USE if dialect is Dialect.V6 else {})


def test_nothing_is_written_unless_that_is_allowed() -> None:
    with FakeHost(loaded(Dialect.V6)) as host:
        code, said = run(host, writes=False)

        assert (code, host.stores) == (0, [])
    assert "dialect V6" in said
    assert re.search(r"SKIPPED \[\d+\] .*ALLOW_WRITES=1 allows to write", said)


@pytest.mark.parametrize("dialect", KNOBS)
def test_the_table_is_met_and_everything_is_as_before(dialect: Dialect) -> None:
    with FakeHost(loaded(dialect)) as host:
        before = held(host, dialect)

        code, said = run(host, writes=True)

        assert code == 0, said
        assert held(host, dialect) == before
        assert len(host.stores) > 100


def test_a_kernel_that_answers_otherwise_fails_by_name() -> None:
    with FakeHost(loaded(Dialect.V6)) as host:
        host.do(Spoil("/sys/module/dcbm/parameters/nr_dma_chan", Spoiled(write_error=5)))

        code, said = run(host, writes=True)

    assert code == 1
    assert "FAILED tests/host/test_this_kernel.py::test_a_knob_takes_the_value_that_it_shows[offload.channels]" in said


def test_a_run_that_is_ended_puts_back_what_it_wrote() -> None:
    with FakeHost(loaded(Dialect.V6)) as host:
        before = held(host, Dialect.V6)
        host.do(CloseGate(Gate(nth=6)))
        with subprocess.Popen(
            command("-k", "table"), cwd=ROOT, env=environment(host, writes=True), stdout=subprocess.DEVNULL
        ) as tests:
            host.await_held()
            tests.send_signal(signal.SIGTERM)
            host.do(OpenGate())
            tests.wait()

        assert tests.returncode == pytest.ExitCode.INTERRUPTED
        assert held(host, Dialect.V6) == before
