# SPDX-License-Identifier: Apache-2.0
"""The two images, built from the Dockerfile and started without an engine: in a read-only root of their own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from scripts.build_images import ROOT, build_command, image_name, version
from scripts.licences import is_allowed, locked
from tests.cluster.bases import BASE, BUILDER, make_base
from tests.cluster.images import MACHINE_FILES, image_folder

pytestmark = pytest.mark.timeout(1500)  # a cold build downloads some 60 MB, and compiles

BYTES_MAX: Final = {"agent": 1_000_000, "operator": 130_000_000}
"""What the agent adds to its base, and all of the operator's image."""
TARGETS: Final = ("agent", "operator")


class Store:
    """A store of images of the tests' own, where buildah works; what it has is kept from run to run."""

    def __init__(self, folder: Path) -> None:
        found = shutil.which("buildah")
        assert found, "buildah is missing; apt-get install --no-install-recommends buildah"
        self.buildah = found
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/root"\nrunroot = "{folder}/run"\n'
        )
        os.environ["CONTAINERS_STORAGE_CONF"] = str(folder / "storage.conf")

    def run(self, *arguments: str) -> str:
        done = subprocess.run([self.buildah, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.strip()

    def has(self, name: str) -> bool:
        return bool(self.run("images", "--quiet", "--filter", f"reference={name}"))

    def build(self, target: str, tag: str, *options: str) -> None:
        mounts = [f"--volume={path}:{path}:ro" for path in MACHINE_FILES if Path(path).exists()]
        command = build_command(
            self.buildah,
            target,
            arch="amd64",
            base=BASE,
            builder=BUILDER,
            tag=tag,
            options=["--isolation=chroot", "--pull=never", *mounts, *options],
        )
        self.run(*command[1:])

    def inspect(self, name: str) -> Any:
        return json.loads(self.run("inspect", "--type=image", name))


class Image:
    """An image that was built, with its files."""

    def __init__(self, store: Store, name: str) -> None:
        self.container = store.run("from", "--pull=never", name)
        self.root = Path(store.run("mount", self.container))
        self.document = store.inspect(name)
        self.config: dict[str, Any] = self.document["OCIv1"]["config"]
        self.layers: list[str] = self.document["OCIv1"]["rootfs"]["diff_ids"]

    def files(self) -> dict[str, int]:
        """Return the size of each file, by path."""
        paths = (path for path in self.root.rglob("*") if path.is_file() or path.is_symlink())
        return {str(path.relative_to(self.root)): path.lstat().st_size for path in paths}

    def run(self, *arguments: str, entrypoint: bool = True) -> subprocess.CompletedProcess[str]:
        """Start it as its user, in a mount namespace where its root is read only."""
        command = [*self.config["Entrypoint"], *arguments] if entrypoint else list(arguments)
        user = self.config["User"]
        script = f'mount --bind {self.root} {self.root} && mount -o remount,ro,bind {self.root} && exec "$@"'
        return subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, "-", "chroot", f"--userspec={user}", str(self.root), *command],
            env=dict(entry.split("=", 1) for entry in self.config["Env"]),
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = image_folder() / "store"
    made = Store(folder)
    for name in (BASE, BUILDER):
        if not made.has(name):
            make_base(name, tmp_path_factory.mktemp("base"), made.buildah)
    for target in TARGETS:
        made.build(target, image_name(target, version()))
    yield made
    # The store binds this folder onto itself, and leaves it so.
    subprocess.run(["umount", folder / "root" / "overlay"], check=False, capture_output=True)


@pytest.fixture(scope="module")
def images(store: Store) -> Iterator[dict[str, Image]]:
    found = {target: Image(store, image_name(target, version())) for target in TARGETS}
    found["base"] = Image(store, BASE)
    yield found
    for image in found.values():
        store.run("umount", image.container)
        store.run("rm", image.container)


@pytest.fixture
def agent(images: dict[str, Image]) -> Image:
    return images["agent"]


@pytest.fixture
def operator(images: dict[str, Image]) -> Image:
    return images["operator"]


@pytest.fixture
def base(images: dict[str, Image]) -> Image:
    return images["base"]


def added(image: Image, base: Image) -> dict[str, int]:
    before = base.files()
    return {path: size for path, size in image.files().items() if before.get(path) != size}


def test_the_agents_image_holds_the_interpreter_and_our_agent_only(agent: Image, base: Image) -> None:
    """Nothing third-party runs with host rights."""
    ours = re.compile(
        r"opt/numamigration/(numamigration_agent/.*|numamigration_api/(__init__|vocabulary|machinery/\w+))\.pyc"
        r"|opt/numamigration/numamigration_agent/py\.typed"
        r"|usr/share/sbom/numa-migration-agent\.cdx\.json|usr/share/doc/numa-migration-operator/LICENSE"
    )

    assert [path for path in added(agent, base) if not ours.fullmatch(path)] == []
    listed = agent.run(
        "python3", "-c", "from importlib import metadata; print(len(list(metadata.distributions())))", entrypoint=False
    )
    assert (listed.stdout, listed.stderr) == ("0\n", "")


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_answers_help_as_its_user_in_a_read_only_root(images: dict[str, Image], target: str) -> None:
    done = images[target].run("--help")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: numamigration-{target} ")


@pytest.mark.parametrize(
    ("target", "user"),
    [pytest.param("agent", "0:0", id="agent"), pytest.param("operator", "65532:65532", id="operator")],
)
def test_only_the_agent_is_root(images: dict[str, Image], target: str, user: str) -> None:
    assert images[target].config["User"] == user


def test_every_module_of_the_operator_is_imported_from_bytecode(operator: Image) -> None:
    code = """if True:
        import importlib, os, pkgutil, sys, numamigration_operator as package
        found = pkgutil.walk_packages(package.__path__, "numamigration_operator.")
        modules = [importlib.import_module(one.name) for one in found if not one.name.endswith("__main__")]
        specs = {name: getattr(module, "__spec__", None) for name, module in list(sys.modules.items())}
        caches = {name: spec.cached or "" for name, spec in specs.items() if spec}
        uncached = [name for name, path in caches.items() if "/opt/" in path and not os.path.exists(path)]
        print(len(modules) > 40, uncached)
    """
    done = operator.run("python3", "-c", code, entrypoint=False)

    assert (done.stdout, done.stderr) == ("True []\n", "")


def test_the_operators_image_carries_the_crds(operator: Image) -> None:
    done = operator.run("crds", "print")

    wanted = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))]
    assert list(yaml.safe_load_all(done.stdout)) == wanted


