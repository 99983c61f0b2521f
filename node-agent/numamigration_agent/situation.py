# SPDX-License-Identifier: Apache-2.0
"""One group of a spec on this kernel: what guards and the risk table look at. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from numamigration_agent.kernel.dialects import REASONS_FIELD, Knob
from numamigration_agent.kernel.probe import KernelFacts
from numamigration_agent.wishes import Wish
from numamigration_api.vocabulary import AcceptedRisk, Engine, GroupState, MigrationReason, Reason


class Refusal(NamedTuple):
    """Why a group is not written."""

    state: GroupState
    reason: Reason
    message: str


class Situation(NamedTuple):
    """What a check looks at.

    Attributes:
        veto: why this node has lost its trust in the engine, by what it saw of it.
    """

    facts: KernelFacts
    wish: Wish
    veto: Refusal | None = None

    @property
    def fields(self) -> tuple[str, ...]:
        """The settings fields that the wish names."""
        return tuple(f"{self.wish.group}.{key}" for key in self.wish.settings)

    @property
    def lacking(self) -> tuple[str, ...]:
        """Named fields that this kernel has nothing for; reasons that are fixed are there, though nobody sets them."""
        present = {REASONS_FIELD} if self.facts.fixed_reasons else set()
        wanted = {f"{self.wish.group}.{key}": in_words(value) for key, value in self.wish.settings.items()}
        present |= {knob.setting for knob in self.facts.knobs if knob.takes(wanted.get(knob.setting, ""))}
        return tuple(field for field in self.fields if field not in present)

    def knobs(self, setting: str) -> tuple[Knob, ...]:
        """Return the knobs that serve a settings field on this kernel."""
        return tuple(knob for knob in self.facts.knobs if knob.setting == setting)

    @property
    def engine(self) -> str:
        """The engine that the wish turns on; empty when it turns none on."""
        engine = str(self.wish.settings.get("engine", ""))
        return "" if engine == Engine.OFF else engine

    @property
    def by_dma(self) -> bool:
        """Whether the wish turns on an engine that needs DMA channels."""
        return self.engine == Engine.DMA

    @property
    def reasons_known(self) -> bool:
        """Whether it is known which migrations are offloaded; else the dialect decides, and nobody has read how."""
        return self.facts.restricts_reasons or self.facts.fixed_reasons is not None

    @property
    def eligible_reasons(self) -> frozenset[str]:
        """Migration reasons to be offloaded: those asked for, or all but memory_failure, as far as they are known.

        Where they are fixed, it is all of them or none: what cannot be left out keeps the rest from being offloaded.
        """
        fixed = self.facts.fixed_reasons
        asked: Iterable[str] | None = self.wish.settings.get("reasons")
        if fixed is not None:
            return fixed if asked is None or fixed <= frozenset(asked) else frozenset()
        known = self.facts.reasons_seen
        return known - {MigrationReason.MEMORY_FAILURE} if asked is None else known & frozenset(asked)

    def lacks_risk(self, risk: AcceptedRisk) -> bool:
        """Whether the wish does not name a risk."""
        return risk not in self.wish.accepted_risks


def in_words(wanted: Any) -> str:
    """Return a setting as people say it; empty when nothing is asked."""
    if isinstance(wanted, bool):
        return "true" if wanted else "false"
    return ",".join(wanted) if isinstance(wanted, list) else "" if wanted is None else str(wanted)
