# SPDX-License-Identifier: Apache-2.0
"""Every target beside what was found: met, missed by how much, or not run."""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.markdown import MET, limit, number, table
from benchmarks.page.book import Book, origin
from benchmarks.schema import FLEET_PREFIX, Row
from benchmarks.targets import AIMS, FLEET, Aim, is_about

NOT_RUN = "not run"


class Verdict(NamedTuple):
    """One aim, and the row that is furthest from it; None when there is none."""

    aim: Aim
    row: Row | None

    @property
    def value(self) -> float:
        """What is compared; only of a row."""
        return self.row.found()[self.aim.target.of] if self.row else float("nan")

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None when it was not run."""
        if self.row is None:
            return None
        # A result compares before it rounds.
        return self.row.met if self.row.target == self.aim.target else self.aim.target.is_met(self.row.found())


def result_name(aim: Aim) -> str:
    """Return the name of the result in which an aim's own measurement is."""
    return f"{FLEET_PREFIX}{aim.nodes}" if aim.benchmark == FLEET else aim.benchmark


def verdict(aim: Aim, book: Book) -> Verdict:
    """Look for the worst of an aim's own measurements, and never for those of a smaller fleet."""
    of = aim.target.of
    rows = [
        row for row in book.all_rows(result_name(aim)) if is_about(aim, row.scenario, row.metric) and of in row.found()
    ]
    return Verdict(aim, max(rows, key=lambda row: row.found()[of], default=None))


def summary(book: Book) -> str:
    """Return the table of all targets."""
    head = ("what", "nodes", "found", "target", "met", "number is", "of")
    return table(head, [_line(verdict(aim, book)) for aim in AIMS])


def _line(found: Verdict) -> list[str]:
    aim, row = found.aim, found.row
    nodes, target = row.nodes if row else aim.nodes, limit(aim.target)
    head = [aim.what, f"{nodes:,}" if nodes > 1 else ""]
    if row is None:
        return [*head, NOT_RUN, target, "", "", ""]
    where = row.metric if row.scenario == aim.benchmark else f"{row.scenario}: {row.metric}"
    return [*head, number(found.value), target, _met(found), origin(row, aim.target.of), where]


def _met(found: Verdict) -> str:
    if found.met is not False:
        return MET[found.met]
    most = found.aim.target.at_most
    over = found.value - most
    share = f" ({100 * over / most:.0f} %)" if most else ""
    return f"{MET[False]}, missed by {number(over)}{share}"
