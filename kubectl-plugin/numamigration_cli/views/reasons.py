# SPDX-License-Identifier: Apache-2.0
"""Reasons in words; one of a newer release has none here."""

from __future__ import annotations

from numamigration_api.vocabulary import REASON_MEANING, Reason


def meaning(reason: str) -> str:
    """Return what a reason means and what to do."""
    try:
        return REASON_MEANING[Reason(reason)]
    except ValueError:
        return f"{reason} is a word of another release than this plugin's."
