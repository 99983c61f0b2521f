# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from pathlib import Path

import pytest

from numamigration_agent.hazards import HAZARDS
from numamigration_agent.kernel import dialects
from numamigration_agent.kernel.codecs import Codec, ReasonMask, UInt, Value, Words, reason_names, reasons_value
from numamigration_agent.kernel.dialects import CODECS, COUNTERS, DIALECTS, KNOBS, Phase, Trap, knobs_of
from numamigration_api.vocabulary import AcceptedRisk, Dialect, MigrationReason
from scripts.traps import TRAPS


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("4\n", "4", id="as the kernel shows it"),
        pytest.param("0\n", "0", id="zero"),
        pytest.param("17\n", "17", id="out of a wish's bounds, and held all the same"),
        pytest.param("010\n", None, id="8 to the kernel, 10 to people: refused"),
        pytest.param("+4\n", None, id="a sign"),
        pytest.param("0x10\n", None, id="hexadecimal"),
        pytest.param("4 \n", None, id="a blank"),
        pytest.param("4\n\n", None, id="two newlines"),
        pytest.param("-1\n", None, id="negative"),
        pytest.param("", None, id="nothing"),
    ],
)
def test_a_number_is_compared_by_value_and_odd_spellings_are_no_number(text: str, value: str | None) -> None:
    """Promise 14: what a kernel file says is kept, and written back one day, only when it is a value of its knob."""
    assert UInt(1, 16).parse(text) == value


@pytest.mark.parametrize(
    ("name", "text", "shown", "written"),
    [
        pytest.param("offload.engine", "1\n", "DMA", "1", id="engine on"),
        pytest.param("offload.engine", "0\n", "Off", "0", id="engine off"),
        pytest.param(
            "demotion.enabled", "true\n", "true", "1", id="demotion is shown as a word and written as a digit"
        ),
        pytest.param("demotion.enabled", "false\n", "false", "0", id="no demotion"),
        pytest.param("balancing.mode", "2\n", "Tiering", "2", id="tiering"),
        pytest.param("balancing.mode", "3\n", "3", "3", id="both bits have no word"),
        pytest.param("offload.channels", "16\n", "16", "16", id="channels"),
        pytest.param("offload.reasons", "demotion,damon\n", "demotion,damon", "demotion,damon", id="reasons"),
        pytest.param("offload.reasons", "none\n", "none", "none", id="no reason"),
    ],
)
def test_a_value_survives_the_way_to_people_and_back(name: str, text: str, shown: str, written: str) -> None:
    """Promise 7: a baseline that is recovered from the status is the one that was saved."""
    codec = CODECS[name]
    value = codec.parse(text)

    assert value is not None
    assert codec.show(value) == shown
    assert codec.unshow(shown) == value
    assert codec.format(value) == written


def test_a_boolean_file_that_says_something_else_is_not_guessed() -> None:
    assert CODECS["offload.engine"].parse("Y\n") is None


def test_reasons_are_equal_in_any_order_and_unknown_names_are_kept() -> None:
    mask = ReasonMask()

    assert mask.parse("damon,never_migrated,compaction\n") == mask.parse("compaction,damon,never_migrated\n")
    assert reason_names(Value("compaction,never_migrated")) == {"compaction", "never_migrated"}


@pytest.mark.parametrize("text", ["\n", "Demotion\n", "demotion,\n", "0x120\n", "demotion; rm\n"])
def test_a_mask_that_does_not_look_like_one_is_refused(text: str) -> None:
    """Promise 14: what was read is written back one day."""
    assert ReasonMask().parse(text) is None


def test_no_reason_is_never_written_as_an_empty_line() -> None:
    """An empty line would succeed and mean none; it is spelled out so that nothing is written by accident."""
    assert reasons_value([]) == "none"


def test_reasons_are_written_in_bit_order() -> None:
    assert reasons_value(reversed(MigrationReason)) == ",".join(MigrationReason)


# --- the tables


