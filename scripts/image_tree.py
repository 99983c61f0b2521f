# SPDX-License-Identifier: Apache-2.0
"""Lays out what an image adds to its base: ``python3 -m scripts.image_tree agent --version V --base B --out FOLDER …``.

Runs inside the build, before anything of ours is installed, so with the standard library alone.

* The agent gets its own package and the two parts of the contract that it imports. Nothing third-party, and bytecode
  alone, without docstrings and what functions say of types: less than a megabyte. Tracebacks keep file and line.
* The operator gets its packages, the CRDs and what the lock installed, without the typed API of ``kubernetes``: that is
  66 of its 72 MB, and nothing of ours touches it (``numamigration_operator.cluster.client`` says why).
* Everything is compiled, since a container's root is read-only: else each start would compile anew. Bytecode that is
  checked by no time stamp, files in order, one time for all: two builds give the same bytes.
* A bill of materials goes with it (``scripts.sbom``).
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import py_compile
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from scripts.annotations import without_annotations
from scripts.sbom import bill_of_materials

HOME: Final = Path("opt/numamigration")
BILL: Final = Path("usr/share/sbom")
LICENCE: Final = Path("usr/share/doc/numa-migration-operator/LICENSE")

AGENT: Final = {
    "numamigration_agent": "node-agent/numamigration_agent",
    "numamigration_api/__init__.py": "crds/numamigration_api/__init__.py",
    "numamigration_api/vocabulary.py": "crds/numamigration_api/vocabulary.py",
    "numamigration_api/machinery": "crds/numamigration_api/machinery",
}
OPERATOR: Final = {
    "numamigration_operator": "operator/numamigration_operator",
    "numamigration_api": "crds/numamigration_api",
    "numamigration_api/crds/migrationpolicies.yaml": "crds/migrationpolicies.yaml",
    "numamigration_api/crds/nodemigrationstates.yaml": "crds/nodemigrationstates.yaml",
    "numamigration_api/crds/migrationprofiles.yaml": "crds/migrationprofiles.yaml",
}
UNUSED: Final = {"agent": ("numamigration_api/machinery/tuning/explain.py",)}
"""What comes with a folder, and nothing of that target imports: words for a terminal."""
SOURCES: Final = {"agent": AGENT, "operator": OPERATOR}
"""By target: where in the image, and from where in the source tree."""

TYPED_API: Final = (
    "kubernetes/aio/client/api",
    "kubernetes/aio/client/models",
    "kubernetes/client/api",
    "kubernetes/client/models",
)
ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
KEPT: Final = frozenset(
    {"__init__.py", "v1_managed_fields_entry.py", "v1_object_meta.py", "v1_owner_reference.py"},
)
"""What ``kubernetes`` itself imports of its typed API, whoever uses it."""


def lay_out(target: str, source: Path, site: Path, out: Path) -> None:
    """Copy what the image of this target gets below `out`.

    Args:
        target: agent or operator.
        source: the source tree.
        site: the folder where pip has installed the operator's lock.
        out: the root of what is added to the base image.
    """
    home = out / HOME
    if target == "operator":
        shutil.copytree(site, home, ignore=shutil.ignore_patterns("__pycache__", "bin"))
        for path in _typed_api(home):
            path.unlink()
    for name, origin in SOURCES[target].items():
        _copy(source / origin, home / name)
    for name in UNUSED.get(target, ()):
        (home / name).unlink()
    _copy(source / "LICENSE", out / LICENCE)


def _typed_api(home: Path) -> Iterator[Path]:
    for folder in TYPED_API:
        yield from (path for path in sorted((home / folder).glob("*.py")) if path.name not in KEPT)


def _copy(origin: Path, to: Path) -> None:
    if origin.is_dir():
        shutil.copytree(origin, to, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    else:
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(origin, to)


def compile_all(target: str, out: Path) -> None:
    """Compile all of it, as it will stand in the image; the agent's sources go.

    Raises:
        SyntaxError, ValueError: something does not compile.
    """
    sources = sorted((out / HOME).rglob("*.py")) if target == "agent" else []
    for path in sources:
        path.write_bytes(without_annotations(path.read_bytes()))
    done = compileall.compile_dir(
        out / HOME,
        maxlevels=20,
        quiet=1,
        legacy=target == "agent",
        stripdir=str(out),
        prependdir="/",
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        optimize=2 if target == "agent" else -1,  # nobody reads docstrings there; they are a quarter of it
    )
    if not done:
        raise ValueError("something does not compile; see above")
    for path in sources:
        path.unlink()


def settle(out: Path, epoch: int) -> None:
    """Give every file one time, and modes that depend on nobody's umask."""
    for path in sorted(out.rglob("*"), reverse=True):
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (epoch, epoch))
    os.utime(out, (epoch, epoch))


def main() -> int:
    """Lay out one image."""
    parser = argparse.ArgumentParser(prog="python3 -m scripts.image_tree")
    parser.add_argument("target", choices=sorted(SOURCES))
    parser.add_argument("--version", required=True, help="of the release")
    parser.add_argument("--base", required=True, help="name of the base image, for the bill of materials")
    parser.add_argument("--arch", required=True, help="amd64 or arm64, for the bill of materials")
    parser.add_argument("--site", type=Path, required=True, help="where pip has installed the operator's lock")
    parser.add_argument("--report", type=Path, required=True, help="what pip reported of that")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    options = parser.parse_args()
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or 0)
    lay_out(options.target, Path.cwd(), options.site, options.out)
    compile_all(options.target, options.out)
    bill = bill_of_materials(
        f"numa-migration-{options.target}",
        version=options.version,
        base=options.base,
        arch=ARCHITECTURES.get(options.arch, options.arch),
        home=options.out / HOME,
        report=json.loads(options.report.read_text()),
        epoch=epoch,
    )
    path = options.out / BILL / f"numa-migration-{options.target}.cdx.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(bill, indent=1, sort_keys=True) + "\n")
    settle(options.out, epoch)
    return 0


if __name__ == "__main__":
    sys.exit(main())
