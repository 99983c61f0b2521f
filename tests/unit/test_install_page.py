# SPDX-License-Identifier: Apache-2.0
"""docs/install.md: its commands can be run one by one, and name only what exists."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.testbed.api import Json
from tests.testbed.chart import CHART, Helm
from tests.testbed.commands import ROOT
from tests.testbed.pages import Command, commands, script

PAGE: Final = ROOT / "docs" / "install.md"
FOUND: Final = commands(PAGE)
WAYS: Final = ("Helm", "Plain YAML")


def test_each_way_installs_and_uninstalls() -> None:
    sections = {command.section for command in FOUND}

    assert {("Helm", step) for step in ("Install", "Upgrade", "Roll back", "Uninstall")} <= sections
    assert {("Plain YAML", step) for step in ("Install or upgrade", "Roll back", "Uninstall")} <= sections


@pytest.mark.parametrize("way", WAYS)
def test_the_commands_of_a_way_are_a_script(way: str, tmp_path: Path) -> None:
    path = tmp_path / "script"
    path.write_text(script(PAGE, way))

    assert subprocess.run(["sh", "-n", path], check=False).returncode == 0


@pytest.mark.parametrize("command", FOUND, ids=lambda command: f"line {command.line}")
def test_a_command_is_one_line(command: Command) -> None:
    first = command.text.split()[0]

    assert not command.text.endswith("\\")
    assert first in {"helm", "kubectl", "sed"} or re.match(r"[A-Z]+=\S", first)


@pytest.mark.parametrize("way", WAYS)
def test_every_variable_is_set_in_its_way_before_it_is_used(way: str) -> None:
    known: set[str] = set()
    for command in FOUND:
        if way in command.section:
            assert set(re.findall(r"\$\{?([A-Za-z_]+)", command.text)) <= known, command
            known |= set(re.findall(r"^([A-Z]+)=", command.text))


def test_every_file_that_a_command_names_is_there() -> None:
    named = {name for command in FOUND for name in re.findall(r"(?:deploy|charts|crds)/\S*", command.text)}

    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_value_that_the_page_names_is_one_of_the_chart() -> None:
    known = set(_paths(yaml.safe_load((CHART / "values.yaml").read_text())))
    named = set(re.findall(r"`((?:operator|agent|crds|uninstall|namespace|fence)\.[A-Za-z.]+)[=`]", PAGE.read_text()))

    assert "agent.updateMaxUnavailable" in named
    assert named - known == set()


def _paths(values: Any, above: str = "") -> list[str]:
    if not isinstance(values, dict):
        return []
    found = [f"{above}{key}" for key in values]
    return found + [path for key, inner in values.items() for path in _paths(inner, f"{above}{key}.")]


def test_what_is_installed_with_the_pages_settings_pulls_from_the_pages_registry(helm: Helm) -> None:
    line = next(command.text for command in FOUND if command.text.startswith("helm install"))
    settings = [text.replace("$REGISTRY", "docker.io/library") for text in re.findall(r"--set (\S+)", line)]

    rendered = helm.template({}, *(flag for text in settings for flag in ("--set", text)))

    images = re.findall(r"'image': '([^:]*)", str(rendered))
    assert set(images) == {"docker.io/library/numa-migration-operator", "docker.io/library/numa-migration-agent"}


def test_a_rollback_by_plain_yaml_leaves_the_crds_out() -> None:
    documents: list[Json] = list(yaml.safe_load_all((ROOT / "deploy" / "numa-migration-operator.yaml").read_text()))

    unlabelled = {one["kind"] for one in documents if "app.kubernetes.io/name" not in one["metadata"]["labels"]}

    assert unlabelled == {"CustomResourceDefinition"}
