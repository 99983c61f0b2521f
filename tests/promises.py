# SPDX-License-Identifier: Apache-2.0
"""The promises of this project, and what proves each: tests that name it, and mutants that those tests catch.

A test guards a promise when its docstring begins with "Promise 4", or "Promises 1, 4 and 7". ``docs/promises.md`` is
made from that; ``--check`` also finds a promise without a proof, a mutant that does not apply any more, and one whose
test is gone or keeps another promise. Nothing is run here: ``python -m tests.mutants`` does that.
"""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.mutants import ROOT, BadMutantError, Mutant, read_mutants

NOT_BUILT_YET: Final = "not built yet"


@dataclass(frozen=True, slots=True)
class Promise:
    """What users may rely on.

    Attributes:
        built: this release keeps it; then it has at least one test and one mutant.
        later: the part that is not built yet; empty when nothing is missing.
    """

    number: int
    title: str
    text: str
    built: bool = True
    later: str = ""


PROMISES: Final = (
    Promise(
        1,
        "Old values are safe first",
        "Before a kernel file is written, the value that it holds is safe in two places: in a file on the host's tmpfs "
        "that is tied to this boot, and in the status of the node's own object.",
    ),
    Promise(
        2,
        "No needless and no foreign write",
        "What already is as asked is not written. Counters are never written, kernel files never created, drivers "
        "never bound or loaded.",
    ),
    Promise(
        3,
        "Migration reasons fail closed",
        "Where a node cannot restrict who is offloaded as the policy asks, offload stays off. The one exception is the "
        "window in which an engine is verified, and it is shown.",
    ),
    Promise(
        4,
        "All or nothing",
        "Knobs that belong together change together. The offload switch is written last when it goes on and first when "
        "it goes off. When one write fails, the earlier ones are undone in reverse order, and the status says so.",
    ),
    Promise(
        5,
        "Known hazards are refused",
        "Unless the policy names the risk, offload stays off with a dialect that can lose bytes, with an engine that "
        "completes out of order or is shared, with memory_failure possibly among the reasons, and with a driver "
        "that is built into the kernel. A dialect without a time-out is only turned off; sg_elems 0 is never written.",
    ),
    Promise(
        6,
        "Our end changes nothing",
        "Stopping, restarting, upgrading or losing an agent or the operator changes no knob. Only a wish to restore "
        "restores.",
    ),
    Promise(
        7,
        "Restore is exact",
        "Restoring puts each knob back to the very value that it had before, also after restarts of everything but the "
        "node itself. A driver that was loaded anew had before what that load brought.",
    ),
    Promise(
        8,
        "The budget holds",
        "No more than maxUnproven nodes of a policy are reserved or unproven at any time: also with two operators "
        "alive, a crash at any point or a stale cache. Changes in the safe direction are not counted.",
    ),
    Promise(
        9,
        "Agents are fenced in",
        "The agent of a node can write the status of its own node's object and nothing else. Without that fence only "
        "changes in the safe direction are pushed.",
        built=False,
    ),
    Promise(
        10,
        "A blocked kernel file blocks nothing else",
        "Turning offload off may hang for ten seconds and more for each channel, on a thread that cannot be killed. "
        "The agent's watch, reports, counters and exit do not wait for it.",
    ),
    Promise(
        11,
        "Different troubles have different words",
        "Unsupported, pending, failed, drifted, refused and unreachable are told apart, and counted apart.",
    ),
    Promise(
        12,
        "Status stays small and calm",
        "A policy stays below 20 kB with any number of nodes, a node's object below 10 kB. A policy's change of state "
        "is shown within 5 s, with at most one write in 5 s; new statistics alone are written at most every 60 s, and "
        "never as the first write after a start.",
    ),
    Promise(
        13,
        "Deletion ends",
        "Deleting anything, and uninstalling, ends in bounded time, with any number of dead nodes.",
    ),
    Promise(
        14,
        "Only known knobs are written",
        "Nothing in a policy, a node's name, a label or a kernel file makes us write outside the table of known knobs.",
    ),
    Promise(
        15,
        "Engines are verified before they are trusted",
        "An engine is used only after it has copied salted pages of our own right on this boot, and a known hazard is "
        "taken only when the policy names it.",
    ),
    Promise(
        16,
        "A sick engine is off at once",
        "While an agent runs, an engine that stalls or fails is off within one wait for a batch and 5 s, by the node "
        "alone, also without the API server. It stays off until somebody says so or a pause is over.",
    ),
    Promise(
        17,
        "There is a fast way off",
        "One switch for the whole fleet reaches every live node as fast as writes are paced.",
    ),
)
"""In our own words; the numbers are those of the docstrings and never change their meaning."""

