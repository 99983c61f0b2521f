# SPDX-License-Identifier: Apache-2.0
"""What stands in a documentation page, by line and section: prose, blocks of code, commands, objects.

Tests run the commands and apply the objects; ``scripts/document_names.py`` looks whether what they name exists, and
whether a block that nothing tries says why.
"""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

SHELLS: Final = ("console", "sh")
"""Languages of commands: what is typed behind ``$ ``, with what it prints; a script."""
RUN: Final = "run"
CLUSTER: Final = "cluster"
EXAMPLE: Final = "example"
NOT_RUN: Final = "not run"
MARKS: Final = {
    RUN: ("console",),
    CLUSTER: SHELLS,
    "demo": ("console",),
    "sample": ("console",),
    EXAMPLE: ("yaml",),
    NOT_RUN: (*SHELLS, "yaml"),
}
"""The word with which a block's mark begins, and of which languages the block may be (CONTRIBUTING.md)."""
ANYTHING: Final = "…"
"""In output that a page shows; alone on a line: any lines."""
_FENCE: Final = re.compile(r" *```(?P<language>.*)")
_MARK: Final = re.compile(r" *<!-- (.*) -->")


class Line(NamedTuple):
    """One line of a page.

    Attributes:
        section: the headings above it, outermost first, without the page's title.
        number: its number in the page.
        block: number of the block that it is in, from 1; 0 for prose. Fences are no lines.
        language: of the block; ``text`` where it says none, empty for prose.
    """

    section: tuple[str, ...]
    number: int
    block: int
    language: str
    text: str


class Command(NamedTuple):
    """One line of a block.

    Attributes:
        section: the headings above it, outermost first, without the page's title.
        line: number in the page.
    """

    section: tuple[str, ...]
    line: int
    text: str


class Block(NamedTuple):
    """One block of code.

    Attributes:
        line: number of its first line in the page.
        mark: what the comment on the line before the block says; empty without one.
    """

    line: int
    language: str
    mark: str
    text: str

    @property
    def kind(self) -> str:
        """The word of its mark, without what the mark says beside."""
        return self.mark.partition(":")[0]


class Step(NamedTuple):
    """What is typed at once.

    Attributes:
        line: number in the page.
        output: the lines that the page shows of what it prints.
    """

    line: int
    text: str
    output: tuple[str, ...] = ()


def lines(page: Path) -> Iterator[Line]:
    """Yield the lines of a page in their order, but for the fences."""
    section: list[str] = []
    language, block = "", 0
    for number, text in enumerate(page.read_text().splitlines(), 1):
        if fence := _FENCE.fullmatch(text):
            block += not language
            language = "" if language else fence["language"].strip() or "text"
            continue
        if not language and text.startswith("##"):
            marks, _, title = text.partition(" ")
            section[len(marks) - 2 :] = [title]
        yield Line(tuple(section), number, block if language else 0, language, text)


def commands(page: Path) -> list[Command]:
    """Return the commands of a page in their order: every line of its ``sh`` blocks."""
    return [
        Command(line.section, line.number, line.text)
        for line in lines(page)
        if line.language == "sh" and line.text.strip()
    ]


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page that are not empty, without what all of their lines are indented by."""
    before = ""
    for number, group in itertools.groupby(lines(page), key=lambda line: line.block):
        content = list(group)
        if number:
            mark = _MARK.fullmatch(before)
            text = textwrap.dedent("".join(f"{line.text}\n" for line in content))
            yield Block(content[0].number, content[0].language, mark[1] if mark else "", text)
        before = content[-1].text


def steps(block: Block) -> list[Step]:
    """Return what a console has one type: the lines behind ``$ ``, each with the output that follows.

    Raises:
        ValueError: it begins with output.
    """
    found: list[Step] = []
    for number, text in enumerate(block.text.splitlines(), block.line):
        if text.startswith("$ "):
            found.append(Step(number, text.removeprefix("$ ")))
        elif found:
            found[-1] = found[-1]._replace(output=(*found[-1].output, text))
        else:
            raise ValueError(f"{number}: no command of a console: {text}")
    return found


def prints(shown: Sequence[str], printed: str) -> bool:
    """Tell whether a program printed what a page shows of it, however wide its columns are."""
    return (
        re.fullmatch("".join(map(_pattern, shown)), "".join(f"{line}\n" for line in printed.splitlines())) is not None
    )


def _pattern(line: str) -> str:
    if line == ANYTHING:
        return r"(?:.*\n)*?"
    words = (re.escape(word).replace(ANYTHING, ".*?") for word in line.split())
    return r"[ \t]*" + r"[ \t]+".join(words) + r"[ \t]*\n"


def documents(page: Path) -> Iterator[tuple[int, Any]]:
    """Yield the documents of a page's ``yaml`` blocks, each with the number of its block's first line.

    Raises:
        yaml.YAMLError: one is no YAML; the error has its place in the block.
    """
    for block in blocks(page):
        if block.language == "yaml":
            yield from ((block.line, one) for one in yaml.safe_load_all(block.text) if one is not None)


def script(page: Path, *sections: str) -> str:
    """Return all commands below all of these headings as a shell script that stops at the first one that fails."""
    chosen = [command.text for command in commands(page) if set(sections) <= set(command.section)]
    return "\n".join(["set -eu", *chosen, ""])
