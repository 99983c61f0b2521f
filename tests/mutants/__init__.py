# SPDX-License-Identifier: Apache-2.0
"""Mutants: patches that each take one guard of the product away, and name the test that must notice.

A file ``pNN-what-is-gone.patch`` is a header of ``Key: value`` lines, an empty line, and a diff for ``git apply``:

* ``Promise``: the number of the promise that the guard keeps, the NN of the file's name.
* ``Guard``: what is taken away, in one line.
* ``Test``: the pytest node id that must fail, the narrowest one; its docstring names the same promise.

``python -m tests.mutants`` runs them, ``python -m tests.promises --check`` looks at them without running anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = Path("tests/mutants")
KEYS: Final = ("Promise", "Guard", "Test")
PRODUCT: Final = ("charts/", "crds/", "operator/", "node-agent/", "deploy/")

_NAME: Final = re.compile(r"p(\d\d)-[a-z0-9]+(-[a-z0-9]+)*\.patch")
_CHANGED: Final = re.compile(r"^(?:---|\+\+\+) [ab]/(\S+)$", re.MULTILINE)


class BadMutantError(Exception):
    """A patch without the right header, or one that changes something else than the product."""


class Mutant(NamedTuple):
    """One patch.

    Attributes:
        path: relative to the root of the tree.
        test: pytest node id.
    """

    path: Path
    promise: int
    guard: str
    test: str

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem

    @property
    def function(self) -> str:
        """The node id without a row of a table: all rows are one function in the source."""
        return self.test.partition("[")[0]


def parse_mutant(path: Path, text: str) -> Mutant:
    """Read the header of one patch.

    Raises:
        BadMutantError: says what is wrong with which file.
    """
    header, _, diff = text.partition("\n\n")
    pairs = [line.partition(": ") for line in header.splitlines()]
    values = {key: value.strip() for key, _, value in pairs}
    if tuple(key for key, _, _ in pairs) != KEYS or not all(values.values()):
        raise BadMutantError(f"{path}: the header must have {', '.join(KEYS)}, in this order, and then an empty line")
    named = _NAME.fullmatch(path.name)
    if not named or not values["Promise"].isdecimal() or int(named[1]) != int(values["Promise"]):
        raise BadMutantError(f"{path}: the name must be pNN-what-is-gone.patch, with the NN of the Promise line")
    changed = set(_CHANGED.findall(diff))
    if not changed or not all(name.startswith(PRODUCT) for name in changed):
        raise BadMutantError(f"{path}: a mutant changes files of the product only: {', '.join(PRODUCT)}")
    return Mutant(path, int(values["Promise"]), values["Guard"], values["Test"])


def read_mutants(root: Path = ROOT) -> Iterator[Mutant]:
    """Yield all mutants of a tree, by name.

    Raises:
        BadMutantError: see parse_mutant.
    """
    for path in sorted((root / FOLDER).glob("*.patch")):
        yield parse_mutant(path.relative_to(root), path.read_text())
