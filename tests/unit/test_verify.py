# SPDX-License-Identifier: Apache-2.0
"""`make verify` bites: each kind of wrong edit, made in a copy of the tree, fails the check that is for it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.uncounted

ROOT = Path(__file__).parents[2]
ROOMS = (
    ".gitignore",
    "charts",
    "deploy",
    "crds",
    "operator",
    "node-agent",
    "docs",
    "scripts",
    "tests",
    "pyproject.toml",
)
PYTHON = (sys.executable, "-m")
LINT_IMPORTS = (str(Path(sys.executable).with_name("lint-imports")), "--no-cache")
GENERATE = (*PYTHON, "numamigration_api.generate", "--check")
OPERATOR_SETTINGS = (*PYTHON, "numamigration_operator.settings", "--markdown", "--check", "docs/settings-operator.md")
METRICS = (*PYTHON, "scripts.metrics_documents", "--check")
AGENT_SETTINGS = (*PYTHON, "scripts.agent_settings", "--check")
PROMISES = (*PYTHON, "tests.promises", "--check")
TREE = (sys.executable, "scripts/check_tree.py")

Edit = Callable[[Path], list[Path]]
"""Edits a tree; returns the files that it touched."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the rooms, as a git checkout of its own; whoever edits it puts it back."""
    found = tmp_path_factory.mktemp("tree")
    for name in ROOMS:
        source, target = ROOT / name, found / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)
    subprocess.run(["git", "init", "--quiet"], cwd=found, check=True)
    return found


@pytest.fixture(scope="module")
def complaints(tree: Path) -> Callable[[tuple[str, ...]], str]:
    """Return a function that says what a check finds wrong with the tree that nobody edited; it asks once."""

    def ask(command: tuple[str, ...]) -> str:
        result = verdict(tree, command)
        return result.stdout + result.stderr if result.returncode else ""

    return cache(ask)


def verdict(tree: Path, command: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    path = ":".join(str(tree / room) for room in ("crds", "operator", "node-agent"))
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": path, "HOME": str(tree)}
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)


@contextmanager
def edited(tree: Path, edit: Edit) -> Iterator[None]:
    """Edit, and put back what the edit says it touched, with its time: bytecode of either state is not the other's."""
    touched = edit(tree)
    try:
        yield
    finally:
        for path in touched:
            shutil.copy2(ROOT / path.relative_to(tree), path)


def append(path: str, text: str) -> Edit:
    def edit(tree: Path) -> list[Path]:
        with (tree / path).open("a") as stream:
            stream.write(text)
        return [tree / path]

    return edit


def replace(path: str, old: str, new: str) -> Edit:
    def edit(tree: Path) -> list[Path]:
        text = (tree / path).read_text()
        assert old in text
        (tree / path).write_text(text.replace(old, new, 1))
        return [tree / path]

    return edit


def remove(pattern: str) -> Edit:
    def edit(tree: Path) -> list[Path]:
        found = list(tree.glob(pattern))
        assert found
        for path in found:
            path.unlink()
        return found

    return edit


CORE = "operator/numamigration_operator/core/decisions.py"
AGENT = "node-agent/numamigration_agent/__init__.py"
CHANGE = "node-agent/numamigration_agent/change.py"
WRONG_EDITS = [
    pytest.param(LINT_IMPORTS, append(CORE, "import kopf\n"), "pure", id="the core imports kopf"),
    pytest.param(
        LINT_IMPORTS,
        append("crds/numamigration_api/__init__.py", "import numamigration_operator\n"),
        "upward",
        id="the contract imports upward",
    ),
    pytest.param(LINT_IMPORTS, append(AGENT, "import pydantic\n"), "host rights", id="the agent imports pydantic"),
    pytest.param(TREE, append(AGENT, "import requests\n"), "host rights", id="the agent imports anything third-party"),
    pytest.param(
        GENERATE,
        replace("crds/migrationpolicies.yaml", "maximum: 1000", "maximum: 2000"),
        "make generate",
        id="a CRD edited by hand",
    ),
    pytest.param(
        GENERATE,
        replace("crds/numamigration_api/models/policy.py", "le=1000)] = 100", "le=999)] = 100"),
        "make generate",
        id="a model edited and not generated",
    ),
    pytest.param(
        OPERATOR_SETTINGS,
        replace("docs/settings-operator.md", "apply", "supply"),
        "settings-operator.md",
        id="the operator's settings page is stale",
    ),
    pytest.param(
        METRICS,
        replace("docs/metrics.md", "Policies that exist", "Policies that are"),
        "metrics.md",
        id="the page of metrics is stale",
    ),
    pytest.param(
        AGENT_SETTINGS,
        replace("docs/settings-agent.md", "report", "retort"),
        "settings-agent.md",
        id="the agent's settings page is stale",
    ),
    pytest.param(
        PROMISES,
        replace("docs/promises.md", "Restore is exact", "Restore is near"),
        "promises.md is stale",
        id="the page of promises is stale",
    ),
    pytest.param(
        PROMISES,
        replace(CHANGE, "reversed(self._knob_runs)", "reversed([*self._knob_runs])"),
        "p04-undo-in-order-of-writing.patch: does not apply",
        id="a mutant that does not apply any more",
    ),
    pytest.param(
        PROMISES,
        replace("tests/unit/test_agent_plan.py", "def test_no_known_reason_left_is_refused", "def test_no_reason_left"),
        "there is no test tests/unit/test_agent_plan.py::test_no_known_reason_left_is_refused",
        id="a mutant whose test has another name now",
    ),
    pytest.param(
        PROMISES,
        replace("tests/unit/test_agent_codecs.py", "Promise 2: any", "Promise 7: any"),
        'does not begin with "Promise 2"',
        id="a mutant whose test keeps another promise",
    ),
    pytest.param(
        PROMISES,
        replace("tests/unit/test_agent_codecs.py", "Promise 2: any", "Promise 18: any"),
        "there is no promise 18",
        id="a test that names a promise that nobody gave",
    ),
    pytest.param(
        PROMISES,
        remove("tests/mutants/p10-*.patch"),
        "promise 10 is marked as built and no mutant",
        id="a promise without a mutant",
    ),
    pytest.param(
        PROMISES,
        replace("tests/mutants/p10-exit-waits-for-jobs.patch", "Guard: ", "Gard: "),
        "the header must have Promise, Guard, Test",
        id="a mutant with a wrong header",
    ),
    pytest.param(
        PROMISES,
        replace(
            "tests/promises.py",
            'as fast as writes are paced.",\n    ),\n',
            'as fast as writes are paced.",\n    ),\n    Promise(18, "One more", "That nobody tests."),\n',
        ),
        "promise 18 is marked as built and no test names it",
        id="a promise without a test",
    ),
    pytest.param(TREE, append(AGENT, "def f():\n" + "    pass\n" * 61), "62 lines", id="a function that is too long"),
]


@pytest.mark.parametrize(("command", "edit", "said"), WRONG_EDITS)
def test_a_wrong_edit_fails_its_check_and_is_named(
    tree: Path, complaints: Callable[[tuple[str, ...]], str], command: tuple[str, ...], edit: Edit, said: str
) -> None:
    assert complaints(command) == ""

    with edited(tree, edit):
        found = verdict(tree, command)

    assert found.returncode != 0
    assert said in found.stdout + found.stderr
