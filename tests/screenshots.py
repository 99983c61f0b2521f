# SPDX-License-Identifier: Apache-2.0
"""Pictures of the plugin for docs/kubectl-plugin.md, of made-up objects: ``python -m tests.screenshots``.

(nothing)   terminals, as SVG: what the commands' own code puts together, drawn by rich
--report    the page of ``report`` as PNG, in a real browser; an image holds a digest of the page that it shows
--check     says which are missing or show something else than now, and starts no browser
"""

from __future__ import annotations

import argparse
import hashlib
import io
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from rich.console import Console
from rich.text import Text

from numamigration_cli.screen import painted
from numamigration_cli.views.report.facts import report
from numamigration_cli.views.report.page import page
from tests.unit.cli_shown import shown_node, shown_nodes, shown_profiles, shown_status, shown_watch
from tests.unit.report_scene import scene

FOLDER: Final = Path(__file__).parents[1] / "docs" / "images" / "kubectl-plugin"
PROGRAM: Final = "kubectl numamigration"
WIDE: Final = 200
REPORT_PIXELS: Final = (1240, 1960)
"""Width and height: what is below is more of the same."""
TUNER_PIXELS: Final = 940
THEMES: Final = ("light", "dark")
PAGES: Final = (*(f"report-{theme}.png" for theme in THEMES), "report-tuner.png")
ONLY_TUNER: Final = "document.querySelectorAll('main > section:not(#tuner)').forEach(one => one.remove())"
PNG_BEGINNING: Final = 8 + 25
"""Bytes of the signature and of the first chunk, IHDR (PNG, third edition, 5.2 and 11.2.1)."""
SVG: Final = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; \
font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
"""rich's own, without the font that it would load from a server."""


class Terminal(NamedTuple):
    """What a terminal shows."""

    command: str
    lines: list[str]

    @property
    def width(self) -> int:
        """80 columns, or what ``-o wide`` takes."""
        return max(80, *(Text.from_ansi(line).cell_len for line in self.lines))


def terminals() -> dict[str, Terminal]:
    """Return the terminals by name of the picture."""
    return {
        "status": Terminal("status", shown_status(paint=painted)),
        "status-wide": Terminal("status -o wide", shown_status(WIDE, wide=True, paint=painted)),
        "watch": Terminal("status --watch", shown_watch(paint=painted)),
        "nodes": Terminal("nodes --ready False", shown_nodes(paint=painted)),
        "nodes-wide": Terminal("nodes --ready False -o wide", shown_nodes(wide=True, paint=painted)),
        "explain": Terminal("explain db-2", shown_node(paint=painted)),
        "profiles": Terminal("profiles", shown_profiles(paint=painted)),
    }


def drawn(name: str, terminal: Terminal) -> str:
    """Return a terminal as SVG."""
    console = Console(width=terminal.width, record=True, file=io.StringIO(), highlight=False)
    for line in [*terminal.lines, ""]:  # the last line would lose its underscores
        console.print(Text.from_ansi(line), no_wrap=True, overflow="crop")
    return console.export_svg(title=f"{PROGRAM} {terminal.command}", code_format=SVG, unique_id=f"shot-{name}")


def digest(text: str) -> str:
    """Return what an image of a page holds of it."""
    return hashlib.sha256(text.encode()).hexdigest()


def marked(png: bytes, note: str) -> bytes:
    """Return an image with a note in it."""
    body = b"tEXtDescription\0" + note.encode()
    chunk = (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    return png[:PNG_BEGINNING] + chunk + png[PNG_BEGINNING:]


def photograph(html: str) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the pictures of the page."""
    from tests.testbed.browser import Browser
    from tests.testbed.chromium import find_chromium
    from tests.testbed.progress import Progress

    width, height = REPORT_PIXELS
    with tempfile.TemporaryDirectory() as folder, Browser(find_chromium(Progress())) as browser:
        file = Path(folder) / "report.html"
        file.write_text(html)
        for theme in THEMES:
            browser.look(width=width, height=height, dark=theme == "dark")
            browser.open(file)
            yield f"report-{theme}.png", marked(browser.screenshot(height=height), digest(html))
        browser.look(width=width, height=TUNER_PIXELS)
        browser.open(file)
        browser.value(ONLY_TUNER)
        yield "report-tuner.png", marked(browser.screenshot(height=TUNER_PIXELS), digest(html))


def stale(html: str) -> Iterator[str]:
    """Yield the pictures that are missing, or show something else."""
    known = {f"{name}.svg": drawn(name, terminal).encode() for name, terminal in terminals().items()}
    for name, content in known.items():
        if not (FOLDER / name).exists() or (FOLDER / name).read_bytes() != content:
            yield f"{name}: run `make generate`"
    for name in PAGES:
        if not (FOLDER / name).exists() or digest(html).encode() not in (FOLDER / name).read_bytes():
            yield f"{name}: run `make screenshots`"


def main() -> int:
    """Draw, or check what is drawn."""
    parser = argparse.ArgumentParser(prog="python -m tests.screenshots")
    parser.add_argument("--report", action="store_true", help="the page of report, in a browser")
    parser.add_argument("--check", action="store_true", help="only say what is stale")
    given, html = parser.parse_args(), page(report(scene()))
    if given.check:
        found = list(stale(html))
        print("".join(f"docs/images/kubectl-plugin/{line}\n" for line in found), end="")
        return 1 if found else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    if given.report:
        for name, content in photograph(html):
            (FOLDER / name).write_bytes(content)
    for name, terminal in terminals().items():
        (FOLDER / f"{name}.svg").write_text(drawn(name, terminal))
    return 0


if __name__ == "__main__":
    sys.exit(main())
