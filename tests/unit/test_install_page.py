# SPDX-License-Identifier: Apache-2.0
"""docs/install.md: each of its commands is run by a test of tests/cluster, and names only what exists."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from numamigration_api.vocabulary import PolicyCondition
from tests.cluster.installing import SETTINGS
from tests.testbed.api import Json
from tests.testbed.chart import CHART, NAMESPACE, RELEASE, Helm
from tests.testbed.commands import ROOT
from tests.testbed.pages import CLUSTER, Command, blocks, commands, script

PAGE: Final = ROOT / "docs" / "install.md"
FOUND: Final = commands(PAGE)
WAYS: Final = ("Helm", "Plain YAML")
LANGUAGES: Final = {"sh", "yaml"}


def test_each_way_installs_and_uninstalls() -> None:
    sections = {command.section for command in FOUND}

    assert {("Helm", step) for step in ("Install", "Upgrade", "Roll back", "Uninstall")} <= sections
    assert {("Plain YAML", step) for step in ("Install or upgrade", "Roll back", "Uninstall")} <= sections


def test_every_command_is_run_by_a_test() -> None:
    """Commands of another language, or below a heading that no test follows, would be run by none."""
    followed = set(_followed())
    run = followed | {(way, SETTINGS) for way, *steps in followed if steps}

    assert [command for command in FOUND if command.section not in run] == []
    assert set(re.findall(r"^```(.+)", PAGE.read_text(), re.MULTILINE)) == LANGUAGES


def test_the_marks_say_that_its_commands_are_run_on_a_cluster() -> None:
    assert {block.mark for block in blocks(PAGE) if block.language == "sh"} == {CLUSTER}


def _followed() -> Iterator[tuple[str, ...]]:
    """Yield what the tests of the cluster follow on the page: a way with a step, or a way without any."""
    for path in sorted((ROOT / "tests" / "cluster").glob("test_*.py")):
        module = ast.parse(path.read_text())
        constants = {
            target.id: statement.value.value
            for statement in module.body
            if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)
            for target in statement.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(module):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "follow":
                way, *steps = (_text(argument, constants) for argument in node.args[1:])
                yield from ((way, step) for step in steps)
                if not steps:
                    yield (way,)


def _text(argument: ast.expr, constants: dict[str, Any]) -> str:
    return str(constants[argument.id] if isinstance(argument, ast.Name) else ast.literal_eval(argument))


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


# --- GitOps ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def manifests() -> dict[str, Json]:
    """What is written for GitOps tools, by kind; the ConfigMap's part has none."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text().partition("## GitOps")[2], re.MULTILINE | re.DOTALL)
    documents: list[Json] = [one for block in blocks for one in yaml.load_all(block, Loader=StrictLoader)]
    return {one.get("kind", ""): one for one in documents}


class StrictLoader(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML parsers take one without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"line {node.start_mark.line}: {keys}"
        return super().construct_mapping(node, deep)


def test_the_tools_install_this_chart_where_the_other_ways_do(manifests: dict[str, Json]) -> None:
    flux, argo = manifests["HelmRelease"], manifests["Application"]

    assert (flux["metadata"]["name"], flux["metadata"]["namespace"]) == (RELEASE, NAMESPACE)
    assert (argo["metadata"]["name"], argo["spec"]["destination"]["namespace"]) == (RELEASE, NAMESPACE)
    assert {ROOT / flux["spec"]["chart"]["spec"]["chart"], ROOT / argo["spec"]["source"]["path"]} == {CHART}


def test_the_namespace_that_argo_cd_makes_has_the_label_that_the_charts_own_has(
    manifests: dict[str, Json], helm: Helm
) -> None:
    rendered = helm.template({"namespace": {"create": True}})
    ours = next(one for one in rendered if one["kind"] == "Namespace")

    wanted = manifests["Application"]["spec"]["syncPolicy"]["managedNamespaceMetadata"]["labels"]
    assert wanted.items() <= ours["metadata"]["labels"].items()


def test_argo_cd_is_told_the_health_of_our_kind_from_its_own_conditions(manifests: dict[str, Json]) -> None:
    crd: Json = yaml.safe_load((ROOT / "crds" / "migrationpolicies.yaml").read_text())
    ((key, rule),) = manifests[""]["data"].items()

    assert key == f"resource.customizations.health.{crd['spec']['group']}_{crd['spec']['names']['kind']}"
    assert set(re.findall(r'type == "(\w+)"', rule)) <= set(PolicyCondition)
    assert rule.count("function") + rule.count(" then") + rule.count(" do") == len(re.findall(r"\bend\b", rule))
