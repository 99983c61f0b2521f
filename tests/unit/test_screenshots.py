# SPDX-License-Identifier: Apache-2.0
"""Pictures of docs/kubectl-plugin.md are told apart from those of another release's output."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import screenshots

pytestmark = pytest.mark.uncounted


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures as they were drawn of a page and of terminals."""
    monkeypatch.setattr(screenshots, "FOLDER", tmp_path)
    for name, terminal in screenshots.terminals().items():
        (tmp_path / f"{name}.svg").write_text(screenshots.drawn(name, terminal))
    for name in screenshots.PAGES:
        png = screenshots.marked(b"\x89PNG" + bytes(40), screenshots.digest("page"))
        (tmp_path / name).write_bytes(png)
    return tmp_path


def test_pictures_of_what_is_shown_now_are_not_stale(folder: Path) -> None:
    assert list(folder.iterdir())
    assert list(screenshots.stale("page")) == []


def test_a_page_that_looks_another_way_wants_another_picture(folder: Path) -> None:
    assert folder.exists()
    assert [line.split(":")[0] for line in screenshots.stale("page of today")] == [
        "report-light.png",
        "report-dark.png",
        "report-tuner.png",
    ]


def test_a_terminal_that_shows_something_else_wants_another_picture(folder: Path) -> None:
    (folder / "nodes.svg").write_text("of yesterday")

    assert list(screenshots.stale("page")) == ["nodes.svg: run `make generate`"]


def test_a_drawn_terminal_loads_no_font_from_anywhere() -> None:
    for name, terminal in screenshots.terminals().items():
        drawn = screenshots.drawn(name, terminal)
        assert "url(http" not in drawn
        assert drawn.count("http") == 1  # its name space
