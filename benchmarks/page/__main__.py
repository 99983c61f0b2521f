# SPDX-License-Identifier: Apache-2.0
"""Writes docs/performance.md and its figures: ``python -m benchmarks.page [--check]``.

A figure's files hold a digest of its data and of how it is drawn; where that is the same, they are left as they are,
for another version of matplotlib draws other bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks.page.book import Book
from benchmarks.page.figures import FIGURES, Figure, Panel, digest
from benchmarks.page.fill import fill
from benchmarks.page.tables import not_run, of_fleet, of_other
from benchmarks.page.verdicts import NOT_RUN, summary
from benchmarks.schema import RESULTS, fleet_nodes, read_all
from benchmarks.targets import FLEET

HERE: Final = Path(__file__).parent
DOCS: Final = Path(__file__).parents[2] / "docs"
DRAWN_BY: Final = HERE / "draw.py"
PAGE: Final = "performance.md"
IMAGES: Final = "images/performance"
SUFFIXES: Final = (".png", ".svg")

Drawn = Mapping[str, tuple[str, list[Panel]]]
"""Digest and data of each figure that has some, by name."""


def drawn(book: Book) -> Drawn:
    """Return what figures there are."""
    found, drawn_by = {figure.name: figure.panels(book) for figure in FIGURES}, DRAWN_BY.read_bytes()
    return {name: (digest(panels, drawn_by), panels) for name, panels in found.items() if panels}


def render(book: Book, figures: Drawn, page: str, limits: str) -> str:
    """Return docs/performance.md.

    Args:
        book: all results.
        figures: that there are.
        page: hand-written, with places.
        limits: likewise; its section on limits.
    """
    fleets = [of_fleet(result) for result in book.results if fleet_nodes(result)]
    others = [of_other(result) for result in book.results if not fleet_nodes(result)]
    sections = {
        "targets": summary(book),
        "limits": fill(limits, {}, book).strip(),
        "fleets": "\n\n".join(fleets) or f"{NOT_RUN.capitalize()}.",
        "others": "\n\n".join(others) or f"{NOT_RUN.capitalize()}.",
        "not run": not_run(book),
        **{f"figure {figure.name}": _figure(figure, figures, book) for figure in FIGURES},
    }
    return fill(page, sections, book)


def _figure(figure: Figure, figures: Drawn, book: Book) -> str:
    if figure.name not in figures:
        return f"### {figure.title}\n\n{NOT_RUN.capitalize()}: none of its measurements has a result here."
    path, (known, _) = f"{IMAGES}/{figure.name}", figures[figure.name]
    return (
        f"### {figure.title}\n\n<!-- data {known} -->\n[![{figure.title}]({path}.png)]({path}.svg)\n\n"
        f"Numbers are {figure.origin}.\n\n```console\n$ {_command(figure, book)}\n```"
    )


def _command(figure: Figure, book: Book) -> str:
    if figure.benchmark != FLEET:
        return f"make bench-{figure.benchmark} performance-page"
    sizes = " ".join(map(str, book.fleets))
    return f"for n in {sizes}; do make bench-fleet NODES=$n; done; make performance-page"


def stale(docs: Path, text: str, figures: Drawn) -> Iterator[str]:
    """Yield what does not show the results."""
    page = docs / PAGE
    if not page.exists() or page.read_text() != text:
        yield f"{page.name} is another"
    for path, known in _files(docs, figures):
        if not _holds(path, known):
            yield f"{path.name} is missing, or drawn from other data"
    for path in _left_over(docs, figures):
        yield f"{path.name} is of no figure"


def write(docs: Path, text: str, figures: Drawn) -> None:
    """Write the page, and draw what is not drawn yet."""
    from benchmarks.page.draw import draw  # a second, which a check need not take

    (docs / IMAGES).mkdir(parents=True, exist_ok=True)
    for path in _left_over(docs, figures):
        path.unlink()
    for path, known in _files(docs, figures):
        if not _holds(path, known):
            draw(figures[path.stem][1], known, path)
    (docs / PAGE).write_text(text)


def _files(docs: Path, figures: Drawn) -> list[tuple[Path, str]]:
    """Return the files that there shall be, each with its digest."""
    named = [(name, suffix, known) for name, (known, _) in figures.items() for suffix in SUFFIXES]
    return [(docs / IMAGES / f"{name}{suffix}", known) for name, suffix, known in named]


def _left_over(docs: Path, figures: Drawn) -> list[Path]:
    return sorted(path for path in (docs / IMAGES).glob("*") if path.stem not in figures)


def _holds(path: Path, known: str) -> bool:
    return path.exists() and known.encode() in path.read_bytes()


def main(arguments: Sequence[str] | None = None) -> int:
    """Write page and figures, or with ``--check`` compare them; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when something is stale")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of results")
    parser.add_argument("--docs", type=Path, default=DOCS, help=f"folder of {PAGE}")
    options = parser.parse_args(arguments)
    book = Book(read_all(options.results))
    figures = drawn(book)
    text = render(book, figures, (HERE / "page.md").read_text(), (HERE / "limits.md").read_text())
    if not options.check:
        write(options.docs, text, figures)
        return 0
    found = list(stale(options.docs, text, figures))
    sys.stderr.writelines(f"{one}; run make performance-page\n" for one in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
