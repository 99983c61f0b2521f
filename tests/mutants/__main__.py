# SPDX-License-Identifier: Apache-2.0
"""Applies each mutant to a copy of the tree and runs the test that it names: the test must fail.

* The tests are run once on an unchanged copy first; a mutant whose test does not pass there proves nothing.
* Caught is only what the test itself noticed: no error of collection, import or fixture counts (see ``witness``), and a
  hang counts only when pytest-timeout ended that very test.
* Every run checks that the copy was imported, not the tree that is installed for editing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from enum import StrEnum
from fnmatch import fnmatch
from pathlib import Path
from typing import Final, NamedTuple

from tests.mutants import ROOT, BadMutantError, Mutant, read_mutants
from tests.mutants.witness import FILE_VARIABLE

ROOMS: Final = ("crds", "operator", "node-agent")
TEST_SECONDS_MAX: Final = 20  # pytest-timeout; the slowest named test needs a few seconds
SERVER_TEST_SECONDS_MAX: Final = 60  # of one that starts a control plane first
RUN_SECONDS_MAX: Final = 90  # a mutated run that does not end; what its witness saw until then counts
CLEAN_RUN_SECONDS_MAX: Final = 600  # all named tests one after the other
COLUMNS: Final = 80
# Hypothesis works without its plugin, whose summary imports all of it for every test: half of the time of a run.
PLUGINS: Final = ("tests.mutants.witness", "no:cacheprovider", "no:hypothesispytest")
ENVIRONMENT: Final = {
    "CI": "true",  # Hypothesis then draws the same examples each time and keeps no database
    "PYTHONDONTWRITEBYTECODE": "",  # what the clean run compiled is copied along
}


class Verdict(StrEnum):
    """What became of one mutant."""

    CAUGHT = "caught"
    SURVIVED = "SURVIVED"
    BROKEN = "BROKEN"


class Seen(NamedTuple):
    """What the witness told of one run of pytest.

    Attributes:
        calls: outcome by node id.
        errors: what went wrong outside of a test's own call.
    """

    calls: Mapping[str, str]
    errors: Sequence[str]

    def outcome_of(self, test: str) -> str:
        """Return the worst outcome of a node id and the rows of its table; empty when none ran."""
        found = {outcome for name, outcome in self.calls.items() if name == test or name.startswith(f"{test}[")}
        return next((outcome for outcome in ("failed", "timeout", "skipped", "passed") if outcome in found), "")


class Result(NamedTuple):
    """One line of the table; `why` is empty when there is nothing to say."""

    mutant: Mutant
    verdict: Verdict
    why: str
    seconds: float


def judge(seen: Seen, test: str) -> tuple[Verdict, str]:
    """Say whether a run on a mutated tree shows that `test` notices."""
    outcome = seen.outcome_of(test)
    if outcome == "failed" or (outcome == "timeout" and not seen.errors):
        return Verdict.CAUGHT, "by its time limit" if outcome == "timeout" else ""
    if seen.errors:
        return Verdict.BROKEN, seen.errors[0]
    if outcome == "passed":
        return Verdict.SURVIVED, "its test passes all the same"
    return Verdict.BROKEN, f"its test did not run{outcome and f': {outcome}'}"


def copy_tree(target: Path) -> None:
    """Copy what git tracks or would track, as it stands in the working tree."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def run_tests(tree: Path, tests: Iterable[str], witness: Path, seconds_max: float = RUN_SECONDS_MAX) -> Seen:
    """Run tests in a copy of the tree and return what the witness saw."""
    paths = ":".join(str(tree / room) for room in (*ROOMS, ""))
    environment = os.environ | ENVIRONMENT | {"PYTHONPATH": paths, FILE_VARIABLE: str(witness)}
    plugins = [f"-p{name}" for name in PLUGINS]
    names = list(tests)
    starts_servers = any(name.startswith("tests/apiserver/") for name in names)
    limit = SERVER_TEST_SECONDS_MAX if starts_servers else TEST_SECONDS_MAX
    command = [sys.executable, "-m", "pytest", "-q", *plugins, f"--timeout={limit}", *names]
    last_words = f"pytest did not end within {seconds_max} s"
    with suppress(subprocess.TimeoutExpired):
        done = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, timeout=seconds_max, check=False
        )
        said = (done.stderr or done.stdout).strip().splitlines()
        refused = [one for one in said if one.startswith("ERROR: ")]  # a test that is not there: then none runs
        last_words = [*refused, *said[-1:], f"pytest ended without a word, exit code {done.returncode}"][0]
    if not witness.exists():
        return Seen({}, [last_words])
    told = json.loads(witness.read_text())
    strangers = [f"not imported from the copy: {name}" for name in told["strangers"]]
    silence = [] if told["calls"] or told["errors"] else [last_words]
    return Seen({} if strangers else told["calls"], [*strangers, *told["errors"], *silence])


