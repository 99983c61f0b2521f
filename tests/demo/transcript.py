# SPDX-License-Identifier: Apache-2.0
"""What a demo printed, recorded in named blocks, and put into documents: so no output in them is typed by hand.

    make demo-rollout RECORD=1            writes docs/rollouts-transcript.txt
    python -m tests.demo.transcript       puts its blocks into docs/rollouts.md (--check: only says if they differ)

A block of the document stands between ``<!-- demo: NAME -->`` and ``<!-- end demo -->``. Blocks marked as the same in
every run are compared with each later run, all but their times and measured shares.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
RECORD: Final = ROOT / "docs" / "rollouts-transcript.txt"
DOCUMENT: Final = ROOT / "docs" / "rollouts.md"
SAME, EXAMPLE = "the same in every run", "of one run"
_HEADING: Final = re.compile(rf"^=== ([a-z-]+) \(({SAME}|{EXAMPLE})\)\n", re.MULTILINE)
_BLOCK: Final = re.compile(r"(<!-- demo: ([a-z-]+) -->\n).*?(<!-- end demo -->)", re.DOTALL)
_VARIABLE: Final = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "TIME"),
    (re.compile(r"\b\d+(\.\d+)? s\b"), "SECONDS"),
    (re.compile(r"Share is 0\.\d+"), "Share is MEASURED"),
    (re.compile(r"Leader Epoch:( +)\d+"), r"Leader Epoch:\1EPOCH"),
)


class Block(NamedTuple):
    """One piece of output."""

    name: str
    text: str
    same: bool = True
    """Whether each run prints it so, but for times and measured shares."""


def written(blocks: list[Block]) -> str:
    """Return a transcript as a file has it."""
    return "\n".join(f"=== {one.name} ({SAME if one.same else EXAMPLE})\n{one.text.rstrip()}\n" for one in blocks)


def read(text: str) -> dict[str, Block]:
    """Return the blocks of a transcript, by name."""
    pieces = _HEADING.split(text)[1:]
    found = zip(pieces[::3], pieces[1::3], pieces[2::3], strict=True)
    return {name: Block(name, body.strip("\n"), kind == SAME) for name, kind, body in found}


def normal(text: str) -> str:
    """Return text without what differs from run to run."""
    for pattern, word in _VARIABLE:
        text = pattern.sub(word, text)
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())


def differences(recorded: dict[str, Block], blocks: list[Block]) -> Iterator[str]:
    """Yield the lines in which a run is not as recorded."""
    for one in blocks:
        known = recorded.get(one.name, Block(one.name, ""))
        if one.same:
            before, now = normal(known.text).splitlines(), normal(one.text).splitlines()
            yield from difflib.unified_diff(before, now, f"{one.name} as recorded", f"{one.name} now", lineterm="")


def pasted(document: str, recorded: dict[str, Block]) -> str:
    """Return the document with each block as it was recorded.

    Raises:
        KeyError: it asks for a block that was not recorded.
    """
    return _BLOCK.sub(lambda found: f"{found[1]}```console\n{recorded[found[2]].text}\n```\n{found[3]}", document)


def main(arguments: list[str] | None = None) -> int:
    """Write or check the document; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.demo.transcript", description="Paste recorded output.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when it would differ")
    check = parser.parse_args(arguments).check
    before = DOCUMENT.read_text()
    after = pasted(before, read(RECORD.read_text()))
    if check:
        if after != before:
            sys.stderr.write(f"{DOCUMENT.relative_to(ROOT)} is not what was recorded: run `make generate`\n")
        return int(after != before)
    DOCUMENT.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
