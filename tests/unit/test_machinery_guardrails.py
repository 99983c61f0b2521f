# SPDX-License-Identifier: Apache-2.0
"""When the numbers of a window cross a guardrail, and when nothing can be told."""

from __future__ import annotations

import os
import subprocess
import sys
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from numamigration_api.machinery.guardrails import COMPARED, MIN_FOLIOS, SHARES, Reading, crossed, read
from numamigration_api.models.node_state import WindowNumbers
from numamigration_api.models.policy import Guardrail
from numamigration_api.vocabulary import GuardrailMetric

Numbers = dict[str, Any]

FAILED = {"metric": "foliosFailedShare", "max": "0.01", "minFolios": 100}
REFUSED = {"metric": "refusedShare", "max": "0.5", "minFolios": 100}
INEFFECTIVE = {"metric": "ineffectiveShare", "max": "0.2", "minFolios": 100}
MIGRATION = {"metric": "migrationFailures", "max": "0.1", "minFolios": 100}
MEMORY = {"metric": "memoryPressure", "max": "20", "minFolios": 100}
CPU = {"metric": "cpuPressure", "max": "20", "minFolios": 100}


@pytest.mark.parametrize(
    ("guardrail", "after", "found"),
    [
        (FAILED, {"foliosFailed": 11, "foliosMigrated": 989}, "0.011"),
        (FAILED, {"foliosFailed": 10, "foliosMigrated": 990}, None),
        (FAILED, {"foliosFailed": 100, "foliosMigrated": 0}, "1"),
        (FAILED, {"foliosFailed": 1, "foliosMigrated": 2}, None),
        (FAILED, {"foliosFailed": 99, "foliosMigrated": 0}, None),
        (REFUSED, {"foliosRefused": 51, "foliosMigrated": 40, "foliosFailed": 9}, "0.51"),
        (REFUSED, {"foliosRefused": 50, "foliosMigrated": 40, "foliosFailed": 10}, None),
        (INEFFECTIVE, {"foliosFailed": 900, "foliosMigrated": 100}, None),
        (MIGRATION, {"pagesMigrationFailed": 200, "pagesMigrated": 800}, "0.2"),
        (MIGRATION, {"pagesMigrationFailed": 100, "pagesMigrated": 900}, None),
        (MEMORY, {"memoryPressure": "20.01"}, "20.01"),
        (MEMORY, {"memoryPressure": "20.00"}, None),
        (MEMORY, {"cpuPressure": "99"}, None),
        (CPU, {"cpuPressure": "100"}, "100"),
    ],
)
def test_a_value_over_the_limit_crosses_and_one_at_it_does_not(
    guardrail: Numbers, after: Numbers, found: str | None
) -> None:
    assert crossed(guardrail, {}, after) == found


def test_a_share_that_is_over_the_limit_by_less_than_its_last_digit_crosses_and_shows_it() -> None:
    guardrail = {"metric": "foliosFailedShare", "max": "0.01", "minFolios": 1}

    assert crossed(guardrail, {}, {"foliosFailed": 100_000_001, "foliosMigrated": 9_899_999_999}) == "0.010001"
    assert crossed(guardrail | {"max": "0.000001"}, {}, {"foliosFailed": 1, "foliosMigrated": 400_000}) == "0.000003"


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_shares_are_compared_exactly(failed: int, migrated: int, limit: int) -> None:
    text = f"{limit // 10**6}.{limit % 10**6:06d}"
    is_over = failed + migrated > 0 and failed * 10**6 > limit * (failed + migrated)

    found = crossed(
        {"metric": "foliosFailedShare", "max": text, "minFolios": 1},
        {},
        {"foliosFailed": failed, "foliosMigrated": migrated},
    )

    assert (found is not None) == is_over
    assert found is None or Decimal(found) > Decimal(text)


def value(metric: GuardrailMetric, after: Numbers) -> str | None:
    return read({"metric": metric, "max": "0.5", "minFolios": 1}, {}, after).value


@pytest.mark.parametrize("metric", sorted(SHARES))
def test_a_share_lacks_a_value_when_one_of_its_numbers_is_not_there(metric: GuardrailMetric) -> None:
    names = (*SHARES[metric].part, *SHARES[metric].rest)
    whole: Numbers = dict.fromkeys(names, 1000)
    assert value(metric, whole) is not None

    for name in names:
        nonsense: tuple[object, ...] = (None, "1000", -1, 1.5, True, [])
        assert [value(metric, whole | {name: number}) for number in nonsense] == [None] * len(nonsense)
        assert value(metric, {key: whole[key] for key in names if key != name}) is None


@pytest.mark.parametrize("metric", sorted(set(GuardrailMetric) - {GuardrailMetric.NODE_NOT_READY}))
def test_nothing_happened_is_no_share_and_no_window_crosses_nothing(metric: GuardrailMetric) -> None:
    nothing: Numbers = {name: 0 for share in SHARES.values() for name in share.part + share.rest}

    assert crossed({"metric": metric, "max": "0"}, {}, nothing) is None
    assert crossed({"metric": metric, "max": "0"}, {}, {}) is None


@pytest.mark.parametrize("text", [None, 30, 30.0, "NaN", "Infinity", "1e3", "-1", "", "30 ", "٣٠", [], {}])
def test_a_level_or_a_limit_that_is_no_decimal_is_not_there(text: object) -> None:
    assert crossed(MEMORY, {}, {"memoryPressure": text}) is None
    assert crossed(MEMORY | {"max": text}, {}, {"memoryPressure": "99"}) is None


