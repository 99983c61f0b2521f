# SPDX-License-Identifier: Apache-2.0
"""The commands of docs/runbooks: lines of ``console`` blocks that begin with ``$ ``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from tests.testbed.commands import ROOT

PAGES: Final = tuple(sorted((ROOT / "docs" / "runbooks").glob("*.md")))
BLOCK: Final = re.compile(
    r"^(?P<mark><!-- run -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


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
        for block in BLOCK.finditer(page.read_text()):
            assert block["language"] == "console", (page.name, block["text"])
            for line in block["text"].splitlines():
                assert line.startswith("$ "), (page.name, line)
                yield Step(page.stem, block["mark"] is not None, line.removeprefix("$ "))
