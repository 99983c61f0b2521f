# SPDX-License-Identifier: Apache-2.0
"""The site: its generated pages are whole, its links stay within it, and its build is strict."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from numamigration_api.vocabulary import REASON_MEANING, Reason
from scripts import api_documents, reason_documents
from scripts.known_names import fields
from scripts.site_hooks import named

pytestmark = pytest.mark.uncounted

ROOT: Final = Path(__file__).parents[2]


# --- generated pages -------------------------------------------------------------------------------------------------


def test_every_reason_has_exactly_one_entry() -> None:
    told = [reason for entries in reason_documents.SECTIONS.values() for reason in entries]

    assert sorted(told) == sorted(Reason)


@pytest.mark.parametrize("reason", Reason)
def test_an_entry_has_meaning_cause_and_what_to_do(reason: Reason) -> None:
    entry = reason_documents.page().partition(f"\n### {reason}\n")[2].partition("\n#")[0]

    assert entry.startswith(f"\n{REASON_MEANING[reason]}\n")
    assert re.search(r"\n\* \*\*Usual cause\.\*\* [A-Z0-9`].+\.\n\* \*\*What to do\.\*\* [A-Z`].+\.\n", entry)


def test_the_api_page_tells_every_field() -> None:
    page = api_documents.page()

    assert {path[-1] for path, _ in fields()} - set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == set()


def test_the_api_page_tells_every_type_once() -> None:
    headings = re.findall(r"^##+ (.*)", api_documents.page(), re.MULTILINE)

    assert len(headings) == len(set(headings))
    assert {"MigrationPolicy", "NodeMigrationState", "OffloadSettings", "Reason"} <= set(headings)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 32}, "integer 1 to 32"),
        ({"type": "integer", "minimum": 0}, "integer from 0"),
        ({"type": "integer"}, "integer"),
        ({"type": "boolean"}, "boolean"),
        ({"$ref": "#/$defs/Engine"}, "[Engine](#engine)"),
        ({"type": "array", "items": {"$ref": "#/$defs/Engine"}, "maxItems": 2}, "list of [Engine](#engine), at most 2"),
        ({"x-kubernetes-int-or-string": True, "minimum": 1, "maximum": 9}, "integer 1 to 9, or percent"),
    ],
)
def test_a_type_is_told_in_words(schema: dict[str, Any], text: str) -> None:
    assert api_documents._type(schema) == text


# --- links -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "text", "shown"),
    [
        pytest.param("", "[x](../tests/a.py)", '<span title="tests/a.py">x</span>', id="out of docs"),
        pytest.param("", "[x[1]](../a.py#L3)", '<span title="a.py">x[1]</span>', id="brackets and a line"),
        pytest.param("", "[x](install.md#helm)", "[x](install.md#helm)", id="beside"),
        pytest.param("decisions", "[x](../hazards.md)", "[x](../hazards.md)", id="up, and still in docs"),
        pytest.param("decisions", "[x](../../a.py)", '<span title="a.py">x</span>', id="up and out"),
    ],
)
def test_a_link_that_leaves_the_site_is_named(folder: str, text: str, shown: str) -> None:
    assert named(text, folder) == shown


# --- the build -------------------------------------------------------------------------------------------------------


def build(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Build a site of one page, as the Makefile does and with the settings of mkdocs.yml."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    page = folder / "docs" / "index.md"
    page.parent.mkdir()
    page.write_text(text)
    own = {"nav": [{"Home": "index.md"}], "hooks": [], "docs_dir": "docs", "site_dir": "site"}
    (folder / "site.yml").write_text(yaml.safe_dump(config | own))
    flags = re.findall(r"properdocs build (.*?)--config-file", (ROOT / "Makefile").read_text())[0].split()
    command = [sys.executable, "-W", "ignore", "-m", "properdocs", "build", *flags, "--config-file", "site.yml"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_page_opens_without_a_network(tmp_path: Path) -> None:
    done = build(tmp_path, "# T\n\n```yaml\na: 1\n```\n")

    assert done.returncode == 0, done.stderr
    fetched = r'<(?:script|img)[^>]* src="(https?:[^"]*)|<link[^>]* href="(https?:[^"]*)'
    assert re.findall(fetched, (tmp_path / "site" / "index.html").read_text()) == []


@pytest.mark.parametrize("link", ["[x](nothing.md)", "[x](#nothing)"])
def test_a_link_that_leads_nowhere_fails_the_build(tmp_path: Path, link: str) -> None:
    done = build(tmp_path, f"# T\n\n{link}\n")

    assert done.returncode == 1
    assert "nothing" in done.stderr
