# SPDX-License-Identifier: Apache-2.0
"""A program that is started from a warm process is a process like any other."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testbed.warm import Starter

ENDS = "import os, sys\nprint(sys.argv[1:], dict(os.environ))\nsys.stderr.write('error')\nsys.exit(3)\n"
LASTS = "import sys\nprint('runs', flush=True)\nimport signal\nsignal.pause()\n"


@pytest.fixture
def starter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Starter]:
    for name, text in {"ends": ENDS, "lasts": LASTS}.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), str(Path(__file__).parents[2]))))
    with Starter("json") as running:
        yield running


def test_it_has_arguments_environment_output_and_exit_code_of_its_own(starter: Starter) -> None:
    program = starter.start("ends", "one", "two", env={"ONLY": "this"})

    assert program.wait(60) == 3
    assert program.read() == "['one', 'two'] {'ONLY': 'this'}\nerror"


def test_its_errors_can_go_into_a_file(starter: Starter, tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as stream:
        program = starter.start("ends", env={}, stderr=stream.fileno())

    assert program.wait(60) == 3
    assert (tmp_path / "log").read_text() == "error"


def test_while_it_runs_it_has_no_exit_code_and_then_that_of_its_signal(starter: Starter) -> None:
    program = starter.start("lasts", env={})
    assert program.stdout
    assert program.stdout.readline() == "runs\n"

    assert program.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        program.wait(0)
    program.send_signal(signal.SIGINT)
    assert program.wait(60) == -signal.SIGINT
    assert "KeyboardInterrupt" in program.read()


def test_what_was_started_goes_on_when_the_starter_ends(starter: Starter) -> None:
    program = starter.start("lasts", env={})
    assert program.stdout
    program.stdout.readline()

    assert starter.close() == 0

    os.kill(program.pid, signal.SIGKILL)
    assert program.read() == ""
