# SPDX-License-Identifier: Apache-2.0
"""The page as one HTML document that loads nothing: style and script stand in it, and nothing else may run.

Its content security policy allows only the two by their digests; so a name or message that got past the escaping would
still be no script, and nothing is asked of any server.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable
from datetime import datetime
from importlib.resources import files
from typing import Final
from xml.etree.ElementTree import Element

from numamigration_api.machinery.clock import parse_timestamp
from numamigration_cli.text import plural
from numamigration_cli.views.report.elements import bullets, document, element, preformatted, verbatim
from numamigration_cli.views.report.facts import Report
from numamigration_cli.views.report.fleet_part import fleet
from numamigration_cli.views.report.policies_part import policies
from numamigration_cli.views.report.traffic_part import traffic
from numamigration_cli.views.report.tuner_part import tuning
from numamigration_cli.views.status import above

TITLE: Final = "NUMA page migration"
PARTS: Final[tuple[Callable[[Report, datetime], Element | None], ...]] = (fleet, policies, tuning, traffic)
"""In their order; one that has nothing to tell is None."""
THEMES: Final = (("auto", "as the system"), ("light", "light"), ("dark", "dark"))


def page(report: Report) -> str:
    """Return the page."""
    now = parse_timestamp(report.made_at)
    return document(element("html", _head(report), _body(report, now), lang="en"))


def _own(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _digest(code: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"


def _head(report: Report) -> Element:
    style, script = _own("page.css"), _own("page.js")
    allowed = (
        f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)};"
        " base-uri 'none'; form-action 'none'"
    )
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=allowed),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", f"{TITLE}, {report.made_at}"),
        verbatim("style", style),
        verbatim("script", script),
    )


def _body(report: Report, now: datetime) -> Element:
    made = (part(report, now) for part in PARTS)
    parts = [part for part in made if part is not None]
    return element(
        "body",
        element("header", element("h1", TITLE), _navigation(parts), _theme(), _about(report)),
        element("main", *_notices(report), *parts),
    )


def _about(report: Report) -> Element:
    counts = f"{plural(len(report.nodes), 'node')}, {plural(len(report.status.policies), 'policy')}"
    when = element("time", report.made_at, datetime=report.made_at)
    return element("p", f"{counts}; {report.server}; as of ", when)


def _navigation(parts: Iterable[Element]) -> Element:
    links = (element("a", part[0].text, href=f"#{part.get('id')}") for part in parts)
    return element("nav", *links, aria_label="Parts of the page")


def _theme() -> Element:
    options = [element("option", words, value=name) for name, words in THEMES]
    return element("label", "Colors ", element("select", *options, id="theme"), class_="scripted")


def _notices(report: Report) -> list[Element]:
    """Return what must be known before anything else: the fleet switch, held classes, and what could not be read."""
    notices = [preformatted(above(report.status))]
    if report.missing:
        notices.append(
            element("div", element("h2", "Could not be read"), bullets(report.missing), class_="notice", role="note")
        )
    return notices
