# SPDX-License-Identifier: Apache-2.0
"""The commands of docs/runbooks: lines of ``console`` blocks that begin with ``$ ``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from tests.testbed.commands import ROOT
from tests.testbed.pages import RUN, blocks

PAGES: Final = tuple(sorted((ROOT / "docs" / "runbooks").glob("*.md")))


class Step(NamedTuple):
    """One command.

    Attributes:
        page: without its suffix.
        runs: it is marked: a cluster without pods can answer.
    """

    page: str
    runs: bool
    text: str


def steps() -> Iterator[Step]:
    """Yield every command, in the order of the pages.

    Raises:
        AssertionError: a block holds something else.
    """
    for page in PAGES:
        for block in blocks(page):
            assert block.language == "console", (page.name, block.text)
            for line in block.text.splitlines():
                assert line.startswith("$ "), (page.name, line)
                yield Step(page.stem, block.mark == RUN, line.removeprefix("$ "))
