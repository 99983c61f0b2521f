# SPDX-License-Identifier: Apache-2.0
"""Coverage rests for tests that are marked, and goes on after them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.counting import FOR_CHILDREN

pytestmark = pytest.mark.uncounted

ROOT = Path(__file__).parents[2]
PLUGINS = ("-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:hypothesispytest", "-p", "tests.counting")
TESTS = """
import os, sys, pytest

def says(): return sys.gettrace() is not None, {variable!r} in os.environ

def test_counted(): assert says() == (True, True)

@pytest.mark.uncounted
def test_uncounted(): assert says() == (False, False)

@pytest.mark.uncounted
def test_uncounted_that_fails(): assert says() != (False, False)

def test_counted_again(): assert says() == (True, True)
"""


def test_only_what_is_marked_is_not_counted_here_nor_in_its_children(tmp_path: Path) -> None:
    (tmp_path / "test_small.py").write_text(TESTS.format(variable=FOR_CHILDREN))
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = uncounted: x\nfilterwarnings = error\n")
    command = ("-m", "coverage", "run", f"--rcfile={ROOT}/pyproject.toml", f"--data-file={tmp_path}/data")

    done = subprocess.run(
        [sys.executable, *command, "-m", "pytest", *PLUGINS, "test_small.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert "1 failed, 3 passed" in done.stdout, done.stdout + done.stderr
    assert "test_uncounted_that_fails" in done.stdout
