# SPDX-License-Identifier: Apache-2.0
"""Builds both images with whatever is here (podman, buildah or docker): ``python3 -m scripts.build_images --help``.

What a machine needs to build (certificates, a mirror of the package index, another way to isolate) goes to the engine
after ``--`` and never into the Dockerfile. The time of all files is that of the commit, so two builds of one commit
give the same layers; docker needs its buildx for that.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
ENGINES: Final = ("podman", "buildah", "docker")
"""The first that is on PATH is taken."""
TARGETS: Final = ("operator", "agent")
ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


def image_name(target: str, version: str) -> str:
    """Return the name that the chart expects by default."""
    return f"numa-migration-{target}:{version}"


def version() -> str:
    """Return the version of this source tree."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def commit(form: str) -> str:
    """Return something about the commit that is checked out, in a format of ``git log``; empty outside of git."""
    command = ["git", "log", "-1", f"--format={form}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def build_command(
    engine: str,
    target: str,
    *,
    arch: str,
    base: str,
    builder: str,
    tag: str,
    options: Sequence[str],
    epoch: str = "",
) -> list[str]:
    """Return the command that builds one image.

    Args:
        engine: path of podman, buildah or docker.
        target: of the Dockerfile.
        arch: amd64 or arm64.
        base: of the image; empty for the Dockerfile's.
        builder: in which it is built; likewise.
        tag: name of the image.
        options: for the engine.
        epoch: time of all files, in seconds; empty for SOURCE_DATE_EPOCH, or else the commit's.
    """
    epoch = epoch or os.environ.get("SOURCE_DATE_EPOCH") or commit("%ct") or "0"
    arguments = {
        "VERSION": version(),
        "REVISION": commit("%H") or "unknown",
        "SOURCE_DATE_EPOCH": epoch,
        "TARGETARCH": arch,
        "BASE": base,
        "BUILDER": builder,
    }
    # --layers: the second image takes what was built for both from the first.
    how = ["--timestamp", epoch, "--format", "oci", "--layers"] if Path(engine).name != "docker" else []
    given = [f"--build-arg={name}={value}" for name, value in arguments.items() if value]
    platform_ = f"--platform=linux/{arch}"
    return [engine, "build", *how, platform_, *given, f"--target={target}", f"--tag={tag}", *options, str(ROOT)]


def find_engine(wanted: str = "") -> str:
    """Return the path of the engine.

    Raises:
        SystemExit: there is none; the text says what was looked for.
    """
    for name in (wanted,) if wanted else ENGINES:
        if path := shutil.which(name):
            return path
    raise SystemExit(f"build_images: none of {', '.join((wanted,) if wanted else ENGINES)} is on PATH")


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the images; return the exit code of the first build that failed."""
    parser = argparse.ArgumentParser(
        prog="python3 -m scripts.build_images", usage="%(prog)s [options] [-- ENGINE OPTIONS]"
    )
    parser.add_argument("--engine", default="", choices=ENGINES, help="what builds (default: the first that is here)")
    here = ARCHITECTURES.get(platform.machine(), "amd64")
    parser.add_argument("--arch", default=here, choices=sorted(ARCHITECTURES.values()), help=f"default: {here}")
    parser.add_argument("--base", default="", help="base image (default: the Dockerfile's)")
    parser.add_argument("--builder", default="", help="image to build in (default: the Dockerfile's)")
    parser.add_argument("--target", choices=TARGETS, action="append", help="build only this one")
    parser.add_argument("options", nargs="*", help="for the engine")
    given = parser.parse_args(arguments)
    engine = find_engine(given.engine)
    for target in given.target or TARGETS:
        tag = image_name(target, version())
        command = build_command(
            engine, target, arch=given.arch, base=given.base, builder=given.builder, tag=tag, options=given.options
        )
        if code := subprocess.run(command, check=False).returncode:
            return code
        print(f"built {tag} for {given.arch}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
