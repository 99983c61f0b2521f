# SPDX-License-Identifier: Apache-2.0
"""Why a group is not written: an ordered tuple of small checks; people read the first refusal.

What a kernel lacks comes first (Unsupported), then what this node has seen of its engine, then known hazards that
nobody accepted (Refused, promise 5: the rows of ``hazards``), then what this release cannot do. Turning offload off
needs none of the hazard checks.
"""

from __future__ import annotations

from typing import Final

from numamigration_agent.hazards import HAZARDS
from numamigration_agent.kernel.dialects import DRIVEN, ENGINE_FIELD, KNOBS
from numamigration_agent.kernel.probe import DriverState
from numamigration_agent.situation import Refusal, Situation
from numamigration_agent.verify import obstacle
from numamigration_api.vocabulary import (
    AcceptedRisk,
    Engine,
    GroupState,
    Reason,
    SettingsGroup,
    UnsupportedPolicy,
    Verification,
)

SERIES_GROUPS: Final = frozenset(
    {SettingsGroup.OFFLOAD, SettingsGroup.BATCH, SettingsGroup.CPU_THREADS, SettingsGroup.MAP_CACHE}
)
"""Groups whose knobs the batch copy offload series brings."""


def group_supported(case: Situation) -> Refusal | None:
    """Refuse a group of which this kernel has no file at all."""
    if not case.fields or len(case.lacking) < len(case.fields):
        return None
    if case.wish.group in SERIES_GROUPS:
        return _series_missing(case)
    paths = ", ".join(knob.path for knob in KNOBS if knob.setting in case.fields)
    return Refusal(GroupState.UNSUPPORTED, Reason.KERNEL_UNSUPPORTED, f"this kernel has no {paths}")


def _series_missing(case: Situation) -> Refusal:
    facts = case.facts
    if facts.row.knobs:
        message = f"dialect {facts.dialect} has nothing for {', '.join(case.fields)}"
        return Refusal(GroupState.UNSUPPORTED, Reason.KERNEL_UNSUPPORTED, message)
    if facts.driver is DriverState.NOT_LOADED:
        message = "the kernel has dcbm as a module that is not loaded (CONFIG_DCBM_DMA=m); load it to use offload"
        return Refusal(GroupState.UNSUPPORTED, Reason.NOT_LOADED, message)
    if facts.driver is not DriverState.NONE:
        message = f"this kernel has {facts.row.module_dir}, but no file there that this release knows (unknownFiles)"
        return Refusal(GroupState.UNSUPPORTED, Reason.KERNEL_UNSUPPORTED, message)
    message = "this kernel does not carry the batch copy offload series (no /sys/module/dcbm)"
    return Refusal(GroupState.UNSUPPORTED, Reason.KERNEL_UNSUPPORTED, message)


def dialect_driven(case: Situation) -> Refusal | None:
    """Refuse all but turning off where this release does no more."""
    why = case.facts.row.only_turned_off
    if not why or case.wish.group not in SERIES_GROUPS or case.wish.settings.get("engine") == Engine.OFF:
        return None
    message = f"dialect {case.facts.dialect} is only turned off: {why}; this release sets {', '.join(sorted(DRIVEN))}"
    return Refusal(GroupState.UNSUPPORTED, Reason.KERNEL_UNSUPPORTED, message)


def engine_supported(case: Situation) -> Refusal | None:
    """Refuse an engine that this dialect does not have."""
    if case.wish.group is not SettingsGroup.OFFLOAD or not case.engine:
        return None
    engines = engines_of(case)
    if case.engine in engines:
        return None
    message = f"dialect {case.facts.dialect} has no engine {case.engine}; use {' or '.join((*engines, Engine.OFF))}"
    return Refusal(GroupState.UNSUPPORTED, Reason.KERNEL_UNSUPPORTED, message)


def engines_of(case: Situation) -> tuple[str, ...]:
    """Return the engines that this kernel has a switch for."""
    return tuple(engine for engine in Engine if any(knob.turns_on(engine) for knob in case.knobs(ENGINE_FIELD)))


