# SPDX-License-Identifier: Apache-2.0
"""What goes into an image, without building one; ``tests/cluster/test_images.py`` builds them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.annotations import without_annotations
from scripts.build_images import ROOT, build_command
from scripts.image_tree import BILL, HOME

METADATA = "Metadata-Version: 2.4\nName: Some_Thing\nVersion: 1.2\nLicense-Expression: MIT\n"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """What pip leaves: a package, and a little of the typed API that is left out."""
    folder = tmp_path / "site"
    for name, text in {
        "some_thing/__init__.py": "x = 1\n",
        "some_thing-1.2.dist-info/METADATA": METADATA,
        "kubernetes/client/models/__init__.py": "",
        "kubernetes/client/models/v1_object_meta.py": "",
        "kubernetes/client/models/v1_pod.py": "",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def lay_out(target: str, site: Path, out: Path) -> None:
    wheel = {"metadata": {"name": "some-thing"}, "download_info": {"archive_info": {"hashes": {"sha256": "ab" * 32}}}}
    report = site.with_name("report.json")
    report.write_text(json.dumps({"install": [wheel]}))
    flags = {"version": "1.0", "base": "base:1", "arch": "x86_64", "site": site, "report": report, "out": out}
    subprocess.run(
        [sys.executable, "-m", "scripts.image_tree", target, *(f"--{name}={value}" for name, value in flags.items())],
        check=True,
        cwd=ROOT,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "PYTHONDONTWRITEBYTECODE": "1"},
    )


def content(out: Path) -> dict[str, Any]:
    return {
        str(path.relative_to(out)): (
            path.stat().st_mtime,
            oct(path.stat().st_mode),
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in sorted(out.rglob("*"))
    }


@pytest.mark.parametrize("target", ["agent", "operator"])
def test_laid_out_twice_an_image_has_the_same_bytes_times_and_modes(target: str, site: Path, tmp_path: Path) -> None:
    lay_out(target, site, tmp_path / "once")
    for path in site.rglob("*"):
        os.utime(path, (1, 1))
    lay_out(target, site, tmp_path / "again")

    assert content(tmp_path / "again") == content(tmp_path / "once")


def test_the_agent_gets_nothing_that_was_installed_and_no_more_of_the_contract_than_it_imports(
    site: Path, tmp_path: Path
) -> None:
    """Nothing third-party runs with host rights."""
    lay_out("agent", site, tmp_path / "out")

    home = tmp_path / "out" / HOME
    assert sorted(path.name for path in home.iterdir()) == ["numamigration_agent", "numamigration_api"]
    assert sorted(path.name for path in (home / "numamigration_api").iterdir()) == [
        "__init__.pyc",
        "machinery",
        "vocabulary.pyc",
    ]
    bill = json.loads((tmp_path / "out" / BILL / "numa-migration-agent.cdx.json").read_text())
    assert [one["name"] for one in bill["components"]] == ["base:1", "numamigration_agent", "numamigration_api"]


def test_all_modules_of_the_agents_image_can_be_imported_from_it_alone(site: Path, tmp_path: Path) -> None:
    """Some of a folder are left out, and no module but words for a terminal may miss them."""
    lay_out("agent", site, tmp_path / "out")

    home = tmp_path / "out" / HOME
    names = [".".join(path.relative_to(home).with_suffix("").parts) for path in sorted(home.rglob("*.pyc"))]
    modules = [name for name in names if not name.endswith("__main__")]
    code = f"import importlib\nfor name in {modules}: importlib.import_module(name)"
    subprocess.run([sys.executable, "-S", "-c", code], check=True, env={"PYTHONPATH": str(home)})

    assert "numamigration_agent.loop" in names
    assert "numamigration_api.machinery.tuning.explain" not in names


def test_the_operator_gets_what_was_installed_but_the_typed_api(site: Path, tmp_path: Path) -> None:
    lay_out("operator", site, tmp_path / "out")

    home = tmp_path / "out" / HOME
    models = {path.name for path in (home / "kubernetes/client/models").glob("*.py")}
    assert models == {"__init__.py", "v1_object_meta.py"}
    assert (home / "numamigration_api/crds/migrationpolicies.yaml").is_file()
    bill = json.loads((tmp_path / "out" / BILL / "numa-migration-operator.cdx.json").read_text())
    assert bill["components"][-1] == {
        "type": "library",
        "bom-ref": "pkg:pypi/some-thing@1.2",
        "purl": "pkg:pypi/some-thing@1.2",
        "name": "Some_Thing",
        "version": "1.2",
        "licenses": [{"license": {"id": "MIT"}}],
        "hashes": [{"alg": "SHA-256", "content": "ab" * 32}],
    }


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
@pytest.mark.parametrize("engine", ["podman", "buildah", "docker"])
def test_every_engine_is_asked_for_one_target_and_one_architecture(engine: str, arch: str) -> None:
    options = ["--volume=/a:/a"]

    command = build_command(engine, "agent", arch=arch, base="", builder="b:1", tag="t:1", options=options)

    assert {f"--platform=linux/{arch}", f"--build-arg=TARGETARCH={arch}", "--target=agent", *options} <= set(command)
    assert "--build-arg=BUILDER=b:1" in command
    assert not any(word.startswith("--build-arg=BASE") for word in command)
    assert ("--timestamp" in command) is (engine != "docker")


ANNOTATED = """
class Row:
    name: str = "\xe4"

    async def later(self, \xe4: int, /, *rest: str, key: "dict[str, int] | None" = None, **more: float) -> "list[int]":
        return [\xe4, rest, key, more]

def make(
    first: dict[
        str, int,  # by name
    ] = {"a": 1},
    *, second: int,
) -> dict[str, int]: raise ValueError(first)

def wide() -> dict[
    str, int
]:
    arrow: str = "->"
    return arrow
""".encode()


def test_functions_of_the_agents_image_say_nothing_of_types_and_all_else_is_where_it_was() -> None:
    stripped = without_annotations(ANNOTATED)

    found: dict[str, Any] = {}
    exec(compile(stripped, "rows.py", "exec", dont_inherit=True), found)
    assert found["Row"].__annotations__ == {"name": str}
    assert [found["Row"].later.__annotations__, found["make"].__annotations__] == [{}, {}]
    assert found["wide"]() == "->"
    with pytest.raises(ValueError, match="'a': 1") as raised:
        found["make"](second=2)
    assert raised.traceback[-1].lineno + 1 == 13
    assert [len(line) for line in stripped.split(b"\n")] == [len(line) for line in ANNOTATED.split(b"\n")]
