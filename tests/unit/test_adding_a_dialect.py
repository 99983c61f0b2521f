# SPDX-License-Identifier: Apache-2.0
"""Follows docs/adding-a-dialect.md to the letter, in a copy of the tree."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/adding-a-dialect.md"
PACKAGES = ("crds/numamigration_api", "node-agent/numamigration_agent", "tests/fakekernel", "tests/twin")
TESTS = ("agent_rig.py", "test_agent_dialects.py")
BLOCK = re.compile(r"^```diff file=(?P<file>\S+)\n (?P<after>.+)\n(?P<code>(?:\+.*\n)+)```$", re.MULTILINE)
SCRIPT = re.compile(r"^```python run\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SAYS = re.compile(r"^It says `(.+)`\.$", re.MULTILINE)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree with the page's blocks in it."""
    root = tmp_path_factory.mktemp("tree")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "tests/unit").mkdir()
    for name in TESTS:
        shutil.copy(ROOT / "tests/unit" / name, root / "tests/unit")
    for block in BLOCK.finditer(PAGE.read_text()):
        _insert(root / block["file"], block["after"], re.sub(r"^\+", "", block["code"], flags=re.MULTILINE))
    return root


def _insert(path: Path, after: str, code: str) -> None:
    text = path.read_text()
    assert text.count(f"{after}\n") == 1
    path.write_text(text.replace(f"{after}\n", f"{after}\n{code}"))


def _run(tree: Path, *arguments: str) -> str:
    paths = os.pathsep.join(str(tree / folder) for folder in ("crds", "node-agent", "."))
    command, environ = [sys.executable, *arguments], os.environ | {"PYTHONPATH": paths}
    done = subprocess.run(command, check=False, cwd=tree, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_page_has_a_word_a_row_and_a_twin() -> None:
    files = [block["file"] for block in BLOCK.finditer(PAGE.read_text())]

    assert [Path(name).name for name in files] == ["vocabulary.py", "dialects.py", "series.py"]


def test_an_agent_drives_the_made_up_dialect_by_its_row_alone(tree: Path) -> None:
    (script,), (says,) = SCRIPT.findall(PAGE.read_text()), SAYS.findall(PAGE.read_text())

    assert _run(tree, "-c", script).strip() == says


def test_every_cell_of_the_made_up_row_has_its_test_at_once(tree: Path) -> None:
    command = (
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:hypothesispytest",
        "--rootdir=.",
        "tests/unit/test_agent_dialects.py",
    )

    said = _run(tree, *command, "-k", "Made-up")

    assert re.search(r"^1[0-9] passed", said, re.MULTILINE)