@pytest.mark.parametrize("word", ["nodeNotReady", "temperature", "", None, 7, [], {}])
def test_a_metric_that_is_no_number_of_the_node_or_of_a_newer_release_never_crosses(word: object) -> None:
    numbers = {"nodeNotReady": 1, "temperature": 99, "memoryPressure": "99"}

    assert crossed({"metric": word, "max": "0"}, {}, numbers) is None


@pytest.mark.parametrize(
    ("earlier", "now", "found"),
    [
        ("30", "32.99", None),
        ("30", "33", "33"),
        ("30", "21", None),
        ("19", "20.5", "20.5"),
        ("20", "21", "21"),
        (None, "21", "21"),
        ("nonsense", "21", "21"),
    ],
)
def test_what_was_over_the_limit_before_crosses_only_when_it_is_worse_by_a_tenth(
    earlier: str | None, now: str, found: str | None
) -> None:
    before = {} if earlier is None else {"memoryPressure": earlier, "cpuPressure": earlier}

    assert crossed(MEMORY, before, {"memoryPressure": now}) == found
    assert crossed(CPU, before, {"cpuPressure": now}) == found


BEFORE = {"seconds": "300", "pagesMigrated": 30_000}


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        pytest.param(BEFORE, {"seconds": "60", "pagesMigrated": 2_999}, "0.500167", id="by more than half"),
        pytest.param(BEFORE, {"seconds": "60", "pagesMigrated": 3_000}, None, id="by half"),
        pytest.param(BEFORE, {"seconds": "60", "pagesMigrated": 0}, "1", id="to nothing"),
        pytest.param(BEFORE, {"seconds": "60", "pagesMigrated": 60_000}, None, id="not at all"),
        pytest.param(BEFORE, {"seconds": "59.9", "pagesMigrated": 0}, None, id="for a moment"),
        pytest.param(BEFORE | {"seconds": "59.9"}, {"seconds": "60", "pagesMigrated": 0}, None, id="after a moment"),
        pytest.param(BEFORE | {"pagesMigrated": 99}, {"seconds": "60", "pagesMigrated": 0}, None, id="from little"),
        pytest.param({}, {"seconds": "60", "pagesMigrated": 0}, None, id="from what nobody knows"),
        pytest.param(BEFORE, {"seconds": "60"}, None, id="to what nobody knows"),
        pytest.param(BEFORE, {"pagesMigrated": 0}, None, id="over no time"),
        pytest.param(BEFORE | {"seconds": "x"}, {"seconds": "60", "pagesMigrated": 0}, None, id="since no time"),
    ],
)
def test_a_rate_that_fell_behind_what_it_was_crosses(before: Numbers, after: Numbers, found: str | None) -> None:
    assert crossed({"metric": "migrationRateDrop", "max": "0.5", "minFolios": 100}, before, after) == found


def test_migration_failures_are_compared_with_those_of_before_when_there_were_enough() -> None:
    after = {"pagesMigrationFailed": 210, "pagesMigrated": 790}

    assert crossed(MIGRATION, {"pagesMigrationFailed": 200, "pagesMigrated": 800}, after) is None
    assert crossed(MIGRATION, {"pagesMigrationFailed": 150, "pagesMigrated": 850}, after) == "0.21"
    assert crossed(MIGRATION, {"pagesMigrationFailed": 20, "pagesMigrated": 79}, after) == "0.21"


@pytest.mark.parametrize("metric", sorted(set(SHARES) - COMPARED))
def test_what_only_an_engine_can_cause_is_not_excused_by_the_engine_of_before(metric: GuardrailMetric) -> None:
    bad: Numbers = dict.fromkeys(SHARES[metric].part, 900) | dict.fromkeys(SHARES[metric].rest, 50)

    assert crossed({"metric": metric, "max": "0.5"}, bad, bad) is not None


@pytest.mark.parametrize("given_folios", [{}, {"minFolios": None}, {"minFolios": 0}, {"minFolios": "1"}])
def test_a_guardrail_without_a_number_of_folios_takes_the_one_of_the_schema(given_folios: Numbers) -> None:
    guardrail = {"metric": "foliosFailedShare", "max": "0.01"} | given_folios

    assert Guardrail.model_fields["min_folios"].default == MIN_FOLIOS
    assert crossed(guardrail, {}, {"foliosFailed": MIN_FOLIOS - 1, "foliosMigrated": 0}) is None
    assert crossed(guardrail, {}, {"foliosFailed": MIN_FOLIOS, "foliosMigrated": 0}) == "1"


def test_every_number_is_one_of_the_window_in_status() -> None:
    known = {field.alias or name for name, field in WindowNumbers.model_fields.items()}
    shares = {name for share in SHARES.values() for name in share.part + share.rest}

    assert shares <= known


def test_the_agent_need_not_carry_the_module_for_decimals() -> None:
    code = "import sys, numamigration_api.machinery.guardrails; print('decimal' in sys.modules)"
    bare = {name: value for name, value in os.environ.items() if not name.startswith("COV")}  # which carries it

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=bare)

    assert done.stdout == "False\n"


def test_a_value_is_told_whether_or_not_it_is_over_the_limit() -> None:
    guardrail = {"metric": "memoryPressure", "max": "40"}

    assert read(guardrail, {}, {"memoryPressure": "39.5"}) == Reading("39.5", crossed=False)
    assert read(guardrail, {}, {"memoryPressure": "40.5"}) == Reading("40.5", crossed=True)
    assert read(guardrail, {"memoryPressure": "40.5"}, {"memoryPressure": "40.5"}) == Reading("40.5", crossed=False)
