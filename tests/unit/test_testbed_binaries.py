# SPDX-License-Identifier: Apache-2.0
"""Where the test bed takes its servers from, and that it builds them once; Go and the servers are small scripts."""

from __future__ import annotations

import fcntl
import io
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.testbed import golang
from tests.testbed.binaries import (
    ETCD,
    KUBE_APISERVER,
    NODE_RECIPES,
    OLDEST_KUBE_APISERVER,
    Recipe,
    build_arguments,
    cache_folder,
    cache_key,
    find_binaries,
    find_cluster_binaries,
    find_oldest,
    pinned_version,
)
from tests.testbed.errors import MissingNeedError
from tests.testbed.progress import Progress

pytestmark = pytest.mark.uncounted

GO_VERSION = "go1.99.3"
EVERY_RECIPE = (ETCD, KUBE_APISERVER, OLDEST_KUBE_APISERVER, *NODE_RECIPES)


def script(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


def server(path: Path, version: str) -> Path:
    return script(path, f"echo '{version}'")


class Machine:
    """A machine with nothing on PATH but what a test puts there."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.environ = {"PATH": str(self.bin), "XDG_CACHE_HOME": str(folder / "cache"), "HOME": str(folder)}
        self.cache = cache_folder(self.environ)
        self.shown = io.StringIO()
        self._builds = folder / "builds"

    def install_go(self, *build: str, version: str = GO_VERSION) -> None:
        """Put a Go on PATH whose build makes a script, or does what `build` says."""
        makes_a_script = (
            'while [ "$1" != -o ]; do shift; done',
            "printf '#!/bin/sh\\necho built\\n' >\"$2\"",
            '/bin/chmod +x "$2"',
        )
        script(
            self.bin / "go",
            f'if [ "$1" = env ]; then echo {version}; exit; fi',
            f'echo "$@" >>{self._builds}',
            *(build or makes_a_script),
        )

    @property
    def builds(self) -> list[str]:
        return self._builds.read_text().splitlines() if self._builds.exists() else []

    def cached(self, recipe: Recipe) -> Path:
        return self.cache / cache_key(recipe, GO_VERSION) / recipe.name

    def find(self, progress: Progress | None = None) -> tuple[Path, Path]:
        found = find_binaries(progress or Progress(self.shown), self.environ)
        return found.etcd, found.kube_apiserver


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        pytest.param("Kubernetes v1.37.2", (1, 37, 2), id="kube-apiserver"),
        pytest.param("etcd Version: 3.7.3\nGit SHA: 1\nGo Version: go1.26.8", (3, 7, 3), id="etcd: the first wins"),
        pytest.param("Kubernetes v0.0.0-master+$Format:%H$", (0, 0, 0), id="a build without its stamp"),
        pytest.param("go1.26.8\n", (1, 26, 8), id="go"),
        pytest.param("go1.27rc1", (1, 27, 0), id="go release candidate"),
        pytest.param("devel", None, id="no number"),
        pytest.param("", None, id="silence"),
    ],
)
def test_version_is_read_from_what_a_program_prints(text: str, version: golang.Version | None) -> None:
    assert golang.parse_version(text) == version


def test_versions_are_compared_as_numbers() -> None:
    assert (golang.parse_version("v1.9.0") or ()) < (golang.parse_version("v1.32.0") or ())


@pytest.mark.parametrize(
    ("recipe", "flag"),
    [
        pytest.param(KUBE_APISERVER, f"-X k8s.io/component-base/version.gitVersion={pinned_version(KUBE_APISERVER)}"),
        pytest.param(KUBE_APISERVER, "-X k8s.io/component-base/version.gitMajor=1"),
        pytest.param(KUBE_APISERVER, "-X k8s.io/component-base/version.gitMinor=37"),
        pytest.param(ETCD, "-s -w"),
    ],
)
def test_linker_stamps_the_version_that_go_mod_pins(recipe: Recipe, flag: str) -> None:
    assert flag in build_arguments(recipe)[2]


def test_go_mod_pins_the_kubernetes_that_the_project_targets() -> None:
    assert pinned_version(KUBE_APISERVER) == "v1.37.2"


def test_the_oldest_apiserver_is_of_the_oldest_kubernetes_that_the_project_supports() -> None:
    version = golang.parse_version(pinned_version(OLDEST_KUBE_APISERVER))

    assert version
    assert version[:2] == KUBE_APISERVER.oldest[:2]


@pytest.mark.parametrize("recipe", EVERY_RECIPE, ids=lambda recipe: f"{recipe.gomod.name}-{recipe.name}")
def test_go_mod_lists_the_server_as_a_tool(recipe: Recipe) -> None:
    """A ``tool`` line keeps ``go mod tidy`` from dropping what the server needs."""
    tools = (recipe.gomod / "go.mod").read_text().split("require (")[0]
    assert "tool" in tools
    assert recipe.package in tools


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda recipe: append(recipe, "go.sum", "\n"), id="go.sum"),
        pytest.param(lambda recipe: append(recipe, "go.mod", "\n// note\n"), id="go.mod"),
        pytest.param(lambda recipe: recipe._replace(package=recipe.package + "/x"), id="package"),
        pytest.param(lambda recipe: recipe._replace(stamp="elsewhere"), id="stamped version"),
    ],
)
def test_key_changes_with_every_input_of_the_build(change: Callable[[Recipe], Recipe], tmp_path: Path) -> None:
    shutil.copytree(KUBE_APISERVER.gomod, tmp_path / "mod")
    recipe = KUBE_APISERVER._replace(gomod=tmp_path / "mod")
    before = cache_key(recipe, "go1.26.8")

    assert cache_key(change(recipe), "go1.26.8") != before


def append(recipe: Recipe, name: str, text: str) -> Recipe:
    with (recipe.gomod / name).open("a") as stream:
        stream.write(text)
    return recipe


def test_key_changes_with_the_go_version() -> None:
    assert cache_key(ETCD, "go1.26.8") != cache_key(ETCD, "go1.26.9")


def test_key_does_not_depend_on_where_the_checkout_is(tmp_path: Path) -> None:
    shutil.copytree(ETCD.gomod, tmp_path / "mod")

    assert cache_key(ETCD._replace(gomod=tmp_path / "mod"), "go1.26.8") == cache_key(ETCD, "go1.26.8")


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        pytest.param({"HOME": "/h", "XDG_CACHE_HOME": "/c"}, "/c/numa-migration-operator/testbed", id="XDG"),
        pytest.param({"HOME": "/h"}, "/h/.cache/numa-migration-operator/testbed", id="default"),
        pytest.param(
            {"HOME": "/h", "XDG_CACHE_HOME": "c"}, "/h/.cache/numa-migration-operator/testbed", id="relative: ignored"
        ),
    ],
)
def test_cache_is_in_the_users_cache_folder(environ: dict[str, str], folder: str) -> None:
    assert cache_folder(environ) == Path(folder)


def test_kubebuilder_assets_come_before_path(machine: Machine, tmp_path: Path) -> None:
    for folder in (tmp_path / "assets", machine.bin):
        server(folder / "etcd", "etcd Version: 3.6.0")
        server(folder / "kube-apiserver", "Kubernetes v1.34.0")
    machine.environ["KUBEBUILDER_ASSETS"] = str(tmp_path / "assets")

    assert machine.find() == (tmp_path / "assets/etcd", tmp_path / "assets/kube-apiserver")


@pytest.mark.parametrize(
    ("apiserver", "complaint"),
    [
        pytest.param(None, "missing or not executable", id="no such file"),
        pytest.param("Kubernetes v1.31.9", "is 1.31.9, older than 1.32.0", id="just too old"),
        pytest.param("hello", "tells no version", id="something else"),
    ],
)
def test_kubebuilder_assets_that_cannot_be_used_are_an_error(
    machine: Machine, tmp_path: Path, apiserver: str | None, complaint: str
) -> None:
    machine.install_go()
    machine.environ["KUBEBUILDER_ASSETS"] = str(tmp_path)
    server(tmp_path / "etcd", "etcd Version: 3.6.0")
    if apiserver:
        server(tmp_path / "kube-apiserver", apiserver)

    with pytest.raises(MissingNeedError, match=complaint):
        machine.find()


def test_path_comes_before_a_build(machine: Machine) -> None:
    machine.install_go()
    server(machine.bin / "etcd", "etcd Version: 3.5.13")
    server(machine.bin / "kube-apiserver", "Kubernetes v1.32.0")

    assert machine.find() == (machine.bin / "etcd", machine.bin / "kube-apiserver")
    assert machine.builds == []


def test_what_only_a_node_needs_is_not_built_for_the_api_tests(machine: Machine) -> None:
    machine.install_go()

    machine.find()

    assert not [recipe.name for recipe in NODE_RECIPES if machine.cached(recipe).exists()]


def test_a_cluster_takes_the_same_control_plane_and_builds_the_rest_once(machine: Machine) -> None:
    machine.install_go()
    etcd, apiserver = machine.find()

    found = [find_cluster_binaries(Progress(machine.shown), machine.environ) for _ in range(2)]

    assert found[0] == found[1]
    assert found[0].control_plane[:2] == (etcd, apiserver)
    assert list(found[0][1:]) == [machine.cached(recipe) for recipe in NODE_RECIPES]
    assert len(machine.builds) == 2 + len(NODE_RECIPES)


def test_the_oldest_apiserver_is_built_beside_the_newest(machine: Machine) -> None:
    machine.install_go()
    _, newest = machine.find()

    oldest = find_oldest(Progress(machine.shown), machine.environ)

    assert oldest == machine.cached(OLDEST_KUBE_APISERVER)
    assert oldest != newest


def test_servers_on_path_that_are_too_old_are_named_and_built_instead(machine: Machine) -> None:
    machine.install_go()
    server(machine.bin / "etcd", "etcd Version: 3.4.23")
    server(machine.bin / "kube-apiserver", "Kubernetes v1.31.9")

    assert machine.find() == (machine.cached(ETCD), machine.cached(KUBE_APISERVER))
    assert f"not used: {machine.bin}/etcd is 3.4.23, older than 3.5.13" in machine.shown.getvalue()


def test_only_what_is_missing_is_built(machine: Machine) -> None:
    machine.install_go()
    server(machine.bin / "kube-apiserver", "Kubernetes v1.37.2")

    assert machine.find() == (machine.cached(ETCD), machine.bin / "kube-apiserver")
    assert len(machine.builds) == 1


def test_second_run_builds_nothing(machine: Machine) -> None:
    machine.install_go()
    first = machine.find()

    assert machine.find() == first
    assert len(machine.builds) == 2


def test_cached_servers_are_used_while_another_run_builds(machine: Machine) -> None:
    machine.install_go()
    first = machine.find()
    with (machine.cache / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        assert machine.find() == first


def test_build_tells_what_it_does_and_that_it_is_done_once(machine: Machine) -> None:
    machine.install_go()
    machine.find()

    assert f"building etcd {pinned_version(ETCD)} with {GO_VERSION}: done in" in machine.shown.getvalue()


def test_failed_build_says_what_to_do_and_leaves_nothing_half_done(machine: Machine) -> None:
    machine.install_go('for last in "$@"; do :; done', 'echo half >"$3"', "echo 'dial tcp: no route to host'", "exit 1")

    with pytest.raises(MissingNeedError, match=r"(?s)KUBEBUILDER_ASSETS.*no route to host"):
        machine.find()

    assert [path.name for path in machine.cached(ETCD).parent.iterdir()] == ["build.log"]


def test_cache_that_cannot_be_made_is_named(machine: Machine, tmp_path: Path) -> None:
    machine.install_go()
    (tmp_path / "cache").write_text("a file where the folder should be")

    with pytest.raises(MissingNeedError, match="XDG_CACHE_HOME"):
        machine.find()


class Announcing(io.StringIO):
    """Tells another thread when something was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown = threading.Event()

    def write(self, text: str) -> int:
        self.shown.set()
        return super().write(text)


def test_second_run_waits_for_the_first_and_takes_what_it_built(machine: Machine) -> None:
    machine.install_go()
    machine.cache.mkdir(parents=True)
    stream = Announcing()
    with ThreadPoolExecutor(1) as pool, (machine.cache / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = pool.submit(machine.find, Progress(stream))
        assert stream.shown.wait(30)
        for recipe in (ETCD, KUBE_APISERVER):
            server(machine.cached(recipe), "built by the first run")
        fcntl.flock(lock, fcntl.LOCK_UN)

        assert second.result(30) == (machine.cached(ETCD), machine.cached(KUBE_APISERVER))

    assert "waiting for another run" in stream.getvalue()
    assert machine.builds == []


@pytest.mark.parametrize(
    ("on_path", "chosen"),
    [
        pytest.param("go1.26.0", "go1.26.0", id="as old as go.mod says"),
        pytest.param("go1.27.1", "go1.27.1", id="newer"),
        pytest.param("go1.25.9", f"go{golang.pinned_version()}", id="too old: the pinned one"),
        pytest.param(None, f"go{golang.pinned_version()}", id="none: the pinned one"),
    ],
)
def test_go_on_path_is_used_when_it_is_new_enough(machine: Machine, on_path: str | None, chosen: str) -> None:
    if on_path:
        machine.install_go(version=on_path)

    go = golang.choose_go(machine.environ, (1, 26, 0))

    assert go.version == chosen
    assert (go.program == machine.bin / "go") is (chosen == on_path)


@pytest.mark.parametrize("recipe", EVERY_RECIPE, ids=lambda recipe: f"{recipe.gomod.name}-{recipe.name}")
def test_pinned_go_is_new_enough_for_every_go_mod(recipe: Recipe) -> None:
    pinned = golang.parse_version(golang.pinned_version())

    assert pinned
    assert pinned >= golang.go_line((recipe.gomod / "go.mod").read_text())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("GOTOOLCHAIN", "local", id="fetches no other Go"),
        pytest.param("GOFLAGS", "-mod=readonly -buildvcs=false", id="writes no go.mod"),
        pytest.param("CGO_ENABLED", "0", id="needs no C compiler"),
        pytest.param("GOPROXY", "https://proxy.invalid", id="keeps the user's proxy"),
    ],
)
def test_build_is_shielded_from_the_users_settings(name: str, value: str) -> None:
    users = {"GOTOOLCHAIN": "auto", "GOFLAGS": "-mod=mod", "CGO_ENABLED": "1", "GOPROXY": "https://proxy.invalid"}

    assert golang.build_environment(users)[name] == value


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("require k8s.io/kubernetes v1.37.2", id="one line"),
        pytest.param("require (\n\tk8s.io/kubernetes v1.37.2 // indirect\n)", id="block"),
        pytest.param(
            "require k8s.io/kubernetes-more v9.9.9\nrequire k8s.io/kubernetes v1.37.2", id="longer name first"
        ),
    ],
)
def test_required_version_is_read_from_go_mod(text: str) -> None:
    assert golang.required_version(text, "k8s.io/kubernetes") == "v1.37.2"
