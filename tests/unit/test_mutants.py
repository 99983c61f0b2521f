# SPDX-License-Identifier: Apache-2.0
"""The machinery of mutants bites itself: what counts as caught, and what only looks like it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants import FOLDER, ROOT, BadMutantError, Mutant, parse_mutant, read_mutants
from tests.mutants.__main__ import Seen, Verdict, judge, run_all, run_tests

pytestmark = pytest.mark.uncounted

FILE = "tests/test_small.py"
TEST = f"{FILE}::test_it"
DIFF = "--- a/operator/a.py\n+++ b/operator/a.py\n@@ -1 +1 @@\n-guarded()\n+pass\n"
HEADER = f"Promise: 4\nGuard: it is guarded\nTest: {TEST}\n"


# --- patches


def test_a_patch_is_a_header_and_a_diff() -> None:
    path = FOLDER / "p04-it-is-gone.patch"

    found = parse_mutant(path, f"{HEADER}\n{DIFF}")

    assert found == Mutant(path, 4, "it is guarded", TEST)
    assert found.name == "p04-it-is-gone"


def test_rows_of_a_table_are_one_function() -> None:
    assert Mutant(FOLDER, 4, "", f"{TEST}[a row: with [brackets]]").function == TEST


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        pytest.param("p04-a.patch", DIFF, "header", id="no header"),
        pytest.param("p04-a.patch", HEADER + DIFF, "header", id="no empty line"),
        pytest.param("p04-a.patch", HEADER.replace("Guard", "Gard") + f"\n{DIFF}", "header", id="another key"),
        pytest.param("p04-a.patch", HEADER.replace("it is guarded", "") + f"\n{DIFF}", "header", id="no guard named"),
        pytest.param("p05-a.patch", f"{HEADER}\n{DIFF}", "name", id="the name has another number"),
        pytest.param("p04_a.patch", f"{HEADER}\n{DIFF}", "name", id="no such name"),
        pytest.param("p04-a.patch", f"{HEADER}\n", "product", id="no diff"),
        pytest.param("p04-a.patch", f"{HEADER}\n{DIFF}".replace("operator/", "tests/"), "product", id="changes a test"),
    ],
)
def test_a_patch_of_another_form_is_refused(name: str, text: str, said: str) -> None:
    with pytest.raises(BadMutantError, match=said):
        parse_mutant(FOLDER / name, text)


# --- verdicts


@pytest.mark.parametrize(
    ("calls", "errors", "verdict", "why"),
    [
        pytest.param({TEST: "failed"}, [], Verdict.CAUGHT, "", id="failed"),
        pytest.param({f"{TEST}[a]": "passed", f"{TEST}[b]": "failed"}, [], Verdict.CAUGHT, "", id="one row failed"),
        pytest.param({TEST: "failed"}, ["teardown"], Verdict.CAUGHT, "", id="failed, and its teardown too"),
        pytest.param({TEST: "timeout"}, [], Verdict.CAUGHT, "time limit", id="timed out"),
        pytest.param({TEST: "passed"}, [], Verdict.SURVIVED, "passes", id="passed"),
        pytest.param({f"{TEST}_other": "failed", TEST: "passed"}, [], Verdict.SURVIVED, "passes", id="another failed"),
        pytest.param({TEST: "skipped"}, [], Verdict.BROKEN, "skipped", id="skipped"),
        pytest.param({}, [], Verdict.BROKEN, "did not run", id="did not run"),
        pytest.param({}, ["cannot be collected"], Verdict.BROKEN, "collected", id="not collected"),
        pytest.param({TEST: "passed"}, ["teardown"], Verdict.BROKEN, "teardown", id="passed, and its teardown failed"),
    ],
)
def test_only_a_test_that_failed_by_itself_catches(
    calls: dict[str, str], errors: list[str], verdict: Verdict, why: str
) -> None:
    found, said = judge(Seen(calls, errors), TEST)

    assert found is verdict
    assert (why in said) if why else not said


def small_tree(folder: Path, source: str) -> Path:
    shutil.copytree(ROOT / FOLDER, folder / FOLDER, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / FILE).write_text(source)
    return folder


@pytest.mark.parametrize(
    ("source", "verdict", "why"),
    [
        pytest.param("def test_it(): assert False", Verdict.CAUGHT, "", id="an assertion"),
        pytest.param("def test_it(): None.missing", Verdict.CAUGHT, "", id="an error that a guard prevents"),
        pytest.param("def test_it(): missing", Verdict.BROKEN, "NameError", id="a name that is not there"),
        pytest.param("def test_it(): import missing", Verdict.BROKEN, "ModuleNotFoundError", id="a late import"),
        pytest.param("import missing\ndef test_it(): pass", Verdict.BROKEN, "collected", id="an import"),
        pytest.param("def test_it(: pass", Verdict.BROKEN, "collected", id="a syntax error"),
        pytest.param("def test_it(missing): pass", Verdict.BROKEN, "setup", id="a fixture"),
        pytest.param(
            "import pytest, time\n@pytest.mark.timeout(0.1)\ndef test_it(): time.sleep(60)",
            Verdict.CAUGHT,
            "time limit",
            id="a hang",
        ),
        pytest.param(
            "import os\ndef test_it(): os._exit(1)", Verdict.BROKEN, "without a word", id="an end without a word"
        ),
        pytest.param(
            "import numamigration_api\ndef test_it(): assert False", Verdict.BROKEN, "copy", id="another tree"
        ),
        pytest.param("def test_other(): assert False", Verdict.BROKEN, "ERROR: not found", id="no such test"),
    ],
)
def test_the_witness_tells_a_noticed_mutant_from_a_broken_one(
    tmp_path: Path, source: str, verdict: Verdict, why: str
) -> None:
    seen = run_tests(small_tree(tmp_path, source), [TEST], tmp_path / "witness.json")

    found, said = judge(seen, TEST)
    assert found is verdict
    assert why in said


def test_every_mutant_names_a_test_that_there_is() -> None:
    """Where one is not there, pytest runs none of the others either."""
    named = {mutant.test for mutant in read_mutants()}
    files = sorted({test.partition("::")[0] for test in named})
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", *files]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()

    known = {*found, *(test.partition("[")[0] for test in found)}
    assert named - known == set()


def test_a_patch_that_takes_nothing_away_survives_and_one_that_does_not_apply_is_broken(tmp_path: Path) -> None:
    test = "tests/unit/test_agent_baseline.py::test_the_first_value_of_a_field_wins"
    harmless, outdated = tmp_path / "harmless.patch", tmp_path / "outdated.patch"
    harmless.write_text(f"{HEADER}\n--- /dev/null\n+++ b/node-agent/new.py\n@@ -0,0 +1 @@\n+pass\n")
    outdated.write_text(f"{HEADER}\n{DIFF}")
    folder = tmp_path / "run"
    folder.mkdir()

    results = run_all([Mutant(path, 4, "", test) for path in (harmless, outdated)], 1, folder)

    assert [result.verdict for result in results] == [Verdict.SURVIVED, Verdict.BROKEN]
