# SPDX-License-Identifier: Apache-2.0
"""Blocks of pages: what is typed, what is shown of its output, and what is said when it went otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.world import Ended, told
from tests.testbed.pages import Block, Step, blocks, prints, steps

pytestmark = pytest.mark.uncounted


def console(*lines: str) -> Block:
    return Block(7, "console", "run", "".join(f"{line}\n" for line in lines))


def test_a_console_is_typed_line_by_line_each_with_the_output_that_is_shown() -> None:
    assert steps(console("$ a b", "$ c", "NAME  X", "", "n     1")) == [
        Step(7, "a b"),
        Step(8, "c", ("NAME  X", "", "n     1")),
    ]


def test_output_of_no_command_is_refused() -> None:
    with pytest.raises(ValueError, match="7: no command of a console: NAME"):
        steps(console("NAME", "$ a"))


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        pytest.param(["a  b"], "a     b  \n", id="columns may be wider"),
        pytest.param(["a …"], "a b c\n", id="anything"),
        pytest.param(['{"n":…}'], '{"n":1,"m":2}', id="anything within a word, and no end of the line"),
        pytest.param(["a", "…", "z"], "a\nb\nc\nz\n", id="any lines"),
        pytest.param(["a", "…", "z"], "a\nz\n", id="no lines"),
        pytest.param(["a.b", "", "(c)"], "a.b\n\n(c)\n", id="as they stand"),
    ],
)
def test_what_is_shown_is_what_was_printed(shown: list[str], printed: str) -> None:
    assert prints(shown, printed)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        pytest.param(["a b"], "a c\n", id="another word"),
        pytest.param(["a b"], "ab\n", id="no space"),
        pytest.param(["a"], "a\nb\n", id="more lines"),
        pytest.param(["a", "b"], "a\n", id="fewer lines"),
        pytest.param(["a …"], "a\nb\n", id="anything ends with the line"),
        pytest.param(["a.b"], "axb\n", id="a dot is a dot"),
    ],
)
def test_what_is_shown_is_not_what_was_printed(shown: list[str], printed: str) -> None:
    assert not prints(shown, printed)


def test_a_mark_belongs_to_the_next_block_and_has_a_kind(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- not run: it needs a Pod -->\n```sh\na\n```\n\n```sh\nb\n```\n")

    assert [(one.mark, one.kind, one.line) for one in blocks(page)] == [
        ("not run: it needs a Pod", "not run", 3),
        ("", "", 7),
    ]


def test_what_went_wrong_is_told_with_what_was_typed_and_what_it_said() -> None:
    failed = told(Step(1, "kubectl get x"), Ended(1, "", "no such thing\n"))
    late = told(Step(1, "kubectl wait x"), Ended(124, "", ""))
    other = told(Step(1, "kubectl get x", ("shown",)), Ended(0, "printed\n", ""))

    assert failed == "kubectl get x\nended with exit code 1\n--- it printed:\nno such thing\n"
    assert late is not None
    assert "exit code 124 (after 60 s)" in late
    assert other == ("kubectl get x\nprinted something else than the page shows:\nshown\n--- it printed:\nprinted\n")


def test_what_went_well_is_not_told() -> None:
    assert told(Step(1, "x"), Ended(0, "anything\n", "")) is None
    assert told(Step(1, "x", ("a",)), Ended(0, "a\n", "")) is None
