# SPDX-License-Identifier: Apache-2.0
"""Label selectors as people type them for kubectl: ``pool=db,tier in (hot, warm),!spot``.

Sources: Kubernetes documentation, "Labels and Selectors" (set-based and equality-based requirements, syntax and
character set of keys and values).
"""

from __future__ import annotations

import re
from typing import Final

from numamigration_operator.core.objects import Requirement, Selector

LEGAL: Final = "a label selector as kubectl takes it, for example: pool=db,tier in (hot,warm),!spot"

_NAME: Final = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_KEY: Final = rf"(?:[a-z0-9](?:[a-z0-9.-]{{0,251}}[a-z0-9])?/)?{_NAME}"
_VALUE: Final = rf"(?:{_NAME})?"
_TERM: Final = re.compile(
    rf"\s*(?:(?P<absent>!\s*{_KEY})"
    rf"|(?P<key>{_KEY})\s*(?:(?P<sign>==|=|!=)\s*(?P<value>{_VALUE})"
    rf"|\s(?P<set>in|notin)\s*\((?P<values>[^()]*)\))?)\s*(?:,|$)"
)
_VALUE_ALONE: Final = re.compile(_VALUE)


def parse_label_selector(text: str) -> Selector:
    """Return the selector of `text`; an empty text selects everything.

    Raises:
        ValueError: not a selector; the message says where it stops being one.
    """
    requirements: list[Requirement] = []
    position = 0
    while position < len(text):
        match = _TERM.match(text, position)
        if match is None:
            raise ValueError(f"cannot read {text[position:]!r}")
        requirements.append(_requirement(match))
        position = match.end()
    if text.rstrip().endswith(","):
        raise ValueError("nothing follows the last comma")
    return Selector(match_expressions=tuple(requirements))


def _requirement(match: re.Match[str]) -> Requirement:
    if absent := match["absent"]:
        return Requirement(absent.removeprefix("!").strip(), "DoesNotExist")
    if match["sign"]:
        return Requirement(match["key"], "NotIn" if match["sign"] == "!=" else "In", (match["value"],))
    if match["set"]:
        return Requirement(match["key"], "In" if match["set"] == "in" else "NotIn", _values(match["values"]))
    return Requirement(match["key"], "Exists")


def _values(text: str) -> tuple[str, ...]:
    values = tuple(value.strip() for value in text.split(","))
    for value in values:
        if _VALUE_ALONE.fullmatch(value) is None:
            raise ValueError(f"{value!r} is not a label value")
    return values
