# SPDX-License-Identifier: Apache-2.0
"""Hooks of the site's build: what a page links to in the repository, outside of docs/, is named instead.

In the repository such a link leads to the file; the site has only the pages. That the file is there says
``scripts/document_names.py``.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any, Final

_LINK: Final = re.compile(r"\[(?P<text>(?:[^\[\]\n]|\[[^\[\]\n]*\])+)\]\((?P<path>\.\./[^)\s#]+)(?:#[^)\s]*)?\)")


def on_page_markdown(markdown: str, /, page: Any, **_more: Any) -> str:
    """Return a page's text with each link that leaves docs/ as its text, and the path to see under the pointer."""
    return named(markdown, posixpath.dirname(page.file.src_uri))


def named(markdown: str, folder: str) -> str:
    """Return the text of a page in this folder of docs/ without links that leave docs/."""

    def name(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", folder, found["path"]))
        return found[0] if path.startswith("docs/") else f'<span title="{path}">{found["text"]}</span>'

    return _LINK.sub(name, markdown)