def test_without_a_cluster_the_operator_says_so_and_its_libraries_are_whole(operator: Image) -> None:
    done = operator.run("--namespace", "x")

    assert done.returncode == 2
    assert done.stderr.endswith(
        "numamigration-operator: no kubeconfig at ~/.kube/config, and no service account of a pod\n"
    )


def test_the_agent_adds_less_than_a_megabyte_and_the_operator_stays_small(
    agent: Image, operator: Image, base: Image
) -> None:
    sizes = {"agent": sum(added(agent, base).values()), "operator": sum(operator.files().values())}

    print({**sizes, "base": sum(base.files().values())})
    assert [target for target in TARGETS if sizes[target] > BYTES_MAX[target]] == []


@pytest.mark.parametrize("target", TARGETS)
def test_the_bill_of_materials_is_in_the_image_and_names_all_that_it_adds(
    images: dict[str, Image], target: str
) -> None:
    path = images[target].root / f"usr/share/sbom/numa-migration-{target}.cdx.json"
    bill = json.loads(path.read_text())

    wheels = {one["name"].lower().replace("_", "-"): one for one in bill["components"] if "purl" in one}
    expected = locked() if target == "operator" else {}
    assert {name: one["version"] for name, one in wheels.items()} == expected
    lock = (ROOT / "requirements" / "operator.txt").read_text()
    assert [name for name, one in wheels.items() if f"sha256:{one['hashes'][0]['content']}" not in lock] == []
    told = [licence for one in wheels.values() for licence in one["licenses"]]
    assert len(told) == len(wheels)
    assert [one for one in told if not is_allowed(one.get("expression") or one["license"]["id"])] == []
    assert {"bomFormat": "CycloneDX", "specVersion": "1.6"}.items() <= bill.items()


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_says_what_it_is(images: dict[str, Image], target: str) -> None:
    labels = images[target].config["Labels"]

    prefix = "org.opencontainers.image"
    assert labels[f"{prefix}.title"] == f"numa-migration-{target}"
    assert labels[f"{prefix}.version"] == version()
    assert labels[f"{prefix}.licenses"] == "Apache-2.0"
    assert re.fullmatch("[0-9a-f]{40}", labels[f"{prefix}.revision"])


def test_two_builds_of_the_same_sources_give_the_same_layers(store: Store, images: dict[str, Image]) -> None:
    fresh = {}
    for target, options in (("operator", ["--no-cache"]), ("agent", [])):
        name = f"localhost/again-{target}"
        store.build(target, name, *options)
        fresh[target] = store.inspect(name)["OCIv1"]["rootfs"]["diff_ids"]
        store.run("rmi", name)

    assert fresh == {target: images[target].layers for target in TARGETS}
