# SPDX-License-Identifier: Apache-2.0
"""What a command prints: tables and words for people, records for programs, notes on standard error."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import click
import msgspec

from numamigration_cli.exits import Exit, Failure
from numamigration_cli.text import Column, columns, printable, wrapped

Row = TypeVar("Row")


class Screen:
    """Standard output and error of one command.

    Args:
        output: table, wide, json or yaml.
        colorless: no colors, also on a terminal.
    """

    def __init__(self, output: str = "table", *, colorless: bool = False) -> None:
        self.output = output
        self.colorless = colorless
        self._color = False if colorless else None  # None: colors on a terminal only
        self.width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None

    @property
    def wide(self) -> bool:
        """Nothing is left out."""
        return self.output == "wide"

    @property
    def for_people(self) -> bool:
        """Tables and words, no records."""
        return self.output in {"table", "wide"}

    def records(self, found: Any) -> bool:
        """Print a view as data if that is asked for; return whether it was."""
        if self.output == "json":
            self.say(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
        elif self.output == "yaml":
            import yaml

            self.say(yaml.safe_dump(msgspec.to_builtins(found), sort_keys=False, allow_unicode=True).rstrip())
        return not self.for_people

    def table(self, rows: Sequence[Row], table: Sequence[Column[Row]]) -> None:
        """Print a table."""
        self.say("\n".join(columns(rows, table, wide=self.wide, width=self.width, paint=painted)))

    def lines(self, lines: Iterable[str]) -> None:
        """Print lines, broken between words on a terminal."""
        if shown := wrapped(lines, self.width):
            self.say("\n".join(shown))

    def say(self, text: str) -> None:
        """Print to standard output."""
        click.echo(text, color=self._color)

    def note(self, text: str) -> None:
        """Print to standard error what is not the answer."""
        click.echo(printable(text), err=True, color=self._color)

    def confirm(self, question: str, *, yes: bool) -> None:
        """Go on when a person says yes, or has said so by a flag.

        Raises:
            Failure: they said no, or nobody is there to be asked.
        """
        if yes:
            return
        if not sys.stdin.isatty():
            raise Failure(Exit.USAGE, f"{question}\n  nobody is there to answer; --yes answers for them")
        if not click.confirm(question, err=True):
            raise Failure(Exit.FAILED, "nothing was changed")


def painted(text: str, color: str) -> str:
    """Return a text in a color."""
    return click.style(text, fg=color)
