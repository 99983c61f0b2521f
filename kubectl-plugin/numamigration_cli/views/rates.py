# SPDX-License-Identifier: Apache-2.0
"""What a hardware class was measured to do: each setting beside the plain copy by CPU, for each kind of call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from numamigration_api.machinery.quantities import size_text
from numamigration_api.machinery.tuning.samples import BASELINE, CPU, Setting, Shape
from numamigration_api.vocabulary import Engine
from numamigration_cli.objects import MeasuredRate
from numamigration_operator.core.objects import Recommendation, Struct


class Rate(Struct, frozen=True):
    """One setting at one kind of call.

    Attributes:
        shape: what one call moves, in words.
        setting: who copied, in words.
        against: throughput by that of the plain copy at the same shape; None where that was not measured.
        chosen: it is what the class was found to be best with.
    """

    shape: str
    setting: str
    against: float | None
    chosen: bool
    measured: MeasuredRate

    @property
    def is_baseline(self) -> bool:
        """No engine was on."""
        return self.measured.engine == CPU


def rates(results: Iterable[Mapping[str, Any]], choice: Recommendation | None) -> tuple[Rate, ...]:
    """Return what was measured, in the order of the results: the heaviest shapes first."""
    found = [msgspec.convert(one, MeasuredRate) for one in results]
    plain = {_shape(one): one.bytes_per_second for one in found if one.engine == CPU}
    chosen = None if choice is None else chosen_setting(choice)
    return tuple(_rate(one, plain.get(_shape(one)), chosen) for one in found)


def _rate(one: MeasuredRate, plain: int | None, chosen: Setting | None) -> Rate:
    setting = Setting(one.engine, one.channels)
    return Rate(
        shape=shape_text(_shape(one)),
        setting=str(setting),
        against=one.bytes_per_second / plain if plain else None,
        chosen=setting == chosen,
        measured=one,
    )


def _shape(one: MeasuredRate) -> Shape:
    return Shape(one.folio_bytes, one.folios, one.migrators)


def shape_text(shape: Shape) -> str:
    """Return what one call moves, such as ``512 × 4Ki`` or ``32 × 2Mi, 2 tasks``."""
    tasks = f", {shape.migrators} tasks" if shape.migrators > 1 else ""
    return f"{shape.folios} × {size_text(shape.folio_bytes)}{tasks}"


def chosen_setting(choice: Recommendation) -> Setting:
    """Return a choice as a setting, whose text is how people say it."""
    return BASELINE if choice.engine == Engine.OFF else Setting(choice.engine, choice.channels or 0)


def gain_text(times: float | str | None) -> str:
    """Return throughput by that of the plain copy as what is gained, such as ``+52 %``; empty for what is none."""
    try:
        return "" if times is None else f"{100 * (float(times) - 1):+.0f} %"
    except (ValueError, OverflowError):
        return ""
