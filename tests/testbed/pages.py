# SPDX-License-Identifier: Apache-2.0
"""Commands of a documentation page: every line of its ``sh`` blocks, by section; tests run what people do."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Command(NamedTuple):
    """One line of a block.

    Attributes:
        section: the headings above it, outermost first, without the page's title.
        line: number in the page.
    """

    section: tuple[str, ...]
    line: int
    text: str


def commands(page: Path) -> list[Command]:
    """Return the commands of a page in their order."""
    found: list[Command] = []
    section: list[str] = []
    language = ""
    for number, text in enumerate(page.read_text().splitlines(), 1):
        if text.startswith("```"):
            language = "" if language else text.removeprefix("```").strip() or "text"
        elif language == "sh" and text.strip():
            found.append(Command(tuple(section), number, text))
        elif not language and text.startswith("##"):
            marks, _, title = text.partition(" ")
            section[len(marks) - 2 :] = [title]
    return found


def script(page: Path, *sections: str) -> str:
    """Return all commands below all of these headings as a shell script that stops at the first one that fails."""
    chosen = [command.text for command in commands(page) if set(sections) <= set(command.section)]
    return "\n".join(["set -eu", *chosen, ""])
