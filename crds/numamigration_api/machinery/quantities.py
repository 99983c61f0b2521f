# SPDX-License-Identifier: Apache-2.0
"""Sizes, shares and decimals as the API spells them: strings, so that no float is ever stored.

Sizes use the binary suffixes of Kubernetes quantities only (``32Ki``, ``2Mi``, ``1Gi``) or plain bytes; decimal
suffixes, fractions and signs are refused by the schema already (``SIZE_PATTERN``).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from decimal import Decimal

SIZE_PATTERN: Final = r"^[1-9][0-9]{0,14}(Ki|Mi|Gi)?$"
SIZE_LENGTH_MAX: Final = 17
PERCENT_PATTERN: Final = r"^(100|[1-9][0-9]?)%$"
PERCENT_OR_ZERO_PATTERN: Final = r"^(100|[1-9]?[0-9])%$"
DECIMAL_PATTERN: Final = r"^[0-9]{1,12}(\.[0-9]{1,6})?$"
DECIMAL_LENGTH_MAX: Final = 19

_FACTORS: Final = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
_SIZE: Final = re.compile(SIZE_PATTERN)
_PERCENT: Final = re.compile(PERCENT_OR_ZERO_PATTERN)


def size_bytes(text: str) -> int:
    """Return the bytes of ``32Ki``-like text.

    Raises:
        ValueError: not a size of this API.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a size; write whole bytes or a number with Ki, Mi or Gi, for example 32Ki")
    suffix = match[1] or ""
    return int(text.removesuffix(suffix)) * _FACTORS[suffix]


def size_text(count: int) -> str:
    """Return bytes as people write them, with the largest suffix that keeps the number whole."""
    for suffix, factor in reversed(_FACTORS.items()):
        if count and count % factor == 0:
            return f"{count // factor}{suffix}"
    return str(count)


def count_of(value: int | str, total: int, *, at_least: int) -> int:
    """Turn a count or a percentage of `total` into a count; a percentage rounds up.

    Args:
        value: a whole number, or text like ``10%``.
        total: what 100 % is.
        at_least: lower bound of the answer.

    Raises:
        ValueError: text that is not a percentage.
    """
    if isinstance(value, int):
        return max(at_least, value)
    if _PERCENT.fullmatch(value) is None:
        raise ValueError(f"{value!r} is neither a whole number nor a percentage like '10%'")
    return max(at_least, -(-total * int(value[:-1]) // 100))


def decimal_text(value: float | Decimal, *, places: int = 3) -> str:
    """Return a decimal string without exponent and without trailing zeros, for example ``"12.5"``."""
    text = f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def parse_decimal(text: str) -> Decimal:
    """Return the value of a decimal string.

    Raises:
        ValueError: not a decimal of this API.
    """
    if re.fullmatch(DECIMAL_PATTERN, text) is None:
        raise ValueError(f"{text!r} is not a decimal like '0.01'")
    from decimal import Decimal  # the agent never comes here, and need not carry it

    return Decimal(text)