PAGE: Final = Path("docs/promises.md")
INTRODUCTION: Final = (
    "What users may rely on, whatever happens, and what proves it: tests, and mutants. A mutant is a patch that takes "
    "one guard away; `make mutants` shows that the test that it names fails then."
)

_NAMED: Final = re.compile(r"Promises? (\d+(?:(?:, and |, | and )\d+)*)(?![\d'])")


@dataclass(frozen=True, slots=True)
class GuardTest:
    """A test function, or a state machine whose rules and invariants are one test.

    Attributes:
        node_id: as pytest takes it.
    """

    node_id: str
    promises: frozenset[int]

    @property
    def file(self) -> str:
        """The part of the node id that is a path from the root of the tree."""
        return self.node_id.partition("::")[0]


def named_promises(docstring: str | None) -> frozenset[int]:
    """Return the numbers that a docstring begins with."""
    found = _NAMED.match(docstring or "")
    return frozenset(int(number) for number in re.findall(r"\d+", found[1])) if found else frozenset()


def read_tests(root: Path = ROOT) -> Iterator[GuardTest]:
    """Yield every test of the tree, in the order of files and lines."""
    for path in sorted(root.glob("tests/**/test_*.py")):
        yield from find_tests(path.relative_to(root).as_posix(), path.read_text())


def find_tests(file: str, source: str) -> Iterator[GuardTest]:
    """Yield the tests of one file."""
    module = ast.parse(source)
    machines = {node.name: node for node in module.body if isinstance(node, ast.ClassDef)}
    for node in module.body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if name.startswith("test_"):
                yield GuardTest(f"{file}::{name}", named_promises(ast.get_docstring(node)))
            # A Hypothesis state machine becomes a test by an assignment of its TestCase.
            case ast.Assign(
                targets=[ast.Name(id=name)], value=ast.Attribute(value=ast.Name(id=machine), attr="TestCase")
            ) if machine in machines:
                parts = (machines[machine], *machines[machine].body)
                said = (ast.get_docstring(part) for part in parts if isinstance(part, ast.ClassDef | ast.FunctionDef))
                yield GuardTest(f"{file}::{name}", frozenset[int]().union(*map(named_promises, said)))
            case _:
                pass


@dataclass(frozen=True, slots=True)
class Proofs:
    """What the tree has, by promise."""

    tests: Mapping[str, GuardTest]
    mutants: Sequence[Mutant]

    def tests_for(self, promise: Promise) -> list[GuardTest]:
        """Return the tests that name a promise."""
        return [test for test in self.tests.values() if promise.number in test.promises]

    def mutants_for(self, promise: Promise) -> list[Mutant]:
        """Return the mutants of a promise."""
        return [mutant for mutant in self.mutants if mutant.promise == promise.number]


def read_proofs(root: Path = ROOT) -> Proofs:
    """Read tests and mutants.

    Raises:
        BadMutantError: a patch without the right header.
    """
    return Proofs({test.node_id: test for test in read_tests(root)}, list(read_mutants(root)))


def findings(proofs: Proofs, root: Path = ROOT) -> Iterator[str]:
    """Yield what is wrong with the proofs, a line each."""
    numbers = {promise.number for promise in PROMISES}
    for test in proofs.tests.values():
        for number in sorted(test.promises - numbers):
            yield f"{test.node_id}: there is no promise {number}"
    for mutant in proofs.mutants:
        yield from _mutant_findings(mutant, proofs, root)
    for promise in PROMISES:
        if promise.built and not proofs.tests_for(promise):
            yield f"promise {promise.number} is marked as built and no test names it"
        if promise.built and not proofs.mutants_for(promise):
            yield f"promise {promise.number} is marked as built and no mutant takes a guard of it away"


