# SPDX-License-Identifier: Apache-2.0
"""Fills the places of hand-written pages: ``{{name}}`` with a section, ``{{result | scenario | metric | statistic}}``
with one number, or "not run".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from benchmarks.markdown import quantity
from benchmarks.page.book import Book
from benchmarks.page.verdicts import NOT_RUN
from benchmarks.targets import Statistic

PLACE: Final = re.compile(r"\{\{([^{}]+)\}\}")
MINIMUM: Final = "minimum"


class UnknownPlaceError(ValueError):
    """A page has a place for something that there is not."""


def fill(page: str, sections: Mapping[str, str], book: Book) -> str:
    """Return a page with what its places are for.

    Raises:
        UnknownPlaceError: there is no such section, metric or statistic.
    """

    def found(match: re.Match[str]) -> str:
        words = [word.strip() for word in match[1].split("|")]
        if len(words) == 4:
            return value(book, *words)
        if words[0] in sections and len(words) == 1:
            return sections[words[0]]
        raise UnknownPlaceError(f"{match[0]}: neither a number nor one of {', '.join(sections)}")

    return PLACE.sub(found, page)


def value(book: Book, name: str, scenario: str, metric: str, statistic: str) -> str:
    """Return one number with its unit, or that it was not run.

    Args:
        book: all results.
        name: of the result, such as ``fleet-5000``.
        scenario: of a benchmark that has only one, the benchmark's name.
        metric: as the result has it.
        statistic: minimum, or what targets may compare.

    Raises:
        UnknownPlaceError: the scenario was run, and has no such metric or statistic.
    """
    row = book.row(name, scenario, metric)
    if row is None:
        if others := [other.metric for other in book.rows(name, scenario)]:
            raise UnknownPlaceError(f"{name}, {scenario}: no metric {metric!r}; there are: {', '.join(others)}")
        return NOT_RUN
    found = {MINIMUM: row.minimum} | {str(name): number for name, number in row.found().items()}
    if statistic not in found:
        raise UnknownPlaceError(f"{name}, {scenario}, {metric}: no {statistic!r}; there are: {', '.join(found)}")
    of = Statistic.RATIO if statistic == Statistic.RATIO else Statistic.MEDIAN
    return quantity(found[statistic], row.unit, of)
