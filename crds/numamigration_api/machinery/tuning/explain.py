# SPDX-License-Identifier: Apache-2.0
"""A choice in words, for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from numamigration_api.machinery.tuning.choice import Candidate, Choice
from numamigration_api.machinery.tuning.samples import BASELINE

PERCENT_MAX: Final = 999
"""More is only said to be more."""


def explain(choice: Choice) -> str:
    """Return decision, table and reasons."""
    return "\n".join([*_decision(choice), "", *_table(choice), *_besides(choice), ""])


def _decision(choice: Choice) -> Iterator[str]:
    sure = f"{100 * choice.confidence:.4g} % sure, {choice.probes} measurements"
    if choice.setting == BASELINE:
        yield "Offload stays off: no setting is surely faster than plain CPU copy for what"
        yield f"this node migrates ({sure})."
        return
    yield f"{choice.setting}: {_percent(choice.gain)} against plain CPU copy for what this node migrates,"
    yield f"between {_percent(choice.gain_low)} and {_percent(choice.gain_high)} ({sure})."
    if choice.channel_cost:
        yield f"Their number counted as a cost of {100 * choice.channel_cost:.1f} %, for they are shared."


def _table(choice: Choice) -> Iterator[str]:
    yield f"{'setting':<16}{'GB/s':>7}{'gain':>8}{'95 % between':>17}{'n':>4}  verdict"
    for row in choice.rows:
        yield f"{row.setting!s:<16}{_speed(row)}{row.samples:>4}  {row.verdict}"


def _speed(row: Candidate) -> str:
    if not row.bytes_per_second:
        return f"{'':>32}"
    gain = "" if row.setting == BASELINE else _percent(row.gain)
    between = "" if row.setting == BASELINE else f"{_percent(row.gain_low)} to {_percent(row.gain_high)}"
    return f"{row.bytes_per_second / 1e9:>7.2f}{gain:>8}{between:>17}"


def _besides(choice: Choice) -> Iterator[str]:
    if choice.left_out or choice.reasons_left_out or choice.notes:
        yield ""
    for one in choice.left_out:
        yield f"Not measured: {one.setting}: {one.why}."
    if choice.reasons_left_out:
        yield "Left out of reasons, for they move one folio a batch and cannot gain:"
        yield f"{', '.join(choice.reasons_left_out)}."
    yield from choice.notes


def _percent(share: float) -> str:
    return f"{100 * share:+.0f} %" if share < PERCENT_MAX / 100 else f"> {PERCENT_MAX} %"