def _mutant_findings(mutant: Mutant, proofs: Proofs, root: Path) -> Iterator[str]:
    test = proofs.tests.get(mutant.function)
    if test is None:
        yield f"{mutant.path}: there is no test {mutant.function}"
    elif mutant.promise not in test.promises:
        yield f'{mutant.path}: the docstring of {mutant.function} does not begin with "Promise {mutant.promise}"'
    command = ["git", "apply", "--check", str(mutant.path)]
    applied = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if applied.returncode:
        yield f"{mutant.path}: does not apply any more: {applied.stderr.strip().splitlines()[0]}"


def page(proofs: Proofs) -> str:
    """Return docs/promises.md."""
    rows = [
        f"| [{promise.number}](#{_anchor(promise)}) | {promise.title} | {_state(promise)} "
        f"| {_count(promise, proofs.tests_for(promise))} | {_count(promise, proofs.mutants_for(promise))} |"
        for promise in PROMISES
    ]
    head = (
        "# Promises",
        "<!-- Generated by `make generate` from tests/promises.py, the docstrings of the tests and tests/mutants. -->",
        INTRODUCTION,
        "\n".join(("| promise | | state | tests | mutants |", "|---|---|---|---|---|", *rows)),
    )
    return "\n\n".join((*head, *(_section(promise, proofs) for promise in PROMISES))) + "\n"


def _count(promise: Promise, found: Sequence[object]) -> str:
    return str(len(found)) if found or promise.built else NOT_BUILT_YET


def _state(promise: Promise) -> str:
    if not promise.built:
        return NOT_BUILT_YET
    return f"built; {NOT_BUILT_YET}: {promise.later}" if promise.later else "built"


def _anchor(promise: Promise) -> str:
    return re.sub(r"[^a-z0-9 ]", "", _heading(promise).lower()).replace(" ", "-")


def _heading(promise: Promise) -> str:
    return f"{promise.number}. {promise.title}"


def _section(promise: Promise, proofs: Proofs) -> str:
    tests = [f"- [{test.node_id}](../{test.file})" for test in proofs.tests_for(promise)]
    mutants = [_mutant_row(mutant) for mutant in proofs.mutants_for(promise)]
    missing = f"*{NOT_BUILT_YET.capitalize()}{promise.later and f': {promise.later}'}.*"
    parts = (
        f"## {_heading(promise)}",
        promise.text,
        "" if promise.built and not promise.later else missing,
        "\n".join(tests),
        "\n".join(("| guard that a mutant takes away | test that fails |", "|---|---|", *mutants)) if mutants else "",
    )
    return "\n\n".join(filter(None, parts))


def _mutant_row(mutant: Mutant) -> str:
    file, _, name = mutant.test.partition("::")
    return f"| [{mutant.guard}](../{mutant.path.as_posix()}) | [{name}](../{file}) |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the page; with --check compare it and look for gaps, 1 when there is a finding."""
    parser = argparse.ArgumentParser(prog="python -m tests.promises", description="Print docs/promises.md.")
    parser.add_argument(
        "--check", action="store_true", help="print nothing but what is wrong with page, tests, mutants"
    )
    chosen = parser.parse_args(arguments)
    try:
        proofs = read_proofs()
    except BadMutantError as error:
        return _tell([str(error)])
    if not chosen.check:
        sys.stdout.write(page(proofs))
        return 0
    stale = not (ROOT / PAGE).exists() or (ROOT / PAGE).read_text() != page(proofs)
    return _tell([*findings(proofs), *([f"{PAGE} is stale: run `make generate`"] if stale else [])])


def _tell(lines: Iterable[str]) -> int:
    found = list(lines)
    sys.stderr.write("".join(f"{line}\n" for line in found))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
