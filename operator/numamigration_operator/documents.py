# SPDX-License-Identifier: Apache-2.0
"""Documents made from the code: printed for ``make generate``, compared for ``make verify``."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path


def print_or_check(program: str, markdown: Callable[[], str], arguments: Sequence[str] | None) -> int:
    """Print a document, or with ``--check`` compare it with a file; 1 and a diff when they differ.

    Args:
        program: as a person starts it, for ``--help``.
        markdown: makes the document.
        arguments: of the command line; None takes the process's own.
    """
    parser = argparse.ArgumentParser(prog=program)
    parser.add_argument("--markdown", action="store_true", required=True, help="print the document")
    parser.add_argument("--check", type=Path, metavar="FILE", help="compare with FILE instead; exit 1 when it is stale")
    path: Path | None = parser.parse_args(arguments).check
    wanted = markdown()
    if path is None:
        sys.stdout.write(wanted)
        return 0
    found = path.read_text() if path.is_file() else ""
    if found != wanted:
        sys.stderr.write(f"{path} is not up to date; run make generate\n")
        sys.stderr.writelines(difflib.unified_diff(found.splitlines(True), wanted.splitlines(True), str(path), program))
    return int(found != wanted)
