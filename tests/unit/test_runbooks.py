# SPDX-License-Identifier: Apache-2.0
"""docs/runbooks: what their commands and their text name exists."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import pytest

from numamigration_api.generate import all_crds
from numamigration_api.vocabulary import CONTROL_CONFIG_MAP, LEASE_NAME
from numamigration_operator.metrics import METRICS, PREFIX
from tests.testbed.chart import Helm
from tests.testbed.commands import ROOT
from tests.testbed.pages import RUN, blocks, steps

pytestmark = pytest.mark.uncounted

PAGES: Final = tuple(sorted((ROOT / "docs" / "runbooks").glob("*.md")))


class Command(NamedTuple):
    """A command of a page, and whether it is marked to be run."""

    page: str
    text: str
    runs: bool


COMMANDS: Final = tuple(
    Command(page.stem, step.text, block.mark == RUN)
    for page in PAGES
    for block in blocks(page)
    for step in steps(block)
)
OURS: Final = {"nms": "NodeMigrationState", "migpol": "MigrationPolicy"}
KUBERNETES: Final = {
    "configmap",
    "controllerrevisions",
    "daemonsets",
    "deployment",
    "events",
    "leases",
    "nodes",
    "pod",
    "pods",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
}
"""Of its own API, as kubectl takes them."""
WITH_RESOURCE: Final = re.compile(r"kubectl (?:get|describe|edit|patch|delete|create) (?P<resources>[a-z,]+)\b")
VARIABLES: Final = {"POLICY", "NODE", "KEY"}


def fields(kind: str) -> set[str]:
    (crd,) = (one for one in all_crds().values() if one["spec"]["names"]["kind"] == kind)
    return set(_below("", crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]))


def _below(above: str, schema: Mapping[str, Any]) -> Iterator[str]:
    for name, inner in schema.get("properties", {}).items():
        yield f"{above}.{name}"
        yield from _below(f"{above}.{name}", inner)
        yield from _below(f"{above}.{name}", inner.get("items", {}))


def named_fields(command: str) -> Iterator[str]:
    """Yield the whole paths that a command's output format names, those below a range of a list too."""
    text = re.sub(r"\[\?\([^)]*\)\]", "", command)
    for found in re.finditer(r"\{range (?P<list>[\w.]+)\[\*\]\}(?P<body>.*?)\{end\}", text):
        yield found["list"]
        yield from (found["list"] + field for field in re.findall(r"\{(\.\w+)\}", found["body"]))
    text = re.sub(r"\{range .*?\{end\}", "", text)
    yield from re.findall(r"(?:[:{'=])(\.(?:spec|status)[\w.]*)", text)


def name(command: Command) -> str:
    return f"{command.page}: {command.text[:60]}"


@pytest.mark.parametrize("command", COMMANDS, ids=name)
def test_a_command_names_resources_fields_and_variables_that_exist(command: Command) -> None:
    found = WITH_RESOURCE.search(command.text)
    resources = set(found["resources"].split(",")) if found else set()
    known = {field for resource in resources & OURS.keys() for field in fields(OURS[resource])}

    assert resources <= KUBERNETES | OURS.keys()
    if resources & OURS.keys():
        assert set(named_fields(command.text)) <= known
    assert set(re.findall(r"\$([A-Za-z]+)", command.text)) <= VARIABLES
    assert subprocess.run(["sh", "-nc", command.text], check=False).returncode == 0


def test_the_fields_of_ranges_and_filters_are_looked_at() -> None:
    text = (
        "-o jsonpath='{range .status.knobs[*]}{.path}{end}' C:'.status.conditions[?(@.type==\"X\")].reason',D:.spec.a"
    )

    assert set(named_fields(text)) == {".status.knobs", ".status.knobs.path", ".status.conditions.reason", ".spec.a"}


def test_objects_that_commands_name_are_those_of_the_chart(helm: Helm) -> None:
    known = {one["metadata"]["name"] for one in helm.template({"monitoring": {"dashboard": {"enabled": True}}})}
    known |= {CONTROL_CONFIG_MAP, LEASE_NAME, "numamigration-system"}

    named = {found for command in COMMANDS for found in re.findall(r"(?<![\w./])numamigration-[a-z-]+", command.text)}

    assert named
    assert named <= known


def test_files_that_commands_name_are_there() -> None:
    named = {path for command in COMMANDS for path in re.findall(r"(?<![\w/])(?:deploy|charts)/\S+", command.text)}

    assert {path for path in named if not (ROOT / path).exists()} == set()


def test_metrics_that_pages_name_exist() -> None:
    named = {found for page in PAGES for found in re.findall(rf"{PREFIX}\w+", page.read_text())}

    assert named
    assert named <= {one.full_name for one in METRICS}


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem != "README"], ids=lambda page: page.stem)
def test_a_runbook_says_what_to_look_at_what_to_do_and_how_to_undo(page: Any) -> None:
    assert re.findall(r"^## (.*)", page.read_text(), re.MULTILINE) == ["Look", "Do", "Undo"]
    assert any(command.runs for command in COMMANDS if command.page == page.stem)
