# SPDX-License-Identifier: Apache-2.0
"""The page of ``kubectl numamigration report`` in a real browser that reaches nobody."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from numamigration_cli.views.report.facts import report
from numamigration_cli.views.report.page import page
from tests.testbed.browser import Browser
from tests.testbed.chromium import Chromium
from tests.unit.report_scene import scene

pytestmark = pytest.mark.uncounted

NODES = 240
CURVE_POINTS = 21
"""3 kinds of call with 3 and with 4 numbers of channels."""
COLOR = "getComputedStyle(document.body).backgroundColor"
ROWS = "[...document.querySelectorAll('#nodes tbody tr')].filter(row => row.offsetHeight)"
DARK, LIGHT = "rgb(20, 23, 28)", "rgb(255, 255, 255)"


@pytest.fixture(scope="module")
def running(chromium: Chromium) -> Iterator[Browser]:
    with Browser(chromium) as browser:
        yield browser


@pytest.fixture
def browser(running: Browser, tmp_path: Path) -> Browser:
    """A browser that shows the page."""
    file = tmp_path / "report.html"
    file.write_text(page(report(scene(NODES))))
    running.look(width=1280)
    running.open(file)
    return running


def test_it_opens_without_network_asks_for_nothing_and_says_nothing_to_the_console(browser: Browser) -> None:
    assert [address.rpartition("/")[2] for address in browser.asked] == ["report.html"]
    assert browser.told == []


def test_the_map_has_as_many_cells_as_nodes_and_each_can_be_seen(browser: Browser) -> None:
    assert browser.value("document.querySelectorAll('.cells i').length") == NODES
    seen = (
        "[...document.querySelectorAll('.cells i')].filter(one => one.offsetWidth >= 8 && one.offsetHeight >= 8).length"
    )
    assert browser.value(seen) == NODES


def test_it_has_the_colors_of_the_system_until_somebody_chooses(browser: Browser) -> None:
    assert browser.value(COLOR) == LIGHT
    browser.look(width=1280, dark=True)
    assert browser.value(COLOR) == DARK
    browser.value("theme.value = 'light'; theme.dispatchEvent(new Event('change'))")
    assert browser.value(COLOR) == LIGHT


@pytest.mark.parametrize("width", [360, 1280])
def test_no_width_makes_the_page_itself_scroll_sideways(browser: Browser, width: int) -> None:
    browser.look(width=width)
    browser.value("document.querySelectorAll('details').forEach(one => one.open = true)")

    assert browser.value("document.documentElement.scrollWidth") <= width


def test_a_click_on_a_cell_shows_its_row_and_no_other(browser: Browser) -> None:
    browser.value("document.querySelector('.cells.failed i').click()")

    assert browser.value("document.getElementById('all-nodes').open") is True
    assert browser.value(f"{ROWS}.map(row => row.cells[0].textContent)") == ["db-v5-0000"]


def test_the_table_is_narrowed_to_rows_with_a_word(browser: Browser) -> None:
    browser.value(
        "filter.value = 'RiskNotAccepted'; document.getElementById('filter').dispatchEvent(new Event('input'))"
    )

    assert browser.value(f"{ROWS}.length") == 6


@pytest.mark.parametrize("width", [360, 1280])
def test_every_point_of_a_curve_can_be_seen_and_the_choice_looks_different(browser: Browser, width: int) -> None:
    browser.look(width=width)

    points = "[...document.querySelectorAll('.curves circle')]"
    places = f"{points}.map(one => one.getBoundingClientRect())"
    assert browser.value(f"{points}.length") == CURVE_POINTS
    assert browser.value(f"{places}.filter(one => one.width >= 7 && one.right <= innerWidth).length") == CURVE_POINTS
    stroke = "getComputedStyle(document.querySelector('.curves circle{}')).stroke"
    assert browser.value(f"{stroke.format('.chosen')} != {stroke.format(':not(.chosen)')}") is True


def test_a_page_that_asks_for_something_or_complains_is_found_out(running: Browser, tmp_path: Path) -> None:
    file = tmp_path / "bad.html"
    file.write_text("<!doctype html><title>bad</title><img src='http://192.0.2.1/x.png'><script>nothing()</script>")

    running.open(file)

    assert len(running.asked) == 2
    assert "nothing is not defined" in "".join(running.told)
