# SPDX-License-Identifier: Apache-2.0
"""Puts the targets into README.md, between two markers: ``python -m benchmarks.table [--check]``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.page.book import Book
from benchmarks.page.verdicts import summary
from benchmarks.schema import read_all

README: Final = Path(__file__).parents[1] / "README.md"
BEGIN: Final = "<!-- Written by `make bench-table` from benchmarks/results/; do not edit. -->"
END: Final = "<!-- End of the benchmark table. -->"


def replaced(text: str, table: str) -> str:
    """Return a document with another table between its markers.

    Raises:
        ValueError: a marker is missing.
    """
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document needs the lines {BEGIN!r} and {END!r}")
    return f"{head}{begin}\n\n{table}\n\n{end}{tail}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table, or with ``--check`` compare it; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when README.md is stale")
    options = parser.parse_args(arguments)
    found = README.read_text()
    wanted = replaced(found, summary(Book(read_all())))
    if options.check and found != wanted:
        sys.stderr.write("README.md does not show benchmarks/results/; run make bench-table\n")
        return 1
    if not options.check:
        README.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
