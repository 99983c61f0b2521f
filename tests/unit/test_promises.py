# SPDX-License-Identifier: Apache-2.0
"""How tests say which promise they guard. What the check refuses is in test_verify.py, on a copy of the tree."""

from __future__ import annotations

import pytest

from tests.promises import PROMISES, GuardTest, find_tests, named_promises, page, read_proofs

pytestmark = pytest.mark.uncounted


@pytest.mark.parametrize(
    ("docstring", "numbers"),
    [
        pytest.param("Promise 4.", {4}, id="alone"),
        pytest.param("Promise 12: why", {12}, id="with words"),
        pytest.param("Promises 6 and 7: why", {6, 7}, id="two"),
        pytest.param("Promises 1, 4, 7: why", {1, 4, 7}, id="three"),
        pytest.param("Promises 1, 4, and 7", {1, 4, 7}, id="three with and"),
        pytest.param("Promise 2, towards the API server.", {2}, id="a comma"),
        pytest.param("Promise 3's sister", set(), id="only a relative"),
        pytest.param("Keeps promise 4.", set(), id="not at its beginning"),
        pytest.param(None, set(), id="no docstring"),
    ],
)
def test_a_docstring_names_its_promises_at_its_beginning(docstring: str | None, numbers: set[int]) -> None:
    assert named_promises(docstring) == numbers


def test_functions_and_state_machines_are_tests_and_helpers_are_not() -> None:
    source = '''
def helper():
    """Promise 1."""

def test_one():
    """Promise 2."""

async def test_two(): ...

class Machine:
    """Promise 3."""

    def an_invariant(self):
        """Promise 4."""

TestMachine = Machine.TestCase
'''

    assert list(find_tests("f.py", source)) == [
        GuardTest("f.py::test_one", frozenset({2})),
        GuardTest("f.py::test_two", frozenset()),
        GuardTest("f.py::TestMachine", frozenset({3, 4})),
    ]


def test_the_promises_are_numbered_from_one_to_seventeen() -> None:
    assert [promise.number for promise in PROMISES] == list(range(1, 18))


def test_every_promise_is_on_the_page_and_none_has_an_empty_cell() -> None:
    rows = [line for line in page(read_proofs()).splitlines() if line.startswith("| [")]

    summary = rows[: len(PROMISES)]
    assert [promise.title in row for promise, row in zip(PROMISES, summary, strict=True)] == [True] * len(PROMISES)
    assert not any(cell.strip() in {"", "0"} for row in summary for cell in row.strip("|").split("|"))
