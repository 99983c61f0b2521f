# SPDX-License-Identifier: Apache-2.0
"""Tables of documents, for tests that compare them with what is."""

from __future__ import annotations

from pathlib import Path


def read_table(document: Path, first_column: str) -> list[dict[str, str]]:
    """Return the rows of the one Markdown table whose first column has this heading, by heading.

    Raises:
        ValueError: there is no such table, or more than one.
    """
    lines = document.read_text().splitlines()
    heads = [number for number, line in enumerate(lines) if line.startswith(f"| {first_column} |")]
    if len(heads) != 1:
        raise ValueError(f"{document}: {len(heads)} tables begin with {first_column!r}")
    head, rows = _cells(lines[heads[0]]), []
    for line in lines[heads[0] + 2 :]:
        if not line.startswith("|"):
            break
        rows.append(dict(zip(head, _cells(line), strict=True)))
    return rows


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]
