# SPDX-License-Identifier: Apache-2.0
"""Rules about the tree that no linter has: licence lines, sizes of functions, secrets, binaries.

Prints one line for each finding and exits 1 when there is one.
"""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

FUNCTION_LINES_MAX: Final = 60
FUNCTION_LINES_MEDIAN_MAX: Final = 12
FILE_BYTES_MAX: Final = 400_000  # go.sum of Kubernetes is the largest text we keep
SECRET: Final = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----|\beyJhbGciOi[\w-]{20,}")
FIGURES: Final = re.compile(
    r"docs/images/(performance|kubectl-plugin)/[a-z-]+\.png"
)  # drawn by the build, which checks them
STANDARD_LIBRARY_ONLY: Final = (
    "node-agent/",
    "crds/numamigration_api/vocabulary.py",
    "crds/numamigration_api/machinery/",
)
OURS: Final = ("numamigration_agent", "numamigration_api.vocabulary", "numamigration_api.machinery")
PRODUCT: Final = ("crds/", "operator/", "node-agent/", "kubectl-plugin/")


def tracked_files() -> list[Path]:
    """Return the files git tracks or would track."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
    return [Path(name) for name in sorted(filter(None, names)) if Path(name).is_file()]


def file_findings(path: Path, content: bytes) -> Iterator[str]:
    """Yield what is wrong with one file as a whole."""
    if len(content) > FILE_BYTES_MAX:
        yield f"{path}: {len(content)} bytes; the largest allowed is {FILE_BYTES_MAX}"
    if b"\0" in content and not FIGURES.fullmatch(str(path)):
        yield f"{path}: binary files do not belong in the tree"
    if SECRET.search(content):
        yield f"{path}: looks like a key or a token; make secrets when they are needed"
    if path.suffix == ".py" and b"SPDX-License-Identifier: Apache-2.0" not in content[:200]:
        yield f"{path}: the first line must be '# SPDX-License-Identifier: Apache-2.0'"


def function_lines(path: Path, content: bytes) -> Iterator[tuple[str, int]]:
    """Yield (place, lines) of every function."""
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{path}:{node.lineno} {node.name}", (node.end_lineno or node.lineno) - node.lineno + 1


def third_party_imports(path: Path, content: bytes) -> Iterator[str]:
    """Yield imports that may not run with host rights (an allow-list, where import-linter only has deny-lists)."""
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "."]
        else:
            continue
        for name in names:
            if name.split(".")[0] not in sys.stdlib_module_names and not name.startswith(OURS):
                yield f"{path}:{node.lineno} imports {name}; only the standard library may run with host rights"


def main() -> int:
    """Check the whole tree."""
    findings: list[str] = []
    product_sizes: list[int] = []
    for path in tracked_files():
        content = path.read_bytes()
        findings.extend(file_findings(path, content))
        if path.suffix != ".py":
            continue
        if str(path).startswith(STANDARD_LIBRARY_ONLY):
            findings.extend(third_party_imports(path, content))
        for place, lines in function_lines(path, content):
            if lines > FUNCTION_LINES_MAX:
                findings.append(f"{place}: {lines} lines; {FUNCTION_LINES_MAX} at most")
            if str(path).startswith(PRODUCT):
                product_sizes.append(lines)
    median = statistics.median(product_sizes or [0])
    if median >= FUNCTION_LINES_MEDIAN_MAX:
        findings.append(
            f"median function of the product has {median:g} lines; below {FUNCTION_LINES_MEDIAN_MAX} is asked"
        )
    print("\n".join(findings), end="\n" if findings else "")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