def fields_supported(case: Situation) -> Refusal | None:
    """Refuse a group with a field that this kernel lacks, if the policy is strict."""
    if case.wish.unsupported is not UnsupportedPolicy.STRICT or not case.lacking:
        return None
    message = f"this kernel lacks {', '.join(case.lacking)} and the policy says unsupported: Strict"
    return Refusal(GroupState.UNSUPPORTED, Reason.FIELD_UNSUPPORTED, message)


def engine_trusted(case: Situation) -> Refusal | None:
    """Refuse an engine that this node has seen to fail."""
    return case.distrust


def hazards_accepted(case: Situation) -> Refusal | None:
    """Refuse the first known hazard that the policy does not name (promise 5)."""
    known = (row for row in HAZARDS if row.risk in case.facts.row.hazards and case.lacks_risk(row.risk))
    return next((_not_accepted(row.risk, hazard) for row in known if (hazard := row.shows(case))), None)


def engine_verified(case: Situation) -> Refusal | None:
    """Refuse an engine that cannot be tried on this host (promise 15)."""
    if case.wish.verification is not Verification.OFF:
        cause = obstacle(case.facts)
        message = f"{cause}; use verification: Off with acceptedRisks: [UnverifiedEngine] to use it untested"
        return Refusal(GroupState.REFUSED, Reason.VERIFICATION_IMPOSSIBLE, message) if cause else None
    return None


def reasons_restrictable(case: Situation) -> Refusal | None:
    """Refuse when no reason is left that was asked for, or others cannot be left out (promise 3)."""
    asked = case.wish.settings.get("reasons")
    if case.eligible_reasons or (asked is None and not case.reasons_known):
        return None
    if case.facts.restricts_reasons:
        known = ", ".join(sorted(case.facts.reasons_seen)) or "none"
        message = f"none of the migration reasons asked for is known here; reason_mask has shown: {known}"
        return Refusal(GroupState.REFUSED, Reason.REASONS_NOT_RESTRICTABLE, message)
    unasked = (case.facts.fixed_reasons or frozenset()) - frozenset(asked or ())
    others = ", ".join(sorted(unasked)) or "reasons that it does not tell"
    message = f"dialect {case.facts.dialect} would offload {others} too, and cannot restrict it"
    return Refusal(GroupState.REFUSED, Reason.REASONS_NOT_RESTRICTABLE, message)


def channel_available(case: Situation) -> Refusal | None:
    """Refuse without a DMA channel: the kernel would say "on" and silently copy by CPU."""
    if case.facts.channels_usable or not case.by_dma:
        return None
    seen = ", ".join(f"{row.driver}: {row.obstacle}" for row in case.facts.engines) or "no DMA channel at all"
    return Refusal(GroupState.UNSUPPORTED, Reason.NO_DMA_CHANNEL, f"no DMA channel that can copy memory ({seen})")


GUARDS: Final = (group_supported, dialect_driven, engine_supported, fields_supported)
"""For every group."""

TURN_ON_GUARDS: Final = (
    engine_trusted,
    hazards_accepted,
    engine_verified,
    reasons_restrictable,
    channel_available,
)
"""For turning offload on."""


def first_refusal(case: Situation) -> Refusal | None:
    """Return the first refusal, or None when the group may be written."""
    turns_on = case.wish.group is SettingsGroup.OFFLOAD and case.wish.settings.get("engine") != Engine.OFF
    guards = GUARDS + TURN_ON_GUARDS if turns_on else GUARDS
    return next((refusal for guard in guards if (refusal := guard(case)) is not None), None)


def _not_accepted(risk: AcceptedRisk, hazard: str) -> Refusal:
    message = f"{hazard}; name {risk} in acceptedRisks or narrow the selector"
    return Refusal(GroupState.REFUSED, Reason.RISK_NOT_ACCEPTED, message)
