# SPDX-License-Identifier: Apache-2.0
"""In which order processes take the files of a tier."""

from __future__ import annotations

from collections.abc import Sequence

import pytest


def begin_with(longest: Sequence[str], items: list[pytest.Item]) -> None:
    """Put files that take long first, by stem and in that order: none of them shall be the last one alone."""
    rank = {stem: number for number, stem in enumerate(longest)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))
