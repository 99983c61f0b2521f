# SPDX-License-Identifier: Apache-2.0
"""One group of a spec on this kernel: what guards and the risk table look at. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple, assert_never

from numamigration_agent.kernel.codecs import Codec, ReasonMask, Size, UInt, Words
from numamigration_agent.kernel.dialects import ENGINE_FIELD, KNOBS, REASONS_FIELD, Knob
from numamigration_agent.kernel.probe import KernelFacts
from numamigration_agent.wishes import Wish
from numamigration_api.vocabulary import AcceptedRisk, Engine, GroupState, MigrationReason, Reason

_CODECS: Final = {knob.setting: knob.codec for knob in KNOBS}


class Refusal(NamedTuple):
    """Why a group is not written."""

    state: GroupState
    reason: Reason
    message: str


class Veto(NamedTuple):
    """Why this node has lost its trust in an engine, by what it saw of it; `engine` is empty when that is in any."""

    refusal: Refusal
    engine: str = ""

    def concerns(self, engine: str) -> bool:
        """Whether an engine must not be on; one that is not named may be any."""
        return not engine or self.engine in {"", engine}


class Situation(NamedTuple):
    """What a check looks at."""

    facts: KernelFacts
    wish: Wish
    veto: Veto | None = None

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
    def distrust(self) -> Refusal | None:
        """Why the engine of the wish must not be on."""
        return self.veto.refusal if self.veto and self.veto.concerns(self.engine) else None

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
        Where the mask has gone, names that it has shown before restrict nothing.
        """
        fixed = self.facts.fixed_reasons
        asked: Iterable[str] | None = self.wish.settings.get("reasons")
        if fixed is not None:
            return fixed if asked is None or fixed <= frozenset(asked) else frozenset()
        known = self.facts.reasons_seen if self.facts.restricts_reasons else frozenset[str]()
        return known - {MigrationReason.MEMORY_FAILURE} if asked is None else known & frozenset(asked)

    def lacks_risk(self, risk: AcceptedRisk) -> bool:
        """Whether the wish does not name a risk."""
        return risk not in self.wish.accepted_risks


def in_words(wanted: Any) -> str:
    """Return a setting as people say it; empty when nothing is asked."""
    if isinstance(wanted, bool):
        return "true" if wanted else "false"
    return ",".join(map(str, wanted)) if isinstance(wanted, list) else "" if wanted is None else str(wanted)


def unknown_words(wish: Wish) -> str:
    """Return what this release does not understand of a wish; empty when all is known.

    Only what is of another kind than it should be: a field or word that this kernel lacks is Unsupported, by its name.
    """
    settings = {f"{wish.group}.{key}": wanted for key, wanted in wish.settings.items()}
    known = [(name, wanted) for name, wanted in settings.items() if name in _CODECS]
    return wish.skew or next((f"{name}: {wanted!r}" for name, wanted in known if _misfits(name, wanted)), "")


def _misfits(name: str, wanted: Any) -> bool:
    if name == ENGINE_FIELD:
        return wanted not in list(Engine)
    codec: Codec = _CODECS[name]
    match codec:
        case UInt():
            return not isinstance(wanted, int) or isinstance(wanted, bool)
        case Size():
            return not isinstance(wanted, str) or codec.unshow(wanted) is None
        case ReasonMask():
            return not isinstance(wanted, list) or not all(isinstance(reason, str) for reason in wanted)
        case Words():
            return not isinstance(wanted, bool) and (not isinstance(wanted, str) or not wanted)
        case _:
            assert_never(codec)