def test_no_knob_is_a_counter() -> None:
    """Promise 2: any write to a counter resets it, so no counter may be reachable by a write."""
    assert not {knob.path for knob in KNOBS} & {counter.path for counter in COUNTERS}


def test_a_dialect_of_the_series_has_a_switch_for_each_engine_and_the_mainline_ones() -> None:
    for dialect in set(Dialect) - {Dialect.NO_SERIES}:
        switches = [knob for knob in knobs_of(dialect) if knob.phase is Phase.SWITCH]

        assert {knob.setting for knob in switches} == {"offload.engine", "balancing.mode", "demotion.enabled"}
        assert all(knob.off is not None for knob in switches)


def test_a_knob_is_named_once_in_a_dialect() -> None:
    """Promise 7: baselines are kept by name."""
    for dialect in Dialect:
        names = [knob.field for knob in knobs_of(dialect)]

        assert len(set(names)) == len(names)


def _spelling(codec: Codec) -> object:
    return codec.words if isinstance(codec, Words) else type(codec)


def test_a_field_is_spelled_alike_wherever_a_dialect_has_its_file() -> None:
    """Promise 7: a baseline is kept by field, and read without knowing the dialect. What is legal may differ."""
    assert all(_spelling(CODECS[knob.field]) == _spelling(knob.codec) for knob in KNOBS)


def test_every_dialect_has_one_row() -> None:
    assert sorted(row.dialect for row in DIALECTS) == sorted(Dialect)


def test_a_later_dialect_is_looked_for_before_the_ones_whose_files_it_keeps() -> None:
    """First hit wins; a file that tells an earlier dialect may be there too."""
    order = [row.dialect for row in DIALECTS]

    assert order.index(Dialect.F_EXT) < order.index(Dialect.F_MID) < order.index(Dialect.V6) < order.index(Dialect.V5)
    assert order.index(Dialect.V4) < order.index(Dialect.V3_DEV) < order.index(Dialect.V3) < order.index(Dialect.V1)
    assert order.index(Dialect.V2) < order.index(Dialect.V3)


def test_only_the_tables_name_a_dialect() -> None:
    """A dialect is rows: what differs between kernels is never a branch."""
    package = Path(dialects.__file__).parents[1]
    tables = {package / "kernel/dialects.py", package / "kernel/engines.py"}
    code = {path: path.read_text() for path in package.rglob("*.py") if path not in tables}

    assert [path.name for path, text in code.items() if re.search(r"Dialect\.[A-Z]", text)] == []


def test_every_hazard_of_a_dialect_has_a_row_in_the_risk_table_and_every_row_a_dialect() -> None:
    """Promise 5: what a policy accepts, what is refused and what is told come from one table."""
    named = frozenset[str]().union(*(row.hazards for row in DIALECTS))

    assert {row.risk for row in HAZARDS} == set(AcceptedRisk)
    assert {row.trap for row in TRAPS} == set(Trap)
    assert named == {*AcceptedRisk, *Trap}


def test_zero_segments_can_be_neither_wished_nor_written() -> None:
    """Promise 5."""
    segments = [knob for knob in KNOBS if knob.field == "batch.sgElements"]

    assert segments
    assert all(knob.never == {"0"} and isinstance(knob.codec, UInt) and knob.codec.lowest == 1 for knob in segments)


@pytest.mark.parametrize(
    ("shown", "value"),
    [
        pytest.param("32Ki", "32768", id="as people write it"),
        pytest.param("1000", "1000", id="no whole suffix"),
        pytest.param("0", "0", id="what no wish can be, and a kernel may hold"),
        pytest.param("2Mi", "2097152", id="the largest suffix"),
    ],
)
def test_a_size_is_bytes_to_the_kernel_and_survives_the_way_to_people_and_back(shown: str, value: str) -> None:
    """Promise 7."""
    codec = CODECS["batch.minSize"]

    assert codec.unshow(shown) == value
    assert codec.parse(f"{value}\n") == value
    assert codec.show(Value(value)) == shown
    assert codec.format(Value(value)) == value