def try_mutant(mutant: Mutant, clean: Path, folder: Path) -> Result:
    """Apply one mutant to a copy of the `clean` tree and run its test there."""
    begin = time.monotonic()
    tree = folder / mutant.name
    # Links cost no time, and are safe: neither `git apply` nor Python changes a file in place.
    shutil.copytree(clean, tree, copy_function=os.link)
    patch = subprocess.run(
        ["git", "apply", str(ROOT / mutant.path)], cwd=tree, capture_output=True, text=True, check=False
    )
    if patch.returncode:
        verdict, why = Verdict.BROKEN, patch.stderr.strip().splitlines()[0]
    else:
        verdict, why = judge(run_tests(tree, [mutant.test], folder / f"{mutant.name}.json"), mutant.test)
    shutil.rmtree(tree)
    return Result(mutant, verdict, why, time.monotonic() - begin)


def run_all(mutants: Sequence[Mutant], jobs: int, folder: Path) -> list[Result]:
    """Run the named tests on a clean copy, then every mutant; tells about each as it ends."""
    clean = folder / "clean"
    copy_tree(clean)
    # A repository of its own: below somebody else's, `git apply` would silently skip files.
    subprocess.run(["git", "init", "--quiet"], cwd=clean, check=True)
    tests = sorted({mutant.test for mutant in mutants})
    say(f"{len(tests)} tests on the unchanged tree")
    seen = run_tests(clean, tests, folder / "clean.json", CLEAN_RUN_SECONDS_MAX)
    results = [
        Result(mutant, Verdict.BROKEN, f"on the unchanged tree: {outcome or next(iter(seen.errors), 'not run')}", 0.0)
        for mutant in mutants
        if (outcome := seen.outcome_of(mutant.test)) != "passed"
    ]
    sound = [mutant for mutant in mutants if seen.outcome_of(mutant.test) == "passed"]
    with ThreadPoolExecutor(jobs) as pool:
        for number, result in enumerate(pool.map(lambda mutant: try_mutant(mutant, clean, folder), sound), 1):
            say(f"[{number:>{len(str(len(sound)))}}/{len(sound)}] {line(result)}")
            results.append(result)
    return sorted(results)


def line(result: Result) -> str:
    """Return one line of the table."""
    return f"{result.verdict:<8} {result.seconds:4.1f} s  {result.mutant.name}"


def say(text: str) -> None:
    """Show progress."""
    print(text[:COLUMNS], file=sys.stderr, flush=True)


def table(results: Sequence[Result]) -> str:
    """Return the table; what has to be mended comes last, with its reason."""
    rows = []
    for result in sorted(results, key=lambda result: (result.verdict is not Verdict.CAUGHT, result.mutant)):
        rows.append(line(result)[:COLUMNS])
        if result.verdict is not Verdict.CAUGHT:
            rows.extend((f"         gone: {result.mutant.guard}", f"         test: {result.mutant.test}"))
        rows.extend([f"         {result.why}"] if result.why else [])
    caught = sum(result.verdict is Verdict.CAUGHT for result in results)
    return "\n".join([*rows, f"{caught} of {len(results)} mutants caught"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the mutants that were asked for; 1 when one of them is not caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="PATTERN", default="*", help="names of mutants, as in 'p04-*' (default: all)")
    parser.add_argument("--jobs", metavar="N", type=int, default=2, help="runs at the same time (default: 2)")
    chosen = parser.parse_args(arguments)
    try:
        mutants = [mutant for mutant in read_mutants() if fnmatch(mutant.name, chosen.only)]
    except BadMutantError as error:
        parser.error(str(error))
    if not mutants:
        parser.error(f"no mutant is called {chosen.only!r}")
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        results = run_all(mutants, chosen.jobs, Path(folder))
    print(f"{table(results)} in {time.monotonic() - begin:.0f} s")
    return int(any(result.verdict is not Verdict.CAUGHT for result in results))


if __name__ == "__main__":
    sys.exit(main())
