# SPDX-License-Identifier: Apache-2.0
"""Why a group is not written: an ordered tuple of small checks; people read the first refusal.

What a kernel lacks comes first (Unsupported), then what this node has seen of its engine, then known hazards that
nobody accepted (Refused, promise 5), then what this release cannot do. Turning offload off needs none of the hazard
checks.

Sources: "[PATCH RFC v6 0/5]" of the batch copy offload series and its review, 2026-06-30 (engines that complete out of
order); mm/migrate.c of its April 2026 posting (V5: a folio is copied before its references are looked at, and not
again); kernel/params.c (one lock for the parameters of all built-in modules); the series' own list of things to do (no
machine check recovery in the DMA path).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from numamigration_agent.kernel.dialects import DRIVEN, KNOBS, REASONS_FIELD, Knob
from numamigration_agent.kernel.engines import DMA_DRIVERS, DmaDriver
from numamigration_agent.kernel.probe import DriverState, KernelFacts
from numamigration_agent.verify import obstacle
from numamigration_agent.wishes import Wish
from numamigration_api.vocabulary import (
    AcceptedRisk,
    Dialect,
    Engine,
    GroupState,
    MigrationReason,
    Reason,
    SettingsGroup,
    UnsupportedPolicy,
    Verification,
)

SERIES_GROUPS: Final = frozenset(
    {SettingsGroup.OFFLOAD, SettingsGroup.BATCH, SettingsGroup.CPU_THREADS, SettingsGroup.MAP_CACHE}
)
"""Groups whose knobs the batch copy offload series brings."""


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
        """Named fields that this kernel does not have; reasons that are fixed are there, though nobody sets them."""
        present = {knob.field for knob in self.facts.knobs} | ({REASONS_FIELD} if self.facts.fixed_reasons else set())
        return tuple(field for field in self.fields if field not in present)

    def knob(self, field: str) -> Knob | None:
        """Return the knob of a field on this kernel."""
        return next((knob for knob in self.facts.knobs if knob.field == field), None)

    @property
    def eligible_reasons(self) -> frozenset[str]:
        """Migration reasons to be offloaded: those asked for, or all but memory_failure, as far as they are known.

        Where they are fixed, it is all of them or none: what cannot be left out keeps the rest from being offloaded.
        """
        fixed = self.facts.fixed_reasons
        known = self.facts.reasons_seen if fixed is None else fixed
        asked: Iterable[str] | None = self.wish.settings.get("reasons")
        eligible = known - {MigrationReason.MEMORY_FAILURE} if asked is None else known & frozenset(asked)
        return eligible if fixed in {None, eligible} else frozenset()

    def lacks_risk(self, risk: AcceptedRisk) -> bool:
        """Whether the wish does not name a risk."""
        return risk not in self.wish.accepted_risks


def group_supported(case: Situation) -> Refusal | None:
    """Refuse a group of which this kernel has no file at all."""
    if not case.fields or len(case.lacking) < len(case.fields):
        return None
    if case.wish.group in SERIES_GROUPS:
        return _series_missing(case)
    paths = ", ".join(knob.path for knob in KNOBS if knob.field in case.fields)
    return Refusal(GroupState.UNSUPPORTED, Reason.KERNEL_UNSUPPORTED, f"this kernel has no {paths}")


def _series_missing(case: Situation) -> Refusal:
    facts = case.facts
    if facts.dialect is not Dialect.NO_SERIES:
        driven = ", ".join(sorted(DRIVEN))
        lacking = "none of these fields" if facts.dialect in DRIVEN else f"dialect {facts.dialect}"
        message = f"the kernel has {lacking}; this release drives {driven}"
        return Refusal(GroupState.UNSUPPORTED, Reason.KERNEL_UNSUPPORTED, message)
    if facts.driver is DriverState.NOT_LOADED:
        message = "the kernel has dcbm as a module that is not loaded (CONFIG_DCBM_DMA=m); load it to use offload"
        return Refusal(GroupState.UNSUPPORTED, Reason.NOT_LOADED, message)
    message = "this kernel does not carry the batch copy offload series (no /sys/module/dcbm)"
    return Refusal(GroupState.UNSUPPORTED, Reason.KERNEL_UNSUPPORTED, message)


def engine_supported(case: Situation) -> Refusal | None:
    """Refuse an engine that this dialect does not have."""
    if case.wish.group is not SettingsGroup.OFFLOAD or case.wish.settings.get("engine") in {Engine.DMA, Engine.OFF}:
        return None
    message = f"dialect {case.facts.dialect} has no engine {case.wish.settings.get('engine')}; use DMA or Off"
    return Refusal(GroupState.UNSUPPORTED, Reason.KERNEL_UNSUPPORTED, message)


def fields_supported(case: Situation) -> Refusal | None:
    """Refuse a group with a field that this kernel lacks, if the policy is strict."""
    if case.wish.unsupported is not UnsupportedPolicy.STRICT or not case.lacking:
        return None
    message = f"this kernel lacks {', '.join(case.lacking)} and the policy says unsupported: Strict"
    return Refusal(GroupState.UNSUPPORTED, Reason.FIELD_UNSUPPORTED, message)


def engine_trusted(case: Situation) -> Refusal | None:
    """Refuse an engine that this node has seen to fail."""
    return case.veto


def dialect_harmless(case: Situation) -> Refusal | None:
    """Refuse a state of the series with a known hazard of its own."""
    driven = DRIVEN.get(case.facts.dialect)
    risks = driven.risks.items() if driven else ()
    return next((_not_accepted(risk, hazard) for risk, hazard in risks if case.lacks_risk(risk)), None)


def engine_in_order(case: Situation) -> Refusal | None:
    """Refuse engines that complete out of order: the driver waits for the last descriptor only."""
    return _hazardous_engine(
        case, AcceptedRisk.OUT_OF_ORDER_ENGINE, lambda known: not known.in_order, "completes out of order"
    )


def engine_exclusive(case: Situation) -> Refusal | None:
    """Refuse engines that other users of the kernel share."""
    return _hazardous_engine(case, AcceptedRisk.SHARED_ENGINE, lambda known: not known.exclusive, "is shared")


def _hazardous_engine(
    case: Situation, risk: AcceptedRisk, hazardous: Callable[[DmaDriver], bool], hazard: str
) -> Refusal | None:
    drivers = {row.driver for row in case.facts.engines if row.usable and hazardous(DMA_DRIVERS[row.driver])}
    if not drivers or not case.lacks_risk(risk):
        return None
    return _not_accepted(risk, f"DMA engine {', '.join(sorted(drivers))} {hazard}")


def memory_failure_accepted(case: Situation) -> Refusal | None:
    """Refuse to offload pages with memory errors: the DMA path cannot recover from them."""
    eligible = case.eligible_reasons
    if MigrationReason.MEMORY_FAILURE not in eligible or not case.lacks_risk(AcceptedRisk.MEMORY_FAILURE_OFFLOAD):
        return None
    return _not_accepted(
        AcceptedRisk.MEMORY_FAILURE_OFFLOAD, "memory_failure is among the reasons, and DMA cannot recover from it"
    )


def driver_is_module(case: Situation) -> Refusal | None:
    """Refuse a built-in driver: its stall blocks the parameters of all built-in modules."""
    if case.facts.driver is not DriverState.BUILT_IN or not case.lacks_risk(AcceptedRisk.BUILT_IN_DRIVER_STALL):
        return None
    return _not_accepted(AcceptedRisk.BUILT_IN_DRIVER_STALL, "dcbm is built into this kernel")


def engine_verified(case: Situation) -> Refusal | None:
    """Refuse an engine that cannot be tried on this host (promise 15)."""
    if case.wish.verification is not Verification.OFF:
        cause = obstacle(case.facts)
        message = f"{cause}; use verification: Off with acceptedRisks: [UnverifiedEngine] to use it untested"
        return Refusal(GroupState.REFUSED, Reason.VERIFICATION_IMPOSSIBLE, message) if cause else None
    if case.lacks_risk(AcceptedRisk.UNVERIFIED_ENGINE):
        return _not_accepted(AcceptedRisk.UNVERIFIED_ENGINE, "verification is Off")
    return None


def reasons_restrictable(case: Situation) -> Refusal | None:
    """Refuse when no reason is left that was asked for, or others cannot be left out (promise 3)."""
    if case.eligible_reasons:
        return None
    if case.facts.fixed_reasons is not None:
        unasked = case.facts.fixed_reasons - frozenset(case.wish.settings.get("reasons") or ())
        message = f"dialect {case.facts.dialect} would offload {', '.join(sorted(unasked))} too, and cannot restrict it"
        return Refusal(GroupState.REFUSED, Reason.REASONS_NOT_RESTRICTABLE, message)
    known = ", ".join(sorted(case.facts.reasons_seen)) or "none"
    message = f"none of the migration reasons asked for is known here; reason_mask has shown: {known}"
    return Refusal(GroupState.REFUSED, Reason.REASONS_NOT_RESTRICTABLE, message)


def channel_available(case: Situation) -> Refusal | None:
    """Refuse without a DMA channel: the kernel would say "on" and silently copy by CPU."""
    if case.facts.channels_usable:
        return None
    seen = ", ".join(f"{row.driver}: {row.obstacle}" for row in case.facts.engines) or "no DMA channel at all"
    return Refusal(GroupState.UNSUPPORTED, Reason.NO_DMA_CHANNEL, f"no DMA channel that can copy memory ({seen})")


GUARDS: Final = (group_supported, engine_supported, fields_supported)
"""For every group."""

TURN_ON_GUARDS: Final = (
    engine_trusted,
    dialect_harmless,
    engine_in_order,
    engine_exclusive,
    memory_failure_accepted,
    driver_is_module,
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
