# SPDX-License-Identifier: Apache-2.0
"""Where the test bed takes Chromium from."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from tests.testbed.chromium import PROGRAM, find_chromium
from tests.testbed.errors import MissingNeedError
from tests.testbed.progress import Progress

pytestmark = pytest.mark.uncounted


def program(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_one_on_path_is_taken_as_it_is(tmp_path: Path) -> None:
    wanted = program(tmp_path / "chromium-browser")

    found = find_chromium(Progress(io.StringIO()), {"PATH": str(tmp_path), "HOME": str(tmp_path / "home")})

    assert (found.program, found.environment({"A": "b"})) == (wanted, {"A": "b"})


def test_one_in_the_cache_finds_the_libraries_that_came_with_it(tmp_path: Path) -> None:
    cache = tmp_path / "numa-migration-operator" / "testbed" / "chromium"
    wanted = program(cache / PROGRAM)
    deep = program(cache / "usr/lib/x86_64-linux-gnu/pulseaudio/libpulse.so.0").parent

    found = find_chromium(Progress(io.StringIO()), {"PATH": str(tmp_path / "bin"), "XDG_CACHE_HOME": str(tmp_path)})

    assert (found.program, found.environment({})) == (wanted, {"LD_LIBRARY_PATH": str(deep)})


def test_a_package_that_cannot_be_had_says_what_to_do(tmp_path: Path) -> None:
    program(tmp_path / "bin" / "apt-get", "#!/bin/sh\necho no such package >&2\nexit 100\n")
    for name in ("sh", "sed"):
        (tmp_path / "bin" / name).symlink_to(f"/bin/{name}")

    with pytest.raises(MissingNeedError, match=r"(?s)install Chromium on PATH.*no such package"):
        find_chromium(Progress(io.StringIO()), {"PATH": str(tmp_path / "bin"), "XDG_CACHE_HOME": str(tmp_path)})
