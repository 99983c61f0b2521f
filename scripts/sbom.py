# SPDX-License-Identifier: Apache-2.0
"""Bill of materials of an image, as CycloneDX 1.6 JSON; standard library only, since it is made inside the build.

What is in it was looked at, not believed: packages are those whose metadata lie in the image, with the hash of the
wheel that pip has checked against the lock; our own packages with the hash of their files. The base image is one
component by name: what it is made of stands in its own bill.

Source: CycloneDX specification 1.6 (bom, component, license); package-url for PyPI.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from scripts.licences import licence_of

OURS: Final = ("numamigration_agent", "numamigration_api", "numamigration_operator")
LICENCE: Final = "Apache-2.0"


def bill_of_materials(
    image: str, *, version: str, base: str, arch: str, home: Path, report: Mapping[str, Any], epoch: int
) -> dict[str, Any]:
    """Return the bill of one image.

    Args:
        image: its name.
        version: of the release.
        base: name of the base image.
        arch: amd64 or arm64.
        home: the folder with all Python packages that are added to the base.
        report: pip's installation report.
        epoch: when, in seconds; the same sources give the same bill.
    """
    components = [_base(base, arch), *_ours(home, version), *_packages(home, report)]
    root = {"type": "container", "bom-ref": image, "name": image, "version": version, "licenses": _licences(LICENCE)}
    content = hashlib.sha256(repr((image, version, arch, epoch, components)).encode()).digest()
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.UUID(bytes=content[:16], version=4)}",
        "version": 1,
        "metadata": {"timestamp": datetime.fromtimestamp(epoch, UTC).isoformat(), "component": root},
        "components": components,
        "dependencies": [{"ref": image, "dependsOn": [component["bom-ref"] for component in components]}],
    }


def _base(name: str, arch: str) -> dict[str, Any]:
    return {
        "type": "container",
        "bom-ref": f"base:{name}",
        "name": name,
        "properties": [{"name": "architecture", "value": arch}],
    }


def _ours(home: Path, version: str) -> Iterator[dict[str, Any]]:
    for name in OURS:
        if (home / name).is_dir():
            yield {
                "type": "library",
                "bom-ref": f"ours:{name}",
                "name": name,
                "version": version,
                "licenses": _licences(LICENCE),
                "hashes": [{"alg": "SHA-256", "content": _files_hash(home / name)}],
            }


def _files_hash(folder: Path) -> str:
    """Return a hash of all files but those that Python makes of them: their paths and their own hashes, in order."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.parent.name != "__pycache__":
            own = hashlib.sha256(path.read_bytes()).hexdigest()
            total.update(f"{own}  {path.relative_to(folder).as_posix()}\n".encode())
    return total.hexdigest()


def _packages(home: Path, report: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    wheels = {
        _normal(one["metadata"]["name"]): one["download_info"]["archive_info"]["hashes"]["sha256"]
        for one in report["install"]
    }
    for package in sorted(metadata.distributions(path=[str(home)]), key=lambda one: _normal(one.metadata["Name"])):
        name = package.metadata["Name"]
        link = f"pkg:pypi/{_normal(name)}@{package.version}"
        yield {
            "type": "library",
            "bom-ref": link,
            "name": name,
            "version": package.version,
            "purl": link,
            "licenses": _licences(licence_of(package.metadata)),
            "hashes": [{"alg": "SHA-256", "content": wheels[_normal(name)]}],
        }


def _licences(expression: str) -> list[dict[str, Any]]:
    if not expression:
        return []
    return [{"expression": expression}] if " " in expression else [{"license": {"id": expression}}]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
