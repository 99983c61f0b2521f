# SPDX-License-Identifier: Apache-2.0
"""Where the test bed takes Prometheus from."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from tests.testbed.errors import MissingNeedError
from tests.testbed.progress import Progress
from tests.testbed.prometheus import PROGRAMS, find_prometheus

pytestmark = pytest.mark.uncounted


def programs(folder: Path, *names: str, text: str = "#!/bin/sh\n") -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return [folder / name for name in names]


def test_both_on_path_are_taken(tmp_path: Path) -> None:
    wanted = programs(tmp_path, *PROGRAMS)

    found = find_prometheus(Progress(io.StringIO()), {"PATH": str(tmp_path), "HOME": str(tmp_path / "home")})

    assert list(found) == wanted


def test_one_on_path_is_not_mixed_with_another_release_from_the_cache(tmp_path: Path) -> None:
    programs(tmp_path / "bin", "promtool")
    cached = programs(tmp_path / "numa-migration-operator" / "testbed" / "prometheus", *PROGRAMS)

    found = find_prometheus(Progress(io.StringIO()), {"PATH": str(tmp_path / "bin"), "XDG_CACHE_HOME": str(tmp_path)})

    assert list(found) == cached


def test_a_package_that_cannot_be_had_says_what_to_do(tmp_path: Path) -> None:
    programs(tmp_path / "bin", "apt-get", text="#!/bin/sh\necho no such package >&2\nexit 100\n")
    (tmp_path / "bin" / "sh").symlink_to("/bin/sh")  # a machine may have Prometheus beside its own

    with pytest.raises(MissingNeedError, match=r"(?s)install Prometheus \(with promtool\) on PATH.*no such package"):
        find_prometheus(Progress(io.StringIO()), {"PATH": str(tmp_path / "bin"), "XDG_CACHE_HOME": str(tmp_path)})
