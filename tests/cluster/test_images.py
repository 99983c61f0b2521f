# SPDX-License-Identifier: Apache-2.0
"""The two images, built from the Dockerfile and started without an engine: in a read-only root of their own."""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
from pathlib import Path
from typing import IO, Any, Final

import pytest
import yaml

from scripts.build_images import ROOT, version
from scripts.licences import is_allowed, locked
from tests.cluster.images import NAMES, build, run_buildah
from tests.cluster.prepare import Parts
from tests.testbed.progress import Progress

pytestmark = pytest.mark.timeout(1500)  # a cold build downloads some 60 MB, and compiles

BYTES_MAX: Final = {"agent": 1_000_000, "operator": 130_000_000}
"""What the agent adds to its base, and all of the operator's image."""
TARGETS: Final = ("agent", "operator")
STORES: Final = tuple(map(Path, ("/etc/cni", "/run/containers", "/var/lib/containers")))


class Image:
    """An image, unpacked from its archive.

    Attributes:
        root: where its files are.
        base: files of its lowest layer, by path, with their size.
    """

    def __init__(self, archive: Path, root: Path) -> None:
        self.root = root
        root.chmod(0o755)  # what a container of any user finds at /
        with tarfile.open(archive) as tar:
            (manifest,) = json.load(_member(tar, "manifest.json"))
            document = json.load(_member(tar, manifest["Config"]))
            for number, name in enumerate(manifest["Layers"]):
                with tarfile.open(fileobj=_member(tar, name)) as layer:
                    layer.extractall(root, numeric_owner=True, filter="fully_trusted")
                if number == 0:
                    self.base = self.files()
        self.config: dict[str, Any] = document["config"]
        self.layers: list[str] = document["rootfs"]["diff_ids"]

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


def _member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    found = tar.extractfile(name)
    assert found
    return found


@pytest.fixture(scope="module")
def images(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Image]:
    """Both images by target."""
    found = zip(NAMES, parts.images, strict=True)
    return {target: Image(archive, tmp_path_factory.mktemp(target)) for target, archive in found}


@pytest.fixture
def agent(images: dict[str, Image]) -> Image:
    return images["agent"]


@pytest.fixture
def operator(images: dict[str, Image]) -> Image:
    return images["operator"]


def added(image: Image) -> dict[str, int]:
    return {path: size for path, size in image.files().items() if image.base.get(path) != size}


def test_the_agents_image_holds_the_interpreter_and_our_agent_only(agent: Image) -> None:
    """Nothing third-party runs with host rights."""
    ours = re.compile(
        r"opt/numamigration/(numamigration_agent/.*|numamigration_api/(__init__|vocabulary|machinery/(tuning/)?\w+))\.pyc"
        r"|opt/numamigration/numamigration_agent/py\.typed"
        r"|usr/share/sbom/numa-migration-agent\.cdx\.json|usr/share/doc/numa-migration-operator/LICENSE"
    )

    assert [path for path in added(agent) if not ours.fullmatch(path)] == []
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
    assert sorted(yaml.safe_load_all(done.stdout), key=lambda one: str(one["metadata"]["name"])) == wanted


def test_without_a_cluster_the_operator_says_so_and_its_libraries_are_whole(operator: Image) -> None:
    done = operator.run("--namespace", "x")

    assert done.returncode == 2
    assert done.stderr.endswith(
        "numamigration-operator: no kubeconfig at ~/.kube/config, and no service account of a pod\n"
    )


def test_the_agent_adds_less_than_a_megabyte_and_the_operator_stays_small(agent: Image, operator: Image) -> None:
    sizes = {"agent": sum(added(agent).values()), "operator": sum(operator.files().values())}

    print({**sizes, "base": sum(agent.base.values())})
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


def test_building_leaves_the_machines_own_stores_alone(tmp_path: Path) -> None:
    """Buildah writes beside the store that it is told, too."""
    before = state_of_stores()
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")

    run_buildah("build", "--isolation=chroot", "--tag=localhost/one-file", str(tmp_path))
    run_buildah("push", "localhost/one-file", f"docker-archive:{tmp_path / 'archive'}")
    run_buildah("rmi", "localhost/one-file")

    assert state_of_stores() == before


def state_of_stores() -> dict[str, int]:
    """Return when each file of container tools of this machine was written."""
    paths = [path for place in STORES for path in (place, *place.rglob("*"))]
    return {str(path): path.lstat().st_mtime_ns for path in paths if path.exists()}


def test_two_builds_of_the_same_sources_give_the_same_layers(images: dict[str, Image]) -> None:
    fresh = {}
    for target, options in (("operator", ["--no-cache"]), ("agent", [])):
        name = f"localhost/again-{target}"
        build(target, name, Progress(), *options)
        fresh[target] = json.loads(run_buildah("inspect", "--type=image", name))["OCIv1"]["rootfs"]["diff_ids"]
        run_buildah("rmi", name)

    assert fresh == {target: images[target].layers for target in TARGETS}
