# SPDX-License-Identifier: Apache-2.0
"""Output of a demo as it is recorded, compared with a later run, and pasted into a document."""

from __future__ import annotations

import pytest

from tests.demo.transcript import Block, differences, pasted, read, written

pytestmark = pytest.mark.uncounted

BLOCKS = [
    Block("why", "$ kubectl get\nfoliosFailedShare is 0.0255, at 2026-11-26T11:26:10Z, after 2.1 s"),
    Block("waves", "1 of 7   3 s", same=False),
]


def test_a_transcript_reads_back_as_it_was_written() -> None:
    assert list(read(written(BLOCKS)).values()) == BLOCKS


def test_times_and_measured_shares_are_no_difference() -> None:
    later = Block("why", "$ kubectl get\nfoliosFailedShare is 0.03, at 2026-12-01T00:00:00Z, after 12.9 s")
    assert list(differences(read(written(BLOCKS)), [later])) == []


def test_another_word_is_a_difference() -> None:
    later = Block("why", BLOCKS[0].text.replace("Failed", "Refused"))
    found = list(differences(read(written(BLOCKS)), [later]))
    assert any(line.startswith("-foliosFailedShare") for line in found)
    assert any(line.startswith("+foliosRefusedShare") for line in found)


def test_a_block_of_one_run_may_be_otherwise_in_another() -> None:
    assert list(differences(read(written(BLOCKS)), [Block("waves", "1 of 9", same=False)])) == []


def test_a_block_that_was_never_recorded_is_a_difference() -> None:
    assert list(differences({}, [Block("new", "words")]))


def test_a_document_gets_each_block_in_its_place() -> None:
    document = "a\n<!-- demo: why -->\nold\n<!-- end demo -->\nb\n"
    [why] = [one.text for one in BLOCKS if one.name == "why"]
    once = pasted(document, read(written(BLOCKS)))
    assert once == f"a\n<!-- demo: why -->\n```console\n{why}\n```\n<!-- end demo -->\nb\n"
    assert pasted(once, read(written(BLOCKS))) == once


def test_a_document_that_asks_for_an_unknown_block_is_an_error() -> None:
    with pytest.raises(KeyError, match="why"):
        pasted("<!-- demo: why -->\n<!-- end demo -->", {})
